//! Tasks on glommio's task queues.

use core::time::Duration;

use ::glommio::timer::Timer;
use ::glommio::{Latency, Shares, TaskQueueHandle};

use crate::env::tasks::{Priority, TaskFuture, Tasks};

/// How long a task may run before `should_yield` turns true. It also bounds how late a busy core sees its
/// timers and messages. A queue that names it as its latency makes it the executor's slice while it has work;
/// beyond that, glommio only wakes such a queue from other threads without asking whether the core is awake.
pub(super) const SLICE: Duration = Duration::from_millis(1);

/// The same while there is background work: what comes in meanwhile waits for less of it, and for what it has to read.
const BACKGROUND_SLICE: Duration = Duration::from_micros(200);

/// CPU shares of the foreground, the most that glommio knows.
const FOREGROUND_SHARES: usize = 1000;

/// CPU shares of background work.
const BACKGROUND_SHARES: usize = 200;

/// The task queues of one executor.
pub(super) struct GlommioTasks {
    foreground: TaskQueueHandle,
    background: TaskQueueHandle,
}

impl GlommioTasks {
    /// Makes the task queues of the executor that it is called on.
    pub(super) fn on_this_executor() -> GlommioTasks {
        let queue = |shares, slice, name| {
            ::glommio::executor().create_task_queue(Shares::Static(shares), Latency::Matters(slice), name)
        };
        GlommioTasks {
            foreground: queue(FOREGROUND_SHARES, SLICE, "foreground"),
            background: queue(BACKGROUND_SHARES, BACKGROUND_SLICE, "background"),
        }
    }

    /// The queue that serves clients, the log and the mesh.
    pub(super) fn foreground(&self) -> TaskQueueHandle {
        self.foreground
    }
}

/// Puts a task at the end of a queue. `glommio::spawn_local` would poll it at once, inside the caller's
/// borrows.
pub(super) fn spawn_into(queue: TaskQueueHandle, task: impl Future<Output = ()> + 'static) {
    ::glommio::spawn_local_into(task, queue)
        .expect("task queues live as long as the executor")
        .detach();
}

impl Tasks for GlommioTasks {
    fn spawn(&self, priority: Priority, task: TaskFuture) {
        let queue = match priority {
            Priority::Foreground => self.foreground,
            Priority::Background => self.background,
        };
        spawn_into(queue, task);
    }

    fn should_yield(&self) -> bool {
        ::glommio::executor().need_preempt()
    }

    fn sleep(&self, duration: Duration) -> TaskFuture {
        let timer = Timer::new(duration);
        Box::pin(async move {
            timer.await;
        })
    }
}
