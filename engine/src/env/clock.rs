//! Time as the node sees it. Nothing above `env` asks the operating system; a turn reads the clock once.

use core::time::Duration;

/// Nanoseconds since the machine started, suspended time included (`CLOCK_BOOTTIME`). Never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MonotonicNs(pub u64);

impl MonotonicNs {
    /// Nanoseconds from `earlier` to `self`; zero if `earlier` is later.
    pub fn since_ns(self, earlier: MonotonicNs) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This instant plus a duration.
    pub fn plus(self, duration: Duration) -> MonotonicNs {
        MonotonicNs(self.0 + duration.as_nanos() as u64)
    }
}

/// Microseconds since 1970-01-01 UTC as the wall clock shows them. May jump both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallUs(pub u64);

/// The two clocks of a machine.
pub trait Clock {
    /// Monotonic time.
    fn monotonic(&self) -> MonotonicNs;
    /// Wall time.
    fn wall(&self) -> WallUs;
}
