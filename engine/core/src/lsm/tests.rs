//! A tree of tables in memory, whose merges run one at a time or several at once, against what was put into it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::rc::Rc;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::hlc::Timestamp;

/// Timestamps of the versions of a key, the newest first.
type Content = BTreeMap<u16, Vec<u64>>;

/// Bytes that each version takes in a table.
const VERSION_BYTES: u64 = 100;
/// Keys of one table at most.
const TABLE_KEYS: usize = 20;

struct Store {
    tree: Tree,
    options: Options,
    tables: BTreeMap<TableNumber, Content>,
    busy: BTreeSet<TableNumber>,
    running: Vec<Choice>,
    next_number: u64,
    clock: u64,
    /// All that was ever put.
    put: Content,
    tombstones: BTreeSet<u64>,
    written_bytes: u64,
}

fn options(strategy: CompactionStrategy) -> Options {
    Options {
        strategy,
        base_bytes: 40 * VERSION_BYTES,
        ratio: 4,
        merge_bytes_max: 400 * VERSION_BYTES,
        ..Options::default()
    }
}

impl Store {
    fn new(strategy: CompactionStrategy) -> Store {
        Store {
            tree: Tree::default(),
            options: options(strategy),
            tables: BTreeMap::new(),
            busy: BTreeSet::new(),
            running: Vec::new(),
            next_number: 0,
            clock: 0,
            put: Content::new(),
            tombstones: BTreeSet::new(),
            written_bytes: 0,
        }
    }

    fn key(key: u16) -> Box<[u8]> {
        key.to_be_bytes().into()
    }

    /// Tables of this content, in order.
    fn make(&mut self, content: &Content) -> Run {
        let keys: Vec<u16> = content.keys().copied().collect();
        let mut run = Run::new();
        for keys in keys.chunks(TABLE_KEYS) {
            self.next_number += 1;
            let number = TableNumber(self.next_number);
            let own: Content = keys.iter().map(|key| (*key, content[key].clone())).collect();
            let versions = own.values().map(Vec::len).sum::<usize>() as u64;
            let tombstones = own
                .values()
                .flatten()
                .filter(|at| self.tombstones.contains(at))
                .count();
            run.push(Rc::new(TableInfo {
                number,
                bytes: versions * VERSION_BYTES,
                smallest: Store::key(keys[0]),
                largest: Store::key(keys[keys.len() - 1]),
                keys: own.len() as u64,
                versions,
                tombstones: tombstones as u64,
                expiring: 0,
                last_expiry: Timestamp(0),
                newest: Timestamp(own.values().flatten().copied().max().unwrap_or(0)),
            }));
            self.written_bytes += versions * VERSION_BYTES;
            self.tables.insert(number, own);
        }
        run
    }

    fn flush(&mut self, keys: &[(u16, bool)]) {
        let mut content = Content::new();
        for (key, is_delete) in keys {
            self.clock += 1;
            if *is_delete {
                self.tombstones.insert(self.clock);
            }
            content.entry(*key).or_default().insert(0, self.clock);
            self.put.entry(*key).or_default().insert(0, self.clock);
        }
        let added = self.make(&content);
        let edit = Edit {
            removed: Vec::new(),
            place: Place::Young,
            added,
        };
        self.tree.apply(&edit).unwrap();
    }

    /// Begins a merge, if there is something to do; true if there was.
    fn begin(&mut self, watermark: u64) -> bool {
        let picked = pick(&self.tree, &self.busy, &self.options, Timestamp(watermark));
        let Some(choice) = picked else {
            return false;
        };
        assert!(!choice.inputs.is_empty());
        for number in &choice.inputs {
            assert!(self.busy.insert(*number), "{number:?} is busy: {choice:?}");
        }
        self.running.push(choice);
        true
    }

    /// Ends a merge. Below the watermark it keeps only what a reader at it needs.
    fn end(&mut self, place: usize, watermark: u64) {
        let choice = self.running.swap_remove(place);
        for number in &choice.inputs {
            self.busy.remove(number);
        }
        let added = if choice.is_move {
            assert_eq!(choice.inputs.len(), 1);
            let moved = self.tree.tables().find(|table| table.number == choice.inputs[0]);
            Vec::from([Rc::clone(moved.unwrap())])
        } else {
            let mut content = Content::new();
            for number in &choice.inputs {
                for (key, versions) in &self.tables[number] {
                    content.entry(*key).or_default().extend(versions);
                }
            }
            for (key, versions) in &mut content {
                versions.sort_unstable_by_key(|at| core::cmp::Reverse(*at));
                versions.dedup();
                let needed = versions.iter().position(|at| *at <= watermark);
                if let Some(needed) = needed {
                    let is_gone = self.tombstones.contains(&versions[needed])
                        && !self.tree.has_older(&choice, &key.to_be_bytes());
                    versions.truncate(needed + usize::from(!is_gone));
                }
            }
            content.retain(|_, versions| !versions.is_empty());
            self.make(&content)
        };
        let removed = choice.inputs;
        self.tree
            .apply(&Edit {
                removed,
                place: choice.output,
                added,
            })
            .unwrap();
    }

    /// The newest version of a key at a snapshot, as a reader finds it.
    fn read(&self, key: u16, snapshot: u64) -> Option<u64> {
        let found = self.tree.tables_of(&key.to_be_bytes()).find_map(|table| {
            let versions = self.tables[&table.number].get(&key)?;
            versions.iter().find(|at| **at <= snapshot).copied()
        });
        found.filter(|at| !self.tombstones.contains(at))
    }

    /// At any snapshot from the watermark on, a reader finds what was put.
    fn check(&self, watermark: u64) {
        for (key, versions) in &self.put {
            for snapshot in versions
                .iter()
                .copied()
                .filter(|at| *at >= watermark)
                .chain([watermark, self.clock])
            {
                let newest = versions.iter().find(|at| **at <= snapshot).copied();
                let expected = newest.filter(|at| !self.tombstones.contains(at));
                assert_eq!(
                    self.read(*key, snapshot),
                    expected,
                    "{key} at {snapshot}: {:?}",
                    self.tree
                );
            }
        }
    }

    fn settle(&mut self, watermark: u64) {
        for _ in 0..10_000 {
            if !self.begin(watermark) && self.running.is_empty() {
                return;
            }
            self.end(0, watermark);
        }
        panic!("merges without end: {:?}", self.tree);
    }
}

fn flushes() -> impl Strategy<Value = Vec<Vec<(u16, bool)>>> {
    let keys = prop_oneof![0..40_u16, 0..400_u16, Just(7_u16)];
    let flush = prop::collection::vec((keys, prop::bool::weighted(0.2)), 1..60);
    prop::collection::vec(flush, 1..40)
}

fn strategies() -> impl Strategy<Value = CompactionStrategy> {
    prop_oneof![
        Just(CompactionStrategy::Leveled),
        Just(CompactionStrategy::Tiered)
    ]
}

proptest! {
    #[test]
    fn readers_find_the_newest_whatever_is_merged_meanwhile(
        flushes in flushes(),
        strategy in strategies(),
        moves in prop::collection::vec((0..4_u8, any::<prop::sample::Index>()), 0..200),
    ) {
        let mut store = Store::new(strategy);
        let mut flushes = flushes.iter();
        let mut watermark = 0;
        for (kind, which) in moves {
            match kind {
                0 => if let Some(keys) = flushes.next() { store.flush(keys) },
                1 => { store.begin(watermark); }
                2 if !store.running.is_empty() => {
                    let place = which.index(store.running.len());
                    store.end(place, watermark);
                }
                // Never above what has been written.
                3 => watermark = watermark.max(which.index(store.clock as usize + 1) as u64),
                _ => {}
            }
            store.check(watermark);
        }
        for keys in flushes {
            store.flush(keys);
        }
        while !store.running.is_empty() {
            store.end(0, watermark);
        }
        store.settle(watermark);
        store.check(watermark);
        if strategy == CompactionStrategy::Leveled {
            assert!(store.tree.young.len() < store.options.young_runs);
            assert!(leveled::scores(&store.tree, &store.options).iter().all(|score| *score < 1000));
            assert_eq!(leveled::debt_bytes(&store.tree, &store.options), 0);
        }
    }
}

#[test]
fn what_was_deleted_takes_no_space_in_the_end() {
    for strategy in [CompactionStrategy::Leveled, CompactionStrategy::Tiered] {
        let mut store = Store::new(strategy);
        let all: Vec<u16> = (0..2000).collect();
        for keys in all.chunks(50) {
            store.flush(&keys.iter().map(|key| (*key, false)).collect::<Vec<_>>());
            store.settle(0);
        }
        for keys in all.chunks(50) {
            store.flush(&keys.iter().map(|key| (*key, true)).collect::<Vec<_>>());
        }
        let watermark = store.clock + 1;
        store.settle(watermark);
        let (left, ever) = (store.tree.bytes(), 2000 * VERSION_BYTES);
        assert!(
            left <= ever / 10,
            "{strategy:?}: {left} of {ever} bytes are left: {:?}",
            store.tree
        );
    }
}

#[test]
fn what_is_overwritten_takes_little_space() {
    let mut store = Store::new(CompactionStrategy::Leveled);
    let mut number = 1_u64;
    for _ in 0..400 {
        let keys: Vec<(u16, bool)> = (0..50)
            .map(|_| {
                number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                ((number >> 33) as u16 % 3000, false)
            })
            .collect();
        store.flush(&keys);
        let watermark = store.clock;
        store.settle(watermark);
    }
    let needed = store.put.len() as u64 * VERSION_BYTES;
    let bytes = store.tree.bytes();
    assert!(bytes * 100 <= needed * 140, "{bytes} bytes for {needed}");
}

#[test]
fn what_readers_needed_is_dropped_when_they_are_gone_and_nothing_else_is_written() {
    let mut store = Store::new(CompactionStrategy::Leveled);
    for round in 0..3 {
        let all: Vec<u16> = (0..2000).collect();
        for keys in all.chunks(50) {
            store.flush(&keys.iter().map(|key| (*key, false)).collect::<Vec<_>>());
            store.settle(0);
        }
        assert!(
            store.tree.bytes() >= (round + 1) * 2000 * VERSION_BYTES,
            "all versions are kept"
        );
    }
    let watermark = store.clock + 1;
    store.settle(watermark);
    let (left, needed) = (store.tree.bytes(), 2000 * VERSION_BYTES);
    // A quarter may lie in the level above the last, and of each table there may be some to be dropped.
    assert!(left * 100 <= needed * 145, "{left} bytes for {needed}");
}

#[test]
fn edits_that_do_not_fit_change_nothing() {
    let mut store = Store::new(CompactionStrategy::Leveled);
    store.flush(&[(1, false), (2, false)]);
    store.flush(&[(2, false), (3, false)]);
    store.flush(&[(3, false), (4, false)]);
    let tables: Vec<Rc<TableInfo>> = store.tree.tables().cloned().collect();
    let new = |number: u64| {
        let mut table = (*tables[0]).clone();
        table.number = TableNumber(number);
        Rc::new(table)
    };
    let edit = |removed: &[u64], place, added: Run| Edit {
        removed: removed.iter().copied().map(TableNumber).collect(),
        place,
        added,
    };
    for (edit, misfit) in [
        (
            edit(&[9], Place::Young, Run::new()),
            Misfit::Absent(TableNumber(9)),
        ),
        (
            edit(&[], Place::Young, Vec::from([new(1)])),
            Misfit::Present(TableNumber(1)),
        ),
        (
            edit(&[], Place::Level(1), Vec::from([new(8), new(9)])),
            Misfit::Shared(TableNumber(9)),
        ),
        (edit(&[1, 3], Place::Young, Vec::from([new(9)])), Misfit::Torn),
        (edit(&[1], Place::Level(0), Run::new()), Misfit::Level(0)),
        (
            edit(&[1], Place::Level(LEVELS + 1), Run::new()),
            Misfit::Level(LEVELS + 1),
        ),
    ] {
        let before = store.tree.clone();
        assert_eq!(store.tree.apply(&edit), Err(misfit));
        assert_eq!(store.tree, before);
    }
}
