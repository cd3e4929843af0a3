//! The check phase: scans the whole database and compares it with the register, and with the account of counters.
//!
//! The database must be at rest. The scan is one snapshot as long as the node keeps it; on `SnapshotTooOld`,
//! or when the node was away, it goes on after the last key with a new snapshot, which is the same to a
//! database at rest. A busy node is asked again by the client. In the history, each snapshot is a transaction of its
//! own.

use std::fmt;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use ostrakon_client::{Client, Error, ErrorCode, Options, ScanOptions};

use crate::counters::{self, CounterCheck, CounterSummary, Counters};
use crate::history::{History, ScanRecord};
use crate::register::{Register, ScanCheck, ScanSummary, Version, Violation};

/// After so many violations the scan stops: the database is not the one that was registered.
const VIOLATIONS_MAX: usize = 1000;

/// Between two attempts to connect.
const CONNECT_PAUSE: Duration = Duration::from_millis(20);

/// Entries between two steps of the progress bar.
const STEP: u64 = 1024;

/// What the check phase did.
#[derive(Debug, Default, serde::Serialize)]
pub struct CheckReport {
    /// How long it took.
    pub seconds: f64,
    /// Entries that the scan gave.
    pub entries: u64,
    /// What was found right, if the scan came to its end and everything was.
    pub summary: Option<ScanSummary>,
    /// The same of counters.
    pub counters: Option<CounterSummary>,
    /// Times the scan went on with a new snapshot.
    pub snapshots_renewed: u64,
    /// Writes that are still of unknown outcome.
    pub unknown_writes: u64,
    /// Violations found, all of them.
    pub violations: u64,
}

/// What is checked, and against what.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Of a node.
    pub address: &'a str,
    /// The promises about records.
    pub register: &'a Register,
    /// The promises about counters.
    pub counters: &'a Counters,
    /// How long a node that went away is waited for, until the scan gets on.
    pub patience: Duration,
}

/// How the check phase ended, besides its report.
#[derive(Debug, Default)]
pub struct CheckOutcome {
    /// For the user.
    pub report: CheckReport,
    /// The node went away.
    pub lost: Option<String>,
    /// The node refused to scan.
    pub broken: Option<String>,
    /// Broken promises, at most [`VIOLATIONS_MAX`].
    pub violations: Vec<Violation>,
}

/// Scans the node.
pub fn run(target: &Target<'_>, bar: &ProgressBar, history: Option<&mut History>) -> CheckOutcome {
    let register = target.register;
    let started_at = Instant::now();
    let mut outcome = CheckOutcome::default();
    let mut scan = Scan {
        check: ScanCheck::new(register),
        counters: target.counters.check(),
        next_start: Vec::new(),
        is_over: false,
        history,
    };
    let ended = scan_all(target, &mut scan, &mut outcome, bar);
    match ended {
        Ok(()) if scan.is_over => {
            let (records, counters) = (scan.check.finish(), scan.counters.finish());
            match (records, counters) {
                (Ok(records), Ok(counters)) if outcome.violations.is_empty() => {
                    outcome.report.summary = Some(records);
                    outcome.report.counters = Some(counters);
                }
                (records, counters) => {
                    outcome.violations.extend(records.err().into_iter().flatten());
                    outcome.violations.extend(counters.err().into_iter().flatten());
                }
            }
        }
        Ok(()) => {}
        Err(Stop::Asked(error)) => note(&mut outcome, &error),
        Err(Stop::NotRecorded(reason)) => outcome.broken = Some(reason),
    }
    bar.finish_and_clear();
    outcome.report.violations = outcome.violations.len() as u64;
    outcome.report.unknown_writes = register.unknown_writes();
    outcome.report.seconds = started_at.elapsed().as_secs_f64();
    outcome
}

struct Scan<'a> {
    check: ScanCheck<'a>,
    counters: CounterCheck<'a>,
    /// The key to go on with.
    next_start: Vec<u8>,
    is_over: bool,
    history: Option<&'a mut History>,
}

/// Why a scan does not go on.
enum Stop {
    /// The node's answer, or none.
    Asked(Error),
    /// The history can't be written, in a sentence.
    NotRecorded(String),
}

/// Scans until the end, a failure, or too many violations.
fn scan_all(
    target: &Target<'_>,
    scan: &mut Scan<'_>,
    outcome: &mut CheckOutcome,
    bar: &ProgressBar,
) -> Result<(), Stop> {
    let mut client = connect(target).map_err(Stop::Asked)?;
    let mut got_on_at = Instant::now();
    loop {
        let entries_before = outcome.report.entries;
        let mut record = match &mut scan.history {
            Some(history) => Some(history.scan_called(&scan.next_start).map_err(Stop::NotRecorded)?),
            None => None,
        };
        let scanned = scan_on(&mut client, scan, outcome, bar, record.as_mut());
        scan.settle(record, &scanned, outcome.report.entries > entries_before)
            .map_err(Stop::NotRecorded)?;
        let Err(error) = scanned else {
            return Ok(());
        };
        if outcome.report.entries > entries_before {
            got_on_at = Instant::now();
        }
        match error {
            Error::Server {
                code: ErrorCode::SnapshotTooOld,
                ..
            } if outcome.report.entries > entries_before => {}
            error if is_away(&error) && got_on_at.elapsed() < target.patience => {
                client = connect(target).map_err(Stop::Asked)?;
            }
            error => return Err(Stop::Asked(error)),
        }
        outcome.report.snapshots_renewed += 1;
    }
}

/// Connects; with patience, a node that is not there is waited for.
fn connect(target: &Target<'_>) -> Result<Client, Error> {
    let asked_at = Instant::now();
    loop {
        let options = Options {
            client: concat!("loadgen/", env!("CARGO_PKG_VERSION")).to_owned(),
            ..Options::default()
        };
        match Client::connect(target.address, options) {
            Err(error) if is_away(&error) && asked_at.elapsed() < target.patience => {
                std::thread::sleep(CONNECT_PAUSE);
            }
            connected => return connected,
        }
    }
}

/// Is there nobody to ask at the moment?
fn is_away(error: &Error) -> bool {
    match error {
        Error::Connect { .. } | Error::Lost { .. } | Error::Timeout { .. } => true,
        Error::Server { code, .. } => *code == ErrorCode::ShuttingDown,
        _ => false,
    }
}

impl Scan<'_> {
    /// Tells the history how a snapshot's scan ended.
    fn settle(
        &mut self,
        record: Option<ScanRecord>,
        scanned: &Result<(), Error>,
        has_entries: bool,
    ) -> Result<(), String> {
        let (Some(history), Some(record)) = (&mut self.history, record) else {
            return Ok(());
        };
        match scanned {
            Ok(()) if self.is_over => history.scan_answered(&record, None),
            Err(error) if !has_entries => history.scan_failed(&record, &error.to_string()),
            _ => history.scan_answered(&record, Some(&self.next_start)),
        }
    }
}

/// Scans on with a new snapshot.
fn scan_on(
    client: &mut Client,
    scan: &mut Scan<'_>,
    outcome: &mut CheckOutcome,
    bar: &ProgressBar,
    mut record: Option<&mut ScanRecord>,
) -> Result<(), Error> {
    let options = ScanOptions {
        start: scan.next_start.clone(),
        ..ScanOptions::default()
    };
    for entry in client.scan(options) {
        let entry = entry?;
        outcome.report.entries += 1;
        if outcome.report.entries.is_multiple_of(STEP) {
            bar.inc(STEP);
        }
        let judged = if counters::is_counter(&entry.key) {
            scan.counters.entry(&entry.key, &entry.value)
        } else {
            if let Some(record) = &mut record {
                record.entry(&entry.key, entry.version, &entry.value);
            }
            scan.check.entry(&entry.key, Version(entry.version), &entry.value)
        };
        // The shortest key after this one.
        scan.next_start = entry.key;
        scan.next_start.push(0);
        if let Err(violation) = judged {
            outcome.violations.push(violation);
            if outcome.violations.len() >= VIOLATIONS_MAX {
                return Ok(());
            }
        }
    }
    scan.is_over = true;
    Ok(())
}

fn note(outcome: &mut CheckOutcome, error: &Error) {
    let reason = format!("the check could not be finished: {error}");
    match error {
        Error::Submit(_) | Error::Protocol(_) => outcome.broken = Some(reason),
        Error::Server { code, .. } if *code != ErrorCode::ShuttingDown => outcome.broken = Some(reason),
        _ => outcome.lost = Some(reason),
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "check: {} records scanned in {:.2} s",
            self.entries, self.seconds
        )?;
        match &self.summary {
            Some(summary) => writeln!(
                formatter,
                ", {:.1} MB: every acknowledged write is there, and nothing else",
                summary.bytes as f64 / 1e6
            )?,
            None if self.violations > 0 => writeln!(formatter, ": {} violations", self.violations)?,
            None => writeln!(formatter, "; not finished")?,
        }
        if let Some(counters) = self
            .counters
            .filter(|counters| counters.sum + counters.unknown > 0)
        {
            let CounterSummary {
                sum,
                acknowledged,
                unknown,
            } = counters;
            write!(
                formatter,
                "  counters: their sum is {sum}, of {acknowledged} acknowledged adds"
            )?;
            match unknown {
                0 => writeln!(formatter, ": exact")?,
                unknown => writeln!(formatter, " and {unknown} of unknown outcome")?,
            }
        }
        let applied = self.summary.map_or(0, |summary| summary.unknown_applied);
        if applied + self.unknown_writes > 0 {
            let unknown = self.unknown_writes;
            writeln!(
                formatter,
                "  writes of unknown outcome: {applied} turned out to be applied, {unknown} stay unknown"
            )?;
        }
        if self.snapshots_renewed > 0 {
            writeln!(
                formatter,
                "  the scan went on with a new snapshot {} times",
                self.snapshots_renewed
            )?;
        }
        Ok(())
    }
}
