//! What a core and a node say of themselves: counters, latencies, sizes.

use hdrhistogram::Histogram;
use ostrakon_wire::message::ErrorCode;
use serde::Serialize;

use super::core::Core;
use crate::cluster::identity::Identity;

/// Longest latency that is told apart, in nanoseconds.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// Counters of one core since its start.
pub(super) struct CoreCounters {
    pub(super) gets: u64,
    pub(super) writes: u64,
    pub(super) scans: u64,
    pub(super) pings: u64,
    pub(super) forwarded: u64,
    errors: u64,
    busy: u64,
    write_latency_ns: Histogram<u64>,
}

impl CoreCounters {
    pub(super) fn new() -> CoreCounters {
        CoreCounters {
            gets: 0,
            writes: 0,
            scans: 0,
            pings: 0,
            forwarded: 0,
            errors: 0,
            busy: 0,
            write_latency_ns: Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("valid bounds"),
        }
    }

    /// A put or delete was answered, so long after it was decoded.
    pub(super) fn write_answered(&mut self, latency_ns: u64) {
        self.write_latency_ns.saturating_record(latency_ns);
    }

    /// An error was answered.
    pub(super) fn error(&mut self, code: ErrorCode) {
        if code == ErrorCode::Busy {
            self.busy += 1;
        } else {
            self.errors += 1;
        }
    }
}

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
    /// Puts and deletes executed on this core's shards.
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
    /// Puts and deletes of this core's clients, from decoded request to encoded answer.
    pub write_latency: LatencySummary,
    /// Keys with at least one version.
    pub keys: usize,
    /// Versions.
    pub versions: usize,
    /// Bytes of the memtables.
    pub memory_bytes: usize,
    /// The bound on them.
    pub memory_budget_bytes: usize,
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
    pub(super) fn new(identity: &Identity, mut cores: Vec<CoreStatus>) -> NodeStatus {
        cores.sort_by_key(|status| status.core);
        NodeStatus {
            cluster_id: format!("{:016x}{:016x}", identity.cluster.0, identity.cluster.1),
            node_id: format!("{:016x}", identity.node),
            version: env!("CARGO_PKG_VERSION"),
            boot: identity.boot.0,
            shards: identity.shards,
            cores,
        }
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and strings always serialize")
    }
}

impl Core {
    /// This core's report.
    pub(super) fn status(&self) -> CoreStatus {
        let host = self.host.statistics();
        let log = self.host.log().statistics();
        let latency = &self.answers.counters.write_latency_ns;
        let at = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1e3;
        CoreStatus {
            core: self.id().0,
            shards: host.shards,
            connections: self.answers.connections.count(),
            gets: self.answers.counters.gets,
            writes: self.answers.counters.writes,
            scans: self.answers.counters.scans,
            pings: self.answers.counters.pings,
            forwarded: self.answers.counters.forwarded,
            errors: self.answers.counters.errors,
            busy: self.answers.counters.busy,
            write_latency: LatencySummary {
                count: latency.len(),
                p50_us: at(0.5),
                p95_us: at(0.95),
                p99_us: at(0.99),
                max_us: latency.max() as f64 / 1e3,
            },
            keys: host.keys,
            versions: host.versions,
            memory_bytes: host.memory_bytes,
            memory_budget_bytes: host.memory_budget_bytes,
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
            disk_full: self.host.log().is_disk_full(),
        }
    }
}
