//! One frame of each kind, byte for byte, against `golden.txt`: what version 1 of the protocol looks like on
//! the wire.
//!
//! A difference means that old clients and new servers no longer understand each other. If that is wanted,
//! the protocol needs a new version; if only an encoder's choice changed (both readers accept both), put the
//! new bytes into the file.

use std::fmt::Write;

use ostrakon_wire::ClusterId;
use ostrakon_wire::frame;
use ostrakon_wire::limits::BODY_BYTES_MAX;
use ostrakon_wire::message::{
    Condition, Encoder, ErrorCode, ErrorReply, Hello, HelloReply, Kind, Request, Response, ScanEntry,
    ScanReply, ScanRequest, TopologyReply,
};

const REQUEST_ID: u64 = 0x0102_0304_0506_0708;
const TIMESTAMP: u64 = 0x1112_1314_1516_1718;
const CLUSTER_ID: ClusterId = ClusterId {
    high: 0xA1A2_A3A4_A5A6_A7A8,
    low: 0xB1B2_B3B4_B5B6_B7B8,
};

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
}

const ENTRIES: [ScanEntry<'static>; 2] = [
    ScanEntry {
        key: b"key 1",
        value: b"value",
        version: 0x4142_4344_4546_4748,
    },
    ScanEntry {
        key: b"key 2",
        value: b"",
        version: 0x5152_5354_5556_5758,
    },
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
        (
            "get reply",
            Response::Get {
                found: Some((0x4142_4344_4546_4748, b"value")),
            },
        ),
        ("get reply, not found", Response::Get { found: None }),
        (
            "write reply",
            Response::Write {
                applied: true,
                version: 0x4142_4344_4546_4748,
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
        text += &rendered(name, &frame);
    }
    for (name, response) in responses() {
        let mut frame = Vec::new();
        encoder.response(&mut frame, REQUEST_ID, TIMESTAMP, &response);
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
        if let Some((_, request)) = requests().into_iter().find(|(other, _)| *other == name) {
            assert_eq!(Request::decode(header.kind, body), Ok(request), "{name}");
        } else {
            let response = responses().into_iter().find(|(other, _)| *other == name);
            let (_, response) = response.expect("each name in the file is of a message here");
            assert_eq!(Response::decode(header.kind, body), Ok(response), "{name}");
        }
        kinds.push(Kind::try_from(header.kind).expect("a known kind"));
    }
    for kind in Kind::ALL {
        assert!(kinds.contains(&kind), "the file has no {kind}");
    }
}
