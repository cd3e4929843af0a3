//! What a memtable counts against the memory budget, and what one insert may add to it.
//!
//! Memory is taken in steps (a chunk of up to 1 MiB, an index segment of 32 KiB), and every pending write may be
//! the one that causes a step. Admission that reserved a step for each pending write would reserve a gigabyte
//! for a thousand of them. So the count runs ahead of the steps instead: each part of the table has a
//! `charged_bytes` that grows evenly with what is stored and never lies below what is held. Then the bounds of
//! single inserts are small, and they add up over any number of pending ones.

use super::arena::{Arena, CHUNKS_MAX, DEDICATED_ABOVE_BYTES};
use super::index::{self, Index};
use super::records::{key_block_bytes, version_block_bytes};
use super::tree::{self, Tree};
use super::{Memtable, Ref};

/// No table may be charged more than this: beyond it the 32-bit references may run out (32 GiB with small
/// values, 8 GiB with nothing but values just above the size that gets a chunk of its own).
///
/// Chunks that small blocks share are larger than those chunks of large blocks, but for the first few.
pub const MEMORY_BYTES_MAX: usize = (CHUNKS_MAX - FIRST_CHUNKS) * DEDICATED_ABOVE_BYTES;

/// More than the number of chunks that a table opens before they are of full size.
const FIRST_CHUNKS: usize = 64;

const _: () = assert!(size_of::<Ref>() == 4);

/// The bytes charged for a table, or those it holds if uneven hashes made that more.
pub(super) fn memory_bytes(arena: &Arena, index: &Index, tree: &Tree) -> usize {
    let index_bytes = index.charged_bytes().max(index.held_bytes());
    size_of::<Memtable>() + arena.charged_bytes() + index_bytes + tree.charged_bytes()
}

/// Upper bound of what one insert adds to [`memory_bytes`]: as new key of a table or as the first one, or as a
/// version of an existing key.
pub(super) const fn insert_cost(key_len: usize, value_len: usize, is_expiring: bool) -> usize {
    let new_key_bytes = Arena::append_cost_bytes(key_block_bytes(key_len, value_len, is_expiring));
    let version_bytes = Arena::append_cost_bytes(version_block_bytes(value_len, is_expiring));
    let block_bytes = if new_key_bytes > version_bytes {
        new_key_bytes
    } else {
        version_bytes
    };
    let first_bytes = index::FIRST_KEY_BYTES + tree::FIRST_KEY_BYTES;
    block_bytes + first_bytes + index::KEY_BYTES_MAX + tree::KEY_BYTES_MAX
}
