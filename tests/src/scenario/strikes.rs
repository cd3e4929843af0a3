//! Faults at operations: which operations a run had to aim at, and whether its faults struck.

use super::plan::{Plan, SERVER};
use crate::sim::disk::DiskOperation;
use crate::sim::network::SentSegment;
use crate::sim::{FaultAtKind, FaultKind, World};

/// The check that [`Plan::must_strike`] asks for.
pub const MUST_STRIKE: &str = "a fault at an operation strikes";

/// Operations of a world so far.
#[derive(Clone, Debug)]
pub struct Operations {
    /// Of the server's disk, by number.
    pub disk: Vec<DiskOperation>,
    /// By host: the segments that it sent, by number.
    pub segments: Vec<Vec<SentSegment>>,
}

impl Operations {
    pub(super) fn of(world: &World) -> Operations {
        let disk = world.disk(SERVER);
        let hosts = world.hosts().into_iter();
        Operations {
            disk: disk.operation_log(),
            segments: hosts.map(|host| world.segments(host)).collect(),
        }
    }
}

/// What had to strike and has not.
pub(super) fn missing(world: &World, plan: &Plan) -> Option<String> {
    if !plan.must_strike {
        return None;
    }
    if let Some(fault) = plan.faults_at.iter().find(|fault| !world.has_struck(fault)) {
        return Some(format!("{fault:?} did not"));
    }
    let crash = plan.crash_at_sync?;
    let has_crashed = world.counters().get(FaultKind::CrashAtOperation) > 0;
    (!has_crashed).then(|| format!("{crash:?} did not"))
}

/// Bits that flipped in files whose reader must notice.
pub(super) fn flipped_reads(world: &World, plan: &Plan) -> usize {
    let flips = plan
        .faults_at
        .iter()
        .filter(|fault| matches!(fault.kind, FaultAtKind::FlipRead { .. }));
    flips.filter(|fault| world.has_struck(fault)).count()
}
