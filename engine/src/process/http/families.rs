//! The metrics that have one value per core, or one per shard.

use super::exposition::Type;
use crate::server::status::report::CoreReport;
use crate::shard::statistics::ShardStatistics;

/// The metric with one value per shard and level.
pub(super) const LEVELS_NAME: &str = "ostrakon_shard_level_bytes";

pub(super) const MICROSECONDS: f64 = 1e6;
pub(super) const NANOSECONDS: f64 = 1e9;

/// A metric with one value per core: name, type, help, value.
pub(super) type PerCore = (&'static str, Type, &'static str, fn(&CoreReport) -> f64);
/// A metric with one value per shard.
pub(super) type PerShard = (&'static str, &'static str, fn(&ShardStatistics) -> usize);

/// In the order in which they are told.
pub(super) const PER_CORE: [PerCore; 47] = [
    (
        "ostrakon_forwarded_requests_total",
        Type::Counter,
        "Requests that a core passed to the owner of the key, another core.",
        |core| core.forwarded as f64,
    ),
    (
        "ostrakon_connections",
        Type::Gauge,
        "Client connections.",
        |core| core.connections.open as f64,
    ),
    (
        "ostrakon_requests_in_flight",
        Type::Gauge,
        "Requests of clients that are not answered.",
        |core| core.connections.requests_in_flight as f64,
    ),
    (
        "ostrakon_connections_accepted_total",
        Type::Counter,
        "Client connections taken in, those handed over by another core included.",
        |core| core.connections.accepted as f64,
    ),
    (
        "ostrakon_received_bytes_total",
        Type::Counter,
        "Bytes that came from clients.",
        |core| core.connections.received_bytes as f64,
    ),
    (
        "ostrakon_sent_bytes_total",
        Type::Counter,
        "Bytes that went to clients.",
        |core| core.connections.sent_bytes as f64,
    ),
    (
        "ostrakon_log_batches_total",
        Type::Counter,
        "Batches written to the log.",
        |core| core.log.batches as f64,
    ),
    (
        "ostrakon_log_records_total",
        Type::Counter,
        "Records written to the log.",
        |core| core.log.records as f64,
    ),
    (
        "ostrakon_log_bytes_total",
        Type::Counter,
        "Bytes written to the log, padding included.",
        |core| core.log.bytes as f64,
    ),
    (
        "ostrakon_log_write_seconds_total",
        Type::Counter,
        "Time that log writes took, together.",
        |core| core.log.write_us / MICROSECONDS,
    ),
    (
        "ostrakon_log_segments_total",
        Type::Counter,
        "Log segments begun.",
        |core| core.log.segments as f64,
    ),
    (
        "ostrakon_log_failed",
        Type::Gauge,
        "1 after a failed log write: the core serves nothing.",
        |core| f64::from(u8::from(core.log.failed)),
    ),
    (
        "ostrakon_disk_full",
        Type::Gauge,
        "1 while puts are refused for want of disk space.",
        |core| f64::from(u8::from(core.log.disk_full)),
    ),
    (
        "ostrakon_draining",
        Type::Gauge,
        "1 while the node shuts down.",
        |core| f64::from(u8::from(core.draining)),
    ),
    (
        "ostrakon_memory_bytes",
        Type::Gauge,
        "Bytes of the memtables and the tables of sessions.",
        |core| core.memory_bytes as f64,
    ),
    (
        "ostrakon_memory_budget_bytes",
        Type::Gauge,
        "Bound on the bytes of the memtables and the tables of sessions.",
        |core| core.memory_budget_bytes as f64,
    ),
    (
        "ostrakon_checkpoints",
        Type::Gauge,
        "Checkpoints of the node that are not released: the space of their tables can't come back.",
        |core| core.checkpoints as f64,
    ),
    (
        "ostrakon_log_live_bytes",
        Type::Gauge,
        "Bytes of the log that a restart would have to read.",
        |core| core.log.live_bytes as f64,
    ),
    (
        "ostrakon_log_live_segments",
        Type::Gauge,
        "Log segments that there are.",
        |core| core.log.segments_live as f64,
    ),
    (
        "ostrakon_log_recycled_segments_total",
        Type::Counter,
        "Log segments that were freed and used again.",
        |core| core.log.segments_recycled as f64,
    ),
    (
        "ostrakon_memtables_sealed",
        Type::Gauge,
        "Memtables that wait to be flushed.",
        |core| core.storage.sealed_memtables as f64,
    ),
    (
        "ostrakon_memtables_sealed_bytes",
        Type::Gauge,
        "Bytes of the memtables that wait to be flushed.",
        |core| core.storage.sealed_bytes as f64,
    ),
    (
        "ostrakon_stalled_writes_total",
        Type::Counter,
        "Writes refused with Busy because memtables waited to be flushed.",
        |core| core.storage.stalled_writes as f64,
    ),
    (
        "ostrakon_write_throttle_seconds_total",
        Type::Counter,
        "Time for which log writes were held back because flushes or merges are behind.",
        |core| core.storage.throttled_ns as f64 / 1e9,
    ),
    (
        "ostrakon_flushes_total",
        Type::Counter,
        "Memtables that became tables.",
        |core| core.storage.flushes as f64,
    ),
    (
        "ostrakon_flushed_bytes_total",
        Type::Counter,
        "Bytes of tables that were memtables.",
        |core| core.storage.flushed_bytes as f64,
    ),
    (
        "ostrakon_merges_total",
        Type::Counter,
        "Merges of tables, moves without a merge among them.",
        |core| core.storage.merges as f64,
    ),
    (
        "ostrakon_merge_read_bytes_total",
        Type::Counter,
        "Bytes of tables that merges have read.",
        |core| core.storage.merge_read_bytes as f64,
    ),
    (
        "ostrakon_merge_written_bytes_total",
        Type::Counter,
        "Bytes of tables that merges have written.",
        |core| core.storage.merge_written_bytes as f64,
    ),
    (
        "ostrakon_scrubbed_bytes_total",
        Type::Counter,
        "Bytes of tables and manifests that the scrub has read.",
        |core| core.storage.scrubbed_bytes as f64,
    ),
    (
        "ostrakon_scrub_rounds_total",
        Type::Counter,
        "Times that the scrub has looked at everything.",
        |core| core.storage.scrub_rounds as f64,
    ),
    (
        "ostrakon_scrub_damages_total",
        Type::Counter,
        "Places in tables and manifests that the scrub has found damaged.",
        |core| core.storage.scrub_damages as f64,
    ),
    (
        "ostrakon_merge_debt_bytes",
        Type::Gauge,
        "Bytes that have to go down until all tables are in shape.",
        |core| core.storage.debt_bytes as f64,
    ),
    ("ostrakon_tables", Type::Gauge, "Tables.", |core| {
        core.storage.tables as f64
    }),
    (
        "ostrakon_table_bytes",
        Type::Gauge,
        "Bytes of the tables.",
        |core| core.storage.table_bytes as f64,
    ),
    (
        "ostrakon_table_held_bytes",
        Type::Gauge,
        "Bytes of filters and indexes that are in memory as long as tables are open.",
        |core| core.storage.table_held_bytes as f64,
    ),
    (
        "ostrakon_runs_max",
        Type::Gauge,
        "Runs of the shard that has the most: so many tables a read may have to look at.",
        |core| core.storage.runs_max as f64,
    ),
    (
        "ostrakon_write_amplification",
        Type::Gauge,
        "Bytes written to tables for each byte that was flushed, since the start.",
        |core| core.storage.write_amplification,
    ),
    (
        "ostrakon_space_amplification",
        Type::Gauge,
        "Bytes of tables for each byte in the last levels.",
        |core| core.storage.space_amplification,
    ),
    (
        "ostrakon_cache_hits_total",
        Type::Counter,
        "Blocks of tables that were found in the cache.",
        |core| core.storage.cache_hits as f64,
    ),
    (
        "ostrakon_cache_misses_total",
        Type::Counter,
        "Blocks of tables that had to be read.",
        |core| core.storage.cache_misses as f64,
    ),
    (
        "ostrakon_cache_bytes",
        Type::Gauge,
        "Bytes of the blocks in the cache.",
        |core| core.storage.cache_bytes as f64,
    ),
    (
        "ostrakon_cache_capacity_bytes",
        Type::Gauge,
        "Bytes that the blocks in the cache may have.",
        |core| core.storage.cache_capacity_bytes as f64,
    ),
    (
        "ostrakon_filter_skips_total",
        Type::Counter,
        "Looks into a table that its filter has spared.",
        |core| core.storage.filter_skips as f64,
    ),
    (
        "ostrakon_filter_passes_total",
        Type::Counter,
        "Looks into a table that its filter let pass.",
        |core| core.storage.filter_passes as f64,
    ),
    (
        "ostrakon_filter_false_passes_total",
        Type::Counter,
        "Looks that a filter let pass and that found nothing.",
        |core| core.storage.filter_false_passes as f64,
    ),
    (
        "ostrakon_shards",
        Type::Gauge,
        "Shards that a core owns.",
        |core| core.shards.len() as f64,
    ),
];

/// In the order in which they are told.
pub(super) const PER_SHARD: [PerShard; 11] = [
    (
        "ostrakon_shard_keys",
        "Keys in the memtable that takes writes, deleted ones included.",
        |shard| shard.keys,
    ),
    (
        "ostrakon_shard_versions",
        "Versions in the memtable that takes writes.",
        |shard| shard.versions,
    ),
    ("ostrakon_shard_tables", "Tables.", |shard| shard.tables),
    (
        "ostrakon_shard_table_versions",
        "Versions in tables, tombstones included.",
        |shard| shard.table_versions as usize,
    ),
    ("ostrakon_shard_tombstones", "Tombstones in tables.", |shard| {
        shard.tombstones as usize
    }),
    (
        "ostrakon_shard_range_tombstones",
        "Range tombstones in tables.",
        |shard| shard.range_tombstones as usize,
    ),
    (
        "ostrakon_shard_young_runs",
        "Runs of tables above the levels.",
        |shard| shard.young_runs,
    ),
    (
        "ostrakon_shard_memory_bytes",
        "Bytes of the memtable and the table of sessions.",
        |shard| shard.memory_bytes,
    ),
    (
        "ostrakon_shard_proposals_in_flight",
        "Writes that are accepted and not applied.",
        |shard| shard.in_flight,
    ),
    (
        "ostrakon_shard_sessions",
        "Sessions whose writes are remembered.",
        |shard| shard.sessions,
    ),
    (
        "ostrakon_shard_remembered_answers",
        "Answers to writes that are kept for when they come again.",
        |shard| shard.answers,
    ),
];
