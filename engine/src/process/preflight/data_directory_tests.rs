//! Verdicts over made-up data directories, and one real one.

use super::*;
use crate::process::preflight::{Status, directory_on_disk};

const GIB: u64 = 1 << 30;

fn facts() -> DataDirectoryFacts {
    DataDirectoryFacts {
        directory: PathBuf::from("/srv/ostrakon/data"),
        probed: PathBuf::from("/srv/ostrakon"),
        writable: Ok(()),
        file_system: Some(FileSystem::Local("ext4")),
        direct_io: Some(DirectIo::Works {
            offset_alignment: 512,
            told: true,
        }),
        space_bytes: Some((50 * GIB, 100 * GIB)),
    }
}

#[track_caller]
fn assert_one(facts: &DataDirectoryFacts, name: &str, status: Status, words: &[&str]) {
    let checks = checks(facts);
    let found: Vec<_> = checks.iter().filter(|check| check.status != Status::Ok).collect();
    assert_eq!(found.len(), 1, "{checks:?}");
    assert_eq!((found[0].name, found[0].status), (name, status));
    for word in words {
        assert!(
            found[0].sentence().contains(word),
            "no '{word}' in: {}",
            found[0].sentence()
        );
    }
}

#[test]
fn a_good_place_has_nothing_but_ok() {
    assert!(checks(&facts()).iter().all(|check| check.status == Status::Ok));
    assert_eq!(checks(&facts()).len(), 4);
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error_with_its_path() {
    let closed = DataDirectoryFacts {
        writable: Err("Permission denied (os error 13)".to_owned()),
        direct_io: None,
        ..facts()
    };
    assert_one(
        &closed,
        "data directory",
        Status::Error,
        &["denied", "install -d -o USER /srv/ostrakon/data"],
    );
    let there = DataDirectoryFacts {
        probed: closed.directory.clone(),
        ..closed
    };
    assert_one(
        &there,
        "data directory",
        Status::Error,
        &["chown USER /srv/ostrakon/data"],
    );
}

#[test]
fn each_kind_of_file_system_has_its_verdict() {
    let on = |magic| DataDirectoryFacts {
        file_system: Some(FileSystem::from_magic(magic)),
        ..facts()
    };
    assert_one(
        &on(0x0102_1994),
        "file system",
        Status::Error,
        &["tmpfs", "--data"],
    );
    assert_one(
        &on(0x9123_683E),
        "file system",
        Status::Warning,
        &["btrfs", "chattr +C"],
    );
    assert_one(&on(0x2FC1_2FC1), "file system", Status::Warning, &["zfs"]);
    assert_one(
        &on(0x794C_7630),
        "file system",
        Status::Warning,
        &["container", "volume"],
    );
    assert_one(&on(0x6969), "file system", Status::Warning, &["nfs"]);
    assert_one(&on(0x1234), "file system", Status::Warning, &["0x1234"]);
    assert_one(
        &DataDirectoryFacts {
            file_system: None,
            ..facts()
        },
        "file system",
        Status::Warning,
        &["kind"],
    );
    assert!(
        checks(&on(0x5846_5342))
            .iter()
            .all(|check| check.status == Status::Ok)
    );
}

#[test]
fn direct_io_must_work_in_units_of_4096_bytes() {
    let with = |direct_io| DataDirectoryFacts {
        direct_io: Some(direct_io),
        ..facts()
    };
    let tried = with(DirectIo::Works {
        offset_alignment: 4096,
        told: false,
    });
    assert!(checks(&tried).iter().all(|check| check.status == Status::Ok));
    let coarse = with(DirectIo::TooCoarse {
        offset_alignment: 16_384,
    });
    assert_one(&coarse, "direct io", Status::Error, &["16384", "4096"]);
    let failed = with(DirectIo::Failed {
        action: "opening a file",
        error: "Invalid argument".to_owned(),
    });
    assert_one(
        &failed,
        "direct io",
        Status::Error,
        &["O_DIRECT", "Invalid argument", "ext4"],
    );
}

#[test]
fn space_runs_out_in_two_steps() {
    let left = |free| DataDirectoryFacts {
        space_bytes: Some((free, 100 * GIB)),
        ..facts()
    };
    assert_one(&left(3 * GIB), "disk space", Status::Warning, &["3.0 GiB free"]);
    assert_one(
        &left(GIB / 8),
        "disk space",
        Status::Warning,
        &["128.0 MiB free", "writes may be refused"],
    );
    assert_one(
        &DataDirectoryFacts {
            space_bytes: None,
            ..facts()
        },
        "disk space",
        Status::Warning,
        &["df /srv"],
    );
}

#[test]
fn a_directory_to_be_made_is_judged_by_the_nearest_above_it() {
    let parent = directory_on_disk();
    let found = collect(&parent.path().join("not/yet"));
    assert_eq!(found.probed, parent.path());
    assert_eq!(found.writable, Ok(()));
    assert!(found.direct_io.is_some() && found.space_bytes.is_some());
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
}

#[test]
fn a_file_in_the_way_is_not_a_writable_directory() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("file");
    std::fs::write(&path, "").unwrap();
    let found = collect(&path);
    assert!(found.writable.is_err(), "{found:?}");
}
