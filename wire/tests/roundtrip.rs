//! Whatever is encoded decodes to the same, whatever bytes arrive never panic, and damage is noticed.

mod common;

use ostrakon_wire::frame::{self, FrameError, HEADER_BYTES};
use ostrakon_wire::limits::BODY_BYTES_MAX;
use ostrakon_wire::message::{Kind, Request, Response};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

fn check_request(request: &Request<'_>, frame: &[u8]) {
    let (header, body) = frame::decode(frame, BODY_BYTES_MAX)
        .expect("good")
        .expect("whole");
    assert_eq!(header.kind, request.kind() as u16);
    assert_eq!(Request::decode(header.kind, body).as_ref(), Ok(request));
    assert_eq!(&Request::decode_trusted(header.kind, body), request);
    assert!(
        Response::decode(header.kind, body).is_err(),
        "a request was taken for a response"
    );
}

fn check_response(response: &Response<'_>, frame: &[u8]) {
    let (header, body) = frame::decode(frame, BODY_BYTES_MAX)
        .expect("good")
        .expect("whole");
    assert_eq!(Response::decode(header.kind, body).as_ref(), Ok(response));
    assert!(
        Request::decode(header.kind, body).is_err(),
        "a response was taken for a request"
    );
}

/// Reads a body as every kind there is. What comes out is read to its end.
fn decode_as_all_kinds(body: &[u8]) {
    for kind in Kind::ALL {
        if let Ok(request) = Request::decode(kind as u16, body) {
            assert_eq!(request.check(), Ok(()));
            assert_eq!(Request::decode_trusted(kind as u16, body), request);
            let elements = match request {
                Request::MultiGet { keys } => (keys.iter().count(), keys.len()),
                Request::MultiPut { entries, .. } => (entries.iter().count(), entries.len()),
                Request::Batch { operations, .. } => (operations.iter().count(), operations.len()),
                _ => (0, 0),
            };
            assert_eq!(elements.0, elements.1);
        }
        match Response::decode(kind as u16, body) {
            Ok(Response::Scan(page)) => assert_eq!(page.entries.iter().count(), page.entries.len()),
            Ok(Response::MultiGet { values }) => assert_eq!(values.iter().count(), values.len()),
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn requests_come_back(_ in common::request(check_request)) {}

    #[test]
    fn responses_come_back(_ in common::response(check_response)) {}

    #[test]
    fn header_comes_back(kind: u16, request_id: u64, timestamp: u64, body in vec(any::<u8>(), 0..50)) {
        let mut out = Vec::new();
        frame::append(&mut out, kind, request_id, timestamp, &body);
        prop_assert_eq!(frame::frame_bytes(&out), Some(out.len()));
        let (header, decoded) = frame::decode(&out, 50).expect("good").expect("whole");
        prop_assert_eq!((header.kind, header.request_id, header.timestamp), (kind, request_id, timestamp));
        prop_assert_eq!(decoded, &body[..]);
        prop_assert_eq!(header.frame_bytes(), out.len());
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = frame::decode(&bytes, 100);
        decode_as_all_kinds(&bytes);
    }

    #[test]
    fn small_numbers_never_panic(words in vec(0..40_u16, 0..60)) {
        // Small numbers are plausible offsets and lengths, so these get deeper into the verifier than random
        // bytes.
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        decode_as_all_kinds(&bytes);
    }

    #[test]
    fn mutated_bodies_never_panic(
        sample in common::any_frame(),
        mutations in vec((any::<Index>(), prop_oneof![any::<u8>(), 0..48_u8]), 1..4),
        cut in any::<Index>(),
    ) {
        let mut body = sample.frame[HEADER_BYTES..].to_vec();
        if !body.is_empty() {
            for (index, byte) in &mutations {
                let at = index.index(body.len());
                body[at] = *byte;
            }
            decode_as_all_kinds(&body);
            decode_as_all_kinds(&body[..cut.index(body.len())]);
        }
    }

    #[test]
    fn a_changed_byte_is_noticed(sample in common::any_frame(), index: Index, flip in 1..=u8::MAX) {
        let mut frame = sample.frame;
        let at = index.index(frame.len());
        frame[at] ^= flip;
        // In the length field a change can also make the frame look unfinished, or too long.
        match frame::decode(&frame, BODY_BYTES_MAX) {
            Ok(None) | Err(FrameError::TooLarge { .. }) => prop_assert!(at < 4),
            Err(FrameError::Checksum { .. }) => {}
            other => prop_assert!(false, "byte {at} was changed, and yet: {other:?}"),
        }
    }

    #[test]
    fn a_frame_is_whole_only_with_its_last_byte(sample in common::any_frame()) {
        let frame = sample.frame;
        for end in 0..frame.len() {
            prop_assert_eq!(frame::decode(&frame[..end], BODY_BYTES_MAX), Ok(None));
        }
        prop_assert!(matches!(frame::decode(&frame, BODY_BYTES_MAX), Ok(Some(_))));
    }
}
