//! One history of many threads.
//!
//! The order of the lock is the order of the events: a call is recorded before it is sent and an answer after
//! it was received, so what stands first was not later.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ostrakon_client::{Answer, Error, ErrorCode, Written};

use crate::check::history::{
    Action, Condition, Datum, Event, EventKind, Failure, History, KeyRange, Observed, Process, Step,
    StepAction, Version,
};
use crate::crash::value;

/// The history of a run, while it grows.
#[derive(Debug)]
pub struct Recorder {
    begun_at: Instant,
    events: Mutex<Vec<Event>>,
    processes: AtomicU64,
    writes: AtomicI64,
}

/// A call on its way.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who called.
    pub process: Process,
    /// What.
    pub action: Action,
    /// Under which condition.
    pub condition: Condition,
}

/// What became of a call, as far as its client has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Done.
    Done,
    /// Its condition did not hold.
    Refused,
    /// Not done: the node answered with this error.
    Error {
        /// The error.
        code: ErrorCode,
        /// When to try again, in milliseconds; 0 without a hint.
        retry_after_ms: u32,
    },
    /// The node will never tell whether it was done. The connection goes on.
    CoreFailed,
    /// There is no connection any more.
    Lost,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder {
            begun_at: Instant::now(),
            events: Mutex::default(),
            processes: AtomicU64::new(0),
            writes: AtomicI64::new(0),
        }
    }
}

impl Recorder {
    /// A number that no process has had.
    pub fn new_process(&self) -> Process {
        Process(self.processes.fetch_add(1, Ordering::Relaxed))
    }

    /// A number that no write has had.
    pub fn new_write(&self) -> i64 {
        self.writes.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Before the call is sent.
    pub fn called(&self, call: &Call) {
        self.push(call, EventKind::Invoke, call.action.clone(), None, None);
    }

    /// After the answer to a get, put or delete was received. `call.process` becomes another if this one
    /// ends.
    pub fn answered(&self, call: &mut Call, result: &Result<Answer, Error>) -> Settled {
        match result {
            Ok(Answer::Get(found)) => {
                let Action::Read { key, .. } = &call.action else {
                    unreachable!("the client fits answers to requests")
                };
                let action = Action::Read {
                    key: key.clone(),
                    value: found.as_ref().map(|found| as_datum(key, &found.value)),
                };
                let version = found
                    .as_ref()
                    .map_or(Version::ABSENT, |found| Version(found.version));
                self.push(call, EventKind::Ok, action, Some(version), None);
                Settled::Done
            }
            Ok(Answer::Write(Written { applied, version })) => {
                let (kind, failure, settled) = if *applied {
                    (EventKind::Ok, None, Settled::Done)
                } else {
                    (EventKind::Fail, Some(Failure::Condition), Settled::Refused)
                };
                self.push(call, kind, call.action.clone(), Some(Version(*version)), failure);
                settled
            }
            Ok(other) => unreachable!("the client fits answers to requests: {other:?}"),
            Err(error) => self.failed(call, error),
        }
    }

    /// After a scan came to its end: keys, versions and values in order.
    pub fn scanned(&self, call: &Call, entries: &[(Vec<u8>, u64, Vec<u8>)], range: &KeyRange) {
        let steps = entries.iter().map(|(key, version, bytes)| {
            let key = Datum::from(key.as_slice());
            let value = Observed::Value(as_datum(&key, bytes));
            Step {
                version: Some(Version(*version)),
                ..Step::new(StepAction::Read { key, value })
            }
        });
        let action = Action::Transaction {
            steps: steps.collect(),
            scan: Some(range.clone()),
        };
        self.push(call, EventKind::Ok, action, None, None);
    }

    /// After a call ended with an error.
    pub fn failed(&self, call: &mut Call, error: &Error) -> Settled {
        let (kind, settled) = match error {
            Error::UnknownOutcome { cause } => match **cause {
                Error::Server { .. } => (EventKind::Info, Settled::CoreFailed),
                _ => (EventKind::Info, Settled::Lost),
            },
            Error::Server {
                code: ErrorCode::CoreFailed,
                ..
            } => (EventKind::Fail, Settled::CoreFailed),
            Error::Server {
                code, retry_after_ms, ..
            } => {
                let (code, retry_after_ms) = (*code, *retry_after_ms);
                (EventKind::Fail, Settled::Error { code, retry_after_ms })
            }
            _ => (EventKind::Fail, Settled::Lost),
        };
        let failure = Some(Failure::Other(error.to_string()));
        self.push(call, kind, call.action.clone(), None, failure);
        if kind == EventKind::Info {
            call.process = self.new_process();
        }
        settled
    }

    /// What was recorded.
    pub fn into_history(self) -> History {
        History::new(self.events.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(
        &self,
        call: &Call,
        kind: EventKind,
        action: Action,
        version: Option<Version>,
        failure: Option<Failure>,
    ) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let time_ns = self.begun_at.elapsed().as_nanos() as u64;
        let mut event = Event::new(time_ns, kind, call.process, action);
        event.condition = call.condition.clone();
        event.version = version;
        event.failure = failure;
        events.push(event);
    }
}

/// The number of the write that a value comes from, or what is wrong with it, which no write is.
fn as_datum(key: &Datum, bytes: &[u8]) -> Datum {
    let Datum::Bytes(key) = key else {
        unreachable!("keys are bytes")
    };
    match value::decode(key, bytes) {
        Ok(identity) => Datum::Integer(identity.attempt as i64),
        Err(damage) => Datum::from(damage.as_str()),
    }
}
