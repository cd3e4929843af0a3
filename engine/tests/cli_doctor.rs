//! `ostrakon doctor` and the refusals of `ostrakon serve` on real directories of this machine.

#![allow(
    clippy::disallowed_methods,
    reason = "a test of a program looks at the disk itself"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ostrakon::process::lock::DirectoryLock;
use serde_json::Value;

/// A directory on the disk of the build: `/tmp` may lie in memory, which is an error of its own.
fn directory_on_disk() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory is writable")
}

fn ostrakon(arguments: &[&str], data: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ostrakon"))
        .args(arguments)
        .arg("--data")
        .arg(data)
        .env_remove("RUST_LOG")
        .output()
        .expect("the program was built together with this test")
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("the test made the directory");
    entries
        .map(|entry| entry.expect("the directory can be read").path())
        .collect()
}

/// The report, after checking that the exit code agrees with it.
fn report(data: &Path) -> Value {
    let output = ostrakon(&["doctor", "--json"], data);
    let report: Value = serde_json::from_slice(&output.stdout).expect("the output is JSON");
    let expected = i32::from(report["errors"].as_u64() != Some(0));
    assert_eq!(output.status.code(), Some(expected), "{output:?}");
    report
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().expect("a report has checks");
    checks
        .iter()
        .find(|check| check["name"] == name)
        .unwrap_or_else(|| panic!("no check '{name}' in {report}"))
}

#[test]
fn every_check_is_in_the_report_and_nothing_stays_behind() {
    let directory = directory_on_disk();
    let report = report(directory.path());
    for name in [
        "kernel",
        "io_uring",
        "clock source",
        "locked memory",
        "open files",
        "cpus",
        "memory",
        "data directory",
        "file system",
        "direct io",
        "disk space",
        "sync latency",
    ] {
        let check = check(&report, name);
        let status = check["status"].as_str().expect("a status is a word");
        assert!(["ok", "warning", "error"].contains(&status), "{check}");
        assert_eq!(check["fix"].is_null(), status == "ok", "{check}");
    }
    assert!(
        check(&report, "sync latency")["finding"]
            .as_str()
            .is_some_and(|finding| finding.contains("p99"))
    );
    assert_eq!(entries(directory.path()), [] as [PathBuf; 0]);
}

#[test]
fn the_text_has_a_line_for_each_check_and_a_conclusion() {
    let directory = directory_on_disk();
    let output = ostrakon(&["doctor"], directory.path());
    let text = String::from_utf8(output.stdout).expect("the output is text");
    let statuses = ["ok", "warning", "error"];
    let findings = text
        .lines()
        .filter(|line| statuses.iter().any(|status| line.starts_with(status)));
    assert_eq!(findings.count(), 13, "{text}");
    let conclusion = text.lines().last().unwrap_or_default();
    assert_eq!(
        conclusion.contains("can't run"),
        !output.status.success(),
        "{text}"
    );
}

#[test]
fn doctor_makes_no_directory() {
    let parent = directory_on_disk();
    let report = report(&parent.path().join("data"));
    assert!(
        check(&report, "data directory")["finding"]
            .as_str()
            .is_some_and(|text| text.contains("does not exist yet"))
    );
    assert_eq!(entries(parent.path()), [] as [PathBuf; 0]);
}

#[test]
fn memory_is_no_place_for_data() {
    // A file system in memory that nearly every Linux machine has; the verdict itself is a unit test.
    let shared_memory = Path::new("/dev/shm");
    let Ok(directory) = tempfile::tempdir_in(shared_memory) else {
        eprintln!("skipped: no writable {} here", shared_memory.display());
        return;
    };
    let report = report(directory.path());
    let found = check(&report, "file system");
    if found["finding"]
        .as_str()
        .is_none_or(|finding| !finding.contains("tmpfs"))
    {
        eprintln!("skipped: {} is not tmpfs here: {found}", shared_memory.display());
        return;
    }
    assert_eq!(found["status"], "error");
    let output = ostrakon(&["serve", "--listen", "127.0.0.1:0"], directory.path());
    let refusal = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{refusal}");
    assert!(
        refusal.contains("tmpfs") && refusal.contains("fix: "),
        "{refusal}"
    );
    assert_eq!(
        entries(directory.path()),
        [] as [PathBuf; 0],
        "a refused node leaves nothing behind"
    );
}

#[test]
fn a_data_directory_in_use_is_refused_with_the_holders_process_id() {
    let directory = directory_on_disk();
    let _held = DirectoryLock::acquire(directory.path()).expect("the directory is new");
    let output = ostrakon(&["serve", "--listen", "127.0.0.1:0"], directory.path());
    let refusal = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{refusal}");
    assert!(
        refusal.contains(&format!("in use by process {}", std::process::id())),
        "{refusal}"
    );
    assert_eq!(
        output.stdout, b"",
        "a node that does not run must not say that it is ready"
    );
}
