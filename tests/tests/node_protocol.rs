//! The client protocol against the real server: greetings, garbage, conditions, pipelines, scans, limits.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it drives real processes and sockets"
)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::time::Duration;

use ostrakon_client::{
    Answer, Client, ClusterId, Condition, Error, ErrorCode, Options, Request, Response, ScanOptions, Written,
};
use ostrakon_tests::process::{Node, NodeCommand, binary};
use ostrakon_wire::frame;
use ostrakon_wire::limits::{BODY_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use ostrakon_wire::message::{Encoder, Hello, PROTOCOL_VERSION};
use ostrakon_wire::routing::{key_hash, shard_of};
use tempfile::TempDir;

const SHARDS: u32 = 16;
const CORES: u16 = 2;

/// A node of its own for each test.
struct Server {
    node: Node,
    _directory: TempDir,
}

impl Deref for Server {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

fn server() -> Server {
    let directory =
        tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory is writable");
    let command = NodeCommand::new(binary::for_tests(), &directory.path().join("node"), CORES).shards(SHARDS);
    let node = command.start().unwrap_or_else(|refusal| panic!("{refusal}"));
    Server {
        node,
        _directory: directory,
    }
}

impl Server {
    fn any_client(&self) -> Client {
        self.client(None).expect("the node answers")
    }

    fn refused(&self, options: Options) -> (ErrorCode, String) {
        match Client::connect(self.address(), options) {
            Err(Error::Server { code, message, .. }) => (code, message),
            other => panic!("{other:?}"),
        }
    }

    fn stream(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).expect("the node listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("the timeout is positive");
        stream
    }

    /// A stream whose hello is answered.
    fn greeted_stream(&self) -> TcpStream {
        let mut stream = self.stream();
        stream.write_all(&hello()).expect("the node reads");
        let (kind, _, body) = read_frame(&mut stream).expect("the node answers");
        assert!(matches!(Response::decode(kind, &body), Ok(Response::Hello(_))));
        stream
    }

    /// A counter of the status, summed over the cores.
    fn counter(&self, name: &str) -> u64 {
        let json = self.any_client().status().expect("the node answers");
        let status: serde_json::Value = serde_json::from_str(&json).expect("the status is JSON");
        let cores = status["cores"].as_array().expect("a status lists its cores");
        cores
            .iter()
            .map(|core| core[name].as_u64().expect("a counter"))
            .sum()
    }
}

fn hello() -> Vec<u8> {
    let mut frame = Vec::new();
    let hello = Hello {
        version_min: PROTOCOL_VERSION,
        version_max: PROTOCOL_VERSION,
        cluster_id: ClusterId::ANY,
        core: None,
        client: "test",
    };
    Encoder::new().request(&mut frame, 0, 0, &Request::Hello(hello));
    frame
}

/// Kind, request id and body of the next frame; `None` at the end of the stream.
fn read_frame(stream: &mut TcpStream) -> Option<(u16, u64, Vec<u8>)> {
    let mut bytes = vec![0; frame::HEADER_BYTES];
    stream.read_exact(&mut bytes).ok()?;
    let whole = frame::frame_bytes(&bytes).expect("a header tells the length");
    bytes.resize(whole, 0);
    stream.read_exact(&mut bytes[frame::HEADER_BYTES..]).ok()?;
    let (header, body) = frame::decode(&bytes, BODY_BYTES_MAX)
        .expect("the node sends frames")
        .expect("it is whole");
    Some((header.kind, header.request_id, body.to_vec()))
}

#[track_caller]
fn assert_told_and_closed(mut stream: TcpStream, expected: ErrorCode) {
    let (kind, request_id, body) = read_frame(&mut stream).expect("the node says why");
    match Response::decode(kind, &body) {
        Ok(Response::Error(error)) => {
            assert_eq!((error.code, request_id), (expected, 0), "{}", error.message);
            assert!(error.message.len() > 20, "{}", error.message);
        }
        other => panic!("{other:?}"),
    }
    assert!(read_frame(&mut stream).is_none(), "the connection is closed");
}

fn written(answer: Answer) -> Written {
    match answer {
        Answer::Write(written) => written,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_hello_chooses_the_core_and_is_refused_in_words() {
    let server = server();
    for core in (0..CORES).chain(0..CORES) {
        let mut client = server.client(Some(core)).expect("the core is there");
        assert_eq!((client.server().core, client.server().cores), (core, CORES));
        assert_eq!(client.server().shards, SHARDS);
        assert_eq!(client.server().cluster_id.to_string(), server.greeting().cluster);
        let version = client
            .put(b"key", &core.to_le_bytes())
            .expect("the handed-over connection serves");
        assert_eq!(
            client.get(b"key").expect("and reads").map(|value| value.version),
            Some(version)
        );
    }
    let (code, message) = server.refused(Options {
        core: Some(CORES),
        ..Options::default()
    });
    assert_eq!(code, ErrorCode::BadRequest);
    assert!(message.contains(&CORES.to_string()), "{message}");
    let other = ClusterId { high: 1, low: 2 };
    let (code, message) = server.refused(Options {
        cluster_id: other,
        ..Options::default()
    });
    assert_eq!(code, ErrorCode::WrongCluster);
    assert!(
        message.contains(&server.greeting().cluster) && message.contains(&other.to_string()),
        "{message}"
    );
}

#[test]
fn garbage_is_answered_with_an_error_and_the_end() {
    let server = server();
    let mut flipped = hello();
    *flipped.last_mut().expect("a hello has bytes") ^= 1;
    let mut flags = hello();
    flags[26] = 1;
    for garbage in [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        vec![0xFF; 64],
        flipped,
        flags,
    ] {
        let mut stream = server.stream();
        stream.write_all(&garbage).expect("the node reads");
        assert_told_and_closed(stream, ErrorCode::BadFrame);
        let mut stream = server.greeted_stream();
        stream.write_all(&garbage).expect("the node reads");
        assert_told_and_closed(stream, ErrorCode::BadFrame);
    }
    server.any_client().ping().expect("the others go on");
}

#[test]
fn a_half_sent_frame_waits_and_a_half_open_connection_harms_nobody() {
    let server = server();
    let mut stream = server.stream();
    let hello = hello();
    let (first, second) = hello.split_at(hello.len() / 2);
    stream.write_all(first).expect("the node reads");
    server.any_client().ping().expect("others are served meanwhile");
    stream.write_all(second).expect("the node reads");
    assert!(read_frame(&mut stream).is_some(), "the whole hello is answered");
    stream.write_all(first).expect("the node reads");
    drop(stream);
    server.any_client().ping().expect("the node goes on");
}

#[test]
fn pipelined_requests_on_all_cores_are_all_answered() {
    let server = server();
    let mut client = server.client(Some(0)).expect("the node answers");
    let key = |number: u32| format!("key {number}").into_bytes();
    let topology = client.topology().expect("the node answers");
    let owner = |number| topology.owners[shard_of(key_hash(&key(number)), SHARDS).0 as usize];
    let elsewhere = (0..2000).filter(|number| owner(*number) != 0).count() as u64;
    assert!(
        (200..1800).contains(&elsewhere),
        "both cores own keys: {elsewhere}"
    );
    let before = server.counter("forwarded");
    let mut pipeline = client.pipeline();
    let puts: Vec<_> = (0..2000)
        .map(|number| {
            pipeline
                .put(&key(number), &number.to_le_bytes())
                .expect("it is taken")
        })
        .collect();
    let versions: Vec<u64> = puts
        .into_iter()
        .map(|ticket| written(pipeline.wait(ticket).expect("it is answered")))
        .inspect(|written| assert!(written.applied))
        .map(|written| written.version)
        .collect();
    let gets: Vec<_> = (0..2000)
        .map(|number| pipeline.get(&key(number)).expect("it is taken"))
        .collect();
    for (number, ticket) in gets.into_iter().enumerate() {
        let Ok(Answer::Get(Some(value))) = pipeline.wait(ticket) else {
            panic!("key {number}")
        };
        assert_eq!(
            (value.version, value.value),
            (versions[number], (number as u32).to_le_bytes().to_vec())
        );
    }
    assert_eq!(server.counter("forwarded") - before, 2 * elsewhere);
    let distinct: std::collections::BTreeSet<u64> = versions.iter().copied().collect();
    assert!(distinct.len() > 1000, "versions are timestamps, not constants");
}

#[test]
fn conditions_compare_with_the_newest_version() {
    let server = server();
    let mut client = server.any_client();
    let mut put = |value: &[u8], condition| client.put_if(b"key", value, condition).expect("it is answered");
    let failed = |version| Written {
        applied: false,
        version,
    };
    assert_eq!(put(b"0", Condition::Present), failed(0));
    assert_eq!(put(b"0", Condition::Version(7)), failed(0));
    let first = put(b"1", Condition::Absent);
    assert!(first.applied);
    assert_eq!(put(b"0", Condition::Absent), failed(first.version));
    let second = put(b"2", Condition::Present);
    assert!(second.applied && second.version > first.version);
    assert_eq!(
        put(b"0", Condition::Version(first.version)),
        failed(second.version)
    );
    let third = put(b"3", Condition::Version(second.version));
    assert!(third.applied && third.version > second.version);
    let mut delete = |condition| client.delete_if(b"key", condition).expect("it is answered");
    assert_eq!(delete(Condition::Absent), failed(third.version));
    assert_eq!(delete(Condition::Version(second.version)), failed(third.version));
    let deleted = delete(Condition::Version(third.version));
    assert!(deleted.applied && deleted.version > third.version);
    assert!(!delete(Condition::Present).applied, "what is deleted is absent");
    assert_eq!(client.get(b"key").expect("it is answered"), None);
    let again = client
        .put_if(b"key", b"4", Condition::Absent)
        .expect("it is answered");
    assert!(again.applied && again.version > deleted.version);
}

#[test]
fn of_two_writes_in_flight_that_want_the_key_absent_one_is_applied() {
    let server = server();
    for core in 0..CORES {
        let mut client = server.client(Some(core)).expect("the node answers");
        let mut pipeline = client.pipeline();
        let mut submit = |number: u32, value: &[u8]| {
            let key = format!("core {core} key {number}");
            let condition = Condition::Absent;
            pipeline
                .submit(&Request::put(key.as_bytes(), value, condition))
                .expect("it is taken")
        };
        let tickets: Vec<_> = (0..100)
            .map(|number| [submit(number, b"a"), submit(number, b"b")])
            .collect();
        let mut outcomes = Vec::new();
        for pair in tickets {
            outcomes.push(pair.map(|ticket| written(pipeline.wait(ticket).expect("it is answered"))));
        }
        drop(pipeline);
        for (number, [a, b]) in outcomes.into_iter().enumerate() {
            assert!(a.applied != b.applied, "key {number}: {a:?} {b:?}");
            assert_eq!(
                a.version, b.version,
                "the one that failed is told the version of the other"
            );
            let found = client
                .get(format!("core {core} key {number}").as_bytes())
                .expect("it is answered");
            let found = found.expect("one was applied");
            let value: &[u8] = if a.applied { b"a" } else { b"b" };
            assert_eq!((found.version, found.value.as_slice()), (a.version, value));
        }
    }
}

#[test]
fn a_scan_over_pages_does_not_see_later_writes() {
    let server = server();
    let (mut reader, mut writer) = (server.any_client(), server.any_client());
    let key = |number: u32| format!("key {number:04}").into_bytes();
    let versions: Vec<u64> = (0..300)
        .map(|number| writer.put(&key(2 * number), b"old").expect("it is answered"))
        .collect();
    let options = ScanOptions {
        page_limit: 50,
        ..ScanOptions::prefix(b"key ")
    };
    let mut scan = reader.scan(options.clone());
    let first = scan.next().expect("there are keys").expect("it is answered");
    let snapshot = scan.snapshot();
    assert!(
        versions.iter().all(|version| *version <= snapshot),
        "the snapshot is after what was acknowledged"
    );
    for number in 0..300 {
        writer.put(&key(2 * number + 1), b"new").expect("it is answered");
        match number % 3 {
            0 => drop(writer.delete(&key(2 * number)).expect("it is answered")),
            1 => drop(writer.put(&key(2 * number), b"new").expect("it is answered")),
            _ => {}
        }
    }
    let rest = scan.collect::<Result<Vec<_>, _>>().expect("it is answered");
    let found: Vec<_> = std::iter::once(first)
        .chain(rest)
        .map(|entry| (entry.key, entry.version, entry.value))
        .collect();
    let expected: Vec<_> = versions
        .iter()
        .zip(0..)
        .map(|(version, number)| (key(2 * number), *version, b"old".to_vec()))
        .collect();
    assert_eq!(found, expected);
    let later = reader
        .scan(options)
        .collect::<Result<Vec<_>, _>>()
        .expect("it is answered");
    assert_eq!(later.len(), 500);
    assert_eq!(later.iter().filter(|entry| entry.value == b"new").count(), 400);
    let range = ScanOptions {
        keys_only: true,
        ..ScanOptions::range(&key(1), &key(4))
    };
    let keys = reader
        .scan(range)
        .collect::<Result<Vec<_>, _>>()
        .expect("it is answered");
    let keys: Vec<_> = keys.into_iter().map(|entry| (entry.key, entry.value)).collect();
    assert_eq!(
        keys,
        [(key(1), Vec::new()), (key(2), Vec::new()), (key(3), Vec::new())]
    );
}

#[test]
fn keys_with_one_tag_are_on_one_core() {
    let server = server();
    let topology = server.any_client().topology().expect("the node answers");
    for tag in 0..8 {
        let key = |number: u32| format!("{number}{{tag {tag}}}{}", number * 7).into_bytes();
        let shard = shard_of(key_hash(format!("tag {tag}").as_bytes()), SHARDS);
        let owner = topology.owners[shard.0 as usize];
        let mut client = server.client(Some(owner)).expect("the node answers");
        let before = server.counter("forwarded");
        for number in 0..50 {
            client.put(&key(number), b"value").expect("it is answered");
        }
        assert_eq!(
            server.counter("forwarded"),
            before,
            "the owner of {shard:?} needs no other core"
        );
    }
}

#[test]
fn the_largest_value_travels_and_a_larger_one_is_refused() {
    let server = server();
    let mut client = server.any_client();
    let value: Vec<u8> = (0..VALUE_BYTES_MAX).map(|at| (at / 251) as u8).collect();
    let key = vec![b'k'; KEY_BYTES_MAX];
    let version = client.put(&key, &value).expect("it is taken");
    let found = client.get(&key).expect("it is answered").expect("it is there");
    assert!(found.version == version && found.value == value);
    let scanned = client
        .scan(ScanOptions::default())
        .collect::<Result<Vec<_>, _>>()
        .expect("it is answered");
    assert!(scanned.len() == 1 && scanned[0].value == value);

    let mut stream = server.greeted_stream();
    let too_large = [value.as_slice(), b"!"].concat();
    for (key, value) in [
        (b"key".as_slice(), too_large.as_slice()),
        (&[b'k'; KEY_BYTES_MAX + 1], b"value"),
    ] {
        let mut frame = Vec::new();
        let condition = Condition::None;
        Encoder::new().request(&mut frame, 9, 0, &Request::put(key, value, condition));
        stream.write_all(&frame).expect("the node reads");
        let (kind, request_id, body) = read_frame(&mut stream).expect("the node answers");
        match Response::decode(kind, &body) {
            Ok(Response::Error(error)) => assert_eq!((error.code, request_id), (ErrorCode::TooLarge, 9)),
            other => panic!("{other:?}"),
        }
    }
    assert!(
        client.put(b"key", &too_large).is_err(),
        "the client does not even send it"
    );
    assert_eq!(client.get(b"key").expect("it is answered"), None);
}
