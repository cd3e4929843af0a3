//! How many records there are while a workload inserts more.
//!
//! Inserts take numbers from one counter. A record can be chosen once every insert up to it is over, so that
//! the records to choose from are always `0..count`. A failed insert counts as over, as in YCSB: what reads
//! it finds nothing and says so.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::keys::KeyIndex;

/// Shared by all executors of a run.
#[derive(Debug)]
pub struct Records {
    count: AtomicU64,
    next: AtomicU64,
    /// Inserts that are over, while one before them is not.
    early: Mutex<BTreeSet<u64>>,
}

impl Records {
    /// So many to begin with.
    pub fn new(count: u64) -> Self {
        Self {
            count: AtomicU64::new(count),
            next: AtomicU64::new(count),
            early: Mutex::default(),
        }
    }

    /// Records to choose from: `0..count`.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The record that the next insert writes.
    pub fn begin_insert(&self) -> KeyIndex {
        KeyIndex(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// An insert is over.
    pub fn end_insert(&self, key: KeyIndex) {
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        early.insert(key.0);
        let mut count = self.count();
        while early.remove(&count) {
            count += 1;
        }
        self.count.store(count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_can_be_chosen_once_all_before_it_are_over() {
        let records = Records::new(10);
        let keys: Vec<KeyIndex> = (0..4).map(|_| records.begin_insert()).collect();
        assert_eq!(keys.iter().map(|key| key.0).collect::<Vec<_>>(), [10, 11, 12, 13]);
        records.end_insert(keys[2]);
        records.end_insert(keys[1]);
        assert_eq!(records.count(), 10);
        records.end_insert(keys[0]);
        assert_eq!(records.count(), 13);
        records.end_insert(keys[3]);
        assert_eq!(records.count(), 14);
    }
}
