//! What a run found, as a table for people and as one JSON document for programs.
//!
//! Both say the same. Latencies are in microseconds, taken from the merged histograms of all executors (three
//! significant digits); throughput is what was finished divided by the time from the first executor's start
//! to the last one's end.

use std::fmt::{self, Write as _};
use std::process::ExitCode;

use ostrakon_client::ErrorCode;

use crate::check::CheckReport;
use crate::cli::{Configuration, Phase};
use crate::driver::PhaseOutcome;
use crate::register::Violation;
use crate::statistics::{Measure, Statistics};

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
    /// Number of records.
    pub records: u64,
    /// Where the node listened.
    pub address: String,
    /// The load and run phases that were begun.
    pub phases: Vec<PhaseReport>,
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
    /// How long it took.
    pub seconds: f64,
    /// Finished operations.
    pub operations: u64,
    /// Per second.
    pub operations_per_second: f64,
    /// One row per kind of request that occurred.
    pub requests: Vec<RequestRow>,
    /// Errors by code.
    pub errors: Vec<ErrorRow>,
    /// `Busy` answers after which the operation was sent again.
    pub busy_retries: u64,
    /// Reads that found no record.
    pub not_found: u64,
    /// Requests without answer when the connection was lost.
    pub unanswered: u64,
}

/// One kind of request.
#[derive(Debug, serde::Serialize)]
pub struct RequestRow {
    /// Which.
    pub operation: Measure,
    /// Answered without error.
    pub count: u64,
    /// Per second.
    pub per_second: f64,
    /// Latency.
    pub mean_us: f64,
    /// Latency.
    pub p50_us: f64,
    /// Latency.
    pub p95_us: f64,
    /// Latency.
    pub p99_us: f64,
    /// Latency.
    pub p999_us: f64,
    /// Latency.
    pub max_us: f64,
    /// Answered with an error.
    pub errors: u64,
}

/// One error code.
#[derive(Debug, serde::Serialize)]
pub struct ErrorRow {
    /// On the wire.
    pub code: u16,
    /// Its name.
    pub name: String,
    /// How often.
    pub count: u64,
    /// The first sentence that came with it.
    pub sentence: String,
}

impl PhaseReport {
    /// Of what a phase measured.
    pub fn new(phase: Phase, outcome: &PhaseOutcome) -> Self {
        let PhaseOutcome {
            statistics,
            elapsed,
            operations,
            ..
        } = outcome;
        let seconds = elapsed.as_secs_f64();
        let errors = statistics
            .errors_by_code()
            .into_iter()
            .map(|(code, (count, sentence))| {
                let name = ErrorCode::from(code).to_string();
                ErrorRow {
                    code,
                    name,
                    count,
                    sentence: sentence.to_owned(),
                }
            });
        let rows = Measure::ALL
            .iter()
            .map(|measure| RequestRow::new(*measure, statistics, seconds));
        Self {
            phase,
            seconds,
            operations: *operations,
            operations_per_second: per_second(*operations, seconds),
            requests: rows.filter(|row| row.count + row.errors > 0).collect(),
            errors: errors.collect(),
            busy_retries: statistics.busy_retries,
            not_found: statistics.not_found,
            unanswered: statistics.unanswered,
        }
    }
}

impl RequestRow {
    fn new(operation: Measure, statistics: &Statistics, seconds: f64) -> Self {
        let latencies = statistics.latencies_ns(operation);
        let quantile_us = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            operation,
            count: latencies.len(),
            per_second: per_second(latencies.len(), seconds),
            mean_us: latencies.mean() / 1000.0,
            p50_us: quantile_us(0.5),
            p95_us: quantile_us(0.95),
            p99_us: quantile_us(0.99),
            p999_us: quantile_us(0.999),
            max_us: latencies.max() as f64 / 1000.0,
            errors: statistics.errors_of(operation),
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

impl fmt::Display for RunReport<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for phase in &self.phases {
            writeln!(formatter, "{phase}")?;
        }
        if let Some(check) = &self.check {
            writeln!(formatter, "{check}")?;
        }
        for violation in &self.violations {
            writeln!(formatter, "VIOLATION: {violation}")?;
        }
        match &self.reason {
            Some(reason) => writeln!(formatter, "{reason}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for PhaseReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.phase == Phase::Load { "load" } else { "run" };
        writeln!(
            formatter,
            "{name}: {} operations in {:.2} s, {:.0} operations/s",
            self.operations, self.seconds, self.operations_per_second
        )?;
        if !self.requests.is_empty() {
            writeln!(
                formatter,
                "  {:<18}{:>11}{:>11}{:>11}{:>11}{:>11}{:>11}{:>11}{:>9}",
                "latency in µs", "count", "per s", "p50", "p95", "p99", "p99.9", "max", "errors"
            )?;
        }
        for row in &self.requests {
            writeln!(
                formatter,
                "  {:<18}{:>11}{:>11.0}{:>11.1}{:>11.1}{:>11.1}{:>11.1}{:>11.1}{:>9}",
                row.operation.name(),
                row.count,
                row.per_second,
                row.p50_us,
                row.p95_us,
                row.p99_us,
                row.p999_us,
                row.max_us,
                row.errors
            )?;
        }
        for (count, what) in [
            (
                self.busy_retries,
                "busy answers, each followed by another attempt",
            ),
            (self.not_found, "reads that found no record"),
            (
                self.unanswered,
                "requests without answer when the connection was lost",
            ),
        ] {
            if count > 0 {
                writeln!(formatter, "  {count} {what}")?;
            }
        }
        for error in &self.errors {
            let ErrorRow {
                code,
                name,
                count,
                sentence,
            } = error;
            writeln!(formatter, "  {count} × error {code} ({name}): {sentence}")?;
        }
        Ok(())
    }
}

/// A short list of a configuration, for the note before the first phase.
pub fn headline(configuration: &Configuration, records: u64, address: &str) -> String {
    let Configuration {
        workload,
        value_bytes,
        connections,
        pipeline,
        thread_cpus,
        ..
    } = configuration;
    let mut line = format!(
        "YCSB-{} on {address}: {records} records of {value_bytes} bytes; {connections} connections × \
         {pipeline} unanswered operations; load threads on CPU",
        workload.letter()
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
            operations: 1000,
            ..PhaseOutcome::default()
        };
        for latency_us in 1..=1000 {
            outcome.statistics.record(Measure::Read, latency_us * 1000);
        }
        outcome
            .statistics
            .record_error(Measure::Update, 6, "memory is full; add some");
        let report = PhaseReport::new(Phase::Run, &outcome);
        assert_eq!(report.requests.len(), 2);
        let read = &report.requests[0];
        assert_eq!((read.count, read.errors), (1000, 0));
        let near = |found: f64, expected: f64| (found / expected - 1.0).abs() < 0.002;
        assert!(near(read.per_second, 500.0) && near(report.operations_per_second, 500.0));
        assert!(near(read.p50_us, 500.0) && near(read.p99_us, 990.0) && near(read.p999_us, 999.0));
        assert!(near(read.max_us, 1000.0) && near(read.mean_us, 500.5));
        let text = report.to_string();
        assert!(
            text.contains("run: 1000 operations in 2.00 s, 500 operations/s"),
            "{text}"
        );
        assert!(
            text.contains("1 × error 6") && text.contains("memory is full; add some"),
            "{text}"
        );
    }

    #[test]
    fn a_phase_without_operations_is_reported_too() {
        let report = PhaseReport::new(Phase::Load, &PhaseOutcome::default());
        assert!(report.requests.is_empty());
        assert!(report.to_string().contains("load: 0 operations"));
    }
}
