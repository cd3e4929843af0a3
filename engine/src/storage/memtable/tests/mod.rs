//! Tests of the memtable as a whole, against a plain ordered map. Its bounds are in [`memory`].

mod memory;

use super::{KEY_BYTES_MAX, Memtable, Mutation, Version};
use ostrakon_core::hlc::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

/// A value and its expiry, or a tombstone.
type Content = Option<(Vec<u8>, Option<u64>)>;

type Model = BTreeMap<(Vec<u8>, Reverse<u64>), Content>;

/// Timestamp and content of a version, if there is one.
type Found = Option<(u64, Content)>;

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

/// A put that never expires.
fn lasting(value: &[u8]) -> Mutation<'_> {
    Mutation::Put { value, expiry: None }
}

fn mutation(content: &Content) -> Mutation<'_> {
    match content {
        Some((value, expiry)) => Mutation::Put {
            value,
            expiry: expiry.map(Timestamp),
        },
        None => Mutation::Tombstone,
    }
}

fn put(table: &mut Memtable, key: &[u8], timestamp: u64, value: &[u8]) {
    table.insert(xxh3_64(key), key, Timestamp(timestamp), lasting(value));
}

fn get(table: &Memtable, key: &[u8]) -> Found {
    table.newest(xxh3_64(key), key).map(owned)
}

fn owned(version: Version<'_>) -> (u64, Content) {
    let expiry = version.expiry.map(|expiry| expiry.0);
    assert!(
        version.value.is_some() || expiry.is_none(),
        "a tombstone never expires"
    );
    (
        version.timestamp.0,
        version.value.map(|value| (value.to_vec(), expiry)),
    )
}

/// What [`owned`] gives for a value that never expires.
fn lasting_content(timestamp: u64, value: &[u8]) -> (u64, Content) {
    (timestamp, Some((value.to_vec(), None)))
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

/// All keys of a scan from below `end` down to the first one.
fn scan_back(table: &Memtable, end: Option<&[u8]>, snapshot: u64) -> Vec<Scanned> {
    let mut cursor = table.cursor_below(end);
    let mut found = Vec::new();
    while let Some(key) = cursor.key() {
        found.push((key.to_vec(), cursor.version_at(Timestamp(snapshot)).map(owned)));
        cursor.retreat();
    }
    assert!(cursor.version_at(Timestamp::MAX).is_none());
    cursor.retreat();
    assert!(cursor.key().is_none());
    found
}

fn reversed<T>(mut items: Vec<T>) -> Vec<T> {
    items.reverse();
    items
}

/// The model's keys below `end`, descending.
fn model_scan_back(model: &Model, end: Option<&[u8]>, snapshot: u64) -> Vec<Scanned> {
    let mut all = model_scan(model, b"", snapshot);
    all.retain(|(key, _)| end.is_none_or(|end| key.as_slice() < end));
    reversed(all)
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
fn insert_counted(table: &mut Memtable, hash: u64, key: &[u8], timestamp: u64, mutation: Mutation<'_>) {
    let before_bytes = table.memory_bytes();
    table.insert(hash, key, Timestamp(timestamp), mutation);
    let grown_bytes = table.memory_bytes() - before_bytes;
    let (value_len, is_expiring) = match mutation {
        Mutation::Put { value, expiry } => (value.len(), expiry.is_some()),
        Mutation::Tombstone => (0, false),
    };
    let cost_bytes = Memtable::insert_cost_bytes(key.len(), value_len, is_expiring);
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

fn any_content() -> impl Strategy<Value = Content> {
    let value = prop_oneof![6 => vec(any::<u8>(), 0..40), 1 => Just(vec![7; 3000])];
    // Timestamps go up to 2400, so that expiries lie on both sides of them.
    let expiry = prop_oneof![
        3 => Just(None),
        2 => (0..3000_u64).prop_map(Some),
        1 => any::<u64>().prop_map(Some),
    ];
    prop_oneof![1 => Just(None), 7 => (value, expiry).prop_map(Some)]
}

fn any_hashing() -> impl Strategy<Value = Hashing> {
    prop_oneof![4 => Just(Hashing::Uniform), 1 => Just(Hashing::Colliding), 1 => Just(Hashing::Constant)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn behaves_like_an_ordered_map(
        hashing in any_hashing(),
        writes in vec((any_key(), any_content(), 1..4_u64), 0..800),
        probes in vec((any_key(), any::<prop::sample::Index>()), 1..24),
    ) {
        let mut table = Memtable::new();
        let mut model = Model::new();
        let mut timestamp = 0;
        for (key, content, step) in &writes {
            timestamp += step;
            insert_counted(&mut table, hashing.of(key), key, timestamp, mutation(content));
            model.insert((key.clone(), Reverse(timestamp)), content.clone());
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
                let below = scan_back(&table, Some(key), snapshot);
                prop_assert_eq!(below, model_scan_back(&model, Some(key), snapshot));
            }
        }
        let all = scan(&table, b"", u64::MAX);
        prop_assert_eq!(all.len(), table.key_count());
        prop_assert_eq!(&all, &model_scan(&model, b"", u64::MAX));
        prop_assert_eq!(scan_back(&table, None, u64::MAX), reversed(all));
    }
}

/// Start, end and timestamp.
type RangeDelete = (Vec<u8>, Option<Vec<u8>>, u64);

/// The newest version of a key, its own or that of a range.
fn model_with_ranges(model: &Model, ranges: &[RangeDelete], key: &[u8], snapshot: u64) -> Found {
    let covering = ranges.iter().filter(|(start, end, at)| {
        *at <= snapshot && start.as_slice() <= key && end.as_ref().is_none_or(|end| key < end.as_slice())
    });
    let deleted = covering.map(|(_, _, at)| (*at, None)).max();
    model_at(model, key, snapshot).max(deleted)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_range_tombstone_is_a_version_of_every_key_in_it(
        writes in vec((any_key(), any_content(), prop::option::weighted(0.2, any_key())), 1..200),
        snapshot in 0..202_u64,
    ) {
        let mut table = Memtable::new();
        let (mut model, mut ranges) = (Model::new(), Vec::new());
        for (place, (key, content, end)) in writes.iter().enumerate() {
            let timestamp = place as u64 + 1;
            let Some(end) = end else {
                insert_counted(&mut table, xxh3_64(key), key, timestamp, mutation(content));
                model.insert((key.clone(), Reverse(timestamp)), content.clone());
                continue;
            };
            // What is no range goes on without an end.
            let end = (end > key).then(|| end.clone());
            let before_bytes = table.memory_bytes();
            table.insert_range(key, end.as_deref(), Timestamp(timestamp));
            let cost_bytes = Memtable::range_cost_bytes(key.len(), end.as_ref().map_or(0, Vec::len));
            prop_assert!(table.memory_bytes() - before_bytes <= cost_bytes);
            prop_assert!(table.held_bytes() <= table.memory_bytes());
            ranges.push((key.clone(), end, timestamp));
        }
        prop_assert_eq!(table.ranges().len(), ranges.len());
        for (key, _, end) in &writes {
            for key in [Some(key), end.as_ref()].into_iter().flatten() {
                let newest = table.newest(xxh3_64(key), key).map(owned);
                prop_assert_eq!(newest, model_with_ranges(&model, &ranges, key, u64::MAX));
                let at = table.at(xxh3_64(key), key, Timestamp(snapshot)).map(owned);
                prop_assert_eq!(at, model_with_ranges(&model, &ranges, key, snapshot));
            }
        }
    }
}

#[test]
#[should_panic(expected = "is not above the newest")]
fn a_range_tombstone_that_is_not_newer_is_a_bug() {
    let mut table = Memtable::new();
    table.insert_range(b"a", None, Timestamp(5));
    table.insert_range(b"b", None, Timestamp(5));
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
                Mutation::Put {
                    value: &n.to_le_bytes(),
                    expiry: (n % 3 == 0).then_some(Timestamp(u64::from(n))),
                },
            );
            cost_bytes += Memtable::insert_cost_bytes(key.len(), 4, n % 3 == 0);
        }
        assert!(
            table.memory_bytes() <= cost_bytes,
            "{name}: bounds of single inserts must add up"
        );
        assert_eq!(table.key_count(), count as usize, "{name}");
        for n in 0..count {
            let found = get(&table, &key_of(n));
            let content = (n.to_le_bytes().to_vec(), (n % 3 == 0).then_some(u64::from(n)));
            assert_eq!(found, Some((1 + u64::from(n), Some(content))), "{name} {n}");
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
            assert_eq!(
                table.cursor_below(Some(&after)).key(),
                Some(key.as_slice()),
                "{name}"
            );
            let expected = position.checked_sub(1).map(|before| scanned[before].0.as_slice());
            assert_eq!(table.cursor_below(Some(key)).key(), expected, "{name}");
        }
        assert!(scan_back(&table, None, u64::MAX) == reversed(scanned), "{name}");
    }
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
        Some(lasting_content(1, b"1"))
    );
    assert_eq!(cursor.version_at(Timestamp::ZERO), None);
}

#[test]
fn a_version_is_absent_from_the_moment_of_its_expiry_on() {
    let live_at = |expiry: Option<u64>, at: u64| {
        let version = Version {
            timestamp: Timestamp(10),
            value: Some(b"value"),
            expiry: expiry.map(Timestamp),
        };
        version.live_value(Timestamp(at)) == Some(b"value")
    };
    assert!(live_at(None, 0) && live_at(None, u64::MAX));
    assert!(live_at(Some(20), 10) && live_at(Some(20), 19));
    assert!(!live_at(Some(20), 20) && !live_at(Some(20), 21));
    assert!(!live_at(Some(0), 10), "expired before it was written");
    assert!(!live_at(Some(u64::MAX), u64::MAX));
    let tombstone = Version {
        timestamp: Timestamp(10),
        value: None,
        expiry: None,
    };
    assert_eq!(tombstone.live_value(Timestamp(10)), None);
}

#[test]
fn an_expired_version_hides_those_below() {
    let mut table = Memtable::new();
    put(&mut table, b"key", 1, b"old");
    let expiring = Mutation::Put {
        value: b"new",
        expiry: Some(Timestamp(5)),
    };
    table.insert(xxh3_64(b"key"), b"key", Timestamp(2), expiring);
    let live_at = |at| {
        let version = table.at(xxh3_64(b"key"), b"key", Timestamp(at))?;
        version.live_value(Timestamp(at))
    };
    assert_eq!(live_at(1), Some(b"old".as_slice()));
    assert_eq!(live_at(4), Some(b"new".as_slice()));
    assert_eq!(live_at(5), None);
}

#[test]
fn a_cursor_turns_round_on_a_key_and_stays_out_at_either_end() {
    let mut table = Memtable::new();
    assert!(table.cursor_below(None).key().is_none());
    assert!(table.cursor_below(Some(b"a")).key().is_none());
    for n in 0..200_u8 {
        put(&mut table, &[n], 1 + u64::from(n), b"");
    }
    let mut cursor = table.cursor_below(Some(&[100]));
    assert_eq!(cursor.key(), Some([99].as_slice()));
    for n in 100..200 {
        cursor.advance();
        assert_eq!(cursor.key(), Some([n].as_slice()));
    }
    for n in (0..199).rev() {
        cursor.retreat();
        assert_eq!(cursor.key(), Some([n].as_slice()));
    }
    cursor.retreat();
    cursor.advance();
    assert_eq!(cursor.key(), None, "before the first key");
    let mut cursor = table.cursor(&[199]);
    cursor.advance();
    cursor.retreat();
    assert_eq!(cursor.key(), None, "past the last key");
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
        assert_eq!(table.newest(xxh3_64(key), key).unwrap().value, Some(*key));
        assert_eq!(table.cursor(key).key(), Some(*key));
    }
    assert_eq!(scan_back(&table, None, u64::MAX), reversed(scanned));
    assert!(
        table.cursor_below(Some(b"")).key().is_none(),
        "nothing is below the empty key"
    );
    assert_eq!(table.cursor_below(Some(b"\0")).key(), Some(&b""[..]));
    assert_eq!(get(&table, b"\0\0\0"), None);
    assert!(table.cursor(&vec![0xff; KEY_BYTES_MAX + 1]).key().is_none());
}

#[test]
fn keys_with_equal_hashes_stay_apart() {
    let mut table = Memtable::new();
    for n in 0..6000_u32 {
        // Equal in the bits that are used, in full for every second key.
        let hash = 0xabcd_0123_4567 | u64::from(n % 2) << 40;
        table.insert(hash, &n.to_be_bytes(), Timestamp(1), lasting(&n.to_le_bytes()));
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
