//! Walks a table in order, in both directions.

use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;

use super::block::{Block, BlockCursor};
use super::cache::BlockCache;
use super::reader::{Table, TableError};
use crate::storage::memtable::Version;

/// A place in a table: at a version, or nowhere.
///
/// It holds the three blocks on the way to its version: the root, an index block, a data block. Each step reads at most
/// one block of either kind. After an error it is nowhere.
pub struct TableCursor {
    table: Rc<Table>,
    /// Where blocks are looked for and kept; none for readers that shall not disturb it, such as compactions.
    cache: Option<Rc<BlockCache>>,
    root: BlockCursor,
    index: BlockCursor,
    data: BlockCursor,
}

/// Which entry of a block to go to.
#[derive(Clone, Copy)]
enum Target<'a> {
    First,
    Last,
    /// The first that is not before this version.
    NotBefore(&'a [u8], Timestamp),
}

impl TableCursor {
    /// A cursor that is nowhere yet.
    pub fn new(table: Rc<Table>, cache: Option<Rc<BlockCache>>) -> TableCursor {
        let root = table.root().cursor();
        let nowhere = Block::empty().cursor();
        TableCursor {
            table,
            cache,
            root,
            index: nowhere.clone(),
            data: nowhere,
        }
    }

    /// Is it at a version?
    pub fn is_valid(&self) -> bool {
        self.data.is_valid()
    }

    /// The key that it is at.
    ///
    /// # Panics
    /// If it is nowhere.
    pub fn key(&self) -> &[u8] {
        self.data.key()
    }

    /// The version that it is at.
    ///
    /// # Panics
    /// If it is nowhere.
    pub fn version(&self) -> Version<'_> {
        self.data.version()
    }

    /// Goes to the first version of the table.
    ///
    /// # Errors
    /// If a block can't be read, or is damaged.
    pub async fn seek_to_first(&mut self) -> Result<(), TableError> {
        self.go_to(Target::First).await
    }

    /// Goes to the last version of the table.
    ///
    /// # Errors
    /// If a block can't be read, or is damaged.
    pub async fn seek_to_last(&mut self) -> Result<(), TableError> {
        self.go_to(Target::Last).await
    }

    /// Goes to the first version of a higher key, or of this key with this timestamp or an older one.
    ///
    /// # Errors
    /// If a block can't be read, or is damaged.
    pub async fn seek(&mut self, key: &[u8], timestamp: Timestamp) -> Result<(), TableError> {
        self.go_to(Target::NotBefore(key, timestamp)).await
    }

    /// Goes to the next version; behind the last one it is nowhere.
    ///
    /// # Errors
    /// If a block can't be read, or is damaged.
    pub async fn next(&mut self) -> Result<(), TableError> {
        self.data.next();
        if self.data.is_valid() {
            return Ok(());
        }
        self.index.next();
        if !self.index.is_valid() {
            self.root.next();
            self.index = self.below(&self.root).await?;
            self.index.seek_to_first();
        }
        self.data = self.below(&self.index).await?;
        self.data.seek_to_first();
        Ok(())
    }

    /// Goes to the version before; before the first one it is nowhere.
    ///
    /// # Errors
    /// If a block can't be read, or is damaged.
    pub async fn previous(&mut self) -> Result<(), TableError> {
        self.data.previous();
        if self.data.is_valid() {
            return Ok(());
        }
        self.index.previous();
        if !self.index.is_valid() {
            self.root.previous();
            self.index = self.below(&self.root).await?;
            self.index.seek_to_last();
        }
        self.data = self.below(&self.index).await?;
        self.data.seek_to_last();
        Ok(())
    }

    async fn go_to(&mut self, target: Target<'_>) -> Result<(), TableError> {
        self.data = Block::empty().cursor();
        place(&mut self.root, target);
        self.index = self.below(&self.root).await?;
        place(&mut self.index, target);
        self.data = self.below(&self.index).await?;
        place(&mut self.data, target);
        Ok(())
    }

    /// A cursor into the block that another one's entry leads to; of an empty block if it is nowhere.
    async fn below(&self, above: &BlockCursor) -> Result<BlockCursor, TableError> {
        if !above.is_valid() {
            return Ok(Block::empty().cursor());
        }
        let handle = self.table.handle(&above.version())?;
        let block = match &self.cache {
            Some(cache) => self.table.cached(cache, handle).await?,
            None => self.table.block(handle).await?,
        };
        Ok(block.cursor())
    }
}

fn place(cursor: &mut BlockCursor, target: Target<'_>) {
    match target {
        Target::First => cursor.seek_to_first(),
        Target::Last => cursor.seek_to_last(),
        Target::NotBefore(key, timestamp) => cursor.seek(key, timestamp),
    }
}
