//! Medians over rounds, and percentiles of latencies.
//!
//! Latencies go into `HdrHistogram`s with three significant digits, in nanoseconds; everything that leaves
//! this module is in microseconds or a plain number. A median of an even count is the mean of the two in
//! the middle.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Longest latency that is told apart, in nanoseconds: one minute.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// Latencies of one run.
#[derive(Debug, Clone)]
pub struct Latencies {
    nanoseconds: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        let nanoseconds = Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3);
        Self {
            nanoseconds: nanoseconds.expect("constant bounds that the histogram allows"),
        }
    }
}

impl Latencies {
    /// Adds one, in nanoseconds; above a minute it counts as a minute.
    pub fn record(&mut self, nanoseconds: u64) {
        self.nanoseconds.saturating_record(nanoseconds.max(1));
    }

    /// Adds those of another.
    pub fn add(&mut self, other: &Self) {
        let added = self.nanoseconds.add(&other.nanoseconds);
        added.expect("both have the same bounds");
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.nanoseconds.len()
    }

    /// The latency in microseconds that the share `quantile` of all stays at or below; 0 if there are none.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        self.nanoseconds.value_at_quantile(quantile) as f64 / 1e3
    }

    /// Median, 95th and 99th percentile, in microseconds.
    pub fn summary(&self) -> Percentiles {
        Percentiles {
            p50_us: self.quantile_us(0.5),
            p95_us: self.quantile_us(0.95),
            p99_us: self.quantile_us(0.99),
        }
    }
}

/// What a table shows of a distribution of latencies, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentiles {
    /// Median.
    pub p50_us: f64,
    /// 95th percentile.
    pub p95_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
}

impl Percentiles {
    /// As a JSON object.
    pub fn to_json(self) -> Value {
        json!({ "p50_us": self.p50_us, "p95_us": self.p95_us, "p99_us": self.p99_us })
    }

    /// The medians, each taken by itself.
    pub fn medians(rounds: impl Iterator<Item = Self> + Clone) -> Self {
        Self {
            p50_us: median(rounds.clone().map(|round| round.p50_us)),
            p95_us: median(rounds.clone().map(|round| round.p95_us)),
            p99_us: median(rounds.map(|round| round.p99_us)),
        }
    }
}

/// The median; not a number if there are no figures.
pub fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_lies_in_the_middle() {
        assert!((median([9.0, 1.0, 2.0].into_iter()) - 2.0).abs() < 1e-9);
        assert!((median([4.0, 1.0, 2.0, 9.0].into_iter()) - 3.0).abs() < 1e-9);
        assert!(median(std::iter::empty()).is_nan());
    }

    #[test]
    fn latencies_keep_three_digits() {
        let mut latencies = Latencies::default();
        for microseconds in 1..=100 {
            latencies.record(microseconds * 1000);
        }
        assert_eq!(latencies.count(), 100);
        assert!((latencies.quantile_us(0.5) - 50.0).abs() < 0.1);
        assert!((latencies.summary().p95_us - 95.0).abs() < 0.2);
        assert!((latencies.summary().p99_us - 99.0).abs() < 0.2);
    }
}
