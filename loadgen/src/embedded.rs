//! The node that loadgen starts when none is named, and the directory it lives in.
//!
//! ```text
//! DIR/LOADGEN   marks the directory as loadgen's; locked while loadgen uses it
//! DIR/node/     data directory of the node
//! ```
//!
//! loadgen never deletes anything but `DIR/node`, and that only below its own mark. A directory on tmpfs is
//! refused: a node that syncs to memory would measure nothing.

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ostrakon::process::node::{self, NodeHandle, NodeOptions};

use crate::cli::CpuList;
use crate::kernel;

const MARK: &str = "LOADGEN";

/// A directory that is loadgen's, locked.
#[derive(Debug)]
pub struct Directory {
    data: PathBuf,
    /// Holds the lock.
    _mark: File,
}

/// What the command line says about the node.
#[derive(Debug, Clone, Copy)]
pub struct NodeSettings<'a> {
    /// Executors; the node decides if not given.
    pub cores: Option<u16>,
    /// Shards of a new database; the node decides if not given.
    pub shards: Option<u32>,
    /// CPUs; all that are allowed if not given.
    pub cpus: Option<&'a CpuList>,
}

/// A node in this process.
pub struct EmbeddedNode {
    handle: NodeHandle,
    _directory: Directory,
}

impl Directory {
    /// Takes the directory, making it if it is not there. Empties its node, if `is_fresh`.
    ///
    /// # Errors
    /// A sentence, when it is not loadgen's, in use, in memory, or has no data although it must.
    pub fn take(path: &Path, is_fresh: bool) -> Result<Self, String> {
        let shown = path.display();
        refuse_memory(path)?;
        let mark_path = path.join(MARK);
        if !mark_path.exists() {
            let is_vacant = path
                .read_dir()
                .map_or(true, |mut entries| entries.next().is_none());
            if !is_vacant {
                return Err(format!(
                    "{shown} holds files and was not made by loadgen; name another directory with --data, \
                     or a running node with --connect"
                ));
            }
            std::fs::create_dir_all(path).map_err(|error| format!("could not make {shown}: {error}"))?;
        }
        let mut options = File::options();
        let mark = options.create(true).append(true).open(&mark_path);
        let mark = mark.map_err(|error| format!("could not open {}: {error}", mark_path.display()))?;
        mark.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                format!(
                    "another loadgen is using {shown}; wait for it, or name another directory with --data"
                )
            }
            TryLockError::Error(error) => format!("could not lock {}: {error}", mark_path.display()),
        })?;
        let data = path.join("node");
        if is_fresh && data.exists() {
            let removed = std::fs::remove_dir_all(&data);
            removed.map_err(|error| format!("could not empty {}: {error}", data.display()))?;
        }
        if !is_fresh && !data.exists() {
            return Err(format!("{shown} holds no database yet; add `load` to --phase"));
        }
        Ok(Self { data, _mark: mark })
    }
}

impl EmbeddedNode {
    /// Starts a node on a free port of the loopback address.
    ///
    /// # Errors
    /// A sentence, when the node does not start.
    pub fn start(directory: Directory, settings: NodeSettings<'_>) -> Result<Self, String> {
        let mut options = NodeOptions::new(directory.data.clone());
        options.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        options.cores = settings.cores;
        options.shards = settings.shards;
        options.cpus = settings.cpus.map(|cpus| cpus.0.clone());
        let handle =
            node::start(options).map_err(|error| format!("the embedded node did not start: {error}"))?;
        Ok(Self {
            handle,
            _directory: directory,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.handle.address()
    }

    /// Stops it, everything acknowledged on disk.
    ///
    /// # Errors
    /// A sentence, when it did not stop cleanly.
    pub fn shut_down(self) -> Result<(), String> {
        self.handle
            .shutdown()
            .map_err(|error| format!("the embedded node did not stop cleanly: {error}"))
    }
}

fn refuse_memory(path: &Path) -> Result<(), String> {
    let absolute =
        std::path::absolute(path).map_err(|error| format!("{} is no path: {error}", path.display()))?;
    let existing = absolute
        .ancestors()
        .find(|ancestor| ancestor.exists())
        .unwrap_or(Path::new("/"));
    if kernel::is_in_memory(existing)? {
        return Err(format!(
            "{} lies in memory (tmpfs), where nothing is durable; name a directory on a disk with --data",
            path.display()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_disk() -> tempfile::TempDir {
        tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap()
    }

    #[test]
    fn a_directory_is_made_reused_and_emptied() {
        let parent = on_disk();
        let path = parent.path().join("a/b");
        let error = Directory::take(&path, false).unwrap_err();
        assert!(error.contains("add `load`"), "{error}");
        let taken = Directory::take(&path, true).unwrap();
        std::fs::create_dir(&taken.data).unwrap();
        std::fs::write(taken.data.join("file"), "data").unwrap();
        let error = Directory::take(&path, true).unwrap_err();
        assert!(error.contains("another loadgen"), "{error}");
        drop(taken);
        let taken = Directory::take(&path, false).unwrap();
        assert!(taken.data.join("file").exists());
        drop(taken);
        assert!(!Directory::take(&path, true).unwrap().data.exists());
    }

    #[test]
    fn a_foreign_directory_is_refused_and_left_alone() {
        let parent = on_disk();
        let precious = parent.path().join("node");
        std::fs::create_dir(&precious).unwrap();
        let error = Directory::take(parent.path(), true).unwrap_err();
        assert!(error.contains("not made by loadgen"), "{error}");
        assert!(precious.exists());
        assert!(!parent.path().join(MARK).exists());
    }

    #[test]
    fn memory_is_refused() {
        let error = Directory::take(Path::new("/dev/shm/loadgen-test/data"), true).unwrap_err();
        assert!(error.contains("tmpfs"), "{error}");
        assert!(!Path::new("/dev/shm/loadgen-test").exists());
    }
}
