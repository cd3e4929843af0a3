//! The bounds of the protocol, each from both sides, and the numbers that never change.

use ostrakon_wire::frame::{self, FrameError, HEADER_BYTES};
use ostrakon_wire::limits::{
    BODY_BYTES_MAX, FRAME_BYTES_MAX, KEY_BYTES_MAX, SCAN_BOUND_BYTES_MAX, SCAN_LIMIT_MAX, VALUE_BYTES_MAX,
};
use ostrakon_wire::message::{
    Condition, DecodeError, Encoder, ErrorCode, Kind, Request, Response, ScanRequest,
};
use ostrakon_wire::routing::{ShardId, key_hash, routing_key, shard_of};

/// Encodes without checking, as a faulty client would, and decodes.
fn received(request: &Request<'_>) -> Result<(), DecodeError> {
    let mut frame = Vec::new();
    Encoder::new().request(&mut frame, 1, 0, request);
    let (header, body) = frame::decode(&frame, BODY_BYTES_MAX)
        .expect("good")
        .expect("whole");
    let decoded = Request::decode(header.kind, body).map(drop);
    assert_eq!(request.check(), decoded, "sender and receiver disagree");
    decoded
}

#[test]
fn keys_have_a_shortest_and_a_longest_length() {
    let longest = vec![7; KEY_BYTES_MAX];
    let too_long = vec![7; KEY_BYTES_MAX + 1];
    let (value, condition) = (&b"v"[..], Condition::None);
    for (key, expected) in [
        (&b"k"[..], Ok(())),
        (&longest, Ok(())),
        (
            &too_long,
            Err(DecodeError::KeyTooLarge {
                bytes: KEY_BYTES_MAX + 1,
            }),
        ),
        (b"", Err(DecodeError::KeyEmpty)),
    ] {
        assert_eq!(received(&Request::Get { key }), expected);
        assert_eq!(received(&Request::put(key, value, condition)), expected);
        assert_eq!(received(&Request::delete(key, condition)), expected);
    }
}

#[test]
fn values_have_a_longest_length() {
    for (bytes, expected) in [
        (0, Ok(())),
        (VALUE_BYTES_MAX, Ok(())),
        (
            VALUE_BYTES_MAX + 1,
            Err(DecodeError::ValueTooLarge {
                bytes: VALUE_BYTES_MAX + 1,
            }),
        ),
    ] {
        let value = vec![0; bytes];
        assert_eq!(received(&Request::put(b"k", &value, Condition::None)), expected);
    }
    let mut frame = Vec::new();
    Encoder::new().get_reply(&mut frame, 1, 0, Some((1, &vec![0; VALUE_BYTES_MAX + 1])));
    let decoded = Response::decode(Kind::GetReply as u16, &frame[HEADER_BYTES..]);
    assert_eq!(
        decoded,
        Err(DecodeError::ValueTooLarge {
            bytes: VALUE_BYTES_MAX + 1
        })
    );
}

#[test]
fn scans_have_bounds_of_their_own() {
    let scan = |start: &[u8], end: Option<&[u8]>, limit: u32| {
        received(&Request::Scan(ScanRequest {
            start,
            end,
            limit,
            snapshot: 0,
            keys_only: false,
        }))
    };
    let longest = vec![7; SCAN_BOUND_BYTES_MAX];
    let too_long = vec![7; SCAN_BOUND_BYTES_MAX + 1];
    let refused = Err(DecodeError::ScanBoundTooLarge {
        bytes: SCAN_BOUND_BYTES_MAX + 1,
    });
    assert_eq!(scan(&longest, Some(&longest), SCAN_LIMIT_MAX), Ok(()));
    assert_eq!(scan(&too_long, None, 0), refused);
    assert_eq!(scan(b"", Some(&too_long), 0), refused);
    assert_eq!(
        scan(b"", None, SCAN_LIMIT_MAX + 1),
        Err(DecodeError::ScanLimit {
            limit: SCAN_LIMIT_MAX + 1
        })
    );
}

#[test]
fn a_long_frame_is_refused_by_its_first_four_bytes() {
    let announced = 101_u32.to_le_bytes();
    assert_eq!(
        frame::decode(&announced, 100),
        Err(FrameError::TooLarge {
            body_bytes: 101,
            max_body_bytes: 100
        })
    );
    assert_eq!(frame::decode(&announced, 101), Ok(None));
    assert_eq!(frame::decode(&announced[..3], 100), Ok(None));
    assert_eq!(frame::frame_bytes(&announced), Some(HEADER_BYTES + 101));
    assert_eq!(frame::frame_bytes(&announced[..3]), None);
    assert_eq!(BODY_BYTES_MAX + HEADER_BYTES, FRAME_BYTES_MAX);
}

/// A ping's frame with a changed header whose checksum is right again.
fn changed_ping(at: usize, byte: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    Encoder::new().request(&mut frame, 1, 0, &Request::Ping);
    frame[at] = byte;
    let checksum = crc32c::crc32c(&frame[8..]);
    frame[4..8].copy_from_slice(&checksum.to_le_bytes());
    frame
}

#[test]
fn flags_and_reserved_bytes_are_refused() {
    assert_eq!(
        frame::decode(&changed_ping(26, 4), 0),
        Err(FrameError::Flags { found: 4 })
    );
    assert_eq!(
        frame::decode(&changed_ping(29, 1), 0),
        Err(FrameError::Reserved { found: 256 })
    );
    // The same change to a byte that means something is accepted, so it was not the checksum that spoke
    // above.
    assert!(matches!(frame::decode(&changed_ping(8, 9), 0), Ok(Some((header, _))) if header.request_id == 9));
}

#[test]
fn numbers_of_kinds_come_back() {
    for number in 0..=u16::MAX {
        match Kind::try_from(number) {
            Ok(kind) => assert_eq!(kind as u16, number),
            Err(error) => assert_eq!(error, DecodeError::UnknownKind { kind: number }),
        }
    }
    for kind in Kind::ALL {
        assert_eq!(Kind::try_from(kind as u16), Ok(kind));
        let answers: Vec<Kind> = Kind::ALL
            .into_iter()
            .filter(|&other| kind.is_answered_by(other))
            .collect();
        if kind.is_response() {
            assert_eq!(answers, []);
        } else {
            assert_eq!(answers.len(), 2, "{kind} is answered by {answers:?}");
            assert!(answers.contains(&Kind::Error));
        }
    }
    assert!(Kind::Put.is_answered_by(Kind::WriteReply) && Kind::Delete.is_answered_by(Kind::WriteReply));
}

#[test]
fn numbers_of_error_codes_come_back() {
    for number in 0..=u16::MAX {
        let code = ErrorCode::from(number);
        assert_eq!(code.number(), number);
        assert_eq!(matches!(code, ErrorCode::Other(_)), !(1..=13).contains(&number));
    }
}

#[test]
fn the_routing_key_is_the_first_tag_that_is_not_empty() {
    for (key, expected) in [
        (&b"plain"[..], &b"plain"[..]),
        (b"{user:7}/name", b"user:7"),
        (b"a{b}c{d}", b"b"),
        (b"a{{b}}", b"{b"),
        (b"a}{b}", b"b"),
        (b"{}{b}", b"{}{b}"),
        (b"open{tag", b"open{tag"),
        (b"}{", b"}{"),
        (b"", b""),
    ] {
        assert_eq!(routing_key(key), expected, "{}", key.escape_ascii());
    }
    assert_eq!(key_hash(b"{user:7}/name"), key_hash(b"user:7"));
}

#[test]
fn hashes_never_change() {
    // The first is a published test value of xxh3-64 with seed 0.
    assert_eq!(key_hash(b""), 0x2D06_8005_38D3_94C2);
    assert_eq!(key_hash(b"user:7"), 0x0067_B227_F59E_E6B4);
}

#[test]
fn shards_are_equal_ranges_in_order() {
    for (hash, shards, expected) in [
        (0, 1, 0),
        (u64::MAX, 1, 0),
        ((1 << 63) - 1, 2, 0),
        (1 << 63, 2, 1),
        (u64::MAX, 8, 7),
        (3 << 61, 8, 3),
        (u64::MAX, 65_536, 65_535),
        ((1 << 48) - 1, 65_536, 0),
        (1 << 48, 65_536, 1),
    ] {
        assert_eq!(
            shard_of(hash, shards),
            ShardId(expected),
            "hash {hash:#x}, {shards} shards"
        );
    }
}

#[test]
#[should_panic(expected = "not a power of two")]
fn twelve_shards_cannot_exist() {
    shard_of(0, 12);
}
