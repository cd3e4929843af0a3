//! How the run phase chooses records: uniform, zipfian, latest, sequential, hot set, as YCSB defines them.
//!
//! The zipfian generator is the one of Gray, Sundaresan, Englert, Baclawski, Weinberger: "Quickly Generating
//! Billion-Record Synthetic Databases" (SIGMOD 1994), figure 7: exact for the two hottest ranks, an
//! integral approximation for the others, constant time per draw. Its zeta comes from the Euler–Maclaurin
//! formula, so that a billion records cost no minute of summing.
//!
//! `zipfian` is YCSB's *scrambled* zipfian: a rank over ten billion items, hashed by FNV into the records, so
//! that the hot keys lie scattered. It chooses among the records that there were when the run began, so that
//! the hot keys stay the same while a workload inserts. `latest` is a zipfian over the records as they are,
//! the last one the hottest.

use crate::keys::{KeyIndex, fnv_hash64};
use crate::random::Random;

/// The skew of YCSB's zipfian request distribution.
pub const ZIPFIAN_CONSTANT: f64 = 0.99;

/// Ranks behind the scrambled zipfian distribution, whatever the number of records.
pub const SCRAMBLED_ITEMS: u64 = 10_000_000_000;

/// Summands of zeta that are added up; the formula takes over from there.
const ZETA_HEAD: u64 = 1000;

/// How records are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// YCSB's scrambled zipfian.
    Zipfian,
    /// Every record alike.
    Uniform,
    /// Zipfian from the record inserted last to the first.
    Latest,
    /// One after the other, then from the first again.
    Sequential,
    /// Some of the operations on some of the records.
    Hotset,
}

/// What the command line says of the distribution.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Choice {
    /// Which.
    pub distribution: Distribution,
    /// Skew of zipfian and latest, between 0 and 1.
    pub theta: f64,
    /// Part of the records that is hot in the hot set, from 0 to 1.
    pub hot_records: f64,
    /// Part of the operations that goes to it, from 0 to 1.
    pub hot_operations: f64,
}

/// Draws ranks `0..items`, rank 0 the most frequent, rank `r` with a probability near `(r + 1)^-theta /
/// zeta`.
#[derive(Debug, Clone)]
pub struct Zipfian {
    items: u64,
    theta: f64,
    zeta: f64,
    alpha: f64,
    eta: f64,
    second_bound: f64,
}

impl Zipfian {
    /// Over `items` ranks, at least one, with a skew between 0 and 1.
    pub fn new(items: u64, theta: f64) -> Self {
        assert!(items > 0, "a zipfian distribution needs an item");
        assert!(theta > 0.0 && theta < 1.0, "{theta} is no skew between 0 and 1");
        let mut zipfian = Self {
            items,
            theta,
            zeta: zeta(items, theta),
            alpha: 1.0 / (1.0 - theta),
            eta: 0.0,
            second_bound: 1.0 + 0.5_f64.powf(theta),
        };
        zipfian.settle();
        zipfian
    }

    /// Goes on with more items: zeta grows by theirs.
    pub fn extend_to(&mut self, items: u64) {
        if items > self.items {
            for item in self.items + 1..=items {
                self.zeta += (item as f64).powf(-self.theta);
            }
            self.items = items;
            self.settle();
        }
    }

    /// The rank for a uniform number `unit` in `[0, 1)`.
    pub fn rank(&self, unit: f64) -> u64 {
        let scaled = unit * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < self.second_bound {
            return 1;
        }
        let rank = (self.items as f64 * (self.eta * unit - self.eta + 1.0).powf(self.alpha)) as u64;
        // Rounding can reach the end.
        rank.min(self.items - 1)
    }

    fn settle(&mut self) {
        let rest = 1.0 - self.second_bound / self.zeta;
        let power = (2.0 / self.items as f64).powf(1.0 - self.theta);
        // With two items or fewer the two hottest ranks are all there is.
        self.eta = if self.items > 2 { (1.0 - power) / rest } else { 1.0 };
    }
}

/// The sum over `i` in `1..=items` of `i^-theta`: the first summands added up, the others by the
/// Euler–Maclaurin formula, which leaves an error far below 1e-9.
fn zeta(items: u64, theta: f64) -> f64 {
    let sum = |last: u64| -> f64 { (1..=last).map(|item| (item as f64).powf(-theta)).sum() };
    if items <= ZETA_HEAD {
        return sum(items);
    }
    let (from, to) = (ZETA_HEAD as f64, items as f64);
    let integral = (to.powf(1.0 - theta) - from.powf(1.0 - theta)) / (1.0 - theta);
    let ends = f64::midpoint(from.powf(-theta), to.powf(-theta));
    let slope = theta * (from.powf(-theta - 1.0) - to.powf(-theta - 1.0)) / 12.0;
    sum(ZETA_HEAD - 1) + integral + ends + slope
}

/// Chooses the records of one executor's operations.
#[derive(Debug, Clone)]
pub enum KeyChooser {
    /// Every record alike.
    Uniform,
    /// YCSB's scrambled zipfian.
    ScrambledZipfian {
        /// Ranks behind it.
        zipfian: Zipfian,
        /// Records that ranks are hashed into.
        records: u64,
    },
    /// Counted from the last record.
    Latest {
        /// Over the records that there were at the last draw.
        zipfian: Zipfian,
    },
    /// One after the other.
    Sequential {
        /// Of this executor's next operation; all executors together take each number once.
        next: u64,
        /// Executors.
        step: u64,
    },
    /// Some of the operations on the first records.
    HotSet {
        /// Part of the records that is hot.
        records: f64,
        /// Part of the operations that goes to them.
        operations: f64,
    },
}

impl KeyChooser {
    /// For the executor `index` of `executors`, over `records` to begin with.
    pub fn new(choice: &Choice, records: u64, index: u64, executors: u64) -> Self {
        assert!(records > 0, "keys cannot be chosen from no records");
        match choice.distribution {
            Distribution::Uniform => Self::Uniform,
            Distribution::Zipfian => Self::ScrambledZipfian {
                zipfian: Zipfian::new(SCRAMBLED_ITEMS, choice.theta),
                records,
            },
            Distribution::Latest => Self::Latest {
                zipfian: Zipfian::new(records, choice.theta),
            },
            Distribution::Sequential => Self::Sequential {
                next: index,
                step: executors,
            },
            Distribution::Hotset => Self::HotSet {
                records: choice.hot_records,
                operations: choice.hot_operations,
            },
        }
    }

    /// The record of the next operation, of the `count` that there are.
    pub fn next(&mut self, random: &mut Random, count: u64) -> KeyIndex {
        match self {
            Self::Uniform => KeyIndex(random.next_below(count)),
            Self::ScrambledZipfian { zipfian, records } => loop {
                // YCSB scatters over one slot more than there are records and draws again when it is hit.
                let slot = fnv_hash64(zipfian.rank(random.next_unit())) % (*records + 1);
                if slot < *records {
                    return KeyIndex(slot);
                }
            },
            Self::Latest { zipfian } => {
                zipfian.extend_to(count);
                KeyIndex(count - 1 - zipfian.rank(random.next_unit()))
            }
            Self::Sequential { next, step } => {
                let key = KeyIndex(*next % count);
                *next += *step;
                key
            }
            Self::HotSet { records, operations } => {
                let hot = ((count as f64 * *records) as u64).clamp(1, count);
                if random.next_unit() < *operations || hot == count {
                    KeyIndex(random.next_below(hot))
                } else {
                    KeyIndex(hot + random.next_below(count - hot))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
