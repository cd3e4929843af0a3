//! `loadgen --history` against a real node: the file is a history, it is right, and a wrong one would be
//! noticed.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it drives real processes and files"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use ostrakon_tests::check::history::{Action, Datum, Event, EventKind, History, Outcome};
use ostrakon_tests::process::{Node, NodeCommand, binary};
use ostrakon_tests::promises::strict_objections;
use tempfile::TempDir;

const RECORDS: usize = 200;
const OPERATIONS: usize = 4000;

fn start(directory: &TempDir) -> Node {
    NodeCommand::new(binary::for_tests(), &directory.path().join("node"), 2)
        .shards(16)
        .start()
        .unwrap_or_else(|refusal| panic!("{refusal}"))
}

fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory is writable")
}

fn loadgen(node: &Node, history: &Path, words: &[&str]) -> Output {
    Command::new(binary::loadgen_for_tests())
        .args(["--connect", node.address(), "--quiet", "--value-size", "120"])
        .args([
            "--records",
            &RECORDS.to_string(),
            "--connections",
            "6",
            "--pipeline",
            "8",
        ])
        .arg("--history")
        .arg(history)
        .args(words)
        .output()
        .expect("loadgen can be run")
}

fn read(path: &Path) -> History {
    let text = fs::read_to_string(path).expect("loadgen wrote a history");
    let history = History::parse(&text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        history.to_edn(),
        text,
        "byte for byte as the other writer writes it"
    );
    history
}

fn recorded(words: &[&str]) -> History {
    let directory = directory();
    let node = start(&directory);
    let path = directory.path().join("history.edn");
    let output = loadgen(&node, &path, words);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    read(&path)
}

/// Reads that found something, by their place in the history.
fn found(history: &mut History) -> Vec<&mut Event> {
    let is_found = |event: &&mut Event| {
        event.kind == EventKind::Ok && matches!(event.action, Action::Read { value: Some(_), .. })
    };
    history.events.iter_mut().filter(is_found).collect()
}

#[test]
fn a_history_of_a_run_is_complete_and_right() {
    let operations = OPERATIONS.to_string();
    let mut history = recorded(&["--operations", &operations, "--threads", "2"]);
    let listed = history.operations().unwrap();
    assert!(listed.iter().all(|operation| operation.outcome == Outcome::Ok));
    let count = |is: fn(&Action) -> bool| listed.iter().filter(|operation| is(&operation.action)).count();
    let (reads, writes) = (
        count(|action| matches!(action, Action::Read { .. })),
        count(|action| matches!(action, Action::Write { .. })),
    );
    assert_eq!(reads + writes, RECORDS + OPERATIONS, "each request is there once");
    assert!(
        reads > OPERATIONS / 3 && writes > OPERATIONS / 3,
        "{reads} reads, {writes} writes"
    );
    let scans: Vec<_> = listed
        .iter()
        .filter_map(|operation| match &operation.action {
            Action::Transaction { steps, scan: Some(_) } => Some(steps.len()),
            _ => None,
        })
        .collect();
    assert_eq!(scans, [RECORDS], "the check is one transaction");
    let at_once = most_at_once(&history);
    assert!(
        (2..=48).contains(&at_once),
        "{at_once} requests at once on 6 connections of 8"
    );
    assert_eq!(strict_objections(&history), [""; 0]);

    // One changed read, and it is rejected: a value that was never written, and one that was overwritten.
    let sound = history.clone();
    let mut reads = found(&mut history);
    let middle = reads.len() / 2;
    if let Action::Read { value, .. } = &mut reads[middle].action {
        *value = Some(Datum::Integer(1_000_000));
    }
    assert_ne!(strict_objections(&history), [""; 0]);
    let mut history = sound.clone();
    let stale = found(&mut history)
        .into_iter()
        .rev()
        .find_map(|event| match &mut event.action {
            Action::Read {
                value: Some(Datum::Integer(number)),
                ..
            } if *number > 3 => Some(number),
            _ => None,
        });
    *stale.expect("a hot key is written often") -= 3;
    assert_ne!(strict_objections(&history), [""; 0]);
    let mut history = sound;
    let scan = history.events.last_mut().map(|event| &mut event.action);
    let Some(Action::Transaction { steps, .. }) = scan else {
        panic!("the last event is the answer to the scan")
    };
    steps.remove(RECORDS / 2);
    assert_ne!(
        strict_objections(&history),
        [""; 0],
        "a record that the scan missed"
    );
}

/// The most operations that were called and not answered at a time.
fn most_at_once(history: &History) -> usize {
    let (mut open, mut most) = (0_usize, 0);
    for event in &history.events {
        if event.kind == EventKind::Invoke {
            open += 1;
            most = most.max(open);
        } else {
            open -= 1;
        }
    }
    most
}

#[test]
fn the_parts_of_a_read_modify_write_are_operations_of_their_own() {
    let history = recorded(&["--operations", "1000", "--workload", "f"]);
    let listed = history.operations().unwrap();
    let reads = listed
        .iter()
        .filter(|operation| matches!(operation.action, Action::Read { .. }))
        .count();
    assert_eq!(reads, 1000, "every operation of workload f reads");
    assert_eq!(strict_objections(&history), [""; 0]);
}

#[test]
fn a_killed_node_leaves_unknown_outcomes() {
    let directory = directory();
    let node = start(&directory);
    let path = directory.path().join("history.edn");
    let mut child = Command::new(binary::loadgen_for_tests())
        .args([
            "--connect",
            node.address(),
            "--quiet",
            "--value-size",
            "120",
            "--on-disconnect",
            "stop",
        ])
        .args([
            "--records",
            &RECORDS.to_string(),
            "--connections",
            "6",
            "--pipeline",
            "8",
            "--duration",
            "10m",
        ])
        .arg("--history")
        .arg(&path)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("loadgen can be run");
    let mut client = node.client(None).unwrap();
    while !has_begun_to_run(&client.status().unwrap()) {
        assert!(
            child.try_wait().unwrap().is_none(),
            "loadgen ended before its node"
        );
    }
    drop(client);
    node.kill();
    assert_eq!(child.wait().unwrap().code(), Some(3), "the node was lost");
    let history = read(&path);
    let listed = history.operations().unwrap();
    let unknown = listed
        .iter()
        .filter(|operation| operation.outcome == Outcome::Unknown)
        .count();
    assert!(
        (1..=48).contains(&unknown),
        "{unknown} of at most 48 requests at once"
    );
    assert_eq!(strict_objections(&history), [""; 0]);
}

/// Have more writes been executed than the load has?
fn has_begun_to_run(status: &str) -> bool {
    let status: serde_json::Value = serde_json::from_str(status).expect("the status is JSON");
    let cores = status["cores"].as_array().expect("the status has cores");
    let writes: u64 = cores.iter().filter_map(|core| core["writes"].as_u64()).sum();
    writes > 3 * RECORDS as u64
}

#[test]
fn a_history_that_cannot_be_written_fails_the_run_in_words() {
    let directory = directory();
    let node = start(&directory);
    let output = loadgen(&node, Path::new("/dev/full"), &["--phase", "load"]);
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("could not write the history /dev/full") && said.contains("No space left"),
        "{said}"
    );
}
