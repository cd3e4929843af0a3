//! The program `sim` as a person runs it: nothing on its command line is ignored, and its exit code says what happened.

#![allow(
    clippy::disallowed_methods,
    reason = "it runs a program and reads what that has written"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const WRONG_USAGE: Option<i32> = Some(1);

fn plan() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/plans/scan-beside-a-get.json");
    file.display().to_string()
}

fn sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sim"))
        .args(arguments)
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .output()
        .expect("it was built with this test")
}

/// The standard output of a run in which nothing broke.
#[track_caller]
fn output(arguments: &[&str]) -> String {
    let output = sim(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("it writes text")
}

/// The 16 digits that follow each `trace ` in a text.
fn traces(text: &str) -> Vec<&str> {
    let after = text.split("trace ").skip(1);
    after.map(|rest| rest.get(..16).expect("a hash")).collect()
}

#[test]
fn what_does_not_fit_together_is_refused_and_named() {
    let plan = plan();
    for (arguments, named) in [
        (&["--seed", "1", "--jobs", "2"][..], "--jobs"),
        (&["--plan", &plan, "--jobs", "2"], "--jobs"),
        (&["--seed", "1", "--failures", "2"], "--failures"),
        (&["--plan", &plan, "--failures", "2"], "--failures"),
        (&["--seeds", "0..2", "--trace", "t.txt"], "--trace"),
        (&["--minutes", "1", "--trace"], "--trace"),
        (&["--sweep", "crashes", "--trace"], "--trace"),
        (&["--seeds", "0..2", "--history", "h.edn"], "--history"),
        (&["--minutes", "1", "--history", "h.edn"], "--history"),
        (&["--sweep", "faults", "--history", "h.edn"], "--history"),
        (&["--seeds", "0..2", "--sweep-seed", "3"], "--sweep-seed"),
        (&["--seed", "1", "--sweep-seed", "3"], "--sweep-seed"),
        (&["--minutes", "1", "--sweep-seed", "3"], "--sweep-seed"),
        (&["--plan", &plan, "--sweep-seed", "3"], "--sweep-seed"),
        (&["--seed", "1", "--seeds", "0..2"], "--seeds"),
        (&["--seed", "1", "--plan", &plan], "--plan"),
        (&["--seeds", "0..2", "--jobs", "0"], "--jobs"),
        (&["--seeds", "0..2", "--failures", "0"], "--failures"),
        (&["--minutes", "0"], "--minutes"),
        (&["--seeds", "2..2"], "0..1000"),
        (&["--twice"], "--seed"),
        (&[], "--seed"),
    ] {
        let output = sim(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), WRONG_USAGE, "{arguments:?}: {said}");
        assert!(said.contains(named), "{arguments:?}: {said}");
        assert!(
            output.stdout.is_empty(),
            "{arguments:?} is refused before anything is run"
        );
    }
}

#[test]
fn a_file_that_is_no_plan_is_named() {
    for (file, word) in [("absent.json", "can't read"), (file!(), "is no plan")] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(file);
        let output = sim(&["--plan", &file.display().to_string()]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), WRONG_USAGE, "{said}");
        assert!(
            said.contains(word) && said.contains(&*file.to_string_lossy()),
            "{said}"
        );
    }
}

#[test]
fn one_seed_and_one_plan_are_run_twice_on_request() {
    let plan = plan();
    for what in [["--seed", "3"], ["--plan", &plan]] {
        let once = output(&what);
        assert_eq!(traces(&once).len(), 1, "{once}");
        let twice = output(&[what[0], what[1], "--twice"]);
        let [first, second] = traces(&twice)[..] else {
            panic!("two traces were compared: {twice}");
        };
        assert_eq!(first, second);
        assert_eq!(first, traces(&once)[0]);
        assert!(twice.contains("the second run was the same"), "{twice}");
    }
}

#[test]
fn a_trace_and_a_history_are_written_and_change_nothing() {
    let directory =
        tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory is writable");
    let [trace, history] = ["t.txt", "h.edn"].map(|name| directory.path().join(name));
    let plan = plan();
    let with = output(&[
        "--plan",
        &plan,
        "--twice",
        "--trace",
        &trace.display().to_string(),
        "--history",
        &history.display().to_string(),
    ]);
    assert_eq!(traces(&with)[0], traces(&output(&["--plan", &plan]))[0]);
    let trace = fs::read_to_string(&trace).expect("the trace was written");
    assert!(trace.lines().count() > 100, "{trace}");
    let history = fs::read_to_string(&history).expect("the history was written");
    let operations = ostrakon_tests::check::history::History::parse(&history).expect("it is a history");
    assert!(!operations.events.is_empty());
}

#[test]
fn many_seeds_are_run_twice_on_as_many_threads_as_asked_for() {
    let text = output(&["--seeds", "0..3", "--jobs", "2", "--failures", "2", "--twice"]);
    assert!(text.starts_with("3 runs, each twice, in "), "{text}");
    assert!(text.contains(": 0 failed,"), "{text}");
}
