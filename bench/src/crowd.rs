//! Connections that are opened and greeted one after the other, and do nothing by themselves.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use ostrakon_client::{Options, Protocol};

use crate::load::System;
use crate::machine;

/// How long a server may take to answer one greeting.
const GREETED_WITHIN: Duration = Duration::from_secs(20);

/// Open files that a process needs besides its connections.
pub const OTHER_FILES: u64 = 1000;

/// So many connections that were greeted and are idle.
///
/// # Errors
/// A sentence, if one can't be opened, or a signal came.
pub fn open_idle(system: System, address: &str, count: usize) -> Result<Vec<TcpStream>, String> {
    let mut streams = Vec::with_capacity(count);
    for number in 1..=count {
        machine::check_signals()?;
        let greeted = match system {
            System::Ostrakon => greet(address),
            System::Redis => ping_redis(address),
            System::Echo => open(address),
        };
        streams.push(greeted.map_err(|error| format!("connection {number} of {count}: {error}"))?);
    }
    Ok(streams)
}

/// A connection that has said nothing yet. Its reads end after a while.
///
/// # Errors
/// A sentence.
pub fn open(address: &str) -> Result<TcpStream, String> {
    let failed = |error: std::io::Error| format!("cannot connect to {address}: {error}");
    let stream = TcpStream::connect(address).map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    stream.set_read_timeout(Some(GREETED_WITHIN)).map_err(failed)?;
    Ok(stream)
}

/// A connection to Ostrakon whose hello is answered.
///
/// # Errors
/// A sentence.
pub fn greet(address: &str) -> Result<TcpStream, String> {
    let options = Options {
        client: "ostrakon-bench".to_owned(),
        ..Options::default()
    };
    let mut protocol = Protocol::new(&options).map_err(|error| error.to_string())?;
    let mut stream = open(address)?;
    let hello = stream.write_all(protocol.bytes_to_send());
    hello.map_err(|error| format!("the hello could not be sent: {error}"))?;
    while protocol.server().is_none() {
        match stream.read(protocol.receive_room()) {
            Ok(0) => return Err("the server ended the connection in the middle of its hello".to_owned()),
            Ok(count) => protocol.received(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => machine::check_signals()?,
            Err(error) => return Err(format!("the hello was not answered: {error}")),
        }
        protocol.next_response().map_err(|error| error.to_string())?;
    }
    Ok(stream)
}

fn ping_redis(address: &str) -> Result<TcpStream, String> {
    let mut stream = open(address)?;
    let mut answer = [0; 7];
    let asked = stream.write_all(b"PING\r\n");
    let answered = asked.and_then(|()| stream.read_exact(&mut answer));
    answered.map_err(|error| format!("redis did not answer a ping: {error}"))?;
    if &answer == b"+PONG\r\n" {
        return Ok(stream);
    }
    Err(format!("redis answered a ping with {}", answer.escape_ascii()))
}
