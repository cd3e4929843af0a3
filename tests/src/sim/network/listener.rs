//! Listening, accepting and connecting.
//!
//! A connect is a request that travels to the other host, where one of the listeners on its address is picked
//! by the seed, and an answer that travels back. Each is sent again while a partition holds it, until the
//! caller's patience ends.

use core::cell::{Cell, RefCell};
use core::net::SocketAddr;
use core::task::{Context, Poll, Waker};
use std::collections::VecDeque;
use std::io;
use std::rc::{Rc, Weak};

use ostrakon::env::{Connection, Listener};

use super::handle::SimConnection;
use super::stream::{End, Payload, Stream};
use super::{ConnectionNumber, NetworkState, os_error};
use crate::sim::host::{HostId, ProcessId};
use crate::sim::trace::TraceKind;
use crate::sim::world::World;

/// How long a connect is tried, in virtual nanoseconds.
const CONNECT_PATIENCE_NS: u64 = 10_000_000_000;

/// Pause before a connect is sent again, in virtual nanoseconds.
const CONNECT_AGAIN_NS: u64 = 200_000_000;

/// What the network knows of a listener.
pub(super) struct ListenerState {
    host: HostId,
    pub(super) process: ProcessId,
    address: SocketAddr,
    /// Streams whose second end nobody has taken.
    waiting: VecDeque<u64>,
    acceptor: Option<Waker>,
}

impl NetworkState {
    /// Listeners on a host that a connection to this address may reach, or that stand in its way.
    pub(super) fn listeners_at(&self, host: HostId, address: SocketAddr) -> impl Iterator<Item = u64> {
        let reaches = move |listener: &ListenerState| {
            let (asked, own) = (address.ip(), listener.address.ip());
            listener.host == host
                && listener.address.port() == address.port()
                && (own.is_unspecified() || asked.is_unspecified() || own == asked)
        };
        let found = self
            .listeners
            .iter()
            .filter(move |(_, listener)| reaches(listener));
        found.map(|(id, _)| *id)
    }
}

/// A listening socket of one core. Dropping it closes it.
pub(super) struct SimListener {
    world: World,
    id: u64,
    address: SocketAddr,
    is_closed: Cell<bool>,
}

impl SimListener {
    pub(super) fn open(
        world: &World,
        host: HostId,
        process: ProcessId,
        mut address: SocketAddr,
    ) -> io::Result<SimListener> {
        world.check_local(host, address)?;
        let network = &mut *world.0.network.borrow_mut();
        while address.port() == 0 {
            let port = network.pick_port(host);
            let candidate = SocketAddr::new(address.ip(), port);
            if network.listeners_at(host, candidate).next().is_none() {
                address = candidate;
            }
        }
        let foreign = |id: u64| network.listeners[&id].process != process;
        if network.listeners_at(host, address).any(foreign) {
            return Err(os_error(libc::EADDRINUSE));
        }
        let id = network.next_listener;
        network.next_listener += 1;
        network.listeners.insert(
            id,
            ListenerState {
                host,
                process,
                address,
                waiting: VecDeque::new(),
                acceptor: None,
            },
        );
        Ok(SimListener {
            world: world.clone(),
            id,
            address,
            is_closed: Cell::new(false),
        })
    }
}

impl Listener for SimListener {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Rc<dyn Connection>>> {
        let network = &mut *self.world.0.network.borrow_mut();
        // Closed, or the process is no more.
        let Some(listener) = network.listeners.get_mut(&self.id) else {
            return Poll::Pending;
        };
        while let Some(stream) = listener.waiting.pop_front() {
            if let Some(found) = network.streams.get(&stream) {
                let peer = found.ends[0].address;
                return Poll::Ready(Ok(Rc::new(SimConnection::new(&self.world, stream, 1, peer))));
            }
        }
        listener.acceptor = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_address(&self) -> SocketAddr {
        self.address
    }

    fn close(&self) {
        if self.is_closed.replace(true) {
            return;
        }
        let network = &mut *self.world.0.network.borrow_mut();
        let Some(listener) = network.listeners.remove(&self.id) else {
            return;
        };
        for stream in listener.waiting {
            if let Some(found) = network.streams.get_mut(&stream) {
                found.ends[1].is_closed = true;
                if found.is_over() {
                    network.streams.remove(&stream);
                } else {
                    self.world.transmit(network, stream, 1, 0, Payload::Reset);
                }
            }
        }
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.close();
    }
}

type Outcome = io::Result<(ConnectionNumber, Rc<dyn Connection>)>;

/// Where the outcome of a connect waits for its task.
#[derive(Default)]
struct ConnectSlot {
    outcome: RefCell<Option<Outcome>>,
    waiter: RefCell<Option<Waker>>,
}

impl ConnectSlot {
    fn fill(&self, outcome: Outcome) {
        *self.outcome.borrow_mut() = Some(outcome);
        self.waiter.take().into_iter().for_each(Waker::wake);
    }
}

/// A connect under way.
#[derive(Clone)]
struct Connecting {
    slot: Weak<ConnectSlot>,
    from: HostId,
    process: ProcessId,
    to: SocketAddr,
    target: HostId,
    give_up_ns: u64,
}

impl World {
    /// Connects from a host, as its client process, to an address. Dropping the future gives the attempt up.
    ///
    /// # Errors
    /// `ConnectionRefused` when nobody listens there, `TimedOut` when no answer comes, `HostUnreachable` when no
    /// host has the address.
    pub fn connect(
        &self,
        from: HostId,
        to: SocketAddr,
    ) -> impl Future<Output = io::Result<Rc<dyn Connection>>> + use<> {
        let connecting = self.connect_numbered(from, to);
        async move { connecting.await.map(|(_, connection)| connection) }
    }

    /// The same, with the number by which the harness can ask for what befell the connection.
    ///
    /// # Errors
    /// As [`World::connect`].
    pub fn connect_numbered(&self, from: HostId, to: SocketAddr) -> impl Future<Output = Outcome> + use<> {
        let world = self.clone();
        async move {
            let target = if to.ip().is_loopback() {
                Some(from)
            } else {
                world.0.hosts.borrow().by_address(to.ip())
            };
            let Some(target) = target else {
                return Err(os_error(libc::EHOSTUNREACH));
            };
            let slot = Rc::new(ConnectSlot::default());
            let connecting = Connecting {
                slot: Rc::downgrade(&slot),
                from,
                process: world.client_process(from),
                to,
                target,
                give_up_ns: world.now_ns() + CONNECT_PATIENCE_NS,
            };
            world.send_connect(connecting);
            core::future::poll_fn(|cx| {
                if let Some(outcome) = slot.outcome.borrow_mut().take() {
                    return Poll::Ready(outcome);
                }
                *slot.waiter.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            })
            .await
        }
    }

    fn send_connect(&self, connecting: Connecting) {
        let hosts = (connecting.from, connecting.target);
        let journey = self.0.network.borrow_mut().journey(self, hosts);
        self.at(self.now_ns() + journey.latency_ns, move |world| {
            world.connect_arrives(connecting);
        });
    }

    /// True when a request or an answer got through; it is asked for again otherwise.
    fn gets_through(&self, hosts: (HostId, HostId)) -> bool {
        let blocked = self.0.network.borrow().links.blocks(hosts, self.now_ns());
        if let Some((kind, place)) = blocked {
            self.count(kind);
            self.strike(place);
        }
        blocked.is_none()
    }

    fn connect_again(&self, connecting: Connecting) {
        if self.now_ns() >= connecting.give_up_ns {
            if let Some(slot) = connecting.slot.upgrade() {
                slot.fill(Err(os_error(libc::ETIMEDOUT)));
            }
            return;
        }
        self.at(self.now_ns() + CONNECT_AGAIN_NS, move |world| {
            world.send_connect(connecting);
        });
    }

    fn connect_arrives(&self, connecting: Connecting) {
        if !self.gets_through((connecting.from, connecting.target)) {
            return self.connect_again(connecting);
        }
        let opened = {
            let network = &mut *self.0.network.borrow_mut();
            self.open_stream(network, &connecting)
        };
        let journey = self
            .0
            .network
            .borrow_mut()
            .journey(self, (connecting.target, connecting.from));
        self.at(self.now_ns() + journey.latency_ns, move |world| {
            world.connect_answered(connecting, opened);
        });
    }

    /// Makes the stream and puts it into a listener's queue; `None` when nobody listens.
    fn open_stream(&self, network: &mut NetworkState, connecting: &Connecting) -> Option<u64> {
        let config = &self.0.config.network;
        let listeners: Vec<u64> = network
            .listeners_at(connecting.target, connecting.to)
            .filter(|id| network.listeners[id].waiting.len() < config.backlog)
            .collect();
        if listeners.is_empty() {
            return None;
        }
        let listener = listeners[network.random.index(listeners.len())];
        let port = network.pick_port(connecting.from);
        let own_ip = if connecting.to.ip().is_loopback() {
            connecting.to.ip()
        } else {
            self.address(connecting.from)
        };
        let near = End::new(connecting.from, connecting.process, SocketAddr::new(own_ip, port));
        let state = network.listeners.get_mut(&listener).expect("picked above");
        let far = End::new(connecting.target, state.process, connecting.to);
        let id = network.next_stream;
        network.next_stream += 1;
        state.waiting.push_back(id);
        state.acceptor.take().into_iter().for_each(Waker::wake);
        // Small segments seldom, so that most runs are fast and some cut every frame.
        let largest = if network.random.one_in(4) {
            512.min(config.segment_bytes_max)
        } else {
            config.segment_bytes_max
        };
        let segment_bytes = network.random.between(largest / 4 + 1, largest) as usize;
        let window_bytes = network
            .random
            .between(config.window_bytes_min, config.window_bytes_max);
        let stuck_ns = network.random.between(config.stuck_ns_min, config.stuck_ns_max);
        let stream = Stream::new([near, far], segment_bytes, window_bytes, stuck_ns);
        network.streams.insert(id, stream);
        self.trace(
            connecting.target,
            TraceKind::Network {
                name: "connect",
                stream: id,
                offset: listener,
                len_bytes: 0,
            },
        );
        Some(id)
    }

    fn connect_answered(&self, connecting: Connecting, opened: Option<u64>) {
        if !self.gets_through((connecting.target, connecting.from)) {
            if self.now_ns() >= connecting.give_up_ns {
                if let Some(stream) = opened {
                    self.close_end(stream, 0);
                }
                return self.connect_again(connecting);
            }
            let again = move |world: &World| world.connect_answered(connecting, opened);
            return self.at(self.now_ns() + CONNECT_AGAIN_NS, again);
        }
        match (connecting.slot.upgrade(), opened) {
            (Some(slot), Some(stream)) => {
                let connection: Rc<dyn Connection> =
                    Rc::new(SimConnection::new(self, stream, 0, connecting.to));
                slot.fill(Ok((ConnectionNumber(stream), connection)));
            }
            (Some(slot), None) => slot.fill(Err(os_error(libc::ECONNREFUSED))),
            // Nobody waits any more.
            (None, Some(stream)) => self.close_end(stream, 0),
            (None, None) => {}
        }
    }
}
