//! The durable log of one core: the Raft log of all its shards, and the write-ahead log, in one stream.
//!
//! How an entry becomes durable:
//! 1. [`Log::append_entry`] copies it into the batch that is being filled and says where it lies.
//! 2. A writer task takes the batch as soon as one of two writes is free; no timer delays a lone entry,
//!    and whatever arrives during a write shares the next one (group commit).
//! 3. The batch is one `O_DIRECT | O_DSYNC` write of whole blocks to zero-filled, allocated space.
//! 4. When it and every batch before it are on stable storage, [`DurableSink::batch_durable`] is called.
//!
//! Guarantees: batches are acknowledged in order; a block that holds acknowledged bytes is never written
//! again while a restart may need them, unless with the same bytes, at a start whose sync has failed; a failed write is
//! never retried, it ends the log ([`DurableSink::log_failed`]).
//!
//! How it stays bounded: the caller says what is durable elsewhere ([`Log::note_flushed`]); the next segment's head
//! states the oldest segment that is still needed, and once that head is durable the older ones are used again.
//! When the log gets long, [`Log::pinning`] names the shards to flush.
//!
//! [`recovery`] says what a restart finds, [`survey`] what is wrong with a log, all of it.

pub mod format;
pub mod recovery;
pub mod survey;

mod batch;
mod found;
mod heads;
mod judgement;
mod live;
mod reading;
mod replay;
mod reserve;
mod segment;
mod state;
mod writer;

#[cfg(test)]
mod tests;

pub use batch::EntryPlace;
pub use segment::{is_half_made, log_directory, parse_log_directory, parse_segment_name};
pub use writer::{DurableBatch, DurableSink, Log, LogConfig, LogStatistics};

use std::io;
use std::path::PathBuf;

/// Why the log stopped or could not start.
#[derive(Debug)]
pub enum LogError {
    /// The operating system refused an operation.
    Io {
        /// What was being done.
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Damage that a crash cannot explain.
    Corruption(Box<recovery::Corruption>),
    /// What the log is cut behind can't be written: a sentence.
    Store(String),
}

impl core::fmt::Display for LogError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            LogError::Io {
                operation,
                path,
                source,
            } => {
                write!(f, "log: {operation} {}: {source}", path.display())
            }
            LogError::Corruption(corruption) => corruption.fmt(f),
            LogError::Store(sentence) => f.write_str(sentence),
        }
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LogError::Io { source, .. } => Some(source),
            LogError::Corruption(_) | LogError::Store(_) => None,
        }
    }
}

impl LogError {
    pub(crate) fn io(operation: &'static str, path: &std::path::Path, source: io::Error) -> LogError {
        LogError::Io {
            operation,
            path: path.to_path_buf(),
            source,
        }
    }
}
