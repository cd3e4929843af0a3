//! Tasks and cores: who is ready, who is polled next, and how long it keeps its core.
//!
//! 1. A wake puts the task into its core's ready list. A core with ready tasks has one event in the queue.
//! 2. The event picks one ready task by the seed and polls it. The poll takes some virtual time, which keeps
//!    this core busy and no other: cores run side by side in virtual time.
//! 3. Background tasks are picked when nothing else is ready, and seldom otherwise.
//!
//! No part of the world is borrowed while a task is polled or dropped: both run foreign code, which may
//! spawn, send, or end a process.

use core::task::{Context, Waker};
use core::time::Duration;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use ostrakon::env::tasks::TaskFuture;
use ostrakon::env::{Priority, Tasks};

use super::counters::FaultKind;
use super::events::Action;
use super::host::{HostId, ProcessId};
use super::random::SimRandom;
use super::wake::{Inbox, TaskId, TaskWaker};
use super::world::{SchedulerConfig, World};

struct Task {
    /// `None` while it is polled.
    future: Option<TaskFuture>,
    core: usize,
    priority: Priority,
    is_root: bool,
    flag: Arc<TaskWaker>,
    waker: Waker,
    /// Where it stands in its core's `members`.
    member: usize,
}

struct Slot {
    generation: u32,
    task: Option<Task>,
}

struct CoreState {
    host: HostId,
    process: ProcessId,
    foreground: Vec<TaskId>,
    background: Vec<TaskId>,
    /// All its tasks.
    members: Vec<TaskId>,
    busy_until_ns: u64,
    stalled_until_ns: u64,
    is_scheduled: bool,
    /// Its event waits for the end of a pause or stall.
    is_held: bool,
    /// Events of an older number do nothing.
    epoch: u32,
    is_dead: bool,
}

/// All tasks and cores of a world.
pub(super) struct Executor {
    slots: Vec<Slot>,
    free: Vec<u32>,
    cores: Vec<CoreState>,
    random: SimRandom,
    pub(super) woken: Inbox<TaskId>,
}

/// A task on its way to be polled.
struct Picked {
    id: TaskId,
    future: TaskFuture,
    waker: Waker,
}

impl Executor {
    pub(super) fn new(seed: u64) -> Executor {
        Executor {
            slots: Vec::new(),
            free: Vec::new(),
            cores: Vec::new(),
            random: SimRandom::stream(seed, "scheduler", &[]),
            woken: Inbox::default(),
        }
    }

    pub(super) fn add_core(&mut self, host: HostId, process: ProcessId) -> usize {
        self.cores.push(CoreState {
            host,
            process,
            foreground: Vec::new(),
            background: Vec::new(),
            members: Vec::new(),
            busy_until_ns: 0,
            stalled_until_ns: 0,
            is_scheduled: false,
            is_held: false,
            epoch: 0,
            is_dead: false,
        });
        self.cores.len() - 1
    }

    /// Puts a task in; gives it back when its core is no more.
    fn insert(
        &mut self,
        core: usize,
        priority: Priority,
        is_root: bool,
        future: TaskFuture,
    ) -> Option<TaskFuture> {
        if self.cores[core].is_dead {
            return Some(future);
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                task: None,
            });
            (self.slots.len() - 1) as u32
        });
        let id = TaskId {
            slot,
            generation: self.slots[slot as usize].generation,
        };
        let flag = TaskWaker::new(id, self.woken.clone());
        let state = &mut self.cores[core];
        self.slots[slot as usize].task = Some(Task {
            future: Some(future),
            core,
            priority,
            is_root,
            waker: Waker::from(Arc::clone(&flag)),
            flag,
            member: state.members.len(),
        });
        state.members.push(id);
        None
    }

    fn task(&mut self, id: TaskId) -> Option<&mut Task> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation == id.generation {
            slot.task.as_mut()
        } else {
            None
        }
    }

    /// Takes a task out for good.
    fn remove(&mut self, id: TaskId) -> Option<Task> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let task = slot.task.take()?;
        slot.generation += 1;
        self.free.push(id.slot);
        let members = &mut self.cores[task.core].members;
        members.swap_remove(task.member);
        let moved = members.get(task.member).copied();
        if let Some(other) = moved.and_then(|moved| self.task(moved)) {
            other.member = task.member;
        }
        Some(task)
    }

    /// Puts a woken task into its ready list; returns its core if that has to be scheduled.
    fn make_ready(&mut self, id: TaskId) -> Option<usize> {
        let (core, priority) = self.task(id).map(|task| (task.core, task.priority))?;
        let state = &mut self.cores[core];
        match priority {
            Priority::Foreground => state.foreground.push(id),
            Priority::Background => state.background.push(id),
        }
        (!core::mem::replace(&mut state.is_scheduled, true)).then_some(core)
    }

    /// Picks one ready task of a core.
    fn pick(&mut self, core: usize, config: &SchedulerConfig) -> Option<Picked> {
        loop {
            let state = &mut self.cores[core];
            let background = !state.background.is_empty()
                && (state.foreground.is_empty() || self.random.one_in(config.background_one_in));
            let ready = if background {
                &mut state.background
            } else {
                &mut state.foreground
            };
            if ready.is_empty() {
                return None;
            }
            let place = self.random.index(ready.len());
            let id = ready.swap_remove(place);
            // A task that ended meanwhile (its core's process did not) leaves its wake behind.
            let Some(task) = self.task(id) else { continue };
            let Some(future) = task.future.take() else {
                continue;
            };
            task.flag.begin_poll();
            let waker = task.waker.clone();
            return Some(Picked { id, future, waker });
        }
    }

    /// A task of this core that nobody woke, made ready.
    fn wake_spuriously(&mut self, core: usize) -> bool {
        let members = &self.cores[core].members;
        if members.is_empty() {
            return false;
        }
        let id = members[self.random.index(members.len())];
        let fresh = self
            .task(id)
            .is_some_and(|task| task.future.is_some() && task.flag.mark_queued());
        if fresh {
            // The core is running: it schedules itself when it is done.
            self.make_ready(id);
        }
        fresh
    }

    /// Marks the cores of a process as dead and takes their tasks, for the caller to drop.
    pub(super) fn end_process(&mut self, process: ProcessId) -> Vec<TaskFuture> {
        let mut taken = Vec::new();
        for core in 0..self.cores.len() {
            if self.cores[core].process != process || self.cores[core].is_dead {
                continue;
            }
            self.cores[core].is_dead = true;
            for id in core::mem::take(&mut self.cores[core].members) {
                let slot = &mut self.slots[id.slot as usize];
                slot.generation += 1;
                taken.extend(slot.task.take().and_then(|task| task.future));
                self.free.push(id.slot);
            }
            self.cores[core].foreground.clear();
            self.cores[core].background.clear();
        }
        taken
    }

    pub(super) fn stall(&mut self, core: usize, until_ns: u64) {
        let state = &mut self.cores[core];
        state.stalled_until_ns = state.stalled_until_ns.max(until_ns);
    }

    /// Numbers of tasks that exist.
    pub(super) fn tasks(&self) -> usize {
        self.cores.iter().map(|core| core.members.len()).sum()
    }
}

impl World {
    /// Puts a task on a core; it is polled by an event, never here.
    pub(super) fn spawn_task(&self, core: usize, priority: Priority, is_root: bool, future: TaskFuture) {
        let refused = {
            let mut executor = self.0.executor.borrow_mut();
            let before = executor.cores[core].members.len();
            let refused = executor.insert(core, priority, is_root, future);
            if refused.is_none() {
                let id = executor.cores[core].members[before];
                if let Some(core) = executor.make_ready(id) {
                    self.schedule_core(&mut executor, core);
                }
            }
            refused
        };
        drop(refused);
    }

    /// Ends all stalls, and lets cores run that a stall or a pause has held.
    pub(super) fn release_cores(&self) {
        let mut executor = self.0.executor.borrow_mut();
        for (core, state) in executor.cores.iter_mut().enumerate() {
            state.stalled_until_ns = 0;
            if core::mem::take(&mut state.is_held) {
                state.epoch += 1;
                self.0
                    .events
                    .borrow_mut()
                    .push(self.now_ns(), Action::RunCore(core, state.epoch));
            }
        }
    }

    fn schedule_core(&self, executor: &mut Executor, core: usize) {
        let wake_ns = executor.random.below(self.0.config.scheduler.wake_ns_max + 1);
        let time_ns = (self.now_ns() + wake_ns).max(executor.cores[core].busy_until_ns);
        let epoch = executor.cores[core].epoch;
        self.0
            .events
            .borrow_mut()
            .push(time_ns, Action::RunCore(core, epoch));
    }

    /// Moves what was woken since the last step into the ready lists.
    pub(super) fn absorb_wakes(&self) {
        let mut woken = self.0.woken_scratch.take();
        self.0.woken.drain_into(&mut woken);
        if !woken.is_empty() {
            let mut executor = self.0.executor.borrow_mut();
            for id in woken.drain(..) {
                if let Some(core) = executor.make_ready(id) {
                    self.schedule_core(&mut executor, core);
                }
            }
        }
        self.0.woken_scratch.set(woken);
    }

    /// One turn of a core: one poll.
    pub(super) fn run_core(&self, core: usize, epoch: u32) {
        let config = &self.0.config.scheduler;
        let now_ns = self.now_ns();
        let (picked, host, process) = {
            let mut executor = self.0.executor.borrow_mut();
            if executor.cores[core].is_dead || executor.cores[core].epoch != epoch {
                return;
            }
            let (host, process) = (executor.cores[core].host, executor.cores[core].process);
            let paused_until_ns = self.paused_until_ns(host, process);
            let resume_ns = executor.cores[core].stalled_until_ns.max(paused_until_ns);
            if resume_ns > now_ns {
                executor.cores[core].is_held = true;
                self.0
                    .events
                    .borrow_mut()
                    .push(resume_ns, Action::RunCore(core, epoch));
                return;
            }
            executor.cores[core].is_held = false;
            if executor.random.one_in(config.spurious_one_in) && executor.wake_spuriously(core) {
                self.count(FaultKind::SpuriousWake);
            }
            // From here on a wake schedules the next turn.
            executor.cores[core].is_scheduled = false;
            (executor.pick(core, config), host, process)
        };
        let Some(picked) = picked else { return };
        self.fold(now_ns ^ (u64::from(picked.id.slot) << 32) ^ core as u64);
        let Picked {
            id,
            mut future,
            waker,
        } = picked;
        self.0.running_core.set(Some(core));
        let polled = catch_unwind(AssertUnwindSafe(|| {
            future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
        }));
        self.0.running_core.set(None);
        drop(waker);
        match polled {
            Ok(ended) => self.after_poll(core, id, future, ended, process),
            Err(payload) => {
                self.process_panicked(host, process, &*payload);
                drop_quietly(future);
            }
        }
    }

    fn after_poll(&self, core: usize, id: TaskId, future: TaskFuture, ended: bool, process: ProcessId) {
        let mut leftover = Some(future);
        let root_ended = {
            let mut executor = self.0.executor.borrow_mut();
            let cost_ns = poll_cost_ns(&executor.random, &self.0.config.scheduler);
            let mut root_ended = false;
            if ended {
                root_ended = executor.remove(id).is_some_and(|task| task.is_root);
            } else if let Some(task) = executor.task(id) {
                task.future = leftover.take();
            }
            let state = &mut executor.cores[core];
            state.busy_until_ns = self.now_ns() + cost_ns;
            let more = !state.foreground.is_empty() || !state.background.is_empty();
            if more && !state.is_dead && !core::mem::replace(&mut state.is_scheduled, true) {
                let (busy_until_ns, epoch) = (state.busy_until_ns, state.epoch);
                self.0
                    .events
                    .borrow_mut()
                    .push(busy_until_ns, Action::RunCore(core, epoch));
            }
            root_ended
        };
        if let Some(future) = leftover {
            drop_quietly(future);
        }
        if root_ended {
            self.root_ended(process);
        }
    }
}

fn poll_cost_ns(random: &SimRandom, config: &SchedulerConfig) -> u64 {
    let cost_ns = random.between(config.poll_ns_min, config.poll_ns_max);
    if random.one_in(config.long_poll_one_in) {
        cost_ns + random.below(config.long_poll_ns_max)
    } else {
        cost_ns
    }
}

/// Drops a future whose drop code may panic: its process is gone anyway, and nobody may hear of it.
pub(super) fn drop_quietly(future: TaskFuture) {
    let _ = catch_unwind(AssertUnwindSafe(move || drop(future)));
}

/// The scheduler as a core sees it.
pub(super) struct SimTasks {
    pub(super) world: World,
    pub(super) host: HostId,
    pub(super) core: usize,
    pub(super) random: SimRandom,
}

impl Tasks for SimTasks {
    fn spawn(&self, priority: Priority, task: TaskFuture) {
        self.world.spawn_task(self.core, priority, false, task);
    }

    fn should_yield(&self) -> bool {
        let answer = self.random.one_in(self.world.0.config.scheduler.yield_one_in);
        self.world.fold(u64::from(answer));
        answer
    }

    fn sleep(&self, duration: Duration) -> TaskFuture {
        let duration_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let slack_ns = self
            .random
            .below(self.world.0.config.scheduler.timer_slack_ns_max + 1);
        let world = self.world.clone();
        let wait_ns = world.with_host(self.host, |host| host.clock.virtual_ns(duration_ns));
        let deadline_ns = world.now_ns().saturating_add(wait_ns).saturating_add(slack_ns);
        Box::pin(world.sleep_until(deadline_ns))
    }
}

impl World {
    /// Resolves at a virtual time. For the harness: code under test sleeps through its `env`.
    pub fn sleep_until(&self, deadline_ns: u64) -> impl Future<Output = ()> + 'static + use<> {
        let world = self.clone();
        let registered: Rc<RefCell<Option<Waker>>> = Rc::default();
        core::future::poll_fn(move |cx| {
            if world.now_ns() >= deadline_ns {
                return core::task::Poll::Ready(());
            }
            let mut registered = registered.borrow_mut();
            if !registered
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()))
            {
                *registered = Some(cx.waker().clone());
                world
                    .0
                    .events
                    .borrow_mut()
                    .push(deadline_ns, Action::Wake(cx.waker().clone()));
            }
            core::task::Poll::Pending
        })
    }
}
