//! The directory that a benchmark works in: made by it, on a real file system, removed by it.
//!
//! Below the directory that the user names, each benchmark makes one of its own, named after the process,
//! and removes just that. What was there before is never touched.

use std::path::{Path, PathBuf};

use crate::machine;

/// A directory that is removed with all its content when this is dropped.
#[derive(Debug)]
pub struct Workspace {
    path: PathBuf,
    /// The user's directory, if it had to be made: removed, too, if it is empty at the end.
    made_parent: Option<PathBuf>,
}

impl Workspace {
    /// Makes the directory.
    ///
    /// # Errors
    /// A sentence, if it cannot be made, or lies in memory.
    pub fn new(parent: &Path) -> Result<Self, String> {
        let made_parent = (!parent.exists()).then(|| parent.to_owned());
        let path = std::path::absolute(parent)
            .map_err(|error| format!("cannot find {}: {error}", parent.display()))?
            .join(format!("bench-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        let workspace = Self { path, made_parent };
        if machine::is_in_memory(&workspace.path)? {
            return Err(format!(
                "{} lies in memory; give --data a directory on the device to measure",
                parent.display()
            ));
        }
        Ok(workspace)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path below it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        remove(&self.path);
        if let Some(parent) = &self.made_parent {
            // Fails if somebody else has put something there, and then it has to stay.
            let _ = std::fs::remove_dir(parent);
        }
    }
}

/// Removes a directory of a benchmark's own; a failure is told, since it leaves data behind.
pub fn remove(directory: &Path) {
    if let Err(error) = std::fs::remove_dir_all(directory) {
        eprintln!(
            "ostrakon-bench: could not remove {}: {error}",
            directory.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_leaves_nothing_and_takes_nothing() {
        let parent = std::env::current_dir()
            .unwrap()
            .join(format!("workspace-test-{}", std::process::id()));
        let workspace = Workspace::new(&parent).unwrap();
        std::fs::write(workspace.join("file"), "content").unwrap();
        drop(workspace);
        assert!(!parent.exists());

        std::fs::create_dir(&parent).unwrap();
        drop(Workspace::new(&parent).unwrap());
        assert!(parent.exists());
        std::fs::remove_dir(&parent).unwrap();
    }

    #[test]
    fn memory_is_refused() {
        let error = Workspace::new(Path::new("/dev/shm")).unwrap_err();
        assert!(error.contains("in memory"), "{error}");
    }
}
