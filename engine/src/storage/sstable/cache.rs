//! The blocks that a core keeps decompressed in memory, of all its tables together.
//!
//! The policy is that of the crate `quick_cache`: Clock-PRO as in Jiang, Chen, Zhang, "CLOCK-Pro: An Effective
//! Improvement of the CLOCK Replacement", USENIX 2005, in which what is read once, as by a scan, does not push out what
//! is read again and again.

use std::cell::{Cell, RefCell};

use quick_cache::Weighter;
use quick_cache::unsync::Cache;

use super::block::Block;
use super::builder::DATA_BLOCK_BYTES;

/// What a kept block costs besides its bytes: its place in the cache, and the head of its allocation.
const OVERHEAD_BYTES: usize = 96;

/// A table since it was opened: no other one ever has the same, even if the same file is opened twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpenId(u64);

#[derive(Clone)]
struct Bytes;

impl Weighter<(OpenId, u64), Block> for Bytes {
    fn weight(&self, _: &(OpenId, u64), block: &Block) -> u64 {
        (block.len_bytes() + OVERHEAD_BYTES) as u64
    }
}

/// Counters since the cache was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStatistics {
    /// Blocks that were there.
    pub hits: u64,
    /// Blocks that were not.
    pub misses: u64,
    /// Bytes of the blocks that are there.
    pub held_bytes: u64,
    /// Bytes that there may be.
    pub capacity_bytes: u64,
    /// Looks that a filter has spared.
    pub filter_skips: u64,
    /// Looks that filters let pass.
    pub filter_passes: u64,
    /// Those of them that found nothing.
    pub filter_false_passes: u64,
}

/// The block cache of a core.
pub struct BlockCache {
    blocks: RefCell<Cache<(OpenId, u64), Block, Bytes>>,
    opened: Cell<u64>,
    filter_skips: Cell<u64>,
    filter_passes: Cell<u64>,
    filter_false_passes: Cell<u64>,
}

impl BlockCache {
    /// A cache that keeps so many bytes at most.
    pub fn new(bytes_max: usize) -> BlockCache {
        // Most blocks are data blocks.
        let blocks = Cache::with_weighter((bytes_max / DATA_BLOCK_BYTES).max(16), bytes_max as u64, Bytes);
        BlockCache {
            blocks: RefCell::new(blocks),
            opened: Cell::new(0),
            filter_skips: Cell::new(0),
            filter_passes: Cell::new(0),
            filter_false_passes: Cell::new(0),
        }
    }

    /// Names a table that is being opened.
    pub fn name_open(&self) -> OpenId {
        self.opened.set(self.opened.get() + 1);
        OpenId(self.opened.get())
    }

    /// The block of a table at this offset, if it is there.
    pub fn get(&self, table: OpenId, offset: u64) -> Option<Block> {
        self.blocks.borrow().get(&(table, offset)).cloned()
    }

    /// Keeps a block, and lets go of others if there are too many bytes.
    pub fn insert(&self, table: OpenId, offset: u64, block: &Block) {
        self.blocks.borrow_mut().insert((table, offset), block.clone());
    }

    /// From now on so many bytes are kept at most.
    pub fn set_capacity(&self, bytes_max: usize) {
        if self.blocks.borrow().capacity() != bytes_max as u64 {
            self.blocks.borrow_mut().set_capacity(bytes_max as u64);
        }
    }

    /// A filter has let a look pass or not.
    pub(super) fn filter_said(&self, passes: bool) {
        let counter = if passes {
            &self.filter_passes
        } else {
            &self.filter_skips
        };
        counter.set(counter.get() + 1);
    }

    /// A look that a filter has let pass found nothing.
    pub(super) fn filter_was_wrong(&self) {
        self.filter_false_passes.set(self.filter_false_passes.get() + 1);
    }

    /// What was found and what was not, and what is there.
    pub fn statistics(&self) -> CacheStatistics {
        let blocks = self.blocks.borrow();
        CacheStatistics {
            hits: blocks.hits(),
            misses: blocks.misses(),
            held_bytes: blocks.weight(),
            capacity_bytes: blocks.capacity(),
            filter_skips: self.filter_skips.get(),
            filter_passes: self.filter_passes.get(),
            filter_false_passes: self.filter_false_passes.get(),
        }
    }
}
