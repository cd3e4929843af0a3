//! Merges tables into new ones, as a choice says.

use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::lsm::{Choice, Edit, Place, TableInfo};

use super::files::{ShardFiles, StoreError};
use super::keys::stored_hash;
use super::output::{Output, RangesToWrite};
use super::tables::Tables;
use crate::storage::ranges::RangeTombstones;
use crate::storage::sstable::builder::TableOptions;
use crate::storage::sstable::merge::{Collector, Merge, RunCursor};
use crate::storage::sstable::reader::Table;

/// What a flush or a merge has come to, before the manifest has it.
pub struct MadeTables {
    /// The change of the tables.
    pub edit: Edit,
    /// The tables that it brings, open.
    pub opened: Vec<Rc<Table>>,
    /// Bytes of the tables that were read.
    pub read_bytes: u64,
    /// Bytes of the tables that were written.
    pub written_bytes: u64,
}

impl ShardFiles {
    /// Carries out a choice that was made for these tables, as long as `is_wanted` says so: `None` if it did not any
    /// more, and nothing has changed. Nobody reads below `watermark`.
    ///
    /// # Errors
    /// If a table can't be read or written. Nothing has changed then.
    pub async fn merge(
        &self,
        tables: &Tables,
        choice: &Choice,
        watermark: Timestamp,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Option<MadeTables>, StoreError> {
        let inputs = choice.inputs.iter().map(|number| {
            let open = tables.get(*number);
            &open.expect("a choice names tables of its tree").info
        });
        if choice.is_move {
            return Ok(Some(MadeTables {
                edit: edit(choice, inputs.cloned().collect()),
                opened: Vec::new(),
                read_bytes: 0,
                written_bytes: 0,
            }));
        }
        let open = || choice.inputs.iter().filter_map(|number| tables.get(*number));
        let ranges = open().flat_map(|open| open.table.ranges().iter().cloned());
        let ranges = RangeTombstones::new(ranges.collect()).needed_from(watermark);
        let inputs = Inputs {
            ranges: RangeTombstones::new(ranges.clone()),
            watermark,
        };
        let read_bytes = open()
            .filter(|open| !inputs.hide_whole(&open.info))
            .map(|open| open.info.bytes)
            .sum();
        self.check_room(read_bytes).await?;
        let ranges = RangesToWrite::new(ranges, tables.tree().older_than(choice), watermark);
        let mut output = Output::new(
            self,
            (self.table_options(tables, choice), &self.env().merge_pace),
            ranges,
        );
        match self
            .merge_into(&mut output, (tables, choice), &inputs, is_wanted)
            .await
        {
            Ok(true) => {
                let made = output.finish().await?;
                Ok(Some(MadeTables {
                    read_bytes,
                    written_bytes: made.infos.iter().map(|info| info.bytes).sum(),
                    edit: edit(choice, made.infos),
                    opened: made.opened,
                }))
            }
            Ok(false) => {
                output.give_up().await?;
                Ok(None)
            }
            Err(error) => {
                // The first error is the one that tells.
                let _ = output.give_up().await;
                Err(error)
            }
        }
    }

    /// Returns whether it was wanted to the end.
    async fn merge_into(
        &self,
        output: &mut Output<'_>,
        (tables, choice): (&Tables, &Choice),
        inputs: &Inputs,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<bool, StoreError> {
        let mut runs = Vec::new();
        for run in tables.runs() {
            let of_run = run
                .iter()
                .filter(|open| choice.inputs.contains(&open.info.number) && !inputs.hide_whole(&open.info));
            runs.push(RunCursor::new(of_run.map(|open| Rc::clone(&open.table)))?);
        }
        let mut merge = Merge::new(runs).await?;
        let mut collector = Collector::new(inputs.watermark);
        let older = tables.tree().older_than(choice);
        let mut deleted = None;
        let mut last_key = Vec::new();
        while let Some((key, version)) = merge.entry() {
            if key != last_key {
                // All versions of a key lie in one table.
                if output.has_reached(self.options().table_bytes) {
                    output.end_table(Some(key)).await?;
                }
                if !is_wanted() {
                    return Ok(false);
                }
                key.clone_into(&mut last_key);
                deleted = inputs.ranges.newest_over(key, inputs.watermark);
            }
            if collector.keeps(key, &version, deleted, |key| older.has(key)) {
                let hash = stored_hash(key);
                output.add(hash, key, &version).await?;
            } else {
                output.let_others_run().await;
            }
            merge.next()?;
            if merge.is_unsettled() {
                merge.settle().await?;
            }
        }
        Ok(true)
    }

    fn table_options(&self, tables: &Tables, choice: &Choice) -> TableOptions {
        let options = self.options();
        let is_last = match choice.output {
            // It comes in place of the oldest input.
            Place::Young => tables.runs().last().is_some_and(|oldest| {
                let mut numbers = oldest.iter().map(|open| open.info.number);
                numbers.any(|number| choice.inputs.contains(&number))
            }),
            Place::Level(level) => tables.tree().levels[level..].iter().all(Vec::is_empty),
        };
        match options.last_level_codec {
            Some(codec) if is_last => TableOptions {
                codec,
                ..options.tables
            },
            _ => options.tables,
        }
    }
}

/// What the inputs of a merge have of range tombstones.
struct Inputs {
    ranges: RangeTombstones,
    /// Nobody reads below it.
    watermark: Timestamp,
}

impl Inputs {
    /// Do they hide all of a table from all readers? Then it need not be read.
    fn hide_whole(&self, info: &TableInfo) -> bool {
        let has_ended = |key: &[u8]| info.ends_before(key);
        self.ranges
            .cover_whole(&info.smallest, has_ended, info.newest, self.watermark)
    }
}

fn edit(choice: &Choice, added: Vec<Rc<TableInfo>>) -> Edit {
    Edit {
        removed: choice.inputs.clone(),
        place: choice.output,
        added,
    }
}
