//! An engine as code sees it that runs on one of its cores.

use core::ops::Deref;
use std::sync::Arc;

use ostrakon_wire::message::{Action, BatchOperation, Condition, Found, Request};
use tokio::sync::oneshot;

use super::batch::{Applied, Batch, write};
use super::scan::{ScanOptions, Scanner};
use super::{Cores, EngineError, job};
use crate::env::CoreId;
use crate::server::programs::CoreClient;

/// A key's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    pub(super) bytes: Vec<u8>,
    pub(super) version: u64,
    pub(super) expires: u64,
}

impl Value {
    /// The bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The timestamp of the write that made it.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The timestamp from which on it is gone; 0: it stays.
    pub fn expires(&self) -> u64 {
        self.expires
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// An engine, seen from one of its cores. Keys of this core are read and written without a hop; others through their
/// own core. Await its futures to their end: a read that is dropped half-way may still use the disk.
#[derive(Clone)]
pub struct CoreEngine {
    client: CoreClient,
    id: CoreId,
    cores: Arc<Cores>,
}

impl CoreEngine {
    pub(super) fn new(client: CoreClient, cores: Arc<Cores>) -> CoreEngine {
        CoreEngine {
            id: client.id(),
            client,
            cores,
        }
    }

    /// The core.
    pub fn core(&self) -> u16 {
        self.id.0
    }

    /// The core that owns a key.
    pub fn owner(&self, key: &[u8]) -> u16 {
        self.cores.owner(key).0
    }

    /// Starts a task on this core, which runs beside this one.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.client.spawn(task);
    }

    /// Lets other tasks run, if this one has run for long enough: to be called in loops that seldom wait.
    pub async fn yield_if_due(&self) {
        self.client.yield_if_due().await;
    }

    /// The newest value of a key.
    ///
    /// # Errors
    /// Why it can't be told.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Value>, EngineError> {
        self.read(key, |found| found.map(Value::of)).await
    }

    /// Hands the newest value of a key to `look`: if the key is this core's, where it lies, so that nothing is copied.
    ///
    /// # Errors
    /// Why it can't be told; then `look` is not called.
    pub async fn read<R>(
        &self,
        key: &[u8],
        look: impl FnOnce(Option<Found<'_>>) -> R,
    ) -> Result<R, EngineError> {
        Request::Get { key }.check()?;
        let owner = self.cores.owner(key);
        if owner == self.id {
            return Ok(self.client.read(key, look).await?);
        }
        let key = key.to_vec();
        let read = self.call(owner, move |core| async move {
            core.read(&key, |found| found.map(Value::of)).await
        });
        let value = read.await??;
        Ok(look(value.as_ref().map(|value| Found {
            value,
            version: value.version,
            expires: value.expires,
        })))
    }

    /// Writes a value, whatever the key has. Returns the version that it made.
    ///
    /// # Errors
    /// Why it was not done; after [`EngineError::is_outcome_unknown`] errors it may have been.
    pub async fn put(&self, key: &[u8], value: &[u8]) -> Result<u64, EngineError> {
        self.write_one(key, Action::Put { value, ttl_ms: 0 }).await
    }

    /// Removes a key, whether it is there or not.
    ///
    /// # Errors
    /// As [`CoreEngine::put`].
    pub async fn delete(&self, key: &[u8]) -> Result<u64, EngineError> {
        self.write_one(key, Action::Delete).await
    }

    async fn write_one(&self, key: &[u8], action: Action<'_>) -> Result<u64, EngineError> {
        let operation = BatchOperation {
            key,
            action,
            condition: Condition::None,
        };
        Ok(self.write(&[operation]).await?.version)
    }

    /// Does several things to keys of one shard, all or nothing.
    ///
    /// # Errors
    /// As [`Engine::batch`](super::Engine::batch).
    pub async fn write(&self, operations: &[BatchOperation<'_>]) -> Result<Applied, EngineError> {
        super::batch::check(operations)?;
        let owner = self.cores.owner(operations[0].key);
        if owner == self.id {
            return write(&self.client, operations).await;
        }
        let batch = Batch::of(operations);
        self.call(owner, move |core| async move { batch.write(&core).await })
            .await?
    }

    /// Removes all keys from `start` up to `end`, of all cores; none is the end of all keys.
    ///
    /// # Errors
    /// As [`Engine::delete_range`](super::Engine::delete_range).
    pub async fn delete_range(&self, start: &[u8], end: Option<&[u8]>) -> Result<u64, EngineError> {
        super::check_range(start, end)?;
        Ok(self.client.delete_range(start, end).await?.0)
    }

    /// Begins a scan, whose first page sets the moment that it shows.
    ///
    /// # Errors
    /// [`EngineError::Invalid`].
    pub fn scan(&self, options: &ScanOptions) -> Result<Scanner, EngineError> {
        Scanner::begin(self.client.clone(), options)
    }

    async fn call<F, R>(
        &self,
        core: CoreId,
        make: impl FnOnce(CoreClient) -> F + Send + 'static,
    ) -> Result<R, EngineError>
    where
        F: Future<Output = R> + 'static,
        R: Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        // Who asked may have given up.
        let answer = move |output| drop(sender.send(output));
        self.cores.send(core, job(make, answer))?;
        receiver.await.map_err(|_| EngineError::Closed)
    }
}
