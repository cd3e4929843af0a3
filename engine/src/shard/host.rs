//! All shard replicas of one core, with the log, clock and memory that they share.

use std::cell::RefCell;
use std::rc::Rc;

use ostrakon_core::hlc::{Hlc, Timestamp, TimestampAhead};
use ostrakon_wire::routing::{ShardId, routing_key};
use xxhash_rust::xxh3::xxh3_64;

use super::Write;
use super::context::{CoreContext, MemoryBudget};
use super::disk_room::{DiskRoom, LogNeed, kept_bytes};
use super::fetched::{Fetched, Missing};
use super::replica::{Readiness, ShardReplica, WriteOutcome};
use super::scan::PageScan;
use super::upkeep::Upkeep;
use super::{Completions, ReadId, Refusal, Ticket};
use crate::env::WallUs;
use crate::env::local::Notify;
use crate::limits::{MEMTABLE_BYTES_MAX, MEMTABLE_PARTS, RECOVERY_BYTES, RETENTION_US};
use crate::log::{DurableBatch, Log};
use crate::storage::sstable::cache::BlockCache;
use crate::storage::store::files::ShardFiles;
use crate::storage::store::tables::Tables;
use crate::storage::store::{Look, Store};

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

/// How much memory a core's shards may take for what, and for how long old versions can be read.
#[derive(Clone, Copy, Debug)]
pub struct HostOptions {
    /// Bytes of memtables and sessions.
    pub memtable_bytes: usize,
    /// Bytes of the block cache, and of what open tables keep in memory.
    pub cache_bytes: usize,
    /// Bytes of the log that a restart may have to read.
    pub recovery_bytes: u64,
    /// Microseconds for which a version can be read after a newer one was written.
    pub retention_us: u64,
}

/// The shards of one core.
pub struct ShardHost {
    pub(super) replicas: Vec<Option<ShardReplica>>,
    pub(super) core: CoreContext,
    pub(super) upkeep: Upkeep,
    pub(super) cache: Rc<BlockCache>,
    pub(super) cache_bytes: usize,
    /// When memtables that take writes have so many bytes, the largest is sealed.
    pub(super) seal_at_bytes: usize,
    pub(super) recovery_bytes: u64,
    /// Raised when a memtable was sealed.
    pub flush_work: Rc<Notify>,
    /// Raised when tables have changed.
    pub merge_work: Rc<Notify>,
}

/// Memtables that take writes are sealed from this part of the memory on, so that there is room for more writes while
/// they are flushed.
const SEAL_AT_PARTS: usize = 2;

impl HostOptions {
    /// A part of this memory for each purpose.
    pub fn for_memory(memory_bytes: usize) -> HostOptions {
        let memtable_bytes = (memory_bytes / MEMTABLE_PARTS).min(MEMTABLE_BYTES_MAX);
        HostOptions {
            memtable_bytes,
            cache_bytes: memory_bytes - memtable_bytes,
            recovery_bytes: RECOVERY_BYTES,
            retention_us: RETENTION_US,
        }
    }

    /// When memtables that take writes have so many bytes, the largest is sealed.
    pub fn seal_at_bytes(&self) -> usize {
        self.memtable_bytes / SEAL_AT_PARTS
    }
}

impl ShardHost {
    /// A core with these replicas, by shard. `hlc` is above every timestamp in them.
    pub fn new(
        replicas: Vec<Option<ShardReplica>>,
        log: Log,
        hlc: Hlc,
        cache: Rc<BlockCache>,
        options: HostOptions,
    ) -> ShardHost {
        let used_bytes = replicas.iter().flatten().map(ShardReplica::memory_bytes).sum();
        let stores = replicas.iter().flatten().map(ShardReplica::store);
        let memory = MemoryBudget {
            budget_bytes: options.memtable_bytes,
            used_bytes,
            sealed_bytes: stores.map(Store::sealed_bytes).sum(),
            reserved_bytes: 0,
        };
        // A flush lets the log free what lies before the segment in use, so more than that one has to be there.
        let recovery_bytes = options.recovery_bytes.max(2 * log.segment_bytes());
        let core = CoreContext {
            log,
            hlc,
            wall_us: 0,
            memory,
            decided: Vec::new(),
            operations: Vec::new(),
            numbers: Vec::new(),
            scratch: RefCell::default(),
            retention_us: options.retention_us,
            is_store_full: false,
            disk_room: DiskRoom::UNKNOWN,
            stalled_writes: 0,
        };
        let mut host = ShardHost {
            replicas,
            core,
            upkeep: Upkeep::default(),
            cache,
            cache_bytes: options.cache_bytes,
            seal_at_bytes: options.seal_at_bytes(),
            recovery_bytes,
            flush_work: Rc::default(),
            merge_work: Rc::default(),
        };
        host.tables_changed();
        host
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
        self.replica(shard).store().active().prefetch(hash);
    }

    /// Second step, after [`ShardHost::prefetch_slot`] was called for the whole batch: asks for the key's record.
    pub fn prefetch_record(&self, shard: ShardId, hash: u64) {
        self.replica(shard).store().active().prefetch_node(hash);
    }

    /// The newest version of a key of one of this core's shards, as far as it is known without a read. Linearizable, if
    /// it has no expiry: what it returns is raft-committed, and a write that is not applied yet has not been answered
    /// either.
    ///
    /// # Errors
    /// [`Refusal::CoreFailed`] after a failed log write, [`Refusal::Unreadable`].
    #[inline]
    pub fn newest(&self, shard: ShardId, key: (u64, &[u8]), fetched: &Fetched) -> Result<Look<'_>, Refusal> {
        self.at(shard, key, Timestamp::MAX, fetched)
    }

    /// The version of a key at a snapshot that [`ShardHost::prepare_get`] has made readable, or a scan, as far as it is
    /// known without a read.
    ///
    /// # Errors
    /// [`Refusal::CoreFailed`] after a failed log write, [`Refusal::Unreadable`].
    #[inline]
    pub fn at(
        &self,
        shard: ShardId,
        key: (u64, &[u8]),
        snapshot: Timestamp,
        fetched: &Fetched,
    ) -> Result<Look<'_>, Refusal> {
        if self.core.log.has_failed() {
            return Err(Refusal::CoreFailed);
        }
        self.replica(shard).look_up(&self.core, key, snapshot, fetched)
    }

    /// What is to be read for a look that came to [`Look::Unknown`].
    pub fn missing(
        &self,
        shard: ShardId,
        key: (u64, &[u8]),
        snapshot: Timestamp,
        tables: Rc<Tables>,
    ) -> Missing {
        self.replica(shard).missing(key, snapshot, tables)
    }

    /// A moment for reads of keys that may expire. The clock moves to it, so that no later read is at an earlier one.
    pub fn read_clock(&mut self) -> Timestamp {
        self.core.hlc.now(self.core.wall_us)
    }

    /// One of this core's shards, and what it shares with the others.
    #[inline]
    pub(super) fn owned(&mut self, shard: ShardId) -> (&mut ShardReplica, &mut CoreContext) {
        let replica = self.replicas[shard.0 as usize].as_mut();
        (replica.expect("routed to the shard's owner"), &mut self.core)
    }

    /// Makes a key readable at a moment of [`ShardHost::read_clock`].
    ///
    /// # Errors
    /// As for [`ShardReplica::prepare_get`], and [`Refusal::CoreFailed`] after a failed log write.
    pub fn prepare_get(
        &mut self,
        (shard, hash): (ShardId, u64),
        key: &[u8],
        now: Timestamp,
        read: ReadId,
        fetched: &Fetched,
    ) -> Result<Readiness, Refusal> {
        if self.core.log.has_failed() {
            return Err(Refusal::CoreFailed);
        }
        let (replica, core) = self.owned(shard);
        replica.prepare_get(core, (hash, key), now, read, fetched)
    }

    /// Proposes a write to one of this core's shards.
    ///
    /// # Errors
    /// Why it was refused.
    pub fn write(
        &mut self,
        shard: ShardId,
        write: &Write<'_>,
        fetched: &Fetched,
    ) -> Result<WriteOutcome, Refusal> {
        let (replica, core) = self.owned(shard);
        let outcome = replica.write(core, write, fetched);
        if matches!(outcome, Err(Refusal::Busy | Refusal::MemoryFull)) {
            self.seal_if_due();
        }
        outcome
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

    /// Goes on with a page of the core's shards, once [`ShardHost::prepare_scan`] has nothing left to wait for; true
    /// when the page is done, else [`PageScan::read`] is to be called first.
    ///
    /// # Errors
    /// [`Refusal::CoreFailed`] after a failed log write, [`Refusal::SnapshotTooOld`], [`Refusal::Unreadable`].
    pub fn scan(&self, scan: &mut PageScan) -> Result<bool, Refusal> {
        if self.core.log.has_failed() {
            return Err(Refusal::CoreFailed);
        }
        let replicas = self.replicas.iter().flatten();
        if replicas
            .clone()
            .any(|replica| scan.snapshot() < replica.watermark())
        {
            return Err(Refusal::SnapshotTooOld);
        }
        let stores = replicas.map(|replica| (replica.shard(), replica.store()));
        scan.go_on(stores).map_err(|error| Refusal::from(&error))
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
        self.seal_if_due();
        self.seal_laggards();
        self.set_pace();
    }

    /// Takes every ticket that waits, after the log failed.
    pub fn take_tickets(&mut self) -> Vec<Ticket> {
        self.replicas
            .iter_mut()
            .flatten()
            .flat_map(ShardReplica::take_tickets)
            .collect()
    }

    /// The files of each shard, and its tables as they are now.
    pub fn stores(&self) -> Vec<(Rc<ShardFiles>, Rc<Tables>)> {
        let replicas = self.replicas.iter().flatten();
        let stores =
            replicas.map(|replica| (Rc::clone(replica.files()), Rc::clone(replica.store().tables())));
        stores.collect()
    }

    /// What the core's log needs at present. To be asked before one looks how much is free: what the log takes
    /// meanwhile is then counted twice, and not forgotten.
    pub fn log_need(&self) -> LogNeed {
        LogNeed {
            position_bytes: self.core.log.position_bytes(),
            unmade_bytes: self.core.log.unmade_bytes(),
        }
    }

    /// Bytes of the tables of all shards.
    pub fn table_bytes(&self) -> u64 {
        let stores = self.replicas.iter().flatten().map(ShardReplica::store);
        stores.map(|store| store.tables().tree().bytes()).sum()
    }

    /// The file system has so many free bytes, when the log needed that; `cores` cores share it, with `table_bytes` of
    /// tables together.
    pub fn note_free_bytes(&mut self, free_bytes: u64, (cores, table_bytes): (u16, u64), log: LogNeed) {
        let disk_room = DiskRoom::of(free_bytes, kept_bytes(table_bytes), cores, log);
        self.set_disk_room(disk_room);
    }

    /// Nobody knows how many bytes are free: the log and the tables find out.
    pub fn forget_free_bytes(&mut self) {
        self.set_disk_room(DiskRoom::UNKNOWN);
    }

    fn set_disk_room(&mut self, disk_room: DiskRoom) {
        let (was_short, is_short) = (self.core.disk_room.is_short(), disk_room.is_short());
        self.core.disk_room = disk_room;
        self.core.log.set_short_of_space(is_short);
        if was_short && !is_short {
            self.upkeep.note_room();
        }
    }

    /// Are puts refused for want of space?
    pub fn is_disk_full(&self) -> bool {
        self.core.log.is_disk_full() || self.core.is_full_for((0, 1), false)
    }

    /// Has the last flush found the disk full? Puts are refused until none is left that has.
    pub fn note_store_full(&mut self, is_full: bool) {
        self.core.is_store_full = is_full || self.upkeep.has_flush_without_room();
    }

    pub(super) fn replica(&self, shard: ShardId) -> &ShardReplica {
        self.replicas[shard.0 as usize]
            .as_ref()
            .expect("routed to the shard's owner")
    }
}
