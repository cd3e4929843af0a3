//! The tasks of a core that keep its shards' files in shape: one flushes memtables, one merges tables; and one makes
//! checkpoints ([`super::checkpoint_task`]).
//!
//! - Too little space: the job is tried again after a while, and puts are refused with `DiskFull` while no flush
//!   succeeds. Tables that are made wait until the manifest has room for them: it may have them at the next start.
//! - A table that can't be read: it is not merged any more, the operator is told, and reads of it fail one by one.
//! - Another failure to write: tried again some times, then the core gives up. Memtables can't be flushed then, and
//!   nobody knows why.
//! - A manifest that can't be written for another reason: the core gives up at once, since nobody knows what the file
//!   says.

use core::cell::{Cell, RefCell};
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::core::SharedCore;
use super::message::CoreBatch;
use super::node::NodeEvent;
use crate::env::local::Notify;
use crate::env::{CoreId, Disk, Env, Priority, Tasks};
use crate::log::{Log, LogError};
use crate::shard::upkeep::{FlushJob, MergeJob};
use crate::storage::store::files::StoreError;

/// How long a job waits after a failure, and files that are still read until they are looked at again.
const RETRY: Duration = Duration::from_millis(250);

/// Failures in a row, other than a full disk, after which the core gives up: some 5 seconds.
const FAILURES_MAX: u32 = 20;

/// All three tasks, for whoever ends them.
pub(super) struct Upkeep {
    pub(super) core: SharedCore,
    pub(super) disk: Rc<dyn Disk>,
    /// The data directory.
    pub(super) data: PathBuf,
    id: CoreId,
    log: Log,
    tasks: Rc<dyn Tasks>,
    events: Arc<dyn Fn(NodeEvent) + Send + Sync>,
    is_stopping: Cell<bool>,
    /// What kept a memtable from being flushed, since a checkpoint began to wait for it.
    flush_failure: RefCell<Option<String>>,
    running: Cell<usize>,
    ended: Notify,
}

impl Upkeep {
    /// Starts them.
    pub(super) fn start(
        core: &SharedCore,
        env: &Env<CoreBatch>,
        data: &Path,
        events: Arc<dyn Fn(NodeEvent) + Send + Sync>,
    ) -> Rc<Upkeep> {
        let upkeep = Rc::new(Upkeep {
            core: Rc::clone(core),
            disk: Rc::clone(&env.disk),
            data: data.to_owned(),
            id: env.core,
            log: core.borrow().host.log().clone(),
            tasks: Rc::clone(&env.tasks),
            events,
            is_stopping: Cell::new(false),
            flush_failure: RefCell::default(),
            running: Cell::new(3),
            ended: Notify::default(),
        });
        let flushing = Rc::clone(&upkeep);
        let flush = async move { flushing.flush_memtables().await };
        env.tasks.spawn(Priority::Background, Box::pin(flush));
        let merging = Rc::clone(&upkeep);
        let merge = async move { merging.merge_tables().await };
        env.tasks.spawn(Priority::Background, Box::pin(merge));
        let making = Rc::clone(&upkeep);
        let checkpoints = async move { making.make_checkpoints().await };
        env.tasks.spawn(Priority::Background, Box::pin(checkpoints));
        upkeep
    }

    /// Ends them: what is under way is given up or ended, whichever is sooner.
    pub(super) async fn stop(&self) {
        self.is_stopping.set(true);
        let (flush_work, merge_work) = self.work();
        flush_work.notify();
        merge_work.notify();
        self.checkpoint_work().notify();
        while self.running.get() > 0 {
            self.ended.notified().await;
        }
    }

    fn work(&self) -> (Rc<Notify>, Rc<Notify>) {
        let host = &self.core.borrow().host;
        (Rc::clone(&host.flush_work), Rc::clone(&host.merge_work))
    }

    fn is_over(&self) -> bool {
        self.is_stopping.get() || self.log.has_failed()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.get()
    }

    pub(super) fn has_log_failed(&self) -> bool {
        self.log.has_failed()
    }

    pub(super) fn flush_failure(&self) -> Option<String> {
        self.flush_failure.borrow().clone()
    }

    pub(super) fn forget_flush_failure(&self) {
        *self.flush_failure.borrow_mut() = None;
    }

    pub(super) fn task_ended(&self) {
        self.running.set(self.running.get() - 1);
        self.ended.notify();
    }

    async fn flush_memtables(&self) {
        let (work, _) = self.work();
        let checkpoint_work = self.checkpoint_work();
        let mut failures = 0;
        while !self.is_over() {
            let job = self.core.borrow_mut().host.next_flush();
            let Some(job) = job else {
                work.notified().await;
                continue;
            };
            let outcome = self.flush(&job).await;
            self.core.borrow_mut().host.flush_ended(&job, &outcome);
            self.tell_flush(&outcome);
            match outcome {
                Ok(()) => failures = 0,
                Err(error) => self.after_failure(&error, &mut failures).await,
            }
        }
        // A checkpoint that waits would wait for ever.
        checkpoint_work.notify();
        self.task_ended();
    }

    async fn flush(&self, job: &FlushJob) -> Result<(), StoreError> {
        let made = job.run().await?;
        let install = |made: &_| self.core.borrow_mut().host.install_flush(job, made);
        loop {
            let noted = job.note(&made, install).await;
            if !self.waits_for_room(&noted) {
                return noted;
            }
            self.tell_flush(&noted);
            self.tasks.sleep(RETRY).await;
        }
    }

    /// Tells what became of a flush those whom it concerns.
    fn tell_flush(&self, outcome: &Result<(), StoreError>) {
        let is_full = outcome.as_ref().is_err_and(StoreError::is_disk_full);
        self.core.borrow_mut().host.note_store_full(is_full);
        if let Err(error) = outcome {
            *self.flush_failure.borrow_mut() = Some(error.to_string());
        }
        self.checkpoint_work().notify();
    }

    /// Is a change to be noted again, once there may be room for it?
    fn waits_for_room(&self, noted: &Result<(), StoreError>) -> bool {
        noted.as_ref().is_err_and(StoreError::is_disk_full) && !self.is_over()
    }

    async fn merge_tables(&self) {
        let (_, work) = self.work();
        let mut failures = 0;
        while !self.is_over() {
            let job = self.core.borrow_mut().host.next_merge();
            let Some(job) = job else {
                self.clean_up(&work).await;
                continue;
            };
            let outcome = self.merge(&job).await;
            self.core.borrow_mut().host.merge_ended(&job, &outcome);
            match outcome {
                Ok(()) => failures = 0,
                Err(StoreError::Table(error)) => {
                    (self.events)(NodeEvent::TableUnreadable(self.id, error.to_string()));
                }
                Err(error) => {
                    self.remove_obsolete().await;
                    self.after_failure(&error, &mut failures).await;
                }
            }
            if let Err(error) = job.clean_up().await {
                self.after_failure(&error, &mut failures).await;
            }
        }
        self.task_ended();
    }

    async fn merge(&self, job: &MergeJob) -> Result<(), StoreError> {
        let Some(made) = job.run(&|| !self.is_over()).await? else {
            return Ok(());
        };
        let install = |made: &_| self.core.borrow_mut().host.install_merge(job, made);
        loop {
            let noted = job.note(&made, install).await;
            if !self.waits_for_room(&noted) {
                return noted;
            }
            // That may be what makes room.
            self.remove_obsolete().await;
            self.tasks.sleep(RETRY).await;
        }
    }

    /// Removes files that nobody reads any more, and waits: for a moment if some are read still, else for work.
    async fn clean_up(&self, work: &Notify) {
        let are_some_left = self.remove_obsolete().await;
        if are_some_left && !self.is_over() {
            self.tasks.sleep(RETRY).await;
        } else if !self.is_over() {
            work.notified().await;
        }
    }

    /// Removes files that nobody reads any more; returns whether some are left.
    async fn remove_obsolete(&self) -> bool {
        let stores = self.core.borrow().host.stores();
        let mut are_some_left = false;
        for (files, _) in stores {
            // What can't be removed now is removed at the next start.
            let _ = files.remove_obsolete().await;
            are_some_left |= files.has_obsolete();
        }
        are_some_left
    }

    /// Waits before the next try, or gives the core up.
    async fn after_failure(&self, error: &StoreError, failures: &mut u32) {
        if error.is_disk_full() {
            *failures = 0;
        } else {
            *failures += 1;
        }
        let is_uncertain = matches!(error, StoreError::Manifest(_)) && !error.is_disk_full();
        if is_uncertain || *failures > FAILURES_MAX {
            self.log.give_up(&LogError::Store(error.to_string()));
        } else if !self.is_over() {
            self.tasks.sleep(RETRY).await;
        }
    }
}
