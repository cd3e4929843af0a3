//! The client that most programs use: one method per request, which waits for its answer.

use ostrakon_wire::message::{Condition, Request, TopologyReply};

use super::connection::Connection;
use super::pipeline::Pipeline;
use super::scan::Scan;
use crate::error::{Error, ProtocolError};
use crate::options::{Options, ScanOptions};
use crate::values::{Answer, Server, Value, Written};

/// A blocking connection to one node.
///
/// A method that fails leaves the client usable if the error is [`Error::Server`] or [`Error::Submit`]; after
/// any other the connection is closed, each further call returns the same reason, and a new client has to be
/// connected. (The server may also close it with a last [`Error::Server`]: further calls repeat that.)
#[derive(Debug)]
pub struct Client {
    connection: Connection,
}

impl Client {
    /// Connects to the node at `address` (`host:port`).
    ///
    /// # Errors
    /// [`Error::Connect`] if nobody answers there, [`Error::Server`] if the node refuses the
    /// connection (another cluster, too many connections), [`Error::Protocol`] if it is no Ostrakon node.
    pub fn connect(address: &str, options: Options) -> Result<Client, Error> {
        Ok(Client {
            connection: Connection::open(address, options)?,
        })
    }

    /// What the server said of itself when the connection was opened.
    pub fn server(&self) -> &Server {
        self.connection.server()
    }

    /// Highest hybrid logical clock timestamp seen on this connection (microseconds << 12 | counter), 0:
    /// none.
    pub fn timestamp(&self) -> u64 {
        self.connection.timestamp()
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn ping(&mut self) -> Result<(), Error> {
        match self.ask(&Request::Ping)? {
            Answer::Pong => Ok(()),
            other => unreachable_answer(&other),
        }
    }

    /// Reads one key; `None`: there is no such key.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Value>, Error> {
        match self.ask(&Request::Get { key })? {
            Answer::Get(value) => Ok(value),
            other => unreachable_answer(&other),
        }
    }

    /// Writes one key and returns the version of the write.
    ///
    /// # Errors
    /// See [`Error`]; after [`Error::UnknownOutcome`] the write may or may not have been applied.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<u64, Error> {
        let written = self.put_if(key, value, Condition::None)?;
        if !written.applied {
            let cause = self
                .connection
                .fail(Error::Protocol(ProtocolError::UnconditionalNotApplied));
            return Err(Error::UnknownOutcome {
                cause: Box::new(cause),
            });
        }
        Ok(written.version)
    }

    /// Writes one key if the condition holds.
    ///
    /// # Errors
    /// See [`Error`]; after [`Error::UnknownOutcome`] the write may or may not have been applied. A
    /// condition that doesn't hold is no error.
    pub fn put_if(&mut self, key: &[u8], value: &[u8], condition: Condition<'_>) -> Result<Written, Error> {
        self.write(&Request::put(key, value, condition))
    }

    /// Removes one key.
    ///
    /// # Errors
    /// As for [`Client::put`].
    pub fn delete(&mut self, key: &[u8]) -> Result<Written, Error> {
        self.delete_if(key, Condition::None)
    }

    /// Removes one key if the condition holds.
    ///
    /// # Errors
    /// As for [`Client::put_if`].
    pub fn delete_if(&mut self, key: &[u8], condition: Condition<'_>) -> Result<Written, Error> {
        self.write(&Request::delete(key, condition))
    }

    /// Iterates over keys in ascending bytewise order, all as of one snapshot. Pages are asked for as they
    /// are needed.
    pub fn scan(&mut self, options: ScanOptions) -> Scan<'_> {
        Scan::new(&mut self.connection, options)
    }

    /// Asks which core owns which shard.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn topology(&mut self) -> Result<TopologyReply, Error> {
        match self.ask(&Request::Topology)? {
            Answer::Topology(topology) => Ok(topology),
            other => unreachable_answer(&other),
        }
    }

    /// Asks how the node is: one JSON object.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn status(&mut self) -> Result<String, Error> {
        match self.ask(&Request::Status)? {
            Answer::Status(json) => Ok(json),
            other => unreachable_answer(&other),
        }
    }

    /// Sends many requests before waiting for the first answer.
    pub fn pipeline(&mut self) -> Pipeline<'_> {
        Pipeline::new(&mut self.connection)
    }

    fn write(&mut self, request: &Request<'_>) -> Result<Written, Error> {
        match self.ask(request)? {
            Answer::Write(written) => Ok(written),
            other => unreachable_answer(&other),
        }
    }

    fn ask(&mut self, request: &Request<'_>) -> Result<Answer, Error> {
        let id = self.connection.start(request)?;
        self.connection.finish(id)
    }
}

/// `Protocol` refuses a response that doesn't fit its request, so none gets here.
fn unreachable_answer(answer: &Answer) -> ! {
    unreachable!("this answers another kind of request: {answer:?}")
}
