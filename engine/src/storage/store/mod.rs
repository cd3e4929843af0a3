//! The versions of one shard's keys, wherever they are: in the memtable that takes writes, in memtables that are
//! sealed and wait to be flushed, in tables.
//!
//! Of any key, versions in the memtable are newer than those in sealed ones, these newer the later they were sealed,
//! and all of them newer than those in tables. So a look goes from one to the next and ends where it finds a version. A
//! range tombstone is a version of each key that it covers.

pub mod checkpoint;
pub mod files;
pub mod flush;
pub mod gaps;
pub mod keys;
pub mod merge;
mod output;
pub mod tables;
pub mod walk;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::raft::EntryId;

use super::memtable::{Cursor, Memtable, Mutation, Version};
use super::sstable::reader::TableError;
use gaps::Gaps;
use keys::stored_key;
use tables::{InTables, Tables, TablesLook};

/// What a shard keeps for itself, at an entry of its log: keys of [`keys`], each with its new value or a tombstone,
/// in order.
pub type OwnRecords = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A memtable that takes no more writes.
pub struct Sealed {
    /// The versions.
    pub memtable: Memtable,
    /// The entry that was applied last.
    pub through: EntryId,
    /// What the shard keeps for itself and has changed since the memtable before was sealed.
    pub own: OwnRecords,
}

/// What is known of a key's version at a snapshot without a read.
pub enum Look<'a> {
    /// It lies in memory.
    Memory(Version<'a>),
    /// It lies in a table.
    Table(InTables),
    /// There is none.
    Absent,
    /// These have to be asked.
    Unknown(Rc<Tables>),
}

impl Look<'_> {
    /// The version, if it is known and there.
    pub fn version(&self) -> Option<Version<'_>> {
        match self {
            Look::Memory(version) => Some(*version),
            Look::Table(found) => Some(found.version()),
            Look::Absent | Look::Unknown(_) => None,
        }
    }
}

/// The versions of one shard's keys.
#[derive(Default)]
pub struct Store {
    active: Memtable,
    /// From the oldest to the newest.
    sealed: VecDeque<Rc<Sealed>>,
    tables: Rc<Tables>,
    /// Sealings and changes of the tables so far.
    changes: u64,
    /// Flushes so far.
    flushes: u64,
    /// Puts so far.
    puts: u64,
    /// When the first key or range was deleted that `active` has deleted.
    first_deletion: Option<Timestamp>,
    /// What scans have found out.
    gaps: RefCell<Gaps>,
}

impl Store {
    /// A store with these tables and nothing in memory.
    pub fn new(tables: Rc<Tables>) -> Store {
        Store {
            tables,
            ..Store::default()
        }
    }

    /// Adds a version, see [`Memtable::insert`].
    pub fn insert(&mut self, hash: u64, key: &[u8], timestamp: Timestamp, mutation: Mutation<'_>) {
        if matches!(mutation, Mutation::Put { .. }) {
            self.puts += 1;
            let gaps = self.gaps.get_mut();
            if !gaps.is_empty() {
                gaps.put(key);
            }
        } else {
            self.first_deletion.get_or_insert(timestamp);
        }
        self.active.insert(hash, key, timestamp, mutation);
    }

    /// A number that is another after each put: a key that was dead before may not be any more.
    pub fn puts(&self) -> u64 {
        self.puts
    }

    /// Ranges without a key that can be seen, for scans to pass over.
    pub fn gaps(&self) -> &RefCell<Gaps> {
        &self.gaps
    }

    /// Deletes a range of keys, see [`Memtable::insert_range`].
    pub fn insert_range(&mut self, start: &[u8], end: Option<&[u8]>, timestamp: Timestamp) {
        self.first_deletion.get_or_insert(timestamp);
        self.active.insert_range(start, end, timestamp);
    }

    /// The memtable that takes writes.
    pub fn active(&self) -> &Memtable {
        &self.active
    }

    /// When the first key or range was deleted that the memtable which takes writes has deleted.
    pub fn first_deletion(&self) -> Option<Timestamp> {
        self.first_deletion
    }

    /// The memtables that wait to be flushed, the oldest first.
    pub fn sealed(&self) -> impl DoubleEndedIterator<Item = &Rc<Sealed>> + ExactSizeIterator {
        self.sealed.iter()
    }

    /// The tables as they are now.
    pub fn tables(&self) -> &Rc<Tables> {
        &self.tables
    }

    /// A number that is another after each sealing, flush and merge.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// A number that is another after each flush: versions found in tables before may not be the newest of their keys
    /// any more, although memtables have none.
    pub fn flushes(&self) -> u64 {
        self.flushes
    }

    /// What counts against the memory for memtables.
    pub fn memory_bytes(&self) -> usize {
        self.active.memory_bytes() + self.sealed_bytes()
    }

    /// The part of it that a flush gives back.
    pub fn sealed_bytes(&self) -> usize {
        self.sealed.iter().map(|sealed| sealed.memory_bytes()).sum()
    }

    /// The newest version of a key at or below `snapshot`, if it is known without a read. `scratch` is for the key's
    /// form in tables.
    ///
    /// # Errors
    /// If an index of a table is damaged.
    #[inline]
    pub fn look(
        &self,
        (hash, key): (u64, &[u8]),
        snapshot: Timestamp,
        scratch: &mut Vec<u8>,
    ) -> Result<Look<'_>, TableError> {
        let newest = if snapshot == Timestamp::MAX {
            self.active.newest(hash, key)
        } else {
            self.active.at(hash, key, snapshot)
        };
        match newest {
            Some(version) => Ok(Look::Memory(version)),
            None if self.sealed.is_empty() && self.tables.runs().is_empty() => Ok(Look::Absent),
            None => self.look_behind((hash, key), snapshot, scratch),
        }
    }

    /// [`Store::look`] behind the memtable that takes writes.
    fn look_behind(
        &self,
        (hash, key): (u64, &[u8]),
        snapshot: Timestamp,
        scratch: &mut Vec<u8>,
    ) -> Result<Look<'_>, TableError> {
        if let Some(version) = self.look_in_sealed((hash, key), snapshot) {
            return Ok(Look::Memory(version));
        }
        stored_key(scratch, key);
        Ok(match self.tables.look(scratch, hash, snapshot)? {
            TablesLook::Found(found) => Look::Table(found),
            TablesLook::Absent => Look::Absent,
            TablesLook::Unknown => Look::Unknown(Rc::clone(&self.tables)),
        })
    }

    fn look_in_sealed(&self, (hash, key): (u64, &[u8]), snapshot: Timestamp) -> Option<Version<'_>> {
        let mut newest_first = self.sealed.iter().rev();
        newest_first.find_map(|sealed| sealed.memtable.at(hash, key, snapshot))
    }

    /// The newest version of a key at or below `snapshot` that is in memory.
    #[inline]
    pub fn look_in_memory(&self, (hash, key): (u64, &[u8]), snapshot: Timestamp) -> Option<Version<'_>> {
        self.active
            .at(hash, key, snapshot)
            .or_else(|| self.look_in_sealed((hash, key), snapshot))
    }

    /// Cursors over what is in memory, from the newest memtable to the oldest, each at the first key from `start` on.
    pub fn cursors<'a>(&'a self, start: &[u8]) -> impl Iterator<Item = Cursor<'a>> {
        self.memtables().map(move |memtable| memtable.cursor(start))
    }

    /// The same, each at the last key below `end`, or at the very last one.
    pub fn cursors_below<'a>(&'a self, end: Option<&[u8]>) -> impl Iterator<Item = Cursor<'a>> {
        self.memtables().map(move |memtable| memtable.cursor_below(end))
    }

    /// All memtables, from the newest to the oldest.
    pub fn memtables(&self) -> impl Iterator<Item = &Memtable> {
        let sealed = self.sealed.iter().rev().map(|sealed| &sealed.memtable);
        core::iter::once(&self.active).chain(sealed)
    }

    /// Seals the memtable at the entry that was applied last. `own` may be of more than nothing only if that entry is
    /// another one than at the last sealing: it gives those records their version.
    pub fn seal(&mut self, through: EntryId, own: OwnRecords) {
        let memtable = core::mem::take(&mut self.active);
        self.first_deletion = None;
        self.sealed.push_back(Rc::new(Sealed {
            memtable,
            through,
            own,
        }));
        self.changes += 1;
    }

    /// The oldest sealed memtable is in tables now, which are these.
    pub fn flushed(&mut self, tables: Rc<Tables>) {
        self.sealed.pop_front().expect("a sealed memtable was flushed");
        self.flushes += 1;
        self.merged(tables);
    }

    /// Tables were merged; these are there now.
    pub fn merged(&mut self, tables: Rc<Tables>) {
        self.tables = tables;
        self.changes += 1;
    }
}

impl Sealed {
    /// What it counts against the memory for memtables.
    pub fn memory_bytes(&self) -> usize {
        let record_bytes = |record: &(Vec<u8>, Option<Vec<u8>>)| {
            let (key, value) = record;
            size_of_val(record) + key.len() + value.as_ref().map_or(0, Vec::len)
        };
        let own_bytes: usize = self.own.iter().map(record_bytes).sum();
        self.memtable.memory_bytes() + own_bytes
    }
}
