//! When operations of an open loop begin: at a rate of their own, whatever the answers do.
//!
//! The rate may change linearly (a ramp). With `N(t)` operations due in the first `t` seconds, arrival number
//! `n` is due at `N^-1(n)`, which is worked out from `n` alone: rounding never adds up, and all executors
//! follow one timeline. Constant arrivals are the whole numbers; Poisson arrivals are sums of exponential
//! steps, so that the gaps are those of many independent clients.
//!
//! Latency is counted from the moment an operation is due. A server that stalls makes everything late that was
//! due meanwhile; counting from the moment of sending would hide just that ("coordinated omission": Tene, "How
//! NOT to Measure Latency", 2013).

use std::time::Duration;

use crate::random::Random;

/// The rate of an open loop, in operations per second over all executors.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Rate {
    /// At the beginning, warm-up included.
    pub from_per_second: f64,
    /// At the end of the ramp and after it.
    pub to_per_second: f64,
    /// How long the change takes, from the end of the warm-up; 0: there is none.
    pub ramp_seconds: f64,
}

/// How arrivals lie in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// Evenly.
    Constant,
    /// As of many independent clients.
    Poisson,
}

impl Rate {
    /// The same all the time.
    pub fn fixed(per_second: f64) -> Self {
        Self {
            from_per_second: per_second,
            to_per_second: per_second,
            ramp_seconds: 0.0,
        }
    }

    /// Operations that are due in the first `seconds` after the warm-up.
    pub fn due_within(&self, seconds: f64) -> f64 {
        let ramped = seconds.clamp(0.0, self.ramp_seconds);
        let slope = if self.ramp_seconds > 0.0 {
            (self.to_per_second - self.from_per_second) / self.ramp_seconds
        } else {
            0.0
        };
        let rest = (seconds - self.ramp_seconds).max(0.0);
        self.from_per_second * ramped + slope * ramped * ramped / 2.0 + self.to_per_second * rest
    }

    /// The inverse of [`Self::due_within`]: seconds after the warm-up.
    fn due_at(&self, number: f64) -> f64 {
        let (from, to, ramp) = (self.from_per_second, self.to_per_second, self.ramp_seconds);
        let ramped = f64::midpoint(from, to) * ramp;
        if number >= ramped {
            return ramp + (number - ramped) / to;
        }
        let root = (from * from + 2.0 * (to - from) / ramp * number).max(0.0).sqrt();
        2.0 * number / (from + root)
    }
}

/// The arrivals of one executor.
#[derive(Debug, Clone)]
pub struct Schedule {
    rate: Rate,
    warm_up_seconds: f64,
    /// Number of the next arrival among those of all executors.
    number: f64,
    executors: f64,
    /// For Poisson arrivals.
    random: Option<Random>,
}

impl Schedule {
    /// For the executor `index` of `executors`.
    pub fn new(
        rate: Rate,
        arrivals: Arrivals,
        warm_up: Duration,
        index: usize,
        executors: usize,
        seed: u64,
    ) -> Self {
        let mut schedule = Self {
            rate,
            warm_up_seconds: warm_up.as_secs_f64(),
            number: index as f64,
            executors: executors as f64,
            random: None,
        };
        if arrivals == Arrivals::Poisson {
            // A stream of its own: the same operations, whatever the arrivals.
            schedule.random = Some(Random::for_lane(seed, (1 << 32) + index as u64));
            schedule.number = 0.0;
            schedule.advance();
        }
        schedule
    }

    /// When the next arrival is due, from the beginning of the warm-up.
    pub fn due(&self) -> Duration {
        let in_warm_up = self.rate.from_per_second * self.warm_up_seconds;
        let seconds = if self.number < in_warm_up {
            self.number / self.rate.from_per_second
        } else {
            self.warm_up_seconds + self.rate.due_at(self.number - in_warm_up)
        };
        Duration::from_secs_f64(seconds)
    }

    /// Goes on to the arrival after it.
    pub fn advance(&mut self) {
        let step = match &mut self.random {
            None => 1.0,
            // `1 - unit` is never 0.
            Some(random) => -(1.0 - random.next_unit()).ln(),
        };
        self.number += step * self.executors;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(schedule: &mut Schedule, seconds: f64) -> Vec<f64> {
        let next = || {
            let due = schedule.due().as_secs_f64();
            schedule.advance();
            Some(due)
        };
        std::iter::from_fn(next)
            .take_while(|due| *due < seconds)
            .collect()
    }

    fn constant(rate: Rate, warm_up_ms: u64, index: usize, executors: usize) -> Schedule {
        let warm_up = Duration::from_millis(warm_up_ms);
        Schedule::new(rate, Arrivals::Constant, warm_up, index, executors, 1)
    }

    #[test]
    fn constant_arrivals_are_even_over_all_executors() {
        let mut all = Vec::new();
        for index in 0..3 {
            all.extend(arrivals(&mut constant(Rate::fixed(1000.0), 200, index, 3), 2.0));
        }
        all.sort_by(f64::total_cmp);
        assert_eq!(all.len(), 2000);
        for (number, due) in all.iter().enumerate() {
            assert!((due - number as f64 / 1000.0).abs() < 1e-8, "{number}: {due}");
        }
    }

    #[test]
    fn a_ramp_changes_the_rate_linearly() {
        for (from, to) in [(100.0, 900.0), (900.0, 100.0), (1.0, 1000.0)] {
            let rate = Rate {
                from_per_second: from,
                to_per_second: to,
                ramp_seconds: 4.0,
            };
            let due = arrivals(&mut constant(rate, 1000, 0, 1), 7.0);
            let between =
                |from: f64, to: f64| due.iter().filter(|due| (from..to).contains(*due)).count() as f64;
            assert!(
                (between(0.0, 1.0) - from).abs() <= 1.0,
                "the warm-up is at the first rate"
            );
            for second in 1..5_u32 {
                let middle = (f64::from(second) - 0.5) / 4.0;
                let expected = from + (to - from) * middle;
                let found = between(f64::from(second), f64::from(second + 1));
                assert!(
                    (found - expected).abs() <= 1.0,
                    "second {second}: {found} of {expected}"
                );
            }
            assert!((between(5.0, 6.0) - to).abs() <= 1.0);
            assert!(
                (rate.due_within(6.0) - due.iter().filter(|due| **due >= 1.0).count() as f64).abs() <= 1.5
            );
        }
    }

    #[test]
    fn poisson_arrivals_have_exponential_gaps() {
        let warm_up = Duration::ZERO;
        let mut all = Vec::new();
        for index in 0..2 {
            let schedule = &mut Schedule::new(Rate::fixed(5000.0), Arrivals::Poisson, warm_up, index, 2, 7);
            all.extend(arrivals(schedule, 20.0));
        }
        all.sort_by(f64::total_cmp);
        // 100,000 are expected, give or take four standard deviations.
        assert!(
            (all.len() as f64 - 100_000.0).abs() < 4.0 * 100_000_f64.sqrt(),
            "{}",
            all.len()
        );
        let gaps: Vec<f64> = all.windows(2).map(|pair| (pair[1] - pair[0]) * 5000.0).collect();
        for (bound, expected) in [(0.1, 0.0952), (0.5, 0.3935), (1.0, 0.6321), (3.0, 0.9502)] {
            let below = gaps.iter().filter(|gap| **gap < bound).count() as f64 / gaps.len() as f64;
            assert!(
                (below - expected).abs() < 0.008,
                "{below} of the gaps are below {bound}"
            );
        }
    }
}
