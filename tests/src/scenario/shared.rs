//! What the processes of a run share, and what has to have happened for a refusal to be right.

use core::net::SocketAddr;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use ostrakon_core::hlc::Timestamp;
use ostrakon_wire::message::{ErrorCode, Request};

use super::plan::SERVER;
use super::record::Recorder;
use crate::sim::{FaultKind, World};

/// How far a timestamp may be ahead of the node's wall clock, in microseconds (docs/wire.md).
const TIMESTAMP_AHEAD_MAX_US: u64 = 10_000_000;

/// What all processes of a run share.
pub struct Shared {
    /// The world.
    pub world: World,
    /// Where the node listens, while it does.
    pub address: Cell<Option<SocketAddr>>,
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
    /// Refusals by code.
    pub refusals: RefCell<BTreeMap<String, u64>>,
    /// Threads that have nothing left to do.
    pub finished: Cell<usize>,
}

impl Shared {
    fn disk_has_erred(&self) -> bool {
        let counters = self.world.counters();
        counters.get(FaultKind::DiskError) + counters.get(FaultKind::LatentReadError) > 0
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
            // The node has forgotten timestamps that it gave out and nothing durable rests on, and its clock was set
            // back.
            ErrorCode::TimestampAhead => asked.was_ahead(&self.world),
            code => self.may_refuse_read(code),
        }
    }

    /// True if a get or a scan may be refused with this code, by what has happened so far.
    pub fn may_refuse_read(&self, code: ErrorCode) -> bool {
        match code {
            ErrorCode::Busy => true,
            ErrorCode::CoreFailed => {
                self.disk_has_erred() || self.world.counters().get(FaultKind::DiskFull) > 0
            }
            _ => false,
        }
    }
}

/// How the clocks stood when a request was made.
pub(super) struct Asked {
    /// The highest timestamp in it, in microseconds.
    latest_us: u64,
    /// What the node's wall clock showed, in microseconds.
    wall_us: u64,
    /// How often it was set so far.
    times_set: u64,
}

impl Asked {
    pub(super) fn now(world: &World, request: &Request<'_>, timestamp: u64) -> Asked {
        let snapshot = match request {
            Request::Scan(scan) => scan.snapshot,
            _ => 0,
        };
        Asked {
            latest_us: Timestamp(timestamp.max(snapshot)).micros(),
            wall_us: world.wall_us(SERVER),
            times_set: times_set(world),
        }
    }

    /// True if the request was further ahead of the node's wall clock than the protocol allows, at some time between
    /// then and now.
    pub(super) fn was_ahead(&self, world: &World) -> bool {
        let lowest_us = self.wall_us.min(world.wall_us(SERVER));
        self.latest_us > lowest_us + TIMESTAMP_AHEAD_MAX_US || times_set(world) > self.times_set
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
    fn a_timestamp_is_ahead_only_beyond_ten_seconds_or_if_the_clock_was_set_meanwhile() {
        let world = World::new(1);
        assert_eq!(world.add_host("server"), SERVER);
        let ahead_by = |ahead_us: u64| {
            let timestamp = Timestamp::from_micros(world.wall_us(SERVER) + ahead_us);
            Asked::now(&world, &Request::Ping, timestamp.0)
        };
        let set_back = |by_us| {
            world.inflict(&Fault {
                at_ns: 0,
                host: SERVER,
                kind: FaultAction::ClockJump { by_us },
            });
        };
        set_back(-20_000_000);
        // A clock that was set before the request is no excuse by itself.
        assert!(!ahead_by(9_000_000).was_ahead(&world));
        assert!(ahead_by(11_000_000).was_ahead(&world));
        let asked = ahead_by(0);
        set_back(1);
        assert!(asked.was_ahead(&world));
    }
}
