//! Ctrl-C while a command runs: the command ends, the program goes on.
//!
//! A command that waits for the node sits in a call of the client library. The thread that catches the signal ends that
//! call; the command finds [`Interrupt::is_raised`], and says that it was cancelled.
//!
//! Signals that come while no command runs do nothing.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ostrakon_client::Interrupter;
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
    /// Ends the waits of the client that it uses.
    client: Option<Interrupter>,
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

    /// From now on commands wait for this client; `None`: for none.
    pub(super) fn watch(&self, client: Option<Interrupter>) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).client = client;
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

    /// Ctrl-C.
    pub(super) fn raise(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if !running.is_on {
            return;
        }
        self.is_raised.store(true, Ordering::Relaxed);
        if let Some(client) = &running.client {
            client.interrupt();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_running_command_is_told_to_end() {
        let interrupt = Interrupt::default();
        interrupt.raise();
        assert!(!interrupt.is_raised(), "no command runs");
        interrupt.begin();
        interrupt.raise();
        assert!(interrupt.is_raised() && interrupt.check().is_err());
        interrupt.end();
        interrupt.begin();
        assert!(!interrupt.is_raised(), "that was another command");
    }
}
