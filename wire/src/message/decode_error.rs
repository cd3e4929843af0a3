//! Why the body of a frame was refused.

use std::error::Error;
use std::fmt;

use flatbuffers::InvalidFlatbuffer;

use super::{ErrorCode, Kind};
use crate::limits::{
    BODY_BYTES_MAX, CLIENT_NAME_BYTES_MAX, KEY_BYTES_MAX, MULTI_MAX, SCAN_BOUND_BYTES_MAX, SCAN_LIMIT_MAX,
    TTL_MS_MAX, VALUE_BYTES_MAX,
};

/// Why a message was refused. The connection can go on: the frame around it was whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// No kind of this version has this number.
    UnknownKind {
        /// The number.
        kind: u16,
    },
    /// A response where a request belongs, or the other way round.
    WrongDirection {
        /// The kind found.
        kind: Kind,
    },
    /// The body is no table of this kind.
    Malformed {
        /// The kind that the header names.
        kind: Kind,
        /// Where and why.
        source: InvalidFlatbuffer,
    },
    /// The body is longer than one of this kind may be, or would be.
    BodyTooLarge {
        /// The kind that the header names.
        kind: Kind,
        /// Its length; of one that is not encoded, an upper bound of it.
        bytes: usize,
    },
    /// A key of no bytes.
    KeyEmpty,
    /// A key above [`KEY_BYTES_MAX`].
    KeyTooLarge {
        /// Its length.
        bytes: usize,
    },
    /// A value above [`VALUE_BYTES_MAX`].
    ValueTooLarge {
        /// Its length.
        bytes: usize,
    },
    /// A range to be deleted whose end is not above its start.
    RangeEmpty,
    /// Start or end of a scan or a range above [`SCAN_BOUND_BYTES_MAX`].
    ScanBoundTooLarge {
        /// Its length.
        bytes: usize,
    },
    /// A scan page of more than [`SCAN_LIMIT_MAX`] entries.
    ScanLimit {
        /// As asked for.
        limit: u32,
    },
    /// No condition has this number.
    UnknownCondition {
        /// The number.
        condition: u8,
    },
    /// An expected version without the condition that compares it, or that condition with version 0, which no
    /// key has.
    ExpectedVersion {
        /// Number of the condition.
        condition: u8,
        /// The expected version.
        version: u64,
    },
    /// An expected value without the condition that compares it, or that condition without one.
    ExpectedValue {
        /// Number of the condition.
        condition: u8,
    },
    /// A time to live above [`TTL_MS_MAX`].
    TtlTooLong {
        /// As found, in milliseconds.
        ttl_ms: u64,
    },
    /// A multi-get, multi-put or batch of nothing.
    Empty {
        /// The kind.
        kind: Kind,
    },
    /// A multi-get, multi-put or batch of more than [`MULTI_MAX`] elements.
    TooMany {
        /// The kind.
        kind: Kind,
        /// Number of elements.
        count: usize,
    },
    /// A multi-put or batch that names a key twice.
    KeyTwice {
        /// The kind.
        kind: Kind,
    },
    /// No operation of a batch has this number.
    UnknownOperation {
        /// The number.
        operation: u8,
    },
    /// No action on checkpoints has this number.
    UnknownCheckpointAction {
        /// The number.
        action: u8,
    },
    /// An operation of a batch with fields that contradict each other.
    BatchFields {
        /// What was found.
        what: &'static str,
    },
    /// A write below the sequence whose answer the client has.
    RetryAnswered {
        /// Of the write.
        sequence: u64,
        /// As the client said with it.
        answered_below: u64,
    },
    /// A hello that doesn't start with Ostrakon's magic.
    Magic {
        /// As found.
        found: u64,
    },
    /// A range of protocol versions that is empty or contains 0.
    VersionRange {
        /// Lowest version offered.
        version_min: u16,
        /// Highest version offered.
        version_max: u16,
    },
    /// A core number that can't be one.
    Core {
        /// As found; −1 would mean any.
        core: i32,
    },
    /// A client name above [`CLIENT_NAME_BYTES_MAX`].
    ClientNameTooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Fields that contradict each other.
    Contradiction {
        /// The kind.
        kind: Kind,
        /// What doesn't fit, as the end of a sentence.
        detail: &'static str,
    },
}

impl DecodeError {
    /// The code with which a server answers such a request.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            DecodeError::BodyTooLarge { .. }
            | DecodeError::KeyTooLarge { .. }
            | DecodeError::ValueTooLarge { .. }
            | DecodeError::ScanBoundTooLarge { .. } => ErrorCode::TooLarge,
            _ => ErrorCode::BadRequest,
        }
    }
}

impl fmt::Display for DecodeError {
    #[expect(clippy::too_many_lines, reason = "one sentence per variant")]
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::UnknownKind { kind } => {
                write!(
                    formatter,
                    "kind {kind} is unknown to version 1 of the protocol: the other side is newer"
                )
            }
            DecodeError::WrongDirection { kind } => {
                write!(formatter, "a {kind} does not travel in this direction")
            }
            DecodeError::Malformed { kind, source } => {
                write!(
                    formatter,
                    "the body of a {kind} is malformed: {}",
                    source.to_string().trim_end()
                )
            }
            DecodeError::BodyTooLarge { kind, bytes } => {
                write!(
                    formatter,
                    "the body of a {kind} has {bytes} bytes; at most {BODY_BYTES_MAX} are allowed"
                )
            }
            DecodeError::KeyEmpty => formatter.write_str("the key is empty; a key has at least one byte"),
            DecodeError::KeyTooLarge { bytes } => {
                write!(
                    formatter,
                    "the key has {bytes} bytes; at most {KEY_BYTES_MAX} are allowed"
                )
            }
            DecodeError::ValueTooLarge { bytes } => write!(
                formatter,
                "the value has {bytes} bytes; at most {VALUE_BYTES_MAX} are allowed: use several keys"
            ),
            DecodeError::RangeEmpty => formatter
                .write_str("no key lies in the range: its end, which is excluded, has to be above its start"),
            DecodeError::ScanBoundTooLarge { bytes } => write!(
                formatter,
                "the start or end of the range has {bytes} bytes; at most {SCAN_BOUND_BYTES_MAX} are allowed"
            ),
            DecodeError::ScanLimit { limit } => write!(
                formatter,
                "the scan asks for {limit} entries at once; ask for at most {SCAN_LIMIT_MAX}, then go on"
            ),
            DecodeError::UnknownCondition { condition } => {
                write!(
                    formatter,
                    "condition {condition} is unknown to version 1 of the protocol"
                )
            }
            DecodeError::ExpectedVersion {
                condition,
                version: 0,
            } => write!(
                formatter,
                "condition {condition} needs an expected version above 0; for a key that must be absent \
                 there is a condition of its own"
            ),
            DecodeError::ExpectedVersion { condition, version } => {
                write!(
                    formatter,
                    "condition {condition} does not compare versions, yet version {version} is expected"
                )
            }
            DecodeError::ExpectedValue { condition } => write!(
                formatter,
                "condition {condition} and an expected value do not go together: condition 4 compares values and \
                 needs one, the others have none"
            ),
            DecodeError::TtlTooLong { ttl_ms } => write!(
                formatter,
                "a time to live of {ttl_ms} ms is more than the {TTL_MS_MAX} ms that are allowed; leave it out for a \
                 key that stays"
            ),
            DecodeError::Empty { kind } => write!(formatter, "a {kind} of nothing; name at least one key"),
            DecodeError::TooMany { kind, count } => write!(
                formatter,
                "a {kind} of {count} elements; send several of at most {MULTI_MAX}"
            ),
            DecodeError::KeyTwice { kind } => {
                write!(
                    formatter,
                    "a {kind} names a key twice; each key may be there once"
                )
            }
            DecodeError::UnknownOperation { operation } => write!(
                formatter,
                "operation {operation} of a batch is unknown to version 1 of the protocol"
            ),
            DecodeError::UnknownCheckpointAction { action } => write!(
                formatter,
                "action {action} on a checkpoint is unknown to version 1 of the protocol"
            ),
            DecodeError::BatchFields { what } => {
                write!(formatter, "an operation of a batch contradicts itself: {what}")
            }
            DecodeError::RetryAnswered {
                sequence,
                answered_below,
            } => write!(
                formatter,
                "write {sequence} of a session says that all below {answered_below} are answered, itself included"
            ),
            DecodeError::Magic { found } => write!(
                formatter,
                "the hello starts with {found:#018x} instead of Ostrakon's magic: is this an Ostrakon client?"
            ),
            DecodeError::VersionRange {
                version_min,
                version_max,
            } => {
                write!(
                    formatter,
                    "protocol versions {version_min} to {version_max} are no range of versions"
                )
            }
            DecodeError::Core { core } => write!(formatter, "{core} is no number of a core (-1: any)"),
            DecodeError::ClientNameTooLarge { bytes } => write!(
                formatter,
                "the client's name has {bytes} bytes; at most {CLIENT_NAME_BYTES_MAX} are allowed"
            ),
            DecodeError::Contradiction { kind, detail } => {
                write!(formatter, "a {kind} contradicts itself: {detail}")
            }
        }
    }
}

impl Error for DecodeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            DecodeError::Malformed { source, .. } => Some(source),
            _ => None,
        }
    }
}
