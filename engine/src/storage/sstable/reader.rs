//! Reads a table: its parts when it is opened, its blocks through the core's cache when they are asked for.

use core::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::lsm::TableNumber;

use super::block::{Block, BlockCursor};
use super::cache::BlockCache;
use super::filter;
use super::format::{Damage, FOOTER_BYTES, Footer, Handle, Properties, load};
use crate::env::disk::{BLOCK_BYTES, Disk, File, OpenMode};
use crate::storage::memtable::Version;

/// Why a table could not be read.
#[derive(Debug)]
#[non_exhaustive]
pub enum TableError {
    /// The operating system could not.
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The file has other bytes than were written.
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where and what.
        damage: Damage,
    },
}

impl fmt::Display for TableError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableError::Io { path, source } => write!(formatter, "cannot read {}: {source}", path.display()),
            TableError::Damaged { path, damage } => {
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

/// An open table.
pub struct Table {
    file: Rc<dyn File>,
    path: PathBuf,
    footer: Footer,
    properties: Properties,
    root: Block,
    filter: Vec<u8>,
}

/// Where a version was found: the block, and a place in it.
pub type Found = BlockCursor;

impl Table {
    /// Opens the file of a table and reads its footer, filter, root and properties.
    ///
    /// # Errors
    /// If it can't be read, or is not whole.
    pub async fn open(disk: &dyn Disk, path: &Path, number: TableNumber) -> Result<Table, TableError> {
        let io = |source| TableError::Io {
            path: path.to_owned(),
            source,
        };
        let damaged = |damage| TableError::Damaged {
            path: path.to_owned(),
            damage,
        };
        let file = disk.open(path, OpenMode::Read).await.map_err(io)?;
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
        let end = file.read_at(end_start, BLOCK_BYTES).await.map_err(io)?;
        let footer = end
            .bytes()
            .last_chunk::<FOOTER_BYTES>()
            .expect("a block is longer");
        let footer = Footer::decode(footer, number, file_bytes).map_err(damaged)?;
        let mut table = Table {
            file,
            path: path.to_owned(),
            footer,
            properties: Properties::default(),
            root: Block::empty(),
            filter: Vec::new(),
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
        Ok(table)
    }

    /// The number of the table.
    pub fn number(&self) -> TableNumber {
        self.footer.table
    }

    /// What it has.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// Bytes that it keeps in memory as long as it is open.
    pub fn held_bytes(&self) -> usize {
        self.root.len_bytes() + self.filter.len()
    }

    /// May it have a version of the key with this xxh3-64? False means no, and costs no read.
    pub fn may_have(&self, hash: u64) -> bool {
        filter::may_contain(&self.filter, hash)
    }

    /// The newest version of a key at or below `snapshot`, if the table has one.
    ///
    /// # Errors
    /// If a block can't be read, or is damaged.
    pub async fn version_at(
        &self,
        cache: &BlockCache,
        key: &[u8],
        snapshot: Timestamp,
    ) -> Result<Option<Found>, TableError> {
        let Some(index) = self.below(&self.root, cache, key, snapshot).await? else {
            return Ok(None);
        };
        let Some(data) = self.below(&index, cache, key, snapshot).await? else {
            return Ok(None);
        };
        let mut cursor = data.cursor();
        cursor.seek(key, snapshot);
        Ok((cursor.is_valid() && cursor.key() == key).then_some(cursor))
    }

    /// The block below an index block that has the first version not before this one, if any has.
    async fn below(
        &self,
        index: &Block,
        cache: &BlockCache,
        key: &[u8],
        timestamp: Timestamp,
    ) -> Result<Option<Block>, TableError> {
        let mut cursor = index.cursor();
        cursor.seek(key, timestamp);
        if !cursor.is_valid() {
            return Ok(None);
        }
        let handle = self.handle(&cursor.version())?;
        self.cached(cache, handle).await.map(Some)
    }

    /// A block through the cache.
    pub(super) async fn cached(&self, cache: &BlockCache, handle: Handle) -> Result<Block, TableError> {
        if let Some(block) = cache.get(self.number(), handle.offset) {
            return Ok(block);
        }
        let block = self.block(handle).await?;
        cache.insert(self.number(), handle.offset, &block);
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
        let payload = self.payload(handle).await?;
        Block::parse(payload.into()).map_err(|malformed| self.damaged(handle.offset, malformed.to_string()))
    }

    async fn payload(&self, handle: Handle) -> Result<Vec<u8>, TableError> {
        let (start, len_bytes) = handle.covering();
        let read = self.file.read_at(start, len_bytes).await;
        let buffer = read.map_err(|source| TableError::Io {
            path: self.path.clone(),
            source,
        })?;
        let from = (handle.offset - start) as usize;
        let stored = &buffer.bytes()[from..from + handle.stored_bytes as usize];
        load(stored, handle.offset, self.number()).map_err(|damage| TableError::Damaged {
            path: self.path.clone(),
            damage,
        })
    }

    fn damaged(&self, offset: u64, what: String) -> TableError {
        TableError::Damaged {
            path: self.path.clone(),
            damage: Damage { offset, what },
        }
    }

    /// Closes the file.
    ///
    /// # Errors
    /// What the operating system says of it.
    pub async fn close(self) -> io::Result<()> {
        self.file.close().await
    }
}
