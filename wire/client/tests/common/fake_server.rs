//! A server of one connection that does what a test's script says.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use ostrakon_client::Options;
use ostrakon_wire::frame;
use ostrakon_wire::limits::BODY_BYTES_MAX;
use ostrakon_wire::message::{Request, Response};

use crate::common::{hello_reply, response_frame};

/// One connection, over which nothing is sent twice: what a script of one connection can follow.
pub(crate) fn once() -> Options {
    Options {
        core: Some(2),
        retry: false,
        ..Options::default()
    }
}

/// The listener's address, and the thread that runs the script. Joining it passes on what the script asserts.
pub(crate) struct FakeServer {
    pub(crate) address: String,
    thread: JoinHandle<()>,
}

impl FakeServer {
    /// Accepts one connection and runs the script on it; the connection ends with the script.
    pub(crate) fn start(script: impl FnOnce(&mut Session) + Send + 'static) -> FakeServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let thread = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            stream.set_nodelay(true).expect("a TCP socket");
            script(&mut Session {
                stream,
                received: Vec::new(),
            });
        });
        FakeServer { address, thread }
    }

    /// As [`FakeServer::start`], with the hello exchanged before the script.
    pub(crate) fn greeting(
        requests_in_flight_max: u32,
        script: impl FnOnce(&mut Session) + Send + 'static,
    ) -> FakeServer {
        FakeServer::start(move |session| {
            session.expect(|request| assert!(matches!(request, Request::Hello(_)), "{request:?}"));
            session.answer(0, &Response::Hello(hello_reply(requests_in_flight_max)));
            script(session);
        })
    }

    /// Waits for the end of the script.
    pub(crate) fn join(self) {
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

pub(crate) struct Session {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Session {
    /// Reads the next request, has it checked, and returns its id. `None` at the end of the connection.
    pub(crate) fn next_request(&mut self, check: impl FnOnce(Request<'_>)) -> Option<u64> {
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some((header, body)) = frame::decode(&self.received, BODY_BYTES_MAX).expect("good frames")
            {
                check(Request::decode(header.kind, body).expect("a good request"));
                let request_id = header.request_id;
                let frame_bytes = header.frame_bytes();
                self.received.drain(..frame_bytes);
                return Some(request_id);
            }
            let count = self.stream.read(&mut buffer).expect("the client is there");
            if count == 0 {
                return None;
            }
            self.received.extend_from_slice(&buffer[..count]);
        }
    }

    /// As [`Session::next_request`]; the connection must not end.
    pub(crate) fn expect(&mut self, check: impl FnOnce(Request<'_>)) -> u64 {
        self.next_request(check).expect("one more request")
    }

    /// Reads one request and answers it.
    pub(crate) fn exchange(&mut self, check: impl FnOnce(Request<'_>), response: &Response<'_>) {
        let request_id = self.expect(check);
        self.answer(request_id, response);
    }

    /// Sends a response.
    pub(crate) fn answer(&mut self, request_id: u64, response: &Response<'_>) {
        self.send(&response_frame(request_id, 0, response));
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the client is there");
    }

    /// Waits until the client has closed the connection; it must send nothing before.
    pub(crate) fn expect_end(&mut self) {
        assert_eq!(
            self.next_request(|request| panic!("one request too many: {request:?}")),
            None
        );
    }
}
