//! What follows from the answers to requests for several records: parts of them can be missing or fail.

use std::time::{Duration, Instant};

use ostrakon_client::ErrorCode;
use ostrakon_wire::message::{MultiPutReply, MultiValue, MultiValues};

use super::operation::{self, Operation, Stage};
use super::thread::{Next, Thread};
use crate::statistics::{ErrorLabel, Measure};
use crate::target::is_unknown;

impl Thread {
    /// Takes the values that came; what was left out for want of room is asked for again.
    pub(super) fn multi_read_answered(
        &mut self,
        mut operation: Operation,
        values: MultiValues<'_>,
        now: Instant,
    ) -> Next {
        let Stage::MultiRead(parts) = &mut operation.stage else {
            unreachable!("called for the answer to a multi-get");
        };
        let mut parts = std::mem::take(parts);
        let asked = parts.len();
        let mut values = values.iter();
        let (mut missing, mut not_found) = (asked != values.len(), 0);
        parts.retain(|part| {
            let found = match values.next() {
                Some(MultiValue::Found(found)) => Some((found.version, found.value)),
                Some(MultiValue::NotFound) => None,
                Some(MultiValue::Omitted) => return true,
                None => {
                    missing = true;
                    return false;
                }
            };
            not_found += u64::from(found.is_none());
            let judged = self.ledger.read_answered(&part.read, found);
            self.judge(judged);
            false
        });
        self.count_not_found(&operation, not_found);
        // An answer that leaves everything out would be asked for forever.
        missing |= parts.len() == asked;
        let is_over = missing || parts.is_empty();
        operation.stage = Stage::MultiRead(parts);
        if !is_over {
            return Next::Submit(operation);
        }
        if missing {
            let label = ErrorLabel::Word("values".to_owned());
            self.failed(
                &operation,
                label,
                "a multi-get was answered without its values",
                now,
            );
        } else {
            self.record(Measure::MultiRead, &operation, operation.requested_at, now);
            self.done(&operation, now);
        }
        self.keep_room(operation);
        Next::Done
    }

    /// Settles what the answer tells of. The rest is tried again, unless a part has failed for good: then all of it
    /// has.
    pub(super) fn multi_write_answered(
        &mut self,
        mut operation: Operation,
        reply: &MultiPutReply<'_>,
        now: Instant,
    ) -> Next {
        let Stage::MultiWrite(parts) = &mut operation.stage else {
            unreachable!("called for the answer to a multi-put");
        };
        let mut parts = std::mem::take(parts);
        let is_in_session = operation.issued.is_some();
        let sent = operation::parts_sent(&parts, is_in_session).count();
        let mut error = (sent != reply.versions.len()).then(no_outcome);
        let mut repeat: Option<(Duration, ErrorCode)> = None;
        let mut place = 0;
        for part in &mut parts {
            if part.is_settled && !is_in_session {
                continue;
            }
            let version = reply.versions.get(place).copied().unwrap_or(0);
            let code = reply.codes.get(place).copied().flatten();
            place += 1;
            if part.is_settled {
                continue;
            }
            match code {
                None if version > 0 => {
                    part.is_settled = true;
                    self.write_answered(part.key, &part.write, true, version);
                }
                None => {
                    part.is_unknown = true;
                    error.get_or_insert_with(no_outcome);
                }
                Some(code) => {
                    part.is_unknown = is_unknown(code);
                    match self.pause_before_repeat(&operation, code, reply.retry_after_ms, now) {
                        None => drop(error.get_or_insert(ErrorLabel::Code(code.number()))),
                        Some(pause) if repeat.is_none_or(|(longest, _)| pause > longest) => {
                            repeat = Some((pause, code));
                        }
                        Some(_) => {}
                    }
                }
            }
        }
        if let (None, Some((after, code))) = (&error, repeat) {
            self.count_repeat(code);
            operation.repeats += 1;
            operation.may_be_applied |= parts.iter().any(|part| !part.is_settled && part.is_unknown);
            operation.stage = Stage::MultiWrite(parts);
            return Next::Park {
                operation,
                after,
                caller: None,
                leaves_node: reply.codes.contains(&Some(ErrorCode::ShuttingDown)),
            };
        }
        for part in parts.iter().filter(|part| !part.is_settled) {
            self.settle_write(&part.write, part.is_unknown || operation.may_be_applied);
        }
        operation.stage = Stage::MultiWrite(parts);
        match error {
            None => {
                self.record(Measure::MultiUpdate, &operation, operation.requested_at, now);
                self.done(&operation, now);
            }
            Some(label) => self.failed(&operation, label, reply.message, now),
        }
        self.keep_room(operation);
        Next::Done
    }

    /// Keeps what a request for several records needed for the next one.
    pub(super) fn keep_room(&mut self, operation: Operation) {
        match operation.stage {
            Stage::MultiRead(mut parts) => {
                parts.clear();
                self.spare_reads.push(parts);
            }
            Stage::MultiWrite(mut parts) => {
                parts.clear();
                self.spare_writes.push(parts);
            }
            _ => {}
        }
    }
}

/// Of an answer to a multi-put that does not say what became of an entry.
fn no_outcome() -> ErrorLabel {
    ErrorLabel::Word("no outcome".to_owned())
}
