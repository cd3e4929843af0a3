//! What the table says that it holds, against what it has from the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use super::super::*;
use super::{write, write_of};

thread_local! {
    /// Bytes that this thread has from the allocator, less those that it gave back, each block with its extra.
    static HELD_BYTES: Cell<isize> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

fn count(bytes: isize) {
    HELD_BYTES.with(|held| held.set(held.get() + bytes));
    if bytes > 0 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
    }
}

fn block_bytes(bytes: usize) -> isize {
    (bytes + by_sequence::ALLOCATION_EXTRA_BYTES) as isize
}

// SAFETY: all work is done by the system's allocator; counting touches only thread-locals that need no
// initialisation and no destructor, and does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(block_bytes(layout.size()));
        // SAFETY: the caller's obligations are passed on unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-block_bytes(layout.size()));
        // SAFETY: the caller's obligations are passed on unchanged.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A table, and what this thread held before it.
struct Measured {
    table: Sessions,
    before_bytes: isize,
}

impl Measured {
    fn new() -> Measured {
        let before_bytes = HELD_BYTES.with(Cell::get);
        Measured {
            table: Sessions::new(),
            before_bytes,
        }
    }

    fn held_bytes(&self) -> usize {
        size_of::<Sessions>() + (HELD_BYTES.with(Cell::get) - self.before_bytes) as usize
    }

    /// The promise: no less than what is held.
    fn check(&self) {
        let (held_bytes, memory_bytes) = (self.held_bytes(), self.table.memory_bytes());
        assert!(
            held_bytes <= memory_bytes,
            "{held_bytes} held, {memory_bytes} told"
        );
    }

    /// Proposes and applies a write.
    fn execute(&mut self, write: &Retry, numbers: &[i64]) {
        let before_bytes = self.table.memory_bytes();
        let cost_bytes = Sessions::cost_bytes(numbers.len());
        self.table.proposed(write, LogIndex(1));
        assert!(self.table.memory_bytes() <= before_bytes + cost_bytes);
        self.check();
        let numbers = Numbers::new(numbers);
        let version = Timestamp(1);
        self.table.apply(write, Answer::Applied { version, numbers });
        assert!(self.table.memory_bytes() <= before_bytes + cost_bytes);
        self.check();
    }
}

#[test]
fn no_more_is_held_than_is_told_with_many_sessions() {
    for order in [1, 7919, 4095] {
        let mut measured = Measured::new();
        for number in 0..4096u128 {
            measured.execute(&write_of(number * order % 4096, 0, 0, number as u64), &[]);
        }
        for horizon in 1..4096 {
            measured.table.advance_horizon(Timestamp(horizon));
            measured.check();
        }
        assert_eq!(measured.table.session_count(), 1);
        let told_bytes = measured.table.memory_bytes();
        assert!(
            told_bytes <= Sessions::new().memory_bytes() + Sessions::cost_bytes(0),
            "{told_bytes}"
        );
    }
}

#[test]
fn no_more_is_held_than_is_told_with_sessions_that_kept_their_room() {
    let mut measured = Measured::new();
    for id in 0..1000 {
        for sequence in 0..8 {
            measured
                .table
                .proposed(&write_of(id, sequence, 0, 1), LogIndex(1));
        }
        for sequence in 0..8 {
            let failed = Answer::Failed(Failure::NotANumber { operation: 0 });
            measured
                .table
                .apply(&write_of(id, sequence, sequence / 7 * 7, 1), failed);
        }
        measured.check();
    }
    assert_eq!(measured.table.answer_count(), 1000);
}

#[test]
fn no_more_is_held_than_is_told_with_many_answers() {
    let mut measured = Measured::new();
    for sequence in 0..WINDOW {
        let numbers = [1; 5];
        measured.execute(&write(sequence, 0, 1), &numbers[..sequence as usize % 6]);
    }
    for sequence in (0..WINDOW).step_by(37) {
        measured.execute(&write(WINDOW + sequence, sequence, 1), &[1, 2]);
    }
    measured.execute(&write(3 * WINDOW, 3 * WINDOW, 1), &[]);
    assert_eq!(measured.table.answer_count(), 1);
    let held_bytes = measured.held_bytes();
    assert!(held_bytes < 4096, "{held_bytes} are left of a full window");
}

#[test]
fn no_more_is_held_than_is_told_with_many_proposals() {
    let mut measured = Measured::new();
    for sequence in 0..WINDOW {
        measured.table.proposed(&write(sequence, 0, 1), LogIndex(1));
        measured.check();
    }
    measured.table.forget_in_flight();
    measured.check();
    assert_eq!(measured.table.by_id.len(), 0);
}

#[test]
fn sequences_that_lie_far_apart_cost_no_more() {
    let mut sparse = Measured::new();
    for sequence in 0..8 {
        sparse.execute(&write(sequence * 1000, 0, 1), &[]);
    }
    let mut dense = Measured::new();
    for sequence in 0..8 {
        dense.execute(&write(sequence, 0, 1), &[]);
    }
    assert_eq!(sparse.table.memory_bytes(), dense.table.memory_bytes());
    drop(sparse);
}

#[test]
fn a_session_at_work_allocates_nothing() {
    let mut table = Sessions::new();
    let mut turn = |first: u64| {
        for sequence in first..first + 8 {
            let write = write(sequence, first, 1);
            assert_eq!(table.look_up(&write), Lookup::New);
            table.proposed(&write, LogIndex(1));
        }
        for sequence in first..first + 8 {
            let numbers = Numbers::new(&[3]);
            let version = Timestamp(1);
            table.apply(&write(sequence, first, 1), Answer::Applied { version, numbers });
        }
    };
    turn(0);
    let before = ALLOCATIONS.with(Cell::get);
    for first in 1..100 {
        turn(first * 8);
    }
    assert_eq!(ALLOCATIONS.with(Cell::get), before);
}
