//! The history of a run: what each process called and was told, in the order of virtual time.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::check::history::{Action, Condition, Event, EventKind, Failure, History, Process, Version};
use crate::sim::World;

/// Collects events; clones are one.
#[derive(Clone)]
pub struct Recorder(Rc<Inner>);

struct Inner {
    world: World,
    events: RefCell<Vec<Event>>,
    processes: Cell<u64>,
    violations: RefCell<Vec<String>>,
}

impl Recorder {
    /// An empty history.
    pub fn new(world: &World) -> Recorder {
        Recorder(Rc::new(Inner {
            world: world.clone(),
            events: RefCell::default(),
            processes: Cell::new(0),
            violations: RefCell::default(),
        }))
    }

    /// A process number that nobody had.
    pub fn process(&self) -> Process {
        let number = self.0.processes.get();
        self.0.processes.set(number + 1);
        Process(number)
    }

    /// A call.
    pub fn invoke(&self, process: Process, action: &Action, condition: Condition) {
        self.push(process, EventKind::Invoke, action, condition, None, None);
    }

    /// It was done, with this version where there is one.
    pub fn ok(&self, process: Process, action: &Action, version: Option<u64>) {
        self.push(process, EventKind::Ok, action, Condition::None, version, None);
    }

    /// Its condition did not hold; the version found.
    pub fn refused(&self, process: Process, action: &Action, version: u64) {
        let failure = Some(Failure::Condition);
        self.push(
            process,
            EventKind::Fail,
            action,
            Condition::None,
            Some(version),
            failure,
        );
    }

    /// It was certainly not done.
    pub fn failed(&self, process: Process, action: &Action, reason: String) {
        let failure = Some(Failure::Other(reason));
        self.push(process, EventKind::Fail, action, Condition::None, None, failure);
    }

    /// Nobody knows what became of it. The process ends; the number under which its thread goes on is returned.
    pub fn unknown(&self, process: Process, action: &Action, reason: String) -> Process {
        let failure = Some(Failure::Other(reason));
        self.push(process, EventKind::Info, action, Condition::None, None, failure);
        self.process()
    }

    /// Something that no history is needed for to see that it is wrong.
    pub fn violation(&self, sentence: String) {
        self.0.violations.borrow_mut().push(sentence);
    }

    /// What was wrong so far.
    pub fn violations(&self) -> Vec<String> {
        self.0.violations.borrow().clone()
    }

    /// The history so far.
    pub fn history(&self) -> History {
        History::new(self.0.events.borrow().clone())
    }

    fn push(
        &self,
        process: Process,
        kind: EventKind,
        action: &Action,
        condition: Condition,
        version: Option<u64>,
        failure: Option<Failure>,
    ) {
        let mut event = Event::new(self.0.world.now_ns(), kind, process, action.clone());
        event.condition = condition;
        event.version = version.map(Version);
        event.failure = failure;
        self.0.events.borrow_mut().push(event);
    }
}
