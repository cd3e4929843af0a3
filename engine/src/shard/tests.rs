//! Scans against a model, and the merge of pages that stopped early.

use std::collections::BTreeMap;

use ostrakon_core::hlc::Timestamp;
use proptest::prelude::*;

use super::host::memtable_hash;
use super::scan::{ScanPage, ScanRange, merge_pages, scan_page};
use crate::storage::memtable::{Memtable, Mutation};

type Model = BTreeMap<Vec<u8>, Vec<(u64, Option<Vec<u8>>)>>;

/// A key and its value, or `None` to delete it.
type Write = (Vec<u8>, Option<Vec<u8>>);

/// Applies the writes; the timestamp of each is its position, from 1.
fn build(tables: usize, writes: &[Write]) -> (Vec<Memtable>, Model) {
    let mut memtables: Vec<Memtable> = (0..tables).map(|_| Memtable::new()).collect();
    let mut model = Model::new();
    for (position, (key, value)) in writes.iter().enumerate() {
        // A key always lies in the same table, as with shards.
        let table = memtable_hash(key) as usize % tables;
        let timestamp = Timestamp(position as u64 + 1);
        let mutation = value.as_deref().map_or(Mutation::Tombstone, Mutation::Put);
        memtables[table].insert(memtable_hash(key), key, timestamp, mutation);
        model
            .entry(key.clone())
            .or_default()
            .push((timestamp.0, value.clone()));
    }
    (memtables, model)
}

fn expected(model: &Model, range: &ScanRange, snapshot: u64) -> Vec<(Vec<u8>, Vec<u8>, u64)> {
    model
        .iter()
        .filter(|(key, _)| **key >= range.start && range.end.as_ref().is_none_or(|end| *key < end))
        .filter_map(|(key, versions)| {
            let (timestamp, value) = versions
                .iter()
                .rev()
                .find(|(timestamp, _)| *timestamp <= snapshot)?;
            Some((key.clone(), value.clone()?, *timestamp))
        })
        .collect()
}

/// Reads a whole range page by page, from pages of `cores` groups of tables merged each time.
fn read_all(
    memtables: &[Memtable],
    cores: usize,
    range: &ScanRange,
    snapshot: u64,
) -> Vec<(Vec<u8>, Vec<u8>, u64)> {
    let mut found = Vec::new();
    let mut range = range.clone();
    loop {
        let pages: Vec<ScanPage> = (0..cores)
            .map(|core| {
                let own = memtables
                    .iter()
                    .enumerate()
                    .filter(|(table, _)| table % cores == core);
                scan_page(own.map(|(_, memtable)| memtable), Timestamp(snapshot), &range)
            })
            .collect();
        let merged = merge_pages(&pages, &range);
        assert!(merged.entries.len() <= range.limit);
        found.extend(
            merged
                .entries
                .iter()
                .map(|entry| (entry.key.to_vec(), entry.value.to_vec(), entry.version)),
        );
        match merged.resume_key {
            None => return found,
            Some(key) => {
                assert!(key > range.start.as_slice(), "a page makes progress");
                range.start = key.to_vec();
            }
        }
    }
}

fn write() -> impl Strategy<Value = Write> {
    (key(), prop::option::of(prop::collection::vec(any::<u8>(), 0..40)))
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0u8..4, 1..4)
}

proptest! {
    #[test]
    fn a_scan_by_pages_is_the_model_at_the_snapshot(
        writes in prop::collection::vec(write(), 0..120),
        start in prop::collection::vec(0u8..4, 0..3),
        end in prop::option::of(key()),
        limit in 1usize..8,
        page_bytes in 1usize..120,
        snapshot in 0u64..130,
        cores in 1usize..4,
    ) {
        let (memtables, model) = build(5, &writes);
        let range = ScanRange { start, end, limit, page_bytes, keys_only: false };
        prop_assert_eq!(read_all(&memtables, cores, &range, snapshot), expected(&model, &range, snapshot));
    }
}

#[test]
fn a_merge_stops_at_the_smallest_key_that_a_page_did_not_reach() {
    let (memtables, _) = build(
        1,
        &[
            (b"b".to_vec(), Some(b"1".to_vec())),
            (b"d".to_vec(), Some(b"2".to_vec())),
        ],
    );
    let range = ScanRange {
        start: Vec::new(),
        end: None,
        limit: 10,
        page_bytes: 100,
        keys_only: false,
    };
    let whole = scan_page(memtables.iter(), Timestamp::MAX, &range);
    let mut stopped = ScanPage::default();
    stopped.resume_key = Some(b"c".to_vec());
    let pages = [whole, stopped];
    let merged = merge_pages(&pages, &range);
    assert_eq!(
        merged.entries.iter().map(|entry| entry.key).collect::<Vec<_>>(),
        [b"b"]
    );
    assert_eq!(merged.resume_key, Some(&b"c"[..]));
}

#[test]
fn keys_only_leaves_the_values_out() {
    let (memtables, _) = build(1, &[(b"k".to_vec(), Some(vec![7; 1000]))]);
    let range = ScanRange {
        start: Vec::new(),
        end: None,
        limit: 1,
        page_bytes: 10,
        keys_only: true,
    };
    let page = scan_page(memtables.iter(), Timestamp::MAX, &range);
    assert_eq!(
        page.entry(0).map(|entry| (entry.key, entry.value)),
        Some((&b"k"[..], &b""[..]))
    );
}
