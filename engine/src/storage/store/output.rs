//! Tables that come of a flush or a merge: all of them, or none.
//!
//! Versions are added in order. A table is begun when the first version comes, or at last if there are range
//! tombstones, so there is none without either. Range tombstones are cut where tables meet: at the first key of the
//! next one. Whoever makes an output ends it by [`Output::finish`] or [`Output::give_up`]; after both, no file is left
//! open but those handed out, and no table is left that came to nothing, unless it can't be removed: then the next
//! start does it.

use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::lsm::{Older, TableInfo};

use super::files::{ShardFiles, StoreError};
use crate::env::pace::Pace;
use crate::env::tasks::yield_now;
use crate::storage::memtable::Version;
use crate::storage::ranges::RangeTombstone;
use crate::storage::sstable::builder::TableOptions;
use crate::storage::sstable::reader::Table;
use crate::storage::sstable::writer::TableWriter;

/// Tables that are being made.
pub(super) struct Output<'a> {
    files: &'a ShardFiles,
    options: TableOptions,
    pace: Rc<Pace>,
    /// The table that takes versions.
    current: Option<TableWriter>,
    /// Those before it, in order. Their bytes last.
    ended: Vec<Rc<TableInfo>>,
    ranges: RangesToWrite<'a>,
}

/// The range tombstones that are to be written, and what they hide.
pub(super) struct RangesToWrite<'a> {
    /// In the order of their starts.
    tombstones: Vec<RangeTombstone>,
    older: Older<'a>,
    watermark: Timestamp,
    /// The first key of the table that is made now; none of the first table.
    low: Option<Vec<u8>>,
}

impl<'a> RangesToWrite<'a> {
    /// These, in the order of their starts, each with an end, for readers at the watermark or above. `older` lies below
    /// the tables to be made.
    pub(super) fn new(
        tombstones: Vec<RangeTombstone>,
        older: Older<'a>,
        watermark: Timestamp,
    ) -> RangesToWrite<'a> {
        RangesToWrite {
            tombstones,
            older,
            watermark,
            low: None,
        }
    }

    /// What the table has of them that is made now, if the next one begins at `high`, and how many bytes that covers.
    /// One at or below the watermark that hides nothing is left out.
    fn of_table(&self, high: Option<&[u8]>) -> (Vec<RangeTombstone>, u64) {
        let mut covered_bytes = 0;
        let mut needed = Vec::new();
        for tombstone in &self.tombstones {
            let Some(part) = tombstone.between(self.low.as_deref(), high) else {
                continue;
            };
            let end = part.end.as_ref().expect("in a table each has an end");
            let covered = self.older.covered(&part.start, end);
            if covered.tables > 0 || part.timestamp > self.watermark {
                covered_bytes += covered.bytes;
                needed.push(part);
            }
        }
        // What was cut begins where the table does.
        needed.sort_by(|one, other| one.start.cmp(&other.start));
        (needed, covered_bytes)
    }
}

/// Tables that were made: bytes and names last.
pub(super) struct Made {
    /// What is known of them, in order.
    pub infos: Vec<Rc<TableInfo>>,
    /// The same, open.
    pub opened: Vec<Rc<Table>>,
}

impl<'a> Output<'a> {
    /// No table yet.
    pub(super) fn new(
        files: &'a ShardFiles,
        (options, pace): (TableOptions, &Rc<Pace>),
        ranges: RangesToWrite<'a>,
    ) -> Output<'a> {
        Output {
            files,
            options,
            pace: Rc::clone(pace),
            current: None,
            ended: Vec::new(),
            ranges,
        }
    }

    /// Has the table that takes versions reached this length?
    pub(super) fn has_reached(&self, bytes: u64) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|writer| writer.file_bytes() >= bytes)
    }

    /// Adds a version of a key with this xxh3-64, behind all that were added before; writes what has collected, no
    /// faster than background work may, and lets others run.
    pub(super) async fn add(
        &mut self,
        hash: u64,
        key: &[u8],
        version: &Version<'_>,
    ) -> Result<(), StoreError> {
        if self.current.is_none() {
            self.current = Some(self.files.begin_table(self.options).await?);
        }
        let writer = self.current.as_mut().expect("it was just begun");
        writer.add(hash, key, version);
        if writer.wants_writing() {
            let written_bytes = writer.write_out().await?;
            self.pace.spent(written_bytes).await;
        }
        self.let_others_run().await;
        Ok(())
    }

    /// To be called for each version that is not added.
    pub(super) async fn let_others_run(&self) {
        if self.files.env().tasks.should_yield() {
            yield_now().await;
        }
    }

    /// Ends the table that takes versions, if there is one; the next one begins at `high`, or there is none. Its bytes
    /// last.
    pub(super) async fn end_table(&mut self, high: Option<&[u8]>) -> Result<(), StoreError> {
        let (ranges, covered_bytes) = self.ranges.of_table(high);
        if self.current.is_none() && !ranges.is_empty() {
            self.current = Some(self.files.begin_table(self.options).await?);
        }
        let Some(writer) = &mut self.current else {
            return Ok(());
        };
        writer.add_ranges(ranges, covered_bytes);
        let before_bytes = writer.written_bytes();
        let info = writer.finish().await?;
        let written_bytes = info.bytes - before_bytes;
        let writer = self.current.take().expect("it was just ended");
        self.ended.push(Rc::new(info));
        self.ranges.low = high.map(<[u8]>::to_vec);
        writer.close().await?;
        self.pace.spent(written_bytes as usize).await;
        Ok(())
    }

    /// Ends all tables, and opens them.
    pub(super) async fn finish(mut self) -> Result<Made, StoreError> {
        let opened = match self.end_table(None).await {
            Ok(()) => self.files.open_ended(&self.ended).await,
            Err(error) => Err(error),
        };
        match opened {
            Ok(opened) => Ok(Made {
                infos: self.ended,
                opened,
            }),
            Err(error) => {
                // The first error is the one that tells.
                let _ = self.give_up().await;
                Err(error)
            }
        }
    }

    /// Removes all tables.
    ///
    /// # Errors
    /// The first thing that the operating system has to say against it.
    pub(super) async fn give_up(self) -> Result<(), StoreError> {
        let mut outcome = Ok(());
        if let Some(writer) = self.current {
            outcome = writer.abandon().await.map_err(StoreError::from);
        }
        for info in &self.ended {
            outcome = outcome.and(self.files.remove_table(info.number).await);
        }
        outcome
    }
}
