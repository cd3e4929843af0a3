//! The report as text.

use std::fmt::{self, Write as _};

use super::{ErrorRow, Latency, PhaseReport, RunReport};
use crate::cli::Phase;
use crate::series::SecondRow;

/// From here on a load thread's CPU may be what bounds the throughput.
const BUSY_THREAD: f64 = 0.95;

impl fmt::Display for RunReport<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, phase) in self.phases.iter().enumerate() {
            if let Some(search) = self.search.as_ref().filter(|_| phase.phase == Phase::Run) {
                writeln!(formatter, "{search}")?;
            }
            writeln!(formatter, "{phase}")?;
            if self.configuration.stages_every.is_some() && phase.operations > 0 && phase.stages.is_empty() {
                writeln!(
                    formatter,
                    "  no answer said where its time went: the node knows nothing of --stages\n"
                )?;
            }
            if self.configuration.series && index + 1 == self.phases.len() {
                writeln!(formatter, "{}", seconds(&phase.series))?;
            }
        }
        if let Some(search) = self
            .search
            .as_ref()
            .filter(|search| search.found_per_second.is_none())
        {
            writeln!(formatter, "{search}")?;
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
        write!(
            formatter,
            "{name}: {} operations in {:.2} s, {:.0} operations/s",
            self.operations, self.seconds, self.operations_per_second
        )?;
        if let Some(open_loop) = &self.open_loop {
            write!(formatter, " of {:.0} offered", open_loop.offered_per_second)?;
        }
        writeln!(formatter)?;
        if !self.requests.is_empty() {
            writeln!(
                formatter,
                "  {:<18}{:>11}{:>11}{:>11}{:>11}{:>11}{:>11}{:>11}{:>9}",
                "latency in µs", "count", "per s", "p50", "p95", "p99", "p99.9", "max", "errors"
            )?;
        }
        for row in &self.requests {
            let rate = format!("{:.0}", row.per_second);
            latency_row(
                formatter,
                row.operation.name(),
                &rate,
                &row.latency,
                &row.errors.to_string(),
            )?;
        }
        if let Some(open_loop) = &self.open_loop {
            latency_row(formatter, "whole operation", "", &self.latency, "")?;
            latency_row(formatter, "  service time", "", &open_loop.service, "")?;
            latency_row(formatter, "  start delay", "", &open_loop.start_delay, "")?;
        }
        self.stage_rows(formatter)?;
        self.notes(formatter)?;
        for error in &self.errors {
            writeln!(formatter, "  {error}")?;
        }
        Ok(())
    }
}

impl PhaseReport {
    fn stage_rows(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut previous = None;
        for row in &self.stages {
            if previous.replace(row.operation) != Some(row.operation) {
                writeln!(formatter, "  {}, by stage", row.operation.name())?;
            }
            let name = format!("  {}", row.stage.name());
            latency_row(formatter, &name, "", &row.latency, "")?;
        }
        Ok(())
    }

    fn notes(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unstarted = self.open_loop.map_or(0, |open_loop| open_loop.unstarted);
        for (count, what) in [
            (self.warm_up_operations, "operations in the warm-up, not measured"),
            (self.scanned_records, "records returned by scans"),
            (
                self.busy_retries,
                "busy answers, each followed by another attempt",
            ),
            (self.not_found, "reads that found no record"),
            (
                self.unanswered,
                "requests without answer when the connection was lost",
            ),
            (self.reconnections, "connections were lost and opened again"),
            (self.resent, "requests were sent again"),
            (unstarted, "operations were due and never begun"),
        ] {
            if count > 0 {
                writeln!(formatter, "  {count} {what}")?;
            }
        }
        if self.busiest_thread >= BUSY_THREAD {
            writeln!(
                formatter,
                "  the busiest load thread was {:.0} % on its CPU: the throughput may be loadgen's own; give it more \
                 with --threads and --cpus",
                self.busiest_thread * 100.0
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for ErrorRow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            code,
            name,
            count,
            sentence,
        } = self;
        match code {
            Some(code) => write!(formatter, "{count} × error {code} ({name}): {sentence}"),
            None => write!(formatter, "{count} × error {name}: {sentence}"),
        }
    }
}

fn latency_row(
    formatter: &mut fmt::Formatter<'_>,
    name: &str,
    per_second: &str,
    latency: &Latency,
    errors: &str,
) -> fmt::Result {
    let line = format!(
        "  {name:<18}{:>11}{per_second:>11}{:>11.1}{:>11.1}{:>11.1}{:>11.1}{:>11.1}{errors:>9}",
        latency.count, latency.p50_us, latency.p95_us, latency.p99_us, latency.p999_us, latency.max_us,
    );
    writeln!(formatter, "{}", line.trim_end())
}

/// A latency in the unit that suits it.
pub fn shown_us(microseconds: f64) -> String {
    match microseconds {
        long if long >= 1e6 => format!("{:.2} s", long / 1e6),
        middling if middling >= 1e3 => format!("{:.2} ms", middling / 1e3),
        short => format!("{short:.0} µs"),
    }
}

/// The time series as a table.
pub fn seconds(rows: &[SecondRow]) -> String {
    let mut text = format!(
        "  {:<18}{:>11}{:>11}{:>11}{:>11}{:>11}{:>11}{:>9}\n",
        "second", "operations", "mean", "p50", "p99", "p99.9", "max", "errors"
    );
    for row in rows {
        writeln!(
            text,
            "  {:<18}{:>11}{:>11.1}{:>11.1}{:>11.1}{:>11.1}{:>11.1}{:>9}",
            row.second,
            row.operations,
            row.mean_us,
            row.p50_us,
            row.p99_us,
            row.p999_us,
            row.max_us,
            row.errors
        )
        .expect("a string takes everything");
    }
    text
}
