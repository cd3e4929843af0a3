//! One of a session's connections: how far it is, what it was given, and when it may be tried again.
//!
//! A slot lives as long as its session; each attempt to connect is a new generation of it, so that a driver's word on
//! an earlier socket finds nothing.

use std::collections::VecDeque;

use crate::error::{Error, SubmitError};
use crate::protocol::{Protocol, RequestId};
use crate::values::Server;

use super::calls::{CallId, NEVER_NS};

/// With more bytes than this unsent, a connection takes no further requests: they wait as calls, and can still go
/// elsewhere.
const UNSENT_BYTES_MAX: usize = 256 * 1024;

/// Identity of one attempt of a session to have a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

impl ConnectionId {
    /// A small number that no other connection of the session has at the same time: at most the cores of the node.
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// There is none.
    Down,
    /// The driver makes it.
    Connecting { give_up_ns: u64 },
    /// It is made; the hello is not answered.
    Greeting { give_up_ns: u64 },
    /// Requests can be given to it.
    Up,
}

/// Who waits for the answer to a request of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiter {
    /// Nobody any more.
    Nobody,
    /// The session itself, which wants the topology.
    Topology,
    Call(CallId),
}

/// In which lists of its session a connection is.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// It may have a response that nobody has taken.
    pub(super) readable: bool,
    /// It may have room and calls for it.
    pub(super) dirty: bool,
}

#[derive(Debug)]
pub(super) struct Connection {
    /// The core that is named in its hello.
    pub(super) target: Option<u16>,
    generation: u32,
    pub(super) phase: Phase,
    /// There from [`Phase::Greeting`] on.
    pub(super) protocol: Option<Protocol>,
    /// Slots of calls that wait for room.
    pub(super) waiting: VecDeque<u32>,
    /// By the slot of their id, the requests that are unanswered.
    waiters: Vec<Waiter>,
    /// Requests given to the protocol so far.
    submitted: u64,
    /// Attempts that ended without an answer to a request, since the last one.
    pub(super) failures: u32,
    pub(super) not_before_ns: u64,
    /// Somebody wants it.
    pub(super) is_wanted: bool,
    /// Since when the server owes an answer and has sent nothing.
    pub(super) silent_since_ns: Option<u64>,
    /// The server goes down: nothing more is given to it.
    pub(super) is_draining: bool,
    pub(super) listed: Listed,
    /// Its socket is gone, for this reason; what it has received is still to be taken.
    pub(super) ended_by: Option<Error>,
}

impl Connection {
    pub(super) fn new(target: Option<u16>) -> Connection {
        Connection {
            target,
            generation: 0,
            phase: Phase::Down,
            protocol: None,
            waiting: VecDeque::new(),
            waiters: Vec::new(),
            submitted: 0,
            failures: 0,
            not_before_ns: 0,
            is_wanted: false,
            silent_since_ns: None,
            is_draining: false,
            listed: Listed::default(),
            ended_by: None,
        }
    }

    pub(super) fn id(&self, slot: u32) -> ConnectionId {
        ConnectionId {
            slot,
            generation: self.generation,
        }
    }

    /// Does a driver's word on this attempt still mean something?
    pub(super) fn is(&self, id: ConnectionId) -> bool {
        self.generation == id.generation && self.phase != Phase::Down
    }

    /// Begins an attempt.
    pub(super) fn begin(&mut self, give_up_ns: u64) {
        self.generation = self.generation.wrapping_add(1);
        self.phase = Phase::Connecting { give_up_ns };
        self.is_wanted = false;
        self.is_draining = false;
        self.silent_since_ns = None;
        self.submitted = 0;
        self.waiters.clear();
    }

    /// Takes calls?
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Up && !self.is_draining && self.ended_by.is_none()
    }

    pub(super) fn server(&self) -> Option<&Server> {
        self.protocol.as_ref()?.server()
    }

    /// Requests that it has not answered or not even been given.
    pub(super) fn load(&self) -> usize {
        let in_flight = self.protocol.as_ref().map_or(0, Protocol::requests_in_flight);
        in_flight + self.waiting.len()
    }

    /// Can another request be given to it now?
    pub(super) fn has_room(&self) -> bool {
        let Some(protocol) = &self.protocol else {
            return false;
        };
        let in_flight_max = protocol
            .server()
            .map_or(0, |server| server.requests_in_flight_max as usize);
        self.is_open()
            && !protocol.has_failed()
            && protocol.requests_in_flight() < in_flight_max
            && protocol.bytes_to_send().len() < UNSENT_BYTES_MAX
    }

    /// Gives it a request; returns the request's id and its place in the order of all requests.
    pub(super) fn give(
        &mut self,
        waiter: Waiter,
        submit: impl FnOnce(&mut Protocol) -> Result<RequestId, SubmitError>,
    ) -> Result<(RequestId, u64), SubmitError> {
        let protocol = self.protocol.as_mut().ok_or(SubmitError::NotReady)?;
        let request = submit(protocol)?;
        if self.waiters.len() <= request.slot() {
            self.waiters.resize(request.slot() + 1, Waiter::Nobody);
        }
        self.waiters[request.slot()] = waiter;
        self.submitted += 1;
        Ok((request, self.submitted))
    }

    /// Who waits for the answer to this request; asked once.
    pub(super) fn take_waiter(&mut self, request: RequestId) -> Waiter {
        std::mem::replace(&mut self.waiters[request.slot()], Waiter::Nobody)
    }

    /// Takes any waiter that is left.
    pub(super) fn take_any_waiter(&mut self) -> Option<Waiter> {
        self.waiters.pop()
    }

    /// Did the request with this place in the order of requests go out whole?
    pub(super) fn went_out(&self, ordinal: u64) -> bool {
        let unsent = self.protocol.as_ref().map_or(0, Protocol::frames_unsent) as u64;
        ordinal + unsent <= self.submitted
    }

    /// Notes whether the server owes an answer from now on.
    pub(super) fn note_silence(&mut self, now_ns: u64, has_spoken: bool) {
        let owes = self
            .protocol
            .as_ref()
            .is_some_and(|protocol| protocol.server().is_some() && protocol.requests_sent_in_flight() > 0);
        if !owes {
            self.silent_since_ns = None;
        } else if has_spoken || self.silent_since_ns.is_none() {
            self.silent_since_ns = Some(now_ns);
        }
    }

    /// When something has to be done about it, if nothing happens before.
    pub(super) fn wake_ns(&self, answer_timeout_ns: u64) -> u64 {
        match self.phase {
            Phase::Down if self.is_wanted => self.not_before_ns,
            Phase::Down => NEVER_NS,
            Phase::Connecting { give_up_ns } | Phase::Greeting { give_up_ns } => give_up_ns,
            Phase::Up => self
                .silent_since_ns
                .map_or(NEVER_NS, |since_ns| since_ns.saturating_add(answer_timeout_ns)),
        }
    }
}
