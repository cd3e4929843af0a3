//! A batch while it is being filled.

use std::rc::Rc;

use ostrakon_core::raft::{EntryId, LogIndex};
use ostrakon_wire::routing::ShardId;

use super::format::{
    BATCH_HEADER_BYTES, BatchHeader, DIRECTORY_ENTRY_BYTES, DirectoryEntry, OwnershipEpoch,
    RECORD_HEADER_BYTES, RecordKind, ShardState, finish_batch, put_record_header, record_bytes,
};
use super::found::ShardLast;
use crate::env::disk::BLOCK_BYTES;
use crate::env::{Disk, DiskBuf};
use crate::limits::BATCH_START_BYTES;

/// Identifies a batch in memory, in filling order. It is not the number on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BatchId(pub(super) u64);

/// Where the payload of an appended entry lies until it is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryPlace {
    pub(super) batch: BatchId,
    pub(super) offset: u32,
    pub(super) len_bytes: u32,
}

/// Collects records; [`BatchBuilder::finish`] makes the bytes that go to disk.
pub(super) struct BatchBuilder {
    id: BatchId,
    buffer: DiskBuf,
    used_bytes: usize,
    record_count: u32,
    directory: Vec<DirectoryEntry>,
    /// By position in `directory`: the epoch of the entry that was appended last.
    epochs: Vec<OwnershipEpoch>,
    /// The states among the records; they enter the heads of further segments when this batch is written.
    states: Vec<(ShardId, OwnershipEpoch, ShardState)>,
    /// Position in `directory` plus one, by shard.
    positions: Vec<u16>,
}

/// What a batch takes in its segment, known without its bytes.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    used_bytes: usize,
    directory_count: usize,
}

/// A finished batch: the bytes on their way to disk and what is in them.
pub(super) struct FinishedBatch {
    pub(super) id: BatchId,
    pub(super) buffer: Rc<DiskBuf>,
    pub(super) directory: Vec<DirectoryEntry>,
    pub(super) record_count: u32,
}

impl Extent {
    /// Of a batch without records.
    pub(super) const EMPTY: Extent = Extent {
        used_bytes: BATCH_HEADER_BYTES,
        directory_count: 0,
    };

    /// With one more record of this payload, of a shard that the batch may not have had records of yet.
    pub(super) fn with_record(self, payload_bytes: usize, is_new_shard: bool) -> Extent {
        Extent {
            used_bytes: self.used_bytes + record_bytes(payload_bytes),
            directory_count: self.directory_count + usize::from(is_new_shard),
        }
    }

    /// Bytes of records.
    pub(super) fn records_bytes(self) -> usize {
        self.used_bytes - BATCH_HEADER_BYTES
    }

    /// Bytes in the segment.
    pub(super) fn disk_bytes(self) -> usize {
        (self.used_bytes + self.directory_count * DIRECTORY_ENTRY_BYTES).next_multiple_of(BLOCK_BYTES)
    }
}

impl BatchBuilder {
    /// An empty batch with room for `expected_bytes` of records; it grows beyond by itself.
    pub(super) fn new(id: BatchId, disk: &dyn Disk, expected_bytes: usize) -> BatchBuilder {
        let start_bytes = (BATCH_HEADER_BYTES + expected_bytes + DIRECTORY_ENTRY_BYTES)
            .next_multiple_of(BLOCK_BYTES)
            .max(BATCH_START_BYTES);
        BatchBuilder {
            id,
            buffer: disk.allocate(start_bytes),
            used_bytes: BATCH_HEADER_BYTES,
            record_count: 0,
            directory: Vec::new(),
            epochs: Vec::new(),
            states: Vec::new(),
            positions: Vec::new(),
        }
    }

    pub(super) fn id(&self) -> BatchId {
        self.id
    }

    /// Bytes of records so far.
    pub(super) fn records_bytes(&self) -> usize {
        self.extent().records_bytes()
    }

    /// Bytes that the batch will take in the segment.
    pub(super) fn disk_bytes(&self) -> usize {
        self.extent().disk_bytes()
    }

    /// What the batch takes as it is.
    pub(super) fn extent(&self) -> Extent {
        Extent {
            used_bytes: self.used_bytes,
            directory_count: self.directory.len(),
        }
    }

    /// True if it has a record of this shard.
    pub(super) fn has_shard(&self, shard: ShardId) -> bool {
        let position = self.positions.get(shard.0 as usize);
        position.is_some_and(|position| *position > 0)
    }

    /// Appends a record whose payload is the parts one after the other.
    pub(super) fn append(
        &mut self,
        disk: &dyn Disk,
        kind: RecordKind,
        shard: ShardId,
        epoch: OwnershipEpoch,
        entry: EntryId,
        payload: &[&[u8]],
    ) -> EntryPlace {
        let payload_bytes = payload.iter().map(|part| part.len()).sum::<usize>();
        let end = self.used_bytes + record_bytes(payload_bytes);
        // One more directory entry may come with this record.
        self.reserve(disk, end + (self.directory.len() + 1) * DIRECTORY_ENTRY_BYTES);
        let bytes = &mut self.buffer.bytes_mut()[self.used_bytes..end];
        put_record_header(bytes, kind, shard, epoch, entry, payload_bytes);
        let mut at = RECORD_HEADER_BYTES;
        for part in payload {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        let offset = (self.used_bytes + RECORD_HEADER_BYTES) as u32;
        self.used_bytes = end;
        self.record_count += 1;
        match kind {
            RecordKind::Entry => self.note_entry(shard, epoch, entry.index),
            RecordKind::ShardState => {
                let position = self.position(shard);
                self.directory[position].has_state = true;
            }
            RecordKind::SegmentHead => {}
        }
        EntryPlace {
            batch: self.id,
            offset,
            len_bytes: payload_bytes as u32,
        }
    }

    /// Notes that the record appended last is this state.
    pub(super) fn note_state(&mut self, shard: ShardId, epoch: OwnershipEpoch, state: ShardState) {
        self.states.push((shard, epoch, state));
    }

    /// The states among the records, oldest first.
    pub(super) fn states(&self) -> &[(ShardId, OwnershipEpoch, ShardState)] {
        &self.states
    }

    /// The last entry of each shard that has entries.
    pub(super) fn lasts(&self) -> impl Iterator<Item = ShardLast> {
        let with_epochs = self.directory.iter().zip(&self.epochs);
        with_epochs
            .filter(|(listed, _)| listed.last > LogIndex(0))
            .map(|(listed, epoch)| ShardLast {
                shard: listed.shard,
                epoch: *epoch,
                last: listed.last,
            })
    }

    /// The payload at a place within this batch.
    pub(super) fn payload(&self, place: EntryPlace) -> &[u8] {
        payload_at(&self.buffer, place)
    }

    /// Completes header, directory and checksums. `header` brings what only the writer knows; counts and
    /// lengths are filled in here.
    pub(super) fn finish(mut self, mut header: BatchHeader) -> FinishedBatch {
        header.records_bytes = self.records_bytes() as u32;
        header.record_count = self.record_count;
        header.directory_count = self.directory.len() as u32;
        let disk_bytes = self.disk_bytes();
        finish_batch(self.buffer.bytes_mut(), &header, &self.directory);
        self.buffer.truncate(disk_bytes);
        FinishedBatch {
            id: self.id,
            buffer: Rc::new(self.buffer),
            directory: self.directory,
            record_count: self.record_count,
        }
    }

    fn note_entry(&mut self, shard: ShardId, epoch: OwnershipEpoch, index: LogIndex) {
        let position = self.position(shard);
        self.epochs[position] = epoch;
        let entry = &mut self.directory[position];
        if entry.first == LogIndex(0) {
            entry.first = index;
        } else {
            assert_eq!(
                entry.last.next(),
                index,
                "entries of a shard are appended in index order"
            );
        }
        entry.last = index;
    }

    /// The shard's position in the directory.
    fn position(&mut self, shard: ShardId) -> usize {
        let slot = shard.0 as usize;
        if self.positions.len() <= slot {
            self.positions.resize(slot + 1, 0);
        }
        if self.positions[slot] == 0 {
            let blank = DirectoryEntry {
                shard,
                has_state: false,
                first: LogIndex(0),
                last: LogIndex(0),
            };
            self.directory.push(blank);
            self.epochs.push(OwnershipEpoch(0));
            self.positions[slot] = self.directory.len() as u16;
        }
        usize::from(self.positions[slot]) - 1
    }

    fn reserve(&mut self, disk: &dyn Disk, needed_bytes: usize) {
        let capacity_bytes = self.buffer.bytes().len();
        if needed_bytes > capacity_bytes {
            let grown_bytes = needed_bytes.max(capacity_bytes * 2).next_multiple_of(BLOCK_BYTES);
            let mut grown = disk.allocate(grown_bytes);
            grown.bytes_mut()[..self.used_bytes].copy_from_slice(&self.buffer.bytes()[..self.used_bytes]);
            self.buffer = grown;
        }
    }
}

/// The payload at a place within the batch that has this buffer.
pub(super) fn payload_at(buffer: &DiskBuf, place: EntryPlace) -> &[u8] {
    let offset = place.offset as usize;
    &buffer.bytes()[offset..offset + place.len_bytes as usize]
}
