//! Responses as frames. The hot ones are laid out by hand, the others go through the builder.

use super::Encoder;
use crate::frame;
use crate::generated::client_generated::ostrakon::wire as tables;
use crate::message::response::{
    BatchReply, CheckpointReply, DeleteRangeReply, ErrorReply, Found, HelloReply, MultiPutReply, MultiValue,
    Response, ScanReply, TopologyReply,
};
use crate::message::{ErrorCode, Kind, layout};

impl Encoder {
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
            Response::DeleteRange(reply) => self.delete_range_reply(out, request_id, timestamp, reply),
            Response::Cancel { cancelled } => self.cancel_reply(out, request_id, timestamp, *cancelled),
            Response::Checkpoint(reply) => self.checkpoint_reply(out, request_id, timestamp, reply),
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

    /// Appends the answer to a delete-range.
    pub fn delete_range_reply(
        &mut self,
        out: &mut Vec<u8>,
        request_id: u64,
        timestamp: u64,
        reply: &DeleteRangeReply<'_>,
    ) {
        let builder = &mut self.builder;
        builder.reset();
        let (code, message, retry_after_ms) = match &reply.error {
            None => (0, "", 0),
            Some(error) => (error.code.number(), error.message, error.retry_after_ms),
        };
        let args = tables::DeleteRangeReplyArgs {
            version: reply.version,
            applied: reply.applied,
            refused: reply.refused,
            unknown: reply.unknown,
            code,
            message: (!message.is_empty()).then(|| builder.create_string(message)),
            retry_after_ms,
        };
        let root = tables::DeleteRangeReply::create(builder, &args);
        builder.finish_minimal(root);
        self.append(out, Kind::DeleteRangeReply, request_id, timestamp);
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

    /// Appends the answer to a checkpoint request.
    pub fn checkpoint_reply(
        &mut self,
        out: &mut Vec<u8>,
        request_id: u64,
        timestamp: u64,
        reply: &CheckpointReply<'_>,
    ) {
        let builder = &mut self.builder;
        builder.reset();
        let tables: Vec<u32> = reply.shards.iter().map(|shard| shard.tables).collect();
        let bytes: Vec<u64> = reply.shards.iter().map(|shard| shard.bytes).collect();
        let args = tables::CheckpointReplyArgs {
            id: reply.id,
            snapshot: reply.snapshot,
            directory: (!reply.directory.is_empty()).then(|| builder.create_string(reply.directory)),
            node_id: reply.node_id,
            cluster_id_high: reply.cluster_id.high,
            cluster_id_low: reply.cluster_id.low,
            tables: (!tables.is_empty()).then(|| builder.create_vector(&tables)),
            bytes: (!bytes.is_empty()).then(|| builder.create_vector(&bytes)),
        };
        let root = tables::CheckpointReply::create(builder, &args);
        builder.finish_minimal(root);
        self.append(out, Kind::CheckpointReply, request_id, timestamp);
    }
}
