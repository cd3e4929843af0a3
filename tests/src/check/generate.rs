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
    /// Reads, writes that last for a while, conditional writes, checks and deletes of single keys. Answers tell
    /// versions and clocks.
    Expiring,
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
                let lasts = matches!(event.action, Action::Write { .. }) && self.random.below(3) > 0;
                if self.shape.workload == Workload::Expiring && lasts {
                    event.lifetime = Some(1 + self.random.below(6));
                }
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
            Thread::Called(event) => {
                let tells_clock = self.shape.workload == Workload::Expiring;
                let mut answer = self.store.apply(&event, self.shape.versions || tells_clock);
                answer.lifetime = None;
                // As exact as it is told by a real store: a bit of room on both sides.
                let (below, above) = (self.random.below(3), self.random.below(3));
                let clock = self.store.newest;
                answer.clock = tells_clock.then_some((clock.saturating_sub(below), clock + above));
                Thread::Done(answer)
            }
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
                event.expires = None;
                event.clock = None;
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
            Workload::Expiring => self.expiring_action(condition),
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

    fn expiring_action(&mut self, condition: &mut Condition) -> Action {
        let (key, value) = (self.key(), self.value(0));
        let present = self.store.registers.get(&key).cloned();
        let guard = match (self.random.below(5), present) {
            (0, _) => Condition::Absent,
            (1, _) | (_, None) => Condition::Present,
            (2, Some(register)) => Condition::Version(register.version),
            (_, Some(register)) => Condition::Value(register.value),
        };
        match self.random.below(12) {
            0..5 => Action::Read { key, value: None },
            5..8 => Action::Write { key, value },
            8..10 => {
                *condition = guard;
                Action::Write { key, value }
            }
            10 => {
                *condition = guard;
                Action::Check { key }
            }
            _ => Action::Delete { key },
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
                    (_, Some(register)) => Condition::Version(register.version),
                };
                Action::Write { key, value }
            }
            15..17 => Action::CompareAndSet {
                key,
                old: present.map(|register| register.value),
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
    registers: BTreeMap<Datum, Register>,
    lists: BTreeMap<Datum, Vec<Datum>>,
    /// The clock: each operation moves it on.
    newest: u64,
}

#[derive(Clone)]
struct Register {
    value: Datum,
    version: Version,
    expires: Option<u64>,
}

impl Store {
    /// Does what was called, and gives the answer.
    fn apply(&mut self, call: &Event, versions: bool) -> Event {
        self.newest += 1;
        let now = self.newest;
        self.registers
            .retain(|_, register| register.expires.is_none_or(|expires| expires > now));
        let mut answer = call.clone();
        answer.kind = EventKind::Ok;
        let told = |version: Version| versions.then_some(version);
        match &mut answer.action {
            Action::Read { key, value } => {
                let found = self.registers.get(key);
                *value = found.map(|register| register.value.clone());
                answer.version = told(found.map_or(Version::ABSENT, |register| register.version));
                answer.expires = found.and_then(|register| register.expires);
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
            Action::Check { key } => {
                if !self.holds(&answer.condition, key) {
                    answer.version = told(self.version(key));
                    answer.kind = EventKind::Fail;
                    answer.failure = Some(Failure::Condition);
                }
            }
            Action::CompareAndSet { key, old, new } => {
                if self.registers.get(key).map(|register| &register.value) == old.as_ref() {
                    answer.version = told(self.put(&key.clone(), Some(new.clone()), None));
                } else {
                    answer.version = told(self.version(&key.clone()));
                    answer.kind = EventKind::Fail;
                    answer.failure = Some(Failure::Condition);
                }
            }
            Action::Add { key, delta, result } => {
                let base = match self.registers.get(key).map(|register| &register.value) {
                    Some(Datum::Integer(number)) => *number,
                    _ => 0,
                };
                *result = Some(base + *delta);
                answer.version = told(self.put(&key.clone(), Some(Datum::Integer(base + *delta)), None));
            }
            Action::Transaction { steps, .. } => steps.iter_mut().for_each(|step| self.step(step, versions)),
        }
        answer
    }

    fn holds(&self, condition: &Condition, key: &Datum) -> bool {
        let now = self.version(key);
        match condition {
            Condition::None => true,
            Condition::Absent => now == Version::ABSENT,
            Condition::Present => now != Version::ABSENT,
            Condition::Version(version) => now == *version,
            Condition::Value(value) => self.registers.get(key).map(|register| &register.value) == Some(value),
        }
    }

    fn guarded(&mut self, answer: &mut Event, key: &Datum, value: Option<Datum>, versions: bool) {
        let holds = self.holds(&answer.condition, key);
        let version = if holds {
            self.put(key, value, answer.lifetime)
        } else {
            self.version(key)
        };
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
                let version = self.put(&key.clone(), value.clone(), None);
                step.version = versions.then_some(version);
            }
            StepAction::Read { key, value } => {
                if let Some(list) = self.lists.get(key) {
                    *value = Observed::List(list.clone());
                } else if let Some(register) = self.registers.get(key) {
                    *value = Observed::Value(register.value.clone());
                    step.version = versions.then_some(register.version);
                }
            }
            StepAction::Add { .. } | StepAction::Check { .. } => {
                unreachable!("no workload has these in transactions")
            }
        }
    }

    fn version(&self, key: &Datum) -> Version {
        self.registers
            .get(key)
            .map_or(Version::ABSENT, |register| register.version)
    }

    /// Writes at the present clock, or just above where a transaction writes more than once.
    fn put(&mut self, key: &Datum, value: Option<Datum>, lifetime: Option<u64>) -> Version {
        let version = Version(self.newest);
        self.newest += 1;
        match value {
            Some(value) => {
                let register = Register {
                    value,
                    version,
                    expires: lifetime.map(|lifetime| version.0 + lifetime),
                };
                self.registers.insert(key.clone(), register)
            }
            None => self.registers.remove(key),
        };
        version
    }
}
