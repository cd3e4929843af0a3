//! What a node's data lies on.

use std::path::{Path, PathBuf};

use super::report::Failure;
use crate::process::{FileSystem, FilteredDisk, PowerDisk};

/// A kind of disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskKind {
    /// A directory of this machine's file system.
    Directory,
    /// A file system of its own, which can lose its power.
    Power {
        /// Which.
        file_system: FileSystem,
        /// Its size.
        size_bytes: u64,
    },
    /// A disk whose writes can be made slow, and be made to fail.
    Filtered {
        /// Its size.
        size_bytes: u64,
        /// How much longer each write takes.
        write_delay_ms: u32,
    },
}

/// A disk, until it is dropped.
#[derive(Debug)]
pub enum Disk {
    /// See [`DiskKind::Directory`].
    Directory(PathBuf),
    /// See [`DiskKind::Power`].
    Power(PowerDisk),
    /// See [`DiskKind::Filtered`].
    Filtered(FilteredDisk),
}

impl DiskKind {
    /// Makes a disk in an empty directory.
    ///
    /// # Errors
    /// What this machine lacks, or what failed.
    pub fn create(self, directory: &Path) -> Result<Disk, Failure> {
        match self {
            DiskKind::Directory => Ok(Disk::Directory(directory.to_owned())),
            DiskKind::Power {
                file_system,
                size_bytes,
            } => {
                PowerDisk::available(file_system).map_err(Failure::Unavailable)?;
                Ok(Disk::Power(PowerDisk::create(
                    directory,
                    size_bytes,
                    file_system,
                )?))
            }
            DiskKind::Filtered {
                size_bytes,
                write_delay_ms,
            } => {
                FilteredDisk::available().map_err(Failure::Unavailable)?;
                let disk = FilteredDisk::create(directory, size_bytes, write_delay_ms)?;
                Ok(Disk::Filtered(disk))
            }
        }
    }
}

impl Disk {
    /// The directory for a node's data and for ballast.
    pub fn path(&self) -> &Path {
        match self {
            Disk::Directory(path) => path,
            Disk::Power(disk) => disk.mount_point(),
            Disk::Filtered(disk) => disk.mount_point(),
        }
    }
}
