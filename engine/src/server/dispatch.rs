//! From decoded requests to what they do: on this core's shards, on another core's, on all.

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::sessions::{self, Sequence, SessionId};
use ostrakon_wire::message::{
    BatchOperations, ClusterId, ErrorCode, Hello, PROTOCOL_VERSION, Request, Retry, ScanRequest,
    TopologyReply, after_prefix,
};
use ostrakon_wire::routing::{ShardId, shard_of};

use super::core::Core;
use super::fetch::Interrupted;
use super::frames::{After, DecodedFrame, KeyOperation, KeyPlace, KeyRequest, Served};
use super::message::ForwardedRequest;
use super::status::counters::{Operation, Stage};
use crate::env::CoreId;
use crate::shard::fetched::Fetched;
use crate::shard::host::{hashes, memtable_hash};
use crate::shard::replica::WriteOutcome;
use crate::shard::{Completions, Holder, KeyWrite, Refusal, Ticket, Write};

/// A retry as shards know it.
pub(super) fn shard_retry(retry: Retry) -> sessions::Retry {
    sessions::Retry {
        session: SessionId(retry.session),
        sequence: Sequence(retry.sequence),
        answered_below: Sequence(retry.answered_below),
        first_sent: Timestamp(retry.first_sent),
    }
}

impl Core {
    /// Executes a request of an open connection, other than a hello. Its last byte was received at `received_ns`.
    pub(super) fn execute(
        &mut self,
        id: u64,
        received_ns: u64,
        frame: &DecodedFrame<'_>,
        request: &Request<'_>,
    ) {
        let ticket = Ticket {
            gateway: self.id(),
            kind: request.kind(),
            is_timed: frame.header.timings,
            holder: Holder::Client,
            connection: id,
            request_id: frame.header.request_id,
            received_ns,
            decoded_ns: self.answers.turn_ns,
            executed_ns: self.answers.turn_ns,
        };
        if self.is_draining {
            let message = "the node is shutting down";
            self.answers().error(ticket, ErrorCode::ShuttingDown, message, 0);
            return;
        }
        match request {
            Request::Get { .. } | Request::Put { .. } | Request::Delete { .. } | Request::Add { .. } => {
                let place = frame.place.expect("the frame names a key");
                if place.owner == self.id() {
                    let request = KeyRequest::of(request).expect("it names a key");
                    let place = (place.shard, place.hash);
                    self.execute_on_shard((ticket, frame.body), place, &request, &Fetched::default());
                } else {
                    self.forward(ticket, place, frame.body);
                }
            }
            Request::Batch { operations, retry } => self.batch(ticket, frame.body, operations, *retry),
            Request::MultiGet { keys } => self.multi_get(ticket, frame.body, keys),
            Request::MultiPut { entries, retry } => self.multi_put(ticket, frame.body, entries, *retry),
            Request::DeleteRange { retry, .. } => self.begin_delete_range(ticket, frame.body, *retry),
            Request::Scan(scan) => self.ask_scan(ticket, scan),
            Request::Topology => self.topology(ticket),
            Request::Status => self.ask_status(ticket),
            Request::Stats => self.ask_stats(ticket),
            Request::Checkpoint { action, id } => self.ask_checkpoint(ticket, *action, *id),
            Request::Cancel { request_id } => {
                let cancelled = self.cancel(id, *request_id);
                let timestamp = self.host.hlc().peek().0;
                self.answers().answer(ticket, |encoder, out| {
                    encoder.cancel_reply(out, ticket.request_id, timestamp, cancelled);
                });
            }
            Request::Ping => {
                self.answers.counters.pings += 1;
                let timestamp = self.host.hlc().peek().0;
                self.answers().answer(ticket, |encoder, out| {
                    encoder.pong(out, ticket.request_id, timestamp);
                });
            }
            Request::Hello(_) => unreachable!("handled before"),
        }
    }

    /// Passes a request on to the core that owns its shard.
    fn forward(&mut self, ticket: Ticket, place: KeyPlace, body: &[u8]) {
        let outbox = &mut self.answers.outboxes[place.owner.index()];
        if !outbox.takes_requests() {
            self.refuse(ticket, Refusal::Busy);
            return;
        }
        self.answers.counters.forwarded += 1;
        let forwarded = ForwardedRequest {
            ticket,
            shard: place.shard,
            hash: place.hash,
            body: 0..0,
        };
        outbox.request(forwarded, body);
    }

    /// Executes a request that another core's client sent.
    pub(super) fn execute_forwarded(&mut self, forwarded: &ForwardedRequest, bytes: &[u8]) {
        let ticket = Ticket {
            executed_ns: self.answers.turn_ns,
            ..forwarded.ticket
        };
        let hop_ns = ticket.executed_ns.saturating_sub(ticket.decoded_ns);
        self.answers.counters.stage(Stage::Hop, hop_ns);
        // Values may be large: the answers to one turn's gets are bounded too.
        if !ticket.kind.is_write() && self.answers.outboxes[ticket.gateway.index()].is_full() {
            return self.refuse(ticket, Refusal::Busy);
        }
        let body = &bytes[forwarded.body.clone()];
        let request = Request::decode_trusted(ticket.kind as u16, body);
        if let Request::Batch { operations, retry } = &request {
            let fetched = Fetched::default();
            return self.execute_batch((ticket, body), forwarded.shard, operations, *retry, &fetched);
        }
        let request = KeyRequest::of(&request).expect("only requests for one shard are forwarded");
        let place = (forwarded.shard, forwarded.hash);
        self.execute_on_shard((ticket, body), place, &request, &Fetched::default());
    }

    /// Goes on with a write that lacked what was read.
    pub(super) fn execute_again(&mut self, ticket: Ticket, shard: ShardId, body: &[u8], fetched: &Fetched) {
        let request = Request::decode_trusted(ticket.kind as u16, body);
        if let Request::Batch { operations, retry } = &request {
            return self.execute_batch((ticket, body), shard, operations, *retry, fetched);
        }
        let request = KeyRequest::of(&request).expect("only writes to one shard lack something");
        let place = (shard, memtable_hash(request.key));
        self.execute_on_shard((ticket, body), place, &request, fetched);
    }

    fn execute_on_shard(
        &mut self,
        (ticket, body): (Ticket, &[u8]),
        (shard, hash): (ShardId, u64),
        request: &KeyRequest<'_>,
        fetched: &Fetched,
    ) {
        match request.operation {
            KeyOperation::Get => {
                self.answers.counters.gets += 1;
                self.get(ticket, shard, (hash, request.key), fetched);
            }
            KeyOperation::Write {
                action,
                condition,
                retry,
            } => {
                let key = KeyWrite {
                    hash,
                    key: request.key,
                    action,
                    condition,
                };
                self.write((ticket, body), shard, (&[key], retry), fetched);
            }
        }
    }

    fn batch(&mut self, ticket: Ticket, body: &[u8], operations: &BatchOperations<'_>, retry: Option<Retry>) {
        let place = self.place_of(operations.at(0).key);
        let in_one_shard = operations
            .iter()
            .all(|operation| self.place_of(operation.key).shard == place.shard);
        if !in_one_shard {
            let message = "the keys of the batch lie in several shards; give them a common part in braces, as in {a}x \
                           and {a}y";
            self.answers().error(ticket, ErrorCode::NotOneShard, message, 0);
            return;
        }
        if place.owner == self.id() {
            let fetched = Fetched::default();
            self.execute_batch((ticket, body), place.shard, operations, retry, &fetched);
        } else {
            self.forward(ticket, place, body);
        }
    }

    fn execute_batch(
        &mut self,
        request: (Ticket, &[u8]),
        shard: ShardId,
        operations: &BatchOperations<'_>,
        retry: Option<Retry>,
        fetched: &Fetched,
    ) {
        let keys: Vec<KeyWrite<'_>> = operations
            .iter()
            .map(|operation| KeyWrite {
                hash: memtable_hash(operation.key),
                key: operation.key,
                action: operation.action,
                condition: operation.condition,
            })
            .collect();
        self.write(request, shard, (&keys, retry), fetched);
    }

    /// Writes to one of this core's shards. The body is that of the request, in case that it has to come again.
    pub(super) fn write(
        &mut self,
        (ticket, body): (Ticket, &[u8]),
        shard: ShardId,
        (keys, retry): (&[KeyWrite<'_>], Option<Retry>),
        fetched: &Fetched,
    ) {
        let write = Write {
            keys,
            retry: retry.map(shard_retry),
            ticket,
        };
        let outcome = self.host.write(shard, &write, fetched);
        if let Ok(WriteOutcome::Lacks(missing)) = outcome {
            let body = body.to_vec();
            let interrupted = Interrupted::Write { ticket, shard, body };
            return self.fetch(missing, fetched, interrupted);
        }
        self.answers.counters.writes += 1;
        match outcome {
            Ok(WriteOutcome::Lacks(_)) => unreachable!("it comes again"),
            Ok(WriteOutcome::Pending) => {}
            Ok(WriteOutcome::Decided(answer)) => self.answers().decided(ticket, &answer),
            Err(refusal) => self.refuse(ticket, refusal),
        }
    }

    /// Where a key lies.
    pub(super) fn place_of(&self, key: &[u8]) -> KeyPlace {
        let (routing_hash, hash) = hashes(key);
        let shard = shard_of(routing_hash, self.identity.shards);
        KeyPlace {
            owner: self.owners[shard.0 as usize],
            shard,
            hash,
        }
    }

    fn topology(&mut self, ticket: Ticket) {
        let reply = TopologyReply {
            owners: self.owners.iter().map(|core| core.0).collect(),
            cores: self.env.cores,
            node_id: self.identity.node,
            cluster_id: self.cluster_id(),
        };
        let timestamp = self.host.hlc().peek().0;
        self.answers().answer(ticket, |encoder, out| {
            encoder.topology_reply(out, ticket.request_id, timestamp, &reply);
        });
    }

    pub(super) fn hello(&mut self, id: u64, request_id: u64, hello: &Hello<'_>) -> After {
        if !(hello.version_min..=hello.version_max).contains(&PROTOCOL_VERSION) {
            let message = format!(
                "this server speaks protocol version {PROTOCOL_VERSION}, the client versions {} to {}: use a \
                 client of the server's release",
                hello.version_min, hello.version_max
            );
            self.connection_error(id, request_id, ErrorCode::UnsupportedVersion, &message);
            return After::Stop(Served::End);
        }
        let cluster = self.cluster_id();
        if hello.cluster_id != ClusterId::ANY && hello.cluster_id != cluster {
            let message = format!(
                "this is cluster {:016x}{:016x}, the client expects {:016x}{:016x}: check the address",
                cluster.high, cluster.low, hello.cluster_id.high, hello.cluster_id.low
            );
            self.connection_error(id, request_id, ErrorCode::WrongCluster, &message);
            return After::Stop(Served::End);
        }
        match hello.core {
            Some(core) if core >= self.env.cores => {
                let message = format!("core {core} does not exist, this node has {}", self.env.cores);
                self.connection_error(id, request_id, ErrorCode::BadRequest, &message);
                After::Stop(Served::End)
            }
            Some(core) if core != self.env.core.0 => After::Stop(Served::HandOver(CoreId(core), request_id)),
            _ => {
                self.answer_hello(id, request_id);
                After::Continue
            }
        }
    }

    /// Answers a hello: the connection is open and stays on this core.
    pub(super) fn answer_hello(&mut self, id: u64, request_id: u64) {
        let reply = self.hello_reply();
        let timestamp = self.host.hlc().peek().0;
        let answers = &mut self.answers;
        if let Some(connection) = answers.connections.get(id) {
            connection.open();
        }
        let encoder = &mut answers.encoder;
        answers
            .connections
            .append(id, |out| encoder.hello_reply(out, request_id, timestamp, &reply));
    }

    /// Sends an error that answers no counted request.
    pub(super) fn connection_error(&mut self, id: u64, request_id: u64, code: ErrorCode, message: &str) {
        self.answers.counters.refused(Operation::Other, code);
        let timestamp = self.host.hlc().peek().0;
        let encoder = &mut self.answers.encoder;
        self.answers.connections.append(id, |out| {
            encoder.error(out, request_id, timestamp, code, message, 0);
        });
    }

    /// A scan as the client asked for it, within the server's bounds.
    pub fn scan_range(scan: &ScanRequest<'_>) -> crate::shard::scan::ScanRange {
        use ostrakon_wire::limits::{SCAN_LIMIT_MAX, SCAN_PAGE_BYTES_MAX};
        let limit = if scan.limit == 0 {
            SCAN_LIMIT_MAX
        } else {
            scan.limit
        };
        let (start, end) = bounds(scan);
        crate::shard::scan::ScanRange {
            start,
            end,
            limit: limit as usize,
            page_bytes: SCAN_PAGE_BYTES_MAX,
            keys_only: scan.keys_only,
            reverse: scan.reverse,
        }
    }
}

/// First key and end of the keys that lie between the bounds of a scan and begin with its prefix.
fn bounds(scan: &ScanRequest<'_>) -> (Vec<u8>, Option<Vec<u8>>) {
    let start = scan.start.max(scan.prefix).to_vec();
    let after_prefix = (!scan.prefix.is_empty())
        .then(|| after_prefix(scan.prefix))
        .flatten();
    let end = scan.end.map(<[u8]>::to_vec);
    let end = match (end, after_prefix) {
        (Some(end), Some(after)) => Some(end.min(after)),
        (end, after) => end.or(after),
    };
    (start, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_narrows_the_bounds_of_a_scan() {
        let of = |start: &'static [u8], end: Option<&'static [u8]>, prefix: &'static [u8]| {
            bounds(&ScanRequest {
                start,
                end,
                prefix,
                ..ScanRequest::ALL
            })
        };
        let bytes = |bytes: &[u8]| bytes.to_vec();
        assert_eq!(of(b"", None, b""), (bytes(b""), None));
        assert_eq!(of(b"", None, b"ab"), (bytes(b"ab"), Some(bytes(b"ac"))));
        assert_eq!(
            of(b"abx", Some(b"abz"), b"ab"),
            (bytes(b"abx"), Some(bytes(b"abz")))
        );
        assert_eq!(of(b"a", Some(b"z"), b"m"), (bytes(b"m"), Some(bytes(b"n"))));
        assert_eq!(of(b"", None, b"a\xFF"), (bytes(b"a\xFF"), Some(bytes(b"b"))));
        assert_eq!(of(b"", None, b"\xFF\xFF"), (bytes(b"\xFF\xFF"), None));
    }
}
