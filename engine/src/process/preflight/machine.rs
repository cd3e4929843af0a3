//! Checks of the machine's size: CPUs this process may use, and memory.

use std::fs;

use bytesize::ByteSize;

use super::{Check, Intent, cgroup};
use crate::process::cpu_list;

/// Below this much usable memory a node holds little and soon answers that its memory is full.
const MEMORY_COMFORTABLE_BYTES: u64 = 512 << 20;

/// Bytes for people: binary units, one decimal place at most.
pub(super) fn bytes(count: u64) -> String {
    ByteSize(count).display().iec().to_string()
}

/// CPUs there are, CPUs allowed, CPUs asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct CpuFacts {
    /// CPUs that are online, if `/sys` says so.
    pub online: Option<usize>,
    /// The affinity mask of this process (`taskset`, cpusets), ascending.
    pub allowed: Vec<usize>,
    /// CPUs' worth of time that control groups allow.
    pub quota: Option<f64>,
    /// `--cores`.
    pub cores_asked: Option<u16>,
    /// `--cpus`.
    pub cpus_asked: Option<Vec<usize>>,
}

impl CpuFacts {
    /// How many cores a node with this intent runs.
    pub fn cores_to_run(&self) -> usize {
        let cpus = self.cpus_asked.as_ref().unwrap_or(&self.allowed).len();
        self.cores_asked.map_or(cpus, usize::from)
    }
}

/// Reads what CPUs there are.
pub fn collect_cpus(intent: &Intent) -> CpuFacts {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").ok();
    CpuFacts {
        online: online
            .and_then(|list| cpu_list::parse(list.trim()).ok())
            .map(|cpus| cpus.len()),
        allowed: allowed_cpus(),
        quota: cgroup::collect().cpus,
        cores_asked: intent.cores,
        cpus_asked: intent.cpus.clone(),
    }
}

/// The CPUs in the affinity mask of this process, ascending; empty if the system does not tell.
pub fn allowed_cpus() -> Vec<usize> {
    let Ok(mask) = rustix::thread::sched_getaffinity(None) else {
        return Vec::new();
    };
    (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|&cpu| mask.is_set(cpu))
        .collect()
}

/// Verdict over the CPUs.
pub fn cpus(facts: &CpuFacts) -> Check {
    const NAME: &str = "cpus";
    let allowed = facts.allowed.len();
    let cores = facts.cores_to_run();
    if allowed == 0 {
        return Check::warning(
            NAME,
            "the system does not tell the affinity mask",
            "name the CPUs with --cpus",
        );
    }
    let forbidden: Vec<usize> = facts
        .cpus_asked
        .iter()
        .flatten()
        .copied()
        .filter(|cpu| !facts.allowed.contains(cpu))
        .collect();
    if !forbidden.is_empty() {
        return Check::error(
            NAME,
            format!(
                "--cpus names {}, but this process may only use {}",
                cpu_list::format(&forbidden),
                cpu_list::format(&facts.allowed)
            ),
            "name allowed CPUs, or widen the affinity (taskset, cpuset) of the process",
        );
    }
    let finding = match facts.online {
        Some(online) => format!(
            "{allowed} of {online} online allowed ({})",
            cpu_list::format(&facts.allowed)
        ),
        None => format!("{allowed} allowed ({})", cpu_list::format(&facts.allowed)),
    };
    if let Some(quota) = facts.quota.filter(|&quota| quota < cores as f64) {
        let finding = format!(
            "{finding}; the control group allows {quota:.1} CPUs' worth of time, so {cores} cores would \
             be stopped for part of each period"
        );
        let fit = (quota.floor() as usize).max(1);
        return Check::warning(
            NAME,
            finding,
            format!("raise the CPU quota of the container, or start with --cores {fit}"),
        );
    }
    let cpus_to_use = facts.cpus_asked.as_ref().map_or(allowed, Vec::len);
    if cores > cpus_to_use {
        let finding =
            format!("{finding}; {cores} cores on {cpus_to_use} CPUs take turns, which costs latency");
        return Check::warning(NAME, finding, format!("start with --cores {cpus_to_use} or less"));
    }
    Check::ok(NAME, finding)
}

/// Memory there is and memory asked for, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryFacts {
    /// All of the machine.
    pub total: Option<u64>,
    /// What programs can still get without swapping.
    pub available: Option<u64>,
    /// What control groups allow this process.
    pub cgroup_limit: Option<u64>,
    /// `--memory`.
    pub asked: Option<u64>,
}

impl MemoryFacts {
    /// What this process can get without swapping and within its control groups; zero when nothing is known.
    pub fn usable_bytes(&self) -> u64 {
        [self.available, self.cgroup_limit]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(0)
    }
}

/// Reads how much memory there is.
pub fn collect_memory(intent: &Intent) -> MemoryFacts {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    MemoryFacts {
        total: meminfo_bytes(&meminfo, "MemTotal:"),
        available: meminfo_bytes(&meminfo, "MemAvailable:"),
        cgroup_limit: cgroup::collect().memory_bytes,
        asked: intent.memory_bytes,
    }
}

/// A field of `/proc/meminfo`, whose values are in kB of 1024 bytes.
fn meminfo_bytes(meminfo: &str, name: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Verdict over the memory.
pub fn memory(facts: &MemoryFacts) -> Check {
    const NAME: &str = "memory";
    let smallest = |candidates: [Option<u64>; 2]| candidates.into_iter().flatten().min();
    let (Some(most), Some(usable)) = (
        smallest([facts.total, facts.cgroup_limit]),
        smallest([facts.available, facts.cgroup_limit]),
    ) else {
        return Check::warning(
            NAME,
            "cannot be read from /proc/meminfo",
            "mount /proc, and set --memory by hand",
        );
    };
    let of_total = facts
        .total
        .map_or(String::new(), |total| format!(" of {}", bytes(total)));
    let limit = facts.cgroup_limit;
    let limited = limit.map_or(String::new(), |limit| {
        format!(", the control group allows {}", bytes(limit))
    });
    let finding = format!("{} available{of_total}{limited}", bytes(usable));
    match facts.asked {
        Some(asked) if asked > most => Check::error(
            NAME,
            format!(
                "{finding}; --memory asks for {}, which this process can never get",
                bytes(asked)
            ),
            format!(
                "ask for less than {}, or raise the container's limit",
                bytes(most)
            ),
        ),
        Some(asked) if asked > usable => Check::warning(
            NAME,
            format!("{finding}; --memory asks for {}", bytes(asked)),
            format!("free memory, or start with --memory below {}", bytes(usable)),
        ),
        _ if usable < MEMORY_COMFORTABLE_BYTES => {
            let fix = format!("make {} or more available", bytes(MEMORY_COMFORTABLE_BYTES));
            Check::warning(NAME, finding, fix)
        }
        _ => Check::ok(NAME, finding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::preflight::Status;

    const GIB: u64 = 1 << 30;

    fn two_cpus() -> CpuFacts {
        CpuFacts {
            online: Some(4),
            allowed: vec![0, 2],
            quota: None,
            cores_asked: None,
            cpus_asked: None,
        }
    }

    #[test]
    fn all_allowed_cpus_are_used_by_default() {
        let check = cpus(&two_cpus());
        assert_eq!(check, Check::ok("cpus", "2 of 4 online allowed (0,2)"));
        assert_eq!(two_cpus().cores_to_run(), 2);
    }

    #[test]
    fn more_cores_than_cpus_is_a_warning() {
        let check = cpus(&CpuFacts {
            cores_asked: Some(4),
            ..two_cpus()
        });
        assert_eq!(check.status, Status::Warning);
        assert!(check.finding.contains("4 cores on 2 CPUs"), "{check:?}");
        let pinned = CpuFacts {
            cores_asked: Some(2),
            cpus_asked: Some(vec![2]),
            ..two_cpus()
        };
        assert!(cpus(&pinned).finding.contains("2 cores on 1 CPUs"));
    }

    #[test]
    fn cpus_outside_the_mask_are_an_error() {
        let check = cpus(&CpuFacts {
            cpus_asked: Some(vec![0, 1, 3]),
            ..two_cpus()
        });
        assert_eq!(check.status, Status::Error);
        assert!(
            check.finding.contains("--cpus names 1,3,") && check.finding.contains("only use 0,2"),
            "{check:?}"
        );
    }

    #[test]
    fn a_quota_below_the_cores_is_a_warning_with_the_number_that_fits() {
        let check = cpus(&CpuFacts {
            quota: Some(1.5),
            ..two_cpus()
        });
        assert_eq!(check.status, Status::Warning);
        assert!(check.fix.unwrap().contains("--cores 1"));
        assert!(
            cpus(&CpuFacts {
                quota: Some(0.5),
                ..two_cpus()
            })
            .fix
            .unwrap()
            .contains("--cores 1")
        );
        assert_eq!(
            cpus(&CpuFacts {
                quota: Some(2.0),
                ..two_cpus()
            })
            .status,
            Status::Ok
        );
    }

    #[test]
    fn an_unknown_mask_is_said() {
        assert_eq!(
            cpus(&CpuFacts {
                allowed: vec![],
                ..two_cpus()
            })
            .status,
            Status::Warning
        );
    }

    fn memory_facts() -> MemoryFacts {
        MemoryFacts {
            total: Some(16 * GIB),
            available: Some(10 * GIB),
            cgroup_limit: None,
            asked: None,
        }
    }

    #[test]
    fn memory_verdicts() {
        let status = |facts| memory(&facts).status;
        assert_eq!(status(memory_facts()), Status::Ok);
        assert_eq!(
            status(MemoryFacts {
                asked: Some(10 * GIB),
                ..memory_facts()
            }),
            Status::Ok
        );
        assert_eq!(
            status(MemoryFacts {
                asked: Some(11 * GIB),
                ..memory_facts()
            }),
            Status::Warning
        );
        assert_eq!(
            status(MemoryFacts {
                asked: Some(17 * GIB),
                ..memory_facts()
            }),
            Status::Error
        );
        let boxed = MemoryFacts {
            cgroup_limit: Some(2 * GIB),
            ..memory_facts()
        };
        assert_eq!(status(boxed), Status::Ok);
        assert_eq!(
            status(MemoryFacts {
                asked: Some(3 * GIB),
                ..boxed
            }),
            Status::Error
        );
        assert_eq!(
            status(MemoryFacts {
                cgroup_limit: Some(GIB / 4),
                ..memory_facts()
            }),
            Status::Warning
        );
        assert_eq!(
            status(MemoryFacts {
                available: Some(GIB / 4),
                ..memory_facts()
            }),
            Status::Warning
        );
        assert_eq!(
            status(MemoryFacts {
                total: None,
                available: None,
                ..memory_facts()
            }),
            Status::Warning
        );
    }

    #[test]
    fn meminfo_is_read_in_bytes() {
        let text =
            "MemTotal:       16384 kB\nMemFree:  1 kB\nMemAvailable:    8192 kB\nHugePages_Total:  7\n";
        assert_eq!(meminfo_bytes(text, "MemTotal:"), Some(16 << 20));
        assert_eq!(meminfo_bytes(text, "MemAvailable:"), Some(8 << 20));
        assert_eq!(meminfo_bytes(text, "HugePages_Total:"), None);
        assert_eq!(meminfo_bytes(text, "Absent:"), None);
    }
}
