//! Scans over memtables and tables with range tombstones and rows of dead keys, held against a model.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::raft::{EntryId, LogIndex, Term};
use ostrakon_wire::routing::ShardId;
use proptest::prelude::*;

use crate::env::testing::memory_disk::MemoryDisk;
use crate::env::testing::scheduler::Scheduler;
use crate::shard::host::memtable_hash;
use crate::shard::scan::{PageScan, ScanRange};
use crate::storage::memtable::Mutation;
use crate::storage::sstable::builder::TableOptions;
use crate::storage::sstable::format::Codec;
use crate::storage::store::Store;
use crate::storage::store::files::{ShardFiles, StoreEnv, StoreOptions, make_directories};

const SHARD: ShardId = ShardId(0);

#[derive(Clone, Debug)]
enum Operation {
    Put(u8),
    Delete(u8),
    DeleteRange(u8, Option<u8>),
    /// Deletes so many keys one by one.
    DeleteRow(u8, u8),
    /// Scans between two keys, at a snapshot so far back, up or down; what it has seen is checked.
    Scan(u8, Option<u8>, u64, bool),
    Seal,
    /// Flushes the oldest sealed memtable, with readers so far back.
    Flush(u64),
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        20 => (0..100_u8).prop_map(Operation::Put),
        2 => (0..100_u8).prop_map(Operation::Delete),
        3 => (0..100_u8, prop::option::weighted(0.8, 1..60_u8))
            .prop_map(|(first, count)| Operation::DeleteRange(first, count)),
        1 => (0..60_u8, 30..60_u8).prop_map(|(first, count)| Operation::DeleteRow(first, count)),
        3 => (0..90_u8, prop::option::of(40..101_u8), prop_oneof![Just(0), 0..60_u64], any::<bool>())
            .prop_map(|(start, end, back, reverse)| Operation::Scan(start, end, back, reverse)),
        2 => Just(Operation::Seal),
        2 => (0..60_u64).prop_map(Operation::Flush),
    ];
    prop::collection::vec(operation, 0..250)
}

fn key(number: u8) -> Vec<u8> {
    format!("{number:03}").into_bytes()
}

struct World {
    scheduler: Scheduler,
    files: Rc<ShardFiles>,
    store: Store,
    /// Of each key, its versions: a timestamp, and whether it is there.
    model: BTreeMap<u8, Vec<(u64, bool)>>,
    last: u64,
    watermark: u64,
    disk: MemoryDisk,
}

impl World {
    fn new() -> World {
        let scheduler = Scheduler::default();
        let disk = MemoryDisk::new(Path::new("/data"));
        let options = StoreOptions {
            tables: TableOptions {
                block_bytes: 64,
                codec: Codec::Plain,
            },
            ..StoreOptions::default()
        };
        let env = StoreEnv::in_memory(&disk, &scheduler, 1 << 10, options);
        let opened = scheduler.run(async {
            let data = Path::new("/data");
            make_directories(&disk, data, core::iter::once(SHARD)).await?;
            ShardFiles::open(&env, data, SHARD).await
        });
        let opened = opened.expect("it ends").expect("nothing fails here");
        World {
            scheduler,
            files: opened.files,
            store: Store::new(opened.tables),
            model: BTreeMap::new(),
            last: 0,
            watermark: 0,
            disk,
        }
    }

    fn make(&mut self, operation: &Operation) {
        self.last += 1;
        let at = Timestamp(self.last);
        match *operation {
            Operation::Put(number) | Operation::Delete(number) => {
                let is_put = matches!(operation, Operation::Put(_));
                let value = self.last.to_le_bytes();
                let mutation = if is_put {
                    Mutation::Put {
                        value: &value,
                        expiry: None,
                    }
                } else {
                    Mutation::Tombstone
                };
                let own = key(number);
                self.store.insert(memtable_hash(&own), &own, at, mutation);
                self.model.entry(number).or_default().push((self.last, is_put));
            }
            Operation::DeleteRange(first, count) => {
                let end = count.map(|count| first + count);
                self.store.insert_range(&key(first), end.map(key).as_deref(), at);
                for (_, versions) in self.model.range_mut(first..end.unwrap_or(u8::MAX)) {
                    versions.push((self.last, false));
                }
            }
            Operation::DeleteRow(first, count) => {
                for number in first..first + count {
                    self.make(&Operation::Delete(number));
                }
            }
            Operation::Scan(start, end, back, reverse) => {
                let range = ScanRange {
                    start: key(start),
                    end: end.map(key),
                    ..everything(reverse)
                };
                let snapshot = self.last.saturating_sub(back).max(self.watermark);
                assert_eq!(self.scan(snapshot, &range), self.expected(snapshot, &range));
            }
            Operation::Seal => {
                let through = EntryId {
                    term: Term(1),
                    index: LogIndex(self.last),
                };
                self.store.seal(through, vec![(b"\0S".to_vec(), Some(vec![1]))]);
            }
            Operation::Flush(back) => self.flush(back),
        }
    }

    fn flush(&mut self, back: u64) {
        let Some(sealed) = self.store.sealed().next().cloned() else {
            return;
        };
        self.watermark = self.watermark.max(self.last.saturating_sub(back));
        let tables = Rc::clone(self.store.tables());
        let flushed = self
            .scheduler
            .run(self.files.flush(&sealed, &tables, Timestamp(self.watermark)));
        let (edit, opened) = flushed.expect("it ends").expect("nothing fails here");
        let tables = tables.after(&edit, &opened).expect("it fits");
        self.store.flushed(Rc::new(tables));
    }

    fn scan(&self, snapshot: u64, range: &ScanRange) -> Vec<(Vec<u8>, u64)> {
        self.try_scan(snapshot, range).expect("the tables are whole")
    }

    /// Keys and versions; none if a table can't be read.
    fn try_scan(&self, snapshot: u64, range: &ScanRange) -> Option<Vec<(Vec<u8>, u64)>> {
        let mut found = Vec::new();
        let mut range = range.clone();
        loop {
            let mut scan = PageScan::new(Timestamp(snapshot), range.clone());
            while !scan.go_on([(SHARD, &self.store)].into_iter()).ok()? {
                self.scheduler.run(scan.read()).expect("it ends").ok()?;
            }
            let page = scan.into_page();
            let entries = (0..page.len()).filter_map(|place| page.entry(place));
            found.extend(entries.map(|entry| (entry.key.to_vec(), entry.version)));
            match page.resume_key {
                None => return Some(found),
                Some(end) if range.reverse => range.end = Some(end),
                Some(start) => range.start = start,
            }
        }
    }

    fn expected(&self, snapshot: u64, range: &ScanRange) -> Vec<(Vec<u8>, u64)> {
        let newest = |(number, versions): (&u8, &Vec<(u64, bool)>)| {
            let newest = versions.iter().rev().find(|(at, _)| *at <= snapshot);
            let (at, _) = newest.filter(|(_, is_there)| *is_there)?;
            Some((key(*number), *at))
        };
        let is_in =
            |(key, _): &(Vec<u8>, u64)| *key >= range.start && range.end.as_ref().is_none_or(|end| key < end);
        let mut expected: Vec<(Vec<u8>, u64)> = self.model.iter().filter_map(newest).filter(is_in).collect();
        if range.reverse {
            expected.reverse();
        }
        expected
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_scan_shows_nothing_that_a_range_tombstone_hides(
        operations in operations(),
        start in 0..60_u8,
        end in prop::option::of(50..101_u8),
        back in 0..80_u64,
        limit in 1..50_usize,
        reverse in any::<bool>(),
    ) {
        let mut world = World::new();
        for operation in &operations {
            world.make(operation);
        }
        let range = ScanRange {
            start: key(start),
            end: end.map(key),
            limit,
            page_bytes: 1 << 20,
            keys_only: false,
            reverse,
        };
        for snapshot in [world.last, world.last.saturating_sub(back).max(world.watermark)] {
            prop_assert_eq!(world.scan(snapshot, &range), world.expected(snapshot, &range));
        }
    }
}

/// All keys, in either direction.
fn everything(reverse: bool) -> ScanRange {
    ScanRange {
        start: Vec::new(),
        end: None,
        limit: usize::MAX,
        page_bytes: 1 << 20,
        keys_only: false,
        reverse,
    }
}

#[test]
fn what_a_range_tombstone_covers_in_older_tables_is_jumped_over() {
    let mut world = World::new();
    for number in 0..100 {
        world.make(&Operation::Put(number));
    }
    world.make(&Operation::Seal);
    world.make(&Operation::Flush(1 << 20));
    let path = world.store.tables().runs()[0][0].table.path().to_owned();
    // Where keys lie that are about to be deleted, nothing can be read.
    world.disk.edit(&path, |bytes| bytes[1000..1600].fill(0));
    let is_readable = |world: &World, reverse: bool| {
        let range = everything(reverse);
        let found = world.try_scan(world.last, &range);
        assert!(
            found
                .as_ref()
                .is_none_or(|found| *found == world.expected(world.last, &range))
        );
        found.is_some()
    };
    assert!(!is_readable(&world, false) && !is_readable(&world, true));
    world.make(&Operation::DeleteRange(5, Some(90)));
    assert!(
        is_readable(&world, false) && is_readable(&world, true),
        "one in memory"
    );
    world.make(&Operation::Seal);
    world.make(&Operation::Flush(1 << 20));
    assert!(
        is_readable(&world, false) && is_readable(&world, true),
        "one in a table"
    );
}

#[test]
fn a_row_of_dead_keys_at_which_scans_begin_is_walked_over_once() {
    for reverse in [false, true] {
        let mut world = World::new();
        for number in 0..100 {
            world.make(&Operation::Put(number));
        }
        world.make(&Operation::DeleteRow(5, 90));
        world.make(&Operation::Seal);
        world.make(&Operation::Flush(1 << 20));
        let path = world.store.tables().runs()[0][0].table.path().to_owned();
        let range = ScanRange {
            start: key(if reverse { 0 } else { 5 }),
            end: Some(key(if reverse { 95 } else { 100 })),
            ..everything(reverse)
        };
        let before = world.expected(world.last, &range);
        assert_eq!(world.scan(world.last, &range), before);
        // The next scan does not even look.
        world.disk.edit(&path, |bytes| bytes[1000..1600].fill(0));
        assert_eq!(world.try_scan(world.last, &range), Some(before));
        // An older snapshot has to, and so has one from which a put has taken the gap away.
        assert_eq!(world.try_scan(world.last - 80, &range), None);
        world.make(&Operation::Put(50));
        let with_it = world.expected(world.last, &range);
        let found = world.try_scan(world.last, &range);
        assert!(found.is_none_or(|found| found == with_it), "reverse: {reverse}");
    }
}
