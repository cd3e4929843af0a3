//! Tables that are whole, flipped byte by byte, that can't be read in part, and that lie.

use core::cell::{Cell, RefCell};
use core::time::Duration;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::lsm::{TableInfo, TableNumber};
use ostrakon_wire::routing::ShardId;
use xxhash_rust::xxh3::xxh3_64;

use super::table::{Seen, verify};
use super::{Flaw, Lost, Reading};
use crate::env::disk::BLOCK_BYTES;
use crate::env::pace::Pace;
use crate::env::testing::memory_disk::MemoryDisk;
use crate::env::testing::scheduler::Scheduler;
use crate::env::{Disk, OpenMode, Priority, Tasks};
use crate::storage::memtable::Version;
use crate::storage::ranges::RangeTombstone;
use crate::storage::sstable::builder::{TableBuilder, TableOptions};
use crate::storage::sstable::format::{Codec, FOOTER_BYTES, Footer, Handle, Properties, TableId, store};
use crate::storage::store::keys::{session_key, stored_key};

const ID: TableId = TableId {
    shard: ShardId(3),
    number: TableNumber(9),
};

fn path() -> PathBuf {
    Path::new("/data/table.sst").to_owned()
}

/// A table on a disk.
struct Made {
    disk: MemoryDisk,
    scheduler: Scheduler,
    pace: Rc<Pace>,
    footer: Footer,
    properties: Properties,
}

/// Records of the shard itself, then keys with a version or two each: enough for several index blocks.
fn made(codec: Codec) -> Made {
    let options = TableOptions {
        block_bytes: 256,
        codec,
    };
    let mut builder = TableBuilder::new(ID, options);
    let mut add = |key: &[u8], hash: u64, timestamp: u64, value: Option<&[u8]>| {
        let version = Version {
            timestamp: Timestamp(timestamp),
            value,
            expiry: (timestamp.is_multiple_of(7) && value.is_some()).then_some(Timestamp(timestamp * 2)),
        };
        builder.add(hash, key, &version);
    };
    for id in 0..20 {
        let key = session_key(ostrakon_core::sessions::SessionId(id));
        add(&key, xxh3_64(&key), 5, Some(&[1; 30]));
    }
    let mut stored = Vec::new();
    for number in 0..2500_u64 {
        let key = format!("a key with the number {number:06}");
        stored_key(&mut stored, key.as_bytes());
        let noise: Vec<u8> = (0..8)
            .flat_map(|part| xxh3_64(&[number as u8, part]).to_le_bytes())
            .collect();
        for version in (1..=1 + number % 2).rev() {
            let value = (number % 5 > 0).then_some(&noise[..]);
            add(&stored, xxh3_64(key.as_bytes()), number * 10 + version, value);
        }
    }
    let range = |start: &str, end: &str, timestamp| RangeTombstone {
        start: [b"\x01", start.as_bytes()].concat().into(),
        end: Some([b"\x01", end.as_bytes()].concat().into()),
        timestamp: Timestamp(timestamp),
    };
    // One among the keys, and one that reaches beyond them.
    builder.add_ranges(
        vec![range("a key x", "a key y", 7), range("b", "c", 90_000)],
        12_345,
    );
    let footer = builder.finish();
    let (disk, scheduler) = (MemoryDisk::new(Path::new("/data")), Scheduler::default());
    disk.put_file(&path(), builder.pending().to_vec());
    let tasks = Rc::new(scheduler.clone());
    Made {
        disk,
        pace: Rc::new(Pace::new(Rc::clone(&tasks) as _, tasks)),
        scheduler,
        footer,
        properties: builder.properties().clone(),
    }
}

impl Made {
    fn file_bytes(&self) -> usize {
        self.footer.file_bytes as usize
    }

    fn info(&self) -> TableInfo {
        self.properties.info(ID.number, self.footer.file_bytes)
    }

    fn verify(&self, expected: &TableInfo) -> (Seen, Vec<Flaw>, u64) {
        let mut flaws = Vec::new();
        let visited = Cell::new(0);
        let read_bytes = Cell::new(0);
        let seen = self.scheduler.run(async {
            let disk: &dyn Disk = &self.disk;
            let file = disk.open(&path(), OpenMode::Read).await.expect("it is there");
            let reading = Reading {
                tasks: &self.scheduler,
                pace: &self.pace,
                portion_bytes: 64 << 10,
                is_wanted: &|| true,
                has_read: &|bytes| read_bytes.set(read_bytes.get() + bytes),
            };
            let mut visit = |_: &[u8], _: &Version<'_>| visited.set(visited.get() + 1);
            let found = &mut |flaw| flaws.push(flaw);
            let seen = verify(&*file, (ID, Some(expected)), reading, found, &mut visit).await;
            file.close().await.expect("nothing fails here");
            seen
        });
        let seen = seen.expect("it ends");
        assert!(seen.is_complete);
        assert_eq!(seen.flaws, flaws.len() as u64);
        assert_eq!(visited.get(), seen.counted.versions);
        (seen, flaws, read_bytes.get())
    }

    /// Puts other bytes in place of a payload, with a checksum that is right.
    fn replace(&self, handle: Handle, payload: &[u8]) {
        let mut stored = Vec::new();
        store(&mut stored, handle.offset, ID, Codec::Plain, payload);
        assert_eq!(stored.len(), handle.stored_bytes as usize);
        self.disk.edit(&path(), |bytes| {
            bytes[handle.offset as usize..][..stored.len()].copy_from_slice(&stored);
        });
    }

    fn part(&self, handle: Handle) -> Vec<u8> {
        let bytes = self.disk.content(&path());
        let stored = &bytes[handle.offset as usize..][..handle.stored_bytes as usize];
        let payload = crate::storage::sstable::format::load(stored, handle.offset, ID);
        payload.expect("it is whole").to_vec()
    }
}

#[test]
fn a_whole_table_has_no_flaw_and_is_read_about_once() {
    for codec in [Codec::Plain, Codec::Lz4, Codec::Zstd] {
        let made = made(codec);
        let (seen, flaws, read_bytes) = made.verify(&made.info());
        assert_eq!(flaws, []);
        assert_eq!(seen.counted, made.properties);
        assert!(seen.blocks > 100, "{codec:?}: {}", seen.blocks);
        let file_bytes = made.footer.file_bytes;
        assert!(
            (file_bytes..file_bytes * 3 / 2).contains(&read_bytes),
            "{codec:?}: {read_bytes} of {file_bytes} bytes"
        );
    }
}

#[test]
fn each_flipped_byte_is_found_and_what_lies_behind_it_is_read() {
    for codec in [Codec::Plain, Codec::Lz4] {
        let made = made(codec);
        let blocks_end = made.footer.filter.offset as usize;
        let versions = made.properties.versions;
        // Every so many bytes, and all of the end, where most is to be got wrong.
        let sparse = (0..blocks_end).step_by(397);
        let ends = (blocks_end..made.footer.root.offset as usize).step_by(61);
        let dense = made.footer.root.offset as usize..made.file_bytes();
        let dense = dense.filter(|at| at % 7 == 0 || *at >= made.file_bytes() - FOOTER_BYTES);
        for at in sparse.chain(ends).chain(dense) {
            made.disk.flip(&path(), at, (at % 8) as u32);
            let (seen, flaws, _) = made.verify(&made.info());
            made.disk.flip(&path(), at, (at % 8) as u32);
            let range = |flaw: &Flaw| flaw.offset..flaw.offset + flaw.bytes;
            assert!(
                flaws.iter().any(|flaw| range(flaw).contains(&(at as u64))),
                "{codec:?}: {at} was flipped: {flaws:?}"
            );
            assert_eq!(flaws.len(), 1, "{codec:?}: {at}: {flaws:?}");
            let lost_all = matches!(flaws[0].lost, Lost::File) && seen.counted.versions == 0;
            let is_index = flaws[0].what.starts_with("an index block");
            match flaws[0].lost {
                Lost::Keys(..) if is_index => assert!(seen.counted.versions > versions / 4),
                Lost::Keys(..) => assert!(seen.counted.versions + 10 > versions, "{at}"),
                Lost::Nothing => assert_eq!(seen.counted.versions, versions),
                // Without footer or root nothing can be found.
                Lost::File => assert!(lost_all || seen.counted.versions == versions, "{at}"),
            }
        }
    }
}

#[test]
fn lost_keys_are_named() {
    let made = made(Codec::Plain);
    // In the first block are records of the shard itself.
    let bytes = made.disk.content(&path());
    let needle = b"number 001000";
    let at = bytes.windows(needle.len()).position(|window| window == needle);
    // Keys are cut by what they share; a restart has one whole.
    let at = at.unwrap_or(made.file_bytes() / 3);
    made.disk.flip(&path(), at, 0);
    let (_, flaws, _) = made.verify(&made.info());
    let [
        Flaw {
            lost: Lost::Keys(Some(from), through),
            ..
        },
    ] = &flaws[..]
    else {
        panic!("{flaws:?}");
    };
    assert!(from < through, "{flaws:?}");
    assert!(from.starts_with(b"\x01a key with") && through.starts_with(b"\x01a key with"));
}

#[test]
fn a_file_that_was_cut_or_belongs_elsewhere_is_one_flaw() {
    let made = made(Codec::Lz4);
    let whole = made.disk.content(&path());
    for len_bytes in [0, 1, BLOCK_BYTES, whole.len() - BLOCK_BYTES, whole.len() - 1] {
        made.disk.put_file(&path(), whole[..len_bytes].to_vec());
        let (seen, flaws, _) = made.verify(&made.info());
        assert_eq!((flaws.len(), seen.blocks), (1, 0), "{len_bytes}: {flaws:?}");
        assert_eq!(flaws[0].lost, Lost::File);
    }
}

#[test]
fn parts_that_lie_with_right_checksums_are_found_out() {
    let made = made(Codec::Plain);
    let whole = made.disk.content(&path());
    let said = |expected: &TableInfo, words: &str| {
        let (_, flaws, _) = made.verify(expected);
        assert_eq!(flaws.len(), 1, "{words}: {flaws:?}");
        assert!(flaws[0].what.contains(words), "{words}: {flaws:?}");
        assert_eq!(flaws[0].lost, Lost::Nothing);
        made.disk.put_file(&path(), whole.clone());
    };
    // A filter without the bits of some keys.
    let mut filter = made.part(made.footer.filter);
    filter[..64].fill(0);
    made.replace(made.footer.filter, &filter);
    said(&made.info(), "the filter hides");
    // Properties that have counted wrong, and a manifest that agrees with them.
    let wrong = Properties {
        tombstones: made.properties.tombstones + 1,
        ..made.properties.clone()
    };
    made.replace(made.footer.properties, &wrong.encode());
    said(
        &wrong.info(ID.number, made.footer.file_bytes),
        "the properties say",
    );
    // A manifest that has another table in mind.
    let other = TableInfo {
        newest: Timestamp(1),
        ..made.info()
    };
    said(&other, "the manifest has");
    // An index whose last entry names another version than the block below it ends with.
    let mut root = made.part(made.footer.root);
    let restarts = u32::from_le_bytes(*root.last_chunk().expect("it has a number of restarts"));
    let entries_end = root.len() - 4 * (restarts as usize + 1);
    // The timestamp stands before the handle.
    root[entries_end - Handle::BYTES - 8] ^= 1;
    made.replace(made.footer.root, &root);
    said(&made.info(), "not what the index says");
}

#[test]
fn what_the_device_can_not_read_is_named_and_the_rest_is_read() {
    let made = made(Codec::Plain);
    // The footer, root, filter, properties and range tombstones, an index block; then a portion, and in it one block by
    // itself.
    made.disk.inject("read", 6, io::ErrorKind::Other);
    made.disk.inject("read", 0, io::ErrorKind::Other);
    let (seen, flaws, _) = made.verify(&made.info());
    made.disk.clear_injections();
    assert_eq!(flaws.len(), 1, "{flaws:?}");
    assert!(flaws[0].what.contains("can't be read"), "{flaws:?}");
    assert!(seen.counted.versions + 10 > made.properties.versions);
    assert!(seen.counted.versions < made.properties.versions);
    // Of a portion that can't be read at once all may be readable piece by piece.
    made.disk.inject("read", 6, io::ErrorKind::Other);
    let (seen, flaws, _) = made.verify(&made.info());
    assert_eq!(
        (flaws.len(), seen.counted.versions),
        (0, made.properties.versions)
    );
}

#[test]
fn a_walk_keeps_to_its_rate_and_ends_when_it_is_not_wanted_any_more() {
    let made = Rc::new(made(Codec::Plain));
    let rate = 50_000;
    made.pace.set_bytes_per_second(rate);
    let (is_wanted, read_bytes) = (Rc::new(Cell::new(true)), Rc::new(Cell::new(0_u64)));
    let ended: Rc<RefCell<Option<Seen>>> = Rc::default();
    let walk =
        |made: Rc<Made>, is_wanted: Rc<Cell<bool>>, read: Rc<Cell<u64>>, ended: Rc<RefCell<Option<Seen>>>| {
            let info = made.info();
            async move {
                let disk: &dyn Disk = &made.disk;
                let file = disk.open(&path(), OpenMode::Read).await.expect("it is there");
                let reading = Reading {
                    tasks: &made.scheduler,
                    pace: &made.pace,
                    portion_bytes: 64 << 10,
                    is_wanted: &|| is_wanted.get(),
                    has_read: &|bytes| read.set(read.get() + bytes),
                };
                let mut found = |flaw| panic!("{flaw:?}");
                let seen = verify(&*file, (ID, Some(&info)), reading, &mut found, &mut |_, _| {}).await;
                file.close().await.expect("nothing fails here");
                *ended.borrow_mut() = Some(seen);
            }
        };
    let start = || {
        read_bytes.set(0);
        let task = walk(
            Rc::clone(&made),
            Rc::clone(&is_wanted),
            Rc::clone(&read_bytes),
            Rc::clone(&ended),
        );
        made.scheduler.spawn(Priority::Background, Box::pin(task));
        made.scheduler.settle();
    };
    start();
    let mut took_ms = 0;
    while ended.borrow().is_none() {
        made.scheduler.advance(Duration::from_millis(1));
        took_ms += 1;
    }
    let expected_ms = read_bytes.get() * 1000 / rate;
    assert!(read_bytes.get() >= made.footer.file_bytes);
    assert!(
        took_ms >= expected_ms && took_ms < expected_ms * 11 / 10 + 10,
        "{} bytes took {took_ms} ms, expected {expected_ms} ms",
        read_bytes.get()
    );
    assert!(ended.borrow_mut().take().is_some_and(|seen| seen.is_complete));
    // In the middle of a portion, whose bytes take longer than a second.
    start();
    made.scheduler.advance(Duration::from_millis(500));
    assert!(ended.borrow().is_none());
    is_wanted.set(false);
    made.scheduler.advance(Duration::from_millis(110));
    assert!(ended.borrow_mut().take().is_some_and(|seen| !seen.is_complete));
}
