//! Ends the waits of a blocking client from another thread, such as one that catches signals.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, read, write};

/// Ends what a [`Client`](super::Client) waits for. Cheap to clone, and good for as long as one likes.
#[derive(Clone, Debug)]
pub struct Interrupter(Arc<OwnedFd>);

impl Interrupter {
    /// # Errors
    /// When the process has no descriptor left.
    pub(super) fn new() -> Result<Interrupter, Errno> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Interrupter(Arc::new(event)))
    }

    /// The call that the client waits for, or waits for next, ends with [`Error::Interrupted`](crate::Error), and with
    /// it all that are open; a write that may have been sent with [`Error::UnknownOutcome`](crate::Error). The client
    /// stays usable.
    pub fn interrupt(&self) {
        // It fails only when the counter is full, and then the client will be woken as well.
        let _ = write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Was there an interrupt since this was asked last?
    pub(super) fn take(&self) -> bool {
        read(&self.0, &mut [0; 8]).is_ok()
    }

    /// Readable once there is an interrupt.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
