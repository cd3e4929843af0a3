//! Connections that are opened and greeted one after the other, and do nothing by themselves.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ostrakon_client::{Options, Protocol, Request};
use ostrakon_wire::frame;
use ostrakon_wire::limits::BODY_BYTES_MAX;
use ostrakon_wire::message::Encoder;

use crate::load::System;
use crate::machine;

/// How long a server may take to answer one greeting.
const GREETED_WITHIN: Duration = Duration::from_secs(20);

/// Open files that a process needs besides the connections of a benchmark.
pub const OTHER_FILES: u64 = 1000;
/// Connections that a server takes besides them.
pub const OTHER_CONNECTIONS: u64 = 100;

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

/// Asks all connections to Ostrakon for a sign of life, then awaits it; a sentence for each that gives none.
///
/// # Errors
/// If a signal came.
pub fn dead(streams: &mut [TcpStream], within: Duration) -> Result<Vec<String>, String> {
    let mut ping = Vec::new();
    Encoder::new().request(&mut ping, 1, 0, &Request::Ping);
    let asked: Vec<_> = streams.iter_mut().map(|stream| stream.write_all(&ping)).collect();
    let deadline = Instant::now() + within;
    let mut dead = Vec::new();
    for (stream, asked) in streams.iter_mut().zip(asked) {
        machine::check_signals()?;
        let answered = asked
            .map_err(|error| error.to_string())
            .and_then(|()| await_answer(stream, deadline));
        dead.extend(answered.err());
    }
    Ok(dead)
}

fn await_answer(stream: &mut TcpStream, deadline: Instant) -> Result<(), String> {
    let mut received = Vec::new();
    let mut chunk = [0; 256];
    loop {
        // No wait at all would mean to wait for ever.
        let wait = deadline
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        let read = stream
            .set_read_timeout(Some(wait))
            .and_then(|()| stream.read(&mut chunk));
        match read.map_err(|error| format!("no answer came: {error}"))? {
            0 => return Err("the server has ended it".to_owned()),
            count => received.extend_from_slice(&chunk[..count]),
        }
        let decoded = frame::decode(&received, BODY_BYTES_MAX).map_err(|error| error.to_string())?;
        if decoded.is_some_and(|(header, _)| header.request_id == 1) {
            return Ok(());
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn who_answers_lives_and_who_does_not_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut streams = Vec::new();
        let mut servers = Vec::new();
        for _ in 0..3 {
            streams.push(open(&address).unwrap());
            servers.push(listener.accept().unwrap().0);
        }
        let mut pong = Vec::new();
        Encoder::new().pong(&mut pong, 1, 0);
        servers[0].write_all(&pong).unwrap();
        servers[1].shutdown(std::net::Shutdown::Write).unwrap();
        let dead = dead(&mut streams, Duration::from_millis(1)).unwrap();
        assert_eq!(dead.len(), 2, "{dead:?}");
        assert!(
            dead[0].contains("ended") && dead[1].contains("no answer"),
            "{dead:?}"
        );
    }
}
