//! What a crash run found: a table for people, one JSON document for programs.

use std::fmt;

use serde_json::{Value, json};

use super::history::Violation;
use crate::process::descriptors::LogDescriptor;

/// One round.
#[derive(Clone, Debug, Default)]
pub struct RoundReport {
    /// Its number, from 1.
    pub round: u32,
    /// From the start of the clients until the stop, in milliseconds.
    pub moment_ms: u64,
    /// Acknowledged increments.
    pub increments: u64,
    /// Acknowledged plain writes.
    pub plain_writes: u64,
    /// Operations of loadgen, reads too.
    pub loadgen_operations: Option<u64>,
    /// Writes of unknown outcome.
    pub unknown: u64,
    /// Those of them that turned out to be applied.
    pub unknown_applied: u64,
    /// The node was also stopped so many milliseconds after the start of a restart, before it was ready.
    pub start_cut_ms: Option<u64>,
    /// From the start of the process until it was ready, in milliseconds.
    pub restart_ms: f64,
    /// Log entries that were replayed.
    pub recovered_entries: u64,
    /// Keys that were compared.
    pub keys: u64,
    /// Broken promises.
    pub violations: Vec<Violation>,
}

/// A whole run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// `kill` or `power`.
    pub mode: String,
    /// Of everything random.
    pub seed: u64,
    /// In order.
    pub rounds: Vec<RoundReport>,
    /// The node's open log segments in the first round.
    pub descriptors: Vec<LogDescriptor>,
    /// Broken promises outside any round: the final clean restart.
    pub violations: Vec<Violation>,
}

impl Report {
    /// All broken promises.
    pub fn all_violations(&self) -> impl Iterator<Item = &Violation> {
        self.rounds
            .iter()
            .flat_map(|round| &round.violations)
            .chain(&self.violations)
    }

    /// The whole report as one JSON object.
    pub fn to_json(&self) -> Value {
        let rounds: Vec<Value> = self.rounds.iter().map(RoundReport::to_json).collect();
        let descriptors: Vec<Value> = self
            .descriptors
            .iter()
            .map(|one| {
                json!({
                    "descriptor": one.descriptor, "path": one.path, "flags_octal": format!("{:o}", one.flags),
                    "direct": one.is_direct(), "dsync": one.is_synchronous(),
                })
            })
            .collect();
        let restart_ms = self.restart_percentiles();
        json!({
            "mode": self.mode, "seed": self.seed, "rounds": rounds, "log_descriptors": descriptors,
            "restart_ms": restart_ms.map(|[least, p50, p95, most]| json!({
                "min": least, "p50": p50, "p95": p95, "max": most,
            })),
            "violations": self.all_violations().map(Violation::to_json).collect::<Vec<_>>(),
        })
    }

    /// Smallest, median, 95th percentile (nearest rank) and largest restart time, in milliseconds.
    pub fn restart_percentiles(&self) -> Option<[f64; 4]> {
        let mut times: Vec<f64> = self.rounds.iter().map(|round| round.restart_ms).collect();
        times.retain(|time| *time > 0.0);
        times.sort_by(f64::total_cmp);
        let rank = |percent: usize| times[(times.len() * percent).div_ceil(100) - 1];
        let (first, last) = (*times.first()?, *times.last()?);
        Some([first, rank(50), rank(95), last])
    }
}

impl RoundReport {
    fn to_json(&self) -> Value {
        json!({
            "round": self.round, "moment_ms": self.moment_ms, "increments": self.increments,
            "plain_writes": self.plain_writes, "loadgen_operations": self.loadgen_operations,
            "unknown": self.unknown, "unknown_applied": self.unknown_applied,
            "start_cut_ms": self.start_cut_ms, "restart_ms": self.restart_ms,
            "recovered_entries": self.recovered_entries, "keys": self.keys,
            "violations": self.violations.iter().map(Violation::to_json).collect::<Vec<_>>(),
        })
    }

    /// The names over the columns of [`RoundReport`]'s line.
    pub fn headline() -> &'static str {
        "round  moment ms  increments  plain writes  loadgen ops  unknown  applied  start cut ms  restart ms  \
         recovered     keys  violations"
    }
}

impl fmt::Display for RoundReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_dash =
            |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        write!(
            formatter,
            "{:>5}  {:>9}  {:>10}  {:>12}  {:>11}  {:>7}  {:>7}  {:>12}  {:>10.1}  {:>9}  {:>7}  {:>10}",
            self.round,
            self.moment_ms,
            self.increments,
            self.plain_writes,
            or_dash(self.loadgen_operations),
            self.unknown,
            self.unknown_applied,
            or_dash(self.start_cut_ms),
            self.restart_ms,
            self.recovered_entries,
            self.keys,
            self.violations.len(),
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "mode {}, seed {}", self.mode, self.seed)?;
        writeln!(formatter, "{}", RoundReport::headline())?;
        for round in &self.rounds {
            writeln!(formatter, "{round}")?;
        }
        if let Some([least, p50, p95, most]) = self.restart_percentiles() {
            writeln!(
                formatter,
                "restart ms: min {least:.1}, p50 {p50:.1}, p95 {p95:.1}, max {most:.1}"
            )?;
        }
        for one in &self.descriptors {
            let yes = |holds| if holds { "yes" } else { "NO" };
            writeln!(
                formatter,
                "log descriptor {} {}: flags {:#o}, O_DIRECT {}, O_DSYNC {}",
                one.descriptor,
                one.path.display(),
                one.flags,
                yes(one.is_direct()),
                yes(one.is_synchronous())
            )?;
        }
        for violation in self.all_violations() {
            writeln!(formatter, "VIOLATION {violation}")?;
        }
        let acknowledged: u64 = self
            .rounds
            .iter()
            .map(|round| round.increments + round.plain_writes)
            .sum();
        let unknown: u64 = self.rounds.iter().map(|round| round.unknown).sum();
        let count = self.all_violations().count();
        write!(
            formatter,
            "{acknowledged} acknowledged writes, {unknown} of unknown outcome, {count} violations"
        )
    }
}

impl Violation {
    fn to_json(&self) -> Value {
        json!({ "key": self.key, "expected": self.expected, "found": self.found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_by_nearest_rank() {
        let rounds = (1..=20).rev().map(|ms| RoundReport {
            restart_ms: f64::from(ms),
            ..RoundReport::default()
        });
        let report = Report {
            rounds: rounds.collect(),
            ..Report::default()
        };
        assert_eq!(report.restart_percentiles(), Some([1.0, 10.0, 19.0, 20.0]));
        assert_eq!(Report::default().restart_percentiles(), None);
    }
}
