//! Checkpoints of the whole node. The gateway of the request leads; all cores take part, as in a scan.
//!
//! 1. The gateway takes a timestamp above all cores' clocks ([`super::gather`]), and asks all cores to link their
//!    tables as they are at it ([`CoreMessage::AskCheckpoint`]).
//! 2. Each core waits until its shards are readable at the timestamp, seals their memtables, and leaves the rest to its
//!    task ([`super::checkpoint_task`]): wait for the flushes, link.
//! 3. When all have answered, the client hears of it. If a core could not, or the client has gone, it is released.
//!
//! To release one, the gateway asks all cores to leave it alone. When all have, its own task removes the directory.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_wire::message::{CheckpointAction, CheckpointReply, CheckpointShard, ErrorCode};
use ostrakon_wire::routing::ShardId;

use super::core::Core;
use super::gather::{Clocked, GatherKind};
use super::message::{Asker, CoreMessage, GatherId};
use super::reads::ReadKind;
use super::refusal::describe;
use crate::env::CoreId;
use crate::env::local::Notify;
use crate::limits::CHECKPOINTS_MAX;
use crate::shard::checkpoint::SealedShards;
use crate::shard::{Refusal, Ticket};
use crate::storage::store::checkpoint::checkpoint_directory;

/// What a core has linked of each of its shards.
pub type CheckpointPart = Vec<(ShardId, CheckpointShard)>;

/// Why there is no checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointRefusal {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// When to try again, in milliseconds; 0: no hint.
    pub retry_after_ms: u32,
}

impl CheckpointRefusal {
    /// The checkpoint has failed for this reason.
    pub(super) fn failed(message: impl Into<String>) -> CheckpointRefusal {
        CheckpointRefusal {
            code: ErrorCode::CheckpointFailed,
            message: message.into(),
            retry_after_ms: 0,
        }
    }
}

impl From<Refusal> for CheckpointRefusal {
    fn from(refusal: Refusal) -> CheckpointRefusal {
        // The timestamp was taken for this.
        if refusal == Refusal::SnapshotTooOld {
            return CheckpointRefusal::failed(
                "memtables were flushed so slowly that versions of the checkpoint's time may have been dropped \
                 meanwhile: try again when the node has less to do, or a faster disk",
            );
        }
        let (code, message, retry_after_ms) = describe(refusal);
        CheckpointRefusal {
            code,
            message: message.into_owned(),
            retry_after_ms,
        }
    }
}

/// What a core's task has to do.
pub(super) enum CheckpointJob {
    /// Link the tables of these shards, once they are flushed.
    Make {
        asker: Asker,
        id: u64,
        snapshot: Timestamp,
        sealed: SealedShards,
    },
    /// Say that nothing is done any more for checkpoints that were released before.
    Leave(Asker),
    /// Remove a checkpoint that all cores have left alone, and answer.
    Remove {
        ticket: Ticket,
        id: u64,
        failure: Option<CheckpointRefusal>,
    },
}

/// The checkpoints of a core.
pub(super) struct Checkpoints {
    /// The data directory, as other processes of the machine name it.
    data: PathBuf,
    /// Made, or in the making, and not released.
    ids: BTreeSet<u64>,
    pub(super) jobs: VecDeque<CheckpointJob>,
    /// Raised when there is a job, or the one under way may go on.
    pub(super) work: Rc<Notify>,
}

impl Checkpoints {
    /// None.
    pub(super) fn new(data: PathBuf) -> Checkpoints {
        Checkpoints {
            data,
            ids: BTreeSet::new(),
            jobs: VecDeque::new(),
            work: Rc::default(),
        }
    }

    /// Is it made or in the making, and not released?
    pub(super) fn has(&self, id: u64) -> bool {
        self.ids.contains(&id)
    }

    /// How many are made or in the making, and not released?
    pub(super) fn count(&self) -> usize {
        self.ids.len()
    }

    /// Forgets one that came to nothing.
    pub(super) fn forget(&mut self, id: u64) {
        self.ids.remove(&id);
    }

    fn push(&mut self, job: CheckpointJob) {
        self.jobs.push_back(job);
        self.work.notify();
    }

    /// Counts one more.
    fn begin(&mut self, id: u64) -> Result<(), CheckpointRefusal> {
        if self.ids.len() >= CHECKPOINTS_MAX {
            return Err(CheckpointRefusal::failed(format!(
                "the node has {CHECKPOINTS_MAX} checkpoints already, and that is the most: release one, or restart the \
                 node, which removes them all"
            )));
        }
        if !self.ids.insert(id) {
            return Err(CheckpointRefusal::failed(format!(
                "there is a checkpoint {id:016x} already: draw another random number"
            )));
        }
        Ok(())
    }
}

impl Core {
    /// Begins a client's checkpoint, or its end.
    pub(super) fn ask_checkpoint(&mut self, ticket: Ticket, action: CheckpointAction, id: u64) {
        if self.gathers.count(GatherKind::is_of_checkpoint) >= CHECKPOINTS_MAX {
            return self.refuse(ticket, Refusal::Busy);
        }
        match action {
            CheckpointAction::Release => self.release_checkpoint(ticket, id, None),
            // Before others are asked: what they have is not to be released when this is refused.
            CheckpointAction::Make if self.checkpoints.has(id) => {
                let refusal = self.checkpoints.begin(id).expect_err("it is there");
                self.refuse_checkpoint(ticket, &refusal);
            }
            CheckpointAction::Make => self.ask_clocks(ticket, Clocked::Checkpoint(id)),
        }
    }

    /// The timestamp is known: asks all cores.
    pub(super) fn checkpoint_at(&mut self, ticket: Ticket, id: u64, snapshot: Timestamp) {
        let kind = GatherKind::Checkpoint {
            id,
            snapshot,
            parts: CheckpointPart::new(),
            refusal: None,
        };
        let gather = self.gathers.add(ticket, usize::from(self.env.cores), kind);
        self.ask_others(|| CoreMessage::AskCheckpoint(gather, id, snapshot));
        self.begin_checkpoint(self.id(), gather, id, snapshot);
    }

    /// Begins this core's part.
    pub(super) fn begin_checkpoint(&mut self, from: CoreId, gather: GatherId, id: u64, snapshot: Timestamp) {
        let asker = Asker { core: from, gather };
        if let Err(refusal) = self.checkpoints.begin(id) {
            return self.deliver_checkpoint(asker, Err(refusal));
        }
        let read = self.next_read();
        match self.host.prepare_scan(snapshot, read) {
            Ok(waiting) => {
                let kind = ReadKind::Checkpoint { asker, id, snapshot };
                self.answers.wait(read, kind, waiting);
            }
            Err(refusal) => {
                self.checkpoints.forget(id);
                self.deliver_checkpoint(asker, Err(refusal.into()));
            }
        }
    }

    /// All shards of this core are readable at the timestamp.
    pub(super) fn seal_for_checkpoint(&mut self, asker: Asker, id: u64, snapshot: Timestamp) {
        match self.host.seal_at(snapshot) {
            Ok(sealed) => self.checkpoints.push(CheckpointJob::Make {
                asker,
                id,
                snapshot,
                sealed,
            }),
            Err(refusal) => {
                self.checkpoints.forget(id);
                self.deliver_checkpoint(asker, Err(refusal.into()));
            }
        }
    }

    pub(super) fn deliver_checkpoint(
        &mut self,
        asker: Asker,
        part: Result<CheckpointPart, CheckpointRefusal>,
    ) {
        if asker.core == self.id() {
            return self.checkpoint_heard(asker.gather, part);
        }
        let message = CoreMessage::Checkpoint(asker.gather, Box::new(part));
        self.answers.outboxes[asker.core.index()].push(message);
    }

    /// A core has linked its tables, or can't.
    pub(super) fn checkpoint_heard(&mut self, id: GatherId, part: Result<CheckpointPart, CheckpointRefusal>) {
        let heard = self.gathers.heard(id, |gather| {
            if let GatherKind::Checkpoint { parts, refusal, .. } = &mut gather.kind {
                match part {
                    Ok(part) => parts.extend(part),
                    Err(reason) => *refusal = Some(reason),
                }
            }
        });
        let Some(gather) = heard else { return };
        let GatherKind::Checkpoint {
            id,
            snapshot,
            mut parts,
            refusal,
        } = gather.kind
        else {
            return;
        };
        let is_gone = self.answers.connections.get(gather.ticket.connection).is_none();
        let gone = is_gone.then(|| CheckpointRefusal::failed("the connection that asked for it has ended"));
        if let Some(refusal) = refusal.or(gone) {
            return self.release_checkpoint(gather.ticket, id, Some(refusal));
        }
        parts.sort_by_key(|(shard, _)| *shard);
        let directory = checkpoint_directory(&self.checkpoints.data, id);
        let reply = CheckpointReply {
            id,
            snapshot: snapshot.0,
            directory: &directory.to_string_lossy(),
            node_id: self.identity.node,
            cluster_id: self.cluster_id(),
            shards: parts.into_iter().map(|(_, extent)| extent).collect(),
        };
        self.answer_checkpoint(gather.ticket, &reply);
    }

    /// Releases a checkpoint that was asked to be, or that has failed.
    fn release_checkpoint(&mut self, ticket: Ticket, id: u64, failure: Option<CheckpointRefusal>) {
        let kind = GatherKind::Release { id, failure };
        let gather = self.gathers.add(ticket, usize::from(self.env.cores), kind);
        self.ask_others(|| CoreMessage::AskRelease(gather, id));
        self.begin_release(self.id(), gather, id);
    }

    /// Leaves a checkpoint alone: what is under way for it is given up.
    pub(super) fn begin_release(&mut self, from: CoreId, gather: GatherId, id: u64) {
        self.checkpoints.forget(id);
        self.checkpoints
            .push(CheckpointJob::Leave(Asker { core: from, gather }));
    }

    /// This core does nothing any more for a checkpoint that was released.
    pub(super) fn deliver_released(&mut self, asker: Asker) {
        if asker.core == self.id() {
            self.released_heard(asker.gather);
        } else {
            self.answers.outboxes[asker.core.index()].push(CoreMessage::Released(asker.gather));
        }
    }

    /// A core has left a checkpoint alone.
    pub(super) fn released_heard(&mut self, id: GatherId) {
        let Some(gather) = self.gathers.heard(id, |_| {}) else {
            return;
        };
        if let GatherKind::Release { id, failure } = gather.kind {
            let ticket = gather.ticket;
            self.checkpoints
                .push(CheckpointJob::Remove { ticket, id, failure });
        }
    }

    /// Answers for a checkpoint whose directory was removed, or could not be.
    pub(super) fn checkpoint_removed(
        &mut self,
        ticket: Ticket,
        id: u64,
        outcome: Result<(), CheckpointRefusal>,
    ) {
        if let Err(refusal) = outcome {
            return self.refuse_checkpoint(ticket, &refusal);
        }
        let reply = CheckpointReply {
            id,
            snapshot: 0,
            directory: "",
            node_id: self.identity.node,
            cluster_id: self.cluster_id(),
            shards: Vec::new(),
        };
        self.answer_checkpoint(ticket, &reply);
    }

    fn answer_checkpoint(&mut self, ticket: Ticket, reply: &CheckpointReply<'_>) {
        let ticket = self.gathered(ticket);
        let timestamp = self.host.hlc().peek().0;
        self.answers().answer(ticket, |encoder, out| {
            encoder.checkpoint_reply(out, ticket.request_id, timestamp, reply);
        });
    }

    fn refuse_checkpoint(&mut self, ticket: Ticket, refusal: &CheckpointRefusal) {
        let ticket = self.gathered(ticket);
        let CheckpointRefusal {
            code,
            message,
            retry_after_ms,
        } = refusal;
        self.answers().error(ticket, *code, message, *retry_after_ms);
    }
}
