//! A block of a table: versions of keys in order, each key cut by what it shares with the one before.
//!
//! ```text
//! block   = entry ... | restart (4 bytes) ... | number of restarts (4 bytes)
//! entry   = shared (varint) | own (varint) | tag (varint) | own bytes of the key | timestamp (8 bytes)
//!           | expiry (8 bytes, kind 2 only) | value
//! tag     = length of the value * 4 + kind      kind 0: tombstone, 1: value, 2: value with an expiry
//! restart = offset of an entry that shares nothing, every 16th
//! ```
//!
//! Numbers are little-endian, varints are LEB128 of at most 32 bits. Entries are ordered by key, and within a key from
//! the newest version to the oldest. [`Block::parse`] walks a block once, so that nothing that follows can fail.

use core::fmt;
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;

use crate::storage::memtable::Version;

/// Entries from one that shares nothing with its predecessor to the next such.
const RESTART_INTERVAL: usize = 16;

const KIND_TOMBSTONE: u32 = 0;
const KIND_VALUE: u32 = 1;
const KIND_EXPIRING: u32 = 2;
const KIND_BITS: u32 = 2;

/// A value must be shorter than this, so that its tag fits 32 bits.
const VALUE_BYTES_END: usize = 1 << (32 - KIND_BITS);

/// Makes a block of entries that come in order.
#[derive(Debug, Default)]
pub struct BlockBuilder {
    bytes: Vec<u8>,
    restarts: Vec<u32>,
    entries: usize,
    last_key: Vec<u8>,
    last_timestamp: Timestamp,
}

impl BlockBuilder {
    /// Adds a version. Its place is behind all that were added before.
    ///
    /// # Panics
    /// If it is not, or if its value has a GiB or more.
    pub fn add(&mut self, key: &[u8], version: &Version<'_>) {
        let is_in_order =
            self.entries == 0 || order(&self.last_key, self.last_timestamp, key, version.timestamp).is_lt();
        assert!(is_in_order, "versions of a table come in order");
        let shared = if self.entries.is_multiple_of(RESTART_INTERVAL) {
            self.restarts.push(self.bytes.len() as u32);
            0
        } else {
            shared_bytes(&self.last_key, key)
        };
        let value = version.value.unwrap_or_default();
        assert!(value.len() < VALUE_BYTES_END, "a value of {} bytes", value.len());
        let kind = match (version.value, version.expiry) {
            (None, _) => KIND_TOMBSTONE,
            (Some(_), None) => KIND_VALUE,
            (Some(_), Some(_)) => KIND_EXPIRING,
        };
        push_varint(&mut self.bytes, shared as u32);
        push_varint(&mut self.bytes, (key.len() - shared) as u32);
        push_varint(&mut self.bytes, (value.len() as u32) << KIND_BITS | kind);
        self.bytes.extend_from_slice(&key[shared..]);
        self.bytes.extend_from_slice(&version.timestamp.0.to_le_bytes());
        if let (KIND_EXPIRING, Some(expiry)) = (kind, version.expiry) {
            self.bytes.extend_from_slice(&expiry.0.to_le_bytes());
        }
        self.bytes.extend_from_slice(value);
        self.entries += 1;
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(&key[shared..]);
        self.last_timestamp = version.timestamp;
    }

    /// Entries so far.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Length of the block if it ended here.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len() + (self.restarts.len() + 1) * size_of::<u32>()
    }

    /// The key that was added last.
    pub fn last_key(&self) -> &[u8] {
        &self.last_key
    }

    /// The timestamp of the version that was added last.
    pub fn last_timestamp(&self) -> Timestamp {
        self.last_timestamp
    }

    /// Ends the block, hands its bytes out, and begins the next one.
    pub fn finish(&mut self, take: impl FnOnce(&[u8])) {
        for restart in self.restarts.iter().copied().chain([self.restarts.len() as u32]) {
            self.bytes.extend_from_slice(&restart.to_le_bytes());
        }
        take(&self.bytes);
        self.bytes.clear();
        self.restarts.clear();
        self.entries = 0;
        self.last_key.clear();
    }
}

/// What is wrong with the bytes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Where in the block, in bytes.
    pub offset: usize,
    /// What it breaks.
    pub rule: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "at byte {} of the block: {}", self.offset, self.rule)
    }
}

impl core::error::Error for Malformed {}

/// A block whose bytes were looked through.
#[derive(Clone, Debug)]
pub struct Block {
    bytes: Rc<[u8]>,
    /// Where the restarts begin.
    entries_end: usize,
}

/// The place of one entry in a block.
#[derive(Clone, Copy, Debug)]
struct Entry {
    shared: usize,
    key_start: usize,
    key_end: usize,
    timestamp: Timestamp,
    expiry: Option<Timestamp>,
    is_tombstone: bool,
    value_start: usize,
    end: usize,
}

impl Block {
    /// Takes the bytes of a block, which may be any.
    ///
    /// # Errors
    /// The first rule that they break.
    pub fn parse(bytes: Rc<[u8]>) -> Result<Block, Malformed> {
        let malformed = |offset, rule| Malformed { offset, rule };
        let count_start = bytes
            .len()
            .checked_sub(size_of::<u32>())
            .ok_or(malformed(0, "too short for the number of restarts"))?;
        let restarts = number_at(&bytes, count_start) as usize;
        let entries_end = restarts
            .checked_mul(size_of::<u32>())
            .and_then(|restarts_bytes| count_start.checked_sub(restarts_bytes))
            .ok_or(malformed(count_start, "more restarts than there are bytes"))?;
        let block = Block { bytes, entries_end };
        let mut key = Vec::new();
        let mut last: Option<Timestamp> = None;
        let (mut offset, mut number) = (0, 0);
        while offset < entries_end {
            let entry = block.decode(offset)?;
            let restart = number / RESTART_INTERVAL;
            if number % RESTART_INTERVAL == 0 {
                if restart >= restarts || block.restart(restart) != offset {
                    return Err(malformed(offset, "a restart is missing"));
                }
                if entry.shared > 0 {
                    return Err(malformed(offset, "a restart shares nothing with the key before"));
                }
            }
            if entry.shared > key.len() {
                return Err(malformed(
                    offset,
                    "the key shares more bytes than the one before has",
                ));
            }
            let own = &block.bytes[entry.key_start..entry.key_end];
            if let Some(last) = last {
                // What is shared is equal, so the rest decides.
                let is_in_order = order(&key[entry.shared..], last, own, entry.timestamp).is_lt();
                if !is_in_order {
                    return Err(malformed(offset, "versions are not in order"));
                }
            }
            key.truncate(entry.shared);
            key.extend_from_slice(own);
            last = Some(entry.timestamp);
            offset = entry.end;
            number += 1;
        }
        if restarts != number.div_ceil(RESTART_INTERVAL) {
            return Err(malformed(
                count_start,
                "the number of restarts is not that of the entries",
            ));
        }
        Ok(block)
    }

    /// A block without an entry.
    pub fn empty() -> Block {
        Block {
            bytes: Rc::from([0; size_of::<u32>()]),
            entries_end: 0,
        }
    }

    /// Length in bytes.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// A cursor before the first entry.
    pub fn cursor(&self) -> BlockCursor {
        BlockCursor {
            block: self.clone(),
            key: Vec::new(),
            current: None,
        }
    }

    fn restarts(&self) -> usize {
        (self.bytes.len() - self.entries_end) / size_of::<u32>() - 1
    }

    fn restart(&self, number: usize) -> usize {
        number_at(&self.bytes, self.entries_end + number * size_of::<u32>()) as usize
    }

    fn decode(&self, start: usize) -> Result<Entry, Malformed> {
        let bytes = &self.bytes[..self.entries_end];
        let cut = Malformed {
            offset: start,
            rule: "an entry ends beyond the block",
        };
        let mut at = start;
        let shared = take_varint(bytes, &mut at).ok_or(cut)? as usize;
        let own = take_varint(bytes, &mut at).ok_or(cut)? as usize;
        let tag = take_varint(bytes, &mut at).ok_or(cut)?;
        let key_start = at;
        let key_end = key_start.checked_add(own).ok_or(cut)?;
        at = key_end;
        let timestamp = Timestamp(take_u64(bytes, &mut at).ok_or(cut)?);
        let kind = tag & ((1 << KIND_BITS) - 1);
        let expiry = if kind == KIND_EXPIRING {
            Some(Timestamp(take_u64(bytes, &mut at).ok_or(cut)?))
        } else {
            None
        };
        let value_bytes = (tag >> KIND_BITS) as usize;
        if kind > KIND_EXPIRING || kind == KIND_TOMBSTONE && value_bytes > 0 {
            return Err(Malformed {
                offset: start,
                rule: "no kind of version has such a tag",
            });
        }
        let end = at
            .checked_add(value_bytes)
            .filter(|end| *end <= bytes.len())
            .ok_or(cut)?;
        Ok(Entry {
            shared,
            key_start,
            key_end,
            timestamp,
            expiry,
            is_tombstone: kind == KIND_TOMBSTONE,
            value_start: at,
            end,
        })
    }

    /// The entry at an offset that one was found at before.
    fn entry(&self, start: usize) -> Entry {
        self.decode(start).expect("the block was looked through")
    }
}

/// A place in a block: at an entry, or before the first, or behind the last.
#[derive(Debug)]
pub struct BlockCursor {
    block: Block,
    /// The whole key of the current entry.
    key: Vec<u8>,
    /// The current entry and its offset.
    current: Option<(usize, Entry)>,
}

impl Clone for BlockCursor {
    fn clone(&self) -> BlockCursor {
        BlockCursor {
            block: self.block.clone(),
            key: self.key.clone(),
            current: self.current,
        }
    }

    /// Keeps the allocation of the key.
    fn clone_from(&mut self, other: &BlockCursor) {
        self.block.clone_from(&other.block);
        self.key.clone_from(&other.key);
        self.current = other.current;
    }
}

impl BlockCursor {
    /// Goes into a block, where it is nowhere yet.
    pub fn enter(&mut self, block: &Block) {
        self.block.clone_from(block);
        self.key.clear();
        self.current = None;
    }

    /// Goes nowhere.
    pub fn leave(&mut self) {
        self.current = None;
    }

    /// Is there a current entry?
    pub fn is_valid(&self) -> bool {
        self.current.is_some()
    }

    /// The key of the current entry.
    ///
    /// # Panics
    /// If there is none.
    pub fn key(&self) -> &[u8] {
        assert!(self.current.is_some(), "no current entry");
        &self.key
    }

    /// The version of the current entry.
    ///
    /// # Panics
    /// If there is none.
    pub fn version(&self) -> Version<'_> {
        let (_, entry) = self.current.as_ref().expect("no current entry");
        Version {
            timestamp: entry.timestamp,
            value: (!entry.is_tombstone).then(|| &self.block.bytes[entry.value_start..entry.end]),
            expiry: entry.expiry,
        }
    }

    /// Is it at the first entry?
    pub fn is_first(&self) -> bool {
        self.current.as_ref().is_some_and(|(place, _)| *place == 0)
    }

    /// Goes to the first entry, if there is one.
    pub fn seek_to_first(&mut self) {
        self.go_to(0);
    }

    /// Goes to the last entry, if there is one.
    pub fn seek_to_last(&mut self) {
        match self.block.restarts().checked_sub(1) {
            Some(last) => self.go_to(self.block.restart(last)),
            None => self.current = None,
        }
        self.walk_to(self.block.entries_end);
    }

    /// Goes to the first entry of a higher key, or of this key with this timestamp or an older one.
    pub fn seek(&mut self, key: &[u8], timestamp: Timestamp) {
        let is_before = |place: usize| {
            let entry = self.block.entry(place);
            let entry_key = &self.block.bytes[entry.key_start..entry.key_end];
            order(entry_key, entry.timestamp, key, timestamp).is_lt()
        };
        let (mut from, mut to) = (0, self.block.restarts());
        while from < to {
            let middle = usize::midpoint(from, to);
            if is_before(self.block.restart(middle)) {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        // The entry is behind the last restart that is before it, or is the first of all.
        let start = from
            .checked_sub(1)
            .map_or(0, |restart| self.block.restart(restart));
        self.go_to(start);
        while let Some((_, entry)) = &self.current
            && order(&self.key, entry.timestamp, key, timestamp).is_lt()
        {
            self.next();
        }
    }

    /// Goes to the next entry; behind the last one there is none.
    pub fn next(&mut self) {
        if let Some((_, entry)) = &self.current {
            self.step_to(entry.end);
        }
    }

    /// Goes to the entry before; before the first one there is none.
    pub fn previous(&mut self) {
        let Some((end, _)) = self.current else {
            return;
        };
        if end == 0 {
            self.current = None;
            return;
        }
        let (mut from, mut to) = (0, self.block.restarts());
        while from < to {
            let middle = usize::midpoint(from, to);
            if self.block.restart(middle) < end {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        self.go_to(self.block.restart(from - 1));
        self.walk_to(end);
    }

    /// Goes on to the entry that ends at this offset.
    fn walk_to(&mut self, end: usize) {
        while let Some((_, entry)) = &self.current
            && entry.end < end
        {
            self.step_to(entry.end);
        }
    }

    /// Goes to an entry that shares nothing.
    fn go_to(&mut self, offset: usize) {
        self.key.clear();
        self.step_to(offset);
    }

    /// Goes to an entry whose predecessor has the key that is set.
    fn step_to(&mut self, offset: usize) {
        self.current = (offset < self.block.entries_end).then(|| (offset, self.block.entry(offset)));
        if let Some((_, entry)) = &self.current {
            self.key.truncate(entry.shared);
            self.key
                .extend_from_slice(&self.block.bytes[entry.key_start..entry.key_end]);
        }
    }
}

/// The order of versions in a table: by key, and from new to old within a key.
pub fn order(
    key: &[u8],
    timestamp: Timestamp,
    other_key: &[u8],
    other_timestamp: Timestamp,
) -> core::cmp::Ordering {
    key.cmp(other_key).then(other_timestamp.cmp(&timestamp))
}

/// How many bytes both begin with.
pub(super) fn shared_bytes(one: &[u8], other: &[u8]) -> usize {
    one.iter()
        .zip(other)
        .take_while(|(one, other)| one == other)
        .count()
}

/// Appends a number as LEB128.
pub(super) fn push_varint(bytes: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Reads a number in LEB128 and moves `at` behind it. None if it is cut off, or has more than 32 bits.
pub(super) fn take_varint(bytes: &[u8], at: &mut usize) -> Option<u32> {
    let mut number = 0_u64;
    for shift in (0..35).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return u32::try_from(number).ok();
        }
    }
    None
}

fn take_u64(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let end = at.checked_add(size_of::<u64>())?;
    let number = bytes.get(*at..end)?.try_into().ok().map(u64::from_le_bytes);
    *at = end;
    number
}

fn number_at(bytes: &[u8], offset: usize) -> u32 {
    let number = bytes[offset..offset + size_of::<u32>()].try_into();
    u32::from_le_bytes(number.expect("the range has that length"))
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    type Model = Vec<(Vec<u8>, u64, Option<Vec<u8>>, Option<u64>)>;

    /// Versions in order, with keys that share much.
    fn models() -> impl Strategy<Value = Model> {
        let key = vec(prop_oneof![Just(b'a'), Just(b'b'), any::<u8>()], 0..12);
        let content = (
            proptest::option::of(vec(any::<u8>(), 0..40)),
            proptest::option::of(any::<u64>()),
        );
        btree_map((key, any::<u64>().prop_map(core::cmp::Reverse)), content, 0..120).prop_map(|map| {
            map.into_iter()
                .map(|((key, timestamp), (value, expiry))| {
                    let expiry = expiry.filter(|_| value.is_some());
                    (key, timestamp.0, value, expiry)
                })
                .collect()
        })
    }

    fn bytes_of(model: &Model) -> Rc<[u8]> {
        let mut builder = BlockBuilder::default();
        for (key, timestamp, value, expiry) in model {
            let version = Version {
                timestamp: Timestamp(*timestamp),
                value: value.as_deref(),
                expiry: expiry.map(Timestamp),
            };
            builder.add(key, &version);
        }
        let expected_bytes = builder.len_bytes();
        let mut taken: Rc<[u8]> = Rc::default();
        builder.finish(|bytes| taken = Rc::from(bytes));
        assert_eq!((taken.len(), builder.entries()), (expected_bytes, 0));
        taken
    }

    fn assert_at(cursor: &BlockCursor, model: &Model, place: Option<usize>) {
        let Some((key, timestamp, value, expiry)) = place.and_then(|place| model.get(place)) else {
            assert!(!cursor.is_valid());
            return;
        };
        let version = Version {
            timestamp: Timestamp(*timestamp),
            value: value.as_deref(),
            expiry: expiry.map(Timestamp),
        };
        assert_eq!((cursor.key(), cursor.version()), (&key[..], version));
    }

    proptest! {
        #[test]
        fn a_block_is_walked_both_ways(model in models()) {
            let block = Block::parse(bytes_of(&model)).unwrap();
            let mut cursor = block.cursor();
            cursor.seek_to_first();
            for place in 0..=model.len() {
                assert_at(&cursor, &model, Some(place));
                cursor.next();
            }
            cursor.seek_to_last();
            for place in (0..model.len()).rev() {
                assert_at(&cursor, &model, Some(place));
                cursor.previous();
            }
            assert_at(&cursor, &model, None);
        }

        #[test]
        fn a_seek_finds_the_first_that_is_not_before(
            model in models(),
            key in vec(prop_oneof![Just(b'a'), Just(b'b'), any::<u8>()], 0..12),
            timestamp in any::<u64>(),
            at in any::<prop::sample::Index>(),
        ) {
            let block = Block::parse(bytes_of(&model)).unwrap();
            let mut cursor = block.cursor();
            let mut targets = vec![(key, timestamp)];
            if !model.is_empty() {
                let (key, timestamp, ..) = at.get(&model);
                let others = [*timestamp, timestamp.saturating_add(1), timestamp.saturating_sub(1)];
                targets.extend(others.map(|timestamp| (key.clone(), timestamp)));
            }
            for (key, timestamp) in targets {
                cursor.seek(&key, Timestamp(timestamp));
                let place = model.iter().position(|(other, time, ..)| {
                    order(other, Timestamp(*time), &key, Timestamp(timestamp)).is_ge()
                });
                assert_at(&cursor, &model, place);
            }
        }

        #[test]
        fn any_bytes_are_a_block_or_refused(
            model in models(),
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = bytes_of(&model).to_vec();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(bytes.len() - cut.index(bytes.len()) % 8);
            if let Ok(block) = Block::parse(bytes.into()) {
                let mut cursor = block.cursor();
                cursor.seek_to_first();
                let mut entries = 0;
                while cursor.is_valid() {
                    let (key, timestamp) = (cursor.key().to_vec(), cursor.version().timestamp);
                    let mut found = block.cursor();
                    found.seek(&key, timestamp);
                    assert_eq!((found.key(), found.version()), (cursor.key(), cursor.version()));
                    entries += 1;
                    cursor.next();
                }
                cursor.seek_to_last();
                while cursor.is_valid() {
                    entries -= 1;
                    cursor.previous();
                }
                assert_eq!(entries, 0);
            }
        }
    }

    #[test]
    fn an_empty_block_has_nowhere_to_be() {
        let block = Block::parse(bytes_of(&Vec::new())).unwrap();
        let mut cursor = block.cursor();
        cursor.seek(b"", Timestamp(0));
        assert!(!cursor.is_valid());
        cursor.seek_to_last();
        assert!(!cursor.is_valid());
    }

    #[test]
    #[should_panic(expected = "in order")]
    fn an_older_version_does_not_come_first() {
        let mut builder = BlockBuilder::default();
        for timestamp in [1, 2] {
            let version = Version {
                timestamp: Timestamp(timestamp),
                value: None,
                expiry: None,
            };
            builder.add(b"key", &version);
        }
    }

    #[test]
    fn bytes_are_as_documented() {
        let model = vec![
            (b"aa".to_vec(), 3, Some(b"v".to_vec()), None),
            (b"aa".to_vec(), 2, None, None),
            (b"ab".to_vec(), 1, Some(Vec::new()), Some(9)),
        ];
        let entries = [
            &[0, 2, 5, b'a', b'a', 3, 0, 0, 0, 0, 0, 0, 0, b'v'][..],
            &[2, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
            &[1, 1, 2, b'b', 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 0, 1, 0, 0, 0],
        ];
        assert_eq!(*bytes_of(&model), *entries.concat());
    }
}
