//! What the cores of a node have told.
//!
//! A client brings the timestamps of one core to another, whose clock may be a little lower. That core takes timestamps
//! from outside up to a bound, which counts from the wall ([`observe_checked`]); beyond it only what a core of the
//! same node has told. A message would come too late: the client may be faster. So these are the only words of memory
//! that cores share: each is written by one core, and the others read it only before they refuse a timestamp.
//!
//! [`observe_checked`]: ostrakon_core::hlc::Hlc::observe_checked

use std::sync::atomic::{AtomicU64, Ordering};

use ostrakon_core::hlc::Timestamp;

use crate::env::CoreId;

/// What each core of a node has told at most.
#[derive(Debug)]
pub struct ToldClocks(Box<[Told]>);

/// One core's clock, in a cache line of its own (and in the one that is fetched along with it).
#[derive(Debug, Default)]
#[repr(align(128))]
struct Told(AtomicU64);

impl ToldClocks {
    /// Of a node of so many cores, which have told nothing.
    pub fn new(cores: u16) -> ToldClocks {
        ToldClocks((0..cores).map(|_| Told::default()).collect())
    }

    /// A core's clock, before anybody hears of it. Its clocks never go down.
    pub(super) fn note(&self, core: CoreId, clock: Timestamp) {
        self.0[core.index()].0.store(clock.0, Ordering::Release);
    }

    /// May a core have told this timestamp?
    pub(super) fn covers(&self, timestamp: Timestamp) -> bool {
        self.0
            .iter()
            .any(|told| timestamp.0 <= told.0.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_any_core_has_told_is_covered() {
        let told = ToldClocks::new(2);
        assert!(!told.covers(Timestamp(1)));
        told.note(CoreId(0), Timestamp(7));
        told.note(CoreId(1), Timestamp(9));
        assert!(told.covers(Timestamp(7)) && told.covers(Timestamp(9)));
        assert!(!told.covers(Timestamp(10)));
    }
}
