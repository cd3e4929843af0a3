//! What a run found, as a table for people and as one JSON document for programs.
//!
//! Both say the same. Latencies are in microseconds, taken from the merged histograms of all executors (three
//! significant digits); throughput is what was begun after the warm-up and finished, divided by the time from
//! the end of the warm-up to the last answer.

mod table;

use std::fmt::Write as _;
use std::process::ExitCode;

use hdrhistogram::Histogram;
use ostrakon_client::ErrorCode;

use crate::arrival::Rate;
use crate::check::CheckReport;
use crate::cli::{Configuration, Phase, Speaks};
use crate::driver::PhaseOutcome;
use crate::register::Violation;
use crate::search::SearchReport;
use crate::series::SecondRow;
use crate::stages::Stage;
use crate::statistics::{ErrorLabel, Measure, Statistics};

pub use table::{seconds, shown_us};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All well.
    Ok,
    /// A failure, or operations answered with errors.
    Failed,
    /// The database broke a promise.
    Violation,
    /// The node was lost, and that was expected.
    NodeLost,
}

impl Outcome {
    /// For the shell.
    pub fn exit_code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Violation => 2,
            Self::NodeLost => 3,
        })
    }
}

/// Everything about one run.
#[derive(Debug, serde::Serialize)]
pub struct RunReport<'a> {
    /// Version of loadgen.
    pub loadgen: &'static str,
    /// What was asked for.
    pub configuration: &'a Configuration,
    /// Number of records at the beginning.
    pub records: u64,
    /// Where the nodes listened.
    pub addresses: Vec<String>,
    /// The load and run phases that were begun; of a search only the last one.
    pub phases: Vec<PhaseReport>,
    /// The search for the highest rate, if there was one.
    pub search: Option<SearchReport>,
    /// The check phase, if it was begun.
    pub check: Option<CheckReport>,
    /// Broken promises, the first few.
    pub violations: Vec<Violation>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, unless all is well.
    pub reason: Option<String>,
}

/// One load or run phase.
#[derive(Debug, serde::Serialize)]
pub struct PhaseReport {
    /// Which.
    pub phase: Phase,
    /// How long it took after the warm-up, until the last answer.
    pub seconds: f64,
    /// Finished operations, those of the warm-up left out.
    pub operations: u64,
    /// Per second.
    pub operations_per_second: f64,
    /// Finished operations that were begun in the warm-up.
    pub warm_up_operations: u64,
    /// Of whole operations that were answered without error, from the moment they were due.
    pub latency: Latency,
    /// One row per kind of request that occurred.
    pub requests: Vec<RequestRow>,
    /// Where the time of the requests went that asked; one row per kind of request and stage.
    pub stages: Vec<StageRow>,
    /// What an open loop was about.
    pub open_loop: Option<OpenLoopReport>,
    /// Errors by code.
    pub errors: Vec<ErrorRow>,
    /// `Busy` answers after which the operation was sent again.
    pub busy_retries: u64,
    /// Reads that found no record.
    pub not_found: u64,
    /// Records that scans returned.
    pub scanned_records: u64,
    /// Lost connections that were opened again.
    pub reconnections: u64,
    /// Requests that were sent again after that, or after an answer that leaves their outcome open.
    pub resent: u64,
    /// Requests without answer when the connection was lost.
    pub unanswered: u64,
    /// The part of the time, from 0 to 1, that the busiest load thread was on its CPU.
    pub busiest_thread: f64,
    /// Second by second, warm-up included.
    pub series: Vec<SecondRow>,
    /// What was asked of an open loop, for pictures.
    #[serde(skip)]
    pub offered: Option<Offered>,
    /// For tables of percentiles and pictures.
    #[serde(skip)]
    pub statistics: Statistics,
}

/// One kind of request.
#[derive(Debug, serde::Serialize)]
pub struct RequestRow {
    /// Which.
    pub operation: Measure,
    /// Per second.
    pub per_second: f64,
    /// Of the answers without error.
    #[serde(flatten)]
    pub latency: Latency,
    /// Answered with an error.
    pub errors: u64,
}

/// One stage of one kind of request.
#[derive(Debug, Clone, serde::Serialize)]
pub struct StageRow {
    /// Kind of request.
    pub operation: Measure,
    /// Part of its time.
    pub stage: Stage,
    /// Of the requests that asked, those with an error left out.
    #[serde(flatten)]
    pub latency: Latency,
}

/// Quantiles of a histogram.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Latency {
    /// Samples.
    pub count: u64,
    /// Mean.
    pub mean_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 95 % are at most this.
    pub p95_us: f64,
    /// 99 % are at most this.
    pub p99_us: f64,
    /// 99.9 % are at most this.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// What an open loop was about.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct OpenLoopReport {
    /// Operations that were due per second, on average.
    pub offered_per_second: f64,
    /// Due, and given up since no connection was free for too long.
    pub unstarted: u64,
    /// From handing an operation to a connection to its last answer.
    pub service: Latency,
    /// From the moment an operation was due to handing it over: waiting for a connection, and what the load
    /// threads were late by.
    pub start_delay: Latency,
}

/// What was asked of an open loop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Offered {
    /// How many operations were due.
    pub rate: Rate,
    /// For how long after the warm-up, if that was fixed.
    pub seconds: Option<f64>,
}

/// One error code.
#[derive(Debug, serde::Serialize)]
pub struct ErrorRow {
    /// On Ostrakon's wire; none for Redis.
    pub code: Option<u16>,
    /// Its name.
    pub name: String,
    /// How often.
    pub count: u64,
    /// The first sentence that came with it.
    pub sentence: String,
}

impl PhaseReport {
    /// Of what a phase measured.
    pub fn new(phase: Phase, outcome: PhaseOutcome, offered: Option<Offered>) -> Self {
        let PhaseOutcome {
            statistics,
            elapsed,
            series,
            busiest_thread,
            ..
        } = outcome;
        let seconds = elapsed.as_secs_f64();
        let rows = Measure::ALL
            .iter()
            .map(|measure| RequestRow::new(*measure, &statistics, seconds));
        let errors = statistics.errors_by_label();
        Self {
            phase,
            seconds,
            operations: statistics.operations,
            operations_per_second: per_second(statistics.operations, seconds),
            warm_up_operations: statistics.warm_up_operations,
            latency: Latency::of(statistics.operations_ns()),
            requests: rows.filter(|row| row.latency.count + row.errors > 0).collect(),
            stages: StageRow::all(&statistics),
            open_loop: offered.map(|offered| OpenLoopReport::new(offered, &statistics, seconds)),
            errors: errors
                .into_iter()
                .map(|(label, (count, sentence))| ErrorRow::new(label, count, sentence))
                .collect(),
            busy_retries: statistics.busy_retries,
            not_found: statistics.not_found,
            scanned_records: statistics.scanned_records,
            reconnections: statistics.reconnections,
            resent: statistics.resent,
            unanswered: statistics.unanswered,
            busiest_thread,
            series,
            offered,
            statistics,
        }
    }
}

impl OpenLoopReport {
    fn new(offered: Offered, statistics: &Statistics, seconds: f64) -> Self {
        let lasted = offered.seconds.unwrap_or(seconds);
        let due = offered.rate.due_within(lasted);
        Self {
            offered_per_second: if lasted > 0.0 { due / lasted } else { 0.0 },
            unstarted: statistics.unstarted,
            service: Latency::of(statistics.service_ns()),
            start_delay: Latency::of(statistics.start_delays_ns()),
        }
    }
}

impl Latency {
    /// Of a histogram of nanoseconds.
    pub fn of(latencies_ns: &Histogram<u64>) -> Self {
        let quantile_us = |quantile| latencies_ns.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            count: latencies_ns.len(),
            mean_us: latencies_ns.mean() / 1000.0,
            p50_us: quantile_us(0.5),
            p95_us: quantile_us(0.95),
            p99_us: quantile_us(0.99),
            p999_us: quantile_us(0.999),
            max_us: latencies_ns.max() as f64 / 1000.0,
        }
    }
}

impl RequestRow {
    fn new(operation: Measure, statistics: &Statistics, seconds: f64) -> Self {
        let latency = Latency::of(statistics.latencies_ns(operation));
        Self {
            operation,
            per_second: per_second(latency.count, seconds),
            latency,
            errors: statistics.errors_of(operation),
        }
    }
}

impl StageRow {
    fn all(statistics: &Statistics) -> Vec<Self> {
        let stages = &statistics.stages;
        let of = |operation| {
            Stage::ALL.into_iter().filter_map(move |stage| {
                let times_ns = stages.times_ns(operation, stage)?;
                Some(Self {
                    operation,
                    stage,
                    latency: Latency::of(times_ns),
                })
            })
        };
        stages.measures().flat_map(of).collect()
    }
}

impl ErrorRow {
    fn new(label: &ErrorLabel, count: u64, sentence: &str) -> Self {
        let (code, name) = match label {
            ErrorLabel::Code(code) => (Some(*code), ErrorCode::from(*code).to_string()),
            ErrorLabel::Word(word) => (None, word.clone()),
        };
        Self {
            code,
            name,
            count,
            sentence: sentence.to_owned(),
        }
    }
}

fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

/// A short list of a configuration, for the note before the first phase.
pub fn headline(configuration: &Configuration, records: u64, addresses: &[String]) -> String {
    let Configuration {
        value_size,
        connections,
        pipeline,
        thread_cpus,
        ..
    } = configuration;
    let workload = match configuration.workload {
        Some(workload) => format!("YCSB-{}", workload.letter()),
        None => format!("{} %", configuration.mix),
    };
    let speaks = match configuration.speaks {
        Speaks::Ostrakon => "",
        Speaks::Redis => "Redis ",
    };
    let mut line = format!(
        "{workload} on {speaks}{}: {records} records of {value_size} bytes; {connections} connections × \
         {pipeline} unanswered operations; load threads on CPU",
        addresses.join(", ")
    );
    for (index, cpu) in thread_cpus.iter().enumerate() {
        let separator = if index == 0 { " " } else { "," };
        write!(line, "{separator}{cpu}").expect("a string takes everything");
    }
    line.push_str(if configuration.verify {
        "; verified"
    } else {
        "; not verified"
    });
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_phase_is_reported_in_microseconds_and_per_second() {
        let mut outcome = PhaseOutcome {
            elapsed: Duration::from_secs(2),
            ..PhaseOutcome::default()
        };
        outcome.statistics.operations = 1000;
        for latency_us in 1..=1000 {
            outcome.statistics.record(Measure::Read, latency_us * 1000);
        }
        outcome
            .statistics
            .record_error(Measure::Update, ErrorLabel::Code(6), "memory is full; add some");
        let word = ErrorLabel::Word("OOM".to_owned());
        outcome
            .statistics
            .record_error(Measure::Update, word, "OOM no memory");
        let report = PhaseReport::new(Phase::Run, outcome, None);
        assert_eq!(report.requests.len(), 2);
        let read = &report.requests[0];
        assert_eq!((read.latency.count, read.errors), (1000, 0));
        let near = |found: f64, expected: f64| (found / expected - 1.0).abs() < 0.002;
        assert!(near(read.per_second, 500.0) && near(report.operations_per_second, 500.0));
        assert!(
            near(read.latency.p50_us, 500.0)
                && near(read.latency.p99_us, 990.0)
                && near(read.latency.p999_us, 999.0)
        );
        assert!(near(read.latency.max_us, 1000.0) && near(read.latency.mean_us, 500.5));
        let text = report.to_string();
        assert!(
            text.contains("run: 1000 operations in 2.00 s, 500 operations/s"),
            "{text}"
        );
        assert!(
            text.contains("1 × error 6") && text.contains("memory is full; add some"),
            "{text}"
        );
        assert!(text.contains("1 × error OOM: OOM no memory"), "{text}");
    }

    #[test]
    fn an_open_loop_tells_what_was_offered_and_what_was_late() {
        let mut outcome = PhaseOutcome {
            elapsed: Duration::from_secs(4),
            busiest_thread: 0.97,
            ..PhaseOutcome::default()
        };
        outcome.statistics.record_operation(7_000_000);
        outcome.statistics.record_service(2_000_000, 5_000_000);
        outcome.statistics.unstarted = 3;
        let offered = Offered {
            rate: Rate::fixed(250.0),
            seconds: Some(2.0),
        };
        let report = PhaseReport::new(Phase::Run, outcome, Some(offered));
        let open_loop = report.open_loop.unwrap();
        assert!((open_loop.offered_per_second - 250.0).abs() < 1e-9);
        let text = report.to_string();
        for line in [
            "0 operations/s of 250 offered",
            "whole operation",
            "service time",
            "start delay",
            "3 operations were due",
            "97 % on its CPU",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }

    #[test]
    fn stages_have_a_row_each() {
        let mut outcome = PhaseOutcome::default();
        let timings = ostrakon_client::StageTimings {
            queue_ns: 1_000,
            hop_ns: 2_000,
            log_ns: 30_000,
            apply_ns: 4_000,
            total_ns: 37_000,
        };
        outcome
            .statistics
            .stages
            .record(Measure::Update, 50_000, &timings);
        let report = PhaseReport::new(Phase::Run, outcome, None);
        assert_eq!(report.stages.len(), Stage::ALL.len());
        let text = report.to_string();
        for line in ["update, by stage", "    queue", "    log ", "    network, client"] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["stages"][2]["stage"], "log");
        assert!((json["stages"][2]["p50_us"].as_f64().unwrap() - 30.0).abs() < 0.1);
    }

    #[test]
    fn a_phase_without_operations_is_reported_too() {
        let report = PhaseReport::new(Phase::Load, PhaseOutcome::default(), None);
        assert!(report.requests.is_empty());
        assert!(report.to_string().contains("load: 0 operations"));
    }
}
