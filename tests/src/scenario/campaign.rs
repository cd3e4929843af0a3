//! Many runs, on several threads: sums, and the runs that failed.
//!
//! Each world lives on one thread; the threads share nothing but the next plan to take and the sums.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the threads here run worlds; no part of a world sees them"
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::judge::Failure;
use super::plan::Plan;
use super::run::{Report, TraceWriter, run};
use crate::sim::Counters;

/// What every run of a campaign must show, lest it fails: a run without faults proves nothing. Short plans of sweeps
/// have less.
#[derive(Clone, Copy, Debug)]
pub struct Demands {
    /// Operations of the workload.
    pub operations: usize,
    /// Kinds of fault beside crashes ([`FaultKind::is_inflicted`](crate::sim::FaultKind::is_inflicted)) that struck.
    pub fault_kinds: usize,
    /// Crashes of the server.
    pub crashes: u64,
    /// Cores of each start.
    pub cores: u16,
    /// Shards.
    pub shards: u32,
    /// Requests for one key that came in on another core than the key's, in percent. Also a demand on all runs
    /// together.
    pub cross_core_percent: u64,
    /// From so many runs on, every kind of fault there is must have struck in one of them, and all else that is counted
    /// must have happened.
    pub runs_for_every_kind: u64,
}

/// The demands on runs of [`Plan::of_seed`].
pub const ORDINARY: Demands = Demands {
    operations: 1_000,
    fault_kinds: 3,
    crashes: 1,
    cores: 2,
    shards: 16,
    cross_core_percent: 50,
    runs_for_every_kind: 1_000,
};

/// The check that a run violates which comes out otherwise the second time.
pub const SAME_AGAIN: &str = "the same seed gives the same run";

/// The check that a run violates when it shows less than the [`Demands`].
const SHOWS_ENOUGH: &str = "a run shows what is demanded of it";

/// Sums over runs.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Runs that came to their end, failed ones included.
    pub runs: u64,
    /// Operations called and answered.
    pub operations: u64,
    /// See `operations`.
    pub answered: u64,
    /// Events of the worlds.
    pub events: u64,
    /// Virtual nanoseconds.
    pub virtual_ns: u64,
    /// Requests for one key, and those that came in on another core than the key's.
    pub requests: u64,
    /// See `requests`.
    pub cross_core: u64,
    /// Starts of nodes, and those refused for a reason.
    pub starts: u64,
    /// See `starts`.
    pub refused_starts: u64,
    /// Crashes of nodes.
    pub crashes: u64,
    /// Faults that struck before the runs were healed.
    pub counters: Counters,
    /// Refused requests by code.
    pub refusals: BTreeMap<String, u64>,
    /// What else the runs have shown.
    pub shown: BTreeMap<&'static str, u64>,
}

/// A run that failed.
#[derive(Clone, Debug)]
pub struct FailedRun {
    /// What was run.
    pub plan: Plan,
    /// What was wrong.
    pub failure: Failure,
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Threads.
    pub jobs: usize,
    /// Runs each plan twice and compares the traces.
    pub is_twice: bool,
    /// Ends after so many failed runs.
    pub failures_max: usize,
    /// What each run must have.
    pub demands: Option<Demands>,
}

impl Totals {
    fn add(&mut self, plan: &Plan, report: &Report) {
        self.runs += 1;
        self.operations += plan.operations() as u64;
        self.answered += report.answered;
        self.events += report.events;
        self.virtual_ns += report.virtual_ns;
        self.requests += report.requests;
        self.cross_core += report.cross_core;
        self.starts += u64::from(report.starts);
        self.refused_starts += u64::from(report.refused_starts);
        self.crashes += report.crashes();
        self.counters.add_all(&report.struck);
        for (code, count) in &report.refusals {
            *self.refusals.entry(code.clone()).or_default() += count;
        }
        for (what, count) in report.counts.by_name() {
            *self.shown.entry(what).or_default() += count;
        }
    }

    /// Part of the requests for one key that came in on another core than the key's, in percent.
    pub fn cross_core_percent(&self) -> u64 {
        self.cross_core * 100 / self.requests.max(1)
    }
}

impl Demands {
    /// What a run lacks.
    pub fn lack(&self, plan: &Plan, report: &Report) -> Option<String> {
        let (operations, crashes) = (plan.operations(), report.crashes());
        let kinds = report.struck.inflicted_kinds();
        let is_enough = operations >= self.operations
            && kinds >= self.fault_kinds
            && crashes >= self.crashes
            && plan.shards >= self.shards
            && plan.cores.iter().all(|cores| *cores >= self.cores)
            && report.cross_core * 100 >= report.requests * self.cross_core_percent;
        (!is_enough).then(|| {
            format!(
                "{operations} operations, {kinds} kinds of fault beside crashes, {crashes} crashes, {} shards, cores \
                 {:?}, {} of {} requests across cores; demanded are {self:?}",
                plan.shards, plan.cores, report.cross_core, report.requests
            )
        })
    }

    /// What all runs together lack, a sentence each.
    pub fn lacks_of_all(&self, totals: &Totals) -> Vec<String> {
        let mut lacks = Vec::new();
        if totals.cross_core_percent() < self.cross_core_percent {
            lacks.push(format!(
                "{} % of the requests came in on another core than the key's, demanded are {} %",
                totals.cross_core_percent(),
                self.cross_core_percent
            ));
        }
        if totals.runs >= self.runs_for_every_kind {
            let missing = totals.counters.missing().into_iter();
            lacks.extend(missing.map(|kind| format!("no {} struck in {} runs", kind.name(), totals.runs)));
            let missing = totals.shown.iter().filter(|(_, count)| **count == 0);
            lacks.extend(missing.map(|(what, _)| format!("no {what} in {} runs", totals.runs)));
        }
        lacks
    }
}

/// Runs the plans that `next` gives, from 0 on, until it gives none. `progress` hears of the sums after each run.
///
/// Returns the sums and the failed runs in the order of their numbers.
pub fn run_all(
    next: &(dyn Fn(u64) -> Option<Plan> + Sync),
    settings: Settings,
    progress: &(dyn Fn(&Totals, usize) + Sync),
) -> (Totals, Vec<FailedRun>) {
    let number = AtomicU64::new(0);
    let sums = Mutex::new((Totals::default(), BTreeMap::new()));
    let work = || {
        loop {
            let failures = sums.lock().unwrap_or_else(PoisonError::into_inner).1.len();
            if failures >= settings.failures_max {
                break;
            }
            let number = number.fetch_add(1, Ordering::Relaxed);
            let Some(plan) = next(number) else { break };
            let mut report = run_once_or_twice(&plan, settings.is_twice, None);
            if report.failure.is_none() {
                let lack = settings.demands.and_then(|demands| demands.lack(&plan, &report));
                report.failure = lack.map(|detail| Failure {
                    check: SHOWS_ENOUGH.to_owned(),
                    detail,
                });
            }
            let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
            sums.0.add(&plan, &report);
            if let Some(failure) = report.failure {
                sums.1.insert(number, FailedRun { plan, failure });
            }
            progress(&sums.0, sums.1.len());
        }
    };
    thread::scope(|scope| {
        for _ in 0..settings.jobs {
            scope.spawn(work);
        }
    });
    let (totals, failed) = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
    (totals, failed.into_values().collect())
}

/// Runs a plan; if that goes well and `is_twice`, runs it again and compares the two ([`SAME_AGAIN`]). `trace` gets the
/// events of the first run.
pub fn run_once_or_twice(plan: &Plan, is_twice: bool, trace: Option<TraceWriter>) -> Report {
    let mut report = run(plan, trace);
    if is_twice && report.failure.is_none() {
        let again = run(plan, None);
        if again.trace_hash != report.trace_hash || again.events != report.events {
            report.failure = Some(Failure {
                check: SAME_AGAIN.to_owned(),
                detail: format!(
                    "trace {:016x} with {} events, then {:016x} with {}",
                    report.trace_hash, report.events, again.trace_hash, again.events
                ),
            });
        }
    }
    report
}
