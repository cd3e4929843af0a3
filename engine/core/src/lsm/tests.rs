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

    fn change_strategy(&mut self) {
        self.options.strategy = match self.options.strategy {
            CompactionStrategy::Leveled => CompactionStrategy::Tiered,
            CompactionStrategy::Tiered => CompactionStrategy::Leveled,
        };
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
                is_largest_excluded: false,
                keys: own.len() as u64,
                versions,
                tombstones: tombstones as u64,
                range_tombstones: 0,
                covered_bytes: 0,
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
                        && !self.tree.older_than(&choice).has(&key.to_be_bytes());
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
        moves in prop::collection::vec((0..20_u8, any::<prop::sample::Index>()), 0..200),
    ) {
        let mut store = Store::new(strategy);
        let mut flushes = flushes.iter();
        let mut watermark = 0;
        for (kind, which) in moves {
            match kind % 4 {
                // The node is started anew with the other way.
                0 if kind == 16 => store.change_strategy(),
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
        if store.options.strategy == CompactionStrategy::Leveled {
            assert!(store.tree.young.len() < store.options.young_runs);
            assert!(leveled::scores(&store.tree, &store.options).iter().all(|score| *score < 1000));
        } else {
            assert_eq!(waiting_runs(&store.tree, &store.options), 0);
        }
        assert_eq!(debt_bytes(&store.tree, &store.options), 0);
        assert_eq!(due_bytes(&store.tree, &store.options), 0);
    }
}

#[test]
fn what_is_due_is_the_debt_and_what_it_is_merged_with() {
    let mut store = Store::new(CompactionStrategy::Leveled);
    let all: Vec<(u16, bool)> = (0..30).map(|key| (key, false)).collect();
    store.flush(&all);
    while store.tree.young.len() < store.options.young_runs {
        store.flush(&[(0, false), (29, false)]);
    }
    store.settle(0);
    let settled = store.tree.tables().map(|table| table.bytes).sum::<u64>();
    assert_eq!(due_bytes(&store.tree, &store.options), 0);
    for _ in 1..store.options.young_runs {
        store.flush(&[(0, false), (29, false)]);
    }
    assert_eq!(due_bytes(&store.tree, &store.options), 0, "too few runs");
    store.flush(&[(0, false), (29, false)]);
    let young = store.options.young_runs as u64 * 2 * VERSION_BYTES;
    assert_eq!(debt_bytes(&store.tree, &store.options), young);
    assert_eq!(due_bytes(&store.tree, &store.options), young + settled);
}

#[test]
fn what_is_due_in_a_tiered_tree_that_was_leveled_is_all_that_the_next_merge_reads() {
    let mut store = Store::new(CompactionStrategy::Leveled);
    let all: Vec<(u16, bool)> = (0..30).map(|key| (key, false)).collect();
    for _ in 0..store.options.young_runs {
        store.flush(&all);
    }
    store.settle(0);
    store.change_strategy();
    let in_levels = store.tree.bytes();
    while store.tree.young.len() + 2 < store.options.young_runs {
        store.flush(&all);
    }
    assert_eq!(due_bytes(&store.tree, &store.options), 0, "too few runs");
    while store.tree.bytes() <= 3 * in_levels {
        store.flush(&all);
    }
    assert_eq!(due_bytes(&store.tree, &store.options), store.tree.bytes());
    assert!(debt_bytes(&store.tree, &store.options) < store.tree.bytes());
    store.settle(0);
    assert_eq!(due_bytes(&store.tree, &store.options), 0);
}

#[test]
fn a_tiered_tree_with_nothing_to_merge_has_no_debt_however_many_runs_it_has() {
    let mut store = Store::new(CompactionStrategy::Tiered);
    let mut runs_max = 0;
    for flush in 0..400 {
        store.flush(&[(flush, false)]);
        store.settle(0);
        assert_eq!(debt_bytes(&store.tree, &store.options), 0, "{:?}", store.tree);
        assert_eq!(waiting_runs(&store.tree, &store.options), 0);
        if usize::from(flush) + 1 == store.options.young_runs {
            assert_eq!(store.tree.young.len(), 1, "the oldest is of like size");
        }
        runs_max = runs_max.max(store.tree.young.len());
    }
    assert!(runs_max > store.options.young_runs, "{runs_max} runs at most");
    let settled = store.tree.young.len();
    let rows = 3 * store.options.young_runs;
    (0..rows as u16).for_each(|key| store.flush(&[(key, false)]));
    assert!((rows..=rows + settled).contains(&waiting_runs(&store.tree, &store.options)));
    assert!(debt_bytes(&store.tree, &store.options) >= rows as u64 * VERSION_BYTES);
}

#[test]
fn a_run_of_a_tiered_tree_that_is_mostly_shadowed_is_written_anew_beside_a_large_one() {
    let mut store = Store::new(CompactionStrategy::Tiered);
    store.flush(&(0..2000).map(|key| (key, false)).collect::<Vec<_>>());
    store.flush(&(0..300).map(|at| (at % 10, false)).collect::<Vec<_>>());
    store.settle(store.clock);
    assert_eq!(store.tree.bytes(), 2300 * VERSION_BYTES, "somebody reads them");
    store.settle(store.clock + 1);
    assert_eq!(store.tree.bytes(), 2010 * VERSION_BYTES);
    store.check(store.clock + 1);
}

#[test]
fn small_runs_are_merged_where_there_is_no_room_for_all() {
    let mut store = Store::new(CompactionStrategy::Tiered);
    for keys in [100, 300, 1, 1, 1, 1] {
        store.flush(&(0..keys).map(|key| (key, false)).collect::<Vec<_>>());
    }
    let (busy, watermark) = (BTreeSet::new(), Timestamp(0));
    let all =
        pick(&store.tree, &busy, &store.options, watermark).expect("all are too much beside the oldest");
    assert_eq!(
        (all.reason, all.inputs.len()),
        (Reason::Space, store.tree.tables().count())
    );
    let smaller = pick_smaller(&store.tree, &busy, &store.options, watermark, &all).expect("four are alike");
    assert_eq!((smaller.reason, smaller.inputs.len()), (Reason::Size, 4));
    let none = pick_smaller(&store.tree, &busy, &store.options, watermark, &smaller);
    assert_eq!(none, None);
}

#[test]
fn what_was_deleted_takes_no_space_in_the_end() {
    let strategies = [CompactionStrategy::Leveled, CompactionStrategy::Tiered];
    for (strategy, is_changed) in strategies.into_iter().flat_map(|one| [(one, false), (one, true)]) {
        let mut store = Store::new(strategy);
        let all: Vec<u16> = (0..2000).collect();
        for keys in all.chunks(50) {
            store.flush(&keys.iter().map(|key| (*key, false)).collect::<Vec<_>>());
            store.settle(0);
        }
        if is_changed {
            store.change_strategy();
        }
        for keys in all.chunks(50) {
            store.flush(&keys.iter().map(|key| (*key, true)).collect::<Vec<_>>());
        }
        let watermark = store.clock + 1;
        store.settle(watermark);
        let (left, ever) = (store.tree.bytes(), 2000 * VERSION_BYTES);
        assert!(
            left <= ever / 10,
            "{strategy:?}, changed {is_changed}: {left} of {ever} bytes are left: {:?}",
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

/// A table of keys of one letter, the last of which may be excluded.
fn letters(number: u64, smallest: u8, largest: u8, is_largest_excluded: bool) -> Rc<TableInfo> {
    Rc::new(TableInfo {
        number: TableNumber(number),
        bytes: 100,
        smallest: [smallest].into(),
        largest: [largest].into(),
        is_largest_excluded,
        keys: 10,
        versions: 10,
        tombstones: 0,
        range_tombstones: u64::from(is_largest_excluded),
        covered_bytes: 0,
        expiring: 0,
        last_expiry: Timestamp(0),
        newest: Timestamp(number),
    })
}

#[test]
fn a_table_may_begin_where_a_range_tombstone_of_its_neighbour_ends() {
    let run = Vec::from([letters(1, b'c', b'f', true), letters(2, b'f', b'h', false)]);
    let edit = |added: Run| Edit {
        removed: Vec::new(),
        place: Place::Level(3),
        added,
    };
    let mut tree = Tree::default();
    tree.apply(&edit(run.clone())).unwrap();
    let numbers = |key: u8| -> Vec<u64> { tree.tables_of(&[key]).map(|table| table.number.0).collect() };
    assert_eq!(numbers(b'b'), [0; 0]);
    assert_eq!((numbers(b'c'), numbers(b'e')), (Vec::from([1]), Vec::from([1])));
    assert_eq!((numbers(b'f'), numbers(b'h')), (Vec::from([2]), Vec::from([2])));
    let shared = edit(Vec::from([letters(3, b'b', b'd', false)]));
    assert_eq!(tree.clone().apply(&shared), Err(Misfit::Shared(TableNumber(1))));
    let touching = edit(Vec::from([letters(3, b'b', b'c', true)]));
    assert_eq!(tree.clone().apply(&touching), Ok(()));
    let empty = edit(Vec::from([letters(3, b'b', b'b', true)]));
    assert_eq!(tree.clone().apply(&empty), Err(Misfit::Shared(TableNumber(3))));
    for (table, expected) in [
        (letters(4, b'a', b'c', true), 0..0),
        (letters(4, b'a', b'c', false), 0..1),
        (letters(4, b'f', b'z', false), 1..2),
        (letters(4, b'e', b'f', true), 0..1),
        (letters(4, b'e', b'f', false), 0..2),
        (letters(4, b'i', b'k', false), 2..2),
    ] {
        assert_eq!(overlapping(&run, table.extent()), expected, "{table:?}");
    }
    let other = [letters(3, b'b', b'h', true)];
    let all = bounds(run.iter().chain(&other)).unwrap();
    assert_eq!(
        (all.smallest, all.largest, all.is_largest_excluded),
        (&b"b"[..], &b"h"[..], false)
    );
}

#[test]
fn what_a_range_covers_counts_if_it_has_an_end_of_the_table() {
    let mut tree = Tree::default();
    let added = Vec::from([letters(1, b'c', b'f', false), letters(2, b'k', b'p', false)]);
    let place = Place::Level(3);
    tree.apply(&Edit {
        removed: Vec::new(),
        place,
        added,
    })
    .unwrap();
    let covered = |start: u8, end: u8| {
        let covered = tree.older().covered(&[start], &[end]);
        (covered.tables, covered.bytes)
    };
    assert_eq!(covered(b'a', b'c'), (0, 0));
    assert_eq!(covered(b'g', b'k'), (0, 0));
    assert_eq!(covered(b'd', b'e'), (1, 0), "within a table");
    assert_eq!(covered(b'a', b'd'), (1, 100));
    assert_eq!(covered(b'e', b'g'), (1, 100));
    assert_eq!(covered(b'a', b'z'), (2, 200));
    let choice = Choice {
        reason: Reason::Level,
        inputs: Vec::from([TableNumber(1)]),
        output: Place::Level(2),
        is_move: false,
    };
    let older = tree.older_than(&choice);
    assert_eq!(older.covered(b"a", b"z").tables, 1, "inputs do not count");
    assert!(!older.has(b"d") && older.has(b"l"));
    let below = Choice {
        output: Place::Level(3),
        ..choice
    };
    assert_eq!(tree.older_than(&below).covered(b"a", b"z").tables, 0);
}

#[test]
fn tables_whose_range_tombstones_cover_much_go_down_once_nobody_reads_below() {
    for strategy in [CompactionStrategy::Leveled, CompactionStrategy::Tiered] {
        let covering = |covered_bytes| {
            let mut table = (*letters(9, b'a', b'z', true)).clone();
            table.covered_bytes = covered_bytes;
            Rc::new(table)
        };
        let old = |tree: &mut Tree| {
            let place = match strategy {
                CompactionStrategy::Leveled => Place::Level(LEVELS),
                CompactionStrategy::Tiered => Place::Young,
            };
            let added = Vec::from([letters(1, b'c', b'f', false)]);
            tree.apply(&Edit {
                removed: Vec::new(),
                place,
                added,
            })
            .unwrap();
        };
        for (covered_bytes, watermark, is_picked) in [(50, 10, true), (49, 10, false), (50, 9, false)] {
            let mut tree = Tree::default();
            old(&mut tree);
            let added = Vec::from([covering(covered_bytes)]);
            tree.apply(&Edit {
                removed: Vec::new(),
                place: Place::Young,
                added,
            })
            .unwrap();
            let picked = pick(&tree, &BTreeSet::new(), &options(strategy), Timestamp(watermark));
            let case = (strategy, covered_bytes, watermark);
            assert_eq!(picked.is_some(), is_picked, "{case:?}");
            let Some(choice) = picked else { continue };
            assert_eq!(
                (choice.reason, choice.is_move),
                (Reason::Droppable, false),
                "{case:?}"
            );
            assert_eq!(choice.inputs.len(), 2, "{case:?}: {choice:?}");
        }
    }
}

#[test]
fn a_range_that_covers_little_of_a_tiered_tree_does_not_have_all_of_it_merged() {
    let picked = |old_tables: u8, newer: &[u64]| {
        let mut tree = Tree::default();
        let letter = |at: u8| b'a' + at;
        let oldest = (0..old_tables).map(|at| letters(u64::from(at) + 1, letter(at), letter(at), false));
        let covering = |number: u64, covered_bytes: u64| {
            let mut covering = (*letters(number, b'a', b'z', true)).clone();
            covering.covered_bytes = covered_bytes;
            Vec::from([Rc::new(covering)])
        };
        let newer = newer.iter().zip(100..);
        let newer = newer.map(|(covered_bytes, number)| covering(number, *covered_bytes));
        for added in [oldest.collect(), covering(99, 100)].into_iter().chain(newer) {
            let (removed, place) = (Vec::new(), Place::Young);
            tree.apply(&Edit {
                removed,
                place,
                added,
            })
            .unwrap();
        }
        let options = options(CompactionStrategy::Tiered);
        pick(&tree, &BTreeSet::new(), &options, Timestamp(1_000))
    };
    // 100 bytes of 700, and of 600.
    assert_eq!(picked(6, &[]), None);
    assert_eq!(picked(5, &[]).map(|choice| choice.inputs.len()), Some(6));
    // What is newer and covers little itself does not count.
    assert_eq!(picked(5, &[50, 60]).map(|choice| choice.inputs.len()), Some(6));
    assert_eq!(picked(7, &[50, 60]).map(|choice| choice.inputs.len()), Some(9));
}

#[test]
fn what_ranges_cover_within_former_levels_gives_its_space_back_in_a_tiered_tree() {
    let mut covering = (*letters(9, b'a', b'z', true)).clone();
    covering.covered_bytes = 100;
    let covering = Rc::new(covering);
    let mut tree = Tree::default();
    let mut add = |place, table: Rc<TableInfo>| {
        let added = Vec::from([table]);
        let removed = Vec::new();
        tree.apply(&Edit {
            removed,
            place,
            added,
        })
        .unwrap();
    };
    add(Place::Level(LEVELS), letters(1, b'c', b'f', false));
    add(Place::Level(LEVELS - 1), covering);
    add(Place::Young, letters(2, b'a', b'b', false));
    let pick = |tree: &Tree| {
        let options = options(CompactionStrategy::Tiered);
        pick(tree, &BTreeSet::new(), &options, Timestamp(10))
    };
    let choice = pick(&tree).expect("there is something to give back");
    assert_eq!((choice.output, choice.inputs.len()), (Place::Level(LEVELS), 2));
    tree.apply(&Edit {
        removed: choice.inputs,
        place: choice.output,
        added: Vec::from([letters(3, b'c', b'f', false)]),
    })
    .unwrap();
    assert_eq!(pick(&tree), None);
}
