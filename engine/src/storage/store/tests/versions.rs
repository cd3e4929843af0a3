//! What was ever written, and what a reader may find of it.

use core::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use ostrakon_core::hlc::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

use crate::storage::memtable::Version;

/// Value and expiry; no value is a tombstone.
pub(super) type Content = (Option<Vec<u8>>, Option<u64>);

/// Start, end and timestamp of a range delete.
pub(super) type RangeDelete = (Vec<u8>, Option<Vec<u8>>, u64);

/// Versions, by key, and from the newest to the oldest within a key; and what was deleted by ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model(
    pub(super) BTreeMap<(Vec<u8>, Reverse<u64>), Content>,
    pub(super) Vec<RangeDelete>,
);

impl Model {
    pub(super) fn put(&mut self, key: &[u8], timestamp: u64, content: Content) {
        let before = self.0.insert((key.to_vec(), Reverse(timestamp)), content);
        assert!(before.is_none(), "a version twice: {key:?} at {timestamp}");
    }

    pub(super) fn newest(&self, key: &[u8], snapshot: u64) -> Option<(u64, Content)> {
        let next = self.0.range((key.to_vec(), Reverse(snapshot))..).next();
        let next = next.filter(|((found, _), _)| found == key);
        let own = next.map(|((_, Reverse(timestamp)), content)| (*timestamp, content.clone()));
        let deleted = self.deleted(key).filter(|timestamp| *timestamp <= snapshot).max();
        own.max(deleted.map(|timestamp| (timestamp, (None, None))))
    }

    /// When ranges with this key were deleted.
    pub(super) fn deleted(&self, key: &[u8]) -> impl Iterator<Item = u64> {
        let covers = move |(start, end, _): &&RangeDelete| {
            start.as_slice() <= key && end.as_ref().is_none_or(|end| key < end.as_slice())
        };
        self.1.iter().filter(covers).map(|(_, _, timestamp)| *timestamp)
    }

    /// Only what was written up to this timestamp.
    pub(super) fn through(&self, last: u64) -> Model {
        let kept = self.0.iter().filter(|((_, timestamp), _)| timestamp.0 <= last);
        let ranges = self.1.iter().filter(|(_, _, timestamp)| *timestamp <= last);
        Model(
            kept.map(|(place, content)| (place.clone(), content.clone()))
                .collect(),
            ranges.cloned().collect(),
        )
    }

    pub(super) fn keys(&self) -> BTreeSet<Vec<u8>> {
        self.0.keys().map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn last(&self) -> u64 {
        let own = self.0.keys().map(|(_, timestamp)| timestamp.0);
        let ranges = self.1.iter().map(|(_, _, timestamp)| *timestamp);
        own.chain(ranges).max().unwrap_or(0)
    }

    /// A reader at a snapshot may find the newest version, and nothing where that one shows nothing; or there an older
    /// range tombstone, which is kept for other keys.
    pub(super) fn assert_allows(&self, key: &[u8], snapshot: u64, found: Option<&(u64, Content)>) {
        let expected = self.newest(key, snapshot);
        let shows = |found: &(u64, Content)| version(found).live_value(Timestamp(snapshot)).is_some();
        let is_nothing = |(at, content): &(u64, Content)| {
            *content == (None, None) && self.deleted(key).any(|timestamp| timestamp == *at)
        };
        let shows_nothing = found.is_none_or(is_nothing) && !expected.as_ref().is_some_and(shows);
        let is_right = found == expected.as_ref() || shows_nothing;
        assert!(
            is_right,
            "{key:?} at {snapshot}: found {found:?}, expected {expected:?}"
        );
    }
}

pub(super) fn version((timestamp, (value, expiry)): &(u64, Content)) -> Version<'_> {
    Version {
        timestamp: Timestamp(*timestamp),
        value: value.as_deref(),
        expiry: expiry.map(Timestamp),
    }
}

pub(super) fn owned(version: &Version<'_>) -> (u64, Content) {
    let value = version.value.map(<[u8]>::to_vec);
    (
        version.timestamp.0,
        (value, version.expiry.map(|expiry| expiry.0)),
    )
}

pub(super) fn key(number: u32) -> Vec<u8> {
    format!("key:{number:04}").into_bytes()
}

/// Bytes that no codec makes shorter.
pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let word = |at: usize| xxh3_64(&[seed, at as u64].map(u64::to_le_bytes).concat()).to_le_bytes();
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(word).collect();
    bytes.truncate(length);
    bytes
}
