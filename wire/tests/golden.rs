//! One frame of each kind, byte for byte, against `golden.txt`: what version 1 of the protocol looks like on
//! the wire.
//!
//! A difference means that old clients and new servers no longer understand each other. If that is wanted,
//! the protocol needs a new version; if only an encoder's choice changed (both readers accept both), put the
//! new bytes into the file.

use std::fmt::Write;

use ostrakon_wire::ClusterId;
use ostrakon_wire::frame::{self, StageTimings};
use ostrakon_wire::limits::BODY_BYTES_MAX;
use ostrakon_wire::message::{
    Action, BatchOperation, BatchReply, CheckpointAction, CheckpointReply, CheckpointShard, Condition,
    DeleteRangeReply, Encoder, ErrorCode, ErrorReply, Found, Hello, HelloReply, Kind, MultiPutReply,
    MultiValue, PutEntry, Request, Response, Retry, ScanEntry, ScanReply, ScanRequest, TopologyReply,
};

const REQUEST_ID: u64 = 0x0102_0304_0506_0708;
const TIMESTAMP: u64 = 0x1112_1314_1516_1718;
const CLUSTER_ID: ClusterId = ClusterId {
    high: 0xA1A2_A3A4_A5A6_A7A8,
    low: 0xB1B2_B3B4_B5B6_B7B8,
};

const VERSION: u64 = 0x4142_4344_4546_4748;
const EXPIRES: u64 = 0x7172_7374_7576_7778;
const RETRY: Option<Retry> = Some(Retry {
    session: 0xC1C2_C3C4_C5C6_C7C8_D1D2_D3D4_D5D6_D7D8,
    sequence: 0xE1E2_E3E4_E5E6_E7E8,
    answered_below: 0xE1E2_E3E4_E5E6_E700,
    first_sent: 0xF1F2_F3F4_F5F6_F7F8,
});
/// What a request or response of this name starts with has stage timings.
const TIMED: &str = "timed ";
const TIMINGS: StageTimings = StageTimings {
    queue_ns: 0x1_0000_0001,
    hop_ns: 0x2_0000_0002,
    log_ns: 0x3_0000_0003,
    apply_ns: 0x4_0000_0004,
    total_ns: 0xA_0000_000A,
};

const KEYS: [&[u8]; 3] = [b"key 1", b"key 2", b"key 1"];
const PUT_ENTRIES: [PutEntry<'static>; 2] = [
    PutEntry {
        key: b"key 1",
        value: b"value",
        ttl_ms: 0,
    },
    PutEntry {
        key: b"key 2",
        value: b"",
        ttl_ms: 60_000,
    },
];
const OPERATIONS: [BatchOperation<'static>; 4] = [
    BatchOperation {
        key: b"{t}put",
        action: Action::Put {
            value: b"value",
            ttl_ms: 60_000,
        },
        condition: Condition::Value(b"old"),
    },
    BatchOperation {
        key: b"{t}delete",
        action: Action::Delete,
        condition: Condition::Version(0x3132_3334_3536_3738),
    },
    BatchOperation {
        key: b"{t}add",
        action: Action::Add { delta: -2, ttl_ms: 0 },
        condition: Condition::None,
    },
    BatchOperation {
        key: b"{t}check",
        action: Action::Check,
        condition: Condition::Absent,
    },
];

fn requests() -> Vec<(&'static str, Request<'static>)> {
    let hello = Hello {
        version_min: 1,
        version_max: 2,
        cluster_id: CLUSTER_ID,
        core: Some(3),
        client: "golden/1",
    };
    let scan = ScanRequest {
        start: b"from",
        end: Some(b"to"),
        limit: 100,
        snapshot: 0x2122_2324,
        keys_only: true,
        ..ScanRequest::ALL
    };
    let put = |condition| Request::put(b"key", b"value", condition);
    vec![
        ("hello", Request::Hello(hello)),
        ("ping", Request::Ping),
        ("get", Request::Get { key: b"key" }),
        ("put", put(Condition::None)),
        ("put if absent", put(Condition::Absent)),
        ("put if version", put(Condition::Version(0x3132_3334_3536_3738))),
        ("delete if present", Request::delete(b"key", Condition::Present)),
        ("scan", Request::Scan(scan)),
        ("topology", Request::Topology),
        ("status", Request::Status),
    ]
    .into_iter()
    .chain(full_writes())
    .chain(requests_of_several_keys())
    .collect()
}

/// Writes of one key with the fields that came after the first release.
fn full_writes() -> Vec<(&'static str, Request<'static>)> {
    let full_put = |condition, ttl_ms, retry| Request::Put {
        key: b"key",
        value: b"value",
        condition,
        ttl_ms,
        retry,
    };
    vec![
        ("put with expiry", full_put(Condition::None, 60_000, None)),
        ("put with retry", full_put(Condition::None, 0, RETRY)),
        ("put if value", full_put(Condition::Value(b"old"), 0, None)),
        ("put with all", full_put(Condition::Value(b"old"), 60_000, RETRY)),
        (
            "delete with retry",
            Request::Delete {
                key: b"key",
                condition: Condition::None,
                retry: RETRY,
            },
        ),
        (
            "delete if value",
            Request::delete(b"key", Condition::Value(b"old")),
        ),
    ]
}

fn adds() -> [(&'static str, Request<'static>); 2] {
    [
        (
            "add",
            Request::Add {
                key: b"key",
                delta: -2,
                ttl_ms: 0,
                retry: None,
            },
        ),
        (
            "add with all",
            Request::Add {
                key: b"key",
                delta: i64::MAX,
                ttl_ms: 60_000,
                retry: RETRY,
            },
        ),
    ]
}

/// The kinds that came after the first release.
fn requests_of_several_keys() -> Vec<(&'static str, Request<'static>)> {
    let reverse = ScanRequest {
        prefix: b"pre",
        reverse: true,
        ..ScanRequest::ALL
    };
    let mut requests = adds().to_vec();
    requests.extend([
        (
            "multi-get",
            Request::MultiGet {
                keys: KEYS[..].into(),
            },
        ),
        (
            "multi-put",
            Request::MultiPut {
                entries: PUT_ENTRIES[..].into(),
                retry: RETRY,
            },
        ),
        (
            "batch",
            Request::Batch {
                operations: OPERATIONS[..].into(),
                retry: RETRY,
            },
        ),
        (
            "delete-range",
            Request::DeleteRange {
                start: b"key 1",
                end: Some(b"key 2"),
                retry: RETRY,
            },
        ),
        (
            "delete-range of all",
            Request::DeleteRange {
                start: b"",
                end: None,
                retry: None,
            },
        ),
        ("scan in reverse", Request::Scan(reverse)),
        (
            "cancel",
            Request::Cancel {
                request_id: 0x8182_8384,
            },
        ),
        ("stats", Request::Stats),
        (
            "checkpoint",
            Request::Checkpoint {
                action: CheckpointAction::Make,
                id: 0x9192_9394_9596_9798,
            },
        ),
        (
            "checkpoint release",
            Request::Checkpoint {
                action: CheckpointAction::Release,
                id: 0x9192_9394_9596_9798,
            },
        ),
        ("timed get", Request::Get { key: b"key" }),
    ]);
    requests
}

const ENTRIES: [ScanEntry<'static>; 2] = [
    ScanEntry {
        key: b"key 1",
        value: b"value",
        version: VERSION,
        expires: 0,
    },
    ScanEntry {
        key: b"key 2",
        value: b"",
        version: 0x5152_5354_5556_5758,
        expires: 0,
    },
];

/// In descending order, and one of them expires.
const EXPIRING_ENTRIES: [ScanEntry<'static>; 2] = [
    ScanEntry {
        expires: EXPIRES,
        ..ENTRIES[1]
    },
    ENTRIES[0],
];

const FOUND: Found<'static> = Found {
    version: VERSION,
    expires: 0,
    value: b"value",
};
const VALUES: [MultiValue<'static>; 4] = [
    MultiValue::Found(FOUND),
    MultiValue::Found(Found {
        expires: EXPIRES,
        ..FOUND
    }),
    MultiValue::NotFound,
    MultiValue::Omitted,
];

fn responses() -> Vec<(&'static str, Response<'static>)> {
    let hello_reply = HelloReply {
        version: 1,
        cluster_id: CLUSTER_ID,
        node_id: 0x6162_6364_6566_6768,
        core: 3,
        cores: 4,
        shards: 16,
        server: "server/1",
        key_bytes_max: 0x100,
        value_bytes_max: 0x200,
        frame_bytes_max: 0x300,
        requests_in_flight_max: 0x400,
        multi_max: 0x500,
        session_window: 0x600,
        retry_horizon_ms: 0x700,
    };
    let topology = TopologyReply {
        owners: vec![0, 1, 2, 3],
        cores: 4,
        node_id: 0x6162_6364_6566_6768,
        cluster_id: CLUSTER_ID,
    };
    let error = ErrorReply {
        code: ErrorCode::Busy,
        message: "too much at once",
        retry_after_ms: 25,
    };
    let page = |resume_key| ScanReply {
        snapshot: 0x2122_2324,
        entries: ENTRIES[..].into(),
        resume_key,
    };
    vec![
        ("hello reply", Response::Hello(hello_reply)),
        ("pong", Response::Pong),
        ("get reply", Response::Get { found: Some(FOUND) }),
        ("get reply, not found", Response::Get { found: None }),
        (
            "write reply",
            Response::Write {
                applied: true,
                version: VERSION,
            },
        ),
        ("scan reply", Response::Scan(page(Some(b"key 3")))),
        ("scan reply, last", Response::Scan(page(None))),
        ("topology reply", Response::Topology(topology)),
        (
            "status reply",
            Response::Status {
                json: "{\"node_id\":1}",
            },
        ),
        ("error", Response::Error(error)),
    ]
    .into_iter()
    .chain(responses_of_several_keys())
    .chain(responses_of_ranges())
    .collect()
}

/// What came after the first release: numbers, several keys, expiry, cancel, stats, timings.
fn responses_of_several_keys() -> Vec<(&'static str, Response<'static>)> {
    let written = MultiPutReply {
        versions: vec![VERSION, VERSION + 1],
        codes: vec![],
        message: "",
        retry_after_ms: 0,
    };
    let refused = MultiPutReply {
        versions: vec![VERSION, 0],
        codes: vec![None, Some(ErrorCode::Busy)],
        message: "too much at once",
        retry_after_ms: 25,
    };
    let applied = BatchReply {
        applied: true,
        version: VERSION,
        failed: 0,
        numbers: vec![-2, 3],
    };
    let failed = BatchReply {
        applied: false,
        version: VERSION,
        failed: 2,
        numbers: vec![],
    };
    let page = ScanReply {
        snapshot: 0x2122_2324,
        entries: EXPIRING_ENTRIES[..].into(),
        resume_key: Some(b"key 1"),
    };
    vec![
        (
            "get reply with expiry",
            Response::Get {
                found: Some(Found {
                    expires: EXPIRES,
                    ..FOUND
                }),
            },
        ),
        (
            "add reply",
            Response::Add {
                version: VERSION,
                number: -2,
            },
        ),
        (
            "multi-get reply",
            Response::MultiGet {
                values: VALUES[..].into(),
            },
        ),
        ("multi-put reply", Response::MultiPut(written)),
        ("multi-put reply, refused in part", Response::MultiPut(refused)),
        ("batch reply", Response::Batch(applied)),
        ("batch reply, not applied", Response::Batch(failed)),
        ("scan reply in reverse with expiry", Response::Scan(page)),
        ("cancel reply", Response::Cancel { cancelled: true }),
        (
            "stats reply",
            Response::Stats {
                json: "{\"cores\":[]}",
            },
        ),
        ("checkpoint reply", Response::Checkpoint(checkpoint_reply())),
        ("timed get reply", Response::Get { found: Some(FOUND) }),
    ]
}

fn checkpoint_reply() -> CheckpointReply<'static> {
    CheckpointReply {
        id: 0x9192_9394_9596_9798,
        snapshot: VERSION,
        directory: "/data/checkpoint/9192939495969798",
        node_id: 0x6162_6364_6566_6768,
        cluster_id: CLUSTER_ID,
        shards: vec![
            CheckpointShard {
                tables: 3,
                bytes: 0x1_0000_0000,
            },
            CheckpointShard { tables: 0, bytes: 0 },
        ],
    }
}

/// Of ranges that are deleted.
fn responses_of_ranges() -> [(&'static str, Response<'static>); 2] {
    let deleted = DeleteRangeReply {
        version: VERSION,
        applied: 16,
        refused: 0,
        unknown: 0,
        error: None,
    };
    let deleted_in_part = DeleteRangeReply {
        version: VERSION,
        applied: 9,
        refused: 5,
        unknown: 2,
        error: Some(ErrorReply {
            code: ErrorCode::CoreFailed,
            message: "a log has failed",
            retry_after_ms: 25,
        }),
    };
    [
        ("delete-range reply", Response::DeleteRange(deleted)),
        (
            "delete-range reply, in part",
            Response::DeleteRange(deleted_in_part),
        ),
    ]
}

/// The bytes as they stand in the file: sixteen to a line.
fn rendered(name: &str, frame: &[u8]) -> String {
    let mut text = format!("# {name}\n");
    for (index, line) in frame.chunks(16).enumerate() {
        write!(text, "{:04}", 16 * index).expect("a string takes all");
        for (position, byte) in line.iter().enumerate() {
            write!(text, "{}{byte:02x}", if position % 4 == 0 { "  " } else { " " })
                .expect("a string takes all");
        }
        text.push('\n');
    }
    text
}

#[test]
fn frames_are_as_they_always_were() {
    let mut encoder = Encoder::new();
    let mut text = String::new();
    for (name, request) in requests() {
        let mut frame = Vec::new();
        encoder.request(&mut frame, REQUEST_ID, TIMESTAMP, &request);
        if name.starts_with(TIMED) {
            frame::ask_for_timings(&mut frame, 0);
        }
        text += &rendered(name, &frame);
    }
    for (name, response) in responses() {
        let mut frame = Vec::new();
        encoder.response(&mut frame, REQUEST_ID, TIMESTAMP, &response);
        if name.starts_with(TIMED) {
            frame::insert_timings(&mut frame, 0, &TIMINGS);
        }
        text += &rendered(name, &frame);
    }
    let golden = include_str!("golden.txt");
    assert!(
        text == golden,
        "the frames differ from wire/tests/golden.txt; they are now:\n{text}"
    );
}

/// The frames in the file, read without the encoder.
fn golden_frames() -> Vec<(String, Vec<u8>)> {
    let mut frames: Vec<(String, Vec<u8>)> = Vec::new();
    for line in include_str!("golden.txt").lines() {
        if let Some(name) = line.strip_prefix("# ") {
            frames.push((name.to_owned(), Vec::new()));
        } else {
            let (_, frame) = frames.last_mut().expect("the file starts with a name");
            let bytes = line.split_whitespace().skip(1);
            frame.extend(bytes.map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits")));
        }
    }
    frames
}

#[test]
fn frames_of_the_file_mean_what_they_always_meant() {
    let mut kinds = Vec::new();
    for (name, bytes) in golden_frames() {
        let (header, body) = frame::decode(&bytes, BODY_BYTES_MAX)
            .expect("good")
            .expect("whole");
        assert_eq!(
            (header.request_id, header.timestamp),
            (REQUEST_ID, TIMESTAMP),
            "{name}"
        );
        assert_eq!(header.frame_bytes(), bytes.len(), "{name}");
        assert_eq!(header.timings, name.starts_with(TIMED), "{name}");
        if let Some((_, request)) = requests().into_iter().find(|(other, _)| *other == name) {
            assert_eq!(Request::decode(header.kind, body), Ok(request), "{name}");
        } else {
            let response = responses().into_iter().find(|(other, _)| *other == name);
            let (_, response) = response.expect("each name in the file is of a message here");
            let (timings, body) = frame::split_timings(&header, body).expect("room for the timings");
            assert_eq!(timings, header.timings.then_some(TIMINGS), "{name}");
            assert_eq!(Response::decode(header.kind, body), Ok(response), "{name}");
        }
        kinds.push(Kind::try_from(header.kind).expect("a known kind"));
    }
    for kind in Kind::ALL {
        assert!(kinds.contains(&kind), "the file has no {kind}");
    }
}
