//! Reads of this core's shards that may have to wait: for what is in flight below a snapshot, or for a ceiling that
//! covers an expiry. Each is carried out once [`Completions::read_ready`](crate::shard::Completions::read_ready) has
//! come as often as it waits for.

use ostrakon_core::hlc::Timestamp;
use ostrakon_wire::message::Found;
use ostrakon_wire::routing::ShardId;

use super::core::Core;
use super::message::Asker;
use super::several::ValuesFor;
use crate::shard::scan::ScanRange;
use crate::shard::{ReadId, Refusal, Ticket};
use crate::storage::memtable::Version;

/// A read that waits for shards of this core.
pub(super) struct PendingRead {
    pub(super) kind: ReadKind,
    /// So many shards are not readable yet.
    pub(super) waiting: usize,
}

/// What is to be read.
pub(super) enum ReadKind {
    /// This core's page of a scan.
    Page {
        asker: Asker,
        snapshot: Timestamp,
        range: ScanRange,
    },
    /// One key.
    Key {
        ticket: Ticket,
        shard: ShardId,
        hash: u64,
        key: Vec<u8>,
        snapshot: Timestamp,
    },
    /// This core's keys of a multi-get, with the request's body.
    Values {
        whom: ValuesFor,
        body: Vec<u8>,
        snapshot: Timestamp,
    },
}

/// A version as clients see it.
pub(super) fn found<'a>(version: &Version<'a>, value: &'a [u8]) -> Found<'a> {
    Found {
        version: version.timestamp.0,
        expires: version.expiry.map_or(0, |expiry| expiry.0),
        value,
    }
}

impl Core {
    /// A name that no other read of this core has.
    pub(super) fn next_read(&mut self) -> ReadId {
        self.next_read += 1;
        ReadId(self.next_read)
    }

    /// Reads one key of this core's shards, and answers.
    pub(super) fn get(&mut self, ticket: Ticket, shard: ShardId, hash: u64, key: &[u8]) {
        match self.host.newest(shard, hash, key) {
            Err(refusal) => self.refuse(ticket, refusal),
            Ok(Some(version)) if version.expiry.is_some() => self.get_expiring(ticket, shard, hash, key),
            Ok(version) => {
                let found = version.and_then(|version| Some(found(&version, version.value?)));
                // Not through `Core::answers`: the value is still borrowed from the shard.
                let clock = self.host.clock();
                self.answers.timestamp = clock;
                self.answers.answer(ticket, |encoder, out| {
                    encoder.get_reply(out, ticket.request_id, clock.0, found);
                });
            }
        }
    }

    /// Reads a key whose newest version has an expiry.
    fn get_expiring(&mut self, ticket: Ticket, shard: ShardId, hash: u64, key: &[u8]) {
        let now = self.host.read_clock();
        let read = self.next_read();
        match self.host.prepare_get((shard, hash), key, now, read) {
            Err(refusal) => self.refuse(ticket, refusal),
            Ok(false) => {
                let kind = ReadKind::Key {
                    ticket,
                    shard,
                    hash,
                    key: key.to_vec(),
                    snapshot: now,
                };
                self.answers.wait(read, kind, 1);
            }
            Ok(true) => self.get_at(ticket, (shard, hash), key, now),
        }
    }

    /// Answers with a key's version at a snapshot at which it is readable.
    fn get_at(&mut self, ticket: Ticket, place: (ShardId, u64), key: &[u8], snapshot: Timestamp) {
        match self.host.at(place, key, snapshot) {
            Err(refusal) => self.refuse(ticket, refusal),
            Ok(version) => {
                let found = version.and_then(|version| Some(found(&version, version.live_value(snapshot)?)));
                let clock = self.host.clock();
                self.answers.timestamp = clock;
                self.answers.answer(ticket, |encoder, out| {
                    encoder.get_reply(out, ticket.request_id, clock.0, found);
                });
            }
        }
    }

    /// Carries out every read whose shards are all readable. What waited was not counted among the answers to come:
    /// a read for whose answer there is no room any more is refused.
    pub(super) fn run_ready_reads(&mut self) {
        while let Some(read) = self.answers.ready_reads.pop_front() {
            // A read that was refused half-way is not there any more.
            let Some(pending) = self.answers.pending_reads.remove(&read) else {
                continue;
            };
            let has_room = self.has_room_for(&pending.kind);
            match pending.kind {
                ReadKind::Page { asker, .. } if !has_room => self.deliver_page(asker, Err(Refusal::Busy)),
                ReadKind::Page {
                    asker,
                    snapshot,
                    range,
                } => {
                    let page = self.host.scan(snapshot, &range);
                    self.deliver_page(asker, Ok(page));
                }
                ReadKind::Key { ticket, .. } if !has_room => self.refuse(ticket, Refusal::Busy),
                ReadKind::Key {
                    ticket,
                    shard,
                    hash,
                    key,
                    snapshot,
                } => self.get_at(ticket, (shard, hash), &key, snapshot),
                ReadKind::Values { whom, .. } if !has_room => self.deliver_values(whom, Err(Refusal::Busy)),
                ReadKind::Values { whom, body, snapshot } => {
                    let keys = Core::keys_of(&body);
                    self.read_values(whom, &keys, snapshot);
                }
            }
        }
    }

    /// Is there room for the answer of a read that has waited, and is it still wanted?
    fn has_room_for(&mut self, kind: &ReadKind) -> bool {
        match kind {
            ReadKind::Key { ticket, .. }
            | ReadKind::Values {
                whom: ValuesFor::Client(ticket),
                ..
            } => self.has_room_towards(ticket),
            ReadKind::Page { asker, .. } if asker.core == self.id() => self.gathers.wants(asker.gather),
            ReadKind::Page { asker, .. }
            | ReadKind::Values {
                whom: ValuesFor::Gateway(asker),
                ..
            } => asker.core == self.id() || !self.answers.outboxes[asker.core.index()].is_full(),
        }
    }

    fn has_room_towards(&mut self, ticket: &Ticket) -> bool {
        if ticket.gateway == self.id() {
            !self.answers.connections.is_full(ticket.connection)
        } else {
            !self.answers.outboxes[ticket.gateway.index()].is_full()
        }
    }

    /// Ends every read that waits: none can be carried out any more.
    pub(super) fn fail_reads(&mut self, refusal: Refusal) {
        for pending in core::mem::take(&mut self.answers.pending_reads).into_values() {
            match pending.kind {
                ReadKind::Page { asker, .. } => self.deliver_page(asker, Err(refusal)),
                ReadKind::Key { ticket, .. } => self.refuse(ticket, refusal),
                ReadKind::Values { whom, .. } => self.deliver_values(whom, Err(refusal)),
            }
        }
    }
}
