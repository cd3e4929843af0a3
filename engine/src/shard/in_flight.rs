//! The proposals of a shard that are not applied yet, and the newest version of a key among them.
//!
//! Invariants:
//! - `entries` holds exactly the entries after the applied index, in index order; `keys` holds what they do to keys, in
//!   the same order.
//! - Timestamps rise with the index; none exceeds the ceiling that precedes it in the log.

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

/// The newest version of a key, in flight or applied, as a write at some moment finds it.
pub(super) struct Newest<'a> {
    /// Version and value, if the key is there.
    pub(super) found: Option<(Timestamp, &'a [u8])>,
    /// When the newest version expires or has expired.
    pub(super) expiry: Option<Timestamp>,
    /// The entry on its way that says so.
    pub(super) index: Option<LogIndex>,
}

/// The proposals of a shard.
#[derive(Default)]
pub(super) struct InFlight {
    entries: VecDeque<Entry>,
    keys: VecDeque<PendingKey>,
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

    pub(super) fn push_key(&mut self, key: PendingKey) {
        self.keys.push_back(key);
    }

    /// Takes the first entry if it is at or below `through`.
    pub(super) fn pop_through(&mut self, through: LogIndex) -> Option<Entry> {
        self.entries.pop_front_if(|entry| entry.index <= through)
    }

    /// Takes the next key of the entry that was popped last.
    pub(super) fn pop_key(&mut self) -> PendingKey {
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

    /// What the newest entry on its way that changes this key does to it.
    pub(super) fn find(&self, log: &Log, hash: u64, key: &[u8]) -> Option<(&Entry, &PendingKey)> {
        let first = self.entries.front()?.index.0;
        let of_hash = self.keys.iter().rev().filter(|pending| pending.hash == hash);
        of_hash
            .map(|pending| (&self.entries[(pending.index.0 - first) as usize], pending))
            .find(|(entry, pending)| log.with_payload(entry.place, |payload| pending.key(payload) == key))
    }
}
