//! Ordered scans over several shards at one snapshot: a page of what one core has, and the merge of pages.
//!
//! A page that stopped early (count, bytes, or keys examined) carries the key where it goes on; the merge of
//! several pages emits nothing at or beyond the smallest of those, so it never skips a key.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ostrakon_core::hlc::Timestamp;
use ostrakon_wire::message::ScanEntry;

use crate::limits::SCAN_EXAMINED_MAX;
use crate::storage::memtable::{Cursor, Memtable};

/// What to scan.
#[derive(Clone, Debug)]
pub struct ScanRange {
    /// First key, inclusive.
    pub start: Vec<u8>,
    /// Last key, exclusive; `None` for no end.
    pub end: Option<Vec<u8>>,
    /// Largest number of entries in a page, at least 1.
    pub limit: usize,
    /// Bytes of keys and values after which a page ends; its first entry may exceed it.
    pub page_bytes: usize,
    /// Leave out the values.
    pub keys_only: bool,
}

struct PageEntry {
    key_start: usize,
    value_start: usize,
    value_end: usize,
    version: Timestamp,
}

/// Entries in key order and where to go on.
#[derive(Default)]
pub struct ScanPage {
    bytes: Vec<u8>,
    entries: Vec<PageEntry>,
    /// The first key that was not looked at, when the range has more.
    pub resume_key: Option<Vec<u8>>,
}

impl ScanPage {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry at a position.
    pub fn entry(&self, position: usize) -> Option<ScanEntry<'_>> {
        self.entries.get(position).map(|entry| ScanEntry {
            key: &self.bytes[entry.key_start..entry.value_start],
            value: &self.bytes[entry.value_start..entry.value_end],
            version: entry.version.0,
            expires: 0,
        })
    }

    fn push(&mut self, key: &[u8], value: &[u8], version: Timestamp) {
        let key_start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let value_start = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.entries.push(PageEntry {
            key_start,
            value_start,
            value_end: self.bytes.len(),
            version,
        });
    }
}

/// One page over the memtables of a core's shards, all readable at `snapshot`.
pub fn scan_page<'a>(
    memtables: impl Iterator<Item = &'a Memtable>,
    snapshot: Timestamp,
    range: &ScanRange,
) -> ScanPage {
    let mut cursors: Vec<Cursor<'a>> = memtables.map(|memtable| memtable.cursor(&range.start)).collect();
    let mut order: BinaryHeap<Reverse<(&'a [u8], usize)>> = cursors
        .iter()
        .enumerate()
        .filter_map(|(slot, cursor)| cursor.key().map(|key| Reverse((key, slot))))
        .collect();
    let mut page = ScanPage::default();
    let mut examined = 0;
    while let Some(Reverse((key, slot))) = order.pop() {
        if range.end.as_deref().is_some_and(|end| key >= end) {
            break;
        }
        let is_full = page.len() >= range.limit || page.bytes.len() >= range.page_bytes;
        if is_full || examined >= SCAN_EXAMINED_MAX {
            page.resume_key = Some(key.to_vec());
            break;
        }
        examined += 1;
        let cursor = &mut cursors[slot];
        let version = cursor.version_at(snapshot);
        if let Some((value, timestamp)) = version.and_then(|found| Some((found.value?, found.timestamp))) {
            let shown = if range.keys_only { &[][..] } else { value };
            if !page.is_empty() && page.bytes.len() + key.len() + shown.len() > range.page_bytes {
                page.resume_key = Some(key.to_vec());
                break;
            }
            page.push(key, shown, timestamp);
        }
        cursor.advance();
        if let Some(next) = cursor.key() {
            order.push(Reverse((next, slot)));
        }
    }
    page
}

/// The merge of the pages of all cores into one.
pub struct MergedPage<'a> {
    /// Entries in key order.
    pub entries: Vec<ScanEntry<'a>>,
    /// Where to go on.
    pub resume_key: Option<&'a [u8]>,
}

/// Merges pages whose keys are disjoint, within the range's bounds of count and bytes.
pub fn merge_pages<'a>(pages: &'a [ScanPage], range: &ScanRange) -> MergedPage<'a> {
    let frontier = pages.iter().filter_map(|page| page.resume_key.as_deref()).min();
    let mut positions = vec![0; pages.len()];
    let mut entries = Vec::new();
    let mut bytes = 0;
    loop {
        let heads = pages
            .iter()
            .enumerate()
            .filter_map(|(slot, page)| page.entry(positions[slot]).map(|entry| (entry, slot)));
        let Some((entry, slot)) = heads.min_by_key(|(entry, _)| entry.key) else {
            return MergedPage {
                entries,
                resume_key: frontier,
            };
        };
        if frontier.is_some_and(|frontier| entry.key >= frontier) {
            return MergedPage {
                entries,
                resume_key: frontier,
            };
        }
        let entry_bytes = entry.key.len() + entry.value.len();
        let is_full = entries.len() >= range.limit || bytes + entry_bytes > range.page_bytes;
        if is_full && !entries.is_empty() {
            return MergedPage {
                entries,
                resume_key: Some(entry.key),
            };
        }
        bytes += entry_bytes;
        positions[slot] += 1;
        entries.push(entry);
    }
}
