//! One run: a node, its clients and their faults, from a plan to a verdict.
//!
//! 1. The node starts and the threads of the workload begin. Faults strike; whenever the node has ended or its
//!    log has failed, the run starts it again, as an operator would.
//! 2. When the threads are through, everything is healed. The node is killed and started once more, so that
//!    damage that nobody has read must show. From here on nothing may fail: that is the check of liveness.
//! 3. Bits flip and blocks go bad in tables and manifests that nobody reads, and the scrub must find all of it; then it
//!    is repaired. All keys are read, the node is drained and started again, and all keys are read again.
//! 4. The node ends, one way or another, and its data directory is checked while it is down ([`super::offline`]): as it
//!    is, which was done before the last start, too, and once more with damage.
//! 5. The checkers judge the history.
//!
//! A start may be refused only for the reason that it names ([`super::refusal`]), and must find the damage in what it
//! reads ([`super::damage`]).

use core::net::SocketAddr;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use ostrakon::server::node::NodeEvent;

use super::connections::Client;
use super::damage;
use super::judge::{Failure, judge};
use super::node::{NodeSettings, Progress, SimNode};
use super::offline::{self, Findings};
use super::plan::{Operation, OperationKind, Plan, SERVER, Sending};
use super::record::Recorder;
use super::refusal::{Reason, Since, take_away};
use super::rest::AtRest;
use super::rude::be_rude;
use super::shared::{Clocks, Counts, Shared};
use super::strikes::{self, MUST_STRIKE, Operations};
use super::values;
use super::workload::Thread;
use crate::check::history::History;
use crate::sim::{Counters, CrashStyle, Fault, FaultKind, HostId, ProcessStatus, RunEnd, SimRandom, World};

const SECOND_NS: u64 = 1_000_000_000;
/// Virtual time that the threads have for their operations, pauses and faults included.
const SAFETY_PHASE_NS: u64 = 900 * SECOND_NS;
/// Virtual time that a start may take, whatever befalls it.
const START_NS: u64 = 120 * SECOND_NS;
/// Virtual time within which everything goes on once all is healed (docs/testing.md).
const LIVENESS_NS: u64 = 10 * SECOND_NS;
/// Starts of one run; a node that never comes up is a failure.
const STARTS_MAX: u32 = 60;
/// Virtual time after which a node notices by itself that its disk has room again, and the like.
const RECOVERY_NS: u64 = 2 * SECOND_NS;
/// Operations of each thread that must succeed once all is healed.
const HEALED_OPERATIONS: u64 = 10;
/// Threads of each client that ask the node when it ends for the last time, and for how long at most before it does, in
/// virtual time.
const LAST_THREADS: u32 = 3;
const LAST_REQUESTS_NS: u64 = 4_000_000;

/// What came of a run.
pub struct Report {
    /// The seed of its world.
    pub seed: u64,
    /// Order-sensitive hash of everything that happened.
    pub trace_hash: u64,
    /// Events of the world.
    pub events: u64,
    /// Virtual time.
    pub virtual_ns: u64,
    /// Operations that were answered.
    pub answered: u64,
    /// Requests for one key, and those that came in on another core than the key's.
    pub requests: u64,
    /// See `requests`.
    pub cross_core: u64,
    /// Starts of the node, and those that were refused.
    pub starts: u32,
    /// See `starts`.
    pub refused_starts: u32,
    /// Faults that struck, the restart of the healed node included.
    pub counters: Counters,
    /// Faults that struck before the heal.
    pub struck: Counters,
    /// Refusals of requests by code.
    pub refusals: BTreeMap<String, u64>,
    /// What else it has shown.
    pub counts: Counts,
    /// Operations until the heal.
    pub operations: Operations,
    /// What was wrong.
    pub failure: Option<Failure>,
    /// What the clients saw.
    pub history: History,
    /// The last events by host.
    pub last_events: Vec<(String, Vec<String>)>,
}

impl Report {
    /// Crashes of any style before the heal.
    pub fn crashes(&self) -> u64 {
        self.struck.get(FaultKind::ProcessKill) + self.struck.get(FaultKind::PowerLoss)
    }
}

/// Where the full trace of a run goes.
pub type TraceWriter = Box<dyn std::io::Write>;

/// Runs a plan.
pub fn run(plan: &Plan, trace: Option<TraceWriter>) -> Report {
    let world = World::new(plan.seed);
    if let Some(writer) = trace {
        world.write_trace(writer);
    }
    let mut runner = Runner::new(&world, plan);
    let outcome = runner.run();
    let failure = outcome.err().or_else(|| judge(&world, &runner.recorder).err());
    let report = runner.report(failure);
    runner.node = None;
    world.end();
    report
}

struct Runner<'a> {
    world: World,
    plan: &'a Plan,
    recorder: Recorder,
    shared: Rc<Shared>,
    clients: Vec<Rc<Client>>,
    node: Option<SimNode>,
    starts: u32,
    refused_starts: u32,
    is_healed: bool,
    /// When the node that runs was started, and the faults until then.
    started_with: (u64, Counters),
    /// Number of the next value that is written once all is healed.
    next_number: u64,
    /// Starts that were refused because of damage, in words that name the file.
    refused_for_damage: usize,
    /// Operations and faults, until the heal.
    before_heal: Option<(Operations, Counters)>,
    /// What was damaged once all was healed.
    at_rest: AtRest,
}

impl<'a> Runner<'a> {
    fn new(world: &World, plan: &'a Plan) -> Runner<'a> {
        let server = world.add_host("server");
        assert_eq!(server, SERVER);
        let recorder = Recorder::new(world);
        let mut keys: Vec<Vec<u8>> = (0..plan.keys).map(values::key).collect();
        keys.sort();
        let shared = Rc::new(Shared {
            world: world.clone(),
            address: Cell::new(None),
            node_cores: RefCell::default(),
            cores: Cell::new(1),
            owners: RefCell::default(),
            recorder: recorder.clone(),
            shards: plan.shards,
            keys,
            answered: Cell::new(0),
            requests: Cell::new(0),
            cross_core: Cell::new(0),
            has_little_memory: plan.storage.storage().has_little_memory(),
            retention_us: plan.storage.storage().host.retention_us,
            refusals: RefCell::default(),
            finished: Cell::new(0),
            clocks: Clocks::default(),
            counts: Counts::default(),
        });
        let hosts: Vec<HostId> = (0..plan.clients.len())
            .map(|number| world.add_host(&format!("client{number}")))
            .collect();
        let clients = plan
            .clients
            .iter()
            .zip(hosts)
            .map(|(client, host)| Client::new(&shared, host, client))
            .collect();
        Runner {
            world: world.clone(),
            plan,
            recorder,
            shared,
            clients,
            node: None,
            starts: 0,
            refused_starts: 0,
            is_healed: false,
            started_with: (0, Counters::default()),
            next_number: plan.next_number(),
            refused_for_damage: 0,
            before_heal: None,
            at_rest: AtRest::default(),
        }
    }

    fn run(&mut self) -> Result<(), Failure> {
        for fault in &self.plan.faults_at {
            self.world.schedule_at(fault.clone());
        }
        if let Some((sync, point)) = self.plan.crash_at_sync {
            self.world.disk(SERVER).crash_at_sync(sync, point);
        }
        self.start()?;
        let served_ns = self.world.now_ns();
        for fault in &self.plan.faults {
            self.world.schedule(Fault {
                at_ns: served_ns + fault.at_ns,
                ..fault.clone()
            });
        }
        self.safety_phase()?;
        self.before_heal = Some(self.so_far());
        if let Some(missing) = strikes::missing(&self.world, self.plan) {
            return fail(MUST_STRIKE, missing);
        }
        self.world.heal();
        self.is_healed = true;
        // What still runs must go on by itself. Puts that memory has no room for can't.
        let runs = self
            .node
            .as_ref()
            .is_some_and(|node| !needs_restart(&self.world, Some(node)));
        if runs && !self.plan.storage.storage().has_little_memory() {
            self.clients.iter().for_each(|client| client.disconnect());
            self.pass(RECOVERY_NS)?;
            self.liveness_phase()?;
        }
        self.end_process(CrashStyle::ProcessKill);
        self.clients.iter().for_each(|client| client.disconnect());
        self.check_offline(false)?;
        self.start()?;
        self.liveness_phase()?;
        self.scrub_phase()?;
        self.read_everything()?;
        self.drain()?;
        self.start()?;
        let events = self.node.as_ref().map(SimNode::events).unwrap_or_default();
        if let Some(NodeEvent::TailCut(sentence)) =
            events.iter().find(|event| matches!(event, NodeEvent::TailCut(_)))
        {
            return fail("a log that was closed has no torn tail", sentence.clone());
        }
        self.read_everything()?;
        self.offline_phase()
    }

    fn safety_phase(&mut self) -> Result<(), Failure> {
        let mut threads = 0;
        for (client, plan) in self.clients.iter().zip(&self.plan.clients) {
            for operations in &plan.threads {
                let thread = Thread::new(client);
                threads += 1;
                self.world.spawn(client.host(), thread.run(operations.clone()));
            }
        }
        for (rudeness, client) in self.plan.rudenesses.iter().zip(self.clients.iter().cycle()) {
            let rude = be_rude(Rc::clone(&self.shared), client.host(), *rudeness);
            threads += 1;
            self.world.spawn(client.host(), rude);
        }
        let deadline_ns = self.world.now_ns() + SAFETY_PHASE_NS;
        loop {
            let node = self.node.as_ref();
            let shared = Rc::clone(&self.shared);
            let end = self.world.run_until(deadline_ns, |world| {
                shared.finished.get() == threads || needs_restart(world, node)
            });
            match end {
                RunEnd::Met if self.shared.finished.get() == threads => return Ok(()),
                RunEnd::Met => self.restart()?,
                RunEnd::Panicked => return self.panicked(),
                RunEnd::Deadline | RunEnd::Idle => {
                    let finished = self.shared.finished.get();
                    let detail = format!(
                        "{finished} of {threads} threads are through after {} virtual seconds ({end:?})",
                        SAFETY_PHASE_NS / SECOND_NS
                    );
                    return fail("the workload comes to its end", detail);
                }
            }
        }
    }

    /// The node has ended, its log has failed, or its disk has stopped for a crash.
    fn restart(&mut self) -> Result<(), Failure> {
        if self.world.is_crash_wanted() {
            self.end_process(CrashStyle::PowerLoss);
        } else if let Some(node) = &self.node {
            match node.status() {
                ProcessStatus::Running => {
                    self.judge_failed_logs(node)?;
                    // A core's log has failed; its operator notices after a while.
                    self.world
                        .note(SERVER, "the operator sees that a core has failed");
                    self.pass(300_000_000)?;
                    self.end_process(CrashStyle::ProcessKill);
                }
                ProcessStatus::Crashed => {}
                ended => {
                    return fail(
                        "a node ends only when it is told to",
                        format!("{ended:?}, {:?}", node.events()),
                    );
                }
            }
        }
        let turn = (self.starts as usize).min(self.plan.down_ns.len()).max(1) - 1;
        self.unreachable();
        self.pass(self.plan.down_ns[turn])?;
        self.start()
    }

    /// Nobody asks the node any more.
    fn unreachable(&self) {
        self.shared.address.set(None);
        *self.shared.node_cores.borrow_mut() = None;
    }

    fn end_process(&mut self, style: CrashStyle) {
        self.unreachable();
        if let Some(node) = self.node.take()
            && node.status() == ProcessStatus::Running
        {
            self.world.crash(SERVER, style);
        }
        // A host whose process has ended may still want its crash.
        for host in self.world.take_crash_wanted() {
            self.world.crash(host, style);
        }
    }

    fn pass(&self, duration_ns: u64) -> Result<(), Failure> {
        match self.world.run_for(duration_ns) {
            RunEnd::Panicked => self.panicked(),
            _ => Ok(()),
        }
    }

    fn panicked<T>(&self) -> Result<T, Failure> {
        let panics = self.world.panics();
        let last = panics.last().expect("the world has said so");
        fail("no task panics", last.message.clone())
    }

    /// Starts the node, over and over, until it serves.
    fn start(&mut self) -> Result<(), Failure> {
        loop {
            if self.starts == STARTS_MAX {
                return fail(
                    "the node comes up",
                    format!("{STARTS_MAX} starts were not enough"),
                );
            }
            let turn = (self.starts as usize).min(self.plan.cores.len() - 1);
            self.starts += 1;
            let settings = NodeSettings {
                cores: self.plan.cores[turn],
                shards: self.plan.shards,
                segment_bytes: self.plan.segment_bytes,
                storage: if self.is_healed {
                    self.plan.storage.storage().with_ample_memory()
                } else {
                    self.plan.storage.storage()
                },
            };
            let (begun_ns, before) = (self.world.now_ns(), self.world.counters());
            let due = damage::due(&self.world.disk(SERVER), &self.world.data_directory());
            self.shared.clocks.node_starts(&self.world);
            let node = SimNode::start(&self.world, SERVER, settings);
            let deadline_ns = self.world.now_ns() + START_NS;
            let end = self.world.run_until(deadline_ns, |world| {
                matches!(node.progress(), Progress::Serving(_)) || has_ended(world, &node)
            });
            match (end, node.progress()) {
                (RunEnd::Panicked, _) => return self.panicked(),
                (RunEnd::Met, Progress::Serving(_)) if !due.is_empty() => {
                    let due: Vec<String> = due.into_iter().map(|due| due.sentence).collect();
                    return fail("a start finds the damage in what it reads", due.join("\n"));
                }
                (RunEnd::Met, Progress::Serving(address)) => {
                    let flips = strikes::flipped_reads(&self.world, self.plan);
                    if flips > self.refused_for_damage {
                        return fail(
                            "a start from a damaged file is refused",
                            format!("{address} serves"),
                        );
                    }
                    self.started_with = (begun_ns, before);
                    self.serves(node, address, settings.cores);
                    return Ok(());
                }
                (RunEnd::Met, Progress::Refused(sentence)) if node.status() == ProcessStatus::Exited => {
                    self.refused(&sentence, begun_ns, &before)?;
                }
                (RunEnd::Met, _)
                    if node.status() == ProcessStatus::Crashed || self.world.is_crash_wanted() => {}
                (RunEnd::Met, progress) => {
                    let detail = format!("{:?}, {progress:?}, {:?}", node.status(), node.events());
                    return fail("a start ends with serving, a refusal or a crash", detail);
                }
                (end, progress) => {
                    let detail = format!(
                        "after {} virtual seconds ({end:?}): {progress:?}, {:?}",
                        START_NS / SECOND_NS,
                        node.events()
                    );
                    return fail("a start comes to an end", detail);
                }
            }
            self.node = Some(node);
            self.end_process(CrashStyle::PowerLoss);
            self.pass(self.plan.down_ns[0])?;
        }
    }

    /// The node can be reached.
    fn serves(&mut self, node: SimNode, address: SocketAddr, cores: u16) {
        *self.shared.node_cores.borrow_mut() = node.cores();
        self.node = Some(node);
        self.shared.address.set(Some(address));
        self.shared.cores.set(cores);
        self.shared.owners.borrow_mut().clear();
    }

    /// A start was refused: it must have had the reason that it names, and an operator takes that away.
    fn refused(&mut self, sentence: &str, begun_ns: u64, before: &Counters) -> Result<(), Failure> {
        self.refused_starts += 1;
        let reason = self.reason(sentence, begun_ns, before)?;
        self.refused_for_damage += usize::from(matches!(reason, Reason::Damage(_)));
        take_away(&self.world.disk(SERVER), &reason, sentence);
        Ok(())
    }

    /// The reason that the node names, if it is one that has come up since.
    fn reason(&self, sentence: &str, begun_ns: u64, before: &Counters) -> Result<Reason, Failure> {
        let since = Since {
            disk: &self.world.disk(SERVER),
            begun_ns,
            before,
            now: &self.world.counters(),
        };
        since.reason(sentence)
    }

    /// Each log that has failed must have had the reason that it names.
    fn judge_failed_logs(&self, node: &SimNode) -> Result<(), Failure> {
        let (begun_ns, before) = &self.started_with;
        for event in node.events() {
            if let NodeEvent::LogFailed(_, sentence) = event {
                self.reason(&sentence, *begun_ns, before)?;
            }
        }
        Ok(())
    }

    fn liveness_phase(&mut self) -> Result<(), Failure> {
        let finished = self.shared.finished.get();
        self.ask_for_a_bit_of_everything(20);
        let threads = self.clients.len();
        self.all_answered(finished, threads, threads as u64 * HEALED_OPERATIONS)
    }

    /// Starts a thread of each client.
    fn ask_for_a_bit_of_everything(&mut self, value_bytes: u32) {
        const KINDS: [OperationKind; HEALED_OPERATIONS as usize] = [
            OperationKind::Put,
            OperationKind::Get,
            OperationKind::Scan { keys: 10 },
            OperationKind::Delete,
            OperationKind::PutIfAbsent,
            OperationKind::MultiPut,
            OperationKind::Batch,
            OperationKind::DeleteRange { keys: 2 },
            OperationKind::MultiGet,
            OperationKind::ScanBack { keys: 10 },
        ];
        for client in &self.clients {
            let mut operations = Vec::new();
            for kind in KINDS {
                let kind = if client.is_program() {
                    kind.of_program()
                } else {
                    kind
                };
                let key = (self.next_number % u64::from(self.plan.keys)) as u32;
                operations.push(Operation {
                    number: self.next_number,
                    value_bytes,
                    sending: Sending::Session {
                        hold_ns: 0,
                        patience_ns: LIVENESS_NS,
                        cuts: false,
                    },
                    ..Operation::plain(kind, key)
                });
                self.next_number += 1;
            }
            let thread = Thread::new(client);
            self.world.spawn(client.host(), thread.run(operations));
        }
    }

    /// Damages tables and manifests that nobody asks for, waits until the scrub has found all of it, and repairs it.
    fn scrub_phase(&mut self) -> Result<(), Failure> {
        let disk = self.world.disk(SERVER);
        let random = SimRandom::stream(self.plan.seed, "damage at rest", &[]);
        self.at_rest = AtRest::strike(&disk, &self.world.data_directory(), &random);
        let node = self.node.as_ref().expect("it serves");
        let scrub = self.plan.storage.storage().scrub;
        let stored_bytes: u64 = disk.files().iter().map(|(_, len_bytes)| len_bytes).sum();
        let round_ns = stored_bytes * SECOND_NS / scrub.bytes_per_second + scrub.interval.as_nanos() as u64;
        let deadline_ns = self.world.now_ns() + LIVENESS_NS + 2 * round_ns;
        let at_rest = &self.at_rest;
        let end = self.world.run_until(deadline_ns, |world| {
            needs_restart(world, Some(node)) || at_rest.unfound(&disk, &node.events()).is_empty()
        });
        if end == RunEnd::Panicked {
            return self.panicked();
        }
        let unfound = at_rest.unfound(&disk, &node.events());
        if !unfound.is_empty() {
            return fail("a scrub finds damage that nobody asks for", unfound.join("\n"));
        }
        let found = &self.shared.counts.found_at_rest;
        found.set(found.get() + at_rest.count() as u64);
        at_rest.repair(&disk);
        Ok(())
    }

    /// Ends the node while it is asked for this and that, and checks its data directory; then damages it, and checks
    /// again.
    fn offline_phase(&mut self) -> Result<(), Failure> {
        let random = SimRandom::stream(self.plan.seed, "offline", &[]);
        let is_drained = random.one_in(3);
        for _ in 0..LAST_THREADS {
            self.ask_for_a_bit_of_everything(random.between(20, 6_000) as u32);
        }
        self.pass(random.below(LAST_REQUESTS_NS))?;
        if is_drained {
            self.drain()?;
        } else if random.one_in(2) {
            self.end_process(CrashStyle::ProcessKill);
        } else {
            self.end_process(CrashStyle::PowerLoss);
        }
        let findings = self.check_offline(is_drained)?;
        let disk = self.world.disk(SERVER);
        offline::strike(&disk, &self.world.data_directory(), &findings, &random);
        self.check_offline(is_drained).map(drop)
    }

    /// Checks the data directory of the node, which is down.
    fn check_offline(&self, was_closed: bool) -> Result<Findings, Failure> {
        let findings = offline::look(&self.world)?;
        let disk = self.world.disk(SERVER);
        let right = offline::judge(&findings, &disk, &self.world.data_directory(), was_closed)?;
        let found = &self.shared.counts.found_offline;
        found.set(found.get() + right as u64);
        Ok(findings)
    }

    /// Reads every key, and scans them all.
    fn read_everything(&mut self) -> Result<(), Failure> {
        let finished = self.shared.finished.get();
        let scan = OperationKind::Scan { keys: self.plan.keys };
        let reads = (0..self.plan.keys).map(|key| (OperationKind::Get, key));
        let operations: Vec<Operation> = reads
            .chain([(scan, 0)])
            .map(|(kind, key)| Operation::plain(kind, key))
            .collect();
        let expected = operations.len() as u64;
        let client = &self.clients[0];
        self.world
            .spawn(client.host(), Thread::new(client).run(operations));
        self.all_answered(finished, 1, expected)
    }

    /// Waits until `threads` more threads are through, which must be soon, and all their operations answered.
    fn all_answered(&self, finished: usize, threads: usize, operations: u64) -> Result<(), Failure> {
        let answered = self.shared.answered.get();
        let deadline_ns = self.world.now_ns() + LIVENESS_NS;
        let shared = Rc::clone(&self.shared);
        let node = self.node.as_ref();
        let end = self.world.run_until(deadline_ns, |world| {
            shared.finished.get() == finished + threads || needs_restart(world, node)
        });
        if end == RunEnd::Panicked {
            return self.panicked();
        }
        let now_answered = self.shared.answered.get() - answered;
        if self.shared.finished.get() == finished + threads && now_answered == operations {
            return Ok(());
        }
        let detail = format!(
            "{now_answered} of {operations} operations were answered within {} virtual seconds ({end:?}); the node \
             reports {:?}",
            LIVENESS_NS / SECOND_NS,
            node.map(SimNode::events)
        );
        fail("everything goes on once all is healed", detail)
    }

    fn drain(&mut self) -> Result<(), Failure> {
        let Some(node) = self.node.take() else {
            return fail("a drained node ends", "there is none");
        };
        self.unreachable();
        node.drain();
        let deadline_ns = self.world.now_ns() + LIVENESS_NS;
        let end = self
            .world
            .run_until(deadline_ns, |_| node.status() != ProcessStatus::Running);
        match (end, node.status()) {
            (RunEnd::Panicked, _) => self.panicked(),
            (RunEnd::Met, ProcessStatus::Exited) => {
                let events = node.events();
                let complaint = events.iter().find(|event| {
                    !matches!(event, NodeEvent::Serving { .. } | NodeEvent::TailCut(_))
                        && !self.at_rest.explains(event)
                });
                complaint.map_or(Ok(()), |event| {
                    fail("a healed node ends without complaint", format!("{event:?}"))
                })
            }
            (_, status) => {
                let detail = format!("{status:?}, {:?}", node.events());
                fail("a drained node ends", detail)
            }
        }
    }

    fn so_far(&self) -> (Operations, Counters) {
        (Operations::of(&self.world), self.world.counters())
    }

    fn report(&self, failure: Option<Failure>) -> Report {
        let before_heal = self.before_heal.clone().unwrap_or_else(|| self.so_far());
        let (operations, struck) = before_heal;
        let hosts = self.world.hosts();
        Report {
            seed: self.plan.seed,
            trace_hash: self.world.trace_hash(),
            events: self.world.events_processed(),
            virtual_ns: self.world.now_ns(),
            answered: self.shared.answered.get(),
            requests: self.shared.requests.get(),
            cross_core: self.shared.cross_core.get(),
            starts: self.starts,
            refused_starts: self.refused_starts,
            counters: self.world.counters(),
            refusals: self.shared.refusals.borrow().clone(),
            counts: self.shared.counts.clone(),
            operations,
            struck,
            history: self.recorder.history(),
            last_events: hosts
                .into_iter()
                .map(|host| {
                    let events = self.world.last_events(host);
                    let lines = events.iter().map(ToString::to_string).collect();
                    (self.world.host_name(host), lines)
                })
                .collect(),
            failure,
        }
    }
}

/// A failed check.
///
/// # Errors
/// Always.
pub(super) fn fail<T>(check: &str, detail: impl Into<String>) -> Result<T, Failure> {
    Err(Failure {
        check: check.to_owned(),
        detail: detail.into(),
    })
}

/// True when the node can't go on without a hand from outside.
fn needs_restart(world: &World, node: Option<&SimNode>) -> bool {
    world.is_crash_wanted()
        || node.is_none_or(|node| node.status() != ProcessStatus::Running || node.has_failed_core())
}

/// True when a start has ended, one way or another.
fn has_ended(world: &World, node: &SimNode) -> bool {
    world.is_crash_wanted() || node.status() != ProcessStatus::Running
}
