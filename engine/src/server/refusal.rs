//! What clients are told when a shard refuses: code, sentence, and when to try again.

use std::borrow::Cow;
use std::path::Path;

use ostrakon_wire::message::ErrorCode;

use crate::limits::BUSY_RETRY_AFTER_MS;
use crate::shard::{Refusal, Unreadable};
use crate::storage::store::files::{shard_directory, table_name};

/// Code, sentence and hint (in milliseconds; 0: none) for a refusal.
pub(super) fn describe(refusal: Refusal) -> (ErrorCode, Cow<'static, str>, u32) {
    let (code, sentence, retry_after_ms) = match refusal {
        Refusal::Unreadable(place) => return (ErrorCode::Unreadable, unreadable(place).into(), 0),
        Refusal::Busy => (
            ErrorCode::Busy,
            "the node's queues are full; try again",
            BUSY_RETRY_AFTER_MS,
        ),
        Refusal::TooLarge => (
            ErrorCode::TooLarge,
            "what is to be written does not fit into a log segment of this cluster, which may have been made with a \
             small segment size; the server's hello says how long a value may be: use several keys or requests",
            0,
        ),
        Refusal::MemoryFull => (
            ErrorCode::MemoryFull,
            "the memory budget for data is used up; restart the node with a larger --memory",
            0,
        ),
        Refusal::DiskFull => (
            ErrorCode::DiskFull,
            "there is too little disk space to log and to flush what would be written; delete keys or free some \
             otherwise, writes resume by themselves",
            1000,
        ),
        Refusal::CoreFailed => (
            ErrorCode::CoreFailed,
            "a write to this core's log failed; whether this request took effect is unknown. Check the disk and \
             restart the node",
            0,
        ),
        Refusal::OutcomeUnknown => (
            ErrorCode::OutcomeUnknown,
            "this write was sent long ago, or its answer was reported as received, and the shard does not remember \
             it: it may have been applied, and is not applied now. Read the key to see what it has",
            0,
        ),
        Refusal::SessionWindow => (
            ErrorCode::SessionWindow,
            "too many writes of this session have no answer that the client has reported as received; collect answers, \
             then send this one again with a higher answered_below",
            BUSY_RETRY_AFTER_MS,
        ),
        Refusal::RetryAnswered => (
            ErrorCode::BadRequest,
            "this write reports its own answer as received: its sequence is below answered_below",
            0,
        ),
        Refusal::OtherWrite => (
            ErrorCode::BadRequest,
            "the sequence of this write named another write of its session before: give each write a sequence of its \
             own",
            0,
        ),
        Refusal::SentAhead => (
            ErrorCode::TimestampAhead,
            "the write says that it was first sent at a time that lies too far ahead of this node's clock; derive \
             first_sent from the timestamps that the server sends",
            0,
        ),
        Refusal::SnapshotTooOld => (
            ErrorCode::SnapshotTooOld,
            "the snapshot is so old that versions of that time may have been dropped; begin the scan again without it",
            0,
        ),
    };
    (code, sentence.into(), retry_after_ms)
}

fn unreadable(place: Unreadable) -> String {
    let Unreadable {
        table,
        offset,
        is_damaged,
    } = place;
    let file = shard_directory(Path::new(""), table.shard).join(table_name(table.number));
    let what = if is_damaged {
        "has other bytes than were written"
    } else {
        "cannot be read"
    };
    format!(
        "{} in the data directory {what} at offset {offset}; restore the file, or the directory from a backup",
        file.display()
    )
}
