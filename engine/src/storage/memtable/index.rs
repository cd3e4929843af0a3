//! Hash index of a memtable: from 32 bits of a key's hash (the tag) to its record, by linear hashing over
//! segments of open addressing.
//!
//! ```text
//! slot:  tag (32 bits) | reference of the key record (32 bits); 0 is empty
//! tag:   upper bits choose the slot inside a segment | lower bits choose the segment
//! ```
//!
//! 1. A table starts with one segment of 16 slots, which doubles at three quarters full until it has 4096.
//! 2. From then on segments are split one at a time, in turn, whenever there are more than
//!    [`KEYS_PER_SEGMENT`] keys per segment on average. While a round of splits is under way, segments not yet
//!    split are fuller (up to 7/8) than those that are.
//! 3. A segment that is 15/16 full although it is not its turn (hashes are not that even) doubles by itself.
//!
//! Splitting and doubling move slots without looking at keys, since a slot holds all the hash that is used, and
//! one insert moves at most one segment: less than a tenth of a millisecond, whatever the size of the table. A
//! plain table of a million keys would stand still for milliseconds; an incremental copy would make each
//! lookup look at both, and hold both. With linear hashing the size is a function of the number of keys alone,
//! which makes [`charged_bytes`](Index::charged_bytes) exact enough for admission.
//!
//! Source: Litwin, "Linear hashing: a new tool for file and table addressing", VLDB 1980.

use super::arena::Ref;
use super::prefetch::prefetch_read;

/// Slots of a segment, once there is more than one.
const SEGMENT_SLOTS: usize = 4096;
/// Slots of the first segment of a new table.
const SEGMENT_SLOTS_MIN: usize = 16;
/// Keys per segment, on average, above which the next one is split.
const KEYS_PER_SEGMENT: usize = SEGMENT_SLOTS * 7 / 16;

/// A segment's memory: its slots, and twice its entry in the table of segments (that vector doubles).
const SEGMENT_BYTES: usize = SEGMENT_SLOTS * SLOT_BYTES + 2 * size_of::<Segment>();
const SLOT_BYTES: usize = size_of::<u64>();

/// Upper bound of the index bytes that one more key costs.
pub(super) const KEY_BYTES_MAX: usize = 28;
/// Upper bound of the index bytes of a table with its first key, without that key's own cost.
pub(super) const FIRST_KEY_BYTES: usize = SEGMENT_SLOTS_MIN * SLOT_BYTES + 4 * size_of::<Segment>();

pub(super) struct Index {
    /// Empty until the first insert. Segment `n` holds the tags whose low bits are `n`: `level + 1` bits for
    /// segments below `split` and those made by splitting them, `level` bits for the others.
    segments: Vec<Segment>,
    level: u32,
    split: usize,
    keys: usize,
    slots: usize,
}

struct Segment {
    /// A power of two.
    slots: Box<[u64]>,
    used: u32,
    /// `32 - log2(slots.len())`: shifts a tag to its home slot.
    shift: u32,
}

impl Index {
    pub(super) fn new() -> Index {
        Index {
            segments: Vec::new(),
            level: 0,
            split: 0,
            keys: 0,
            slots: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.keys
    }

    /// The first record under `tag` that `is_match` accepts.
    #[inline]
    pub(super) fn find(&self, tag: u32, is_match: impl FnMut(Ref) -> bool) -> Option<Ref> {
        self.segments.get(self.segment_of(tag))?.find(tag, is_match)
    }

    /// Asks the processor for the home slot of `tag`.
    #[inline]
    pub(super) fn prefetch(&self, tag: u32) {
        if let Some(segment) = self.segments.get(self.segment_of(tag))
            && let Some(slot) = segment.slots.get(segment.home(tag))
        {
            prefetch_read(slot);
        }
    }

    /// Adds a record whose key is not in the index yet.
    pub(super) fn insert(&mut self, tag: u32, node: Ref) {
        assert!(node != Ref::NONE);
        self.keys += 1;
        self.grow();
        let number = self.segment_of(tag);
        if self.segments[number].is_overfull() {
            self.resize(number, self.segments[number].slots.len() * 2);
        }
        self.segments[number].insert(slot_of(tag, node));
    }

    /// Bytes allocated.
    pub(super) fn held_bytes(&self) -> usize {
        self.slots * SLOT_BYTES + self.segments.capacity() * size_of::<Segment>()
    }

    /// A bound of [`Index::held_bytes`] without steps, for hashes that are even enough.
    ///
    /// A first segment that doubles holds at most 8 / (3/8) = 21.4 bytes per key. Later there are
    /// `keys / KEYS_PER_SEGMENT` segments rounded up, hence 18.4 bytes per key and one segment; one more is
    /// allowed for segments that double out of turn. The second line is the lower one from some 6,800 keys on.
    pub(super) fn charged_bytes(&self) -> usize {
        if self.keys == 0 {
            return 0;
        }
        let many_bytes = self.keys * SEGMENT_BYTES / KEYS_PER_SEGMENT + 2 * SEGMENT_BYTES;
        FIRST_KEY_BYTES + (self.keys * KEY_BYTES_MAX).min(many_bytes)
    }

    #[inline]
    fn segment_of(&self, tag: u32) -> usize {
        let mask = (1_usize << self.level) - 1;
        let number = tag as usize & mask;
        if number < self.split {
            tag as usize & (2 * mask + 1)
        } else {
            number
        }
    }

    /// Makes room for the key that was just counted: at most one segment is moved.
    fn grow(&mut self) {
        if self.segments.is_empty() {
            self.add(Segment::new(SEGMENT_SLOTS_MIN));
        } else if self.segments.len() == 1 {
            let slots = self.segments[0].slots.len();
            if self.keys > slots / 4 * 3 {
                if slots < SEGMENT_SLOTS {
                    self.resize(0, slots * 2);
                } else {
                    self.split_next();
                }
            }
        } else if self.keys > self.segments.len() * KEYS_PER_SEGMENT {
            self.split_next();
        }
    }

    /// Divides segment `split` by the next bit of the tag, and goes on to the next one.
    fn split_next(&mut self) {
        let old = std::mem::take(&mut self.segments[self.split].slots);
        self.slots -= old.len();
        let goes_right = |slot: u64| tag_of(slot) >> self.level & 1 == 1;
        let right_count = old.iter().filter(|&&slot| slot != 0 && goes_right(slot)).count();
        let left_count = self.segments[self.split].used as usize - right_count;
        let mut left = Segment::new(slots_for(left_count));
        let mut right = Segment::new(slots_for(right_count));
        for &slot in old.iter().filter(|&&slot| slot != 0) {
            if goes_right(slot) {
                right.insert(slot);
            } else {
                left.insert(slot);
            }
        }
        self.slots += left.slots.len();
        self.segments[self.split] = left;
        self.add(right);
        self.split += 1;
        if self.split == 1 << self.level {
            self.level += 1;
            self.split = 0;
        }
    }

    fn resize(&mut self, number: usize, slots: usize) {
        let mut segment = Segment::new(slots);
        let old = &self.segments[number];
        for &slot in old.slots.iter().filter(|&&slot| slot != 0) {
            segment.insert(slot);
        }
        self.slots = self.slots - old.slots.len() + slots;
        self.segments[number] = segment;
    }

    fn add(&mut self, segment: Segment) {
        self.slots += segment.slots.len();
        self.segments.push(segment);
    }
}

impl Segment {
    fn new(slots: usize) -> Segment {
        assert!(slots.is_power_of_two() && slots >= SEGMENT_SLOTS_MIN);
        Segment {
            slots: vec![0; slots].into_boxed_slice(),
            used: 0,
            shift: u32::BITS - slots.ilog2(),
        }
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        (tag >> self.shift) as usize
    }

    fn is_overfull(&self) -> bool {
        self.used as usize >= self.slots.len() / 16 * 15
    }

    #[inline]
    fn find(&self, tag: u32, mut is_match: impl FnMut(Ref) -> bool) -> Option<Ref> {
        let mask = self.slots.len() - 1;
        let mut at = self.home(tag);
        loop {
            let slot = self.slots[at & mask];
            if slot == 0 {
                return None;
            }
            if tag_of(slot) == tag && is_match(Ref(slot as u32)) {
                return Some(Ref(slot as u32));
            }
            at += 1;
        }
    }

    fn insert(&mut self, slot: u64) {
        let mask = self.slots.len() - 1;
        let mut at = self.home(tag_of(slot));
        while self.slots[at & mask] != 0 {
            at += 1;
        }
        self.slots[at & mask] = slot;
        self.used += 1;
        assert!(
            (self.used as usize) < self.slots.len(),
            "an index segment needs an empty slot to end a probe"
        );
    }
}

/// Slots for a segment made by a split: the usual size, or more where hashes are uneven.
fn slots_for(keys: usize) -> usize {
    (keys * 4 / 3 + 1).next_power_of_two().max(SEGMENT_SLOTS)
}

#[inline]
const fn tag_of(slot: u64) -> u32 {
    (slot >> 32) as u32
}

const fn slot_of(tag: u32, node: Ref) -> u64 {
    (tag as u64) << 32 | node.0 as u64
}
