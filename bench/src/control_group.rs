//! A control group that bounds the memory of a server under measurement, of version 1 or 2 of the kernel's interface.
//!
//! The group is made below that of this process, or where the system lets us, and holds nothing but what joins it
//! ([`crate::process::join_group`]). What it counts is more than a process' resident memory: page cache and the
//! kernel's own memory for it are in it, and give way when the limit is reached. If they can't, the kernel kills.
//!
//! Dropping it removes the group; whoever is in it must have ended by then.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the kernel may take to let go of a process that has ended.
const REMOVE_WITHIN: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A group with a limit.
#[derive(Debug)]
pub struct ControlGroup {
    directory: PathBuf,
    version: Version,
}

impl ControlGroup {
    /// Makes a group, named after this process, that has `limit_bytes` of memory and no swap.
    ///
    /// # Errors
    /// A sentence, if this user or this system allows none; nothing is left behind then.
    pub fn new(limit_bytes: u64) -> Result<Self, String> {
        let read =
            |path: &str| fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"));
        let parents = parents(&read("/proc/self/mounts")?, &read("/proc/self/cgroup")?);
        let mut refusal = "no memory controller is mounted".to_owned();
        for (version, parent) in parents {
            match Self::below(version, &parent, limit_bytes) {
                Ok(group) => return Ok(group),
                Err(sentence) => refusal = sentence,
            }
        }
        Err(refusal)
    }

    fn below(version: Version, parent: &Path, limit_bytes: u64) -> Result<Self, String> {
        let directory = parent.join(format!("ostrakon-bench-{}", std::process::id()));
        fs::create_dir(&directory)
            .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        // From here on the guard removes it.
        let group = Self { directory, version };
        match version {
            Version::One => {
                group.set("memory.limit_in_bytes", limit_bytes)?;
                // Without accounting of swap the file is not there.
                let _ = group.set("memory.memsw.limit_in_bytes", limit_bytes);
            }
            Version::Two => {
                if !group.directory.join("memory.max").exists() {
                    let control = parent.join("cgroup.subtree_control");
                    fs::write(&control, "+memory")
                        .map_err(|error| format!("cannot write {}: {error}", control.display()))?;
                }
                group.set("memory.max", limit_bytes)?;
                let _ = group.set("memory.swap.max", 0);
            }
        }
        Ok(group)
    }

    /// The file into which a process writes itself to join.
    pub fn processes(&self) -> PathBuf {
        self.directory.join("cgroup.procs")
    }

    /// The most memory that the group has had, page cache included, in bytes; none where the kernel does not tell.
    pub fn peak_bytes(&self) -> Option<u64> {
        let name = match self.version {
            Version::One => "memory.max_usage_in_bytes",
            Version::Two => "memory.peak",
        };
        fs::read_to_string(self.directory.join(name))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// How often the kernel killed a process of the group because it needed more.
    pub fn kills(&self) -> u64 {
        let name = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = fs::read_to_string(self.directory.join(name)).unwrap_or_default();
        kills(&text)
    }

    fn set(&self, name: &str, value: u64) -> Result<(), String> {
        let path = self.directory.join(name);
        fs::write(&path, value.to_string())
            .map_err(|error| format!("cannot write {}: {error}", path.display()))
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let begun = Instant::now();
        loop {
            match fs::remove_dir(&self.directory) {
                Err(error) if error.kind() == ErrorKind::ResourceBusy && begun.elapsed() < REMOVE_WITHIN => {
                    std::thread::sleep(LOOK_AGAIN);
                }
                Err(error) => {
                    let directory = self.directory.display();
                    return eprintln!(
                        "ostrakon-bench: could not remove the control group {directory}: {error}"
                    );
                }
                Ok(()) => return,
            }
        }
    }
}

fn kills(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// Where a group may be made, the best place first: below this process' own group, beside it (in version 2 a group
/// that has processes has no groups with limits), and at the root.
fn parents(mounts: &str, membership: &str) -> Vec<(Version, PathBuf)> {
    let mut found = Vec::new();
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let &[_, mount, kind, options, ..] = fields.as_slice() else {
            continue;
        };
        let has_memory = options.split(',').any(|option| option == "memory");
        let (version, controller) = match kind {
            "cgroup" if has_memory => (Version::One, "memory"),
            "cgroup2" => (Version::Two, ""),
            _ => continue,
        };
        let own = membership.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let controllers = fields.next()?;
            let path = fields.next()?;
            let is_it = controllers.split(',').any(|name| name == controller);
            is_it.then(|| Path::new(mount).join(path.trim_start_matches('/')))
        });
        // Inside a container the path may name groups that only the host sees.
        let own = own.filter(|own| own.exists());
        let beside = own
            .as_deref()
            .and_then(Path::parent)
            .filter(|parent| parent.starts_with(mount))
            .map(Path::to_owned);
        let places = own.into_iter().chain(beside).chain([PathBuf::from(mount)]);
        found.extend(places.map(|place| (version, place)));
    }
    found.dedup();
    found.sort_by_key(|(version, _)| *version == Version::Two);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_memory_controller_comes_before_the_unified_one() {
        let mounts = "cgroup2 /nowhere/unified cgroup2 rw,relatime 0 0\n\
                      cgroup /nowhere/cpu cgroup rw,cpu 0 0\n\
                      cgroup /nowhere/memory cgroup rw,relatime,memory 0 0\n";
        let found = parents(mounts, "4:memory:/a/b\n0::/c\n");
        let expected = [
            (Version::One, PathBuf::from("/nowhere/memory")),
            (Version::Two, PathBuf::from("/nowhere/unified")),
        ];
        assert_eq!(found, expected);
        assert!(parents("tmpfs /tmp tmpfs rw 0 0\n", "0::/\n").is_empty());
    }

    #[test]
    fn the_own_group_comes_first_where_it_is_seen() {
        let found = parents("cgroup2 /proc cgroup2 rw 0 0\n", "0::/self/task\n");
        let places: Vec<_> = found.iter().map(|(_, place)| place.to_str().unwrap()).collect();
        assert_eq!(places, ["/proc/self/task", "/proc/self", "/proc"]);
    }

    #[test]
    fn kills_are_counted_in_both_forms() {
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), 3);
        assert_eq!(
            kills("low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n"),
            1
        );
        assert_eq!(kills(""), 0);
    }
}
