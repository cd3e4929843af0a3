//! One connection of a closed loop, without IO: what is in flight, and what follows from each answer.
//!
//! 1. [`Connection::top_up`] hands over operations until `pipeline` of them are unanswered.
//! 2. [`Connection::take_answers`] judges each answer, and hands over what follows: the write of a
//!    read-modify-write, or the next operation. A `Busy` answer parks the operation until its hint has
//!    passed.
//! 3. [`Connection::abandon`] tells the ledger of everything unanswered when the connection is lost.
//!
//! If there is a history, every request and what became of it goes to the thread's recorder on the way. A
//! `Busy` answer ends a request there, and its repetition is another.
//!
//! Invariant: each request in flight has its operation in `operations`, at the slot of its id. Once warm, an
//! operation allocates nothing.

use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use ostrakon_client::{Condition, ErrorCode, Protocol, ProtocolError, Request, Response};

use super::Shared;
use super::ledger::{Ledger, Read, Write};
use super::source::Source;
use crate::history::{Call, Process, Recorder, Stopped};
use crate::keys::{Key, KeyIndex};
use crate::register::{Violation, ViolationKind};
use crate::statistics::{LiveCounters, Measure, Statistics};
use crate::value;
use crate::workload::OperationKind;

/// An operation that is still refused as `Busy` after this time counts as an error.
const BUSY_PATIENCE: Duration = Duration::from_secs(10);

/// What all connections of one executor share.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) source: Source,
    pub(crate) ledger: Ledger,
    pub(crate) statistics: Statistics,
    pub(crate) shared: Arc<Shared>,
    /// Of this executor among those of `shared`.
    pub(crate) live_index: usize,
    pub(crate) value_bytes: usize,
    /// If there is a history.
    pub(crate) recorder: Option<Recorder>,
}

/// One operation from being handed over until its last answer.
#[derive(Debug, Clone, Copy)]
struct Operation {
    kind: OperationKind,
    key: KeyIndex,
    stage: Stage,
    /// When the operation was handed over.
    handed_at: Instant,
    /// When its present request was.
    requested_at: Instant,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Read(Read),
    Write(Write),
}

/// What follows from an answer.
enum Next {
    /// The operation is over.
    Done,
    /// It goes on with this request.
    Submit(Operation),
    /// It is sent again after a while.
    Park { operation: Operation, after: Duration },
}

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
    pub(crate) protocol: Protocol,
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
    /// Why it was shut down.
    shut_down_for: Option<ConnectionEnd>,
}

impl Connection {
    pub(crate) fn new(protocol: Protocol, control: TcpStream, pipeline: usize, thread: &Thread) -> Self {
        let processes = |recorder: &Recorder| (0..pipeline).map(|_| recorder.new_process()).collect();
        Self {
            protocol,
            pipeline,
            operations: vec![None; pipeline],
            processes: thread.recorder.as_ref().map(processes).unwrap_or_default(),
            parked: Vec::new(),
            value: Vec::new(),
            writer: None,
            heard_at: Instant::now(),
            is_over: false,
            control,
            shut_down_for: None,
        }
    }

    /// Hands over operations until the pipeline is full or the phase has no more.
    pub(crate) fn top_up(&mut self, thread: &mut Thread, now: Instant) -> Result<(), ConnectionEnd> {
        while self.protocol.requests_in_flight() + self.parked.len() < self.pipeline {
            let Some(operation) = thread.next_operation(now) else {
                break;
            };
            self.submit(thread, operation)?;
        }
        Ok(())
    }

    /// Takes all answers that have arrived. Gives the moment of the last `Busy` hint's end, if there was one.
    pub(crate) fn take_answers(&mut self, thread: &mut Thread) -> Result<Option<Instant>, ConnectionEnd> {
        let mut wake_at = None;
        loop {
            let now = Instant::now();
            let next = match self.protocol.next_response() {
                Ok(None) => break,
                Ok(Some((id, response))) => {
                    let operation = self.operations[id.slot()]
                        .take()
                        .expect("an answered request has its operation");
                    if let Some(process) = self.processes.get_mut(id.slot()) {
                        thread.record_answer(process, &operation, &response);
                    }
                    thread.answered(operation, &response, now)
                }
                Err(error @ ProtocolError::ClosedByServer { .. }) => {
                    return Err(ConnectionEnd::Lost(error.to_string()));
                }
                Err(error) => return Err(ConnectionEnd::Broken(error.to_string())),
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
        // An error says that the socket is no longer connected, which is what is wanted.
        let _already_gone = self.control.shutdown(Shutdown::Both);
    }

    /// Is nothing in flight or parked?
    pub(crate) fn is_idle(&self) -> bool {
        self.protocol.requests_in_flight() == 0 && self.parked.is_empty()
    }

    /// No answer will come any more, for this reason unless the socket was shut down for another.
    pub(crate) fn abandon(&mut self, thread: &mut Thread, end: ConnectionEnd) {
        thread.shared.end(self.shut_down_for.take().unwrap_or(end));
        for (slot, operation) in self.operations.iter_mut().enumerate() {
            let Some(operation) = operation.take() else {
                continue;
            };
            thread.statistics.unanswered += 1;
            if let Some(process) = self.processes.get_mut(slot) {
                thread.record_silence(process, &operation);
            }
            if let Stage::Write(write) = operation.stage {
                thread.ledger.write_unknown(&write);
            }
        }
        for (_, operation) in self.parked.drain(..) {
            thread.refused(&operation);
        }
    }

    /// Wakes the writer if there is something for it to do.
    pub(crate) fn wake_writer(&mut self) {
        if (self.is_over || !self.protocol.bytes_to_send().is_empty())
            && let Some(writer) = self.writer.take()
        {
            writer.wake();
        }
    }

    fn submit(&mut self, thread: &mut Thread, operation: Operation) -> Result<(), ConnectionEnd> {
        let key = Key::of(operation.key);
        let request = match &operation.stage {
            Stage::Read(_) => Request::Get { key: key.bytes() },
            Stage::Write(write) => {
                value::fill(
                    &mut self.value,
                    thread.ledger.identity(operation.key, write),
                    thread.value_bytes,
                );
                Request::Put {
                    key: key.bytes(),
                    value: &self.value,
                    condition: Condition::None,
                }
            }
        };
        match self.protocol.submit(&request) {
            Ok(id) => {
                let slot = &mut self.operations[id.slot()];
                assert!(slot.is_none(), "two requests in flight share a slot");
                *slot = Some(operation);
                // The request is in a buffer: nothing is sent before this returns to the executor.
                if let Some(process) = self.processes.get(id.slot()) {
                    thread.record_call(*process, &operation);
                }
                Ok(())
            }
            Err(error) => {
                // Nothing went out, so a write is as good as refused.
                thread.refused(&operation);
                Err(ConnectionEnd::Broken(error.to_string()))
            }
        }
    }
}

impl Thread {
    fn live(&self) -> &LiveCounters {
        &self.shared.live()[self.live_index]
    }

    fn next_operation(&mut self, now: Instant) -> Option<Operation> {
        if self.shared.is_stopped() {
            return None;
        }
        let (kind, key) = self.source.next(now)?;
        let stage = match kind {
            OperationKind::Read | OperationKind::ReadModifyWrite => Stage::Read(self.ledger.begin_read(key)),
            OperationKind::Insert | OperationKind::Update => Stage::Write(self.ledger.begin_write(key)),
        };
        Some(Operation {
            kind,
            key,
            stage,
            handed_at: now,
            requested_at: now,
        })
    }

    fn answered(&mut self, operation: Operation, response: &Response<'_>, now: Instant) -> Next {
        match (&operation.stage, response) {
            (_, Response::Error(error)) => {
                let hint = Duration::from_millis(u64::from(error.retry_after_ms.max(1)));
                if error.code == ErrorCode::Busy && now + hint < operation.handed_at + BUSY_PATIENCE {
                    self.statistics.busy_retries += 1;
                    return Next::Park {
                        operation,
                        after: hint,
                    };
                }
                self.failed(&operation, error.code, error.message);
            }
            (Stage::Read(read), Response::Get { found }) => {
                self.statistics.not_found += u64::from(found.is_none());
                let judged = self.ledger.read_answered(read, *found);
                self.judge(judged);
                self.record(Measure::Read, now - operation.requested_at);
                if operation.kind == OperationKind::ReadModifyWrite {
                    let stage = Stage::Write(self.ledger.begin_write(operation.key));
                    return Next::Submit(Operation {
                        stage,
                        requested_at: now,
                        ..operation
                    });
                }
            }
            (Stage::Write(write), Response::Write { applied, version }) => {
                self.write_answered(&operation, write, *applied, *version);
                self.record(operation.write_measure(), now - operation.requested_at);
                if operation.kind == OperationKind::ReadModifyWrite {
                    self.record(Measure::ReadModifyWrite, now - operation.handed_at);
                }
            }
            _ => unreachable!("the protocol lets no response through that does not fit its request"),
        }
        self.live().operation_done();
        Next::Done
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

    /// An error that is not answered by trying again.
    fn failed(&mut self, operation: &Operation, code: ErrorCode, sentence: &str) {
        let measure = match &operation.stage {
            Stage::Read(_) => Measure::Read,
            Stage::Write(_) => operation.write_measure(),
        };
        self.statistics.record_error(measure, code.number(), sentence);
        match (&operation.stage, code) {
            (Stage::Write(write), ErrorCode::CoreFailed | ErrorCode::Other(_)) => {
                self.ledger.write_unknown(write);
            }
            _ => self.refused(operation),
        }
    }

    fn refused(&mut self, operation: &Operation) {
        if let Stage::Write(write) = &operation.stage {
            let judged = self.ledger.write_refused(write);
            self.judge(judged);
        }
    }

    fn record_call(&mut self, process: Process, operation: &Operation) {
        let call = self.call(operation);
        if let Some(recorder) = &mut self.recorder {
            let recorded = recorder.called(process, call);
            self.go_on_if(recorded);
        }
    }

    fn record_answer(&mut self, process: &mut Process, operation: &Operation, response: &Response<'_>) {
        let call = self.call(operation);
        if let Some(recorder) = &mut self.recorder {
            let recorded = recorder.answered(*process, call, response);
            self.go_on_if(recorded.map(|next| *process = next));
        }
    }

    fn record_silence(&mut self, process: &mut Process, operation: &Operation) {
        let call = self.call(operation);
        if let Some(recorder) = &mut self.recorder {
            let recorded = recorder.unanswered(*process, call);
            self.go_on_if(recorded.map(|next| *process = next));
        }
    }

    fn call(&self, operation: &Operation) -> Call {
        let write = match &operation.stage {
            Stage::Read(_) => None,
            Stage::Write(write) => Some(self.ledger.identity(operation.key, write).sequence),
        };
        let key = operation.key;
        Call { key, write }
    }

    /// Hands over what is recorded, at the end of the phase.
    pub(crate) fn finish_recording(&mut self) {
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

    fn record(&mut self, measure: Measure, latency: Duration) {
        let latency_ns = latency.as_nanos() as u64;
        self.statistics.record(measure, latency_ns);
        // The bar shows requests: the sum of a read-modify-write would count its parts twice.
        if measure != Measure::ReadModifyWrite {
            self.live().record(latency_ns);
        }
    }
}

impl Operation {
    fn write_measure(&self) -> Measure {
        if self.kind == OperationKind::Insert {
            Measure::Insert
        } else {
            Measure::Update
        }
    }
}
