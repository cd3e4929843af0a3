//! The history of a run: what each process called and was told, in the order of virtual time.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::checkpoints::ReadCheckpoint;
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
    checkpoints: RefCell<Vec<ReadCheckpoint>>,
}

/// Index of a call in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallIndex(u64);

/// What is called.
#[derive(Clone, Debug, PartialEq)]
pub struct Called {
    /// By whom.
    pub process: Process,
    /// What.
    pub action: Action,
    /// Under which condition.
    pub condition: Condition,
    /// How long what is written stays, on the scale of versions.
    pub lifetime: Option<u64>,
}

/// A definite answer to a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// What was done, with its results; or what was not.
    pub action: Action,
    /// Why it was not done.
    pub failure: Option<Failure>,
    /// The version read, assigned or found.
    pub version: Option<u64>,
    /// When what was read expires.
    pub expires: Option<u64>,
    /// Bounds of the clock by which it was decided.
    pub clock: Option<(u64, u64)>,
    /// The step of a transaction whose condition did not hold.
    pub failed_step: Option<u32>,
}

impl Told {
    /// It was done.
    pub fn done(action: Action, version: Option<u64>) -> Told {
        Told {
            action,
            failure: None,
            version,
            expires: None,
            clock: None,
            failed_step: None,
        }
    }

    /// It was not done, for this reason.
    pub fn refused(action: Action, failure: Failure, version: Option<u64>) -> Told {
        Told {
            failure: Some(failure),
            ..Told::done(action, version)
        }
    }
}

impl Recorder {
    /// An empty history.
    pub fn new(world: &World) -> Recorder {
        Recorder(Rc::new(Inner {
            world: world.clone(),
            events: RefCell::default(),
            processes: Cell::new(0),
            violations: RefCell::default(),
            checkpoints: RefCell::default(),
        }))
    }

    /// A process number that nobody had.
    pub fn process(&self) -> Process {
        let number = self.0.processes.get();
        self.0.processes.set(number + 1);
        Process(number)
    }

    /// A call.
    pub fn invoke(&self, called: &Called) -> CallIndex {
        let mut event = self.event(called.process, EventKind::Invoke, &called.action);
        event.condition = called.condition.clone();
        event.lifetime = called.lifetime;
        let index = CallIndex(self.0.events.borrow().len() as u64);
        self.push(event);
        index
    }

    /// A call of a read or a scan, which has no condition.
    pub fn invoke_read(&self, process: Process, action: &Action) -> CallIndex {
        self.invoke(&Called {
            process,
            action: action.clone(),
            condition: Condition::None,
            lifetime: None,
        })
    }

    /// Its answer.
    pub fn answer(&self, process: Process, told: &Told) {
        let event = self.answer_event(process, told);
        self.push(event);
    }

    /// A further answer to a call: it was sent several times, or nobody waited any more.
    pub fn answer_again(&self, call: CallIndex, told: &Told) {
        let mut event = self.answer_event(Process::AGAIN, told);
        event.again_of = Some(call.0);
        self.push(event);
    }

    /// It was certainly not done.
    pub fn failed(&self, process: Process, action: &Action, reason: String) {
        let mut event = self.event(process, EventKind::Fail, action);
        event.failure = Some(Failure::Other(reason));
        self.push(event);
    }

    /// Nobody knows what became of it. The process ends; the number under which its thread goes on is returned.
    pub fn unknown(&self, process: Process, action: &Action, reason: String) -> Process {
        let mut event = self.event(process, EventKind::Info, action);
        event.failure = Some(Failure::Other(reason));
        self.push(event);
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

    /// What a checkpoint has.
    pub fn checkpoint(&self, read: ReadCheckpoint) {
        self.0.checkpoints.borrow_mut().push(read);
    }

    /// A write that a checkpoint lacks, although its version is not above the checkpoint's, as a sentence.
    pub fn missed_by_a_checkpoint(&self) -> Option<String> {
        let events = self.0.events.borrow();
        let checkpoints = self.0.checkpoints.borrow();
        checkpoints
            .iter()
            .find_map(|checkpoint| checkpoint.missed(&events))
    }

    /// The history so far.
    pub fn history(&self) -> History {
        History::new(self.0.events.borrow().clone())
    }

    fn event(&self, process: Process, kind: EventKind, action: &Action) -> Event {
        Event::new(self.0.world.now_ns(), kind, process, action.clone())
    }

    fn answer_event(&self, process: Process, told: &Told) -> Event {
        let kind = match told.failure {
            None => EventKind::Ok,
            Some(_) => EventKind::Fail,
        };
        let mut event = self.event(process, kind, &told.action);
        event.version = told.version.map(Version);
        event.failure.clone_from(&told.failure);
        event.expires = told.expires;
        event.clock = told.clock;
        event.failed_step = told.failed_step;
        event
    }

    fn push(&self, event: Event) {
        self.0.events.borrow_mut().push(event);
    }
}
