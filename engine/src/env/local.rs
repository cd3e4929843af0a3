//! Signals between tasks of one core. They use nothing but wakers, so every environment shares them.

use core::cell::{Cell, RefCell, RefMut};
use core::future::poll_fn;
use core::ops::{Deref, DerefMut};
use core::task::{Poll, Waker};
use std::collections::VecDeque;

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

/// A value that one task at a time may hold, across waits. Tasks get it in the order in which they asked.
pub struct Exclusive<T> {
    value: RefCell<T>,
    is_held: Cell<bool>,
    /// Who waits, by the ticket drawn.
    waiting: RefCell<VecDeque<(u64, Waker)>>,
    next_ticket: Cell<u64>,
}

impl<T> Exclusive<T> {
    /// A value that nobody holds.
    pub fn new(value: T) -> Exclusive<T> {
        Exclusive {
            value: RefCell::new(value),
            is_held: Cell::new(false),
            waiting: RefCell::default(),
            next_ticket: Cell::new(0),
        }
    }

    /// Waits until nobody holds the value, and holds it. Await it to the end.
    pub async fn hold(&self) -> Held<'_, T> {
        let mut ticket = None;
        poll_fn(|cx| {
            let mut waiting = self.waiting.borrow_mut();
            let is_first = match ticket {
                None => waiting.is_empty(),
                Some(ticket) => waiting.front().is_some_and(|(first, _)| *first == ticket),
            };
            if is_first && !self.is_held.replace(true) {
                if ticket.is_some() {
                    waiting.pop_front();
                }
                return Poll::Ready(());
            }
            match ticket {
                None => {
                    let drawn = self.next_ticket.get();
                    self.next_ticket.set(drawn + 1);
                    ticket = Some(drawn);
                    waiting.push_back((drawn, cx.waker().clone()));
                }
                Some(ticket) => {
                    let own = waiting.iter_mut().find(|(other, _)| *other == ticket);
                    own.expect("it waits").1.clone_from(cx.waker());
                }
            }
            Poll::Pending
        })
        .await;
        Held {
            of: self,
            value: self.value.borrow_mut(),
        }
    }
}

/// A value that is held until this is dropped.
pub struct Held<'a, T> {
    of: &'a Exclusive<T>,
    value: RefMut<'a, T>,
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        self.of.is_held.set(false);
        if let Some((_, waker)) = self.of.waiting.borrow().front() {
            waker.wake_by_ref();
        }
    }
}
