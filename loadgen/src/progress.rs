//! The progress bar: live throughput and p99, on a thread of its own.
//!
//! It only reads the executors' atomics, four times a second for the bar and once a second for the figures.
//! It draws on standard error, and nothing at all when that is no terminal.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::driver::Shared;
use crate::statistics::{LiveCounters, live_percentile_ns, live_sums};

const TICK: Duration = Duration::from_millis(250);
const FIGURES_EVERY: Duration = Duration::from_secs(1);

/// What the length of the bar stands for.
#[derive(Debug, Clone, Copy)]
pub enum Extent {
    /// So many operations.
    Operations(u64),
    /// So much time.
    Duration(Duration),
}

/// A bar that is being drawn; it goes when this is dropped.
#[derive(Debug)]
pub struct Progress {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Starts drawing, unless hidden.
    pub fn start(name: &'static str, extent: Extent, shared: &Arc<Shared>, is_hidden: bool) -> Self {
        let bar = bar(name, extent, is_hidden);
        if bar.is_hidden() {
            return Self {
                end: None,
                thread: None,
            };
        }
        let (end, ended) = channel();
        let shared = Arc::clone(shared);
        let draw = move || {
            let started_at = Instant::now();
            let mut view = View::new(started_at);
            while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                let operations = shared.live().iter().map(LiveCounters::operations).sum();
                bar.set_position(match extent {
                    Extent::Operations(_) => operations,
                    Extent::Duration(_) => started_at.elapsed().as_millis() as u64,
                });
                if let Some(figures) = view.figures(&shared, operations) {
                    bar.set_message(figures);
                }
            }
            bar.finish_and_clear();
        };
        let thread = std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(draw);
        // Without a thread there is no bar, and the run goes on.
        Self {
            end: Some(end),
            thread: thread.ok(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the progress bar does not panic");
        }
    }
}

/// An empty bar on standard error.
pub fn bar(name: &'static str, extent: Extent, is_hidden: bool) -> ProgressBar {
    let (length, counts) = match extent {
        Extent::Operations(operations) => (operations, "{human_pos} of {human_len}"),
        Extent::Duration(duration) => (duration.as_millis() as u64, "{elapsed}"),
    };
    let target = if is_hidden {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let template = format!("{{prefix:>5}} {{bar:30}} {counts}  {{msg}}");
    let style = ProgressStyle::with_template(&template).expect("the template is well formed");
    ProgressBar::with_draw_target(Some(length), target)
        .with_style(style)
        .with_prefix(name)
}

/// Remembers the last second.
struct View {
    at: Instant,
    operations: u64,
    sums: Box<crate::statistics::LiveSums>,
}

impl View {
    fn new(at: Instant) -> Self {
        Self {
            at,
            operations: 0,
            sums: Box::new(live_sums()),
        }
    }

    fn figures(&mut self, shared: &Shared, operations: u64) -> Option<String> {
        let elapsed = self.at.elapsed();
        if elapsed < FIGURES_EVERY {
            return None;
        }
        let mut sums = Box::new(live_sums());
        for live in shared.live() {
            live.add_to(&mut sums);
        }
        let per_second = (operations - self.operations) as f64 / elapsed.as_secs_f64();
        let p99 = match live_percentile_ns(&self.sums, &sums, 0.99) {
            Some(p99_ns) => format!("p99 {:.2} ms", p99_ns as f64 / 1e6),
            None => "no answers".to_owned(),
        };
        *self = Self {
            at: Instant::now(),
            operations,
            sums,
        };
        Some(format!("{per_second:.0} operations/s, {p99}"))
    }
}
