//! What the replicas of a core share: log, clock, memory.

use std::cell::RefCell;

use ostrakon_core::hlc::{Hlc, MICROS_MAX, Timestamp};

use super::decide::Decided;
use super::disk_room::DiskRoom;
use crate::limits::{DELETE_RESERVE_PARTS, SENT_AHEAD_MAX_US};
use crate::log::Log;

/// What the replicas of a core share.
pub struct CoreContext {
    /// The core's log.
    pub log: Log,
    /// The core's clock.
    pub hlc: Hlc,
    /// Wall time of this turn, in microseconds.
    pub wall_us: u64,
    /// The core's memory.
    pub memory: MemoryBudget,
    /// Empty between two calls; kept for its allocation, as are the next two.
    pub(super) decided: Vec<Decided>,
    pub(super) operations: Vec<u8>,
    pub(super) numbers: Vec<i64>,
    /// For keys in their form in tables; kept for its allocation.
    pub(super) scratch: RefCell<Vec<u8>>,
    /// For how long, in microseconds, old versions can be read.
    pub(super) retention_us: u64,
    /// Memtables can't be flushed for want of space.
    pub(super) is_store_full: bool,
    /// What memtables may come to hold.
    pub(super) disk_room: DiskRoom,
    /// Writes that were refused because memtables waited to be flushed.
    pub(super) stalled_writes: u64,
}

impl CoreContext {
    /// Has the file system no room to flush what memtables hold, and so many bytes more, once the log has the payload?
    pub(super) fn is_full_for(&self, (payload_bytes, cost_bytes): (usize, usize), is_delete: bool) -> bool {
        let log_bytes = self.log.position_bytes() + payload_bytes as u64;
        let flushable_bytes = self.disk_room.flushable_bytes(log_bytes, is_delete);
        let needed_bytes = self.memory.used_bytes + self.memory.reserved_bytes + cost_bytes;
        needed_bytes as u64 > flushable_bytes || self.is_store_full && !is_delete
    }

    /// The later of the core's clock and the wall's, without moving the clock.
    pub(super) fn latest(&self) -> Timestamp {
        let wall = Timestamp::from_micros(self.wall_us.min(MICROS_MAX));
        self.hlc.peek().max(wall)
    }

    /// What nobody may read below at this time.
    pub(super) fn watermark_at(&self, now: Timestamp) -> Timestamp {
        Timestamp::from_micros(now.micros().saturating_sub(self.retention_us))
    }

    /// Is this, the time of a write's first sending, too far ahead? A session lives until the horizon has passed it, so
    /// it must be about now; clients estimate it.
    pub(super) fn is_sent_ahead(&self, first_sent: Timestamp) -> bool {
        let clock_us = self.hlc.peek().micros().max(self.wall_us);
        first_sent.micros() > clock_us.saturating_add(SENT_AHEAD_MAX_US)
    }
}

/// Bytes that the shards of a core take and may take.
#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "the unit is the last word of a name")]
pub struct MemoryBudget {
    /// The bound.
    pub budget_bytes: usize,
    /// What memtables and sessions hold.
    pub used_bytes: usize,
    /// The part of it that is sealed: a flush gives it back.
    pub sealed_bytes: usize,
    /// What the proposals in flight may come to need.
    pub reserved_bytes: usize,
}

impl MemoryBudget {
    /// The bound for a write: deletes go on for a while when puts no longer can.
    pub(super) fn budget_bytes(&self, is_delete: bool) -> usize {
        if is_delete {
            self.budget_bytes
        } else {
            self.budget_bytes - self.budget_bytes / DELETE_RESERVE_PARTS
        }
    }

    pub(super) fn changed(&mut self, before_bytes: usize, after_bytes: usize) {
        self.used_bytes = self.used_bytes + after_bytes - before_bytes;
    }
}
