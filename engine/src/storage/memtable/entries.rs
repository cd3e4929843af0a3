//! What leaves and inner nodes of the tree have in common: entries in the order of their keys.
//!
//! [`tree`](super::tree) says what heads, fences and `skip` are. Invariant: heads never fall from entry to entry,
//! and where they are equal the keys rise. Nothing here knows other nodes than its own.

use super::arena::{Arena, Ref};
use super::records;

/// Entries of a node.
pub(super) const ENTRIES: usize = 63;
/// Least number of entries of a node that is not the last one of its level.
pub(super) const ENTRIES_MIN: usize = ENTRIES / 2;

/// The entries of one node.
pub(super) struct Entries {
    heads: [u64; ENTRIES],
    /// Key records. Those beyond [`Entries::len`] mean nothing.
    pub(super) nodes: [Ref; ENTRIES],
    len: u16,
    /// Bytes of the keys before their heads. Invariant: at most the length of what both fences have in common.
    skip: u16,
}

/// What all keys of a subtree lie between: the lower key included, the upper one not; none is no limit.
#[derive(Clone, Copy)]
pub(super) struct Fences {
    pub(super) low: Ref,
    pub(super) high: Ref,
}

impl Entries {
    pub(super) fn new(skip: u16) -> Entries {
        Entries {
            heads: [0; ENTRIES],
            nodes: [Ref::NONE; ENTRIES],
            len: 0,
            skip,
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() == ENTRIES
    }

    /// Number of the entries below `key`, or with `or_equal` at or below it. The first `from` entries count
    /// without being looked at. `key` lies between this node's fences.
    pub(super) fn rank(&self, arena: &Arena, key: &[u8], from: usize, or_equal: bool) -> usize {
        let head = head_of(key, self.skip);
        let heads = &self.heads[from..self.len()];
        let start = from + heads.partition_point(|&other| other < head);
        let ties = self.heads[start..self.len()]
            .iter()
            .take_while(|&&other| other == head)
            .count();
        if ties == 0 {
            return start;
        }
        let is_below = |&node: &Ref| {
            let other = records::key(arena, node);
            other < key || or_equal && other == key
        };
        start + self.nodes[start..start + ties].partition_point(is_below)
    }

    /// Puts an entry at position `at`; there is room for it.
    pub(super) fn insert(&mut self, at: usize, key: &[u8], node: Ref) {
        let len = self.len();
        self.heads.copy_within(at..len, at + 1);
        self.nodes.copy_within(at..len, at + 1);
        self.heads[at] = head_of(key, self.skip);
        self.nodes[at] = node;
        self.len += 1;
    }

    /// Moves the entries from `cut` on to a node of their own.
    pub(super) fn split_off(&mut self, cut: usize) -> Entries {
        let len = self.len();
        let mut right = Entries::new(self.skip);
        right.heads[..len - cut].copy_from_slice(&self.heads[cut..len]);
        right.nodes[..len - cut].copy_from_slice(&self.nodes[cut..len]);
        right.len = (len - cut) as u16;
        self.len = cut as u16;
        right
    }

    /// Moves the heads to the first byte that the fences do not have in common, if half of each head's bytes
    /// are the same in all entries. (Moving them always would read every key at each split.)
    pub(super) fn tighten(&mut self, arena: &Arena, from: usize, fences: Fences) {
        let len = self.len();
        let is_open = fences.low == Ref::NONE || fences.high == Ref::NONE;
        if is_open || len <= from || (self.heads[from] ^ self.heads[len - 1]) >> 32 != 0 {
            return;
        }
        let (low, high) = (records::key(arena, fences.low), records::key(arena, fences.high));
        let common = low.iter().zip(high).take_while(|(low, high)| low == high).count() as u16;
        assert!(common >= self.skip, "fences only ever come closer");
        if common > self.skip {
            self.skip = common;
            for entry in from..len {
                self.heads[entry] = head_of(records::key(arena, self.nodes[entry]), common);
            }
        }
    }
}

impl Fences {
    pub(super) const NONE: Fences = Fences {
        low: Ref::NONE,
        high: Ref::NONE,
    };

    pub(super) fn below(self, high: Ref) -> Fences {
        Fences { high, ..self }
    }

    pub(super) fn above(self, low: Ref) -> Fences {
        Fences { low, ..self }
    }
}

/// Where to cut a full node that gets one more entry at `at`.
pub(super) fn cut_of(at: usize, fences: Fences) -> usize {
    if at == ENTRIES && fences.high == Ref::NONE {
        ENTRIES
    } else {
        ENTRIES_MIN + 1
    }
}

/// Eight bytes of a key from `skip` on, as a number that orders like them; a short key is filled with zeros.
#[inline]
fn head_of(key: &[u8], skip: u16) -> u64 {
    let rest = key.get(usize::from(skip)..).unwrap_or_default();
    if let Some(bytes) = rest.first_chunk::<8>() {
        return u64::from_be_bytes(*bytes);
    }
    let mut bytes = [0; 8];
    bytes[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(bytes)
}
