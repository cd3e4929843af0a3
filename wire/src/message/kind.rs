//! The numbers on the wire: kinds of frames and codes of errors. They are never reused for something else.

use std::fmt;

use super::DecodeError;

/// Bit that tells a response's kind from its request's.
const RESPONSE_BIT: u16 = 0x8000;

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
    HelloReply = 0x8001,
    Pong = 0x8002,
    GetReply = 0x8003,
    WriteReply = 0x8004,
    ScanReply = 0x8006,
    TopologyReply = 0x8007,
    StatusReply = 0x8008,
    Error = 0xFFFF,
}

impl Kind {
    /// Every kind of this version.
    pub const ALL: [Kind; 16] = [
        Kind::Hello,
        Kind::Ping,
        Kind::Get,
        Kind::Put,
        Kind::Delete,
        Kind::Scan,
        Kind::Topology,
        Kind::Status,
        Kind::HelloReply,
        Kind::Pong,
        Kind::GetReply,
        Kind::WriteReply,
        Kind::ScanReply,
        Kind::TopologyReply,
        Kind::StatusReply,
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
        matches!(self, Kind::Put | Kind::Delete)
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
            0x8001 => Kind::HelloReply,
            0x8002 => Kind::Pong,
            0x8003 => Kind::GetReply,
            0x8004 => Kind::WriteReply,
            0x8006 => Kind::ScanReply,
            0x8007 => Kind::TopologyReply,
            0x8008 => Kind::StatusReply,
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
            Kind::HelloReply => "hello reply",
            Kind::Pong => "pong",
            Kind::GetReply => "get reply",
            Kind::WriteReply => "write reply",
            Kind::ScanReply => "scan reply",
            Kind::TopologyReply => "topology reply",
            Kind::StatusReply => "status reply",
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
    /// 10: a key, a value or a frame above its limit.
    TooLarge,
    /// 11: the snapshot's data is no longer kept; start the scan anew.
    SnapshotTooOld,
    /// 12: a timestamp too far ahead of the server's clock.
    TimestampAhead,
    /// 13: the node has all the connections that it allows.
    TooManyConnections,
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
