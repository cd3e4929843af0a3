//! One nonblocking TCP connection, from the first address that is tried until its end.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::vec;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::session::ConnectionId;

/// How a socket moves bytes.
#[derive(Debug)]
pub(super) struct Socket {
    id: ConnectionId,
    stream: TcpStream,
    /// Addresses to try if this one can't be reached; `None` once it is.
    connecting: Option<vec::IntoIter<SocketAddr>>,
}

impl Socket {
    /// Begins to connect to the first address of a name that can be tried.
    pub(super) fn connect(id: ConnectionId, address: &str) -> io::Result<Socket> {
        let mut rest = address.to_socket_addrs()?.collect::<Vec<_>>().into_iter();
        let no_address = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let stream = begin_next(&mut rest, no_address)?;
        Ok(Socket {
            id,
            stream,
            connecting: Some(rest),
        })
    }

    pub(super) fn id(&self) -> ConnectionId {
        self.id
    }

    pub(super) fn is_connecting(&self) -> bool {
        self.connecting.is_some()
    }

    /// The socket can be written to while it is connecting: it is connected, or has failed and the next address is
    /// tried.
    pub(super) fn go_on_connecting(&mut self) -> io::Result<()> {
        let Some(rest) = &mut self.connecting else {
            return Ok(());
        };
        match sockopt::socket_error(&self.stream)? {
            Ok(()) => {
                self.stream.set_nodelay(true)?;
                self.connecting = None;
            }
            Err(error) => self.stream = begin_next(rest, error.into())?,
        }
        Ok(())
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Sends some of the bytes; 0 if there is no room.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        without_waiting(self.stream.write(bytes))?.map_or(Ok(0), |count| match count {
            0 if !bytes.is_empty() => Err(io::ErrorKind::WriteZero.into()),
            count => Ok(count),
        })
    }

    /// Receives what is there; `None` if that is nothing, an error at the end of the connection.
    pub(super) fn read(&mut self, room: &mut [u8]) -> io::Result<Option<usize>> {
        match without_waiting(self.stream.read(room))? {
            Some(0) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the server closed it",
            )),
            read => Ok(read),
        }
    }
}

fn without_waiting(moved: io::Result<usize>) -> io::Result<Option<usize>> {
    match moved {
        Ok(count) => Ok(Some(count)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Begins to connect to the next address that does not fail at once.
fn begin_next(rest: &mut vec::IntoIter<SocketAddr>, mut failure: io::Error) -> io::Result<TcpStream> {
    for address in rest {
        match begin(&address) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn begin(address: &SocketAddr) -> io::Result<TcpStream> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket: OwnedFd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, address) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}
