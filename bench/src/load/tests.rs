//! The load against small servers in this process: what it sends is counted by the other side.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// Answers each get with `answer`; ends with its connections.
fn start_fake_redis(answer: &'static [u8], asked: &Arc<AtomicU64>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::clone(asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, asked) = (stream.unwrap(), Arc::clone(&asked));
            std::thread::spawn(move || serve(stream, answer, &asked));
        }
    });
    address
}

fn serve(mut stream: TcpStream, answer: &[u8], asked: &AtomicU64) {
    let mut input = vec![0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut input) {
        // A get begins with `*` and has no other.
        let requests = input[..count].split(|byte| *byte == b'*').count() - 1;
        asked.fetch_add(requests as u64, Ordering::Relaxed);
        for _ in 0..requests {
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    }
}

fn load(operation: Operation, until: Until) -> Load {
    Load {
        system: System::Redis,
        operation,
        keys: 500,
        value_bytes: 5,
        shape: Shape {
            connections: 3,
            pipeline: 4,
        },
        until,
        cpu: 0,
        seed: 1,
    }
}

#[test]
fn every_request_is_sent_once_and_counted_once() {
    let asked = Arc::new(AtomicU64::new(0));
    let address = start_fake_redis(b"$5\r\nvalue\r\n", &asked);
    let outcome = load(Operation::Get, Until::Requests(1234)).run(&address).unwrap();
    assert_eq!((outcome.requests, outcome.error_count()), (1234, 0));
    assert_eq!(outcome.latencies.count(), 1234);
    assert_eq!(asked.load(Ordering::Relaxed), 1234);
    let outcome = load(Operation::Get, Until::EachKeyOnce).run(&address).unwrap();
    assert_eq!(outcome.requests, 500);
}

#[test]
fn wrong_answers_are_errors() {
    for (answer, sentence) in [
        (b"$-1\r\n".as_slice(), "the key is not there"),
        (b"$3\r\nabc\r\n", "a value of 3 bytes"),
        (b"-LOADING not yet\r\n", "LOADING not yet"),
    ] {
        let address = start_fake_redis(answer, &Arc::default());
        let load = load(Operation::Get, Until::Requests(20));
        let outcome = load.run(&address).unwrap();
        assert_eq!((outcome.requests, outcome.errors[sentence]), (0, 20));
        assert!(load.run_without_errors(&address).unwrap_err().contains(sentence));
    }
}

#[test]
fn time_ends_a_load() {
    let address = start_fake_redis(b"$5\r\nvalue\r\n", &Arc::default());
    let outcome = load(Operation::Get, Until::Time(Duration::from_millis(50)))
        .run(&address)
        .unwrap();
    assert!(outcome.requests > 0);
    assert!(outcome.seconds >= 0.05, "{}", outcome.seconds);
    assert!(outcome.generator_busy > 0.0);
}

#[test]
fn a_lost_server_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || drop(listener.accept()));
    let error = load(Operation::Get, Until::Requests(10))
        .run(&address)
        .unwrap_err();
    assert!(error.contains("connect"), "{error}");
}
