//! What happens to a session's connections: made, greeted, lost, given up.

use std::io;
use std::sync::Arc;

use ostrakon_wire::message::{ErrorCode, Request, Response};

use super::connection::{Connection, ConnectionId, Phase, Waiter};
use super::pauses::connect_pause_ns;
use super::{Duty, Session, nanoseconds};
use crate::error::{Error, ProtocolError};
use crate::protocol::Protocol;

impl Session {
    /// Asks for a connection although there is no call yet, so that a driver can tell its user whether a node is there.
    /// It is tried until there is one.
    pub fn open(&mut self, now_ns: u64) {
        self.see(now_ns);
        self.is_opening = !self.is_connected();
        self.want_any();
    }

    /// Is there a connection that takes calls?
    pub fn is_connected(&self) -> bool {
        self.connections.iter().any(Connection::is_open)
    }

    /// How often all addresses were tried in vain since the last answer.
    pub fn failed_rounds(&self) -> u32 {
        self.connections[0].failures / self.addresses.len() as u32
    }

    /// Why a connection failed or was lost the last time.
    pub fn last_failure(&self) -> Option<&Error> {
        self.last_failure.as_ref()
    }

    /// The address at a position of the list that the session was made with.
    ///
    /// # Panics
    /// If there is none.
    pub fn address(&self, position: usize) -> &str {
        &self.addresses[position]
    }

    /// The connection is made.
    pub fn connected(&mut self, now_ns: u64, id: ConnectionId) {
        self.see(now_ns);
        let connection = &mut self.connections[id.slot()];
        let Phase::Connecting { give_up_ns } = connection.phase else {
            return;
        };
        if !connection.is(id) {
            return;
        }
        let mut options = self.options.clone();
        options.core = connection.target;
        let protocol = Protocol::new(&options).expect("these options were tried when the session was made");
        connection.protocol = Some(protocol);
        connection.phase = Phase::Greeting { give_up_ns };
    }

    /// The connection can't be made.
    pub fn connect_failed(&mut self, now_ns: u64, id: ConnectionId, error: io::Error) {
        self.see(now_ns);
        if self.connections[id.slot()].is(id) {
            let error = self.connect_error(error);
            self.end_connection(id.slot, &error);
            self.pump();
        }
    }

    /// What is to be sent next on a connection.
    pub fn bytes_to_send(&self, id: ConnectionId) -> &[u8] {
        let connection = &self.connections[id.slot()];
        match &connection.protocol {
            Some(protocol) if connection.is(id) => protocol.bytes_to_send(),
            _ => &[],
        }
    }

    /// The first `count` bytes of [`Session::bytes_to_send`] went out.
    ///
    /// # Panics
    /// If that is more than there were.
    pub fn sent(&mut self, now_ns: u64, id: ConnectionId, count: usize) {
        self.see(now_ns);
        let connection = &mut self.connections[id.slot()];
        if !connection.is(id) {
            return;
        }
        if let Some(protocol) = &mut connection.protocol {
            protocol.sent(count);
            connection.note_silence(self.now_ns, false);
            self.mark_dirty(id.slot);
            self.pump();
        }
    }

    /// Room to read into; empty if nothing is to be read from this connection.
    pub fn receive_room(&mut self, id: ConnectionId) -> &mut [u8] {
        let connection = &mut self.connections[id.slot()];
        let is_meant = connection.is(id);
        match &mut connection.protocol {
            Some(protocol) if is_meant => protocol.receive_room(),
            _ => &mut [],
        }
    }

    /// `count` bytes were read into [`Session::receive_room`].
    ///
    /// # Panics
    /// If that is more than there was room for.
    pub fn received(&mut self, now_ns: u64, id: ConnectionId, count: usize) {
        self.see(now_ns);
        let connection = &mut self.connections[id.slot()];
        if !connection.is(id) {
            return;
        }
        if let Some(protocol) = &mut connection.protocol {
            protocol.received(count);
            connection.note_silence(self.now_ns, true);
            self.mark_readable(id.slot);
        }
    }

    /// The connection has ended. What was received before still counts.
    pub fn lost(&mut self, now_ns: u64, id: ConnectionId, error: io::Error) {
        self.see(now_ns);
        let connection = &self.connections[id.slot()];
        if !connection.is(id) || connection.ended_by.is_some() {
            return;
        }
        let error = if connection.phase == Phase::Up {
            Error::Lost {
                source: Arc::new(error),
            }
        } else {
            self.connect_error(error)
        };
        self.connections[id.slot()].ended_by = Some(error);
        self.mark_readable(id.slot);
    }

    fn connect_error(&self, error: io::Error) -> Error {
        Error::Connect {
            address: self.addresses[self.address].clone(),
            source: Arc::new(error),
        }
    }

    /// Some connection is needed.
    pub(super) fn want_any(&mut self) {
        let is_coming = |connection: &Connection| {
            connection.is_open()
                || matches!(
                    connection.phase,
                    Phase::Connecting { .. } | Phase::Greeting { .. }
                )
        };
        if !self.connections.iter().any(is_coming) {
            self.want(0);
        }
    }

    /// A connection to this core is needed.
    pub(super) fn want_core(&mut self, core: u16) {
        let is_its = |connection: &Connection| connection.target == Some(core);
        let slot = self.connections.iter().position(is_its).unwrap_or_else(|| {
            self.connections.push(Connection::new(Some(core)));
            self.connections.len() - 1
        });
        self.want(slot as u32);
    }

    fn want(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if connection.phase != Phase::Down {
            return;
        }
        connection.is_wanted = true;
        if connection.not_before_ns <= self.now_ns {
            let timeout_ns = nanoseconds(self.options.connect_timeout_ms);
            connection.begin(self.now_ns.saturating_add(timeout_ns));
            let duty = Duty::Connect {
                connection: connection.id(slot),
                address: self.address,
            };
            self.duties.push_back(duty);
        }
    }

    /// Looks whether a connection's time is up.
    pub(super) fn wake_connection(&mut self, slot: u32) {
        let connection = &self.connections[slot as usize];
        if connection.wake_ns(self.answer_timeout_ns) > self.now_ns {
            return;
        }
        let error = match connection.phase {
            Phase::Down => return self.want(slot),
            Phase::Connecting { .. } | Phase::Greeting { .. } => {
                let after_ms = self.options.connect_timeout_ms;
                self.connect_error(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no answer to the hello within {after_ms} ms"),
                ))
            }
            Phase::Up => Error::Timeout {
                after_ms: self.answer_timeout_ns.div_ceil(1_000_000),
            },
        };
        self.give_up_connection(slot, &error);
    }

    /// The server has answered the hello.
    pub(super) fn greeted(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        connection.phase = Phase::Up;
        self.is_opening = false;
        let server = connection.server().expect("the hello was answered").clone();
        // What was written, and is perhaps sent again, belongs to this cluster, whoever answers at these addresses.
        self.options.cluster_id = server.cluster_id;
        if let Some(sequences) = &mut self.sequences {
            sequences.set_window(server.session_window);
        }
        let core = usize::from(server.core);
        if self.of_core.len() <= core {
            self.of_core.resize(core + 1, None);
        }
        self.of_core[core].get_or_insert(slot);
        if self.options.core.is_none() && server.cores > 1 {
            // Without room for it the calls are not routed, which costs a hop and nothing else.
            let _ = connection.give(Waiter::Topology, |protocol| protocol.submit(&Request::Topology));
        }
        self.server = Some(server);
        self.hopeless_attempts = 0;
        for call in std::mem::take(&mut self.unrouted) {
            self.route(call);
        }
    }

    /// Takes the topology out of the response that a connection's protocol has found.
    pub(super) fn take_topology(&mut self, slot: u32) {
        let protocol = self.connections[slot as usize].protocol.as_mut();
        // A refusal leaves the calls unrouted; what can't be read is found by the next turn.
        if let Some(Ok(Response::Topology(topology))) = protocol.map(Protocol::response) {
            self.topology = Some(topology);
        }
    }

    /// The server has said that it goes down: the connection gets nothing more, and ends with its last answer.
    pub(super) fn drain(&mut self, slot: u32) {
        self.connections[slot as usize].is_draining = true;
        self.leave_core(slot);
        self.reroute_waiting(slot);
        self.mark_dirty(slot);
    }

    /// Ends a connection whose socket is still there.
    pub(super) fn give_up_connection(&mut self, slot: u32, error: &Error) {
        let connection = self.connections[slot as usize].id(slot);
        self.duties.push_back(Duty::Close { connection });
        self.end_connection(slot, error);
        self.pump();
    }

    /// Ends a connection: what it had not answered goes elsewhere, or ends as well.
    pub(super) fn end_connection(&mut self, slot: u32, error: &Error) {
        let was_up = self.connections[slot as usize].phase == Phase::Up;
        let was_draining = self.connections[slot as usize].is_draining;
        let given = self.take_given(slot);
        self.leave_core(slot);
        let connection = &mut self.connections[slot as usize];
        connection.phase = Phase::Down;
        connection.protocol = None;
        connection.ended_by = None;
        connection.failures += 1;
        let leaves_address = slot == 0 && (!was_up || was_draining);
        if leaves_address {
            self.address = (self.address + 1) % self.addresses.len();
        }
        // Within a round the next address is tried at once.
        let addresses = self.addresses.len() as u32;
        let is_round = connection.failures.is_multiple_of(addresses);
        let failed_rounds = if is_round {
            connection.failures / addresses
        } else {
            0
        };
        let pause_ns = connect_pause_ns(failed_rounds, &mut self.random);
        // The hint is about the address that gave it.
        let hint_ms = match error {
            Error::Server { retry_after_ms, .. } if is_round || !leaves_address => *retry_after_ms,
            _ => 0,
        };
        let pause_ns = pause_ns.max(u64::from(hint_ms) * 1_000_000);
        connection.not_before_ns = self.now_ns.saturating_add(pause_ns);
        self.last_failure = Some(error.clone());
        if !self.is_connected() {
            self.topology = None;
        }
        for (ordinal_went_out, call) in given {
            self.sending_lost(call, error, ordinal_went_out);
        }
        self.reroute_waiting(slot);
        self.note_hope(slot, error);
        if !self.unrouted.is_empty() || self.is_opening {
            self.want_any();
        }
    }

    /// The calls that a connection was given and did not answer, in their order, and whether each went out whole.
    fn take_given(&mut self, slot: u32) -> Vec<(bool, u32)> {
        let connection = &mut self.connections[slot as usize];
        let mut given = Vec::new();
        while let Some(waiter) = connection.take_any_waiter() {
            if let Waiter::Call(id) = waiter {
                let call = self.calls.find(id).expect("a call is waited for until it ends");
                given.push((self.calls.get(call).ordinal(), call));
            }
        }
        given.sort_unstable();
        let went_out = |(ordinal, call)| (connection.went_out(ordinal), call);
        given.into_iter().map(went_out).collect()
    }

    fn reroute_waiting(&mut self, slot: u32) {
        for call in std::mem::take(&mut self.connections[slot as usize].waiting) {
            self.route(call);
        }
    }

    /// Requests for the connection's core no longer go to it; to another one to the same core, if there is one.
    fn leave_core(&mut self, slot: u32) {
        let Some(place) = self.of_core.iter().position(|of_core| *of_core == Some(slot)) else {
            return;
        };
        let is_there = |other: &Connection| {
            let core = other.server().map(|server| usize::from(server.core));
            other.is_open() && core == Some(place)
        };
        let other = (0..self.connections.len() as u32)
            .find(|other| *other != slot && is_there(&self.connections[*other as usize]));
        self.of_core[place] = other;
    }

    /// Ends the calls that wait for a connection once every address has refused for a reason that time does not mend.
    fn note_hope(&mut self, slot: u32, error: &Error) {
        if slot != 0 {
            return;
        }
        let is_hopeless = match error {
            Error::Protocol(ProtocolError::Cluster { .. }) => true,
            Error::Protocol(_) => self.server.is_none(),
            Error::Server { code, .. } => matches!(
                code,
                ErrorCode::BadRequest
                    | ErrorCode::UnsupportedVersion
                    | ErrorCode::WrongCluster
                    | ErrorCode::TimestampAhead
            ),
            _ => false,
        };
        self.hopeless_attempts = if is_hopeless {
            self.hopeless_attempts + 1
        } else {
            0
        };
        if self.hopeless_attempts >= self.addresses.len() {
            for call in std::mem::take(&mut self.unrouted) {
                let ended = self.calls.get(call).ended_with(error.clone(), false);
                self.fail(call, ended);
            }
        }
    }
}
