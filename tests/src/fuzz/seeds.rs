//! The seeds from which fuzzing starts: good bytes of every kind, and some with a twist, so that a fuzzer need not find
//! magic numbers and layouts by itself. `tests/fuzz/seeds` holds them, a folder for each target;
//! `tests/tests/fuzz_seeds.rs` compares the folders with this, and writes them when asked to.

use ostrakon::log::format::{
    BATCH_HEADER_BYTES, BatchHeader, BatchNumber, BootNumber, DIRECTORY_ENTRY_BYTES, DirectoryEntry,
    FLAG_HEAD, LogId, OwnershipEpoch, RECORD_HEADER_BYTES, RecordKind, SegmentHead, SegmentSequence,
    ShardState, finish_batch, put_record_header, record_bytes,
};
use ostrakon::process::cli::BinaryWriter;
use ostrakon::shard::command::{Change, Head, append_operation};
use ostrakon_core::hlc::Timestamp;
use ostrakon_core::raft::{EntryId, HardState, LogIndex, ReplicaId, Term};
use ostrakon_core::sessions::{Failure, Retry, Sequence, SessionId};
use ostrakon_wire::frame::{self, HEADER_BYTES};
use ostrakon_wire::message::Kind;
use ostrakon_wire::routing::ShardId;

/// The frames that the protocol's golden test holds.
const GOLDEN_FRAMES: &str = include_str!("../../../wire/tests/golden.txt");

/// Frames that are seeds of the target `frame`, whose other fields do not matter to it.
const FRAMES: [&str; 5] = ["ping", "get", "timed get", "timed get reply", "error"];

/// A seed's file name and bytes.
pub type Seed = (String, Vec<u8>);

/// The seeds of a target.
///
/// # Panics
/// If there is no target of this name.
pub fn of(target: &str) -> Vec<Seed> {
    match target {
        "frame" => frames(),
        "request" => bodies(|kind| !kind.is_response()),
        "response" => bodies(Kind::is_response),
        "client" => scripts(),
        "batch" => batches(),
        "command" => commands(),
        "identity" => vec![named("node", identity())],
        "key" => keys(),
        "words" => words(),
        "import-binary" => binary_files(),
        "import-json" => json_files(),
        "history" => histories(),
        other => panic!("no target `{other}` has seeds"),
    }
}

fn named(name: &str, bytes: impl Into<Vec<u8>>) -> Seed {
    (
        name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"),
        bytes.into(),
    )
}

/// The golden frames by their names.
fn golden_frames() -> Vec<(&'static str, Vec<u8>)> {
    let mut frames: Vec<(&str, Vec<u8>)> = Vec::new();
    for line in GOLDEN_FRAMES.lines() {
        if let Some(name) = line.strip_prefix("# ") {
            frames.push((name, Vec::new()));
        } else {
            let (_, frame) = frames.last_mut().expect("the file starts with a name");
            let bytes = line.split_whitespace().skip(1);
            frame.extend(bytes.map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits")));
        }
    }
    frames
}

fn golden(name: &str) -> Vec<u8> {
    let found = golden_frames().into_iter().find(|(other, _)| *other == name);
    found.unwrap_or_else(|| panic!("no golden frame `{name}`")).1
}

fn frames() -> Vec<Seed> {
    let mut seeds: Vec<Seed> = FRAMES.into_iter().map(|name| named(name, golden(name))).collect();
    let mut cut = golden("get");
    cut.pop();
    seeds.push(named("cut off", cut));
    seeds
}

/// Golden bodies, each behind the place of its kind among all kinds.
fn bodies(wanted: impl Fn(Kind) -> bool) -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (name, bytes) in golden_frames() {
        let (header, body) = frame::decode(&bytes, bytes.len())
            .expect("a good frame")
            .expect("a whole frame");
        let kind = Kind::try_from(header.kind).expect("a known kind");
        let place = Kind::ALL
            .into_iter()
            .position(|other| other == kind)
            .expect("all kinds are there");
        if wanted(kind) && !header.timings {
            seeds.push(named(name, [&[place as u8], body].concat()));
        }
    }
    seeds
}

/// Scripts for the client; see `client::connection` for their steps.
fn scripts() -> Vec<Seed> {
    let hello_reply = golden("hello reply");
    let answer = |kind: Kind, request_id: u8, body: &[u8]| {
        let [low, high] = (kind as u16).to_le_bytes();
        [&[1, low, high, 0, request_id, body.len() as u8], body].concat()
    };
    let open = answer(Kind::HelloReply, 0, &hello_reply[HEADER_BYTES..]);
    let in_pieces = hello_reply
        .chunks(50)
        .flat_map(|piece| [&[0, piece.len() as u8], piece].concat());
    let get = [
        &[3][..],
        &answer(Kind::GetReply, 1, &golden("get reply")[HEADER_BYTES..]),
    ]
    .concat();
    let put = [
        &[4][..],
        &answer(Kind::WriteReply, 1, &golden("write reply")[HEADER_BYTES..]),
    ]
    .concat();
    let scan = [
        &[5][..],
        &answer(Kind::ScanReply, 1, &golden("scan reply, last")[HEADER_BYTES..]),
    ]
    .concat();
    let error = answer(Kind::Error, 0, &golden("error")[HEADER_BYTES..]);
    let pushed = [1, 0, 0xC0, 0, 9, 0];
    vec![
        named("hello in pieces", in_pieces.collect::<Vec<u8>>()),
        named("get", [&open[..], &get].concat()),
        named("put", [&open[..], &[6, 200], &put].concat()),
        named("scan", [&open[..], &scan].concat()),
        named("refused", error.clone()),
        named("closed", [&open[..], &[2, 3], &error].concat()),
        named("pushed", [&open[..], &[3], &pushed, &get[1..]].concat()),
    ]
}

/// Records that are written one after the other.
fn records(records: &[(RecordKind, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, (kind, payload)) in (1..).zip(records) {
        let start = bytes.len();
        bytes.resize(start + record_bytes(payload.len()), 0);
        let entry = EntryId {
            term: Term(1),
            index: LogIndex(index),
        };
        let record = &mut bytes[start..];
        put_record_header(record, *kind, ShardId(3), OwnershipEpoch(1), entry, payload.len());
        record[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + payload.len()].copy_from_slice(payload);
    }
    bytes
}

fn batch(flags: u16, written: &[(RecordKind, Vec<u8>)], record_count: u32) -> Vec<u8> {
    let records = records(written);
    let header = BatchHeader {
        flags,
        segment: SegmentSequence(1),
        number: BatchNumber(1),
        durable_through: BatchNumber(0),
        offset: 0,
        boot: BootNumber(1),
        log: LogId(0),
        records_bytes: records.len() as u32,
        record_count,
        directory_count: 1,
    };
    let entry = DirectoryEntry {
        shard: ShardId(3),
        has_state: true,
        first: LogIndex(1),
        last: LogIndex(2),
    };
    let mut bytes = vec![0; BATCH_HEADER_BYTES];
    bytes.extend_from_slice(&records);
    bytes.resize(bytes.len() + DIRECTORY_ENTRY_BYTES, 0);
    finish_batch(&mut bytes, &header, &[entry]);
    bytes
}

fn batches() -> Vec<Seed> {
    let head = SegmentHead {
        cluster: (1, 2),
        node: 3,
        predecessor: SegmentSequence(0),
        predecessor_last: BatchNumber(0),
        segment_bytes: 1 << 20,
        shards: 8,
        oldest: SegmentSequence(1),
    };
    let state = ShardState {
        hard_state: HardState {
            term: Term(1),
            vote: ReplicaId(1),
        },
        base: EntryId {
            term: Term(0),
            index: LogIndex(0),
        },
        complete: true,
    };
    let opening = [
        (RecordKind::SegmentHead, head.encode().to_vec()),
        (RecordKind::ShardState, state.encode().to_vec()),
    ];
    let entries: Vec<_> = commands()
        .into_iter()
        .map(|(_, bytes)| (RecordKind::Entry, bytes))
        .collect();
    let count = entries.len() as u32;
    vec![
        named("head", batch(FLAG_HEAD, &opening, 2)),
        named("entries", batch(0, &entries, count)),
        named("more records than there are", batch(0, &entries, u32::MAX)),
        named("blank", vec![0; 256]),
    ]
}

fn commands() -> Vec<Seed> {
    let timestamp = Timestamp(0x0102_0304_0506_0708);
    let retry = Retry {
        session: SessionId(0x1112_1314_1516_1718_191A_1B1C_1D1E_1F20),
        sequence: Sequence(3),
        answered_below: Sequence(2),
        first_sent: Timestamp(1),
    };
    let put = |value, expiry, is_sum| Change::Put {
        value,
        expiry,
        is_sum,
    };
    let write = |retry, change: &Change<'_>| {
        let head = Head::of_write(timestamp, retry, b"key", change);
        [head.as_bytes(), b"key", change.value()].concat()
    };
    let mut batch = Head::of_batch(timestamp, Some(&retry), 2).as_bytes().to_vec();
    append_operation(&mut batch, b"one", &put(b"-7", Some(timestamp), true));
    append_operation(&mut batch, b"two", &Change::Delete);
    let failure = Failure::ConditionFailed {
        version: timestamp,
        operation: 1,
    };
    vec![
        named("put", write(None, &put(b"value", None, false))),
        named("delete", write(None, &Change::Delete)),
        named("sum", write(Some(&retry), &put(b"42", Some(timestamp), true))),
        named(
            "ceiling",
            Head::of_ceiling(timestamp, Timestamp(1), Timestamp(3)).as_bytes(),
        ),
        named("batch", batch),
        named(
            "failure",
            Head::of_failure(timestamp, &retry, &failure).as_bytes(),
        ),
    ]
}

/// The file `node`; the target puts its checksum right.
fn identity() -> Vec<u8> {
    let mut bytes = b"OSTRNODE\x01\0\0\0\0\0\0\0".to_vec();
    for number in [1_u64, 2, 3, 64 | 1 << 32, 64 << 20, 7] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes
}

fn keys() -> Vec<Seed> {
    vec![
        named("plain", *b"user:7"),
        named("escaped", *br"a\x00\xfF\\x41"),
        named("unfinished", *br"a\x4"),
        named("utf8", "grün\u{202e}".as_bytes()),
        named("invalid utf8", *b"\xff\xfe a\xc3"),
    ]
}

fn words() -> Vec<Seed> {
    vec![
        named("plain", *b"scan user: --limit 5"),
        named("quotes", *br#"put 'a b' "c\x00\n\"d"e\ f ''"#),
        named("lines", *b"put k <<END\na 'b\n\nEND"),
        named("open", *b"put k 'a\n"),
        named("comment", *b"# a comment\nget k"),
    ]
}

fn binary_files() -> Vec<Seed> {
    let file = |records: &[(&[u8], &[u8], u64)]| {
        let mut file = Vec::new();
        let mut writer = BinaryWriter::new(&mut file, 1 << 60).expect("memory takes all");
        for (key, value, expires_us) in records {
            writer.write(key, value, *expires_us).expect("memory takes all");
        }
        writer.finish().expect("memory takes all");
        file
    };
    vec![
        named("nothing", file(&[])),
        named("two", file(&[(b"a", b"one", 0), (b"b\0", b"", 9_000_001)])),
    ]
}

fn json_files() -> Vec<Seed> {
    vec![
        named("text", *b"{\"key\":\"a\",\"value\":\"1\\n\\u00e9\"}\n\n"),
        named(
            "base64",
            *b"{\"key_base64\":\"AA==\",\"value_base64\":\"/w==\",\"expires\":9}",
        ),
        named(
            "scanned",
            *b"{\"key\":\"a\",\"value\":\"\",\"ttl_ms\":5,\"version\":\"7\"}",
        ),
    ]
}

fn histories() -> Vec<Seed> {
    let registers = include_str!("../../testdata/histories/bad/registers-value-from-nowhere.edn");
    let transactions = include_str!("../../testdata/histories/bad/transactions-internal.edn");
    vec![
        named("registers", registers),
        named("transactions", transactions),
        named("vector", format!("; all of it\n[{registers}]\n")),
        named(
            "bytes",
            *br#"{:index 0, :time 5, :type :invoke, :process 1, :f :write, :key "k", :value #hex "00ff"}"#,
        ),
    ]
}
