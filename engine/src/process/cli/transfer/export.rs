//! `export`: all entries of a range as of one snapshot, written to a file that appears when it is whole.
//!
//! 1. A file beside the wanted one is made, under a name of its own.
//! 2. Pages of one scan are written to it as they come.
//! 3. It is synced and renamed, and the directory is synced. What had the name before is replaced.
//!
//! Whatever fails on the way removes the half-made file.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ostrakon_client::{Entry, Error, Scan};

use super::super::commands::Context;
use super::super::failure::Failure;
use super::super::link::{Stopwatch, timestamp_us};
use super::super::requests::{ExportArguments, FileFormat};
use super::binary::BinaryWriter;
use super::progress::Progress;
use super::{STANDARD, format_of, json};

/// Entries that are asked for and written in turn.
const CHUNK: usize = 1_000;

/// `export`.
pub(in super::super) fn export(arguments: &ExportArguments, context: &mut Context) -> Result<(), Failure> {
    let format = format_of(&arguments.file, arguments.format)?;
    // Connecting first leaves no file behind if nobody answers.
    context.link.connect()?;
    let progress = Progress::new("export", None);
    if arguments.file == Path::new(STANDARD) {
        let out = progress.bar().wrap_write(io::stdout().lock());
        return write_entries(arguments, format, context, out, "stdout").map(|_| ());
    }
    let half_made = HalfMade::create(&arguments.file)?;
    let out = progress.bar().wrap_write(&half_made.file);
    let place = arguments.file.display().to_string();
    let entries = write_entries(arguments, format, context, out, &place)?;
    half_made.finish()?;
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
    let cannot_write = |error: io::Error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::Failed(format!("cannot write {place}: {error}")),
    };
    let options = arguments.range.scan_options(arguments.start.as_ref());
    let interrupt = Arc::clone(context.link.interrupt());
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

/// A file under a name of its own, until it is whole.
#[derive(Debug)]
struct HalfMade {
    file: File,
    path: PathBuf,
    wanted: PathBuf,
}

impl HalfMade {
    fn create(wanted: &Path) -> Result<HalfMade, Failure> {
        let name = wanted
            .file_name()
            .ok_or_else(|| Failure::Usage(format!("{} is no name of a file", wanted.display())))?;
        let half = format!(".{}.{}.half", name.to_string_lossy(), std::process::id());
        let path = wanted.with_file_name(half);
        let file = File::create_new(&path)
            .map_err(|error| Failure::Failed(format!("cannot create {}: {error}", path.display())))?;
        Ok(HalfMade {
            file,
            path,
            wanted: wanted.to_owned(),
        })
    }

    fn finish(self) -> Result<(), Failure> {
        let directory = match self.wanted.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        self.file
            .sync_all()
            .and_then(|()| std::fs::rename(&self.path, &self.wanted))
            .and_then(|()| File::open(directory)?.sync_all())
            .map_err(|error| Failure::Failed(format!("cannot finish {}: {error}", self.wanted.display())))
    }
}

impl Drop for HalfMade {
    fn drop(&mut self) {
        // It is gone already if it was renamed, which is as well.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let wanted = directory.path().join("a.jsonl");
        std::fs::write(&wanted, "before").unwrap();
        let names = || std::fs::read_dir(directory.path()).unwrap().count();
        let half_made = HalfMade::create(&wanted).unwrap();
        (&half_made.file).write_all(b"half").unwrap();
        assert_eq!(names(), 2);
        drop(half_made);
        assert_eq!(
            (names(), std::fs::read(&wanted).unwrap()),
            (1, b"before".to_vec())
        );
        let half_made = HalfMade::create(&wanted).unwrap();
        (&half_made.file).write_all(b"whole").unwrap();
        half_made.finish().unwrap();
        assert_eq!((names(), std::fs::read(&wanted).unwrap()), (1, b"whole".to_vec()));
    }
}
