//! `connections`: what a crowd of connections does to one good client.
//!
//! 1. The good client alternates gets and puts, one at a time, and nobody else is there.
//! 2. It goes on while thousands of connections are opened, greeted and left idle, and hundreds more are slow, lie,
//!    or stop in the middle ([`hostile`]); and then for a while in which all of them are there.
//! 3. At the end each idle connection asks for a sign of life, and what the server owes the others is waited for.
//! 4. When all have gone, the good client goes on alone: what differs from the first time is the machine's doing.
//!
//! The others have the good client's CPU while it waits, and give way to it. Still, what they do in the kernel takes
//! its time, so besides its own latencies those of the server are measured, which each answer carries: from the receipt
//! of a request to its answer.
//!
//! It fails if an answer is missing, of the good client's or of the others', if an idle connection was dropped, or if
//! the server's memory grows beyond a bound. Latencies are printed and not judged.

mod hostile;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use ostrakon_client::{Client, ErrorCode, Options};
use serde_json::json;

use self::hostile::{Hostile, Kind};
use crate::cli::{Common, Setup};
use crate::crowd;
use crate::load::{KeyChoice, Load, Operation, Shape, System, Until};
use crate::machine;
use crate::report::{Report, Table, number};
use crate::server::Server;
use crate::statistics::Latencies;

const MIB: u64 = 1024 * 1024;
/// What an idle connection may take of the server's memory, or a hostile one that leaves nothing unsent.
const CONNECTION_BYTES: u64 = 64 * 1024;
/// What one may take that never reads: answers that wait, and some of the kind that are being made.
const UNREAD_BYTES: u64 = 6 * MIB;
/// What is asked for and never read.
const UNREAD_KEY: &[u8] = b"unread";
/// Its length: enough that answers soon wait in the server.
const UNREAD_VALUE_BYTES: usize = 64 * 1024;
/// How long the server may take for what it owes at the end.
const SETTLED_WITHIN: Duration = Duration::from_mins(1);
/// Between two turns of a hostile one.
const TURN: Duration = Duration::from_millis(20);
/// Nothing makes strangers act at the same moment: in each of these parts of that time, others have their turn.
const TURN_PARTS: usize = 20;
/// How long memory may take to come back after all have gone.
const GONE_FOR: Duration = Duration::from_secs(3);

/// Arguments of the benchmark.
#[derive(Debug, Clone, Args)]
pub struct Connections {
    /// Connections that are opened, greeted, and idle
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub idle: usize,

    /// Connections that are slow or lie
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub hostile: usize,

    /// Keys that are loaded first, and chosen from uniformly by the good client
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: u64,

    /// Seconds of the good client alone, of it with all others once they are there, and of it alone again
    #[arg(long, value_name = "S", default_value_t = 10)]
    pub seconds: u64,

    /// MiB by which the server's resident memory may grow at most [default: 64 KiB per connection, and 6 MiB per
    /// one that never reads]
    #[arg(long, value_name = "MIB")]
    pub bound_mib: Option<u64>,

    /// What every benchmark takes.
    #[command(flatten)]
    pub common: Common,
}

/// What the good client saw.
#[derive(Debug, Default)]
struct Seen {
    gets: Latencies,
    puts: Latencies,
    /// The server's part of them.
    served_gets: Latencies,
    served_puts: Latencies,
}

/// While the others come, or go.
const COMING: usize = 0;
/// While all of them are there.
const THERE: usize = 1;
/// The measurement is over.
const OVER: usize = 2;

/// What became of the others.
#[derive(Debug, Default)]
struct Crowd {
    by_kind: BTreeMap<Kind, Account>,
    /// Sentences about what is missing.
    failures: Vec<String>,
}

/// What became of those of one kind.
#[derive(Debug, Default)]
struct Account {
    connections: u64,
    answers: u64,
    ended: u64,
    missing: usize,
    /// By code.
    errors: BTreeMap<u16, u64>,
}

/// Resident memory of the server, in bytes.
#[derive(Debug, Clone, Copy)]
struct Resident {
    before: u64,
    peak: u64,
    after: u64,
}

impl Connections {
    /// Measures.
    ///
    /// # Errors
    /// A sentence, if anything fails on the way that is no finding of its own.
    pub fn run(&self, setup: &Setup) -> Result<Report, String> {
        let server = setup.start_server()?;
        Load {
            system: System::Ostrakon,
            operation: Operation::Put,
            keys: self.keys,
            value_bytes: self.common.value_size,
            shape: Shape::PIPELINED,
            until: Until::EachKeyOnce,
            cpu: self.common.client_cpu,
            seed: 1,
        }
        .run_without_errors(server.address())?;
        let mut client =
            Client::connect(server.address(), Options::default()).map_err(|error| error.to_string())?;
        let written = client.put(UNREAD_KEY, &vec![b'u'; UNREAD_VALUE_BYTES]);
        written.map_err(|error| error.to_string())?;
        drop(client);
        eprintln!("the good client alone");
        let alone = self.good_client_alone(server.address())?;
        let before = machine::memory_of(server.id())?.rss_bytes;
        machine::forget_peak(server.id())?;
        eprintln!("{} idle and {} hostile connections", self.idle, self.hostile);
        let stage = AtomicUsize::new(COMING);
        let (together, crowd) = std::thread::scope(|scope| {
            let good = scope.spawn(|| self.good_client(server.address(), || stage.load(Ordering::Relaxed)));
            let crowd = scope.spawn(|| self.crowd(server.address(), &stage)).join();
            stage.store(OVER, Ordering::Relaxed);
            let together = good.join().map_err(|_| "the good client panicked".to_owned());
            (
                together,
                crowd.map_err(|_| "the others' thread panicked".to_owned()),
            )
        });
        let crowd = crowd?.map_err(|error| explained(&error, &server))?;
        let together = together?.map_err(|error| explained(&error, &server));
        let peak = machine::peak_rss_bytes(server.id())?;
        std::thread::sleep(GONE_FOR);
        let after = machine::memory_of(server.id())?.rss_bytes;
        eprintln!("the good client alone again");
        let alone_again = self.good_client_alone(server.address())?;
        server.stop()?;
        let resident = Resident { before, peak, after };
        Ok(self.report(setup, &[alone, alone_again], &together, &crowd, resident))
    }

    fn good_client_alone(&self, address: &str) -> Result<Seen, String> {
        let deadline = Instant::now() + Duration::from_secs(self.seconds);
        let stage = || if Instant::now() < deadline { THERE } else { OVER };
        let [_, alone] = self.good_client(address, stage)?;
        Ok(alone)
    }

    /// Gets and puts in turn, until it is over; what it saw by stage.
    fn good_client(&self, address: &str, stage: impl Fn() -> usize) -> Result<[Seen; OVER], String> {
        machine::pin_thread(self.common.client_cpu)?;
        let failed = |error: ostrakon_client::Error| format!("the good client got no answer: {error}");
        let served_ns = |client: &Client| client.last_timings().map_or(0, |timings| timings.total_ns);
        let mut client = Client::connect(address, Options::default()).map_err(failed)?;
        client.set_timings(true);
        let mut keys = KeyChoice::new(self.keys, 1);
        let value = vec![b'w'; self.common.value_size];
        let mut seen = <[Seen; OVER]>::default();
        while let Some(seen) = seen.get_mut(stage()) {
            machine::check_signals()?;
            let start = Instant::now();
            let found = client.get(keys.uniform()).map_err(failed)?;
            seen.gets.record(start.elapsed().as_nanos() as u64);
            seen.served_gets.record(served_ns(&client));
            if found.is_none() {
                return Err("the good client missed a key that was loaded".to_owned());
            }
            let start = Instant::now();
            client.put(keys.uniform(), &value).map_err(failed)?;
            seen.puts.record(start.elapsed().as_nanos() as u64);
            seen.served_puts.record(served_ns(&client));
        }
        Ok(seen)
    }

    /// Opens everybody, lets them do what they do, and settles accounts.
    fn crowd(&self, address: &str, stage: &AtomicUsize) -> Result<Crowd, String> {
        machine::pin_thread(self.common.client_cpu)?;
        // What the good client waits for shall be the server, as if the others were on machines of their own.
        machine::give_way()?;
        let mut keys = KeyChoice::new(self.keys, 2);
        let mut idle = crowd::open_idle(System::Ostrakon, address, self.idle)?;
        let mut hostile = Vec::with_capacity(self.hostile);
        for number in 0..self.hostile {
            let kind = Kind::ALL[number % Kind::ALL.len()];
            hostile.push(Hostile::open(
                address,
                kind,
                number / Kind::ALL.len(),
                if kind == Kind::NeverReads {
                    UNREAD_KEY
                } else {
                    keys.uniform()
                },
            )?);
        }
        let turns_until = |deadline: Instant, hostile: &mut [Hostile], is_over: bool| {
            let mut part = 0;
            while Instant::now() < deadline {
                machine::check_signals()?;
                let of_part = hostile.len().div_ceil(TURN_PARTS).max(1);
                for one in hostile.chunks_mut(of_part).nth(part).into_iter().flatten() {
                    one.turn(is_over);
                }
                if is_over && hostile.iter().all(|one| one.missing() == 0) {
                    break;
                }
                part = (part + 1) % TURN_PARTS;
                std::thread::sleep(TURN / TURN_PARTS as u32);
            }
            Ok::<_, String>(())
        };
        let deadline = Instant::now() + Duration::from_secs(self.seconds);
        stage.store(THERE, Ordering::Relaxed);
        turns_until(deadline, &mut hostile, false)?;
        stage.store(COMING, Ordering::Relaxed);
        let mut crowd = Crowd::default();
        let dropped = crowd::dead(&mut idle, SETTLED_WITHIN)?;
        if let Some(first) = dropped.first() {
            let sentence = format!(
                "{} of {} idle connections are dead: {first}",
                dropped.len(),
                self.idle
            );
            crowd.failures.push(sentence);
        }
        turns_until(Instant::now() + SETTLED_WITHIN, &mut hostile, true)?;
        for one in &hostile {
            crowd.count(one);
        }
        Ok(crowd)
    }

    fn bound_bytes(&self) -> u64 {
        let unread = (self.hostile / Kind::ALL.len() + 1) as u64;
        let default = (self.idle + self.hostile) as u64 * CONNECTION_BYTES + unread * UNREAD_BYTES;
        self.bound_mib.map_or(default, |mib| mib * MIB)
    }

    fn report(
        &self,
        setup: &Setup,
        [alone, alone_again]: &[Seen; 2],
        together: &Result<[Seen; OVER], String>,
        crowd: &Crowd,
        resident: Resident,
    ) -> Report {
        let mut report = setup.report("one good client among many others");
        report.setting("others", format!("{} idle, {} hostile", self.idle, self.hostile));
        let mut table = Table::new(
            "the good client",
            &[
                "when",
                "gets",
                "get p50 µs",
                "get p99 µs",
                "served p50 µs",
                "served p99 µs",
                "puts",
                "put p50 µs",
                "put p99 µs",
                "served p50 µs",
                "served p99 µs",
            ],
        );
        table.row(alone.cells("alone"));
        match together {
            Ok([coming, there]) => {
                table.row(coming.cells("while the others come and go"));
                table.row(there.cells("among all others"));
            }
            Err(sentence) => report.fail(sentence.as_str()),
        }
        table.row(alone_again.cells("alone again"));
        report.table(table);
        report.table(crowd.table());
        let mib = |bytes: u64| number(bytes as f64 / MIB as f64, 1);
        let mut memory = Table::new(
            "resident memory, MiB",
            &["before", "peak", "after", "bound of growth"],
        );
        let bound = self.bound_bytes();
        memory.row([
            mib(resident.before),
            mib(resident.peak),
            mib(resident.after),
            mib(bound),
        ]);
        report.table(memory);
        for sentence in crowd.missing().into_iter().chain(crowd.failures.iter().cloned()) {
            report.fail(sentence);
        }
        let grown = resident.peak.saturating_sub(resident.before);
        if grown > bound {
            report.fail(format!(
                "memory grew by {} MiB, more than {}",
                mib(grown),
                mib(bound)
            ));
        }
        report.figures(json!({
            "alone": alone.to_json(),
            "alone_again": alone_again.to_json(),
            "while_others_come_and_go": together.as_ref().ok().map(|[coming, _]| coming.to_json()),
            "among_others": together.as_ref().ok().map(|[_, there]| there.to_json()),
            "others": crowd.by_kind.iter().map(|(kind, account)| account.to_json(*kind)).collect::<Vec<_>>(),
            "rss_bytes": { "before": resident.before, "peak": resident.peak, "after": resident.after },
            "bound_bytes": bound,
        }));
        report
    }
}

fn explained(error: &str, server: &Server) -> String {
    format!("{error}; the server's log ends with:\n{}", server.log_end())
}

impl Seen {
    fn cells(&self, when: &str) -> Vec<String> {
        let of = |seen: &Latencies, served: &Latencies| {
            let (seen_us, served_us) = (seen.summary(), served.summary());
            let mut cells = vec![number(seen.count() as f64, 0)];
            let figures = [seen_us.p50_us, seen_us.p99_us, served_us.p50_us, served_us.p99_us];
            cells.extend(figures.map(|figure| number(figure, 1)));
            cells
        };
        let mut cells = vec![when.to_owned()];
        cells.extend(of(&self.gets, &self.served_gets));
        cells.extend(of(&self.puts, &self.served_puts));
        cells
    }

    fn to_json(&self) -> serde_json::Value {
        json!({
            "get": self.gets.summary().to_json(),
            "put": self.puts.summary().to_json(),
            "served_get": self.served_gets.summary().to_json(),
            "served_put": self.served_puts.summary().to_json(),
        })
    }
}

impl Crowd {
    fn count(&mut self, one: &Hostile) {
        let account = self.by_kind.entry(one.kind).or_default();
        account.connections += 1;
        account.answers += one.good_answers();
        account.ended += u64::from(one.is_ended());
        account.missing += one.missing();
        for (code, count) in &one.errors {
            *account.errors.entry(*code).or_default() += count;
        }
        if let Some(garbage) = &one.garbage {
            self.failures
                .push(format!("{}: an answer can't be read: {garbage}", one.kind.name()));
        }
    }

    fn missing(&self) -> Vec<String> {
        let lacking = self.by_kind.iter().filter(|(_, account)| account.missing > 0);
        let sentence = |(kind, account): (&Kind, &Account)| {
            format!("{}: {} answers are missing", kind.name(), account.missing)
        };
        lacking.map(sentence).collect()
    }

    fn table(&self) -> Table {
        let columns = [
            "others",
            "connections",
            "answers",
            "errors",
            "ended by the server",
            "missing",
        ];
        let mut table = Table::new("those who are slow or lie", &columns);
        for (kind, account) in &self.by_kind {
            table.row([
                kind.name().to_owned(),
                number(account.connections as f64, 0),
                number(account.answers as f64, 0),
                account.errors_by_code(),
                number(account.ended as f64, 0),
                number(account.missing as f64, 0),
            ]);
        }
        table
    }
}

impl Account {
    /// Such as `120 × BadFrame (1)`.
    fn errors_by_code(&self) -> String {
        let shown = self.errors.iter().map(|(code, count)| {
            let name = ErrorCode::from(*code);
            format!("{} × {name} ({code})", number(*count as f64, 0))
        });
        let shown: Vec<String> = shown.collect();
        if shown.is_empty() {
            "-".to_owned()
        } else {
            shown.join(", ")
        }
    }

    fn to_json(&self, kind: Kind) -> serde_json::Value {
        json!({
            "kind": kind.name(),
            "connections": self.connections,
            "answers": self.answers,
            "errors": self.errors,
            "ended": self.ended,
            "missing": self.missing,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_shown_by_code_and_silence_is_told() {
        let mut crowd = Crowd::default();
        let account = Account {
            connections: 3,
            missing: 2,
            errors: BTreeMap::from([(1, 1200), (2, 1)]),
            ..Account::default()
        };
        crowd.by_kind.insert(Kind::WrongChecksum, account);
        let text = crowd.table().to_string();
        assert!(
            text.contains("1,200 × BadFrame (1), 1 × BadRequest (2)"),
            "{text}"
        );
        assert_eq!(crowd.missing(), ["wrong checksum: 2 answers are missing"]);
    }
}
