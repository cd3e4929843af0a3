//! From outcomes to bytes: answers to local clients go into their connection's send buffer, answers to
//! clients of other cores into the outbox towards their gateway.

use std::collections::BTreeMap;

use ostrakon_core::hlc::Timestamp;
use ostrakon_wire::message::{Encoder, ErrorCode};

use super::connection::Connections;
use super::core::{Core, describe};
use super::gather::PendingScan;
use super::message::ForwardedResponse;
use super::outbox::Outbox;
use super::status::counters::{CoreCounters, Operation};
use crate::env::CoreId;
use crate::shard::{Completions, Refusal, ScanId, Ticket};

/// Where a core's answers go, apart from its shards: shards complete requests into it.
pub(super) struct Answers {
    core: CoreId,
    /// Monotonic time of the current turn, in nanoseconds.
    pub(super) turn_ns: u64,
    /// The core's clock when the answers under way began; above every version in them.
    pub(super) timestamp: Timestamp,
    /// The core's connections.
    pub(super) connections: Connections,
    /// Messages to each core; the one towards itself stays empty.
    pub(super) outboxes: Vec<Outbox>,
    pub(super) encoder: Encoder,
    pub(super) counters: CoreCounters,
    /// Scans that wait for this core's shards.
    pub(super) pending_scans: BTreeMap<ScanId, PendingScan>,
}

impl Answers {
    /// For a core, one of `cores`, without connections.
    pub(super) fn new(core: CoreId, cores: u16) -> Answers {
        Answers {
            core,
            turn_ns: 0,
            timestamp: Timestamp::ZERO,
            connections: Connections::default(),
            outboxes: (0..cores).map(|_| Outbox::default()).collect(),
            encoder: Encoder::new(),
            counters: CoreCounters::new(),
            pending_scans: BTreeMap::new(),
        }
    }

    /// Sends the frame that `encode` appends to whoever holds the ticket.
    pub(super) fn answer(
        &mut self,
        ticket: Ticket,
        is_write: bool,
        encode: impl FnOnce(&mut Encoder, &mut Vec<u8>),
    ) {
        if ticket.gateway == self.core {
            let latency_ns = self.turn_ns.saturating_sub(ticket.received_ns);
            self.counters.answered(Operation::of_tag(ticket.tag), latency_ns);
            // The client may be gone; then there is nobody to tell.
            if let Some(out) = self.connections.answer(ticket.connection) {
                encode(&mut self.encoder, out);
            }
        } else {
            let response = ForwardedResponse {
                connection: ticket.connection,
                request_id: ticket.request_id,
                received_ns: ticket.received_ns,
                operation: Operation::of_tag(ticket.tag),
                is_write,
                frame: 0..0,
            };
            let encoder = &mut self.encoder;
            self.outboxes[ticket.gateway.index()].response(response, |out| encode(encoder, out));
        }
    }

    /// Answers with an error.
    pub(super) fn error(
        &mut self,
        ticket: Ticket,
        is_write: bool,
        code: ErrorCode,
        message: &str,
        retry_after_ms: u32,
    ) {
        self.counters.refused(Operation::of_tag(ticket.tag), code);
        let timestamp = self.timestamp.0;
        self.answer(ticket, is_write, |encoder, out| {
            encoder.error(out, ticket.request_id, timestamp, code, message, retry_after_ms);
        });
    }
}

impl Completions for Answers {
    fn written(&mut self, ticket: Ticket, applied: bool, version: Timestamp) {
        let timestamp = self.timestamp.0;
        self.answer(ticket, true, |encoder, out| {
            encoder.write_reply(out, ticket.request_id, timestamp, applied, version.0);
        });
    }

    fn scan_ready(&mut self, scan: ScanId) {
        // A scan that was refused half-way is not there any more.
        if let Some(pending) = self.pending_scans.get_mut(&scan) {
            pending.waiting -= 1;
        }
    }
}

impl Core {
    /// For answers that carry the core's clock as it is now.
    pub(super) fn answers(&mut self) -> &mut Answers {
        self.answers.timestamp = self.host.hlc().peek();
        &mut self.answers
    }

    /// Answers that a request was refused.
    pub(super) fn refuse(&mut self, ticket: Ticket, refusal: Refusal, is_write: bool) {
        let (code, message, retry_after_ms) = describe(refusal);
        self.answers()
            .error(ticket, is_write, code, message, retry_after_ms);
    }

    /// Passes another core's response to its connection. A read's answer for which the client leaves no room
    /// is dropped in favour of `Busy`: nothing is lost by it.
    pub(super) fn pass_response(&mut self, response: &ForwardedResponse, bytes: &[u8]) {
        if !response.is_write && self.answers.connections.is_full(response.connection) {
            let ticket = Ticket {
                gateway: self.id(),
                connection: response.connection,
                request_id: response.request_id,
                received_ns: response.received_ns,
                tag: response.operation.tag(),
            };
            return self.refuse(ticket, Refusal::Busy, false);
        }
        let latency_ns = self.answers.turn_ns.saturating_sub(response.received_ns);
        self.answers.counters.answered(response.operation, latency_ns);
        if let Some(out) = self.answers.connections.answer(response.connection) {
            out.extend_from_slice(&bytes[response.frame.clone()]);
        }
    }
}
