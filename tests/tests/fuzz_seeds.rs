//! The seeds of the fuzzers: they are what the code makes, and no decoder panics on them or on small changes of them.
//! So what the fuzzers check is checked a little in every run of the tests, without a fuzzer.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it reads and writes files of the repository"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use ostrakon_tests::fuzz::{TARGETS, seeds};
use ostrakon_tests::tidy::repository;

/// What to do when the folders differ.
const ADVICE: &str =
    "write them with `OSTRAKON_WRITE_SEEDS=1 cargo test -p ostrakon-tests --test fuzz_seeds`";
/// Set: the seeds are written instead of compared.
const WRITE: &str = "OSTRAKON_WRITE_SEEDS";

fn folder(target: &str) -> PathBuf {
    repository::root().join("tests/fuzz/seeds").join(target)
}

/// The files of a target by name.
fn written(target: &str) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder(target)) else {
        return BTreeMap::new();
    };
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.expect("the folder can be listed").path();
        let name = path
            .file_name()
            .expect("an entry has a name")
            .to_string_lossy()
            .into_owned();
        (
            name,
            fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        )
    };
    entries.map(entry).collect()
}

#[test]
fn the_folders_hold_the_seeds() {
    for (target, _) in TARGETS {
        let seeds = seeds::of(target);
        let count = seeds.len();
        let expected: BTreeMap<_, _> = seeds.into_iter().collect();
        assert_eq!(expected.len(), count, "two seeds of {target} have one name");
        let differs = written(target) != expected;
        assert!(
            !differs,
            "tests/fuzz/seeds/{target} does not hold the seeds of this version: {ADVICE}"
        );
    }
}

/// Writes the folders anew, if that is asked for.
#[test]
fn the_seeds_are_written_on_request() {
    if std::env::var_os(WRITE).is_none() {
        return;
    }
    for (target, _) in TARGETS {
        let folder = folder(target);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for (name, bytes) in seeds::of(target) {
            fs::write(folder.join(name), bytes).expect("the folder was just made");
        }
    }
}

#[test]
fn no_decoder_panics_on_a_seed_or_a_small_change_of_it() {
    for (target, decode) in TARGETS {
        for (_, bytes) in seeds::of(target) {
            decode(&bytes);
            for at in 0..bytes.len() {
                decode(&bytes[..at]);
                for changed in [0, 1, 0x7F, 0xFF, bytes[at].wrapping_add(1), bytes[at] ^ 0x80] {
                    let mut bytes = bytes.clone();
                    bytes[at] = changed;
                    decode(&bytes);
                }
            }
        }
    }
}

#[test]
fn every_target_has_its_binary() {
    let manifest = fs::read_to_string(repository::root().join("tests/fuzz/Cargo.toml")).expect("it is there");
    let binaries: Vec<&str> = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("name = \""))
        .skip(1)
        .collect();
    let targets: Vec<String> = TARGETS.iter().map(|(name, _)| format!("{name}\"")).collect();
    assert_eq!(binaries, targets);
    for (name, _) in TARGETS {
        let path = repository::root().join(format!("tests/fuzz/targets/{name}.rs"));
        let entry = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(
            entry.contains("ostrakon_tests::fuzz::"),
            "{} calls no target",
            path.display()
        );
    }
}
