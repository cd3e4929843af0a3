//! The numbers on the wire: kinds of frames and codes of errors. They are never reused for something else.

use std::fmt;

use super::DecodeError;

/// Bit that tells a response's kind from its request's.
const RESPONSE_BIT: u16 = 0x8000;

/// Numbers of the kinds that a server will send without being asked, for watches; their request id names the watch.
/// A client skips those that it does not know.
pub const PUSHED_KINDS: std::ops::RangeInclusive<u16> = 0xC000..=0xFFFE;

/// Kind of a frame. A response has its request's number with the highest bit set, except that a delete is
/// answered like a put: with `WriteReply`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
#[allow(
    missing_docs,
    reason = "the names say it; the tables are described in message::Request and Response"
)]
pub enum Kind {
    Hello = 1,
    Ping = 2,
    Get = 3,
    Put = 4,
    Delete = 5,
    Scan = 6,
    Topology = 7,
    Status = 8,
    Add = 9,
    MultiGet = 10,
    MultiPut = 11,
    Batch = 12,
    Cancel = 13,
    Stats = 14,
    DeleteRange = 15,
    Checkpoint = 16,
    HelloReply = 0x8001,
    Pong = 0x8002,
    GetReply = 0x8003,
    WriteReply = 0x8004,
    ScanReply = 0x8006,
    TopologyReply = 0x8007,
    StatusReply = 0x8008,
    AddReply = 0x8009,
    MultiGetReply = 0x800A,
    MultiPutReply = 0x800B,
    BatchReply = 0x800C,
    CancelReply = 0x800D,
    StatsReply = 0x800E,
    DeleteRangeReply = 0x800F,
    CheckpointReply = 0x8010,
    Error = 0xFFFF,
}

impl Kind {
    /// Every kind of this version.
    pub const ALL: [Kind; 32] = [
        Kind::Hello,
        Kind::Ping,
        Kind::Get,
        Kind::Put,
        Kind::Delete,
        Kind::Scan,
        Kind::Topology,
        Kind::Status,
        Kind::Add,
        Kind::MultiGet,
        Kind::MultiPut,
        Kind::Batch,
        Kind::Cancel,
        Kind::Stats,
        Kind::DeleteRange,
        Kind::Checkpoint,
        Kind::HelloReply,
        Kind::Pong,
        Kind::GetReply,
        Kind::WriteReply,
        Kind::ScanReply,
        Kind::TopologyReply,
        Kind::StatusReply,
        Kind::AddReply,
        Kind::MultiGetReply,
        Kind::MultiPutReply,
        Kind::BatchReply,
        Kind::CancelReply,
        Kind::StatsReply,
        Kind::DeleteRangeReply,
        Kind::CheckpointReply,
        Kind::Error,
    ];

    /// Does this kind travel from server to client?
    pub fn is_response(self) -> bool {
        self as u16 & RESPONSE_BIT != 0
    }

    /// May `response` answer a request of this kind? Any request may be answered with an error.
    pub fn is_answered_by(self, response: Kind) -> bool {
        let own = if self == Kind::Delete {
            Kind::WriteReply as u16
        } else {
            self as u16 | RESPONSE_BIT
        };
        !self.is_response() && (response == Kind::Error || response as u16 == own)
    }

    /// May a request of this kind change data? Then a lost answer leaves its outcome unknown.
    pub fn is_write(self) -> bool {
        matches!(
            self,
            Kind::Put | Kind::Delete | Kind::Add | Kind::MultiPut | Kind::Batch | Kind::DeleteRange
        )
    }
}

impl TryFrom<u16> for Kind {
    type Error = DecodeError;

    fn try_from(kind: u16) -> Result<Kind, DecodeError> {
        Ok(match kind {
            1 => Kind::Hello,
            2 => Kind::Ping,
            3 => Kind::Get,
            4 => Kind::Put,
            5 => Kind::Delete,
            6 => Kind::Scan,
            7 => Kind::Topology,
            8 => Kind::Status,
            9 => Kind::Add,
            10 => Kind::MultiGet,
            11 => Kind::MultiPut,
            12 => Kind::Batch,
            13 => Kind::Cancel,
            14 => Kind::Stats,
            15 => Kind::DeleteRange,
            16 => Kind::Checkpoint,
            0x8001 => Kind::HelloReply,
            0x8002 => Kind::Pong,
            0x8003 => Kind::GetReply,
            0x8004 => Kind::WriteReply,
            0x8006 => Kind::ScanReply,
            0x8007 => Kind::TopologyReply,
            0x8008 => Kind::StatusReply,
            0x8009 => Kind::AddReply,
            0x800A => Kind::MultiGetReply,
            0x800B => Kind::MultiPutReply,
            0x800C => Kind::BatchReply,
            0x800D => Kind::CancelReply,
            0x800E => Kind::StatsReply,
            0x800F => Kind::DeleteRangeReply,
            0x8010 => Kind::CheckpointReply,
            0xFFFF => Kind::Error,
            kind => return Err(DecodeError::UnknownKind { kind }),
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Kind::Hello => "hello",
            Kind::Ping => "ping",
            Kind::Get => "get",
            Kind::Put => "put",
            Kind::Delete => "delete",
            Kind::Scan => "scan",
            Kind::Topology => "topology",
            Kind::Status => "status",
            Kind::Add => "add",
            Kind::MultiGet => "multi-get",
            Kind::MultiPut => "multi-put",
            Kind::Batch => "batch",
            Kind::Cancel => "cancel",
            Kind::Stats => "stats",
            Kind::DeleteRange => "delete-range",
            Kind::Checkpoint => "checkpoint",
            Kind::HelloReply => "hello reply",
            Kind::Pong => "pong",
            Kind::GetReply => "get reply",
            Kind::WriteReply => "write reply",
            Kind::ScanReply => "scan reply",
            Kind::TopologyReply => "topology reply",
            Kind::StatusReply => "status reply",
            Kind::AddReply => "add reply",
            Kind::MultiGetReply => "multi-get reply",
            Kind::MultiPutReply => "multi-put reply",
            Kind::BatchReply => "batch reply",
            Kind::CancelReply => "cancel reply",
            Kind::StatsReply => "stats reply",
            Kind::DeleteRangeReply => "delete-range reply",
            Kind::CheckpointReply => "checkpoint reply",
            Kind::Error => "error",
        })
    }
}

/// Why a server refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// 1: bytes that are no frame; with request id 0 the connection is being closed.
    BadFrame,
    /// 2: a request that means nothing or breaks a rule.
    BadRequest,
    /// 3: no protocol version that both sides speak.
    UnsupportedVersion,
    /// 4: the hello names another cluster.
    WrongCluster,
    /// 5: too much at once; try again after the hint.
    Busy,
    /// 6: no memory for this now.
    MemoryFull,
    /// 7: no room left on the disk.
    DiskFull,
    /// 8: the node is going down; try another one or wait.
    ShuttingDown,
    /// 9: the core's log failed while the write was under way: its outcome is unknown.
    CoreFailed,
    /// 10: a key, a value, the bound of a scan or a batch above its limit.
    TooLarge,
    /// 11: the snapshot's data is no longer kept; start the scan anew.
    SnapshotTooOld,
    /// 12: a timestamp too far ahead of the server's clock.
    TimestampAhead,
    /// 13: the core has all the connections that it takes, in all or from this address.
    TooManyConnections,
    /// 14: a write that the shard does not remember, and that is so old that it may have been applied and
    /// forgotten. It is not applied now.
    OutcomeUnknown,
    /// 15: given up because the client asked for it.
    Cancelled,
    /// 16: an add to a value that is no number.
    NotANumber,
    /// 17: an add whose sum has more than 64 bits.
    NumberOverflow,
    /// 18: a batch over several shards.
    NotOneShard,
    /// 19: a write too far ahead of those of its session whose answers the client does not have.
    SessionWindow,
    /// 20: the connection is being closed: nothing was asked for too long, or a hello or another frame was not
    /// finished in time.
    IdleTimeout,
    /// 21: a file of the shard can't be read at the place where the request's data lies. Not executed.
    Unreadable,
    /// 22: a checkpoint could not be made, nothing of it is left.
    CheckpointFailed,
    /// A code that this version doesn't name, from a newer server. Never made from a number that has a name.
    Other(u16),
}

impl ErrorCode {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        match self {
            ErrorCode::BadFrame => 1,
            ErrorCode::BadRequest => 2,
            ErrorCode::UnsupportedVersion => 3,
            ErrorCode::WrongCluster => 4,
            ErrorCode::Busy => 5,
            ErrorCode::MemoryFull => 6,
            ErrorCode::DiskFull => 7,
            ErrorCode::ShuttingDown => 8,
            ErrorCode::CoreFailed => 9,
            ErrorCode::TooLarge => 10,
            ErrorCode::SnapshotTooOld => 11,
            ErrorCode::TimestampAhead => 12,
            ErrorCode::TooManyConnections => 13,
            ErrorCode::OutcomeUnknown => 14,
            ErrorCode::Cancelled => 15,
            ErrorCode::NotANumber => 16,
            ErrorCode::NumberOverflow => 17,
            ErrorCode::NotOneShard => 18,
            ErrorCode::SessionWindow => 19,
            ErrorCode::IdleTimeout => 20,
            ErrorCode::Unreadable => 21,
            ErrorCode::CheckpointFailed => 22,
            ErrorCode::Other(number) => number,
        }
    }
}

impl From<u16> for ErrorCode {
    fn from(number: u16) -> ErrorCode {
        match number {
            1 => ErrorCode::BadFrame,
            2 => ErrorCode::BadRequest,
            3 => ErrorCode::UnsupportedVersion,
            4 => ErrorCode::WrongCluster,
            5 => ErrorCode::Busy,
            6 => ErrorCode::MemoryFull,
            7 => ErrorCode::DiskFull,
            8 => ErrorCode::ShuttingDown,
            9 => ErrorCode::CoreFailed,
            10 => ErrorCode::TooLarge,
            11 => ErrorCode::SnapshotTooOld,
            12 => ErrorCode::TimestampAhead,
            13 => ErrorCode::TooManyConnections,
            14 => ErrorCode::OutcomeUnknown,
            15 => ErrorCode::Cancelled,
            16 => ErrorCode::NotANumber,
            17 => ErrorCode::NumberOverflow,
            18 => ErrorCode::NotOneShard,
            19 => ErrorCode::SessionWindow,
            20 => ErrorCode::IdleTimeout,
            21 => ErrorCode::Unreadable,
            22 => ErrorCode::CheckpointFailed,
            number => ErrorCode::Other(number),
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ErrorCode::Other(number) => write!(formatter, "error code {number}"),
            named => write!(formatter, "{named:?}"),
        }
    }
}
