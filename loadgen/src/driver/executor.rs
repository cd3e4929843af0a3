//! One executor of the load: pinned to a CPU, with a reader and a writer task per connection.
//!
//! The reader takes answers and hands over what follows; the writer sends. When the socket is lost and writes are in
//! a session, the reader ends the writer, connects again and starts another. They share the [`Connection`] and
//! are never joined in a select: glommio panics on futures that are polled again and again. A third task per
//! executor looks for connections on which no answer comes any more. A `Busy` hint is waited for by a task of
//! its own. Where answers alone do not drive the load there is a [`dispatcher`] besides.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;

use super::connect::{ConnectError, Place, Ready};
use super::connection::{Connection, ConnectionEnd};
use super::dispatcher;
use super::thread::Thread;

/// Between two attempts to connect again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// A connection with requests in flight that stays silent for so long is lost.
const SILENCE_MAX: Duration = Duration::from_mins(1);

type SharedConnection = Rc<RefCell<Connection>>;
type SharedThread = Rc<RefCell<Thread>>;

/// Runs all connections of one executor until the phase is over for them. Returns the moment of the end.
pub(crate) async fn run(thread: SharedThread, ready: Vec<Ready>, pipeline: usize) -> Instant {
    let mut sockets = Vec::with_capacity(ready.len());
    let mut connections = Vec::with_capacity(ready.len());
    for ready in ready {
        match halves(&ready.stream) {
            Ok(halves) => sockets.push(halves),
            Err(end) => {
                thread.borrow().shared.end(end);
                continue;
            }
        }
        let connection = Connection::new(ready, pipeline, &thread.borrow());
        connections.push(Rc::new(RefCell::new(connection)));
    }
    let mut tasks = Vec::with_capacity(sockets.len() + 1);
    for (halves, connection) in sockets.into_iter().zip(&connections) {
        let life = live(Rc::clone(connection), Rc::clone(&thread), halves);
        tasks.push(glommio::spawn_local(life));
    }
    let needs_dispatcher = {
        let source = &thread.borrow().source;
        source.is_open() || source.is_grouped()
    };
    if needs_dispatcher {
        let dispatcher = dispatcher::run(connections.clone(), Rc::clone(&thread));
        tasks.push(glommio::spawn_local(dispatcher));
    }
    let watch = glommio::spawn_local(watch(connections));
    for task in tasks {
        task.await;
    }
    watch.cancel().await;
    Instant::now()
}

/// One socket, for a reader and for a writer.
struct Halves {
    reader: std::net::TcpStream,
    writer: std::net::TcpStream,
}

fn halves(stream: &std::net::TcpStream) -> Result<Halves, ConnectionEnd> {
    let split = stream
        .try_clone()
        .and_then(|reader| stream.try_clone().map(|writer| Halves { reader, writer }));
    split.map_err(|error| {
        ConnectionEnd::Broken(format!(
            "could not split a connection: {error}; raise `ulimit -n`"
        ))
    })
}

/// Makes a socket of the standard library one of glommio's.
fn adopt(stream: std::net::TcpStream) -> TcpStream {
    // SAFETY: the descriptor is an open TCP socket, and `into_raw_fd` has given up its ownership.
    unsafe { TcpStream::from_raw_fd(stream.into_raw_fd()) }
}

/// A connection over one socket after the other, until the phase is over for it or it cannot go on.
async fn live(connection: SharedConnection, thread: SharedThread, mut halves: Halves) {
    let (ended, writer) = loop {
        let writer = write(Rc::clone(&connection), adopt(halves.writer));
        let writer = glommio::spawn_local(writer);
        let end = read_until_over(&connection, &thread, &mut adopt(halves.reader)).await;
        let Err(end) = end else {
            break (Ok(()), Some(writer));
        };
        let (end, place) = {
            let mut open = connection.borrow_mut();
            (open.reason_of(end), open.next_place())
        };
        let (ConnectionEnd::Lost(reason), Some(place)) = (&end, place) else {
            break (Err(end), Some(writer));
        };
        {
            let mut open = connection.borrow_mut();
            open.cut();
            open.wake_writer();
        }
        writer.await;
        // Its reason was that of the socket that is gone.
        let _gone = connection
            .borrow_mut()
            .reason_of(ConnectionEnd::Lost(String::new()));
        halves = match reconnect(&connection, &thread, place, reason).await {
            Ok(Some(halves)) => halves,
            Ok(None) => break (Ok(()), None),
            Err(end) => break (Err(end), None),
        };
    };
    {
        let (mut open, mut thread) = (connection.borrow_mut(), thread.borrow_mut());
        open.is_over = true;
        if let Err(end) = ended {
            open.abandon(&mut thread, end);
        }
        thread.call_dispatcher();
        open.wake_writer();
    }
    if let Some(writer) = writer {
        writer.await;
    }
}

/// Opens another socket in place of one that was lost for this reason, and queues on it what was unanswered. `None`:
/// nothing was, and nothing will be.
async fn reconnect(
    connection: &SharedConnection,
    thread: &SharedThread,
    place: Place,
    reason: &str,
) -> Result<Option<Halves>, ConnectionEnd> {
    let patience = thread.borrow().retry_for.unwrap_or_default();
    let lost_at = Instant::now();
    let reopen_at = connection.borrow_mut().take_reopen_at();
    if let Some(at) = reopen_at {
        glommio::timer::sleep(at.saturating_duration_since(lost_at)).await;
    }
    loop {
        let is_stopped = thread.borrow().shared.is_stopped();
        if !is_stopped && !connection.borrow().has_more(&thread.borrow()) {
            return Ok(None);
        }
        let again = place.clone();
        // Connecting blocks, and other connections of this executor may be well.
        let opened = glommio::executor().spawn_blocking(move || again.open()).await;
        let why = match opened {
            Ok((stream, wire)) => {
                let halves = halves(&stream)?;
                let (mut open, mut thread) = (connection.borrow_mut(), thread.borrow_mut());
                open.renew(wire, stream, &mut thread)?;
                thread.call_dispatcher();
                return Ok(Some(halves));
            }
            Err(ConnectError::Refused(reason)) => return Err(ConnectionEnd::Broken(reason)),
            Err(ConnectError::Lost(why)) => why,
        };
        if is_stopped || lost_at.elapsed() >= patience {
            let seconds = lost_at.elapsed().as_secs();
            return Err(ConnectionEnd::Lost(format!(
                "{reason}, and not to be had again in {seconds} s: {why}"
            )));
        }
        glommio::timer::sleep(RECONNECT_PAUSE).await;
    }
}

async fn read_until_over(
    connection: &SharedConnection,
    thread: &SharedThread,
    stream: &mut TcpStream,
) -> Result<(), ConnectionEnd> {
    {
        let mut open = connection.borrow_mut();
        open.heard_at = Instant::now();
        open.top_up(&mut thread.borrow_mut(), Instant::now())?;
        open.wake_writer();
    }
    while connection.borrow().has_more(&thread.borrow()) {
        let read = poll_fn(|context| {
            Pin::new(&mut *stream).poll_read(context, connection.borrow_mut().wire.receive_room())
        });
        let read = read.await;
        if connection.borrow().is_finished() {
            return Ok(());
        }
        let count = read.map_err(|error| ConnectionEnd::Lost(format!("a connection was lost: {error}")))?;
        if count == 0 {
            return Err(ConnectionEnd::Lost("the node closed a connection".to_owned()));
        }
        let wake_at = take_in(&mut connection.borrow_mut(), &mut thread.borrow_mut(), count)?;
        // A spawned task runs at once, so nothing may be borrowed here.
        if let Some(wake_at) = wake_at {
            glommio::spawn_local(unpark_at(wake_at, Rc::clone(connection), Rc::clone(thread))).detach();
        }
        glommio::yield_if_needed().await;
    }
    Ok(())
}

/// Deals with `count` bytes that were received.
fn take_in(
    open: &mut Connection,
    thread: &mut Thread,
    count: usize,
) -> Result<Option<Instant>, ConnectionEnd> {
    open.wire.received(count);
    open.heard_at = Instant::now();
    let wake_at = open.take_answers(thread)?;
    open.wake_writer();
    Ok(wake_at)
}

/// Sends parked operations again when the hints of one batch of answers have passed.
async fn unpark_at(wake_at: Instant, connection: SharedConnection, thread: SharedThread) {
    glommio::timer::sleep(wake_at.saturating_duration_since(Instant::now())).await;
    let mut open = connection.borrow_mut();
    if open.is_over || open.is_cut {
        return;
    }
    let sent = open.unpark(&mut thread.borrow_mut(), wake_at.max(Instant::now()));
    if let Err(end) = sent {
        open.shut_down(end);
    }
    open.wake_writer();
}

async fn write(connection: SharedConnection, mut stream: TcpStream) {
    if let Err(error) = write_until_over(&connection, &mut stream).await {
        let reason = format!("a connection was lost: {error}");
        connection.borrow_mut().shut_down(ConnectionEnd::Lost(reason));
    }
}

async fn write_until_over(connection: &SharedConnection, stream: &mut TcpStream) -> io::Result<()> {
    loop {
        let sent = poll_fn(|context| {
            let mut open = connection.borrow_mut();
            if open.is_over || open.is_cut {
                return Poll::Ready(Ok(None));
            }
            if open.wire.bytes_to_send().is_empty() {
                open.writer = Some(context.waker().clone());
                return Poll::Pending;
            }
            let sent =
                std::task::ready!(Pin::new(&mut *stream).poll_write(context, open.wire.bytes_to_send()));
            Poll::Ready(sent.map(|count| {
                open.wire.sent(count);
                Some(count)
            }))
        });
        match sent.await? {
            None => return Ok(()),
            Some(0) => return Err(io::ErrorKind::WriteZero.into()),
            Some(_) => glommio::yield_if_needed().await,
        }
    }
}

async fn watch(connections: Vec<SharedConnection>) {
    loop {
        glommio::timer::sleep(Duration::from_secs(1)).await;
        for connection in &connections {
            let mut open = connection.borrow_mut();
            let is_waiting = !open.is_over && !open.is_cut && open.wire.requests_in_flight() > 0;
            if is_waiting && open.heard_at.elapsed() > SILENCE_MAX {
                let reason = format!("no answer came for {} s", SILENCE_MAX.as_secs());
                open.shut_down(ConnectionEnd::Lost(reason));
            }
        }
    }
}
