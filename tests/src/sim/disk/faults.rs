//! Faults of a disk that concern operations: errors, slowness, hanging, freezing for a crash.
//!
//! Faults that concern stored bytes are in [`super::damage`].

use std::collections::BTreeMap;
use std::rc::Rc;

use ostrakon::env::disk::BLOCK_BYTES;
use serde::{Deserialize, Serialize};

use super::damage::Strike;
use super::state::{DiskState, Request};
use crate::sim::counters::FaultKind;
use crate::sim::faults::{FaultAtKind, Place};
use crate::sim::host::HostId;
use crate::sim::trace::TraceKind;
use crate::sim::world::World;

/// Kinds of operations that a fault may single out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskOperations {
    /// All of them.
    All,
    /// Opening and closing of files, creation of files.
    Open,
    /// Lists of directories, questions for the free space.
    List,
    /// Creation of directories, renames, links, removals.
    Names,
    /// Syncs of directories.
    SyncDir,
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Syncs of files.
    Sync,
}

/// Where around an operation a disk stops for a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CrashPoint {
    /// The operation never reaches the disk.
    Before,
    /// It is in flight: the crash keeps, drops or tears it.
    During,
    /// It is done, and the process does not hear of it.
    After,
}

/// An error that waits for operations.
pub(super) struct ArmedError {
    operations: DiskOperations,
    left: u32,
}

/// Faults that wait or go on.
#[derive(Default)]
pub(super) struct DiskFaults {
    slow: (u64, u64),
    hung_until_ns: u64,
    hung_by: Option<Place>,
    held: Vec<u64>,
    errors: Vec<ArmedError>,
    pub(super) strikes: Vec<Strike>,
    at_operation: BTreeMap<u64, FaultAtKind>,
    at_sync: Option<(u64, CrashPoint)>,
    pub(super) is_frozen: bool,
    /// When the disk was full last.
    full_until_ns: Option<u64>,
}

/// What will befall an operation.
#[derive(Default)]
pub(super) struct Planned {
    /// Number of the operating system's error.
    pub(super) error: Option<i32>,
    pub(super) crash: Option<CrashPoint>,
    pub(super) strike: Option<Strike>,
    pub(super) slow_factor: u64,
    /// Where the fault aims that brings this about, if it aims at this operation.
    pub(super) place: Option<Place>,
}

impl DiskFaults {
    pub(super) fn slow_factor(&self, now_ns: u64) -> u64 {
        let (factor, until_ns) = self.slow;
        if now_ns < until_ns { factor } else { 1 }
    }

    /// Forgets all that waits or goes on, except what is held back.
    fn end(&mut self) {
        let held = core::mem::take(&mut self.held);
        let (is_frozen, full_until_ns) = (self.is_frozen, self.full_until_ns);
        *self = DiskFaults {
            held,
            is_frozen,
            full_until_ns,
            ..DiskFaults::default()
        };
    }

    /// The machine starts again: what concerned operations in flight is over.
    pub(super) fn crashed(&mut self) {
        self.held.clear();
        self.is_frozen = false;
    }
}

impl DiskState {
    /// Decides what befalls an operation that is submitted now.
    pub(super) fn plan(
        &mut self,
        world: &World,
        operation: u64,
        sync: Option<u64>,
        request: &Request,
    ) -> Planned {
        let mut planned = Planned::default();
        let kind = request.operation();
        let armed = self.faults.errors.iter_mut().find(|armed| {
            armed.left > 0 && (armed.operations == DiskOperations::All || armed.operations == kind)
        });
        if let Some(armed) = armed {
            armed.left -= 1;
            planned.error = Some(libc::EIO);
        }
        if matches!(request, Request::Write(_, data, true) if !data.is_zero()) {
            planned.strike = self.faults.strikes.pop();
        }
        if let Some((at, point)) = self.faults.at_sync
            && sync == Some(at)
        {
            self.faults.at_sync = None;
            planned.crash = Some(point);
        }
        if let Some(fault) = self.faults.at_operation.remove(&operation) {
            let place = Place {
                host: self.host,
                operation,
                is_network: false,
            };
            planned.place = Some(place);
            self.plan_fault_at(world, (place, &fault), request, &mut planned);
        }
        planned
    }

    fn plan_fault_at(
        &mut self,
        world: &World,
        (place, fault): (Place, &FaultAtKind),
        request: &Request,
        planned: &mut Planned,
    ) {
        world.trace(
            self.host,
            TraceKind::Fault(format!("{fault:?} at this operation")),
        );
        if world.strike_process(place, fault) {
            return;
        }
        match fault {
            FaultAtKind::DiskError => planned.error = Some(libc::EIO),
            FaultAtKind::DiskFull => planned.error = Some(libc::ENOSPC),
            FaultAtKind::DiskSlow(factor) => planned.slow_factor = *factor,
            FaultAtKind::DiskHang(duration_ns) => {
                self.hang(world, *duration_ns);
                self.faults.hung_by = Some(place);
            }
            FaultAtKind::Crash(point) => planned.crash = Some(*point),
            FaultAtKind::LostWrite => planned.strike = Some(Strike::Lost),
            FaultAtKind::MisdirectedWrite => planned.strike = Some(Strike::Misdirected),
            FaultAtKind::BitFlip => match request {
                Request::Read(inode, offset, len_bytes) => {
                    let flipped = self.flip_in(world, *inode, *offset, *len_bytes as u64);
                    world.strike(flipped.then_some(place));
                }
                _ => planned.strike = Some(Strike::Flip),
            },
            FaultAtKind::FlipRead { byte, bit } => {
                if let Request::Read(inode, offset, _) = request {
                    let block = offset / BLOCK_BYTES as u64;
                    self.flip_bit(world, *inode, block, usize::from(*byte) * 8 + usize::from(*bit));
                    world.strike(Some(place));
                }
            }
            FaultAtKind::LatentReadError => {
                if let Request::Read(inode, offset, _) = request {
                    let block = offset / BLOCK_BYTES as u64;
                    self.tree.file_mut(*inode).unreadable.insert(block);
                }
            }
            of_network => unreachable!("{of_network:?} is no fault of a disk operation"),
        }
    }

    /// Ends nothing any more, until the crash that the harness is asked for.
    pub(super) fn freeze(&mut self, world: &World, place: Option<Place>) {
        self.faults.is_frozen = true;
        world.strike(place);
        world.count(FaultKind::CrashAtOperation);
        world.trace(self.host, TraceKind::Fault("the disk stops for a crash".into()));
        world.0.crash_wanted.borrow_mut().push(self.host);
    }

    /// Keeps an operation that would end now, if the disk hangs.
    pub(super) fn hold(&mut self, world: &World, operation: u64) -> bool {
        let hangs = world.now_ns() < self.faults.hung_until_ns;
        if hangs {
            world.count(FaultKind::HungDisk);
            world.strike(self.faults.hung_by);
            self.faults.held.push(operation);
        }
        hangs
    }

    pub(in crate::sim) fn hang(&mut self, world: &World, duration_ns: u64) {
        let until_ns = world.now_ns().saturating_add(duration_ns);
        self.faults.hung_until_ns = self.faults.hung_until_ns.max(until_ns);
        let host = self.host;
        world.at(until_ns, move |world| world.release_disk(host));
    }

    pub(in crate::sim) fn slow_down(&mut self, world: &World, factor: u64, duration_ns: u64) {
        self.faults.slow = (factor.max(1), world.now_ns().saturating_add(duration_ns));
    }

    pub(in crate::sim) fn arm_errors(&mut self, operations: DiskOperations, count: u32) {
        self.faults.errors.push(ArmedError {
            operations,
            left: count,
        });
    }

    pub(super) fn end_errors(&mut self) {
        self.faults.errors.clear();
    }

    pub(in crate::sim) fn arm_strike(&mut self, strike: Strike) {
        self.faults.strikes.push(strike);
    }

    pub(in crate::sim) fn arm_at_operation(&mut self, operation: u64, kind: FaultAtKind) {
        self.faults.at_operation.insert(operation, kind);
    }

    pub(super) fn arm_at_sync(&mut self, sync: u64, point: CrashPoint) {
        self.faults.at_sync = Some((sync, point));
    }

    pub(in crate::sim) fn fill(&mut self, free_bytes: u64) {
        self.capacity_bytes = self.tree.used_bytes() + free_bytes;
    }

    pub(in crate::sim) fn empty(&mut self, now_ns: u64) {
        if self.capacity_bytes < self.config.capacity_bytes {
            self.faults.full_until_ns = Some(now_ns);
        }
        self.capacity_bytes = self.config.capacity_bytes;
    }

    /// True if the disk was full at some time from `since_ns` on.
    pub(super) fn was_full_since(&self, since_ns: u64) -> bool {
        self.capacity_bytes < self.config.capacity_bytes
            || self
                .faults
                .full_until_ns
                .is_some_and(|until_ns| until_ns >= since_ns)
    }
}

impl World {
    /// Ends a disk's hang, if it is due.
    pub(super) fn release_disk(&self, host: HostId) {
        let disk = self.with_host(host, |host| Rc::clone(&host.disk));
        let held = {
            let mut disk = disk.borrow_mut();
            if self.now_ns() < disk.faults.hung_until_ns {
                return;
            }
            core::mem::take(&mut disk.faults.held)
        };
        for operation in held {
            let delay_ns = disk.borrow().fault_random.below(1_000_000);
            self.at(self.now_ns() + delay_ns, move |world| {
                world.complete_operation(host, operation);
            });
        }
    }

    /// Ends all faults of a disk. Damage stays; blocks that could not be read are readable again.
    pub(in crate::sim) fn heal_disk(&self, host: HostId) {
        let disk = self.with_host(host, |host| Rc::clone(&host.disk));
        {
            let mut disk = disk.borrow_mut();
            disk.faults.end();
            disk.empty(self.now_ns());
            disk.damage.cancel_fated();
            disk.tree
                .files
                .values_mut()
                .for_each(|file| file.unreadable.clear());
        }
        self.release_disk(host);
    }
}
