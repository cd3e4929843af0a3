//! Systematic runs: a crash around every operation that makes something durable, and each kind of fault at each
//! disk and network operation of a short run.

use super::plan::{CRASH_POINTS, Plan, SERVER};
use super::run::run;
use crate::sim::{FaultAt, FaultAtKind};

/// A plan for each crash point of each operation of [`Plan::short`] that makes something durable, restarts with other
/// numbers of cores included, until it heals.
pub fn crashes_at_every_sync(seed: u64) -> Vec<Plan> {
    let plan = Plan::short(seed);
    let syncs = run(&plan, None).sync_operations;
    let places = (0..syncs).flat_map(|sync| CRASH_POINTS.map(|point| (sync, point)));
    places
        .map(|place| Plan {
            crash_at_sync: Some(place),
            ..plan.clone()
        })
        .collect()
}

/// A plan for each kind of fault at each disk and network operation of [`Plan::short`].
pub fn faults_at_every_operation(seed: u64) -> Vec<Plan> {
    let plan = Plan::short(seed);
    let clean = run(&plan, None);
    let of_disk = [
        FaultAtKind::DiskError,
        FaultAtKind::DiskFull,
        FaultAtKind::DiskSlow(1_000),
        FaultAtKind::DiskHang(3_000_000_000),
        FaultAtKind::LostWrite,
        FaultAtKind::MisdirectedWrite,
        FaultAtKind::BitFlip,
        FaultAtKind::LatentReadError,
    ];
    let of_network = [
        FaultAtKind::SegmentLoss(3),
        FaultAtKind::SegmentDuplicate,
        FaultAtKind::SegmentDelay(2_000_000_000),
        FaultAtKind::ConnectionReset,
    ];
    let of_disk = of_disk.map(|kind| (kind, clean.disk_operations, false));
    let of_network = of_network.map(|kind| (kind, clean.network_operations, true));
    let kinds = of_disk.into_iter().chain(of_network);
    kinds
        .flat_map(|(kind, operations, is_network)| {
            let plan = plan.clone();
            (0..operations).map(move |operation| Plan {
                faults_at: vec![FaultAt {
                    host: SERVER,
                    operation,
                    kind: kind.clone(),
                    is_network,
                }],
                ..plan.clone()
            })
        })
        .collect()
}
