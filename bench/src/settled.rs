//! Waits until a server has nothing more to flush, to merge or to drop.
//!
//! It is settled when no memtable waits, merges are behind by nothing, and neither flushes nor merges have ended for a
//! while. Versions that were overwritten are kept for scans for a time, and dropped by merges after that, so that time
//! has to pass, too.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::machine;
use crate::server::{Server, core_figure};

/// How long nothing must have changed.
const QUIET: Duration = Duration::from_secs(15);
/// A server keeps old versions for 90 seconds; this leaves time to notice that they may go.
const VERSIONS_KEPT: Duration = Duration::from_secs(105);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Waits, and returns how long it took, without the time in which nothing happened any more.
///
/// # Errors
/// A sentence, if the server does not answer, a signal comes, or work goes on beyond `within`.
pub fn wait(server: &Server, within: Duration) -> Result<Duration, String> {
    let begun = Instant::now();
    let mut last = (Work::of(&server.stats()?)?, Instant::now());
    while last.1.elapsed() < QUIET || begun.elapsed() < VERSIONS_KEPT + QUIET {
        machine::check_signals()?;
        std::thread::sleep(LOOK_AGAIN);
        let work = Work::of(&server.stats()?)?;
        if work != last.0 || work.left > 0.0 {
            last = (work, Instant::now());
        }
        if begun.elapsed() > within {
            return Err(format!(
                "the server has not settled within {} s: {} MiB are left to flush and merge; its log ends with:\n{}",
                within.as_secs(),
                last.0.left / f64::from(1 << 20),
                server.log_end()
            ));
        }
    }
    Ok(last.1.duration_since(begun))
}

#[derive(Debug, PartialEq)]
struct Work {
    flushes: f64,
    merges: f64,
    /// Bytes that are to be flushed or merged.
    left: f64,
}

impl Work {
    fn of(stats: &Value) -> Result<Self, String> {
        Ok(Self {
            flushes: core_figure(stats, "storage/flushes")?,
            merges: core_figure(stats, "storage/merges")?,
            left: core_figure(stats, "storage/sealed_bytes")? + core_figure(stats, "storage/debt_bytes")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_the_sum_of_what_waits() {
        let stats = serde_json::json!({ "cores": [{ "storage": {
            "flushes": 3, "merges": 2, "sealed_bytes": 10, "debt_bytes": 5,
        } }] });
        let expected = Work {
            flushes: 3.0,
            merges: 2.0,
            left: 15.0,
        };
        assert_eq!(Work::of(&stats).unwrap(), expected);
        assert!(Work::of(&serde_json::json!({})).is_err());
    }
}
