//! What a benchmark asks of the kernel: CPUs, the use of them, memory, limits, file systems, signals.
//!
//! Signals end a benchmark in order: Ctrl-C and SIGTERM raise a flag which every loop looks at through
//! [`check_signals`], so that the guards of processes and directories do their work on the way out.

use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_signal: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Catches SIGINT and SIGTERM from here on; see [`check_signals`].
pub fn catch_signals() {
    let handler: extern "C" fn(libc::c_int) = on_signal;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the action is all zeros but for a handler, which only stores to an atomic: that is
        // allowed in a signal.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as libc::sighandler_t;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// Has somebody asked to stop?
///
/// # Errors
/// If so.
pub fn check_signals() -> Result<(), String> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        return Err("interrupted; nothing was measured to the end".to_owned());
    }
    Ok(())
}

/// Lets the calling thread, and those that it starts, run on these CPUs.
///
/// # Errors
/// As [`pin_thread`].
pub fn pin_thread_to(cpus: &[usize]) -> Result<(), String> {
    if let Some(cpu) = cpus.iter().find(|cpu| **cpu >= libc::CPU_SETSIZE as usize) {
        return Err(format!("there is no CPU {cpu}; CPUs are numbered from 0"));
    }
    // SAFETY: the set is plain bits, zero is a valid value of it, and each CPU is below its size.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for cpu in cpus {
            libc::CPU_SET(*cpu, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        return Err(format!(
            "cannot run on CPUs {cpus:?}: {error}; see `taskset -p $$`"
        ));
    }
    Ok(())
}

/// Lets the calling thread run on one CPU only.
///
/// # Errors
/// A sentence, if the kernel refuses: the CPU does not exist or is not allowed to this process.
pub fn pin_thread(cpu: usize) -> Result<(), String> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(format!("there is no CPU {cpu}; CPUs are numbered from 0"));
    }
    // SAFETY: the set is plain bits, zero is a valid value of it, and `cpu` is below its size.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, std::mem::size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(format!(
        "cannot run on CPU {cpu}: {error}; choose one of those in the line Cpus_allowed_list of \
         /proc/self/status"
    ))
}

/// Lets the calling thread run only while no other thread wants its CPU (`SCHED_IDLE`, sched(7)).
///
/// # Errors
/// A sentence, if the kernel refuses.
pub fn give_way() -> Result<(), String> {
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameter lives through the call.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameter) };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(format!("a thread can't give way to others: {error}"))
}

/// CPU time that the calling thread has used, in user and kernel mode.
pub fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes one timespec. It cannot fail: the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// CPU time of a whole process, its kernel workers included, in user and kernel mode, in seconds. Its grain
/// is a kernel tick, mostly 10 ms.
///
/// # Errors
/// A sentence, if the process is gone.
pub fn process_cpu_seconds(pid: u32) -> Result<f64, String> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let ticks = cpu_ticks(&text)
        .ok_or_else(|| format!("{path} is not in the form that proc(5) describes: {text}"))?;
    // SAFETY: a plain question.
    let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Ok(ticks as f64 / ticks_per_second as f64)
}

/// Fields 14 and 15 of `/proc/PID/stat`. The name before them may hold blanks and brackets, so they are
/// counted from the last bracket.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(") ")?;
    let mut fields = behind_name.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let kernel: u64 = fields.next()?.parse().ok()?;
    Some(user + kernel)
}

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident pages.
    pub rss_bytes: u64,
    /// The same, pages that several processes share divided among them.
    pub pss_bytes: u64,
}

/// Memory of a process now.
///
/// # Errors
/// A sentence, if the process is gone or another user's.
pub fn memory_of(pid: u32) -> Result<Memory, String> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let bytes = |name| {
        kilobytes(&text, name)
            .map(|kilobytes| kilobytes * 1024)
            .ok_or_else(|| format!("{path} has no line {name}"))
    };
    Ok(Memory {
        rss_bytes: bytes("Rss:")?,
        pss_bytes: bytes("Pss:")?,
    })
}

/// Makes the kernel forget the most memory that a process has had; see [`peak_rss_bytes`].
///
/// # Errors
/// A sentence, if the process is gone or another user's.
pub fn forget_peak(pid: u32) -> Result<(), String> {
    let path = format!("/proc/{pid}/clear_refs");
    std::fs::write(&path, "5").map_err(|error| format!("cannot write {path}: {error}"))
}

/// The most resident memory that a process has had since [`forget_peak`].
///
/// # Errors
/// A sentence, if the process is gone.
pub fn peak_rss_bytes(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let peak = kilobytes(&text, "VmHWM:").ok_or_else(|| format!("{path} has no line VmHWM:"))?;
    Ok(peak * 1024)
}

/// Bytes that a process has sent to devices since it began, its own writes past the page cache included.
///
/// # Errors
/// A sentence, if the process is gone or another user's.
pub fn written_bytes(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/io");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    let bytes = line.and_then(|bytes| bytes.trim().parse().ok());
    bytes.ok_or_else(|| format!("{path} has no write_bytes"))
}

/// Bytes of all files below a directory, as the file system has set them aside.
///
/// # Errors
/// A sentence, if the directory can't be read.
pub fn directory_bytes(directory: &Path) -> Result<u64, String> {
    use std::os::unix::fs::MetadataExt;
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", directory.display());
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        bytes += match path.metadata() {
            Ok(metadata) if metadata.is_dir() => directory_bytes(&path)?,
            Ok(metadata) => metadata.blocks() * 512,
            // It was removed meanwhile.
            Err(_) => 0,
        };
    }
    Ok(bytes)
}

/// Bytes that the file system of this existing path has free for this user.
///
/// # Errors
/// A sentence, if it can't be examined.
pub fn free_bytes(path: &Path) -> Result<u64, String> {
    let facts = file_system(path)?;
    Ok(facts.f_bavail * facts.f_bsize as u64)
}

/// The number in a line such as `Rss:    1234 kB`.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Lets this process, and those that it starts from here on, have so many open files.
///
/// # Errors
/// A sentence, if the limit is lower and may not be raised.
pub fn raise_open_files(wanted: u64) -> Result<(), String> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call writes one rlimit, which lives through it.
    let found = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if found == 0 && limit.rlim_cur >= wanted {
        return Ok(());
    }
    limit.rlim_cur = wanted;
    limit.rlim_max = limit.rlim_max.max(wanted);
    // SAFETY: the call reads one rlimit, which lives through it.
    if found == 0 && unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(format!(
        "{wanted} open files are needed and not allowed: {error}; run `ulimit -n {wanted}` as a user who may"
    ))
}

/// Lets the kernel keep as little as it may of what comes over a connection and is not read.
///
/// # Errors
/// A sentence, if it refuses.
pub fn shrink_receive_buffer(stream: &std::net::TcpStream) -> Result<(), String> {
    let bytes: libc::c_int = 1;
    // SAFETY: the option is a plain number that lives through the call; the descriptor is open.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            (&raw const bytes).cast(),
            std::mem::size_of_val(&bytes) as libc::socklen_t,
        )
    };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(format!("cannot shrink the buffer of a socket: {error}"))
}

/// Runnable processes on average over the last minute.
pub fn load_average() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}

/// Release of the running kernel.
pub fn kernel_release() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    release.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// Does this existing path lie in memory, where nothing is durable and direct IO is not possible?
///
/// # Errors
/// A sentence, when the path cannot be examined.
pub fn is_in_memory(path: &Path) -> Result<bool, String> {
    const RAMFS_MAGIC: u64 = 0x8584_58F6;
    let magic = file_system(path)?.f_type as u64;
    Ok(magic == libc::TMPFS_MAGIC as u64 || magic == RAMFS_MAGIC)
}

fn file_system(path: &Path) -> Result<libc::statfs, String> {
    let name = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| format!("{} holds a zero byte; choose another name", path.display()))?;
    let mut facts = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `name` is a C string that lives through the call, and `facts` has room for what is written.
    if unsafe { libc::statfs(name.as_ptr(), facts.as_mut_ptr()) } != 0 {
        let error = std::io::Error::last_os_error();
        return Err(format!(
            "cannot examine the file system of {}: {error}",
            path.display()
        ));
    }
    // SAFETY: the call succeeded, so it has filled `facts`.
    Ok(unsafe { facts.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 901 0 0 0 1200 34 0 0 20 0 5 0 100 1000 10";
        assert_eq!(cpu_ticks(stat), Some(1234));
        assert_eq!(cpu_ticks("42 (name) S 1 2"), None);
    }

    #[test]
    fn this_process_can_be_examined() {
        assert!(process_cpu_seconds(std::process::id()).unwrap() >= 0.0);
        assert!(process_cpu_seconds(u32::MAX).is_err());
        let memory = memory_of(std::process::id()).unwrap();
        assert!(memory.rss_bytes >= memory.pss_bytes && memory.pss_bytes > 0);
        assert!(peak_rss_bytes(std::process::id()).unwrap() > 0);
        assert!(memory_of(u32::MAX).is_err());
        assert!(written_bytes(std::process::id()).is_ok() && written_bytes(u32::MAX).is_err());
        assert!(free_bytes(Path::new(".")).unwrap() > 0);
        assert_eq!(is_in_memory(Path::new("/dev/shm")), Ok(true));
        assert!(pin_thread(usize::MAX).is_err());
    }

    #[test]
    fn lines_of_kilobytes_are_read() {
        let text = "Rss:                1234 kB\nPss:                 567 kB\nPss_Dirty:            5 kB\n";
        assert_eq!(
            (kilobytes(text, "Rss:"), kilobytes(text, "Pss:")),
            (Some(1234), Some(567))
        );
        assert_eq!(kilobytes(text, "Swap:"), None);
    }

    #[test]
    fn more_open_files_than_the_kernel_has_are_refused() {
        assert_eq!(raise_open_files(16), Ok(()));
        let error = raise_open_files(u64::MAX - 1).unwrap_err();
        assert!(error.contains("ulimit -n"), "{error}");
    }

    #[test]
    fn thread_time_grows_with_work() {
        let before = thread_cpu_time();
        let mut sum = 0_u64;
        while thread_cpu_time() == before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(thread_cpu_time() > before);
    }
}
