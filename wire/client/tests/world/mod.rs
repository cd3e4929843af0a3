//! A session, a model of a node, and the network between them, in virtual time and from one seed.
//!
//! Each direction of a connection is a stream with delays; connections break with anything under way, or fall silent.
//! What was sent before a connection broke may still be executed long after: that is what makes late copies.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;

use ostrakon_client::{
    CallId, CallOptions, ClusterId, ConnectionId, Duty, Error, ErrorCode, Options, Request, Response, Session,
};
use ostrakon_wire::frame;
use ostrakon_wire::limits::BODY_BYTES_MAX;
use ostrakon_wire::message::Kind;

use crate::common::response_frame;
use crate::model::{Model, Reply};

pub(crate) const MS: u64 = 1_000_000;

/// Where the node's clock stands when the session's shows 0, in microseconds.
const CLOCK_US: u64 = 1_000_000_000_000;

/// What may go wrong, each in percent of the occasions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// A request is refused as busy.
    pub(crate) busy: u64,
    /// A request is refused because the node goes down.
    pub(crate) drains: u64,
    /// A piece of the stream of requests is the last that arrives, and the connection breaks.
    pub(crate) breaks: u64,
    /// A connection delivers nothing more to the client, and does not break.
    pub(crate) falls_silent: u64,
    /// The node refuses a connection.
    pub(crate) refuses: u64,
    /// What is under way on a broken connection arrives all the same, up to two seconds later.
    pub(crate) arrives_late: u64,
}

#[derive(Debug)]
enum Event {
    Connected(ConnectionId),
    Refused(ConnectionId),
    ToNode(ConnectionId, Vec<u8>),
    Answer(ConnectionId, u64, Reply),
    ToClient(ConnectionId, Vec<u8>),
    Lost(ConnectionId),
    Down,
    Up(u16),
}

#[derive(Debug)]
struct Link {
    core: Option<u16>,
    received: Vec<u8>,
    /// When the last piece that was sent arrives, in each direction.
    to_node_ns: u64,
    to_client_ns: u64,
    is_silent: bool,
    /// When what is under way to the node on a broken connection arrives all the same.
    late_ns: Option<u64>,
    /// The node has it open.
    is_served: bool,
    /// The session has it open.
    is_open: bool,
}

pub(crate) struct World {
    pub(crate) session: Session,
    pub(crate) model: Model,
    pub(crate) weather: Weather,
    pub(crate) now_ns: u64,
    random: u64,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    contents: BTreeMap<u64, Event>,
    events_made: u64,
    links: BTreeMap<ConnectionId, Link>,
    is_down: bool,
    /// The node refuses hellos to another cluster, as it should.
    pub(crate) names_clusters: bool,
    /// What the next hellos are refused with, the last first.
    pub(crate) hello_refusals: Vec<(ErrorCode, u32)>,
    /// How each call ended, and when.
    pub(crate) finished: BTreeMap<CallId, (Result<(), Error>, u64)>,
    /// When connections were asked for, and where.
    pub(crate) connects: Vec<(u64, usize)>,
    /// The kind of each request that came to the node, its request id, and when it came.
    pub(crate) arrived: Vec<(Kind, u64, u64)>,
}

impl World {
    pub(crate) fn new(cores: u16, options: &Options, weather: Weather, seed: u64) -> World {
        let addresses = vec!["first:1".to_owned(), "second:2".to_owned()];
        World::with_addresses(cores, options, addresses, weather, seed)
    }

    pub(crate) fn with_addresses(
        cores: u16,
        options: &Options,
        addresses: Vec<String>,
        weather: Weather,
        seed: u64,
    ) -> World {
        World {
            session: Session::new(options, addresses, 0xABCD_0000_0000_0000_0077, seed)
                .expect("good options"),
            model: Model::new(cores),
            weather,
            now_ns: 0,
            random: seed ^ 0x5555_1234,
            events: BinaryHeap::new(),
            contents: BTreeMap::new(),
            events_made: 0,
            links: BTreeMap::new(),
            is_down: false,
            names_clusters: true,
            hello_refusals: Vec::new(),
            finished: BTreeMap::new(),
            connects: Vec::new(),
            arrived: Vec::new(),
        }
    }

    pub(crate) fn random(&mut self, bound: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.random >> 33) % bound
    }

    fn happens(&mut self, percent: u64) -> bool {
        self.random(100) < percent
    }

    /// The node goes away for a while, and comes back with another number of cores.
    pub(crate) fn restart(&mut self, at_ns: u64, down_ns: u64, cores: u16) {
        self.at(at_ns, Event::Down);
        self.at(at_ns + down_ns, Event::Up(cores));
    }

    pub(crate) fn submit(&mut self, request: &Request<'_>, timeout_ms: u64) -> CallId {
        let options = CallOptions {
            timeout_ms,
            timings: false,
        };
        let call = self.session.submit(self.now_ns, request, options).expect("room");
        self.turn();
        call
    }

    /// Lets time pass until then, and all happen that happens before.
    pub(crate) fn run_until(&mut self, end_ns: u64) {
        loop {
            self.turn();
            let event_ns = self.events.peek().map(|Reverse((at_ns, _))| *at_ns);
            let timeout_ns = self.session.next_timeout_ns();
            let next_ns = event_ns.into_iter().chain(timeout_ns).min().unwrap_or(u64::MAX);
            if next_ns > end_ns {
                self.now_ns = end_ns;
                return;
            }
            self.now_ns = self.now_ns.max(next_ns);
            if timeout_ns == Some(next_ns) {
                self.session.tick(self.now_ns);
            }
            if event_ns == Some(next_ns) {
                let Reverse((_, number)) = self.events.pop().expect("seen above");
                let event = self.contents.remove(&number).expect("kept with its time");
                self.happen(event);
            }
        }
    }

    /// A call that has ended; panics if it hasn't.
    pub(crate) fn ended(&self, call: CallId) -> Result<(), Error> {
        self.finished.get(&call).expect("the call has ended").0.clone()
    }

    /// What a driver does after each event.
    fn turn(&mut self) {
        loop {
            self.take_finished();
            let Some(duty) = self.session.next_duty() else {
                break;
            };
            match duty {
                Duty::Connect { connection, address } => self.connect(connection, address),
                Duty::Close { connection } => {
                    self.links.get_mut(&connection).expect("it was asked for").is_open = false;
                    self.break_link(connection);
                }
            }
        }
        let open: Vec<ConnectionId> = self
            .links
            .iter()
            .filter(|(_, link)| link.is_open)
            .map(|(id, _)| *id)
            .collect();
        for id in open {
            let bytes = self.session.bytes_to_send(id).to_vec();
            if bytes.is_empty() {
                continue;
            }
            // A part is taken, as a socket does; the rest with a later turn.
            let count = 1 + self.random(bytes.len() as u64) as usize;
            let count = if self.happens(50) { bytes.len() } else { count };
            self.session.sent(self.now_ns, id, count);
            let delay_ns = MS / 10 + self.random(MS);
            let link = self.links.get_mut(&id).expect("it is open");
            link.to_node_ns = link.to_node_ns.max(self.now_ns + delay_ns);
            let at_ns = link.to_node_ns;
            self.at(at_ns, Event::ToNode(id, bytes[..count].to_vec()));
            if count < bytes.len() {
                return self.turn();
            }
        }
        self.take_finished();
    }

    fn take_finished(&mut self) {
        while let Some(finished) = self.session.next_finished(self.now_ns) {
            assert!(!matches!(
                finished.result,
                Ok(Response::Error(_) | Response::Hello(_))
            ));
            let result = finished.result.map(|_| ());
            let earlier = self.finished.insert(finished.call, (result, self.now_ns));
            assert!(earlier.is_none(), "a call has ended twice");
        }
    }

    fn connect(&mut self, id: ConnectionId, address: usize) {
        self.connects.push((self.now_ns, address));
        let delay_ns = 1 + self.random(MS);
        let link = Link {
            core: None,
            received: Vec::new(),
            to_node_ns: 0,
            to_client_ns: 0,
            is_silent: false,
            late_ns: None,
            is_served: false,
            is_open: false,
        };
        self.links.insert(id, link);
        let is_refused = self.happens(self.weather.refuses);
        let event = if is_refused {
            Event::Refused(id)
        } else {
            Event::Connected(id)
        };
        self.at(self.now_ns + delay_ns, event);
    }

    fn at(&mut self, at_ns: u64, event: Event) {
        self.events_made += 1;
        self.contents.insert(self.events_made, event);
        self.events.push(Reverse((at_ns, self.events_made)));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Refused(id) => self.refuse(id),
            Event::Connected(id) if self.is_down => self.refuse(id),
            Event::Connected(id) => {
                let link = self.links.get_mut(&id).expect("it was asked for");
                (link.is_served, link.is_open) = (true, true);
                self.session.connected(self.now_ns, id);
            }
            Event::ToNode(id, bytes) => self.arrive(id, &bytes),
            Event::Answer(id, request_id, reply) => self.answer(id, request_id, &reply),
            Event::ToClient(id, bytes) => {
                if self.links[&id].is_open && !self.links[&id].is_silent {
                    let room = self.session.receive_room(id);
                    if !room.is_empty() {
                        room[..bytes.len()].copy_from_slice(&bytes);
                        self.session.received(self.now_ns, id, bytes.len());
                    }
                }
            }
            Event::Lost(id) => {
                if std::mem::replace(&mut self.links.get_mut(&id).expect("it was made").is_open, false) {
                    self.session
                        .lost(self.now_ns, id, io::ErrorKind::ConnectionReset.into());
                }
            }
            Event::Down => {
                self.is_down = true;
                let served: Vec<ConnectionId> = self
                    .links
                    .iter()
                    .filter(|(_, link)| link.is_served)
                    .map(|(id, _)| *id)
                    .collect();
                for id in served {
                    self.break_link(id);
                }
                // Nothing arrives at a process that is no more.
                self.links.values_mut().for_each(|link| link.late_ns = None);
            }
            Event::Up(cores) => {
                self.is_down = false;
                self.model.cores = cores;
            }
        }
    }

    fn refuse(&mut self, id: ConnectionId) {
        self.session
            .connect_failed(self.now_ns, id, io::ErrorKind::ConnectionRefused.into());
    }

    /// The connection breaks: the client hears of it soon.
    fn break_link(&mut self, id: ConnectionId) {
        let late_ns = self.now_ns + self.random(2_000 * MS);
        let is_late = self.happens(self.weather.arrives_late);
        let link = self.links.get_mut(&id).expect("it was made");
        if std::mem::replace(&mut link.is_served, false) && is_late {
            link.late_ns = Some(late_ns);
        }
        let at_ns = link.to_client_ns.max(self.now_ns) + 1;
        self.at(at_ns, Event::Lost(id));
    }

    fn arrive(&mut self, id: ConnectionId, bytes: &[u8]) {
        let link = self.links.get_mut(&id).expect("it was made");
        let was_served = link.is_served;
        if !was_served {
            match link.late_ns {
                None => return,
                Some(late_ns) if late_ns > self.now_ns => {
                    return self.at(late_ns, Event::ToNode(id, bytes.to_vec()));
                }
                Some(_) => {}
            }
        }
        let mut received = std::mem::take(&mut link.received);
        received.extend_from_slice(bytes);
        let mut taken = 0;
        while let Some((header, body)) =
            frame::decode(&received[taken..], BODY_BYTES_MAX).expect("good frames")
        {
            taken += header.frame_bytes();
            self.request(id, header.kind, header.request_id, body);
        }
        received.drain(..taken);
        self.links.get_mut(&id).expect("it was made").received = received;
        if was_served && self.happens(self.weather.breaks) {
            self.break_link(id);
        } else if self.happens(self.weather.falls_silent) {
            self.links.get_mut(&id).expect("it was made").is_silent = true;
        }
    }

    fn request(&mut self, id: ConnectionId, kind: u16, request_id: u64, body: &[u8]) {
        let request = Request::decode(kind, body).expect("a good request");
        if let Request::Hello(hello) = request {
            let cores = self.model.cores;
            let core = hello.core.unwrap_or(self.random(u64::from(cores)) as u16);
            let is_of_cluster = [ClusterId::ANY, self.model.cluster_id].contains(&hello.cluster_id);
            let refusal = if core >= cores {
                Some((ErrorCode::BadRequest, 0))
            } else if self.names_clusters && !is_of_cluster {
                Some((ErrorCode::WrongCluster, 0))
            } else {
                self.hello_refusals.pop()
            };
            if let Some((code, retry_after_ms)) = refusal {
                self.answer(id, 0, &Reply::Refused(code, retry_after_ms));
                return self.break_link(id);
            }
            self.links.get_mut(&id).expect("it was made").core = Some(core);
            let reply = Response::Hello(self.model.hello(core));
            let bytes = response_frame(0, self.timestamp(), &reply);
            return self.deliver(id, bytes);
        }
        // A connection that was handed over late belongs to a core that need not be there any more.
        let core = self.links[&id].core.expect("the hello comes first") % self.model.cores;
        self.arrived.push((request.kind(), request_id, self.now_ns));
        let is_own = matches!(request, Request::Topology | Request::Cancel { .. });
        let reply = if !is_own && self.happens(self.weather.busy) {
            Reply::Refused(ErrorCode::Busy, 5)
        } else if !is_own && self.happens(self.weather.drains) {
            Reply::Refused(ErrorCode::ShuttingDown, 0)
        } else {
            let clock_us = CLOCK_US + self.now_ns / 1_000;
            self.model.execute(core, clock_us, &request, body)
        };
        let delay_ns = self.random(3 * MS);
        self.at(self.now_ns + delay_ns, Event::Answer(id, request_id, reply));
    }

    fn answer(&mut self, id: ConnectionId, request_id: u64, reply: &Reply) {
        if !self.links[&id].is_served {
            return;
        }
        let bytes = response_frame(request_id, self.timestamp(), &reply.as_response());
        self.deliver(id, bytes);
    }

    fn deliver(&mut self, id: ConnectionId, bytes: Vec<u8>) {
        let delay_ns = MS / 10 + self.random(MS);
        let link = self.links.get_mut(&id).expect("it was made");
        link.to_client_ns = link.to_client_ns.max(self.now_ns + delay_ns);
        let at_ns = link.to_client_ns;
        self.at(at_ns, Event::ToClient(id, bytes));
    }

    fn timestamp(&self) -> u64 {
        (CLOCK_US + self.now_ns / 1_000) << 12
    }
}
