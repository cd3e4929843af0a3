//! A channel from threads outside the data path (signals, the metrics thread) to a task of one core.
//!
//! It is unbounded in type and bounded by use: only commands of an operator go through it, never requests.
//! It works with every executor whose wakers may be called from another thread.

#![allow(
    clippy::disallowed_types,
    reason = "its senders are foreign threads; a core holds the lock for a few instructions"
)]

use core::future::poll_fn;
use core::task::{Poll, Waker};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

struct Shared<T> {
    queue: VecDeque<T>,
    waker: Option<Waker>,
    closed: bool,
}

/// The sending end, for any thread.
pub struct ForeignSender<T>(Arc<Mutex<Shared<T>>>);

/// The receiving end, for one task of a core.
pub struct ForeignReceiver<T>(Arc<Mutex<Shared<T>>>);

/// A channel into a core.
pub fn channel<T: Send>() -> (ForeignSender<T>, ForeignReceiver<T>) {
    let shared = Arc::new(Mutex::new(Shared {
        queue: VecDeque::new(),
        waker: None,
        closed: false,
    }));
    (ForeignSender(Arc::clone(&shared)), ForeignReceiver(shared))
}

impl<T> Clone for ForeignSender<T> {
    fn clone(&self) -> Self {
        ForeignSender(Arc::clone(&self.0))
    }
}

impl<T: Send> ForeignSender<T> {
    /// Queues an item and wakes the core.
    ///
    /// # Errors
    /// The item itself, when the receiver is gone.
    pub fn send(&self, item: T) -> Result<(), T> {
        let waker = {
            let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if shared.closed {
                return Err(item);
            }
            shared.queue.push_back(item);
            shared.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }
}

impl<T: Send> ForeignReceiver<T> {
    /// Waits for the next item.
    pub async fn recv(&mut self) -> T {
        poll_fn(|cx| {
            let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(item) = shared.queue.pop_front() {
                return Poll::Ready(item);
            }
            shared.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl<T> Drop for ForeignReceiver<T> {
    fn drop(&mut self) {
        let left = {
            let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            shared.closed = true;
            shared.waker = None;
            core::mem::take(&mut shared.queue)
        };
        // Who waits for what comes of an item hears that nothing will.
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_receives_any_more_is_dropped() {
        let (sender, receiver) = channel();
        let item = Arc::new(());
        assert!(sender.send(Arc::clone(&item)).is_ok());
        drop(receiver);
        assert_eq!(
            Arc::strong_count(&item),
            1,
            "who waits for it would wait for as long as the sender lives"
        );
        assert!(sender.send(item).is_err());
    }
}
