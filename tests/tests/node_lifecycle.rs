//! A node as its operator meets it: stopped, started twice, started on a directory that is wrong or damaged.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it drives real processes and files"
)]

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use ostrakon_client::ScanOptions;
use ostrakon_tests::process::{Node, NodeCommand, binary};
use tempfile::TempDir;

const BLOCK_BYTES: usize = 4096;

fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory is writable")
}

fn command(directory: &TempDir) -> NodeCommand {
    NodeCommand::new(binary::for_tests(), &directory.path().join("node"), 1).shards(4)
}

fn start(command: &NodeCommand) -> Node {
    command.start().unwrap_or_else(|refusal| panic!("{refusal}"))
}

/// Writes keys `0..count`, one log batch after the other.
fn fill(node: &Node, count: u32) {
    let mut client = node.client(None).unwrap();
    for number in 0..count {
        client
            .put(
                format!("key {number:04}").as_bytes(),
                format!("value {number}").repeat(50).as_bytes(),
            )
            .unwrap();
    }
}

/// The numbers of the keys that are there; each must have its own value.
fn numbers_there(node: &Node) -> Vec<u32> {
    let mut client = node.client(None).unwrap();
    let entries: Result<Vec<_>, _> = client.scan(ScanOptions::default()).collect();
    let number = |entry: ostrakon_client::Entry| {
        let number: u32 = String::from_utf8_lossy(&entry.key)["key ".len()..]
            .parse()
            .unwrap();
        assert_eq!(
            entry.value,
            format!("value {number}").repeat(50).as_bytes(),
            "key {number}"
        );
        number
    };
    entries.unwrap().into_iter().map(number).collect()
}

#[track_caller]
fn assert_says(sentence: &str, words: &[&str]) {
    for word in words {
        assert!(sentence.contains(word), "no {word:?} in: {sentence}");
    }
    assert!(!sentence.contains("panicked"), "{sentence}");
}

#[test]
fn sigterm_drains_and_a_restart_finds_everything() {
    let directory = directory();
    let node = start(&command(&directory));
    fill(&node, 50);
    let cluster = node.greeting().cluster.clone();
    let ended = node.terminate();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert_says(&ended.stderr, &["SIGTERM", "drained"]);
    let node = start(&command(&directory));
    assert_eq!(node.greeting().cluster, cluster);
    assert!(node.greeting().recovered_entries >= 50, "{:?}", node.greeting());
    assert_eq!(numbers_there(&node), (0..50).collect::<Vec<_>>());
}

#[test]
fn a_second_node_in_the_same_directory_is_refused() {
    let directory = directory();
    let node = start(&command(&directory));
    let refusal = command(&directory).refusal();
    assert_eq!(
        refusal.status.and_then(|status| status.code()),
        Some(1),
        "{refusal}"
    );
    assert_says(
        &refusal.stderr,
        &[&format!("in use by process {}", node.process_id()), "--data"],
    );
    fill(&node, 3);
    node.kill();
    assert_eq!(numbers_there(&start(&command(&directory))), [0, 1, 2]);
}

#[test]
fn another_number_of_shards_is_refused() {
    let directory = directory();
    fill(&start(&command(&directory)), 3);
    let refusal = command(&directory).shards(8).refusal();
    assert_says(&refusal.stderr, &["shards", "4", "8"]);
    assert_eq!(numbers_there(&start(&command(&directory))), [0, 1, 2]);
}

#[test]
fn logs_without_an_identity_are_refused() {
    let directory = directory();
    fill(&start(&command(&directory)), 3);
    let data = directory.path().join("node");
    fs::rename(data.join("node"), directory.path().join("identity")).unwrap();
    let refusal = command(&directory).refusal();
    assert_says(&refusal.stderr, &[&data.display().to_string(), "node"]);
    fs::rename(directory.path().join("identity"), data.join("node")).unwrap();
    assert_eq!(numbers_there(&start(&command(&directory))), [0, 1, 2]);
}

#[test]
fn a_flipped_byte_inside_the_log_is_named_and_never_served() {
    let directory = directory();
    let node = start(&command(&directory));
    fill(&node, 200);
    let ended = node.terminate();
    assert!(ended.status.success(), "{ended:?}");
    let segment = first_segment(&directory.path().join("node/log/0000"));
    let bytes = fs::read(&segment).unwrap();
    let used_blocks = bytes
        .chunks(BLOCK_BYTES)
        .filter(|block| block.iter().any(|byte| *byte != 0))
        .count();
    let damaged_at = used_blocks / 2 * BLOCK_BYTES + 200;
    let file = fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(&[bytes[damaged_at] ^ 0x10], damaged_at as u64)
        .unwrap();

    let refusal = command(&directory).refusal();
    let batch_offset = damaged_at / BLOCK_BYTES * BLOCK_BYTES;
    assert_says(
        &refusal.stderr,
        &[
            &segment.display().to_string(),
            &batch_offset.to_string(),
            "--cut-corrupt-log",
        ],
    );
    let refusal = command(&directory).refusal();
    assert_says(&refusal.stderr, &[&segment.display().to_string()]);

    let node = start(&command(&directory).argument("--cut-corrupt-log"));
    let there = numbers_there(&node);
    assert!(there.len() > 50 && there.len() < 150, "{}", there.len());
    assert_eq!(
        there,
        (0..there.len() as u32).collect::<Vec<_>>(),
        "what was before the damage"
    );
    node.kill();
    assert_eq!(
        numbers_there(&start(&command(&directory))),
        there,
        "the cut is for ever"
    );
}

fn first_segment(log: &Path) -> PathBuf {
    let mut segments: Vec<PathBuf> = fs::read_dir(log)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    // The second is prepared for when the first is full, and holds nothing.
    segments.sort();
    segments.swap_remove(0)
}
