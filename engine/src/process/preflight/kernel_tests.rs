//! Verdicts over made-up kernels.

use super::*;
use crate::process::preflight::Status;

const EPERM: i32 = 1;
const ENOMEM: i32 = 12;
const EMFILE: i32 = 24;
const ENOSYS: i32 = 38;

fn failed(errno: i32) -> IoUringFacts {
    IoUringFacts {
        probe: Probed::Failed {
            call: "io_uring_setup",
            errno,
        },
        disabled: Some(0),
        group: Some(-1),
        seccomp: false,
        release: "6.1.0-13-amd64".to_owned(),
    }
}

#[track_caller]
fn assert_error(facts: &IoUringFacts, in_finding: &str, in_fix: &str) {
    let check = io_uring(facts);
    assert_eq!(check.status, Status::Error);
    assert!(check.finding.contains(in_finding), "{check:?}");
    assert!(check.fix.as_ref().unwrap().contains(in_fix), "{check:?}");
}

#[test]
fn kernel_versions() {
    for (release, status) in [
        ("6.12.9-amd64", Status::Ok),
        ("5.15.0", Status::Ok),
        ("5.14.21-150500.55", Status::Error),
        ("4.18.0-553.el8", Status::Error),
        ("6.1", Status::Ok),
        ("10.0-rc1", Status::Ok),
        ("weird", Status::Warning),
    ] {
        assert_eq!(kernel_version(release).status, status, "{release}");
    }
}

#[test]
fn a_sysctl_that_forbids_io_uring_is_named() {
    assert_error(
        &IoUringFacts {
            disabled: Some(2),
            ..failed(EPERM)
        },
        "is 2",
        "sysctl -w kernel.io_uring_disabled=0",
    );
    let group = IoUringFacts {
        disabled: Some(1),
        group: Some(986),
        ..failed(EPERM)
    };
    assert_error(&group, "is 1", "member of group 986");
    let no_group = IoUringFacts {
        disabled: Some(1),
        ..failed(EPERM)
    };
    assert_error(&no_group, "is 1", "kernel.io_uring_group=GID");
}

#[test]
fn a_sysctl_is_blamed_before_a_seccomp_filter() {
    let both = IoUringFacts {
        disabled: Some(2),
        seccomp: true,
        ..failed(EPERM)
    };
    assert_error(&both, "kernel.io_uring_disabled is 2", "sysctl");
}

#[test]
fn seccomp_answers_with_either_error_number() {
    let eperm = IoUringFacts {
        seccomp: true,
        ..failed(EPERM)
    };
    assert_error(&eperm, "seccomp filter blocks", "--security-opt seccomp=");
    let old_switchless = IoUringFacts {
        seccomp: true,
        disabled: None,
        ..failed(EPERM)
    };
    assert_error(
        &old_switchless,
        "seccomp filter blocks",
        "--security-opt seccomp=",
    );
    let enosys = IoUringFacts {
        seccomp: true,
        ..failed(ENOSYS)
    };
    assert_error(&enosys, "seccomp filter hides", "--security-opt seccomp=");
}

#[test]
fn an_old_kernel_is_told_from_one_built_without_io_uring() {
    let old = IoUringFacts {
        release: "4.19.0".to_owned(),
        ..failed(ENOSYS)
    };
    assert_error(&old, "too old", "5.15");
    assert_error(&failed(ENOSYS), "built without", "CONFIG_IO_URING=y");
}

#[test]
fn other_failures_keep_the_systems_words() {
    assert_error(&failed(EPERM), "security module", "AppArmor");
    assert_error(&failed(ENOMEM), "locked", "ulimit -l");
    assert_error(&failed(EMFILE), "descriptor", "ulimit -n");
    assert_error(&failed(5), "Input/output error", "dmesg");
}

#[test]
fn missing_operations_are_listed() {
    let works = |missing| IoUringFacts {
        probe: Probed::Works { missing },
        ..failed(0)
    };
    assert_eq!(io_uring(&works(vec![])).status, Status::Ok);
    assert_error(&works(vec!["STATX", "CLOSE"]), "STATX, CLOSE", "5.15");
}

#[test]
fn clock_sources() {
    let facts = |current: &str, available: &[&str]| ClockSourceFacts {
        current: Some(current.to_owned()),
        available: available.iter().map(|&name| name.to_owned()).collect(),
    };
    assert_eq!(clock_source(&facts("tsc", &["tsc", "hpet"])).status, Status::Ok);
    assert_eq!(clock_source(&facts("kvm-clock", &[])).status, Status::Ok);
    let hpet = clock_source(&facts("hpet", &["hpet", "tsc"]));
    assert_eq!(hpet.status, Status::Warning);
    assert!(hpet.fix.unwrap().contains("echo tsc >"));
    let stuck = clock_source(&facts("acpi_pm", &["acpi_pm"]));
    assert!(stuck.fix.unwrap().contains("dmesg"));
    assert_eq!(clock_source(&facts("new-thing", &[])).status, Status::Warning);
    assert_eq!(clock_source(&ClockSourceFacts::default()).status, Status::Warning);
}
