//! What a restart finds in a log.
//!
//! 1. **Chain.** Every segment opens with a head that names its predecessor and the predecessor's last
//!    batch. The chain is followed back from the newest segment whose head is intact; what lies outside the
//!    chain, or in a segment beyond the batch that its successor names, is void for ever.
//! 2. **Walk.** Batches are checked from the oldest on, number by number. The first that is missing or
//!    damaged, `n`, is *corruption if and only if* an intact header somewhere later says
//!    `durable_through >= n`: then `n` had been acknowledged. Otherwise the log ends before `n`, the torn
//!    tail of a crash.
//! 3. **Summary.** Per shard the highest complete ownership epoch, its hard state and log base; the caller
//!    decides which log owns which shard and replays those entries with [`replay`].
//! 4. The segments are synced before anything read from them is served: a write that was cut off may have
//!    reached the device's cache only.
//!
//! Damage to the last acknowledged batch of a crashed node cannot be told from a torn tail (no later batch
//! covers it); after a clean shutdown the seal covers it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ostrakon_core::raft::{EntryId, HardState};
use ostrakon_wire::routing::ShardId;

use super::LogError;
use super::format::{
    BATCH_HEADER_BYTES, BatchFault, BatchHeader, BatchNumber, BatchPlace, FLAG_HEAD, FLAG_SEAL, LogId,
    OwnershipEpoch, RecordKind, SegmentHead, SegmentSequence, ShardState, check_batch, directory, own_place,
    records,
};
pub use super::replay::{remove_void_segments, replay};

use super::reading::{Reading, blocks_from, close, open, read, read_whole};
use super::segment::{is_half_made, log_directory, parse_segment_name, segment_path};
use crate::env::disk::BLOCK_BYTES;
use crate::env::{Disk, Tasks, tasks::yield_now};

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
    /// The highest epoch with a complete state, with that state's newest form.
    pub complete: Option<(OwnershipEpoch, HardState, EntryId)>,
    /// The highest epoch seen at all.
    pub highest: OwnershipEpoch,
}

/// The part of a segment that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainSegment {
    /// Its sequence.
    pub sequence: SegmentSequence,
    /// End of its last valid batch.
    pub end_offset: u64,
}

/// A log as recovery found it.
#[derive(Clone, Debug)]
pub struct LogChain {
    /// Which log.
    pub log: LogId,
    /// Its segments, oldest first.
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
    /// Cluster and shard count as the newest head has them.
    pub head: Option<SegmentHead>,
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

struct SegmentFile {
    sequence: SegmentSequence,
    path: PathBuf,
    len_bytes: u64,
    head: Option<(BatchHeader, SegmentHead)>,
}

/// Why a walk stopped.
struct Stop {
    offset: u64,
    fault: BatchFault,
    suspects: Vec<ShardId>,
}

struct Scan<'a> {
    disk: &'a dyn Disk,
    tasks: &'a dyn Tasks,
    dir: PathBuf,
    log: LogId,
    options: ScanOptions,
    files: Vec<SegmentFile>,
    /// A segment that a successor names but that is missing or has no intact head.
    broken: Option<Corruption>,
    chain: LogChain,
}

/// Scans a log: finds its chain, checks every batch, and sums up the shards. Removes half-made segments.
///
/// # Errors
/// [`LogError::Corruption`] as the module head defines it; IO errors of the reads.
pub async fn scan(
    disk: &dyn Disk,
    tasks: &dyn Tasks,
    data: &Path,
    log: LogId,
    options: ScanOptions,
) -> Result<LogChain, LogError> {
    let dir = log_directory(data, log);
    let mut files = Vec::new();
    let failed = |source| LogError::io("list", &dir, source);
    for entry in disk.list(&dir).await.map_err(failed)? {
        if let Some(sequence) = parse_segment_name(&entry.name) {
            let path = segment_path(&dir, sequence);
            files.push(SegmentFile {
                sequence,
                path,
                len_bytes: entry.len_bytes,
                head: None,
            });
        } else if is_half_made(&entry.name) {
            disk.remove(&dir.join(&entry.name)).await.map_err(failed)?;
        }
    }
    files.sort_by_key(|file| file.sequence);
    let next = files.last().map_or(1, |file| file.sequence.0 + 1);
    let chain = LogChain {
        log,
        segments: Vec::new(),
        last_batch: BatchNumber(0),
        next_sequence: SegmentSequence(next),
        sealed: false,
        shards: BTreeMap::new(),
        cut: None,
        head: None,
    };
    let mut scan = Scan {
        disk,
        tasks,
        dir,
        log,
        options,
        files,
        broken: None,
        chain,
    };
    scan.read_heads().await?;
    scan.follow().await?;
    Ok(scan.chain)
}

/// What no crash makes of a segment file, at its beginning.
fn wrong_file(path: &Path, finding: String) -> Corruption {
    Corruption {
        path: path.to_path_buf(),
        offset: 0,
        finding,
        suspects: Vec::new(),
    }
}

impl Scan<'_> {
    async fn read_heads(&mut self) -> Result<(), LogError> {
        for slot in 0..self.files.len() {
            match self.read_head(&self.files[slot]).await? {
                Ok(head) => self.files[slot].head = head,
                Err(corruption) => {
                    self.corruption(corruption)?;
                    self.files.truncate(slot);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Reads the head of a segment; `None` when it is not intact.
    async fn read_head(
        &self,
        found: &SegmentFile,
    ) -> Result<Result<Option<(BatchHeader, SegmentHead)>, Corruption>, LogError> {
        let SegmentFile {
            sequence,
            path,
            len_bytes,
            ..
        } = found;
        let segment_bytes = self.options.segment_bytes;
        if *len_bytes != segment_bytes {
            let finding =
                format!("expected a segment file of {segment_bytes} bytes, found {len_bytes} bytes");
            return Ok(Err(wrong_file(path, finding)));
        }
        let file = open(self.disk, path).await?;
        let mut bytes = read(&*file, path, 0, BLOCK_BYTES).await?;
        if let Some(content_bytes) = claimed_bytes(bytes.bytes(), segment_bytes)
            && content_bytes > BLOCK_BYTES
        {
            bytes = read(&*file, path, 0, content_bytes.next_multiple_of(BLOCK_BYTES)).await?;
        }
        close(&*file, path).await?;
        let place = BatchPlace {
            log: self.log,
            segment: *sequence,
            offset: 0,
        };
        if let Some(own) = own_place(bytes.bytes()).filter(|own| *own != place) {
            let finding = format!(
                "expected the head of log {}, segment {}, found a batch of log {}, segment {}, offset {}",
                place.log.0, place.segment.0, own.log.0, own.segment.0, own.offset
            );
            return Ok(Err(wrong_file(path, finding)));
        }
        Ok(Ok(parse_head(bytes.bytes(), place)))
    }

    /// The chain's files, oldest first, as positions in `files`; and the file whose head is damaged although
    /// a successor names it, if the chain breaks there.
    fn chain_from(&self, newest: usize) -> Result<Vec<usize>, (usize, Option<usize>)> {
        let mut chain = vec![newest];
        loop {
            let at = *chain.last().expect("starts with one");
            let (_, head) = self.files[at].head.expect("only intact heads are followed");
            if head.predecessor == SegmentSequence(0) {
                chain.reverse();
                return Ok(chain);
            }
            match self
                .files
                .iter()
                .position(|file| file.sequence == head.predecessor)
            {
                Some(before) if self.files[before].head.is_some() && before < at => chain.push(before),
                found => return Err((at, found)),
            }
        }
    }

    async fn follow(&mut self) -> Result<(), LogError> {
        let mut considered = self.files.len();
        let (chain, beyond) = loop {
            let Some(newest) = self.files[..considered]
                .iter()
                .rposition(|file| file.head.is_some())
            else {
                break (Vec::new(), 0);
            };
            match self.chain_from(newest) {
                Ok(chain) => break (chain, newest + 1),
                Err((successor, broken)) => considered = self.broken_chain(successor, broken).await?,
            }
        };
        let mut expected = BatchNumber(1);
        for (slot, &at) in chain.iter().enumerate() {
            let limit = chain
                .get(slot + 1)
                .map(|&next| self.files[next].head.expect("intact").1.predecessor_last);
            let stop = self.walk(at, &mut expected, limit).await?;
            if let Some(stop) = stop {
                let later: Vec<usize> = chain[slot..]
                    .iter()
                    .copied()
                    .chain(beyond..self.files.len())
                    .collect();
                self.judge(at, stop, expected, &later).await?;
                break;
            }
        }
        if chain.is_empty() && !self.files.is_empty() {
            // No intact head at all: damage if any batch says that the first one was durable.
            let segment = read_whole(self.disk, &self.files[0].path, self.options.segment_bytes).await?;
            let place = BatchPlace {
                log: self.log,
                segment: self.files[0].sequence,
                offset: 0,
            };
            let fault = check_batch(segment.bytes(), place)
                .err()
                .map_or(BatchFault::NotABatch, |(fault, _)| fault);
            let stop = Stop {
                offset: 0,
                fault,
                suspects: Vec::new(),
            };
            let all: Vec<usize> = (0..self.files.len()).collect();
            self.judge(0, stop, BatchNumber(1), &all).await?;
        }
        self.chain.last_batch = BatchNumber(expected.0 - 1);
        Ok(())
    }

    /// A head is missing or damaged although `successor` names its segment: corruption if its batches had
    /// been acknowledged, else everything from there on is void. The last of them is asked for here, the
    /// first when the walk before it has ended.
    async fn broken_chain(&mut self, successor: usize, broken: Option<usize>) -> Result<usize, LogError> {
        let (_, head) = self.files[successor].head.expect("it named a predecessor");
        let from = broken.unwrap_or(successor);
        let finding = match broken {
            Some(_) => "expected the head of a segment that a later one continues, found other bytes",
            None => "the segment is missing although a later one continues it",
        };
        let corruption = wrong_file(&segment_path(&self.dir, head.predecessor), finding.into());
        let later: Vec<usize> = (from..self.files.len()).collect();
        self.broken = Some(corruption.clone());
        if self.covered(&later, from, 0, head.predecessor_last).await? {
            self.corruption(corruption)?;
        }
        Ok(from)
    }

    /// Walks one segment from its start. `expected` is the number of the next batch and is advanced. Returns
    /// where it had to stop before `limit`, or before the end of the segment when there is no limit.
    async fn walk(
        &mut self,
        at: usize,
        expected: &mut BatchNumber,
        limit: Option<BatchNumber>,
    ) -> Result<Option<Stop>, LogError> {
        let sequence = self.files[at].sequence;
        let (head_header, head) = self.files[at].head.expect("intact");
        let path = self.files[at].path.clone();
        let segment_bytes = self.options.segment_bytes;
        let mut reading = Reading::open(self.disk, &path, segment_bytes).await?;
        let mut offset = 0;
        let mut stop = None;
        while limit.is_none_or(|limit| *expected <= limit) {
            let place = BatchPlace {
                log: self.log,
                segment: sequence,
                offset,
            };
            reading.reach(offset as usize + BLOCK_BYTES).await?;
            let claimed = claimed_bytes(&reading.bytes()[offset as usize..], segment_bytes - offset);
            reading.reach(offset as usize + claimed.unwrap_or(0)).await?;
            let batch = &reading.bytes()[offset as usize..];
            match next_batch(batch, place, *expected, &head_header) {
                Ok(header) => {
                    self.note_batch(batch, &header)
                        .map_err(|finding| self.unreadable(at, offset, finding))?;
                    offset += header.content_bytes().next_multiple_of(BLOCK_BYTES) as u64;
                    *expected = BatchNumber(expected.0 + 1);
                }
                Err((fault, suspects)) => {
                    stop = Some(Stop {
                        offset,
                        fault,
                        suspects,
                    });
                    break;
                }
            }
            if self.tasks.should_yield() {
                yield_now().await;
            }
        }
        reading.close().await?;
        if offset > 0 {
            self.chain.segments.push(ChainSegment {
                sequence,
                end_offset: offset,
            });
            self.chain.head = Some(head);
        }
        Ok(stop)
    }

    fn note_batch(&mut self, batch: &[u8], header: &BatchHeader) -> Result<(), String> {
        self.chain.sealed = header.flags & FLAG_SEAL != 0;
        for record in records(batch, header) {
            let record = record.ok_or("a record with a valid checksum does not parse")?;
            if record.kind == RecordKind::SegmentHead {
                continue;
            }
            let found = self.chain.shards.entry(record.shard).or_default();
            found.highest = found.highest.max(record.epoch);
            if record.kind == RecordKind::ShardState {
                let state = ShardState::decode(record.payload).ok_or("a shard state does not parse")?;
                let known = found.complete.map_or(OwnershipEpoch(0), |(epoch, _, _)| epoch);
                if state.complete && record.epoch >= known {
                    found.complete = Some((record.epoch, state.hard_state, state.base));
                }
            }
        }
        Ok(())
    }

    fn unreadable(&self, at: usize, offset: u64, finding: String) -> LogError {
        let path = self.files[at].path.clone();
        LogError::Corruption(Box::new(Corruption {
            path,
            offset,
            finding,
            suspects: Vec::new(),
        }))
    }

    /// Decides whether the stop is a torn tail or corruption.
    async fn judge(
        &mut self,
        at: usize,
        stop: Stop,
        missing: BatchNumber,
        later: &[usize],
    ) -> Result<(), LogError> {
        let path = self.files[at].path.clone();
        if self.covered(later, at, stop.offset, missing).await? {
            let corruption = match (self.broken.take(), self.lost_head(at, later).await?) {
                (Some(broken), _) => broken,
                (None, Some(lost)) => lost,
                (None, None) => {
                    let finding = format!("batch {}: {}", missing.0, stop.fault);
                    Corruption {
                        path,
                        offset: stop.offset,
                        finding,
                        suspects: stop.suspects,
                    }
                }
            };
            self.corruption(corruption)?;
        } else if stop.fault != BatchFault::Blank {
            let finding = stop.fault.to_string();
            self.chain.cut = Some(CutTail {
                path,
                offset: stop.offset,
                finding,
                is_corruption: false,
            });
        }
        Ok(())
    }

    /// A head in one of the `later` files, or in file `stopped` itself, that is damaged although a batch
    /// behind it says that it was durable. Then it is the damage, and the walk stopped where its segment
    /// should have gone on.
    async fn lost_head(&self, stopped: usize, later: &[usize]) -> Result<Option<Corruption>, LogError> {
        for &at in later {
            let found = &self.files[at];
            if found.head.is_some() || at < stopped {
                continue;
            }
            let headers = self.headers(at, 0).await?;
            let Some(first) = headers.first() else { continue };
            if headers
                .iter()
                .any(|header| header.durable_through.0 + 1 >= first.number.0)
            {
                let finding = "expected the head of a segment that has batches, found other bytes";
                return Ok(Some(wrong_file(&found.path, finding.into())));
            }
        }
        Ok(None)
    }

    fn corruption(&mut self, corruption: Corruption) -> Result<(), LogError> {
        if !self.options.cut_corrupt {
            return Err(LogError::Corruption(Box::new(corruption)));
        }
        let Corruption {
            path,
            offset,
            finding,
            ..
        } = corruption;
        self.chain.cut = Some(CutTail {
            path,
            offset,
            finding,
            is_corruption: true,
        });
        Ok(())
    }

    /// True when an intact header at or after `from_offset` of file `from`, or in one of the `later` files,
    /// says that batch `missing` was durable.
    async fn covered(
        &self,
        later: &[usize],
        from: usize,
        from_offset: u64,
        missing: BatchNumber,
    ) -> Result<bool, LogError> {
        let covers = |header: &BatchHeader| header.durable_through >= missing && header.number > missing;
        for &at in later {
            let start = if at == from { from_offset } else { 0 };
            if self.headers(at, start).await?.iter().any(covers) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Every intact header of a file from an offset on, whatever lies between them.
    async fn headers(&self, at: usize, start: u64) -> Result<Vec<BatchHeader>, LogError> {
        let segment = read_whole(self.disk, &self.files[at].path, self.options.segment_bytes).await?;
        let sequence = self.files[at].sequence;
        let mut headers = Vec::new();
        for (offset, bytes) in blocks_from(segment.bytes(), start) {
            headers.extend(intact_header(
                bytes,
                BatchPlace {
                    log: self.log,
                    segment: sequence,
                    offset,
                },
            ));
            if self.tasks.should_yield() {
                yield_now().await;
            }
        }
        Ok(headers)
    }
}

/// A header whose own checksum holds, whatever its records look like.
fn intact_header(bytes: &[u8], place: BatchPlace) -> Option<BatchHeader> {
    match check_batch(bytes, place) {
        Ok(header) | Err((BatchFault::RecordsChecksum { .. }, Some(header))) => Some(header),
        Err(_) => None,
    }
}

fn next_batch(
    bytes: &[u8],
    place: BatchPlace,
    expected: BatchNumber,
    head: &BatchHeader,
) -> Result<BatchHeader, (BatchFault, Vec<ShardId>)> {
    match check_batch(bytes, place) {
        Ok(header) if header.number == expected && header.boot == head.boot => Ok(header),
        Ok(_) => Err((BatchFault::NotABatch, Vec::new())),
        Err((fault, header)) => {
            let suspects = header.map_or_else(Vec::new, |header| {
                directory(bytes, &header)
                    .iter()
                    .map(|entry| entry.shard)
                    .collect()
            });
            Err((fault, suspects))
        }
    }
}

/// Length of the batch that starts with these bytes, as far as its header can be believed.
fn claimed_bytes(bytes: &[u8], segment_bytes: u64) -> Option<usize> {
    if bytes.len() < BATCH_HEADER_BYTES {
        return None;
    }
    let word = |at: usize| {
        u64::from(u32::from_le_bytes(
            bytes[at..at + 4].try_into().expect("four bytes"),
        ))
    };
    let claimed =
        BATCH_HEADER_BYTES as u64 + word(60) + word(68) * super::format::DIRECTORY_ENTRY_BYTES as u64;
    (claimed <= segment_bytes).then_some(claimed as usize)
}

fn parse_head(bytes: &[u8], place: BatchPlace) -> Option<(BatchHeader, SegmentHead)> {
    let header = check_batch(bytes, place).ok()?;
    if header.flags & FLAG_HEAD == 0 {
        return None;
    }
    let record = records(bytes, &header).next()??;
    let head = (record.kind == RecordKind::SegmentHead).then(|| SegmentHead::decode(record.payload))??;
    Some((header, head))
}
