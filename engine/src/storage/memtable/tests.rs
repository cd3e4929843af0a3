//! Tests of the memtable as a whole, against a plain ordered map, and of its bounds.

use super::{KEY_BYTES_MAX, Memtable, Mutation, Version};
use ostrakon_core::hlc::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

type Model = BTreeMap<(Vec<u8>, Reverse<u64>), Option<Vec<u8>>>;

/// Timestamp and value of a version, if there is one.
type Found = Option<(u64, Option<Vec<u8>>)>;

/// One key of a scan.
type Scanned = (Vec<u8>, Found);

/// How a test computes hashes; the table must be right under all of them.
#[derive(Clone, Copy, Debug)]
enum Hashing {
    /// As in production.
    Uniform,
    /// Four different hashes, shared by all keys.
    Colliding,
    /// One hash.
    Constant,
}

impl Hashing {
    fn of(self, key: &[u8]) -> u64 {
        match self {
            Hashing::Uniform => xxh3_64(key),
            Hashing::Colliding => xxh3_64(key) % 4,
            Hashing::Constant => u64::MAX,
        }
    }
}

fn put(table: &mut Memtable, key: &[u8], timestamp: u64, value: &[u8]) {
    table.insert(xxh3_64(key), key, Timestamp(timestamp), Mutation::Put(value));
}

fn get(table: &Memtable, key: &[u8]) -> Found {
    table.newest(xxh3_64(key), key).map(owned)
}

fn owned(version: Version<'_>) -> (u64, Option<Vec<u8>>) {
    (version.timestamp.0, version.value.map(<[u8]>::to_vec))
}

fn model_at(model: &Model, key: &[u8], snapshot: u64) -> Found {
    let newest = model.range((key.to_vec(), Reverse(snapshot))..).next();
    newest
        .filter(|((found, _), _)| found == key)
        .map(|((_, at), value)| (at.0, value.clone()))
}

/// All keys of a scan from `start`, each with its version at `snapshot`.
fn scan(table: &Memtable, start: &[u8], snapshot: u64) -> Vec<Scanned> {
    let mut cursor = table.cursor(start);
    let mut found = Vec::new();
    while let Some(key) = cursor.key() {
        found.push((key.to_vec(), cursor.version_at(Timestamp(snapshot)).map(owned)));
        cursor.advance();
    }
    assert!(cursor.version_at(Timestamp::MAX).is_none());
    cursor.advance();
    assert!(cursor.key().is_none());
    found
}

fn model_scan(model: &Model, start: &[u8], snapshot: u64) -> Vec<Scanned> {
    let mut keys: Vec<_> = model
        .keys()
        .map(|(key, _)| key.clone())
        .filter(|key| key.as_slice() >= start)
        .collect();
    keys.dedup();
    keys.into_iter()
        .map(|key| (key.clone(), model_at(model, &key, snapshot)))
        .collect()
}

/// Checks the accounting of an insert while doing it.
fn insert_counted(table: &mut Memtable, hash: u64, key: &[u8], timestamp: u64, value: Option<&[u8]>) {
    let before_bytes = table.memory_bytes();
    table.insert(
        hash,
        key,
        Timestamp(timestamp),
        value.map_or(Mutation::Tombstone, Mutation::Put),
    );
    let grown_bytes = table.memory_bytes() - before_bytes;
    let cost_bytes = Memtable::insert_cost_bytes(key.len(), value.map_or(0, <[u8]>::len));
    assert!(
        grown_bytes <= cost_bytes,
        "grew {grown_bytes} of at most {cost_bytes} at {} keys",
        table.key_count()
    );
    let (held_bytes, memory_bytes) = (table.held_bytes(), table.memory_bytes());
    assert!(
        held_bytes <= memory_bytes,
        "{held_bytes} held, {memory_bytes} charged at {} keys",
        table.key_count()
    );
}

/// Short keys over few bytes, so that prefixes, duplicates, zeros and maxima are frequent; some behind a long
/// common prefix.
fn any_key() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0x00_u8), Just(0xff), Just(b'a'), any::<u8>()];
    let prefix = prop_oneof![3 => Just(0_usize), 1 => 6..=9_usize, 1 => 20..=40_usize];
    (prefix, vec(byte, 0..12)).prop_map(|(prefix, tail)| {
        let mut key = vec![b'p'; prefix];
        key.extend(tail);
        key
    })
}

fn any_value() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![1 => Just(None), 6 => vec(any::<u8>(), 0..40).prop_map(Some), 1 => Just(Some(vec![7; 3000]))]
}

fn any_hashing() -> impl Strategy<Value = Hashing> {
    prop_oneof![4 => Just(Hashing::Uniform), 1 => Just(Hashing::Colliding), 1 => Just(Hashing::Constant)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn behaves_like_an_ordered_map(
        hashing in any_hashing(),
        writes in vec((any_key(), any_value(), 1..4_u64), 0..800),
        probes in vec((any_key(), any::<prop::sample::Index>()), 1..24),
    ) {
        let mut table = Memtable::new();
        let mut model = Model::new();
        let mut timestamp = 0;
        for (key, value, step) in &writes {
            timestamp += step;
            insert_counted(&mut table, hashing.of(key), key, timestamp, value.as_deref());
            model.insert((key.clone(), Reverse(timestamp)), value.clone());
        }
        prop_assert_eq!(table.version_count(), model.len());
        for (random_key, choice) in &probes {
            let snapshot = choice.index(timestamp as usize + 2) as u64;
            let written = writes.get(choice.index(writes.len() + 1)).map_or(random_key, |(key, _, _)| key);
            for key in [random_key, written] {
                let newest = table.newest(hashing.of(key), key).map(owned);
                prop_assert_eq!(newest, model_at(&model, key, u64::MAX));
                let at = table.at(hashing.of(key), key, Timestamp(snapshot)).map(owned);
                prop_assert_eq!(at, model_at(&model, key, snapshot));
                prop_assert_eq!(scan(&table, key, snapshot), model_scan(&model, key, snapshot));
            }
        }
        let all = scan(&table, b"", u64::MAX);
        prop_assert_eq!(all.len(), table.key_count());
        prop_assert_eq!(all, model_scan(&model, b"", u64::MAX));
    }
}

/// A key order that a tree must survive: given a position, the key inserted there.
type KeyOf = fn(u32) -> Vec<u8>;

const KEY_ORDERS: [(&str, KeyOf); 5] = [
    ("ascending", |n| format!("user{n:08}").into_bytes()),
    ("descending", |n| format!("user{:08}", u32::MAX - n).into_bytes()),
    ("random", |n| n.wrapping_mul(0x9e37_79b1).to_be_bytes().to_vec()),
    ("random behind a prefix", |n| {
        format!("a/long/common/prefix/{:08x}/x", n.wrapping_mul(0x9e37_79b1)).into_bytes()
    }),
    ("growing lengths", |n| vec![0; n as usize % 6000]),
];

#[test]
fn many_keys_in_any_order_are_found_and_scanned_within_the_bounds() {
    for (name, key_of) in KEY_ORDERS {
        let count = if name == "growing lengths" { 6000 } else { 60_000 };
        let mut table = Memtable::new();
        let mut cost_bytes = table.memory_bytes();
        for n in 0..count {
            let key = key_of(n);
            insert_counted(
                &mut table,
                xxh3_64(&key),
                &key,
                1 + u64::from(n),
                Some(&n.to_le_bytes()),
            );
            cost_bytes += Memtable::insert_cost_bytes(key.len(), 4);
        }
        assert!(
            table.memory_bytes() <= cost_bytes,
            "{name}: bounds of single inserts must add up"
        );
        assert_eq!(table.key_count(), count as usize, "{name}");
        for n in 0..count {
            let found = get(&table, &key_of(n));
            assert_eq!(
                found,
                Some((1 + u64::from(n), Some(n.to_le_bytes().to_vec()))),
                "{name} {n}"
            );
        }
        let scanned = scan(&table, b"", u64::MAX);
        assert_eq!(scanned.len(), count as usize, "{name}");
        assert!(
            scanned.is_sorted_by(|(left, _), (right, _)| left < right),
            "{name}"
        );
        for (position, (key, _)) in scanned.iter().enumerate().step_by(997) {
            assert_eq!(table.cursor(key).key(), Some(key.as_slice()), "{name}");
            let after = [key.as_slice(), b"\0"].concat();
            let expected = scanned.get(position + 1).map(|(next, _)| next.as_slice());
            assert_eq!(table.cursor(&after).key(), expected, "{name}");
        }
    }
}

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
fn a_hot_key_is_read_without_walking_its_versions() {
    const VERSIONS: u64 = 100_000;
    let mut table = Memtable::new();
    put(&mut table, b"hot", 1, b"1");
    let one_key_bytes = table.memory_bytes();
    for timestamp in 2..=VERSIONS {
        put(&mut table, b"hot", timestamp, &timestamp.to_le_bytes());
    }
    assert_eq!((table.key_count(), table.version_count()), (1, VERSIONS as usize));
    assert!(table.memory_bytes() - one_key_bytes < VERSIONS as usize * 42);
    // A walk from the newest version to each of these snapshots would take 10^10 steps.
    for snapshot in 2..=VERSIONS {
        let version = table.at(xxh3_64(b"hot"), b"hot", Timestamp(snapshot)).unwrap();
        assert_eq!(
            (version.timestamp.0, version.value.unwrap()),
            (snapshot, snapshot.to_le_bytes().as_slice())
        );
        assert_eq!(
            table.newest(xxh3_64(b"hot"), b"hot").unwrap().timestamp.0,
            VERSIONS
        );
    }
    assert_eq!(table.at(xxh3_64(b"hot"), b"hot", Timestamp::ZERO), None);
    let cursor = table.cursor(b"");
    assert_eq!(
        cursor.version_at(Timestamp(1)).map(owned),
        Some((1, Some(b"1".to_vec())))
    );
    assert_eq!(cursor.version_at(Timestamp::ZERO), None);
}

#[test]
fn snapshots_between_versions_see_the_one_below() {
    let mut table = Memtable::new();
    for n in 1..=500_u64 {
        put(&mut table, b"key", n * 10, &n.to_le_bytes());
    }
    for snapshot in 0..=5010 {
        let expected = (snapshot >= 10).then(|| Timestamp((snapshot / 10).min(500) * 10));
        let found = table.at(xxh3_64(b"key"), b"key", Timestamp(snapshot));
        assert_eq!(found.map(|version| version.timestamp), expected, "at {snapshot}");
    }
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
                Some(&vec![round; size]),
            );
            timestamp += 1;
            insert_counted(
                &mut table,
                xxh3_64(b"shared"),
                b"shared",
                timestamp,
                Some(&vec![round; size]),
            );
            timestamp += 1;
            insert_counted(&mut table, xxh3_64(b"shared"), b"shared", timestamp, None);
        }
    }
    for size in sizes {
        let key = format!("size{size}").into_bytes();
        assert_eq!(get(&table, &key).unwrap().1, Some(vec![1; size]));
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
fn empty_and_binary_keys_are_ordered_bytewise() {
    let mut table = Memtable::new();
    let longest = vec![0xff; KEY_BYTES_MAX];
    let mut keys: Vec<&[u8]> = vec![
        b"",
        b"\0",
        b"\0\0",
        b"\0\0\0\0\0\0\0\0",
        b"\0\0\0\0\0\0\0\0\0",
        b"\0\xff",
        b"a",
        b"a\0",
        b"a\0\0",
        b"a\xff",
        b"ab",
        b"b",
        b"\x7f",
        b"\x80",
        b"\xff",
        b"\xff\0",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\0",
        &longest,
    ];
    for (n, key) in keys.iter().rev().enumerate() {
        put(&mut table, key, n as u64 + 1, key);
    }
    keys.sort_unstable();
    let scanned = scan(&table, b"", u64::MAX);
    assert_eq!(
        scanned.iter().map(|(key, _)| key.as_slice()).collect::<Vec<_>>(),
        keys
    );
    for key in &keys {
        assert_eq!(get(&table, key).unwrap().1.as_deref(), Some(*key));
        assert_eq!(table.cursor(key).key(), Some(*key));
    }
    assert_eq!(get(&table, b"\0\0\0"), None);
    assert!(table.cursor(&vec![0xff; KEY_BYTES_MAX + 1]).key().is_none());
}

#[test]
fn keys_with_equal_hashes_stay_apart() {
    let mut table = Memtable::new();
    for n in 0..6000_u32 {
        // Equal in the bits that are used, in full for every second key.
        let hash = 0xabcd_0123_4567 | u64::from(n % 2) << 40;
        table.insert(
            hash,
            &n.to_be_bytes(),
            Timestamp(1),
            Mutation::Put(&n.to_le_bytes()),
        );
        assert!(table.held_bytes() <= table.memory_bytes());
    }
    for n in 0..6000_u32 {
        let hash = 0xabcd_0123_4567 | u64::from(n % 2) << 40;
        let version = table.newest(hash, &n.to_be_bytes()).unwrap();
        assert_eq!(version.value, Some(n.to_le_bytes().as_slice()));
    }
    assert_eq!(table.newest(0xabcd_0123_4567, b"another key"), None);
    assert_eq!(table.key_count(), 6000);
}

#[test]
fn keys_made_for_one_index_segment_only_make_it_larger() {
    let mut table = Memtable::new();
    let hash_of = |n: u32| u64::from(n.wrapping_mul(0x9e37_79b1) & !0xfff | 0x123);
    for n in 0..20_000_u32 {
        table.insert(
            hash_of(n),
            &n.to_be_bytes(),
            Timestamp(1),
            Mutation::Put(b"value"),
        );
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
        insert_counted(&mut table, hash, &key, 1, Some(b"value"));
        table.prefetch(hash);
        table.prefetch_node(hash);
    }
    assert_eq!(table.key_count(), 100_000);
}

#[test]
#[should_panic(expected = "is not above the newest")]
fn a_version_that_is_not_newer_is_a_bug() {
    let mut table = Memtable::new();
    put(&mut table, b"key", 5, b"first");
    put(&mut table, b"key", 5, b"second");
}

#[test]
#[should_panic(expected = "at most 65535 fit")]
fn a_key_beyond_the_limit_is_a_bug() {
    put(&mut Memtable::new(), &vec![0; KEY_BYTES_MAX + 1], 1, b"");
}

#[test]
fn the_largest_key_with_the_largest_value_is_one_block() {
    let mut table = Memtable::new();
    let key = vec![1; KEY_BYTES_MAX];
    insert_counted(&mut table, xxh3_64(&key), &key, 1, Some(&vec![2; 8 << 20]));
    insert_counted(&mut table, xxh3_64(&key), &key, 2, Some(&vec![3; 8 << 20]));
    assert_eq!(
        table.newest(xxh3_64(&key), &key).unwrap().value,
        Some(vec![3; 8 << 20].as_slice())
    );
    let first = table.at(xxh3_64(&key), &key, Timestamp(1)).unwrap();
    assert_eq!(first.value, Some(vec![2; 8 << 20].as_slice()));
}
