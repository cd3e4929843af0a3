//! One connection of the load: a socket that never blocks, and what is spoken over it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use super::conversation::Conversation;

/// How long a handshake may take; a server under valgrind needs a while.
const HANDSHAKE_WITHIN: Duration = Duration::from_mins(1);

/// Number of a connection of one load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConnectionId(pub(super) usize);

/// A connection.
pub(super) struct Socket<C> {
    stream: TcpStream,
    pub(super) conversation: C,
    /// By slot of the request: when it was put into the buffer.
    pub(super) sent_at: Vec<Instant>,
    /// Does the kernel tell us when there is room to write?
    pub(super) awaits_room: bool,
}

impl<C: Conversation> Socket<C> {
    /// Connects and shakes hands.
    pub(super) fn open(address: &str, conversation: C, pipeline: usize) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("cannot connect to {address}: {error}");
        let stream = TcpStream::connect(address).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(HANDSHAKE_WITHIN)).map_err(failed)?;
        let sent_at = vec![Instant::now(); pipeline];
        let mut socket = Self {
            stream,
            conversation,
            sent_at,
            awaits_room: false,
        };
        socket.write()?;
        let start = Instant::now();
        while !socket.conversation.is_ready() {
            socket.read()?;
            if start.elapsed() >= HANDSHAKE_WITHIN {
                return Err(format!(
                    "{address} did not shake hands within {} s",
                    HANDSHAKE_WITHIN.as_secs()
                ));
            }
            if socket.conversation.next_answer()?.is_some() {
                return Err(format!("{address} answered before it was asked anything"));
            }
        }
        socket.stream.set_nonblocking(true).map_err(failed)?;
        Ok(socket)
    }

    /// Reads once; nothing there is no error.
    pub(super) fn read(&mut self) -> Result<(), String> {
        match self.stream.read(self.conversation.receive_room()) {
            Ok(0) => Err("the server has closed a connection".to_owned()),
            Ok(count) => {
                self.conversation.received(count);
                Ok(())
            }
            Err(error) if would_do_again(&error) => Ok(()),
            Err(error) => Err(format!("a connection was lost: {error}")),
        }
    }

    /// Writes what there is, as far as there is room.
    pub(super) fn write(&mut self) -> Result<(), String> {
        while !self.conversation.bytes_to_send().is_empty() {
            match self.stream.write(self.conversation.bytes_to_send()) {
                Ok(count) => self.conversation.sent(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("a connection was lost: {error}")),
            }
        }
        Ok(())
    }

    /// Is there still something to write?
    pub(super) fn has_unsent(&self) -> bool {
        !self.conversation.bytes_to_send().is_empty()
    }
}

impl<C> AsRawFd for Socket<C> {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

fn would_do_again(error: &std::io::Error) -> bool {
    // A socket that blocks, as in the handshake, says `WouldBlock` at its timeout.
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
