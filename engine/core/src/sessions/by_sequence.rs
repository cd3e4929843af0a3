//! A small map from sequences to values, sorted, in one allocation that follows its length.
//!
//! Sequences mostly come in order and go from the front, which costs O(1) here; out of order an insertion moves
//! at most half of the values. Memory goes with the values held, not with the distance between their sequences:
//! a shard sees only some of a session's.
//!
//! Invariant: the capacity is at most the larger of [`CAPACITY_KEPT`] and twice the length, which is what
//! [`BySequence::bytes_per_value`] and [`BySequence::bytes_when_empty`] charge for.

use alloc::collections::VecDeque;

use super::Sequence;

/// A capacity up to this is kept though it be empty, so that a session at work does not allocate for each request.
const CAPACITY_KEPT: usize = 8;

/// What an allocator needs beside the bytes asked for.
pub(super) const ALLOCATION_EXTRA_BYTES: usize = 16;

/// Values by ascending sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BySequence<T> {
    values: VecDeque<(Sequence, T)>,
}

impl<T> Default for BySequence<T> {
    fn default() -> BySequence<T> {
        BySequence {
            values: VecDeque::new(),
        }
    }
}

impl<T> BySequence<T> {
    /// Upper bound of what each value adds to the memory in use.
    pub(super) const fn bytes_per_value() -> usize {
        2 * size_of::<(Sequence, T)>()
    }

    /// Upper bound of the memory in use without any value.
    pub(super) const fn bytes_when_empty() -> usize {
        CAPACITY_KEPT * size_of::<(Sequence, T)>() + ALLOCATION_EXTRA_BYTES
    }

    /// An empty map with room for exactly so many values, which must come for the invariant to hold.
    pub(super) fn with_room(length: usize) -> BySequence<T> {
        BySequence {
            values: VecDeque::with_capacity(length),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(super) fn get(&self, sequence: Sequence) -> Option<&T> {
        let place = self.place(sequence).ok()?;
        Some(&self.values[place].1)
    }

    pub(super) fn first(&self) -> Option<Sequence> {
        self.values.front().map(|(sequence, _)| *sequence)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Sequence, &T)> {
        self.values.iter().map(|(sequence, value)| (*sequence, value))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.values.iter().map(|(_, value)| value)
    }

    /// Adds a value behind all others. False, and nothing is changed, if its sequence is not above theirs.
    pub(super) fn append(&mut self, sequence: Sequence, value: T) -> bool {
        if self.values.back().is_some_and(|(last, _)| *last >= sequence) {
            return false;
        }
        self.grow_if_full();
        self.values.push_back((sequence, value));
        true
    }

    /// Adds a value. False, and nothing is changed, if the sequence has one.
    pub(super) fn insert(&mut self, sequence: Sequence, value: T) -> bool {
        let Err(place) = self.place(sequence) else {
            return false;
        };
        self.grow_if_full();
        self.values.insert(place, (sequence, value));
        true
    }

    pub(super) fn remove(&mut self, sequence: Sequence) -> Option<T> {
        let place = self.place(sequence).ok()?;
        let removed = self.values.remove(place);
        self.shrink_if_sparse();
        removed.map(|(_, value)| value)
    }

    /// Drops the values below a sequence, and shows each to `dropped` before.
    pub(super) fn drop_below(&mut self, sequence: Sequence, mut dropped: impl FnMut(&T)) {
        while let Some((_, value)) = self.values.pop_front_if(|(first, _)| *first < sequence) {
            dropped(&value);
        }
        self.shrink_if_sparse();
    }

    /// Where the sequence is, or where it would be.
    fn place(&self, sequence: Sequence) -> Result<usize, usize> {
        match self.values.back() {
            Some((last, _)) if *last >= sequence => {
                self.values.binary_search_by_key(&sequence, |(held, _)| *held)
            }
            _ => Err(self.values.len()),
        }
    }

    fn grow_if_full(&mut self) {
        let capacity = self.values.capacity();
        if self.values.len() == capacity {
            // Doubling would leave no room between growing and shrinking within twice the length.
            let more = if capacity < CAPACITY_KEPT {
                CAPACITY_KEPT / 2
            } else {
                capacity / 2
            };
            self.values.reserve_exact(more);
        }
    }

    fn shrink_if_sparse(&mut self) {
        let (length, capacity) = (self.values.len(), self.values.capacity());
        if capacity > CAPACITY_KEPT.max(2 * length) {
            self.values.shrink_to((length + length / 2).max(CAPACITY_KEPT));
        }
    }
}
