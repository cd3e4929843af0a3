//! The simulator in the test suite: plans that failed once (`testdata/plans`), a few seeds that must come out the same
//! twice, and a crash around every sync of a short run. More seeds are run by the program `sim`.

#![allow(clippy::disallowed_methods, reason = "it reads the plans from the repository")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use ostrakon_tests::scenario::campaign::{Demands, ORDINARY, Settings, Totals, run_all};
use ostrakon_tests::scenario::plan::{Plan, SERVER};
use ostrakon_tests::scenario::run::run;
use ostrakon_tests::scenario::strikes::MUST_STRIKE;
use ostrakon_tests::scenario::sweep;
use ostrakon_tests::sim::disk::DiskOperations;
use ostrakon_tests::sim::{CrashPoint, FaultAt, FaultAtKind, FaultKind};

/// Starts of each run after its heal: the killed node, and the drained one.
const STARTS_ONCE_HEALED: u32 = 2;

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

/// What strikes, by the kind of fault that a sweep puts at operations.
const STRUCK: [(&str, FaultKind); 20] = [
    ("disk-error", FaultKind::DiskError),
    ("disk-full", FaultKind::DiskFull),
    ("disk-slow", FaultKind::SlowDisk),
    ("disk-hang", FaultKind::HungDisk),
    ("lost-write", FaultKind::LostWrite),
    ("misdirected-write", FaultKind::MisdirectedWrite),
    ("bit-flip", FaultKind::BitFlip),
    ("flip-read", FaultKind::BitFlip),
    ("latent-read-error", FaultKind::LatentReadError),
    ("pause", FaultKind::ProcessPause),
    ("stall-core", FaultKind::CoreStall),
    ("stall-another-core", FaultKind::CoreStall),
    ("clock-jump", FaultKind::ClockJump),
    ("segment-loss", FaultKind::SegmentLoss),
    ("segment-duplicate", FaultKind::SegmentDuplicate),
    ("segment-delay", FaultKind::DelaySpike),
    ("segment-reorder", FaultKind::SegmentReorder),
    ("partition-one-way", FaultKind::PartitionOneWay),
    ("partition-full", FaultKind::PartitionFull),
    ("connection-reset", FaultKind::ConnectionReset),
];

/// Every so many plans of each kind of a sweep.
fn some_of(plans: Vec<Plan>, step: usize) -> Vec<Plan> {
    let mut turns: BTreeMap<&str, usize> = BTreeMap::new();
    let mut takes = |plan: &Plan| {
        let kind = *sweep::counts(std::slice::from_ref(plan))
            .keys()
            .next()
            .expect("one fault");
        let turn = turns.entry(kind).or_default();
        *turn += 1;
        (*turn - 1).is_multiple_of(step)
    };
    plans.into_iter().filter(|plan| takes(plan)).collect()
}

#[test]
fn every_kind_of_fault_at_some_operations_strikes_and_does_no_harm() {
    let plans = sweep::faults_at_every_operation(2).expect("each kind has its place");
    let counts = sweep::counts(&plans);
    assert!(
        counts
            .keys()
            .copied()
            .eq(STRUCK.map(|(kind, _)| kind).into_iter().collect::<BTreeSet<_>>())
    );
    let some = some_of(plans, 23);
    let expected = sweep::counts(&some);
    let totals = assert_all_run(&some, false, None);
    for (kind, struck) in STRUCK {
        let (count, at_least) = (totals.counters.get(struck), expected[kind] as u64);
        assert!(count >= at_least, "{kind}: {count} of {at_least}");
    }
}

#[test]
fn a_fault_that_has_to_strike_and_does_not_fails_the_run() {
    let clean = Plan::short(2);
    let missed = |faults_at, crash_at_sync| Plan {
        faults_at,
        crash_at_sync,
        must_strike: true,
        ..clean.clone()
    };
    let far_away = FaultAt {
        host: SERVER,
        operation: 1_000_000,
        kind: FaultAtKind::DiskError,
        is_network: false,
    };
    let late_crash = Some((1_000_000, CrashPoint::During));
    for (plan, fails) in [
        (missed(vec![far_away.clone()], None), true),
        (missed(Vec::new(), late_crash), true),
        (missed(Vec::new(), None), false),
        (
            Plan {
                must_strike: false,
                ..missed(vec![far_away], late_crash)
            },
            false,
        ),
    ] {
        let check = run(&plan, None).failure.map(|failure| failure.check);
        assert_eq!(check.as_deref(), fails.then_some(MUST_STRIKE), "{plan:#?}");
    }
}

#[test]
fn a_damaged_identity_file_is_refused_by_name() {
    let clean = Plan::short(2);
    let report = run(&clean, None);
    let disk = report.operations.disk.iter().enumerate();
    let reads: Vec<usize> = disk
        .filter(|(_, operation)| operation.operations == DiskOperations::Read)
        .filter(|(_, operation)| operation.path.ends_with("node"))
        .map(|(number, _)| number)
        .collect();
    assert_eq!(reads.len() as u32, report.starts - 1 - STARTS_ONCE_HEALED);
    for read in reads {
        let flip = |byte| Plan {
            faults_at: vec![FaultAt {
                host: SERVER,
                operation: read as u64,
                kind: FaultAtKind::FlipRead { byte, bit: 3 },
                is_network: false,
            }],
            must_strike: true,
            ..clean.clone()
        };
        let refused = run(&flip(40), None);
        assert_eq!((refused.failure, refused.refused_starts), (None, 1));
        // Nobody looks at the zeros behind, and so nobody refuses them: the check sees that.
        let unseen = run(&flip(100), None).failure.map(|failure| failure.check);
        assert_eq!(unseen.as_deref(), Some("a start from a damaged file is refused"));
    }
}

#[test]
fn a_plan_survives_being_written_down() {
    let plan = Plan::of_seed(5);
    let text = serde_json::to_string(&plan).expect("plans can be written");
    let read: Plan = serde_json::from_str(&text).expect("plans can be read");
    assert_eq!(read, plan);
}
