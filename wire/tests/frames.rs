//! The frame's header, bit by bit, and the numbers of kinds and codes, which never change.

use ostrakon_wire::frame::{self, FrameError, FrameHeader, HEADER_BYTES, StageTimings, TIMINGS_BYTES};
use ostrakon_wire::limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX};
use ostrakon_wire::message::{DecodeError, Encoder, ErrorCode, Kind, PUSHED_KINDS, Request};

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
fn stage_timings_are_announced_and_there() {
    let timed = changed_ping(26, 1);
    let (header, body) = frame::decode(&timed, 0).expect("good").expect("whole");
    assert!(header.timings);
    // A request only asks for them; a response that announces them has them.
    assert_eq!(Request::decode(header.kind, body), Ok(Request::Ping));
    assert_eq!(
        frame::split_timings(&header, body),
        Err(FrameError::NoTimings { body_bytes: 0 })
    );
    for bytes in [TIMINGS_BYTES - 1, TIMINGS_BYTES, TIMINGS_BYTES + 1] {
        let body = vec![7; bytes];
        let header = FrameHeader {
            body_bytes: bytes as u32,
            ..header
        };
        let split = frame::split_timings(&header, &body);
        assert_eq!(split.is_ok(), bytes >= TIMINGS_BYTES, "{bytes} bytes: {split:?}");
    }
}

#[test]
fn stage_timings_can_be_changed_on_their_way() {
    let mut frame = Vec::new();
    Encoder::new().write_reply(&mut frame, 7, 8, true, 9);
    let (_, plain) = frame::decode(&frame, BODY_BYTES_MAX)
        .expect("good")
        .expect("whole");
    let plain = plain.to_vec();
    frame::insert_timings(&mut frame, 0, &StageTimings::default());
    frame::change_timings(&mut frame, |timings| timings.hop_ns = 77);
    let (header, body) = frame::decode(&frame, BODY_BYTES_MAX)
        .expect("good")
        .expect("whole");
    let expected = StageTimings {
        hop_ns: 77,
        ..StageTimings::default()
    };
    assert_eq!(
        frame::split_timings(&header, body),
        Ok((Some(expected), &plain[..]))
    );
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
    for kind in Kind::ALL {
        let is_pushed = kind != Kind::Error && PUSHED_KINDS.contains(&(kind as u16));
        assert!(
            !is_pushed,
            "{kind} has a number of those that are reserved for pushed frames"
        );
    }
    let writes = Kind::ALL.into_iter().filter(|kind| kind.is_write());
    let expected = [
        Kind::Put,
        Kind::Delete,
        Kind::Add,
        Kind::MultiPut,
        Kind::Batch,
        Kind::DeleteRange,
    ];
    assert!(writes.eq(expected), "exactly these can change data");
    assert!(Kind::Put.is_answered_by(Kind::WriteReply) && Kind::Delete.is_answered_by(Kind::WriteReply));
}

#[test]
fn numbers_of_error_codes_come_back() {
    for number in 0..=u16::MAX {
        let code = ErrorCode::from(number);
        assert_eq!(code.number(), number);
        assert_eq!(matches!(code, ErrorCode::Other(_)), !(1..=22).contains(&number));
    }
}
