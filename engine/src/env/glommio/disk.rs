//! Files on glommio's direct IO, and the directory operations on its helper thread.
//!
//! Reads, writes, open, close and data syncs are `io_uring` operations. Everything that glommio has no ring
//! operation for (list, rename, link, remove, directory sync) runs on the executor's helper thread: it must not
//! stop the core. A panic there is carried back to the caller, who would hang otherwise.

use core::any::Any;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::mem::MaybeUninit;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ::glommio::io::{DmaBuffer, DmaFile, OpenOptions, ReadResult};

use super::system_error;
use crate::env::disk::{BLOCK_BYTES, DirEntry, Disk, DiskBuf, DiskMemory, File, IoFuture, OpenMode};

/// An error of the operating system with what was being done to which file. It is the inner error of the
/// [`io::Error`]s of this disk, whose `kind` is the system's.
#[derive(Debug)]
pub struct DiskError {
    /// What was tried, as a verb.
    pub operation: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// Byte offset of a read or write.
    pub offset: Option<u64>,
    /// What the system said.
    pub source: io::Error,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "can't {} {}", self.operation, self.path.display())?;
        if let Some(offset) = self.offset {
            write!(f, " at offset {offset}")?;
        }
        write!(f, ": {}", self.source)
    }
}

impl core::error::Error for DiskError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.source)
    }
}

fn describe(operation: &'static str, path: &Path, offset: Option<u64>, source: io::Error) -> io::Error {
    io::Error::new(
        source.kind(),
        DiskError {
            operation,
            path: path.to_owned(),
            offset,
            source,
        },
    )
}

/// Direct IO memory of an executor.
enum DmaMemory {
    /// From `allocate`. Shared with a write while that is in flight.
    Allocated(Rc<DmaBuffer>),
    /// From a read. glommio lends it for reading only; the first change copies it.
    Read(ReadResult),
}

fn copy_of(bytes: &[u8]) -> DmaBuffer {
    let mut copy = ::glommio::allocate_dma_buffer(bytes.len());
    copy.as_bytes_mut().copy_from_slice(bytes);
    copy
}

impl DmaMemory {
    /// The buffer to change. Panics while a write of it is in flight.
    fn own(&mut self) -> &mut DmaBuffer {
        if let DmaMemory::Read(read) = self {
            *self = DmaMemory::Allocated(Rc::new(copy_of(read)));
        }
        match self {
            DmaMemory::Allocated(buffer) => {
                Rc::get_mut(buffer).expect("a buffer isn't changed while it is being written")
            }
            DmaMemory::Read(_) => unreachable!("copied above"),
        }
    }
}

impl DiskMemory for DmaMemory {
    fn bytes(&self) -> &[u8] {
        match self {
            DmaMemory::Allocated(buffer) => buffer.as_bytes(),
            DmaMemory::Read(read) => read,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.own().as_bytes_mut()
    }

    fn truncate(&mut self, len_bytes: usize) {
        assert!(len_bytes <= self.bytes().len(), "a buffer can't grow");
        match self {
            DmaMemory::Read(read) => {
                *read = ReadResult::slice(read, 0, len_bytes).expect("the length was checked");
            }
            DmaMemory::Allocated(_) => self.own().trim_to_size(len_bytes),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The file system, seen from one executor.
pub(super) struct DmaDisk;

/// Runs a blocking call on the executor's helper thread.
async fn blocking<T: Send + 'static>(
    operation: &'static str,
    path: &Path,
    call: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let owned = path.to_owned();
    let caught = ::glommio::executor()
        .spawn_blocking(move || panic::catch_unwind(AssertUnwindSafe(|| call(&owned))))
        .await;
    match caught {
        Ok(result) => result.map_err(|error| describe(operation, path, None, error)),
        Err(payload) => panic::resume_unwind(payload),
    }
}

fn list_blocking(directory: &Path) -> io::Result<Vec<DirEntry>> {
    fs::read_dir(directory)?
        .map(|entry| {
            let entry = entry?;
            let metadata = entry.metadata()?;
            Ok(DirEntry {
                // A name that isn't UTF-8 is none of ours; it is shown with replacement characters.
                name: entry.file_name().to_string_lossy().into_owned(),
                len_bytes: if metadata.is_dir() { 0 } else { metadata.len() },
                is_dir: metadata.is_dir(),
            })
        })
        .collect()
}

fn free_bytes_blocking(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut statistics = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends in a zero byte, and the pointer is valid for one statvfs.
    if unsafe { libc::statvfs(path.as_ptr(), statistics.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it filled the structure.
    let statistics = unsafe { statistics.assume_init() };
    Ok(statistics.f_bavail.saturating_mul(statistics.f_frsize))
}

/// Length of an open file, by its descriptor: glommio's `file_size` asks by path, which a rename may have
/// given to another file.
fn length_of(file: &DmaFile) -> io::Result<u64> {
    let mut status = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the descriptor is open, and the pointer is valid for one stat.
    if unsafe { libc::fstat(file.as_raw_fd(), status.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it filled the structure.
    Ok(unsafe { status.assume_init() }.st_size as u64)
}

impl Disk for DmaDisk {
    fn allocate(&self, len_bytes: usize) -> DiskBuf {
        assert!(
            len_bytes > 0 && len_bytes.is_multiple_of(BLOCK_BYTES),
            "{len_bytes} bytes aren't blocks"
        );
        let mut buffer = ::glommio::allocate_dma_buffer(len_bytes);
        buffer.as_bytes_mut().fill(0);
        DiskBuf::new(Box::new(DmaMemory::Allocated(Rc::new(buffer))))
    }

    fn open<'a>(&'a self, path: &'a Path, mode: OpenMode) -> IoFuture<'a, Rc<dyn File>> {
        Box::pin(async move {
            let mut options = OpenOptions::new();
            options.read(true);
            match mode {
                OpenMode::Read => {}
                OpenMode::CreateNew | OpenMode::CreateReserved(_) => {
                    options.write(true).create_new(true).mode(0o640);
                }
                OpenMode::WriteDurable => {
                    options.write(true).custom_flags(libc::O_DSYNC);
                }
            }
            let opened = options.dma_open(path).await;
            let file = opened.map_err(|error| describe("open", path, None, system_error(error)))?;
            let mut prepared =
                length_of(&file).map_err(|error| describe("read the length of", path, None, error));
            if let (Ok(_), OpenMode::CreateReserved(bytes)) = (&prepared, mode) {
                let reserved = file.pre_allocate(bytes, true).await.map_err(system_error);
                match reserved {
                    Err(error) if error.raw_os_error() != Some(libc::EOPNOTSUPP) => {
                        prepared = Err(describe("set space aside for", path, None, error));
                    }
                    // A file system that can't do it gives the space as the file is written.
                    Ok(()) | Err(_) => {}
                }
            }
            let length = match prepared {
                Ok(length) => length,
                Err(error) => {
                    file.close()
                        .await
                        .map_err(|error| describe("close", path, None, system_error(error)))?;
                    return Err(error);
                }
            };
            let opened = OpenFile {
                path: path.to_owned(),
                file: RefCell::new(Some(Rc::new(file))),
                len_bytes: Cell::new(length),
            };
            Ok(Rc::new(opened) as Rc<dyn File>)
        })
    }

    fn list<'a>(&'a self, directory: &'a Path) -> IoFuture<'a, Vec<DirEntry>> {
        Box::pin(blocking("list", directory, list_blocking))
    }

    fn create_dir<'a>(&'a self, path: &'a Path) -> IoFuture<'a, ()> {
        Box::pin(blocking(
            "create the directory",
            path,
            |path| match fs::create_dir(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
                created => created,
            },
        ))
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> IoFuture<'a, ()> {
        let to = to.to_owned();
        Box::pin(blocking("rename", from, move |from| fs::rename(from, to)))
    }

    fn link<'a>(&'a self, from: &'a Path, to: &'a Path) -> IoFuture<'a, ()> {
        let to = to.to_owned();
        Box::pin(blocking("link", from, move |from| fs::hard_link(from, to)))
    }

    fn remove<'a>(&'a self, path: &'a Path) -> IoFuture<'a, ()> {
        Box::pin(blocking("remove", path, |path| fs::remove_file(path)))
    }

    fn remove_dir<'a>(&'a self, path: &'a Path) -> IoFuture<'a, ()> {
        Box::pin(blocking("remove the directory", path, |path| {
            fs::remove_dir(path)
        }))
    }

    fn sync_dir<'a>(&'a self, directory: &'a Path) -> IoFuture<'a, ()> {
        // A full fsync: fdatasync, which glommio's own directory type uses, need not persist a rename.
        Box::pin(blocking("sync the directory", directory, |path| {
            fs::File::open(path)?.sync_all()
        }))
    }

    fn free_bytes<'a>(&'a self, path: &'a Path) -> IoFuture<'a, u64> {
        Box::pin(blocking("ask for the free space at", path, free_bytes_blocking))
    }
}

/// An open file. `file` is `None` once it is closed.
struct OpenFile {
    path: PathBuf,
    file: RefCell<Option<Rc<DmaFile>>>,
    len_bytes: Cell<u64>,
}

fn assert_blocks(offset: u64, len_bytes: usize) {
    assert!(
        offset.is_multiple_of(BLOCK_BYTES as u64) && len_bytes.is_multiple_of(BLOCK_BYTES),
        "{len_bytes} bytes at offset {offset} aren't blocks of {BLOCK_BYTES}"
    );
}

impl OpenFile {
    fn file(&self) -> Rc<DmaFile> {
        match &*self.file.borrow() {
            Some(file) => Rc::clone(file),
            None => panic!("{} is used after it was closed", self.path.display()),
        }
    }

    fn error(&self, operation: &'static str, offset: Option<u64>, source: io::Error) -> io::Error {
        describe(operation, &self.path, offset, source)
    }

    async fn read(&self, offset: u64, len_bytes: usize) -> io::Result<DiskBuf> {
        assert_blocks(offset, len_bytes);
        let file = self.file();
        let end = offset + len_bytes as u64;
        if end > self.len_bytes.get() {
            let facts = format!("the file has {} bytes, {end} are needed", self.len_bytes.get());
            let error = io::Error::new(io::ErrorKind::UnexpectedEof, facts);
            return Err(self.error("read", Some(offset), error));
        }
        let first = read_once(&file, offset, len_bytes).await;
        let first = first.map_err(|error| self.error("read", Some(offset), error))?;
        if first.len() == len_bytes {
            return Ok(DiskBuf::new(Box::new(DmaMemory::Read(first))));
        }
        let mut whole = ::glommio::allocate_dma_buffer(len_bytes);
        let buffer = RefCell::new(whole.as_bytes_mut());
        buffer.borrow_mut()[..first.len()].copy_from_slice(&first);
        let first_bytes = first.len();
        let transfer = transfer_all("read", len_bytes, async |done| {
            if done == 0 {
                return Ok(first_bytes);
            }
            let part = read_once(&file, offset + done as u64, len_bytes - done).await?;
            buffer.borrow_mut()[done..done + part.len()].copy_from_slice(&part);
            Ok(part.len())
        });
        transfer
            .await
            .map_err(|error| self.error("read", Some(offset), error))?;
        Ok(DiskBuf::new(Box::new(DmaMemory::Allocated(Rc::new(whole)))))
    }

    async fn write(&self, buffer: Rc<DiskBuf>, offset: u64) -> io::Result<()> {
        assert_blocks(offset, buffer.bytes().len());
        let file = self.file();
        let memory = buffer
            .memory()
            .downcast_ref::<DmaMemory>()
            .expect("a buffer of this environment");
        let whole = match memory {
            DmaMemory::Allocated(buffer) => Rc::clone(buffer),
            DmaMemory::Read(read) => Rc::new(copy_of(read)),
        };
        let transfer = transfer_all("write", whole.len(), async |done| {
            let rest = if done == 0 {
                Rc::clone(&whole)
            } else {
                Rc::new(copy_of(&whole.as_bytes()[done..]))
            };
            file.write_rc_at(rest, offset + done as u64)
                .await
                .map_err(system_error)
        });
        transfer
            .await
            .map_err(|error| self.error("write", Some(offset), error))?;
        let end = offset + whole.len() as u64;
        self.len_bytes.set(self.len_bytes.get().max(end));
        Ok(())
    }
}

async fn read_once(file: &DmaFile, offset: u64, len_bytes: usize) -> io::Result<ReadResult> {
    // `read_at` would report bytes beyond the end of the file.
    file.read_at_aligned(offset, len_bytes)
        .await
        .map_err(system_error)
}

/// Repeats `step(done_bytes)`, which transfers a prefix of the rest and returns its length, until all of
/// `len_bytes` is done. Direct IO goes on at a block boundary, so the end of a short step that lies inside
/// a block is done again.
async fn transfer_all(
    operation: &str,
    len_bytes: usize,
    step: impl AsyncFn(usize) -> io::Result<usize>,
) -> io::Result<()> {
    let mut done = 0;
    while done < len_bytes {
        let step_bytes = step(done).await?;
        assert!(
            step_bytes <= len_bytes - done,
            "the kernel did more than it was asked for"
        );
        let reached = if step_bytes == len_bytes - done {
            len_bytes
        } else {
            (done + step_bytes) / BLOCK_BYTES * BLOCK_BYTES
        };
        if reached == done {
            let kind = if operation == "read" {
                io::ErrorKind::UnexpectedEof
            } else {
                io::ErrorKind::WriteZero
            };
            return Err(io::Error::new(
                kind,
                format!("it stopped after {done} of {len_bytes} bytes"),
            ));
        }
        done = reached;
    }
    Ok(())
}

impl File for OpenFile {
    fn len_bytes(&self) -> u64 {
        self.len_bytes.get()
    }

    fn read_at(&self, offset: u64, len_bytes: usize) -> IoFuture<'_, DiskBuf> {
        Box::pin(self.read(offset, len_bytes))
    }

    fn write_at(&self, buffer: Rc<DiskBuf>, offset: u64) -> IoFuture<'_, ()> {
        Box::pin(self.write(buffer, offset))
    }

    fn sync(&self) -> IoFuture<'_, ()> {
        // fdatasync suffices: it leaves out only metadata that isn't needed to read the data back (times),
        // so it writes block mappings and a changed length, and it flushes the device's cache.
        Box::pin(async move {
            let synced = self.file().fdatasync().await;
            synced.map_err(|error| self.error("sync", None, system_error(error)))
        })
    }

    fn close(&self) -> IoFuture<'_, ()> {
        Box::pin(async move {
            let Some(file) = self.file.take() else {
                panic!("{} is closed twice", self.path.display());
            };
            let Ok(file) = Rc::try_unwrap(file) else {
                panic!(
                    "{} is closed while an operation on it is in flight",
                    self.path.display()
                );
            };
            file.close()
                .await
                .map_err(|error| self.error("close", None, system_error(error)))
        })
    }
}

#[cfg(test)]
mod tests {
    use core::task::{Context, Poll, Waker};

    use super::*;

    /// Runs the transfer with steps of the given lengths; returns where each step began.
    fn steps(len_bytes: usize, lengths: &[usize]) -> (io::Result<()>, Vec<usize>) {
        let starts = RefCell::new(Vec::new());
        let transfer = transfer_all("write", len_bytes, async |done| {
            let length = lengths[starts.borrow().len()];
            starts.borrow_mut().push(done);
            Ok(length)
        });
        let outcome = Box::pin(transfer)
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(outcome) = outcome else {
            panic!("the steps never wait")
        };
        (outcome, starts.into_inner())
    }

    #[test]
    fn short_steps_go_on_where_they_stopped() {
        let (outcome, starts) = steps(5 * BLOCK_BYTES, &[BLOCK_BYTES, 3 * BLOCK_BYTES, BLOCK_BYTES]);
        outcome.unwrap();
        assert_eq!(starts, [0, BLOCK_BYTES, 4 * BLOCK_BYTES]);
    }

    #[test]
    fn a_step_that_ends_inside_a_block_does_the_block_again() {
        let (outcome, starts) = steps(2 * BLOCK_BYTES, &[BLOCK_BYTES + 512, BLOCK_BYTES]);
        outcome.unwrap();
        assert_eq!(starts, [0, BLOCK_BYTES]);
    }

    #[test]
    fn a_step_without_progress_is_an_error_and_not_a_loop() {
        let (outcome, starts) = steps(2 * BLOCK_BYTES, &[BLOCK_BYTES, 0]);
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
        assert_eq!(error.to_string(), "it stopped after 4096 of 8192 bytes");
        assert_eq!(starts, [0, BLOCK_BYTES]);
    }

    #[test]
    fn an_error_keeps_its_facts() {
        let source = io::Error::from_raw_os_error(libc::ENOSPC);
        let error = describe("write", Path::new("/data/log"), Some(8192), source);
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let text = error.to_string();
        assert!(
            text.starts_with("can't write /data/log at offset 8192: "),
            "{text}"
        );
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<DiskError>())
            .unwrap();
        assert_eq!(inner.source.raw_os_error(), Some(libc::ENOSPC));
    }
}
