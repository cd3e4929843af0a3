//! A shard replica that recovery is filling from its log, and what an entry does to a shard's state.

use ostrakon_core::hlc::{Hlc, Timestamp};
use ostrakon_core::raft::{EntryId, HardState, Input, Outputs, Raft, ReplicaId};
use ostrakon_core::sessions::{Answer, Numbers, Sessions};
use ostrakon_wire::routing::ShardId;

use super::command::{Body, Change, Command, parse_number};
use super::host::memtable_hash;
use super::replica::ShardReplica;
use crate::log::format::{OwnershipEpoch, ShardState};
use crate::storage::memtable::{Memtable, Mutation};

/// The state that the entries of a shard's log make, the same for every replica and every replay.
pub(super) struct Applied {
    pub(super) memtable: Memtable,
    pub(super) sessions: Sessions,
    /// The highest ceiling: no leader's clock will ever be below it.
    pub(super) ceiling: Timestamp,
}

impl Applied {
    fn new() -> Applied {
        Applied {
            memtable: Memtable::new(),
            sessions: Sessions::new(),
            ceiling: Timestamp::ZERO,
        }
    }

    /// What it takes of the memory budget.
    pub(super) fn memory_bytes(&self) -> usize {
        self.memtable.memory_bytes() + self.sessions.memory_bytes()
    }

    /// Applies an entry of the log as it was read.
    fn apply(&mut self, command: &Command<'_>) {
        let version = command.timestamp;
        let mut numbers = Vec::new();
        let answer = match command.body {
            Body::Ceiling { horizon } => {
                return self.advance_ceiling(command.timestamp, horizon);
            }
            Body::Failure(failure) => Answer::Failed(failure),
            Body::Write { key, change } => {
                self.change(memtable_hash(key), key, version, &change, &mut numbers);
                applied(version, &numbers)
            }
            Body::Batch(operations) => {
                for (key, change) in operations.iter() {
                    self.change(memtable_hash(key), key, version, &change, &mut numbers);
                }
                let version = if operations.is_empty() {
                    Timestamp::ZERO
                } else {
                    version
                };
                applied(version, &numbers)
            }
        };
        if let Some(retry) = &command.retry {
            self.sessions.apply(retry, answer);
        }
    }

    pub(super) fn advance_ceiling(&mut self, ceiling: Timestamp, horizon: Timestamp) {
        self.ceiling = self.ceiling.max(ceiling);
        self.sessions.advance_horizon(horizon);
    }

    /// Changes one key; a sum goes to `numbers`.
    pub(super) fn change(
        &mut self,
        hash: u64,
        key: &[u8],
        version: Timestamp,
        change: &Change<'_>,
        numbers: &mut Vec<i64>,
    ) {
        let mutation = match *change {
            Change::Put {
                value,
                expiry,
                is_sum,
            } => {
                if is_sum {
                    numbers.push(parse_number(value).expect("a sum is a number"));
                }
                Mutation::Put { value, expiry }
            }
            Change::Delete => Mutation::Tombstone,
        };
        self.memtable.insert(hash, key, version, mutation);
    }
}

/// The answer to a write that was applied.
pub(super) fn applied(version: Timestamp, numbers: &[i64]) -> Answer {
    Answer::Applied {
        version,
        numbers: Numbers::new(numbers),
    }
}

/// A shard replica that recovery is filling.
pub struct Recovering {
    shard: ShardId,
    base: EntryId,
    last: EntryId,
    applied: Applied,
}

impl Recovering {
    /// A shard whose log starts after `base`.
    pub fn new(shard: ShardId, base: EntryId) -> Recovering {
        Recovering {
            shard,
            base,
            last: base,
            applied: Applied::new(),
        }
    }

    /// The newest entry so far.
    pub fn last(&self) -> EntryId {
        self.last
    }

    /// Applies the next entry of the shard's log.
    ///
    /// # Errors
    /// A sentence, when the entry does not follow the one before or does not parse.
    pub fn replay(&mut self, entry: EntryId, payload: &[u8]) -> Result<(), String> {
        if entry.index != self.last.index.next() || entry.term < self.last.term {
            return Err(format!(
                "shard {}: expected entry {} of term {} or later, found entry {} of term {}",
                self.shard.0,
                self.last.index.0 + 1,
                self.last.term.0,
                entry.index.0,
                entry.term.0
            ));
        }
        let command = Command::decode(payload)
            .ok_or_else(|| format!("shard {}: entry {} does not parse", self.shard.0, entry.index.0))?;
        self.applied.apply(&command);
        self.last = entry;
        Ok(())
    }

    /// The replica, about to campaign: its hard state (the returned one) must be durable before
    /// [`ShardReplica::hard_state_durable`]. The core's clock moves above everything in the shard.
    pub fn finish(
        self,
        replica: ReplicaId,
        epoch: OwnershipEpoch,
        hard_state: HardState,
        hlc: &mut Hlc,
    ) -> (ShardReplica, ShardState) {
        hlc.observe(self.applied.ceiling);
        let mut raft = Raft::recovered(replica, hard_state, self.last, self.last.index);
        let mut outputs = Outputs::default();
        raft.step(Input::Campaign, &mut outputs)
            .expect("a campaign is always accepted");
        let hard_state = outputs.hard_state.expect("a campaign has a hard state");
        let replica = ShardReplica::new(self.shard, epoch, raft, self.applied);
        let state = ShardState {
            hard_state,
            base: self.base,
            complete: true,
        };
        (replica, state)
    }
}
