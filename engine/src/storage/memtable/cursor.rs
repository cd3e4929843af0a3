//! Walking the keys of a memtable in order.
//!
//! A cursor borrows its table, so the table does not change under it. It stands on a key or past the last one,
//! and moves forward only. It asks the processor for key records some steps before it reaches them.

use super::arena::{Arena, Ref};
use super::tree::{Position, Tree};
use super::{Version, records};
use ostrakon_core::hlc::Timestamp;

/// How many keys ahead records are asked for.
const PREFETCH_KEYS: usize = 4;

/// A place between or on the keys of a memtable.
pub struct Cursor<'a> {
    arena: &'a Arena,
    tree: &'a Tree,
    /// `None` past the last key.
    position: Option<Position>,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(arena: &'a Arena, tree: &'a Tree, start: &[u8]) -> Cursor<'a> {
        Cursor {
            arena,
            tree,
            position: tree.seek(arena, start),
        }
    }

    /// The key that the cursor stands on; `None` past the last one.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.node().map(|node| records::key(self.arena, node))
    }

    /// The newest version of that key with a timestamp at or below `snapshot`. `None` when all its versions
    /// are newer, and past the last key.
    pub fn version_at(&self, snapshot: Timestamp) -> Option<Version<'a>> {
        records::version_at(self.arena, self.node()?, snapshot)
    }

    /// Goes to the next key; past the last one nothing happens.
    pub fn advance(&mut self) {
        let Some(position) = self.position else { return };
        self.position = self.tree.next(position);
        if let Some(node) = self.tree.node_ahead(position, PREFETCH_KEYS) {
            self.arena.prefetch(node);
        }
    }

    fn node(&self) -> Option<Ref> {
        self.position.map(|position| self.tree.node(position))
    }
}
