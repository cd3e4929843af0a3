//! The clients of a scenario: threads that read and write the same keys until they are told to stop, or their
//! node is gone.
//!
//! A turn is a scan of all keys, or a few requests at once, each by a process of its own: gets, puts and
//! deletes, some under a condition that often holds: absent, present, or the version that the thread saw
//! last. After an error with a hint a thread writes nothing until the hint has passed, and goes on reading.
//!
//! Only every other key is ever deleted. That a scan missed one of the others is then proved by the history
//! alone; of a key that may have been deleted, the checker of transactions can't tell.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ostrakon_client::{Answer, Client, Condition, Error, ErrorCode, Options, Request, ScanOptions};

use super::recorder::{Call, Recorder, Settled};
use crate::check::history::{self, Action, Datum, KeyRange, Process, Version};
use crate::crash::random::Random;
use crate::crash::value::{self, HEADER_BYTES, Identity};

/// Requests of a thread at once, at most.
const BATCH_MAX: usize = 4;
/// A thread ends after so many answers `CoreFailed`: each of them is one more write that may have happened.
const CORE_FAILURES_MAX: u32 = 4;
/// Longer than any fault that is no loss of the node.
const REQUEST_TIMEOUT_MS: u64 = 60_000;

/// What the threads do.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Threads, each with a connection.
    pub clients: u16,
    /// Keys, shared by all.
    pub keys: u32,
    /// Longest value; at least [`HEADER_BYTES`].
    pub value_bytes_max: u64,
    /// Of their choices.
    pub seed: u64,
}

/// What all threads together have seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Gets and scans answered.
    pub reads: u64,
    /// Writes acknowledged.
    pub writes: u64,
    /// Writes refused with `DiskFull`.
    pub disk_full: u64,
    /// Answers `CoreFailed`.
    pub core_failed: u64,
    /// Threads that have ended.
    pub ended: u16,
}

/// Threads that run.
#[derive(Debug)]
pub struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Ending>>,
}

/// Why a thread ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was told to.
    Stopped,
    /// The core that owns its keys has failed.
    CoreFailed,
    /// Its connection is gone.
    Lost(String),
    /// It was answered with an error that its habits do not explain.
    Refused(ErrorCode),
}

#[derive(Debug, Default)]
struct Shared {
    is_stopping: AtomicBool,
    seen: Mutex<Seen>,
    changed: Condvar,
}

impl Clients {
    /// Starts the threads.
    pub fn start(address: &str, habits: Habits, recorder: &Arc<Recorder>) -> Clients {
        let shared = Arc::new(Shared::default());
        let threads = (0..habits.clients).map(|number| {
            let (address, recorder) = (address.to_owned(), Arc::clone(recorder));
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                let ending = run(&address, habits, number, &recorder, &shared);
                shared.note(|seen| seen.ended += 1);
                ending
            })
        });
        Clients {
            threads: threads.collect(),
            shared,
        }
    }

    /// Waits until what was seen satisfies `is_enough`, or all threads have ended.
    ///
    /// # Errors
    /// When that takes longer than `timeout`.
    pub fn wait(&self, timeout: Duration, is_enough: impl Fn(&Seen) -> bool) -> Result<Seen, String> {
        let all = self.threads.len();
        let seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |seen: &mut Seen| !is_enough(seen) && usize::from(seen.ended) < all;
        let waited = self.shared.changed.wait_timeout_while(seen, timeout, waits);
        let (seen, result) = waited.unwrap_or_else(PoisonError::into_inner);
        if result.timed_out() {
            return Err(format!(
                "the clients did not get on within {timeout:?}: {:?}",
                *seen
            ));
        }
        Ok(*seen)
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        *self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the threads after their present turn.
    pub fn stop(self) -> Vec<Ending> {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
        self.outlive()
    }

    /// Waits until the threads end by themselves because their node is gone.
    pub fn outlive(self) -> Vec<Ending> {
        let end = |thread: JoinHandle<Ending>| thread.join().expect("a client does not panic");
        self.threads.into_iter().map(end).collect()
    }
}

impl Shared {
    fn note(&self, note: impl FnOnce(&mut Seen)) {
        note(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

/// The name of a key.
pub fn key(number: u32) -> Vec<u8> {
    format!("key {number:03}").into_bytes()
}

/// Do clients ever delete this key?
pub fn may_be_deleted(number: u32) -> bool {
    number % 2 == 1
}

/// The whole key space.
pub fn everything() -> KeyRange {
    KeyRange {
        start: None,
        end: None,
    }
}

/// Reads every key of a database at rest, by get and by scan, into the history. Gives what the two don't
/// agree on, a sentence each.
///
/// # Errors
/// When the node does not answer.
pub fn read_all(client: &mut Client, recorder: &Recorder, keys: u32) -> Result<Vec<String>, Error> {
    let mut process = recorder.new_process();
    let mut got = BTreeMap::new();
    for number in 0..keys {
        let key = key(number);
        let mut call = get_call(process, &key);
        recorder.called(&call);
        let result = client.get(&key).map(Answer::Get);
        recorder.answered(&mut call, &result);
        process = call.process;
        if let Answer::Get(Some(found)) = result? {
            got.insert(key, (found.version, found.value));
        }
    }
    let scanned = scan(client, recorder, &mut process).map_err(|(error, _)| error)?;
    let scanned: BTreeMap<_, _> = scanned
        .into_iter()
        .map(|(key, version, value)| (key, (version, value)))
        .collect();
    let all = got.keys().chain(scanned.keys()).collect::<BTreeSet<_>>();
    let differing = all.into_iter().filter(|key| got.get(*key) != scanned.get(*key));
    let sentence = |key: &Vec<u8>| {
        let version = |found: &BTreeMap<Vec<u8>, (u64, Vec<u8>)>| found.get(key).map(|(version, _)| *version);
        format!(
            "{} is at version {:?} by get and at {:?} by scan, or its value differs",
            key.escape_ascii(),
            version(&got),
            version(&scanned)
        )
    };
    Ok(differing.map(sentence).collect())
}

fn get_call(process: Process, key: &[u8]) -> Call {
    Call {
        process,
        action: Action::Read {
            key: key.into(),
            value: None,
        },
        condition: history::Condition::None,
    }
}

/// Keys with their versions and values.
type Entries = Vec<(Vec<u8>, u64, Vec<u8>)>;

/// Scans everything into the history.
fn scan(
    client: &mut Client,
    recorder: &Recorder,
    process: &mut Process,
) -> Result<Entries, (Error, Settled)> {
    let mut call = Call {
        process: *process,
        action: Action::Transaction {
            steps: Vec::new(),
            scan: Some(everything()),
        },
        condition: history::Condition::None,
    };
    recorder.called(&call);
    // Small pages: a snapshot has to outlive the requests for them.
    let options = ScanOptions {
        page_limit: 7,
        ..ScanOptions::default()
    };
    let entries = client
        .scan(options)
        .map(|entry| entry.map(|entry| (entry.key, entry.version, entry.value)))
        .collect::<Result<Vec<_>, _>>();
    match entries {
        Ok(entries) => {
            recorder.scanned(&call, &entries, &everything());
            Ok(entries)
        }
        Err(error) => {
            let settled = recorder.failed(&mut call, &error);
            *process = call.process;
            Err((error, settled))
        }
    }
}

struct Run<'a> {
    recorder: &'a Recorder,
    shared: &'a Shared,
    habits: Habits,
    random: Random,
    /// One per request at once.
    processes: Vec<Process>,
    /// The version that each key had when it was seen last.
    versions: HashMap<u32, u64>,
    /// When writing goes on.
    writes_from: Instant,
    core_failures: u32,
}

fn run(address: &str, habits: Habits, number: u16, recorder: &Recorder, shared: &Shared) -> Ending {
    let options = Options {
        request_timeout_ms: REQUEST_TIMEOUT_MS,
        // Each sending is one operation of the history.
        retry: false,
        client: "real".to_owned(),
        ..Options::default()
    };
    let mut client = match Client::connect(address, options) {
        Ok(client) => client,
        Err(error) => return Ending::Lost(error.to_string()),
    };
    let mut run = Run {
        recorder,
        shared,
        habits,
        random: Random::new(habits.seed, u64::from(number)),
        processes: (0..BATCH_MAX).map(|_| recorder.new_process()).collect(),
        versions: HashMap::new(),
        writes_from: Instant::now(),
        core_failures: 0,
    };
    while !shared.is_stopping.load(Ordering::Relaxed) {
        let turned = if run.random.below(20) == 0 {
            run.scan(&mut client)
        } else {
            run.batch(&mut client)
        };
        if let Err(ending) = turned {
            return ending;
        }
    }
    Ending::Stopped
}

/// A request of a batch, from its choice until its answer.
struct Chosen {
    number: u32,
    key: Vec<u8>,
    /// The value of a put.
    value: Option<Vec<u8>>,
    is_write: bool,
    condition: Condition<'static>,
    call: Call,
}

impl Chosen {
    fn request(&self) -> Request<'_> {
        let (key, condition) = (self.key.as_slice(), self.condition);
        match &self.value {
            Some(value) => Request::put(key, value, condition),
            None if self.is_write => Request::delete(key, condition),
            None => Request::Get { key },
        }
    }
}

impl Run<'_> {
    fn scan(&mut self, client: &mut Client) -> Result<(), Ending> {
        match scan(client, self.recorder, &mut self.processes[0]) {
            Ok(_) => {
                self.shared.note(|seen| seen.reads += 1);
                Ok(())
            }
            Err((error, settled)) => self.go_on(settled, &error, false),
        }
    }

    fn batch(&mut self, client: &mut Client) -> Result<(), Ending> {
        let mut pipeline = client.pipeline();
        let mut sent = Vec::new();
        let mut gone_on = Ok(());
        for slot in 0..self.random.between(1, BATCH_MAX as u64) as usize {
            let mut chosen = self.choose(slot);
            self.recorder.called(&chosen.call);
            match pipeline.submit(&chosen.request()) {
                Ok(ticket) => sent.push((slot, chosen, ticket)),
                Err(error) => {
                    let settled = self.recorder.failed(&mut chosen.call, &error);
                    self.processes[slot] = chosen.call.process;
                    gone_on = self.go_on(settled, &error, chosen.is_write);
                    break;
                }
            }
        }
        for (slot, mut chosen, ticket) in sent {
            let result = pipeline.wait(ticket);
            let settled = self.recorder.answered(&mut chosen.call, &result);
            self.processes[slot] = chosen.call.process;
            let taken = match &result {
                Ok(answer) => {
                    self.take(&chosen, answer, settled);
                    Ok(())
                }
                Err(error) => self.go_on(settled, error, chosen.is_write),
            };
            gone_on = gone_on.and(taken);
        }
        gone_on
    }

    fn take(&mut self, chosen: &Chosen, answer: &Answer, settled: Settled) {
        let version = match answer {
            Answer::Get(found) => found.as_ref().map(|found| found.version),
            // What a delete leaves can't be named in a condition.
            Answer::Write(_) if settled == Settled::Done && chosen.value.is_none() => None,
            Answer::Write(written) => Some(written.version).filter(|version| *version > 0),
            other => unreachable!("the client fits answers to requests: {other:?}"),
        };
        match version {
            Some(version) => self.versions.insert(chosen.number, version),
            None => self.versions.remove(&chosen.number),
        };
        self.shared.note(|seen| match settled {
            Settled::Done if chosen.is_write => seen.writes += 1,
            _ => seen.reads += 1,
        });
    }

    /// After an error: does the thread go on?
    fn go_on(&mut self, settled: Settled, error: &Error, is_write: bool) -> Result<(), Ending> {
        match settled {
            Settled::Lost => Err(Ending::Lost(error.to_string())),
            Settled::CoreFailed => {
                self.shared.note(|seen| seen.core_failed += 1);
                self.core_failures += 1;
                if self.core_failures < CORE_FAILURES_MAX {
                    Ok(())
                } else {
                    Err(Ending::CoreFailed)
                }
            }
            Settled::Error {
                code: code @ (ErrorCode::Busy | ErrorCode::DiskFull),
                retry_after_ms,
            } if is_write => {
                let hint = Duration::from_millis(u64::from(retry_after_ms));
                self.writes_from = self.writes_from.max(Instant::now() + hint);
                if code == ErrorCode::DiskFull {
                    self.shared.note(|seen| seen.disk_full += 1);
                }
                Ok(())
            }
            Settled::Done
            | Settled::Refused
            | Settled::Error {
                code: ErrorCode::Busy | ErrorCode::SnapshotTooOld,
                ..
            } => Ok(()),
            Settled::Error { code, .. } => Err(Ending::Refused(code)),
        }
    }

    fn choose(&mut self, slot: usize) -> Chosen {
        let number = self.random.below(u64::from(self.habits.keys)) as u32;
        let key = key(number);
        let process = self.processes[slot];
        let choice = self.random.below(100);
        if choice < 45 || Instant::now() < self.writes_from {
            return Chosen {
                number,
                call: get_call(process, &key),
                key,
                value: None,
                is_write: false,
                condition: Condition::None,
            };
        }
        let condition = match choice {
            45..65 | 90..95 => Condition::None,
            65..70 => Condition::Absent,
            70..75 | 95..97 => Condition::Present,
            _ => self.seen_version(number),
        };
        let datum = Datum::from(key.as_slice());
        let (action, value) = if choice < 90 || !may_be_deleted(number) {
            let write = self.recorder.new_write();
            let identity = Identity {
                attempt: write as u64,
                number: 0,
            };
            let bytes = self
                .random
                .between(HEADER_BYTES as u64, self.habits.value_bytes_max);
            let value = value::encode(&key, identity, bytes as usize);
            let action = Action::Write {
                key: datum,
                value: Datum::Integer(write),
            };
            (action, Some(value))
        } else {
            (Action::Delete { key: datum }, None)
        };
        Chosen {
            number,
            key,
            value,
            is_write: true,
            condition,
            call: Call {
                process,
                action,
                condition: recorded(condition),
            },
        }
    }

    fn seen_version(&self, number: u32) -> Condition<'static> {
        match self.versions.get(&number) {
            Some(version) => Condition::Version(*version),
            None => Condition::Absent,
        }
    }
}

fn recorded(condition: Condition<'_>) -> history::Condition {
    match condition {
        Condition::None => history::Condition::None,
        Condition::Absent => history::Condition::Absent,
        Condition::Present => history::Condition::Present,
        Condition::Version(version) => history::Condition::Version(Version(version)),
        Condition::Value(value) => history::Condition::Value(Datum::from(value)),
    }
}
