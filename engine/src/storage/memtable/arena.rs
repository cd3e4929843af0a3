//! Append-only memory for one memtable, in chunks, addressed by 32-bit references.
//!
//! ```text
//! reference:  chunk number (15 bits) | offset in the chunk in 8-byte units (17 bits)
//! ```
//!
//! - A chunk is a quarter as large as all before it together, at least 512 B and at most 1 MiB, so that thousands
//!   of nearly empty tables stay small and none holds much more than it uses.
//! - A block larger than [`DEDICATED_ABOVE_BYTES`] gets a chunk of its own size, and the chunk that was being
//!   filled stays open. A smaller one that does not fit opens the next chunk; the rest of the old one is lost.
//! - Chunk 0 is an empty dummy, so no block has reference 0, which means "none".
//!
//! Invariant: a chunk never grows beyond the capacity that it was opened with, so bytes never move.

use super::prefetch::prefetch_read;

/// Blocks above this size get their own chunk.
pub(super) const DEDICATED_ABOVE_BYTES: usize = 256 << 10;
/// Size of the first chunks.
const CHUNK_BYTES_MIN: usize = 512;
/// Size of all chunks once the table has grown.
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// A chunk is at most this part of those before it.
const GROWTH_DIVISOR: usize = 4;
/// Largest chunk number, plus one.
pub(super) const CHUNKS_MAX: usize = 1 << (32 - OFFSET_BITS);
/// What one entry of the chunk table costs at most, given that its vector doubles.
const CHUNK_ENTRY_BYTES: usize = 2 * size_of::<Vec<u8>>();
/// Alignment of blocks, in bytes.
pub(super) const UNIT_BYTES: usize = 8;

const OFFSET_BITS: u32 = 17;

const _: () = assert!(CHUNK_BYTES_MAX / UNIT_BYTES <= 1 << OFFSET_BITS);
const _: () = assert!(DEDICATED_ABOVE_BYTES <= CHUNK_BYTES_MAX);

/// Place of a block in an [`Arena`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ref(pub(super) u32);

impl Ref {
    /// No block.
    pub(super) const NONE: Ref = Ref(0);

    fn new(chunk: usize, offset: usize) -> Ref {
        Ref((chunk as u32) << OFFSET_BITS | (offset / UNIT_BYTES) as u32)
    }

    /// The place `bytes` after this one, in the same block. `bytes` is a multiple of [`UNIT_BYTES`].
    pub(super) fn plus(self, bytes: usize) -> Ref {
        Ref(self.0 + (bytes / UNIT_BYTES) as u32)
    }

    /// The place `bytes` before this one, in the same block. `bytes` is a multiple of [`UNIT_BYTES`].
    pub(super) fn minus(self, bytes: usize) -> Ref {
        Ref(self.0 - (bytes / UNIT_BYTES) as u32)
    }

    #[inline]
    fn chunk(self) -> usize {
        (self.0 >> OFFSET_BITS) as usize
    }

    #[inline]
    fn offset(self) -> usize {
        (self.0 & ((1 << OFFSET_BITS) - 1)) as usize * UNIT_BYTES
    }
}

pub(super) struct Arena {
    chunks: Vec<Vec<u8>>,
    /// The chunk that small blocks go to; 0 while there is none.
    open: usize,
    /// Capacity of the shared chunks before the open one, whether filled or lost.
    closed_bytes: usize,
    /// Capacity of the chunks that hold one large block each.
    dedicated_bytes: usize,
}

impl Arena {
    pub(super) fn new() -> Arena {
        Arena {
            chunks: vec![Vec::new()],
            open: 0,
            closed_bytes: 0,
            dedicated_bytes: 0,
        }
    }

    /// Appends a block of `len` bytes, a multiple of [`UNIT_BYTES`], that `fill` must write in full.
    pub(super) fn append(&mut self, len: usize, fill: impl FnOnce(Ref, &mut Vec<u8>)) -> Ref {
        assert!(len > 0 && len.is_multiple_of(UNIT_BYTES));
        let number = self.chunk_with_room(len);
        let chunk = &mut self.chunks[number];
        let start = chunk.len();
        let capacity = chunk.capacity();
        let place = Ref::new(number, start);
        fill(place, chunk);
        assert!(
            chunk.len() == start + len && chunk.capacity() == capacity,
            "a block was not written as declared"
        );
        place
    }

    /// The bytes from the start of a block to the end of its chunk.
    #[inline]
    pub(super) fn bytes_from(&self, place: Ref) -> &[u8] {
        &self.chunks[place.chunk()][place.offset()..]
    }

    /// As [`Arena::bytes_from`], to change bytes in place.
    #[inline]
    pub(super) fn bytes_from_mut(&mut self, place: Ref) -> &mut [u8] {
        &mut self.chunks[place.chunk()][place.offset()..]
    }

    /// Asks the processor for the first cache lines of a block.
    #[inline]
    pub(super) fn prefetch(&self, place: Ref) {
        let bytes = self.bytes_from(place);
        for line in 0..3 {
            if let Some(byte) = bytes.get(line * 64) {
                prefetch_read(byte);
            }
        }
    }

    /// Bytes allocated, the chunk table included.
    pub(super) fn held_bytes(&self) -> usize {
        let open_bytes = self.chunks[self.open].capacity();
        self.chunks.capacity() * size_of::<Vec<u8>>() + self.closed_bytes + open_bytes + self.dedicated_bytes
    }

    /// An upper bound of [`Arena::held_bytes`] that has no steps: what is filled, a quarter of that (at most one
    /// full-sized chunk) for the rest of the open chunk, the large blocks, and the chunk table.
    ///
    /// It is a bound because the open chunk is never larger than a quarter of all before it and
    /// [`CHUNK_BYTES_MIN`] together, nor than [`CHUNK_BYTES_MAX`], unless its first block fills it.
    pub(super) fn charged_bytes(&self) -> usize {
        let filled_bytes = self.closed_bytes + self.chunks[self.open].len();
        let ahead_bytes = (filled_bytes / GROWTH_DIVISOR + CHUNK_BYTES_MIN).min(CHUNK_BYTES_MAX);
        // A vector's first allocation has room for four entries.
        filled_bytes + ahead_bytes + self.dedicated_bytes + (self.chunks.len() + 2) * CHUNK_ENTRY_BYTES
    }

    /// What one [`Arena::append`] of `len` bytes adds to [`Arena::charged_bytes`] at most: a block that opens a
    /// chunk may leave a smaller rest of the old one unused, and what is filled counts one and a quarter times.
    pub(super) const fn append_cost_bytes(len: usize) -> usize {
        CHUNK_ENTRY_BYTES
            + if len > DEDICATED_ABOVE_BYTES {
                len
            } else {
                2 * len + (2 * len).div_ceil(GROWTH_DIVISOR)
            }
    }

    fn chunk_with_room(&mut self, len: usize) -> usize {
        if len > DEDICATED_ABOVE_BYTES {
            self.dedicated_bytes += len;
            return self.add_chunk(len);
        }
        let open = &self.chunks[self.open];
        if open.capacity() - open.len() < len {
            self.closed_bytes += open.capacity();
            let capacity = (self.closed_bytes / GROWTH_DIVISOR)
                .clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX)
                .max(len);
            self.open = self.add_chunk(capacity);
        }
        self.open
    }

    fn add_chunk(&mut self, capacity: usize) -> usize {
        let number = self.chunks.len();
        assert!(
            number < CHUNKS_MAX,
            "memtable filled past MEMORY_BYTES_MAX: it must be frozen before"
        );
        let chunk = Vec::with_capacity(capacity);
        assert!(
            chunk.capacity() == capacity,
            "the allocator gave another size than the accounting assumes"
        );
        self.chunks.push(chunk);
        number
    }
}
