//! Delete-ranges: a range of keys lies in all shards. The gateway passes the request to all cores; each writes one
//! entry in each of its shards. The gateway counts in how many it was applied.

use std::collections::BTreeSet;

use ostrakon_core::hlc::Timestamp;
use ostrakon_wire::message::{DeleteRangeReply, ErrorReply, Kind, Request, Retry};
use ostrakon_wire::routing::ShardId;

use super::core::Core;
use super::dispatch::shard_retry;
use super::message::{CoreMessage, GatherId};
use super::programs::Told;
use super::refusal::describe;
use super::status::counters::Operation;
use crate::env::CoreId;
use crate::limits::MULTIS_MAX;
use crate::shard::replica::WriteOutcome;
use crate::shard::{Completions, Holder, RangeDelete, Refusal, Ticket};

/// A delete-range that not all shards have answered.
pub(super) struct RangeGather {
    ticket: Ticket,
    /// Shards that have not answered.
    outstanding: BTreeSet<ShardId>,
    /// The highest version that a shard gave it.
    version: Timestamp,
    applied: u32,
    refused: u32,
    unknown: u32,
    /// Why it was not applied somewhere; one that leaves the outcome unknown counts first.
    refusal: Option<Refusal>,
}

impl RangeGather {
    fn heard(&mut self, part: Result<Timestamp, Refusal>) {
        match part {
            Ok(version) => {
                self.applied += 1;
                self.version = self.version.max(version);
            }
            Err(refusal) if leaves_unknown(refusal) => {
                self.unknown += 1;
                if !self.refusal.is_some_and(leaves_unknown) {
                    self.refusal = Some(refusal);
                }
            }
            Err(refusal) => {
                self.refused += 1;
                self.refusal = self.refusal.or(Some(refusal));
            }
        }
    }

    /// What is said of it all, before the reason.
    fn summary(&self) -> String {
        let shards = self.applied + self.refused + self.unknown;
        let is_anywhere = self.applied > 0 || self.unknown > 0;
        let parts = [
            (self.applied, "the range was deleted"),
            (self.unknown, "it is not known whether it was deleted"),
            (self.refused, "nothing was deleted"),
        ];
        let parts = parts.iter().filter(|(count, _)| *count > 0 && is_anywhere);
        let words = parts.map(|(count, what)| format!("{what} in {count} of {shards} shards; "));
        words.collect()
    }
}

/// May a write that was refused like this have been carried out?
fn leaves_unknown(refusal: Refusal) -> bool {
    matches!(refusal, Refusal::CoreFailed | Refusal::OutcomeUnknown)
}

impl Core {
    /// Begins a client's delete-range.
    pub(super) fn begin_delete_range(&mut self, ticket: Ticket, body: &[u8], retry: Option<Retry>) {
        // Each shard asks this by its own clock; what is wrong for all is better said once.
        if retry.is_some_and(|retry| self.host.is_sent_ahead(Timestamp(retry.first_sent))) {
            return self.refuse(ticket, Refusal::SentAhead);
        }
        let mut owners: Vec<CoreId> = self.owners.to_vec();
        owners.sort_unstable();
        owners.dedup();
        if self.gathers.ranges.len() >= MULTIS_MAX || self.is_any_outbox_full(&owners) {
            return self.refuse(ticket, Refusal::Busy);
        }
        let gather = self.gathers.next_id();
        let waiting = RangeGather {
            ticket,
            outstanding: (0..self.owners.len() as u32).map(ShardId).collect(),
            version: Timestamp::ZERO,
            applied: 0,
            refused: 0,
            unknown: 0,
            refusal: None,
        };
        self.gathers.ranges.insert(gather, waiting);
        let part = Ticket {
            connection: gather.0,
            is_timed: false,
            holder: Holder::Part,
            ..ticket
        };
        for owner in owners {
            if owner == self.id() {
                self.execute_delete_range(part, body);
            } else {
                self.answers.outboxes[owner.index()]
                    .push_with_bytes(body, |range| CoreMessage::AskDeleteRange(part, range));
            }
        }
    }

    /// Deletes a range in each of this core's shards.
    pub(super) fn execute_delete_range(&mut self, part: Ticket, body: &[u8]) {
        let Request::DeleteRange { start, end, retry } =
            Request::decode_trusted(Kind::DeleteRange as u16, body)
        else {
            unreachable!("the gateway passes on what it has decoded");
        };
        let own = (0..).map(ShardId).zip(self.owners.iter());
        let own = own.filter(|(_, owner)| **owner == self.id());
        let shards: Vec<ShardId> = own.map(|(shard, _)| shard).collect();
        for shard in shards {
            let ticket = Ticket {
                request_id: u64::from(shard.0),
                executed_ns: self.answers.turn_ns,
                ..part
            };
            let range = RangeDelete {
                start,
                end,
                retry: retry.map(shard_retry),
                ticket,
            };
            self.answers.counters.writes += 1;
            match self.host.delete_range(shard, &range) {
                Ok(WriteOutcome::Pending) => {}
                Ok(WriteOutcome::Decided(answer)) => self.answers().decided(ticket, &answer),
                Ok(WriteOutcome::Lacks(_)) => unreachable!("it has no conditions"),
                Err(refusal) => self.refuse(ticket, refusal),
            }
        }
    }

    /// What became of one shard's part of a multi-put or a delete-range was heard.
    pub(super) fn part_heard(&mut self, id: GatherId, shard: ShardId, part: Result<Timestamp, Refusal>) {
        let Some(gather) = self.gathers.ranges.get_mut(&id) else {
            return self.puts_heard(id, shard, part);
        };
        assert!(gather.outstanding.remove(&shard), "a shard answers once");
        gather.heard(part);
        let is_last = gather.outstanding.is_empty();
        if let Err(refusal) = part {
            let operation = Operation::of_kind(Kind::DeleteRange);
            self.answers.counters.refused(operation, describe(refusal).0);
        }
        if !is_last {
            return;
        }
        let gather = self.gathers.ranges.remove(&id).expect("looked up above");
        let ticket = self.gathered(gather.ticket);
        let described = gather.refusal.map(describe);
        let error = described
            .map(|(code, sentence, retry_after_ms)| (code, gather.summary() + &sentence, retry_after_ms));
        if ticket.holder == Holder::Program {
            let outcome = match error {
                Some((code, message, _)) => Err((code, message)),
                None => Ok(gather.version),
            };
            return self.answers.tell_program(ticket, Told::RangeDeleted(outcome));
        }
        let reply = DeleteRangeReply {
            version: gather.version.0,
            applied: gather.applied,
            refused: gather.refused,
            unknown: gather.unknown,
            error: error.as_ref().map(|(code, message, retry_after_ms)| ErrorReply {
                code: *code,
                message,
                retry_after_ms: *retry_after_ms,
            }),
        };
        let timestamp = self.host.hlc().peek().0;
        self.answers().answer(ticket, |encoder, out| {
            encoder.delete_range_reply(out, ticket.request_id, timestamp, &reply);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(parts: &[Result<Timestamp, Refusal>]) -> RangeGather {
        let mut gather = RangeGather {
            ticket: Ticket {
                gateway: CoreId(0),
                kind: Kind::DeleteRange,
                is_timed: false,
                holder: Holder::Client,
                connection: 0,
                request_id: 0,
                received_ns: 0,
                decoded_ns: 0,
                executed_ns: 0,
            },
            outstanding: BTreeSet::new(),
            version: Timestamp::ZERO,
            applied: 0,
            refused: 0,
            unknown: 0,
            refusal: None,
        };
        for part in parts {
            gather.heard(*part);
        }
        gather
    }

    #[test]
    fn what_became_of_it_is_told_in_words() {
        let version = |version| Ok(Timestamp(version));
        let all = gather(&[version(3), version(7), version(5)]);
        assert_eq!((all.version, all.refusal), (Timestamp(7), None));
        let none = gather(&[Err(Refusal::Busy), Err(Refusal::DiskFull)]);
        assert_eq!((none.summary().as_str(), none.refusal), ("", Some(Refusal::Busy)));
        let some = gather(&[
            Err(Refusal::Busy),
            version(3),
            Err(Refusal::CoreFailed),
            version(4),
        ]);
        assert_eq!((some.applied, some.refused, some.unknown), (2, 1, 1));
        assert_eq!(some.refusal, Some(Refusal::CoreFailed), "the graver one");
        assert_eq!(
            some.summary(),
            "the range was deleted in 2 of 4 shards; it is not known whether it was deleted in 1 of 4 shards; nothing \
             was deleted in 1 of 4 shards; "
        );
    }
}
