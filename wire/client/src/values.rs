//! What a client gets back: responses that own their bytes.

use ostrakon_wire::ClusterId;
use ostrakon_wire::message::{HelloReply, ScanReply, TopologyReply};

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
}

/// A key's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Version of the write that the value comes from.
    pub version: u64,
    /// The value.
    pub value: Vec<u8>,
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

/// A response that is no error, by kind of request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a ping.
    Pong,
    /// To a get; `None`: there is no such key.
    Get(Option<Value>),
    /// To a put or a delete.
    Write(Written),
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
        }
    }
}

impl From<&ScanReply<'_>> for Page {
    fn from(reply: &ScanReply<'_>) -> Page {
        let own = |entry: ostrakon_wire::message::ScanEntry<'_>| Entry {
            key: entry.key.to_vec(),
            value: entry.value.to_vec(),
            version: entry.version,
        };
        Page {
            snapshot: reply.snapshot,
            entries: reply.entries.iter().map(own).collect(),
            resume_key: reply.resume_key.map(<[u8]>::to_vec),
        }
    }
}
