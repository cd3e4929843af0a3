//! Backups of real nodes: what is restored is what a scan at the moment of the backup had, whatever was written
//! meanwhile, and whatever is damaged is named.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it drives real processes and files"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use ostrakon_client::{Answer, Client, Error, ErrorCode, PutEntry, Request, ScanOptions, ScanRequest};
use ostrakon_tests::process::{Node, NodeCommand, binary};
use serde_json::Value as Json;
use tempfile::TempDir;

/// Keys of the nodes here.
const KEYS: u32 = 12_000;
/// What is written with a time to live lives that long.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Each key's value, and whether it expires.
type Content = BTreeMap<Vec<u8>, (Vec<u8>, bool)>;

/// Room for nodes and backups.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Place {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        Place {
            directory: directory.expect("the build directory is writable"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn backups(&self) -> PathBuf {
        self.path("backups")
    }

    fn node(&self, name: &str, cores: u16, shards: u32) -> Node {
        let command = NodeCommand::new(binary::for_tests(), &self.path(name), cores).shards(shards);
        command.start().unwrap_or_else(|refusal| panic!("{refusal}"))
    }

    /// Runs a command about the backups.
    fn run(&self, node: &Node, command: &str, arguments: &[&str]) -> Output {
        Command::new(binary::for_tests())
            .arg(command)
            .arg(self.backups())
            .args(arguments)
            .args(["--json", "--connect", node.address()])
            .output()
            .expect("the program starts")
    }

    #[track_caller]
    fn done(&self, node: &Node, command: &str, arguments: &[&str]) -> Json {
        let output = self.run(node, command, arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        serde_json::from_slice(&output.stdout).expect("one JSON object")
    }

    #[track_caller]
    fn refused(&self, node: &Node, command: &str, arguments: &[&str], words: &str) {
        let output = self.run(node, command, arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(words), "no '{words}' in: {stderr}");
    }

    /// The files of tables in the backups.
    fn tables(&self) -> Vec<PathBuf> {
        files_in(&self.backups().join("shard"))
    }

    /// Backups there are.
    fn catalogues(&self) -> usize {
        let names = fs::read_dir(self.backups()).expect("a directory");
        let is_catalogue = |name: &str| name.ends_with(".catalogue");
        names
            .filter(|entry| {
                let name = entry.as_ref().expect("an entry").file_name();
                is_catalogue(&name.to_string_lossy())
            })
            .count()
    }
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn client(node: &Node) -> Client {
    node.client(None).expect("the node answers")
}

fn key(number: u32) -> Vec<u8> {
    format!("key {number:08}").into_bytes()
}

/// Bytes that compress badly.
fn value(number: u32, round: u32) -> Vec<u8> {
    let mut state = u64::from(number) << 32 | u64::from(round) | 1;
    let bytes = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    bytes.take(200).collect()
}

/// Writes all keys, some of them for a while.
fn load(node: &Node, numbers: std::ops::Range<u32>, round: u32) {
    let mut client = client(node);
    let numbers: Vec<u32> = numbers.collect();
    for some in numbers.chunks(500) {
        let pairs: Vec<_> = some
            .iter()
            .map(|number| (key(*number), value(*number, round)))
            .collect();
        let entries: Vec<PutEntry<'_>> = some
            .iter()
            .zip(&pairs)
            .map(|(number, (key, value))| PutEntry {
                key,
                value,
                ttl_ms: if number.is_multiple_of(10) { DAY_MS } else { 0 },
            })
            .collect();
        let mut pipeline = client.pipeline();
        let request = Request::MultiPut {
            entries: entries[..].into(),
            retry: None,
        };
        let ticket = pipeline.submit(&request).expect("it is sent");
        match pipeline.wait(ticket).expect("it is answered") {
            Answer::MultiPut(written) => assert!(written.results.iter().all(Result::is_ok)),
            other => panic!("{other:?}"),
        }
    }
}

/// The node's content at a timestamp; at 0 now.
fn content(node: &Node, snapshot: u64) -> Content {
    let mut client = client(node);
    let mut content = Content::new();
    let (mut start, mut snapshot) = (Vec::new(), snapshot);
    loop {
        let mut pipeline = client.pipeline();
        let scan = ScanRequest {
            start: &start,
            snapshot,
            ..ScanRequest::ALL
        };
        let ticket = pipeline.submit(&Request::Scan(scan)).expect("it is sent");
        let Answer::Scan(page) = pipeline.wait(ticket).expect("it is answered") else {
            panic!("a scan is answered with a page")
        };
        snapshot = page.snapshot;
        for entry in page.entries {
            content.insert(entry.key, (entry.value, entry.expires != 0));
        }
        match page.resume_key {
            Some(resume_key) => start = resume_key,
            None => return content,
        }
    }
}

fn number(json: &Json, field: &str) -> u64 {
    json[field]
        .as_u64()
        .unwrap_or_else(|| panic!("no {field} in {json}"))
}

/// The number by which a backup is named.
fn snapshot(backup: &Json) -> u64 {
    let text = backup["backup"].as_str().expect("it has a number");
    text.parse().expect("it is a number")
}

/// Says that it is over when it is dropped, also by a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Overwrites and deletes until it is over.
fn write_on(node: &Node, is_over: &AtomicBool) {
    let mut client = client(node);
    for round in 1.. {
        for number in (0..KEYS).step_by(7) {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            let number = (number + round) % KEYS;
            if number.is_multiple_of(3) {
                client.delete(&key(number)).expect("a delete");
            } else {
                client.put(&key(number), &value(number, round)).expect("a put");
            }
        }
    }
}

#[test]
fn what_is_restored_is_what_a_scan_had_at_the_time_of_the_backup() {
    let place = Place::new();
    let node = place.node("node", 2, 8);
    load(&node, 0..KEYS, 0);
    let is_over = AtomicBool::new(false);
    let (first, at_first) = std::thread::scope(|scope| {
        let over = Over(&is_over);
        scope.spawn(|| write_on(&node, &is_over));
        let backup = place.done(&node, "backup", &[]);
        let content = content(&node, snapshot(&backup));
        drop(over);
        (backup, content)
    });
    assert!(
        number(&first, "tables_shared") == 0 && number(&first, "bytes_copied") == number(&first, "bytes")
    );

    // Little changes: tables are shared.
    for number in 0..40 {
        client(&node).delete(&key(number * 5)).expect("a delete");
    }
    let second = place.done(&node, "backup", &[]);
    let at_second = content(&node, snapshot(&second));
    assert!(at_first != at_second);
    assert!(number(&second, "tables_shared") > 0, "{second}");
    assert!(
        number(&second, "bytes_copied") < number(&second, "bytes"),
        "{second}"
    );
    let listed = place.run(&node, "backup", &["--list"]);
    assert_eq!(String::from_utf8_lossy(&listed.stdout).lines().count(), 2);

    // Other numbers of shards and cores.
    let other = place.node("other", 3, 16);
    let at = snapshot(&first).to_string();
    let restored = place.done(&other, "restore", &["--at", &at]);
    assert_eq!(number(&restored, "entries"), at_first.len() as u64);
    assert!(content(&other, 0) == at_first);
    place.done(&other, "restore", &["--verify", "--at", &at]);
    let newest = place.node("newest", 1, 4);
    place.done(&newest, "restore", &[]);
    assert!(content(&newest, 0) == at_second);

    // A difference is found, and named.
    client(&newest).put(&key(1), b"another").expect("a put");
    place.refused(&newest, "restore", &["--verify"], "key 00000001");
    // Nothing is mixed unasked.
    place.refused(&newest, "restore", &[], "--overwrite");
    place.done(&newest, "restore", &["--overwrite"]);
    place.done(&newest, "restore", &["--verify"]);
}

#[test]
fn what_is_damaged_is_named_and_not_restored() {
    let place = Place::new();
    let node = place.node("node", 1, 2);
    load(&node, 0..500, 0);
    place.done(&node, "backup", &[]);
    let other = place.node("other", 1, 2);
    let flip = |path: &Path, offset: u64| {
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(path)
            .expect("a file");
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).expect("a byte");
        file.write_all_at(&[byte[0] ^ 1], offset).expect("a byte");
    };
    let tables = place.tables();
    assert!(!tables.is_empty());
    for path in &tables {
        let name = path.file_name().expect("a name").to_string_lossy();
        flip(path, 100);
        place.refused(&other, "restore", &[], &name);
        flip(path, 100);
    }
    let length = fs::metadata(&tables[0]).expect("a file").len();
    let file = fs::File::options().write(true).open(&tables[0]).expect("a file");
    file.set_len(length - 4096).expect("it can be cut");
    let name = tables[0].file_name().expect("a name").to_string_lossy();
    place.refused(&other, "restore", &[], &name);
    assert_eq!(content(&other, 0), Content::new(), "nothing was written");
    let is_catalogue = |path: &&PathBuf| path.extension().is_some_and(|end| end == "catalogue");
    let files = files_in(&place.backups());
    let catalogue = files.iter().find(is_catalogue).expect("there is one");
    flip(catalogue, 50);
    let name = catalogue.file_name().expect("a name").to_string_lossy();
    place.refused(&other, "restore", &[], &name);
    place.refused(&node, "backup", &[], &name);
    flip(catalogue, 50);
    // The cut table is not taken for a good one.
    let again = place.done(&node, "backup", &[]);
    assert!(number(&again, "tables") - number(&again, "tables_shared") >= 1);
    place.done(&other, "restore", &[]);
    assert!(content(&other, 0) == content(&node, 0));
}

/// Runs a backup that may write no file longer than so many blocks of 512 or 1024 bytes: the system ends the program
/// in the middle of one, or fails the write if `is_told`.
fn cut_short(place: &Place, node: &Node, is_told: bool) -> Output {
    let ignore = if is_told { "trap '' XFSZ; " } else { "" };
    let script = format!("{ignore}ulimit -c 0; ulimit -f 16; exec \"$0\" \"$@\"");
    Command::new("sh")
        .args(["-c", &script])
        .arg(binary::for_tests())
        .arg("backup")
        .arg(place.backups())
        .args(["--connect", node.address()])
        .output()
        .expect("the program starts")
}

#[test]
fn a_backup_that_is_cut_short_counts_for_nothing_and_the_next_one_works() {
    let place = Place::new();
    let node = place.node("node", 2, 4);
    load(&node, 0..2_000, 0);
    for _ in 0..3 {
        let killed = cut_short(&place, &node, false);
        assert_eq!(killed.status.signal(), Some(25), "by SIGXFSZ: {killed:?}");
    }
    assert!(!place.tables().is_empty(), "it was killed in the middle");
    assert_eq!(place.catalogues(), 0);
    let other = place.node("other", 1, 2);
    place.refused(&other, "restore", &[], "has no backup");
    // What was killed has released nothing.
    assert_eq!(checkpoints(&place, "node").len(), 1);

    let failed = cut_short(&place, &node, true);
    let stderr = String::from_utf8_lossy(&failed.stderr);
    assert!(
        failed.status.code() == Some(1) && stderr.contains("cannot write"),
        "{stderr}"
    );
    assert_eq!(place.tables(), Vec::<PathBuf>::new(), "it has tidied up");
    assert_eq!(checkpoints(&place, "node"), Vec::<PathBuf>::new());

    place.done(&node, "backup", &[]);
    assert_eq!(checkpoints(&place, "node"), Vec::<PathBuf>::new());
    place.done(&other, "restore", &[]);
    assert!(content(&other, 0) == content(&node, 0));
}

/// The checkpoints of a node.
fn checkpoints(place: &Place, node: &str) -> Vec<PathBuf> {
    let directory = place.path(node).join("checkpoint");
    let entries = fs::read_dir(directory).expect("there were checkpoints");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn nodes_without_keys_or_without_work_can_be_backed_up() {
    let place = Place::new();
    let node = place.node("node", 2, 4);
    let empty = place.done(&node, "backup", &[]);
    let other = place.node("other", 1, 8);
    let restored = place.done(&other, "restore", &[]);
    assert_eq!(number(&restored, "entries"), 0);
    place.done(&other, "restore", &["--verify"]);
    load(&node, 0..300, 0);
    let idle = [place.done(&node, "backup", &[]), place.done(&node, "backup", &[])];
    place.done(&other, "restore", &[]);
    assert!(content(&other, 0) == content(&node, 0));

    // Old ones go, and what only they had.
    place.done(&node, "backup", &["--keep", "2"]);
    assert_eq!(place.catalogues(), 2);
    place.refused(
        &node,
        "backup",
        &["--delete", &snapshot(&empty).to_string()],
        "has no backup",
    );
    let left = snapshot(&idle[1]).to_string();
    let deleted = place.run(&node, "backup", &["--delete", &left]);
    assert!(deleted.status.success());
    assert_eq!(place.catalogues(), 1);
    place.done(&node, "restore", &["--verify"]);
    // Another node's backups are not mixed with these.
    place.refused(&other, "backup", &[], "name another directory");
}

#[test]
fn a_checkpoint_keeps_its_tables_until_it_is_released_or_the_node_starts_again() {
    let place = Place::new();
    let node = place.node("node", 2, 4);
    load(&node, 0..500, 0);
    let mut client = client(&node);
    let made: Vec<_> = (1..=8)
        .map(|id| client.make_checkpoint(id).expect("a checkpoint"))
        .collect();
    assert_eq!(checkpoints(&place, "node").len(), 8);
    assert!(made.is_sorted_by(|one, next| one.snapshot < next.snapshot));
    for refused in [client.make_checkpoint(9), client.make_checkpoint(8)] {
        let Err(Error::Server { code, message, .. }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(code, ErrorCode::CheckpointFailed, "{message}");
    }
    let directory = Path::new(&made[0].directory);
    assert!(directory.is_absolute());
    let tables: usize = made[0].shards.iter().map(|shard| shard.tables as usize).sum();
    // A manifest for each shard.
    let files = files_in(directory);
    assert_eq!(files.len(), tables + 4);
    let before: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).expect("a file")).collect();
    for round in 0..3 {
        load(&node, 0..500, round);
        client
            .release_checkpoint(2 + u64::from(round))
            .expect("it is released");
        client
            .make_checkpoint(20 + u64::from(round))
            .expect("a checkpoint");
    }
    let after: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).expect("a file")).collect();
    assert!(before == after);
    client.release_checkpoint(1).expect("it is released");
    client
        .release_checkpoint(1)
        .expect("there is none, which is as well");
    assert!(!directory.exists());
    assert_eq!(checkpoints(&place, "node").len(), 7);
    client.put(b"k", b"v").expect("the node goes on");
    node.kill();
    let node = place.node("node", 3, 4);
    assert!(!place.path("node").join("checkpoint").exists());
    assert_eq!(
        node.client(None)
            .expect("it answers")
            .scan(ScanOptions::default())
            .count(),
        501
    );
}
