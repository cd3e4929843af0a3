//! The retry table of one shard: a write that arrives again is answered again, and executed once.
//!
//! A client numbers its writes within a session that it has named itself; nothing opens or closes one. With each
//! write it says below which sequence it needs no answers any more, and when it sent the write first ([`Retry`]).
//! Around each write the shard does this:
//!
//! 1. It refuses a `first_sent` that is further ahead than its clock allows. This table does not know the clock,
//!    and a session lives until the horizon has passed its newest `first_sent`.
//! 2. [`Sessions::look_up`] says what to do. [`Lookup::New`] holds for the moment only: a write that has to wait
//!    is looked up again before it is proposed.
//! 3. The leader decides, proposes an entry with the retry and the decision, and steps [`Sessions::proposed`]
//!    in the same breath. A decided failure is an entry too.
//! 4. Whoever applies the entry (leader, follower, replay) steps [`Sessions::apply`], in the order of the log.
//! 5. Applying a horizon steps [`Sessions::advance_horizon`]. Leadership lost: [`Sessions::forget_in_flight`].
//! 6. A flush of the shard stores what [`Sessions::take_changes`] and [`Sessions::encode_progress`] give; a restart
//!    goes on from there with [`Sessions::restore`] and the entries behind the flushed one.
//!
//! A leader asks nothing here before it has applied an entry of its own term: until then the log may hold writes
//! that are neither in flight, since another leader proposed them, nor applied.
//!
//! Invariants:
//! - **Replicated.** What is remembered, the horizon and the place of the sweep depend on the applied entries and on
//!   nothing else: not on what was looked up or proposed, nor on what is in flight.
//! - **No write is new twice.** Executed, it is in flight, then remembered, and forgotten only when it can be refused
//!   for good: for a report at or above the sequence, while the session is held; for the horizon, afterwards.
//! - **What a dropped session knew, the horizon knows.** A session goes when its newest `first_sent` is below the
//!   horizon. `first_sent` does not fall with the sequence, and a report covers only sequences below that of the
//!   write that brings it; so all that was applied or reported was first sent below the horizon as well.
//! - **A report counts from its proposal on.** Entries behind it in the log are never of sequences that it covers. It
//!   goes with its proposal if a new leader's log lacks it; the answers that the client received are then still held.
//! - **Bounded.** A session holds at most [`WINDOW`] answers, and those of its proposals in flight beyond. A call
//!   drops the answers that one report covers, and a fixed amount of sessions.
//!
//! A client that breaks its part of the rules hurts only its own session, and trips no assertion.
//!
//! The idea is that of Ongaro, "Consensus: Bridging Theory and Practice", 2014, section 6.3, but for sessions that
//! need no opening, more than one write of a client at a time, and an expiry by the log's own horizon.

mod by_sequence;
mod changes;
mod record;
mod session;
mod state;
#[cfg(test)]
mod tests;

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;

pub use record::{Answer, FAILURE_BYTES, Failure, Numbers, RETRY_BYTES, Retry, Sequence, SessionId};
pub use state::PROGRESS_BYTES;

use crate::hlc::Timestamp;
use crate::raft::LogIndex;
use by_sequence::BySequence;
use changes::Changes;
use session::{Held, Session, numbers_bytes};

/// How many sequences of a session may be without a report at a time, answered or not.
pub const WINDOW: u64 = 8192;

/// Sessions that a new horizon examines at once.
const EXAMINED_PER_HORIZON: usize = 256;

/// Sessions that each applied write examines. More than the one that it may add, so that a round ends.
const EXAMINED_PER_APPLY: usize = 4;

/// So many dropped answers count as one more session examined.
const ANSWERS_PER_EXAMINED: usize = 64;

/// A node of the standard library's B-tree: eleven places, and the edges and the head of an inner node.
const TREE_NODE_BYTES: usize =
    11 * size_of::<(SessionId, Session)>() + 14 * size_of::<usize>() + by_sequence::ALLOCATION_EXTRA_BYTES;

/// Entries that each node of the tree has at least, except for the root.
const TREE_NODE_ENTRIES_MIN: usize = 5;

/// Upper bound of what a session takes besides its answers and proposals.
const SESSION_BYTES: usize = TREE_NODE_BYTES.div_ceil(TREE_NODE_ENTRIES_MIN)
    + BySequence::<Answer>::bytes_when_empty()
    + BySequence::<LogIndex>::bytes_when_empty();

const ANSWER_BYTES: usize = BySequence::<Answer>::bytes_per_value();
const IN_FLIGHT_BYTES: usize = BySequence::<LogIndex>::bytes_per_value();

/// To drop a session takes no memory: the note of it is smaller than its answers, of which there is one at least.
const _: () = assert!(Changes::BYTES_PER_NOTE <= ANSWER_BYTES);

/// An answer with its sequence: five words, of which there are most.
const _: () = assert!(size_of::<(Sequence, Answer)>() == 40);

/// What to do with a write that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// Decide it, now. It has never been executed.
    New,
    /// It is decided: answer this.
    Answered(&'a Answer),
    /// It is in the log under this index. Once that is applied, look it up again.
    InFlight(LogIndex),
    /// It may have been executed, and never will be from now on: it was first sent below the horizon, or the client
    /// has reported its answer as received.
    OutcomeUnknown,
    /// Too many sequences since the last report. Nothing was executed; it may be sent again with a higher report.
    WindowExceeded,
    /// It reports the answer of itself, or of a later one, as received.
    BadRequest,
}

/// The retry table of one shard.
#[derive(Debug, Default)]
pub struct Sessions {
    /// Never falls.
    horizon: Timestamp,
    /// The session that the sweep examines next, or the one after; `None` between two rounds. Replicated.
    sweep_from: Option<SessionId>,
    /// A tree, since clients choose the keys: there is no bad choice, and no moment when all of it moves.
    by_id: BTreeMap<SessionId, Session>,
    held: Held,
    /// Sessions whose remembered part changed since the changes were last taken. Not replicated.
    changes: Changes,
}

impl Sessions {
    /// The table of a shard whose log is empty.
    pub fn new() -> Sessions {
        Sessions::default()
    }

    /// What to do with this write. See the head for when to ask.
    pub fn look_up(&self, retry: &Retry) -> Lookup<'_> {
        if retry.is_malformed() {
            return Lookup::BadRequest;
        }
        // The own report is not above the own sequence; it matters for the window alone.
        let mut answered_below = retry.answered_below;
        if let Some(session) = self.by_id.get(&retry.session) {
            // What is known is answered, even if the client or the horizon has given it up in the meantime.
            if let Some(index) = session.in_flight.index(retry.sequence) {
                return Lookup::InFlight(index);
            }
            if let Some(answer) = session.answer(retry.sequence) {
                return Lookup::Answered(answer);
            }
            if retry.sequence < session.answered_below() {
                return Lookup::OutcomeUnknown;
            }
            answered_below = answered_below.max(session.answered_below());
        }
        if retry.first_sent < self.horizon {
            return Lookup::OutcomeUnknown;
        }
        if retry.sequence.0 - answered_below.0 >= WINDOW {
            return Lookup::WindowExceeded;
        }
        Lookup::New
    }

    /// The leader has proposed, under this index, the entry that decides a write which is [`Lookup::New`].
    /// Panics if it is not: then it would be executed twice.
    pub fn proposed(&mut self, retry: &Retry, index: LogIndex) {
        assert!(
            !retry.is_malformed() && retry.first_sent >= self.horizon,
            "proposed what was to be refused, horizon {}: {retry:?}",
            self.horizon
        );
        let session = self.by_id.entry(retry.session).or_default();
        session.propose(retry, index);
        self.held.in_flight += 1;
    }

    /// The entry that decided this write is applied. On return its answer is remembered.
    /// Panics if the answer was remembered or given up before: then the log has the write twice.
    pub fn apply(&mut self, retry: &Retry, answer: Answer) {
        assert!(
            !retry.is_malformed(),
            "the log holds a malformed retry: {retry:?}"
        );
        // Before the answer is added, since it may be below the horizon by now.
        self.sweep(EXAMINED_PER_APPLY);
        let session = self.by_id.entry(retry.session).or_default();
        if session.in_flight.remove(retry.sequence) {
            self.held.in_flight -= 1;
        }
        let remembered = session.remembered.get_or_insert_with(|| {
            self.held.sessions += 1;
            session::Remembered::default()
        });
        remembered.apply(retry, answer, &mut self.held);
        self.changes.note(retry.session, session);
    }

    /// A horizon is applied: writes first sent below it that are not remembered are refused from now on, and sessions
    /// that it has passed are dropped little by little. One that is not above the present one changes nothing.
    pub fn advance_horizon(&mut self, horizon: Timestamp) {
        if horizon > self.horizon {
            self.horizon = horizon;
            // A round under way goes on, with the new horizon; what it has behind it waits for the next.
            self.sweep_from = self.sweep_from.or(Some(SessionId(0)));
            self.sweep(EXAMINED_PER_HORIZON);
        }
    }

    /// This replica leads no longer: what it proposed may be applied or vanish. Walks through all sessions.
    pub fn forget_in_flight(&mut self) {
        self.by_id.retain(|_, session| {
            session.in_flight = session::InFlight::default();
            session.remembered.is_some()
        });
        self.held.in_flight = 0;
    }

    /// Writes first sent below are not executed any more.
    pub fn horizon(&self) -> Timestamp {
        self.horizon
    }

    /// Sessions with remembered state.
    pub fn session_count(&self) -> usize {
        self.held.sessions
    }

    /// Answers remembered.
    pub fn answer_count(&self) -> usize {
        self.held.answers
    }

    /// Writes proposed and not applied.
    pub fn in_flight_count(&self) -> usize {
        self.held.in_flight
    }

    /// Upper bound of the memory in use.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Sessions>()
            + TREE_NODE_BYTES
            + self.by_id.len() * SESSION_BYTES
            + self.held.answers * ANSWER_BYTES
            + self.held.numbers_bytes
            + self.held.in_flight * IN_FLIGHT_BYTES
            + Changes::BYTES_WHEN_EMPTY
            + self.changes.note_count() * Changes::BYTES_PER_NOTE
    }

    /// Upper bound of what proposing and applying one more write adds to [`Sessions::memory_bytes`], if its answer
    /// has so many numbers.
    pub const fn cost_bytes(numbers: usize) -> usize {
        SESSION_BYTES + IN_FLIGHT_BYTES + ANSWER_BYTES + numbers_bytes(numbers) + Changes::BYTES_PER_NOTE
    }

    /// Examines so many sessions of the round under way, fewer if they hold many answers, and drops those that the
    /// horizon has passed.
    fn sweep(&mut self, examined_max: usize) {
        let mut left = examined_max;
        while let Some(passed) = self.next_passed(&mut left) {
            let Entry::Occupied(mut entry) = self.by_id.entry(passed) else {
                unreachable!("it was just found");
            };
            let session = entry.get_mut();
            let remembered = session.remembered.take().expect("it was just found");
            self.changes.note(passed, session);
            left = left.saturating_sub(remembered.uncount(&mut self.held) / ANSWERS_PER_EXAMINED);
            if entry.get().in_flight.is_empty() {
                entry.remove();
            }
        }
    }

    /// Moves the sweep to behind the next session that the horizon has passed. Sessions that have only proposals are
    /// not seen: followers do not have them.
    fn next_passed(&mut self, left: &mut usize) -> Option<SessionId> {
        let mut ahead = self.by_id.range(self.sweep_from?..);
        while *left > 0 {
            let Some((id, session)) = ahead.next() else {
                self.sweep_from = None;
                return None;
            };
            let Some(remembered) = &session.remembered else {
                continue;
            };
            *left -= 1;
            self.sweep_from = id.0.checked_add(1).map(SessionId);
            if remembered.newest_first_sent < self.horizon {
                return Some(*id);
            }
        }
        None
    }
}
