//! One shard replica: Raft state, memtable, sessions, and the proposals in flight between them.
//!
//! Invariants:
//! - Timestamps in flight and in the memtable rise with the index; none exceeds the ceiling that precedes it in the
//!   log, so none is given out twice, not by this leader nor by the next.
//! - A write is decided against the newest versions of its keys, in flight or applied. An answer that rests on an
//!   entry in flight waits until that entry is applied.
//! - An answer that rests on an expiry waits until the ceiling is at or above that moment: no later leader, whatever
//!   its wall clock shows, sees the value again.
//! - A write that can be sent again makes an entry whatever is decided about it, and is decided once.

use std::collections::BTreeMap;

use ostrakon_core::hlc::{Hlc, MICROS_MAX, Timestamp};
use ostrakon_core::raft::{Input, LogIndex, Outputs, Raft};
use ostrakon_core::sessions::{Answer, Failure, Lookup, Retry, Sessions};
use ostrakon_wire::routing::ShardId;

use super::command::{Body, CEILING_BYTES, Command, Head, append_operation, retry_of};
use super::decide::{Decided, KeyWrite, Rests, Write};
use super::in_flight::{Entry, InFlight, Newest, PendingKey};
use super::recovering::{Applied, applied};
use super::{Completions, ReadId, Refusal, Ticket};
use crate::limits::{
    CEILING_AHEAD_US, CEILING_STEP_US, DELETE_RESERVE_PARTS, FORGET_EVERY_US, RETRY_HORIZON_US,
    SENT_AHEAD_MAX_US, SHARD_IN_FLIGHT_MAX, SHARD_WAITERS_MAX,
};
use crate::log::format::OwnershipEpoch;
use crate::log::{DurableBatch, EntryPlace, Log};
use crate::storage::memtable::{MEMORY_BYTES_MAX, Memtable};

/// What the replicas of a core share.
pub struct CoreContext {
    /// The core's log.
    pub log: Log,
    /// The core's clock.
    pub hlc: Hlc,
    /// Wall time of this turn, in microseconds.
    pub wall_us: u64,
    /// The core's memory.
    pub memory: MemoryBudget,
    /// Empty between two calls; kept for its allocation, as are the next two.
    pub(super) decided: Vec<Decided>,
    pub(super) operations: Vec<u8>,
    pub(super) numbers: Vec<i64>,
}

impl CoreContext {
    /// Is this, the time of a write's first sending, too far ahead? A session lives until the horizon has passed it, so
    /// it must be about now; clients estimate it.
    pub(super) fn is_sent_ahead(&self, first_sent: Timestamp) -> bool {
        let clock_us = self.hlc.peek().micros().max(self.wall_us);
        first_sent.micros() > clock_us.saturating_add(SENT_AHEAD_MAX_US)
    }
}

/// Bytes that the shards of a core take and may take.
#[derive(Debug)]
pub struct MemoryBudget {
    /// The bound.
    pub budget_bytes: usize,
    /// What memtables and sessions hold.
    pub used_bytes: usize,
    /// What the proposals in flight may come to need.
    pub reserved_bytes: usize,
}

impl MemoryBudget {
    /// The bound for a write: deletes go on for a while when puts no longer can.
    fn budget_bytes(&self, is_delete: bool) -> usize {
        if is_delete {
            self.budget_bytes
        } else {
            self.budget_bytes - self.budget_bytes / DELETE_RESERVE_PARTS
        }
    }

    fn changed(&mut self, before_bytes: usize, after_bytes: usize) {
        self.used_bytes = self.used_bytes + after_bytes - before_bytes;
    }
}

/// What became of a write at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// Its ticket comes out of [`Completions`].
    Pending,
    /// It needs no entry: decided before, or decided against and of a kind that is not sent again.
    Decided(Answer),
}

enum Waiter {
    /// Decided, on grounds that are not applied yet.
    Decided {
        ticket: Ticket,
        answer: Answer,
    },
    /// Sent again while it was in flight.
    Again {
        ticket: Ticket,
        retry: Retry,
    },
    Read(ReadId),
}

/// One replica of a shard.
pub struct ShardReplica {
    shard: ShardId,
    epoch: OwnershipEpoch,
    raft: Raft,
    outputs: Outputs,
    applied: Applied,
    in_flight: InFlight,
    waiters: BTreeMap<LogIndex, Vec<Waiter>>,
    waiter_count: usize,
    /// What the proposals in flight may come to need of the memory.
    reserved_bytes: usize,
    proposed_ceiling: Timestamp,
    /// What the clock showed when it was proposed.
    ceiling_proposed_at: Timestamp,
    /// Writes that came again and were answered from memory.
    deduplicated: u64,
}

impl ShardReplica {
    /// A replica that has just begun to campaign.
    pub(super) fn new(shard: ShardId, epoch: OwnershipEpoch, raft: Raft, applied: Applied) -> ShardReplica {
        ShardReplica {
            shard,
            epoch,
            raft,
            outputs: Outputs::default(),
            proposed_ceiling: applied.ceiling,
            ceiling_proposed_at: Timestamp::ZERO,
            applied,
            in_flight: InFlight::default(),
            waiters: BTreeMap::new(),
            waiter_count: 0,
            reserved_bytes: 0,
            deduplicated: 0,
        }
    }

    /// Its vote is on stable storage: it leads, and proposes the first entry of its term.
    pub fn hard_state_durable(&mut self, core: &mut CoreContext) {
        let term = self.raft.hard_state().term;
        self.step(Input::HardStateDurable { term });
        let became_leader = self.outputs.became_leader;
        self.outputs.clear();
        if became_leader {
            let now = core.hlc.now(core.wall_us);
            self.propose_ceiling(core, now);
        }
    }

    /// True once it leads and has applied an entry of its own term.
    pub fn may_serve(&self) -> bool {
        self.raft.may_serve()
    }

    /// Proposes a write, or answers what was or is decided about it.
    ///
    /// # Errors
    /// Why it was refused; then nothing was done.
    pub fn write(&mut self, core: &mut CoreContext, write: &Write<'_>) -> Result<WriteOutcome, Refusal> {
        if core.log.has_failed() {
            return Err(Refusal::CoreFailed);
        }
        if let Some(retry) = &write.retry {
            if core.is_sent_ahead(retry.first_sent) {
                return Err(Refusal::SentAhead);
            }
            if let Some(outcome) = self.was_here(write.ticket, retry)? {
                return Ok(outcome);
            }
        }
        let reserved_bytes = match self.admit(core, write) {
            Err(Refusal::MemoryFull) => {
                self.forget_sessions(core);
                return Err(Refusal::MemoryFull);
            }
            admitted => admitted?,
        };
        let at = core.hlc.now(core.wall_us);
        let mut decided = core::mem::take(&mut core.decided);
        let outcome = match self.decide(&core.log, write.keys, at, &mut decided) {
            Ok(rests) if write.changes_nothing() && write.retry.is_none() => {
                Ok(self.answer_resting(core, rests, at, write.ticket, applied(Timestamp::ZERO, &[])))
            }
            Ok(_) => {
                self.propose_write(core, write, at, &decided, reserved_bytes);
                Ok(WriteOutcome::Pending)
            }
            Err((failure, rests)) => Ok(match &write.retry {
                None => self.answer_resting(core, rests, at, write.ticket, Answer::Failed(failure)),
                Some(retry) => {
                    self.propose_failure(core, (retry, failure), at, write.ticket, reserved_bytes);
                    WriteOutcome::Pending
                }
            }),
        };
        decided.clear();
        core.decided = decided;
        outcome
    }

    /// Makes a key readable at the moment `now`, to which the core's clock has moved: returns false if the read has to
    /// wait until [`Completions::read_ready`], and then to read at the snapshot `now`. That is so if the key's version
    /// has expired, and no ceiling covers the expiry yet, or a write is in flight that came before the expiry: then the
    /// key never was absent.
    ///
    /// # Errors
    /// As for [`ShardReplica::prepare_read`].
    pub fn prepare_get(
        &mut self,
        core: &mut CoreContext,
        (hash, key): (u64, &[u8]),
        now: Timestamp,
        read: ReadId,
    ) -> Result<bool, Refusal> {
        let newest = self.applied.memtable.newest(hash, key);
        let Some(expiry) = newest
            .and_then(|version| version.expiry)
            .filter(|expiry| *expiry <= now)
        else {
            return Ok(true);
        };
        let is_settled =
            expiry <= self.applied.ceiling && !self.in_flight.has_below(&core.log, hash, key, expiry);
        if !is_settled {
            self.cover(core, now, read)?;
        }
        Ok(is_settled)
    }

    /// The memtable, for reads at a snapshot that [`ShardReplica::prepare_read`] made safe.
    pub fn memtable(&self) -> &Memtable {
        &self.applied.memtable
    }

    /// The table of retries.
    pub fn sessions(&self) -> &Sessions {
        &self.applied.sessions
    }

    /// Writes that came again and were answered from memory, since the start.
    pub fn deduplicated(&self) -> u64 {
        self.deduplicated
    }

    /// What it takes of the memory budget.
    pub fn memory_bytes(&self) -> usize {
        self.applied.memory_bytes()
    }

    /// Makes the shard readable at `snapshot`: nothing will be written at or below it any more, and
    /// everything in flight at or below it is applied. Returns false if the read has to wait until
    /// [`Completions::read_ready`].
    ///
    /// # Errors
    /// [`Refusal::Busy`] when too many reads wait, [`Refusal::DiskFull`] when what the read must wait for finds no
    /// room in the log.
    pub fn prepare_read(
        &mut self,
        core: &mut CoreContext,
        snapshot: Timestamp,
        read: ReadId,
    ) -> Result<bool, Refusal> {
        core.hlc.observe(snapshot);
        if snapshot <= self.proposed_ceiling && self.in_flight.len() == 0 {
            return Ok(true);
        }
        self.cover(core, snapshot, read)?;
        Ok(false)
    }

    /// Before entries up to `last` are applied: asks for the memory of their index slots.
    pub fn prefetch_slots(&self, last: LogIndex) {
        for key in self.in_flight.keys_through(last) {
            self.applied.memtable.prefetch(key.hash);
        }
    }

    /// The second step of [`ShardReplica::prefetch_slots`]: asks for the keys' records.
    pub fn prefetch_records(&self, last: LogIndex) {
        for key in self.in_flight.keys_through(last) {
            self.applied.memtable.prefetch_node(key.hash);
        }
    }

    /// The log has this batch, with entries of this shard up to `last`, on stable storage.
    pub fn log_durable(
        &mut self,
        core: &mut CoreContext,
        batch: &DurableBatch<'_>,
        last: LogIndex,
        completions: &mut dyn Completions,
    ) {
        self.step(Input::LogDurable { through: last });
        let raft_committed = self.outputs.raft_committed;
        self.outputs.clear();
        let Some(through) = raft_committed else { return };
        let before_bytes = self.memory_bytes();
        while let Some(entry) = self.in_flight.pop_through(through) {
            core.memory.reserved_bytes -= entry.reserved_bytes;
            self.reserved_bytes -= entry.reserved_bytes;
            self.apply(&entry, batch, &mut core.numbers, completions);
        }
        core.memory.changed(before_bytes, self.memory_bytes());
        self.step(Input::Applied { through });
        self.release_waiters(through, completions);
    }

    /// Proposals that are not applied yet.
    pub fn in_flight_count(&self) -> usize {
        self.in_flight.len()
    }

    /// Takes every ticket that still waits, when the log has failed and no answer will come.
    pub fn take_tickets(&mut self) -> Vec<Ticket> {
        let mut tickets: Vec<Ticket> = self.in_flight.take_tickets().collect();
        for waiter in core::mem::take(&mut self.waiters).into_values().flatten() {
            match waiter {
                Waiter::Decided { ticket, .. } | Waiter::Again { ticket, .. } => tickets.push(ticket),
                // Whoever reads keeps a list of its own.
                Waiter::Read(_) => {}
            }
        }
        self.waiter_count = 0;
        tickets
    }

    /// What is to be said to a write that may have been here before; `None` if it was not.
    fn was_here(&mut self, ticket: Ticket, retry: &Retry) -> Result<Option<WriteOutcome>, Refusal> {
        let index = match self.applied.sessions.look_up(retry) {
            Lookup::New => return Ok(None),
            Lookup::Answered(answer) => {
                let answer = answer.clone();
                self.deduplicated += 1;
                return Ok(Some(WriteOutcome::Decided(answer)));
            }
            Lookup::InFlight(index) => index,
            Lookup::OutcomeUnknown => return Err(Refusal::OutcomeUnknown),
            Lookup::WindowExceeded => return Err(Refusal::SessionWindow),
            Lookup::BadRequest => return Err(Refusal::RetryAnswered),
        };
        if self.waiter_count >= SHARD_WAITERS_MAX {
            return Err(Refusal::Busy);
        }
        self.wait(
            index,
            Waiter::Again {
                ticket,
                retry: *retry,
            },
        );
        Ok(Some(WriteOutcome::Pending))
    }

    /// The memory that the write may come to need.
    fn admit(&self, core: &CoreContext, write: &Write<'_>) -> Result<usize, Refusal> {
        // A place for the ceiling entry that may precede the write.
        if self.in_flight.len() + 1 >= SHARD_IN_FLIGHT_MAX
            || self.waiter_count >= SHARD_WAITERS_MAX
            || core.log.is_backlogged()
        {
            return Err(Refusal::Busy);
        }
        let payload_bytes = write.payload_bytes_max();
        let cost_bytes = write.cost_bytes();
        if payload_bytes > core.log.payload_bytes_max() {
            return Err(Refusal::TooLarge);
        }
        let is_delete = write.keys.iter().all(KeyWrite::is_delete);
        let ceiling_and_delete = [CEILING_BYTES, payload_bytes];
        let log = &core.log;
        if log.is_disk_full() && !(is_delete && log.has_room_for_delete(self.shard, &ceiling_and_delete)) {
            return Err(Refusal::DiskFull);
        }
        let memory = &core.memory;
        let budget_bytes = memory.budget_bytes(is_delete);
        let core_is_full = memory.used_bytes + memory.reserved_bytes + cost_bytes > budget_bytes;
        let table_bytes = self.applied.memtable.memory_bytes() + self.reserved_bytes + cost_bytes;
        if core_is_full || table_bytes > MEMORY_BYTES_MAX {
            return Err(Refusal::MemoryFull);
        }
        Ok(cost_bytes)
    }

    /// Decides about all keys of a write, or against it by the first that fails.
    fn decide(
        &self,
        log: &Log,
        keys: &[KeyWrite<'_>],
        at: Timestamp,
        decided: &mut Vec<Decided>,
    ) -> Result<Rests, (Failure, Rests)> {
        let mut rests = Rests::default();
        for (operation, key) in keys.iter().enumerate() {
            if !key.looks() {
                decided.push(key.decide_unseen(at));
                continue;
            }
            let decision = self.look(log, key, at, |newest| {
                rests.on(newest, at);
                key.decide(newest, at, operation as u32)
            });
            decided.push(decision.map_err(|failure| (failure, rests))?);
        }
        Ok(rests)
    }

    /// Shows the newest version of a key, in flight or applied, as it is at the moment `at`.
    fn look<R>(
        &self,
        log: &Log,
        key: &KeyWrite<'_>,
        at: Timestamp,
        look: impl FnOnce(&Newest<'_>) -> R,
    ) -> R {
        if let Some((entry, pending)) = self.in_flight.find(log, key.hash, key.key) {
            return log.with_payload(entry.place, |payload| look(&pending.newest(entry, payload, at)));
        }
        let version = self.applied.memtable.newest(key.hash, key.key);
        look(&Newest {
            found: version.and_then(|version| Some((version.timestamp, version.live_value(at)?))),
            expiry: version.and_then(|version| version.expiry),
            index: None,
        })
    }

    /// Answers without an entry: at once, or when what the answer rests on is applied.
    fn answer_resting(
        &mut self,
        core: &mut CoreContext,
        rests: Rests,
        at: Timestamp,
        ticket: Ticket,
        answer: Answer,
    ) -> WriteOutcome {
        let mut index = rests.index;
        if rests.expiry.is_some_and(|expiry| expiry > self.applied.ceiling) {
            if at > self.proposed_ceiling {
                self.propose_ceiling(core, at);
            }
            index = self.in_flight.last_index();
        }
        match index {
            None => WriteOutcome::Decided(answer),
            Some(index) => {
                self.wait(index, Waiter::Decided { ticket, answer });
                WriteOutcome::Pending
            }
        }
    }

    /// Proposes the entry of a write that was decided for.
    fn propose_write(
        &mut self,
        core: &mut CoreContext,
        write: &Write<'_>,
        at: Timestamp,
        decided: &[Decided],
        reserved_bytes: usize,
    ) {
        self.cover_timestamp(core, at);
        let changes = || {
            let keys = write.keys.iter().zip(decided);
            keys.filter_map(|(key, decided)| Some((key, key.change(decided)?)))
        };
        let retry = write.retry.as_ref();
        let mut all = changes();
        let (index, key_count) = if let (Some((key, change)), None) = (all.next(), all.next()) {
            let head = Head::of_write(at, retry, key.key, &change);
            let key_at = head.as_bytes().len();
            let (index, place) = self.append(&core.log, &[head.as_bytes(), key.key, change.value()]);
            self.in_flight
                .push_key(PendingKey::new(key.hash, index, key_at, key.key, &change));
            ((index, place), 1)
        } else {
            let head = Head::of_batch(at, retry, changes().count());
            let mut operations = core::mem::take(&mut core.operations);
            let mut key_places = Vec::with_capacity(write.keys.len());
            for (key, change) in changes() {
                append_operation(&mut operations, key.key, &change);
                let behind = key.key.len() + change.value().len();
                key_places.push(head.as_bytes().len() + operations.len() - behind);
            }
            let (index, place) = self.append(&core.log, &[head.as_bytes(), &operations]);
            for ((key, change), key_at) in changes().zip(&key_places) {
                self.in_flight
                    .push_key(PendingKey::new(key.hash, index, *key_at, key.key, &change));
            }
            operations.clear();
            core.operations = operations;
            ((index, place), key_places.len())
        };
        self.note_proposed(
            core,
            index,
            (at, key_count),
            write.retry.as_ref(),
            write.ticket,
            reserved_bytes,
        );
    }

    /// Proposes the entry of a write that was decided against.
    fn propose_failure(
        &mut self,
        core: &mut CoreContext,
        (retry, failure): (&Retry, Failure),
        at: Timestamp,
        ticket: Ticket,
        reserved_bytes: usize,
    ) {
        self.cover_timestamp(core, at);
        let head = Head::of_failure(at, retry, &failure);
        let place = self.append(&core.log, &[head.as_bytes()]);
        self.note_proposed(core, place, (at, 0), Some(retry), ticket, reserved_bytes);
    }

    fn note_proposed(
        &mut self,
        core: &mut CoreContext,
        (index, place): (LogIndex, EntryPlace),
        (timestamp, key_count): (Timestamp, usize),
        retry: Option<&Retry>,
        ticket: Ticket,
        reserved_bytes: usize,
    ) {
        if let Some(retry) = retry {
            let before_bytes = self.applied.sessions.memory_bytes();
            self.applied.sessions.proposed(retry, index);
            core.memory
                .changed(before_bytes, self.applied.sessions.memory_bytes());
        }
        core.memory.reserved_bytes += reserved_bytes;
        self.reserved_bytes += reserved_bytes;
        self.in_flight.push(Entry {
            index,
            place,
            timestamp,
            key_count: key_count as u32,
            reserved_bytes,
            ticket: Some(ticket),
        });
    }

    /// Makes a read wait for all that is in flight, and for a ceiling at or above `at`.
    fn cover(&mut self, core: &mut CoreContext, at: Timestamp, read: ReadId) -> Result<(), Refusal> {
        if self.waiter_count >= SHARD_WAITERS_MAX {
            return Err(Refusal::Busy);
        }
        if at > self.proposed_ceiling {
            if !core.log.has_room(self.shard, &[CEILING_BYTES]) {
                return Err(Refusal::DiskFull);
            }
            self.propose_ceiling(core, at);
        }
        if core.log.is_stuck() {
            // What the read would wait for finds no room either.
            return Err(Refusal::DiskFull);
        }
        let last = self.in_flight.last_index();
        self.wait(
            last.expect("a ceiling above the applied one is in flight"),
            Waiter::Read(read),
        );
        Ok(())
    }

    /// Moves the horizon on, if nothing else did for a while: the sessions that it has passed give their memory back,
    /// and without a write nothing else moves it.
    fn forget_sessions(&mut self, core: &mut CoreContext) {
        let now = core.hlc.now(core.wall_us);
        let since_us = now.micros().saturating_sub(self.ceiling_proposed_at.micros());
        let is_due = since_us >= FORGET_EVERY_US && self.applied.sessions.session_count() > 0;
        if is_due && core.log.has_room(self.shard, &[CEILING_BYTES]) {
            self.propose_ceiling(core, now);
        }
    }

    fn cover_timestamp(&mut self, core: &mut CoreContext, at: Timestamp) {
        if at > self.proposed_ceiling {
            self.propose_ceiling(core, at);
        }
    }

    fn propose_ceiling(&mut self, core: &mut CoreContext, above: Timestamp) {
        // From the wall on: a clock begins at the last ceiling, and starts in quick succession would drive it away.
        let wall = Timestamp::from_micros(core.wall_us.min(MICROS_MAX));
        let ceiling = wall
            .saturating_plus_micros(CEILING_AHEAD_US)
            .max(above.saturating_plus_micros(CEILING_STEP_US));
        self.proposed_ceiling = ceiling;
        self.ceiling_proposed_at = above;
        let horizon = Timestamp::from_micros(above.micros().saturating_sub(RETRY_HORIZON_US));
        let head = Head::of_ceiling(ceiling, horizon);
        let (index, place) = self.append(&core.log, &[head.as_bytes()]);
        self.in_flight.push(Entry {
            index,
            place,
            timestamp: ceiling,
            key_count: 0,
            reserved_bytes: 0,
            ticket: None,
        });
    }

    fn append(&mut self, log: &Log, payload: &[&[u8]]) -> (LogIndex, EntryPlace) {
        self.step(Input::Propose);
        let entry = self.outputs.append.expect("a proposal to a leader is appended");
        self.outputs.clear();
        let place = log.append_entry(self.shard, self.epoch, entry, payload);
        (entry.index, place)
    }

    /// Applies an entry that is raft-committed, and answers whoever waits for it.
    fn apply(
        &mut self,
        entry: &Entry,
        batch: &DurableBatch<'_>,
        numbers: &mut Vec<i64>,
        completions: &mut dyn Completions,
    ) {
        let payload = batch.payload(entry.place);
        numbers.clear();
        for _ in 0..entry.key_count {
            let key = self.in_flight.pop_key();
            let change = key.change(payload);
            self.applied
                .change(key.hash, key.key(payload), entry.timestamp, &change, numbers);
        }
        let answer = if entry.key_count > 0 {
            applied(entry.timestamp, numbers)
        } else {
            let command = Command::decode(payload).expect("written by this leader");
            match command.body {
                Body::Ceiling { horizon } => return self.applied.advance_ceiling(command.timestamp, horizon),
                Body::Failure(failure) => Answer::Failed(failure),
                Body::Write { .. } | Body::Batch(_) => applied(Timestamp::ZERO, &[]),
            }
        };
        if let Some(ticket) = entry.ticket {
            completions.decided(ticket, &answer);
        }
        if let Some(retry) = retry_of(payload) {
            self.applied.sessions.apply(&retry, answer);
        }
    }

    fn wait(&mut self, index: LogIndex, waiter: Waiter) {
        self.waiters.entry(index).or_default().push(waiter);
        self.waiter_count += 1;
    }

    fn release_waiters(&mut self, through: LogIndex, completions: &mut dyn Completions) {
        while let Some(first) = self.waiters.first_entry().filter(|first| *first.key() <= through) {
            for waiter in first.remove() {
                self.waiter_count -= 1;
                match waiter {
                    Waiter::Decided { ticket, answer } => completions.decided(ticket, &answer),
                    Waiter::Again { ticket, retry } => {
                        if let Lookup::Answered(answer) = self.applied.sessions.look_up(&retry) {
                            self.deduplicated += 1;
                            completions.decided(ticket, answer);
                        } else {
                            // A later write of the session has reported its answer as received.
                            completions.refused(ticket, Refusal::OutcomeUnknown);
                        }
                    }
                    Waiter::Read(read) => completions.read_ready(read),
                }
            }
        }
    }

    fn step(&mut self, input: Input) {
        self.raft
            .step(input, &mut self.outputs)
            .expect("the only voter leads once its vote is durable");
    }
}
