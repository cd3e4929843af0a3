//! What loadgen asks of the kernel before it starts executors.
//!
//! Everything that can be refused here is refused in a sentence: inside an executor it would be a panic.

use std::path::Path;

use crate::cli::{CpuList, parse_cpus};

/// CPUs that this process may run on: the affinity mask, not the CPUs of the machine.
///
/// # Errors
/// A sentence, when /proc cannot be read.
pub fn allowed_cpus() -> Result<CpuList, String> {
    let path = "/proc/self/status";
    let status = std::fs::read_to_string(path).map_err(|error| format!("could not read {path}: {error}"))?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    parse_cpus(list.ok_or_else(|| format!("{path} has no line Cpus_allowed_list; is this Linux?"))?)
}

/// Can executors be started here?
///
/// # Errors
/// A sentence with the fix, when `io_uring` is blocked.
pub fn probe_io_uring() -> Result<(), String> {
    match io_uring::IoUring::new(8) {
        Ok(_ring) => Ok(()),
        Err(error) => Err(match error.raw_os_error() {
            Some(libc::ENOSYS) => "this kernel has no io_uring; Linux 5.15 or newer is needed".to_owned(),
            Some(libc::EPERM) => {
                "io_uring is blocked; allow it with `sysctl kernel.io_uring_disabled=0`, or in a \
                 container with `--security-opt seccomp=unconfined` or a profile that allows it"
                    .to_owned()
            }
            Some(libc::ENOMEM) => {
                "io_uring may not lock memory; raise the limit with `ulimit -l unlimited`".to_owned()
            }
            _ => format!("io_uring could not be set up: {error}; `ostrakon doctor` checks what is missing"),
        }),
    }
}

/// Registers this process for memory barriers. An executor would do it when it first sleeps, for tens of
/// milliseconds, in the midst of a measurement.
pub fn register_membarrier() {
    const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;
    // SAFETY: the call takes two integers and touches no memory of ours. A kernel without it answers with an
    // error, and executors then fall back on their own.
    unsafe { libc::syscall(libc::SYS_membarrier, REGISTER_PRIVATE_EXPEDITED, 0, 0) };
}

/// CPU time that the calling thread has used, user and system.
pub fn thread_cpu_time() -> std::time::Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` has room for what is written, and the clock of the calling thread is always there.
    let outcome = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(outcome, 0, "a thread can read its own CPU clock");
    std::time::Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Does this existing path lie in memory?
///
/// # Errors
/// A sentence, when the path cannot be examined.
pub fn is_in_memory(path: &Path) -> Result<bool, String> {
    use std::os::unix::ffi::OsStrExt;
    const RAMFS_MAGIC: u64 = 0x8584_58F6;
    let name = std::ffi::CString::new(path.as_os_str().as_bytes())
        .map_err(|_| format!("{} holds a zero byte; choose another name", path.display()))?;
    let mut facts = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `name` is a C string that lives through the call, and `facts` has room for what is written.
    if unsafe { libc::statfs(name.as_ptr(), facts.as_mut_ptr()) } != 0 {
        let error = std::io::Error::last_os_error();
        return Err(format!(
            "could not examine the file system of {}: {error}",
            path.display()
        ));
    }
    // SAFETY: the call succeeded, so it has filled `facts`.
    let file_system = unsafe { facts.assume_init() }.f_type as u64;
    Ok(file_system == libc::TMPFS_MAGIC as u64 || file_system == RAMFS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_may_run_somewhere() {
        assert!(!allowed_cpus().unwrap().0.is_empty());
    }

    #[test]
    fn shared_memory_is_in_memory() {
        assert_eq!(is_in_memory(Path::new("/dev/shm")), Ok(true));
        assert_eq!(is_in_memory(Path::new("/proc")), Ok(false));
        assert!(is_in_memory(Path::new("/no/such/path")).is_err());
    }
}
