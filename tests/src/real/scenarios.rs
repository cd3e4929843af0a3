//! The scenarios: which disk, which fault, what must be seen while it lasts, and how the node recovers.
//!
//! Every wait is for something that clients see, never for a guessed time. The exceptions are pauses, whose
//! length is the fault.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ostrakon_client::Client;

use super::clients::{Clients, Ending, Habits, Seen, read_all};
use super::disk::{Disk, DiskKind};
use super::recorder::Recorder;
use super::report::{Failure, Report};
use super::segment::Flip;
use crate::process::{FileSystem, Node, NodeCommand};

/// How long clients may take to come to what is waited for. A refusal for a full disk is looked at again
/// after a second, and a disk whose every write is slow may take a few.
const PROGRESS_TIMEOUT: Duration = Duration::from_mins(1);
/// Segments this small are filled, and followed by others, within a scenario.
const SEGMENT_SIZE: &str = "1MiB";
const MIB: u64 = 1 << 20;
/// Size of a disk that need not fill up.
const ROOMY_BYTES: u64 = 512 * MIB;
/// Size of one that does; the node keeps 64 MiB of it free.
const SMALL_BYTES: u64 = 160 * MIB;
/// What lies beside the node until the disk was full.
const BALLAST_BYTES: u64 = 44 * MIB;
const SLOW_WRITE_MS: u32 = 20;

/// A fault, and the disk that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT after this time.
    Pause(Duration),
    /// The disk loses its power; then SIGKILL.
    PowerLoss(FileSystem),
    /// A small file system fills up, and has room again.
    FullDisk,
    /// Every write fails with EIO; then SIGKILL.
    WriteErrors,
    /// Every write takes longer; then SIGKILL.
    SlowDisk,
    /// One byte of a log segment is another while the node is down.
    FlippedByte,
}

/// What all scenarios need to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// An empty directory for disks and data.
    pub directory: PathBuf,
    /// The binary `ostrakon`.
    pub binary: PathBuf,
    /// Of the node.
    pub cores: u16,
    /// Of the cluster.
    pub shards: u32,
    /// What clients do.
    pub habits: Habits,
    /// Answered operations before the fault, and again after it where the node lives on.
    pub operations: u64,
}

/// A node with its disk, its clients' history and what was noted.
struct Stage<'a> {
    settings: &'a Settings,
    command: NodeCommand,
    recorder: Arc<Recorder>,
    notes: Vec<String>,
    disk: Disk,
}

/// Plays a scenario to its end.
///
/// # Errors
/// What this machine lacks; what failed; or what the fault must show and was not seen. Broken promises are
/// no error, but in the report.
pub fn run(scenario: Scenario, settings: &Settings) -> Result<Report, Failure> {
    let mut stage = Stage::new(scenario.disk(), settings)?;
    match scenario {
        Scenario::Kill => stage.kill()?,
        Scenario::SlowDisk => stage.slow_disk()?,
        Scenario::Pause(duration) => stage.pause(duration)?,
        Scenario::PowerLoss(_) => stage.power_loss()?,
        Scenario::FullDisk => stage.full_disk()?,
        Scenario::WriteErrors => stage.write_errors()?,
        Scenario::FlippedByte => stage.flipped_byte()?,
    }
    stage.finish()
}

impl Scenario {
    /// The disk that its node lies on.
    pub fn disk(self) -> DiskKind {
        let power = |file_system, size_bytes| DiskKind::Power {
            file_system,
            size_bytes,
        };
        let filtered = |write_delay_ms| DiskKind::Filtered {
            size_bytes: ROOMY_BYTES,
            write_delay_ms,
        };
        match self {
            Scenario::Kill | Scenario::Pause(_) | Scenario::FlippedByte => DiskKind::Directory,
            Scenario::PowerLoss(file_system) => power(file_system, ROOMY_BYTES),
            Scenario::FullDisk => power(FileSystem::Ext4, SMALL_BYTES),
            Scenario::WriteErrors => filtered(0),
            Scenario::SlowDisk => filtered(SLOW_WRITE_MS),
        }
    }
}

impl<'a> Stage<'a> {
    fn new(kind: DiskKind, settings: &'a Settings) -> Result<Stage<'a>, Failure> {
        let disk = kind.create(&settings.directory)?;
        let command = NodeCommand::new(&settings.binary, &disk.path().join("node"), settings.cores)
            .shards(settings.shards)
            .argument("--segment-size")
            .argument(SEGMENT_SIZE);
        Ok(Stage {
            settings,
            command,
            recorder: Arc::default(),
            notes: Vec::new(),
            disk,
        })
    }

    fn kill(&mut self) -> Result<(), Failure> {
        let (node, clients) = self.begin()?;
        node.kill();
        all_lost(&clients.outlive())
    }

    fn slow_disk(&mut self) -> Result<(), Failure> {
        let (node, clients) = self.begin()?;
        let mut client = node
            .client(None)
            .map_err(|error| format!("the node takes no connection: {error}"))?;
        let means_us: Vec<f64> = cores(&mut client)?
            .iter()
            .filter_map(|core| core["log_write_mean_us"].as_f64())
            .collect();
        let is_slow = |mean_us: &f64| *mean_us >= f64::from(SLOW_WRITE_MS) * 1000.0;
        let are_slow = means_us.len() == usize::from(self.settings.cores) && means_us.iter().all(is_slow);
        let sentence = format!("the log writes of the cores take {means_us:?} µs, which is not slow");
        expect(are_slow, &sentence, &clients.seen())?;
        self.notes
            .push(format!("log writes of the cores took {means_us:?} µs"));
        drop(client);
        node.kill();
        all_lost(&clients.outlive())
    }

    fn pause(&mut self, duration: Duration) -> Result<(), Failure> {
        let (node, clients) = self.begin()?;
        node.pause();
        let seen = clients.seen();
        std::thread::sleep(duration);
        let progress = clients.seen().reads + clients.seen().writes - seen.reads - seen.writes;
        node.resume();
        self.notes.push(format!(
            "{progress} answers were still on their way during the pause"
        ));
        self.go_on(&clients)?;
        all_stopped(&clients.stop())?;
        end_with_kill(node)
    }

    fn power_loss(&mut self) -> Result<(), Failure> {
        let (node, clients) = self.begin()?;
        let Disk::Power(disk) = &mut self.disk else {
            unreachable!("the scenario has asked for this disk")
        };
        disk.cut()?;
        node.kill();
        disk.restore()?;
        // Until its node was killed, a thread may have been told that the log had failed.
        let endings = clients.outlive();
        match endings
            .iter()
            .find(|ending| !matches!(ending, Ending::Lost(_) | Ending::CoreFailed))
        {
            None => Ok(()),
            Some(other) => Err(Failure::Failed(format!("a client outlived its node: {other:?}"))),
        }
    }

    fn full_disk(&mut self) -> Result<(), Failure> {
        let ballast = self.disk.path().join("ballast");
        fs::write(&ballast, vec![1; BALLAST_BYTES as usize])
            .map_err(|error| format!("could not write {}: {error}", ballast.display()))?;
        let (node, clients) = self.begin()?;
        let full = clients.wait(PROGRESS_TIMEOUT, |seen| seen.disk_full > 0)?;
        expect(
            full.disk_full > 0,
            "no put was refused although the disk is small",
            &full,
        )?;
        let reads = full.reads + self.settings.operations;
        let while_full = clients.wait(PROGRESS_TIMEOUT, |seen| seen.reads >= reads)?;
        expect(
            while_full.reads >= reads,
            "reads do not go on at a full disk",
            &while_full,
        )?;
        fs::remove_file(&ballast)
            .map_err(|error| format!("could not remove {}: {error}", ballast.display()))?;
        let resumed = self.go_on(&clients)?;
        let text = format!(
            "{} puts were refused for the full disk; {} reads and {} writes were answered from then on",
            resumed.disk_full,
            resumed.reads - full.reads,
            resumed.writes - full.writes
        );
        self.notes.push(text);
        all_stopped(&clients.stop())?;
        end_with_kill(node)
    }

    fn write_errors(&mut self) -> Result<(), Failure> {
        let (node, clients) = self.begin()?;
        let Disk::Filtered(disk) = &mut self.disk else {
            unreachable!("the scenario has asked for this disk")
        };
        disk.fail_writes()?;
        let all = self.settings.habits.clients;
        let seen = clients.wait(PROGRESS_TIMEOUT, |seen| seen.ended == all)?;
        let endings = clients.stop();
        expect(
            endings.iter().all(|ending| *ending == Ending::CoreFailed),
            &format!("a failed log is answered with CoreFailed, but clients ended so: {endings:?}"),
            &seen,
        )?;
        let mut client = node
            .client(None)
            .map_err(|error| format!("the node is gone: {error}"))?;
        let cores = cores(&mut client)?;
        let has_failed = cores.iter().any(|core| core["log_failed"] == true);
        expect(has_failed, &format!("no core says log_failed: {cores:?}"), &seen)?;
        drop(client);
        let ended = node.kill();
        disk.heal()?;
        let lines = ended
            .stderr
            .lines()
            .filter(|line| line.contains("stops serving"))
            .count();
        self.notes.push(format!(
            "{} answers CoreFailed; {lines} cores stopped serving",
            seen.core_failed
        ));
        expect(lines > 0, "no core says that it stops serving", &seen).map_err(Failure::from)
    }

    fn flipped_byte(&mut self) -> Result<(), Failure> {
        let (node, clients) = self.begin()?;
        all_stopped(&clients.stop())?;
        node.kill();
        let flip = Flip::choose(&self.command.data, self.settings.habits.seed)?;
        flip.apply()?;
        let Err(refusal) = self.command.start() else {
            let sentence = format!("the node started although {flip} is damaged");
            return Err(Failure::Failed(sentence));
        };
        flip.is_named_in(&refusal)?;
        self.notes
            .push(format!("{flip} was flipped: {}", refusal.stderr.trim()));
        flip.apply()?;
        Ok(())
    }

    /// Starts a node and clients, and waits until enough is answered.
    fn begin(&mut self) -> Result<(Node, Clients), Failure> {
        let node = self.start()?;
        let clients = Clients::start(node.address(), self.settings.habits, &self.recorder);
        self.go_on(&clients)?;
        Ok((node, clients))
    }

    /// Waits until `operations` more are answered, a part of them writes.
    fn go_on(&self, clients: &Clients) -> Result<Seen, Failure> {
        let (before, operations) = (clients.seen(), self.settings.operations);
        let is_enough = |seen: &Seen| {
            let (reads, writes) = (seen.reads - before.reads, seen.writes - before.writes);
            reads + writes >= operations && writes >= operations / 5
        };
        let seen = clients.wait(PROGRESS_TIMEOUT, is_enough)?;
        expect(is_enough(&seen), "the clients ended too early", &seen)?;
        Ok(seen)
    }

    fn start(&self) -> Result<Node, Failure> {
        self.command
            .start()
            .map_err(|refusal| Failure::Failed(refusal.to_string()))
    }

    /// Starts the node on what is left, reads everything, and judges.
    fn finish(mut self) -> Result<Report, Failure> {
        let begun = Instant::now();
        let node = self.start()?;
        self.notes.push(format!(
            "{} entries recovered, ready after {} ms",
            node.greeting().recovered_entries,
            begun.elapsed().as_millis()
        ));
        let mut client = node.client(None).map_err(|error| error.to_string())?;
        let keys = self.settings.habits.keys;
        let differences = read_all(&mut client, &self.recorder, keys)
            .map_err(|error| format!("after the fault: {error}"))?;
        // Before its disk goes.
        drop(client);
        drop(node);
        let Stage { recorder, notes, .. } = self;
        let recorder = Arc::into_inner(recorder).expect("the clients have ended");
        Ok(Report::judge(recorder, notes, differences))
    }
}

fn end_with_kill(node: Node) -> Result<(), Failure> {
    let ended = node.kill();
    if ended.status.code().is_none() {
        return Ok(());
    }
    let said = ended.stderr.trim();
    Err(Failure::Failed(format!(
        "the node ended by itself ({}): {said}",
        ended.status
    )))
}

/// The node lives, so its clients have ended because they were told to.
fn all_stopped(endings: &[Ending]) -> Result<(), Failure> {
    match endings.iter().find(|ending| **ending != Ending::Stopped) {
        None => Ok(()),
        Some(other) => Err(Failure::Failed(format!(
            "a client ended although the node lives: {other:?}"
        ))),
    }
}

/// The node is gone, so its clients have ended for that.
fn all_lost(endings: &[Ending]) -> Result<(), Failure> {
    match endings.iter().find(|ending| !matches!(ending, Ending::Lost(_))) {
        None => Ok(()),
        Some(other) => Err(Failure::Failed(format!("a client outlived its node: {other:?}"))),
    }
}

/// The cores, as the node's status shows them.
fn cores(client: &mut Client) -> Result<Vec<serde_json::Value>, String> {
    let text = client
        .status()
        .map_err(|error| format!("the node tells no status: {error}"))?;
    let status: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| format!("the status is no JSON: {error}: {text}"))?;
    let cores = status["cores"].as_array().cloned();
    cores.ok_or_else(|| format!("a status without cores: {text}"))
}

fn expect(holds: bool, sentence: &str, seen: &Seen) -> Result<(), String> {
    holds
        .then_some(())
        .ok_or_else(|| format!("{sentence} ({seen:?})"))
}
