//! Merges tables into new ones, as a choice says.

use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::lsm::{Choice, Edit, Place, TableInfo};
use xxhash_rust::xxh3::xxh3_64;

use super::files::{ShardFiles, StoreError};
use super::keys::users_key;
use super::tables::Tables;
use crate::env::tasks::yield_now;
use crate::storage::sstable::builder::TableOptions;
use crate::storage::sstable::merge::{Collector, Merge, RunCursor};
use crate::storage::sstable::reader::Table;
use crate::storage::sstable::writer::TableWriter;

/// What a merge has come to.
pub struct Merged {
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
    /// Carries out a choice that was made for these tables. Nobody reads below `watermark`. As long as `is_wanted` says
    /// so: `None` if it did not any more, and nothing has changed.
    ///
    /// # Errors
    /// If a table can't be read or written. Nothing has changed then.
    pub async fn merge(
        &self,
        tables: &Tables,
        choice: &Choice,
        watermark: Timestamp,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Option<Merged>, StoreError> {
        let inputs = choice.inputs.iter().map(|number| {
            let open = tables.get(*number);
            &open.expect("a choice names tables of its tree").info
        });
        if choice.is_move {
            return Ok(Some(Merged {
                edit: self.edit(choice, inputs.cloned().collect()),
                opened: Vec::new(),
                read_bytes: 0,
                written_bytes: 0,
            }));
        }
        let read_bytes = inputs.map(|info| info.bytes).sum();
        self.check_room(read_bytes).await?;
        let mut ended = Vec::new();
        let written = self
            .merge_into(tables, choice, watermark, is_wanted, &mut ended)
            .await;
        let opened = match written {
            Ok(true) => self.open_ended(&ended).await,
            Ok(false) => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        // What came of a merge that failed are orphans.
        match opened {
            Ok(opened) if opened.len() == ended.len() => Ok(Some(Merged {
                read_bytes,
                written_bytes: ended.iter().map(|info| info.bytes).sum(),
                edit: self.edit(choice, ended),
                opened,
            })),
            Ok(_) => {
                self.remove_ended(&ended).await?;
                Ok(None)
            }
            Err(error) => {
                let _ = self.remove_ended(&ended).await;
                Err(error)
            }
        }
    }

    fn edit(&self, choice: &Choice, added: Vec<Rc<TableInfo>>) -> Edit {
        Edit {
            removed: choice.inputs.clone(),
            place: choice.output,
            added,
        }
    }

    /// Returns whether it was wanted to the end.
    async fn merge_into(
        &self,
        tables: &Tables,
        choice: &Choice,
        watermark: Timestamp,
        is_wanted: &dyn Fn() -> bool,
        ended: &mut Vec<Rc<TableInfo>>,
    ) -> Result<bool, StoreError> {
        let mut writer = None;
        let merged = self
            .merge_on(tables, choice, watermark, is_wanted, (&mut writer, ended))
            .await;
        match (merged, writer) {
            (Ok(true), Some(writer)) => {
                ended.push(self.end_table(writer).await?);
                Ok(true)
            }
            (merged, Some(writer)) => {
                let abandoned = writer.abandon().await;
                let is_wanted = merged?;
                abandoned?;
                Ok(is_wanted)
            }
            (merged, None) => merged,
        }
    }

    /// Leaves the table that is not ended in the writer.
    async fn merge_on(
        &self,
        tables: &Tables,
        choice: &Choice,
        watermark: Timestamp,
        is_wanted: &dyn Fn() -> bool,
        (writer, ended): (&mut Option<TableWriter>, &mut Vec<Rc<TableInfo>>),
    ) -> Result<bool, StoreError> {
        let mut runs = Vec::new();
        for run in tables.runs() {
            let of_run = run
                .iter()
                .filter(|open| choice.inputs.contains(&open.info.number));
            runs.push(RunCursor::new(of_run.map(|open| Rc::clone(&open.table)))?);
        }
        let table_options = self.table_options(tables, choice);
        let mut merge = Merge::new(runs).await?;
        let mut collector = Collector::new(watermark);
        let mut last_key = Vec::new();
        while let Some((key, version)) = merge.entry() {
            if key != last_key {
                // All versions of a key lie in one table.
                if let Some(full) = writer.take_if(|writer| writer.file_bytes() >= self.options().table_bytes)
                {
                    ended.push(self.end_table(full).await?);
                }
                if !is_wanted() {
                    return Ok(false);
                }
                key.clone_into(&mut last_key);
            }
            if collector.keeps(key, &version, |key| tables.tree().has_older(choice, key)) {
                if writer.is_none() {
                    *writer = Some(self.begin_table(table_options).await?);
                }
                let writer = writer.as_mut().expect("it was just begun");
                writer.add(xxh3_64(users_key(key).unwrap_or(key)), key, &version);
                self.pass_on(writer).await?;
            } else if self.env().tasks.should_yield() {
                yield_now().await;
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
            Place::Young => false,
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

    async fn remove_ended(&self, ended: &[Rc<TableInfo>]) -> Result<(), StoreError> {
        for info in ended {
            self.remove_table(info.number).await?;
        }
        Ok(())
    }
}
