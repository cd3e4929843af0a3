//! The simulated network: `env`'s `Network`, and how clients of the harness connect.
//!
//! 1. A connection is two ends, each on a host. What one end sends is cut into segments of a seeded size; each
//!    segment travels by itself, with a latency of its own, and may be lost (and sent again), doubled or
//!    overtaken. The receiving end puts the stream together again (`stream`).
//! 2. A sender may have a window of bytes that the other end has not read; then it waits. That is the
//!    back-pressure of a socket buffer.
//! 3. A partition holds segments back until it ends. A connection of which a segment is held too long is reset.
//! 4. All cores of a process may listen on one address; the seed picks who gets a connection (`listener`).

mod stream;

mod handle;
mod listener;
mod transfer;

pub mod faults;

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use ostrakon::env::network::DetachedConnection;
use ostrakon::env::{Connection, Listener, Network};

use self::faults::Links;
use self::handle::{Detached, SimConnection};
use self::listener::{ListenerState, SimListener};
use self::stream::Stream;
use super::counters::FaultKind;
use super::faults::FaultAtKind;
use super::host::{HostId, ProcessId};
use super::random::SimRandom;
use super::wake::Inbox;
use super::world::World;

/// How fast the network is. Times are virtual nanoseconds.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Usual latency between two hosts.
    pub latency_ns: u64,
    /// Usual latency within a host.
    pub loopback_ns: u64,
    /// Largest segment; each connection draws its own size up to it.
    pub segment_bytes_max: u64,
    /// Smallest window; each connection draws its own.
    pub window_bytes_min: u64,
    /// Largest window.
    pub window_bytes_max: u64,
    /// First wait before a lost segment is sent again; it doubles.
    pub retransmit_ns: u64,
    /// Shortest time that a segment may be held back before its connection is reset.
    pub stuck_ns_min: u64,
    /// Longest such time.
    pub stuck_ns_max: u64,
    /// One receive in so many lends only a part of what has arrived; 0 for none.
    pub split_one_in: u64,
    /// Connections that wait at a listener.
    pub backlog: usize,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        NetworkConfig {
            latency_ns: 50_000,
            loopback_ns: 10_000,
            segment_bytes_max: 16 << 10,
            window_bytes_min: 16 << 10,
            window_bytes_max: 256 << 10,
            retransmit_ns: 20_000_000,
            stuck_ns_min: 3_000_000_000,
            stuck_ns_max: 15_000_000_000,
            split_one_in: 4,
            backlog: 128,
        }
    }
}

/// An error of the operating system.
fn os_error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

/// What is known of a segment afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentSegment {
    /// A core of a process sent it, not the operating system.
    pub is_of_core: bool,
    /// It carried bytes, not a mark.
    pub carries_data: bool,
    /// It reached the other end, which still existed.
    pub has_arrived: bool,
}

/// All connections and listeners of a world.
pub(super) struct NetworkState {
    streams: BTreeMap<u64, Stream>,
    next_stream: u64,
    listeners: BTreeMap<u64, ListenerState>,
    next_listener: u64,
    /// By host: the port that is given out next.
    next_port: BTreeMap<HostId, u16>,
    links: Links,
    /// By host: segments sent since the world began, by number.
    operations: BTreeMap<HostId, Vec<SentSegment>>,
    pub(super) at_operation: BTreeMap<(HostId, u64), FaultAtKind>,
    random: SimRandom,
    fault_random: SimRandom,
    /// Ends whose handle was dropped on the way between two cores.
    lost: Inbox<(u64, usize)>,
    /// By connection, the first fault that may have cost it bytes or its end.
    troubles: BTreeMap<u64, FaultKind>,
}

/// A connection, for questions of the harness. No number is given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionNumber(u64);

impl NetworkState {
    pub(super) fn new(seed: u64) -> NetworkState {
        NetworkState {
            streams: BTreeMap::new(),
            next_stream: 1,
            listeners: BTreeMap::new(),
            next_listener: 1,
            next_port: BTreeMap::new(),
            links: Links::default(),
            operations: BTreeMap::new(),
            at_operation: BTreeMap::new(),
            random: SimRandom::stream(seed, "network", &[]),
            fault_random: SimRandom::stream(seed, "network faults", &[]),
            lost: Inbox::default(),
            troubles: BTreeMap::new(),
        }
    }

    /// A fault has struck a connection.
    fn trouble(&mut self, stream: u64, kind: FaultKind) {
        self.troubles.entry(stream).or_insert(kind);
    }

    pub(super) fn clear(&mut self) {
        self.streams.clear();
        self.listeners.clear();
        self.links = Links::default();
    }

    /// Ports from the range for outgoing connections, in turn.
    fn pick_port(&mut self, host: HostId) -> u16 {
        let next = self.next_port.entry(host).or_insert(32_768);
        let port = *next;
        *next = if port == u16::MAX { 32_768 } else { port + 1 };
        port
    }
}

/// Sockets of one core.
pub(super) struct SimNetwork {
    pub(super) world: World,
    pub(super) host: HostId,
    pub(super) process: ProcessId,
}

impl Network for SimNetwork {
    fn claim(&self, address: SocketAddr) -> io::Result<()> {
        self.world.check_local(self.host, address)?;
        let network = self.world.0.network.borrow();
        let taken = address.port() != 0 && network.listeners_at(self.host, address).next().is_some();
        if taken {
            Err(os_error(libc::EADDRINUSE))
        } else {
            Ok(())
        }
    }

    fn listen(&self, address: SocketAddr) -> io::Result<Rc<dyn Listener>> {
        let listener = SimListener::open(&self.world, self.host, self.process, address)?;
        Ok(Rc::new(listener))
    }

    fn adopt(&self, connection: DetachedConnection) -> io::Result<Rc<dyn Connection>> {
        let detached = connection
            .0
            .downcast::<Detached>()
            .expect("a connection of this environment");
        Ok(Rc::new(SimConnection::adopted(&self.world, *detached)))
    }
}

impl World {
    /// Network operations (segments sent) of a host since the world began; the next one gets this number.
    pub fn network_operations(&self, host: HostId) -> u64 {
        self.segments(host).len() as u64
    }

    /// What is known of each segment that a host has sent, by number.
    pub fn segments(&self, host: HostId) -> Vec<SentSegment> {
        let network = self.0.network.borrow();
        network.operations.get(&host).cloned().unwrap_or_default()
    }

    /// The first fault because of which one end of a connection may not have got what the other sent, or may have
    /// seen an end that the other did not intend: a partition, a reset, a half-close, a doubled segment (whose copy a
    /// closed end answers with a reset), the end of the process of the other. `None` when there was no such fault.
    pub fn connection_trouble(&self, connection: ConnectionNumber) -> Option<FaultKind> {
        self.0.network.borrow().troubles.get(&connection.0).copied()
    }

    /// Connections that exist, counting those of which one end is closed.
    pub fn connections(&self) -> usize {
        self.0.network.borrow().streams.len()
    }

    /// Closes connections that were dropped between two cores.
    pub(super) fn absorb_lost_connections(&self) {
        let mut lost = Vec::new();
        self.0.network.borrow().lost.drain_into(&mut lost);
        for (stream, end) in lost {
            self.close_end(stream, end);
        }
    }

    /// An address that a process of this host may listen on.
    fn check_local(&self, host: HostId, address: SocketAddr) -> io::Result<()> {
        let ip = address.ip();
        if ip.is_unspecified() || ip.is_loopback() || ip == self.address(host) {
            Ok(())
        } else {
            Err(os_error(libc::EADDRNOTAVAIL))
        }
    }
}
