//! An `ostrakon serve` process under measurement: one core, pinned, on a port of the system's choice.
//!
//! Guarantees: a binary with the `verify` feature is refused before anything runs; a server answers when
//! [`Server::start`] returns; it is stopped when it is dropped, and its data removed unless they lie where the caller
//! has said.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ostrakon_client::{Client, Options};
use serde_json::Value;

use crate::process::{self, Process};
use crate::workspace::{self, Workspace};

/// The binary to measure.
#[derive(Debug, Clone)]
pub struct Binary {
    path: PathBuf,
    version: String,
}

impl Binary {
    /// Looks at the binary: the one given, else `ostrakon` beside this process' own.
    ///
    /// # Errors
    /// A sentence, if it is not there or must not be measured.
    pub fn find(given: Option<&Path>) -> Result<Self, String> {
        let path = match given {
            Some(path) => path.to_owned(),
            None => std::env::current_exe()
                .map_err(|error| format!("cannot tell where this program lies: {error}"))?
                .with_file_name("ostrakon"),
        };
        let version = process::output_of(Command::new(&path).arg("--version")).map_err(|error| {
            format!("{error}; build it with `cargo build --release -p ostrakon`, or name it with --binary")
        })?;
        refuse_verify(&version)?;
        Ok(Self {
            path,
            version: version.trim().to_owned(),
        })
    }

    /// What it prints for `--version`.
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// Checks that cost time are for simulation; what they cost must not be taken for the database's speed.
fn refuse_verify(version: &str) -> Result<(), String> {
    let features = version.split("features:").nth(1).unwrap_or_default();
    if features.contains("verify") {
        return Err(format!(
            "refusing to measure a binary with the feature `verify` ({}); build it without that feature",
            version.trim()
        ));
    }
    Ok(())
}

/// How to start a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// CPU that it runs on.
    pub cpu: usize,
    /// Program and arguments to run it under, such as valgrind; empty for none.
    pub under: Vec<OsString>,
    /// Variables for its environment.
    pub environment: Vec<(OsString, OsString)>,
    /// More arguments of `ostrakon serve`.
    pub arguments: Vec<OsString>,
    /// How long it may take to serve.
    pub ready_within: Duration,
    /// Where its data lie, or come to lie, and stay when it ends; none for a fresh directory that is removed then.
    pub data: Option<PathBuf>,
    /// The file of processes of the control group that it runs in, if in one of its own.
    pub group: Option<PathBuf>,
}

/// A running server with its data.
#[derive(Debug)]
pub struct Server {
    process: Process,
    address: String,
    /// What is to be removed.
    fresh_data: Option<PathBuf>,
    /// What it logs.
    log: PathBuf,
    /// From its start until it served.
    ready_after: Duration,
}

impl Server {
    /// Starts a server on an empty directory of the workspace, or on the data that the options name, and waits until it
    /// serves.
    ///
    /// # Errors
    /// A sentence with the end of the server's log, if it does not come up.
    pub fn start(binary: &Binary, workspace: &Workspace, options: &ServerOptions) -> Result<Self, String> {
        let fresh_data = options.data.is_none().then(|| workspace.join("data"));
        let data = options.data.as_ref().or(fresh_data.as_ref());
        let data = data.expect("it is one or the other");
        let log = workspace.join("server.log");
        let log_file =
            File::create(&log).map_err(|error| format!("cannot make {}: {error}", log.display()))?;
        let mut words = options
            .under
            .iter()
            .cloned()
            .chain([binary.path.clone().into_os_string()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).arg("serve").arg("--data").arg(data);
        command.args([
            "--listen",
            "127.0.0.1:0",
            "--cores",
            "1",
            "--cpus",
            &options.cpu.to_string(),
        ]);
        command
            .args(&options.arguments)
            .env_remove("RUST_LOG")
            // Several servers may run at once, and the default address is one. Older ones have no such flag.
            .env("OSTRAKON_HTTP", "off")
            .envs(options.environment.iter().cloned());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file);
        if let Some(processes) = &options.group {
            process::join_group(&mut command, processes)?;
        }
        let begun = Instant::now();
        let mut process = Process::start("the server", &mut command, libc::SIGTERM)?;
        process.stop_within(options.ready_within);
        // From here on the guard removes the directory whatever happens.
        let mut server = Self {
            process,
            address: String::new(),
            fresh_data,
            log,
            ready_after: Duration::ZERO,
        };
        server.wait_until_ready(options.ready_within)?;
        server.ready_after = begun.elapsed();
        Ok(server)
    }

    /// Reads the greeting on a thread, because a pipe has no timeout.
    fn wait_until_ready(&mut self, within: Duration) -> Result<(), String> {
        let output = self
            .process
            .child()
            .stdout
            .take()
            .ok_or("the server's output is not a pipe")?;
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // Goes on to the end of the output, so that the server never writes into a closed pipe.
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(address) = line.trim().strip_prefix("address ") {
                    // Nobody listens after the first address, or after a timeout; both are fine.
                    let _ = sender.send(address.trim().to_owned());
                }
            }
        });
        let found = process::wait_for("the server's greeting", within, || {
            if let Some(status) = self.process.ended() {
                return Err(format!("the server ended ({status}) before it served"));
            }
            Ok(receiver.try_recv().ok())
        });
        self.address = found.map_err(|error| format!("{error}; its log ends with:\n{}", self.log_end()))?;
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// From its start until it served; to within 10 ms.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.process.ended()
    }

    /// The last lines of its log.
    pub fn log_end(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// What `ostrakon status` shows.
    ///
    /// # Errors
    /// A sentence, if it does not answer.
    pub fn status(&self) -> Result<Value, String> {
        let mut client =
            Client::connect(&self.address, Options::default()).map_err(|error| error.to_string())?;
        let json = client.status().map_err(|error| error.to_string())?;
        serde_json::from_str(&json)
            .map_err(|error| format!("the server's status is not JSON ({error}): {json}"))
    }

    /// All that it counts, as metrics show it.
    ///
    /// # Errors
    /// A sentence, if it does not answer.
    pub fn stats(&self) -> Result<Value, String> {
        let mut client =
            Client::connect(&self.address, Options::default()).map_err(|error| error.to_string())?;
        let json = client.stats().map_err(|error| error.to_string())?;
        serde_json::from_str(&json)
            .map_err(|error| format!("the server's statistics are not JSON ({error}): {json}"))
    }

    /// Kills it.
    pub fn kill(mut self) {
        self.process.kill();
    }

    /// Stops it in order.
    ///
    /// # Errors
    /// A sentence, if it did not drain and end by itself, successfully.
    pub fn stop(mut self) -> Result<(), String> {
        let status = self.process.stop()?;
        if status.success() {
            return Ok(());
        }
        Err(format!(
            "the server ended with {status}; its log ends with:\n{}",
            self.log_end()
        ))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(sentence) = self.process.stop() {
            eprintln!("ostrakon-bench: {sentence}");
        }
        if let Some(data) = self.fresh_data.take()
            && data.exists()
        {
            workspace::remove(&data);
        }
    }
}

/// A number of the status of core 0, such as `write_latency.p50_us`.
///
/// # Errors
/// A sentence, if the status has no such number.
pub fn core_figure(status: &Value, pointer: &str) -> Result<f64, String> {
    let found = status
        .pointer(&format!("/cores/0/{pointer}"))
        .and_then(Value::as_f64);
    found.ok_or_else(|| format!("the server's status has no number cores[0]/{pointer}: {status}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verify_is_refused_as_a_feature_only() {
        assert!(refuse_verify("ostrakon 0.1.0 (commit abc, features: none)").is_ok());
        assert!(refuse_verify("ostrakon 0.1.0 (commit verify1, features: none)").is_ok());
        let error = refuse_verify("ostrakon 0.1.0 (commit abc, features: verify)\n").unwrap_err();
        assert!(error.contains("refusing"), "{error}");
    }

    #[test]
    fn figures_come_from_core_0() {
        let status = serde_json::json!({"cores": [{"write_latency": {"p50_us": 41.5}}]});
        let figure = core_figure(&status, "write_latency/p50_us").unwrap();
        assert!((figure - 41.5).abs() < 1e-9);
        assert!(core_figure(&status, "write_latency/p98_us").is_err());
    }
}
