//! Clients that do the operations of a row, and what is counted of them.

use std::time::Instant;

use super::rows::{KEY_BYTES, Operation, Stream, Work, key};
use crate::machine;
use crate::statistics::Latencies;

/// What the clients of a row have seen.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Of each operation.
    pub latencies: Latencies,
    /// From the first client's start to the last one's end.
    pub seconds: f64,
    /// Writes that were refused for a moment, and tried again.
    pub stalls: u64,
}

impl Outcome {
    /// Adds what another client has seen beside.
    pub fn add(&mut self, other: &Outcome) {
        self.latencies.add(&other.latencies);
        self.stalls += other.stalls;
    }
}

/// An engine whose calls block the thread.
pub trait Blocking: Sync {
    /// Writes, durably.
    ///
    /// # Errors
    /// A sentence.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), String>;
    /// Is there such a key? Its value is read.
    ///
    /// # Errors
    /// A sentence.
    fn get(&self, key: &[u8]) -> Result<bool, String>;
    /// Reads keys and values from one on, so many at most; returns how many.
    ///
    /// # Errors
    /// A sentence.
    fn scan(&self, start: &[u8], keys: usize) -> Result<usize, String>;
}

/// A thread for each client.
///
/// # Errors
/// A sentence.
pub fn run_threads(engine: &impl Blocking, work: &Work, cpus: &[usize]) -> Result<Outcome, String> {
    let begun = Instant::now();
    let outcomes: Vec<Result<Outcome, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..work.clients)
            .map(|lane| {
                scope.spawn(move || {
                    machine::pin_thread_to(cpus)?;
                    client(engine, work, work.stream(lane, work.clients))
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "a client panicked".to_owned())?)
            .collect()
    });
    let mut all = Outcome::default();
    for outcome in outcomes {
        all.add(&outcome?);
    }
    all.seconds = begun.elapsed().as_secs_f64();
    Ok(all)
}

fn client(engine: &impl Blocking, work: &Work, mut stream: Stream) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    let mut key_bytes = [0; KEY_BYTES];
    let mut value = Vec::new();
    let mut now = Instant::now();
    while let Some(operation) = stream.next(now) {
        key(operation.number(), &mut key_bytes);
        match operation {
            Operation::Put(number) => {
                work.data.value(number, &mut value);
                engine.put(&key_bytes, &value)?;
            }
            Operation::Get(number) => {
                let is_there = engine.get(&key_bytes)?;
                if stream.is_of_load(number) {
                    expect_key(is_there, &key_bytes)?;
                }
            }
            Operation::GetMissing(_) => {
                if engine.get(&missing(key_bytes))? {
                    return Err("a key is there that was never written".into());
                }
            }
            Operation::Scan(_, keys) => {
                engine.scan(&key_bytes, keys)?;
            }
            Operation::Change(number) => {
                engine.get(&key_bytes)?;
                work.data.value(number + 1, &mut value);
                engine.put(&key_bytes, &value)?;
            }
        }
        let then = Instant::now();
        outcome.latencies.record((then - now).as_nanos() as u64);
        now = then;
    }
    Ok(outcome)
}

/// A key between this one and the next.
pub fn missing(key: [u8; KEY_BYTES]) -> [u8; KEY_BYTES + 1] {
    let mut longer = [b'x'; KEY_BYTES + 1];
    longer[..KEY_BYTES].copy_from_slice(&key);
    longer
}

/// An error if a key of the load is not there; one that was inserted later may be on its way.
///
/// # Errors
/// A sentence that names it.
pub fn expect_key(is_there: bool, key: &[u8]) -> Result<(), String> {
    if is_there {
        return Ok(());
    }
    Err(format!("{} was written and is not there", key.escape_ascii()))
}

/// CPU seconds of this process, user and kernel mode, all threads.
pub fn process_cpu_seconds() -> f64 {
    machine::process_cpu_seconds(std::process::id()).unwrap_or(0.0)
}

/// Bytes that this process has sent to devices.
///
/// # Errors
/// A sentence, if the kernel does not tell.
pub fn written_bytes() -> Result<u64, String> {
    machine::written_bytes(std::process::id())
}
