//! Every bound of a node in one place. Past a bound a client hears `Busy`, `TooLarge`, `MemoryFull` or
//! `DiskFull`; nothing grows without one. The relations between the bounds are proved at compile time.

use ostrakon_wire::limits::{
    BODY_BYTES_MAX, FRAME_BYTES_MAX, KEY_BYTES_MAX, SCAN_PAGE_BYTES_MAX, VALUE_BYTES_MAX,
};

/// Default size in bytes of a log segment.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;
/// Smallest segment: a head, the largest batch, and room for some more.
pub const SEGMENT_BYTES_MIN: u64 = 24 << 20;
/// Largest segment; recovery holds one in memory per core.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// A batch that has reached this size in bytes takes no more records (a single larger record travels alone).
pub const BATCH_TARGET_BYTES: usize = 1 << 20;
/// Smallest allocation in bytes of a batch buffer.
pub const BATCH_START_BYTES: usize = 8 << 10;
/// Bytes of records that may wait for the log of one core, beyond which writes get `Busy`.
pub const LOG_QUEUE_BYTES_MAX: usize = 16 << 20;
/// Log writes in flight per core.
pub const LOG_WRITES_IN_FLIGHT: usize = 2;
/// Bytes that must stay free on the file system after a new segment was allocated.
pub const DISK_RESERVE_BYTES: u64 = 64 << 20;

/// Proposals of one shard that are not applied yet.
pub const SHARD_IN_FLIGHT_MAX: usize = 4096;
/// Reads of one shard that wait for proposals.
pub const SHARD_WAITERS_MAX: usize = 4096;
/// Shards of a cluster.
pub const SHARDS_MAX: u32 = 4096;
/// Cores of a node.
pub const CORES_MAX: u16 = 256;

/// Bytes of a request's body: the largest put, and what frames it.
pub const REQUEST_BODY_BYTES_MAX: usize = KEY_BYTES_MAX + VALUE_BYTES_MAX + 4096;
/// Requests of one connection that are not answered yet; reading stops at this many.
pub const CONNECTION_IN_FLIGHT_MAX: u32 = 1024;
/// Bytes of answers that wait for one connection's socket; serving its requests stops past this.
pub const CONNECTION_OUT_BYTES_MAX: usize = 4 << 20;
/// Connections of one core.
pub const CONNECTIONS_PER_CORE_MAX: usize = 16_384;
/// Milliseconds from accept to a complete hello.
pub const HELLO_TIMEOUT_MS: u64 = 10_000;

/// Bytes in the outbox towards one other core, beyond which requests get `Busy`.
pub const OUTBOX_BYTES_MAX: usize = 16 << 20;
/// Requests to one other core that are not answered yet, beyond which requests get `Busy`. The answers'
/// place in the other core's outbox is reserved by this count.
pub const OUTBOX_REQUESTS_MAX: usize = 16_384;
/// Scans and status questions under way that one core coordinates.
pub const SCANS_MAX: usize = 64;
/// Keys that one page of a scan looks at on one core, found or deleted, before it answers with a resume key.
pub const SCAN_EXAMINED_MAX: usize = 100_000;

/// Hint in a `Busy` answer, in milliseconds.
pub const BUSY_RETRY_AFTER_MS: u32 = 5;
/// How far ahead, in microseconds, a timestamp ceiling reaches when it is renewed.
pub const CEILING_AHEAD_US: u64 = 3_000_000;
/// Milliseconds that a shutdown waits for requests under way.
pub const DRAIN_TIMEOUT_MS: u64 = 10_000;

const _: () =
    assert!(SEGMENT_BYTES_MIN <= SEGMENT_BYTES_DEFAULT && SEGMENT_BYTES_DEFAULT <= SEGMENT_BYTES_MAX);
const _: () = assert!(REQUEST_BODY_BYTES_MAX <= BODY_BYTES_MAX);
const _: () = assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX + (1 << 20) <= LOG_QUEUE_BYTES_MAX);
// When the file system fills up, what is queued still fits into the segment that was begun last.
const _: () = assert!(LOG_QUEUE_BYTES_MAX as u64 + (4 << 20) <= SEGMENT_BYTES_MIN);
const _: () = assert!(SCAN_PAGE_BYTES_MAX + VALUE_BYTES_MAX + KEY_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(BATCH_START_BYTES <= BATCH_TARGET_BYTES && BATCH_TARGET_BYTES < LOG_QUEUE_BYTES_MAX);
const _: () = assert!(CONNECTION_IN_FLIGHT_MAX as usize <= OUTBOX_REQUESTS_MAX);
