//! Values that check themselves: who wrote which attempt to which key, and a checksum over all bytes.
//!
//! ```text
//!  0  8 B  magic "OSTRCRSH"
//!  8  u64  hash of the key
//! 16  u64  attempt: no two writes of a run have the same
//! 24  u64  number: n of a counter, 0 elsewhere
//! 32  u64  length of the whole value
//! 40  u64  checksum of all other bytes
//! 48       bytes that follow from the attempt
//! ```

use super::random::mix;

/// Bytes of the header, and so of the shortest value.
pub const HEADER_BYTES: usize = 48;
const MAGIC: &[u8; 8] = b"OSTRCRSH";
const CHECKSUM_AT: usize = 40;

/// What a value says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The write that it comes from; no two writes of a run have the same.
    pub attempt: u64,
    /// `n` of a counter, 0 elsewhere.
    pub number: u64,
}

/// Makes a value of `bytes` bytes, at least [`HEADER_BYTES`].
pub fn encode(key: &[u8], identity: Identity, bytes: usize) -> Vec<u8> {
    assert!(bytes >= HEADER_BYTES, "a value holds at least its header");
    let mut value = Vec::with_capacity(bytes + 8);
    value.extend_from_slice(MAGIC);
    for word in [hash(key), identity.attempt, identity.number, bytes as u64, 0] {
        value.extend_from_slice(&word.to_le_bytes());
    }
    let mut filler = identity.attempt;
    while value.len() < bytes {
        filler = mix(filler);
        value.extend_from_slice(&filler.to_le_bytes());
    }
    value.truncate(bytes);
    let checksum = hash(&value);
    value[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    value
}

/// Checks a value that was found at `key`.
///
/// # Errors
/// What is wrong with it.
pub fn decode(key: &[u8], value: &[u8]) -> Result<Identity, String> {
    if value.len() < HEADER_BYTES || &value[..8] != MAGIC {
        return Err(format!("{} bytes that no writer of this run wrote", value.len()));
    }
    let word = |at: usize| u64::from_le_bytes(value[at..at + 8].try_into().expect("eight bytes"));
    if word(32) != value.len() as u64 {
        return Err(format!("a value of {} bytes cut to {}", word(32), value.len()));
    }
    let mut blank = value.to_vec();
    blank[CHECKSUM_AT..HEADER_BYTES].fill(0);
    let checksum = hash(&blank);
    if checksum != word(CHECKSUM_AT) {
        return Err(format!(
            "a value with checksum {checksum:#x} instead of {:#x}",
            word(CHECKSUM_AT)
        ));
    }
    if word(8) != hash(key) {
        return Err(format!("attempt {} of another key", word(16)));
    }
    Ok(Identity {
        attempt: word(16),
        number: word(24),
    })
}

/// A 64-bit hash of bytes, eight at a time; not cryptographic.
fn hash(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(bytes.len() as u64, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(hash ^ u64::from_le_bytes(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_byte_and_every_other_key_is_seen() {
        let identity = Identity {
            attempt: 7,
            number: 3,
        };
        for bytes in [HEADER_BYTES, HEADER_BYTES + 1, 200] {
            let value = encode(b"key", identity, bytes);
            assert_eq!(value.len(), bytes);
            assert_eq!(decode(b"key", &value), Ok(identity));
            assert!(decode(b"kez", &value).is_err());
            assert!(decode(b"key", &value[..bytes - 1]).is_err());
            for at in 0..bytes {
                let mut damaged = value.clone();
                damaged[at] ^= 1;
                assert!(decode(b"key", &damaged).is_err(), "byte {at}");
            }
        }
    }
}
