//! Checks of the place where the data is to lie: writable, a file system that keeps data, direct IO, space.
//!
//! If the directory does not exist yet, the nearest existing directory above it is looked at, and nothing
//! is created. Probe files are unlinked right after they are opened, so that not even a crash leaves one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, OFlags, StatxFlags};

use super::Check;
use super::machine::bytes;

/// The unit in which a node writes; a device or file system with a coarser unit can't be used.
pub const WRITE_UNIT_BYTES: usize = 4096;

/// With less than this a new node has no room for the first log segments of some cores. No reason to refuse: a
/// node that filled its disk must be able to start again, and says itself when it can't.
const SPACE_MIN_BYTES: u64 = 256 << 20;

/// Below this a node under load fills the disk soon.
const SPACE_COMFORTABLE_BYTES: u64 = 4 << 30;

/// A buffer that direct IO accepts on every device.
#[repr(C, align(4096))]
pub(super) struct Block(pub(super) [u8; WRITE_UNIT_BYTES]);

/// A kind of file system, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// On a device, known to work.
    Local(&'static str),
    /// In memory: gone after a restart of the machine.
    Memory(&'static str),
    /// Copy on write: rewriting a preallocated block allocates anew.
    CopyOnWrite(&'static str),
    /// A container's upper layer, deleted together with the container.
    Overlay,
    /// Another machine or a user-space program stands between.
    Remote(&'static str),
    /// Never tried; the kernel's magic number.
    Unknown(u64),
}

impl FileSystem {
    /// From the kernel's magic number (`statfs(2)`).
    pub fn from_magic(magic: u64) -> FileSystem {
        match magic {
            0xEF53 => FileSystem::Local("ext4"),
            0x5846_5342 => FileSystem::Local("xfs"),
            0xF2F5_2010 => FileSystem::Local("f2fs"),
            0x0102_1994 => FileSystem::Memory("tmpfs"),
            0x8584_58F6 => FileSystem::Memory("ramfs"),
            0x9123_683E => FileSystem::CopyOnWrite("btrfs"),
            0x2FC1_2FC1 => FileSystem::CopyOnWrite("zfs"),
            0xCA45_1A4E => FileSystem::CopyOnWrite("bcachefs"),
            0x794C_7630 => FileSystem::Overlay,
            0x6969 => FileSystem::Remote("nfs"),
            0xFE53_4D42 | 0xFF53_4D42 => FileSystem::Remote("smb"),
            0x6573_5546 => FileSystem::Remote("fuse or virtiofs"),
            0x0102_1997 => FileSystem::Remote("9p"),
            0x00C3_6400 => FileSystem::Remote("ceph"),
            other => FileSystem::Unknown(other),
        }
    }
}

/// The outcome of trying direct IO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectIo {
    /// Writes of [`WRITE_UNIT_BYTES`] work.
    Works {
        /// Finest unit of file offset and length, in bytes.
        offset_alignment: u32,
        /// The kernel named the unit (`STATX_DIOALIGN`); otherwise it was found by trying.
        told: bool,
    },
    /// The kernel names a unit that is coarser than what a node writes.
    TooCoarse {
        /// That unit, in bytes.
        offset_alignment: u32,
    },
    /// Opening or writing failed.
    Failed {
        /// `opening a file` or `writing`.
        action: &'static str,
        /// What the system said.
        error: String,
    },
}

/// What is known about the place of the data.
#[derive(Debug, Clone)]
pub struct DataDirectoryFacts {
    /// As asked for, made absolute.
    pub directory: PathBuf,
    /// The directory that was looked at: the same, or the nearest above it that exists.
    pub probed: PathBuf,
    /// Whether a file can be made there, or what the system said.
    pub writable: Result<(), String>,
    /// The file system.
    pub file_system: Option<FileSystem>,
    /// Direct IO; none if no file can be made.
    pub direct_io: Option<DirectIo>,
    /// Space free for this user, and all, in bytes.
    pub space_bytes: Option<(u64, u64)>,
}

/// Looks at the place of a data directory.
pub fn collect(directory: &Path) -> DataDirectoryFacts {
    let probed = nearest_existing(directory);
    let writable = probe_file(&probed, OFlags::empty()).map(drop);
    let direct_io = writable.is_ok().then(|| try_direct_io(&probed));
    let space = rustix::fs::statvfs(&probed).ok();
    DataDirectoryFacts {
        directory: std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned()),
        writable: writable.map_err(|error| error.to_string()),
        file_system: rustix::fs::statfs(&probed)
            .ok()
            .map(|found| FileSystem::from_magic(found.f_type as u64)),
        direct_io,
        space_bytes: space.map(|found| {
            (
                found.f_bavail.saturating_mul(found.f_frsize),
                found.f_blocks.saturating_mul(found.f_frsize),
            )
        }),
        probed,
    }
}

/// The directory itself or the innermost above it that is there.
fn nearest_existing(directory: &Path) -> PathBuf {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    // The root directory always exists.
    absolute
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"))
        .to_owned()
}

/// An empty file without a name in a directory, for reading and writing.
pub(super) fn probe_file(directory: &Path, flags: OFlags) -> io::Result<File> {
    let path = directory.join(format!(".ostrakon-probe-{}-{}", std::process::id(), flags.bits()));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .custom_flags(flags.bits().cast_signed())
        .open(&path);
    if file
        .as_ref()
        .is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists)
    {
        // Left by a process of this id that died between the two calls, or kept by the file system after a
        // refused open.
        std::fs::remove_file(&path)?;
        return probe_file(directory, flags);
    }
    if file.is_ok() || path.exists() {
        std::fs::remove_file(&path)?;
    }
    file
}

fn try_direct_io(directory: &Path) -> DirectIo {
    let failed = |action, error: &io::Error| DirectIo::Failed {
        action,
        error: error.to_string(),
    };
    let file = match probe_file(directory, OFlags::DIRECT | OFlags::DSYNC) {
        Ok(file) => file,
        Err(error) => return failed("opening a file", &error),
    };
    let told = told_alignment(&file);
    if let Some(offset_alignment) = told.filter(|&alignment| alignment as usize > WRITE_UNIT_BYTES) {
        return DirectIo::TooCoarse { offset_alignment };
    }
    let block = Block([0; WRITE_UNIT_BYTES]);
    if let Err(error) = file.write_all_at(&block.0, 0) {
        return failed("writing", &error);
    }
    let sectors_work = || file.write_all_at(&block.0[..512], 512).is_ok();
    let offset_alignment = told.unwrap_or_else(|| {
        if sectors_work() {
            512
        } else {
            WRITE_UNIT_BYTES as u32
        }
    });
    DirectIo::Works {
        offset_alignment,
        told: told.is_some(),
    }
}

/// What the kernel (6.1 or newer) says about direct IO on a file; none if it does not say.
fn told_alignment(file: &File) -> Option<u32> {
    let wanted = StatxFlags::DIOALIGN;
    let found = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, wanted).ok()?;
    let told = StatxFlags::from_bits_retain(found.stx_mask).contains(wanted);
    (told && found.stx_dio_offset_align > 0).then_some(found.stx_dio_offset_align)
}

/// Verdicts over the place of the data.
pub fn checks(facts: &DataDirectoryFacts) -> Vec<Check> {
    let mut checks = vec![directory(facts), file_system(facts)];
    checks.extend(
        facts
            .direct_io
            .as_ref()
            .map(|found| direct_io(found, &facts.probed)),
    );
    checks.push(space(facts));
    checks
}

fn directory(facts: &DataDirectoryFacts) -> Check {
    const NAME: &str = "data directory";
    let directory = facts.directory.display();
    let probed = facts.probed.display();
    match &facts.writable {
        Err(error) => {
            // Nobody should give away a directory above the one that is wanted.
            let command = if facts.probed == facts.directory {
                "chown USER"
            } else {
                "install -d -o USER"
            };
            Check::error(
                NAME,
                format!("no file can be made in {probed} ({error})"),
                format!(
                    "run `{command} {directory}` with the user that runs ostrakon, or name another with \
                     --data"
                ),
            )
        }
        Ok(()) if facts.probed == facts.directory => Check::ok(NAME, format!("{directory} is writable")),
        Ok(()) => Check::ok(
            NAME,
            format!("{directory} does not exist yet and can be made in {probed}"),
        ),
    }
}

fn file_system(facts: &DataDirectoryFacts) -> Check {
    const NAME: &str = "file system";
    const ON_A_DISK: &str = "name a directory on a local disk with ext4 or xfs with --data";
    match facts.file_system {
        Some(FileSystem::Local(name)) => Check::ok(NAME, name),
        Some(FileSystem::Memory(name)) => Check::error(
            NAME,
            format!(
                "{} lies on {name}, in memory: a restart of the machine would lose all data",
                facts.probed.display()
            ),
            ON_A_DISK,
        ),
        Some(FileSystem::CopyOnWrite(name)) => Check::warning(
            NAME,
            format!("{name} copies on write, so that each log write allocates and a sync takes longer"),
            if name == "btrfs" {
                "run `chattr +C` on the empty data directory before the first start, or use ext4 or xfs"
            } else {
                "use ext4 or xfs"
            },
        ),
        Some(FileSystem::Overlay) => Check::warning(
            NAME,
            "overlayfs: this is the container's own layer, which is deleted together with the container",
            "mount a volume (docker: -v /srv/ostrakon:/data) and name it with --data",
        ),
        Some(FileSystem::Remote(name)) => Check::warning(
            NAME,
            format!("{name}: durability and latency depend on a server or program that this check can't see"),
            ON_A_DISK,
        ),
        Some(FileSystem::Unknown(magic)) => Check::warning(
            NAME,
            format!("a kind that Ostrakon was never tried on (magic number {magic:#x})"),
            ON_A_DISK,
        ),
        None => Check::warning(NAME, "the system does not tell its kind", ON_A_DISK),
    }
}

fn direct_io(found: &DirectIo, probed: &Path) -> Check {
    const NAME: &str = "direct io";
    const FIX: &str = "name a directory on a local disk with ext4 or xfs with --data";
    match found {
        DirectIo::Works {
            offset_alignment,
            told: true,
        } => Check::ok(NAME, format!("works, in units of {offset_alignment} bytes")),
        DirectIo::Works {
            offset_alignment,
            told: false,
        } => Check::ok(
            NAME,
            format!("works, in units of {offset_alignment} bytes (found by trying)"),
        ),
        DirectIo::TooCoarse { offset_alignment } => Check::error(
            NAME,
            format!(
                "the device takes units of {offset_alignment} bytes, and a node writes {WRITE_UNIT_BYTES}"
            ),
            "name a directory on a device with blocks of 4096 bytes or less with --data",
        ),
        DirectIo::Failed { action, error } => Check::error(
            NAME,
            format!("{action} in {} with O_DIRECT failed ({error})", probed.display()),
            FIX,
        ),
    }
}

fn space(facts: &DataDirectoryFacts) -> Check {
    const NAME: &str = "disk space";
    let Some((free, total)) = facts.space_bytes else {
        return Check::warning(
            NAME,
            "the system does not tell",
            format!("look at `df {}`", facts.probed.display()),
        );
    };
    let finding = format!("{} free of {}", bytes(free), bytes(total));
    let fix = format!(
        "free space on the disk of {}, or name another with --data",
        facts.probed.display()
    );
    if free < SPACE_MIN_BYTES {
        return Check::warning(
            NAME,
            format!(
                "{finding}; writes may be refused with less than {}",
                bytes(SPACE_MIN_BYTES)
            ),
            fix,
        );
    }
    if free < SPACE_COMFORTABLE_BYTES {
        return Check::warning(
            NAME,
            format!(
                "{finding}; the log alone may need {}",
                bytes(SPACE_COMFORTABLE_BYTES)
            ),
            fix,
        );
    }
    Check::ok(NAME, finding)
}

#[cfg(test)]
#[path = "data_directory_tests.rs"]
mod tests;
