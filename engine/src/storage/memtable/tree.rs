//! The keys of a memtable in order: a B+-tree of references into the arena, insert only.
//!
//! 1. A node holds, for each entry, the reference of a key record and eight bytes of its key as a number (the
//!    *head*), so that a search inside a node compares numbers that lie side by side and looks at a key in the
//!    arena only where heads are equal.
//! 2. Heads begin `skip` bytes into the key. All keys that can ever come to a node lie between its two fences
//!    (the separators around it in its parents); what the fences have in common, all these keys have, and
//!    `skip` bytes of it need not be compared. Hence keys with long common prefixes are told apart by their
//!    heads too, and no insert ever has to shorten `skip`.
//! 3. Inner nodes: entry `n` is the smallest key below child `n`. Entry 0 is not looked at: it is the lower fence.
//! 4. A full node is cut in the middle, or, at the right edge of the tree by an append, left full: keys that
//!    come in order fill their nodes.
//!
//! Measured against an arena skip list (p = 1/4, key prefixes in its nodes, no hash index beside it) on random
//! 16-byte keys: a new key costs a third of the time among a million keys in one table as in 64 tables, this
//! tree's share of the arena and index included, since a skip list follows some twenty pointers that are not in
//! cache. A scan finds its next references side by side.

use super::arena::{Arena, Ref};
use super::records;

/// Entries of a node. With 63 a leaf is twelve cache lines.
const ENTRIES: usize = 63;
/// Least number of entries of a node that is not the last one of its level.
const ENTRIES_MIN: usize = ENTRIES / 2;
/// Inner levels that suffice for more keys than there are references.
const HEIGHT_MAX: usize = 7;
/// Entries that a vector of pointers has room for at first.
const POINTERS_MIN: usize = 4;
/// No node.
const NO_NODE: u32 = u32::MAX;

/// A node's memory, and twice its pointer (the vector of pointers doubles).
const LEAF_BYTES: usize = size_of::<Leaf>() + 2 * size_of::<usize>();
const INNER_BYTES: usize = size_of::<Inner>() + 2 * size_of::<usize>();

/// Upper bound of the tree bytes that one more key costs: its share of a leaf, and that leaf's of inner nodes.
pub(super) const KEY_BYTES_MAX: usize =
    LEAF_BYTES.div_ceil(ENTRIES_MIN) + (2 * INNER_BYTES).div_ceil(ENTRIES_MIN * ENTRIES_MIN);
/// Upper bound of the tree bytes of a table with its first key, with the root that the second leaf brings.
pub(super) const FIRST_KEY_BYTES: usize = LEAF_BYTES + INNER_BYTES + 2 * POINTERS_MIN * size_of::<usize>();

const _: () = assert!(ENTRIES_MIN.pow(HEIGHT_MAX as u32) > u32::MAX as usize);

#[expect(
    clippy::vec_box,
    reason = "a growing vector would move all nodes at once, which takes milliseconds"
)]
pub(super) struct Tree {
    leaves: Vec<Box<Leaf>>,
    inners: Vec<Box<Inner>>,
    /// The root: a leaf at height 0.
    root: u32,
    /// Levels of inner nodes.
    height: usize,
    keys: usize,
}

/// A position in the tree: entry `entry` of a leaf.
#[derive(Clone, Copy)]
pub(super) struct Position {
    leaf: u32,
    entry: usize,
}

struct Leaf {
    entries: Entries,
    next: u32,
}

struct Inner {
    entries: Entries,
    children: [u32; ENTRIES],
}

struct Entries {
    heads: [u64; ENTRIES],
    nodes: [Ref; ENTRIES],
    len: u16,
    /// Bytes of the keys before their heads. Invariant: at most the length of what both fences have in common.
    skip: u16,
}

/// What all keys of a subtree lie between: the lower key included, the upper one not; none is no limit.
#[derive(Clone, Copy)]
struct Fences {
    low: Ref,
    high: Ref,
}

/// One inner node on the way down, the child taken, and the fences of the node itself.
#[derive(Clone, Copy)]
struct Step {
    inner: u32,
    child: usize,
    fences: Fences,
}

impl Tree {
    pub(super) fn new() -> Tree {
        Tree {
            leaves: Vec::new(),
            inners: Vec::new(),
            root: NO_NODE,
            height: 0,
            keys: 0,
        }
    }

    /// Adds a key that is not in the tree yet; `node` is its record.
    pub(super) fn insert(&mut self, arena: &Arena, key: &[u8], node: Ref) {
        self.keys += 1;
        if self.leaves.is_empty() {
            self.leaves.push(Leaf::new(Entries::new(0)));
            self.root = 0;
        }
        let mut path = [Step {
            inner: NO_NODE,
            child: 0,
            fences: Fences::NONE,
        }; HEIGHT_MAX];
        let (leaf, fences) = self.descend(arena, key, &mut path);
        let at = self.leaves[leaf as usize].entries.rank(arena, key, 0, false);
        let Some((mut separator, mut child)) = self.insert_into_leaf(arena, leaf, at, key, node, fences)
        else {
            return;
        };
        for step in path[..self.height].iter().rev() {
            match self.insert_into_inner(arena, step, separator, child) {
                Some(split) => (separator, child) = split,
                None => return,
            }
        }
        self.raise_root(arena, separator, child);
    }

    /// The first position whose key is not below `start`.
    pub(super) fn seek(&self, arena: &Arena, start: &[u8]) -> Option<Position> {
        if self.leaves.is_empty() {
            return None;
        }
        let mut path = [Step {
            inner: NO_NODE,
            child: 0,
            fences: Fences::NONE,
        }; HEIGHT_MAX];
        let (leaf, _) = self.descend(arena, start, &mut path);
        let entries = &self.leaves[leaf as usize].entries;
        let entry = entries.rank(arena, start, 0, false);
        if entry < entries.len() {
            Some(Position { leaf, entry })
        } else {
            self.next_leaf(leaf)
        }
    }

    /// The position after `position`.
    #[inline]
    pub(super) fn next(&self, position: Position) -> Option<Position> {
        let Position { leaf, entry } = position;
        if entry + 1 < self.leaves[leaf as usize].entries.len() {
            Some(Position {
                leaf,
                entry: entry + 1,
            })
        } else {
            self.next_leaf(leaf)
        }
    }

    /// The key record at `position`.
    #[inline]
    pub(super) fn node(&self, position: Position) -> Ref {
        self.leaves[position.leaf as usize].entries.nodes[position.entry]
    }

    /// The key record `distance` entries after `position` if it lies in the same leaf.
    #[inline]
    pub(super) fn node_ahead(&self, position: Position, distance: usize) -> Option<Ref> {
        let entries = &self.leaves[position.leaf as usize].entries;
        let entry = position.entry + distance;
        (entry < entries.len()).then(|| entries.nodes[entry])
    }

    /// Bytes allocated.
    pub(super) fn held_bytes(&self) -> usize {
        self.leaves.len() * size_of::<Leaf>()
            + self.inners.len() * size_of::<Inner>()
            + (self.leaves.capacity() + self.inners.capacity()) * size_of::<usize>()
    }

    /// An upper bound of [`Tree::held_bytes`] that depends on the number of keys only.
    pub(super) fn charged_bytes(&self) -> usize {
        if self.keys == 0 {
            0
        } else {
            FIRST_KEY_BYTES + self.keys * KEY_BYTES_MAX
        }
    }

    fn next_leaf(&self, leaf: u32) -> Option<Position> {
        let next = self.leaves[leaf as usize].next;
        (next != NO_NODE).then_some(Position { leaf: next, entry: 0 })
    }

    /// The leaf that `key` belongs to and its fences; `path` gets the inner nodes passed, root first.
    fn descend(&self, arena: &Arena, key: &[u8], path: &mut [Step; HEIGHT_MAX]) -> (u32, Fences) {
        let mut number = self.root;
        let mut fences = Fences::NONE;
        for step in &mut path[..self.height] {
            let inner = &self.inners[number as usize];
            let child = inner.entries.rank(arena, key, 1, true) - 1;
            *step = Step {
                inner: number,
                child,
                fences,
            };
            if child > 0 {
                fences.low = inner.entries.nodes[child];
            }
            if child + 1 < inner.entries.len() {
                fences.high = inner.entries.nodes[child + 1];
            }
            number = inner.children[child];
        }
        (number, fences)
    }

    /// Returns the separator and number of the new leaf if the leaf had to be split.
    fn insert_into_leaf(
        &mut self,
        arena: &Arena,
        number: u32,
        at: usize,
        key: &[u8],
        node: Ref,
        fences: Fences,
    ) -> Option<(Ref, u32)> {
        let right_number = self.leaves.len() as u32;
        let leaf = &mut self.leaves[number as usize];
        if !leaf.entries.is_full() {
            leaf.entries.insert(at, key, node);
            return None;
        }
        let cut = cut_of(at, fences);
        let mut right = Leaf::new(leaf.entries.split_off(cut));
        right.next = std::mem::replace(&mut leaf.next, right_number);
        if at < cut {
            leaf.entries.insert(at, key, node);
        } else {
            right.entries.insert(at - cut, key, node);
        }
        let separator = right.entries.nodes[0];
        leaf.entries.tighten(arena, 0, fences.below(separator));
        right.entries.tighten(arena, 0, fences.above(separator));
        self.leaves.push(right);
        Some((separator, right_number))
    }

    /// Adds `child`, whose smallest key is `separator`, after the child taken at `step`. Returns the separator
    /// and number of the new inner node if this one had to be split.
    fn insert_into_inner(
        &mut self,
        arena: &Arena,
        step: &Step,
        separator: Ref,
        child: u32,
    ) -> Option<(Ref, u32)> {
        let at = step.child + 1;
        let key = records::key(arena, separator);
        let right_number = self.inners.len() as u32;
        let inner = &mut self.inners[step.inner as usize];
        if !inner.entries.is_full() {
            inner.insert(at, key, separator, child);
            return None;
        }
        let cut = cut_of(at, step.fences);
        let mut right = inner.split_off(cut);
        if at < cut {
            inner.insert(at, key, separator, child);
        } else {
            right.insert(at - cut, key, separator, child);
        }
        let middle = right.entries.nodes[0];
        inner.entries.tighten(arena, 1, step.fences.below(middle));
        right.entries.tighten(arena, 1, step.fences.above(middle));
        self.inners.push(right);
        Some((middle, right_number))
    }

    /// Puts a new root above the old one and its new sibling.
    fn raise_root(&mut self, arena: &Arena, separator: Ref, child: u32) {
        assert!(self.height < HEIGHT_MAX);
        let mut root = Inner::new(Entries::new(0));
        root.insert(0, &[], Ref::NONE, self.root);
        root.insert(1, records::key(arena, separator), separator, child);
        self.root = self.inners.len() as u32;
        self.height += 1;
        self.inners.push(root);
    }
}

impl Fences {
    const NONE: Fences = Fences {
        low: Ref::NONE,
        high: Ref::NONE,
    };

    fn below(self, high: Ref) -> Fences {
        Fences { high, ..self }
    }

    fn above(self, low: Ref) -> Fences {
        Fences { low, ..self }
    }
}

impl Leaf {
    fn new(entries: Entries) -> Box<Leaf> {
        Box::new(Leaf {
            entries,
            next: NO_NODE,
        })
    }
}

impl Inner {
    fn new(entries: Entries) -> Box<Inner> {
        Box::new(Inner {
            entries,
            children: [NO_NODE; ENTRIES],
        })
    }

    fn insert(&mut self, at: usize, key: &[u8], separator: Ref, child: u32) {
        self.children.copy_within(at..self.entries.len(), at + 1);
        self.children[at] = child;
        self.entries.insert(at, key, separator);
    }

    fn split_off(&mut self, cut: usize) -> Box<Inner> {
        let len = self.entries.len();
        let mut right = Inner::new(self.entries.split_off(cut));
        right.children[..len - cut].copy_from_slice(&self.children[cut..len]);
        right
    }
}

impl Entries {
    fn new(skip: u16) -> Entries {
        Entries {
            heads: [0; ENTRIES],
            nodes: [Ref::NONE; ENTRIES],
            len: 0,
            skip,
        }
    }

    #[inline]
    fn len(&self) -> usize {
        usize::from(self.len)
    }

    fn is_full(&self) -> bool {
        self.len() == ENTRIES
    }

    /// Number of the entries below `key`, or with `or_equal` at or below it. The first `from` entries count
    /// without being looked at. `key` lies between this node's fences.
    fn rank(&self, arena: &Arena, key: &[u8], from: usize, or_equal: bool) -> usize {
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

    fn insert(&mut self, at: usize, key: &[u8], node: Ref) {
        let len = self.len();
        self.heads.copy_within(at..len, at + 1);
        self.nodes.copy_within(at..len, at + 1);
        self.heads[at] = head_of(key, self.skip);
        self.nodes[at] = node;
        self.len += 1;
    }

    fn split_off(&mut self, cut: usize) -> Entries {
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
    fn tighten(&mut self, arena: &Arena, from: usize, fences: Fences) {
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

/// Where to cut a full node that gets one more entry at `at`.
fn cut_of(at: usize, fences: Fences) -> usize {
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
