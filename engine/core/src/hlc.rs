//! The hybrid logical clock: timestamps that follow wall time where it can be trusted, and causality always.
//!
//! A [`Timestamp`] is one 64-bit word, microseconds since the Unix epoch in the upper 52 bits and a counter in
//! the lower 12, so that comparing words compares times, and counting past 4095 carries into the next
//! microsecond by plain addition. An [`Hlc`] holds the largest timestamp that was issued or seen:
//!
//! 1. issuing ([`Hlc::now`]) takes the wall clock if that is ahead, else the next word: strictly increasing;
//! 2. a timestamp from the own log or from Raft moves the clock forward unconditionally ([`Hlc::observe`]);
//! 3. one from a client or another node's transaction is refused when it lies more than
//!    [`AHEAD_MAX_MICROS`] beyond the wall ([`Hlc::observe_checked`]), so that one broken clock cannot drag a
//!    cluster into the future, neither at once nor step by step.
//!
//! The wall clock is an argument. It may jump in either direction; the clock never goes back. A node that has
//! stopped to trust its wall clock passes 0 and advances by counter and messages alone.
//!
//! Source of the algorithm: Kulkarni, Demirbas, Madappa, Avva, Leone, "Logical Physical Clocks and Consistent
//! Snapshots in Globally Distributed Databases", 2014, which also packs both parts into one 64-bit word.

use core::fmt;

/// Bits of the counter.
const COUNTER_BITS: u32 = 12;

/// Largest count of microseconds that a timestamp holds (some day in the year 2112).
pub const MICROS_MAX: u64 = u64::MAX >> COUNTER_BITS;

/// How far a timestamp from outside may lie ahead of the wall clock, in microseconds.
pub const AHEAD_MAX_MICROS: u64 = 10_000_000;

/// A wall clock that lies further behind this clock, in microseconds, is taken for broken: then this clock
/// itself is what others are measured by. It exceeds [`AHEAD_MAX_MICROS`] and the ceilings of some restarts.
const WALL_BEHIND_MAX_MICROS: u64 = 60_000_000;

/// A point in hybrid time: microseconds (52 bits) and counter (12 bits) in one ordered word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Before every timestamp that a clock issues.
    pub const ZERO: Timestamp = Timestamp(0);

    /// After every timestamp: as a snapshot it sees the newest version of everything.
    pub const MAX: Timestamp = Timestamp(u64::MAX);

    /// The first timestamp of a microsecond. `micros` counts from the Unix epoch and is at most [`MICROS_MAX`].
    pub const fn from_micros(micros: u64) -> Timestamp {
        assert!(micros <= MICROS_MAX, "a timestamp holds 52 bits of microseconds");
        Timestamp(micros << COUNTER_BITS)
    }

    /// Microseconds since the Unix epoch.
    pub const fn micros(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// Position among the timestamps of the same microsecond, `0..4096`.
    pub const fn counter(self) -> u16 {
        (self.0 & ((1 << COUNTER_BITS) - 1)) as u16
    }

    /// This timestamp moved by `micros` with its counter kept. Panics when the sum does not fit.
    pub const fn plus_micros(self, micros: u64) -> Timestamp {
        match Timestamp::from_micros(micros).0.checked_add(self.0) {
            Some(word) => Timestamp(word),
            None => panic!("a timestamp holds 52 bits of microseconds"),
        }
    }

    /// This timestamp moved by `micros` with its counter kept, or [`Timestamp::MAX`] when the sum does not fit: in the
    /// year 2112.
    pub const fn saturating_plus_micros(self, micros: u64) -> Timestamp {
        let left_us = Timestamp::MAX.micros() - self.micros();
        if micros > left_us {
            Timestamp::MAX
        } else {
            self.plus_micros(micros)
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}us", self.micros(), self.counter())
    }
}

/// A timestamp from outside was too far in the future to be believed. The clock was not moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimestampAhead {
    /// The refused timestamp.
    pub remote: Timestamp,
    /// The largest that would have been accepted.
    pub limit: Timestamp,
    /// The clock's own value.
    pub own: Timestamp,
    /// The wall clock at that moment, microseconds since the Unix epoch.
    pub wall_us: u64,
}

impl fmt::Display for TimestampAhead {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ahead_ms = (self.remote.micros().saturating_sub(self.limit.micros()) + AHEAD_MAX_MICROS) / 1000;
        write!(
            formatter,
            "timestamp {} is {ahead_ms} ms ahead of this node (its clock {}, its wall clock {}us), more than the {} ms \
             allowed: synchronise the clocks of the sender and of this node (NTP), then try again",
            self.remote,
            self.own,
            self.wall_us,
            AHEAD_MAX_MICROS / 1000,
        )
    }
}

impl core::error::Error for TimestampAhead {}

/// A hybrid logical clock: one per core and shard, fed with wall time by its owner.
#[derive(Clone, Debug, Default)]
pub struct Hlc {
    /// Invariant: at least as large as everything ever issued or accepted; never decreases.
    last: Timestamp,
}

impl Hlc {
    /// A clock that has seen nothing.
    pub const fn new() -> Hlc {
        Hlc {
            last: Timestamp::ZERO,
        }
    }

    /// A fresh timestamp: larger than everything issued or observed, and not below the wall clock
    /// (`wall_us`, microseconds since the Unix epoch; times past the year 2112 count as not trusted).
    pub fn now(&mut self, wall_us: u64) -> Timestamp {
        let next = self
            .last
            .0
            .checked_add(1)
            .expect("the hybrid clock has run out of 64 bits");
        self.last = Timestamp(next).max(wall_timestamp(wall_us));
        self.last
    }

    /// The largest timestamp issued or observed so far. The next one issued is larger.
    pub const fn peek(&self) -> Timestamp {
        self.last
    }

    /// Moves forward to `remote`, which comes from a source that is trusted without a bound (Raft, own log).
    pub fn observe(&mut self, remote: Timestamp) {
        self.last = self.last.max(remote);
    }

    /// Moves forward to `remote`, which comes from a client or another node's transaction.
    ///
    /// # Errors
    /// [`TimestampAhead`] when `remote` lies beyond `max(own, wall + 10 s)`; the clock then stays as it was.
    /// Measuring from `own` would let a client move the clock by 10 s with every request, without end. Only
    /// beside a wall clock that is broken (over a minute behind) the bound is `own + 10 s`.
    pub fn observe_checked(&mut self, remote: Timestamp, wall_us: u64) -> Result<(), TimestampAhead> {
        let wall = wall_timestamp(wall_us);
        let after =
            |base: Timestamp, micros| Timestamp(base.0.saturating_add(Timestamp::from_micros(micros).0));
        let wall_is_broken = self.last > after(wall, WALL_BEHIND_MAX_MICROS);
        let limit = if wall_is_broken {
            after(self.last, AHEAD_MAX_MICROS)
        } else {
            self.last.max(after(wall, AHEAD_MAX_MICROS))
        };
        if remote > limit {
            return Err(TimestampAhead {
                remote,
                limit,
                own: self.last,
                wall_us,
            });
        }
        self.observe(remote);
        Ok(())
    }
}

/// The wall clock as a timestamp. One that does not fit is broken, and is ignored as if it stood at zero.
const fn wall_timestamp(wall_us: u64) -> Timestamp {
    if wall_us > MICROS_MAX {
        Timestamp::ZERO
    } else {
        Timestamp::from_micros(wall_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL_US: u64 = 1_790_000_000_000_000;

    #[test]
    fn words_order_by_micros_then_counter() {
        let timestamp = Timestamp((7 << 12) | 4095);
        assert_eq!((timestamp.micros(), timestamp.counter()), (7, 4095));
        assert!(timestamp < Timestamp::from_micros(8));
        assert!(timestamp > Timestamp::from_micros(7));
        assert_eq!(timestamp.plus_micros(3), Timestamp((10 << 12) | 4095));
        assert_eq!(Timestamp::from_micros(MICROS_MAX).micros(), MICROS_MAX);
        assert_eq!(timestamp.to_string(), "7.4095us");
    }

    #[test]
    #[should_panic(expected = "52 bits")]
    fn micros_beyond_52_bits_are_refused() {
        let _ = Timestamp::from_micros(MICROS_MAX + 1);
    }

    #[test]
    #[should_panic(expected = "52 bits")]
    fn plus_micros_does_not_wrap() {
        let _ = Timestamp::MAX.plus_micros(1);
    }

    #[test]
    fn saturating_plus_micros_ends_at_the_last_timestamp() {
        let last = Timestamp::from_micros(MICROS_MAX);
        assert_eq!(last.saturating_plus_micros(0), last);
        assert_eq!(last.saturating_plus_micros(1), Timestamp::MAX);
        assert_eq!(Timestamp::MAX.saturating_plus_micros(u64::MAX), Timestamp::MAX);
        assert_eq!(
            Timestamp::ZERO.saturating_plus_micros(7),
            Timestamp::from_micros(7)
        );
    }

    #[test]
    fn follows_the_wall_clock_while_it_advances() {
        let mut clock = Hlc::new();
        assert_eq!(clock.now(WALL_US), Timestamp::from_micros(WALL_US));
        assert_eq!(clock.now(WALL_US + 5), Timestamp::from_micros(WALL_US + 5));
        assert_eq!(clock.peek(), Timestamp::from_micros(WALL_US + 5));
    }

    #[test]
    fn a_wall_clock_that_stands_or_goes_back_still_gives_increasing_timestamps() {
        let mut clock = Hlc::new();
        let mut last = clock.now(WALL_US);
        for wall_us in [
            WALL_US,
            WALL_US - 3_600_000_000,
            0,
            u64::MAX,
            WALL_US - 1,
            WALL_US,
        ] {
            let next = clock.now(wall_us);
            assert_eq!(next.0, last.0 + 1, "at wall {wall_us}");
            last = next;
        }
        assert_eq!(clock.now(WALL_US + 1), Timestamp::from_micros(WALL_US + 1));
    }

    #[test]
    fn counter_overflow_carries_into_the_microseconds() {
        let mut clock = Hlc::new();
        let first = clock.now(WALL_US);
        let mut last = first;
        for _ in 0..4096 {
            let next = clock.now(WALL_US);
            assert!(next > last);
            last = next;
        }
        assert_eq!((last.micros(), last.counter()), (WALL_US + 1, 0));
        // The wall clock reaching the microsecond that was borrowed does not repeat it.
        assert_eq!(clock.now(WALL_US + 1).counter(), 1);
    }

    #[test]
    fn observe_moves_forward_only_and_without_bound() {
        let mut clock = Hlc::new();
        let far = Timestamp::from_micros(WALL_US).plus_micros(3_600_000_000);
        clock.observe(far);
        clock.observe(Timestamp::from_micros(WALL_US));
        assert_eq!(clock.peek(), far);
        assert_eq!(clock.now(WALL_US).0, far.0 + 1);
    }

    #[test]
    fn observe_checked_accepts_up_to_ten_seconds_ahead_and_refuses_beyond() {
        let limit = Timestamp::from_micros(WALL_US + AHEAD_MAX_MICROS);
        let mut clock = Hlc::new();
        let refusal = clock
            .observe_checked(Timestamp(limit.0 + 1), WALL_US)
            .unwrap_err();
        assert_eq!(
            refusal,
            TimestampAhead {
                remote: Timestamp(limit.0 + 1),
                limit,
                own: Timestamp::ZERO,
                wall_us: WALL_US
            }
        );
        assert_eq!(clock.peek(), Timestamp::ZERO, "a refusal leaves the clock alone");
        clock.observe_checked(limit, WALL_US).unwrap();
        assert_eq!(clock.peek(), limit);
    }

    #[test]
    fn observe_checked_measures_from_the_own_clock_when_the_wall_is_behind() {
        let mut clock = Hlc::new();
        clock.observe(Timestamp::from_micros(WALL_US));
        let limit = Timestamp::from_micros(WALL_US + AHEAD_MAX_MICROS);
        assert!(clock.observe_checked(Timestamp(limit.0 + 1), 0).is_err());
        clock.observe_checked(limit, 0).unwrap();
        clock.observe_checked(Timestamp::from_micros(1), 0).unwrap();
        assert_eq!(clock.peek(), limit);
    }

    #[test]
    fn a_client_cannot_move_the_clock_step_by_step() {
        let mut clock = Hlc::new();
        for _ in 0..100 {
            let step = clock
                .peek()
                .max(Timestamp::from_micros(WALL_US))
                .plus_micros(AHEAD_MAX_MICROS);
            // Refusals are expected: it is the clock that counts.
            let _ = clock.observe_checked(step, WALL_US);
        }
        assert_eq!(clock.peek(), Timestamp::from_micros(WALL_US + AHEAD_MAX_MICROS));
    }

    #[test]
    fn a_refusal_says_how_far_ahead_and_what_to_do() {
        let mut clock = Hlc::new();
        let remote = Timestamp::from_micros(WALL_US + 3_600_000_000);
        let text = clock.observe_checked(remote, WALL_US).unwrap_err().to_string();
        assert!(text.contains("3600000 ms ahead"), "{text}");
        assert!(text.contains("more than the 10000 ms allowed"), "{text}");
        assert!(text.contains("NTP"), "{text}");
    }

    #[test]
    fn the_limit_saturates_at_the_end_of_time() {
        let mut clock = Hlc::new();
        clock.observe(Timestamp(u64::MAX - 1));
        clock.observe_checked(Timestamp::MAX, 0).unwrap();
        assert_eq!(clock.peek(), Timestamp::MAX);
    }
}
