//! The limits of this process's control groups, of version 2 and 1: CPU time and memory.
//!
//! A limit anywhere on the path to the root binds, so each lookup takes the smallest on the path. Inside
//! a container the path may name groups that only the host sees; those steps are not there and are
//! skipped, and the container's own root is always looked at.

use std::fs;
use std::path::{Path, PathBuf};

const MOUNT: &str = "/sys/fs/cgroup";

/// Limits in force; none where there is no limit or no control group.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct CgroupLimits {
    /// CPU time per wall time: 1.5 is one CPU and a half.
    pub(super) cpus: Option<f64>,
    /// Memory, page cache included, in bytes.
    pub(super) memory_bytes: Option<u64>,
}

/// Reads the limits of this process.
pub(super) fn collect() -> CgroupLimits {
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limits_below(Path::new(MOUNT), &membership)
}

/// Limits from the cgroup file systems below `mount`, for the membership that `/proc/self/cgroup` lists.
fn limits_below(mount: &Path, membership: &str) -> CgroupLimits {
    let mut limits = CgroupLimits::default();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        for controller in controllers.split(',') {
            let root = mount.join(controller);
            for group in groups_up_to(&root, path) {
                narrow(&mut limits, controller, &group);
            }
        }
    }
    limits
}

/// The group's directory and those above it, down from the innermost.
fn groups_up_to(root: &Path, path: &str) -> Vec<PathBuf> {
    let relative = Path::new(path.trim_start_matches('/'));
    relative.ancestors().map(|part| root.join(part)).collect()
}

/// Applies one group's files. Version 2 has an empty controller name and all its files in one directory.
fn narrow(limits: &mut CgroupLimits, controller: &str, group: &Path) {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let (cpus, memory_bytes) = match controller {
        "" => (read("cpu.max").and_then(|text| quota(&text)), read("memory.max")),
        "cpu" => {
            let pair = read("cpu.cfs_quota_us").zip(read("cpu.cfs_period_us"));
            (
                pair.and_then(|(quota_us, period_us)| quota(&format!("{quota_us} {period_us}"))),
                None,
            )
        }
        "memory" => (None, read("memory.limit_in_bytes")),
        _ => return,
    };
    // "max" is no number; version 1 writes a number near 2^63 instead, which never is the smallest.
    let memory_bytes = memory_bytes
        .and_then(|text| text.trim().parse().ok())
        .filter(|&limit| limit < 1 << 60);
    limits.memory_bytes = [limits.memory_bytes, memory_bytes].into_iter().flatten().min();
    limits.cpus = [limits.cpus, cpus].into_iter().flatten().reduce(f64::min);
}

/// CPUs' worth of time out of "quota period", both in microseconds; none for "max" and for -1.
fn quota(text: &str) -> Option<f64> {
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    let (quota_us, period_us) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (quota_us > 0.0 && period_us > 0.0).then(|| quota_us / period_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn version_2_takes_the_smallest_on_the_path() {
        let mount = tempfile::tempdir().unwrap();
        write(mount.path(), "a/cpu.max", "150000 100000\n");
        write(mount.path(), "a/b/cpu.max", "max 100000\n");
        write(mount.path(), "a/b/memory.max", "1073741824\n");
        write(mount.path(), "a/memory.max", "max\n");
        let limits = limits_below(mount.path(), "0::/a/b\n");
        assert_eq!(
            limits,
            CgroupLimits {
                cpus: Some(1.5),
                memory_bytes: Some(1 << 30)
            }
        );
    }

    #[test]
    fn version_1_has_a_directory_per_controller() {
        let mount = tempfile::tempdir().unwrap();
        write(mount.path(), "cpu/cpu.cfs_quota_us", "-1\n");
        write(mount.path(), "cpu/cpu.cfs_period_us", "100000\n");
        write(mount.path(), "cpu/job/cpu.cfs_quota_us", "50000\n");
        write(mount.path(), "cpu/job/cpu.cfs_period_us", "100000\n");
        write(
            mount.path(),
            "memory/memory.limit_in_bytes",
            "9223372036854771712\n",
        );
        write(mount.path(), "memory/job/memory.limit_in_bytes", "536870912\n");
        let limits = limits_below(mount.path(), "4:memory:/job\n1:cpuacct,cpu:/job\n0::/\n");
        assert_eq!(
            limits,
            CgroupLimits {
                cpus: Some(0.5),
                memory_bytes: Some(512 << 20)
            }
        );
    }

    #[test]
    fn a_hosts_path_inside_a_container_falls_back_to_the_root() {
        let mount = tempfile::tempdir().unwrap();
        write(mount.path(), "memory.max", "268435456\n");
        let limits = limits_below(mount.path(), "0::/system.slice/docker-1.scope\n");
        assert_eq!(
            limits,
            CgroupLimits {
                cpus: None,
                memory_bytes: Some(256 << 20)
            }
        );
        assert_eq!(
            limits_below(&mount.path().join("absent"), "0::/\nrubbish"),
            CgroupLimits::default()
        );
    }
}
