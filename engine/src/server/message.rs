//! What the cores of a node send each other.
//!
//! A batch carries all messages that a core had for another since the last one, and one buffer with their
//! bytes: request bodies on the way to the owner, whole response frames on the way back. So a request that
//! crosses cores costs a copy and no allocation.

use core::ops::Range;

use ostrakon_core::hlc::Timestamp;
use ostrakon_wire::message::Kind;
use ostrakon_wire::routing::ShardId;

use super::checkpoints::{CheckpointPart, CheckpointRefusal};
use super::several::ValuesPart;
use super::startup::StartMessage;
use super::status::CoreStatus;
use super::status::report::CoreReport;
use crate::env::DetachedConnection;
use crate::shard::scan::{ScanPage, ScanRange};
use crate::shard::{Refusal, Ticket};

/// All messages from one core to another since the last batch.
#[derive(Default)]
pub struct CoreBatch {
    /// The sender's clock.
    pub timestamp: Timestamp,
    /// The bytes that messages refer to.
    pub bytes: Vec<u8>,
    /// The messages, in order.
    pub messages: Vec<CoreMessage>,
}

/// A client's request on its way to the owner of its shard.
#[derive(Clone, Debug)]
pub struct ForwardedRequest {
    /// Who waits, on the sending core.
    pub ticket: Ticket,
    /// Its shard, owned by the receiving core.
    pub shard: ShardId,
    /// Hash of its key in the shard's memtable; of a batch 0.
    pub hash: u64,
    /// The body, verified by the gateway, in the batch's bytes.
    pub body: Range<usize>,
}

/// A response on its way back to the gateway.
#[derive(Clone, Debug)]
pub struct ForwardedResponse {
    /// Who waits, on the receiving core.
    pub ticket: Ticket,
    /// The whole frame, in the batch's bytes.
    pub frame: Range<usize>,
}

/// A connection that its client wants on another core.
pub struct HandOver {
    /// The stream.
    pub connection: DetachedConnection,
    /// The hello's request id, still to be answered.
    pub request_id: u64,
    /// Bytes that came after the hello.
    pub received: Vec<u8>,
}

/// Numbers a question that one core asks all cores, on the asking core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GatherId(pub u64);

/// One message.
pub enum CoreMessage {
    /// Execute and answer.
    Request(ForwardedRequest),
    /// Pass to the client.
    Response(ForwardedResponse),
    /// Say what your clock shows (the answer's batch does).
    AskClock(GatherId),
    /// The answer.
    Clock {
        /// The question.
        gather: GatherId,
        /// True while the answering core can make no further log segment.
        is_disk_full: bool,
    },
    /// Read a page of your shards at a snapshot.
    AskScan(GatherId, Timestamp, Box<ScanRange>),
    /// The page, or why there is none.
    Scan(GatherId, Result<Box<ScanPage>, Refusal>),
    /// Read those keys of a multi-get, in the batch's bytes, that are yours.
    AskValues(GatherId, Range<usize>),
    /// What they have, or why it can't be told.
    Values(GatherId, Result<Box<ValuesPart>, Refusal>),
    /// Write those entries of a multi-put, in the batch's bytes, that are yours.
    AskPuts(Ticket, Range<usize>),
    /// Delete a range, which is in the batch's bytes, in each of your shards.
    AskDeleteRange(Ticket, Range<usize>),
    /// What became of one shard's part of a multi-put or delete-range.
    Part(GatherId, ShardId, Result<Timestamp, Refusal>),
    /// Link your tables, as they are at a timestamp, into a checkpoint.
    AskCheckpoint(GatherId, u64, Timestamp),
    /// What was linked, or why nothing was.
    Checkpoint(GatherId, Box<Result<CheckpointPart, CheckpointRefusal>>),
    /// Leave a checkpoint alone, which is about to be removed.
    AskRelease(GatherId, u64),
    /// Done.
    Released(GatherId),
    /// Describe yourself.
    AskStatus(GatherId),
    /// The description.
    Status(GatherId, Box<CoreStatus>),
    /// Report all that you count.
    AskReport(GatherId),
    /// The report.
    Report(GatherId, Box<CoreReport>),
    /// Take over a connection.
    HandOver(Box<HandOver>),
    /// Steps of start and stop.
    Start(Box<StartMessage>),
}

impl CoreMessage {
    /// The message, if it asks for the value of a key.
    pub fn as_get(&self) -> Option<&ForwardedRequest> {
        match self {
            CoreMessage::Request(request) if request.ticket.kind == Kind::Get => Some(request),
            _ => None,
        }
    }
}

/// A local name for a gather of another core: who asked, and under which number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The asking core.
    pub core: crate::env::CoreId,
    /// Its number there.
    pub gather: GatherId,
}
