//! The bounds of the client protocol. Both sides hold to them: a client refuses to send what a server would
//! refuse to read. Relations between bounds are proved when this file is compiled.

use crate::frame::HEADER_BYTES;

/// Shortest key, in bytes.
pub const KEY_BYTES_MIN: usize = 1;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 8 * 1024;

/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Longest frame, header and body together, in bytes.
pub const FRAME_BYTES_MAX: usize = 40 * 1024 * 1024;

/// Longest body of any frame, in bytes: what to give to [`crate::frame::decode`] after the hello.
pub const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - HEADER_BYTES;

/// Longest body of the first frame of a connection, in bytes: nobody unknown gets to fill more memory than
/// this.
pub const HELLO_BODY_BYTES_MAX: usize = 4096;

/// Longest name of a client in its hello, in bytes.
pub const CLIENT_NAME_BYTES_MAX: usize = 128;

/// Keys and values of one scan page, in bytes. One entry bigger than that still travels, alone.
pub const SCAN_PAGE_BYTES_MAX: usize = 1024 * 1024;

/// Most entries of one scan page.
pub const SCAN_LIMIT_MAX: u32 = 10_000;

/// Longest start or end of a scan, in bytes: one more than a key, so that "just after the longest key" can be
/// said.
pub const SCAN_BOUND_BYTES_MAX: usize = KEY_BYTES_MAX + 1;

/// Most keys of a multi-get, entries of a multi-put, operations of a batch.
pub const MULTI_MAX: usize = 1024;

/// Values of the answer to a multi-get, in bytes; what is beyond is left out and can be asked for again. One value
/// bigger than that still travels, alone.
pub const MULTI_GET_BYTES_MAX: usize = SCAN_PAGE_BYTES_MAX;

/// Longest time to live, in milliseconds: ten years.
pub const TTL_MS_MAX: u64 = 10 * 365 * 24 * 60 * 60 * 1000;

/// Most shards of a cluster.
pub const SHARDS_MAX: u32 = 1 << 16;

/// Upper bound of what the tables, offsets and padding of one scan entry add to its key and value, in bytes.
pub(crate) const SCAN_ENTRY_OVERHEAD_BYTES_MAX: usize = 56;

/// Upper bound of what the tables, offsets and padding of one element of a multi-put or batch add to its key and
/// values, in bytes.
pub(crate) const MULTI_ELEMENT_OVERHEAD_BYTES_MAX: usize = 128;

const _: () = assert!(KEY_BYTES_MIN >= 1 && KEY_BYTES_MIN <= KEY_BYTES_MAX);
const _: () = assert!(
    KEY_BYTES_MAX + VALUE_BYTES_MAX + 1024 < BODY_BYTES_MAX,
    "the biggest put fits a frame"
);
const _: () = assert!(
    SCAN_PAGE_BYTES_MAX
        + KEY_BYTES_MAX
        + VALUE_BYTES_MAX
        + SCAN_BOUND_BYTES_MAX
        + SCAN_LIMIT_MAX as usize * SCAN_ENTRY_OVERHEAD_BYTES_MAX
        < BODY_BYTES_MAX,
    "the biggest scan page fits a frame"
);
const _: () = assert!(
    MULTI_GET_BYTES_MAX + VALUE_BYTES_MAX + MULTI_MAX * 64 + 1024 < BODY_BYTES_MAX,
    "the biggest answer to a multi-get fits a frame"
);
const _: () = assert!(
    SHARDS_MAX as usize * 2 + 1024 < BODY_BYTES_MAX,
    "the biggest topology fits a frame"
);
const _: () = assert!(
    CLIENT_NAME_BYTES_MAX + 256 < HELLO_BODY_BYTES_MAX,
    "the biggest hello fits its bound"
);
const _: () = assert!(SHARDS_MAX.is_power_of_two());
