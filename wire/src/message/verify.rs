//! Verification of bodies from outside, and the checks of limits that requests and responses share.
//!
//! A verifier is made anew for each message. Its bounds keep hostile bytes cheap: tables that share vectors
//! (and so would grow when they are walked) are refused once they claim more than twice the frame that
//! carried them, and [`TABLE_SHARED_BYTES_MAX`] for each table of their kind.

use flatbuffers::{Follow, Verifiable, VerifierOptions};

use super::{DecodeError, Kind};
use crate::frame::HEADER_BYTES;
use crate::limits::{
    BODY_BYTES_MAX, KEY_BYTES_MAX, KEY_BYTES_MIN, MULTI_ELEMENT_OVERHEAD_BYTES_MAX, MULTI_MAX,
    SCAN_LIMIT_MAX, TTL_MS_MAX, VALUE_BYTES_MAX,
};

/// No table of the schema nests deeper than 2; the rest is room for fields that newer versions add.
const DEPTH_MAX: usize = 8;

/// What the verifier counts anew with each table although tables share it, generously: the vtable, and its entries as
/// they are read. Without this a list of many tables of almost nothing, which is honest, would look like a hostile
/// one.
const TABLE_SHARED_BYTES_MAX: usize = 64;

/// The table of type `T` in `body`, all of it verified.
pub(super) fn verified_table<'a, T>(kind: Kind, body: &'a [u8]) -> Result<T::Inner, DecodeError>
where
    T: Follow<'a> + Verifiable + 'a,
{
    if body.len() > BODY_BYTES_MAX {
        return Err(DecodeError::BodyTooLarge {
            kind,
            bytes: body.len(),
        });
    }
    let options = VerifierOptions {
        max_depth: DEPTH_MAX,
        max_tables: tables_max(kind),
        max_apparent_size: 2 * (HEADER_BYTES + body.len()) + TABLE_SHARED_BYTES_MAX * tables_max(kind),
        ignore_missing_null_terminator: false,
    };
    flatbuffers::root_with_opts::<T>(&options, body).map_err(|source| DecodeError::Malformed { kind, source })
}

/// A list of one table more than allowed is still verified, so that its refusal can name the limit.
fn tables_max(kind: Kind) -> usize {
    match kind {
        Kind::ScanReply => 1 + SCAN_LIMIT_MAX as usize,
        Kind::MultiGet | Kind::MultiPut | Kind::Batch | Kind::MultiGetReply => 2 + MULTI_MAX,
        _ => 1,
    }
}

/// For kinds without fields: no body at all, or a table whose fields (if any) are of a newer version.
pub(super) fn verify_fieldless<'a, T>(kind: Kind, body: &'a [u8]) -> Result<(), DecodeError>
where
    T: Follow<'a> + Verifiable + 'a,
{
    if body.is_empty() {
        return Ok(());
    }
    verified_table::<T>(kind, body).map(drop)
}

/// Refuses keys that can't exist.
pub(super) fn check_key(key: &[u8]) -> Result<(), DecodeError> {
    if key.len() < KEY_BYTES_MIN {
        return Err(DecodeError::KeyEmpty);
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(DecodeError::KeyTooLarge { bytes: key.len() });
    }
    Ok(())
}

/// Refuses values that can't exist.
pub(super) fn check_value(value: &[u8]) -> Result<(), DecodeError> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(DecodeError::ValueTooLarge { bytes: value.len() });
    }
    Ok(())
}

/// Refuses times to live beyond any use.
pub(super) fn check_ttl(ttl_ms: u64) -> Result<(), DecodeError> {
    if ttl_ms > TTL_MS_MAX {
        return Err(DecodeError::TtlTooLong { ttl_ms });
    }
    Ok(())
}

/// Refuses lists of nothing, and of more than a message may hold.
pub(super) fn check_count(kind: Kind, count: usize) -> Result<(), DecodeError> {
    match count {
        0 => Err(DecodeError::Empty { kind }),
        count if count > MULTI_MAX => Err(DecodeError::TooMany { kind, count }),
        _ => Ok(()),
    }
}

/// Refuses a list that fits no frame; `element_bytes` are the keys and values of each element, in bytes.
pub(super) fn check_sum(kind: Kind, element_bytes: impl Iterator<Item = usize>) -> Result<(), DecodeError> {
    let with_overhead = element_bytes.map(|bytes| bytes + MULTI_ELEMENT_OVERHEAD_BYTES_MAX);
    let bytes = MULTI_ELEMENT_OVERHEAD_BYTES_MAX + with_overhead.sum::<usize>();
    if bytes > BODY_BYTES_MAX {
        return Err(DecodeError::BodyTooLarge { kind, bytes });
    }
    Ok(())
}

/// Refuses a list that names a key twice.
pub(super) fn check_distinct<'a>(
    kind: Kind,
    keys: impl Iterator<Item = &'a [u8]>,
) -> Result<(), DecodeError> {
    let mut keys: Vec<&[u8]> = keys.collect();
    keys.sort_unstable();
    if keys.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(DecodeError::KeyTwice { kind });
    }
    Ok(())
}
