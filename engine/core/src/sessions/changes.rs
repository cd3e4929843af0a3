//! Which sessions have changed since they were last taken to be stored.
//!
//! A session is noted at its first change; further ones cost a look at its flag. The note of a session outlives it:
//! what was stored of it has to go as well. A session that was dropped and came again may be noted more than once.
//!
//! Invariant: a session of the table has its flag set if and only if its id is noted.

use alloc::vec::Vec;
use core::mem;

use super::SessionId;
use super::by_sequence::ALLOCATION_EXTRA_BYTES;
use super::session::Session;

/// Notes for which the first one makes room. From there on the room doubles.
const ROOM_MIN: usize = 4;

/// Ids in the order of the changes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    noted: Vec<SessionId>,
}

impl Changes {
    /// Upper bound of what each note adds to the memory in use.
    pub(super) const BYTES_PER_NOTE: usize = 2 * size_of::<SessionId>();

    /// Upper bound of the memory in use without any note.
    pub(super) const BYTES_WHEN_EMPTY: usize = ROOM_MIN * size_of::<SessionId>() + ALLOCATION_EXTRA_BYTES;

    pub(super) fn note_count(&self) -> usize {
        self.noted.len()
    }

    /// The remembered part of this session has changed, or was dropped.
    pub(super) fn note(&mut self, id: SessionId, session: &mut Session) {
        if !session.is_noted {
            session.is_noted = true;
            if self.noted.len() == self.noted.capacity() {
                self.noted.reserve_exact(self.noted.len().max(ROOM_MIN));
            }
            self.noted.push(id);
        }
    }

    /// Takes the ids that were noted, each once, in ascending order, with all the room they had. The flags of
    /// those that are sessions of the table are the caller's to reset.
    pub(super) fn take(&mut self) -> Vec<SessionId> {
        let mut ids = mem::take(&mut self.noted);
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}
