//! The deletion of all keys of a range in one shard: a write without conditions, whose entry is as long as its bounds,
//! however many keys there are.

use super::Refusal;
use super::command::{COMMAND_HEADER_BYTES, Head};
use super::context::CoreContext;
use super::in_flight::PendingRange;
use super::replica::{ShardReplica, WriteOutcome};
use super::{Ticket, host::ShardHost};
use crate::storage::memtable::Memtable;
use ostrakon_core::sessions::{FAILURE_BYTES, RETRY_BYTES, Retry, Sessions};
use ostrakon_wire::routing::ShardId;

/// The deletion of a range as it reaches a shard.
pub struct RangeDelete<'a> {
    /// The first key.
    pub start: &'a [u8],
    /// Above `start`, excluded; `None` is behind all keys.
    pub end: Option<&'a [u8]>,
    /// Set if it may be sent again.
    pub retry: Option<Retry>,
    /// Who waits.
    pub ticket: Ticket,
}

impl RangeDelete<'_> {
    fn bounds_bytes(&self) -> usize {
        self.start.len() + self.end.map_or(0, <[u8]>::len)
    }

    /// Upper bound of the payload of its entry.
    fn payload_bytes_max(&self) -> usize {
        let retry_bytes = self.retry.map_or(0, |_| RETRY_BYTES + FAILURE_BYTES);
        COMMAND_HEADER_BYTES + retry_bytes + self.bounds_bytes()
    }

    /// Upper bound of the memory that it adds to its shard.
    fn cost_bytes(&self) -> usize {
        let session_bytes = self.retry.map_or(0, |_| Sessions::cost_bytes(0));
        session_bytes + Memtable::range_cost_bytes(self.start.len(), self.end.map_or(0, <[u8]>::len))
    }
}

impl ShardReplica {
    /// Proposes the deletion of a range, or answers what was decided about it before.
    ///
    /// # Errors
    /// Why it was refused; then nothing was done.
    pub fn delete_range(
        &mut self,
        core: &mut CoreContext,
        range: &RangeDelete<'_>,
    ) -> Result<WriteOutcome, Refusal> {
        if let Some(outcome) = self.begin_write(core, range.ticket, range.retry.as_ref())? {
            return Ok(outcome);
        }
        let reserved_bytes = self.admit(core, (range.payload_bytes_max(), range.cost_bytes()), true)?;
        let at = core.hlc.now(core.wall_us);
        self.cover_timestamp(core, at);
        let head = Head::of_delete_range(at, range.retry.as_ref(), range.start, range.end);
        let payload = [head.as_bytes(), range.start, range.end.unwrap_or_default()];
        let (index, place) = self.append(&core.log, &payload);
        self.in_flight.push_range(PendingRange {
            index,
            timestamp: at,
            start: range.start.into(),
            end: range.end.map(Into::into),
        });
        let retry = range.retry.as_ref();
        self.note_proposed(core, (index, place), (at, 0), retry, range.ticket, reserved_bytes);
        Ok(WriteOutcome::Pending)
    }
}

impl ShardHost {
    /// Proposes the deletion of a range in one of this core's shards.
    ///
    /// # Errors
    /// Why it was refused.
    pub fn delete_range(&mut self, shard: ShardId, range: &RangeDelete<'_>) -> Result<WriteOutcome, Refusal> {
        let (replica, core) = self.owned(shard);
        let outcome = replica.delete_range(core, range);
        if matches!(outcome, Err(Refusal::Busy | Refusal::MemoryFull)) {
            self.seal_if_due();
        }
        outcome
    }
}
