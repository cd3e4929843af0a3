//! A node of several cores on loopback: the model behind sockets, with a thread for each connection. It may lose
//! answers.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use ostrakon_client::{Kind, Request, Response};
use ostrakon_wire::frame;
use ostrakon_wire::limits::BODY_BYTES_MAX;

use crate::common::response_frame;
use crate::model::Model;

/// Where the clock of the node stands, in microseconds.
const CLOCK_US: u64 = 1_000_000_000_000;

pub(crate) struct FakeNode {
    pub(crate) address: String,
    pub(crate) shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

pub(crate) struct Shared {
    pub(crate) model: Mutex<Model>,
    /// The kind of each request that came, the hellos included.
    pub(crate) arrived: Mutex<Vec<Kind>>,
    /// After so many requests a connection is closed, and the last of them is not answered; 0: never.
    lose_after: AtomicU64,
    /// Scans are not answered.
    pub(crate) keeps_scans: AtomicBool,
    is_stopping: AtomicBool,
    connections: AtomicU64,
}

impl FakeNode {
    pub(crate) fn start(cores: u16, lose_after: u64) -> FakeNode {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let shared = Arc::new(Shared {
            model: Mutex::new(Model::new(cores)),
            arrived: Mutex::new(Vec::new()),
            lose_after: AtomicU64::new(lose_after),
            keeps_scans: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            connections: AtomicU64::new(0),
        });
        let serving = Arc::clone(&shared);
        let listener = std::thread::spawn(move || {
            let mut threads = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                if serving.is_stopping.load(Ordering::SeqCst) {
                    break;
                }
                let serving = Arc::clone(&serving);
                threads.push(std::thread::spawn(move || serving.serve(stream)));
            }
            threads.into_iter().for_each(join);
        });
        FakeNode {
            address,
            shared,
            listener: Some(listener),
        }
    }

    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn count(&self, kind: Kind) -> usize {
        let arrived = self.shared.arrived.lock().expect("no thread has panicked");
        arrived.iter().filter(|arrived| **arrived == kind).count()
    }

    /// Waits for the threads of all connections, which the client has closed. Passes on what they assert.
    pub(crate) fn join(mut self) {
        self.shared.is_stopping.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(&self.address).expect("it listens"));
        join(self.listener.take().expect("joined once"));
    }
}

fn join(thread: JoinHandle<()>) {
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) {
        stream.set_nodelay(true).expect("a TCP socket");
        let number = self.connections.fetch_add(1, Ordering::SeqCst);
        let (mut received, mut buffer) = (Vec::new(), [0; 16 * 1024]);
        let (mut core, mut requests) = (0, 0);
        loop {
            let mut taken = 0;
            while let Some((header, body)) =
                frame::decode(&received[taken..], BODY_BYTES_MAX).expect("good frames")
            {
                taken += header.frame_bytes();
                requests += 1;
                let request = Request::decode(header.kind, body).expect("a good request");
                self.arrived
                    .lock()
                    .expect("no thread has panicked")
                    .push(request.kind());
                let mut model = self.model.lock().expect("no thread has panicked");
                let response = if let Request::Hello(hello) = request {
                    core = hello.core.unwrap_or(number as u16 % model.cores);
                    let reply = Response::Hello(model.hello(core));
                    response_frame(0, CLOCK_US << 12, &reply)
                } else {
                    let reply = model.execute(core, CLOCK_US, &request, body);
                    response_frame(header.request_id, CLOCK_US << 12, &reply.as_response())
                };
                drop(model);
                if self.lose_after.load(Ordering::SeqCst) == requests {
                    // The client may have closed it first.
                    let _ = stream.shutdown(Shutdown::Both);
                    return;
                }
                if matches!(request, Request::Scan(_)) && self.keeps_scans.load(Ordering::SeqCst) {
                    continue;
                }
                if stream.write_all(&response).is_err() {
                    return;
                }
            }
            received.drain(..taken);
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(count) => received.extend_from_slice(&buffer[..count]),
            }
        }
    }
}
