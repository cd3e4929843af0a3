//! Reading of segments: whole, or as far as a walk comes.

use std::path::Path;
use std::rc::Rc;

use super::LogError;
use crate::env::disk::BLOCK_BYTES;
use crate::env::{Disk, DiskBuf, File, OpenMode};

/// Bytes that a walk reads at a time.
const STEP_BYTES: usize = 4 << 20;

/// A segment that is read from its start as far as needed: most segments of a chain are short.
pub(super) struct Reading<'a> {
    file: Rc<dyn File>,
    path: &'a Path,
    segment_bytes: usize,
    bytes: Vec<u8>,
}

impl<'a> Reading<'a> {
    /// Opens a segment, and makes sure that what will be read is on stable storage.
    pub(super) async fn open(
        disk: &dyn Disk,
        path: &'a Path,
        segment_bytes: u64,
    ) -> Result<Reading<'a>, LogError> {
        let file = open(disk, path).await?;
        sync(&*file, path).await?;
        Ok(Reading {
            file,
            path,
            segment_bytes: segment_bytes as usize,
            bytes: Vec::new(),
        })
    }

    /// Reads on until at least `end` bytes, or the whole segment, are there.
    pub(super) async fn reach(&mut self, end: usize) -> Result<(), LogError> {
        while self.bytes.len() < end.min(self.segment_bytes) {
            let len_bytes = STEP_BYTES.min(self.segment_bytes - self.bytes.len());
            let more = read(&*self.file, self.path, self.bytes.len() as u64, len_bytes).await?;
            self.bytes.extend_from_slice(more.bytes());
        }
        Ok(())
    }

    /// What has been read.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Closes the file. Call it last.
    pub(super) async fn close(&self) -> Result<(), LogError> {
        close(&*self.file, self.path).await
    }
}

async fn sync(file: &dyn File, path: &Path) -> Result<(), LogError> {
    file.sync()
        .await
        .map_err(|source| LogError::io("sync", path, source))
}

/// The rest of a segment, block by block.
pub(super) fn blocks_from(segment: &[u8], start: u64) -> impl Iterator<Item = (u64, &[u8])> {
    (start as usize..segment.len())
        .step_by(BLOCK_BYTES)
        .map(|offset| (offset as u64, &segment[offset..]))
}

pub(super) async fn open(disk: &dyn Disk, path: &Path) -> Result<Rc<dyn File>, LogError> {
    disk.open(path, OpenMode::Read)
        .await
        .map_err(|source| LogError::io("open", path, source))
}

pub(super) async fn close(file: &dyn File, path: &Path) -> Result<(), LogError> {
    file.close()
        .await
        .map_err(|source| LogError::io("close", path, source))
}

pub(super) async fn read(
    file: &dyn File,
    path: &Path,
    offset: u64,
    len_bytes: usize,
) -> Result<DiskBuf, LogError> {
    file.read_at(offset, len_bytes)
        .await
        .map_err(|source| LogError::io("read", path, source))
}

/// Reads a segment whole, and makes sure that what was read is on stable storage.
pub(super) async fn read_whole(
    disk: &dyn Disk,
    path: &Path,
    segment_bytes: u64,
) -> Result<DiskBuf, LogError> {
    let file = open(disk, path).await?;
    sync(&*file, path).await?;
    let bytes = read(&*file, path, 0, segment_bytes as usize).await?;
    close(&*file, path).await?;
    Ok(bytes)
}
