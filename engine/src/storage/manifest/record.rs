//! Bytes of the records of a manifest, as [`super`] describes them.

use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::lsm::{Edit, LEVELS, Place, TableInfo, TableNumber};
use ostrakon_core::raft::{EntryId, LogIndex, Term};

use super::Change;
use crate::env::disk::BLOCK_BYTES;

const MAGIC: [u8; 4] = *b"OSTM";
/// Bytes of a record before its payload.
pub(super) const HEADER_BYTES: usize = 32;

/// A record that was read.
pub(super) struct Record {
    /// Its place among all records of the manifest.
    pub sequence: u64,
    /// What it says.
    pub change: Change,
    /// Its length with its padding.
    pub bytes: usize,
    /// Length of its payload.
    pub payload_bytes: usize,
}

/// The bytes of a record that lies at this offset.
pub(super) fn encode(shard: u32, sequence: u64, offset: u64, change: &Change) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BLOCK_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.resize(12, 0);
    bytes.extend_from_slice(&shard.to_le_bytes());
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&offset.to_le_bytes());
    for number in [
        change.next_number.0,
        change.flushed.term.0,
        change.flushed.index.0,
    ] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&(change.edit.removed.len() as u32).to_le_bytes());
    for number in &change.edit.removed {
        bytes.extend_from_slice(&number.0.to_le_bytes());
    }
    let place = match change.edit.place {
        Place::Young => 0,
        Place::Level(level) => level as u32,
    };
    bytes.extend_from_slice(&place.to_le_bytes());
    bytes.extend_from_slice(&(change.edit.added.len() as u32).to_le_bytes());
    for table in &change.edit.added {
        let numbers = [
            table.number.0,
            table.bytes,
            table.keys,
            table.versions,
            table.tombstones,
            table.expiring,
            table.last_expiry.0,
            table.newest.0,
            table.range_tombstones,
            table.covered_bytes,
            u64::from(table.is_largest_excluded),
        ];
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        for key in [&table.smallest, &table.largest] {
            bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
            bytes.extend_from_slice(key);
        }
    }
    let payload_bytes = (bytes.len() - HEADER_BYTES) as u32;
    bytes[8..12].copy_from_slice(&payload_bytes.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[8..]);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    bytes
}

/// The record at an offset, or what keeps the bytes there from being one.
pub(super) fn record_at(bytes: &[u8], offset: usize, shard: u32) -> Result<Record, String> {
    let bytes = &bytes[offset..];
    let (header, rest) = bytes
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or("a record is cut off")?;
    if header[..4] != MAGIC {
        return Err("no record begins here".to_owned());
    }
    let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let u64_at = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    let payload = rest.get(..u32_at(8) as usize).ok_or("a record is cut off")?;
    let (expected, found) = (crc32c::crc32c(&bytes[8..HEADER_BYTES + payload.len()]), u32_at(4));
    if expected != found {
        return Err(format!(
            "the checksum of a record is {found:#010x}, expected {expected:#010x}"
        ));
    }
    if (u32_at(12), u64_at(24)) != (shard, offset as u64) {
        return Err(format!(
            "a record of shard {} at offset {} lies here, expected one of shard {shard}",
            u32_at(12),
            u64_at(24)
        ));
    }
    let mut fields = Fields(payload);
    let change = fields.change().filter(|_| fields.0.is_empty());
    Ok(Record {
        sequence: u64_at(16),
        change: change.ok_or("the payload of a record is not what it should be")?,
        bytes: (HEADER_BYTES + payload.len()).next_multiple_of(BLOCK_BYTES),
        payload_bytes: payload.len(),
    })
}

/// The shard that a record at an offset names, if it is whole.
pub(super) fn own_shard(bytes: &[u8], offset: usize) -> Option<u32> {
    let shard = bytes.get(offset + 12..offset + 16)?;
    let shard = u32::from_le_bytes(shard.try_into().expect("four bytes"));
    record_at(bytes, offset, shard).is_ok().then_some(shard)
}

/// What is left of a payload.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u32(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*number))
    }

    fn u64(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn key(&mut self) -> Option<Box<[u8]>> {
        let length = self.u32()? as usize;
        let (key, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(key.into())
    }

    fn change(&mut self) -> Option<Change> {
        let next_number = TableNumber(self.u64()?);
        let flushed = EntryId {
            term: Term(self.u64()?),
            index: LogIndex(self.u64()?),
        };
        let removed = self.u32()?;
        let removed = (0..removed)
            .map(|_| self.u64().map(TableNumber))
            .collect::<Option<_>>()?;
        let place = match self.u32()? as usize {
            0 => Place::Young,
            level @ 1..=LEVELS => Place::Level(level),
            _ => return None,
        };
        let added = self.u32()?;
        let added = (0..added)
            .map(|_| self.table().map(Rc::new))
            .collect::<Option<_>>()?;
        Some(Change {
            edit: Edit {
                removed,
                place,
                added,
            },
            flushed,
            next_number,
        })
    }

    fn table(&mut self) -> Option<TableInfo> {
        Some(TableInfo {
            number: TableNumber(self.u64()?),
            bytes: self.u64()?,
            keys: self.u64()?,
            versions: self.u64()?,
            tombstones: self.u64()?,
            expiring: self.u64()?,
            last_expiry: Timestamp(self.u64()?),
            newest: Timestamp(self.u64()?),
            range_tombstones: self.u64()?,
            covered_bytes: self.u64()?,
            is_largest_excluded: match self.u64()? {
                0 => false,
                1 => true,
                _ => return None,
            },
            smallest: self.key()?,
            largest: self.key()?,
        })
    }
}
