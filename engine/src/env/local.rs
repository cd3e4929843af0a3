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

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::env::tasks::yield_now;
    use crate::env::testing::scheduler::Scheduler;
    use crate::env::{Priority, Tasks};

    /// Tasks that hold a value one after the other, and what they saw.
    #[derive(Default)]
    struct Seen {
        asked: RefCell<Vec<usize>>,
        held: RefCell<Vec<usize>>,
        holders: Cell<usize>,
        ended: Cell<usize>,
    }

    async fn hold_often(exclusive: &Exclusive<u64>, seen: &Seen, task: usize, times: usize) {
        for time in 0..times {
            // Not in step with others, some of which come while nobody holds it.
            for _ in 0..(task * 7 + time * 3) % 11 {
                yield_now().await;
            }
            seen.asked.borrow_mut().push(task);
            let mut held = exclusive.hold().await;
            seen.held.borrow_mut().push(task);
            assert_eq!(seen.holders.replace(1), 0, "one at a time");
            for _ in 0..(task + time) % 5 {
                let before = *held;
                yield_now().await;
                assert_eq!(*held, before);
                *held += 1;
            }
            seen.holders.set(0);
        }
        seen.ended.set(seen.ended.get() + 1);
    }

    #[test]
    fn tasks_hold_it_one_at_a_time_in_the_order_in_which_they_asked() {
        for tasks in 1..12 {
            let scheduler = Scheduler::default();
            let exclusive = Rc::new(Exclusive::new(0));
            let seen = Rc::new(Seen::default());
            for task in 0..tasks {
                let (exclusive, seen) = (Rc::clone(&exclusive), Rc::clone(&seen));
                let hold = async move { hold_often(&exclusive, &seen, task, 20).await };
                scheduler.spawn(Priority::Foreground, Box::pin(hold));
            }
            scheduler.settle();
            assert_eq!(seen.ended.get(), tasks, "nobody waits for ever");
            assert_eq!(*seen.held.borrow(), *seen.asked.borrow());
            let steps: usize = (0..tasks)
                .flat_map(|task| (0..20).map(move |time| (task + time) % 5))
                .sum();
            let value = scheduler.run(async { *exclusive.hold().await });
            assert_eq!(value, Some(steps as u64), "and then nobody holds it");
        }
    }

    #[test]
    fn who_comes_between_release_and_wake_up_waits_behind() {
        let scheduler = Scheduler::default();
        let exclusive = Rc::new(Exclusive::new(Vec::new()));
        let held = scheduler.run(exclusive.hold()).expect("nobody holds it");
        let waiting = Rc::clone(&exclusive);
        let first = async move { waiting.hold().await.push(1) };
        scheduler.spawn(Priority::Foreground, Box::pin(first));
        scheduler.settle();
        drop(held);
        // The one that waits was woken and did not run yet; this one is polled before it.
        let order = scheduler.run(async {
            let mut held = exclusive.hold().await;
            held.push(2);
            held.clone()
        });
        assert_eq!(order, Some(vec![1, 2]));
    }

    #[test]
    fn a_task_that_is_woken_for_another_reason_goes_on_waiting() {
        let scheduler = Scheduler::default();
        let exclusive = Exclusive::new(());
        let held = scheduler.run(exclusive.hold()).expect("nobody holds it");
        let mut second = Box::pin(exclusive.hold());
        let mut third = Box::pin(exclusive.hold());
        let mut cx = core::task::Context::from_waker(Waker::noop());
        for _ in 0..3 {
            assert!(second.as_mut().poll(&mut cx).is_pending());
            assert!(third.as_mut().poll(&mut cx).is_pending());
        }
        drop(held);
        assert!(third.as_mut().poll(&mut cx).is_pending(), "it is not its turn");
        let Poll::Ready(held) = second.as_mut().poll(&mut cx) else {
            panic!("it is its turn");
        };
        assert!(third.as_mut().poll(&mut cx).is_pending());
        drop(held);
        assert!(third.as_mut().poll(&mut cx).is_ready());
    }
}
