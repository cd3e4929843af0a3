//! Signals between tasks of one core. They use nothing but wakers, so every environment shares them.

use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Poll, Waker};

/// A flag that one task raises and one task waits for. Raising it twice before the wait counts once.
#[derive(Default)]
pub struct Notify {
    raised: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Notify {
    /// Raises the flag and wakes the waiting task.
    pub fn notify(&self) {
        if !self.raised.replace(true)
            && let Some(waker) = self.waiter.borrow_mut().take()
        {
            waker.wake();
        }
    }

    /// Waits until the flag is up, and takes it down. One waiting task at a time.
    pub async fn notified(&self) {
        poll_fn(|cx| {
            if self.raised.replace(false) {
                return Poll::Ready(());
            }
            let mut waiter = self.waiter.borrow_mut();
            match &*waiter {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                _ => *waiter = Some(cx.waker().clone()),
            }
            Poll::Pending
        })
        .await;
    }
}
