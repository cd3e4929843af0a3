//! Bytes of simulated files, sparse: a block of zeros is not stored, and equal blocks may be shared.
//!
//! Log segments are tens of MiB of zeros. A write of zeros over nothing costs nothing here, and a copy of a
//! file's content (for what is durable, for a snapshot) copies pointers.

use std::any::Any;
use std::collections::BTreeMap;
use std::rc::Rc;

use ostrakon::env::disk::BLOCK_BYTES;
use ostrakon::env::{DiskBuf, DiskMemory};

/// What a device writes at once.
pub const SECTOR_BYTES: usize = 512;

/// Sectors of a block.
pub(super) const SECTORS: usize = BLOCK_BYTES / SECTOR_BYTES;

/// A stored block.
pub(super) type Block = Rc<[u8; BLOCK_BYTES]>;

/// What buffers of zeros show. It is never written, so it takes no memory, and most of what a start of a node
/// reads and writes is zeros: without it, a start spends most of its time on clearing pages.
static ZEROS: [u8; 8 << 20] = [0; 8 << 20];

/// Memory of a [`DiskBuf`].
pub(super) enum Memory {
    /// So many zeros, at most as many as [`ZEROS`] has.
    Zeros(usize),
    /// Anything.
    Bytes(Vec<u8>),
}

impl Memory {
    pub(super) fn zeroed(len_bytes: usize) -> Memory {
        if len_bytes <= ZEROS.len() {
            Memory::Zeros(len_bytes)
        } else {
            Memory::Bytes(vec![0; len_bytes])
        }
    }
}

impl DiskMemory for Memory {
    fn bytes(&self) -> &[u8] {
        match self {
            Memory::Zeros(len_bytes) => &ZEROS[..*len_bytes],
            Memory::Bytes(bytes) => bytes,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        if let Memory::Zeros(len_bytes) = self {
            *self = Memory::Bytes(vec![0; *len_bytes]);
        }
        match self {
            Memory::Bytes(bytes) => bytes,
            Memory::Zeros(_) => unreachable!("replaced above"),
        }
    }

    fn truncate(&mut self, len_bytes: usize) {
        assert!(len_bytes <= self.bytes().len(), "a buffer can't grow");
        match self {
            Memory::Zeros(zeros) => *zeros = len_bytes,
            Memory::Bytes(bytes) => bytes.truncate(len_bytes),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The bytes of one write, cut into blocks.
#[derive(Clone)]
pub(super) struct WriteData {
    pub(super) first_block: u64,
    pub(super) block_count: u64,
    /// `None` when all of it is zero; inside, `None` for a block of zeros.
    blocks: Option<Rc<[Option<Block>]>>,
}

impl WriteData {
    /// The content of a buffer of this environment.
    pub(super) fn of(buffer: &DiskBuf, offset: u64) -> WriteData {
        let memory = buffer
            .memory()
            .downcast_ref::<Memory>()
            .expect("a buffer of this environment");
        let blocks = match memory {
            Memory::Zeros(_) => None,
            Memory::Bytes(bytes) => Some(bytes.chunks_exact(BLOCK_BYTES).map(stored).collect()),
        };
        WriteData {
            first_block: offset / BLOCK_BYTES as u64,
            block_count: (memory.bytes().len() / BLOCK_BYTES) as u64,
            blocks,
        }
    }

    /// The same blocks at another place.
    pub(super) fn moved_to(&self, first_block: u64) -> WriteData {
        WriteData {
            first_block,
            ..self.clone()
        }
    }

    pub(super) fn offset(&self) -> u64 {
        self.first_block * BLOCK_BYTES as u64
    }

    pub(super) fn len_bytes(&self) -> u64 {
        self.block_count * BLOCK_BYTES as u64
    }

    pub(super) fn end(&self) -> u64 {
        self.offset() + self.len_bytes()
    }

    pub(super) fn end_block(&self) -> u64 {
        self.first_block + self.block_count
    }

    pub(super) fn is_zero(&self) -> bool {
        self.blocks.is_none()
    }

    /// The block at a place of the file, which is within this write.
    pub(super) fn block(&self, index: u64) -> Option<&Block> {
        self.blocks.as_ref()?[(index - self.first_block) as usize].as_ref()
    }

    /// The part of it in `[first, end)`, which is not empty.
    pub(super) fn part(&self, first: u64, end: u64) -> WriteData {
        let range = (first - self.first_block) as usize..(end - self.first_block) as usize;
        WriteData {
            first_block: first,
            block_count: end - first,
            blocks: self.blocks.as_ref().map(|blocks| blocks[range].to_vec().into()),
        }
    }
}

/// A block as it is stored: zeros are not.
fn stored(bytes: &[u8]) -> Option<Block> {
    let (words, _) = bytes.as_chunks::<8>();
    if words.iter().all(|word| u64::from_ne_bytes(*word) == 0) {
        return None;
    }
    Some(Rc::new(bytes.try_into().expect("a whole block")))
}

/// The content of a file. What is not stored is zero.
#[derive(Clone, Default)]
pub(super) struct Blocks(BTreeMap<u64, Block>);

impl Blocks {
    pub(super) fn get(&self, index: u64) -> Option<&Block> {
        self.0.get(&index)
    }

    pub(super) fn put(&mut self, index: u64, block: Option<Block>) {
        match block {
            Some(block) => self.0.insert(index, block),
            None => self.0.remove(&index),
        };
    }

    /// All of a write.
    pub(super) fn store(&mut self, data: &WriteData) {
        let range = data.first_block..data.end_block();
        if data.is_zero() {
            while let Some((&index, _)) = self.0.range(range.clone()).next() {
                self.0.remove(&index);
            }
            return;
        }
        for index in range {
            self.put(index, data.block(index).cloned());
        }
    }

    /// The sectors of a write (counted from its start) for which `keep` says yes.
    pub(super) fn store_sectors(&mut self, data: &WriteData, mut keep: impl FnMut(usize) -> bool) {
        let mut sector = 0;
        for index in data.first_block..data.end_block() {
            let mut mixed = *bytes_of(self.get(index));
            let new = bytes_of(data.block(index));
            for start in (0..BLOCK_BYTES).step_by(SECTOR_BYTES) {
                if keep(sector) {
                    mixed[start..start + SECTOR_BYTES].copy_from_slice(&new[start..start + SECTOR_BYTES]);
                }
                sector += 1;
            }
            self.put(index, stored(&mixed));
        }
    }

    /// Bytes at any place, into this content.
    pub(super) fn put_bytes(&mut self, offset: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let (index, within) = (at / BLOCK_BYTES as u64, (at % BLOCK_BYTES as u64) as usize);
            let part = (BLOCK_BYTES - within).min(bytes.len() - done);
            let mut block = *bytes_of(self.get(index));
            block[within..within + part].copy_from_slice(&bytes[done..done + part]);
            self.put(index, stored(&block));
            done += part;
        }
    }

    /// A range of blocks as a buffer.
    pub(super) fn read(&self, offset: u64, len_bytes: usize) -> DiskBuf {
        let first = offset / BLOCK_BYTES as u64;
        let mut memory = Memory::zeroed(len_bytes);
        for (index, block) in self.0.range(first..first + (len_bytes / BLOCK_BYTES) as u64) {
            let start = (index - first) as usize * BLOCK_BYTES;
            memory.bytes_mut()[start..start + BLOCK_BYTES].copy_from_slice(&block[..]);
        }
        DiskBuf::new(Box::new(memory))
    }

    /// Bytes at any place.
    pub(super) fn bytes(&self, offset: u64, len_bytes: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len_bytes);
        while bytes.len() < len_bytes {
            let at = offset + bytes.len() as u64;
            let (index, within) = (at / BLOCK_BYTES as u64, (at % BLOCK_BYTES as u64) as usize);
            let part = (BLOCK_BYTES - within).min(len_bytes - bytes.len());
            bytes.extend_from_slice(&bytes_of(self.get(index))[within..within + part]);
        }
        bytes
    }

    /// Indexes of the blocks that are not zero, ascending.
    pub(super) fn indexes(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.keys().copied()
    }
}

/// The bytes of a block that may not be stored.
pub(super) fn bytes_of(block: Option<&Block>) -> &[u8; BLOCK_BYTES] {
    const ZEROS: &[u8; BLOCK_BYTES] = &[0; BLOCK_BYTES];
    block.map_or(ZEROS, |block| &**block)
}
