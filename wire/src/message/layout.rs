//! Bodies laid out by hand, straight into the output: no builder, no second copy of keys and values, no
//! allocation but the growth of the output.
//!
//! The layout is ordinary flatbuffers, written front to back (the builder writes back to front, which is why
//! it needs a buffer of its own):
//!
//! 1. `u32` offset of the root table,
//! 2. the table's vtable: its length, the table's length, where in the table each field is (`u16` each, 0:
//!    absent),
//! 3. the table: `i32` distance back to its vtable, then the fields; a vector is a `u32` distance forward,
//! 4. the vectors: `u32` length, then the bytes.
//!
//! A number lies at a multiple of its size, counted from the start of the body. Each diagram below gives the
//! positions from there. The fixed part of a kind has a fixed length, so it is filled in a small array and
//! appended at once.

use super::write::{Condition, Retry};
use super::{Found, ScanReply};
use crate::frame::{HEADER_BYTES, header_without_lengths, seal};
use crate::message::Kind;

/// A body's fixed part under construction, with the header before it.
struct Head<const BYTES: usize> {
    /// Header and fixed part; `BYTES` counts both.
    bytes: [u8; BYTES],
}

impl<const BYTES: usize> Head<BYTES> {
    fn new(kind: Kind, request_id: u64, timestamp: u64) -> Head<BYTES> {
        let mut bytes = [0; BYTES];
        bytes[..HEADER_BYTES].copy_from_slice(&header_without_lengths(kind as u16, request_id, timestamp));
        Head { bytes }
    }

    fn u8(&mut self, at: usize, number: u8) {
        self.bytes[HEADER_BYTES + at] = number;
    }

    fn u16s<const N: usize>(&mut self, at: usize, numbers: [u16; N]) {
        for (index, number) in numbers.into_iter().enumerate() {
            let from = HEADER_BYTES + at + 2 * index;
            self.bytes[from..from + 2].copy_from_slice(&number.to_le_bytes());
        }
    }

    fn u32(&mut self, at: usize, number: u32) {
        self.bytes[HEADER_BYTES + at..HEADER_BYTES + at + 4].copy_from_slice(&number.to_le_bytes());
    }

    fn bytes(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[HEADER_BYTES + at..HEADER_BYTES + at + bytes.len()].copy_from_slice(bytes);
    }

    fn u64(&mut self, at: usize, number: u64) {
        self.bytes[HEADER_BYTES + at..HEADER_BYTES + at + 8].copy_from_slice(&number.to_le_bytes());
    }
}

/// `at` rounded up to a multiple of `alignment`.
pub(super) const fn align(at: usize, alignment: usize) -> usize {
    at.next_multiple_of(alignment)
}

/// ```text
///  0  root → 12        6  vtable {6, 8; key 4}
/// 12  back 6          16  key → 20           20  key: length, bytes
/// ```
pub(super) fn get(out: &mut Vec<u8>, request_id: u64, timestamp: u64, key: &[u8]) {
    let start = out.len();
    let mut head = Head::<{ HEADER_BYTES + 24 }>::new(Kind::Get, request_id, timestamp);
    head.u32(0, 12);
    head.u16s(6, [6, 8, 4]);
    head.u32(12, 6);
    head.u32(16, 4);
    head.u32(20, key.len() as u32);
    out.reserve(head.bytes.len() + key.len());
    out.extend_from_slice(&head.bytes);
    out.extend_from_slice(key);
    seal(out, start);
}

/// ```text
///  0  root → 16        4  vtable {12, 24; key 4, value 8, condition 12, expected_version 16}
/// 16  back 12         20  key → 40           24  value → its length
/// 28  condition       32  expected_version   40  key: length, bytes, padding to 4; value: length, bytes
/// ```
pub(super) fn put(
    out: &mut Vec<u8>,
    request_id: u64,
    timestamp: u64,
    (key, value): (&[u8], &[u8]),
    condition: Condition<'_>,
) {
    let start = out.len();
    let (condition, expected_version, _) = condition.to_wire();
    let value_at = align(44 + key.len(), 4);
    let mut head = Head::<{ HEADER_BYTES + 44 }>::new(Kind::Put, request_id, timestamp);
    head.u32(0, 16);
    head.u16s(4, [12, 24, 4, 8, 12, 16]);
    head.u32(16, 12);
    head.u32(20, 20);
    head.u32(24, value_at as u32 - 24);
    head.u8(28, condition);
    head.u64(32, expected_version);
    head.u32(40, key.len() as u32);
    out.reserve(HEADER_BYTES + value_at + 4 + value.len());
    out.extend_from_slice(&head.bytes);
    out.extend_from_slice(key);
    out.resize(start + HEADER_BYTES + value_at, 0);
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value);
    seal(out, start);
}

/// A put with all its fields.
///
/// ```text
///   0  root → 24         4  vtable {18, 88; key 4, value 8, condition 12, expected_version 32, expected_value 16,
///  24  back 20              ttl_ms 40, retry 48}, of which the last three are 0 where the field is absent
///  28  key → 112        32  value →             36  condition
///  40  expected_value → 56  expected_version    64  ttl_ms         72  retry (40 bytes)
/// 112  key: length, bytes, padding to 4; value: the same; expected_value: the same
/// ```
pub(super) fn full_put(
    out: &mut Vec<u8>,
    request_id: u64,
    timestamp: u64,
    (key, value, ttl_ms): (&[u8], &[u8], u64),
    condition: Condition<'_>,
    retry: Option<Retry>,
) {
    let start = out.len();
    let (condition, expected_version, expected_value) = condition.to_wire();
    let value_at = align(FULL_PUT_BYTES + 4 + key.len(), 4);
    let expected_at = align(value_at + 4 + value.len(), 4);
    let slot = |is_there: bool, at: u16| if is_there { at } else { 0 };
    let mut head = Head::<{ HEADER_BYTES + FULL_PUT_BYTES + 4 }>::new(Kind::Put, request_id, timestamp);
    head.u32(0, 24);
    let optional = [
        slot(expected_value.is_some(), 16),
        slot(ttl_ms != 0, 40),
        slot(retry.is_some(), 48),
    ];
    head.u16s(4, [18, 88, 4, 8, 12, 32]);
    head.u16s(16, optional);
    head.u32(24, 20);
    head.u32(28, (FULL_PUT_BYTES - 28) as u32);
    head.u32(32, value_at as u32 - 32);
    head.u8(36, condition);
    head.u64(56, expected_version);
    head.u64(64, ttl_ms);
    if expected_value.is_some() {
        head.u32(40, expected_at as u32 - 40);
    }
    if let Some(retry) = retry {
        head.bytes(72, &retry.to_wire().0);
    }
    head.u32(FULL_PUT_BYTES, key.len() as u32);
    let end = expected_value.map_or(value_at + 4 + value.len(), |expected| {
        expected_at + 4 + expected.len()
    });
    out.reserve(HEADER_BYTES + end);
    out.extend_from_slice(&head.bytes);
    out.extend_from_slice(key);
    append_vector(out, start + HEADER_BYTES + value_at, value);
    if let Some(expected_value) = expected_value {
        append_vector(out, start + HEADER_BYTES + expected_at, expected_value);
    }
    seal(out, start);
}

/// Where the key of a full put lies.
const FULL_PUT_BYTES: usize = 112;

/// Appends padding up to `at`, then a vector of bytes.
fn append_vector(out: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    out.resize(at, 0);
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// ```text
///  0  root → 16        6  vtable {10, 17; key 4, condition 16, expected_version 8}
/// 16  back 10         20  key → 36           24  expected_version
/// 32  condition       36  key: length, bytes
/// ```
pub(super) fn delete(
    out: &mut Vec<u8>,
    request_id: u64,
    timestamp: u64,
    key: &[u8],
    condition: Condition<'_>,
) {
    let start = out.len();
    let (condition, expected_version, _) = condition.to_wire();
    let mut head = Head::<{ HEADER_BYTES + 40 }>::new(Kind::Delete, request_id, timestamp);
    head.u32(0, 16);
    head.u16s(6, [10, 17, 4, 16, 8]);
    head.u32(16, 10);
    head.u32(20, 16);
    head.u64(24, expected_version);
    head.u8(32, condition);
    head.u32(36, key.len() as u32);
    out.reserve(head.bytes.len() + key.len());
    out.extend_from_slice(&head.bytes);
    out.extend_from_slice(key);
    seal(out, start);
}

/// ```text
///  0  root → 16        6  vtable {10, 17; found 16, version 8, value 4}
/// 16  back 10         20  value → 36         24  version
/// 32  found           36  value: length, bytes
/// ```
pub(super) fn get_found(out: &mut Vec<u8>, request_id: u64, timestamp: u64, found: Found<'_>) {
    let Found {
        version,
        expires,
        value,
    } = found;
    if expires != 0 {
        return get_expiring(out, request_id, timestamp, found);
    }
    let start = out.len();
    let mut head = Head::<{ HEADER_BYTES + 40 }>::new(Kind::GetReply, request_id, timestamp);
    head.u32(0, 16);
    head.u16s(6, [10, 17, 16, 8, 4]);
    head.u32(16, 10);
    head.u32(20, 16);
    head.u64(24, version);
    head.u8(32, 1);
    head.u32(36, value.len() as u32);
    out.reserve(head.bytes.len() + value.len());
    out.extend_from_slice(&head.bytes);
    out.extend_from_slice(value);
    seal(out, start);
}

/// ```text
///  0  root → 16        4  vtable {12, 32; found 8, version 16, value 4, expires 24}
/// 16  back 12         20  value → 48         24  found
/// 32  version         40  expires            48  value: length, bytes
/// ```
fn get_expiring(out: &mut Vec<u8>, request_id: u64, timestamp: u64, found: Found<'_>) {
    let start = out.len();
    let mut head = Head::<{ HEADER_BYTES + 52 }>::new(Kind::GetReply, request_id, timestamp);
    head.u32(0, 16);
    head.u16s(4, [12, 32, 8, 16, 4, 24]);
    head.u32(16, 12);
    head.u32(20, 28);
    head.u8(24, 1);
    head.u64(32, found.version);
    head.u64(40, found.expires);
    head.u32(48, found.value.len() as u32);
    out.reserve(head.bytes.len() + found.value.len());
    out.extend_from_slice(&head.bytes);
    out.extend_from_slice(found.value);
    seal(out, start);
}

/// ```text
///  0  root → 16        8  vtable {8, 24; version 8, number 16}
/// 16  back 8          24  version            32  number
/// ```
pub(super) fn add_reply(out: &mut Vec<u8>, request_id: u64, timestamp: u64, version: u64, number: i64) {
    let start = out.len();
    let mut head = Head::<{ HEADER_BYTES + 40 }>::new(Kind::AddReply, request_id, timestamp);
    head.u32(0, 16);
    head.u16s(8, [8, 24, 8, 16]);
    head.u32(16, 8);
    head.u64(24, version);
    head.u64(32, number.cast_unsigned());
    out.extend_from_slice(&head.bytes);
    seal(out, start);
}

/// ```text
///  0  root → 8         4  vtable {4, 4}       8  back 4
/// ```
pub(super) fn get_not_found(out: &mut Vec<u8>, request_id: u64, timestamp: u64) {
    let start = out.len();
    let mut head = Head::<{ HEADER_BYTES + 12 }>::new(Kind::GetReply, request_id, timestamp);
    head.u32(0, 8);
    head.u16s(4, [4, 4]);
    head.u32(8, 4);
    out.extend_from_slice(&head.bytes);
    seal(out, start);
}

/// ```text
///  0  root → 16        8  vtable {8, 16; applied 4, version 8}
/// 16  back 8          20  applied            24  version
/// ```
pub(super) fn write_reply(out: &mut Vec<u8>, request_id: u64, timestamp: u64, applied: bool, version: u64) {
    let start = out.len();
    let mut head = Head::<{ HEADER_BYTES + 32 }>::new(Kind::WriteReply, request_id, timestamp);
    head.u32(0, 16);
    head.u16s(8, [8, 16, 4, 8]);
    head.u32(16, 8);
    head.u8(20, u8::from(applied));
    head.u64(24, version);
    out.extend_from_slice(&head.bytes);
    seal(out, start);
}

/// Where the vtable that all entries of a scan page share is.
const ENTRY_VTABLE_AT: usize = 40;
/// Where the vector of entries is.
const ENTRIES_AT: usize = 52;
/// Length of an entry's table, without its expiry.
const ENTRY_TABLE_BYTES: usize = 24;
/// And with it.
const EXPIRING_ENTRY_TABLE_BYTES: usize = 32;

/// ```text
///  0  root → 16        4  vtable {12, 21; snapshot 8, entries 4, more 20, resume_key 16 (0: absent)}
/// 16  back 12         20  entries → 52       24  snapshot
/// 32  resume_key →    36  more               40  vtable of entries {10, 24; key 4, value 8, version 16}
/// 40  (or, where a key of the page expires, the vtable {12, 32; key 4, value 8, version 16, expires 24})
/// 52  entries: number, distance of each; then the entries, each from a multiple of 8:
///       0  back to 40    4  key → 24    8  value → its length    16  version
///      24  key: length, bytes, padding to 4; value: length, bytes (after expires, if that is there)
/// then padding to 4, resume_key: length, bytes
/// ```
pub(super) fn scan_reply(out: &mut Vec<u8>, request_id: u64, timestamp: u64, reply: &ScanReply<'_>) {
    let start = out.len();
    let resume_slot = if reply.more() { 16 } else { 0 };
    let mut head = Head::<{ HEADER_BYTES + ENTRIES_AT + 4 }>::new(Kind::ScanReply, request_id, timestamp);
    head.u32(0, 16);
    head.u16s(4, [12, 21, 8, 4, 20, resume_slot]);
    head.u32(16, 12);
    head.u32(20, (ENTRIES_AT - 20) as u32);
    head.u64(24, reply.snapshot);
    head.u8(36, u8::from(reply.more()));
    let expiring = reply.entries.iter().any(|entry| entry.expires != 0);
    let table_bytes = if expiring {
        EXPIRING_ENTRY_TABLE_BYTES
    } else {
        ENTRY_TABLE_BYTES
    };
    let (vtable_bytes, expires_slot) = if expiring { (12, 24) } else { (10, 0) };
    head.u16s(
        ENTRY_VTABLE_AT,
        [vtable_bytes, table_bytes as u16, 4, 8, 16, expires_slot],
    );
    head.u32(ENTRIES_AT, reply.entries.len() as u32);
    out.extend_from_slice(&head.bytes);

    let body = start + HEADER_BYTES;
    let distances = out.len();
    out.resize(distances + 4 * reply.entries.len(), 0);
    for (index, entry) in reply.entries.iter().enumerate() {
        let table = align(out.len() - body, 8);
        let value_at = align(table_bytes + 4 + entry.key.len(), 4);
        let distance_at = distances + 4 * index;
        set_u32(out, distance_at, (body + table - distance_at) as u32);
        out.resize(body + table, 0);
        let mut fixed = [0; EXPIRING_ENTRY_TABLE_BYTES + 4];
        fixed[0..4].copy_from_slice(&((table - ENTRY_VTABLE_AT) as u32).to_le_bytes());
        fixed[4..8].copy_from_slice(&(table_bytes as u32 - 4).to_le_bytes());
        fixed[8..12].copy_from_slice(&(value_at as u32 - 8).to_le_bytes());
        fixed[16..24].copy_from_slice(&entry.version.to_le_bytes());
        if expiring {
            fixed[24..32].copy_from_slice(&entry.expires.to_le_bytes());
        }
        fixed[table_bytes..table_bytes + 4].copy_from_slice(&(entry.key.len() as u32).to_le_bytes());
        out.extend_from_slice(&fixed[..table_bytes + 4]);
        out.extend_from_slice(entry.key);
        append_vector(out, body + table + value_at, entry.value);
    }
    if let Some(resume_key) = reply.resume_key {
        let resume_at = align(out.len() - body, 4);
        set_u32(out, body + 32, resume_at as u32 - 32);
        out.resize(body + resume_at, 0);
        out.extend_from_slice(&(resume_key.len() as u32).to_le_bytes());
        out.extend_from_slice(resume_key);
    }
    seal(out, start);
}

fn set_u32(out: &mut [u8], at: usize, number: u32) {
    out[at..at + 4].copy_from_slice(&number.to_le_bytes());
}
