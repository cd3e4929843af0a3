//! The blocking client against a scripted server: what it sends, what it returns, and what it says when
//! things go wrong.

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

use std::net::TcpListener;

use answers::found;
use common::{CLUSTER_ID, hello_reply};
use fake_server::{FakeServer, once};
use ostrakon_client::{
    Client, Condition, Error, ErrorCode, Interrupter, Options, ProtocolError, Request, Response, SubmitError,
    Value, Written,
};
use ostrakon_wire::message::{ErrorReply, TopologyReply};

fn connect(server: &FakeServer) -> Client {
    Client::connect(&server.address, once()).expect("the server is there")
}

fn refusal(code: ErrorCode, retry_after_ms: u32) -> Response<'static> {
    Response::Error(ErrorReply {
        code,
        message: "because",
        retry_after_ms,
    })
}

fn assert_put(expected: Condition<'static>) -> impl FnOnce(Request<'_>) {
    let put = Request::put(b"key", b"value", expected);
    move |request| assert_eq!(request, put)
}

fn written(applied: bool, version: u64) -> Response<'static> {
    Response::Write { applied, version }
}

fn assert_get(request: Request<'_>) {
    assert_eq!(request, Request::Get { key: b"key" });
}

#[test]
fn each_reading_method_sends_its_request_and_returns_its_answer() {
    let topology = TopologyReply {
        owners: vec![0, 1, 1, 0],
        cores: 2,
        node_id: 5,
        cluster_id: CLUSTER_ID,
    };
    let expected_topology = topology.clone();
    let server = FakeServer::greeting(10, move |session| {
        session.exchange(|request| assert_eq!(request, Request::Ping), &Response::Pong);
        session.exchange(assert_get, &Response::Get { found: None });
        session.exchange(assert_get, &found(9, b"value"));
        session.exchange(
            |request| assert_eq!(request, Request::Topology),
            &Response::Topology(topology),
        );
        session.exchange(
            |request| assert_eq!(request, Request::Status),
            &Response::Status { json: "{}" },
        );
        session.expect_end();
    });
    let mut client = connect(&server);
    assert_eq!((client.server().node_id, client.server().core), (5, 2));
    client.ping().expect("answered");
    assert_eq!(client.get(b"key").expect("answered"), None);
    assert_eq!(
        client.get(b"key").expect("answered"),
        Some(Value {
            version: 9,
            expires: 0,
            value: b"value".to_vec()
        })
    );
    assert_eq!(client.topology().expect("answered"), expected_topology);
    assert_eq!(client.status().expect("answered"), "{}");
    drop(client);
    server.join();
}

#[test]
fn each_writing_method_sends_its_request_and_returns_its_answer() {
    let server = FakeServer::greeting(10, |session| {
        session.exchange(assert_put(Condition::None), &written(true, 10));
        session.exchange(assert_put(Condition::Version(3)), &written(false, 10));
        for condition in [Condition::None, Condition::Present] {
            let delete = Request::delete(b"key", condition);
            session.exchange(|request| assert_eq!(request, delete), &written(true, 11));
        }
        session.expect_end();
    });
    let mut client = connect(&server);
    assert_eq!(client.put(b"key", b"value").expect("answered"), 10);
    let refused = client
        .put_if(b"key", b"value", Condition::Version(3))
        .expect("answered");
    assert_eq!(
        refused,
        Written {
            applied: false,
            version: 10
        }
    );
    let deleted = Written {
        applied: true,
        version: 11,
    };
    assert_eq!(client.delete(b"key").expect("answered"), deleted);
    assert_eq!(
        client.delete_if(b"key", Condition::Present).expect("answered"),
        deleted
    );
    drop(client);
    server.join();
}

#[test]
fn nobody_listening_says_what_to_do() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let error = Client::connect(&address, once()).expect_err("nobody listens");
    assert!(
        matches!(&error, Error::Connect { address: named, .. } if *named == address),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(
        text.contains(&address) && text.contains("ostrakon serve"),
        "{text}"
    );

    let error = Client::connect("no port given", once()).expect_err("no address");
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
}

#[test]
fn a_server_that_does_not_speak_is_given_up() {
    let server = FakeServer::start(|session| {
        session.expect(|_| {});
        session.expect_end();
    });
    let options = Options {
        connect_timeout_ms: 30,
        ..once()
    };
    let error = Client::connect(&server.address, options).expect_err("no answer");
    assert!(
        matches!(&error, Error::Connect { .. }) && error.to_string().contains("hello"),
        "{error}"
    );
    server.join();

    let hangs_up = FakeServer::start(|session| {
        session.expect(|_| {});
    });
    let error = Client::connect(&hangs_up.address, once()).expect_err("no answer");
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
}

#[test]
fn a_server_of_another_kind_is_told_apart() {
    let server = FakeServer::start(|session| {
        session.expect(|_| {});
        session.send(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        session.expect_end();
    });
    let error = Client::connect(&server.address, once()).expect_err("no frame");
    assert!(
        matches!(error, Error::Protocol(ProtocolError::Frame(_))),
        "{error:?}"
    );
    server.join();
}

#[test]
fn a_refused_hello_says_why() {
    let server = FakeServer::start(|session| {
        session.expect(|request| {
            let Request::Hello(hello) = request else {
                panic!("no hello: {request:?}")
            };
            assert_eq!(
                (hello.core, hello.cluster_id, hello.client),
                (Some(3), CLUSTER_ID, "test/1")
            );
        });
        session.answer(0, &refusal(ErrorCode::TooManyConnections, 40));
    });
    let options = Options {
        core: Some(3),
        cluster_id: CLUSTER_ID,
        client: "test/1".to_owned(),
        ..once()
    };
    let error = Client::connect(&server.address, options).expect_err("refused");
    assert!(
        matches!(
            error,
            Error::Server {
                code: ErrorCode::TooManyConnections,
                retry_after_ms: 40,
                ..
            }
        ),
        "{error:?}"
    );
    server.join();
}

#[test]
fn a_busy_server_is_an_error_with_its_hint_and_the_client_goes_on() {
    let server = FakeServer::greeting(10, |session| {
        session.exchange(assert_put(Condition::None), &refusal(ErrorCode::Busy, 25));
        session.exchange(assert_get, &Response::Get { found: None });
        session.expect_end();
    });
    let mut client = connect(&server);
    let error = client.put(b"key", b"value").expect_err("busy");
    assert!(
        matches!(
            &error,
            Error::Server {
                code: ErrorCode::Busy,
                retry_after_ms: 25,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(
        error.to_string(),
        "the server answered Busy: because; try again in 25 ms"
    );
    assert_eq!(client.get(b"key").expect("answered"), None);
    drop(client);
    server.join();
}

#[test]
fn a_request_above_a_limit_is_not_sent() {
    let server = FakeServer::greeting(10, |session| {
        session.exchange(|request| assert_eq!(request, Request::Ping), &Response::Pong);
        session.expect_end();
    });
    let mut client = connect(&server);
    let error = client.put(b"", b"value").expect_err("no key");
    assert!(
        matches!(error, Error::Submit(SubmitError::Invalid(_))),
        "{error:?}"
    );
    client.ping().expect("answered");
    drop(client);
    server.join();
}

#[test]
fn a_write_without_an_answer_has_an_unknown_outcome() {
    let server = FakeServer::greeting(10, |session| {
        session.expect(assert_put(Condition::None));
    });
    let options = Options {
        request_timeout_ms: 200,
        ..once()
    };
    let mut client = Client::connect(&server.address, options).expect("the server is there");
    let error = client.put(b"key", b"value").expect_err("no answer");
    let Error::UnknownOutcome { cause } = &error else {
        panic!("{error:?}")
    };
    assert!(matches!(**cause, Error::Lost { .. }), "{cause:?}");
    server.join();

    // What was never sent has no unknown outcome.
    let error = client.put(b"key", b"value").expect_err("the server is gone");
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
}

#[test]
fn a_read_without_an_answer_is_lost_or_late() {
    let hangs_up = FakeServer::greeting(10, |session| {
        session.expect(assert_get);
    });
    let error = connect(&hangs_up).get(b"key").expect_err("no answer");
    assert!(matches!(error, Error::Lost { .. }), "{error:?}");
    hangs_up.join();

    let stays_silent = FakeServer::greeting(10, |session| {
        session.expect(assert_get);
        session.expect_end();
    });
    let options = Options {
        request_timeout_ms: 30,
        ..once()
    };
    let mut client = Client::connect(&stays_silent.address, options).expect("the server is there");
    let error = client.get(b"key").expect_err("no answer");
    assert!(matches!(error, Error::Timeout { after_ms: 30 }), "{error:?}");
    drop(client);
    stays_silent.join();
}

#[test]
fn an_interrupt_ends_the_wait_and_a_write_that_was_sent_stays_unknown() {
    let (hand_over, interrupter) = std::sync::mpsc::channel::<Interrupter>();
    let server = FakeServer::greeting(10, move |session| {
        let interrupter = interrupter.recv().expect("the test hands it over");
        let get = session.expect(assert_get);
        interrupter.interrupt();
        session.expect(assert_put(Condition::None));
        session.answer(get, &found(8, b"too late"));
        interrupter.interrupt();
        session.exchange(assert_get, &found(9, b"value"));
        session.expect_end();
    });
    let mut client = connect(&server);
    hand_over.send(client.interrupter()).expect("the server waits");
    assert!(matches!(client.get(b"key"), Err(Error::Interrupted)));
    let put = client.put(b"key", b"value").expect_err("nobody answers");
    assert!(
        matches!(&put, Error::UnknownOutcome { cause } if matches!(**cause, Error::Interrupted)),
        "{put}"
    );
    let value = client.get(b"key").expect("it stays usable").expect("it is there");
    assert_eq!(value.value, b"value");
    drop(client);
    server.join();
}

#[test]
fn a_failed_core_leaves_a_write_unknown_but_not_a_read() {
    let server = FakeServer::greeting(10, |session| {
        session.exchange(assert_put(Condition::None), &refusal(ErrorCode::CoreFailed, 0));
        session.exchange(assert_get, &refusal(ErrorCode::CoreFailed, 0));
        session.expect_end();
    });
    let mut client = connect(&server);
    let error = client.put(b"key", b"value").expect_err("failed");
    let Error::UnknownOutcome { cause } = &error else {
        panic!("{error:?}")
    };
    assert!(
        matches!(
            **cause,
            Error::Server {
                code: ErrorCode::CoreFailed,
                ..
            }
        ),
        "{cause:?}"
    );
    let error = client.get(b"key").expect_err("failed");
    assert!(
        matches!(
            error,
            Error::Server {
                code: ErrorCode::CoreFailed,
                ..
            }
        ),
        "{error:?}"
    );
    drop(client);
    server.join();
}

#[test]
fn a_server_going_down_says_so() {
    let server = FakeServer::greeting(10, |session| {
        session.expect(assert_get);
        session.answer(0, &refusal(ErrorCode::ShuttingDown, 0));
    });
    let mut client = connect(&server);
    let error = client.get(b"key").expect_err("going down");
    assert!(
        matches!(
            error,
            Error::Server {
                code: ErrorCode::ShuttingDown,
                ..
            }
        ),
        "{error:?}"
    );
    server.join();
}

#[test]
fn an_unconditional_write_that_is_not_applied_breaks_the_protocol() {
    let server = FakeServer::greeting(10, |session| {
        session.exchange(assert_put(Condition::None), &written(false, 4));
        session.expect_end();
    });
    let mut client = connect(&server);
    let error = client.put(b"key", b"value").expect_err("a contradiction");
    assert!(matches!(error, Error::UnknownOutcome { .. }), "{error:?}");
    drop(client);
    server.join();
}

#[test]
fn the_fake_hello_is_what_the_client_reports() {
    let server = FakeServer::greeting(10, fake_server::Session::expect_end);
    let client = connect(&server);
    assert_eq!(client.server().requests_in_flight_max, 10);
    assert_eq!(client.server().name, hello_reply(10).server);
    drop(client);
    server.join();
}
