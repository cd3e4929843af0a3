//! Whole tables: made, opened, read, and damaged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::lsm::TableNumber;
use ostrakon_wire::routing::ShardId;
use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::block::order;
use super::builder::{TableBuilder, TableOptions};
use super::cache::BlockCache;
use super::cursor::{Access, TableCursor};
use super::format::{Codec, FOOTER_BYTES, Properties, TableId};
use super::merge::{Collector, Merge, RunCursor};
use super::reader::{Look, Table, TableError};
use super::writer::{TableWriter, WriteError};
use crate::env::Disk;
use crate::env::testing::memory_disk::{Fate, MemoryDisk};
use crate::env::testing::scheduler::Scheduler;
use crate::storage::memtable::Version;
use crate::storage::ranges::RangeTombstone;

const ID: TableId = TableId {
    shard: ShardId(3),
    number: TableNumber(7),
};

/// Value and expiry.
type Content = (Option<Vec<u8>>, Option<u64>);
/// By key, and from the newest to the oldest within a key.
type Model = BTreeMap<(Vec<u8>, core::cmp::Reverse<u64>), Content>;

fn path() -> PathBuf {
    PathBuf::from("/data/table")
}

fn options(codec: Codec) -> TableOptions {
    TableOptions {
        // Small, so that there are several index blocks.
        block_bytes: 256,
        codec,
    }
}

fn version(timestamp: u64, (value, expiry): &Content) -> Version<'_> {
    Version {
        timestamp: Timestamp(timestamp),
        value: value.as_deref(),
        expiry: expiry.map(Timestamp),
    }
}

fn bytes_of(model: &Model, options: TableOptions) -> (Vec<u8>, Properties) {
    let mut builder = TableBuilder::new(ID, options);
    let mut file = Vec::new();
    let mut take = |builder: &mut TableBuilder| {
        let bytes = builder.pending().len();
        file.extend_from_slice(builder.pending());
        builder.written(bytes);
    };
    for ((key, timestamp), content) in model {
        builder.add(xxh3_64(key), key, &version(timestamp.0, content));
        take(&mut builder);
    }
    let footer = builder.finish();
    take(&mut builder);
    assert_eq!(file.len() as u64, footer.file_bytes);
    (file, builder.properties().clone())
}

/// A table of this model, with its disk and something to run on.
struct Made {
    scheduler: Scheduler,
    table: Rc<Table>,
    cache: Rc<BlockCache>,
}

fn small_cache() -> Rc<BlockCache> {
    Rc::new(BlockCache::new(16 << 10))
}

fn open(bytes: Vec<u8>, cache: &Rc<BlockCache>) -> Result<Table, TableError> {
    let disk = MemoryDisk::new(Path::new("/data"));
    disk.put_file(&path(), bytes);
    let opened = Scheduler::default().run(Table::open(&disk, &path(), ID, cache));
    opened.expect("a read ends")
}

fn made(model: &Model, codec: Codec) -> Made {
    let (bytes, properties) = bytes_of(model, options(codec));
    let cache = small_cache();
    let table = open(bytes, &cache).expect("it is whole");
    assert_eq!(*table.properties(), properties);
    Made {
        scheduler: Scheduler::default(),
        table: Rc::new(table),
        cache,
    }
}

impl Made {
    fn run<T>(&self, future: impl Future<Output = Result<T, TableError>>) -> T {
        self.scheduler
            .run(future)
            .expect("it ends")
            .expect("the table is whole")
    }

    fn at(&self, key: &[u8], snapshot: u64) -> Option<(u64, Content)> {
        let look = || {
            self.table
                .look(key, Timestamp(snapshot))
                .expect("the index is whole")
        };
        let before = look();
        let found = self.run(self.table.version_at(key, Timestamp(snapshot)));
        let found = found.map(|found| owned(&found.version()));
        for look in [before, look()] {
            match look {
                Look::Found(known) => assert_eq!(Some(owned(&known.version())), found),
                Look::Absent => assert_eq!(None, found),
                Look::Unknown => {}
            }
        }
        found
    }

    fn cursor(&self, access: Access) -> TableCursor {
        TableCursor::new(Rc::clone(&self.table), access)
    }

    /// Ends the step that was begun.
    fn settle(&self, begun: Result<(), TableError>, cursor: &mut TableCursor) {
        begun.expect("the index is whole");
        self.run(cursor.settle());
    }

    fn assert_walked(&self, model: &Model) {
        for access in [Access::Bypass, Access::Cached, Access::Cached] {
            let mut cursor = self.cursor(access);
            assert!(!cursor.is_valid());
            self.settle(cursor.seek_to_first(), &mut cursor);
            for ((key, timestamp), content) in model {
                let expected = (&key[..], version(timestamp.0, content));
                assert_eq!((cursor.key(), cursor.version()), expected);
                self.settle(cursor.next(), &mut cursor);
            }
            assert!(!cursor.is_valid());
            self.settle(cursor.seek_to_last(), &mut cursor);
            for ((key, timestamp), content) in model.iter().rev() {
                let expected = (&key[..], version(timestamp.0, content));
                assert_eq!((cursor.key(), cursor.version()), expected);
                self.settle(cursor.previous(), &mut cursor);
            }
            assert!(!cursor.is_valid());
        }
    }
}

fn owned(version: &Version<'_>) -> (u64, Content) {
    let expiry = version.expiry.map(|expiry| expiry.0);
    (version.timestamp.0, (version.value.map(<[u8]>::to_vec), expiry))
}

fn models() -> impl Strategy<Value = Model> {
    let key = prop_oneof![
        (0..400_u32).prop_map(|number| format!("key:{number:04}").into_bytes()),
        prop::collection::vec(any::<u8>(), 0..20),
    ];
    let value = prop::option::of(prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        (0..600_usize).prop_map(|length| vec![b'v'; length]),
    ]);
    let content = (value, prop::option::of(any::<u64>()))
        .prop_map(|(value, expiry)| (value.clone(), expiry.filter(|_| value.is_some())));
    let place = (key, (1..50_u64).prop_map(core::cmp::Reverse));
    prop::collection::btree_map(place, content, 1..600)
}

fn codecs() -> impl Strategy<Value = Codec> {
    prop_oneof![Just(Codec::Plain), Just(Codec::Lz4), Just(Codec::Zstd)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_table_has_what_was_put_into_it(
        model in models(),
        codec in codecs(),
        others in prop::collection::vec((0..600_u32, 0..60_u64), 20),
    ) {
        let made = made(&model, codec);
        made.assert_walked(&model);
        let others = others.into_iter().map(|(number, snapshot)| (format!("key:{number:04}").into_bytes(), snapshot));
        let own = model.keys().flat_map(|(key, timestamp)| {
            [timestamp.0 - 1, timestamp.0, timestamp.0 + 1].map(|snapshot| (key.clone(), snapshot))
        });
        for (key, snapshot) in own.chain(others) {
            let newest = model
                .range((key.clone(), core::cmp::Reverse(snapshot))..)
                .next()
                .filter(|((other, _), _)| *other == key)
                .map(|((_, timestamp), content)| (timestamp.0, content.clone()));
            if newest.is_some() {
                assert!(made.table.may_have(xxh3_64(&key)));
            }
            assert_eq!(made.at(&key, snapshot), newest);
            let mut cursor = made.cursor(Access::Bypass);
            made.settle(cursor.seek(&key, Timestamp(snapshot)), &mut cursor);
            let next = model.iter().find(|((other, timestamp), _)| {
                order(other, Timestamp(timestamp.0), &key, Timestamp(snapshot)).is_ge()
            });
            match next {
                None => assert!(!cursor.is_valid()),
                Some(((other, timestamp), content)) => {
                    assert_eq!((cursor.key(), cursor.version()), (&other[..], version(timestamp.0, content)));
                }
            }
        }
    }
}

fn sample() -> Model {
    let content = |number: u32| (Some(vec![number as u8; 50]), None);
    let place = |number: u32| (format!("key:{number:06}").into_bytes(), core::cmp::Reverse(1));
    (0..1000).map(|number| (place(number), content(number))).collect()
}

#[test]
fn each_flipped_bit_is_found() {
    let model = sample();
    let (bytes, _) = bytes_of(&model, options(Codec::Lz4));
    let mut harmless = 0;
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let read = match open(flipped, &small_cache()) {
            Err(error) => Err(error),
            Ok(table) => {
                let mut cursor = TableCursor::new(Rc::new(table), Access::Bypass);
                let walked = Scheduler::default().run(async {
                    cursor.seek_to_first()?;
                    cursor.settle().await?;
                    while cursor.is_valid() {
                        cursor.next()?;
                        cursor.settle().await?;
                    }
                    Ok(())
                });
                walked.expect("it ends")
            }
        };
        match read {
            Err(TableError::Damaged { damage, .. }) => assert!(damage.offset <= at as u64, "{at}: {damage}"),
            Err(error) => panic!("{error}"),
            // The zeros before the footer are for nothing.
            Ok(()) => harmless += 1,
        }
    }
    assert!(harmless < 4096, "{harmless} flips had no effect");
}

#[test]
fn a_table_of_another_place_is_refused() {
    let disk = MemoryDisk::new(Path::new("/data"));
    disk.put_file(&path(), bytes_of(&sample(), options(Codec::Plain)).0);
    let others = [
        TableId {
            number: TableNumber(8),
            ..ID
        },
        TableId {
            shard: ShardId(4),
            ..ID
        },
    ];
    for other in others {
        let cache = small_cache();
        let opened = Scheduler::default().run(Table::open(&disk, &path(), other, &cache));
        let refusal = opened
            .expect("a read ends")
            .err()
            .expect("it is another")
            .to_string();
        assert!(
            refusal.contains("table 7 of shard 3") && refusal.contains(&format!("expected {other}")),
            "{refusal}"
        );
    }
}

#[test]
fn a_file_that_was_cut_is_refused() {
    let (bytes, _) = bytes_of(&sample(), options(Codec::Plain));
    for left in [0, 1, 4095, 4096, bytes.len() - 4096, bytes.len() - 1] {
        assert!(open(bytes[..left].to_vec(), &small_cache()).is_err(), "{left}");
    }
}

#[test]
fn blocks_that_are_read_again_stay_beside_a_scan() {
    let model = sample();
    let made = made(&model, Codec::Plain);
    let hot = b"key:000500";
    for _ in 0..20 {
        made.at(hot, 1);
    }
    let mut scan = made.cursor(Access::Cached);
    made.settle(scan.seek_to_first(), &mut scan);
    while scan.is_valid() {
        made.settle(scan.next(), &mut scan);
    }
    assert!(made.cache.statistics().held_bytes <= 16 << 10);
    let misses_before = made.cache.statistics().misses;
    made.at(hot, 1);
    assert_eq!(made.cache.statistics().misses, misses_before);
}

/// How often a walk up from the first key has to wait for a read until it has passed so many versions.
fn waits(keys: usize, likely_bytes: u64, end: Option<&[u8]>) -> usize {
    let made = made(&sample(), Codec::Plain);
    let mut walk = made.cursor(Access::Cached);
    let mut step = walk.seek(b"", Timestamp::MAX);
    walk.expect_bytes(likely_bytes);
    if let Some(end) = end {
        walk.end_at(end.to_vec());
    }
    let mut waits = 0;
    for _ in 0..keys {
        waits += usize::from(walk.is_unsettled());
        made.settle(step, &mut walk);
        step = walk.next();
    }
    waits
}

#[test]
fn a_walk_reads_at_once_what_it_will_likely_pass_and_nothing_beyond_its_end() {
    let model = sample();
    let keys = 60;
    let (behind, _) = model.keys().nth(keys + 10).expect("there are more");
    assert_eq!(waits(keys, 64 << 10, None), 1);
    assert_eq!(waits(keys, 64 << 10, Some(behind)), 1);
    // One block after the other, then two, and so on.
    let unprepared = waits(keys, 0, None);
    assert!(unprepared > 2, "{unprepared}");
    // What lies behind the end has to be waited for.
    let (near, _) = model.keys().nth(10).expect("there are more");
    assert!(waits(keys, 64 << 10, Some(near)) > 1);
    assert_eq!(waits(8, 64 << 10, Some(near)), 1);
}

#[test]
fn a_table_is_written_in_pieces_and_lasts() {
    let scheduler = Scheduler::default();
    let memory = MemoryDisk::new(Path::new("/data"));
    let disk: Rc<dyn Disk> = Rc::new(memory.clone());
    let value = vec![b'v'; 1000];
    let keys: Vec<String> = (0..2000).map(|number| format!("key:{number:06}")).collect();
    let options = TableOptions {
        codec: Codec::Plain,
        ..TableOptions::default()
    };
    let info = scheduler.run(async {
        let mut writer = TableWriter::create(&disk, &path(), ID, options).await?;
        for key in &keys {
            let version = Version {
                timestamp: Timestamp(1),
                value: Some(&value),
                expiry: None,
            };
            writer.add(xxh3_64(key.as_bytes()), key.as_bytes(), &version);
            writer.write_out().await?;
        }
        let info = writer.finish().await?;
        writer.close().await?;
        disk.sync_dir(Path::new("/data"))
            .await
            .expect("nothing fails here");
        Ok::<_, WriteError>(info)
    });
    let info = info.expect("it ends").expect("nothing fails here");
    assert_eq!(
        (info.versions, &*info.smallest, &*info.largest),
        (2000, keys[0].as_bytes(), keys[1999].as_bytes())
    );
    memory.power_loss(true, |_| Fate::Lost);
    let table = scheduler
        .run(Table::open(&*disk, &path(), ID, &small_cache()))
        .expect("it ends")
        .expect("it is whole");
    assert_eq!(table.properties().info(ID.number, info.bytes), info);
    assert!(info.bytes > 2_000_000);
    let merged = scheduler.run(async {
        let run = RunCursor::new([Rc::new(table)])?;
        let mut merge = Merge::new(vec![run]).await?;
        let mut count = 0;
        while merge.entry().is_some() {
            count += 1;
            merge.next()?;
            merge.settle().await?;
        }
        Ok::<_, TableError>(count)
    });
    assert_eq!(merged.expect("it ends").expect("the table is whole"), 2000);
    assert_eq!(memory.open_files(), 1, "the table's");
}

#[test]
fn a_table_that_fails_is_given_up() {
    let scheduler = Scheduler::default();
    let memory = MemoryDisk::new(Path::new("/data"));
    let disk: Rc<dyn Disk> = Rc::new(memory.clone());
    for operation in ["fill", "sync"] {
        memory.clear_injections();
        memory.inject(operation, 0, std::io::ErrorKind::StorageFull);
        let failed = scheduler.run(async {
            let mut writer = TableWriter::create(&disk, &path(), ID, TableOptions::default()).await?;
            writer.add(1, b"key", &version(1, &(Some(Vec::new()), None)));
            let failed = writer.finish().await.expect_err("it was made to fail");
            writer.abandon().await?;
            Ok::<_, WriteError>(failed)
        });
        let failed = failed.expect("it ends").expect("it is removed");
        assert_eq!(failed.source.kind(), std::io::ErrorKind::StorageFull);
        assert_eq!((memory.files().len(), memory.open_files()), (0, 0));
    }
}

/// A table with these range tombstones, and with a key or without.
fn with_ranges(ranges: Vec<RangeTombstone>, has_key: bool) -> (Vec<u8>, Properties) {
    let mut builder = TableBuilder::new(ID, options(Codec::Plain));
    if has_key {
        builder.add(xxh3_64(b"m"), b"m", &version(5, &(Some(b"v".to_vec()), None)));
    }
    builder.add_ranges(ranges, 77);
    let footer = builder.finish();
    let bytes = builder.pending().to_vec();
    assert_eq!(bytes.len() as u64, footer.file_bytes);
    (bytes, builder.properties().clone())
}

fn range(start: &[u8], end: &[u8], timestamp: u64) -> RangeTombstone {
    RangeTombstone {
        start: start.into(),
        end: Some(end.into()),
        timestamp: Timestamp(timestamp),
    }
}

#[test]
fn a_table_reaches_as_far_as_its_range_tombstones() {
    let extent = |ranges, has_key| {
        let (bytes, properties) = with_ranges(ranges, has_key);
        let table = open(bytes, &small_cache()).expect("it is whole");
        assert_eq!(*table.properties(), properties);
        let info = properties.info(ID.number, 1);
        assert_eq!(info.covered_bytes, 77);
        let text = |key: &[u8]| String::from_utf8(key.to_vec()).expect("it is text");
        (
            text(&info.smallest),
            text(&info.largest),
            info.is_largest_excluded,
        )
    };
    let expected =
        |smallest: &str, largest: &str, is_excluded| (smallest.to_owned(), largest.to_owned(), is_excluded);
    assert_eq!(
        extent(vec![range(b"a", b"c", 3)], false),
        expected("a", "c", true)
    );
    assert_eq!(
        extent(vec![range(b"a", b"c", 3)], true),
        expected("a", "m", false)
    );
    assert_eq!(
        extent(vec![range(b"a", b"m", 3)], true),
        expected("a", "m", false)
    );
    assert_eq!(extent(vec![range(b"n", b"p", 3)], true), expected("m", "p", true));
    let (_, properties) = with_ranges(vec![range(b"a", b"d", 9), range(b"b", b"c", 3)], true);
    let counts = (properties.versions, properties.range_tombstones);
    assert_eq!((counts, properties.oldest.0, properties.newest.0), ((1, 2), 3, 9));
}

#[test]
fn each_flipped_bit_of_a_table_of_range_tombstones_is_found() {
    let (bytes, _) = with_ranges(vec![range(b"a", b"d", 9), range(b"b", b"c", 3)], false);
    let table = open(bytes.clone(), &small_cache()).expect("it is whole");
    assert_eq!(
        table.ranges().newest_over(b"c", Timestamp::MAX),
        Some(Timestamp(9))
    );
    assert_eq!(table.ranges().newest_over(b"b", Timestamp(8)), Some(Timestamp(3)));
    let footer_start = bytes.len() - FOOTER_BYTES;
    let zeros = bytes[..footer_start]
        .iter()
        .rev()
        .take_while(|byte| **byte == 0)
        .count();
    for at in (0..footer_start - zeros).chain(footer_start..bytes.len()) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(open(flipped, &small_cache()).is_err(), "{at}");
    }
}

#[test]
fn the_bytes_of_a_table() {
    let (bytes, _) = with_ranges(vec![range(b"a", b"c", 9)], true);
    let digest = (bytes.len(), crc32c::crc32c(&bytes));
    assert_eq!(
        digest,
        (4096, 2_067_006_398),
        "the format has changed: then its version has to"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_merge_is_the_union_and_a_collector_keeps_what_can_be_read(
        model in models(),
        parts in 1..5_usize,
        watermark in 0..60_u64,
    ) {
        // Each part is a run of one table.
        let mut shares = vec![Model::new(); parts];
        for (number, (place, content)) in model.iter().enumerate() {
            shares[number * 7 % parts].insert(place.clone(), content.clone());
        }
        let tables = shares.iter().filter(|share| !share.is_empty());
        let tables: Vec<Rc<Table>> = tables.map(|share| made(share, Codec::Lz4).table).collect();
        let mut collector = Collector::new(Timestamp(watermark));
        let (mut merged, mut kept) = (Model::new(), Model::new());
        let walked = Scheduler::default().run(async {
            let mut runs = Vec::new();
            for table in tables {
                runs.push(RunCursor::new([table])?);
            }
            let mut merge = Merge::new(runs).await?;
            while let Some((key, version)) = merge.entry() {
                let (timestamp, content) = owned(&version);
                if collector.keeps(key, &version, None, |_| false) {
                    kept.insert((key.to_vec(), core::cmp::Reverse(timestamp)), content.clone());
                }
                merged.insert((key.to_vec(), core::cmp::Reverse(timestamp)), content);
                merge.next()?;
            merge.settle().await?;
            }
            Ok::<_, TableError>(())
        });
        walked.expect("it ends").expect("the tables are whole");
        assert_eq!(merged, model);
        let read = |model: &Model, key: &[u8], snapshot: u64| {
            let newest = model.range((key.to_vec(), core::cmp::Reverse(snapshot))..).next()?;
            let ((other, timestamp), content) = newest;
            if other != key {
                return None;
            }
            version(timestamp.0, content).live_value(Timestamp(snapshot)).map(<[u8]>::to_vec)
        };
        for (key, _) in model.keys() {
            for snapshot in watermark..62 {
                assert_eq!(read(&kept, key, snapshot), read(&model, key, snapshot));
            }
            let below = kept.keys().filter(|(other, timestamp)| other == key && timestamp.0 <= watermark);
            assert!(below.count() <= 1);
        }
    }
}
