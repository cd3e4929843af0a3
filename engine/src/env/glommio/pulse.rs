//! Keeps executors from sleeping over tasks that could run.
//!
//! An executor of glommio 0.9.0 that is preempted before it has run its first task of a turn takes the turn
//! for an empty one and parks, with tasks in its queues. Nothing in the kernel knows of them, so it sleeps
//! until something else happens; if all cores wait for each other, for ever. It is preempted there when its
//! thread loses the CPU for a slice, or when a completion without a waiting task arrives in just that moment.
//! (The fix, glommio/glommio pull request 53 of 2026-09, is in no release.)
//!
//! Two remedies:
//! 1. A task on each core with a timer that is always pending: 1 ms ahead while the core works, up to 16 ms
//!    ahead while it idles. It bounds the usual delay.
//! 2. A thread that wakes every core each 50 ms. The accident may hit the turn in which the timer fires too;
//!    the thread doesn't depend on the core, so no core sleeps over its tasks for ever.

use core::future::poll_fn;
use core::task::{Poll, Waker};
use core::time::Duration;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use ::glommio::timer::Timer;

use crate::env::CoreId;

/// Distance of the timer while the core has work.
const WORKING: Duration = Duration::from_millis(1);

/// Distance of the timer after the core was idle for some time.
const IDLE: Duration = Duration::from_millis(16);

/// How often the thread wakes each core.
const BACKSTOP: Duration = Duration::from_millis(50);

/// The thread's list of cores: a waker of each one's pulse task while its executor runs. Afterwards nobody
/// would take a wake off the executor's queue, and one waker can be queued some 32,000 times only.
pub(super) struct Pulse(Mutex<Vec<Option<Waker>>>);

impl Pulse {
    /// Starts the thread, and returns one [`Beating`] for each core. It ends after the last of them is
    /// dropped.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn start(cores: u16) -> io::Result<Vec<Beating>> {
        let pulse = Arc::new(Pulse(Mutex::new((0..cores).map(|_| None).collect())));
        let of_thread = Arc::downgrade(&pulse);
        thread::Builder::new().name("pulse".to_owned()).spawn(move || {
            while let Some(pulse) = of_thread.upgrade() {
                pulse.wake_all();
                drop(pulse);
                thread::sleep(BACKSTOP);
            }
        })?;
        Ok((0..cores)
            .map(|core| Beating {
                pulse: Arc::clone(&pulse),
                core: CoreId(core),
            })
            .collect())
    }

    fn wake_all(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .flatten()
            .for_each(Waker::wake_by_ref);
    }

    fn set(&self, core: CoreId, waker: Option<Waker>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[core.index()] = waker;
    }
}

/// The pulse of one core, owned by its thread. It stops when this is dropped.
pub(super) struct Beating {
    pulse: Arc<Pulse>,
    core: CoreId,
}

impl Beating {
    /// The task of the core's executor that this pulse wakes.
    pub(super) fn task(&self) -> impl Future<Output = ()> + use<> {
        let (pulse, core) = (Arc::downgrade(&self.pulse), self.core);
        async move {
            poll_fn(|cx| {
                if let Some(pulse) = pulse.upgrade() {
                    pulse.set(core, Some(cx.waker().clone()));
                }
                Poll::Ready(())
            })
            .await;
            let mut distance = WORKING;
            loop {
                Timer::new(distance).await;
                // Counted since the last call; this task is among them, and the thread wakes it too.
                let idle = ::glommio::executor().executor_stats().tasks_executed() <= 2;
                distance = if idle { (distance * 2).min(IDLE) } else { WORKING };
            }
        }
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.pulse.set(self.core, None);
    }
}
