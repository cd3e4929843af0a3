//! What can go wrong, and what then is known about a write.

use std::error;
use std::fmt;
use std::io;
use std::sync::Arc;

use ostrakon_wire::ClusterId;
use ostrakon_wire::frame::FrameError;
use ostrakon_wire::message::{DecodeError, ErrorCode, Kind};

/// Why a request failed. Whatever it says, unless it is [`Error::UnknownOutcome`]: nothing was changed, and nothing
/// will be.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// No connection could be made. The request changed nothing.
    Connect {
        /// As given by the caller.
        address: String,
        /// What the operating system said about the last address tried.
        source: Arc<io::Error>,
    },
    /// The request breaks a limit. Nothing was sent.
    Submit(SubmitError),
    /// The server refused the request, which changed nothing.
    Server {
        /// The reason, for programs.
        code: ErrorCode,
        /// The reason, for people.
        message: String,
        /// When to try again, in milliseconds; 0: no hint.
        retry_after_ms: u32,
    },
    /// A write was sent, and whether it was applied can't be told. It may even be applied after a later read: only a
    /// condition on the version settles it.
    UnknownOutcome {
        /// Why the answer never came.
        cause: Box<Error>,
    },
    /// The connection was lost, and the request is not sent again. It changed nothing.
    Lost {
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// No answer within the time allowed. The request changed nothing.
    Timeout {
        /// How long was waited, in milliseconds.
        after_ms: u64,
    },
    /// Somebody ended the wait ([`Interrupter`](crate::Interrupter)). The request changed nothing.
    Interrupted,
    /// The server broke the protocol.
    Protocol(ProtocolError),
}

impl Error {
    /// The same failure, seen from a request of this kind that had been sent: a write may have been applied.
    pub(crate) fn for_sent(self, kind: Kind) -> Error {
        if kind.is_write() {
            Error::UnknownOutcome {
                cause: Box::new(self),
            }
        } else {
            self
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Connect { address, source } => write!(
                formatter,
                "cannot connect to {address}: {source}; is a node running there? start one with \
                 `ostrakon serve`"
            ),
            Error::Submit(source) => write!(formatter, "{source}"),
            Error::Server {
                code,
                message,
                retry_after_ms: 0,
            } => {
                write!(formatter, "the server answered {code}: {message}")
            }
            Error::Server {
                code,
                message,
                retry_after_ms,
            } => {
                write!(
                    formatter,
                    "the server answered {code}: {message}; try again in {retry_after_ms} ms"
                )
            }
            Error::UnknownOutcome { cause } => write!(
                formatter,
                "the write was sent but may or may not have been applied: {cause}; a later read may still miss it; \
                 repeat it only under a condition on the version you know"
            ),
            Error::Lost { source } => write!(formatter, "the connection was lost: {source}; ask again"),
            Error::Interrupted => formatter.write_str("the call was interrupted"),
            Error::Timeout { after_ms } => write!(
                formatter,
                "no answer within {after_ms} ms; ask again, or with a longer time-out"
            ),
            Error::Protocol(source) => write!(formatter, "{source}"),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Error::Connect { source, .. } | Error::Lost { source } => Some(source),
            Error::Submit(source) => Some(source),
            Error::UnknownOutcome { cause } => Some(cause),
            Error::Protocol(source) => Some(source),
            Error::Server { .. } | Error::Timeout { .. } | Error::Interrupted => None,
        }
    }
}

impl From<ProtocolError> for Error {
    fn from(error: ProtocolError) -> Error {
        match error {
            ProtocolError::ClosedByServer {
                code,
                message,
                retry_after_ms,
            } => Error::Server {
                code,
                message,
                retry_after_ms,
            },
            error => Error::Protocol(error),
        }
    }
}

/// Why [`crate::Protocol::submit`] took no request. Nothing was queued; the connection can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubmitError {
    /// The server hasn't answered the hello yet.
    NotReady,
    /// The connection has failed; [`crate::Protocol::next_response`] says why.
    Failed,
    /// As many requests are unanswered as the server allows. Take responses first.
    TooManyInFlight {
        /// How many it allows.
        requests_in_flight_max: u32,
    },
    /// The request breaks a limit of the protocol.
    Invalid(DecodeError),
    /// The request is longer than this server takes.
    FrameTooLarge {
        /// Its length.
        bytes: usize,
        /// What the server takes.
        frame_bytes_max: u32,
    },
    /// A hello: it is sent once, by [`crate::Protocol`] itself.
    Hello,
    /// A cancel: [`crate::Session::abandon`] sends it.
    Cancel,
    /// As many calls are open as a session takes. Take what has finished first.
    TooManyCalls,
}

impl fmt::Display for SubmitError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubmitError::NotReady => formatter.write_str("the server has not answered the hello yet"),
            SubmitError::Failed => formatter.write_str("the connection has failed; connect again"),
            SubmitError::TooManyInFlight {
                requests_in_flight_max,
            } => write!(
                formatter,
                "{requests_in_flight_max} requests are unanswered, and the server allows no more; take \
                 responses first"
            ),
            SubmitError::Invalid(source) => write!(formatter, "{source}"),
            SubmitError::FrameTooLarge {
                bytes,
                frame_bytes_max,
            } => {
                write!(
                    formatter,
                    "the request has {bytes} bytes; this server takes at most {frame_bytes_max}"
                )
            }
            SubmitError::Cancel => formatter.write_str("a call is given up by abandoning it"),
            SubmitError::TooManyCalls => {
                formatter.write_str("too many calls are open; take what has finished first")
            }
            SubmitError::Hello => formatter.write_str("a hello opens a connection and is never sent again"),
        }
    }
}

impl error::Error for SubmitError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            SubmitError::Invalid(source) => Some(source),
            _ => None,
        }
    }
}

/// Why the connection can't go on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// Bytes that are no frame.
    Frame(FrameError),
    /// A frame that is no response.
    Response(DecodeError),
    /// A response to no request, or a second one to the same.
    UnknownRequest {
        /// The id it names.
        request_id: u64,
    },
    /// A response that doesn't answer what was asked.
    WrongResponse {
        /// What was asked.
        request: Kind,
        /// What was answered.
        response: Kind,
    },
    /// The server chose a protocol version that wasn't offered.
    Version {
        /// Its choice.
        version: u16,
    },
    /// The server belongs to another cluster than the one asked for, and didn't say so by an error.
    Cluster {
        /// The one asked for.
        expected: ClusterId,
        /// The server's.
        found: ClusterId,
    },
    /// The server allows no requests at all.
    NoRequestsAllowed,
    /// The server said why it closes the connection (or refused the hello).
    ClosedByServer {
        /// The reason, for programs.
        code: ErrorCode,
        /// The reason, for people.
        message: String,
        /// When to connect again, in milliseconds; 0: no hint.
        retry_after_ms: u32,
    },
    /// A write without a condition came back as not applied.
    UnconditionalNotApplied,
    /// Another number of values or versions than keys were named.
    Count {
        /// Keys of the request.
        expected: usize,
        /// Elements of the response.
        found: usize,
    },
    /// A multi-get without a single value, not even of the first key.
    NothingRead,
    /// A page of a scan that lies outside of what was asked for, or of another snapshot, or that never gets
    /// further.
    ScanPage {
        /// What is wrong, as the end of a sentence.
        detail: &'static str,
    },
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProtocolError::Frame(source) => write!(formatter, "the server broke the protocol: {source}"),
            ProtocolError::Response(source) => write!(formatter, "the server broke the protocol: {source}"),
            ProtocolError::UnknownRequest { request_id } => {
                write!(
                    formatter,
                    "the server answered request {request_id:#x}, which is not open"
                )
            }
            ProtocolError::WrongResponse { request, response } => {
                write!(formatter, "the server answered a {request} with a {response}")
            }
            ProtocolError::Version { version } => {
                write!(
                    formatter,
                    "the server chose protocol version {version}, which was not offered"
                )
            }
            ProtocolError::Cluster { expected, found } => {
                write!(
                    formatter,
                    "the server belongs to cluster {found} instead of {expected}"
                )
            }
            ProtocolError::NoRequestsAllowed => {
                formatter.write_str("the server allows no requests on this connection")
            }
            ProtocolError::ClosedByServer { code, message, .. } => {
                write!(formatter, "the server closed the connection, {code}: {message}")
            }
            ProtocolError::UnconditionalNotApplied => {
                formatter.write_str("the server did not apply a write that had no condition")
            }
            ProtocolError::Count { expected, found } => {
                write!(
                    formatter,
                    "the server answered a request for {expected} keys with {found} elements"
                )
            }
            ProtocolError::NothingRead => {
                formatter.write_str("the server left out all values of a multi-get, and would do so for ever")
            }
            ProtocolError::ScanPage { detail } => {
                write!(formatter, "the server sent a page of a scan that {detail}")
            }
        }
    }
}

impl error::Error for ProtocolError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            ProtocolError::Frame(source) => Some(source),
            ProtocolError::Response(source) => Some(source),
            _ => None,
        }
    }
}
