//! The replicated state of a retry table as bytes: a flush stores it, and a restart builds the table from it.
//!
//! 1. A flush takes [`Sessions::take_changes`] and [`Sessions::encode_progress`] with no entry applied in between.
//!    What all flushes have stored, the newest of each session and the newest progress, is then the state after the
//!    last entry applied.
//! 2. A restart steps [`Sessions::restore`] with the progress, and [`Sessions::restore_session`] with each session.
//!    Then it applies the entries of the log behind that entry, and none before.
//!
//! What is in flight is not stored: it is applied from the log, or lost with it.
//!
//! Little-endian. The table around them brings the checksum and the version of the format.
//!
//! ```text
//! Session                                       Answer
//!  0      answered_below     u64                 0      sequence  u64
//!  8      newest_first_sent  u64                 8      kind      u8   1 applied, 2 failed
//! 16      answers            u32  at least 1     9..12  zero
//! 20..24  zero                                  12      numbers   u32  zero unless kind is 1
//! 24      each answer, by ascending sequence    16      kind 1: version u64, each number i64
//!                                                       kind 2: failure, 16 bytes as in an entry
//! Progress
//!  0      horizon            u64
//!  8      sweep_from         u128  zero unless a round is under way
//! 24      round              u8    1 if a round of the sweep is under way, else 0
//! 25..32  zero
//! 32
//! ```
//!
//! No answer is below `answered_below`. A state has one encoding; all other bytes are refused.

use alloc::collections::btree_map::Entry;
use alloc::vec::Vec;

use super::by_sequence::BySequence;
use super::session::{Remembered, Session};
use super::{Answer, FAILURE_BYTES, Failure, Numbers, Sequence, SessionId, Sessions};
use crate::hlc::Timestamp;

/// Bytes of an encoded progress: the horizon, and the place of the sweep.
pub const PROGRESS_BYTES: usize = 32;

/// Bytes of the smallest answer: applied, without numbers.
const STORED_ANSWER_BYTES_MIN: usize = 24;

const APPLIED: u8 = 1;
const FAILED: u8 = 2;

impl Sessions {
    /// Shows each session whose replicated state changed since the last call, or since the table was made, once and
    /// in the order of ids: with the bytes of its state, or `None` if it is not remembered any more. Sessions that
    /// came and went in between are among the latter.
    ///
    /// The changes are the caller's from then on; the table does not show them again. Takes O(n log n) steps for n
    /// changed sessions and the bytes of their states, and besides the ids one buffer for the largest state.
    pub fn take_changes(&mut self, mut visit: impl FnMut(SessionId, Option<&[u8]>)) {
        let mut bytes = Vec::new();
        for id in self.changes.take() {
            let remembered = self.by_id.get_mut(&id).and_then(|session| {
                session.is_noted = false;
                session.remembered.as_ref()
            });
            let Some(remembered) = remembered else {
                visit(id, None);
                continue;
            };
            bytes.clear();
            remembered.encode_into(&mut bytes);
            visit(id, Some(&bytes));
        }
    }

    /// The bytes of the replicated state that is not in the sessions.
    pub fn encode_progress(&self) -> [u8; PROGRESS_BYTES] {
        let mut bytes = [0; PROGRESS_BYTES];
        bytes[..8].copy_from_slice(&self.horizon.0.to_le_bytes());
        if let Some(next) = self.sweep_from {
            bytes[8..24].copy_from_slice(&next.0.to_le_bytes());
            bytes[24] = 1;
        }
        bytes
    }

    /// A table with this progress and no sessions; `None` if the bytes are not those of a progress.
    pub fn restore(progress: &[u8]) -> Option<Sessions> {
        let mut rest = progress;
        let horizon = Timestamp(u64::from_le_bytes(take(&mut rest)?));
        let next = SessionId(u128::from_le_bytes(take(&mut rest)?));
        let sweep_from = match (take(&mut rest)?, next) {
            ([0, 0, 0, 0, 0, 0, 0, 0], SessionId(0)) => None,
            ([1, 0, 0, 0, 0, 0, 0, 0], next) => Some(next),
            _ => return None,
        };
        rest.is_empty().then(|| Sessions {
            horizon,
            sweep_from,
            ..Sessions::default()
        })
    }

    /// Adds a session with the state that these bytes hold, before any entry is applied. It does not count as changed.
    /// False, and nothing is changed, if the bytes are not those of a session, or if the table has the session.
    #[must_use]
    pub fn restore_session(&mut self, id: SessionId, bytes: &[u8]) -> bool {
        let Entry::Vacant(place) = self.by_id.entry(id) else {
            return false;
        };
        let Some(remembered) = Remembered::decode(bytes) else {
            return false;
        };
        remembered.count(&mut self.held);
        place.insert(Session {
            remembered: Some(remembered),
            ..Session::default()
        });
        true
    }
}

impl Remembered {
    fn encode_into(&self, bytes: &mut Vec<u8>) {
        let answers = u32::try_from(self.answers().len()).expect("the window bounds them");
        bytes.extend_from_slice(&self.answered_below().0.to_le_bytes());
        bytes.extend_from_slice(&self.newest_first_sent.0.to_le_bytes());
        bytes.extend_from_slice(&answers.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        for (sequence, answer) in self.answers().iter() {
            encode_answer(sequence, answer, bytes);
        }
    }

    fn decode(bytes: &[u8]) -> Option<Remembered> {
        let mut rest = bytes;
        let answered_below = Sequence(u64::from_le_bytes(take(&mut rest)?));
        let newest_first_sent = Timestamp(u64::from_le_bytes(take(&mut rest)?));
        let count = u32::from_le_bytes(take(&mut rest)?) as usize;
        // Room is made only for what the bytes can hold.
        if take(&mut rest)? != [0; 4] || count > rest.len() / STORED_ANSWER_BYTES_MIN {
            return None;
        }
        let mut answers = BySequence::with_room(count);
        for _ in 0..count {
            let (sequence, answer) = decode_answer(&mut rest)?;
            if !answers.append(sequence, answer) {
                return None;
            }
        }
        if !rest.is_empty() {
            return None;
        }
        Remembered::restored(answered_below, newest_first_sent, answers)
    }
}

fn encode_answer(sequence: Sequence, answer: &Answer, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&sequence.0.to_le_bytes());
    match answer {
        Answer::Applied { version, numbers } => {
            let numbers = numbers.as_slice();
            let count = u32::try_from(numbers.len()).expect("a request bounds them");
            bytes.extend_from_slice(&[APPLIED, 0, 0, 0]);
            bytes.extend_from_slice(&count.to_le_bytes());
            bytes.extend_from_slice(&version.0.to_le_bytes());
            for number in numbers {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        Answer::Failed(failure) => {
            bytes.extend_from_slice(&[FAILED, 0, 0, 0, 0, 0, 0, 0]);
            bytes.extend_from_slice(&failure.encode());
        }
    }
}

/// The answer that these bytes begin with; they are then those behind it.
fn decode_answer(bytes: &mut &[u8]) -> Option<(Sequence, Answer)> {
    let sequence = Sequence(u64::from_le_bytes(take(bytes)?));
    let [kind, 0, 0, 0] = take(bytes)? else {
        return None;
    };
    let count = u32::from_le_bytes(take(bytes)?);
    let answer = match (kind, count) {
        (APPLIED, count) => {
            let version = Timestamp(u64::from_le_bytes(take(bytes)?));
            let numbers = bytes.split_off(..(count as usize).checked_mul(size_of::<i64>())?)?;
            let (numbers, _) = numbers.as_chunks();
            Answer::Applied {
                version,
                numbers: Numbers::from_le_bytes(numbers),
            }
        }
        (FAILED, 0) => Answer::Failed(Failure::decode(&take::<FAILURE_BYTES>(bytes)?)?),
        _ => return None,
    };
    Some((sequence, answer))
}

/// The first bytes of these, which are then the others.
fn take<const COUNT: usize>(bytes: &mut &[u8]) -> Option<[u8; COUNT]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}
