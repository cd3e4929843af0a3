//! Multi-gets and multi-puts: requests for several keys, which may lie on several cores.
//!
//! The gateway passes the whole request to each core that owns one of its keys; each looks for its own. Keys of one
//! shard are read at one moment, and written by one entry. The gateway puts the parts together.

use std::collections::BTreeMap;

use ostrakon_core::hlc::Timestamp;
use ostrakon_wire::limits::MULTI_GET_BYTES_MAX;
use ostrakon_wire::message::{
    Action, Condition, ErrorCode, Found, Keys, Kind, MultiPutReply, MultiValue, PutEntries, Request, Retry,
};
use ostrakon_wire::routing::ShardId;

use super::core::Core;
use super::fetch::Interrupted;
use super::gather::Gathers;
use super::message::{Asker, CoreMessage, GatherId};
use super::reads::{ReadKind, found};
use super::refusal::describe;
use super::status::counters::Operation;
use crate::env::CoreId;
use crate::limits::{GATHERED_BYTES_MAX, MULTIS_MAX};
use crate::shard::fetched::Fetched;
use crate::shard::replica::Readiness;
use crate::shard::{Holder, KeyWrite, Refusal, Ticket};
use crate::storage::store::Look;

/// Who wants a core's part of a multi-get.
#[derive(Clone, Copy)]
pub(super) enum ValuesFor {
    /// The client: all keys are this core's.
    Client(Ticket),
    /// The core that puts the parts together.
    Gateway(Asker),
}

/// What one core has of a multi-get's keys.
#[derive(Default)]
pub struct ValuesPart {
    bytes: Vec<u8>,
    values: Vec<PartValue>,
}

struct PartValue {
    /// Place of the key in the request.
    position: u32,
    content: PartContent,
}

enum PartContent {
    NotFound,
    Omitted,
    Found {
        version: u64,
        expires: u64,
        start: usize,
        length: usize,
    },
}

/// A multi-get that not all cores have answered.
pub(super) struct ValuesGather {
    pub(super) ticket: Ticket,
    /// The client has been told that it was cancelled.
    pub(super) is_cancelled: bool,
    outstanding: usize,
    keys: usize,
    parts: Vec<ValuesPart>,
    refusal: Option<Refusal>,
}

impl ValuesGather {
    /// Drops the parts that were heard, and returns how many bytes they had.
    pub(super) fn give_back(&mut self) -> usize {
        let parts = core::mem::take(&mut self.parts);
        parts.iter().map(ValuesPart::bytes).sum()
    }
}

/// A multi-put that not all shards have answered.
pub(super) struct PutsGather {
    ticket: Ticket,
    /// Places of the entries of each shard that has not answered.
    outstanding: BTreeMap<ShardId, Vec<u32>>,
    versions: Vec<u64>,
    /// Empty as long as nothing was refused.
    codes: Vec<Option<ErrorCode>>,
    /// The refusal of the first entry that was refused, and its place.
    first_refusal: Option<(u32, Refusal)>,
}

impl ValuesPart {
    /// Bytes of its values.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn push(&mut self, position: usize, value: MultiValue<'_>) {
        let content = match value {
            MultiValue::NotFound => PartContent::NotFound,
            MultiValue::Omitted => PartContent::Omitted,
            MultiValue::Found(found) => {
                let start = self.bytes.len();
                self.bytes.extend_from_slice(found.value);
                PartContent::Found {
                    version: found.version,
                    expires: found.expires,
                    start,
                    length: found.value.len(),
                }
            }
        };
        let position = position as u32;
        self.values.push(PartValue { position, content });
    }

    fn value(&self, content: &PartContent) -> MultiValue<'_> {
        match *content {
            PartContent::NotFound => MultiValue::NotFound,
            PartContent::Omitted => MultiValue::Omitted,
            PartContent::Found {
                version,
                expires,
                start,
                length,
            } => MultiValue::Found(Found {
                version,
                expires,
                value: &self.bytes[start..start + length],
            }),
        }
    }
}

/// Lets values through until an answer is full; the first is always let through.
struct Room {
    left_bytes: usize,
    is_empty: bool,
}

impl Room {
    fn new() -> Room {
        Room {
            left_bytes: MULTI_GET_BYTES_MAX,
            is_empty: true,
        }
    }

    fn admit<'a>(&mut self, value: MultiValue<'a>) -> MultiValue<'a> {
        let MultiValue::Found(found) = value else {
            return value;
        };
        if found.value.len() > self.left_bytes && !self.is_empty {
            return MultiValue::Omitted;
        }
        self.is_empty = false;
        self.left_bytes = self.left_bytes.saturating_sub(found.value.len());
        value
    }
}

impl Core {
    /// Begins a client's multi-get.
    pub(super) fn multi_get(&mut self, ticket: Ticket, body: &[u8], keys: &Keys<'_>) {
        let owners = self.owners_of(keys.iter());
        if owners == [self.id()] {
            return self.begin_values(ValuesFor::Client(ticket), body, &Fetched::default());
        }
        if self.gathers.values.len() >= MULTIS_MAX || self.is_any_outbox_full(&owners) {
            return self.refuse(ticket, Refusal::Busy);
        }
        let gather = self.gathers.next_id();
        let waiting = ValuesGather {
            ticket,
            is_cancelled: false,
            outstanding: owners.len(),
            keys: keys.len(),
            parts: Vec::new(),
            refusal: None,
        };
        self.gathers.values.insert(gather, waiting);
        for owner in owners {
            if owner == self.id() {
                let core = self.id();
                let whom = ValuesFor::Gateway(Asker { core, gather });
                self.begin_values(whom, body, &Fetched::default());
            } else {
                self.answers.outboxes[owner.index()]
                    .push_with_bytes(body, |range| CoreMessage::AskValues(gather, range));
            }
        }
    }

    /// The keys of a multi-get that was decoded before.
    pub(super) fn keys_of(body: &[u8]) -> Keys<'_> {
        let Request::MultiGet { keys } = Request::decode_trusted(Kind::MultiGet as u16, body) else {
            unreachable!("the gateway passes on what it has decoded");
        };
        keys
    }

    /// Reads this core's keys of a multi-get, all at one moment, once all of them can be read.
    pub(super) fn begin_values(&mut self, whom: ValuesFor, body: &[u8], fetched: &Fetched) {
        let keys = Core::keys_of(body);
        let now = self.host.read_clock();
        let read = self.next_read();
        // A shard that is waited for will be readable at this moment whatever the key.
        let mut waiting: Vec<ShardId> = Vec::new();
        let mut ready: Vec<ShardId> = Vec::new();
        let mut missing = Vec::new();
        for key in &keys {
            let place = self.place_of(key);
            if place.owner != self.id() || waiting.contains(&place.shard) {
                continue;
            }
            let readiness = self
                .host
                .prepare_get((place.shard, place.hash), key, now, read, fetched);
            match readiness {
                Ok(Readiness::Readable) if ready.contains(&place.shard) => {}
                Ok(Readiness::Readable) => ready.push(place.shard),
                Ok(Readiness::Waits) => waiting.push(place.shard),
                Ok(Readiness::Lacks(of_key)) => missing.push(of_key),
                Err(refusal) => return self.deliver_values(whom, Err(refusal)),
            }
        }
        if !missing.is_empty() {
            let body = body.to_vec();
            return self.fetch(missing, fetched, Interrupted::Values { whom, body });
        }
        if waiting.is_empty() {
            return self.read_values(whom, body, now, fetched);
        }
        // By the time that those are readable, half of what is in flight in the others may be applied.
        for shard in ready
            .into_iter()
            .filter(|shard| !waiting.contains(shard))
            .collect::<Vec<_>>()
        {
            match self.host.prepare_shard(shard, now, read) {
                Ok(true) => {}
                Ok(false) => waiting.push(shard),
                Err(refusal) => return self.deliver_values(whom, Err(refusal)),
            }
        }
        let kind = ReadKind::Values {
            whom,
            body: body.to_vec(),
            snapshot: now,
        };
        self.answers.wait(read, kind, waiting.len());
    }

    /// Reads this core's keys of a multi-get at a snapshot at which they are readable.
    pub(super) fn read_values(
        &mut self,
        whom: ValuesFor,
        body: &[u8],
        snapshot: Timestamp,
        fetched: &Fetched,
    ) {
        let keys = Core::keys_of(body);
        let mut looks = Vec::with_capacity(keys.len());
        let mut missing = Vec::new();
        for (position, key) in keys.iter().enumerate() {
            let place = self.place_of(key);
            if place.owner != self.id() {
                continue;
            }
            match self.host.at(place.shard, (place.hash, key), snapshot, fetched) {
                Ok(Look::Unknown(tables)) => {
                    let key = (place.hash, key);
                    missing.push(self.host.missing(place.shard, key, snapshot, tables));
                }
                Ok(look) => looks.push((position, look)),
                Err(refusal) => {
                    drop(looks);
                    return self.deliver_values(whom, Err(refusal));
                }
            }
        }
        if !missing.is_empty() {
            drop(looks);
            let interrupted = Interrupted::ValuesAt {
                whom,
                body: body.to_vec(),
                snapshot,
            };
            return self.fetch(missing, fetched, interrupted);
        }
        let mut room = Room::new();
        match whom {
            ValuesFor::Client(ticket) => {
                // Not through `Core::answers`: the values are borrowed from the shards.
                let clock = self.host.clock();
                self.answers.timestamp = clock;
                self.answers.answer(ticket, |encoder, out| {
                    let values = looks.iter().map(|(_, look)| room.admit(value_of(look, snapshot)));
                    encoder.multi_get_reply(out, ticket.request_id, clock.0, values);
                });
            }
            ValuesFor::Gateway(_) => {
                let mut part = ValuesPart::default();
                for (position, look) in &looks {
                    part.push(*position, room.admit(value_of(look, snapshot)));
                }
                drop(looks);
                self.deliver_values(whom, Ok(part));
            }
        }
    }

    /// Passes on what was read, or why it can't be.
    pub(super) fn deliver_values(&mut self, whom: ValuesFor, part: Result<ValuesPart, Refusal>) {
        match (whom, part) {
            (ValuesFor::Client(ticket), Err(refusal)) => self.refuse(ticket, refusal),
            (ValuesFor::Client(_), Ok(_)) => unreachable!("a client is answered from the memtable"),
            (ValuesFor::Gateway(asker), part) if asker.core == self.id() => {
                self.values_heard(asker.gather, part);
            }
            (ValuesFor::Gateway(asker), part) => {
                let bytes = part.as_ref().map_or(0, ValuesPart::bytes);
                let message = CoreMessage::Values(asker.gather, part.map(Box::new));
                self.answers.outboxes[asker.core.index()].push_boxed(message, bytes);
            }
        }
    }

    /// A core's part of a multi-get was heard.
    pub(super) fn values_heard(&mut self, id: GatherId, part: Result<ValuesPart, Refusal>) {
        let Gathers {
            values, values_bytes, ..
        } = &mut self.gathers;
        let gather = values.get_mut(&id).expect("each core answers once");
        gather.outstanding -= 1;
        let is_last = gather.outstanding == 0;
        let refusal = match part {
            Err(refusal) => Some(refusal),
            // Nobody will read it.
            Ok(_) if gather.is_cancelled || gather.refusal.is_some() => None,
            Ok(part) if !is_last && *values_bytes + part.bytes() > GATHERED_BYTES_MAX => Some(Refusal::Busy),
            Ok(part) => {
                *values_bytes += part.bytes();
                gather.parts.push(part);
                None
            }
        };
        if refusal.is_some() {
            gather.refusal = refusal;
            *values_bytes -= gather.give_back();
        }
        if !is_last {
            return;
        }
        let gather = values.remove(&id).expect("looked up above");
        *values_bytes -= gather.parts.iter().map(ValuesPart::bytes).sum::<usize>();
        if gather.is_cancelled {
            return;
        }
        let ticket = self.gathered(gather.ticket);
        let is_full = self.answers.connections.is_full(ticket.connection);
        if let Some(refusal) = gather.refusal.or(is_full.then_some(Refusal::Busy)) {
            return self.refuse(ticket, refusal);
        }
        let mut values = vec![MultiValue::Omitted; gather.keys];
        for part in &gather.parts {
            for value in &part.values {
                values[value.position as usize] = part.value(&value.content);
            }
        }
        let mut room = Room::new();
        let timestamp = self.host.hlc().peek().0;
        self.answers().answer(ticket, |encoder, out| {
            let values = values.into_iter().map(|value| room.admit(value));
            encoder.multi_get_reply(out, ticket.request_id, timestamp, values);
        });
    }

    /// Begins a client's multi-put.
    pub(super) fn multi_put(
        &mut self,
        ticket: Ticket,
        body: &[u8],
        entries: &PutEntries<'_>,
        retry: Option<Retry>,
    ) {
        // Each shard asks this by its own clock; what is wrong for all is better said once.
        if retry.is_some_and(|retry| self.host.is_sent_ahead(Timestamp(retry.first_sent))) {
            return self.refuse(ticket, Refusal::SentAhead);
        }
        let mut outstanding: BTreeMap<ShardId, Vec<u32>> = BTreeMap::new();
        for (position, entry) in entries.iter().enumerate() {
            let shard = self.place_of(entry.key).shard;
            outstanding.entry(shard).or_default().push(position as u32);
        }
        let owners = self.owners_of(entries.iter().map(|entry| entry.key));
        if self.gathers.puts.len() >= MULTIS_MAX || self.is_any_outbox_full(&owners) {
            return self.refuse(ticket, Refusal::Busy);
        }
        let gather = self.gathers.next_id();
        let waiting = PutsGather {
            ticket,
            outstanding,
            versions: vec![0; entries.len()],
            codes: Vec::new(),
            first_refusal: None,
        };
        self.gathers.puts.insert(gather, waiting);
        let part = Ticket {
            connection: gather.0,
            is_timed: false,
            holder: Holder::Part,
            ..ticket
        };
        for owner in owners {
            if owner == self.id() {
                self.execute_puts(part, body);
            } else {
                self.answers.outboxes[owner.index()]
                    .push_with_bytes(body, |range| CoreMessage::AskPuts(part, range));
            }
        }
    }

    /// Writes this core's entries of a multi-put, those of each shard together.
    pub(super) fn execute_puts(&mut self, part: Ticket, body: &[u8]) {
        let Request::MultiPut { entries, retry } = Request::decode_trusted(Kind::MultiPut as u16, body)
        else {
            unreachable!("the gateway passes on what it has decoded");
        };
        let mut shards: BTreeMap<ShardId, Vec<KeyWrite<'_>>> = BTreeMap::new();
        for entry in &entries {
            let place = self.place_of(entry.key);
            if place.owner == self.id() {
                shards.entry(place.shard).or_default().push(KeyWrite {
                    hash: place.hash,
                    key: entry.key,
                    action: Action::Put {
                        value: entry.value,
                        ttl_ms: entry.ttl_ms,
                    },
                    condition: Condition::None,
                });
            }
        }
        for (shard, keys) in shards {
            let ticket = Ticket {
                request_id: u64::from(shard.0),
                executed_ns: self.answers.turn_ns,
                ..part
            };
            // It has no conditions, so it lacks nothing.
            self.write((ticket, &[]), shard, (&keys, retry), &Fetched::default());
        }
    }

    /// What became of the entries of one shard was heard.
    pub(super) fn puts_heard(&mut self, id: GatherId, shard: ShardId, part: Result<Timestamp, Refusal>) {
        let gather = self.gathers.puts.get_mut(&id).expect("nobody else ends it");
        let positions = gather.outstanding.remove(&shard).expect("a shard answers once");
        match part {
            Ok(version) => {
                for position in positions {
                    gather.versions[position as usize] = version.0;
                }
            }
            Err(refusal) => {
                let place = positions[0];
                if gather.first_refusal.is_none_or(|(first, _)| place < first) {
                    gather.first_refusal = Some((place, refusal));
                }
                self.answers
                    .counters
                    .refused(Operation::of_kind(Kind::MultiPut), describe(refusal).0);
                gather.codes.resize(gather.versions.len(), None);
                for position in positions {
                    gather.codes[position as usize] = Some(describe(refusal).0);
                }
            }
        }
        if !gather.outstanding.is_empty() {
            return;
        }
        let gather = self.gathers.puts.remove(&id).expect("looked up above");
        let ticket = self.gathered(gather.ticket);
        let refusal = gather.first_refusal.map(|(_, refusal)| describe(refusal));
        let (_, message, retry_after_ms) = refusal.unwrap_or((ErrorCode::Busy, "".into(), 0));
        let reply = MultiPutReply {
            versions: gather.versions,
            codes: gather.codes,
            message: &message,
            retry_after_ms,
        };
        let timestamp = self.host.hlc().peek().0;
        self.answers().answer(ticket, |encoder, out| {
            encoder.multi_put_reply(out, ticket.request_id, timestamp, &reply);
        });
    }

    /// Takes in what this core's own shards have said of multi-puts and delete-ranges.
    pub(super) fn take_put_parts(&mut self) {
        while let Some((gather, shard, part)) = self.answers.put_parts.pop() {
            self.part_heard(gather, shard, part);
        }
    }

    /// The cores that own these keys, each once, in order.
    fn owners_of<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Vec<CoreId> {
        let mut owners: Vec<CoreId> = keys.map(|key| self.place_of(key).owner).collect();
        owners.sort_unstable();
        owners.dedup();
        owners
    }

    pub(super) fn is_any_outbox_full(&self, owners: &[CoreId]) -> bool {
        let others = owners.iter().filter(|owner| **owner != self.id());
        others
            .map(|owner| &self.answers.outboxes[owner.index()])
            .any(|outbox| !outbox.takes_requests())
    }
}

/// What a look has found for a reader at a snapshot.
fn value_of<'a>(look: &'a Look<'_>, snapshot: Timestamp) -> MultiValue<'a> {
    let version = look.version();
    let value = version.and_then(|version| Some((version, version.live_value(snapshot)?)));
    value.map_or(MultiValue::NotFound, |(version, value)| {
        MultiValue::Found(found(&version, value))
    })
}
