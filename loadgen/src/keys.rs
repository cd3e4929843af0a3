//! The keys of the records, as the YCSB core workloads make them.
//!
//! Record number `i` has the key `user` followed by the decimal 64-bit FNV hash of `i` (YCSB's
//! `insertorder=hashed`), so that neighbours by number are no neighbours by key.

/// Number of a record, `0..records`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyIndex(pub u64);

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
        let first = decimal(&mut digits, fnv_hash64(index.0));
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

/// Writes `number` in decimal to the end of `digits`; gives where it begins. Two digits at a time: keys are made
/// for every request.
pub(crate) fn decimal(digits: &mut [u8; 20], number: u64) -> usize {
    let mut first = digits.len();
    let mut rest = number;
    while rest >= 10 {
        let pair = (rest % 100) as u8;
        rest /= 100;
        first -= 2;
        digits[first] = b'0' + pair / 10;
        digits[first + 1] = b'0' + pair % 10;
    }
    if rest > 0 || first == digits.len() {
        first -= 1;
        digits[first] = b'0' + rest as u8;
    }
    first
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv_is_the_published_hash() {
        // FNV-1a 64 of eight zero bytes, and its fold to a non-negative Java long.
        let plain = 0xA8C7_F832_281A_39C5_u64;
        assert_eq!(fnv_hash64(0), (plain as i64).unsigned_abs());
        assert_eq!(Key::of(KeyIndex(0)).bytes(), b"user6284781860667377211");
    }

    #[test]
    fn decimals_are_those_of_the_standard_library() {
        let mut digits = [0; 20];
        for number in [
            0,
            1,
            9,
            10,
            11,
            99,
            100,
            101,
            999,
            1000,
            12_345,
            1 << 63,
            u64::MAX,
        ] {
            let first = decimal(&mut digits, number);
            assert_eq!(&digits[first..], number.to_string().as_bytes());
        }
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
}
