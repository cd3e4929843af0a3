//! Writes that are sent several times, against a real node: each happens once, and every sending gets the first answer,
//! on other connections and after kills and restarts with another number of cores too.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it drives real processes and sockets"
)]

use ostrakon_client::{
    Action, Answer, BatchOperation, BatchReply, Client, Condition, Error, ErrorCode, PutEntry, Request,
    Retry, Written,
};
use ostrakon_tests::process::{Node, NodeCommand, binary};
use ostrakon_wire::message::{BatchOperations, PutEntries};
use tempfile::TempDir;

/// A minute on the scale of timestamps.
const MINUTE: u64 = 60_000_000 << 12;

/// A node that can be started again.
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

    /// Kills the node without warning, and starts it with another number of cores.
    fn kill_and_restart(&mut self, cores: u16) {
        self.node.take().unwrap().kill();
        self.start_with(cores);
    }

    fn client(&self) -> Client {
        self.node.as_ref().unwrap().client(None).unwrap()
    }
}

fn ask(client: &mut Client, request: &Request<'_>) -> Result<Answer, Error> {
    let mut pipeline = client.pipeline();
    let ticket = pipeline.submit(request)?;
    pipeline.wait(ticket)
}

#[track_caller]
fn refusal(answer: Result<Answer, Error>) -> ErrorCode {
    match answer {
        Err(Error::Server { code, .. }) => code,
        Err(Error::UnknownOutcome { cause }) => match *cause {
            Error::Server { code, .. } => code,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// The retry of a write that is sent now.
fn retry(client: &Client, session: u128, sequence: u64, answered_below: u64) -> Retry {
    Retry {
        session,
        sequence,
        answered_below,
        first_sent: client.timestamp(),
    }
}

fn put<'a>(key: &'a [u8], value: &'a [u8], condition: Condition<'a>, retry: Retry) -> Request<'a> {
    Request::Put {
        key,
        value,
        condition,
        ttl_ms: 0,
        retry: Some(retry),
    }
}

fn add(key: &[u8], delta: i64, retry: Retry) -> Request<'_> {
    Request::Add {
        key,
        delta,
        ttl_ms: 0,
        retry: Some(retry),
    }
}

fn value(client: &mut Client, key: &[u8]) -> Option<Vec<u8>> {
    client.get(key).unwrap().map(|found| found.value)
}

#[test]
#[expect(clippy::too_many_lines, reason = "one request of each kind")]
fn every_sending_of_a_write_gets_its_first_answer() {
    let mut server = Server::start();
    let mut client = server.client();
    client.put(b"gone", b"x").unwrap();
    let operations = [
        BatchOperation {
            key: b"{b}number",
            action: Action::Add { delta: 3, ttl_ms: 0 },
            condition: Condition::None,
        },
        BatchOperation {
            key: b"{b}text",
            action: Action::Put {
                value: b"t",
                ttl_ms: 0,
            },
            condition: Condition::Absent,
        },
    ];
    let entries: Vec<Vec<u8>> = (0..20)
        .map(|number| format!("entry {number}").into_bytes())
        .collect();
    let entries: Vec<PutEntry<'_>> = entries
        .iter()
        .map(|key| PutEntry {
            key,
            value: b"e",
            ttl_ms: 0,
        })
        .collect();
    let of = |sequence| Some(retry(&client, 7, sequence, 0));
    let requests = [
        put(b"put", b"p", Condition::None, of(0).unwrap()),
        Request::Delete {
            key: b"gone",
            condition: Condition::Present,
            retry: of(1),
        },
        add(b"number", 5, of(2).unwrap()),
        Request::Batch {
            operations: BatchOperations::from(&operations[..]),
            retry: of(3),
        },
        Request::MultiPut {
            entries: PutEntries::from(entries.as_slice()),
            retry: of(4),
        },
        put(b"put", b"never", Condition::Absent, of(5).unwrap()),
        Request::DeleteRange {
            start: b"range",
            end: Some(b"range/~"),
            retry: of(6),
        },
    ];
    let first: Vec<Answer> = requests
        .iter()
        .map(|request| ask(&mut client, request).unwrap())
        .collect();
    assert!(
        matches!(first[1], Answer::Write(Written { applied: true, .. })),
        "{first:?}"
    );
    assert!(matches!(first[2], Answer::Add { number: 5, .. }), "{first:?}");
    assert!(
        matches!(&first[3], Answer::Batch(BatchReply { applied: true, numbers, .. }) if numbers == &[3]),
        "{first:?}"
    );
    assert!(
        matches!(first[5], Answer::Write(Written { applied: false, .. })),
        "{first:?}"
    );
    assert!(matches!(first[6], Answer::DeleteRange(1..)), "{first:?}");
    // A repetition of the delete-range must not delete what was written after it.
    client.put(b"range/later", b"stays").unwrap();
    for (turn, cores) in [2, 3, 1, 2].into_iter().enumerate() {
        let mut other = server.client();
        for (request, first) in requests.iter().zip(&first) {
            assert_eq!(
                &ask(&mut other, request).unwrap(),
                first,
                "turn {turn}: {request:?}"
            );
        }
        assert_eq!(value(&mut other, b"number"), Some(b"5".to_vec()));
        assert_eq!(value(&mut other, b"{b}number"), Some(b"3".to_vec()));
        assert_eq!(value(&mut other, b"put"), Some(b"p".to_vec()));
        assert_eq!(value(&mut other, b"range/later"), Some(b"stays".to_vec()));
        server.kill_and_restart(cores);
    }
}

#[test]
fn a_late_original_changes_nothing() {
    let mut server = Server::start();
    let mut client = server.client();
    client.ping().unwrap();
    let original = put(b"{k}", b"first", Condition::None, retry(&client, 1, 0, 0));
    let first = ask(&mut client, &original).unwrap();
    let second = put(b"{k}", b"second", Condition::None, retry(&client, 1, 1, 0));
    ask(&mut client, &second).unwrap();
    assert_eq!(
        ask(&mut server.client(), &original).unwrap(),
        first,
        "not reported: remembered"
    );
    assert_eq!(value(&mut client, b"{k}"), Some(b"second".to_vec()));
    // The report covers both; what is sent again is not remembered, and not done.
    let third = put(b"{k}other", b"third", Condition::None, retry(&client, 1, 2, 2));
    ask(&mut client, &third).unwrap();
    for _ in 0..2 {
        let mut other = server.client();
        assert_eq!(refusal(ask(&mut other, &original)), ErrorCode::OutcomeUnknown);
        assert_eq!(refusal(ask(&mut other, &second)), ErrorCode::OutcomeUnknown);
        assert_eq!(value(&mut other, b"{k}"), Some(b"second".to_vec()));
        server.kill_and_restart(3);
    }
}

#[test]
fn a_decision_against_a_write_is_remembered() {
    let mut server = Server::start();
    let mut client = server.client();
    let there = client.put(b"text", b"no number").unwrap();
    let if_absent = put(b"text", b"new", Condition::Absent, retry(&client, 2, 0, 0));
    let expected = Answer::Write(Written {
        applied: false,
        version: there,
    });
    let add = add(b"text", 1, retry(&client, 2, 1, 0));
    assert_eq!(ask(&mut client, &if_absent).unwrap(), expected);
    assert_eq!(refusal(ask(&mut client, &add)), ErrorCode::NotANumber);
    client.delete(b"text").unwrap();
    // Now both would do.
    for _ in 0..2 {
        let mut other = server.client();
        assert_eq!(ask(&mut other, &if_absent).unwrap(), expected);
        assert_eq!(refusal(ask(&mut other, &add)), ErrorCode::NotANumber);
        assert_eq!(value(&mut other, b"text"), None);
        server.kill_and_restart(1);
    }
}

#[test]
fn a_sequence_names_one_write() {
    let server = Server::start();
    let mut client = server.client();
    // Keys of many shards, on both cores; each failure and sum is remembered by the shard of its key.
    let keys: Vec<Vec<u8>> = (0..16)
        .map(|number| format!("key {number}").into_bytes())
        .collect();
    for key in &keys {
        client.put(key, b"here").unwrap();
        let refused = put(key, b"never", Condition::Absent, retry(&client, 7, 1, 1));
        assert!(matches!(
            ask(&mut client, &refused),
            Ok(Answer::Write(Written { applied: false, .. }))
        ));
        let count = [b"number of ", key.as_slice()].concat();
        let sum = add(&count, 3, retry(&client, 7, 2, 1));
        assert!(matches!(ask(&mut client, &sum), Ok(Answer::Add { .. })));
        let other = add(key, 1, retry(&client, 7, 1, 1));
        assert_eq!(refusal(ask(&mut client, &other)), ErrorCode::BadRequest);
    }
    let entries: Vec<PutEntry<'_>> = keys
        .iter()
        .map(|key| PutEntry {
            key,
            value: b"never",
            ttl_ms: 0,
        })
        .collect();
    let again = Request::MultiPut {
        entries: PutEntries::from(&entries[..]),
        retry: Some(retry(&client, 7, 1, 1)),
    };
    let Ok(Answer::MultiPut(written)) = ask(&mut client, &again) else {
        panic!("each shard refuses its entries");
    };
    assert!(
        written
            .results
            .iter()
            .all(|result| *result == Err(ErrorCode::BadRequest)),
        "{written:?}"
    );
    for key in &keys {
        assert_eq!(value(&mut client, key).as_deref(), Some(&b"here"[..]));
    }
}

#[test]
fn a_refusal_is_no_answer() {
    let server = Server::start();
    let mut client = server.client();
    client.ping().unwrap();
    let now = retry(&client, 3, 0, 0);
    let ahead = Retry {
        first_sent: now.first_sent + 5 * MINUTE,
        ..now
    };
    let refused = ask(&mut client, &put(b"k", b"v", Condition::None, ahead));
    assert_eq!(refusal(refused), ErrorCode::TimestampAhead);
    let entries = [PutEntry {
        key: b"k",
        value: b"v",
        ttl_ms: 0,
    }];
    let several = Request::MultiPut {
        entries: PutEntries::from(&entries[..]),
        retry: Some(ahead),
    };
    assert_eq!(refusal(ask(&mut client, &several)), ErrorCode::TimestampAhead);
    let operation = |key| BatchOperation {
        key,
        action: Action::Delete,
        condition: Condition::None,
    };
    let keys: Vec<Vec<u8>> = (0..40).map(|number| vec![b'k', number]).collect();
    let apart: Vec<BatchOperation<'_>> = keys.iter().map(|key| operation(key.as_slice())).collect();
    let refused = ask(
        &mut client,
        &Request::Batch {
            operations: BatchOperations::from(apart.as_slice()),
            retry: Some(now),
        },
    );
    assert_eq!(refusal(refused), ErrorCode::NotOneShard);
    let written = ask(&mut client, &put(b"k", b"v", Condition::Absent, now)).unwrap();
    assert!(
        matches!(written, Answer::Write(Written { applied: true, .. })),
        "{written:?}"
    );
}

#[test]
fn sequences_have_a_window_and_first_sends_a_horizon() {
    let server = Server::start();
    let mut client = server.client();
    client.ping().unwrap();
    let window = u64::from(client.server().session_window);
    let put_at = |sequence, answered_below, client: &mut Client| {
        let retry = retry(client, 4, sequence, answered_below);
        ask(
            client,
            &put(b"{w}", &sequence.to_le_bytes(), Condition::None, retry),
        )
    };
    put_at(window - 1, 0, &mut client).unwrap();
    assert_eq!(refusal(put_at(window, 0, &mut client)), ErrorCode::SessionWindow);
    put_at(window, 1, &mut client).unwrap();
    assert_eq!(
        refusal(put_at(0, 0, &mut client)),
        ErrorCode::OutcomeUnknown,
        "reported"
    );
    put_at(1, 1, &mut client).unwrap();
    let horizon_ms = client.server().retry_horizon_ms;
    let long_ago = Retry {
        first_sent: client.timestamp() - ((horizon_ms * 1_000) << 12) - MINUTE,
        ..retry(&client, 5, 0, 0)
    };
    let old = put(b"{w}", b"old", Condition::None, long_ago);
    assert_eq!(refusal(ask(&mut client, &old)), ErrorCode::OutcomeUnknown);
    assert_eq!(value(&mut client, b"{w}"), Some(1_u64.to_le_bytes().to_vec()));
}
