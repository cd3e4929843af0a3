//! What the cores of a node have told: the only words of memory that cores share. Each is written by one core.
//!
//! - Clocks. A client brings the timestamps of one core to another, whose clock may be a little lower. That core takes
//!   timestamps from outside up to a bound, which counts from the wall ([`observe_checked`]); beyond it only what a
//!   core of the same node has told. A message would come too late: the client may be faster. They are read only before
//!   a timestamp is refused.
//! - Bytes of tables, of which a part stays free on the file system that the cores share. Once a second.
//!
//! [`observe_checked`]: ostrakon_core::hlc::Hlc::observe_checked

use std::sync::atomic::{AtomicU64, Ordering};

use ostrakon_core::hlc::Timestamp;

use crate::env::CoreId;

/// What each core of a node has told.
#[derive(Debug)]
pub struct ToldByCores(Box<[Told]>);

/// One core's words, in a cache line of their own (and in the one that is fetched along with it).
#[derive(Debug, Default)]
#[repr(align(128))]
struct Told {
    clock: AtomicU64,
    table_bytes: AtomicU64,
}

impl ToldByCores {
    /// Of a node of so many cores, which have told nothing.
    pub fn new(cores: u16) -> ToldByCores {
        ToldByCores((0..cores).map(|_| Told::default()).collect())
    }

    /// A core's clock, before anybody hears of it. Its clocks never go down.
    pub(super) fn note_clock(&self, core: CoreId, clock: Timestamp) {
        self.0[core.index()].clock.store(clock.0, Ordering::Release);
    }

    /// May a core have told this timestamp?
    pub(super) fn covers(&self, timestamp: Timestamp) -> bool {
        self.0
            .iter()
            .any(|told| timestamp.0 <= told.clock.load(Ordering::Acquire))
    }

    /// Bytes of a core's tables.
    pub(super) fn note_table_bytes(&self, core: CoreId, bytes: u64) {
        self.0[core.index()].table_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Bytes of the tables of all cores.
    pub(super) fn table_bytes(&self) -> u64 {
        self.0
            .iter()
            .map(|told| told.table_bytes.load(Ordering::Relaxed))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_any_core_has_told_is_covered() {
        let told = ToldByCores::new(2);
        assert!(!told.covers(Timestamp(1)));
        told.note_clock(CoreId(0), Timestamp(7));
        told.note_clock(CoreId(1), Timestamp(9));
        assert!(told.covers(Timestamp(7)) && told.covers(Timestamp(9)));
        assert!(!told.covers(Timestamp(10)));
    }

    #[test]
    fn the_tables_of_all_cores_count() {
        let told = ToldByCores::new(2);
        told.note_table_bytes(CoreId(0), 7);
        told.note_table_bytes(CoreId(1), 9);
        told.note_table_bytes(CoreId(0), 5);
        assert_eq!(told.table_bytes(), 14);
    }
}
