//! The two ends of a connection: what was sent, what has arrived in order, what may be sent.
//!
//! Offsets count the bytes of one direction from its beginning. Invariants of an end: `read <= in_order`, and
//! of a direction: `acknowledged <= read <= sent` with `sent - acknowledged <= window`.

use core::net::SocketAddr;
use core::task::Waker;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::sim::faults::Place;
use crate::sim::host::{HostId, ProcessId};

/// A run of bytes of one segment.
#[derive(Clone)]
pub(super) struct Chunk {
    bytes: Rc<[u8]>,
    start: usize,
    end: usize,
}

impl Chunk {
    pub(super) fn new(bytes: &[u8]) -> Chunk {
        Chunk {
            bytes: bytes.into(),
            start: 0,
            end: bytes.len(),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Cuts the first `len` bytes off.
    fn split_to(&mut self, len: usize) -> Chunk {
        let mut head = self.clone();
        head.end = self.start + len;
        self.start += len;
        head
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start + len);
    }
}

/// What a segment carries.
#[derive(Clone)]
pub(super) enum Payload {
    Data(Chunk),
    /// No more bytes will come.
    End,
    /// The connection is no more.
    Reset,
    /// All bytes before the offset were read.
    Read,
}

/// Something on its way from one end of a connection to the other.
#[derive(Clone)]
pub(super) struct Segment {
    pub(super) stream: u64,
    /// The end that sent it, 0 or 1.
    pub(super) from: usize,
    pub(super) offset: u64,
    pub(super) payload: Payload,
    /// Its number among the segments of its host; `None` for what nobody sent.
    pub(super) place: Option<Place>,
    /// A fault lets later segments overtake it.
    pub(super) is_held_back: bool,
}

/// One end.
#[expect(
    clippy::struct_excessive_bools,
    reason = "the two directions end independently, each in its own way"
)]
pub(super) struct End {
    pub(super) host: HostId,
    pub(super) process: ProcessId,
    pub(super) address: SocketAddr,
    /// Arrived in order and not read.
    ready: VecDeque<Chunk>,
    /// Arrived before something that comes earlier in the stream; `None` is the end of the stream.
    early: BTreeMap<u64, Option<Chunk>>,
    pub(super) in_order: u64,
    pub(super) read: u64,
    /// The last `read` that was told to the other end.
    pub(super) told: u64,
    /// The other end has sent its last byte, and all have arrived.
    pub(super) has_all: bool,
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    pub(super) is_end_sent: bool,
    pub(super) is_reset: bool,
    /// Shut down by its owner, or the owner is no more.
    pub(super) is_closed: bool,
    pub(super) receiver: Option<Waker>,
    pub(super) sender: Option<Waker>,
}

impl End {
    pub(super) fn new(host: HostId, process: ProcessId, address: SocketAddr) -> End {
        End {
            host,
            process,
            address,
            ready: VecDeque::new(),
            early: BTreeMap::new(),
            in_order: 0,
            read: 0,
            told: 0,
            has_all: false,
            sent: 0,
            acknowledged: 0,
            is_end_sent: false,
            is_reset: false,
            is_closed: false,
            receiver: None,
            sender: None,
        }
    }

    pub(super) fn wake_receiver(&mut self) {
        self.receiver.take().into_iter().for_each(Waker::wake);
    }

    pub(super) fn wake_both(&mut self) {
        self.wake_receiver();
        self.sender.take().into_iter().for_each(Waker::wake);
    }

    pub(super) fn reset(&mut self) {
        self.is_reset = true;
        self.wake_both();
    }

    /// Takes what has arrived; false when it was there already.
    pub(super) fn accept(&mut self, offset: u64, chunk: Option<Chunk>) -> bool {
        let known = offset < self.in_order || self.early.contains_key(&offset) || self.has_all;
        if known {
            return false;
        }
        self.early.insert(offset, chunk);
        while let Some(entry) = self.early.first_entry() {
            if *entry.key() != self.in_order {
                break;
            }
            let Some(chunk) = entry.remove() else {
                self.has_all = true;
                break;
            };
            self.in_order += chunk.len() as u64;
            self.ready.push_back(chunk);
        }
        self.wake_receiver();
        true
    }

    /// Takes up to `limit_bytes` of what can be read, all of one segment unless more segments fit.
    pub(super) fn take_ready(&mut self, limit_bytes: usize) -> Vec<Chunk> {
        let mut taken = Vec::new();
        let mut room = limit_bytes;
        while room > 0 {
            let Some(mut chunk) = self.ready.pop_front() else {
                break;
            };
            if chunk.len() > room {
                let head = chunk.split_to(room);
                self.ready.push_front(chunk);
                chunk = head;
            }
            room -= chunk.len();
            self.read += chunk.len() as u64;
            taken.push(chunk);
        }
        taken
    }

    pub(super) fn ready_bytes(&self) -> usize {
        (self.in_order - self.read) as usize
    }

    pub(super) fn forget_received(&mut self) {
        self.ready.clear();
        self.early.clear();
    }
}

/// A connection.
pub(super) struct Stream {
    pub(super) ends: [End; 2],
    pub(super) segment_bytes: usize,
    pub(super) window_bytes: u64,
    pub(super) stuck_ns: u64,
    /// By sending end: the connection is reset when this offset arrives.
    pub(super) reset_at: [Option<u64>; 2],
    /// By sending end: segments that wait for a later one to arrive.
    pub(super) behind: [Vec<Segment>; 2],
    /// By sending end: the newest segment that has arrived.
    newest: [Option<Place>; 2],
}

impl Stream {
    pub(super) fn new(ends: [End; 2], segment_bytes: usize, window_bytes: u64, stuck_ns: u64) -> Stream {
        Stream {
            ends,
            segment_bytes,
            window_bytes,
            stuck_ns,
            reset_at: [None, None],
            behind: [Vec::new(), Vec::new()],
            newest: [None, None],
        }
    }

    /// Notes that a segment arrives; true when a later one has come before.
    pub(super) fn note_arrival(&mut self, segment: &Segment) -> bool {
        let newest = &mut self.newest[segment.from];
        let is_overtaken = segment.place.is_some() && segment.place < *newest;
        *newest = segment.place.max(*newest);
        is_overtaken
    }

    /// Takes the segments that this one has overtaken.
    pub(super) fn take_overtaken(&mut self, segment: &Segment) -> Vec<Segment> {
        let is_overtaken = |behind: &mut Segment| behind.place < segment.place;
        self.behind[segment.from].extract_if(.., is_overtaken).collect()
    }

    /// True when nobody can learn anything from it any more.
    pub(super) fn is_over(&self) -> bool {
        self.ends.iter().all(|end| end.is_closed)
    }

    /// Bytes that an end may send.
    pub(super) fn room(&self, end: usize) -> u64 {
        let end = &self.ends[end];
        self.window_bytes - (end.sent - end.acknowledged)
    }
}
