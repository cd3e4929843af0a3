//! A node in a thread or two, correct or wrong in a chosen way, so that loadgen can be held to what it
//! promises.
//!
//! It keeps a map under one mutex, answers over the real wire format, and can be killed: its sockets close at
//! a chosen write, which is applied but not answered. Its data outlives the kill, as a durable node's would; so do the
//! answers to writes in sessions, which it remembers all.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ostrakon_wire::frame;
use ostrakon_wire::limits;
use ostrakon_wire::message::{
    ClusterId, Encoder, ErrorCode, Found, HelloReply, Keys, MultiPutReply, MultiValue, PutEntries, PutEntry,
    Request, Response, Retry, ScanEntries, ScanEntry, ScanReply, ScanRequest, TopologyReply,
};
use ostrakon_wire::routing::{key_hash, shard_of};

/// What is wrong with the node. Counts are of writes (or reads) over all connections, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Every so manieth write is answered with `Busy` first.
    BusyEvery(u64),
    /// Every so manieth write is refused because the node goes down; it is there again at once.
    GoDownEvery(u64),
    /// Every so manieth write is applied, and answered as if its core had failed.
    FailCoreEvery(u64),
    /// Every so manieth write is refused: no memory.
    MemoryFullEvery(u64),
    /// This write is acknowledged but not applied.
    LoseWrite(u64),
    /// This read returns the value of another key.
    WrongRead(u64),
    /// This read returns a flipped bit.
    FlipRead(u64),
    /// This write is applied, and then all connections close.
    DieAtWrite(u64),
    /// At every so manieth write of a session, in turn: it is applied and all connections close, or they close
    /// before. The node is there again at once.
    CutEvery(u64),
    /// This add is answered and not applied.
    LoseAdd(u64),
    /// The first of every so many multi-puts is refused in part: no time.
    BusyPartEvery(u64),
    /// At this read the whole node stands still for so many milliseconds.
    StallAtRead(u64, u64),
    /// Each request takes so many microseconds, one after the other.
    Slow(u64),
    /// In these phases of loads, from 1, every get and put is refused. A phase begins with a hello that names
    /// no core.
    RefuseInPhases(&'static [usize]),
}

/// A listening node; it lives as long as the test.
pub(crate) struct FakeNode {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    data: BTreeMap<Vec<u8>, (u64, Vec<u8>)>,
    fault: Fault,
    version: u64,
    writes: u64,
    reads: u64,
    is_dead: bool,
    sockets: Vec<TcpStream>,
    cores_asked: Vec<Option<u16>>,
    cluster: u64,
    /// The answers to writes in sessions: the version and, of an add, the number.
    remembered: HashMap<(u128, u64), (u64, i64)>,
    /// Writes of sessions that came a second time.
    repeated: u64,
    adds: u64,
    /// The sum of the last add.
    number: i64,
    /// Was the last write refused?
    last_refused: bool,
    multi_puts: u64,
    /// Sessions that there were.
    sessions: HashSet<u128>,
    /// Reads that came over a connection to a core that does not own the key.
    misrouted: u64,
}

/// What it says of each request that asks.
const TIMINGS: frame::StageTimings = frame::StageTimings {
    queue_ns: 1_000,
    hop_ns: 2_000,
    log_ns: 3_000,
    apply_ns: 4_000,
    total_ns: 10_000,
};

/// The core of each shard.
const OWNERS: [u16; 8] = [0, 1, 2, 0, 1, 2, 0, 1];

impl FakeNode {
    pub(crate) fn start(fault: Fault) -> Self {
        Self::start_in_cluster(fault, 1)
    }

    pub(crate) fn start_in_cluster(fault: Fault, cluster: u64) -> Self {
        let state = Arc::new(Mutex::new(State {
            data: BTreeMap::new(),
            fault,
            version: 0,
            writes: 0,
            reads: 0,
            is_dead: false,
            sockets: Vec::new(),
            cores_asked: Vec::new(),
            cluster,
            remembered: HashMap::new(),
            repeated: 0,
            adds: 0,
            number: 0,
            last_refused: false,
            multi_puts: 0,
            sessions: HashSet::new(),
            misrouted: 0,
        }));
        let address = listen(&state);
        Self { address, state }
    }

    /// One more address with the same data behind it.
    pub(crate) fn second_address(&self) -> SocketAddr {
        listen(&self.state)
    }

    /// Reads that came over a connection to a core that does not own the key.
    pub(crate) fn misrouted(&self) -> u64 {
        self.state.lock().unwrap().misrouted
    }

    /// Writes of sessions that came a second time, and sessions that there were.
    pub(crate) fn repeated(&self) -> (u64, usize) {
        let state = self.state.lock().unwrap();
        (state.repeated, state.sessions.len())
    }

    /// Keys that there are.
    pub(crate) fn keys(&self) -> usize {
        self.state.lock().unwrap().data.len()
    }

    /// Lives again, with another fault; counting begins anew.
    pub(crate) fn revive(&self, fault: Fault) {
        let mut state = self.state.lock().unwrap();
        (state.fault, state.is_dead, state.writes, state.reads) = (fault, false, 0, 0);
    }

    /// Cores that were asked for in hellos, in order.
    pub(crate) fn cores_asked(&self) -> Vec<Option<u16>> {
        self.state.lock().unwrap().cores_asked.clone()
    }

    /// Changes the data behind everybody's back.
    pub(crate) fn tamper(&self, change: impl FnOnce(&mut BTreeMap<Vec<u8>, (u64, Vec<u8>)>)) {
        change(&mut self.state.lock().unwrap().data);
    }
}

fn listen(state: &Arc<Mutex<State>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let state = Arc::clone(state);
    thread::spawn(move || {
        for socket in listener.incoming().map(Result::unwrap) {
            let state = Arc::clone(&state);
            thread::spawn(move || serve(socket, &state));
        }
    });
    address
}

fn serve(mut socket: TcpStream, state: &Mutex<State>) {
    let mut core = None;
    state.lock().unwrap().sockets.push(socket.try_clone().unwrap());
    let (mut input, mut output, mut encoder) = (Vec::new(), Vec::new(), Encoder::new());
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let count = socket.read(&mut chunk).unwrap_or(0);
        if count == 0 || state.lock().unwrap().is_dead {
            // Dropping our handle alone would leave the one in `sockets` open.
            let _closed_already = socket.shutdown(Shutdown::Both);
            return;
        }
        input.extend_from_slice(&chunk[..count]);
        let mut taken = 0;
        while let Some((header, body)) = frame::decode(&input[taken..], limits::BODY_BYTES_MAX).unwrap() {
            let request = Request::decode(header.kind, body).unwrap();
            let mut state = state.lock().unwrap();
            match &request {
                Request::Hello(hello) => core = hello.core,
                Request::Get { key } => {
                    state.misrouted += u64::from(core.is_some_and(|core| core != owner(key)));
                }
                _ => {}
            }
            let start = output.len();
            if !state.answer(&request, &mut output, header.request_id, &mut encoder) {
                return;
            }
            if header.timings {
                frame::insert_timings(&mut output, start, &TIMINGS);
            }
            taken += header.frame_bytes();
        }
        input.drain(..taken);
        let is_written = socket.write_all(&output).is_ok();
        output.clear();
        if !is_written {
            return;
        }
    }
}

fn owner(key: &[u8]) -> u16 {
    OWNERS[shard_of(key_hash(key), OWNERS.len() as u32).0 as usize]
}

impl State {
    /// False: the node has died.
    fn answer(&mut self, request: &Request<'_>, out: &mut Vec<u8>, id: u64, encoder: &mut Encoder) -> bool {
        if let Fault::Slow(microseconds) = self.fault {
            thread::sleep(Duration::from_micros(microseconds));
        }
        if let (Fault::RefuseInPhases(phases), Request::Get { .. } | Request::Put { .. }) =
            (self.fault, request)
            && phases.contains(&self.cores_asked.iter().filter(|core| core.is_none()).count())
        {
            encoder.error(out, id, 0, ErrorCode::MemoryFull, "no memory", 0);
            return true;
        }
        match request {
            Request::Hello(hello) => self.hello(hello.core, out, id, encoder),
            Request::Get { key } => self.get(key, out, id, encoder),
            Request::Put {
                key,
                value,
                ttl_ms,
                retry,
                ..
            } => {
                assert!(
                    *ttl_ms == 0 || *ttl_ms == 2_000,
                    "a time to live that nobody asked for"
                );
                return self.in_session(*retry, 0, out, id, encoder, |state, out, encoder| {
                    state.put(key, value, out, id, encoder)
                });
            }
            Request::Add {
                key, delta, retry, ..
            } => {
                return self.in_session(*retry, *delta, out, id, encoder, |state, out, encoder| {
                    state.add(key, *delta, out, id, encoder)
                });
            }
            Request::MultiGet { keys } => self.multi_get(*keys, out, id, encoder),
            Request::MultiPut { entries, retry } => self.multi_put(*entries, *retry, out, id, encoder),
            Request::Delete { key, .. } => {
                self.version += 10;
                self.data.remove(*key);
                encoder.write_reply(out, id, 0, true, self.version);
            }
            Request::Scan(scan) => self.scan(scan, out, id, encoder),
            Request::Topology => {
                let topology = TopologyReply {
                    owners: OWNERS.to_vec(),
                    cores: 3,
                    node_id: 1,
                    cluster_id: ClusterId { high: 1, low: 1 },
                };
                encoder.response(out, id, 0, &Response::Topology(topology));
            }
            other => panic!("loadgen sends no {other:?}"),
        }
        true
    }

    fn get(&mut self, key: &[u8], out: &mut Vec<u8>, id: u64, encoder: &mut Encoder) {
        self.reads += 1;
        let found = self
            .data
            .get(key)
            .map(|(version, value)| (*version, value.clone()));
        let found = match self.fault {
            Fault::WrongRead(at) if at == self.reads => self
                .data
                .iter()
                .find(|(other, _)| *other != key)
                .map(|(_, (version, value))| (*version, value.clone())),
            Fault::FlipRead(at) if at == self.reads => found.map(|(version, mut value)| {
                value[60] ^= 1;
                (version, value)
            }),
            Fault::StallAtRead(at, milliseconds) if at == self.reads => {
                // With the lock held: nobody gets an answer meanwhile.
                thread::sleep(Duration::from_millis(milliseconds));
                found
            }
            _ => found,
        };
        encoder.get_reply(
            out,
            id,
            0,
            found.as_ref().map(|(version, value)| Found {
                version: *version,
                expires: 0,
                value,
            }),
        );
    }

    fn hello(&mut self, core: Option<u16>, out: &mut Vec<u8>, id: u64, encoder: &mut Encoder) {
        self.cores_asked.push(core);
        let reply = HelloReply {
            version: 1,
            cluster_id: ClusterId {
                high: self.cluster,
                low: 1,
            },
            node_id: 1,
            core: core.unwrap_or(0),
            cores: 3,
            shards: 8,
            server: "fake",
            key_bytes_max: limits::KEY_BYTES_MAX as u32,
            value_bytes_max: limits::VALUE_BYTES_MAX as u32,
            frame_bytes_max: limits::FRAME_BYTES_MAX as u32,
            requests_in_flight_max: 64,
            multi_max: limits::MULTI_MAX as u32,
            session_window: 8192,
            retry_horizon_ms: 600_000,
        };
        encoder.hello_reply(out, id, 0, &reply);
    }

    fn multi_get(&mut self, keys: Keys<'_>, out: &mut Vec<u8>, id: u64, encoder: &mut Encoder) {
        let values: Vec<Option<(u64, Vec<u8>)>> =
            keys.iter().map(|key| self.data.get(key).cloned()).collect();
        // The last of several is left out, so that it has to be asked for again.
        let left_out = if values.len() > 1 {
            values.len() - 1
        } else {
            values.len()
        };
        let values = values.iter().enumerate().map(|(place, found)| match found {
            _ if place == left_out => MultiValue::Omitted,
            None => MultiValue::NotFound,
            Some((version, value)) => MultiValue::Found(Found {
                version: *version,
                expires: 0,
                value,
            }),
        });
        encoder.multi_get_reply(out, id, 0, values);
    }

    /// Does a write once: when it comes again it gets the first answer. A write that is no add has the delta 0.
    fn in_session(
        &mut self,
        retry: Option<Retry>,
        delta: i64,
        out: &mut Vec<u8>,
        id: u64,
        encoder: &mut Encoder,
        write: impl FnOnce(&mut Self, &mut Vec<u8>, &mut Encoder) -> bool,
    ) -> bool {
        let Some(retry) = retry else {
            return write(self, out, encoder);
        };
        self.sessions.insert(retry.session);
        let name = (retry.session, retry.sequence);
        let known = self.remembered.get(&name).copied();
        if let Some((version, number)) = known {
            self.repeated += 1;
            match delta {
                0 => encoder.write_reply(out, id, 0, true, version),
                _ => encoder.add_reply(out, id, 0, version, number),
            }
            return true;
        }
        let turn = match self.fault {
            Fault::CutEvery(every) if (self.writes + 1).is_multiple_of(every) => (self.writes + 1) / every,
            _ => 0,
        };
        if turn > 0 && turn.is_multiple_of(2) {
            // Counts, or it would be cut off for ever.
            self.writes += 1;
            self.cut_off();
            return false;
        }
        let answered = write(self, out, encoder);
        if !self.last_refused {
            self.remembered.insert(name, (self.version, self.number));
        }
        if turn > 0 {
            self.cut_off();
            return false;
        }
        answered
    }

    fn cut_off(&mut self) {
        for socket in self.sockets.drain(..) {
            // Some of them are gone already.
            let _closed_already = socket.shutdown(Shutdown::Both);
        }
    }

    fn add(&mut self, key: &[u8], delta: i64, out: &mut Vec<u8>, id: u64, encoder: &mut Encoder) -> bool {
        self.last_refused = false;
        self.writes += 1;
        self.adds += 1;
        self.version += 10;
        let old = self.data.get(key).map_or(0, |(_, digits)| {
            std::str::from_utf8(digits).unwrap().parse::<i64>().unwrap()
        });
        self.number = old + delta;
        if self.fault != Fault::LoseAdd(self.adds) {
            let digits = self.number.to_string().into_bytes();
            self.data.insert(key.to_vec(), (self.version, digits));
        }
        encoder.add_reply(out, id, 0, self.version, self.number);
        true
    }

    fn multi_put(
        &mut self,
        entries: PutEntries<'_>,
        retry: Option<Retry>,
        out: &mut Vec<u8>,
        id: u64,
        encoder: &mut Encoder,
    ) {
        self.multi_puts += 1;
        let is_busy = match self.fault {
            Fault::BusyPartEvery(every) => self.multi_puts.is_multiple_of(every),
            _ => false,
        };
        let (mut versions, mut codes) = (Vec::new(), Vec::new());
        for (place, PutEntry { key, value, .. }) in entries.iter().enumerate() {
            // Each entry is in a shard of its own, which remembers it under the same name.
            let name = retry.map(|retry| (retry.session ^ u128::from(key_hash(key)), retry.sequence));
            let known = name.and_then(|name| self.remembered.get(&name).copied());
            if let Some((version, _)) = known {
                self.repeated += 1;
                versions.push(version);
                codes.push(None);
                continue;
            }
            if is_busy && place % 2 == 1 {
                versions.push(0);
                codes.push(Some(ErrorCode::Busy));
                continue;
            }
            self.version += 10;
            self.data.insert(key.to_vec(), (self.version, value.to_vec()));
            if let Some(name) = name {
                self.remembered.insert(name, (self.version, 0));
            }
            versions.push(self.version);
            codes.push(None);
        }
        if !codes.iter().any(Option::is_some) {
            codes.clear();
        }
        let reply = MultiPutReply {
            versions,
            codes,
            message: "",
            retry_after_ms: u32::from(is_busy),
        };
        encoder.response(out, id, 0, &Response::MultiPut(reply));
    }

    fn put(&mut self, key: &[u8], value: &[u8], out: &mut Vec<u8>, id: u64, encoder: &mut Encoder) -> bool {
        self.writes += 1;
        self.last_refused = true;
        let mut is_applied = true;
        match self.fault {
            Fault::BusyEvery(every) if self.writes.is_multiple_of(every) => {
                encoder.error(out, id, 0, ErrorCode::Busy, "busy", 1);
                return true;
            }
            Fault::GoDownEvery(every) if self.writes.is_multiple_of(every) => {
                encoder.error(out, id, 0, ErrorCode::ShuttingDown, "going down", 0);
                return true;
            }
            Fault::MemoryFullEvery(every) if self.writes.is_multiple_of(every) => {
                encoder.error(out, id, 0, ErrorCode::MemoryFull, "no memory", 0);
                return true;
            }
            Fault::LoseWrite(at) => is_applied = at != self.writes,
            _ => {}
        }
        self.last_refused = false;
        self.version += 10;
        if is_applied {
            self.data.insert(key.to_vec(), (self.version, value.to_vec()));
        }
        if self.fault == Fault::DieAtWrite(self.writes) {
            self.is_dead = true;
            self.cut_off();
            return false;
        }
        if matches!(self.fault, Fault::FailCoreEvery(every) if self.writes.is_multiple_of(every)) {
            encoder.error(out, id, 0, ErrorCode::CoreFailed, "the core has failed", 0);
            return true;
        }
        encoder.write_reply(out, id, 0, true, self.version);
        true
    }

    fn scan(&self, scan: &ScanRequest<'_>, out: &mut Vec<u8>, id: u64, encoder: &mut Encoder) {
        // Pages are shorter than what is asked for, so that scans have to go on.
        let page = if scan.limit == 0 {
            100
        } else {
            scan.limit.min(30) as usize
        };
        let in_range = |key: &[u8]| key >= scan.start && scan.end.is_none_or(|end| key < end);
        let in_range = self.data.iter().filter(|(key, _)| in_range(key));
        let in_order: Vec<_> = if scan.reverse {
            in_range.rev().take(page + 1).collect()
        } else {
            in_range.take(page + 1).collect()
        };
        let mut entries: Vec<ScanEntry<'_>> = in_order
            .into_iter()
            .map(|(key, (version, value))| ScanEntry {
                key,
                value,
                version: *version,
                expires: 0,
            })
            .collect();
        // Where the next page starts, or in reverse the key before which it does.
        let has_more = entries.len() > page;
        let beyond = has_more.then(|| entries.pop().unwrap().key);
        let resume_key = if scan.reverse && has_more {
            entries.last().map(|entry| entry.key)
        } else {
            beyond
        };
        let snapshot = if scan.snapshot == 0 {
            self.version + 1
        } else {
            scan.snapshot
        };
        let reply = ScanReply {
            snapshot,
            entries: ScanEntries::from(entries.as_slice()),
            resume_key,
        };
        encoder.response(out, id, 0, &Response::Scan(reply));
    }
}
