//! `engines`: the engine inside a process, against `RocksDB` and fjall inside the same process, and cold reads against
//! the bare device.
//!
//! A round takes each engine in turn: fresh data, the same rows of work ([`rows`]) one after the other, with the same
//! bytes of memtables and cache, the same compression, direct IO where the engine has it, and a sync for every write
//! before it returns. All of an engine's threads run on the same CPUs. `RocksDB` and fjall get a thread for each
//! client; clients of Ostrakon are tasks on the core that owns the keys that they choose, as a program would write
//! them.
//!
//! Reading order: [`rows`] (what is done), [`load`] (who does it, and what is counted), [`ostrakon`], and with the
//! feature `peers` `rocksdb` and `fjall`; [`raw_read`] is the device. [`queue`] is a benchmark of its own.

pub mod load;
pub mod ostrakon;
pub mod queue;
pub mod raw_read;
pub mod rows;

#[cfg(feature = "peers")]
pub mod fjall;
#[cfg(feature = "peers")]
pub mod rocksdb;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::json;

use self::load::{Outcome, process_cpu_seconds, written_bytes};
use self::rows::{Data, ROWS, Row, Work};
use crate::machine;
use crate::report::{Report, Table, number};
use crate::statistics::{Percentiles, median};
use crate::workspace::Workspace;

/// Background work has ended when the process has written nothing for so long.
const QUIET: Duration = Duration::from_secs(2);
/// How long it is waited for.
const SETTLE_MAX: Duration = Duration::from_mins(5);

/// An engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// This project's.
    Ostrakon,
    /// `RocksDB`.
    Rocksdb,
    /// fjall.
    Fjall,
}

impl Engine {
    /// As tables show it.
    fn name(self) -> &'static str {
        match self {
            Engine::Ostrakon => "ostrakon",
            Engine::Rocksdb => "rocksdb",
            Engine::Fjall => "fjall",
        }
    }
}

/// Arguments of the benchmark.
#[derive(Debug, Clone, Args)]
pub struct Engines {
    /// Engines to compare; those other than ostrakon need a build with --features peers
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_values = ["ostrakon"])]
    pub engines: Vec<Engine>,

    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub rounds: usize,

    /// Seconds of each row that is not a load
    #[arg(long, value_name = "S", default_value_t = 10)]
    pub seconds: u64,

    /// MiB of memory that each engine gets: a quarter for memtables, the rest for blocks
    #[arg(long, value_name = "MIB", default_value_t = 128)]
    pub memory_mib: u64,

    /// Keys that are loaded [default: ten times the memory]
    #[arg(long, value_name = "N")]
    pub keys: Option<u64>,

    /// Bytes of a value, half of them random
    #[arg(long, value_name = "BYTES", default_value_t = 1000)]
    pub value_size: usize,

    /// Clients that write, and that read what lies on the device
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub clients: usize,

    /// CPUs of every engine
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [0, 1])]
    pub cpus: Vec<usize>,

    /// Shards of ostrakon, a power of two [default: 4 for each CPU, at least 8]
    #[arg(long, value_name = "N")]
    pub shards: Option<u32>,

    /// Rows to run after the load, by the beginnings of their names [default: all]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub rows: Vec<String>,

    /// Directory on the device to measure; data goes into a directory below it that is removed at the end
    #[arg(long, value_name = "DIR", default_value = "bench-data")]
    pub data: PathBuf,

    /// Print one JSON document instead of tables
    #[arg(long)]
    pub json: bool,
}

/// What an engine is opened with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its directory.
    pub directory: PathBuf,
    /// Bytes of its memtables.
    pub memtable_bytes: u64,
    /// Bytes of its block cache.
    pub cache_bytes: u64,
    /// Its CPUs.
    pub cpus: Vec<usize>,
    /// Its shards, if it has some and they are not its own choice.
    pub shards: Option<u32>,
}

/// An open engine.
pub trait OpenEngine {
    /// Lets clients work until the row's end.
    ///
    /// # Errors
    /// A sentence.
    fn run(&self, work: &Work) -> Result<Outcome, String>;
    /// Closes it.
    ///
    /// # Errors
    /// A sentence.
    fn close(self: Box<Self>) -> Result<(), String>;
}

/// One row of one engine in one round.
struct Measured {
    engine: Engine,
    row: &'static str,
    per_second: f64,
    latency: Percentiles,
    cpu_seconds_per_million: f64,
    stalls: u64,
}

/// What a round says of an engine besides its rows.
struct Space {
    engine: Engine,
    /// Bytes of its files, by the bytes of keys and values.
    amplification: f64,
    /// Bytes written to the device while it loaded and settled, by the bytes of keys and values.
    write_amplification: f64,
    settle_seconds: f64,
}

impl Engines {
    /// Measures.
    ///
    /// # Errors
    /// A sentence.
    pub fn run(&self) -> Result<Report, String> {
        if ::ostrakon::process::version::FEATURES.contains("verify") {
            return Err(
                "this build checks invariants all the time (feature `verify`): build ostrakon-bench alone"
                    .into(),
            );
        }
        for cpu in &self.cpus {
            machine::pin_thread(*cpu)?;
        }
        machine::pin_thread_to(&self.cpus)?;
        let workspace = Workspace::new(&self.data)?;
        let mut measured = Vec::new();
        let mut spaces = Vec::new();
        let mut raw_reads = Vec::new();
        for round in 1..=self.rounds.max(1) {
            for engine in &self.engines {
                eprintln!("round {round}: {}", engine.name());
                self.round(*engine, &workspace, &mut measured, &mut spaces)?;
            }
            raw_reads.push(raw_read::measure(
                &workspace.join("raw"),
                &self.cpus,
                Duration::from_secs(self.seconds.min(10)),
            )?);
        }
        Ok(self.report(&measured, &spaces, &raw_reads))
    }

    fn keys(&self) -> u64 {
        let record_bytes = (rows::KEY_BYTES + self.value_size) as u64;
        self.keys.unwrap_or((self.memory_mib << 20) * 10 / record_bytes)
    }

    fn wants(&self, row: &Row) -> bool {
        row.is_load
            || self.rows.is_empty()
            || self.rows.iter().any(|name| row.name.starts_with(name.as_str()))
    }

    fn round(
        &self,
        engine: Engine,
        workspace: &Workspace,
        measured: &mut Vec<Measured>,
        spaces: &mut Vec<Space>,
    ) -> Result<(), String> {
        let data = Arc::new(Data::new(self.keys(), self.value_size));
        let mut opened: Option<(PathBuf, Box<dyn OpenEngine>)> = None;
        let mut written_before = 0;
        for row in ROWS.iter().filter(|row| self.wants(row)) {
            machine::check_signals()?;
            if row.is_load {
                if let Some((directory, opened)) = opened.take() {
                    opened.close()?;
                    remove(&directory)?;
                }
                let directory = workspace.join(format!("{}-{}", engine.name(), row.name.replace(' ', "-")));
                opened = Some((directory.clone(), open(engine, &self.settings(directory))?));
                data.forget();
                written_before = written_bytes()?;
            }
            let (directory, open) = opened.as_ref().expect("the first row is a load");
            let work = Work::new(
                row,
                &data,
                self.clients,
                self.cpus.len(),
                Duration::from_secs(self.seconds),
            );
            let cpu_before = process_cpu_seconds();
            let outcome = open.run(&work)?;
            let cpu_seconds = process_cpu_seconds() - cpu_before;
            let operations = outcome.latencies.count();
            eprintln!(
                "  {:<22} {:>10.0}/s  p99 {:>9.1} us",
                row.name,
                operations as f64 / outcome.seconds,
                outcome.latencies.quantile_us(0.99)
            );
            measured.push(Measured {
                engine,
                row: row.name,
                per_second: operations as f64 / outcome.seconds,
                latency: outcome.latencies.summary(),
                cpu_seconds_per_million: cpu_seconds / operations.max(1) as f64 * 1e6,
                stalls: outcome.stalls,
            });
            if row.settles {
                let settle_seconds = settle()?;
                let data_bytes = data.bytes() as f64;
                spaces.push(Space {
                    engine,
                    amplification: machine::directory_bytes(directory)? as f64 / data_bytes,
                    write_amplification: (written_bytes()? - written_before) as f64 / data_bytes,
                    settle_seconds,
                });
            }
        }
        if let Some((directory, opened)) = opened {
            opened.close()?;
            remove(&directory)?;
        }
        Ok(())
    }

    fn settings(&self, directory: PathBuf) -> Settings {
        let memory_bytes = self.memory_mib << 20;
        Settings {
            directory,
            memtable_bytes: memory_bytes / 4,
            cache_bytes: memory_bytes / 4 * 3,
            cpus: self.cpus.clone(),
            shards: self.shards,
        }
    }

    fn report(&self, measured: &[Measured], spaces: &[Space], raw_reads: &[f64]) -> Report {
        let mut report = Report::new("engines");
        report.setting("rounds", self.rounds.to_string());
        report.setting(
            "records",
            format!(
                "{} of {} + {} bytes",
                self.keys(),
                rows::KEY_BYTES,
                self.value_size
            ),
        );
        report.setting("memory", format!("{} MiB", self.memory_mib));
        report.setting(
            "clients",
            format!("{}, hot reads {}", self.clients, self.cpus.len()),
        );
        report.setting("CPUs", format!("{:?}", self.cpus));
        report.setting("kernel", machine::kernel_release());
        let results = Results(measured);
        report.table(self.throughput(&results));
        report.table(self.details(&results));
        report.table(self.space(spaces));
        let raw = median(raw_reads.iter().copied());
        let cold = results.per_second(Engine::Ostrakon, "read random cold");
        if cold > 0.0 {
            report.note(format!(
                "Raw io_uring reads of 4 KiB on the same CPUs: {}/s; cold gets are {:.0} % of that (goal 70 %).",
                number(raw, 0),
                cold / raw * 100.0
            ));
        }
        report.figures(json!({ "rows": self.figures(&results), "raw_reads_per_second": raw }));
        report
    }

    /// Rows and engines that were measured.
    fn cells(&self) -> impl Iterator<Item = (&'static Row, Engine)> {
        let rows = ROWS.iter().filter(|row| self.wants(row));
        rows.flat_map(|row| self.engines.iter().map(move |engine| (row, *engine)))
    }

    fn throughput(&self, results: &Results<'_>) -> Table {
        let is_peer = |engine: &&Engine| **engine != Engine::Ostrakon;
        let peers: Vec<Engine> = self.engines.iter().filter(is_peer).copied().collect();
        let mut heads = vec!["row".to_owned()];
        heads.extend(self.engines.iter().map(|engine| engine.name().to_owned()));
        heads.extend(peers.iter().map(|peer| format!("/ {}", peer.name())));
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        let mut table = Table::new(
            "Operations per second (medians), and this engine's by the others'",
            &heads,
        );
        for row in ROWS.iter().filter(|row| self.wants(row)) {
            let of = |engine: &Engine| results.per_second(*engine, row.name);
            let mut cells = vec![row.name.to_owned()];
            cells.extend(self.engines.iter().map(|engine| number(of(engine), 0)));
            let own = of(&Engine::Ostrakon);
            cells.extend(peers.iter().map(|peer| number(own / of(peer), 2)));
            table.row(cells);
        }
        table
    }

    fn details(&self, results: &Results<'_>) -> Table {
        let mut table = Table::new(
            "Latencies in us, CPU seconds per million, writes that had to wait",
            &["row", "engine", "p50", "p95", "p99", "CPU s/million", "stalls"],
        );
        for (row, engine) in self.cells() {
            let latency = results.latency(engine, row.name);
            let cells = [
                latency.p50_us,
                latency.p95_us,
                latency.p99_us,
                results.cpu(engine, row.name),
            ];
            let named = [row.name.to_owned(), engine.name().to_owned()];
            let numbers = cells.map(|cell| number(cell, 1));
            let stalls = results.stalls(engine, row.name).to_string();
            table.row(named.into_iter().chain(numbers).chain([stalls]));
        }
        table
    }

    fn space(&self, spaces: &[Space]) -> Table {
        let mut table = Table::new(
            "After the random load and overwriting, settled",
            &["engine", "space / data", "written / data", "settled in s"],
        );
        for engine in &self.engines {
            let rounds = || spaces.iter().filter(|space| space.engine == *engine);
            table.row(vec![
                engine.name().to_owned(),
                number(median(rounds().map(|space| space.amplification)), 2),
                number(median(rounds().map(|space| space.write_amplification)), 2),
                number(median(rounds().map(|space| space.settle_seconds)), 1),
            ]);
        }
        table
    }

    fn figures(&self, results: &Results<'_>) -> Vec<serde_json::Value> {
        let figures = self.cells().map(|(row, engine)| {
            json!({
                "row": row.name,
                "engine": engine.name(),
                "per_second": results.per_second(engine, row.name),
                "rounds": results.of(engine, row.name).map(|one| one.per_second).collect::<Vec<_>>(),
                "latency": results.latency(engine, row.name).to_json(),
                "cpu_seconds_per_million": results.cpu(engine, row.name),
                "stalls": results.stalls(engine, row.name),
            })
        });
        figures.collect()
    }
}

/// What was measured, by engine and row.
struct Results<'a>(&'a [Measured]);

impl Results<'_> {
    fn of(&self, engine: Engine, row: &str) -> impl Iterator<Item = &Measured> + Clone {
        self.0
            .iter()
            .filter(move |one| one.engine == engine && one.row == row)
    }

    fn per_second(&self, engine: Engine, row: &str) -> f64 {
        median(self.of(engine, row).map(|one| one.per_second))
    }

    fn latency(&self, engine: Engine, row: &str) -> Percentiles {
        Percentiles::medians(self.of(engine, row).map(|one| one.latency))
    }

    fn cpu(&self, engine: Engine, row: &str) -> f64 {
        median(self.of(engine, row).map(|one| one.cpu_seconds_per_million))
    }

    fn stalls(&self, engine: Engine, row: &str) -> u64 {
        self.of(engine, row).map(|one| one.stalls).sum()
    }
}

fn open(engine: Engine, settings: &Settings) -> Result<Box<dyn OpenEngine>, String> {
    match engine {
        Engine::Ostrakon => Ok(Box::new(ostrakon::Ostrakon::open(settings)?)),
        #[cfg(feature = "peers")]
        Engine::Rocksdb => Ok(Box::new(rocksdb::RocksDb::open(settings)?)),
        #[cfg(feature = "peers")]
        Engine::Fjall => Ok(Box::new(fjall::Fjall::open(settings)?)),
        #[cfg(not(feature = "peers"))]
        Engine::Rocksdb | Engine::Fjall => Err(format!(
            "this build has no {}: add --features peers to the command that builds it",
            engine.name()
        )),
    }
}

/// Waits until the engine has written nothing for a while; returns how many seconds it went on for.
fn settle() -> Result<f64, String> {
    let begun = Instant::now();
    let mut last = (written_bytes()?, Instant::now());
    while last.1.elapsed() < QUIET && begun.elapsed() < SETTLE_MAX {
        machine::check_signals()?;
        std::thread::sleep(Duration::from_millis(100));
        let now = written_bytes()?;
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
    Ok((begun.elapsed().saturating_sub(QUIET)).as_secs_f64())
}

fn remove(directory: &Path) -> Result<(), String> {
    std::fs::remove_dir_all(directory)
        .map_err(|error| format!("cannot remove {}: {error}", directory.display()))
}
