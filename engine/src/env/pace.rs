//! How fast background work may use the device: so many bytes a second, in small portions, so that requests find it
//! free.

use core::cell::Cell;
use core::time::Duration;
use std::rc::Rc;

use super::{Clock, Tasks};

/// Work that is ahead of its rate by less than this goes on: a shorter sleep would cost more than it is worth.
const AHEAD_MAX_NS: u64 = 2_000_000;
/// Work that is behind its rate catches up on so much, so that sleeps that last too long do not slow it down.
const BEHIND_MAX_NS: u64 = 2_000_000;

/// A token bucket in which tokens are bytes. It holds what [`BEHIND_MAX_NS`] bring, and lends what [`AHEAD_MAX_NS`]
/// bring.
pub struct Pace {
    clock: Rc<dyn Clock>,
    tasks: Rc<dyn Tasks>,
    bytes_per_second: Cell<u64>,
    /// When all that was spent would be earned.
    earned_at_ns: Cell<u64>,
    /// What was waited for, of all that waited.
    waited_ns: Cell<u64>,
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
            waited_ns: Cell::new(0),
        }
    }

    /// The rate.
    pub fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second.get()
    }

    /// Nanoseconds for which those who spent had to wait, all together.
    pub fn waited_ns(&self) -> u64 {
        self.waited_ns.get()
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
        let behind_ns = now_ns.saturating_sub(BEHIND_MAX_NS);
        let earned_at_ns = self.earned_at_ns.get().max(behind_ns) + cost_ns;
        self.earned_at_ns.set(earned_at_ns);
        let ahead_ns = earned_at_ns.saturating_sub(now_ns);
        if ahead_ns > AHEAD_MAX_NS {
            self.waited_ns.set(self.waited_ns.get() + ahead_ns);
            self.tasks.sleep(Duration::from_nanos(ahead_ns)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Priority;
    use crate::env::testing::scheduler::Scheduler;

    /// Tasks that each spend `portions` portions, and the time in milliseconds until all have ended.
    fn spend(pace: &Rc<Pace>, scheduler: &Scheduler, tasks: usize, portions: usize, bytes: usize) -> u64 {
        let begun = scheduler.monotonic();
        let left = Rc::new(Cell::new(tasks));
        for _ in 0..tasks {
            let (pace, left) = (Rc::clone(pace), Rc::clone(&left));
            let task = async move {
                for _ in 0..portions {
                    pace.spent(bytes).await;
                }
                left.set(left.get() - 1);
            };
            scheduler.spawn(Priority::Background, Box::pin(task));
        }
        scheduler.settle();
        while left.get() > 0 {
            scheduler.advance(Duration::from_millis(1));
        }
        scheduler.monotonic().since_ns(begun) / 1_000_000
    }

    fn pace() -> (Rc<Pace>, Scheduler) {
        let scheduler = Scheduler::default();
        let tasks = Rc::new(scheduler.clone());
        (Rc::new(Pace::new(Rc::clone(&tasks) as _, tasks)), scheduler)
    }

    #[test]
    fn bytes_take_the_time_that_the_rate_gives_them() {
        let (pace, scheduler) = pace();
        assert_eq!(pace.bytes_per_second(), Pace::UNBOUNDED);
        pace.set_bytes_per_second(10_000_000);
        // In large portions and in small ones, by one task and by several.
        for (tasks, portions, bytes) in [(1, 4, 2_500_000), (1, 10_000, 1000), (5, 20, 100_000), (3, 1, 1)] {
            let expected_ms = (tasks * portions * bytes / 10_000) as u64;
            let took_ms = spend(&pace, &scheduler, tasks, portions, bytes);
            let distance = took_ms.abs_diff(expected_ms);
            assert!(
                distance <= 5,
                "{tasks} * {portions} * {bytes}: {took_ms} ms, expected {expected_ms} ms"
            );
        }
    }

    #[test]
    fn no_bound_takes_no_time_and_what_was_not_used_is_not_saved_up() {
        let (pace, scheduler) = pace();
        assert_eq!(spend(&pace, &scheduler, 3, 1000, 1 << 20), 0);
        pace.set_bytes_per_second(1_000_000);
        scheduler.advance(Duration::from_secs(100));
        let took_ms = spend(&pace, &scheduler, 1, 10, 100_000);
        assert!(took_ms.abs_diff(1000) <= 5, "{took_ms} ms");
        // Another rate holds for what comes then.
        pace.set_bytes_per_second(2_000_000);
        let took_ms = spend(&pace, &scheduler, 1, 10, 100_000);
        assert!(took_ms.abs_diff(500) <= 5, "{took_ms} ms");
        pace.set_bytes_per_second(Pace::UNBOUNDED);
        assert_eq!(spend(&pace, &scheduler, 1, 10, 1 << 30), 0);
        pace.set_bytes_per_second(0);
        assert_eq!(pace.bytes_per_second(), 1, "it goes on, however slowly");
    }
}
