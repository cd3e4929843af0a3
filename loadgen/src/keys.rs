//! The key space and how keys are chosen, as the YCSB core workloads define them.
//!
//! Record number `i` has the key `user` followed by the decimal 64-bit FNV hash of `i` (YCSB's
//! `insertorder=hashed`). Reads and updates choose a record either uniformly or by a *scrambled zipfian*
//! distribution: a zipfian rank over ten billion items, hashed by FNV into the records, so that the hot keys
//! lie scattered.
//!
//! The zipfian generator is the one of Gray, Sundaresan, Englert, Baclawski, Weinberger: "Quickly Generating
//! Billion-Record Synthetic Databases" (SIGMOD 1994), figure 7: exact for the two hottest ranks, an
//! integral approximation for the others, constant time per draw.

use crate::random::Random;

/// Number of a record, `0..records`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyIndex(pub u64);

/// The skew of YCSB's zipfian request distribution.
pub const ZIPFIAN_CONSTANT: f64 = 0.99;

/// Ranks behind the scrambled zipfian distribution, whatever the number of records.
pub const SCRAMBLED_ITEMS: u64 = 10_000_000_000;

/// Zeta of [`SCRAMBLED_ITEMS`] and [`ZIPFIAN_CONSTANT`]: the sum over `i` in `1..=10^10` of `i^-0.99`.
/// Summing it takes a minute, so it is kept; a test compares it with the Euler–Maclaurin formula.
pub const SCRAMBLED_ZETA: f64 = 26.469_028_201_783_02;

/// Longest key: `user` and 19 digits.
pub const KEY_BYTES_MAX: usize = 23;

/// A key's bytes, on the stack.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    bytes: [u8; KEY_BYTES_MAX],
    length: u8,
}

impl Key {
    /// The key of record `index`.
    pub fn of(index: KeyIndex) -> Self {
        let mut digits = [0_u8; 20];
        let mut first = digits.len();
        let mut rest = fnv_hash64(index.0);
        loop {
            first -= 1;
            digits[first] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        let digits = &digits[first..];
        let mut key = Self {
            bytes: *b"user\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            length: 4,
        };
        key.bytes[4..4 + digits.len()].copy_from_slice(digits);
        key.length += digits.len() as u8;
        key
    }

    /// The bytes to send.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&String::from_utf8_lossy(self.bytes()))
    }
}

/// FNV-1a over the eight little-endian bytes of `number`, made non-negative as YCSB's Java `long` is: below
/// 2^63 for every input but one in 2^64, whose hash of exactly 2^63 still has 19 digits.
pub fn fnv_hash64(number: u64) -> u64 {
    let hash = number
        .to_le_bytes()
        .iter()
        .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
        });
    (hash as i64).unsigned_abs()
}

/// Draws ranks `0..items`, rank 0 the most frequent, rank `r` with a probability near `(r + 1)^-theta /
/// zeta`.
#[derive(Debug, Clone)]
pub struct Zipfian {
    items: f64,
    zeta: f64,
    alpha: f64,
    eta: f64,
    second_bound: f64,
}

impl Zipfian {
    /// For few items: sums zeta first, which takes `items` steps.
    pub fn new(items: u64, theta: f64) -> Self {
        let zeta = (1..=items).map(|item| (item as f64).powf(-theta)).sum();
        Self::with_zeta(items, theta, zeta)
    }

    /// With a zeta known beforehand.
    pub fn with_zeta(items: u64, theta: f64, zeta: f64) -> Self {
        assert!(items >= 2, "a zipfian distribution needs two items");
        let zeta_of_two = 1.0 + 0.5_f64.powf(theta);
        Self {
            items: items as f64,
            zeta,
            alpha: 1.0 / (1.0 - theta),
            eta: (1.0 - (2.0 / items as f64).powf(1.0 - theta)) / (1.0 - zeta_of_two / zeta),
            second_bound: zeta_of_two,
        }
    }

    /// The rank for a uniform number `unit` in `[0, 1)`.
    pub fn rank(&self, unit: f64) -> u64 {
        let scaled = unit * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < self.second_bound {
            return 1;
        }
        (self.items * (self.eta * unit - self.eta + 1.0).powf(self.alpha)) as u64
    }
}

/// How the run phase chooses the record of an operation.
#[derive(Debug, Clone)]
pub enum KeyChooser {
    /// Every record alike.
    Uniform {
        /// Number of records.
        records: u64,
    },
    /// YCSB's scrambled zipfian.
    ScrambledZipfian {
        /// Ranks behind it.
        zipfian: Zipfian,
        /// Number of records.
        records: u64,
    },
}

impl KeyChooser {
    /// Every one of `records` alike.
    pub fn uniform(records: u64) -> Self {
        assert!(records > 0, "keys cannot be chosen from no records");
        Self::Uniform { records }
    }

    /// YCSB's default for workloads A, B, C and F.
    pub fn scrambled_zipfian(records: u64) -> Self {
        assert!(records > 0, "keys cannot be chosen from no records");
        let zipfian = Zipfian::with_zeta(SCRAMBLED_ITEMS, ZIPFIAN_CONSTANT, SCRAMBLED_ZETA);
        Self::ScrambledZipfian { zipfian, records }
    }

    /// The record of the next operation.
    pub fn next(&self, random: &mut Random) -> KeyIndex {
        match self {
            Self::Uniform { records } => KeyIndex(random.next_below(*records)),
            Self::ScrambledZipfian { zipfian, records } => loop {
                // YCSB scatters over one slot more than there are records and draws again when it is hit.
                let slot = fnv_hash64(zipfian.rank(random.next_unit())) % (records + 1);
                if slot < *records {
                    return KeyIndex(slot);
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Euler–Maclaurin: `zeta(n) = sum over i < m + integral from m to n + (f(m) + f(n)) / 2 + f'-terms`,
    /// which for `m = 1000` leaves an error far below 1e-9.
    fn zeta_by_formula(items: u64, theta: f64) -> f64 {
        let split = 1000_u64;
        let head: f64 = (1..split).map(|item| (item as f64).powf(-theta)).sum();
        let (from, to) = (split as f64, items as f64);
        let integral = (to.powf(1.0 - theta) - from.powf(1.0 - theta)) / (1.0 - theta);
        let ends = f64::midpoint(from.powf(-theta), to.powf(-theta));
        let slope = theta * (from.powf(-theta - 1.0) - to.powf(-theta - 1.0)) / 12.0;
        head + integral + ends + slope
    }

    #[test]
    fn the_kept_zeta_is_right() {
        let direct: f64 = (1..=100_000_u64)
            .map(|item| (item as f64).powf(-ZIPFIAN_CONSTANT))
            .sum();
        assert!((direct - zeta_by_formula(100_000, ZIPFIAN_CONSTANT)).abs() < 1e-8);
        let formula = zeta_by_formula(SCRAMBLED_ITEMS, ZIPFIAN_CONSTANT);
        assert!((formula - SCRAMBLED_ZETA).abs() < 1e-6, "{formula}");
    }

    #[test]
    fn fnv_is_the_published_hash() {
        // FNV-1a 64 of eight zero bytes, and its fold to a non-negative Java long.
        let plain = 0xA8C7_F832_281A_39C5_u64;
        assert_eq!(fnv_hash64(0), (plain as i64).unsigned_abs());
        assert_eq!(Key::of(KeyIndex(0)).bytes(), b"user6284781860667377211");
    }

    #[test]
    fn keys_differ_and_fit() {
        let keys: std::collections::HashSet<String> = (0..100_000)
            .map(|index| Key::of(KeyIndex(index)).to_string())
            .collect();
        assert_eq!(keys.len(), 100_000);
        assert!(
            keys.iter()
                .all(|key| key.starts_with("user") && key.len() <= KEY_BYTES_MAX)
        );
    }

    #[test]
    fn zipfian_ranks_have_their_frequencies() {
        let items = 1000;
        let zipfian = Zipfian::new(items, ZIPFIAN_CONSTANT);
        let zeta = zeta_by_formula(items, ZIPFIAN_CONSTANT);
        let draws = 2_000_000_u32;
        let mut counts = vec![0_u32; items as usize];
        let mut random = Random::new(11);
        for _ in 0..draws {
            counts[zipfian.rank(random.next_unit()) as usize] += 1;
        }
        for (rank, count) in counts.iter().take(20).enumerate() {
            let expected = f64::from(draws) * ((rank + 1) as f64).powf(-ZIPFIAN_CONSTANT) / zeta;
            let ratio = f64::from(*count) / expected;
            // Ranks 0 and 1 are exact; the others follow the paper's integral approximation.
            let tolerance = if rank < 2 { 0.01 } else { 0.30 };
            assert!(
                (ratio - 1.0).abs() < tolerance,
                "rank {rank}: {count} drawn, {expected} expected"
            );
        }
        let tail: u32 = counts[20..].iter().sum();
        let expected = f64::from(draws) * (1.0 - zeta_by_formula_small(20) / zeta);
        assert!(
            (f64::from(tail) / expected - 1.0).abs() < 0.05,
            "{tail} in the tail, {expected} expected"
        );
    }

    fn zeta_by_formula_small(items: u64) -> f64 {
        (1..=items)
            .map(|item| (item as f64).powf(-ZIPFIAN_CONSTANT))
            .sum()
    }

    #[test]
    fn scrambled_zipfian_makes_the_hashed_ranks_hot() {
        let records = 100_000;
        let chooser = KeyChooser::scrambled_zipfian(records);
        let mut random = Random::new(5);
        let draws = 1_000_000_u32;
        let mut counts = vec![0_u32; records as usize];
        for _ in 0..draws {
            counts[chooser.next(&mut random).0 as usize] += 1;
        }
        for rank in 0..2_u64 {
            let slot = (fnv_hash64(rank) % (records + 1)) as usize;
            let expected = f64::from(draws) * ((rank + 1) as f64).powf(-ZIPFIAN_CONSTANT) / SCRAMBLED_ZETA;
            let ratio = f64::from(counts[slot]) / expected;
            assert!(
                (0.97..1.03).contains(&ratio),
                "rank {rank}: {} drawn, {expected} expected",
                counts[slot]
            );
        }
        let touched = counts.iter().filter(|count| **count > 0).count();
        assert!(touched > 80_000, "only {touched} records were ever chosen");
    }

    #[test]
    fn uniform_choice_is_uniform() {
        let chooser = KeyChooser::uniform(100);
        let mut random = Random::new(3);
        let mut counts = [0_u32; 100];
        for _ in 0..100_000 {
            counts[chooser.next(&mut random).0 as usize] += 1;
        }
        assert!(
            counts.iter().all(|count| (800..1200).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn one_record_is_enough() {
        let mut random = Random::new(3);
        assert_eq!(KeyChooser::scrambled_zipfian(1).next(&mut random), KeyIndex(0));
        assert_eq!(KeyChooser::uniform(1).next(&mut random), KeyIndex(0));
    }
}
