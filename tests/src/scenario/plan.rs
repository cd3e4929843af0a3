//! What a run does, as data: drawn from the seed before the run, so that the shrinker can leave parts out.
//!
//! A plan together with its seed decides everything. The seed alone decides the plan of an ordinary run.

use serde::{Deserialize, Serialize};

use super::plan_faults::{add_late_successors, add_quiet_blip, draw_faults, draw_faults_at};
use super::plan_workload::Workload;
use super::storage::StorageChoice;
use crate::sim::{CrashPoint, CrashStyle, Fault, FaultAction, FaultAt, HostId, SimRandom};

/// The host of the node.
pub const SERVER: HostId = HostId(0);
pub(super) const MILLISECOND_NS: u64 = 1_000_000;

/// One operation of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// How long the thread waits before it.
    pub pause_ns: u64,
    /// What it does.
    pub kind: OperationKind,
    /// To which key, or from which on, by number.
    pub key: u32,
    /// What is written stands for this number; unique in its run.
    pub number: u64,
    /// Length of what is written.
    pub value_bytes: u32,
    /// How long what is written stays, in milliseconds; 0 is for ever.
    #[serde(default)]
    pub ttl_ms: u32,
    /// How a write is sent.
    #[serde(default)]
    pub sending: Sending,
    /// The node is to say where the time goes.
    #[serde(default)]
    pub with_timings: bool,
    /// The request is given up as soon as it is sent; not for writes that are sent several times.
    #[serde(default)]
    pub cancels: bool,
}

impl Operation {
    /// An operation without a pause, sent once.
    pub fn plain(kind: OperationKind, key: u32) -> Operation {
        Operation {
            pause_ns: 0,
            kind,
            key,
            number: 0,
            value_bytes: 0,
            ttl_ms: 0,
            sending: Sending::Once,
            with_timings: false,
            cancels: false,
        }
    }
}

/// How a write is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sending {
    /// Once, whatever comes of it.
    #[default]
    Once,
    /// Again until it is answered.
    Session {
        /// The original travels on a connection of its own, where it is kept back for so long; 0: on a shared one, at
        /// once.
        hold_ns: u64,
        /// How long the original is waited for before the next sending.
        patience_ns: u64,
        /// Then its connection is cut.
        cuts: bool,
    },
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationKind {
    /// Reads a key.
    Get,
    /// Writes a key.
    Put,
    /// Writes a key if it is absent.
    PutIfAbsent,
    /// Writes a key if it is present.
    PutIfPresent,
    /// Writes a key if it has the version that the thread saw last.
    PutIfVersion,
    /// Removes a key.
    Delete,
    /// Removes a key if it has the version that the thread saw last.
    DeleteIfVersion,
    /// Writes a key if it has the value that the thread saw last.
    PutIfValue,
    /// Removes a key if it has the value that the thread saw last.
    DeleteIfValue,
    /// Writes a number.
    PutNumber,
    /// Adds to a number.
    Add,
    /// Writes a key, and some others.
    MultiPut,
    /// Does several things to keys of one shard, if the conditions of all hold.
    Batch,
    /// Removes a range of keys.
    DeleteRange {
        /// Keys in the range, whether there or not.
        keys: u32,
    },
    /// Reads a key, and some others.
    MultiGet,
    /// Writes a key with a sequence at the edge of its session's window, or beyond.
    PutAtWindow,
    /// Asks how the node is and what it counts, and for a sign of life.
    Status,
    /// Makes a checkpoint, and reads all keys in it.
    Checkpoint,
    /// Reads a range of keys at one snapshot.
    Scan {
        /// Keys in the range, whether there or not.
        keys: u32,
    },
    /// The same, from the last to the first.
    ScanBack {
        /// Keys in the range, whether there or not.
        keys: u32,
    },
    /// Reads all keys that begin as this one does.
    ScanPrefix {
        /// So many bytes of the key.
        bytes: u32,
    },
}

impl OperationKind {
    /// What a program does instead, which asks for what concerns one shard, or a range.
    pub(super) fn of_program(self) -> OperationKind {
        match self {
            OperationKind::MultiGet | OperationKind::Status => OperationKind::Get,
            OperationKind::MultiPut | OperationKind::PutAtWindow => OperationKind::Batch,
            OperationKind::Checkpoint => OperationKind::ScanPrefix { bytes: 0 },
            kind => kind,
        }
    }
}

/// A connection that breaks the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rudeness {
    /// When, counted from the moment when the threads begin.
    pub at_ns: u64,
    /// In what way.
    pub kind: RudenessKind,
    /// Decides the details.
    pub number: u64,
}

/// How a connection breaks the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RudenessKind {
    /// Bytes that are no frame.
    Garbage,
    /// Half a hello, and silence.
    HalfHello,
    /// A request before the hello.
    NoHello,
    /// A hello for another version, cluster or core.
    WrongHello,
    /// A second hello.
    SecondHello,
    /// Timestamps that no honest clock shows.
    FarAhead,
    /// A put with a flipped bit: it must not be carried out.
    DamagedFrame,
    /// Requests without end, whose answers are read late, or never.
    NeverReads,
    /// Lists that are empty, too long or name a key twice.
    WrongLists,
    /// Writes whose parts contradict each other, or are out of bounds.
    WrongWrites,
    /// A frame with a flag that nobody knows.
    UnknownFlag,
    /// Half a frame, and silence.
    HalfRequest,
    /// A request, and silence.
    Idle,
}

impl RudenessKind {
    const ALL: [RudenessKind; 13] = [
        RudenessKind::Garbage,
        RudenessKind::HalfHello,
        RudenessKind::NoHello,
        RudenessKind::WrongHello,
        RudenessKind::SecondHello,
        RudenessKind::FarAhead,
        RudenessKind::DamagedFrame,
        RudenessKind::NeverReads,
        RudenessKind::WrongLists,
        RudenessKind::WrongWrites,
        RudenessKind::UnknownFlag,
        RudenessKind::HalfRequest,
        RudenessKind::Idle,
    ];
}

/// The threads of one client, which share a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientPlan {
    /// The core that it asks for first.
    pub core: u16,
    /// It is a program in the process of the node, which asks without a network.
    #[serde(default)]
    pub is_program: bool,
    /// By thread, what it does.
    pub threads: Vec<Vec<Operation>>,
}

/// A whole run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Of the world: schedules, latencies, what a crash keeps.
    pub seed: u64,
    /// Cores of the first start, the second, and so on; the last for all further ones.
    pub cores: Vec<u16>,
    /// Shards.
    pub shards: u32,
    /// Length of log segments.
    pub segment_bytes: u64,
    /// What the node may take for its data.
    pub storage: StorageChoice,
    /// Keys.
    pub keys: u32,
    /// Clients, each on a host of its own.
    pub clients: Vec<ClientPlan>,
    /// Connections that break the rules.
    #[serde(default)]
    pub rudenesses: Vec<Rudeness>,
    /// Faults at times, counted from the moment when the node serves for the first time.
    pub faults: Vec<Fault>,
    /// Faults at operations, counted from the beginning of the world.
    pub faults_at: Vec<FaultAt>,
    /// The run fails if one of `faults_at`, or the crash at a sync, did not strike before the heal: for sweeps, which
    /// know the operations.
    #[serde(default)]
    pub must_strike: bool,
    /// Crash of the server around its n-th operation that makes something durable.
    pub crash_at_sync: Option<(u64, CrashPoint)>,
    /// How long the server is down after a crash, in turn.
    pub down_ns: Vec<u64>,
}

impl Plan {
    /// Operations of all threads.
    pub fn operations(&self) -> usize {
        let threads = self.clients.iter().flat_map(|client| &client.threads);
        threads.map(Vec::len).sum()
    }

    /// A number above those of all values that the threads write.
    pub fn next_number(&self) -> u64 {
        let threads = self.clients.iter().flat_map(|client| &client.threads);
        let numbers = threads.flatten().map(|operation| operation.number);
        numbers.max().unwrap_or(0) + 1
    }

    /// Faults of both forms.
    pub fn fault_count(&self) -> usize {
        self.faults.len() + self.faults_at.len() + usize::from(self.crash_at_sync.is_some())
    }

    /// The plan of an ordinary run.
    pub fn of_seed(seed: u64) -> Plan {
        let random = SimRandom::stream(seed, "plan", &[]);
        let operations = random.between(1_000, 1_400) as usize;
        let clients = random.between(2, 5) as usize;
        let threads = random.between(2, 5) as usize;
        // As a rule few, so that requests meet; in some runs so many that a shard has rows of them that are dead.
        let many = random.derived("many keys");
        let keys = if many.one_in(16) {
            many.between(200, 400) as u32
        } else {
            random.between(6, 60) as u32
        };
        let mut workload = Workload::draw(&random, keys);
        let mut clients: Vec<ClientPlan> = (0..clients)
            .map(|_| ClientPlan {
                core: random.below(4) as u16,
                is_program: false,
                threads: (0..threads)
                    .map(|_| {
                        let count = operations.div_ceil(clients * threads);
                        (0..count).map(|_| workload.operation(&random)).collect()
                    })
                    .collect(),
            })
            .collect();
        let programs = random.derived("programs");
        let (threads, each) = (programs.between(1, 3), programs.between(30, 120));
        clients.push(workload.program(&programs, threads, each));
        let horizon_ns = horizon_ns(&clients);
        let quiet = random.derived("quiet blip");
        let mut plan = Plan {
            seed,
            cores: (0..6).map(|_| random.between(2, 4) as u16).collect(),
            shards: 16 << random.below(3),
            segment_bytes: 1 << 20,
            storage: StorageChoice::Drawn(seed),
            keys,
            clients,
            rudenesses: draw_rudenesses(&random, horizon_ns),
            faults: draw_faults(&random, horizon_ns),
            faults_at: draw_faults_at(&random),
            must_strike: false,
            crash_at_sync: random
                .one_in(6)
                .then(|| (random.between(5, 600), CRASH_POINTS[random.index(3)])),
            down_ns: (0..6).map(|_| random.around(50 * MILLISECOND_NS)).collect(),
        };
        let late = random.derived("late successors");
        if !add_quiet_blip(&quiet, &mut plan.clients, &mut plan.faults) {
            add_late_successors(&late, &mut plan.clients, &mut plan.faults);
        }
        plan
    }

    /// A short run with a kill and a loss of power, for sweeps that put one more fault at each of its operations.
    pub fn short(seed: u64) -> Plan {
        let random = SimRandom::stream(seed, "short plan", &[]);
        let keys = 5;
        let mut workload = Workload::draw(&random, keys);
        workload.value_bytes_max = 4_000;
        let mut clients: Vec<ClientPlan> = (0..2)
            .map(|core| ClientPlan {
                core,
                is_program: false,
                threads: (0..2)
                    .map(|_| (0..8).map(|_| workload.operation(&random)).collect())
                    .collect(),
            })
            .collect();
        clients.push(workload.program(&random.derived("program"), 1, 8));
        let horizon_ns = horizon_ns(&clients);
        let crash = |at_ns, style| Fault {
            at_ns,
            host: SERVER,
            kind: FaultAction::Crash(style),
        };
        Plan {
            seed,
            cores: vec![2, 3, 1, 2],
            shards: 4,
            segment_bytes: 1 << 20,
            storage: StorageChoice::Tiny,
            keys,
            clients,
            rudenesses: Vec::new(),
            faults: vec![
                crash(horizon_ns / 3, CrashStyle::ProcessKill),
                crash(horizon_ns * 2 / 3, CrashStyle::PowerLoss),
            ],
            faults_at: Vec::new(),
            must_strike: false,
            crash_at_sync: None,
            down_ns: vec![MILLISECOND_NS],
        }
    }
}

/// How long the slowest thread pauses in all.
fn horizon_ns(clients: &[ClientPlan]) -> u64 {
    let threads = clients.iter().flat_map(|client| &client.threads);
    let pauses = threads.map(|thread| thread.iter().map(|operation| operation.pause_ns).sum());
    pauses.max().unwrap_or(0)
}

/// In half of the runs, a few.
fn draw_rudenesses(random: &SimRandom, horizon_ns: u64) -> Vec<Rudeness> {
    let count = if random.one_in(2) { random.between(1, 6) } else { 0 };
    (0..count)
        .map(|_| Rudeness {
            at_ns: random.below(horizon_ns),
            kind: RudenessKind::ALL[random.index(RudenessKind::ALL.len())],
            number: random.below(1 << 40),
        })
        .collect()
}

/// Places around an operation where a disk may stop for a crash.
pub const CRASH_POINTS: [CrashPoint; 3] = [CrashPoint::Before, CrashPoint::During, CrashPoint::After];
