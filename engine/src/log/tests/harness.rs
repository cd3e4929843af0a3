//! A machine with one log that can be started, crashed and started again, and the history of all that was
//! appended to it.
//!
//! Every start checks the one property that matters: what recovery finds is the history from its beginning,
//! entry by entry, with no gap and no other value, and at least as long as what was acknowledged.

use core::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use ostrakon_core::raft::{EntryId, HardState, LogIndex, ReplicaId, Term};
use ostrakon_wire::routing::ShardId;

use crate::env::Disk;
use crate::env::disk::BLOCK_BYTES;
use crate::env::testing::memory_disk::{Fate, MemoryDisk};
use crate::env::testing::scheduler::Scheduler;
use crate::log::format::{
    BatchHeader, BatchPlace, BootNumber, LogId, OwnershipEpoch, RecordKind, SegmentSequence, ShardState,
    check_batch,
};
use crate::log::recovery::{LogChain, ScanOptions, remove_void_segments, replay, scan};
use crate::log::{DurableBatch, DurableSink, EntryPlace, Log, LogConfig, LogError};

/// The log under test.
pub(super) const LOG: LogId = LogId(3);
/// The ownership epoch of its shards.
pub(super) const EPOCH: OwnershipEpoch = OwnershipEpoch(7);
/// Shards whose state is set before the log starts.
pub(super) const SHARDS: u32 = 3;

/// The data directory.
pub(super) fn data() -> PathBuf {
    PathBuf::from("/data")
}

/// A segment's path.
pub(super) fn segment(sequence: u64) -> PathBuf {
    data().join("log/0003").join(format!("{sequence:016x}.seg"))
}

/// The hard state that `shard` has throughout.
pub(super) fn state_of(shard: u32) -> ShardState {
    ShardState {
        hard_state: HardState {
            term: Term(5 + u64::from(shard)),
            vote: ReplicaId(9),
        },
        base: EntryId::default(),
        complete: true,
    }
}

/// An entry as it was appended, or as it was recovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) shard: ShardId,
    pub(super) epoch: OwnershipEpoch,
    pub(super) id: EntryId,
    pub(super) payload: Vec<u8>,
}

/// All entries ever appended that a restart has not cut off, and how many were acknowledged. It hears the
/// log.
#[derive(Default)]
pub(super) struct History {
    pub(super) entries: RefCell<Vec<Entry>>,
    places: RefCell<Vec<Option<EntryPlace>>>,
    pub(super) acknowledged: Cell<usize>,
    /// By shard: everything up to here is durable in tables.
    pub(super) flushed: RefCell<[EntryId; SHARDS as usize]>,
    /// Entries of each acknowledged batch since the last start.
    pub(super) batches: RefCell<Vec<usize>>,
    pub(super) failures: RefCell<Vec<String>>,
}

impl History {
    fn push(&self, entry: Entry, place: EntryPlace) {
        self.entries.borrow_mut().push(entry);
        self.places.borrow_mut().push(Some(place));
    }

    /// Compares with what recovery found, and forgets what is gone: what was never acknowledged, and more only if it
    /// `may_lose`. Entries at the beginning may be missing if they are flushed, and the log says so itself unless what
    /// says it was cut off.
    fn recovered(&self, found: &Found, may_lose: bool) {
        let bases = found.bases();
        for (base, flushed) in bases.iter().zip(&*self.flushed.borrow()) {
            assert!(base.index <= flushed.index, "{base:?} is above {flushed:?}");
        }
        let found = &found.entries;
        let mut entries = self.entries.borrow_mut();
        let acknowledged = self.acknowledged.get();
        let freed = match found.first() {
            Some(first) => entries.iter().position(|entry| entry == first),
            None => Some(if may_lose { 0 } else { acknowledged }),
        };
        let freed = freed.expect("the first entry found is one of the history");
        let bases = if may_lose { *self.flushed.borrow() } else { bases };
        for entry in &entries[..freed] {
            assert!(
                entry.id.index <= bases[entry.shard.0 as usize].index,
                "{entry:?} is lost"
            );
        }
        let end = freed + found.len();
        assert!(
            end >= acknowledged || may_lose,
            "{acknowledged} entries acknowledged, {end} recovered"
        );
        assert!(end <= entries.len(), "recovered more than was ever appended");
        for (place, (found, appended)) in found.iter().zip(&entries[freed..]).enumerate() {
            assert_eq!(found, appended, "entry {place} after {freed} of the history");
        }
        entries.truncate(end);
        *self.places.borrow_mut() = vec![None; end];
        self.acknowledged.set(end);
        self.batches.borrow_mut().clear();
    }
}

impl DurableSink for History {
    fn batch_durable(&self, batch: &DurableBatch<'_>) {
        assert!(self.failures.borrow().is_empty(), "acknowledged after a failure");
        let with_entries = batch.directory.iter().filter(|entry| entry.first != LogIndex(0));
        let count: usize = with_entries
            .map(|entry| (entry.last.0 - entry.first.0 + 1) as usize)
            .sum();
        let first = self.acknowledged.get();
        for slot in first..first + count {
            let entry = &self.entries.borrow()[slot];
            let listed = batch.directory.iter().find(|listed| listed.shard == entry.shard);
            let listed = listed.expect("the directory lists the shard of each entry");
            assert!(
                listed.first <= entry.id.index && entry.id.index <= listed.last,
                "the directory's range"
            );
            let place = self.places.borrow()[slot].expect("appended since the start");
            assert_eq!(batch.payload(place), entry.payload, "entry {slot} of the history");
        }
        self.acknowledged.set(first + count);
        self.batches.borrow_mut().push(count);
    }

    fn log_failed(&self, error: &LogError) {
        self.failures.borrow_mut().push(error.to_string());
    }
}

/// What recovery found.
pub(super) struct Found {
    pub(super) chain: LogChain,
    pub(super) entries: Vec<Entry>,
}

impl Found {
    /// By shard, the log base that the log states.
    pub(super) fn bases(&self) -> [EntryId; SHARDS as usize] {
        core::array::from_fn(|shard| {
            let found = self.chain.shards.get(&ShardId(shard as u32));
            let complete = found.and_then(|found| found.complete);
            complete.map(|(_, _, base)| base).unwrap_or_default()
        })
    }

    /// The sequences of the chain.
    pub(super) fn sequences(&self) -> Vec<u64> {
        let segments = self.chain.segments.iter();
        segments.map(|segment| segment.sequence.0).collect()
    }
}

/// Scans and replays; `None` when the disk froze.
pub(super) fn recover(disk: &MemoryDisk, options: ScanOptions) -> Option<Result<Found, LogError>> {
    let scheduler = Scheduler::default();
    scheduler.run(async {
        let chain = scan(disk, &scheduler, &data(), LOG, options).await?;
        let mut entries = Vec::new();
        let mut visit = |record: crate::log::format::Record<'_>| {
            if record.kind == RecordKind::Entry {
                entries.push(Entry {
                    shard: record.shard,
                    epoch: record.epoch,
                    id: record.entry,
                    payload: record.payload.to_vec(),
                });
            }
            Ok(())
        };
        replay(
            disk,
            &scheduler,
            &data(),
            &chain,
            options.segment_bytes,
            &mut visit,
        )
        .await?;
        Ok(Found { chain, entries })
    })
}

/// A machine: a disk that survives crashes, and the history.
pub(super) struct Machine {
    pub(super) disk: MemoryDisk,
    pub(super) history: Rc<History>,
    pub(super) segment_bytes: u64,
    /// Logs that the node writes.
    pub(super) logs: u16,
    pub(super) cut_corrupt: bool,
    /// True if no shard moves to another log at a start.
    pub(super) may_free: bool,
    /// True if a start removes what the chain does not hold, as that of a node does.
    pub(super) removes_void: bool,
    boot: u64,
}

/// A start of the machine with an open log.
pub(super) struct Running {
    pub(super) scheduler: Scheduler,
    pub(super) log: Log,
    pub(super) history: Rc<History>,
    boot: u64,
}

impl Machine {
    /// A machine with an empty disk.
    pub(super) fn new(segment_blocks: u64) -> Machine {
        let disk = MemoryDisk::new(&data());
        let scheduler = Scheduler::default();
        let log_parent = data().join("log");
        let directory = log_parent.join("0003");
        let made = scheduler.run(async {
            disk.create_dir(&log_parent).await?;
            disk.sync_dir(&data()).await?;
            disk.create_dir(&directory).await?;
            disk.sync_dir(&log_parent).await
        });
        made.expect("not frozen").expect("made");
        Machine {
            disk,
            history: Rc::default(),
            segment_bytes: segment_blocks * BLOCK_BYTES as u64,
            logs: 1,
            cut_corrupt: false,
            may_free: true,
            removes_void: false,
            boot: 0,
        }
    }

    pub(super) fn options(&self) -> ScanOptions {
        ScanOptions {
            segment_bytes: self.segment_bytes,
            cut_corrupt: self.cut_corrupt,
        }
    }

    /// What recovery says, without a start.
    pub(super) fn recover(&self) -> Result<Found, LogError> {
        recover(&self.disk, self.options()).expect("not frozen")
    }

    /// The corruption that recovery reports: file name's sequence, offset, and the whole sentence.
    pub(super) fn corruption(&self) -> (PathBuf, u64, String) {
        match self.recover() {
            Err(LogError::Corruption(found)) => (found.path.clone(), found.offset, found.to_string()),
            Err(other) => panic!("corruption expected, got: {other}"),
            Ok(found) => panic!("corruption expected, recovered {} entries", found.entries.len()),
        }
    }

    /// Recovers, checks against the history, opens the log and starts it. `None` when the disk froze.
    pub(super) fn try_start(&mut self) -> Option<Running> {
        self.boot += 1;
        let found = recover(&self.disk, self.options())?.expect("recovers");
        self.history.recovered(&found, self.cut_corrupt);
        check_shards(&found.chain);
        let scheduler = Scheduler::default();
        if self.removes_void {
            scheduler
                .run(remove_void_segments(&self.disk, &data(), &found.chain))?
                .expect("removed");
        }
        let log = scheduler.run(Log::open(
            self.config(),
            (
                Rc::new(self.disk.clone()),
                Rc::new(scheduler.clone()),
                Rc::new(scheduler.clone()),
            ),
            Some(&found.chain),
        ))?;
        let log = log.expect("opens");
        for shard in 0..SHARDS {
            let base = self.history.flushed.borrow()[shard as usize];
            let state = ShardState {
                base,
                ..state_of(shard)
            };
            log.set_shard_state(ShardId(shard), EPOCH, state);
        }
        if self.may_free {
            log.allow_freeing();
        }
        let running = Running {
            scheduler,
            log,
            history: Rc::clone(&self.history),
            boot: self.boot,
        };
        running.log.start(Rc::clone(&self.history) as Rc<dyn DurableSink>);
        Some(running)
    }

    /// As [`Machine::try_start`] on a disk that is not frozen; waits until the head is durable.
    pub(super) fn start(&mut self) -> Running {
        let running = self.try_start().expect("not frozen");
        running.drain();
        running
    }

    /// Removes what the chain does not hold, as a node does once its new head is durable.
    pub(super) fn remove_void(&self, chain: &LogChain) {
        let removed = Scheduler::default().run(remove_void_segments(&self.disk, &data(), chain));
        removed.expect("not frozen").expect("removed");
    }

    pub(super) fn config(&self) -> LogConfig {
        LogConfig {
            data: data(),
            log: LOG,
            boot: BootNumber(self.boot),
            cluster: (0x0102_0304_0506_0708, 0x1112_1314_1516_1718),
            node: 42,
            shards: SHARDS,
            segment_bytes: self.segment_bytes,
            logs: self.logs,
        }
    }

    /// The valid batches of a segment, in order.
    pub(super) fn batches(&self, sequence: u64) -> Vec<BatchHeader> {
        batches_of(&self.disk.content(&segment(sequence)), SegmentSequence(sequence))
    }
}

/// The valid batches at the beginning of a segment's bytes.
pub(super) fn batches_of(bytes: &[u8], sequence: SegmentSequence) -> Vec<BatchHeader> {
    let mut batches = Vec::new();
    let mut offset = 0;
    while let Ok(header) = check_batch(
        &bytes[offset as usize..],
        BatchPlace {
            log: LOG,
            segment: sequence,
            offset,
        },
    ) {
        batches.push(header);
        offset += disk_bytes(&header);
    }
    batches
}

/// Bytes that a batch takes on disk.
pub(super) fn disk_bytes(header: &BatchHeader) -> u64 {
    header.content_bytes().next_multiple_of(BLOCK_BYTES) as u64
}

/// Every shard that a chain knows has its state.
fn check_shards(chain: &LogChain) {
    if chain.segments.is_empty() {
        return;
    }
    for shard in 0..SHARDS {
        let found = chain.shards.get(&ShardId(shard)).and_then(|found| found.complete);
        let expected = state_of(shard);
        let found = found.map(|(epoch, hard_state, _)| (epoch, hard_state));
        assert_eq!(
            found,
            Some((EPOCH, expected.hard_state)),
            "state of shard {shard}"
        );
    }
}

impl Running {
    /// Appends an entry of `payload_bytes` to a shard; no write is submitted before the tasks run.
    pub(super) fn append(&self, shard: u32, payload_bytes: usize) {
        let shard = ShardId(shard);
        let entries = self.history.entries.borrow();
        let before = entries.iter().rev().find(|entry| entry.shard == shard);
        let index = before.map_or(LogIndex(1), |entry| entry.id.index.next());
        drop(entries);
        let id = EntryId {
            term: Term(self.boot),
            index,
        };
        let payload = payload(self.boot, shard, index, payload_bytes);
        self.append_entry(Entry {
            shard,
            epoch: EPOCH,
            id,
            payload,
        });
    }

    /// Appends this entry.
    pub(super) fn append_entry(&self, entry: Entry) {
        let (front, back) = entry.payload.split_at(entry.payload.len() / 3);
        let place = self
            .log
            .append_entry(entry.shard, entry.epoch, entry.id, &[front, back]);
        self.log.with_payload(place, |bytes| {
            assert_eq!(bytes, entry.payload, "readable at once");
        });
        self.history.push(entry, place);
    }

    /// Makes all acknowledged entries of a shard durable elsewhere, and tells the log.
    pub(super) fn flush(&self, shard: u32) {
        self.flush_first(shard, self.history.acknowledged.get());
    }

    /// As [`Running::flush`], for those among the first `count` entries of the history.
    pub(super) fn flush_first(&self, shard: u32, count: usize) {
        let entries = self.history.entries.borrow();
        let mut newest_first = entries[..count].iter().rev();
        if let Some(last) = newest_first.find(|entry| entry.shard == ShardId(shard)) {
            self.history.flushed.borrow_mut()[shard as usize] = last.id;
            self.log.note_flushed(ShardId(shard), last.id);
        }
    }

    /// Flushes all shards.
    pub(super) fn flush_all(&self) {
        (0..SHARDS).for_each(|shard| self.flush(shard));
    }

    /// Appends and lets the tasks run until they can't go on.
    pub(super) fn write(&self, shard: u32, payload_bytes: usize) {
        self.append(shard, payload_bytes);
        self.scheduler.settle();
    }

    /// Runs until everything appended is durable; false when the disk froze.
    pub(super) fn try_drain(&self) -> bool {
        self.scheduler.run(self.log.drained()).is_some()
    }

    /// Runs until everything appended is durable.
    pub(super) fn drain(&self) {
        assert!(self.try_drain(), "the log stands still");
        self.scheduler.settle();
    }

    /// Closes the log cleanly.
    pub(super) fn close(self) {
        let closed = self.scheduler.run(self.log.close());
        closed.expect("the log stands still").expect("closes");
        self.scheduler.settle();
    }

    /// The process dies.
    pub(super) fn kill(self) {
        drop(self);
    }

    /// The process dies and the power fails; writes in flight are lost.
    pub(super) fn lose_power(self, disk: &MemoryDisk) {
        self.kill();
        disk.power_loss(false, |_| Fate::Lost);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.scheduler.abandon();
    }
}

/// A payload that names its place.
fn payload(boot: u64, shard: ShardId, index: LogIndex, payload_bytes: usize) -> Vec<u8> {
    let seed = (boot << 40) ^ (u64::from(shard.0) << 32) ^ index.0;
    let word = |at: u64| {
        (seed ^ (at << 20))
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .to_le_bytes()
    };
    (0..).flat_map(word).take(payload_bytes).collect()
}

/// Appends `entries`, `per_batch` in each batch, and waits for each batch.
pub(super) fn fill(running: &Running, entries: usize, per_batch: usize, payload_bytes: usize) {
    for entry in 0..entries {
        running.append(entry as u32 % SHARDS, payload_bytes);
        if (entry + 1).is_multiple_of(per_batch) {
            running.drain();
        }
    }
    running.drain();
}
