//! A connection as its owner holds it: receiving, sending, ending, moving to another core.

use core::cell::Cell;
use core::net::SocketAddr;
use core::task::{Context, Poll, Waker};
use std::io;

use ostrakon::env::Connection;
use ostrakon::env::network::DetachedConnection;

use super::os_error;
use super::stream::{Chunk, Payload};
use crate::sim::wake::Inbox;
use crate::sim::world::World;

/// The most bytes that one receive lends.
const LEND_BYTES: usize = 256 << 10;

/// One end of a connection. Dropping it closes the end.
pub(super) struct SimConnection {
    world: World,
    stream: u64,
    end: usize,
    peer: SocketAddr,
    is_detached: Cell<bool>,
}

/// A connection between two cores. Dropped on the way, it is closed by the world's next step: it may be
/// dropped where the world can't be reached.
pub(super) struct Detached {
    stream: u64,
    end: usize,
    peer: SocketAddr,
    lost: Option<Inbox<(u64, usize)>>,
}

impl Drop for Detached {
    fn drop(&mut self) {
        if let Some(lost) = &self.lost {
            lost.push((self.stream, self.end));
        }
    }
}

fn remember(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *slot = Some(cx.waker().clone()),
    }
}

impl SimConnection {
    pub(super) fn new(world: &World, stream: u64, end: usize, peer: SocketAddr) -> SimConnection {
        SimConnection {
            world: world.clone(),
            stream,
            end,
            peer,
            is_detached: Cell::new(false),
        }
    }

    pub(super) fn adopted(world: &World, mut detached: Detached) -> SimConnection {
        detached.lost = None;
        SimConnection::new(world, detached.stream, detached.end, detached.peer)
    }

    /// Takes what one receive lends.
    fn take(&self, cx: &Context<'_>) -> Poll<io::Result<Vec<Chunk>>> {
        let network = &mut *self.world.0.network.borrow_mut();
        let Some(stream) = network.streams.get_mut(&self.stream) else {
            return Poll::Ready(Ok(Vec::new()));
        };
        let window_bytes = stream.window_bytes;
        let end = &mut stream.ends[self.end];
        if self.is_detached.get() || end.is_closed {
            return Poll::Ready(Ok(Vec::new()));
        }
        let ready_bytes = end.ready_bytes();
        if ready_bytes > 0 {
            let splits = network.random.one_in(self.world.0.config.network.split_one_in);
            let limit = if splits {
                network.random.between(1, ready_bytes as u64) as usize
            } else {
                LEND_BYTES
            };
            let taken = end.take_ready(limit);
            // The other end hears of it before it could run out of room for long.
            if (end.read - end.told) * 4 >= window_bytes {
                end.told = end.read;
                let offset = end.read;
                self.world
                    .transmit(network, self.stream, self.end, offset, Payload::Read);
            }
            return Poll::Ready(Ok(taken));
        }
        if end.is_reset {
            return Poll::Ready(Err(os_error(libc::ECONNRESET)));
        }
        if end.has_all {
            return Poll::Ready(Ok(Vec::new()));
        }
        remember(&mut end.receiver, cx);
        Poll::Pending
    }
}

impl Connection for SimConnection {
    fn poll_recv(&self, cx: &mut Context<'_>, consume: &mut dyn FnMut(&[u8])) -> Poll<io::Result<usize>> {
        // Taken out, so that `consume` may use the network.
        let taken = match self.take(cx) {
            Poll::Ready(Ok(taken)) => taken,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        };
        let bytes: usize = taken.iter().map(Chunk::len).sum();
        match &taken[..] {
            [] => {}
            [one] => consume(one.bytes()),
            many => consume(&many.iter().flat_map(Chunk::bytes).copied().collect::<Vec<u8>>()),
        }
        Poll::Ready(Ok(bytes))
    }

    fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let network = &mut *self.world.0.network.borrow_mut();
        let Some(stream) = network.streams.get_mut(&self.stream) else {
            return Poll::Ready(Err(os_error(libc::EPIPE)));
        };
        let room = stream.room(self.end) as usize;
        let segment_bytes = stream.segment_bytes;
        let end = &mut stream.ends[self.end];
        if self.is_detached.get() || end.is_closed || end.is_end_sent {
            return Poll::Ready(Err(os_error(libc::EPIPE)));
        }
        if end.is_reset {
            return Poll::Ready(Err(os_error(libc::ECONNRESET)));
        }
        if room == 0 {
            remember(&mut end.sender, cx);
            return Poll::Pending;
        }
        let mut count = bytes.len().min(room);
        if network.random.one_in(self.world.0.config.network.split_one_in) {
            count = network.random.between(1, count as u64) as usize;
        }
        let offset = end.sent;
        end.sent += count as u64;
        for (place, part) in bytes[..count].chunks(segment_bytes).enumerate() {
            let offset = offset + (place * segment_bytes) as u64;
            self.world.transmit(
                network,
                self.stream,
                self.end,
                offset,
                Payload::Data(Chunk::new(part)),
            );
        }
        Poll::Ready(Ok(count))
    }

    fn peer_address(&self) -> SocketAddr {
        self.peer
    }

    fn shutdown(&self) {
        if !self.is_detached.get() {
            self.world.close_end(self.stream, self.end);
        }
    }

    fn detach(&self) -> io::Result<DetachedConnection> {
        let mut network = self.world.0.network.borrow_mut();
        let lost = network.lost.clone();
        match network.streams.get_mut(&self.stream) {
            Some(stream) if !self.is_detached.get() && !stream.ends[self.end].is_closed => {
                self.is_detached.set(true);
                stream.ends[self.end].wake_both();
            }
            _ => return Err(os_error(libc::ENOTCONN)),
        }
        Ok(DetachedConnection(Box::new(Detached {
            stream: self.stream,
            end: self.end,
            peer: self.peer,
            lost: Some(lost),
        })))
    }
}

impl Drop for SimConnection {
    fn drop(&mut self) {
        self.shutdown();
    }
}
