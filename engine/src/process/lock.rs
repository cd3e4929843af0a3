//! The lock of a data directory: at most one process at a time has a node in it.
//!
//! The lock is an `flock` on the file `LOCK`, so the kernel gives it back however the holder ends: nobody
//! ever has to delete a stale file. The file also holds the process id of the last holder, which is only
//! read to say who is in the way; it never decides anything.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Name of the lock file inside the data directory.
pub const LOCK_FILE: &str = "LOCK";

/// More than any process id has digits: what else a file of that name holds is not read.
const PID_BYTES_MAX: u64 = 32;

/// A data directory that belongs to this process until the value is dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    /// The lock belongs to the open file: closing it gives the lock back.
    file: File,
    path: PathBuf,
}

impl DirectoryLock {
    /// Takes the lock of a directory, without waiting. A missing directory is made first, so that it outlasts
    /// a power loss.
    ///
    /// # Errors
    /// [`LockError::Held`] if another process, or another value in this one, has it; [`LockError::Io`] if
    /// the directory can't be made, or the lock file can't be opened, locked or written.
    pub fn acquire(directory: &Path) -> Result<DirectoryLock, LockError> {
        make_directory(directory).map_err(|source| LockError::Io {
            path: directory.to_owned(),
            action: "make the directory",
            source,
        })?;
        let path = directory.join(LOCK_FILE);
        let failed = |action| {
            let path = path.clone();
            move |source| LockError::Io { path, action, source }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false) // the holder's process id stays readable
            .open(&path)
            .map_err(failed("open the lock file"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held {
                    directory: directory.to_owned(),
                    pid: read_pid(&mut file),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock the file")(source)),
        }
        write_pid(&mut file).map_err(failed("write the lock file"))?;
        Ok(DirectoryLock { file, path })
    }

    /// The locked file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing the file unlocks it whether or not this succeeds: an old process id misleads nobody,
        // because it is only read while somebody holds the lock.
        let _ = self.file.set_len(0);
    }
}

/// Why a data directory could not be locked.
#[derive(Debug)]
#[non_exhaustive]
pub enum LockError {
    /// Somebody else has it.
    Held {
        /// The data directory.
        directory: PathBuf,
        /// The holder, if it has already written its process id.
        pid: Option<u32>,
    },
    /// The directory or the lock file in it can't be used.
    Io {
        /// That directory or file.
        path: PathBuf,
        /// What was tried, with its object, such as `open the lock file`.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Held { directory, pid } => {
                write!(f, "the data directory {} is in use by ", directory.display())?;
                match pid {
                    Some(pid) => write!(f, "process {pid}; stop that process")?,
                    None => write!(f, "another process; stop it")?,
                }
                write!(f, ", or start with another --data directory")
            }
            LockError::Io { path, action, source } => {
                write!(
                    f,
                    "cannot {action} {}: {source}; make the data directory writable for this user, or name \
                     another with --data",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for LockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LockError::Held { .. } => None,
            LockError::Io { source, .. } => Some(source),
        }
    }
}

/// Makes a directory and those above it, as far as they are missing, and makes each name durable.
fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let absolute = std::path::absolute(directory)?;
    let missing: Vec<&Path> = absolute.ancestors().take_while(|path| !path.exists()).collect();
    std::fs::create_dir_all(&absolute)?;
    for parent in missing.iter().rev().filter_map(|path| path.parent()) {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_holder_is_refused_and_told_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let held = DirectoryLock::acquire(directory.path()).unwrap();
        let refusal = DirectoryLock::acquire(directory.path()).unwrap_err();
        let sentence = refusal.to_string();
        assert!(
            sentence.contains(&format!("in use by process {};", std::process::id())),
            "{sentence}"
        );
        assert!(sentence.contains("--data"), "{sentence}");
        drop(held);
        DirectoryLock::acquire(directory.path()).unwrap();
    }

    #[test]
    fn a_stale_or_damaged_process_id_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        for left_behind in ["4711\n", "not a number", ""] {
            std::fs::write(directory.path().join(LOCK_FILE), left_behind).unwrap();
            let held = DirectoryLock::acquire(directory.path()).unwrap();
            let written = std::fs::read_to_string(held.path()).unwrap();
            assert_eq!(written, format!("{}\n", std::process::id()));
        }
    }

    #[test]
    fn a_missing_directory_is_made_with_those_above_it() {
        let directory = tempfile::tempdir().unwrap();
        let held = DirectoryLock::acquire(&directory.path().join("not/yet")).unwrap();
        assert_eq!(held.path(), directory.path().join("not/yet/LOCK"));
    }

    #[test]
    fn what_stands_in_the_way_is_named_in_the_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = DirectoryLock::acquire(&file).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot make the directory") && error.contains("/file: "),
            "{error}"
        );
    }
}
