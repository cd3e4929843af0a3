//! Versions that had to be read from tables before a request could be carried out.
//!
//! A request that needs a version which is not in memory does nothing and says what it lacks ([`Missing`]). Whoever
//! asked reads that, and asks again with what was read ([`Fetched`]). In between other requests go on, so what was read
//! counts only where memory has no newer version, and only if nothing was flushed since: what memory had then would be
//! in tables now, and neither here nor there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_wire::routing::ShardId;

use crate::storage::sstable::reader::TableError;
use crate::storage::store::keys::stored_key;
use crate::storage::store::tables::{InTables, Tables};
use crate::storage::store::{Look, Store};

/// A key whose version a request lacks.
pub struct Missing {
    pub(super) shard: ShardId,
    pub(super) hash: u64,
    pub(super) key: Vec<u8>,
    /// The newest version at or below this.
    pub(super) snapshot: Timestamp,
    pub(super) tables: Rc<Tables>,
    /// See [`Store::flushes`].
    pub(super) flushes: u64,
}

/// What was read for one request.
#[derive(Default)]
pub struct Fetched {
    by_key: BTreeMap<Vec<u8>, FetchedVersion>,
    rounds: u32,
}

#[derive(Clone)]
struct FetchedVersion {
    snapshot: Timestamp,
    flushes: u64,
    found: Option<InTables>,
}

impl Missing {
    /// Its shard.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Reads it.
    ///
    /// # Errors
    /// If a block can't be read, or is damaged.
    pub async fn read_into(&self, fetched: &RefCell<Fetched>) -> Result<(), TableError> {
        let mut stored = Vec::with_capacity(self.key.len() + 1);
        stored_key(&mut stored, &self.key);
        let found = self.tables.find(&stored, self.hash, self.snapshot).await?;
        let version = FetchedVersion {
            snapshot: self.snapshot,
            flushes: self.flushes,
            found,
        };
        fetched.borrow_mut().by_key.insert(self.key.clone(), version);
        Ok(())
    }
}

impl Fetched {
    /// For a request that had been given this, and lacks something still.
    pub fn after(before: &Fetched) -> Fetched {
        Fetched {
            by_key: before.by_key.clone(),
            rounds: before.rounds + 1,
        }
    }

    /// How often something was read for the request.
    pub fn rounds(&self) -> u32 {
        self.rounds
    }

    /// What was read of a key, if it counts for this snapshot still.
    fn get(&self, key: &[u8], snapshot: Timestamp, flushes: u64) -> Option<&FetchedVersion> {
        let fetched = self.by_key.get(key)?;
        let found = fetched.found.as_ref();
        // The newest version of all is the newest below any snapshot that is not below it.
        let is_it = fetched.snapshot == snapshot
            || fetched.snapshot > snapshot && found.is_none_or(|found| found.version().timestamp <= snapshot);
        (is_it && fetched.flushes == flushes).then_some(fetched)
    }

    /// The newest version of a key at or below `snapshot`, if it is known: in memory, from what was read, or from
    /// blocks that are in the cache.
    pub(super) fn look<'a>(
        &self,
        store: &'a Store,
        (hash, key): (u64, &[u8]),
        snapshot: Timestamp,
        scratch: &mut Vec<u8>,
    ) -> Result<Look<'a>, TableError> {
        let Some(fetched) = self.get(key, snapshot, store.flushes()) else {
            return store.look((hash, key), snapshot, scratch);
        };
        Ok(
            match (store.look_in_memory((hash, key), snapshot), &fetched.found) {
                (Some(version), _) => Look::Memory(version),
                (None, Some(found)) => Look::Table(found.clone()),
                (None, None) => Look::Absent,
            },
        )
    }
}
