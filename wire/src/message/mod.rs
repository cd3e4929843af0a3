//! What the body of a frame means: requests, responses, and how to write and read them.
//!
//! Reading borrows from the received bytes and never copies a key or a value; the bytes are verified first,
//! with bounds on depth, number of tables and apparent size, and all limits of the protocol are checked, so
//! whatever comes out can be used without further checks. Writing appends whole frames to a buffer of the
//! caller.
//!
//! Bodies of the hot kinds (get, put, delete and the replies to them, and scan pages) are laid out by hand in
//! `layout`; all others go through flatbuffers' builder. Readers can't tell the difference.

mod decode_error;
mod encode;
mod kind;
mod known;
mod layout;
#[cfg(test)]
mod layout_tests;
mod list;
#[cfg(test)]
mod refusal_tests;
mod request;
mod response;
mod trusted;
mod verify;
mod write;

pub use decode_error::DecodeError;
pub use encode::Encoder;
pub use kind::{ErrorCode, Kind, PUSHED_KINDS};
pub use list::{
    BatchOperations, BatchOperationsIter, Keys, KeysIter, MultiValues, MultiValuesIter, PutEntries,
    PutEntriesIter, ScanEntries, ScanEntriesIter,
};
pub use request::{CheckpointAction, Hello, PROTOCOL_VERSION, Request, ScanRequest, after_prefix};
pub use response::{
    BatchReply, CheckpointReply, CheckpointShard, DeleteRangeReply, ErrorReply, Found, HelloReply,
    MultiPutReply, MultiValue, Response, ScanEntry, ScanReply, TopologyReply,
};
pub use write::{Action, BatchOperation, Condition, PutEntry, Retry};

use std::fmt;

/// Identity of a cluster, chosen at its bootstrap. Written as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClusterId {
    /// Upper 64 bits.
    pub high: u64,
    /// Lower 64 bits.
    pub low: u64,
}

impl ClusterId {
    /// In a hello: whatever cluster answers. No cluster has this id.
    pub const ANY: ClusterId = ClusterId { high: 0, low: 0 };
}

impl fmt::Display for ClusterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}{:016x}", self.high, self.low)
    }
}
