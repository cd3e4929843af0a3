//! Frames and messages: what a server reads from its clients and a client from its server.

use ostrakon_wire::frame::{self, HEADER_BYTES};
use ostrakon_wire::message::{Encoder, Kind, Request, Response, ScanRequest};

/// Longest body that is asked for. Above it a frame must be refused by its length alone.
const BODY_BYTES_MAX: usize = 4096;

/// Reads the bytes as a frame, as they are and with the checksum put right.
pub fn frame(data: &[u8]) {
    decode_frame(data);
    if let Some(sealed) = with_checksum(data) {
        decode_frame(&sealed);
    }
}

fn decode_frame(data: &[u8]) {
    let Ok(decoded) = frame::decode(data, BODY_BYTES_MAX) else {
        return;
    };
    let Some((header, body)) = decoded else {
        assert!(
            frame::frame_bytes(data).is_none_or(|bytes| bytes > data.len()),
            "not whole, and yet long enough"
        );
        return;
    };
    assert_eq!(frame::frame_bytes(data), Some(header.frame_bytes()));
    assert_eq!(body.len(), header.body_bytes as usize);
    let mut again = Vec::new();
    if let Ok((timings, table)) = frame::split_timings(&header, body) {
        frame::append(
            &mut again,
            header.kind,
            header.request_id,
            header.timestamp,
            table,
        );
        if let Some(timings) = timings {
            frame::insert_timings(&mut again, 0, &timings);
        }
    } else {
        // The frame of a request that only asks for them.
        frame::append(&mut again, header.kind, header.request_id, header.timestamp, body);
        frame::ask_for_timings(&mut again, 0);
    }
    assert_eq!(again, data[..header.frame_bytes()], "a frame has one form");
}

/// The bytes as one whole frame: length and checksum put right.
fn with_checksum(data: &[u8]) -> Option<Vec<u8>> {
    let body_bytes = data.len().checked_sub(HEADER_BYTES)?;
    let mut sealed = data.to_vec();
    sealed[0..4].copy_from_slice(&(body_bytes as u32).to_le_bytes());
    let checksum = crc32c::crc32c(&sealed[8..]);
    sealed[4..8].copy_from_slice(&checksum.to_le_bytes());
    Some(sealed)
}

/// The first byte chooses a kind, the others are the body.
fn split_kind(data: &[u8]) -> Option<(Kind, &[u8])> {
    let (&first, body) = data.split_first()?;
    Some((Kind::ALL[first as usize % Kind::ALL.len()], body))
}

/// Reads the bytes as a request of a kind; what is accepted is checked, read by the trusting reader, and encoded again.
pub fn request(data: &[u8]) {
    let Some((kind, body)) = split_kind(data) else {
        return;
    };
    let request = match Request::decode(kind as u16, body) {
        Ok(request) => request,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert_eq!(request.kind(), kind);
    assert_eq!(request.check(), Ok(()), "what is accepted holds to all limits");
    assert_eq!(Request::decode_trusted(kind as u16, body), request);
    // Elements may share bytes, so an encoding can be longer; it can't be much longer than what was allowed to be
    // claimed.
    let mut encoded = Vec::new();
    Encoder::new().request(&mut encoded, 1, 2, &request);
    let elements = match request {
        Request::MultiGet { keys } => keys.len(),
        Request::MultiPut { entries, .. } => entries.len(),
        Request::Batch { operations, .. } => operations.len(),
        _ => 1,
    };
    assert!(
        encoded.len() <= 4 * body.len() + 256 * (elements + 1),
        "{} bytes claim {}",
        body.len(),
        encoded.len()
    );
    let decoded = Request::decode(kind as u16, &encoded[HEADER_BYTES..]);
    assert_eq!(decoded, Ok(request), "an encoding means what it was made from");
}

/// Reads the bytes as a response of a kind; what is accepted is read to its end and encoded again.
pub fn response(data: &[u8]) {
    let Some((kind, body)) = split_kind(data) else {
        return;
    };
    let response = match Response::decode(kind as u16, body) {
        Ok(response) => response,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    match &response {
        Response::Scan(page) => {
            assert_eq!(page.entries.iter().count(), page.entries.len());
            for reverse in [false, true] {
                let _ = page.fits(&ScanRequest {
                    reverse,
                    ..ScanRequest::ALL
                });
            }
        }
        Response::MultiGet { values } => assert_eq!(values.iter().count(), values.len()),
        Response::Topology(topology) => assert!(topology.core_of(body) < topology.cores),
        _ => {}
    }
    let mut encoded = Vec::new();
    Encoder::new().response(&mut encoded, 1, 2, &response);
    let decoded = Response::decode(kind as u16, &encoded[HEADER_BYTES..]);
    assert_eq!(decoded, Ok(response), "an encoding means what it was made from");
}
