//! A node at its bounds: a full disk, a full memory budget, a value that its log segments can't hold. Reads and
//! deletes go on, and nothing acknowledged is lost.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it drives real processes and files"
)]

use std::fs;
use std::time::{Duration, Instant};

use ostrakon_client::{Client, Error, ErrorCode, ScanOptions};
use ostrakon_tests::process::{FileSystem, Node, NodeCommand, PowerDisk, binary};
use tempfile::TempDir;

const VALUE: [u8; 16 << 10] = [7; 16 << 10];
const MIB: u64 = 1 << 20;

fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory is writable")
}

fn start(command: &NodeCommand) -> Node {
    command.start().unwrap_or_else(|refusal| panic!("{refusal}"))
}

fn key(number: usize) -> Vec<u8> {
    format!("key {number:05}").into_bytes()
}

#[track_caller]
fn refusal<T>(outcome: Result<T, Error>) -> ErrorCode {
    match outcome {
        Err(Error::Server { code, .. }) => code,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("not refused"),
    }
}

/// Puts keys from 0 on until one is refused with `code`; returns how many were acknowledged.
fn put_until_refused(client: &mut Client, code: ErrorCode) -> usize {
    for number in 0.. {
        match client.put(&key(number), &VALUE) {
            Ok(_) => {}
            refused => {
                assert_eq!(refusal(refused), code);
                return number;
            }
        }
    }
    unreachable!("it fills up at last")
}

fn keys(client: &mut Client) -> Vec<Vec<u8>> {
    let options = ScanOptions {
        keys_only: true,
        ..ScanOptions::default()
    };
    let entries: Result<Vec<_>, _> = client.scan(options).collect();
    entries
        .expect("scans go on")
        .into_iter()
        .map(|entry| entry.key)
        .collect()
}

fn assert_reads_and_deletes_go_on(client: &mut Client, put: usize, deleted: usize) {
    for number in 0..deleted {
        client.delete(&key(number)).expect("deletes go on");
        let found = client.get(&key(number)).expect("gets go on");
        assert!(found.is_none(), "key {number} is deleted");
    }
    let rest: Vec<Vec<u8>> = (deleted..put).map(key).collect();
    for _ in 0..20 {
        assert_eq!(keys(client), rest);
    }
    let last = client.get(&key(put - 1)).expect("gets go on");
    assert_eq!(last.expect("it was acknowledged").value, VALUE);
}

#[test]
fn on_a_full_disk_reads_and_deletes_go_on_and_puts_resume_by_themselves() {
    if let Err(reason) = PowerDisk::available(FileSystem::Ext4) {
        println!("skipped: {reason}");
        return;
    }
    let directory = directory();
    let disk = PowerDisk::create(directory.path(), 160 * MIB, FileSystem::Ext4).unwrap();
    let ballast = disk.mount_point().join("ballast");
    fs::write(&ballast, vec![1; 24 * MIB as usize]).unwrap();
    let command = NodeCommand::new(binary::for_tests(), &disk.mount_point().join("node"), 1)
        .shards(4)
        .argument("--segment-size")
        .argument("1MiB");
    let node = start(&command);
    let mut client = node.client(None).unwrap();
    let put = put_until_refused(&mut client, ErrorCode::DiskFull);
    assert!(put > 300, "{put} values of 16 KiB filled the disk");
    assert_reads_and_deletes_go_on(&mut client, put, 50);
    assert_eq!(refusal(client.put(b"other", b"value")), ErrorCode::DiskFull);

    fs::remove_file(&ballast).unwrap();
    let begun = Instant::now();
    while let Err(error) = client.put(&key(0), &VALUE) {
        let Error::Server {
            code: ErrorCode::DiskFull,
            ..
        } = error
        else {
            panic!("{error}")
        };
        assert!(begun.elapsed() < Duration::from_secs(30), "writes do not resume");
    }
    assert!(node.kill().status.code().is_none(), "it was killed");
    let node = start(&command);
    let mut client = node.client(None).unwrap();
    let expected: Vec<Vec<u8>> = [0].into_iter().chain(50..put).map(key).collect();
    assert_eq!(keys(&mut client), expected);
    drop(client);
    drop(node);
}

#[test]
fn deletes_go_on_after_a_disk_was_full_until_the_last_segment_is_and_are_refused_then() {
    if let Err(reason) = PowerDisk::available(FileSystem::Ext4) {
        println!("skipped: {reason}");
        return;
    }
    let directory = directory();
    let disk = PowerDisk::create(directory.path(), 100 * MIB, FileSystem::Ext4).unwrap();
    let command = NodeCommand::new(binary::for_tests(), &disk.mount_point().join("node"), 1)
        .shards(4)
        .argument("--segment-size")
        .argument("1MiB");
    let node = start(&command);
    let mut client = node.client(None).unwrap();
    let put = put_until_refused(&mut client, ErrorCode::DiskFull);
    let mut deleted = 0;
    let refused = loop {
        match client.delete(&key(deleted % put)) {
            Ok(_) => deleted += 1,
            refused => break refusal(refused),
        }
        assert!(
            deleted < 1000,
            "one delete a batch of 4 KiB fills a segment of 1 MiB"
        );
    };
    assert_eq!(refused, ErrorCode::DiskFull);
    assert!(deleted >= 64, "{deleted} deletes went on");
    let left = put.saturating_sub(deleted);
    for _ in 0..20 {
        assert_eq!(keys(&mut client).len(), left, "scans still go on");
    }
    // Nothing is stuck behind the refused ones: the end is a clean one.
    drop(client);
    let ended = node.terminate();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("gave up"), "{}", ended.stderr);
}

#[test]
fn data_may_be_many_times_as_large_as_the_memory() {
    let directory = directory();
    let command = NodeCommand::new(binary::for_tests(), &directory.path().join("node"), 1)
        .shards(4)
        .argument("--memory")
        .argument("16MiB");
    let node = start(&command);
    let mut client = node.client(None).unwrap();
    let put = 6_000;
    for number in 0..put {
        put_patiently(&mut client, number);
    }
    assert_reads_and_deletes_go_on(&mut client, put, 50);
    put_patiently(&mut client, 0);
    assert!(node.kill().status.code().is_none(), "it was killed");
    let node = start(&command);
    let mut client = node.client(None).unwrap();
    let expected: Vec<Vec<u8>> = [0].into_iter().chain(50..put).map(key).collect();
    assert_eq!(keys(&mut client), expected);
    for number in (50..put).step_by(97) {
        let found = client.get(&key(number)).unwrap().expect("it was acknowledged");
        assert_eq!(found.value, VALUE);
    }
}

/// Puts, again and again while memtables wait to be flushed.
fn put_patiently(client: &mut Client, number: usize) {
    loop {
        match client.put(&key(number), &VALUE) {
            Ok(_) => return,
            Err(Error::Server {
                code: ErrorCode::Busy,
                ..
            }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn small_segments_bound_the_values_and_the_hello_says_so() {
    let directory = directory();
    let command = NodeCommand::new(binary::for_tests(), &directory.path().join("node"), 2)
        .shards(4)
        .argument("--segment-size")
        .argument("1MiB");
    let node = start(&command);
    let mut client = node.client(None).unwrap();
    let largest = client.server().value_bytes_max as usize;
    assert!((200 << 10..256 << 10).contains(&largest), "{largest}");
    let value = vec![9; largest];
    let long_key = vec![b'k'; client.server().key_bytes_max as usize];
    for number in 0..20 {
        client.put(&key(number), &value).expect("it fits");
    }
    client.put(&long_key, &value).expect("it fits");
    let too_large = vec![9; largest + 10_000];
    assert_eq!(refusal(client.put(&key(0), &too_large)), ErrorCode::TooLarge);
    drop(client);
    node.kill();
    let node = start(&command);
    let mut client = node.client(None).unwrap();
    assert_eq!(keys(&mut client).len(), 21);
    for number in 0..20 {
        let found = client.get(&key(number)).unwrap().expect("it was acknowledged");
        assert!(found.value == value);
    }
}
