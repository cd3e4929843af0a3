//! Wakers of simulated tasks, and the one kind of queue that another thread may reach.
//!
//! A [`core::task::Waker`] is `Send + Sync`, so what it writes to is behind a lock, although a world lives on
//! one thread. Waking only queues the task: it never polls and never touches the world, so any code may wake
//! while it borrows parts of the world. Waking a task that is gone does nothing.

#![expect(
    clippy::disallowed_types,
    reason = "wakers are Send and Sync by type; the lock is never contended"
)]

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;

/// A task: its slot, and how many tasks had the slot before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TaskId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// A queue that the world empties before each step. Clones are one.
pub(super) struct Inbox<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Inbox<T> {
    fn clone(&self) -> Self {
        Inbox(Arc::clone(&self.0))
    }
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Inbox(Arc::new(Mutex::new(Vec::new())))
    }
}

impl<T> Inbox<T> {
    pub(super) fn push(&self, item: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(item);
    }

    /// Moves everything to the end of `into`.
    pub(super) fn drain_into(&self, into: &mut Vec<T>) {
        into.append(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The waker of one task.
pub(super) struct TaskWaker {
    task: TaskId,
    is_queued: AtomicBool,
    woken: Inbox<TaskId>,
}

impl TaskWaker {
    /// A waker that counts as queued already: a new task is put into a ready list at once.
    pub(super) fn new(task: TaskId, woken: Inbox<TaskId>) -> Arc<TaskWaker> {
        Arc::new(TaskWaker {
            task,
            is_queued: AtomicBool::new(true),
            woken,
        })
    }

    /// The task is about to be polled: wakes count from here on.
    pub(super) fn begin_poll(&self) {
        self.is_queued.store(false, Ordering::Relaxed);
    }

    /// Marks the task as queued; false when it was.
    pub(super) fn mark_queued(&self) -> bool {
        !self.is_queued.swap(true, Ordering::Relaxed)
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.mark_queued() {
            self.woken.push(self.task);
        }
    }
}
