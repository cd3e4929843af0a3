//! TCP connections on glommio's streams, which try the system call first and poll the ring when it would
//! block.
//!
//! All connections of a core receive into one scratch buffer, so that an idle connection holds no memory.
//! Each side of a connection keeps one waker in glommio (its `add_waiter_single`) and one here, which
//! `shutdown` and `detach` wake.

use core::cell::{Cell, RefCell};
use core::net::SocketAddr;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::rc::Rc;

use ::glommio::TaskQueueHandle;
use ::glommio::net::TcpStream;
use futures_io::{AsyncRead, AsyncWrite};

use super::listener::TcpListening;
use super::socket;
use super::system_error;
use crate::env::network::{Connection, DetachedConnection, Listener, Network};

/// Size of a core's receive buffer: the most that one `poll_recv` lends.
const SCRATCH_BYTES: usize = 256 * 1024;

/// The receive buffer of a core, taken for the time of one call. A call made inside `consume` finds it
/// taken and uses a buffer of its own.
#[derive(Default)]
pub(super) struct Scratch(Cell<Vec<u8>>);

impl Scratch {
    fn take(&self) -> Vec<u8> {
        let scratch = self.0.take();
        if scratch.is_empty() {
            vec![0; SCRATCH_BYTES]
        } else {
            scratch
        }
    }

    fn put_back(&self, scratch: Vec<u8>) {
        self.0.set(scratch);
    }
}

/// Sockets of one core.
pub(super) struct TcpNetwork {
    queue: TaskQueueHandle,
    scratch: Rc<Scratch>,
}

impl TcpNetwork {
    /// Accept tasks will run in `queue`.
    pub(super) fn new(queue: TaskQueueHandle) -> TcpNetwork {
        TcpNetwork {
            queue,
            scratch: Rc::default(),
        }
    }
}

impl Network for TcpNetwork {
    fn claim(&self, address: SocketAddr) -> io::Result<()> {
        // Without SO_REUSEPORT, binding fails beside a listener of whatever kind.
        std::net::TcpListener::bind(address).map(drop)
    }

    fn listen(&self, address: SocketAddr) -> io::Result<Rc<dyn Listener>> {
        Ok(Rc::new(TcpListening::start(
            address,
            self.queue,
            Rc::clone(&self.scratch),
        )?))
    }

    fn adopt(&self, connection: DetachedConnection) -> io::Result<Rc<dyn Connection>> {
        let detached = connection
            .0
            .downcast::<DetachedTcp>()
            .expect("a connection of this environment");
        let DetachedTcp { socket, peer } = *detached;
        // SAFETY: the descriptor is an open socket, and its ownership moves into the stream.
        let stream = unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) };
        Ok(Rc::new(TcpConnection::new(
            stream,
            peer,
            Rc::clone(&self.scratch),
        )))
    }
}

/// A socket between two cores; closed when it is dropped on the way.
struct DetachedTcp {
    socket: OwnedFd,
    peer: SocketAddr,
}

/// A connection of one core.
pub(super) struct TcpConnection {
    /// `None` once the connection is detached.
    stream: RefCell<Option<TcpStream>>,
    ended: Cell<bool>,
    receiver: RefCell<Option<Waker>>,
    sender: RefCell<Option<Waker>>,
    peer: SocketAddr,
    scratch: Rc<Scratch>,
}

fn remember(slot: &RefCell<Option<Waker>>, cx: &Context<'_>) {
    let mut slot = slot.borrow_mut();
    match &*slot {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *slot = Some(cx.waker().clone()),
    }
}

impl TcpConnection {
    fn new(stream: TcpStream, peer: SocketAddr, scratch: Rc<Scratch>) -> TcpConnection {
        TcpConnection {
            stream: RefCell::new(Some(stream)),
            ended: Cell::new(false),
            receiver: RefCell::default(),
            sender: RefCell::default(),
            peer,
            scratch,
        }
    }

    /// A connection fresh from `accept`.
    ///
    /// # Errors
    /// When the peer has reset it already.
    pub(super) fn accepted(stream: TcpStream, scratch: Rc<Scratch>) -> io::Result<TcpConnection> {
        socket::close_on_exec(stream.as_raw_fd())?;
        stream.set_nodelay(true).map_err(system_error)?;
        let peer = stream.peer_addr().map_err(system_error)?;
        Ok(TcpConnection::new(stream, peer, scratch))
    }

    fn wake_both(&self) {
        for side in [&self.receiver, &self.sender] {
            let waker = side.borrow_mut().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl Connection for TcpConnection {
    fn poll_recv(&self, cx: &mut Context<'_>, consume: &mut dyn FnMut(&[u8])) -> Poll<io::Result<usize>> {
        if self.ended.get() {
            return Poll::Ready(Ok(0));
        }
        let mut scratch = self.scratch.take();
        // The borrow ends here, so that `consume` may shut the connection down.
        let received = match &mut *self.stream.borrow_mut() {
            Some(stream) => Pin::new(stream).poll_read(cx, &mut scratch),
            None => Poll::Ready(Ok(0)),
        };
        match received {
            Poll::Ready(Ok(received_bytes)) if received_bytes > 0 => consume(&scratch[..received_bytes]),
            Poll::Ready(_) => {}
            Poll::Pending => remember(&self.receiver, cx),
        }
        self.scratch.put_back(scratch);
        received
    }

    fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let sent = match &mut *self.stream.borrow_mut() {
            Some(stream) if !self.ended.get() => Pin::new(stream).poll_write(cx, bytes),
            _ => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        };
        if sent.is_pending() {
            remember(&self.sender, cx);
        }
        sent
    }

    fn peer_address(&self) -> SocketAddr {
        self.peer
    }

    fn shutdown(&self) {
        if self.ended.replace(true) {
            return;
        }
        if let Some(stream) = &*self.stream.borrow() {
            socket::shutdown(stream.as_raw_fd());
        }
        self.wake_both();
    }

    fn detach(&self) -> io::Result<DetachedConnection> {
        let socket = match &*self.stream.borrow() {
            Some(stream) if !self.ended.get() => socket::duplicate(stream.as_raw_fd())?,
            _ => return Err(io::ErrorKind::NotConnected.into()),
        };
        self.ended.set(true);
        drop(self.stream.take());
        self.wake_both();
        Ok(DetachedConnection(Box::new(DetachedTcp {
            socket,
            peer: self.peer,
        })))
    }
}

impl Drop for TcpConnection {
    /// The peer learns at once: closing the descriptor alone would wait for the ring to drop its poll.
    fn drop(&mut self) {
        self.shutdown();
    }
}
