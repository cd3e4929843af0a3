//! The rounds: who is started and stopped when, and what is compared afterwards.
//!
//! A run ends with the first round that finds a violation; its data stay where they are. Whatever ends it, the node is
//! killed and the disk unmounted and detached.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::check;
use super::clients::{self, ClientOutcome, ClientState, Event, Role, Shared};
use super::history::{KeyHistory, Violation};
use super::loadgen::{KEY_PREFIX, LoadgenDriver, PhaseEnd};
use super::random::Random;
use super::report::{Report, RoundReport};
use super::settings::{Mode, Moment, Settings};
use crate::process::descriptors::log_descriptors;
use crate::process::{CutStart, Node, NodeCommand, PowerDisk};

/// How often a wait looks whether the run was interrupted.
const INTERRUPT_INTERVAL: Duration = Duration::from_millis(100);
/// For a number of acknowledged writes to be reached.
const TARGET_TIMEOUT: Duration = Duration::from_mins(1);
/// After a loss of power the node lives on for up to this long, to show that it acknowledges nothing more.
const LINGER_MS_MAX: u64 = 200;
/// In one of so many rounds the node is stopped again while it starts.
const START_CUT_EVERY: u64 = 4;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Ends all runs of this process at the next step. Safe to call from a signal handler.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// Why a run came to no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// This machine lacks something.
    Unavailable(String),
    /// Something failed that is no broken promise of the database.
    Failed(String),
}

impl From<String> for Failure {
    fn from(sentence: String) -> Failure {
        Failure::Failed(sentence)
    }
}

/// Runs all rounds. `note` gets a line for people after each step worth one.
///
/// # Errors
/// See [`Failure`].
pub fn run(settings: &Settings, note: &mut dyn FnMut(&str)) -> Result<Report, Failure> {
    if let Mode::Power { file_system, .. } = settings.mode {
        PowerDisk::available(file_system).map_err(Failure::Unavailable)?;
    }
    let mut run = Run::begin(settings)?;
    let mut report = Report {
        mode: if matches!(settings.mode, Mode::Kill) {
            "kill"
        } else {
            "power"
        }
        .to_owned(),
        seed: settings.seed,
        ..Report::default()
    };
    if let Some(loadgen) = &run.loadgen {
        note("loadgen loads");
        report
            .violations
            .extend(violations_of(loadgen.load(run.node()?.address())?).1);
    }
    note(RoundReport::headline());
    for round in 1..=settings.rounds {
        let finished = run.round(round, &mut report)?;
        note(&finished.to_string());
        report.rounds.push(finished);
        if report.all_violations().next().is_some() {
            return Ok(report);
        }
    }
    report.violations.extend(run.end()?);
    if report.violations.is_empty()
        && let Some(disk) = run.disk.take()
    {
        let image = disk.image().to_owned();
        drop(disk);
        fs::remove_file(&image).map_err(|error| format!("could not remove {}: {error}", image.display()))?;
    }
    Ok(report)
}

struct Run<'a> {
    settings: &'a Settings,
    // Dropped in this order: the node before the disk under it.
    node: Option<Node>,
    disk: Option<PowerDisk>,
    command: NodeCommand,
    clients: Vec<ClientState>,
    loadgen: Option<LoadgenDriver>,
    random: Random,
    last_restart_ms: f64,
}

/// Clients at work.
struct Working {
    threads: Vec<JoinHandle<ClientOutcome>>,
    shared: Arc<Shared>,
    events: Receiver<Event>,
    loadgen: Option<Child>,
    begun: Instant,
}

impl<'a> Run<'a> {
    fn begin(settings: &'a Settings) -> Result<Run<'a>, Failure> {
        let directory = &settings.directory;
        let said = |error: std::io::Error| format!("could not make {}: {error}", directory.display());
        fs::create_dir_all(directory).map_err(said)?;
        if fs::read_dir(directory).map_err(said)?.next().is_some() {
            let sentence = format!("{} is not empty; name a new directory", directory.display());
            return Err(Failure::Failed(sentence));
        }
        let disk = match settings.mode {
            Mode::Kill => None,
            Mode::Power {
                file_system,
                image_bytes,
            } => Some(PowerDisk::create(directory, image_bytes, file_system)?),
        };
        let data = disk
            .as_ref()
            .map_or(directory.as_path(), PowerDisk::mount_point)
            .join("node");
        let command = NodeCommand::new(&settings.binary, &data, settings.cores).shards(settings.shards);
        let node = command.start().map_err(|refusal| refusal.to_string())?;
        let loadgen = settings.loadgen.clone();
        Ok(Run {
            settings,
            last_restart_ms: node.start_ms(),
            node: Some(node),
            disk,
            command,
            clients: client_states(settings),
            loadgen: loadgen.map(|loadgen| LoadgenDriver::new(loadgen, directory, settings.seed)),
            random: Random::new(settings.seed, 0),
        })
    }

    fn node(&self) -> Result<&Node, Failure> {
        self.node
            .as_ref()
            .ok_or_else(|| Failure::Failed("no node runs".to_owned()))
    }

    fn round(&mut self, number: u32, report: &mut Report) -> Result<RoundReport, Failure> {
        let mut round = RoundReport {
            round: number,
            ..RoundReport::default()
        };
        let working = self.start_clients(number)?;
        self.wait_for_moment(&working)?;
        if number == 1 {
            self.look_at_descriptors(report)?;
        }
        working.shared.is_stopping.store(true, Ordering::SeqCst);
        round.moment_ms = working.begun.elapsed().as_millis() as u64;
        self.stop(Some(&working))?;
        self.collect(working, &mut round)?;
        if self.random.below(START_CUT_EVERY) == 0 {
            self.cut_a_start(&mut round)?;
        }
        let node = match self.command.start() {
            Ok(node) => node,
            Err(refusal) => {
                round
                    .violations
                    .push(node_violation("it to start again", &refusal.to_string()));
                return Ok(round);
            }
        };
        round.restart_ms = node.start_ms();
        round.recovered_entries = node.greeting().recovered_entries;
        self.last_restart_ms = node.start_ms();
        self.node = Some(node);
        self.check(&mut round)?;
        Ok(round)
    }

    fn start_clients(&mut self, round: u32) -> Result<Working, Failure> {
        let address = self.node()?.address().to_owned();
        let loadgen = match &self.loadgen {
            Some(loadgen) => {
                let mut client = self.node()?.client(None).map_err(|error| error.to_string())?;
                Some(loadgen.start_run(&address, round, &mut client)?)
            }
            None => None,
        };
        let target = match self.settings.moment {
            Moment::Acknowledged(from, to) => self.random.between(from, to),
            Moment::Time(..) => u64::MAX,
        };
        let shared = Arc::new(Shared {
            acknowledged: AtomicU64::new(0),
            target,
            is_stopping: AtomicBool::new(false),
        });
        let (sender, events) = channel();
        let begun = Instant::now();
        let threads = std::mem::take(&mut self.clients)
            .into_iter()
            .map(|state| {
                let core = (state.number + round as u16) % self.settings.cores;
                let purpose = u64::from(round) << 40 | u64::from(state.number) << 24;
                let random = Random::new(self.settings.seed, purpose + 1);
                let shared = Arc::clone(&shared);
                clients::start(
                    state,
                    address.clone(),
                    core,
                    random,
                    purpose,
                    shared,
                    sender.clone(),
                )
            })
            .collect();
        Ok(Working {
            threads,
            shared,
            events,
            loadgen,
            begun,
        })
    }

    /// Waits until the node is to be stopped.
    fn wait_for_moment(&mut self, working: &Working) -> Result<(), Failure> {
        let (timeout, is_target) = match self.settings.moment {
            Moment::Time(from, to) => {
                let millis = self
                    .random
                    .between(from.as_millis() as u64, to.as_millis() as u64);
                (Duration::from_millis(millis), false)
            }
            Moment::Acknowledged(..) => (TARGET_TIMEOUT, true),
        };
        loop {
            if INTERRUPTED.load(Ordering::SeqCst) {
                return Err(Failure::Failed("interrupted".to_owned()));
            }
            let left = timeout.saturating_sub(working.begun.elapsed());
            match working.events.recv_timeout(left.min(INTERRUPT_INTERVAL)) {
                Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
                Err(_) if is_target => {
                    let done = working.shared.acknowledged.load(Ordering::SeqCst);
                    let sentence = format!("only {done} writes acknowledged in {TARGET_TIMEOUT:?}");
                    return Err(Failure::Failed(sentence));
                }
                // A client ends early only with a failure or a violation, and `collect` tells which.
                Ok(Event::Reached | Event::Ended) | Err(_) => return Ok(()),
            }
        }
    }

    fn look_at_descriptors(&self, report: &mut Report) -> Result<(), Failure> {
        let found = log_descriptors(self.node()?.process_id())
            .map_err(|error| format!("could not read the node's descriptors: {error}"))?;
        for one in found
            .iter()
            .filter(|one| !one.is_direct() || !one.is_synchronous())
        {
            let what = format!("{} opened with flags {:#o}", one.path.display(), one.flags);
            report
                .violations
                .push(node_violation("O_DIRECT and O_DSYNC", &what));
        }
        if found.len() < usize::from(self.settings.cores) {
            let what = format!("{} open log segments", found.len());
            report
                .violations
                .push(node_violation("one open log segment per core", &what));
        }
        report.descriptors = found;
        Ok(())
    }

    /// Cuts the power, if the mode is that, and kills the node.
    fn stop(&mut self, working: Option<&Working>) -> Result<(), Failure> {
        if let Some(disk) = &self.disk {
            disk.cut()?;
            let linger = Duration::from_millis(self.random.below(LINGER_MS_MAX));
            if let Some(working) = working {
                let begun = Instant::now();
                let mut ended = 0;
                while ended < working.threads.len()
                    && let Ok(event) = working
                        .events
                        .recv_timeout(linger.saturating_sub(begun.elapsed()))
                {
                    ended += usize::from(matches!(event, Event::Ended));
                }
            }
        }
        let node = self.node.take().ok_or_else(|| "no node runs".to_owned())?;
        let ended = node.kill();
        self.keep_stderr(&ended.stderr)?;
        if let Some(disk) = &mut self.disk {
            disk.restore()?;
        }
        Ok(())
    }

    /// Stops a start before it is ready, unless the node is faster.
    fn cut_a_start(&mut self, round: &mut RoundReport) -> Result<(), Failure> {
        let after_ms = self.random.below(self.last_restart_ms as u64 + 1);
        let disk = self.disk.as_ref();
        let power_off = || disk.map_or(Ok(()), PowerDisk::cut);
        match self
            .command
            .start_and_kill(Duration::from_millis(after_ms), power_off)?
        {
            CutStart::Cut => round.start_cut_ms = Some(after_ms),
            CutStart::Ready => {}
            CutStart::Ended(refusal) => {
                round
                    .violations
                    .push(node_violation("it to start again", &refusal.to_string()));
            }
        }
        match &mut self.disk {
            Some(disk) => Ok(disk.restore()?),
            None => Ok(()),
        }
    }

    /// Takes the clients back.
    fn collect(&mut self, working: Working, round: &mut RoundReport) -> Result<(), Failure> {
        let mut failure = None;
        for thread in working.threads {
            let outcome = thread.join().map_err(|_| "a client panicked".to_owned())?;
            match outcome.state.role {
                Role::Counters => round.increments += outcome.acknowledged,
                Role::Plain => round.plain_writes += outcome.acknowledged,
            }
            round.unknown += outcome.unknown;
            round.violations.extend(outcome.violations);
            failure = failure.or(outcome.failure);
            self.clients.push(outcome.state);
        }
        if let Some(child) = working.loadgen {
            let (operations, violations) = violations_of(LoadgenDriver::finish_run(child)?);
            round.loadgen_operations = Some(operations);
            round.violations.extend(violations);
        }
        match failure {
            Some(sentence) if round.violations.is_empty() => {
                let log = self.stderr_path();
                let log = log.display();
                Err(Failure::Failed(format!(
                    "a client ended before the node was stopped: {sentence}; see {log}"
                )))
            }
            _ => Ok(()),
        }
    }

    fn check(&mut self, round: &mut RoundReport) -> Result<(), Failure> {
        let node = self.node.as_ref().ok_or_else(|| "no node runs".to_owned())?;
        let said = |error: ostrakon_client::Error| format!("the check could not be finished: {error}");
        let mut client = node.client(None).map_err(said)?;
        let mut keys: Vec<&mut KeyHistory> = self
            .clients
            .iter_mut()
            .flat_map(|state| &mut state.keys)
            .collect();
        let foreign = self.loadgen.as_ref().map(|_| KEY_PREFIX);
        let checked = check::check(&mut client, &mut keys, foreign).map_err(said)?;
        round.keys = checked.keys;
        round.unknown_applied = checked.unknown_applied;
        round.violations.extend(checked.violations);
        if let Some(loadgen) = &self.loadgen
            && round.violations.is_empty()
        {
            round
                .violations
                .extend(check::clear(&mut client, &mut keys).map_err(said)?);
            round
                .violations
                .extend(violations_of(loadgen.check(node.address())?).1);
        }
        Ok(())
    }

    /// A clean stop and start at the end: nothing is unknown then.
    fn end(&mut self) -> Result<Vec<Violation>, Failure> {
        let node = self.node.take().ok_or_else(|| "no node runs".to_owned())?;
        let ended = node.terminate();
        self.keep_stderr(&ended.stderr)?;
        if !ended.status.success() {
            let found = format!("{}: {}", ended.status, ended.stderr.trim());
            return Ok(vec![node_violation("exit code 0 after SIGTERM", &found)]);
        }
        match self.command.start() {
            Ok(node) => self.node = Some(node),
            Err(refusal) => return Ok(vec![node_violation("a clean restart", &refusal.to_string())]),
        }
        let mut last = RoundReport::default();
        self.check(&mut last)?;
        self.node = None;
        Ok(last.violations)
    }

    fn stderr_path(&self) -> PathBuf {
        self.settings.directory.join("node.stderr")
    }

    fn keep_stderr(&self, text: &str) -> Result<(), Failure> {
        let path = self.stderr_path();
        let written = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        Ok(written.map_err(|error| format!("could not write {}: {error}", path.display()))?)
    }
}

fn client_states(settings: &Settings) -> Vec<ClientState> {
    let roles = [Role::Counters, Role::Plain];
    let all = (0..settings.clients).flat_map(|_| roles).zip(0..);
    all.map(|(role, number)| {
        let key = |index: u32| match role {
            Role::Counters => format!("crash/counter/{number:03}/{index:05}"),
            // Half of the clients keep their keys in one shard each.
            Role::Plain if number % 4 == 1 => format!("crash/plain/{{{number:03}}}/{index:05}"),
            Role::Plain => format!("crash/plain/{number:03}/{index:05}"),
        };
        let keys = (0..settings.keys_per_client).map(|index| KeyHistory::new(key(index).into_bytes()));
        ClientState {
            role,
            number,
            keys: keys.collect(),
        }
    })
    .collect()
}

fn violations_of(end: PhaseEnd) -> (u64, Vec<Violation>) {
    match end {
        PhaseEnd::Well(operations) => (operations, Vec::new()),
        PhaseEnd::Violated(violations) => (0, violations),
    }
}

fn node_violation(expected: &str, found: &str) -> Violation {
    Violation {
        key: "the node".to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
}
