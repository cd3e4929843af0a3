//! `compaction-latency`: what merges in the background do to the latency of one client.
//!
//! 1. Records several times the memory are loaded, and the server settles: nothing is left to flush or merge.
//! 2. The probe alone: one client with a small fixed rate of gets and puts ([`probe`]).
//! 3. The highest rate of updates is measured in a closed loop.
//! 4. The probe beside a load at a share of that rate, in an open loop ([`background`]), for minutes. Merges must go
//!    on in each part of that time, and what they are behind must not pile up.
//! 5. The server settles, and the probe is alone again: what differs from the first time is the machine's doing.
//!
//! The 99th percentiles beside the load are held against those alone: at most [`RATIO_MAX`] times. That is more than
//! the merges' part, since the updates themselves go through the same core and the same log. It fails if that is
//! exceeded, if a second passes in which the load or the probe got no answer, or if merges did not go on: then nothing
//! was measured.

pub mod background;
pub mod probe;

use std::time::{Duration, Instant};

use clap::Args;
use loadgen::keys::KEY_BYTES_MAX;
use loadgen::value::VALUE_HEADER_BYTES;
use serde_json::{Value, json};

use self::background::{Background, Loaded};
use self::probe::{Account, Probe, Seen};
use crate::cli::{Common, Setup};
use crate::machine;
use crate::report::{Report, Table, number};
use crate::server::{Server, core_figure};
use crate::settled;
use crate::statistics::Latencies;

const MIB: u64 = 1 << 20;
/// The 99th percentile may rise to so many times what it is without merges.
const RATIO_MAX: f64 = 3.0;
/// The time beside the load is divided into so many parts.
const PARTS: usize = 10;
/// How long the load goes on before the probe begins.
const WARM_UP_SECONDS: u64 = 30;
/// How long the server may take to settle.
const SETTLED_WITHIN: Duration = Duration::from_mins(20);
/// Between two looks at what the server counts.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Arguments of the benchmark.
#[derive(Debug, Clone, Args)]
pub struct CompactionLatency {
    /// MiB of memory that the server is given
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(32..))]
    pub memory_mib: u64,

    /// MiB of keys and values [default: four times the memory]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    pub data_mib: Option<u64>,

    /// Minutes of the probe beside the load
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub minutes: u64,

    /// Seconds of the probe alone, before and after
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub alone_seconds: u64,

    /// Seconds of the closed loop that finds the highest rate
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub full_seconds: u64,

    /// Rate of the load, in percent of the highest
    #[arg(long, value_name = "PERCENT", default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub load_percent: u64,

    /// Requests of the probe a second, gets and puts in turn
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub probe_rate: u64,

    /// What every benchmark takes.
    #[command(flatten)]
    pub common: Common,
}

/// What the server has done in a part of the time.
#[derive(Debug, Default, Clone, Copy)]
struct Work {
    flushed_bytes: f64,
    merged_bytes: f64,
    /// The most that merges were behind.
    debt_bytes: f64,
    /// Seconds for which writes were held back.
    throttled_seconds: f64,
}

/// What was measured beside the load.
struct Beside {
    probe: Account,
    load: Loaded,
    work: Vec<Work>,
}

/// All that was measured.
struct Measured {
    before: Seen,
    full: Loaded,
    beside: Beside,
    after: Seen,
    silent_seconds_alone: u64,
}

impl CompactionLatency {
    /// Measures.
    ///
    /// # Errors
    /// A sentence, if anything fails on the way that is no finding of its own.
    pub fn run(&self, setup: &Setup) -> Result<Report, String> {
        let value_bytes = self.common.value_size;
        if value_bytes < VALUE_HEADER_BYTES {
            return Err(format!(
                "--value-size is {value_bytes}; give {VALUE_HEADER_BYTES} or more, which loadgen needs"
            ));
        }
        let mut options = setup.server_options();
        let memory = format!("{}MiB", self.memory_mib);
        options
            .environment
            .push(("OSTRAKON_MEMORY".into(), memory.into()));
        let mut server = Some(Server::start(&setup.binary, &setup.workspace, &options)?);
        let measured = self.measure(&mut server);
        let measured = measured.map_err(|error| match &server {
            Some(server) => format!("{error}; the server's log ends with:\n{}", server.log_end()),
            None => error,
        })?;
        if let Some(server) = server {
            server.stop()?;
        }
        Ok(self.report(setup, &measured))
    }

    fn records(&self) -> u64 {
        let bytes = self.data_mib.unwrap_or(4 * self.memory_mib) * MIB;
        (bytes / (KEY_BYTES_MAX + self.common.value_size) as u64).max(1)
    }

    fn probe(&self, duration: Duration, parts: usize) -> Probe {
        Probe {
            records: self.records(),
            value_bytes: self.common.value_size,
            per_second: self.probe_rate,
            duration,
            parts,
            cpu: self.common.client_cpu,
        }
    }

    fn measure(&self, server: &mut Option<Server>) -> Result<Measured, String> {
        let running = server.as_ref().ok_or("no server runs")?;
        let background = Background {
            address: running.address().to_owned(),
            records: self.records(),
            value_bytes: self.common.value_size,
            cpu: self.common.client_cpu,
        };
        eprintln!("loading {} records", number(self.records() as f64, 0));
        with_server(server, || background.load())?;
        let before = self.alone(server)?;
        eprintln!("the highest rate, for {} s", self.full_seconds);
        let full = with_server(server, || background.at_full_speed(self.full_seconds))?;
        let rate = full.per_second * self.load_percent as f64 / 100.0;
        eprintln!(
            "{} updates/s; now {} % of it beside the probe, for {} min",
            number(full.per_second, 0),
            self.load_percent,
            self.minutes
        );
        let beside = self.beside(server, &background, rate)?;
        let after = self.alone(server)?;
        Ok(Measured {
            silent_seconds_alone: before.silent_seconds + after.silent_seconds,
            before: before.whole(),
            full,
            beside,
            after: after.whole(),
        })
    }

    /// The probe on a server that has nothing else to do.
    fn alone(&self, server: &mut Option<Server>) -> Result<Account, String> {
        let running = server.as_ref().ok_or("no server runs")?;
        eprintln!("settling");
        settled::wait(running, SETTLED_WITHIN)?;
        eprintln!("the probe alone, for {} s", self.alone_seconds);
        let address = running.address().to_owned();
        let probe = self.probe(Duration::from_secs(self.alone_seconds), 1);
        with_server(server, || probe.run(&address))
    }

    fn beside(
        &self,
        server: &mut Option<Server>,
        background: &Background,
        rate: f64,
    ) -> Result<Beside, String> {
        let seconds = self.minutes * 60;
        let probe = self.probe(Duration::from_secs(seconds), PARTS);
        let address = background.address.as_str();
        std::thread::scope(|scope| {
            let load = scope.spawn(|| background.at_rate(rate, WARM_UP_SECONDS, seconds));
            let warmed_up = watch(
                server,
                || load.is_finished(),
                Duration::from_secs(WARM_UP_SECONDS),
                |_| Ok(()),
            );
            let probing = scope.spawn(move || match warmed_up {
                Ok(()) => probe.run(address),
                Err(sentence) => Err(sentence),
            });
            let mut work = Vec::with_capacity(PARTS);
            let mut watched = Ok(());
            for _ in 0..PARTS {
                let part = Duration::from_secs(seconds) / PARTS as u32;
                let one = watch_part(server, || probing.is_finished(), part);
                match one {
                    Ok(one) => work.push(one),
                    Err(sentence) => {
                        watched = Err(sentence);
                        break;
                    }
                }
            }
            let probe = probing
                .join()
                .map_err(|_| "the probe's thread panicked".to_owned())?;
            let load = load.join().map_err(|_| "the load's thread panicked".to_owned())?;
            // Who was there first says best what went wrong.
            let load = load?;
            let probe = probe?;
            watched?;
            Ok(Beside { probe, load, work })
        })
    }

    fn report(&self, setup: &Setup, measured: &Measured) -> Report {
        let mut report = setup.report("one client beside a load that keeps merges busy");
        report.setting("records", number(self.records() as f64, 0));
        report.setting("memory", format!("{} MiB", self.memory_mib));
        report.setting(
            "probe",
            format!("{} requests a second, gets and puts in turn", self.probe_rate),
        );
        let (full, load) = (measured.full.per_second, measured.beside.load.per_second);
        report.setting(
            "load",
            format!(
                "{} updates/s for {} min, {} % of {}/s in a closed loop for {} s",
                number(load, 0),
                self.minutes,
                number(load / full * 100.0, 0),
                number(full, 0),
                self.full_seconds
            ),
        );
        report.table(measured.probe_table());
        report.table(measured.parts_table());
        Self::judge(&mut report, measured);
        report.figures(measured.to_json());
        report
    }

    fn judge(report: &mut Report, measured: &Measured) {
        let (gets, puts) = measured.ratios();
        for (what, ratio) in [("gets", gets), ("puts", puts)] {
            let sentence = format!(
                "p99 of {what} beside the load is {} times that alone; goal ≤ {RATIO_MAX}",
                number(ratio, 2)
            );
            if ratio <= RATIO_MAX {
                report.note(sentence);
            } else {
                report.fail(sentence);
            }
        }
        let beside = &measured.beside;
        let silent =
            beside.load.silent_seconds.max(beside.probe.silent_seconds) + measured.silent_seconds_alone;
        if silent > 0 {
            report.fail(format!("in {silent} seconds nothing was answered"));
        } else {
            report.note("No second passed without an answer.");
        }
        let idle = beside
            .work
            .iter()
            .filter(|work| work.merged_bytes <= 0.0 || work.debt_bytes <= 0.0);
        let idle = idle.count();
        if idle > 0 {
            report.fail(format!(
                "in {idle} of {PARTS} parts merges had nothing to do: raise --load-percent or --minutes"
            ));
        }
        report.note(format!(
            "The load saw p50 {} µs and p99 {} µs from when an update was due; its thread was busy for {} % of the \
             time.",
            number(beside.load.p50_us, 0),
            number(beside.load.p99_us, 0),
            number(beside.load.busy * 100.0, 0)
        ));
    }
}

/// Does something on a thread of its own; if a signal comes, the server ends, and with it what is done.
fn with_server<T: Send>(
    server: &mut Option<Server>,
    work: impl FnOnce() -> Result<T, String> + Send,
) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(work);
        let watched = watch(server, || thread.is_finished(), Duration::MAX, |_| Ok(()));
        let done = thread.join().map_err(|_| "a thread panicked".to_owned())?;
        watched?;
        done
    })
}

/// Looks at the server for so long, or until something is over. If a signal comes, the server ends.
fn watch(
    server: &mut Option<Server>,
    is_over: impl Fn() -> bool,
    within: Duration,
    mut look: impl FnMut(&Server) -> Result<(), String>,
) -> Result<(), String> {
    let begun = Instant::now();
    while !is_over() && begun.elapsed() < within {
        if let Err(sentence) = machine::check_signals() {
            drop(server.take());
            return Err(sentence);
        }
        look(server.as_ref().ok_or("no server runs")?)?;
        std::thread::sleep(LOOK_AGAIN.min(within.saturating_sub(begun.elapsed())));
    }
    Ok(())
}

/// What the server does meanwhile.
fn watch_part(
    server: &mut Option<Server>,
    is_over: impl Fn() -> bool,
    within: Duration,
) -> Result<Work, String> {
    let mut first: Option<Value> = None;
    let mut work = Work::default();
    watch(server, is_over, within, |server| {
        let stats = server.stats()?;
        let first = first.get_or_insert_with(|| stats.clone());
        let grown = |name: &str| Ok::<_, String>(core_figure(&stats, name)? - core_figure(first, name)?);
        work.flushed_bytes = grown("storage/flushed_bytes")?;
        work.merged_bytes = grown("storage/merge_written_bytes")?;
        work.throttled_seconds = grown("storage/throttled_ns")? / 1e9;
        work.debt_bytes = work.debt_bytes.max(core_figure(&stats, "storage/debt_bytes")?);
        Ok(())
    })?;
    Ok(work)
}

impl Measured {
    /// The probe alone, before and after.
    fn alone(&self) -> Seen {
        let mut alone = self.before.clone();
        alone.add(&self.after);
        alone
    }

    /// p99 beside the load over p99 alone, of gets and of puts.
    fn ratios(&self) -> (f64, f64) {
        let (alone, beside) = (self.alone(), self.beside.probe.whole());
        let ratio =
            |of: fn(&Seen) -> &Latencies| of(&beside).quantile_us(0.99) / of(&alone).quantile_us(0.99);
        (ratio(|seen| &seen.gets), ratio(|seen| &seen.puts))
    }

    fn probe_table(&self) -> Table {
        let columns = [
            "when",
            "gets",
            "p50",
            "p95",
            "p99",
            "served p99",
            "puts",
            "p50",
            "p95",
            "p99",
            "served p99",
        ];
        let mut table = Table::new("the probe, latencies in µs", &columns);
        table.row(self.before.cells("alone"));
        table.row(self.beside.probe.whole().cells("beside the load"));
        table.row(self.after.cells("alone again"));
        table
    }

    fn parts_table(&self) -> Table {
        let columns = [
            "part",
            "get p99 µs",
            "put p99 µs",
            "flushed MiB",
            "merged MiB",
            "most behind MiB",
            "held back s",
        ];
        let mut table = Table::new("beside the load, by parts of the time", &columns);
        let parts = self.beside.probe.parts.iter().zip(&self.beside.work);
        for (index, (seen, work)) in parts.enumerate() {
            let mib = |bytes: f64| number(bytes / MIB as f64, 1);
            table.row([
                (index + 1).to_string(),
                number(seen.gets.quantile_us(0.99), 0),
                number(seen.puts.quantile_us(0.99), 0),
                mib(work.flushed_bytes),
                mib(work.merged_bytes),
                mib(work.debt_bytes),
                number(work.throttled_seconds, 2),
            ]);
        }
        table
    }

    fn to_json(&self) -> Value {
        let (gets, puts) = self.ratios();
        let parts = self.beside.probe.parts.iter().zip(&self.beside.work);
        json!({
            "alone": self.before.to_json(),
            "beside_load": self.beside.probe.whole().to_json(),
            "alone_again": self.after.to_json(),
            "ratio": { "get_p99": gets, "put_p99": puts },
            "highest_per_second": self.full.per_second,
            "load_per_second": self.beside.load.per_second,
            "silent_seconds": { "load": self.beside.load.silent_seconds, "probe": self.beside.probe.silent_seconds },
            "parts": parts.map(|(seen, work)| json!({
                "probe": seen.to_json(),
                "flushed_bytes": work.flushed_bytes,
                "merged_bytes": work.merged_bytes,
                "debt_bytes": work.debt_bytes,
                "throttled_seconds": work.throttled_seconds,
            })).collect::<Vec<_>>(),
        })
    }
}

impl Seen {
    fn cells(&self, when: &str) -> Vec<String> {
        let mut cells = vec![when.to_owned()];
        for (seen, served) in [(&self.gets, &self.served_gets), (&self.puts, &self.served_puts)] {
            let summary = seen.summary();
            let served_p99 = served.quantile_us(0.99);
            cells.push(number(seen.count() as f64, 0));
            let figures = [summary.p50_us, summary.p95_us, summary.p99_us, served_p99];
            cells.extend(figures.map(|figure| number(figure, 0)));
        }
        cells
    }

    fn to_json(&self) -> Value {
        json!({
            "get": self.gets.summary().to_json(),
            "put": self.puts.summary().to_json(),
            "served_get": self.served_gets.summary().to_json(),
            "served_put": self.served_puts.summary().to_json(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(latency_ns: u64) -> Seen {
        let mut seen = Seen::default();
        seen.gets.record(latency_ns);
        seen.puts.record(2 * latency_ns);
        seen
    }

    #[test]
    fn the_ratio_is_to_both_times_alone() {
        let loaded = Loaded {
            per_second: 10.0,
            p50_us: 1.0,
            p99_us: 2.0,
            silent_seconds: 0,
            busy: 0.1,
        };
        let measured = Measured {
            before: seen(1_000),
            full: loaded.clone(),
            beside: Beside {
                probe: Account {
                    parts: vec![seen(5_000), seen(6_000)],
                    silent_seconds: 0,
                },
                load: loaded,
                work: vec![Work::default(); 2],
            },
            after: seen(2_000),
            silent_seconds_alone: 0,
        };
        let (gets, puts) = measured.ratios();
        assert!(
            (gets - 3.0).abs() < 0.01 && (puts - 3.0).abs() < 0.01,
            "{gets} {puts}"
        );
        assert_eq!(measured.to_json()["parts"].as_array().unwrap().len(), 2);
    }
}
