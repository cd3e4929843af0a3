//! Walks a table in order, in both directions.
//!
//! No step waits. A step whose block is not at hand leaves the cursor *unsettled*: [`TableCursor::settle`] reads the
//! block, and more in the direction of the walk, and ends the step. So a walk over what is in memory passes no future.
//!
//! What was read ahead stays as it lies in the file until the walk comes to it: who stops before has decompressed
//! nothing in vain, and damage is told when it is come to.

use std::collections::VecDeque;
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;

use super::block::{Block, BlockCursor};
use super::format::Handle;
use super::reader::{FilePart, Table, TableError};
use crate::storage::memtable::Version;

/// Most bytes that one read takes in ahead of the walk.
const AHEAD_BYTES_MAX: u64 = 256 << 10;

/// Where a walk finds its blocks, and how far it reads ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Through the cache; the more blocks have been read in a row, the further ahead.
    Cached,
    /// Past the cache, as far ahead as there is, for a walk through the whole table which shall disturb nobody.
    Bypass,
}

impl Access {
    /// Bytes that the first read of a walk takes in.
    fn first_ahead_bytes(self) -> u64 {
        match self {
            Access::Cached => 0,
            Access::Bypass => AHEAD_BYTES_MAX,
        }
    }
}

/// A place in a table: at a version, or nowhere, or unsettled.
///
/// It holds the blocks on the way to its version: the root, an index block, a data block. After an error it is nowhere.
pub struct TableCursor {
    table: Rc<Table>,
    access: Access,
    root: BlockCursor,
    index: BlockCursor,
    data: BlockCursor,
    /// What is left of the step under way, if its block is not at hand.
    unsettled: Option<Missing>,
    /// Data blocks that were read ahead, in the order of the walk, and the part of the file that has them.
    ahead: VecDeque<Handle>,
    ahead_part: Option<FilePart>,
    /// Bytes that the next read takes in; one block at least.
    ahead_bytes: u64,
    /// Does the walk expect to end within what the next read takes in?
    is_ahead_expected: bool,
    /// Is the walk on its way back to a place that it has passed? What lies behind that is not read ahead.
    is_turning: bool,
    /// Nothing beyond this key, in the direction of the walk, is read ahead.
    end: Option<Vec<u8>>,
}

struct Missing {
    level: Level,
    target: Target,
    handle: Handle,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Index,
    Data,
}

/// Which entry of a block to go to.
enum Target {
    First,
    Last,
    /// The first that is not before this version.
    NotBefore(Box<[u8]>, Timestamp),
}

impl TableCursor {
    /// A cursor that is nowhere yet.
    pub fn new(table: Rc<Table>, access: Access) -> TableCursor {
        let root = table.root().cursor();
        // An index and a data block take its place.
        let nowhere = root.clone();
        TableCursor {
            table,
            access,
            root,
            index: nowhere.clone(),
            data: nowhere,
            unsettled: None,
            ahead: VecDeque::new(),
            ahead_part: None,
            ahead_bytes: access.first_ahead_bytes(),
            is_ahead_expected: false,
            is_turning: false,
            end: None,
        }
    }

    /// The walk that has just begun will likely pass so many bytes of the file: the first read takes them in at once.
    pub fn expect_bytes(&mut self, bytes: u64) {
        self.ahead_bytes = bytes.min(AHEAD_BYTES_MAX);
        self.is_ahead_expected = true;
    }

    /// Must [`TableCursor::settle`] be called before anything else?
    pub fn is_unsettled(&self) -> bool {
        self.unsettled.is_some()
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

    /// The place in the block of the version that it is at, which stays when the cursor goes on.
    pub fn place(&self) -> &BlockCursor {
        &self.data
    }

    /// Goes to the first version of the table.
    ///
    /// # Errors
    /// If an index is damaged.
    pub fn seek_to_first(&mut self) -> Result<(), TableError> {
        self.begin_walk();
        self.root.seek_to_first();
        self.descend(Target::First)
    }

    /// Goes to the last version of the table.
    ///
    /// # Errors
    /// If an index is damaged.
    pub fn seek_to_last(&mut self) -> Result<(), TableError> {
        self.begin_walk();
        self.root.seek_to_last();
        self.descend(Target::Last)
    }

    /// Goes to the first version of a higher key, or of this key with this timestamp or an older one.
    ///
    /// # Errors
    /// If an index is damaged.
    pub fn seek(&mut self, key: &[u8], timestamp: Timestamp) -> Result<(), TableError> {
        self.begin_walk();
        self.root.seek(key, timestamp);
        self.descend(Target::NotBefore(key.into(), timestamp))
    }

    /// Goes back to the first version of a higher key, or of this key with this timestamp or an older one. The walk
    /// goes on from there as it has begun, and no block in between is looked at.
    ///
    /// # Errors
    /// If an index is damaged.
    pub fn turn_back(&mut self, key: &[u8], timestamp: Timestamp) -> Result<(), TableError> {
        assert!(!self.is_unsettled(), "the step before has not ended");
        if self.data.is_valid() {
            self.data.seek(key, timestamp);
            // What is not the first of its block has its predecessor there, which is before it.
            if self.data.is_valid() && !self.data.is_first() {
                return Ok(());
            }
        }
        self.is_turning = true;
        self.root.seek(key, timestamp);
        self.descend(Target::NotBefore(key.into(), timestamp))
    }

    /// Goes on to the first version of the key that it is at with this timestamp, which is not newer than the one that
    /// it is at, or an older one; or else to the first of a higher key. No block in between is looked at.
    ///
    /// # Errors
    /// If an index is damaged, or a block that was read ahead.
    ///
    /// # Panics
    /// If it is nowhere.
    pub fn pass_versions(&mut self, timestamp: Timestamp) -> Result<(), TableError> {
        assert!(!self.is_unsettled(), "the step before has not ended");
        debug_assert!(timestamp <= self.data.version().timestamp, "it goes on");
        let key: Box<[u8]> = self.data.key().into();
        self.data.seek(&key, timestamp);
        if self.data.is_valid() {
            return Ok(());
        }
        // An index entry has the last version of its block.
        self.index.seek(&key, timestamp);
        let is_here = self.index.is_valid();
        if !is_here {
            self.root.seek(&key, timestamp);
        }
        let target = Target::NotBefore(key, timestamp);
        if is_here {
            self.enter(Level::Data, target)
        } else {
            self.descend(target)
        }
    }

    /// What is wrong with a table in which a version that a walk has met is not found again.
    pub fn misled(&self) -> TableError {
        self.table
            .damaged(0, "the index leads past a key that is there".to_owned())
    }

    /// Goes to the next version; behind the last one it is nowhere.
    ///
    /// # Errors
    /// If an index is damaged, or a block that was read ahead.
    #[expect(
        clippy::should_implement_trait,
        reason = "a cursor goes both ways and is no iterator"
    )]
    pub fn next(&mut self) -> Result<(), TableError> {
        assert!(!self.is_unsettled(), "the step before has not ended");
        self.data.next();
        if self.data.is_valid() {
            return Ok(());
        }
        self.index.next();
        if self.index.is_valid() {
            return self.enter(Level::Data, Target::First);
        }
        self.root.next();
        self.descend(Target::First)
    }

    /// Goes to the version before; before the first one it is nowhere.
    ///
    /// # Errors
    /// If an index is damaged, or a block that was read ahead.
    pub fn previous(&mut self) -> Result<(), TableError> {
        assert!(!self.is_unsettled(), "the step before has not ended");
        self.data.previous();
        if self.data.is_valid() {
            return Ok(());
        }
        self.index.previous();
        if self.index.is_valid() {
            return self.enter(Level::Data, Target::Last);
        }
        self.root.previous();
        self.descend(Target::Last)
    }

    /// Reads what the step under way lacks, and ends it.
    ///
    /// # Errors
    /// If a block can't be read, or is damaged.
    pub async fn settle(&mut self) -> Result<(), TableError> {
        while let Some(missing) = self.unsettled.take() {
            match self.fetch(&missing).await {
                Ok(block) => self.arrive(missing.level, missing.target, &block)?,
                Err(error) => {
                    self.leave();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn fetch(&mut self, missing: &Missing) -> Result<Block, TableError> {
        match (missing.level, self.access) {
            (Level::Index, Access::Cached) => self.table.cached(missing.handle).await,
            (Level::Index, Access::Bypass) => self.table.block(missing.handle).await,
            (Level::Data, Access::Cached) if self.is_turning => self.table.cached(missing.handle).await,
            (Level::Data, _) => self.read_ahead(missing).await,
        }
    }

    /// A walk begins elsewhere: nothing has been read in a row.
    fn begin_walk(&mut self) {
        self.ahead_bytes = self.access.first_ahead_bytes();
        self.is_ahead_expected = false;
        self.is_turning = false;
        self.end = None;
    }

    /// The walk that has just begun ends at this key at the latest.
    pub fn end_at(&mut self, key: Vec<u8>) {
        self.end = Some(key);
    }

    fn forget_ahead(&mut self) {
        self.ahead.clear();
        self.ahead_part = None;
    }

    /// Goes nowhere, so that steps lead nowhere: what could not be read must not be passed over.
    fn leave(&mut self) {
        self.root.leave();
        self.index.leave();
        self.data.leave();
        self.unsettled = None;
        self.forget_ahead();
    }

    fn descend(&mut self, target: Target) -> Result<(), TableError> {
        self.forget_ahead();
        self.enter(Level::Index, target)
    }

    /// Goes into the block that the cursor above this level leads to; nowhere if that is nowhere.
    fn enter(&mut self, level: Level, target: Target) -> Result<(), TableError> {
        let above = match level {
            Level::Index => &self.root,
            Level::Data => &self.index,
        };
        self.data.leave();
        self.unsettled = None;
        if !above.is_valid() {
            return Ok(());
        }
        let table = Rc::clone(&self.table);
        let handle = table.handle(&above.version());
        let found = handle.and_then(|handle| Ok((handle, self.at_hand(level, handle)?)));
        match found {
            Ok((_, Some(block))) => self.arrive(level, target, &block),
            Ok((handle, None)) => {
                self.unsettled = Some(Missing {
                    level,
                    target,
                    handle,
                });
                Ok(())
            }
            Err(error) => {
                self.leave();
                Err(error)
            }
        }
    }

    fn arrive(&mut self, level: Level, target: Target, block: &Block) -> Result<(), TableError> {
        let cursor = match level {
            Level::Index => &mut self.index,
            Level::Data => &mut self.data,
        };
        cursor.enter(block);
        match &target {
            Target::First => cursor.seek_to_first(),
            Target::Last => cursor.seek_to_last(),
            Target::NotBefore(key, timestamp) => cursor.seek(key, *timestamp),
        }
        match level {
            Level::Index => self.enter(Level::Data, target),
            Level::Data => {
                self.is_turning = false;
                Ok(())
            }
        }
    }

    fn at_hand(&mut self, level: Level, handle: Handle) -> Result<Option<Block>, TableError> {
        while level == Level::Data
            && let Some(found) = self.ahead.pop_front()
        {
            if found == handle {
                return self.block_ahead(handle).map(Some);
            }
        }
        Ok(match self.access {
            Access::Cached => self.table.at_hand(handle),
            Access::Bypass => None,
        })
    }

    /// A block of the part that was read ahead. The cache may have it already.
    fn block_ahead(&self, handle: Handle) -> Result<Block, TableError> {
        if self.access == Access::Cached
            && let Some(block) = self.table.at_hand(handle)
        {
            return Ok(block);
        }
        self.block_read(handle)
    }

    /// A block of the part that was read last.
    fn block_read(&self, handle: Handle) -> Result<Block, TableError> {
        let part = self.ahead_part.as_ref().expect("it was read with the handles");
        let block = self.table.block_in(part, handle)?;
        if self.access == Access::Cached {
            self.table.keep(handle, &block);
        }
        Ok(block)
    }

    /// Reads a data block, and behind it those that the walk comes to next: as many as lie in one piece of the file.
    async fn read_ahead(&mut self, missing: &Missing) -> Result<Block, TableError> {
        let mut handles = vec![missing.handle];
        let goes_back = matches!(missing.target, Target::Last);
        let mut index = self.index.clone();
        let mut bytes = u64::from(missing.handle.stored_bytes);
        while bytes < self.ahead_bytes {
            let last = *handles.last().expect("it begins with one");
            // An index entry has the last key of its block.
            let reaches_end = |index: &BlockCursor| {
                let end = self.end.as_deref();
                end.is_some_and(|end| {
                    if goes_back {
                        index.key() < end
                    } else {
                        index.key() >= end
                    }
                })
            };
            if !goes_back && reaches_end(&index) {
                break;
            }
            if goes_back {
                index.previous();
            } else {
                index.next();
            }
            if !index.is_valid() || goes_back && reaches_end(&index) {
                break;
            }
            let next = self.table.handle(&index.version())?;
            let (lower, upper) = if goes_back { (next, last) } else { (last, next) };
            if lower.offset + u64::from(lower.stored_bytes) != upper.offset {
                break;
            }
            bytes += u64::from(next.stored_bytes);
            handles.push(next);
        }
        // Whoever goes on will need more; who stops has read little in vain.
        self.ahead_bytes = if core::mem::take(&mut self.is_ahead_expected) {
            0
        } else {
            (bytes * 2).min(AHEAD_BYTES_MAX)
        };
        let last = *handles.last().expect("it begins with one");
        let (lower, upper) = if goes_back {
            (last, missing.handle)
        } else {
            (missing.handle, last)
        };
        self.ahead_part = Some(self.table.read(lower, upper).await?);
        self.ahead = handles.into_iter().skip(1).collect();
        self.block_read(missing.handle)
    }
}
