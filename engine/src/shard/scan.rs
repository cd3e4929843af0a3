//! Ordered scans over several shards at one snapshot: a page of what one core has, and the merge of pages.
//!
//! A scan goes up from `start`, or in reverse down from `end`. A page that stopped early (count, bytes, or keys
//! examined) carries its *resume key*, the bound that replaces the one where the scan began:
//!
//! - forward the next `start`, inclusive: the first key that was not looked at;
//! - in reverse the next `end`, exclusive: the last key that was looked at, whether it has an entry or not.
//!
//! So everything before the resume key in the direction of the scan (in reverse: at it, too) has been looked at,
//! and nothing after it. The merge of several pages emits only what every page has passed: it stops at the resume
//! key that the scan meets first, the smallest one forward and the largest one in reverse, and never skips or
//! repeats a key.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use ostrakon_core::hlc::Timestamp;
use ostrakon_wire::message::ScanEntry;

use crate::limits::SCAN_EXAMINED_MAX;
use crate::storage::memtable::{Cursor, Memtable, Version};

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
    /// From the last key down to the first.
    pub reverse: bool,
}

impl ScanRange {
    /// Less if the scan meets `left` before `right`.
    fn order(&self, left: &[u8], right: &[u8]) -> Ordering {
        if self.reverse {
            right.cmp(left)
        } else {
            left.cmp(right)
        }
    }
}

struct PageEntry {
    key_start: usize,
    value_start: usize,
    value_end: usize,
    version: Timestamp,
    expiry: Option<Timestamp>,
}

/// Entries in the order of the scan and where to go on.
#[derive(Default)]
pub struct ScanPage {
    bytes: Vec<u8>,
    entries: Vec<PageEntry>,
    /// Where to go on when the range has more: forward inclusive, in reverse exclusive.
    pub resume_key: Option<Vec<u8>>,
}

impl ScanPage {
    /// Bytes of its keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

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
            expires: entry.expiry.map_or(0, |expiry| expiry.0),
        })
    }

    /// Looks at a key's version at `snapshot` and adds it, if a reader at that moment sees a value. False when the
    /// page has no room and the key was not looked at; a page without entries has room for anything.
    fn take(
        &mut self,
        key: &[u8],
        version: Option<Version<'_>>,
        snapshot: Timestamp,
        range: &ScanRange,
    ) -> bool {
        let is_full = self.len() >= range.limit || self.bytes.len() >= range.page_bytes;
        if is_full && !self.is_empty() {
            return false;
        }
        let Some((version, value)) = version.and_then(|found| Some((found, found.live_value(snapshot)?)))
        else {
            return true;
        };
        let shown = if range.keys_only { &[][..] } else { value };
        if !self.is_empty() && self.bytes.len() + key.len() + shown.len() > range.page_bytes {
            return false;
        }
        let key_start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let value_start = self.bytes.len();
        self.bytes.extend_from_slice(shown);
        self.entries.push(PageEntry {
            key_start,
            value_start,
            value_end: self.bytes.len(),
            version: version.timestamp,
            expiry: version.expiry,
        });
        true
    }
}

/// One page over the memtables of a core's shards, all readable at `snapshot`: of each key the newest version at or
/// below it, if that is a value which has not expired by then.
pub fn scan_page<'a>(
    memtables: impl Iterator<Item = &'a Memtable>,
    snapshot: Timestamp,
    range: &ScanRange,
) -> ScanPage {
    let (start, end) = (range.start.as_slice(), range.end.as_deref());
    if range.reverse {
        let cursors = memtables.map(|memtable| memtable.cursor_below(end)).collect();
        fill_page::<true>(cursors, |key| key >= start, snapshot, range)
    } else {
        let cursors = memtables.map(|memtable| memtable.cursor(start)).collect();
        fill_page::<false>(cursors, |key| end.is_none_or(|end| key < end), snapshot, range)
    }
}

/// The key that a cursor stands on. The greatest is the one that the scan meets first.
struct Head<'a, const REVERSE: bool> {
    key: &'a [u8],
    cursor: usize,
}

impl<const REVERSE: bool> Ord for Head<'_, REVERSE> {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = self.key.cmp(other.key);
        if REVERSE { order } else { order.reverse() }
    }
}

impl<const REVERSE: bool> PartialOrd for Head<'_, REVERSE> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<const REVERSE: bool> PartialEq for Head<'_, REVERSE> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<const REVERSE: bool> Eq for Head<'_, REVERSE> {}

/// The direction is a constant, so that a scan does not ask for it at every key.
fn fill_page<const REVERSE: bool>(
    mut cursors: Vec<Cursor<'_>>,
    is_in_range: impl Fn(&[u8]) -> bool,
    snapshot: Timestamp,
    range: &ScanRange,
) -> ScanPage {
    let keys = cursors.iter().map(Cursor::key).enumerate();
    let mut heads: BinaryHeap<Head<'_, REVERSE>> = keys
        .filter_map(|(cursor, key)| Some(Head { key: key?, cursor }))
        .collect();
    let mut page = ScanPage::default();
    let mut key_before: Option<&[u8]> = None;
    let mut examined = 0;
    while let Some(mut head) = heads.peek_mut() {
        let key = head.key;
        if !is_in_range(key) {
            break;
        }
        let cursor = &mut cursors[head.cursor];
        if examined >= SCAN_EXAMINED_MAX || !page.take(key, cursor.version_at(snapshot), snapshot, range) {
            let resume_key = if REVERSE { key_before } else { Some(key) };
            page.resume_key = Some(resume_key.expect("the first key is looked at").to_vec());
            break;
        }
        examined += 1;
        key_before = Some(key);
        if REVERSE {
            cursor.retreat();
        } else {
            cursor.advance();
        }
        match cursor.key() {
            Some(next) => head.key = next,
            None => drop(PeekMut::pop(head)),
        }
    }
    page
}

/// The merge of the pages of all cores into one.
pub struct MergedPage<'a> {
    /// Entries in the order of the scan.
    pub entries: Vec<ScanEntry<'a>>,
    /// Where to go on: forward inclusive, in reverse exclusive.
    pub resume_key: Option<&'a [u8]>,
}

/// Merges pages of this range whose keys are disjoint, within the range's bounds of count and bytes.
pub fn merge_pages<'a>(pages: &'a [ScanPage], range: &ScanRange) -> MergedPage<'a> {
    let resume_keys = pages.iter().filter_map(|page| page.resume_key.as_deref());
    let frontier = resume_keys.min_by(|left, right| range.order(left, right));
    // Whether some page may not have looked at this key, or at one before it.
    let is_beyond = |key: &[u8]| {
        frontier.is_some_and(|frontier| match range.order(key, frontier) {
            Ordering::Less => false,
            Ordering::Equal => !range.reverse,
            Ordering::Greater => true,
        })
    };
    let mut positions = vec![0; pages.len()];
    let mut merged = MergedPage {
        entries: Vec::new(),
        resume_key: frontier,
    };
    let mut bytes = 0;
    loop {
        let heads = pages
            .iter()
            .enumerate()
            .filter_map(|(slot, page)| page.entry(positions[slot]).map(|entry| (entry, slot)));
        let first = heads.min_by(|(left, _), (right, _)| range.order(left.key, right.key));
        let Some((entry, slot)) = first.filter(|(entry, _)| !is_beyond(entry.key)) else {
            return merged;
        };
        let entry_bytes = entry.key.len() + entry.value.len();
        let is_full = merged.entries.len() >= range.limit || bytes + entry_bytes > range.page_bytes;
        if let Some(last) = merged.entries.last().filter(|_| is_full) {
            merged.resume_key = Some(if range.reverse { last.key } else { entry.key });
            return merged;
        }
        bytes += entry_bytes;
        positions[slot] += 1;
        merged.entries.push(entry);
    }
}
