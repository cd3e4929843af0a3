//! Reading of segments, as a walk goes through them.

use std::io;
use std::path::Path;
use std::rc::Rc;

use super::LogError;
use super::heads::claimed_bytes;
use crate::env::disk::BLOCK_BYTES;
use crate::env::{Disk, DiskBuf, File, OpenMode};

/// Bytes that a walk reads at a time.
const STEP_BYTES: usize = 4 << 20;

/// A segment of which a walk has a part in memory, from where it is as far as it needs to look.
pub(super) struct Reading<'a> {
    file: Rc<dyn File>,
    path: &'a Path,
    end_bytes: usize,
    /// Where the part begins.
    start: usize,
    bytes: Vec<u8>,
}

impl<'a> Reading<'a> {
    /// Opens a segment, to be read up to `end_bytes`.
    pub(super) async fn open(
        disk: &dyn Disk,
        path: &'a Path,
        end_bytes: u64,
    ) -> Result<Reading<'a>, LogError> {
        Ok(Reading {
            file: open(disk, path).await?,
            path,
            end_bytes: end_bytes as usize,
            start: 0,
            bytes: Vec::new(),
        })
    }

    /// Makes sure that what will be read is on stable storage.
    pub(super) async fn sync(&self) -> io::Result<()> {
        self.file.sync().await
    }

    /// The batch that begins at this offset, and perhaps more: all of it, if its header says how long it is. The walk
    /// does not come back to what lies before.
    pub(super) async fn batch_at(&mut self, offset: u64) -> Result<&[u8], LogError> {
        let offset = offset as usize;
        let passed_bytes = offset - self.start;
        if passed_bytes >= STEP_BYTES {
            self.bytes.drain(..passed_bytes.min(self.bytes.len()));
            self.start = offset;
        }
        self.reach(offset + BLOCK_BYTES).await?;
        let claimed = claimed_bytes(
            &self.bytes[offset - self.start..],
            (self.end_bytes - offset) as u64,
        );
        self.reach(offset + claimed.unwrap_or(0)).await?;
        Ok(&self.bytes[offset - self.start..])
    }

    /// Reads on until the part ends at `end` or behind it, or at the end of the segment.
    async fn reach(&mut self, end: usize) -> Result<(), LogError> {
        loop {
            let read_end = self.start + self.bytes.len();
            if read_end >= end.min(self.end_bytes) {
                return Ok(());
            }
            let len_bytes = STEP_BYTES.min(self.end_bytes - read_end);
            let more = read(&*self.file, self.path, read_end as u64, len_bytes).await?;
            self.bytes.extend_from_slice(more.bytes());
        }
    }

    /// Closes the file. Call it last.
    pub(super) async fn close(&self) -> Result<(), LogError> {
        close(&*self.file, self.path).await
    }
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
