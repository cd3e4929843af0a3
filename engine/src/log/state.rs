//! The log's bookkeeping without IO: what is being filled, queued, written; numbers; the state heads.
//!
//! Invariants:
//! - Batches leave `filling -> queued -> writing` in order, and numbers and offsets are given out when a
//!   batch enters `writing`; at most two are there.
//! - `durable_through` is the number of the last batch such that it and all before it are durable.
//! - A segment's first batch is a head with the state of every shard of this core, as the batches before it
//!   leave it: a state that still waits to be written speaks of entries that wait too.
//! - Every batch but the seal leaves room for a seal behind it in its segment.
//! - A shard's log base never falls, and a batch counts to the segment that it is written to: see [`LiveSegments`].

use std::collections::VecDeque;
use std::rc::Rc;

use ostrakon_core::raft::EntryId;
use ostrakon_wire::routing::ShardId;

use super::LogConfig;
use super::batch::{BatchBuilder, BatchId, EntryPlace, Extent, FinishedBatch, payload_at};
use super::format::{
    BatchHeader, BatchNumber, FLAG_HEAD, FLAG_RECYCLED, FLAG_SEAL, OwnershipEpoch, RecordKind, SegmentHead,
    SegmentSequence, ShardState,
};
use super::found::LogChain;
use super::live::LiveSegments;
use super::segment::Segment;
use crate::env::disk::BLOCK_BYTES;
use crate::env::{Disk, DiskBuf, File};
use crate::limits::{
    FREED_SEGMENTS_MAX, LOG_WRITES_IN_FLIGHT, SEGMENT_RESERVE_BYTES, batch_target_bytes, log_queue_bytes_max,
};

/// Bytes of a seal on disk. Without one, damage to the last batch of a clean shutdown would look torn, so
/// each segment keeps room for it.
const SEAL_BYTES: u64 = BLOCK_BYTES as u64;

/// How many times as fast the next segment is filled with zeros as the one in use with batches.
const FILL_LEAD: u64 = 2;

/// One write for a writer task.
pub(super) struct WriteJob {
    pub(super) number: BatchNumber,
    pub(super) file: Rc<dyn File>,
    pub(super) buffer: Rc<DiskBuf>,
    pub(super) offset: u64,
}

/// A batch that is on its way to disk or waits for an earlier one.
pub(super) struct Writing {
    pub(super) number: BatchNumber,
    pub(super) batch: FinishedBatch,
    /// Of a head: the oldest segment that it says is needed; else zero.
    oldest: SegmentSequence,
    done: bool,
}

/// Whether the log takes entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Running,
    /// A write failed: nothing is written any more.
    Failed,
    /// Sealed and closed.
    Closed,
}

/// What [`LogState::next_job`] found.
pub(super) enum NextJob {
    /// Write this.
    Write(WriteJob),
    /// Nothing to write.
    Idle,
    /// There is something to write but no segment with room for it.
    NeedsSegment,
}

pub(super) struct LogState {
    pub(super) config: LogConfig,
    pub(super) status: Status,
    pub(super) disk_full: bool,
    /// See [`super::Log::set_short_of_space`].
    is_short: bool,
    /// The next segment has its space, and is being filled.
    is_filling: bool,
    pub(super) live: LiveSegments,
    filling: Option<BatchBuilder>,
    queued: VecDeque<BatchBuilder>,
    queued_bytes: usize,
    writing: VecDeque<Writing>,
    current: Segment,
    ready: Option<Segment>,
    retired: Vec<Rc<dyn File>>,
    next_id: u64,
    /// Size of the batch before, the guess for the next one's.
    last_batch_bytes: usize,
    next_number: BatchNumber,
    durable_through: BatchNumber,
    head_pending: Option<SegmentSequence>,
    head_predecessor_last: BatchNumber,
}

impl LogState {
    /// A log that goes on behind what recovery found, if anything, in the empty segment `current`.
    pub(super) fn new(config: LogConfig, current: Segment, found: Option<&LogChain>) -> LogState {
        let segments = found.map_or(&[][..], |chain| &chain.segments);
        let predecessor = segments
            .last()
            .map_or(SegmentSequence(0), |segment| segment.sequence);
        let last = found.map_or(BatchNumber(0), |chain| chain.last_batch);
        LogState {
            config,
            status: Status::Running,
            disk_full: false,
            is_short: false,
            is_filling: false,
            live: LiveSegments::new(segments, current.sequence),
            filling: None,
            queued: VecDeque::new(),
            queued_bytes: 0,
            writing: VecDeque::new(),
            current,
            ready: None,
            retired: Vec::new(),
            next_id: 1,
            last_batch_bytes: 0,
            next_number: BatchNumber(last.0 + 1),
            durable_through: last,
            head_pending: Some(predecessor),
            head_predecessor_last: last,
        }
    }

    /// Bytes of records that wait to be written.
    pub(super) fn backlog_bytes(&self) -> usize {
        self.queued_bytes + self.filling.as_ref().map_or(0, BatchBuilder::records_bytes)
    }

    /// True when a client's write must be refused with `Busy`.
    pub(super) fn is_backlogged(&self) -> bool {
        self.backlog_bytes() >= log_queue_bytes_max(self.config.segment_bytes) / 2
    }

    /// True if records of a shard with these payloads find room when they are appended now, in order. Always, unless
    /// the disk is full; then in the segment in use, behind what waits, and of it `kept_bytes` are to stay free.
    ///
    /// # Panics
    /// On a full disk before the head of the segment was begun: nobody is served before it is durable.
    pub(super) fn has_room(&self, shard: ShardId, payloads_bytes: &[usize], kept_bytes: u64) -> bool {
        if !self.disk_full {
            return true;
        }
        assert!(self.head_pending.is_none(), "the head comes before any request");
        let queued_bytes: usize = self.queued.iter().map(BatchBuilder::disk_bytes).sum();
        let mut needed_bytes = queued_bytes;
        let mut last = Extent::EMPTY;
        let mut is_listed = false;
        if let Some(filling) = &self.filling {
            last = filling.extent();
            is_listed = filling.has_shard(shard);
        }
        for &payload_bytes in payloads_bytes {
            if self.ends_batch(last.records_bytes(), payload_bytes) {
                needed_bytes += last.disk_bytes();
                last = Extent::EMPTY;
                is_listed = false;
            }
            last = last.with_record(payload_bytes, !is_listed);
            is_listed = true;
        }
        needed_bytes += last.disk_bytes();
        self.current.used_bytes + needed_bytes as u64 + SEAL_BYTES + kept_bytes <= self.config.segment_bytes
    }

    /// As [`LogState::has_room`], leaving the reserve for what must go on when deletes no longer can.
    pub(super) fn has_room_for_deletes(&self, shard: ShardId, payloads_bytes: &[usize]) -> bool {
        self.has_room(shard, payloads_bytes, SEGMENT_RESERVE_BYTES)
    }

    /// True if a batch with so many bytes of records takes no further record of this payload.
    fn ends_batch(&self, records_bytes: usize, payload_bytes: usize) -> bool {
        records_bytes > 0 && records_bytes + payload_bytes > batch_target_bytes(self.config.segment_bytes)
    }

    /// Appends a record to the batch being filled.
    pub(super) fn append(
        &mut self,
        disk: &dyn Disk,
        kind: RecordKind,
        shard: ShardId,
        epoch: OwnershipEpoch,
        entry: EntryId,
        payload: &[&[u8]],
    ) -> EntryPlace {
        let payload_bytes = payload.iter().map(|part| part.len()).sum::<usize>();
        let filled_bytes = self.filling.as_ref().map_or(0, BatchBuilder::records_bytes);
        if self.ends_batch(filled_bytes, payload_bytes)
            && let Some(full) = self.filling.take()
        {
            self.queued_bytes += filled_bytes;
            self.queued.push_back(full);
        }
        let next_id = &mut self.next_id;
        let expected_bytes = super::format::record_bytes(payload_bytes).max(self.last_batch_bytes);
        let filling = self.filling.get_or_insert_with(|| {
            let id = BatchId(*next_id);
            *next_id += 1;
            BatchBuilder::new(id, disk, expected_bytes)
        });
        filling.append(disk, kind, shard, epoch, entry, payload)
    }

    /// Appends a shard's state to the batch being filled.
    pub(super) fn append_state(
        &mut self,
        disk: &dyn Disk,
        shard: ShardId,
        epoch: OwnershipEpoch,
        state: ShardState,
    ) {
        let state = self.live.with_base(shard, epoch, state);
        let payload = state.encode();
        self.append(
            disk,
            RecordKind::ShardState,
            shard,
            epoch,
            EntryId::default(),
            &[&payload],
        );
        self.filling
            .as_mut()
            .expect("just appended to")
            .note_state(shard, epoch, state);
    }

    /// The payload of an entry that is not yet durable.
    pub(super) fn payload(&self, place: EntryPlace) -> &[u8] {
        if let Some(filling) = self
            .filling
            .as_ref()
            .filter(|filling| filling.id() == place.batch)
        {
            return filling.payload(place);
        }
        if let Some(queued) = self.queued.iter().find(|queued| queued.id() == place.batch) {
            return queued.payload(place);
        }
        let writing = self
            .writing
            .iter()
            .find(|writing| writing.batch.id == place.batch);
        payload_at(
            &writing
                .expect("an entry in flight lies in a batch in flight")
                .batch
                .buffer,
            place,
        )
    }

    /// The next write, if there is one and a segment has room for it.
    pub(super) fn next_job(&mut self, disk: &dyn Disk) -> NextJob {
        // A write that is done but waits for an earlier one counts: it holds its buffer, and behind a write
        // that hangs nothing may pile up.
        if self.status != Status::Running || self.writing.len() >= LOG_WRITES_IN_FLIGHT {
            return NextJob::Idle;
        }
        if let Some(predecessor) = self.head_pending.take() {
            let head = self.head_batch(disk, predecessor);
            return NextJob::Write(self.begin_write(head, FLAG_HEAD));
        }
        let waiting = self.queued.front().or(self.filling.as_ref());
        let is_full = waiting.is_some_and(|waiting| !self.fits(waiting));
        if is_full || self.ends_segment_early() {
            let Some(next) = self.ready.take() else {
                return NextJob::NeedsSegment;
            };
            let full = core::mem::replace(&mut self.current, next);
            self.retired.push(full.file);
            self.live.begin(self.current.sequence);
            self.head_predecessor_last = BatchNumber(self.next_number.0 - 1);
            let head = self.head_batch(disk, full.sequence);
            return NextJob::Write(self.begin_write(head, FLAG_HEAD));
        }
        let batch = match self.queued.pop_front() {
            Some(queued) => {
                self.queued_bytes -= queued.records_bytes();
                queued
            }
            None => match self.filling.take() {
                Some(filling) => filling,
                None => return NextJob::Idle,
            },
        };
        self.last_batch_bytes = batch.records_bytes();
        NextJob::Write(self.begin_write(batch, 0))
    }

    /// Marks a write as durable and returns the batches that became acknowledged by it, in order. True if segments were
    /// freed by that.
    pub(super) fn complete(&mut self, number: BatchNumber, acknowledged: &mut Vec<Writing>) -> bool {
        let writing = self.writing.iter_mut().find(|writing| writing.number == number);
        writing.expect("a completed write was in flight").done = true;
        let mut has_freed = false;
        while let Some(first) = self.writing.pop_front_if(|first| first.done) {
            assert_eq!(
                first.number.0,
                self.durable_through.0 + 1,
                "batches become durable in order"
            );
            self.durable_through = first.number;
            has_freed |= self.live.free_below(first.oldest, self.freed_segments_max());
            acknowledged.push(first);
        }
        has_freed
    }

    /// The last write of a clean shutdown. Nothing may be in flight or waiting.
    pub(super) fn seal_job(&mut self, disk: &dyn Disk) -> WriteJob {
        assert!(self.is_drained(), "sealing a log with batches under way");
        let id = self.take_id();
        let seal = BatchBuilder::new(id, disk, 0);
        assert_eq!(seal.disk_bytes() as u64, SEAL_BYTES, "a seal is a header alone");
        self.begin_write(seal, FLAG_SEAL)
    }

    /// True when nothing waits and nothing is in flight.
    pub(super) fn is_drained(&self) -> bool {
        self.writing.is_empty()
            && self.queued.is_empty()
            && self.filling.is_none()
            && self.head_pending.is_none()
    }

    /// True when all that was appended is durable, or never will be.
    pub(super) fn has_nothing_to_await(&self) -> bool {
        self.status != Status::Running || self.is_drained() || self.is_stuck()
    }

    /// True when nothing is in flight and what waits needs a segment that can't be made.
    pub(super) fn is_stuck(&self) -> bool {
        let waiting = self.queued.front().or(self.filling.as_ref());
        self.disk_full
            && self.ready.is_none()
            && self.writing.is_empty()
            && waiting.is_some_and(|batch| !self.fits(batch))
    }

    /// True when the segment in reserve, filled so far, should grow: it is at most [`FILL_LEAD`] times as far as the
    /// one in use. So its last step is due before a batch, of at most a quarter of a segment, finds no room in that
    /// one. On a full disk puts are refused, so it can't wait for them.
    pub(super) fn fill_is_due(&self, filled_bytes: u64) -> bool {
        filled_bytes <= self.current.used_bytes * FILL_LEAD || self.disk_full || self.is_short
    }

    /// Has the next segment its space?
    pub(super) fn note_filling(&mut self, is_filling: bool) {
        self.is_filling = is_filling;
    }

    /// See [`super::Log::set_short_of_space`].
    pub(super) fn set_short_of_space(&mut self, is_short: bool) {
        self.is_short = is_short;
        self.live.keep_freed(self.freed_segments_max());
    }

    /// Freed segments that are kept for reuse: where space is short just the one that comes next.
    fn freed_segments_max(&self) -> usize {
        if self.is_short { 1 } else { FREED_SEGMENTS_MAX }
    }

    /// True when the segment in use should end before it is full, because space is short and the head of the next one
    /// frees more than is needed for another. It has a batch behind its head: a segment whose head is lost is known by
    /// what else it has.
    pub(super) fn ends_segment_early(&self) -> bool {
        let has_head_in_flight = self.writing.iter().any(|writing| writing.oldest.0 > 0);
        let batches = self.next_number.0 - self.head_predecessor_last.0 - 1;
        self.is_short
            && self.ready.is_some()
            && self.live.unneeded_count() > 1
            && batches > 1
            && !has_head_in_flight
    }

    fn fits(&self, batch: &BatchBuilder) -> bool {
        self.current.used_bytes + batch.disk_bytes() as u64 + SEAL_BYTES <= self.config.segment_bytes
    }

    /// How far the log has come, in bytes of segments, with what waits to be written. It never falls.
    pub(super) fn position_bytes(&self) -> u64 {
        let begun_bytes = self.current.sequence.0 * self.config.segment_bytes;
        begun_bytes + self.current.used_bytes + self.backlog_bytes() as u64
    }

    /// Bytes of segments that will be made next: until one is in reserve, and what the one in use has taken.
    pub(super) fn unmade_bytes(&self) -> u64 {
        let has_space = self.ready.is_some() || self.is_filling;
        let reserve_bytes = if has_space { 0 } else { self.config.segment_bytes };
        let freed_bytes = self.live.recyclable_count() * self.config.segment_bytes;
        (self.current.used_bytes + reserve_bytes).saturating_sub(freed_bytes)
    }

    /// True when no segment is in reserve.
    pub(super) fn wants_segment(&self) -> bool {
        self.ready.is_none()
    }

    /// Puts a new segment in reserve; gives it back when the log has ended meanwhile.
    pub(super) fn provide_segment(&mut self, segment: Segment) -> Option<Segment> {
        self.is_filling = false;
        if self.status != Status::Running {
            return Some(segment);
        }
        self.disk_full = false;
        let replaced = self.ready.replace(segment);
        assert!(replaced.is_none(), "one segment in reserve");
        None
    }

    /// Files of full segments that no write in flight refers to.
    pub(super) fn take_closable(&mut self) -> Vec<Rc<dyn File>> {
        let (closable, kept) = core::mem::take(&mut self.retired)
            .into_iter()
            .partition(|file| Rc::strong_count(file) == 1);
        self.retired = kept;
        closable
    }

    /// Every file that is still open, at the end.
    pub(super) fn take_files(&mut self) -> Vec<Rc<dyn File>> {
        let mut files = core::mem::take(&mut self.retired);
        files.push(Rc::clone(&self.current.file));
        files.extend(self.ready.take().map(|segment| segment.file));
        files
    }

    /// The current segment's path, for messages.
    pub(super) fn current_path(&self) -> &std::path::Path {
        &self.current.path
    }

    /// The last batch known durable.
    pub(super) fn durable_through(&self) -> BatchNumber {
        self.durable_through
    }

    fn take_id(&mut self) -> BatchId {
        let id = BatchId(self.next_id);
        self.next_id += 1;
        id
    }

    fn head_batch(&mut self, disk: &dyn Disk, predecessor: SegmentSequence) -> BatchBuilder {
        self.live.review();
        let head = SegmentHead {
            cluster: self.config.cluster,
            node: self.config.node,
            predecessor,
            predecessor_last: self.head_predecessor_last,
            segment_bytes: self.config.segment_bytes,
            shards: self.config.shards,
            oldest: self.live.oldest(),
        };
        let id = self.take_id();
        let mut batch = BatchBuilder::new(id, disk, 0);
        let none = EntryId::default();
        batch.append(
            disk,
            RecordKind::SegmentHead,
            ShardId(0),
            OwnershipEpoch(0),
            none,
            &[&head.encode()],
        );
        for (shard, epoch, state) in self.live.shards() {
            let payload = state.encode();
            batch.append(disk, RecordKind::ShardState, shard, epoch, none, &[&payload]);
        }
        batch
    }

    fn begin_write(&mut self, batch: BatchBuilder, mut flags: u16) -> WriteJob {
        let mut oldest = SegmentSequence(0);
        if flags & FLAG_HEAD != 0 {
            oldest = self.live.oldest();
            flags |= if self.current.is_recycled {
                FLAG_RECYCLED
            } else {
                0
            };
        }
        self.live.note_batch(batch.disk_bytes() as u64, batch.lasts());
        for (shard, epoch, state) in batch.states() {
            self.live.set_shard(*shard, *epoch, *state);
        }
        let number = self.next_number;
        self.next_number = BatchNumber(number.0 + 1);
        let offset = self.current.used_bytes;
        let header = BatchHeader {
            flags,
            segment: self.current.sequence,
            number,
            durable_through: self.durable_through,
            offset,
            boot: self.config.boot,
            log: self.config.log,
            records_bytes: 0,
            record_count: 0,
            directory_count: 0,
        };
        let batch = batch.finish(header);
        let buffer = Rc::clone(&batch.buffer);
        self.current.used_bytes += buffer.bytes().len() as u64;
        assert!(
            self.current.used_bytes <= self.config.segment_bytes,
            "a batch ends within its segment"
        );
        self.writing.push_back(Writing {
            number,
            batch,
            oldest,
            done: false,
        });
        WriteJob {
            number,
            file: Rc::clone(&self.current.file),
            buffer,
            offset,
        }
    }
}
