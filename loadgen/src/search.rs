//! The search for the highest rate that keeps its goals.
//!
//! 1. Open loops from a first rate on: doubled while the goals hold, halved while they do not.
//! 2. Between a rate that holds and one that fails, the geometric middle, until they are within 5 %.
//! 3. The highest rate that held is measured once more, for twice as long. If it fails then, it was luck: 5 %
//!    less is tried, a few times.
//!
//! A rate holds when each goal's percentile of whole operations, counted from the moments they were due, is
//! met, nothing was answered with an error, and all that was due was done soon after the end.

use std::fmt;
use std::time::Duration;

use crate::cli::Goals;
use crate::report::{PhaseReport, shown_us};

/// The bracket is narrow enough when its ends are within this factor.
const PRECISION: f64 = 1.05;
/// Rates are searched for between these, in operations per second.
const RATE_MIN: f64 = 1.0;
const RATE_MAX: f64 = 1e9;
/// Attempts to confirm the answer.
const CONFIRMATIONS_MAX: u32 = 5;
/// The part of a step's length that may pass until the last answer, besides the goals themselves.
const LATENESS_MAX: f64 = 0.01;

/// One step of the search.
#[derive(Debug, Clone, serde::Serialize)]
pub struct StepRow {
    /// Operations that were due per second.
    pub offered_per_second: f64,
    /// Finished operations per second.
    pub operations_per_second: f64,
    /// Of whole operations.
    pub p50_us: f64,
    /// Of whole operations.
    pub p99_us: f64,
    /// Of whole operations.
    pub p999_us: f64,
    /// The part of the time, from 0 to 1, that the busiest load thread was on its CPU.
    pub busiest_thread: f64,
    /// Is this the second measurement of the answer?
    pub is_confirmation: bool,
    /// Why the rate does not hold; empty if it does.
    pub failures: Vec<String>,
}

/// What a search found.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct SearchReport {
    /// In the order in which they were measured.
    pub steps: Vec<StepRow>,
    /// The highest rate that held, and held again.
    pub found_per_second: Option<f64>,
}

/// What is known so far.
#[derive(Debug, Clone, Copy)]
struct Bracket {
    first: f64,
    holds: Option<f64>,
    fails: Option<f64>,
}

impl Bracket {
    /// The rate to measure next; none when the answer is known.
    fn next(&self) -> Option<f64> {
        match (self.holds, self.fails) {
            (None, None) => Some(self.first),
            (Some(holds), None) => Some(holds * 2.0).filter(|rate| *rate <= RATE_MAX),
            (None, Some(fails)) => Some(fails / 2.0).filter(|rate| *rate >= RATE_MIN),
            (Some(holds), Some(fails)) => Some((holds * fails).sqrt()).filter(|_| fails / holds > PRECISION),
        }
    }

    fn learn(&mut self, rate: f64, holds: bool) {
        if holds {
            self.holds = Some(rate);
        } else {
            self.fails = Some(rate);
        }
    }
}

/// Searches from `first` on. `measure` runs one step at a rate, so many times as long as usual, and tells
/// what came of it; none ends the search without an answer.
///
/// # Errors
/// Those of `measure`.
pub fn search<E>(
    first: f64,
    mut measure: impl FnMut(f64, u32) -> Result<Option<StepRow>, E>,
) -> Result<SearchReport, E> {
    let mut report = SearchReport::default();
    let mut bracket = Bracket {
        first,
        holds: None,
        fails: None,
    };
    while let Some(rate) = bracket.next() {
        let Some(step) = measure(rate, 1)? else {
            return Ok(report);
        };
        bracket.learn(rate, step.failures.is_empty());
        report.steps.push(step);
    }
    let mut candidate = bracket.holds;
    for _ in 0..CONFIRMATIONS_MAX {
        let Some(rate) = candidate else {
            break;
        };
        let Some(step) = measure(rate, 2)? else {
            return Ok(report);
        };
        let holds = step.failures.is_empty();
        report.steps.push(StepRow {
            is_confirmation: true,
            ..step
        });
        if holds {
            report.found_per_second = Some(rate);
            break;
        }
        candidate = Some(rate / PRECISION).filter(|rate| *rate >= RATE_MIN);
    }
    Ok(report)
}

impl StepRow {
    /// Judges a step that was to last for `length` after its warm-up.
    pub fn new(goals: &Goals, offered_per_second: f64, length: Duration, report: &PhaseReport) -> Self {
        Self {
            offered_per_second,
            operations_per_second: report.operations_per_second,
            p50_us: report.latency.p50_us,
            p99_us: report.latency.p99_us,
            p999_us: report.latency.p999_us,
            busiest_thread: report.busiest_thread,
            is_confirmation: false,
            failures: failures(goals, length, report),
        }
    }
}

fn failures(goals: &Goals, length: Duration, report: &PhaseReport) -> Vec<String> {
    let mut failures = Vec::new();
    for goal in &goals.0 {
        let found_ns = report.statistics.operations_ns().value_at_quantile(goal.quantile);
        if found_ns > goal.most_us * 1000 {
            failures.push(format!("{} is {}", goal.name, shown_us(found_ns as f64 / 1000.0)));
        }
    }
    let errors: u64 = report.errors.iter().map(|error| error.count).sum();
    if errors > 0 {
        failures.push(format!(
            "{errors} errors, the first: {}",
            report.errors[0].sentence
        ));
    }
    let unstarted = report.open_loop.map_or(0, |open_loop| open_loop.unstarted);
    if unstarted > 0 {
        failures.push(format!("{unstarted} operations were never begun"));
    }
    let longest_us = goals.0.iter().map(|goal| goal.most_us).max().unwrap_or(0);
    let late = report.seconds - length.as_secs_f64();
    if late > length.as_secs_f64() * LATENESS_MAX + longest_us as f64 / 1e6 {
        failures.push(format!("it took {late:.2} s more to finish"));
    }
    failures
}

impl fmt::Display for SearchReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "search: {:>11}{:>11}{:>11}{:>11}{:>11}{:>11}",
            "offered/s", "done/s", "p50 µs", "p99 µs", "p99.9 µs", "CPU %"
        )?;
        for step in &self.steps {
            let verdict = match (step.failures.is_empty(), step.is_confirmation) {
                (true, true) => "confirmed".to_owned(),
                (true, false) => "holds".to_owned(),
                (false, _) => step.failures.join("; "),
            };
            writeln!(
                formatter,
                "        {:>11.0}{:>11.0}{:>11.1}{:>11.1}{:>11.1}{:>11.0}  {verdict}",
                step.offered_per_second,
                step.operations_per_second,
                step.p50_us,
                step.p99_us,
                step.p999_us,
                step.busiest_thread * 100.0
            )?;
        }
        match self.found_per_second {
            Some(rate) => writeln!(
                formatter,
                "highest rate that keeps the goals: {rate:.0} operations/s"
            ),
            None => writeln!(formatter, "no rate was found that keeps the goals"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrival::Rate;
    use crate::cli::{Goal, Phase};
    use crate::driver::PhaseOutcome;
    use crate::report::Offered;

    fn step(rate: f64, holds: bool) -> StepRow {
        StepRow {
            offered_per_second: rate,
            operations_per_second: rate,
            p50_us: 1.0,
            p99_us: 1.0,
            p999_us: 1.0,
            busiest_thread: 0.1,
            is_confirmation: false,
            failures: if holds {
                Vec::new()
            } else {
                vec!["too slow".to_owned()]
            },
        }
    }

    fn search_with(first: f64, mut holds: impl FnMut(f64, u32) -> bool) -> SearchReport {
        let measure = |rate, times| Ok::<_, ()>(Some(step(rate, holds(rate, times))));
        search(first, measure).unwrap()
    }

    #[test]
    fn the_highest_rate_is_found_from_below_and_from_above() {
        for (first, limit) in [(1000.0, 37_000.0), (1000.0, 130.0), (500.0, 500.0), (1.0, 1.0)] {
            let report = search_with(first, |rate, _| rate <= limit);
            let found = report.found_per_second.unwrap();
            assert!(
                found <= limit && found * PRECISION >= limit * 0.999,
                "{found} of {limit}"
            );
            assert!(report.steps.len() < 20, "{limit}: {} steps", report.steps.len());
            let last = report.steps.last().unwrap();
            assert!(last.is_confirmation && (last.offered_per_second - found).abs() < 1e-9);
        }
    }

    #[test]
    fn luck_is_found_out() {
        let report = search_with(1000.0, |rate, times| {
            rate <= if times == 2 { 7500.0 } else { 8000.0 }
        });
        let found = report.found_per_second.unwrap();
        assert!((7000.0..=7500.0).contains(&found), "{found}");
        let report = search_with(1000.0, |_, times| times == 1);
        assert_eq!(report.found_per_second, None);
    }

    #[test]
    fn what_never_holds_ends() {
        let report = search_with(1000.0, |_, _| false);
        assert_eq!((report.found_per_second, report.steps.len()), (None, 10));
        let report = search(1000.0, |_, _| Ok::<_, ()>(None)).unwrap();
        assert_eq!((report.found_per_second, report.steps.len()), (None, 0));
    }

    #[test]
    fn a_step_is_judged_by_all_its_goals() {
        let report = |elapsed_ms: u64| {
            let mut outcome = PhaseOutcome {
                elapsed: Duration::from_millis(elapsed_ms),
                ..PhaseOutcome::default()
            };
            for latency_ms in 1..=1000 {
                outcome.statistics.record_operation(latency_ms * 1_000_000);
            }
            let offered = Offered {
                rate: Rate::fixed(1000.0),
                seconds: Some(1.0),
            };
            PhaseReport::new(Phase::Run, outcome, Some(offered))
        };
        let judge = |goals: &[(&'static str, f64, u64)], elapsed_ms| {
            let goal = |&(name, quantile, most_us): &(&'static str, f64, u64)| Goal {
                name,
                quantile,
                most_us,
            };
            let goals = Goals(goals.iter().map(goal).collect());
            failures(&goals, Duration::from_secs(1), &report(elapsed_ms)).join("; ")
        };
        assert_eq!(
            judge(&[("p99", 0.99, 1_000_000), ("p50", 0.5, 510_000)], 1005),
            ""
        );
        assert_eq!(
            judge(
                &[
                    ("p99", 0.99, 900_000),
                    ("p99.9", 0.999, 900_000),
                    ("p50", 0.5, 600_000)
                ],
                1005
            ),
            "p99 is 990.38 ms; p99.9 is 999.29 ms"
        );
        assert_eq!(
            judge(&[("p99", 0.99, 1_000_000)], 3500),
            "it took 2.50 s more to finish"
        );
    }
}
