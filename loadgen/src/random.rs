//! Pseudo-random numbers for choosing keys and filling values.
//!
//! The generator is `SplitMix64` (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators",
//! OOPSLA 2014, figure 17): one word of state, one stream per seed, the same on every machine. It is never
//! used for anything that an attacker must not guess.

/// One stream of pseudo-random numbers.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A stream of its own for each `lane` (a thread, a phase) of one seed.
    pub fn for_lane(seed: u64, lane: u64) -> Self {
        Self::new(mix(seed ^ mix(lane.wrapping_add(1))))
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.state)
    }

    /// The next number in `[0, 1)`, a multiple of 2^-53.
    pub fn next_unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// The next number in `0..bound`; its bias is below `bound / 2^64`.
    pub fn next_below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a number below zero was asked for");
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

/// Scrambles one word so that every input bit reaches every output bit.
pub fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_published_one() {
        // First outputs of SplitMix64 from seed 1234567, as given with its reference implementation.
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(random.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn bounded_numbers_stay_below_and_reach_every_value() {
        let mut random = Random::new(7);
        let mut counts = [0_u32; 10];
        for _ in 0..10_000 {
            counts[random.next_below(10) as usize] += 1;
        }
        assert!(
            counts.iter().all(|count| (850..1150).contains(count)),
            "{counts:?}"
        );
        assert!((0..10_000).all(|_| (0.0..1.0).contains(&random.next_unit())));
    }

    #[test]
    fn lanes_of_one_seed_differ() {
        let first = Random::for_lane(1, 0).next_u64();
        assert_ne!(first, Random::for_lane(1, 1).next_u64());
        assert_ne!(first, Random::for_lane(2, 0).next_u64());
        assert_eq!(first, Random::for_lane(1, 0).next_u64());
    }
}
