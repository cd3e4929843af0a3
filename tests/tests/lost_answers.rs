//! Answers that get lost: a relay between client and node cuts connections after a request was sent, before its answer
//! is there or after the node has given it. Ten thousand increments that each wait for the one before must come to
//! exactly ten thousand, and each be told its own sum, through each driver of the client library.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it drives real processes and sockets"
)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use ostrakon_client::{AsyncClient, Client, Options};
use ostrakon_tests::process::{NodeCommand, binary};

const INCREMENTS: i64 = 10_000;

/// Of the chunks that the node answers, each one of so many is lost with its connection.
const ANSWERS_PER_CUT: u64 = 37;

/// Of the chunks that clients send, the connection is cut right behind each one of so many.
const REQUESTS_PER_CUT: u64 = 101;

/// What the relay did.
#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    answers: AtomicU64,
    cut_behind_requests: AtomicU64,
    lost_answers: AtomicU64,
}

/// Passes bytes between clients and the node at `node`; returns where it listens. Its threads end with the process.
fn relay(node: String, counts: Arc<Counts>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let server = TcpStream::connect(&node).unwrap();
            for stream in [&client, &server] {
                stream.set_nodelay(true).unwrap();
            }
            let (requests_from, requests_to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let of_requests = Arc::clone(&counts);
            thread::spawn(move || pass_requests(&requests_from, &requests_to, &of_requests));
            let of_answers = Arc::clone(&counts);
            thread::spawn(move || pass_answers(&server, &client, &of_answers));
        }
    });
    address
}

fn cut(one: &TcpStream, other: &TcpStream) {
    // Whoever is gone already need not be told.
    let _ = one.shutdown(Shutdown::Both);
    let _ = other.shutdown(Shutdown::Both);
}

fn pass_requests(mut from: &TcpStream, mut to: &TcpStream, counts: &Counts) {
    let mut bytes = [0; 4096];
    // The hello, the first chunk, is passed on in any case: a client that can't connect tests nothing.
    let mut is_first = true;
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
        let number = counts.requests.fetch_add(1, Ordering::Relaxed);
        if !is_first && number.is_multiple_of(REQUESTS_PER_CUT) {
            counts.cut_behind_requests.fetch_add(1, Ordering::Relaxed);
            // The node gets what was sent and then the end; the client hears nothing any more.
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
        is_first = false;
    }
    cut(from, to);
}

fn pass_answers(mut from: &TcpStream, mut to: &TcpStream, counts: &Counts) {
    let mut bytes = [0; 4096];
    let mut is_first = true;
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let number = counts.answers.fetch_add(1, Ordering::Relaxed);
        if !is_first && number.is_multiple_of(ANSWERS_PER_CUT) {
            counts.lost_answers.fetch_add(1, Ordering::Relaxed);
            break;
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
        is_first = false;
    }
    cut(from, to);
}

/// Writes that the node has answered from memory.
fn deduplicated(stats: &str) -> u64 {
    let stats: serde_json::Value = serde_json::from_str(stats).unwrap();
    let cores = stats["cores"].as_array().unwrap();
    let shards = cores.iter().flat_map(|core| core["shards"].as_array().unwrap());
    shards.map(|shard| shard["deduplicated"].as_u64().unwrap()).sum()
}

/// Starts a node and a relay, lets `increment` work through the relay, and looks at the outcome from the node's side.
fn increments_through(increment: impl FnOnce(&str)) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let node = NodeCommand::new(binary::for_tests(), &directory.path().join("node"), 2)
        .shards(16)
        .start()
        .unwrap_or_else(|refusal| panic!("{refusal}"));
    let counts = Arc::new(Counts::default());
    increment(&relay(node.address().to_owned(), Arc::clone(&counts)));
    let mut client = node.client(None).unwrap();
    let counter = client.get(b"counter").unwrap().expect("the counter is there");
    assert_eq!(counter.value, INCREMENTS.to_string().as_bytes());
    let stats = client.stats().unwrap();
    let lost = counts.lost_answers.load(Ordering::Relaxed);
    let cut = counts.cut_behind_requests.load(Ordering::Relaxed);
    println!(
        "{INCREMENTS} increments; {lost} answers lost, {cut} connections cut behind a request, {} writes recognised",
        deduplicated(&stats)
    );
    assert!(
        lost >= 100 && cut >= 50,
        "{lost} answers lost, {cut} requests cut off"
    );
    assert!(deduplicated(&stats) > 0, "{stats}");
}

#[test]
fn the_blocking_client_counts_exactly() {
    increments_through(|address| {
        let mut client = Client::connect(address, Options::default()).unwrap();
        for sum in 1..=INCREMENTS {
            assert_eq!(client.add(b"counter", 1).unwrap().1, sum);
        }
    });
}

#[test]
fn the_tokio_client_counts_exactly() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    increments_through(|address| {
        runtime.block_on(async {
            let client = AsyncClient::connect(address, Options::default()).await.unwrap();
            for sum in 1..=INCREMENTS {
                assert_eq!(client.add(b"counter", 1).await.unwrap().1, sum);
            }
        });
    });
}
