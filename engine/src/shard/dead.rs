//! Keys in a row that a scan finds dead, shard by shard, so that the shard remembers them as a gap
//! ([`gaps`](crate::storage::store::gaps)).
//!
//! A key is dead for the scan's snapshot if it has no version there, or a tombstone, or has expired. It counts only if
//! it has no newer version either: then it is dead for all later snapshots, until something else is put there.
//! Memtables tell that for each key. Walks over tables do not show newer versions, so nothing is noted of a shard of
//! which a table has versions that are newer than the snapshot.

use ostrakon_core::hlc::Timestamp;

use crate::limits::GAP_KEYS_MIN;
use crate::storage::store::Store;

/// What a scan has found dead since it went on last. Nothing is applied meanwhile.
pub(super) struct DeadKeys<'a> {
    snapshot: Timestamp,
    shards: Vec<Row<'a>>,
    /// The shard of each source.
    of_source: Vec<usize>,
}

/// Dead keys of a shard, one after the other.
struct Row<'a> {
    store: &'a Store,
    /// Where it begins, if it does: up the first key, down behind it.
    edge: Option<Vec<u8>>,
    keys: usize,
}

impl<'a> DeadKeys<'a> {
    /// None so far, for a scan at this snapshot.
    pub(super) fn new(snapshot: Timestamp) -> DeadKeys<'a> {
        DeadKeys {
            snapshot,
            shards: Vec::new(),
            of_source: Vec::new(),
        }
    }

    /// Adds a shard with so many sources, in which the scan goes on from `bound`; none is the end of all keys.
    pub(super) fn add_shard(&mut self, store: &'a Store, sources: usize, bound: Option<Vec<u8>>) {
        let shard = self.shards.len();
        self.of_source.extend((0..sources).map(|_| shard));
        self.shards.push(Row {
            store,
            edge: bound,
            keys: 0,
        });
    }

    /// A source's key is dead.
    #[inline]
    pub(super) fn dead<const REVERSE: bool>(&mut self, source: usize, key: &[u8]) {
        let row = &mut self.shards[self.of_source[source]];
        if row.edge.is_none() {
            row.edge = Some(if REVERSE { behind(key) } else { key.to_vec() });
        }
        row.keys += 1;
    }

    /// A source's key is not, or may not be.
    #[inline]
    pub(super) fn live<const REVERSE: bool>(&mut self, source: usize, key: &[u8]) {
        let row = &mut self.shards[self.of_source[source]];
        if row.keys >= GAP_KEYS_MIN {
            row.note::<REVERSE>(self.snapshot, key, REVERSE);
        }
        row.keys = 0;
        row.edge = None;
    }

    /// The scan pauses or ends; this is the last key that it has looked at.
    pub(super) fn end<const REVERSE: bool>(&self, last: &[u8]) {
        for row in self.shards.iter().filter(|row| row.keys >= GAP_KEYS_MIN) {
            row.note::<REVERSE>(self.snapshot, last, !REVERSE);
        }
    }
}

impl Row<'_> {
    /// Has the row noted, up to this key or behind it.
    fn note<const REVERSE: bool>(&self, snapshot: Timestamp, key: &[u8], is_behind: bool) {
        let Some(edge) = &self.edge else { return };
        let tree = self.store.tables().tree();
        if tree.tables().any(|table| table.newest > snapshot) {
            return;
        }
        let other = if is_behind { behind(key) } else { key.to_vec() };
        let mut gaps = self.store.gaps().borrow_mut();
        if REVERSE {
            gaps.note(&other, edge, snapshot);
        } else {
            gaps.note(edge, &other, snapshot);
        }
    }
}

/// The next key that there can be.
fn behind(key: &[u8]) -> Vec<u8> {
    [key, &[0][..]].concat()
}
