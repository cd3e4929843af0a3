//! Client connections of one core: their buffers, and the bounds in bytes, count and time that hold for them.
//!
//! Bounds hold for one connection and for all of a core together, so that neither one that sends everything and reads
//! nothing, nor many that each send half of a large frame, can take the memory of others:
//!
//! 1. Connections of the core, and of one address ([`ConnectionLimits`]).
//! 2. Unanswered requests and unsent answers of a connection: at the bound nothing more is read from it. When the
//!    unsent answers of all reach theirs, nothing is read from connections that have more than a small part.
//! 3. Received bytes that are kept, because they are a part of a frame or can't be served yet: a connection that
//!    would exceed what all may keep is ended.
//! 4. Time to the hello, to the end of a frame that was begun, without progress in sending, and without anything to do.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::connection_limits::ConnectionLimits;
use super::status::counters::Reason;
use crate::env::Connection;
use crate::env::local::Notify;
use crate::limits::{
    CONNECTION_IN_FLIGHT_MAX, CONNECTION_OUT_BYTES_MAX, CONNECTION_OUT_BYTES_PRESSED, FRAME_TIMEOUT_MS,
    KEPT_BYTES_FREE, KEPT_BYTES_MAX, SEND_TIMEOUT_MS, UNSENT_BYTES_MAX,
};

/// Bits of a connection id that hold its slot; the rest counts up, so that no id is used twice.
const SLOT_BITS: u32 = 20;

const _: () = assert!(super::connection_limits::CONNECTIONS_MAX <= 1 << SLOT_BITS);

/// One connection.
pub struct ClientConnection {
    id: u64,
    pub(super) stream: Rc<dyn Connection>,
    address: IpAddr,
    /// Answers that the writer task has not taken yet.
    out: Vec<u8>,
    /// Bytes that the writer task has taken and not sent yet.
    sending_bytes: usize,
    /// Received bytes that are not served yet: a part of a frame, or whole ones while the reader is held.
    received: Vec<u8>,
    in_flight: u32,
    /// False until its hello is answered.
    is_open: bool,
    /// Nothing more is read: once everything is answered and sent, the connection goes.
    is_ending: bool,
    accepted_ns: u64,
    /// When bytes came or an answer went last.
    active_ns: u64,
    /// When the frame was begun that is not whole yet.
    frame_since_ns: Option<u64>,
    /// When the kept bytes had to wait for room.
    blocked_since_ns: Option<u64>,
    /// When the socket took bytes last, or was first given those that it has not taken.
    sent_ns: u64,
    pub(super) writer_work: Rc<Notify>,
    pub(super) reader_room: Rc<Notify>,
}

impl ClientConnection {
    fn unsent_bytes(&self) -> usize {
        self.out.len() + self.sending_bytes
    }

    /// True once the hello was answered.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// The hello was answered.
    pub(super) fn open(&mut self) {
        self.is_open = true;
    }

    /// A request was taken from this connection.
    pub(super) fn begin_request(&mut self) {
        self.in_flight += 1;
    }

    /// True if nothing more is to be read from it.
    pub(super) fn is_ending(&self) -> bool {
        self.is_ending
    }

    /// Nothing more is read; what is under way is answered and sent.
    pub(super) fn end(&mut self) {
        self.is_ending = true;
        self.writer_work.notify();
        self.reader_room.notify();
    }

    /// True if nothing is left to do for it.
    pub(super) fn is_done(&self) -> bool {
        self.is_ending && self.in_flight == 0 && self.out.is_empty()
    }

    /// True if bytes wait to be served.
    pub(super) fn keeps_bytes(&self) -> bool {
        !self.received.is_empty()
    }

    /// The time, in monotonic nanoseconds, since which kept bytes have waited for room.
    pub(super) fn blocked_since_ns(&self) -> Option<u64> {
        self.blocked_since_ns
    }

    /// Why it has to go, if it is too slow or has nothing to do.
    fn overdue(&self, now_ns: u64, limits: &ConnectionLimits) -> Option<Overdue> {
        let is_over = |since_ns: u64, limit_ms: u64| now_ns.saturating_sub(since_ns) > limit_ms * 1_000_000;
        if self.sending_bytes > 0 && is_over(self.sent_ns, SEND_TIMEOUT_MS) {
            return Some(Overdue::Sending);
        }
        if self.is_ending {
            return None;
        }
        if !self.is_open {
            return is_over(self.accepted_ns, limits.hello_timeout_ms).then_some(Overdue::Hello);
        }
        if self
            .frame_since_ns
            .is_some_and(|since| is_over(since, FRAME_TIMEOUT_MS))
        {
            return Some(Overdue::Frame);
        }
        let has_nothing_to_do = self.in_flight == 0 && self.unsent_bytes() == 0;
        let is_idle = limits.idle_timeout_ms > 0 && is_over(self.active_ns, limits.idle_timeout_ms);
        (has_nothing_to_do && is_idle).then_some(Overdue::Idle)
    }
}

/// What a connection took too long for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// To say hello.
    Hello,
    /// To complete a frame.
    Frame,
    /// To take its answers.
    Sending,
    /// To ask for anything.
    Idle,
}

/// The connections of a core.
pub struct Connections {
    limits: ConnectionLimits,
    slots: Vec<Option<Box<ClientConnection>>>,
    free: Vec<usize>,
    by_address: BTreeMap<IpAddr, u32>,
    count: usize,
    next_generation: u64,
    /// Received bytes that all connections keep.
    kept_bytes: usize,
    /// Answers of all connections that are not sent.
    unsent_bytes: usize,
}

impl Connections {
    /// No connections, and how many there may be.
    pub fn new(limits: ConnectionLimits) -> Connections {
        Connections {
            limits,
            slots: Vec::new(),
            free: Vec::new(),
            by_address: BTreeMap::new(),
            count: 0,
            next_generation: 0,
            kept_bytes: 0,
            unsent_bytes: 0,
        }
    }

    /// Connections at this moment.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Requests of all connections that are not answered.
    pub fn requests_in_flight(&self) -> u64 {
        self.slots
            .iter()
            .flatten()
            .map(|connection| u64::from(connection.in_flight))
            .sum()
    }

    /// True when every answer has been sent.
    pub(super) fn all_sent(&self) -> bool {
        self.unsent_bytes == 0
    }

    /// The connection of an id, if it is still there.
    pub(super) fn get(&mut self, id: u64) -> Option<&mut ClientConnection> {
        let slot = (id & ((1 << SLOT_BITS) - 1)) as usize;
        self.slots
            .get_mut(slot)?
            .as_deref_mut()
            .filter(|connection| connection.id == id)
    }

    /// True when another request of a connection may be served.
    pub(super) fn has_room(&mut self, id: u64) -> bool {
        let bound_bytes = self.out_bytes_max();
        self.get(id).is_some_and(|connection| {
            connection.in_flight < CONNECTION_IN_FLIGHT_MAX && connection.unsent_bytes() < bound_bytes
        })
    }

    /// True when a connection has more unsent bytes than it should.
    pub(super) fn is_full(&mut self, id: u64) -> bool {
        let bound_bytes = self.out_bytes_max();
        self.get(id)
            .is_some_and(|connection| connection.unsent_bytes() >= bound_bytes)
    }

    fn out_bytes_max(&self) -> usize {
        if self.unsent_bytes < UNSENT_BYTES_MAX {
            CONNECTION_OUT_BYTES_MAX
        } else {
            CONNECTION_OUT_BYTES_PRESSED
        }
    }

    /// Appends frames that answer no counted request, if the client is still there.
    pub(super) fn append(&mut self, id: u64, encode: impl FnOnce(&mut Vec<u8>)) {
        if let Some(connection) = self.get(id) {
            let before_bytes = connection.out.len();
            encode(&mut connection.out);
            let more_bytes = connection.out.len() - before_bytes;
            connection.writer_work.notify();
            self.unsent_bytes += more_bytes;
        }
    }

    /// One request of a connection is answered, if the client is still there.
    pub(super) fn answer(&mut self, id: u64, encode: impl FnOnce(&mut Vec<u8>)) {
        let Some(connection) = self.get(id) else { return };
        assert!(connection.in_flight > 0, "an answer without a request");
        if connection.in_flight == CONNECTION_IN_FLIGHT_MAX {
            connection.reader_room.notify();
        }
        connection.in_flight -= 1;
        self.append(id, encode);
    }

    /// Bytes have come: takes those that are kept, to be served before them.
    pub(super) fn take_kept(&mut self, id: u64) -> Vec<u8> {
        let kept = self
            .get(id)
            .map_or_else(Vec::new, |connection| core::mem::take(&mut connection.received));
        self.kept_bytes -= kept.capacity();
        kept
    }

    /// Keeps bytes that could not be served. False if the core has no room for them.
    #[must_use]
    pub(super) fn keep(&mut self, id: u64, mut bytes: Vec<u8>) -> bool {
        // What is left of a large frame lies in memory for all of it; a frame that grows needs some to grow into.
        if bytes.len() <= KEPT_BYTES_FREE || bytes.capacity() > bytes.len() * 2 + KEPT_BYTES_FREE {
            bytes.shrink_to_fit();
        }
        let kept_bytes = bytes.capacity();
        let is_fitting = bytes.len() <= KEPT_BYTES_FREE || self.kept_bytes + kept_bytes <= KEPT_BYTES_MAX;
        if let Some(connection) = self.get(id)
            && is_fitting
        {
            connection.received = bytes;
            self.kept_bytes += kept_bytes;
        }
        is_fitting
    }

    /// Notes how far the serving of a connection came: whether a frame is begun, and whether whole ones wait for room.
    pub(super) fn served(&mut self, id: u64, now_ns: u64, is_blocked: bool, made_progress: bool) {
        if let Some(connection) = self.get(id) {
            connection.active_ns = now_ns;
            let since_ns = |earlier: Option<u64>| {
                if made_progress {
                    now_ns
                } else {
                    earlier.unwrap_or(now_ns)
                }
            };
            let keeps_bytes = connection.keeps_bytes();
            connection.frame_since_ns =
                (keeps_bytes && !is_blocked).then(|| since_ns(connection.frame_since_ns));
            connection.blocked_since_ns =
                (keeps_bytes && is_blocked).then(|| connection.blocked_since_ns.unwrap_or(now_ns));
        }
    }

    /// Moves a connection's answers into `sending`, for its writer task.
    pub(super) fn take_out(&mut self, id: u64, sending: &mut Vec<u8>, now_ns: u64) {
        if let Some(connection) = self.get(id) {
            core::mem::swap(&mut connection.out, sending);
            connection.sending_bytes = sending.len();
            connection.sent_ns = now_ns;
        }
    }

    /// The socket of a connection took so many bytes.
    pub(super) fn sent(&mut self, id: u64, bytes: usize, now_ns: u64) {
        if let Some(connection) = self.get(id) {
            connection.sending_bytes -= bytes;
            connection.sent_ns = now_ns;
            connection.active_ns = now_ns;
            if connection.sending_bytes == 0 {
                connection.reader_room.notify();
            }
            self.unsent_bytes -= bytes;
        }
    }

    /// Adds a connection.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn add(&mut self, stream: Rc<dyn Connection>, now_ns: u64) -> Result<u64, Reason> {
        let address = stream.peer_address().ip();
        let of_address = self.by_address.get(&address).copied().unwrap_or(0);
        if self.count >= self.limits.connections_max as usize {
            return Err(Reason::TooMany);
        }
        if of_address >= self.limits.connections_per_address_max {
            return Err(Reason::PerAddress);
        }
        self.by_address.insert(address, of_address + 1);
        let slot = self.free.pop().unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.next_generation += 1;
        let id = (self.next_generation << SLOT_BITS) | slot as u64;
        self.slots[slot] = Some(Box::new(ClientConnection {
            id,
            stream,
            address,
            out: Vec::new(),
            sending_bytes: 0,
            received: Vec::new(),
            in_flight: 0,
            is_open: false,
            is_ending: false,
            accepted_ns: now_ns,
            active_ns: now_ns,
            frame_since_ns: None,
            blocked_since_ns: None,
            sent_ns: now_ns,
            writer_work: Rc::default(),
            reader_room: Rc::default(),
        }));
        self.count += 1;
        Ok(id)
    }

    pub(super) fn remove(&mut self, id: u64) {
        if self.get(id).is_none() {
            return;
        }
        let slot = (id & ((1 << SLOT_BITS) - 1)) as usize;
        let connection = self.slots[slot].take().expect("looked up above");
        connection.stream.shutdown();
        connection.writer_work.notify();
        connection.reader_room.notify();
        self.free.push(slot);
        self.count -= 1;
        self.kept_bytes -= connection.received.capacity();
        self.unsent_bytes -= connection.unsent_bytes();
        let of_address = self
            .by_address
            .get_mut(&connection.address)
            .expect("counted when it was added");
        *of_address -= 1;
        if *of_address == 0 {
            self.by_address.remove(&connection.address);
        }
    }

    /// The connections that took too long, and for what.
    pub(super) fn overdue(&self, now_ns: u64) -> Vec<(u64, Overdue)> {
        let connections = self.slots.iter().flatten();
        connections
            .filter_map(|connection| Some((connection.id, connection.overdue(now_ns, &self.limits)?)))
            .collect()
    }

    /// Ends all connections, after a drain.
    pub(super) fn end_all(&mut self) {
        for id in self
            .slots
            .iter()
            .flatten()
            .map(|connection| connection.id)
            .collect::<Vec<_>>()
        {
            self.remove(id);
        }
    }
}
