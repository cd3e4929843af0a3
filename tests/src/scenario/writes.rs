//! Writes that own their bytes, so that they can be sent several times; what they are in a history, and what an answer
//! says of them.
//!
//! A multi-put or a delete-range is as many operations of a history as it has shards, since each shard decides for
//! itself; all other writes are one. A delete-range deletes each key of the run that lies in it. These operations are
//! the *parts* of a write.

use ostrakon_wire::message::{
    Action, BatchOperation, BatchOperations, BatchReply, Condition, ErrorCode, PutEntries, PutEntry, Request,
    Retry,
};

use super::client::Reply;
use super::record::Told;
use super::values;
use crate::check::history::{self, Datum, Failure, Step, StepAction, Version};

/// Microseconds and counter of a timestamp: what a millisecond is on the scale of versions.
const MILLISECOND: u64 = 1_000 << 12;

/// What must hold of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing.
    Nothing,
    /// It is absent.
    Absent,
    /// It is there.
    Present,
    /// It has this version.
    Version(u64),
    /// It has this value.
    Value(Vec<u8>),
}

/// What happens to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It gets a value.
    Put(Vec<u8>),
    /// It is removed.
    Delete,
    /// A number is added to what it holds.
    Add(i64),
    /// Nothing.
    Check,
}

/// What happens to one key, and under which condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyWrite {
    /// The key's number.
    pub number: u32,
    /// The key.
    pub key: Vec<u8>,
    /// What happens.
    pub change: Change,
    /// How long a value stays, in milliseconds; 0 is for ever.
    pub ttl_ms: u64,
    /// What must hold.
    pub wanted: Wanted,
}

/// How a write is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Put, delete or add of one key.
    Single,
    /// A multi-put.
    MultiPut,
    /// A batch.
    Batch,
    /// A delete-range.
    DeleteRange,
}

/// A write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// How it is asked for.
    pub form: Form,
    /// What it does, key by key.
    pub keys: Vec<KeyWrite>,
    /// Start and end of a delete-range.
    pub range: (Vec<u8>, Option<Vec<u8>>),
}

/// A write as one of its sendings says it.
pub struct Prepared<'a> {
    write: &'a Write,
    retry: Option<Retry>,
    entries: Vec<PutEntry<'a>>,
    operations: Vec<BatchOperation<'a>>,
}

impl Prepared<'_> {
    /// The request.
    pub fn request(&self) -> Request<'_> {
        let retry = self.retry;
        match self.write.form {
            Form::Single => self.write.single(retry),
            Form::MultiPut => Request::MultiPut {
                entries: PutEntries::from(self.entries.as_slice()),
                retry,
            },
            Form::Batch => Request::Batch {
                operations: BatchOperations::from(self.operations.as_slice()),
                retry,
            },
            Form::DeleteRange => Request::DeleteRange {
                start: &self.write.range.0,
                end: self.write.range.1.as_deref(),
                retry,
            },
        }
    }
}

/// One operation of a history that a write is, or part of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Places of its keys in the write.
    pub places: Vec<usize>,
    /// What it is.
    pub action: history::Action,
    /// Its condition, if it is no transaction.
    pub condition: history::Condition,
    /// See [`history::Event::lifetime`].
    pub lifetime: Option<u64>,
}

/// What an answer says of one part of a write.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// It is decided, once and for all.
    Decided(Told),
    /// This sending did nothing; another one may.
    NotNow(ErrorCode),
    /// It may have been done; asking again tells.
    Unknown(ErrorCode),
    /// It may have been done, and nobody will ever tell.
    Forgotten,
    /// That is no answer to this write.
    Nonsense(String),
}

impl Wanted {
    fn condition(&self) -> Condition<'_> {
        match self {
            Wanted::Nothing => Condition::None,
            Wanted::Absent => Condition::Absent,
            Wanted::Present => Condition::Present,
            Wanted::Version(version) => Condition::Version(*version),
            Wanted::Value(value) => Condition::Value(value),
        }
    }

    fn in_history(&self) -> history::Condition {
        match self {
            Wanted::Nothing => history::Condition::None,
            Wanted::Absent => history::Condition::Absent,
            Wanted::Present => history::Condition::Present,
            Wanted::Version(version) => history::Condition::Version(Version(*version)),
            Wanted::Value(value) => history::Condition::Value(own_datum(value)),
        }
    }
}

/// The datum of a value of this run's own making, or one that was read and found whole.
fn own_datum(value: &[u8]) -> Datum {
    values::datum(value).expect("it was made or checked here")
}

impl KeyWrite {
    /// True if it changes the key.
    pub fn changes(&self) -> bool {
        self.change != Change::Check
    }

    fn step(&self) -> Step {
        let key = Datum::from(self.key.as_slice());
        let action = match &self.change {
            Change::Put(value) => StepAction::Write {
                key,
                value: Some(own_datum(value)),
            },
            Change::Delete => StepAction::Write { key, value: None },
            Change::Add(delta) => StepAction::Add {
                key,
                delta: *delta,
                result: None,
            },
            Change::Check => StepAction::Check { key },
        };
        Step {
            condition: self.wanted.in_history(),
            lifetime: (self.ttl_ms > 0).then_some(self.lifetime()),
            ..Step::new(action)
        }
    }

    /// How long a value stays, on the scale of versions.
    pub fn lifetime(&self) -> u64 {
        self.ttl_ms * MILLISECOND
    }

    /// What happens to it, as a request says it.
    pub fn operation(&self) -> BatchOperation<'_> {
        let ttl_ms = self.ttl_ms;
        let action = match &self.change {
            Change::Put(value) => Action::Put { value, ttl_ms },
            Change::Delete => Action::Delete,
            Change::Add(delta) => Action::Add {
                delta: *delta,
                ttl_ms,
            },
            Change::Check => Action::Check,
        };
        BatchOperation {
            key: &self.key,
            action,
            condition: self.wanted.condition(),
        }
    }
}

impl Write {
    /// The write, ready to be a request.
    pub fn prepared(&self, retry: Option<Retry>) -> Prepared<'_> {
        let (mut entries, mut operations) = (Vec::new(), Vec::new());
        match self.form {
            Form::Single | Form::DeleteRange => {}
            Form::MultiPut => entries.extend(self.keys.iter().map(put_entry)),
            Form::Batch => operations.extend(self.keys.iter().map(KeyWrite::operation)),
        }
        Prepared {
            write: self,
            retry,
            entries,
            operations,
        }
    }

    fn single(&self, retry: Option<Retry>) -> Request<'_> {
        let KeyWrite {
            key, change, wanted, ..
        } = &self.keys[0];
        let condition = wanted.condition();
        let ttl_ms = self.keys[0].ttl_ms;
        match change {
            Change::Put(value) => Request::Put {
                key,
                value,
                condition,
                ttl_ms,
                retry,
            },
            Change::Delete => Request::Delete {
                key,
                condition,
                retry,
            },
            Change::Add(delta) => Request::Add {
                key,
                delta: *delta,
                ttl_ms,
                retry,
            },
            Change::Check => unreachable!("checks are part of batches only"),
        }
    }

    /// What it is in a history.
    pub fn parts(&self, shards: u32) -> Vec<Part> {
        match self.form {
            Form::Single => vec![self.single_part(0)],
            Form::Batch => vec![self.transaction((0..self.keys.len()).collect())],
            Form::MultiPut | Form::DeleteRange => {
                let shard = |place: &usize| values::shard(&self.keys[*place].key, shards);
                let mut places: Vec<usize> = (0..self.keys.len()).collect();
                places.sort_by_key(shard);
                let of_shard = places.chunk_by(|one, other| shard(one) == shard(other));
                let part = |places: &[usize]| match places {
                    [place] => self.single_part(*place),
                    places => self.transaction(places.to_vec()),
                };
                of_shard.map(part).collect()
            }
        }
    }

    fn single_part(&self, place: usize) -> Part {
        let Step {
            action,
            condition,
            lifetime,
            ..
        } = self.keys[place].step();
        let action = match action {
            StepAction::Write {
                key,
                value: Some(value),
            } => history::Action::Write { key, value },
            StepAction::Write { key, value: None } => history::Action::Delete { key },
            StepAction::Add { key, delta, result } => history::Action::Add { key, delta, result },
            StepAction::Check { key } => history::Action::Check { key },
            StepAction::Read { .. } | StepAction::Append { .. } => unreachable!("a write has none"),
        };
        Part {
            places: vec![place],
            action,
            condition,
            lifetime,
        }
    }

    fn transaction(&self, places: Vec<usize>) -> Part {
        let steps = places.iter().map(|place| self.keys[*place].step()).collect();
        Part {
            places,
            action: history::Action::Transaction { steps, scan: None },
            condition: history::Condition::None,
            lifetime: None,
        }
    }

    /// What a reply says of each of these parts. `clock` bounds the clock by which it was decided.
    pub fn said(&self, parts: &[Part], reply: &Reply, clock: (u64, u64)) -> Vec<Said> {
        let with_clock = |said| match said {
            Said::Decided(told) if told.clock.is_none() => Said::Decided(Told {
                clock: Some(clock),
                ..told
            }),
            said => said,
        };
        let said = |part: &Part| match reply {
            Reply::Refused { code, .. } => self.refused(part, *code),
            Reply::MultiPut(results) if self.form == Form::MultiPut => self.said_of_shard(part, results),
            Reply::Batch(reply) if self.form == Form::Batch => self.said_of_batch(part, reply),
            Reply::DeleteRange { version, refused } if self.form == Form::DeleteRange => {
                said_of_range(part, *version, *refused)
            }
            reply if self.form == Form::Single => said_of_single(part, reply),
            reply => Said::Nonsense(format!("{:?} was answered with {reply:?}", self.form)),
        };
        parts.iter().map(|part| with_clock(said(part))).collect()
    }

    fn refused(&self, part: &Part, code: ErrorCode) -> Said {
        let adds = self.keys.iter().any(|key| matches!(key.change, Change::Add(_)));
        let failure = |single: Failure, words: &str| match self.form {
            Form::Single => single,
            // It is not told which of the operations found that.
            _ => Failure::Other(words.to_owned()),
        };
        let decided = |failure| Said::Decided(Told::refused(part.action.clone(), failure, None));
        match code {
            ErrorCode::NotANumber if adds => decided(failure(Failure::NotANumber, "no number")),
            ErrorCode::NumberOverflow if adds => decided(failure(Failure::Overflow, "overflow")),
            code => refusal(code),
        }
    }

    fn said_of_shard(&self, part: &Part, results: &[Result<u64, ErrorCode>]) -> Said {
        if results.len() != self.keys.len() {
            return Said::Nonsense(format!("{} entries, {} results", self.keys.len(), results.len()));
        }
        let of_part = || part.places.iter().map(|place| results[*place]);
        let first = results[part.places[0]];
        if of_part().any(|result| result != first) {
            let all: Vec<_> = of_part().collect();
            return Said::Nonsense(format!("one shard said differently of its entries: {all:?}"));
        }
        match first {
            Ok(0) => Said::Nonsense("an entry was written without a version".to_owned()),
            Ok(version) => Said::Decided(Told::done(with_version(&part.action, version), Some(version))),
            Err(code) => refusal(code),
        }
    }

    fn said_of_batch(&self, part: &Part, reply: &BatchReply) -> Said {
        let adds = self
            .keys
            .iter()
            .filter(|key| matches!(key.change, Change::Add(_)));
        if !reply.applied {
            let failed = self.keys.get(reply.failed as usize);
            if failed.is_none_or(|failed| failed.wanted == Wanted::Nothing) {
                return Said::Nonsense(format!("the failed operation has no condition: {reply:?}"));
            }
            let told = Told::refused(part.action.clone(), Failure::Condition, Some(reply.version));
            return Said::Decided(Told {
                failed_step: Some(reply.failed),
                ..told
            });
        }
        let changes = self.keys.iter().any(KeyWrite::changes);
        if reply.numbers.len() != adds.count() || (reply.version > 0) != changes {
            return Said::Nonsense(format!("{self:?} was answered with {reply:?}"));
        }
        let mut action = with_version(&part.action, reply.version);
        let mut numbers = reply.numbers.iter();
        if let history::Action::Transaction { steps, .. } = &mut action {
            for step in steps {
                if let StepAction::Add { result, .. } = &mut step.action {
                    *result = numbers.next().copied();
                }
            }
        }
        let clock = changes.then_some((reply.version, reply.version));
        Said::Decided(Told {
            clock,
            ..Told::done(action, None)
        })
    }
}

/// Of one shard it is not told: done in all, surely in none, or something between.
fn said_of_range(part: &Part, version: u64, refused: Option<(ErrorCode, bool)>) -> Said {
    match refused {
        None if version == 0 => Said::Nonsense("a range was deleted without a version".to_owned()),
        None => Said::Decided(Told::done(part.action.clone(), None)),
        Some((code, may_be_done)) => match refusal(code) {
            Said::NotNow(code) if may_be_done => Said::Unknown(code),
            said => said,
        },
    }
}

fn put_entry(key: &KeyWrite) -> PutEntry<'_> {
    let Change::Put(value) = &key.change else {
        unreachable!("a multi-put only puts")
    };
    PutEntry {
        key: &key.key,
        value,
        ttl_ms: key.ttl_ms,
    }
}

/// The action, with the version that its changes have got.
fn with_version(action: &history::Action, version: u64) -> history::Action {
    let mut action = action.clone();
    if let history::Action::Transaction { steps, .. } = &mut action {
        for step in steps
            .iter_mut()
            .filter(|step| !matches!(step.action, StepAction::Check { .. }))
        {
            step.version = Some(Version(version));
        }
    }
    action
}

fn said_of_single(part: &Part, reply: &Reply) -> Said {
    match (&part.action, reply) {
        (history::Action::Add { key, delta, .. }, Reply::Add { version, number }) => {
            let action = history::Action::Add {
                key: key.clone(),
                delta: *delta,
                result: Some(*number),
            };
            Said::Decided(Told::done(action, Some(*version)))
        }
        (
            history::Action::Write { .. } | history::Action::Delete { .. },
            Reply::Write { applied, version },
        ) => Said::Decided(if *applied {
            Told::done(part.action.clone(), Some(*version))
        } else {
            Told::refused(part.action.clone(), Failure::Condition, Some(*version))
        }),
        (action, reply) => Said::Nonsense(format!("{action:?} was answered with {reply:?}")),
    }
}

/// What an error says of a write.
fn refusal(code: ErrorCode) -> Said {
    match code {
        // The refusals of a write that may come after it was begun: see the table of codes in docs/wire.md.
        ErrorCode::CoreFailed => Said::Unknown(code),
        ErrorCode::OutcomeUnknown => Said::Forgotten,
        code => Said::NotNow(code),
    }
}
