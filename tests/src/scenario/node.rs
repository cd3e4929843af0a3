//! The production node on a simulated host: start, what it says, drain.

#![expect(
    clippy::disallowed_types,
    reason = "by type, a node's events may come from any thread; here there is one, and the lock is never contended"
)]

use core::net::SocketAddr;
use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex, PoisonError};

use ostrakon::cluster::identity::Wanted;
use ostrakon::env::CoreId;
use ostrakon::env::foreign::{ForeignReceiver, ForeignSender, channel};
use ostrakon::server::connection_limits::ConnectionLimits;
use ostrakon::server::message::CoreBatch;
use ostrakon::server::node::{Inlets, NodeConfig, NodeEvent, OperatorCommand, run_core};
use ostrakon::server::programs::ProgramJob;
use ostrakon::server::startup::StartOptions;
use ostrakon::server::told::ToldByCores;

use super::programs::NodeCores;
use super::storage::Storage;
use crate::sim::{HostId, ProcessId, ProcessStatus, RunEnd, World};

/// Where nodes listen, on any host.
pub const PORT: u16 = 5750;
/// After how many milliseconds the node closes a connection that asks for nothing; no client of a run is idle for so
/// long while it still has something to do.
pub const IDLE_TIMEOUT_MS: u64 = 45_000;

/// A node that does not serve within this time of the world never will.
const START_NS_MAX: u64 = 120_000_000_000;

/// What a node is started with.
#[derive(Clone, Copy, Debug)]
pub struct NodeSettings {
    /// Cores.
    pub cores: u16,
    /// Shards of a new cluster.
    pub shards: u32,
    /// Length of log segments.
    pub segment_bytes: u64,
    /// What it may take for its data.
    pub storage: Storage,
}

/// How far a node came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It starts.
    Starting,
    /// It serves here.
    Serving(SocketAddr),
    /// It refused to start; its sentence.
    Refused(String),
}

/// A process that runs a node.
pub struct SimNode {
    world: World,
    process: ProcessId,
    events: Arc<Mutex<Vec<NodeEvent>>>,
    commands: ForeignSender<OperatorCommand>,
    jobs: Vec<ForeignSender<ProgramJob>>,
}

impl SimNode {
    /// Starts a node on a host that runs none.
    pub fn start(world: &World, host: HostId, settings: NodeSettings) -> SimNode {
        let events: Arc<Mutex<Vec<NodeEvent>>> = Arc::default();
        let heard = Arc::clone(&events);
        let config = NodeConfig {
            options: StartOptions {
                data: world.data_directory(),
                wanted: Wanted {
                    shards: None,
                    shards_default: settings.shards,
                    segment_bytes: None,
                    segment_bytes_default: settings.segment_bytes,
                },
                cut_corrupt: false,
                host: settings.storage.host,
                store: settings.storage.store,
            },
            data_absolute: world.data_directory(),
            listen: Some(SocketAddr::new(world.address(host), PORT)),
            connections: ConnectionLimits {
                idle_timeout_ms: IDLE_TIMEOUT_MS,
                ..ConnectionLimits::default()
            },
            scrub: settings.storage.scrub,
            told: Arc::new(ToldByCores::new(settings.cores)),
            events: Arc::new(move |event| {
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(event);
            }),
        };
        let (commands, receiver) = channel();
        let receiver: Cell<Option<ForeignReceiver<OperatorCommand>>> = Cell::new(Some(receiver));
        let (jobs, job_receivers): (Vec<_>, Vec<_>) = (0..settings.cores)
            .map(|_| channel())
            .map(|(sender, receiver)| (sender, Some(receiver)))
            .unzip();
        let job_receivers = RefCell::new(job_receivers);
        let process = world.start_process::<CoreBatch>(host, settings.cores, |core, env| {
            let commands = if core == CoreId(0) { receiver.take() } else { None };
            let jobs = job_receivers.borrow_mut()[core.index()].take();
            let inlets = Inlets { commands, jobs };
            Box::pin(run_core(env, config.clone(), inlets))
        });
        SimNode {
            world: world.clone(),
            process,
            events,
            commands,
            jobs,
        }
    }

    /// How programs in its process reach its cores, once it serves.
    pub fn cores(&self) -> Option<NodeCores> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().find_map(|event| match event {
            NodeEvent::Serving { owners, .. } => Some(NodeCores::new(self.jobs.clone(), Arc::clone(owners))),
            _ => None,
        })
    }

    /// How far its start came.
    pub fn progress(&self) -> Progress {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let decided = events.iter().find_map(|event| match event {
            NodeEvent::Serving { address, .. } => address.map(Progress::Serving),
            NodeEvent::StartFailed(sentence) => Some(Progress::Refused(sentence.clone())),
            _ => None,
        });
        decided.unwrap_or(Progress::Starting)
    }

    /// Lets time pass until it serves; where.
    ///
    /// # Panics
    /// If it refuses to start, or takes more than two minutes.
    pub fn run_until_serving(&self) -> SocketAddr {
        let deadline_ns = self.world.now_ns() + START_NS_MAX;
        let starts = |_: &World| self.progress() != Progress::Starting;
        assert_eq!(self.world.run_until(deadline_ns, starts), RunEnd::Met);
        match self.progress() {
            Progress::Serving(address) => address,
            other => panic!("{other:?}"),
        }
    }

    /// Everything that it reported.
    pub fn events(&self) -> Vec<NodeEvent> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True when a core's log has failed, which only a restart ends.
    pub fn has_failed_core(&self) -> bool {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events
            .iter()
            .any(|event| matches!(event, NodeEvent::LogFailed(..)))
    }

    /// What became of its process.
    pub fn status(&self) -> ProcessStatus {
        self.world.process_status(self.process)
    }

    /// Asks it to end.
    pub fn drain(&self) {
        // A node that has ended already hears nothing; its status tells.
        let _ended = self.commands.send(OperatorCommand::Drain);
    }
}
