//! Raft (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", 2014) as a
//! synchronous state machine: [`Raft::step`] takes one [`Input`] and fills [`Outputs`].
//!
//! The group has one voter, this replica. The rules are those of the paper with a quorum of one: an entry
//! is raft-committed when the quorum has it durable *and* it is of the leader's own term (section 5.4.2).
//!
//! What the driver owes, in this order, after every step:
//! 1. Append [`Outputs::hard_state`] to the log, then the entries of [`Outputs::append`], all in index order.
//!    Payloads never pass through here: the driver keeps them next to the (term, index) it was given.
//! 2. When a hard state is durable, step [`Input::HardStateDurable`]; when entries are, step
//!    [`Input::LogDurable`]. Durable means on stable storage, not handed to the operating system.
//! 3. Apply entries up to [`Outputs::raft_committed`] in index order, then step [`Input::Applied`].
//! 4. Answer a client only from applied entries, and only while [`Raft::may_serve`] holds.
//!
//! Invariants:
//! - `applied <= raft_committed <= durable <= last`, and none of them ever falls.
//! - The term never falls, and there is one vote per term (section 5.2).

#[cfg(test)]
mod tests;

/// A Raft term. Zero: before any election.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

/// A position in a shard's Raft log. The first entry has index 1; zero is "before the log".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogIndex(pub u64);

impl LogIndex {
    /// The index after this one.
    pub fn next(self) -> LogIndex {
        LogIndex(self.0 + 1)
    }
}

/// A replica of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u64);

/// What must be durable before a replica acts on it (figure 2 of the paper: `currentTerm`, `votedFor`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The newest term this replica has seen.
    pub term: Term,
    /// Its vote in that term; replica 0 is "none".
    pub vote: ReplicaId,
}

/// The identity of an entry: a (term, index) pair names one payload for ever (Log Matching, section 5.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryId {
    /// Term of the leader that created it.
    pub term: Term,
    /// Its place in the log.
    pub index: LogIndex,
}

/// What happened outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Start an election: at node start for the only voter.
    Campaign,
    /// The hard state of this term is on stable storage.
    HardStateDurable {
        /// Its term.
        term: Term,
    },
    /// A client's command or one of the shard's own; its payload stays with the driver.
    Propose,
    /// Entries up to here are on stable storage.
    LogDurable {
        /// The last of them.
        through: LogIndex,
    },
    /// Entries up to here are applied to the state machine.
    Applied {
        /// The last of them.
        through: LogIndex,
    },
}

/// What the driver has to do. Filled by one step; the driver empties it by [`Outputs::clear`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outputs {
    /// Make this durable before anything else of this step.
    pub hard_state: Option<HardState>,
    /// The place of the entry just proposed: append it to the log.
    pub append: Option<EntryId>,
    /// Entries up to here may be applied.
    pub raft_committed: Option<LogIndex>,
    /// This replica has just become leader: propose an entry of the new term at once (section 8).
    pub became_leader: bool,
}

impl Outputs {
    /// Empties it for the next step.
    pub fn clear(&mut self) {
        *self = Outputs::default();
    }
}

/// Why a step was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepError {
    /// A proposal reached a replica that is not leader.
    NotLeader,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Follower,
    /// Waits for its own vote to be durable.
    Candidate,
    /// `first` is the index of the first entry of its own term.
    Leader {
        first: LogIndex,
    },
}

/// One replica's Raft state.
#[derive(Debug)]
#[expect(
    clippy::struct_field_names,
    reason = "`commit` never stands bare: it is a Raft commit or a transaction's"
)]
pub struct Raft {
    id: ReplicaId,
    hard_state: HardState,
    role: Role,
    last: EntryId,
    durable: LogIndex,
    raft_committed: LogIndex,
    applied: LogIndex,
}

impl Raft {
    /// A replica as recovery found it: everything in the log up to `last` is durable, and applied up to
    /// `applied` (what the recovered state machine holds).
    pub fn recovered(id: ReplicaId, hard_state: HardState, last: EntryId, applied: LogIndex) -> Raft {
        assert!(id.0 != 0, "replica 0 means no vote");
        assert!(last.term <= hard_state.term, "the log is ahead of the hard state");
        assert!(applied <= last.index, "applied more than the log holds");
        Raft {
            id,
            hard_state,
            role: Role::Follower,
            last,
            durable: last.index,
            raft_committed: applied,
            applied,
        }
    }

    /// Advances by one input. `outputs` must be empty.
    ///
    /// # Errors
    /// [`StepError::NotLeader`] for a proposal to a replica that does not lead.
    pub fn step(&mut self, input: Input, outputs: &mut Outputs) -> Result<(), StepError> {
        match input {
            Input::Campaign => self.campaign(outputs),
            Input::HardStateDurable { term } => self.hard_state_durable(term, outputs),
            Input::Propose => return self.propose(outputs),
            Input::LogDurable { through } => self.log_durable(through, outputs),
            Input::Applied { through } => self.applied_through(through),
        }
        Ok(())
    }

    /// True once this leader has applied an entry of its own term: only then does it know all that was
    /// raft-committed before it (section 8), and may answer.
    pub fn may_serve(&self) -> bool {
        matches!(self.role, Role::Leader { first } if self.applied >= first)
    }

    /// The hard state, durable or about to be.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The newest entry of the log.
    pub fn last(&self) -> EntryId {
        self.last
    }

    /// The newest applied index.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    fn campaign(&mut self, outputs: &mut Outputs) {
        self.role = Role::Candidate;
        self.hard_state = HardState {
            term: Term(self.hard_state.term.0 + 1),
            vote: self.id,
        };
        outputs.hard_state = Some(self.hard_state);
    }

    fn hard_state_durable(&mut self, term: Term, outputs: &mut Outputs) {
        // A vote counts once it is durable; with one voter it is the majority.
        if self.role == Role::Candidate && term == self.hard_state.term {
            self.role = Role::Leader {
                first: self.last.index.next(),
            };
            outputs.became_leader = true;
        }
    }

    fn propose(&mut self, outputs: &mut Outputs) -> Result<(), StepError> {
        if !matches!(self.role, Role::Leader { .. }) {
            return Err(StepError::NotLeader);
        }
        self.last = EntryId {
            term: self.hard_state.term,
            index: self.last.index.next(),
        };
        outputs.append = Some(self.last);
        Ok(())
    }

    fn log_durable(&mut self, through: LogIndex, outputs: &mut Outputs) {
        assert!(through <= self.last.index, "durable beyond the log's end");
        if through <= self.durable {
            return;
        }
        self.durable = through;
        // Section 5.4.2: only an entry of the leader's own term commits by counting, and what precedes it
        // commits with it.
        if let Role::Leader { first } = self.role
            && through >= first
            && through > self.raft_committed
        {
            self.raft_committed = through;
            outputs.raft_committed = Some(through);
        }
    }

    fn applied_through(&mut self, through: LogIndex) {
        assert!(
            through <= self.raft_committed,
            "applied an entry that is not raft-committed"
        );
        assert!(through >= self.applied, "applied goes back");
        self.applied = through;
    }
}
