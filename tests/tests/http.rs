//! Metrics and health of a real node, asked as a scraper asks: over plain TCP.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it drives real processes and sockets"
)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use ostrakon_client::Client;
use ostrakon_tests::process::exposition::Exposition;
use ostrakon_tests::process::{Node, NodeCommand, binary};
use ostrakon_wire::message::{ClusterId, Encoder, Hello, PROTOCOL_VERSION, Request};
use tempfile::TempDir;

const CORES: u16 = 2;

fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory is writable")
}

fn command(directory: &TempDir) -> NodeCommand {
    NodeCommand::new(binary::for_tests(), &directory.path().join("node"), CORES).shards(8)
}

fn start(directory: &TempDir) -> Node {
    let node = command(directory).argument("--http=127.0.0.1:0").start();
    node.unwrap_or_else(|refusal| panic!("{refusal}"))
}

/// An answer: status, head in small letters, body.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// Sends these bytes and reads to the end.
fn exchange(node: &Node, request: &str) -> Answer {
    let address = node.greeting().http.as_deref().expect("HTTP is on");
    let mut stream = TcpStream::connect(address).expect("the node listens");
    let timeout = Some(Duration::from_mins(1));
    stream.set_read_timeout(timeout).expect("the timeout is positive");
    stream.write_all(request.as_bytes()).expect("the node reads");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("the node answers and closes");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answer {
        status: status.expect("an answer has a status"),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

fn request(node: &Node, method: &str, path: &str) -> Answer {
    exchange(node, &format!("{method} {path} HTTP/1.1\r\nHost: node\r\n\r\n"))
}

fn get(node: &Node, path: &str) -> Answer {
    request(node, "GET", path)
}

fn metrics(node: &Node) -> Exposition {
    let answer = get(node, "/metrics");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(
        answer.head.contains("content-type: text/plain; version=0.0.4"),
        "{}",
        answer.head
    );
    Exposition::parse(&answer.body).unwrap_or_else(|rule| panic!("{rule}\nin:\n{}", answer.body))
}

#[test]
fn every_page_answers_and_what_is_no_page_is_refused() {
    let directory = directory();
    let node = start(&directory);
    for (path, body) in [("/healthz", "ok\n"), ("/readyz", "ok\n")] {
        let answer = get(&node, path);
        assert_eq!((answer.status, answer.body.as_str()), (200, body));
    }
    let version = get(&node, "/version");
    assert!(
        version.head.contains("content-type: application/json"),
        "{}",
        version.head
    );
    let version: serde_json::Value = serde_json::from_str(&version.body).expect("it is JSON");
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    let found = metrics(&node);
    let info = format!("cluster_id=\"{}\"", node.greeting().cluster);
    assert!((found.sum("ostrakon_node_info", &info) - 1.0).abs() < f64::EPSILON);
    assert_eq!(get(&node, "/metric").status, 404);
    let posted = request(&node, "POST", "/metrics");
    assert_eq!(posted.status, 405);
    assert!(posted.head.contains("allow: get, head"), "{}", posted.head);
    let head = request(&node, "HEAD", "/healthz");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let large = format!("GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    assert_eq!(exchange(&node, &large).status, 431);
    assert_eq!(exchange(&node, "rubbish\r\n\r\n").status, 400);
}

#[test]
fn requests_are_counted_by_operation_stage_and_shard() {
    let directory = directory();
    let node = start(&directory);
    let before = metrics(&node);
    let mut client = node.client(Some(0)).expect("the node answers");
    for number in 0..100 {
        let key = format!("key {number}").into_bytes();
        client.put(&key, b"value").expect("it is answered");
        client.get(&key).expect("it is answered");
    }
    client.delete(b"key 0").expect("it is answered");
    let after = metrics(&node);
    let grown =
        |name: &str, labels: &str| (after.sum(name, labels) - before.sum(name, labels)).round() as i64;
    let requests = |operation: &str| grown("ostrakon_requests_total", &format!("operation=\"{operation}\""));
    assert_eq!(
        (requests("put"), requests("get"), requests("delete")),
        (100, 100, 1)
    );
    assert_eq!(requests("scan"), 0);
    let puts = "operation=\"put\"";
    assert_eq!(grown("ostrakon_request_duration_seconds_count", puts), 100);
    assert!(
        after.sum("ostrakon_request_duration_seconds_sum", puts) > 0.0,
        "a put waits for the disk"
    );
    let forwarded = grown("ostrakon_forwarded_requests_total", "core=\"0\"");
    assert!((1..201).contains(&forwarded), "both cores own keys: {forwarded}");
    assert_eq!(
        grown("ostrakon_stage_duration_seconds_count", "stage=\"hop\""),
        forwarded
    );
    assert_eq!(grown("ostrakon_shard_keys", ""), 100);
    assert_eq!(grown("ostrakon_shard_versions", ""), 101);
    assert_eq!(grown("ostrakon_connections", "core=\"0\""), 1);
    assert!(grown("ostrakon_received_bytes_total", "core=\"0\"") > 201 * 40);
    assert!(grown("ostrakon_sent_bytes_total", "core=\"0\"") > 201 * 40);
    assert_eq!(grown("ostrakon_connections_refused_total", ""), 0);
    let mut stream = TcpStream::connect(node.address()).expect("the node listens");
    stream.write_all(&[0xFF; 64]).expect("the node reads");
    let mut told = Vec::new();
    stream
        .read_to_end(&mut told)
        .expect("the node says why and closes");
    let refused = metrics(&node);
    let bad_frames = refused.sum("ostrakon_connections_refused_total", "reason=\"bad_frame\"");
    assert_eq!(bad_frames.round() as i64, 1);
    let errors = refused.sum("ostrakon_request_errors_total", "code=\"BadFrame\"");
    assert_eq!(errors.round() as i64, 1);
}

#[test]
fn pages_are_served_under_load() {
    let directory = directory();
    let node = start(&directory);
    let load = |core: u16| {
        let mut client: Client = node.client(Some(core)).expect("the node answers");
        move || {
            let mut pipeline = client.pipeline();
            for number in 0..20_000_u32 {
                let key = format!("key {}", number % 100);
                let ticket = pipeline.put(key.as_bytes(), b"value").expect("it is taken");
                if number % 500 == 499 {
                    pipeline.wait(ticket).expect("it is answered");
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let loads: Vec<_> = (0..CORES).map(|core| scope.spawn(load(core))).collect();
        let scrapers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..10 {
                        metrics(&node);
                        assert_eq!(get(&node, "/healthz").body, "ok\n");
                        assert_eq!(get(&node, "/readyz").body, "ok\n");
                    }
                })
            })
            .collect();
        for thread in loads.into_iter().chain(scrapers) {
            thread.join().expect("it does not panic");
        }
    });
}

#[test]
fn a_paused_scraper_holds_up_nobody() {
    let directory = directory();
    let node = start(&directory);
    let address = node.greeting().http.clone().expect("HTTP is on");
    let silent: Vec<_> = (0..10)
        .map(|_| TcpStream::connect(&address).expect("the node listens"))
        .collect();
    assert_eq!(get(&node, "/readyz").status, 200);
    for mut stream in silent {
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\n\r\n")
            .expect("it still listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[test]
fn a_node_that_drains_is_healthy_and_not_ready() {
    let directory = directory();
    let node = start(&directory);
    let mut client = node.client(Some(0)).expect("the node answers");
    client.put(b"key", &vec![b'v'; 1 << 20]).expect("it is answered");
    drop(client);
    // Answers that nobody reads hold up the drain: more of them than all buffers on the way can take.
    let mut stream = TcpStream::connect(node.address()).expect("the node listens");
    let timeout = Some(Duration::from_mins(1));
    stream.set_read_timeout(timeout).expect("the timeout is positive");
    let mut requests = Vec::new();
    let mut encoder = Encoder::new();
    let hello = Hello {
        version_min: PROTOCOL_VERSION,
        version_max: PROTOCOL_VERSION,
        cluster_id: ClusterId::ANY,
        core: None,
        client: "test",
    };
    encoder.request(&mut requests, 0, 0, &Request::Hello(hello));
    for number in 1..=100 {
        encoder.request(&mut requests, number, 0, &Request::Get { key: b"key" });
    }
    stream.write_all(&requests).expect("the node reads");
    stream.read_exact(&mut [0; 1]).expect("the node answers");

    node.drain();
    let unready = loop {
        let answer = get(&node, "/readyz");
        if answer.status != 200 {
            break answer;
        }
    };
    assert_eq!(
        (unready.status, unready.body.as_str()),
        (503, "the node is draining\n")
    );
    assert_eq!(get(&node, "/healthz").body, "ok\n");
    assert!((metrics(&node).sum("ostrakon_draining", "") - f64::from(CORES)).abs() < f64::EPSILON);

    let mut rest = Vec::new();
    stream
        .read_to_end(&mut rest)
        .expect("the node sends what it owes and closes");
    let ended = node.ended();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
}

#[test]
fn a_port_that_is_taken_is_named_and_nothing_is_written() {
    let directory = directory();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound");
    let refusal = command(&directory)
        .argument(format!("--http={address}"))
        .refusal();
    assert_eq!(
        refusal.status.and_then(|status| status.code()),
        Some(1),
        "{refusal}"
    );
    for word in [&address.to_string(), "another node", "--http off"] {
        assert!(refusal.stderr.contains(word), "no '{word}' in: {refusal}");
    }
    let identity = directory.path().join("node/node");
    assert!(!identity.exists(), "the data directory has no identity yet");
}
