//! Responses: what a server answers, as it is after verification (`decode`).

mod decode;

use super::list::{MultiValues, ScanEntries};
use super::{ClusterId, ErrorCode, ScanRequest};
use crate::generated::client_generated::ostrakon::wire as tables;

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
    /// What became of a delete-range.
    DeleteRange(DeleteRangeReply<'a>),
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
    /// What became of a checkpoint.
    Checkpoint(CheckpointReply<'a>),
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

/// What became of a delete-range. Shards decide for themselves: it may be applied in some and not in others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteRangeReply<'a> {
    /// The highest version that a shard gave it; 0 if it was applied in none.
    pub version: u64,
    /// Shards in which it was applied.
    pub applied: u32,
    /// Shards in which it surely was not.
    pub refused: u32,
    /// Shards in which it may have been applied.
    pub unknown: u32,
    /// Why it was not applied in all; `None` if it was.
    pub error: Option<ErrorReply<'a>>,
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

/// A checkpoint that was made; or that was released, then only its id and the node's are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointReply<'a> {
    /// As the client has named it.
    pub id: u64,
    /// All that was written at or below this timestamp is in it; 0 of one that was released.
    pub snapshot: u64,
    /// Its absolute path on the node's machine.
    pub directory: &'a str,
    /// The node.
    pub node_id: u64,
    /// The cluster that the node belongs to.
    pub cluster_id: ClusterId,
    /// What it holds of each shard.
    pub shards: Vec<CheckpointShard>,
}

/// What a checkpoint holds of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointShard {
    /// Number of tables.
    pub tables: u32,
    /// Their length.
    pub bytes: u64,
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
    pub(in crate::message) fn from_table(table: tables::ScanEntry<'a>) -> ScanEntry<'a> {
        ScanEntry {
            key: table.key().bytes(),
            value: table.value().map_or(&[][..], |value| value.bytes()),
            version: table.version(),
            expires: table.expires(),
        }
    }
}

impl<'a> MultiValue<'a> {
    pub(in crate::message) fn from_table(table: tables::MultiGetValue<'a>) -> MultiValue<'a> {
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
