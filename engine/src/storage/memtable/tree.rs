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
//! 5. Leaves are linked in both directions, and none is empty: a walk either way never goes up.
//!
//! Measured against an arena skip list (p = 1/4, key prefixes in its nodes, no hash index beside it) on random
//! 16-byte keys: a new key costs a third of the time among a million keys in one table as in 64 tables, this
//! tree's share of the arena and index included, since a skip list follows some twenty pointers that are not in
//! cache. A scan finds its next references side by side.

use super::arena::{Arena, Ref};
use super::entries::{ENTRIES, ENTRIES_MIN, Entries, Fences, cut_of};
use super::records;

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

/// A leaf is twelve cache lines.
const _: () = assert!(size_of::<Leaf>() == 12 * 64);
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
    previous: u32,
}

struct Inner {
    entries: Entries,
    children: [u32; ENTRIES],
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
        let mut path = [Step::NONE; HEIGHT_MAX];
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
        let Position { leaf, entry } = self.rank(arena, start)?;
        if entry < self.leaves[leaf as usize].entries.len() {
            Some(Position { leaf, entry })
        } else {
            self.next_leaf(leaf)
        }
    }

    /// The last position whose key is below `end`.
    pub(super) fn seek_below(&self, arena: &Arena, end: &[u8]) -> Option<Position> {
        self.previous(self.rank(arena, end)?)
    }

    /// The last position.
    pub(super) fn last(&self) -> Option<Position> {
        if self.leaves.is_empty() {
            return None;
        }
        let mut number = self.root;
        for _ in 0..self.height {
            let inner = &self.inners[number as usize];
            number = inner.children[inner.entries.len() - 1];
        }
        Some(self.last_of_leaf(number))
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

    /// The position before `position`.
    #[inline]
    pub(super) fn previous(&self, position: Position) -> Option<Position> {
        let Position { leaf, entry } = position;
        if entry > 0 {
            Some(Position {
                leaf,
                entry: entry - 1,
            })
        } else {
            self.previous_leaf(leaf)
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

    /// The key record `distance` entries before `position` if it lies in the same leaf.
    #[inline]
    pub(super) fn node_behind(&self, position: Position, distance: usize) -> Option<Ref> {
        let entry = position.entry.checked_sub(distance)?;
        Some(self.leaves[position.leaf as usize].entries.nodes[entry])
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

    fn previous_leaf(&self, leaf: u32) -> Option<Position> {
        let previous = self.leaves[leaf as usize].previous;
        (previous != NO_NODE).then(|| self.last_of_leaf(previous))
    }

    fn last_of_leaf(&self, leaf: u32) -> Position {
        let entry = self.leaves[leaf as usize].entries.len() - 1;
        Position { leaf, entry }
    }

    /// The place of `key` in the leaf that it belongs to: after the entries below it, hence maybe after all.
    fn rank(&self, arena: &Arena, key: &[u8]) -> Option<Position> {
        if self.leaves.is_empty() {
            return None;
        }
        let mut path = [Step::NONE; HEIGHT_MAX];
        let (leaf, _) = self.descend(arena, key, &mut path);
        let entry = self.leaves[leaf as usize].entries.rank(arena, key, 0, false);
        Some(Position { leaf, entry })
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
        let next = std::mem::replace(&mut leaf.next, right_number);
        right.next = next;
        right.previous = number;
        if at < cut {
            leaf.entries.insert(at, key, node);
        } else {
            right.entries.insert(at - cut, key, node);
        }
        let separator = right.entries.nodes[0];
        leaf.entries.tighten(arena, 0, fences.below(separator));
        right.entries.tighten(arena, 0, fences.above(separator));
        self.leaves.push(right);
        if next != NO_NODE {
            self.leaves[next as usize].previous = right_number;
        }
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

impl Step {
    /// No step: what a path holds below its last one.
    const NONE: Step = Step {
        inner: NO_NODE,
        child: 0,
        fences: Fences::NONE,
    };
}

impl Leaf {
    fn new(entries: Entries) -> Box<Leaf> {
        Box::new(Leaf {
            entries,
            next: NO_NODE,
            previous: NO_NODE,
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

#[cfg(test)]
mod tests {
    use ostrakon_core::hlc::Timestamp;

    use super::super::Mutation;
    use super::*;

    /// Checks the nodes of a subtree against the fences around it, and appends its leaves in order. `is_last`: it
    /// lies at the right edge of the tree.
    fn check_subtree(
        (tree, arena): (&Tree, &Arena),
        (number, height): (u32, usize),
        fences: Fences,
        is_last: bool,
        leaves: &mut Vec<u32>,
    ) {
        if height == 0 {
            check_entries(arena, &tree.leaves[number as usize].entries, 0, fences, is_last);
            leaves.push(number);
            return;
        }
        let Inner { entries, children } = &*tree.inners[number as usize];
        check_entries(arena, entries, 1, fences, is_last);
        assert_eq!(entries.nodes[0], fences.low, "entry 0 is the lower fence");
        for (child, &number) in children[..entries.len()].iter().enumerate() {
            let mut inside = fences.above(entries.nodes[child]);
            let is_last_child = child + 1 == entries.len();
            if !is_last_child {
                inside = inside.below(entries.nodes[child + 1]);
            }
            let below = (number, height - 1);
            check_subtree((tree, arena), below, inside, is_last && is_last_child, leaves);
        }
    }

    fn check_entries(arena: &Arena, entries: &Entries, from: usize, fences: Fences, is_last: bool) {
        let least = if is_last { 1 } else { ENTRIES_MIN };
        assert!(entries.len() >= least, "{} entries", entries.len());
        let keys: Vec<&[u8]> = entries.nodes[from..entries.len()]
            .iter()
            .map(|&node| records::key(arena, node))
            .collect();
        assert!(keys.is_sorted_by(|left, right| left < right));
        for (position, &key) in keys.iter().enumerate() {
            assert!(fences.low == Ref::NONE || key >= records::key(arena, fences.low));
            assert!(fences.high == Ref::NONE || key < records::key(arena, fences.high));
            assert_eq!(entries.rank(arena, key, from, false), from + position);
        }
    }

    /// Checks all nodes, and that the links pass every leaf once, either way.
    fn check(tree: &Tree, arena: &Arena) {
        let mut leaves = Vec::new();
        check_subtree(
            (tree, arena),
            (tree.root, tree.height),
            Fences::NONE,
            true,
            &mut leaves,
        );
        assert_eq!(leaves.len(), tree.leaves.len());
        let mut before = NO_NODE;
        for (position, &number) in leaves.iter().enumerate() {
            let leaf = &tree.leaves[number as usize];
            assert_eq!(leaf.previous, before, "leaf {position}");
            let after = leaves.get(position + 1).copied().unwrap_or(NO_NODE);
            assert_eq!(leaf.next, after, "leaf {position}");
            before = number;
        }
        assert_eq!(tree.last().map(|last| last.leaf), leaves.last().copied());
    }

    #[test]
    fn nodes_lie_between_their_fences_and_leaves_are_linked_both_ways() {
        let orders: [fn(u32) -> u32; 4] = [
            |n| n,
            |n| u32::MAX - n,
            |n| n.wrapping_mul(0x9e37_79b1),
            // Runs that grow at their ends, inside the tree.
            |n| ((n % 7) << 28) | (n / 7),
        ];
        for (order, number_of) in orders.iter().enumerate() {
            for prefix in ["", "a/common/prefix/"] {
                let (mut arena, mut tree) = (Arena::new(), Tree::new());
                for n in 0..20_000 {
                    let key = [prefix.as_bytes(), &number_of(n).to_be_bytes()].concat();
                    let node = records::write_key(&mut arena, &key, Timestamp(1), Mutation::Tombstone);
                    tree.insert(&arena, &key, node);
                    if n < 200 || n % 2000 == 0 {
                        check(&tree, &arena);
                    }
                }
                check(&tree, &arena);
                assert!(
                    tree.height >= 2,
                    "order {order} with prefix {prefix:?}: a low tree"
                );
            }
        }
    }
}
