//! The server with what lies around it: a disk that can lose its power, a control group, and an account of its lives.
//!
//! Without the means for a disk or a group the run goes on: the server is killed in place of a power cut, and its
//! resident memory alone is watched. The report says so.

use std::path::PathBuf;
use std::time::Duration;

use crate::cli::Setup;
use crate::control_group::ControlGroup;
use crate::machine;
use crate::power_disk::PowerDisk;
use crate::server::{Server, ServerOptions};

/// How long a server may take to serve again before it counts as hanging.
const READY_WITHIN: Duration = Duration::from_mins(2);

/// How a server came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// On an empty directory.
    Nothing,
    /// After a cut.
    Cut,
    /// After a stop in order.
    Stop,
}

/// One life of the server.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    /// What came before.
    pub after: After,
    /// From its start until it served.
    pub ready_after: Duration,
    /// The most resident memory that it had, until it was last looked at.
    pub peak_bytes: u64,
    /// What it has written, until it was last looked at.
    pub written_bytes: u64,
}

/// The server with its surroundings.
#[derive(Debug)]
pub struct Rig<'a> {
    setup: &'a Setup,
    options: ServerOptions,
    data: PathBuf,
    // Dropped in this order: the server before the disk and the group that it is in.
    server: Option<Server>,
    disk: Option<PowerDisk>,
    group: Option<ControlGroup>,
    lives: Vec<Life>,
    /// What could not be had, for the report.
    missing: Vec<String>,
}

impl<'a> Rig<'a> {
    /// Makes what can be had, and starts the server.
    ///
    /// # Errors
    /// A sentence, if the server does not come up, or a disk that should be possible can't be made.
    pub fn new(setup: &'a Setup, memory_mib: u64, limit_bytes: u64, disk_bytes: u64) -> Result<Self, String> {
        let mut missing = Vec::new();
        let disk = match PowerDisk::available() {
            Ok(()) => Some(PowerDisk::new(&setup.workspace, disk_bytes)?),
            Err(sentence) => {
                missing.push(format!(
                    "The server was killed in place of power cuts: {sentence}."
                ));
                None
            }
        };
        let group = ControlGroup::new(limit_bytes).map_err(|sentence| {
            missing.push(format!(
                "No control group bounds the memory, it is only watched: {sentence}."
            ));
        });
        let group = group.ok();
        let directory = disk
            .as_ref()
            .map_or(setup.workspace.path(), PowerDisk::mount_point);
        let data = directory.join("node");
        let mut options = setup.server_options();
        options
            .environment
            .push(("OSTRAKON_MEMORY".into(), format!("{memory_mib}MiB").into()));
        options.data = Some(data.clone());
        options.group = group.as_ref().map(ControlGroup::processes);
        options.ready_within = READY_WITHIN;
        let mut rig = Self {
            setup,
            options,
            data,
            server: None,
            disk,
            group,
            lives: Vec::new(),
            missing,
        };
        rig.start(After::Nothing)?;
        Ok(rig)
    }

    /// The server.
    ///
    /// # Errors
    /// A sentence, if none runs.
    pub fn server(&self) -> Result<&Server, String> {
        self.server.as_ref().ok_or_else(|| "no server runs".to_owned())
    }

    /// Starts the server on its data.
    ///
    /// # Errors
    /// A sentence, if it does not come up.
    pub fn start(&mut self, after: After) -> Result<(), String> {
        assert!(self.server.is_none(), "one server at a time");
        let started = Server::start(&self.setup.binary, &self.setup.workspace, &self.options);
        let server = started.map_err(|error| self.explained(&error))?;
        self.lives.push(Life {
            after,
            ready_after: server.ready_after(),
            peak_bytes: 0,
            written_bytes: 0,
        });
        self.server = Some(server);
        Ok(())
    }

    /// Cuts the power, lets the server live on without it for a moment, kills it, and brings the power back.
    ///
    /// # Errors
    /// A sentence, if the disk does not do as it is told.
    pub fn cut(&mut self, linger: Duration) -> Result<(), String> {
        if let Some(disk) = &self.disk {
            disk.cut()?;
            std::thread::sleep(linger);
        }
        // It may have ended by itself when its disk was gone.
        let _ = self.look();
        if let Some(server) = self.server.take() {
            server.kill();
        }
        match &mut self.disk {
            Some(disk) => disk.restore(),
            None => Ok(()),
        }
    }

    /// Stops the server in order.
    ///
    /// # Errors
    /// A sentence, if it does not drain and end successfully.
    pub fn stop(&mut self) -> Result<(), String> {
        self.look()?;
        match self.server.take() {
            Some(server) => server.stop(),
            None => Ok(()),
        }
    }

    /// Takes the server's memory and writes into the account of its life.
    ///
    /// # Errors
    /// A sentence, if it is gone.
    pub fn look(&mut self) -> Result<(), String> {
        let id = self.server()?.id();
        let life = self.lives.last_mut().ok_or("no server was started")?;
        life.peak_bytes = machine::peak_rss_bytes(id)?;
        life.written_bytes = machine::written_bytes(id)?;
        Ok(())
    }

    /// A failure, with what the server says, and whether it was killed for its memory.
    pub fn explained(&self, error: &str) -> String {
        if machine::check_signals().is_err() {
            return error.to_owned();
        }
        let kills = self.group.as_ref().map_or(0, ControlGroup::kills);
        let log = self.server.as_ref().map(Server::log_end).unwrap_or_default();
        let log = if log.is_empty() {
            log
        } else {
            format!("; the server's log ends with:\n{log}")
        };
        if kills > 0 {
            return format!(
                "the kernel has killed the server, which needed more memory than its control group may have \
                 (see --limit-percent): {error}{log}"
            );
        }
        format!("{error}{log}")
    }

    /// All lives so far.
    pub fn lives(&self) -> &[Life] {
        &self.lives
    }

    /// What the server has written in all its lives, in bytes.
    pub fn written_bytes(&self) -> u64 {
        self.lives.iter().map(|life| life.written_bytes).sum()
    }

    /// The most that the control group has had, in bytes.
    pub fn group_peak_bytes(&self) -> Option<u64> {
        self.group.as_ref().and_then(ControlGroup::peak_bytes)
    }

    /// Sentences about what could not be had.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// What a cut is here.
    pub fn cut_name(&self) -> &'static str {
        if self.disk.is_some() { "power cut" } else { "kill" }
    }

    /// Bytes of the server's files: all, and those of tables.
    ///
    /// # Errors
    /// A sentence, if they can't be looked at.
    pub fn file_bytes(&self) -> Result<(u64, u64), String> {
        let all = machine::directory_bytes(&self.data)?;
        Ok((all, machine::directory_bytes(&self.data.join("shard"))?))
    }
}
