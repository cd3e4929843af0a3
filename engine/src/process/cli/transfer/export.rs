//! `export`: all entries of a range as of one snapshot, written to a file that appears when it is whole.
//!
//! 1. A file beside the wanted one is made, under a name of its own.
//! 2. Pages of one scan are written to it as they come.
//! 3. It is synced and renamed, and the directory is synced. The file that had the name before is replaced.
//!
//! Whatever fails on the way removes the half-made file; only a killed process leaves it. A symbolic link stays, and
//! the file that it leads to is the wanted one. What is there and is no regular file (a pipe, a device) is written to
//! directly, as stdout is.

use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ostrakon_client::{Entry, Error, Scan};

use super::super::commands::Context;
use super::super::failure::Failure;
use super::super::interrupt::Interrupt;
use super::super::link::{Stopwatch, timestamp_us};
use super::super::requests::{ExportArguments, FileFormat};
use super::binary::BinaryWriter;
use super::progress::Progress;
use super::stream::Stream;
use super::{STANDARD, format_of, json};

/// Entries that are asked for and written in turn.
const CHUNK: usize = 1_000;
/// What stdout is called.
const STDOUT: &str = "stdout";
/// Symbolic links that are followed from one name, as by the system.
const LINKS_MAX: usize = 40;

/// `export`.
pub(in super::super) fn export(arguments: &ExportArguments, context: &mut Context) -> Result<(), Failure> {
    let file = context.spelling.path(&arguments.file)?;
    let format = format_of(&file, arguments.format)?;
    // Connecting first leaves no file behind if nobody answers.
    context.link.connect()?;
    let progress = Progress::new("export", None);
    if file == Path::new(STANDARD) {
        let out = progress.bar().wrap_write(io::stdout().lock());
        return write_entries(arguments, format, context, out, STDOUT).map(|_| ());
    }
    let place = file.display().to_string();
    let entries = match Target::open(&file, context.link.interrupt())? {
        Target::Direct(stream) => {
            let out = progress.bar().wrap_write(stream);
            write_entries(arguments, format, context, out, &place)?
        }
        Target::HalfMade(half_made) => {
            let out = progress.bar().wrap_write(&half_made.file);
            let entries = write_entries(arguments, format, context, out, &place)?;
            half_made.finish()?;
            entries
        }
    };
    let total = progress.total(entries);
    drop(progress);
    eprintln!("exported {total} to {place}");
    Ok(())
}

/// Writes all entries to `out`, which is called `place` in messages, and returns their number.
fn write_entries(
    arguments: &ExportArguments,
    format: FileFormat,
    context: &mut Context,
    out: impl Write,
    place: &str,
) -> Result<u64, Failure> {
    let interrupt = Arc::clone(context.link.interrupt());
    let cannot_write = |error: io::Error| match error.kind() {
        _ if interrupt.is_raised() => Failure::cancelled(),
        io::ErrorKind::BrokenPipe if place == STDOUT => Failure::OutputClosed,
        _ => Failure::Failed(format!("cannot write {place}: {error}")),
    };
    let options = arguments.range.scan_options(arguments.start.as_ref());
    let mut out = BufWriter::new(out);
    let entries = context.link.run(|client, watch| {
        let mut scan = client.scan(options);
        // The snapshot, which the header tells, is known with the first page.
        let mut chunk = next_chunk(&mut scan, watch)?;
        let mut sink = Sink::new(format, &mut out, scan.snapshot()).map_err(cannot_write)?;
        let mut entries = 0;
        while !chunk.is_empty() {
            interrupt.check()?;
            entries += chunk.len() as u64;
            let mut written = chunk.iter().map(|entry| sink.write(entry));
            written.try_for_each(|written| written).map_err(cannot_write)?;
            chunk = next_chunk(&mut scan, watch)?;
        }
        sink.finish().map_err(cannot_write)?;
        Ok(entries)
    })?;
    out.flush().map_err(cannot_write)?;
    Ok(entries)
}

fn next_chunk(scan: &mut Scan<'_>, watch: &mut Stopwatch) -> Result<Vec<Entry>, Error> {
    watch.time(|| scan.take(CHUNK).collect())
}

/// Where entries go, in one of the formats.
enum Sink<W> {
    Json(W),
    Binary(BinaryWriter<W>),
}

impl<W: Write> Sink<W> {
    fn new(format: FileFormat, out: W, snapshot: u64) -> io::Result<Sink<W>> {
        Ok(match format {
            FileFormat::Json => Sink::Json(out),
            FileFormat::Binary => Sink::Binary(BinaryWriter::new(out, snapshot)?),
        })
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let expires_us = timestamp_us(entry.expires);
        match self {
            Sink::Json(out) => json::write_line(out, &entry.key, &entry.value, expires_us),
            Sink::Binary(writer) => writer.write(&entry.key, &entry.value, expires_us),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Sink::Json(_) => Ok(()),
            Sink::Binary(writer) => writer.finish(),
        }
    }
}

/// Where an export goes that has a name.
#[derive(Debug)]
enum Target {
    /// No regular file.
    Direct(Stream),
    HalfMade(HalfMade),
}

impl Target {
    fn open(name: &Path, interrupt: &Arc<Interrupt>) -> Result<Target, Failure> {
        let failed = |error| Failure::Failed(format!("cannot open {}: {error}", name.display()));
        match fs::metadata(name) {
            Ok(before) if before.is_file() => {
                let wanted = follow(name).map_err(failed)?;
                HalfMade::create(wanted, Some(&before)).map(Target::HalfMade)
            }
            Ok(_) => match Stream::create(name, interrupt) {
                Ok(stream) => Ok(Target::Direct(stream)),
                Err(_) if interrupt.is_raised() => Err(Failure::cancelled()),
                Err(error) => Err(failed(error)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let wanted = follow(name).map_err(failed)?;
                HalfMade::create(wanted, None).map(Target::HalfMade)
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// Where a name leads that may be a symbolic link, perhaps to nothing.
fn follow(name: &Path) -> io::Result<PathBuf> {
    let mut path = name.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            Ok(target) => {
                let parent = path.parent().unwrap_or(Path::new(""));
                // Who redirects stdout into a file wants it behind what is there.
                if fs::canonicalize(parent).is_ok_and(|parent| parent.starts_with("/proc")) {
                    return Err(io::Error::other(
                        "it is an open file of a process, which can't be replaced: name - for stdout, or the \
                         file itself",
                    ));
                }
                path = parent.join(target);
            }
            // Nothing, or no link.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
                ) =>
            {
                return Ok(path);
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("its symbolic links are too many"))
}

/// A file under a name of its own, until it is whole.
#[derive(Debug)]
struct HalfMade {
    file: File,
    path: PathBuf,
    wanted: PathBuf,
}

impl HalfMade {
    /// `before`: of the file that it is to replace, whose permissions it keeps.
    fn create(wanted: PathBuf, before: Option<&Metadata>) -> Result<HalfMade, Failure> {
        let name = wanted
            .file_name()
            .ok_or_else(|| Failure::Usage(format!("{} is no name of a file", wanted.display())))?;
        let failed =
            |path: &Path, error| Failure::Failed(format!("cannot create {}: {error}", path.display()));
        let mut number = 0;
        let (file, path) = loop {
            let half = format!(".{}.{}.{number}.half", name.to_string_lossy(), std::process::id());
            let path = wanted.with_file_name(half);
            match File::create_new(&path) {
                Ok(file) => break (file, path),
                // What a process of the same number has left behind.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(failed(&path, error)),
            }
        };
        let half_made = HalfMade { file, path, wanted };
        if let Some(before) = before {
            let set = half_made.file.set_permissions(before.permissions());
            set.map_err(|error| failed(&half_made.path, error))?;
        }
        Ok(half_made)
    }

    fn finish(self) -> Result<(), Failure> {
        let directory = match self.wanted.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        self.file
            .sync_all()
            .and_then(|()| fs::rename(&self.path, &self.wanted))
            .and_then(|()| File::open(directory)?.sync_all())
            .map_err(|error| Failure::Failed(format!("cannot finish {}: {error}", self.wanted.display())))
    }
}

impl Drop for HalfMade {
    fn drop(&mut self) {
        // It is gone already if it was renamed, which is as well.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn half_made(name: &Path) -> HalfMade {
        match Target::open(name, &Arc::default()).unwrap() {
            Target::HalfMade(half_made) => half_made,
            Target::Direct(_) => panic!("{} is written to directly", name.display()),
        }
    }

    fn make(name: &Path, text: &[u8]) {
        let half_made = half_made(name);
        (&half_made.file).write_all(text).unwrap();
        half_made.finish().unwrap();
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let wanted = directory.path().join("a.jsonl");
        fs::write(&wanted, "before").unwrap();
        fs::set_permissions(&wanted, fs::Permissions::from_mode(0o600)).unwrap();
        let names = || fs::read_dir(directory.path()).unwrap().count();
        let first = half_made(&wanted);
        (&first.file).write_all(b"half").unwrap();
        assert_eq!(names(), 2);
        drop(first);
        assert_eq!((names(), fs::read(&wanted).unwrap()), (1, b"before".to_vec()));
        make(&wanted, b"whole");
        assert_eq!((names(), fs::read(&wanted).unwrap()), (1, b"whole".to_vec()));
        let mode = fs::metadata(&wanted).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_another_export_has_left_behind_is_in_nobodys_way() {
        let directory = tempfile::tempdir().unwrap();
        let wanted = directory.path().join("a.jsonl");
        let left_behind = half_made(&wanted);
        make(&wanted, b"whole");
        assert!(left_behind.path.exists());
    }

    #[test]
    fn links_stay_and_what_they_lead_to_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        fs::create_dir(place("data")).unwrap();
        symlink("data/a.jsonl", place("relative")).unwrap();
        symlink(place("relative"), place("absolute")).unwrap();
        // At first there is nothing where they lead.
        for text in ["first", "second"] {
            make(&place("absolute"), text.as_bytes());
            assert_eq!(fs::read_to_string(place("data/a.jsonl")).unwrap(), text);
        }
        assert_eq!(
            fs::read_link(place("relative")).unwrap(),
            Path::new("data/a.jsonl")
        );
        assert_eq!(fs::read_dir(place("data")).unwrap().count(), 1);
        symlink("loop", place("loop")).unwrap();
        assert!(Target::open(&place("loop"), &Arc::default()).is_err());
    }

    #[test]
    fn an_open_file_of_a_process_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let wanted = directory.path().join("a.jsonl");
        fs::write(&wanted, "before").unwrap();
        let file = File::open(&wanted).unwrap();
        for name in [
            format!("/proc/self/fd/{}", file.as_raw_fd()),
            format!("/dev/fd/{}", file.as_raw_fd()),
        ] {
            let refusal = Target::open(Path::new(&name), &Arc::default()).unwrap_err();
            assert!(refusal.to_string().contains("name - for stdout"), "{refusal}");
        }
        assert_eq!(fs::read_to_string(&wanted).unwrap(), "before");
    }

    #[test]
    fn what_is_no_regular_file_is_written_to_directly() {
        assert!(matches!(
            Target::open(Path::new("/dev/null"), &Arc::default()),
            Ok(Target::Direct(_))
        ));
        let refusal = Target::open(Path::new("/"), &Arc::default()).unwrap_err();
        assert!(refusal.to_string().contains("cannot open /"), "{refusal}");
    }
}
