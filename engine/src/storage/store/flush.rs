//! Makes a table of a sealed memtable.

use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::lsm::{Edit, Place};
use xxhash_rust::xxh3::xxh3_64;

use super::Sealed;
use super::files::{ShardFiles, StoreError};
use super::keys::{stored_key, stored_range};
use super::output::{Output, RangesToWrite};
use super::tables::Tables;
use crate::storage::memtable::Version;
use crate::storage::sstable::merge::Collector;
use crate::storage::sstable::reader::Table;

impl ShardFiles {
    /// Makes a table of the oldest sealed memtable, which comes on top of these tables. Nobody reads below `watermark`.
    /// Returns the change of the tables, and the table, open; there is none if nothing of the memtable can be read.
    ///
    /// # Errors
    /// If it can't be written, or be read back. Nothing has changed then.
    pub async fn flush(
        &self,
        sealed: &Sealed,
        below: &Tables,
        watermark: Timestamp,
    ) -> Result<(Edit, Vec<Rc<Table>>), StoreError> {
        self.check_room(sealed.memory_bytes() as u64).await?;
        let ranges = sealed.memtable.ranges().needed_from(watermark);
        let ranges = ranges.iter().map(stored_range).collect();
        let ranges = RangesToWrite::new(ranges, below.tree().older(), watermark);
        let mut output = Output::new(self, (self.options().tables, &self.env().flush_pace), ranges);
        if let Err(error) = write_sealed(&mut output, sealed, below, watermark).await {
            // The first error is the one that tells.
            let _ = output.give_up().await;
            return Err(error);
        }
        let made = output.finish().await?;
        let edit = Edit {
            removed: Vec::new(),
            place: Place::Young,
            added: made.infos,
        };
        Ok((edit, made.opened))
    }
}

async fn write_sealed(
    output: &mut Output<'_>,
    sealed: &Sealed,
    below: &Tables,
    watermark: Timestamp,
) -> Result<(), StoreError> {
    let written_at = Timestamp(sealed.through.index.0);
    for (key, value) in &sealed.own {
        let version = Version {
            timestamp: written_at,
            value: value.as_deref(),
            expiry: None,
        };
        output.add(xxh3_64(key), key, &version).await?;
    }
    let mut collector = Collector::new(watermark);
    let older = below.tree().older();
    let ranges = sealed.memtable.ranges();
    let mut stored = Vec::new();
    let mut cursor = sealed.memtable.cursor(&[]);
    while let Some(key) = cursor.key() {
        stored_key(&mut stored, key);
        let hash = xxh3_64(key);
        let deleted = ranges.newest_over(key, watermark);
        for version in cursor.versions() {
            if collector.keeps(&stored, &version, deleted, |stored| older.has(stored)) {
                output.add(hash, &stored, &version).await?;
            } else {
                output.let_others_run().await;
            }
        }
        cursor.advance();
    }
    Ok(())
}
