//! The clocks of the machine, and its randomness as a seed.

use core::cell::Cell;
use core::mem::MaybeUninit;
use std::io;

use crate::env::clock::{Clock, MonotonicNs, WallUs};
use crate::env::tasks::Random;

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// `CLOCK_BOOTTIME` and `CLOCK_REALTIME`, both answered without entering the kernel where it has a vDSO.
pub(super) struct SystemClock;

/// Nanoseconds on `clock`. The two clocks used here exist on every supported kernel.
fn read_clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the pointer is valid for one timespec, which the call fills when it returns 0.
    let status = unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) };
    assert_eq!(
        status,
        0,
        "clock {clock} can't be read: {}",
        io::Error::last_os_error()
    );
    // SAFETY: the call succeeded.
    let time = unsafe { time.assume_init() };
    time.tv_sec as u64 * NANOSECONDS_PER_SECOND + time.tv_nsec as u64
}

impl Clock for SystemClock {
    fn monotonic(&self) -> MonotonicNs {
        MonotonicNs(read_clock_ns(libc::CLOCK_BOOTTIME))
    }

    fn wall(&self) -> WallUs {
        WallUs(read_clock_ns(libc::CLOCK_REALTIME) / 1000)
    }
}

/// `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
pub(super) struct SplitMix {
    state: Cell<u64>,
}

impl SplitMix {
    /// A generator seeded by the kernel.
    ///
    /// # Errors
    /// When the kernel has no randomness to give.
    pub(super) fn from_kernel() -> io::Result<SplitMix> {
        let mut seed = [0_u8; 8];
        // SAFETY: the buffer is valid for its length. Requests of up to 256 bytes are filled completely.
        let filled = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) };
        if filled != seed.len() as isize {
            return Err(io::Error::last_os_error());
        }
        Ok(SplitMix {
            state: Cell::new(u64::from_ne_bytes(seed)),
        })
    }
}

impl Random for SplitMix {
    fn next_u64(&self) -> u64 {
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_gives_the_published_sequence() {
        let random = SplitMix {
            state: Cell::new(1_234_567),
        };
        assert_eq!(random.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(random.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn two_seeds_differ() {
        let (first, second) = (SplitMix::from_kernel().unwrap(), SplitMix::from_kernel().unwrap());
        assert_ne!(first.next_u64(), second.next_u64());
    }

    #[test]
    fn the_clocks_agree_with_the_standard_library() {
        let wall = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let difference_us = SystemClock.wall().0.abs_diff(wall.as_micros() as u64);
        assert!(difference_us < 1_000_000, "{difference_us} microseconds apart");
        let earlier = SystemClock.monotonic();
        assert!(SystemClock.monotonic() >= earlier);
    }
}
