//! The client that most programs use: one method per request, which waits for its answer.

use ostrakon_wire::frame::StageTimings;
use ostrakon_wire::message::{
    BatchOperation, BatchReply, CheckpointAction, Condition, Kind, PutEntry, Request, TopologyReply,
    after_prefix,
};

use super::driver::Driver;
use super::interrupter::Interrupter;
use super::pipeline::Pipeline;
use super::scan::Scan;
use crate::error::Error;
use crate::options::{Options, PutOptions, ScanOptions, addresses};
use crate::steps::{MultiGetSteps, check_count};
use crate::values::{Answer, Checkpoint, MultiWritten, Server, Value, Written};

/// A blocking client of one node.
///
/// It keeps a connection to each core that it needs and makes lost ones anew; see [`Options::retry`] for what it sends
/// again. A method that fails leaves the client usable.
#[derive(Debug)]
pub struct Client {
    driver: Driver,
}

impl Client {
    /// Connects to the node at `address`: `host:port`, or several of them between commas, of which the first that
    /// answers is used.
    ///
    /// # Errors
    /// [`Error::Connect`] if nobody answers there, [`Error::Server`] if the node refuses the
    /// connection (another cluster, too many connections), [`Error::Protocol`] if it is no Ostrakon node.
    pub fn connect(address: &str, options: Options) -> Result<Client, Error> {
        Ok(Client {
            driver: Driver::connect(addresses(address), options)?,
        })
    }

    /// What the server said of itself when the connection was opened.
    pub fn server(&self) -> &Server {
        self.driver.server()
    }

    /// Highest hybrid logical clock timestamp seen (microseconds << 12 | counter), 0: none.
    pub fn timestamp(&self) -> u64 {
        self.driver.timestamp()
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn ping(&mut self) -> Result<(), Error> {
        self.ask(&Request::Ping).map(Answer::into_pong)
    }

    /// Reads one key; `None`: there is no such key.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Value>, Error> {
        self.ask(&Request::Get { key }).map(Answer::into_value)
    }

    /// Writes one key and returns the version of the write.
    ///
    /// # Errors
    /// See [`Error`]; after [`Error::UnknownOutcome`] the write may or may not have been applied.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<u64, Error> {
        let written = self.put_if(key, value, Condition::None)?;
        written.into_unconditional()
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
        self.ask(&add).map(Answer::into_sum)
    }

    /// Reads several keys, in their order. Those of one shard that come in one answer are read at one moment; the
    /// client asks several times if there are more keys than the server takes at once, or if their values are
    /// too big for one
    /// answer.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn multi_get(&mut self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>, Error> {
        let mut steps = MultiGetSteps::new(keys, self.server().multi_max);
        while let Some(asked) = steps.next() {
            let request = Request::MultiGet {
                keys: asked[..].into(),
            };
            let answers = self.ask(&request)?.into_values();
            steps.take(answers).map_err(Error::Protocol)?;
        }
        Ok(steps.finish())
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
        let written = self.ask(&request)?.into_multi_written();
        let counted = check_count(entries.len(), written.results.len());
        counted.map_err(|error| Error::Protocol(error).for_sent(Kind::MultiPut))?;
        Ok(written)
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
        self.ask(&request).map(Answer::into_batch)
    }

    /// Removes all keys from `start` up to `end`, which is excluded; `None` is behind all keys. It takes as long for
    /// many keys as for few. Each shard does it at one moment, but not all of them at the same. Returns the highest
    /// version that a shard gave it.
    ///
    /// # Errors
    /// As for [`Client::put`]. After [`Error::UnknownOutcome`] some shards may have done it and others not; its message
    /// says how many.
    pub fn delete_range(&mut self, start: &[u8], end: Option<&[u8]>) -> Result<u64, Error> {
        let request = Request::DeleteRange {
            start,
            end,
            retry: None,
        };
        self.ask(&request).map(Answer::into_range_version)
    }

    /// Removes all keys that begin with a prefix, as [`Client::delete_range`]; with an empty one, all keys.
    ///
    /// # Errors
    /// As for [`Client::delete_range`].
    pub fn delete_prefix(&mut self, prefix: &[u8]) -> Result<u64, Error> {
        self.delete_range(prefix, after_prefix(prefix).as_deref())
    }

    /// Iterates over keys in bytewise order, all as of one snapshot. Pages are asked for as they
    /// are needed.
    pub fn scan(&mut self, options: ScanOptions) -> Scan<'_> {
        Scan::new(&mut self.driver, options)
    }

    /// Asks which core owns which shard.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn topology(&mut self) -> Result<TopologyReply, Error> {
        self.ask(&Request::Topology).map(Answer::into_topology)
    }

    /// Asks how the node is: one JSON object.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn status(&mut self) -> Result<String, Error> {
        self.ask(&Request::Status).map(Answer::into_json)
    }

    /// Makes a checkpoint of the node under a random number that the caller has drawn, so that it can be released
    /// whatever becomes of the answer: links to the tables of one moment, in a directory on the node's machine.
    ///
    /// # Errors
    /// See [`Error`]. Whether there is a checkpoint then is not known: release it.
    pub fn make_checkpoint(&mut self, id: u64) -> Result<Checkpoint, Error> {
        let action = CheckpointAction::Make;
        self.ask(&Request::Checkpoint { action, id })
            .map(Answer::into_checkpoint)
    }

    /// Removes a checkpoint; no error if there is none of this number.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn release_checkpoint(&mut self, id: u64) -> Result<(), Error> {
        let action = CheckpointAction::Release;
        self.ask(&Request::Checkpoint { action, id }).map(drop)
    }

    /// Asks for all that the node counts and measures: one JSON object.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn stats(&mut self) -> Result<String, Error> {
        self.ask(&Request::Stats).map(Answer::into_json)
    }

    /// From now on, asks the server with each request where its time goes (or no longer does).
    pub fn set_timings(&mut self, timings: bool) {
        self.driver.asks_for_timings = timings;
    }

    /// Where the server's time for the last answer went; `None` if it was not asked.
    pub fn last_timings(&self) -> Option<StageTimings> {
        self.driver.last_timings
    }

    /// Sum of the server's times for all answers since this was asked last; zeros if it was not asked for them.
    pub fn take_timings(&mut self) -> StageTimings {
        std::mem::take(&mut self.driver.timings_sum)
    }

    /// What another thread ends this client's waits with.
    pub fn interrupter(&self) -> Interrupter {
        self.driver.interrupter()
    }

    /// Sends many requests before waiting for the first answer.
    pub fn pipeline(&mut self) -> Pipeline<'_> {
        Pipeline::new(&mut self.driver)
    }

    fn write(&mut self, request: &Request<'_>) -> Result<Written, Error> {
        self.ask(request).map(Answer::into_written)
    }

    fn ask(&mut self, request: &Request<'_>) -> Result<Answer, Error> {
        let call = self.driver.start(request)?;
        self.driver.finish(call)
    }
}
