//! `ostrakon serve` is configured by flags, variables and a file: the real program, without starting a node.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it drives real processes and files"
)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ostrakon_tests::process::{NodeCommand, binary};
use tempfile::TempDir;

/// A directory for files of settings, in which `serve` is called.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        let directory =
            tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory is writable");
        Place(directory)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).expect("the build directory is writable");
        path
    }

    /// `ostrakon serve` with nothing in its environment but these variables.
    fn serve(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(binary::for_tests());
        command.arg("serve").args(arguments).env_clear();
        command
            .envs(variables.iter().copied())
            .current_dir(self.0.path())
            .output()
            .expect("the binary runs")
    }

    /// The lines that `--print-config` prints: name to value and comment.
    fn printed(&self, arguments: &[&str], variables: &[(&str, &str)]) -> BTreeMap<String, (String, String)> {
        let output = self.serve(&[arguments, &["--print-config"]].concat(), variables);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        let text = String::from_utf8(output.stdout).expect("a configuration is UTF-8");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(setting).collect()
    }

    /// Exit code 2, these words on standard error, and nothing done.
    #[track_caller]
    fn assert_refused(&self, arguments: &[&str], variables: &[(&str, &str)], words: &[&str]) {
        let output = self.serve(arguments, variables);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        for word in words {
            assert!(stderr.contains(word), "no '{word}' in: {stderr}");
        }
        assert!(!self.0.path().join("ostrakon-data").exists(), "{stderr}");
    }
}

fn setting(line: &str) -> (String, (String, String)) {
    let (assignment, comment) = line.split_once(" # ").expect("every line has a comment");
    let (name, value) = assignment.split_once(" = ").expect("every line sets something");
    (name.to_owned(), (value.to_owned(), comment.to_owned()))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is UTF-8")
}

#[test]
fn a_flag_goes_before_a_variable_and_a_variable_before_the_file() {
    let place = Place::new();
    let file = place.file(
        "node.toml",
        "cores = 3\nlisten = \"127.0.0.1:1003\"\nidle-timeout = \"3m\"\nspin = true\nmax-connections = 300\n",
    );
    let variables = [
        ("OSTRAKON_CONFIG", text(&file)),
        ("OSTRAKON_CORES", "2"),
        ("OSTRAKON_LISTEN", "127.0.0.1:1002"),
        ("OSTRAKON_IDLE_TIMEOUT", "2m"),
    ];
    let flags = ["--cores", "1", "--listen=127.0.0.1:1001", "--spin=false"];
    let found = place.printed(&flags, &variables);
    let value = |name: &str| (found[name].0.as_str(), found[name].1.as_str());
    let line = |number: usize| format!("from {}, line {number}", file.display());
    assert_eq!(value("cores"), ("1", "from its flag"));
    assert_eq!(value("listen"), ("\"127.0.0.1:1001\"", "from its flag"));
    assert_eq!(value("spin"), ("false", "from its flag"));
    assert_eq!(
        value("idle-timeout"),
        ("\"2m\"", "from the variable OSTRAKON_IDLE_TIMEOUT")
    );
    assert_eq!(value("max-connections"), ("300", line(5).as_str()));
    assert_eq!(value("max-connections-per-address").0, "150");
    assert_eq!(value("hello-timeout"), ("\"10s\"", "default"));

    let found = place.printed(&[], &variables[..2]);
    assert_eq!(found["cores"].0, "2");
    assert_eq!(found["listen"], ("\"127.0.0.1:1003\"".to_owned(), line(2)));
    assert_eq!(found["spin"], ("true".to_owned(), line(4)));
    let other = place.file("other.toml", "cores = 4\n");
    let found = place.printed(&["--config", text(&other)], &variables[..1]);
    assert_eq!(found["cores"].0, "4", "the flag names the file, not the variable");
    assert_eq!(found["listen"].0, "\"127.0.0.1:5750\"");
}

#[test]
fn what_the_limit_of_open_files_lowers_is_told() {
    let place = Place::new();
    let mut shell = Command::new("sh");
    shell
        .args([
            "-c",
            "ulimit -n 400 && exec \"$0\" serve --cores 1 --max-connections-per-address 1000 --print-config",
        ])
        .arg(binary::for_tests())
        .current_dir(place.0.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let output = shell.output().expect("a shell runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = "\nmax-connections-per-address = 208 # from its flag: 1000, lowered to what the limit of open files \
                allows\n";
    assert!(
        text.contains("\nmax-connections = 208 #") && text.contains(line),
        "{text}"
    );
}

#[test]
fn every_source_is_refused_in_the_same_words() {
    let place = Place::new();
    for (flag, variable, line, words) in [
        (
            "--shards=12",
            ("OSTRAKON_SHARDS", "12"),
            "shards = 12",
            "a power of two from 1 to 4096",
        ),
        (
            "--cores=0",
            ("OSTRAKON_CORES", "0"),
            "cores = 0",
            "the number of cores is from 1 to 256",
        ),
        (
            "--memory=lots",
            ("OSTRAKON_MEMORY", "lots"),
            "memory = \"lots\"",
            "such as 512MiB",
        ),
        (
            "--http=on",
            ("OSTRAKON_HTTP", "on"),
            "http = \"on\"",
            "off turns it off",
        ),
        (
            "--idle-timeout=soon",
            ("OSTRAKON_IDLE_TIMEOUT", "soon"),
            "idle-timeout = \"soon\"",
            "from 1s to 366d",
        ),
        (
            "--listen=0.0.0.0:1",
            ("OSTRAKON_LISTEN", "0.0.0.0:1"),
            "listen = \"0.0.0.0:1\"",
            "add --insecure if everybody",
        ),
    ] {
        let name = line.split(' ').next().expect("a line has words");
        let flag_name = flag.split('=').next().expect("a flag has a name");
        let file = place.file("node.toml", &format!("\n{line}\n"));
        place.assert_refused(&[flag], &[], &[words, flag_name]);
        place.assert_refused(&[], &[variable], &[words, variable.0]);
        let place_in_file = format!("{name} in {}, line 2", file.display());
        place.assert_refused(&["--config", text(&file)], &[], &[words, &place_in_file]);
    }
    place.assert_refused(
        &["--max-connections=5", "--max-connections-per-address=6"],
        &[],
        &["--max-connections-per-address is 6", "the 5 connections"],
    );
}

#[test]
fn a_file_is_refused_with_the_line_and_what_is_allowed() {
    let place = Place::new();
    let refused = |content: &str, line: usize, words: &[&str]| {
        let file = place.file("node.toml", content);
        let at = format!("{}, line {line}: ", file.display());
        place.assert_refused(&["--config", text(&file)], &[], &[&[at.as_str()], words].concat());
    };
    refused(
        "cores = 1\n\ncore = 2\n",
        3,
        &["no setting 'core'", "data, listen, http", "idle-timeout"],
    );
    refused(
        "cores = \"1\"\n",
        1,
        &["cores is an integer, such as cores = 4", "string"],
    );
    refused("\nspin = \"yes\"\n", 2, &["spin is true or false"]);
    refused("cores = 1\ncores = 2\n", 2, &["not TOML"]);
    place.assert_refused(&["--config", "absent.toml"], &[], &["absent.toml can't be read"]);
}

#[test]
fn what_is_printed_is_a_file_that_says_the_same() {
    let place = Place::new();
    let flags = [
        "--http=off",
        "--shards=32",
        "--segment-size=1MiB",
        "--max-connections=100",
        "--idle-timeout=90s",
        "--log=warn",
    ];
    let output = place.serve(&[flags.as_slice(), &["--print-config"]].concat(), &[]);
    let printed = String::from_utf8(output.stdout).expect("a configuration is UTF-8");
    let file = place.file("node.toml", &printed);
    let values = |found: BTreeMap<String, (String, String)>| -> Vec<_> {
        found
            .into_iter()
            .map(|(name, (value, _))| (name, value))
            .collect()
    };
    let first: Vec<_> = printed
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(setting)
        .collect();
    let again = values(place.printed(&["--config", text(&file)], &[]));
    assert_eq!(again, values(first.into_iter().collect()));
    assert_eq!(again.len(), 20, "all of them: {again:?}");
    assert!(
        !place.0.path().join("ostrakon-data").exists(),
        "printing starts no node"
    );
}

#[test]
fn more_connections_than_descriptors_are_refused_with_the_fix() {
    let place = Place::new();
    // The limit of open files is lowered by a shell, for this node alone.
    let script = format!(
        "#!/bin/sh\nulimit -n 512\nexec '{}' \"$@\"\n",
        binary::for_tests().display()
    );
    let few_files = place.file("few-files", &script);
    std::fs::set_permissions(&few_files, std::fs::Permissions::from_mode(0o700)).expect("it is ours");
    let node = |arguments: &[&str]| {
        let command = NodeCommand::new(&few_files, &place.0.path().join("node"), 1);
        arguments
            .iter()
            .fold(command, |command, argument| command.argument(*argument))
    };
    let refusal = node(&["--max-connections=1000"]).refusal();
    for word in [
        "1000 connections",
        "limit is 512",
        "--max-connections 320",
        "ulimit -n 1192",
    ] {
        assert!(refusal.stderr.contains(word), "no '{word}' in: {refusal}");
    }
    let started = node(&[]).start().unwrap_or_else(|refusal| panic!("{refusal}"));
    started
        .client(None)
        .expect("it serves")
        .ping()
        .expect("it answers");
    let ended = started.terminate();
    assert!(
        ended.stderr.contains("room for 320 connections"),
        "{}",
        ended.stderr
    );
}

#[test]
fn the_help_says_where_settings_come_from() {
    let output = Place::new().serve(&["--help"], &[]);
    let help = String::from_utf8_lossy(&output.stdout).replace('\n', " ");
    for words in [
        "OSTRAKON_MAX_CONNECTIONS",
        "--print-config",
        "--config <FILE>",
        "else its default",
    ] {
        assert!(help.contains(words), "no '{words}' in: {help}");
    }
}
