//! Ranges of keys in which scans have found nothing but what was deleted or has expired. A scan that begins in one
//! passes over it at once: a queue whose head is deleted leaves a tombstone for each key, which has to stay as long as
//! an older snapshot may be read, and each look for the head would walk over all of them again.
//!
//! A gap is a fact about what is applied, not about where it lies, so flushes and merges do not touch it. A put into it
//! cuts it.

use core::ops::Bound;
use std::collections::BTreeMap;

use ostrakon_core::hlc::Timestamp;

use crate::limits::GAPS_MAX;

/// Gaps of one shard: disjoint, in order.
#[derive(Default)]
pub struct Gaps {
    /// By the first key.
    by_start: BTreeMap<Box<[u8]>, Gap>,
}

struct Gap {
    /// Behind the last key.
    end: Box<[u8]>,
    /// For snapshots from this one on there is nothing.
    since: Timestamp,
}

impl Gaps {
    /// Are there none?
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.by_start.is_empty()
    }

    /// No snapshot at or above `since` shows a key from `start` on, below `end`. Past the bound on their number the gap
    /// is forgotten at once, and another scan notes it again.
    pub fn note(&mut self, start: &[u8], end: &[u8], since: Timestamp) {
        if start >= end {
            return;
        }
        let mut joined: (Box<[u8]>, Gap) = (
            start.into(),
            Gap {
                end: end.into(),
                since,
            },
        );
        // Gaps that touch it become one with it. Those before the first that does are left alone.
        let before = self
            .by_start
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(start)));
        let first = match before.last() {
            Some((first, gap)) if *gap.end >= *start => first.clone(),
            _ => start.into(),
        };
        let touched: Vec<Box<[u8]>> = self
            .by_start
            .range::<[u8], _>((Bound::Included(&*first), Bound::Included(end)))
            .map(|(start, _)| start.clone())
            .collect();
        for start in touched {
            let gap = self.by_start.remove(&start).expect("it was just found");
            joined.0 = joined.0.min(start);
            joined.1.end = joined.1.end.max(gap.end);
            joined.1.since = joined.1.since.max(gap.since);
        }
        if self.by_start.len() < GAPS_MAX {
            self.by_start.insert(joined.0, joined.1);
        }
    }

    /// A key gets a value.
    pub fn put(&mut self, key: &[u8]) {
        let Some((start, gap)) = self.at(key) else { return };
        let (start, end, since): (Box<[u8]>, Box<[u8]>, _) = (start.into(), gap.end.clone(), gap.since);
        self.by_start.remove(&start);
        if *start < *key {
            let end = key.into();
            self.by_start.insert(start, Gap { end, since });
        }
        let behind = [key, &[0][..]].concat();
        if *behind < *end && self.by_start.len() < GAPS_MAX {
            self.by_start.insert(behind.into(), Gap { end, since });
        }
    }

    /// The first key from `from` on that a snapshot may show.
    pub fn up<'a>(&'a self, from: &'a [u8], snapshot: Timestamp) -> &'a [u8] {
        match self.at(from) {
            Some((_, gap)) if gap.since <= snapshot => &gap.end,
            _ => from,
        }
    }

    /// What a scan down from `below` may end before, without missing a key that a snapshot shows.
    pub fn down<'a>(&'a self, below: &'a [u8], snapshot: Timestamp) -> &'a [u8] {
        let before = self
            .by_start
            .range::<[u8], _>((Bound::Unbounded, Bound::Excluded(below)));
        match before.last() {
            Some((start, gap)) if *gap.end >= *below && gap.since <= snapshot => start,
            _ => below,
        }
    }

    /// The gap that a key lies in.
    fn at(&self, key: &[u8]) -> Option<(&[u8], &Gap)> {
        let before = self
            .by_start
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)));
        let (start, gap) = before.last()?;
        (*gap.end > *key).then_some((&**start, gap))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Note(u8, u8, u64),
        Put(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let note = (any::<u8>(), any::<u8>(), 0..20_u64)
            .prop_map(|(start, end, since)| Step::Note(start, end, since));
        prop::collection::vec(prop_oneof![note, any::<u8>().prop_map(Step::Put)], 0..60)
    }

    proptest! {
        /// Against a set of the single keys that are known to be empty, and since when.
        #[test]
        fn nothing_that_may_be_there_is_passed_over(steps in steps()) {
            let mut gaps = Gaps::default();
            let mut empty: BTreeMap<u8, u64> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Note(start, end, since) => {
                        gaps.note(&[start], &[end], Timestamp(since));
                        for key in start..end {
                            let known = empty.entry(key).or_insert(since);
                            *known = (*known).min(since);
                        }
                    }
                    Step::Put(key) => {
                        gaps.put(&[key]);
                        empty.remove(&key);
                    }
                }
                for from in 0..=u8::MAX {
                    for snapshot in [0, 7, 19, u64::MAX] {
                        let is_empty = |key: &u8| empty.get(key).is_some_and(|since| *since <= snapshot);
                        let key = [from];
                        let up = gaps.up(&key, Timestamp(snapshot));
                        prop_assert!(up >= &key[..]);
                        let passed = (from..=u8::MAX).take_while(|key| [*key][..] < *up);
                        prop_assert!(passed.clone().all(|key| is_empty(&key)), "up from {from} to {up:?}");
                        let down = gaps.down(&key, Timestamp(snapshot));
                        prop_assert!(down <= &key[..]);
                        let passed = (0..from).rev().take_while(|key| [*key][..] >= *down);
                        prop_assert!(passed.clone().all(|key| is_empty(&key)), "down from {from} to {down:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn gaps_that_touch_become_one_and_a_put_cuts_them() {
        let mut gaps = Gaps::default();
        gaps.note(b"a", b"c", Timestamp(5));
        gaps.note(b"c", b"f", Timestamp(3));
        assert_eq!(gaps.up(b"a", Timestamp(5)), b"f");
        assert_eq!(gaps.up(b"a", Timestamp(4)), b"a");
        assert_eq!(gaps.down(b"f", Timestamp(5)), b"a");
        gaps.put(b"d");
        assert_eq!(gaps.up(b"b", Timestamp(5)), b"d");
        assert_eq!(gaps.up(b"d", Timestamp(5)), b"d");
        assert_eq!(gaps.up(b"d\0", Timestamp(5)), b"f");
        assert_eq!(gaps.down(b"f", Timestamp(5)), b"d\0");
        assert_eq!(gaps.down(b"d\0", Timestamp(5)), b"d\0");
        gaps.note(b"d", b"d", Timestamp(1));
        gaps.note(b"z", b"a", Timestamp(1));
        assert_eq!(gaps.by_start.len(), 2, "what is no range is none");
    }

    #[test]
    fn their_number_is_bounded() {
        let mut gaps = Gaps::default();
        for number in 0..2 * GAPS_MAX as u32 {
            let (start, end) = ((number * 2).to_be_bytes(), (number * 2 + 1).to_be_bytes());
            gaps.note(&start, &end, Timestamp(1));
        }
        assert_eq!(gaps.by_start.len(), GAPS_MAX);
    }
}
