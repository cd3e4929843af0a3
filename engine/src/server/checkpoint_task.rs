//! The task of a core that links tables for checkpoints and removes them, one job after the other.
//!
//! A checkpoint that can't be made is refused in words, and that is all: it is tried again by whoever wants it. What it
//! waits for is the business of the other tasks ([`super::upkeep`]).

use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;

use super::checkpoints::{CheckpointJob, CheckpointPart, CheckpointRefusal};
use super::core::Core;
use super::upkeep::Upkeep;
use crate::env::local::Notify;
use crate::shard::Refusal;
use crate::shard::checkpoint::SealedShards;
use crate::storage::store::checkpoint::{
    checkpoint_directory, make_directory, remove_checkpoint, sync_directory,
};
use crate::storage::store::files::StoreError;

impl Upkeep {
    /// Does all jobs, until the core ends.
    pub(super) async fn make_checkpoints(&self) {
        let work = self.checkpoint_work();
        while !self.is_stopping() {
            let job = self.core.borrow_mut().checkpoints.jobs.pop_front();
            match job {
                None => work.notified().await,
                Some(CheckpointJob::Make {
                    asker,
                    id,
                    snapshot,
                    sealed,
                }) => {
                    let outcome = self.make(id, snapshot, &sealed, &work).await;
                    self.turn(|core| {
                        if outcome.is_err() {
                            core.checkpoints.forget(id);
                        }
                        core.deliver_checkpoint(asker, outcome);
                    });
                }
                Some(CheckpointJob::Leave(asker)) => self.turn(|core| core.deliver_released(asker)),
                Some(CheckpointJob::Remove { ticket, id, failure }) => {
                    let removed = remove_checkpoint(&*self.disk, &self.data, id).await;
                    let outcome = match (failure, removed) {
                        (Some(failure), _) => Err(failure),
                        (None, removed) => removed.map_err(|error| failed(&error)),
                    };
                    self.turn(|core| core.checkpoint_removed(ticket, id, outcome));
                }
            }
        }
        self.task_ended();
    }

    pub(super) fn checkpoint_work(&self) -> Rc<Notify> {
        Rc::clone(&self.core.borrow().checkpoints.work)
    }

    fn turn(&self, go_on: impl FnOnce(&mut Core)) {
        let mut core = self.core.borrow_mut();
        core.begin_turn();
        go_on(&mut core);
        core.finish_turn();
    }

    async fn make(
        &self,
        id: u64,
        snapshot: Timestamp,
        sealed: &SealedShards,
        work: &Notify,
    ) -> Result<CheckpointPart, CheckpointRefusal> {
        self.forget_flush_failure();
        loop {
            self.check_wanted(id)?;
            if self.core.borrow().host.are_flushed(sealed) {
                break;
            }
            if let Some(failure) = self.flush_failure() {
                return Err(CheckpointRefusal::failed(format!(
                    "a memtable can't be flushed: {failure}"
                )));
            }
            work.notified().await;
        }
        let pinned = self.core.borrow().host.pin(sealed, snapshot)?;
        let checkpoint = checkpoint_directory(&self.data, id);
        make_directory(&*self.disk, &self.data, id)
            .await
            .map_err(|error| failed(&error))?;
        let mut part = CheckpointPart::with_capacity(pinned.len());
        for shard in pinned {
            self.check_wanted(id)?;
            shard.link(&checkpoint).await.map_err(|error| failed(&error))?;
            part.push(shard.extent());
        }
        sync_directory(&*self.disk, &self.data, id)
            .await
            .map_err(|error| failed(&error))?;
        Ok(part)
    }

    fn check_wanted(&self, id: u64) -> Result<(), CheckpointRefusal> {
        if self.has_log_failed() {
            return Err(Refusal::CoreFailed.into());
        }
        if self.is_stopping() {
            return Err(CheckpointRefusal::failed("the node is shutting down"));
        }
        if !self.core.borrow().checkpoints.has(id) {
            return Err(CheckpointRefusal::failed("the checkpoint was released"));
        }
        Ok(())
    }
}

fn failed(error: &StoreError) -> CheckpointRefusal {
    CheckpointRefusal::failed(error.to_string())
}
