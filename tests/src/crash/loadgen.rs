//! `loadgen` beside the clients: loads records, runs YCSB-A until the node is gone, checks its register afterwards.
//!
//! Its register lies outside the disk that loses power. It is never killed: it ends by itself when its node is gone.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ostrakon_client::Client;

use super::history::Violation;
use super::settings::Loadgen;

/// All keys of loadgen start with this.
pub const KEY_PREFIX: &[u8] = b"user";
/// It runs until its node is stopped, which is long before this.
const RUN_DURATION: &str = "10m";
/// How long it may take to read its register and to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_mins(2);
const CONNECT_INTERVAL: Duration = Duration::from_millis(5);

const EXIT_VIOLATION: i32 = 2;
const EXIT_NODE_LOST: i32 = 3;

/// A loadgen with its register.
#[derive(Debug)]
pub struct LoadgenDriver {
    settings: Loadgen,
    register: PathBuf,
    seed: u64,
}

/// How a phase of loadgen ended.
#[derive(Debug)]
pub enum PhaseEnd {
    /// Well; finished operations.
    Well(u64),
    /// It found broken promises.
    Violated(Vec<Violation>),
}

impl LoadgenDriver {
    /// With its register in `directory`.
    pub fn new(settings: Loadgen, directory: &Path, seed: u64) -> LoadgenDriver {
        LoadgenDriver {
            settings,
            register: directory.join("loadgen.register"),
            seed,
        }
    }

    /// Writes every record once.
    ///
    /// # Errors
    /// When loadgen fails.
    pub fn load(&self, address: &str) -> Result<PhaseEnd, String> {
        let mut command = self.command(address, "load");
        command.args(["--records", &self.settings.records.to_string(), "--pipeline", "8"]);
        finish(spawn(&mut command)?, false)
    }

    /// Starts the run phase and waits until its connections are there: the node has more than `others`.
    ///
    /// # Errors
    /// When loadgen or the node fails.
    pub fn start_run(&self, address: &str, round: u32, client: &mut Client) -> Result<Child, String> {
        let others = connections(client)?;
        let seed = self.seed.wrapping_add(u64::from(round)).to_string();
        let mut command = self.command(address, "run");
        command.args([
            "--workload",
            "a",
            "--duration",
            RUN_DURATION,
            "--on-disconnect",
            "stop",
            "--seed",
            &seed,
        ]);
        let mut child = spawn(&mut command)?;
        let begun = Instant::now();
        while connections(client)? <= others {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!(
                    "loadgen ended before the node was stopped ({status}): {}",
                    said(child)
                ));
            }
            if begun.elapsed() > CONNECT_TIMEOUT {
                let _ended = child.kill().and_then(|()| child.wait());
                return Err(format!("loadgen has not connected within {CONNECT_TIMEOUT:?}"));
            }
            std::thread::sleep(CONNECT_INTERVAL);
        }
        Ok(child)
    }

    /// Waits for the end of a run whose node was stopped.
    ///
    /// # Errors
    /// When loadgen fails.
    pub fn finish_run(child: Child) -> Result<PhaseEnd, String> {
        finish(child, true)
    }

    /// Compares the database, which must hold nothing else, with the register.
    ///
    /// # Errors
    /// When loadgen fails.
    pub fn check(&self, address: &str) -> Result<PhaseEnd, String> {
        finish(spawn(&mut self.command(address, "check"))?, false)
    }

    fn command(&self, address: &str, phase: &str) -> Command {
        let mut command = Command::new(&self.settings.program);
        command
            .args([
                "--connect",
                address,
                "--phase",
                phase,
                "--verify",
                "--json",
                "--quiet",
                "--threads",
                "1",
            ])
            .args(["--value-size", &self.settings.value_bytes.to_string()])
            .arg("--register")
            .arg(&self.register)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

fn spawn(command: &mut Command) -> Result<Child, String> {
    let program = command.get_program().to_owned();
    command
        .spawn()
        .map_err(|error| format!("could not run {}: {error}", program.display()))
}

fn said(child: Child) -> String {
    match child.wait_with_output() {
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    }
}

fn finish(child: Child, is_node_lost: bool) -> Result<PhaseEnd, String> {
    let output = child
        .wait_with_output()
        .map_err(|error| format!("loadgen: {error}"))?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    match output.status.code() {
        Some(EXIT_VIOLATION) => Ok(PhaseEnd::Violated(violations(&report))),
        Some(code) if code == if is_node_lost { EXIT_NODE_LOST } else { 0 } => {
            let operations = report["phases"].as_array().into_iter().flatten();
            let operations = operations.filter_map(|phase| phase["operations"].as_u64()).sum();
            Ok(PhaseEnd::Well(operations))
        }
        _ => Err(format!(
            "loadgen failed ({}): {} {}",
            output.status,
            report["reason"].as_str().unwrap_or_default(),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

fn violations(report: &serde_json::Value) -> Vec<Violation> {
    let listed = report["violations"].as_array().into_iter().flatten();
    let mut violations: Vec<Violation> = listed
        .map(|violation| Violation {
            key: format!("loadgen: {}", violation["key"]),
            expected: violation["expected"].to_string(),
            found: format!("{} ({})", violation["found"], violation["kind"]),
        })
        .collect();
    if violations.is_empty() {
        let expected = "its register to hold".to_owned();
        violations.push(Violation {
            key: "loadgen".to_owned(),
            expected,
            found: report.to_string(),
        });
    }
    violations
}

/// Connections of all cores of the node.
fn connections(client: &mut Client) -> Result<u64, String> {
    let json = client
        .status()
        .map_err(|error| format!("the node does not tell its status: {error}"))?;
    let status: serde_json::Value =
        serde_json::from_str(&json).map_err(|error| format!("the status is no JSON: {error}: {json}"))?;
    let cores = status["cores"]
        .as_array()
        .ok_or_else(|| format!("a status without cores: {json}"))?;
    Ok(cores.iter().filter_map(|core| core["connections"].as_u64()).sum())
}
