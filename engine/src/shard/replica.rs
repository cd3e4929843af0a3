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
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::raft::{EntryId, Input, LogIndex, Outputs, Raft};
use ostrakon_core::sessions::{Answer, Failure, Lookup, Retry, Sessions};
use ostrakon_wire::routing::ShardId;

use super::command::{Body, CEILING_BYTES, Command, retry_of};
use super::context::CoreContext;
use super::decide::{Decided, KeyWrite, Rests, Write};
use super::fetched::{Fetched, Missing};
use super::in_flight::{Entry, InFlight, Newest};
use super::recovering::{Applied, applied};
use super::{Completions, ReadId, Refusal, Ticket};
use crate::limits::{SHARD_IN_FLIGHT_MAX, SHARD_WAITERS_MAX};
use crate::log::DurableBatch;
use crate::log::format::OwnershipEpoch;
use crate::storage::memtable::MEMORY_BYTES_MAX;
use crate::storage::store::files::ShardFiles;
use crate::storage::store::tables::Tables;
use crate::storage::store::{Look, Store};

/// What became of a write at once.
pub enum WriteOutcome {
    /// Its ticket comes out of [`Completions`].
    Pending,
    /// It needs no entry: decided before, or decided against and of a kind that is not sent again.
    Decided(Answer),
    /// Nothing was done: to decide it, these have to be read.
    Lacks(Vec<Missing>),
}

/// Whether a key can be read at a moment.
pub enum Readiness {
    /// It can.
    Readable,
    /// Not before [`Completions::read_ready`].
    Waits,
    /// It is not known before this was read.
    Lacks(Missing),
}

/// Why a write is not decided for.
enum Undecided {
    Against(Failure, Rests),
    Lacks(Vec<Missing>),
    Refused(Refusal),
}

pub(super) enum Waiter {
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
    pub(super) shard: ShardId,
    pub(super) files: Rc<ShardFiles>,
    pub(super) epoch: OwnershipEpoch,
    pub(super) raft: Raft,
    pub(super) outputs: Outputs,
    pub(super) applied: Applied,
    /// The entry that was applied last.
    pub(super) applied_through: EntryId,
    /// The entry at which the memtable was sealed last.
    pub(super) sealed_through: EntryId,
    pub(super) in_flight: InFlight,
    pub(super) waiters: BTreeMap<LogIndex, Vec<Waiter>>,
    pub(super) waiter_count: usize,
    /// What the proposals in flight may come to need of the memory.
    pub(super) reserved_bytes: usize,
    pub(super) proposed_ceiling: Timestamp,
    /// What the clock showed when it was proposed.
    pub(super) ceiling_proposed_at: Timestamp,
    /// Writes that came again and were answered from memory.
    pub(super) deduplicated: u64,
}

impl ShardReplica {
    /// A replica that has just begun to campaign. Entries up to the first of these are applied, up to the second in
    /// tables or sealed.
    pub(super) fn new(
        files: Rc<ShardFiles>,
        epoch: OwnershipEpoch,
        raft: Raft,
        (applied_through, sealed_through): (EntryId, EntryId),
        applied: Applied,
    ) -> ShardReplica {
        ShardReplica {
            shard: files.shard(),
            files,
            applied_through,
            sealed_through,
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

    /// Proposes a write, or answers what was or is decided about it, or says what has to be read for that; it then
    /// comes again with what was read.
    ///
    /// # Errors
    /// Why it was refused; then nothing was done.
    pub fn write(
        &mut self,
        core: &mut CoreContext,
        write: &Write<'_>,
        fetched: &Fetched,
    ) -> Result<WriteOutcome, Refusal> {
        if let Some(outcome) = self.begin_write(core, write.ticket, write.retry.as_ref())? {
            return Ok(outcome);
        }
        let is_delete = write.keys.iter().all(KeyWrite::is_delete);
        let sizes = (write.payload_bytes_max(), write.cost_bytes());
        let reserved_bytes = self.admit(core, sizes, is_delete)?;
        let at = core.hlc.now(core.wall_us);
        let mut decided = core::mem::take(&mut core.decided);
        let outcome = match self.decide(core, write.keys, at, fetched, &mut decided) {
            Ok(rests) if write.changes_nothing() && write.retry.is_none() => {
                Ok(self.answer_resting(core, rests, at, write.ticket, applied(Timestamp::ZERO, &[])))
            }
            Ok(_) => {
                self.propose_write(core, write, at, &decided, reserved_bytes);
                Ok(WriteOutcome::Pending)
            }
            Err(Undecided::Against(failure, rests)) => Ok(match &write.retry {
                None => self.answer_resting(core, rests, at, write.ticket, Answer::Failed(failure)),
                Some(retry) => {
                    self.propose_failure(core, (retry, failure), at, write.ticket, reserved_bytes);
                    WriteOutcome::Pending
                }
            }),
            Err(Undecided::Lacks(missing)) => Ok(WriteOutcome::Lacks(missing)),
            Err(Undecided::Refused(refusal)) => Err(refusal),
        };
        decided.clear();
        core.decided = decided;
        outcome
    }

    /// Makes a key readable at the moment `now`, to which the core's clock has moved. [`Readiness::Waits`] says to wait
    /// until [`Completions::read_ready`], and then to read at the snapshot `now`. That is so if the key's version has
    /// expired, and no ceiling covers the expiry yet, or a write is in flight that came before the expiry: then the key
    /// never was absent.
    ///
    /// # Errors
    /// As for [`ShardReplica::prepare_read`], and [`Refusal::Unreadable`].
    pub fn prepare_get(
        &mut self,
        core: &mut CoreContext,
        (hash, key): (u64, &[u8]),
        now: Timestamp,
        read: ReadId,
        fetched: &Fetched,
    ) -> Result<Readiness, Refusal> {
        let newest = self.look_up(core, (hash, key), Timestamp::MAX, fetched)?;
        if let Look::Unknown(tables) = newest {
            return Ok(Readiness::Lacks(self.missing(
                (hash, key),
                Timestamp::MAX,
                tables,
            )));
        }
        let expiry = newest.version().and_then(|version| version.expiry);
        let Some(expiry) = expiry.filter(|expiry| *expiry <= now) else {
            return Ok(Readiness::Readable);
        };
        let is_settled =
            expiry <= self.applied.ceiling && !self.in_flight.has_below(&core.log, hash, key, expiry);
        if is_settled {
            return Ok(Readiness::Readable);
        }
        self.cover(core, now, read)?;
        Ok(Readiness::Waits)
    }

    /// The newest version of a key at or below a snapshot that [`ShardReplica::prepare_read`] or
    /// [`ShardReplica::prepare_get`] made safe, or at [`Timestamp::MAX`].
    ///
    /// # Errors
    /// [`Refusal::Unreadable`]; [`Refusal::Busy`] if the read has waited for so long that versions of its time may have
    /// been dropped.
    #[inline]
    pub fn look_up(
        &self,
        core: &CoreContext,
        key: (u64, &[u8]),
        snapshot: Timestamp,
        fetched: &Fetched,
    ) -> Result<Look<'_>, Refusal> {
        if snapshot < self.applied.watermark {
            return Err(Refusal::Busy);
        }
        let scratch = &mut core.scratch.borrow_mut();
        fetched
            .look(&self.applied.store, key, snapshot, scratch)
            .map_err(|error| Refusal::from(&error))
    }

    /// What is to be read for a look that came to [`Look::Unknown`].
    pub fn missing(&self, (hash, key): (u64, &[u8]), snapshot: Timestamp, tables: Rc<Tables>) -> Missing {
        Missing {
            shard: self.shard,
            hash,
            key: key.to_vec(),
            snapshot,
            tables,
            flushes: self.applied.store.flushes(),
        }
    }

    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Its files.
    pub fn files(&self) -> &Rc<ShardFiles> {
        &self.files
    }

    /// The versions of its keys, for reads at a snapshot that [`ShardReplica::prepare_read`] made safe.
    pub fn store(&self) -> &Store {
        &self.applied.store
    }

    /// Nobody reads below this.
    pub fn watermark(&self) -> Timestamp {
        self.applied.watermark
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

    /// Seals the memtable, if it has taken an entry since the last time; false if not.
    pub(super) fn seal(&mut self, core: &mut CoreContext) -> bool {
        if self.applied_through.index <= self.sealed_through.index {
            return false;
        }
        let before = (self.memory_bytes(), self.applied.store.sealed_bytes());
        self.applied.seal(self.applied_through);
        self.sealed_through = self.applied_through;
        self.count_memory(core, before);
        true
    }

    /// The oldest sealed memtable has become a table.
    pub(super) fn flushed(&mut self, core: &mut CoreContext, tables: Rc<Tables>) {
        let before = (self.memory_bytes(), self.applied.store.sealed_bytes());
        self.applied.store.flushed(tables);
        self.count_memory(core, before);
    }

    /// Tables were merged.
    pub(super) fn merged(&mut self, tables: Rc<Tables>) {
        self.applied.store.merged(tables);
    }

    /// What was counted before has become what is there now.
    fn count_memory(&self, core: &mut CoreContext, (before_bytes, sealed_before_bytes): (usize, usize)) {
        core.memory.changed(before_bytes, self.memory_bytes());
        let sealed_bytes = core.memory.sealed_bytes + self.applied.store.sealed_bytes();
        core.memory.sealed_bytes = sealed_bytes - sealed_before_bytes;
    }

    /// Makes the shard readable at `snapshot`: nothing will be written at or below it any more, and
    /// everything in flight at or below it is applied. Returns false if the read has to wait until
    /// [`Completions::read_ready`].
    ///
    /// # Errors
    /// [`Refusal::Busy`] when too many reads wait, [`Refusal::DiskFull`] when what the read must wait for finds no
    /// room in the log, [`Refusal::SnapshotTooOld`].
    pub fn prepare_read(
        &mut self,
        core: &mut CoreContext,
        snapshot: Timestamp,
        read: ReadId,
    ) -> Result<bool, Refusal> {
        if snapshot < self.applied.watermark {
            return Err(Refusal::SnapshotTooOld);
        }
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
            self.applied.store.active().prefetch(key.hash);
        }
    }

    /// The second step of [`ShardReplica::prefetch_slots`]: asks for the keys' records.
    pub fn prefetch_records(&self, last: LogIndex) {
        for key in self.in_flight.keys_through(last) {
            self.applied.store.active().prefetch_node(key.hash);
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
        // All that is in flight was proposed by this leader, in its term.
        self.applied_through = EntryId {
            term: self.raft.hard_state().term,
            index: through,
        };
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

    /// Asks whether a write may be carried out at all. `Some` is what is to be said to one that was here before.
    pub(super) fn begin_write(
        &mut self,
        core: &CoreContext,
        ticket: Ticket,
        retry: Option<&Retry>,
    ) -> Result<Option<WriteOutcome>, Refusal> {
        if core.log.has_failed() {
            return Err(Refusal::CoreFailed);
        }
        let Some(retry) = retry else { return Ok(None) };
        if core.is_sent_ahead(retry.first_sent) {
            return Err(Refusal::SentAhead);
        }
        self.was_here(ticket, retry)
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

    /// The memory that a write may come to need, of which upper bounds of its payload and of that memory are given.
    pub(super) fn admit(
        &mut self,
        core: &mut CoreContext,
        sizes: (usize, usize),
        is_delete: bool,
    ) -> Result<usize, Refusal> {
        let admitted = self.find_room(core, sizes, is_delete);
        // What room a full log has is for deletes, unless sessions keep these out.
        let may_be_for_sessions = match admitted {
            Err(Refusal::MemoryFull) => true,
            Err(Refusal::DiskFull) => core.is_full_for(sizes, true),
            _ => false,
        };
        if may_be_for_sessions {
            self.forget_sessions(core);
        }
        admitted
    }

    fn find_room(
        &self,
        core: &mut CoreContext,
        (payload_bytes, cost_bytes): (usize, usize),
        is_delete: bool,
    ) -> Result<usize, Refusal> {
        // A place for the ceiling entry that may precede the write.
        if self.in_flight.len() + 1 >= SHARD_IN_FLIGHT_MAX
            || self.waiter_count >= SHARD_WAITERS_MAX
            || core.log.is_backlogged()
        {
            return Err(Refusal::Busy);
        }
        if payload_bytes > core.log.payload_bytes_max() {
            return Err(Refusal::TooLarge);
        }
        let ceiling_and_delete = [CEILING_BYTES, payload_bytes];
        let log = &core.log;
        let finds_room =
            !log.is_disk_full() || is_delete && log.has_room_for_delete(self.shard, &ceiling_and_delete);
        if !finds_room || core.is_full_for((payload_bytes, cost_bytes), is_delete) {
            return Err(Refusal::DiskFull);
        }
        let memory = &core.memory;
        let budget_bytes = memory.budget_bytes(is_delete);
        let core_is_full = memory.used_bytes + memory.reserved_bytes + cost_bytes > budget_bytes;
        let table_bytes = self.applied.store.active().memory_bytes() + self.reserved_bytes + cost_bytes;
        if core_is_full || table_bytes > MEMORY_BYTES_MAX {
            // What is proposed is applied, and then sealed and flushed. Sessions stay.
            let will_pass =
                memory.sealed_bytes > 0 || memory.reserved_bytes > 0 || table_bytes > MEMORY_BYTES_MAX;
            if !will_pass {
                return Err(Refusal::MemoryFull);
            }
            core.stalled_writes += 1;
            return Err(Refusal::Busy);
        }
        Ok(cost_bytes)
    }

    /// Decides about all keys of a write, or against it by the first that fails.
    fn decide(
        &self,
        core: &CoreContext,
        keys: &[KeyWrite<'_>],
        at: Timestamp,
        fetched: &Fetched,
        decided: &mut Vec<Decided>,
    ) -> Result<Rests, Undecided> {
        let mut rests = Rests::default();
        let mut missing = Vec::new();
        for (operation, key) in keys.iter().enumerate() {
            if !key.looks() {
                decided.push(key.decide_unseen(at));
                continue;
            }
            let decision = self.look(core, key, at, fetched, |newest| {
                rests.on(newest, at);
                key.decide(newest, at, operation as u32)
            });
            match decision {
                // All that is missing is read at once.
                Err(Undecided::Lacks(of_key)) => missing.extend(of_key),
                Err(other) => return Err(other),
                Ok(_) if !missing.is_empty() => {}
                Ok(Ok(decision)) => decided.push(decision),
                Ok(Err(failure)) => return Err(Undecided::Against(failure, rests)),
            }
        }
        if missing.is_empty() {
            Ok(rests)
        } else {
            Err(Undecided::Lacks(missing))
        }
    }

    /// Shows the newest version of a key, in flight or applied, as it is at the moment `at`.
    fn look<R>(
        &self,
        core: &CoreContext,
        key: &KeyWrite<'_>,
        at: Timestamp,
        fetched: &Fetched,
        look: impl FnOnce(&Newest<'_>) -> R,
    ) -> Result<R, Undecided> {
        let own = self.in_flight.find(&core.log, key.hash, key.key);
        let deleted = self.in_flight.range_over(key.key);
        if deleted > own.map(|(entry, _)| entry.index) {
            return Ok(look(&Newest {
                found: None,
                expiry: None,
                index: deleted,
            }));
        }
        if let Some((entry, pending)) = own {
            return Ok(core
                .log
                .with_payload(entry.place, |payload| look(&pending.newest(entry, payload, at))));
        }
        let found = self
            .look_up(core, (key.hash, key.key), Timestamp::MAX, fetched)
            .map_err(Undecided::Refused)?;
        if let Look::Unknown(tables) = found {
            let missing = self.missing((key.hash, key.key), Timestamp::MAX, tables);
            return Err(Undecided::Lacks(vec![missing]));
        }
        let version = found.version();
        Ok(look(&Newest {
            found: version.and_then(|version| Some((version.timestamp, version.live_value(at)?))),
            expiry: version.and_then(|version| version.expiry),
            index: None,
        }))
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
                Body::Ceiling { horizon, watermark } => {
                    return self
                        .applied
                        .advance_ceiling(command.timestamp, horizon, watermark);
                }
                Body::DeleteRange { start, end } => {
                    self.applied.store.insert_range(start, end, entry.timestamp);
                    applied(entry.timestamp, &[])
                }
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

    pub(super) fn wait(&mut self, index: LogIndex, waiter: Waiter) {
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

    pub(super) fn step(&mut self, input: Input) {
        self.raft
            .step(input, &mut self.outputs)
            .expect("the only voter leads once its vote is durable");
    }
}
