//! One core of a node, from its start to its end.

use core::net::SocketAddr;
use core::time::Duration;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use ostrakon_core::hlc::Timestamp;

use super::connection_limits::ConnectionLimits;
use super::connection_tasks::{admit, admit_handed_over};
use super::core::{Core, CoreSink, SharedCore, receive_batches};
use super::message::{CoreBatch, CoreMessage};
use super::outbox::send_batches;
use super::programs::{CoreClient, ProgramJob, run_jobs};
use super::scrub::{Scrub, ScrubOptions};
use super::startup::{
    Assignment, Early, StartMesh, StartMessage, StartOptions, check_logs, decide, free_logs, lead, recover,
    scan_logs, take_over,
};
use super::status::report::StatsReport;
use super::told::ToldByCores;
use super::upkeep::Upkeep;
use crate::cluster::identity::{Identity, note_logs};
use crate::env::foreign::ForeignReceiver;
use crate::env::local::Notify;
use crate::env::{CoreId, Env, Listener, Priority};
use crate::limits::{DRAIN_TIMEOUT_MS, REPORTS_OPERATOR_MAX};
use crate::log::Log;
use crate::log::recovery::LogChain;
use crate::shard::host::ShardHost;

/// How often the core looks for connections that are over one of their times.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// What the process around the node hears.
#[derive(Clone, Debug)]
pub enum NodeEvent {
    /// All cores serve here.
    Serving {
        /// Where clients connect, if they can.
        address: Option<SocketAddr>,
        /// Who the node is.
        identity: Identity,
        /// The core of each shard.
        owners: Arc<[CoreId]>,
        /// Entries that were replayed from the logs.
        entries: u64,
    },
    /// The node can't start; the sentence says why.
    StartFailed(String),
    /// A log's tail was cut, as after a crash.
    TailCut(String),
    /// A sync failed at the start, and what it may not have stored was written once more: the device should be looked
    /// at.
    SyncFailed(String),
    /// A core's log failed: that core serves nothing any more.
    LogFailed(CoreId, String),
    /// A drain took too long; requests under way were given up.
    DrainTimedOut(CoreId),
    /// A table can't be read, so that it can't be merged with others.
    TableUnreadable(CoreId, String),
    /// The scrub found a place of a table or a manifest that is damaged or can't be read. Told once.
    ScrubFound(CoreId, String),
    /// A log or a shard's files could not be closed cleanly.
    CloseFailed(CoreId, String),
}

/// What an operator tells or asks a running node.
pub enum OperatorCommand {
    /// Drain, close and end.
    Drain,
    /// Report everything that is counted. The callback runs on core 0 and must not block; it is dropped unheard when
    /// the node ends first, or when too many reports are under way.
    Report(Box<dyn FnOnce(StatsReport) + Send>),
}

/// How threads outside reach a core.
#[derive(Default)]
pub struct Inlets {
    /// What an operator tells the node; for core 0.
    pub commands: Option<ForeignReceiver<OperatorCommand>>,
    /// What programs in this process ask of the core.
    pub jobs: Option<ForeignReceiver<ProgramJob>>,
}

/// What a core runs with, the same on all cores.
#[derive(Clone)]
pub struct NodeConfig {
    /// Data directory, shards, memory.
    pub options: StartOptions,
    /// The data directory as other processes of the machine name it: absolute.
    pub data_absolute: PathBuf,
    /// Where to listen for clients, if at all; port 0 lets the system choose one for all cores.
    pub listen: Option<SocketAddr>,
    /// How many clients, and how slow they may be.
    pub connections: ConnectionLimits,
    /// How each core looks for damage.
    pub scrub: ScrubOptions,
    /// What the cores of this process have told.
    pub told: Arc<ToldByCores>,
    /// Hears of events, from any core's thread. Must not block.
    pub events: Arc<dyn Fn(NodeEvent) + Send + Sync>,
}

/// Runs one core until the node shuts down or fails to start.
pub async fn run_core(env: Env<CoreBatch>, config: NodeConfig, inlets: Inlets) {
    let mut mesh = StartMesh::new(env.clone());
    let mut log = None;
    match start(&env, &config, &mut mesh, &mut log).await {
        Ok(running) => {
            let Early { messages, batches } = mesh.into_early();
            running.core.borrow_mut().start_messages.extend(messages);
            for (from, batch) in batches {
                running.core.borrow_mut().receive(from, batch);
            }
            env.tasks.spawn(
                Priority::Foreground,
                Box::pin(receive_batches(Rc::clone(&running.core), env.clone())),
            );
            if let Some(commands) = inlets.commands {
                let control = forward_commands(Rc::clone(&running.core), commands);
                env.tasks.spawn(Priority::Foreground, Box::pin(control));
            }
            if let Some(jobs) = inlets.jobs {
                let jobs = run_jobs(CoreClient::new(Rc::clone(&running.core)), jobs);
                env.tasks.spawn(Priority::Foreground, Box::pin(jobs));
            }
            running.until_closed(&env, &config).await;
        }
        Err(sentence) => {
            // Tell everybody; the first sentence that arrives is the one that is reported.
            if env.core == CoreId(0) {
                (config.events)(NodeEvent::StartFailed(sentence.clone()));
            }
            for core in (0..env.cores).filter(|core| *core != env.core.0) {
                mesh.send(CoreId(core), StartMessage::Failed(sentence.clone()))
                    .await;
            }
            if let Some(log) = log
                && let Err(error) = log.close().await
            {
                (config.events)(NodeEvent::CloseFailed(env.core, error.to_string()));
            }
        }
    }
}

/// A core that serves.
struct Running {
    core: SharedCore,
    log: Log,
    upkeep: Rc<Upkeep>,
    scrub: Rc<Scrub>,
    listener: Option<Rc<dyn Listener>>,
    control_work: Rc<Notify>,
}

/// `opened` gets the log once its tasks run, for the caller to close when the start fails.
async fn start(
    env: &Env<CoreBatch>,
    config: &NodeConfig,
    mesh: &mut StartMesh,
    opened: &mut Option<Log>,
) -> Result<Running, String> {
    let leads = env.core == CoreId(0);
    if leads {
        if let Some(address) = config.listen {
            let claimed = env.network.claim(address);
            claimed.map_err(|error| cannot_listen(address, &error))?;
        }
        lead(mesh, &config.options).await?;
    }
    let assignment = agree(env, config, mesh).await?;
    let (core, log, entries) = recover_core(env, config, Arc::clone(&assignment), opened).await?;
    let clock = core.borrow_mut().host.hlc().peek();
    mesh.send(CoreId(0), StartMessage::Ready { entries, clock }).await;
    let mut all_entries = 0;
    let mut listener = None;
    if leads {
        let (entries, clock) = all_ready(mesh, env.cores).await?;
        all_entries = entries;
        note_logs(
            &*env.disk,
            &config.options.data,
            &assignment.identity,
            u32::from(env.cores),
        )
        .await?;
        free_logs(env, &config.options.data, &assignment).await?;
        listener = config.listen.map(|address| listen(env, address)).transpose()?;
        let address = listener.as_ref().map(|first| first.local_address());
        mesh.send_all(&StartMessage::Listen { address, clock }).await;
    }
    let (from, message) = mesh.recv().await?;
    let StartMessage::Listen { address, clock } = message else {
        return Err(unexpected(from, &message));
    };
    // Every shard that has left this core's log is complete and durable in another by now.
    core.borrow().host.log().allow_freeing();
    // A client brings the timestamps of one core to another, which must not refuse them.
    core.borrow_mut().host.hlc().observe(clock);
    let listener = match (listener, address) {
        (None, Some(address)) => Some(listen(env, address)?),
        (listener, _) => listener,
    };
    // All cores have told what tables they have, and no client is served yet.
    look_at_free_space(&core, env, &config.data_absolute).await;
    mesh.send(CoreId(0), StartMessage::Listening).await;
    if leads {
        all_listening(mesh, env.cores).await?;
        let identity = assignment.identity;
        (config.events)(NodeEvent::Serving {
            address,
            identity,
            owners: assignment.homes.iter().map(|home| home.owner).collect(),
            entries: all_entries,
        });
    }
    let control_work = Rc::clone(&core.borrow().control_work);
    let upkeep = Upkeep::start(&core, env, &config.options.data, Arc::clone(&config.events));
    let scrub = Scrub::start(&core, env, config.scrub, Arc::clone(&config.events));
    let running = Running {
        core,
        log,
        upkeep,
        scrub,
        listener,
        control_work,
    };
    running.spawn_tasks(env, &config.options.data);
    Ok(running)
}

/// Waits until every core has replayed its shards: entries in all, and the highest clock.
async fn all_ready(mesh: &mut StartMesh, cores: u16) -> Result<(u64, Timestamp), String> {
    let (mut all_entries, mut highest) = (0, Timestamp::ZERO);
    for _ in 0..cores {
        match mesh.recv().await? {
            (_, StartMessage::Ready { entries, clock }) => {
                all_entries += entries;
                highest = highest.max(clock);
            }
            (from, other) => return Err(unexpected(from, &other)),
        }
    }
    Ok((all_entries, highest))
}

/// Waits until every core is ready to serve.
async fn all_listening(mesh: &mut StartMesh, cores: u16) -> Result<(), String> {
    for _ in 0..cores {
        match mesh.recv().await? {
            (_, StartMessage::Listening) => {}
            (from, other) => return Err(unexpected(from, &other)),
        }
    }
    Ok(())
}

/// Steps 2 and 3 of the start.
async fn agree(
    env: &Env<CoreBatch>,
    config: &NodeConfig,
    mesh: &mut StartMesh,
) -> Result<Arc<Assignment>, String> {
    let (from, message) = mesh.recv().await?;
    let StartMessage::Open(identity, logs) = message else {
        return Err(unexpected(from, &message));
    };
    let report = |chain: &LogChain| {
        for sentence in &chain.sync_failures {
            (config.events)(NodeEvent::SyncFailed(sentence.clone()));
        }
        let Some(cut) = &chain.cut else { return };
        let what = if cut.is_corruption {
            "CORRUPT, and cut as asked for: acknowledged writes behind it are lost"
        } else {
            "what follows is the unacknowledged tail of a crash"
        };
        let (path, offset, finding) = (cut.path.display(), cut.offset, &cut.finding);
        (config.events)(NodeEvent::TailCut(format!(
            "{path}: the log ends at offset {offset}, {what} ({finding})"
        )));
    };
    let chains = scan_logs(env, &config.options, identity, &logs, &report).await?;
    mesh.send(CoreId(0), StartMessage::Scanned(chains)).await;
    if env.core == CoreId(0) {
        let mut all = Vec::new();
        for _ in 0..env.cores {
            match mesh.recv().await? {
                (_, StartMessage::Scanned(chains)) => all.extend(chains),
                (from, other) => return Err(unexpected(from, &other)),
            }
        }
        check_logs(&config.options, &identity, &all)?;
        let assignment = Arc::new(decide(identity, all, env.cores));
        mesh.send_all(&StartMessage::Assign(assignment)).await;
    }
    match mesh.recv().await? {
        (_, StartMessage::Assign(assignment)) => Ok(assignment),
        (from, other) => Err(unexpected(from, &other)),
    }
}

/// Step 4 of the start.
async fn recover_core(
    env: &Env<CoreBatch>,
    config: &NodeConfig,
    assignment: Arc<Assignment>,
    opened: &mut Option<Log>,
) -> Result<(SharedCore, Log, u64), String> {
    let identity = assignment.identity;
    let mut recovered = recover(env, &config.options, Arc::clone(&assignment)).await?;
    for sentence in recovered.sync_failures.drain(..) {
        (config.events)(NodeEvent::SyncFailed(sentence));
    }
    let log = recovered.log.clone();
    let host = ShardHost::new(
        core::mem::take(&mut recovered.replicas),
        log.clone(),
        core::mem::take(&mut recovered.hlc),
        Rc::clone(&recovered.cache),
        config.options.host,
    );
    let owners = assignment.homes.iter().map(|home| home.owner).collect();
    let told = Arc::clone(&config.told);
    let data = config.data_absolute.clone();
    let core = Core::new(
        env.clone(),
        identity,
        owners,
        host,
        config.connections,
        told,
        data,
    )
    .shared();
    let failure: Rc<RefCell<Option<String>>> = Rc::default();
    let progress = Rc::new(Notify::default());
    let sink = CoreSink {
        core: Rc::downgrade(&core),
        failed: log_failed_handler(env, config, &failure),
        progress: Rc::clone(&progress),
    };
    log.start(Rc::new(sink));
    *opened = Some(log.clone());
    take_over(env, &config.options, &recovered).await?;
    log.drained().await;
    if log.is_stuck() {
        return Err(
            "the file system has no room for the log of the shards that this core takes over: free some \
                    space, or start with the number of cores as before"
                .into(),
        );
    }
    if let Some(sentence) = failure.borrow().clone() {
        return Err(sentence);
    }
    {
        let mut core = core.borrow_mut();
        core.begin_turn();
        core.host.hard_states_durable();
    }
    log.drained().await;
    if log.is_stuck() {
        return Err("the file system has no room for the log: free some space".into());
    }
    while !core.borrow().host.may_serve() {
        if let Some(sentence) = failure.borrow().clone() {
            return Err(sentence);
        }
        progress.notified().await;
    }
    core.borrow().tell_table_bytes();
    Ok((core, log, recovered.entries))
}

fn log_failed_handler(
    env: &Env<CoreBatch>,
    config: &NodeConfig,
    failure: &Rc<RefCell<Option<String>>>,
) -> super::core::LogFailedHandler {
    let events = Arc::clone(&config.events);
    let failure = Rc::clone(failure);
    let core = env.core;
    Rc::new(move |error| {
        *failure.borrow_mut() = Some(error.to_string());
        events(NodeEvent::LogFailed(core, error.to_string()));
    })
}

fn listen(env: &Env<CoreBatch>, address: SocketAddr) -> Result<Rc<dyn Listener>, String> {
    env.network
        .listen(address)
        .map_err(|error| cannot_listen(address, &error))
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> String {
    format!("can't listen on {address}: {error}; is another node running there? choose another with --listen")
}

fn unexpected(from: CoreId, message: &StartMessage) -> String {
    format!(
        "core {} sent an unexpected message during start: {message:?}",
        from.0
    )
}

async fn forward_commands(core: SharedCore, mut commands: ForeignReceiver<OperatorCommand>) {
    loop {
        match commands.recv().await {
            OperatorCommand::Report(answer) => {
                let mut core = core.borrow_mut();
                // What is refused is dropped, and so the one who asked hears of it.
                let handler = Box::new(move |_: &mut Core, report| answer(report));
                let _refused = core.ask_report(REPORTS_OPERATOR_MAX, handler);
            }
            OperatorCommand::Drain => {
                let mut core = core.borrow_mut();
                core.start_messages.push((CoreId(0), StartMessage::Drain));
                for outbox in core.answers.outboxes.iter_mut().skip(1) {
                    outbox.push(CoreMessage::Start(Box::new(StartMessage::Drain)));
                }
                core.control_work.notify();
            }
        }
    }
}

impl Running {
    fn spawn_tasks(&self, env: &Env<CoreBatch>, data: &Path) {
        for peer in (0..env.cores).map(CoreId).filter(|peer| *peer != env.core) {
            let sender = send_batches(Rc::clone(&self.core), env.clone(), peer);
            env.tasks.spawn(Priority::Foreground, Box::pin(sender));
        }
        if let Some(listener) = &self.listener {
            let accept = accept_connections(Rc::clone(&self.core), env.clone(), Rc::clone(listener));
            env.tasks.spawn(Priority::Foreground, Box::pin(accept));
        }
        env.tasks.spawn(
            Priority::Background,
            Box::pin(sweep(Rc::clone(&self.core), env.clone(), data.to_owned())),
        );
    }

    /// Handles control messages until [`StartMessage::Close`].
    async fn until_closed(self, env: &Env<CoreBatch>, config: &NodeConfig) {
        let mut drained = 0;
        loop {
            let (arrivals, messages) = {
                let mut core = self.core.borrow_mut();
                (
                    core::mem::take(&mut core.arrivals),
                    core::mem::take(&mut core.start_messages),
                )
            };
            for hand_over in arrivals {
                admit_handed_over(&self.core, env, hand_over);
            }
            for (_, message) in messages {
                match message {
                    StartMessage::Drain => self.begin_drain(env, config),
                    StartMessage::Drained => {
                        drained += 1;
                        if drained == env.cores {
                            self.tell(env, StartMessage::Close);
                        }
                    }
                    // Another core could not start: this one must not serve without it.
                    StartMessage::Close | StartMessage::Failed(_) => return self.close(env, config).await,
                    other => unreachable!("a step of the start comes to a core that runs: {other:?}"),
                }
            }
            self.control_work.notified().await;
        }
    }

    fn begin_drain(&self, env: &Env<CoreBatch>, config: &NodeConfig) {
        if core::mem::replace(&mut self.core.borrow_mut().is_draining, true) {
            return;
        }
        if let Some(listener) = &self.listener {
            listener.close();
        }
        let timed_out = Rc::new(Cell::new(false));
        let timer = {
            let (core, env, timed_out) = (Rc::clone(&self.core), env.clone(), Rc::clone(&timed_out));
            async move {
                env.tasks.sleep(Duration::from_millis(DRAIN_TIMEOUT_MS)).await;
                timed_out.set(true);
                let quiet = Rc::clone(&core.borrow().quiet);
                quiet.notify();
            }
        };
        env.tasks.spawn(Priority::Foreground, Box::pin(timer));
        let waiter = wait_until_quiet(Rc::clone(&self.core), timed_out, Arc::clone(&config.events));
        env.tasks.spawn(Priority::Foreground, Box::pin(waiter));
    }

    fn tell(&self, env: &Env<CoreBatch>, message: StartMessage) {
        let mut core = self.core.borrow_mut();
        for peer in (0..env.cores).filter(|peer| *peer != env.core.0) {
            core.answers.outboxes[usize::from(peer)].push(CoreMessage::Start(Box::new(message.clone())));
        }
        core.start_messages.push((env.core, message));
        core.control_work.notify();
    }

    async fn close(&self, env: &Env<CoreBatch>, config: &NodeConfig) {
        self.scrub.stop().await;
        self.upkeep.stop().await;
        if let Err(error) = self.log.close().await {
            (config.events)(NodeEvent::CloseFailed(env.core, error.to_string()));
        }
        let stores = self.core.borrow().host.stores();
        for (files, tables) in stores {
            if let Err(error) = files.close(&tables).await {
                (config.events)(NodeEvent::CloseFailed(env.core, error.to_string()));
            }
        }
        self.core.borrow_mut().answers.connections.end_all();
    }
}

async fn wait_until_quiet(
    core: SharedCore,
    timed_out: Rc<Cell<bool>>,
    events: Arc<dyn Fn(NodeEvent) + Send + Sync>,
) {
    let quiet = Rc::clone(&core.borrow().quiet);
    while !core.borrow().is_quiet() && !timed_out.get() {
        quiet.notified().await;
    }
    let mut core = core.borrow_mut();
    if timed_out.get() && !core.is_quiet() {
        events(NodeEvent::DrainTimedOut(core.id()));
    }
    if core.id() == CoreId(0) {
        core.start_messages.push((CoreId(0), StartMessage::Drained));
        core.control_work.notify();
    } else {
        core.answers.outboxes[0].push(CoreMessage::Start(Box::new(StartMessage::Drained)));
    }
}

async fn accept_connections(core: SharedCore, env: Env<CoreBatch>, listener: Rc<dyn Listener>) {
    loop {
        // An error concerns one connection or a lack of descriptors; the environment backs off by itself.
        if let Ok(stream) = poll_fn(|cx| listener.poll_accept(cx)).await {
            admit(&core, &env, stream);
        }
    }
}

async fn sweep(core: SharedCore, env: Env<CoreBatch>, data: PathBuf) {
    loop {
        env.tasks.sleep(SWEEP_INTERVAL).await;
        look_at_free_space(&core, &env, &data).await;
        let mut core = core.borrow_mut();
        core.begin_turn();
        core.end_overdue();
        core.host.tend();
        core.finish_turn();
    }
}

async fn look_at_free_space(core: &SharedCore, env: &Env<CoreBatch>, data: &Path) {
    let table_bytes = core.borrow().tell_table_bytes();
    let log = core.borrow().host.log_need();
    let free_bytes = env.disk.free_bytes(data).await;
    let host = &mut core.borrow_mut().host;
    match free_bytes {
        Ok(free_bytes) => host.note_free_bytes(free_bytes, (env.cores, table_bytes), log),
        Err(_) => host.forget_free_bytes(),
    }
}
