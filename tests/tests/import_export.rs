//! Import and export against a real node: what goes in comes out, in both forms, and what is wrong is named.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it drives real processes and files"
)]

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use ostrakon_client::{Action, BatchOperation, Condition, PutOptions, ScanOptions};
use ostrakon_tests::process::{Node, NodeCommand, binary};
use serde_json::Value as Json;
use tempfile::TempDir;

/// A node and a place for files.
struct Place {
    node: Node,
    directory: TempDir,
}

impl Place {
    fn new() -> Place {
        let directory =
            tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory is writable");
        let command = NodeCommand::new(binary::for_tests(), &directory.path().join("node"), 2).shards(8);
        let node = command.start().unwrap_or_else(|refusal| panic!("{refusal}"));
        Place { node, directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, command: &str, file: &Path, arguments: &[&str]) -> Output {
        Command::new(binary::for_tests())
            .arg(command)
            .arg(file)
            .args(arguments)
            .args(["--connect", self.node.address()])
            .output()
            .expect("the program starts")
    }

    #[track_caller]
    fn done(&self, command: &str, file: &Path, arguments: &[&str]) -> String {
        let output = self.run(command, file, arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        stderr
    }

    #[track_caller]
    fn refused(&self, command: &str, file: &Path, words: &str) -> String {
        let output = self.run(command, file, &[]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(words), "no '{words}' in: {stderr}");
        stderr
    }

    fn count(&self) -> usize {
        let mut client = self.node.client(None).expect("the node answers");
        client.scan(ScanOptions::default()).count()
    }

    fn delete_all(&self) {
        let mut client = self.node.client(None).expect("the node answers");
        let entries: Result<Vec<_>, _> = client.scan(ScanOptions::default()).collect();
        for entry in entries.expect("a scan") {
            client.delete(&entry.key).expect("a delete");
        }
    }
}

fn lines(numbers: std::ops::Range<u32>) -> String {
    let mut text = String::new();
    for number in numbers {
        writeln!(text, r#"{{"key":"key {number:06}","value":"value {number}"}}"#)
            .expect("a string takes all");
    }
    text
}

/// Says that it is over when it is dropped, also by a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_goes_in_comes_out_in_both_forms() {
    let place = Place::new();
    let (jsonl, again, binary) = (place.file("a.jsonl"), place.file("b.json"), place.file("c.bin"));
    let mut text = lines(0..20_000);
    text.push_str("{\"key\":\"z\\u0000\",\"value\":\"two\\nlines\"}\n");
    text.push_str("{\"key_base64\":\"/w==\",\"value_base64\":\"AP8=\"}\n");
    fs::write(&jsonl, &text).expect("a file");
    let said = place.done("import", &jsonl, &[]);
    assert!(said.contains("imported 20,002 entries"), "{said}");
    place.done("export", &again, &[]);
    assert!(fs::read_to_string(&again).expect("a file") == text);

    let said = place.done("export", &binary, &[]);
    assert!(said.contains("exported 20,002 entries"), "{said}");
    place.delete_all();
    place.done("import", &binary, &[]);
    place.done("export", &again, &["--format", "json"]);
    assert!(fs::read_to_string(&again).expect("a file") == text);

    let part = place.file("part.jsonl");
    place.done(
        "export",
        &part,
        &[
            "--prefix",
            "key 0000",
            "--start",
            "key 000010",
            "--end",
            "key 000020",
        ],
    );
    assert!(fs::read_to_string(&part).expect("a file") == lines(10..20));
    let output = place.run("export", Path::new("-"), &["--prefix", "key 00000"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), lines(0..10));
}

#[test]
fn the_last_record_of_a_key_wins() {
    let place = Place::new();
    let file = place.file("a.jsonl");
    let mut text = String::new();
    for number in 0..5_000 {
        let key = number % 3;
        writeln!(text, r#"{{"key":"same {key}","value":"{number}"}}"#).expect("a string takes all");
        writeln!(text, r#"{{"key":"other {number}","value":"{number}"}}"#).expect("a string takes all");
    }
    fs::write(&file, text).expect("a file");
    let said = place.done("import", &file, &[]);
    assert!(said.contains("imported 10,000 entries"), "{said}");
    let mut client = place.node.client(None).expect("the node answers");
    let values = client
        .multi_get(&[b"same 0", b"same 1", b"same 2"])
        .expect("a get");
    let values: Vec<Vec<u8>> = values
        .into_iter()
        .map(|value| value.expect("it is there").value)
        .collect();
    assert_eq!(values, [b"4998", b"4999", b"4997"]);
}

#[test]
fn a_bad_line_is_named_and_those_before_it_are_written() {
    let place = Place::new();
    let file = place.file("a.jsonl");
    let bad = format!("{}{{\"key\":\"bad\"}}\n{}", lines(0..3_000), lines(3_000..3_010));
    fs::write(&file, bad).expect("a file");
    let said = place.refused(
        "import",
        &file,
        "line 3001: it has neither value nor value_base64",
    );
    assert!(said.contains("the 3000 records before it are written"), "{said}");
    assert_eq!(place.count(), 3_000);
    fs::write(&file, lines(0..3_010)).expect("a file");
    place.done("import", &file, &[]);
    assert_eq!(place.count(), 3_010);
}

#[test]
fn a_cut_or_damaged_binary_file_is_noticed() {
    let place = Place::new();
    let (jsonl, whole, cut) = (place.file("a.jsonl"), place.file("a.bin"), place.file("cut.bin"));
    fs::write(&jsonl, lines(0..100)).expect("a file");
    place.done("import", &jsonl, &[]);
    place.done("export", &whole, &[]);
    place.delete_all();
    let mut bytes = fs::read(&whole).expect("a file");
    fs::write(&cut, &bytes[..bytes.len() - 24]).expect("a file");
    place.refused("import", &cut, "record 101 at byte");
    assert_eq!(place.count(), 100, "all before the cut are written");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&cut, bytes).expect("a file");
    place.refused("import", &cut, "it is damaged");
    place.refused("import", &place.file("missing.bin"), "cannot open");
}

#[test]
fn times_to_live_survive_the_way() {
    let place = Place::new();
    let file = place.file("a.jsonl");
    let mut client = place.node.client(None).expect("the node answers");
    let hour = PutOptions {
        ttl_ms: 3_600_000,
        ..PutOptions::default()
    };
    client.put_with(b"lives", b"x", hour).expect("a put");
    let before_us = client.get(b"lives").expect("a get").expect("it is there").expires >> 12;
    place.done("export", &file, &[]);
    let text = fs::read_to_string(&file).expect("a file");
    let line: Json = serde_json::from_str(&text).expect("one line");
    assert_eq!(line["expires"].as_u64(), Some(before_us));
    let over = "{\"key\":\"over\",\"value\":\"x\",\"expires\":1}\n\
                {\"key\":\"later\",\"value\":\"x\",\"ttl_ms\":60000}\n";
    fs::write(&file, text + over).expect("a file");
    let said = place.done("import", &file, &[]);
    assert!(said.contains("imported 2 entries"), "{said}");
    assert!(
        said.contains("1 more were left out because their time is over"),
        "{said}"
    );
    let after_us = client.get(b"lives").expect("a get").expect("it is there").expires >> 12;
    assert!(
        after_us.abs_diff(before_us) < 60_000_000,
        "{before_us} and {after_us}"
    );
    assert!(client.get(b"later").expect("a get").expect("it is there").expires > 0);
    assert_eq!(client.get(b"over").expect("a get"), None);
}

#[test]
fn an_export_is_of_one_moment_over_all_its_pages() {
    let place = Place::new();
    let (jsonl, exported) = (place.file("a.jsonl"), place.file("b.jsonl"));
    fs::write(&jsonl, lines(0..12_000)).expect("a file");
    place.done("import", &jsonl, &[]);
    // Both have the tag `k`, so they change together; one lies before all other keys, the other behind them.
    let pair: [&[u8]; 2] = [b"A{k}", b"z{k}"];
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = place.node.client(None).expect("the node answers");
            while !is_over.load(Ordering::Relaxed) {
                let add = |key| BatchOperation {
                    key,
                    action: Action::Add { delta: 1, ttl_ms: 0 },
                    condition: Condition::None,
                };
                client.batch(&pair.map(add)).expect("a batch");
            }
        });
        let _over = Over(&is_over);
        let mut client = place.node.client(None).expect("the node answers");
        while client.get(pair[1]).expect("a get").is_none() {}
        place.done("export", &exported, &[]);
    });
    let text = fs::read_to_string(&exported).expect("a file");
    let value = |line: Option<&str>| {
        let entry: Json = serde_json::from_str(line.expect("a line")).expect("JSON");
        entry["value"].clone()
    };
    assert_eq!(text.lines().count(), 12_002);
    assert_eq!(value(text.lines().next()), value(text.lines().last()));
}

#[test]
fn an_old_answer_does_not_set_the_clock_of_an_import() {
    let place = Place::new();
    let file = place.file("a.jsonl");
    let mut shell = Command::new(binary::for_tests())
        .args(["shell", "--connect", place.node.address()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut commands = shell.stdin.take().expect("a pipe");
    writeln!(commands, "add asked").expect("the shell reads");
    let mut answers = BufReader::new(shell.stdout.take().expect("a pipe"));
    answers.read_line(&mut String::new()).expect("an answer");
    // Between the shell's last answer and its import, the time of an entry passes.
    let mut client = place.node.client(None).expect("the node answers");
    let soon = PutOptions {
        ttl_ms: 1_000,
        ..PutOptions::default()
    };
    client.put_with(b"lives", b"x", soon).expect("a put");
    let expires_us = client.get(b"lives").expect("a get").expect("it is there").expires >> 12;
    while client.get(b"lives").expect("a get").is_some() {}
    let record = format!(r#"{{"key":"over","value":"x","expires":{expires_us}}}"#);
    fs::write(&file, record).expect("a file");
    writeln!(commands, "import '{}'", file.display()).expect("the shell reads");
    drop(commands);
    let output = shell.wait_with_output().expect("a child can be waited for");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("1 more were left out because their time is over"),
        "{said}"
    );
}

#[test]
fn what_is_no_file_is_written_to_and_stays() {
    let place = Place::new();
    let (jsonl, fifo) = (place.file("a.jsonl"), place.file("fifo.jsonl"));
    fs::write(&jsonl, lines(0..10)).expect("a file");
    place.done("import", &jsonl, &[]);
    let made = Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs");
    assert!(made.success());
    let text = std::thread::scope(|scope| {
        let reader = scope.spawn(|| fs::read_to_string(&fifo).expect("text"));
        place.done("export", &fifo, &[]);
        reader.join().expect("it reads")
    });
    assert_eq!(text, lines(0..10));
    let kind = fs::metadata(&fifo).expect("it is there").file_type();
    assert!(kind.is_fifo());
}

#[test]
fn an_export_that_cannot_be_made_leaves_nothing_behind() {
    let place = Place::new();
    let exports = place.file("exports");
    fs::create_dir(&exports).expect("a directory");
    let wanted = exports.join("a.jsonl");
    fs::create_dir(&wanted).expect("a directory in the way");
    place.refused("export", &wanted, "cannot open");
    let names: Vec<_> = fs::read_dir(&exports).expect("a directory").collect();
    assert_eq!(names.len(), 1);
    place.refused("export", &place.file("missing/a.jsonl"), "cannot create");
}
