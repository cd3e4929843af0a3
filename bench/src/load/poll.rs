//! Waits for any of many sockets, by epoll.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::conversation::Conversation;
use super::socket::{ConnectionId, Socket};

/// Events of one call.
const EVENTS_MAX: usize = 64;
/// After so many milliseconds without an event the caller may look at signals and deadlines.
const WAIT_MS: libc::c_int = 100;

/// An epoll instance.
pub(super) struct Poll {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Poll {
    /// One without sockets.
    pub(super) fn new() -> Result<Self, String> {
        // SAFETY: a system call without pointers.
        let number = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if number < 0 {
            return Err(last_error("cannot make an epoll instance"));
        }
        // SAFETY: the descriptor was made just now, and nobody else has it.
        let epoll = unsafe { OwnedFd::from_raw_fd(number) };
        Ok(Self {
            epoll,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX],
        })
    }

    /// Watches a socket for answers.
    pub(super) fn add<C>(&mut self, socket: &Socket<C>, id: ConnectionId) -> Result<(), String> {
        self.control(libc::EPOLL_CTL_ADD, socket, id, libc::EPOLLIN)
    }

    /// Writes what the socket has; what finds no room is written when there is some.
    pub(super) fn flush<C: Conversation>(
        &mut self,
        socket: &mut Socket<C>,
        id: ConnectionId,
    ) -> Result<(), String> {
        socket.write()?;
        let awaits_room = socket.has_unsent();
        if awaits_room == socket.awaits_room {
            return Ok(());
        }
        socket.awaits_room = awaits_room;
        let interest = if awaits_room {
            libc::EPOLLIN | libc::EPOLLOUT
        } else {
            libc::EPOLLIN
        };
        self.control(libc::EPOLL_CTL_MOD, socket, id, interest)
    }

    /// The connections that have something to read, or room to write; none when nothing happened for a
    /// while.
    pub(super) fn wait(&mut self, ready: &mut Vec<ConnectionId>) -> Result<(), String> {
        ready.clear();
        let events = self.events.as_mut_ptr();
        // SAFETY: the buffer has room for as many events as is said, and lives through the call.
        let count =
            unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events, EVENTS_MAX as libc::c_int, WAIT_MS) };
        if count < 0 {
            let error = std::io::Error::last_os_error();
            let was_signal = error.kind() == std::io::ErrorKind::Interrupted;
            return if was_signal {
                Ok(())
            } else {
                Err(format!("cannot wait for answers: {error}"))
            };
        }
        ready.extend(
            self.events[..count as usize]
                .iter()
                .map(|event| ConnectionId(event.u64 as usize)),
        );
        Ok(())
    }

    fn control<C>(
        &self,
        action: libc::c_int,
        socket: &Socket<C>,
        id: ConnectionId,
        interest: libc::c_int,
    ) -> Result<(), String> {
        let mut event = libc::epoll_event {
            events: interest as u32,
            u64: id.0 as u64,
        };
        // SAFETY: the event lives through the call; both descriptors are open.
        let result =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), action, socket.as_raw_fd(), &raw mut event) };
        if result == 0 {
            Ok(())
        } else {
            Err(last_error("cannot watch a socket"))
        }
    }
}

fn last_error(what: &str) -> String {
    format!("{what}: {}", std::io::Error::last_os_error())
}
