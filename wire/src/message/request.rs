//! Requests: what a client asks, as it is after verification.

use super::trusted::Table;
use super::verify::{check_key, check_value, verified_table, verify_fieldless};
use super::{ClusterId, DecodeError, Kind};
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
        condition: Condition,
    },
    /// Removes one key. Answered by `Response::Write`.
    Delete {
        /// The key.
        key: &'a [u8],
        /// What must hold for it.
        condition: Condition,
    },
    /// Reads one page of keys in order. Answered by `Response::Scan`.
    Scan(ScanRequest<'a>),
    /// Asks which core owns which shard. Answered by `Response::Topology`.
    Topology,
    /// Asks how the node is. Answered by `Response::Status`.
    Status,
}

/// What must hold for a write to be applied; else nothing changes and the answer says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Condition {
    /// Nothing: the write is always applied.
    #[default]
    None,
    /// The key doesn't exist.
    Absent,
    /// The key exists.
    Present,
    /// The key exists and has this version, which is not 0.
    Version(u64),
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
}

impl Condition {
    /// Number on the wire and expected version.
    pub(super) fn to_wire(self) -> (u8, u64) {
        match self {
            Condition::None => (tables::Condition::None.0, 0),
            Condition::Absent => (tables::Condition::Absent.0, 0),
            Condition::Present => (tables::Condition::Present.0, 0),
            Condition::Version(version) => (tables::Condition::Version.0, version),
        }
    }

    fn from_wire(condition: u8, version: u64) -> Result<Condition, DecodeError> {
        let known = match tables::Condition(condition) {
            tables::Condition::None => Condition::None,
            tables::Condition::Absent => Condition::Absent,
            tables::Condition::Present => Condition::Present,
            tables::Condition::Version => Condition::Version(version),
            _ => return Err(DecodeError::UnknownCondition { condition }),
        };
        if matches!(known, Condition::Version(_)) == (version == 0) {
            return Err(DecodeError::ExpectedVersion { condition, version });
        }
        Ok(known)
    }
}

impl<'a> Request<'a> {
    /// The kind of this request.
    pub fn kind(&self) -> Kind {
        match self {
            Request::Hello(_) => Kind::Hello,
            Request::Ping => Kind::Ping,
            Request::Get { .. } => Kind::Get,
            Request::Put { .. } => Kind::Put,
            Request::Delete { .. } => Kind::Delete,
            Request::Scan(_) => Kind::Scan,
            Request::Topology => Kind::Topology,
            Request::Status => Kind::Status,
        }
    }

    /// Reads a body that came from outside: verifies it and all limits.
    ///
    /// # Errors
    /// See [`DecodeError`]; [`DecodeError::error_code`] is what to answer. The connection can go on.
    pub fn decode(kind: u16, body: &'a [u8]) -> Result<Request<'a>, DecodeError> {
        let kind = Kind::try_from(kind)?;
        let request = match kind {
            Kind::Get => {
                let table = verified_table::<tables::Get<'a>>(kind, body)?;
                Request::Get {
                    key: table.key().bytes(),
                }
            }
            Kind::Put => {
                let table = verified_table::<tables::Put<'a>>(kind, body)?;
                let condition = Condition::from_wire(table.condition().0, table.expected_version())?;
                Request::Put {
                    key: table.key().bytes(),
                    value: table.value().bytes(),
                    condition,
                }
            }
            Kind::Delete => {
                let table = verified_table::<tables::Delete<'a>>(kind, body)?;
                let condition = Condition::from_wire(table.condition().0, table.expected_version())?;
                Request::Delete {
                    key: table.key().bytes(),
                    condition,
                }
            }
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
                }
            }
            Ok(Kind::Delete) => {
                let table = Table::root(body);
                Request::Delete {
                    key: table.bytes(KEY).unwrap_or_default(),
                    condition: trusted_condition(&table, 1),
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
                })
            }
            // The rest is rare, and a hello's string needs its check anyway.
            _ => Request::decode(kind, body).expect("these bytes were accepted before"),
        }
    }

    /// Does this request hold to all limits? [`Request::decode`] accepts no other, and a client sends no
    /// other.
    ///
    /// # Errors
    /// The limit that is broken.
    pub fn check(&self) -> Result<(), DecodeError> {
        match self {
            Request::Get { key } => check_key(key),
            Request::Put {
                key,
                value,
                condition,
            } => {
                check_key(key)?;
                check_value(value)?;
                check_condition(*condition)
            }
            Request::Delete { key, condition } => {
                check_key(key)?;
                check_condition(*condition)
            }
            Request::Scan(scan) => check_scan(scan),
            Request::Hello(hello) => check_hello(hello),
            Request::Ping | Request::Topology | Request::Status => Ok(()),
        }
    }
}

/// The condition in the slots `condition` and the one after it.
fn trusted_condition(table: &Table<'_>, condition: usize) -> Condition {
    Condition::from_wire(table.u8_or_zero(condition), table.u64_or_zero(condition + 1))
        .expect("this condition was accepted before")
}

fn check_condition(condition: Condition) -> Result<(), DecodeError> {
    let (number, version) = condition.to_wire();
    Condition::from_wire(number, version).map(drop)
}

fn decode_scan(body: &[u8]) -> Result<ScanRequest<'_>, DecodeError> {
    let table = verified_table::<tables::Scan<'_>>(Kind::Scan, body)?;
    Ok(ScanRequest {
        start: table.start().map_or(&[][..], |start| start.bytes()),
        end: table.end().map(|end| end.bytes()),
        limit: table.limit(),
        snapshot: table.snapshot(),
        keys_only: table.keys_only(),
    })
}

fn check_scan(scan: &ScanRequest<'_>) -> Result<(), DecodeError> {
    for bound in [scan.start, scan.end.unwrap_or_default()] {
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
