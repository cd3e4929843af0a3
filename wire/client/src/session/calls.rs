//! The open requests of a session: a slab, and the times at which each wants to be looked at.
//!
//! A slot keeps the memory of its frame for the next call, so that a warm session allocates nothing per request.
//! Invariant: `free` holds exactly the slots whose place is `Free`, each once; the generation of a slot grows with each
//! reuse, so an identity that is no longer meant finds no call.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ostrakon_wire::frame::HEADER_BYTES;
use ostrakon_wire::message::Kind;

use crate::error::Error;
use crate::protocol::RequestId;

/// The frame of a slot that has more room than this is given back when its call ends.
const FRAME_KEEP_BYTES_MAX: usize = 64 * 1024;

/// Time that never comes.
pub(super) const NEVER_NS: u64 = u64::MAX;

/// Identity of a request of a session, over all its sendings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

impl CallId {
    /// A small number that no other open call has: as small as the most calls that were ever open at once. An index
    /// for what a driver remembers of each call.
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// Where a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// There is no call in this slot.
    Free,
    /// Waits for any connection.
    Unrouted,
    /// A write beyond the session's window.
    HeldBack,
    /// In the queue of a connection.
    Waiting { connection: u32 },
    /// Given to a connection's protocol, as the request with this place in the order of all its requests.
    Sent {
        connection: u32,
        request: RequestId,
        ordinal: u64,
    },
    /// Refused for the moment; goes on at this time.
    Paused { until_ns: u64 },
}

#[derive(Debug)]
pub(super) struct Call {
    generation: u32,
    pub(super) place: Place,
    pub(super) kind: Kind,
    /// The request as a frame; its header means nothing.
    pub(super) frame: Vec<u8>,
    /// Hash of the key, for a request of one shard.
    pub(super) key_hash: Option<u64>,
    pub(super) timings: bool,
    /// May be sent again: a read, or a write that gets a name in the session.
    pub(super) is_repeatable: bool,
    /// Of a write that has its name.
    pub(super) sequence: Option<u64>,
    pub(super) deadline_ns: u64,
    pub(super) timeout_ms: u64,
    /// A sending went out whole, and its answer will never come.
    pub(super) was_lost: bool,
    /// By entry of a multi-put that goes on after a reply: that reply called it written, or left that open. Of a
    /// delete-range, by reply: it was done in a shard, or may have been.
    pub(super) may_be_written: Vec<bool>,
    pub(super) refusals: u32,
    /// Why it isn't answered yet.
    pub(super) last_error: Option<Error>,
    /// When it wants to be looked at.
    wake_ns: u64,
}

impl Call {
    /// The table of the request.
    pub(super) fn body(&self) -> &[u8] {
        &self.frame[HEADER_BYTES..]
    }

    /// Place among the requests of its connection, if it was given to one.
    pub(super) fn ordinal(&self) -> u64 {
        match self.place {
            Place::Sent { ordinal, .. } => ordinal,
            _ => 0,
        }
    }

    /// Is it a write that gets a name and has none yet?
    pub(super) fn lacks_sequence(&self) -> bool {
        self.kind.is_write() && self.is_repeatable && self.sequence.is_none()
    }

    /// May an earlier sending have changed something?
    pub(super) fn may_be_done(&self) -> bool {
        self.was_lost || self.may_be_written.contains(&true)
    }

    /// What its caller hears if nothing more is done: of unknown outcome if that is so.
    pub(super) fn ended_with(&self, error: Error, is_sent: bool) -> Error {
        if is_sent || self.may_be_done() {
            error.for_sent(self.kind)
        } else {
            error
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Calls {
    slots: Vec<Call>,
    free: Vec<u32>,
    /// Times to look at calls. An entry counts if it is the present `wake_ns` of its call.
    wakes: BinaryHeap<Reverse<(u64, CallId)>>,
    /// With more `wakes` than this, those that no longer count are cleared away.
    wakes_kept_max: usize,
    frame_bytes: usize,
}

impl Calls {
    /// Number of open calls.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Length of their frames, in bytes.
    pub(super) fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// An empty frame to write a request into, for [`Calls::open`].
    pub(super) fn spare_frame(&mut self) -> Vec<u8> {
        match self.free.last() {
            Some(slot) => std::mem::take(&mut self.slots[*slot as usize].frame),
            None => Vec::new(),
        }
    }

    /// Opens a call. Its `place` and `wake_ns` are set by this.
    pub(super) fn open(&mut self, mut call: Call) -> CallId {
        self.frame_bytes += call.frame.len();
        call.place = Place::Unrouted;
        let wake_ns = call.deadline_ns;
        let slot = if let Some(slot) = self.free.pop() {
            call.generation = self.slots[slot as usize].generation.wrapping_add(1);
            self.slots[slot as usize] = call;
            slot
        } else {
            self.slots.push(call);
            self.slots.len() as u32 - 1
        };
        self.wake_at(slot, wake_ns);
        self.id(slot)
    }

    pub(super) fn new_call(kind: Kind, frame: Vec<u8>) -> Call {
        Call {
            generation: 0,
            place: Place::Free,
            kind,
            frame,
            key_hash: None,
            timings: false,
            is_repeatable: false,
            sequence: None,
            deadline_ns: NEVER_NS,
            timeout_ms: 0,
            was_lost: false,
            may_be_written: Vec::new(),
            refusals: 0,
            last_error: None,
            wake_ns: NEVER_NS,
        }
    }

    pub(super) fn id(&self, slot: u32) -> CallId {
        CallId {
            slot,
            generation: self.slots[slot as usize].generation,
        }
    }

    /// The slot of a call that is open.
    pub(super) fn find(&self, id: CallId) -> Option<u32> {
        let call = self.slots.get(id.slot())?;
        (call.generation == id.generation && call.place != Place::Free).then_some(id.slot)
    }

    pub(super) fn get(&self, slot: u32) -> &Call {
        &self.slots[slot as usize]
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> &mut Call {
        &mut self.slots[slot as usize]
    }

    /// Puts another frame of the same request in place of the present one, which is returned empty.
    pub(super) fn replace_frame(&mut self, slot: u32, frame: Vec<u8>) -> Vec<u8> {
        let call = &mut self.slots[slot as usize];
        self.frame_bytes = self.frame_bytes - call.frame.len() + frame.len();
        let mut replaced = std::mem::replace(&mut call.frame, frame);
        replaced.clear();
        replaced
    }

    /// Ends a call.
    pub(super) fn close(&mut self, slot: u32) {
        let call = &mut self.slots[slot as usize];
        assert!(call.place != Place::Free, "a call ends twice");
        self.frame_bytes -= call.frame.len();
        call.place = Place::Free;
        call.last_error = None;
        call.may_be_written = Vec::new();
        call.wake_ns = NEVER_NS;
        call.frame.clear();
        if call.frame.capacity() > FRAME_KEEP_BYTES_MAX {
            call.frame = Vec::new();
        }
        self.free.push(slot);
    }

    /// The call wants to be looked at, at its deadline or before.
    pub(super) fn wake_at(&mut self, slot: u32, at_ns: u64) {
        let id = self.id(slot);
        let call = &mut self.slots[slot as usize];
        let wake_ns = at_ns.min(call.deadline_ns);
        call.wake_ns = wake_ns;
        if wake_ns == NEVER_NS {
            return;
        }
        self.wakes.push(Reverse((wake_ns, id)));
        // Entries of calls that ended are not searched for; they are cleared away once they are the majority.
        if self.wakes.len() > self.wakes_kept_max {
            let slots = &self.slots;
            self.wakes
                .retain(|Reverse((at_ns, id))| counts(slots, *at_ns, *id));
            self.wakes_kept_max = 64 + 2 * self.wakes.len();
        }
    }

    /// When the first call wants to be looked at.
    pub(super) fn next_wake_ns(&mut self) -> Option<u64> {
        while let Some(Reverse((at_ns, id))) = self.wakes.peek() {
            if counts(&self.slots, *at_ns, *id) {
                return Some(*at_ns);
            }
            self.wakes.pop();
        }
        None
    }

    /// A call whose time has come.
    pub(super) fn pop_due(&mut self, now_ns: u64) -> Option<u32> {
        if self.next_wake_ns()? > now_ns {
            return None;
        }
        self.wakes.pop().map(|Reverse((_, id))| id.slot)
    }
}

fn counts(slots: &[Call], at_ns: u64, id: CallId) -> bool {
    let call = &slots[id.slot()];
    call.generation == id.generation && call.wake_ns == at_ns
}
