//! One connection of the load, without IO: what is in flight, and what follows from each answer.
//!
//! 1. [`Connection::top_up`] hands over operations until `pipeline` of them are unanswered, or none has come
//!    due.
//! 2. [`Connection::take_answers`] has each answer judged, and hands over what follows: the write of a
//!    read-modify-write, the next page of a scan, or the next operation. A `Busy` answer parks the operation
//!    until its hint has passed.
//! 3. [`Connection::abandon`] tells of everything unanswered when the connection is lost.
//!
//! If there is a history, every request and what became of it goes to the thread's recorder on the way. A
//! `Busy` answer ends a request there, and its repetition is another.
//!
//! Invariant: each request in flight has its operation in `operations`, at the slot of its id. Once warm, an
//! operation allocates nothing, save the further pages of a scan.

use std::net::{Shutdown, TcpStream};
use std::task::Waker;
use std::time::Instant;

use super::thread::{Next, Operation, Thread};
use crate::history::{Process, Recorder};
use crate::target::{Wire, WireError};

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
    /// Waiting for the end of a `Busy` hint, with the moment to send again.
    parked: Vec<(Instant, Operation)>,
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
    pub(crate) fn new(
        wire: Wire,
        group: usize,
        control: TcpStream,
        pipeline: usize,
        thread: &Thread,
    ) -> Self {
        let processes = |recorder: &Recorder| (0..pipeline).map(|_| recorder.new_process()).collect();
        Self {
            wire,
            group,
            pipeline,
            operations: vec![None; pipeline],
            processes: thread.recorder.as_ref().map(processes).unwrap_or_default(),
            parked: Vec::new(),
            value: Vec::new(),
            writer: None,
            heard_at: Instant::now(),
            is_over: false,
            control,
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
        if self.is_over || !self.has_room() {
            return Ok(false);
        }
        let Some(operation) = thread.next_operation(self.group, now) else {
            return Ok(false);
        };
        self.submit(thread, operation)?;
        Ok(true)
    }

    /// Takes all answers that have arrived. Gives the moment of the last `Busy` hint's end, if there was one.
    pub(crate) fn take_answers(&mut self, thread: &mut Thread) -> Result<Option<Instant>, ConnectionEnd> {
        let mut wake_at = None;
        loop {
            let now = Instant::now();
            let next = match self.wire.next_answer() {
                Ok(None) => break,
                Ok(Some((slot, answer))) => {
                    let operation = self.operations[slot]
                        .take()
                        .expect("an answered request has its operation");
                    if let Some(process) = self.processes.get_mut(slot) {
                        thread.record_answer(process, &operation, &answer);
                    }
                    thread.answered(operation, &answer, now)
                }
                Err(WireError::Closed(reason)) => return Err(ConnectionEnd::Lost(reason)),
                Err(WireError::Broken(reason)) => return Err(ConnectionEnd::Broken(reason)),
            };
            match next {
                Next::Done => self.top_up(thread, now)?,
                Next::Submit(operation) => self.submit(thread, operation)?,
                Next::Park { operation, after } => {
                    self.parked.push((now + after, operation));
                    wake_at = wake_at.max(Some(now + after));
                }
            }
        }
        Ok(wake_at)
    }

    /// Sends the parked operations again whose hint has passed.
    pub(crate) fn unpark(&mut self, thread: &mut Thread, now: Instant) -> Result<(), ConnectionEnd> {
        while let Some(at) = self.parked.iter().position(|(due, _)| *due <= now) {
            let (_, operation) = self.parked.swap_remove(at);
            self.submit(thread, operation)?;
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

    /// Is nothing in flight or parked?
    fn is_idle(&self) -> bool {
        self.wire.requests_in_flight() == 0 && self.parked.is_empty()
    }

    fn has_room(&self) -> bool {
        self.wire.requests_in_flight() + self.parked.len() < self.pipeline
    }

    /// Does an answer have to come, or an operation?
    pub(crate) fn has_more(&self, thread: &Thread) -> bool {
        !self.is_finished && (!self.is_idle() || !thread.source.is_over_for(self.group))
    }

    /// Was the end of the stream asked for?
    pub(crate) fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// No answer will come any more, for this reason unless the socket was shut down for another.
    pub(crate) fn abandon(&mut self, thread: &mut Thread, end: ConnectionEnd) {
        thread.shared.end(self.shut_down_for.take().unwrap_or(end));
        for (slot, operation) in self.operations.iter_mut().enumerate() {
            let Some(operation) = operation.take() else {
                continue;
            };
            if let Some(process) = self.processes.get_mut(slot) {
                thread.record_silence(process, &operation);
            }
            thread.unanswered(&operation);
        }
        for (_, operation) in self.parked.drain(..) {
            thread.refused(&operation);
        }
    }

    /// Wakes the writer if there is something for it to do.
    pub(crate) fn wake_writer(&mut self) {
        if (self.is_over || !self.wire.bytes_to_send().is_empty())
            && let Some(writer) = self.writer.take()
        {
            writer.wake();
        }
    }

    fn submit(&mut self, thread: &mut Thread, operation: Operation) -> Result<(), ConnectionEnd> {
        let wire = &mut self.wire;
        let submitted = operation.with_request(thread, &mut self.value, |request| wire.submit(request));
        match submitted {
            Ok(slot) => {
                // The request is in a buffer: nothing is sent before this returns to the executor.
                if let Some(process) = self.processes.get(slot) {
                    thread.record_call(*process, &operation);
                }
                let place = &mut self.operations[slot];
                assert!(place.is_none(), "two requests in flight share a slot");
                *place = Some(operation);
                Ok(())
            }
            Err(reason) => {
                // Nothing went out, so a write is as good as refused.
                thread.refused(&operation);
                Err(ConnectionEnd::Broken(reason))
            }
        }
    }
}
