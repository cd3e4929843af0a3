//! Scans of a thread: page by page at one snapshot, in either direction, and each page held against what was asked.

use std::collections::BTreeMap;
use std::rc::Rc;

use ostrakon_wire::message::{Request, ScanRequest};

use super::client::{Page, Reply, Value};
use super::connections::Asking;
use super::workload::{Thread, describe};
use crate::check::history::{Action, Datum, KeyRange, Observed, Step, StepAction, Version};

/// Pages of one scan, at most.
const SCAN_PAGES_MAX: u32 = 200;
/// Entries of a page: few, so that scans have several.
const PAGE_ENTRIES: u32 = 7;

/// What is scanned.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The first key.
    pub start: Vec<u8>,
    /// The first key past the range.
    pub end: Option<Vec<u8>>,
    /// How all keys begin.
    pub prefix: Vec<u8>,
    /// From the last to the first.
    pub is_reverse: bool,
}

/// What a scan found: keys in order, and the snapshot.
#[derive(Debug, Default)]
struct Found {
    entries: BTreeMap<Vec<u8>, Value>,
    snapshot: u64,
    /// The key that came last.
    last: Option<Vec<u8>>,
}

impl Wish {
    /// A range of the run's keys in order: so many from this one on.
    pub fn of_range(keys: &[Vec<u8>], from: u32, count: u32, is_reverse: bool) -> Wish {
        let from = from as usize % keys.len();
        Wish {
            start: keys[from].clone(),
            end: keys.get(from + count as usize).cloned(),
            prefix: Vec::new(),
            is_reverse,
        }
    }

    /// All keys that begin like this one.
    pub fn of_prefix(key: &[u8], bytes: u32, is_reverse: bool) -> Wish {
        Wish {
            start: Vec::new(),
            end: None,
            prefix: key[..key.len().min(bytes as usize)].to_vec(),
            is_reverse,
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_slice()
            && self.end.as_deref().is_none_or(|end| key < end)
            && key.starts_with(&self.prefix)
    }

    /// The range in a history. What begins with some bytes lies from these to just below their successor.
    pub(super) fn range(&self) -> KeyRange {
        let start = self.start.as_slice().max(&self.prefix);
        let end = [self.end.clone(), past(&self.prefix)].into_iter().flatten().min();
        KeyRange {
            start: Some(Datum::from(start)),
            end: end.as_deref().map(Datum::from),
        }
    }
}

/// The first bytes past all that begin with these; none if there are none.
pub fn past(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut past = prefix.to_vec();
    while let Some(last) = past.pop() {
        if last < u8::MAX {
            past.push(last + 1);
            return Some(past);
        }
    }
    None
}

impl Thread {
    /// Reads a range of keys at one snapshot, page by page.
    pub(super) async fn scan(&mut self, wish: Wish, asking: Asking<'_>) {
        let called = Action::Transaction {
            steps: Vec::new(),
            scan: Some(wish.range()),
        };
        self.recorder().invoke_read(self.process(), &called);
        let found = match self.scan_pages(&wish, asking).await {
            Err(reason) => return self.recorder().failed(self.process(), &called, reason),
            Ok(found) => found,
        };
        self.record_scan(&wish, &found.entries, found.snapshot);
    }

    /// Records what a scan has found.
    pub(super) fn record_scan(&self, wish: &Wish, entries: &BTreeMap<Vec<u8>, Value>, snapshot: u64) {
        let shared = Rc::clone(&self.client().shared);
        let known = shared.keys.iter().filter(|key| wish.contains(key));
        let steps = known.map(|key| self.seen(key, entries.get(key))).collect();
        for key in entries
            .keys()
            .filter(|key| shared.keys.binary_search(key).is_err())
        {
            let key = String::from_utf8_lossy(key);
            self.recorder()
                .violation(format!("a scan returned the key {key:?}, which nobody wrote"));
        }
        let read = Action::Transaction {
            steps,
            scan: Some(wish.range()),
        };
        self.read_at(&read, snapshot);
    }

    async fn scan_pages(&self, wish: &Wish, asking: Asking<'_>) -> Result<Found, String> {
        let mut left = wish.clone();
        let mut found = Found::default();
        for _ in 0..SCAN_PAGES_MAX {
            let request = ScanRequest {
                start: &left.start,
                end: left.end.as_deref(),
                limit: PAGE_ENTRIES,
                snapshot: found.snapshot,
                prefix: &left.prefix,
                reverse: left.is_reverse,
                ..ScanRequest::ALL
            };
            let page = match self.client().call(&Request::Scan(request), asking).await {
                Ok(heard) => match heard.reply {
                    Reply::Scan(page) => page,
                    other => return Err(describe(&Ok(other))),
                },
                Err(error) => return Err(describe(&Err(error))),
            };
            self.check_page(&page, wish, &found);
            found.snapshot = page.snapshot;
            if let Some((key, _)) = page.entries.last() {
                found.last = Some(key.clone());
            }
            found.entries.extend(page.entries);
            match page.resume_key {
                None => return Ok(found),
                Some(key) if left.is_reverse => left.end = Some(key),
                Some(key) => left.start = key,
            }
        }
        let sentence = format!("a scan did not end within {SCAN_PAGES_MAX} pages");
        self.recorder().violation(sentence.clone());
        Err(sentence)
    }

    /// The order of keys within a page and over pages, that none lies outside, and that nothing has expired.
    fn check_page(&self, page: &Page, wish: &Wish, found: &Found) {
        if (found.snapshot != 0 && page.snapshot != found.snapshot)
            || page.entries.len() > PAGE_ENTRIES as usize
        {
            let sentence = format!(
                "asked for {PAGE_ENTRIES} keys at snapshot {}, got {page:?}",
                found.snapshot
            );
            self.recorder().violation(sentence);
        }
        let mut before = found.last.as_ref();
        for (key, value) in &page.entries {
            let is_next = before.is_none_or(|before| (before < key) != wish.is_reverse && before != key);
            let is_there = value.expires == 0 || value.expires > page.snapshot;
            if !is_next || !is_there || !wish.contains(key) || value.version > page.snapshot {
                let key = String::from_utf8_lossy(key);
                self.recorder().violation(format!(
                    "a scan ({wish:?}) at snapshot {} returned {key:?} at version {}, expiring at {}: out of order, \
                     range, snapshot or time",
                    page.snapshot, value.version, value.expires
                ));
            }
            before = Some(key);
        }
    }

    /// What a read of several keys saw at one of them.
    pub(super) fn seen(&self, key: &[u8], found: Option<&Value>) -> Step {
        let value = match found {
            None => Observed::Nothing,
            Some(value) => self
                .datum(key, &value.bytes)
                .map_or(Observed::Nothing, Observed::Value),
        };
        Step {
            version: found.map(|value| Version(value.version)),
            expires: found.map(|value| value.expires),
            ..Step::new(StepAction::Read {
                key: Datum::from(key),
                value,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_range_of_a_history() {
        let keys: Vec<Vec<u8>> = [&b"a"[..], b"b", b"b\xff", b"b\xff\xff", b"ba", b"c", b"\xff\xff"]
            .map(<[u8]>::to_vec)
            .into();
        for prefix in [&b""[..], b"b", b"b\xff", b"\xff", b"\xff\xff"] {
            let wish = Wish {
                prefix: prefix.to_vec(),
                ..Wish::of_range(&keys, 1, 10, false)
            };
            for key in &keys {
                let is_inside = wish.range().contains(&Datum::from(key.as_slice()));
                assert_eq!(is_inside, wish.contains(key), "{key:?} of {prefix:?}");
            }
        }
    }
}
