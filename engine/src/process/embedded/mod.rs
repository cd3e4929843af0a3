//! The engine inside a program: the same shards, log and tables as a node's, without a network.
//!
//! ```no_run
//! use ostrakon::{Batch, Condition, Engine, ScanOptions};
//!
//! fn main() -> Result<(), ostrakon::EngineError> {
//!     let engine = Engine::open("./ostrakon-data")?;
//!     engine.put(b"greeting", b"hello")?;
//!     assert_eq!(engine.get(b"greeting")?.as_deref(), Some(&b"hello"[..]));
//!
//!     // Keys with the same part in braces lie in one shard, and a batch is all or nothing.
//!     let mut batch = Batch::new();
//!     batch.put(b"{cart/7}/apples", b"3").add(b"{cart/7}/items", 3);
//!     engine.batch(&batch)?;
//!
//!     engine.put_if(b"lock", b"mine", Condition::Absent)?;
//!     for entry in engine.scan(&ScanOptions::prefix(b"{cart/7}/"))? {
//!         let entry = entry?;
//!         println!("{} = {}", entry.key.escape_ascii(), entry.value.escape_ascii());
//!     }
//!     engine.close()
//! }
//! ```
//!
//! An [`Engine`] may be used by any number of threads. Each call goes to the core that owns the key and comes back,
//! which costs two wake-ups of a thread: fine where a write waits for the disk, much where a read lies in memory. Code
//! that reads a lot runs on the cores themselves ([`Engine::run`], [`CoreEngine`]).
//!
//! All that a node guarantees holds here: single operations are linearizable, a batch is all or nothing, a write is on
//! stable storage when it returns. One process at a time has a data directory, so a node can serve it afterwards.

mod batch;
mod error;
mod on_core;
mod scan;

pub use batch::{Applied, Batch};
pub use error::EngineError;
pub use on_core::{CoreEngine, Value};
pub use ostrakon_core::lsm::{CompactionStrategy, Options as CompactionOptions};
pub use ostrakon_wire::message::{Action, BatchOperation, Condition};
pub use scan::{Entries, Entry, Page, ScanOptions, Scanner};

pub use crate::storage::sstable::builder::TableOptions;
pub use crate::storage::sstable::format::Codec;
pub use crate::storage::store::files::StoreOptions;

use core::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use ostrakon_wire::message::{Found, Request};
use ostrakon_wire::routing::shard_of;

use crate::env::CoreId;
use crate::env::foreign::ForeignSender;
use crate::process::node::{NodeHandle, NodeOptions, OperatorCommand, start_for_programs};
use crate::server::programs::{CoreClient, ProgramJob, poll_at_once};
use crate::server::status::report::StatsReport;
use crate::shard::host::hashes;

/// What an engine is opened with. `None` takes the default, or what the data directory has.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Data directory; made if it is not there.
    pub data_dir: PathBuf,
    /// Cores, each with a thread of its own; one per allowed CPU by default.
    pub cores: Option<u16>,
    /// CPUs to run on, core `i` on the `i`-th; the allowed ones by default.
    pub cpus: Option<Vec<usize>>,
    /// Shards of a new data directory; four per core by default. Must match an existing one.
    pub shards: Option<u32>,
    /// Memory for data, all cores together: a quarter for memtables, the rest for cached blocks. 60 % of what the
    /// machine has free by default.
    pub memory_bytes: Option<u64>,
    /// Poll before sleeping: lower latency between cores, for CPUs that nobody else uses.
    pub spin: bool,
    /// How tables are made and kept in shape.
    pub store: StoreOptions,
}

impl EngineOptions {
    /// The defaults.
    pub fn new(data_dir: impl Into<PathBuf>) -> EngineOptions {
        EngineOptions {
            data_dir: data_dir.into(),
            cores: None,
            cpus: None,
            shards: None,
            memory_bytes: None,
            spin: false,
            store: StoreOptions::default(),
        }
    }
}

/// A database inside this process. Dropping it closes it, but tells of no error then.
pub struct Engine {
    /// None once it is closed.
    node: Mutex<Option<NodeHandle>>,
    commands: ForeignSender<OperatorCommand>,
    cores: Arc<Cores>,
}

/// How the cores of an engine are reached.
struct Cores {
    jobs: Vec<ForeignSender<ProgramJob>>,
    /// By shard.
    owners: Arc<[CoreId]>,
}

impl Cores {
    fn owner(&self, key: &[u8]) -> CoreId {
        self.owners[shard_of(hashes(key).0, self.owners.len() as u32).0 as usize]
    }

    fn send(&self, core: CoreId, job: ProgramJob) -> Result<(), EngineError> {
        let sent = self.jobs[core.index()].send(job);
        sent.map_err(|_| EngineError::Closed)
    }
}

impl Engine {
    /// Opens a data directory with the defaults, and makes it if it is not there.
    ///
    /// # Errors
    /// [`EngineError::Open`]: it can't be made, another process has it, or what is in it can't be used.
    pub fn open(data_dir: impl AsRef<Path>) -> Result<Engine, EngineError> {
        Engine::open_with(EngineOptions::new(data_dir.as_ref()))
    }

    /// Opens a data directory.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_with(options: EngineOptions) -> Result<Engine, EngineError> {
        let options = NodeOptions {
            cores: options.cores,
            cpus: options.cpus,
            shards: options.shards,
            memory_bytes: options.memory_bytes,
            spin: options.spin,
            store: options.store,
            ..NodeOptions::new(options.data_dir)
        };
        let (node, jobs) = start_for_programs(options)?;
        let owners = Arc::clone(node.owners());
        Ok(Engine {
            commands: node.command_sender(),
            node: Mutex::new(Some(node)),
            cores: Arc::new(Cores { jobs, owners }),
        })
    }

    /// Number of cores.
    pub fn cores(&self) -> u16 {
        self.cores.jobs.len() as u16
    }

    /// The core that owns a key, for [`Engine::run`].
    pub fn owner(&self, key: &[u8]) -> u16 {
        self.cores.owner(key).0
    }

    /// The newest value of a key.
    ///
    /// # Errors
    /// Why it can't be told.
    pub fn get(&self, key: &[u8]) -> Result<Option<Value>, EngineError> {
        Request::Get { key }.check()?;
        let key = key.to_vec();
        self.call(self.cores.owner(&key), |core| async move {
            let read = core.read(&key, |found| found.map(Value::of)).await;
            Ok(read?)
        })?
    }

    /// Writes a value, whatever the key has. Returns the version that it made.
    ///
    /// # Errors
    /// Why it was not done; after [`EngineError::is_outcome_unknown`] errors it may have been.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<u64, EngineError> {
        self.put_if(key, value, Condition::None)
    }

    /// Writes a value that is gone again after a while.
    ///
    /// # Errors
    /// As [`Engine::put`].
    pub fn put_expiring(&self, key: &[u8], value: &[u8], ttl: Duration) -> Result<u64, EngineError> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        self.write(key, Action::Put { value, ttl_ms }, Condition::None)
    }

    /// Writes a value if the key is as the condition wants it.
    ///
    /// # Errors
    /// As [`Engine::put`], and [`EngineError::ConditionFailed`].
    pub fn put_if(&self, key: &[u8], value: &[u8], condition: Condition<'_>) -> Result<u64, EngineError> {
        self.write(key, Action::Put { value, ttl_ms: 0 }, condition)
    }

    /// Removes a key, whether it is there or not.
    ///
    /// # Errors
    /// As [`Engine::put`].
    pub fn delete(&self, key: &[u8]) -> Result<u64, EngineError> {
        self.write(key, Action::Delete, Condition::None)
    }

    fn write(&self, key: &[u8], action: Action<'_>, condition: Condition<'_>) -> Result<u64, EngineError> {
        let mut batch = Batch::new();
        batch.push(key, action, condition);
        Ok(self.batch(&batch)?.version)
    }

    /// Does several things to keys of one shard, all or nothing. Keys with the same part in braces lie in one shard.
    ///
    /// # Errors
    /// As [`Engine::put_if`], and [`EngineError::NotOneShard`].
    pub fn batch(&self, batch: &Batch) -> Result<Applied, EngineError> {
        batch.check()?;
        let owner = self.cores.owner(batch.first_key());
        let batch = batch.clone();
        self.call(owner, |core| async move { batch.write(&core).await })?
    }

    /// Removes all keys from `start` up to `end`; none is the end of all keys. It takes as long for many keys as for
    /// few. In each shard it is all or nothing. Returns the highest version that it made.
    ///
    /// # Errors
    /// As [`Engine::put`]; the sentence tells in how many shards it was done nevertheless.
    pub fn delete_range(&self, start: &[u8], end: Option<&[u8]>) -> Result<u64, EngineError> {
        check_range(start, end)?;
        let (start, end) = (start.to_vec(), end.map(<[u8]>::to_vec));
        self.call(CoreId(0), |core| async move {
            Ok(core.delete_range(&start, end.as_deref()).await?.0)
        })?
    }

    /// The keys of a range in order, as they all were at one moment: not before this call.
    ///
    /// # Errors
    /// [`EngineError::Invalid`]. What stops the scan on its way is its last item: one that takes longer than old
    /// versions are kept ends with a refusal of the code `SnapshotTooOld`.
    pub fn scan(&self, options: &ScanOptions) -> Result<Entries<'_>, EngineError> {
        Entries::begin(self, options)
    }

    /// Runs code on a core, and waits for what it returns. It must not block the thread: all that the core does would
    /// wait.
    ///
    /// # Errors
    /// [`EngineError::Closed`].
    ///
    /// # Panics
    /// If there is no such core.
    pub fn run<F, R>(
        &self,
        core: u16,
        program: impl FnOnce(CoreEngine) -> F + Send + 'static,
    ) -> Result<R, EngineError>
    where
        F: Future<Output = R> + 'static,
        R: Send + 'static,
    {
        let cores = Arc::clone(&self.cores);
        self.call(CoreId(core), |client| program(CoreEngine::new(client, cores)))
    }

    /// Everything that the engine counts and measures.
    ///
    /// # Errors
    /// [`EngineError::Closed`].
    pub fn statistics(&self) -> Result<StatsReport, EngineError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let answer = Box::new(move |report| {
            // Who asked may have given up.
            let _ = sender.send(report);
        });
        let sent = self.commands.send(OperatorCommand::Report(answer));
        sent.map_err(|_| EngineError::Closed)?;
        receiver.recv().map_err(|_| EngineError::Closed)
    }

    /// Ends what is under way, and closes the data directory.
    ///
    /// # Errors
    /// If a core has ended by a panic before.
    pub fn close(self) -> Result<(), EngineError> {
        self.shut_down()
    }

    fn shut_down(&self) -> Result<(), EngineError> {
        let node = self.node.lock().unwrap_or_else(PoisonError::into_inner).take();
        match node {
            Some(node) => Ok(node.shutdown()?),
            None => Ok(()),
        }
    }

    /// Runs a future on a core and waits for its output.
    fn call<F, R>(
        &self,
        core: CoreId,
        make: impl FnOnce(CoreClient) -> F + Send + 'static,
    ) -> Result<R, EngineError>
    where
        F: Future<Output = R> + 'static,
        R: Send + 'static,
    {
        let (sender, receiver) = mpsc::sync_channel(1);
        // Who asked waits, so sending fails in no case.
        let answer = move |output| drop(sender.send(output));
        self.cores.send(core, job(make, answer))?;
        receiver.recv().map_err(|_| EngineError::Closed)
    }
}

fn check_range(start: &[u8], end: Option<&[u8]>) -> Result<(), EngineError> {
    let request = Request::DeleteRange {
        start,
        end,
        retry: None,
    };
    Ok(request.check()?)
}

/// A job that runs a future and passes its output on: at once if it ends without waiting, else from a task.
fn job<F, R>(
    make: impl FnOnce(CoreClient) -> F + Send + 'static,
    answer: impl FnOnce(R) + Send + 'static,
) -> ProgramJob
where
    F: Future<Output = R> + 'static,
{
    Box::new(
        move |client: &CoreClient| match poll_at_once(Box::pin(make(client.clone()))) {
            Ok(output) => answer(output),
            Err(future) => client.spawn(async move { answer(future.await) }),
        },
    )
}

impl Drop for Engine {
    fn drop(&mut self) {
        // `close` tells of errors.
        let _ = self.shut_down();
    }
}

impl core::fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("Engine")
            .field("cores", &self.cores())
            .finish_non_exhaustive()
    }
}

impl Value {
    fn of(found: Found<'_>) -> Value {
        Value {
            bytes: found.value.to_vec(),
            version: found.version,
            expires: found.expires,
        }
    }
}
