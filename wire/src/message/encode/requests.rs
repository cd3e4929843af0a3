//! Requests as frames. A put or a delete without a retry, an expiry or an expected value is laid out by hand, and so is
//! any put; all else goes through the builder.

use super::Encoder;
use crate::frame;
use crate::generated::client_generated::ostrakon::wire as tables;
use crate::message::list::{BatchOperations, Keys, PutEntries};
use crate::message::request::{CheckpointAction, Hello, MAGIC, Request, ScanRequest};
use crate::message::write::{Action, Condition, Retry};
use crate::message::{Kind, layout};

impl Encoder {
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
            Request::DeleteRange { start, end, retry } => {
                self.delete_range(out, request_id, timestamp, (start, end), retry);
            }
            Request::Cancel {
                request_id: cancelled,
            } => self.cancel(out, request_id, timestamp, cancelled),
            Request::Checkpoint { action, id } => self.checkpoint(out, request_id, timestamp, action, id),
            Request::Scan(ref scan) => self.scan(out, request_id, timestamp, scan),
            Request::Hello(ref hello) => self.hello(out, request_id, timestamp, hello),
            Request::Ping | Request::Topology | Request::Status | Request::Stats => {
                frame::append(out, request.kind() as u16, request_id, timestamp, &[]);
            }
        }
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

    fn delete_range(
        &mut self,
        out: &mut Vec<u8>,
        request_id: u64,
        timestamp: u64,
        (start, end): (&[u8], Option<&[u8]>),
        retry: Option<Retry>,
    ) {
        let builder = &mut self.builder;
        builder.reset();
        let retry = retry.map(Retry::to_wire);
        let args = tables::DeleteRangeArgs {
            end: end.map(|end| builder.create_vector(end)),
            start: (!start.is_empty()).then(|| builder.create_vector(start)),
            retry: retry.as_ref(),
        };
        let root = tables::DeleteRange::create(builder, &args);
        builder.finish_minimal(root);
        self.append(out, Kind::DeleteRange, request_id, timestamp);
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

    fn checkpoint(
        &mut self,
        out: &mut Vec<u8>,
        request_id: u64,
        timestamp: u64,
        action: CheckpointAction,
        id: u64,
    ) {
        self.builder.reset();
        let action = match action {
            CheckpointAction::Make => tables::CheckpointAction::Make,
            CheckpointAction::Release => tables::CheckpointAction::Release,
        };
        let root = tables::Checkpoint::create(&mut self.builder, &tables::CheckpointArgs { action, id });
        self.builder.finish_minimal(root);
        self.append(out, Kind::Checkpoint, request_id, timestamp);
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
}
