//! What the processes of a run share, and what has to have happened for a refusal to be right.

use core::net::SocketAddr;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use ostrakon_core::hlc::Timestamp;
use ostrakon_wire::message::{Action, ErrorCode, Request};

use super::plan::SERVER;
use super::programs::NodeCores;
use super::record::Recorder;
use crate::sim::{FaultKind, World};

/// How far a timestamp may be ahead of the node's wall clock, in microseconds (docs/wire.md).
const TIMESTAMP_AHEAD_MAX_US: u64 = 10_000_000;

/// How long the cores of a node may take to tell each other of a clock that was set: a second, and as long as a plan
/// lets a core or the process stand still.
const SHARED_WITHIN_NS: u64 = 8_000_000_000;

/// Timestamps that far below a shard's clock may lie below its retry horizon, on the scale of timestamps (docs/wire.md:
/// 10 minutes).
const RETRY_HORIZON: u64 = 600_000_000 << 12;
/// How far the sequence of a write may lie above what its client reports (docs/wire.md).
pub(super) const SESSION_WINDOW: u64 = 8192;

/// What a run has shown, by number.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Sendings that were answered as an earlier one of the same write was.
    pub answered_again: Cell<u64>,
    /// Sendings that were answered after a later one of the same write.
    pub overtaken: Cell<u64>,
    /// Sendings to another process of the node than an earlier one of the same write.
    pub sent_after_restart: Cell<u64>,
    /// Reads that found nothing where the reader knew of an expiry.
    pub expired: Cell<u64>,
    /// Requests given up in time.
    pub cancelled: Cell<u64>,
    /// Files in which damage was found that nobody had asked for.
    pub found_at_rest: Cell<u64>,
    /// Places of a data directory that a check was right to complain of.
    pub found_offline: Cell<u64>,
    /// Checkpoints whose content went into the history.
    pub checkpoints: Cell<u64>,
    /// Requests of programs that were answered.
    pub by_programs: Cell<u64>,
    /// Requests that a program did not wait for.
    pub dropped_by_programs: Cell<u64>,
    /// Requests of programs that were under way when their process ended.
    pub cut_off: Cell<u64>,
}

impl Counts {
    /// All of them, in words.
    pub fn by_name(&self) -> [(&'static str, u64); 11] {
        [
            ("write answered again", self.answered_again.get()),
            ("write overtaken by its own retry", self.overtaken.get()),
            ("write sent again after a restart", self.sent_after_restart.get()),
            ("expired value read", self.expired.get()),
            ("request cancelled", self.cancelled.get()),
            ("damage found at rest", self.found_at_rest.get()),
            ("damage found by a check", self.found_offline.get()),
            ("checkpoint read", self.checkpoints.get()),
            ("request of a program answered", self.by_programs.get()),
            ("request dropped by a program", self.dropped_by_programs.get()),
            ("program cut off", self.cut_off.get()),
        ]
    }
}

/// What all processes of a run share.
pub struct Shared {
    /// The world.
    pub world: World,
    /// Where the node listens, while it does.
    pub address: Cell<Option<SocketAddr>>,
    /// How programs reach the cores of the node, while it serves.
    pub node_cores: RefCell<Option<NodeCores>>,
    /// Cores of the node that runs or ran last.
    pub cores: Cell<u16>,
    /// Owner of each shard, while known.
    pub owners: RefCell<Vec<u16>>,
    /// The history.
    pub recorder: Recorder,
    /// Shards.
    pub shards: u32,
    /// Every key of the run, for scans: keys that a scan did not return were absent.
    pub keys: Vec<Vec<u8>>,
    /// Operations answered, refused conditions included.
    pub answered: Cell<u64>,
    /// Requests for one key, and those of them that came in on another core than the key's.
    pub requests: Cell<u64>,
    /// See `requests`.
    pub cross_core: Cell<u64>,
    /// True if memory may run out.
    pub has_little_memory: bool,
    /// For how many microseconds the node keeps old versions.
    pub retention_us: u64,
    /// Refusals by code.
    pub refusals: RefCell<BTreeMap<String, u64>>,
    /// Threads that have nothing left to do.
    pub finished: Cell<usize>,
    /// What the clocks of the node have come to.
    pub clocks: Clocks,
    /// What the run has shown.
    pub counts: Counts,
}

/// How the node's clocks look to its clients.
#[derive(Default)]
pub struct Clocks {
    /// Processes that have run the node.
    processes: Cell<u64>,
    /// The highest timestamp that the one which runs has told, or been told by a request that it has answered.
    told: Cell<u64>,
    /// When its start began, in virtual nanoseconds.
    started_ns: Cell<u64>,
    /// How often the wall clock was set, and when that was noticed last, in virtual nanoseconds.
    set: Cell<(u64, u64)>,
}

impl Clocks {
    /// Another process is about to run the node. Its cores tell each other how their clocks stand before they serve.
    pub(super) fn node_starts(&self, world: &World) {
        self.last_set_ns(world);
        self.processes.set(self.processes.get() + 1);
        self.told.set(0);
        self.started_ns.set(world.now_ns());
    }

    /// A request was answered, not refused; this is the highest timestamp that its client has now.
    pub(super) fn answered(&self, asked: &Asked, timestamp: u64) {
        if asked.process == self.processes.get() {
            self.told.set(self.told.get().max(timestamp).max(asked.carried));
        }
    }

    /// When the wall clock was set last, if it ever was.
    fn last_set_ns(&self, world: &World) -> Option<u64> {
        let times = times_set(world);
        let (known, noticed_ns) = self.set.get();
        if times > known {
            self.set.set((times, world.now_ns()));
            return Some(world.now_ns());
        }
        (times > 0).then_some(noticed_ns)
    }
}

impl Shared {
    fn disk_has_erred(&self) -> bool {
        let counters = self.world.counters();
        counters.get(FaultKind::DiskError) + counters.get(FaultKind::LatentReadError) > 0
    }

    fn has_damage(&self) -> bool {
        !self.world.disk(SERVER).outstanding_damage().is_empty()
    }

    /// True if a scan may be refused because its snapshot is too old: the clock that the node tells along has passed it
    /// by as long as old versions are kept.
    pub(super) fn may_be_too_old(&self, asked: &Asked, timestamp: u64) -> bool {
        let passed_us = Timestamp(timestamp)
            .micros()
            .saturating_sub(asked.snapshot.micros());
        asked.snapshot > Timestamp::ZERO && passed_us >= self.retention_us
    }

    fn disk_was_full(&self) -> bool {
        self.world.counters().get(FaultKind::DiskFull) > 0 || self.world.disk(SERVER).was_full_since(0)
    }

    /// True if an honest request may be refused with this code, by what has happened so far.
    pub(super) fn may_refuse(&self, code: ErrorCode, asked: &Asked) -> bool {
        match code {
            ErrorCode::DiskFull => self.disk_has_erred() || self.disk_was_full(),
            ErrorCode::MemoryFull => self.has_little_memory,
            ErrorCode::ShuttingDown => true,
            ErrorCode::TimestampAhead => asked.may_be_ahead(&self.world, &self.clocks),
            code => self.may_refuse_read(code),
        }
    }

    /// True if the node may have forgotten a write that was first sent then, by the highest timestamp that it has told
    /// since.
    pub(super) fn may_be_forgotten(first_sent: u64, told: u64) -> bool {
        first_sent < told.saturating_sub(RETRY_HORIZON)
    }

    /// True if a get or a scan may be refused with this code, by what has happened so far.
    pub fn may_refuse_read(&self, code: ErrorCode) -> bool {
        match code {
            // A checkpoint may fail because flushes are slow, which is no fault.
            ErrorCode::Busy | ErrorCode::CheckpointFailed => true,
            // Any operation may be told that the disk is full, a read too.
            ErrorCode::Unreadable => {
                self.disk_has_erred()
                    || self.has_damage()
                    || self.world.counters().get(FaultKind::DiskFull) > 0
            }
            ErrorCode::CoreFailed => {
                self.disk_has_erred() || self.world.counters().get(FaultKind::DiskFull) > 0
            }
            _ => false,
        }
    }
}

/// How the clocks stood when a request was made.
#[derive(Debug)]
pub(super) struct Asked {
    /// Which process ran the node.
    process: u64,
    /// The highest timestamp in it.
    latest: Timestamp,
    /// The highest of those to which the node moves its clock.
    carried: u64,
    /// The snapshot that it names.
    snapshot: Timestamp,
    /// True if the process that runs the node has told a timestamp that high. A client's estimate of when it sent a
    /// write first is told by nobody.
    is_known: bool,
    /// What the node's wall clock showed, in microseconds.
    wall_us: u64,
    /// How often it was set so far.
    times_set: u64,
    /// It adds to a number.
    adds: bool,
    /// Its sequence lies too far above what its client reports.
    is_beyond_window: bool,
}

impl Asked {
    pub(super) fn now(world: &World, clocks: &Clocks, request: &Request<'_>, timestamp: u64) -> Asked {
        let snapshot = match request {
            Request::Scan(scan) => scan.snapshot,
            _ => 0,
        };
        let retry = request.retry();
        let first_sent = retry.map_or(0, |retry| retry.first_sent);
        let carried = timestamp.max(snapshot);
        let latest = Timestamp(carried.max(first_sent));
        let adds = match request {
            Request::Batch { operations, .. } => operations
                .iter()
                .any(|operation| matches!(operation.action, Action::Add { .. })),
            request => matches!(request, Request::Add { .. }),
        };
        clocks.last_set_ns(world);
        Asked {
            process: clocks.processes.get(),
            latest,
            carried,
            snapshot: Timestamp(snapshot),
            is_known: latest.0 == carried && carried <= clocks.told.get(),
            wall_us: world.wall_us(SERVER),
            times_set: times_set(world),
            adds,
            is_beyond_window: retry
                .is_some_and(|retry| retry.sequence - retry.answered_below >= SESSION_WINDOW),
        }
    }

    /// What the clock by which it was decided can't have been below, now that it is: the wall clock of that moment, if
    /// nobody has set it since, and the process is the same.
    pub(super) fn lowest_clock(&self, world: &World, clocks: &Clocks) -> u64 {
        let is_same = self.process == clocks.processes.get() && self.times_set == times_set(world);
        if is_same {
            Timestamp::from_micros(self.wall_us).0
        } else {
            0
        }
    }

    /// True if it adds to a number.
    pub(super) fn adds(&self) -> bool {
        self.adds
    }

    /// True if its sequence lies too far above what its client reports.
    pub(super) fn is_beyond_window(&self) -> bool {
        self.is_beyond_window
    }

    /// True if the node may call an honest request's timestamp too far ahead. It is further ahead of the node's wall
    /// clock than the protocol allows, and the node can't know that it has told it: a process that is gone did, whose
    /// clock was set; or one of its cores did after the clock was set, and has not come to tell the others.
    fn may_be_ahead(&self, world: &World, clocks: &Clocks) -> bool {
        let lowest_us = self.wall_us.min(world.wall_us(SERVER));
        let was_set = times_set(world) > self.times_set;
        let is_ahead = self.latest.micros() > lowest_us + TIMESTAMP_AHEAD_MAX_US || was_set;
        let Some(last_set_ns) = clocks.last_set_ns(world) else {
            return false;
        };
        let since_ns = world.now_ns().saturating_sub(last_set_ns);
        let is_news = since_ns <= SHARED_WITHIN_NS && last_set_ns > clocks.started_ns.get();
        is_ahead && (!self.is_known || is_news)
    }
}

/// How often the node's wall clock was set.
fn times_set(world: &World) -> u64 {
    let counters = world.counters();
    counters.get(FaultKind::ClockJump) + counters.get(FaultKind::ClockOffset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Fault, FaultAction};

    #[test]
    fn a_timestamp_is_ahead_only_if_the_node_cannot_know_that_it_has_told_it() {
        let world = World::new(1);
        assert_eq!(world.add_host("server"), SERVER);
        let clocks = Clocks::default();
        clocks.node_starts(&world);
        world.at(1, |_| {});
        world.run_for(1);
        let ahead_by = |ahead_us: u64| Timestamp::from_micros(world.wall_us(SERVER) + ahead_us).0;
        let ask = |timestamp| Asked::now(&world, &clocks, &Request::Ping, timestamp);
        let set_back = |by_us| {
            world.inflict(&Fault {
                at_ns: 0,
                host: SERVER,
                kind: FaultAction::ClockJump { by_us },
            });
        };
        assert!(
            !ask(ahead_by(20_000_000)).may_be_ahead(&world, &clocks),
            "no clock was set"
        );
        let told = ahead_by(0);
        clocks.answered(&ask(told), told);
        let asked = ask(told);
        set_back(-20_000_000);
        assert!(asked.may_be_ahead(&world, &clocks), "it was set meanwhile");
        assert!(ask(told).may_be_ahead(&world, &clocks), "it was set just now");
        assert!(!ask(ahead_by(9_000_000)).may_be_ahead(&world, &clocks));
        world.at(world.now_ns() + SHARED_WITHIN_NS + 1, |_| {});
        world.run_for(SHARED_WITHIN_NS + 1);
        assert!(!ask(told).may_be_ahead(&world, &clocks), "the cores know by now");
        clocks.node_starts(&world);
        assert!(
            ask(told).may_be_ahead(&world, &clocks),
            "the process that told it is gone"
        );
    }
}
