//! A listening socket: one accept task for its whole life, which feeds a queue that `poll_accept` empties.
//!
//! Dropping a pending accept of glommio leaks the descriptor that it may have accepted, so the task is never
//! dropped: `close` shuts the listening socket down, which makes the pending accept return, and the task
//! then closes the descriptor and ends.

use core::cell::{Cell, RefCell};
use core::net::SocketAddr;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};
use std::rc::Rc;

use ::glommio::TaskQueueHandle;
use ::glommio::net::TcpListener;
use ::glommio::timer::Timer;

use super::network::{Scratch, TcpConnection};
use super::{socket, system_error, tasks};
use crate::env::local::Notify;
use crate::env::network::{Connection, Listener};

/// Accepted connections that may wait for `poll_accept`; more wait in the kernel.
const QUEUE_LIMIT: usize = 128;

/// Pause after an accept that failed for lack of a resource: the kernel keeps the connection, so the next
/// try would fail at once, and the core would do nothing else.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// What the accept task and the handle share.
struct Shared {
    accepted: RefCell<VecDeque<io::Result<Rc<TcpConnection>>>>,
    acceptor: RefCell<Option<Waker>>,
    room: Notify,
    /// The listening descriptor while it is open.
    socket: Cell<Option<RawFd>>,
    closed: Cell<bool>,
}

impl Shared {
    fn push(&self, outcome: io::Result<Rc<TcpConnection>>) {
        self.accepted.borrow_mut().push_back(outcome);
        let acceptor = self.acceptor.borrow_mut().take();
        if let Some(acceptor) = acceptor {
            acceptor.wake();
        }
    }
}

/// A listening socket of one core. Dropping it closes it.
pub(super) struct TcpListening {
    shared: Rc<Shared>,
    address: SocketAddr,
}

impl TcpListening {
    /// Listens on `address`, with the accept task in `queue`.
    ///
    /// # Errors
    /// As the system reports them.
    pub(super) fn start(
        address: SocketAddr,
        queue: TaskQueueHandle,
        scratch: Rc<Scratch>,
    ) -> io::Result<TcpListening> {
        let socket = socket::listen(address)?;
        let raw = socket.as_raw_fd();
        // SAFETY: the descriptor is a listening socket, and its ownership moves into the listener.
        let listener = unsafe { TcpListener::from_raw_fd(socket.into_raw_fd()) };
        let address = listener.local_addr().map_err(system_error)?;
        let shared = Rc::new(Shared {
            accepted: RefCell::default(),
            acceptor: RefCell::default(),
            room: Notify::default(),
            socket: Cell::new(Some(raw)),
            closed: Cell::new(false),
        });
        tasks::spawn_into(queue, accept_all(listener, Rc::clone(&shared), scratch));
        Ok(TcpListening { shared, address })
    }
}

/// Accepts until the listener is closed.
async fn accept_all(listener: TcpListener, shared: Rc<Shared>, scratch: Rc<Scratch>) {
    while !shared.closed.get() {
        if shared.accepted.borrow().len() >= QUEUE_LIMIT {
            shared.room.notified().await;
            continue;
        }
        let outcome = listener.accept().await;
        if shared.closed.get() {
            break;
        }
        match outcome.map_err(system_error) {
            Ok(stream) => shared.push(TcpConnection::accepted(stream, Rc::clone(&scratch)).map(Rc::new)),
            Err(error) => {
                let of_one_connection = error.kind() == io::ErrorKind::ConnectionAborted;
                shared.push(Err(error));
                if !of_one_connection {
                    Timer::new(PAUSE_AFTER_FAILURE).await;
                }
            }
        }
    }
    shared.socket.set(None);
    drop(listener);
}

impl Listener for TcpListening {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Rc<dyn Connection>>> {
        if let Some(outcome) = self.shared.accepted.borrow_mut().pop_front() {
            self.shared.room.notify();
            return Poll::Ready(outcome.map(|connection| connection as Rc<dyn Connection>));
        }
        *self.shared.acceptor.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_address(&self) -> SocketAddr {
        self.address
    }

    fn close(&self) {
        if self.shared.closed.replace(true) {
            return;
        }
        if let Some(socket) = self.shared.socket.get() {
            socket::shutdown(socket);
        }
        self.shared.room.notify();
        self.shared.acceptor.take();
        drop(self.shared.accepted.take());
    }
}

impl Drop for TcpListening {
    fn drop(&mut self) {
        self.close();
    }
}
