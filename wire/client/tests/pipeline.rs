//! Many requests at once over the blocking client: order, limits, failures, and both directions full.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test of sockets needs sockets, and a server needs its thread"
)]

#[path = "common/answers.rs"]
mod answers;
mod common;
#[path = "common/fake_server.rs"]
mod fake_server;

use answers::found;
use fake_server::{FakeServer, once};
use ostrakon_client::{Answer, Client, Condition, Error, ErrorCode, Options, Request, Response, Value};
use ostrakon_wire::message::ErrorReply;

fn connect(server: &FakeServer) -> Client {
    Client::connect(&server.address, once()).expect("the server is there")
}

fn assert_get(request: Request<'_>) {
    assert_eq!(request, Request::Get { key: b"key" });
}

fn assert_put(request: Request<'_>) {
    assert_eq!(request, Request::put(b"key", b"value", Condition::None));
}

fn refusal(code: ErrorCode) -> Response<'static> {
    Response::Error(ErrorReply {
        code,
        message: "because",
        retry_after_ms: 0,
    })
}

#[test]
fn a_pipeline_sends_all_before_it_waits_and_takes_answers_in_any_order() {
    let server = FakeServer::greeting(10, |session| {
        // All three are read before the first answer, and that is the last one's.
        let first = session.expect(assert_get);
        let second = session.expect(assert_put);
        let third = session.expect(|request| assert_eq!(request, Request::Ping));
        session.answer(third, &Response::Pong);
        session.answer(second, &refusal(ErrorCode::Busy));
        session.answer(first, &found(9, b"value"));
        session.expect_end();
    });
    let mut client = connect(&server);
    let mut pipeline = client.pipeline();
    let get = pipeline.get(b"key").expect("room");
    let put = pipeline.put(b"key", b"value").expect("room");
    let ping = pipeline.submit(&Request::Ping).expect("room");
    let value = Value {
        version: 9,
        expires: 0,
        value: b"value".to_vec(),
    };
    assert_eq!(pipeline.wait(get).expect("answered"), Answer::Get(Some(value)));
    assert_eq!(pipeline.wait(ping).expect("answered"), Answer::Pong);
    assert!(matches!(
        pipeline.wait(put),
        Err(Error::Server {
            code: ErrorCode::Busy,
            ..
        })
    ));
    drop(pipeline);
    drop(client);
    server.join();
}

#[test]
fn a_pipeline_keeps_to_what_the_server_allows() {
    let server = FakeServer::greeting(2, |session| {
        let mut open = Vec::new();
        for _ in 0..10 {
            open.push(session.expect(assert_get));
            assert!(open.len() <= 2);
            if open.len() == 2 {
                session.answer(open.remove(0), &Response::Get { found: None });
            }
        }
        session.answer(open.remove(0), &Response::Get { found: None });
        session.expect_end();
    });
    let mut client = connect(&server);
    let mut pipeline = client.pipeline();
    let tickets: Vec<_> = (0..10)
        .map(|_| pipeline.get(b"key").expect("room is made"))
        .collect();
    for ticket in tickets {
        assert_eq!(pipeline.wait(ticket).expect("answered"), Answer::Get(None));
    }
    drop(pipeline);
    drop(client);
    server.join();
}

#[test]
fn an_answer_that_came_in_time_counts_however_late_it_is_waited_for() {
    const TIMEOUT_MS: u64 = 20;
    let (answered, is_answered) = std::sync::mpsc::channel();
    let server = FakeServer::greeting(10, move |session| {
        let (first, second) = (session.expect(assert_get), session.expect(assert_get));
        session.answer(first, &found(9, &vec![7; 200_000]));
        session.answer(second, &found(9, b"value"));
        answered.send(()).expect("the test waits");
        session.expect_end();
    });
    let options = Options {
        request_timeout_ms: TIMEOUT_MS,
        ..once()
    };
    let mut client = Client::connect(&server.address, options).expect("the server is there");
    let mut pipeline = client.pipeline();
    let submitted = std::time::Instant::now();
    let tickets = [
        pipeline.get(b"key").expect("room"),
        pipeline.get(b"key").expect("room"),
    ];
    pipeline.flush();
    is_answered.recv().expect("the server answers");
    while submitted.elapsed().as_millis() <= u128::from(TIMEOUT_MS) {
        std::hint::spin_loop();
    }
    for ticket in tickets {
        assert!(matches!(pipeline.wait(ticket), Ok(Answer::Get(Some(_)))));
    }
    drop(pipeline);
    drop(client);
    server.join();
}

#[test]
fn a_flush_sends_whole_requests_however_long_they_are() {
    const BYTES: usize = 8 << 20;
    // More than the sockets hold, and nobody waits for an answer until it is read.
    let (read, is_read) = std::sync::mpsc::channel();
    let server = FakeServer::greeting(10, move |session| {
        let put = session.expect(|_| {});
        read.send(()).expect("the test waits");
        session.answer(put, &refusal(ErrorCode::Busy));
        session.expect_end();
    });
    let mut client = connect(&server);
    let mut pipeline = client.pipeline();
    let ticket = pipeline.put(b"key", &vec![7; BYTES]).expect("room");
    pipeline.flush();
    let read_within = is_read.recv_timeout(std::time::Duration::from_mins(1));
    read_within.expect("the server reads all of it");
    assert!(pipeline.wait(ticket).is_err());
    drop(pipeline);
    drop(client);
    server.join();
}

#[test]
fn a_flush_ends_with_the_time_of_its_requests() {
    let (over, is_over) = std::sync::mpsc::channel::<()>();
    // This server never reads the request.
    let server = FakeServer::greeting(10, move |_| {
        let _test_ended = is_over.recv();
    });
    let options = Options {
        request_timeout_ms: 20,
        ..once()
    };
    let mut client = Client::connect(&server.address, options).expect("the server is there");
    let mut pipeline = client.pipeline();
    let ticket = pipeline.put(b"key", &vec![7; 8 << 20]).expect("room");
    pipeline.flush();
    assert!(pipeline.wait(ticket).is_err());
    drop(pipeline);
    drop(over);
    server.join();
}

#[test]
fn a_pipeline_left_early_does_not_confuse_what_follows() {
    let server = FakeServer::greeting(10, |session| {
        session.exchange(assert_get, &found(9, b"abandoned"));
        session.exchange(|request| assert_eq!(request, Request::Ping), &Response::Pong);
        session.expect_end();
    });
    let mut client = connect(&server);
    let ticket = client.pipeline().get(b"key").expect("room");
    let _ = ticket;
    client.ping().expect("answered");
    drop(client);
    server.join();
}

#[test]
fn a_lost_connection_is_reported_to_each_ticket_by_its_kind() {
    let server = FakeServer::greeting(10, |session| {
        session.exchange(assert_get, &Response::Get { found: None });
        session.expect(assert_put);
        session.expect(assert_get);
    });
    let mut client = connect(&server);
    let mut pipeline = client.pipeline();
    let answered = pipeline.get(b"key").expect("room");
    let put = pipeline.put(b"key", b"value").expect("room");
    let get = pipeline.get(b"key").expect("room");
    let lost = pipeline.wait(get);
    assert!(matches!(lost, Err(Error::Lost { .. })), "{lost:?}");
    let unknown = pipeline.wait(put);
    assert!(
        matches!(unknown, Err(Error::UnknownOutcome { .. })),
        "{unknown:?}"
    );
    assert_eq!(
        pipeline.wait(answered).expect("it was answered before"),
        Answer::Get(None)
    );
    server.join();
}

#[test]
fn big_requests_and_big_answers_do_not_block_each_other() {
    const REQUESTS: usize = 48;
    const BYTES: usize = 512 * 1024;
    // This server writes each answer before it reads the next request, so it stops reading as soon as nobody
    // takes its answers; both directions carry far more than sockets hold.
    let server = FakeServer::greeting(1000, |session| {
        let message = "x".repeat(BYTES);
        let error = ErrorReply {
            code: ErrorCode::DiskFull,
            message: &message,
            retry_after_ms: 0,
        };
        for _ in 0..REQUESTS {
            session.exchange(|_| {}, &Response::Error(error));
        }
        session.expect_end();
    });
    let mut client = connect(&server);
    let mut pipeline = client.pipeline();
    let value = vec![7; BYTES];
    let tickets: Vec<_> = (0..REQUESTS)
        .map(|_| pipeline.put(b"key", &value).expect("sent"))
        .collect();
    for ticket in tickets {
        let answer = pipeline.wait(ticket);
        assert!(
            matches!(
                &answer,
                Err(Error::Server {
                    code: ErrorCode::DiskFull,
                    ..
                })
            ),
            "{answer:?}"
        );
    }
    drop(pipeline);
    drop(client);
    server.join();
}

#[test]
#[should_panic(expected = "another client")]
fn a_ticket_is_good_for_its_client_only() {
    let script = |session: &mut fake_server::Session| while session.next_request(|_| {}).is_some() {};
    let (first, second) = (FakeServer::greeting(10, script), FakeServer::greeting(10, script));
    let (mut first, mut second) = (connect(&first), connect(&second));
    let (mut one, mut other) = (first.pipeline(), second.pipeline());
    let ticket = one.get(b"key").expect("room");
    let _ = other.wait(ticket);
}

#[test]
fn an_interrupt_ends_the_wait_for_room() {
    let server = FakeServer::greeting(10, |session| {
        while session
            .next_request(|request| assert_eq!(request, Request::Ping))
            .is_some()
        {}
    });
    let mut client = connect(&server);
    let interrupter = client.interrupter();
    let mut pipeline = client.pipeline();
    let tickets: Vec<_> = (0..16 * 1024)
        .map(|_| pipeline.submit(&Request::Ping).expect("room"))
        .collect();
    interrupter.interrupt();
    let refused = pipeline.submit(&Request::Ping).expect_err("no answer makes room");
    assert!(matches!(refused, Error::Interrupted), "{refused}");
    for ticket in tickets {
        assert!(matches!(pipeline.wait(ticket), Err(Error::Interrupted)));
    }
    drop(pipeline);
    drop(client);
    server.join();
}
