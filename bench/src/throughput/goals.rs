//! What the comparison with Redis must give, and whether it did.
//!
//! 1. Ratios are taken within a round, ours over theirs, and the median over the rounds is judged: what changes
//!    from round to round changes for both.
//! 2. Unpipelined on the loopback interface the network is itself a bound, so the goal for gets there is what a
//!    bare echo of the same run allows, if that is less.
//! 3. Where the generator's CPU was busy in either system, the throughput is the generator's: then the goal is
//!    put to the requests per CPU second of the server instead.
//! 4. Percentiles and CPU seconds per request must not be worse than those of Redis.

use serde_json::{Value, json};

use super::{Cell, Figures, GENERATOR_BUSY_MAX, Measured};
use crate::load::{Operation, Shape, System};
use crate::report::{Table, number};
use crate::statistics::median;

/// The goal of one cell, in the throughput of others.
#[derive(Debug, Clone, Copy)]
struct Goal {
    operation: Operation,
    shape: Shape,
    of_redis: f64,
    /// If the echo of the run bounds it.
    of_echo: Option<f64>,
}

const GOALS: [Goal; 4] = [
    Goal {
        operation: Operation::Put,
        shape: Shape::UNPIPELINED,
        of_redis: 1.0,
        of_echo: None,
    },
    Goal {
        operation: Operation::Put,
        shape: Shape::PIPELINED,
        of_redis: 1.5,
        of_echo: None,
    },
    Goal {
        operation: Operation::Get,
        shape: Shape::UNPIPELINED,
        of_redis: 0.95,
        of_echo: Some(0.9),
    },
    Goal {
        operation: Operation::Get,
        shape: Shape::PIPELINED,
        of_redis: 1.3,
        of_echo: None,
    },
];

/// What became of one goal. Ratios are ours over those of Redis.
#[derive(Debug, Clone)]
pub(super) struct Verdict {
    goal: Goal,
    /// Throughput, by round.
    by_round: Vec<f64>,
    /// Median of those.
    throughput: f64,
    /// Throughput that is wanted, as a ratio to that of Redis.
    wanted: f64,
    /// Was the generator the bound?
    is_generators: bool,
    p50: f64,
    p95: f64,
    p99: f64,
    cpu: f64,
}

/// Judges all goals whose cells were measured for both systems.
pub(super) fn judge(measured: &[Measured]) -> Vec<Verdict> {
    GOALS
        .iter()
        .filter_map(|goal| Verdict::of(*goal, measured))
        .collect()
}

impl Verdict {
    fn of(goal: Goal, measured: &[Measured]) -> Option<Self> {
        let of_round = |system: System, round: usize| {
            let cell = Cell {
                system,
                operation: goal.operation,
                shape: goal.shape,
            };
            let mut found = measured
                .iter()
                .filter(|one| one.cell == cell && one.round == round);
            found.next().map(Figures::of)
        };
        let rounds = measured.iter().map(|one| one.round).max()?;
        let pairs: Vec<(Figures, Figures, Option<Figures>)> = (1..=rounds)
            .filter_map(|round| {
                Some((
                    of_round(System::Ostrakon, round)?,
                    of_round(System::Redis, round)?,
                    of_round(System::Echo, round),
                ))
            })
            .collect();
        if pairs.is_empty() {
            return None;
        }
        let ratio = |figure: fn(&Figures) -> f64| {
            median(
                pairs
                    .iter()
                    .map(|(ours, theirs, _)| figure(ours) / figure(theirs)),
            )
        };
        let busy = |of: fn(&(Figures, Figures, Option<Figures>)) -> f64| median(pairs.iter().map(of));
        let echo =
            median(pairs.iter().filter_map(|(_, theirs, echo)| {
                echo.as_ref().map(|echo| echo.per_second / theirs.per_second)
            }));
        let bound = goal.of_echo.map_or(f64::INFINITY, |of_echo| of_echo * echo);
        let by_round = pairs
            .iter()
            .map(|(ours, theirs, _)| ours.per_second / theirs.per_second);
        Some(Self {
            goal,
            by_round: by_round.collect(),
            throughput: ratio(|one| one.per_second),
            // Without an echo its bound is not a number, which `min` passes over.
            wanted: goal.of_redis.min(bound),
            is_generators: busy(|(ours, _, _)| ours.generator_busy) >= GENERATOR_BUSY_MAX
                || busy(|(_, theirs, _)| theirs.generator_busy) >= GENERATOR_BUSY_MAX,
            p50: ratio(|one| one.latency.p50_us),
            p95: ratio(|one| one.latency.p95_us),
            p99: ratio(|one| one.latency.p99_us),
            cpu: ratio(|one| one.cpu_seconds_per_million),
        })
    }

    fn name(&self) -> String {
        format!("{} {}", self.goal.operation.name(), self.goal.shape)
    }

    /// Requests per second, or per CPU second where the generator was the bound.
    fn judged_ratio(&self) -> f64 {
        if self.is_generators {
            1.0 / self.cpu
        } else {
            self.throughput
        }
    }

    fn is_throughput_met(&self) -> bool {
        self.judged_ratio() >= self.wanted
    }

    fn is_p99_met(&self) -> bool {
        self.p99 <= 1.0
    }

    fn is_cpu_met(&self) -> bool {
        self.cpu <= 1.0
    }

    /// As a JSON object.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "cell": self.name(),
            "ratio_by_round": self.by_round,
            "ratio": self.throughput,
            "goal": self.wanted,
            "generator_bound": self.is_generators,
            "judged_ratio": self.judged_ratio(),
            "met": self.is_throughput_met(),
            "p50_ratio": self.p50,
            "p95_ratio": self.p95,
            "p99_ratio": self.p99,
            "p99_met": self.is_p99_met(),
            "cpu_ratio": self.cpu,
            "cpu_met": self.is_cpu_met(),
        })
    }
}

/// Ostrakon over Redis, round by round.
pub(super) fn ratios(verdicts: &[Verdict]) -> Table {
    let rounds = verdicts.iter().map(|verdict| verdict.by_round.len()).max();
    let mut columns = vec!["cell".to_owned()];
    columns.extend((1..=rounds.unwrap_or(0)).map(|round| format!("round {round}")));
    columns.extend(["median", "p50", "p95", "p99", "CPU seconds"].map(str::to_owned));
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut table = Table::new(
        "ostrakon / redis: throughput by round, then medians of the ratios",
        &columns,
    );
    for verdict in verdicts {
        let figures = [
            verdict.throughput,
            verdict.p50,
            verdict.p95,
            verdict.p99,
            verdict.cpu,
        ];
        let cells = verdict.by_round.iter().chain(&figures);
        table.row(
            [verdict.name()]
                .into_iter()
                .chain(cells.map(|ratio| number(*ratio, 2))),
        );
    }
    table
}

/// What was wanted, and whether it was met.
pub(super) fn table(verdicts: &[Verdict]) -> Table {
    let columns = ["cell", "goal", "found", "throughput", "p99 ≤ 1", "CPU ≤ 1"];
    let mut table = Table::new("goals", &columns);
    let word = |is_met: bool| if is_met { "met" } else { "missed" };
    for verdict in verdicts {
        let throughput = word(verdict.is_throughput_met());
        let judged = if verdict.is_generators {
            format!("{throughput}, by CPU seconds: the throughput is the generator's")
        } else {
            throughput.to_owned()
        };
        table.row([
            verdict.name(),
            format!("≥ {}", number(verdict.wanted, 2)),
            number(verdict.judged_ratio(), 2),
            judged,
            word(verdict.is_p99_met()).to_owned(),
            word(verdict.is_cpu_met()).to_owned(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::tests::measured;
    use super::*;

    fn one(system: System, operation: Operation, shape: Shape, round: usize, requests: u64) -> Measured {
        measured(
            Cell {
                system,
                operation,
                shape,
            },
            round,
            requests,
        )
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let put = |system, round, requests| one(system, Operation::Put, Shape::PIPELINED, round, requests);
        let all = [
            put(System::Ostrakon, 1, 200),
            put(System::Redis, 1, 100),
            put(System::Ostrakon, 2, 30),
            put(System::Redis, 2, 10),
            put(System::Ostrakon, 3, 10_000),
            put(System::Redis, 3, 20_000),
        ];
        let verdicts = judge(&all);
        assert_eq!(verdicts.len(), 1);
        let verdict = &verdicts[0];
        assert_eq!(verdict.by_round, [2.0, 3.0, 0.5]);
        assert!((verdict.throughput - 2.0).abs() < 1e-9 && verdict.is_throughput_met());
        // One CPU second each, for more requests of ours in the median.
        assert!((verdict.cpu - 0.5).abs() < 1e-9 && verdict.is_cpu_met() && verdict.is_p99_met());
        let text = format!("{}{}", ratios(&verdicts), table(&verdicts));
        assert!(
            text.contains("put 50 × 16") && text.contains("≥ 1.50") && text.contains("3.00"),
            "{text}"
        );
    }

    #[test]
    fn the_echo_lowers_the_goal_of_gets_and_nothing_raises_it() {
        let get = |system, requests| one(system, Operation::Get, Shape::UNPIPELINED, 1, requests);
        let with = |echo: &[u64]| {
            let mut all = vec![get(System::Ostrakon, 80), get(System::Redis, 100)];
            all.extend(echo.iter().map(|requests| get(System::Echo, *requests)));
            judge(&all)[0].clone()
        };
        assert!((with(&[80]).wanted - 0.72).abs() < 1e-9 && with(&[80]).is_throughput_met());
        assert!((with(&[300]).wanted - 0.95).abs() < 1e-9 && !with(&[300]).is_throughput_met());
        assert!((with(&[]).wanted - 0.95).abs() < 1e-9);
    }

    #[test]
    fn a_busy_generator_leaves_the_cpu_seconds_to_judge() {
        let put = |system, requests| one(system, Operation::Put, Shape::UNPIPELINED, 1, requests);
        let mut all = [put(System::Ostrakon, 100), put(System::Redis, 100)];
        all[1].outcome.generator_busy = 0.99;
        all[0].server_cpu_seconds = 0.5;
        let verdict = &judge(&all)[0];
        assert!(verdict.is_generators && (verdict.judged_ratio() - 2.0).abs() < 1e-9);
        assert!(
            table(&judge(&all))
                .to_string()
                .contains("the throughput is the generator's")
        );
        all[0].server_cpu_seconds = 1.5;
        let verdict = &judge(&all)[0];
        assert!(!verdict.is_throughput_met() && !verdict.is_cpu_met());
    }
}
