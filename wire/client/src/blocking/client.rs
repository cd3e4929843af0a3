//! The client that most programs use: one method per request, which waits for its answer.

use std::os::fd::{AsFd, BorrowedFd};

use ostrakon_wire::frame::StageTimings;
use ostrakon_wire::limits::MULTI_MAX;
use ostrakon_wire::message::{BatchOperation, BatchReply, Condition, Kind, PutEntry, Request, TopologyReply};

use super::connection::Connection;
use super::pipeline::Pipeline;
use super::scan::Scan;
use crate::error::{Error, ProtocolError};
use crate::options::{Options, PutOptions, ScanOptions};
use crate::values::{Answer, MultiValue, MultiWritten, Server, Value, Written};

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

    /// Writes one key as the options say.
    ///
    /// # Errors
    /// As for [`Client::put_if`].
    pub fn put_with(&mut self, key: &[u8], value: &[u8], options: PutOptions<'_>) -> Result<Written, Error> {
        self.write(&Request::Put {
            key,
            value,
            condition: options.condition,
            ttl_ms: options.ttl_ms,
            retry: None,
        })
    }

    /// Adds to the number in a key, which is written in decimal digits; an absent key counts as 0. Returns the version
    /// of the write, and the sum.
    ///
    /// # Errors
    /// As for [`Client::put`]. [`Error::Server`] with the code `NotANumber` or `NumberOverflow` if there is no sum.
    pub fn add(&mut self, key: &[u8], delta: i64) -> Result<(u64, i64), Error> {
        self.add_with(key, delta, 0)
    }

    /// As [`Client::add`]. A key that is made by this is absent again after `ttl_ms` milliseconds (0: it stays); one
    /// that is there keeps what it has.
    ///
    /// # Errors
    /// As for [`Client::add`].
    pub fn add_with(&mut self, key: &[u8], delta: i64, ttl_ms: u64) -> Result<(u64, i64), Error> {
        let add = Request::Add {
            key,
            delta,
            ttl_ms,
            retry: None,
        };
        match self.ask(&add)? {
            Answer::Add { version, number } => Ok((version, number)),
            other => unreachable_answer(&other),
        }
    }

    /// Reads several keys, in their order. Those of one shard that come in one answer are read at one moment; the client
    /// asks several times if there are more keys than the server takes at once, or if their values are too big for one
    /// answer.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn multi_get(&mut self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>, Error> {
        let mut values = vec![None; keys.len()];
        let mut missing: Vec<usize> = (0..keys.len()).collect();
        let at_once = (self.server().multi_max as usize).clamp(1, MULTI_MAX);
        while !missing.is_empty() {
            let asked: Vec<usize> = missing.drain(..missing.len().min(at_once)).collect();
            let asked_keys: Vec<&[u8]> = asked.iter().map(|position| keys[*position]).collect();
            let request = Request::MultiGet {
                keys: asked_keys[..].into(),
            };
            let answers = match self.ask(&request)? {
                Answer::MultiGet(answers) => answers,
                other => unreachable_answer(&other),
            };
            self.check_count(asked.len(), answers.len())?;
            if answers.iter().all(|answer| *answer == MultiValue::Omitted) {
                return Err(self.connection.fail(Error::Protocol(ProtocolError::NothingRead)));
            }
            for (position, answer) in asked.into_iter().zip(answers) {
                match answer {
                    MultiValue::Found(value) => values[position] = Some(value),
                    MultiValue::NotFound => {}
                    MultiValue::Omitted => missing.push(position),
                }
            }
        }
        Ok(values)
    }

    /// Writes several keys, each named once. Those of one shard are written together or not at all; shards decide for
    /// themselves, so some entries may be written and others not.
    ///
    /// # Errors
    /// As for [`Client::put`], if there is no answer at all.
    pub fn multi_put(&mut self, entries: &[PutEntry<'_>]) -> Result<MultiWritten, Error> {
        let request = Request::MultiPut {
            entries: entries.into(),
            retry: None,
        };
        let written = match self.ask(&request)? {
            Answer::MultiPut(written) => written,
            other => unreachable_answer(&other),
        };
        match self.check_count(entries.len(), written.results.len()) {
            Ok(()) => Ok(written),
            Err(error) => Err(error.for_sent(Kind::MultiPut)),
        }
    }

    /// Does several things, or none of them if one condition does not hold. The keys lie in one shard, which keys with
    /// one `{tag}` do; each is named once.
    ///
    /// # Errors
    /// As for [`Client::put`]. A condition that doesn't hold is no error.
    pub fn batch(&mut self, operations: &[BatchOperation<'_>]) -> Result<BatchReply, Error> {
        let request = Request::Batch {
            operations: operations.into(),
            retry: None,
        };
        match self.ask(&request)? {
            Answer::Batch(reply) => Ok(reply),
            other => unreachable_answer(&other),
        }
    }

    /// Iterates over keys in bytewise order, all as of one snapshot. Pages are asked for as they
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

    /// Asks for all that the node counts and measures: one JSON object.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn stats(&mut self) -> Result<String, Error> {
        match self.ask(&Request::Stats)? {
            Answer::Stats(json) => Ok(json),
            other => unreachable_answer(&other),
        }
    }

    /// From now on, asks the server with each request where its time goes (or no longer does).
    pub fn set_timings(&mut self, timings: bool) {
        self.connection.asks_for_timings = timings;
    }

    /// Where the server's time for the last answer went; `None` if it was not asked.
    pub fn last_timings(&self) -> Option<StageTimings> {
        self.connection.last_timings
    }

    /// Sum of the server's times for all answers since this was asked last; zeros if it was not asked for them.
    pub fn take_timings(&mut self) -> StageTimings {
        std::mem::take(&mut self.connection.timings_sum)
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

    fn check_count(&mut self, expected: usize, found: usize) -> Result<(), Error> {
        if expected == found {
            return Ok(());
        }
        let failure = ProtocolError::Count { expected, found };
        Err(self.connection.fail(Error::Protocol(failure)))
    }

    fn ask(&mut self, request: &Request<'_>) -> Result<Answer, Error> {
        let id = self.connection.start(request)?;
        self.connection.finish(id)
    }
}

/// The socket, to look at or to shut down from another thread. Whoever reads from it or writes to it breaks the
/// connection.
impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.socket()
    }
}

/// `Protocol` refuses a response that doesn't fit its request, so none gets here.
fn unreachable_answer(answer: &Answer) -> ! {
    unreachable!("this answers another kind of request: {answer:?}")
}
