//! Writing of whole frames.

use std::fmt;

use flatbuffers::FlatBufferBuilder;

use super::request::{Hello, MAGIC, Request, ScanRequest};
use super::response::{ErrorReply, HelloReply, Response, ScanReply, TopologyReply};
use super::{ErrorCode, Kind, layout};
use crate::frame;
use crate::generated::client_generated::ostrakon::wire as tables;

/// Appends whole frames to buffers of the caller. One per core or connection: it keeps one builder for the
/// rare kinds and uses it again and again.
///
/// It checks no limits but that of the frame: [`Request::check`] is the sender's part. A body that doesn't
/// fit a frame is a bug of the caller and panics.
#[derive(Default)]
pub struct Encoder {
    builder: FlatBufferBuilder<'static>,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Encoder").finish_non_exhaustive()
    }
}

impl Encoder {
    /// An encoder. Allocates with the first frame that needs the builder.
    pub fn new() -> Encoder {
        Encoder {
            builder: FlatBufferBuilder::new(),
        }
    }

    /// Appends a request.
    pub fn request(&mut self, out: &mut Vec<u8>, request_id: u64, timestamp: u64, request: &Request<'_>) {
        match *request {
            Request::Get { key } => layout::get(out, request_id, timestamp, key),
            Request::Put {
                key,
                value,
                condition,
            } => {
                layout::put(out, request_id, timestamp, (key, value), condition);
            }
            Request::Delete { key, condition } => layout::delete(out, request_id, timestamp, key, condition),
            Request::Scan(ref scan) => self.scan(out, request_id, timestamp, scan),
            Request::Hello(ref hello) => self.hello(out, request_id, timestamp, hello),
            Request::Ping | Request::Topology | Request::Status => {
                frame::append(out, request.kind() as u16, request_id, timestamp, &[]);
            }
        }
    }

    /// Appends a response of whatever kind. A server that knows the kind calls the method of that kind.
    pub fn response(&mut self, out: &mut Vec<u8>, request_id: u64, timestamp: u64, response: &Response<'_>) {
        match response {
            Response::Get { found } => self.get_reply(out, request_id, timestamp, *found),
            Response::Write { applied, version } => {
                self.write_reply(out, request_id, timestamp, *applied, *version);
            }
            Response::Scan(reply) => self.scan_reply(out, request_id, timestamp, reply),
            Response::Pong => self.pong(out, request_id, timestamp),
            Response::Hello(reply) => self.hello_reply(out, request_id, timestamp, reply),
            Response::Topology(reply) => self.topology_reply(out, request_id, timestamp, reply),
            Response::Status { json } => self.status_reply(out, request_id, timestamp, json),
            Response::Error(ErrorReply {
                code,
                message,
                retry_after_ms,
            }) => {
                self.error(out, request_id, timestamp, *code, message, *retry_after_ms);
            }
        }
    }

    /// Appends the answer to a get: version and value, or `None` if there is no such key.
    pub fn get_reply(
        &mut self,
        out: &mut Vec<u8>,
        request_id: u64,
        timestamp: u64,
        found: Option<(u64, &[u8])>,
    ) {
        match found {
            Some((version, value)) => layout::get_found(out, request_id, timestamp, version, value),
            None => layout::get_not_found(out, request_id, timestamp),
        }
    }

    /// Appends the answer to a put or a delete.
    pub fn write_reply(
        &mut self,
        out: &mut Vec<u8>,
        request_id: u64,
        timestamp: u64,
        applied: bool,
        version: u64,
    ) {
        layout::write_reply(out, request_id, timestamp, applied, version);
    }

    /// Appends one page of a scan. The caller keeps its entries within [`crate::limits`].
    pub fn scan_reply(&mut self, out: &mut Vec<u8>, request_id: u64, timestamp: u64, reply: &ScanReply<'_>) {
        layout::scan_reply(out, request_id, timestamp, reply);
    }

    /// Appends the answer to a ping.
    pub fn pong(&mut self, out: &mut Vec<u8>, request_id: u64, timestamp: u64) {
        frame::append(out, Kind::Pong as u16, request_id, timestamp, &[]);
    }

    /// Appends an error. `retry_after_ms` 0: no hint.
    pub fn error(
        &mut self,
        out: &mut Vec<u8>,
        request_id: u64,
        timestamp: u64,
        code: ErrorCode,
        message: &str,
        retry_after_ms: u32,
    ) {
        self.builder.reset();
        let message = Some(self.builder.create_string(message));
        let table = tables::Error::create(
            &mut self.builder,
            &tables::ErrorArgs {
                code: code.number(),
                message,
                retry_after_ms,
            },
        );
        self.builder.finish_minimal(table);
        self.append(out, Kind::Error, request_id, timestamp);
    }

    /// Appends the answer to a hello.
    pub fn hello_reply(
        &mut self,
        out: &mut Vec<u8>,
        request_id: u64,
        timestamp: u64,
        reply: &HelloReply<'_>,
    ) {
        self.builder.reset();
        let server = Some(self.builder.create_string(reply.server));
        let table = tables::HelloReply::create(
            &mut self.builder,
            &tables::HelloReplyArgs {
                version: reply.version,
                cluster_id_high: reply.cluster_id.high,
                cluster_id_low: reply.cluster_id.low,
                node_id: reply.node_id,
                core: reply.core,
                cores: reply.cores,
                shards: reply.shards,
                server,
                key_bytes_max: reply.key_bytes_max,
                value_bytes_max: reply.value_bytes_max,
                frame_bytes_max: reply.frame_bytes_max,
                requests_in_flight_max: reply.requests_in_flight_max,
            },
        );
        self.builder.finish_minimal(table);
        self.append(out, Kind::HelloReply, request_id, timestamp);
    }

    /// Appends the answer to a topology request.
    pub fn topology_reply(
        &mut self,
        out: &mut Vec<u8>,
        request_id: u64,
        timestamp: u64,
        reply: &TopologyReply,
    ) {
        self.builder.reset();
        let owners = Some(self.builder.create_vector(&reply.owners));
        let table = tables::TopologyReply::create(
            &mut self.builder,
            &tables::TopologyReplyArgs {
                shards: reply.shards(),
                owners,
                cores: reply.cores,
                node_id: reply.node_id,
                cluster_id_high: reply.cluster_id.high,
                cluster_id_low: reply.cluster_id.low,
            },
        );
        self.builder.finish_minimal(table);
        self.append(out, Kind::TopologyReply, request_id, timestamp);
    }

    /// Appends the answer to a status request: `json` is one JSON object.
    pub fn status_reply(&mut self, out: &mut Vec<u8>, request_id: u64, timestamp: u64, json: &str) {
        self.builder.reset();
        let json = Some(self.builder.create_string(json));
        let table = tables::StatusReply::create(&mut self.builder, &tables::StatusReplyArgs { json });
        self.builder.finish_minimal(table);
        self.append(out, Kind::StatusReply, request_id, timestamp);
    }

    fn hello(&mut self, out: &mut Vec<u8>, request_id: u64, timestamp: u64, hello: &Hello<'_>) {
        self.builder.reset();
        let client = Some(self.builder.create_string(hello.client));
        let table = tables::Hello::create(
            &mut self.builder,
            &tables::HelloArgs {
                magic: MAGIC,
                version_min: hello.version_min,
                version_max: hello.version_max,
                cluster_id_high: hello.cluster_id.high,
                cluster_id_low: hello.cluster_id.low,
                core: hello.core.map_or(-1, i32::from),
                client,
            },
        );
        self.builder.finish_minimal(table);
        self.append(out, Kind::Hello, request_id, timestamp);
    }

    fn scan(&mut self, out: &mut Vec<u8>, request_id: u64, timestamp: u64, scan: &ScanRequest<'_>) {
        self.builder.reset();
        let end = scan.end.map(|end| self.builder.create_vector(end));
        let start = Some(self.builder.create_vector(scan.start));
        let table = tables::Scan::create(
            &mut self.builder,
            &tables::ScanArgs {
                start,
                end,
                limit: scan.limit,
                snapshot: scan.snapshot,
                keys_only: scan.keys_only,
            },
        );
        self.builder.finish_minimal(table);
        self.append(out, Kind::Scan, request_id, timestamp);
    }

    /// Appends what the builder has finished.
    fn append(&mut self, out: &mut Vec<u8>, kind: Kind, request_id: u64, timestamp: u64) {
        frame::append(
            out,
            kind as u16,
            request_id,
            timestamp,
            self.builder.finished_data(),
        );
    }
}
