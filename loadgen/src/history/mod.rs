//! `--history FILE`: every request of a run and its answer, in the form that `docs/histories.md` describes.
//!
//! 1. In a phase, each load thread stamps its events with one clock and puts them into chunks ([`recorder`]);
//!    an event costs it a clock read and, for a read, one more look at the value.
//! 2. A thread of the phase writes the chunks of each load thread to an unnamed file of its own ([`parts`]).
//! 3. When the phase is over, the parts, each in the order of time, are merged behind what the file holds.
//! 4. The scan of the check phase follows as one transaction per snapshot ([`scan`]).
//!
//! Guarantees: a call is stamped before its first byte is sent, an answer after its last byte is received, so
//! an event that stands before another did not happen after it. A process has one request at a time, and ends
//! with the first whose outcome is unknown. Nothing is left out: when the file can't be written, the run
//! fails.
//!
//! A read that was refused did nothing and is `:fail`, also where a write would be `:info`.

mod edn;
mod parts;
mod recorder;
mod scan;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use parts::Parts;
use recorder::Chunk;
pub(crate) use recorder::{Call, Recorder, Stopped};
pub(crate) use scan::ScanRecord;

use crate::value::WriterId;

/// Chunks that may wait for the writing thread before the load threads wait for it.
const CHUNKS_WAITING_MAX: usize = 64;

/// Who calls: one request at a time, and none after one of unknown outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process(u64);

/// What all recorders of a run share: the clock, and the numbers that processes get.
#[derive(Debug, Clone)]
struct Source {
    begun_at: Instant,
    processes: Arc<AtomicU64>,
    /// Of the values that this run writes.
    writer: WriterId,
}

/// The file of a history.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    output: BufWriter<File>,
    next_index: u64,
    source: Source,
}

/// The recording of one phase.
#[derive(Debug)]
pub struct PhaseHistory {
    source: Source,
    sender: SyncSender<Chunk>,
    thread: JoinHandle<io::Result<Parts>>,
}

impl Source {
    fn now_ns(&self) -> u64 {
        self.begun_at.elapsed().as_nanos() as u64
    }

    fn new_process(&self) -> Process {
        Process(self.processes.fetch_add(1, Ordering::Relaxed))
    }
}

impl History {
    /// Makes the file, or empties it. `writer` is in the values that the run writes.
    ///
    /// # Errors
    /// A sentence, when it can't be made.
    pub fn create(path: &Path, writer: WriterId) -> Result<Self, String> {
        let file = File::create(path)
            .map_err(|error| format!("could not make the history {}: {error}", path.display()))?;
        let source = Source {
            begun_at: Instant::now(),
            processes: Arc::default(),
            writer,
        };
        Ok(Self {
            path: path.to_owned(),
            output: BufWriter::with_capacity(1 << 20, file),
            next_index: 0,
            source,
        })
    }

    /// Begins the recording of a phase with so many load threads.
    ///
    /// # Errors
    /// A sentence, when files for the parts can't be made beside the history, or the thread can't be started.
    pub fn begin_phase(&self, threads: usize) -> Result<PhaseHistory, String> {
        let directory = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let parts = Parts::create(directory, threads).map_err(|error| self.failure(&error))?;
        let (sender, receiver) = sync_channel(CHUNKS_WAITING_MAX);
        let thread = std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || write_parts(parts, &receiver))
            .map_err(|error| format!("could not start a thread that writes the history: {error}"))?;
        Ok(PhaseHistory {
            source: self.source.clone(),
            sender,
            thread,
        })
    }

    /// Ends the recording of a phase, whose recorders must be finished or dropped, and merges what it
    /// recorded.
    ///
    /// # Errors
    /// A sentence, when the history can't be written.
    pub fn end_phase(&mut self, phase: PhaseHistory) -> Result<(), String> {
        drop(phase.sender);
        let parts = phase.thread.join().expect("writing the parts does not panic");
        let merged = parts.and_then(|parts| {
            parts.merge(|line| {
                self.next_index += 1;
                edn::finish_line(&mut self.output, self.next_index - 1, line)
            })
        });
        let flushed = merged.and_then(|()| self.output.flush());
        flushed.map_err(|error| self.failure(&error))
    }

    fn failure(&self, error: &io::Error) -> String {
        format!(
            "could not write the history {}: {error}; it is not complete. Make room beside it (it needs its own \
             size twice while a phase runs), or name another file with --history",
            self.path.display()
        )
    }
}

impl PhaseHistory {
    /// The recorder of a load thread.
    pub(crate) fn recorder(&self, thread_index: usize) -> Recorder {
        Recorder::new(self.source.clone(), thread_index, self.sender.clone())
    }
}

/// Until all recorders are gone; at the first failure they notice that nobody listens.
fn write_parts(mut parts: Parts, chunks: &Receiver<Chunk>) -> io::Result<Parts> {
    let mut line = Vec::new();
    for chunk in chunks {
        for event in &chunk.events {
            line.clear();
            edn::event(&mut line, event);
            parts.append(chunk.thread_index, event.order(), &line)?;
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests;
