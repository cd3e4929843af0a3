//! Operations as data: what a client called, when, and what it was told.
//!
//! A [`History`] is a list of [`Event`]s in the order in which they happened. An operation is a call
//! (`:invoke`) and, by the same process, its answer: done (`:ok`), certainly not done (`:fail`) or outcome
//! unknown (`:info`; also when no answer ever comes). A call that was sent several times may be answered again
//! ([`Event::again_of`]). The place in the list decides what came before what; the time of an event is for people, and
//! may not go back.
//!
//! [`History::parse`] and [`HistoryWriter`] are the form as text; [`History::operations`] pairs calls with
//! answers and refuses what no client can have done. Nothing here judges the answers.

mod operations;
mod read;
mod write;

pub use operations::{Malformed, Operation, Outcome};
pub use read::ReadError;
pub use write::HistoryWriter;

use std::fmt;
use std::sync::Arc;

/// A key or a value: an integer or bytes. Integers sort below bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Datum {
    /// A whole number.
    Integer(i64),
    /// Any bytes; text is its UTF-8.
    Bytes(Arc<[u8]>),
}

impl From<i64> for Datum {
    fn from(number: i64) -> Datum {
        Datum::Integer(number)
    }
}

impl From<&str> for Datum {
    fn from(text: &str) -> Datum {
        Datum::Bytes(text.as_bytes().into())
    }
}

impl From<&[u8]> for Datum {
    fn from(bytes: &[u8]) -> Datum {
        Datum::Bytes(bytes.into())
    }
}

impl fmt::Display for Datum {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        write::datum(&mut text, self);
        formatter.write_str(&String::from_utf8_lossy(&text))
    }
}

impl fmt::Debug for Datum {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A client's thread of control: one operation at a time. Never used again after an unknown outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process(pub u64);

impl Process {
    /// Of further answers to a call, which come to nobody who has one open.
    pub const AGAIN: Process = Process(u64::MAX);
}

impl fmt::Display for Process {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// The version of a key: rises with each write of the key, deletes included. 0 means that the key is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl Version {
    /// What is answered for a key that is not there.
    pub const ABSENT: Version = Version(0);
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// What an event tells of its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The call.
    Invoke,
    /// It was done, with this answer.
    Ok,
    /// It was certainly not done.
    Fail,
    /// It may have been done, may be done at any time from now on, or never.
    Info,
}

/// What must hold of the key for a write, delete, addition or check to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    None,
    /// The key is absent.
    Absent,
    /// The key is present.
    Present,
    /// The key is present at exactly this version.
    Version(Version),
    /// The key is present with exactly this value.
    Value(Datum),
}

/// Why an operation was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Its condition (or the old value of a compare-and-set) did not hold: as much an observation as a read.
    Condition,
    /// An addition found something that is no number: an observation, too.
    NotANumber,
    /// An addition found a number to which it can't be added: an observation, too.
    Overflow,
    /// Anything else, for people.
    Other(String),
}

/// What is called, with the arguments; in an answer, with the results too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reads a key. `value` is meant in an `:ok` only; none is an absent key.
    Read {
        /// The key.
        key: Datum,
        /// What was read.
        value: Option<Datum>,
    },
    /// Writes a key.
    Write {
        /// The key.
        key: Datum,
        /// What is written.
        value: Datum,
    },
    /// Writes `new` if the key holds `old`; none is an absent key.
    CompareAndSet {
        /// The key.
        key: Datum,
        /// What must be there.
        old: Option<Datum>,
        /// What is written.
        new: Datum,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: Datum,
    },
    /// Adds to the integer at a key; an absent key counts as 0.
    Add {
        /// The key.
        key: Datum,
        /// What is added.
        delta: i64,
        /// The sum, in an `:ok` that tells it.
        result: Option<i64>,
    },
    /// Does nothing but hold the key against a condition.
    Check {
        /// The key.
        key: Datum,
    },
    /// Steps that take effect together.
    Transaction {
        /// The steps in the order in which they were taken.
        steps: Vec<Step>,
        /// When given, the transaction read this whole range: keys of it that no step names were absent.
        scan: Option<KeyRange>,
    },
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub action: StepAction,
    /// The version that a read saw or a write was given, when known.
    pub version: Option<Version>,
    /// What must hold for the whole transaction to be done.
    pub condition: Condition,
    /// How long what is written stays, on the scale of versions; see [`Event::lifetime`].
    pub lifetime: Option<u64>,
    /// When what was read expires; see [`Event::expires`].
    pub expires: Option<u64>,
}

impl Step {
    /// A step about which nothing else is known.
    pub fn new(action: StepAction) -> Step {
        Step {
            action,
            version: None,
            condition: Condition::None,
            lifetime: None,
            expires: None,
        }
    }

    /// The key it is about.
    pub fn key(&self) -> &Datum {
        match &self.action {
            StepAction::Append { key, .. }
            | StepAction::Read { key, .. }
            | StepAction::Write { key, .. }
            | StepAction::Add { key, .. }
            | StepAction::Check { key } => key,
        }
    }
}

/// What a step of a transaction does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepAction {
    /// Appends an element to the list at a key.
    Append {
        /// The key.
        key: Datum,
        /// The element; unique for its key.
        element: Datum,
    },
    /// Reads a key. `value` is meant in an `:ok` only.
    Read {
        /// The key.
        key: Datum,
        /// What was there.
        value: Observed,
    },
    /// Writes a key; none deletes it.
    Write {
        /// The key.
        key: Datum,
        /// What is written; unique for its key wherever versions are not given.
        value: Option<Datum>,
    },
    /// Adds to the integer at a key; an absent key counts as 0.
    Add {
        /// The key.
        key: Datum,
        /// What is added.
        delta: i64,
        /// The sum, where it is told.
        result: Option<i64>,
    },
    /// Does nothing but hold the key against its condition.
    Check {
        /// The key.
        key: Datum,
    },
}

/// What a step read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// Nothing was there (or, in a call, nothing is known).
    Nothing,
    /// A register's value.
    Value(Datum),
    /// A list.
    List(Vec<Datum>),
}

/// Keys from `start` to just below `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key; none is the smallest.
    pub start: Option<Datum>,
    /// The first key past the range; none is no end.
    pub end: Option<Datum>,
}

impl KeyRange {
    /// True when `key` lies in the range.
    pub fn contains(&self, key: &Datum) -> bool {
        self.start.as_ref().is_none_or(|start| start <= key) && self.end.as_ref().is_none_or(|end| key < end)
    }
}

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number, rising along the history.
    pub index: u64,
    /// When it happened, in nanoseconds from any fixed point.
    pub time_ns: u64,
    /// What it tells of the operation.
    pub kind: EventKind,
    /// Who called.
    pub process: Process,
    /// What was called.
    pub action: Action,
    /// Under which condition; for writes, deletes, additions and checks.
    pub condition: Condition,
    /// In an `:ok`, the version that was read or assigned; in a `:fail` for its condition, the version found.
    pub version: Option<Version>,
    /// Why it was not done or is unknown.
    pub failure: Option<Failure>,
    /// In the call of a write or an addition: how long what it makes stays. Version and lifetime together are the
    /// moment from which on the key is absent.
    pub lifetime: Option<u64>,
    /// In the `:ok` of a read: the moment from which on the key is absent, on the scale of versions; 0 is never.
    pub expires: Option<u64>,
    /// In an answer: the clock by which the operation was decided lay between these two, on the scale of versions.
    pub clock: Option<(u64, u64)>,
    /// In a transaction's `:fail` for a condition: the step whose condition did not hold.
    pub failed_step: Option<u32>,
    /// In a further answer to a call, since it was sent several times: the call's index. Its process is
    /// [`Process::AGAIN`].
    pub again_of: Option<u64>,
}

impl Event {
    /// An event without condition, version and failure. Its index is set by who puts it into a history.
    pub fn new(time_ns: u64, kind: EventKind, process: Process, action: Action) -> Event {
        Event {
            index: 0,
            time_ns,
            kind,
            process,
            action,
            condition: Condition::None,
            version: None,
            failure: None,
            lifetime: None,
            expires: None,
            clock: None,
            failed_step: None,
            again_of: None,
        }
    }
}

/// Events in the order in which they happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The events.
    pub events: Vec<Event>,
}

impl History {
    /// A history of these events, which are numbered from 0.
    pub fn new(mut events: Vec<Event>) -> History {
        for (index, event) in (0_u64..).zip(&mut events) {
            event.index = index;
        }
        History { events }
    }

    /// Reads the form as text: one map after another, or all in one vector. Events of a process that is not a
    /// number (`:nemesis`) are no operations and are left out, those of `:again` aside.
    ///
    /// # Errors
    /// The line and what was expected there.
    pub fn parse(text: &str) -> Result<History, ReadError> {
        Ok(History {
            events: read::events(text)?,
        })
    }

    /// The whole history as text, one event per line.
    pub fn to_edn(&self) -> String {
        let mut text = Vec::new();
        for event in &self.events {
            write::event(&mut text, event, event.index);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Pairs calls with their answers, in the order of the calls.
    ///
    /// # Errors
    /// The first event that no client can have caused.
    pub fn operations(&self) -> Result<Vec<Operation>, Malformed> {
        operations::pair(&self.events)
    }
}
