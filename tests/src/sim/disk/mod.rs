//! The simulated disk: `env`'s `Disk` and `File`, on a file system whose power may fail.
//!
//! 1. An operation is submitted when its future is first polled, gets the next number of its host, and ends at
//!    a virtual time drawn by the seed; operations in flight end in any order. It takes effect when it ends.
//! 2. A write to a file opened with `WriteDurable` is durable when it ends. Others are seen when they end, and
//!    durable after a `sync` that was submitted later. Names are durable after a `sync_dir` submitted later.
//! 3. At a power loss each 512-byte sector of what is not durable or in flight is kept or lost, and a subset of
//!    the unsynced names survives (`crash`). At a kill of the process, what was seen stays.
//! 4. Faults make operations fail, linger, lie or strike stored bytes (`faults`, `damage`).
//!
//! It checks what its callers owe, as the real environment does: whole blocks, no use after close.

pub mod blocks;

mod file;
mod tree;

pub(super) mod state;

mod operations;

pub(super) mod crash;
pub(super) mod damage;
pub(super) mod faults;

pub mod harness;

use core::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::rc::Rc;

use ostrakon::env::disk::{BLOCK_BYTES, DirEntry, IoFuture};
use ostrakon::env::{Disk, DiskBuf, File, OpenMode};

use self::blocks::{Memory, WriteData};
use self::state::{DiskState, Request, Response};
use self::tree::Inode;
use super::host::{HostId, ProcessId, ProcessStatus};
use super::world::World;

pub use self::faults::{CrashPoint, DiskOperations};
pub use self::state::DiskOperation;

/// How fast and how large disks are. Times are virtual nanoseconds.
#[derive(Clone, Debug)]
pub struct DiskConfig {
    /// Usual time of a read.
    pub read_ns: u64,
    /// Usual time of a write.
    pub write_ns: u64,
    /// Usual time of a sync of a file or directory.
    pub sync_ns: u64,
    /// Usual time of everything else.
    pub name_ns: u64,
    /// Bytes that are transferred in a microsecond.
    pub bytes_per_us: u64,
    /// One operation in so many takes longer; 0 for none.
    pub tail_one_in: u64,
    /// By this factor at most.
    pub tail_factor_max: u64,
    /// Size of a disk.
    pub capacity_bytes: u64,
    /// Later durable writes to the same file that must have ended before damage strikes a write: see
    /// `damage`.
    pub cover_writes: u64,
}

impl Default for DiskConfig {
    fn default() -> Self {
        DiskConfig {
            read_ns: 60_000,
            write_ns: 40_000,
            sync_ns: 150_000,
            name_ns: 20_000,
            bytes_per_us: 2_000,
            tail_one_in: 100,
            tail_factor_max: 30,
            capacity_bytes: 1 << 40,
            cover_writes: 3,
        }
    }
}

/// An error of the operating system.
pub(super) fn os_error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

/// The disk of a host as a process sees it.
pub(super) struct SimDisk {
    world: World,
    host: HostId,
    process: ProcessId,
    state: Rc<RefCell<DiskState>>,
}

impl SimDisk {
    pub(super) fn new(world: &World, host: HostId, process: ProcessId) -> SimDisk {
        SimDisk {
            world: world.clone(),
            host,
            process,
            state: world.with_host(host, |host| Rc::clone(&host.disk)),
        }
    }

    fn share(&self) -> SimDisk {
        SimDisk::new(&self.world, self.host, self.process)
    }

    async fn run(&self, path: &Path, request: Request) -> io::Result<Response> {
        if self.world.process_status(self.process) != ProcessStatus::Running {
            // Code of a process that is no more, from a destructor: nothing it starts comes to anything.
            return core::future::pending().await;
        }
        let slot = self.world.submit(self.host, path.into(), request);
        core::future::poll_fn(|cx| slot.poll(cx)).await
    }

    async fn done(&self, path: &Path, request: Request) -> io::Result<()> {
        self.run(path, request).await.map(drop)
    }
}

impl Disk for SimDisk {
    fn allocate(&self, len_bytes: usize) -> DiskBuf {
        assert!(
            len_bytes > 0 && len_bytes.is_multiple_of(BLOCK_BYTES),
            "{len_bytes} bytes aren't blocks"
        );
        DiskBuf::new(Box::new(Memory::zeroed(len_bytes)))
    }

    fn open<'a>(&'a self, path: &'a Path, mode: OpenMode) -> IoFuture<'a, Rc<dyn File>> {
        Box::pin(async move {
            let Response::Opened(inode, len_bytes) = self.run(path, Request::Open(mode)).await? else {
                unreachable!("an open gives a file")
            };
            let file = SimFile {
                disk: self.share(),
                path: path.into(),
                inode,
                mode,
                len_bytes: Cell::new(len_bytes),
                is_closed: Cell::new(false),
            };
            Ok(Rc::new(file) as Rc<dyn File>)
        })
    }

    fn list<'a>(&'a self, directory: &'a Path) -> IoFuture<'a, Vec<DirEntry>> {
        Box::pin(async move {
            match self.run(directory, Request::List).await? {
                Response::Entries(entries) => Ok(entries),
                _ => unreachable!("a list gives entries"),
            }
        })
    }

    fn create_dir<'a>(&'a self, path: &'a Path) -> IoFuture<'a, ()> {
        Box::pin(self.done(path, Request::CreateDir))
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> IoFuture<'a, ()> {
        Box::pin(self.done(from, Request::Rename(to.into())))
    }

    fn link<'a>(&'a self, from: &'a Path, to: &'a Path) -> IoFuture<'a, ()> {
        Box::pin(self.done(from, Request::Link(to.into())))
    }

    fn remove<'a>(&'a self, path: &'a Path) -> IoFuture<'a, ()> {
        Box::pin(self.done(path, Request::Remove))
    }

    fn remove_dir<'a>(&'a self, path: &'a Path) -> IoFuture<'a, ()> {
        Box::pin(self.done(path, Request::RemoveDir))
    }

    fn sync_dir<'a>(&'a self, directory: &'a Path) -> IoFuture<'a, ()> {
        Box::pin(async move {
            let through = self.state.borrow().tree.last_sequence();
            self.done(directory, Request::SyncDir(through)).await
        })
    }

    fn free_bytes<'a>(&'a self, path: &'a Path) -> IoFuture<'a, u64> {
        Box::pin(async move {
            match self.run(path, Request::FreeBytes).await? {
                Response::Number(bytes) => Ok(bytes),
                _ => unreachable!("it gives a number"),
            }
        })
    }
}

/// An open file.
struct SimFile {
    disk: SimDisk,
    path: Rc<Path>,
    inode: Inode,
    mode: OpenMode,
    len_bytes: Cell<u64>,
    is_closed: Cell<bool>,
}

impl SimFile {
    fn check(&self, offset: u64, len_bytes: usize) {
        assert!(
            !self.is_closed.get(),
            "{} is used after it was closed",
            self.path.display()
        );
        assert!(
            offset.is_multiple_of(BLOCK_BYTES as u64) && len_bytes.is_multiple_of(BLOCK_BYTES),
            "{len_bytes} bytes at offset {offset} aren't blocks of {BLOCK_BYTES}"
        );
    }
}

impl File for SimFile {
    fn len_bytes(&self) -> u64 {
        self.len_bytes.get()
    }

    fn read_at(&self, offset: u64, len_bytes: usize) -> IoFuture<'_, DiskBuf> {
        Box::pin(async move {
            self.check(offset, len_bytes);
            let end = offset + len_bytes as u64;
            if end > self.len_bytes.get() {
                let facts = format!("the file has {} bytes, {end} are needed", self.len_bytes.get());
                let error = io::Error::new(io::ErrorKind::UnexpectedEof, facts);
                return Err(state::describe("read", &self.path, Some(offset), error));
            }
            let request = Request::Read(self.inode, offset, len_bytes);
            match self.disk.run(&self.path, request).await? {
                Response::Bytes(bytes) => Ok(bytes),
                _ => unreachable!("a read gives bytes"),
            }
        })
    }

    fn write_at(&self, buffer: Rc<DiskBuf>, offset: u64) -> IoFuture<'_, ()> {
        Box::pin(async move {
            self.check(offset, buffer.bytes().len());
            if self.mode == OpenMode::Read {
                return Err(state::describe(
                    "write",
                    &self.path,
                    Some(offset),
                    os_error(libc::EBADF),
                ));
            }
            let data = WriteData::of(&buffer, offset);
            let end = data.end();
            let request = Request::Write(self.inode, data, self.mode == OpenMode::WriteDurable);
            self.disk.done(&self.path, request).await?;
            self.len_bytes.set(self.len_bytes.get().max(end));
            Ok(())
        })
    }

    fn sync(&self) -> IoFuture<'_, ()> {
        Box::pin(async move {
            self.check(0, 0);
            let through = self.disk.state.borrow().tree.last_sequence();
            self.disk
                .done(&self.path, Request::Sync(self.inode, through))
                .await
        })
    }

    fn close(&self) -> IoFuture<'_, ()> {
        Box::pin(async move {
            assert!(
                !self.is_closed.replace(true),
                "{} is closed twice",
                self.path.display()
            );
            self.disk.done(&self.path, Request::Close(self.inode)).await
        })
    }
}
