//! Reading of responses from outside. Besides the limits, what contradicts itself is refused, so that a client need not
//! decide which half to believe.

use super::{
    BatchReply, CheckpointReply, CheckpointShard, DeleteRangeReply, ErrorReply, Found, HelloReply,
    MultiPutReply, Response, ScanReply, TopologyReply,
};
use crate::generated::client_generated::ostrakon::wire as tables;
use crate::limits::{SCAN_BOUND_BYTES_MAX, SHARDS_MAX};
use crate::message::list::{MultiValues, ScanEntries};
use crate::message::verify::{check_count, check_key, check_value, verified_table, verify_fieldless};
use crate::message::{ClusterId, DecodeError, ErrorCode, Kind};

impl<'a> Response<'a> {
    /// Reads a body that came from outside: verifies it and all limits.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(kind: u16, body: &'a [u8]) -> Result<Response<'a>, DecodeError> {
        let kind = Kind::try_from(kind)?;
        match kind {
            Kind::GetReply => decode_get(body),
            Kind::WriteReply => {
                let table = verified_table::<tables::WriteReply<'a>>(kind, body)?;
                Ok(Response::Write {
                    applied: table.applied(),
                    version: table.version(),
                })
            }
            Kind::ScanReply => decode_scan(body),
            Kind::HelloReply => decode_hello(body),
            Kind::Pong => {
                verify_fieldless::<tables::Pong<'a>>(kind, body)?;
                Ok(Response::Pong)
            }
            Kind::TopologyReply => decode_topology(body),
            Kind::StatusReply => {
                let table = verified_table::<tables::StatusReply<'a>>(kind, body)?;
                Ok(Response::Status { json: table.json() })
            }
            Kind::AddReply => {
                let table = verified_table::<tables::AddReply<'a>>(kind, body)?;
                Ok(Response::Add {
                    version: table.version(),
                    number: table.number(),
                })
            }
            Kind::MultiGetReply => decode_multi_get(body),
            Kind::MultiPutReply => decode_multi_put(body),
            Kind::BatchReply => decode_batch(body),
            Kind::DeleteRangeReply => decode_delete_range(body),
            Kind::CancelReply => {
                let table = verified_table::<tables::CancelReply<'a>>(kind, body)?;
                Ok(Response::Cancel {
                    cancelled: table.cancelled(),
                })
            }
            Kind::StatsReply => {
                let table = verified_table::<tables::StatsReply<'a>>(kind, body)?;
                Ok(Response::Stats { json: table.json() })
            }
            Kind::CheckpointReply => decode_checkpoint(body),
            Kind::Error => {
                let table = verified_table::<tables::Error<'a>>(kind, body)?;
                Ok(Response::Error(ErrorReply {
                    code: ErrorCode::from(table.code()),
                    message: table.message().unwrap_or_default(),
                    retry_after_ms: table.retry_after_ms(),
                }))
            }
            kind => Err(DecodeError::WrongDirection { kind }),
        }
    }
}

fn contradiction<T>(kind: Kind, detail: &'static str) -> Result<T, DecodeError> {
    Err(DecodeError::Contradiction { kind, detail })
}

fn decode_get(body: &[u8]) -> Result<Response<'_>, DecodeError> {
    let kind = Kind::GetReply;
    let table = verified_table::<tables::GetReply<'_>>(kind, body)?;
    match (table.found(), table.value()) {
        (true, Some(value)) => {
            check_value(value.bytes())?;
            Ok(Response::Get {
                found: Some(Found {
                    version: table.version(),
                    expires: table.expires(),
                    value: value.bytes(),
                }),
            })
        }
        (false, None) => Ok(Response::Get { found: None }),
        (true, None) => contradiction(kind, "found, but without a value"),
        (false, Some(_)) => contradiction(kind, "not found, but with a value"),
    }
}

fn decode_multi_get(body: &[u8]) -> Result<Response<'_>, DecodeError> {
    let kind = Kind::MultiGetReply;
    let table = verified_table::<tables::MultiGetReply<'_>>(kind, body)?;
    check_count(kind, table.values().len())?;
    for value in table.values() {
        match (value.found(), value.omitted(), value.value()) {
            (true, false, Some(value)) => check_value(value.bytes())?,
            (false, _, None) => {}
            _ => {
                return contradiction(
                    kind,
                    "a value is there although it was not found, or missing although it was",
                );
            }
        }
    }
    Ok(Response::MultiGet {
        values: MultiValues::received(table.values()),
    })
}

fn decode_multi_put(body: &[u8]) -> Result<Response<'_>, DecodeError> {
    let kind = Kind::MultiPutReply;
    let table = verified_table::<tables::MultiPutReply<'_>>(kind, body)?;
    check_count(kind, table.versions().len())?;
    if table
        .codes()
        .is_some_and(|codes| !codes.is_empty() && codes.len() != table.versions().len())
    {
        return contradiction(kind, "the number of codes is not the number of versions");
    }
    let versions: Vec<u64> = table.versions().iter().collect();
    let code = |number| (number != 0).then(|| ErrorCode::from(number));
    let codes: Vec<Option<ErrorCode>> = table
        .codes()
        .map_or_else(Vec::new, |codes| codes.iter().map(code).collect());
    let has_code = |entry: usize| codes.get(entry).is_some_and(Option::is_some);
    if versions
        .iter()
        .enumerate()
        .any(|(entry, &version)| (version == 0) != has_code(entry))
    {
        return contradiction(kind, "an entry has both a version and a code, or neither");
    }
    Ok(Response::MultiPut(MultiPutReply {
        versions,
        codes,
        message: table.message().unwrap_or_default(),
        retry_after_ms: table.retry_after_ms(),
    }))
}

fn decode_batch(body: &[u8]) -> Result<Response<'_>, DecodeError> {
    let kind = Kind::BatchReply;
    let table = verified_table::<tables::BatchReply<'_>>(kind, body)?;
    let numbers = table.numbers().unwrap_or_default();
    if !numbers.is_empty() {
        check_count(kind, numbers.len())?;
    }
    Ok(Response::Batch(BatchReply {
        applied: table.applied(),
        version: table.version(),
        failed: table.failed(),
        numbers: numbers.iter().collect(),
    }))
}

fn decode_delete_range(body: &[u8]) -> Result<Response<'_>, DecodeError> {
    let kind = Kind::DeleteRangeReply;
    let table = verified_table::<tables::DeleteRangeReply<'_>>(kind, body)?;
    let (applied, refused, unknown) = (table.applied(), table.refused(), table.unknown());
    if (table.version() == 0) != (applied == 0) {
        return contradiction(
            kind,
            "it has a version and was applied in no shard, or the other way round",
        );
    }
    let is_everywhere = applied > 0 && refused == 0 && unknown == 0;
    if is_everywhere != (table.code() == 0) {
        return contradiction(kind, "it has a code and was applied in all shards, or neither");
    }
    Ok(Response::DeleteRange(DeleteRangeReply {
        version: table.version(),
        applied,
        refused,
        unknown,
        error: (table.code() != 0).then(|| ErrorReply {
            code: ErrorCode::from(table.code()),
            message: table.message().unwrap_or_default(),
            retry_after_ms: table.retry_after_ms(),
        }),
    }))
}

fn decode_scan(body: &[u8]) -> Result<Response<'_>, DecodeError> {
    let kind = Kind::ScanReply;
    let table = verified_table::<tables::ScanReply<'_>>(kind, body)?;
    let entries = table
        .entries()
        .map_or_else(ScanEntries::default, ScanEntries::received);
    let mut before: Option<&[u8]> = None;
    let mut is_reverse = None;
    for entry in entries {
        check_key(entry.key)?;
        check_value(entry.value)?;
        if let Some(before) = before {
            // The first two keys tell the direction; the request, which this does not know, has to agree.
            let falls = entry.key < before;
            if entry.key == before || *is_reverse.get_or_insert(falls) != falls {
                return contradiction(kind, "keys are not in order");
            }
        }
        before = Some(entry.key);
    }
    let resume_key = match (table.more(), table.resume_key()) {
        (true, Some(resume_key)) => {
            let resume_key = resume_key.bytes();
            if resume_key.len() > SCAN_BOUND_BYTES_MAX {
                return Err(DecodeError::ScanBoundTooLarge {
                    bytes: resume_key.len(),
                });
            }
            if resume_key.is_empty() {
                // No page begins before all keys, and in reverse none ends there.
                return contradiction(kind, "there is more, but the key to go on from is empty");
            }
            let goes_back = match (is_reverse, before) {
                (Some(true), Some(last)) => resume_key > last,
                (Some(false), Some(last)) => resume_key <= last,
                _ => false,
            };
            if goes_back {
                return contradiction(kind, "the next page would start before the end of this one");
            }
            Some(resume_key)
        }
        (false, _) => None,
        (true, None) => return contradiction(kind, "there is more, but no key to go on from"),
    };
    Ok(Response::Scan(ScanReply {
        snapshot: table.snapshot(),
        entries,
        resume_key,
    }))
}

fn decode_hello(body: &[u8]) -> Result<Response<'_>, DecodeError> {
    let table = verified_table::<tables::HelloReply<'_>>(Kind::HelloReply, body)?;
    if !table.shards().is_power_of_two() || table.shards() > SHARDS_MAX {
        return contradiction(
            Kind::HelloReply,
            "the number of shards is no power of two up to 65536",
        );
    }
    Ok(Response::Hello(HelloReply {
        version: table.version(),
        cluster_id: ClusterId {
            high: table.cluster_id_high(),
            low: table.cluster_id_low(),
        },
        node_id: table.node_id(),
        core: table.core(),
        cores: table.cores(),
        shards: table.shards(),
        server: table.server().unwrap_or_default(),
        key_bytes_max: table.key_bytes_max(),
        value_bytes_max: table.value_bytes_max(),
        frame_bytes_max: table.frame_bytes_max(),
        requests_in_flight_max: table.requests_in_flight_max(),
        multi_max: table.multi_max(),
        session_window: table.session_window(),
        retry_horizon_ms: table.retry_horizon_ms(),
    }))
}

fn decode_topology(body: &[u8]) -> Result<Response<'_>, DecodeError> {
    let kind = Kind::TopologyReply;
    let table = verified_table::<tables::TopologyReply<'_>>(kind, body)?;
    let shards = table.shards();
    if !shards.is_power_of_two() || shards > SHARDS_MAX {
        return contradiction(kind, "the number of shards is no power of two up to 65536");
    }
    let owners = table.owners().unwrap_or_default();
    if owners.len() != shards as usize {
        return contradiction(kind, "the number of owners is not the number of shards");
    }
    let owners: Vec<u16> = owners.iter().collect();
    if owners.iter().any(|&owner| owner >= table.cores()) {
        return contradiction(kind, "a shard is owned by a core that the node does not have");
    }
    Ok(Response::Topology(TopologyReply {
        owners,
        cores: table.cores(),
        node_id: table.node_id(),
        cluster_id: ClusterId {
            high: table.cluster_id_high(),
            low: table.cluster_id_low(),
        },
    }))
}

fn decode_checkpoint(body: &[u8]) -> Result<Response<'_>, DecodeError> {
    let kind = Kind::CheckpointReply;
    let table = verified_table::<tables::CheckpointReply<'_>>(kind, body)?;
    let tables = table.tables().unwrap_or_default();
    let bytes = table.bytes().unwrap_or_default();
    if tables.len() != bytes.len() {
        return contradiction(
            kind,
            "it counts the tables of some shards, and the bytes of others",
        );
    }
    if tables.len() > SHARDS_MAX as usize {
        return contradiction(kind, "it has more than 65536 shards");
    }
    let shards = tables.iter().zip(bytes.iter());
    let shards = shards.map(|(tables, bytes)| CheckpointShard { tables, bytes });
    Ok(Response::Checkpoint(CheckpointReply {
        id: table.id(),
        snapshot: table.snapshot(),
        directory: table.directory().unwrap_or_default(),
        node_id: table.node_id(),
        cluster_id: ClusterId {
            high: table.cluster_id_high(),
            low: table.cluster_id_low(),
        },
        shards: shards.collect(),
    }))
}
