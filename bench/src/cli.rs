//! The command line: one subcommand per benchmark, and what all of them share.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::report::Report;
use crate::server::{Binary, Server, ServerOptions};
use crate::workspace::Workspace;
use crate::{
    beyond_memory, compaction_latency, connections, crowd, echo, engines, instructions, machine, memory,
    put_latency, syscalls, throughput,
};

/// A server that runs at its own speed is there after a second; this leaves room for a loaded machine.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Benchmarks of Ostrakon. Each starts the server itself, pinned to one CPU, on fresh data, and stops it
/// again.
#[derive(Debug, Parser)]
#[command(name = "ostrakon-bench", version, max_term_width = 110)]
pub struct Arguments {
    /// Which benchmark.
    #[command(subcommand)]
    pub benchmark: Benchmark,
}

/// The benchmarks.
#[derive(Debug, Subcommand)]
pub enum Benchmark {
    /// Durable puts of one client, against raw durable writes on the same device
    PutLatency(put_latency::PutLatency),
    /// System calls per put and per get, counted by strace
    Syscalls(syscalls::Syscalls),
    /// Instructions per put and per get, counted by valgrind's callgrind
    Instructions(instructions::Instructions),
    /// Puts and gets of 50 connections on one server core, and the same for Redis with --redis
    Throughput(throughput::Throughput),
    /// Memory per record and per connection, and the same for Redis with --redis
    Memory(memory::MemoryUse),
    /// The engine in a process, against other engines and the bare device
    Engines(engines::Engines),
    /// Keys put at one end of a range and deleted at the other: does a scan for the head stay fast?
    Queue(engines::queue::Queue),
    /// Thousands of idle, slow and lying connections, and what one good client sees meanwhile
    Connections(connections::Connections),
    /// Ten times as much data as memory, with power cuts: what is lost, what it takes of memory, space and time
    BeyondMemory(beyond_memory::BeyondMemory),
    /// One client beside a load that keeps merges busy, against the same client alone
    CompactionLatency(compaction_latency::CompactionLatency),
    /// The bare echo that `throughput --redis` starts
    #[command(name = echo::SUBCOMMAND, hide = true)]
    EchoServer(EchoServer),
}

/// Arguments of the echo.
#[derive(Debug, Clone, Copy, Args)]
pub struct EchoServer {
    /// CPU that it runs on
    #[arg(long, value_name = "N")]
    pub cpu: usize,
}

/// What a benchmark prints at its end.
#[derive(Debug)]
pub struct Printed {
    /// For stdout.
    pub text: String,
    /// Has something that was promised not come true?
    pub has_failed: bool,
}

/// What every benchmark takes.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// The server's binary [default: ostrakon beside this program]
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,

    /// Directory on the device to measure; data goes into a directory below it that is removed at the end
    #[arg(long, value_name = "DIR", default_value = "bench-data")]
    pub data: PathBuf,

    /// CPU of the server, and of raw writes
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub server_cpu: usize,

    /// CPU of the clients
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub client_cpu: usize,

    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    pub value_size: usize,

    /// Print one JSON document instead of tables
    #[arg(long)]
    pub json: bool,

    /// More arguments for `ostrakon serve`, after --
    #[arg(last = true, value_name = "SERVER ARGUMENT")]
    pub server_arguments: Vec<OsString>,
}

impl Arguments {
    /// Runs the benchmark and returns what to print.
    ///
    /// # Errors
    /// A sentence. Everything that was started is stopped, and everything that was made is removed.
    pub fn run(&self) -> Result<Printed, String> {
        let load_before = machine::load_average();
        if let Benchmark::Engines(benchmark) = &self.benchmark {
            return Ok(printed(benchmark.run()?, load_before, benchmark.json));
        }
        if let Benchmark::Queue(benchmark) = &self.benchmark {
            return Ok(printed(benchmark.run()?, load_before, benchmark.json));
        }
        let Some(common) = self.benchmark.common() else {
            return self.benchmark.serve();
        };
        let setup = common.prepare(self.benchmark.connections())?;
        let report = match &self.benchmark {
            Benchmark::PutLatency(benchmark) => benchmark.run(&setup),
            Benchmark::Syscalls(benchmark) => benchmark.run(&setup),
            Benchmark::Instructions(benchmark) => benchmark.run(&setup),
            Benchmark::Throughput(benchmark) => benchmark.run(&setup),
            Benchmark::Memory(benchmark) => benchmark.run(&setup),
            Benchmark::Connections(benchmark) => benchmark.run(&setup),
            Benchmark::BeyondMemory(benchmark) => benchmark.run(&setup),
            Benchmark::CompactionLatency(benchmark) => benchmark.run(&setup),
            Benchmark::Engines(_) | Benchmark::Queue(_) | Benchmark::EchoServer(_) => {
                unreachable!("it has nothing in common with the others")
            }
        }?;
        Ok(printed(report, load_before, common.json))
    }
}

fn printed(mut report: Report, load_before: Option<f64>, as_json: bool) -> Printed {
    if let Some(load) = load_before.filter(|load| *load >= 0.5) {
        report.note(format!(
            "Other work was going on: the load average was {load:.1} at the start. \
             Times are good for nothing then."
        ));
    }
    Printed {
        text: if as_json {
            report.to_json()
        } else {
            report.to_string()
        },
        has_failed: report.has_failed(),
    }
}

impl Benchmark {
    /// None for the echo, which is no benchmark but a part of one, and for those that need no server.
    fn common(&self) -> Option<&Common> {
        match self {
            Benchmark::PutLatency(benchmark) => Some(&benchmark.common),
            Benchmark::Syscalls(benchmark) => Some(&benchmark.common),
            Benchmark::Instructions(benchmark) => Some(&benchmark.common),
            Benchmark::Throughput(benchmark) => Some(&benchmark.common),
            Benchmark::Memory(benchmark) => Some(&benchmark.common),
            Benchmark::Connections(benchmark) => Some(&benchmark.common),
            Benchmark::BeyondMemory(benchmark) => Some(&benchmark.common),
            Benchmark::CompactionLatency(benchmark) => Some(&benchmark.common),
            Benchmark::Engines(_) | Benchmark::Queue(_) | Benchmark::EchoServer(_) => None,
        }
    }

    /// Connections that it opens at once, if they are many.
    fn connections(&self) -> Option<u64> {
        match self {
            Benchmark::Memory(benchmark) => Some(benchmark.connections),
            Benchmark::Connections(benchmark) => Some((benchmark.idle + benchmark.hostile) as u64),
            _ => None,
        }
    }

    /// Serves until it is killed.
    fn serve(&self) -> Result<Printed, String> {
        let Benchmark::EchoServer(EchoServer { cpu }) = self else {
            unreachable!("only the echo has nothing in common with the others");
        };
        echo::serve(*cpu)?;
        Ok(Printed {
            text: String::new(),
            has_failed: false,
        })
    }
}

impl Common {
    fn prepare(&self, connections: Option<u64>) -> Result<Setup, String> {
        if self.server_cpu == self.client_cpu {
            return Err(format!(
                "server and clients would share CPU {}; choose another with --server-cpu or --client-cpu",
                self.server_cpu
            ));
        }
        let mut server_environment = Vec::new();
        if let Some(connections) = connections {
            // The server has the same limit, and needs some files of its own besides.
            machine::raise_open_files(connections + crowd::OTHER_FILES)?;
            let taken = connections + crowd::OTHER_CONNECTIONS;
            // They all come from one address. Variables, since the user's flags count before them.
            for variable in ["OSTRAKON_MAX_CONNECTIONS", "OSTRAKON_MAX_CONNECTIONS_PER_ADDRESS"] {
                server_environment.push((variable.into(), taken.to_string().into()));
            }
        }
        let binary = Binary::find(self.binary.as_deref())?;
        let workspace = Workspace::new(&self.data)?;
        Ok(Setup {
            common: self.clone(),
            binary,
            workspace,
            server_environment,
        })
    }
}

/// What every benchmark works with.
#[derive(Debug)]
pub struct Setup {
    /// As the user wants it.
    pub common: Common,
    /// The server's binary.
    pub binary: Binary,
    /// Where data goes.
    pub workspace: Workspace,
    /// Variables for the servers.
    server_environment: Vec<(OsString, OsString)>,
}

impl Setup {
    /// Starts a fresh server that runs by itself.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_server(&self) -> Result<Server, String> {
        Server::start(&self.binary, &self.workspace, &self.server_options())
    }

    /// How servers are started, unless they run under something.
    pub fn server_options(&self) -> ServerOptions {
        ServerOptions {
            cpu: self.common.server_cpu,
            under: Vec::new(),
            environment: self.server_environment.clone(),
            arguments: self.common.server_arguments.clone(),
            ready_within: READY_WITHIN,
            data: None,
            group: None,
        }
    }

    /// A report that says what was measured, and where.
    pub fn report(&self, title: &str) -> Report {
        let common = &self.common;
        let mut report = Report::new(title);
        report.setting("server", self.binary.version());
        let (server_cpu, client_cpu) = (common.server_cpu, common.client_cpu);
        report.setting("CPUs", format!("server {server_cpu}, clients {client_cpu}"));
        report.setting("values", format!("{} bytes", common.value_size));
        report.setting("data", common.data.display().to_string());
        report.setting("kernel", machine::kernel_release());
        if !common.server_arguments.is_empty() {
            let words: Vec<_> = common
                .server_arguments
                .iter()
                .map(|word| word.to_string_lossy())
                .collect();
            report.setting("arguments", words.join(" "));
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
        let arguments =
            Arguments::parse_from(["ostrakon-bench", "syscalls", "--server-cpu", "3", "--", "--spin"]);
        let common = arguments.benchmark.common().unwrap();
        assert_eq!((common.server_cpu, common.client_cpu), (3, 1));
        assert_eq!(common.server_arguments, ["--spin"]);
    }

    #[test]
    fn one_cpu_for_both_is_refused() {
        let arguments = Arguments::parse_from(["ostrakon-bench", "syscalls", "--server-cpu", "1"]);
        assert!(arguments.run().unwrap_err().contains("share CPU 1"));
    }
}
