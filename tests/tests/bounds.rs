//! A node at its bounds: a full disk, data beyond the memory, a value that its log segments can't hold. Reads and
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

/// What no compression makes shorter.
const VALUE: [u8; 16 << 10] = noise();
const MIB: u64 = 1 << 20;

/// Bytes of xorshift (Marsaglia, "Xorshift RNGs", 2003).
const fn noise() -> [u8; 16 << 10] {
    let mut bytes = [0; 16 << 10];
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut place = 0;
    while place < bytes.len() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes[place] = (state >> 32) as u8;
        place += 1;
    }
    bytes
}

fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory is writable")
}

/// A file system of so many bytes, in a directory that lasts as long; `None`, and why, where none can be made.
fn disk_of(bytes: u64) -> Option<(TempDir, PowerDisk)> {
    if let Err(reason) = PowerDisk::available(FileSystem::Ext4) {
        println!("skipped: {reason}");
        return None;
    }
    let directory = directory();
    let disk = PowerDisk::create(directory.path(), bytes, FileSystem::Ext4).unwrap();
    Some((directory, disk))
}

/// A node on it, whose log has segments of this size.
fn node_on(disk: &PowerDisk, cores: u16, segment_size: &str) -> NodeCommand {
    NodeCommand::new(binary::for_tests(), &disk.mount_point().join("node"), cores)
        .shards(4)
        .argument("--segment-size")
        .argument(segment_size)
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

/// How long a disk has to be full before it counts as full: flushes may give the log's space back until then.
const FULL_FOR: Duration = Duration::from_secs(3);

/// Puts keys from 0 on, in turns with the other clients, until no more find room; returns those that were
/// acknowledged.
fn put_in_turns(client: &mut Client, turn: usize, turns: usize) -> Vec<usize> {
    let mut put = Vec::new();
    let mut refused_since = Instant::now();
    while refused_since.elapsed() < FULL_FOR {
        let number = put.len() * turns + turn;
        match client.put(&key(number), &VALUE) {
            Ok(_) => {
                put.push(number);
                refused_since = Instant::now();
            }
            refused => {
                let code = refusal(refused);
                assert!(matches!(code, ErrorCode::DiskFull | ErrorCode::Busy), "{code}");
            }
        }
    }
    put
}

/// Puts keys from 0 on until no more find room; returns how many were acknowledged.
fn put_until_full(client: &mut Client) -> usize {
    put_in_turns(client, 0, 1).len()
}

/// Puts keys from 0 on through many connections at once, until no more find room; returns those that were acknowledged.
fn put_by_many(node: &Node) -> Vec<usize> {
    let turns = 16;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..turns)
            .map(|turn| {
                let mut client = node.client(None).unwrap();
                scope.spawn(move || put_in_turns(&mut client, turn, turns))
            })
            .collect();
        let puts = threads.into_iter().flat_map(|thread| thread.join().unwrap());
        puts.collect()
    })
}

/// Does something again and again while a full disk or a full memtable refuses it, for half a minute at most.
#[track_caller]
fn patiently<T>(mut attempt: impl FnMut() -> Result<T, Error>) -> T {
    let begun = Instant::now();
    loop {
        match attempt() {
            Ok(done) => return done,
            refused => {
                let code = refusal(refused);
                assert!(matches!(code, ErrorCode::DiskFull | ErrorCode::Busy), "{code}");
                assert!(begun.elapsed() < Duration::from_secs(30), "{code} does not pass");
            }
        }
    }
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
        patiently(|| client.delete(&key(number)));
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
    let Some((_directory, disk)) = disk_of(160 * MIB) else {
        return;
    };
    let ballast = disk.mount_point().join("ballast");
    fs::write(&ballast, vec![1; 24 * MIB as usize]).unwrap();
    let command = node_on(&disk, 1, "1MiB");
    let node = start(&command);
    let mut client = node.client(None).unwrap();
    let put = put_until_full(&mut client);
    assert!(put > 300, "{put} values of 16 KiB filled the disk");
    assert_reads_and_deletes_go_on(&mut client, put, 50);

    fs::remove_file(&ballast).unwrap();
    patiently(|| client.put(&key(0), &VALUE));
    assert!(node.kill().status.code().is_none(), "it was killed");
    let node = start(&command);
    let mut client = node.client(None).unwrap();
    let expected: Vec<Vec<u8>> = [0].into_iter().chain(50..put).map(key).collect();
    assert_eq!(keys(&mut client), expected);
    drop(client);
    drop(node);
}

#[test]
fn on_a_full_disk_everything_can_be_deleted() {
    let Some((_directory, disk)) = disk_of(100 * MIB) else {
        return;
    };
    let command = node_on(&disk, 1, "1MiB");
    let node = start(&command);
    let mut client = node.client(None).unwrap();
    let put = put_until_full(&mut client);
    // One delete a batch of 4 KiB: they fill segments, which flushes have to give back.
    for number in 0..put {
        patiently(|| client.delete(&key(number)));
    }
    assert!(keys(&mut client).is_empty());
    // Nothing is stuck behind the refused ones: the end is a clean one.
    drop(client);
    let ended = node.terminate();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("gave up"), "{}", ended.stderr);
}

#[test]
fn however_fast_a_disk_is_filled_everything_can_be_deleted() {
    let Some((_directory, disk)) = disk_of(160 * MIB) else {
        return;
    };
    let command = node_on(&disk, 1, "1MiB");
    let node = start(&command);
    let put = put_by_many(&node);
    let mut client = node.client(None).unwrap();
    assert_eq!(keys(&mut client).len(), put.len());
    for number in put {
        patiently(|| client.delete(&key(number)));
    }
    assert!(keys(&mut client).is_empty());
}

#[test]
fn each_core_goes_on_through_starts_on_a_full_disk_of_a_few_segments() {
    // Each core has a segment in use and one in reserve, and 100 MiB are left for data.
    let Some((_directory, disk)) = disk_of(264 * MIB) else {
        return;
    };
    let command = node_on(&disk, 2, "16MiB");
    let node = start(&command);
    let mut put = put_by_many(&node);
    assert!(put.len() > 1000, "{} values of 16 KiB filled the disk", put.len());
    let mut node = Some(node);
    while !put.is_empty() {
        // A start makes new segments before it can free old ones.
        for _ in 0..3 {
            let killed = node.take().expect("it runs").kill();
            assert!(killed.status.code().is_none(), "it was killed");
            node = Some(start(&command));
        }
        let mut client = node.as_ref().expect("it runs").client(None).unwrap();
        assert_eq!(keys(&mut client).len(), put.len());
        let rest = put.split_off(put.len().min(2000));
        for number in core::mem::replace(&mut put, rest) {
            patiently(|| client.delete(&key(number)));
        }
    }
    let mut client = node.as_ref().expect("it runs").client(None).unwrap();
    assert!(keys(&mut client).is_empty());
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
        patiently(|| client.put(&key(number), &VALUE));
    }
    assert_reads_and_deletes_go_on(&mut client, put, 50);
    patiently(|| client.put(&key(0), &VALUE));
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

#[test]
fn writes_under_way_that_take_all_the_memory_are_waited_for() {
    let directory = directory();
    let command = NodeCommand::new(binary::for_tests(), &directory.path().join("node"), 1)
        .shards(4)
        .argument("--memory")
        .argument("16MiB");
    let node = start(&command);
    // More than the memtables of a core may hold, all at once.
    let threads = 64;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let mut client = node.client(None).unwrap();
            scope.spawn(move || {
                let value = VALUE.repeat(8);
                for number in 0..8 {
                    patiently(|| client.put(&key(thread * 100 + number), &value));
                }
            });
        }
    });
    let mut client = node.client(None).unwrap();
    assert_eq!(keys(&mut client).len(), threads * 8);
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
