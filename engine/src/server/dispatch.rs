//! From decoded requests to what they do: on this core's shards, on another core's, on all.

use ostrakon_wire::message::{
    ClusterId, ErrorCode, Hello, PROTOCOL_VERSION, Request, ScanRequest, TopologyReply,
};
use ostrakon_wire::routing::ShardId;

use super::core::Core;
use super::frames::{After, DecodedFrame, KeyOperation, KeyRequest, Served};
use super::message::ForwardedRequest;
use super::status::counters::{Operation, Stage};
use crate::env::CoreId;
use crate::shard::replica::WriteOutcome;
use crate::shard::{Refusal, Ticket};

impl Core {
    /// Executes a request of an open connection, other than a hello.
    pub(super) fn execute(&mut self, id: u64, frame: &DecodedFrame<'_>, request: &Request<'_>) {
        let ticket = Ticket {
            gateway: self.id(),
            connection: id,
            request_id: frame.header.request_id,
            received_ns: self.answers.turn_ns,
            tag: Operation::of_kind(frame.header.kind).tag(),
        };
        if self.is_draining {
            let is_write = matches!(request, Request::Put { .. } | Request::Delete { .. });
            let message = "the node is shutting down";
            self.answers()
                .error(ticket, is_write, ErrorCode::ShuttingDown, message, 0);
            return;
        }
        match *request {
            Request::Get { .. } | Request::Put { .. } | Request::Delete { .. } => self.route(ticket, frame),
            Request::Scan(ref scan) => self.ask_scan(ticket, scan),
            Request::Topology => self.topology(ticket),
            Request::Status => self.ask_status(ticket),
            Request::Ping => {
                self.answers.counters.pings += 1;
                let timestamp = self.host.hlc().peek().0;
                self.answers().answer(ticket, false, |encoder, out| {
                    encoder.pong(out, ticket.request_id, timestamp);
                });
            }
            Request::Hello(_) => unreachable!("handled before"),
        }
    }

    fn route(&mut self, ticket: Ticket, frame: &DecodedFrame<'_>) {
        let (request, place) = frame.key_request.expect("the frame names a key");
        if place.owner == self.id() {
            self.execute_on_shard(ticket, place.shard, place.hash, &request);
            return;
        }
        let outbox = &mut self.answers.outboxes[place.owner.index()];
        if !outbox.takes_requests() {
            self.refuse(ticket, Refusal::Busy, request.is_write());
            return;
        }
        self.answers.counters.forwarded += 1;
        let forwarded = ForwardedRequest {
            connection: ticket.connection,
            request_id: ticket.request_id,
            received_ns: ticket.received_ns,
            kind: frame.header.kind,
            shard: place.shard,
            hash: place.hash,
            body: 0..0,
        };
        outbox.request(forwarded, frame.body);
    }

    /// Executes a request that another core's client sent.
    pub(super) fn execute_forwarded(&mut self, from: CoreId, forwarded: &ForwardedRequest, bytes: &[u8]) {
        let ticket = Ticket {
            gateway: from,
            connection: forwarded.connection,
            request_id: forwarded.request_id,
            received_ns: forwarded.received_ns,
            tag: Operation::of_kind(forwarded.kind).tag(),
        };
        let hop_ns = self.answers.turn_ns.saturating_sub(forwarded.received_ns);
        self.answers.counters.stage(Stage::Hop, hop_ns);
        let request = Request::decode_trusted(forwarded.kind, &bytes[forwarded.body.clone()]);
        let request = KeyRequest::of(&request).expect("only requests for one key are forwarded");
        // Values may be large: the answers to one turn's gets are bounded too.
        if !request.is_write() && self.answers.outboxes[from.index()].is_full() {
            return self.refuse(ticket, Refusal::Busy, false);
        }
        self.execute_on_shard(ticket, forwarded.shard, forwarded.hash, &request);
    }

    fn execute_on_shard(&mut self, ticket: Ticket, shard: ShardId, hash: u64, request: &KeyRequest<'_>) {
        match request.operation {
            KeyOperation::Get => self.get(ticket, shard, hash, request.key),
            KeyOperation::Write { value, condition } => {
                self.answers.counters.writes += 1;
                match self
                    .host
                    .write(shard, hash, request.key, value, condition, ticket)
                {
                    Ok(WriteOutcome::Pending) => {}
                    Ok(WriteOutcome::ConditionFailed(version)) => {
                        let timestamp = self.host.hlc().peek().0;
                        self.answers().answer(ticket, true, |encoder, out| {
                            encoder.write_reply(out, ticket.request_id, timestamp, false, version.0);
                        });
                    }
                    Err(refusal) => self.refuse(ticket, refusal, true),
                }
            }
        }
    }

    fn get(&mut self, ticket: Ticket, shard: ShardId, hash: u64, key: &[u8]) {
        self.answers.counters.gets += 1;
        let timestamp = self.host.hlc().peek();
        let found = match self.host.get(shard, hash, key) {
            Ok(found) => found,
            Err(refusal) => return self.refuse(ticket, refusal, false),
        };
        let found = found.and_then(|version| Some((version.timestamp.0, version.value?)));
        // Not through `Core::answers`: the value is still borrowed from the shard.
        self.answers.timestamp = timestamp;
        self.answers.answer(ticket, false, |encoder, out| {
            encoder.get_reply(out, ticket.request_id, timestamp.0, found);
        });
    }

    fn topology(&mut self, ticket: Ticket) {
        let reply = TopologyReply {
            owners: self.owners.iter().map(|core| core.0).collect(),
            cores: self.env.cores,
            node_id: self.identity.node,
            cluster_id: self.cluster_id(),
        };
        let timestamp = self.host.hlc().peek().0;
        self.answers().answer(ticket, false, |encoder, out| {
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
            answers
                .encoder
                .hello_reply(connection.out(), request_id, timestamp, &reply);
        }
    }

    /// Sends an error that answers no counted request.
    pub(super) fn connection_error(&mut self, id: u64, request_id: u64, code: ErrorCode, message: &str) {
        self.answers.counters.refused(Operation::Other, code);
        let timestamp = self.host.hlc().peek().0;
        let answers = &mut self.answers;
        if let Some(connection) = answers.connections.get(id) {
            answers
                .encoder
                .error(connection.out(), request_id, timestamp, code, message, 0);
        }
    }

    /// A scan as the client asked for it, within the server's bounds.
    pub(super) fn scan_range(scan: &ScanRequest<'_>) -> crate::shard::scan::ScanRange {
        use ostrakon_wire::limits::{SCAN_LIMIT_MAX, SCAN_PAGE_BYTES_MAX};
        let limit = if scan.limit == 0 {
            SCAN_LIMIT_MAX
        } else {
            scan.limit
        };
        crate::shard::scan::ScanRange {
            start: scan.start.to_vec(),
            end: scan.end.map(<[u8]>::to_vec),
            limit: limit as usize,
            page_bytes: SCAN_PAGE_BYTES_MAX,
            keys_only: scan.keys_only,
        }
    }
}
