//! The clients of a round: threads that write to keys of their own until their node is gone.
//!
//! A counter client reads a counter, compares it with what it knows, and puts `n + 1` on condition of the version
//! that it read: a lost or doubled increment breaks the chain at the next step. A plain client sends puts (new, over,
//! big, small) and deletes without waiting for each answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

use ostrakon_client::{Answer, Client, Condition, Error, ErrorCode, Options, Request, Value, Written};

use super::history::{Content, Found, KeyHistory, Violation};
use super::random::Random;
use super::value::{self, HEADER_BYTES, Identity};

/// A node that has not answered after this long is gone.
const REQUEST_TIMEOUT_MS: u64 = 20_000;
/// Most writes that a plain client sends before it waits for their answers.
const BATCH_MAX: u64 = 24;

/// What a client does with its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Chained conditional increments.
    Counters,
    /// Pipelined puts and deletes.
    Plain,
}

/// One client between rounds.
#[derive(Debug)]
pub struct ClientState {
    /// What it does.
    pub role: Role,
    /// Its number, counted over both roles.
    pub number: u16,
    /// Its keys; nobody else writes to them.
    pub keys: Vec<KeyHistory>,
}

/// What a client tells the round while it runs.
#[derive(Debug)]
pub enum Event {
    /// As many writes are acknowledged as were to be waited for.
    Reached,
    /// A client has ended.
    Ended,
}

/// What all clients of a round share.
#[derive(Debug)]
pub struct Shared {
    /// Acknowledged writes of the round.
    pub acknowledged: AtomicU64,
    /// Number of acknowledged writes at which [`Event::Reached`] is sent.
    pub target: u64,
    /// Set when the node is about to be stopped.
    pub is_stopping: AtomicBool,
}

/// What a client brings back.
#[derive(Debug)]
pub struct ClientOutcome {
    /// The client with its keys.
    pub state: ClientState,
    /// Writes acknowledged in this round.
    pub acknowledged: u64,
    /// Writes of unknown outcome in this round.
    pub unknown: u64,
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// Why it ended, if not because its node was stopped.
    pub failure: Option<String>,
}

/// Starts a client.
pub fn start(
    mut state: ClientState,
    address: String,
    core: u16,
    random: Random,
    attempts: u64,
    shared: Arc<Shared>,
    events: Sender<Event>,
) -> JoinHandle<ClientOutcome> {
    std::thread::spawn(move || {
        let mut run = Run {
            keys: std::mem::take(&mut state.keys),
            random,
            next_attempt: attempts,
            shared: &shared,
            events: &events,
            acknowledged: 0,
            unknown: 0,
            violations: Vec::new(),
        };
        let options = Options {
            request_timeout_ms: REQUEST_TIMEOUT_MS,
            core: Some(core),
            // Each sending is one attempt of its history.
            retry: false,
            client: "crash".to_owned(),
            ..Options::default()
        };
        let stop = match Client::connect(&address, options) {
            Ok(mut client) => run.until_stopped(&mut client, state.role),
            Err(error) => Stop::Gone(error.to_string()),
        };
        let failure = match stop {
            Stop::Gone(sentence) => (!shared.is_stopping.load(Ordering::SeqCst)).then_some(sentence),
            Stop::Refused(sentence) => Some(sentence),
            Stop::Violated => None,
        };
        let Run {
            keys,
            acknowledged,
            unknown,
            violations,
            ..
        } = run;
        state.keys = keys;
        // Nobody listens once the node was stopped.
        let _unheard = events.send(Event::Ended);
        ClientOutcome {
            state,
            acknowledged,
            unknown,
            violations,
            failure,
        }
    })
}

/// Why a client ended.
enum Stop {
    /// The node does not answer any more.
    Gone(String),
    /// The node refused what it should have taken.
    Refused(String),
    /// A promise was broken; it is noted.
    Violated,
}

struct Run<'a> {
    keys: Vec<KeyHistory>,
    random: Random,
    next_attempt: u64,
    shared: &'a Shared,
    events: &'a Sender<Event>,
    acknowledged: u64,
    unknown: u64,
    violations: Vec<Violation>,
}

/// A write on its way.
#[derive(Clone, Copy)]
struct Sent {
    at: usize,
    content: Content,
    /// Newest version known when it was sent.
    floor: u64,
}

impl Run<'_> {
    fn until_stopped(&mut self, client: &mut Client, role: Role) -> Stop {
        loop {
            let step = match role {
                Role::Counters => self.increment(client),
                Role::Plain => self.write_batch(client),
            };
            if let Err(stop) = step {
                return stop;
            }
        }
    }

    fn attempt(&mut self) -> u64 {
        self.next_attempt += 1;
        self.next_attempt
    }

    /// Reads one counter, compares, and puts the next number on condition of what was read.
    fn increment(&mut self, client: &mut Client) -> Result<(), Stop> {
        let at = self.random.below(self.keys.len() as u64) as usize;
        self.read(client, at)?;
        let identity = Identity {
            attempt: self.attempt(),
            number: self.keys[at].number() + 1,
        };
        let history = &self.keys[at];
        let condition = match history.content() {
            Some(_) => Condition::Version(history.version()),
            None => Condition::Absent,
        };
        let bytes = HEADER_BYTES + self.random.below(64) as usize;
        let value = value::encode(history.key(), identity, bytes);
        let sent = Sent {
            at,
            content: Some(identity),
            floor: history.version(),
        };
        let result = client.put_if(history.key(), &value, condition);
        self.settle(sent, result)
    }

    fn read(&mut self, client: &mut Client, at: usize) -> Result<(), Stop> {
        let history = &self.keys[at];
        let found = loop {
            match client.get(history.key()) {
                Ok(found) => break found,
                Err(error) => self.pause(&error)?,
            }
        };
        let read = history.read(&as_found(history.key(), found.as_ref()));
        read.map_err(|violation| self.violated(violation))
    }

    fn write_batch(&mut self, client: &mut Client) -> Result<(), Stop> {
        let mut pipeline = client.pipeline();
        let mut tickets = Vec::new();
        let mut stop = Ok(());
        for _ in 0..self.random.between(1, BATCH_MAX) {
            let at = self.random.below(self.keys.len() as u64) as usize;
            let is_delete = self.random.below(8) == 0;
            let content = (!is_delete).then(|| Identity {
                attempt: self.attempt(),
                number: 0,
            });
            let bytes = self.value_bytes();
            let history = &self.keys[at];
            let sent = Sent {
                at,
                content,
                floor: history.version(),
            };
            let value = content.map(|identity| value::encode(history.key(), identity, bytes));
            let (key, condition) = (history.key(), Condition::None);
            let request = match &value {
                Some(value) => Request::put(key, value, condition),
                None => Request::delete(key, condition),
            };
            match pipeline.submit(&request) {
                Ok(ticket) => tickets.push((sent, ticket)),
                Err(error) => {
                    stop = Err(Stop::Gone(error.to_string()));
                    break;
                }
            }
        }
        for (sent, ticket) in tickets {
            let result = pipeline.wait(ticket).map(|answer| match answer {
                Answer::Write(written) => written,
                other => unreachable!("the client fits answers to requests: {other:?}"),
            });
            let settled = self.settle(sent, result);
            stop = stop.and(settled);
        }
        drop(pipeline);
        stop?;
        let at = self.random.below(self.keys.len() as u64) as usize;
        self.read(client, at)
    }

    /// Mostly small, a few that span several blocks, rarely one that is a batch of the log by itself.
    fn value_bytes(&mut self) -> usize {
        let (from, to) = match self.random.below(1000) {
            0..700 => (HEADER_BYTES as u64, 300),
            700..950 => (300, 8 << 10),
            950..998 => (8 << 10, 64 << 10),
            _ => (64 << 10, 2 << 20),
        };
        self.random.between(from, to) as usize
    }

    /// Notes what became of a write.
    fn settle(&mut self, sent: Sent, result: Result<Written, Error>) -> Result<(), Stop> {
        let history = &mut self.keys[sent.at];
        match result {
            Ok(Written {
                applied: true,
                version,
            }) => {
                let noted = history.acknowledged(sent.content, version, sent.floor);
                self.acknowledged += 1;
                let all = self.shared.acknowledged.fetch_add(1, Ordering::Relaxed) + 1;
                if all == self.shared.target {
                    // Nobody listens once the node was stopped.
                    let _unheard = self.events.send(Event::Reached);
                }
                noted.map_err(|violation| self.violated(violation))
            }
            Ok(Written {
                applied: false,
                version,
            }) => {
                let expected = format!("the condition to hold at version {}", sent.floor);
                let found = format!("it failed at version {version}, although nobody else writes this key");
                let violation = history.violation(expected, found);
                Err(self.violated(violation))
            }
            Err(Error::UnknownOutcome { cause }) => {
                history.unknown(sent.content);
                self.unknown += 1;
                Err(Stop::Gone(cause.to_string()))
            }
            Err(error) => self.pause(&error),
        }
    }

    /// After a request that changed nothing: waits if the node is busy, else ends the client.
    fn pause(&self, error: &Error) -> Result<(), Stop> {
        match error {
            Error::Server {
                code: ErrorCode::Busy,
                retry_after_ms,
                ..
            } => {
                std::thread::sleep(Duration::from_millis(u64::from(*retry_after_ms)));
                Ok(())
            }
            Error::Server {
                code: ErrorCode::CoreFailed,
                ..
            }
            | Error::Connect { .. }
            | Error::Lost { .. }
            | Error::Timeout { .. } => Err(Stop::Gone(error.to_string())),
            // Without power no log segment can be made.
            Error::Server {
                code: ErrorCode::DiskFull,
                ..
            } if self.shared.is_stopping.load(Ordering::SeqCst) => Err(Stop::Gone(error.to_string())),
            error => Err(Stop::Refused(error.to_string())),
        }
    }

    fn violated(&mut self, violation: Violation) -> Stop {
        self.violations.push(violation);
        Stop::Violated
    }
}

/// What a get found, as the histories compare it.
///
/// # Errors
/// What is wrong with the value.
pub fn as_found(key: &[u8], found: Option<&Value>) -> Result<Found, String> {
    match found {
        None => Ok(Found::Nothing),
        Some(Value { version, value, .. }) => value::decode(key, value).map(|identity| Found::Value {
            version: *version,
            identity,
        }),
    }
}
