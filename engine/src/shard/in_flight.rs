//! The proposals of a shard that are not applied yet, and the newest version of a key among them.
//!
//! Invariants:
//! - `entries` holds exactly the entries after the applied index, in index order; `keys` holds what they do to keys, in
//!   the same order.
//! - `ranges` holds the ranges that entries delete, in the same order.
//! - Timestamps rise with the index; none exceeds the ceiling that precedes it in the log.
//! - Keys whose hashes end alike are chained from the newest to the oldest. Chains go on into keys that were taken;
//!   their positions tell.

use std::collections::VecDeque;

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::raft::LogIndex;

use super::Ticket;
use super::command::Change;
use crate::log::{EntryPlace, Log};

/// An entry on its way.
pub(super) struct Entry {
    pub(super) index: LogIndex,
    pub(super) place: EntryPlace,
    pub(super) timestamp: Timestamp,
    /// How many of `keys` are its own.
    pub(super) key_count: u32,
    /// What was set aside of the memory budget for it.
    pub(super) reserved_bytes: usize,
    pub(super) ticket: Option<Ticket>,
}

/// What an entry on its way does to a key; the bytes lie in the entry's payload.
#[derive(Clone, Copy)]
pub(super) struct PendingKey {
    pub(super) hash: u64,
    index: LogIndex,
    /// Where in the payload the key starts; the value follows it.
    key_at: u32,
    key_bytes: u32,
    value_bytes: u32,
    is_delete: bool,
    is_sum: bool,
    expiry: Option<Timestamp>,
    /// Position of the next older key of its chain; 0: none.
    older: u64,
}

impl PendingKey {
    /// For the key that starts at `key_at` of the payload.
    pub(super) fn new(
        hash: u64,
        index: LogIndex,
        key_at: usize,
        key: &[u8],
        change: &Change<'_>,
    ) -> PendingKey {
        let (is_delete, is_sum, expiry) = match *change {
            Change::Put { is_sum, expiry, .. } => (false, is_sum, expiry),
            Change::Delete => (true, false, None),
        };
        PendingKey {
            hash,
            index,
            key_at: key_at as u32,
            key_bytes: key.len() as u32,
            value_bytes: change.value().len() as u32,
            is_delete,
            is_sum,
            expiry,
            older: 0,
        }
    }

    pub(super) fn key<'a>(&self, payload: &'a [u8]) -> &'a [u8] {
        &payload[self.key_at as usize..][..self.key_bytes as usize]
    }

    /// `None` is a tombstone.
    fn value<'a>(&self, payload: &'a [u8]) -> Option<&'a [u8]> {
        let value_at = (self.key_at + self.key_bytes) as usize;
        (!self.is_delete).then(|| &payload[value_at..][..self.value_bytes as usize])
    }

    pub(super) fn change<'a>(&self, payload: &'a [u8]) -> Change<'a> {
        self.value(payload).map_or(Change::Delete, |value| Change::Put {
            value,
            expiry: self.expiry,
            is_sum: self.is_sum,
        })
    }

    /// As a write at the moment `at` finds it.
    pub(super) fn newest<'a>(&self, entry: &Entry, payload: &'a [u8], at: Timestamp) -> Newest<'a> {
        let is_live = self.expiry.is_none_or(|expiry| expiry > at);
        Newest {
            found: self
                .value(payload)
                .filter(|_| is_live)
                .map(|value| (entry.timestamp, value)),
            expiry: self.expiry,
            index: Some(entry.index),
        }
    }
}

/// A range that an entry on its way deletes.
pub(super) struct PendingRange {
    pub(super) index: LogIndex,
    pub(super) timestamp: Timestamp,
    pub(super) start: Box<[u8]>,
    /// Excluded; `None` is behind all keys.
    pub(super) end: Option<Box<[u8]>>,
}

impl PendingRange {
    fn covers(&self, key: &[u8]) -> bool {
        *self.start <= *key && self.end.as_deref().is_none_or(|end| key < end)
    }
}

/// The newest version of a key, in flight or applied, as a write at some moment finds it.
pub(super) struct Newest<'a> {
    /// Version and value, if the key is there.
    pub(super) found: Option<(Timestamp, &'a [u8])>,
    /// When the newest version expires or has expired.
    pub(super) expiry: Option<Timestamp>,
    /// The entry on its way that says so.
    pub(super) index: Option<LogIndex>,
}

/// Chains of a shard that has proposed something; a power of two.
const CHAINS_MIN: usize = 64;

/// The proposals of a shard.
#[derive(Default)]
pub(super) struct InFlight {
    entries: VecDeque<Entry>,
    keys: VecDeque<PendingKey>,
    ranges: VecDeque<PendingRange>,
    /// Keys that were taken. The first of `keys` has the position above it.
    taken: u64,
    /// By the last bits of a hash, the position of the newest key of the chain.
    newest: Vec<u64>,
}

impl InFlight {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn last_index(&self) -> Option<LogIndex> {
        self.entries.back().map(|entry| entry.index)
    }

    /// Adds the next entry; its keys follow by [`InFlight::push_key`].
    pub(super) fn push(&mut self, entry: Entry) {
        self.entries.push_back(entry);
    }

    /// Adds the range of the entry that is pushed next.
    pub(super) fn push_range(&mut self, range: PendingRange) {
        self.ranges.push_back(range);
    }

    pub(super) fn push_key(&mut self, key: PendingKey) {
        if self.keys.len() == self.newest.len() {
            self.double_chains();
        }
        self.keys.push_back(key);
        self.chain_last(self.keys.len());
    }

    /// Puts the key before `end` at the head of its chain.
    fn chain_last(&mut self, end: usize) {
        let key = &mut self.keys[end - 1];
        let chain = key.hash as usize & (self.newest.len() - 1);
        key.older = self.newest[chain];
        self.newest[chain] = self.taken + end as u64;
    }

    fn double_chains(&mut self) {
        self.newest = vec![0; (self.newest.len() * 2).max(CHAINS_MIN)];
        for end in 1..=self.keys.len() {
            self.chain_last(end);
        }
    }

    /// Takes the first entry if it is at or below `through`.
    pub(super) fn pop_through(&mut self, through: LogIndex) -> Option<Entry> {
        let entry = self.entries.pop_front_if(|entry| entry.index <= through)?;
        self.ranges.pop_front_if(|range| range.index == entry.index);
        Some(entry)
    }

    /// Takes the next key of the entry that was popped last.
    pub(super) fn pop_key(&mut self) -> PendingKey {
        self.taken += 1;
        self.keys.pop_front().expect("as many keys as the entries say")
    }

    /// Keys of entries up to `last`.
    pub(super) fn keys_through(&self, last: LogIndex) -> impl Iterator<Item = &PendingKey> {
        self.keys.iter().take_while(move |key| key.index <= last)
    }

    /// Takes every ticket that waits for an entry.
    pub(super) fn take_tickets(&mut self) -> impl Iterator<Item = Ticket> {
        self.entries.iter_mut().filter_map(|entry| entry.ticket.take())
    }

    /// The newest entry on its way that deletes a range with this key.
    pub(super) fn range_over(&self, key: &[u8]) -> Option<LogIndex> {
        let mut newest_first = self.ranges.iter().rev();
        let range = newest_first.find(|range| range.covers(key));
        range.map(|range| range.index)
    }

    /// What the newest entry on its way that names this key does to it.
    pub(super) fn find(&self, log: &Log, hash: u64, key: &[u8]) -> Option<(&Entry, &PendingKey)> {
        self.all_of(log, hash, key).next()
    }

    /// Is a write of this key on its way with a timestamp below this one?
    pub(super) fn has_below(&self, log: &Log, hash: u64, key: &[u8], timestamp: Timestamp) -> bool {
        let mut writes = self.all_of(log, hash, key);
        let mut ranges = self.ranges.iter();
        writes.any(|(entry, _)| entry.timestamp < timestamp)
            || ranges.any(|range| range.timestamp < timestamp && range.covers(key))
    }

    /// The keys of the chain that this hash belongs to, the newest first.
    fn chain(&self, hash: u64) -> impl Iterator<Item = &PendingKey> {
        let at = |position: u64| {
            let place = position.checked_sub(self.taken + 1)?;
            Some(&self.keys[place as usize])
        };
        let chain = hash as usize & self.newest.len().wrapping_sub(1);
        let newest = self.newest.get(chain).and_then(|newest| at(*newest));
        std::iter::successors(newest, move |pending| at(pending.older))
    }

    /// What the entries on their way do to this key, the newest first.
    fn all_of(&self, log: &Log, hash: u64, key: &[u8]) -> impl Iterator<Item = (&Entry, &PendingKey)> {
        let first = self.entries.front().map_or(0, |entry| entry.index.0);
        self.chain(hash)
            .filter(move |pending| pending.hash == hash)
            .map(move |pending| (&self.entries[(pending.index.0 - first) as usize], pending))
            .filter(move |(entry, pending)| {
                log.with_payload(entry.place, |payload| pending.key(payload) == key)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An in-flight table in which `keys` are hashes; each is an entry of its own.
    fn with(hashes: impl IntoIterator<Item = u64>) -> InFlight {
        let mut in_flight = InFlight::default();
        for hash in hashes {
            let index = LogIndex(in_flight.taken + in_flight.keys.len() as u64 + 1);
            let change = Change::Delete;
            in_flight.push_key(PendingKey::new(hash, index, 0, b"", &change));
        }
        in_flight
    }

    /// The positions that the chain of a hash leads to.
    fn chained(in_flight: &InFlight, hash: u64) -> Vec<u64> {
        let chain = in_flight.chain(hash).filter(|pending| pending.hash == hash);
        chain.map(|pending| pending.index.0).collect()
    }

    #[test]
    fn chains_lead_from_the_newest_to_the_oldest_key_that_is_not_taken() {
        let chains = CHAINS_MIN as u64;
        let mut in_flight = with([7, 7 + chains, 8, 7]);
        assert_eq!(chained(&in_flight, 7), [4, 1]);
        assert_eq!(chained(&in_flight, 7 + chains), [2]);
        assert_eq!(chained(&in_flight, 9), [0; 0]);
        in_flight.pop_key();
        assert_eq!(chained(&in_flight, 7), [4]);
        for _ in 0..3 {
            in_flight.pop_key();
        }
        assert_eq!(chained(&in_flight, 7), [0; 0]);
        assert_eq!(chained(&InFlight::default(), 7), [0; 0]);
    }

    #[test]
    fn the_newest_range_over_a_key_counts() {
        let mut in_flight = InFlight::default();
        let range = |index: u64, start: &[u8], end: Option<&[u8]>| PendingRange {
            index: LogIndex(index),
            timestamp: Timestamp(index * 10),
            start: start.into(),
            end: end.map(Into::into),
        };
        in_flight.push_range(range(1, b"a", Some(b"m")));
        in_flight.push_range(range(3, b"c", Some(b"d")));
        in_flight.push_range(range(4, b"k", None));
        let over = |in_flight: &InFlight, key: &[u8]| in_flight.range_over(key).map(|index| index.0);
        let keys: [&[u8]; 6] = [b"a", b"c", b"d", b"k", b"z", b"A"];
        let found = |in_flight: &InFlight| keys.map(|key| over(in_flight, key));
        assert_eq!(
            found(&in_flight),
            [Some(1), Some(3), Some(1), Some(4), Some(4), None]
        );
        in_flight.ranges.pop_front();
        assert_eq!(found(&in_flight), [None, Some(3), None, Some(4), Some(4), None]);
    }

    #[test]
    fn chains_stay_whole_when_they_become_more() {
        let keys = CHAINS_MIN as u64 * 5;
        let mut in_flight = with((0..keys).map(|key| key % 100));
        for _ in 0..90 {
            in_flight.pop_key();
        }
        for hash in 0..100 {
            let expected: Vec<u64> = (90..keys)
                .rev()
                .filter(|key| key % 100 == hash)
                .map(|key| key + 1)
                .collect();
            assert_eq!(chained(&in_flight, hash), expected, "{hash}");
        }
    }
}
