//! What a core's shards hold and have done, in numbers.

use ostrakon_core::lsm::{LEVELS, Tree, run_bytes};
use serde::Serialize;

use super::host::ShardHost;

/// What a core's shards hold together.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostStatistics {
    /// Shards of this core.
    pub shards: usize,
    /// Keys in the memtables that take writes, deleted ones included.
    pub keys: usize,
    /// Their versions there.
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

/// What a core's shards have in tables, and what flushes and merges have done since the start.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct StorageStatistics {
    /// Memtables that wait to be flushed, and their bytes.
    pub sealed_memtables: usize,
    /// See `sealed_memtables`.
    pub sealed_bytes: usize,
    /// Writes that were refused with `Busy` because memtables waited to be flushed.
    pub stalled_writes: u64,
    /// Nanoseconds for which log writes were held back because flushes or merges are behind.
    pub throttled_ns: u64,
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
    /// Bytes that have to go down until all trees are in shape.
    pub debt_bytes: u64,
    /// Tables.
    pub tables: usize,
    /// Their bytes.
    pub table_bytes: u64,
    /// Bytes of them that are in memory as long as they are open: filters and the roots of indexes.
    pub table_held_bytes: usize,
    /// Bytes written to tables for each byte that was flushed.
    pub write_amplification: f64,
    /// Bytes of tables for each byte in the last levels, where each key has one version: about what would be left if
    /// all was merged.
    pub space_amplification: f64,
    /// Runs of the shard that has the most: so many tables a read may have to look at.
    pub runs_max: usize,
    /// Blocks that were found in the cache.
    pub cache_hits: u64,
    /// Blocks that were not.
    pub cache_misses: u64,
    /// Bytes of the blocks in the cache.
    pub cache_bytes: u64,
    /// Bytes that there may be.
    pub cache_capacity_bytes: u64,
    /// Looks into a table that its filter has spared.
    pub filter_skips: u64,
    /// Looks that filters let pass.
    pub filter_passes: u64,
    /// Those of them that found nothing.
    pub filter_false_passes: u64,
}

/// What one shard holds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ShardStatistics {
    /// The shard.
    pub shard: u32,
    /// Keys in the memtable that takes writes, deleted ones included.
    pub keys: usize,
    /// Their versions there.
    pub versions: usize,
    /// Bytes of the memtables and the sessions.
    pub memory_bytes: usize,
    /// Tables.
    pub tables: usize,
    /// Versions in them, tombstones included.
    pub table_versions: u64,
    /// Tombstones in them.
    pub tombstones: u64,
    /// Range tombstones in them.
    pub range_tombstones: u64,
    /// Runs above the levels.
    pub young_runs: usize,
    /// Bytes of the young runs, then of each level.
    pub level_bytes: [u64; LEVELS + 1],
    /// Proposals not applied yet.
    pub in_flight: usize,
    /// Sessions remembered.
    pub sessions: usize,
    /// Answers remembered.
    pub answers: usize,
    /// Writes that came again and were answered from memory, since the start.
    pub deduplicated: u64,
}

impl ShardHost {
    /// Sums over the shards.
    pub fn statistics(&self) -> HostStatistics {
        let mut sum = HostStatistics {
            memory_bytes: self.core.memory.used_bytes,
            memory_budget_bytes: self.core.memory.budget_bytes,
            ..HostStatistics::default()
        };
        for replica in self.replicas.iter().flatten() {
            sum.shards += 1;
            sum.keys += replica.store().active().key_count();
            sum.versions += replica.store().active().version_count();
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
            let tree = replica.store().tables().tree();
            Some(ShardStatistics {
                shard,
                keys: replica.store().active().key_count(),
                versions: replica.store().active().version_count(),
                memory_bytes: replica.memory_bytes(),
                tables: tree.tables().count(),
                table_versions: tree.tables().map(|table| table.versions).sum(),
                tombstones: tree.tables().map(|table| table.tombstones).sum(),
                range_tombstones: tree.tables().map(|table| table.range_tombstones).sum(),
                young_runs: tree.young.len(),
                level_bytes: level_bytes(tree),
                in_flight: replica.in_flight_count(),
                sessions: replica.sessions().session_count(),
                answers: replica.sessions().answer_count(),
                deduplicated: replica.deduplicated(),
            })
        })
    }

    /// What the shards have in tables.
    pub fn storage_statistics(&self) -> StorageStatistics {
        let work = self.upkeep.statistics;
        let cache = self.cache.statistics();
        let mut sum = StorageStatistics {
            stalled_writes: self.core.stalled_writes,
            throttled_ns: self.core.log.pace().waited_ns(),
            flushes: work.flushes,
            flushed_bytes: work.flushed_bytes,
            merges: work.merges,
            merge_read_bytes: work.merge_read_bytes,
            merge_written_bytes: work.merge_written_bytes,
            scrubbed_bytes: work.scrubbed_bytes,
            scrub_rounds: work.scrub_rounds,
            scrub_damages: work.scrub_damages,
            debt_bytes: self.debt_bytes(),
            cache_hits: cache.hits,
            cache_misses: cache.misses,
            cache_bytes: cache.held_bytes,
            cache_capacity_bytes: cache.capacity_bytes,
            filter_skips: cache.filter_skips,
            filter_passes: cache.filter_passes,
            filter_false_passes: cache.filter_false_passes,
            ..StorageStatistics::default()
        };
        let mut last_bytes = 0;
        for replica in self.replicas.iter().flatten() {
            let (store, tree) = (replica.store(), replica.store().tables().tree());
            sum.sealed_memtables += store.sealed().len();
            sum.sealed_bytes += store.sealed_bytes();
            sum.tables += tree.tables().count();
            sum.table_bytes += tree.bytes();
            sum.table_held_bytes += store.tables().held_bytes();
            sum.runs_max = sum.runs_max.max(store.tables().runs().len());
            last_bytes += tree.runs().rev().find(|run| !run.is_empty()).map_or(0, run_bytes);
        }
        sum.write_amplification = ratio(work.flushed_bytes + work.merge_written_bytes, work.flushed_bytes);
        sum.space_amplification = ratio(sum.table_bytes, last_bytes);
        sum
    }
}

/// Bytes of the young runs, then of each level.
fn level_bytes(tree: &Tree) -> [u64; LEVELS + 1] {
    let mut bytes = [0; LEVELS + 1];
    bytes[0] = tree.young.iter().map(run_bytes).sum();
    for (level, run) in tree.levels.iter().enumerate() {
        bytes[level + 1] = run_bytes(run);
    }
    bytes
}

/// One number for each of another; 1 if there is none.
fn ratio(number: u64, other: u64) -> f64 {
    if other == 0 {
        1.0
    } else {
        number as f64 / other as f64
    }
}
