//! How far an import or an export is: a bar on stderr if that is a terminal, and the figures for the last line.

use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The bar is drawn anew so many times a second at most.
const DRAWS_PER_SECOND: u8 = 8;

/// The bar of one transfer; it goes when this is dropped.
#[derive(Debug)]
pub(in super::super) struct Progress {
    bar: ProgressBar,
    started: Instant,
}

impl Progress {
    /// Of so many bytes; `None`: nobody knows how many.
    pub(in super::super) fn new(what: &'static str, total_bytes: Option<u64>) -> Progress {
        let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
        let bar = ProgressBar::with_draw_target(total_bytes, target);
        let template = match total_bytes {
            Some(_) => "{msg} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
            None => "{msg} {spinner} {bytes}, {bytes_per_sec}, {elapsed}",
        };
        bar.set_style(ProgressStyle::with_template(template).expect("the template is well-formed"));
        bar.set_message(what);
        Progress {
            bar,
            started: Instant::now(),
        }
    }

    /// The bar, to wrap readers and writers with.
    pub(in super::super) fn bar(&self) -> &ProgressBar {
        &self.bar
    }

    /// What was done in all, as the end of a sentence: `7 entries (12.3 KiB) in 0.4 s`.
    pub(super) fn total(&self, entries: u64) -> String {
        let elapsed: Duration = self.started.elapsed();
        format!(
            "{} {} ({}) in {:.1} s",
            HumanCount(entries),
            if entries == 1 { "entry" } else { "entries" },
            HumanBytes(self.bar.position()),
            elapsed.as_secs_f64()
        )
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
