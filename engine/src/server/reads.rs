//! Reads of this core's shards that may have to wait: for what is in flight below a snapshot, or for a ceiling that
//! covers an expiry. Each is carried out once [`Completions::read_ready`](crate::shard::Completions::read_ready) has
//! come as often as it waits for.

use ostrakon_core::hlc::Timestamp;
use ostrakon_wire::message::Found;
use ostrakon_wire::routing::ShardId;

use super::core::Core;
use super::fetch::Interrupted;
use super::message::Asker;
use super::programs::Told;
use super::several::ValuesFor;
use crate::env::CoreId;
use crate::shard::fetched::{Fetched, Missing};
use crate::shard::replica::Readiness;
use crate::shard::scan::{PageScan, ScanRange};
use crate::shard::{ReadId, Refusal, Ticket};
use crate::storage::memtable::Version;
use crate::storage::store::Look;

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
    /// A program waits for it.
    Program(Ticket),
    /// This core's tables, for a checkpoint.
    Checkpoint {
        asker: Asker,
        id: u64,
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
    pub(super) fn get(
        &mut self,
        ticket: Ticket,
        shard: ShardId,
        (hash, key): (u64, &[u8]),
        fetched: &Fetched,
    ) {
        match self.host.newest(shard, (hash, key), fetched) {
            Err(refusal) => self.refuse(ticket, refusal),
            Ok(Look::Unknown(tables)) => {
                let missing = self.host.missing(shard, (hash, key), Timestamp::MAX, tables);
                self.fetch_for_get(ticket, shard, (hash, key), missing, fetched);
            }
            Ok(look) => {
                let version = look.version();
                if version.is_some_and(|version| version.expiry.is_some()) {
                    drop(look);
                    return self.get_expiring(ticket, shard, (hash, key), fetched);
                }
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
    fn get_expiring(&mut self, ticket: Ticket, shard: ShardId, (hash, key): (u64, &[u8]), fetched: &Fetched) {
        let now = self.host.read_clock();
        let read = self.next_read();
        match self.host.prepare_get((shard, hash), key, now, read, fetched) {
            Err(refusal) => self.refuse(ticket, refusal),
            Ok(Readiness::Waits) => {
                let kind = ReadKind::Key {
                    ticket,
                    shard,
                    hash,
                    key: key.to_vec(),
                    snapshot: now,
                };
                self.answers.wait(read, kind, 1);
            }
            Ok(Readiness::Readable) => self.get_at(ticket, shard, (hash, key), now, fetched),
            Ok(Readiness::Lacks(missing)) => {
                self.fetch_for_get(ticket, shard, (hash, key), missing, fetched);
            }
        }
    }

    /// Begins a get again once what it lacks was read.
    fn fetch_for_get(
        &mut self,
        ticket: Ticket,
        shard: ShardId,
        (hash, key): (u64, &[u8]),
        missing: Missing,
        fetched: &Fetched,
    ) {
        let key = key.to_vec();
        let interrupted = Interrupted::Get {
            ticket,
            shard,
            hash,
            key,
        };
        self.fetch(vec![missing], fetched, interrupted);
    }

    /// Answers with a key's version at a snapshot at which it is readable.
    pub(super) fn get_at(
        &mut self,
        ticket: Ticket,
        shard: ShardId,
        (hash, key): (u64, &[u8]),
        snapshot: Timestamp,
        fetched: &Fetched,
    ) {
        match self.host.at(shard, (hash, key), snapshot, fetched) {
            Err(refusal) => self.refuse(ticket, refusal),
            Ok(Look::Unknown(tables)) => {
                let missing = self.host.missing(shard, (hash, key), snapshot, tables);
                let key = key.to_vec();
                let interrupted = Interrupted::GetAt {
                    ticket,
                    shard,
                    hash,
                    key,
                    snapshot,
                };
                self.fetch(vec![missing], fetched, interrupted);
            }
            Ok(look) => {
                let version = look.version();
                let found = version.and_then(|version| Some(found(&version, version.live_value(snapshot)?)));
                let clock = self.host.clock();
                self.answers.timestamp = clock;
                self.answers.answer(ticket, |encoder, out| {
                    encoder.get_reply(out, ticket.request_id, clock.0, found);
                });
            }
        }
    }

    /// Reads this core's page of a scan as far as no block has to be read, and delivers it when it is done.
    pub(super) fn go_on_with_page(&mut self, asker: Asker, mut scan: PageScan) {
        match self.host.scan(&mut scan) {
            Err(refusal) => self.deliver_page(asker, Err(refusal)),
            Ok(true) => self.deliver_page(asker, Ok(scan.into_page())),
            Ok(false) => self.read_for_page(asker, scan),
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
                    self.go_on_with_page(asker, PageScan::new(snapshot, range));
                }
                ReadKind::Program(ticket) => self.answers.programs.tell(ticket.request_id, Told::Readable),
                ReadKind::Key { ticket, .. } if !has_room => self.refuse(ticket, Refusal::Busy),
                ReadKind::Key {
                    ticket,
                    shard,
                    hash,
                    key,
                    snapshot,
                } => self.get_at(ticket, shard, (hash, &key), snapshot, &Fetched::default()),
                ReadKind::Checkpoint { asker, id, snapshot } => self.seal_for_checkpoint(asker, id, snapshot),
                ReadKind::Values { whom, .. } if !has_room => self.deliver_values(whom, Err(Refusal::Busy)),
                ReadKind::Values { whom, body, snapshot } => {
                    self.read_values(whom, &body, snapshot, &Fetched::default());
                }
            }
        }
    }

    /// Is there room for the answer of a read that has waited, and is it still wanted?
    fn has_room_for(&mut self, kind: &ReadKind) -> bool {
        match kind {
            ReadKind::Key { ticket, .. } => self.has_room_towards(ticket),
            ReadKind::Values { whom, .. } => self.has_room_for_values(*whom),
            ReadKind::Page { asker, .. } => self.has_room_for_page(*asker),
            ReadKind::Program(_) | ReadKind::Checkpoint { .. } => true,
        }
    }

    /// The same for a part of a multi-get.
    pub(super) fn has_room_for_values(&mut self, whom: ValuesFor) -> bool {
        match whom {
            ValuesFor::Client(ticket) => self.has_room_towards(&ticket),
            ValuesFor::Gateway(asker) => self.has_room_towards_core(asker.core),
        }
    }

    /// The same for a page of a scan.
    pub(super) fn has_room_for_page(&mut self, asker: Asker) -> bool {
        if asker.core == self.id() {
            self.gathers.wants(asker.gather)
        } else {
            self.has_room_towards_core(asker.core)
        }
    }

    fn has_room_towards_core(&self, core: CoreId) -> bool {
        core == self.id() || !self.answers.outboxes[core.index()].is_full()
    }

    pub(super) fn has_room_towards(&mut self, ticket: &Ticket) -> bool {
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
                ReadKind::Key { ticket, .. } | ReadKind::Program(ticket) => self.refuse(ticket, refusal),
                ReadKind::Values { whom, .. } => self.deliver_values(whom, Err(refusal)),
                ReadKind::Checkpoint { asker, id, .. } => {
                    self.checkpoints.forget(id);
                    self.deliver_checkpoint(asker, Err(refusal.into()));
                }
            }
        }
    }
}
