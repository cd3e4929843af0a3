//! Makes a table of versions that come in order.
//!
//! Bytes collect in memory; whoever drives the builder writes them out ([`TableBuilder::pending`]). Nothing is written
//! twice.

use ostrakon_core::hlc::Timestamp;

use super::block::BlockBuilder;
use super::filter::FilterBuilder;
use super::format::{Codec, FOOTER_BYTES, Footer, Handle, Properties, TableId, store};
use crate::env::disk::BLOCK_BYTES;
use crate::storage::memtable::Version;
use crate::storage::ranges::{RangeTombstone, encode};

/// A data block ends when it has reached this length, if nothing else is said. A get that has to go to the device reads
/// one.
pub const DATA_BLOCK_BYTES: usize = 4 << 10;

/// An index block ends when it has reached this length.
const INDEX_BLOCK_BYTES: usize = 16 << 10;

/// How a table is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// A data block ends when it has reached this length, before compression.
    pub block_bytes: usize,
    /// How data blocks are compressed.
    pub codec: Codec,
}

impl Default for TableOptions {
    /// 4 KiB, LZ4.
    fn default() -> TableOptions {
        TableOptions {
            block_bytes: DATA_BLOCK_BYTES,
            codec: Codec::Lz4,
        }
    }
}

/// A table that is being made.
#[derive(Debug)]
pub struct TableBuilder {
    table: TableId,
    options: TableOptions,
    /// Bytes that were not taken yet.
    pending: Vec<u8>,
    /// Where in the file they begin.
    pending_start: u64,
    data: BlockBuilder,
    index: BlockBuilder,
    root: BlockBuilder,
    filter: FilterBuilder,
    properties: Properties,
    ranges: Vec<RangeTombstone>,
}

impl TableBuilder {
    /// An empty table.
    pub fn new(table: TableId, options: TableOptions) -> TableBuilder {
        TableBuilder {
            table,
            options,
            pending: Vec::new(),
            pending_start: 0,
            data: BlockBuilder::default(),
            index: BlockBuilder::default(),
            root: BlockBuilder::default(),
            filter: FilterBuilder::default(),
            properties: Properties::default(),
            ranges: Vec::new(),
        }
    }

    /// Adds a version of a key with this xxh3-64. Its place is behind all that were added before.
    ///
    /// # Panics
    /// If it is not.
    pub fn add(&mut self, hash: u64, key: &[u8], version: &Version<'_>) {
        let keys_before = self.properties.keys;
        self.properties.note(key, version);
        if self.properties.keys > keys_before {
            self.filter.add(hash);
        }
        self.data.add(key, version);
        if self.data.len_bytes() >= self.options.block_bytes {
            self.end_data_block();
        }
    }

    /// Adds the range tombstones, in the order of their starts, when all versions were added. They cover so many bytes
    /// of older tables.
    ///
    /// # Panics
    /// If one has no end.
    pub fn add_ranges(&mut self, tombstones: Vec<RangeTombstone>, covered_bytes: u64) {
        self.properties.note_ranges(&tombstones, covered_bytes);
        self.ranges = tombstones;
    }

    /// Length of the file so far, without the block that is being filled.
    pub fn file_bytes(&self) -> u64 {
        self.pending_start + self.pending.len() as u64
    }

    /// What was added so far.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// The next bytes of the file: whole blocks of the device, as many as there are.
    pub fn pending(&self) -> &[u8] {
        &self.pending[..self.pending.len() / BLOCK_BYTES * BLOCK_BYTES]
    }

    /// So many of the pending bytes were written.
    pub fn written(&mut self, bytes: usize) {
        self.pending.drain(..bytes);
        self.pending_start += bytes as u64;
    }

    /// Ends the table. What is pending then is the rest of the file.
    ///
    /// # Panics
    /// If nothing was added.
    pub fn finish(&mut self) -> Footer {
        let is_empty = self.properties.versions == 0 && self.ranges.is_empty();
        assert!(!is_empty, "a table has a version or a range tombstone at least");
        if self.data.entries() > 0 {
            self.end_data_block();
        }
        if self.index.entries() > 0 {
            self.end_index_block();
        }
        let (start, table, out) = (self.pending_start, self.table, &mut self.pending);
        // The bits of a filter look like noise, so there is nothing to compress.
        let filter = store(out, start, table, Codec::Plain, &self.filter.finish());
        let mut root = None;
        self.root
            .finish(|bytes| root = Some(store(out, start, table, self.options.codec, bytes)));
        let properties = store(out, start, table, Codec::Plain, &self.properties.encode());
        let ranges = store(out, start, table, self.options.codec, &encode(&self.ranges));
        let file_bytes = (start + (out.len() + FOOTER_BYTES) as u64).next_multiple_of(BLOCK_BYTES as u64);
        let footer = Footer {
            table,
            file_bytes,
            root: root.expect("it was just stored"),
            filter,
            properties,
            ranges,
        };
        out.resize((file_bytes - start) as usize - FOOTER_BYTES, 0);
        out.extend_from_slice(&footer.encode());
        footer
    }

    fn end_data_block(&mut self) {
        let (start, table, codec) = (self.pending_start, self.table, self.options.codec);
        end_block(&mut self.data, &mut self.index, |bytes| {
            store(&mut self.pending, start, table, codec, bytes)
        });
        if self.index.len_bytes() >= INDEX_BLOCK_BYTES {
            self.end_index_block();
        }
    }

    fn end_index_block(&mut self) {
        let (start, table, codec) = (self.pending_start, self.table, self.options.codec);
        end_block(&mut self.index, &mut self.root, |bytes| {
            store(&mut self.pending, start, table, codec, bytes)
        });
    }
}

/// Ends a block, and notes in the one above where it lies and what it ends with.
fn end_block(block: &mut BlockBuilder, above: &mut BlockBuilder, store: impl FnOnce(&[u8]) -> Handle) {
    let (key, timestamp) = (block.last_key().to_vec(), block.last_timestamp());
    let mut handle = None;
    block.finish(|bytes| handle = Some(store(bytes)));
    let place = handle.expect("it was just stored").encode();
    above.add(&key, &reference(timestamp, &place));
}

fn reference(timestamp: Timestamp, place: &[u8]) -> Version<'_> {
    Version {
        timestamp,
        value: Some(place),
        expiry: None,
    }
}
