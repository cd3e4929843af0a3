//! Systematic runs: a crash around every operation that makes something durable, and each kind of fault at each
//! disk and network operation of a short run.
//!
//! A run without faults tells what operations there are. Up to its fault, a run with one is the same, so that each
//! fault meets the operation that it is aimed at; a run whose fault does not strike fails. Of the operations:
//! 1. Those that a crash of the plan ends, and segments whose connection ends first, are left out.
//! 2. Faults that need more than the operation itself (damage strikes covered writes only, a copy of a segment
//!    must find its connection, and a segment that is held back needs a later one) are rehearsed, and left out where
//!    they don't strike.
//! 3. The identity file is read at each start. A bit of it flips before each read, in each byte in use: the start
//!    must be refused.
//!
//! Segments count at the host that sends them: those of the clients too, but for what concerns a process. The
//! request and the answer that open a connection are no operations.

use std::collections::BTreeMap;

use super::plan::{CRASH_POINTS, Plan, SERVER};
use super::run::run;
use super::strikes::MUST_STRIKE;
use crate::sim::disk::{DiskOperation, DiskOperations};
use crate::sim::network::SentSegment;
use crate::sim::{CrashPoint, FaultAt, FaultAtKind, HostId};

const SECOND_NS: u64 = 1_000_000_000;
/// Longer than a client of the workload waits for an answer.
const STANDSTILL_NS: u64 = 6 * SECOND_NS;
/// More than any bound on the error of a clock.
const JUMP_US: i64 = 3_600_000_000;
/// Bytes of the identity file that are in use (docs/formats.md).
const IDENTITY_BYTES: u16 = 64;

/// The names of all kinds that [`faults_at_every_operation`] puts at operations.
const KINDS: [&str; 20] = [
    "disk-error",
    "disk-full",
    "disk-slow",
    "disk-hang",
    "lost-write",
    "misdirected-write",
    "bit-flip",
    "flip-read",
    "latent-read-error",
    "pause",
    "stall-core",
    "clock-jump",
    "segment-loss",
    "segment-duplicate",
    "segment-delay",
    "segment-reorder",
    "partition-one-way",
    "partition-full",
    "connection-reset",
    "stall-another-core",
];

/// A plan for each crash point of each operation of [`Plan::short`] that makes something durable, restarts with other
/// numbers of cores included, until it heals.
pub fn crashes_at_every_sync(seed: u64) -> Vec<Plan> {
    let plan = Plan::short(seed);
    let operations = run(&plan, None).operations.disk;
    let syncs = operations
        .iter()
        .filter_map(|operation| Some((operation.sync?, operation.has_ended)));
    let places = syncs.flat_map(|(sync, has_ended)| {
        // There is no moment after what a crash of the plan has ended.
        let points = CRASH_POINTS.into_iter();
        let points = points.filter(move |point| has_ended || *point != CrashPoint::After);
        points.map(move |point| (sync, point))
    });
    places
        .map(|place| Plan {
            crash_at_sync: Some(place),
            must_strike: true,
            ..plan.clone()
        })
        .collect()
}

/// A plan for each kind of fault at each disk and network operation of [`Plan::short`] that it can strike.
///
/// # Errors
/// A sentence, when some kind finds no operation at all.
pub fn faults_at_every_operation(seed: u64) -> Result<Vec<Plan>, String> {
    let plan = Plan::short(seed);
    let clean = run(&plan, None);
    if let Some(failure) = clean.failure {
        return Err(format!(
            "the workload of seed {seed} fails without a fault: {failure}"
        ));
    }
    let of_disk = clean.operations.disk.iter().enumerate();
    let of_disk = of_disk.flat_map(|(number, operation)| at_disk_operation(number, operation));
    let of_network = clean.operations.segments.iter().enumerate();
    let of_network = of_network.flat_map(|(host, segments)| {
        let host = HostId(host as u16);
        let segments = segments.iter().enumerate();
        segments.flat_map(move |(number, segment)| at_segment(host, number, *segment))
    });
    let plans: Vec<Plan> = of_disk
        .chain(of_network)
        .map(|fault| Plan {
            faults_at: vec![fault],
            must_strike: true,
            ..plan.clone()
        })
        .filter(strikes)
        .collect();
    let counts = counts(&plans);
    match KINDS.iter().find(|kind| !counts.contains_key(*kind)) {
        None => Ok(plans),
        Some(kind) => Err(format!(
            "the workload of seed {seed} has no operation that {kind} could strike: take another --sweep-seed"
        )),
    }
}

/// How many of the plans put which kind of fault at an operation.
pub fn counts(plans: &[Plan]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for fault in plans.iter().flat_map(|plan| &plan.faults_at) {
        *counts.entry(name(&fault.kind)).or_default() += 1;
    }
    counts
}

fn name(kind: &FaultAtKind) -> &'static str {
    match kind {
        FaultAtKind::DiskError => "disk-error",
        FaultAtKind::DiskFull => "disk-full",
        FaultAtKind::DiskSlow(_) => "disk-slow",
        FaultAtKind::DiskHang(_) => "disk-hang",
        FaultAtKind::Crash(_) => "crash",
        FaultAtKind::LostWrite => "lost-write",
        FaultAtKind::MisdirectedWrite => "misdirected-write",
        FaultAtKind::BitFlip => "bit-flip",
        FaultAtKind::FlipRead { .. } => "flip-read",
        FaultAtKind::LatentReadError => "latent-read-error",
        FaultAtKind::Pause(_) => "pause",
        FaultAtKind::StallCore { further: 0, .. } => "stall-core",
        FaultAtKind::StallCore { .. } => "stall-another-core",
        FaultAtKind::ClockJump(_) => "clock-jump",
        FaultAtKind::SegmentLoss(_) => "segment-loss",
        FaultAtKind::SegmentDuplicate => "segment-duplicate",
        FaultAtKind::SegmentDelay(_) => "segment-delay",
        FaultAtKind::SegmentReorder(_) => "segment-reorder",
        FaultAtKind::PartitionOneWay(_) => "partition-one-way",
        FaultAtKind::PartitionFull(_) => "partition-full",
        FaultAtKind::ConnectionReset => "connection-reset",
    }
}

/// What concerns the process rather than its disk or network.
fn of_process() -> [FaultAtKind; 5] {
    let stall = |further| FaultAtKind::StallCore {
        further,
        duration_ns: STANDSTILL_NS,
    };
    [
        FaultAtKind::Pause(STANDSTILL_NS),
        stall(0),
        stall(1),
        FaultAtKind::ClockJump(JUMP_US),
        FaultAtKind::ClockJump(-JUMP_US),
    ]
}

fn at_disk_operation(number: usize, operation: &DiskOperation) -> Vec<FaultAt> {
    let mut kinds = Vec::new();
    if operation.has_ended {
        kinds.extend(of_process());
        kinds.extend([
            FaultAtKind::DiskError,
            FaultAtKind::DiskFull,
            FaultAtKind::DiskSlow(1_000),
            FaultAtKind::DiskHang(STANDSTILL_NS),
        ]);
    }
    if operation.has_ended && operation.is_durable_write {
        kinds.extend([
            FaultAtKind::BitFlip,
            FaultAtKind::LostWrite,
            FaultAtKind::MisdirectedWrite,
        ]);
    }
    if operation.has_ended && operation.operations == DiskOperations::Read {
        kinds.extend([FaultAtKind::BitFlip, FaultAtKind::LatentReadError]);
        if operation
            .path
            .ends_with(ostrakon::cluster::identity::IDENTITY_FILE)
        {
            // Each byte, and over eight starts each bit.
            kinds.extend((0..IDENTITY_BYTES).map(|byte| FaultAtKind::FlipRead {
                byte,
                bit: ((usize::from(byte) + number) % 8) as u8,
            }));
        }
    }
    at(SERVER, number, kinds, false)
}

fn at_segment(host: HostId, number: usize, segment: SentSegment) -> Vec<FaultAt> {
    let mut kinds = Vec::new();
    if segment.has_arrived {
        kinds.extend([
            FaultAtKind::SegmentLoss(3),
            FaultAtKind::SegmentDelay(2 * SECOND_NS),
            FaultAtKind::SegmentReorder(SECOND_NS),
            FaultAtKind::PartitionOneWay(STANDSTILL_NS),
            FaultAtKind::PartitionFull(STANDSTILL_NS),
            FaultAtKind::ConnectionReset,
        ]);
    }
    if segment.has_arrived && segment.carries_data {
        kinds.push(FaultAtKind::SegmentDuplicate);
    }
    if host == SERVER && segment.is_of_core {
        kinds.extend(of_process());
    }
    at(host, number, kinds, true)
}

fn at(host: HostId, number: usize, kinds: Vec<FaultAtKind>, is_network: bool) -> Vec<FaultAt> {
    let place = |kind| FaultAt {
        host,
        operation: number as u64,
        kind,
        is_network,
    };
    kinds.into_iter().map(place).collect()
}

/// False when the plan's fault needs a rehearsal, and did not strike in it.
fn strikes(plan: &Plan) -> bool {
    let needs_rehearsal = plan.faults_at.iter().any(|fault| {
        matches!(
            fault.kind,
            FaultAtKind::BitFlip
                | FaultAtKind::LostWrite
                | FaultAtKind::MisdirectedWrite
                | FaultAtKind::SegmentDuplicate
                | FaultAtKind::SegmentReorder(_)
        )
    });
    // A rehearsal that fails otherwise is for the run itself to show.
    !needs_rehearsal
        || run(plan, None)
            .failure
            .is_none_or(|failure| failure.check != MUST_STRIKE)
}
