//! `queue`: keys are put at one end of a range and deleted at the other, for minutes, and each taker scans for the
//! head. In an engine that keeps tombstones, each scan has more of them to pass over than the one before.
//!
//! The queue lies in one shard. Producers wait while it is as long as it may be; a taker scans for the first keys,
//! and deletes them in one batch. The table has a line for each part of the time: what a scan took must not rise.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ::ostrakon::env::local::Notify;
use ::ostrakon::env::tasks::yield_now;
use ::ostrakon::{
    Action, BatchOperation, Condition, CoreEngine, Engine, EngineError, EngineOptions, ScanOptions,
};
use clap::Args;
use serde_json::json;

use crate::machine;
use crate::report::{Report, Table, number};
use crate::statistics::Latencies;
use crate::workspace::Workspace;

const PREFIX: &[u8] = b"{queue}";
/// Keys that a taker takes at once.
const TAKEN: u32 = 10;
/// Lines of the table.
const PARTS: u64 = 20;
/// The last part's median may be so many times that of the first.
const RISE_MAX: f64 = 2.0;

/// Arguments of the benchmark.
#[derive(Debug, Clone, Args)]
pub struct Queue {
    /// Minutes
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub minutes: u64,

    /// Producers
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub producers: usize,

    /// Length of the queue at which producers wait
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub length: u64,

    /// MiB of memory
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub memory_mib: u64,

    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    pub value_size: usize,

    /// Directory on the device to measure; data goes into a directory below it that is removed at the end
    #[arg(long, value_name = "DIR", default_value = "bench-data")]
    pub data: PathBuf,

    /// Print one JSON document instead of tables
    #[arg(long)]
    pub json: bool,
}

/// What happened in a part of the time.
#[derive(Debug, Default, Clone)]
struct Part {
    scans: Latencies,
    put: u64,
    taken: u64,
}

/// What producers and takers share.
struct Shared {
    local: CoreEngine,
    begun: Instant,
    ends_at: Instant,
    part_seconds: f64,
    parts: RefCell<Vec<Part>>,
    next: Cell<u64>,
    length: Cell<u64>,
    length_max: u64,
    /// For each producer: raised when there may be room.
    room: Vec<Notify>,
    running: Cell<usize>,
    ended: Notify,
    error: RefCell<Option<String>>,
}

impl Queue {
    /// Measures.
    ///
    /// # Errors
    /// A sentence.
    pub fn run(&self) -> Result<Report, String> {
        let workspace = Workspace::new(&self.data)?;
        let engine = Engine::open_with(EngineOptions {
            memory_bytes: Some(self.memory_mib << 20),
            ..EngineOptions::new(workspace.join("queue"))
        })
        .map_err(|error| error.to_string())?;
        let owner = engine.owner(PREFIX);
        let arguments = self.clone();
        let parts = engine.run(owner, move |local| async move { arguments.work(local).await });
        let parts = parts.map_err(|error| error.to_string())??;
        engine.close().map_err(|error| error.to_string())?;
        Ok(self.report(&parts))
    }

    async fn work(&self, local: CoreEngine) -> Result<Vec<Part>, String> {
        let begun = Instant::now();
        let duration = Duration::from_secs(self.minutes * 60);
        let shared = Rc::new(Shared {
            local: local.clone(),
            begun,
            ends_at: begun + duration,
            part_seconds: duration.as_secs_f64() / PARTS as f64,
            parts: RefCell::new(vec![Part::default(); PARTS as usize]),
            next: Cell::new(0),
            length: Cell::new(0),
            length_max: self.length,
            room: (0..self.producers).map(|_| Notify::default()).collect(),
            running: Cell::new(self.producers + 1),
            ended: Notify::default(),
            error: RefCell::new(None),
        });
        for producer in 0..self.producers {
            let (shared, value) = (Rc::clone(&shared), vec![b'v'; self.value_size]);
            local.spawn(async move {
                let outcome = shared.produce(producer, &value).await;
                shared.end(outcome);
            });
        }
        let taker = Rc::clone(&shared);
        local.spawn(async move {
            let outcome = taker.take().await;
            taker.end(outcome);
        });
        while shared.running.get() > 0 {
            shared.ended.notified().await;
        }
        match shared.error.take() {
            Some(error) => Err(error),
            None => Ok(shared.parts.take()),
        }
    }

    fn report(&self, parts: &[Part]) -> Report {
        let mut report = Report::new("queue");
        report.setting(
            "producers",
            format!("{}, one taker of {TAKEN} keys at a time", self.producers),
        );
        report.setting("length", format!("up to {}", self.length));
        report.setting("memory", format!("{} MiB", self.memory_mib));
        report.setting("kernel", machine::kernel_release());
        let seconds = self.minutes as f64 * 60.0 / PARTS as f64;
        let mut table = Table::new(
            "Scans for the head, latencies in us",
            &["from s", "put/s", "taken/s", "scan p50", "p95", "p99"],
        );
        for (place, part) in parts.iter().enumerate() {
            let latency = part.scans.summary();
            table.row(vec![
                number(place as f64 * seconds, 0),
                number(part.put as f64 / seconds, 0),
                number(part.taken as f64 / seconds, 0),
                number(latency.p50_us, 1),
                number(latency.p95_us, 1),
                number(latency.p99_us, 1),
            ]);
        }
        report.table(table);
        let median = |part: &Part| part.scans.quantile_us(0.5);
        let (first, last) = (median(&parts[0]), median(&parts[parts.len() - 1]));
        let sentence = format!(
            "The last part's median is {:.2} times the first part's (at most {RISE_MAX}).",
            last / first
        );
        if last > first * RISE_MAX {
            report.fail(sentence);
        } else {
            report.note(sentence);
        }
        report.figures(json!({
            "parts": parts.iter().map(|part| json!({
                "put": part.put,
                "taken": part.taken,
                "scan": part.scans.summary().to_json(),
            })).collect::<Vec<_>>(),
        }));
        report
    }
}

impl Shared {
    fn end(&self, outcome: Result<(), String>) {
        if let Err(error) = outcome {
            self.error.borrow_mut().get_or_insert(error);
        }
        // Nobody makes room any more.
        self.room.iter().for_each(Notify::notify);
        self.running.set(self.running.get() - 1);
        self.ended.notify();
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.ends_at || self.error.borrow().is_some()
    }

    fn with_part(&self, note: impl FnOnce(&mut Part)) {
        let place = (self.begun.elapsed().as_secs_f64() / self.part_seconds) as usize;
        let mut parts = self.parts.borrow_mut();
        // What ends behind the end counts in the last part.
        let last = parts.len() - 1;
        note(&mut parts[place.min(last)]);
    }

    async fn produce(&self, producer: usize, value: &[u8]) -> Result<(), String> {
        while !self.is_over() {
            if self.length.get() >= self.length_max {
                self.room[producer].notified().await;
                continue;
            }
            let number = self.next.get();
            self.next.set(number + 1);
            let key = [PREFIX, &number.to_be_bytes()].concat();
            let put = again(async || self.local.put(&key, value).await.map(drop));
            put.await?;
            self.length.set(self.length.get() + 1);
            self.with_part(|part| part.put += 1);
        }
        Ok(())
    }

    async fn take(&self) -> Result<(), String> {
        let options = ScanOptions {
            page_entries: TAKEN,
            ..ScanOptions::prefix(PREFIX)
        };
        while !self.is_over() {
            let begun = Instant::now();
            let keys = RefCell::new(Vec::new());
            let scan = again(async || {
                let mut scan = self.local.scan(&options)?;
                // Pages without a key are the tombstones' doing, and count.
                while keys.borrow().is_empty()
                    && let Some(page) = scan.next_page().await?
                {
                    keys.borrow_mut()
                        .extend(page.entries().map(|entry| entry.key.to_vec()));
                }
                Ok(())
            });
            scan.await?;
            let nanoseconds = begun.elapsed().as_nanos() as u64;
            self.with_part(|part| part.scans.record(nanoseconds));
            let keys = keys.into_inner();
            if keys.is_empty() {
                yield_now().await;
                continue;
            }
            let deletes: Vec<BatchOperation<'_>> = (keys.iter())
                .map(|key| BatchOperation {
                    key,
                    action: Action::Delete,
                    condition: Condition::None,
                })
                .collect();
            again(async || self.local.write(&deletes).await.map(drop)).await?;
            self.length.set(self.length.get() - keys.len() as u64);
            self.room.iter().for_each(Notify::notify);
            self.with_part(|part| part.taken += keys.len() as u64);
        }
        Ok(())
    }
}

/// Does it until the engine is not busy.
async fn again(work: impl AsyncFn() -> Result<(), EngineError>) -> Result<(), String> {
    loop {
        match work().await {
            Err(error) if error.is_busy() => yield_now().await,
            outcome => return outcome.map_err(|error| error.to_string()),
        }
    }
}
