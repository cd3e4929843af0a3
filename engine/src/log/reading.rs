//! Reading of segments: whole, or as a walk goes through them.

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
    segment_bytes: usize,
    /// Where the part begins.
    start: usize,
    bytes: Vec<u8>,
}

impl<'a> Reading<'a> {
    /// Opens a segment, of which so many bytes are to be read at most.
    pub(super) async fn open(
        disk: &dyn Disk,
        path: &'a Path,
        segment_bytes: u64,
    ) -> Result<Reading<'a>, LogError> {
        Ok(Reading {
            file: open(disk, path).await?,
            path,
            segment_bytes: segment_bytes as usize,
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
        if offset - self.start >= STEP_BYTES {
            self.bytes.drain(..offset - self.start);
            self.start = offset;
        }
        self.reach(offset + BLOCK_BYTES).await?;
        let claimed = claimed_bytes(
            &self.bytes[offset - self.start..],
            (self.segment_bytes - offset) as u64,
        );
        self.reach(offset + claimed.unwrap_or(0)).await?;
        Ok(&self.bytes[offset - self.start..])
    }

    /// Reads on until the part ends at `end` or behind it, or at the end of the segment.
    async fn reach(&mut self, end: usize) -> Result<(), LogError> {
        loop {
            let read_end = self.start + self.bytes.len();
            if read_end >= end.min(self.segment_bytes) {
                return Ok(());
            }
            let len_bytes = STEP_BYTES.min(self.segment_bytes - read_end);
            let more = read(&*self.file, self.path, read_end as u64, len_bytes).await?;
            self.bytes.extend_from_slice(more.bytes());
        }
    }

    /// Closes the file. Call it last.
    pub(super) async fn close(&self) -> Result<(), LogError> {
        close(&*self.file, self.path).await
    }
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

/// Reads a segment whole, for what it tells about others: nothing is served from it, so it need not last.
pub(super) async fn read_whole(
    disk: &dyn Disk,
    path: &Path,
    segment_bytes: u64,
) -> Result<DiskBuf, LogError> {
    let file = open(disk, path).await?;
    let bytes = read(&*file, path, 0, segment_bytes as usize).await?;
    close(&*file, path).await?;
    Ok(bytes)
}
