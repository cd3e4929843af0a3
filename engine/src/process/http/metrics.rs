//! A node's report as metrics.
//!
//! Counters, sizes and latencies are told per core, and sizes of shards per shard.

use super::exposition::{Exposition, Labels, Type};
use super::families::{LEVELS_NAME, MICROSECONDS, NANOSECONDS, PER_CORE, PER_SHARD};
use super::process;
use crate::server::status::counters::{Operation, Stage};
use crate::server::status::report::{LatencyReport, StatsReport, latency_bounds_ns};

/// The whole text of `/metrics`.
pub(super) fn text(report: &StatsReport) -> String {
    let mut exposition = Exposition::default();
    node(&mut exposition, report);
    operations(&mut exposition, report);
    latencies(&mut exposition, report);
    for (name, of_type, help, value) in PER_CORE {
        let mut family = exposition.family(name, of_type, help);
        for core in &report.cores {
            family.sample(&[("core", &core.core.to_string())], value(core));
        }
    }
    let name = "ostrakon_connections_refused_total";
    let help = "Client connections refused, or ended by the server, by reason.";
    let mut family = exposition.family(name, Type::Counter, help);
    for core in &report.cores {
        for (reason, count) in &core.connections.refused {
            family.sample(&[("core", &core.core.to_string()), ("reason", reason)], count);
        }
    }
    for (name, help, value) in PER_SHARD {
        let mut family = exposition.family(name, Type::Gauge, help);
        for core in &report.cores {
            for shard in &core.shards {
                let labels: Labels<'_> = &[
                    ("core", &core.core.to_string()),
                    ("shard", &shard.shard.to_string()),
                ];
                family.sample(labels, value(shard));
            }
        }
    }
    let name = "ostrakon_shard_deduplicated_writes_total";
    let help = "Writes that came again and were answered from memory.";
    let mut family = exposition.family(name, Type::Counter, help);
    for core in &report.cores {
        for shard in &core.shards {
            let labels: Labels<'_> = &[
                ("core", &core.core.to_string()),
                ("shard", &shard.shard.to_string()),
            ];
            family.sample(labels, shard.deduplicated);
        }
    }
    let help = "Bytes of tables by level; level 0 is the young runs.";
    let mut family = exposition.family(LEVELS_NAME, Type::Gauge, help);
    for core in &report.cores {
        for shard in &core.shards {
            for (level, bytes) in shard.level_bytes.iter().enumerate() {
                let labels: Labels<'_> = &[
                    ("core", &core.core.to_string()),
                    ("shard", &shard.shard.to_string()),
                    ("level", &level.to_string()),
                ];
                family.sample(labels, bytes);
            }
        }
    }
    process::metrics(&mut exposition);
    exposition.into_text()
}

fn node(exposition: &mut Exposition, report: &StatsReport) {
    let labels: Labels<'_> = &[
        ("version", report.version),
        ("cluster_id", &report.cluster_id),
        ("node_id", &report.node_id),
    ];
    exposition
        .family("ostrakon_node_info", Type::Gauge, "Who the node is; always 1.")
        .sample(labels, 1);
    exposition
        .family(
            "ostrakon_boot",
            Type::Gauge,
            "How often the data directory was started.",
        )
        .sample(&[], report.boot);
}

fn operations(exposition: &mut Exposition, report: &StatsReport) {
    let help = "Requests of clients that were answered, error answers included.";
    let mut family = exposition.family("ostrakon_requests_total", Type::Counter, help);
    for core in &report.cores {
        for (operation, of_core) in &core.operations {
            let labels: Labels<'_> = &[("core", &core.core.to_string()), ("operation", operation)];
            family.sample(labels, of_core.requests);
        }
    }
    let help = "Error answers, by code, counted by the core that made them.";
    let mut family = exposition.family("ostrakon_request_errors_total", Type::Counter, help);
    for core in &report.cores {
        for (operation, of_core) in &core.operations {
            for (code, count) in &of_core.errors {
                let labels: Labels<'_> = &[
                    ("core", &core.core.to_string()),
                    ("operation", operation),
                    ("code", code),
                ];
                family.sample(labels, count);
            }
        }
    }
}

fn latencies(exposition: &mut Exposition, report: &StatsReport) {
    let help = "From receipt to the end of the turn that answers, on the core of the client's connection.";
    let mut family = exposition.family("ostrakon_request_duration_seconds", Type::Histogram, help);
    for core in &report.cores {
        let number = core.core.to_string();
        for operation in Operation::ALL.map(Operation::name) {
            let (buckets, sum, count) = histogram(&core.operations[operation].latency);
            let labels = [("core", number.as_str()), ("operation", operation)];
            family.histogram(&labels, buckets, sum, count);
        }
    }
    let help = "Parts of the way of requests, on the core where each lies.";
    let mut family = exposition.family("ostrakon_stage_duration_seconds", Type::Histogram, help);
    for core in &report.cores {
        let number = core.core.to_string();
        for stage in Stage::ALL.map(Stage::name) {
            let (buckets, sum, count) = histogram(&core.stages[stage]);
            family.histogram(
                &[("core", number.as_str()), ("stage", stage)],
                buckets,
                sum,
                count,
            );
        }
    }
}

/// Buckets with their bounds in seconds, the sum in seconds and the count.
fn histogram(latency: &LatencyReport) -> (impl Iterator<Item = (f64, u64)>, f64, u64) {
    let bounds = latency_bounds_ns().map(|bound_ns| bound_ns as f64 / NANOSECONDS);
    let buckets = bounds.zip(latency.counts.iter().copied());
    (buckets, latency.sum_us / MICROSECONDS, latency.count)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::server::status::histogram::LatencyHistogram;
    use crate::server::status::report::{ConnectionReport, CoreReport, LogReport, OperationReport};
    use crate::shard::statistics::{ShardStatistics, StorageStatistics};

    fn latency(latencies_ns: &[u64]) -> LatencyReport {
        let mut histogram = LatencyHistogram::default();
        for latency_ns in latencies_ns {
            histogram.record(*latency_ns);
        }
        LatencyReport::new(&histogram)
    }

    fn core(number: u16, shard: u32) -> CoreReport {
        let operation = |operation: Operation| {
            let report = OperationReport {
                requests: 2,
                errors: BTreeMap::from([("Busy".to_owned(), 1)]),
                latency: latency(&[5_000, 20_000]),
            };
            (operation.name(), report)
        };
        CoreReport {
            core: number,
            draining: false,
            operations: Operation::ALL.map(operation).into(),
            stages: Stage::ALL.map(|stage| (stage.name(), latency(&[1]))).into(),
            forwarded: 3,
            connections: ConnectionReport {
                open: 1,
                requests_in_flight: 0,
                accepted: 2,
                refused: BTreeMap::from([("too_many", 4)]),
                received_bytes: 5,
                sent_bytes: 6,
            },
            log: LogReport {
                batches: 1,
                records: 1,
                bytes: 4096,
                write_us: 250.0,
                segments: 1,
                segments_live: 1,
                segments_recycled: 0,
                segments_removed: 0,
                live_bytes: 4096,
                failed: false,
                disk_full: false,
            },
            storage: StorageStatistics::default(),
            memory_bytes: 7,
            memory_budget_bytes: 8,
            checkpoints: 1,
            shards: vec![ShardStatistics {
                shard,
                keys: 1,
                versions: 2,
                memory_bytes: 3,
                tables: 2,
                table_versions: 9,
                tombstones: 1,
                range_tombstones: 2,
                young_runs: 1,
                level_bytes: [4096, 0, 0, 0, 0, 0, 8192],
                in_flight: 0,
                sessions: 1,
                answers: 2,
                deduplicated: 3,
            }],
        }
    }

    /// A report of a node of two cores with a shard each.
    pub(in crate::process::http) fn two_cores() -> StatsReport {
        StatsReport {
            cluster_id: "c".repeat(32),
            node_id: "a".repeat(16),
            version: "1.2.3",
            boot: 4,
            latency_bounds_us: Vec::new(),
            cores: vec![core(0, 1), core(1, 0)],
        }
    }

    #[test]
    fn everything_is_told_once_with_its_labels() {
        let text = text(&two_cores());
        for line in [
            "ostrakon_requests_total{core=\"1\",operation=\"multi_put\"} 2",
            "ostrakon_request_errors_total{core=\"0\",operation=\"get\",code=\"Busy\"} 1",
            "ostrakon_connections_refused_total{core=\"0\",reason=\"too_many\"} 4",
            "ostrakon_log_write_seconds_total{core=\"1\"} 0.00025",
            "ostrakon_shard_versions{core=\"1\",shard=\"0\"} 2",
            "ostrakon_shard_level_bytes{core=\"1\",shard=\"0\",level=\"6\"} 8192",
            "ostrakon_boot 4",
        ] {
            assert_eq!(
                text.lines().filter(|found| *found == line).count(),
                1,
                "{line} in {text}"
            );
        }
        let families: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .collect();
        let distinct: std::collections::BTreeSet<_> = families.iter().collect();
        assert_eq!(families.len(), distinct.len(), "a family is in one piece");
        let manual = include_str!("../../../../docs/operations.md");
        for family in families {
            let name = family.split(' ').next().expect("a name");
            assert!(
                manual.contains(&format!("`{name}`")),
                "{name} is not in operations.md"
            );
        }
    }

    #[test]
    fn latencies_are_told_core_by_core() {
        let text = text(&two_cores());
        for line in [
            "bucket{core=\"1\",operation=\"get\",le=\"0.000004096\"} 0",
            "bucket{core=\"1\",operation=\"get\",le=\"0.000008192\"} 1",
            "bucket{core=\"1\",operation=\"get\",le=\"0.000016384\"} 1",
            "bucket{core=\"1\",operation=\"get\",le=\"0.000032768\"} 2",
            "bucket{core=\"1\",operation=\"get\",le=\"17.179869184\"} 2",
            "bucket{core=\"1\",operation=\"get\",le=\"+Inf\"} 2",
            "sum{core=\"1\",operation=\"get\"} 0.000025",
            "count{core=\"1\",operation=\"get\"} 2",
        ] {
            let line = format!("ostrakon_request_duration_seconds_{line}");
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(
            text.contains("ostrakon_stage_duration_seconds_count{core=\"0\",stage=\"apply\"} 1\n"),
            "{text}"
        );
    }
}
