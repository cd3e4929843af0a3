//! What a client gets back: responses that own their bytes.

use ostrakon_wire::ClusterId;
use ostrakon_wire::message::{
    BatchReply, CheckpointReply, CheckpointShard, ErrorCode, Found, HelloReply, Kind, MultiPutReply,
    Response, ScanEntry, ScanReply, TopologyReply,
};

use crate::error::{Error, ProtocolError};

/// What the server said of itself when the connection was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The protocol version spoken on this connection.
    pub protocol_version: u16,
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
    /// Name and version of the server.
    pub name: String,
    /// Longest key that the server takes, in bytes.
    pub key_bytes_max: u32,
    /// Longest value that the server takes, in bytes.
    pub value_bytes_max: u32,
    /// Longest frame that the server takes, in bytes.
    pub frame_bytes_max: u32,
    /// Most unanswered requests on this connection.
    pub requests_in_flight_max: u32,
    /// Most keys of a multi-get, entries of a multi-put, operations of a batch.
    pub multi_max: u32,
    /// How far the sequence of a write may lie above the lowest one of its session that is not answered.
    pub session_window: u32,
    /// How long writes are remembered after their first sending, at least, in milliseconds.
    pub retry_horizon_ms: u64,
}

/// A key's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Version of the write that the value comes from.
    pub version: u64,
    /// Timestamp (microseconds << 12 | counter) from which on the key is absent; 0: never.
    pub expires: u64,
    /// The value.
    pub value: Vec<u8>,
}

/// One of the values of a multi-get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MultiValue {
    /// The key is there.
    Found(Value),
    /// There is no such key.
    NotFound,
    /// The answer had no room for it: ask again.
    Omitted,
}

/// What became of the entries of a multi-put. Shards decide for themselves: some may be written and others not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultiWritten {
    /// Version of each entry, in order, or why it was not written. With [`ErrorCode::CoreFailed`],
    /// [`ErrorCode::OutcomeUnknown`] and [`ErrorCode::Other`] it may be written, or not.
    pub results: Vec<Result<u64, ErrorCode>>,
    /// The first of the errors, for people; empty if there is none.
    pub message: String,
    /// When to try again, in milliseconds; 0: no hint.
    pub retry_after_ms: u32,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Did the condition hold, and so was the write applied?
    pub applied: bool,
    /// Applied: the write's own version. Else the key's version as it is, 0 if the key is absent.
    pub version: u64,
}

/// One key of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// Its value; empty if only keys were asked for.
    pub value: Vec<u8>,
    /// Version of the write that the value comes from.
    pub version: u64,
    /// Timestamp (microseconds << 12 | counter) from which on the key is absent; 0: never.
    pub expires: u64,
}

/// One page of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The snapshot that was read.
    pub snapshot: u64,
    /// Keys in ascending bytewise order.
    pub entries: Vec<Entry>,
    /// Where the next page starts, if there is more.
    pub resume_key: Option<Vec<u8>>,
}

/// A checkpoint that was made; or that was released, then only its id and the node's are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// As it was named.
    pub id: u64,
    /// All that was written at or below this timestamp is in it; 0 of one that was released.
    pub snapshot: u64,
    /// Its absolute path on the node's machine.
    pub directory: String,
    /// The node.
    pub node_id: u64,
    /// The cluster that the node belongs to.
    pub cluster_id: ClusterId,
    /// What it holds of each shard.
    pub shards: Vec<CheckpointShard>,
}

/// A response that is no error, by kind of request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a ping.
    Pong,
    /// To a get; `None`: there is no such key.
    Get(Option<Value>),
    /// To a put or a delete.
    Write(Written),
    /// To an add: version of the write, and the sum.
    Add {
        /// Version of the write.
        version: u64,
        /// The sum.
        number: i64,
    },
    /// To a multi-get, in the order of the keys.
    MultiGet(Vec<MultiValue>),
    /// To a multi-put.
    MultiPut(MultiWritten),
    /// To a batch.
    Batch(BatchReply),
    /// To a delete-range that was applied in all shards: the highest version that one gave it.
    DeleteRange(u64),
    /// To a cancel: was it in time?
    Cancel(bool),
    /// To a stats request: one JSON object.
    Stats(String),
    /// To a checkpoint request.
    Checkpoint(Checkpoint),
    /// To a scan.
    Scan(Page),
    /// To a topology request.
    Topology(TopologyReply),
    /// To a status request: one JSON object.
    Status(String),
}

impl From<&HelloReply<'_>> for Server {
    fn from(reply: &HelloReply<'_>) -> Server {
        Server {
            protocol_version: reply.version,
            cluster_id: reply.cluster_id,
            node_id: reply.node_id,
            core: reply.core,
            cores: reply.cores,
            shards: reply.shards,
            name: reply.server.to_owned(),
            key_bytes_max: reply.key_bytes_max,
            value_bytes_max: reply.value_bytes_max,
            frame_bytes_max: reply.frame_bytes_max,
            requests_in_flight_max: reply.requests_in_flight_max,
            multi_max: reply.multi_max,
            session_window: reply.session_window,
            retry_horizon_ms: reply.retry_horizon_ms,
        }
    }
}

impl From<&ScanReply<'_>> for Page {
    fn from(reply: &ScanReply<'_>) -> Page {
        let own = |entry: ScanEntry<'_>| Entry {
            key: entry.key.to_vec(),
            value: entry.value.to_vec(),
            version: entry.version,
            expires: entry.expires,
        };
        Page {
            snapshot: reply.snapshot,
            entries: reply.entries.iter().map(own).collect(),
            resume_key: reply.resume_key.map(<[u8]>::to_vec),
        }
    }
}

impl Entry {
    /// As it lies in a page.
    pub(crate) fn as_received(&self) -> ScanEntry<'_> {
        ScanEntry {
            key: &self.key,
            value: &self.value,
            version: self.version,
            expires: self.expires,
        }
    }
}

impl From<&Found<'_>> for Value {
    fn from(found: &Found<'_>) -> Value {
        Value {
            version: found.version,
            expires: found.expires,
            value: found.value.to_vec(),
        }
    }
}

impl From<ostrakon_wire::message::MultiValue<'_>> for MultiValue {
    fn from(value: ostrakon_wire::message::MultiValue<'_>) -> MultiValue {
        use ostrakon_wire::message::MultiValue as Received;
        match value {
            Received::Found(found) => MultiValue::Found(Value::from(&found)),
            Received::NotFound => MultiValue::NotFound,
            Received::Omitted => MultiValue::Omitted,
        }
    }
}

impl From<&MultiPutReply<'_>> for MultiWritten {
    fn from(reply: &MultiPutReply<'_>) -> MultiWritten {
        let code = |entry: usize| reply.codes.get(entry).copied().flatten();
        let result = |(entry, version): (usize, &u64)| code(entry).map_or(Ok(*version), Err);
        MultiWritten {
            results: reply.versions.iter().enumerate().map(result).collect(),
            message: reply.message.to_owned(),
            retry_after_ms: reply.retry_after_ms,
        }
    }
}

impl From<&CheckpointReply<'_>> for Checkpoint {
    fn from(reply: &CheckpointReply<'_>) -> Checkpoint {
        Checkpoint {
            id: reply.id,
            snapshot: reply.snapshot,
            directory: reply.directory.to_owned(),
            node_id: reply.node_id,
            cluster_id: reply.cluster_id,
            shards: reply.shards.clone(),
        }
    }
}

impl From<&Response<'_>> for Answer {
    /// The response with bytes of its own.
    ///
    /// # Panics
    /// If it is a hello or an error, which no call ends with.
    fn from(response: &Response<'_>) -> Answer {
        match response {
            Response::Pong => Answer::Pong,
            Response::Get { found } => Answer::Get(found.as_ref().map(Value::from)),
            Response::Write { applied, version } => Answer::Write(Written {
                applied: *applied,
                version: *version,
            }),
            Response::Add { version, number } => Answer::Add {
                version: *version,
                number: *number,
            },
            Response::MultiGet { values } => Answer::MultiGet(values.iter().map(MultiValue::from).collect()),
            Response::MultiPut(reply) => Answer::MultiPut(MultiWritten::from(reply)),
            Response::Batch(reply) => Answer::Batch(reply.clone()),
            Response::DeleteRange(reply) => Answer::DeleteRange(reply.version),
            Response::Cancel { cancelled } => Answer::Cancel(*cancelled),
            Response::Checkpoint(reply) => Answer::Checkpoint(Checkpoint::from(reply)),
            Response::Stats { json } => Answer::Stats((*json).to_owned()),
            Response::Scan(reply) => Answer::Scan(Page::from(reply)),
            Response::Topology(topology) => Answer::Topology(topology.clone()),
            Response::Status { json } => Answer::Status((*json).to_owned()),
            Response::Hello(_) | Response::Error(_) => unreachable!("no call ends with this: {response:?}"),
        }
    }
}

impl Written {
    /// The version of a write that had no condition.
    pub(crate) fn into_unconditional(self) -> Result<u64, Error> {
        if self.applied {
            return Ok(self.version);
        }
        Err(Error::Protocol(ProtocolError::UnconditionalNotApplied).for_sent(Kind::Put))
    }
}

/// Makes methods that take an answer apart. A session fits answers to requests, so none is of another kind.
macro_rules! taken_apart {
    ($($name:ident: $pattern:pat => $value:expr, $Value:ty;)*) => {
        impl Answer {
            $(
                pub(crate) fn $name(self) -> $Value {
                    match self {
                        $pattern => $value,
                        other => unreachable!("this answers another kind of request: {other:?}"),
                    }
                }
            )*
        }
    };
}

taken_apart! {
    into_pong: Answer::Pong => (), ();
    into_value: Answer::Get(value) => value, Option<Value>;
    into_written: Answer::Write(written) => written, Written;
    into_sum: Answer::Add { version, number } => (version, number), (u64, i64);
    into_values: Answer::MultiGet(values) => values, Vec<MultiValue>;
    into_multi_written: Answer::MultiPut(written) => written, MultiWritten;
    into_batch: Answer::Batch(reply) => reply, BatchReply;
    into_range_version: Answer::DeleteRange(version) => version, u64;
    into_page: Answer::Scan(page) => page, Page;
    into_topology: Answer::Topology(topology) => topology, TopologyReply;
    into_checkpoint: Answer::Checkpoint(checkpoint) => checkpoint, Checkpoint;
    into_json: Answer::Status(json) | Answer::Stats(json) => json, String;
}
