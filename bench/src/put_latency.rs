//! `put-latency`: durable puts of one client that waits for each, against raw durable writes on the same
//! device.
//!
//! A round is (a) raw 4 KiB writes by `pwrite`, (b) the same through `io_uring`, (c) puts of one client, on
//! a fresh server, each for the same time. Rounds follow each other, so that a device which changes its
//! pace does so for all three. The server's own figures are cumulative: they hold the warm-up, too, which
//! is small against the rest.

use std::time::{Duration, Instant};

use clap::Args;
use ostrakon_client::{Client, Options};
use serde_json::{Value, json};

use crate::cli::{Common, Setup};
use crate::load::KeyChoice;
use crate::machine;
use crate::raw_write::{Method, RawFile};
use crate::report::{Report, Table, number};
use crate::server::core_figure;
use crate::statistics::{Latencies, Percentiles, median};

/// What a put may take of the server's time, in raw writes (medians).
const GOAL: f64 = 1.4;

/// Arguments of the benchmark.
#[derive(Debug, Clone, Args)]
pub struct PutLatency {
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub rounds: usize,

    /// Seconds of each measurement of a round
    #[arg(long, value_name = "S", default_value_t = 5)]
    pub seconds: u64,

    /// Keys to choose from, uniformly
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: u64,

    /// Puts before the client begins to measure
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub warm_up: u64,

    /// What every benchmark takes.
    #[command(flatten)]
    pub common: Common,
}

/// One round's figures.
#[derive(Debug, Clone, Copy)]
struct Round {
    pwrite: Percentiles,
    uring: Percentiles,
    /// From decoded request to encoded answer, as the server counts it.
    server: Percentiles,
    /// From call to return, in the client.
    client: Percentiles,
    puts_per_second: f64,
    /// Mean time of a write of the log.
    log_write_mean_us: f64,
}

impl PutLatency {
    /// Measures.
    ///
    /// # Errors
    /// A sentence, if anything fails on the way.
    pub fn run(&self, setup: &Setup) -> Result<Report, String> {
        let raw = RawFile::new(&setup.workspace.join("raw"))?;
        let mut rounds = Vec::new();
        for number in 1..=self.rounds.max(1) {
            let round = self.round(setup, &raw, number as u64)?;
            eprintln!(
                "round {number}: server p50 {:.1} µs, raw p50 {:.1} µs",
                round.server.p50_us, round.pwrite.p50_us
            );
            rounds.push(round);
        }
        Ok(self.report(setup, &rounds))
    }

    fn round(&self, setup: &Setup, raw: &RawFile, number: u64) -> Result<Round, String> {
        let duration = Duration::from_secs(self.seconds);
        let cpu = setup.common.server_cpu;
        let pwrite = raw.measure(Method::Pwrite, duration, cpu)?.summary();
        let uring = raw.measure(Method::IoUring, duration, cpu)?.summary();
        let server = setup.start_server()?;
        let start = Instant::now();
        let client = self.puts(server.address(), number)?;
        let puts_per_second = client.count() as f64 / start.elapsed().as_secs_f64();
        let status = server.status()?;
        server.stop()?;
        Ok(Round {
            pwrite,
            uring,
            server: Percentiles {
                p50_us: core_figure(&status, "write_latency/p50_us")?,
                p95_us: core_figure(&status, "write_latency/p95_us")?,
                p99_us: core_figure(&status, "write_latency/p99_us")?,
            },
            client: client.summary(),
            puts_per_second,
            log_write_mean_us: core_figure(&status, "log_write_mean_us")?,
        })
    }

    /// One client, one connection, one put at a time.
    fn puts(&self, address: &str, seed: u64) -> Result<Latencies, String> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                machine::pin_thread(self.common.client_cpu)?;
                let mut client =
                    Client::connect(address, Options::default()).map_err(|error| error.to_string())?;
                let mut keys = KeyChoice::new(self.keys, seed);
                let value = vec![b'v'; self.common.value_size];
                let mut put = |client: &mut Client| {
                    client
                        .put(keys.uniform(), &value)
                        .map_err(|error| error.to_string())
                };
                for _ in 0..self.warm_up {
                    put(&mut client)?;
                }
                let mut latencies = Latencies::default();
                let start = Instant::now();
                let mut before = start;
                while before.duration_since(start) < Duration::from_secs(self.seconds) {
                    machine::check_signals()?;
                    before = Instant::now();
                    put(&mut client)?;
                    latencies.record(before.elapsed().as_nanos() as u64);
                }
                Ok(latencies)
            });
            thread
                .join()
                .map_err(|_| "the client's thread panicked".to_owned())?
        })
    }

    fn report(&self, setup: &Setup, rounds: &[Round]) -> Report {
        let medians = Round::medians(rounds);
        let mut report = setup.report("durable puts of one client, against raw durable writes of 4 KiB");
        report.setting("rounds", format!("{} of 3 × {} s", rounds.len(), self.seconds));
        report.setting("keys", format!("{}, uniform", number(self.keys as f64, 0)));
        let columns = [
            "round",
            "pwrite p50",
            "p99",
            "io_uring p50",
            "p99",
            "server p50",
            "p99",
            "client p50",
            "p99",
            "puts/s",
            "log write mean",
            "server / pwrite",
        ];
        let mut table = Table::new("latencies in µs", &columns);
        for (index, round) in rounds.iter().enumerate() {
            table.row(round.cells((index + 1).to_string()));
        }
        table.row(medians.cells("median".to_owned()));
        report.table(table);
        let verdict = if medians.ratio() <= GOAL { "met" } else { "missed" };
        report.note(format!(
            "server-side p50 / raw p50 = {:.2} against pwrite, {:.2} against io_uring; \
             goal ≤ {GOAL} against pwrite: {verdict}",
            medians.ratio(),
            medians.server.p50_us / medians.uring.p50_us,
        ));
        report.figures(json!({
            "rounds": rounds.iter().copied().map(Round::to_json).collect::<Vec<_>>(),
            "median": medians.to_json(),
            "goal": GOAL,
        }));
        report
    }
}

impl Round {
    /// Server-side p50 over raw p50.
    fn ratio(&self) -> f64 {
        self.server.p50_us / self.pwrite.p50_us
    }

    /// The median of each figure by itself.
    fn medians(rounds: &[Round]) -> Round {
        Round {
            pwrite: Percentiles::medians(rounds.iter().map(|round| round.pwrite)),
            uring: Percentiles::medians(rounds.iter().map(|round| round.uring)),
            server: Percentiles::medians(rounds.iter().map(|round| round.server)),
            client: Percentiles::medians(rounds.iter().map(|round| round.client)),
            puts_per_second: median(rounds.iter().map(|round| round.puts_per_second)),
            log_write_mean_us: median(rounds.iter().map(|round| round.log_write_mean_us)),
        }
    }

    fn cells(&self, name: String) -> Vec<String> {
        let mut cells = vec![name];
        for percentiles in [self.pwrite, self.uring, self.server, self.client] {
            cells.push(number(percentiles.p50_us, 1));
            cells.push(number(percentiles.p99_us, 1));
        }
        cells.push(number(self.puts_per_second, 0));
        cells.push(number(self.log_write_mean_us, 1));
        cells.push(number(self.ratio(), 2));
        cells
    }

    fn to_json(self) -> Value {
        json!({
            "raw_pwrite": self.pwrite.to_json(),
            "raw_io_uring": self.uring.to_json(),
            "server": self.server.to_json(),
            "client": self.client.to_json(),
            "puts_per_second": self.puts_per_second,
            "log_write_mean_us": self.log_write_mean_us,
            "ratio": self.ratio(),
        })
    }
}
