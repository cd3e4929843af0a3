//! Opens connections before a phase starts, with plain blocking sockets: hello or ping, its answer, and the
//! checks that follow from it. The executors then take over sockets that are ready for requests.
//!
//! Connections are dealt out to addresses in turn, and those of one address to the node's cores in turn.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use ostrakon_client::{Client, ClusterId, Options, Protocol, Request, Server};

use super::route::Router;
use crate::cli::{Configuration, Route, Speaks};
use crate::target::{RedisProtocol, Wire, WireError};

/// How long a node may take to accept a connection and to answer a hello.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two attempts to reach a node that is not there.
const CONNECT_PAUSE: Duration = Duration::from_millis(20);

/// A connection whose hello is answered.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The socket, blocking.
    pub(crate) stream: TcpStream,
    /// With no byte to send and no request in flight.
    pub(crate) wire: Wire,
    /// Among those of the router.
    pub(crate) group: usize,
    /// Where it leads to.
    pub(crate) place: Place,
}

/// What is at the other end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    address: String,
    /// The core that was asked for.
    core: Option<u16>,
    cluster_id: ClusterId,
}

impl Place {
    /// Opens another connection to it, and blocks meanwhile. Only for nodes.
    pub(crate) fn open(&self) -> Result<(TcpStream, Wire), ConnectError> {
        greet_once(&self.address, self.core, self.cluster_id)
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// Nobody is there, or it went away.
    Lost(String),
    /// Somebody is there, and refuses or misunderstands.
    Refused(String),
}

/// Opens all connections, in the order in which they are dealt out to the executors.
pub(crate) fn connect_all(
    addresses: &[String],
    configuration: &Configuration,
) -> Result<(Vec<Ready>, Router), ConnectError> {
    match configuration.speaks {
        Speaks::Ostrakon => connect_to_nodes(addresses, configuration),
        Speaks::Redis => connect_to_redis(addresses, configuration),
    }
}

/// A number for the connection `index` that goes round `count`, so that the connections of each executor
/// (`index` modulo `executors`) go round too.
fn round_robin(index: usize, executors: usize, count: usize) -> usize {
    index / executors % count
}

fn connect_to_redis(
    addresses: &[String],
    configuration: &Configuration,
) -> Result<(Vec<Ready>, Router), ConnectError> {
    let executors = configuration.thread_cpus.len();
    enough_for_groups(configuration, addresses.len(), "addresses")?;
    let mut connections = Vec::with_capacity(configuration.connections);
    for index in 0..configuration.connections {
        let group = round_robin(index, executors, addresses.len());
        let (address, wire) = (
            &addresses[group],
            Wire::Redis(RedisProtocol::new(configuration.pipeline)),
        );
        let (stream, wire) = greet_redis(address, wire)?;
        let place = Place {
            address: address.clone(),
            core: None,
            cluster_id: ClusterId::ANY,
        };
        connections.push(Ready {
            stream,
            wire,
            group,
            place,
        });
    }
    let router = match addresses.len() {
        1 => Router::Any,
        several => Router::Addresses(several),
    };
    Ok((connections, router))
}

fn connect_to_nodes(
    addresses: &[String],
    configuration: &Configuration,
) -> Result<(Vec<Ready>, Router), ConnectError> {
    let executors = configuration.thread_cpus.len();
    let router = match configuration.route {
        Route::Any => Router::Any,
        Route::Shard => ask_for_shards(&addresses[0])?,
    };
    let is_grouped = !matches!(router, Router::Any);
    if is_grouped {
        enough_for_groups(configuration, router.groups(), "cores of the node")?;
    }
    let mut cores = Vec::with_capacity(addresses.len());
    for address in addresses {
        let asks = configuration.spread_cores && !is_grouped;
        cores.push(if asks {
            server(&greet_node(address, None, configuration)?.1).cores
        } else {
            0
        });
    }
    let mut connections: Vec<Ready> = Vec::with_capacity(configuration.connections);
    for index in 0..configuration.connections {
        let (address, of_address) = (index % addresses.len(), index / addresses.len());
        let group = round_robin(index, executors, router.groups());
        let core = match cores[address] {
            _ if is_grouped => Some(group as u16),
            0 => None,
            cores => Some((of_address % usize::from(cores)) as u16),
        };
        let (stream, wire) = greet_node(&addresses[address], core, configuration)?;
        let found = server(&wire);
        let most = found.requests_in_flight_max;
        if configuration.pipeline > most as usize {
            return Err(ConnectError::Refused(format!(
                "the node takes at most {most} unanswered requests per connection; \
                 give --pipeline {most} or less"
            )));
        }
        if configuration.retry_for.is_some() && found.session_window == 0 {
            let reason = format!("{} keeps no sessions; leave --sessions out", addresses[address]);
            return Err(ConnectError::Refused(reason));
        }
        if let Some(first) = connections.first() {
            one_cluster(&addresses[0], server(&first.wire), &addresses[address], found)?;
            one_node_if(is_grouped, server(&first.wire), found)?;
        }
        let place = Place {
            address: addresses[address].clone(),
            core,
            cluster_id: found.cluster_id,
        };
        connections.push(Ready {
            stream,
            wire,
            group,
            place,
        });
    }
    Ok((connections, router))
}

/// Each executor must reach each group.
fn enough_for_groups(configuration: &Configuration, groups: usize, what: &str) -> Result<(), ConnectError> {
    let executors = configuration.thread_cpus.len();
    let least = groups * executors;
    if groups > 1 && configuration.connections < least {
        return Err(ConnectError::Refused(format!(
            "each of the {executors} load threads needs a connection to each of the {groups} {what}; give \
             --connections {least} or more"
        )));
    }
    Ok(())
}

fn one_cluster(first: &str, expected: &Server, other: &str, found: &Server) -> Result<(), ConnectError> {
    if found.cluster_id == expected.cluster_id {
        return Ok(());
    }
    let shown = |id: ClusterId| format!("{:016x}{:016x}", id.high, id.low);
    Err(ConnectError::Refused(format!(
        "{first} belongs to cluster {}, but {other} to cluster {}; a record written to one would be missed in \
         the other. Name nodes of one cluster with --connect",
        shown(expected.cluster_id),
        shown(found.cluster_id)
    )))
}

fn one_node_if(is_grouped: bool, expected: &Server, found: &Server) -> Result<(), ConnectError> {
    if !is_grouped || found.node_id == expected.node_id {
        return Ok(());
    }
    Err(ConnectError::Refused(
        "the map of shards that a node gives names its own cores, so --route shard needs addresses of one \
         node; leave --route out, or name one node with --connect"
            .to_owned(),
    ))
}

fn ask_for_shards(address: &str) -> Result<Router, ConnectError> {
    let failed = |error: ostrakon_client::Error| {
        ConnectError::Lost(format!("{address} did not give its map of shards: {error}"))
    };
    let mut client = Client::connect(address, options(None, ClusterId::ANY)).map_err(failed)?;
    Ok(Router::by_shards(&client.topology().map_err(failed)?))
}

fn server(wire: &Wire) -> &Server {
    wire.server().expect("a ready connection has its hello answered")
}

fn options(core: Option<u16>, cluster_id: ClusterId) -> Options {
    Options {
        core,
        cluster_id,
        client: concat!("loadgen/", env!("CARGO_PKG_VERSION")).to_owned(),
        ..Options::default()
    }
}

/// Sends the hello and waits for its answer; with sessions, a node that is not there is waited for, too.
fn greet_node(
    address: &str,
    core: Option<u16>,
    configuration: &Configuration,
) -> Result<(TcpStream, Wire), ConnectError> {
    let patience = configuration.retry_for.unwrap_or_default();
    let asked_at = Instant::now();
    loop {
        match greet_once(address, core, ClusterId::ANY) {
            Err(ConnectError::Lost(_)) if asked_at.elapsed() < patience => std::thread::sleep(CONNECT_PAUSE),
            greeted => return greeted,
        }
    }
}

fn greet_once(
    address: &str,
    core: Option<u16>,
    cluster_id: ClusterId,
) -> Result<(TcpStream, Wire), ConnectError> {
    let protocol = Protocol::new(&options(core, cluster_id)).expect("loadgen's name fits a hello");
    let mut wire = Wire::Ostrakon(Box::new(protocol));
    let hint = "is an Ostrakon node listening there?";
    let is_greeted = |wire: &mut Wire| match wire.next_answer()? {
        Some(_) => unreachable!("no request was submitted that could be answered"),
        None => Ok(wire.server().is_some()),
    };
    let stream = greet(address, &mut wire, is_greeted, "the hello", hint)?;
    Ok((stream, wire))
}

/// Sends a ping and waits for its answer.
fn greet_redis(address: &str, mut wire: Wire) -> Result<(TcpStream, Wire), ConnectError> {
    let submitted = wire.submit(&Request::Ping, false);
    submitted.map_err(ConnectError::Refused)?;
    let hint = "is a Redis listening there?";
    let is_greeted = |wire: &mut Wire| match wire.next_answer()? {
        None => Ok(false),
        Some((_, crate::target::Answer::RedisError(line))) => {
            Err(WireError::Closed(format!("Redis says: {line}")))
        }
        Some(_) => Ok(true),
    };
    let stream = greet(address, &mut wire, is_greeted, "the ping", hint)?;
    Ok((stream, wire))
}

fn greet(
    address: &str,
    wire: &mut Wire,
    mut is_greeted: impl FnMut(&mut Wire) -> Result<bool, WireError>,
    what: &str,
    hint: &str,
) -> Result<TcpStream, ConnectError> {
    let mut stream = open(address)?;
    let lost =
        |error: std::io::Error| ConnectError::Lost(format!("{address} did not answer {what}: {error}"));
    stream.set_nodelay(true).map_err(lost)?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT)).map_err(lost)?;
    let greeting_bytes = wire.bytes_to_send().len();
    stream.write_all(wire.bytes_to_send()).map_err(lost)?;
    wire.sent(greeting_bytes);
    loop {
        match stream.read(wire.receive_room()) {
            Ok(0) => return Err(lost(ErrorKind::UnexpectedEof.into())),
            Ok(count) => wire.received(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(lost(error)),
        }
        match is_greeted(wire) {
            Ok(false) => {}
            Ok(true) => break,
            Err(WireError::Closed(reason)) => return Err(ConnectError::Refused(reason)),
            Err(WireError::Broken(reason)) => {
                return Err(ConnectError::Refused(format!("{address}: {reason}; {hint}")));
            }
        }
    }
    stream.set_read_timeout(None).map_err(lost)?;
    Ok(stream)
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
