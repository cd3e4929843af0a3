//! The client's side of its conversation with a node, over several connections, without IO.
//!
//! A session keeps one connection to each core that it needs, sends each request of one shard to the shard's owner, and
//! sends again what may have been lost. A driver's duties, after each event and in this order:
//!
//! 1. Do what [`Session::next_duty`] says until it says nothing: make a connection to an address and report with
//!    [`Session::connected`] or [`Session::connect_failed`]; close one.
//! 2. For each connection: send [`Session::bytes_to_send`] and report with [`Session::sent`] how much of it went out;
//!    read into [`Session::receive_room`] and report with [`Session::received`]. Report its end with [`Session::lost`].
//!    Never wait for room to send without reading as well: the server may wait for its answers to be taken.
//! 3. Take [`Session::next_finished`] until it is `None`.
//! 4. Wait for a socket, for a call of its user, or until [`Session::next_timeout_ns`]; then call [`Session::tick`].
//!
//! Times are nanoseconds of one clock that never goes back. Words on a connection that the session has given up are
//! allowed, and ignored.
//!
//! How a call goes:
//!
//! 1. [`Session::submit`] takes it over. It goes to the connection of the core that owns its key, if that is up and
//!    known, else to the one with the least to do. If none is up, one is made, with growing pauses, from one address
//!    to the next.
//! 2. Before a write is sent for the first time it gets a name ([`Retry`](ostrakon_wire::message::Retry)), by which the
//!    server recognises it when it comes again. Writes beyond the session's window are held back.
//! 3. When the connection is lost, or the server owes an answer on it and stays silent for too long, its calls go to
//!    another one, with the same name. When the server refuses a call for the moment, it is sent again after a pause.
//! 4. It ends with the answer, with an error that no repetition can change, or with its deadline. Each call ends once,
//!    in [`Session::next_finished`], unless it was abandoned.
//!
//! Guarantees: a write that has a name is executed at most once, and exactly once if its call ends with an answer. A
//! call that ends with an error other than [`Error::UnknownOutcome`] changed nothing and never will. Without
//! [`Options::retry`] writes have no names, and nothing that went out whole is sent again.
//! Never: a socket, a clock, a source of randomness. Once warm, a get or put allocates nothing.

mod calls;
mod connection;
mod connections;
mod delivery;
mod pauses;
mod sequences;

pub use calls::CallId;
pub use connection::ConnectionId;

use std::collections::VecDeque;

use ostrakon_wire::frame::StageTimings;
use ostrakon_wire::message::{BatchOperation, Encoder, Kind, Request, Response, TopologyReply};
use ostrakon_wire::routing::key_hash;

use self::calls::{Calls, NEVER_NS, Place};
use self::connection::{Connection, Waiter};
use self::pauses::Random;
use self::sequences::{Sequences, ServerClock};
use crate::error::{Error, SubmitError};
use crate::options::Options;
use crate::protocol::Protocol;
use crate::values::Server;

/// Most open calls of a session.
const CALLS_MAX: usize = 16 * 1024;

/// Requests of all open calls together, in bytes; one call is always taken.
const CALL_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A connection is given up when the server owes an answer and has sent nothing for so long, in nanoseconds, or for a
/// third of the time that a call may take if that is less.
const ANSWER_TIMEOUT_NS_MAX: u64 = 10_000_000_000;

/// What a driver has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Make a connection. Until the driver has reported on it, or the session closes it, no other is asked for in its
    /// slot.
    Connect {
        /// What to report on.
        connection: ConnectionId,
        /// Where to: position in the list that the session was made with.
        address: usize,
    },
    /// Close the socket of a connection, or stop making it. Nothing more is to be reported on it.
    Close {
        /// Which.
        connection: ConnectionId,
    },
}

/// The end of a call.
#[derive(Debug)]
pub struct Finished<'a> {
    /// The call.
    pub call: CallId,
    /// Its answer, which is of its kind and never [`Response::Error`].
    pub result: Result<Response<'a>, Error>,
    /// Where the server's time for it went, if that was asked.
    pub timings: Option<StageTimings>,
}

/// How a call is to be treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CallOptions {
    /// How long it may take, all repetitions included, in milliseconds; 0: as long as it takes.
    pub timeout_ms: u64,
    /// Ask where the server's time for it goes.
    pub timings: bool,
}

/// A session with a node. See the head of its module for what a driver does.
#[derive(Debug)]
pub struct Session {
    options: Options,
    addresses: Vec<String>,
    /// A connection is wanted, even without calls.
    is_opening: bool,
    /// Position of the address in use.
    address: usize,
    answer_timeout_ns: u64,
    /// The first goes to any core (or to the one that the options name), the others to one core each.
    connections: Vec<Connection>,
    /// For each core, the connection that is up.
    of_core: Vec<Option<u32>>,
    calls: Calls,
    /// Slots of calls that wait for any connection.
    unrouted: VecDeque<u32>,
    /// Slots of writes that wait for the session's window.
    held_back: VecDeque<u32>,
    /// `None`: writes get no names.
    sequences: Option<Sequences>,
    clock: ServerClock,
    /// As of the last greeting.
    server: Option<Server>,
    topology: Option<TopologyReply>,
    /// Why the last connection failed or was lost.
    last_failure: Option<Error>,
    /// Attempts on the first connection that failed for a reason that time does not mend, since the last that did not.
    hopeless_attempts: usize,
    /// Connections that may have responses, each once.
    readable: VecDeque<u32>,
    /// Connections that may have room and calls for it, each once.
    dirty: VecDeque<u32>,
    duties: VecDeque<Duty>,
    /// Calls that ended without a response.
    failed: VecDeque<(CallId, Error)>,
    random: Random,
    encoder: Encoder,
    /// Memory for the next frame that is encoded anew.
    scratch: Vec<u8>,
    now_ns: u64,
}

impl Session {
    /// A session with the node at these addresses, of which the first that answers is used.
    ///
    /// `session` is a random number of 128 bits, unlike that of any other session that ever was; `seed` any number,
    /// best a random one: pauses between attempts depend on it.
    ///
    /// # Errors
    /// [`SubmitError::Invalid`] if the client's name is too long.
    ///
    /// # Panics
    /// If there is no address.
    pub fn new(
        options: &Options,
        addresses: Vec<String>,
        session: u128,
        seed: u64,
    ) -> Result<Session, SubmitError> {
        assert!(!addresses.is_empty(), "a session needs an address");
        Protocol::new(options)?;
        let timeout_ns = nanoseconds(options.request_timeout_ms);
        let answer_timeout_ns = if options.retry {
            (timeout_ns / 3).clamp(1, ANSWER_TIMEOUT_NS_MAX)
        } else {
            timeout_ns
        };
        Ok(Session {
            options: options.clone(),
            addresses,
            is_opening: false,
            address: 0,
            answer_timeout_ns,
            connections: vec![Connection::new(options.core)],
            of_core: Vec::new(),
            calls: Calls::default(),
            unrouted: VecDeque::new(),
            held_back: VecDeque::new(),
            sequences: options.retry.then(|| Sequences::new(session)),
            clock: ServerClock::default(),
            server: None,
            topology: None,
            last_failure: None,
            hopeless_attempts: 0,
            readable: VecDeque::new(),
            dirty: VecDeque::new(),
            duties: VecDeque::new(),
            failed: VecDeque::new(),
            random: Random::new(seed),
            encoder: Encoder::new(),
            scratch: Vec::new(),
            now_ns: 0,
        })
    }

    /// What the server said of itself at the last greeting; `None` before the first.
    pub fn server(&self) -> Option<&Server> {
        self.server.as_ref()
    }

    /// Highest hybrid logical clock timestamp seen on any connection (microseconds << 12 | counter), 0: none.
    pub fn timestamp(&self) -> u64 {
        self.clock.highest()
    }

    /// Raises the timestamp that goes out with the next request to one seen elsewhere.
    pub fn observe_timestamp(&mut self, now_ns: u64, timestamp: u64) {
        self.see(now_ns);
        self.clock.observe(timestamp, self.now_ns);
    }

    /// Number of calls that have not ended.
    pub fn open_calls(&self) -> usize {
        self.calls.len()
    }

    /// Begins a call.
    ///
    /// # Errors
    /// [`SubmitError::TooManyCalls`]: take what has finished first. [`SubmitError::Invalid`]: it breaks a limit.
    /// [`SubmitError::Hello`] and [`SubmitError::Cancel`]: those are the session's own.
    pub fn submit(
        &mut self,
        now_ns: u64,
        request: &Request<'_>,
        options: CallOptions,
    ) -> Result<CallId, SubmitError> {
        if self.is_full() {
            return Err(SubmitError::TooManyCalls);
        }
        let frame = self.calls.spare_frame();
        let prepared = Prepared::new(request, &mut self.encoder, frame)?;
        Ok(self.begin(now_ns, now_ns, prepared, options))
    }

    /// Begins a call whose request was prepared elsewhere. Its time counts from `asked_ns`, and is not up yet.
    ///
    /// # Panics
    /// If the session is full.
    pub(crate) fn begin(
        &mut self,
        now_ns: u64,
        asked_ns: u64,
        prepared: Prepared,
        options: CallOptions,
    ) -> CallId {
        assert!(!self.is_full(), "a call beyond the bound of calls");
        self.see(now_ns);
        let mut call = Calls::new_call(prepared.kind, prepared.frame);
        call.key_hash = prepared.key_hash;
        call.timings = options.timings;
        call.timeout_ms = options.timeout_ms;
        call.deadline_ns = asked_ns.saturating_add(nanoseconds(options.timeout_ms));
        // A write with a name of the caller's own is the caller's to send again.
        call.is_repeatable = self.options.retry && !prepared.has_name;
        let id = self.calls.open(call);
        self.route(id.slot);
        self.pump();
        id
    }

    /// Is there no room for another call?
    pub fn is_full(&self) -> bool {
        self.calls.len() >= CALLS_MAX || (self.calls.len() > 0 && self.calls.frame_bytes() >= CALL_BYTES_MAX)
    }

    /// Nobody waits for this call any more. A read of more than one key that was sent is cancelled; of a write it is
    /// not known what becomes of it, but it is not sent again. A call that has ended is none of this function's
    /// business.
    pub fn abandon(&mut self, now_ns: u64, call: CallId) {
        self.see(now_ns);
        self.failed.retain(|(failed, _)| *failed != call);
        if let Some(slot) = self.calls.find(call) {
            self.leave_place(slot);
            self.end(slot);
            self.pump();
        }
    }

    /// As [`Session::abandon`], for a caller that is to hear how the call has ended: interrupted, and, for a write that
    /// may have been sent, with an outcome that nobody knows.
    pub fn interrupt(&mut self, now_ns: u64, call: CallId) -> Error {
        let may_be_done = self.calls.find(call).is_some_and(|slot| {
            let call = self.calls.get(slot);
            call.kind.is_write() && (call.may_be_done() || matches!(call.place, Place::Sent { .. }))
        });
        self.abandon(now_ns, call);
        if may_be_done {
            Error::UnknownOutcome {
                cause: Box::new(Error::Interrupted),
            }
        } else {
            Error::Interrupted
        }
    }

    /// What to do next about connections.
    pub fn next_duty(&mut self) -> Option<Duty> {
        self.duties.pop_front()
    }

    /// When [`Session::tick`] has to be called, if nothing happens before.
    pub fn next_timeout_ns(&mut self) -> Option<u64> {
        let wakes = self.connections.iter();
        let connection = wakes
            .map(|connection| connection.wake_ns(self.answer_timeout_ns))
            .min();
        let call = self.calls.next_wake_ns().unwrap_or(NEVER_NS);
        let at_ns = call.min(connection.unwrap_or(NEVER_NS));
        (at_ns != NEVER_NS).then_some(at_ns)
    }

    /// Time has passed.
    pub fn tick(&mut self, now_ns: u64) {
        self.see(now_ns);
        while let Some(slot) = self.calls.pop_due(self.now_ns) {
            self.wake(slot);
        }
        for slot in 0..self.connections.len() as u32 {
            self.wake_connection(slot);
        }
        self.pump();
    }

    /// The next call that has ended.
    pub fn next_finished(&mut self, now_ns: u64) -> Option<Finished<'_>> {
        self.see(now_ns);
        loop {
            if let Some((call, error)) = self.failed.pop_front() {
                return Some(Finished {
                    call,
                    result: Err(error),
                    timings: None,
                });
            }
            let slot = *self.readable.front()?;
            if let Some((call, kind)) = self.take_response(slot) {
                let protocol = self.connections[slot as usize].protocol.as_mut();
                let protocol = protocol.expect("a connection that has responded is up");
                let timings = protocol.timings();
                // What can't be read as a response fails the connection too: the next turn finds that.
                let result = protocol
                    .response()
                    .map_err(|error| Error::from(error).for_sent(kind));
                return Some(Finished {
                    call,
                    result,
                    timings,
                });
            }
        }
    }

    fn see(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
    }

    /// Takes the call out of whatever it waits in.
    fn leave_place(&mut self, slot: u32) {
        let call = self.calls.get(slot);
        match call.place {
            Place::Free | Place::Paused { .. } => {}
            Place::Unrouted => self.unrouted.retain(|waiting| *waiting != slot),
            Place::HeldBack => self.held_back.retain(|waiting| *waiting != slot),
            Place::Waiting { connection } => {
                self.connections[connection as usize]
                    .waiting
                    .retain(|waiting| *waiting != slot);
            }
            Place::Sent {
                connection, request, ..
            } => {
                let connection = &mut self.connections[connection as usize];
                connection.take_waiter(request);
                if matches!(
                    call.kind,
                    Kind::Scan | Kind::Status | Kind::Stats | Kind::MultiGet
                ) {
                    let cancel = Request::Cancel {
                        request_id: request.number(),
                    };
                    // Without room for it, the request goes on for nobody.
                    let _ = connection.give(Waiter::Nobody, |protocol| protocol.submit(&cancel));
                }
            }
        }
    }

    /// The call has ended: its sequence is finished, and its slot free.
    fn end(&mut self, slot: u32) {
        let sequence = self.calls.get(slot).sequence;
        self.calls.close(slot);
        if let (Some(sequence), Some(sequences)) = (sequence, &mut self.sequences) {
            sequences.finish(sequence);
            self.release_held_back();
        }
    }

    /// The call has ended without a response.
    fn fail(&mut self, slot: u32, error: Error) {
        self.failed.push_back((self.calls.id(slot), error));
        self.end(slot);
    }
}

/// A request that was checked and encoded.
#[derive(Debug)]
pub(crate) struct Prepared {
    kind: Kind,
    frame: Vec<u8>,
    key_hash: Option<u64>,
    has_name: bool,
}

impl Prepared {
    /// Encodes a request into an empty frame.
    pub(crate) fn new(
        request: &Request<'_>,
        encoder: &mut Encoder,
        mut frame: Vec<u8>,
    ) -> Result<Prepared, SubmitError> {
        match request {
            Request::Hello(_) => return Err(SubmitError::Hello),
            Request::Cancel { .. } => return Err(SubmitError::Cancel),
            _ => request.check().map_err(SubmitError::Invalid)?,
        }
        encoder.request(&mut frame, 0, 0, request);
        Ok(Prepared {
            kind: request.kind(),
            frame,
            key_hash: routed_key(request).map(key_hash),
            has_name: request.retry().is_some(),
        })
    }
}

/// Milliseconds in nanoseconds; 0 milliseconds: never.
pub(crate) fn nanoseconds(milliseconds: u64) -> u64 {
    match milliseconds {
        0 => NEVER_NS,
        milliseconds => milliseconds.saturating_mul(1_000_000),
    }
}

/// The key that decides which core a request belongs to; `None`: any core will do.
fn routed_key<'a>(request: &Request<'a>) -> Option<&'a [u8]> {
    match *request {
        Request::Get { key }
        | Request::Put { key, .. }
        | Request::Delete { key, .. }
        | Request::Add { key, .. } => Some(key),
        Request::Batch { operations, .. } => operations.iter().next().map(|BatchOperation { key, .. }| key),
        _ => None,
    }
}
