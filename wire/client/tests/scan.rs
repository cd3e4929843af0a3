//! A scan asks for its pages by itself, all of one snapshot, and refuses pages that can't be right.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test of sockets needs sockets, and a server needs its thread"
)]

mod common;
#[path = "common/fake_server.rs"]
mod fake_server;

use fake_server::{FakeServer, Session, once};
use ostrakon_client::{
    Client, Entry, Error, ErrorCode, ProtocolError, Request, Response, ScanOptions, ScanRequest,
};
use ostrakon_wire::message::{ErrorReply, ScanEntry, ScanReply};

/// Expects the request for a page from `start`, and answers with these keys.
fn page(
    session: &mut Session,
    (start, asked_snapshot): (&[u8], u64),
    (snapshot, keys, resume_key): (u64, &[&[u8]], Option<&[u8]>),
) {
    let entries: Vec<ScanEntry<'_>> = keys
        .iter()
        .map(|key| ScanEntry {
            key,
            value: key,
            version: 3,
            expires: 0,
        })
        .collect();
    let expected = ScanRequest {
        start,
        prefix: b"p/",
        limit: 2,
        snapshot: asked_snapshot,
        ..ScanRequest::ALL
    };
    session.exchange(
        |request| assert_eq!(request, Request::Scan(expected)),
        &Response::Scan(ScanReply {
            snapshot,
            entries: entries[..].into(),
            resume_key,
        }),
    );
}

/// Scans the keys that start with `p/` in pages of two.
fn scan(script: impl FnOnce(&mut Session) + Send + 'static) -> (Vec<Vec<u8>>, Option<Error>) {
    let server = FakeServer::greeting(10, script);
    let mut client = Client::connect(&server.address, once()).expect("the server is there");
    let mut scan = client.scan(ScanOptions {
        page_limit: 2,
        ..ScanOptions::prefix(b"p/")
    });
    let (mut keys, mut failure) = (Vec::new(), None);
    for entry in scan.by_ref() {
        match entry {
            Ok(Entry {
                key, value, version, ..
            }) => {
                assert_eq!((&value, version), (&key, 3));
                keys.push(key);
            }
            Err(error) => failure = Some(error),
        }
    }
    assert!(scan.next().is_none(), "a scan that ended has begun again");
    drop(client);
    server.join();
    (keys, failure)
}

#[test]
fn pages_follow_each_other_at_one_snapshot() {
    let (keys, failure) = scan(|session| {
        page(session, (b"", 0), (77, &[b"p/1", b"p/2"], Some(b"p/2\0")));
        page(session, (b"p/2\0", 77), (77, &[], Some(b"p/5")));
        page(session, (b"p/5", 77), (77, &[b"p/5"], None));
        session.expect_end();
    });
    assert!(failure.is_none(), "{failure:?}");
    assert_eq!(keys, [b"p/1", b"p/2", b"p/5"]);
}

#[test]
fn a_scan_ends_with_its_first_error() {
    let (keys, failure) = scan(|session| {
        page(session, (b"", 0), (77, &[b"p/1"], Some(b"p/2")));
        let too_old = ErrorReply {
            code: ErrorCode::SnapshotTooOld,
            message: "gone",
            retry_after_ms: 0,
        };
        session.exchange(|_| {}, &Response::Error(too_old));
        session.expect_end();
    });
    assert_eq!(keys, [b"p/1"]);
    assert!(
        matches!(
            failure,
            Some(Error::Server {
                code: ErrorCode::SnapshotTooOld,
                ..
            })
        ),
        "{failure:?}"
    );
}

/// The complaint about a second page with this content, asked for from `p/5`.
fn complaint(second: (u64, &'static [&'static [u8]], Option<&'static [u8]>)) -> &'static str {
    let (keys, failure) = scan(move |session| {
        page(session, (b"", 0), (77, &[b"p/1"], Some(b"p/5")));
        page(session, (b"p/5", 77), second);
        session.expect_end();
    });
    assert_eq!(keys, [b"p/1"]);
    match failure {
        Some(Error::Protocol(ProtocolError::ScanPage { detail })) => detail,
        other => panic!("{other:?}"),
    }
}

#[test]
fn pages_that_cannot_be_right_are_refused() {
    let misfit = "does not fit what was asked for, or leads nowhere";
    assert_eq!(complaint((78, &[b"p/6"], None)), "is not of the scan's snapshot");
    assert_eq!(complaint((77, &[b"p/4"], None)), misfit);
    assert_eq!(complaint((77, &[b"p/6", b"p0"], None)), misfit);
    assert_eq!(complaint((77, &[b"p/7", b"p/6"], None)), misfit);
    assert_eq!(complaint((77, &[], Some(b"p/5"))), misfit);
}

#[test]
fn a_scan_in_reverse_goes_on_below_each_page_and_ends_at_its_limit() {
    let server = FakeServer::greeting(10, |session| {
        for (end, limit, snapshot, key, resume_key) in [
            (None, 2, 0, &b"b9"[..], Some(&b"b9"[..])),
            (Some(&b"b9"[..]), 1, 7, b"b3", Some(b"b2")),
        ] {
            let expected = ScanRequest {
                start: b"a",
                end,
                limit,
                snapshot,
                reverse: true,
                keys_only: true,
                ..ScanRequest::ALL
            };
            let entries = [ScanEntry {
                key,
                value: b"",
                version: 3,
                expires: 4,
            }];
            let reply = ScanReply {
                snapshot: 7,
                entries: entries[..].into(),
                resume_key,
            };
            session.exchange(
                |request| assert_eq!(request, Request::Scan(expected)),
                &Response::Scan(reply),
            );
        }
        session.expect_end();
    });
    let mut client = Client::connect(&server.address, once()).expect("the server is there");
    let options = ScanOptions {
        start: b"a".to_vec(),
        reverse: true,
        keys_only: true,
        limit: 2,
        ..ScanOptions::default()
    };
    let entries: Result<Vec<Entry>, Error> = client.scan(options).collect();
    let keys: Vec<Vec<u8>> = entries
        .expect("good pages")
        .into_iter()
        .map(|entry| entry.key)
        .collect();
    assert_eq!(keys, [b"b9", b"b3"]);
    drop(client);
    server.join();
}
