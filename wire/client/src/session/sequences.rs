//! The names of a session's writes: which sequences are given out, which are finished, and the time to name with each.
//!
//! Invariants, on which "exactly once" rests:
//! - A sequence is given to one write only, and a write keeps its own over all sendings.
//! - `answered_below` never passes a sequence that is not finished, so the server forgets no answer that may be asked
//!   for again; it never falls.
//! - `sequence < answered_below + window` holds for each name given out.
//! - `first_sent` never falls from one sequence to the next.

use std::collections::VecDeque;

use ostrakon_wire::message::Retry;

/// Bits of a timestamp below its microseconds.
const COUNTER_BITS: u32 = 12;

/// What the server's clock shows, as far as the client can tell.
#[derive(Debug, Default)]
pub(super) struct ServerClock {
    /// Highest timestamp received; 0: none.
    highest: u64,
    received_at_ns: u64,
}

impl ServerClock {
    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    pub(super) fn observe(&mut self, timestamp: u64, now_ns: u64) {
        if timestamp > self.highest {
            self.highest = timestamp;
            self.received_at_ns = now_ns;
        }
    }

    /// The highest timestamp received, moved on by the time that has passed since.
    fn estimate(&self, now_ns: u64) -> u64 {
        let passed_us = now_ns.saturating_sub(self.received_at_ns) / 1_000;
        self.highest.saturating_add(passed_us << COUNTER_BITS)
    }
}

/// The sequences of one session.
#[derive(Debug)]
pub(super) struct Sequences {
    session: u128,
    answered_below: u64,
    /// Of each sequence from `answered_below` on that was given out: is it finished? The first is not.
    finished: VecDeque<bool>,
    window: u64,
    first_sent: u64,
}

impl Sequences {
    pub(super) fn new(session: u128) -> Sequences {
        Sequences {
            session,
            answered_below: 1,
            finished: VecDeque::new(),
            window: 1,
            first_sent: 0,
        }
    }

    /// How far the server lets a sequence run ahead.
    pub(super) fn set_window(&mut self, window: u32) {
        self.window = u64::from(window).max(1);
    }

    /// May another sequence be given out?
    pub(super) fn has_room(&self) -> bool {
        (self.finished.len() as u64) < self.window
    }

    /// The name of the next write.
    ///
    /// # Panics
    /// If there is no room for it.
    pub(super) fn next(&mut self, clock: &ServerClock, now_ns: u64) -> Retry {
        assert!(self.has_room(), "a sequence beyond the session's window");
        self.first_sent = self.first_sent.max(clock.estimate(now_ns));
        let sequence = self.answered_below + self.finished.len() as u64;
        self.finished.push_back(false);
        Retry {
            session: self.session,
            sequence,
            answered_below: self.answered_below,
            first_sent: self.first_sent,
        }
    }

    /// The write of this sequence was answered, or will never be sent again.
    ///
    /// # Panics
    /// If it was not given out, or is finished already.
    pub(super) fn finish(&mut self, sequence: u64) {
        let position = (sequence - self.answered_below) as usize;
        assert!(!self.finished[position], "sequence {sequence} is finished twice");
        self.finished[position] = true;
        while self.finished.front() == Some(&true) {
            self.finished.pop_front();
            self.answered_below += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(sequences: &mut Sequences, count: usize) -> Vec<(u64, u64)> {
        let clock = ServerClock::default();
        let name = |_| {
            let Retry {
                sequence,
                answered_below,
                ..
            } = sequences.next(&clock, 0);
            (sequence, answered_below)
        };
        (0..count).map(name).collect()
    }

    #[test]
    fn answered_below_waits_for_the_lowest_unfinished_sequence() {
        let mut sequences = Sequences::new(5);
        sequences.set_window(10);
        assert_eq!(names(&mut sequences, 3), [(1, 1), (2, 1), (3, 1)]);
        sequences.finish(2);
        assert_eq!(names(&mut sequences, 1), [(4, 1)]);
        sequences.finish(1);
        assert_eq!(names(&mut sequences, 1), [(5, 3)]);
        sequences.finish(5);
        sequences.finish(3);
        sequences.finish(4);
        assert_eq!(names(&mut sequences, 1), [(6, 6)]);
    }

    #[test]
    fn the_window_is_held() {
        let mut sequences = Sequences::new(5);
        sequences.set_window(3);
        names(&mut sequences, 3);
        assert!(!sequences.has_room());
        sequences.finish(2);
        assert!(!sequences.has_room(), "the lowest is what counts");
        sequences.finish(1);
        assert_eq!(names(&mut sequences, 2), [(4, 3), (5, 3)]);
        assert!(!sequences.has_room());
    }

    #[test]
    fn the_time_named_follows_the_servers_clock_and_never_falls() {
        let mut sequences = Sequences::new(5);
        sequences.set_window(10);
        let mut clock = ServerClock::default();
        clock.observe(1_000 << COUNTER_BITS | 7, 50_000);
        let mut first_sent = |clock: &ServerClock, now_ns| sequences.next(clock, now_ns).first_sent;
        assert_eq!(first_sent(&clock, 50_999), 1_000 << COUNTER_BITS | 7);
        assert_eq!(first_sent(&clock, 150_000), 1_100 << COUNTER_BITS | 7);
        // The server's clock runs slower than was assumed.
        clock.observe(1_050 << COUNTER_BITS, 151_000);
        assert_eq!(first_sent(&clock, 151_000), 1_100 << COUNTER_BITS | 7);
        assert_eq!(first_sent(&clock, 251_000), 1_150 << COUNTER_BITS);
        clock.observe(900 << COUNTER_BITS, 300_000);
        assert_eq!(clock.highest(), 1_050 << COUNTER_BITS);
    }
}
