//! Layout of keys and versions in the arena (little-endian; blocks are padded to 8 bytes).
//!
//! ```text
//! key record   newest version (4) | key length (4) | key … | padding | its first version
//! version      [jump (4) | depth (4)] | timestamp (8) | older (4) | value word (4) | [expiry (8)] | value … | padding
//!
//! value word   0 … 7FFF_FFFE           length of the value, which never expires
//!              8000_0000 … FFFF_FFFE   the same with the top bit set: an expiry precedes the value
//!              FFFF_FFFF               a tombstone
//! ```
//!
//! A version without an expiry pays nothing for those that have one: not a byte, and one comparison of the value
//! word, which it needs anyhow to tell a value from a tombstone.
//!
//! A key that is written once is one block, read in one go. An update appends a version whose `older` is the
//! one that was newest, and changes the key record's first word. A reference to a version is that of its
//! timestamp; `jump` and `depth` lie before it and are missing in the first version of a key, whose `older` is 0.
//! (So the value's place follows from the reference alone, and the processor can load it without waiting for
//! the header: a random read among a million keys was a fifth faster than with the links behind the header.)
//!
//! `jump` points farther back, so that a read at an old snapshot need not walk a hot key's versions one by one:
//! versions form a skew-binary list, in which any older one is O(log n) steps away. `depth` counts the versions
//! below. Source: Myers, "An applicative random-access stack", Information Processing Letters 17 (1983).
//!
//! Invariant: along `older` and `jump` timestamps fall strictly.

use super::arena::{Arena, Ref, UNIT_BYTES};
use super::{Mutation, Version};
use ostrakon_core::hlc::Timestamp;

const KEY_HEADER_BYTES: usize = 8;
const LINKS_BYTES: usize = 8;
const HEADER_BYTES: usize = 16;
const EXPIRY_BYTES: usize = 8;
/// The bit of a value word that says: an expiry precedes the value.
const EXPIRING: u32 = 1 << 31;
/// The value word that says: deleted.
const TOMBSTONE: u32 = u32::MAX;
/// Longest value: with an expiry, one byte more would read as a tombstone.
const VALUE_BYTES_MAX: usize = (TOMBSTONE - EXPIRING - 1) as usize;

const _: () = assert!(EXPIRY_BYTES.is_multiple_of(UNIT_BYTES));

/// The fixed part of a version.
struct Header {
    timestamp: Timestamp,
    older: Ref,
    value_word: u32,
}

/// A version's way to older ones. Only versions that have an older one store it.
struct Links {
    jump: Ref,
    depth: u32,
}

/// Bytes of the block that a new key with its first version takes.
pub(super) const fn key_block_bytes(key_len: usize, value_len: usize, is_expiring: bool) -> usize {
    KEY_HEADER_BYTES + padded(key_len) + version_bytes(value_len, is_expiring)
}

/// Bytes of the block that one more version of a key takes.
pub(super) const fn version_block_bytes(value_len: usize, is_expiring: bool) -> usize {
    LINKS_BYTES + version_bytes(value_len, is_expiring)
}

/// Bytes of a version without its links.
const fn version_bytes(value_len: usize, is_expiring: bool) -> usize {
    let expiry_bytes = if is_expiring { EXPIRY_BYTES } else { 0 };
    HEADER_BYTES + expiry_bytes + padded(value_len)
}

/// Writes a new key with its first version.
pub(super) fn write_key(arena: &mut Arena, key: &[u8], timestamp: Timestamp, mutation: Mutation<'_>) -> Ref {
    let key_bytes = KEY_HEADER_BYTES + padded(key.len());
    let (value, expiry) = parts(mutation);
    let len = key_block_bytes(key.len(), value.len(), expiry.is_some());
    arena.append(len, |place, block| {
        block.extend_from_slice(&place.plus(key_bytes).0.to_le_bytes());
        block.extend_from_slice(&(key.len() as u32).to_le_bytes());
        append_padded(block, key);
        append_version(block, timestamp, Ref::NONE, mutation);
    })
}

/// Puts a version before the newest one of an existing key.
pub(super) fn push_version(arena: &mut Arena, node: Ref, timestamp: Timestamp, mutation: Mutation<'_>) {
    let older = newest_ref(arena, node);
    let newest = header(arena, older);
    assert!(
        timestamp > newest.timestamp,
        "version {timestamp} is not above the newest, {}",
        newest.timestamp
    );
    let links = links_above(arena, older);
    let (value, expiry) = parts(mutation);
    let len = version_block_bytes(value.len(), expiry.is_some());
    let block = arena.append(len, |_, block| {
        block.extend_from_slice(&links.jump.0.to_le_bytes());
        block.extend_from_slice(&links.depth.to_le_bytes());
        append_version(block, timestamp, older, mutation);
    });
    let version = block.plus(LINKS_BYTES);
    arena.bytes_from_mut(node)[..4].copy_from_slice(&version.0.to_le_bytes());
}

/// The key of a key record.
#[inline]
pub(super) fn key(arena: &Arena, node: Ref) -> &[u8] {
    let (header, rest) = split_header::<KEY_HEADER_BYTES>(arena.bytes_from(node));
    let [_, _, _, _, len @ ..] = *header;
    &rest[..u32::from_le_bytes(len) as usize]
}

/// The newest version of a key.
#[inline]
pub(super) fn newest(arena: &Arena, node: Ref) -> Version<'_> {
    version(arena, newest_ref(arena, node))
}

/// The newest version of a key at or below `snapshot`.
#[inline]
pub(super) fn version_at(arena: &Arena, node: Ref, snapshot: Timestamp) -> Option<Version<'_>> {
    let mut place = newest_ref(arena, node);
    loop {
        let current = header(arena, place);
        if current.timestamp <= snapshot {
            return Some(version(arena, place));
        }
        if current.older == Ref::NONE {
            return None;
        }
        // The jump is taken only onto versions that are still too new, so the one sought is never passed.
        let jump = links(arena, place).jump;
        place = if header(arena, jump).timestamp > snapshot {
            jump
        } else {
            current.older
        };
    }
}

/// All versions of a key, from the newest to the oldest.
pub(super) fn versions(arena: &Arena, node: Ref) -> impl Iterator<Item = Version<'_>> {
    let mut place = newest_ref(arena, node);
    core::iter::from_fn(move || {
        let current = place;
        if current == Ref::NONE {
            return None;
        }
        place = header(arena, current).older;
        Some(version(arena, current))
    })
}

#[inline]
fn newest_ref(arena: &Arena, node: Ref) -> Ref {
    let (newest, _) = split_header::<4>(arena.bytes_from(node));
    Ref(u32::from_le_bytes(*newest))
}

#[inline]
fn version(arena: &Arena, place: Ref) -> Version<'_> {
    let (bytes, rest) = split_header(arena.bytes_from(place));
    let header = Header::decode(bytes);
    if header.value_word < EXPIRING {
        return Version {
            timestamp: header.timestamp,
            value: Some(&rest[..header.value_word as usize]),
            expiry: None,
        };
    }
    tombstone_or_expiring(&header, rest)
}

/// A version whose value word is none of a plain value; `rest` follows its header.
fn tombstone_or_expiring<'a>(header: &Header, rest: &'a [u8]) -> Version<'a> {
    let timestamp = header.timestamp;
    if header.value_word == TOMBSTONE {
        return Version {
            timestamp,
            value: None,
            expiry: None,
        };
    }
    let (expiry, rest) = split_header::<EXPIRY_BYTES>(rest);
    Version {
        timestamp,
        value: Some(&rest[..(header.value_word & !EXPIRING) as usize]),
        expiry: Some(Timestamp(u64::from_le_bytes(*expiry))),
    }
}

#[inline]
fn header(arena: &Arena, place: Ref) -> Header {
    Header::decode(split_header(arena.bytes_from(place)).0)
}

impl Header {
    #[inline]
    fn decode(bytes: &[u8; HEADER_BYTES]) -> Header {
        let word = u128::from_le_bytes(*bytes);
        Header {
            timestamp: Timestamp(word as u64),
            older: Ref((word >> 64) as u32),
            value_word: (word >> 96) as u32,
        }
    }
}

/// The links of a version; the oldest one jumps to itself.
fn links(arena: &Arena, place: Ref) -> Links {
    if header(arena, place).older == Ref::NONE {
        return Links {
            jump: place,
            depth: 0,
        };
    }
    let (links, _) = split_header::<LINKS_BYTES>(arena.bytes_from(place.minus(LINKS_BYTES)));
    let word = u64::from_le_bytes(*links);
    Links {
        jump: Ref(word as u32),
        depth: (word >> 32) as u32,
    }
}

/// The links of a version to be put above `older`: where the two jumps from there are of equal length, one
/// jump over both, else to `older` itself.
fn links_above(arena: &Arena, older: Ref) -> Links {
    let one = links(arena, older);
    let two = links(arena, one.jump);
    let three = links(arena, two.jump);
    let is_even = one.depth > 0 && one.depth - two.depth == two.depth - three.depth;
    Links {
        jump: if is_even { two.jump } else { older },
        depth: one.depth + 1,
    }
}

/// Appends a version from its timestamp on.
fn append_version(block: &mut Vec<u8>, timestamp: Timestamp, older: Ref, mutation: Mutation<'_>) {
    let (value, expiry) = parts(mutation);
    assert!(
        value.len() <= VALUE_BYTES_MAX,
        "value of {} bytes, at most {VALUE_BYTES_MAX} fit",
        value.len()
    );
    let value_word = match mutation {
        Mutation::Put { expiry: None, .. } => value.len() as u32,
        Mutation::Put { expiry: Some(_), .. } => value.len() as u32 | EXPIRING,
        Mutation::Tombstone => TOMBSTONE,
    };
    block.extend_from_slice(&timestamp.0.to_le_bytes());
    block.extend_from_slice(&older.0.to_le_bytes());
    block.extend_from_slice(&value_word.to_le_bytes());
    if let Some(expiry) = expiry {
        block.extend_from_slice(&expiry.0.to_le_bytes());
    }
    append_padded(block, value);
}

fn append_padded(block: &mut Vec<u8>, bytes: &[u8]) {
    block.extend_from_slice(bytes);
    block.extend_from_slice(&[0; UNIT_BYTES][..padded(bytes.len()) - bytes.len()]);
}

/// What a mutation stores behind its header.
fn parts(mutation: Mutation<'_>) -> (&[u8], Option<Timestamp>) {
    match mutation {
        Mutation::Put { value, expiry } => (value, expiry),
        Mutation::Tombstone => (&[], None),
    }
}

const fn padded(len: usize) -> usize {
    len.next_multiple_of(UNIT_BYTES)
}

/// The fixed part at the start of a record and what follows it.
#[inline]
fn split_header<const LEN: usize>(bytes: &[u8]) -> (&[u8; LEN], &[u8]) {
    bytes
        .split_first_chunk()
        .expect("a reference points to a whole record")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a record that starts at `place` and ends with the arena.
    fn last_record(arena: &Arena, place: Ref) -> Vec<u8> {
        arena.bytes_from(place).to_vec()
    }

    #[test]
    fn only_a_version_that_expires_stores_an_expiry() {
        let mut arena = Arena::new();
        let lasting = Mutation::Put {
            value: b"v",
            expiry: None,
        };
        let node = write_key(&mut arena, b"key", Timestamp(0x0807_0605_0403_0201), lasting);
        let first = newest_ref(&arena, node).0.to_le_bytes();
        let key_record = [&first[..], &[3, 0, 0, 0], b"key\0\0\0\0\0"].concat();
        let version = [
            &[1, 2, 3, 4, 5, 6, 7, 8][..],
            &[0, 0, 0, 0],
            &[1, 0, 0, 0],
            b"v\0\0\0\0\0\0\0",
        ]
        .concat();
        let record = last_record(&arena, node);
        assert_eq!(record, [key_record, version].concat());
        assert_eq!(record.len(), key_block_bytes(3, 1, false));

        let expiring = Mutation::Put {
            value: b"v",
            expiry: Some(Timestamp(0x0102_0304_0506_0708)),
        };
        push_version(&mut arena, node, Timestamp(u64::MAX), expiring);
        let second = newest_ref(&arena, node);
        let version = [
            &[0xff; 8][..],
            &first,
            &[1, 0, 0, 0x80],
            &[8, 7, 6, 5, 4, 3, 2, 1],
            b"v\0\0\0\0\0\0\0",
        ]
        .concat();
        let record = last_record(&arena, second);
        assert_eq!(record, version);
        assert_eq!(LINKS_BYTES + record.len(), version_block_bytes(1, true));
        assert_eq!(version_block_bytes(1, true), version_block_bytes(1, false) + 8);

        let node = write_key(&mut arena, b"", Timestamp(2), Mutation::Tombstone);
        let record = last_record(&arena, node);
        assert_eq!(
            record[KEY_HEADER_BYTES..],
            [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]
        );
        assert_eq!(record.len(), key_block_bytes(0, 0, false));
    }
}
