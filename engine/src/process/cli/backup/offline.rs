//! Tables read without a node: the engine's own code on a disk of plain files, one read after the other.

use core::any::Any;
use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use std::fs::{self, File as SystemFile};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::env::disk::{DirEntry, Disk, DiskBuf, DiskMemory, File, IoFuture, OpenMode};
use crate::storage::sstable::cache::BlockCache;
use crate::storage::sstable::cursor::{Access, TableCursor};
use crate::storage::sstable::format::TableId;
use crate::storage::sstable::reader::{Table, TableError};

/// Runs a future whose waits end by themselves, as all do on [`OfflineDisk`].
pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
    }
}

/// Opens a table.
pub(super) fn open_table(path: &Path, id: TableId, cache: &Rc<BlockCache>) -> Result<Rc<Table>, TableError> {
    run(Table::open(&OfflineDisk, path, id, cache)).map(Rc::new)
}

/// Reads all versions of a table, and with them checks all its blocks; returns how many there are.
pub(super) fn count_versions(table: &Rc<Table>) -> Result<u64, TableError> {
    let mut cursor = TableCursor::new(Rc::clone(table), Access::Bypass);
    cursor.seek_to_first()?;
    let mut versions = 0;
    loop {
        if cursor.is_unsettled() {
            run(cursor.settle())?;
        }
        if !cursor.is_valid() {
            return Ok(versions);
        }
        versions += 1;
        cursor.next()?;
    }
}

/// Plain files, for reading. A file is open while it is read only, so that there may be as many as there are.
#[derive(Debug)]
pub(super) struct OfflineDisk;

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

fn read_only<'a, T: 'a>() -> IoFuture<'a, T> {
    ready(Err(io::ErrorKind::ReadOnlyFilesystem.into()))
}

impl Disk for OfflineDisk {
    fn allocate(&self, len_bytes: usize) -> DiskBuf {
        DiskBuf::new(Box::new(Bytes(vec![0; len_bytes])))
    }

    fn open<'a>(&'a self, path: &'a Path, mode: OpenMode) -> IoFuture<'a, Rc<dyn File>> {
        if mode != OpenMode::Read {
            return read_only();
        }
        ready(fs::metadata(path).map(|metadata| {
            Rc::new(OfflineFile {
                path: path.to_owned(),
                len_bytes: metadata.len(),
            }) as Rc<dyn File>
        }))
    }

    fn list<'a>(&'a self, _directory: &'a Path) -> IoFuture<'a, Vec<DirEntry>> {
        read_only()
    }

    fn create_dir<'a>(&'a self, _path: &'a Path) -> IoFuture<'a, ()> {
        read_only()
    }

    fn rename<'a>(&'a self, _from: &'a Path, _to: &'a Path) -> IoFuture<'a, ()> {
        read_only()
    }

    fn link<'a>(&'a self, _from: &'a Path, _to: &'a Path) -> IoFuture<'a, ()> {
        read_only()
    }

    fn remove<'a>(&'a self, _path: &'a Path) -> IoFuture<'a, ()> {
        read_only()
    }

    fn remove_dir<'a>(&'a self, _path: &'a Path) -> IoFuture<'a, ()> {
        read_only()
    }

    fn sync_dir<'a>(&'a self, _directory: &'a Path) -> IoFuture<'a, ()> {
        read_only()
    }

    fn free_bytes<'a>(&'a self, _path: &'a Path) -> IoFuture<'a, u64> {
        read_only()
    }
}

struct OfflineFile {
    path: PathBuf,
    len_bytes: u64,
}

impl File for OfflineFile {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn read_at(&self, offset: u64, len_bytes: usize) -> IoFuture<'_, DiskBuf> {
        let mut bytes = vec![0; len_bytes];
        let read = SystemFile::open(&self.path).and_then(|file| file.read_exact_at(&mut bytes, offset));
        ready(read.map(|()| DiskBuf::new(Box::new(Bytes(bytes)))))
    }

    fn write_at(&self, _buffer: Rc<DiskBuf>, _offset: u64) -> IoFuture<'_, ()> {
        read_only()
    }

    fn sync(&self) -> IoFuture<'_, ()> {
        read_only()
    }

    fn close(&self) -> IoFuture<'_, ()> {
        ready(Ok(()))
    }
}
