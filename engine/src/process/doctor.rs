//! `ostrakon doctor`: every check of the machine, with a measurement of the disk, for people or as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::preflight::{Check, Intent, Status, data_directory, quick_checks, raise_limits, sync_latency};

/// All findings about one machine and data directory.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// In the order in which they are worth reading.
    pub checks: Vec<Check>,
    /// How many of them are errors.
    pub errors: usize,
    /// How many of them are warnings.
    pub warnings: usize,
}

/// Runs all checks, the slow one too; takes two seconds at most on a disk that answers.
///
/// Lifts the soft limits of this process first, as `serve` does, so that both see the same.
pub fn examine(intent: &Intent) -> Report {
    raise_limits();
    let mut checks = quick_checks(intent);
    let place = data_directory::collect(&intent.data_directory);
    let latency = sync_latency::collect(&place.probed).map_err(|error| error.to_string());
    checks.push(sync_latency::sync_latency(&latency));
    Report::new(checks)
}

impl Report {
    fn new(checks: Vec<Check>) -> Report {
        let count = |status| checks.iter().filter(|check| check.status == status).count();
        Report {
            errors: count(Status::Error),
            warnings: count(Status::Warning),
            checks,
        }
    }

    /// The report as aligned lines, with the fix below each finding that has one.
    pub fn to_text(&self) -> String {
        let status_width = Status::Warning.as_str().len();
        let name_width = self
            .checks
            .iter()
            .map(|check| check.name.len())
            .max()
            .unwrap_or(0);
        let mut text = String::new();
        for Check {
            name,
            status,
            finding,
            fix,
        } in &self.checks
        {
            // Writing into a string never fails.
            let _ = writeln!(
                text,
                "{:status_width$}  {name:name_width$}  {finding}",
                status.as_str()
            );
            if let Some(fix) = fix {
                let _ = writeln!(
                    text,
                    "{:indent$}fix: {fix}",
                    "",
                    indent = status_width + name_width + 4
                );
            }
        }
        let _ = writeln!(text, "\n{}", self.conclusion());
        text
    }

    fn conclusion(&self) -> String {
        let counted =
            |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        match (self.errors, self.warnings) {
            (0, 0) => "All is well: a node can run here.".to_owned(),
            (0, warnings) => format!("A node can run here, with {}.", counted(warnings, "warning")),
            (errors, warnings) => format!(
                "A node can't run here: {}, {}.",
                counted(errors, "error"),
                counted(warnings, "warning")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_aligned_and_ends_with_a_conclusion() {
        let report = Report::new(vec![
            Check::ok("cpus", "2 of 2"),
            Check::warning("open files", "1024", "raise it"),
            Check::error("io_uring", "gone", "bring it"),
        ]);
        let expected = "\
ok       cpus        2 of 2
warning  open files  1024
                     fix: raise it
error    io_uring    gone
                     fix: bring it

A node can't run here: 1 error, 1 warning.
";
        assert_eq!(report.to_text(), expected);
    }

    #[test]
    fn conclusions_without_errors() {
        assert!(Report::new(vec![]).to_text().contains("All is well"));
        let warned = Report::new(vec![Check::warning("a", "b", "c"), Check::warning("d", "e", "f")]);
        assert!(warned.to_text().contains("with 2 warnings"));
    }
}
