//! Once warm, gets and puts allocate nothing: every allocation of a test's thread is counted.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::hello_reply;
use ostrakon_client::{
    CallOptions, Condition, ConnectionId, Duty, Options, Protocol, Request, RequestId, Response, Session,
};
use ostrakon_wire::frame;
use ostrakon_wire::limits::BODY_BYTES_MAX;
use ostrakon_wire::message::{Encoder, Found, Kind};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: all work is done by the system's allocator; counting touches only a thread-local that needs no
// allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const VALUE: Found<'static> = Found {
    version: 1,
    expires: 0,
    value: &[7; 100],
};

/// One round of the pipelined hot path: a batch of gets and puts, all answered.
fn round(protocol: &mut Protocol, encoder: &mut Encoder, wire: &mut Vec<u8>) {
    const BATCH: usize = 32;
    wire.clear();
    for number in 0..BATCH {
        let is_get = number % 2 == 0;
        let request = if is_get {
            Request::Get { key: b"a key" }
        } else {
            Request::put(b"a key", &[7; 100], Condition::None)
        };
        let id: RequestId = protocol.submit(&request).expect("room");
        if is_get {
            encoder.get_reply(wire, id.number(), 9, Some(VALUE));
        } else {
            encoder.write_reply(wire, id.number(), 9, true, 1);
        }
    }
    protocol.sent(protocol.bytes_to_send().len());
    protocol.receive(wire);
    let mut answered = 0;
    while let Some((_, response)) = protocol.next_response().expect("a good server") {
        assert!(matches!(
            response,
            Response::Get { found: Some(_) } | Response::Write { applied: true, .. }
        ));
        answered += 1;
    }
    assert_eq!(answered, BATCH);
}

#[test]
fn a_driver_that_never_sends_everything_does_not_make_the_buffer_grow() {
    let mut protocol = Protocol::new(&Options::default()).expect("good options");
    protocol.receive(&common::response_frame(0, 0, &Response::Hello(hello_reply(10))));
    assert_eq!(protocol.next_response(), Ok(None));
    let (mut encoder, mut wire) = (Encoder::new(), Vec::new());
    let mut exchange = |bytes: usize| {
        let put = Request::put(b"a key", &[7; 5_000][..bytes], Condition::None);
        let id = protocol.submit(&put).expect("room");
        protocol.sent(protocol.bytes_to_send().len() - 1);
        wire.clear();
        encoder.write_reply(&mut wire, id.number(), 9, true, 1);
        protocol.receive(&wire);
        assert!(matches!(protocol.next_response(), Ok(Some(_))));
    };
    (0..200).for_each(|_| exchange(5_000));
    let before = ALLOCATIONS.get();
    (0..2_000).for_each(|number| exchange(number % 5_000));
    assert_eq!(ALLOCATIONS.get() - before, 0);
}

#[test]
fn the_hot_path_does_not_allocate() {
    let mut protocol = Protocol::new(&Options::default()).expect("good options");
    protocol.sent(protocol.bytes_to_send().len());
    protocol.receive(&common::response_frame(0, 0, &Response::Hello(hello_reply(100))));
    assert_eq!(protocol.next_response(), Ok(None));
    let (mut encoder, mut wire) = (Encoder::new(), Vec::new());
    round(&mut protocol, &mut encoder, &mut wire);

    let before = ALLOCATIONS.get();
    for _ in 0..100 {
        round(&mut protocol, &mut encoder, &mut wire);
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    drop(vec![0; 100]);
    assert_eq!(ALLOCATIONS.get() - before, 1, "the counter counts");
}

/// As [`round`], of a session with one connection.
fn session_round(
    session: &mut Session,
    now_ns: u64,
    id: ConnectionId,
    encoder: &mut Encoder,
    wire: &mut Vec<u8>,
) {
    const BATCH: usize = 32;
    let options = CallOptions {
        timeout_ms: 1_000,
        timings: false,
    };
    for number in 0..BATCH {
        let request = if number % 2 == 0 {
            Request::Get { key: b"a key" }
        } else {
            Request::put(b"a key", &[7; 100], Condition::None)
        };
        session.submit(now_ns, &request, options).expect("room");
    }
    wire.clear();
    let mut rest = session.bytes_to_send(id);
    while let Some((header, _)) = frame::decode(rest, BODY_BYTES_MAX).expect("good frames") {
        if header.kind == Kind::Get as u16 {
            encoder.get_reply(wire, header.request_id, 9, Some(VALUE));
        } else {
            encoder.write_reply(wire, header.request_id, 9, true, 1);
        }
        rest = &rest[header.frame_bytes()..];
    }
    session.sent(now_ns, id, session.bytes_to_send(id).len());
    session.receive_room(id)[..wire.len()].copy_from_slice(wire);
    session.received(now_ns, id, wire.len());
    let mut ended = 0;
    while let Some(finished) = session.next_finished(now_ns) {
        assert!(finished.result.is_ok());
        ended += 1;
    }
    assert_eq!(ended, BATCH);
    session.tick(now_ns);
    assert!(session.next_timeout_ns().is_none());
}

#[test]
fn the_hot_path_of_a_session_does_not_allocate() {
    let options = Options {
        core: Some(2),
        ..Options::default()
    };
    let mut session = Session::new(&options, vec!["a:1".to_owned()], 1, 1).expect("good options");
    session.open(0);
    let Some(Duty::Connect { connection, .. }) = session.next_duty() else {
        panic!("a connection is asked for")
    };
    session.connected(0, connection);
    session.sent(0, connection, session.bytes_to_send(connection).len());
    let hello = common::response_frame(0, 7 << 12, &Response::Hello(hello_reply(100)));
    session.receive_room(connection)[..hello.len()].copy_from_slice(&hello);
    session.received(0, connection, hello.len());
    assert!(session.next_finished(0).is_none() && session.is_connected());

    let (mut encoder, mut wire) = (Encoder::new(), Vec::new());
    let mut rounds = |from: u64, to: u64| {
        for number in from..to {
            session_round(&mut session, number * 1_000, connection, &mut encoder, &mut wire);
        }
    };
    rounds(0, 20);
    let before = ALLOCATIONS.get();
    rounds(20, 200);
    assert_eq!(ALLOCATIONS.get() - before, 0);
}
