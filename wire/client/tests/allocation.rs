//! Once warm, gets and puts allocate nothing: every allocation of a test's thread is counted.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::hello_reply;
use ostrakon_client::{Condition, Options, Protocol, Request, RequestId, Response};
use ostrakon_wire::message::{Encoder, Found};

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
