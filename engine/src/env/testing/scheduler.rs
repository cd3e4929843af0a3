//! A deterministic executor with a clock of its own, for tests.
//!
//! Tasks are polled round robin in the order in which they were spawned, each only after its waker was
//! called. Time stands still while anything can run and then jumps to the next timer, if the test allows
//! it. A run that can't go on (a frozen disk) is reported, never waited for.

use core::cell::{Cell, RefCell};
use core::future::Future;
use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Wake;

use crate::env::tasks::TaskFuture;
use crate::env::{Clock, MonotonicNs, Priority, Tasks, WallUs};

/// Every this many questions [`Tasks::should_yield`] says yes.
const YIELD_EVERY: u32 = 8;

/// Executor and clock; clones are one.
#[derive(Clone, Default)]
pub(crate) struct Scheduler(Rc<Inner>);

#[derive(Default)]
struct Inner {
    tasks: RefCell<Vec<Slot>>,
    timers: RefCell<Vec<(u64, Waker)>>,
    now_ns: Cell<u64>,
    questions: Cell<u32>,
}

struct Slot {
    future: Option<TaskFuture>,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Scheduler {
    /// Runs `future` and the tasks until it ends; time does not pass. `None` when nothing can go on.
    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&woken));
        loop {
            let mut moved = false;
            if woken.0.swap(false, Ordering::Relaxed) {
                moved = true;
                if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return Some(value);
                }
            }
            if !self.turn() && !moved {
                return None;
            }
        }
    }

    /// Runs the tasks until none can go on; time does not pass.
    pub(crate) fn settle(&self) {
        while self.turn() {}
    }

    /// Lets time pass, then runs what can run.
    pub(crate) fn advance(&self, duration: Duration) {
        self.0
            .now_ns
            .set(self.0.now_ns.get() + duration.as_nanos() as u64);
        let now_ns = self.0.now_ns.get();
        let due: Vec<Waker> = self
            .0
            .timers
            .borrow_mut()
            .extract_if(.., |timer| timer.0 <= now_ns)
            .map(|timer| timer.1)
            .collect();
        due.into_iter().for_each(Waker::wake);
        self.settle();
    }

    /// Drops every task where it stands, as a crash does.
    pub(crate) fn abandon(&self) {
        let tasks = core::mem::take(&mut *self.0.tasks.borrow_mut());
        drop(tasks);
        self.0.timers.borrow_mut().clear();
    }

    /// Polls each woken task once; false if there was none.
    fn turn(&self) -> bool {
        let mut moved = false;
        let mut slot = 0;
        loop {
            let Some((mut future, woken)) = self.take_woken(slot) else {
                if slot >= self.0.tasks.borrow().len() {
                    return moved;
                }
                slot += 1;
                continue;
            };
            moved = true;
            let waker = Waker::from(woken);
            let ended = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
            if !ended && let Some(kept) = self.0.tasks.borrow_mut().get_mut(slot) {
                kept.future = Some(future);
            }
            slot += 1;
        }
    }

    fn take_woken(&self, slot: usize) -> Option<(TaskFuture, Arc<Woken>)> {
        let mut tasks = self.0.tasks.borrow_mut();
        let found = tasks.get_mut(slot)?;
        if found.future.is_none() || !found.woken.0.swap(false, Ordering::Relaxed) {
            return None;
        }
        let future = found.future.take()?;
        Some((future, Arc::clone(&found.woken)))
    }
}

impl Tasks for Scheduler {
    fn spawn(&self, _priority: Priority, task: TaskFuture) {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        self.0.tasks.borrow_mut().push(Slot {
            future: Some(task),
            woken,
        });
    }

    fn should_yield(&self) -> bool {
        self.0.questions.set(self.0.questions.get().wrapping_add(1));
        self.0.questions.get().is_multiple_of(YIELD_EVERY)
    }

    fn sleep(&self, duration: Duration) -> TaskFuture {
        let inner = Rc::clone(&self.0);
        let deadline_ns = inner.now_ns.get() + duration.as_nanos() as u64;
        Box::pin(core::future::poll_fn(move |cx| {
            if inner.now_ns.get() >= deadline_ns {
                return Poll::Ready(());
            }
            inner.timers.borrow_mut().push((deadline_ns, cx.waker().clone()));
            Poll::Pending
        }))
    }
}

impl Clock for Scheduler {
    fn monotonic(&self) -> MonotonicNs {
        MonotonicNs(self.0.now_ns.get())
    }

    fn wall(&self) -> WallUs {
        WallUs(self.0.now_ns.get() / 1000)
    }
}
