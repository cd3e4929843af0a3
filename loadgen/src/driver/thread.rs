//! What all connections of one executor share: where operations come from, and what follows from answers.
//!
//! Latency of an operation runs from the moment it was due until its last answer is decoded, retries after a
//! `Busy` answer included. In a closed loop it is due when a connection is free for it. Each request is
//! measured too; the first request of an operation from the moment the operation was due. Operations that
//! were due in the warm-up are measured into the time series and nothing else.

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use ostrakon_client::{Condition, ErrorCode, Request, Response};
use ostrakon_wire::message::ScanReply;

use super::Shared;
use super::connection::ConnectionEnd;
use super::ledger::{Ledger, Read, Write};
use super::source::{Drawn, Source, Taken};
use crate::history::{Call, Process, Recorder, Stopped};
use crate::keys::{Key, KeyIndex};
use crate::register::{Violation, ViolationKind};
use crate::series::SeriesRecorder;
use crate::statistics::{ErrorLabel, LiveCounters, Measure, Statistics};
use crate::target::Answer;
use crate::value::{self, ValueSize};
use crate::workload::OperationKind;

/// An operation that is still refused as `Busy` after this time counts as an error.
const BUSY_PATIENCE: Duration = Duration::from_secs(10);

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
    /// If there is a history.
    pub(crate) recorder: Option<Recorder>,
    /// Of the dispatcher, while it waits to be called.
    pub(crate) dispatcher: Option<Waker>,
    /// Does it wait for a connection that has room, since operations are due and none has?
    pub(crate) is_saturated: bool,
    /// Has a connection been told to wait since the dispatcher last looked?
    pub(crate) is_hungry: bool,
}

/// One operation from being handed over until its last answer.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    kind: OperationKind,
    key: KeyIndex,
    stage: Stage,
    due_at: Instant,
    handed_at: Instant,
    /// What the latency of its present request is counted from.
    requested_at: Instant,
}

#[derive(Debug, Clone)]
enum Stage {
    Read(Read),
    Write(Write),
    Delete,
    Scan(ScanStage),
}

#[derive(Debug, Clone)]
struct ScanStage {
    /// Records that are still wanted.
    wanted: u32,
    /// Of the pages so far; 0: there were none.
    snapshot: u64,
    /// Where the next page begins, if it is not the first.
    resume_key: Option<Box<[u8]>>,
}

/// What follows from an answer.
pub(crate) enum Next {
    /// The operation is over.
    Done,
    /// It goes on with this request.
    Submit(Operation),
    /// It is sent again after a while.
    Park { operation: Operation, after: Duration },
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
            OperationKind::Insert | OperationKind::Update => Stage::Write(self.ledger.begin_write(drawn.key)),
            OperationKind::Delete => Stage::Delete,
            OperationKind::Scan => Stage::Scan(ScanStage {
                wanted: drawn.scan_records,
                snapshot: 0,
                resume_key: None,
            }),
        };
        Operation {
            kind: drawn.kind,
            key: drawn.key,
            stage,
            due_at: drawn.due_at,
            handed_at: now,
            requested_at: drawn.due_at,
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
        match (&mut operation.stage, response) {
            (_, Response::Error(error)) => {
                let hint = Duration::from_millis(u64::from(error.retry_after_ms.max(1)));
                if error.code == ErrorCode::Busy && now + hint < operation.handed_at + BUSY_PATIENCE {
                    self.statistics.busy_retries += 1;
                    return Next::Park {
                        operation,
                        after: hint,
                    };
                }
                self.settle_error(&operation, error.code);
                self.failed(
                    &operation,
                    ErrorLabel::Code(error.code.number()),
                    error.message,
                    now,
                );
                return Next::Done;
            }
            (Stage::Read(read), Response::Get { found }) => {
                let found = found.map(|found| (found.version, found.value));
                let judged = self.ledger.read_answered(read, found);
                self.judge(judged);
                if self.source.is_measured(operation.due_at) {
                    self.statistics.not_found += u64::from(found.is_none());
                }
                self.record(Measure::Read, &operation, operation.requested_at, now);
                if operation.kind == OperationKind::ReadModifyWrite {
                    operation.stage = Stage::Write(self.ledger.begin_write(operation.key));
                    operation.requested_at = now;
                    return Next::Submit(operation);
                }
            }
            (Stage::Write(write), Response::Write { applied, version }) => {
                let write = *write;
                self.write_answered(&operation, &write, *applied, *version);
                self.record(operation.write_measure(), &operation, operation.requested_at, now);
                if operation.kind == OperationKind::ReadModifyWrite {
                    self.record(Measure::ReadModifyWrite, &operation, operation.due_at, now);
                }
            }
            (Stage::Delete, Response::Write { .. }) => {
                self.record(Measure::Delete, &operation, operation.requested_at, now);
            }
            (Stage::Scan(scan), Response::Scan(reply)) => {
                self.take_page(scan, reply, operation.due_at);
                if scan.resume_key.is_some() {
                    return Next::Submit(operation);
                }
                self.record(Measure::Scan, &operation, operation.requested_at, now);
            }
            _ => unreachable!("the protocol lets no response through that does not fit its request"),
        }
        self.done(&operation, now);
        Next::Done
    }

    /// Looks at a page; afterwards there is a key to go on with, if the scan goes on.
    fn take_page(&mut self, scan: &mut ScanStage, reply: &ScanReply<'_>, due_at: Instant) {
        let count = reply.entries.len() as u32;
        if self.source.is_measured(due_at) {
            self.statistics.scanned_records += u64::from(count);
        }
        for entry in &reply.entries {
            let judged = self.ledger.scanned(entry.key, entry.version, entry.value);
            self.judge(judged);
        }
        scan.wanted = scan.wanted.saturating_sub(count);
        scan.snapshot = reply.snapshot;
        scan.resume_key = reply
            .resume_key
            .filter(|_| scan.wanted > 0)
            .map(|key| key.to_vec().into_boxed_slice());
    }

    fn write_answered(&mut self, operation: &Operation, write: &Write, applied: bool, version: u64) {
        if applied {
            let judged = self.ledger.write_acknowledged(write, version);
            self.judge(judged);
            return;
        }
        self.refused(operation);
        self.judge(Err(Violation::of_record(
            ViolationKind::MissingKey,
            operation.key,
            "a write without a condition is applied".to_owned(),
            format!("the node says that it was not; the record is at version {version}"),
        )));
    }

    /// Is a write that was answered with this error certainly not applied?
    fn settle_error(&mut self, operation: &Operation, code: ErrorCode) {
        match (&operation.stage, code) {
            (
                Stage::Write(write),
                ErrorCode::CoreFailed | ErrorCode::OutcomeUnknown | ErrorCode::Other(_),
            ) => {
                self.ledger.write_unknown(write);
            }
            _ => self.refused(operation),
        }
    }

    /// The operation was answered without error.
    fn done(&mut self, operation: &Operation, now: Instant) {
        let latency_ns = nanoseconds(now - operation.due_at);
        self.series.answered(now, latency_ns);
        if self.source.is_measured(operation.due_at) {
            self.statistics.record_operation(latency_ns);
            if self.source.is_open() {
                let service = now - operation.handed_at;
                let delay = operation.handed_at - operation.due_at;
                self.statistics
                    .record_service(nanoseconds(service), nanoseconds(delay));
            }
        }
        self.over(operation);
    }

    /// An error that is not answered by trying again.
    fn failed(&mut self, operation: &Operation, label: ErrorLabel, sentence: &str, now: Instant) {
        let measure = match &operation.stage {
            Stage::Read(_) => Measure::Read,
            Stage::Write(_) => operation.write_measure(),
            Stage::Delete => Measure::Delete,
            Stage::Scan(_) => Measure::Scan,
        };
        self.statistics.record_error(measure, label, sentence);
        self.series.failed(now);
        self.over(operation);
    }

    fn over(&mut self, operation: &Operation) {
        if operation.kind == OperationKind::Insert {
            self.source.end_insert(operation.key);
        }
        if self.source.is_measured(operation.due_at) {
            self.statistics.operations += 1;
        } else {
            self.statistics.warm_up_operations += 1;
        }
        self.live().operation_done();
    }

    /// It is certain that a write was not applied.
    pub(crate) fn refused(&mut self, operation: &Operation) {
        if let Stage::Write(write) = &operation.stage {
            let judged = self.ledger.write_refused(write);
            self.judge(judged);
        }
    }

    /// No answer to the operation's request will come any more.
    pub(crate) fn unanswered(&mut self, operation: &Operation) {
        self.statistics.unanswered += 1;
        if let Stage::Write(write) = &operation.stage {
            self.ledger.write_unknown(write);
        }
    }

    pub(crate) fn record_call(&mut self, process: Process, operation: &Operation) {
        let call = self.call(operation);
        if let Some(recorder) = &mut self.recorder {
            let recorded = recorder.called(process, call);
            self.go_on_if(recorded);
        }
    }

    pub(crate) fn record_answer(
        &mut self,
        process: &mut Process,
        operation: &Operation,
        answer: &Answer<'_>,
    ) {
        let call = self.call(operation);
        if let (Some(recorder), Answer::Response(response)) = (&mut self.recorder, answer) {
            let recorded = recorder.answered(*process, call, response);
            self.go_on_if(recorded.map(|next| *process = next));
        }
    }

    pub(crate) fn record_silence(&mut self, process: &mut Process, operation: &Operation) {
        let call = self.call(operation);
        if let Some(recorder) = &mut self.recorder {
            let recorded = recorder.unanswered(*process, call);
            self.go_on_if(recorded.map(|next| *process = next));
        }
    }

    fn call(&self, operation: &Operation) -> Call {
        let write = match &operation.stage {
            Stage::Write(write) => Some(self.ledger.identity(operation.key, write).sequence),
            _ => None,
        };
        let key = operation.key;
        Call { key, write }
    }

    /// Hands over what is recorded, at the end of the phase.
    pub(crate) fn finish(&mut self) {
        self.series.finish();
        self.statistics.unstarted = self.source.unstarted();
        if let Some(recorder) = &mut self.recorder {
            let recorded = recorder.finish();
            self.go_on_if(recorded);
        }
    }

    /// A history with gaps is none: the phase ends. The reason comes from who writes it.
    fn go_on_if(&self, recorded: Result<(), Stopped>) {
        if recorded == Err(Stopped) {
            let reason = "the history could not be written".to_owned();
            self.shared.end(ConnectionEnd::Broken(reason));
        }
    }

    fn judge(&mut self, judged: Result<(), Violation>) {
        if let Err(violation) = judged {
            self.shared.report(violation);
        }
    }

    fn live(&self) -> &LiveCounters {
        &self.shared.live()[self.live_index]
    }

    fn record(&mut self, measure: Measure, operation: &Operation, from: Instant, now: Instant) {
        let latency_ns = nanoseconds(now - from);
        if self.source.is_measured(operation.due_at) {
            self.statistics.record(measure, latency_ns);
        }
        // The bar shows requests: the sum of a read-modify-write would count its parts twice.
        if measure != Measure::ReadModifyWrite {
            self.live().record(latency_ns);
        }
    }
}

impl Operation {
    /// Lends the request of the present stage to `submit`; `value` is room for what it writes.
    pub(crate) fn with_request<T>(
        &self,
        thread: &Thread,
        value: &mut Vec<u8>,
        submit: impl FnOnce(&Request<'_>) -> T,
    ) -> T {
        let key = Key::of(self.key);
        let key = key.bytes();
        match &self.stage {
            Stage::Read(_) => submit(&Request::Get { key }),
            Stage::Write(write) => {
                let identity = thread.ledger.identity(self.key, write);
                value::fill(value, identity, thread.value_size.bytes_of(identity));
                submit(&Request::put(key, value, Condition::None))
            }
            Stage::Delete => submit(&Request::delete(key, Condition::None)),
            Stage::Scan(scan) => submit(&Request::Scan(ostrakon_wire::message::ScanRequest {
                start: scan.resume_key.as_deref().unwrap_or(key),
                limit: scan.wanted,
                snapshot: scan.snapshot,
                ..ostrakon_wire::message::ScanRequest::ALL
            })),
        }
    }

    fn write_measure(&self) -> Measure {
        if self.kind == OperationKind::Insert {
            Measure::Insert
        } else {
            Measure::Update
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}
