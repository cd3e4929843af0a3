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
//! - A segment is begun only if another one can follow it: there was space for that beside what is kept, as of the last
//!   look, or its head frees one. So a log whose shards can be flushed always goes on, however full the disk is.

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
    DISK_RESERVE_BYTES, FREED_SEGMENTS_MAX, LOG_WRITES_IN_FLIGHT, SEGMENT_RESERVE_BYTES,
    SMALLEST_TABLE_BYTES, STORE_RESERVE_BYTES, batch_target_bytes, log_queue_bytes_max, payload_bytes_max,
};

/// Bytes of a seal on disk. Without one, damage to the last batch of a clean shutdown would look torn, so
/// each segment keeps room for it.
const SEAL_BYTES: u64 = BLOCK_BYTES as u64;

/// Where space is short, a segment that the next head would free is ended once it has one part of this many.
const EARLY_END_PARTS: u64 = 8;

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

impl Writing {
    fn is_head(&self) -> bool {
        self.oldest.0 > 0
    }
}

/// Whether the log takes entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Running,
    /// A write failed: nothing is written any more.
    Failed,
    /// Closed, or about to be: nothing comes behind the seal.
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

/// The segment that comes next.
struct InReserve {
    segment: Segment,
    /// There is no space for another one behind it: it is begun only when its head frees one.
    is_last: bool,
}

pub(super) struct LogState {
    pub(super) config: LogConfig,
    pub(super) status: Status,
    /// The last attempt to make a segment failed, with no head under way that may free one.
    is_none_made: bool,
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
    ready: Option<InReserve>,
    retired: Vec<Rc<dyn File>>,
    next_id: u64,
    /// Size of the batch before, the guess for the next one's.
    last_batch_bytes: usize,
    next_number: BatchNumber,
    durable_through: BatchNumber,
    head_pending: Option<SegmentSequence>,
    /// Length of the head of the segment in use.
    head_bytes: u64,
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
            is_none_made: false,
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
            head_bytes: 0,
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
        if !self.is_disk_full() {
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
            let may_begin = self.may_begin_next();
            let Some(next) = self.ready.take_if(|_| may_begin) else {
                return NextJob::NeedsSegment;
            };
            let full = core::mem::replace(&mut self.current, next.segment);
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

    /// Marks a write as durable and returns the batches that became acknowledged by it, in order. True if a head is
    /// among them, which may have freed segments.
    pub(super) fn complete(&mut self, number: BatchNumber, acknowledged: &mut Vec<Writing>) -> bool {
        let writing = self.writing.iter_mut().find(|writing| writing.number == number);
        writing.expect("a completed write was in flight").done = true;
        let mut has_head = false;
        while let Some(first) = self.writing.pop_front_if(|first| first.done) {
            assert_eq!(
                first.number.0,
                self.durable_through.0 + 1,
                "batches become durable in order"
            );
            self.durable_through = first.number;
            has_head |= first.is_head();
            self.live.free_below(first.oldest, self.freed_segments_max());
            acknowledged.push(first);
        }
        has_head
    }

    /// The last write of a clean shutdown. Nothing may be in flight or waiting.
    pub(super) fn seal_job(&mut self, disk: &dyn Disk) -> WriteJob {
        assert!(self.is_drained(), "sealing a log with batches under way");
        let id = self.take_id();
        let seal = BatchBuilder::new(id, disk, 0);
        assert_eq!(seal.disk_bytes() as u64, SEAL_BYTES, "a seal is a header alone");
        self.status = Status::Closed;
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
        self.is_disk_full() && self.writing.is_empty() && waiting.is_some_and(|batch| !self.fits(batch))
    }

    /// True when the segment in reserve, filled so far, should grow: it is at most [`FILL_LEAD`] times as far as the
    /// one in use. So its last step is due before a batch, of at most a quarter of a segment, finds no room in that
    /// one. On a full disk puts are refused, so it can't wait for them.
    pub(super) fn fill_is_due(&self, filled_bytes: u64) -> bool {
        filled_bytes <= self.current.used_bytes * FILL_LEAD || self.is_none_made || self.is_short
    }

    /// A segment could not be made.
    pub(super) fn note_none_made(&mut self) {
        self.is_none_made = true;
    }

    /// True while the log can begin no further segment: there is no space for one, or for another behind it. It has the
    /// rest of the one in use then, until shards are flushed.
    pub(super) fn is_disk_full(&self) -> bool {
        if self.ready.is_some() {
            !self.may_begin_next()
        } else {
            self.is_none_made
        }
    }

    /// May the segment in reserve, if there is one, be begun?
    fn may_begin_next(&self) -> bool {
        !self.is_last() || self.frees_another()
    }

    /// True if the head of the next segment frees one, as far as that is known now.
    pub(super) fn frees_another(&self) -> bool {
        !self.has_head_under_way() && self.live.would_free()
    }

    /// Bytes that stay free beside the next segment. None if its head frees one, whatever is written until then. If the
    /// log has but the one in use, which only a further one can free: what tables leave free, and a segment of each
    /// other log, until the log is flushed and needs that further one.
    pub(super) fn reserve_bytes(&self) -> u64 {
        let is_freeing = self.frees_another();
        if is_freeing && self.live.unneeded_count() > 0 {
            0
        } else if self.live.count() > 1 {
            DISK_RESERVE_BYTES
        } else if is_freeing && self.is_nearly_full(payload_bytes_max(self.config.segment_bytes) as u64) {
            STORE_RESERVE_BYTES
        } else {
            STORE_RESERVE_BYTES + u64::from(self.config.logs - 1) * self.config.segment_bytes
        }
    }

    /// True while a head is not durable yet. What it frees can't be told from what the next one does.
    pub(super) fn has_head_under_way(&self) -> bool {
        self.head_pending.is_some() || self.writing.iter().any(Writing::is_head)
    }

    /// True if what a head frees is to be waited for before space is taken for another segment.
    pub(super) fn waits_for_head(&self) -> bool {
        self.is_short && self.has_head_under_way()
    }

    /// True if shards are to be flushed, since the log can begin no further segment without that. While it has room for
    /// such an entry in the one in use, none is flushed for the sake of that one.
    pub(super) fn asks_for_flush(&self, entry_bytes: u64) -> bool {
        let has_older = self.live.oldest() < self.current.sequence;
        self.is_disk_full() && (self.is_nearly_full(entry_bytes) || has_older)
    }

    /// Has the segment in use little room left beside such an entry, or none for what waits?
    fn is_nearly_full(&self, entry_bytes: u64) -> bool {
        let left_bytes = self.config.segment_bytes - self.current.used_bytes;
        left_bytes < 2 * SEGMENT_RESERVE_BYTES + entry_bytes || self.is_stuck()
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

    /// Freed segments that are kept for reuse: where space is short just the one that is put in reserve next.
    fn freed_segments_max(&self) -> usize {
        if self.is_short {
            usize::from(self.ready.is_none())
        } else {
            FREED_SEGMENTS_MAX
        }
    }

    /// True when the segment in use should end before it is full, because space is short and the head of the next one
    /// frees more than is needed for another, or frees one while this one has taken space that the next one has not. It
    /// has a batch behind its head: a segment whose head is lost is known by what else it has.
    pub(super) fn ends_segment_early(&self) -> bool {
        let batches = self.next_number.0 - self.head_predecessor_last.0 - 1;
        let frees_many = self.live.unneeded_count() > 1;
        let frees_some = self.has_taken_space() && self.live.would_free();
        self.is_short
            && self.ready.is_some()
            && (frees_many || frees_some)
            && batches > 1
            && !self.has_head_under_way()
    }

    fn has_taken_space(&self) -> bool {
        self.entries_bytes() * EARLY_END_PARTS >= self.config.segment_bytes
    }

    /// Bytes of the segment in use behind its head.
    fn entries_bytes(&self) -> u64 {
        self.current.used_bytes - self.head_bytes
    }

    /// True if a flush of the shards that pin the log lets it give space back: they need a segment before the one in
    /// use, or that one could end early, and their tables take less than half of that.
    pub(super) fn would_give_back(&self) -> bool {
        let is_behind = self.live.oldest() < self.current.sequence;
        if self.ready.is_none() || !is_behind && !self.has_taken_space() {
            return false;
        }
        let pinning = self.live.pinning();
        let wanted_bytes = pinning.len() as u64 * SMALLEST_TABLE_BYTES * 2;
        if !is_behind {
            return wanted_bytes <= self.entries_bytes();
        }
        let wanted = wanted_bytes.div_ceil(self.config.segment_bytes) as usize;
        self.live.pinned(&pinning).take(wanted).count() == wanted
    }

    fn fits(&self, batch: &BatchBuilder) -> bool {
        self.current.used_bytes + batch.disk_bytes() as u64 + SEAL_BYTES <= self.config.segment_bytes
    }

    /// How far the log has come, in bytes of segments, with what waits to be written. It never falls.
    pub(super) fn position_bytes(&self) -> u64 {
        let begun_bytes = self.current.sequence.0 * self.config.segment_bytes;
        begun_bytes + self.current.used_bytes + self.backlog_bytes() as u64
    }

    /// Bytes of segments that will be made next: until one is in reserve and could be followed by another, and what the
    /// one in use has taken.
    pub(super) fn unmade_bytes(&self) -> u64 {
        let has_space = self.ready.is_some() || self.is_filling;
        let there = u64::from(has_space) + self.live.recyclable_count();
        let wanted_bytes = self.current.used_bytes + 2 * self.config.segment_bytes;
        wanted_bytes.saturating_sub(there * self.config.segment_bytes)
    }

    /// True when no segment is in reserve.
    pub(super) fn wants_segment(&self) -> bool {
        self.ready.is_none()
    }

    /// True when the segment in reserve is the last one that there is space for.
    pub(super) fn is_last(&self) -> bool {
        self.ready.as_ref().is_some_and(|next| next.is_last)
    }

    /// Is the segment in reserve the last one that there is space for?
    pub(super) fn note_last(&mut self, is_last: bool) {
        if let Some(next) = &mut self.ready {
            next.is_last = is_last;
        }
    }

    /// Puts a new segment in reserve; gives it back when the log has ended meanwhile.
    pub(super) fn provide_segment(&mut self, segment: Segment, is_last: bool) -> Option<Segment> {
        self.is_filling = false;
        if self.status != Status::Running {
            return Some(segment);
        }
        self.is_none_made = false;
        let replaced = self.ready.replace(InReserve { segment, is_last });
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
        files.extend(self.ready.take().map(|next| next.segment.file));
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
        if flags & FLAG_HEAD != 0 {
            self.head_bytes = self.current.used_bytes;
        }
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
