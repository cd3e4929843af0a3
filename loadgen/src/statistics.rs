//! What a phase measured: latency histograms and error counts per kind of request, and the live view of it.
//!
//! Every executor records into a [`Statistics`] of its own, without synchronisation; they are merged when the
//! phase is over, so percentiles are those of all samples and never averages of percentiles. The progress bar
//! reads [`LiveCounters`], plain atomics with one writer each, so that it never touches the data path.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;

use crate::stages::Stages;

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
    /// Read and write, from the beginning of the read to the answer of the write.
    ReadModifyWrite,
    /// Records in the order of their keys; all pages that it takes.
    Scan,
    /// Removal of a record.
    Delete,
    /// Increment of a counter.
    Add,
    /// Write of a record that is absent again after a while.
    PutExpiring,
    /// Read of several records; all requests that it takes.
    MultiRead,
    /// Write of several records; all requests that it takes.
    MultiUpdate,
    /// Records against the order of their keys; all pages that it takes.
    ReverseScan,
}

impl Measure {
    /// In the order of the table.
    pub const ALL: [Self; 11] = [
        Self::Insert,
        Self::Read,
        Self::Update,
        Self::ReadModifyWrite,
        Self::Scan,
        Self::Delete,
        Self::Add,
        Self::PutExpiring,
        Self::MultiRead,
        Self::MultiUpdate,
        Self::ReverseScan,
    ];

    /// For the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Read => "read",
            Self::Update => "update",
            Self::ReadModifyWrite => "read-modify-write",
            Self::Scan => "scan",
            Self::Delete => "delete",
            Self::Add => "add",
            Self::PutExpiring => "put with ttl",
            Self::MultiRead => "multi-get",
            Self::MultiUpdate => "multi-put",
            Self::ReverseScan => "reverse scan",
        }
    }
}

/// Longest latency that is told apart, about 13 days; the histogram's three digits hold up to there.
const LATENCY_MAX_NS: u64 = 1 << 50;

/// What an error is called where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorLabel {
    /// Code on Ostrakon's wire.
    Code(u16),
    /// First word of a Redis error.
    Word(String),
}

/// Measurements of one executor, or, merged, of a phase.
#[derive(Debug, Clone)]
pub struct Statistics {
    latencies_ns: [Histogram<u64>; Measure::ALL.len()],
    /// Whole operations, from the moment they were due.
    operations_ns: Histogram<u64>,
    /// Whole operations of an open loop, from the moment they were handed to a connection.
    service_ns: Histogram<u64>,
    /// In an open loop, how long after its due moment an operation was handed over.
    start_delays_ns: Histogram<u64>,
    /// Of the requests that asked for it.
    pub stages: Stages,
    errors: BTreeMap<(Measure, ErrorLabel), u64>,
    error_sentences: BTreeMap<ErrorLabel, String>,
    /// Operations that were begun after the warm-up and are finished.
    pub operations: u64,
    /// Finished operations that were begun in the warm-up, and are in no other figure but the errors.
    pub warm_up_operations: u64,
    /// Records that scans returned.
    pub scanned_records: u64,
    /// `Busy` answers after which the operation was sent again.
    pub busy_retries: u64,
    /// Reads that found no record.
    pub not_found: u64,
    /// Lost connections that were opened again.
    pub reconnections: u64,
    /// Requests that were sent again on another connection than the first, or after an answer that is none.
    pub resent: u64,
    /// Requests sent whose connection was lost before the answer.
    pub unanswered: u64,
    /// Operations of an open loop that were due, and that no connection was free for until the phase gave up.
    pub unstarted: u64,
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            latencies_ns: std::array::from_fn(|_| histogram()),
            operations_ns: histogram(),
            service_ns: histogram(),
            start_delays_ns: histogram(),
            stages: Stages::default(),
            errors: BTreeMap::new(),
            error_sentences: BTreeMap::new(),
            operations: 0,
            warm_up_operations: 0,
            scanned_records: 0,
            busy_retries: 0,
            not_found: 0,
            reconnections: 0,
            resent: 0,
            unanswered: 0,
            unstarted: 0,
        }
    }
}

/// Of latencies in nanoseconds, to three significant digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("the bounds are valid")
}

/// Counts a latency. Never allocates.
pub(crate) fn count(histogram: &mut Histogram<u64>, latency_ns: u64) {
    let recorded = histogram.record(latency_ns);
    recorded.expect("no run lasts as long as the longest latency");
}

impl Statistics {
    /// One answered request. Never allocates.
    pub fn record(&mut self, measure: Measure, latency_ns: u64) {
        count(&mut self.latencies_ns[measure as usize], latency_ns);
    }

    /// One operation that was answered without error. Never allocates.
    pub fn record_operation(&mut self, latency_ns: u64) {
        count(&mut self.operations_ns, latency_ns);
    }

    /// One such operation of an open loop: from handing over to the last answer, and from the due moment to
    /// handing over. Never allocates.
    pub fn record_service(&mut self, service_ns: u64, start_delay_ns: u64) {
        count(&mut self.service_ns, service_ns);
        count(&mut self.start_delays_ns, start_delay_ns);
    }

    /// One request answered with an error, whose sentence is kept once per label.
    pub fn record_error(&mut self, measure: Measure, label: ErrorLabel, sentence: &str) {
        self.error_sentences
            .entry(label.clone())
            .or_insert_with(|| sentence.to_owned());
        *self.errors.entry((measure, label)).or_default() += 1;
    }

    /// Adds what another executor measured.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.latencies_ns.iter_mut().zip(&other.latencies_ns) {
            mine.add(theirs).expect("all histograms have the same bounds");
        }
        for (mine, theirs) in [
            (&mut self.operations_ns, &other.operations_ns),
            (&mut self.service_ns, &other.service_ns),
            (&mut self.start_delays_ns, &other.start_delays_ns),
        ] {
            mine.add(theirs).expect("all histograms have the same bounds");
        }
        self.stages.merge(&other.stages);
        for (key, count) in &other.errors {
            *self.errors.entry(key.clone()).or_default() += count;
        }
        for (label, sentence) in &other.error_sentences {
            self.error_sentences
                .entry(label.clone())
                .or_insert_with(|| sentence.clone());
        }
        self.operations += other.operations;
        self.warm_up_operations += other.warm_up_operations;
        self.scanned_records += other.scanned_records;
        self.unstarted += other.unstarted;
        self.busy_retries += other.busy_retries;
        self.not_found += other.not_found;
        self.reconnections += other.reconnections;
        self.resent += other.resent;
        self.unanswered += other.unanswered;
    }

    /// Latencies of one kind, in nanoseconds.
    pub fn latencies_ns(&self, measure: Measure) -> &Histogram<u64> {
        &self.latencies_ns[measure as usize]
    }

    /// Latencies of whole operations, from the moment they were due, in nanoseconds.
    pub fn operations_ns(&self) -> &Histogram<u64> {
        &self.operations_ns
    }

    /// Latencies of whole operations of an open loop, from the moment they were handed over, in nanoseconds.
    pub fn service_ns(&self) -> &Histogram<u64> {
        &self.service_ns
    }

    /// How late operations of an open loop were handed over, in nanoseconds.
    pub fn start_delays_ns(&self) -> &Histogram<u64> {
        &self.start_delays_ns
    }

    /// Errors of one kind.
    pub fn errors_of(&self, measure: Measure) -> u64 {
        self.errors
            .iter()
            .filter(|((of, _), _)| *of == measure)
            .map(|(_, count)| count)
            .sum()
    }

    /// Errors by label with the first sentence seen, in order of the label.
    pub fn errors_by_label(&self) -> BTreeMap<&ErrorLabel, (u64, &str)> {
        let mut by_label = BTreeMap::new();
        for ((_, label), count) in &self.errors {
            let entry = by_label
                .entry(label)
                .or_insert((0, self.error_sentences[label].as_str()));
            entry.0 += count;
        }
        by_label
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
        first.record_error(Measure::Read, ErrorLabel::Code(6), "memory is full");
        second.record_error(Measure::Update, ErrorLabel::Code(6), "memory is full");
        second.record_error(
            Measure::Update,
            ErrorLabel::Word("OOM".to_owned()),
            "the disk is full",
        );
        second.busy_retries = 3;
        first.merge(&second);
        assert_eq!(
            (first.errors_of(Measure::Read), first.errors_of(Measure::Update)),
            (1, 2)
        );
        assert_eq!(
            first.errors_by_label()[&ErrorLabel::Code(6)],
            (2, "memory is full")
        );
        assert_eq!(
            first.errors_by_label()[&ErrorLabel::Word("OOM".to_owned())],
            (1, "the disk is full")
        );
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
