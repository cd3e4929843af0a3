//! What a scan of a log tells its caller.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ostrakon_core::raft::{EntryId, HardState, LogIndex};
use ostrakon_wire::routing::ShardId;

use super::format::{BatchNumber, LogId, OwnershipEpoch, SegmentHead, SegmentSequence};

/// Damage that a crash cannot explain.
#[derive(Clone, Debug)]
pub struct Corruption {
    /// File.
    pub path: PathBuf,
    /// Byte offset of the damaged batch in it.
    pub offset: u64,
    /// What was expected there and what was found.
    pub finding: String,
    /// Shards that may have lost entries; empty means any shard of this log.
    pub suspects: Vec<ShardId>,
}

impl core::fmt::Display for Corruption {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "log corruption in {} at offset {}: {}; ",
            self.path.display(),
            self.offset,
            self.finding
        )?;
        if self.suspects.is_empty() {
            write!(f, "any shard of this log may have lost acknowledged writes")?;
        } else {
            let shards: Vec<String> = self.suspects.iter().map(|shard| shard.0.to_string()).collect();
            write!(
                f,
                "shards {} may have lost acknowledged writes",
                shards.join(", ")
            )?;
        }
        write!(
            f,
            ". Restore the file from a copy of the disk; to give up everything in this log from that offset on, \
             start with --cut-corrupt-log"
        )
    }
}

/// A torn or given-up tail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutTail {
    /// File.
    pub path: PathBuf,
    /// Where the cut is.
    pub offset: u64,
    /// What was found there.
    pub finding: String,
    /// True for damage that was cut off on request, false for the torn tail of a crash.
    pub is_corruption: bool,
}

/// What a log says of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardFound {
    /// The highest epoch with a complete state, with that state's newest form and its highest log base.
    pub complete: Option<(OwnershipEpoch, HardState, EntryId)>,
    /// The highest epoch seen at all.
    pub highest: OwnershipEpoch,
}

/// The last entry of a shard in a segment, under one ownership epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardLast {
    /// The shard.
    pub shard: ShardId,
    /// The epoch.
    pub epoch: OwnershipEpoch,
    /// The highest index.
    pub last: LogIndex,
}

/// The part of a segment that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainSegment {
    /// Its sequence.
    pub sequence: SegmentSequence,
    /// End of its last valid batch.
    pub end_offset: u64,
    /// What it is needed for until it is flushed.
    pub lasts: Vec<ShardLast>,
}

/// A log as recovery found it.
#[derive(Clone, Debug)]
pub struct LogChain {
    /// Which log.
    pub log: LogId,
    /// Its segments from the oldest on that the newest head calls needed.
    pub segments: Vec<ChainSegment>,
    /// The last valid batch; zero for an empty log.
    pub last_batch: BatchNumber,
    /// Above every segment file that exists.
    pub next_sequence: SegmentSequence,
    /// True when it ends with the seal of a clean shutdown.
    pub sealed: bool,
    /// Per shard.
    pub shards: BTreeMap<ShardId, ShardFound>,
    /// What was cut off.
    pub cut: Option<CutTail>,
    /// What a sync that failed was followed by, in sentences.
    pub sync_failures: Vec<String>,
    /// Cluster and shard count as the newest head has them.
    pub head: Option<SegmentHead>,
}

impl LogChain {
    /// A log without a segment.
    pub fn empty(log: LogId) -> LogChain {
        LogChain {
            log,
            segments: Vec::new(),
            last_batch: BatchNumber(0),
            next_sequence: SegmentSequence(1),
            sealed: false,
            shards: BTreeMap::new(),
            cut: None,
            sync_failures: Vec::new(),
            head: None,
        }
    }
}

/// How to scan.
#[derive(Clone, Copy, Debug)]
pub struct ScanOptions {
    /// Expected length of every segment file.
    pub segment_bytes: u64,
    /// Cut the log at corruption instead of refusing. A file that is not a segment of this log at all
    /// (another length, another log's) is cut off whole.
    pub cut_corrupt: bool,
}
