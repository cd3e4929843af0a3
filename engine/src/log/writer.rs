//! The log as its core uses it, and its two writers.

use core::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use ostrakon_core::raft::EntryId;
use ostrakon_wire::routing::ShardId;

use super::LogError;
use super::batch::{BatchId, EntryPlace, payload_at};
use super::format::{
    BatchNumber, BootNumber, DirectoryEntry, LogId, OwnershipEpoch, RecordKind, SegmentSequence, ShardState,
};
use super::recovery::LogChain;
use super::reserve::keep_segment_ready;
use super::segment::{AtOnce, PrepareError, create_log_directory, prepare_segment};
use super::state::{LogState, NextJob, Status, WriteJob, Writing};
use crate::env::local::Notify;
use crate::env::pace::Pace;
use crate::env::{Clock, Disk, DiskBuf, Priority, Tasks};
use crate::limits::{LOG_WRITES_IN_FLIGHT, payload_bytes_max};

/// What a log is told about itself.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The data directory.
    pub data: PathBuf,
    /// Which of the node's logs this is.
    pub log: LogId,
    /// This start of the node.
    pub boot: BootNumber,
    /// Cluster, high and low half.
    pub cluster: (u64, u64),
    /// Node.
    pub node: u64,
    /// Shards of the cluster.
    pub shards: u32,
    /// Length of new segments in bytes.
    pub segment_bytes: u64,
    /// Logs of the node that are written: one a core. They share the file system's space.
    pub logs: u16,
}

/// A batch that is on stable storage, with all before it.
pub struct DurableBatch<'a> {
    id: BatchId,
    buffer: &'a DiskBuf,
    /// The shards that have entries or states in it.
    pub directory: &'a [DirectoryEntry],
}

impl DurableBatch<'_> {
    /// The payload of an entry of this batch.
    pub fn payload(&self, place: EntryPlace) -> &[u8] {
        assert_eq!(place.batch, self.id, "the entry lies in another batch");
        payload_at(self.buffer, place)
    }
}

/// Who hears what the log achieved. Called on the log's writer task, never from within an append.
pub trait DurableSink {
    /// A batch and all before it are on stable storage.
    fn batch_durable(&self, batch: &DurableBatch<'_>);
    /// A write failed. The log takes nothing any more; whatever was not yet acknowledged has an unknown fate.
    fn log_failed(&self, error: &LogError);
}

/// Counters since the log was opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogStatistics {
    /// Batches written, heads and seals included.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes written, padding included.
    pub bytes: u64,
    /// Nanoseconds that the writes took, each from submission to completion.
    pub write_ns: u64,
    /// Segments begun.
    pub segments: u64,
    /// Segments of the chain at present, which a restart may have to read.
    pub segments_live: u64,
    /// Freed segments that were used again.
    pub segments_recycled: u64,
    /// Freed segments that were removed.
    pub segments_removed: u64,
}

/// The durable log of one core. Cheap to clone; all clones are one log.
#[derive(Clone)]
pub struct Log(Rc<Shared>);

pub(super) struct Shared {
    pub(super) state: RefCell<LogState>,
    pub(super) directory: PathBuf,
    pub(super) payload_bytes_max: usize,
    pub(super) disk: Rc<dyn Disk>,
    pub(super) tasks: Rc<dyn Tasks>,
    pub(super) clock: Rc<dyn Clock>,
    pub(super) sink: RefCell<Option<Rc<dyn DurableSink>>>,
    pub(super) writer_work: [Notify; LOG_WRITES_IN_FLIGHT],
    pub(super) writer_idle: [Cell<bool>; LOG_WRITES_IN_FLIGHT],
    pub(super) tasks_running: Cell<usize>,
    pub(super) prepare_work: Notify,
    pub(super) fill_work: Notify,
    pub(super) progress: Notify,
    pub(super) next_sequence: Cell<SegmentSequence>,
    pub(super) statistics: Cell<LogStatistics>,
    pace: Pace,
}

impl Log {
    /// Opens a log that continues behind what recovery found; a new one if `found` is `None`. The first batch, the
    /// head, is written when [`Log::start`] is called, with the shard states set until then.
    ///
    /// # Errors
    /// When the directory or the first segment can't be made.
    pub async fn open(
        config: LogConfig,
        env: (Rc<dyn Disk>, Rc<dyn Tasks>, Rc<dyn Clock>),
        found: Option<&LogChain>,
    ) -> Result<Log, LogError> {
        let (disk, tasks, clock) = env;
        let directory = create_log_directory(&*disk, &config.data, config.log).await?;
        let sequence = found.map_or(SegmentSequence(1), |chain| chain.next_sequence);
        // A node that fills its disk must be able to start again: the reserve is for this segment.
        let made = prepare_segment(
            (&*disk, &*tasks),
            &AtOnce,
            &directory,
            sequence,
            config.segment_bytes,
            0,
        )
        .await;
        let current = match made {
            Ok(segment) => segment,
            Err(PrepareError::Failed(error)) => return Err(error),
            Err(PrepareError::NotWanted) => unreachable!("the first segment is made at once"),
            Err(PrepareError::DiskFull) => {
                let source = std::io::Error::new(
                    std::io::ErrorKind::StorageFull,
                    format!(
                        "too little space for a log segment of {} bytes: free some and start again",
                        config.segment_bytes
                    ),
                );
                return Err(LogError::io("make the first segment in", &directory, source));
            }
        };
        let pace = Pace::new(Rc::clone(&clock), Rc::clone(&tasks));
        let shared = Shared {
            payload_bytes_max: payload_bytes_max(config.segment_bytes),
            state: RefCell::new(LogState::new(config, current, found)),
            directory,
            disk,
            tasks,
            clock,
            sink: RefCell::new(None),
            writer_work: Default::default(),
            writer_idle: Default::default(),
            tasks_running: Cell::new(0),
            prepare_work: Notify::default(),
            fill_work: Notify::default(),
            progress: Notify::default(),
            next_sequence: Cell::new(SegmentSequence(sequence.0 + 1)),
            statistics: Cell::new(LogStatistics::default()),
            pace,
        };
        Ok(Log(Rc::new(shared)))
    }

    /// Starts the tasks; the head batch goes out at once.
    pub fn start(&self, sink: Rc<dyn DurableSink>) {
        *self.0.sink.borrow_mut() = Some(sink);
        for writer in 0..LOG_WRITES_IN_FLIGHT {
            let shared = Rc::clone(&self.0);
            self.0.tasks_running.set(self.0.tasks_running.get() + 1);
            self.0
                .tasks
                .spawn(Priority::Foreground, Box::pin(write_batches(shared, writer)));
        }
        let shared = Rc::clone(&self.0);
        self.0.tasks_running.set(self.0.tasks_running.get() + 1);
        self.0
            .tasks
            .spawn(Priority::Background, Box::pin(keep_segment_ready(shared)));
    }

    /// Sets what the heads of segments say of a shard. For use before [`Log::start`]; afterwards states are
    /// appended with [`Log::append_state`].
    pub fn set_shard_state(&self, shard: ShardId, epoch: OwnershipEpoch, state: ShardState) {
        self.0.state.borrow_mut().live.set_shard(shard, epoch, state);
    }

    /// Everything of this shard up to this entry is durable in its tables, which the caller guarantees: the log need
    /// not keep it. The heads of segments that are begun from now on state it as the shard's log base, which never
    /// falls.
    ///
    /// # Panics
    /// If the log has no state of the shard.
    pub fn note_flushed(&self, shard: ShardId, entry: EntryId) {
        self.0.state.borrow_mut().live.note_flushed(shard, entry);
        self.go_on_if_possible();
    }

    /// Lets the log free segments. To be called when every shard that recovery found in this log, and that another
    /// log holds from now on, is complete and durable there; before [`Log::start`] if there is none. Until then the
    /// segments that recovery found are all that such a shard has.
    pub fn allow_freeing(&self) {
        self.0.state.borrow_mut().live.allow_freeing();
    }

    /// Bytes of the batches that a restart would have to read once the next head is durable: from the oldest segment on
    /// that is needed.
    pub fn live_bytes(&self) -> u64 {
        self.0.state.borrow().live.bytes()
    }

    /// How far the log has come, in bytes of segments, with what waits to be written. It never falls.
    pub fn position_bytes(&self) -> u64 {
        self.0.state.borrow().position_bytes()
    }

    /// Bytes of the segments that the log makes before it has one in use that is empty, one in reserve, and the space
    /// of another. Freed ones are used again, so it may need less.
    pub fn unmade_bytes(&self) -> u64 {
        self.0.state.borrow().unmade_bytes()
    }

    /// Tells whether space is short on the file system. Then the log gives back what it can: it keeps no freed segment
    /// but the one in reserve, and begins the next one as soon as that frees two or more, or one for which this one has
    /// taken space. To be called every now and then: a log that found no space for another segment looks again.
    pub fn set_short_of_space(&self, is_short: bool) {
        self.0.state.borrow_mut().set_short_of_space(is_short);
        let is_last = self.0.state.borrow().is_last();
        if is_short || is_last {
            self.go_on_if_possible();
            // For freed segments, and a fill that waits for puts.
            self.0.prepare_work.notify();
            self.0.fill_work.notify();
        }
    }

    /// Wakes a writer if it may begin a segment now which it could not, or had no reason to begin.
    fn go_on_if_possible(&self) {
        let state = self.0.state.borrow();
        let may_go_on = state.ends_segment_early() || state.is_last() && state.frees_another();
        drop(state);
        if may_go_on {
            self.0.wake_one();
        }
    }

    /// The shards because of which the oldest needed segment is needed, in no particular order. When they are flushed,
    /// [`Log::live_bytes`] falls, unless that segment is the one in use.
    pub fn pinning(&self) -> Vec<ShardId> {
        self.0.state.borrow().live.pinning()
    }

    /// Appends a shard's state. The heads of segments that are begun after it was written have it too.
    pub fn append_state(&self, shard: ShardId, epoch: OwnershipEpoch, state: ShardState) {
        self.0
            .state
            .borrow_mut()
            .append_state(&*self.0.disk, shard, epoch, state);
        self.0.wake_one();
    }

    /// Appends an entry; the payload is the parts one after the other. Entries of a shard come in index order.
    pub fn append_entry(
        &self,
        shard: ShardId,
        epoch: OwnershipEpoch,
        entry: EntryId,
        payload: &[&[u8]],
    ) -> EntryPlace {
        let mut state = self.0.state.borrow_mut();
        let place = state.append(&*self.0.disk, RecordKind::Entry, shard, epoch, entry, payload);
        drop(state);
        self.0.wake_one();
        place
    }

    /// Looks at the payload of an entry that is not yet durable.
    pub fn with_payload<R>(&self, place: EntryPlace, look: impl FnOnce(&[u8]) -> R) -> R {
        look(self.0.state.borrow().payload(place))
    }

    /// True when client writes must be refused with `Busy`.
    pub fn is_backlogged(&self) -> bool {
        self.0.state.borrow().is_backlogged()
    }

    /// How fast batches are written: what is taken beyond that waits, and fills the next batch.
    pub fn pace(&self) -> &Pace {
        &self.0.pace
    }

    /// Length of a segment in bytes.
    pub fn segment_bytes(&self) -> u64 {
        self.0.state.borrow().config.segment_bytes
    }

    /// Payload of the largest entry in bytes.
    pub fn payload_bytes_max(&self) -> usize {
        self.0.payload_bytes_max
    }

    /// True if entries of a shard with these payloads, which no client asks for, find room when they are appended now,
    /// one after the other. They do not when the disk is full and the segment in use, too.
    pub fn has_room(&self, shard: ShardId, payloads_bytes: &[usize]) -> bool {
        self.0.state.borrow().has_room(shard, payloads_bytes, 0)
    }

    /// As [`Log::has_room`] for what a client's delete asks for, which has to stop earlier.
    pub fn has_room_for_delete(&self, shard: ShardId, payloads_bytes: &[usize]) -> bool {
        self.0.state.borrow().has_room_for_deletes(shard, payloads_bytes)
    }

    /// True while no further segment can be made or begun, for lack of room as a rule: puts get `DiskFull`.
    /// What is queued goes into the current segment as far as it fits, the rest waits for room.
    pub fn is_disk_full(&self) -> bool {
        self.0.state.borrow().is_disk_full()
    }

    /// True if the log gives space back once the shards of [`Log::pinning`] are flushed, where space is short.
    pub fn would_give_back(&self) -> bool {
        self.0.state.borrow().would_give_back()
    }

    /// True if the shards of [`Log::pinning`] are to be flushed, since the disk is full, and soon there is no room for
    /// an entry with so many bytes: that lets the log go on.
    pub fn asks_for_flush(&self, entry_bytes: usize) -> bool {
        self.0.state.borrow().asks_for_flush(entry_bytes as u64)
    }

    /// True after a write failed.
    pub fn has_failed(&self) -> bool {
        self.0.state.borrow().status == Status::Failed
    }

    /// Ends the log as a failed write does: something that its entries rely on has failed.
    pub fn give_up(&self, error: &LogError) {
        self.0.fail(error);
    }

    /// Counters.
    pub fn statistics(&self) -> LogStatistics {
        LogStatistics {
            segments_live: self.0.state.borrow().live.count() as u64,
            ..self.0.statistics.get()
        }
    }

    /// The last batch known durable.
    pub fn durable_through(&self) -> BatchNumber {
        self.0.state.borrow().durable_through()
    }

    /// True when what waits can't be written because no segment can be made for it.
    pub fn is_stuck(&self) -> bool {
        self.0.state.borrow().is_stuck()
    }

    /// Waits until the backlog is below the point where writes get `Busy`, or the log has failed or is stuck.
    /// For takeovers at start.
    pub async fn room(&self) {
        while self.is_backlogged() && !self.has_failed() && !self.is_stuck() {
            self.0.progress.notified().await;
        }
    }

    /// Waits until everything appended so far is durable, or the log has failed or is stuck.
    pub async fn drained(&self) {
        while !self.0.state.borrow().has_nothing_to_await() {
            self.0.progress.notified().await;
        }
    }

    /// Ends the log: waits for what is under way, writes the seal, closes the files. What is stuck for lack of
    /// room was never acknowledged and is given up.
    ///
    /// # Errors
    /// What the operating system says of the last write or of a close.
    pub async fn close(&self) -> Result<(), LogError> {
        self.drained().await;
        let mut outcome = Ok(());
        let seal = {
            let mut state = self.0.state.borrow_mut();
            (state.status == Status::Running && state.is_drained()).then(|| state.seal_job(&*self.0.disk))
        };
        if let Some(job) = seal {
            outcome = self.0.write(&job).await;
        }
        {
            let mut state = self.0.state.borrow_mut();
            if state.status == Status::Running {
                state.status = Status::Closed;
            }
        }
        // No file is closed, and no write or fill abandoned, while a task is in the middle of one.
        self.0.wake_all();
        while self.0.tasks_running.get() > 0 {
            self.0.progress.notified().await;
        }
        let files = self.0.state.borrow_mut().take_files();
        for file in files {
            let closed = file.close().await;
            outcome = outcome.and(closed.map_err(|source| self.0.failure("close a segment of", source)));
        }
        outcome
    }
}

impl Shared {
    fn wake_one(&self) {
        if let Some(idle) = self.writer_idle.iter().position(|idle| idle.replace(false)) {
            self.writer_work[idle].notify();
        }
    }

    pub(super) fn wake_writers(&self) {
        for work in &self.writer_work {
            work.notify();
        }
    }

    fn wake_all(&self) {
        self.wake_writers();
        self.prepare_work.notify();
        self.fill_work.notify();
        self.progress.notify();
    }

    pub(super) fn failure(&self, operation: &'static str, source: std::io::Error) -> LogError {
        LogError::io(operation, self.state.borrow().current_path(), source)
    }

    pub(super) fn task_ended(&self) {
        self.tasks_running.set(self.tasks_running.get() - 1);
        self.progress.notify();
    }

    async fn write(&self, job: &WriteJob) -> Result<(), LogError> {
        let started = self.clock.monotonic();
        let bytes = job.buffer.bytes().len() as u64;
        let outcome = job.file.write_at(Rc::clone(&job.buffer), job.offset).await;
        let mut statistics = self.statistics.get();
        statistics.batches += 1;
        statistics.bytes += bytes;
        statistics.segments += u64::from(job.offset == 0);
        statistics.write_ns += self.clock.monotonic().since_ns(started);
        self.statistics.set(statistics);
        outcome.map_err(|source| self.failure("write to", source))
    }

    fn acknowledge(&self, acknowledged: &[Writing]) {
        let sink = self
            .sink
            .borrow()
            .clone()
            .expect("set before the writers started");
        let mut statistics = self.statistics.get();
        for writing in acknowledged {
            statistics.records += u64::from(writing.batch.record_count);
            let batch = DurableBatch {
                id: writing.batch.id,
                buffer: &writing.batch.buffer,
                directory: &writing.batch.directory,
            };
            sink.batch_durable(&batch);
        }
        self.statistics.set(statistics);
        self.progress.notify();
    }

    pub(super) fn fail(&self, error: &LogError) {
        let first = {
            let mut state = self.state.borrow_mut();
            core::mem::replace(&mut state.status, Status::Failed) != Status::Failed
        };
        if first && let Some(sink) = self.sink.borrow().clone() {
            sink.log_failed(error);
        }
        self.wake_all();
    }
}

async fn write_batches(shared: Rc<Shared>, writer: usize) {
    let mut acknowledged = Vec::new();
    loop {
        let next = shared.state.borrow_mut().next_job(&*shared.disk);
        let job = match next {
            NextJob::Write(job) => job,
            NextJob::Idle | NextJob::NeedsSegment => {
                if shared.state.borrow().status != Status::Running {
                    break;
                }
                if matches!(next, NextJob::NeedsSegment) {
                    shared.prepare_work.notify();
                    shared.progress.notify();
                }
                shared.writer_idle[writer].set(true);
                shared.writer_work[writer].notified().await;
                shared.writer_idle[writer].set(false);
                continue;
            }
        };
        if let Err(error) = shared.write(&job).await {
            shared.fail(&error);
            break;
        }
        shared.fill_work.notify();
        if job.offset == 0 {
            shared.prepare_work.notify();
        }
        let (number, batch_bytes) = (job.number, job.buffer.bytes().len());
        drop(job);
        // After a failure of the other writer nothing is acknowledged any more: what this write made
        // durable may come after a hole.
        if shared.state.borrow().status == Status::Failed {
            break;
        }
        if shared.state.borrow_mut().complete(number, &mut acknowledged) {
            shared.prepare_work.notify();
        }
        shared.acknowledge(&acknowledged);
        if acknowledged.len() > 1 {
            // The other writer had to stop for this write, and has work again.
            shared.wake_one();
        }
        acknowledged.clear();
        // Meanwhile the next batch fills.
        shared.pace.spent(batch_bytes).await;
    }
    shared.task_ended();
}
