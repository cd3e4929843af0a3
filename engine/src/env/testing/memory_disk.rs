//! A disk in memory whose power can fail, for tests.
//!
//! 1. Every file and every name exists twice: as a reader sees it, and as it is after a power loss. `sync`
//!    and `sync_dir` make the second equal to the first; a durable write changes both when it completes.
//! 2. A durable write is *in flight* from its submission to its completion; what a crash leaves of it is the
//!    test's choice ([`Fate`]), down to single sectors.
//! 3. Submissions and completions are counted, and from the one given to [`MemoryDisk::freeze_at`] on,
//!    nothing happens any more. A test that walks over all counts crashes at every point of a workload.
//! 4. A test can hold durable writes and let them end in any order, and make any operation fail.
//!
//! It checks what its callers owe: aligned offsets and lengths, no use after close, no close before the
//! writes ended, no second close.

use core::any::Any;
use core::cell::{Cell, RefCell};
use core::future::{pending, poll_fn};
use core::task::{Poll, Waker};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::env::disk::{BLOCK_BYTES, DirEntry, IoFuture};
use crate::env::tasks::yield_now;
use crate::env::{Disk, DiskBuf, DiskMemory, File, OpenMode};

/// What a device writes at once.
pub(crate) const SECTOR_BYTES: usize = 512;

/// What is left of a write in flight when the power fails.
pub(crate) enum Fate {
    /// Nothing.
    Lost,
    /// All of it.
    Whole,
    /// It is in the device's cache: readers see it, and it is lost at the next power loss unless a sync
    /// comes first.
    Cached,
    /// The sectors (counted from the write's start) for which this says yes.
    Sectors(Box<dyn Fn(usize) -> bool>),
}

/// A durable write that did not end yet.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    pub(crate) path: PathBuf,
    pub(crate) offset: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Directory,
    File(usize),
}

#[derive(Default)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// False when a sync has nothing to do.
    unsynced: bool,
    /// Bytes of space that it took when it was made.
    reserved_bytes: u64,
}

struct Flight {
    content: usize,
    path: PathBuf,
    buffer: Rc<DiskBuf>,
    offset: u64,
    /// Set by the test: it may end now, so.
    ended: Option<io::Result<()>>,
    waker: Option<Waker>,
}

struct Injection {
    operation: &'static str,
    skip: u32,
    kind: io::ErrorKind,
}

struct Inner {
    contents: Vec<Content>,
    seen: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    flights: BTreeMap<u64, Flight>,
    next_flight: u64,
    operations: u64,
    freeze_at: u64,
    hold: bool,
    injections: Vec<Injection>,
    free_bytes: u64,
    /// If it is set, `free_bytes` is what files leave of it.
    capacity_bytes: Option<u64>,
    open_files: usize,
}

/// The disk; clones are one.
#[derive(Clone)]
pub(crate) struct MemoryDisk(Rc<RefCell<Inner>>);

impl MemoryDisk {
    /// An empty disk with a data directory.
    pub(crate) fn new(data: &Path) -> MemoryDisk {
        let names = BTreeMap::from([(data.to_path_buf(), Node::Directory)]);
        MemoryDisk(Rc::new(RefCell::new(Inner {
            contents: Vec::new(),
            seen: names.clone(),
            durable: names,
            flights: BTreeMap::new(),
            next_flight: 0,
            operations: 0,
            freeze_at: u64::MAX,
            hold: false,
            injections: Vec::new(),
            free_bytes: 1 << 40,
            capacity_bytes: None,
            open_files: 0,
        })))
    }

    /// Submissions and completions so far.
    pub(crate) fn operations(&self) -> u64 {
        self.0.borrow().operations
    }

    /// From this operation on, counted from the disk's beginning, none ends any more.
    pub(crate) fn freeze_at(&self, operation: u64) {
        self.0.borrow_mut().freeze_at = operation;
    }

    /// True when an operation met the freeze.
    pub(crate) fn is_frozen(&self) -> bool {
        let inner = self.0.borrow();
        inner.operations > inner.freeze_at
    }

    /// Holds durable writes that are submitted from now on, until the test ends them.
    pub(crate) fn hold_writes(&self, hold: bool) {
        self.0.borrow_mut().hold = hold;
    }

    /// Makes the next `operation` after `skip` more fail with `kind`.
    pub(crate) fn inject(&self, operation: &'static str, skip: u32, kind: io::ErrorKind) {
        self.0.borrow_mut().injections.push(Injection {
            operation,
            skip,
            kind,
        });
    }

    /// Nothing that was injected fails any more.
    pub(crate) fn clear_injections(&self) {
        self.0.borrow_mut().injections.clear();
    }

    /// Sets what [`Disk::free_bytes`] says.
    pub(crate) fn set_free_bytes(&self, free_bytes: u64) {
        self.0.borrow_mut().free_bytes = free_bytes;
    }

    /// From now on files take space, of which there is so much.
    pub(crate) fn set_capacity_bytes(&self, capacity_bytes: u64) {
        self.0.borrow_mut().capacity_bytes = Some(capacity_bytes);
    }

    /// What [`Disk::free_bytes`] says.
    pub(crate) fn space_bytes(&self) -> u64 {
        self.0.borrow().space_bytes()
    }

    /// Files that are open.
    pub(crate) fn open_files(&self) -> usize {
        self.0.borrow().open_files
    }

    /// The durable writes in flight, oldest first.
    pub(crate) fn in_flight(&self) -> Vec<InFlight> {
        self.0.borrow().flights.values().map(InFlight::of).collect()
    }

    /// Lets the write in flight at this place (oldest is 0) end.
    pub(crate) fn end_write(&self, place: usize, outcome: io::Result<()>) {
        let waker = {
            let mut inner = self.0.borrow_mut();
            let flight = inner.flights.values_mut().nth(place).expect("a write in flight");
            flight.ended = Some(outcome);
            flight.waker.take()
        };
        waker.expect("the write was polled").wake();
    }

    /// The power fails: what is not durable is gone, except for what `fate` keeps of the writes in flight,
    /// and for unsynced names if `names_survive`. The machine is up again afterwards, with no file open.
    pub(crate) fn power_loss(&self, names_survive: bool, mut fate: impl FnMut(&InFlight) -> Fate) {
        let inner = &mut *self.0.borrow_mut();
        for content in &mut inner.contents {
            content.seen.clone_from(&content.durable);
            content.unsynced = false;
        }
        for flight in core::mem::take(&mut inner.flights).into_values() {
            let content = &mut inner.contents[flight.content];
            let bytes = flight.buffer.bytes();
            let keep: Box<dyn Fn(usize) -> bool> = match fate(&InFlight::of(&flight)) {
                Fate::Lost => continue,
                Fate::Cached => {
                    put(&mut content.seen, flight.offset, bytes);
                    content.unsynced = true;
                    continue;
                }
                Fate::Whole => Box::new(|_| true),
                Fate::Sectors(keep) => keep,
            };
            for (sector, bytes) in bytes
                .chunks(SECTOR_BYTES)
                .enumerate()
                .filter(|(sector, _)| keep(*sector))
            {
                let offset = flight.offset + (sector * SECTOR_BYTES) as u64;
                put(&mut content.seen, offset, bytes);
                put(&mut content.durable, offset, bytes);
            }
        }
        if names_survive {
            inner.durable.clone_from(&inner.seen);
        } else {
            inner.seen.clone_from(&inner.durable);
        }
        inner.freeze_at = u64::MAX;
        inner.hold = false;
        inner.injections.clear();
        inner.open_files = 0;
    }

    /// The files, in the order of their paths, as a reader sees them.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let inner = self.0.borrow();
        let file = |(path, node): (&PathBuf, &Node)| (*node != Node::Directory).then(|| path.clone());
        inner.seen.iter().filter_map(file).collect()
    }

    /// A file's bytes as a reader sees them.
    pub(crate) fn content(&self, path: &Path) -> Vec<u8> {
        let inner = self.0.borrow();
        inner.contents[inner.file(path).expect("a file")].seen.clone()
    }

    /// Changes a file behind everybody's back, durably.
    pub(crate) fn edit(&self, path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
        let inner = &mut *self.0.borrow_mut();
        let content = inner.file(path).expect("a file");
        let content = &mut inner.contents[content];
        edit(&mut content.seen);
        content.durable.clone_from(&content.seen);
    }

    /// Flips one bit as a reader sees it; a second flip puts it back.
    pub(crate) fn flip(&self, path: &Path, offset: usize, bit: u32) {
        let inner = &mut *self.0.borrow_mut();
        let content = inner.file(path).expect("a file");
        inner.contents[content].seen[offset] ^= 1 << bit;
    }

    /// Puts a file in place behind everybody's back, durably.
    pub(crate) fn put_file(&self, path: &Path, bytes: Vec<u8>) {
        let inner = &mut *self.0.borrow_mut();
        inner.contents.push(Content {
            durable: bytes.clone(),
            seen: bytes,
            unsynced: false,
            reserved_bytes: 0,
        });
        let node = Node::File(inner.contents.len() - 1);
        inner.seen.insert(path.to_path_buf(), node);
        inner.durable.insert(path.to_path_buf(), node);
    }

    /// Takes a file away behind everybody's back, durably.
    pub(crate) fn take_file(&self, path: &Path) {
        let inner = &mut *self.0.borrow_mut();
        inner.durable.remove(path);
        inner.seen.remove(path).expect("a file");
    }

    /// Counts an operation; stays here for ever when the disk is frozen.
    async fn step(&self, operation: &'static str) -> io::Result<()> {
        let frozen = {
            let inner = &mut *self.0.borrow_mut();
            inner.operations += 1;
            if inner.operations <= inner.freeze_at {
                inner.injected(operation)?;
            }
            inner.operations > inner.freeze_at
        };
        if frozen {
            pending::<()>().await;
        }
        Ok(())
    }
}

impl InFlight {
    fn of(flight: &Flight) -> InFlight {
        InFlight {
            path: flight.path.clone(),
            offset: flight.offset,
        }
    }
}

impl Inner {
    fn space_bytes(&self) -> u64 {
        let Some(capacity_bytes) = self.capacity_bytes else {
            return self.free_bytes;
        };
        let used_bytes = self.seen.values().map(|node| match node {
            Node::Directory => 0,
            Node::File(content) => {
                let content = &self.contents[*content];
                content.reserved_bytes.max(content.seen.len() as u64)
            }
        });
        capacity_bytes.saturating_sub(used_bytes.sum())
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.seen.get(path) {
            Some(Node::File(content)) => Ok(*content),
            Some(Node::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn injected(&mut self, operation: &'static str) -> io::Result<()> {
        let Some(slot) = self
            .injections
            .iter()
            .position(|injection| injection.operation == operation)
        else {
            return Ok(());
        };
        if self.injections[slot].skip > 0 {
            self.injections[slot].skip -= 1;
            return Ok(());
        }
        Err(io::Error::new(self.injections.remove(slot).kind, "injected"))
    }
}

fn put(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let start = offset as usize;
    let end = start + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[start..end].copy_from_slice(bytes);
}

struct Memory(Vec<u8>);

impl DiskMemory for Memory {
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

impl Disk for MemoryDisk {
    fn allocate(&self, len_bytes: usize) -> DiskBuf {
        assert!(
            len_bytes > 0 && len_bytes.is_multiple_of(BLOCK_BYTES),
            "whole blocks"
        );
        DiskBuf::new(Box::new(Memory(vec![0; len_bytes])))
    }

    fn open<'a>(&'a self, path: &'a Path, mode: OpenMode) -> IoFuture<'a, Rc<dyn File>> {
        Box::pin(async move {
            self.step("open").await?;
            let inner = &mut *self.0.borrow_mut();
            let content = if matches!(mode, OpenMode::CreateNew | OpenMode::CreateReserved(_)) {
                if inner.seen.contains_key(path) {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                let reserved_bytes = match mode {
                    OpenMode::CreateReserved(bytes) => bytes,
                    _ => 0,
                };
                if reserved_bytes > inner.space_bytes() {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                inner.contents.push(Content {
                    reserved_bytes,
                    ..Content::default()
                });
                let content = inner.contents.len() - 1;
                inner.seen.insert(path.to_path_buf(), Node::File(content));
                content
            } else {
                inner.file(path)?
            };
            inner.open_files += 1;
            let file = MemoryFile {
                disk: self.clone(),
                content,
                path: path.to_path_buf(),
                mode,
                writing: Cell::new(0),
                closed: Cell::new(false),
            };
            Ok(Rc::new(file) as Rc<dyn File>)
        })
    }

    fn list<'a>(&'a self, directory: &'a Path) -> IoFuture<'a, Vec<DirEntry>> {
        Box::pin(async move {
            self.step("list").await?;
            let inner = self.0.borrow();
            if inner.seen.get(directory) != Some(&Node::Directory) {
                return Err(io::ErrorKind::NotFound.into());
            }
            let entry = |(path, node): (&PathBuf, &Node)| DirEntry {
                name: path
                    .file_name()
                    .expect("below a directory")
                    .to_string_lossy()
                    .into_owned(),
                len_bytes: match node {
                    Node::Directory => 0,
                    Node::File(content) => inner.contents[*content].seen.len() as u64,
                },
                is_dir: *node == Node::Directory,
            };
            // Any order is allowed; newest first is the one that callers expect least.
            let within = inner
                .seen
                .iter()
                .rev()
                .filter(|(path, _)| path.parent() == Some(directory));
            Ok(within.map(entry).collect())
        })
    }

    fn create_dir<'a>(&'a self, path: &'a Path) -> IoFuture<'a, ()> {
        Box::pin(async move {
            self.step("create_dir").await?;
            self.0
                .borrow_mut()
                .seen
                .insert(path.to_path_buf(), Node::Directory);
            Ok(())
        })
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> IoFuture<'a, ()> {
        Box::pin(async move {
            self.step("rename").await?;
            let inner = &mut *self.0.borrow_mut();
            let node = inner.seen.remove(from).ok_or(io::ErrorKind::NotFound)?;
            inner.seen.insert(to.to_path_buf(), node);
            Ok(())
        })
    }

    fn link<'a>(&'a self, from: &'a Path, to: &'a Path) -> IoFuture<'a, ()> {
        Box::pin(async move {
            self.step("link").await?;
            let inner = &mut *self.0.borrow_mut();
            let content = inner.file(from)?;
            if inner.seen.contains_key(to) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            inner.seen.insert(to.to_path_buf(), Node::File(content));
            Ok(())
        })
    }

    fn remove<'a>(&'a self, path: &'a Path) -> IoFuture<'a, ()> {
        Box::pin(async move {
            self.step("remove").await?;
            self.0
                .borrow_mut()
                .seen
                .remove(path)
                .ok_or(io::ErrorKind::NotFound)?;
            Ok(())
        })
    }

    fn remove_dir<'a>(&'a self, path: &'a Path) -> IoFuture<'a, ()> {
        self.remove(path)
    }

    fn sync_dir<'a>(&'a self, directory: &'a Path) -> IoFuture<'a, ()> {
        Box::pin(async move {
            self.step("sync_dir").await?;
            let inner = &mut *self.0.borrow_mut();
            inner.durable.retain(|path, _| path.parent() != Some(directory));
            let within = inner
                .seen
                .iter()
                .filter(|(path, _)| path.parent() == Some(directory));
            inner
                .durable
                .extend(within.map(|(path, node)| (path.clone(), *node)));
            Ok(())
        })
    }

    fn free_bytes<'a>(&'a self, _path: &'a Path) -> IoFuture<'a, u64> {
        Box::pin(async move {
            self.step("free_bytes").await?;
            Ok(self.space_bytes())
        })
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    content: usize,
    path: PathBuf,
    mode: OpenMode,
    writing: Cell<usize>,
    closed: Cell<bool>,
}

impl MemoryFile {
    fn check(&self, offset: u64, len_bytes: usize) {
        assert!(!self.closed.get(), "use of {} after close", self.path.display());
        let aligned = (offset as usize).is_multiple_of(BLOCK_BYTES) && len_bytes.is_multiple_of(BLOCK_BYTES);
        assert!(
            aligned && len_bytes > 0,
            "unaligned: {len_bytes} bytes at {offset}"
        );
    }

    async fn write_durable(&self, buffer: Rc<DiskBuf>, offset: u64) -> io::Result<()> {
        let id = {
            let inner = &mut *self.disk.0.borrow_mut();
            let id = inner.next_flight;
            inner.next_flight += 1;
            let ended = (!inner.hold).then_some(Ok(()));
            let buffer = Rc::clone(&buffer);
            let path = self.path.clone();
            inner.flights.insert(
                id,
                Flight {
                    content: self.content,
                    path,
                    buffer,
                    offset,
                    ended,
                    waker: None,
                },
            );
            id
        };
        let submitted = self.disk.step("write").await;
        let outcome = match submitted {
            Ok(()) => self.ended(id).await,
            failed => failed,
        };
        if outcome.is_ok() {
            yield_now().await;
            self.disk.step("written").await?;
        }
        let inner = &mut *self.disk.0.borrow_mut();
        inner.flights.remove(&id);
        outcome?;
        let content = &mut inner.contents[self.content];
        put(&mut content.seen, offset, buffer.bytes());
        put(&mut content.durable, offset, buffer.bytes());
        Ok(())
    }

    async fn ended(&self, id: u64) -> io::Result<()> {
        poll_fn(|cx| {
            let inner = &mut *self.disk.0.borrow_mut();
            let flight = inner.flights.get_mut(&id).expect("in flight");
            if let Some(outcome) = flight.ended.take() {
                return Poll::Ready(outcome);
            }
            flight.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl File for MemoryFile {
    fn len_bytes(&self) -> u64 {
        self.disk.0.borrow().contents[self.content].seen.len() as u64
    }

    fn read_at(&self, offset: u64, len_bytes: usize) -> IoFuture<'_, DiskBuf> {
        Box::pin(async move {
            self.check(offset, len_bytes);
            self.disk.step("read").await?;
            let inner = self.disk.0.borrow();
            let start = offset as usize;
            let bytes = inner.contents[self.content].seen.get(start..start + len_bytes);
            let bytes = bytes.ok_or(io::ErrorKind::UnexpectedEof)?;
            Ok(DiskBuf::new(Box::new(Memory(bytes.to_vec()))))
        })
    }

    fn write_at(&self, buffer: Rc<DiskBuf>, offset: u64) -> IoFuture<'_, ()> {
        Box::pin(async move {
            self.check(offset, buffer.bytes().len());
            self.writing.set(self.writing.get() + 1);
            let outcome = match self.mode {
                OpenMode::Read => Err(io::ErrorKind::PermissionDenied.into()),
                OpenMode::WriteDurable => self.write_durable(buffer, offset).await,
                OpenMode::CreateNew | OpenMode::CreateReserved(_) => {
                    let outcome = self.disk.step("fill").await;
                    if outcome.is_ok() {
                        let inner = &mut *self.disk.0.borrow_mut();
                        let content = &mut inner.contents[self.content];
                        put(&mut content.seen, offset, buffer.bytes());
                        content.unsynced = true;
                    }
                    outcome
                }
            };
            self.writing.set(self.writing.get() - 1);
            outcome
        })
    }

    fn sync(&self) -> IoFuture<'_, ()> {
        Box::pin(async move {
            assert!(!self.closed.get(), "sync of {} after close", self.path.display());
            let outcome = self.disk.step("sync").await;
            let inner = &mut *self.disk.0.borrow_mut();
            let content = &mut inner.contents[self.content];
            if let Err(error) = outcome {
                // What it should have stored is not stored by a later one either.
                content.unsynced = false;
                return Err(error);
            }
            if core::mem::take(&mut content.unsynced) {
                content.durable.clone_from(&content.seen);
            }
            Ok(())
        })
    }

    fn close(&self) -> IoFuture<'_, ()> {
        Box::pin(async move {
            assert!(
                !self.closed.replace(true),
                "second close of {}",
                self.path.display()
            );
            assert_eq!(
                self.writing.get(),
                0,
                "close of {} during a write",
                self.path.display()
            );
            self.disk.0.borrow_mut().open_files -= 1;
            self.disk.step("close").await
        })
    }
}
