//! A bloom filter of the user keys of a table: says that a key is not there, or that it may be.
//!
//! All bits of a key lie in one cache line (blocked bloom filters: Putze, Sanders, Singler, "Cache-, Hash- and
//! Space-Efficient Bloom Filters", 2007, section 3), so that a look costs one miss. With 10 bits a key some 1.2 % of
//! the keys that are not there pass.
//!
//! ```text
//! filter = line (64 bytes) ...
//! ```

/// Bits of the filter for each key.
pub const BITS_PER_KEY: usize = 10;

/// Bits that are set for a key: the best number for so many bits is `BITS_PER_KEY * ln 2`.
const PROBES: u32 = 7;
const LINE_BYTES: usize = 64;
/// log2 of the bits of a line.
const PLACE_BITS: u32 = 9;
/// Odd, with bits in no order: 2^64 divided by the golden ratio.
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;

const _: () = assert!(LINE_BYTES * 8 == 1 << PLACE_BITS);
const _: () = assert!(PROBES * PLACE_BITS < u64::BITS);

/// Collects the hashes of keys.
#[derive(Debug, Default)]
pub struct FilterBuilder {
    hashes: Vec<u64>,
}

impl FilterBuilder {
    /// Adds a key by its xxh3-64. Once is enough for all versions of a key.
    pub fn add(&mut self, hash: u64) {
        self.hashes.push(hash);
    }

    /// The filter of all that was added.
    pub fn finish(&self) -> Vec<u8> {
        let lines = (self.hashes.len() * BITS_PER_KEY).div_ceil(LINE_BYTES * 8);
        let mut bytes = vec![0; lines * LINE_BYTES];
        for hash in &self.hashes {
            let line = line_of(*hash, lines);
            for place in places(*hash) {
                bytes[line + place / 8] |= 1 << (place % 8);
            }
        }
        bytes
    }
}

/// True unless the key with this hash was surely not added to the filter. A filter without a line has no key.
///
/// # Panics
/// If the length is no multiple of a line's.
pub fn may_contain(filter: &[u8], hash: u64) -> bool {
    assert!(
        filter.len().is_multiple_of(LINE_BYTES),
        "a filter has whole lines"
    );
    if filter.is_empty() {
        return false;
    }
    let line = line_of(hash, filter.len() / LINE_BYTES);
    places(hash).all(|place| filter[line + place / 8] & 1 << (place % 8) != 0)
}

/// Is this the length of a filter?
pub fn is_length(bytes: usize) -> bool {
    bytes.is_multiple_of(LINE_BYTES)
}

/// Where the line of a key begins. Keys of a shard share the upper bits of their hashes, so the lower ones choose.
fn line_of(hash: u64, lines: usize) -> usize {
    let number = (u64::from(hash as u32) * lines as u64) >> u32::BITS;
    number as usize * LINE_BYTES
}

fn places(hash: u64) -> impl Iterator<Item = usize> {
    let mixed = hash.wrapping_mul(MIX);
    (1..=PROBES).map(move |probe| (mixed >> (u64::BITS - probe * PLACE_BITS)) as usize % (LINE_BYTES * 8))
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    fn hash(number: u64) -> u64 {
        xxh3_64(&number.to_le_bytes())
    }

    fn filter_of(numbers: impl Iterator<Item = u64>) -> Vec<u8> {
        let mut builder = FilterBuilder::default();
        numbers.for_each(|number| builder.add(hash(number)));
        builder.finish()
    }

    #[test]
    fn what_was_added_passes() {
        for count in [1, 2, 51, 52, 1000, 100_000] {
            let filter = filter_of(0..count);
            assert!(
                (0..count).all(|number| may_contain(&filter, hash(number))),
                "{count}"
            );
        }
    }

    #[test]
    fn an_empty_filter_lets_nothing_pass() {
        let filter = filter_of(0..0);
        assert!(filter.is_empty() && !may_contain(&filter, hash(1)));
    }

    #[test]
    fn few_others_pass_also_in_a_shard_of_many() {
        for shards in [1_u64, 4096] {
            let of_shard = |number: &u64| hash(*number) < u64::MAX / shards;
            let mut numbers = (0_u64..).filter(of_shard);
            let count = if shards == 1 { 100_000 } else { 1_000 };
            let filter = filter_of(numbers.by_ref().take(count));
            let passed = numbers
                .take(count)
                .filter(|number| may_contain(&filter, hash(*number)))
                .count();
            assert!(
                passed * 1000 < count * 16,
                "{passed} of {count} with {shards} shards"
            );
        }
    }
}
