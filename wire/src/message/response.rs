//! Responses: what a server answers, as it is after verification.

use super::list::{MultiValues, ScanEntries};
use super::verify::{check_count, check_key, check_value, verified_table, verify_fieldless};
use super::{ClusterId, DecodeError, ErrorCode, Kind, ScanRequest};
use crate::generated::client_generated::ostrakon::wire as tables;
use crate::limits::{SCAN_BOUND_BYTES_MAX, SHARDS_MAX};

/// A response. Keys and values borrow from the received frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Response<'a> {
    /// The connection is open.
    Hello(HelloReply<'a>),
    /// The sign of life.
    Pong,
    /// What was read.
    Get {
        /// `None`: there is no such key.
        found: Option<Found<'a>>,
    },
    /// What became of a put or a delete.
    Write {
        /// Did the condition hold?
        applied: bool,
        /// Applied: the write's own version. Else the key's version as it is, 0 if the key is absent.
        version: u64,
    },
    /// The number that an add has made.
    Add {
        /// Version of the write.
        version: u64,
        /// The sum.
        number: i64,
    },
    /// What was read of several keys, in the order of the keys.
    MultiGet {
        /// The values.
        values: MultiValues<'a>,
    },
    /// What became of a multi-put.
    MultiPut(MultiPutReply<'a>),
    /// What became of a batch.
    Batch(BatchReply),
    /// One page of a scan.
    Scan(ScanReply<'a>),
    /// What became of a cancel.
    Cancel {
        /// True: the request was answered with [`ErrorCode::Cancelled`]. False: it was answered already, or goes on.
        cancelled: bool,
    },
    /// Which core owns which shard.
    Topology(TopologyReply),
    /// How the node is.
    Status {
        /// One JSON object.
        json: &'a str,
    },
    /// All that the node counts and measures.
    Stats {
        /// One JSON object.
        json: &'a str,
    },
    /// The request was refused or failed.
    Error(ErrorReply<'a>),
}

/// A value, and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// Version of the write that it comes from.
    pub version: u64,
    /// Timestamp from which on the key is absent; 0: never.
    pub expires: u64,
    /// The value.
    pub value: &'a [u8],
}

/// One of the values of a multi-get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MultiValue<'a> {
    /// The key is there.
    Found(Found<'a>),
    /// There is no such key.
    NotFound,
    /// The answer had no room for it: ask again.
    Omitted,
}

/// What became of a multi-put. Shards decide for themselves: some entries may be written and others not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultiPutReply<'a> {
    /// Version of each entry, in order; 0: not written, or not known to be.
    pub versions: Vec<u64>,
    /// Code of each entry that was not written, `None` for the others. Empty if all were written.
    pub codes: Vec<Option<ErrorCode>>,
    /// The first of the errors, for people.
    pub message: &'a str,
    /// When to try again, in milliseconds; 0: no hint.
    pub retry_after_ms: u32,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchReply {
    /// Did all conditions hold?
    pub applied: bool,
    /// Applied: the version of all its writes. Else: of the failed operation's key as it is, 0 if it is absent.
    pub version: u64,
    /// Not applied: the first operation whose condition did not hold, from 0.
    pub failed: u32,
    /// The sum of each add, in order.
    pub numbers: Vec<i64>,
}

/// Answer to a hello: what holds for the rest of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloReply<'a> {
    /// The protocol version spoken from here on.
    pub version: u16,
    /// The cluster that the node belongs to.
    pub cluster_id: ClusterId,
    /// The node.
    pub node_id: u64,
    /// The core that owns the connection.
    pub core: u16,
    /// Cores of the node.
    pub cores: u16,
    /// Shards of the cluster.
    pub shards: u32,
    /// Name and version of the server: `name/version`.
    pub server: &'a str,
    /// Longest key that this server takes, in bytes.
    pub key_bytes_max: u32,
    /// Longest value that this server takes, in bytes.
    pub value_bytes_max: u32,
    /// Longest frame that this server takes, in bytes.
    pub frame_bytes_max: u32,
    /// Most unanswered requests on one connection.
    pub requests_in_flight_max: u32,
    /// Most keys of a multi-get, entries of a multi-put, operations of a batch.
    pub multi_max: u32,
    /// A write's sequence lies at most so far above the lowest one of its session that is not answered, less one.
    pub session_window: u32,
    /// Writes with a [`Retry`](super::Retry) are remembered for so long after their first sending, at least, in
    /// milliseconds.
    pub retry_horizon_ms: u64,
}

/// One page of a scan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScanReply<'a> {
    /// The snapshot that was read: for the next page.
    pub snapshot: u64,
    /// Keys in ascending bytewise order, in descending order if asked for in reverse. May be empty although there is
    /// more.
    pub entries: ScanEntries<'a>,
    /// Where the next page starts (in reverse: before which key it begins), if there is more (the wire's `more` and
    /// `resume_key` in one).
    pub resume_key: Option<&'a [u8]>,
}

/// One key of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanEntry<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its value; empty if only keys were asked for.
    pub value: &'a [u8],
    /// Version of the write that the value comes from.
    pub version: u64,
    /// Timestamp from which on the key is absent; 0: never.
    pub expires: u64,
}

/// Which core owns which shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologyReply {
    /// Core of each shard; as many as there are shards, a power of two.
    pub owners: Vec<u16>,
    /// Cores of the node.
    pub cores: u16,
    /// The node.
    pub node_id: u64,
    /// The cluster that the node belongs to.
    pub cluster_id: ClusterId,
}

/// Why a request was refused or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorReply<'a> {
    /// The reason, for programs.
    pub code: ErrorCode,
    /// The reason, for people.
    pub message: &'a str,
    /// When to try again, in milliseconds; 0: no hint.
    pub retry_after_ms: u32,
}

impl<'a> Response<'a> {
    /// Reads a body that came from outside: verifies it and all limits.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(kind: u16, body: &'a [u8]) -> Result<Response<'a>, DecodeError> {
        let kind = Kind::try_from(kind)?;
        match kind {
            Kind::GetReply => decode_get(body),
            Kind::WriteReply => {
                let table = verified_table::<tables::WriteReply<'a>>(kind, body)?;
                Ok(Response::Write {
                    applied: table.applied(),
                    version: table.version(),
                })
            }
            Kind::ScanReply => decode_scan(body),
            Kind::HelloReply => decode_hello(body),
            Kind::Pong => {
                verify_fieldless::<tables::Pong<'a>>(kind, body)?;
                Ok(Response::Pong)
            }
            Kind::TopologyReply => decode_topology(body),
            Kind::StatusReply => {
                let table = verified_table::<tables::StatusReply<'a>>(kind, body)?;
                Ok(Response::Status { json: table.json() })
            }
            Kind::AddReply => {
                let table = verified_table::<tables::AddReply<'a>>(kind, body)?;
                Ok(Response::Add {
                    version: table.version(),
                    number: table.number(),
                })
            }
            Kind::MultiGetReply => decode_multi_get(body),
            Kind::MultiPutReply => decode_multi_put(body),
            Kind::BatchReply => {
                let table = verified_table::<tables::BatchReply<'a>>(kind, body)?;
                Ok(Response::Batch(BatchReply {
                    applied: table.applied(),
                    version: table.version(),
                    failed: table.failed(),
                    numbers: table
                        .numbers()
                        .map_or_else(Vec::new, |numbers| numbers.iter().collect()),
                }))
            }
            Kind::CancelReply => {
                let table = verified_table::<tables::CancelReply<'a>>(kind, body)?;
                Ok(Response::Cancel {
                    cancelled: table.cancelled(),
                })
            }
            Kind::StatsReply => {
                let table = verified_table::<tables::StatsReply<'a>>(kind, body)?;
                Ok(Response::Stats { json: table.json() })
            }
            Kind::Error => {
                let table = verified_table::<tables::Error<'a>>(kind, body)?;
                Ok(Response::Error(ErrorReply {
                    code: ErrorCode::from(table.code()),
                    message: table.message().unwrap_or_default(),
                    retry_after_ms: table.retry_after_ms(),
                }))
            }
            kind => Err(DecodeError::WrongDirection { kind }),
        }
    }
}

fn contradiction<T>(kind: Kind, detail: &'static str) -> Result<T, DecodeError> {
    Err(DecodeError::Contradiction { kind, detail })
}

fn decode_get(body: &[u8]) -> Result<Response<'_>, DecodeError> {
    let kind = Kind::GetReply;
    let table = verified_table::<tables::GetReply<'_>>(kind, body)?;
    match (table.found(), table.value()) {
        (true, Some(value)) => {
            check_value(value.bytes())?;
            Ok(Response::Get {
                found: Some(Found {
                    version: table.version(),
                    expires: table.expires(),
                    value: value.bytes(),
                }),
            })
        }
        (false, None) => Ok(Response::Get { found: None }),
        (true, None) => contradiction(kind, "found, but without a value"),
        (false, Some(_)) => contradiction(kind, "not found, but with a value"),
    }
}

fn decode_multi_get(body: &[u8]) -> Result<Response<'_>, DecodeError> {
    let kind = Kind::MultiGetReply;
    let table = verified_table::<tables::MultiGetReply<'_>>(kind, body)?;
    check_count(kind, table.values().len())?;
    for value in table.values() {
        match (value.found(), value.omitted(), value.value()) {
            (true, false, Some(value)) => check_value(value.bytes())?,
            (false, _, None) => {}
            _ => {
                return contradiction(
                    kind,
                    "a value is there although it was not found, or missing although it was",
                );
            }
        }
    }
    Ok(Response::MultiGet {
        values: MultiValues::received(table.values()),
    })
}

fn decode_multi_put(body: &[u8]) -> Result<Response<'_>, DecodeError> {
    let kind = Kind::MultiPutReply;
    let table = verified_table::<tables::MultiPutReply<'_>>(kind, body)?;
    let versions: Vec<u64> = table.versions().iter().collect();
    check_count(kind, versions.len())?;
    let code = |number| (number != 0).then(|| ErrorCode::from(number));
    let codes: Vec<Option<ErrorCode>> = table
        .codes()
        .map_or_else(Vec::new, |codes| codes.iter().map(code).collect());
    if !codes.is_empty() && codes.len() != versions.len() {
        return contradiction(kind, "the number of codes is not the number of versions");
    }
    Ok(Response::MultiPut(MultiPutReply {
        versions,
        codes,
        message: table.message().unwrap_or_default(),
        retry_after_ms: table.retry_after_ms(),
    }))
}

fn decode_scan(body: &[u8]) -> Result<Response<'_>, DecodeError> {
    let kind = Kind::ScanReply;
    let table = verified_table::<tables::ScanReply<'_>>(kind, body)?;
    let entries = table
        .entries()
        .map_or_else(ScanEntries::default, ScanEntries::received);
    let mut before: Option<&[u8]> = None;
    let mut is_reverse = None;
    for entry in entries {
        check_key(entry.key)?;
        check_value(entry.value)?;
        if let Some(before) = before {
            // The first two keys tell the direction; the request, which this does not know, has to agree.
            let falls = entry.key < before;
            if entry.key == before || *is_reverse.get_or_insert(falls) != falls {
                return contradiction(kind, "keys are not in order");
            }
        }
        before = Some(entry.key);
    }
    let resume_key = match (table.more(), table.resume_key()) {
        (true, Some(resume_key)) => {
            let resume_key = resume_key.bytes();
            if resume_key.len() > SCAN_BOUND_BYTES_MAX {
                return Err(DecodeError::ScanBoundTooLarge {
                    bytes: resume_key.len(),
                });
            }
            let goes_back = match (is_reverse, before) {
                (Some(true), Some(last)) => resume_key > last,
                (Some(false), Some(last)) => resume_key <= last,
                _ => false,
            };
            if goes_back {
                return contradiction(kind, "the next page would start before the end of this one");
            }
            Some(resume_key)
        }
        (false, _) => None,
        (true, None) => return contradiction(kind, "there is more, but no key to go on from"),
    };
    Ok(Response::Scan(ScanReply {
        snapshot: table.snapshot(),
        entries,
        resume_key,
    }))
}

fn decode_hello(body: &[u8]) -> Result<Response<'_>, DecodeError> {
    let table = verified_table::<tables::HelloReply<'_>>(Kind::HelloReply, body)?;
    if !table.shards().is_power_of_two() || table.shards() > SHARDS_MAX {
        return contradiction(
            Kind::HelloReply,
            "the number of shards is no power of two up to 65536",
        );
    }
    Ok(Response::Hello(HelloReply {
        version: table.version(),
        cluster_id: ClusterId {
            high: table.cluster_id_high(),
            low: table.cluster_id_low(),
        },
        node_id: table.node_id(),
        core: table.core(),
        cores: table.cores(),
        shards: table.shards(),
        server: table.server().unwrap_or_default(),
        key_bytes_max: table.key_bytes_max(),
        value_bytes_max: table.value_bytes_max(),
        frame_bytes_max: table.frame_bytes_max(),
        requests_in_flight_max: table.requests_in_flight_max(),
        multi_max: table.multi_max(),
        session_window: table.session_window(),
        retry_horizon_ms: table.retry_horizon_ms(),
    }))
}

fn decode_topology(body: &[u8]) -> Result<Response<'_>, DecodeError> {
    let kind = Kind::TopologyReply;
    let table = verified_table::<tables::TopologyReply<'_>>(kind, body)?;
    let shards = table.shards();
    if !shards.is_power_of_two() || shards > SHARDS_MAX {
        return contradiction(kind, "the number of shards is no power of two up to 65536");
    }
    let owners: Vec<u16> = table
        .owners()
        .map_or_else(Vec::new, |owners| owners.iter().collect());
    if owners.len() != shards as usize {
        return contradiction(kind, "the number of owners is not the number of shards");
    }
    if owners.iter().any(|&owner| owner >= table.cores()) {
        return contradiction(kind, "a shard is owned by a core that the node does not have");
    }
    Ok(Response::Topology(TopologyReply {
        owners,
        cores: table.cores(),
        node_id: table.node_id(),
        cluster_id: ClusterId {
            high: table.cluster_id_high(),
            low: table.cluster_id_low(),
        },
    }))
}

impl ScanReply<'_> {
    /// Is there another page?
    pub fn more(&self) -> bool {
        self.resume_key.is_some()
    }

    /// Does the page lie within its scan, and lead on in its direction?
    pub fn fits(&self, scan: &ScanRequest<'_>) -> bool {
        let is_inside = |key: &[u8]| {
            key >= scan.start && scan.end.is_none_or(|end| key < end) && key.starts_with(scan.prefix)
        };
        let mut keys = self.entries.iter().map(|entry| entry.key);
        let first = keys.next();
        let last = keys.next_back().or(first);
        let in_order = match (first, last) {
            (Some(first), Some(last)) => {
                is_inside(first) && is_inside(last) && (first == last || (last < first) == scan.reverse)
            }
            _ => true,
        };
        let leads_on = self.resume_key.is_none_or(|resume_key| {
            if scan.reverse {
                last.is_none_or(|last| resume_key <= last) && scan.end.is_none_or(|end| resume_key < end)
            } else {
                last.is_none_or(|last| resume_key > last) && resume_key > scan.start
            }
        });
        in_order && leads_on
    }
}

impl TopologyReply {
    /// Number of shards of the cluster.
    pub fn shards(&self) -> u32 {
        self.owners.len() as u32
    }

    /// The core that owns `key`.
    pub fn core_of(&self, key: &[u8]) -> u16 {
        let shard = crate::routing::shard_of(crate::routing::key_hash(key), self.shards());
        self.owners[shard.0 as usize]
    }
}

impl<'a> ScanEntry<'a> {
    pub(super) fn from_table(table: tables::ScanEntry<'a>) -> ScanEntry<'a> {
        ScanEntry {
            key: table.key().bytes(),
            value: table.value().map_or(&[][..], |value| value.bytes()),
            version: table.version(),
            expires: table.expires(),
        }
    }
}

impl<'a> MultiValue<'a> {
    pub(super) fn from_table(table: tables::MultiGetValue<'a>) -> MultiValue<'a> {
        match table.value() {
            Some(value) => MultiValue::Found(Found {
                version: table.version(),
                expires: table.expires(),
                value: value.bytes(),
            }),
            None if table.omitted() => MultiValue::Omitted,
            None => MultiValue::NotFound,
        }
    }
}
