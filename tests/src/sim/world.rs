//! The world: virtual time, the event loop, and what a harness asks of a run.
//!
//! [`World::step`] handles one event: it sets the time to the event's and runs it. Time stands still while an
//! event runs. A world without a ready task and without an event is idle, which a harness sees as
//! [`RunEnd::Idle`].
//!
//! Tasks own clones of their world, so a world that is dropped with tasks in it would live on in them:
//! [`World::end`] drops them.

use core::cell::{Cell, RefCell};
use std::any::Any;
use std::collections::BTreeSet;
use std::io::Write;
use std::rc::Rc;

use super::counters::{Counters, FaultKind};
use super::disk::DiskConfig;
use super::events::{Action, EventQueue};
use super::executor::Executor;
use super::faults::Place;
use super::host::{Host, HostId, Hosts, ProcessId};
use super::network::{NetworkConfig, NetworkState};
use super::random::SimRandom;
use super::trace::{Trace, TraceEvent, TraceKind};
use super::wake::{Inbox, TaskId};

/// How tasks are scheduled. All times are virtual nanoseconds.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    /// Shortest poll.
    pub poll_ns_min: u64,
    /// Longest usual poll.
    pub poll_ns_max: u64,
    /// One poll in so many takes longer; 0 for none.
    pub long_poll_one_in: u64,
    /// By how much at most.
    pub long_poll_ns_max: u64,
    /// Longest time from a wake to the poll on an idle core.
    pub wake_ns_max: u64,
    /// One turn in so many wakes a task that nobody woke; 0 for none.
    pub spurious_one_in: u64,
    /// One `should_yield` in so many is true.
    pub yield_one_in: u64,
    /// One turn in so many prefers background tasks over ready foreground tasks.
    pub background_one_in: u64,
    /// How late a timer may be.
    pub timer_slack_ns_max: u64,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        SchedulerConfig {
            poll_ns_min: 200,
            poll_ns_max: 4_000,
            long_poll_one_in: 1_000,
            long_poll_ns_max: 2_000_000,
            wake_ns_max: 3_000,
            spurious_one_in: 128,
            yield_one_in: 8,
            background_one_in: 6,
            timer_slack_ns_max: 60_000,
        }
    }
}

/// The mesh between the cores of a process. Times are virtual nanoseconds.
#[derive(Clone, Debug)]
pub struct MeshConfig {
    /// Fewest batches that a lane may hold; each process draws its number.
    pub lane_batches_min: u64,
    /// Most batches that a lane may hold.
    pub lane_batches_max: u64,
    /// Batches that wait at the receiver.
    pub inbox_batches: usize,
    /// Usual delay of a batch.
    pub delay_ns: u64,
    /// One batch in so many takes longer; 0 for none.
    pub spike_one_in: u64,
    /// By how much at most.
    pub spike_ns_max: u64,
}

impl Default for MeshConfig {
    fn default() -> Self {
        MeshConfig {
            lane_batches_min: 2,
            lane_batches_max: 256,
            inbox_batches: 256,
            delay_ns: 2_000,
            spike_one_in: 200,
            spike_ns_max: 1_000_000,
        }
    }
}

/// Everything about a world that is not drawn from its seed.
#[derive(Clone, Debug, Default)]
pub struct WorldConfig {
    /// Tasks and cores.
    pub scheduler: SchedulerConfig,
    /// Messages between cores.
    pub mesh: MeshConfig,
    /// Disks.
    pub disk: DiskConfig,
    /// Connections.
    pub network: NetworkConfig,
}

/// A panic of a task: a bug in the code under test, or a check of the harness that failed.
#[derive(Clone, Debug)]
pub struct PanicRecord {
    /// Virtual time in nanoseconds.
    pub at_ns: u64,
    /// Where.
    pub host: HostId,
    /// Which process; it ended with the panic.
    pub process: ProcessId,
    /// What the panic said.
    pub message: String,
}

/// Why [`World::run_until`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// The condition holds.
    Met,
    /// The deadline was reached.
    Deadline,
    /// Nothing will ever happen again.
    Idle,
    /// A task panicked during this call.
    Panicked,
}

pub(super) struct Inner {
    pub(super) seed: u64,
    pub(super) config: WorldConfig,
    now_ns: Cell<u64>,
    events_processed: Cell<u64>,
    pub(super) events: RefCell<EventQueue>,
    pub(super) executor: RefCell<Executor>,
    pub(super) woken: Inbox<TaskId>,
    pub(super) woken_scratch: Cell<Vec<TaskId>>,
    pub(super) hosts: RefCell<Hosts>,
    pub(super) network: RefCell<NetworkState>,
    trace: RefCell<Trace>,
    counters: RefCell<Counters>,
    pub(super) panics: RefCell<Vec<PanicRecord>>,
    pub(super) crash_wanted: RefCell<Vec<HostId>>,
    /// Operations at which a fault has had its effect.
    pub(super) struck: RefCell<BTreeSet<Place>>,
    /// The core whose task is polled, by its place in the executor.
    pub(super) running_core: Cell<Option<usize>>,
    /// Faults that were scheduled before the last heal belong to an older number and do nothing.
    pub(super) fault_generation: Cell<u64>,
}

/// A simulated world. Clones are one.
#[derive(Clone)]
pub struct World(pub(super) Rc<Inner>);

impl World {
    /// An empty world at virtual time zero.
    pub fn new(seed: u64) -> World {
        World::with_config(seed, WorldConfig::default())
    }

    /// The same with other parameters.
    pub fn with_config(seed: u64, config: WorldConfig) -> World {
        let executor = Executor::new(seed);
        let woken = executor.woken.clone();
        World(Rc::new(Inner {
            seed,
            config,
            now_ns: Cell::new(0),
            events_processed: Cell::new(0),
            events: RefCell::default(),
            executor: RefCell::new(executor),
            woken,
            woken_scratch: Cell::default(),
            hosts: RefCell::default(),
            network: RefCell::new(NetworkState::new(seed)),
            trace: RefCell::default(),
            counters: RefCell::default(),
            panics: RefCell::default(),
            crash_wanted: RefCell::default(),
            struck: RefCell::default(),
            running_core: Cell::new(None),
            fault_generation: Cell::new(0),
        }))
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// The parameters.
    pub fn config(&self) -> &WorldConfig {
        &self.0.config
    }

    /// An independent stream of random numbers for the harness.
    pub fn random(&self, name: &str) -> SimRandom {
        SimRandom::stream(self.0.seed, "harness", &[]).derived(name)
    }

    /// Virtual time in nanoseconds since the world began.
    pub fn now_ns(&self) -> u64 {
        self.0.now_ns.get()
    }

    /// Events handled.
    pub fn events_processed(&self) -> u64 {
        self.0.events_processed.get()
    }

    /// Tasks that exist.
    pub fn tasks(&self) -> usize {
        self.0.executor.borrow().tasks()
    }

    /// Handles the next event; false when there is none.
    pub fn step(&self) -> bool {
        self.absorb();
        let Some((time_ns, action)) = self.0.events.borrow_mut().pop() else {
            return false;
        };
        debug_assert!(time_ns >= self.now_ns(), "time doesn't go back");
        self.0.now_ns.set(time_ns);
        self.0.events_processed.set(self.0.events_processed.get() + 1);
        match action {
            Action::RunCore(core, epoch) => self.run_core(core, epoch),
            Action::Wake(waker) => waker.wake(),
            Action::Call(call) => call(self),
        }
        true
    }

    /// Steps until the condition holds, the deadline is reached, a task panics, or nothing is left to do. The
    /// condition is asked before every step. At the deadline, virtual time is the deadline.
    pub fn run_until(&self, deadline_ns: u64, mut condition: impl FnMut(&World) -> bool) -> RunEnd {
        let panics = self.0.panics.borrow().len();
        loop {
            if condition(self) {
                return RunEnd::Met;
            }
            if self.0.panics.borrow().len() > panics {
                return RunEnd::Panicked;
            }
            self.absorb();
            let next_ns = self.0.events.borrow().next_time_ns();
            match next_ns {
                None => return RunEnd::Idle,
                Some(next_ns) if next_ns > deadline_ns => {
                    self.0.now_ns.set(deadline_ns.max(self.now_ns()));
                    return RunEnd::Deadline;
                }
                Some(_) => self.step(),
            };
        }
    }

    /// Lets this much virtual time pass.
    pub fn run_for(&self, duration_ns: u64) -> RunEnd {
        self.run_until(self.now_ns() + duration_ns, |_| false)
    }

    /// Calls the harness back at a virtual time (now, if that has passed). The call must not own a clone of
    /// this world.
    pub fn at(&self, time_ns: u64, call: impl FnOnce(&World) + 'static) {
        let time_ns = time_ns.max(self.now_ns());
        self.0
            .events
            .borrow_mut()
            .push(time_ns, Action::Call(Box::new(call)));
    }

    /// Order-sensitive hash of all that happened so far.
    pub fn trace_hash(&self) -> u64 {
        self.0.trace.borrow().hash()
    }

    /// The last events of a host, oldest first.
    pub fn last_events(&self, host: HostId) -> Vec<TraceEvent> {
        self.0.trace.borrow().last(host)
    }

    /// Writes every event as a line from now on.
    pub fn write_trace(&self, writer: Box<dyn Write>) {
        self.0.trace.borrow_mut().set_writer(writer);
    }

    /// Puts a remark of the harness into the trace (and its hash).
    pub fn note(&self, host: HostId, text: impl Into<String>) {
        self.trace(host, TraceKind::Note(text.into()));
    }

    /// Counters of faults.
    pub fn counters(&self) -> Counters {
        self.0.counters.borrow().clone()
    }

    /// Panics of tasks, oldest first. Each is a failure of the run.
    pub fn panics(&self) -> Vec<PanicRecord> {
        self.0.panics.borrow().clone()
    }

    /// Hosts that have reached a point where they were to crash, since the last call: the harness crashes them.
    pub fn take_crash_wanted(&self) -> Vec<HostId> {
        core::mem::take(&mut self.0.crash_wanted.borrow_mut())
    }

    /// True when [`World::take_crash_wanted`] has something.
    pub fn is_crash_wanted(&self) -> bool {
        !self.0.crash_wanted.borrow().is_empty()
    }

    /// Drops all tasks and events. Call it last; the world is of no use afterwards.
    pub fn end(&self) {
        self.drop_all_tasks();
        let events = self.0.events.borrow_mut().take();
        drop(events);
        self.0.network.borrow_mut().clear();
    }

    fn absorb(&self) {
        self.absorb_wakes();
        self.absorb_lost_connections();
    }

    pub(super) fn fold(&self, word: u64) {
        self.0.trace.borrow_mut().fold(word);
    }

    pub(super) fn trace(&self, host: HostId, kind: TraceKind) {
        let at_ns = self.now_ns();
        self.0.trace.borrow_mut().record(TraceEvent { at_ns, host, kind });
    }

    pub(super) fn count(&self, kind: FaultKind) {
        self.0.counters.borrow_mut().add(kind);
    }

    pub(super) fn with_host<R>(&self, host: HostId, look: impl FnOnce(&Host) -> R) -> R {
        look(self.0.hosts.borrow().get(host))
    }

    pub(super) fn process_panicked(&self, host: HostId, process: ProcessId, payload: &(dyn Any + Send)) {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let message = text.or_else(|| payload.downcast_ref::<&str>().copied());
        let message = message.unwrap_or("a panic without a text").to_owned();
        self.trace(
            host,
            TraceKind::Process(format!("{} panicked: {message}", process.0)),
        );
        self.0.panics.borrow_mut().push(PanicRecord {
            at_ns: self.now_ns(),
            host,
            process,
            message,
        });
        self.abort_process(host, process);
    }
}
