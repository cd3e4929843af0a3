//! What a load thread notes: each request before it is sent, and what became of it.
//!
//! The events of one recorder are in the order of their times. A chunk goes to the writing thread when it is
//! full; if that falls behind by too much, the load thread waits for it, since memory has an end and nothing
//! is left out.

use std::sync::mpsc::SyncSender;

use ostrakon_client::{ErrorCode, Response};

use super::{Process, Source};
use crate::keys::{Key, KeyIndex};
use crate::target::is_unknown;
use crate::value::{self, WriteSequence, WriterId};

/// Events that are handed over at once.
const CHUNK_EVENTS: usize = 1024;

/// A request: the write of this number within the key's writes, or a read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    /// The record.
    pub(crate) key: KeyIndex,
    /// Which write of it; none is a read.
    pub(crate) write: Option<WriteSequence>,
}

/// One line of the history to be.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) time_ns: u64,
    pub(super) process: Process,
    pub(super) call: Call,
    pub(super) kind: EventKind,
}

/// What an event tells of its call.
#[derive(Debug)]
pub(super) enum EventKind {
    Invoke,
    Read(Option<(u64, Found)>),
    Written { version: u64 },
    Fail(Reason),
    Info(Reason),
}

/// The value that a read returned.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// That of this write of the key.
    Write(WriteSequence),
    /// None that this run wrote to this key, in words.
    Foreign(Box<str>),
}

/// Why a request was not done, or is of unknown outcome.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reason {
    /// The node answered so.
    Answered(ErrorCode),
    /// The node answered that a write without a condition was not applied.
    NotApplied,
    /// No answer came any more.
    Unanswered,
}

/// Events of one thread, in order.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) thread_index: usize,
    pub(super) events: Vec<Event>,
}

/// The history can't be written; the writing thread knows why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped;

/// See the head of the module.
#[derive(Debug)]
pub(crate) struct Recorder {
    source: Source,
    thread_index: usize,
    events: Vec<Event>,
    /// None once finished.
    sender: Option<SyncSender<Chunk>>,
}

impl Event {
    /// The place among the events of all threads: by time, and at the same time a call before an answer.
    pub(super) fn order(&self) -> (u64, bool) {
        (self.time_ns, !matches!(self.kind, EventKind::Invoke))
    }
}

impl Recorder {
    pub(super) fn new(source: Source, thread_index: usize, sender: SyncSender<Chunk>) -> Self {
        Self {
            source,
            thread_index,
            events: Vec::with_capacity(CHUNK_EVENTS),
            sender: Some(sender),
        }
    }

    /// A process that has not called yet.
    pub(crate) fn new_process(&self) -> Process {
        self.source.new_process()
    }

    /// A request is about to be sent: no byte of it may have left.
    pub(crate) fn called(&mut self, process: Process, call: Call) -> Result<(), Stopped> {
        self.push(process, call, EventKind::Invoke)
    }

    /// An answer has been received, to a write that `may_be_applied` by an earlier sending. Gives the process who calls
    /// next in its place.
    pub(crate) fn answered(
        &mut self,
        process: Process,
        call: Call,
        may_be_applied: bool,
        response: &Response<'_>,
    ) -> Result<Process, Stopped> {
        let kind = match *response {
            Response::Get { found } => EventKind::Read(found.map(|found| {
                (
                    found.version,
                    identify(self.source.writer, Key::of(call.key).bytes(), found.value),
                )
            })),
            Response::Write {
                applied: true,
                version,
            } => EventKind::Written { version },
            Response::Write { applied: false, .. } => EventKind::Fail(Reason::NotApplied),
            Response::Error(error) => {
                let reason = Reason::Answered(error.code);
                if call.write.is_some() && (may_be_applied || is_unknown(error.code)) {
                    EventKind::Info(reason)
                } else {
                    EventKind::Fail(reason)
                }
            }
            _ => unreachable!("the protocol lets no response through that does not fit its request"),
        };
        self.end(process, call, kind)
    }

    /// No answer will come.
    pub(crate) fn unanswered(&mut self, process: Process, call: Call) -> Result<Process, Stopped> {
        self.end(process, call, EventKind::Info(Reason::Unanswered))
    }

    /// Hands over what is left. Nothing may be recorded after it.
    pub(crate) fn finish(&mut self) -> Result<(), Stopped> {
        let handed_over = self.hand_over();
        self.sender = None;
        handed_over
    }

    fn end(&mut self, process: Process, call: Call, kind: EventKind) -> Result<Process, Stopped> {
        let next = match kind {
            EventKind::Info(_) => self.new_process(),
            _ => process,
        };
        self.push(process, call, kind).map(|()| next)
    }

    fn push(&mut self, process: Process, call: Call, kind: EventKind) -> Result<(), Stopped> {
        let time_ns = self.source.now_ns();
        self.events.push(Event {
            time_ns,
            process,
            call,
            kind,
        });
        if self.events.len() < CHUNK_EVENTS {
            return Ok(());
        }
        self.hand_over()
    }

    fn hand_over(&mut self) -> Result<(), Stopped> {
        let events = std::mem::replace(&mut self.events, Vec::with_capacity(CHUNK_EVENTS));
        let sender = self.sender.as_ref().ok_or(Stopped)?;
        let chunk = Chunk {
            thread_index: self.thread_index,
            events,
        };
        sender.send(chunk).map_err(|_| Stopped)
    }
}

/// Which write of `writer` to `key` these bytes are.
pub(super) fn identify(writer: WriterId, key: &[u8], bytes: &[u8]) -> Found {
    match value::check(bytes) {
        Ok(identity) if identity.writer == writer && Key::of(identity.key).bytes() == key => {
            Found::Write(identity.sequence)
        }
        Ok(identity) => Found::Foreign(
            format!(
                "write {} of record {} by writer {:#018x}",
                identity.sequence.0, identity.key.0, identity.writer.0
            )
            .into(),
        ),
        Err(error) => Found::Foreign(error.to_string().into()),
    }
}
