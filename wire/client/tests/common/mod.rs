//! The server's side of a connection, for tests: encodes whatever it is told to.

use ostrakon_client::ClusterId;
use ostrakon_wire::message::{Encoder, HelloReply, Response};

pub(crate) const CLUSTER_ID: ClusterId = ClusterId { high: 7, low: 8 };

/// The answer to a hello that most tests give.
pub(crate) fn hello_reply(requests_in_flight_max: u32) -> HelloReply<'static> {
    HelloReply {
        version: 1,
        cluster_id: CLUSTER_ID,
        node_id: 5,
        core: 2,
        cores: 4,
        shards: 16,
        server: "fake/1",
        key_bytes_max: 8 * 1024,
        value_bytes_max: 8 * 1024 * 1024,
        frame_bytes_max: 40 * 1024 * 1024,
        requests_in_flight_max,
        multi_max: 4,
        session_window: 8192,
        retry_horizon_ms: 600_000,
    }
}

/// One whole frame.
pub(crate) fn response_frame(request_id: u64, timestamp: u64, response: &Response<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    Encoder::new().response(&mut frame, request_id, timestamp, response);
    frame
}
