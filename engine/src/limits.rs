//! Every bound of a node in one place. Past a bound a client hears `Busy`, `TooLarge`, `MemoryFull` or
//! `DiskFull`; nothing grows without one. The relations between the bounds are proved at compile time.

use ostrakon_wire::limits::{
    BODY_BYTES_MAX, FRAME_BYTES_MAX, KEY_BYTES_MAX, SCAN_PAGE_BYTES_MAX, VALUE_BYTES_MAX,
};

/// Default size in bytes of a log segment.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;
/// Smallest segment: the largest head, and what may be queued with segments of this size.
pub const SEGMENT_BYTES_MIN: u64 = 1 << 20;
/// Largest segment.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// A batch that has reached this size in bytes takes no more records (a single larger record travels alone).
/// See [`batch_target_bytes`] for small segments.
pub const BATCH_TARGET_BYTES: usize = 1 << 20;
/// Smallest allocation in bytes of a batch buffer.
pub const BATCH_START_BYTES: usize = 8 << 10;
/// Bytes of records that may wait for the log of one core; writes get `Busy` from half of it on. See
/// [`log_queue_bytes_max`] for small segments.
pub const LOG_QUEUE_BYTES_MAX: usize = 16 << 20;
/// Payload of the largest entry in bytes. See [`payload_bytes_max`] for small segments.
pub const PAYLOAD_BYTES_MAX: usize = KEY_BYTES_MAX + VALUE_BYTES_MAX + 128;
/// Bytes of the last segment that a full disk leaves to entries which no client asks for (timestamp ceilings).
pub const SEGMENT_RESERVE_BYTES: u64 = 64 << 10;
/// A core's memory budget is kept free to one part of this many for deletes.
pub const DELETE_RESERVE_PARTS: usize = 32;
/// Memtables and sessions get one part of this many of a core's memory; the block cache gets the rest.
pub const MEMTABLE_PARTS: usize = 4;
/// Most bytes of a core's memtables and sessions: beyond this more memory makes merges hardly rarer, and restarts
/// slower.
pub const MEMTABLE_BYTES_MAX: usize = 1 << 30;
/// Bytes of a core's log that a restart may have to read, so that it takes two seconds at most.
pub const RECOVERY_BYTES: u64 = 512 << 20;
/// How long, in microseconds, a version can be read after a newer one was written: longer than any transaction may
/// last, and by ten seconds at least.
pub const RETENTION_US: u64 = 90_000_000;
/// Freed segments of one core that are kept for reuse. Each segment that is begun takes one, and frees one as a rule; a
/// flush of the shard that held up the others frees several at once, whose space the tables may need.
pub const FREED_SEGMENTS_MAX: usize = 4;
/// Log writes in flight per core.
pub const LOG_WRITES_IN_FLIGHT: usize = 2;
/// Bytes that must stay free on the file system after a new segment was allocated, unless its head frees another, or
/// the log has but one.
pub const DISK_RESERVE_BYTES: u64 = 64 << 20;
/// Segments for which a log wants space: the one in use, the one in reserve, and one that may follow it.
pub const LOG_SEGMENTS_MIN: u64 = 3;

/// Bytes that a table of one key takes, with its record in the manifest.
pub const SMALLEST_TABLE_BYTES: u64 = 8 << 10;

/// Bytes that must stay free on the file system while a table is made: less than what the log keeps free, so that a
/// full disk stops puts, and neither flushes nor the merges that drop what was deleted.
pub const STORE_RESERVE_BYTES: u64 = 16 << 20;

/// One part of this many of the bytes of all tables stays free on the file system, [`DISK_RESERVE_BYTES`] at least and
/// this at most: a merge needs room for what it writes before it can remove what it read.
pub const KEPT_FREE_PARTS: u64 = 16;
/// See [`KEPT_FREE_PARTS`].
pub const KEPT_FREE_BYTES_MAX: u64 = 1 << 30;

/// Proposals of one shard that are not applied yet.
pub const SHARD_IN_FLIGHT_MAX: usize = 4096;
/// Reads of one shard that wait for proposals, and writes that wait for others'.
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
/// What [`CONNECTION_OUT_BYTES_MAX`] falls to while the answers of all connections of a core reach
/// [`UNSENT_BYTES_MAX`].
pub const CONNECTION_OUT_BYTES_PRESSED: usize = 64 << 10;
/// Bytes of answers of all connections of a core that wait for their sockets.
pub const UNSENT_BYTES_MAX: usize = 256 << 20;
/// Received bytes of all connections of a core that are kept: parts of frames, and requests that wait for room.
pub const KEPT_BYTES_MAX: usize = 256 << 20;
/// Received bytes that a connection may always keep.
pub const KEPT_BYTES_FREE: usize = 4096;
/// Milliseconds from the first byte of a frame to its last.
pub const FRAME_TIMEOUT_MS: u64 = 30_000;
/// Milliseconds in which a client must take some byte of its answers.
pub const SEND_TIMEOUT_MS: u64 = 30_000;
/// Milliseconds from accept to a complete hello.
pub const HELLO_TIMEOUT_MS: u64 = 10_000;

/// Bytes in the outbox towards one other core, beyond which requests get `Busy`.
pub const OUTBOX_BYTES_MAX: usize = 16 << 20;
/// Requests to one other core that are not answered yet, beyond which requests get `Busy`. The answers'
/// place in the other core's outbox is reserved by this count.
pub const OUTBOX_REQUESTS_MAX: usize = 16_384;
/// Scans under way that one core coordinates.
pub const SCANS_MAX: usize = 64;
/// Status questions under way that one core coordinates; they wait for no log.
pub const STATUSES_MAX: usize = 16;
/// Multi-gets under way that one core coordinates, and multi-puts.
pub const MULTIS_MAX: usize = 1024;
/// Bytes of values that the multi-gets of one core may hold while they wait for other cores.
pub const GATHERED_BYTES_MAX: usize = 64 << 20;
/// Reports under way that one core coordinates for clients.
pub const REPORTS_MAX: usize = 16;
/// The same, with those that the operator asks for.
pub const REPORTS_OPERATOR_MAX: usize = 24;
/// Checkpoints of a node that exist or are being made.
pub const CHECKPOINTS_MAX: usize = 8;
/// Keys that one page of a scan looks at on one core, found or deleted, before it answers with a resume key.
pub const SCAN_EXAMINED_MAX: usize = 100_000;

/// Ranges without a live key that one shard remembers for its scans.
pub const GAPS_MAX: usize = 64;
/// Keys in a row that a scan finds dead before it has them remembered.
pub const GAP_KEYS_MIN: usize = 8;

/// Bytes a second that a core reads to look for damage, unless told otherwise.
pub const SCRUB_BYTES_PER_SECOND_DEFAULT: u64 = 8 << 20;
/// Milliseconds from the beginning of a round of the scrub to that of the next one, unless it takes longer.
pub const SCRUB_INTERVAL_MS: u64 = 24 * 3_600_000;
/// Damaged places of a core that are told one by one.
pub const SCRUB_PLACES_MAX: usize = 1024;

/// Requests of one core that wait for reads from tables.
pub const FETCHES_MAX: usize = 8192;
/// Keys of one request that are read from tables at a time.
pub const FETCH_KEYS_TOGETHER: usize = 64;
/// How often a request is begun again since a flush came between the read that it needs and its use.
pub const FETCH_ROUNDS_MAX: u32 = 8;

/// Writes and scans of programs in the node's process that one core has under way.
pub const PROGRAM_REQUESTS_MAX: usize = 65_536;

/// Hint in a `Busy` answer, in milliseconds.
pub const BUSY_RETRY_AFTER_MS: u32 = 5;
/// How far ahead of the wall clock, in microseconds, a timestamp ceiling reaches when it is renewed.
pub const CEILING_AHEAD_US: u64 = 3_000_000;
/// How far ahead of the core's clock, in microseconds, it reaches at least: while that is ahead of the wall, it takes
/// 4096 timestamps to advance by one.
pub const CEILING_STEP_US: u64 = 10_000;
/// How often, in microseconds, a shard that refuses writes for want of memory moves the retry horizon on.
pub const FORGET_EVERY_US: u64 = 250_000;
/// How long, in microseconds of a shard's clock, a write is remembered after its first sending, at least.
pub const RETRY_HORIZON_US: u64 = 600_000_000;
/// How far, in microseconds, the time of a write's first sending may lie ahead of the shard's clock.
pub const SENT_AHEAD_MAX_US: u64 = 60_000_000;
/// Milliseconds that a shutdown waits for requests under way.
pub const DRAIN_TIMEOUT_MS: u64 = 10_000;

/// [`BATCH_TARGET_BYTES`] for segments of this many bytes.
pub const fn batch_target_bytes(segment_bytes: u64) -> usize {
    at_most(segment_bytes / 8, BATCH_TARGET_BYTES)
}

/// [`LOG_QUEUE_BYTES_MAX`] for segments of this many bytes.
pub const fn log_queue_bytes_max(segment_bytes: u64) -> usize {
    at_most(segment_bytes / 2, LOG_QUEUE_BYTES_MAX)
}

/// [`PAYLOAD_BYTES_MAX`] for segments of this many bytes: an entry fits into the queue when that is half full.
pub const fn payload_bytes_max(segment_bytes: u64) -> usize {
    at_most(segment_bytes / 4 - 256, PAYLOAD_BYTES_MAX)
}

const fn at_most(bytes: u64, bound_bytes: usize) -> usize {
    if bytes < bound_bytes as u64 {
        bytes as usize
    } else {
        bound_bytes
    }
}

/// Bytes of a segment's head with the states of this many shards, generously.
const fn head_bytes(shards: u32) -> u64 {
    8192 + 96 * shards as u64
}

const _: () =
    assert!(SEGMENT_BYTES_MIN <= SEGMENT_BYTES_DEFAULT && SEGMENT_BYTES_DEFAULT <= SEGMENT_BYTES_MAX);
const _: () = assert!(REQUEST_BODY_BYTES_MAX <= BODY_BYTES_MAX);
const _: () = assert!(REQUEST_BODY_BYTES_MAX >= PAYLOAD_BYTES_MAX);
const _: () = assert!(PAYLOAD_BYTES_MAX * 3 / 2 <= LOG_QUEUE_BYTES_MAX);
// When the file system is full, what is queued fits into one segment.
const _: () = assert!(
    head_bytes(SHARDS_MAX) + log_queue_bytes_max(SEGMENT_BYTES_MIN) as u64 + SEGMENT_RESERVE_BYTES
        <= SEGMENT_BYTES_MIN
);
const _: () = assert!(STORE_RESERVE_BYTES * 4 <= DISK_RESERVE_BYTES);
// The largest value goes through the log with segments of the default size.
const _: () = assert!(payload_bytes_max(SEGMENT_BYTES_DEFAULT) == PAYLOAD_BYTES_MAX);
const _: () = assert!(batch_target_bytes(SEGMENT_BYTES_MIN) >= BATCH_START_BYTES);
const _: () = assert!(SCAN_PAGE_BYTES_MAX + VALUE_BYTES_MAX + KEY_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(BATCH_START_BYTES <= BATCH_TARGET_BYTES && BATCH_TARGET_BYTES < LOG_QUEUE_BYTES_MAX);
const _: () = assert!(CONNECTION_IN_FLIGHT_MAX as usize <= OUTBOX_REQUESTS_MAX);
