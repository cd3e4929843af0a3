//! What a Raft entry of a shard says. The bytes are part of the log's format (`docs/formats.md`):
//!
//! ```text
//! entry      kind u8 | flags u8 | 2 zero bytes | count u32 | timestamp u64 | [retry 40] | rest
//!   1 put      count: bytes of the key    rest: [expiry u64] | key | value
//!   2 delete   count: bytes of the key    rest: key
//!   3 ceiling  count: 0                   rest: horizon u64 | watermark u64
//!   4 batch    count: operations          rest: operations
//!   5 failure  count: 0                   rest: failure 16
//!   6 range    count: bytes of the start  rest: start | end
//! operation  kind u8 | flags u8 | 2 zero bytes | key bytes u32 | value bytes u32 | [expiry u64] | key | value
//! flags      1 retry   2 expiry   4 the value is the sum of an add   8 the range has no end
//! ```
//!
//! An entry is a decision: applying it looks at nothing, and gives the same state on every replica. A failure is a
//! decision against a write that may be sent again; it is an entry so that it will be remembered.

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::sessions::{FAILURE_BYTES, Failure, RETRY_BYTES, Retry};

/// Bytes before the rest of an entry without a retry.
pub const COMMAND_HEADER_BYTES: usize = 16;
/// Most bytes of an entry that are neither key nor value, nor operations of a batch.
pub const COMMAND_HEAD_BYTES_MAX: usize = COMMAND_HEADER_BYTES + RETRY_BYTES + FAILURE_BYTES;
/// Bytes of a ceiling.
pub const CEILING_BYTES: usize = COMMAND_HEADER_BYTES + 16;
/// Bytes of an operation of a batch before its expiry, key and value.
pub const OPERATION_HEADER_BYTES: usize = 12;
/// Bytes of an expiry.
pub const EXPIRY_BYTES: usize = 8;

const KIND_PUT: u8 = 1;
const KIND_DELETE: u8 = 2;
const KIND_CEILING: u8 = 3;
const KIND_BATCH: u8 = 4;
const KIND_FAILURE: u8 = 5;
const KIND_DELETE_RANGE: u8 = 6;

const FLAG_RETRY: u8 = 1;
const FLAG_EXPIRY: u8 = 2;
const FLAG_SUM: u8 = 4;
const FLAG_NO_END: u8 = 8;

/// What happens to one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// It gets this value.
    Put {
        /// The value.
        value: &'a [u8],
        /// From this moment on the key is absent.
        expiry: Option<Timestamp>,
        /// The value is the sum of an add, in decimal digits: the answer tells it.
        is_sum: bool,
    },
    /// It gets a tombstone.
    Delete,
}

/// A decided change of a shard's state; applying it needs no further decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command<'a> {
    /// The version of what is written; of a ceiling, the new ceiling.
    pub timestamp: Timestamp,
    /// Set if the write may be sent again.
    pub retry: Option<Retry>,
    /// What happens.
    pub body: Body<'a>,
}

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// One key changes.
    Write {
        /// The key.
        key: &'a [u8],
        /// What happens to it.
        change: Change<'a>,
    },
    /// Several keys change together, each once.
    Batch(Operations<'a>),
    /// All keys from `start` up to `end`, which is excluded, get a tombstone.
    DeleteRange {
        /// The first key.
        start: &'a [u8],
        /// Above `start`; `None` is behind all keys.
        end: Option<&'a [u8]>,
    },
    /// A write with a retry was decided against.
    Failure(Failure),
    /// The leader may assign timestamps and serve reads up to the command's timestamp. Also the first entry of a term.
    Ceiling {
        /// Writes with a retry that were first sent below this are not executed any more.
        horizon: Timestamp,
        /// Nobody reads below this any more: of each key, versions below the newest one that is not above it may go.
        watermark: Timestamp,
    },
}

/// The operations of a batch as they lie in its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operations<'a> {
    count: usize,
    bytes: &'a [u8],
}

/// The part of an entry before key and value, of up to [`COMMAND_HEAD_BYTES_MAX`] bytes.
pub struct Head {
    bytes: [u8; COMMAND_HEAD_BYTES_MAX],
    used_bytes: usize,
}

impl Head {
    fn new(kind: u8, count: usize, timestamp: Timestamp, retry: Option<&Retry>) -> Head {
        let mut head = Head {
            bytes: [0; COMMAND_HEAD_BYTES_MAX],
            used_bytes: COMMAND_HEADER_BYTES,
        };
        head.bytes[0] = kind;
        head.bytes[4..8].copy_from_slice(&(count as u32).to_le_bytes());
        head.bytes[8..16].copy_from_slice(&timestamp.0.to_le_bytes());
        if let Some(retry) = retry {
            head.bytes[1] |= FLAG_RETRY;
            head.append(&retry.encode());
        }
        head
    }

    /// Of a write to one key; key and value follow it.
    pub fn of_write(timestamp: Timestamp, retry: Option<&Retry>, key: &[u8], change: &Change<'_>) -> Head {
        let (kind, flags, expiry) = change.kind_and_flags();
        let mut head = Head::new(kind, key.len(), timestamp, retry);
        head.bytes[1] |= flags;
        if let Some(expiry) = expiry {
            head.append(&expiry.0.to_le_bytes());
        }
        head
    }

    /// Of a batch; its operations follow, each made by [`append_operation`].
    pub fn of_batch(timestamp: Timestamp, retry: Option<&Retry>, count: usize) -> Head {
        Head::new(KIND_BATCH, count, timestamp, retry)
    }

    /// Of the deletion of a range; its start follows, and its end if it has one.
    pub fn of_delete_range(
        timestamp: Timestamp,
        retry: Option<&Retry>,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Head {
        let mut head = Head::new(KIND_DELETE_RANGE, start.len(), timestamp, retry);
        if end.is_none() {
            head.bytes[1] |= FLAG_NO_END;
        }
        head
    }

    /// A whole failure.
    pub fn of_failure(timestamp: Timestamp, retry: &Retry, failure: &Failure) -> Head {
        let mut head = Head::new(KIND_FAILURE, 0, timestamp, Some(retry));
        head.append(&failure.encode());
        head
    }

    /// A whole ceiling.
    pub fn of_ceiling(ceiling: Timestamp, horizon: Timestamp, watermark: Timestamp) -> Head {
        let mut head = Head::new(KIND_CEILING, 0, ceiling, None);
        head.append(&horizon.0.to_le_bytes());
        head.append(&watermark.0.to_le_bytes());
        head
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.used_bytes]
    }

    fn append(&mut self, bytes: &[u8]) {
        self.bytes[self.used_bytes..self.used_bytes + bytes.len()].copy_from_slice(bytes);
        self.used_bytes += bytes.len();
    }
}

const _: () = assert!(EXPIRY_BYTES <= FAILURE_BYTES);

/// Appends one operation of a batch.
pub fn append_operation(out: &mut Vec<u8>, key: &[u8], change: &Change<'_>) {
    let (kind, flags, expiry) = change.kind_and_flags();
    let value = change.value();
    out.extend_from_slice(&[kind, flags, 0, 0]);
    out.extend_from_slice(&(key.len() as u32).to_le_bytes());
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    if let Some(expiry) = expiry {
        out.extend_from_slice(&expiry.0.to_le_bytes());
    }
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

impl<'a> Change<'a> {
    /// The bytes of the value; none of a tombstone.
    pub fn value(&self) -> &'a [u8] {
        match *self {
            Change::Put { value, .. } => value,
            Change::Delete => &[],
        }
    }

    fn kind_and_flags(&self) -> (u8, u8, Option<Timestamp>) {
        match *self {
            Change::Delete => (KIND_DELETE, 0, None),
            Change::Put { expiry, is_sum, .. } => {
                let expires = if expiry.is_some() { FLAG_EXPIRY } else { 0 };
                let sum = if is_sum { FLAG_SUM } else { 0 };
                (KIND_PUT, expires | sum, expiry)
            }
        }
    }

    fn of(kind: u8, flags: u8, expiry: Option<Timestamp>, value: &'a [u8]) -> Option<Change<'a>> {
        match (kind, flags & !FLAG_RETRY) {
            (KIND_PUT, flags) if flags & !(FLAG_EXPIRY | FLAG_SUM) == 0 => {
                let is_sum = flags & FLAG_SUM != 0;
                (!is_sum || parse_number(value).is_some()).then_some(Change::Put {
                    value,
                    expiry,
                    is_sum,
                })
            }
            (KIND_DELETE, 0) if value.is_empty() => Some(Change::Delete),
            _ => None,
        }
    }
}

impl<'a> Command<'a> {
    /// Reads an entry's payload; `None` if it is not one of this format.
    pub fn decode(payload: &'a [u8]) -> Option<Command<'a>> {
        let (header, mut rest) = payload.split_first_chunk::<COMMAND_HEADER_BYTES>()?;
        let [kind, flags, 0, 0, ..] = *header else {
            return None;
        };
        let count = u32::from_le_bytes(header[4..8].try_into().ok()?) as usize;
        let timestamp = Timestamp(u64::from_le_bytes(header[8..16].try_into().ok()?));
        let mut retry = None;
        if flags & FLAG_RETRY != 0 {
            let (bytes, after) = rest.split_at_checked(RETRY_BYTES)?;
            retry = Some(Retry::decode(bytes)?);
            rest = after;
        }
        let has_no_more_flags = flags & !FLAG_RETRY == 0;
        let body = match kind {
            KIND_PUT | KIND_DELETE => {
                let (expiry, rest) = take_expiry(flags, rest)?;
                let (key, value) = rest.split_at_checked(count)?;
                Body::Write {
                    key,
                    change: Change::of(kind, flags, expiry, value)?,
                }
            }
            KIND_CEILING if flags == 0 && count == 0 => {
                let (horizon, watermark) = rest.split_first_chunk::<8>()?;
                Body::Ceiling {
                    horizon: Timestamp(u64::from_le_bytes(*horizon)),
                    watermark: Timestamp(u64::from_le_bytes(watermark.try_into().ok()?)),
                }
            }
            KIND_BATCH if has_no_more_flags && (count > 0 || retry.is_some()) => {
                Body::Batch(Operations::check(count, rest)?)
            }
            KIND_DELETE_RANGE if flags & !(FLAG_RETRY | FLAG_NO_END) == 0 => {
                let (start, end) = rest.split_at_checked(count)?;
                let has_end = flags & FLAG_NO_END == 0;
                if has_end && start >= end || !has_end && !end.is_empty() {
                    return None;
                }
                Body::DeleteRange {
                    start,
                    end: has_end.then_some(end),
                }
            }
            KIND_FAILURE if has_no_more_flags && count == 0 && retry.is_some() => {
                Body::Failure(Failure::decode(rest)?)
            }
            _ => return None,
        };
        Some(Command {
            timestamp,
            retry,
            body,
        })
    }
}

/// The retry of an entry that was decoded or made before.
pub fn retry_of(payload: &[u8]) -> Option<Retry> {
    if payload[1] & FLAG_RETRY == 0 {
        return None;
    }
    Retry::decode(&payload[COMMAND_HEADER_BYTES..COMMAND_HEADER_BYTES + RETRY_BYTES])
}

/// The expiry that the flags announce, and what follows it.
fn take_expiry(flags: u8, rest: &[u8]) -> Option<(Option<Timestamp>, &[u8])> {
    if flags & FLAG_EXPIRY == 0 {
        return Some((None, rest));
    }
    let (expiry, after) = rest.split_first_chunk()?;
    Some((Some(Timestamp(u64::from_le_bytes(*expiry))), after))
}

impl<'a> Operations<'a> {
    /// Reads all operations once; `None` if one is malformed, or bytes are left over.
    fn check(count: usize, bytes: &'a [u8]) -> Option<Operations<'a>> {
        let mut rest = bytes;
        for _ in 0..count {
            take_operation(&mut rest)?;
        }
        rest.is_empty().then_some(Operations { count, bytes })
    }

    /// Number of operations.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True if nothing changes: then the entry is there for its retry.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Keys and what happens to them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Change<'a>)> + use<'a> {
        let mut rest = self.bytes;
        (0..self.count).map(move |_| take_operation(&mut rest).expect("checked when it was decoded"))
    }
}

fn take_operation<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], Change<'a>)> {
    let (header, after) = rest.split_first_chunk::<OPERATION_HEADER_BYTES>()?;
    let [kind, flags, 0, 0, ..] = *header else {
        return None;
    };
    let key_bytes = u32::from_le_bytes(header[4..8].try_into().ok()?) as usize;
    let value_bytes = u32::from_le_bytes(header[8..12].try_into().ok()?) as usize;
    let (expiry, after) = take_expiry(flags, after)?;
    let (key, after) = after.split_at_checked(key_bytes)?;
    let (value, after) = after.split_at_checked(value_bytes)?;
    if flags & FLAG_RETRY != 0 {
        return None;
    }
    *rest = after;
    Some((key, Change::of(kind, flags, expiry, value)?))
}

/// The number that a value's decimal digits stand for: an optional minus and digits, as an add writes them. Leading
/// zeros, a plus and spaces are refused, so that a number has one form.
pub fn parse_number(value: &[u8]) -> Option<i64> {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    let is_canonical = match digits {
        [] | [b'0', _, ..] => false,
        [b'0'] => value.len() == 1,
        _ => digits.iter().all(u8::is_ascii_digit),
    };
    if !is_canonical {
        return None;
    }
    str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
