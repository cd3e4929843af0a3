//! The shards of one core: each a Raft state machine, a memtable, and the proposals between them.
//!
//! A write goes *propose, log durable, raft-committed, applied, answered*:
//! 1. [`ShardReplica::write`](replica::ShardReplica::write) checks its condition against the applied state and
//!    the proposals in flight, gives it a timestamp, and appends its entry to the core's log.
//! 2. The log reports a durable batch to [`ShardHost::batch_durable`](host::ShardHost::batch_durable), which
//!    steps each shard's Raft and applies what became raft-committed.
//! 3. Only then does the write's ticket come out, for the layer above to answer.
//!
//! This layer knows neither connections nor messages between cores; a [`Ticket`] stands for whoever waits.

pub mod command;
pub mod host;
pub mod replica;
pub mod scan;

#[cfg(test)]
mod tests;

use ostrakon_core::hlc::Timestamp;

use crate::env::CoreId;

/// Who waits for an answer. Opaque here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Core that holds the client's connection.
    pub gateway: CoreId,
    /// The connection there.
    pub connection: u64,
    /// The client's number of the request.
    pub request_id: u64,
    /// When the gateway decoded the request, in monotonic nanoseconds.
    pub received_ns: u64,
    /// As what the gateway counts the request.
    pub tag: u8,
}

/// Names a scan that waits until its shards may be read at its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScanId(pub u64);

/// Why a request is not carried out. Nothing of it was done, unless [`Refusal::CoreFailed`] ends a write that was
/// under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A queue is full: try again soon.
    Busy,
    /// Key and value do not fit into a log segment of this cluster's size.
    TooLarge,
    /// The memtables have reached the memory budget.
    MemoryFull,
    /// The file system has no room for the log.
    DiskFull,
    /// The core's log has failed; it serves nothing until the node is restarted.
    CoreFailed,
}

/// Hears the end of what was begun earlier.
pub trait Completions {
    /// A write is raft-committed and applied (`applied`), or its condition does not hold (then `version` is
    /// the key's current one, zero when it is absent).
    fn written(&mut self, ticket: Ticket, applied: bool, version: Timestamp);
    /// All shards of this core may now be read at the scan's snapshot.
    fn scan_ready(&mut self, scan: ScanId);
}
