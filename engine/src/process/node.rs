//! Starts a node inside this process and holds its end of the string: for `ostrakon serve`, for programs and
//! benchmarks that embed one.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Instant;

use super::configuration::Effective;
use super::http::{HttpError, HttpServer};
use super::lock::{DirectoryLock, LockError};
use super::preflight::Intent;
use super::preflight::limits::collect_connections;
use super::preflight::machine::{allowed_cpus, collect_memory};
use crate::cluster::identity::{Identity, Wanted};
use crate::env::foreign::{self, ForeignReceiver, ForeignSender};
use crate::env::glommio::runtime::{self, Cores, RuntimeConfig};
use crate::env::{CoreId, Env};
use crate::limits::{CORES_MAX, HELLO_TIMEOUT_MS, SCRUB_BYTES_PER_SECOND_DEFAULT, SEGMENT_BYTES_DEFAULT};
use crate::server::connection_limits::{CONNECTIONS_DEFAULT, ConnectionLimits};
use crate::server::message::CoreBatch;
use crate::server::node::{Inlets, NodeConfig, NodeEvent, run_core};
use crate::server::programs::ProgramJob;
use crate::server::scrub::ScrubOptions;
use crate::server::startup::StartOptions;
use crate::server::told::ToldByCores;
use crate::shard::host::HostOptions;
use crate::storage::store::files::StoreOptions;

pub use crate::server::node::OperatorCommand;

/// Share of the machine's memory that the memtables get when no budget is given, in percent.
const MEMORY_SHARE_PERCENT: u64 = 60;
/// Shards of a new cluster per core; rounded up to a power of two, at least [`SHARDS_MIN`].
const SHARDS_PER_CORE: u32 = 4;
const SHARDS_MIN: u32 = 8;
/// How long an idle core polls before it sleeps when `spin` is on.
const SPIN: std::time::Duration = std::time::Duration::from_micros(50);

/// What a node is started with. `None` takes the default, or what the data directory has.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Data directory; made if it is not there.
    pub data_dir: PathBuf,
    /// Where clients connect; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Where metrics and health are told over HTTP; nowhere by default.
    pub http: Option<SocketAddr>,
    /// Cores; one per allowed CPU by default.
    pub cores: Option<u16>,
    /// Shards of a new cluster; four per core by default. Must match an existing one.
    pub shards: Option<u32>,
    /// Memory for data, all cores together; 60 % of what the machine has free by default.
    pub memory_bytes: Option<u64>,
    /// CPUs to run on, core `i` on the `i`-th; the allowed ones by default.
    pub cpus: Option<Vec<usize>>,
    /// Poll before sleeping: lower latency between cores, for CPUs that nobody else uses.
    pub spin: bool,
    /// Length of a log segment in a new data directory; 64 MiB by default.
    pub segment_bytes: Option<u64>,
    /// Cut a corrupt log at the damage instead of refusing to start.
    pub cut_corrupt_log: bool,
    /// Client connections; by default 20,000, or what the limit of open files allows.
    pub connections_max: Option<u32>,
    /// Client connections from one address; by default half of all.
    pub connections_per_address_max: Option<u32>,
    /// How long a connection may take to say hello.
    pub hello_timeout_ms: u64,
    /// How tables are made and kept in shape.
    pub store: StoreOptions,
    /// How long a connection may be silent with nothing under way; zero: for ever.
    pub idle_timeout_ms: u64,
    /// Bytes a second that each core reads to look for damage in tables; zero: none.
    pub scrub_bytes_per_second: u64,
}

impl NodeOptions {
    /// The defaults: a port of the system's choice on 127.0.0.1.
    pub fn new(data_dir: impl Into<PathBuf>) -> NodeOptions {
        NodeOptions {
            data_dir: data_dir.into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            http: None,
            cores: None,
            shards: None,
            memory_bytes: None,
            cpus: None,
            spin: false,
            segment_bytes: None,
            cut_corrupt_log: false,
            connections_max: None,
            connections_per_address_max: None,
            hello_timeout_ms: HELLO_TIMEOUT_MS,
            idle_timeout_ms: 0,
            store: StoreOptions::default(),
            scrub_bytes_per_second: SCRUB_BYTES_PER_SECOND_DEFAULT,
        }
    }
}

/// Why a node did not start, or did not end well.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The data directory can't be made or another process has it.
    Lock(LockError),
    /// There is no HTTP.
    Http(HttpError),
    /// The executors can't run here.
    Runtime(runtime::StartError),
    /// The node refused; the sentence says why and what to do.
    Refused(String),
    /// A core ended by a panic.
    Panicked(runtime::JoinError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Lock(error) => error.fmt(f),
            StartError::Http(error) => error.fmt(f),
            StartError::Runtime(error) => error.fmt(f),
            StartError::Refused(sentence) => f.write_str(sentence),
            StartError::Panicked(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

/// What a started node says of itself.
#[derive(Clone, Debug)]
pub struct NodeSummary {
    /// Cluster, high and low half.
    pub cluster_id: (u64, u64),
    /// Node.
    pub node_id: u64,
    /// Where metrics and health are told.
    pub http: Option<SocketAddr>,
    /// Cores.
    pub cores: u16,
    /// Shards of the cluster.
    pub shards: u32,
    /// Data directory.
    pub data_dir: PathBuf,
    /// Entries replayed from the logs.
    pub recovered_entries: u64,
    /// From the first step of the start until it served, in milliseconds.
    pub recovery_ms: u64,
}

/// A running node. Dropping it leaves the node running until the process ends.
pub struct NodeHandle {
    /// None if it serves programs in this process alone.
    address: Option<SocketAddr>,
    owners: Arc<[CoreId]>,
    summary: NodeSummary,
    commands: ForeignSender<OperatorCommand>,
    cores: Cores,
    /// Answers until the cores have ended.
    _http: Option<HttpServer>,
    _lock: DirectoryLock,
}

/// Starts a node and waits until it serves.
///
/// # Errors
/// See [`StartError`]; nothing runs then.
pub fn start(options: NodeOptions) -> Result<NodeHandle, StartError> {
    let listen = options.listen;
    start_with(options, Some(listen), Vec::new())
}

/// Starts a node for programs in this process, without clients, and waits until it serves. Core `i` takes the jobs that
/// the `i`-th sender sends.
///
/// # Errors
/// See [`StartError`]; nothing runs then.
pub fn start_for_programs(
    options: NodeOptions,
) -> Result<(NodeHandle, Vec<ForeignSender<ProgramJob>>), StartError> {
    let (senders, receivers) = (0..effective(&options).cores).map(|_| foreign::channel()).unzip();
    Ok((start_with(options, None, receivers)?, senders))
}

fn start_with(
    options: NodeOptions,
    listen: Option<SocketAddr>,
    jobs: Vec<ForeignReceiver<ProgramJob>>,
) -> Result<NodeHandle, StartError> {
    let started = Instant::now();
    let effective = effective(&options);
    let cores = effective.cores;
    if cores == 0 || cores > CORES_MAX {
        return Err(StartError::Refused(format!(
            "{cores} cores: the number must be from 1 to {CORES_MAX}"
        )));
    }
    check_connections(&options, effective.connections_max).map_err(StartError::Refused)?;
    let lock = DirectoryLock::acquire(&options.data_dir).map_err(StartError::Lock)?;
    // A port that is taken is found before anything is written. The lock comes first: its sentence says more.
    let http = options.http.map(HttpServer::start).transpose();
    let http = http.map_err(StartError::Http)?;
    let (event_sender, events) = mpsc::channel();
    let config = node_config(&options, &effective, listen, event_sender);
    let (commands, receiver) = foreign::channel();
    let inlets = Arc::new(Mutex::new(inlets_of_cores(receiver, jobs)));
    let runtime_config = RuntimeConfig {
        spin_before_park: options.spin.then_some(SPIN),
        cpus: Some(effective.cpus),
        ..RuntimeConfig::new(cores, &options.data_dir)
    };
    let main = move |env: Env<CoreBatch>| {
        let inlets = {
            let mut all = inlets.lock().unwrap_or_else(PoisonError::into_inner);
            all.get_mut(env.core.index()).map(core::mem::take)
        };
        run_core(env, config.clone(), inlets.unwrap_or_default())
    };
    let running = runtime::start(runtime_config, main).map_err(StartError::Runtime)?;
    let (running, serving) = started_node(running, &events)?;
    let Serving {
        address,
        identity,
        owners,
        entries,
    } = serving;
    if let Some(http) = &http {
        http.node_serves(commands.clone());
    }
    let summary = NodeSummary {
        cluster_id: identity.cluster,
        node_id: identity.node,
        http: http.as_ref().map(HttpServer::address),
        cores,
        shards: identity.shards,
        data_dir: options.data_dir,
        recovered_entries: entries,
        recovery_ms: started.elapsed().as_millis() as u64,
    };
    Ok(NodeHandle {
        address,
        owners,
        summary,
        commands,
        cores: running,
        _http: http,
        _lock: lock,
    })
}

/// Waits until the node serves.
fn started_node(running: Cores, events: &mpsc::Receiver<Started>) -> Result<(Cores, Serving), StartError> {
    let sentence = match events.recv() {
        Ok(Started::Serving(serving)) => return Ok((running, serving)),
        Ok(Started::Failed(sentence)) => sentence,
        // Every core has dropped its configuration without a word: one of them panicked.
        Err(mpsc::RecvError) => "the node ended while it started".to_owned(),
    };
    let panicked = running.join().err().map(StartError::Panicked);
    Err(panicked.unwrap_or(StartError::Refused(sentence)))
}

impl NodeHandle {
    /// Where clients connect.
    ///
    /// # Panics
    /// If the node is for programs in this process alone.
    pub fn address(&self) -> SocketAddr {
        self.address.expect("a node for clients listens")
    }

    /// The core of each shard.
    pub fn owners(&self) -> &Arc<[CoreId]> {
        &self.owners
    }

    /// What the node said when it started.
    pub fn summary(&self) -> NodeSummary {
        self.summary.clone()
    }

    /// A way to tell and ask the node from any thread.
    pub fn command_sender(&self) -> ForeignSender<OperatorCommand> {
        self.commands.clone()
    }

    /// Waits until the node has ended.
    ///
    /// # Errors
    /// [`StartError::Panicked`] when a core ended by a panic.
    pub fn wait(self) -> Result<(), StartError> {
        self.cores.join().map_err(StartError::Panicked)
    }

    /// Drains the node and waits for its end.
    ///
    /// # Errors
    /// As [`NodeHandle::wait`].
    pub fn shutdown(self) -> Result<(), StartError> {
        // Fails only when the node has already ended.
        let _ = self.commands.send(OperatorCommand::Drain);
        self.wait()
    }
}

enum Started {
    Serving(Serving),
    Failed(String),
}

struct Serving {
    address: Option<SocketAddr>,
    identity: Identity,
    owners: Arc<[CoreId]>,
    entries: u64,
}

fn report(event: NodeEvent, started: &mpsc::Sender<Started>) {
    // Nobody listens once the node has started; what comes then goes to the log only.
    match event {
        NodeEvent::Serving {
            address,
            identity,
            owners,
            entries,
        } => {
            let _ = started.send(Started::Serving(Serving {
                address,
                identity,
                owners,
                entries,
            }));
        }
        NodeEvent::StartFailed(sentence) => {
            let _ = started.send(Started::Failed(sentence));
        }
        NodeEvent::TailCut(sentence) | NodeEvent::SyncFailed(sentence) => tracing::warn!("{sentence}"),
        NodeEvent::LogFailed(core, sentence) => {
            tracing::error!(
                "core {} stops serving: {sentence}; check the disk and restart the node",
                core.0
            );
        }
        NodeEvent::DrainTimedOut(core) => {
            tracing::warn!("core {} gave up waiting for requests under way", core.0);
        }
        NodeEvent::TableUnreadable(core, sentence) => {
            tracing::error!(
                "core {}: {sentence}; what lies there can't be read, and the table is not merged any more",
                core.0
            );
        }
        NodeEvent::ScrubFound(core, sentence) => {
            tracing::error!(
                "core {}: found unasked: {sentence}; stop the node, let `ostrakon check` tell what is lost, and \
                 restore the file",
                core.0
            );
        }
        NodeEvent::CloseFailed(core, sentence) => {
            tracing::error!("core {} could not close its files cleanly: {sentence}", core.0);
        }
    }
}

/// What each core is reached by: commands come to the first.
fn inlets_of_cores(
    commands: ForeignReceiver<OperatorCommand>,
    jobs: Vec<ForeignReceiver<ProgramJob>>,
) -> Vec<Inlets> {
    let mut inlets: Vec<Inlets> = jobs
        .into_iter()
        .map(|jobs| Inlets {
            jobs: Some(jobs),
            commands: None,
        })
        .collect();
    if inlets.is_empty() {
        inlets.push(Inlets::default());
    }
    inlets[0].commands = Some(commands);
    inlets
}

/// Refuses more connections from one address than there are in all, unless it is the system that has lowered those.
fn check_connections(options: &NodeOptions, connections_max: u32) -> Result<(), String> {
    let Some(per_address) = options.connections_per_address_max else {
        return Ok(());
    };
    let wanted = options.connections_max.unwrap_or(CONNECTIONS_DEFAULT);
    if per_address > wanted {
        return Err(format!(
            "{per_address} connections from one address are more than the {wanted} that the node takes in all: lower \
             one, or raise the other"
        ));
    }
    if per_address > connections_max {
        tracing::warn!(
            "{per_address} connections from one address were asked for, but the limit of open files leaves room for \
             {connections_max} in all, which may then come from one"
        );
    }
    Ok(())
}

/// What these options come to on this machine.
pub fn effective(options: &NodeOptions) -> Effective {
    let cpus = options.cpus.clone().unwrap_or_else(allowed_cpus);
    let cores = options
        .cores
        .unwrap_or(cpus.len().min(usize::from(CORES_MAX)) as u16);
    let connections_max = collect_connections(usize::from(cores), options.connections_max).connections_max();
    let memory_bytes = options.memory_bytes.unwrap_or_else(|| {
        let facts = collect_memory(&Intent::new(options.data_dir.clone()));
        // Whole MiB, so that it can be told.
        (facts.usable_bytes() / 100 * MEMORY_SHARE_PERCENT) >> 20 << 20
    });
    Effective {
        cores,
        cpus,
        memory_bytes,
        connections_max,
        connections_per_address_max: options
            .connections_per_address_max
            .unwrap_or(connections_max.div_ceil(2))
            .min(connections_max),
    }
}

fn node_config(
    options: &NodeOptions,
    effective: &Effective,
    listen: Option<SocketAddr>,
    events: mpsc::Sender<Started>,
) -> NodeConfig {
    let shares = ConnectionLimits::shares(
        effective.connections_max,
        effective.connections_per_address_max,
        effective.cores,
    );
    NodeConfig {
        options: start_options(options, effective),
        // Without a current directory the name is no worse than before.
        data_absolute: std::path::absolute(&options.data_dir).unwrap_or_else(|_| options.data_dir.clone()),
        listen,
        connections: ConnectionLimits {
            hello_timeout_ms: options.hello_timeout_ms,
            idle_timeout_ms: options.idle_timeout_ms,
            ..shares
        },
        scrub: ScrubOptions {
            bytes_per_second: options.scrub_bytes_per_second,
            ..ScrubOptions::default()
        },
        told: Arc::new(ToldByCores::new(effective.cores)),
        events: Arc::new(move |event| report(event, &events)),
    }
}

fn start_options(options: &NodeOptions, effective: &Effective) -> StartOptions {
    let cores = effective.cores;
    StartOptions {
        data: options.data_dir.clone(),
        wanted: Wanted {
            shards: options.shards,
            shards_default: (u32::from(cores) * SHARDS_PER_CORE)
                .next_power_of_two()
                .max(SHARDS_MIN),
            segment_bytes: options.segment_bytes,
            segment_bytes_default: SEGMENT_BYTES_DEFAULT,
        },
        cut_corrupt: options.cut_corrupt_log,
        host: HostOptions::for_memory((effective.memory_bytes / u64::from(cores)) as usize),
        store: options.store,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_has_more_connections_than_there_are() {
        let options = |connections_max, connections_per_address_max| NodeOptions {
            connections_max,
            connections_per_address_max,
            ..NodeOptions::new("data")
        };
        for (connections_max, per_address, is_fine) in [
            (None, None, true),
            (Some(10), Some(10), true),
            (Some(10), Some(11), false),
            (None, Some(20_000), true),
            (None, Some(20_001), false),
        ] {
            let checked = check_connections(&options(connections_max, per_address), 10);
            assert_eq!(checked.is_ok(), is_fine, "{connections_max:?} {per_address:?}");
        }
    }
}
