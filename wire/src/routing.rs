//! Which shard a key belongs to: routing key, then hash, then a range of the hash space.
//!
//! 1. The routing key is the part of the key between the first `{` and the following `}` if both exist and
//!    the part is not empty (the hash-tag rule of Redis Cluster), else the whole key. Keys with one tag share
//!    a shard.
//! 2. The hash is xxh3-64 of the routing key, seed 0.
//! 3. Shards are equal ranges of the 64-bit hash space, in order, so a shard's number is the hash's highest
//!    bits and splitting each shard in two keeps every key inside the two halves of its old shard.
//!
//! Clients and servers must agree on all of it: it never changes within a protocol version.

use std::fmt;

use crate::limits::SHARDS_MAX;

/// Number of a shard: `0..shards`, where the number of shards is a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u32);

impl fmt::Display for ShardId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "shard {}", self.0)
    }
}

/// The part of `key` that decides its shard.
pub fn routing_key(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&byte| byte == b'{') else {
        return key;
    };
    let tagged = &key[open + 1..];
    match tagged.iter().position(|&byte| byte == b'}') {
        Some(close) if close > 0 => &tagged[..close],
        _ => key,
    }
}

/// Hash of the routing key of `key`.
#[inline]
pub fn key_hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(routing_key(key))
}

/// The shard that owns `hash` in a cluster of `shards` shards.
///
/// # Panics
/// If `shards` is no power of two or above [`SHARDS_MAX`]: such a cluster can't exist.
#[inline]
pub fn shard_of(hash: u64, shards: u32) -> ShardId {
    assert!(
        shards.is_power_of_two() && shards <= SHARDS_MAX,
        "{shards} shards: not a power of two up to {SHARDS_MAX}"
    );
    let shard_bits = shards.trailing_zeros();
    // A shift by all 64 bits (one shard) has no result; every hash is in shard 0 then.
    ShardId(hash.checked_shr(u64::BITS - shard_bits).unwrap_or(0) as u32)
}
