//! One session: what is remembered of it, which is replicated, and what the leader has proposed, which is not.
//!
//! The two parts are kept apart, so that nothing in [`Remembered`] can come from [`InFlight`]: replicas without
//! proposals, and a replay, must end with the same [`Remembered`].

use super::by_sequence::{ALLOCATION_EXTRA_BYTES, BySequence};
use super::{Answer, Retry, Sequence};
use crate::hlc::Timestamp;
use crate::raft::LogIndex;

/// How much a table holds, counted along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Sessions with a remembered part.
    pub(super) sessions: usize,
    pub(super) answers: usize,
    /// Bytes that answers hold outside themselves.
    pub(super) numbers_bytes: usize,
    pub(super) in_flight: usize,
}

impl Held {
    fn add(&mut self, answer: &Answer) {
        self.answers += 1;
        self.numbers_bytes += numbers_bytes(answer.allocated_numbers());
    }

    fn subtract(&mut self, answer: &Answer) {
        self.answers -= 1;
        self.numbers_bytes -= numbers_bytes(answer.allocated_numbers());
    }
}

/// Bytes of an allocation of numbers; none if there are none.
pub(super) const fn numbers_bytes(allocated_numbers: usize) -> usize {
    if allocated_numbers == 0 {
        0
    } else {
        allocated_numbers * size_of::<i64>() + ALLOCATION_EXTRA_BYTES
    }
}

/// One session on one replica. Once neither part is left, it goes.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// `None` before the first entry is applied, and after the horizon has passed the session.
    pub(super) remembered: Option<Remembered>,
    pub(super) in_flight: InFlight,
    /// True if the table's [`Changes`](super::changes::Changes) hold its id. Stands beside what is remembered, since
    /// each replica stores that when it likes.
    pub(super) is_noted: bool,
}

impl Session {
    /// The highest report that is in the log, applied or not: below it nothing may be executed any more. To count
    /// only the applied ones would let a late duplicate into the log behind the very report that gives it up.
    pub(super) fn answered_below(&self) -> Sequence {
        let remembered = self
            .remembered
            .as_ref()
            .map(|remembered| remembered.answered_below);
        self.in_flight.answered_below.max(remembered.unwrap_or_default())
    }

    pub(super) fn answer(&self, sequence: Sequence) -> Option<&Answer> {
        self.remembered.as_ref()?.answers.get(sequence)
    }

    /// Notes a proposal of what is new here.
    pub(super) fn propose(&mut self, retry: &Retry, index: LogIndex) {
        assert!(
            retry.sequence >= self.answered_below(),
            "proposed what the client has given up: {retry:?}"
        );
        assert!(
            self.answer(retry.sequence).is_none(),
            "proposed what is answered already: {retry:?}"
        );
        self.in_flight.insert(retry, index);
    }
}

/// The replicated part: a function of the applied entries alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Remembered {
    /// The highest report applied. Never falls; no answer below it is kept, and none can be added.
    answered_below: Sequence,
    /// The newest first send applied. Every sequence up to the highest one applied, and every one that was
    /// reported, was first sent at or before it; so when the horizon has passed it, the horizon refuses them all.
    pub(super) newest_first_sent: Timestamp,
    /// Never empty once an entry is applied, since the newest report is at most the sequence that brought it.
    answers: BySequence<Answer>,
}

impl Remembered {
    /// Takes the report and the answer of an applied entry.
    pub(super) fn apply(&mut self, retry: &Retry, answer: Answer, held: &mut Held) {
        assert!(
            retry.sequence >= self.answered_below,
            "the log holds a write that its client had given up before: {retry:?}"
        );
        self.newest_first_sent = self.newest_first_sent.max(retry.first_sent);
        if retry.answered_below > self.answered_below {
            self.answered_below = retry.answered_below;
            self.answers
                .drop_below(self.answered_below, |answer| held.subtract(answer));
        }
        held.add(&answer);
        let is_first = self.answers.insert(retry.sequence, answer);
        assert!(is_first, "the log holds a write twice: {retry:?}");
    }

    /// What was remembered when it was stored. `None` if there are no answers, or some below the report: no entries
    /// lead to that.
    pub(super) fn restored(
        answered_below: Sequence,
        newest_first_sent: Timestamp,
        answers: BySequence<Answer>,
    ) -> Option<Remembered> {
        (answers.first()? >= answered_below).then_some(Remembered {
            answered_below,
            newest_first_sent,
            answers,
        })
    }

    pub(super) fn answered_below(&self) -> Sequence {
        self.answered_below
    }

    pub(super) fn answers(&self) -> &BySequence<Answer> {
        &self.answers
    }

    /// Adds all of it to the counts.
    pub(super) fn count(&self, held: &mut Held) {
        held.sessions += 1;
        for answer in self.answers.values() {
            held.add(answer);
        }
    }

    /// Takes all of it out of the counts; how many answers it holds.
    pub(super) fn uncount(&self, held: &mut Held) -> usize {
        held.sessions -= 1;
        for answer in self.answers.values() {
            held.subtract(answer);
        }
        self.answers.len()
    }
}

/// The leader's part: proposals that are not applied yet.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    /// The highest report among the proposals, zero without any.
    answered_below: Sequence,
    proposals: BySequence<LogIndex>,
}

impl InFlight {
    pub(super) fn is_empty(&self) -> bool {
        self.proposals.is_empty()
    }

    pub(super) fn index(&self, sequence: Sequence) -> Option<LogIndex> {
        self.proposals.get(sequence).copied()
    }

    fn insert(&mut self, retry: &Retry, index: LogIndex) {
        self.answered_below = self.answered_below.max(retry.answered_below);
        let is_first = self.proposals.insert(retry.sequence, index);
        assert!(is_first, "proposed what is in flight already: {retry:?}");
    }

    /// Removes what is applied; whether it was there. The reports of the others stay: they may exceed the
    /// applied one.
    pub(super) fn remove(&mut self, sequence: Sequence) -> bool {
        let was_there = self.proposals.remove(sequence).is_some();
        if self.proposals.is_empty() {
            self.answered_below = Sequence::default();
        }
        was_there
    }
}
