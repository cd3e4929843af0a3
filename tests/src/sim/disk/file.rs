//! One simulated file: what readers see, what is durable, and the writes between the two.

use std::collections::{BTreeMap, BTreeSet};

use super::blocks::{Blocks, WriteData};

/// A write that readers see and that is not durable.
#[derive(Clone)]
pub(super) struct Unsynced {
    /// Order of completion on this disk.
    pub(super) sequence: u64,
    pub(super) data: WriteData,
    /// A sync of it failed: as on ext4, XFS and Btrfs the pages count as clean afterwards, and no later sync
    /// makes them durable.
    pub(super) is_doomed: bool,
}

/// A file.
#[derive(Clone, Default)]
pub(super) struct FileState {
    pub(super) seen: Blocks,
    pub(super) seen_len: u64,
    /// Bytes from its start that are set aside on the disk.
    pub(super) reserved_bytes: u64,
    pub(super) durable: Blocks,
    pub(super) durable_len: u64,
    /// In the order of completion.
    pub(super) unsynced: Vec<Unsynced>,
    /// Blocks that can't be read until they are written again.
    pub(super) unreadable: BTreeSet<u64>,
    /// Durable writes that completed.
    pub(super) durable_writes: u64,
    /// By block that is not zero: the durable write that wrote it last.
    written_by: BTreeMap<u64, u64>,
}

impl FileState {
    /// What it takes of the disk.
    pub(super) fn taken_bytes(&self) -> u64 {
        self.seen_len.max(self.reserved_bytes)
    }

    /// A write has completed, for readers only.
    pub(super) fn write(&mut self, sequence: u64, data: WriteData) {
        self.show(&data);
        self.unsynced.push(Unsynced {
            sequence,
            data,
            is_doomed: false,
        });
    }

    /// A write has completed on stable storage.
    pub(super) fn write_durable(&mut self, data: &WriteData) {
        self.show(data);
        self.supersede(data);
        self.settle(data);
    }

    /// Makes the writes up to this sequence durable.
    pub(super) fn sync(&mut self, through: u64) {
        let unsynced = core::mem::take(&mut self.unsynced);
        for write in unsynced {
            if write.sequence <= through && !write.is_doomed {
                self.settle(&write.data);
            } else {
                self.unsynced.push(write);
            }
        }
    }

    /// A sync up to this sequence failed.
    pub(super) fn doom(&mut self, through: u64) {
        for write in self.unsynced.iter_mut().filter(|write| write.sequence <= through) {
            write.is_doomed = true;
        }
    }

    /// True when the block is stored durably and at least `cover_writes` durable writes to the file came after
    /// it was written.
    pub(super) fn is_covered(&self, block: u64, cover_writes: u64) -> bool {
        let written_by = self.written_by.get(&block);
        written_by.is_some_and(|by| self.durable_writes - by >= cover_writes)
    }

    /// The covered blocks, ascending.
    pub(super) fn covered(&self, cover_writes: u64) -> Vec<u64> {
        let covered = self.written_by.iter();
        covered
            .filter(|(_, by)| self.durable_writes - **by >= cover_writes)
            .map(|(block, _)| *block)
            .collect()
    }

    fn show(&mut self, data: &WriteData) {
        self.seen.store(data);
        self.seen_len = self.seen_len.max(data.end());
        if !self.unreadable.is_empty() {
            self.unreadable
                .retain(|block| !(data.first_block..data.end_block()).contains(block));
        }
    }

    /// `data` is durable now.
    pub(super) fn settle(&mut self, data: &WriteData) {
        self.durable.store(data);
        self.durable_len = self.durable_len.max(data.end());
        self.durable_writes += 1;
        if data.is_zero() {
            let range = data.first_block..data.end_block();
            while let Some((&block, _)) = self.written_by.range(range.clone()).next() {
                self.written_by.remove(&block);
            }
            return;
        }
        for block in data.first_block..data.end_block() {
            if data.block(block).is_some() {
                self.written_by.insert(block, self.durable_writes);
            } else {
                self.written_by.remove(&block);
            }
        }
    }

    /// Older writes of the same place can't come back once a newer one is durable.
    fn supersede(&mut self, newer: &WriteData) {
        if self.unsynced.is_empty() {
            return;
        }
        let older = core::mem::take(&mut self.unsynced);
        for write in older {
            let (first, end) = (write.data.first_block, write.data.end_block());
            let (cut_first, cut_end) = (
                newer.first_block.clamp(first, end),
                newer.end_block().clamp(first, end),
            );
            if cut_first == cut_end {
                self.unsynced.push(write);
                continue;
            }
            for (from, to) in [(first, cut_first), (cut_end, end)] {
                if from < to {
                    let data = write.data.part(from, to);
                    self.unsynced.push(Unsynced {
                        data,
                        ..write.clone()
                    });
                }
            }
        }
    }
}
