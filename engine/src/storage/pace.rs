//! How fast background work may use the device: so many bytes a second, in small portions, so that requests find it
//! free.

use core::cell::Cell;
use core::time::Duration;
use std::rc::Rc;

use crate::env::{Clock, Tasks};

/// Work that is ahead of its rate by less than this goes on: a shorter sleep would cost more than it is worth.
const AHEAD_MAX_NS: u64 = 2_000_000;

/// A token bucket in which tokens are bytes. It holds what [`AHEAD_MAX_NS`] bring.
pub struct Pace {
    clock: Rc<dyn Clock>,
    tasks: Rc<dyn Tasks>,
    bytes_per_second: Cell<u64>,
    /// When all that was spent would be earned.
    earned_at_ns: Cell<u64>,
}

impl Pace {
    /// No bound.
    pub const UNBOUNDED: u64 = u64::MAX;

    /// A pace without a bound.
    pub fn new(clock: Rc<dyn Clock>, tasks: Rc<dyn Tasks>) -> Pace {
        Pace {
            clock,
            tasks,
            bytes_per_second: Cell::new(Pace::UNBOUNDED),
            earned_at_ns: Cell::new(0),
        }
    }

    /// The rate.
    pub fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second.get()
    }

    /// Sets the rate, for what is spent from now on.
    pub fn set_bytes_per_second(&self, bytes_per_second: u64) {
        self.bytes_per_second.set(bytes_per_second.max(1));
    }

    /// So many bytes were read or written: waits until they are earned.
    pub async fn spent(&self, bytes: usize) {
        let rate = self.bytes_per_second.get();
        if rate == Pace::UNBOUNDED || bytes == 0 {
            return;
        }
        let now_ns = self.clock.monotonic().0;
        let cost_ns = (bytes as u128 * 1_000_000_000 / u128::from(rate)) as u64;
        let earned_at_ns = self.earned_at_ns.get().max(now_ns) + cost_ns;
        self.earned_at_ns.set(earned_at_ns);
        let ahead_ns = earned_at_ns - now_ns;
        if ahead_ns > AHEAD_MAX_NS {
            self.tasks.sleep(Duration::from_nanos(ahead_ns)).await;
        }
    }
}
