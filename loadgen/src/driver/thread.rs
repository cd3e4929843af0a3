//! What all connections of one executor share: where operations come from, and what follows from answers.
//!
//! Latency of an operation runs from the moment it was due until its last answer is decoded, retries after a
//! `Busy` answer included. In a closed loop it is due when a connection is free for it. Each request is
//! measured too; the first request of an operation from the moment the operation was due. Operations that
//! were due in the warm-up are measured into the time series and nothing else.

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use ostrakon_client::{ErrorCode, Response, StageTimings};
use ostrakon_wire::message::{ErrorReply, ScanReply};

use super::Shared;
use super::ledger::{Ledger, Write};
use super::operation::{Operation, ReadPart, ScanStage, Stage, Timed, WritePart};
use super::source::{Drawn, Source, Taken};
use crate::counters::{self, Counters};
use crate::history::{Process, Recorder};
use crate::keys::KeyIndex;
use crate::register::{Violation, ViolationKind};
use crate::series::SeriesRecorder;
use crate::statistics::{ErrorLabel, LiveCounters, Measure, Statistics};
use crate::target::{Answer, is_unknown};
use crate::value::ValueSize;
use crate::workload::OperationKind;

/// An operation that is still refused as `Busy` after this time counts as an error.
const BUSY_PATIENCE: Duration = Duration::from_secs(10);

/// Before an operation is sent again that a node which goes down, or a failed core, has refused; doubled each time.
const RESEND_PAUSE_MIN: Duration = Duration::from_millis(20);

/// It grows to this, unless the node asks for more.
const RESEND_PAUSE_MAX: Duration = Duration::from_secs(1);

/// See the head of the module.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) source: Source,
    pub(crate) ledger: Ledger,
    pub(crate) statistics: Statistics,
    pub(crate) series: SeriesRecorder,
    pub(crate) shared: Arc<Shared>,
    /// Of this executor among those of `shared`.
    pub(crate) live_index: usize,
    pub(crate) value_size: ValueSize,
    /// Of puts that expire.
    pub(crate) ttl_ms: u64,
    pub(crate) counters: Arc<Counters>,
    /// Every so manieth request asks for timings; 0: none does.
    pub(crate) stages_every: u32,
    /// Requests since the last one that did.
    pub(crate) untimed: u32,
    /// If writes are in sessions: how long they are tried again after an answer that says nothing of their outcome.
    pub(crate) retry_for: Option<Duration>,
    /// Room of multi-gets that are over, for those to come.
    pub(crate) spare_reads: Vec<Vec<ReadPart>>,
    /// Room of multi-puts that are over.
    pub(crate) spare_writes: Vec<Vec<WritePart>>,
    /// If there is a history.
    pub(crate) recorder: Option<Recorder>,
    /// Of the dispatcher, while it waits to be called.
    pub(crate) dispatcher: Option<Waker>,
    /// Does it wait for a connection that has room, since operations are due and none has?
    pub(crate) is_saturated: bool,
    /// Has a connection been told to wait since the dispatcher last looked?
    pub(crate) is_hungry: bool,
}

/// What follows from an answer.
pub(crate) enum Next {
    /// The operation is over.
    Done,
    /// It goes on with this request.
    Submit(Operation),
    /// It is sent again after a while.
    Park {
        operation: Operation,
        after: Duration,
        /// Who calls, for the recorder, if the request is still the same.
        caller: Option<Process>,
        /// Over another connection, since the node goes down.
        leaves_node: bool,
    },
}

impl Thread {
    /// The next operation for a connection of this group that has room for it.
    pub(crate) fn next_operation(&mut self, group: usize, now: Instant) -> Option<Operation> {
        if self.shared.is_stopped() {
            self.source.stop();
        }
        match self.source.take(group, now) {
            Taken::Operation(drawn) => {
                // Its taking may have made room in a stash, or filled one for somebody who waits.
                if self.is_hungry && self.source.is_grouped() {
                    self.call_dispatcher();
                }
                Some(self.begin(&drawn, now))
            }
            Taken::NotYet => {
                self.is_hungry = true;
                if self.is_saturated || self.source.is_grouped() {
                    self.call_dispatcher();
                }
                None
            }
            Taken::Over => {
                self.call_dispatcher();
                None
            }
        }
    }

    /// Wakes the dispatcher, if it waits to be called.
    pub(crate) fn call_dispatcher(&mut self) {
        if let Some(dispatcher) = self.dispatcher.take() {
            dispatcher.wake();
        }
    }

    fn begin(&mut self, drawn: &Drawn, now: Instant) -> Operation {
        let stage = match drawn.kind {
            OperationKind::Read | OperationKind::ReadModifyWrite => {
                Stage::Read(self.ledger.begin_read(drawn.key))
            }
            OperationKind::Insert | OperationKind::Update | OperationKind::PutExpiring => {
                Stage::Write(self.ledger.begin_write(drawn.key))
            }
            OperationKind::Delete => Stage::Delete,
            OperationKind::Add => {
                let counter = self.counters.of_record(drawn.key);
                Stage::Add(self.counters.begin_add(counter))
            }
            OperationKind::Scan | OperationKind::ReverseScan => Stage::Scan(ScanStage {
                wanted: drawn.records,
                snapshot: 0,
                resume_key: None,
                is_reverse: drawn.kind == OperationKind::ReverseScan,
            }),
            OperationKind::MultiRead => {
                let mut parts = self.spare_reads.pop().unwrap_or_default();
                parts.extend((0..drawn.records).map(|place| {
                    let key = drawn.key_at(place);
                    let read = self.ledger.begin_read(key);
                    ReadPart { key, read }
                }));
                Stage::MultiRead(parts)
            }
            OperationKind::MultiUpdate => {
                let mut parts = self.spare_writes.pop().unwrap_or_default();
                parts.extend((0..drawn.records).map(|place| {
                    let key = drawn.key_at(place);
                    WritePart {
                        key,
                        write: self.ledger.begin_write(key),
                        is_settled: false,
                        is_unknown: false,
                    }
                }));
                Stage::MultiWrite(parts)
            }
        };
        Operation {
            drawn: *drawn,
            stage,
            handed_at: now,
            requested_at: drawn.due_at,
            timed_from: None,
            issued: None,
            may_be_applied: false,
            repeats: 0,
        }
    }

    /// Shall the next request ask for timings?
    pub(crate) fn wants_timings(&mut self) -> bool {
        if self.stages_every == 0 {
            return false;
        }
        self.untimed += 1;
        if self.untimed < self.stages_every {
            return false;
        }
        self.untimed = 0;
        true
    }

    /// An answer without error came with timings.
    pub(crate) fn record_stages(&mut self, timed: Timed, timings: &StageTimings) {
        if self.source.is_measured(timed.due_at) {
            let latency_ns = nanoseconds(timed.latency);
            self.statistics.stages.record(timed.measure, latency_ns, timings);
        }
    }

    /// Judges an answer.
    pub(crate) fn answered(&mut self, mut operation: Operation, answer: &Answer<'_>, now: Instant) -> Next {
        let response = match answer {
            Answer::Response(response) => response,
            Answer::RedisError(line) => {
                let word = line.split(' ').next().unwrap_or_default();
                self.refused(&operation);
                self.failed(&operation, ErrorLabel::Word(word.to_owned()), line, now);
                return Next::Done;
            }
        };
        let requested_at = operation.requested_at;
        match (&mut operation.stage, response) {
            (_, Response::Error(error)) => return self.error_answered(operation, error, now),
            (Stage::Read(read), Response::Get { found }) => {
                let found = found.map(|found| (found.version, found.value));
                let judged = self.ledger.read_answered(read, found);
                self.judge(judged);
                self.count_not_found(&operation, u64::from(found.is_none()));
                self.record(Measure::Read, &operation, requested_at, now);
                if operation.drawn.kind == OperationKind::ReadModifyWrite {
                    operation.stage = Stage::Write(self.ledger.begin_write(operation.drawn.key));
                    operation.requested_at = now;
                    return Next::Submit(operation);
                }
            }
            (Stage::Write(write), Response::Write { applied, version }) => {
                let write = *write;
                self.write_answered(operation.drawn.key, &write, *applied, *version);
                self.record(operation.measure(), &operation, requested_at, now);
                if operation.drawn.kind == OperationKind::ReadModifyWrite {
                    self.record(Measure::ReadModifyWrite, &operation, operation.drawn.due_at, now);
                }
            }
            (Stage::Delete, Response::Write { .. }) => {
                self.record(Measure::Delete, &operation, requested_at, now);
            }
            (Stage::Add(ticket), Response::Add { number, .. }) => {
                let judged = self.counters.acknowledged(ticket, *number);
                self.judge(judged);
                self.record(Measure::Add, &operation, requested_at, now);
            }
            (Stage::Scan(scan), Response::Scan(reply)) => {
                self.take_page(scan, reply, operation.drawn.due_at);
                if scan.resume_key.is_some() {
                    return Next::Submit(operation);
                }
                self.record(operation.measure(), &operation, requested_at, now);
            }
            (Stage::MultiRead(_), Response::MultiGet { values }) => {
                return self.multi_read_answered(operation, *values, now);
            }
            (Stage::MultiWrite(_), Response::MultiPut(reply)) => {
                return self.multi_write_answered(operation, reply, now);
            }
            _ => unreachable!("the protocol lets no response through that does not fit its request"),
        }
        self.done(&operation, now);
        Next::Done
    }

    /// The operation is sent again after a while, or has failed.
    fn error_answered(&mut self, mut operation: Operation, error: &ErrorReply<'_>, now: Instant) -> Next {
        if let Some(after) = self.pause_before_repeat(&operation, error.code, error.retry_after_ms, now) {
            self.count_repeat(error.code);
            operation.repeats += 1;
            operation.may_be_applied |= operation.is_write() && is_unknown(error.code);
            return Next::Park {
                operation,
                after,
                caller: None,
                leaves_node: error.code == ErrorCode::ShuttingDown,
            };
        }
        self.settle_error(&operation, error.code);
        let label = ErrorLabel::Code(error.code.number());
        self.failed(&operation, label, error.message, now);
        self.keep_room(operation);
        Next::Done
    }

    /// After what pause a request that was answered with this error is sent again, if it is.
    pub(super) fn pause_before_repeat(
        &self,
        operation: &Operation,
        code: ErrorCode,
        retry_after_ms: u32,
        now: Instant,
    ) -> Option<Duration> {
        let hint = Duration::from_millis(u64::from(retry_after_ms.max(1)));
        let (pause, patience) = match (code, self.retry_for) {
            (ErrorCode::Busy, _) => (hint, BUSY_PATIENCE),
            // A session makes it safe to ask again whatever has become of it.
            (ErrorCode::ShuttingDown | ErrorCode::CoreFailed, Some(retry_for)) => {
                (resend_pause(hint, operation.repeats), retry_for)
            }
            _ => return None,
        };
        (now + pause < operation.handed_at + patience).then_some(pause)
    }

    /// Counts a request that is sent again after this error.
    pub(super) fn count_repeat(&mut self, code: ErrorCode) {
        match code {
            ErrorCode::Busy => self.statistics.busy_retries += 1,
            // After the other code it goes over another connection, and is counted there.
            ErrorCode::CoreFailed => self.statistics.resent += 1,
            _ => {}
        }
    }

    pub(super) fn count_not_found(&mut self, operation: &Operation, count: u64) {
        if self.source.is_measured(operation.drawn.due_at) {
            self.statistics.not_found += count;
        }
    }

    /// Looks at a page; afterwards there is a key to go on with, if the scan goes on. Counters are no records.
    fn take_page(&mut self, scan: &mut ScanStage, reply: &ScanReply<'_>, due_at: Instant) {
        let mut previous: &[u8] = &[];
        let mut count = 0_u64;
        for entry in &reply.entries {
            let is_in_order = previous.is_empty() || (entry.key > previous) != scan.is_reverse;
            if !is_in_order {
                self.judge(Err(Violation::of_key(
                    ViolationKind::ScanOrder,
                    entry.key,
                    format!("a key beyond {}", previous.escape_ascii()),
                    "a key that is not".to_owned(),
                )));
            }
            previous = entry.key;
            if counters::is_counter(entry.key) {
                continue;
            }
            count += 1;
            let judged = self.ledger.scanned(entry.key, entry.version, entry.value);
            self.judge(judged);
        }
        if self.source.is_measured(due_at) {
            self.statistics.scanned_records += count;
        }
        scan.wanted = scan.wanted.saturating_sub(reply.entries.len() as u32);
        scan.snapshot = reply.snapshot;
        scan.resume_key = reply
            .resume_key
            .filter(|_| scan.wanted > 0)
            .map(|key| key.to_vec().into_boxed_slice());
    }

    pub(super) fn write_answered(&mut self, key: KeyIndex, write: &Write, applied: bool, version: u64) {
        if applied {
            let judged = self.ledger.write_acknowledged(write, version);
            self.judge(judged);
            return;
        }
        self.settle_write(write, false);
        self.judge(Err(Violation::of_record(
            ViolationKind::MissingKey,
            key,
            "a write without a condition is applied".to_owned(),
            format!("the node says that it was not; the record is at version {version}"),
        )));
    }

    /// Is a write that was answered with this error certainly not applied?
    fn settle_error(&mut self, operation: &Operation, code: ErrorCode) {
        if is_unknown(code) {
            self.settle(operation, true);
        } else {
            self.refused(operation);
        }
    }

    /// The operation was answered without error.
    pub(super) fn done(&mut self, operation: &Operation, now: Instant) {
        let due_at = operation.drawn.due_at;
        let latency_ns = nanoseconds(now - due_at);
        self.series.answered(now, latency_ns);
        if self.source.is_measured(due_at) {
            self.statistics.record_operation(latency_ns);
            if self.source.is_open() {
                let service = now - operation.handed_at;
                let delay = operation.handed_at - due_at;
                self.statistics
                    .record_service(nanoseconds(service), nanoseconds(delay));
            }
        }
        self.over(operation);
    }

    /// An error that is not answered by trying again.
    pub(super) fn failed(&mut self, operation: &Operation, label: ErrorLabel, sentence: &str, now: Instant) {
        self.statistics.record_error(operation.measure(), label, sentence);
        self.series.failed(now);
        self.over(operation);
    }

    fn over(&mut self, operation: &Operation) {
        if operation.drawn.kind == OperationKind::Insert {
            self.source.end_insert(operation.drawn.key);
        }
        if self.source.is_measured(operation.drawn.due_at) {
            self.statistics.operations += 1;
        } else {
            self.statistics.warm_up_operations += 1;
        }
        self.live().operation_done();
    }

    /// It is certain that what was sent last was not applied.
    pub(crate) fn refused(&mut self, operation: &Operation) {
        self.settle(operation, operation.may_be_applied);
    }

    /// No answer to the operation's request will come any more.
    pub(crate) fn unanswered(&mut self, operation: &Operation) {
        self.statistics.unanswered += 1;
        self.settle(operation, true);
    }

    /// A write is over without having been acknowledged: its outcome is unknown, or it was not applied.
    fn settle(&mut self, operation: &Operation, is_unknown: bool) {
        match &operation.stage {
            Stage::Write(write) => self.settle_write(write, is_unknown),
            Stage::MultiWrite(parts) => {
                for part in parts.iter().filter(|part| !part.is_settled) {
                    self.settle_write(&part.write, is_unknown);
                }
            }
            Stage::Add(ticket) if is_unknown => self.counters.unknown(ticket),
            _ => {}
        }
    }

    pub(super) fn settle_write(&mut self, write: &Write, is_unknown: bool) {
        if is_unknown {
            self.ledger.write_unknown(write);
        } else {
            let judged = self.ledger.write_refused(write);
            self.judge(judged);
        }
    }

    /// Hands over what is measured and recorded, at the end of the phase.
    pub(crate) fn finish(&mut self) {
        self.series.finish();
        self.statistics.unstarted = self.source.unstarted();
        self.finish_record();
    }

    pub(super) fn judge(&mut self, judged: Result<(), Violation>) {
        if let Err(violation) = judged {
            self.shared.report(violation);
        }
    }

    fn live(&self) -> &LiveCounters {
        &self.shared.live()[self.live_index]
    }

    pub(super) fn record(&mut self, measure: Measure, operation: &Operation, from: Instant, now: Instant) {
        let latency_ns = nanoseconds(now - from);
        if self.source.is_measured(operation.drawn.due_at) {
            self.statistics.record(measure, latency_ns);
        }
        // The bar shows requests: the sum of a read-modify-write would count its parts twice.
        if measure != Measure::ReadModifyWrite {
            self.live().record(latency_ns);
        }
    }
}

/// The pause before an operation is sent again that was sent again so often before.
fn resend_pause(hint: Duration, repeats: u32) -> Duration {
    let grown = RESEND_PAUSE_MIN * (1 << repeats.min(10));
    grown.min(RESEND_PAUSE_MAX).max(hint)
}

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_before_repeats_grow_to_their_bound_and_are_never_shorter_than_the_hint() {
        for (hint_ms, repeats, expected_ms) in [
            (1, 0, 20),
            (1, 1, 40),
            (1, 5, 640),
            (1, 6, 1_000),
            (1, u32::MAX, 1_000),
            (300, 0, 300),
            (5_000, 9, 5_000),
        ] {
            let pause = resend_pause(Duration::from_millis(hint_ms), repeats);
            assert_eq!(pause, Duration::from_millis(expected_ms), "{hint_ms}, {repeats}");
        }
    }
}
