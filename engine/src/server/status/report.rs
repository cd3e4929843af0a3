//! Everything that a node counts, per core and shard: for a client's question and for monitoring systems.

use std::collections::BTreeMap;

use serde::Serialize;

use super::counters::{Operation, Reason, Stage};
use super::histogram::LatencyHistogram;
use super::{cluster_text, node_text};
use crate::cluster::identity::Identity;
use crate::log::Log;
use crate::server::core::Core;
use crate::shard::statistics::{ShardStatistics, StorageStatistics};

/// The bounds of the latency buckets in reports are the powers of two from 2 to this many nanoseconds (4 µs) ...
const FIRST_BOUND_POWER: u32 = 12;
/// ... to 2 to this many (17 s).
const LAST_BOUND_POWER: u32 = 34;

/// Upper bounds in nanoseconds of [`LatencyReport::counts`], in order.
pub fn latency_bounds_ns() -> impl Iterator<Item = u64> {
    (FIRST_BOUND_POWER..=LAST_BOUND_POWER).map(|power| 1 << power)
}

/// Latencies of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct LatencyReport {
    /// Samples.
    pub count: u64,
    /// Their sum in microseconds.
    pub sum_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 95th percentile.
    pub p95_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// Largest.
    pub max_us: f64,
    /// How many were not above each of [`latency_bounds_ns`].
    pub counts: Vec<u64>,
}

impl LatencyReport {
    /// Of what was counted.
    pub fn new(histogram: &LatencyHistogram) -> LatencyReport {
        let us = |ns: u64| ns as f64 / 1e3;
        let [p50, p95, p99, p999] = histogram.quantiles_ns([0.5, 0.95, 0.99, 0.999]);
        LatencyReport {
            count: histogram.count(),
            sum_us: histogram.sum_ns() as f64 / 1e3,
            p50_us: us(p50),
            p95_us: us(p95),
            p99_us: us(p99),
            p999_us: us(p999),
            max_us: us(histogram.max_ns()),
            counts: histogram.counts_up_to_powers(FIRST_BOUND_POWER, LAST_BOUND_POWER),
        }
    }
}

/// One operation on one core.
#[derive(Clone, Debug, Serialize)]
pub struct OperationReport {
    /// Requests of the core's clients that were answered.
    pub requests: u64,
    /// Error answers that the core made, by code.
    pub errors: BTreeMap<String, u64>,
    /// From a request's last byte to the end of the turn that answered it, for the core's clients.
    pub latency: LatencyReport,
}

/// Client connections of one core.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectionReport {
    /// Connections now.
    pub open: usize,
    /// Requests that they have sent and that are not answered.
    pub requests_in_flight: u64,
    /// Connections that were taken in, those that another core handed over included.
    pub accepted: u64,
    /// Connections that were refused or ended by the server, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Bytes that came from clients.
    pub received_bytes: u64,
    /// Bytes that went to clients.
    pub sent_bytes: u64,
}

/// The log of one core.
#[derive(Clone, Debug, Serialize)]
pub struct LogReport {
    /// Batches written.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes written, padding included.
    pub bytes: u64,
    /// Time that the writes took, in microseconds.
    pub write_us: f64,
    /// Segments begun.
    pub segments: u64,
    /// Segments that there are.
    pub segments_live: u64,
    /// Segments that were freed and used again.
    pub segments_recycled: u64,
    /// Segments that were freed and removed.
    pub segments_removed: u64,
    /// Bytes that a restart would have to read.
    pub live_bytes: u64,
    /// True after a failed write: the core serves nothing.
    pub failed: bool,
    /// True while puts are refused for want of space.
    pub disk_full: bool,
}

impl LogReport {
    fn new(log: &Log, disk_full: bool) -> LogReport {
        let (live_bytes, failed) = (log.live_bytes(), log.has_failed());
        let log = log.statistics();
        LogReport {
            batches: log.batches,
            records: log.records,
            bytes: log.bytes,
            write_us: log.write_ns as f64 / 1e3,
            segments: log.segments,
            segments_live: log.segments_live,
            segments_recycled: log.segments_recycled,
            segments_removed: log.segments_removed,
            live_bytes,
            failed,
            disk_full,
        }
    }
}

/// One core.
#[derive(Clone, Debug, Serialize)]
pub struct CoreReport {
    /// The core.
    pub core: u16,
    /// True while the node shuts down: the core refuses requests.
    pub draining: bool,
    /// By operation, each of [`Operation::ALL`].
    pub operations: BTreeMap<&'static str, OperationReport>,
    /// By stage, each of [`Stage::ALL`].
    pub stages: BTreeMap<&'static str, LatencyReport>,
    /// Requests that the core passed to another.
    pub forwarded: u64,
    /// Its connections.
    pub connections: ConnectionReport,
    /// Its log.
    pub log: LogReport,
    /// Its tables.
    pub storage: StorageStatistics,
    /// Bytes of its memtables and sessions.
    pub memory_bytes: usize,
    /// The bound on them.
    pub memory_budget_bytes: usize,
    /// Checkpoints of the node that are not released: the space of their tables can't come back. Each core has all.
    pub checkpoints: usize,
    /// Its shards, in order.
    pub shards: Vec<ShardStatistics>,
}

/// Everything that a node counts.
#[derive(Clone, Debug, Serialize)]
pub struct StatsReport {
    /// Cluster id, 32 hexadecimal digits.
    pub cluster_id: String,
    /// Node id, 16 hexadecimal digits.
    pub node_id: String,
    /// Release of the server.
    pub version: &'static str,
    /// Number of the node's start on its data directory.
    pub boot: u64,
    /// Upper bounds in microseconds of the `counts` of all latencies, in order.
    pub latency_bounds_us: Vec<f64>,
    /// Per core, in order.
    pub cores: Vec<CoreReport>,
}

impl StatsReport {
    pub(in crate::server) fn new(identity: &Identity, mut cores: Vec<CoreReport>) -> StatsReport {
        cores.sort_by_key(|report| report.core);
        StatsReport {
            cluster_id: cluster_text(identity),
            node_id: node_text(identity),
            version: env!("CARGO_PKG_VERSION"),
            boot: identity.boot.0,
            latency_bounds_us: latency_bounds_ns().map(|bound| bound as f64 / 1e3).collect(),
            cores,
        }
    }

    /// As a client gets it.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and strings always serialize")
    }
}

impl Core {
    /// This core's part of the node's report.
    pub(in crate::server) fn report(&self) -> CoreReport {
        let host = self.host.statistics();
        let log = self.host.log();
        let counters = &self.answers.counters;
        let operations = Operation::ALL.iter().zip(&counters.operations);
        let stages = Stage::ALL.iter().zip(&counters.stages);
        CoreReport {
            core: self.id().0,
            draining: self.is_draining,
            operations: operations
                .map(|(operation, counters)| {
                    let report = OperationReport {
                        requests: counters.latency.count(),
                        errors: counters
                            .errors()
                            .map(|(code, count)| (code.to_string(), count))
                            .collect(),
                        latency: LatencyReport::new(&counters.latency),
                    };
                    (operation.name(), report)
                })
                .collect(),
            stages: stages
                .map(|(stage, histogram)| (stage.name(), LatencyReport::new(histogram)))
                .collect(),
            forwarded: counters.forwarded,
            connections: self.connection_report(),
            log: LogReport::new(log, self.host.is_disk_full()),
            storage: self.host.storage_statistics(),
            memory_bytes: host.memory_bytes,
            memory_budget_bytes: host.memory_budget_bytes,
            checkpoints: self.checkpoints.count(),
            shards: self.host.shard_statistics().collect(),
        }
    }

    fn connection_report(&self) -> ConnectionReport {
        let counters = &self.answers.counters.connections;
        ConnectionReport {
            open: self.answers.connections.count(),
            requests_in_flight: self.answers.connections.requests_in_flight(),
            accepted: counters.accepted,
            refused: Reason::ALL
                .map(Reason::name)
                .into_iter()
                .zip(counters.refused)
                .collect(),
            received_bytes: counters.received_bytes,
            sent_bytes: counters.sent_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_report_has_a_count_for_each_bound() {
        let mut histogram = LatencyHistogram::default();
        for latency_ns in [0, 4096, 4097, 1 << 34, 1 << 40] {
            histogram.record(latency_ns);
        }
        let report = LatencyReport::new(&histogram);
        assert_eq!(report.counts.len(), latency_bounds_ns().count());
        assert_eq!((report.counts[0], report.counts[1]), (2, 3));
        assert_eq!((report.counts.last(), report.count), (Some(&4), 5));
        assert!(report.p50_us >= 4.097 && report.p50_us < 4.2, "{report:?}");
        assert!(
            (report.max_us - (1u64 << 40) as f64 / 1e3).abs() < 1e-6,
            "{report:?}"
        );
    }
}
