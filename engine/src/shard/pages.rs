//! The merge of the pages that several cores have of one scan.
//!
//! It emits only what every page has passed: it stops at the resume key that the scan meets first, the smallest one
//! forward and the largest one in reverse, and never skips or repeats a key.

use core::cmp::Ordering;

use ostrakon_wire::message::ScanEntry;

use super::scan::{ScanPage, ScanRange};

/// The order in which entries of several pages make up one.
pub struct Merge {
    /// Page and position of each entry.
    places: Vec<(u32, u32)>,
    /// Where to go on: forward inclusive, in reverse exclusive.
    pub resume_key: Option<Vec<u8>>,
}

impl Merge {
    /// The entries of these pages, which are those that were merged.
    pub fn entries<'a>(&self, pages: &'a [ScanPage]) -> impl ExactSizeIterator<Item = ScanEntry<'a>> {
        let places = self.places.iter();
        places.map(|(slot, position)| {
            let entry = pages[*slot as usize].entry(*position as usize);
            entry.expect("the merge has places of entries")
        })
    }
}

/// Merges pages of this range whose keys are disjoint, within the range's bounds of count and bytes.
pub fn merge_pages(pages: &[ScanPage], range: &ScanRange) -> Merge {
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
    let mut places = Vec::with_capacity(pages.iter().map(ScanPage::len).sum::<usize>().min(range.limit));
    let mut last: Option<&[u8]> = None;
    let mut bytes = 0;
    let resume_key = loop {
        let heads = pages
            .iter()
            .enumerate()
            .filter_map(|(slot, page)| page.entry(positions[slot]).map(|entry| (entry, slot)));
        let first = heads.min_by(|(left, _), (right, _)| range.order(left.key, right.key));
        let Some((entry, slot)) = first.filter(|(entry, _)| !is_beyond(entry.key)) else {
            break frontier;
        };
        let entry_bytes = entry.key.len() + entry.value.len();
        let is_full = places.len() >= range.limit || bytes + entry_bytes > range.page_bytes;
        if let Some(last) = last.filter(|_| is_full) {
            break Some(if range.reverse { last } else { entry.key });
        }
        bytes += entry_bytes;
        places.push((slot as u32, positions[slot] as u32));
        positions[slot] += 1;
        last = Some(entry.key);
    };
    Merge {
        places,
        resume_key: resume_key.map(<[u8]>::to_vec),
    }
}
