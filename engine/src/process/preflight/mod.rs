//! Checks of the machine before a node starts: what would stop it, what would slow it, and the exact fix.
//!
//! Each check is two functions: a thin collector of facts, and a pure verdict over those facts, so that
//! every verdict is tested with made-up machines. A check never tries a repair, with one exception that
//! `serve` and `doctor` share: [`raise_limits`] lifts the soft limits of this process to the hard ones.
//!
//! `serve` runs [`quick_checks`] (some milliseconds) and refuses to start on the first error;
//! `doctor` also measures the disk (see [`doctor`](super::doctor)).

pub mod data_directory;
pub mod kernel;
pub mod limits;
pub mod machine;
pub mod sync_latency;

mod cgroup;

use std::path::PathBuf;

use serde::Serialize;

pub use limits::raise_limits;

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// A node runs, but slower or less safely than it could.
    Warning,
    /// A node can't run.
    Error,
}

impl Status {
    /// The word for it in every output.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Error => "error",
        }
    }
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at, in two words or so.
    pub name: &'static str,
    /// The verdict.
    pub status: Status,
    /// What was found, with its numbers.
    pub finding: String,
    /// What to do about it: always there unless the status is ok.
    pub fix: Option<String>,
}

impl Check {
    /// All is well.
    pub fn ok(name: &'static str, finding: impl Into<String>) -> Check {
        Check {
            name,
            status: Status::Ok,
            finding: finding.into(),
            fix: None,
        }
    }

    /// It works, with a drawback.
    pub fn warning(name: &'static str, finding: impl Into<String>, fix: impl Into<String>) -> Check {
        Check {
            name,
            status: Status::Warning,
            finding: finding.into(),
            fix: Some(fix.into()),
        }
    }

    /// It can't work.
    pub fn error(name: &'static str, finding: impl Into<String>, fix: impl Into<String>) -> Check {
        Check {
            name,
            status: Status::Error,
            finding: finding.into(),
            fix: Some(fix.into()),
        }
    }

    /// Finding and fix in one line, for a log or a refusal.
    pub fn sentence(&self) -> String {
        match &self.fix {
            Some(fix) => format!("{}: {}; fix: {fix}", self.name, self.finding),
            None => format!("{}: {}", self.name, self.finding),
        }
    }
}

/// What the node is going to be asked for; decides how much of the machine is enough.
#[derive(Debug, Clone)]
pub struct Intent {
    /// The data directory; it need not exist yet.
    pub data_directory: PathBuf,
    /// `--cores`; none means one per allowed CPU.
    pub cores: Option<u16>,
    /// `--cpus`: the CPUs to run on.
    pub cpus: Option<Vec<usize>>,
    /// `--memory`, in bytes.
    pub memory_bytes: Option<u64>,
    /// `--max-connections`.
    pub connections_max: Option<u32>,
}

impl Intent {
    /// A node with defaults in a directory.
    pub fn new(data_directory: PathBuf) -> Intent {
        Intent {
            data_directory,
            cores: None,
            cpus: None,
            memory_bytes: None,
            connections_max: None,
        }
    }
}

/// All checks that take no measuring. Creates nothing that outlives it.
pub fn quick_checks(intent: &Intent) -> Vec<Check> {
    let cpus = machine::collect_cpus(intent);
    let cores = cpus.cores_to_run();
    let mut checks = vec![
        kernel::kernel_version(&kernel::collect_version()),
        kernel::io_uring(&kernel::collect_io_uring()),
        kernel::clock_source(&kernel::collect_clock_source()),
        limits::locked_memory(&limits::collect_locked_memory(cores)),
        limits::open_files(limits::collect_open_files()),
        limits::connections(&limits::collect_connections(cores, intent.connections_max)),
        machine::cpus(&cpus),
        machine::memory(&machine::collect_memory(intent)),
    ];
    checks.extend(data_directory::checks(&data_directory::collect(
        &intent.data_directory,
    )));
    checks
}

/// The first error among the checks, as the one sentence with which `serve` refuses to start.
pub fn refusal(checks: &[Check]) -> Option<String> {
    checks
        .iter()
        .find(|check| check.status == Status::Error)
        .map(Check::sentence)
}

/// A directory on the disk of the build, for tests that need direct IO: `/tmp` may lie in memory.
#[cfg(test)]
pub(super) fn directory_on_disk() -> tempfile::TempDir {
    let test_binary = std::env::current_exe().unwrap();
    tempfile::tempdir_in(test_binary.parent().unwrap()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_the_first_error_with_its_fix() {
        let fine = Check::ok("a", "good");
        let slow = Check::warning("b", "slow", "faster");
        assert_eq!(refusal(&[fine.clone(), slow.clone()]), None);
        let checks = [
            fine,
            slow,
            Check::error("c", "gone", "bring it"),
            Check::error("d", "x", "y"),
        ];
        assert_eq!(refusal(&checks).unwrap(), "c: gone; fix: bring it");
    }

    #[test]
    fn every_check_reports_once_and_says_what_to_do() {
        let directory = directory_on_disk();
        let checks = quick_checks(&Intent::new(directory.path().to_owned()));
        let mut names: Vec<_> = checks.iter().map(|check| check.name).collect();
        names.dedup();
        assert_eq!(names.len(), checks.len(), "{names:?}");
        for check in &checks {
            assert_eq!(check.fix.is_some(), check.status != Status::Ok, "{check:?}");
        }
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            0,
            "a check left a file behind"
        );
    }
}
