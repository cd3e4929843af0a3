//! Checkpoints of a core's shards: memtables are sealed once the shards are readable at the snapshot, and when they are
//! flushed, the tables of that moment are handed out. Nobody waits for anything here.

use std::path::Path;
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::raft::EntryId;
use ostrakon_wire::message::CheckpointShard;
use ostrakon_wire::routing::ShardId;

use super::Refusal;
use super::host::ShardHost;
use crate::storage::store::files::{ShardFiles, StoreError};
use crate::storage::store::tables::Tables;

/// The entry of each shard up to which a checkpoint has to hold everything.
pub type SealedShards = Vec<(ShardId, EntryId)>;

/// The tables of a shard as they are at one moment, which stay as long as this does.
pub struct PinnedShard {
    shard: ShardId,
    files: Rc<ShardFiles>,
    tables: Rc<Tables>,
    flushed: EntryId,
}

impl PinnedShard {
    /// Links them into the directory of a checkpoint.
    ///
    /// # Errors
    /// If there is too little room, or what the operating system says.
    pub async fn link(&self, checkpoint: &Path) -> Result<(), StoreError> {
        self.files.link(checkpoint, &self.tables, self.flushed).await
    }

    /// The shard, and what is linked of it.
    pub fn extent(&self) -> (ShardId, CheckpointShard) {
        let tree = self.tables.tree();
        let extent = CheckpointShard {
            tables: tree.tables().count() as u32,
            bytes: tree.bytes(),
        };
        (self.shard, extent)
    }
}

impl ShardHost {
    /// Seals the memtables of all shards, which [`ShardHost::prepare_scan`] has made readable at this snapshot: all
    /// that was written at or below it is in them, or in tables. They are flushed before others.
    ///
    /// # Errors
    /// [`Refusal::CoreFailed`] after a failed log write, [`Refusal::SnapshotTooOld`].
    pub fn seal_at(&mut self, snapshot: Timestamp) -> Result<SealedShards, Refusal> {
        if self.core.log.has_failed() {
            return Err(Refusal::CoreFailed);
        }
        let mut sealed = SealedShards::new();
        for replica in self.replicas.iter_mut().flatten() {
            if snapshot < replica.watermark() {
                return Err(Refusal::SnapshotTooOld);
            }
            replica.seal(&mut self.core);
            if replica.store().sealed().len() > 0 {
                self.upkeep
                    .flush_first(replica.shard(), replica.sealed_through.index);
            }
            sealed.push((replica.shard(), replica.sealed_through));
        }
        self.flush_work.notify();
        Ok(sealed)
    }

    /// Is all of this in tables?
    pub fn are_flushed(&self, sealed: &SealedShards) -> bool {
        sealed.iter().all(|(shard, through)| {
            let first = self.replica(*shard).store().sealed().next();
            first.is_none_or(|first| first.through.index > through.index)
        })
    }

    /// The tables of these shards, which are flushed. Of each key they have the newest version at or below the
    /// snapshot.
    ///
    /// # Errors
    /// [`Refusal::SnapshotTooOld`] if merges may have dropped some.
    pub fn pin(&self, sealed: &SealedShards, snapshot: Timestamp) -> Result<Vec<PinnedShard>, Refusal> {
        let pin = |(shard, through): &(ShardId, EntryId)| {
            let replica = self.replica(*shard);
            if snapshot < replica.watermark() {
                return Err(Refusal::SnapshotTooOld);
            }
            Ok(PinnedShard {
                shard: *shard,
                files: Rc::clone(replica.files()),
                tables: Rc::clone(replica.store().tables()),
                flushed: *through,
            })
        };
        sealed.iter().map(pin).collect()
    }
}
