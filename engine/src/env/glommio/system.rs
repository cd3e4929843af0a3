//! What the runtime asks of the operating system before the first executor starts: CPUs, limits, barriers.

use core::mem::{self, MaybeUninit};
use std::fs;
use std::io;

/// Bit of `CAP_IPC_LOCK` in a capability mask; its holder may lock memory without limit.
const CAP_IPC_LOCK: u64 = 1 << 14;

/// `MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED` of `linux/membarrier.h`.
const MEMBARRIER_REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

/// The CPUs that this thread may run on, ascending, as `taskset` and cpusets leave them.
///
/// # Errors
/// When the affinity mask can't be read.
pub(super) fn allowed_cpus() -> io::Result<Vec<usize>> {
    let mut mask = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: the pointer is valid for the size given; 0 means this thread.
    let status = unsafe { libc::sched_getaffinity(0, mem::size_of::<libc::cpu_set_t>(), mask.as_mut_ptr()) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed is a valid (empty) mask, and the call has filled it.
    let mask = unsafe { mask.assume_init() };
    // SAFETY: every index is below CPU_SETSIZE.
    Ok((0..libc::CPU_SETSIZE as usize)
        .filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &mask) })
        .collect())
}

/// Raises the soft limit of locked memory to the hard one, and returns the bytes that this process may lock:
/// `None` means without limit.
///
/// # Errors
/// When the limit can't be read. Failing to raise it is no error: the soft limit counts then.
pub(super) fn raise_locked_memory_limit() -> io::Result<Option<u64>> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is valid for one rlimit.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        let raised = libc::rlimit {
            rlim_cur: limit.rlim_max,
            rlim_max: limit.rlim_max,
        };
        // SAFETY: the pointer is valid for one rlimit.
        if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const raised) } == 0 {
            limit = raised;
        }
    }
    Ok((limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur))
}

/// True when the kernel doesn't count this process's locked memory.
pub(super) fn may_lock_without_limit() -> bool {
    let Ok(status) = fs::read_to_string("/proc/self/status") else {
        return false;
    };
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & CAP_IPC_LOCK != 0)
}

/// Registers the process for private expedited memory barriers, which an executor uses each time it parks.
/// Once several threads run, the first registration takes 7 to 80 ms. A kernel without the call is served by
/// another barrier inside glommio, so its answer doesn't matter here.
pub(super) fn register_membarrier() {
    // SAFETY: the call takes two integers and touches no memory of ours.
    unsafe {
        libc::syscall(libc::SYS_membarrier, MEMBARRIER_REGISTER_PRIVATE_EXPEDITED, 0);
    }
}
