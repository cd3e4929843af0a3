//! One operation on its way: what it asks next, and what it remembers meanwhile.

use std::time::{Duration, Instant};

use ostrakon_client::{Condition, PutEntry, Request, Retry, ScanRequest};

use super::ledger::{Read, Write};
use super::session::Issued;
use super::source::Drawn;
use super::thread::Thread;
use crate::counters::AddTicket;
use crate::keys::{Key, KeyIndex};
use crate::statistics::Measure;
use crate::value;
use crate::workload::OperationKind;

/// Most records of one request.
pub(crate) const MULTI_RECORDS_MAX: usize = 128;

/// One operation from being handed over until its last answer.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(super) drawn: Drawn,
    pub(super) stage: Stage,
    pub(super) handed_at: Instant,
    /// What the latency of its present request is counted from.
    pub(super) requested_at: Instant,
    /// When the request went into its connection's buffer, if it asks for timings.
    pub(super) timed_from: Option<Instant>,
    /// Of a write in a session, once it was sent.
    pub(super) issued: Option<Issued>,
    /// A write that was sent before, on a connection that was lost or with an answer that left it open: what refuses it
    /// now says nothing of then.
    pub(super) may_be_applied: bool,
    /// How often a refusal has had it sent again.
    pub(super) repeats: u32,
}

#[derive(Debug, Clone)]
pub(super) enum Stage {
    Read(Read),
    Write(Write),
    Delete,
    Scan(ScanStage),
    Add(AddTicket),
    /// Those that are not answered yet.
    MultiRead(Vec<ReadPart>),
    MultiWrite(Vec<WritePart>),
}

#[derive(Debug, Clone)]
pub(super) struct ScanStage {
    /// Records that are still wanted.
    pub(super) wanted: u32,
    /// Of the pages so far; 0: there were none.
    pub(super) snapshot: u64,
    /// Where the next page begins, if it is not the first.
    pub(super) resume_key: Option<Box<[u8]>>,
    pub(super) is_reverse: bool,
}

/// One record of a request for several.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadPart {
    pub(super) key: KeyIndex,
    pub(super) read: Read,
}

/// One record of a request for several.
#[derive(Debug, Clone, Copy)]
pub(super) struct WritePart {
    pub(super) key: KeyIndex,
    pub(super) write: Write,
    /// Is its outcome known, and told to the ledger?
    pub(super) is_settled: bool,
    /// Did the last answer leave it open whether it is applied?
    pub(super) is_unknown: bool,
}

/// A request whose answer will have timings, to be counted with them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timed {
    pub(super) measure: Measure,
    pub(super) due_at: Instant,
    pub(super) latency: Duration,
}

impl Operation {
    /// Is its present request a write?
    pub(crate) fn is_write(&self) -> bool {
        match self.stage {
            Stage::Read(_) | Stage::Scan(_) | Stage::MultiRead(_) => false,
            Stage::Write(_) | Stage::Delete | Stage::Add(_) | Stage::MultiWrite(_) => true,
        }
    }

    /// What its present request counts as.
    pub(super) fn measure(&self) -> Measure {
        match &self.stage {
            Stage::Read(_) => Measure::Read,
            Stage::Write(_) => match self.drawn.kind {
                OperationKind::Insert => Measure::Insert,
                OperationKind::PutExpiring => Measure::PutExpiring,
                _ => Measure::Update,
            },
            Stage::Delete => Measure::Delete,
            Stage::Scan(scan) if scan.is_reverse => Measure::ReverseScan,
            Stage::Scan(_) => Measure::Scan,
            Stage::Add(_) => Measure::Add,
            Stage::MultiRead(_) => Measure::MultiRead,
            Stage::MultiWrite(_) => Measure::MultiUpdate,
        }
    }

    /// If its answer, which is being decoded now, was asked to have timings.
    pub(crate) fn timed(&self, now: Instant) -> Option<Timed> {
        self.timed_from.map(|from| Timed {
            measure: self.measure(),
            due_at: self.drawn.due_at,
            latency: now - from,
        })
    }

    /// Its connection is lost, and it goes to the next one.
    pub(crate) fn outlive_connection(&mut self) {
        self.may_be_applied = self.is_write();
    }

    /// Lends the request of the present stage to `submit`; `value` is room for what it writes.
    pub(crate) fn with_request<T>(
        &self,
        thread: &Thread,
        value: &mut Vec<u8>,
        retry: Option<Retry>,
        submit: impl FnOnce(&Request<'_>) -> T,
    ) -> T {
        let key = Key::of(self.drawn.key);
        let key = key.bytes();
        match &self.stage {
            Stage::Read(_) => submit(&Request::Get { key }),
            Stage::Write(write) => {
                let identity = thread.ledger.identity(self.drawn.key, write);
                value::fill(value, identity, thread.value_size.bytes_of(identity));
                submit(&Request::Put {
                    key,
                    value,
                    condition: Condition::None,
                    ttl_ms: if self.drawn.kind == OperationKind::PutExpiring {
                        thread.ttl_ms
                    } else {
                        0
                    },
                    retry,
                })
            }
            Stage::Delete => submit(&Request::Delete {
                key,
                condition: Condition::None,
                retry,
            }),
            Stage::Scan(scan) => submit(&Request::Scan(scan.request(key))),
            Stage::Add(ticket) => submit(&Request::Add {
                key: thread.counters.key(ticket.counter).bytes(),
                delta: 1,
                ttl_ms: 0,
                retry,
            }),
            Stage::MultiRead(parts) => {
                let mut keys = [Key::of(self.drawn.key); MULTI_RECORDS_MAX];
                for (key, part) in keys.iter_mut().zip(parts) {
                    *key = Key::of(part.key);
                }
                let mut slices: [&[u8]; MULTI_RECORDS_MAX] = [&[]; MULTI_RECORDS_MAX];
                for (slice, key) in slices.iter_mut().zip(&keys) {
                    *slice = key.bytes();
                }
                let keys = slices[..parts.len()].into();
                submit(&Request::MultiGet { keys })
            }
            Stage::MultiWrite(parts) => with_entries(thread, parts, value, retry, submit),
        }
    }
}

/// The parts of a multi-put that are sent: in a session always all, since the shards that have answered know their
/// part again; else those whose outcome is not known.
pub(super) fn parts_sent(parts: &[WritePart], is_in_session: bool) -> impl Iterator<Item = &WritePart> {
    parts.iter().filter(move |part| is_in_session || !part.is_settled)
}

fn with_entries<T>(
    thread: &Thread,
    parts: &[WritePart],
    values: &mut Vec<u8>,
    retry: Option<Retry>,
    submit: impl FnOnce(&Request<'_>) -> T,
) -> T {
    values.clear();
    let mut keys = [Key::of(KeyIndex(0)); MULTI_RECORDS_MAX];
    let mut ends = [0; MULTI_RECORDS_MAX];
    let mut count = 0;
    for part in parts_sent(parts, retry.is_some()) {
        let identity = thread.ledger.identity(part.key, &part.write);
        value::append(values, identity, thread.value_size.bytes_of(identity));
        (keys[count], ends[count]) = (Key::of(part.key), values.len());
        count += 1;
    }
    let nothing = PutEntry {
        key: &[],
        value: &[],
        ttl_ms: 0,
    };
    let mut entries = [nothing; MULTI_RECORDS_MAX];
    let mut start = 0;
    for (entry, (key, end)) in entries[..count].iter_mut().zip(keys.iter().zip(ends)) {
        (entry.key, entry.value) = (key.bytes(), &values[start..end]);
        start = end;
    }
    let entries = entries[..count].into();
    submit(&Request::MultiPut { entries, retry })
}

impl ScanStage {
    /// `key` is that of the chosen record.
    fn request<'a>(&'a self, key: &'a [u8]) -> ScanRequest<'a> {
        let from = self.resume_key.as_deref().unwrap_or(key);
        let common = ScanRequest {
            limit: self.wanted,
            snapshot: self.snapshot,
            reverse: self.is_reverse,
            ..ScanRequest::ALL
        };
        if self.is_reverse {
            ScanRequest {
                end: Some(from),
                ..common
            }
        } else {
            ScanRequest {
                start: from,
                ..common
            }
        }
    }
}
