//! The shards of one core: each a Raft state machine, a memtable, a table of sessions, and the proposals between them.
//!
//! A write goes *decide, propose, log durable, raft-committed, applied, answered*:
//! 1. [`ShardReplica::write`](replica::ShardReplica::write) asks the sessions whether the write was here before,
//!    decides its conditions and sums against the applied state and the proposals in flight, gives it a timestamp, and
//!    appends its entry to the core's log.
//! 2. The log reports a durable batch to [`ShardHost::batch_durable`](host::ShardHost::batch_durable), which
//!    steps each shard's Raft and applies what became raft-committed.
//! 3. Only then does the write's ticket come out, for the layer above to answer.
//!
//! A request whose keys lie in tables that have to be read does nothing at first: it says what it lacks, and comes
//! again with it ([`fetched`]). Flushes and merges go on beside ([`upkeep`]), and so does a look at all that is stored
//! ([`scrub`]).
//!
//! This layer knows neither connections nor messages between cores; a [`Ticket`] stands for whoever waits.

pub mod checkpoint;
pub mod command;
mod context;
mod dead;
mod decide;
mod delete_range;
mod disk_room;
pub mod fetched;
mod hiding;
pub mod host;
mod in_flight;
pub mod pages;
mod propose;
mod recovering;
pub mod replica;
pub mod scan;
pub mod scrub;
pub mod statistics;
pub mod upkeep;

#[cfg(test)]
mod host_tests;
#[cfg(test)]
mod tests;

pub use decide::{KeyWrite, Write};
pub use delete_range::RangeDelete;
pub use recovering::{Recovering, is_own_record};

use ostrakon_core::sessions::Answer;
use ostrakon_wire::message::Kind;

use crate::env::CoreId;
use crate::storage::sstable::format::TableId;
use crate::storage::sstable::reader::TableError;

/// What kind of a waiter holds a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A connection's client.
    Client,
    /// A request to several shards, of which this is the part of one.
    Part,
    /// A program that runs in the node's process, on the gateway.
    Program,
}

/// Who waits for an answer. Opaque here, but for the time of execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Core that holds the client's connection.
    pub gateway: CoreId,
    /// What was asked: the form of the answer.
    pub kind: Kind,
    /// The client wants to know where the time went.
    pub is_timed: bool,
    /// Who waits there.
    pub holder: Holder,
    /// The connection; of a part, the gateway's number of the whole.
    pub connection: u64,
    /// The client's number of the request; of a part, the shard; of a program, its place.
    pub request_id: u64,
    /// When its last byte was received, in monotonic nanoseconds.
    pub received_ns: u64,
    /// When the gateway looked at it.
    pub decoded_ns: u64,
    /// When the owner of its shard began with it.
    pub executed_ns: u64,
}

/// Names a read that waits until its shards may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadId(pub u64);

/// Why a request is not carried out. Nothing of it was done, unless [`Refusal::CoreFailed`] ends a write that was
/// under way, or [`Refusal::OutcomeUnknown`] meets a write that was here before.
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
    /// The shard does not remember the write any more: it may have been applied, and is not applied now.
    OutcomeUnknown,
    /// The write is too far ahead of those of its session that the client has no answers to.
    SessionWindow,
    /// The write says that its own answer was received.
    RetryAnswered,
    /// The write says that it was first sent at a time that no honest client can have seen.
    SentAhead,
    /// The write's sequence named another write of its session.
    OtherWrite,
    /// The snapshot lies below the watermark.
    SnapshotTooOld,
    /// A table can't be read there.
    Unreadable(Unreadable),
}

/// A place that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The table.
    pub table: TableId,
    /// From the start of its file, in bytes.
    pub offset: u64,
    /// There are other bytes than were written; else the operating system could not read them.
    pub is_damaged: bool,
}

impl From<&TableError> for Refusal {
    fn from(error: &TableError) -> Refusal {
        let (table, offset) = error.place();
        Refusal::Unreadable(Unreadable {
            table,
            offset,
            is_damaged: matches!(error, TableError::Damaged { .. }),
        })
    }
}

/// Hears the end of what was begun earlier.
pub trait Completions {
    /// A write is decided; what it changed is raft-committed and applied.
    fn decided(&mut self, ticket: Ticket, answer: &Answer);
    /// A write that had to wait is refused.
    fn refused(&mut self, ticket: Ticket, refusal: Refusal);
    /// One more shard of this core may now be read as the read asked for.
    fn read_ready(&mut self, read: ReadId);
}
