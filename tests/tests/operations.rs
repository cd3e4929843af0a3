//! Each operation of the protocol against a real node, and the stages of its time.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it drives real processes and sockets"
)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ostrakon_client::{
    Action, Answer, BatchOperation, Client, Condition, Error, ErrorCode, Options, Protocol, PutEntry,
    PutOptions, Request, Response, ScanOptions,
};
use ostrakon_tests::process::{Node, NodeCommand, binary};
use ostrakon_wire::message::{BatchOperations, Keys, PutEntries};
use tempfile::TempDir;

/// A millisecond on the scale of timestamps.
const MILLISECOND: u64 = 1_000 << 12;
/// Longer than any test takes.
const PATIENCE: Duration = Duration::from_mins(1);

/// A node of its own for each test.
struct Server {
    node: Node,
    _directory: TempDir,
}

fn server() -> Server {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let command = NodeCommand::new(binary::for_tests(), &directory.path().join("node"), 2).shards(16);
    let node = command.start().unwrap_or_else(|refusal| panic!("{refusal}"));
    Server {
        node,
        _directory: directory,
    }
}

impl Server {
    fn client(&self) -> Client {
        self.node.client(None).unwrap()
    }
}

#[track_caller]
fn refusal<T: std::fmt::Debug>(answer: Result<T, Error>) -> ErrorCode {
    match answer {
        Err(Error::Server { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

fn value(client: &mut Client, key: &[u8]) -> Option<Vec<u8>> {
    client.get(key).unwrap().map(|found| found.value)
}

fn operation<'a>(key: &'a [u8], action: Action<'a>, condition: Condition<'a>) -> BatchOperation<'a> {
    BatchOperation {
        key,
        action,
        condition,
    }
}

fn put(value: &[u8]) -> Action<'_> {
    Action::Put { value, ttl_ms: 0 }
}

#[test]
fn adds_count() {
    let server = server();
    let mut client = server.client();
    let (first, number) = client.add(b"n", 5).unwrap();
    assert_eq!(number, 5);
    let (second, number) = client.add(b"n", -7).unwrap();
    assert!(second > first);
    assert_eq!((number, value(&mut client, b"n")), (-2, Some(b"-2".to_vec())));
    assert_eq!(refusal(client.add(b"n", i64::MIN)), ErrorCode::NumberOverflow);
    client.put(b"t", b"2 apples").unwrap();
    assert_eq!(refusal(client.add(b"t", 1)), ErrorCode::NotANumber);
    assert_eq!(value(&mut client, b"t"), Some(b"2 apples".to_vec()));
    // Many at once, none lost.
    let mut pipeline = client.pipeline();
    let add = Request::Add {
        key: b"many",
        delta: 1,
        ttl_ms: 0,
        retry: None,
    };
    let tickets: Vec<_> = (0..100).map(|_| pipeline.submit(&add).unwrap()).collect();
    let mut sums: Vec<i64> = tickets
        .into_iter()
        .map(|ticket| match pipeline.wait(ticket).unwrap() {
            Answer::Add { number, .. } => number,
            other => panic!("{other:?}"),
        })
        .collect();
    sums.sort_unstable();
    assert_eq!(sums, (1..=100).collect::<Vec<i64>>());
}

#[test]
fn values_are_conditions() {
    let server = server();
    let mut client = server.client();
    let version = client.put(b"k", b"one").unwrap();
    let written = client.put_if(b"k", b"two", Condition::Value(b"on")).unwrap();
    assert_eq!((written.applied, written.version), (false, version));
    assert!(
        client
            .put_if(b"k", b"two", Condition::Value(b"one"))
            .unwrap()
            .applied
    );
    assert!(!client.delete_if(b"k", Condition::Value(b"one")).unwrap().applied);
    assert!(client.delete_if(b"k", Condition::Value(b"two")).unwrap().applied);
    let written = client.put_if(b"k", b"three", Condition::Value(b"")).unwrap();
    assert_eq!(
        (written.applied, written.version),
        (false, 0),
        "absent is not empty"
    );
}

#[test]
fn what_is_put_for_a_while_is_gone_afterwards() {
    let server = server();
    let mut client = server.client();
    let for_a_while = |ttl_ms| PutOptions {
        ttl_ms,
        ..PutOptions::default()
    };
    let long = client.put_with(b"long", b"x", for_a_while(3_600_000)).unwrap();
    let found = client.get(b"long").unwrap().unwrap();
    assert_eq!(found.expires, long.version + 3_600_000 * MILLISECOND);
    client.put(b"long", b"y").unwrap();
    assert_eq!(
        client.get(b"long").unwrap().unwrap().expires,
        0,
        "a put without one stays"
    );
    let short = client.put_with(b"short", b"x", for_a_while(30)).unwrap();
    let expires = short.version + 30 * MILLISECOND;
    let begun = Instant::now();
    while let Some(found) = client.get(b"short").unwrap() {
        assert_eq!(found.expires, expires);
        assert!(begun.elapsed() < PATIENCE, "it never goes");
    }
    assert!(client.timestamp() >= expires, "gone before its time");
    assert_eq!(client.multi_get(&[b"short", b"long"]).unwrap()[0], None);
    let scanned: Vec<Vec<u8>> = client
        .scan(ScanOptions::default())
        .map(|entry| entry.unwrap().key)
        .collect();
    assert_eq!(scanned, [b"long".to_vec()]);
    assert_eq!(
        client.add_with(b"short", 4, 3_600_000).unwrap().1,
        4,
        "it counts from 0 again"
    );
    let (version, _) = client.add(b"short", 1).unwrap();
    let found = client.get(b"short").unwrap().unwrap();
    assert!(
        found.version == version && found.expires > version,
        "an add keeps the expiry: {found:?}"
    );
}

#[test]
fn several_keys_at_once() {
    let server = server();
    let mut client = server.client();
    let keys: Vec<Vec<u8>> = (0..50)
        .map(|number| format!("key {number:02}").into_bytes())
        .collect();
    let entries: Vec<PutEntry<'_>> = keys
        .iter()
        .map(|key| PutEntry {
            key,
            value: key,
            ttl_ms: 0,
        })
        .collect();
    let written = client.multi_put(&entries).unwrap();
    let versions: Vec<u64> = written
        .results
        .into_iter()
        .map(|result| result.unwrap())
        .collect();
    let mut asked: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    asked.push(b"absent");
    asked.push(b"key 07");
    let found = client.multi_get(&asked).unwrap();
    for (number, key) in keys.iter().enumerate() {
        let found = found[number].as_ref().unwrap();
        assert_eq!((&found.value, found.version), (key, versions[number]));
    }
    assert_eq!((&found[50], &found[51]), (&None, &found[7]));
}

#[test]
fn a_batch_is_done_whole_or_not_at_all() {
    let server = server();
    let mut client = server.client();
    let version = client.put(b"{b}1", b"one").unwrap();
    let operations = [
        operation(b"{b}1", Action::Delete, Condition::Version(version)),
        operation(b"{b}2", put(b"two"), Condition::Absent),
        operation(b"{b}3", Action::Add { delta: 2, ttl_ms: 0 }, Condition::None),
        operation(b"{b}4", Action::Check, Condition::Absent),
        operation(b"{b}5", Action::Add { delta: -9, ttl_ms: 0 }, Condition::None),
    ];
    let reply = client.batch(&operations).unwrap();
    assert!(reply.applied && reply.version > version, "{reply:?}");
    assert_eq!(reply.numbers, [2, -9]);
    assert_eq!(value(&mut client, b"{b}1"), None);
    assert_eq!(client.get(b"{b}2").unwrap().unwrap().version, reply.version);
    let again = client.batch(&operations).unwrap();
    assert_eq!((again.applied, again.failed, again.version), (false, 0, 0));
    let operations = [
        operation(b"{b}9", put(b"nine"), Condition::None),
        operation(b"{b}2", Action::Check, Condition::Value(b"2")),
    ];
    let refused = client.batch(&operations).unwrap();
    assert_eq!(
        (refused.applied, refused.failed, refused.version),
        (false, 1, reply.version)
    );
    assert_eq!(value(&mut client, b"{b}9"), None);
    let keys: Vec<Vec<u8>> = (0..40).map(|number| vec![b'k', number]).collect();
    let apart: Vec<BatchOperation<'_>> = keys
        .iter()
        .map(|key| operation(key, put(b"x"), Condition::None))
        .collect();
    assert_eq!(refusal(client.batch(&apart)), ErrorCode::NotOneShard);
    assert!(
        client
            .multi_get(&[&keys[0], &keys[39]])
            .unwrap()
            .iter()
            .all(Option::is_none)
    );
}

#[test]
fn scans_go_both_ways_and_by_prefix() {
    let server = server();
    let mut client = server.client();
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for number in 0..30_u8 {
        let prefix = if number % 3 == 0 { &b"a/"[..] } else { b"b/" };
        let key = [prefix, &[number]].concat();
        client.put(&key, b"x").unwrap();
        keys.push(key);
    }
    keys.sort();
    let scan = |client: &mut Client, options| -> Vec<Vec<u8>> {
        client.scan(options).map(|entry| entry.unwrap().key).collect()
    };
    let paged = ScanOptions {
        page_limit: 4,
        ..ScanOptions::default()
    };
    assert_eq!(scan(&mut client, paged.clone()), keys);
    let back = ScanOptions {
        reverse: true,
        ..paged.clone()
    };
    let reversed: Vec<Vec<u8>> = keys.iter().rev().cloned().collect();
    assert_eq!(scan(&mut client, back), reversed);
    let of_prefix = ScanOptions {
        prefix: b"b/".to_vec(),
        reverse: true,
        ..paged
    };
    let expected: Vec<Vec<u8>> = reversed
        .into_iter()
        .filter(|key| key.starts_with(b"b/"))
        .collect();
    assert_eq!(scan(&mut client, of_prefix), expected);
}

#[test]
fn a_cancel_says_whether_it_came_in_time() {
    let server = server();
    let mut stream = TcpStream::connect(server.node.address()).unwrap();
    let mut protocol = Protocol::new(&Options::default()).unwrap();
    let mut is_sent = false;
    loop {
        if protocol.server().is_some() && !is_sent {
            protocol.submit(&Request::Cancel { request_id: 1 << 60 }).unwrap();
            is_sent = true;
        }
        let count = stream.write(protocol.bytes_to_send()).unwrap();
        protocol.sent(count);
        let count = stream.read(protocol.receive_room()).unwrap();
        assert!(count > 0, "the server closed the connection");
        protocol.received(count);
        if let Some((_, response)) = protocol.next_response().unwrap() {
            assert_eq!(response, Response::Cancel { cancelled: false });
            return;
        }
    }
}

#[test]
fn statistics_are_an_object() {
    let server = server();
    let mut client = server.client();
    for json in [client.stats().unwrap(), client.status().unwrap()] {
        let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert!(
            parsed.as_object().is_some_and(|object| !object.is_empty()),
            "{json}"
        );
    }
}

#[test]
fn every_answer_can_tell_where_its_time_went() {
    let server = server();
    let mut client = server.client();
    let operations = [operation(b"{t}", put(b"x"), Condition::None)];
    let entries = [PutEntry {
        key: b"t",
        value: b"x",
        ttl_ms: 0,
    }];
    let keys: [&[u8]; 2] = [b"t", b"u"];
    let requests = [
        Request::Ping,
        Request::put(b"t", b"x", Condition::None),
        Request::Get { key: b"t" },
        Request::delete(b"t", Condition::None),
        Request::Add {
            key: b"n",
            delta: 1,
            ttl_ms: 0,
            retry: None,
        },
        Request::MultiGet {
            keys: Keys::from(&keys[..]),
        },
        Request::MultiPut {
            entries: PutEntries::from(&entries[..]),
            retry: None,
        },
        Request::Batch {
            operations: BatchOperations::from(&operations[..]),
            retry: None,
        },
        Request::Scan(ostrakon_client::ScanRequest::ALL),
        Request::Topology,
        Request::Status,
        Request::Stats,
    ];
    for request in &requests {
        let mut ask = |with_timings| {
            client.set_timings(with_timings);
            let begun = Instant::now();
            let mut pipeline = client.pipeline();
            let ticket = pipeline.submit(request).unwrap();
            pipeline.wait(ticket).unwrap();
            drop(pipeline);
            (client.last_timings(), begun.elapsed())
        };
        assert_eq!(ask(false).0, None, "{request:?}");
        let (timings, waited) = ask(true);
        let timings = timings.unwrap_or_else(|| panic!("{request:?}: no timings"));
        let stages = timings.queue_ns + timings.hop_ns + timings.log_ns + timings.apply_ns;
        assert_eq!(stages, timings.total_ns, "{request:?}: {timings:?}");
        assert!(
            u128::from(timings.total_ns) <= waited.as_nanos(),
            "{request:?}: {timings:?}, waited {waited:?}"
        );
        let is_write = request.kind().is_write();
        // What several cores may answer is waited for as a whole, their logs included.
        let is_several = matches!(request, Request::MultiPut { .. });
        let waits_for_log = if is_several {
            timings.hop_ns
        } else {
            timings.log_ns
        };
        assert!(waits_for_log > 0 || !is_write, "{request:?}: {timings:?}");
    }
}
