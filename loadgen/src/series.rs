//! The time series of a phase: what each second finished, and how long it took.
//!
//! Each executor counts into the second that it is in ([`SeriesRecorder`]) and hands it over when that is over.
//! A thread of the phase ([`Series`]) adds up what the executors have of a second and works out its figures
//! once all have left it, so that the load threads never wait for that and the memory of a run of hours stays
//! small. Percentiles are those of all samples, never averages of percentiles.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Length of an interval.
const INTERVAL: Duration = Duration::from_secs(1);
/// Latencies above it count as it: about two minutes.
const LATENCY_MAX_NS: u64 = 1 << 37;

/// One second of a phase.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct SecondRow {
    /// Where it begins, in seconds after the end of the warm-up; below 0 in the warm-up.
    pub second: i64,
    /// How much of it the phase lasted, in seconds: below 1 in the last one only.
    pub lasted_seconds: f64,
    /// Operations answered without error.
    pub operations: u64,
    /// Operations answered with an error.
    pub errors: u64,
    /// Latency of the operations answered in it.
    pub mean_us: f64,
    /// Latency.
    pub p50_us: f64,
    /// Latency.
    pub p99_us: f64,
    /// Latency.
    pub p999_us: f64,
    /// Latency.
    pub max_us: f64,
}

/// Takes what the executors of a phase have counted.
#[derive(Debug)]
pub struct Series {
    sender: Sender<Left>,
    collector: JoinHandle<Vec<SecondRow>>,
}

/// An executor has left all intervals before `now_in`, and counted this in `interval`.
#[derive(Debug)]
struct Left {
    executor: usize,
    interval: i64,
    counted: Interval,
    now_in: i64,
}

#[derive(Debug)]
struct Interval {
    latencies_ns: Histogram<u64>,
    errors: u64,
}

/// What an executor begins to record with.
#[derive(Debug)]
pub struct SeriesSender {
    sender: Sender<Left>,
    executor: usize,
}

/// One executor's view.
#[derive(Debug)]
pub struct SeriesRecorder {
    /// None once finished.
    sender: Option<Sender<Left>>,
    executor: usize,
    zero_at: Instant,
    interval: i64,
    interval_ends_at: Instant,
    counted: Interval,
}

impl Interval {
    fn new() -> Self {
        let latencies_ns = Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("the bounds are valid");
        Self {
            latencies_ns,
            errors: 0,
        }
    }

    fn add(&mut self, other: &Self) {
        self.errors += other.errors;
        let added = self.latencies_ns.add(&other.latencies_ns);
        added.expect("all intervals have the same bounds");
    }

    fn is_empty(&self) -> bool {
        self.latencies_ns.is_empty() && self.errors == 0
    }

    fn row(&self, second: i64) -> SecondRow {
        let quantile_us = |quantile| self.latencies_ns.value_at_quantile(quantile) as f64 / 1000.0;
        SecondRow {
            second,
            lasted_seconds: INTERVAL.as_secs_f64(),
            operations: self.latencies_ns.len(),
            errors: self.errors,
            mean_us: self.latencies_ns.mean() / 1000.0,
            p50_us: quantile_us(0.5),
            p99_us: quantile_us(0.99),
            p999_us: quantile_us(0.999),
            max_us: self.latencies_ns.max() as f64 / 1000.0,
        }
    }
}

impl Series {
    /// Of so many executors.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn start(executors: usize) -> io::Result<Self> {
        let (sender, receiver) = channel();
        let collector = std::thread::Builder::new()
            .name("series".to_owned())
            .spawn(move || collect(&receiver, executors))?;
        Ok(Self { sender, collector })
    }

    /// For one executor.
    pub fn recorder(&self, executor: usize) -> SeriesSender {
        SeriesSender {
            sender: self.sender.clone(),
            executor,
        }
    }

    /// All seconds from the first with an answer to the last, those without answers too. `ended_at_seconds`
    /// is the end of the phase, in seconds after the end of the warm-up. Every recorder must be finished.
    pub fn rows(self, ended_at_seconds: f64) -> Vec<SecondRow> {
        drop(self.sender);
        let counted = self.collector.join().expect("adding up does not panic");
        let mut rows: Vec<SecondRow> = Vec::new();
        for row in counted {
            if let Some(before) = rows.last() {
                for second in before.second + 1..row.second {
                    rows.push(Interval::new().row(second));
                }
            }
            rows.push(row);
        }
        if let Some(last) = rows.last_mut() {
            last.lasted_seconds = (ended_at_seconds - last.second as f64).clamp(f64::MIN_POSITIVE, 1.0);
        }
        rows
    }
}

/// Until all recorders are gone.
fn collect(receiver: &Receiver<Left>, executors: usize) -> Vec<SecondRow> {
    let mut current = vec![i64::MIN; executors];
    let mut open: BTreeMap<i64, Interval> = BTreeMap::new();
    let mut rows = Vec::new();
    for left in receiver {
        if !left.counted.is_empty() {
            let sum = open.entry(left.interval).or_insert_with(Interval::new);
            sum.add(&left.counted);
        }
        current[left.executor] = left.now_in;
        let first_in_use = current.iter().copied().min().unwrap_or(i64::MAX);
        while let Some(first) = open.first_entry().filter(|first| *first.key() < first_in_use) {
            let (second, interval) = first.remove_entry();
            rows.push(interval.row(second));
        }
    }
    rows.extend(open.into_iter().map(|(second, interval)| interval.row(second)));
    rows
}

impl SeriesSender {
    /// Begins to record; second 0 begins at `zero_at`.
    pub fn begin(self, zero_at: Instant) -> SeriesRecorder {
        let mut recorder = SeriesRecorder {
            sender: Some(self.sender),
            executor: self.executor,
            zero_at,
            interval: i64::MIN,
            interval_ends_at: zero_at,
            counted: Interval::new(),
        };
        recorder.enter(Instant::now());
        recorder
    }
}

impl SeriesRecorder {
    /// An operation was answered without error.
    pub fn answered(&mut self, now: Instant, latency_ns: u64) {
        if now >= self.interval_ends_at {
            self.enter(now);
        }
        self.counted.latencies_ns.saturating_record(latency_ns);
    }

    /// An operation was answered with an error.
    pub fn failed(&mut self, now: Instant) {
        if now >= self.interval_ends_at {
            self.enter(now);
        }
        self.counted.errors += 1;
    }

    /// Nothing is counted any more.
    pub fn finish(&mut self) {
        self.leave(i64::MAX);
        self.sender = None;
    }

    fn enter(&mut self, now: Instant) {
        let interval_ns = INTERVAL.as_nanos() as i64;
        let since_zero_ns = match now.checked_duration_since(self.zero_at) {
            Some(after) => after.as_nanos() as i64,
            None => -((self.zero_at - now).as_nanos() as i64),
        };
        let next = since_zero_ns.div_euclid(interval_ns);
        self.leave(next);
        self.interval = next;
        let left_ns = (next + 1) * interval_ns - since_zero_ns;
        self.interval_ends_at = now + Duration::from_nanos(left_ns as u64);
    }

    fn leave(&mut self, now_in: i64) {
        let left = Left {
            executor: self.executor,
            interval: self.interval,
            counted: std::mem::replace(&mut self.counted, Interval::new()),
            now_in,
        };
        let sender = self.sender.as_ref().expect("nothing is counted after the end");
        sender.send(left).expect("the collector outlives its recorders");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_what_was_answered_in_it() {
        let now = Instant::now();
        let zero_at = now + Duration::from_secs(2);
        let series = Series::start(2).unwrap();
        let mut first = series.recorder(0).begin(zero_at);
        let mut second = series.recorder(1).begin(zero_at);
        let at = |milliseconds: u64| zero_at + Duration::from_millis(milliseconds);
        first.answered(now + Duration::from_millis(1999), 1000);
        first.answered(at(0), 1000);
        for latency_us in 1..=999 {
            second.answered(at(999), latency_us * 1000);
        }
        // The first executor has moved on: the second of both still counts as one.
        first.answered(at(3100), 7_000_000);
        second.failed(at(3200));
        first.finish();
        second.finish();
        let rows = series.rows(3.25);
        let figures: Vec<_> = rows
            .iter()
            .map(|row| (row.second, row.operations, row.errors))
            .collect();
        assert_eq!(
            figures,
            [(-1, 1, 0), (0, 1000, 0), (1, 0, 0), (2, 0, 0), (3, 1, 1)]
        );
        assert!((rows[1].p50_us / 500.0 - 1.0).abs() < 0.01 && (rows[1].p99_us / 990.0 - 1.0).abs() < 0.01);
        assert!((rows[4].max_us / 7000.0 - 1.0).abs() < 0.01);
        assert!((rows[4].lasted_seconds - 0.25).abs() < 1e-9 && (rows[0].lasted_seconds - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_second_is_worked_out_when_all_have_left_it() {
        let counted = |interval, executor, now_in| {
            let mut counted = Interval::new();
            counted.latencies_ns.saturating_record(1000);
            Left {
                executor,
                interval,
                counted,
                now_in,
            }
        };
        let (sender, receiver) = channel();
        for left in [
            counted(0, 0, 5),
            counted(0, 1, 1),
            counted(1, 1, 5),
            counted(5, 0, 6),
        ] {
            sender.send(left).unwrap();
        }
        drop(sender);
        let rows = collect(&receiver, 2);
        let figures: Vec<_> = rows.iter().map(|row| (row.second, row.operations)).collect();
        assert_eq!(figures, [(0, 2), (1, 1), (5, 1)]);
    }
}
