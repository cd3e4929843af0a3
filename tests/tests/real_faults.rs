//! Each kind of fault on a real node, briefly; every history is as promised.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it drives real processes and files"
)]

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use ostrakon_tests::check::history::{Action, Datum, EventKind, Version};
use ostrakon_tests::process::{FileSystem, binary};
use ostrakon_tests::promises;
use ostrakon_tests::real::clients::{Habits, key, may_be_deleted};
use ostrakon_tests::real::report::Counts;
use ostrakon_tests::real::{Failure, Report, Scenario, Settings, run};

/// One node at a time: the faults are about its disk, not about a machine with too much to do.
static TURN: Mutex<()> = Mutex::new(());

const CLIENTS: u16 = 4;
const KEYS: u32 = 24;
const OPERATIONS: u64 = 1500;

fn settings(directory: &Path) -> Settings {
    Settings {
        directory: directory.to_owned(),
        binary: binary::for_tests().to_owned(),
        cores: 2,
        shards: 16,
        habits: Habits {
            clients: CLIENTS,
            keys: KEYS,
            value_bytes_max: 8 << 10,
            seed: 0x0571_AC0E,
        },
        operations: OPERATIONS,
    }
}

/// Plays a scenario; none if this machine lacks something, after printing what.
fn play(scenario: Scenario) -> Option<Report> {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let directory =
        tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory is writable");
    let report = match run(scenario, &settings(directory.path())) {
        Ok(report) => report,
        Err(Failure::Unavailable(reason)) => {
            println!("skipped: {reason}");
            return None;
        }
        Err(Failure::Failed(reason)) => panic!("{reason}"),
    };
    println!("{scenario:?}: {report}");
    if !report.objections.is_empty() {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("real-{}.edn", std::process::id()));
        std::fs::write(&kept, report.history.to_edn()).expect("the build directory is writable");
        panic!("the history is in {}\n{report}", kept.display());
    }
    let Counts { done, refused, .. } = report.counts;
    assert!(done + refused >= OPERATIONS && refused > 0, "{report}");
    Some(report)
}

#[test]
fn a_killed_node_keeps_its_promises() {
    let report = play(Scenario::Kill).expect("every machine can do this");
    let Counts { failed, unknown, .. } = report.counts;
    assert!(
        failed + unknown >= u64::from(CLIENTS),
        "each client was waiting: {report}"
    );
}

#[test]
fn a_paused_node_goes_on_as_if_nothing_had_been() {
    let report = play(Scenario::Pause(Duration::from_millis(1500))).expect("every machine can do this");
    assert_eq!((report.counts.unknown, report.counts.failed), (0, 0), "{report}");
}

#[test]
fn a_node_that_lost_its_power_keeps_its_promises() {
    play(Scenario::PowerLoss(FileSystem::Ext4));
}

#[test]
fn at_a_full_disk_reads_go_on_and_writes_resume() {
    if let Some(report) = play(Scenario::FullDisk) {
        assert_eq!(report.counts.unknown, 0, "{report}");
        assert!(report.counts.failed > 0, "{report}");
    }
}

#[test]
fn failed_log_writes_are_of_unknown_outcome_and_nothing_more() {
    if let Some(report) = play(Scenario::WriteErrors) {
        assert!(report.counts.unknown > 0, "{report}");
    }
}

#[test]
fn a_slow_disk_is_slow_and_nothing_more() {
    play(Scenario::SlowDisk);
}

#[test]
fn a_flipped_byte_is_refused_by_name_and_forgiven_when_put_back() {
    let report = play(Scenario::FlippedByte).expect("every machine can do this");
    assert_eq!(report.counts.unknown, 0, "{report}");
}

/// What the scenarios rest on: a history that is wrong in one place is refused.
#[test]
fn a_recorded_history_with_one_wrong_answer_is_refused() {
    let mut history = play(Scenario::Kill).expect("every machine can do this").history;
    let sound = history.clone();
    let read = history
        .events
        .iter_mut()
        .rfind(|event| match &event.action {
            Action::Read { key, value: Some(_) } => event.kind == EventKind::Ok && is_lasting(key),
            _ => false,
        })
        .expect("some key is there at the end");
    if let Action::Read { value, .. } = &mut read.action {
        // A key that was acknowledged is gone.
        *value = None;
        read.version = Some(Version::ABSENT);
    }
    assert_ne!(promises::objections(&history), [""; 0], "a lost write");

    let mut history = sound;
    let scan = history
        .events
        .iter_mut()
        .rev()
        .find_map(|event| match (event.kind, &mut event.action) {
            (EventKind::Ok, Action::Transaction { steps, .. }) => Some(steps),
            _ => None,
        });
    let steps = scan.expect("the end is a scan");
    let lasting = steps.iter().position(|step| is_lasting(step.key()));
    steps.remove(lasting.expect("a key that is never deleted is there at the end"));
    assert_ne!(
        promises::objections(&history),
        [""; 0],
        "a key that a scan missed"
    );
}

/// Is it a key that no delete, not even one of unknown outcome, can have removed?
fn is_lasting(datum: &Datum) -> bool {
    (0..KEYS).any(|number| !may_be_deleted(number) && *datum == Datum::from(key(number).as_slice()))
}
