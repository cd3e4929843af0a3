//! From outcomes to bytes: answers to local clients go into their connection's send buffer, answers to
//! clients of other cores into the outbox towards their gateway.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::sessions::{Answer, Failure};
use ostrakon_wire::frame::{StageTimings, change_timings, insert_timings};
use ostrakon_wire::message::{BatchReply, Encoder, ErrorCode, Kind};
use ostrakon_wire::routing::ShardId;

use super::connection::Connections;
use super::core::Core;
use super::message::{CoreMessage, ForwardedResponse, GatherId};
use super::outbox::Outbox;
use super::programs::{Programs, Told};
use super::reads::{PendingRead, ReadKind};
use super::refusal::describe;
use super::status::counters::{CoreCounters, Operation, Stage};
use crate::env::{Clock, CoreId};
use crate::shard::{Completions, Holder, ReadId, Refusal, Ticket};

/// Where a core's answers go, apart from its shards: shards complete requests into it.
pub(super) struct Answers {
    core: CoreId,
    clock: Rc<dyn Clock>,
    /// Monotonic time of the current turn, in nanoseconds.
    pub(super) turn_ns: u64,
    /// True while a durable batch of the log is what the turn is about.
    pub(super) is_log_turn: bool,
    /// The core's clock when the answers under way began; above every version in them.
    pub(super) timestamp: Timestamp,
    /// The core's connections.
    pub(super) connections: Connections,
    /// Messages to each core; the one towards itself stays empty.
    pub(super) outboxes: Vec<Outbox>,
    pub(super) encoder: Encoder,
    /// What programs in this process wait for.
    pub(super) programs: Programs,
    pub(super) counters: CoreCounters,
    /// What was answered in this turn, and when its last byte had come.
    answered: Vec<(Operation, u64)>,
    /// Reads that wait for this core's shards.
    pub(super) pending_reads: BTreeMap<ReadId, PendingRead>,
    /// Those of them that wait for none any more, in the order in which they came to this.
    pub(super) ready_reads: VecDeque<ReadId>,
    /// What became of the parts of this core's multi-puts and delete-ranges since the turn began.
    pub(super) put_parts: Vec<(GatherId, ShardId, Result<Timestamp, Refusal>)>,
}

impl Answers {
    /// For a core, one of `cores`, without connections.
    pub(super) fn new(core: CoreId, cores: u16, clock: Rc<dyn Clock>, connections: Connections) -> Answers {
        Answers {
            core,
            clock,
            turn_ns: 0,
            is_log_turn: false,
            timestamp: Timestamp::ZERO,
            connections,
            outboxes: (0..cores).map(|_| Outbox::default()).collect(),
            encoder: Encoder::new(),
            programs: Programs::default(),
            counters: CoreCounters::new(),
            answered: Vec::new(),
            pending_reads: BTreeMap::new(),
            ready_reads: VecDeque::new(),
            put_parts: Vec::new(),
        }
    }

    /// Sends the frame that `encode` appends to whoever holds the ticket.
    pub(super) fn answer(&mut self, ticket: Ticket, encode: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        let timings = ticket.is_timed.then(|| self.timings(&ticket));
        let is_own = ticket.gateway == self.core;
        if is_own {
            self.note_answered(&ticket);
        }
        let encoder = &mut self.encoder;
        let encode = |out: &mut Vec<u8>| {
            let start = out.len();
            encode(encoder, out);
            if let Some(timings) = timings {
                insert_timings(out, start, &timings);
            }
        };
        if is_own {
            // The client may be gone; then there is nobody to tell.
            self.connections.answer(ticket.connection, encode);
        } else {
            let response = ForwardedResponse { ticket, frame: 0..0 };
            self.outboxes[ticket.gateway.index()].response(response, encode);
        }
    }

    /// Ends what a program waits for.
    pub(super) fn tell_program(&mut self, ticket: Ticket, told: Told) {
        if let Told::Refused(refusal) = &told {
            let operation = Operation::of_kind(ticket.kind);
            self.counters.refused(operation, describe(*refusal).0);
        }
        self.note_answered(&ticket);
        self.programs.tell(ticket.request_id, told);
    }

    fn note_answered(&mut self, ticket: &Ticket) {
        self.answered
            .push((Operation::of_kind(ticket.kind), ticket.received_ns));
        let queue_ns = ticket.decoded_ns.saturating_sub(ticket.received_ns);
        if queue_ns > 0 {
            self.counters.stage(Stage::Queue, queue_ns);
        }
    }

    /// Counts what was answered in this turn: the answers go out after it.
    pub(super) fn count_answered(&mut self) {
        if self.answered.is_empty() {
            return;
        }
        let now_ns = self.clock.monotonic().0;
        for (operation, received_ns) in self.answered.drain(..) {
            self.counters
                .answered(operation, now_ns.saturating_sub(received_ns));
        }
    }

    /// Answers with an error of this core's making.
    pub(super) fn error(&mut self, ticket: Ticket, code: ErrorCode, message: &str, retry_after_ms: u32) {
        self.counters.refused(Operation::of_kind(ticket.kind), code);
        let timestamp = self.timestamp.0;
        self.answer(ticket, |encoder, out| {
            encoder.error(out, ticket.request_id, timestamp, code, message, retry_after_ms);
        });
    }

    /// Keeps a read until so many shards of this core are readable.
    pub(super) fn wait(&mut self, read: ReadId, kind: ReadKind, waiting: usize) {
        if waiting == 0 {
            self.ready_reads.push_back(read);
        }
        self.pending_reads.insert(read, PendingRead { kind, waiting });
    }

    /// Tells what became of one shard's part of a multi-put or delete-range.
    fn put_part(&mut self, ticket: Ticket, part: Result<Timestamp, Refusal>) {
        let (gather, shard) = (GatherId(ticket.connection), ShardId(ticket.request_id as u32));
        if ticket.gateway == self.core {
            self.put_parts.push((gather, shard, part));
        } else {
            self.outboxes[ticket.gateway.index()].push(CoreMessage::Part(gather, shard, part));
        }
    }

    /// Where the time of a request went until now.
    fn timings(&self, ticket: &Ticket) -> StageTimings {
        let since = |later: u64, earlier: u64| later.saturating_sub(earlier);
        let queue_ns = since(ticket.decoded_ns, ticket.received_ns);
        let hop_ns = since(ticket.executed_ns, ticket.decoded_ns);
        let log_ns = if self.is_log_turn {
            since(self.turn_ns, ticket.executed_ns)
        } else {
            0
        };
        let total_ns = since(self.clock.monotonic().0, ticket.received_ns).max(queue_ns + hop_ns + log_ns);
        StageTimings {
            queue_ns,
            hop_ns,
            log_ns,
            apply_ns: total_ns - queue_ns - hop_ns - log_ns,
            total_ns,
        }
    }

    fn failed(&mut self, ticket: Ticket, failure: Failure) {
        let timestamp = self.timestamp.0;
        let refusal = match failure {
            Failure::ConditionFailed { version, operation } => {
                let reply = BatchReply {
                    applied: false,
                    version: version.0,
                    failed: operation,
                    numbers: Vec::new(),
                };
                return self.answer(ticket, |encoder, out| match ticket.kind {
                    Kind::Batch => encoder.batch_reply(out, ticket.request_id, timestamp, &reply),
                    _ => encoder.write_reply(out, ticket.request_id, timestamp, false, version.0),
                });
            }
            Failure::NotANumber { operation } => (
                ErrorCode::NotANumber,
                operation,
                "the key's value is not a number in decimal digits, as an add needs it: nothing was written",
            ),
            Failure::NumberOverflow { operation } => (
                ErrorCode::NumberOverflow,
                operation,
                "the sum has more than 64 bits: nothing was written",
            ),
        };
        let (code, operation, sentence) = refusal;
        if ticket.kind == Kind::Batch {
            self.error(
                ticket,
                code,
                &format!("operation {operation} of the batch: {sentence}"),
                0,
            );
        } else {
            self.error(ticket, code, sentence, 0);
        }
    }
}

impl Completions for Answers {
    fn decided(&mut self, ticket: Ticket, answer: &Answer) {
        if self.is_log_turn {
            let log_ns = self.turn_ns.saturating_sub(ticket.executed_ns);
            self.counters.stage(Stage::Log, log_ns);
        }
        if !is_answer_to(ticket.kind, answer) {
            return self.refused(ticket, Refusal::OtherWrite);
        }
        if ticket.holder == Holder::Program {
            return self.tell_program(ticket, Told::Written(answer.clone()));
        }
        let (version, numbers) = match answer {
            Answer::Applied { version, numbers } => (*version, numbers.as_slice()),
            Answer::Failed(failure) => return self.failed(ticket, *failure),
        };
        let timestamp = self.timestamp.0;
        let request_id = ticket.request_id;
        match (ticket.kind, numbers) {
            _ if ticket.holder == Holder::Part => self.put_part(ticket, Ok(version)),
            (Kind::Add, [number, ..]) => self.answer(ticket, |encoder, out| {
                encoder.add_reply(out, request_id, timestamp, version.0, *number);
            }),
            (Kind::Batch, numbers) => {
                let reply = BatchReply {
                    applied: true,
                    version: version.0,
                    failed: 0,
                    numbers: numbers.to_vec(),
                };
                self.answer(ticket, |encoder, out| {
                    encoder.batch_reply(out, request_id, timestamp, &reply);
                });
            }
            _ => self.answer(ticket, |encoder, out| {
                encoder.write_reply(out, request_id, timestamp, true, version.0);
            }),
        }
    }

    fn refused(&mut self, ticket: Ticket, refusal: Refusal) {
        match ticket.holder {
            Holder::Part => return self.put_part(ticket, Err(refusal)),
            Holder::Program => return self.tell_program(ticket, Told::Refused(refusal)),
            Holder::Client => {}
        }
        let (code, message, retry_after_ms) = describe(refusal);
        self.error(ticket, code, &message, retry_after_ms);
    }

    fn read_ready(&mut self, read: ReadId) {
        // A read that was refused half-way is not there any more.
        if let Some(pending) = self.pending_reads.get_mut(&read) {
            pending.waiting -= 1;
            if pending.waiting == 0 {
                self.ready_reads.push_back(read);
            }
        }
    }
}

/// Can a write of this kind have been answered so? If not, its sequence named another write before: sessions remember
/// answers, and not what they answer.
fn is_answer_to(kind: Kind, answer: &Answer) -> bool {
    match (kind, answer) {
        (Kind::Batch, _) => true,
        (Kind::Add, Answer::Applied { numbers, .. }) => numbers.as_slice().len() == 1,
        (_, Answer::Applied { numbers, .. }) => numbers.as_slice().is_empty(),
        (Kind::MultiPut | Kind::DeleteRange, Answer::Failed(_)) => false,
        (Kind::Add, Answer::Failed(failure)) => !matches!(failure, Failure::ConditionFailed { .. }),
        (_, Answer::Failed(failure)) => matches!(failure, Failure::ConditionFailed { .. }),
    }
}

impl Core {
    /// For answers that carry the core's clock as it is now.
    pub(super) fn answers(&mut self) -> &mut Answers {
        self.answers.timestamp = self.host.hlc().peek();
        &mut self.answers
    }

    /// Answers that a request was refused.
    pub(super) fn refuse(&mut self, ticket: Ticket, refusal: Refusal) {
        self.answers().refused(ticket, refusal);
    }

    /// Passes another core's response to its connection. A read's answer for which the client leaves no room
    /// is dropped in favour of `Busy`: nothing is lost by it.
    pub(super) fn pass_response(&mut self, response: &ForwardedResponse, bytes: &mut [u8]) {
        let ticket = response.ticket;
        if !ticket.kind.is_write() && self.answers.connections.is_full(ticket.connection) {
            return self.refuse(ticket, Refusal::Busy);
        }
        let frame = &mut bytes[response.frame.clone()];
        if ticket.is_timed {
            let now_ns = self.env.clock.monotonic().0;
            change_timings(frame, |timings| {
                let total_ns = now_ns.saturating_sub(ticket.received_ns).max(timings.total_ns);
                timings.hop_ns += total_ns - timings.total_ns;
                timings.total_ns = total_ns;
            });
        }
        self.answers.note_answered(&ticket);
        self.answers
            .connections
            .answer(ticket.connection, |out| out.extend_from_slice(frame));
    }
}
