//! The files of one shard: its directory, its tables, its manifest.
//!
//! A change of the tables goes in this order, and a crash between two steps leaves what was before:
//! 1. new tables are written, synced, and their names made durable by a sync of the directory;
//! 2. the manifest notes the change, durably;
//! 3. readers get the new tables;
//! 4. tables that went are removed when nobody reads them any more. What a crash leaves is removed at the next start.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ostrakon_core::lsm::{Edit, Options, TableInfo, TableNumber, Tree};
use ostrakon_core::raft::EntryId;
use ostrakon_wire::routing::ShardId;

use super::OwnRecords;
use super::keys::OWN;
use super::tables::Tables;
use crate::env::disk::is_disk_full;
use crate::env::local::Exclusive;
use crate::env::pace::Pace;
use crate::env::tasks::yield_now;
#[cfg(test)]
use crate::env::testing::{memory_disk::MemoryDisk, scheduler::Scheduler};
use crate::env::{Disk, Tasks};
use crate::limits::STORE_RESERVE_BYTES;
use crate::storage::manifest::{Change, Manifest, ManifestError, TABLE_SUFFIX};
use crate::storage::sstable::builder::TableOptions;
use crate::storage::sstable::cache::BlockCache;
use crate::storage::sstable::format::{Codec, TableId};
use crate::storage::sstable::merge::{Merge, RunCursor};
use crate::storage::sstable::reader::{Table, TableError};
use crate::storage::sstable::writer::{TableWriter, WriteError};
use crate::storage::verify::Flaw;

/// How tables are made and kept in shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// The layout of tables.
    pub tables: TableOptions,
    /// How tables that nothing lies below are compressed, if in another way.
    pub last_level_codec: Option<Codec>,
    /// Length in bytes that merged tables should have.
    pub table_bytes: u64,
    /// What is merged when.
    pub compaction: Options,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            tables: TableOptions::default(),
            last_level_codec: None,
            table_bytes: 32 << 20,
            compaction: Options::default(),
        }
    }
}

/// What the shards of a core share for their files.
#[derive(Clone)]
pub struct StoreEnv {
    /// Files.
    pub disk: Rc<dyn Disk>,
    /// Yielding.
    pub tasks: Rc<dyn Tasks>,
    /// Blocks.
    pub cache: Rc<BlockCache>,
    /// How fast flushes write.
    pub flush_pace: Rc<Pace>,
    /// How fast merges do.
    pub merge_pace: Rc<Pace>,
    /// How tables are made.
    pub options: Rc<StoreOptions>,
}

#[cfg(test)]
impl StoreEnv {
    /// For tests: nothing is in the cache.
    pub(crate) fn in_memory(
        disk: &MemoryDisk,
        scheduler: &Scheduler,
        cache_bytes: usize,
        options: StoreOptions,
    ) -> StoreEnv {
        let tasks = Rc::new(scheduler.clone());
        StoreEnv {
            disk: Rc::new(disk.clone()),
            tasks: Rc::clone(&tasks) as _,
            cache: Rc::new(BlockCache::new(cache_bytes)),
            flush_pace: Rc::new(Pace::new(Rc::clone(&tasks) as _, Rc::clone(&tasks) as _)),
            merge_pace: Rc::new(Pace::new(Rc::clone(&tasks) as _, tasks)),
            options: Rc::new(options),
        }
    }
}

/// Why the files of a shard can't be used, or not be changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// A directory.
    Directory {
        /// The directory.
        path: PathBuf,
        /// What it was asked for.
        operation: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file system has less room than a job may need, so the job was not begun.
    NoRoom {
        /// The directory.
        path: PathBuf,
        /// Bytes that it may need, and that must stay free besides.
        needed_bytes: u64,
        /// Bytes that are free.
        free_bytes: u64,
    },
    /// A table can't be read.
    Table(TableError),
    /// A table can't be written. Nothing has changed.
    Write(WriteError),
    /// The manifest. After a failed write nobody knows what it says, until the next start or, if there was too little
    /// space, until a change was noted in its place.
    Manifest(ManifestError),
}

impl core::fmt::Display for StoreError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            StoreError::Directory {
                path,
                operation,
                source,
            } => write!(formatter, "cannot {operation} {}: {source}", path.display()),
            StoreError::NoRoom {
                path,
                needed_bytes,
                free_bytes,
            } => write!(
                formatter,
                "{} has {free_bytes} bytes of free space, and {needed_bytes} may be needed: free some",
                path.display()
            ),
            StoreError::Table(error) => error.fmt(formatter),
            StoreError::Write(error) => error.fmt(formatter),
            StoreError::Manifest(error) => error.fmt(formatter),
        }
    }
}

impl core::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            StoreError::Directory { source, .. } => Some(source),
            StoreError::NoRoom { .. } => None,
            StoreError::Table(error) => error.source(),
            StoreError::Write(error) => error.source(),
            StoreError::Manifest(error) => error.source(),
        }
    }
}

impl StoreError {
    /// Is there too little space? Then trying again makes sense once there is more.
    pub fn is_disk_full(&self) -> bool {
        match self {
            StoreError::Write(error) => is_disk_full(&error.source),
            StoreError::Directory { source, .. } => is_disk_full(source),
            StoreError::NoRoom { .. } => true,
            StoreError::Table(_) => false,
            StoreError::Manifest(error) => error.is_disk_full(),
        }
    }
}

impl From<TableError> for StoreError {
    fn from(error: TableError) -> StoreError {
        StoreError::Table(error)
    }
}

impl From<WriteError> for StoreError {
    fn from(error: WriteError) -> StoreError {
        StoreError::Write(error)
    }
}

impl From<ManifestError> for StoreError {
    fn from(error: ManifestError) -> StoreError {
        StoreError::Manifest(error)
    }
}

/// The directory of all shards.
pub fn shards_directory(data: &Path) -> PathBuf {
    data.join("shard")
}

/// The directory of a shard.
pub fn shard_directory(data: &Path, shard: ShardId) -> PathBuf {
    shards_directory(data).join(format!("{:04}", shard.0))
}

/// The shard whose directory has this name.
pub fn parse_shard_directory(name: &str) -> Option<ShardId> {
    let shard = ShardId(name.parse().ok()?);
    // Only the form that `shard_directory` makes.
    (format!("{:04}", shard.0) == name).then_some(shard)
}

/// The file name of a table.
pub fn table_name(number: TableNumber) -> String {
    format!("{:016x}{TABLE_SUFFIX}", number.0)
}

/// The table whose file has this name.
pub fn parse_table_name(name: &str) -> Option<TableNumber> {
    let digits = name.strip_suffix(TABLE_SUFFIX)?;
    let number = TableNumber(u64::from_str_radix(digits, 16).ok()?);
    // Only the form that `table_name` makes.
    (table_name(number) == name).then_some(number)
}

/// Makes the directories of these shards, durably.
///
/// # Errors
/// What the operating system says.
pub async fn make_directories(
    disk: &dyn Disk,
    data: &Path,
    shards: impl Iterator<Item = ShardId>,
) -> Result<(), StoreError> {
    let all = shards_directory(data);
    let failed = |source| StoreError::Directory {
        path: all.clone(),
        operation: "make the directories of shards in",
        source,
    };
    disk.create_dir(&all).await.map_err(failed)?;
    disk.sync_dir(data).await.map_err(failed)?;
    for shard in shards {
        disk.create_dir(&shard_directory(data, shard))
            .await
            .map_err(failed)?;
    }
    // Even if all were there: who made them may have died before their names lasted.
    disk.sync_dir(&all).await.map_err(failed)
}

/// The files of one shard.
pub struct ShardFiles {
    env: StoreEnv,
    shard: ShardId,
    directory: PathBuf,
    manifest: Exclusive<Manifest>,
    next_number: Cell<TableNumber>,
    /// Tables that went, and may still be read.
    obsolete: RefCell<Vec<Rc<Table>>>,
}

/// What the files of a shard are when they are opened.
pub struct OpenedFiles {
    /// The files.
    pub files: Rc<ShardFiles>,
    /// The tables.
    pub tables: Rc<Tables>,
    /// All entries up to this one are in them.
    pub flushed: EntryId,
    /// See [`Manifest::sync_failure`].
    pub sync_failure: Option<String>,
}

impl ShardFiles {
    /// Opens the manifest and all tables of a shard, and removes tables that no manifest has: what a crash has left.
    ///
    /// # Errors
    /// If a file can't be read, is damaged or missing.
    pub async fn open(env: &StoreEnv, data: &Path, shard: ShardId) -> Result<OpenedFiles, StoreError> {
        let directory = shard_directory(data, shard);
        let manifest = Manifest::open(&env.disk, &directory, shard.0).await?;
        let known = manifest.files().clone();
        let sync_failure = manifest.sync_failure().map(str::to_owned);
        let files = ShardFiles {
            env: env.clone(),
            shard,
            directory,
            manifest: Exclusive::new(manifest),
            next_number: Cell::new(known.next_number),
            obsolete: RefCell::default(),
        };
        let open = match files.open_all(&known.tree).await {
            Ok(open) => open,
            Err(error) => {
                let mut manifest = files.manifest.hold().await;
                // What keeps the shard from being opened is what tells.
                let _ = manifest.close().await;
                return Err(error);
            }
        };
        Ok(OpenedFiles {
            files: Rc::new(files),
            tables: Rc::new(Tables::new(known.tree, &open)),
            flushed: known.flushed,
            sync_failure,
        })
    }

    /// Removes what no tree has, and opens what this one has.
    async fn open_all(&self, tree: &Tree) -> Result<BTreeMap<TableNumber, Rc<Table>>, StoreError> {
        self.remove_orphans(tree).await?;
        let infos: Vec<Rc<TableInfo>> = tree.tables().cloned().collect();
        let opened = self.open_tables(&infos).await?;
        Ok(opened
            .into_iter()
            .map(|table| (table.id().number, table))
            .collect())
    }

    async fn remove_orphans(&self, tree: &Tree) -> Result<(), StoreError> {
        let failed = |source| self.directory_failed("remove orphaned tables from", source);
        let mut is_changed = false;
        for entry in self.env.disk.list(&self.directory).await.map_err(failed)? {
            let Some(number) = parse_table_name(&entry.name) else {
                continue;
            };
            // Numbers are not used again, not even those of tables that came to nothing.
            self.next_number
                .set(self.next_number.get().max(TableNumber(number.0 + 1)));
            if !tree.tables().any(|table| table.number == number) {
                let path = self.directory.join(&entry.name);
                self.env.disk.remove(&path).await.map_err(failed)?;
                is_changed = true;
            }
        }
        if is_changed {
            self.env.disk.sync_dir(&self.directory).await.map_err(failed)?;
        }
        Ok(())
    }

    pub(super) fn directory_failed(&self, operation: &'static str, source: io::Error) -> StoreError {
        StoreError::Directory {
            path: self.directory.clone(),
            operation,
            source,
        }
    }

    async fn open_table(&self, number: TableNumber) -> Result<Rc<Table>, TableError> {
        let path = self.directory.join(table_name(number));
        let table = Table::open(&*self.env.disk, &path, self.id(number), &self.env.cache).await?;
        Ok(Rc::new(table))
    }

    fn id(&self, number: TableNumber) -> TableId {
        TableId {
            shard: self.shard,
            number,
        }
    }

    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// How its tables are made and kept in shape.
    pub fn options(&self) -> &StoreOptions {
        &self.env.options
    }

    /// What it shares with the core's other shards.
    pub fn env(&self) -> &StoreEnv {
        &self.env
    }

    /// Begins a table under a new number.
    pub(super) async fn begin_table(&self, options: TableOptions) -> Result<TableWriter, WriteError> {
        let number = self.next_number.get();
        self.next_number.set(TableNumber(number.0 + 1));
        let path = self.directory.join(table_name(number));
        TableWriter::create(&self.env.disk, &path, self.id(number), options).await
    }

    /// Makes the names of ended tables last, and opens them.
    pub(super) async fn open_ended(&self, ended: &[Rc<TableInfo>]) -> Result<Vec<Rc<Table>>, StoreError> {
        if ended.is_empty() {
            return Ok(Vec::new());
        }
        let synced = self.env.disk.sync_dir(&self.directory).await;
        synced.map_err(|source| self.directory_failed("sync", source))?;
        Ok(self.open_tables(ended).await?)
    }

    /// Opens these tables, or none.
    async fn open_tables(&self, infos: &[Rc<TableInfo>]) -> Result<Vec<Rc<Table>>, TableError> {
        let mut opened: Vec<Rc<Table>> = Vec::with_capacity(infos.len());
        for info in infos {
            match self.open_table(info.number).await {
                Ok(table) => opened.push(table),
                Err(error) => {
                    for table in opened {
                        // Why one can't be opened is what tells.
                        let _ = table.close().await;
                    }
                    return Err(error);
                }
            }
        }
        Ok(opened)
    }

    /// The file of a table.
    pub(super) fn table_path(&self, number: TableNumber) -> PathBuf {
        self.directory.join(table_name(number))
    }

    /// Makes sure that so many bytes can be written, and that something stays free besides, for manifests.
    pub(super) async fn check_room(&self, bytes: u64) -> Result<(), StoreError> {
        let free_bytes = self.env.disk.free_bytes(&self.directory).await;
        let free_bytes =
            free_bytes.map_err(|source| self.directory_failed("read the free space of", source))?;
        let needed_bytes = bytes + STORE_RESERVE_BYTES;
        if free_bytes < needed_bytes {
            return Err(StoreError::NoRoom {
                path: self.directory.clone(),
                needed_bytes,
                free_bytes,
            });
        }
        Ok(())
    }

    /// Removes a table that came to nothing.
    pub(super) async fn remove_table(&self, number: TableNumber) -> Result<(), StoreError> {
        let removed = self
            .env
            .disk
            .remove(&self.directory.join(table_name(number)))
            .await;
        removed.map_err(|source| self.directory_failed("remove a table from", source))
    }

    /// Notes a change of the tables in the manifest, and then calls `install`, before anybody notes another one.
    /// `flushed` is set if entries up to it are in tables now.
    ///
    /// # Errors
    /// If it can't be noted: see [`Manifest::note`].
    pub async fn note(
        &self,
        edit: Edit,
        flushed: Option<EntryId>,
        install: impl FnOnce(&Edit),
    ) -> Result<(), StoreError> {
        let mut manifest = self.manifest.hold().await;
        let change = Change {
            edit,
            flushed: flushed.unwrap_or(manifest.files().flushed),
            next_number: self.next_number.get(),
        };
        manifest.note(&change).await?;
        install(&change.edit);
        Ok(())
    }

    /// Reads the manifest again: how many bytes, and what is wrong with them. Nobody changes it meanwhile.
    ///
    /// # Errors
    /// If it can't be read.
    pub async fn verify_manifest(&self) -> Result<(u64, Vec<Flaw>), ManifestError> {
        self.manifest.hold().await.verify().await
    }

    /// The directory of the shard.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Tables that are made from now on have this number or a higher one.
    pub fn next_number(&self) -> TableNumber {
        self.next_number.get()
    }

    /// These tables went. They are removed by [`ShardFiles::remove_obsolete`].
    pub fn make_obsolete(&self, tables: impl IntoIterator<Item = Rc<Table>>) {
        self.obsolete.borrow_mut().extend(tables);
    }

    /// Are there tables that went and still have their files?
    pub fn has_obsolete(&self) -> bool {
        !self.obsolete.borrow().is_empty()
    }

    /// Removes the files of tables that went and that nobody reads any more.
    ///
    /// # Errors
    /// What the operating system says. What is left is removed at the next start.
    pub async fn remove_obsolete(&self) -> Result<(), StoreError> {
        loop {
            let unused = {
                let mut obsolete = self.obsolete.borrow_mut();
                let unused = obsolete.iter().position(|table| Rc::strong_count(table) == 1);
                unused.map(|place| obsolete.swap_remove(place))
            };
            let Some(table) = unused else { return Ok(()) };
            let closed = table.close().await;
            let removed = self.env.disk.remove(table.path()).await;
            closed
                .and(removed)
                .map_err(|source| self.directory_failed("remove a table from", source))?;
        }
    }

    /// Hands out what the shard keeps for itself: of each key the newest value.
    ///
    /// # Errors
    /// If a table can't be read, or is damaged.
    pub async fn own_records(&self, tables: &Tables) -> Result<OwnRecords, TableError> {
        let mut runs = Vec::with_capacity(tables.runs().len());
        for run in tables.runs() {
            runs.push(RunCursor::new(run.iter().map(|open| Rc::clone(&open.table)))?);
        }
        let mut merge = Merge::new(runs).await?;
        let mut records = OwnRecords::new();
        while let Some((key, version)) = merge.entry() {
            if key.first() != Some(&OWN) {
                break;
            }
            // The newest comes first.
            if records.last().is_none_or(|(last, _)| last != key) {
                records.push((key.to_vec(), version.value.map(<[u8]>::to_vec)));
            }
            merge.next()?;
            if merge.is_unsettled() {
                merge.settle().await?;
            }
            if self.env.tasks.should_yield() {
                yield_now().await;
            }
        }
        records.retain(|(_, value)| value.is_some());
        Ok(records)
    }

    /// Closes all files. Nobody reads or changes them any more.
    ///
    /// # Errors
    /// The first thing that the operating system has to say against it.
    pub async fn close(&self, tables: &Tables) -> Result<(), StoreError> {
        let mut outcome = Ok(());
        let open = tables.runs().iter().flatten().map(|open| Rc::clone(&open.table));
        let obsolete = core::mem::take(&mut *self.obsolete.borrow_mut());
        for table in open.chain(obsolete) {
            outcome = outcome.and(table.close().await);
        }
        let outcome = outcome.map_err(|source| self.directory_failed("close the tables in", source));
        let mut manifest = self.manifest.hold().await;
        outcome.and(manifest.close().await.map_err(StoreError::from))
    }
}
