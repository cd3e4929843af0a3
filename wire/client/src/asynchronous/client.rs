//! The handle: one asynchronous method per request.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ostrakon_wire::frame::StageTimings;
use ostrakon_wire::message::{
    BatchOperation, BatchReply, CheckpointAction, Condition, Encoder, Kind, PutEntry, Request, TopologyReply,
    after_prefix,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::scan::AsyncScan;
use super::task::{Command, Ended, Task};
use crate::error::Error;
use crate::options::{Options, PutOptions, ScanOptions, addresses};
use crate::session::Prepared;
use crate::steps::{MultiGetSteps, check_count};
use crate::values::{Answer, Checkpoint, MultiWritten, Server, Value, Written};

/// Requests on their way to the task at most; who sends more waits.
const COMMANDS_MAX: usize = 1024;

/// An asynchronous client of one node, cheap to clone: all clones share one session.
///
/// The futures may be polled in any task of any tokio runtime; the client's own task runs in the one that it was
/// connected in, and ends with the last handle. A future that is dropped gives its request up: a read of
/// more than one key is cancelled on the server, and of a write it is not known whether it happens.
#[derive(Clone, Debug)]
pub struct AsyncClient {
    commands: mpsc::Sender<Command>,
    /// Requests whose futures were dropped. No more than there are open requests.
    abandoned: mpsc::UnboundedSender<u64>,
    server: watch::Receiver<Option<Server>>,
    shared: Arc<Shared>,
}

/// What handles and task share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    requests: AtomicU64,
    pub(super) timestamp: AtomicU64,
}

/// Tells the task that nobody waits for a request any more, unless its answer has come.
struct Waiting<'a> {
    client: &'a AsyncClient,
    request: u64,
    is_over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            // Without a task there is nothing to give up.
            let _ = self.client.abandoned.send(self.request);
        }
    }
}

impl AsyncClient {
    /// Connects to the node at `address`: `host:port`, or several of them between commas, of which the first that
    /// answers is used. Starts the client's task in the present runtime.
    ///
    /// # Errors
    /// [`Error::Connect`] if nobody answers there, [`Error::Server`] if the node refuses the
    /// connection (another cluster, too many connections), [`Error::Protocol`] if it is no Ostrakon node.
    ///
    /// # Panics
    /// Outside of a tokio runtime, or in one without IO and time.
    pub async fn connect(address: &str, options: Options) -> Result<AsyncClient, Error> {
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        let (abandoned, given_up) = mpsc::unbounded_channel();
        let (server_said, server) = watch::channel(None);
        let (connected, is_connected) = oneshot::channel();
        let shared = Arc::new(Shared::default());
        let task = Task::new(
            addresses(address),
            &options,
            received,
            given_up,
            server_said,
            connected,
            Arc::clone(&shared),
        )?;
        tokio::spawn(task.run());
        is_connected.await.map_err(|_| task_ended())??;
        Ok(AsyncClient {
            commands,
            abandoned,
            server,
            shared,
        })
    }

    /// What the server said of itself when a connection was opened the last time.
    pub fn server(&self) -> Server {
        let server = self.server.borrow().clone();
        server.expect("a client is only handed out after a hello")
    }

    /// Highest hybrid logical clock timestamp seen (microseconds << 12 | counter), 0: none.
    pub fn timestamp(&self) -> u64 {
        self.shared.timestamp.load(Ordering::Relaxed)
    }

    /// Sends any request, and asks where the server's time for it goes if `timings`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn call(
        &self,
        request: &Request<'_>,
        timings: bool,
    ) -> Result<(Answer, Option<StageTimings>), Error> {
        let prepared = Prepared::new(request, &mut Encoder::new(), Vec::new()).map_err(Error::Submit)?;
        let number = self.shared.requests.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let command = Command {
            request: number,
            prepared,
            timings,
            asked_at: Instant::now(),
            answer,
        };
        self.commands.send(command).await.map_err(|_| task_ended())?;
        let mut waiting = Waiting {
            client: self,
            request: number,
            is_over: false,
        };
        let ended = answered.await;
        waiting.is_over = true;
        let kind = request.kind();
        let Ended { result, timings } = ended.map_err(|_| task_ended().for_sent(kind))?;
        result.map(|answer| (answer, timings))
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn ping(&self) -> Result<(), Error> {
        self.ask(&Request::Ping).await.map(Answer::into_pong)
    }

    /// Reads one key; `None`: there is no such key.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        self.ask(&Request::Get { key }).await.map(Answer::into_value)
    }

    /// Reads several keys, as [`crate::Client::multi_get`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>, Error> {
        let mut steps = MultiGetSteps::new(keys, self.server().multi_max);
        while let Some(asked) = steps.next() {
            let request = Request::MultiGet {
                keys: asked[..].into(),
            };
            let answers = self.ask(&request).await?.into_values();
            steps.take(answers).map_err(Error::Protocol)?;
        }
        Ok(steps.finish())
    }

    /// Writes one key and returns the version of the write.
    ///
    /// # Errors
    /// See [`Error`]; after [`Error::UnknownOutcome`] the write may or may not have been applied.
    pub async fn put(&self, key: &[u8], value: &[u8]) -> Result<u64, Error> {
        let written = self.put_with(key, value, PutOptions::default()).await?;
        written.into_unconditional()
    }

    /// Writes one key if the condition holds.
    ///
    /// # Errors
    /// As for [`AsyncClient::put`]. A condition that doesn't hold is no error.
    pub async fn put_if(&self, key: &[u8], value: &[u8], condition: Condition<'_>) -> Result<Written, Error> {
        let options = PutOptions {
            condition,
            ..PutOptions::default()
        };
        self.put_with(key, value, options).await
    }

    /// Writes one key as the options say.
    ///
    /// # Errors
    /// As for [`AsyncClient::put_if`].
    pub async fn put_with(
        &self,
        key: &[u8],
        value: &[u8],
        options: PutOptions<'_>,
    ) -> Result<Written, Error> {
        let put = Request::Put {
            key,
            value,
            condition: options.condition,
            ttl_ms: options.ttl_ms,
            retry: None,
        };
        self.ask(&put).await.map(Answer::into_written)
    }

    /// Writes several keys, as [`crate::Client::multi_put`].
    ///
    /// # Errors
    /// As for [`AsyncClient::put`], if there is no answer at all.
    pub async fn multi_put(&self, entries: &[PutEntry<'_>]) -> Result<MultiWritten, Error> {
        let request = Request::MultiPut {
            entries: entries.into(),
            retry: None,
        };
        let written = self.ask(&request).await?.into_multi_written();
        let counted = check_count(entries.len(), written.results.len());
        counted.map_err(|error| Error::Protocol(error).for_sent(Kind::MultiPut))?;
        Ok(written)
    }

    /// Removes one key.
    ///
    /// # Errors
    /// As for [`AsyncClient::put`].
    pub async fn delete(&self, key: &[u8]) -> Result<Written, Error> {
        self.delete_if(key, Condition::None).await
    }

    /// Removes one key if the condition holds.
    ///
    /// # Errors
    /// As for [`AsyncClient::put_if`].
    pub async fn delete_if(&self, key: &[u8], condition: Condition<'_>) -> Result<Written, Error> {
        let delete = Request::delete(key, condition);
        self.ask(&delete).await.map(Answer::into_written)
    }

    /// Adds to the number in a key, as [`crate::Client::add`].
    ///
    /// # Errors
    /// As for [`crate::Client::add`].
    pub async fn add(&self, key: &[u8], delta: i64) -> Result<(u64, i64), Error> {
        self.add_with(key, delta, 0).await
    }

    /// Adds to the number in a key, as [`crate::Client::add_with`].
    ///
    /// # Errors
    /// As for [`crate::Client::add`].
    pub async fn add_with(&self, key: &[u8], delta: i64, ttl_ms: u64) -> Result<(u64, i64), Error> {
        let add = Request::Add {
            key,
            delta,
            ttl_ms,
            retry: None,
        };
        self.ask(&add).await.map(Answer::into_sum)
    }

    /// Does several things in one shard, or none of them, as [`crate::Client::batch`].
    ///
    /// # Errors
    /// As for [`AsyncClient::put`]. A condition that doesn't hold is no error.
    pub async fn batch(&self, operations: &[BatchOperation<'_>]) -> Result<BatchReply, Error> {
        let request = Request::Batch {
            operations: operations.into(),
            retry: None,
        };
        self.ask(&request).await.map(Answer::into_batch)
    }

    /// Removes all keys of a range, as [`crate::Client::delete_range`].
    ///
    /// # Errors
    /// As for [`crate::Client::delete_range`].
    pub async fn delete_range(&self, start: &[u8], end: Option<&[u8]>) -> Result<u64, Error> {
        let request = Request::DeleteRange {
            start,
            end,
            retry: None,
        };
        self.ask(&request).await.map(Answer::into_range_version)
    }

    /// Removes all keys that begin with a prefix, as [`crate::Client::delete_prefix`].
    ///
    /// # Errors
    /// As for [`crate::Client::delete_range`].
    pub async fn delete_prefix(&self, prefix: &[u8]) -> Result<u64, Error> {
        self.delete_range(prefix, after_prefix(prefix).as_deref()).await
    }

    /// Goes over keys in bytewise order, all as of one snapshot. Pages are asked for as they are needed.
    pub fn scan(&self, options: ScanOptions) -> AsyncScan {
        AsyncScan::new(self.clone(), options)
    }

    /// Asks which core owns which shard.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn topology(&self) -> Result<TopologyReply, Error> {
        self.ask(&Request::Topology).await.map(Answer::into_topology)
    }

    /// Asks how the node is: one JSON object.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn status(&self) -> Result<String, Error> {
        self.ask(&Request::Status).await.map(Answer::into_json)
    }

    /// Makes a checkpoint of the node under a random number that the caller has drawn, so that it can be released
    /// whatever becomes of the answer: links to the tables of one moment, in a directory on the node's machine.
    ///
    /// # Errors
    /// See [`Error`]. Whether there is a checkpoint then is not known: release it.
    pub async fn make_checkpoint(&self, id: u64) -> Result<Checkpoint, Error> {
        let action = CheckpointAction::Make;
        let answer = self.ask(&Request::Checkpoint { action, id }).await;
        answer.map(Answer::into_checkpoint)
    }

    /// Removes a checkpoint; no error if there is none of this number.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn release_checkpoint(&self, id: u64) -> Result<(), Error> {
        let action = CheckpointAction::Release;
        self.ask(&Request::Checkpoint { action, id }).await.map(drop)
    }

    /// Asks for all that the node counts and measures: one JSON object.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn stats(&self) -> Result<String, Error> {
        self.ask(&Request::Stats).await.map(Answer::into_json)
    }

    pub(super) async fn ask(&self, request: &Request<'_>) -> Result<Answer, Error> {
        self.call(request, false).await.map(|(answer, _)| answer)
    }
}

/// The task ends with its runtime, or by a bug in it.
fn task_ended() -> Error {
    Error::Lost {
        source: Arc::new(io::Error::other("the client's task has ended with its runtime")),
    }
}
