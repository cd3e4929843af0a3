//! Tasks on glommio's task queues.

use core::time::Duration;

use ::glommio::timer::Timer;
use ::glommio::{Latency, Shares, TaskQueueHandle};

use crate::env::tasks::{Priority, TaskFuture, Tasks};

/// CPU shares of background work against the foreground's 1000, the most that glommio knows.
const BACKGROUND_SHARES: usize = 200;

/// The task queues of one executor.
pub(super) struct GlommioTasks {
    foreground: TaskQueueHandle,
    background: TaskQueueHandle,
}

impl GlommioTasks {
    /// Makes the background queue; the foreground is the queue that the caller runs in.
    pub(super) fn on_this_executor() -> GlommioTasks {
        let executor = ::glommio::executor();
        GlommioTasks {
            foreground: executor.current_task_queue(),
            background: executor.create_task_queue(
                Shares::Static(BACKGROUND_SHARES),
                Latency::NotImportant,
                "background",
            ),
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
