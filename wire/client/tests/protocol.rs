//! The state machine without any IO: frames cut anywhere, answers in any order, servers that break the rules.

#[path = "common/answers.rs"]
mod answers;
mod common;

use answers::found;
use common::{CLUSTER_ID, hello_reply, response_frame};
use ostrakon_client::{
    ClusterId, Condition, ErrorCode, Kind, Options, Protocol, ProtocolError, Request, RequestId, Response,
    StageTimings, SubmitError,
};
use ostrakon_wire::frame::{self, FrameHeader, HEADER_BYTES};
use ostrakon_wire::limits::{BODY_BYTES_MAX, KEY_BYTES_MAX};
use ostrakon_wire::message::{DecodeError, ErrorReply, HelloReply, PUSHED_KINDS, ScanEntry, ScanReply};
use proptest::collection::vec;
use proptest::prelude::*;

fn new_protocol() -> Protocol {
    Protocol::new(&Options::default()).expect("the default options are good")
}

/// A protocol whose hello was sent and answered.
fn ready(requests_in_flight_max: u32) -> Protocol {
    greeted(&hello_reply(requests_in_flight_max))
}

fn greeted(reply: &HelloReply<'_>) -> Protocol {
    let mut protocol = new_protocol();
    protocol.sent(protocol.bytes_to_send().len());
    protocol.receive(&response_frame(0, 0, &Response::Hello(*reply)));
    assert_eq!(protocol.next_response(), Ok(None));
    assert!(protocol.server().is_some());
    protocol
}

/// Takes the frames that are to be sent.
fn take_sent(protocol: &mut Protocol) -> Vec<(FrameHeader, Vec<u8>)> {
    let bytes = protocol.bytes_to_send().to_vec();
    protocol.sent(bytes.len());
    let (mut frames, mut rest) = (Vec::new(), &bytes[..]);
    while let Some((header, body)) = frame::decode(rest, BODY_BYTES_MAX).expect("good frames") {
        frames.push((header, body.to_vec()));
        rest = &rest[header.frame_bytes()..];
    }
    assert!(rest.is_empty(), "half a frame was to be sent");
    frames
}

fn write_reply(id: RequestId, version: u64) -> Vec<u8> {
    response_frame(
        id.number(),
        0,
        &Response::Write {
            applied: true,
            version,
        },
    )
}

#[test]
fn the_hello_comes_first_and_says_what_was_chosen() {
    let options = Options {
        core: Some(3),
        cluster_id: CLUSTER_ID,
        ..Options::default()
    };
    let mut protocol = Protocol::new(&options).expect("good options");
    assert_eq!(protocol.submit(&Request::Ping), Err(SubmitError::NotReady));

    let sent = take_sent(&mut protocol);
    let [(header, body)] = &sent[..] else {
        panic!("one frame, not {}", sent.len())
    };
    assert_eq!((header.request_id, header.timestamp), (0, 0));
    let Ok(Request::Hello(hello)) = Request::decode(header.kind, body) else {
        panic!("no hello")
    };
    assert_eq!((hello.version_min, hello.version_max), (1, 1));
    assert_eq!((hello.core, hello.cluster_id), (Some(3), CLUSTER_ID));
    assert!(hello.client.starts_with("ostrakon-client/"));

    protocol.receive(&response_frame(0, 0, &Response::Hello(hello_reply(10))));
    assert_eq!(protocol.next_response(), Ok(None));
    let server = protocol.server().expect("answered");
    assert_eq!(
        (server.node_id, server.core, server.cores, server.shards),
        (5, 2, 4, 16)
    );
    assert_eq!(
        (server.name.as_str(), server.requests_in_flight_max),
        ("fake/1", 10)
    );

    let long_name = Options {
        client: "x".repeat(129),
        ..Options::default()
    };
    assert!(matches!(Protocol::new(&long_name), Err(SubmitError::Invalid(_))));
}

/// Requests of a fixed conversation, in the order in which they are submitted.
const REQUESTS: [Request<'static>; 5] = [
    Request::Get { key: b"key" },
    Request::Put {
        key: b"key",
        value: b"value",
        condition: Condition::Absent,
        ttl_ms: 0,
        retry: None,
    },
    Request::Ping,
    Request::Status,
    Request::Scan(ostrakon_client::ScanRequest::ALL),
];

/// The hello's answer, then an answer to each request, last request first.
fn conversation(ids: &[RequestId]) -> (Vec<u8>, Vec<(RequestId, String)>) {
    let entries = [
        ScanEntry {
            key: b"a",
            value: b"1",
            version: 3,
            expires: 0,
        },
        ScanEntry {
            key: b"b",
            value: b"",
            version: 4,
            expires: 0,
        },
    ];
    let answers = [
        found(9, b"value"),
        Response::Write {
            applied: false,
            version: 9,
        },
        Response::Pong,
        Response::Error(ErrorReply {
            code: ErrorCode::Busy,
            message: "busy",
            retry_after_ms: 7,
        }),
        Response::Scan(ScanReply {
            snapshot: 8,
            entries: entries[..].into(),
            resume_key: Some(b"c"),
        }),
    ];
    let mut bytes = response_frame(0, 1, &Response::Hello(hello_reply(10)));
    let mut expected = Vec::new();
    for (id, answer) in ids.iter().zip(&answers).rev() {
        bytes.extend(response_frame(id.number(), 1, answer));
        expected.push((*id, format!("{:?}", shown(answer))));
    }
    (bytes, expected)
}

/// A response as text, the same before and after its way over the wire.
fn shown(response: &Response<'_>) -> String {
    match response {
        Response::Scan(page) => {
            let entries: Vec<ScanEntry<'_>> = page.entries.iter().collect();
            format!("{} {entries:?} {:?}", page.snapshot, page.resume_key)
        }
        other => format!("{other:?}"),
    }
}

fn take_responses(protocol: &mut Protocol, responses: &mut Vec<(RequestId, String)>) {
    while let Some((id, response)) = protocol.next_response().expect("a good server") {
        responses.push((id, format!("{:?}", shown(&response))));
    }
}

/// Ids are given out in a fixed order, so they are known before.
fn known_ids() -> Vec<RequestId> {
    let mut protocol = ready(10);
    REQUESTS
        .iter()
        .map(|request| protocol.submit(request).expect("room for all"))
        .collect()
}

/// Has the conversation with received bytes in these pieces, and returns the responses.
fn converse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<(RequestId, String)> {
    let mut protocol = new_protocol();
    let mut responses = Vec::new();
    let mut submitted = false;
    for piece in pieces {
        protocol.receive(piece);
        if !submitted {
            assert_eq!(
                protocol.next_response().map(|response| response.is_some()),
                Ok(false)
            );
            if protocol.server().is_some() {
                for request in &REQUESTS {
                    protocol.submit(request).expect("room for all");
                }
                submitted = true;
            }
        }
        take_responses(&mut protocol, &mut responses);
    }
    assert_eq!(protocol.requests_in_flight(), 0);
    responses
}

#[test]
fn frames_may_be_cut_at_every_byte() {
    let (bytes, expected) = conversation(&known_ids());
    let hello_bytes = frame::frame_bytes(&bytes).expect("a length");
    assert_eq!(converse(bytes.chunks(1)), expected);
    // The requests can only go out after the hello's answer, so that is one cut, and the other is anywhere.
    for cut in 0..bytes.len() {
        let (first, second) = (cut.min(hello_bytes), cut.max(hello_bytes));
        let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
        assert_eq!(converse(pieces), expected, "cut at byte {cut}");
    }
}

proptest! {
    #[test]
    fn frames_may_be_cut_anywhere(lengths in vec(1..90_usize, 1..40)) {
        let (bytes, expected) = conversation(&known_ids());
        let hello_bytes = frame::frame_bytes(&bytes).expect("a length");
        let mut pieces = vec![&bytes[..hello_bytes]];
        let mut rest = &bytes[hello_bytes..];
        for length in lengths {
            let (piece, after) = rest.split_at(length.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        prop_assert_eq!(converse(pieces), expected);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300), greeted: bool) {
        let mut protocol = if greeted { ready(4) } else { new_protocol() };
        protocol.receive(&bytes);
        let first = protocol.next_response().map(|response| response.is_some());
        let second = protocol.next_response().map(|response| response.is_some());
        prop_assert!(first.is_ok() || first == second, "a failure must stay");
    }

    #[test]
    fn sent_requests_are_counted_by_whole_frames(cuts in vec(1..120_usize, 1..30)) {
        let mut protocol = ready(100);
        let mut ends = Vec::new();
        for number in 0..12_usize {
            let key = vec![7; 1 + 3 * number];
            protocol.submit(&Request::Get { key: &key }).expect("room");
            ends.push(protocol.bytes_to_send().len());
        }
        let mut sent = 0;
        for cut in cuts {
            let count = cut.min(protocol.bytes_to_send().len());
            protocol.sent(count);
            sent += count;
            let whole = ends.iter().filter(|&&end| end <= sent).count();
            prop_assert_eq!(protocol.requests_sent_in_flight(), whole);
        }
    }
}

#[test]
fn the_highest_timestamp_seen_goes_out_again() {
    let mut protocol = ready(10);
    let first = protocol.submit(&Request::Ping).expect("room");
    let second = protocol.submit(&Request::Ping).expect("room");
    assert_eq!(take_sent(&mut protocol)[0].0.timestamp, 0);
    protocol.receive(&response_frame(second.number(), 500, &Response::Pong));
    protocol.receive(&response_frame(first.number(), 400, &Response::Pong));
    let mut responses = Vec::new();
    take_responses(&mut protocol, &mut responses);
    protocol.submit(&Request::Ping).expect("room");
    assert_eq!(take_sent(&mut protocol)[0].0.timestamp, 500);

    protocol.observe_timestamp(450);
    assert_eq!(protocol.timestamp(), 500);
    protocol.observe_timestamp(600);
    protocol.submit(&Request::Ping).expect("room");
    assert_eq!(take_sent(&mut protocol)[0].0.timestamp, 600);
}

#[test]
fn what_cannot_be_sent_is_refused_and_leaves_no_trace() {
    let mut protocol = ready(2);
    let long_key = vec![7; KEY_BYTES_MAX + 1];
    let too_long = SubmitError::Invalid(DecodeError::KeyTooLarge {
        bytes: KEY_BYTES_MAX + 1,
    });
    assert_eq!(protocol.submit(&Request::Get { key: &long_key }), Err(too_long));
    let hello = ostrakon_wire::message::Hello {
        version_min: 1,
        version_max: 1,
        cluster_id: CLUSTER_ID,
        core: None,
        client: "",
    };
    assert_eq!(protocol.submit(&Request::Hello(hello)), Err(SubmitError::Hello));
    assert!(protocol.bytes_to_send().is_empty());

    protocol.submit(&Request::Ping).expect("room");
    protocol.submit(&Request::Ping).expect("room");
    let full = SubmitError::TooManyInFlight {
        requests_in_flight_max: 2,
    };
    assert_eq!(protocol.submit(&Request::Ping), Err(full));
    assert_eq!(take_sent(&mut protocol).len(), 2);

    let mut narrow = greeted(&HelloReply {
        frame_bytes_max: 100,
        ..hello_reply(10)
    });
    let put = |value| Request::put(b"key", value, Condition::None);
    let refused = narrow.submit(&put(&[0; 100]));
    assert!(
        matches!(
            refused,
            Err(SubmitError::FrameTooLarge {
                frame_bytes_max: 100,
                ..
            })
        ),
        "{refused:?}"
    );
    assert_eq!(
        (narrow.bytes_to_send().len(), narrow.requests_in_flight()),
        (0, 0)
    );
    assert!(narrow.submit(&put(b"short")).is_ok());
}

#[test]
fn slots_are_dense_and_ids_are_new_each_time() {
    let mut protocol = ready(3);
    let mut seen = Vec::new();
    for round in 0..20 {
        let ids: Vec<RequestId> = (0..3)
            .map(|_| protocol.submit(&Request::Ping).expect("room"))
            .collect();
        let mut slots: Vec<usize> = ids.iter().map(|id| id.slot()).collect();
        slots.sort_unstable();
        assert_eq!(slots, [0, 1, 2]);
        for id in &ids {
            assert!(
                id.number() != 0 && !seen.contains(id),
                "{id:?} was given out before, in round {round}"
            );
            protocol.receive(&response_frame(id.number(), 0, &Response::Pong));
        }
        seen.extend(ids);
        take_responses(&mut protocol, &mut Vec::new());
    }
}

/// Feeds `bytes` to a protocol with an open put, and returns the failure, which must stay.
fn failure(bytes: impl FnOnce(RequestId) -> Vec<u8>) -> ProtocolError {
    let mut protocol = ready(10);
    let id = protocol
        .submit(&Request::put(b"key", b"value", Condition::None))
        .expect("room");
    protocol.receive(&bytes(id));
    let failure = loop {
        match protocol.next_response() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("no failure"),
            Err(failure) => break failure,
        }
    };
    assert_eq!(protocol.next_response(), Err(failure.clone()));
    assert_eq!(protocol.submit(&Request::Ping), Err(SubmitError::Failed));
    failure
}

#[test]
fn a_server_that_breaks_the_rules_ends_the_connection() {
    let twice = failure(|id| [write_reply(id, 1), write_reply(id, 1)].concat());
    assert!(matches!(twice, ProtocolError::UnknownRequest { .. }), "{twice:?}");
    let unknown = failure(|_| response_frame(99, 0, &Response::Pong));
    assert_eq!(unknown, ProtocolError::UnknownRequest { request_id: 99 });
    let wrong = failure(|id| response_frame(id.number(), 0, &Response::Pong));
    assert_eq!(
        wrong,
        ProtocolError::WrongResponse {
            request: Kind::Put,
            response: Kind::Pong
        }
    );
    let second_hello = failure(|_| response_frame(0, 0, &Response::Hello(hello_reply(9))));
    assert_eq!(second_hello, ProtocolError::UnknownRequest { request_id: 0 });
    let changed = failure(|id| {
        let mut frame = write_reply(id, 1);
        frame[HEADER_BYTES + 4] ^= 1;
        frame
    });
    assert!(matches!(changed, ProtocolError::Frame(_)), "{changed:?}");
    let malformed = failure(|id| {
        let mut frame = Vec::new();
        frame::append(&mut frame, Kind::WriteReply as u16, id.number(), 0, &[1, 2, 3]);
        frame
    });
    assert!(
        matches!(malformed, ProtocolError::Response(DecodeError::Malformed { .. })),
        "{malformed:?}"
    );
    let goodbye = ErrorReply {
        code: ErrorCode::ShuttingDown,
        message: "going down",
        retry_after_ms: 3,
    };
    assert_eq!(
        failure(|_| response_frame(0, 0, &Response::Error(goodbye))),
        ProtocolError::ClosedByServer {
            code: ErrorCode::ShuttingDown,
            message: "going down".to_owned(),
            retry_after_ms: 3,
        }
    );
}

#[test]
fn a_late_second_answer_does_not_answer_the_next_request_in_its_slot() {
    let mut protocol = ready(10);
    let first = protocol.submit(&Request::Ping).expect("room");
    protocol.receive(&response_frame(first.number(), 0, &Response::Pong));
    take_responses(&mut protocol, &mut Vec::new());
    let second = protocol.submit(&Request::Ping).expect("room");
    assert_eq!(first.slot(), second.slot());
    protocol.receive(&response_frame(first.number(), 0, &Response::Pong));
    let unknown = ProtocolError::UnknownRequest {
        request_id: first.number(),
    };
    assert_eq!(protocol.next_response(), Err(unknown));
}

#[test]
fn a_write_that_was_not_answered_is_listed() {
    let mut protocol = ready(10);
    let put = Request::put(b"key", b"value", Condition::None);
    let first = protocol.submit(&put).expect("room");
    let second = protocol.submit(&Request::Get { key: b"key" }).expect("room");
    let third = protocol.submit(&put).expect("room");
    protocol.receive(&write_reply(first, 1));
    take_responses(&mut protocol, &mut Vec::new());
    let mut unanswered: Vec<(RequestId, Kind)> = protocol.unanswered().collect();
    unanswered.sort_unstable_by_key(|(id, _)| *id);
    assert_eq!(unanswered, [(second, Kind::Get), (third, Kind::Put)]);
}

#[test]
fn a_bad_answer_to_the_hello_ends_the_connection() {
    let answered = |options: &Options, bytes: &[u8]| {
        let mut protocol = Protocol::new(options).expect("good options");
        protocol.receive(bytes);
        protocol.next_response().map(|response| response.is_some())
    };
    let hello = |reply: HelloReply<'_>| response_frame(0, 0, &Response::Hello(reply));
    let any = Options::default();
    assert_eq!(
        answered(
            &any,
            &hello(HelloReply {
                version: 2,
                ..hello_reply(9)
            })
        ),
        Err(ProtocolError::Version { version: 2 })
    );
    assert_eq!(
        answered(&any, &hello(hello_reply(0))),
        Err(ProtocolError::NoRequestsAllowed)
    );
    let other = ClusterId { high: 1, low: 1 };
    let wants_other = Options {
        cluster_id: other,
        ..Options::default()
    };
    let cluster = ProtocolError::Cluster {
        expected: other,
        found: CLUSTER_ID,
    };
    assert_eq!(answered(&wants_other, &hello(hello_reply(9))), Err(cluster));
    assert_eq!(
        answered(&any, &response_frame(5, 0, &Response::Pong)),
        Err(ProtocolError::UnknownRequest { request_id: 5 })
    );
    // A web server's words are no frame, and no room is made for as much as they seem to announce.
    assert!(matches!(
        answered(&any, b"HTTP/1.1 400 Bad Request\r\n"),
        Err(ProtocolError::Frame(_))
    ));
}

#[test]
fn room_is_made_for_a_big_frame_and_given_back() {
    let value = vec![7; 3_000_000];
    let mut protocol = ready(10);
    let id = protocol.submit(&Request::Get { key: b"key" }).expect("room");
    let frame = response_frame(id.number(), 0, &found(1, &value));
    protocol.receive(&frame[..100]);
    assert_eq!(protocol.next_response(), Ok(None));
    let room = protocol.receive_room();
    assert!(room.len() >= frame.len() - 100, "{} bytes of room", room.len());
    room[..frame.len() - 100].copy_from_slice(&frame[100..]);
    protocol.received(frame.len() - 100);
    assert_eq!(protocol.next_response(), Ok(Some((id, found(1, &value[..])))));
    assert!(protocol.receive_room().len() < 1_000_000);
}

#[test]
fn a_response_brings_its_timings_and_only_its_own() {
    let mut protocol = ready(10);
    let first = protocol.submit_with_timings(&Request::Ping).expect("room");
    let second = protocol.submit(&Request::Ping).expect("room");
    let asked: Vec<bool> = take_sent(&mut protocol)
        .iter()
        .map(|(header, _)| header.timings)
        .collect();
    assert_eq!(asked, [true, false]);
    let timings = StageTimings {
        queue_ns: 1,
        total_ns: 7,
        ..StageTimings::default()
    };
    let mut frame = response_frame(first.number(), 0, &Response::Pong);
    frame::insert_timings(&mut frame, 0, &timings);
    protocol.receive(&frame);
    protocol.receive(&response_frame(second.number(), 0, &Response::Pong));
    assert_eq!(protocol.next_response(), Ok(Some((first, Response::Pong))));
    assert_eq!(protocol.timings(), Some(timings));
    assert_eq!(protocol.next_response(), Ok(Some((second, Response::Pong))));
    assert_eq!(protocol.timings(), None);
}

#[test]
fn frames_of_unknown_watches_are_skipped_and_other_unknown_frames_are_not() {
    let mut protocol = ready(10);
    let id = protocol.submit(&Request::Ping).expect("room");
    let mut frames = Vec::new();
    for kind in [*PUSHED_KINDS.start(), *PUSHED_KINDS.end()] {
        frame::append(&mut frames, kind, 77, 1 << 20, b"anything");
    }
    frames.extend(response_frame(id.number(), 0, &Response::Pong));
    protocol.receive(&frames);
    assert_eq!(protocol.next_response(), Ok(Some((id, Response::Pong))));
    assert_eq!(protocol.timestamp(), 1 << 20, "skipped frames tell the time, too");

    let unknown = failure(|id| {
        let mut frame = Vec::new();
        frame::append(&mut frame, PUSHED_KINDS.start() - 1, id.number(), 0, b"");
        frame
    });
    assert!(
        matches!(unknown, ProtocolError::Response(DecodeError::UnknownKind { .. })),
        "{unknown:?}"
    );
}
