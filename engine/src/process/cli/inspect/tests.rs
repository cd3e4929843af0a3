//! What is printed of small files, whole and damaged, to the letter.

use std::path::PathBuf;
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::lsm::{Edit, Place, TableInfo, TableNumber};
use ostrakon_core::raft::{EntryId, LogIndex, Term};
use ostrakon_wire::routing::ShardId;
use tempfile::TempDir;

use super::*;
use crate::env::Disk;
use crate::env::testing::memory_disk::MemoryDisk;
use crate::env::testing::scheduler::Scheduler;
use crate::log::format::{
    BATCH_HEADER_BYTES, BatchHeader, BatchNumber, BootNumber, DirectoryEntry, FLAG_HEAD, LogId,
    OwnershipEpoch, RecordKind, SegmentHead, SegmentSequence, finish_batch, put_record_header, record_bytes,
};
use crate::process::cli::arguments::{InspectLogArguments, InspectManifestArguments, InspectTableArguments};
use crate::process::cli::requests::Key;
use crate::shard::command::{Change, Head};
use crate::storage::manifest::{self, MANIFEST, Manifest};
use crate::storage::memtable::Version;
use crate::storage::sstable::builder::{TableBuilder, TableOptions};
use crate::storage::sstable::format::{Codec, TableId};
use crate::storage::store::keys::stored_key;

/// A file below a directory of its own, and the arguments that name it.
struct File {
    directory: TempDir,
    path: PathBuf,
}

impl File {
    fn new(name: &str, bytes: &[u8]) -> File {
        let directory = tempfile::tempdir().expect("there is a place for it");
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("it can be made");
        std::fs::write(&path, bytes).expect("it can be written");
        File { directory, path }
    }

    /// The lines that are printed, the first of which names the file.
    fn printed(&self, what: &InspectedFile) -> (Vec<String>, u64) {
        let source = Source::open(&self.path).expect("it is there");
        let mut out = Vec::new();
        let damages = print(what, &source, &mut out).expect("memory can be written");
        let text = String::from_utf8(out).expect("it is text");
        let directory = self.directory.path().display().to_string();
        let lines = text.lines().map(|line| line.replace(&directory, ""));
        (lines.collect(), damages)
    }

    fn flip(&self, at: usize) {
        let mut bytes = std::fs::read(&self.path).expect("it is there");
        bytes[at] ^= 1;
        std::fs::write(&self.path, bytes).expect("it can be written");
    }
}

fn batch(number: u64, offset: u64, flags: u16, records: &[(RecordKind, EntryId, Vec<u8>)]) -> Vec<u8> {
    let records_bytes: usize = records
        .iter()
        .map(|(_, _, payload)| record_bytes(payload.len()))
        .sum();
    let entries: Vec<EntryId> = records
        .iter()
        .filter(|(kind, ..)| *kind == RecordKind::Entry)
        .map(|(_, entry, _)| *entry)
        .collect();
    let directory = match (entries.first(), entries.last()) {
        (Some(first), Some(last)) => vec![DirectoryEntry {
            shard: ShardId(2),
            has_state: false,
            first: first.index,
            last: last.index,
        }],
        _ => Vec::new(),
    };
    let header = BatchHeader {
        flags,
        segment: SegmentSequence(1),
        number: BatchNumber(number),
        durable_through: BatchNumber(number - 1),
        offset,
        boot: BootNumber(4),
        log: LogId(0),
        records_bytes: records_bytes as u32,
        record_count: records.len() as u32,
        directory_count: directory.len() as u32,
    };
    let mut bytes = vec![0; 4096];
    let mut at = BATCH_HEADER_BYTES;
    for (kind, entry, payload) in records {
        let shard = if *kind == RecordKind::Entry {
            ShardId(2)
        } else {
            ShardId(0)
        };
        put_record_header(
            &mut bytes[at..],
            *kind,
            shard,
            OwnershipEpoch(1),
            *entry,
            payload.len(),
        );
        bytes[at + 32..][..payload.len()].copy_from_slice(payload);
        at += record_bytes(payload.len());
    }
    finish_batch(&mut bytes, &header, &directory);
    bytes
}

fn put(index: u64, key: &[u8], value: &[u8]) -> (RecordKind, EntryId, Vec<u8>) {
    let change = Change::Put {
        value,
        expiry: None,
        is_sum: false,
    };
    let head = Head::of_write(Timestamp(index * 100), None, key, &change);
    let entry = EntryId {
        term: Term(3),
        index: LogIndex(index),
    };
    (RecordKind::Entry, entry, [head.as_bytes(), key, value].concat())
}

fn segment() -> Vec<u8> {
    let head = SegmentHead {
        cluster: (1, 2),
        node: 3,
        segment_bytes: 4 * 4096,
        shards: 8,
        oldest: SegmentSequence(1),
        ..SegmentHead::default()
    };
    let head = (
        RecordKind::SegmentHead,
        EntryId::default(),
        head.encode().to_vec(),
    );
    [
        batch(1, 0, FLAG_HEAD, &[head]),
        batch(2, 4096, 0, &[put(7, b"user:\xff", b"value"), put(8, b"b", b"")]),
        batch(3, 8192, 0, &[put(9, b"c", b"x")]),
        vec![0; 4096],
    ]
    .concat()
}

#[test]
fn a_segment_is_printed_batch_by_batch() {
    let file = File::new("log/0000/0000000000000001.seg", &segment());
    let what = InspectedFile::Log(InspectLogArguments {
        file: file.path.clone(),
        entries: true,
    });
    let (lines, damages) = file.printed(&what);
    let crc = |at: usize| {
        let bytes = segment()[at..at + 4].try_into().expect("four bytes");
        format!("{:#010x}", u32::from_le_bytes(bytes))
    };
    let expected = [
        "/log/0000/0000000000000001.seg, 16384 bytes".to_owned(),
        "log 0, segment 1".to_owned(),
        format!(
            "offset 0: batch 1, head, 176 bytes, boot 4, durable_through 0, 1 records of 96 bytes, 0 shards, header \
             crc {}, records crc {}",
            crc(4),
            crc(8)
        ),
        "  head: cluster 00000000000000010000000000000002, node 0000000000000003, behind segment 0 up to batch 0, the \
         oldest needed is 1, segments of 16384 bytes, 8 shards"
            .to_owned(),
        format!(
            "offset 4096: batch 2, 224 bytes, boot 4, durable_through 1, 2 records of 120 bytes, 1 shards, header crc \
             {}, records crc {}",
            crc(4100),
            crc(4104)
        ),
        "  shard 2: entries 7 to 8".to_owned(),
        r"  entry 7 of shard 2: term 3, ownership epoch 1, version 700, put user:\xff, 5 bytes".to_owned(),
        "  entry 8 of shard 2: term 3, ownership epoch 1, version 800, put b, 0 bytes".to_owned(),
    ];
    assert_eq!(lines[..8], expected);
    assert_eq!(lines[11..], ["offset 12288: zeros up to 16384", "no damage"]);
    assert_eq!(damages, 0);
    // Damage in records, in a header and in padding: what lies behind it is there.
    for (at, words) in [
        (4096 + 120, "  DAMAGE at offset 4096: record checksum: expected "),
        (4096 + 30, "DAMAGE at offset 4096: header checksum: expected "),
        (
            4096 + 17,
            "DAMAGE at offset 4096: expected a batch header, found other bytes, up to 8192",
        ),
        (8191, "  DAMAGE at offset 4320: expected zeros behind the batch"),
    ] {
        file.flip(at);
        let (lines, damages) = file.printed(&what);
        assert_eq!(damages, 1, "{at}: {lines:#?}");
        assert!(
            lines.iter().any(|line| line.starts_with(words)),
            "{at}: {lines:#?}"
        );
        assert!(
            lines.iter().any(|line| line.starts_with("offset 8192: batch 3")),
            "{at}"
        );
        file.flip(at);
    }
    // Nothing tells a torn end from damage to the last batch.
    file.flip(8192 + 30);
    let (lines, damages) = file.printed(&what);
    assert!(
        damages == 0 && lines.iter().any(|line| line.contains("no batch follows")),
        "{lines:#?}"
    );
}

#[test]
fn a_segment_under_another_name_tells_itself_what_it_is() {
    let file = File::new("copy", &segment());
    let what = InspectedFile::Log(InspectLogArguments {
        file: file.path.clone(),
        entries: false,
    });
    let (lines, damages) = file.printed(&what);
    assert_eq!((lines[1].as_str(), damages), ("log 0, segment 1", 0));
    let nothing = File::new("nothing", &[0; 8192]);
    let (lines, damages) = nothing.printed(&what);
    assert!(
        damages == 1 && lines[1].contains("says which log it is of"),
        "{lines:?}"
    );
}

fn table_bytes() -> Vec<u8> {
    let id = TableId {
        shard: ShardId(5),
        number: TableNumber(18),
    };
    let options = TableOptions {
        block_bytes: 40,
        codec: Codec::Plain,
    };
    let mut builder = TableBuilder::new(id, options);
    let mut stored = Vec::new();
    for (key, timestamp, value, expiry) in [
        (&b"apple"[..], 30, Some(&b"red"[..]), None),
        (b"apple", 20, None, None),
        (b"b\x00", 10, Some(b"one\ntwo"), Some(Timestamp(99))),
        (b"cherry", 40, Some(&[b'x'; 70]), None),
    ] {
        stored_key(&mut stored, key);
        let version = Version {
            timestamp: Timestamp(timestamp),
            value,
            expiry,
        };
        builder.add(
            crate::storage::store::keys::stored_hash(&stored),
            &stored,
            &version,
        );
    }
    builder.finish();
    builder.pending().to_vec()
}

fn table_file() -> File {
    File::new("shard/0005/0000000000000012.sst", &table_bytes())
}

/// The arguments that name a table.
fn what(file: &File, entries: bool, from: Option<&[u8]>, limit: Option<u64>) -> InspectedFile {
    InspectedFile::Sstable(InspectTableArguments {
        file: file.path.clone(),
        entries,
        from: from.map(|key| Key(key.to_vec())),
        limit,
    })
}

#[test]
fn a_table_is_printed_with_its_index_and_its_versions() {
    let file = table_file();
    let (lines, damages) = file.printed(&what(&file, false, None, None));
    assert_eq!(damages, 0);
    assert_eq!(lines[0], "/shard/0005/0000000000000012.sst, 4096 bytes");
    assert_eq!(lines[1], "table 18 of shard 5");
    assert!(lines[2].starts_with("offset 4000: footer, checksum 0x"));
    let property = |name: &str| {
        let line = lines.iter().find(|line| line.trim_start().starts_with(name));
        line.map(|line| line.split_whitespace().next_back().unwrap_or_default().to_owned())
    };
    for (name, value) in [
        ("keys", "3"),
        ("versions", "4"),
        ("tombstones", "1"),
        ("expiring", "1"),
        ("last expiry", "99"),
        ("oldest", "10"),
        ("newest", "40"),
        ("smallest", "apple"),
        ("largest", "cherry"),
    ] {
        assert_eq!(property(name).as_deref(), Some(value), "{lines:#?}");
    }
    assert!(
        lines
            .iter()
            .any(|line| line.contains("data block up to cherry at 40")),
        "{lines:#?}"
    );
    assert!(!lines.iter().any(|line| line.contains("3 bytes: red")));
    let versions = |from, limit| -> Vec<String> {
        let (lines, _) = file.printed(&what(&file, true, from, limit));
        let versions = lines.iter().filter_map(|line| line.strip_prefix("    "));
        versions
            .filter(|line| !line.ends_with(" entries"))
            .map(str::to_owned)
            .collect()
    };
    let all = [
        "apple at 30, 3 bytes: red".to_owned(),
        "apple at 20, deleted".to_owned(),
        r"b\x00 at 10, expires 99, 7 bytes: one\x0atwo".to_owned(),
        format!("cherry at 40, 70 bytes: {}...", "x".repeat(64)),
    ];
    assert_eq!(versions(None, None), all);
    assert_eq!(versions(Some(b"b"), Some(1)), all[2..3]);
    assert_eq!(versions(Some(b"apple"), Some(3)), all[..3]);
}

#[test]
fn a_damaged_table_is_printed_as_far_as_it_can_be_found() {
    let file = table_file();
    // A damaged block, and a damaged footer, which can be read all the same.
    let damages = |at| {
        file.flip(at);
        let (lines, damages) = file.printed(&what(&file, true, None, None));
        file.flip(at);
        (lines, damages)
    };
    let (lines, count) = damages(10);
    assert!(
        count == 1
            && lines
                .iter()
                .any(|line| line.contains("DAMAGE at offset 0: the checksum"))
    );
    assert!(
        lines.iter().any(|line| line.contains("cherry at 40, 70 bytes")),
        "{lines:#?}"
    );
    let (lines, count) = damages(4096 - 80 + 13);
    assert!(
        count == 1
            && lines
                .iter()
                .any(|line| line.contains("the checksum of the footer"))
    );
    assert!(
        lines.iter().any(|line| line.contains("cherry at 40, 70 bytes")),
        "{lines:#?}"
    );
    let (lines, count) = damages(4096 - 80 + 38);
    assert!(
        count >= 1 && lines.iter().any(|line| line.contains("footer")),
        "{lines:#?}"
    );
}

fn info_of(number: u64) -> TableInfo {
    TableInfo {
        number: TableNumber(number),
        bytes: 4096,
        smallest: (*b"\x01a").into(),
        largest: (*b"\x01b\xfe").into(),
        is_largest_excluded: false,
        keys: 5,
        range_tombstones: 0,
        covered_bytes: 0,
        versions: 7,
        tombstones: 1,
        expiring: 0,
        last_expiry: Timestamp::ZERO,
        newest: Timestamp(70),
    }
}

#[test]
fn a_manifest_is_printed_record_by_record_and_as_a_whole() {
    let directory = std::path::Path::new("/data");
    let memory = MemoryDisk::new(directory);
    let disk: Rc<dyn Disk> = Rc::new(memory.clone());
    let written = Scheduler::default().run(async {
        let mut manifest = Manifest::open(&disk, directory, 5).await?;
        for number in 1..=3 {
            let info = info_of(number);
            let change = manifest::Change {
                edit: Edit {
                    removed: Vec::new(),
                    place: Place::Young,
                    added: vec![Rc::new(info)],
                },
                flushed: EntryId {
                    term: Term(1),
                    index: LogIndex(number * 10),
                },
                next_number: TableNumber(number + 1),
            };
            manifest.note(&change).await?;
        }
        manifest.close().await
    });
    written.expect("it ends").expect("nothing fails here");
    let file = File::new("shard/0005/manifest", &memory.content(&directory.join(MANIFEST)));
    let what = InspectedFile::Manifest(InspectManifestArguments {
        file: file.path.clone(),
    });
    let table = r"5 keys, 7 versions, 1 tombstones, 0 that expire, the newest 70, keys a to b\xfe";
    let (lines, damages) = file.printed(&what);
    assert_eq!(damages, 0);
    assert_eq!(lines[1], "manifest of shard 5");
    let second = lines
        .iter()
        .position(|line| line.starts_with("offset 8192: record "));
    let second = second.expect("it is printed");
    assert_eq!(
        lines[second + 1..second + 4],
        [
            "  flushed up to entry 20 of term 1, the next table is 3".to_owned(),
            "  tables that come, a young run:".to_owned(),
            format!("    table 2: 4096 bytes, {table}"),
        ]
    );
    let whole = "all in all: 3 tables of 12288 bytes, flushed up to entry 30 of term 1, the next table is 4";
    assert!(lines.iter().any(|line| line == whole), "{lines:#?}");
    file.flip(8192 + 50);
    let (lines, damages) = file.printed(&what);
    assert_eq!(damages, 1, "{lines:#?}");
    let damage = "DAMAGE at offset 8192: the checksum of a record";
    assert!(lines.iter().any(|line| line.starts_with(damage)), "{lines:#?}");
    assert!(
        lines.iter().any(|line| line.starts_with("offset 12288: record ")),
        "{lines:#?}"
    );
    let rest = "up to the first damage: 1 tables of 4096 bytes";
    assert!(lines.iter().any(|line| line.starts_with(rest)), "{lines:#?}");
}
