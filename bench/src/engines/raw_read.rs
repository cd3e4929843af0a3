//! The device without an engine: random 4 KiB reads with `O_DIRECT` through `io_uring`, many at a time, by a thread on
//! each CPU.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, types};
use loadgen::random::Random;

use crate::machine;
use crate::raw_write::BLOCK_BYTES;

/// Length of the file: far beyond what a device keeps of it.
const FILE_BYTES: u64 = 2 << 30;
/// Reads that each thread has under way.
const DEPTH: usize = 32;

#[repr(align(4096))]
struct Block([u8; BLOCK_BYTES]);

/// Reads per second, of all CPUs together.
///
/// # Errors
/// A sentence.
pub fn measure(path: &Path, cpus: &[usize], duration: Duration) -> Result<f64, String> {
    let failed = |error: std::io::Error| format!("cannot prepare {}: {error}", path.display());
    let mut file = File::create(path).map_err(failed)?;
    let mut random = Random::new(1);
    let chunk: Vec<u8> = (0..1 << 20).map(|_| random.next_u64() as u8).collect();
    for _ in 0..FILE_BYTES / chunk.len() as u64 {
        file.write_all(&chunk).map_err(failed)?;
    }
    file.sync_all().map_err(failed)?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .map_err(failed)?;
    let rates: Vec<Result<f64, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (cpus.iter())
            .map(|cpu| {
                let file = &file;
                scope.spawn(move || {
                    machine::pin_thread(*cpu)?;
                    read(file, *cpu as u64, duration)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .map_err(|_| "the thread that reads panicked".to_owned())?
            })
            .collect()
    });
    std::fs::remove_file(path).map_err(failed)?;
    rates.into_iter().sum()
}

fn read(file: &File, seed: u64, duration: Duration) -> Result<f64, String> {
    let failed = |error: std::io::Error| format!("io_uring could not read: {error}; see `ostrakon doctor`");
    let mut ring = IoUring::new(DEPTH as u32 * 2).map_err(failed)?;
    let mut blocks: Vec<Block> = (0..DEPTH).map(|_| Block([0; BLOCK_BYTES])).collect();
    let mut random = Random::new(seed);
    let mut free: Vec<u64> = (0..DEPTH as u64).collect();
    let begun = Instant::now();
    let mut count = 0_u64;
    while begun.elapsed() < duration || free.len() < DEPTH {
        while begun.elapsed() < duration
            && let Some(slot) = free.pop()
        {
            let offset = random.next_below(FILE_BYTES / BLOCK_BYTES as u64) * BLOCK_BYTES as u64;
            let memory = blocks[slot as usize].0.as_mut_ptr();
            let entry = opcode::Read::new(types::Fd(file.as_raw_fd()), memory, BLOCK_BYTES as u32)
                .offset(offset)
                .build()
                .user_data(slot);
            // SAFETY: file and block outlive the read: it is waited for before this function returns.
            unsafe { ring.submission().push(&entry) }.map_err(|error| error.to_string())?;
        }
        ring.submit_and_wait(1).map_err(failed)?;
        for completion in ring.completion() {
            if completion.result() != BLOCK_BYTES as i32 {
                return Err(format!("a read came to {}", completion.result()));
            }
            free.push(completion.user_data());
            count += 1;
        }
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}
