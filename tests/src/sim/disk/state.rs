//! The state of a disk and the life of its operations: submitted, in flight, ended.
//!
//! 1. [`World::submit`] numbers the operation, lets faults aimed at it take hold, and puts its end into the
//!    event queue.
//! 2. [`World::complete_operation`] applies its effect, records it, and wakes the task that waits.
//! 3. A frozen disk ends nothing; a hung disk ends nothing until it is released. What is in flight at a crash
//!    is [`super::crash`]'s business.

use core::cell::{Cell, RefCell};
use core::task::{Context, Poll, Waker};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::rc::Rc;

use ostrakon::env::disk::DirEntry;
use ostrakon::env::glommio::DiskError;
use ostrakon::env::{DiskBuf, OpenMode};

use super::DiskConfig;
use super::blocks::WriteData;
use super::damage::Damage;
use super::faults::{CrashPoint, DiskFaults, DiskOperations, Planned};
use super::tree::{Inode, Tree};
use crate::sim::counters::FaultKind;
use crate::sim::host::HostId;
use crate::sim::random::SimRandom;
use crate::sim::trace::TraceKind;
use crate::sim::world::World;

/// What is asked of a disk. The path that it concerns is kept beside it.
#[derive(Clone)]
pub(super) enum Request {
    Open(OpenMode),
    List,
    CreateDir,
    Rename(Rc<Path>),
    Link(Rc<Path>),
    Remove,
    RemoveDir,
    /// With the sequence of the last change that it covers.
    SyncDir(u64),
    FreeBytes,
    Read(Inode, u64, usize),
    /// The last is true for a durable write.
    Write(Inode, WriteData, bool),
    /// With the sequence of the last write that it covers.
    Sync(Inode, u64),
    Close(Inode),
}

/// What it gives.
pub(super) enum Response {
    Opened(Inode, u64),
    Entries(Vec<DirEntry>),
    Bytes(DiskBuf),
    Number(u64),
    Done,
}

impl Request {
    pub(super) fn operation(&self) -> DiskOperations {
        match self {
            Request::Open(_) | Request::Close(_) => DiskOperations::Open,
            Request::List | Request::FreeBytes => DiskOperations::List,
            Request::CreateDir
            | Request::Rename(_)
            | Request::Link(_)
            | Request::Remove
            | Request::RemoveDir => DiskOperations::Names,
            Request::SyncDir(_) => DiskOperations::SyncDir,
            Request::Read(..) => DiskOperations::Read,
            Request::Write(..) => DiskOperations::Write,
            Request::Sync(..) => DiskOperations::Sync,
        }
    }

    fn verb(&self) -> &'static str {
        match self {
            Request::Open(_) => "open",
            Request::List => "list",
            Request::CreateDir => "create the directory",
            Request::Rename(_) => "rename",
            Request::Link(_) => "link",
            Request::Remove => "remove",
            Request::RemoveDir => "remove the directory",
            Request::SyncDir(_) => "sync the directory",
            Request::FreeBytes => "ask for the free space at",
            Request::Read(..) => "read",
            Request::Write(..) => "write",
            Request::Sync(..) => "sync",
            Request::Close(_) => "close",
        }
    }

    /// True for what makes something durable.
    fn is_sync_like(&self) -> bool {
        matches!(
            self,
            Request::SyncDir(_) | Request::Sync(..) | Request::Write(_, _, true)
        )
    }

    /// Offset and length of a read or write.
    fn range(&self) -> Option<(u64, u64)> {
        match self {
            Request::Read(_, offset, len_bytes) => Some((*offset, *len_bytes as u64)),
            Request::Write(_, data, _) => Some((data.offset(), data.len_bytes())),
            _ => None,
        }
    }

    fn usual_ns(&self, config: &DiskConfig) -> u64 {
        let base_ns = match self {
            Request::Read(..) => config.read_ns,
            Request::Write(..) => config.write_ns,
            Request::Sync(..) | Request::SyncDir(_) => config.sync_ns,
            _ => config.name_ns,
        };
        base_ns
            + self
                .range()
                .map_or(0, |(_, len_bytes)| len_bytes * 1000 / config.bytes_per_us.max(1))
    }
}

/// An error with what was done to which file, as the real environment describes it.
pub(super) fn describe(
    operation: &'static str,
    path: &Path,
    offset: Option<u64>,
    source: io::Error,
) -> io::Error {
    let kind = source.kind();
    let error = DiskError {
        operation,
        path: path.to_owned(),
        offset,
        source,
    };
    io::Error::new(kind, error)
}

/// Where the outcome of an operation waits for its task.
#[derive(Default)]
pub(super) struct Slot {
    outcome: Cell<Option<io::Result<Response>>>,
    waiter: RefCell<Option<Waker>>,
}

impl Slot {
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<Response>> {
        if let Some(outcome) = self.outcome.take() {
            return Poll::Ready(outcome);
        }
        *self.waiter.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    fn fill(&self, outcome: io::Result<Response>) {
        self.outcome.set(Some(outcome));
        self.waiter.take().into_iter().for_each(Waker::wake);
    }
}

/// An operation in flight.
pub(super) struct Flight {
    pub(super) path: Rc<Path>,
    pub(super) request: Request,
    pub(super) planned: Planned,
    slot: Rc<Slot>,
}

/// What is known of an operation afterwards.
#[derive(Clone, Debug)]
pub struct DiskOperation {
    /// What was done.
    pub operations: DiskOperations,
    /// To which file or directory.
    pub path: Rc<Path>,
    /// It was a write of something else than zeros to a file that was opened for durable writes.
    pub is_durable_write: bool,
    /// Its number among those that make something durable, if it is one.
    pub sync: Option<u64>,
    /// It came to an end, good or bad, before a crash.
    pub has_ended: bool,
}

/// A disk.
pub(in crate::sim) struct DiskState {
    pub(super) host: HostId,
    pub(super) config: DiskConfig,
    pub(super) tree: Tree,
    /// By number of the operation.
    pub(super) flights: BTreeMap<u64, Flight>,
    /// Operations submitted since the world began, by number.
    pub(super) operations: Vec<DiskOperation>,
    /// Of those, the ones that make something durable.
    pub(super) sync_operations: u64,
    pub(super) faults: DiskFaults,
    pub(super) damage: Damage,
    pub(super) capacity_bytes: u64,
    latency_random: SimRandom,
    pub(super) crash_random: SimRandom,
    pub(super) fault_random: SimRandom,
}

impl DiskState {
    pub(in crate::sim) fn new(seed: u64, host: HostId, config: &DiskConfig) -> DiskState {
        let stream = |name| SimRandom::stream(seed, name, &[u64::from(host.0)]);
        DiskState {
            host,
            config: config.clone(),
            tree: Tree::new(),
            flights: BTreeMap::new(),
            operations: Vec::new(),
            sync_operations: 0,
            faults: DiskFaults::default(),
            damage: Damage::default(),
            capacity_bytes: config.capacity_bytes,
            latency_random: stream("disk latency"),
            crash_random: stream("disk crash"),
            fault_random: stream("disk faults"),
        }
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.capacity_bytes.saturating_sub(self.tree.used_bytes())
    }

    fn latency_ns(&mut self, request: &Request, planned: &Planned, world: &World) -> u64 {
        let mut latency_ns = self.latency_random.around(request.usual_ns(&self.config));
        if self.latency_random.one_in(self.config.tail_one_in) {
            latency_ns *= self.latency_random.between(1, self.config.tail_factor_max.max(1));
        }
        let factor = self.faults.slow_factor(world.now_ns()).max(planned.slow_factor);
        if factor > 1 {
            world.count(FaultKind::SlowDisk);
            world.strike(planned.place.filter(|_| planned.slow_factor > 1));
        }
        latency_ns * factor
    }
}

impl World {
    /// Submits an operation.
    pub(super) fn submit(&self, host: HostId, path: Rc<Path>, request: Request) -> Rc<Slot> {
        let slot = Rc::new(Slot::default());
        let disk = self.with_host(host, |host| Rc::clone(&host.disk));
        let disk = &mut *disk.borrow_mut();
        let operation = disk.operations.len() as u64;
        let sync = request.is_sync_like().then_some(disk.sync_operations);
        disk.sync_operations += u64::from(sync.is_some());
        disk.operations.push(DiskOperation {
            operations: request.operation(),
            path: Rc::clone(&path),
            is_durable_write: matches!(&request, Request::Write(_, data, true) if !data.is_zero()),
            sync,
            has_ended: false,
        });
        if disk.faults.is_frozen {
            return slot;
        }
        let planned = disk.plan(self, operation, sync, &request);
        if planned.crash == Some(CrashPoint::Before) {
            disk.freeze(self, planned.place);
            return slot;
        }
        let latency_ns = disk.latency_ns(&request, &planned, self);
        let ends_during = planned.crash == Some(CrashPoint::During);
        let place = planned.place;
        let flight = Flight {
            path,
            request,
            planned,
            slot: Rc::clone(&slot),
        };
        disk.flights.insert(operation, flight);
        if ends_during {
            disk.freeze(self, place);
        } else {
            self.at(self.now_ns() + latency_ns, move |world| {
                world.complete_operation(host, operation);
            });
        }
        slot
    }

    /// An operation ends, unless the disk is frozen or hangs, or a crash came first.
    pub(super) fn complete_operation(&self, host: HostId, operation: u64) {
        let disk = self.with_host(host, |host| Rc::clone(&host.disk));
        let disk = &mut *disk.borrow_mut();
        if disk.faults.is_frozen || !disk.flights.contains_key(&operation) {
            return;
        }
        if disk.hold(self, operation) {
            return;
        }
        let flight = disk.flights.remove(&operation).expect("looked up above");
        disk.operations[operation as usize].has_ended = true;
        let outcome = disk.perform(self, &flight);
        let range = flight.request.range();
        self.trace(
            host,
            TraceKind::Disk {
                operation,
                name: flight.request.verb(),
                path: Rc::clone(&flight.path),
                offset: range.map_or(0, |(offset, _)| offset),
                len_bytes: range.map_or(0, |(_, len_bytes)| len_bytes),
                error: outcome
                    .as_ref()
                    .err()
                    .map_or(0, |error| error.raw_os_error().unwrap_or(error.kind() as i32)),
            },
        );
        if flight.planned.crash == Some(CrashPoint::After) {
            // It is done, and the process never hears of it.
            disk.freeze(self, flight.planned.place);
            return;
        }
        let offset = range.map(|(offset, _)| offset);
        let verb = flight.request.verb();
        flight
            .slot
            .fill(outcome.map_err(|error| describe(verb, &flight.path, offset, error)));
    }
}
