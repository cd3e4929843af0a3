//! All shard replicas of one core, with the log, clock and memory that they share.

use ostrakon_core::hlc::{Hlc, Timestamp, TimestampAhead};
use ostrakon_wire::routing::{ShardId, routing_key};
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use super::Write;
use super::replica::{CoreContext, MemoryBudget, ShardReplica, WriteOutcome};
use super::scan::{ScanPage, ScanRange, scan_page};
use super::{Completions, ReadId, Refusal, Ticket};
use crate::env::WallUs;
use crate::log::{DurableBatch, Log};
use crate::storage::memtable::Version;

/// The hash under which a key lies in its memtable: of the whole key, so that the keys of one routing tag
/// spread like all others.
pub fn memtable_hash(key: &[u8]) -> u64 {
    hashes(key).1
}

/// The routing hash of a key, and its hash in its memtable: the same for a key without a tag.
#[inline]
pub fn hashes(key: &[u8]) -> (u64, u64) {
    let routing = routing_key(key);
    let routing_hash = xxh3_64(routing);
    if routing.len() == key.len() {
        (routing_hash, routing_hash)
    } else {
        (routing_hash, xxh3_64(key))
    }
}

/// What a core's shards hold together.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostStatistics {
    /// Shards of this core.
    pub shards: usize,
    /// Keys with at least one version, deleted ones included.
    pub keys: usize,
    /// Versions.
    pub versions: usize,
    /// Bytes of the memtables and the sessions.
    pub memory_bytes: usize,
    /// The bound on them.
    pub memory_budget_bytes: usize,
    /// Proposals not applied yet.
    pub in_flight: usize,
    /// Sessions remembered.
    pub sessions: usize,
    /// Answers remembered.
    pub answers: usize,
    /// Writes that came again and were answered from memory, since the start.
    pub deduplicated: u64,
}

/// What one shard holds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ShardStatistics {
    /// The shard.
    pub shard: u32,
    /// Keys with at least one version, deleted ones included.
    pub keys: usize,
    /// Versions.
    pub versions: usize,
    /// Bytes of the memtable and the sessions.
    pub memory_bytes: usize,
    /// Proposals not applied yet.
    pub in_flight: usize,
    /// Sessions remembered.
    pub sessions: usize,
    /// Answers remembered.
    pub answers: usize,
    /// Writes that came again and were answered from memory, since the start.
    pub deduplicated: u64,
}

/// The shards of one core.
pub struct ShardHost {
    replicas: Vec<Option<ShardReplica>>,
    core: CoreContext,
}

impl ShardHost {
    /// A core with these replicas, by shard. `hlc` is above every timestamp in them.
    pub fn new(replicas: Vec<Option<ShardReplica>>, log: Log, hlc: Hlc, budget_bytes: usize) -> ShardHost {
        let used_bytes = replicas.iter().flatten().map(ShardReplica::memory_bytes).sum();
        let memory = MemoryBudget {
            budget_bytes,
            used_bytes,
            reserved_bytes: 0,
        };
        let core = CoreContext {
            log,
            hlc,
            wall_us: 0,
            memory,
            decided: Vec::new(),
            operations: Vec::new(),
            numbers: Vec::new(),
        };
        ShardHost { replicas, core }
    }

    /// The core's log.
    pub fn log(&self) -> &Log {
        &self.core.log
    }

    /// The highest timestamp that the core has issued or seen.
    pub fn clock(&self) -> Timestamp {
        self.core.hlc.peek()
    }

    /// The core's clock.
    pub fn hlc(&mut self) -> &mut Hlc {
        &mut self.core.hlc
    }

    /// A turn begins: its wall time, for all timestamps given out in it.
    pub fn begin_turn(&mut self, wall: WallUs) {
        self.core.wall_us = wall.0;
    }

    /// A snapshot at or above all that this core has heard of. It is now, unless the disk is full, here or for another
    /// core that will read at it: then it is the newest timestamp that this core knows, so that reads need no more
    /// ceilings than writes do in a log that has little room for them.
    pub fn read_timestamp(&mut self, is_full_elsewhere: bool) -> Timestamp {
        if is_full_elsewhere || self.core.log.is_disk_full() {
            self.core.hlc.peek()
        } else {
            self.core.hlc.now(self.core.wall_us)
        }
    }

    /// Moves the clock to a client's timestamp.
    ///
    /// # Errors
    /// When it is further ahead than any honest clock.
    pub fn observe_client(&mut self, timestamp: Timestamp) -> Result<(), TimestampAhead> {
        self.core.hlc.observe_checked(timestamp, self.core.wall_us)
    }

    /// Is this, the time of a write's first sending, one that no honest client can have seen?
    pub fn is_sent_ahead(&self, first_sent: Timestamp) -> bool {
        self.core.is_sent_ahead(first_sent)
    }

    /// Every vote is on stable storage: the replicas lead.
    pub fn hard_states_durable(&mut self) {
        for replica in self.replicas.iter_mut().flatten() {
            replica.hard_state_durable(&mut self.core);
        }
    }

    /// True once every replica may serve.
    pub fn may_serve(&self) -> bool {
        self.replicas.iter().flatten().all(ShardReplica::may_serve)
    }

    /// First of two steps before a batch of lookups: asks for the memory of a key's index slot.
    pub fn prefetch_slot(&self, shard: ShardId, hash: u64) {
        self.replica(shard).memtable().prefetch(hash);
    }

    /// Second step, after [`ShardHost::prefetch_slot`] was called for the whole batch: asks for the key's record.
    pub fn prefetch_record(&self, shard: ShardId, hash: u64) {
        self.replica(shard).memtable().prefetch_node(hash);
    }

    /// The newest version of a key of one of this core's shards. Linearizable, if it has no expiry: what it returns is
    /// raft-committed, and a write that is not applied yet has not been answered either.
    ///
    /// # Errors
    /// [`Refusal::CoreFailed`] after a failed log write.
    #[inline]
    pub fn newest(&self, shard: ShardId, hash: u64, key: &[u8]) -> Result<Option<Version<'_>>, Refusal> {
        if self.core.log.has_failed() {
            return Err(Refusal::CoreFailed);
        }
        Ok(self.replica(shard).memtable().newest(hash, key))
    }

    /// The version of a key at a snapshot that [`ShardHost::prepare_get`] has made readable, or a scan.
    ///
    /// # Errors
    /// [`Refusal::CoreFailed`] after a failed log write.
    pub fn at(
        &self,
        (shard, hash): (ShardId, u64),
        key: &[u8],
        snapshot: Timestamp,
    ) -> Result<Option<Version<'_>>, Refusal> {
        if self.core.log.has_failed() {
            return Err(Refusal::CoreFailed);
        }
        Ok(self.replica(shard).memtable().at(hash, key, snapshot))
    }

    /// A moment for reads of keys that may expire. The clock moves to it, so that no later read is at an earlier one.
    pub fn read_clock(&mut self) -> Timestamp {
        self.core.hlc.now(self.core.wall_us)
    }

    /// One of this core's shards, and what it shares with the others.
    #[inline]
    fn owned(&mut self, shard: ShardId) -> (&mut ShardReplica, &mut CoreContext) {
        let replica = self.replicas[shard.0 as usize].as_mut();
        (replica.expect("routed to the shard's owner"), &mut self.core)
    }

    /// Makes a key readable at a moment of [`ShardHost::read_clock`]. False: wait for [`Completions::read_ready`].
    ///
    /// # Errors
    /// As for [`ShardReplica::prepare_get`], and [`Refusal::CoreFailed`] after a failed log write.
    pub fn prepare_get(
        &mut self,
        (shard, hash): (ShardId, u64),
        key: &[u8],
        now: Timestamp,
        read: ReadId,
    ) -> Result<bool, Refusal> {
        if self.core.log.has_failed() {
            return Err(Refusal::CoreFailed);
        }
        let (replica, core) = self.owned(shard);
        replica.prepare_get(core, (hash, key), now, read)
    }

    /// Proposes a write to one of this core's shards.
    ///
    /// # Errors
    /// Why it was refused.
    pub fn write(&mut self, shard: ShardId, write: &Write<'_>) -> Result<WriteOutcome, Refusal> {
        let (replica, core) = self.owned(shard);
        replica.write(core, write)
    }

    /// Makes a shard readable at `snapshot`. False: wait for [`Completions::read_ready`].
    ///
    /// # Errors
    /// As for [`ShardReplica::prepare_read`], and [`Refusal::CoreFailed`] after a failed log write.
    pub fn prepare_shard(
        &mut self,
        shard: ShardId,
        snapshot: Timestamp,
        read: ReadId,
    ) -> Result<bool, Refusal> {
        if self.core.log.has_failed() {
            return Err(Refusal::CoreFailed);
        }
        let (replica, core) = self.owned(shard);
        replica.prepare_read(core, snapshot, read)
    }

    /// Makes all shards of this core readable at `snapshot`; returns how many the scan has to wait for.
    ///
    /// # Errors
    /// Why it was refused. Shards that it already waits for will still call [`Completions::read_ready`].
    pub fn prepare_scan(&mut self, snapshot: Timestamp, read: ReadId) -> Result<usize, Refusal> {
        if self.core.log.has_failed() {
            return Err(Refusal::CoreFailed);
        }
        let mut waiting = 0;
        for replica in self.replicas.iter_mut().flatten() {
            waiting += usize::from(!replica.prepare_read(&mut self.core, snapshot, read)?);
        }
        Ok(waiting)
    }

    /// A page of the core's shards, once [`ShardHost::prepare_scan`] has nothing left to wait for.
    pub fn scan(&self, snapshot: Timestamp, range: &ScanRange) -> ScanPage {
        scan_page(
            self.replicas.iter().flatten().map(ShardReplica::memtable),
            snapshot,
            range,
        )
    }

    /// A batch of the log is on stable storage: applies what became raft-committed.
    pub fn batch_durable(&mut self, batch: &DurableBatch<'_>, completions: &mut dyn Completions) {
        let with_entries = || batch.directory.iter().filter(|entry| entry.last.0 > 0);
        for entry in with_entries() {
            self.replica(entry.shard).prefetch_slots(entry.last);
        }
        for entry in with_entries() {
            self.replica(entry.shard).prefetch_records(entry.last);
        }
        for entry in with_entries() {
            let replica = self.replicas[entry.shard.0 as usize]
                .as_mut()
                .expect("a shard of this core");
            replica.log_durable(&mut self.core, batch, entry.last, completions);
        }
    }

    /// Takes every ticket that waits, after the log failed.
    pub fn take_tickets(&mut self) -> Vec<Ticket> {
        self.replicas
            .iter_mut()
            .flatten()
            .flat_map(ShardReplica::take_tickets)
            .collect()
    }

    /// Sums over the shards.
    pub fn statistics(&self) -> HostStatistics {
        let mut sum = HostStatistics {
            memory_bytes: self.core.memory.used_bytes,
            memory_budget_bytes: self.core.memory.budget_bytes,
            ..HostStatistics::default()
        };
        for replica in self.replicas.iter().flatten() {
            sum.shards += 1;
            sum.keys += replica.memtable().key_count();
            sum.versions += replica.memtable().version_count();
            sum.in_flight += replica.in_flight_count();
            sum.sessions += replica.sessions().session_count();
            sum.answers += replica.sessions().answer_count();
            sum.deduplicated += replica.deduplicated();
        }
        sum
    }

    /// What each shard of this core holds, in order.
    pub fn shard_statistics(&self) -> impl Iterator<Item = ShardStatistics> {
        (0..).zip(&self.replicas).filter_map(|(shard, replica)| {
            let replica = replica.as_ref()?;
            Some(ShardStatistics {
                shard,
                keys: replica.memtable().key_count(),
                versions: replica.memtable().version_count(),
                memory_bytes: replica.memory_bytes(),
                in_flight: replica.in_flight_count(),
                sessions: replica.sessions().session_count(),
                answers: replica.sessions().answer_count(),
                deduplicated: replica.deduplicated(),
            })
        })
    }

    fn replica(&self, shard: ShardId) -> &ShardReplica {
        self.replicas[shard.0 as usize]
            .as_ref()
            .expect("routed to the shard's owner")
    }
}
