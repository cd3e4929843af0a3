//! What a table holds, what it is charged for, and that neither exceeds its bounds.

use super::*;

/// Bytes per key, held and charged, above the payload of 200,000 keys of 16 bytes with values of 104.
fn overhead(key_of: impl Fn(u64) -> u64) -> (usize, usize) {
    const COUNT: usize = 200_000;
    let mut table = Memtable::new();
    for n in 0..COUNT as u64 {
        let key = key_of(n).to_be_bytes();
        put(&mut table, &[key, key].concat(), 1, &[1; 104]);
    }
    let payload_bytes = COUNT * (16 + 104);
    let above = |bytes: usize| (bytes - payload_bytes) / COUNT;
    (above(table.held_bytes()), above(table.memory_bytes()))
}

#[test]
fn overhead_per_key_stays_small() {
    let (held_bytes, charged_bytes) = overhead(|n| xxh3_64(&n.to_le_bytes()));
    assert!(held_bytes <= 72, "{held_bytes} bytes of overhead per key");
    assert!(
        charged_bytes <= 88,
        "{charged_bytes} bytes charged per key above the payload"
    );
    let (ascending_bytes, _) = overhead(|n| n);
    assert!(
        ascending_bytes <= held_bytes - 4,
        "keys in order must fill their leaves: {ascending_bytes}"
    );
}

#[test]
fn an_expiry_costs_eight_bytes_of_value() {
    for value_len in [0, 1, 8, 100, (256 << 10) - 40, 8 << 20] {
        let expiring_bytes = Memtable::insert_cost_bytes(20, value_len, true);
        assert_eq!(
            expiring_bytes,
            Memtable::insert_cost_bytes(20, value_len + 8, false)
        );
    }
}

#[test]
fn an_empty_table_costs_less_than_a_kibibyte() {
    let table = Memtable::new();
    assert!(table.memory_bytes() < 1024, "{}", table.memory_bytes());
    assert_eq!((table.key_count(), table.version_count()), (0, 0));
    assert_eq!(get(&table, b"any"), None);
    assert!(table.cursor(b"").key().is_none());
    table.prefetch(1);
    table.prefetch_node(1);
    let mut one = Memtable::new();
    put(&mut one, b"key", 1, b"value");
    assert!(one.held_bytes() < 4096, "{}", one.held_bytes());
}

#[test]
fn values_of_any_size_fit_and_are_accounted_for() {
    let mut table = Memtable::new();
    let sizes = [
        0,
        1,
        7,
        8,
        511,
        512,
        4096,
        200_000,
        (256 << 10) - 48,
        256 << 10,
        1 << 20,
        8 << 20,
    ];
    let mut timestamp = 0;
    for round in 0..2_u8 {
        for size in sizes {
            timestamp += 1;
            let key = format!("size{size}").into_bytes();
            insert_counted(
                &mut table,
                xxh3_64(&key),
                &key,
                timestamp,
                lasting(&vec![round; size]),
            );
            timestamp += 1;
            let expiring = Mutation::Put {
                value: &vec![round; size],
                expiry: Some(Timestamp(timestamp)),
            };
            insert_counted(&mut table, xxh3_64(b"shared"), b"shared", timestamp, expiring);
            timestamp += 1;
            let tombstone = Mutation::Tombstone;
            insert_counted(&mut table, xxh3_64(b"shared"), b"shared", timestamp, tombstone);
        }
    }
    for size in sizes {
        let key = format!("size{size}").into_bytes();
        let newest = table.newest(xxh3_64(&key), &key).unwrap();
        assert_eq!(newest.value, Some(vec![1; size].as_slice()));
    }
    assert_eq!(get(&table, b"shared"), Some((timestamp, None)));
    let before = table
        .at(xxh3_64(b"shared"), b"shared", Timestamp(timestamp - 1))
        .unwrap();
    assert_eq!(before.value.map(<[u8]>::len), Some(8 << 20));
    let stored_bytes = 4 * sizes.iter().sum::<usize>();
    assert!(table.held_bytes() >= stored_bytes);
    assert!(
        table.memory_bytes() <= stored_bytes + stored_bytes / 4,
        "{} for {stored_bytes}",
        table.memory_bytes()
    );
}

#[test]
fn a_large_value_between_small_ones_leaves_their_chunk_open() {
    let mut small = Memtable::new();
    let mut mixed = Memtable::new();
    for n in 0..1000_u64 {
        put(&mut small, &n.to_be_bytes(), n + 1, &[1; 50]);
        put(&mut mixed, &n.to_be_bytes(), n + 1, &[1; 50]);
        if n % 100 == 0 {
            put(&mut mixed, &n.to_be_bytes(), n + 2, &vec![2; 1 << 20]);
        }
    }
    let large_bytes = 10 * ((1 << 20) + 24);
    let table_bytes = 20 * 48;
    assert!(mixed.held_bytes() - small.held_bytes() <= large_bytes + table_bytes);
}

#[test]
fn keys_made_for_one_index_segment_only_make_it_larger() {
    let mut table = Memtable::new();
    let hash_of = |n: u32| u64::from(n.wrapping_mul(0x9e37_79b1) & !0xfff | 0x123);
    for n in 0..20_000_u32 {
        table.insert(hash_of(n), &n.to_be_bytes(), Timestamp(1), lasting(b"value"));
        assert!(table.held_bytes() <= table.memory_bytes());
    }
    assert!((0..20_000_u32).all(|n| table.newest(hash_of(n), &n.to_be_bytes()).is_some()));
    assert_eq!(table.newest(hash_of(20_000), &20_000_u32.to_be_bytes()), None);
}

#[test]
fn hashes_of_one_shard_fill_the_index_evenly() {
    // A shard is a range of hashes: the upper bits are all the same.
    let mut table = Memtable::new();
    for n in 0..100_000_u64 {
        let key = n.to_be_bytes();
        let hash = xxh3_64(&key) >> 16 | 0xbeef << 48;
        insert_counted(&mut table, hash, &key, 1, lasting(b"value"));
        table.prefetch(hash);
        table.prefetch_node(hash);
    }
    assert_eq!(table.key_count(), 100_000);
}

#[test]
fn the_largest_key_with_the_largest_value_is_one_block() {
    let mut table = Memtable::new();
    let key = vec![1; KEY_BYTES_MAX];
    insert_counted(&mut table, xxh3_64(&key), &key, 1, lasting(&vec![2; 8 << 20]));
    let expiring = Mutation::Put {
        value: &vec![3; 8 << 20],
        expiry: Some(Timestamp(9)),
    };
    insert_counted(&mut table, xxh3_64(&key), &key, 2, expiring);
    assert_eq!(
        table.newest(xxh3_64(&key), &key).unwrap().value,
        Some(vec![3; 8 << 20].as_slice())
    );
    let first = table.at(xxh3_64(&key), &key, Timestamp(1)).unwrap();
    assert_eq!(first.value, Some(vec![2; 8 << 20].as_slice()));
}
