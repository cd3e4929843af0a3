//! Why an engine did not do what it was asked for.

use core::fmt;

use ostrakon_wire::message::{DecodeError, ErrorCode};

use crate::process::node::StartError;
use crate::server::programs::{Undeleted, Unserved};

/// Why an engine did not do what it was asked for.
#[derive(Debug)]
#[non_exhaustive]
pub enum EngineError {
    /// The data directory can't be opened, or was not closed well.
    Open(StartError),
    /// The engine was closed, or is about to be.
    Closed,
    /// The request breaks a limit.
    Invalid(DecodeError),
    /// The keys of a batch lie in several shards.
    NotOneShard,
    /// A key is not as a condition wants it; nothing was written.
    ConditionFailed {
        /// The key's version; 0 if it is absent.
        version: u64,
        /// Place of the operation in its batch.
        operation: u32,
    },
    /// An add met a value that is no number; nothing was written.
    NotANumber {
        /// Place of the operation in its batch.
        operation: u32,
    },
    /// A sum has more than 64 bits; nothing was written.
    NumberOverflow {
        /// Place of the operation in its batch.
        operation: u32,
    },
    /// The engine can't do it now.
    Refused {
        /// The reason, as clients of a node are told.
        code: ErrorCode,
        /// What to do.
        message: String,
    },
}

impl EngineError {
    /// May the write have been done nevertheless?
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(
            self,
            EngineError::Closed
                | EngineError::Refused {
                    code: ErrorCode::CoreFailed | ErrorCode::OutcomeUnknown,
                    ..
                }
        )
    }

    /// Does trying again in a moment make sense?
    pub fn is_busy(&self) -> bool {
        matches!(
            self,
            EngineError::Refused {
                code: ErrorCode::Busy,
                ..
            }
        )
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EngineError::Open(error) => error.fmt(formatter),
            EngineError::Closed => formatter.write_str("the engine is closed: open it again"),
            EngineError::Invalid(error) => error.fmt(formatter),
            EngineError::NotOneShard => formatter.write_str(
                "the keys of the batch lie in several shards; give them a common part in braces, as in {a}x and {a}y",
            ),
            EngineError::ConditionFailed { version: 0, operation } => {
                write!(formatter, "the condition of operation {operation} does not hold: the key is absent")
            }
            EngineError::ConditionFailed { version, operation } => {
                write!(
                    formatter,
                    "the condition of operation {operation} does not hold: the key has version {version}"
                )
            }
            EngineError::NotANumber { operation } => write!(
                formatter,
                "the value under operation {operation} is not a number in decimal digits, as an add needs it"
            ),
            EngineError::NumberOverflow { operation } => {
                write!(formatter, "the sum of operation {operation} has more than 64 bits")
            }
            EngineError::Refused { message, .. } => formatter.write_str(message),
        }
    }
}

impl core::error::Error for EngineError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            EngineError::Open(error) => error.source(),
            EngineError::Invalid(error) => error.source(),
            _ => None,
        }
    }
}

impl From<StartError> for EngineError {
    fn from(error: StartError) -> EngineError {
        EngineError::Open(error)
    }
}

impl From<DecodeError> for EngineError {
    fn from(error: DecodeError) -> EngineError {
        EngineError::Invalid(error)
    }
}

impl From<Undeleted> for EngineError {
    fn from(undeleted: Undeleted) -> EngineError {
        match undeleted {
            Undeleted::Nowhere(unserved) => unserved.into(),
            Undeleted::Somewhere(code, message) => EngineError::Refused { code, message },
        }
    }
}

impl From<Unserved> for EngineError {
    fn from(unserved: Unserved) -> EngineError {
        match unserved.describe() {
            Some((code, message)) => EngineError::Refused { code, message },
            None => EngineError::Closed,
        }
    }
}
