//! What a core and a node say of themselves: counters, latencies, sizes.
//!
//! [`counters`] is what a core counts, in [`histogram`]s where it is a time. The node tells it in two ways: in short as
//! [`NodeStatus`], and in full as [`report::StatsReport`].

pub mod counters;
pub mod histogram;
pub mod report;

use ostrakon_wire::message::ErrorCode;
use serde::Serialize;

use super::core::Core;
use crate::cluster::identity::Identity;

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LatencySummary {
    /// Samples.
    pub count: u64,
    /// Median.
    pub p50_us: f64,
    /// 95th percentile.
    pub p95_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Largest.
    pub max_us: f64,
}

/// One core's report.
#[derive(Clone, Debug, Serialize)]
pub struct CoreStatus {
    /// The core.
    pub core: u16,
    /// Shards that it owns.
    pub shards: usize,
    /// Client connections.
    pub connections: usize,
    /// Gets executed on this core's shards.
    pub gets: u64,
    /// Writes executed on this core's shards.
    pub writes: u64,
    /// Scans that this core's clients asked for.
    pub scans: u64,
    /// Pings.
    pub pings: u64,
    /// Requests that this core passed to another.
    pub forwarded: u64,
    /// Error answers other than `Busy`.
    pub errors: u64,
    /// `Busy` answers.
    pub busy: u64,
    /// Writes of this core's clients, from a request's last byte to the end of the turn that answered it.
    pub write_latency: LatencySummary,
    /// Keys with at least one version.
    pub keys: usize,
    /// Versions.
    pub versions: usize,
    /// Bytes of the memtables and the sessions.
    pub memory_bytes: usize,
    /// The bound on them.
    pub memory_budget_bytes: usize,
    /// Tables.
    pub tables: usize,
    /// Their bytes.
    pub table_bytes: u64,
    /// Bytes that have to go down until all trees are in shape.
    pub debt_bytes: u64,
    /// Bytes of the block cache.
    pub cache_bytes: u64,
    /// Part of the blocks that were found in it, in percent.
    pub cache_hit_percent: f64,
    /// Proposals not applied yet.
    pub in_flight: usize,
    /// Batches written to the log.
    pub log_batches: u64,
    /// Records in them.
    pub log_records: u64,
    /// Bytes written to the log, padding included.
    pub log_bytes: u64,
    /// Mean time of a log write in microseconds.
    pub log_write_mean_us: f64,
    /// Segments begun.
    pub log_segments: u64,
    /// True after a failed log write: the core serves nothing.
    pub log_failed: bool,
    /// True while the file system has no room for the log.
    pub disk_full: bool,
}

/// The node's report, the body of a status reply.
#[derive(Clone, Debug, Serialize)]
pub struct NodeStatus {
    /// Cluster id, 32 hexadecimal digits.
    pub cluster_id: String,
    /// Node id, 16 hexadecimal digits.
    pub node_id: String,
    /// Release of the server.
    pub version: &'static str,
    /// Number of the node's start on its data directory.
    pub boot: u64,
    /// Shards of the cluster.
    pub shards: u32,
    /// Per core, in order.
    pub cores: Vec<CoreStatus>,
}

impl NodeStatus {
    pub(in crate::server) fn new(identity: &Identity, mut cores: Vec<CoreStatus>) -> NodeStatus {
        cores.sort_by_key(|status| status.core);
        NodeStatus {
            cluster_id: cluster_text(identity),
            node_id: node_text(identity),
            version: env!("CARGO_PKG_VERSION"),
            boot: identity.boot.0,
            shards: identity.shards,
            cores,
        }
    }

    pub(in crate::server) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and strings always serialize")
    }
}

fn cluster_text(identity: &Identity) -> String {
    format!("{:016x}{:016x}", identity.cluster.0, identity.cluster.1)
}

fn node_text(identity: &Identity) -> String {
    format!("{:016x}", identity.node)
}

impl Core {
    /// This core's report.
    pub(in crate::server) fn status(&self) -> CoreStatus {
        let host = self.host.statistics();
        let storage = self.host.storage_statistics();
        let log = self.host.log().statistics();
        let counters = &self.answers.counters;
        let latency = counters.write_latency();
        let [p50_us, p95_us, p99_us] = latency.quantiles_ns([0.5, 0.95, 0.99]).map(|ns| ns as f64 / 1e3);
        let busy = counters.errors_of(ErrorCode::Busy);
        CoreStatus {
            core: self.id().0,
            shards: host.shards,
            connections: self.answers.connections.count(),
            gets: counters.gets,
            writes: counters.writes,
            scans: counters.scans,
            pings: counters.pings,
            forwarded: counters.forwarded,
            errors: counters.errors() - busy,
            busy,
            write_latency: LatencySummary {
                count: latency.count(),
                p50_us,
                p95_us,
                p99_us,
                max_us: latency.max_ns() as f64 / 1e3,
            },
            keys: host.keys,
            versions: host.versions,
            memory_bytes: host.memory_bytes,
            memory_budget_bytes: host.memory_budget_bytes,
            tables: storage.tables,
            table_bytes: storage.table_bytes,
            debt_bytes: storage.debt_bytes,
            cache_bytes: storage.cache_bytes,
            cache_hit_percent: storage.cache_hits as f64 * 100.0
                / (storage.cache_hits + storage.cache_misses).max(1) as f64,
            in_flight: host.in_flight,
            log_batches: log.batches,
            log_records: log.records,
            log_bytes: log.bytes,
            log_write_mean_us: if log.batches == 0 {
                0.0
            } else {
                log.write_ns as f64 / log.batches as f64 / 1e3
            },
            log_segments: log.segments,
            log_failed: self.host.log().has_failed(),
            disk_full: self.host.is_disk_full(),
        }
    }
}
