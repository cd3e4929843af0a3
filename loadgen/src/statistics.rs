//! What a phase measured: latency histograms and error counts per kind of request, and the live view of it.
//!
//! Every executor records into a [`Statistics`] of its own, without synchronisation; they are merged when the
//! phase is over, so percentiles are those of all samples and never averages of percentiles. The progress bar
//! reads [`LiveCounters`], plain atomics with one writer each, so that it never touches the data path.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;

/// What a row of the final table is about. The names and their meaning are YCSB's: a read-modify-write also
/// counts its read as a read and its write as an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// First write of a record.
    Insert,
    /// Read of a record.
    Read,
    /// Write of an existing record.
    Update,
    /// Read and write, from the handing over of the read to the answer of the write.
    ReadModifyWrite,
}

impl Measure {
    /// In the order of the table.
    pub const ALL: [Self; 4] = [Self::Insert, Self::Read, Self::Update, Self::ReadModifyWrite];

    /// For the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Read => "read",
            Self::Update => "update",
            Self::ReadModifyWrite => "read-modify-write",
        }
    }
}

/// Longest latency that is told apart, about 13 days; the histogram's three digits hold up to there.
const LATENCY_MAX_NS: u64 = 1 << 50;

/// Measurements of one executor, or, merged, of a phase.
#[derive(Debug, Clone)]
pub struct Statistics {
    latencies_ns: [Histogram<u64>; 4],
    errors: BTreeMap<(Measure, u16), u64>,
    error_sentences: BTreeMap<u16, String>,
    /// `Busy` answers after which the operation was sent again.
    pub busy_retries: u64,
    /// Reads that found no record.
    pub not_found: u64,
    /// Requests sent whose connection was lost before the answer.
    pub unanswered: u64,
}

impl Default for Statistics {
    fn default() -> Self {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("the bounds are valid");
        Self {
            latencies_ns: [histogram(), histogram(), histogram(), histogram()],
            errors: BTreeMap::new(),
            error_sentences: BTreeMap::new(),
            busy_retries: 0,
            not_found: 0,
            unanswered: 0,
        }
    }
}

impl Statistics {
    /// One answered request. Never allocates.
    pub fn record(&mut self, measure: Measure, latency_ns: u64) {
        let recorded = self.latencies_ns[measure as usize].record(latency_ns);
        recorded.expect("no run lasts as long as the longest latency");
    }

    /// One request answered with an error, whose sentence is kept once per code.
    pub fn record_error(&mut self, measure: Measure, code: u16, sentence: &str) {
        *self.errors.entry((measure, code)).or_default() += 1;
        self.error_sentences
            .entry(code)
            .or_insert_with(|| sentence.to_owned());
    }

    /// Adds what another executor measured.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.latencies_ns.iter_mut().zip(&other.latencies_ns) {
            mine.add(theirs).expect("all histograms have the same bounds");
        }
        for (key, count) in &other.errors {
            *self.errors.entry(*key).or_default() += count;
        }
        for (code, sentence) in &other.error_sentences {
            self.error_sentences
                .entry(*code)
                .or_insert_with(|| sentence.clone());
        }
        self.busy_retries += other.busy_retries;
        self.not_found += other.not_found;
        self.unanswered += other.unanswered;
    }

    /// Latencies of one kind, in nanoseconds.
    pub fn latencies_ns(&self, measure: Measure) -> &Histogram<u64> {
        &self.latencies_ns[measure as usize]
    }

    /// Errors of one kind.
    pub fn errors_of(&self, measure: Measure) -> u64 {
        self.errors
            .range((measure, 0)..=(measure, u16::MAX))
            .map(|(_, count)| count)
            .sum()
    }

    /// Errors by code with the first sentence seen, in order of the code.
    pub fn errors_by_code(&self) -> BTreeMap<u16, (u64, &str)> {
        let mut by_code = BTreeMap::new();
        for ((_, code), count) in &self.errors {
            let entry = by_code
                .entry(*code)
                .or_insert((0, self.error_sentences[code].as_str()));
            entry.0 += count;
        }
        by_code
    }

    /// All errors.
    pub fn errors_total(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// Buckets per power of two in the live view: an error below 13 %, enough for a progress bar.
const LIVE_STEPS: u64 = 8;
const LIVE_BUCKETS: usize = (64 * LIVE_STEPS) as usize;

/// Samples per bucket of all executors together.
pub type LiveSums = [u64; LIVE_BUCKETS];

/// What the progress bar sees of one executor. One thread writes, any may read.
#[derive(Debug)]
pub struct LiveCounters {
    buckets: Box<[AtomicU64]>,
    operations: AtomicU64,
}

impl Default for LiveCounters {
    fn default() -> Self {
        Self {
            buckets: (0..LIVE_BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            operations: AtomicU64::new(0),
        }
    }
}

impl LiveCounters {
    /// One answered request; called by the owning executor only.
    pub fn record(&self, latency_ns: u64) {
        increment(&self.buckets[live_bucket(latency_ns)]);
    }

    /// One finished operation; called by the owning executor only.
    pub fn operation_done(&self) {
        increment(&self.operations);
    }

    /// Finished operations so far.
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    /// Adds this executor's buckets to `sums`, which [`live_percentile_ns`] reads.
    pub fn add_to(&self, sums: &mut LiveSums) {
        for (sum, bucket) in sums.iter_mut().zip(&self.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
    }
}

/// Sums of [`LiveCounters::add_to`], all zero.
pub fn live_sums() -> LiveSums {
    [0; LIVE_BUCKETS]
}

/// Upper bound of the bucket below which the share `quantile` of the samples between two sums lies, in
/// nanoseconds; `None` without samples.
pub fn live_percentile_ns(before: &LiveSums, now: &LiveSums, quantile: f64) -> Option<u64> {
    let total: u64 = now.iter().zip(before).map(|(now, before)| now - before).sum();
    let wanted = (total as f64 * quantile).ceil() as u64;
    let mut below = 0;
    for (bucket, (now, before)) in now.iter().zip(before).enumerate() {
        below += now - before;
        if total > 0 && below >= wanted {
            return Some(live_bucket_end_ns(bucket));
        }
    }
    None
}

/// A single writer needs no read-modify-write instruction.
fn increment(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

fn live_bucket(latency_ns: u64) -> usize {
    let latency_ns = latency_ns.max(LIVE_STEPS);
    let exponent = u64::from(latency_ns.ilog2());
    let step = (latency_ns >> (exponent - u64::from(LIVE_STEPS.ilog2()))) - LIVE_STEPS;
    (exponent * LIVE_STEPS + step) as usize
}

fn live_bucket_end_ns(bucket: usize) -> u64 {
    let (exponent, step) = (bucket as u64 / LIVE_STEPS, bucket as u64 % LIVE_STEPS);
    let step_ns = 1_u64 << exponent.saturating_sub(u64::from(LIVE_STEPS.ilog2()));
    (LIVE_STEPS + step + 1).saturating_mul(step_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_percentiles_are_those_of_all_samples() {
        let (mut whole, mut odd, mut even) = (
            Statistics::default(),
            Statistics::default(),
            Statistics::default(),
        );
        for latency_us in 1..=10_000_u64 {
            let part = if latency_us % 2 == 0 { &mut even } else { &mut odd };
            part.record(Measure::Read, latency_us * 1000);
            whole.record(Measure::Read, latency_us * 1000);
        }
        odd.merge(&even);
        assert_eq!(odd.latencies_ns(Measure::Read), whole.latencies_ns(Measure::Read));
        assert_eq!(odd.latencies_ns(Measure::Read).len(), 10_000);
        let p99_us = odd.latencies_ns(Measure::Read).value_at_quantile(0.99) as f64 / 1000.0;
        assert!((p99_us / 9900.0 - 1.0).abs() < 0.002, "{p99_us}");
        assert_eq!(odd.latencies_ns(Measure::Update).len(), 0);
    }

    #[test]
    fn errors_are_counted_by_kind_and_code() {
        let (mut first, mut second) = (Statistics::default(), Statistics::default());
        first.record_error(Measure::Read, 6, "memory is full");
        second.record_error(Measure::Update, 6, "memory is full");
        second.record_error(Measure::Update, 7, "the disk is full");
        second.busy_retries = 3;
        first.merge(&second);
        assert_eq!(
            (first.errors_of(Measure::Read), first.errors_of(Measure::Update)),
            (1, 2)
        );
        assert_eq!(first.errors_by_code()[&6], (2, "memory is full"));
        assert_eq!(first.errors_by_code()[&7], (1, "the disk is full"));
        assert_eq!((first.errors_total(), first.busy_retries), (3, 3));
    }

    #[test]
    fn a_live_bucket_holds_what_it_says() {
        for latency_ns in [0, 8, 9, 1000, 1023, 1024, 123_456_789, 1 << 40, u64::MAX / 2] {
            let bucket = live_bucket(latency_ns);
            assert!(latency_ns < live_bucket_end_ns(bucket), "{latency_ns}");
            assert!(
                latency_ns < 16 || latency_ns >= live_bucket_end_ns(bucket - 1),
                "{latency_ns}"
            );
        }
        assert!(live_bucket(u64::MAX) < LIVE_BUCKETS);
    }

    #[test]
    fn the_live_percentile_sees_only_the_interval() {
        let live = LiveCounters::default();
        let mut before = live_sums();
        live.record(1_000_000_000);
        live.add_to(&mut before);
        for _ in 0..99 {
            live.record(10_000);
        }
        let other = LiveCounters::default();
        other.record(5_000_000);
        let mut now = live_sums();
        live.add_to(&mut now);
        other.add_to(&mut now);
        let p99_ns = live_percentile_ns(&before, &now, 0.99).unwrap();
        assert!((10_000..12_000).contains(&p99_ns), "{p99_ns}");
        let max_ns = live_percentile_ns(&before, &now, 1.0).unwrap();
        assert!((5_000_000..6_000_000).contains(&max_ns), "{max_ns}");
        assert_eq!(live_percentile_ns(&now, &now, 0.99), None);
    }
}
