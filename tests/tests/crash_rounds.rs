//! A few crash rounds with the built binary: kill -9 everywhere, loss of power where the machine allows it.
//!
//! Long runs of the same are started by the program `crash`.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it drives real processes and files"
)]

use std::path::Path;

use ostrakon_tests::crash::check::check;
use ostrakon_tests::crash::history::KeyHistory;
use ostrakon_tests::crash::value::{Identity, encode};
use ostrakon_tests::crash::{self, Failure, Mode, Moment, Settings};
use ostrakon_tests::process::{FileSystem, NodeCommand, PowerDisk, binary};

/// On the file system of the build directory, where direct IO works.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory is writable")
}

fn settings(mode: Mode, rounds: u32, directory: &Path) -> Settings {
    Settings {
        mode,
        moment: Moment::Acknowledged(300, 1500),
        rounds,
        directory: directory.to_owned(),
        binary: binary::for_tests().to_owned(),
        cores: 2,
        shards: 16,
        seed: 0x0571_AC0E,
        clients: 2,
        keys_per_client: 40,
        loadgen: None,
    }
}

fn run_without_violation(settings: &Settings) {
    let report = match crash::run(settings, &mut |line| println!("{line}")) {
        Ok(report) => report,
        Err(Failure::Unavailable(reason) | Failure::Failed(reason)) => panic!("{reason}"),
    };
    assert_eq!(report.all_violations().count(), 0, "{report}");
    assert_eq!(report.rounds.len(), settings.rounds as usize);
    assert!(
        report
            .rounds
            .iter()
            .all(|round| round.increments > 0 && round.plain_writes > 0),
        "{report}"
    );
    let last = report.rounds.last().expect("there was a round");
    assert!(last.recovered_entries > 0, "{report}");
    assert!(
        report.descriptors.len() >= usize::from(settings.cores),
        "{report}"
    );
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let directory = directory();
    run_without_violation(&settings(Mode::Kill, 3, directory.path()));
}

#[test]
fn nothing_acknowledged_is_lost_with_the_power() {
    if let Err(reason) = PowerDisk::available(FileSystem::Ext4) {
        println!("skipped: {reason}");
        return;
    }
    let directory = directory();
    let mode = Mode::Power {
        file_system: FileSystem::Ext4,
        // Each start of a core takes a segment of 64 MiB for good.
        image_bytes: 4 << 30,
    };
    run_without_violation(&settings(mode, 2, directory.path()));
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["node.stderr"], "the image and the mount point are gone");
}

#[test]
fn the_check_finds_lost_changed_and_stray_keys() {
    let directory = directory();
    let node = NodeCommand::new(binary::for_tests(), &directory.path().join("node"), 1)
        .shards(4)
        .start()
        .unwrap();
    let mut client = node.client(None).unwrap();
    let identity = Identity {
        attempt: 1,
        number: 1,
    };
    let mut write = |key: &[u8]| client.put(key, &encode(key, identity, 100)).unwrap();
    let version = write(b"kept");
    write(b"stray");
    let history = |key: &[u8], version| {
        let mut history = KeyHistory::new(key.to_vec());
        history.acknowledged(Some(identity), version, 0).unwrap();
        history
    };
    let (mut kept, mut lost) = (history(b"kept", version), history(b"lost", 77));
    let checked = check(&mut client, &mut [&mut kept, &mut lost], None).unwrap();
    let found: Vec<_> = checked
        .violations
        .iter()
        .map(|violation| violation.key.as_str())
        .collect();
    assert_eq!(found, ["lost", "stray"], "{:?}", checked.violations);

    let mut newer = history(b"kept", version + 1);
    let checked = check(&mut client, &mut [&mut newer], Some(b"st")).unwrap();
    assert_eq!(checked.violations.len(), 1, "{:?}", checked.violations);
    let checked = check(&mut client, &mut [&mut kept], Some(b"st")).unwrap();
    assert!(checked.violations.is_empty(), "{:?}", checked.violations);
}
