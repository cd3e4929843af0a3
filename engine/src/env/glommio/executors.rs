//! Executors as a node has them, also for other programs that use glommio: with rings for many connections, and kept
//! from sleeping over tasks that could run (see [`pulse`](super::pulse)).
//!
//! 1. [`pulses`] are made for all executors of a process together.
//! 2. Each executor comes from a [`builder`].
//! 3. Its first future is [`work`], with one of the pulses, and with what there is to do.

use core::time::Duration;
use std::io;

use ::glommio::{Latency, LocalExecutorBuilder, Placement, Shares};

use super::pulse::{Beating, Pulse};
use super::tasks::{SLICE, spawn_into};

/// The slice of an executor's own task queue, which starts and ends it. It is longer than anything stops a process,
/// because an executor has no pulse before its first turn: a thread that lost the CPU for a slice there would never
/// start. The queues that do the work have [a slice of their own](super::tasks).
const STARTING_SLICE: Duration = Duration::from_hours(24);

/// Submission entries of each ring. Far more than are ever used at once: the kernel makes a table of the requests that
/// wait, such as each connection's for its next bytes, of one bucket per 32 completion entries, 256 at most, and walks
/// a bucket whenever a request is taken back. The executor takes its timer back in each turn, so with few entries each
/// turn would cost time in proportion to the idle connections (decision 023). 4,096 are the fewest that give 256.
const RING_ENTRIES: usize = 4096;

/// Keeps executors awake while it lives; see [`pulses`].
pub struct ExecutorPulse(Beating);

/// A pulse for each of so many executors.
///
/// # Errors
/// When no thread can be started.
pub fn pulses(executors: u16) -> io::Result<Vec<ExecutorPulse>> {
    Ok(Pulse::start(executors)?.into_iter().map(ExecutorPulse).collect())
}

/// Settings of an executor on this CPU.
pub fn builder(cpu: usize, name: &str) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(Placement::Fixed(cpu))
        .name(name)
        .ring_depth(RING_ENTRIES)
        .preempt_timer(STARTING_SLICE)
}

/// Runs a future to its end, with the tasks that it spawns, on the executor that this is called on.
pub async fn work<T: 'static>(pulse: ExecutorPulse, future: impl Future<Output = T> + 'static) -> T {
    let queue = ::glommio::executor().create_task_queue(Shares::default(), Latency::Matters(SLICE), "work");
    spawn_into(queue, pulse.0.task());
    let working = ::glommio::spawn_local_into(future, queue);
    working.expect("task queues live as long as the executor").await
}
