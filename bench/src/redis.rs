//! Redis as a peer: `redis-server` with an append-only file that is synced before each answer.
//!
//! It gets the same CPU as the other server, and nothing that runs beside its main loop: no snapshots and
//! no rewriting of the file.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::{self, Process};
use crate::workspace::{self, Workspace};

/// How long it may take to listen.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// Connections that it takes: more than any benchmark makes.
const CLIENTS_MAX: usize = 20_000;

/// A running Redis with its data.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    address: String,
    data: PathBuf,
}

impl Redis {
    /// The release, as the binary tells it.
    ///
    /// # Errors
    /// A sentence, if it is not there.
    pub fn version() -> Result<String, String> {
        let said = process::output_of(Command::new("redis-server").arg("--version"));
        let said = said.map_err(|error| {
            format!("{error}; install it (Debian: apt-get install redis-server), or leave out --redis")
        })?;
        let release = said.split_whitespace().find_map(|word| word.strip_prefix("v="));
        Ok(release.unwrap_or(said.trim()).to_owned())
    }

    /// Starts it on an empty directory of the workspace, pinned to one CPU, and waits until it listens.
    ///
    /// # Errors
    /// A sentence with the end of its log, if it does not come up.
    pub fn start(workspace: &Workspace, cpu: usize) -> Result<Self, String> {
        let (data, log) = (workspace.join("redis"), workspace.join("redis.log"));
        std::fs::create_dir(&data).map_err(|error| format!("cannot make {}: {error}", data.display()))?;
        let log_file =
            File::create(&log).map_err(|error| format!("cannot make {}: {error}", log.display()))?;
        let port = free_port()?;
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"])
            .arg(&data);
        command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
        command.args(["--auto-aof-rewrite-percentage", "0", "--daemonize", "no"]);
        command.args(["--maxclients", &CLIENTS_MAX.to_string()]);
        command
            .stdin(Stdio::null())
            .stdout(log_file)
            .stderr(Stdio::null());
        process::pin_command(&mut command, cpu);
        let process = Process::start("redis-server", &mut command, libc::SIGTERM)?;
        let mut redis = Self {
            process,
            address: format!("127.0.0.1:{port}"),
            data,
        };
        process::wait_for("redis-server to listen", READY_WITHIN, || {
            if let Some(status) = redis.process.ended() {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                return Err(format!("redis-server ended ({status}):\n{said}"));
            }
            Ok(TcpStream::connect(&redis.address).ok().map(drop))
        })?;
        Ok(redis)
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Err(sentence) = self.process.stop() {
            eprintln!("ostrakon-bench: {sentence}");
        }
        workspace::remove(&self.data);
    }
}

/// A port that nobody listens on. Somebody may take it before Redis does, which then says so.
fn free_port() -> Result<u16, String> {
    let listener =
        TcpListener::bind("127.0.0.1:0").map_err(|error| format!("cannot find a free port: {error}"))?;
    let address = listener
        .local_addr()
        .map_err(|error| format!("cannot find a free port: {error}"))?;
    Ok(address.port())
}
