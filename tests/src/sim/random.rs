//! Random numbers of a world: one seed, many independent named streams.
//!
//! Every part that draws numbers has a stream of its own (by name and numbers such as host and core), so that
//! a part that draws more or less leaves the others as they were. That is what makes shrinking work: without
//! one fault, the rest of the run stays close to what it was.

use core::cell::Cell;

use ostrakon::env::Random;

/// One stream: xoshiro256** (Blackman, Vigna: "Scrambled linear pseudorandom number generators", 2021),
/// seeded through `SplitMix64` as its authors advise.
pub struct SimRandom(Cell<[u64; 4]>);

/// One step of `SplitMix64` (Steele, Lea, Flood, OOPSLA 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl SimRandom {
    /// The stream of a seed with this name and these numbers.
    pub fn stream(seed: u64, name: &str, numbers: &[u64]) -> SimRandom {
        let mut state = seed;
        let mut folded = split_mix(&mut state);
        for word in name.bytes().map(u64::from).chain(numbers.iter().copied()) {
            state ^= word.wrapping_add(folded);
            folded = split_mix(&mut state);
        }
        let words = core::array::from_fn(|_| split_mix(&mut state));
        SimRandom(Cell::new(words))
    }

    /// Another stream, by name; this one goes on as if nothing was drawn.
    pub fn derived(&self, name: &str) -> SimRandom {
        let words = self.0.get();
        SimRandom::stream(words[0] ^ words[3].rotate_left(17), name, &[words[1]])
    }

    /// The next number, uniform over all 64-bit values.
    pub fn next(&self) -> u64 {
        let mut words = self.0.get();
        let result = words[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = words[1] << 17;
        words[2] ^= words[0];
        words[3] ^= words[1];
        words[1] ^= words[2];
        words[0] ^= words[3];
        words[2] ^= shifted;
        words[3] = words[3].rotate_left(45);
        self.0.set(words);
        result
    }

    /// A number below `bound`, which is at least 1. The bias (below bound / 2^64) is of no matter here.
    pub fn below(&self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below zero");
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// An index into something that has `len` members, at least one.
    pub fn index(&self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "{low} to {high} is empty");
        low + self.below((high - low).saturating_add(1))
    }

    /// True once in `times`; never for zero.
    pub fn one_in(&self, times: u64) -> bool {
        times > 0 && self.below(times) == 0
    }

    /// True with this probability.
    pub fn per_thousand(&self, chance: u32) -> bool {
        self.below(1000) < u64::from(chance)
    }

    /// A duration around `typical_ns`: half of it at least, twice of it at most.
    pub fn around(&self, typical_ns: u64) -> u64 {
        let half = typical_ns / 2;
        half + self.between(0, half)
            + if self.one_in(4) {
                self.between(0, typical_ns)
            } else {
                0
            }
    }
}

impl Random for SimRandom {
    fn next_u64(&self) -> u64 {
        self.next()
    }
}
