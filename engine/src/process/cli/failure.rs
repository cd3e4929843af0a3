//! Why a command did not do what it was asked: one sentence for its user, and an exit code for scripts.

use std::fmt;
use std::io;

use ostrakon_client::{Error, ErrorCode};

use crate::process::signals::EXIT_CODE_INTERRUPTED;

/// A command that did not end in an [`Outcome`](super::Outcome).
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// Exit code 2: the command makes no sense.
    Usage(String),
    /// Exit code 1: it was tried and failed.
    Failed(String),
    /// Exit code 3: a key that was asked for does not exist.
    NotFound(String),
    /// Exit code 4: a condition did not hold, so that nothing was written.
    ConditionFailed(String),
    /// Exit code 5: a write was sent, and nobody knows whether it was applied.
    OutcomeUnknown(String),
    /// Exit code 130: the user has cancelled it.
    Interrupted(String),
    /// The reader of the output went away; not an error of ours.
    OutputClosed,
}

impl Failure {
    /// From a failed write to stdout.
    pub(super) fn from_output(error: &io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::OutputClosed;
        }
        Failure::Failed(format!("cannot write to stdout: {error}"))
    }

    /// Ctrl-C, and nothing more to say of it.
    pub(super) fn cancelled() -> Failure {
        Failure::Interrupted("cancelled".to_owned())
    }

    /// The same, of a command that stands in this line.
    pub(super) fn at_line(self, line_number: u64) -> Failure {
        let placed = |sentence| format!("line {line_number}: {sentence}");
        match self {
            Failure::Usage(sentence) => Failure::Usage(placed(sentence)),
            Failure::Failed(sentence) => Failure::Failed(placed(sentence)),
            Failure::NotFound(sentence) => Failure::NotFound(placed(sentence)),
            Failure::ConditionFailed(sentence) => Failure::ConditionFailed(placed(sentence)),
            Failure::OutcomeUnknown(sentence) => Failure::OutcomeUnknown(placed(sentence)),
            Failure::Interrupted(sentence) => Failure::Interrupted(placed(sentence)),
            Failure::OutputClosed => Failure::OutputClosed,
        }
    }

    /// What the process exits with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::OutputClosed => 0,
            Failure::Failed(_) => 1,
            Failure::Usage(_) => 2,
            Failure::NotFound(_) => 3,
            Failure::ConditionFailed(_) => 4,
            Failure::OutcomeUnknown(_) => 5,
            Failure::Interrupted(_) => EXIT_CODE_INTERRUPTED as u8,
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Failure {
        match error {
            Error::UnknownOutcome { .. }
            | Error::Server {
                code: ErrorCode::OutcomeUnknown,
                ..
            } => Failure::OutcomeUnknown(error.to_string()),
            _ => Failure::Failed(error.to_string()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(sentence)
            | Failure::Failed(sentence)
            | Failure::NotFound(sentence)
            | Failure::ConditionFailed(sentence)
            | Failure::OutcomeUnknown(sentence)
            | Failure::Interrupted(sentence) => f.write_str(sentence),
            Failure::OutputClosed => f.write_str("the reader of the output has gone"),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn an_unknown_outcome_has_a_code_of_its_own() {
        let lost = Error::Lost {
            source: Arc::new(io::ErrorKind::ConnectionReset.into()),
        };
        assert_eq!(Failure::from(&lost).exit_code(), 1);
        let unknown = Failure::from(&Error::UnknownOutcome {
            cause: Box::new(lost),
        });
        assert_eq!(unknown.exit_code(), 5);
        assert!(unknown.to_string().contains("may or may not have been applied"));
        let forgotten = Error::Server {
            code: ErrorCode::OutcomeUnknown,
            message: "too old".to_owned(),
            retry_after_ms: 0,
        };
        assert_eq!(Failure::from(&forgotten).exit_code(), 5);
    }
}
