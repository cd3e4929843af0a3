//! Walking the keys of a memtable in order, or against it.
//!
//! A cursor borrows its table, so the table does not change under it. It stands on a key, or on none once it has
//! left the keys at either end; from there it does not come back. It asks the processor for key records some steps
//! before it reaches them.

use super::arena::{Arena, Ref};
use super::tree::{Position, Tree};
use super::{Version, records};
use ostrakon_core::hlc::Timestamp;

/// How many keys ahead, in the direction of the walk, records are asked for.
const PREFETCH_KEYS: usize = 4;

/// A place on the keys of a memtable or beyond them.
pub struct Cursor<'a> {
    arena: &'a Arena,
    tree: &'a Tree,
    /// `None` beyond the keys.
    position: Option<Position>,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(arena: &'a Arena, tree: &'a Tree, position: Option<Position>) -> Cursor<'a> {
        Cursor {
            arena,
            tree,
            position,
        }
    }

    /// The key that the cursor stands on; `None` beyond the keys.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.node().map(|node| records::key(self.arena, node))
    }

    /// The newest version of that key with a timestamp at or below `snapshot`. `None` when all its versions
    /// are newer, and beyond the keys.
    pub fn version_at(&self, snapshot: Timestamp) -> Option<Version<'a>> {
        records::version_at(self.arena, self.node()?, snapshot)
    }

    /// All versions of that key, from the newest to the oldest; none beyond the keys.
    pub fn versions(&self) -> impl Iterator<Item = Version<'a>> + use<'a> {
        let arena = self.arena;
        self.node()
            .into_iter()
            .flat_map(move |node| records::versions(arena, node))
    }

    /// Goes to the next key, from the last one beyond the keys; there nothing happens.
    pub fn advance(&mut self) {
        let Some(position) = self.position else { return };
        self.position = self.tree.next(position);
        if let Some(node) = self.tree.node_ahead(position, PREFETCH_KEYS) {
            self.arena.prefetch(node);
        }
    }

    /// Goes to the key before, from the first one beyond the keys; there nothing happens.
    pub fn retreat(&mut self) {
        let Some(position) = self.position else { return };
        self.position = self.tree.previous(position);
        if let Some(node) = self.tree.node_behind(position, PREFETCH_KEYS) {
            self.arena.prefetch(node);
        }
    }

    fn node(&self) -> Option<Ref> {
        self.position.map(|position| self.tree.node(position))
    }
}
