//! Resource limits of the process: locked memory and open files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Check;
use super::kernel::process_status_field;
use super::machine::bytes;
use crate::server::connection_limits::{CONNECTIONS_DEFAULT, CONNECTIONS_MAX};

/// The runtime refuses to start below this soft limit, whatever the privileges (glommio 0.9).
const LOCKED_BYTES_MIN: u64 = 512 << 10;

/// Each core registers 10 MiB of IO buffers with each of its three rings, and the kernel counts each.
const LOCKED_BYTES_PER_CORE: u64 = 3 * (10 << 20);

/// Below this a node has no room for its segments and a handful of connections.
const OPEN_FILES_MIN: u64 = 256;

/// Enough for thousands of connections and every file of a large database.
const OPEN_FILES_GOOD: u64 = 65_536;

/// Descriptors of a node beside those of its cores and of client connections: standard streams, logs of the process,
/// connections over HTTP, a reserve.
const OTHER_FILES: u64 = 128;

/// Descriptors of a core: rings, timers, segments, a connection that is being handed over.
const OTHER_FILES_PER_CORE: u64 = 64;

/// Number of the capability `CAP_IPC_LOCK` in the masks of `/proc/self/status`.
const CAP_IPC_LOCK: u32 = 14;

/// Lifts the soft limits of locked memory and open files to the hard ones, where they differ.
///
/// Needs no privilege. A refusal changes nothing that the checks would not report.
pub fn raise_limits() {
    for resource in [Resource::Memlock, Resource::Nofile] {
        let limit = getrlimit(resource);
        if limit.current != limit.maximum {
            // The kernel allows every process this; should it not, the soft limit stays and is checked.
            let _ = setrlimit(
                resource,
                Rlimit {
                    current: limit.maximum,
                    maximum: limit.maximum,
                },
            );
        }
    }
}

/// What decides whether IO buffers can be registered.
#[derive(Debug, Clone, Copy)]
pub struct LockedMemoryFacts {
    /// The soft limit in bytes; none is unlimited.
    pub limit_bytes: Option<u64>,
    /// The process may lock any amount (`CAP_IPC_LOCK`).
    pub exempt: bool,
    /// Cores that the node is going to run.
    pub cores: u64,
}

/// Reads the limit of locked memory.
pub fn collect_locked_memory(cores: usize) -> LockedMemoryFacts {
    let capabilities = process_status_field("CapEff:").and_then(|mask| u64::from_str_radix(&mask, 16).ok());
    LockedMemoryFacts {
        limit_bytes: getrlimit(Resource::Memlock).current,
        exempt: capabilities.is_some_and(|mask| mask >> CAP_IPC_LOCK & 1 == 1),
        cores: cores as u64,
    }
}

/// Verdict over locked memory.
pub fn locked_memory(facts: &LockedMemoryFacts) -> Check {
    const NAME: &str = "locked memory";
    const FIX: &str = "run `ulimit -l unlimited` before the start (systemd: LimitMEMLOCK=infinity; docker: \
         --ulimit memlock=-1; otherwise raise memlock in /etc/security/limits.conf)";
    let Some(limit) = facts.limit_bytes else {
        return Check::ok(NAME, "unlimited");
    };
    let wanted = LOCKED_BYTES_PER_CORE * facts.cores;
    if limit < LOCKED_BYTES_MIN {
        let finding = format!(
            "the limit is {}, and at least {} is needed",
            bytes(limit),
            bytes(LOCKED_BYTES_MIN)
        );
        return Check::error(NAME, finding, FIX);
    }
    if facts.exempt {
        return Check::ok(
            NAME,
            format!(
                "the limit is {}, and this process is exempt from it",
                bytes(limit)
            ),
        );
    }
    if limit < wanted {
        let finding = format!(
            "the limit is {}; {} cores register IO buffers of {} if they can, and without them each disk \
             access costs more CPU time",
            bytes(limit),
            facts.cores,
            bytes(wanted)
        );
        return Check::warning(NAME, finding, FIX);
    }
    Check::ok(NAME, format!("{} of {} needed", bytes(limit), bytes(wanted)))
}

/// The soft limit of open files; none is unlimited.
pub fn collect_open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Verdict over the limit of open files.
pub fn open_files(limit: Option<u64>) -> Check {
    const NAME: &str = "open files";
    const FIX: &str = "run `ulimit -n 1048576` before the start (systemd: LimitNOFILE=1048576; docker: \
         --ulimit nofile=1048576; otherwise raise nofile in /etc/security/limits.conf)";
    match limit {
        None => Check::ok(NAME, "unlimited"),
        Some(limit) if limit < OPEN_FILES_MIN => Check::error(
            NAME,
            format!("the limit is {limit}, and at least {OPEN_FILES_MIN} is needed"),
            FIX,
        ),
        Some(limit) if limit < OPEN_FILES_GOOD => {
            let finding = format!(
                "the limit is {limit}; connections and data files share it, and {OPEN_FILES_GOOD} is \
                 comfortable"
            );
            Check::warning(NAME, finding, FIX)
        }
        Some(limit) => Check::ok(NAME, format!("{limit}")),
    }
}

/// What decides how many connections a node can have.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionFacts {
    /// The soft limit of open files; none is unlimited.
    pub limit: Option<u64>,
    /// Cores that the node is going to run.
    pub cores: u64,
    /// `--max-connections`.
    pub asked: Option<u32>,
}

impl ConnectionFacts {
    /// Connections that the node takes: those asked for, else the default as far as the limit allows it.
    pub fn connections_max(&self) -> u32 {
        self.asked
            .unwrap_or_else(|| CONNECTIONS_DEFAULT.min(self.fitting()).max(1))
    }

    /// Connections for which there are descriptors, when each core has its share of them.
    fn fitting(&self) -> u32 {
        let Some(limit) = self.limit else {
            return CONNECTIONS_MAX;
        };
        let fitting = limit.saturating_sub(self.other_files()) / self.cores * self.cores;
        u32::try_from(fitting)
            .unwrap_or(CONNECTIONS_MAX)
            .min(CONNECTIONS_MAX)
    }

    /// Descriptors for all but connections.
    fn other_files(&self) -> u64 {
        OTHER_FILES + OTHER_FILES_PER_CORE * self.cores
    }

    /// Descriptors for so many connections, shares rounded up, and all else.
    fn wanted(&self, connections: u32) -> u64 {
        u64::from(connections).div_ceil(self.cores) * self.cores + self.other_files()
    }
}

/// Reads the limit of open files, for a node with so many cores.
pub fn collect_connections(cores: usize, asked: Option<u32>) -> ConnectionFacts {
    ConnectionFacts {
        limit: collect_open_files(),
        // The system may not tell what CPUs there are; one core runs in any case.
        cores: cores.max(1) as u64,
        asked,
    }
}

/// Verdict over the number of connections.
pub fn connections(facts: &ConnectionFacts) -> Check {
    const NAME: &str = "connections";
    let (fitting, most) = (facts.fitting(), facts.asked.unwrap_or(CONNECTIONS_DEFAULT));
    let wanted = facts.wanted(most);
    let limit = match facts.limit {
        Some(limit) if limit < wanted => limit,
        _ => return Check::ok(NAME, format!("{most} at most")),
    };
    let cores = facts.cores;
    let raise = format!(
        "run `ulimit -n {wanted}` before the start (systemd: LimitNOFILE={wanted}; docker: --ulimit nofile={wanted})"
    );
    if fitting == 0 {
        return Check::error(
            NAME,
            format!("{cores} cores use up the limit of {limit} open files, and leave none for connections"),
            raise,
        );
    }
    if facts.asked.is_some() {
        return Check::error(
            NAME,
            format!("{most} connections on {cores} cores take {wanted} open files, and the limit is {limit}"),
            format!("start with --max-connections {fitting}, or {raise}"),
        );
    }
    Check::warning(
        NAME,
        format!(
            "the limit of {limit} open files leaves room for {fitting} connections, not for the usual {most}"
        ),
        format!("{raise}, or start with --max-connections {fitting}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::preflight::Status;

    fn locked(limit_bytes: Option<u64>, exempt: bool, cores: u64) -> Status {
        locked_memory(&LockedMemoryFacts {
            limit_bytes,
            exempt,
            cores,
        })
        .status
    }

    #[test]
    fn locked_memory_verdicts() {
        assert_eq!(locked(None, false, 64), Status::Ok);
        assert_eq!(locked(Some(64 << 10), false, 1), Status::Error);
        assert_eq!(
            locked(Some(64 << 10), true, 1),
            Status::Error,
            "the runtime asks for the limit alone"
        );
        assert_eq!(locked(Some(512 << 10), false, 1), Status::Warning);
        assert_eq!(locked(Some(8 << 20), false, 2), Status::Warning);
        assert_eq!(locked(Some(8 << 20), true, 2), Status::Ok);
        assert_eq!(locked(Some(60 << 20), false, 2), Status::Ok);
        assert_eq!(locked(Some(60 << 20), false, 3), Status::Warning);
    }

    #[test]
    fn open_files_verdicts() {
        assert_eq!(open_files(None).status, Status::Ok);
        assert_eq!(open_files(Some(65_536)).status, Status::Ok);
        assert_eq!(open_files(Some(65_535)).status, Status::Warning);
        assert_eq!(open_files(Some(1024)).status, Status::Warning);
        let error = open_files(Some(255));
        assert_eq!(error.status, Status::Error);
        assert!(error.sentence().contains("LimitNOFILE"));
    }

    #[test]
    fn connections_have_descriptors() {
        let facts = |limit, cores, asked| ConnectionFacts { limit, cores, asked };
        let check = connections(&facts(None, 64, None));
        assert_eq!(
            (check.status, check.finding.as_str()),
            (Status::Ok, "20000 at most")
        );
        assert_eq!(facts(None, 64, None).connections_max(), 20_000);
        // Two cores take 256 files themselves, three 320.
        assert_eq!(
            connections(&facts(Some(1_256), 2, Some(1_000))).status,
            Status::Ok
        );
        let refused = connections(&facts(Some(1_255), 2, Some(1_000)));
        assert_eq!(refused.status, Status::Error);
        assert!(
            refused.sentence().contains("--max-connections 998")
                && refused.sentence().contains("ulimit -n 1256"),
            "{refused:?}"
        );
        let rounded = connections(&facts(Some(1_321), 3, Some(1_000)));
        assert!(rounded.sentence().contains("ulimit -n 1322"), "{rounded:?}");
        let lowered = facts(Some(1_024), 2, None);
        assert_eq!(lowered.connections_max(), 768);
        assert_eq!(connections(&lowered).status, Status::Warning);
        assert!(connections(&lowered).sentence().contains("768 connections"));
        assert_eq!(connections(&facts(Some(20_256), 2, None)).status, Status::Ok);
        let none = facts(Some(256), 2, None);
        assert_eq!(connections(&none).status, Status::Error);
        assert!(connections(&none).finding.contains("leave none"));
    }

    #[test]
    fn soft_limits_reach_the_hard_ones() {
        raise_limits();
        for resource in [Resource::Memlock, Resource::Nofile] {
            let limit = getrlimit(resource);
            assert_eq!(limit.current, limit.maximum);
        }
    }
}
