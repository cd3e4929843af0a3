//! Checks of the kernel: version, `io_uring`, clock source.
//!
//! `io_uring` is probed by using it: a ring is set up, one empty operation goes through it, and the list of
//! operations the runtime needs is compared with the kernel's. Whoever blocks it (age, sysctl, seccomp)
//! is told apart by the error number and by what `/proc` says, because each has another fix.

use std::fs;
use std::io;

use io_uring::{IoUring, Probe, opcode};
use rustix::io::Errno;

use super::Check;

/// The oldest kernel that Ostrakon supports, as (major, minor).
pub const OLDEST_KERNEL: (u32, u32) = (5, 15);

const CLOCK_SOURCE_DIRECTORY: &str = "/sys/devices/system/clocksource/clocksource0";

/// Clock sources read without a system call (vDSO) or at least in tens of nanoseconds.
const FAST_CLOCK_SOURCES: [&str; 6] = [
    "tsc",
    "kvm-clock",
    "hyperv_clocksource_tsc_page",
    "hyperv_clocksource_msr",
    "arch_sys_counter",
    "riscv_clocksource",
];

/// Sources whose every reading is a trip to a slow device.
const SLOW_CLOCK_SOURCES: [&str; 4] = ["hpet", "acpi_pm", "jiffies", "refined-jiffies"];

/// Operations that the runtime (glommio 0.9) submits, by the names of the kernel's documentation.
const OPERATIONS: [(&str, u8); 22] = [
    ("NOP", opcode::Nop::CODE),
    ("READ", opcode::Read::CODE),
    ("WRITE", opcode::Write::CODE),
    ("READ_FIXED", opcode::ReadFixed::CODE),
    ("WRITE_FIXED", opcode::WriteFixed::CODE),
    ("FSYNC", opcode::Fsync::CODE),
    ("FALLOCATE", opcode::Fallocate::CODE),
    ("OPENAT", opcode::OpenAt::CODE),
    ("CLOSE", opcode::Close::CODE),
    ("STATX", opcode::Statx::CODE),
    ("POLL_ADD", opcode::PollAdd::CODE),
    ("POLL_REMOVE", opcode::PollRemove::CODE),
    ("TIMEOUT", opcode::Timeout::CODE),
    ("TIMEOUT_REMOVE", opcode::TimeoutRemove::CODE),
    ("LINK_TIMEOUT", opcode::LinkTimeout::CODE),
    ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
    ("ACCEPT", opcode::Accept::CODE),
    ("CONNECT", opcode::Connect::CODE),
    ("SEND", opcode::Send::CODE),
    ("RECV", opcode::Recv::CODE),
    ("SENDMSG", opcode::SendMsg::CODE),
    ("RECVMSG", opcode::RecvMsg::CODE),
];

/// The running kernel's release, such as `6.12.9-amd64`.
pub fn collect_version() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Verdict over a kernel release.
pub fn kernel_version(release: &str) -> Check {
    const NAME: &str = "kernel";
    let (major, minor) = OLDEST_KERNEL;
    let upgrade = format!("run Linux {major}.{minor} or newer");
    match parse_release(release) {
        Some(found) if found >= OLDEST_KERNEL => Check::ok(NAME, format!("Linux {release}")),
        Some(_) => Check::error(
            NAME,
            format!("Linux {release} is older than {major}.{minor}"),
            upgrade,
        ),
        None => Check::warning(
            NAME,
            format!("cannot tell the version of the kernel release '{release}'"),
            upgrade,
        ),
    }
}

/// Major and minor number of a release.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// What is known about `io_uring` on this machine.
#[derive(Debug, Clone)]
pub struct IoUringFacts {
    /// How the probe ended.
    pub probe: Probed,
    /// `kernel.io_uring_disabled`: 0 for all, 1 for those outside a group, 2 for nobody; none on kernels
    /// without the switch.
    pub disabled: Option<u8>,
    /// `kernel.io_uring_group`: the group that may use it when `disabled` is 1; -1 is nobody.
    pub group: Option<i64>,
    /// This process runs under a seccomp filter.
    pub seccomp: bool,
    /// The kernel's release.
    pub release: String,
}

/// The outcome of using `io_uring`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probed {
    /// It works; these operations of the runtime are missing.
    Works {
        /// Names as in [the kernel's list](https://man7.org/linux/man-pages/man2/io_uring_enter.2.html).
        missing: Vec<&'static str>,
    },
    /// A system call failed.
    Failed {
        /// `io_uring_setup`, `io_uring_enter` or `io_uring_register`.
        call: &'static str,
        /// The error number, as in `errno(3)`.
        errno: i32,
    },
}

/// Probes `io_uring`.
pub fn collect_io_uring() -> IoUringFacts {
    let number = |path| fs::read_to_string(path).ok()?.trim().parse::<i64>().ok();
    IoUringFacts {
        probe: probe_io_uring(),
        disabled: number("/proc/sys/kernel/io_uring_disabled").and_then(|value| value.try_into().ok()),
        group: number("/proc/sys/kernel/io_uring_group"),
        seccomp: process_status_field("Seccomp:").is_some_and(|mode| mode != "0"),
        release: collect_version(),
    }
}

fn probe_io_uring() -> Probed {
    let failed = |call, error: &io::Error| Probed::Failed {
        call,
        errno: error.raw_os_error().unwrap_or(0),
    };
    let mut ring = match IoUring::new(4) {
        Ok(ring) => ring,
        Err(error) => return failed("io_uring_setup", &error),
    };
    let nothing = opcode::Nop::new().build();
    // SAFETY: a no-op refers to no memory, so nothing has to outlive its completion.
    let pushed = unsafe { ring.submission().push(&nothing) };
    assert!(pushed.is_ok(), "an empty ring of four entries has room for one");
    if let Err(error) = ring.submit_and_wait(1) {
        return failed("io_uring_enter", &error);
    }
    let mut supported = Probe::new();
    if let Err(error) = ring.submitter().register_probe(&mut supported) {
        return failed("io_uring_register", &error);
    }
    let missing = OPERATIONS
        .iter()
        .filter(|(_, code)| !supported.is_supported(*code))
        .map(|(name, _)| *name);
    Probed::Works {
        missing: missing.collect(),
    }
}

/// A field of `/proc/self/status`.
pub(super) fn process_status_field(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status
        .lines()
        .find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
}

/// Verdict over `io_uring`.
pub fn io_uring(facts: &IoUringFacts) -> Check {
    const NAME: &str = "io_uring";
    let (call, errno) = match &facts.probe {
        Probed::Works { missing } if missing.is_empty() => {
            return Check::ok(
                NAME,
                format!("works, with all {} operations needed", OPERATIONS.len()),
            );
        }
        Probed::Works { missing } => {
            let (major, minor) = OLDEST_KERNEL;
            let finding = format!("the kernel lacks the operations {}", missing.join(", "));
            return Check::error(NAME, finding, format!("run Linux {major}.{minor} or newer"));
        }
        Probed::Failed { call, errno } => (*call, *errno),
    };
    let said = io::Error::from_raw_os_error(errno);
    let (cause, fix) = match Errno::from_raw_os_error(errno) {
        Errno::PERM | Errno::ACCESS => not_permitted(facts),
        Errno::NOSYS => not_there(facts),
        Errno::NOMEM => (
            "too little memory may be locked, or there is too little of it".to_owned(),
            "raise the limit with `ulimit -l unlimited` (systemd: LimitMEMLOCK=infinity) or free memory"
                .to_owned(),
        ),
        Errno::MFILE | Errno::NFILE => (
            "no file descriptor is left".to_owned(),
            "raise the limit with `ulimit -n 1048576` (systemd: LimitNOFILE=1048576)".to_owned(),
        ),
        _ => (
            "this error is not expected here".to_owned(),
            "look into `dmesg` for the cause, and report it with the output of `ostrakon doctor --json`"
                .to_owned(),
        ),
    };
    Check::error(NAME, format!("{call} failed ({said}): {cause}"), fix)
}

/// The fix for a container whose seccomp filter has no `io_uring` in it.
const SECCOMP_FIX: &str = "start the container with `--security-opt seccomp=unconfined`, or with \
     `--security-opt seccomp=PROFILE.json` where the profile allows io_uring_setup, io_uring_enter and \
     io_uring_register (systemd: add these three to SystemCallFilter=)";

/// Cause and fix of EPERM.
fn not_permitted(facts: &IoUringFacts) -> (String, String) {
    match facts.disabled {
        Some(2) => (
            "the administrator disabled it for all processes (kernel.io_uring_disabled is 2)".to_owned(),
            "run `sysctl -w kernel.io_uring_disabled=0` as root on the host, and put \
             `kernel.io_uring_disabled=0` into /etc/sysctl.d/90-ostrakon.conf"
                .to_owned(),
        ),
        Some(1) => {
            let group = match facts.group {
                Some(group) if group >= 0 => {
                    format!("run ostrakon as a member of group {group} (kernel.io_uring_group)")
                }
                _ => "run `sysctl -w kernel.io_uring_group=GID` as root, with a group of \
                      ostrakon's user"
                    .to_owned(),
            };
            (
                "only one group may use it (kernel.io_uring_disabled is 1)".to_owned(),
                format!("{group}, or allow it for all with `sysctl -w kernel.io_uring_disabled=0`"),
            )
        }
        _ if facts.seccomp => ("a seccomp filter blocks it".to_owned(), SECCOMP_FIX.to_owned()),
        _ => (
            "a security module or a sandbox blocks it".to_owned(),
            "allow io_uring for this user in the SELinux or AppArmor policy (see `dmesg` and \
             `ausearch -m avc`), or run outside the sandbox"
                .to_owned(),
        ),
    }
}

/// Cause and fix of ENOSYS: some seccomp profiles answer it for what they block.
fn not_there(facts: &IoUringFacts) -> (String, String) {
    let (major, minor) = OLDEST_KERNEL;
    if parse_release(&facts.release).is_some_and(|release| release < OLDEST_KERNEL) {
        let cause = format!("Linux {} is too old for it", facts.release);
        return (cause, format!("run Linux {major}.{minor} or newer"));
    }
    if facts.seccomp {
        return ("a seccomp filter hides it".to_owned(), SECCOMP_FIX.to_owned());
    }
    (
        "the kernel was built without it, or a sandbox stands in for the kernel".to_owned(),
        "run on a kernel built with CONFIG_IO_URING=y, and not inside gVisor or WSL 1".to_owned(),
    )
}

/// The clock source and its alternatives; none where `/sys` does not show them.
#[derive(Debug, Clone, Default)]
pub struct ClockSourceFacts {
    /// The one in use.
    pub current: Option<String>,
    /// All that the machine offers.
    pub available: Vec<String>,
}

/// Reads the clock source.
pub fn collect_clock_source() -> ClockSourceFacts {
    let read = |name| fs::read_to_string(format!("{CLOCK_SOURCE_DIRECTORY}/{name}")).ok();
    ClockSourceFacts {
        current: read("current_clocksource").map(|text| text.trim().to_owned()),
        available: read("available_clocksource")
            .map(|text| text.split_whitespace().map(str::to_owned).collect())
            .unwrap_or_default(),
    }
}

/// Verdict over the clock source.
pub fn clock_source(facts: &ClockSourceFacts) -> Check {
    const NAME: &str = "clock source";
    let Some(current) = &facts.current else {
        return Check::warning(
            NAME,
            format!("cannot be read from {CLOCK_SOURCE_DIRECTORY}"),
            "mount /sys into the container to have it checked",
        );
    };
    if FAST_CLOCK_SOURCES.contains(&current.as_str()) {
        return Check::ok(NAME, current.clone());
    }
    let fast = facts
        .available
        .iter()
        .find(|name| FAST_CLOCK_SOURCES.contains(&name.as_str()));
    let fix = match fast {
        Some(fast) => {
            format!(
                "run `echo {fast} > {CLOCK_SOURCE_DIRECTORY}/current_clocksource` as root, and boot with \
                 clocksource={fast}"
            )
        }
        None => {
            "find out why the kernel distrusts the faster clock (`dmesg | grep -i -e tsc -e clocksource`)"
                .to_owned()
        }
    };
    if SLOW_CLOCK_SOURCES.contains(&current.as_str()) {
        return Check::warning(
            NAME,
            format!("{current} takes about a microsecond per reading"),
            fix,
        );
    }
    Check::warning(NAME, format!("{current} is not known to be fast to read"), fix)
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
