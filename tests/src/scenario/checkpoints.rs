//! Checkpoints of a thread: one is made, and what its tables have at its timestamp goes into the history as a scan of
//! all keys does. So every write that was acknowledged before must be in it, and nothing of later.
//!
//! The tables are read as they lie on the node's disk when the answer comes, with the engine's own code, past all
//! faults that wait for operations. The node may be writing, flushing and merging meanwhile.

use core::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::rc::Rc;

use ostrakon::env::disk::{DirEntry, Disk, DiskBuf, DiskMemory, File, IoFuture, OpenMode};
use ostrakon::shard::scan::{PageScan, ScanRange};
use ostrakon::storage::manifest::{self, MANIFEST};
use ostrakon::storage::sstable::cache::BlockCache;
use ostrakon::storage::sstable::format::TableId;
use ostrakon::storage::sstable::reader::Table;
use ostrakon::storage::store::Store;
use ostrakon::storage::store::files::{shard_directory, table_name};
use ostrakon::storage::store::tables::Tables;
use ostrakon_core::hlc::Timestamp;
use ostrakon_wire::message::{CheckpointAction, ErrorCode, Request};
use ostrakon_wire::routing::ShardId;

use super::client::{Reply, Value};
use super::connections::Asking;
use super::plan::SERVER;
use super::scans::Wish;
use super::workload::{Thread, describe};
use crate::check::history::{Action, Datum, Event, EventKind, StepAction, Version};
use crate::sim::HostDisk;

/// What is read of tables at once: few, so that there are several pages.
const PAGE_ENTRIES: usize = 5;

impl Thread {
    /// Makes a checkpoint, reads it, and releases it.
    pub(super) async fn checkpoint(&mut self, id: u64, asking: Asking<'_>) {
        let asking = Asking {
            cancels: false,
            ..asking
        };
        let shared = Rc::clone(&self.client().shared);
        let wish = Wish::of_range(&shared.keys, 0, shared.keys.len() as u32, false);
        let called = Action::Transaction {
            steps: Vec::new(),
            scan: Some(wish.range()),
        };
        self.recorder().invoke_read(self.process(), &called);
        let process = shared.world.running_process(SERVER);
        let make = Request::Checkpoint {
            action: CheckpointAction::Make,
            id,
        };
        let heard = self.client().call(&make, asking).await;
        let read = match heard.map(|heard| heard.reply) {
            // Another process has removed it.
            Ok(Reply::Checkpoint { .. }) if shared.world.running_process(SERVER) != process => {
                Err("the node was started again".to_owned())
            }
            Ok(Reply::Checkpoint { snapshot, directory }) => {
                let disk = shared.world.disk(SERVER);
                let entries = read_checkpoint(&disk, Path::new(&directory), shared.shards, snapshot);
                if let Err(complaint) = &entries
                    && !shared.may_refuse_read(ErrorCode::Unreadable)
                {
                    self.recorder()
                        .violation(format!("checkpoint {id:016x}: {complaint}"));
                }
                entries.map(|entries| (entries, snapshot))
            }
            Ok(other) => Err(describe(&Ok(other))),
            Err(error) => Err(describe(&Err(error))),
        };
        match read {
            Err(reason) => self.recorder().failed(self.process(), &called, reason),
            Ok((entries, snapshot)) => {
                self.record_scan(&wish, &entries, snapshot);
                let versions = entries.iter();
                let versions = versions.map(|(key, value)| (Datum::from(key.as_slice()), value.version));
                self.recorder().checkpoint(ReadCheckpoint {
                    snapshot,
                    versions: versions.collect(),
                });
                shared.counts.checkpoints.set(shared.counts.checkpoints.get() + 1);
            }
        }
        let release = Request::Checkpoint {
            action: CheckpointAction::Release,
            id,
        };
        // What is not released goes with the process.
        let _ = self.client().call(&release, asking).await;
    }
}

/// What a checkpoint was found to have.
#[derive(Debug)]
pub struct ReadCheckpoint {
    /// Its timestamp.
    pub snapshot: u64,
    /// Of each key that is there.
    pub versions: BTreeMap<Datum, u64>,
}

impl ReadCheckpoint {
    /// A write that it lacks: its version is not above the timestamp, and the key has an older one. This holds for
    /// writes that were not answered yet when the checkpoint was made, too, of which the history as such tells nothing.
    pub(super) fn missed(&self, events: &[Event]) -> Option<String> {
        let done = events.iter().filter(|event| event.kind == EventKind::Ok);
        done.flat_map(written)
            .find_map(|(key, Version(version))| {
                let found = *self.versions.get(key)?;
                let is_missed = version <= self.snapshot && version > found;
                is_missed.then(|| {
                    format!(
                        "the checkpoint at {} has {key} at version {found}, and it was written at version {version}",
                        self.snapshot
                    )
                })
            })
    }
}

/// The keys that a call has written, with their versions, as far as these are known.
fn written(event: &Event) -> Vec<(&Datum, Version)> {
    match &event.action {
        Action::Write { key, .. }
        | Action::CompareAndSet { key, .. }
        | Action::Delete { key }
        | Action::Add { key, .. } => event.version.map(|version| (key, version)).into_iter().collect(),
        Action::Transaction { steps, .. } => steps
            .iter()
            .filter_map(|step| match &step.action {
                StepAction::Write { key, .. } | StepAction::Add { key, .. } => Some((key, step.version?)),
                StepAction::Append { .. } | StepAction::Read { .. } | StepAction::Check { .. } => None,
            })
            .collect(),
        Action::Read { .. } | Action::Check { .. } => Vec::new(),
    }
}

/// All keys of a checkpoint, each with the newest version at or below the snapshot if that is a value.
fn read_checkpoint(
    disk: &HostDisk,
    directory: &Path,
    shards: u32,
    snapshot: u64,
) -> Result<BTreeMap<Vec<u8>, Value>, String> {
    let cache = Rc::new(BlockCache::new(1 << 20));
    let mut stores = Vec::new();
    for shard in 0..shards {
        let files = shard_directory(directory, ShardId(shard));
        let bytes = disk.read(&files.join(MANIFEST)).ok_or("a manifest is missing")?;
        let parsed = manifest::parse(&bytes, shard).map_err(|(offset, what)| {
            format!("the manifest of shard {shard} is damaged at offset {offset}: {what}")
        })?;
        let mut open = BTreeMap::new();
        for info in parsed.tree.tables() {
            let path = files.join(table_name(info.number));
            let bytes = disk
                .read(&path)
                .ok_or_else(|| format!("{} is missing", path.display()))?;
            let id = TableId {
                shard: ShardId(shard),
                number: info.number,
            };
            let frozen = Frozen(bytes.into());
            let table = at_once(Table::open(&frozen, &path, id, &cache));
            open.insert(info.number, Rc::new(table.map_err(|error| error.to_string())?));
        }
        let tables = Rc::new(Tables::new(parsed.tree, &open));
        stores.push((ShardId(shard), Store::new(tables)));
    }
    let mut entries = BTreeMap::new();
    let mut starts = VecDeque::from([Vec::new()]);
    while let Some(start) = starts.pop_front() {
        let range = ScanRange {
            start,
            end: None,
            limit: PAGE_ENTRIES,
            page_bytes: 1 << 20,
            keys_only: false,
            reverse: false,
        };
        let mut scan = PageScan::new(Timestamp(snapshot), range);
        let stores = || stores.iter().map(|(shard, store)| (*shard, store));
        while !scan.go_on(stores()).map_err(|error| error.to_string())? {
            at_once(scan.read()).map_err(|error| error.to_string())?;
        }
        let page = scan.into_page();
        for entry in (0..page.len()).filter_map(|place| page.entry(place)) {
            let value = Value {
                version: entry.version,
                bytes: entry.value.to_vec(),
                expires: entry.expires,
            };
            entries.insert(entry.key.to_vec(), value);
        }
        starts.extend(page.resume_key);
    }
    Ok(entries)
}

/// The outcome of a future that waits for nothing.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut context = core::task::Context::from_waker(core::task::Waker::noop());
    match core::pin::pin!(future).poll(&mut context) {
        core::task::Poll::Ready(done) => done,
        core::task::Poll::Pending => unreachable!("it reads bytes that are there"),
    }
}

/// A disk of one file, which has these bytes.
struct Frozen(Rc<[u8]>);

struct Bytes(Vec<u8>);

impl DiskMemory for Bytes {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn truncate(&mut self, len_bytes: usize) {
        self.0.truncate(len_bytes);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn ready<'a, T: 'a>(outcome: io::Result<T>) -> IoFuture<'a, T> {
    Box::pin(core::future::ready(outcome))
}

fn refused<'a, T: 'a>() -> IoFuture<'a, T> {
    ready(Err(io::ErrorKind::ReadOnlyFilesystem.into()))
}

impl Disk for Frozen {
    fn allocate(&self, len_bytes: usize) -> DiskBuf {
        DiskBuf::new(Box::new(Bytes(vec![0; len_bytes])))
    }

    fn open<'a>(&'a self, _path: &'a Path, _mode: OpenMode) -> IoFuture<'a, Rc<dyn File>> {
        ready(Ok(Rc::new(Frozen(Rc::clone(&self.0)))))
    }

    fn list<'a>(&'a self, _directory: &'a Path) -> IoFuture<'a, Vec<DirEntry>> {
        refused()
    }

    fn create_dir<'a>(&'a self, _path: &'a Path) -> IoFuture<'a, ()> {
        refused()
    }

    fn rename<'a>(&'a self, _from: &'a Path, _to: &'a Path) -> IoFuture<'a, ()> {
        refused()
    }

    fn link<'a>(&'a self, _from: &'a Path, _to: &'a Path) -> IoFuture<'a, ()> {
        refused()
    }

    fn remove<'a>(&'a self, _path: &'a Path) -> IoFuture<'a, ()> {
        refused()
    }

    fn remove_dir<'a>(&'a self, _path: &'a Path) -> IoFuture<'a, ()> {
        refused()
    }

    fn sync_dir<'a>(&'a self, _directory: &'a Path) -> IoFuture<'a, ()> {
        refused()
    }

    fn free_bytes<'a>(&'a self, _path: &'a Path) -> IoFuture<'a, u64> {
        refused()
    }
}

impl File for Frozen {
    fn len_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, len_bytes: usize) -> IoFuture<'_, DiskBuf> {
        let start = offset as usize;
        let bytes = self.0.get(start..start + len_bytes);
        let bytes = bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof));
        ready(bytes.map(|bytes| DiskBuf::new(Box::new(Bytes(bytes.to_vec())))))
    }

    fn write_at(&self, _buffer: Rc<DiskBuf>, _offset: u64) -> IoFuture<'_, ()> {
        refused()
    }

    fn sync(&self) -> IoFuture<'_, ()> {
        refused()
    }

    fn close(&self) -> IoFuture<'_, ()> {
        ready(Ok(()))
    }
}
