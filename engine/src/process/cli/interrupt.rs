//! Ctrl-C while a command runs: the command ends, the program goes on.
//!
//! A command that waits for the node sits in a blocking read. The thread that catches the signal shuts the
//! connection's socket down, which ends the read; the command finds [`Interrupt::is_raised`], and says that it was
//! cancelled. What the connection had asked is lost with it, so whatever runs next connects anew.
//!
//! Signals that come while no command runs do nothing.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;

use super::failure::Failure;

/// Whether the running command was told to end.
#[derive(Debug, Default)]
pub(super) struct Interrupt {
    is_raised: AtomicBool,
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    /// A command runs.
    is_on: bool,
    /// The connection that it may be waiting on.
    socket: Option<TcpStream>,
}

impl Interrupt {
    /// Catches Ctrl-C from here to the end of the process.
    ///
    /// # Errors
    /// If the handler can't be installed or the thread can't be started.
    pub(super) fn install() -> io::Result<Arc<Interrupt>> {
        let interrupt = Arc::new(Interrupt::default());
        let raising = Arc::clone(&interrupt);
        let mut signals = Signals::new([SIGINT])?;
        std::thread::Builder::new()
            .name("interrupt".to_owned())
            .spawn(move || signals.forever().for_each(|_| raising.raise()))?;
        Ok(interrupt)
    }

    /// A command begins.
    pub(super) fn begin(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.is_on = true;
        self.is_raised.store(false, Ordering::Relaxed);
    }

    /// The command has ended.
    pub(super) fn end(&self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).is_on = false;
    }

    /// From now on commands wait on this connection; `None`: on none.
    pub(super) fn watch(&self, connection: Option<&impl AsFd>) -> io::Result<()> {
        let copy = |connection: &_| AsFd::as_fd(connection).try_clone_to_owned();
        let copy: Option<OwnedFd> = connection.map(copy).transpose()?;
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.socket = copy.map(TcpStream::from);
        Ok(())
    }

    /// Was the running command told to end?
    pub(super) fn is_raised(&self) -> bool {
        self.is_raised.load(Ordering::Relaxed)
    }

    /// Ends the running command if it was told to.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.is_raised() {
            return Err(Failure::cancelled());
        }
        Ok(())
    }

    fn raise(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if !running.is_on {
            return;
        }
        self.is_raised.store(true, Ordering::Relaxed);
        if let Some(socket) = &running.socket {
            // It fails if the node has closed it already, which ends the wait as well.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    #[test]
    fn a_raised_interrupt_ends_a_blocking_read_of_the_running_command_only() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_accepted, _) = listener.accept().unwrap();
        let interrupt = Interrupt::default();
        interrupt.watch(Some(&connection)).unwrap();
        interrupt.raise();
        assert!(!interrupt.is_raised(), "no command runs");
        interrupt.begin();
        std::thread::scope(|scope| {
            scope.spawn(|| interrupt.raise());
            assert_eq!(connection.read(&mut [0]).unwrap(), 0, "shut down");
        });
        assert!(interrupt.is_raised());
        interrupt.begin();
        assert!(!interrupt.is_raised(), "that was another command");
    }
}
