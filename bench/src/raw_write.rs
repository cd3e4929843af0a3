//! The device without a database: 4 KiB writes with `O_DIRECT` and `O_DSYNC`, one at a time.
//!
//! 1. [`RawFile::new`] writes a file full of zeros and syncs it, so that every block is allocated and
//!    written: a durable overwrite then needs no metadata of the file system. This is what a log segment of
//!    the database is, too.
//! 2. [`RawFile::measure`] overwrites block after block, from the start again at the end, by `pwrite` or
//!    through `io_uring`, and takes the time of each.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, types};

use crate::machine;
use crate::statistics::Latencies;

/// Size of a write, and alignment of memory and offset.
pub const BLOCK_BYTES: usize = 4096;
/// Size of the file: that of a log segment.
const FILE_BYTES: u64 = 64 << 20;

/// How a block is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// One system call.
    Pwrite,
    /// One submission, and a wait for its completion, in one system call.
    IoUring,
}

/// Memory that `O_DIRECT` takes.
#[repr(align(4096))]
struct Block([u8; BLOCK_BYTES]);

/// A file whose every block is written.
#[derive(Debug)]
pub struct RawFile {
    file: File,
}

impl RawFile {
    /// Makes the file.
    ///
    /// # Errors
    /// A sentence, if the file system has no room or no direct IO.
    pub fn new(path: &Path) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("cannot prepare {}: {error}", path.display());
        let mut zeros = File::create(path).map_err(failed)?;
        let chunk = vec![0_u8; 1 << 20];
        for _ in 0..FILE_BYTES / chunk.len() as u64 {
            zeros.write_all(&chunk).map_err(failed)?;
        }
        zeros.sync_all().map_err(failed)?;
        let flags = libc::O_DIRECT | libc::O_DSYNC;
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(flags)
            .open(path)
            .map_err(failed)?;
        Ok(Self { file })
    }

    /// Writes for so long on this CPU, in a thread of its own, and returns the time that each write took.
    ///
    /// # Errors
    /// A sentence, if a write fails or is short, or `io_uring` is blocked.
    pub fn measure(&self, method: Method, duration: Duration, cpu: usize) -> Result<Latencies, String> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                machine::pin_thread(cpu)?;
                match method {
                    Method::Pwrite => repeat(duration, |block, offset| self.pwrite(block, offset)),
                    Method::IoUring => {
                        let mut ring = IoUring::new(8).map_err(|error| {
                            format!("io_uring could not be set up: {error}; see `ostrakon doctor`")
                        })?;
                        repeat(duration, |block, offset| {
                            self.submit_and_wait(&mut ring, block, offset)
                        })
                    }
                }
            });
            thread
                .join()
                .map_err(|_| "the thread that writes panicked".to_owned())?
        })
    }

    fn pwrite(&self, block: &Block, offset: u64) -> std::io::Result<i32> {
        let start = block.0.as_ptr().cast();
        // SAFETY: the block lives through the call and is as long as is said.
        let written =
            unsafe { libc::pwrite(self.file.as_raw_fd(), start, BLOCK_BYTES, offset as libc::off_t) };
        if written < 0 {
            Err(std::io::Error::last_os_error())
        } else {
            Ok(written as i32)
        }
    }

    fn submit_and_wait(&self, ring: &mut IoUring, block: &Block, offset: u64) -> std::io::Result<i32> {
        let target = types::Fd(self.file.as_raw_fd());
        let write = opcode::Write::new(target, block.0.as_ptr(), BLOCK_BYTES as u32)
            .offset(offset)
            .build();
        // SAFETY: the block is never freed (see `repeat`), and nobody touches it before this returns
        // without error.
        unsafe { ring.submission().push(&write) }.map_err(std::io::Error::other)?;
        loop {
            match ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if let Some(completion) = ring.completion().next() {
                let result = completion.result();
                return if result < 0 {
                    Err(std::io::Error::from_raw_os_error(-result))
                } else {
                    Ok(result)
                };
            }
        }
    }
}

/// Calls `write` with one offset after the other until the time is over.
fn repeat(
    duration: Duration,
    mut write: impl FnMut(&Block, u64) -> std::io::Result<i32>,
) -> Result<Latencies, String> {
    // Never freed: after a failed wait the kernel may still be reading it.
    let block = Box::leak(Box::new(Block([0; BLOCK_BYTES])));
    let mut latencies = Latencies::default();
    let mut offset = 0;
    let start = Instant::now();
    let mut before = start;
    while before.duration_since(start) < duration {
        machine::check_signals()?;
        block.0[..8].copy_from_slice(&latencies.count().to_le_bytes());
        before = Instant::now();
        let written = write(block, offset).map_err(|error| format!("a raw write failed: {error}"))?;
        latencies.record(before.elapsed().as_nanos() as u64);
        if written as usize != BLOCK_BYTES {
            return Err(format!("a raw write of {BLOCK_BYTES} bytes wrote {written}"));
        }
        offset = (offset + BLOCK_BYTES as u64) % FILE_BYTES;
    }
    Ok(latencies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Workspace;

    #[test]
    fn both_methods_write_what_they_say() {
        let parent = std::env::current_dir()
            .unwrap()
            .join(format!("raw-test-{}", std::process::id()));
        let workspace = Workspace::new(&parent).unwrap();
        let path = workspace.join("raw");
        let raw = RawFile::new(&path).unwrap();
        for method in [Method::Pwrite, Method::IoUring] {
            // The same write again gives the same file: the number of the write is in each block.
            let latencies = raw.measure(method, Duration::from_millis(20), 0).unwrap();
            assert!(latencies.count() > 1, "{method:?}");
            let content = std::fs::read(&path).unwrap();
            assert_eq!(content.len() as u64, FILE_BYTES);
            assert_eq!(content[BLOCK_BYTES..BLOCK_BYTES + 8], 1_u64.to_le_bytes());
        }
    }
}
