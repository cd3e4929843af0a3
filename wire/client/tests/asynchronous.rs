//! The asynchronous client with a node on loopback: many at once over one session, dropped futures, lost answers.

#![cfg(feature = "tokio")]
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

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use fake_node::FakeNode;
use ostrakon_client::{Answer, AsyncClient, Error, Kind, Options, Request, ScanOptions};

/// Runs a future with a client of a node, then ends both.
fn with_client(node: FakeNode, test: impl AsyncFnOnce(AsyncClient, &FakeNode)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let client = AsyncClient::connect(&node.address, Options::default())
            .await
            .expect("the node is there");
        test(client, &node).await;
    });
    drop(runtime);
    node.join();
}

#[test]
fn many_tasks_share_one_session() {
    with_client(FakeNode::start(3, 0), async |client, node| {
        assert_eq!(client.server().cores, 3);
        let task = |number: u64| {
            let client = client.clone();
            tokio::spawn(async move {
                let key = format!("key {number}");
                client.put(key.as_bytes(), number.to_string().as_bytes()).await?;
                client.get(key.as_bytes()).await
            })
        };
        let tasks: Vec<_> = (1..300).map(task).collect();
        for (number, task) in (1..300_u64).zip(tasks) {
            let value = task
                .await
                .expect("no panic")
                .expect("answered")
                .expect("it was put");
            assert_eq!(value.value, number.to_string().as_bytes());
        }
        assert!(node.connections() <= 3, "{} connections", node.connections());
        assert!(client.timestamp() > 0);
        client.ping().await.expect("answered");
        assert_eq!(client.status().await.expect("answered"), "{}");
        assert!(client.scan(ScanOptions::default()).next().await.is_none());
        let (answer, _) = client.call(&Request::Ping, true).await.expect("answered");
        assert_eq!(answer, Answer::Pong);
    });
}

#[test]
fn each_write_happens_once_although_answers_are_lost() {
    with_client(FakeNode::start(2, 20), async |client, node| {
        for number in 1..150 {
            client.add(b"counter", number).await.expect("answered in the end");
        }
        assert!(node.connections() > 5, "answers were lost");
        let model = node.shared.model.lock().expect("not poisoned");
        assert_eq!(model.executions.len(), 149);
        assert!(model.executions.values().all(|happened| *happened == 1));
    });
}

#[test]
fn a_dropped_future_of_a_scan_is_cancelled_on_the_server() {
    let node = FakeNode::start(1, 0);
    node.shared.keeps_scans.store(true, Ordering::SeqCst);
    with_client(node, async |client, node| {
        let mut scan = client.scan(ScanOptions::default());
        {
            let mut next = pin!(scan.next());
            // Until the scan is there, which this future waits for in vain.
            while node.count(Kind::Scan) == 0 {
                assert!(matches!(
                    next.as_mut().poll(&mut Context::from_waker(Waker::noop())),
                    Poll::Pending
                ));
                client.ping().await.expect("answered");
            }
        }
        while node.count(Kind::Cancel) == 0 {
            client.ping().await.expect("answered");
        }
        node.shared.keeps_scans.store(false, Ordering::SeqCst);
        assert!(scan.next().await.is_none(), "the page is asked for again");
        assert_eq!(node.count(Kind::Scan), 2);
    });
}

#[test]
fn a_dropped_future_of_a_write_is_forgotten() {
    with_client(FakeNode::start(1, 0), async |client, node| {
        for number in 1..100 {
            let mut add = pin!(client.add(b"counter", number));
            assert!(matches!(
                add.as_mut().poll(&mut Context::from_waker(Waker::noop())),
                Poll::Pending
            ));
        }
        // The session's window of 24 writes is not used up by them.
        client.add(b"counter", 1_000).await.expect("answered");
        let model = node.shared.model.lock().expect("not poisoned");
        assert!(model.executions.values().all(|happened| *happened == 1));
    });
}

#[test]
fn nobody_listening_and_no_node_are_told_apart() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let error = runtime
        .block_on(AsyncClient::connect(&address, Options::default()))
        .expect_err("nobody listens");
    assert!(
        matches!(&error, Error::Connect { address: named, .. } if *named == address),
        "{error:?}"
    );
}
