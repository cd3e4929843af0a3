//! Opens connections before a phase starts, with plain blocking sockets: hello, its answer, and the checks
//! that follow from it. The executors then take over sockets that are ready for requests.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use ostrakon_client::{Options, Protocol, ProtocolError, Server};

/// How long a node may take to accept a connection and to answer a hello.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection whose hello is answered.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The socket, blocking.
    pub(crate) stream: TcpStream,
    /// With no byte to send and no request in flight.
    pub(crate) protocol: Protocol,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// Nobody is there, or it went away.
    Lost(String),
    /// Somebody is there, and refuses or misunderstands.
    Refused(String),
}

/// Opens `count` connections, if `spread_cores` round robin on the cores of the node.
pub(crate) fn connect_all(
    address: &str,
    count: usize,
    pipeline: usize,
    spread_cores: bool,
) -> Result<Vec<Ready>, ConnectError> {
    let cores = if spread_cores {
        Some(connect(address, None)?.server().cores)
    } else {
        None
    };
    let mut connections = Vec::with_capacity(count);
    for index in 0..count {
        let core = cores
            .filter(|cores| *cores > 0)
            .map(|cores| (index % usize::from(cores)) as u16);
        let ready = connect(address, core)?;
        let most = ready.server().requests_in_flight_max;
        if pipeline > most as usize {
            return Err(ConnectError::Refused(format!(
                "the node takes at most {most} unanswered requests per connection; \
                 give --pipeline {most} or less"
            )));
        }
        connections.push(ready);
    }
    Ok(connections)
}

impl Ready {
    fn server(&self) -> &Server {
        self.protocol
            .server()
            .expect("a ready connection has its hello answered")
    }
}

fn connect(address: &str, core: Option<u16>) -> Result<Ready, ConnectError> {
    let client = concat!("loadgen/", env!("CARGO_PKG_VERSION")).to_owned();
    let options = Options {
        core,
        client,
        ..Options::default()
    };
    let mut protocol = Protocol::new(&options).expect("loadgen's name fits a hello");
    let mut stream = open(address)?;
    let lost =
        |error: std::io::Error| ConnectError::Lost(format!("{address} did not answer the hello: {error}"));
    stream.set_nodelay(true).map_err(lost)?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT)).map_err(lost)?;
    let hello_bytes = protocol.bytes_to_send().len();
    stream.write_all(protocol.bytes_to_send()).map_err(lost)?;
    protocol.sent(hello_bytes);
    while protocol.server().is_none() {
        match stream.read(protocol.receive_room()) {
            Ok(0) => return Err(lost(ErrorKind::UnexpectedEof.into())),
            Ok(count) => protocol.received(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(lost(error)),
        }
        match protocol.next_response().map(|response| response.is_some()) {
            Ok(false) => {}
            Ok(true) => unreachable!("no request was submitted that could be answered"),
            Err(error @ ProtocolError::ClosedByServer { .. }) => {
                return Err(ConnectError::Refused(error.to_string()));
            }
            Err(error) => {
                let hint = "is an Ostrakon node listening there?";
                return Err(ConnectError::Refused(format!("{address}: {error}; {hint}")));
            }
        }
    }
    stream.set_read_timeout(None).map_err(lost)?;
    Ok(Ready { stream, protocol })
}

fn open(address: &str) -> Result<TcpStream, ConnectError> {
    let hint = "is a node running there? start one with `ostrakon serve`, or leave --connect out";
    let addresses = address.to_socket_addrs().map_err(|error| {
        ConnectError::Refused(format!(
            "{address:?} is no address: {error}; write it as HOST:PORT, such as 127.0.0.1:5750"
        ))
    })?;
    let mut failure = std::io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(ConnectError::Lost(format!(
        "could not connect to {address}: {failure}; {hint}"
    )))
}
