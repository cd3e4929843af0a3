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

use super::ScanReply;
use super::request::Condition;
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

    fn u64(&mut self, at: usize, number: u64) {
        self.bytes[HEADER_BYTES + at..HEADER_BYTES + at + 8].copy_from_slice(&number.to_le_bytes());
    }
}

/// `at` rounded up to a multiple of `alignment`.
const fn align(at: usize, alignment: usize) -> usize {
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
    condition: Condition,
) {
    let start = out.len();
    let (condition, expected_version) = condition.to_wire();
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

/// ```text
///  0  root → 16        6  vtable {10, 17; key 4, condition 16, expected_version 8}
/// 16  back 10         20  key → 36           24  expected_version
/// 32  condition       36  key: length, bytes
/// ```
pub(super) fn delete(out: &mut Vec<u8>, request_id: u64, timestamp: u64, key: &[u8], condition: Condition) {
    let start = out.len();
    let (condition, expected_version) = condition.to_wire();
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
pub(super) fn get_found(out: &mut Vec<u8>, request_id: u64, timestamp: u64, version: u64, value: &[u8]) {
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
/// Length of an entry's table.
const ENTRY_TABLE_BYTES: usize = 24;

/// ```text
///  0  root → 16        4  vtable {12, 21; snapshot 8, entries 4, more 20, resume_key 16 (0: absent)}
/// 16  back 12         20  entries → 52       24  snapshot
/// 32  resume_key →    36  more               40  vtable of entries {10, 24; key 4, value 8, version 16}
/// 52  entries: number, distance of each; then the entries, each from a multiple of 8:
///       0  back to 40    4  key → 24    8  value → its length    16  version
///      24  key: length, bytes, padding to 4; value: length, bytes
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
    head.u16s(ENTRY_VTABLE_AT, [10, ENTRY_TABLE_BYTES as u16, 4, 8, 16]);
    head.u32(ENTRIES_AT, reply.entries.len() as u32);
    out.extend_from_slice(&head.bytes);

    let body = start + HEADER_BYTES;
    let distances = out.len();
    out.resize(distances + 4 * reply.entries.len(), 0);
    for (index, entry) in reply.entries.iter().enumerate() {
        let table = align(out.len() - body, 8);
        let value_at = align(ENTRY_TABLE_BYTES + 4 + entry.key.len(), 4);
        let distance_at = distances + 4 * index;
        set_u32(out, distance_at, (body + table - distance_at) as u32);
        out.resize(body + table, 0);
        let mut fixed = [0; ENTRY_TABLE_BYTES + 4];
        fixed[0..4].copy_from_slice(&((table - ENTRY_VTABLE_AT) as u32).to_le_bytes());
        fixed[4..8].copy_from_slice(&(ENTRY_TABLE_BYTES as u32 - 4).to_le_bytes());
        fixed[8..12].copy_from_slice(&(value_at as u32 - 8).to_le_bytes());
        fixed[16..24].copy_from_slice(&entry.version.to_le_bytes());
        fixed[24..28].copy_from_slice(&(entry.key.len() as u32).to_le_bytes());
        out.extend_from_slice(&fixed);
        out.extend_from_slice(entry.key);
        out.resize(body + table + value_at, 0);
        out.extend_from_slice(&(entry.value.len() as u32).to_le_bytes());
        out.extend_from_slice(entry.value);
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
