//! The faults of an ordinary run, drawn from its seed: some kinds of fault, a few times each, at least one crash, and
//! enough kinds that are sure to strike.

use ostrakon::limits::{DISK_RESERVE_BYTES, STORE_RESERVE_BYTES};

use super::plan::{ClientPlan, Operation, OperationKind, SERVER};
use crate::sim::disk::DiskOperations;
use crate::sim::{CrashStyle, Fault, FaultAction, FaultAt, FaultAtKind, HostId, NetworkTrouble, SimRandom};

const MILLISECOND_NS: u64 = 1_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// In some runs, a fault or two at operations, wherever those may be.
pub(super) fn draw_faults_at(random: &SimRandom) -> Vec<FaultAt> {
    let count = if random.one_in(4) { random.between(1, 2) } else { 0 };
    (0..count)
        .map(|_| {
            let kinds = [
                FaultAtKind::DiskError,
                FaultAtKind::DiskSlow(1_000),
                FaultAtKind::DiskHang(SECOND_NS),
                FaultAtKind::LatentReadError,
                FaultAtKind::SegmentLoss(3),
                FaultAtKind::SegmentDuplicate,
                FaultAtKind::SegmentDelay(2 * SECOND_NS),
                FaultAtKind::ConnectionReset,
            ];
            let place = random.index(kinds.len());
            FaultAt {
                host: SERVER,
                operation: random.below(2_500),
                kind: kinds[place].clone(),
                is_network: place >= 4,
            }
        })
        .collect()
}

/// Some kinds of fault, each a few times, and at least one crash.
pub(super) fn draw_faults(random: &SimRandom, horizon_ns: u64) -> Vec<Fault> {
    let mut faults = Vec::new();
    let at = |kind| Fault {
        at_ns: random.below(horizon_ns),
        host: SERVER,
        kind,
    };
    for _ in 0..random.between(1, 4) {
        let style = if random.one_in(3) {
            CrashStyle::ProcessKill
        } else {
            CrashStyle::PowerLoss
        };
        faults.push(at(FaultAction::Crash(style)));
    }
    let mut damage_left = 2;
    for _ in 0..random.between(3, 9) {
        let (count, action) = draw_action(random);
        let is_damage = matches!(
            action,
            FaultAction::BitFlip
                | FaultAction::LostWrite
                | FaultAction::MisdirectedWrite
                | FaultAction::LatentReadError
        );
        for _ in 0..count {
            if is_damage && damage_left == 0 {
                break;
            }
            damage_left -= u32::from(is_damage);
            faults.push(at(action.clone()));
        }
    }
    add_sure_kinds(&random.derived("sure kinds"), horizon_ns, &mut faults);
    add_clock_blip(&random.derived("clock blip"), horizon_ns, &mut faults);
    faults.sort_by_key(|fault| fault.at_ns);
    faults
}

/// In some runs, a wall clock that is far ahead for a moment, and a crash soon after: some shards have logged
/// ceilings of that moment and others have not, so that the cores of the next process begin far apart.
fn add_clock_blip(random: &SimRandom, horizon_ns: u64, faults: &mut Vec<Fault>) {
    if !random.one_in(10) {
        return;
    }
    let by_us = random.between(20, 3_600) as i64 * 1_000_000;
    let forth_ns = random.below(horizon_ns);
    let back_ns = forth_ns + random.between(MILLISECOND_NS, 40 * MILLISECOND_NS);
    let crash_ns = back_ns + random.between(MILLISECOND_NS, 100 * MILLISECOND_NS);
    for (at_ns, kind) in [
        (forth_ns, FaultAction::ClockJump { by_us }),
        (back_ns, FaultAction::ClockJump { by_us: -by_us }),
        (crash_ns, FaultAction::Crash(CrashStyle::ProcessKill)),
    ] {
        faults.push(Fault {
            at_ns,
            host: SERVER,
            kind,
        });
    }
}

/// Before a quiet blip nothing is written for so long, in which the threads are behind their plans as a rule.
const QUIET_BEFORE_NS: u64 = 150 * MILLISECOND_NS;
/// A value that expires by a quiet blip lives longer than a ceiling reaches.
const QUIET_TTL_MS_MIN: u64 = 4_000;

/// In some runs, a wall clock that is far ahead for a moment in which only gets are asked, and a crash: what has
/// expired by it must not come back, though no write has logged a ceiling of that moment. True in such a run.
pub(super) fn add_quiet_blip(
    random: &SimRandom,
    clients: &mut [ClientPlan],
    faults: &mut Vec<Fault>,
) -> bool {
    if !random.one_in(16) {
        return false;
    }
    let forth_ns = random.between(200 * MILLISECOND_NS, 500 * MILLISECOND_NS);
    let crash_ns = forth_ns + random.between(5 * MILLISECOND_NS, 60 * MILLISECOND_NS);
    let by_us = random.between(20, 3_600) as i64 * 1_000_000;
    let quiet_ns = forth_ns - QUIET_BEFORE_NS..crash_ns + 10 * MILLISECOND_NS;
    for thread in clients.iter_mut().flat_map(|client| &mut client.threads) {
        let mut elapsed_ns = 0;
        for operation in thread {
            elapsed_ns += operation.pause_ns;
            if elapsed_ns < quiet_ns.start && operation.kind == OperationKind::Put {
                operation.ttl_ms = random.between(QUIET_TTL_MS_MIN, by_us as u64 / 1_000) as u32;
            } else if quiet_ns.contains(&elapsed_ns) {
                *operation = Operation {
                    pause_ns: operation.pause_ns,
                    number: operation.number,
                    ..Operation::plain(OperationKind::Get, operation.key)
                };
            }
        }
    }
    for (at_ns, kind) in [
        (forth_ns, FaultAction::ClockJump { by_us }),
        (crash_ns, FaultAction::Crash(CrashStyle::ProcessKill)),
        (crash_ns + 1, FaultAction::ClockJump { by_us: -by_us }),
    ] {
        faults.push(Fault {
            at_ns,
            host: SERVER,
            kind,
        });
    }
    faults.sort_by_key(|fault| fault.at_ns);
    true
}

/// Keys whose values expire while their successors are on their way.
const LATE_KEYS: u32 = 3;
/// For so long they get values that expire.
const LATE_PUTS_NS: u64 = 50 * MILLISECOND_NS;
/// Then so much time passes until the disk hangs, for threads that are behind.
const LATE_REST_NS: u64 = 50 * MILLISECOND_NS;
/// Between two requests of a thread.
const LATE_PAUSE_NS: u64 = 20 * MILLISECOND_NS;

/// In some runs, a disk that hangs while the values of a few keys expire, of which some are being replaced: a key whose
/// next value came before its last one expired never was absent, whoever looks while the disk hangs.
pub(super) fn add_late_successors(random: &SimRandom, clients: &mut [ClientPlan], faults: &mut Vec<Fault>) {
    if !random.one_in(8) {
        return;
    }
    let begin_ns = random.below(100 * MILLISECOND_NS);
    let hang_ns = begin_ns + LATE_PUTS_NS + LATE_REST_NS;
    let duration_ns = random.between(100 * MILLISECOND_NS, 400 * MILLISECOND_NS);
    let end_ns = hang_ns + duration_ns;
    for thread in clients.iter_mut().flat_map(|client| &mut client.threads) {
        let replaces = random.one_in(2);
        let mut elapsed_ns = 0;
        for operation in thread {
            if elapsed_ns >= begin_ns {
                operation.pause_ns = random.below(LATE_PAUSE_NS);
            }
            elapsed_ns += operation.pause_ns;
            if elapsed_ns < begin_ns {
                continue;
            }
            if elapsed_ns >= end_ns {
                break;
            }
            let (kind, ttl_ns) = if elapsed_ns < begin_ns + LATE_PUTS_NS {
                // It expires in the second half.
                let left_ns = hang_ns - elapsed_ns + duration_ns / 2;
                (OperationKind::Put, left_ns + random.below(duration_ns / 3))
            } else if elapsed_ns >= hang_ns && replaces {
                (OperationKind::Put, 0)
            } else {
                (OperationKind::Get, 0)
            };
            *operation = Operation {
                pause_ns: operation.pause_ns,
                number: operation.number,
                ttl_ms: (ttl_ns / MILLISECOND_NS) as u32,
                ..Operation::plain(kind, operation.key % LATE_KEYS)
            };
        }
    }
    // What else strikes at a time would mostly keep the threads from their plans; it comes later, in its order.
    for fault in faults.iter_mut() {
        fault.at_ns += end_ns;
    }
    faults.push(Fault {
        at_ns: hang_ns,
        host: SERVER,
        kind: FaultAction::DiskHang { duration_ns },
    });
    faults.sort_by_key(|fault| fault.at_ns);
}

/// Kinds of fault beside crashes that each run is meant to see.
const SURE_KINDS: usize = 3;
/// Longer than any run: pauses may take up most of a shorter time.
const UNTIL_HEALED_NS: u64 = 1_000 * SECOND_NS;

/// Adds faults until there are [`SURE_KINDS`] kinds that will strike: those that wait for what they strike, those
/// that need nothing to strike, and those that go on for so long that they must meet something.
fn add_sure_kinds(random: &SimRandom, horizon_ns: u64, faults: &mut Vec<Fault>) {
    let is_sure = |action: &FaultAction| match action {
        FaultAction::Pause { .. }
        | FaultAction::ClockOffset { .. }
        | FaultAction::ClockJump { .. }
        | FaultAction::ClockDrift { .. }
        | FaultAction::MonotonicRate { .. } => true,
        // Each start has two cores at least.
        FaultAction::StallCore { core, .. } => *core < 2,
        FaultAction::DiskSlow { duration_ns, .. } | FaultAction::Network { duration_ns, .. } => {
            *duration_ns >= UNTIL_HEALED_NS
        }
        _ => false,
    };
    let kind = |action: &FaultAction| match action {
        FaultAction::Network { trouble, .. } => (std::mem::discriminant(action), Some(*trouble as u8)),
        _ => (std::mem::discriminant(action), None),
    };
    let sure = faults
        .iter()
        .map(|fault| &fault.kind)
        .filter(|action| is_sure(action));
    let mut kinds = Vec::new();
    for action in sure {
        if !kinds.contains(&kind(action)) {
            kinds.push(kind(action));
        }
    }
    while kinds.len() < SURE_KINDS {
        let action = draw_sure(random);
        if is_sure(&action) && !kinds.contains(&kind(&action)) {
            kinds.push(kind(&action));
            // Early, so that there is enough to strike.
            faults.push(Fault {
                at_ns: random.below(horizon_ns / 4 + 1),
                host: SERVER,
                kind: action,
            });
        }
    }
}

fn draw_sure(random: &SimRandom) -> FaultAction {
    let duration_ns = UNTIL_HEALED_NS;
    match random.below(8) {
        0 | 1 => draw_standstill(random).1,
        2 | 3 => draw_clock(random).1,
        4 => FaultAction::DiskSlow {
            factor: random.between(3, 20),
            duration_ns,
        },
        _ => {
            let trouble = WEATHER[random.index(WEATHER.len())];
            FaultAction::Network {
                trouble,
                per_thousand: random.between(50, 300) as u32,
                duration_ns,
            }
        }
    }
}

/// How often, and what.
fn draw_action(random: &SimRandom) -> (u64, FaultAction) {
    match random.below(5) {
        0 => draw_standstill(random),
        1 => draw_clock(random),
        2 => draw_disk(random),
        3 => draw_damage(random),
        _ => draw_network(random),
    }
}

/// A short time and a long one, as faults go.
fn durations(random: &SimRandom) -> (u64, u64) {
    (random.around(30 * MILLISECOND_NS), random.around(2 * SECOND_NS))
}

fn draw_standstill(random: &SimRandom) -> (u64, FaultAction) {
    let (short_ns, long_ns) = durations(random);
    let few = random.between(1, 3);
    let core = random.below(4) as u16;
    match random.below(4) {
        0 => (
            few,
            FaultAction::Pause {
                duration_ns: short_ns,
            },
        ),
        1 => (1, FaultAction::Pause { duration_ns: long_ns }),
        2 => (
            1,
            FaultAction::StallCore {
                core,
                duration_ns: long_ns,
            },
        ),
        _ => (
            few,
            FaultAction::StallCore {
                core,
                duration_ns: short_ns * 3,
            },
        ),
    }
}

fn draw_clock(random: &SimRandom) -> (u64, FaultAction) {
    // Up to `most` in either direction.
    let around_zero = |most: i64| random.below(2 * most as u64) as i64 - most;
    match random.below(4) {
        0 => (
            1,
            FaultAction::ClockOffset {
                by_us: around_zero(10_000_000),
            },
        ),
        1 => (
            random.between(1, 3),
            FaultAction::ClockJump {
                by_us: around_zero(3_600_000_000),
            },
        ),
        2 => (
            1,
            FaultAction::ClockDrift {
                ppm: around_zero(100_000),
            },
        ),
        _ => (
            1,
            FaultAction::MonotonicRate {
                ppm: around_zero(1_000),
            },
        ),
    }
}

fn draw_disk(random: &SimRandom) -> (u64, FaultAction) {
    let (short_ns, long_ns) = durations(random);
    match random.below(5) {
        0 => {
            let factor = random.between(5, 300);
            (
                random.between(1, 3),
                FaultAction::DiskSlow {
                    factor,
                    duration_ns: short_ns * 4,
                },
            )
        }
        1 => (1, FaultAction::DiskHang { duration_ns: long_ns }),
        2 => {
            let kinds = [
                DiskOperations::All,
                DiskOperations::Write,
                DiskOperations::Sync,
                DiskOperations::SyncDir,
                DiskOperations::Open,
                DiskOperations::Read,
                DiskOperations::Names,
                DiskOperations::List,
            ];
            let operations = kinds[random.index(kinds.len())];
            (
                1,
                FaultAction::DiskError {
                    operations,
                    count: random.between(1, 3) as u32,
                },
            )
        }
        _ => {
            // Next to nothing, or about what tables, deletes and the log leave free.
            let free_bytes = if random.one_in(2) {
                random.below(3 << 20)
            } else {
                random.between(STORE_RESERVE_BYTES, DISK_RESERVE_BYTES + (8 << 20))
            };
            // Long enough, at times, for ceilings to run out.
            let duration_ns = long_ns * random.between(1, 10);
            (
                1,
                FaultAction::DiskFull {
                    free_bytes,
                    duration_ns,
                },
            )
        }
    }
}

fn draw_damage(random: &SimRandom) -> (u64, FaultAction) {
    let kinds = [
        FaultAction::BitFlip,
        FaultAction::LatentReadError,
        FaultAction::LostWrite,
        FaultAction::MisdirectedWrite,
    ];
    (1, kinds[random.index(kinds.len())].clone())
}

/// What may befall segments for a while.
const WEATHER: [NetworkTrouble; 4] = [
    NetworkTrouble::Loss,
    NetworkTrouble::Duplicate,
    NetworkTrouble::Reorder,
    NetworkTrouble::Delay,
];

fn draw_network(random: &SimRandom) -> (u64, FaultAction) {
    let (_, long_ns) = durations(random);
    let few = random.between(1, 3);
    match random.below(8) {
        0 => (few, partition(random, true, true, long_ns)),
        1 => {
            let sends = random.one_in(2);
            (few, partition(random, sends, !sends, long_ns))
        }
        2 => (few, FaultAction::HalfClose),
        3 => (
            few * 2,
            FaultAction::ConnectionReset {
                after_bytes: random.below(20_000),
            },
        ),
        _ => (
            few,
            network(random, WEATHER[random.index(WEATHER.len())], long_ns),
        ),
    }
}

fn partition(random: &SimRandom, sends: bool, receives: bool, duration_ns: u64) -> FaultAction {
    FaultAction::Partition {
        // From one client, or from all.
        peer: random.one_in(2).then(|| HostId(1 + random.below(2) as u16)),
        sends,
        receives,
        duration_ns,
    }
}

fn network(random: &SimRandom, trouble: NetworkTrouble, duration_ns: u64) -> FaultAction {
    FaultAction::Network {
        trouble,
        per_thousand: random.between(10, 300) as u32,
        duration_ns,
    }
}
