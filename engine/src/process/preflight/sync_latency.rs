//! How long a durable write takes: what every acknowledged write of a single client waits for.
//!
//! The measurement does what the log does: 4 KiB writes with `O_DIRECT` and `O_DSYNC`, one after the other,
//! onto blocks that were allocated, zero-filled and synced before. It takes two seconds at most and
//! leaves no file behind.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::Check;
use super::data_directory::{Block, WRITE_UNIT_BYTES, probe_file};

/// Writes to measure, each onto its own block.
const WRITES: u64 = 200;

/// Time for all of it, after which the samples so far have to do.
const TIME_LIMIT: Duration = Duration::from_secs(2);

/// Slower than this at p99 is felt by every client.
const SLOW: Duration = Duration::from_millis(20);

/// Faster than this at p50 no medium is known to be: flash with a protected cache takes 10 µs and more.
const SUSPICIOUS: Duration = Duration::from_micros(5);

/// Durations of durable writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncLatency {
    /// The median.
    pub p50: Duration,
    /// The 99th percentile.
    pub p99: Duration,
    /// How many writes were measured.
    pub writes: usize,
}

/// Measures in an existing directory, or the nearest existing one above.
///
/// # Errors
/// What the system said to a write or an open.
pub fn collect(directory: &Path) -> io::Result<SyncLatency> {
    let started = Instant::now();
    let block = Block([0; WRITE_UNIT_BYTES]);
    // Zeros first, without waiting for each: one sync at the end makes the blocks allocated and written.
    let file = probe_file(directory, OFlags::DIRECT)?;
    for write in 0..WRITES {
        file.write_all_at(&block.0, write * WRITE_UNIT_BYTES as u64)?;
    }
    file.sync_all()?;
    // O_DSYNC can't be switched on for an open file; the file without a name is opened again through /proc.
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&file);
    let durable = rustix::fs::open(
        format!("/proc/self/fd/{descriptor}"),
        OFlags::RDWR | OFlags::DIRECT | OFlags::DSYNC | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    let durable = std::fs::File::from(durable);
    let mut samples = Vec::with_capacity(WRITES as usize);
    for write in 0..WRITES {
        let before = Instant::now();
        durable.write_all_at(&block.0, write * WRITE_UNIT_BYTES as u64)?;
        samples.push(before.elapsed());
        if started.elapsed() > TIME_LIMIT {
            break;
        }
    }
    Ok(summary(samples))
}

/// Percentiles by the nearest rank.
fn summary(mut samples: Vec<Duration>) -> SyncLatency {
    assert!(
        !samples.is_empty(),
        "at least one write is measured before the time limit is looked at"
    );
    samples.sort_unstable();
    let at = |percent: usize| samples[(samples.len() * percent).div_ceil(100) - 1];
    SyncLatency {
        p50: at(50),
        p99: at(99),
        writes: samples.len(),
    }
}

/// Verdict over the latency.
pub fn sync_latency(measured: &Result<SyncLatency, String>) -> Check {
    const NAME: &str = "sync latency";
    let latency = match measured {
        Ok(latency) => latency,
        Err(error) => {
            let fix = "see the findings about the data directory";
            return Check::warning(NAME, format!("could not be measured ({error})"), fix);
        }
    };
    let finding = format!(
        "p50 {}, p99 {} for a durable write of 4 KiB ({} writes)",
        duration(latency.p50),
        duration(latency.p99),
        latency.writes
    );
    if latency.p50 < SUSPICIOUS {
        return Check::warning(
            NAME,
            format!(
                "{finding}: no medium is that fast, so the device may ignore flushes and lose data at \
                 power loss"
            ),
            "make the hypervisor or controller honour flushes (qemu: not cache=unsafe), or use another \
             device",
        );
    }
    if latency.p99 > SLOW {
        return Check::warning(
            NAME,
            format!("{finding}: every write waits for this"),
            "use a local SSD, best one with power-loss protection, and keep other writers off the device",
        );
    }
    Check::ok(NAME, finding)
}

/// A duration for people: microseconds below 10 ms, else milliseconds.
fn duration(duration: Duration) -> String {
    if duration < Duration::from_millis(10) {
        format!("{:.0} µs", duration.as_secs_f64() * 1e6)
    } else {
        format!("{:.0} ms", duration.as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::preflight::{Status, directory_on_disk};

    fn measured(p50_us: u64, p99_us: u64) -> Check {
        let latency = SyncLatency {
            p50: Duration::from_micros(p50_us),
            p99: Duration::from_micros(p99_us),
            writes: 200,
        };
        sync_latency(&Ok(latency))
    }

    #[test]
    fn verdicts() {
        assert_eq!(measured(45, 210).status, Status::Ok);
        assert_eq!(
            measured(45, 210).finding,
            "p50 45 µs, p99 210 µs for a durable write of 4 KiB (200 writes)"
        );
        assert_eq!(measured(900, 20_000).status, Status::Ok);
        let slow = measured(900, 20_001);
        assert_eq!(slow.status, Status::Warning);
        assert!(slow.finding.contains("p99 20 ms"), "{slow:?}");
        let too_fast = measured(4, 9);
        assert_eq!(too_fast.status, Status::Warning);
        assert!(too_fast.finding.contains("ignore flushes"));
        assert_eq!(measured(5, 9).status, Status::Ok);
        let failed = sync_latency(&Err("Invalid argument".to_owned()));
        assert_eq!(failed.status, Status::Warning);
        assert!(failed.finding.contains("Invalid argument"));
    }

    #[test]
    fn percentiles_by_nearest_rank() {
        let samples = (1..=200).rev().map(Duration::from_micros).collect();
        let found = summary(samples);
        assert_eq!(
            (found.p50.as_micros(), found.p99.as_micros(), found.writes),
            (100, 198, 200)
        );
        let one = summary(vec![Duration::from_micros(7)]);
        assert_eq!(
            (one.p50, one.p99, one.writes),
            (Duration::from_micros(7), Duration::from_micros(7), 1)
        );
    }

    #[test]
    fn a_real_directory_is_measured_and_left_clean() {
        let directory = directory_on_disk();
        let found = collect(directory.path()).unwrap();
        assert!(found.p50 <= found.p99 && found.writes > 0);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
