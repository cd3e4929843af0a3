//! Writes a table into a file, in large pieces, while versions come.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ostrakon_core::lsm::TableInfo;

use super::builder::{TableBuilder, TableOptions};
use super::format::TableId;
use crate::env::disk::{Disk, File, OpenMode};
use crate::storage::memtable::Version;
use crate::storage::ranges::RangeTombstone;

/// Bytes of one write.
const WRITE_BYTES: usize = 256 << 10;

/// A file that could not be written.
#[derive(Debug)]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// What the operating system said.
    pub source: io::Error,
}

impl core::fmt::Display for WriteError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "cannot write {}: {}", self.path.display(), self.source)
    }
}

impl core::error::Error for WriteError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// A table that is being written.
pub struct TableWriter {
    disk: Rc<dyn Disk>,
    file: Rc<dyn File>,
    path: PathBuf,
    id: TableId,
    builder: TableBuilder,
    /// Bytes of the file that are written.
    written_bytes: u64,
}

impl TableWriter {
    /// Makes the file, which must not exist.
    ///
    /// # Errors
    /// If it can't be made.
    pub async fn create(
        disk: &Rc<dyn Disk>,
        path: &Path,
        id: TableId,
        options: TableOptions,
    ) -> Result<TableWriter, WriteError> {
        let opened = disk.open(path, OpenMode::CreateNew).await;
        let file = opened.map_err(|source| WriteError {
            path: path.to_owned(),
            source,
        })?;
        Ok(TableWriter {
            disk: Rc::clone(disk),
            file,
            path: path.to_owned(),
            id,
            builder: TableBuilder::new(id, options),
            written_bytes: 0,
        })
    }

    /// Adds a version of a key with this xxh3-64. Its place is behind all that were added before. Nothing is written
    /// before [`TableWriter::write_out`].
    pub fn add(&mut self, hash: u64, key: &[u8], version: &Version<'_>) {
        self.builder.add(hash, key, version);
    }

    /// Adds the range tombstones, in the order of their starts, when all versions were added. They cover so many bytes
    /// of older tables.
    ///
    /// # Panics
    /// If one has no end.
    pub fn add_ranges(&mut self, tombstones: Vec<RangeTombstone>, covered_bytes: u64) {
        self.builder.add_ranges(tombstones, covered_bytes);
    }

    /// Have enough bytes collected for a write?
    pub fn wants_writing(&self) -> bool {
        self.builder.pending().len() >= WRITE_BYTES
    }

    /// Writes what has collected, in large pieces; returns how many bytes that were.
    ///
    /// # Errors
    /// If bytes can't be written. The file is good for nothing then: [`TableWriter::abandon`] it.
    pub async fn write_out(&mut self) -> Result<usize, WriteError> {
        let mut written_bytes = 0;
        while self.wants_writing() {
            self.write(WRITE_BYTES).await?;
            written_bytes += WRITE_BYTES;
        }
        Ok(written_bytes)
    }

    /// Length of the file so far, but for the block that is being filled.
    pub fn file_bytes(&self) -> u64 {
        self.builder.file_bytes()
    }

    /// Bytes that were written so far.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Ends the table: when this returns, its bytes last. Its name does once the directory is synced. To be closed
    /// next.
    ///
    /// # Errors
    /// If bytes can't be written or synced. The file is good for nothing then: [`TableWriter::abandon`] it.
    ///
    /// # Panics
    /// If nothing was added.
    pub async fn finish(&mut self) -> Result<TableInfo, WriteError> {
        let footer = self.builder.finish();
        while !self.builder.pending().is_empty() {
            let bytes = self.builder.pending().len().min(WRITE_BYTES);
            self.write(bytes).await?;
        }
        self.file.sync().await.map_err(|source| self.failed(source))?;
        Ok(self.builder.properties().info(self.id.number, footer.file_bytes))
    }

    /// Closes the file of a table that was ended.
    ///
    /// # Errors
    /// If the operating system has something to say against it.
    pub async fn close(self) -> Result<(), WriteError> {
        self.file.close().await.map_err(|source| self.failed(source))
    }

    /// Gives the table up: closes the file and removes it.
    ///
    /// # Errors
    /// If either fails.
    pub async fn abandon(self) -> Result<(), WriteError> {
        let closed = self.file.close().await;
        let removed = self.disk.remove(&self.path).await;
        closed.and(removed).map_err(|source| self.failed(source))
    }

    async fn write(&mut self, bytes: usize) -> Result<(), WriteError> {
        let mut buffer = self.disk.allocate(bytes);
        buffer
            .bytes_mut()
            .copy_from_slice(&self.builder.pending()[..bytes]);
        let written = self.file.write_at(Rc::new(buffer), self.written_bytes).await;
        written.map_err(|source| self.failed(source))?;
        self.written_bytes += bytes as u64;
        self.builder.written(bytes);
        Ok(())
    }

    fn failed(&self, source: io::Error) -> WriteError {
        WriteError {
            path: self.path.clone(),
            source,
        }
    }
}
