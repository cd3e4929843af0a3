//! The client's side of one connection, without IO.
//!
//! A driver's duties, in this order after each event:
//!
//! 1. Send [`Protocol::bytes_to_send`] and report with [`Protocol::sent`] how much of it went out. The hello
//!    is there from the start.
//! 2. Read into [`Protocol::receive_room`] and report with [`Protocol::received`] (or hand over bytes with
//!    [`Protocol::receive`]).
//! 3. Call [`Protocol::next_response`] until it returns `None`. Then [`Protocol::server`] is there if the
//!    hello was answered, and requests can be submitted.
//! 4. When the connection is lost or `next_response` fails, drop it: what [`Protocol::unanswered`] lists will
//!    never be answered, and the outcome of the writes among it is unknown.
//!
//! Guarantees: each response answers exactly one open request and fits its kind; the highest timestamp seen
//! goes out with each request; frames of watches that it does not know are skipped; once warm, a get or put
//! allocates nothing. Never: a socket, a clock, a second sending.

mod in_flight;
mod receive_buffer;

pub use in_flight::RequestId;

use ostrakon_wire::ClusterId;
use ostrakon_wire::frame::{self, StageTimings};
use ostrakon_wire::limits::{BODY_BYTES_MAX, HELLO_BODY_BYTES_MAX};
use ostrakon_wire::message::{
    Encoder, Hello, HelloReply, Kind, PROTOCOL_VERSION, PUSHED_KINDS, Request, Response,
};

use self::in_flight::InFlight;
use self::receive_buffer::ReceiveBuffer;
use crate::error::{ProtocolError, SubmitError};
use crate::options::Options;
use crate::values::Server;

/// An emptied send buffer with more room than this is given back.
const SEND_KEEP_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Whole frames that went out are cleared away once they are this many bytes and at least half of the send
/// buffer, so that a driver which always has something left to send doesn't make it grow for ever.
const SENT_BYTES_MAX: usize = 64 * 1024;

/// One connection's protocol state. See the head of its module for what a driver does.
#[derive(Debug)]
pub struct Protocol {
    encoder: Encoder,
    /// Frames to send, from `sent_bytes` on. Invariant: `frame_start` is where a frame starts, and it is the
    /// frame that `sent_bytes` lies in.
    send: Vec<u8>,
    sent_bytes: usize,
    frame_start: usize,
    /// Frames in `send` of which at least the last byte isn't sent.
    frames_unsent: usize,
    receive: ReceiveBuffer,
    /// The frame that was handed out last, still in `receive` because the response borrows it.
    handed_out: Option<Pending>,
    /// Of the response handed out last.
    timings: Option<StageTimings>,
    in_flight: InFlight,
    /// Highest hybrid logical clock seen (microseconds << 12 | counter).
    timestamp: u64,
    cluster_id: ClusterId,
    server: Option<Server>,
    failure: Option<ProtocolError>,
}

impl Protocol {
    /// A connection just made; the hello is queued. Of the options only those that go into the hello matter
    /// here.
    ///
    /// # Errors
    /// [`SubmitError::Invalid`] if the client's name is too long.
    pub fn new(options: &Options) -> Result<Protocol, SubmitError> {
        let hello = Request::Hello(Hello {
            version_min: PROTOCOL_VERSION,
            version_max: PROTOCOL_VERSION,
            cluster_id: options.cluster_id,
            core: options.core,
            client: &options.client,
        });
        hello.check().map_err(SubmitError::Invalid)?;
        let mut encoder = Encoder::new();
        let mut send = Vec::new();
        encoder.request(&mut send, 0, 0, &hello);
        Ok(Protocol {
            encoder,
            send,
            sent_bytes: 0,
            frame_start: 0,
            frames_unsent: 1,
            receive: ReceiveBuffer::default(),
            handed_out: None,
            timings: None,
            in_flight: InFlight::default(),
            timestamp: 0,
            cluster_id: options.cluster_id,
            server: None,
            failure: None,
        })
    }

    /// What the server said of itself, once it has answered the hello.
    pub fn server(&self) -> Option<&Server> {
        self.server.as_ref()
    }

    /// Queues a request. Its bytes are in [`Protocol::bytes_to_send`] afterwards.
    ///
    /// # Errors
    /// See [`SubmitError`]; nothing was queued then.
    pub fn submit(&mut self, request: &Request<'_>) -> Result<RequestId, SubmitError> {
        self.queue(request, false)
    }

    /// As [`Protocol::submit`]; the server is asked where the time goes, see [`Protocol::timings`].
    ///
    /// # Errors
    /// As for [`Protocol::submit`].
    pub fn submit_with_timings(&mut self, request: &Request<'_>) -> Result<RequestId, SubmitError> {
        self.queue(request, true)
    }

    fn queue(&mut self, request: &Request<'_>, timings: bool) -> Result<RequestId, SubmitError> {
        if matches!(request, Request::Hello(_)) {
            return Err(SubmitError::Hello);
        }
        request.check().map_err(SubmitError::Invalid)?;
        self.queue_frame(request.kind(), timings, |encoder, send, id, timestamp| {
            encoder.request(send, id, timestamp, request);
        })
    }

    /// As [`Protocol::submit`], of a request whose table was encoded before.
    pub(crate) fn submit_table(
        &mut self,
        kind: Kind,
        table: &[u8],
        timings: bool,
    ) -> Result<RequestId, SubmitError> {
        self.queue_frame(kind, timings, |_, send, id, timestamp| {
            frame::append(send, kind as u16, id, timestamp, table);
        })
    }

    fn queue_frame(
        &mut self,
        kind: Kind,
        timings: bool,
        encode: impl FnOnce(&mut Encoder, &mut Vec<u8>, u64, u64),
    ) -> Result<RequestId, SubmitError> {
        if self.failure.is_some() {
            return Err(SubmitError::Failed);
        }
        let Some(server) = &self.server else {
            return Err(SubmitError::NotReady);
        };
        if self.in_flight.len() >= server.requests_in_flight_max as usize {
            return Err(SubmitError::TooManyInFlight {
                requests_in_flight_max: server.requests_in_flight_max,
            });
        }
        let id = self.in_flight.open(kind);
        let start = self.send.len();
        encode(&mut self.encoder, &mut self.send, id.number(), self.timestamp);
        if timings {
            frame::ask_for_timings(&mut self.send, start);
        }
        let bytes = self.send.len() - start;
        if bytes > server.frame_bytes_max as usize {
            self.send.truncate(start);
            self.in_flight.close(id.number());
            return Err(SubmitError::FrameTooLarge {
                bytes,
                frame_bytes_max: server.frame_bytes_max,
            });
        }
        self.frames_unsent += 1;
        Ok(id)
    }

    /// What is to be sent next.
    pub fn bytes_to_send(&self) -> &[u8] {
        &self.send[self.sent_bytes..]
    }

    /// The first `count` bytes of [`Protocol::bytes_to_send`] went out.
    ///
    /// # Panics
    /// If that is more than there were.
    pub fn sent(&mut self, count: usize) {
        assert!(count <= self.bytes_to_send().len(), "{count} bytes sent of fewer");
        self.sent_bytes += count;
        if self.sent_bytes == self.send.len() {
            self.sent_bytes = 0;
            self.frame_start = 0;
            self.frames_unsent = 0;
            self.send.clear();
            if self.send.capacity() > SEND_KEEP_BYTES_MAX {
                self.send = Vec::new();
            }
            return;
        }
        while let Some(frame_bytes) = frame::frame_bytes(&self.send[self.frame_start..]) {
            if self.frame_start + frame_bytes > self.sent_bytes {
                break;
            }
            self.frame_start += frame_bytes;
            self.frames_unsent -= 1;
        }
        if self.frame_start >= SENT_BYTES_MAX && 2 * self.frame_start >= self.send.len() {
            self.send.drain(..self.frame_start);
            self.sent_bytes -= self.frame_start;
            self.frame_start = 0;
        }
    }

    /// Room to read into: at least enough for the rest of the frame that is under way.
    pub fn receive_room(&mut self) -> &mut [u8] {
        self.release_handed_out();
        // A length above the bound is refused by the next call of `next_response`; no room is made for it.
        let under_way = frame::frame_bytes(self.receive.received()).unwrap_or(0);
        let whole_bytes = under_way.min(frame::HEADER_BYTES + self.body_bytes_max());
        self.receive.room(whole_bytes)
    }

    /// `count` bytes were read into [`Protocol::receive_room`].
    ///
    /// # Panics
    /// If that is more than there was room for.
    pub fn received(&mut self, count: usize) {
        self.receive.filled(count);
    }

    /// Takes over bytes that were received elsewhere.
    pub fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.receive_room();
            let count = room.len().min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            self.received(count);
            bytes = &bytes[count..];
        }
    }

    /// The next response that has arrived whole, in the order of arrival, which need not be the order of the
    /// requests. `None`: read more. A server's refusal of a request is a response, too: [`Response::Error`].
    ///
    /// # Errors
    /// The connection can't go on; each further call returns the same error.
    pub fn next_response(&mut self) -> Result<Option<(RequestId, Response<'_>)>, ProtocolError> {
        match self.advance()? {
            Some((id, _)) => self.response().map(|response| Some((id, response))),
            None => Ok(None),
        }
    }

    /// First half of [`Protocol::next_response`]: finds the next response, and tells what it answers and of what kind
    /// it is.
    pub(crate) fn advance(&mut self) -> Result<Option<(RequestId, Kind)>, ProtocolError> {
        self.release_handed_out();
        let Some(pending) = self.next_pending()? else {
            return Ok(None);
        };
        let found = (pending.id, pending.kind);
        self.timings = pending.timings;
        self.handed_out = Some(pending);
        Ok(Some(found))
    }

    /// Second half of [`Protocol::next_response`]: the response that [`Protocol::advance`] has found.
    ///
    /// # Panics
    /// If it has found none.
    pub(crate) fn response(&mut self) -> Result<Response<'_>, ProtocolError> {
        let pending = self.handed_out.as_ref().expect("a response was found");
        let table = pending.frame_bytes - pending.table_bytes..pending.frame_bytes;
        match Response::decode(pending.kind as u16, &self.receive.received()[table]) {
            Ok(response) => Ok(response),
            Err(error) => {
                let failure = ProtocolError::Response(error);
                self.failure = Some(failure.clone());
                Err(failure)
            }
        }
    }

    /// Where the server's time for the response handed out last went; `None` if it was not asked.
    pub fn timings(&self) -> Option<StageTimings> {
        self.timings
    }

    /// Number of requests that are unanswered.
    pub fn requests_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Number of requests that went out whole and are unanswered: while there is one, the server owes an
    /// answer.
    pub fn requests_sent_in_flight(&self) -> usize {
        self.in_flight.len().saturating_sub(self.frames_unsent)
    }

    /// Has what was received so far made the connection useless?
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Number of frames, the hello's included, that did not go out whole. They are those that were queued last.
    pub(crate) fn frames_unsent(&self) -> usize {
        self.frames_unsent
    }

    /// The requests that are unanswered, in no particular order.
    pub fn unanswered(&self) -> impl Iterator<Item = (RequestId, Kind)> {
        self.in_flight.iter()
    }

    /// Highest hybrid logical clock timestamp seen (microseconds << 12 | counter), 0: none.
    pub fn timestamp(&self) -> u64 {
        self.timestamp
    }

    /// Raises the timestamp that goes out with the next request to one seen elsewhere: by this client on
    /// another connection.
    pub fn observe_timestamp(&mut self, timestamp: u64) {
        self.timestamp = self.timestamp.max(timestamp);
    }

    /// Ends the borrow of the response handed out last.
    fn release_handed_out(&mut self) {
        if let Some(handed_out) = self.handed_out.take() {
            self.receive.take(handed_out.frame_bytes);
        }
    }

    fn body_bytes_max(&self) -> usize {
        if self.server.is_some() {
            BODY_BYTES_MAX
        } else {
            HELLO_BODY_BYTES_MAX
        }
    }

    /// Finds the next frame that answers a request, and closes that request. What doesn't (the hello's
    /// answer, the server's goodbye) is dealt with here.
    fn next_pending(&mut self) -> Result<Option<Pending>, ProtocolError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let result = self.next_pending_or_failure();
        if let Err(failure) = &result {
            self.failure = Some(failure.clone());
        }
        result
    }

    fn next_pending_or_failure(&mut self) -> Result<Option<Pending>, ProtocolError> {
        loop {
            let decoded = frame::decode(self.receive.received(), self.body_bytes_max());
            let Some((header, body)) = decoded.map_err(ProtocolError::Frame)? else {
                return Ok(None);
            };
            self.timestamp = self.timestamp.max(header.timestamp);
            if self.server.is_some() && PUSHED_KINDS.contains(&header.kind) {
                self.receive.take(header.frame_bytes());
                continue;
            }
            let (timings, table) = frame::split_timings(&header, body).map_err(ProtocolError::Frame)?;
            if header.request_id != 0 && self.server.is_some() {
                let unknown = ProtocolError::UnknownRequest {
                    request_id: header.request_id,
                };
                let (id, request) = self.in_flight.close(header.request_id).ok_or(unknown)?;
                let kind = Kind::try_from(header.kind).map_err(ProtocolError::Response)?;
                if !request.is_answered_by(kind) {
                    return Err(ProtocolError::WrongResponse {
                        request,
                        response: kind,
                    });
                }
                return Ok(Some(Pending {
                    id,
                    kind,
                    timings,
                    frame_bytes: header.frame_bytes(),
                    table_bytes: table.len(),
                }));
            }
            match Response::decode(header.kind, table).map_err(ProtocolError::Response)? {
                Response::Error(error) => {
                    return Err(ProtocolError::ClosedByServer {
                        code: error.code,
                        message: error.message.to_owned(),
                        retry_after_ms: error.retry_after_ms,
                    });
                }
                Response::Hello(reply) if self.server.is_none() && header.request_id == 0 => {
                    self.server = Some(accept(&reply, self.cluster_id)?);
                }
                _ => {
                    return Err(ProtocolError::UnknownRequest {
                        request_id: header.request_id,
                    });
                }
            }
            self.receive.take(header.frame_bytes());
        }
    }
}

/// A frame in the receive buffer that answers an open request.
#[derive(Debug)]
struct Pending {
    id: RequestId,
    kind: Kind,
    timings: Option<StageTimings>,
    frame_bytes: usize,
    /// Length of the frame's end that is the response's table.
    table_bytes: usize,
}

/// Checks the answer to the hello.
fn accept(reply: &HelloReply<'_>, wanted: ClusterId) -> Result<Server, ProtocolError> {
    if reply.version != PROTOCOL_VERSION {
        return Err(ProtocolError::Version {
            version: reply.version,
        });
    }
    if wanted != ClusterId::ANY && reply.cluster_id != wanted {
        return Err(ProtocolError::Cluster {
            expected: wanted,
            found: reply.cluster_id,
        });
    }
    if reply.requests_in_flight_max == 0 {
        return Err(ProtocolError::NoRequestsAllowed);
    }
    Ok(Server::from(reply))
}
