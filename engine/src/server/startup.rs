//! How the cores of a node start together: who scans which log, who takes over which shard.
//!
//! Core 0 leads; every step is a message, so that the same code starts a node in simulation.
//! 1. Core 0 opens the identity (new boot number), removes checkpoints, lists the logs, and tells all:
//!    [`StartMessage::Open`].
//! 2. Each core scans the logs `l` with `l % cores` equal to its number: [`StartMessage::Scanned`].
//! 3. Core 0 finds, per shard, the log with the highest complete ownership epoch, and assigns shards to
//!    cores: [`StartMessage::Assign`].
//! 4. Each core replays its shards, from whatever log holds them, into memtables, and opens its own log. A
//!    shard from another log is copied into it under a higher epoch, which counts once it is complete.
//!    When all is durable, each shard leads and has applied its term's first entry: [`StartMessage::Ready`].
//! 5. Core 0 frees the logs that nobody needs any more and all cores listen: [`StartMessage::Listen`],
//!    [`StartMessage::Listening`].
//!
//! Whatever fails on one core ends the start on all, with its sentence: [`StartMessage::Failed`].

use core::net::SocketAddr;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use ostrakon_core::hlc::{Hlc, Timestamp};
use ostrakon_core::raft::{EntryId, HardState, LogIndex, ReplicaId};
use ostrakon_wire::routing::ShardId;

use super::message::{CoreBatch, CoreMessage};
use super::outbox::send;
use super::replaying::{make_space, replay_chain, replay_shards};
use crate::cluster::identity::{Identity, Wanted, open_identity};
use crate::cluster::placement::assign;
use crate::env::{CoreId, Env};
use crate::log::format::{LogId, OwnershipEpoch, RecordKind, ShardState};
use crate::log::recovery::{LogChain, ScanOptions, remove_void_segments, scan};
use crate::log::{Log, LogConfig, log_directory, parse_log_directory};
use crate::shard::host::HostOptions;
use crate::shard::replica::ShardReplica;
use crate::storage::sstable::cache::BlockCache;
use crate::storage::store::checkpoint::remove_checkpoints;
use crate::storage::store::files::StoreOptions;

/// Suffix of a log directory that is being freed.
pub(super) const FREED_SUFFIX: &str = ".freed";

/// Where a shard lies before this start, and who gets it.
#[derive(Clone, Copy, Debug)]
pub struct ShardHome {
    /// Log and epoch that hold it; `None` for a shard of a new cluster.
    pub source: Option<(LogId, OwnershipEpoch)>,
    /// Its newest durable hard state.
    pub hard_state: HardState,
    /// Its log starts after this entry.
    pub base: EntryId,
    /// The core that serves it from now on.
    pub owner: CoreId,
    /// The epoch under which its owner's log holds it.
    pub epoch: OwnershipEpoch,
}

/// The result of step 3, the same for all cores.
#[derive(Debug)]
pub struct Assignment {
    /// Who the node is.
    pub identity: Identity,
    /// By shard.
    pub homes: Vec<ShardHome>,
    /// Every log that exists.
    pub chains: Vec<LogChain>,
}

/// A step of start or stop.
#[derive(Clone, Debug)]
pub enum StartMessage {
    /// Scan your part of these logs.
    Open(Identity, Vec<LogId>),
    /// What they hold.
    Scanned(Vec<LogChain>),
    /// Take your shards.
    Assign(Arc<Assignment>),
    /// Done.
    Ready {
        /// Entries replayed by this core.
        entries: u64,
        /// Its clock: above all that it replayed.
        clock: Timestamp,
    },
    /// Listen.
    Listen {
        /// Here, if at all.
        address: Option<SocketAddr>,
        /// The highest clock of all cores.
        clock: Timestamp,
    },
    /// Done.
    Listening,
    /// The start failed.
    Failed(String),
    /// Refuse new requests and finish those under way.
    Drain,
    /// Done.
    Drained,
    /// Close log and connections, and end.
    Close,
}

/// What the operator asks for.
#[derive(Clone, Debug)]
pub struct StartOptions {
    /// Data directory.
    pub data: std::path::PathBuf,
    /// Shards, segment length.
    pub wanted: Wanted,
    /// Cut a log at corruption instead of refusing to start.
    pub cut_corrupt: bool,
    /// What a core's shards may take, and how long old versions are kept.
    pub host: HostOptions,
    /// How tables are made and kept in shape.
    pub store: StoreOptions,
}

/// The mesh during start: one message at a time, in order. Messages of serving cores that come early are kept.
pub(super) struct StartMesh {
    env: Env<CoreBatch>,
    inbox: VecDeque<(CoreId, StartMessage)>,
    early: Vec<(CoreId, CoreBatch)>,
}

impl StartMesh {
    pub(super) fn new(env: Env<CoreBatch>) -> StartMesh {
        StartMesh {
            env,
            inbox: VecDeque::new(),
            early: Vec::new(),
        }
    }

    /// Sends to one core; to this core itself it goes straight into the inbox.
    pub(super) async fn send(&mut self, to: CoreId, message: StartMessage) {
        if to == self.env.core {
            self.inbox.push_back((to, message));
            return;
        }
        let messages = vec![CoreMessage::Start(Box::new(message))];
        send(
            &self.env,
            to,
            CoreBatch {
                messages,
                ..CoreBatch::default()
            },
        )
        .await;
    }

    /// Sends to all cores, this one included.
    pub(super) async fn send_all(&mut self, message: &StartMessage) {
        for core in 0..self.env.cores {
            self.send(CoreId(core), message.clone()).await;
        }
    }

    /// The next message.
    ///
    /// # Errors
    /// The sentence of [`StartMessage::Failed`].
    pub(super) async fn recv(&mut self) -> Result<(CoreId, StartMessage), String> {
        loop {
            if let Some((from, message)) = self.inbox.pop_front() {
                return match message {
                    StartMessage::Failed(sentence) => Err(sentence),
                    message => Ok((from, message)),
                };
            }
            let mut batches = Vec::new();
            std::future::poll_fn(|cx| {
                self.env
                    .mesh
                    .poll_drain(cx, &mut |from, batch| batches.push((from, batch)))
            })
            .await;
            for (from, mut batch) in batches {
                let starts = batch
                    .messages
                    .extract_if(.., |message| matches!(message, CoreMessage::Start(_)));
                for start in starts {
                    if let CoreMessage::Start(message) = start {
                        self.inbox.push_back((from, *message));
                    }
                }
                if !batch.messages.is_empty() {
                    self.early.push((from, batch));
                }
            }
        }
    }

    /// What came before this core serves: messages of the start, and batches of cores that serve already.
    pub(super) fn into_early(self) -> Early {
        Early {
            messages: self.inbox.into(),
            batches: self.early,
        }
    }
}

/// What came to a core before it serves.
pub(super) struct Early {
    pub(super) messages: Vec<(CoreId, StartMessage)>,
    pub(super) batches: Vec<(CoreId, CoreBatch)>,
}

/// What a core starts to serve with.
pub(super) struct Recovered {
    pub(super) assignment: Arc<Assignment>,
    pub(super) log: Log,
    pub(super) replicas: Vec<Option<ShardReplica>>,
    /// Shards that came from another log; their tail is in this log and not complete yet.
    pub(super) taken_over: Vec<(ShardId, OwnershipEpoch, ShardState)>,
    pub(super) cache: Rc<BlockCache>,
    pub(super) hlc: Hlc,
    pub(super) entries: u64,
    /// Of manifests, in sentences.
    pub(super) sync_failures: Vec<String>,
}

/// Steps 1 and 3 for core 0.
pub(super) async fn lead(mesh: &mut StartMesh, options: &StartOptions) -> Result<(), String> {
    let env = mesh.env.clone();
    let (identity, _) = open_identity(&*env.disk, &*env.random, &options.data, options.wanted).await?;
    let removed = remove_checkpoints(&*env.disk, &options.data).await;
    removed.map_err(|error| error.to_string())?;
    let logs = list_logs(&env, &options.data).await?;
    mesh.send_all(&StartMessage::Open(identity, logs)).await;
    Ok(())
}

/// Makes sure that every log that held shards when the node last served is there: a shard may have an older
/// copy in another log, which must not be taken for the shard.
///
/// # Errors
/// A sentence that names the missing log.
pub(super) fn check_logs(
    options: &StartOptions,
    identity: &Identity,
    chains: &[LogChain],
) -> Result<(), String> {
    let holds_batches = |log: u32| {
        chains
            .iter()
            .any(|chain| chain.log.0 == log && !chain.segments.is_empty())
    };
    match (0..identity.logs).find(|log| !holds_batches(*log)) {
        Some(log) if !options.cut_corrupt => Err(format!(
            "{} is missing or has no log in it, although it had one when the node last served. Restore it; to start \
             without what it held, add --cut-corrupt-log",
            log_directory(&options.data, LogId(log)).display()
        )),
        _ => Ok(()),
    }
}

/// Step 3 for core 0, once every core has scanned.
pub(super) fn decide(identity: Identity, mut chains: Vec<LogChain>, cores: u16) -> Assignment {
    chains.sort_by_key(|chain| chain.log);
    let mut best: BTreeMap<ShardId, (LogId, OwnershipEpoch, HardState, EntryId)> = BTreeMap::new();
    let mut highest: BTreeMap<ShardId, OwnershipEpoch> = BTreeMap::new();
    for chain in &chains {
        for (shard, found) in &chain.shards {
            let seen = highest.entry(*shard).or_default();
            *seen = (*seen).max(found.highest);
            if let Some((epoch, hard_state, base)) = found.complete
                && best.get(shard).is_none_or(|(_, known, _, _)| epoch > *known)
            {
                best.insert(*shard, (chain.log, epoch, hard_state, base));
            }
        }
    }
    let previous: Vec<Option<CoreId>> = (0..identity.shards)
        .map(|shard| best.get(&ShardId(shard)).map(|(log, ..)| CoreId(log.0 as u16)))
        .collect();
    let owners = assign(&previous, cores);
    let homes = owners
        .into_iter()
        .enumerate()
        .map(|(shard, owner)| {
            let shard = ShardId(shard as u32);
            let above = OwnershipEpoch(highest.get(&shard).map_or(0, |epoch| epoch.0) + 1);
            match best.get(&shard) {
                Some(&(log, epoch, hard_state, base)) => {
                    let stays = log.0 == u32::from(owner.0);
                    let source = Some((log, epoch));
                    ShardHome {
                        source,
                        hard_state,
                        base,
                        owner,
                        epoch: if stays { epoch } else { above },
                    }
                }
                None => ShardHome {
                    source: None,
                    hard_state: HardState::default(),
                    base: EntryId::default(),
                    owner,
                    epoch: above,
                },
            }
        })
        .collect();
    Assignment {
        identity,
        homes,
        chains,
    }
}

/// Step 2: scans this core's part of the logs. `report` hears of every tail that was cut.
pub(super) async fn scan_logs(
    env: &Env<CoreBatch>,
    options: &StartOptions,
    identity: Identity,
    logs: &[LogId],
    report: &dyn Fn(&LogChain),
) -> Result<Vec<LogChain>, String> {
    let scan_options = ScanOptions {
        segment_bytes: identity.segment_bytes,
        cut_corrupt: options.cut_corrupt,
    };
    let mut chains = Vec::new();
    for log in logs
        .iter()
        .filter(|log| log.0 % u32::from(env.cores) == u32::from(env.core.0))
    {
        let chain = scan(&*env.disk, &*env.tasks, &options.data, *log, scan_options)
            .await
            .map_err(|error| error.to_string())?;
        if let Some(head) = chain.head
            && (head.cluster != identity.cluster || head.node != identity.node)
        {
            return Err(format!(
                "{} belongs to node {:016x} of cluster {:016x}{:016x}, this is node {:016x} of {:016x}{:016x}: the \
                 directory was mixed up; restore it",
                log_directory(&options.data, *log).display(),
                head.node,
                head.cluster.0,
                head.cluster.1,
                identity.node,
                identity.cluster.0,
                identity.cluster.1
            ));
        }
        report(&chain);
        chains.push(chain);
    }
    Ok(chains)
}

/// Step 4 up to the open log: replays this core's shards and copies those from other logs into its own.
/// The log is started by the caller, after which `taken_over` is to be completed.
pub(super) async fn recover(
    env: &Env<CoreBatch>,
    options: &StartOptions,
    assignment: Arc<Assignment>,
) -> Result<Recovered, String> {
    let own = LogId(u32::from(env.core.0));
    let identity = assignment.identity;
    let cache = Rc::new(BlockCache::new(options.host.cache_bytes));
    let mut shards = replay_shards(env, options, &assignment, &cache).await?;
    remove_void(env, &options.data, &assignment).await?;
    make_space(env, options, identity.segment_bytes, &mut shards).await?;
    let sync_failures = shards.values().filter_map(|shard| shard.sync_failure());
    let sync_failures = sync_failures
        .map(|failure| format!("{failure}. The manifest was written anew"))
        .collect();
    let log = open_log(env, options, &assignment).await?;
    let mut hlc = Hlc::default();
    let mut replicas: Vec<Option<ShardReplica>> = (0..assignment.homes.len()).map(|_| None).collect();
    let mut taken_over = Vec::new();
    let mut entries = 0;
    let replica_id = ReplicaId(identity.node);
    for (shard, recovering) in shards {
        let home = &assignment.homes[shard.0 as usize];
        entries += recovering.replayed();
        let moves = home.source.is_some_and(|(log, _)| log != own);
        let (replica, state) = recovering.finish(replica_id, home.epoch, home.hard_state, &mut hlc);
        let in_head = ShardState {
            complete: !moves,
            ..state
        };
        log.set_shard_state(shard, home.epoch, in_head);
        if moves {
            taken_over.push((shard, home.epoch, state));
        }
        replicas[shard.0 as usize] = Some(replica);
    }
    let leaves = |home: &ShardHome| home.source.is_some_and(|(log, _)| log == own) && home.owner != env.core;
    if !assignment.homes.iter().any(leaves) {
        log.allow_freeing();
    }
    Ok(Recovered {
        assignment,
        log,
        replicas,
        taken_over,
        cache,
        hlc,
        entries,
        sync_failures,
    })
}

async fn open_log(
    env: &Env<CoreBatch>,
    options: &StartOptions,
    assignment: &Assignment,
) -> Result<Log, String> {
    let identity = assignment.identity;
    let own = LogId(u32::from(env.core.0));
    let config = LogConfig {
        data: options.data.clone(),
        log: own,
        boot: identity.boot,
        cluster: identity.cluster,
        node: identity.node,
        shards: identity.shards,
        segment_bytes: identity.segment_bytes,
        logs: env.cores,
    };
    let seams = (Rc::clone(&env.disk), Rc::clone(&env.tasks), Rc::clone(&env.clock));
    let chain = assignment.chains.iter().find(|chain| chain.log == own);
    Log::open(config, seams, chain)
        .await
        .map_err(|error| error.to_string())
}

/// Copies the entries of shards that came from other logs into this core's log, then marks them complete.
pub(super) async fn take_over(
    env: &Env<CoreBatch>,
    options: &StartOptions,
    recovered: &Recovered,
) -> Result<(), String> {
    if recovered.taken_over.is_empty() {
        return Ok(());
    }
    let assignment = &recovered.assignment;
    let flushed: BTreeMap<ShardId, LogIndex> = recovered
        .taken_over
        .iter()
        .map(|(shard, _, state)| (*shard, state.base.index))
        .collect();
    let comes_from = |log: LogId| {
        let homes = recovered
            .taken_over
            .iter()
            .map(|(shard, _, _)| &assignment.homes[shard.0 as usize]);
        homes
            .filter_map(|home| home.source)
            .any(|(source, _)| source == log)
    };
    for chain in assignment.chains.iter().filter(|chain| comes_from(chain.log)) {
        for segment in &chain.segments {
            let mut one = chain.clone();
            one.segments = vec![segment.clone()];
            let mut copy = |record: crate::log::format::Record<'_>| {
                let home = assignment.homes.get(record.shard.0 as usize);
                if let Some(home) = home
                    && home.owner == env.core
                    && home.source == Some((chain.log, record.epoch))
                    && record.kind == RecordKind::Entry
                    && flushed
                        .get(&record.shard)
                        .is_some_and(|flushed| record.entry.index > *flushed)
                {
                    recovered
                        .log
                        .append_entry(record.shard, home.epoch, record.entry, &[record.payload]);
                }
                Ok(())
            };
            replay_chain(
                env,
                &options.data,
                &one,
                assignment.identity.segment_bytes,
                &mut copy,
            )
            .await?;
            // A segment at a time, so that what waits for the log stays bounded.
            recovered.log.room().await;
            if recovered.log.has_failed() || recovered.log.is_stuck() {
                return Ok(());
            }
        }
    }
    for (shard, epoch, state) in &recovered.taken_over {
        recovered.log.append_state(*shard, *epoch, *state);
    }
    Ok(())
}

/// Step 5 for core 0: removes the logs of cores that are no more, whose shards all have a new home, and what
/// an interrupted removal left.
pub(super) async fn free_logs(
    env: &Env<CoreBatch>,
    data: &Path,
    assignment: &Assignment,
) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("can't free an old log in {}: {error}", data.display());
    let parent = data.join("log");
    // First what an interrupted start left: a directory of the same name would be in the way.
    remove_freed(env, &parent).await.map_err(failed)?;
    for chain in assignment
        .chains
        .iter()
        .filter(|chain| chain.log.0 >= u32::from(env.cores))
    {
        let directory = log_directory(data, chain.log);
        let freed = directory.with_extension(&FREED_SUFFIX[1..]);
        env.disk.rename(&directory, &freed).await.map_err(failed)?;
        env.disk.sync_dir(&parent).await.map_err(failed)?;
    }
    remove_freed(env, &parent).await.map_err(failed)
}

async fn remove_freed(env: &Env<CoreBatch>, parent: &Path) -> std::io::Result<()> {
    for entry in env.disk.list(parent).await? {
        if entry.is_dir && entry.name.ends_with(FREED_SUFFIX) {
            let directory = parent.join(&entry.name);
            for file in env.disk.list(&directory).await? {
                env.disk.remove(&directory.join(&file.name)).await?;
            }
            env.disk.remove_dir(&directory).await?;
        }
    }
    Ok(())
}

/// Removes segments of this core's log that its chain does not hold.
async fn remove_void(env: &Env<CoreBatch>, data: &Path, assignment: &Assignment) -> Result<(), String> {
    let own = LogId(u32::from(env.core.0));
    if let Some(chain) = assignment.chains.iter().find(|chain| chain.log == own) {
        remove_void_segments(&*env.disk, data, chain)
            .await
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn list_logs(env: &Env<CoreBatch>, data: &Path) -> Result<Vec<LogId>, String> {
    let failed = |error: std::io::Error| format!("can't list the logs in {}: {error}", data.display());
    let entries = env.disk.list(data).await.map_err(failed)?;
    if !entries.iter().any(|entry| entry.is_dir && entry.name == "log") {
        return Ok(Vec::new());
    }
    let mut logs: Vec<LogId> = env
        .disk
        .list(&data.join("log"))
        .await
        .map_err(failed)?
        .iter()
        .filter(|entry| entry.is_dir)
        .filter_map(|entry| parse_log_directory(&entry.name))
        .collect();
    logs.sort();
    Ok(logs)
}
