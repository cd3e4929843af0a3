//! The blocking client with a node of several cores: connections as needed, answers that are lost and asked for again.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test of sockets needs sockets, and a server needs its threads"
)]

mod common;
#[path = "common/fake_node.rs"]
mod fake_node;
#[path = "common/model.rs"]
mod model;

use fake_node::FakeNode;
use ostrakon_client::{Client, Condition, Error, Kind, Options, Request};

/// Rounds of requests after which connections that are made beside them must be there; far more than any machine needs.
const ROUNDS_MAX: usize = 10_000;

fn key(number: u64) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

#[test]
fn a_client_connects_to_each_core_that_it_needs() {
    let node = FakeNode::start(3, 0);
    let mut client = Client::connect(&node.address, Options::default()).expect("the node is there");
    assert_eq!(node.connections(), 1);
    client.ping().expect("answered");
    let sent_elsewhere = || node.shared.model.lock().expect("not poisoned").elsewhere;
    // Requests take the first connection until those to the other cores are made.
    let knows_all_cores = (0..ROUNDS_MAX).any(|_| {
        let before = sent_elsewhere();
        for number in 1..100 {
            client
                .put(&key(number), number.to_string().as_bytes())
                .expect("answered");
        }
        sent_elsewhere() == before
    });
    assert!(knows_all_cores);
    assert_eq!(node.connections(), 3);
    let elsewhere = sent_elsewhere();
    for number in 1..100 {
        let value = client.get(&key(number)).expect("answered").expect("it was put");
        assert_eq!(value.value, number.to_string().as_bytes());
    }
    assert_eq!(sent_elsewhere(), elsewhere);
    drop(client);
    node.join();
}

#[test]
fn each_write_happens_once_although_answers_are_lost() {
    let node = FakeNode::start(2, 20);
    let mut client = Client::connect(&node.address, Options::default()).expect("the node is there");
    for number in 1..200 {
        client
            .add(&key(number % 7), number as i64)
            .expect("answered in the end");
    }
    let mut pipeline = client.pipeline();
    let tickets: Vec<_> = (200..400_u64)
        .map(|number| {
            pipeline
                .put(&key(number), number.to_string().as_bytes())
                .expect("room")
        })
        .collect();
    for ticket in tickets {
        pipeline.wait(ticket).expect("answered in the end");
    }
    drop(pipeline);
    drop(client);
    assert!(node.connections() > 20, "answers were lost");
    {
        let model = node.shared.model.lock().expect("not poisoned");
        assert_eq!(model.executions.len(), 399);
        assert!(model.executions.values().all(|happened| *happened == 1));
    }
    node.join();
}

#[test]
fn without_repetition_a_lost_answer_is_the_callers_to_know() {
    let node = FakeNode::start(1, 3);
    let options = Options {
        retry: false,
        ..Options::default()
    };
    let mut client = Client::connect(&node.address, options).expect("the node is there");
    client.put(b"key", b"1").expect("answered");
    let error = client.put(b"key", b"2").expect_err("the answer is lost");
    assert!(matches!(error, Error::UnknownOutcome { .. }), "{error:?}");
    client.put(b"key", b"3").expect("on a new connection");
    drop(client);
    assert_eq!((node.count(Kind::Put), node.connections()), (3, 2));
    node.join();
}

#[test]
fn of_several_addresses_the_first_that_answers_is_used() {
    let node = FakeNode::start(1, 0);
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("bound").to_string()
    };
    let addresses = format!("{nobody}, {}", node.address);
    let mut client = Client::connect(&addresses, Options::default()).expect("the second is there");
    client.ping().expect("answered");
    drop(client);
    node.join();
}

#[test]
fn more_requests_than_a_connection_takes_at_once_are_no_matter() {
    let node = FakeNode::start(2, 0);
    let mut client = Client::connect(&node.address, Options::default()).expect("the node is there");
    let mut pipeline = client.pipeline();
    let tickets: Vec<_> = (0..3_000)
        .map(|number| {
            let put = Request::put(b"key", b"1", Condition::None);
            let get = Request::Get { key: b"key" };
            pipeline
                .submit(if number % 2 == 0 { &put } else { &get })
                .expect("room")
        })
        .collect();
    for ticket in tickets.into_iter().rev() {
        pipeline.wait(ticket).expect("answered");
    }
    drop(pipeline);
    drop(client);
    node.join();
}
