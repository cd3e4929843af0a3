//! What a Raft entry of a shard says. The bytes are part of the log's format (`docs/formats.md`):
//!
//! ```text
//! kind u8, 3 zero bytes | key bytes u32 | timestamp u64 | key | value
//! ```

use ostrakon_core::hlc::Timestamp;

/// Bytes before the key.
pub const COMMAND_HEADER_BYTES: usize = 16;

const KIND_PUT: u8 = 1;
const KIND_DELETE: u8 = 2;
const KIND_CEILING: u8 = 3;

/// A decided change of a shard's state; applying it needs no further decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// The key gets this value.
    Put {
        /// The version.
        timestamp: Timestamp,
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// The key gets a tombstone.
    Delete {
        /// The version.
        timestamp: Timestamp,
        /// The key.
        key: &'a [u8],
    },
    /// The leader may assign timestamps and serve reads up to here. Also the first entry of a term.
    Ceiling {
        /// The new ceiling.
        timestamp: Timestamp,
    },
}

impl<'a> Command<'a> {
    /// The fixed part of the encoding; key and value follow it.
    pub fn header(&self) -> [u8; COMMAND_HEADER_BYTES] {
        let (kind, timestamp, key) = match *self {
            Command::Put { timestamp, key, .. } => (KIND_PUT, timestamp, key),
            Command::Delete { timestamp, key } => (KIND_DELETE, timestamp, key),
            Command::Ceiling { timestamp } => (KIND_CEILING, timestamp, &[][..]),
        };
        let mut bytes = [0; COMMAND_HEADER_BYTES];
        bytes[0] = kind;
        bytes[4..8].copy_from_slice(&(key.len() as u32).to_le_bytes());
        bytes[8..16].copy_from_slice(&timestamp.0.to_le_bytes());
        bytes
    }

    /// Reads an entry's payload; `None` if it is not one of this format.
    pub fn decode(payload: &'a [u8]) -> Option<Command<'a>> {
        let (header, rest) = payload.split_at_checked(COMMAND_HEADER_BYTES)?;
        let key_bytes = u32::from_le_bytes(header[4..8].try_into().expect("four bytes")) as usize;
        let timestamp = Timestamp(u64::from_le_bytes(header[8..16].try_into().expect("eight bytes")));
        let (key, value) = rest.split_at_checked(key_bytes)?;
        match header[0] {
            KIND_PUT => Some(Command::Put {
                timestamp,
                key,
                value,
            }),
            KIND_DELETE if value.is_empty() => Some(Command::Delete { timestamp, key }),
            KIND_CEILING if rest.is_empty() => Some(Command::Ceiling { timestamp }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(command: &Command<'_>) -> Vec<u8> {
        let (key, value): (&[u8], &[u8]) = match *command {
            Command::Put { key, value, .. } => (key, value),
            Command::Delete { key, .. } => (key, &[]),
            Command::Ceiling { .. } => (&[], &[]),
        };
        [&command.header()[..], key, value].concat()
    }

    #[test]
    fn golden_bytes() {
        let put = Command::Put {
            timestamp: Timestamp(0x0102_0304_0506_0708),
            key: b"k",
            value: b"vw",
        };
        assert_eq!(
            encoded(&put),
            [1, 0, 0, 0, 1, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1, b'k', b'v', b'w'],
        );
        let delete = Command::Delete {
            timestamp: Timestamp(1),
            key: b"k",
        };
        assert_eq!(
            encoded(&delete),
            [2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'k']
        );
        let ceiling = Command::Ceiling {
            timestamp: Timestamp(2),
        };
        assert_eq!(
            encoded(&ceiling),
            [3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]
        );
        for command in [put, delete, ceiling] {
            assert_eq!(Command::decode(&encoded(&command)), Some(command));
        }
    }

    #[test]
    fn malformed_payloads_are_refused() {
        let delete = encoded(&Command::Delete {
            timestamp: Timestamp(1),
            key: b"key",
        });
        assert_eq!(
            Command::decode(&delete[..COMMAND_HEADER_BYTES - 1]),
            None,
            "short header"
        );
        assert_eq!(Command::decode(&delete[..delete.len() - 1]), None, "key cut");
        assert_eq!(
            Command::decode(&[&delete[..], b"x"].concat()),
            None,
            "a delete with a value"
        );
        assert_eq!(Command::decode(&[&[9; 16][..]].concat()), None, "unknown kind");
    }
}
