//! The blocks that a core keeps decompressed in memory, of all its tables together.
//!
//! The policy is that of the crate `quick_cache`: Clock-PRO as in Jiang, Chen, Zhang, "CLOCK-Pro: An Effective Improvement
//! of the CLOCK Replacement", USENIX 2005, in which what is read once, as by a scan, does not push out what is read
//! again and again.

use std::cell::RefCell;

use ostrakon_core::lsm::TableNumber;
use quick_cache::Weighter;
use quick_cache::unsync::Cache;

use super::block::Block;

/// What a kept block costs besides its bytes: its place in the cache, and the head of its allocation.
const OVERHEAD_BYTES: usize = 96;

/// What most blocks have, to size the table of the cache.
const USUAL_BYTES: usize = 16 << 10;

#[derive(Clone)]
struct Bytes;

impl Weighter<(TableNumber, u64), Block> for Bytes {
    fn weight(&self, _: &(TableNumber, u64), block: &Block) -> u64 {
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
}

/// The block cache of a core.
pub struct BlockCache {
    blocks: RefCell<Cache<(TableNumber, u64), Block, Bytes>>,
}

impl BlockCache {
    /// A cache that keeps so many bytes at most.
    pub fn new(bytes_max: usize) -> BlockCache {
        let blocks = Cache::with_weighter((bytes_max / USUAL_BYTES).max(16), bytes_max as u64, Bytes);
        BlockCache {
            blocks: RefCell::new(blocks),
        }
    }

    /// The block of a table at this offset, if it is there.
    pub fn get(&self, table: TableNumber, offset: u64) -> Option<Block> {
        self.blocks.borrow_mut().get(&(table, offset)).cloned()
    }

    /// Keeps a block, and lets go of others if there are too many bytes.
    pub fn insert(&self, table: TableNumber, offset: u64, block: &Block) {
        self.blocks.borrow_mut().insert((table, offset), block.clone());
    }

    /// Bytes of the blocks that are kept.
    pub fn held_bytes(&self) -> u64 {
        self.blocks.borrow().weight()
    }

    /// What was found and what was not.
    pub fn statistics(&self) -> CacheStatistics {
        let blocks = self.blocks.borrow();
        CacheStatistics {
            hits: blocks.hits(),
            misses: blocks.misses(),
        }
    }
}
