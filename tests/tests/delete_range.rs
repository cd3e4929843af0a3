//! Ranges that are deleted in a real node: in all shards, before and after restarts, beside other writes.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it drives real processes and sockets"
)]

use ostrakon_client::{Answer, Client, Condition, Error, ErrorCode, PutEntry, Request, ScanOptions};
use ostrakon_tests::process::{Node, NodeCommand, binary};
use tempfile::TempDir;

/// Keys of a test: enough that each shard has some.
const KEYS: u32 = 80;

struct Server {
    command: NodeCommand,
    node: Option<Node>,
    _directory: TempDir,
}

impl Server {
    fn start() -> Server {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let command = NodeCommand::new(binary::for_tests(), &directory.path().join("node"), 2).shards(16);
        let mut server = Server {
            command,
            node: None,
            _directory: directory,
        };
        server.start_with(2);
        server
    }

    fn start_with(&mut self, cores: u16) {
        let node = self.command.clone().cores(cores).start();
        self.node = Some(node.unwrap_or_else(|refusal| panic!("{refusal}")));
    }

    fn client(&self) -> Client {
        self.node.as_ref().unwrap().client(None).unwrap()
    }
}

fn key(number: u32) -> Vec<u8> {
    format!("key {number:04}").into_bytes()
}

fn fill(client: &mut Client) {
    let keys: Vec<Vec<u8>> = (0..KEYS).map(key).collect();
    let entries: Vec<PutEntry<'_>> = keys
        .iter()
        .map(|key| PutEntry {
            key,
            value: b"v",
            ttl_ms: 0,
        })
        .collect();
    let written = client.multi_put(&entries).unwrap();
    assert!(written.results.iter().all(Result::is_ok));
}

/// The numbers of the keys that are there, by gets and by a scan in each direction.
fn present(client: &mut Client) -> Vec<u32> {
    let got = (0..KEYS).filter(|number| client.get(&key(*number)).unwrap().is_some());
    let got: Vec<u32> = got.collect();
    for reverse in [false, true] {
        let options = ScanOptions {
            prefix: b"key ".to_vec(),
            reverse,
            ..ScanOptions::default()
        };
        let mut scanned: Vec<Vec<u8>> = client.scan(options).map(|entry| entry.unwrap().key).collect();
        scanned.sort();
        assert_eq!(scanned, got.iter().copied().map(key).collect::<Vec<_>>());
    }
    got
}

#[test]
fn a_range_goes_in_all_shards_and_stays_gone() {
    let mut server = Server::start();
    let mut client = server.client();
    fill(&mut client);
    client.put(b"another", b"stays").unwrap();
    let version = client.delete_range(&key(20), Some(&key(60))).unwrap();
    let left: Vec<u32> = (0..20).chain(60..KEYS).collect();
    assert_eq!(present(&mut client), left);
    // What is written now is newer, and finds nothing.
    let written = client.put_if(&key(30), b"new", Condition::Absent).unwrap();
    assert!(written.applied && written.version > 0 && version > 0);
    let refused = client.put_if(&key(31), b"new", Condition::Present).unwrap();
    assert_eq!((refused.applied, refused.version), (false, 0));
    assert_eq!(client.add(&key(32), 5).unwrap().1, 5);
    let expected: Vec<u32> = (0..20).chain([30, 32]).chain(60..KEYS).collect();
    assert_eq!(present(&mut client), expected);
    for cores in [1, 3] {
        drop(client);
        server.node.take().unwrap().kill();
        server.start_with(cores);
        client = server.client();
        assert_eq!(present(&mut client), expected, "{cores} cores");
    }
    client.delete_prefix(b"key 0").unwrap();
    assert_eq!(present(&mut client), [0; 0]);
    assert!(client.get(b"another").unwrap().is_some());
    client.delete_range(b"", None).unwrap();
    assert!(client.get(b"another").unwrap().is_none());
}

#[test]
fn writes_in_flight_are_ordered_with_it() {
    let server = Server::start();
    let mut client = server.client();
    for round in 0..20_u32 {
        let (before, after) = (key(round), key(round + 1000));
        let mut pipeline = client.pipeline();
        let put = |key| Request::put(key, b"1", Condition::None);
        let range = Request::DeleteRange {
            start: b"key",
            end: Some(b"key~"),
            retry: None,
        };
        let requests = [
            put(&before),
            range,
            Request::put(&before, b"2", Condition::Absent),
            put(&after),
        ];
        let tickets: Vec<_> = requests
            .iter()
            .map(|request| pipeline.submit(request).unwrap())
            .collect();
        let answers: Vec<Answer> = tickets
            .into_iter()
            .map(|ticket| pipeline.wait(ticket).unwrap())
            .collect();
        drop(pipeline);
        let found = client.get(&before).unwrap();
        let Answer::Write(conditional) = &answers[2] else {
            panic!("{answers:?}");
        };
        // Requests of one connection have no order among themselves; but what was decided is what is there.
        let Answer::Write(first) = &answers[0] else {
            panic!("{answers:?}");
        };
        let newest = first.version.max(if conditional.applied {
            conditional.version
        } else {
            0
        });
        if let Some(found) = &found {
            assert_eq!(found.version, newest, "round {round}: {answers:?}");
        }
        if !conditional.applied {
            assert!(conditional.version <= first.version, "round {round}: {answers:?}");
        }
    }
}

#[test]
fn bounds_that_hold_no_key_are_refused() {
    let server = Server::start();
    let mut client = server.client();
    let refusal = |answer: Result<u64, Error>| match answer {
        Err(Error::Submit(_)) => None,
        Err(Error::Server { code, .. }) => Some(code),
        other => panic!("{other:?}"),
    };
    let is_refused = |code: Option<ErrorCode>| code.is_none_or(|code| code == ErrorCode::BadRequest);
    assert!(is_refused(refusal(client.delete_range(b"b", Some(b"a")))));
    assert!(is_refused(refusal(client.delete_range(b"b", Some(b"b")))));
    client.put(b"b", b"stays").unwrap();
    assert!(client.get(b"b").unwrap().is_some());
}
