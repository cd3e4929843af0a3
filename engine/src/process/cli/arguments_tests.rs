//! Command lines that are understood and command lines that are refused.

use super::*;

fn parse(line: &str) -> Result<Command, String> {
    let words = std::iter::once("ostrakon").chain(line.split_whitespace());
    Cli::try_parse_from(words)
        .map(|cli| cli.command)
        .map_err(|error| error.to_string())
}

#[track_caller]
fn assert_refused(line: &str, words: &str) {
    let error = parse(line).expect_err(line);
    assert!(error.contains(words), "no '{words}' in: {error}");
}

#[test]
fn the_definition_is_consistent() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
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
    let Ok(Command::Get(get)) = parse(r"get a\x00\\") else {
        panic!("a good key was refused")
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
    let Ok(Command::Put(put)) = parse("put k v --if-version 18446744073709551615") else {
        panic!("a good condition was refused");
    };
    assert_eq!(put.condition.if_version, Some(u64::MAX));
    assert_refused("put k v --if-absent --if-present", "cannot be used with");
    assert_refused("delete k --if-version x", "invalid value");
}

#[test]
fn a_negative_number_is_a_value() {
    let Ok(Command::Put(put)) = parse("put k -5") else {
        panic!("a negative number was refused")
    };
    assert_eq!(put.value, Some(OsString::from("-5")));
}

#[test]
fn a_scan_has_a_prefix_or_bounds() {
    let Ok(Command::Scan(scan)) = parse("scan a --end b --limit 3 --keys-only") else {
        panic!("a good scan was refused");
    };
    assert_eq!(
        (scan.start, scan.end, scan.limit),
        (Some(Key(b"a".to_vec())), Some(Key(b"b".to_vec())), Some(3))
    );
    assert_refused("scan a --prefix b", "cannot be used with");
    assert_refused("scan --limit 0", "1..");
}
