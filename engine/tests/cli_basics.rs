//! The built program from outside: what it prints, how it refuses, which codes it exits with.
//!
//! Nothing here needs a running node.

use std::process::{Command, Output, Stdio};

/// An address of this machine on which nobody listens: port 9 is set aside for discarding.
const NOBODY: &str = "127.0.0.1:9";

fn ostrakon(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ostrakon"))
        .args(arguments)
        .env_remove("RUST_LOG")
        .env_remove("OSTRAKON_CONNECT")
        .stdin(Stdio::null())
        .output()
        .expect("the program was built together with this test")
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).expect("the output is text")
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).expect("the output is text")
}

/// Refused with an exit code, a sentence on stderr that has these words, and nothing on stdout.
#[track_caller]
fn assert_refused(arguments: &[&str], code: i32, words: &[&str]) {
    let output = ostrakon(arguments);
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert_eq!(stdout(&output), "");
    for word in words {
        assert!(
            stderr(&output).contains(word),
            "no '{word}' in: {}",
            stderr(&output)
        );
    }
}

#[test]
fn version_names_release_commit_and_features() {
    let output = ostrakon(&["--version"]);
    let line = stdout(&output);
    assert!(output.status.success());
    assert!(
        line.starts_with(concat!("ostrakon ", env!("CARGO_PKG_VERSION"), " (commit ")),
        "{line}"
    );
    assert!(line.ends_with(")\n") && line.lines().count() == 1, "{line}");
    let features = line.split_once("features: ").expect("it names the features").1;
    assert_eq!(features.contains("verify"), cfg!(feature = "verify"), "{line}");
}

#[test]
fn help_lists_every_command_and_the_exit_codes() {
    let output = ostrakon(&["--help"]);
    assert!(output.status.success());
    for word in [
        "serve",
        "get",
        "put",
        "delete",
        "scan",
        "status",
        "doctor",
        "3 key not found",
        "First session",
    ] {
        assert!(
            stdout(&output).contains(word),
            "no '{word}' in: {}",
            stdout(&output)
        );
    }
}

#[test]
fn a_bad_command_line_is_refused_with_code_2() {
    assert_refused(&[], 2, &["Usage"]);
    assert_refused(&["sevre"], 2, &["unrecognized", "serve"]);
    assert_refused(&["get"], 2, &["KEY"]);
    assert_refused(&["get", r"a\q"], 2, &["byte 1", r"\xNN"]);
    assert_refused(&["get", ""], 2, &["at least one byte"]);
    assert_refused(&["serve", "--shards", "12"], 2, &["power of two"]);
    assert_refused(&["serve", "--memory", "lots"], 2, &["512MiB"]);
    assert_refused(
        &["serve", "--log", "ostrakon=loudly"],
        2,
        &["log filter", "loudly"],
    );
}

#[test]
fn an_address_for_everybody_needs_insecure() {
    // The data directory can't be one, so that a node never starts, whatever is refused first.
    for listen in ["0.0.0.0:1", "[::]:1", "192.0.2.1:5750"] {
        assert_refused(
            &["serve", "--data", "/dev/null", "--listen", listen],
            2,
            &["refusing", listen, "--insecure", "127.0.0.1:5750"],
        );
    }
    assert_refused(
        &[
            "serve",
            "--data",
            "/dev/null",
            "--listen",
            "0.0.0.0:1",
            "--insecure",
        ],
        1,
        &["data directory: no file can be made in /dev/null"],
    );
}

#[test]
fn a_node_that_is_not_there_is_an_error_in_words() {
    for arguments in [
        &["get", "k"][..],
        &["put", "k", "v"],
        &["delete", "k"],
        &["scan"],
        &["status"],
        &["get", "k", "--json"],
    ] {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--connect", NOBODY]).collect();
        assert_refused(&arguments, 1, &["ostrakon: ", NOBODY, "ostrakon serve"]);
    }
}

#[test]
fn the_address_may_come_from_the_environment() {
    let output = Command::new(env!("CARGO_BIN_EXE_ostrakon"))
        .args(["get", "k"])
        .env("OSTRAKON_CONNECT", NOBODY)
        .output()
        .expect("the program was built together with this test");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(NOBODY), "{output:?}");
}
