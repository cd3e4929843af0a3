//! A session: what makes the writes of one connection, over all the sockets that it has, happen once each.
//!
//! 1. Each write gets the next sequence when it is first sent, and the server's clock of that moment as this side
//!    estimates it. Both stay with it however often it is sent.
//! 2. When the write is over (answered, or given up for good) its sequence is settled; the lowest sequence that is
//!    not settled goes out with every write, so that the server can forget what lies below.
//! 3. No write is begun whose sequence would lie outside the server's window.
//!
//! Invariant: `open[i]` tells whether sequence `answered_below + i` is open, and the first of them is, if there is
//! one. Once warm, nothing here allocates.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ostrakon_client::Retry;

/// Bits of a timestamp below its microseconds.
const COUNTER_BITS: u32 = 12;

/// What a write keeps over all its sendings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Issued {
    sequence: u64,
    first_sent: u64,
}

/// See the head of the module.
#[derive(Debug)]
pub(crate) struct Session {
    id: u128,
    answered_below: u64,
    open: VecDeque<bool>,
    window: u64,
    clock: ServerClock,
    last_first_sent: u64,
}

/// The server's clock, from the last timestamp that it sent and the time since.
#[derive(Debug)]
struct ServerClock {
    timestamp: u64,
    seen_at: Instant,
    /// Has the server not sent any yet?
    is_guess: bool,
}

impl Session {
    /// A new one, for a server with this window.
    pub(crate) fn new(window: u32) -> Self {
        let random = || u128::from(RandomState::new().hash_one(std::process::id()));
        // Until the server has sent a timestamp, this machine's clock is the best guess.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            id: random() << 64 | random(),
            answered_below: 0,
            open: VecDeque::new(),
            window: u64::from(window),
            clock: ServerClock {
                timestamp: (since_epoch.as_micros() as u64) << COUNTER_BITS,
                seen_at: Instant::now(),
                is_guess: true,
            },
            last_first_sent: 0,
        }
    }

    /// Can no write be begun at the moment?
    pub(crate) fn is_full(&self) -> bool {
        self.open.len() as u64 >= self.window
    }

    /// The highest timestamp that came from the server; 0: none yet.
    pub(crate) fn observe(&mut self, timestamp: u64, now: Instant) {
        let is_newer = timestamp > self.clock.timestamp || self.clock.is_guess;
        if timestamp > 0 && is_newer {
            self.clock = ServerClock {
                timestamp,
                seen_at: now,
                is_guess: false,
            };
        }
    }

    /// A write is sent for the first time.
    pub(crate) fn issue(&mut self, now: Instant) -> Issued {
        let elapsed_us = now.saturating_duration_since(self.clock.seen_at).as_micros() as u64;
        let estimate = self.clock.timestamp + (elapsed_us << COUNTER_BITS);
        self.last_first_sent = self.last_first_sent.max(estimate);
        let sequence = self.answered_below + self.open.len() as u64;
        self.open.push_back(true);
        Issued {
            sequence,
            first_sent: self.last_first_sent,
        }
    }

    /// What goes out with a write at this sending.
    pub(crate) fn retry(&self, issued: Issued) -> Retry {
        Retry {
            session: self.id,
            sequence: issued.sequence,
            answered_below: self.answered_below,
            first_sent: issued.first_sent,
        }
    }

    /// The write will not be sent again.
    pub(crate) fn settle(&mut self, issued: Issued) {
        let at = (issued.sequence - self.answered_below) as usize;
        assert!(self.open[at], "a write is settled once");
        self.open[at] = false;
        while self.open.front() == Some(&false) {
            self.open.pop_front();
            self.answered_below += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_lowest_open_sequence_goes_out_with_each_write() {
        let now = Instant::now();
        let mut session = Session::new(3);
        let issued: Vec<Issued> = (0..3).map(|_| session.issue(now)).collect();
        assert!(session.is_full());
        session.settle(issued[1]);
        assert_eq!(session.retry(issued[2]).answered_below, 0);
        assert!(session.is_full(), "the first one still holds the window");
        session.settle(issued[0]);
        let retry = session.retry(issued[2]);
        assert_eq!((retry.sequence, retry.answered_below), (2, 2));
        let next = session.issue(now);
        assert_eq!(session.retry(next).sequence, 3);
        assert_ne!(session.id, Session::new(3).id);
    }

    #[test]
    fn first_sendings_follow_the_servers_clock_and_never_fall() {
        let now = Instant::now();
        let mut session = Session::new(8);
        session.observe(0, now);
        assert!(session.clock.is_guess, "0 is no timestamp");
        // Far behind this machine's clock.
        let ahead = 1_000_000 << COUNTER_BITS;
        session.observe(ahead, now);
        let first = session.issue(now).first_sent;
        assert_eq!(first, ahead);
        let second = session.issue(now + Duration::from_millis(5)).first_sent;
        assert_eq!(second - first, 5_000 << COUNTER_BITS);
        // A server that comes back with an older clock changes nothing.
        session.observe(ahead - 1, now + Duration::from_secs(1));
        let third = session.issue(now).first_sent;
        assert_eq!(third, second);
    }
}
