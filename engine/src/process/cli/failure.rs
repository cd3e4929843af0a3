//! Why a command failed, as one sentence for its user.

use std::fmt;
use std::io;

/// A command that did not end in an [`Outcome`](super::Outcome).
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// Exit code 2: the command line makes no sense.
    Usage(String),
    /// Exit code 1: it was tried and failed.
    Failed(String),
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
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(sentence) | Failure::Failed(sentence) => f.write_str(sentence),
            Failure::OutputClosed => f.write_str("the reader of the output has gone"),
        }
    }
}

impl std::error::Error for Failure {}
