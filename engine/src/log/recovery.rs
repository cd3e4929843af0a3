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
//!    reached the device's cache only. If a sync fails, such batches are written once more.
//!
//! Damage to the last acknowledged batch of a crashed node cannot be told from a torn tail (no later batch
//! covers it); after a clean shutdown the seal covers it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ostrakon_core::raft::LogIndex;
use ostrakon_wire::routing::ShardId;

use super::LogError;
use super::format::{
    BatchFault, BatchHeader, BatchNumber, BatchPlace, FLAG_RECYCLED, FLAG_SEAL, LogId, OwnershipEpoch,
    RecordKind, SegmentSequence, ShardState, check_batch, directory, records,
};
pub use super::found::{ChainSegment, Corruption, CutTail, LogChain, ScanOptions, ShardFound, ShardLast};
use super::heads::{Opening, SegmentFile, bears_life, place_of_head, read_opening};
pub use super::replay::{remove_void_segments, replay};

use super::judgement::Stop;
use super::reading::Reading;
use super::segment::{is_half_made, log_directory, parse_segment_name, segment_path};
use crate::env::disk::BLOCK_BYTES;
use crate::env::{Disk, File, OpenMode, Tasks, tasks::yield_now};

pub(super) struct Scan<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) tasks: &'a dyn Tasks,
    pub(super) dir: PathBuf,
    pub(super) log: LogId,
    pub(super) options: ScanOptions,
    pub(super) files: Vec<SegmentFile>,
    /// A segment that a successor names but that is missing or has no intact head.
    pub(super) broken: Option<Corruption>,
    /// The chain ends before this segment, whatever the newest head says: what lies before was freed on account of a
    /// head that is cut off.
    pub(super) floor: SegmentSequence,
    /// Of the segment that is walked.
    pub(super) lasts: BTreeMap<(ShardId, OwnershipEpoch), LogIndex>,
    /// Is what was found to last?
    makes_last: bool,
    /// Segments of which a sync has failed, and how.
    doubtful: BTreeMap<SegmentSequence, io::Error>,
    /// What the batches say is durable.
    durable_through: BatchNumber,
    pub(super) chain: LogChain,
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
    let failed = |source| LogError::io("list", &dir, source);
    for entry in disk.list(&dir).await.map_err(failed)? {
        if is_half_made(&entry.name) {
            disk.remove(&dir.join(&entry.name)).await.map_err(failed)?;
        }
    }
    read_chain((disk, tasks), data, log, options, true).await
}

/// The same without any change: half-made segments stay.
///
/// # Errors
/// As [`scan`].
pub async fn look(
    disk: &dyn Disk,
    tasks: &dyn Tasks,
    data: &Path,
    log: LogId,
    options: ScanOptions,
) -> Result<LogChain, LogError> {
    read_chain((disk, tasks), data, log, options, false).await
}

async fn read_chain(
    (disk, tasks): (&dyn Disk, &dyn Tasks),
    data: &Path,
    log: LogId,
    options: ScanOptions,
    makes_last: bool,
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
                opening: Opening::Blank,
            });
        }
    }
    files.sort_by_key(|file| file.sequence);
    let next = files.last().map_or(1, |file| file.sequence.0 + 1);
    let chain = LogChain {
        next_sequence: SegmentSequence(next),
        ..LogChain::empty(log)
    };
    let mut scan = Scan {
        disk,
        tasks,
        dir,
        log,
        options,
        files,
        broken: None,
        floor: SegmentSequence(0),
        lasts: BTreeMap::new(),
        makes_last,
        doubtful: BTreeMap::new(),
        durable_through: BatchNumber(0),
        chain,
    };
    scan.read_heads().await?;
    scan.follow().await?;
    scan.store_doubtful().await?;
    Ok(scan.chain)
}

impl Scan<'_> {
    /// Reads how every file begins. One that is no segment of this log is corruption; here if it is newer than all
    /// heads, otherwise when the chain leads to it.
    async fn read_heads(&mut self) -> Result<(), LogError> {
        let segment_bytes = self.options.segment_bytes;
        for slot in 0..self.files.len() {
            let opening = read_opening(self.disk, self.log, segment_bytes, &self.files[slot]).await?;
            self.files[slot].opening = opening;
        }
        let newest = self.files.iter().rposition(|file| file.head().is_some());
        let newer = newest.map_or(0, |newest| newest + 1);
        let wrong = (newer..self.files.len()).find_map(|slot| {
            let corruption = self.files[slot].wrong()?;
            Some((slot, corruption.clone()))
        });
        if let Some((slot, corruption)) = wrong {
            self.corruption(corruption)?;
            self.files.truncate(slot);
        }
        Ok(())
    }

    /// The chain's files, oldest first, as positions in `files`, back to the oldest that the head of `newest` needs. If
    /// the chain breaks: the last file that was reached, and the file whose head is damaged although that one
    /// names it.
    fn chain_from(&self, newest: usize) -> Result<Vec<usize>, (usize, Option<usize>)> {
        let (_, head) = self.files[newest].head().expect("the newest intact one");
        let oldest = head.oldest.max(self.floor);
        let mut chain = vec![newest];
        loop {
            let at = *chain.last().expect("starts with one");
            let (_, head) = self.files[at].head().expect("only intact heads are followed");
            if head.predecessor == SegmentSequence(0) || head.predecessor < oldest {
                chain.reverse();
                return Ok(chain);
            }
            match self.position(head.predecessor) {
                Some(before) if self.files[before].head().is_some() && before < at => chain.push(before),
                found => return Err((at, found)),
            }
        }
    }

    pub(super) fn position(&self, sequence: SegmentSequence) -> Option<usize> {
        self.files
            .binary_search_by_key(&sequence, |file| file.sequence)
            .ok()
    }

    async fn follow(&mut self) -> Result<(), LogError> {
        let mut considered = self.files.len();
        loop {
            let (chain, beyond) = self.newest_chain(considered).await?;
            self.walk_chain(&chain, beyond).await?;
            let Some(counts) = self.newest_that_counts(&chain) else {
                return self.check_former();
            };
            considered = counts + 1;
            self.chain.segments.clear();
            self.chain.shards.clear();
            self.chain.cut = None;
        }
    }

    /// The chain of the newest intact head among the first `considered` files, and the first file beyond it.
    async fn newest_chain(&mut self, mut considered: usize) -> Result<(Vec<usize>, usize), LogError> {
        loop {
            let considerable = &self.files[..considered];
            let Some(newest) = considerable.iter().rposition(|file| file.head().is_some()) else {
                return Ok((Vec::new(), 0));
            };
            match self.chain_from(newest) {
                Ok(chain) => return Ok((chain, newest + 1)),
                Err((successor, broken)) => {
                    if let Some(before) = self.broken_chain(newest, successor, broken).await? {
                        considered = before;
                    }
                }
            }
        }
    }

    /// Walks the segments of a chain up to the first batch that is missing, and judges that.
    async fn walk_chain(&mut self, chain: &[usize], beyond: usize) -> Result<(), LogError> {
        let last_before = |files: &[SegmentFile], at: usize| {
            let (_, head) = files[at].head().expect("a chain has intact heads");
            head.predecessor_last
        };
        let before = chain.first().map(|&oldest| last_before(&self.files, oldest));
        let mut expected = BatchNumber(before.unwrap_or_default().0 + 1);
        for (slot, &at) in chain.iter().enumerate() {
            let limit = chain.get(slot + 1).map(|&next| last_before(&self.files, next));
            let stop = self.walk(at, &mut expected, limit).await?;
            if let Some(stop) = stop {
                let behind = beyond..self.files.len();
                let later: Vec<usize> = chain[slot..].iter().copied().chain(behind).collect();
                self.judge(at, stop, expected, &later).await?;
                break;
            }
        }
        if chain.is_empty() && !self.files.is_empty() {
            // No intact head at all: damage if any batch says that the first one was durable.
            let mut reading =
                Reading::open(self.disk, &self.files[0].path, self.options.segment_bytes).await?;
            let place = place_of_head(self.log, self.files[0].sequence);
            let fault = check_batch(reading.batch_at(0).await?, place)
                .err()
                .map_or(BatchFault::NotABatch, |(fault, _)| fault);
            reading.close().await?;
            let stop = Stop {
                offset: 0,
                fault,
                suspects: Vec::new(),
                is_former: matches!(self.files[0].opening, Opening::Former(_)),
            };
            let all: Vec<usize> = (0..self.files.len()).collect();
            self.judge(0, stop, BatchNumber(1), &all).await?;
        }
        self.chain.last_batch = BatchNumber(expected.0 - 1);
        Ok(())
    }

    /// The file of the newest head that counts, if that is not the newest of the chain because the log is torn before
    /// it, and needs older segments than that: these are there, since nothing was freed on account of a head that
    /// was not durable with all before it. They stay in the chain until a durable head says otherwise.
    fn newest_that_counts(&self, chain: &[usize]) -> Option<usize> {
        let at = self.position(self.chain.segments.last()?.sequence)?;
        let (_, head) = self.files[at].head()?;
        let is_torn = chain.last() != Some(&at) && !self.is_cut_at_corruption();
        (is_torn && head.oldest < self.files[chain[0]].sequence).then_some(at)
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
        let (head_header, head) = self.files[at].head().expect("intact");
        let is_recycled = head_header.flags & FLAG_RECYCLED != 0;
        self.lasts.clear();
        let path = self.files[at].path.clone();
        let mut reading = Reading::open(self.disk, &path, self.options.segment_bytes).await?;
        if self.makes_last
            && let Err(failure) = reading.sync().await
        {
            self.doubtful.insert(sequence, failure);
        }
        let mut offset = 0;
        let mut stop = None;
        while limit.is_none_or(|limit| *expected <= limit) {
            let place = BatchPlace {
                log: self.log,
                segment: sequence,
                offset,
            };
            let batch = reading.batch_at(offset).await?;
            match next_batch(batch, place, *expected, &head_header) {
                Ok(header) => {
                    self.note_batch(batch, &header)
                        .map_err(|finding| self.unreadable(at, offset, finding))?;
                    self.durable_through = self.durable_through.max(header.durable_through);
                    offset += header.content_bytes().next_multiple_of(BLOCK_BYTES) as u64;
                    *expected = BatchNumber(expected.0 + 1);
                }
                Err((fault, suspects)) => {
                    let bears_life = bears_life(batch, sequence, head_header.boot, *expected);
                    stop = Some(Stop {
                        offset,
                        fault,
                        suspects,
                        is_former: is_recycled && !bears_life,
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
            let last = |(&(shard, epoch), &last): (&(ShardId, OwnershipEpoch), &LogIndex)| ShardLast {
                shard,
                epoch,
                last,
            };
            self.chain.segments.push(ChainSegment {
                sequence,
                end_offset: offset,
                lasts: self.lasts.iter().map(last).collect(),
            });
            self.chain.head = Some(head);
        }
        Ok(stop)
    }

    /// Writes batches once more that may lie in the cache of the device only, since a sync of their segment has failed:
    /// after that, no other sync says anything about them (Rebello et al., "Can Applications Recover from fsync
    /// Failures?", USENIX ATC 2020). They keep their place and their bytes. What a later batch says is durable is not
    /// written.
    async fn store_doubtful(&mut self) -> Result<(), LogError> {
        for segment in &self.chain.segments {
            let Some(failure) = self.doubtful.remove(&segment.sequence) else {
                continue;
            };
            let path = segment_path(&self.dir, segment.sequence);
            self.store_again(segment, &path).await.map_err(|error| {
                let both = format!("{error}; before that, its sync failed: {failure}");
                LogError::io("store once more", &path, io::Error::other(both))
            })?;
            let told = format!(
                "{}: the sync failed: {failure}. What it may not have stored was written once more",
                path.display()
            );
            self.chain.sync_failures.push(told);
        }
        Ok(())
    }

    async fn store_again(&self, segment: &ChainSegment, path: &Path) -> Result<(), LogError> {
        let opened = self.disk.open(path, OpenMode::WriteDurable).await;
        let file = opened.map_err(|source| LogError::io("open", path, source))?;
        let written = self.copy_onto_itself(segment, path, &*file).await;
        let closed = file.close().await;
        written?;
        closed.map_err(|source| LogError::io("close", path, source))
    }

    async fn copy_onto_itself(
        &self,
        segment: &ChainSegment,
        path: &Path,
        file: &dyn File,
    ) -> Result<(), LogError> {
        let mut reading = Reading::open(self.disk, path, segment.end_offset).await?;
        let mut offset = 0;
        while offset < segment.end_offset {
            let batch = reading.batch_at(offset).await?;
            let place = BatchPlace {
                log: self.log,
                segment: segment.sequence,
                offset,
            };
            let header = check_batch(batch, place).map_err(|(fault, _)| {
                let finding = format!("the batch was intact a moment ago: {fault}");
                LogError::io(
                    "read again",
                    path,
                    io::Error::new(io::ErrorKind::InvalidData, finding),
                )
            })?;
            let len_bytes = header.content_bytes().next_multiple_of(BLOCK_BYTES);
            if header.number > self.durable_through {
                let mut buffer = self.disk.allocate(len_bytes);
                buffer.bytes_mut().copy_from_slice(&batch[..len_bytes]);
                let written = file.write_at(Rc::new(buffer), offset).await;
                written.map_err(|source| LogError::io("write to", path, source))?;
            }
            offset += len_bytes as u64;
        }
        reading.close().await
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
            if record.kind == RecordKind::Entry {
                let last = self.lasts.entry((record.shard, record.epoch)).or_default();
                *last = (*last).max(record.entry.index);
            } else {
                let state = ShardState::decode(record.payload).ok_or("a shard state does not parse")?;
                let (known, _, base) = found.complete.unwrap_or_default();
                if state.complete && record.epoch >= known {
                    // A state that waited while a head went out has the base as of when it was appended.
                    let is_lower = record.epoch == known && base.index > state.base.index;
                    let base = if is_lower { base } else { state.base };
                    found.complete = Some((record.epoch, state.hard_state, base));
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
