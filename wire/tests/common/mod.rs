//! Random messages. Messages borrow their bytes, so a strategy encodes each one and hands it to a check on
//! the way.

use ostrakon_wire::ClusterId;
use ostrakon_wire::message::{
    Condition, Encoder, ErrorCode, ErrorReply, Hello, HelloReply, Request, Response, ScanEntry, ScanReply,
    ScanRequest, TopologyReply,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

/// A good frame.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) frame: Vec<u8>,
}

/// What is done with each random request and its frame.
pub(crate) type CheckRequest = fn(&Request<'_>, &[u8]);

/// What is done with each random response and its frame.
pub(crate) type CheckResponse = fn(&Response<'_>, &[u8]);

/// Random requests of all kinds.
pub(crate) fn request(check: CheckRequest) -> impl Strategy<Value = Sample> {
    prop_oneof![keyed(check), scan(check), hello(check), fieldless(check)]
}

/// Random responses of all kinds.
pub(crate) fn response(check: CheckResponse) -> impl Strategy<Value = Sample> {
    prop_oneof![
        get_reply(check),
        write_reply(check),
        scan_reply(check),
        hello_reply(check),
        topology_reply(check),
        words(check)
    ]
}

/// Random frames of all kinds.
pub(crate) fn any_frame() -> impl Strategy<Value = Sample> {
    prop_oneof![request(|_, _| {}), response(|_, _| {})]
}

/// Request id and timestamp.
fn head() -> impl Strategy<Value = (u64, u64)> {
    any::<(u64, u64)>()
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 1..40)
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        Just(Condition::None),
        Just(Condition::Absent),
        Just(Condition::Present),
        (1..=u64::MAX).prop_map(Condition::Version),
    ]
}

fn cluster_id() -> impl Strategy<Value = ClusterId> {
    any::<(u64, u64)>().prop_map(|(high, low)| ClusterId { high, low })
}

fn sample_request(check: CheckRequest, (request_id, timestamp): (u64, u64), request: &Request<'_>) -> Sample {
    let mut frame = Vec::new();
    Encoder::new().request(&mut frame, request_id, timestamp, request);
    check(request, &frame);
    Sample { frame }
}

fn sample_response(
    check: CheckResponse,
    (request_id, timestamp): (u64, u64),
    response: &Response<'_>,
) -> Sample {
    let mut frame = Vec::new();
    Encoder::new().response(&mut frame, request_id, timestamp, response);
    check(response, &frame);
    Sample { frame }
}

fn keyed(check: CheckRequest) -> impl Strategy<Value = Sample> {
    (head(), 0..3, key(), vec(any::<u8>(), 0..80), condition()).prop_map(
        move |(head, which, key, value, condition)| {
            let request = match which {
                0 => Request::Get { key: &key },
                1 => Request::put(&key, &value, condition),
                _ => Request::delete(&key, condition),
            };
            sample_request(check, head, &request)
        },
    )
}

fn scan(check: CheckRequest) -> impl Strategy<Value = Sample> {
    let fields = (0..=10_000_u32, any::<u64>(), any::<bool>());
    (head(), vec(any::<u8>(), 0..40), option::of(key()), fields).prop_map(
        move |(head, start, end, (limit, snapshot, keys_only))| {
            let scan = ScanRequest {
                start: &start,
                end: end.as_deref(),
                limit,
                snapshot,
                keys_only,
            };
            sample_request(check, head, &Request::Scan(scan))
        },
    )
}

fn hello(check: CheckRequest) -> impl Strategy<Value = Sample> {
    (
        head(),
        1..9_u16,
        0..9_u16,
        cluster_id(),
        option::of(any::<u16>()),
        "[a-z/é]{0,60}",
    )
        .prop_map(move |(head, version_min, more, cluster_id, core, client)| {
            let version_max = version_min + more;
            let hello = Hello {
                version_min,
                version_max,
                cluster_id,
                core,
                client: &client,
            };
            sample_request(check, head, &Request::Hello(hello))
        })
}

fn fieldless(check: CheckRequest) -> impl Strategy<Value = Sample> {
    const REQUESTS: [Request<'static>; 3] = [Request::Ping, Request::Topology, Request::Status];
    (head(), 0..REQUESTS.len()).prop_map(move |(head, which)| sample_request(check, head, &REQUESTS[which]))
}

fn get_reply(check: CheckResponse) -> impl Strategy<Value = Sample> {
    (head(), option::of((any::<u64>(), vec(any::<u8>(), 0..80)))).prop_map(move |(head, found)| {
        let found = found.as_ref().map(|(version, value)| (*version, &value[..]));
        sample_response(check, head, &Response::Get { found })
    })
}

fn write_reply(check: CheckResponse) -> impl Strategy<Value = Sample> {
    (head(), any::<(bool, u64)>()).prop_map(move |(head, (applied, version))| {
        sample_response(check, head, &Response::Write { applied, version })
    })
}

fn scan_reply(check: CheckResponse) -> impl Strategy<Value = Sample> {
    let pairs = btree_map(
        vec(any::<u8>(), 1..9),
        (vec(any::<u8>(), 0..9), any::<u64>()),
        0..9,
    );
    (head(), any::<(u64, bool)>(), pairs).prop_map(move |(head, (snapshot, more), pairs)| {
        let entries: Vec<ScanEntry<'_>> = pairs
            .iter()
            .map(|(key, (value, version))| ScanEntry {
                key,
                value,
                version: *version,
            })
            .collect();
        let after_last = [pairs.keys().next_back().map_or(&[][..], |key| key), &[0]].concat();
        let resume_key = more.then_some(&after_last[..]);
        let page = ScanReply {
            snapshot,
            entries: entries[..].into(),
            resume_key,
        };
        sample_response(check, head, &Response::Scan(page))
    })
}

fn hello_reply(check: CheckResponse) -> impl Strategy<Value = Sample> {
    let numbers = (any::<u64>(), any::<[u16; 3]>(), any::<[u32; 4]>(), 0..=16_u32);
    (head(), cluster_id(), numbers, ".{0,20}").prop_map(
        move |(head, cluster_id, (node_id, small, limits, log2_shards), server)| {
            let reply = HelloReply {
                version: small[0],
                cluster_id,
                node_id,
                core: small[1],
                cores: small[2],
                shards: 1 << log2_shards,
                server: &server,
                key_bytes_max: limits[0],
                value_bytes_max: limits[1],
                frame_bytes_max: limits[2],
                requests_in_flight_max: limits[3],
            };
            sample_response(check, head, &Response::Hello(reply))
        },
    )
}

fn topology_reply(check: CheckResponse) -> impl Strategy<Value = Sample> {
    (
        head(),
        any::<u64>(),
        cluster_id(),
        0..=6_u32,
        1..=u16::MAX,
        any::<u16>(),
    )
        .prop_map(move |(head, node_id, cluster_id, log2_shards, cores, seed)| {
            let owners = (0..1_u16 << log2_shards)
                .map(|shard| shard.wrapping_mul(seed) % cores)
                .collect();
            let topology = TopologyReply {
                owners,
                cores,
                node_id,
                cluster_id,
            };
            sample_response(check, head, &Response::Topology(topology))
        })
}

/// The responses that consist of text, or of nothing.
fn words(check: CheckResponse) -> impl Strategy<Value = Sample> {
    (head(), 0..3, any::<(u16, u32)>(), ".{0,40}").prop_map(
        move |(head, which, (code, retry_after_ms), text)| {
            let code = ErrorCode::from(code);
            let response = match which {
                0 => Response::Pong,
                1 => Response::Status { json: &text },
                _ => Response::Error(ErrorReply {
                    code,
                    message: &text,
                    retry_after_ms,
                }),
            };
            sample_response(check, head, &response)
        },
    )
}
