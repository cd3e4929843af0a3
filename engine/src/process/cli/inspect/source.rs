//! A file that is inspected.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

pub(super) struct Source {
    file: File,
    pub(super) path: PathBuf,
    /// When it was opened.
    pub(super) len_bytes: u64,
}

impl Source {
    pub(super) fn open(path: &Path) -> io::Result<Source> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(Source {
            file,
            path: path.to_owned(),
            len_bytes: metadata.len(),
        })
    }

    /// Reads exactly these bytes.
    pub(super) fn read(&self, offset: u64, len_bytes: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len_bytes];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// The name of the file.
    pub(super) fn name(&self) -> &str {
        self.path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
    }

    /// The name of its directory.
    pub(super) fn directory_name(&self) -> String {
        let absolute = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        let directory = absolute.parent().and_then(Path::file_name);
        directory.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }
}
