//! The way of a session's calls: to a connection, out, back with an answer, and out again.

use ostrakon_wire::message::{ErrorCode, Kind, MultiPutReply, Request, Response, Retry};
use ostrakon_wire::routing::shard_of;

use super::Session;
use super::calls::{Call, CallId, NEVER_NS, Place};
use super::connection::{Phase, Waiter};
use super::pauses::refused_pause_ns;
use super::sequences::Sequences;
use crate::error::Error;

/// The memory for the next frame is given back if it is more than this.
const SCRATCH_KEEP_BYTES_MAX: usize = 64 * 1024;

/// What a refusal means for a request.
enum Refusal {
    /// Nothing was done, and it may be different soon.
    Passing,
    /// Nothing was done, and it will not be different.
    Final,
    /// Nobody knows what was done.
    Unknown,
}

impl Refusal {
    fn of(code: ErrorCode) -> Refusal {
        match code {
            ErrorCode::Busy
            | ErrorCode::DiskFull
            | ErrorCode::ShuttingDown
            | ErrorCode::TooManyConnections
            | ErrorCode::SessionWindow
            | ErrorCode::IdleTimeout => Refusal::Passing,
            ErrorCode::CoreFailed | ErrorCode::OutcomeUnknown | ErrorCode::Other(_) => Refusal::Unknown,
            ErrorCode::BadFrame
            | ErrorCode::BadRequest
            | ErrorCode::UnsupportedVersion
            | ErrorCode::WrongCluster
            | ErrorCode::MemoryFull
            | ErrorCode::TooLarge
            | ErrorCode::SnapshotTooOld
            | ErrorCode::TimestampAhead
            | ErrorCode::Cancelled
            | ErrorCode::NotANumber
            | ErrorCode::NumberOverflow
            | ErrorCode::NotOneShard
            | ErrorCode::Unreadable
            | ErrorCode::CheckpointFailed => Refusal::Final,
        }
    }
}

impl Session {
    /// Finds a connection for a call, or lets it wait for one.
    pub(super) fn route(&mut self, slot: u32) {
        let place = if let Some(connection) = self.choose(slot) {
            self.connections[connection as usize].waiting.push_back(slot);
            self.mark_dirty(connection);
            Place::Waiting { connection }
        } else {
            self.unrouted.push_back(slot);
            self.want_any();
            Place::Unrouted
        };
        self.calls.get_mut(slot).place = place;
    }

    fn choose(&mut self, slot: u32) -> Option<u32> {
        if let (Some(hash), Some(topology)) = (self.calls.get(slot).key_hash, &self.topology) {
            let shard = shard_of(hash, topology.shards());
            let core = topology.owners[shard.0 as usize];
            if let Some(Some(owner)) = self.of_core.get(usize::from(core)) {
                return Some(*owner);
            }
            // Another core passes the request on until its owner's connection is there.
            self.want_core(core);
        }
        let open = |connection: &u32| self.connections[*connection as usize].is_open();
        (0..self.connections.len() as u32)
            .filter(open)
            .min_by_key(|connection| self.connections[*connection as usize].load())
    }

    /// The connection may have got room, or calls for the room it has.
    pub(super) fn mark_dirty(&mut self, connection: u32) {
        let state = &mut self.connections[connection as usize];
        if !std::mem::replace(&mut state.listed.dirty, true) {
            self.dirty.push_back(connection);
        }
    }

    /// The connection may have a response.
    pub(super) fn mark_readable(&mut self, connection: u32) {
        let state = &mut self.connections[connection as usize];
        if !std::mem::replace(&mut state.listed.readable, true) {
            self.readable.push_back(connection);
        }
    }

    /// Gives waiting calls to connections as far as there is room.
    pub(super) fn pump(&mut self) {
        while let Some(connection) = self.dirty.pop_front() {
            self.connections[connection as usize].listed.dirty = false;
            while self.connections[connection as usize].has_room() {
                let Some(call) = self.connections[connection as usize].waiting.pop_front() else {
                    break;
                };
                self.send(call, connection);
            }
        }
    }

    fn send(&mut self, slot: u32, connection: u32) {
        if self.calls.get(slot).lacks_sequence() {
            let sequences = self.sequences.as_ref();
            let has_room = sequences.is_some_and(Sequences::has_room);
            if !has_room || !self.held_back.is_empty() {
                self.calls.get_mut(slot).place = Place::HeldBack;
                self.held_back.push_back(slot);
                return;
            }
            self.name(slot);
        }
        let id = self.calls.id(slot);
        let call = self.calls.get(slot);
        let timestamp = self.clock.highest();
        let given = self.connections[connection as usize].give(Waiter::Call(id), |protocol| {
            protocol.observe_timestamp(timestamp);
            protocol.submit_table(call.kind, call.body(), call.timings)
        });
        match given {
            Ok((request, ordinal)) => {
                self.calls.get_mut(slot).place = Place::Sent {
                    connection,
                    request,
                    ordinal,
                };
            }
            Err(error) => {
                let error = call.ended_with(Error::Submit(error), false);
                self.fail(slot, error);
            }
        }
    }

    /// Gives a write its name, once and for all its sendings.
    fn name(&mut self, slot: u32) {
        let sequences = self
            .sequences
            .as_mut()
            .expect("only a session's writes are named");
        let retry = sequences.next(&self.clock, self.now_ns);
        let call = self.calls.get_mut(slot);
        call.sequence = Some(retry.sequence);
        let request = named(Request::decode_trusted(call.kind as u16, call.body()), retry);
        let mut frame = std::mem::take(&mut self.scratch);
        self.encoder.request(&mut frame, 0, 0, &request);
        self.scratch = self.calls.replace_frame(slot, frame);
        if self.scratch.capacity() > SCRATCH_KEEP_BYTES_MAX {
            self.scratch = Vec::new();
        }
    }

    /// Lets writes go that the window no longer holds back. They get their names here, in their order.
    pub(super) fn release_held_back(&mut self) {
        while self.sequences.as_ref().is_some_and(Sequences::has_room) {
            let Some(slot) = self.held_back.pop_front() else {
                return;
            };
            self.name(slot);
            self.route(slot);
        }
    }

    /// Looks for the next response of the connection that is the first of the readable ones. `Some`: it is the answer
    /// to this call, which has ended, and is left in the connection's protocol.
    pub(super) fn take_response(&mut self, connection: u32) -> Option<(CallId, Kind)> {
        let state = &mut self.connections[connection as usize];
        let Some(protocol) = &mut state.protocol else {
            self.unmark_readable(connection);
            return None;
        };
        let advanced = protocol.advance();
        self.clock.observe(protocol.timestamp(), self.now_ns);
        let mut answered = None;
        match advanced {
            Ok(Some((request, kind))) => {
                match state.take_waiter(request) {
                    Waiter::Nobody => {}
                    Waiter::Topology => self.take_topology(connection),
                    Waiter::Call(id) => answered = self.answered(connection, id, kind),
                }
                self.connections[connection as usize].note_silence(self.now_ns, true);
                self.mark_dirty(connection);
                if answered.is_none() {
                    self.end_drained(connection);
                }
            }
            Ok(None) => {
                self.unmark_readable(connection);
                let state = &mut self.connections[connection as usize];
                if matches!(state.phase, Phase::Greeting { .. }) && state.server().is_some() {
                    self.greeted(connection);
                }
                self.mark_dirty(connection);
                if let Some(error) = self.connections[connection as usize].ended_by.take() {
                    self.end_connection(connection, &error);
                } else {
                    self.end_drained(connection);
                }
            }
            Err(error) => {
                self.unmark_readable(connection);
                let error = Error::from(error);
                self.give_up_connection(connection, &error);
            }
        }
        self.pump();
        answered
    }

    fn unmark_readable(&mut self, connection: u32) {
        let first = self.readable.pop_front();
        assert!(
            first == Some(connection),
            "the first readable connection is looked at"
        );
        self.connections[connection as usize].listed.readable = false;
    }

    /// Ends a connection to a server that goes down, once all is answered and the last answer was taken.
    fn end_drained(&mut self, connection: u32) {
        let state = &self.connections[connection as usize];
        if state.is_draining && state.ended_by.is_none() && state.load() == 0 {
            let error = Error::Server {
                code: ErrorCode::ShuttingDown,
                message: "the node is going down".to_owned(),
                retry_after_ms: 0,
            };
            self.give_up_connection(connection, &error);
        }
    }

    /// A response for a call is there. `Some`: it is the call's end.
    fn answered(&mut self, connection: u32, id: CallId, kind: Kind) -> Option<(CallId, Kind)> {
        self.connections[connection as usize].failures = 0;
        let slot = self.calls.find(id).expect("a call is waited for until it ends");
        let protocol = self.connections[connection as usize].protocol.as_mut();
        let protocol = protocol.expect("it has found a response");
        let refusal = match kind {
            Kind::Error | Kind::MultiPutReply | Kind::DeleteRangeReply => protocol.response(),
            _ => Ok(Response::Pong),
        };
        let mut says_all = false;
        let (code, message, retry_after_ms) = match &refusal {
            Ok(Response::Error(error)) => (error.code, error.message.to_owned(), error.retry_after_ms),
            Ok(Response::MultiPut(reply)) => {
                let codes = || reply.codes.iter().flatten();
                says_all = note_entries(self.calls.get_mut(slot), reply);
                let passing = codes().find(|code| matches!(Refusal::of(**code), Refusal::Passing));
                // Of several reasons the one counts for which it is worth while to try again.
                match passing.or(codes().next()) {
                    Some(code) => (*code, reply.message.to_owned(), reply.retry_after_ms),
                    None => return Some(self.ended(slot)),
                }
            }
            Ok(Response::DeleteRange(reply)) => match &reply.error {
                Some(error) => {
                    let may_be_done = reply.applied > 0 || reply.unknown > 0;
                    self.calls.get_mut(slot).may_be_written.push(may_be_done);
                    (error.code, error.message.to_owned(), error.retry_after_ms)
                }
                None => return Some(self.ended(slot)),
            },
            // A refusal that can't be read is no reason to go on.
            _ => return Some(self.ended(slot)),
        };
        let refusal = Error::Server {
            code,
            message,
            retry_after_ms,
        };
        if self.goes_on_after(slot, connection, code, retry_after_ms, &refusal) {
            return None;
        }
        if says_all {
            // The entries that were written count, and each of the others has its own reason.
            return Some(self.ended(slot));
        }
        let call = self.calls.get(slot);
        let error = if call.sequence.is_some() && is_remembered(code) {
            refusal
        } else {
            let is_unknown = matches!(Refusal::of(code), Refusal::Unknown);
            call.ended_with(refusal, is_unknown)
        };
        self.fail(slot, error);
        None
    }

    fn ended(&mut self, slot: u32) -> (CallId, Kind) {
        let ended = (self.calls.id(slot), self.calls.get(slot).kind);
        self.end(slot);
        ended
    }

    /// After a refusal: will the call be sent again?
    fn goes_on_after(
        &mut self,
        slot: u32,
        connection: u32,
        code: ErrorCode,
        retry_after_ms: u32,
        refusal: &Error,
    ) -> bool {
        let call = self.calls.get_mut(slot);
        if !call.is_repeatable || !matches!(Refusal::of(code), Refusal::Passing) {
            return false;
        }
        let pause_ns = refused_pause_ns(retry_after_ms, call.refusals, &mut self.random);
        let until_ns = self.now_ns.saturating_add(pause_ns);
        let is_in_time = until_ns < call.deadline_ns;
        if is_in_time {
            call.refusals += 1;
            call.last_error = Some(refusal.clone());
            call.place = Place::Paused { until_ns };
            self.calls.wake_at(slot, until_ns);
        }
        if code == ErrorCode::ShuttingDown && self.connections[connection as usize].is_open() {
            self.drain(connection);
        }
        is_in_time
    }

    /// The connection was lost before it answered a call that it had been given.
    pub(super) fn sending_lost(&mut self, slot: u32, error: &Error, went_out: bool) {
        let call = self.calls.get_mut(slot);
        if went_out && !call.is_repeatable {
            let error = call.ended_with(error.clone(), true);
            self.fail(slot, error);
            return;
        }
        call.was_lost |= went_out;
        call.last_error = Some(error.clone());
        self.route(slot);
    }

    /// A call wants to be looked at.
    pub(super) fn wake(&mut self, slot: u32) {
        let call = self.calls.get(slot);
        if call.deadline_ns <= self.now_ns {
            self.expire(slot);
        } else {
            assert!(
                matches!(call.place, Place::Paused { .. }),
                "a call woken up for nothing"
            );
            self.calls.wake_at(slot, NEVER_NS);
            self.route(slot);
        }
    }

    fn expire(&mut self, slot: u32) {
        let is_sent = matches!(self.calls.get(slot).place, Place::Sent { .. });
        self.leave_place(slot);
        let call = self.calls.get_mut(slot);
        let timeout = Error::Timeout {
            after_ms: call.timeout_ms,
        };
        let failure = match call.place {
            Place::Unrouted => self.last_failure.clone(),
            _ => None,
        };
        let reason = call.last_error.take().filter(|_| !is_sent);
        let error = failure.or(reason).unwrap_or(timeout);
        let error = self.calls.get(slot).ended_with(error, is_sent);
        self.fail(slot, error);
    }
}

/// Is a refusal with this code the answer to all sendings of a write with a name, as that of a write that was done?
fn is_remembered(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::NotANumber | ErrorCode::NumberOverflow)
}

/// Notes what a reply to a multi-put says of its entries. Does that hold for all sendings? It doesn't if one was lost,
/// or if an entry is refused now that may have been written before.
fn note_entries(call: &mut Call, reply: &MultiPutReply<'_>) -> bool {
    let mut says_all = !call.was_lost;
    call.may_be_written.resize(reply.versions.len(), false);
    for (entry, may_be_written) in call.may_be_written.iter_mut().enumerate() {
        let code = reply.codes.get(entry).copied().flatten();
        if code.is_none_or(|code| matches!(Refusal::of(code), Refusal::Unknown)) {
            *may_be_written = true;
        } else {
            says_all &= !*may_be_written;
        }
    }
    says_all
}

/// The write with its name.
fn named(mut request: Request<'_>, name: Retry) -> Request<'_> {
    match &mut request {
        Request::Put { retry, .. }
        | Request::Delete { retry, .. }
        | Request::Add { retry, .. }
        | Request::MultiPut { retry, .. }
        | Request::Batch { retry, .. }
        | Request::DeleteRange { retry, .. } => *retry = Some(name),
        _ => unreachable!("only writes are named"),
    }
    request
}
