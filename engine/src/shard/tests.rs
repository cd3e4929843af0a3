//! Scans against a model, and the merge of pages that stopped early.

use std::collections::BTreeMap;

use ostrakon_core::hlc::Timestamp;
use ostrakon_wire::routing::ShardId;
use proptest::prelude::*;

use super::host::memtable_hash;
use super::pages::merge_pages;
use super::scan::{PageScan, ScanPage, ScanRange};
use crate::limits::SCAN_EXAMINED_MAX;
use crate::storage::memtable::Mutation;
use crate::storage::store::Store;

/// A value and its expiry, or `None` for a tombstone.
type Content = Option<(Vec<u8>, Option<u64>)>;

/// By key, its versions in the order of their timestamps.
type Model = BTreeMap<Vec<u8>, Vec<(u64, Content)>>;

/// A key and what it gets.
type Write = (Vec<u8>, Content);

/// Key, value, version and expiry.
type Entry = (Vec<u8>, Vec<u8>, u64, Option<u64>);

/// Applies the writes; the timestamp of each is its position, from 1.
fn build(tables: usize, writes: &[Write]) -> (Vec<Store>, Model) {
    let mut stores: Vec<Store> = (0..tables).map(|_| Store::default()).collect();
    let mut model = Model::new();
    for (position, (key, content)) in writes.iter().enumerate() {
        // A key always lies in the same table, as with shards.
        let table = memtable_hash(key) as usize % tables;
        let timestamp = Timestamp(position as u64 + 1);
        let mutation = match content {
            Some((value, expiry)) => Mutation::Put {
                value,
                expiry: expiry.map(Timestamp),
            },
            None => Mutation::Tombstone,
        };
        stores[table].insert(memtable_hash(key), key, timestamp, mutation);
        model
            .entry(key.clone())
            .or_default()
            .push((timestamp.0, content.clone()));
    }
    (stores, model)
}

/// A page of stores that have all in memory.
fn scan_page<'a>(
    stores: impl Iterator<Item = &'a Store> + Clone,
    snapshot: Timestamp,
    range: &ScanRange,
) -> ScanPage {
    let mut scan = PageScan::new(snapshot, range.clone());
    let numbered = stores
        .enumerate()
        .map(|(number, store)| (ShardId(number as u32), store));
    assert!(scan.go_on(numbered).expect("there are no tables"));
    scan.into_page()
}

fn expected(model: &Model, range: &ScanRange, snapshot: u64) -> Vec<Entry> {
    let mut entries: Vec<Entry> = model
        .iter()
        .filter(|(key, _)| **key >= range.start && range.end.as_ref().is_none_or(|end| *key < end))
        .filter_map(|(key, versions)| {
            let (timestamp, content) = versions
                .iter()
                .rev()
                .find(|(timestamp, _)| *timestamp <= snapshot)?;
            let (value, expiry) = content.clone()?;
            let is_expired = expiry.is_some_and(|expiry| expiry <= snapshot);
            (!is_expired).then(|| (key.clone(), value, *timestamp, expiry))
        })
        .collect();
    if range.reverse {
        entries.reverse();
    }
    entries
}

/// Checks that a page stopped where its resume key says: nothing is below it that the scan has met, and it lies
/// inside the range; then makes it the bound of the rest.
fn go_on(range: &mut ScanRange, last: Option<&[u8]>, resume_key: &[u8]) {
    if range.reverse {
        assert!(last.is_none_or(|last| last >= resume_key));
        assert!(
            range.end.as_ref().is_none_or(|end| resume_key < end.as_slice()),
            "a page makes progress"
        );
        range.end = Some(resume_key.to_vec());
    } else {
        assert!(last.is_none_or(|last| last < resume_key));
        assert!(resume_key > range.start.as_slice(), "a page makes progress");
        range.start = resume_key.to_vec();
    }
}

/// Reads a whole range page by page, from pages of `cores` groups of tables merged each time.
fn read_all(stores: &[Store], cores: usize, range: &ScanRange, snapshot: u64) -> Vec<Entry> {
    let mut found = Vec::new();
    let mut range = range.clone();
    loop {
        let pages: Vec<ScanPage> = (0..cores)
            .map(|core| {
                let own = stores
                    .iter()
                    .enumerate()
                    .filter(|(table, _)| table % cores == core);
                let part = range.clone().share_of_one(cores as u16);
                scan_page(own.map(|(_, store)| store), Timestamp(snapshot), &part)
            })
            .collect();
        let merged = merge_pages(&pages, &range);
        assert!(merged.entries(&pages).len() <= range.limit);
        found.extend(merged.entries(&pages).map(|entry| {
            let expiry = (entry.expires != 0).then_some(entry.expires);
            (entry.key.to_vec(), entry.value.to_vec(), entry.version, expiry)
        }));
        match &merged.resume_key {
            None => return found,
            Some(key) => go_on(
                &mut range,
                merged.entries(&pages).last().map(|entry| entry.key),
                key,
            ),
        }
    }
}

fn write() -> impl Strategy<Value = Write> {
    let value = prop::collection::vec(any::<u8>(), 0..40);
    (key(), prop::option::of((value, prop::option::of(0..130u64))))
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0u8..4, 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_scan_by_pages_is_the_model_at_the_snapshot(
        writes in prop::collection::vec(write(), 0..120),
        start in prop::collection::vec(0u8..4, 0..3),
        end in prop::option::of(key()),
        limit in 1usize..8,
        page_bytes in 1usize..120,
        snapshot in 0u64..130,
        cores in 1usize..4,
        reverse in any::<bool>(),
    ) {
        let (stores, model) = build(5, &writes);
        let range = ScanRange { start, end, limit, page_bytes, keys_only: false, reverse };
        prop_assert_eq!(read_all(&stores, cores, &range, snapshot), expected(&model, &range, snapshot));
    }

    #[test]
    fn a_page_has_looked_at_all_that_its_resume_key_says(
        writes in prop::collection::vec(write(), 0..120),
        limit in 1usize..8,
        page_bytes in 1usize..120,
        snapshot in 0u64..130,
        reverse in any::<bool>(),
    ) {
        let (stores, model) = build(3, &writes);
        let range = ScanRange { limit, page_bytes, reverse, ..everything() };
        let page = scan_page(stores.iter(), Timestamp(snapshot), &range);
        let mut passed = range.clone();
        match page.resume_key.clone() {
            None => (),
            Some(key) if reverse => passed.start = key,
            Some(key) => passed.end = Some(key),
        }
        let found: Vec<&[u8]> = (0..page.len()).map(|position| page.entry(position).unwrap().key).collect();
        let expected = expected(&model, &passed, snapshot);
        prop_assert_eq!(found, expected.iter().map(|entry| entry.0.as_slice()).collect::<Vec<_>>());
        if let Some(key) = &page.resume_key {
            let is_left = |other: &Vec<u8>| if reverse { other < key } else { other >= key };
            prop_assert!(model.keys().any(is_left), "a page that has seen all says so");
        }
    }
}

/// All keys, in one page.
fn everything() -> ScanRange {
    ScanRange {
        start: Vec::new(),
        end: None,
        limit: usize::MAX,
        page_bytes: usize::MAX,
        keys_only: false,
        reverse: false,
    }
}

/// A write of a value that never expires.
fn lasting(key: &[u8], value: &[u8]) -> Write {
    (key.to_vec(), Some((value.to_vec(), None)))
}

#[test]
fn a_merge_stops_at_the_first_key_that_a_page_did_not_reach() {
    let writes = [b"b", b"c", b"d"].map(|key| lasting(key, b"1"));
    let (stores, _) = build(1, &writes);
    // Forward the key of the other page's stop is left out, in reverse that page has passed it.
    let cases: [(bool, &[&[u8]]); 2] = [(false, &[b"b"]), (true, &[b"d", b"c"])];
    for (reverse, keys) in cases {
        let range = ScanRange {
            reverse,
            ..everything()
        };
        let whole = scan_page(stores.iter(), Timestamp::MAX, &range);
        let stopped_at = |key: &[u8]| {
            let mut stopped = ScanPage::default();
            stopped.resume_key = Some(key.to_vec());
            stopped
        };
        let further: &[u8] = if reverse { b"a" } else { b"e" };
        let pages = [stopped_at(further), whole, stopped_at(b"c")];
        let merged = merge_pages(&pages, &range);
        let found: Vec<&[u8]> = merged.entries(&pages).map(|entry| entry.key).collect();
        assert_eq!(found, keys, "reverse: {reverse}");
        assert_eq!(
            merged.resume_key.as_deref(),
            Some(&b"c"[..]),
            "reverse: {reverse}"
        );
    }
}

#[test]
fn a_page_stops_after_so_many_keys_even_if_it_shows_none() {
    let count = SCAN_EXAMINED_MAX as u32 + 1;
    let writes: Vec<Write> = (0..count).map(|n| (n.to_be_bytes().to_vec(), None)).collect();
    let (stores, _) = build(3, &writes);
    // The first key that was not looked at, or the last one that was.
    for (reverse, resume_at) in [(false, count - 1), (true, 1)] {
        let range = ScanRange {
            reverse,
            ..everything()
        };
        let page = scan_page(stores.iter(), Timestamp::MAX, &range);
        assert!(page.is_empty());
        assert_eq!(
            page.resume_key,
            Some(resume_at.to_be_bytes().to_vec()),
            "reverse: {reverse}"
        );
    }
}

#[test]
fn a_scan_shows_when_its_entries_expire_and_none_that_have() {
    let (stores, _) = build(
        1,
        &[
            (b"early".to_vec(), Some((b"1".to_vec(), Some(50)))),
            (b"late".to_vec(), Some((b"2".to_vec(), Some(51)))),
            lasting(b"never", b"3"),
            lasting(b"over", b"4"),
            (b"over".to_vec(), Some((b"5".to_vec(), Some(6)))),
        ],
    );
    let page = scan_page(stores.iter(), Timestamp(50), &everything());
    let found: Vec<_> = (0..page.len())
        .map(|position| page.entry(position).unwrap())
        .map(|entry| (entry.key, entry.expires))
        .collect();
    assert_eq!(found, [(&b"late"[..], 51), (b"never", 0)]);
}

#[test]
fn keys_only_leaves_the_values_out() {
    let (stores, _) = build(1, &[lasting(b"k", &[7; 1000])]);
    let range = ScanRange {
        limit: 1,
        page_bytes: 10,
        keys_only: true,
        ..everything()
    };
    let page = scan_page(stores.iter(), Timestamp::MAX, &range);
    assert_eq!(
        page.entry(0).map(|entry| (entry.key, entry.value)),
        Some((&b"k"[..], &b""[..]))
    );
}
