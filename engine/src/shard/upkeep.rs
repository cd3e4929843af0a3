//! Work on the shards' files that goes on beside requests: which sealed memtable is flushed next, which tables are
//! merged next, and what becomes of the outcome. Jobs own what they read; nobody waits for them here.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::lsm::pacing::{Load, rates};
use ostrakon_core::lsm::{
    Choice, Options, Reason, TableNumber, Tree, debt_bytes, due_bytes, pick, pick_freeing, pick_smaller,
    waiting_runs,
};
use ostrakon_core::raft::LogIndex;
use ostrakon_wire::routing::ShardId;

use super::host::ShardHost;
use super::replica::ShardReplica;
use crate::storage::memtable::Memtable;
use crate::storage::sstable::reader::Table;
use crate::storage::store::Sealed;
use crate::storage::store::files::{ShardFiles, StoreError};
use crate::storage::store::merge::MadeTables;
use crate::storage::store::tables::Tables;

/// A sealed memtable that is to become a table.
pub struct FlushJob {
    /// Its shard.
    pub shard: ShardId,
    sealed: Rc<Sealed>,
    below: Rc<Tables>,
    watermark: Timestamp,
    files: Rc<ShardFiles>,
}

/// Tables that are to be merged.
pub struct MergeJob {
    /// Their shard.
    pub shard: ShardId,
    tables: Rc<Tables>,
    choice: Choice,
    watermark: Timestamp,
    files: Rc<ShardFiles>,
}

/// What the core is told of upkeep, since it started.
#[derive(Clone, Copy, Debug, Default)]
pub struct UpkeepStatistics {
    /// Memtables that became tables.
    pub flushes: u64,
    /// Bytes of those tables.
    pub flushed_bytes: u64,
    /// Merges, moves without a merge among them.
    pub merges: u64,
    /// Bytes that merges have read.
    pub merge_read_bytes: u64,
    /// Bytes that merges have written.
    pub merge_written_bytes: u64,
    /// Bytes that the scrub has read.
    pub scrubbed_bytes: u64,
    /// Times that the scrub has looked at everything.
    pub scrub_rounds: u64,
    /// Places that the scrub has found damaged.
    pub scrub_damages: u64,
}

impl FlushJob {
    /// Makes the table.
    ///
    /// # Errors
    /// If it can't be made. Nothing has changed then.
    pub async fn run(&self) -> Result<MadeTables, StoreError> {
        let made = self.files.flush(&self.sealed, &self.below, self.watermark).await;
        let (edit, opened) = made?;
        Ok(MadeTables {
            written_bytes: edit.added.iter().map(|info| info.bytes).sum(),
            edit,
            opened,
            read_bytes: 0,
        })
    }

    /// Notes the table in the manifest, and installs it by `install`.
    ///
    /// # Errors
    /// If the manifest can't be written: see [`ShardFiles::note`].
    pub async fn note(&self, made: &MadeTables, install: impl FnOnce(&MadeTables)) -> Result<(), StoreError> {
        let edit = made.edit.clone();
        self.files
            .note(edit, Some(self.sealed.through), |_| install(made))
            .await
    }
}

impl MergeJob {
    /// Why it is made.
    pub fn reason(&self) -> Reason {
        self.choice.reason
    }

    /// Makes the merged tables, as long as `is_wanted` says so.
    ///
    /// # Errors
    /// If a table can't be read or written. Nothing has changed then.
    pub async fn run(&self, is_wanted: &dyn Fn() -> bool) -> Result<Option<MadeTables>, StoreError> {
        self.files
            .merge(&self.tables, &self.choice, self.watermark, is_wanted)
            .await
    }

    /// Notes the change in the manifest, and installs it by `install`.
    ///
    /// # Errors
    /// If the manifest can't be written: see [`ShardFiles::note`].
    pub async fn note(&self, made: &MadeTables, install: impl FnOnce(&MadeTables)) -> Result<(), StoreError> {
        let edit = made.edit.clone();
        self.files.note(edit, None, |_| install(made)).await
    }

    /// Ends the job: files of tables that went are removed as soon as nobody reads them.
    ///
    /// # Errors
    /// What the operating system says of the removal.
    pub async fn clean_up(self) -> Result<(), StoreError> {
        let MergeJob { tables, files, .. } = self;
        drop(tables);
        files.remove_obsolete().await
    }
}

/// Merges of a shard that found no room, one after the other.
#[derive(Clone, Copy, Default)]
struct MergesWithoutRoom {
    in_a_row: u32,
    /// Which attempt of the core the last one was.
    last: u64,
}

/// What of the tables of a core is being merged, and what can't be.
#[derive(Default)]
pub(super) struct Upkeep {
    /// Tables of running merges, and of merges that failed because one of them can't be read.
    busy: BTreeSet<(ShardId, TableNumber)>,
    /// Shards whose last flush found no room: which attempt of the core that was.
    flush_without_room: BTreeMap<ShardId, u64>,
    /// The same of merges.
    merge_without_room: BTreeMap<ShardId, MergesWithoutRoom>,
    /// Flushes and merges that found no room, so far.
    attempts_without_room: u64,
    /// The shard whose memtable is being flushed.
    flushing: Option<ShardId>,
    /// Shards that a checkpoint waits for, and through which entry.
    awaited: BTreeMap<ShardId, LogIndex>,
    pub(super) statistics: UpkeepStatistics,
    /// What merges are behind, as the tables are now.
    debt_bytes: u64,
    /// What the merges which are due may have to read, as the tables are now.
    due_bytes: u64,
    /// Of the shard that has the most.
    waiting_runs: usize,
}

impl Upkeep {
    /// The shard's memtables through this entry are flushed before those of shards that nobody waits for.
    pub(super) fn flush_first(&mut self, shard: ShardId, through: LogIndex) {
        let awaited = self.awaited.entry(shard).or_insert(through);
        *awaited = through.max(*awaited);
    }

    /// The file system has room again: no flush or merge comes after others because it found none.
    pub(super) fn note_room(&mut self) {
        self.flush_without_room.clear();
        self.merge_without_room.clear();
    }

    pub(super) fn has_flush_without_room(&self) -> bool {
        !self.flush_without_room.is_empty()
    }

    /// Tables of a shard that merges have, or that can't be merged.
    fn busy_of(&self, shard: ShardId) -> BTreeSet<TableNumber> {
        let of_shard = (shard, TableNumber(0))..=(shard, TableNumber(u64::MAX));
        let busy = self.busy.range(of_shard);
        busy.map(|(_, number)| *number).collect()
    }

    /// What to merge next in a shard. If that has found no room, what gives space back, or less; in turn, since any may
    /// be what has room.
    fn choose(&self, replica: &ShardReplica) -> Option<Choice> {
        let busy = self.busy_of(replica.shard());
        let options = &replica.files().options().compaction;
        let (tree, watermark) = (replica.store().tables().tree(), replica.watermark());
        let first = pick(tree, &busy, options, watermark)?;
        let freeing = || pick_freeing(tree, &busy, options, watermark);
        let smaller = || pick_smaller(tree, &busy, options, watermark, &first);
        let failures = self.merge_without_room.get(&replica.shard());
        let other = match failures.map_or(0, |failures| failures.in_a_row % 3) {
            0 => None,
            1 => freeing().or_else(smaller),
            _ => smaller(),
        };
        Some(other.unwrap_or(first))
    }
}

impl ShardHost {
    /// The next flush, of a shard that a checkpoint waits for, or else of the one with the most memory. Those that
    /// found no room come after all others, and of these the smallest first: it may find some, and let the log give a
    /// segment back. To be followed by [`ShardHost::flush_ended`].
    pub fn next_flush(&mut self) -> Option<FlushJob> {
        assert!(self.upkeep.flushing.is_none(), "one flush at a time");
        let waiting = self.replicas.iter().flatten();
        let waiting = waiting.filter(|replica| replica.store().sealed().len() > 0);
        let (awaited, failed) = (&self.upkeep.awaited, &self.upkeep.flush_without_room);
        let is_better = |bytes: usize| {
            if failed.is_empty() {
                bytes
            } else {
                usize::MAX - bytes
            }
        };
        let replica = waiting.max_by_key(|replica| {
            let failed = failed.get(&replica.shard()).copied().unwrap_or(0);
            let is_awaited = awaited.contains_key(&replica.shard());
            (
                Reverse(failed),
                is_awaited,
                is_better(replica.store().sealed_bytes()),
            )
        })?;
        self.upkeep.flushing = Some(replica.shard());
        let sealed = replica.store().sealed().next().expect("filtered above");
        Some(FlushJob {
            shard: replica.shard(),
            sealed: Rc::clone(sealed),
            below: Rc::clone(replica.store().tables()),
            watermark: replica.watermark(),
            files: Rc::clone(replica.files()),
        })
    }

    /// A flush has been noted: its table takes the place of the memtable.
    pub fn install_flush(&mut self, job: &FlushJob, made: &MadeTables) {
        let (replica, core) = self.owned(job.shard);
        let tables = replica.store().tables().after(&made.edit, &made.opened);
        let tables = tables.expect("the manifest has taken the change");
        replica.flushed(core, Rc::new(tables));
        core.log.note_flushed(job.shard, job.sealed.through);
        let awaited = &mut self.upkeep.awaited;
        if awaited
            .get(&job.shard)
            .is_some_and(|through| *through <= job.sealed.through.index)
        {
            awaited.remove(&job.shard);
        }
        self.upkeep.statistics.flushes += 1;
        self.upkeep.statistics.flushed_bytes += made.written_bytes;
        self.tables_changed();
    }

    /// A flush has ended.
    pub fn flush_ended(&mut self, job: &FlushJob, outcome: &Result<(), StoreError>) {
        let upkeep = &mut self.upkeep;
        upkeep.flushing = None;
        if outcome.as_ref().is_err_and(StoreError::is_disk_full) {
            upkeep.attempts_without_room += 1;
            upkeep
                .flush_without_room
                .insert(job.shard, upkeep.attempts_without_room);
        } else {
            upkeep.flush_without_room.remove(&job.shard);
        }
    }

    /// The next merge: of the shard with the largest debt that has one to make. Shards whose merges found no room come
    /// after all others, the one that was tried last at the end. To be followed by [`ShardHost::merge_ended`].
    pub fn next_merge(&mut self) -> Option<MergeJob> {
        let upkeep = &self.upkeep;
        let choose = |replica: &ShardReplica| {
            let choice = upkeep.choose(replica)?;
            let options = &replica.files().options().compaction;
            let debt = debt_bytes(replica.store().tables().tree(), options);
            Some((debt, replica.shard(), choice))
        };
        let choices = self.replicas.iter().flatten().filter_map(choose);
        let (_, shard, choice) = choices.max_by_key(|(debt, shard, _)| {
            let failed = upkeep
                .merge_without_room
                .get(shard)
                .map_or(0, |failures| failures.last);
            (Reverse(failed), *debt, Reverse(*shard))
        })?;
        let busy = choice.inputs.iter().map(|number| (shard, *number));
        self.upkeep.busy.extend(busy);
        let replica = self.replica(shard);
        Some(MergeJob {
            shard,
            tables: Rc::clone(replica.store().tables()),
            choice,
            watermark: replica.watermark(),
            files: Rc::clone(replica.files()),
        })
    }

    /// A merge has been noted: its tables take the place of those that it read.
    pub fn install_merge(&mut self, job: &MergeJob, made: &MadeTables) {
        let (replica, _) = self.owned(job.shard);
        let before = Rc::clone(replica.store().tables());
        let tables = before.after(&made.edit, &made.opened);
        let tables = tables.expect("the manifest has taken the change");
        let is_gone = |number: &&TableNumber| tables.get(**number).is_none();
        let gone = made.edit.removed.iter().filter(is_gone);
        let gone: Vec<Rc<Table>> = gone
            .filter_map(|number| before.get(*number))
            .map(|open| Rc::clone(&open.table))
            .collect();
        replica.files().make_obsolete(gone);
        replica.merged(Rc::new(tables));
        self.upkeep.statistics.merges += 1;
        self.upkeep.statistics.merge_read_bytes += made.read_bytes;
        self.upkeep.statistics.merge_written_bytes += made.written_bytes;
        self.tables_changed();
    }

    /// A merge has ended. If it can't be made since a table can't be read, its tables are not tried again.
    pub fn merge_ended(&mut self, job: &MergeJob, outcome: &Result<(), StoreError>) {
        match outcome {
            Err(StoreError::Table(_)) => return,
            Err(error) if error.is_disk_full() => {
                self.upkeep.attempts_without_room += 1;
                let failures = self.upkeep.merge_without_room.entry(job.shard).or_default();
                failures.in_a_row += 1;
                failures.last = self.upkeep.attempts_without_room;
            }
            Err(_) => {}
            Ok(()) => {
                self.upkeep.merge_without_room.remove(&job.shard);
            }
        }
        for number in &job.choice.inputs {
            self.upkeep.busy.remove(&(job.shard, *number));
        }
    }

    /// Bytes that have to go down until all trees are in shape.
    pub fn debt_bytes(&self) -> u64 {
        self.sum_of_trees(debt_bytes)
    }

    fn sum_of_trees(&self, bytes: impl Fn(&Tree, &Options) -> u64) -> u64 {
        let replicas = self.replicas.iter().flatten();
        let of_each = replicas.map(|replica| {
            let options = &replica.files().options().compaction;
            bytes(replica.store().tables().tree(), options)
        });
        of_each.sum()
    }

    /// Seals the memtable that takes the most memory, if memtables have come to take much.
    pub(super) fn seal_if_due(&mut self) {
        while self.is_sealing_due() {
            let active_bytes = |replica: &ShardReplica| replica.store().active().memory_bytes();
            let largest = self
                .replicas
                .iter_mut()
                .flatten()
                .max_by_key(|replica| active_bytes(replica));
            if !largest.is_some_and(|replica| replica.seal(&mut self.core)) {
                return;
            }
            self.flush_work.notify();
        }
    }

    fn is_sealing_due(&self) -> bool {
        let memory = &self.core.memory;
        let active_bytes: usize = memory.used_bytes - memory.sealed_bytes;
        active_bytes >= self.seal_at_bytes
    }

    /// Seals the memtables of shards that keep the log from being cut, when it has become long, or finds no room any
    /// more, or takes room that the memtables will need.
    pub(super) fn seal_laggards(&mut self) {
        let log = &self.core.log;
        let is_long = log.live_bytes() >= self.recovery_bytes;
        if is_long || log.asks_for_flush(0) || self.is_disk_short() {
            self.seal_pinning();
        }
    }

    /// Seals what keeps a full log from going on before it has too little room for the largest entry. Not at each
    /// batch: small ones have room for a while.
    fn seal_for_large(&mut self) {
        let log = &self.core.log;
        if log.asks_for_flush(log.payload_bytes_max()) {
            self.seal_pinning();
        }
    }

    /// Seals what keeps the log from giving space back where that is short: a flush gives back whole segments, however
    /// little it writes. Not at each batch, since deletes go on.
    fn seal_for_space(&mut self) {
        if self.core.disk_room.is_short() && self.core.log.would_give_back() {
            self.seal_pinning();
        }
    }

    /// Seals the memtables that pin the oldest segment that is needed.
    fn seal_pinning(&mut self) {
        for shard in self.core.log.pinning() {
            let (replica, core) = self.owned(shard);
            // What is sealed is about to be flushed.
            if replica.store().sealed().len() == 0 && replica.seal(core) {
                self.flush_work.notify();
            }
        }
    }

    fn is_disk_short(&self) -> bool {
        let core = &self.core;
        let replicas = self.replicas.iter().flatten();
        let active = replicas.map(|replica| replica.store().active());
        let active = || {
            let sizes = active
                .filter(|memtable| !memtable.is_empty())
                .map(Memtable::memory_bytes);
            sizes.fold((0, 0), |(tables, bytes), own| (tables + 1, bytes + own))
        };
        core.disk_room
            .asks_for_flush(core.log.position_bytes(), core.memory.used_bytes, active)
    }

    /// To be called every now and then: without requests nothing else looks whether there is work.
    pub fn tend(&mut self) {
        self.seal_laggards();
        self.seal_for_large();
        self.seal_for_space();
        self.seal_oldest_deletion();
        self.advance_watermarks();
    }

    /// Seals the memtable whose first deletion is the oldest, if that keeps its space in tables until it is flushed: no
    /// write may come that would fill the memtable. One at a time, for there may be thousands of shards.
    fn seal_oldest_deletion(&mut self) {
        let replicas = self.replicas.iter_mut().flatten();
        let old = replicas.filter_map(|replica| Some((replica.old_deletion(&self.core)?, replica)));
        if let Some((_, replica)) = old.min_by_key(|(first, _)| *first)
            && replica.seal(&mut self.core)
        {
            self.flush_work.notify();
        }
    }

    /// Moves the watermarks of shards on in which nothing else does, if something is to be dropped then.
    fn advance_watermarks(&mut self) {
        if self.core.log.has_failed() {
            return;
        }
        for replica in self.replicas.iter_mut().flatten() {
            let busy = self.upkeep.busy_of(replica.shard());
            if replica.advance_watermark(&mut self.core, &busy) {
                self.merge_work.notify();
            }
        }
    }

    /// Sets how fast the core writes, by what there is to do.
    pub(super) fn set_pace(&self) {
        let Some(files) = self.replicas.iter().flatten().next().map(ShardReplica::files) else {
            return;
        };
        let memory = &self.core.memory;
        let load = Load {
            debt_bytes: self.upkeep.debt_bytes,
            due_bytes: self.upkeep.due_bytes,
            waiting_runs: self.upkeep.waiting_runs,
            sealed_bytes: memory.sealed_bytes as u64,
            memory_bytes: memory.used_bytes as u64,
            memory_budget_bytes: memory.budget_bytes as u64,
        };
        let rates = rates(&load, &files.options().compaction);
        files.env().flush_pace.set_bytes_per_second(rates.flush);
        files.env().merge_pace.set_bytes_per_second(rates.merge);
        self.core.log.pace().set_bytes_per_second(rates.log);
    }

    /// The cache gets what tables leave of its memory, and the pace follows what there is to merge.
    pub(super) fn tables_changed(&mut self) {
        self.upkeep.debt_bytes = self.debt_bytes();
        self.upkeep.due_bytes = self.sum_of_trees(due_bytes);
        let waiting_runs = |replica: &ShardReplica| {
            let options = &replica.files().options().compaction;
            waiting_runs(replica.store().tables().tree(), options)
        };
        let waiting_runs = self.replicas.iter().flatten().map(waiting_runs);
        self.upkeep.waiting_runs = waiting_runs.max().unwrap_or(0);
        self.set_pace();
        let replicas = self.replicas.iter().flatten();
        let held_bytes: usize = replicas
            .map(|replica| replica.store().tables().held_bytes())
            .sum();
        self.cache
            .set_capacity(self.cache_bytes.saturating_sub(held_bytes));
        self.merge_work.notify();
    }
}
