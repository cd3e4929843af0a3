//! What loadgen speaks: Ostrakon's protocol, or Redis's for comparison.
//!
//! Both are state machines without IO behind one face ([`Wire`]), so that operations, clock and histograms are
//! the same code whatever the target. Requests and answers are those of Ostrakon's client; Redis has no
//! versions, and its answers carry 0 there.

mod redis;

use ostrakon_client::{ErrorCode, Protocol, ProtocolError, Request, Response, Server, StageTimings};

pub(crate) use redis::RedisProtocol;

/// The protocol of one connection.
#[derive(Debug)]
pub(crate) enum Wire {
    Ostrakon(Box<Protocol>),
    Redis(RedisProtocol),
}

/// An answer to one request.
#[derive(Debug)]
pub(crate) enum Answer<'a> {
    /// In the words of Ostrakon.
    Response(Response<'a>),
    /// Redis refused: its line, whose first word names the error.
    RedisError(&'a str),
}

/// Why a connection cannot go on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WireError {
    /// The server says goodbye.
    Closed(String),
    /// One of the two programs is at fault.
    Broken(String),
}

impl Wire {
    /// Queues a request; the number of its slot is given, which no other unanswered request has. Redis has no
    /// timings.
    ///
    /// # Errors
    /// A sentence; nothing was queued then.
    pub(crate) fn submit(&mut self, request: &Request<'_>, wants_timings: bool) -> Result<usize, String> {
        match self {
            Self::Ostrakon(protocol) => {
                let id = if wants_timings {
                    protocol.submit_with_timings(request)
                } else {
                    protocol.submit(request)
                };
                id.map(ostrakon_client::RequestId::slot)
                    .map_err(|error| error.to_string())
            }
            Self::Redis(protocol) => protocol.submit(request),
        }
    }

    /// What is to be sent next.
    pub(crate) fn bytes_to_send(&self) -> &[u8] {
        match self {
            Self::Ostrakon(protocol) => protocol.bytes_to_send(),
            Self::Redis(protocol) => protocol.bytes_to_send(),
        }
    }

    /// The first `count` of them went out.
    pub(crate) fn sent(&mut self, count: usize) {
        match self {
            Self::Ostrakon(protocol) => protocol.sent(count),
            Self::Redis(protocol) => protocol.sent(count),
        }
    }

    /// Room to read into.
    pub(crate) fn receive_room(&mut self) -> &mut [u8] {
        match self {
            Self::Ostrakon(protocol) => protocol.receive_room(),
            Self::Redis(protocol) => protocol.receive_room(),
        }
    }

    /// `count` bytes were read into it.
    pub(crate) fn received(&mut self, count: usize) {
        match self {
            Self::Ostrakon(protocol) => protocol.received(count),
            Self::Redis(protocol) => protocol.received(count),
        }
    }

    /// The next answer that has arrived whole, with the slot of its request. `None`: read more.
    pub(crate) fn next_answer(&mut self) -> Result<Option<(usize, Answer<'_>)>, WireError> {
        match self {
            Self::Ostrakon(protocol) => match protocol.next_response() {
                Ok(None) => Ok(None),
                Ok(Some((id, response))) => Ok(Some((id.slot(), Answer::Response(response)))),
                Err(error @ ProtocolError::ClosedByServer { .. }) => {
                    Err(WireError::Closed(error.to_string()))
                }
                Err(error) => Err(WireError::Broken(error.to_string())),
            },
            Self::Redis(protocol) => protocol.next_answer(),
        }
    }

    /// Where the server's time for the answer handed out last went, if the request asked and the server says so.
    pub(crate) fn timings(&self) -> Option<StageTimings> {
        match self {
            Self::Ostrakon(protocol) => protocol.timings(),
            Self::Redis(_) => None,
        }
    }

    /// The highest timestamp that came; 0: none.
    pub(crate) fn timestamp(&self) -> u64 {
        match self {
            Self::Ostrakon(protocol) => protocol.timestamp(),
            Self::Redis(_) => 0,
        }
    }

    /// Timestamps of another connection count for this one, too.
    pub(crate) fn observe_timestamp(&mut self, timestamp: u64) {
        if let Self::Ostrakon(protocol) = self {
            protocol.observe_timestamp(timestamp);
        }
    }

    /// Requests that are unanswered.
    pub(crate) fn requests_in_flight(&self) -> usize {
        match self {
            Self::Ostrakon(protocol) => protocol.requests_in_flight(),
            Self::Redis(protocol) => protocol.requests_in_flight(),
        }
    }

    /// What an Ostrakon node said of itself.
    pub(crate) fn server(&self) -> Option<&Server> {
        match self {
            Self::Ostrakon(protocol) => protocol.server(),
            Self::Redis(_) => None,
        }
    }
}

/// Does an answer with this code leave open whether a write was applied?
pub(crate) fn is_unknown(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::CoreFailed | ErrorCode::OutcomeUnknown | ErrorCode::Other(_)
    )
}
