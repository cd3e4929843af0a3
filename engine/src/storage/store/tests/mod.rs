//! Shards on a disk in memory: held against a model, crashed, out of space, damaged.

mod checkpoint;
mod crash;
mod damage;
mod failures;
mod hot_key;
mod merges;
mod model;
mod older;
mod pacing;
mod ranges;
mod versions;
mod walk;

use core::cell::{Cell, RefCell};
use core::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::lsm::{Choice, CompactionStrategy, Options, TableNumber, pick};
use ostrakon_core::raft::{EntryId, LogIndex, Term};
use ostrakon_wire::routing::ShardId;
use xxhash_rust::xxh3::xxh3_64;

use versions::{Content, Model, RangeDelete, key, noise, owned};
use walk::{assert_tables_are, walk};

use super::files::{
    OpenedFiles, ShardFiles, StoreEnv, StoreError, StoreOptions, make_directories, shard_directory,
    table_name,
};
use super::keys::{OWN, stored_key, users_key};
use super::tables::Tables;
use super::{Look, OwnRecords, Store};
use crate::env::testing::memory_disk::MemoryDisk;
use crate::env::testing::scheduler::Scheduler;
use crate::storage::memtable::{Memtable, Mutation};
use crate::storage::ranges::RangeTombstone;
use crate::storage::sstable::builder::TableOptions;
use crate::storage::sstable::cursor::{Access, TableCursor};
use crate::storage::sstable::format::Codec;
use crate::storage::sstable::reader::{Table, TableError};

const SHARD: ShardId = ShardId(3);

/// What a shard keeps for itself, as it is at one moment.
type Own = BTreeMap<Vec<u8>, Vec<u8>>;

fn entry(index: u64) -> EntryId {
    EntryId {
        term: Term(1),
        index: LogIndex(index),
    }
}

/// Tables of few versions, so that a small history makes many of them.
fn options(strategy: CompactionStrategy) -> StoreOptions {
    StoreOptions {
        tables: TableOptions {
            block_bytes: 256,
            codec: Codec::Lz4,
        },
        last_level_codec: Some(Codec::Zstd),
        table_bytes: 4 << 10,
        compaction: Options {
            strategy,
            young_runs: 2,
            ratio: 2,
            base_bytes: 8 << 10,
            merge_bytes_max: 64 << 10,
            ..Options::default()
        },
    }
}

/// A disk, and something to run on.
struct Rig {
    memory: MemoryDisk,
    scheduler: Scheduler,
    options: StoreOptions,
}

impl Rig {
    fn new(options: StoreOptions) -> Rig {
        let rig = Rig {
            memory: MemoryDisk::new(Rig::data()),
            scheduler: Scheduler::default(),
            options,
        };
        let made = rig.run(make_directories(
            &rig.memory,
            Rig::data(),
            core::iter::once(SHARD),
        ));
        made.expect("nothing fails here");
        rig
    }

    fn data() -> &'static Path {
        Path::new("/data")
    }

    /// An environment with nothing in its cache.
    fn env(&self) -> StoreEnv {
        StoreEnv::in_memory(&self.memory, &self.scheduler, 16 << 10, self.options)
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.scheduler.run(future).expect("it ends")
    }

    fn open(&self) -> Result<Rc<Shard>, StoreError> {
        let opened = self.run(ShardFiles::open(&self.env(), Rig::data(), SHARD))?;
        Ok(Rc::new(Shard::of(opened)))
    }

    /// The files of the shard besides its manifest.
    fn table_files(&self) -> Vec<PathBuf> {
        let mut files = self.memory.files();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "sst"));
        files
    }

    /// The shard has these tables and a manifest, and no other file.
    fn assert_no_orphans(&self, shard: &Shard) {
        let store = shard.store.borrow();
        let numbers: BTreeSet<TableNumber> = store.tables().tree().tables().map(|info| info.number).collect();
        let expected: Vec<PathBuf> = numbers.into_iter().map(table_path).collect();
        assert_eq!(self.table_files(), expected);
        assert_eq!(self.memory.files().len(), expected.len() + 1);
    }
}

fn table_path(number: TableNumber) -> PathBuf {
    shard_directory(Rig::data(), SHARD).join(table_name(number))
}

/// A shard as its owner runs it.
struct Shard {
    files: Rc<ShardFiles>,
    store: RefCell<Store>,
    flushed: Cell<EntryId>,
    is_flushing: Cell<bool>,
    /// Inputs of merges under way.
    busy: RefCell<BTreeSet<TableNumber>>,
}

impl Shard {
    fn of(opened: OpenedFiles) -> Shard {
        Shard {
            files: opened.files,
            store: RefCell::new(Store::new(opened.tables)),
            flushed: Cell::new(opened.flushed),
            is_flushing: Cell::new(false),
            busy: RefCell::default(),
        }
    }

    fn tables(&self) -> Rc<Tables> {
        Rc::clone(self.store.borrow().tables())
    }

    fn insert(&self, key: &[u8], timestamp: u64, (value, expiry): &Content) {
        let mutation = match value {
            Some(value) => Mutation::Put {
                value,
                expiry: expiry.map(Timestamp),
            },
            None => Mutation::Tombstone,
        };
        let mut store = self.store.borrow_mut();
        store.insert(xxh3_64(key), key, Timestamp(timestamp), mutation);
    }

    fn delete_range(&self, (start, end, timestamp): &RangeDelete) {
        let mut store = self.store.borrow_mut();
        store.insert_range(start, end.as_deref(), Timestamp(*timestamp));
    }

    fn seal(&self, index: u64, own: OwnRecords) {
        self.store.borrow_mut().seal(entry(index), own);
    }

    /// Flushes the oldest sealed memtable.
    async fn flush(&self, watermark: u64) -> Result<(), StoreError> {
        let sealed = self
            .store
            .borrow()
            .sealed()
            .next()
            .cloned()
            .expect("one is sealed");
        let tables = self.tables();
        let (edit, opened) = self.files.flush(&sealed, &tables, Timestamp(watermark)).await?;
        let install = |edit: &_| {
            let mut store = self.store.borrow_mut();
            let tables = store.tables().after(edit, &opened).expect("it fits");
            store.flushed(Rc::new(tables));
            self.flushed.set(sealed.through);
        };
        self.files.note(edit, Some(sealed.through), install).await
    }

    fn pick(&self, watermark: u64) -> Option<Choice> {
        let options = &self.files.options().compaction;
        let tables = self.tables();
        pick(tables.tree(), &self.busy.borrow(), options, Timestamp(watermark))
    }

    /// Carries a choice out, and tells whether it was wanted to the end.
    async fn merge(
        &self,
        choice: &Choice,
        watermark: u64,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<bool, StoreError> {
        self.busy.borrow_mut().extend(&choice.inputs);
        let outcome = self.merge_and_note(choice, watermark, is_wanted).await;
        let mut busy = self.busy.borrow_mut();
        busy.retain(|number| !choice.inputs.contains(number));
        outcome
    }

    async fn merge_and_note(
        &self,
        choice: &Choice,
        watermark: u64,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<bool, StoreError> {
        let tables = self.tables();
        let merged = self
            .files
            .merge(&tables, choice, Timestamp(watermark), is_wanted)
            .await;
        let Some(merged) = merged? else { return Ok(false) };
        let mut gone = merged.edit.removed.clone();
        gone.retain(|number| merged.edit.added.iter().all(|info| info.number != *number));
        let gone = gone
            .iter()
            .map(|number| Rc::clone(&tables.get(*number).expect("an input").table));
        let gone: Vec<Rc<Table>> = gone.collect();
        drop(tables);
        let install = |edit: &_| {
            let mut store = self.store.borrow_mut();
            let tables = store.tables().after(edit, &merged.opened).expect("it fits");
            store.merged(Rc::new(tables));
        };
        self.files.note(merged.edit, None, install).await?;
        self.files.make_obsolete(gone);
        Ok(true)
    }

    /// Merges until nothing is left to do.
    async fn merge_all(&self, watermark: u64) -> Result<(), StoreError> {
        let mut merges = 0;
        while let Some(choice) = self.pick(watermark) {
            assert!(self.merge(&choice, watermark, &|| true).await?, "it is wanted");
            merges += 1;
            assert!(merges < 300, "merges come to an end");
        }
        self.files.remove_obsolete().await
    }

    /// A version as [`Store::look`] finds it, with the help of the tables that it hands out.
    async fn find(&self, key: &[u8], snapshot: u64) -> Result<Option<(u64, Content)>, TableError> {
        let (hash, snapshot, mut scratch) = (xxh3_64(key), Timestamp(snapshot), Vec::new());
        let tables = {
            let store = self.store.borrow();
            match store.look((hash, key), snapshot, &mut scratch)? {
                Look::Unknown(tables) => tables,
                look => return Ok(look.version().as_ref().map(owned)),
            }
        };
        let found = tables.find(&scratch, hash, snapshot).await?;
        Ok(found.map(|found| owned(&found.version())))
    }

    /// Holds everything that can be read at the watermark or above against what was written.
    async fn assert_is(&self, model: &Model, watermark: u64) {
        let snapshots = || (watermark..=model.last() + 1).chain([u64::MAX]);
        let mut keys = model.keys();
        keys.insert(b"nobody".to_vec());
        for key in &keys {
            for snapshot in snapshots() {
                let found = self.find(key, snapshot).await.expect("the tables are whole");
                model.assert_allows(key, snapshot, found.as_ref());
                let store = self.store.borrow();
                let known = store.look_in_memory((xxh3_64(key), key), Timestamp(snapshot));
                if let Some(known) = known {
                    assert_eq!(Some(owned(&known)), found);
                }
            }
        }
        let walked = walk(self).await;
        for key in walked.keys().union(&keys) {
            for snapshot in snapshots() {
                model.assert_allows(key, snapshot, walked.newest(key, snapshot).as_ref());
            }
        }
    }

    /// What the tables have of what the shard keeps for itself.
    async fn own(&self) -> Own {
        let records = self
            .files
            .own_records(&self.tables())
            .await
            .expect("the tables are whole");
        assert!(
            records.is_sorted_by(|(one, _), (other, _)| one < other),
            "in order"
        );
        let record =
            |(key, value): (Vec<u8>, Option<Vec<u8>>)| (key, value.expect("there are no tombstones"));
        records.into_iter().map(record).collect()
    }
}
