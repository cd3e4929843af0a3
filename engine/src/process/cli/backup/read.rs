//! What is in a backup: all its keys in order, each with the newest version at or below the backup's snapshot.
//!
//! Tables hold more than that: newer versions, older ones, tombstones, what has expired. The engine's own scan leaves
//! them out, over all shards at once.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::lsm::TableNumber;
use ostrakon_wire::routing::ShardId;

use super::super::failure::Failure;
use super::catalogue::Catalogue;
use super::directory::BackupDirectory;
use super::offline::{open_table, run};
use crate::shard::scan::{PageScan, ScanRange};
use crate::storage::manifest;
use crate::storage::sstable::cache::BlockCache;
use crate::storage::sstable::format::TableId;
use crate::storage::sstable::reader::TableError;
use crate::storage::store::Store;
use crate::storage::store::tables::Tables;

/// Bytes of blocks that are kept: those at the places of all runs.
const CACHE_BYTES: usize = 64 << 20;
/// Bytes of keys and values that are read at once.
const PAGE_BYTES: usize = 4 << 20;

/// One entry of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BackupEntry {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// Timestamp from which on the key is absent; 0: never.
    pub(super) expires: u64,
}

/// A walk over a backup's entries.
pub(super) struct BackupReader {
    snapshot: Timestamp,
    stores: Vec<(ShardId, Store)>,
    page: VecDeque<BackupEntry>,
    /// Where the next page begins, if there is one.
    resume_key: Option<Vec<u8>>,
}

impl BackupReader {
    /// At the first entry of a backup, whose files were checked.
    pub(super) fn open(directory: &BackupDirectory, catalogue: &Catalogue) -> Result<BackupReader, Failure> {
        let cache = Rc::new(BlockCache::new(CACHE_BYTES));
        let mut stores = Vec::with_capacity(catalogue.shards.len());
        for (shard, of_shard) in (0..).zip(&catalogue.shards) {
            let files = manifest::parse(&of_shard.manifest, shard).map_err(|(offset, what)| {
                Failure::Failed(format!(
                    "the manifest of shard {shard} in backup {} is damaged at offset {offset}: {what}",
                    catalogue.snapshot
                ))
            })?;
            let mut open = BTreeMap::new();
            for table in &of_shard.tables {
                let number = TableNumber(table.number);
                let id = TableId {
                    shard: ShardId(shard),
                    number,
                };
                let path = directory.table_path(shard, table);
                open.insert(
                    number,
                    open_table(&path, id, &cache).map_err(|error| unreadable(&error))?,
                );
            }
            if let Some(missing) = files
                .tree
                .tables()
                .find(|table| !open.contains_key(&table.number))
            {
                return Err(Failure::Failed(format!(
                    "table {} of shard {shard} is missing in the catalogue of backup {}",
                    missing.number.0, catalogue.snapshot
                )));
            }
            stores.push((
                ShardId(shard),
                Store::new(Rc::new(Tables::new(files.tree, &open))),
            ));
        }
        Ok(BackupReader {
            snapshot: Timestamp(catalogue.snapshot),
            stores,
            page: VecDeque::new(),
            resume_key: Some(Vec::new()),
        })
    }

    /// The next entry; none behind the last.
    pub(super) fn next(&mut self) -> Result<Option<BackupEntry>, Failure> {
        while self.page.is_empty() {
            let Some(start) = self.resume_key.take() else {
                return Ok(None);
            };
            self.read_page(start).map_err(|error| unreadable(&error))?;
        }
        Ok(self.page.pop_front())
    }

    fn read_page(&mut self, start: Vec<u8>) -> Result<(), TableError> {
        let range = ScanRange {
            start,
            end: None,
            limit: usize::MAX,
            page_bytes: PAGE_BYTES,
            keys_only: false,
            reverse: false,
        };
        let mut scan = PageScan::new(self.snapshot, range);
        let stores = || self.stores.iter().map(|(shard, store)| (*shard, store));
        while !scan.go_on(stores())? {
            run(scan.read())?;
        }
        let page = scan.into_page();
        self.page = (0..page.len())
            .filter_map(|place| page.entry(place))
            .map(|entry| BackupEntry {
                key: entry.key.to_vec(),
                value: entry.value.to_vec(),
                expires: entry.expires,
            })
            .collect();
        self.resume_key = page.resume_key;
        Ok(())
    }
}

fn unreadable(error: &TableError) -> Failure {
    Failure::Failed(error.to_string())
}

/// The files of a backup's tables, each with what it must be like.
pub(super) fn table_files<'a>(
    directory: &'a BackupDirectory,
    catalogue: &'a Catalogue,
) -> impl Iterator<Item = (PathBuf, &'a super::catalogue::BackupTable)> {
    catalogue
        .tables()
        .map(|(shard, table)| (directory.table_path(shard, table), table))
}
