//! The part of a file that a walk through it has in memory: read ahead in large portions, and piece by piece where the
//! device can't read a portion.

use std::io;
use std::rc::Rc;

use super::Reading;
use crate::env::disk::BLOCK_BYTES;
use crate::env::{DiskBuf, File};
use crate::storage::sstable::format::Handle;

/// Why bytes are not there.
pub(super) enum Miss {
    /// The walk is not wanted any more.
    Unwanted,
    /// The operating system could not read them.
    Unreadable(io::Error),
}

pub(super) struct Window<'a> {
    file: &'a dyn File,
    reading: Reading<'a>,
    /// What was read last, and where it begins.
    ahead: Option<(u64, Rc<DiskBuf>)>,
}

impl<'a> Window<'a> {
    pub(super) fn new(file: &'a dyn File, reading: Reading<'a>) -> Window<'a> {
        Window {
            file,
            reading,
            ahead: None,
        }
    }

    /// The bytes of a stored block on a walk from the start of the file to its end.
    pub(super) async fn next(&mut self, handle: Handle) -> Result<Vec<u8>, Miss> {
        if let Some(bytes) = self.at_hand(handle) {
            return Ok(bytes);
        }
        let (start, needed_bytes) = handle.covering();
        let portion_bytes = (self.reading.portion_bytes as u64).next_multiple_of(BLOCK_BYTES as u64);
        let left_bytes = self.file.len_bytes() / BLOCK_BYTES as u64 * BLOCK_BYTES as u64 - start;
        let len_bytes = portion_bytes.min(left_bytes).max(needed_bytes as u64);
        match self.read(start, len_bytes as usize).await {
            Ok(buffer) => {
                self.ahead = Some((start, Rc::new(buffer)));
                Ok(self.at_hand(handle).expect("it was just read"))
            }
            Err(Miss::Unreadable(_)) if len_bytes > needed_bytes as u64 => self.alone(handle).await,
            Err(miss) => Err(miss),
        }
    }

    /// The bytes of a stored block that lies apart.
    pub(super) async fn alone(&self, handle: Handle) -> Result<Vec<u8>, Miss> {
        let (start, len_bytes) = handle.covering();
        let buffer = self.read(start, len_bytes).await?;
        Ok(cut(&buffer, start, handle))
    }

    fn at_hand(&self, handle: Handle) -> Option<Vec<u8>> {
        let (start, buffer) = self.ahead.as_ref()?;
        let end = start + buffer.bytes().len() as u64;
        let is_here = *start <= handle.offset && handle.offset + u64::from(handle.stored_bytes) <= end;
        is_here.then(|| cut(buffer, *start, handle))
    }

    /// Blocks of the device.
    pub(super) async fn read(&self, start: u64, len_bytes: usize) -> Result<DiskBuf, Miss> {
        if !(self.reading.is_wanted)() {
            return Err(Miss::Unwanted);
        }
        let read = self.file.read_at(start, len_bytes).await;
        self.reading.spent(len_bytes).await;
        read.map_err(Miss::Unreadable)
    }
}

fn cut(buffer: &DiskBuf, start: u64, handle: Handle) -> Vec<u8> {
    let from = (handle.offset - start) as usize;
    buffer.bytes()[from..from + handle.stored_bytes as usize].to_vec()
}
