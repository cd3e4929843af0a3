//! How long to wait before the next attempt: pauses that double up to a bound, and differ from client to client.
//!
//! No clock and no source of randomness in here: times come in, and so does the seed.

/// Pause before the second attempt to connect, in nanoseconds.
const CONNECT_PAUSE_NS_MIN: u64 = 10_000_000;

/// No pause between attempts to connect is longer, in nanoseconds.
const CONNECT_PAUSE_NS_MAX: u64 = 2_000_000_000;

/// A pause after a refusal grows to this at most, in milliseconds, unless the server asks for more.
const REFUSED_PAUSE_MS_MAX: u64 = 1_000;

/// The pause after a refusal without a hint, in milliseconds.
const REFUSED_PAUSE_MS_MIN: u64 = 5;

/// Numbers that look random: splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// The pause after this many failed rounds of attempts to connect, in nanoseconds: between half of a bound and the
/// bound, which doubles from round to round. None before the first round has failed.
pub(super) fn connect_pause_ns(failed_rounds: u32, random: &mut Random) -> u64 {
    if failed_rounds == 0 {
        return 0;
    }
    let doubled = CONNECT_PAUSE_NS_MIN << (failed_rounds - 1).min(16);
    let bound = doubled.min(CONNECT_PAUSE_NS_MAX);
    bound / 2 + random.below(bound / 2 + 1)
}

/// The pause after a refusal, in nanoseconds: at least what the server asked for, doubled with each refusal before
/// this one, and up to half of it more.
pub(super) fn refused_pause_ns(retry_after_ms: u32, refusals_before: u32, random: &mut Random) -> u64 {
    let hint_ms = u64::from(retry_after_ms).max(REFUSED_PAUSE_MS_MIN);
    let grown_ms = (hint_ms << refusals_before.min(16)).min(hint_ms.max(REFUSED_PAUSE_MS_MAX));
    let least_ns = grown_ms * 1_000_000;
    least_ns + random.below(least_ns / 2 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_between_connects_grow_to_their_bound_and_differ() {
        let mut random = Random::new(7);
        assert_eq!(connect_pause_ns(0, &mut random), 0);
        for failed_rounds in 1..100 {
            let bound = (CONNECT_PAUSE_NS_MIN << (failed_rounds - 1).min(20)).min(CONNECT_PAUSE_NS_MAX);
            for _ in 0..20 {
                let pause_ns = connect_pause_ns(failed_rounds, &mut random);
                assert!(
                    (bound / 2..=bound).contains(&pause_ns),
                    "{pause_ns} in round {failed_rounds}"
                );
            }
        }
        let (one, other) = (connect_pause_ns(9, &mut random), connect_pause_ns(9, &mut random));
        assert_ne!(one, other);
    }

    #[test]
    fn pauses_after_refusals_are_never_shorter_than_the_hint_and_grow_to_their_bound() {
        let mut random = Random::new(8);
        for (hint_ms, refusals, grown_ms) in [
            (0, 0, 5),
            (5, 0, 5),
            (5, 3, 40),
            (5, 30, 1_000),
            (1_000, 0, 1_000),
            (1_000, 9, 1_000),
            (70_000, 9, 70_000),
        ] {
            let pause_ns = refused_pause_ns(hint_ms, refusals, &mut random);
            let least_ns = grown_ms * 1_000_000;
            assert!(
                (least_ns..=least_ns + least_ns / 2).contains(&pause_ns),
                "{pause_ns}"
            );
        }
    }
}
