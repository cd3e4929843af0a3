//! What range tombstones hide from a scan: of each shard, in each of its sources.
//!
//! A scan walks sources in the order of their keys, and range tombstones are at no key. So it asks here, for each
//! version that it comes to, whether the source itself or a newer one of the same shard has a range tombstone that is
//! newer. A source of which one key after the other is hidden by a newer source jumps to where that ends.

use ostrakon_core::hlc::Timestamp;

use crate::storage::memtable::Version;
use crate::storage::ranges::RangeTombstones;
use crate::storage::store::Store;
use crate::storage::store::keys::{stored_key, users_key};
use crate::storage::store::tables::{OpenRun, table_of};

/// So many hidden keys in a row are walked over before a source jumps: a jump costs more than some steps.
const STEPS_BEFORE_JUMP: u8 = 8;

/// The range tombstones of all sources of a scan.
#[derive(Default)]
pub(super) struct Hiding<'a> {
    /// The sources that have some, in order.
    hiders: Vec<Hider<'a>>,
    /// For each source, those of its shard that are not older than it: the first of `hiders`, and how many.
    of_source: Vec<(usize, usize)>,
    /// For each source, how many of its keys in a row a newer one has hidden.
    steps: Vec<u8>,
    /// The key that is asked about, as tables have it.
    stored: Vec<u8>,
}

struct Hider<'a> {
    /// Number of the source.
    source: usize,
    ranges: Ranges<'a>,
}

enum Ranges<'a> {
    Memory(&'a RangeTombstones),
    Run(&'a OpenRun),
}

/// How far keys are hidden, in the direction of a scan.
pub(super) enum Reach {
    /// Up to this key, which is excluded; none is no end.
    Up(Option<Vec<u8>>),
    /// Down to this key, which is included.
    Down(Vec<u8>),
}

impl<'a> Hiding<'a> {
    /// Adds the sources of a shard: its memtables from the newest to the oldest, then its runs.
    pub(super) fn add_shard(&mut self, store: &'a Store) {
        let first = self.hiders.len();
        let memory = store.memtables().map(|memtable| {
            let ranges = memtable.ranges();
            (!ranges.is_empty()).then_some(Ranges::Memory(ranges))
        });
        let runs = store.tables().runs().iter().map(|run| {
            let has_some = run.iter().any(|open| !open.table.ranges().is_empty());
            has_some.then_some(Ranges::Run(run))
        });
        for ranges in memory.chain(runs) {
            let source = self.of_source.len();
            self.hiders.extend(ranges.map(|ranges| Hider { source, ranges }));
            self.of_source.push((first, self.hiders.len() - first));
            self.steps.push(0);
        }
    }

    /// Is there no range tombstone at all?
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.hiders.is_empty()
    }

    /// The next questions are about this key.
    pub(super) fn at(&mut self, key: &[u8]) {
        if !self.is_empty() {
            stored_key(&mut self.stored, key);
        }
    }

    /// Is this version, which a source has of the key, hidden from a reader at a snapshot?
    pub(super) fn hides(&self, source: usize, version: &Version<'_>, snapshot: Timestamp) -> bool {
        let hiders = self.hiders_of(source).iter();
        let newest = hiders
            .filter_map(|hider| hider.newest_over(&self.stored, snapshot))
            .max();
        newest > Some(version.timestamp)
    }

    /// A source that is at the key is about to leave it. If newer ones have hidden several of its keys in a row, it
    /// need not walk over those that they hide besides.
    pub(super) fn leave<const REVERSE: bool>(&mut self, source: usize, snapshot: Timestamp) -> Option<Reach> {
        let hiders = self.hiders_of(source).iter();
        let hider = hiders
            .filter(|hider| hider.source < source)
            .find(|hider| hider.newest_over(&self.stored, snapshot).is_some());
        let Some(hider) = hider else {
            self.steps[source] = 0;
            return None;
        };
        if self.steps[source] < STEPS_BEFORE_JUMP {
            self.steps[source] += 1;
            return None;
        }
        if REVERSE {
            hider.down(&self.stored, snapshot)
        } else {
            hider.up(&self.stored, snapshot)
        }
    }

    fn hiders_of(&self, source: usize) -> &[Hider<'a>] {
        let (first, count) = self.of_source[source];
        &self.hiders[first..first + count]
    }
}

impl<'a> Hider<'a> {
    /// The range tombstones that may cover a key, and the key as they have it.
    fn of_key<'b>(&self, stored: &'b [u8]) -> Option<(&'a RangeTombstones, &'b [u8])> {
        match self.ranges {
            Ranges::Memory(ranges) => Some((ranges, users_key(stored)?)),
            Ranges::Run(run) => Some((table_of(run, stored)?.table.ranges(), stored)),
        }
    }

    /// A key that range tombstones have, as users know it; none is behind all keys.
    fn users<'b>(&self, key: &'b [u8]) -> Option<&'b [u8]> {
        match self.ranges {
            Ranges::Memory(_) => Some(key),
            Ranges::Run(_) => users_key(key),
        }
    }

    fn newest_over(&self, stored: &[u8], snapshot: Timestamp) -> Option<Timestamp> {
        let (ranges, key) = self.of_key(stored)?;
        ranges.newest_over(key, snapshot)
    }

    /// Where what covers the key ends.
    fn up(&self, stored: &[u8], snapshot: Timestamp) -> Option<Reach> {
        let (ranges, key) = self.of_key(stored)?;
        let end = ranges.covered_up_to(key, snapshot);
        let end = end.and_then(|end| self.users(end)).map(<[u8]>::to_vec);
        Some(Reach::Up(end))
    }

    /// Where what covers the key begins.
    fn down(&self, stored: &[u8], snapshot: Timestamp) -> Option<Reach> {
        let (ranges, key) = self.of_key(stored)?;
        let start = self.users(ranges.covered_down_to(key, snapshot))?;
        Some(Reach::Down(start.to_vec()))
    }
}

#[cfg(test)]
#[path = "hiding_tests.rs"]
mod tests;
