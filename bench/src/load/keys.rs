//! Keys: `key:` and twelve digits, as `redis-benchmark` names them, chosen uniformly or in turn.
//!
//! The numbers are `SplitMix64` (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators",
//! OOPSLA 2014, figure 17): the same for the same seed on every machine.

/// The choice of keys of one load.
#[derive(Debug, Clone)]
pub struct KeyChoice {
    keys: u64,
    state: u64,
    key: [u8; 16],
}

impl KeyChoice {
    /// Chooses from so many keys, at least one.
    pub fn new(keys: u64, seed: u64) -> Self {
        assert!(keys > 0, "there is no key to choose");
        Self {
            keys,
            state: seed,
            key: *b"key:000000000000",
        }
    }

    /// Any of the keys, each as likely as the other, up to a bias of `keys / 2^64`.
    pub fn uniform(&mut self) -> &[u8] {
        let number = (u128::from(self.next_u64()) * u128::from(self.keys)) >> 64;
        self.numbered(number as u64)
    }

    /// The key with this number; numbers that differ by 10^12 share one.
    pub fn numbered(&mut self, number: u64) -> &[u8] {
        let mut rest = number;
        for digit in self.key[4..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        &self.key
    }

    fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let word = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_published_one() {
        // First outputs from seed 1234567, as given with the reference implementation.
        let mut keys = KeyChoice::new(1, 1_234_567);
        assert_eq!(keys.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(keys.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn keys_have_twelve_digits_and_all_are_reached() {
        let mut keys = KeyChoice::new(8, 1);
        assert_eq!(keys.numbered(987_654), b"key:000000987654");
        let mut counts = [0_u32; 8];
        for _ in 0..8000 {
            let key = keys.uniform();
            assert!(key.starts_with(b"key:00000000000"));
            counts[usize::from(key[15] - b'0')] += 1;
        }
        assert!(
            counts.iter().all(|count| (850..1150).contains(count)),
            "{counts:?}"
        );
    }
}
