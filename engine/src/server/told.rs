//! What the cores of a node have told while their clocks were ahead of the wall.
//!
//! A client brings the timestamps of one core to another, whose clock may be a little lower. That core takes timestamps
//! from outside up to a bound, which counts from the wall ([`observe_checked`]); beyond it only what a core of the
//! same node has told. A message would come too late: the client may be faster. So this is the one word of memory that
//! cores share, written only while a clock is ahead by more than a few seconds, and read only before a timestamp is
//! refused.
//!
//! [`observe_checked`]: ostrakon_core::hlc::Hlc::observe_checked

use std::sync::atomic::{AtomicU64, Ordering};

use ostrakon_core::hlc::Timestamp;

/// How far, in microseconds, a clock is ahead of the wall before it is told of. Less than what a timestamp from outside
/// may be ahead, and more than ceilings and counters account for.
const TOLD_FROM_US: u64 = 5_000_000;

/// The highest clock of all cores of a node that was far ahead of the wall.
#[derive(Debug, Default)]
pub struct ToldClocks(AtomicU64);

impl ToldClocks {
    /// A core's clock, before anybody hears of it.
    pub(super) fn note(&self, clock: Timestamp, wall_us: u64) {
        if clock.micros().saturating_sub(wall_us) > TOLD_FROM_US {
            self.0.fetch_max(clock.0, Ordering::AcqRel);
        }
    }

    /// May a core have told this timestamp?
    pub(super) fn covers(&self, timestamp: Timestamp) -> bool {
        timestamp.0 <= self.0.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clocks_far_ahead_of_the_wall_are_noted() {
        const WALL_US: u64 = 1_700_000_000_000_000;
        let told = ToldClocks::default();
        let (near, far) = (
            Timestamp::from_micros(WALL_US + TOLD_FROM_US),
            Timestamp::from_micros(WALL_US + TOLD_FROM_US + 1),
        );
        told.note(near, WALL_US);
        assert!(!told.covers(near));
        told.note(far, WALL_US);
        told.note(near, 0);
        assert!(told.covers(near) && told.covers(far));
        assert!(!told.covers(Timestamp(far.0 + 1)));
    }
}
