//! A node in a thread or two, correct or wrong in a chosen way, so that loadgen can be held to what it
//! promises.
//!
//! It keeps a map under one mutex, answers over the real wire format, and can be killed: its sockets close at
//! a chosen write, which is applied but not answered. Its data outlives the kill, as a durable node's would.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use ostrakon_wire::frame;
use ostrakon_wire::limits;
use ostrakon_wire::message::{
    ClusterId, Encoder, ErrorCode, HelloReply, Request, Response, ScanEntries, ScanEntry, ScanReply,
    ScanRequest,
};

/// What is wrong with the node. Counts are of writes (or reads) over all connections, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Every so manieth write is answered with `Busy` first.
    BusyEvery(u64),
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
}

impl FakeNode {
    pub(crate) fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let state = Arc::new(Mutex::new(State {
            data: BTreeMap::new(),
            fault,
            version: 0,
            writes: 0,
            reads: 0,
            is_dead: false,
            sockets: Vec::new(),
            cores_asked: Vec::new(),
        }));
        let address = listener.local_addr().unwrap();
        let node = Self {
            address,
            state: Arc::clone(&state),
        };
        thread::spawn(move || {
            for socket in listener.incoming().map(Result::unwrap) {
                let state = Arc::clone(&state);
                thread::spawn(move || serve(socket, &state));
            }
        });
        node
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

fn serve(mut socket: TcpStream, state: &Mutex<State>) {
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
            if !state.answer(&request, &mut output, header.request_id, &mut encoder) {
                return;
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

impl State {
    /// False: the node has died.
    fn answer(&mut self, request: &Request<'_>, out: &mut Vec<u8>, id: u64, encoder: &mut Encoder) -> bool {
        match request {
            Request::Hello(hello) => {
                self.cores_asked.push(hello.core);
                let reply = HelloReply {
                    version: 1,
                    cluster_id: ClusterId { high: 1, low: 1 },
                    node_id: 1,
                    core: hello.core.unwrap_or(0),
                    cores: 3,
                    shards: 8,
                    server: "fake",
                    key_bytes_max: limits::KEY_BYTES_MAX as u32,
                    value_bytes_max: limits::VALUE_BYTES_MAX as u32,
                    frame_bytes_max: limits::FRAME_BYTES_MAX as u32,
                    requests_in_flight_max: 64,
                };
                encoder.hello_reply(out, id, 0, &reply);
            }
            Request::Get { key } => self.get(key, out, id, encoder),
            Request::Put { key, value, .. } => return self.put(key, value, out, id, encoder),
            Request::Scan(scan) => self.scan(scan, out, id, encoder),
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
            _ => found,
        };
        encoder.get_reply(
            out,
            id,
            0,
            found
                .as_ref()
                .map(|(version, value)| (*version, value.as_slice())),
        );
    }

    fn put(&mut self, key: &[u8], value: &[u8], out: &mut Vec<u8>, id: u64, encoder: &mut Encoder) -> bool {
        self.writes += 1;
        let mut is_applied = true;
        match self.fault {
            Fault::BusyEvery(every) if self.writes.is_multiple_of(every) => {
                encoder.error(out, id, 0, ErrorCode::Busy, "busy", 1);
                return true;
            }
            Fault::MemoryFullEvery(every) if self.writes.is_multiple_of(every) => {
                encoder.error(out, id, 0, ErrorCode::MemoryFull, "no memory", 0);
                return true;
            }
            Fault::LoseWrite(at) => is_applied = at != self.writes,
            _ => {}
        }
        self.version += 10;
        if is_applied {
            self.data.insert(key.to_vec(), (self.version, value.to_vec()));
        }
        if self.fault == Fault::DieAtWrite(self.writes) {
            self.is_dead = true;
            for socket in self.sockets.drain(..) {
                // Some of them are gone already.
                let _closed_already = socket.shutdown(Shutdown::Both);
            }
            return false;
        }
        encoder.write_reply(out, id, 0, true, self.version);
        true
    }

    fn scan(&self, scan: &ScanRequest<'_>, out: &mut Vec<u8>, id: u64, encoder: &mut Encoder) {
        let page = 100;
        let entries = self.data.range(scan.start.to_vec()..).take(page + 1);
        let mut entries: Vec<ScanEntry<'_>> = entries
            .map(|(key, (version, value))| ScanEntry {
                key,
                value,
                version: *version,
            })
            .collect();
        let resume_key = (entries.len() > page).then(|| entries.pop().unwrap().key);
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
