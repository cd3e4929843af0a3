//! `ostrakon check` and `ostrakon inspect` on what a real node has stored, and the scrub of one that runs.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it drives real processes and files"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use ostrakon_client::{Client, Error, ErrorCode};
use ostrakon_tests::process::{Node, NodeCommand, binary};
use serde_json::Value as Json;
use tempfile::TempDir;

/// Longer than any test takes.
const PATIENCE: Duration = Duration::from_mins(1);

/// A data directory of a node that has flushed and merged.
struct Place {
    directory: TempDir,
    command: NodeCommand,
}

impl Place {
    fn data(&self) -> PathBuf {
        self.directory.path().join("node")
    }

    fn start(&self) -> Node {
        self.command.start().unwrap_or_else(|refusal| panic!("{refusal}"))
    }

    fn check(&self, arguments: &[&str]) -> Output {
        run(Command::new(binary::for_tests())
            .args(["check", "--data"])
            .arg(self.data())
            .args(arguments))
    }

    /// The exit code, and the objects that are printed by their kind.
    fn checked(&self) -> (Option<i32>, BTreeMap<String, Vec<Json>>) {
        let output = self.check(&["--json"]);
        let mut objects: BTreeMap<String, Vec<Json>> = BTreeMap::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let object: Json = serde_json::from_str(line).expect("each line is JSON");
            let kind = object["kind"]
                .as_str()
                .expect("each object has a kind")
                .to_owned();
            objects.entry(kind).or_default().push(object);
        }
        assert_eq!(objects["summary"].len(), 1, "{output:?}");
        (output.status.code(), objects)
    }

    fn assert_clean(&self) -> Json {
        let (code, objects) = self.checked();
        assert_eq!(code, Some(0), "{objects:?}");
        assert_eq!(objects["summary"][0]["damages"], 0);
        assert!(!objects.contains_key("damage"), "{objects:?}");
        objects["summary"][0].clone()
    }

    /// Files below a directory of the data directory, in order.
    fn files(&self, below: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for directory in fs::read_dir(self.data().join(below)).unwrap() {
            let inside = fs::read_dir(directory.unwrap().path()).unwrap();
            files.extend(inside.map(|entry| entry.unwrap().path()));
        }
        files.sort();
        files
    }

    fn tables(&self) -> Vec<PathBuf> {
        let mut files = self.files("shard");
        files.retain(|path| path.extension().is_some_and(|extension| extension == "sst"));
        files
    }

    /// The newest segment that begins with a batch of its own.
    fn segment(&self) -> PathBuf {
        let begun = |path: &PathBuf| {
            let bytes = fs::read(path).unwrap();
            let sequence = u64::from_le_bytes(bytes[16..24].try_into().unwrap());
            bytes.starts_with(b"OSTB") && path.ends_with(format!("{sequence:016x}.seg"))
        };
        let files = self.files("log");
        files.into_iter().rfind(begun).expect("a log has begun")
    }

    /// All that a check must leave as it is.
    fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = self.files("log").into_iter().chain(self.files("shard"));
        let files = files.chain([self.data().join("node")]);
        files
            .map(|path| (path.clone(), fs::read(&path).unwrap()))
            .collect()
    }
}

fn run(command: &mut Command) -> Output {
    command
        .env_remove("RUST_LOG")
        .output()
        .expect("the program starts")
}

fn inspect(kind: &str, file: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(Command::new(binary::for_tests())
        .args(["inspect", kind])
        .arg(file)
        .args(arguments));
    let text = String::from_utf8(output.stdout).expect("what is printed is text");
    (output.status.code(), text)
}

fn key(number: u64) -> Vec<u8> {
    format!("key:{number:05}").into_bytes()
}

/// Puts what may have to wait for a flush.
fn put(client: &mut Client, number: u64) {
    let value = [&number.to_le_bytes()[..], &[number as u8; 3000]].concat();
    let begun = Instant::now();
    loop {
        match client.put(&key(number), &value) {
            Ok(_) => return,
            Err(Error::Server {
                code: ErrorCode::Busy,
                ..
            }) if begun.elapsed() < PATIENCE => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// 3,000 keys of 3 KB in a node with 16 MiB, which has ended cleanly.
fn loaded() -> Place {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let command = NodeCommand::new(binary::for_tests(), &directory.path().join("node"), 1)
        .shards(4)
        .argument("--memory")
        .argument("16MiB")
        .argument("--segment-size")
        .argument("1MiB");
    let place = Place { directory, command };
    let node = place.start();
    let mut client = node.client(None).unwrap();
    (0..3_000).for_each(|number| put(&mut client, number));
    drop(client);
    let ended = node.terminate();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(place.tables().len() > 3, "{:?}", place.tables());
    place
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1 << (at % 8);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_directory_is_clean_however_its_node_ended() {
    let place = loaded();
    let before = place.contents();
    let summary = place.assert_clean();
    assert!(place.contents() == before, "a check changes nothing");
    let count = |name: &str| {
        summary[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {summary}"))
    };
    assert!(
        count("keys") > 1_000 && count("versions") >= count("keys"),
        "{summary}"
    );
    assert_eq!(count("tables"), place.tables().len() as u64, "{summary}");
    assert!(count("blocks") > count("tables") * 4, "{summary}");
    assert!(
        count("segments") > 0 && count("files") > count("tables"),
        "{summary}"
    );
    // A file that no manifest has is named, and no damage.
    let orphan = place.tables()[0].with_file_name("00000000000fffff.sst");
    fs::copy(&place.tables()[0], &orphan).unwrap();
    let (code, objects) = place.checked();
    assert_eq!(code, Some(0), "{objects:?}");
    assert_eq!(objects["leftover"][0]["file"], orphan.to_str().unwrap());
    // While a node runs nobody checks.
    let node = place.start();
    let refused = place.check(&[]);
    assert_eq!(refused.status.code(), Some(1));
    let sentence = String::from_utf8_lossy(&refused.stderr);
    assert!(sentence.contains("in use by process"), "{sentence}");
    let mut client = node.client(None).unwrap();
    (2_500..3_500).for_each(|number| put(&mut client, number));
    node.kill();
    place.assert_clean();
    // Another number of cores, killed at once.
    let more = place.command.clone().cores(3);
    more.start().unwrap_or_else(|refusal| panic!("{refusal}")).kill();
    let summary = place.assert_clean();
    assert!(summary["entries"].as_u64() > Some(0), "{summary}");
    let text = place.check(&[]);
    assert_eq!(text.status.code(), Some(0));
    let text = String::from_utf8_lossy(&text.stdout);
    assert!(
        text.ends_with("no damage\n") && text.contains("\nchecked "),
        "{text}"
    );
    let nowhere = run(Command::new(binary::for_tests()).args(["check", "--data", "/nowhere/at/all"]));
    assert_eq!(nowhere.status.code(), Some(1));
}

#[test]
fn each_kind_of_damage_is_named_with_its_place() {
    let place = loaded();
    let (table, manifest) = (
        place.tables()[0].clone(),
        place.tables()[0].with_file_name("manifest"),
    );
    let table_bytes = fs::metadata(&table).unwrap().len() as usize;
    let segment = place.segment();
    let node = place.data().join("node");
    let at_footer = table_bytes - 80;
    // File, byte, and the least length of the place that is to be named with it.
    let mut flips = vec![
        (&node, 20),
        (&node, 60),
        (&segment, 5),
        (&segment, 30),
        (&segment, 100),
        (&manifest, 2),
        (&manifest, 18),
        (&manifest, 40),
        (&manifest, 4095),
    ];
    flips.extend((0..8).map(|part| (&table, table_bytes / 8 * part + 7)));
    flips.extend([1, 13, 20, 33, 45, 57, 70].map(|at| (&table, at_footer + at)));
    for (file, at) in flips {
        flip(file, at);
        let before = place.contents();
        let (code, objects) = place.checked();
        assert_eq!(code, Some(1), "{} at {at}: {objects:?}", file.display());
        let damages = &objects["damage"];
        let is_it = |damage: &&Json| {
            let offset = damage["offset"].as_u64().unwrap_or(u64::MAX);
            let bytes = damage["bytes"].as_u64().unwrap_or(0).max(4096);
            damage["file"] == file.to_str().unwrap() && (offset..offset + bytes).contains(&(at as u64))
        };
        let named = damages.iter().filter(is_it).count();
        assert_eq!(named, 1, "{} at {at}: {damages:?}", file.display());
        assert_eq!(objects["summary"][0]["damages"], damages.len());
        assert!(place.contents() == before, "a check changes nothing");
        flip(file, at);
    }
    place.assert_clean();
    // Several at once are all told, in words too; and what can't be read is.
    flip(&table, 7);
    flip(&place.tables()[2], 7);
    let away = place.directory.path().join("away");
    fs::rename(&place.tables()[1], &away).unwrap();
    let output = place.check(&[]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("3 places are damaged") && text.contains("the table is missing"),
        "{text}"
    );
    assert!(
        text.contains("offset 0, ") && text.contains("to do    restore the file"),
        "{text}"
    );
    assert!(text.contains("versions in shard "), "{text}");
}

#[test]
fn what_is_inspected_shows_its_damage_and_what_lies_behind_it() {
    let place = loaded();
    let table = place.tables()[0].clone();
    let (code, whole) = inspect("sstable", &table, &["--entries"]);
    assert_eq!(code, Some(0), "{whole}");
    let keys = |text: &str| text.lines().filter(|line| line.contains("key:")).count();
    let all = whole.lines().filter(|line| line.starts_with("    key:")).count();
    assert!(all > 100, "{all} versions");
    let (_, some) = inspect(
        "sstable",
        &table,
        &["--entries", "--from", "key:00500", "--limit", "3"],
    );
    assert_eq!(
        some.lines().filter(|line| line.starts_with("    key:")).count(),
        3,
        "{some}"
    );
    let at = fs::metadata(&table).unwrap().len() as usize / 2;
    flip(&table, at);
    let (code, damaged) = inspect("sstable", &table, &["--entries"]);
    assert_eq!(code, Some(1), "{damaged}");
    assert!(
        damaged.contains("DAMAGE at offset ") && damaged.ends_with("1 place is damaged\n"),
        "{damaged}"
    );
    assert!(keys(&damaged) < keys(&whole) && keys(&damaged) > keys(&whole) / 2);
    flip(&table, at);

    let (code, text) = inspect("manifest", &table.with_file_name("manifest"), &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("all in all: ") && text.contains("keys "), "{text}");

    let segment = place.segment();
    let (code, text) = inspect("log", &segment, &["--entries"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("batch ") && text.contains(", head, ") && text.contains(", seal, "),
        "{text}"
    );
    assert!(text.contains("state of shard 3: "), "{text}");
    flip(&segment, 30);
    let (code, text) = inspect("log", &segment, &["--entries"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("DAMAGE at offset 0: ") && text.contains(", seal, "),
        "{text}"
    );

    // Whoever reads only the beginning ends it quietly.
    let mut child = Command::new(binary::for_tests())
        .args(["inspect", "sstable", "--entries"])
        .arg(&table)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 10]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.len()),
        (Some(0), 0),
        "{output:?}"
    );
    let (code, _) = inspect("sstable", &place.data().join("no such file"), &[]);
    assert_eq!(code, Some(1));
}

#[test]
fn a_running_node_finds_what_nobody_has_read_and_serves_the_rest() {
    let place = loaded();
    let table = place.tables()[0].clone();
    let at = fs::metadata(&table).unwrap().len() as usize / 2;
    flip(&table, at);
    let rate = |rate| place.command.clone().argument("--scrub-rate").argument(rate);
    let node = rate("64MiB")
        .start()
        .unwrap_or_else(|refusal| panic!("{refusal}"));
    let mut client = node.client(None).unwrap();
    let scrub = |client: &mut Client| {
        let stats: Json = serde_json::from_str(&client.stats().unwrap()).expect("statistics are JSON");
        let storage = &stats["cores"][0]["storage"];
        ["scrub_rounds", "scrub_damages", "scrubbed_bytes"].map(|name| storage[name].as_u64().unwrap())
    };
    let begun = Instant::now();
    while scrub(&mut client)[0] == 0 {
        assert!(begun.elapsed() < PATIENCE, "no round has ended");
    }
    let [_, damages, bytes] = scrub(&mut client);
    assert_eq!(damages, 1);
    let stored: u64 = place
        .tables()
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .sum();
    assert!(bytes > stored / 2, "{bytes} of {stored} bytes");
    let readable = (0..3_000)
        .filter(|number| client.get(&key(*number)).is_ok())
        .count();
    assert!((2_900..3_000).contains(&readable), "{readable} keys can be read");
    drop(client);
    let ended = node.terminate();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    let told = ended.stderr.lines().filter(|line| line.contains("found unasked"));
    let told: Vec<&str> = told.collect();
    assert_eq!(told.len(), 1, "{}", ended.stderr);
    assert!(
        told[0].contains(table.to_str().unwrap()) && told[0].contains("at offset"),
        "{told:?}"
    );
    // Without a scrub nothing is found.
    let node = rate("off").start().unwrap_or_else(|refusal| panic!("{refusal}"));
    let mut client = node.client(None).unwrap();
    assert_eq!(scrub(&mut client), [0, 0, 0]);
}
