//! This project's engine. Its clients are tasks on its cores, each with the keys of its core.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use ::ostrakon::env::local::Notify;
use ::ostrakon::env::tasks::yield_now;
use ::ostrakon::{CoreEngine, Engine, EngineOptions, ScanOptions};

use super::load::{Outcome, expect_key, missing};
use super::rows::{KEY_BYTES, Operation, Stream, Work, key};
use super::{OpenEngine, Settings};

/// An open engine.
pub struct Ostrakon {
    engine: Engine,
}

impl Ostrakon {
    /// Opens it.
    ///
    /// # Errors
    /// A sentence.
    pub fn open(settings: &Settings) -> Result<Ostrakon, String> {
        let options = EngineOptions {
            cores: Some(settings.cpus.len() as u16),
            cpus: Some(settings.cpus.clone()),
            // A quarter of it for memtables, the rest for blocks.
            memory_bytes: Some(settings.memtable_bytes + settings.cache_bytes),
            shards: settings.shards,
            ..EngineOptions::new(&settings.directory)
        };
        let engine = Engine::open_with(options).map_err(|error| error.to_string())?;
        Ok(Ostrakon { engine })
    }
}

impl OpenEngine for Ostrakon {
    fn run(&self, work: &Work) -> Result<Outcome, String> {
        let begun = Instant::now();
        let cores = self.engine.cores();
        let clients = work.clients / usize::from(cores);
        let outcomes: Vec<Result<Outcome, String>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..cores)
                .map(|core| scope.spawn(move || self.run_on(core, work, clients)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| "a core panicked".to_owned())?)
                .collect()
        });
        let mut all = Outcome::default();
        for outcome in outcomes {
            all.add(&outcome?);
        }
        all.seconds = begun.elapsed().as_secs_f64();
        Ok(all)
    }

    fn close(self: Box<Self>) -> Result<(), String> {
        self.engine.close().map_err(|error| error.to_string())
    }
}

impl Ostrakon {
    /// Lets so many clients work on a core.
    fn run_on(&self, core: u16, work: &Work, clients: usize) -> Result<Outcome, String> {
        let work = work.clone();
        let ran = self.engine.run(core, move |local| async move {
            let all = Rc::new(RefCell::new(Ok(Outcome::default())));
            let running = Rc::new(Cell::new(clients));
            let ended = Rc::new(Notify::default());
            for lane in 0..clients {
                let mut client = Client {
                    local: local.clone(),
                    // Lanes of one core differ from those of others, but for loads, in which a core passes over the
                    // keys of others.
                    stream: work.stream(lane, clients),
                    work: work.clone(),
                    outcome: Outcome::default(),
                };
                client.stream.turn_to(u64::from(core));
                let (all, running, ended) = (Rc::clone(&all), Rc::clone(&running), Rc::clone(&ended));
                local.spawn(async move {
                    let outcome = client.run().await;
                    let mut all = all.borrow_mut();
                    match (&mut *all, outcome) {
                        (Ok(all), Ok(())) => all.add(&client.outcome),
                        (Ok(_), Err(error)) => *all = Err(error),
                        (Err(_), _) => {}
                    }
                    running.set(running.get() - 1);
                    ended.notify();
                });
            }
            while running.get() > 0 {
                ended.notified().await;
            }
            all.replace(Ok(Outcome::default()))
        });
        ran.map_err(|error| error.to_string())?
    }
}

struct Client {
    local: CoreEngine,
    stream: Stream,
    work: Work,
    outcome: Outcome,
}

impl Client {
    async fn run(&mut self) -> Result<(), String> {
        let mut key_bytes = [0; KEY_BYTES];
        let mut value = Vec::new();
        let mut now = Instant::now();
        while let Some(operation) = self.stream.next(now) {
            key(operation.number(), &mut key_bytes);
            if self.is_for_others(operation, &key_bytes) {
                continue;
            }
            match operation {
                Operation::Put(number) => {
                    self.work.data.value(number, &mut value);
                    self.put(&key_bytes, &value).await?;
                }
                Operation::Get(number) => {
                    let is_there = self.get(&key_bytes).await?;
                    if self.stream.is_of_load(number) {
                        expect_key(is_there, &key_bytes)?;
                    }
                }
                Operation::GetMissing(_) => {
                    if self.get(&missing(key_bytes)).await? {
                        return Err("a key is there that was never written".into());
                    }
                }
                Operation::Scan(_, keys) => self.scan(&key_bytes, keys).await?,
                Operation::Change(number) => {
                    self.get(&key_bytes).await?;
                    self.work.data.value(number + 1, &mut value);
                    self.put(&key_bytes, &value).await?;
                }
            }
            let then = Instant::now();
            self.outcome.latencies.record((then - now).as_nanos() as u64);
            now = then;
            self.local.yield_if_due().await;
        }
        Ok(())
    }

    /// Those of other cores choose that key as often. Inserts are numbered once for all, and scans are of all cores.
    fn is_for_others(&self, operation: Operation, key: &[u8; KEY_BYTES]) -> bool {
        let owner = match operation {
            Operation::Scan(..) => return false,
            Operation::GetMissing(_) => self.local.owner(&missing(*key)),
            _ => self.local.owner(key),
        };
        self.stream.is_of_load(operation.number()) && owner != self.local.core()
    }

    async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        loop {
            match self.local.put(key, value).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_busy() => self.outcome.stalls += 1,
                Err(error) => return Err(error.to_string()),
            }
            yield_now().await;
        }
    }

    async fn get(&mut self, key: &[u8]) -> Result<bool, String> {
        loop {
            let read = self.local.read(key, |found| {
                found.map(|found| std::hint::black_box(found.value).len())
            });
            match read.await {
                Ok(length) => return Ok(length.is_some()),
                Err(error) if error.is_busy() => yield_now().await,
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    async fn scan(&mut self, start: &[u8], keys: usize) -> Result<(), String> {
        let options = ScanOptions {
            start: start.to_vec(),
            page_entries: keys as u32,
            ..ScanOptions::all()
        };
        let mut scan = self.local.scan(&options).map_err(|error| error.to_string())?;
        let mut seen = 0;
        while seen < keys {
            match scan.next_page().await {
                Ok(Some(page)) => {
                    for entry in page.entries().take(keys - seen) {
                        std::hint::black_box(entry);
                        seen += 1;
                    }
                }
                Ok(None) => break,
                Err(error) if error.is_busy() => {
                    yield_now().await;
                    scan = self.local.scan(&options).map_err(|error| error.to_string())?;
                    seen = 0;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }
}
