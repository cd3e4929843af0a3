//! Walks the users' keys of a run as a reader at a snapshot sees them, up or down. Range tombstones are not looked at:
//! whoever walks asks for them.

use std::collections::VecDeque;
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;

use super::keys::{USERS, stored_key, users_key};
use super::tables::OpenRun;
use crate::storage::memtable::Version;
use crate::storage::sstable::block::BlockCursor;
use crate::storage::sstable::cursor::{Access, TableCursor};
use crate::storage::sstable::reader::{Table, TableError};

/// Versions that are passed over one by one before the walk looks for where they end: a key that was overwritten very
/// often has more of them than there are keys in a page, as long as readers may want them.
const VERSIONS_PASSED_MAX: usize = 8;

/// A place in a run: at a key that has a version at the snapshot, with the newest such version; or at the end; or
/// unsettled, until [`RunWalk::settle`] has read what is missing.
pub struct RunWalk {
    snapshot: Timestamp,
    /// Tables that come after the one of the cursor.
    rest: VecDeque<Rc<Table>>,
    cursor: Option<TableCursor>,
    way: Way,
    /// Versions that were passed over one by one: upwards since the last key that was shown, downwards of one key.
    passed: usize,
    at: At,
}

/// What is known of a walk when it begins, for those that read ahead.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ahead<'a> {
    /// It will likely pass so many bytes of the tables' files; 0: who knows.
    pub likely_bytes: u64,
    /// It ends at this key at the latest, which lies above in a walk up and below in one down.
    pub end: Option<&'a [u8]>,
}

enum Way {
    /// From the first key to the last.
    Up {
        /// The key that was left, if one was: its older versions are passed over.
        left: Option<Vec<u8>>,
    },
    /// From the last key to the first. Versions of a key come from the oldest to the newest.
    Down {
        /// The newest version so far of the key that is walked over, at or below the snapshot.
        newest: Option<BlockCursor>,
        sought: Option<Sought>,
        /// The key that is walked over.
        over: Vec<u8>,
    },
}

/// Where the cursor of a walk down was sent.
enum Sought {
    /// To the first version that is not below the bound: the walk begins before it.
    Bound,
    /// To the newest version of this key at or below the snapshot, or behind the key if it has none.
    Newest(Vec<u8>),
    /// To the first version of this key: the walk goes on before it.
    First(Vec<u8>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Key,
    End,
    Unsettled,
}

impl RunWalk {
    /// From the first key that is not below `start` up.
    ///
    /// # Errors
    /// If an index is damaged.
    pub fn up(
        run: &OpenRun,
        start: &[u8],
        snapshot: Timestamp,
        ahead: Ahead<'_>,
    ) -> Result<RunWalk, TableError> {
        let mut bound = Vec::new();
        stored_key(&mut bound, start);
        let first = run.partition_point(|open| open.info.ends_before(&bound));
        let walk = RunWalk {
            snapshot,
            rest: run[first..].iter().map(|open| Rc::clone(&open.table)).collect(),
            cursor: None,
            way: Way::Up { left: None },
            passed: 0,
            at: At::End,
        };
        walk.begin(&bound, ahead)
    }

    /// From the last key below `end`, or the very last one, down.
    ///
    /// # Errors
    /// If an index is damaged.
    pub fn down(
        run: &OpenRun,
        end: Option<&[u8]>,
        snapshot: Timestamp,
        ahead: Ahead<'_>,
    ) -> Result<RunWalk, TableError> {
        let mut bound = Vec::new();
        match end {
            Some(end) => stored_key(&mut bound, end),
            None => bound.push(USERS + 1),
        }
        let behind_last = run.partition_point(|open| *open.info.smallest < *bound);
        let tables = run[..behind_last].iter().rev();
        let walk = RunWalk {
            snapshot,
            rest: tables.map(|open| Rc::clone(&open.table)).collect(),
            cursor: None,
            way: Way::Down {
                newest: None,
                sought: Some(Sought::Bound),
                over: Vec::new(),
            },
            passed: 0,
            at: At::End,
        };
        walk.begin(&bound, ahead)
    }

    /// Enters the first table at the bound.
    fn begin(mut self, bound: &[u8], ahead: Ahead<'_>) -> Result<RunWalk, TableError> {
        if let Some(table) = self.rest.pop_front() {
            let mut cursor = TableCursor::new(table, Access::Cached);
            cursor.seek(bound, Timestamp::MAX)?;
            if ahead.likely_bytes > 0 {
                cursor.expect_bytes(ahead.likely_bytes);
            }
            if let Some(end) = ahead.end {
                let mut bound = Vec::new();
                stored_key(&mut bound, end);
                cursor.end_at(bound);
            }
            self.cursor = Some(cursor);
        }
        self.resolve()?;
        Ok(self)
    }

    /// Must [`RunWalk::settle`] be called before anything else?
    pub fn is_unsettled(&self) -> bool {
        self.at == At::Unsettled
    }

    /// The user's key that it is at; none at the end, and while it is unsettled.
    #[inline]
    pub fn key(&self) -> Option<&[u8]> {
        self.place().and_then(|place| users_key(place.key()))
    }

    /// The newest version of that key at or below the snapshot.
    #[inline]
    pub fn version(&self) -> Option<Version<'_>> {
        self.place().map(BlockCursor::version)
    }

    #[inline]
    fn place(&self) -> Option<&BlockCursor> {
        match &self.way {
            _ if self.at != At::Key => None,
            Way::Up { .. } => self.cursor.as_ref().map(TableCursor::place),
            Way::Down { newest, .. } => newest.as_ref(),
        }
    }

    /// Goes to the next key of the walk.
    ///
    /// # Errors
    /// If an index is damaged, or a block that was read ahead.
    pub fn advance(&mut self) -> Result<(), TableError> {
        self.passed = 0;
        match (&mut self.way, &mut self.cursor) {
            (Way::Up { left }, Some(cursor)) => {
                cursor.key().clone_into(left.get_or_insert_default());
                cursor.next()?;
            }
            (Way::Down { newest, .. }, _) => *newest = None,
            (Way::Up { .. }, None) => {}
        }
        self.resolve()
    }

    /// Reads what is missing.
    ///
    /// # Errors
    /// If a block can't be read, or is damaged.
    pub async fn settle(&mut self) -> Result<(), TableError> {
        while self.at == At::Unsettled {
            if let Some(cursor) = &mut self.cursor {
                cursor.settle().await?;
            }
            self.resolve()?;
        }
        Ok(())
    }

    fn resolve(&mut self) -> Result<(), TableError> {
        self.at = loop {
            match &self.cursor {
                Some(cursor) if cursor.is_unsettled() => break At::Unsettled,
                _ => {}
            }
            let step = match &self.way {
                Way::Up { .. } => self.step_up()?,
                Way::Down { .. } => self.step_down()?,
            };
            if let Some(at) = step {
                break at;
            }
        };
        Ok(())
    }

    /// One step of the cursor, which is settled; or where the walk is.
    fn step_up(&mut self) -> Result<Option<At>, TableError> {
        let (Way::Up { left }, Some(cursor)) = (&self.way, &mut self.cursor) else {
            return Ok(Some(At::End));
        };
        if !cursor.is_valid() {
            self.cursor = match self.rest.pop_front() {
                Some(table) => {
                    let mut cursor = TableCursor::new(table, Access::Cached);
                    cursor.seek_to_first()?;
                    Some(cursor)
                }
                None => None,
            };
            return Ok(None);
        }
        let was_left = left.as_deref() == Some(cursor.key());
        if !was_left && cursor.version().timestamp <= self.snapshot {
            return Ok(Some(At::Key));
        }
        self.passed += 1;
        if self.passed < VERSIONS_PASSED_MAX {
            cursor.next()?;
        } else {
            self.passed = 0;
            // No version is older than zero.
            cursor.pass_versions(if was_left { Timestamp(0) } else { self.snapshot })?;
        }
        Ok(None)
    }

    /// One step of the cursor, which is settled; or where the walk is.
    fn step_down(&mut self) -> Result<Option<At>, TableError> {
        let Way::Down { newest, sought, over } = &mut self.way else {
            return Ok(Some(At::End));
        };
        let Some(cursor) = &mut self.cursor else {
            return Ok(Some(if newest.is_some() { At::Key } else { At::End }));
        };
        let is_at = |cursor: &TableCursor, key: &[u8]| cursor.is_valid() && cursor.key() == key;
        match sought.take() {
            Some(Sought::Bound) if cursor.is_valid() => {
                cursor.previous()?;
                return Ok(None);
            }
            Some(Sought::Bound) => {
                cursor.seek_to_last()?;
                return Ok(None);
            }
            Some(Sought::Newest(key)) => {
                if is_at(cursor, &key) {
                    *newest = Some(cursor.place().clone());
                }
                cursor.turn_back(&key, Timestamp::MAX)?;
                *sought = Some(Sought::First(key));
                return Ok(None);
            }
            Some(Sought::First(key)) if is_at(cursor, &key) => {
                cursor.previous()?;
                return Ok(None);
            }
            // It would go over the same versions for ever.
            Some(Sought::First(_)) => return Err(cursor.misled()),
            None => {}
        }
        if !cursor.is_valid() {
            self.cursor = match self.rest.pop_front() {
                Some(table) => {
                    let mut cursor = TableCursor::new(table, Access::Cached);
                    cursor.seek_to_last()?;
                    Some(cursor)
                }
                None => None,
            };
            return Ok(None);
        }
        if users_key(cursor.key()).is_none() {
            // What the shard keeps for itself lies below all users' keys.
            self.cursor = None;
            self.rest.clear();
            return Ok(None);
        }
        if newest.as_ref().is_some_and(|newest| newest.key() != cursor.key()) {
            return Ok(Some(At::Key));
        }
        if cursor.version().timestamp <= self.snapshot {
            match newest {
                Some(newest) => newest.clone_from(cursor.place()),
                None => *newest = Some(cursor.place().clone()),
            }
        }
        if cursor.key() != over.as_slice() {
            cursor.key().clone_into(over);
            self.passed = 0;
        }
        self.passed += 1;
        if self.passed < VERSIONS_PASSED_MAX {
            cursor.previous()?;
        } else {
            self.passed = 0;
            cursor.turn_back(over, self.snapshot)?;
            *sought = Some(Sought::Newest(over.clone()));
        }
        Ok(None)
    }
}
