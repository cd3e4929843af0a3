//! One connection of the load, without IO: what is in flight, and what follows from each answer.
//!
//! 1. [`Connection::top_up`] hands over operations until `pipeline` of them are unanswered, or none has come
//!    due.
//! 2. [`Connection::take_answers`] has each answer judged, and hands over what follows: the write of a
//!    read-modify-write, the next page of a scan, or the next operation. A `Busy` answer parks the operation
//!    until its hint has passed.
//! 3. [`Connection::abandon`] tells of everything unanswered when the connection is lost. If writes are in a
//!    [`session`](super::session), [`Connection::cut`] keeps it instead, and [`Connection::renew`] sends it again
//!    over the next socket.
//!
//! If there is a history, every request and what became of it goes to the thread's recorder on the way. A
//! `Busy` answer ends a request there, and its repetition is another. A write that may have been applied, by a socket
//! that was lost or a core that has failed, is one request however often it is sent: it took effect at most once.
//!
//! Invariant: each request in flight has its operation in `operations`, at the slot of its id. Once warm, an
//! operation allocates nothing, save the further pages of a scan.

use std::net::{Shutdown, TcpStream};
use std::task::Waker;
use std::time::Instant;

use ostrakon_client::Response;

use super::connect::{Place, Ready};
use super::operation::Operation;
use super::session::Session;
use super::thread::{Next, Thread};
use crate::history::{Process, Recorder};
use crate::target::{Answer, Wire, WireError};

/// Why a connection cannot go on.
#[derive(Debug)]
pub(crate) enum ConnectionEnd {
    /// The node went away.
    Lost(String),
    /// A fault of one of the two programs.
    Broken(String),
}

/// See the head of the module.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) wire: Wire,
    /// Of the connections to the same place.
    group: usize,
    pipeline: usize,
    operations: Vec<Option<Operation>>,
    /// Who calls in each slot, for the recorder; empty without one.
    processes: Vec<Process>,
    /// If writes are in one.
    session: Option<Session>,
    /// Where its sockets lead to.
    place: Place,
    /// Was its socket lost, and is there no other yet?
    pub(crate) is_cut: bool,
    /// What was unanswered when the socket was lost; and who had called, for the recorder, if it had gone out.
    unsent: Vec<(Operation, Option<Process>)>,
    /// Waiting for the end of a pause, with the moment to send again; and who calls, for the recorder, if the request
    /// is the same as before.
    parked: Vec<(Instant, Operation, Option<Process>)>,
    /// Its node goes down: another socket is opened at this moment.
    reopen_at: Option<Instant>,
    value: Vec<u8>,
    /// Of the writer, while it has nothing to send.
    pub(crate) writer: Option<Waker>,
    /// When bytes came last.
    pub(crate) heard_at: Instant,
    /// Over: nothing is in flight, and nothing will be.
    pub(crate) is_over: bool,
    /// A handle on the socket that ends it.
    control: TcpStream,
    /// Was it shut down because the phase is over?
    is_finished: bool,
    /// Why it was shut down otherwise.
    shut_down_for: Option<ConnectionEnd>,
}

impl Connection {
    pub(crate) fn new(ready: Ready, pipeline: usize, thread: &Thread) -> Self {
        let Ready {
            stream,
            wire,
            group,
            place,
        } = ready;
        let processes = |recorder: &Recorder| (0..pipeline).map(|_| recorder.new_process()).collect();
        let window = wire.server().map_or(0, |server| server.session_window);
        let mut session = thread.retry_for.is_some().then(|| Session::new(window));
        if let Some(session) = &mut session {
            session.observe(wire.timestamp(), Instant::now());
        }
        Self {
            wire,
            group,
            pipeline,
            operations: vec![None; pipeline],
            processes: thread.recorder.as_ref().map(processes).unwrap_or_default(),
            session,
            place,
            is_cut: false,
            unsent: Vec::new(),
            parked: Vec::new(),
            reopen_at: None,
            value: Vec::new(),
            writer: None,
            heard_at: Instant::now(),
            is_over: false,
            control: stream,
            is_finished: false,
            shut_down_for: None,
        }
    }

    /// Hands over operations until the pipeline is full or there is none.
    pub(crate) fn top_up(&mut self, thread: &mut Thread, now: Instant) -> Result<(), ConnectionEnd> {
        while self.hand_over_one(thread, now)? {}
        Ok(())
    }

    /// Hands over one operation, if the pipeline has room and there is one.
    pub(crate) fn hand_over_one(&mut self, thread: &mut Thread, now: Instant) -> Result<bool, ConnectionEnd> {
        if self.is_over || self.is_cut || !self.has_room() {
            return Ok(false);
        }
        let Some(operation) = thread.next_operation(self.group, now) else {
            return Ok(false);
        };
        self.submit(thread, operation)?;
        Ok(true)
    }

    /// Takes all answers that have arrived. Gives the moment at which the last pause ends, if there is one. The socket
    /// counts as lost if a request in a session was refused because the node goes down.
    pub(crate) fn take_answers(&mut self, thread: &mut Thread) -> Result<Option<Instant>, ConnectionEnd> {
        let mut wake_at = None;
        loop {
            let now = Instant::now();
            let (next, issued, timed) = match self.wire.next_answer() {
                Ok(None) => break,
                Ok(Some((slot, answer))) => {
                    let operation = self.operations[slot]
                        .take()
                        .expect("an answered request has its operation");
                    let (call, may_be_applied) = (thread.call(&operation), operation.may_be_applied);
                    let is_error = matches!(answer, Answer::Response(Response::Error(_)));
                    let timed = operation.timed(now).filter(|_| !is_error);
                    let issued = operation.issued;
                    let mut next = thread.answered(operation, &answer, now);
                    if let Some(process) = self.processes.get_mut(slot) {
                        match &mut next {
                            Next::Park {
                                operation, caller, ..
                            } if operation.may_be_applied => {
                                *caller = Some(thread.change_process(process));
                            }
                            _ => thread.record_answer(process, call, may_be_applied, &answer),
                        }
                    }
                    (next, issued, timed)
                }
                Err(WireError::Closed(reason)) => return Err(ConnectionEnd::Lost(reason)),
                Err(WireError::Broken(reason)) => return Err(ConnectionEnd::Broken(reason)),
            };
            if let (Some(timed), Some(timings)) = (timed, self.wire.timings()) {
                thread.record_stages(timed, &timings);
            }
            if let Some(session) = &mut self.session {
                session.observe(self.wire.timestamp(), now);
                if let (Next::Done, Some(issued)) = (&next, issued) {
                    session.settle(issued);
                }
            }
            match next {
                Next::Done => self.top_up(thread, now)?,
                Next::Submit(operation) => self.submit(thread, operation)?,
                Next::Park {
                    operation,
                    after,
                    caller,
                    leaves_node,
                } => {
                    self.parked.push((now + after, operation, caller));
                    wake_at = wake_at.max(Some(now + after));
                    if leaves_node {
                        self.reopen_at = self.reopen_at.max(Some(now + after));
                    }
                }
            }
        }
        if self.reopen_at.is_some() {
            return Err(ConnectionEnd::Lost("the node goes down".to_owned()));
        }
        Ok(wake_at)
    }

    /// Sends the parked operations again whose pause is over.
    pub(crate) fn unpark(&mut self, thread: &mut Thread, now: Instant) -> Result<(), ConnectionEnd> {
        while let Some(at) = self.parked.iter().position(|(due, ..)| *due <= now) {
            let (_, operation, caller) = self.parked.swap_remove(at);
            let slot = self.submit_as(thread, operation, caller.is_none())?;
            if let Some(caller) = caller {
                // Whose place this was does not call at the moment, and need not call again.
                self.processes[slot] = caller;
            }
        }
        Ok(())
    }

    /// Ends the socket for the reader, who then gives this reason; the first one counts.
    pub(crate) fn shut_down(&mut self, end: ConnectionEnd) {
        self.shut_down_for.get_or_insert(end);
        self.end_socket();
    }

    /// Ends the socket of a connection that waits for nothing, at the end of the phase.
    pub(crate) fn finish_if_idle(&mut self) {
        if self.is_idle() && !self.is_over {
            self.is_finished = true;
            self.end_socket();
        }
    }

    fn end_socket(&self) {
        // An error says that the socket is no longer connected, which is what is wanted.
        let _already_gone = self.control.shutdown(Shutdown::Both);
    }

    /// Is nothing in flight, parked, or to be sent again?
    fn is_idle(&self) -> bool {
        (self.is_cut || self.wire.requests_in_flight() == 0)
            && self.parked.is_empty()
            && self.unsent.is_empty()
    }

    fn has_room(&self) -> bool {
        let has_sequence = self.session.as_ref().is_none_or(|session| !session.is_full());
        has_sequence && self.wire.requests_in_flight() + self.parked.len() < self.pipeline
    }

    /// Does an answer have to come, or an operation?
    pub(crate) fn has_more(&self, thread: &Thread) -> bool {
        !self.is_finished && (!self.is_idle() || !thread.source.is_over_for(self.group))
    }

    /// Was the end of the stream asked for?
    pub(crate) fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Where to go on after the socket was lost; none if that is the end.
    pub(crate) fn next_place(&self) -> Option<Place> {
        self.session.as_ref().map(|_| self.place.clone())
    }

    /// Why the socket ended: for this reason, unless it was shut down for another.
    pub(crate) fn reason_of(&mut self, end: ConnectionEnd) -> ConnectionEnd {
        self.shut_down_for.take().unwrap_or(end)
    }

    /// The socket is lost, and what is unanswered waits for another.
    pub(crate) fn cut(&mut self) {
        self.is_cut = true;
        for (slot, operation) in self.operations.iter_mut().enumerate() {
            if let Some(mut operation) = operation.take() {
                operation.outlive_connection();
                self.unsent.push((operation, self.processes.get(slot).copied()));
            }
        }
        let parked = self.parked.drain(..);
        self.unsent
            .extend(parked.map(|(_, operation, caller)| (operation, caller)));
    }

    /// When another socket may be opened, if not at once.
    pub(crate) fn take_reopen_at(&mut self) -> Option<Instant> {
        self.reopen_at.take()
    }

    /// Goes on over another socket: everything that was unanswered is sent again, each write as the one that it was.
    pub(crate) fn renew(
        &mut self,
        mut wire: Wire,
        control: TcpStream,
        thread: &mut Thread,
    ) -> Result<(), ConnectionEnd> {
        wire.observe_timestamp(self.wire.timestamp());
        (self.wire, self.control, self.is_cut) = (wire, control, false);
        self.heard_at = Instant::now();
        thread.statistics.reconnections += 1;
        let mut unsent = std::mem::take(&mut self.unsent);
        // A new connection gives its slots in turn, so who had called keeps calling if those go first.
        unsent.sort_by_key(|(_, process)| process.is_none());
        if !self.processes.is_empty() {
            let calling: Vec<Process> = unsent.iter().filter_map(|(_, process)| *process).collect();
            self.processes.retain(|process| !calling.contains(process));
            self.processes.splice(0..0, calling);
            self.processes.truncate(self.pipeline);
        }
        for (operation, process) in unsent {
            thread.statistics.resent += 1;
            let slot = self.submit_as(thread, operation, process.is_none())?;
            if process.is_some() {
                assert_eq!(
                    self.processes.get(slot),
                    process.as_ref(),
                    "a call has another caller"
                );
            }
        }
        Ok(())
    }

    /// No answer will come any more, for this reason unless the socket was shut down for another.
    pub(crate) fn abandon(&mut self, thread: &mut Thread, end: ConnectionEnd) {
        let end = self.reason_of(end);
        thread.shared.end(end);
        for (slot, operation) in self.operations.iter_mut().enumerate() {
            let Some(operation) = operation.take() else {
                continue;
            };
            if let Some(process) = self.processes.get_mut(slot) {
                thread.record_silence(process, &operation);
            }
            thread.unanswered(&operation);
        }
        for (operation, process) in self.unsent.drain(..) {
            if let Some(mut process) = process {
                thread.record_silence(&mut process, &operation);
            }
            if operation.may_be_applied || !operation.is_write() {
                thread.unanswered(&operation);
            } else {
                thread.refused(&operation);
            }
        }
        for (_, operation, caller) in self.parked.drain(..) {
            if let Some(mut process) = caller {
                thread.record_silence(&mut process, &operation);
            }
            thread.refused(&operation);
        }
    }

    /// Wakes the writer if there is something for it to do.
    pub(crate) fn wake_writer(&mut self) {
        if (self.is_over || self.is_cut || !self.wire.bytes_to_send().is_empty())
            && let Some(writer) = self.writer.take()
        {
            writer.wake();
        }
    }

    fn submit(&mut self, thread: &mut Thread, operation: Operation) -> Result<(), ConnectionEnd> {
        self.submit_as(thread, operation, true).map(drop)
    }

    /// Gives the slot. The recorder hears of it if it is a call of its own.
    fn submit_as(
        &mut self,
        thread: &mut Thread,
        mut operation: Operation,
        is_own_call: bool,
    ) -> Result<usize, ConnectionEnd> {
        let wants_timings = thread.wants_timings();
        operation.timed_from = wants_timings.then(Instant::now);
        let retry = match &mut self.session {
            Some(session) if operation.is_write() => {
                let issued = *operation
                    .issued
                    .get_or_insert_with(|| session.issue(Instant::now()));
                Some(session.retry(issued))
            }
            _ => None,
        };
        let (wire, value) = (&mut self.wire, &mut self.value);
        let submitted = operation.with_request(thread, value, retry, |request| {
            wire.submit(request, wants_timings)
        });
        match submitted {
            Ok(slot) => {
                // The request is in a buffer: nothing is sent before this returns to the executor.
                if let Some(process) = self.processes.get(slot).filter(|_| is_own_call) {
                    thread.record_call(*process, &operation);
                }
                let place = &mut self.operations[slot];
                assert!(place.is_none(), "two requests in flight share a slot");
                *place = Some(operation);
                Ok(slot)
            }
            Err(reason) => {
                // Nothing went out, so a write is as good as refused.
                thread.refused(&operation);
                Err(ConnectionEnd::Broken(reason))
            }
        }
    }
}
