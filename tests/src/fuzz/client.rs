//! The client's side of a connection, against a server that sends anything in any pieces.

use ostrakon_client::{Options, Protocol, Request};
use ostrakon_wire::frame;
use ostrakon_wire::message::Condition;

/// A connection as a script. Each step is a byte that chooses, and what it needs:
///
/// - 0: the length of a piece (one byte) and the piece, received as it is;
/// - 1: kind (two bytes, little-endian), flags, request id, length (one byte each) and a body, received as a frame
///   whose checksum is right;
/// - 2 to 5: a request is submitted;
/// - 6: some of what is to be sent was sent.
pub fn connection(data: &[u8]) {
    let mut protocol = Protocol::new(&Options::default()).expect("the default options are valid");
    let mut script = data;
    while let Some(step) = take(&mut script) {
        match step % 7 {
            0 => {
                let length = take(&mut script).unwrap_or_default();
                protocol.receive(piece(&mut script, length));
            }
            1 => {
                let received = received_frame(&mut script);
                protocol.receive(&received);
            }
            6 => {
                let count = take(&mut script).unwrap_or_default() as usize;
                let count = count.min(protocol.bytes_to_send().len());
                protocol.sent(count);
            }
            request => submit(&mut protocol, request),
        }
        let open = protocol.requests_in_flight();
        let mut answered = 0;
        while let Ok(Some(_)) = protocol.next_response() {
            answered += 1;
        }
        assert_eq!(
            protocol.requests_in_flight(),
            open - answered,
            "each response answers one request"
        );
        assert!(protocol.requests_sent_in_flight() <= protocol.requests_in_flight());
        assert_eq!(protocol.unanswered().count(), protocol.requests_in_flight());
    }
}

fn submit(protocol: &mut Protocol, request: u8) {
    let request = match request {
        2 => Request::Ping,
        3 => Request::Get { key: b"k" },
        4 => Request::put(b"k", b"value", Condition::None),
        _ => Request::Scan(ostrakon_client::ScanRequest::ALL),
    };
    let before = protocol.requests_in_flight();
    let submitted = protocol.submit(&request);
    assert_eq!(
        protocol.requests_in_flight(),
        before + usize::from(submitted.is_ok())
    );
}

fn received_frame(script: &mut &[u8]) -> Vec<u8> {
    let [low, high, flags, request_id, length] = [(); 5].map(|()| take(script).unwrap_or_default());
    let body = piece(script, length);
    let mut received = Vec::new();
    frame::append(
        &mut received,
        u16::from_le_bytes([low, high]),
        u64::from(request_id),
        7,
        body,
    );
    if flags & 1 != 0 {
        frame::ask_for_timings(&mut received, 0);
    }
    received
}

fn take(script: &mut &[u8]) -> Option<u8> {
    let (&first, rest) = script.split_first()?;
    *script = rest;
    Some(first)
}

/// The next bytes, as many of `length` as there are.
fn piece<'a>(script: &mut &'a [u8], length: u8) -> &'a [u8] {
    let (piece, rest) = script.split_at(script.len().min(length as usize));
    *script = rest;
    piece
}
