//! The commands against a real node: one-shot, from a pipe, and typed at a terminal; their output and exit codes.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it drives real processes and sockets"
)]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};

use ostrakon_client::Kind;
use ostrakon_tests::process::{Node, NodeCommand, Terminal, binary};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

struct Server {
    node: Node,
    _directory: TempDir,
}

fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory is writable")
}

fn start() -> Server {
    let directory = directory();
    let command = NodeCommand::new(binary::for_tests(), &directory.path().join("node"), 2).shards(8);
    let node = command.start().unwrap_or_else(|refusal| panic!("{refusal}"));
    Server {
        node,
        _directory: directory,
    }
}

/// The node for all tests that keep to keys of their own.
static SHARED: Mutex<Option<Server>> = Mutex::new(None);

/// Where that node is. It ends with the test process.
fn address() -> &'static str {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    ADDRESS.get_or_init(|| {
        let server = start();
        let address = server.node.address().to_owned();
        *SHARED.lock().expect("only this puts it there") = Some(server);
        // What is static is never dropped.
        // SAFETY: the function may be called at any time, from any thread.
        let registered = unsafe { libc::atexit(stop_shared) };
        assert_eq!(registered, 0, "there is room for a function at the exit");
        address
    })
}

extern "C" fn stop_shared() {
    if let Ok(mut shared) = SHARED.lock() {
        drop(shared.take());
    }
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

fn run_at(address: &str, arguments: &[&str], stdin: &[u8]) -> Ended {
    let mut child = Command::new(binary::for_tests())
        .args(arguments)
        .env("OSTRAKON_CONNECT", address)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // A command that ends without reading closes the pipe.
    let _unread = child.stdin.take().expect("a pipe").write_all(stdin);
    let output = child.wait_with_output().expect("a child can be waited for");
    Ended {
        code: output.status.code().expect("it was not killed"),
        stdout: String::from_utf8(output.stdout).expect("all output of these tests is text"),
        stderr: String::from_utf8(output.stderr).expect("messages are text"),
    }
}

fn run(arguments: &[&str]) -> Ended {
    run_at(address(), arguments, b"")
}

/// Runs lines in a shell.
fn shell(arguments: &[&str], lines: &str) -> Ended {
    let arguments = [&["shell"], arguments].concat();
    run_at(address(), &arguments, lines.as_bytes())
}

#[track_caller]
fn assert_done(ended: &Ended, stdout: &str) {
    assert_eq!(
        (ended.code, &ended.stdout[..], &ended.stderr[..]),
        (0, stdout, "")
    );
}

#[track_caller]
fn assert_failed(ended: &Ended, code: i32, words: &str) {
    assert_eq!(ended.code, code, "{ended:?}");
    assert!(ended.stderr.contains(words), "no '{words}' in {ended:?}");
}

fn json_of(ended: &Ended) -> Json {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

#[test]
fn values_pass_through_pipes_byte_for_byte() {
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).chain(*b"\n\n").collect();
    assert_eq!(run_at(address(), &["put", r"exact\x00"], &bytes).code, 0);
    let got = Command::new(binary::for_tests())
        .args(["get", r"exact\x00", "--connect", address()])
        .output()
        .expect("the program starts");
    assert_eq!((got.status.code(), got.stdout == bytes), (Some(0), true));
}

#[test]
fn writes_have_conditions_and_exit_codes() {
    let put = run(&["put", "cond", "1", "--if-absent"]);
    assert_eq!(put.code, 0, "{put:?}");
    let version = put
        .stdout
        .trim()
        .strip_prefix("version ")
        .expect("a version")
        .to_owned();
    assert_failed(&run(&["put", "cond", "2", "--if-absent"]), 4, &version);
    assert_failed(
        &run(&["put", "cond", "2", "--if-value", "2"]),
        4,
        "nothing was written",
    );
    assert_eq!(run(&["put", "cond", "2", "--if-value", "1"]).code, 0);
    assert_failed(
        &run(&["delete", "cond", "--if-version", &version]),
        4,
        "is at version",
    );
    assert_eq!(run(&["delete", "cond", "--if-present"]).code, 0);
    assert_failed(&run(&["get", "cond"]), 3, "there is no key 'cond'");
    assert_failed(
        &run(&["put", "cond", "2", "--if-present"]),
        4,
        "there is no key 'cond'",
    );
    assert_failed(
        &run(&["put", "cond", "--if-absent", "--if-present", "x"]),
        2,
        "cannot be used with",
    );
    assert_failed(&run(&["shell", "--nonsense"]), 2, "unexpected argument");
    assert_failed(
        &run_at("127.0.0.1:1", &["ping"], b""),
        1,
        "is a node running there?",
    );
}

#[test]
fn keys_can_live_for_a_time() {
    assert_eq!(run(&["put", "lives", "x", "--ttl", "1h"]).code, 0);
    let ttl = json_of(&run(&["ttl", "lives", "--json"]));
    let left_ms = ttl["ttl_ms"].as_u64().expect("a number");
    assert!((3_000_000..=3_600_000).contains(&left_ms), "{ttl}");
    assert!(json_of(&run(&["get", "lives", "--json"]))["expires"].is_u64());
    assert_eq!(run(&["put", "keeps", "x"]).code, 0);
    assert_done(&run(&["ttl", "keeps"]), "never expires\n");
    assert_failed(&run(&["ttl", "no such key"]), 3, "no such key");
    assert_eq!(run(&["put", "dies", "x", "--ttl", "1ms"]).code, 0);
    // Each turn is a process of its own, so it ends soon without any pause.
    while run(&["get", "dies"]).code != 3 {}
}

#[test]
fn counters_and_several_keys() {
    assert_done(&run(&["add", "count"]), "1\n");
    assert_done(&run(&["add", "count", "-11"]), "-10\n");
    assert_failed(&run(&["add", "count", "x"]), 2, "invalid");
    assert_eq!(run(&["mput", "m1", "one", "m2", "-2"]).code, 0);
    assert_done(&run(&["mget", "m2", "m1"]), "m2\t-2\nm1\tone\n");
    let partly = run(&["mget", "m1", "m3", "m4"]);
    assert_eq!(partly.stdout, "m1\tone\n");
    assert_failed(&partly, 3, "there is no key 'm3', nor 1 more");
    assert_failed(&run(&["mput", "m1", "one", "m2"]), 2, "'m2' has no value");
    assert_failed(&run(&["add", "m1"]), 1, "not a number");
}

#[test]
fn ranges_are_deleted_by_bounds_or_by_prefix() {
    let entries = ["mput", "dr/a", "1", "dr/b", "2", "dr/c", "3", "dr2/d", "4"];
    assert_eq!(run(&entries).code, 0);
    let deleted = run(&["delete-range", "dr/b", "dr/c"]);
    assert_eq!(deleted.code, 0, "{deleted:?}");
    assert!(deleted.stdout.starts_with("version "), "{deleted:?}");
    assert_done(&run(&["scan", "--prefix", "dr"]), "dr/a\t1\ndr/c\t3\ndr2/d\t4\n");
    let deleted = json_of(&run(&["delete-range", "--prefix", "dr/", "--json"]));
    assert!(deleted["version"].is_string(), "{deleted}");
    let in_shell = shell(&[], "delete-range dr2 dr3\nscan --prefix dr\n");
    assert_eq!(
        (in_shell.code, in_shell.stdout.lines().count()),
        (0, 1),
        "{in_shell:?}"
    );
    assert_failed(&run(&["delete-range", "b", "a"]), 2, "no key lies in the range");
    assert_failed(&run(&["delete-range"]), 2, "required");
}

#[test]
fn scans_have_a_direction_bounds_and_a_prefix() {
    assert_eq!(
        run(&["mput", "s/a", "1", "s/b", "2", "s/c", "3", "t", "4"]).code,
        0
    );
    assert_done(&run(&["scan", "--prefix", "s/"]), "s/a\t1\ns/b\t2\ns/c\t3\n");
    assert_done(
        &run(&[
            "scan",
            "--prefix",
            "s/",
            "--reverse",
            "--limit",
            "2",
            "--keys-only",
        ]),
        "s/c\ns/b\n",
    );
    assert_done(&run(&["scan", "s/b", "--end", "t"]), "s/b\t2\ns/c\t3\n");
    assert_done(
        &run(&["scan", "s/b", "--prefix", "s/", "--reverse"]),
        "s/c\t3\ns/b\t2\n",
    );
    let entry = json_of(&run(&["scan", "--prefix", "s/a", "--json"]));
    assert_eq!((&entry["key"], &entry["value"]), (&json!("s/a"), &json!("1")));
}

#[test]
fn a_batch_is_done_whole_or_not_at_all() {
    let directory = directory();
    let file = directory.path().join("batch");
    let batch = |text: &str| {
        fs::write(&file, text).expect("the directory is writable");
        run(&["batch", file.to_str().expect("a path in text")])
    };
    let done = batch("# opening\nput {b}name 'Kleis thenes' --if-absent\nadd {b}votes 7\nend\n");
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stdout.ends_with("{b}votes\t7\n"), "{done:?}");
    assert_done(&run(&["get", "{b}name"]), "Kleis thenes");
    let refused = batch("delete {b}votes\ncheck {b}name --if-value Perikles\n");
    assert_failed(&refused, 4, "`check {b}name --if-value Perikles` does not hold");
    assert_done(&run(&["get", "{b}votes"]), "7");
    assert_failed(
        &batch("put a 1\nput b 2\nput c 3\nput d 4"),
        1,
        "common part in braces",
    );
    assert_failed(&batch("put {b}x 1\nget {b}x"), 2, "line 2 of the batch");
    assert_failed(&run(&["get", "{b}x"]), 3, "there is no key");
    let piped = run_at(
        address(),
        &["batch", "--json"],
        b"delete {b}name\ndelete {b}votes --if-present\n",
    );
    assert_eq!(json_of(&piped)["applied"], json!(true));
}

#[test]
fn a_node_tells_of_itself() {
    let topology = json_of(&run(&["topology", "--json"]));
    assert_eq!(topology["shards"], json!(8));
    assert_eq!(topology["cores"].as_array().map(Vec::len), Some(2));
    let status = json_of(&run(&["status", "--json"]));
    assert_eq!(status["cluster_id"], topology["cluster_id"]);
    assert!(json_of(&run(&["stats", "--json"]))["cores"][0]["operations"].is_object());
    assert!(!run(&["stats"]).stdout.contains("counts"));
    assert!(run(&["ping"]).stdout.starts_with("pong after "));
    let timed = run(&["put", "timed", "x", "--timing"]);
    assert_eq!(timed.code, 0);
    for stage in ["queue", "hop", "log", "apply", "network"] {
        assert!(timed.stderr.contains(stage), "{timed:?}");
    }
}

#[test]
fn a_pipe_holds_commands_of_several_lines() {
    let lines = "# comment\n\nput p1 'two\nlines'\nput p2 <<END\nas \\it 'is\n\nEND\nput \"p 3\" \"\\xff\\n\"\n\
                 get p1\nget p2 --json\nget 'p 3'\nadd p4 5\n";
    let ended = shell(&[], lines);
    assert_eq!((ended.code, &ended.stderr[..]), (0, ""));
    let printed: Vec<&str> = ended
        .stdout
        .lines()
        .filter(|line| !line.starts_with("version"))
        .collect();
    assert_eq!(printed[0], r"two\x0alines");
    assert_eq!(
        serde_json::from_str::<Json>(printed[1]).expect("JSON")["value"],
        json!("as \\it 'is\n")
    );
    assert_eq!(printed[2..], [r"\xff\x0a", "5"]);
    assert_done(&run(&["get", "p1"]), "two\nlines");
}

#[test]
fn a_pipe_stops_at_the_first_failure_unless_told_otherwise() {
    let lines = "put k1 1\nget absent1\nput k2 2\nput k1 3 --if-absent\n";
    let stopped = shell(&[], lines);
    assert_failed(&stopped, 3, "line 2: there is no key 'absent1'");
    assert_failed(&run(&["get", "k2"]), 3, "k2");
    let went_on = shell(&["--keep-going"], lines);
    assert_failed(&went_on, 3, "line 2: there is no key 'absent1'");
    assert_failed(&went_on, 3, "line 4: nothing was written");
    assert_done(&run(&["get", "k2"]), "2");
    assert_failed(&shell(&[], "nonsense\n"), 2, "line 1: unrecognized subcommand");
    assert_failed(&shell(&[], "put k1 'x\ny"), 2, "line 1: the command does not end");
    assert_failed(&shell(&[], "put k1"), 2, "put needs a value");
    assert_failed(&shell(&[], "import -"), 2, "stdin holds the commands");
    assert_done(&shell(&[], "quit\nnonsense"), "");
}

#[test]
fn no_line_of_a_refused_command_is_a_command() {
    let lines = "batch\nput {r}a 1\nget {r}a\nput {r}b 1\nend\nput {r}c \"\\q\nput {r}d 1\"\n\
                 put {r}e <<END --ttl 1s\nput {r}f 1\nEND\nscan --prefix {r} --keys-only\nput {r}g 1\n";
    let ended = shell(&["--keep-going"], lines);
    assert_failed(&ended, 2, "line 1: nothing was done: line 2 of the batch");
    assert_failed(&ended, 2, "line 6: the backslash");
    assert_failed(&ended, 2, "line 8: `<<` needs a name");
    assert!(ended.stdout.starts_with("version "), "{ended:?}");
    assert_eq!(ended.stdout.lines().count(), 1, "{ended:?}");
    // Whether these are lines of the batch nobody can tell.
    for (batch, words) in [
        ("batch --if-absent", "line 1: unexpected argument '--if-absent'"),
        ("batch \"\\q\"", "line 1: the backslash"),
        ("batch <<", "line 1: `<<` needs a name"),
    ] {
        let ended = shell(
            &["--keep-going"],
            &format!("{batch}\nput {{r}}h 1\nend\nput {{r}}i 1\n"),
        );
        assert_failed(&ended, 2, words);
        assert_failed(&ended, 2, "may be lines of that batch");
        assert_eq!(ended.stdout, "");
    }
}

#[test]
fn a_pipe_has_batches_and_settings() {
    let lines = "batch\nput {q}a 1\nput {q}b 2\nend\nmget {q}a {q}b\noutput json\nget {q}a\noutput table\n\
                 scan --prefix {q}\nhelp get\n";
    let ended = shell(&[], lines);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stdout.contains("{q}a\t1\n{q}b\t2\n"), "{ended:?}");
    assert!(ended.stdout.contains(r#""value":"1""#), "{ended:?}");
    assert!(
        ended.stdout.contains("key ") && ended.stdout.contains("─"),
        "{ended:?}"
    );
    assert!(ended.stdout.contains("<KEY>"), "{ended:?}");
    let elsewhere = shell(&["--keep-going"], "connect 127.0.0.1:1\nget {q}a\n");
    assert_failed(&elsewhere, 1, "cannot connect to 127.0.0.1:1");
    assert_eq!(elsewhere.stdout, "1\n", "it stays where it was");
}

fn frame(from: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; 32];
    from.read_exact(&mut bytes).expect("a header");
    let body_bytes = u32::from_le_bytes(bytes[..4].try_into().expect("4 bytes"));
    bytes.resize(32 + body_bytes as usize, 0);
    from.read_exact(&mut bytes[32..]).expect("a body");
    bytes
}

/// Passes all on until the second page of a scan is asked for; keeps the connection from then on.
fn stop_before_the_second_page(listener: &TcpListener, address: &str) -> TcpStream {
    let (mut client, _) = listener.accept().expect("the client comes");
    let mut node = TcpStream::connect(address).expect("the node listens");
    let mut pages = 0;
    loop {
        let request = frame(&mut client);
        pages += usize::from(request[24..26] == (Kind::Scan as u16).to_le_bytes());
        if pages == 2 {
            return client;
        }
        node.write_all(&request).expect("the node reads");
        client.write_all(&frame(&mut node)).expect("the client reads");
    }
}

#[test]
fn a_failed_export_leaves_nothing_behind() {
    let server = start();
    let mut client = server.node.client(None).expect("the node answers");
    for number in 0..4 {
        let key = format!("big{number}");
        client.put(key.as_bytes(), &vec![b'x'; 600_000]).expect("a put");
    }
    let place = directory();
    let wanted = place.path().join("a.jsonl");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    let ended = std::thread::scope(|scope| {
        let kept = scope.spawn(|| stop_before_the_second_page(&listener, server.node.address()));
        let name = wanted.to_str().expect("the path is UTF-8");
        let ended = run_at(&address, &["export", name, "--timeout", "1s"], b"");
        drop(kept.join().expect("it passes pages on"));
        ended
    });
    assert_eq!(ended.code, 1, "{ended:?}");
    assert_eq!(fs::read_dir(place.path()).expect("a directory").count(), 0);
}

#[test]
fn names_of_files_are_words_like_others() {
    let server = start();
    let place = directory();
    let name = place.path().join("a \\ 'b'\u{301}.jsonl");
    let quoted = name.to_str().expect("the path is UTF-8").replace('\\', "\\\\");
    let lines = format!("put a 1\nexport \"{quoted}\"\ndelete a\nimport \"{quoted}\"\nget a\n");
    let ended = run_at(server.node.address(), &["shell"], lines.as_bytes());
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stdout.ends_with("1\n"), "{ended:?}");
    assert!(name.is_file());
}

/// A shell at a terminal, and a named pipe.
fn terminal_and_fifo(server: &Server, home: &TempDir) -> (Terminal, String) {
    let fifo = home.path().join("fifo.jsonl");
    let made = Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs");
    assert!(made.success());
    let mut command = Command::new(binary::for_tests());
    command
        .args(["shell", "--connect", server.node.address()])
        .env("XDG_STATE_HOME", home.path());
    let fifo = fifo.to_str().expect("the path is UTF-8").to_owned();
    (Terminal::start(command, 200, 30), fifo)
}

#[test]
fn a_command_that_waits_for_a_pipe_is_cancelled() {
    let server = start();
    let home = directory();
    let (mut terminal, fifo) = terminal_and_fifo(&server, &home);
    for what in ["export", "import", "batch"] {
        terminal.expect("\x1b[?2004h");
        terminal.type_keys(&format!("{what} {fifo}\r"));
        terminal.type_until("\x03", "cancelled");
    }
    terminal.type_keys("\rquit\r");
    assert!(terminal.wait().success());
}

/// Passes the hello on, and cuts the connection when the first request has come.
fn cut_after_the_hello(listener: &TcpListener) {
    let (mut client, _) = listener.accept().expect("the client comes");
    let mut node = TcpStream::connect(address()).expect("the node listens");
    node.write_all(&frame(&mut client)).expect("the node reads");
    client.write_all(&frame(&mut node)).expect("the client reads");
    frame(&mut client);
}

#[test]
fn an_unknown_outcome_is_said_plainly() {
    for (arguments, code, words) in [
        (
            &["put", "unknown", "x", "--timeout", "2s"][..],
            5,
            "may or may not have been applied",
        ),
        (
            &["get", "unknown", "--timeout", "2s"],
            1,
            "the connection was lost",
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let ended = std::thread::scope(|scope| {
            scope.spawn(|| cut_after_the_hello(&listener));
            run_at(&address, arguments, b"")
        });
        assert_failed(&ended, code, words);
    }
}

#[test]
fn a_person_at_a_terminal() {
    let server = start();
    let home = directory();
    let mut command = Command::new(binary::for_tests());
    command
        .args(["shell", "--connect", server.node.address()])
        .env_remove("XDG_STATE_HOME")
        .env("HOME", home.path());
    let mut terminal = Terminal::start(command, 100, 30);
    let prompt = format!("{}> ", server.node.address());
    terminal.expect("`help` lists the commands");
    terminal.expect(&prompt);
    terminal.type_keys("put greeting 'hello\rthere'\r");
    terminal.expect("version ");
    // The tabulator completes a command, the arrow brings the last one back.
    terminal.type_keys("tim\ton\r");
    terminal.expect("timing is on");
    terminal.type_keys("get greeting\r");
    terminal.expect("hello\r\nthere\r\n");
    terminal.expect("network");
    terminal.type_keys("get nothing\r");
    terminal.expect("there is no key 'nothing'");
    terminal.type_keys("\x1b[A\x1b[A\r");
    terminal.expect("hello\r\nthere\r\n");
    // A line that is given up. Ctrl-C is a key while the editor is on: before, it would make the terminal forget what
    // was typed.
    terminal.expect("network");
    terminal.expect("\x1b[?2004h");
    terminal.type_keys("put greeting 'never\x03");
    // The editor ends, and begins anew.
    terminal.expect("\x1b[?2004l");
    terminal.expect(&prompt);

    // Ctrl-C ends a command that waits, and the shell goes on with a new connection.
    server.node.pause();
    terminal.type_keys("get greeting\r");
    terminal.type_until("\x03", "cancelled");
    server.node.resume();
    terminal.type_keys("\rscan\r");
    terminal.expect("1 entry");

    // So is Ctrl-D, of which the terminal would make a zero byte.
    terminal.expect("\x1b[?2004h");
    terminal.type_keys("\x04");
    assert!(terminal.wait().success());
    let history = home.path().join(".local/state/ostrakon/history");
    let mode = fs::metadata(&history)
        .expect("a history is kept")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let kept = fs::read_to_string(&history).expect("the history is text");
    assert!(kept.contains("get greeting") && !kept.contains("never"), "{kept}");
}

#[test]
fn what_is_pasted_is_taken_line_by_line() {
    let server = start();
    let home = directory();
    let mut command = Command::new(binary::for_tests());
    command
        .args(["shell", "--connect", server.node.address()])
        .env("XDG_STATE_HOME", home.path());
    let mut terminal = Terminal::start(command, 100, 30);
    terminal.expect("> ");
    let pasted = "put a 1\n# a comment\nput b <<END\nget a\nEND\n\nbatch\nadd c 41\nend\nget b\nadd c 'open";
    terminal.type_keys(&format!("\x1b[200~{pasted}\x1b[201~\r"));
    terminal.type_keys("'\rscan --keys-only\r");
    terminal.expect("get a\r\nversion");
    terminal.expect("invalid value");
    terminal.expect("3 entries");
    terminal.type_keys("batch\r");
    terminal.expect("batch> ");
    terminal.type_keys("\x1b[200~add c 1\nput d 1\nget a\nadd c 1\x1b[201~\rend\r");
    terminal.expect("line 3 of the batch");
    terminal.type_keys("get c\r");
    terminal.expect("41");
    terminal.type_keys("quit\r");
    assert!(terminal.wait().success());
}

#[test]
fn a_cancelled_command_does_not_cancel_the_next_one() {
    let server = start();
    let home = directory();
    let (mut terminal, fifo) = terminal_and_fifo(&server, &home);
    terminal.type_keys(&format!("put a before\rimport {fifo}\r"));
    // Opening waits until the import reads, which goes on until it finds that it was cancelled. It sends nothing before
    // its end, since all records are of one key.
    let mut records = fs::OpenOptions::new().write(true).open(fifo).expect("a fifo");
    records
        .write_all(b"{\"key\":\"a\",\"value\":\"1\"}\n")
        .expect("the import reads");
    terminal.type_keys("\x03");
    while records.write_all(b"{\"key\":\"a\",\"value\":\"1\"}\n").is_ok() {}
    terminal.expect("cancelled; 0 records are written");
    terminal.type_keys("get a\r");
    terminal.expect("before\r\nversion");
    terminal.type_keys("quit\r");
    assert!(terminal.wait().success());
}

#[test]
fn a_cancelled_scan_shows_what_was_read() {
    let server = start();
    let mut client = server.node.client(None).expect("the node answers");
    for key in ["big1", "big2", "big3"] {
        client.put(key.as_bytes(), &vec![b'x'; 700_000]).expect("a put");
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    let home = directory();
    let mut command = Command::new(binary::for_tests());
    command
        .args(["shell", "--connect", &address])
        .env("XDG_STATE_HOME", home.path());
    let mut terminal = Terminal::start(command, 80, 24);
    terminal.type_keys("scan\r");
    let connection = stop_before_the_second_page(&listener, server.node.address());
    terminal.type_keys("\x03");
    let shown = terminal.expect("cancelled");
    assert!(shown.contains("big1") && !shown.contains("big3"), "{shown}");
    terminal.type_keys("quit\r");
    assert!(terminal.wait().success());
    drop(connection);
}

#[test]
fn a_long_scan_asks_before_it_goes_on() {
    let server = start();
    let lines: Vec<String> = (0..2_500).map(|number| format!("put {number:05} x\n")).collect();
    let filled = run_at(server.node.address(), &["shell"], lines.concat().as_bytes());
    assert_eq!(filled.code, 0, "{}", filled.stderr);
    let home = directory();
    let mut command = Command::new(binary::for_tests());
    command
        .args(["shell", "--connect", server.node.address()])
        .env("XDG_STATE_HOME", home.path());
    let mut terminal = Terminal::start(command, 80, 24);
    terminal.type_keys("scan --keys-only\r");
    terminal.expect("1000 lines so far");
    terminal.type_keys("\r");
    terminal.expect("2000 lines so far");
    terminal.type_keys("n\r");
    terminal.expect("stopped after 2000 entries");
    terminal.type_keys("scan\r");
    terminal.expect("1000 lines so far");
    terminal.type_keys("\x03");
    terminal.expect("stopped after 1000 entries");
    terminal.type_keys("quit\r");
    assert!(terminal.wait().success());
}
