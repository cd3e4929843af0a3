//! The clocks of a simulated machine, which run off virtual time as badly as they are told to.
//!
//! The monotonic clock counts from the machine's start (a power loss starts it anew), may run too fast or too
//! slow, and never goes back. The wall clock has an offset, drifts, and jumps both ways.

use core::cell::Cell;

use ostrakon::env::{Clock, MonotonicNs, WallUs};

use super::host::HostId;
use super::world::World;

/// Virtual time zero on a wall clock without offset: 2025-01-01 UTC, in microseconds since 1970.
pub const WALL_START_US: u64 = 1_735_689_600_000_000;

const PARTS_PER_MILLION: i128 = 1_000_000;

/// A clock with a rate: at `base_ns` of virtual time it showed `base_value_ns`.
#[derive(Clone, Copy, Debug)]
struct Ticking {
    base_ns: u64,
    base_value_ns: i128,
    rate_error_ppm: i64,
}

impl Ticking {
    fn at(&self, now_ns: u64) -> i128 {
        let passed = i128::from(now_ns - self.base_ns);
        self.base_value_ns
            + passed * (PARTS_PER_MILLION + i128::from(self.rate_error_ppm)) / PARTS_PER_MILLION
    }

    fn set_rate(&mut self, now_ns: u64, rate_error_ppm: i64) {
        assert!(rate_error_ppm > -1_000_000, "a clock doesn't run backwards");
        self.base_value_ns = self.at(now_ns);
        self.base_ns = now_ns;
        self.rate_error_ppm = rate_error_ppm;
    }
}

/// Both clocks of a host.
pub(super) struct HostClock {
    monotonic: Cell<Ticking>,
    wall: Cell<Ticking>,
}

impl HostClock {
    /// A machine that has been up for `uptime_ns`.
    pub(super) fn new(now_ns: u64, uptime_ns: u64) -> HostClock {
        let ticking = |base_value_ns| {
            Cell::new(Ticking {
                base_ns: now_ns,
                base_value_ns,
                rate_error_ppm: 0,
            })
        };
        HostClock {
            monotonic: ticking(i128::from(uptime_ns)),
            wall: ticking(i128::from(WALL_START_US) * 1000 + i128::from(now_ns)),
        }
    }

    pub(super) fn monotonic_ns(&self, now_ns: u64) -> u64 {
        self.monotonic.get().at(now_ns) as u64
    }

    pub(super) fn wall_us(&self, now_ns: u64) -> u64 {
        u64::try_from(self.wall.get().at(now_ns).max(0) / 1000).unwrap_or(u64::MAX)
    }

    /// Virtual nanoseconds that pass while the monotonic clock counts `duration_ns`.
    pub(super) fn virtual_ns(&self, duration_ns: u64) -> u64 {
        let rate = PARTS_PER_MILLION + i128::from(self.monotonic.get().rate_error_ppm);
        u64::try_from(i128::from(duration_ns) * PARTS_PER_MILLION / rate).unwrap_or(u64::MAX)
    }

    /// The machine starts again.
    pub(super) fn reboot(&self, now_ns: u64, uptime_ns: u64) {
        let mut monotonic = self.monotonic.get();
        monotonic.base_ns = now_ns;
        monotonic.base_value_ns = i128::from(uptime_ns);
        self.monotonic.set(monotonic);
    }

    pub(super) fn jump_wall(&self, now_ns: u64, by_us: i64) {
        let mut wall = self.wall.get();
        wall.base_value_ns = wall.at(now_ns) + i128::from(by_us) * 1000;
        wall.base_ns = now_ns;
        self.wall.set(wall);
    }

    pub(super) fn set_wall_rate(&self, now_ns: u64, ppm: i64) {
        let mut wall = self.wall.get();
        wall.set_rate(now_ns, ppm);
        self.wall.set(wall);
    }

    pub(super) fn set_monotonic_rate(&self, now_ns: u64, ppm: i64) {
        let mut monotonic = self.monotonic.get();
        monotonic.set_rate(now_ns, ppm);
        self.monotonic.set(monotonic);
    }
}

/// The clocks as a core sees them.
pub(super) struct SimClock {
    pub(super) world: World,
    pub(super) host: HostId,
}

impl Clock for SimClock {
    fn monotonic(&self) -> MonotonicNs {
        let time = self
            .world
            .with_host(self.host, |host| host.clock.monotonic_ns(self.world.now_ns()));
        self.world.fold(time);
        MonotonicNs(time)
    }

    fn wall(&self) -> WallUs {
        let time = self
            .world
            .with_host(self.host, |host| host.clock.wall_us(self.world.now_ns()));
        self.world.fold(time);
        WallUs(time)
    }
}
