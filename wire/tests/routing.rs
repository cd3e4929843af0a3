//! Which shard a key belongs to never changes: data would be looked for where it is not.

use ostrakon_wire::routing::{ShardId, key_hash, routing_key, shard_of};

#[test]
fn the_routing_key_is_the_first_tag_that_is_not_empty() {
    for (key, expected) in [
        (&b"plain"[..], &b"plain"[..]),
        (b"{user:7}/name", b"user:7"),
        (b"a{b}c{d}", b"b"),
        (b"a{{b}}", b"{b"),
        (b"a}{b}", b"b"),
        (b"{}{b}", b"{}{b}"),
        (b"open{tag", b"open{tag"),
        (b"}{", b"}{"),
        (b"", b""),
    ] {
        assert_eq!(routing_key(key), expected, "{}", key.escape_ascii());
    }
    assert_eq!(key_hash(b"{user:7}/name"), key_hash(b"user:7"));
}

#[test]
fn hashes_never_change() {
    // The first is a published test value of xxh3-64 with seed 0.
    assert_eq!(key_hash(b""), 0x2D06_8005_38D3_94C2);
    assert_eq!(key_hash(b"user:7"), 0x0067_B227_F59E_E6B4);
}

#[test]
fn shards_are_equal_ranges_in_order() {
    for (hash, shards, expected) in [
        (0, 1, 0),
        (u64::MAX, 1, 0),
        ((1 << 63) - 1, 2, 0),
        (1 << 63, 2, 1),
        (u64::MAX, 8, 7),
        (3 << 61, 8, 3),
        (u64::MAX, 65_536, 65_535),
        ((1 << 48) - 1, 65_536, 0),
        (1 << 48, 65_536, 1),
    ] {
        assert_eq!(
            shard_of(hash, shards),
            ShardId(expected),
            "hash {hash:#x}, {shards} shards"
        );
    }
}

#[test]
#[should_panic(expected = "not a power of two")]
fn twelve_shards_cannot_exist() {
    shard_of(0, 12);
}
