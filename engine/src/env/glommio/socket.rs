//! The few socket calls that neither glommio nor the standard library offers in the form needed here.

use core::mem;
use core::net::SocketAddr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Connections that may wait in the kernel for `accept`; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: libc::c_int = 4096;

/// Seconds without a segment after which the kernel asks whether the other end is still there.
const KEEPALIVE_IDLE_S: libc::c_int = 60;
/// Seconds between two such questions.
const KEEPALIVE_INTERVAL_S: libc::c_int = 10;
/// Unanswered questions after which the connection is lost.
const KEEPALIVE_PROBES: libc::c_int = 6;

/// -1 becomes the calling thread's last error.
fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// A socket address in the form of the system calls, and its length in bytes.
fn to_system(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all-zero bytes are a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let bytes = match address {
        SocketAddr::V4(address) => {
            let system = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(address.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is at least as large and as aligned as any socket address.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(system) };
            mem::size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(address) => {
            let system = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: address.ip().octets(),
                },
                sin6_scope_id: address.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(system) };
            mem::size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, bytes as libc::socklen_t)
}

fn set(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the pointer is valid for the length given.
    checked(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            mem::size_of_val(&value) as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// A listening TCP socket that shares its address with the other cores of the node (`SO_REUSEPORT`).
///
/// # Errors
/// As the system reports them.
pub(super) fn listen(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    // SAFETY: the call takes integers only.
    let socket = checked(unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor is new and owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    // Accepted connections inherit these: one whose client's machine is gone ends within two minutes.
    set(&socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set(&socket, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, KEEPALIVE_IDLE_S)?;
    set(
        &socket,
        libc::IPPROTO_TCP,
        libc::TCP_KEEPINTVL,
        KEEPALIVE_INTERVAL_S,
    )?;
    set(&socket, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, KEEPALIVE_PROBES)?;
    let (storage, bytes) = to_system(address);
    // SAFETY: the pointer is valid for the length given.
    checked(unsafe { libc::bind(socket.as_raw_fd(), (&raw const storage).cast(), bytes) })?;
    // SAFETY: the call takes integers only.
    checked(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
    Ok(socket)
}

/// Another descriptor of the same socket, closed on exec.
///
/// # Errors
/// When the process has no descriptor left.
pub(super) fn duplicate(socket: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes integers only.
    let copy = checked(unsafe { libc::fcntl(socket, libc::F_DUPFD_CLOEXEC, 0) })?;
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Marks an accepted socket as closed on exec.
///
/// # Errors
/// When the descriptor isn't open.
pub(super) fn close_on_exec(socket: RawFd) -> io::Result<()> {
    // SAFETY: the call takes integers only.
    checked(unsafe { libc::fcntl(socket, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    Ok(())
}

/// Ends both directions of a socket, and wakes whoever waits on it in the kernel. A socket that isn't
/// connected any more is left as it is.
pub(super) fn shutdown(socket: RawFd) {
    // SAFETY: the call takes integers only.
    unsafe {
        libc::shutdown(socket, libc::SHUT_RDWR);
    }
}
