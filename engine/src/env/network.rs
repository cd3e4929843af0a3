//! Stream connections. Buffers belong to the environment, which lends them for the time of one call, so
//! that an idle connection costs no buffer and rings with provided buffers fit behind the same trait.

use core::any::Any;
use core::net::SocketAddr;
use core::task::{Context, Poll};
use std::io;
use std::rc::Rc;

/// A connection on its way from one core to another: the kernel's handle without any tie to a core.
pub struct DetachedConnection(pub Box<dyn Any + Send>);

/// Sockets of one core.
pub trait Network {
    /// Makes sure that no other process listens on this address. [`Network::listen`] alone would share the
    /// port with it, as it does with the node's other cores. Call it on one core, before any core listens.
    ///
    /// # Errors
    /// `AddrInUse` when there is one; otherwise as the operating system reports them.
    fn claim(&self, address: SocketAddr) -> io::Result<()>;

    /// Starts to listen. Every core of a node may listen on the same address; the kernel spreads clients.
    ///
    /// # Errors
    /// As the operating system reports them (address in use, permission).
    fn listen(&self, address: SocketAddr) -> io::Result<Rc<dyn Listener>>;

    /// Binds a connection that another core detached to this one.
    ///
    /// # Errors
    /// When the handle can't be registered with this core.
    fn adopt(&self, connection: DetachedConnection) -> io::Result<Rc<dyn Connection>>;
}

/// A listening socket. One task polls it.
pub trait Listener {
    /// The next connection. An error concerns one connection (or a lack of descriptors); polling may go on.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Rc<dyn Connection>>>;
    /// The address it listens on, with the port that the system chose.
    fn local_address(&self) -> SocketAddr;
    /// Stops accepting; connections that wait in the kernel are reset. `poll_accept` stays pending after.
    fn close(&self);
}

/// A connected stream. One task may poll receiving and another sending; each side keeps one waker only.
pub trait Connection {
    /// Lends received bytes to `consume`, once, and returns their count; 0 when the peer has closed.
    /// All bytes lent are consumed: what the callee can't use yet, it copies.
    fn poll_recv(&self, cx: &mut Context<'_>, consume: &mut dyn FnMut(&[u8])) -> Poll<io::Result<usize>>;
    /// Sends a prefix of `bytes`, returns its length (at least 1 for non-empty bytes).
    fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
    /// The other end.
    fn peer_address(&self) -> SocketAddr;
    /// Ends both directions: pending and later polls see a closed connection. Safe to repeat.
    fn shutdown(&self);
    /// Takes the connection off this core. Later polls of this handle see a closed connection.
    ///
    /// # Errors
    /// When the handle can't be duplicated (descriptor limit); the connection stays usable here.
    fn detach(&self) -> io::Result<DetachedConnection>;
}
