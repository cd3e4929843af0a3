//! One shard replica: Raft state, memtable, and the proposals in flight between them.
//!
//! Invariants:
//! - `in_flight` holds exactly the entries after the applied index, in index order.
//! - Timestamps in `in_flight` and in the memtable rise with the index; none exceeds the ceiling that
//!   precedes it in the log, so none is given out twice, not by this leader nor by the next.
//! - A condition is decided against the newest version of its key, in flight or applied. An answer that
//!   rests on an entry in flight waits until that entry is applied.

use std::collections::{BTreeMap, VecDeque};

use ostrakon_core::hlc::{Hlc, Timestamp};
use ostrakon_core::raft::{EntryId, HardState, Input, LogIndex, Outputs, Raft, ReplicaId};
use ostrakon_wire::message::Condition;
use ostrakon_wire::routing::ShardId;

use super::command::{COMMAND_HEADER_BYTES, Command};
use super::{Completions, Refusal, ScanId, Ticket};
use crate::limits::{CEILING_AHEAD_US, DELETE_RESERVE_PARTS, SHARD_IN_FLIGHT_MAX, SHARD_WAITERS_MAX};
use crate::log::format::{OwnershipEpoch, ShardState};
use crate::log::{DurableBatch, EntryPlace, Log};
use crate::storage::memtable::{MEMORY_BYTES_MAX, Memtable, Mutation, Version};

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
}

/// Bytes that the memtables of a core take and may take.
#[derive(Debug)]
pub struct MemoryBudget {
    /// The bound.
    pub budget_bytes: usize,
    /// What the memtables hold.
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
}

/// A write as it reaches its shard.
pub struct Write<'a> {
    /// Hash of the whole key.
    pub hash: u64,
    /// The key.
    pub key: &'a [u8],
    /// The value, or `None` to delete.
    pub value: Option<&'a [u8]>,
    /// Must hold, else nothing is written.
    pub condition: Condition<'a>,
    /// Who waits.
    pub ticket: Ticket,
}

/// What became of a write at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// Its ticket comes out of [`Completions::written`].
    Pending,
    /// Its condition does not hold; the key's current version, zero when it is absent.
    ConditionFailed(Timestamp),
}

struct InFlight {
    index: LogIndex,
    place: EntryPlace,
    hash: u64,
    timestamp: Timestamp,
    key_bytes: u32,
    kind: InFlightKind,
    reserved_bytes: usize,
    ticket: Option<Ticket>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum InFlightKind {
    Put,
    Delete,
    Ceiling,
}

enum Waiter {
    ConditionFailed { ticket: Ticket, version: Timestamp },
    Scan(ScanId),
}

/// The newest version of a key, in flight or applied.
struct Newest {
    /// `None`: absent or deleted.
    version: Option<Timestamp>,
    /// The entry in flight that says so.
    in_flight: Option<LogIndex>,
}

/// A shard replica that recovery is filling.
pub struct Recovering {
    shard: ShardId,
    base: EntryId,
    last: EntryId,
    ceiling: Timestamp,
    memtable: Memtable,
}

/// One replica of a shard.
pub struct ShardReplica {
    shard: ShardId,
    epoch: OwnershipEpoch,
    raft: Raft,
    outputs: Outputs,
    memtable: Memtable,
    in_flight: VecDeque<InFlight>,
    waiters: BTreeMap<LogIndex, Vec<Waiter>>,
    waiter_count: usize,
    /// What the proposals in flight may come to need of the memtable.
    reserved_bytes: usize,
    proposed_ceiling: Timestamp,
}

impl Recovering {
    /// A shard whose log starts after `base`.
    pub fn new(shard: ShardId, base: EntryId) -> Recovering {
        Recovering {
            shard,
            base,
            last: base,
            ceiling: Timestamp::ZERO,
            memtable: Memtable::new(),
        }
    }

    /// The newest entry so far.
    pub fn last(&self) -> EntryId {
        self.last
    }

    /// Applies the next entry of the shard's log.
    ///
    /// # Errors
    /// A sentence, when the entry does not follow the one before or does not parse.
    pub fn replay(&mut self, entry: EntryId, payload: &[u8]) -> Result<(), String> {
        if entry.index != self.last.index.next() || entry.term < self.last.term {
            return Err(format!(
                "shard {}: expected entry {} of term {} or later, found entry {} of term {}",
                self.shard.0,
                self.last.index.0 + 1,
                self.last.term.0,
                entry.index.0,
                entry.term.0
            ));
        }
        let command = Command::decode(payload)
            .ok_or_else(|| format!("shard {}: entry {} does not parse", self.shard.0, entry.index.0))?;
        match command {
            Command::Ceiling { timestamp } => self.ceiling = self.ceiling.max(timestamp),
            Command::Put { .. } | Command::Delete { .. } => apply(&mut self.memtable, command),
        }
        self.last = entry;
        Ok(())
    }

    /// The replica, about to campaign: its hard state (the returned one) must be durable before
    /// [`ShardReplica::hard_state_durable`]. The core's clock moves above everything in the shard.
    pub fn finish(
        self,
        replica: ReplicaId,
        epoch: OwnershipEpoch,
        hard_state: HardState,
        hlc: &mut Hlc,
    ) -> (ShardReplica, ShardState) {
        hlc.observe(self.ceiling);
        let mut raft = Raft::recovered(replica, hard_state, self.last, self.last.index);
        let mut outputs = Outputs::default();
        raft.step(Input::Campaign, &mut outputs)
            .expect("a campaign is always accepted");
        let hard_state = outputs.hard_state.expect("a campaign has a hard state");
        outputs.clear();
        let replica = ShardReplica {
            shard: self.shard,
            epoch,
            raft,
            outputs,
            memtable: self.memtable,
            in_flight: VecDeque::new(),
            waiters: BTreeMap::new(),
            waiter_count: 0,
            reserved_bytes: 0,
            proposed_ceiling: self.ceiling,
        };
        let state = ShardState {
            hard_state,
            base: self.base,
            complete: true,
        };
        (replica, state)
    }
}

fn apply(memtable: &mut Memtable, command: Command<'_>) {
    match command {
        Command::Put {
            timestamp,
            key,
            value,
        } => {
            memtable.insert(
                super::host::memtable_hash(key),
                key,
                timestamp,
                Mutation::Put { value, expiry: None },
            );
        }
        Command::Delete { timestamp, key } => {
            memtable.insert(
                super::host::memtable_hash(key),
                key,
                timestamp,
                Mutation::Tombstone,
            );
        }
        Command::Ceiling { .. } => {}
    }
}

impl ShardReplica {
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

    /// Proposes a write, or answers that its condition does not hold.
    ///
    /// # Errors
    /// Why it was refused; then nothing was done.
    pub fn write(&mut self, core: &mut CoreContext, write: &Write<'_>) -> Result<WriteOutcome, Refusal> {
        let reserved_bytes = self.admit(core, write)?;
        if write.condition != Condition::None {
            let newest = self.newest(&core.log, write.hash, write.key);
            if !holds(write.condition, newest.version) {
                return Ok(self.condition_failed(write.ticket, &newest));
            }
        }
        let timestamp = core.hlc.now(core.wall_us);
        if timestamp > self.proposed_ceiling {
            self.propose_ceiling(core, timestamp);
        }
        let (command, kind) = match write.value {
            Some(value) => (
                Command::Put {
                    timestamp,
                    key: write.key,
                    value,
                },
                InFlightKind::Put,
            ),
            None => (
                Command::Delete {
                    timestamp,
                    key: write.key,
                },
                InFlightKind::Delete,
            ),
        };
        let payload: [&[u8]; 3] = [&command.header(), write.key, write.value.unwrap_or(&[])];
        core.memory.reserved_bytes += reserved_bytes;
        self.reserved_bytes += reserved_bytes;
        self.propose(&core.log, &payload, |index, place| InFlight {
            index,
            place,
            hash: write.hash,
            timestamp,
            key_bytes: write.key.len() as u32,
            kind,
            reserved_bytes,
            ticket: Some(write.ticket),
        });
        Ok(WriteOutcome::Pending)
    }

    /// The newest version of a key. Linearizable: what it returns is raft-committed, and a write that is not
    /// applied yet has not been answered either.
    pub fn get(&self, hash: u64, key: &[u8]) -> Option<Version<'_>> {
        self.memtable.newest(hash, key)
    }

    /// The memtable, for reads at a snapshot that [`ShardReplica::prepare_read`] made safe.
    pub fn memtable(&self) -> &Memtable {
        &self.memtable
    }

    /// Makes the shard readable at `snapshot`: nothing will be written at or below it any more, and
    /// everything in flight at or below it is applied. Returns false if the scan has to wait until
    /// [`Completions::scan_ready`].
    ///
    /// # Errors
    /// [`Refusal::Busy`] when too many reads wait, [`Refusal::DiskFull`] when what the read must wait for finds no
    /// room in the log.
    pub fn prepare_read(
        &mut self,
        core: &mut CoreContext,
        snapshot: Timestamp,
        scan: ScanId,
    ) -> Result<bool, Refusal> {
        if self.waiter_count >= SHARD_WAITERS_MAX {
            return Err(Refusal::Busy);
        }
        core.hlc.observe(snapshot);
        if snapshot > self.proposed_ceiling {
            if !core.log.has_room(self.shard, &[COMMAND_HEADER_BYTES]) {
                return Err(Refusal::DiskFull);
            }
            self.propose_ceiling(core, snapshot);
        }
        let Some(last) = self.in_flight.back() else {
            return Ok(true);
        };
        if core.log.is_stuck() {
            // What the read would wait for finds no room either.
            return Err(Refusal::DiskFull);
        }
        let index = last.index;
        self.wait(index, Waiter::Scan(scan));
        Ok(false)
    }

    /// Before entries up to `last` are applied: asks for the memory of their index slots.
    pub fn prefetch_slots(&self, last: LogIndex) {
        for entry in self.in_flight.iter().take_while(|entry| entry.index <= last) {
            self.memtable.prefetch(entry.hash);
        }
    }

    /// The second step of [`ShardReplica::prefetch_slots`]: asks for the keys' records.
    pub fn prefetch_records(&self, last: LogIndex) {
        for entry in self.in_flight.iter().take_while(|entry| entry.index <= last) {
            self.memtable.prefetch_node(entry.hash);
        }
    }

    /// The log has this batch, with entries of this shard up to `last`, on stable storage.
    pub fn log_durable(
        &mut self,
        batch: &DurableBatch<'_>,
        last: LogIndex,
        memory: &mut MemoryBudget,
        completions: &mut dyn Completions,
    ) {
        self.step(Input::LogDurable { through: last });
        let raft_committed = self.outputs.raft_committed;
        self.outputs.clear();
        let Some(through) = raft_committed else { return };
        while let Some(entry) = self.in_flight.pop_front_if(|entry| entry.index <= through) {
            self.apply(&entry, batch, memory);
            if let Some(ticket) = entry.ticket {
                completions.written(ticket, true, entry.timestamp);
            }
        }
        self.step(Input::Applied { through });
        self.release_waiters(through, completions);
    }

    /// Proposals that are not applied yet.
    pub fn in_flight_count(&self) -> usize {
        self.in_flight.len()
    }

    /// Takes every ticket that still waits, when the log has failed and no answer will come.
    pub fn take_tickets(&mut self) -> Vec<Ticket> {
        let writes = self.in_flight.iter_mut().filter_map(|entry| entry.ticket.take());
        let mut tickets: Vec<Ticket> = writes.collect();
        for waiter in core::mem::take(&mut self.waiters).into_values().flatten() {
            if let Waiter::ConditionFailed { ticket, .. } = waiter {
                tickets.push(ticket);
            }
        }
        self.waiter_count = 0;
        tickets
    }

    fn admit(&self, core: &CoreContext, write: &Write<'_>) -> Result<usize, Refusal> {
        if core.log.has_failed() {
            return Err(Refusal::CoreFailed);
        }
        // A place for the ceiling entry that may precede the write.
        if self.in_flight.len() + 1 >= SHARD_IN_FLIGHT_MAX
            || self.waiter_count >= SHARD_WAITERS_MAX
            || core.log.is_backlogged()
        {
            return Err(Refusal::Busy);
        }
        let value_bytes = write.value.map_or(0, <[u8]>::len);
        let payload_bytes = COMMAND_HEADER_BYTES + write.key.len() + value_bytes;
        if payload_bytes > core.log.payload_bytes_max() {
            return Err(Refusal::TooLarge);
        }
        let is_delete = write.value.is_none();
        let ceiling_and_delete = [COMMAND_HEADER_BYTES, payload_bytes];
        let log = &core.log;
        if log.is_disk_full() && !(is_delete && log.has_room_for_delete(self.shard, &ceiling_and_delete)) {
            return Err(Refusal::DiskFull);
        }
        let cost_bytes = Memtable::insert_cost_bytes(write.key.len(), value_bytes, false);
        let memory = &core.memory;
        let budget_bytes = memory.budget_bytes(is_delete);
        let core_is_full = memory.used_bytes + memory.reserved_bytes + cost_bytes > budget_bytes;
        let table_bytes = self.memtable.memory_bytes() + self.reserved_bytes + cost_bytes;
        if core_is_full || table_bytes > MEMORY_BYTES_MAX {
            return Err(Refusal::MemoryFull);
        }
        Ok(cost_bytes)
    }

    fn newest(&self, log: &Log, hash: u64, key: &[u8]) -> Newest {
        let in_flight = self.in_flight.iter().rev().find(|entry| {
            entry.hash == hash
                && entry.kind != InFlightKind::Ceiling
                && entry.key_bytes as usize == key.len()
                && log.with_payload(entry.place, |payload| {
                    payload[COMMAND_HEADER_BYTES..].starts_with(key)
                })
        });
        if let Some(entry) = in_flight {
            let version = (entry.kind == InFlightKind::Put).then_some(entry.timestamp);
            return Newest {
                version,
                in_flight: Some(entry.index),
            };
        }
        let applied = self.memtable.newest(hash, key);
        let version = applied
            .filter(|version| version.value.is_some())
            .map(|version| version.timestamp);
        Newest {
            version,
            in_flight: None,
        }
    }

    fn condition_failed(&mut self, ticket: Ticket, newest: &Newest) -> WriteOutcome {
        let version = newest.version.unwrap_or(Timestamp::ZERO);
        match newest.in_flight {
            None => WriteOutcome::ConditionFailed(version),
            Some(index) => {
                self.wait(index, Waiter::ConditionFailed { ticket, version });
                WriteOutcome::Pending
            }
        }
    }

    fn propose_ceiling(&mut self, core: &mut CoreContext, above: Timestamp) {
        let timestamp = above.plus_micros(CEILING_AHEAD_US);
        self.proposed_ceiling = timestamp;
        let header = Command::Ceiling { timestamp }.header();
        self.propose(&core.log, &[&header], |index, place| InFlight {
            index,
            place,
            hash: 0,
            timestamp,
            key_bytes: 0,
            kind: InFlightKind::Ceiling,
            reserved_bytes: 0,
            ticket: None,
        });
    }

    fn propose(
        &mut self,
        log: &Log,
        payload: &[&[u8]],
        in_flight: impl FnOnce(LogIndex, EntryPlace) -> InFlight,
    ) {
        self.step(Input::Propose);
        let entry = self.outputs.append.expect("a proposal to a leader is appended");
        self.outputs.clear();
        let place = log.append_entry(self.shard, self.epoch, entry, payload);
        self.in_flight.push_back(in_flight(entry.index, place));
    }

    fn apply(&mut self, entry: &InFlight, batch: &DurableBatch<'_>, memory: &mut MemoryBudget) {
        memory.reserved_bytes -= entry.reserved_bytes;
        self.reserved_bytes -= entry.reserved_bytes;
        if entry.kind == InFlightKind::Ceiling {
            return;
        }
        let payload = batch.payload(entry.place);
        let (key, value) = payload[COMMAND_HEADER_BYTES..].split_at(entry.key_bytes as usize);
        let mutation = if entry.kind == InFlightKind::Put {
            Mutation::Put { value, expiry: None }
        } else {
            Mutation::Tombstone
        };
        let before_bytes = self.memtable.memory_bytes();
        self.memtable.insert(entry.hash, key, entry.timestamp, mutation);
        memory.used_bytes += self.memtable.memory_bytes() - before_bytes;
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
                    Waiter::ConditionFailed { ticket, version } => {
                        completions.written(ticket, false, version);
                    }
                    Waiter::Scan(scan) => completions.scan_ready(scan),
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

fn holds(condition: Condition<'_>, current: Option<Timestamp>) -> bool {
    match condition {
        Condition::None => true,
        Condition::Absent => current.is_none(),
        Condition::Present => current.is_some(),
        Condition::Value(_) => false,
        Condition::Version(expected) => current.is_some_and(|version| version.0 == expected),
    }
}
