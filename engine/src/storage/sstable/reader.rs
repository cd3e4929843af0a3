//! Reads a table: its parts when it is opened, its blocks through the core's cache when they are asked for.

use core::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;

use super::block::{Block, BlockCursor};
use super::cache::{BlockCache, OpenId};
use super::filter;
use super::format::{Damage, FOOTER_BYTES, Footer, Handle, Properties, TableId, load};
use crate::env::disk::{BLOCK_BYTES, Disk, DiskBuf, File, OpenMode};
use crate::storage::memtable::Version;
use crate::storage::ranges::{RangeTombstones, decode};

/// Why a table could not be read.
#[derive(Debug)]
#[non_exhaustive]
pub enum TableError {
    /// The operating system could not.
    Io {
        /// The table.
        id: TableId,
        /// Its file.
        path: PathBuf,
        /// From the start of the file, in bytes.
        offset: u64,
        /// What it said.
        source: io::Error,
    },
    /// The file has other bytes than were written.
    Damaged {
        /// The table.
        id: TableId,
        /// Its file.
        path: PathBuf,
        /// Where and what.
        damage: Damage,
    },
}

impl fmt::Display for TableError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableError::Io {
                path, offset, source, ..
            } => {
                write!(
                    formatter,
                    "cannot read {} at offset {offset}: {source}",
                    path.display()
                )
            }
            TableError::Damaged { path, damage, .. } => {
                write!(formatter, "{} is damaged {damage}", path.display())
            }
        }
    }
}

impl core::error::Error for TableError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            TableError::Io { source, .. } => Some(source),
            TableError::Damaged { damage, .. } => Some(damage),
        }
    }
}

impl TableError {
    /// Which table, and where in its file, in bytes.
    pub fn place(&self) -> (TableId, u64) {
        match self {
            TableError::Io { id, offset, .. } => (*id, *offset),
            TableError::Damaged { id, damage, .. } => (*id, damage.offset),
        }
    }
}

/// An open table.
pub struct Table {
    cache: Rc<BlockCache>,
    open_id: OpenId,
    file: Rc<dyn File>,
    path: PathBuf,
    footer: Footer,
    properties: Properties,
    root: Block,
    filter: Rc<[u8]>,
    ranges: RangeTombstones,
}

/// Bytes of a table's file.
pub(super) struct FilePart {
    /// Where they begin.
    start: u64,
    buffer: DiskBuf,
}

/// Where a version was found: the block, and a place in it.
pub type Found = BlockCursor;

/// What is known of a key's version without a read.
pub enum Look {
    /// It is here.
    Found(Found),
    /// The table has none.
    Absent,
    /// A block has to be read.
    Unknown,
}

impl Table {
    /// Opens the file of a table and reads its footer, filter, root, properties and range tombstones. Its other blocks
    /// are read through the cache.
    ///
    /// # Errors
    /// If it can't be read, or is not whole.
    pub async fn open(
        disk: &dyn Disk,
        path: &Path,
        id: TableId,
        cache: &Rc<BlockCache>,
    ) -> Result<Table, TableError> {
        let file = disk.open(path, OpenMode::Read).await;
        let file = file.map_err(|source| TableError::Io {
            id,
            path: path.to_owned(),
            offset: 0,
            source,
        })?;
        let opened = Table::read_ends(Rc::clone(&file), path, id, cache).await;
        if opened.is_err() {
            // Why it can't be read is what tells.
            let _ = file.close().await;
        }
        opened
    }

    /// The table of an open file.
    async fn read_ends(
        file: Rc<dyn File>,
        path: &Path,
        id: TableId,
        cache: &Rc<BlockCache>,
    ) -> Result<Table, TableError> {
        let damaged = |damage| TableError::Damaged {
            id,
            path: path.to_owned(),
            damage,
        };
        let file_bytes = file.len_bytes();
        let Some(end_start) = file_bytes
            .checked_sub(BLOCK_BYTES as u64)
            .filter(|start| start.is_multiple_of(BLOCK_BYTES as u64))
        else {
            return Err(damaged(Damage {
                offset: file_bytes,
                what: format!("the file ends here, which is no multiple of {BLOCK_BYTES}"),
            }));
        };
        let end = file.read_at(end_start, BLOCK_BYTES).await;
        let end = end.map_err(|source| TableError::Io {
            id,
            path: path.to_owned(),
            offset: end_start,
            source,
        })?;
        let footer = end
            .bytes()
            .last_chunk::<FOOTER_BYTES>()
            .expect("a block is longer");
        let footer = Footer::decode(footer, id, file_bytes).map_err(damaged)?;
        let mut table = Table {
            cache: Rc::clone(cache),
            open_id: cache.name_open(),
            file,
            path: path.to_owned(),
            footer,
            properties: Properties::default(),
            root: Block::empty(),
            filter: Rc::default(),
            ranges: RangeTombstones::default(),
        };
        table.root = table.block(footer.root).await?;
        table.filter = table.payload(footer.filter).await?;
        let properties = table.payload(footer.properties).await?;
        let properties = Properties::decode(&properties)
            .ok_or_else(|| table.damaged(footer.properties.offset, "these are no properties".to_owned()))?;
        table.properties = properties;
        if !filter::is_length(table.filter.len()) {
            return Err(table.damaged(footer.filter.offset, "this is no filter".to_owned()));
        }
        if table.properties.range_tombstones > 0 {
            table.ranges = table.read_ranges(footer.ranges).await?;
        }
        Ok(table)
    }

    async fn read_ranges(&self, handle: Handle) -> Result<RangeTombstones, TableError> {
        let tombstones = decode(&self.payload(handle).await?);
        let tombstones = tombstones.ok_or_else(|| {
            let what = "these are no range tombstones".to_owned();
            self.damaged(handle.offset, what)
        })?;
        let (expected, found) = (self.properties.range_tombstones, tombstones.len());
        if expected != found as u64 {
            let what = format!("{found} range tombstones, expected {expected}");
            return Err(self.damaged(handle.offset, what));
        }
        Ok(RangeTombstones::new(tombstones))
    }

    /// Which table it is.
    pub fn id(&self) -> TableId {
        self.footer.table
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, for whoever looks it through.
    pub(in crate::storage) fn file(&self) -> &dyn File {
        &*self.file
    }

    /// What it has.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// Bytes that it keeps in memory as long as it is open.
    pub fn held_bytes(&self) -> usize {
        self.root.len_bytes() + self.filter.len() + self.ranges.held_bytes()
    }

    /// Its range tombstones. Cursors and looks at versions do not see them.
    pub fn ranges(&self) -> &RangeTombstones {
        &self.ranges
    }

    /// May it have a version of the key with this xxh3-64? False means no, and costs no read.
    pub fn may_have(&self, hash: u64) -> bool {
        let may_have = filter::may_contain(&self.filter, hash);
        self.cache.filter_said(may_have);
        may_have
    }

    /// The newest version of a key at or below `snapshot`, if the table has one and it is known without a read.
    ///
    /// # Errors
    /// If an index is damaged.
    pub fn look(&self, key: &[u8], snapshot: Timestamp) -> Result<Look, TableError> {
        let Some(index) = self.lead(&self.root, key, snapshot)? else {
            return Ok(Look::Absent);
        };
        let Some(index) = self.at_hand(index) else {
            return Ok(Look::Unknown);
        };
        let Some(data) = self.lead(&index, key, snapshot)? else {
            return Ok(Look::Absent);
        };
        let Some(data) = self.at_hand(data) else {
            return Ok(Look::Unknown);
        };
        Ok(self.find(&data, key, snapshot).map_or(Look::Absent, Look::Found))
    }

    /// The newest version of a key at or below `snapshot`, if the table has one.
    ///
    /// # Errors
    /// If a block can't be read, or is damaged.
    pub async fn version_at(&self, key: &[u8], snapshot: Timestamp) -> Result<Option<Found>, TableError> {
        let Some(index) = self.lead(&self.root, key, snapshot)? else {
            return Ok(None);
        };
        let index = self.cached(index).await?;
        let Some(data) = self.lead(&index, key, snapshot)? else {
            return Ok(None);
        };
        let data = self.cached(data).await?;
        Ok(self.find(&data, key, snapshot))
    }

    fn find(&self, data: &Block, key: &[u8], snapshot: Timestamp) -> Option<Found> {
        let mut cursor = data.cursor();
        cursor.seek(key, snapshot);
        let is_here = cursor.is_valid() && cursor.key() == key;
        if !is_here {
            self.cache.filter_was_wrong();
        }
        is_here.then_some(cursor)
    }

    /// The block below an index block that has the first version not before this one, if any has.
    fn lead(&self, index: &Block, key: &[u8], timestamp: Timestamp) -> Result<Option<Handle>, TableError> {
        let mut cursor = index.cursor();
        cursor.seek(key, timestamp);
        if !cursor.is_valid() {
            return Ok(None);
        }
        self.handle(&cursor.version()).map(Some)
    }

    /// A block that the cache has.
    pub(super) fn at_hand(&self, handle: Handle) -> Option<Block> {
        self.cache.get(self.open_id, handle.offset)
    }

    /// Gives a block to the cache.
    pub(super) fn keep(&self, handle: Handle, block: &Block) {
        self.cache.insert(self.open_id, handle.offset, block);
    }

    /// A block through the cache.
    pub(super) async fn cached(&self, handle: Handle) -> Result<Block, TableError> {
        if let Some(block) = self.at_hand(handle) {
            return Ok(block);
        }
        let block = self.block(handle).await?;
        self.keep(handle, &block);
        Ok(block)
    }

    /// Where an entry of an index leads.
    pub(super) fn handle(&self, entry: &Version<'_>) -> Result<Handle, TableError> {
        let bytes = entry.value.unwrap_or_default();
        Handle::decode(bytes, self.footer.file_bytes)
            .ok_or_else(|| self.damaged(0, "an index leads beyond the file".to_owned()))
    }

    /// The root of the index.
    pub(super) fn root(&self) -> &Block {
        &self.root
    }

    /// A block past the cache.
    pub(super) async fn block(&self, handle: Handle) -> Result<Block, TableError> {
        let part = self.read(handle, handle).await?;
        self.block_in(&part, handle)
    }

    /// A block of a part of the file that was read.
    ///
    /// # Errors
    /// If it is damaged.
    pub(super) fn block_in(&self, part: &FilePart, handle: Handle) -> Result<Block, TableError> {
        let payload = self.payload_in(part, handle)?;
        Block::parse(payload).map_err(|malformed| self.damaged(handle.offset, malformed.to_string()))
    }

    async fn payload(&self, handle: Handle) -> Result<Rc<[u8]>, TableError> {
        let part = self.read(handle, handle).await?;
        self.payload_in(&part, handle)
    }

    /// Reads the part of the file from one block to another that does not lie before it, by one read past the cache.
    pub(super) async fn read(&self, first: Handle, last: Handle) -> Result<FilePart, TableError> {
        let (start, _) = first.covering();
        let (last_start, last_bytes) = last.covering();
        let bytes = (last_start - start) as usize + last_bytes;
        let read = self.file.read_at(start, bytes).await;
        let buffer = read.map_err(|source| TableError::Io {
            id: self.id(),
            path: self.path.clone(),
            offset: start,
            source,
        })?;
        Ok(FilePart { start, buffer })
    }

    fn payload_in(&self, part: &FilePart, handle: Handle) -> Result<Rc<[u8]>, TableError> {
        let from = (handle.offset - part.start) as usize;
        let stored = &part.buffer.bytes()[from..from + handle.stored_bytes as usize];
        load(stored, handle.offset, self.id()).map_err(|damage| TableError::Damaged {
            id: self.id(),
            path: self.path.clone(),
            damage,
        })
    }

    pub(super) fn damaged(&self, offset: u64, what: String) -> TableError {
        TableError::Damaged {
            id: self.id(),
            path: self.path.clone(),
            damage: Damage { offset, what },
        }
    }

    /// Closes the file. To be called last, once.
    ///
    /// # Errors
    /// What the operating system says of it.
    pub async fn close(&self) -> io::Result<()> {
        self.file.close().await
    }
}
