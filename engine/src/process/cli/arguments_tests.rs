//! Command lines that are understood and command lines that are refused.

use ostrakon_wire::limits::KEY_BYTES_MAX;

use super::super::requests::{Key, parse_key};
use super::*;

fn invoke(line: &str) -> Result<Invocation, String> {
    let words = std::iter::once("ostrakon").chain(line.split_whitespace());
    Invocation::parse(words.map(OsString::from)).map_err(|error| error.to_string())
}

fn parse(line: &str) -> Result<Command, String> {
    invoke(line).map(|invocation| invocation.command)
}

fn parse_client(line: &str) -> ClientCommand {
    match parse(line) {
        Ok(Command::Client(command)) => command,
        other => panic!("{line}: {other:?}"),
    }
}

#[track_caller]
fn assert_refused(line: &str, words: &str) {
    let error = parse(line).expect_err(line);
    assert!(error.contains(words), "no '{words}' in: {error}");
}

#[test]
fn the_definition_is_consistent() {
    Invocation::definition().debug_assert();
}

#[test]
fn serve_takes_a_flag_for_each_setting() {
    let line = "serve --memory 512MiB --spin --insecure=false --config f.toml --cores 3 --print-config";
    let Ok(Command::Serve(serve)) = parse(line) else {
        panic!("a good command line was refused");
    };
    let flags: Vec<_> = serve
        .flags
        .iter()
        .map(|(name, value)| (*name, value.to_str().unwrap()))
        .collect();
    assert_eq!(
        flags,
        [
            ("cores", "3"),
            ("insecure", "false"),
            ("memory", "512MiB"),
            ("spin", "true")
        ]
    );
    assert_eq!(serve.config, Some(PathBuf::from("f.toml")));
    assert!(serve.print_config);
}

#[test]
fn serve_refuses_flags_that_are_not_there_or_have_no_value() {
    assert_refused("serve --core 3", "unexpected argument '--core'");
    assert_refused("serve --cores", "value is required");
    assert_refused("serve --cores 3 --cores 4", "multiple times");
    assert_refused("serve --spin false", "unexpected argument 'false'");
}

#[test]
fn keys_are_unescaped_and_bounded() {
    let ClientCommand::Get(get) = parse_client(r"get a\x00\\") else {
        panic!("that is a get")
    };
    assert_eq!(get.key, Key(b"a\0\\".to_vec()));
    assert_refused(r"get a\n", "byte 1");
    assert_eq!(parse_key(b"").unwrap_err(), "a key has at least one byte");
    assert!(parse_key(&vec![b'k'; KEY_BYTES_MAX]).is_ok());
    assert!(
        parse_key(&vec![b'k'; KEY_BYTES_MAX + 1])
            .unwrap_err()
            .contains("is the most")
    );
}

#[test]
fn a_write_has_one_condition_at_most() {
    let ClientCommand::Put(put) = parse_client("put k v --if-version 18446744073709551615 --ttl 10s") else {
        panic!("that is a put");
    };
    assert_eq!(
        (put.condition.if_version, put.ttl.ttl_ms),
        (Some(u64::MAX), Some(10_000))
    );
    assert_refused("put k v --if-absent --if-present", "cannot be used with");
    assert_refused("put k v --if-value x --if-version 1", "cannot be used with");
    assert_refused("delete k --if-version x", "invalid value");
    assert_refused("delete k --if-version 0", "1..");
    assert_refused("put k v --ttl 10", "unit");
}

#[test]
fn a_negative_number_is_a_value_and_a_summand() {
    let ClientCommand::Put(put) = parse_client("put k -5") else {
        panic!("that is a put")
    };
    assert_eq!(put.value, Some(OsString::from("-5")));
    for (line, delta) in [("add k", 1), ("add k -5", -5), ("add k 7", 7)] {
        let ClientCommand::Add(add) = parse_client(line) else {
            panic!("that is an add")
        };
        assert_eq!(add.delta, delta);
    }
    assert_refused("add k 9223372036854775808", "too large");
}

#[test]
fn several_keys_need_one_at_least_and_pairs_two_words() {
    let ClientCommand::Mget(mget) = parse_client("mget a b") else {
        panic!("that is an mget")
    };
    assert_eq!(mget.keys, [Key(b"a".to_vec()), Key(b"b".to_vec())]);
    let ClientCommand::Mput(mput) = parse_client("mput a 1 b -2") else {
        panic!("that is an mput")
    };
    assert_eq!(mput.pairs, ["a", "1", "b", "-2"]);
    assert_refused("mget", "required");
    assert_refused("mput a", "2 values");
}

#[test]
fn a_range_to_delete_has_to_be_named() {
    let parsed = |line: &str| {
        let ClientCommand::DeleteRange(range) = parse_client(line) else {
            panic!("that is a delete-range")
        };
        let bytes = |key: Option<Key>| key.map(|key| key.0);
        (
            bytes(range.start),
            bytes(range.end),
            bytes(range.prefix),
            range.all,
        )
    };
    let key = |key: &str| Some(key.as_bytes().to_vec());
    assert_eq!(parsed("delete-range a b"), (key("a"), key("b"), None, false));
    assert_eq!(parsed("delete-range a"), (key("a"), None, None, false));
    assert_eq!(parsed("delete-range --prefix p"), (None, None, key("p"), false));
    assert_eq!(parsed("delete-range --all"), (None, None, None, true));
    assert_refused("delete-range", "required");
    assert_refused("delete-range a --prefix p", "cannot be used with");
    assert_refused("delete-range a --all", "cannot be used with");
}

#[test]
fn a_scan_has_bounds_a_prefix_and_a_direction() {
    let ClientCommand::Scan(scan) = parse_client("scan a --end b --prefix p --limit 3 --keys-only --reverse")
    else {
        panic!("that is a scan");
    };
    let options = scan.range.scan_options(scan.start.as_ref());
    assert_eq!(
        (&options.start[..], options.end.as_deref(), &options.prefix[..]),
        (&b"a"[..], Some(&b"b"[..]), &b"p"[..])
    );
    assert_eq!((scan.limit, scan.keys_only, scan.reverse), (Some(3), true, true));
    assert_refused("scan --limit 0", "1..");
}

#[test]
fn client_commands_have_common_options_and_others_do_not() {
    let (connect, print) = invoke("ping --connect localhost:1 --json --timing")
        .unwrap()
        .client
        .expect("a client command");
    assert_eq!(connect.connect, "localhost:1");
    assert!(print.json && print.timing);
    let help = Invocation::definition().render_help().to_string();
    assert!(
        help.contains("Ask the node for a sign of life"),
        "each keeps its own description: {help}"
    );
    assert!(invoke("serve").unwrap().client.is_none());
    assert_refused("serve --connect localhost:1", "unexpected argument");
    let Ok(Command::Shell(shell)) = parse("shell --connect localhost:1 --keep-going") else {
        panic!("a good command line was refused");
    };
    assert!(shell.keep_going && shell.connect.connect == "localhost:1");
}
