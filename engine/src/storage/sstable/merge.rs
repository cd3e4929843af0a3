//! Walks several runs of tables at once, in order, for a compaction: versions that nobody can read any more are left
//! out.

use std::collections::VecDeque;
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;

use super::block::order;
use super::cursor::{Access, TableCursor};
use super::reader::{Table, TableError};
use crate::storage::memtable::Version;

/// Walks the tables of a run, one after the other, past the cache.
pub struct RunCursor {
    /// Those behind the current one.
    rest: VecDeque<Rc<Table>>,
    current: Option<TableCursor>,
}

impl RunCursor {
    /// A cursor at the first version of a run: tables in order, which share no key. To be settled before it is used.
    ///
    /// # Errors
    /// If an index is damaged, or a block that was read ahead.
    pub fn new(tables: impl IntoIterator<Item = Rc<Table>>) -> Result<RunCursor, TableError> {
        let mut cursor = RunCursor {
            rest: tables.into_iter().collect(),
            current: None,
        };
        cursor.begin_next_table()?;
        Ok(cursor)
    }

    /// The key and the version that it is at; none behind the last.
    pub fn entry(&self) -> Option<(&[u8], Version<'_>)> {
        let current = self.current.as_ref()?;
        Some((current.key(), current.version()))
    }

    fn is_unsettled(&self) -> bool {
        self.current.as_ref().is_some_and(TableCursor::is_unsettled)
    }

    /// Goes to the next version; unsettled if that has to be read.
    fn next(&mut self) -> Result<(), TableError> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        current.next()?;
        if current.is_valid() || current.is_unsettled() {
            return Ok(());
        }
        self.begin_next_table()
    }

    async fn settle(&mut self) -> Result<(), TableError> {
        if let Some(current) = &mut self.current {
            current.settle().await?;
        }
        Ok(())
    }

    fn begin_next_table(&mut self) -> Result<(), TableError> {
        self.current = None;
        while let Some(table) = self.rest.pop_front() {
            let mut cursor = TableCursor::new(table, Access::Bypass);
            cursor.seek_to_first()?;
            // A table may have range tombstones only.
            if cursor.is_valid() || cursor.is_unsettled() {
                self.current = Some(cursor);
                break;
            }
        }
        Ok(())
    }
}

/// Walks several runs in one order.
pub struct Merge {
    runs: Vec<RunCursor>,
    /// The run that is at the first version, if any is at one.
    first: Option<usize>,
}

impl Merge {
    /// A merge at the first version of all.
    ///
    /// # Errors
    /// If a block can't be read, or is damaged.
    pub async fn new(mut runs: Vec<RunCursor>) -> Result<Merge, TableError> {
        for run in &mut runs {
            run.settle().await?;
        }
        let mut merge = Merge { runs, first: None };
        merge.find_first();
        Ok(merge)
    }

    /// The key and the version that it is at; none behind the last.
    pub fn entry(&self) -> Option<(&[u8], Version<'_>)> {
        self.runs[self.first?].entry()
    }

    /// Goes to the next version. If it is unsettled then, [`Merge::settle`] ends the step.
    ///
    /// # Errors
    /// If an index is damaged, or a block that was read ahead.
    #[expect(
        clippy::should_implement_trait,
        reason = "a step may have to be settled, so it is no iterator"
    )]
    pub fn next(&mut self) -> Result<(), TableError> {
        if let Some(first) = self.first {
            self.runs[first].next()?;
            if !self.runs[first].is_unsettled() {
                self.find_first();
            }
        }
        Ok(())
    }

    /// Has the next version to be read?
    pub fn is_unsettled(&self) -> bool {
        self.first.is_some_and(|first| self.runs[first].is_unsettled())
    }

    /// Ends a step.
    ///
    /// # Errors
    /// If a block can't be read, or is damaged.
    pub async fn settle(&mut self) -> Result<(), TableError> {
        if let Some(first) = self.first {
            self.runs[first].settle().await?;
            self.find_first();
        }
        Ok(())
    }

    /// A merge has few runs, so looking at each is faster than keeping them in order.
    fn find_first(&mut self) {
        let entries = self.runs.iter().enumerate();
        let entries = entries.filter_map(|(place, run)| Some((place, run.entry()?)));
        let first = entries.min_by(|(_, (key, version)), (_, (other_key, other))| {
            order(key, version.timestamp, other_key, other.timestamp)
        });
        self.first = first.map(|(place, _)| place);
    }
}

/// Decides which versions of a key stay: it is shown all of them, from the newest to the oldest, key after key.
///
/// Who reads does so at the watermark or above. So of the versions at or below it, the newest one stays, and what is
/// older goes; the newest one goes too if it shows nothing at the watermark (it is a tombstone or has expired) and
/// there is nothing older elsewhere that it hides. What a range tombstone at or below the watermark is newer than goes
/// likewise; whether the range tombstone itself stays is decided elsewhere.
#[derive(Debug)]
pub struct Collector {
    watermark: Timestamp,
    key: Vec<u8>,
    /// The newest version of the key at or below the watermark has come.
    is_settled: bool,
    /// A key has come.
    has_key: bool,
}

impl Collector {
    /// A collector for readers at this timestamp or above.
    pub fn new(watermark: Timestamp) -> Collector {
        Collector {
            watermark,
            key: Vec::new(),
            is_settled: false,
            has_key: false,
        }
    }

    /// Does this version stay? `deleted` is the newest range tombstone at or below the watermark that covers its key,
    /// `has_older` tells whether there may be older versions of its key that are not shown.
    pub fn keeps(
        &mut self,
        key: &[u8],
        version: &Version<'_>,
        deleted: Option<Timestamp>,
        has_older: impl FnOnce(&[u8]) -> bool,
    ) -> bool {
        if !self.has_key || self.key != key {
            key.clone_into(&mut self.key);
            self.has_key = true;
            self.is_settled = false;
        }
        if version.timestamp > self.watermark {
            return true;
        }
        if self.is_settled {
            return false;
        }
        self.is_settled = true;
        if deleted > Some(version.timestamp) {
            return false;
        }
        version.live_value(self.watermark).is_some() || has_older(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(timestamp: u64, value: Option<&[u8]>, expiry: Option<u64>) -> Version<'_> {
        Version {
            timestamp: Timestamp(timestamp),
            value,
            expiry: expiry.map(Timestamp),
        }
    }

    #[test]
    fn what_somebody_may_read_stays() {
        let mut collector = Collector::new(Timestamp(10));
        let mut keeps =
            |key: &str, version, has_older| collector.keeps(key.as_bytes(), &version, None, |_| has_older);
        assert!(keeps("a", version(12, None, None), false), "above the watermark");
        assert!(keeps("a", version(11, Some(b"x"), None), false));
        assert!(
            keeps("a", version(10, Some(b"x"), None), false),
            "the newest at the watermark"
        );
        assert!(!keeps("a", version(9, Some(b"x"), None), false));
        assert!(
            !keeps("b", version(9, None, None), false),
            "a tombstone with nothing to hide"
        );
        assert!(!keeps("b", version(8, Some(b"x"), None), false), "what it hid");
        assert!(
            keeps("c", version(9, None, None), true),
            "a tombstone that hides something elsewhere"
        );
        assert!(!keeps("c", version(8, Some(b"x"), None), true));
        assert!(
            !keeps("d", version(5, Some(b"x"), Some(10)), false),
            "it has expired at the watermark"
        );
        assert!(
            keeps("e", version(5, Some(b"x"), Some(10)), true),
            "and hides something"
        );
        assert!(keeps("f", version(5, Some(b"x"), Some(11)), false), "not yet");
        assert!(keeps("", version(5, Some(b"x"), None), false), "the empty key");
    }

    #[test]
    fn what_a_range_tombstone_hides_from_all_readers_goes() {
        let mut collector = Collector::new(Timestamp(10));
        let mut keeps = |version, has_older| {
            let deleted = Some(Timestamp(8));
            collector.keeps(b"a", &version, deleted, |_| has_older)
        };
        assert!(keeps(version(11, Some(b"x"), None), false), "above the watermark");
        assert!(!keeps(version(7, Some(b"x"), None), true));
        assert!(
            !keeps(version(6, None, None), true),
            "a tombstone that the range tombstone makes needless"
        );
        let mut collector = Collector::new(Timestamp(10));
        let mut keeps = |version, has_older| {
            let deleted = Some(Timestamp(8));
            collector.keeps(b"a", &version, deleted, |_| has_older)
        };
        assert!(
            keeps(version(9, Some(b"x"), None), false),
            "newer than the range tombstone"
        );
        assert!(!keeps(version(7, Some(b"x"), None), true));
    }
}
