//! Writing of whole frames.

use std::fmt;

use flatbuffers::FlatBufferBuilder;

use super::list::{BatchOperations, Keys, PutEntries};
use super::request::{Hello, MAGIC, Request, ScanRequest};
use super::response::{
    BatchReply, ErrorReply, Found, HelloReply, MultiPutReply, MultiValue, Response, ScanReply, TopologyReply,
};
use super::write::{Action, Condition, Retry};
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
                ttl_ms,
                retry,
            } => {
                if ttl_ms == 0 && retry.is_none() && !matches!(condition, Condition::Value(_)) {
                    layout::put(out, request_id, timestamp, (key, value), condition);
                } else {
                    layout::full_put(out, request_id, timestamp, (key, value, ttl_ms), condition, retry);
                }
            }
            Request::Delete {
                key,
                condition,
                retry,
            } => {
                if retry.is_none() && !matches!(condition, Condition::Value(_)) {
                    layout::delete(out, request_id, timestamp, key, condition);
                } else {
                    self.full_delete(out, request_id, timestamp, key, condition, retry);
                }
            }
            Request::Add {
                key,
                delta,
                ttl_ms,
                retry,
            } => self.add(out, request_id, timestamp, (key, delta, ttl_ms), retry),
            Request::MultiGet { ref keys } => self.multi_get(out, request_id, timestamp, keys),
            Request::MultiPut { ref entries, retry } => {
                self.multi_put(out, request_id, timestamp, entries, retry);
            }
            Request::Batch {
                ref operations,
                retry,
            } => self.batch(out, request_id, timestamp, operations, retry),
            Request::Cancel {
                request_id: cancelled,
            } => self.cancel(out, request_id, timestamp, cancelled),
            Request::Scan(ref scan) => self.scan(out, request_id, timestamp, scan),
            Request::Hello(ref hello) => self.hello(out, request_id, timestamp, hello),
            Request::Ping | Request::Topology | Request::Status | Request::Stats => {
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
            Response::Add { version, number } => {
                self.add_reply(out, request_id, timestamp, *version, *number);
            }
            Response::MultiGet { values } => {
                self.multi_get_reply(out, request_id, timestamp, values.iter());
            }
            Response::MultiPut(reply) => self.multi_put_reply(out, request_id, timestamp, reply),
            Response::Batch(reply) => self.batch_reply(out, request_id, timestamp, reply),
            Response::Cancel { cancelled } => self.cancel_reply(out, request_id, timestamp, *cancelled),
            Response::Stats { json } => self.stats_reply(out, request_id, timestamp, json),
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

    /// Appends the answer to a get; `None` if there is no such key.
    pub fn get_reply(
        &mut self,
        out: &mut Vec<u8>,
        request_id: u64,
        timestamp: u64,
        found: Option<Found<'_>>,
    ) {
        match found {
            Some(found) => layout::get_found(out, request_id, timestamp, found),
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

    /// Appends the answer to an add.
    pub fn add_reply(
        &mut self,
        out: &mut Vec<u8>,
        request_id: u64,
        timestamp: u64,
        version: u64,
        number: i64,
    ) {
        layout::add_reply(out, request_id, timestamp, version, number);
    }

    /// Appends the answer to a multi-get. The caller keeps its values within [`crate::limits`].
    pub fn multi_get_reply<'a>(
        &mut self,
        out: &mut Vec<u8>,
        request_id: u64,
        timestamp: u64,
        values: impl Iterator<Item = MultiValue<'a>>,
    ) {
        let builder = &mut self.builder;
        builder.reset();
        let tables: Vec<_> = values
            .map(|value| {
                let found = match value {
                    MultiValue::Found(found) => Some(found),
                    _ => None,
                };
                let args = tables::MultiGetValueArgs {
                    found: found.is_some(),
                    omitted: value == MultiValue::Omitted,
                    version: found.map_or(0, |found| found.version),
                    value: found.map(|found| builder.create_vector(found.value)),
                    expires: found.map_or(0, |found| found.expires),
                };
                tables::MultiGetValue::create(builder, &args)
            })
            .collect();
        let values = Some(builder.create_vector(&tables));
        let root = tables::MultiGetReply::create(builder, &tables::MultiGetReplyArgs { values });
        builder.finish_minimal(root);
        self.append(out, Kind::MultiGetReply, request_id, timestamp);
    }

    /// Appends the answer to a multi-put.
    pub fn multi_put_reply(
        &mut self,
        out: &mut Vec<u8>,
        request_id: u64,
        timestamp: u64,
        reply: &MultiPutReply<'_>,
    ) {
        let builder = &mut self.builder;
        builder.reset();
        let numbers: Vec<u16> = reply
            .codes
            .iter()
            .map(|code| code.map_or(0, ErrorCode::number))
            .collect();
        let args = tables::MultiPutReplyArgs {
            versions: Some(builder.create_vector(&reply.versions)),
            codes: (!numbers.is_empty()).then(|| builder.create_vector(&numbers)),
            message: (!reply.message.is_empty()).then(|| builder.create_string(reply.message)),
            retry_after_ms: reply.retry_after_ms,
        };
        let root = tables::MultiPutReply::create(builder, &args);
        builder.finish_minimal(root);
        self.append(out, Kind::MultiPutReply, request_id, timestamp);
    }

    /// Appends the answer to a batch.
    pub fn batch_reply(&mut self, out: &mut Vec<u8>, request_id: u64, timestamp: u64, reply: &BatchReply) {
        let builder = &mut self.builder;
        builder.reset();
        let numbers = (!reply.numbers.is_empty()).then(|| builder.create_vector(&reply.numbers));
        let args = tables::BatchReplyArgs {
            applied: reply.applied,
            version: reply.version,
            failed: reply.failed,
            numbers,
        };
        let root = tables::BatchReply::create(builder, &args);
        builder.finish_minimal(root);
        self.append(out, Kind::BatchReply, request_id, timestamp);
    }

    /// Appends the answer to a cancel.
    pub fn cancel_reply(&mut self, out: &mut Vec<u8>, request_id: u64, timestamp: u64, cancelled: bool) {
        self.builder.reset();
        let root = tables::CancelReply::create(&mut self.builder, &tables::CancelReplyArgs { cancelled });
        self.builder.finish_minimal(root);
        self.append(out, Kind::CancelReply, request_id, timestamp);
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
                multi_max: reply.multi_max,
                session_window: reply.session_window,
                retry_horizon_ms: reply.retry_horizon_ms,
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

    /// Appends the answer to a stats request: `json` is one JSON object.
    pub fn stats_reply(&mut self, out: &mut Vec<u8>, request_id: u64, timestamp: u64, json: &str) {
        self.builder.reset();
        let json = Some(self.builder.create_string(json));
        let table = tables::StatsReply::create(&mut self.builder, &tables::StatsReplyArgs { json });
        self.builder.finish_minimal(table);
        self.append(out, Kind::StatsReply, request_id, timestamp);
    }

    fn full_delete(
        &mut self,
        out: &mut Vec<u8>,
        request_id: u64,
        timestamp: u64,
        key: &[u8],
        condition: Condition<'_>,
        retry: Option<Retry>,
    ) {
        let builder = &mut self.builder;
        builder.reset();
        let retry = retry.map(Retry::to_wire);
        let (condition, expected_version, expected_value) = condition.to_wire();
        let expected_value = expected_value.map(|value| builder.create_vector(value));
        let args = tables::DeleteArgs {
            key: Some(builder.create_vector(key)),
            condition: tables::Condition(condition),
            expected_version,
            expected_value,
            retry: retry.as_ref(),
        };
        let root = tables::Delete::create(builder, &args);
        builder.finish_minimal(root);
        self.append(out, Kind::Delete, request_id, timestamp);
    }

    fn add(
        &mut self,
        out: &mut Vec<u8>,
        request_id: u64,
        timestamp: u64,
        (key, delta, ttl_ms): (&[u8], i64, u64),
        retry: Option<Retry>,
    ) {
        let builder = &mut self.builder;
        builder.reset();
        let retry = retry.map(Retry::to_wire);
        let args = tables::AddArgs {
            key: Some(builder.create_vector(key)),
            delta,
            ttl_ms,
            retry: retry.as_ref(),
        };
        let root = tables::Add::create(builder, &args);
        builder.finish_minimal(root);
        self.append(out, Kind::Add, request_id, timestamp);
    }

    fn multi_get(&mut self, out: &mut Vec<u8>, request_id: u64, timestamp: u64, keys: &Keys<'_>) {
        let builder = &mut self.builder;
        builder.reset();
        let tables: Vec<_> = keys
            .iter()
            .map(|key| {
                let key = Some(builder.create_vector(key));
                tables::Key::create(builder, &tables::KeyArgs { key })
            })
            .collect();
        let keys = Some(builder.create_vector(&tables));
        let root = tables::MultiGet::create(builder, &tables::MultiGetArgs { keys });
        builder.finish_minimal(root);
        self.append(out, Kind::MultiGet, request_id, timestamp);
    }

    fn multi_put(
        &mut self,
        out: &mut Vec<u8>,
        request_id: u64,
        timestamp: u64,
        entries: &PutEntries<'_>,
        retry: Option<Retry>,
    ) {
        let builder = &mut self.builder;
        builder.reset();
        let tables: Vec<_> = entries
            .iter()
            .map(|entry| {
                let args = tables::PutEntryArgs {
                    key: Some(builder.create_vector(entry.key)),
                    value: Some(builder.create_vector(entry.value)),
                    ttl_ms: entry.ttl_ms,
                };
                tables::PutEntry::create(builder, &args)
            })
            .collect();
        let retry = retry.map(Retry::to_wire);
        let args = tables::MultiPutArgs {
            entries: Some(builder.create_vector(&tables)),
            retry: retry.as_ref(),
        };
        let root = tables::MultiPut::create(builder, &args);
        builder.finish_minimal(root);
        self.append(out, Kind::MultiPut, request_id, timestamp);
    }

    fn batch(
        &mut self,
        out: &mut Vec<u8>,
        request_id: u64,
        timestamp: u64,
        operations: &BatchOperations<'_>,
        retry: Option<Retry>,
    ) {
        let builder = &mut self.builder;
        builder.reset();
        let tables: Vec<_> = operations
            .iter()
            .map(|operation| {
                let (condition, expected_version, expected_value) = operation.condition.to_wire();
                let (kind, value, delta, ttl_ms) = match operation.action {
                    Action::Put { value, ttl_ms } => (tables::Operation::Put, Some(value), 0, ttl_ms),
                    Action::Delete => (tables::Operation::Delete, None, 0, 0),
                    Action::Add { delta, ttl_ms } => (tables::Operation::Add, None, delta, ttl_ms),
                    Action::Check => (tables::Operation::Check, None, 0, 0),
                };
                let args = tables::BatchOperationArgs {
                    operation: kind,
                    key: Some(builder.create_vector(operation.key)),
                    value: value.map(|value| builder.create_vector(value)),
                    condition: tables::Condition(condition),
                    expected_version,
                    expected_value: expected_value.map(|value| builder.create_vector(value)),
                    delta,
                    ttl_ms,
                };
                tables::BatchOperation::create(builder, &args)
            })
            .collect();
        let retry = retry.map(Retry::to_wire);
        let args = tables::BatchArgs {
            operations: Some(builder.create_vector(&tables)),
            retry: retry.as_ref(),
        };
        let root = tables::Batch::create(builder, &args);
        builder.finish_minimal(root);
        self.append(out, Kind::Batch, request_id, timestamp);
    }

    fn cancel(&mut self, out: &mut Vec<u8>, request_id: u64, timestamp: u64, cancelled: u64) {
        self.builder.reset();
        let args = tables::CancelArgs {
            request_id: cancelled,
        };
        let root = tables::Cancel::create(&mut self.builder, &args);
        self.builder.finish_minimal(root);
        self.append(out, Kind::Cancel, request_id, timestamp);
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
        let prefix = (!scan.prefix.is_empty()).then(|| self.builder.create_vector(scan.prefix));
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
                prefix,
                reverse: scan.reverse,
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
