//! Processes that read, write and scan, and record what they were told.
//!
//! Each process has one operation at a time. Several share the connections of a [`Client`], so that their requests are
//! pipelined and meet each other in flight. After an unknown outcome the thread goes on under a new process number.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ostrakon_wire::message::{Keys, Request, ScanRequest};

use super::client::{CallError, Reply, Value};
use super::connections::{Asking, Client};
use super::plan::{Operation, OperationKind, Sending};
use super::record::{Recorder, Told};
use super::scans::Wish;
use super::sending::Delivery;
use super::session::Sequence;
use super::shared::SESSION_WINDOW;
use super::values;
use super::writes::{Change, Form, KeyWrite, Wanted, Write};
use crate::check::history::{Action, Datum, Failure, Process, StepAction};

/// Keys of an operation on several, at most.
const SEVERAL_MAX: u64 = 6;

/// The action of a read of these places, with what was found.
type ReadOf<'a> = &'a dyn Fn(&[usize], &[Option<Value>]) -> Action;

/// One thread of control.
pub struct Thread {
    client: Rc<Client>,
    process: Process,
    /// What it has heard last of each key.
    known: BTreeMap<u32, Known>,
}

/// What a thread knows of a key.
#[derive(Clone, Debug, Default)]
struct Known {
    /// 0 is absent.
    version: u64,
    /// 0 is never, or not known.
    expires: u64,
    value: Option<Vec<u8>>,
}

impl Thread {
    /// A thread that uses this client.
    pub fn new(client: &Rc<Client>) -> Thread {
        Thread {
            client: Rc::clone(client),
            process: client.shared.recorder.process(),
            known: BTreeMap::new(),
        }
    }

    /// Carries out the operations, one after the other.
    pub async fn run(mut self, operations: Vec<Operation>) {
        for operation in operations {
            if operation.pause_ns > 0 {
                self.client.sleep(Duration::from_nanos(operation.pause_ns)).await;
            }
            self.perform(&operation).await;
        }
        let finished = &self.client.shared.finished;
        finished.set(finished.get() + 1);
    }

    /// Carries out one operation, whatever it comes to.
    pub async fn perform(&mut self, operation: &Operation) {
        // Not before there are connections: the call would be open for as long as the node is down.
        self.client.reach().await;
        let asking = Asking {
            with_timings: operation.with_timings,
            cancels: operation.cancels,
            sequence: None,
        };
        let keys = &self.client.shared.keys;
        let is_odd = operation.number % 2 == 1;
        match operation.kind {
            OperationKind::Get => self.get(operation.key, asking).await,
            OperationKind::MultiGet => self.multi_get(operation, asking).await,
            OperationKind::Scan { keys: count } => {
                let wish = Wish::of_range(keys, operation.key, count, false);
                self.scan(wish, asking).await;
            }
            OperationKind::ScanBack { keys: count } => {
                let wish = Wish::of_range(keys, operation.key, count, true);
                self.scan(wish, asking).await;
            }
            OperationKind::ScanPrefix { bytes } => {
                let wish = Wish::of_prefix(&values::key(operation.key), bytes, is_odd);
                self.scan(wish, asking).await;
            }
            OperationKind::Status => self.look(asking).await,
            OperationKind::Checkpoint => self.checkpoint(operation.number, asking).await,
            _ => self.write(operation).await,
        }
    }

    /// The client that it uses.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Under which number it calls now.
    pub(super) fn process(&self) -> Process {
        self.process
    }

    /// Where it records what it does.
    pub(super) fn recorder(&self) -> &Recorder {
        &self.client.shared.recorder
    }

    fn answered(&self) {
        let answered = &self.client.shared.answered;
        answered.set(answered.get() + 1);
    }

    /// Records what a transaction read, as of a snapshot.
    pub(super) fn read_at(&self, read: &Action, snapshot: u64) {
        let told = Told {
            clock: Some((snapshot, snapshot)),
            ..Told::done(read.clone(), None)
        };
        self.recorder().answer(self.process, &told);
        self.answered();
    }

    /// Status, statistics, a sign of life, and the first keys without their values: nothing that the history tells of.
    async fn look(&mut self, asking: Asking<'_>) {
        let asking = Asking {
            cancels: false,
            ..asking
        };
        let keys = ScanRequest {
            limit: 3,
            keys_only: true,
            ..ScanRequest::ALL
        };
        let requests = [
            Request::Status,
            Request::Stats,
            Request::Ping,
            Request::Scan(keys),
        ];
        let mut answers = 0;
        for request in &requests {
            let Ok(heard) = self.client.call(request, asking).await else {
                continue;
            };
            answers += usize::from(!matches!(heard.reply, Reply::Refused { .. }));
            let complaint = match &heard.reply {
                Reply::Scan(page) => {
                    page.entries.len() > 3 || page.entries.iter().any(|(_, value)| !value.bytes.is_empty())
                }
                Reply::Json(json) => !matches!(serde_json::from_str(json), Ok(serde_json::Value::Object(_))),
                _ => false,
            };
            if complaint {
                let sentence = format!("{request:?} was answered with {:?}", heard.reply);
                self.recorder().violation(sentence);
            }
        }
        if answers == requests.len() {
            self.answered();
        }
    }

    async fn get(&mut self, number: u32, asking: Asking<'_>) {
        let key = values::key(number);
        let called = Action::Read {
            key: Datum::from(key.as_slice()),
            value: None,
        };
        self.recorder().invoke_read(self.process, &called);
        let heard = match self.client.call(&Request::Get { key: &key }, asking).await {
            Ok(heard) => heard,
            Err(error) => {
                return self
                    .recorder()
                    .failed(self.process, &called, describe(&Err(error)));
            }
        };
        let found = match heard.reply {
            Reply::Get(found) => found,
            other => {
                return self
                    .recorder()
                    .failed(self.process, &called, describe(&Ok(other)));
            }
        };
        let value = found.as_ref().and_then(|value| self.datum(&key, &value.bytes));
        let read = Action::Read {
            key: Datum::from(key.as_slice()),
            value,
        };
        let version = found.as_ref().map_or(0, |value| value.version);
        let told = Told {
            expires: found.as_ref().map(|value| value.expires),
            clock: Some(heard.clock),
            ..Told::done(read, Some(version))
        };
        self.recorder().answer(self.process, &told);
        self.answered();
        self.learn(number, found, heard.clock.1);
    }

    /// Reads several keys: one operation of the history for each shard.
    async fn multi_get(&mut self, operation: &Operation, asking: Asking<'_>) {
        let numbers = self.several(operation, false);
        let shards = self.client.shared.shards;
        let keys: Vec<Vec<u8>> = numbers.iter().map(|number| values::key(*number)).collect();
        let shard = |place: &usize| values::shard(&keys[*place], shards);
        let mut places: Vec<usize> = (0..keys.len()).collect();
        places.sort_by_key(shard);
        let groups: Vec<(Process, &[usize])> = places
            .chunk_by(|one, other| shard(one) == shard(other))
            .enumerate()
            .map(|(number, group)| {
                let is_first = number == 0;
                (
                    if is_first {
                        self.process
                    } else {
                        self.recorder().process()
                    },
                    group,
                )
            })
            .collect();
        let read = |group: &[usize], values: &[Option<Value>]| Action::Transaction {
            steps: group
                .iter()
                .map(|place| self.seen(&keys[*place], values.get(*place).and_then(Option::as_ref)))
                .collect(),
            scan: None,
        };
        for (process, group) in &groups {
            self.recorder().invoke_read(*process, &read(group, &[]));
        }
        let slices: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let request = Request::MultiGet {
            keys: Keys::from(slices.as_slice()),
        };
        let heard = self.client.call(&request, asking).await;
        let (found, clock) = match heard {
            Ok(heard) => match heard.reply {
                Reply::MultiGet(found) if found.len() == keys.len() => (found, heard.clock),
                other => return self.failed_groups(&groups, &read, &describe(&Ok(other))),
            },
            Err(error) => return self.failed_groups(&groups, &read, &describe(&Err(error))),
        };
        let all: Vec<Option<Value>> = found.iter().map(|value| value.clone().flatten()).collect();
        for (process, group) in &groups {
            // What there was no room for is another question.
            if group.iter().any(|place| found[*place].is_none()) {
                let reason = "omitted".to_owned();
                self.recorder().failed(*process, &read(group, &[]), reason);
                continue;
            }
            let told = Told {
                clock: Some(clock),
                ..Told::done(read(group, &all), None)
            };
            self.recorder().answer(*process, &told);
        }
        self.answered();
        let known = numbers.iter().zip(found);
        let known: Vec<_> = known
            .filter_map(|(number, value)| Some((*number, value?)))
            .collect();
        for (number, value) in known {
            self.learn(number, value, clock.1);
        }
    }

    fn failed_groups(&self, groups: &[(Process, &[usize])], read: ReadOf<'_>, reason: &str) {
        for (process, group) in groups {
            self.recorder()
                .failed(*process, &read(group, &[]), reason.to_owned());
        }
    }

    async fn write(&mut self, operation: &Operation) {
        let write = self.planned(operation);
        let sequence = self.sequence(operation);
        let flags = (operation.with_timings, operation.cancels && sequence.is_none());
        let told = Delivery::carry_out(
            &self.client,
            write.clone(),
            &operation.sending,
            flags,
            sequence,
            &mut self.process,
        );
        let told = told.await;
        if told.iter().all(Option::is_some) {
            self.answered();
        }
        let parts = write.parts(self.client.shared.shards);
        for (part, told) in parts.iter().zip(told) {
            if let Some(told) = told {
                self.learn_written(&write, &part.places, &told);
            }
        }
    }

    /// The sequence of a write that is sent until it is answered.
    fn sequence(&self, operation: &Operation) -> Option<Sequence> {
        let now = self.client.server_now();
        if operation.kind == OperationKind::PutAtWindow {
            let session = self.client.sessions.fresh();
            let answered_below = operation.number;
            session.skip_to(answered_below);
            // Half of them just fit.
            let _open = session.begin_at(answered_below, now);
            let beyond = operation.number % 2;
            return Some(session.begin_at(answered_below + SESSION_WINDOW - 1 + beyond, now));
        }
        match operation.sending {
            Sending::Once => None,
            // Within a process nothing is lost on the way.
            Sending::Session { .. } if self.client.is_program() => None,
            Sending::Session { .. } => Some(self.client.sessions.current().begin(now)),
        }
    }

    /// The write that an operation means, given what the thread knows.
    fn planned(&self, operation: &Operation) -> Write {
        let single = |change, wanted| Write {
            form: Form::Single,
            keys: vec![Self::key_write(operation, operation.key, change, wanted)],
            range: (Vec::new(), None),
        };
        let known = self.known.get(&operation.key).cloned().unwrap_or_default();
        let version = match known.version {
            0 => Wanted::Absent,
            version => Wanted::Version(version),
        };
        let value = known.value.map_or(Wanted::Absent, Wanted::Value);
        let put = || Change::Put(values::value(operation.number, operation.value_bytes as usize));
        match operation.kind {
            OperationKind::PutIfAbsent => single(put(), Wanted::Absent),
            OperationKind::PutIfPresent => single(put(), Wanted::Present),
            OperationKind::PutIfVersion => single(put(), version),
            OperationKind::PutIfValue => single(put(), value),
            OperationKind::Delete => single(Change::Delete, Wanted::Nothing),
            OperationKind::DeleteIfVersion => single(Change::Delete, version),
            OperationKind::DeleteIfValue => single(Change::Delete, value),
            OperationKind::PutNumber => single(number_of(operation.number), Wanted::Nothing),
            OperationKind::Add => single(delta_of(operation.number), Wanted::Nothing),
            OperationKind::MultiPut => self.multi_put(operation),
            OperationKind::Batch => self.batch(operation),
            OperationKind::DeleteRange { keys: count } => self.delete_range(operation, count),
            _ => single(put(), Wanted::Nothing),
        }
    }

    fn key_write(operation: &Operation, number: u32, change: Change, wanted: Wanted) -> KeyWrite {
        let lasts = matches!(change, Change::Put(_) | Change::Add(_));
        KeyWrite {
            number,
            key: values::key(number),
            change,
            ttl_ms: if lasts { u64::from(operation.ttl_ms) } else { 0 },
            wanted,
        }
    }

    fn multi_put(&self, operation: &Operation) -> Write {
        let numbers = self.several(operation, false);
        let put = |(place, number): (usize, u32)| {
            let value = values::value(part_number(operation, place), operation.value_bytes as usize);
            let write = Self::key_write(operation, number, Change::Put(value), Wanted::Nothing);
            KeyWrite {
                // Some stay, others don't.
                ttl_ms: if place % 2 == 0 { write.ttl_ms } else { 0 },
                ..write
            }
        };
        Write {
            form: Form::MultiPut,
            keys: numbers.into_iter().enumerate().map(put).collect(),
            range: (Vec::new(), None),
        }
    }

    /// So many of the run's keys in order from this one on; to the end of all keys if they are the last.
    fn delete_range(&self, operation: &Operation, count: u32) -> Write {
        let keys = &self.client.shared.keys;
        let from = operation.key as usize % keys.len();
        let (start, end) = (&keys[from], keys.get(from + count as usize));
        let numbers = (0..keys.len() as u32).filter(|number| {
            let key = values::key(*number);
            key >= *start && end.is_none_or(|end| key < *end)
        });
        let delete = |number| Self::key_write(operation, number, Change::Delete, Wanted::Nothing);
        Write {
            form: Form::DeleteRange,
            keys: numbers.map(delete).collect(),
            range: (start.clone(), end.cloned()),
        }
    }

    /// A bit of everything, on keys of one shard.
    fn batch(&self, operation: &Operation) -> Write {
        let numbers = self.several(operation, true);
        let one = |(place, number): (usize, u32)| {
            let draw = part_number(operation, place).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            let known = self.known.get(&number).cloned().unwrap_or_default();
            // Most conditions hold, so that most batches are applied.
            let wanted = match (draw >> 8) % 8 {
                0 if known.version > 0 => Wanted::Version(known.version),
                1 => known.value.map_or(Wanted::Absent, Wanted::Value),
                2 if known.version > 0 => Wanted::Present,
                2 | 3 if known.version == 0 => Wanted::Absent,
                _ => Wanted::Nothing,
            };
            let change = match draw % 8 {
                0..3 => {
                    let bytes = operation.value_bytes as usize % 2_000 + 8;
                    Change::Put(values::value(part_number(operation, place), bytes))
                }
                3 => Change::Delete,
                4 => number_of(part_number(operation, place)),
                5 if wanted != Wanted::Nothing => Change::Check,
                _ => delta_of(part_number(operation, place)),
            };
            Self::key_write(operation, number, change, wanted)
        };
        Write {
            form: Form::Batch,
            keys: numbers.into_iter().enumerate().map(one).collect(),
            range: (Vec::new(), None),
        }
    }

    /// The key of an operation and some others, each once; of one shard if need be.
    fn several(&self, operation: &Operation, in_one_shard: bool) -> Vec<u32> {
        let shared = &self.client.shared;
        let shard_of = |number: u32| values::shard(&values::key(number), shared.shards);
        let keys = shared.keys.len() as u32;
        let wanted = 2 + operation.number % (SEVERAL_MAX - 1);
        let step = 1 + (operation.number / 7 % 11) as u32;
        let others = (1..=keys).map(|turn| (operation.key + turn * step) % keys);
        let mut numbers = vec![operation.key];
        let mut taken: BTreeSet<u32> = numbers.iter().copied().collect();
        for number in others {
            if numbers.len() as u64 >= wanted {
                break;
            }
            let fits = !in_one_shard || shard_of(number) == shard_of(operation.key);
            if fits && taken.insert(number) {
                numbers.push(number);
            }
        }
        numbers
    }

    /// Takes over what a read has found.
    fn learn(&mut self, number: u32, found: Option<Value>, clock: u64) {
        let before = self.known.get(&number).cloned().unwrap_or_default();
        let is_told = clock < u64::MAX;
        let has_expired = is_told && found.is_none() && (1..=clock).contains(&before.expires);
        let expired = &self.client.shared.counts.expired;
        expired.set(expired.get() + u64::from(has_expired));
        let known = found.map_or_else(Known::default, |value| Known {
            version: value.version,
            expires: value.expires,
            value: Some(value.bytes),
        });
        self.known.insert(number, known);
    }

    /// Takes over what a write was told.
    fn learn_written(&mut self, write: &Write, places: &[usize], told: &Told) {
        let versions: Vec<Option<u64>> = match &told.action {
            Action::Transaction { steps, .. } => steps
                .iter()
                .map(|step| step.version.map(|version| version.0))
                .collect(),
            _ => vec![told.version],
        };
        let sums: Vec<Option<i64>> = match &told.action {
            Action::Transaction { steps, .. } => steps
                .iter()
                .map(|step| match step.action {
                    StepAction::Add { result, .. } => result,
                    _ => None,
                })
                .collect(),
            Action::Add { result, .. } => vec![*result],
            _ => vec![None],
        };
        for (turn, place) in places.iter().enumerate() {
            let key = &write.keys[*place];
            let is_failed = told.failed_step.is_none_or(|failed| failed as usize == turn);
            let known = match (&told.failure, &key.change) {
                (Some(Failure::Condition), _) if is_failed => Known {
                    version: told.version.unwrap_or(0),
                    ..Known::default()
                },
                (Some(_), _) | (None, Change::Check) => continue,
                (None, Change::Delete) => Known::default(),
                (None, change) => Known {
                    version: versions[turn].unwrap_or(0),
                    expires: versions[turn]
                        .filter(|_| key.ttl_ms > 0)
                        .map_or(0, |version| version + key.lifetime()),
                    value: match change {
                        Change::Put(value) => Some(value.clone()),
                        _ => sums[turn].map(|sum| sum.to_string().into_bytes()),
                    },
                },
            };
            self.known.insert(key.number, known);
        }
    }

    /// What a value is in the history; none if nobody can have written it.
    pub(super) fn datum(&self, key: &[u8], value: &[u8]) -> Option<Datum> {
        match values::datum(value) {
            Ok(datum) => Some(datum),
            Err(damage) => {
                let key = String::from_utf8_lossy(key);
                self.recorder().violation(format!("key {key:?}: {damage}"));
                None
            }
        }
    }
}

/// A number that stands for one part of an operation, and for no other.
fn part_number(operation: &Operation, place: usize) -> u64 {
    operation.number + (1 + place as u64) * PARTS_APART
}

/// More than the operations of any run.
const PARTS_APART: u64 = 1 << 32;

/// A number to write: mostly a small one, at times one that is hard to add to.
fn number_of(number: u64) -> Change {
    let decimal = match number % 9 {
        0 => i64::MAX - 2,
        1 => i64::MIN + 2,
        _ => (number % 1_000) as i64,
    };
    Change::Put(decimal.to_string().into_bytes())
}

/// A number to add.
fn delta_of(number: u64) -> Change {
    Change::Add((number % 9) as i64 - 3)
}

/// Why there is no answer, in words.
pub(super) fn describe(reply: &Result<Reply, CallError>) -> String {
    match reply {
        Ok(Reply::Refused { code, .. }) => format!("{code:?}"),
        Ok(reply) => format!("an answer to something else: {reply:?}"),
        Err(CallError::NotSent(reason) | CallError::Lost(reason)) => reason.clone(),
    }
}
