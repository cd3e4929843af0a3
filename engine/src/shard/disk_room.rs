//! How many bytes of memtables a core can surely flush, by what is free on the file system.
//!
//! What is free is looked at every now and then. In between the core's log goes on, and takes space before a flush can
//! give any back; so what it takes is counted at each write. What a core may take in is what stays then beside the
//! space that is kept ([`kept_bytes`]): a flush that finds no room gives nothing back either, and a core whose
//! memtables hold more than it can flush takes no write until somebody frees space by hand.
//!
//! Deletes may have half of the kept space as well, as far as tables may use it. The other half is for merges, which
//! write before they remove. Where something else has taken the kept space, deletes may have half of what is left: they
//! are safe in the log, and are flushed once there is room.

use crate::limits::{
    DISK_RESERVE_BYTES, KEPT_FREE_BYTES_MAX, KEPT_FREE_PARTS, SMALLEST_TABLE_BYTES, STORE_RESERVE_BYTES,
};

/// Memtables are flushed early at one part of this many of what deletes may have, if puts may have next to nothing.
const EARLY_FLUSH_PARTS: u64 = 8;
/// Memtables with fewer bytes together are not flushed early.
const EARLY_FLUSH_BYTES_MIN: u64 = 256 << 10;

/// What a core's log has taken, and will take soon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogNeed {
    /// How far it has come, in bytes of segments: [`Log::position_bytes`](crate::log::Log::position_bytes).
    pub(super) position_bytes: u64,
    /// Bytes of the segments that it makes next: [`Log::unmade_bytes`](crate::log::Log::unmade_bytes).
    pub(super) unmade_bytes: u64,
}

/// A core's share of the file system's room, as it was at the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "the unit is the last word of a name")]
pub(super) struct DiskRoom {
    /// For memtables and what the log takes from `log_position_bytes` on.
    shared_bytes: u64,
    /// How many more bytes of memtables deletes may have.
    delete_bytes: u64,
    log_position_bytes: u64,
}

/// Bytes that stay free on a file system with so many bytes of tables.
pub(super) fn kept_bytes(table_bytes: u64) -> u64 {
    (table_bytes / KEPT_FREE_PARTS).clamp(DISK_RESERVE_BYTES, KEPT_FREE_BYTES_MAX)
}

impl DiskRoom {
    /// Before anybody has looked.
    pub(super) const UNKNOWN: DiskRoom = DiskRoom {
        shared_bytes: u64::MAX,
        delete_bytes: 0,
        log_position_bytes: 0,
    };

    /// The share of one of `cores` cores in a file system with so many free bytes, of which `kept_bytes` are kept.
    pub(super) fn of(free_bytes: u64, kept_bytes: u64, cores: u16, log: LogNeed) -> DiskRoom {
        let cores = u64::from(cores);
        let beside_kept_bytes = free_bytes.saturating_sub(kept_bytes) / cores;
        let for_tables_bytes = (kept_bytes - STORE_RESERVE_BYTES).min(free_bytes);
        DiskRoom {
            shared_bytes: beside_kept_bytes.saturating_sub(log.unmade_bytes),
            delete_bytes: for_tables_bytes / 2 / cores,
            log_position_bytes: log.position_bytes,
        }
    }

    /// Bytes of memtables that can surely be flushed now that the log has come so far.
    pub(super) fn flushable_bytes(&self, log_position_bytes: u64, is_delete: bool) -> u64 {
        let logged_bytes = log_position_bytes - self.log_position_bytes;
        let for_all_bytes = self.shared_bytes.saturating_sub(logged_bytes);
        for_all_bytes.saturating_add(if is_delete { self.delete_bytes } else { 0 })
    }

    /// Is there so little that deletes may have more than all others?
    pub(super) fn is_short(&self) -> bool {
        self.shared_bytes <= self.delete_bytes
    }

    /// Is it time to flush the memtables that take writes, because they have come to half of what puts may have beside
    /// the rest of `used_bytes`, and to a good part of what deletes may have? What the log keeps for them can be freed
    /// then. Not as long as their tables would take more than they do themselves, unless deletes come to need that.
    /// `active` tells how many memtables have something, and their bytes together.
    pub(super) fn asks_for_flush(
        &self,
        log_position_bytes: u64,
        used_bytes: usize,
        active: impl FnOnce() -> (u64, usize),
    ) -> bool {
        let used_bytes = used_bytes as u64;
        let [for_puts_bytes, for_deletes_bytes] =
            [false, true].map(|is_delete| self.flushable_bytes(log_position_bytes, is_delete));
        let due_bytes = |rest_bytes: u64| {
            let half_of_puts_bytes = for_puts_bytes.saturating_sub(rest_bytes) / 2;
            let part_of_deletes_bytes = for_deletes_bytes.saturating_sub(rest_bytes) / EARLY_FLUSH_PARTS;
            half_of_puts_bytes.max(part_of_deletes_bytes)
        };
        // Without a look at the memtables: they hold all of it at most.
        if used_bytes < due_bytes(used_bytes) {
            return false;
        }
        let (tables, active_bytes) = active();
        let active_bytes = active_bytes as u64;
        let rest_bytes = used_bytes.saturating_sub(active_bytes);
        let half_of_deletes_bytes = for_deletes_bytes.saturating_sub(rest_bytes) / 2;
        let tables_bytes = (tables * SMALLEST_TABLE_BYTES).min(half_of_deletes_bytes);
        active_bytes > due_bytes(rest_bytes).max(tables_bytes).max(EARLY_FLUSH_BYTES_MIN)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_the_log_takes_is_not_for_memtables() {
        let log = LogNeed {
            position_bytes: 7 * MIB,
            unmade_bytes: 6 * MIB,
        };
        let room = DiskRoom::of(164 * MIB, 64 * MIB, 2, log);
        assert_eq!(room.flushable_bytes(7 * MIB, false), 44 * MIB);
        assert_eq!(room.flushable_bytes(17 * MIB, false), 34 * MIB);
        assert_eq!(room.flushable_bytes(900 * MIB, false), 0);
        assert_eq!(room.flushable_bytes(900 * MIB, true), 12 * MIB);
        assert_eq!(DiskRoom::UNKNOWN.flushable_bytes(0, false), u64::MAX);
    }

    #[test]
    fn memtables_are_flushed_before_there_is_no_room_for_them() {
        let asks = |room: DiskRoom, rest_mib: usize, active_bytes: usize| {
            room.asks_for_flush(0, (rest_mib << 20) + active_bytes, || (1, active_bytes))
        };
        let (mib, least) = (MIB as usize, EARLY_FLUSH_BYTES_MIN as usize);
        // Puts may have 100 MiB: at half of what the rest leaves them.
        let room = DiskRoom::of(164 * MIB, 64 * MIB, 1, LogNeed::default());
        assert!(!asks(room, 0, 50 * mib) && asks(room, 0, 50 * mib + 1));
        assert!(!asks(room, 60, 20 * mib) && asks(room, 60, 20 * mib + 1));
        assert!(!room.is_short());
        // Puts may have nothing, and deletes 24 MiB: at an eighth of what the rest leaves them.
        let room = DiskRoom::of(64 * MIB, 64 * MIB, 1, LogNeed::default());
        assert!(!asks(room, 0, 3 * mib) && asks(room, 0, 3 * mib + 1));
        assert!(!asks(room, 8, 2 * mib) && asks(room, 8, 2 * mib + 1));
        assert!(room.is_short());
        // However much the rest is, not for next to nothing.
        assert!(!asks(room, 500, least) && asks(room, 500, least + 1));
        // Many shards with little each: at half of what deletes may have.
        let tables = 4096;
        let asks_for_many = |bytes: usize| room.asks_for_flush(0, bytes, || (tables, bytes));
        assert!(!asks_for_many(12 * mib) && asks_for_many(12 * mib + 1));
        assert!(!asks(DiskRoom::UNKNOWN, 0, usize::MAX >> 2) && !DiskRoom::UNKNOWN.is_short());
    }

    #[test]
    fn what_is_kept_grows_with_the_tables() {
        assert_eq!(kept_bytes(0), DISK_RESERVE_BYTES);
        assert_eq!(kept_bytes(160 * 16 * MIB), 160 * MIB);
        assert_eq!(kept_bytes(u64::MAX), KEPT_FREE_BYTES_MAX);
    }

    proptest! {
        /// All cores can flush all that they took in, one memtable after the other, once the logs have taken their
        /// part, and the space that tables leave free stays free; unless something else has taken that before.
        #[test]
        fn whatever_was_taken_in_can_be_flushed(
            free_bytes in 2 * STORE_RESERVE_BYTES..4096 * MIB,
            table_bytes in 0..64_000 * MIB,
            cores in 1..64_u16,
            unmade_bytes in 0..128 * MIB,
            logged_bytes in 0..2048 * MIB,
        ) {
            let log = LogNeed { position_bytes: 5, unmade_bytes };
            let kept_bytes = kept_bytes(table_bytes);
            let room = DiskRoom::of(free_bytes, kept_bytes, cores, log);
            let share_bytes = free_bytes.saturating_sub(kept_bytes) / u64::from(cores);
            // A log begins no segment in what is kept, but to free another.
            let made_bytes = (unmade_bytes + logged_bytes).min(share_bytes);
            let after_log_bytes = free_bytes - made_bytes * u64::from(cores);
            let taken_in_bytes = room.flushable_bytes(5 + logged_bytes, true) * u64::from(cores);
            prop_assert!(taken_in_bytes <= after_log_bytes.saturating_sub(STORE_RESERVE_BYTES));
        }
    }
}
