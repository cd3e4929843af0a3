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
        measured.table.take_changes(|_, _| ());
        measured.check();
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

#[test]
fn a_dropped_session_takes_no_more_than_it_frees() {
    let mut measured = Measured::new();
    for id in 0..4096 {
        measured.execute(&write_of(id, 0, 0, id as u64), &[]);
        // Half of them stay in the table with this, when what is remembered of them goes.
        if id % 2 == 0 {
            measured
                .table
                .proposed(&write_of(id, 1, 0, id as u64), LogIndex(2));
        }
    }
    measured.table.take_changes(|_, _| ());
    for horizon in (1..4096).step_by(50) {
        let before_bytes = measured.table.memory_bytes();
        measured.table.advance_horizon(Timestamp(horizon));
        assert!(measured.table.memory_bytes() <= before_bytes, "horizon {horizon}");
        measured.check();
        // The sweep goes on with each.
        measured.execute(&write_of(u128::MAX, horizon, 0, 5000), &[1, 2, 3]);
    }
    assert!(measured.table.session_count() < 100);
}

#[test]
fn notes_of_changes_are_counted_and_freed_with_the_changes() {
    let mut measured = Measured::new();
    for round in 1..4 {
        for id in 0..1000 {
            measured.execute(&write_of(id, round, 0, 1), &[]);
        }
        let with_changes_bytes = measured.table.memory_bytes();
        measured.table.take_changes(|_, _| ());
        measured.check();
        let freed_bytes = with_changes_bytes - measured.table.memory_bytes();
        assert_eq!(freed_bytes, 1000 * Changes::BYTES_PER_NOTE);
    }
}

#[test]
fn no_more_is_held_than_is_told_with_notes_that_outlive_their_sessions() {
    let mut measured = Measured::new();
    // One more than doubling makes room for.
    for id in 0..4097 {
        measured.table.apply(
            &write_of(id, 0, 0, 1),
            Answer::Failed(Failure::NotANumber { operation: 0 }),
        );
    }
    for horizon in 2..20 {
        measured.table.advance_horizon(Timestamp(horizon));
        measured.check();
    }
    assert_eq!(
        (
            measured.table.session_count(),
            measured.table.changes.note_count()
        ),
        (0, 4097)
    );
}

#[test]
fn a_restored_table_holds_no_more_than_is_told_and_goes_on_so() {
    let mut stored = Vec::new();
    let mut table = Sessions::new();
    for id in 0..200 {
        for sequence in 0..=id as u64 % 40 {
            let numbers = Numbers::new(&[7; 5][..sequence as usize % 6]);
            let version = Timestamp(1);
            table.apply(
                &write_of(id, sequence, 0, 1),
                Answer::Applied { version, numbers },
            );
        }
    }
    table.take_changes(|id, bytes| stored.push((id, bytes.map(Vec::from).unwrap())));
    let mut measured = Measured::new();
    for (id, bytes) in &stored {
        assert!(measured.table.restore_session(*id, bytes));
        measured.check();
    }
    assert_eq!(measured.table.memory_bytes(), table.memory_bytes());
    for id in 0..200 {
        for sequence in 100..130 {
            measured.execute(&write_of(id, sequence, sequence / 2, 1), &[1, 2]);
        }
    }
}

#[test]
fn bytes_that_claim_more_than_they_hold_get_no_memory() {
    let mut table = Sessions::new();
    table.apply(
        &write(1, 0, 1),
        Answer::Applied {
            version: Timestamp(1),
            numbers: Numbers::new(&[3, 4]),
        },
    );
    let bytes = super::changes(&mut table).remove(0).1.unwrap();
    let answers = 16..20;
    let numbers = 24 + 12..24 + 16;
    let mut restored = Sessions::new();
    for (place, allocations_max) in [(answers, 0), (numbers, 1)] {
        for claim in [2, 1 << 16, u32::MAX / 8, u32::MAX] {
            let mut claiming = bytes.clone();
            claiming[place.clone()].copy_from_slice(&u32::to_le_bytes(claim));
            let is_true = claiming == bytes;
            let before = ALLOCATIONS.with(Cell::get);
            if !is_true {
                assert!(!restored.restore_session(SessionId(1), &claiming));
                let allocations = ALLOCATIONS.with(Cell::get) - before;
                assert!(allocations <= allocations_max, "{claim} claimed at {place:?}");
            }
        }
    }
    assert!(restored.restore_session(SessionId(1), &bytes));
}
