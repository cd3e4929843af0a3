//! Values that check themselves.
//!
//! A value says which write it is and proves that it is whole, so that a reader needs no second copy to tell
//! a right value from a wrong one, and can say what is wrong with it. Layout, numbers little-endian:
//!
//! ```text
//!  0  u32  magic "OVL1"
//!  4  u32  value_bytes: length of the whole value
//!  8  u64  key index
//! 16  u64  writer id
//! 24  u64  write sequence: number of this write among the writer's writes of this key, from 1
//! 32  u64  xxh3 of bytes 40.., seeded with the xxh3 of bytes 0..32
//! 40       content: the pseudo-random stream of (key index, writer id, write sequence)
//! ```
//!
//! The content follows from the header, so a damaged value is compared with what it should have been.

use crate::keys::KeyIndex;
use crate::random::{Random, mix};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Bytes before the content; a value is never shorter.
pub const VALUE_HEADER_BYTES: usize = 40;

const MAGIC: u32 = u32::from_le_bytes(*b"OVL1");
const CHECKSUM_AT: usize = 32;

/// Names all the writes of one register, so that values of an earlier load are never taken for its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WriterId(pub u64);

/// Counts the writes of one key by one writer, from 1; 0 stands for "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteSequence(pub u64);

/// Which write a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueIdentity {
    /// Record it belongs to.
    pub key: KeyIndex,
    /// Register it was written under.
    pub writer: WriterId,
    /// Which write of that key.
    pub sequence: WriteSequence,
}

/// How long values are: always the same, or every length of a range alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct ValueSize {
    /// Shortest, in bytes.
    pub low_bytes: usize,
    /// Longest, in bytes.
    pub high_bytes: usize,
}

impl ValueSize {
    /// Always the same.
    pub fn fixed(bytes: usize) -> Self {
        Self {
            low_bytes: bytes,
            high_bytes: bytes,
        }
    }

    /// Length of this write's value, in bytes: each write of a run has its own, and the same one when it is
    /// sent again.
    pub fn bytes_of(self, identity: ValueIdentity) -> usize {
        let span = (self.high_bytes - self.low_bytes) as u64;
        if span == 0 {
            return self.low_bytes;
        }
        let mut random = Random::for_lane(identity.key.0, identity.sequence.0);
        self.low_bytes + random.next_below(span + 1) as usize
    }
}

impl std::fmt::Display for ValueSize {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.low_bytes == self.high_bytes {
            write!(formatter, "{}", self.low_bytes)
        } else {
            write!(formatter, "{} to {}", self.low_bytes, self.high_bytes)
        }
    }
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueError {
    /// Too short to hold a header.
    TooShort {
        /// Bytes found.
        found_bytes: usize,
    },
    /// Not made by loadgen, or its first bytes are damaged.
    Magic {
        /// What stands there.
        found: u32,
    },
    /// Cut off or grown.
    Length {
        /// Bytes the header says.
        expected_bytes: usize,
        /// Bytes found.
        found_bytes: usize,
    },
    /// Its bytes are not those that were written.
    Damaged {
        /// Which write the header claims to be.
        claimed: ValueIdentity,
        /// First byte that differs from the value recomputed from that claim.
        first_difference_at: usize,
    },
}

impl std::fmt::Display for ValueError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooShort { found_bytes } => {
                write!(
                    formatter,
                    "a value of {found_bytes} bytes, too short for the header of {VALUE_HEADER_BYTES}"
                )
            }
            Self::Magic { found } => {
                write!(
                    formatter,
                    "a value that loadgen never wrote (magic {found:#010x} instead of {MAGIC:#010x})"
                )
            }
            Self::Length {
                expected_bytes,
                found_bytes,
            } => {
                write!(
                    formatter,
                    "a value of {found_bytes} bytes whose header says {expected_bytes}"
                )
            }
            Self::Damaged {
                claimed,
                first_difference_at,
            } => write!(
                formatter,
                "a damaged value: it claims write {} of record {}, and differs from it first at byte \
                 {first_difference_at}",
                claimed.sequence.0, claimed.key.0
            ),
        }
    }
}

/// Makes `out` the value of `identity`, `value_bytes` long. Allocates only while `out` grows.
///
/// # Panics
/// If `value_bytes` is below [`VALUE_HEADER_BYTES`] or above `u32::MAX`; the command line refuses both.
pub fn fill(out: &mut Vec<u8>, identity: ValueIdentity, value_bytes: usize) {
    out.clear();
    append(out, identity, value_bytes);
}

/// Appends the value of `identity`, `value_bytes` long. Allocates only while `out` grows.
///
/// # Panics
/// As [`fill`].
pub fn append(out: &mut Vec<u8>, identity: ValueIdentity, value_bytes: usize) {
    assert!(value_bytes >= VALUE_HEADER_BYTES, "a value must hold its header");
    let length = u32::try_from(value_bytes).expect("value sizes are checked with the command line");
    let start = out.len();
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&identity.key.0.to_le_bytes());
    out.extend_from_slice(&identity.writer.0.to_le_bytes());
    out.extend_from_slice(&identity.sequence.0.to_le_bytes());
    out.resize(start + value_bytes, 0);
    let out = &mut out[start..];
    let mut random = Random::new(mix(
        identity.key.0 ^ mix(identity.writer.0 ^ mix(identity.sequence.0))
    ));
    for chunk in out[VALUE_HEADER_BYTES..].chunks_mut(8) {
        chunk.copy_from_slice(&random.next_u64().to_le_bytes()[..chunk.len()]);
    }
    let checksum = checksum_of(out);
    out[CHECKSUM_AT..CHECKSUM_AT + 8].copy_from_slice(&checksum.to_le_bytes());
}

/// Which write these bytes are.
///
/// # Errors
/// When they are not, byte for byte, a value that [`fill`] made.
pub fn check(bytes: &[u8]) -> Result<ValueIdentity, ValueError> {
    if bytes.len() < VALUE_HEADER_BYTES {
        return Err(ValueError::TooShort {
            found_bytes: bytes.len(),
        });
    }
    let magic = u32::from_le_bytes(bytes[0..4].try_into().expect("four bytes"));
    if magic != MAGIC {
        return Err(ValueError::Magic { found: magic });
    }
    let expected_bytes = u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes")) as usize;
    if expected_bytes != bytes.len() {
        return Err(ValueError::Length {
            expected_bytes,
            found_bytes: bytes.len(),
        });
    }
    let claimed = ValueIdentity {
        key: KeyIndex(word_at(bytes, 8)),
        writer: WriterId(word_at(bytes, 16)),
        sequence: WriteSequence(word_at(bytes, 24)),
    };
    if word_at(bytes, CHECKSUM_AT) == checksum_of(bytes) {
        return Ok(claimed);
    }
    let mut wanted = Vec::new();
    fill(&mut wanted, claimed, bytes.len());
    let difference = wanted
        .iter()
        .zip(bytes)
        .position(|(wanted, found)| wanted != found);
    let first_difference_at = difference.expect("a value equal to its recomputation has its checksum");
    Err(ValueError::Damaged {
        claimed,
        first_difference_at,
    })
}

fn checksum_of(value: &[u8]) -> u64 {
    xxh3_64_with_seed(&value[CHECKSUM_AT + 8..], xxh3_64(&value[..CHECKSUM_AT]))
}

fn word_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> ValueIdentity {
        ValueIdentity {
            key: KeyIndex(42),
            writer: WriterId(7),
            sequence: WriteSequence(3),
        }
    }

    #[test]
    fn a_value_says_which_write_it_is() {
        let mut value = Vec::new();
        for value_bytes in [40, 41, 47, 48, 100, 1000, 70_001] {
            fill(&mut value, identity(), value_bytes);
            assert_eq!(value.len(), value_bytes);
            assert_eq!(check(&value), Ok(identity()));
            append(&mut value, identity(), 50);
            assert_eq!(check(&value[value_bytes..]), Ok(identity()));
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let mut value = Vec::new();
        fill(&mut value, identity(), 120);
        for bit in 0..value.len() * 8 {
            value[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&value).is_err(), "bit {bit} went unseen");
            value[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(check(&value), Ok(identity()));
    }

    #[test]
    fn every_truncation_is_found() {
        let mut value = Vec::new();
        fill(&mut value, identity(), 120);
        for kept in 0..value.len() {
            assert!(
                check(&value[..kept]).is_err(),
                "a value cut to {kept} bytes went unseen"
            );
        }
        value.push(0);
        assert_eq!(
            check(&value),
            Err(ValueError::Length {
                expected_bytes: 120,
                found_bytes: 121
            })
        );
    }

    #[test]
    fn damage_is_located() {
        let mut value = Vec::new();
        fill(&mut value, identity(), 120);
        value[77] ^= 4;
        assert_eq!(
            check(&value),
            Err(ValueError::Damaged {
                claimed: identity(),
                first_difference_at: 77
            })
        );
    }

    #[test]
    fn ranged_lengths_are_uniform_and_stay_with_the_write() {
        let size = ValueSize {
            low_bytes: 100,
            high_bytes: 109,
        };
        let mut counts = [0_u32; 10];
        for sequence in 1..=100 {
            for key in 0..200 {
                let identity = ValueIdentity {
                    key: KeyIndex(key),
                    writer: WriterId(sequence),
                    sequence: WriteSequence(sequence),
                };
                let bytes = size.bytes_of(identity);
                assert_eq!(bytes, size.bytes_of(identity));
                counts[bytes - 100] += 1;
            }
        }
        assert!(
            counts.iter().all(|count| (1800..2200).contains(count)),
            "{counts:?}"
        );
        assert_eq!(ValueSize::fixed(77).bytes_of(identity()), 77);
    }

    #[test]
    fn writes_of_one_key_differ_in_content() {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        fill(&mut first, identity(), 100);
        fill(
            &mut second,
            ValueIdentity {
                sequence: WriteSequence(4),
                ..identity()
            },
            100,
        );
        assert_ne!(first[VALUE_HEADER_BYTES..], second[VALUE_HEADER_BYTES..]);
    }
}
