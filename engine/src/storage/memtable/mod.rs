//! The memtable: the newest part of a shard's data, in memory, ordered by key and addressable by hash.
//!
//! Three structures share one set of records:
//!
//! 1. [`arena`]: bytes that are appended and never moved, named by 32-bit references;
//! 2. [`index`]: hash to key record, for point lookups: one cache miss to the slot, one to the record;
//! 3. [`tree`]: keys in order, for scans: touched once in the life of a key, when it is new.
//!
//! Range tombstones lie beside them ([`ranges`](super::ranges)); as long as there are none, a look asks no more than
//! that.
//!
//! [`records`] lays out a key and its versions in the arena. Newest versions come first: a read of the newest
//! version and an update walk nothing, however many versions a key has; a read at an older snapshot takes
//! O(log versions) steps.
//!
//! Guarantees: versions of one key have increasing timestamps; nothing is removed before the whole table is
//! dropped, not even what has expired, so references and cursors stay valid as long as they can be held. No insert
//! does work proportional to the size of the table (the longest step divides a 32 KiB index segment), apart from
//! copying its value.
//!
//! Never: concurrency (one core owns a table), randomness (a replay gives the same structure), IO.

pub mod cursor;

mod accounting;
mod arena;
mod entries;
mod index;
mod prefetch;
mod records;
mod tree;

#[cfg(test)]
mod tests;

pub use accounting::MEMORY_BYTES_MAX;
pub use cursor::Cursor;

use accounting::insert_cost;
use arena::{Arena, Ref};
use index::Index;
use ostrakon_core::hlc::Timestamp;
use tree::Tree;

use super::ranges::{RangeTombstone, RangeTombstones, TOMBSTONE_BYTES_MAX};

/// Longest key that a memtable takes, in bytes. The limits of the database lie far below.
pub const KEY_BYTES_MAX: usize = u16::MAX as usize;

/// What happens to a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutation<'a> {
    /// It gets a value.
    Put {
        /// The value.
        value: &'a [u8],
        /// From this moment on the key is absent; `None` is never.
        expiry: Option<Timestamp>,
    },
    /// It is deleted.
    Tombstone,
}

/// One version of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version<'a> {
    /// When it was committed.
    pub timestamp: Timestamp,
    /// The value, whether it has expired or not; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// From this moment on the key is absent, as by a tombstone; `None` is never.
    pub expiry: Option<Timestamp>,
}

impl<'a> Version<'a> {
    /// A tombstone.
    pub const fn tombstone(timestamp: Timestamp) -> Version<'a> {
        Version {
            timestamp,
            value: None,
            expiry: None,
        }
    }

    /// The value that a reader at the moment `at` sees: none of a tombstone, nor of a version whose expiry is at or
    /// below `at`. What the key had before such a version stays hidden.
    #[inline]
    pub fn live_value(&self, at: Timestamp) -> Option<&'a [u8]> {
        self.value
            .filter(|_| self.expiry.is_none_or(|expiry| expiry > at))
    }
}

/// The versions of one shard's keys that are not in a file yet.
///
/// `hash` in every call is the xxh3-64 of the user key. Its low 32 bits are used; the upper ones are nearly
/// constant within a shard, which is a range of hashes.
pub struct Memtable {
    arena: Arena,
    index: Index,
    tree: Tree,
    ranges: RangeTombstones,
    /// What the range tombstones count against the memory.
    ranges_bytes: usize,
    newest_range: Timestamp,
    versions: usize,
}

impl Default for Memtable {
    fn default() -> Self {
        Memtable::new()
    }
}

impl Memtable {
    /// An empty table: a few hundred bytes, all growth happens on insert.
    pub fn new() -> Self {
        Memtable {
            arena: Arena::new(),
            index: Index::new(),
            tree: Tree::new(),
            ranges: RangeTombstones::default(),
            ranges_bytes: 0,
            newest_range: Timestamp::ZERO,
            versions: 0,
        }
    }

    /// Adds a version. `timestamp` must be above the key's newest one.
    ///
    /// Panics when it is not (two writes got the same place in the shard's order: a bug), when the key is
    /// longer than [`KEY_BYTES_MAX`], and when the table is filled past [`MEMORY_BYTES_MAX`].
    pub fn insert(&mut self, hash: u64, key: &[u8], timestamp: Timestamp, mutation: Mutation<'_>) {
        assert!(
            key.len() <= KEY_BYTES_MAX,
            "key of {} bytes, at most {KEY_BYTES_MAX} fit",
            key.len()
        );
        if let Some(node) = self.find(hash, key) {
            records::push_version(&mut self.arena, node, timestamp, mutation);
        } else {
            let node = records::write_key(&mut self.arena, key, timestamp, mutation);
            self.index.insert(tag(hash), node);
            self.tree.insert(&self.arena, key, node);
        }
        self.versions += 1;
    }

    /// Deletes all keys from `start` up to `end`, which is excluded; `None` is behind all keys. `timestamp` must be
    /// above that of the range tombstone before and of all versions of these keys.
    ///
    /// Panics when it is not above that of the one before, and when `end` is not above `start`.
    pub fn insert_range(&mut self, start: &[u8], end: Option<&[u8]>, timestamp: Timestamp) {
        assert!(
            timestamp > self.newest_range,
            "range tombstone {timestamp} is not above the newest, {}",
            self.newest_range
        );
        assert!(end.is_none_or(|end| start < end), "a range has a key at least");
        self.newest_range = timestamp;
        self.ranges_bytes += Memtable::range_cost_bytes(start.len(), end.map_or(0, <[u8]>::len));
        self.ranges.insert(RangeTombstone {
            start: start.into(),
            end: end.map(Into::into),
            timestamp,
        });
    }

    /// The newest version of a key; a tombstone, if a range tombstone is newer than its own versions.
    #[inline]
    pub fn newest(&self, hash: u64, key: &[u8]) -> Option<Version<'_>> {
        let own = self
            .find(hash, key)
            .map(|node| records::newest(&self.arena, node));
        if self.ranges.is_empty() {
            return own;
        }
        self.ranges.hide(own, key, Timestamp::MAX)
    }

    /// The newest version of a key with a timestamp at or below `snapshot`; a tombstone, if a range tombstone at or
    /// below `snapshot` is newer.
    #[inline]
    pub fn at(&self, hash: u64, key: &[u8], snapshot: Timestamp) -> Option<Version<'_>> {
        let own = self
            .find(hash, key)
            .and_then(|node| records::version_at(&self.arena, node, snapshot));
        if self.ranges.is_empty() {
            return own;
        }
        self.ranges.hide(own, key, snapshot)
    }

    /// Its range tombstones. Cursors do not look at them.
    pub fn ranges(&self) -> &RangeTombstones {
        &self.ranges
    }

    /// First of two steps that hide the memory latency of a batch of lookups: asks for the index slot.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.index.prefetch(tag(hash));
    }

    /// Second step, after [`Memtable::prefetch`] was called for the whole batch: looks into the slot and asks
    /// for the key's record, which also holds its first version.
    #[inline]
    pub fn prefetch_node(&self, hash: u64) {
        if let Some(node) = self.index.find(tag(hash), |_| true) {
            self.arena.prefetch(node);
        }
    }

    /// Bytes to set against the memory budget: all that the table holds and, in advance, the unused part of
    /// the blocks that it holds or takes next. It never falls, never lies below [`Memtable::held_bytes`], and
    /// an insert raises it by at most [`Memtable::insert_cost_bytes`].
    pub fn memory_bytes(&self) -> usize {
        accounting::memory_bytes(&self.arena, &self.index, &self.tree) + self.ranges_bytes
    }

    /// Bytes that the table has allocated at this moment, used or not.
    pub fn held_bytes(&self) -> usize {
        let keys_bytes = self.arena.held_bytes() + self.index.held_bytes() + self.tree.held_bytes();
        size_of::<Memtable>() + keys_bytes + self.ranges.held_bytes()
    }

    /// Upper bound of what one insert adds to [`Memtable::memory_bytes`]; bounds add up over a batch. A tombstone
    /// is an empty value; `is_expiring` says that the value has an expiry.
    ///
    /// It assumes hashes that are uniform in their low 32 bits. Keys made to share them cost at most one
    /// doubled index segment more, which [`Memtable::memory_bytes`] then shows.
    pub const fn insert_cost_bytes(key_len: usize, value_len: usize, is_expiring: bool) -> usize {
        insert_cost(key_len, value_len, is_expiring)
    }

    /// What one range tombstone adds to [`Memtable::memory_bytes`].
    pub const fn range_cost_bytes(start_len: usize, end_len: usize) -> usize {
        TOMBSTONE_BYTES_MAX + start_len + end_len
    }

    /// Number of distinct keys, deleted ones included.
    pub fn key_count(&self) -> usize {
        self.index.len()
    }

    /// Number of versions of all keys, tombstones included, range tombstones not.
    pub fn version_count(&self) -> usize {
        self.versions
    }

    /// Has it neither versions nor range tombstones?
    pub fn is_empty(&self) -> bool {
        self.versions == 0 && self.ranges.is_empty()
    }

    /// A cursor at the first key that is not below `start`.
    pub fn cursor<'a>(&'a self, start: &[u8]) -> Cursor<'a> {
        Cursor::new(&self.arena, &self.tree, self.tree.seek(&self.arena, start))
    }

    /// A cursor at the last key below `end`, or at the very last one if there is no `end`.
    pub fn cursor_below<'a>(&'a self, end: Option<&[u8]>) -> Cursor<'a> {
        let position = match end {
            Some(end) => self.tree.seek_below(&self.arena, end),
            None => self.tree.last(),
        };
        Cursor::new(&self.arena, &self.tree, position)
    }

    /// A cursor beyond the keys.
    pub fn cursor_at_end(&self) -> Cursor<'_> {
        Cursor::new(&self.arena, &self.tree, None)
    }

    #[inline]
    fn find(&self, hash: u64, key: &[u8]) -> Option<Ref> {
        self.index
            .find(tag(hash), |node| records::key(&self.arena, node) == key)
    }
}

/// The bits of the hash that tell keys of one shard apart.
#[inline]
const fn tag(hash: u64) -> u32 {
    hash as u32
}
