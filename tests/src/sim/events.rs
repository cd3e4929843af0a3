//! The event queue: what will happen at which virtual time.
//!
//! Events of one time happen in the order in which they were put in, so the order never depends on how the
//! queue stores them.

use core::cmp::Ordering;
use core::task::Waker;
use std::collections::BinaryHeap;

use super::world::World;

/// What happens.
pub(super) enum Action {
    /// A core polls one of its ready tasks, if its epoch is still this one.
    RunCore(usize, u32),
    /// A timer ends.
    Wake(Waker),
    /// Anything else. It must not own a [`World`], which would keep the world alive for ever.
    Call(Box<dyn FnOnce(&World)>),
}

struct Entry {
    time_ns: u64,
    sequence: u64,
    action: Action,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest: [`BinaryHeap`] gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.time_ns, other.sequence).cmp(&(self.time_ns, self.sequence))
    }
}

/// The queue of a world.
#[derive(Default)]
pub(super) struct EventQueue {
    heap: BinaryHeap<Entry>,
    next_sequence: u64,
}

impl EventQueue {
    pub(super) fn push(&mut self, time_ns: u64, action: Action) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.heap.push(Entry {
            time_ns,
            sequence,
            action,
        });
    }

    /// When the next event happens.
    pub(super) fn next_time_ns(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.time_ns)
    }

    pub(super) fn pop(&mut self) -> Option<(u64, Action)> {
        self.heap.pop().map(|entry| (entry.time_ns, entry.action))
    }

    /// Takes everything out, for the caller to drop outside any borrow.
    pub(super) fn take(&mut self) -> Vec<Action> {
        core::mem::take(&mut self.heap)
            .into_iter()
            .map(|entry| entry.action)
            .collect()
    }
}
