//! `syscalls`: system calls per put and per get, by name.
//!
//! One server, loaded with the keys. For each phase strace is attached to the idle server, the requests are
//! made, and strace is detached again, so that a count holds one phase and nothing of the start. A traced
//! system call takes several times as long, which gives requests more time to gather in one batch: counts
//! per request at 50 connections are rather lower than in free flight. The counts of the kernel's own
//! workers for `io_uring` are not in it: they make none.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::{Common, Setup};
use crate::load::{Load, Operation, Shape, System, Until};
use crate::report::{Report, Table, number};
use crate::strace::{Calls, Strace};

/// Arguments of the benchmark.
#[derive(Debug, Clone, Args)]
pub struct Syscalls {
    /// Requests of each phase
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub requests: u64,

    /// Keys that are loaded first, and chosen from uniformly
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: u64,

    /// What every benchmark takes.
    #[command(flatten)]
    pub common: Common,
}

/// One phase and its counts.
#[derive(Debug)]
struct Phase {
    operation: Operation,
    shape: Shape,
    requests: u64,
    calls: Calls,
}

impl Syscalls {
    /// Measures.
    ///
    /// # Errors
    /// A sentence, if anything fails on the way.
    pub fn run(&self, setup: &Setup) -> Result<Report, String> {
        let server = setup.start_server()?;
        let load = Load {
            system: System::Ostrakon,
            operation: Operation::Put,
            keys: self.keys,
            value_bytes: self.common.value_size,
            shape: Shape::PIPELINED,
            until: Until::EachKeyOnce,
            cpu: self.common.client_cpu,
            seed: 1,
        };
        load.run_without_errors(server.address())?;
        let mut phases = Vec::new();
        for shape in [Shape::ONE_CLIENT, Shape::UNPIPELINED, Shape::PIPELINED] {
            for operation in [Operation::Put, Operation::Get] {
                let phase = Load {
                    operation,
                    shape,
                    until: Until::Requests(self.requests),
                    ..load
                };
                let strace = Strace::attach(server.id(), &setup.workspace)?;
                let outcome = phase.run_without_errors(server.address())?;
                let calls = strace.detach()?;
                eprintln!("{} {shape}: done", operation.name());
                phases.push(Phase {
                    operation,
                    shape,
                    requests: outcome.requests,
                    calls,
                });
            }
        }
        server.stop()?;
        Ok(self.report(setup, &phases))
    }

    fn report(&self, setup: &Setup, phases: &[Phase]) -> Report {
        let mut report = setup.report("system calls of the server per request");
        report.setting(
            "requests",
            format!("{} per phase", number(self.requests as f64, 0)),
        );
        report.setting("keys", format!("{}, uniform", number(self.keys as f64, 0)));
        let mut columns = vec!["system call".to_owned()];
        columns.extend(
            phases
                .iter()
                .map(|phase| format!("{} {}", phase.operation.name(), phase.shape)),
        );
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let mut table = Table::new("calls per request, at connections × pipeline", &columns);
        let mut names: BTreeMap<&str, f64> = BTreeMap::new();
        for phase in phases {
            for name in phase.calls.keys() {
                *names.entry(name).or_default() += phase.per_request(name);
            }
        }
        let mut by_weight: Vec<_> = names.into_iter().collect();
        by_weight.sort_by(|left, right| right.1.total_cmp(&left.1));
        for (name, _) in by_weight {
            let cells = phases.iter().map(|phase| number(phase.per_request(name), 3));
            table.row([name.to_owned()].into_iter().chain(cells));
        }
        let totals = phases.iter().map(|phase| number(phase.total_per_request(), 3));
        table.row(["total".to_owned()].into_iter().chain(totals));
        report.table(table);
        report.figures(phases.iter().map(Phase::to_json).collect());
        report.note("The opening and closing of connections and the server's timers are in the counts.");
        report
    }
}

impl Phase {
    fn per_request(&self, name: &str) -> f64 {
        self.calls.get(name).copied().unwrap_or(0) as f64 / self.requests as f64
    }

    fn total_per_request(&self) -> f64 {
        self.calls.values().sum::<u64>() as f64 / self.requests as f64
    }

    fn to_json(&self) -> Value {
        json!({
            "operation": self.operation.name(),
            "connections": self.shape.connections,
            "pipeline": self.shape.pipeline,
            "requests": self.requests,
            "calls": self.calls,
            "calls_per_request": self.total_per_request(),
        })
    }
}
