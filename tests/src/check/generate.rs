//! Histories of a store that is right by construction: operations of many processes overlap in time, and each
//! takes effect at one moment between call and answer. Some outcomes stay unknown, some calls are refused.
//!
//! The same seed gives the same history. The store is a map and one counter for versions; nothing here is meant
//! to be fast or to resemble the database.

use std::collections::BTreeMap;

use super::history::{
    Action, Condition, Datum, Event, EventKind, Failure, History, Observed, Process, Step, StepAction,
    Version,
};

/// What the operations are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Reads, writes, conditional writes, compare-and-set, deletes and additions of single keys.
    Registers,
    /// Transactions that read and append to lists.
    ListAppend,
    /// Transactions that read and write registers.
    ReadWrite,
}

/// The shape of a history.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// What the operations are.
    pub workload: Workload,
    /// Number of operations.
    pub operations: u64,
    /// Operations at the same time, at most.
    pub processes: u64,
    /// Keys in use at the same time.
    pub keys: u64,
    /// After how many operations another set of keys is used; 0 is never.
    pub keys_last: u64,
    /// Whether answers tell versions.
    pub versions: bool,
    /// Outcomes that stay unknown, of 1,000.
    pub unknown_permille: u64,
}

/// A generator of numbers that a seed fixes: `SplitMix64` (Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`, which is above 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// A history of this shape.
pub fn generate(shape: &Shape, seed: u64) -> History {
    let mut run = Run {
        shape: *shape,
        random: Random(seed),
        store: Store::default(),
        events: Vec::new(),
        called: 0,
        next_process: shape.processes,
        late: Vec::new(),
    };
    let mut threads: Vec<Thread> = (0..shape.processes)
        .map(|number| Thread::Idle(Process(number)))
        .collect();
    while run.called < shape.operations || threads.iter().any(|thread| !matches!(thread, Thread::Idle(_))) {
        let chosen = run.random.below(shape.processes) as usize;
        let thread = std::mem::replace(&mut threads[chosen], Thread::Idle(Process(0)));
        threads[chosen] = run.turn(thread);
    }
    History::new(run.events)
}

/// Where a process stands.
enum Thread {
    Idle(Process),
    Called(Event),
    /// It took effect; this is the answer.
    Done(Event),
}

struct Run {
    shape: Shape,
    random: Random,
    store: Store,
    events: Vec<Event>,
    called: u64,
    next_process: u64,
    /// Calls of unknown outcome that may still take effect.
    late: Vec<Event>,
}

impl Run {
    fn turn(&mut self, thread: Thread) -> Thread {
        if !self.late.is_empty() && self.random.below(20) == 0 {
            let chosen = self.random.below(self.late.len() as u64) as usize;
            let event = self.late.swap_remove(chosen);
            self.store.apply(&event, false);
        }
        match thread {
            Thread::Idle(process) if self.called < self.shape.operations => {
                self.called += 1;
                let mut event = Event::new(
                    0,
                    EventKind::Invoke,
                    process,
                    Action::Read {
                        key: 0.into(),
                        value: None,
                    },
                );
                event.action = self.action(&mut event.condition);
                self.record(event.clone());
                Thread::Called(event)
            }
            Thread::Idle(process) => Thread::Idle(process),
            Thread::Called(event) if self.random.below(1_000) < self.shape.unknown_permille => {
                let mut info = event.clone();
                info.kind = EventKind::Info;
                self.record(info);
                if self.random.below(2) == 0 {
                    self.late.push(event);
                }
                Thread::Idle(self.fresh_process())
            }
            Thread::Called(event) => Thread::Done(self.store.apply(&event, self.shape.versions)),
            Thread::Done(mut event) if self.random.below(1_000) < self.shape.unknown_permille => {
                let call = self
                    .events
                    .iter()
                    .rev()
                    .find(|call| call.process == event.process);
                event.action = call.map_or(event.action, |call| call.action.clone());
                event.kind = EventKind::Info;
                event.version = None;
                event.failure = None;
                self.record(event);
                Thread::Idle(self.fresh_process())
            }
            Thread::Done(event) => {
                let process = event.process;
                self.record(event);
                Thread::Idle(process)
            }
        }
    }

    fn fresh_process(&mut self) -> Process {
        self.next_process += 1;
        Process(self.next_process - 1)
    }

    fn record(&mut self, mut event: Event) {
        event.time_ns = self.events.len() as u64 * 1_000;
        self.events.push(event);
    }

    fn key(&mut self) -> Datum {
        let generation = self.called.checked_div(self.shape.keys_last).unwrap_or(0);
        let number = generation * self.shape.keys + self.random.below(self.shape.keys);
        Datum::Integer(number as i64)
    }

    /// A value that no other operation writes.
    fn value(&self, step: u64) -> Datum {
        Datum::Integer((self.called * 10 + step) as i64)
    }

    fn action(&mut self, condition: &mut Condition) -> Action {
        match self.shape.workload {
            Workload::Registers => self.register_action(condition),
            Workload::ListAppend | Workload::ReadWrite => {
                let count = 1 + self.random.below(4);
                let steps = (0..count).map(|number| Step::new(self.step(number))).collect();
                Action::Transaction { steps, scan: None }
            }
        }
    }

    fn step(&mut self, number: u64) -> StepAction {
        let key = self.key();
        let value = self.value(number);
        match (self.random.below(2), self.shape.workload) {
            (0, _) => StepAction::Read {
                key,
                value: Observed::Nothing,
            },
            (_, Workload::ListAppend) => StepAction::Append { key, element: value },
            (_, _) => StepAction::Write {
                key,
                value: Some(value),
            },
        }
    }

    fn register_action(&mut self, condition: &mut Condition) -> Action {
        let (key, value) = (self.key(), self.value(0));
        let present = self.store.registers.get(&key).cloned();
        match self.random.below(20) {
            0..8 => Action::Read { key, value: None },
            8..12 => Action::Write { key, value },
            12..15 => {
                *condition = match (self.random.below(3), present) {
                    (0, _) => Condition::Absent,
                    (1, _) | (_, None) => Condition::Present,
                    (_, Some((_, version))) => Condition::Version(version),
                };
                Action::Write { key, value }
            }
            15..17 => Action::CompareAndSet {
                key,
                old: present.map(|(value, _)| value),
                new: value,
            },
            17 => Action::Add {
                key,
                delta: 1,
                result: None,
            },
            _ => Action::Delete { key },
        }
    }
}

/// What is stored now.
#[derive(Default)]
struct Store {
    registers: BTreeMap<Datum, (Datum, Version)>,
    lists: BTreeMap<Datum, Vec<Datum>>,
    newest: u64,
}

impl Store {
    /// Does what was called, and gives the answer.
    fn apply(&mut self, call: &Event, versions: bool) -> Event {
        let mut answer = call.clone();
        answer.kind = EventKind::Ok;
        let told = |version: Version| versions.then_some(version);
        match &mut answer.action {
            Action::Read { key, value } => {
                let found = self.registers.get(key);
                *value = found.map(|(value, _)| value.clone());
                answer.version = told(found.map_or(Version::ABSENT, |(_, version)| *version));
            }
            Action::Write { key, value } => {
                let value = value.clone();
                let key = key.clone();
                self.guarded(&mut answer, &key, Some(value), versions);
            }
            Action::Delete { key } => {
                let key = key.clone();
                self.guarded(&mut answer, &key, None, versions);
            }
            Action::CompareAndSet { key, old, new } => {
                if self.registers.get(key).map(|(value, _)| value) == old.as_ref() {
                    answer.version = told(self.put(&key.clone(), Some(new.clone())));
                } else {
                    answer.version = told(self.version(&key.clone()));
                    answer.kind = EventKind::Fail;
                    answer.failure = Some(Failure::Condition);
                }
            }
            Action::Add { key, delta, result } => {
                let base = match self.registers.get(key) {
                    Some((Datum::Integer(number), _)) => *number,
                    _ => 0,
                };
                *result = Some(base + *delta);
                answer.version = told(self.put(&key.clone(), Some(Datum::Integer(base + *delta))));
            }
            Action::Transaction { steps, .. } => steps.iter_mut().for_each(|step| self.step(step, versions)),
        }
        answer
    }

    fn guarded(&mut self, answer: &mut Event, key: &Datum, value: Option<Datum>, versions: bool) {
        let now = self.version(key);
        let holds = match answer.condition {
            Condition::None => true,
            Condition::Absent => now == Version::ABSENT,
            Condition::Present => now != Version::ABSENT,
            Condition::Version(version) => now == version,
        };
        let version = if holds { self.put(key, value) } else { now };
        answer.version = versions.then_some(version);
        if !holds {
            answer.kind = EventKind::Fail;
            answer.failure = Some(Failure::Condition);
        }
    }

    fn step(&mut self, step: &mut Step, versions: bool) {
        match &mut step.action {
            StepAction::Append { key, element } => {
                self.lists.entry(key.clone()).or_default().push(element.clone());
            }
            StepAction::Write { key, value } => {
                let version = self.put(&key.clone(), value.clone());
                step.version = versions.then_some(version);
            }
            StepAction::Read { key, value } => {
                if let Some(list) = self.lists.get(key) {
                    *value = Observed::List(list.clone());
                } else if let Some((found, version)) = self.registers.get(key) {
                    *value = Observed::Value(found.clone());
                    step.version = versions.then_some(*version);
                }
            }
        }
    }

    fn version(&self, key: &Datum) -> Version {
        self.registers
            .get(key)
            .map_or(Version::ABSENT, |(_, version)| *version)
    }

    fn put(&mut self, key: &Datum, value: Option<Datum>) -> Version {
        self.newest += 1;
        let version = Version(self.newest);
        match value {
            Some(value) => self.registers.insert(key.clone(), (value, version)),
            None => self.registers.remove(key),
        };
        version
    }
}
