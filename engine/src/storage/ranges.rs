//! Range tombstones: each deletes all keys from its start up to its end, as of its timestamp.
//!
//! A range tombstone is a version of every key that it covers. [`RangeTombstones`] answers for a key and a snapshot
//! which one is the newest, in O(log² n) steps and O(n log n) bytes, however they overlap:
//!
//! 1. Starts and ends cut the keys into *fragments*. All keys of a fragment are covered by the same tombstones.
//! 2. Over the fragments lies a segment tree (Bentley, "Solutions to Klee's rectangle problems", 1977): a tombstone is
//!    noted in at most two nodes of each height, which together stand for its fragments. What covers a fragment is
//!    noted on the way from its leaf to the root; each node has its timestamps from the newest to the oldest. (Were
//!    they noted at each fragment, n tombstones that begin at one key, as those that trim a queue, would take n²
//!    places.)
//! 3. A part of it is built once. One more tombstone makes a part of its own with all parts that are not larger than
//!    it, so that there are few (Bentley and Saxe, "Decomposable searching problems", 1980).

use core::ops::Range;
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;

use super::memtable::Version;

/// Fragments that are looked at to find how far keys are covered.
const REACH_FRAGMENTS_MAX: usize = 64;

/// Upper bound of the bytes that a tombstone takes besides its keys: itself, two bounds and their nodes, its place in
/// two nodes of each height of a tree with up to 2^24 fragments, the heads of its keys, its share of a part.
pub const TOMBSTONE_BYTES_MAX: usize = 768;

/// The deletion of all keys from a start up to an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeTombstone {
    /// The first key.
    pub start: Rc<[u8]>,
    /// Above `start`; excluded. `None` is behind all keys.
    pub end: Option<Rc<[u8]>>,
    /// As of when.
    pub timestamp: Timestamp,
}

impl RangeTombstone {
    /// Does it cover this key?
    pub fn covers(&self, key: &[u8]) -> bool {
        *self.start <= *key && self.end.as_deref().is_none_or(|end| key < end)
    }

    /// The part of it that is not below `low` and is below `high`; `None` is no bound. `None` if nothing is.
    pub fn between(&self, low: Option<&[u8]>, high: Option<&[u8]>) -> Option<RangeTombstone> {
        let mut part = self.clone();
        if let Some(low) = low.filter(|low| **low > *part.start) {
            part.start = low.into();
        }
        if let Some(high) = high
            && part.end.as_deref().is_none_or(|end| high < end)
        {
            part.end = Some(high.into());
        }
        let is_empty = part.end.as_deref().is_some_and(|end| *part.start >= *end);
        (!is_empty).then_some(part)
    }
}

/// A set of range tombstones.
#[derive(Debug, Default)]
pub struct RangeTombstones {
    /// From the largest to the smallest, each larger than the next.
    parts: Vec<Part>,
}

/// Some tombstones, and what finds them.
#[derive(Debug)]
struct Part {
    tombstones: Vec<RangeTombstone>,
    /// Starts and ends, in order, each once: where fragments begin. The last one has no end.
    bounds: Vec<Rc<[u8]>>,
    /// Where in `timestamps` those of each node begin, and at last where they end. Node 1 is the root; below node n lie
    /// 2n and 2n + 1; fragment f is node `bounds.len() + f`.
    offsets: Vec<u32>,
    /// Of each node, from the newest to the oldest.
    timestamps: Vec<Timestamp>,
}

impl RangeTombstones {
    /// A set of these.
    pub fn new(tombstones: Vec<RangeTombstone>) -> RangeTombstones {
        let parts = if tombstones.is_empty() {
            Vec::new()
        } else {
            vec![Part::new(tombstones)]
        };
        RangeTombstones { parts }
    }

    /// Adds one.
    pub fn insert(&mut self, tombstone: RangeTombstone) {
        let mut together = vec![tombstone];
        while let Some(part) = self.parts.pop_if(|part| part.tombstones.len() <= together.len()) {
            together.extend(part.tombstones);
        }
        self.parts.push(Part::new(together));
    }

    /// Is there none?
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.tombstones.len()).sum()
    }

    /// All of them, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &RangeTombstone> {
        self.parts.iter().flat_map(|part| &part.tombstones)
    }

    /// Bytes that are allocated, those of the keys included.
    pub fn held_bytes(&self) -> usize {
        let parts_bytes = self.parts.capacity() * size_of::<Part>();
        parts_bytes + self.parts.iter().map(Part::held_bytes).sum::<usize>()
    }

    /// The timestamp of the newest one at or below `snapshot` that covers the key.
    pub fn newest_over(&self, key: &[u8], snapshot: Timestamp) -> Option<Timestamp> {
        let newest = |part: &Part| part.newest_at(part.fragment_of(key)?, snapshot);
        self.parts.iter().filter_map(newest).max()
    }

    /// The newer one of a version of a key, at or below `snapshot`, and what this set says of the key: a tombstone.
    pub fn hide<'a>(
        &self,
        version: Option<Version<'a>>,
        key: &[u8],
        snapshot: Timestamp,
    ) -> Option<Version<'a>> {
        let deleted = self.newest_over(key, snapshot);
        if version.map(|version| version.timestamp) > deleted {
            return version;
        }
        deleted.map(Version::tombstone)
    }

    /// All keys from this one up to the returned one, which is excluded, are covered at the snapshot, if this one is;
    /// none is returned if there is no end.
    pub fn covered_up_to(&self, key: &[u8], snapshot: Timestamp) -> Option<&[u8]> {
        let mut farthest = Some(&[][..]);
        for part in &self.parts {
            let Some(first) = part.fragment_of(key) else {
                continue;
            };
            let behind = part.covered_behind(first, snapshot, Timestamp::ZERO);
            if behind > first {
                let end = part.bounds.get(behind).map(|end| &**end);
                farthest = end.and_then(|end| Some(farthest?.max(end)));
            }
        }
        farthest
    }

    /// All keys from the returned one up to this one, both included, are covered at the snapshot, if this one is.
    pub fn covered_down_to<'a>(&'a self, key: &'a [u8], snapshot: Timestamp) -> &'a [u8] {
        let mut lowest = key;
        for part in &self.parts {
            let Some(last) = part.fragment_of(key) else {
                continue;
            };
            let fragments = (0..=last).rev().take(REACH_FRAGMENTS_MAX);
            let covered = fragments.take_while(|fragment| part.newest_at(*fragment, snapshot).is_some());
            if let Some(first) = covered.last() {
                lowest = lowest.min(&part.bounds[first]);
            }
        }
        lowest
    }

    /// Are all keys of an extent covered at the snapshot by tombstones that are newer than `version`? `has_ended` tells
    /// whether the extent ends before a key.
    pub fn cover_whole(
        &self,
        smallest: &[u8],
        has_ended: impl Fn(&[u8]) -> bool,
        version: Timestamp,
        snapshot: Timestamp,
    ) -> bool {
        self.parts.iter().any(|part| {
            let Some(first) = part.fragment_of(smallest) else {
                return false;
            };
            let behind = part.covered_behind(first, snapshot, version);
            behind > first && part.bounds.get(behind).is_none_or(|end| has_ended(end))
        })
    }

    /// What readers at the watermark or above need of these, in the order of their starts: of those at or below it, of
    /// each key the newest one.
    pub fn needed_from(&self, watermark: Timestamp) -> Vec<RangeTombstone> {
        let mut needed: Vec<RangeTombstone> = self
            .iter()
            .filter(|tombstone| tombstone.timestamp > watermark)
            .cloned()
            .collect();
        let old = self.iter().filter(|tombstone| tombstone.timestamp <= watermark);
        let old = Part::new(old.cloned().collect());
        let mut piece: Option<RangeTombstone> = None;
        for fragment in 0..old.bounds.len() {
            let timestamp = old.newest_at(fragment, watermark);
            if piece.as_ref().map(|piece| piece.timestamp) == timestamp {
                continue;
            }
            let start = &old.bounds[fragment];
            needed.extend(piece.take().map(|piece| RangeTombstone {
                end: Some(Rc::clone(start)),
                ..piece
            }));
            piece = timestamp.map(|timestamp| RangeTombstone {
                start: Rc::clone(start),
                end: None,
                timestamp,
            });
        }
        needed.extend(piece);
        needed.sort_by(|one, other| one.start.cmp(&other.start));
        needed
    }
}

impl Part {
    fn new(mut tombstones: Vec<RangeTombstone>) -> Part {
        tombstones.sort_unstable_by_key(|tombstone| core::cmp::Reverse(tombstone.timestamp));
        tombstones.shrink_to_fit();
        let starts = tombstones.iter().map(|tombstone| &tombstone.start);
        let ends = tombstones.iter().filter_map(|tombstone| tombstone.end.as_ref());
        let mut bounds: Vec<Rc<[u8]>> = starts.chain(ends).cloned().collect();
        bounds.sort_unstable();
        bounds.dedup();
        bounds.shrink_to_fit();
        let mut part = Part {
            tombstones,
            offsets: vec![0; 2 * bounds.len() + 1],
            bounds,
            timestamps: Vec::new(),
        };
        // First how many each node has; then where they begin; then each is put in its place, the newest first.
        for place in 0..part.tombstones.len() {
            let fragments = part.fragments_of(&part.tombstones[place]);
            for_each_node(part.bounds.len(), fragments, |node| part.offsets[node] += 1);
        }
        let mut sum = 0;
        for offset in &mut part.offsets {
            sum += core::mem::replace(offset, sum);
        }
        part.timestamps = vec![Timestamp::ZERO; sum as usize];
        let mut free = part.offsets.clone();
        for tombstone in &part.tombstones {
            let fragments = part.fragments_of(tombstone);
            for_each_node(part.bounds.len(), fragments, |node| {
                part.timestamps[free[node] as usize] = tombstone.timestamp;
                free[node] += 1;
            });
        }
        part
    }

    /// The fragments that a tombstone of this part covers.
    fn fragments_of(&self, tombstone: &RangeTombstone) -> Range<usize> {
        let place = |bound: &Rc<[u8]>| self.bounds.partition_point(|other| other < bound);
        let end = tombstone.end.as_ref().map_or(self.bounds.len(), place);
        place(&tombstone.start)..end
    }

    /// The fragment that a key lies in, unless it lies before all.
    fn fragment_of(&self, key: &[u8]) -> Option<usize> {
        self.bounds
            .partition_point(|bound| **bound <= *key)
            .checked_sub(1)
    }

    /// The newest timestamp at or below `snapshot` that covers a fragment.
    fn newest_at(&self, fragment: usize, snapshot: Timestamp) -> Option<Timestamp> {
        let mut newest = None;
        let mut node = self.bounds.len() + fragment;
        while node > 0 {
            let own = &self.timestamps[self.offsets[node] as usize..self.offsets[node + 1] as usize];
            let first = own.partition_point(|timestamp| *timestamp > snapshot);
            newest = newest.max(own.get(first).copied());
            node /= 2;
        }
        newest
    }

    /// The first fragment from this one on that is not covered at the snapshot by something newer than `version`, or
    /// the one where the search ends.
    fn covered_behind(&self, first: usize, snapshot: Timestamp, version: Timestamp) -> usize {
        let is_covered = |fragment: &usize| self.newest_at(*fragment, snapshot) > Some(version);
        let fragments = first..self.bounds.len();
        first + fragments.take(REACH_FRAGMENTS_MAX).take_while(is_covered).count()
    }

    fn held_bytes(&self) -> usize {
        let key_bytes =
            |key: &Rc<[u8]>| (2 * size_of::<usize>() + key.len()).next_multiple_of(size_of::<usize>());
        let of_tombstone = |tombstone: &RangeTombstone| {
            key_bytes(&tombstone.start) + tombstone.end.as_ref().map_or(0, key_bytes)
        };
        self.tombstones.capacity() * size_of::<RangeTombstone>()
            + self.bounds.capacity() * size_of::<Rc<[u8]>>()
            + self.offsets.capacity() * size_of::<u32>()
            + self.timestamps.capacity() * size_of::<Timestamp>()
            + self.tombstones.iter().map(of_tombstone).sum::<usize>()
    }
}

/// The nodes that together stand for these of `leaves` fragments.
fn for_each_node(leaves: usize, fragments: Range<usize>, mut note: impl FnMut(usize)) {
    let (mut low, mut high) = (fragments.start + leaves, fragments.end + leaves);
    while low < high {
        if low % 2 == 1 {
            note(low);
            low += 1;
        }
        if high % 2 == 1 {
            high -= 1;
            note(high);
        }
        low /= 2;
        high /= 2;
    }
}

/// The bytes of range tombstones in a table, where each has an end: for each, in order,
///
/// ```text
/// start length (4) | end length (4) | timestamp (8) | start | end
/// ```
///
/// # Panics
/// If one has no end.
pub fn encode(tombstones: &[RangeTombstone]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for tombstone in tombstones {
        let end = tombstone.end.as_ref().expect("in a table each has an end");
        bytes.extend_from_slice(&(tombstone.start.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(end.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&tombstone.timestamp.0.to_le_bytes());
        bytes.extend_from_slice(&tombstone.start);
        bytes.extend_from_slice(end);
    }
    bytes
}

/// The range tombstones of these bytes, if they are some: in the order of their starts, and none of them empty.
pub fn decode(mut bytes: &[u8]) -> Option<Vec<RangeTombstone>> {
    let mut tombstones: Vec<RangeTombstone> = Vec::new();
    while !bytes.is_empty() {
        let (start_bytes, rest) = bytes.split_first_chunk::<4>()?;
        let (end_bytes, rest) = rest.split_first_chunk::<4>()?;
        let (timestamp, rest) = rest.split_first_chunk::<8>()?;
        let (start, rest) = rest.split_at_checked(u32::from_le_bytes(*start_bytes) as usize)?;
        let (end, rest) = rest.split_at_checked(u32::from_le_bytes(*end_bytes) as usize)?;
        let is_in_order = tombstones.last().is_none_or(|last| *last.start <= *start);
        if start >= end || !is_in_order {
            return None;
        }
        tombstones.push(RangeTombstone {
            start: start.into(),
            end: Some(end.into()),
            timestamp: Timestamp(u64::from_le_bytes(*timestamp)),
        });
        bytes = rest;
    }
    Some(tombstones)
}

#[cfg(test)]
mod tests;
