//! Random messages. Messages borrow their bytes, so a strategy encodes each one and hands it to a check on
//! the way.

use ostrakon_wire::ClusterId;
use ostrakon_wire::limits::TTL_MS_MAX;
use ostrakon_wire::message::{
    Action, BatchOperation, BatchReply, CheckpointAction, CheckpointReply, CheckpointShard, Condition,
    DeleteRangeReply, Encoder, ErrorCode, ErrorReply, Found, Hello, HelloReply, MultiPutReply, MultiValue,
    PutEntry, Request, Response, Retry, ScanEntry, ScanReply, ScanRequest, TopologyReply,
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
    prop_oneof![
        keyed(check),
        several_keys(check),
        scan(check),
        delete_range(check),
        hello(check),
        small(check)
    ]
}

/// Random responses of all kinds.
pub(crate) fn response(check: CheckResponse) -> impl Strategy<Value = Sample> {
    prop_oneof![
        get_reply(check),
        write_reply(check),
        several_values(check),
        several_written(check),
        range_deleted(check),
        scan_reply(check),
        hello_reply(check),
        topology_reply(check),
        words(check),
        checkpoint_reply(check)
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

fn value() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..80)
}

/// Number of a condition; version and value for those that have one.
type OwnedCondition = (u8, u64, Vec<u8>);

fn condition() -> impl Strategy<Value = OwnedCondition> {
    (0..5_u8, 1..=u64::MAX, value())
}

fn borrowed((number, version, value): &OwnedCondition) -> Condition<'_> {
    match number {
        0 => Condition::None,
        1 => Condition::Absent,
        2 => Condition::Present,
        3 => Condition::Version(*version),
        _ => Condition::Value(value),
    }
}

/// A time to live, often none.
fn ttl_ms() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1..=TTL_MS_MAX]
}

/// Expiry of a key, often never.
fn expires() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), any::<u64>()]
}

fn retry() -> impl Strategy<Value = Option<Retry>> {
    option::of(any::<(u128, u64, u64, u64)>()).prop_map(|retry| {
        retry.map(|(session, one, other, first_sent)| Retry {
            session,
            sequence: one.max(other),
            answered_below: one.min(other),
            first_sent,
        })
    })
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
    (
        head(),
        0..4,
        (key(), value(), any::<i64>()),
        condition(),
        ttl_ms(),
        retry(),
    )
        .prop_map(
            move |(head, which, (key, value, delta), condition, ttl_ms, retry)| {
                let condition = borrowed(&condition);
                let request = match which {
                    0 => Request::Get { key: &key },
                    1 => Request::Put {
                        key: &key,
                        value: &value,
                        condition,
                        ttl_ms,
                        retry,
                    },
                    2 => Request::Delete {
                        key: &key,
                        condition,
                        retry,
                    },
                    _ => Request::Add {
                        key: &key,
                        delta,
                        ttl_ms,
                        retry,
                    },
                };
                sample_request(check, head, &request)
            },
        )
}

/// Multi-gets, multi-puts and batches. A map, since most of them name a key once at most.
fn several_keys(check: CheckRequest) -> impl Strategy<Value = Sample> {
    let element = (value(), condition(), ttl_ms(), 0..4, any::<i64>());
    (head(), 0..3, btree_map(key(), element, 1..9), retry()).prop_map(
        move |(head, which, elements, retry)| {
            let keys: Vec<&[u8]> = elements.keys().map(|key| &key[..]).collect();
            let mut entries = Vec::new();
            let mut operations = Vec::new();
            for (key, (value, condition, ttl_ms, action, delta)) in &elements {
                let (ttl_ms, delta) = (*ttl_ms, *delta);
                entries.push(PutEntry { key, value, ttl_ms });
                let action = match action {
                    0 => Action::Put { value, ttl_ms },
                    1 => Action::Delete,
                    2 => Action::Add { delta, ttl_ms },
                    // A check needs a condition.
                    _ if condition.0 == 0 => Action::Delete,
                    _ => Action::Check,
                };
                operations.push(BatchOperation {
                    key,
                    action,
                    condition: borrowed(condition),
                });
            }
            let request = match which {
                0 => Request::MultiGet {
                    keys: keys[..].into(),
                },
                1 => Request::MultiPut {
                    entries: entries[..].into(),
                    retry,
                },
                _ => Request::Batch {
                    operations: operations[..].into(),
                    retry,
                },
            };
            sample_request(check, head, &request)
        },
    )
}

fn scan(check: CheckRequest) -> impl Strategy<Value = Sample> {
    let fields = (0..=10_000_u32, any::<u64>(), any::<bool>(), any::<bool>());
    (
        head(),
        vec(any::<u8>(), 0..40),
        option::of(key()),
        vec(any::<u8>(), 0..9),
        fields,
    )
        .prop_map(
            move |(head, start, end, prefix, (limit, snapshot, keys_only, reverse))| {
                let scan = ScanRequest {
                    start: &start,
                    end: end.as_deref(),
                    limit,
                    snapshot,
                    keys_only,
                    prefix: &prefix,
                    reverse,
                };
                sample_request(check, head, &Request::Scan(scan))
            },
        )
}

fn delete_range(check: CheckRequest) -> impl Strategy<Value = Sample> {
    let start = vec(any::<u8>(), 0..40);
    (head(), start, option::of(key()), retry()).prop_map(move |(head, start, more, retry)| {
        // What begins with the start and has more comes after it.
        let end = more.map(|more| [&start[..], &more].concat());
        let range = Request::DeleteRange {
            start: &start,
            end: end.as_deref(),
            retry,
        };
        sample_request(check, head, &range)
    })
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

/// The requests of one number, or of nothing.
fn small(check: CheckRequest) -> impl Strategy<Value = Sample> {
    (head(), 0..7, any::<u64>()).prop_map(move |(head, which, request_id)| {
        let request = match which {
            0 => Request::Ping,
            1 => Request::Topology,
            2 => Request::Status,
            3 => Request::Stats,
            4 => Request::Checkpoint {
                action: CheckpointAction::Make,
                id: request_id,
            },
            5 => Request::Checkpoint {
                action: CheckpointAction::Release,
                id: request_id,
            },
            _ => Request::Cancel { request_id },
        };
        sample_request(check, head, &request)
    })
}

fn get_reply(check: CheckResponse) -> impl Strategy<Value = Sample> {
    (head(), option::of((any::<u64>(), expires(), value()))).prop_map(move |(head, found)| {
        let found = found.as_ref().map(|(version, expires, value)| Found {
            version: *version,
            expires: *expires,
            value,
        });
        sample_response(check, head, &Response::Get { found })
    })
}

fn several_values(check: CheckResponse) -> impl Strategy<Value = Sample> {
    let values = vec((0..3, any::<u64>(), expires(), value()), 1..9);
    (head(), values).prop_map(move |(head, values)| {
        let values: Vec<MultiValue<'_>> = values
            .iter()
            .map(|(which, version, expires, value)| match which {
                0 => MultiValue::NotFound,
                1 => MultiValue::Omitted,
                _ => MultiValue::Found(Found {
                    version: *version,
                    expires: *expires,
                    value,
                }),
            })
            .collect();
        sample_response(
            check,
            head,
            &Response::MultiGet {
                values: values[..].into(),
            },
        )
    })
}

/// Delete-range replies, of all shards and of some.
fn range_deleted(check: CheckResponse) -> impl Strategy<Value = Sample> {
    let counts = (0..99_u32, 0..99_u32, 0..99_u32);
    let error = (1..=u16::MAX, ".{0,20}", any::<u32>());
    (head(), 1..=u64::MAX, counts, error).prop_map(
        move |(head, version, (applied, refused, unknown), (code, message, retry_after_ms))| {
            let is_everywhere = applied > 0 && refused == 0 && unknown == 0;
            let reply = DeleteRangeReply {
                version: if applied > 0 { version } else { 0 },
                applied,
                refused,
                unknown,
                error: (!is_everywhere).then(|| ErrorReply {
                    code: ErrorCode::from(code),
                    message: &message,
                    retry_after_ms,
                }),
            };
            sample_response(check, head, &Response::DeleteRange(reply))
        },
    )
}

/// Multi-put replies, as a whole and in part, and batch replies.
fn several_written(check: CheckResponse) -> impl Strategy<Value = Sample> {
    let results = vec((1..=u64::MAX, option::of(1..=u16::MAX)), 1..9);
    let batch = (any::<(bool, u64, u32)>(), vec(any::<i64>(), 0..9));
    (head(), any::<bool>(), results, (".{0,20}", any::<u32>()), batch).prop_map(
        move |(head, is_batch, results, (message, retry_after_ms), ((applied, version, failed), numbers))| {
            let response = if is_batch {
                Response::Batch(BatchReply {
                    applied,
                    version,
                    failed,
                    numbers,
                })
            } else if results.iter().all(|(_, code)| code.is_none()) {
                let versions = results.iter().map(|(version, _)| *version).collect();
                Response::MultiPut(MultiPutReply {
                    versions,
                    codes: vec![],
                    message: "",
                    retry_after_ms: 0,
                })
            } else {
                let version =
                    |(version, code): &(u64, Option<u16>)| if code.is_some() { 0 } else { *version };
                Response::MultiPut(MultiPutReply {
                    versions: results.iter().map(version).collect(),
                    codes: results
                        .iter()
                        .map(|(_, code)| code.map(ErrorCode::from))
                        .collect(),
                    message: &message,
                    retry_after_ms,
                })
            };
            sample_response(check, head, &response)
        },
    )
}

fn write_reply(check: CheckResponse) -> impl Strategy<Value = Sample> {
    (head(), any::<(bool, u64, i64)>(), 0..3).prop_map(move |(head, (applied, version, number), which)| {
        let response = match which {
            0 => Response::Write { applied, version },
            1 => Response::Add { version, number },
            _ => Response::Cancel { cancelled: applied },
        };
        sample_response(check, head, &response)
    })
}

fn scan_reply(check: CheckResponse) -> impl Strategy<Value = Sample> {
    let pairs = btree_map(
        vec(any::<u8>(), 1..9),
        (vec(any::<u8>(), 0..9), any::<u64>(), expires()),
        0..9,
    );
    (head(), any::<(u64, bool, bool)>(), pairs).prop_map(move |(head, (snapshot, more, reverse), pairs)| {
        let mut entries: Vec<ScanEntry<'_>> = pairs
            .iter()
            .map(|(key, (value, version, expires))| ScanEntry {
                key,
                value,
                version: *version,
                expires: *expires,
            })
            .collect();
        if reverse {
            entries.reverse();
        }
        let last = entries.last().map_or(&[7][..], |entry| entry.key);
        let after_last = [last, if reverse { &[] } else { &[0] }].concat();
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
    let numbers = (
        any::<[u64; 2]>(),
        any::<[u16; 3]>(),
        any::<[u32; 6]>(),
        0..=16_u32,
    );
    (head(), cluster_id(), numbers, ".{0,20}").prop_map(
        move |(head, cluster_id, ([node_id, retry_horizon_ms], small, limits, log2_shards), server)| {
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
                multi_max: limits[4],
                session_window: limits[5],
                retry_horizon_ms,
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

fn checkpoint_reply(check: CheckResponse) -> impl Strategy<Value = Sample> {
    let shards = vec(any::<(u32, u64)>(), 0..9);
    (head(), any::<[u64; 3]>(), cluster_id(), shards, ".{0,20}").prop_map(
        move |(head, [id, snapshot, node_id], cluster_id, shards, directory)| {
            let shard = |&(tables, bytes): &(u32, u64)| CheckpointShard { tables, bytes };
            let reply = CheckpointReply {
                id,
                snapshot,
                directory: &directory,
                node_id,
                cluster_id,
                shards: shards.iter().map(shard).collect(),
            };
            sample_response(check, head, &Response::Checkpoint(reply))
        },
    )
}

/// The responses that consist of text, or of nothing.
fn words(check: CheckResponse) -> impl Strategy<Value = Sample> {
    (head(), 0..4, any::<(u16, u32)>(), ".{0,40}").prop_map(
        move |(head, which, (code, retry_after_ms), text)| {
            let code = ErrorCode::from(code);
            let response = match which {
                0 => Response::Pong,
                1 => Response::Status { json: &text },
                2 => Response::Stats { json: &text },
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
