//! Responses: what a server answers, as it is after verification.

use flatbuffers::{ForwardsUOffset, Vector, VectorIter};

use super::verify::{check_key, check_value, verified_table, verify_fieldless};
use super::{ClusterId, DecodeError, ErrorCode, Kind};
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
        /// Version and value, unless there is no such key.
        found: Option<(u64, &'a [u8])>,
    },
    /// What became of a put or a delete.
    Write {
        /// Did the condition hold?
        applied: bool,
        /// Applied: the write's own version. Else the key's version as it is, 0 if the key is absent.
        version: u64,
    },
    /// One page of a scan.
    Scan(ScanReply<'a>),
    /// Which core owns which shard.
    Topology(TopologyReply),
    /// How the node is.
    Status {
        /// One JSON object.
        json: &'a str,
    },
    /// The request was refused or failed.
    Error(ErrorReply<'a>),
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
}

/// One page of a scan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScanReply<'a> {
    /// The snapshot that was read: for the next page.
    pub snapshot: u64,
    /// Keys in ascending bytewise order. May be empty although there is more.
    pub entries: ScanEntries<'a>,
    /// Where the next page starts, if there is more (the wire's `more` and `resume_key` in one).
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
}

/// The entries of a scan page: a slice on the way out, the received bytes on the way in. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct ScanEntries<'a>(Source<'a>);

#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    Slice(&'a [ScanEntry<'a>]),
    Received(Vector<'a, ForwardsUOffset<tables::ScanEntry<'a>>>),
}

/// Iterator over the entries of a page; allocates nothing.
#[derive(Clone, Debug)]
pub struct ScanEntriesIter<'a>(SourceIter<'a>);

#[derive(Clone, Debug)]
enum SourceIter<'a> {
    Slice(std::slice::Iter<'a, ScanEntry<'a>>),
    Received(VectorIter<'a, ForwardsUOffset<tables::ScanEntry<'a>>>),
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
                found: Some((table.version(), value.bytes())),
            })
        }
        (false, None) => Ok(Response::Get { found: None }),
        (true, None) => contradiction(kind, "found, but without a value"),
        (false, Some(_)) => contradiction(kind, "not found, but with a value"),
    }
}

fn decode_scan(body: &[u8]) -> Result<Response<'_>, DecodeError> {
    let kind = Kind::ScanReply;
    let table = verified_table::<tables::ScanReply<'_>>(kind, body)?;
    let entries = ScanEntries(table.entries().map_or(Source::Slice(&[]), Source::Received));
    let mut before: &[u8] = &[];
    for entry in entries {
        check_key(entry.key)?;
        check_value(entry.value)?;
        // No key is empty, so the first one is above `before` too.
        if entry.key <= before {
            return contradiction(kind, "keys are not in ascending order");
        }
        before = entry.key;
    }
    let resume_key = match (table.more(), table.resume_key()) {
        (true, Some(resume_key)) => {
            let resume_key = resume_key.bytes();
            if resume_key.len() > SCAN_BOUND_BYTES_MAX {
                return Err(DecodeError::ScanBoundTooLarge {
                    bytes: resume_key.len(),
                });
            }
            if resume_key <= before {
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

impl<'a> ScanEntries<'a> {
    /// Number of entries.
    pub fn len(&self) -> usize {
        match &self.0 {
            Source::Slice(entries) => entries.len(),
            Source::Received(entries) => entries.len(),
        }
    }

    /// Is there no entry?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entries in order.
    pub fn iter(&self) -> ScanEntriesIter<'a> {
        ScanEntriesIter(match &self.0 {
            Source::Slice(entries) => SourceIter::Slice(entries.iter()),
            Source::Received(entries) => SourceIter::Received(entries.iter()),
        })
    }
}

impl<'a> From<&'a [ScanEntry<'a>]> for ScanEntries<'a> {
    fn from(entries: &'a [ScanEntry<'a>]) -> ScanEntries<'a> {
        ScanEntries(Source::Slice(entries))
    }
}

impl<'a> IntoIterator for ScanEntries<'a> {
    type Item = ScanEntry<'a>;
    type IntoIter = ScanEntriesIter<'a>;

    fn into_iter(self) -> ScanEntriesIter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &ScanEntries<'a> {
    type Item = ScanEntry<'a>;
    type IntoIter = ScanEntriesIter<'a>;

    fn into_iter(self) -> ScanEntriesIter<'a> {
        self.iter()
    }
}

impl PartialEq for ScanEntries<'_> {
    fn eq(&self, other: &ScanEntries<'_>) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a> Iterator for ScanEntriesIter<'a> {
    type Item = ScanEntry<'a>;

    fn next(&mut self) -> Option<ScanEntry<'a>> {
        match &mut self.0 {
            SourceIter::Slice(entries) => entries.next().copied(),
            SourceIter::Received(entries) => entries.next().map(|entry| ScanEntry {
                key: entry.key().bytes(),
                value: entry.value().map_or(&[][..], |value| value.bytes()),
                version: entry.version(),
            }),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.0 {
            SourceIter::Slice(entries) => entries.size_hint(),
            SourceIter::Received(entries) => entries.size_hint(),
        }
    }
}

impl ExactSizeIterator for ScanEntriesIter<'_> {}
