//! Latency distributions as files, in the percentile table of `HdrHistogram` (`.hgrm`), which its plotters read.
//!
//! Four columns: latency in milliseconds, the part of the samples up to it, their number, and `1 / (1 - part)`.
//! Comment lines with mean, deviation, maximum and number of samples follow.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;

use crate::report::PhaseReport;
use crate::statistics::Measure;

/// Rows of the table per halving of the distance to 100 %.
const TICKS_PER_HALF: u32 = 5;

/// Writes the distribution of whole operations to `path`, and of its parts to files beside it, whose names
/// tell what they hold. Gives the files.
///
/// # Errors
/// A sentence, when a file can't be written.
pub fn write(path: &Path, report: &PhaseReport) -> Result<Vec<PathBuf>, String> {
    let statistics = &report.statistics;
    let mut files = vec![(path.to_owned(), statistics.operations_ns())];
    for measure in Measure::ALL {
        files.push((beside(path, measure.name()), statistics.latencies_ns(measure)));
    }
    if report.open_loop.is_some() {
        files.push((beside(path, "service"), statistics.service_ns()));
    }
    files.retain(|(file, histogram)| file == path || !histogram.is_empty());
    for (file, histogram) in &files {
        std::fs::write(file, table(histogram)).map_err(|error| {
            format!(
                "could not write the latency distribution to {}: {error}",
                file.display()
            )
        })?;
    }
    Ok(files.into_iter().map(|(file, _)| file).collect())
}

/// `dir/out.hgrm` becomes `dir/out.read.hgrm`.
fn beside(path: &Path, part: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path
        .extension()
        .map_or_else(|| "hgrm".into(), |extension| extension.to_string_lossy());
    path.with_file_name(format!("{stem}.{part}.{extension}"))
}

/// The table of a histogram of nanoseconds.
fn table(latencies_ns: &Histogram<u64>) -> String {
    let milliseconds = |nanoseconds: f64| nanoseconds / 1e6;
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut count = 0;
    for step in latencies_ns.iter_quantiles(TICKS_PER_HALF) {
        count += step.count_since_last_iteration();
        let value = milliseconds(step.value_iterated_to() as f64);
        let part = step.quantile_iterated_to();
        let line = if part < 1.0 {
            writeln!(
                text,
                "{value:>12.3} {part:>14.12} {count:>10} {:>14.2}",
                1.0 / (1.0 - part)
            )
        } else {
            writeln!(text, "{value:>12.3} {part:>14.12} {count:>10}")
        };
        line.expect("a string takes everything");
    }
    let (mean, deviation) = (
        milliseconds(latencies_ns.mean()),
        milliseconds(latencies_ns.stdev()),
    );
    let (max, total) = (milliseconds(latencies_ns.max() as f64), latencies_ns.len());
    write!(
        text,
        "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]\n\
         #[Max     = {max:>12.3}, Total count    = {total:>12}]\n"
    )
    .expect("a string takes everything");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Phase;
    use crate::driver::PhaseOutcome;

    fn report() -> PhaseReport {
        let mut outcome = PhaseOutcome::default();
        for latency_us in 1..=10_000_u64 {
            outcome.statistics.record_operation(latency_us * 1000);
            outcome.statistics.record(Measure::Read, latency_us * 1000);
        }
        PhaseReport::new(Phase::Run, outcome, None)
    }

    #[test]
    fn the_table_has_the_percentiles_of_the_samples() {
        let text = table(report().statistics.operations_ns());
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                line.split_whitespace()
                    .map(|cell| cell.parse().unwrap())
                    .collect()
            })
            .collect();
        for row in &rows {
            let (value, part, count) = (row[0], row[1], row[2]);
            // A latency of v ms is the one of number 1000 v, and within the three digits of the histogram.
            assert!((value * 1000.0 / count - 1.0).abs() < 0.002, "{row:?}");
            assert!(count >= part * 10_000.0 - 1.0, "{row:?}");
            assert!(
                row.len() == 3 || (row[3] * (1.0 - part) - 1.0).abs() < 0.01,
                "{row:?}"
            );
        }
        assert_eq!(rows.last().unwrap()[1..], [1.0, 10_000.0]);
        assert!(text.contains("#[Mean    =        5.0"), "{text}");
        assert!(text.contains("Total count    =        10000]"), "{text}");
    }

    #[test]
    fn each_kind_has_a_file_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.hgrm");
        let files = write(&path, &report()).unwrap();
        assert_eq!(files, [path.clone(), directory.path().join("out.read.hgrm")]);
        assert_eq!(
            std::fs::read(&files[0]).unwrap(),
            std::fs::read(&files[1]).unwrap()
        );
        let error = write(Path::new("/no/such/place/out"), &report()).unwrap_err();
        assert!(
            error.contains("could not write the latency distribution"),
            "{error}"
        );
    }
}
