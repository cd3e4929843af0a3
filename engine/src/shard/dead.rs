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

/// What a scan finds dead while it goes on. Nothing is applied meanwhile.
pub(super) struct DeadKeys<'a> {
    snapshot: Timestamp,
    shards: Vec<Row<'a>>,
    /// The shard of each source.
    of_source: Vec<usize>,
}

/// Dead keys of a shard, one after the other.
struct Row<'a> {
    store: &'a Store,
    dead: Dead,
}

/// What is known of the dead keys at which a scan has paused.
#[derive(Default)]
pub(super) struct Dead {
    /// Where they begin, if they do: up the first key, down behind it.
    edge: Option<Vec<u8>>,
    keys: usize,
    /// See [`Store::puts`]: with others, some may be dead no more.
    puts: u64,
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

    /// Adds a shard with so many sources, in which the scan goes on from `bound`; none is the end of all keys. `before`
    /// is what it had found there when it paused.
    pub(super) fn add_shard(
        &mut self,
        store: &'a Store,
        sources: usize,
        bound: Option<Vec<u8>>,
        before: Dead,
    ) {
        let shard = self.shards.len();
        self.of_source.extend((0..sources).map(|_| shard));
        let puts = store.puts();
        let dead = if before.keys > 0 && before.puts == puts {
            before
        } else {
            Dead {
                edge: bound,
                keys: 0,
                puts,
            }
        };
        self.shards.push(Row { store, dead });
    }

    /// What was found in each shard, for when the scan goes on.
    pub(super) fn into_dead(self) -> impl Iterator<Item = Dead> {
        self.shards.into_iter().map(|row| row.dead)
    }

    /// A source's key is dead.
    #[inline]
    pub(super) fn dead<const REVERSE: bool>(&mut self, source: usize, key: &[u8]) {
        let dead = &mut self.shards[self.of_source[source]].dead;
        if dead.edge.is_none() {
            dead.edge = Some(if REVERSE { behind(key) } else { key.to_vec() });
        }
        dead.keys += 1;
    }

    /// A source's key is not, or may not be.
    #[inline]
    pub(super) fn live<const REVERSE: bool>(&mut self, source: usize, key: &[u8]) {
        let row = &mut self.shards[self.of_source[source]];
        if row.dead.keys >= GAP_KEYS_MIN {
            row.note::<REVERSE>(self.snapshot, key, REVERSE);
        }
        row.dead.keys = 0;
        row.dead.edge = None;
    }

    /// The scan pauses or ends; this is the last key that it has looked at.
    pub(super) fn end<const REVERSE: bool>(&self, last: &[u8]) {
        for row in self.shards.iter().filter(|row| row.dead.keys >= GAP_KEYS_MIN) {
            row.note::<REVERSE>(self.snapshot, last, !REVERSE);
        }
    }
}

impl Row<'_> {
    /// Has the row noted, up to this key or behind it.
    fn note<const REVERSE: bool>(&self, snapshot: Timestamp, key: &[u8], is_behind: bool) {
        let Some(edge) = &self.dead.edge else { return };
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
