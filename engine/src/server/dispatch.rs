//! From received bytes to executed requests.

use ostrakon_core::hlc::Timestamp;
use ostrakon_wire::frame::{self, FrameHeader};
use ostrakon_wire::limits::HELLO_BODY_BYTES_MAX;
use ostrakon_wire::message::{
    ClusterId, Condition, ErrorCode, Hello, PROTOCOL_VERSION, Request, ScanRequest, TopologyReply,
};
use ostrakon_wire::routing::{ShardId, key_hash, shard_of};

use super::core::Core;
use super::message::ForwardedRequest;
use crate::env::CoreId;
use crate::limits::REQUEST_BODY_BYTES_MAX;
use crate::shard::host::hash_in_memtable;
use crate::shard::replica::WriteOutcome;
use crate::shard::{Refusal, Ticket};

/// How far the serving of received bytes came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// All whole frames are served; more bytes are needed.
    All,
    /// The connection has no room for another answer; the rest is kept.
    Blocked,
    /// The client wants this connection on another core; its hello's request id.
    HandOver(CoreId, u64),
    /// The connection is to be ended.
    End,
}

/// What handling one frame means for the next.
enum After {
    Continue,
    Stop(Served),
}

/// A request for one key.
enum KeyRequest<'a> {
    Get,
    Write {
        value: Option<&'a [u8]>,
        condition: Condition,
    },
}

impl Core {
    /// Serves bytes as they came from the network; what can't be served yet is kept with the connection.
    pub(super) fn serve(&mut self, id: u64, bytes: &[u8]) -> Served {
        let Some(connection) = self.connections.get(id) else {
            return Served::End;
        };
        if !connection.received.is_empty() {
            connection.received.extend_from_slice(bytes);
            return self.serve_received(id);
        }
        let (served, used_bytes) = self.serve_frames(id, bytes);
        if let Some(connection) = self.connections.get(id) {
            connection.received.extend_from_slice(&bytes[used_bytes..]);
        }
        served
    }

    /// Serves bytes that were kept.
    pub(super) fn serve_received(&mut self, id: u64) -> Served {
        let Some(connection) = self.connections.get(id) else {
            return Served::End;
        };
        let mut received = core::mem::take(&mut connection.received);
        let (served, used_bytes) = self.serve_frames(id, &received);
        if let Some(connection) = self.connections.get(id) {
            received.drain(..used_bytes);
            if received.is_empty() {
                received = Vec::new();
            }
            connection.received = received;
        }
        served
    }

    fn serve_frames(&mut self, id: u64, bytes: &[u8]) -> (Served, usize) {
        self.begin_turn();
        let mut used_bytes = 0;
        let served = loop {
            let Some(connection) = self.connections.get(id) else {
                break Served::End;
            };
            if !connection.has_room() {
                break Served::Blocked;
            }
            let body_bytes_max = if connection.is_open() {
                REQUEST_BODY_BYTES_MAX
            } else {
                HELLO_BODY_BYTES_MAX
            };
            match frame::decode(&bytes[used_bytes..], body_bytes_max) {
                Ok(None) => break Served::All,
                Ok(Some((header, body))) => {
                    used_bytes += header.frame_bytes();
                    if let After::Stop(served) = self.handle(id, &header, body) {
                        break served;
                    }
                }
                Err(error) => {
                    let message = format!("{error}; the connection is being closed");
                    self.connection_error(id, 0, ErrorCode::BadFrame, &message);
                    break Served::End;
                }
            }
        };
        self.finish_turn();
        (served, used_bytes)
    }

    fn handle(&mut self, id: u64, header: &FrameHeader, body: &[u8]) -> After {
        let is_open = self
            .connections
            .get(id)
            .is_some_and(|connection| connection.is_open());
        let request = match Request::decode(header.kind, body) {
            Ok(request) => request,
            Err(error) => {
                self.connection_error(id, header.request_id, error.error_code(), &error.to_string());
                return if is_open {
                    After::Continue
                } else {
                    After::Stop(Served::End)
                };
            }
        };
        if let Err(message) = self.observe(header.timestamp) {
            self.connection_error(id, header.request_id, ErrorCode::TimestampAhead, &message);
            return if is_open {
                After::Continue
            } else {
                After::Stop(Served::End)
            };
        }
        match request {
            Request::Hello(hello) if !is_open => self.hello(id, header.request_id, &hello),
            Request::Hello(_) => {
                let message = "a second hello; a connection says hello once";
                self.connection_error(id, header.request_id, ErrorCode::BadRequest, message);
                After::Continue
            }
            _ if !is_open => {
                let message = "the first request of a connection must be a hello";
                self.connection_error(id, header.request_id, ErrorCode::BadRequest, message);
                After::Stop(Served::End)
            }
            request => {
                if let Some(connection) = self.connections.get(id) {
                    connection.begin_request();
                }
                self.execute(id, header, body, &request);
                After::Continue
            }
        }
    }

    fn observe(&mut self, timestamp: u64) -> Result<(), String> {
        if timestamp == 0 {
            return Ok(());
        }
        self.host.observe_client(Timestamp(timestamp)).map_err(|error| {
            format!("{error}; check the clock of the machine that the client learned it from")
        })
    }

    fn execute(&mut self, id: u64, header: &FrameHeader, body: &[u8], request: &Request<'_>) {
        let ticket = Ticket {
            gateway: self.id(),
            connection: id,
            request_id: header.request_id,
            received_ns: self.turn_ns,
        };
        if self.is_draining {
            let is_write = matches!(request, Request::Put { .. } | Request::Delete { .. });
            let message = "the node is shutting down";
            self.answers()
                .error(ticket, is_write, ErrorCode::ShuttingDown, message, 0);
            return;
        }
        match *request {
            Request::Get { key } => self.route(ticket, header.kind, body, key, &KeyRequest::Get),
            Request::Put {
                key,
                value,
                condition,
            } => {
                let write = KeyRequest::Write {
                    value: Some(value),
                    condition,
                };
                self.route(ticket, header.kind, body, key, &write);
            }
            Request::Delete { key, condition } => {
                let write = KeyRequest::Write {
                    value: None,
                    condition,
                };
                self.route(ticket, header.kind, body, key, &write);
            }
            Request::Scan(ref scan) => self.ask_scan(ticket, scan),
            Request::Topology => self.topology(ticket),
            Request::Status => self.ask_status(ticket),
            Request::Ping => {
                self.counters.pings += 1;
                let timestamp = self.host.hlc().peek().0;
                self.answers().answer(ticket, false, |encoder, out| {
                    encoder.pong(out, ticket.request_id, timestamp);
                });
            }
            Request::Hello(_) => unreachable!("handled before"),
        }
    }

    fn route(&mut self, ticket: Ticket, kind: u16, body: &[u8], key: &[u8], request: &KeyRequest<'_>) {
        let hash = key_hash(key);
        let shard = shard_of(hash, self.identity.shards);
        let owner = self.owners[shard.0 as usize];
        if owner == self.id() {
            self.execute_on_shard(ticket, shard, hash, key, request);
            return;
        }
        let outbox = &mut self.outboxes[owner.index()];
        if !outbox.takes_requests() {
            self.refuse(ticket, Refusal::Busy, matches!(request, KeyRequest::Write { .. }));
            return;
        }
        self.counters.forwarded += 1;
        let forwarded = ForwardedRequest {
            connection: ticket.connection,
            request_id: ticket.request_id,
            received_ns: ticket.received_ns,
            kind,
            shard,
            hash,
            body: 0..0,
        };
        outbox.request(forwarded, body);
    }

    /// Executes a request that another core's client sent.
    pub(super) fn execute_forwarded(&mut self, from: CoreId, request: &ForwardedRequest, bytes: &[u8]) {
        let ticket = Ticket {
            gateway: from,
            connection: request.connection,
            request_id: request.request_id,
            received_ns: request.received_ns,
        };
        let (key, key_request) = match Request::decode_trusted(request.kind, &bytes[request.body.clone()]) {
            Request::Get { key } => (key, KeyRequest::Get),
            Request::Put {
                key,
                value,
                condition,
            } => (
                key,
                KeyRequest::Write {
                    value: Some(value),
                    condition,
                },
            ),
            Request::Delete { key, condition } => (
                key,
                KeyRequest::Write {
                    value: None,
                    condition,
                },
            ),
            _ => unreachable!("only requests for one key are forwarded"),
        };
        // Values may be large: the answers to one turn's gets are bounded too.
        if matches!(key_request, KeyRequest::Get) && self.outboxes[from.index()].is_full() {
            return self.refuse(ticket, Refusal::Busy, false);
        }
        self.execute_on_shard(ticket, request.shard, request.hash, key, &key_request);
    }

    fn execute_on_shard(
        &mut self,
        ticket: Ticket,
        shard: ShardId,
        routing_hash: u64,
        key: &[u8],
        request: &KeyRequest<'_>,
    ) {
        let hash = hash_in_memtable(key, routing_hash);
        match *request {
            KeyRequest::Get => self.get(ticket, shard, hash, key),
            KeyRequest::Write { value, condition } => {
                self.counters.writes += 1;
                match self.host.write(shard, hash, key, value, condition, ticket) {
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
        self.counters.gets += 1;
        let timestamp = self.host.hlc().peek();
        let found = match self.host.get(shard, hash, key) {
            Ok(found) => found,
            Err(refusal) => return self.refuse(ticket, refusal, false),
        };
        let found = found.and_then(|version| Some((version.timestamp.0, version.value?)));
        // Not through `Core::answers`: the value is still borrowed from the shard.
        let mut answers = super::answer::Answers {
            core: self.env.core,
            turn_ns: self.turn_ns,
            timestamp,
            connections: &mut self.connections,
            outboxes: &mut self.outboxes,
            encoder: &mut self.encoder,
            counters: &mut self.counters,
            pending_scans: &mut self.pending_scans,
        };
        answers.answer(ticket, false, |encoder, out| {
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

    fn hello(&mut self, id: u64, request_id: u64, hello: &Hello<'_>) -> After {
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
        let Core {
            connections, encoder, ..
        } = self;
        if let Some(connection) = connections.get(id) {
            connection.open();
            encoder.hello_reply(connection.out(), request_id, timestamp, &reply);
        }
    }

    /// Sends an error that answers no counted request.
    fn connection_error(&mut self, id: u64, request_id: u64, code: ErrorCode, message: &str) {
        self.counters.error(code);
        let timestamp = self.host.hlc().peek().0;
        let Core {
            connections, encoder, ..
        } = self;
        if let Some(connection) = connections.get(id) {
            encoder.error(connection.out(), request_id, timestamp, code, message, 0);
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
