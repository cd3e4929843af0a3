//! Tasks, yielding, sleeping and randomness of one core.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;

/// A task without a result.
pub type TaskFuture = Pin<Box<dyn Future<Output = ()>>>;

/// The share of the core that a task gets when the core is busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Serving clients, the log, messages between cores.
    Foreground,
    /// Work that may lag behind: zero-filling segments, clean-up.
    Background,
}

/// The scheduler of one core.
pub trait Tasks {
    /// Starts a task that runs until it ends by itself.
    fn spawn(&self, priority: Priority, task: TaskFuture);
    /// True when the running task has used its slice and others wait: await [`yield_now`] then.
    fn should_yield(&self) -> bool;
    /// Resolves after `duration`.
    fn sleep(&self, duration: Duration) -> TaskFuture;
}

/// A source of random numbers, not for cryptography.
pub trait Random {
    /// The next number, uniform over all 64-bit values.
    fn next_u64(&self) -> u64;
}

/// Lets other tasks of this core run once, without an allocation.
pub fn yield_now() -> Yield {
    Yield { yielded: false }
}

/// The future of [`yield_now`].
pub struct Yield {
    yielded: bool,
}

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
