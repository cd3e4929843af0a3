//! The task that owns the session: takes requests, does the session's duties, moves bytes, hands out answers.
//!
//! One future, which is polled when any of its sources has something: the two channels of the handles, each socket, the
//! timer. It never waits for one source alone.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use ostrakon_wire::frame::StageTimings;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, Sleep, sleep_until};

use super::client::Shared;
use crate::error::Error;
use crate::options::Options;
use crate::session::{CallId, CallOptions, ConnectionId, Duty, Prepared, Session, nanoseconds};
use crate::values::{Answer, Server};

/// A request of a handle.
#[derive(Debug)]
pub(super) struct Command {
    /// Its number, unlike that of any other of this client.
    pub(super) request: u64,
    pub(super) prepared: Prepared,
    pub(super) timings: bool,
    /// Its time counts from here.
    pub(super) asked_at: Instant,
    pub(super) answer: oneshot::Sender<Ended>,
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) result: Result<Answer, Error>,
    pub(super) timings: Option<StageTimings>,
}

/// The socket of one of the session's connections.
enum Socket {
    Connecting(Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>),
    Connected(TcpStream),
}

/// Who waits for a call.
struct Waiter {
    request: u64,
    answer: oneshot::Sender<Ended>,
}

pub(super) struct Task {
    session: Session,
    request_timeout_ms: u64,
    /// What times are counted from.
    started: Instant,
    sockets: BTreeMap<ConnectionId, Socket>,
    commands: mpsc::Receiver<Command>,
    abandoned: mpsc::UnboundedReceiver<u64>,
    /// Invariant: `calls` and `waiters` name each other.
    calls: BTreeMap<u64, CallId>,
    waiters: BTreeMap<CallId, Waiter>,
    server: watch::Sender<Option<Server>>,
    /// Waits for the first connection.
    connected: Option<oneshot::Sender<Result<(), Error>>>,
    shared: Arc<Shared>,
    timer: Pin<Box<Sleep>>,
}

impl Task {
    pub(super) fn new(
        addresses: Vec<String>,
        options: &Options,
        commands: mpsc::Receiver<Command>,
        abandoned: mpsc::UnboundedReceiver<u64>,
        server: watch::Sender<Option<Server>>,
        connected: oneshot::Sender<Result<(), Error>>,
        shared: Arc<Shared>,
    ) -> Result<Task, Error> {
        let mut random = [0; 24];
        let filled = getrandom(&mut random, GetRandomFlags::empty());
        assert!(
            filled == Ok(random.len()),
            "the operating system has no randomness: {filled:?}"
        );
        let (session, seed) = random.split_at(16);
        let session = u128::from_le_bytes(session.try_into().expect("16 bytes"));
        let seed = u64::from_le_bytes(seed.try_into().expect("8 bytes"));
        let started = Instant::now();
        Ok(Task {
            session: Session::new(options, addresses, session, seed).map_err(Error::Submit)?,
            request_timeout_ms: options.request_timeout_ms,
            started,
            sockets: BTreeMap::new(),
            commands,
            abandoned,
            calls: BTreeMap::new(),
            waiters: BTreeMap::new(),
            server,
            connected: Some(connected),
            shared,
            timer: Box::pin(sleep_until(started)),
        })
    }

    /// Runs until there is no handle any more.
    pub(super) async fn run(mut self) {
        self.session.open(self.now_ns());
        poll_fn(|context| self.poll(context)).await;
    }

    fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.take_commands(context).is_ready() {
                return Poll::Ready(());
            }
            self.take_abandoned(context);
            self.do_duties();
            let mut has_moved = self.move_bytes(context);
            has_moved |= self.hand_out();
            // What has arrived is in time, however long the runtime has kept the task waiting.
            if !has_moved {
                let is_due = self.wait_for_time(context);
                has_moved = self.hand_out() || is_due;
            }
            if self.note_connected().is_ready() {
                return Poll::Ready(());
            }
            if !has_moved {
                return Poll::Pending;
            }
        }
    }

    /// Takes requests as far as the session has room for them. Ready: there is no handle any more.
    fn take_commands(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // While nobody has a handle yet, that there is none means nothing.
        while self.connected.is_none() && !self.session.is_full() {
            match self.commands.poll_recv(context) {
                Poll::Ready(Some(command)) => self.begin(command),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    fn begin(&mut self, command: Command) {
        if command.answer.is_closed() {
            return;
        }
        let options = CallOptions {
            timeout_ms: self.request_timeout_ms,
            timings: command.timings,
        };
        let now_ns = self.now_ns();
        let asked_ns = command
            .asked_at
            .saturating_duration_since(self.started)
            .as_nanos() as u64;
        if now_ns >= asked_ns.saturating_add(nanoseconds(self.request_timeout_ms)) {
            // Whoever has gone meanwhile has lost interest.
            let _ = command.answer.send(Ended {
                result: Err(Error::Timeout {
                    after_ms: self.request_timeout_ms,
                }),
                timings: None,
            });
            return;
        }
        let call = self.session.begin(now_ns, asked_ns, command.prepared, options);
        self.calls.insert(command.request, call);
        let waiter = Waiter {
            request: command.request,
            answer: command.answer,
        };
        self.waiters.insert(call, waiter);
    }

    fn take_abandoned(&mut self, context: &mut Context<'_>) {
        while let Poll::Ready(Some(request)) = self.abandoned.poll_recv(context) {
            // A request that has ended, or that is still in the channel, is not there.
            if let Some(call) = self.calls.remove(&request) {
                self.waiters.remove(&call);
                self.session.abandon(self.now_ns(), call);
            }
        }
    }

    fn do_duties(&mut self) {
        while let Some(duty) = self.session.next_duty() {
            match duty {
                Duty::Connect { connection, address } => {
                    let address = self.session.address(address).to_owned();
                    let connect = async move {
                        let stream = TcpStream::connect(address).await?;
                        stream.set_nodelay(true)?;
                        Ok(stream)
                    };
                    self.sockets
                        .insert(connection, Socket::Connecting(Box::pin(connect)));
                }
                Duty::Close { connection } => {
                    self.sockets.remove(&connection);
                }
            }
        }
    }

    /// Sends and receives what can be; has anything happened?
    fn move_bytes(&mut self, context: &mut Context<'_>) -> bool {
        let now_ns = self.now_ns();
        let session = &mut self.session;
        let mut has_moved = false;
        self.sockets.retain(|id, socket| {
            let moved = match socket {
                Socket::Connecting(connecting) => match connecting.as_mut().poll(context) {
                    Poll::Pending => return true,
                    Poll::Ready(Ok(stream)) => {
                        *socket = Socket::Connected(stream);
                        session.connected(now_ns, *id);
                        Ok(true)
                    }
                    Poll::Ready(Err(error)) => {
                        session.connect_failed(now_ns, *id, error);
                        has_moved = true;
                        return false;
                    }
                },
                Socket::Connected(stream) => {
                    let sent = send(session, now_ns, *id, stream, context);
                    // What the server has said counts, even if nothing can be sent to it any more.
                    let received = receive(session, now_ns, *id, stream, context);
                    sent.and_then(|sent| received.map(|received| sent || received))
                }
            };
            match moved {
                Ok(moved) => {
                    has_moved |= moved;
                    true
                }
                Err(error) => {
                    session.lost(now_ns, *id, error);
                    has_moved = true;
                    false
                }
            }
        });
        has_moved
    }

    /// Lets the timer wake the task when the session wants it; was it time?
    fn wait_for_time(&mut self, context: &mut Context<'_>) -> bool {
        let Some(at_ns) = self.session.next_timeout_ns() else {
            return false;
        };
        let at = self.started + Duration::from_nanos(at_ns);
        if self.timer.deadline() != at {
            self.timer.as_mut().reset(at);
        }
        let is_due = self.timer.as_mut().poll(context).is_ready();
        if is_due {
            self.session.tick(self.now_ns().max(at_ns));
        }
        is_due
    }

    /// Hands answers to those who wait for them; were there any?
    fn hand_out(&mut self) -> bool {
        let now_ns = self.now_ns();
        let mut has_news = false;
        while let Some(finished) = self.session.next_finished(now_ns) {
            has_news = true;
            let waiter = self.waiters.remove(&finished.call);
            let waiter = waiter.expect("a call is waited for until it ends");
            self.calls.remove(&waiter.request);
            let ended = Ended {
                result: finished.result.map(|response| Answer::from(&response)),
                timings: finished.timings,
            };
            // Whoever has gone meanwhile has lost interest.
            let _ = waiter.answer.send(ended);
        }
        self.shared
            .timestamp
            .store(self.session.timestamp(), Ordering::Relaxed);
        has_news
    }

    /// Tells whoever connects how that went. Ready: it failed.
    fn note_connected(&mut self) -> Poll<()> {
        let session = &self.session;
        self.server.send_if_modified(|server| {
            let is_new = server.as_ref() != session.server();
            if is_new {
                *server = session.server().cloned();
            }
            is_new
        });
        let result = if session.is_connected() {
            Ok(())
        } else if session.failed_rounds() > 0 {
            let failure = session.last_failure().cloned();
            Err(failure.expect("a round has failed for a reason"))
        } else {
            return Poll::Pending;
        };
        let Some(connected) = self.connected.take() else {
            return Poll::Pending;
        };
        let has_failed = result.is_err();
        let is_unheard = connected.send(result).is_err();
        if has_failed || is_unheard {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// Sends until there is no room, or nothing more; has anything been sent?
fn send(
    session: &mut Session,
    now_ns: u64,
    id: ConnectionId,
    stream: &TcpStream,
    context: &mut Context<'_>,
) -> io::Result<bool> {
    let mut has_sent = false;
    while !session.bytes_to_send(id).is_empty() {
        if stream.poll_write_ready(context)?.is_pending() {
            break;
        }
        match stream.try_write(session.bytes_to_send(id)) {
            Ok(count) => {
                session.sent(now_ns, id, count);
                has_sent = true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(has_sent)
}

/// Receives once; has anything come? An error at the end of the connection.
fn receive(
    session: &mut Session,
    now_ns: u64,
    id: ConnectionId,
    stream: &TcpStream,
    context: &mut Context<'_>,
) -> io::Result<bool> {
    while stream.poll_read_ready(context)?.is_ready() {
        match stream.try_read(session.receive_room(id)) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the server closed it",
                ));
            }
            Ok(count) => {
                session.received(now_ns, id, count);
                return Ok(true);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use ostrakon_wire::message::{Encoder, Request};

    use super::*;

    #[test]
    fn the_time_of_a_request_counts_from_its_asking() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let runtime = runtime.expect("a runtime");
        let _entered = runtime.enter();
        let options = Options {
            request_timeout_ms: 3_000,
            ..Options::default()
        };
        let mut task = Task::new(
            vec!["a:1".to_owned()],
            &options,
            mpsc::channel(1).1,
            mpsc::unbounded_channel().1,
            watch::channel(None).0,
            oneshot::channel().0,
            Arc::default(),
        )
        .expect("good options");
        task.started -= Duration::from_secs(10);
        let mut ask_at = |seconds: u64| {
            let (answer, answered) = oneshot::channel();
            let prepared = Prepared::new(&Request::Ping, &mut Encoder::new(), Vec::new());
            let command = Command {
                request: seconds,
                prepared: prepared.expect("a good request"),
                timings: false,
                asked_at: task.started + Duration::from_secs(seconds),
                answer,
            };
            task.begin(command);
            answered
        };
        let mut too_late = ask_at(7);
        let in_time = ask_at(8);
        let ended = too_late.try_recv().expect("it has ended").result;
        assert!(
            matches!(ended, Err(Error::Timeout { after_ms: 3_000 })),
            "{ended:?}"
        );
        assert_eq!(task.session.open_calls(), 1);
        assert_eq!(task.session.next_timeout_ns(), Some(11_000_000_000));
        drop(in_time);
    }
}
