//! `docs/wire.md` says what the code does: its schema, numbers, limits, test vectors and bytes are compared with it.
//! What it says in sentences is the tests' and the simulator's part.

use ostrakon_wire::frame::{self, HEADER_BYTES, TIMINGS_BYTES};
use ostrakon_wire::limits::{
    BODY_BYTES_MAX, CLIENT_NAME_BYTES_MAX, FRAME_BYTES_MAX, HELLO_BODY_BYTES_MAX, KEY_BYTES_MAX,
    KEY_BYTES_MIN, MULTI_GET_BYTES_MAX, MULTI_MAX, SCAN_BOUND_BYTES_MAX, SCAN_LIMIT_MAX, SCAN_PAGE_BYTES_MAX,
    TTL_MS_MAX, VALUE_BYTES_MAX,
};
use ostrakon_wire::message::{Encoder, ErrorCode, Kind, PUSHED_KINDS, Request, Response};
use ostrakon_wire::routing::{key_hash, routing_key, shard_of};

const DOCUMENT: &str = include_str!("../../docs/wire.md");
const SCHEMA: &str = include_str!("../schema/client.fbs");

/// What lies between a heading and the next of the same level.
fn section(heading: &str) -> &'static str {
    let level = heading
        .split(' ')
        .next()
        .expect("a heading starts with its level");
    let (_, rest) = DOCUMENT
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("docs/wire.md has no heading `{heading}`"));
    rest.split(&format!("\n{level} "))
        .next()
        .expect("split gives something")
}

/// The rows of the tables in a text, without their heads: cells, trimmed.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let mut rows = Vec::new();
    for line in text.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if cells.iter().all(|cell| cell.chars().all(|c| c == '-')) && !cells.concat().is_empty() {
            rows.pop();
        } else {
            rows.push(cells);
        }
    }
    rows
}

fn number(text: &str) -> u64 {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.unwrap_or_else(|_| panic!("`{text}` is no number"))
}

/// A schema's tokens in one line, without comments.
fn bare(schema: &str) -> String {
    let code = schema
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    code.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_schema_is_the_schema() {
    let (_, rest) = section("## Body").split_once("```text\n").expect("a block");
    let (block, _) = rest.split_once("```").expect("its end");
    assert_eq!(
        bare(block),
        bare(SCHEMA),
        "the block in docs/wire.md is not wire/schema/client.fbs"
    );
}

#[test]
fn the_kinds_are_the_kinds() {
    let mut requests = Vec::new();
    for row in rows(section("## Kinds")) {
        let [name, request, reply, answer] = row[..] else {
            panic!("four cells: {row:?}")
        };
        let answer = Kind::try_from(number(answer) as u16).expect("a known kind");
        assert_eq!(format!("{answer:?}"), reply);
        if name == "any" {
            assert_eq!(answer, Kind::Error);
            continue;
        }
        let kind = Kind::try_from(number(request) as u16).expect("a known kind");
        assert_eq!(format!("{kind:?}"), name);
        assert!(kind.is_answered_by(answer), "{kind} is not answered by {answer}");
        requests.push(kind);
    }
    let expected: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| !kind.is_response()).collect();
    assert_eq!(requests, expected);
    let pushed = format!(
        "The numbers 0x{:X} to 0x{:X} are reserved",
        PUSHED_KINDS.start(),
        PUSHED_KINDS.end()
    );
    assert!(section("## Kinds").contains(&pushed), "expected: {pushed}");
}

#[test]
fn the_error_codes_are_the_error_codes() {
    let mut expected = 1;
    for row in rows(section("## Errors")) {
        let code = ErrorCode::from(expected);
        assert_eq!(row[..2], [expected.to_string(), code.to_string()]);
        expected += 1;
    }
    assert_eq!(
        ErrorCode::from(expected),
        ErrorCode::Other(expected),
        "code {expected} is not documented"
    );
}

/// The members of an enum in the schema, with their numbers.
fn members(name: &str) -> Vec<(String, String)> {
    let schema = bare(SCHEMA);
    let (_, rest) = schema
        .split_once(&format!("enum {name} : ubyte {{ "))
        .expect("an enum");
    let (body, _) = rest.split_once('}').expect("its end");
    let pairs = body.split(',').filter_map(|member| member.split_once('='));
    pairs
        .map(|(name, number)| (name.trim().to_owned(), number.trim().to_owned()))
        .collect()
}

#[test]
fn conditions_and_operations_have_their_numbers() {
    let rows = rows(section("## Requests"));
    let documented: Vec<_> = rows
        .iter()
        .map(|row| (row[0].to_owned(), row[1].to_owned()))
        .collect();
    assert_eq!(documented, [members("Condition"), members("Operation")].concat());
}

#[test]
fn the_limits_are_the_limits() {
    let grouped = |number: u64| {
        let digits = number.to_string();
        let groups: Vec<&str> = digits
            .as_bytes()
            .rchunks(3)
            .map(|group| str::from_utf8(group).expect("digits"))
            .collect();
        groups.into_iter().rev().collect::<Vec<_>>().join(",")
    };
    let mib = |bytes: usize| format!("{} MiB ({} bytes)", bytes >> 20, grouped(bytes as u64));
    let rows = rows(section("## Limits"));
    for (what, expected) in [
        ("key", format!("{KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes")),
        ("value", format!("0 to {}", mib(VALUE_BYTES_MAX))),
        ("frame of an answer, header and body", mib(FRAME_BYTES_MAX)),
        ("body of the hello", format!("{HELLO_BODY_BYTES_MAX} bytes")),
        ("name of the client", format!("{CLIENT_NAME_BYTES_MAX} bytes")),
        (
            "keys of a multi-get, entries of a multi-put, operations of a batch",
            format!("1 to {MULTI_MAX} (`multi_max`)"),
        ),
        (
            "values of a multi-get's reply",
            format!("{}, or one value", mib(MULTI_GET_BYTES_MAX)),
        ),
        ("time to live", format!("{} ms, ten years", grouped(TTL_MS_MAX))),
        (
            "scan page",
            format!(
                "{} of keys and values, or one entry; {} entries",
                mib(SCAN_PAGE_BYTES_MAX),
                grouped(SCAN_LIMIT_MAX.into())
            ),
        ),
        (
            "start, end and prefix of a scan; start and end of a delete-range",
            format!("{SCAN_BOUND_BYTES_MAX} bytes"),
        ),
        ("stage timings of an answer", format!("{TIMINGS_BYTES} bytes")),
    ] {
        assert!(
            rows.contains(&vec![what, &expected]),
            "the table has no row | {what} | {expected} |"
        );
    }
}

#[test]
fn keys_find_the_shards_of_the_test_vectors() {
    let vectors = rows(section("## Routing"));
    assert!(vectors.len() >= 10);
    for row in vectors {
        let bytes = |cell: &str| match cell.strip_prefix("bytes ") {
            Some(hexadecimal) => {
                let digits = hexadecimal.trim_matches('`').split(' ');
                digits
                    .map(|byte| u8::from_str_radix(byte, 16).expect("a byte"))
                    .collect()
            }
            None => cell.trim_matches('`').as_bytes().to_vec(),
        };
        let key = bytes(row[0]);
        assert_eq!(routing_key(&key), bytes(row[1]), "{}", row[0]);
        assert_eq!(format!("`{:016x}`", key_hash(&key)), row[2], "{}", row[0]);
        for (cell, shards) in row[3..].iter().zip([1, 8, 64, 4096]) {
            assert_eq!(
                u64::from(shard_of(key_hash(&key), shards).0),
                number(cell),
                "{} of {shards}",
                row[0]
            );
        }
    }
    assert!(section("## Frame").contains(&format!("`0x{:X}`", crc32c::crc32c(b"123456789"))));
}

/// The frames in the examples, by their names.
fn examples() -> Vec<(&'static str, Vec<u8>)> {
    let mut frames: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut is_code = false;
    for line in section("## Example").lines() {
        if line.starts_with("```") {
            is_code = !is_code;
        } else if let Some(name) = line.strip_prefix("# ").filter(|_| is_code) {
            frames.push((name, Vec::new()));
        } else if is_code {
            let (_, frame) = frames.last_mut().expect("a block starts with a name");
            let mut words = line.split_whitespace();
            let offset = words.next().expect("a line starts with its offset");
            assert_eq!(offset.parse(), Ok(frame.len()), "{line}");
            frame.extend(words.map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits")));
        }
    }
    frames
}

/// What this crate would send in its place.
fn encoded_again(bytes: &[u8]) -> Vec<u8> {
    let (header, body) = frame::decode(bytes, BODY_BYTES_MAX)
        .expect("a good frame")
        .expect("a whole frame");
    assert_eq!(header.frame_bytes(), bytes.len());
    let mut again = Vec::new();
    let (id, timestamp) = (header.request_id, header.timestamp);
    if Kind::try_from(header.kind).expect("a known kind").is_response() {
        let (timings, table) = frame::split_timings(&header, body).expect("room for the timings");
        let response = Response::decode(header.kind, table).expect("a response");
        Encoder::new().response(&mut again, id, timestamp, &response);
        if let Some(timings) = timings {
            frame::insert_timings(&mut again, 0, &timings);
        }
    } else {
        let request = Request::decode(header.kind, body).expect("a request");
        Encoder::new().request(&mut again, id, timestamp, &request);
        if header.timings {
            frame::ask_for_timings(&mut again, 0);
        }
    }
    again
}

#[test]
fn the_examples_are_what_is_sent() {
    let mut kinds = Vec::new();
    for (name, bytes) in examples() {
        assert!(bytes.len() >= HEADER_BYTES, "{name} is cut off");
        let expected = encoded_again(&bytes);
        assert_eq!(bytes, expected, "{name} differs; it is sent as {expected:02x?}");
        kinds.push(u16::from_le_bytes([bytes[24], bytes[25]]));
    }
    for kind in [
        Kind::Hello,
        Kind::HelloReply,
        Kind::Put,
        Kind::WriteReply,
        Kind::Get,
        Kind::GetReply,
        Kind::Error,
    ] {
        assert!(kinds.contains(&(kind as u16)), "no example of a {kind}");
    }
    assert!(
        examples().iter().any(|(_, bytes)| bytes[26] == 1),
        "no example with stage timings"
    );
}
