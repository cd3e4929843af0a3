//! Files with direct IO. Every buffer is aligned to [`BLOCK_BYTES`]; every offset and length is a multiple
//! of it.
//!
//! Promises of an implementation:
//! 1. A write to a file opened with [`OpenMode::WriteDurable`] is on stable storage when its future
//!    resolves with `Ok`; short writes are continued inside.
//! 2. `create`, `rename`, `link` and `remove` last only after [`Disk::sync_dir`] of the directory that holds the name.
//! 3. A failed write or sync is reported once and never retried.
//! 4. A future may be dropped only after it resolved: callers await to the end.

use core::any::Any;
use core::future::Future;
use core::pin::Pin;
use std::io;
use std::path::Path;
use std::rc::Rc;

/// Alignment and granularity in bytes of every direct read and write.
pub const BLOCK_BYTES: usize = 4096;

/// Did the operating system find too little space?
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// The result of a disk operation, boxed once per operation.
pub type IoFuture<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + 'a>>;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading only. The file must exist.
    Read,
    /// For writing, created; an error if it exists already. Writes last only after [`File::sync`].
    CreateNew,
    /// The same, with so many bytes from its start set aside on the file system at once: writes to them find room.
    CreateReserved(u64),
    /// For writing an existing file with `O_DSYNC`: each write is durable when it resolves.
    WriteDurable,
}

/// Block-aligned memory behind a [`DiskBuf`], owned by the implementation of [`Disk`].
pub trait DiskMemory {
    /// The bytes.
    fn bytes(&self) -> &[u8];
    /// The bytes, for filling.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Cuts the memory to its first `len_bytes` bytes, for good.
    fn truncate(&mut self, len_bytes: usize);
    /// For the implementation to find its own type again.
    fn as_any(&self) -> &dyn Any;
}

/// A block-aligned buffer for direct IO. Its content after [`Disk::allocate`] is zero.
pub struct DiskBuf(Box<dyn DiskMemory>);

impl DiskBuf {
    /// Wraps memory of an implementation.
    pub fn new(memory: Box<dyn DiskMemory>) -> DiskBuf {
        DiskBuf(memory)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    /// The bytes, for filling.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut()
    }

    /// Cuts the buffer to its first `len_bytes` bytes, for good.
    pub fn truncate(&mut self, len_bytes: usize) {
        self.0.truncate(len_bytes);
    }

    /// The implementation's memory, for downcasting.
    pub fn memory(&self) -> &dyn Any {
        self.0.as_any()
    }
}

/// A directory entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Name without its directory.
    pub name: String,
    /// Length in bytes (0 for a directory).
    pub len_bytes: u64,
    /// True for a directory.
    pub is_dir: bool,
}

/// The file system below the data directory.
pub trait Disk {
    /// A zeroed buffer of `len_bytes` (a multiple of [`BLOCK_BYTES`], at least one block).
    fn allocate(&self, len_bytes: usize) -> DiskBuf;
    /// Opens a file.
    fn open<'a>(&'a self, path: &'a Path, mode: OpenMode) -> IoFuture<'a, Rc<dyn File>>;
    /// Lists a directory, in no particular order.
    fn list<'a>(&'a self, directory: &'a Path) -> IoFuture<'a, Vec<DirEntry>>;
    /// Creates a directory; no error if it exists. The parent must exist.
    fn create_dir<'a>(&'a self, path: &'a Path) -> IoFuture<'a, ()>;
    /// Renames a file or directory within the data directory. A file replaces `to`; a directory needs `to` to be
    /// absent or an empty directory.
    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> IoFuture<'a, ()>;
    /// Gives a file another name, which must be absent, within the data directory. Both name the same bytes; the file
    /// goes with the last of its names.
    fn link<'a>(&'a self, from: &'a Path, to: &'a Path) -> IoFuture<'a, ()>;
    /// Removes a name of a file.
    fn remove<'a>(&'a self, path: &'a Path) -> IoFuture<'a, ()>;
    /// Removes an empty directory.
    fn remove_dir<'a>(&'a self, path: &'a Path) -> IoFuture<'a, ()>;
    /// Makes creations, renames, links and removals in this directory durable (a full `fsync` of it).
    fn sync_dir<'a>(&'a self, directory: &'a Path) -> IoFuture<'a, ()>;
    /// Bytes that an unprivileged user can still write on the file system of `path`.
    fn free_bytes<'a>(&'a self, path: &'a Path) -> IoFuture<'a, u64>;
}

/// An open file.
pub trait File {
    /// Length in bytes when it was opened, or as grown by this handle's writes.
    fn len_bytes(&self) -> u64;
    /// Reads exactly `len_bytes` at `offset`, both multiples of [`BLOCK_BYTES`]. Reading past
    /// [`File::len_bytes`] is an error of kind `UnexpectedEof`.
    fn read_at(&self, offset: u64, len_bytes: usize) -> IoFuture<'_, DiskBuf>;
    /// Writes the whole buffer at `offset`, a multiple of [`BLOCK_BYTES`].
    fn write_at(&self, buffer: Rc<DiskBuf>, offset: u64) -> IoFuture<'_, ()>;
    /// Makes data and length durable, the device's volatile cache included.
    fn sync(&self) -> IoFuture<'_, ()>;
    /// Closes the file and reports what the operating system says of it. Call it exactly once, last.
    fn close(&self) -> IoFuture<'_, ()>;
}
