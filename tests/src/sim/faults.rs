//! Faults as data: what happens when to which host, known before the run, so that a failing run can be shrunk by
//! leaving faults out.

use serde::{Deserialize, Serialize};

use super::counters::FaultKind;
use super::disk::damage::Strike;
use super::disk::{CrashPoint, DiskOperations};
use super::host::{CrashStyle, HostId};
use super::network::faults::NetworkTrouble;
use super::trace::TraceKind;
use super::world::World;

/// How often a fault that would meet nothing looks for a target.
const TARGET_INTERVAL_NS: u64 = 1_000_000;

/// A fault of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Virtual time in nanoseconds.
    pub at_ns: u64,
    /// Whom it concerns.
    pub host: HostId,
    /// What happens.
    pub kind: FaultAction,
}

/// What a fault does. Durations are virtual nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultAction {
    /// The host fails; the harness starts its process again.
    Crash(CrashStyle),
    /// The process stands still.
    Pause {
        /// For so long.
        duration_ns: u64,
    },
    /// A core of the process stands still.
    StallCore {
        /// Which one; it waits for a process that has it.
        core: u16,
        /// For so long.
        duration_ns: u64,
    },
    /// The wall clock is off from now on. The same as a jump, counted apart.
    ClockOffset {
        /// By so many microseconds.
        by_us: i64,
    },
    /// The wall clock jumps.
    ClockJump {
        /// By so many microseconds.
        by_us: i64,
    },
    /// The wall clock runs wrong.
    ClockDrift {
        /// By so many parts per million.
        ppm: i64,
    },
    /// The monotonic clock runs wrong.
    MonotonicRate {
        /// By so many parts per million.
        ppm: i64,
    },
    /// Disk operations take a multiple of their time.
    DiskSlow {
        /// The multiple.
        factor: u64,
        /// For so long.
        duration_ns: u64,
    },
    /// No disk operation ends.
    DiskHang {
        /// For so long.
        duration_ns: u64,
    },
    /// The next disk operations fail with EIO.
    DiskError {
        /// Of this kind.
        operations: DiskOperations,
        /// So many.
        count: u32,
    },
    /// The disk is full.
    DiskFull {
        /// But for so many bytes.
        free_bytes: u64,
        /// For so long.
        duration_ns: u64,
    },
    /// A covered bit flips.
    BitFlip,
    /// A covered block can't be read any more.
    LatentReadError,
    /// The next durable write is lost, once it is covered.
    LostWrite,
    /// The next durable write lands on a covered place, once it is covered itself.
    MisdirectedWrite,
    /// The host is cut off.
    Partition {
        /// From this host; from all, for `None`.
        peer: Option<HostId>,
        /// What it sends does not arrive.
        sends: bool,
        /// What is sent to it does not arrive.
        receives: bool,
        /// For so long.
        duration_ns: u64,
    },
    /// Segments on the host's links meet trouble.
    Network {
        /// Which.
        trouble: NetworkTrouble,
        /// With this probability each.
        per_thousand: u32,
        /// For so long.
        duration_ns: u64,
    },
    /// A connection of the host is reset.
    ConnectionReset {
        /// When so many more bytes of one direction have arrived.
        after_bytes: u64,
    },
    /// One direction of a connection of the host is closed.
    HalfClose,
}

/// A fault at an operation instead of a time, for systematic sweeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultAt {
    /// Whom it concerns.
    pub host: HostId,
    /// The number of the host's disk operation, or of its network operation, depending on the kind.
    pub operation: u64,
    /// What befalls it.
    pub kind: FaultAtKind,
    /// True when `operation` counts network operations. It matters for the kinds that may befall either: crashes,
    /// pauses, stalls and jumps of clocks.
    pub is_network: bool,
}

/// An operation of a host that a fault aims at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) host: HostId,
    pub(super) operation: u64,
    pub(super) is_network: bool,
}

impl FaultAt {
    fn place(&self) -> Place {
        Place {
            host: self.host,
            operation: self.operation,
            is_network: self.is_network || self.kind.is_of_network(),
        }
    }
}

/// What befalls an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultAtKind {
    /// A disk operation fails with EIO.
    DiskError,
    /// A disk operation fails with ENOSPC.
    DiskFull,
    /// A disk operation takes a multiple of its time.
    DiskSlow(u64),
    /// The disk hangs from this operation on, for so many nanoseconds.
    DiskHang(u64),
    /// The disk stops around the operation, and the host wants to be crashed.
    Crash(CrashPoint),
    /// A durable write is lost, once it is covered.
    LostWrite,
    /// A durable write is misdirected, once it is covered.
    MisdirectedWrite,
    /// A covered bit that the operation reads flips before; one that it writes flips once it is covered.
    BitFlip,
    /// A bit of the first block that the operation reads flips before, covered or not. For files whose reader must
    /// notice: they are no logs.
    FlipRead {
        /// Which byte of the block.
        byte: u16,
        /// Which of its bits, 0 to 7.
        bit: u8,
    },
    /// A read fails, and so will others of its first block.
    LatentReadError,
    /// The process stands still for so many nanoseconds, once it has submitted the operation.
    Pause(u64),
    /// A core of the process stands still, once the operation is submitted.
    StallCore {
        /// So many cores further than the one that submits the operation, round; 0 is that one itself.
        further: u16,
        /// For so long.
        duration_ns: u64,
    },
    /// The host's wall clock jumps by so many microseconds.
    ClockJump(i64),
    /// A segment is lost so many times.
    SegmentLoss(u32),
    /// A segment arrives twice.
    SegmentDuplicate,
    /// A segment takes so many nanoseconds longer.
    SegmentDelay(u64),
    /// A segment is held back until a later one of its direction has arrived, for so many nanoseconds at most.
    SegmentReorder(u64),
    /// From a segment on, nothing that its sender sends to its receiver arrives, for so many nanoseconds.
    PartitionOneWay(u64),
    /// From a segment on, nothing arrives between its hosts, for so many nanoseconds.
    PartitionFull(u64),
    /// The connection of a segment is reset.
    ConnectionReset,
}

impl FaultAtKind {
    fn is_of_network(&self) -> bool {
        matches!(
            self,
            FaultAtKind::SegmentLoss(_)
                | FaultAtKind::SegmentDuplicate
                | FaultAtKind::SegmentDelay(_)
                | FaultAtKind::SegmentReorder(_)
                | FaultAtKind::PartitionOneWay(_)
                | FaultAtKind::PartitionFull(_)
                | FaultAtKind::ConnectionReset
        )
    }
}

impl World {
    /// Lets a fault happen at its time, or as soon as there is something for it to strike: a process to kill or to
    /// stop, a connection to break. Those that are still to come when [`World::heal`] is called do not happen.
    pub fn schedule(&self, fault: Fault) {
        let generation = self.0.fault_generation.get();
        self.at(fault.at_ns, move |world| {
            if world.0.fault_generation.get() != generation {
                return;
            }
            if world.has_target(&fault) {
                return world.inflict(&fault);
            }
            world.schedule(Fault {
                at_ns: world.now_ns() + TARGET_INTERVAL_NS,
                ..fault
            });
        });
    }

    /// True unless the fault would meet nothing now.
    fn has_target(&self, fault: &Fault) -> bool {
        match fault.kind {
            FaultAction::Crash(CrashStyle::ProcessKill) | FaultAction::Pause { .. } => {
                self.running_process(fault.host).is_some()
            }
            FaultAction::StallCore { core, .. } => self.cores_running(fault.host) > core,
            FaultAction::ConnectionReset { .. } | FaultAction::HalfClose => {
                self.0.network.borrow().has_open_stream(fault.host)
            }
            _ => true,
        }
    }

    /// Lets a fault happen at an operation.
    pub fn schedule_at(&self, fault: FaultAt) {
        if fault.place().is_network {
            let place = (fault.host, fault.operation);
            self.0.network.borrow_mut().at_operation.insert(place, fault.kind);
        } else {
            let disk = self.with_host(fault.host, |host| std::rc::Rc::clone(&host.disk));
            disk.borrow_mut().arm_at_operation(fault.operation, fault.kind);
        }
    }

    /// True once a fault at an operation has had its effect. One that found nothing to strike never has: a lost
    /// write that no later ones covered, an error of an operation that a crash ended first.
    pub fn has_struck(&self, fault: &FaultAt) -> bool {
        self.0.struck.borrow().contains(&fault.place())
    }

    /// A fault has had its effect, if it is one at an operation.
    pub(super) fn strike(&self, place: Option<Place>) {
        self.0.struck.borrow_mut().extend(place);
    }

    /// Does what may befall disk and network operations alike; false for other kinds.
    pub(super) fn strike_process(&self, place: Place, kind: &FaultAtKind) -> bool {
        let has_struck = match kind {
            FaultAtKind::Pause(duration_ns) => self.pause(place.host, *duration_ns),
            FaultAtKind::StallCore { further, duration_ns } => {
                self.stall_near(place.host, *further, *duration_ns)
            }
            FaultAtKind::ClockJump(by_us) => {
                self.count(FaultKind::ClockJump);
                self.with_host(place.host, |host| host.clock.jump_wall(self.now_ns(), *by_us));
                true
            }
            _ => return false,
        };
        self.strike(has_struck.then_some(place));
        true
    }

    /// Lets a fault happen now, whatever its time.
    pub fn inflict(&self, fault: &Fault) {
        let host = fault.host;
        let now_ns = self.now_ns();
        self.trace(host, TraceKind::Fault(format!("{:?}", fault.kind)));
        match &fault.kind {
            FaultAction::Crash(style) => self.crash(host, *style),
            FaultAction::Pause { duration_ns } => {
                self.pause(host, *duration_ns);
            }
            FaultAction::StallCore { core, duration_ns } => {
                self.stall_core(host, *core, *duration_ns);
            }
            FaultAction::ClockOffset { by_us } => {
                self.count(FaultKind::ClockOffset);
                self.with_host(host, |host| host.clock.jump_wall(now_ns, *by_us));
            }
            FaultAction::ClockJump { by_us } => {
                self.count(FaultKind::ClockJump);
                self.with_host(host, |host| host.clock.jump_wall(now_ns, *by_us));
            }
            FaultAction::ClockDrift { ppm } => {
                self.count(FaultKind::ClockDrift);
                self.with_host(host, |host| host.clock.set_wall_rate(now_ns, *ppm));
            }
            FaultAction::MonotonicRate { ppm } => {
                self.count(FaultKind::MonotonicRate);
                self.with_host(host, |host| host.clock.set_monotonic_rate(now_ns, *ppm));
            }
            FaultAction::Partition {
                peer,
                sends,
                receives,
                duration_ns,
            } => self.cut_links(host, *peer, (*sends, *receives), *duration_ns),
            FaultAction::Network {
                trouble,
                per_thousand,
                duration_ns,
            } => self.trouble_links(host, *trouble, *per_thousand, *duration_ns),
            FaultAction::ConnectionReset { after_bytes } => {
                self.arm_reset(host, *after_bytes);
            }
            FaultAction::HalfClose => {
                self.half_close(host);
            }
            of_disk => self.inflict_on_disk(host, of_disk),
        }
    }

    fn inflict_on_disk(&self, host: HostId, action: &FaultAction) {
        let disk = self.with_host(host, |host| std::rc::Rc::clone(&host.disk));
        let disk = &mut *disk.borrow_mut();
        match action {
            FaultAction::DiskSlow { factor, duration_ns } => disk.slow_down(self, *factor, *duration_ns),
            FaultAction::DiskHang { duration_ns } => disk.hang(self, *duration_ns),
            FaultAction::DiskError { operations, count } => disk.arm_errors(*operations, *count),
            FaultAction::DiskFull {
                free_bytes,
                duration_ns,
            } => {
                disk.fill(*free_bytes);
                let until_ns = self.now_ns().saturating_add(*duration_ns);
                self.at(until_ns, move |world| {
                    world.with_host(host, |host| host.disk.borrow_mut().empty(world.now_ns()));
                });
            }
            FaultAction::BitFlip => {
                disk.flip_somewhere(self);
            }
            FaultAction::LatentReadError => {
                disk.spoil_somewhere();
            }
            FaultAction::LostWrite => disk.arm_strike(Strike::Lost),
            FaultAction::MisdirectedWrite => disk.arm_strike(Strike::Misdirected),
            other => unreachable!("{other:?} is no fault of a disk"),
        }
    }

    /// Ends all faults that go on, and drops those that are still to come: pauses, stalls, partitions, bad
    /// weather, slow, hung, full and failing disks, unreadable blocks, wrong rates of clocks. Damage to stored
    /// bytes stays, as do offsets of clocks.
    pub fn heal(&self) {
        self.0.fault_generation.set(self.0.fault_generation.get() + 1);
        self.end_pauses();
        self.release_cores();
        let now_ns = self.now_ns();
        for host in self.hosts() {
            self.with_host(host, |host| {
                host.clock.set_wall_rate(now_ns, 0);
                host.clock.set_monotonic_rate(now_ns, 0);
            });
            self.heal_disk(host);
            self.trace(host, TraceKind::Fault("all healed".into()));
        }
        self.heal_network();
    }
}
