//! Socket, protocol and time limits of one blocking connection.
//!
//! Sending never blocks while the server owes an answer to a request that it has whole: the server may have
//! stopped reading until its answers are taken, and then both sides would wait for each other. Once a
//! connection has failed it stays failed, with the first reason.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ostrakon_wire::frame::StageTimings;
use ostrakon_wire::message::{ErrorCode, Kind, Request, Response};

use crate::error::{Error, SubmitError};
use crate::options::Options;
use crate::protocol::{Protocol, RequestId};
use crate::values::{Answer, MultiValue, MultiWritten, Page, Server, Value, Written};

/// Requests are held back until this many bytes are together, or an answer is waited for.
const SEND_BATCH_BYTES: usize = 64 * 1024;

/// Connections made by this process so far.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    protocol: Protocol,
    /// Requests that someone waits for. An answer to any other is dropped.
    awaited: BTreeMap<RequestId, Awaited>,
    failure: Option<Error>,
    options: Options,
    pub(super) asks_for_timings: bool,
    /// Of the answer waited for last.
    pub(super) last_timings: Option<StageTimings>,
    /// Of all answers waited for since it was taken.
    pub(super) timings_sum: StageTimings,
    /// The read and write timeouts that the socket has now.
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    /// Unlike that of any other connection of this process.
    number: u64,
}

#[derive(Debug)]
struct Awaited {
    kind: Kind,
    answer: Option<Result<Answer, Error>>,
    timings: Option<StageTimings>,
}

/// When to give up. Made for each wait anew.
#[derive(Clone, Copy)]
struct Deadline {
    at: Option<Instant>,
    after_ms: u64,
}

impl Deadline {
    /// In `after_ms` milliseconds; 0: never.
    fn new(after_ms: u64) -> Deadline {
        let at = if after_ms == 0 {
            None
        } else {
            Instant::now().checked_add(Duration::from_millis(after_ms))
        };
        Deadline { at, after_ms }
    }

    /// The time that is left, in whole milliseconds rounded up, so that quick exchanges find the socket set
    /// as they need it; `Ok(None)`: any.
    fn left(&self) -> io::Result<Option<Duration>> {
        let Some(at) = self.at else {
            return Ok(None);
        };
        match at.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => Ok(Some(
                Duration::from_millis(left.as_micros().div_ceil(1_000) as u64).max(Duration::from_millis(1)),
            )),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Connection {
    /// Connects and exchanges the hello.
    pub(super) fn open(address: &str, options: Options) -> Result<Connection, Error> {
        let protocol = Protocol::new(&options).map_err(Error::Submit)?;
        let deadline = Deadline::new(options.connect_timeout_ms);
        let connect_error = |source| Error::Connect {
            address: address.to_owned(),
            source: Arc::new(source),
        };
        let stream = connect_any(address, deadline).map_err(connect_error)?;
        let mut connection = Connection {
            stream,
            protocol,
            awaited: BTreeMap::new(),
            failure: None,
            options,
            asks_for_timings: false,
            last_timings: None,
            timings_sum: StageTimings::default(),
            read_timeout: None,
            write_timeout: None,
            number: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
        };
        match connection.greet(deadline) {
            Ok(()) => Ok(connection),
            Err(Error::Lost { source }) => Err(Error::Connect {
                address: address.to_owned(),
                source,
            }),
            Err(Error::Timeout { .. }) => Err(connect_error(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer to the hello within {} ms", deadline.after_ms),
            ))),
            Err(error) => Err(error),
        }
    }

    fn greet(&mut self, deadline: Deadline) -> Result<(), Error> {
        self.send_all(deadline)?;
        while self.protocol.server().is_none() {
            self.read_once(deadline)?;
        }
        Ok(())
    }

    pub(super) fn server(&self) -> &Server {
        self.protocol
            .server()
            .expect("a connection is only handed out after its hello")
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn timestamp(&self) -> u64 {
        self.protocol.timestamp()
    }

    /// Queues a request whose answer will be waited for. Makes room by taking answers if too many are
    /// unanswered.
    pub(super) fn start(&mut self, request: &Request<'_>) -> Result<RequestId, Error> {
        let deadline = Deadline::new(self.options.request_timeout_ms);
        loop {
            if let Some(failure) = &self.failure {
                return Err(failure.clone());
            }
            let submitted = if self.asks_for_timings {
                self.protocol.submit_with_timings(request)
            } else {
                self.protocol.submit(request)
            };
            match submitted {
                Ok(id) => {
                    self.awaited.insert(
                        id,
                        Awaited {
                            kind: request.kind(),
                            answer: None,
                            timings: None,
                        },
                    );
                    if self.protocol.bytes_to_send().len() >= SEND_BATCH_BYTES {
                        // A failure is kept; whoever waits for this request gets it, seen from this request.
                        let _ = self.send_all(deadline);
                    }
                    return Ok(id);
                }
                Err(SubmitError::TooManyInFlight { .. }) => {
                    self.send_all(deadline)?;
                    self.read_once(deadline)?;
                }
                Err(error) => return Err(Error::Submit(error)),
            }
        }
    }

    /// Waits for the answer to a request that was started.
    pub(super) fn finish(&mut self, id: RequestId) -> Result<Answer, Error> {
        let deadline = Deadline::new(self.options.request_timeout_ms);
        loop {
            let awaited = self
                .awaited
                .get_mut(&id)
                .expect("each request is waited for once");
            if let Some(answer) = awaited.answer.take() {
                self.last_timings = awaited.timings;
                self.timings_sum += awaited.timings.unwrap_or_default();
                self.awaited.remove(&id);
                return answer;
            }
            if let Some(failure) = &self.failure {
                let failure = failure.clone().for_sent(awaited.kind);
                self.awaited.remove(&id);
                return Err(failure);
            }
            // A failure is kept, and found by the next turn.
            let _ = self.send_all(deadline).and_then(|()| self.read_once(deadline));
        }
    }

    /// From now on nobody waits for anything that was started.
    pub(super) fn abandon_all(&mut self) {
        self.awaited.clear();
    }

    /// Ends the connection because what the server sent can't be right.
    pub(super) fn fail(&mut self, error: Error) -> Error {
        // The socket may be gone already, which is what is wanted.
        let _ = self.stream.shutdown(Shutdown::Both);
        self.failure.get_or_insert(error).clone()
    }

    fn fail_io(&mut self, error: io::Error, deadline: Deadline) -> Error {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => self.fail(Error::Timeout {
                after_ms: deadline.after_ms,
            }),
            _ => self.fail(Error::Lost {
                source: Arc::new(error),
            }),
        }
    }

    /// Sends all that is queued, taking answers where that is needed to get on.
    fn send_all(&mut self, deadline: Deadline) -> Result<(), Error> {
        while !self.protocol.bytes_to_send().is_empty() {
            let answers_owed = self.protocol.requests_sent_in_flight() > 0;
            match self.write_once(deadline, answers_owed) {
                Ok(count) => self.protocol.sent(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if answers_owed && error.kind() == io::ErrorKind::WouldBlock => {
                    self.read_once(deadline)?;
                }
                Err(error) => return Err(self.fail_io(error, deadline)),
            }
        }
        Ok(())
    }

    /// One write; if `without_blocking`, only of what the socket takes at once.
    fn write_once(&mut self, deadline: Deadline, without_blocking: bool) -> io::Result<usize> {
        let left = deadline.left()?;
        let bytes = self.protocol.bytes_to_send();
        let written = if without_blocking {
            self.stream.set_nonblocking(true)?;
            let written = self.stream.write(bytes);
            self.stream.set_nonblocking(false)?;
            written
        } else {
            if left != self.write_timeout {
                self.stream.set_write_timeout(left)?;
                self.write_timeout = left;
            }
            self.stream.write(bytes)
        };
        match written {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            written => written,
        }
    }

    /// Waits for bytes, and takes all answers that are whole then.
    fn read_once(&mut self, deadline: Deadline) -> Result<(), Error> {
        match self.read_some(deadline) {
            Ok(0) => {
                let ended = io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed it");
                return Err(self.fail_io(ended, deadline));
            }
            Ok(count) => self.protocol.received(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(self.fail_io(error, deadline)),
        }
        self.take_answers()
    }

    fn read_some(&mut self, deadline: Deadline) -> io::Result<usize> {
        let left = deadline.left()?;
        if left != self.read_timeout {
            self.stream.set_read_timeout(left)?;
            self.read_timeout = left;
        }
        self.stream.read(self.protocol.receive_room())
    }

    fn take_answers(&mut self) -> Result<(), Error> {
        loop {
            match self.protocol.next_response() {
                Ok(None) => return Ok(()),
                Ok(Some((id, response))) => {
                    if let Some(awaited) = self.awaited.get_mut(&id) {
                        awaited.answer = Some(answer(awaited.kind, &response));
                        drop(response);
                        awaited.timings = self.protocol.timings();
                    }
                }
                Err(error) => return Err(self.fail(Error::from(error))),
            }
        }
    }
}

/// Tries all addresses of a name, one after the other, until the deadline.
fn connect_any(address: &str, deadline: Deadline) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for socket_address in address.to_socket_addrs()? {
        match connect_one(&socket_address, deadline) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn connect_one(address: &SocketAddr, deadline: Deadline) -> io::Result<TcpStream> {
    let stream = match deadline.left()? {
        Some(left) => TcpStream::connect_timeout(address, left)?,
        None => TcpStream::connect(address)?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A response to a request of this kind, with bytes of its own. `Protocol` has checked that it fits the kind.
fn answer(kind: Kind, response: &Response<'_>) -> Result<Answer, Error> {
    Ok(match response {
        Response::Pong => Answer::Pong,
        Response::Get { found } => Answer::Get(found.as_ref().map(Value::from)),
        Response::Write { applied, version } => Answer::Write(Written {
            applied: *applied,
            version: *version,
        }),
        Response::Add { version, number } => Answer::Add {
            version: *version,
            number: *number,
        },
        Response::MultiGet { values } => Answer::MultiGet(values.iter().map(MultiValue::from).collect()),
        Response::MultiPut(reply) => Answer::MultiPut(MultiWritten::from(reply)),
        Response::Batch(reply) => Answer::Batch(reply.clone()),
        Response::Cancel { cancelled } => Answer::Cancel(*cancelled),
        Response::Stats { json } => Answer::Stats((*json).to_owned()),
        Response::Scan(reply) => Answer::Scan(Page::from(reply)),
        Response::Topology(topology) => Answer::Topology(topology.clone()),
        Response::Status { json } => Answer::Status((*json).to_owned()),
        Response::Error(error) => {
            let refusal = Error::Server {
                code: error.code,
                message: error.message.to_owned(),
                retry_after_ms: error.retry_after_ms,
            };
            return Err(if error.code == ErrorCode::CoreFailed {
                refusal.for_sent(kind)
            } else {
                refusal
            });
        }
        Response::Hello(_) => unreachable!("a hello is answered before any request is taken"),
    })
}
