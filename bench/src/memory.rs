//! `memory`: what a server takes per record, and per idle connection.
//!
//! Each figure has a fresh server of its own: resident memory (RSS; and PSS, where shared pages count by share)
//! when it serves and has done nothing, and when it holds all the records, or all the connections. The kernel's own
//! memory for sockets is in neither.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::{Common, Setup};
use crate::crowd;
use crate::load::{Load, Operation, Shape, System, Until};
use crate::machine::{self, Memory};
use crate::peer::Running;
use crate::redis::Redis;
use crate::report::{Report, Table, number};

const MIB: f64 = 1024.0 * 1024.0;

/// Arguments of the benchmark.
#[derive(Debug, Clone, Args)]
pub struct MemoryUse {
    /// Records that are written, each once
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: u64,

    /// Connections that are opened and greeted, and then idle
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub connections: u64,

    /// Measure redis-server as well
    #[arg(long)]
    pub redis: bool,

    /// What every benchmark takes.
    #[command(flatten)]
    pub common: Common,
}

/// What was put into a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filled {
    Records,
    Connections,
}

/// One server before and after.
#[derive(Debug, Clone, Copy)]
struct Measured {
    system: System,
    filled: Filled,
    count: u64,
    before: Memory,
    after: Memory,
}

impl MemoryUse {
    /// Measures.
    ///
    /// # Errors
    /// A sentence, if anything fails on the way.
    pub fn run(&self, setup: &Setup) -> Result<Report, String> {
        let redis_version = if self.redis { Some(Redis::version()?) } else { None };
        let mut systems = vec![System::Ostrakon];
        systems.extend(self.redis.then_some(System::Redis));
        let mut measured = Vec::new();
        for system in systems {
            for filled in [Filled::Records, Filled::Connections] {
                let one = self.measure(setup, system, filled)?;
                let grown = number(one.grown_bytes() / MIB, 1);
                eprintln!("{} {}: {grown} MiB more", system.name(), filled.name());
                measured.push(one);
            }
        }
        let mut report = report(setup, &measured);
        if let Some(version) = redis_version {
            report.setting("peer", format!("redis {version}"));
        }
        Ok(report)
    }

    fn measure(&self, setup: &Setup, system: System, filled: Filled) -> Result<Measured, String> {
        let running = Running::start(system, setup)?;
        let load = Load {
            system,
            operation: Operation::Put,
            keys: self.keys,
            value_bytes: self.common.value_size,
            shape: Shape::PIPELINED,
            until: Until::EachKeyOnce,
            cpu: self.common.client_cpu,
            seed: 1,
        };
        // What a server takes once for its first requests belongs to none of them.
        Load {
            keys: 1,
            shape: Shape::ONE_CLIENT,
            ..load
        }
        .run_without_errors(running.address())?;
        let before = machine::memory_of(running.id())?;
        let (count, after) = match filled {
            Filled::Records => {
                load.run_without_errors(running.address())?;
                (self.keys, machine::memory_of(running.id())?)
            }
            Filled::Connections => {
                let streams = crowd::open_idle(system, running.address(), self.connections as usize)?;
                let after = machine::memory_of(running.id())?;
                drop(streams);
                (self.connections, after)
            }
        };
        running.stop()?;
        Ok(Measured {
            system,
            filled,
            count,
            before,
            after,
        })
    }
}

fn report(setup: &Setup, measured: &[Measured]) -> Report {
    let mut report = setup.report("memory of a server of one core");
    let columns = [
        "filled with",
        "count",
        "RSS before MiB",
        "RSS after MiB",
        "PSS before MiB",
        "PSS after MiB",
        "RSS grown MiB",
        "bytes each",
    ];
    let mut table = Table::new("memory", &columns);
    for one in measured {
        table.row([
            format!("{} {}", one.system.name(), one.filled.name()),
            number(one.count as f64, 0),
            number(one.before.rss_bytes as f64 / MIB, 1),
            number(one.after.rss_bytes as f64 / MIB, 1),
            number(one.before.pss_bytes as f64 / MIB, 1),
            number(one.after.pss_bytes as f64 / MIB, 1),
            number(one.grown_bytes() / MIB, 1),
            number(one.bytes_each(), 0),
        ]);
    }
    report.table(table);
    report.note(
        "Records are measured when the last one is acknowledged: what a server has moved to files by then is not \
         in its memory. Bytes each are of growth: key, value and all that the server keeps with them.",
    );
    report.figures(measured.iter().map(|one| one.to_json()).collect());
    report
}

impl Filled {
    fn name(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::Connections => "connections",
        }
    }
}

impl Measured {
    /// Negative if it has shrunk.
    fn grown_bytes(&self) -> f64 {
        self.after.rss_bytes as f64 - self.before.rss_bytes as f64
    }

    fn bytes_each(&self) -> f64 {
        self.grown_bytes() / self.count as f64
    }

    fn to_json(self) -> Value {
        let memory = |memory: Memory| json!({ "rss_bytes": memory.rss_bytes, "pss_bytes": memory.pss_bytes });
        json!({
            "system": self.system.name(),
            "filled_with": self.filled.name(),
            "count": self.count,
            "before": memory(self.before),
            "after": memory(self.after),
            "rss_bytes_each": self.bytes_each(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_divided_by_what_was_put_in() {
        let memory = |rss_bytes| Memory {
            rss_bytes,
            pss_bytes: rss_bytes / 2,
        };
        let measured = Measured {
            system: System::Redis,
            filled: Filled::Connections,
            count: 100,
            before: memory(1000),
            after: memory(51_000),
        };
        assert!((measured.bytes_each() - 500.0).abs() < 1e-9);
        let shrunk = Measured {
            after: memory(0),
            ..measured
        };
        assert!(shrunk.bytes_each() < 0.0);
        assert_eq!(measured.to_json()["after"]["pss_bytes"], 25_500);
    }
}
