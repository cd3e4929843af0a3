//! `instructions`: instructions per put and per get, in user mode, of the server itself under callgrind.
//!
//! The server runs some fifty times slower than by itself, while its disk and clients do not: times mean
//! nothing here, and requests gather in batches rather more than in free flight. One client that waits for
//! each answer always makes batches of one. What the server does by its timers is done more often per
//! request here, by as much as it is slower: each phase shows its seconds, so that this part can be judged.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::callgrind::{self, Callgrind, Profile};
use crate::cli::{Common, Setup};
use crate::load::{Load, Operation, Shape, System, Until};
use crate::machine;
use crate::report::{Report, Table, number};
use crate::server::{Server, ServerOptions};

/// How long the server is watched doing nothing.
const IDLE: Duration = Duration::from_secs(3);
/// A function with this share of the instructions is one that all others are called from.
const ALL_SHARE: f64 = 0.99;
/// Longest function name that a table shows.
const NAME_CHARACTERS_MAX: usize = 100;

/// Arguments of the benchmark.
#[derive(Debug, Clone, Args)]
pub struct Instructions {
    /// Requests of each phase
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub requests: u64,

    /// Keys that are loaded first, and chosen from uniformly
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: u64,

    /// Functions to show of each phase
    #[arg(long, value_name = "N", default_value_t = 15)]
    pub top: usize,

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
    seconds: f64,
    profile: Profile,
}

impl Instructions {
    /// Measures.
    ///
    /// # Errors
    /// A sentence, if anything fails on the way.
    pub fn run(&self, setup: &Setup) -> Result<Report, String> {
        let mut callgrind = Callgrind::prepare(&setup.workspace)?;
        let options = ServerOptions {
            under: callgrind.words(),
            environment: callgrind.environment(),
            ready_within: callgrind::READY_WITHIN,
            ..setup.server_options()
        };
        let server = Server::start(&setup.binary, &setup.workspace, &options)?;
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
        eprintln!("loading {} keys", self.keys);
        load.run_without_errors(server.address())?;
        let idle_per_second = idle(&mut callgrind, &server)?;
        let mut phases = Vec::new();
        for shape in [Shape::ONE_CLIENT, Shape::UNPIPELINED, Shape::PIPELINED] {
            for operation in [Operation::Put, Operation::Get] {
                let phase = Load {
                    operation,
                    shape,
                    until: Until::Requests(self.requests),
                    ..load
                };
                callgrind.zero(server.id())?;
                let outcome = phase.run_without_errors(server.address())?;
                let profile = callgrind.dump(server.id())?;
                let (requests, seconds) = (outcome.requests, outcome.seconds);
                let phase = Phase {
                    operation,
                    shape,
                    requests,
                    seconds,
                    profile,
                };
                eprintln!(
                    "{} {shape}: {} instructions",
                    operation.name(),
                    number(phase.per_request(), 0)
                );
                phases.push(phase);
            }
        }
        server.stop()?;
        Ok(self.report(setup, &phases, idle_per_second))
    }

    fn report(&self, setup: &Setup, phases: &[Phase], idle_per_second: f64) -> Report {
        let mut report =
            setup.report("instructions of the server per request, in user mode, under callgrind");
        report.setting(
            "requests",
            format!("{} per phase", number(self.requests as f64, 0)),
        );
        report.setting("keys", format!("{}, uniform", number(self.keys as f64, 0)));
        let columns = [
            "operation",
            "connections × pipeline",
            "requests",
            "seconds",
            "instructions per request",
            "idle share",
        ];
        let mut table = Table::new("instructions", &columns);
        for phase in phases {
            let idle_share = 100.0 * idle_per_second * phase.seconds / phase.profile.total as f64;
            table.row([
                phase.operation.name().to_owned(),
                phase.shape.to_string(),
                number(phase.requests as f64, 0),
                number(phase.seconds, 2),
                number(phase.per_request(), 0),
                format!("{idle_share:.1} %"),
            ]);
        }
        report.table(table);
        for phase in phases {
            let profile = &phase.profile;
            report.table(phase.functions("in the function itself", &profile.exclusive, self.top));
            // The frames at the bottom of the stack hold everything and say nothing.
            let mut inclusive = profile.inclusive.clone();
            inclusive.retain(|_, instructions| (*instructions as f64) < ALL_SHARE * profile.total as f64);
            report.table(phase.functions("with what it calls", &inclusive, self.top));
        }
        report.note(format!(
            "Without any request the server takes {} instructions per second. The idle share is what \
             it would have taken in the seconds of a phase; its timers may take more while it works.",
            number(idle_per_second, 0)
        ));
        report.note(
            "A preloaded library turns a sleep in io_uring_enter into poll(), because valgrind hangs in the \
             former; what it adds is in the rows `syscall` and `poll`, some hundred instructions per sleep.",
        );
        report.figures(json!({
            "idle_instructions_per_second": idle_per_second,
            "phases": phases.iter().map(|phase| phase.to_json(self.top)).collect::<Vec<_>>(),
        }));
        report
    }
}

/// Instructions per second of a server with nothing to do.
fn idle(callgrind: &mut Callgrind, server: &Server) -> Result<f64, String> {
    callgrind.zero(server.id())?;
    let start = Instant::now();
    while start.elapsed() < IDLE {
        machine::check_signals()?;
        std::thread::sleep(Duration::from_millis(50));
    }
    let profile = callgrind.dump(server.id())?;
    Ok(profile.total as f64 / start.elapsed().as_secs_f64())
}

impl Phase {
    fn per_request(&self) -> f64 {
        self.profile.total as f64 / self.requests as f64
    }

    fn functions(&self, kind: &str, functions: &BTreeMap<String, u64>, count: usize) -> Table {
        let heading = format!(
            "{} {}: instructions per request {kind}",
            self.operation.name(),
            self.shape
        );
        let mut table = Table::new(heading, &["function", "instructions", "share"]);
        for (function, instructions) in Profile::top(functions, count) {
            let share = 100.0 * instructions as f64 / self.profile.total as f64;
            let per_request = instructions as f64 / self.requests as f64;
            table.row([
                shortened(function),
                number(per_request, 1),
                format!("{share:.1} %"),
            ]);
        }
        table
    }

    fn to_json(&self, count: usize) -> Value {
        json!({
            "operation": self.operation.name(),
            "connections": self.shape.connections,
            "pipeline": self.shape.pipeline,
            "requests": self.requests,
            "seconds": self.seconds,
            "instructions_per_request": self.per_request(),
            "profile": self.profile.to_json(count),
        })
    }
}

/// Keeps the end of a long name: the function's own is there, before it the types that it is generic over.
fn shortened(name: &str) -> String {
    let characters = name.chars().count();
    if characters <= NAME_CHARACTERS_MAX {
        return name.to_owned();
    }
    let end: String = name.chars().skip(characters - NAME_CHARACTERS_MAX + 1).collect();
    format!("…{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_keep_their_end() {
        assert_eq!(shortened("a::b"), "a::b");
        let long = format!("{}::function", "x".repeat(200));
        let short = shortened(&long);
        assert_eq!(short.chars().count(), NAME_CHARACTERS_MAX);
        assert!(short.starts_with('…') && short.ends_with("::function"));
    }
}
