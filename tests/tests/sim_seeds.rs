//! The simulator in the test suite: plans that failed once (`testdata/plans`), a few seeds that must come out the same
//! twice, and a crash around every sync of a short run. More seeds are run by the program `sim`.

#![allow(clippy::disallowed_methods, reason = "it reads the plans from the repository")]

use std::fs;
use std::path::Path;

use ostrakon_tests::scenario::campaign::{Demands, ORDINARY, Settings, Totals, run_all};
use ostrakon_tests::scenario::plan::Plan;
use ostrakon_tests::scenario::run::run;
use ostrakon_tests::scenario::sweep;
use ostrakon_tests::sim::FaultKind;

fn assert_all_run(plans: &[Plan], is_twice: bool, demands: Option<Demands>) -> Totals {
    let settings = Settings {
        jobs: 2,
        is_twice,
        failures_max: 1,
        demands,
    };
    let next = |number: u64| plans.get(number as usize).cloned();
    let (totals, failed) = run_all(&next, settings, &|_, _| {});
    if let Some(failed) = failed.first() {
        panic!("{}\nplan: {:#?}", failed.failure, failed.plan);
    }
    assert_eq!(totals.runs, plans.len() as u64);
    if let Some(demands) = demands {
        assert_eq!(demands.lacks_of_all(&totals), [""; 0]);
    }
    totals
}

#[test]
fn plans_that_failed_once_pass() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/plans");
    let mut seen = 0;
    for entry in fs::read_dir(&directory).expect("the plans are there") {
        let path = entry.expect("it can be listed").path();
        let text = fs::read_to_string(&path).expect("it can be read");
        let plan: Plan = serde_json::from_str(&text).expect("it is a plan");
        let report = run(&plan, None);
        assert!(
            report.failure.is_none(),
            "{}: {:?}",
            path.display(),
            report.failure
        );
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
fn a_seed_runs_the_same_way_twice_and_meets_what_is_asked_of_it() {
    let plans: Vec<Plan> = (0..20).map(Plan::of_seed).collect();
    assert_all_run(&plans, true, Some(ORDINARY));
}

#[test]
fn a_run_that_shows_less_than_is_demanded_fails() {
    let demanding = |demands| Settings {
        jobs: 1,
        is_twice: false,
        failures_max: 1,
        demands,
    };
    let next = |number: u64| (number == 0).then(|| Plan::short(1));
    let (_, failed) = run_all(&next, demanding(None), &|_, _| {});
    assert!(failed.is_empty(), "{failed:?}");
    let (totals, failed) = run_all(&next, demanding(Some(ORDINARY)), &|_, _| {});
    let check = failed.first().map(|failed| failed.failure.check.as_str());
    assert_eq!(check, Some("a run shows what is demanded of it"));
    // Few runs need not show every kind of fault, many must.
    assert!(
        ORDINARY
            .lacks_of_all(&totals)
            .iter()
            .all(|lack| !lack.contains("struck"))
    );
    let many = Totals {
        runs: 1_000,
        cross_core: totals.requests / 3,
        ..totals
    };
    let lacks = ORDINARY.lacks_of_all(&many);
    for (expected, is_lacking) in [
        ("no bit-flip struck", true),
        ("no process-pause struck", true),
        ("no power-loss struck", false),
        ("% of the requests", true),
    ] {
        let is_there = lacks.iter().any(|lack| lack.contains(expected));
        assert_eq!(is_there, is_lacking, "{expected}: {lacks:?}");
    }
}

#[test]
fn another_seed_is_another_run() {
    let [first, second] = [1, 2].map(|seed| run(&Plan::of_seed(seed), None));
    assert_ne!(first.trace_hash, second.trace_hash);
    let same_plan = Plan {
        seed: 2,
        ..Plan::of_seed(1)
    };
    assert_ne!(
        first.trace_hash,
        run(&same_plan, None).trace_hash,
        "the world has its own seed"
    );
}

#[test]
fn a_crash_around_every_sync_loses_nothing() {
    let plans = sweep::crashes_at_every_sync(1);
    assert!(plans.len() > 200, "{} crash points", plans.len());
    let totals = assert_all_run(&plans, false, None);
    assert_eq!(
        totals.counters.get(FaultKind::CrashAtOperation),
        plans.len() as u64
    );
}

#[test]
fn every_fault_at_some_operations_does_no_harm() {
    let plans = sweep::faults_at_every_operation(2);
    let some: Vec<Plan> = plans.into_iter().step_by(23).collect();
    assert!(some.len() > 50, "{} faults", some.len());
    let totals = assert_all_run(&some, false, None);
    for kind in [
        FaultKind::DiskError,
        FaultKind::DiskFull,
        FaultKind::SlowDisk,
        FaultKind::HungDisk,
        FaultKind::LatentReadError,
        FaultKind::SegmentLoss,
        FaultKind::SegmentDuplicate,
        FaultKind::ConnectionReset,
    ] {
        assert!(totals.counters.get(kind) > 0, "no {} struck", kind.name());
    }
}

#[test]
fn a_plan_survives_being_written_down() {
    let plan = Plan::of_seed(5);
    let text = serde_json::to_string(&plan).expect("plans can be written");
    let read: Plan = serde_json::from_str(&text).expect("plans can be read");
    assert_eq!(read, plan);
}
