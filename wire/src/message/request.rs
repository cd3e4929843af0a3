//! Requests: what a client asks, as it is after verification.

use super::list::{BatchOperations, Keys, PutEntries};
use super::trusted::Table;
use super::verify::{
    check_count, check_distinct, check_key, check_sum, check_ttl, check_value, verified_table,
    verify_fieldless,
};
use super::write::{BatchOperation, Condition, Retry};
use super::{ClusterId, DecodeError, Kind, known};
use crate::generated::client_generated::ostrakon::wire as tables;
use crate::limits::{CLIENT_NAME_BYTES_MAX, HELLO_BODY_BYTES_MAX, SCAN_BOUND_BYTES_MAX, SCAN_LIMIT_MAX};

/// The one version of the protocol that this crate speaks.
pub const PROTOCOL_VERSION: u16 = 1;

/// First field of each hello: "OSTRAKON" as it lies on the wire.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"OSTRAKON");

/// A request. Keys and values borrow from the received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Opens a connection. Answered by `Response::Hello`.
    Hello(Hello<'a>),
    /// Asks for a sign of life. Answered by `Response::Pong`.
    Ping,
    /// Reads one key. Answered by `Response::Get`.
    Get {
        /// The key.
        key: &'a [u8],
    },
    /// Writes one key. Answered by `Response::Write`.
    Put {
        /// The key.
        key: &'a [u8],
        /// Its value from now on.
        value: &'a [u8],
        /// What must hold for it.
        condition: Condition<'a>,
        /// Milliseconds after which the key is absent again; 0: it stays.
        ttl_ms: u64,
        /// For a write that may be sent again.
        retry: Option<Retry>,
    },
    /// Removes one key. Answered by `Response::Write`.
    Delete {
        /// The key.
        key: &'a [u8],
        /// What must hold for it.
        condition: Condition<'a>,
        /// For a write that may be sent again.
        retry: Option<Retry>,
    },
    /// Adds to a number in decimal digits; an absent key counts as 0. Answered by `Response::Add`.
    Add {
        /// The key.
        key: &'a [u8],
        /// The summand.
        delta: i64,
        /// As in a put, if the key is made by this; a key that is there keeps what it has.
        ttl_ms: u64,
        /// For a write that may be sent again.
        retry: Option<Retry>,
    },
    /// Reads several keys; those of one shard at one moment. Answered by `Response::MultiGet`.
    MultiGet {
        /// The keys, one at least and at most [`MULTI_MAX`](crate::limits::MULTI_MAX).
        keys: Keys<'a>,
    },
    /// Writes several keys; those of one shard together or not at all. Answered by `Response::MultiPut`.
    MultiPut {
        /// Keys and values, in number as for a multi-get, each key once.
        entries: PutEntries<'a>,
        /// For a write that may be sent again.
        retry: Option<Retry>,
    },
    /// Does several things in one shard, all or nothing. Answered by `Response::Batch`.
    Batch {
        /// The operations, in number as for a multi-get, each key once.
        operations: BatchOperations<'a>,
        /// For a write that may be sent again.
        retry: Option<Retry>,
    },
    /// Removes all keys of a range, in each shard at one moment. Answered by `Response::DeleteRange`.
    DeleteRange {
        /// First key, inclusive. Empty: from the first key there is.
        start: &'a [u8],
        /// Above `start`, exclusive. `None`: to the last key there is.
        end: Option<&'a [u8]>,
        /// For a write that may be sent again.
        retry: Option<Retry>,
    },
    /// Reads one page of keys in order. Answered by `Response::Scan`.
    Scan(ScanRequest<'a>),
    /// Gives up a request of this connection. Answered by `Response::Cancel`.
    Cancel {
        /// The request's id.
        request_id: u64,
    },
    /// Asks which core owns which shard. Answered by `Response::Topology`.
    Topology,
    /// Asks how the node is. Answered by `Response::Status`.
    Status,
    /// Asks for all that the node counts and measures. Answered by `Response::Stats`.
    Stats,
    /// Makes or releases a checkpoint. Answered by `Response::Checkpoint`.
    Checkpoint {
        /// What is done about it.
        action: CheckpointAction,
        /// A random number that the client has drawn.
        id: u64,
    },
}

/// What is done about a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointAction {
    /// It is made.
    Make,
    /// It is removed; nothing is done if there is none of this id.
    Release,
}

/// First request of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Lowest protocol version that the client speaks.
    pub version_min: u16,
    /// Highest protocol version that the client speaks.
    pub version_max: u16,
    /// The cluster that the client wants, or [`ClusterId::ANY`].
    pub cluster_id: ClusterId,
    /// The core that shall own the connection; `None`: any.
    pub core: Option<u16>,
    /// Name and version of the client library, for logs: `name/version`.
    pub client: &'a str,
}

/// One page of a scan. Shards are not ordered by key, so a scan visits all of them and merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanRequest<'a> {
    /// First key, inclusive. Empty: from the first key there is.
    pub start: &'a [u8],
    /// Last key, exclusive. `None`: to the last key there is.
    pub end: Option<&'a [u8]>,
    /// Most entries of this page; 0: the server's default.
    pub limit: u32,
    /// The snapshot of an earlier page, or 0 for a new one.
    pub snapshot: u64,
    /// Leave the values out.
    pub keys_only: bool,
    /// Only keys that begin with this; empty: all.
    pub prefix: &'a [u8],
    /// From the last key to the first. Then the page goes on below `end`, and the next one ends where this one stopped.
    pub reverse: bool,
}

impl ScanRequest<'_> {
    /// Everything, in the server's pages.
    pub const ALL: ScanRequest<'static> = ScanRequest {
        start: &[],
        end: None,
        limit: 0,
        snapshot: 0,
        keys_only: false,
        prefix: &[],
        reverse: false,
    };
}

impl<'a> Request<'a> {
    /// A put of a key that stays, sent once.
    pub fn put(key: &'a [u8], value: &'a [u8], condition: Condition<'a>) -> Request<'a> {
        Request::Put {
            key,
            value,
            condition,
            ttl_ms: 0,
            retry: None,
        }
    }

    /// A delete, sent once.
    pub fn delete(key: &'a [u8], condition: Condition<'a>) -> Request<'a> {
        Request::Delete {
            key,
            condition,
            retry: None,
        }
    }

    /// How the server is to recognise the write when it comes again.
    pub fn retry(&self) -> Option<Retry> {
        match *self {
            Request::Put { retry, .. }
            | Request::Delete { retry, .. }
            | Request::Add { retry, .. }
            | Request::MultiPut { retry, .. }
            | Request::Batch { retry, .. }
            | Request::DeleteRange { retry, .. } => retry,
            _ => None,
        }
    }

    /// The kind of this request.
    pub fn kind(&self) -> Kind {
        match self {
            Request::Hello(_) => Kind::Hello,
            Request::Ping => Kind::Ping,
            Request::Get { .. } => Kind::Get,
            Request::Put { .. } => Kind::Put,
            Request::Delete { .. } => Kind::Delete,
            Request::Add { .. } => Kind::Add,
            Request::MultiGet { .. } => Kind::MultiGet,
            Request::MultiPut { .. } => Kind::MultiPut,
            Request::Batch { .. } => Kind::Batch,
            Request::DeleteRange { .. } => Kind::DeleteRange,
            Request::Scan(_) => Kind::Scan,
            Request::Cancel { .. } => Kind::Cancel,
            Request::Topology => Kind::Topology,
            Request::Status => Kind::Status,
            Request::Stats => Kind::Stats,
            Request::Checkpoint { .. } => Kind::Checkpoint,
        }
    }

    /// Reads a body that came from outside: verifies it and all limits.
    ///
    /// # Errors
    /// See [`DecodeError`]; [`DecodeError::error_code`] is what to answer. The connection can go on.
    pub fn decode(kind: u16, body: &'a [u8]) -> Result<Request<'a>, DecodeError> {
        let kind = Kind::try_from(kind)?;
        let request = match kind {
            Kind::Get => Request::Get {
                key: match known::get(body) {
                    Some(key) => key,
                    None => verified_table::<tables::Get<'a>>(kind, body)?.key().bytes(),
                },
            },
            Kind::Put => match known::put(body) {
                Some(known) => {
                    let condition = Condition::from_wire(known.condition, known.expected_version, None)?;
                    Request::put(known.key, known.value, condition)
                }
                None => decode_put(verified_table::<tables::Put<'a>>(kind, body)?)?,
            },
            Kind::Delete => decode_delete(verified_table::<tables::Delete<'a>>(kind, body)?)?,
            Kind::Add => decode_add(verified_table::<tables::Add<'a>>(kind, body)?),
            Kind::MultiGet => {
                let table = verified_table::<tables::MultiGet<'a>>(kind, body)?;
                Request::MultiGet {
                    keys: Keys::received(table.keys()),
                }
            }
            Kind::MultiPut => {
                let table = verified_table::<tables::MultiPut<'a>>(kind, body)?;
                Request::MultiPut {
                    entries: PutEntries::received(table.entries()),
                    retry: table.retry().map(Retry::from_wire),
                }
            }
            Kind::Batch => decode_batch(verified_table::<tables::Batch<'a>>(kind, body)?)?,
            Kind::DeleteRange => decode_delete_range(verified_table::<tables::DeleteRange<'a>>(kind, body)?),
            Kind::Scan => Request::Scan(decode_scan(body)?),
            Kind::Hello => Request::Hello(decode_hello(body)?),
            Kind::Ping => {
                verify_fieldless::<tables::Ping<'a>>(kind, body)?;
                Request::Ping
            }
            Kind::Topology => {
                verify_fieldless::<tables::Topology<'a>>(kind, body)?;
                Request::Topology
            }
            Kind::Status => {
                verify_fieldless::<tables::Status<'a>>(kind, body)?;
                Request::Status
            }
            Kind::Stats => {
                verify_fieldless::<tables::Stats<'a>>(kind, body)?;
                Request::Stats
            }
            Kind::Cancel => {
                let table = verified_table::<tables::Cancel<'a>>(kind, body)?;
                Request::Cancel {
                    request_id: table.request_id(),
                }
            }
            Kind::Checkpoint => decode_checkpoint(verified_table::<tables::Checkpoint<'a>>(kind, body)?)?,
            kind => return Err(DecodeError::WrongDirection { kind }),
        };
        request.check()?;
        Ok(request)
    }

    /// Reads a body that [`Request::decode`] accepted in this process before (a request that crossed cores),
    /// without verifying it again.
    ///
    /// # Panics
    /// May panic, or return nonsense, for bytes that `decode` would refuse. It reads nothing but
    /// `body` in any case.
    pub fn decode_trusted(kind: u16, body: &'a [u8]) -> Request<'a> {
        const KEY: usize = 0;
        match Kind::try_from(kind) {
            Ok(Kind::Get) => Request::Get {
                key: Table::root(body).bytes(KEY).unwrap_or_default(),
            },
            Ok(Kind::Put) => {
                let table = Table::root(body);
                Request::Put {
                    key: table.bytes(KEY).unwrap_or_default(),
                    value: table.bytes(1).unwrap_or_default(),
                    condition: trusted_condition(&table, 2),
                    ttl_ms: table.u64_or_zero(5),
                    retry: trusted_retry(&table, 6),
                }
            }
            Ok(Kind::Delete) => {
                let table = Table::root(body);
                Request::Delete {
                    key: table.bytes(KEY).unwrap_or_default(),
                    condition: trusted_condition(&table, 1),
                    retry: trusted_retry(&table, 4),
                }
            }
            Ok(Kind::Add) => {
                let table = Table::root(body);
                Request::Add {
                    key: table.bytes(KEY).unwrap_or_default(),
                    delta: table.u64_or_zero(1).cast_signed(),
                    ttl_ms: table.u64_or_zero(2),
                    retry: trusted_retry(&table, 3),
                }
            }
            Ok(Kind::Scan) => {
                let table = Table::root(body);
                Request::Scan(ScanRequest {
                    start: table.bytes(0).unwrap_or_default(),
                    end: table.bytes(1),
                    limit: table.u32_or_zero(2),
                    snapshot: table.u64_or_zero(3),
                    keys_only: table.u8_or_zero(4) != 0,
                    prefix: table.bytes(5).unwrap_or_default(),
                    reverse: table.u8_or_zero(6) != 0,
                })
            }
            // The rest is rare, or consists of several tables: those stay in the received bytes and are read element
            // by element, by flatbuffers, which does that for verified bytes only. To verify them costs less than the
            // work that they ask for.
            _ => Request::decode(kind, body).expect("these bytes were accepted before"),
        }
    }

    /// Does this request hold to all limits? [`Request::decode`] accepts no other, and a client sends no
    /// other.
    ///
    /// # Errors
    /// The limit that is broken.
    pub fn check(&self) -> Result<(), DecodeError> {
        if let Some(retry) = self.retry() {
            retry.check()?;
        }
        match self {
            Request::Get { key } => check_key(key),
            Request::Put {
                key,
                value,
                condition,
                ttl_ms,
                ..
            } => {
                check_key(key)?;
                check_value(value)?;
                check_ttl(*ttl_ms)?;
                condition.check()
            }
            Request::Delete { key, condition, .. } => {
                check_key(key)?;
                condition.check()
            }
            Request::Add { key, ttl_ms, .. } => {
                check_key(key)?;
                check_ttl(*ttl_ms)
            }
            Request::MultiGet { keys } => {
                check_count(Kind::MultiGet, keys.len())?;
                keys.iter().try_for_each(check_key)
            }
            Request::MultiPut { entries, .. } => {
                check_count(Kind::MultiPut, entries.len())?;
                entries.iter().try_for_each(|entry| entry.check())?;
                let bytes = entries.iter().map(|entry| entry.key.len() + entry.value.len());
                check_sum(Kind::MultiPut, bytes)?;
                check_distinct(Kind::MultiPut, entries.iter().map(|entry| entry.key))
            }
            Request::Batch { operations, .. } => {
                check_count(Kind::Batch, operations.len())?;
                operations.iter().try_for_each(|operation| operation.check())?;
                check_sum(Kind::Batch, operations.iter().map(|operation| operation.bytes()))?;
                check_distinct(Kind::Batch, operations.iter().map(|operation| operation.key))
            }
            Request::DeleteRange { start, end, .. } => check_range(start, *end),
            Request::Scan(scan) => check_scan(scan),
            Request::Hello(hello) => check_hello(hello),
            Request::Ping
            | Request::Topology
            | Request::Status
            | Request::Stats
            | Request::Checkpoint { .. }
            | Request::Cancel { .. } => Ok(()),
        }
    }
}

/// The first key after all that begin with a prefix; `None` if there is none, after bytes that are all 0xFF.
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut after = prefix[..=last].to_vec();
    after[last] += 1;
    Some(after)
}

/// The condition in the slots from `condition` on: number, expected version, expected value.
fn trusted_condition<'a>(table: &Table<'a>, condition: usize) -> Condition<'a> {
    let number = table.u8_or_zero(condition);
    let version = table.u64_or_zero(condition + 1);
    Condition::from_wire(number, version, table.bytes(condition + 2))
        .expect("this condition was accepted before")
}

fn trusted_retry(table: &Table<'_>, slot: usize) -> Option<Retry> {
    let bytes = table.fixed(slot)?;
    Some(Retry::from_wire(&tables::Retry(bytes)))
}

fn decode_put(table: tables::Put<'_>) -> Result<Request<'_>, DecodeError> {
    let expected_value = table.expected_value().map(|value| value.bytes());
    Ok(Request::Put {
        key: table.key().bytes(),
        value: table.value().bytes(),
        condition: Condition::from_wire(table.condition().0, table.expected_version(), expected_value)?,
        ttl_ms: table.ttl_ms(),
        retry: table.retry().map(Retry::from_wire),
    })
}

fn decode_delete(table: tables::Delete<'_>) -> Result<Request<'_>, DecodeError> {
    let expected_value = table.expected_value().map(|value| value.bytes());
    Ok(Request::Delete {
        key: table.key().bytes(),
        condition: Condition::from_wire(table.condition().0, table.expected_version(), expected_value)?,
        retry: table.retry().map(Retry::from_wire),
    })
}

fn decode_add(table: tables::Add<'_>) -> Request<'_> {
    Request::Add {
        key: table.key().bytes(),
        delta: table.delta(),
        ttl_ms: table.ttl_ms(),
        retry: table.retry().map(Retry::from_wire),
    }
}

/// The elements are read here to see that each means something; then the list may be handed out.
fn decode_batch(table: tables::Batch<'_>) -> Result<Request<'_>, DecodeError> {
    for operation in table.operations() {
        BatchOperation::from_table(operation)?;
    }
    Ok(Request::Batch {
        operations: BatchOperations::received(table.operations()),
        retry: table.retry().map(Retry::from_wire),
    })
}

fn decode_checkpoint(table: tables::Checkpoint<'_>) -> Result<Request<'_>, DecodeError> {
    let action = match table.action() {
        tables::CheckpointAction::Make => CheckpointAction::Make,
        tables::CheckpointAction::Release => CheckpointAction::Release,
        tables::CheckpointAction(action) => return Err(DecodeError::UnknownCheckpointAction { action }),
    };
    Ok(Request::Checkpoint {
        action,
        id: table.id(),
    })
}

fn decode_delete_range(table: tables::DeleteRange<'_>) -> Request<'_> {
    Request::DeleteRange {
        start: table.start().map_or(&[][..], |start| start.bytes()),
        end: table.end().map(|end| end.bytes()),
        retry: table.retry().map(Retry::from_wire),
    }
}

fn check_range(start: &[u8], end: Option<&[u8]>) -> Result<(), DecodeError> {
    for bound in [start, end.unwrap_or_default()] {
        if bound.len() > SCAN_BOUND_BYTES_MAX {
            return Err(DecodeError::ScanBoundTooLarge { bytes: bound.len() });
        }
    }
    if end.is_some_and(|end| start >= end) {
        return Err(DecodeError::RangeEmpty);
    }
    Ok(())
}

fn decode_scan(body: &[u8]) -> Result<ScanRequest<'_>, DecodeError> {
    let table = verified_table::<tables::Scan<'_>>(Kind::Scan, body)?;
    Ok(ScanRequest {
        start: table.start().map_or(&[][..], |start| start.bytes()),
        end: table.end().map(|end| end.bytes()),
        limit: table.limit(),
        snapshot: table.snapshot(),
        keys_only: table.keys_only(),
        prefix: table.prefix().map_or(&[][..], |prefix| prefix.bytes()),
        reverse: table.reverse(),
    })
}

fn check_scan(scan: &ScanRequest<'_>) -> Result<(), DecodeError> {
    for bound in [scan.start, scan.end.unwrap_or_default(), scan.prefix] {
        if bound.len() > SCAN_BOUND_BYTES_MAX {
            return Err(DecodeError::ScanBoundTooLarge { bytes: bound.len() });
        }
    }
    if scan.limit > SCAN_LIMIT_MAX {
        return Err(DecodeError::ScanLimit { limit: scan.limit });
    }
    Ok(())
}

fn decode_hello(body: &[u8]) -> Result<Hello<'_>, DecodeError> {
    if body.len() > HELLO_BODY_BYTES_MAX {
        return Err(DecodeError::BodyTooLarge {
            kind: Kind::Hello,
            bytes: body.len(),
        });
    }
    let table = verified_table::<tables::Hello<'_>>(Kind::Hello, body)?;
    if table.magic() != MAGIC {
        return Err(DecodeError::Magic { found: table.magic() });
    }
    let core = match table.core() {
        -1 => None,
        core => Some(u16::try_from(core).map_err(|_| DecodeError::Core { core })?),
    };
    Ok(Hello {
        version_min: table.version_min(),
        version_max: table.version_max(),
        cluster_id: ClusterId {
            high: table.cluster_id_high(),
            low: table.cluster_id_low(),
        },
        core,
        client: table.client().unwrap_or_default(),
    })
}

fn check_hello(hello: &Hello<'_>) -> Result<(), DecodeError> {
    let &Hello {
        version_min,
        version_max,
        client,
        ..
    } = hello;
    if version_min == 0 || version_min > version_max {
        return Err(DecodeError::VersionRange {
            version_min,
            version_max,
        });
    }
    if client.len() > CLIENT_NAME_BYTES_MAX {
        return Err(DecodeError::ClientNameTooLarge { bytes: client.len() });
    }
    Ok(())
}
