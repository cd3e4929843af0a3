//! Random histories of a shard, held against a map of all that was ever written.

use proptest::prelude::*;

use super::super::keys::{RECORD, session_key};
use super::*;
use crate::env::tasks::yield_now;
use crate::env::testing::memory_disk::Fate;
use crate::env::{Priority, Tasks};
use ostrakon_core::sessions::SessionId;

#[derive(Clone, Debug)]
enum Operation {
    Insert(u32, Written),
    /// From a key on, so many keys; none for all that follow.
    DeleteRange(u32, Option<u32>),
    /// With new values of the shard's own records, by number; number 0 is always there.
    Seal(BTreeMap<u8, Option<u8>>),
    /// Begins to flush the oldest sealed memtable.
    Flush,
    /// Begins what is picked.
    Merge,
    /// Lets what was begun take so many steps.
    Step(u8),
    /// Readers are so much further.
    Raise(u64),
    /// Keeps the tables.
    Hold,
    /// Lets go of tables that were kept.
    Release,
    RemoveObsolete,
    /// A power loss, which unsynced names survive, and a manifest's record in flight.
    Crash(bool, bool),
    Check,
}

/// A value's length and how long it lives, or a tombstone.
type Written = Option<(usize, Option<u64>)>;

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let length = prop_oneof![4 => 0..60_usize, 2 => 200..600_usize, 1 => 1000..5000_usize];
    let written = prop_oneof![
        4 => (length, prop::option::weighted(0.3, 0..60_u64)).prop_map(Some),
        1 => Just(None),
    ];
    let own = prop::collection::btree_map(0..6_u8, prop::option::weighted(0.7, any::<u8>()), 0..4);
    let operation = prop_oneof![
        40 => (0..12_u32, written).prop_map(|(key, written)| Operation::Insert(key, written)),
        4 => (0..12_u32, prop::option::weighted(0.8, 1..8_u32))
            .prop_map(|(first, count)| Operation::DeleteRange(first, count)),
        8 => own.prop_map(Operation::Seal),
        8 => Just(Operation::Flush),
        8 => Just(Operation::Merge),
        8 => (1..60_u8).prop_map(Operation::Step),
        4 => (1..30_u64).prop_map(Operation::Raise),
        2 => Just(Operation::Hold),
        2 => Just(Operation::Release),
        2 => Just(Operation::RemoveObsolete),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(names, record)| Operation::Crash(names, record)),
        1 => Just(Operation::Check),
    ];
    prop::collection::vec(operation, 20..400)
}

/// Tables that were kept, with what they have and where their readers are.
struct Kept {
    tables: Rc<Tables>,
    model: Model,
    watermark: u64,
}

struct World {
    rig: Rig,
    shard: Rc<Shard>,
    /// All versions; the index of the entry that wrote one is its timestamp.
    model: Model,
    /// The shard's own records when they were sealed, by the index of the entry.
    own: BTreeMap<u64, Own>,
    last: u64,
    watermark: u64,
    kept: Vec<Kept>,
}

impl World {
    fn new(strategy: CompactionStrategy) -> World {
        let rig = Rig::new(options(strategy));
        World {
            shard: rig.open().expect("it is new"),
            rig,
            model: Model::default(),
            own: BTreeMap::from([(0, Own::new())]),
            last: 0,
            watermark: 0,
            kept: Vec::new(),
        }
    }

    fn make(&mut self, operation: Operation) {
        match operation {
            Operation::Insert(number, written) => self.insert(number, written),
            Operation::DeleteRange(first, count) => self.delete_range(first, count),
            Operation::Seal(changes) => self.seal(changes),
            Operation::Flush => self.flush(),
            Operation::Merge => self.merge(),
            Operation::Step(steps) => self.rig.run(async {
                for _ in 0..steps {
                    yield_now().await;
                }
            }),
            Operation::Raise(by) => self.watermark = (self.watermark + by).min(self.last),
            Operation::Hold => self.kept.push(Kept {
                tables: self.shard.tables(),
                model: self.model.through(self.shard.flushed.get().index.0),
                watermark: self.watermark,
            }),
            Operation::Release => self.release(),
            Operation::RemoveObsolete => {
                let removed = self.rig.run(self.shard.files.remove_obsolete());
                removed.expect("nothing fails here");
            }
            Operation::Crash(names_survive, is_written) => self.crash(names_survive, is_written),
            Operation::Check => self.check(),
        }
    }

    fn insert(&mut self, number: u32, written: Written) {
        self.last += 1;
        let content = match written {
            Some((length, lifetime)) => {
                let value = noise(self.last, length);
                (Some(value), lifetime.map(|lifetime| self.last + lifetime))
            }
            None => (None, None),
        };
        self.shard.insert(&key(number), self.last, &content);
        self.model.put(&key(number), self.last, content);
    }

    fn delete_range(&mut self, first: u32, count: Option<u32>) {
        self.last += 1;
        let range = (key(first), count.map(|count| key(first + count)), self.last);
        self.shard.delete_range(&range);
        self.model.1.push(range);
    }

    fn seal(&mut self, changes: BTreeMap<u8, Option<u8>>) {
        self.last += 1;
        let mut own = self.own.last_key_value().expect("there is a first").1.clone();
        let mut records = OwnRecords::new();
        for (number, value) in changes {
            let (key, value) = match number {
                0 => (RECORD.to_vec(), Some(vec![value.unwrap_or(0)])),
                _ => (
                    session_key(SessionId(u128::from(number))),
                    value.map(|value| vec![value; 30]),
                ),
            };
            match &value {
                Some(value) => own.insert(key.clone(), value.clone()),
                None => own.remove(&key),
            };
            records.push((key, value));
        }
        self.own.insert(self.last, own);
        self.shard.seal(self.last, records);
    }

    fn flush(&self) {
        if self.shard.is_flushing.get() || self.shard.store.borrow().sealed().len() == 0 {
            return;
        }
        let (shard, watermark) = (Rc::clone(&self.shard), self.watermark);
        shard.is_flushing.set(true);
        let flush = async move {
            shard.flush(watermark).await.expect("nothing fails here");
            shard.is_flushing.set(false);
        };
        self.rig.scheduler.spawn(Priority::Background, Box::pin(flush));
    }

    fn merge(&self) {
        let (shard, watermark) = (Rc::clone(&self.shard), self.watermark);
        let Some(choice) = shard.pick(watermark) else {
            return;
        };
        shard.busy.borrow_mut().extend(&choice.inputs);
        let merge = async move {
            let merged = shard.merge(&choice, watermark, &|| true).await;
            assert!(merged.expect("nothing fails here"), "it is wanted");
        };
        self.rig.scheduler.spawn(Priority::Background, Box::pin(merge));
    }

    fn check(&self) {
        self.rig.run(self.shard.assert_is(&self.model, self.watermark));
        // What was begun goes on meanwhile, and may change the tables after these.
        let flushed = self.shard.flushed.get().index.0;
        let own = self.rig.run(self.shard.own());
        assert_eq!(own, self.own[&flushed], "through {flushed}");
    }

    fn release(&mut self) {
        for kept in self.kept.drain(..) {
            self.rig
                .run(assert_tables_are(&kept.tables, &kept.model, kept.watermark));
        }
    }

    fn crash(&mut self, names_survive: bool, is_written: bool) {
        self.kept.clear();
        self.rig.scheduler.abandon();
        let store = self.shard.store.borrow();
        let may_be = store
            .sealed()
            .next()
            .map(|sealed| sealed.through)
            .filter(|_| is_written);
        drop(store);
        let flushed = self.shard.flushed.get();
        let fate = || if is_written { Fate::Whole } else { Fate::Lost };
        self.rig.memory.power_loss(names_survive, |_| fate());
        self.shard = self.rig.open().expect("the files are whole");
        let found = self.shard.flushed.get();
        assert!(
            found == flushed || Some(found) == may_be,
            "{found:?}, expected {flushed:?}"
        );
        self.rig.assert_no_orphans(&self.shard);
        // The log brings back what came later, but not the shard's own records: they are made anew.
        self.own.retain(|index, _| *index <= found.index.0);
        for ((key, Reverse(timestamp)), content) in self.model.0.iter().rev() {
            if *timestamp > found.index.0 {
                self.shard.insert(key, *timestamp, content);
            }
        }
        for range in self
            .model
            .1
            .iter()
            .filter(|(_, _, timestamp)| *timestamp > found.index.0)
        {
            self.shard.delete_range(range);
        }
        self.check();
    }

    /// Everything that was begun ends, and what is left is what it should be, after a restart too.
    fn end(mut self) {
        self.rig.scheduler.settle();
        assert!(!self.shard.is_flushing.get(), "it ends");
        assert!(self.shard.busy.borrow().is_empty(), "all of them end");
        self.check();
        self.rig
            .run(self.shard.merge_all(self.watermark))
            .expect("nothing fails here");
        self.check();
        self.release();
        self.rig
            .run(self.shard.files.remove_obsolete())
            .expect("nothing fails here");
        self.rig.assert_no_orphans(&self.shard);
        assert_eq!(self.rig.memory.open_files(), self.rig.memory.files().len());
        let tables = self.shard.tables();
        self.rig
            .run(self.shard.files.close(&tables))
            .expect("nothing fails here");
        assert_eq!(self.rig.memory.open_files(), 0);
        self.crash(false, false);
    }
}

fn live(strategy: CompactionStrategy, operations: Vec<Operation>) {
    let mut world = World::new(strategy);
    for operation in operations {
        world.make(operation);
    }
    world.end();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_leveled_shard_has_what_was_written(operations in operations()) {
        live(CompactionStrategy::Leveled, operations);
    }

    #[test]
    fn a_tiered_shard_has_what_was_written(operations in operations()) {
        live(CompactionStrategy::Tiered, operations);
    }
}
