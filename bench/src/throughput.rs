//! `throughput`: puts and gets of 50 connections on one server core, unpipelined and pipelined by 16; for
//! Redis, too.
//!
//! A round takes each system in turn: a fresh server, all keys loaded, then the four cells, gets before
//! puts because the database keeps what was overwritten. Both systems get the same load from the same
//! generator, on the same CPUs, with their data on the same file system. With Redis in it, each round also
//! measures a bare echo, which bounds what any server of the runtime can do unpipelined. Where the generator's
//! own CPU is the bound, throughput says nothing of the server: compare CPU seconds per million requests then.
//! What the figures must be is in [`goals`].

mod goals;

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::{Common, Setup};
use crate::load::{Load, Operation, Outcome, Shape, System, Until};
use crate::peer::Running;
use crate::redis::Redis;
use crate::report::{Report, Table, number};
use crate::statistics::{Percentiles, median};

/// From this share of its time on, the generator is taken for the bound.
const GENERATOR_BUSY_MAX: f64 = 0.95;

/// Arguments of the benchmark.
#[derive(Debug, Clone, Args)]
pub struct Throughput {
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub rounds: usize,

    /// Seconds of each cell of a round
    #[arg(long, value_name = "S", default_value_t = 30)]
    pub seconds: u64,

    /// Keys that are loaded first, and chosen from uniformly
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: u64,

    /// Measure redis-server as well, with appendfsync always, and a bare echo; compare, and judge the goals
    #[arg(long)]
    pub redis: bool,

    /// What every benchmark takes.
    #[command(flatten)]
    pub common: Common,
}

/// What is measured in each round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    system: System,
    operation: Operation,
    shape: Shape,
}

/// One cell of one round.
#[derive(Debug, Clone)]
struct Measured {
    cell: Cell,
    round: usize,
    outcome: Outcome,
    server_cpu_seconds: f64,
}

/// The figures of a cell: of one round, or the medians of all.
#[derive(Debug, Clone, Copy)]
struct Figures {
    per_second: f64,
    latency: Percentiles,
    cpu_seconds_per_million: f64,
    server_busy: f64,
    generator_busy: f64,
    errors: u64,
}

impl Throughput {
    /// Measures.
    ///
    /// # Errors
    /// A sentence, if anything fails on the way. Requests that a server refuses are counted and shown.
    pub fn run(&self, setup: &Setup) -> Result<Report, String> {
        let redis_version = if self.redis { Some(Redis::version()?) } else { None };
        let mut systems = vec![System::Ostrakon];
        if self.redis {
            systems.extend([System::Redis, System::Echo]);
        }
        let mut measured = Vec::new();
        for round in 1..=self.rounds.max(1) {
            for system in &systems {
                let running = Running::start(*system, setup)?;
                self.round(*system, round, &running, &mut measured)?;
                running.stop()?;
            }
        }
        let mut report = self.report(setup, &measured);
        if let Some(version) = redis_version {
            report.setting(
                "peer",
                format!("redis {version}, appendonly yes, appendfsync always"),
            );
        }
        Ok(report)
    }

    fn round(
        &self,
        system: System,
        round: usize,
        running: &Running,
        measured: &mut Vec<Measured>,
    ) -> Result<(), String> {
        let load = Load {
            system,
            operation: Operation::Put,
            keys: self.keys,
            value_bytes: self.common.value_size,
            shape: Shape::PIPELINED,
            until: Until::EachKeyOnce,
            cpu: self.common.client_cpu,
            seed: round as u64,
        };
        if system != System::Echo {
            load.run_without_errors(running.address())?;
        }
        for cell in Cell::all_of(system) {
            let until = Until::Time(Duration::from_secs(self.seconds));
            let before = running.cpu_seconds()?;
            let outcome = Load {
                operation: cell.operation,
                shape: cell.shape,
                until,
                ..load
            }
            .run(running.address())?;
            let server_cpu_seconds = running.cpu_seconds()? - before;
            let done = Measured {
                cell,
                round,
                outcome,
                server_cpu_seconds,
            };
            eprintln!(
                "round {round}: {} {} per second",
                cell.name(),
                number(done.outcome.per_second(), 0)
            );
            measured.push(done);
        }
        Ok(())
    }

    fn report(&self, setup: &Setup, measured: &[Measured]) -> Report {
        let mut report = setup.report("throughput of one server core");
        report.setting(
            "rounds",
            format!("{} of {} s per cell", self.rounds.max(1), self.seconds),
        );
        report.setting("keys", format!("{}, uniform", number(self.keys as f64, 0)));
        let mut rounds = Table::new("rounds", &Figures::columns());
        for one in measured {
            let name = format!("{}, round {}", one.cell.name(), one.round);
            rounds.row(Figures::of(one).cells(name));
            report_errors(&mut report, one);
        }
        report.table(rounds);
        let medians = medians(measured);
        let mut table = Table::new("medians", &Figures::columns());
        for (cell, figures) in &medians {
            table.row(figures.cells(cell.name()));
            if figures.generator_busy >= GENERATOR_BUSY_MAX {
                let busy = 100.0 * figures.generator_busy;
                report.note(format!(
                    "{}: the generator's CPU was {busy:.0} % busy, so the throughput is its own; \
                     compare CPU seconds.",
                    cell.name()
                ));
            }
        }
        report.table(table);
        let verdicts = goals::judge(measured);
        if self.redis {
            report.table(goals::ratios(&verdicts));
            report.table(goals::table(&verdicts));
        }
        report.figures(json!({
            "rounds": measured.iter().map(Measured::to_json).collect::<Vec<_>>(),
            "medians": medians.iter().map(|(cell, figures)| figures.to_json(*cell)).collect::<Vec<_>>(),
            "goals": verdicts.iter().map(goals::Verdict::to_json).collect::<Vec<_>>(),
        }));
        report
    }
}

fn report_errors(report: &mut Report, measured: &Measured) {
    let name = format!("{}, round {}", measured.cell.name(), measured.round);
    if let Some(note) = measured.outcome.error_note(&name) {
        report.note(note);
    }
}

/// Of each cell, in the order of the first round.
fn medians(measured: &[Measured]) -> Vec<(Cell, Figures)> {
    let cells = measured.iter().filter(|one| one.round == 1).map(|one| one.cell);
    let of = |cell: Cell| {
        let figures: Vec<_> = measured
            .iter()
            .filter(|one| one.cell == cell)
            .map(Figures::of)
            .collect();
        let middle = |figure: fn(&Figures) -> f64| median(figures.iter().map(figure));
        Figures {
            per_second: middle(|one| one.per_second),
            latency: Percentiles::medians(figures.iter().map(|one| one.latency)),
            cpu_seconds_per_million: middle(|one| one.cpu_seconds_per_million),
            server_busy: middle(|one| one.server_busy),
            generator_busy: middle(|one| one.generator_busy),
            errors: figures.iter().map(|one| one.errors).sum(),
        }
    };
    cells.map(|cell| (cell, of(cell))).collect()
}

impl Cell {
    /// What is measured of a system, in this order.
    fn all_of(system: System) -> Vec<Self> {
        let all = [
            (Operation::Get, Shape::UNPIPELINED),
            (Operation::Get, Shape::PIPELINED),
            (Operation::Put, Shape::UNPIPELINED),
            (Operation::Put, Shape::PIPELINED),
        ];
        // All requests to an echo are alike, and only unpipelined ones are bounded by it.
        let count = if system == System::Echo { 1 } else { all.len() };
        let cells = all[..count].iter().map(|(operation, shape)| Self {
            system,
            operation: *operation,
            shape: *shape,
        });
        cells.collect()
    }

    fn name(self) -> String {
        match self.system {
            System::Echo => format!("echo {}", self.shape),
            system => format!("{} {} {}", system.name(), self.operation.name(), self.shape),
        }
    }
}

impl Measured {
    fn to_json(&self) -> Value {
        let mut json = Figures::of(self).to_json(self.cell);
        json["round"] = json!(self.round);
        json["load"] = self.outcome.to_json();
        json
    }
}

impl Figures {
    fn of(measured: &Measured) -> Self {
        let outcome = &measured.outcome;
        Self {
            per_second: outcome.per_second(),
            latency: outcome.latencies.summary(),
            cpu_seconds_per_million: measured.server_cpu_seconds / outcome.requests as f64 * 1e6,
            server_busy: measured.server_cpu_seconds / outcome.seconds,
            generator_busy: outcome.generator_busy,
            errors: outcome.error_count(),
        }
    }

    fn columns() -> [&'static str; 9] {
        [
            "cell",
            "per second",
            "p50 µs",
            "p95 µs",
            "p99 µs",
            "CPU s/million",
            "server busy",
            "generator busy",
            "errors",
        ]
    }

    fn cells(&self, name: String) -> [String; 9] {
        [
            name,
            number(self.per_second, 0),
            number(self.latency.p50_us, 1),
            number(self.latency.p95_us, 1),
            number(self.latency.p99_us, 1),
            number(self.cpu_seconds_per_million, 3),
            format!("{:.0} %", 100.0 * self.server_busy),
            format!("{:.0} %", 100.0 * self.generator_busy),
            number(self.errors as f64, 0),
        ]
    }

    fn to_json(self, cell: Cell) -> Value {
        json!({
            "cell": cell.name(),
            "system": cell.system.name(),
            "operation": cell.operation.name(),
            "connections": cell.shape.connections,
            "pipeline": cell.shape.pipeline,
            "per_second": self.per_second,
            "latency": self.latency.to_json(),
            "server_cpu_seconds_per_million": self.cpu_seconds_per_million,
            "server_busy": self.server_busy,
            "generator_busy": self.generator_busy,
            "errors": self.errors,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cell of a round with so many requests in two seconds and one CPU second.
    pub(super) fn measured(cell: Cell, round: usize, requests: u64) -> Measured {
        let mut outcome = Outcome {
            requests,
            seconds: 2.0,
            ..Outcome::default()
        };
        outcome.latencies.record(100_000);
        Measured {
            cell,
            round,
            outcome,
            server_cpu_seconds: 1.0,
        }
    }

    #[test]
    fn medians_are_per_cell() {
        let cell = |system| Cell {
            system,
            operation: Operation::Put,
            shape: Shape::PIPELINED,
        };
        let all = [
            measured(cell(System::Ostrakon), 1, 1_000_000),
            measured(cell(System::Redis), 1, 500_000),
            measured(cell(System::Ostrakon), 2, 3_000_000),
            measured(cell(System::Redis), 2, 500_000),
            measured(cell(System::Ostrakon), 3, 2_000_000),
            measured(cell(System::Redis), 3, 500_000),
        ];
        let medians = medians(&all);
        assert_eq!(medians.len(), 2);
        let ours = medians[0].1;
        assert!((ours.per_second - 1e6).abs() < 1e-3);
        assert!((ours.cpu_seconds_per_million - 0.5).abs() < 1e-9);
    }

    #[test]
    fn an_echo_is_one_cell_and_each_server_four() {
        let names = |system| {
            Cell::all_of(system)
                .into_iter()
                .map(Cell::name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(System::Echo), ["echo 50 × 1"]);
        assert_eq!(
            names(System::Redis),
            [
                "redis get 50 × 1",
                "redis get 50 × 16",
                "redis put 50 × 1",
                "redis put 50 × 16"
            ]
        );
    }
}
