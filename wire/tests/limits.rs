//! The bounds of the protocol, each from both sides.

use ostrakon_wire::frame::{self, HEADER_BYTES};
use ostrakon_wire::limits::{
    BODY_BYTES_MAX, KEY_BYTES_MAX, MULTI_MAX, SCAN_BOUND_BYTES_MAX, SCAN_LIMIT_MAX, TTL_MS_MAX,
    VALUE_BYTES_MAX,
};
use ostrakon_wire::message::{
    Action, BatchOperation, Condition, DecodeError, Encoder, ErrorCode, Found, Kind, MultiValue, PutEntry,
    Request, Response, Retry, ScanEntry, ScanReply, ScanRequest,
};

/// Encodes without checking, as a faulty client would, and decodes.
fn received(request: &Request<'_>) -> Result<(), DecodeError> {
    let mut frame = Vec::new();
    Encoder::new().request(&mut frame, 1, 0, request);
    let (header, body) = frame::decode(&frame, BODY_BYTES_MAX)
        .expect("good")
        .expect("whole");
    let decoded = Request::decode(header.kind, body).map(drop);
    assert_eq!(request.check(), decoded, "sender and receiver disagree");
    decoded
}

fn received_multi_get(keys: &[&[u8]]) -> Result<(), DecodeError> {
    received(&Request::MultiGet { keys: keys.into() })
}

fn received_multi_put(entries: &[PutEntry<'_>]) -> Result<(), DecodeError> {
    received(&Request::MultiPut {
        entries: entries.into(),
        retry: None,
    })
}

fn received_batch(operations: &[BatchOperation<'_>]) -> Result<(), DecodeError> {
    received(&Request::Batch {
        operations: operations.into(),
        retry: None,
    })
}

/// Every way to write this: each is accepted, or refused for the same reason.
fn assert_writes(key: &[u8], value: &[u8], ttl_ms: u64, expected: &Result<(), DecodeError>) {
    let condition = Condition::None;
    let put = Request::Put {
        key,
        value,
        condition,
        ttl_ms,
        retry: None,
    };
    assert_eq!(&received(&put), expected);
    assert_eq!(&received_multi_put(&[PutEntry { key, value, ttl_ms }]), expected);
    let put = BatchOperation {
        key,
        action: Action::Put { value, ttl_ms },
        condition,
    };
    assert_eq!(&received_batch(&[put]), expected);
    if value.len() <= VALUE_BYTES_MAX {
        assert_eq!(
            &received(&Request::Add {
                key,
                delta: 1,
                ttl_ms,
                retry: None
            }),
            expected
        );
        let add = BatchOperation {
            key,
            action: Action::Add { delta: 1, ttl_ms },
            condition,
        };
        assert_eq!(&received_batch(&[add]), expected);
    }
}

#[test]
fn keys_have_a_shortest_and_a_longest_length() {
    let longest = vec![7; KEY_BYTES_MAX];
    let too_long = vec![7; KEY_BYTES_MAX + 1];
    let (value, condition) = (&b"v"[..], Condition::None);
    for (key, expected) in [
        (&b"k"[..], Ok(())),
        (&longest, Ok(())),
        (
            &too_long,
            Err(DecodeError::KeyTooLarge {
                bytes: KEY_BYTES_MAX + 1,
            }),
        ),
        (b"", Err(DecodeError::KeyEmpty)),
    ] {
        assert_eq!(received(&Request::Get { key }), expected);
        assert_eq!(received(&Request::delete(key, condition)), expected);
        assert_eq!(received_multi_get(&[b"k", key]), expected);
        assert_writes(key, value, 0, &expected);
        let check = BatchOperation {
            key,
            action: Action::Check,
            condition: Condition::Absent,
        };
        assert_eq!(received_batch(&[check]), expected);
    }
}

#[test]
fn values_have_a_longest_length() {
    for (bytes, expected) in [
        (0, Ok(())),
        (VALUE_BYTES_MAX, Ok(())),
        (
            VALUE_BYTES_MAX + 1,
            Err(DecodeError::ValueTooLarge {
                bytes: VALUE_BYTES_MAX + 1,
            }),
        ),
    ] {
        let value = vec![0; bytes];
        assert_writes(b"k", &value, 0, &expected);
        let condition = Condition::Value(&value);
        assert_eq!(received(&Request::put(b"k", b"", condition)), expected);
        assert_eq!(received(&Request::delete(b"k", condition)), expected);
        let check = BatchOperation {
            key: b"k",
            action: Action::Check,
            condition,
        };
        assert_eq!(received_batch(&[check]), expected);
    }
}

#[test]
fn values_in_answers_have_a_longest_length() {
    let value = vec![0; VALUE_BYTES_MAX + 1];
    let found = Found {
        version: 1,
        expires: 0,
        value: &value,
    };
    let entries = [ScanEntry {
        key: b"k",
        value: &value,
        version: 1,
        expires: 0,
    }];
    let page = ScanReply {
        snapshot: 1,
        entries: entries[..].into(),
        resume_key: None,
    };
    for response in [
        Response::Get { found: Some(found) },
        Response::MultiGet {
            values: (&[MultiValue::Found(found)][..]).into(),
        },
        Response::Scan(page),
    ] {
        let mut frame = Vec::new();
        Encoder::new().response(&mut frame, 1, 0, &response);
        let (header, body) = frame::decode(&frame, BODY_BYTES_MAX)
            .expect("good")
            .expect("whole");
        let too_large = DecodeError::ValueTooLarge {
            bytes: VALUE_BYTES_MAX + 1,
        };
        assert_eq!(Response::decode(header.kind, body), Err(too_large));
    }
}

#[test]
fn times_to_live_have_a_longest() {
    assert_writes(b"k", b"v", TTL_MS_MAX, &Ok(()));
    let ttl_ms = TTL_MS_MAX + 1;
    assert_writes(b"k", b"v", ttl_ms, &Err(DecodeError::TtlTooLong { ttl_ms }));
}

/// What reading a list of so many elements of this kind says.
fn received_list(kind: Kind, count: usize) -> Result<(), DecodeError> {
    let keys: Vec<[u8; 2]> = (0..count as u16).map(u16::to_be_bytes).collect();
    let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    let condition = Condition::None;
    match kind {
        Kind::MultiGet => received_multi_get(&keys),
        Kind::MultiPut => {
            let entry = |&key| PutEntry {
                key,
                value: b"",
                ttl_ms: 0,
            };
            received_multi_put(&keys.iter().map(entry).collect::<Vec<_>>())
        }
        Kind::Batch => {
            let operation = |&key| BatchOperation {
                key,
                action: Action::Delete,
                condition,
            };
            received_batch(&keys.iter().map(operation).collect::<Vec<_>>())
        }
        _ => unreachable!("a {kind} has no list"),
    }
}

#[test]
fn lists_have_a_fewest_and_a_most() {
    for kind in [Kind::MultiGet, Kind::MultiPut, Kind::Batch] {
        assert_eq!(received_list(kind, 0), Err(DecodeError::Empty { kind }));
        assert_eq!(received_list(kind, 1), Ok(()));
        assert_eq!(received_list(kind, MULTI_MAX), Ok(()));
        let count = MULTI_MAX + 1;
        assert_eq!(
            received_list(kind, count),
            Err(DecodeError::TooMany { kind, count })
        );
    }
    let decode = |count: usize| {
        let values = vec![MultiValue::NotFound; count];
        let mut frame = Vec::new();
        Encoder::new().multi_get_reply(&mut frame, 1, 0, values.iter().copied());
        let decoded = Response::decode(Kind::MultiGetReply as u16, &frame[HEADER_BYTES..]);
        decoded.map(drop)
    };
    let kind = Kind::MultiGetReply;
    assert_eq!(decode(0), Err(DecodeError::Empty { kind }));
    assert_eq!(decode(MULTI_MAX), Ok(()));
    let count = MULTI_MAX + 1;
    assert_eq!(decode(count), Err(DecodeError::TooMany { kind, count }));
}

/// The elements that claim most for the bytes that they are: no honest list looks like a hostile one.
#[test]
fn the_smallest_elements_are_accepted_in_any_number() {
    let keys: Vec<[u8; 2]> = (0..MULTI_MAX as u16).map(u16::to_be_bytes).collect();
    let key = |position: usize| &keys[position][..];
    let actions = [
        Action::Put {
            value: b"",
            ttl_ms: 0,
        },
        Action::Put {
            value: b"",
            ttl_ms: 1,
        },
        Action::Delete,
        Action::Add { delta: 0, ttl_ms: 0 },
        Action::Add { delta: 1, ttl_ms: 1 },
        Action::Check,
    ];
    let conditions = [
        Condition::None,
        Condition::Absent,
        Condition::Present,
        Condition::Version(1),
        Condition::Value(b""),
    ];
    for action in actions {
        for condition in conditions {
            let operation = |position| BatchOperation {
                key: key(position),
                action,
                condition,
            };
            let operations: Vec<_> = (0..MULTI_MAX).map(operation).collect();
            let senseless = action == Action::Check && condition == Condition::None;
            assert_eq!(
                received_batch(&operations).is_err(),
                senseless,
                "{action:?} if {condition:?}"
            );
        }
    }
    let entries: Vec<_> = (0..MULTI_MAX)
        .map(|position| PutEntry {
            key: key(position),
            value: b"",
            ttl_ms: 1,
        })
        .collect();
    assert_eq!(received_multi_put(&entries), Ok(()));
    assert_eq!(received_multi_get(&[&b"k"[..]; MULTI_MAX]), Ok(()));

    let found = |expires| {
        MultiValue::Found(Found {
            version: 1,
            expires,
            value: b"",
        })
    };
    for value in [found(0), found(1), MultiValue::NotFound, MultiValue::Omitted] {
        let mut frame = Vec::new();
        Encoder::new().multi_get_reply(&mut frame, 1, 0, std::iter::repeat_n(value, MULTI_MAX));
        let decoded = Response::decode(Kind::MultiGetReply as u16, &frame[HEADER_BYTES..]);
        assert!(decoded.is_ok(), "{value:?}: {decoded:?}");
    }
}

/// A list of as many elements as there can be, of which the first five carry almost all of the bytes.
#[test]
fn a_list_that_fits_no_frame_is_refused_before_it_is_encoded() {
    let keys: Vec<[u8; 2]> = (0..MULTI_MAX as u16).map(u16::to_be_bytes).collect();
    let big = vec![7; VALUE_BYTES_MAX];
    let value = |position: usize, last_bytes: usize| match position {
        0..4 => &big[..],
        4 => &big[..last_bytes],
        _ => b"",
    };
    let entries = |last_bytes: usize| -> Vec<_> {
        let entry = |position: usize| PutEntry {
            key: &keys[position],
            value: value(position, last_bytes),
            ttl_ms: 1,
        };
        (0..MULTI_MAX).map(entry).collect()
    };
    let operations = |last_bytes: usize| -> Vec<_> {
        let operation = |position: usize| BatchOperation {
            key: &keys[position],
            action: Action::Put {
                value: b"",
                ttl_ms: 1,
            },
            condition: Condition::Value(value(position, last_bytes)),
        };
        (0..MULTI_MAX).map(operation).collect()
    };
    let check = |kind: Kind, last_bytes: usize| match kind {
        Kind::MultiPut => Request::MultiPut {
            entries: entries(last_bytes)[..].into(),
            retry: None,
        }
        .check(),
        _ => Request::Batch {
            operations: operations(last_bytes)[..].into(),
            retry: None,
        }
        .check(),
    };
    for kind in [Kind::MultiPut, Kind::Batch] {
        let (mut accepted, mut refused) = (0, VALUE_BYTES_MAX);
        while accepted + 1 < refused {
            let middle = usize::midpoint(accepted, refused);
            match check(kind, middle) {
                Ok(()) => accepted = middle,
                Err(_) => refused = middle,
            }
        }
        let bytes = BODY_BYTES_MAX + 1;
        assert_eq!(
            check(kind, refused),
            Err(DecodeError::BodyTooLarge { kind, bytes })
        );
        let longest = match kind {
            Kind::MultiPut => received_multi_put(&entries(accepted)),
            _ => received_batch(&operations(accepted)),
        };
        assert_eq!(longest, Ok(()), "{kind}");
    }
}

#[test]
fn keys_are_written_once_and_read_as_often_as_wanted() {
    let entry = |key| PutEntry {
        key,
        value: b"v",
        ttl_ms: 0,
    };
    let delete = |key| BatchOperation {
        key,
        action: Action::Delete,
        condition: Condition::None,
    };
    assert_eq!(received_multi_get(&[b"a", b"b", b"a"]), Ok(()));
    let kind = Kind::MultiPut;
    assert_eq!(
        received_multi_put(&[entry(b"a"), entry(b"b"), entry(b"a")]),
        Err(DecodeError::KeyTwice { kind })
    );
    assert_eq!(
        received_multi_put(&[entry(b"a"), entry(b"ab"), entry(b"b")]),
        Ok(())
    );
    let kind = Kind::Batch;
    assert_eq!(
        received_batch(&[delete(b"a"), delete(b"b"), delete(b"a")]),
        Err(DecodeError::KeyTwice { kind })
    );
    let check = BatchOperation {
        key: b"k",
        action: Action::Check,
        condition: Condition::None,
    };
    let what = "a check without a condition";
    assert_eq!(received_batch(&[check]), Err(DecodeError::BatchFields { what }));
}

#[test]
fn a_retry_does_not_say_that_it_is_answered() {
    for (sequence, answered_below) in [
        (0, 0),
        (7, 7),
        (7, 0),
        (u64::MAX, u64::MAX),
        (6, 7),
        (0, u64::MAX),
    ] {
        let expected = if sequence < answered_below {
            Err(DecodeError::RetryAnswered {
                sequence,
                answered_below,
            })
        } else {
            Ok(())
        };
        let retry = Some(Retry {
            session: u128::MAX,
            sequence,
            answered_below,
            first_sent: 0,
        });
        let (key, value, condition) = (b"k", b"v", Condition::None);
        let entry = PutEntry {
            key,
            value,
            ttl_ms: 0,
        };
        let delete = BatchOperation {
            key,
            action: Action::Delete,
            condition,
        };
        for request in [
            Request::Put {
                key,
                value,
                condition,
                ttl_ms: 0,
                retry,
            },
            Request::Delete {
                key,
                condition,
                retry,
            },
            Request::Add {
                key,
                delta: 1,
                ttl_ms: 0,
                retry,
            },
            Request::MultiPut {
                entries: (&[entry][..]).into(),
                retry,
            },
            Request::Batch {
                operations: (&[delete][..]).into(),
                retry,
            },
        ] {
            assert_eq!(request.retry(), retry);
            assert_eq!(received(&request), expected);
        }
    }
}

#[test]
fn a_range_to_delete_has_a_key_and_bounds() {
    let longest = vec![7; SCAN_BOUND_BYTES_MAX];
    let too_long = vec![7; SCAN_BOUND_BYTES_MAX + 1];
    let range = |start: &[u8], end: Option<&[u8]>| {
        let retry = None;
        received(&Request::DeleteRange { start, end, retry })
    };
    let refused = Err(DecodeError::ScanBoundTooLarge {
        bytes: too_long.len(),
    });
    assert_eq!(range(b"", None), Ok(()));
    assert_eq!(range(b"", Some(&longest)), Ok(()));
    assert_eq!(range(&longest, None), Ok(()));
    assert_eq!(range(&too_long, None), refused);
    assert_eq!(range(b"", Some(&too_long)), refused);
    for (start, end) in [(&b"b"[..], &b"a"[..]), (b"b", b"b"), (b"", b"")] {
        assert_eq!(range(start, Some(end)), Err(DecodeError::RangeEmpty));
    }
    assert_eq!(DecodeError::RangeEmpty.error_code(), ErrorCode::BadRequest);
}

#[test]
fn scans_have_bounds_of_their_own() {
    let all = ScanRequest::ALL;
    let scan = |start: &[u8], end: Option<&[u8]>, limit: u32| {
        received(&Request::Scan(ScanRequest {
            start,
            end,
            limit,
            ..all
        }))
    };
    let prefixed = |prefix: &[u8]| received(&Request::Scan(ScanRequest { prefix, ..all }));
    let longest = vec![7; SCAN_BOUND_BYTES_MAX];
    let too_long = vec![7; SCAN_BOUND_BYTES_MAX + 1];
    let refused = Err(DecodeError::ScanBoundTooLarge {
        bytes: SCAN_BOUND_BYTES_MAX + 1,
    });
    assert_eq!(scan(&longest, Some(&longest), SCAN_LIMIT_MAX), Ok(()));
    assert_eq!(scan(&too_long, None, 0), refused);
    assert_eq!(scan(b"", Some(&too_long), 0), refused);
    assert_eq!(prefixed(&longest), Ok(()));
    assert_eq!(prefixed(&too_long), refused);
    assert_eq!(
        scan(b"", None, SCAN_LIMIT_MAX + 1),
        Err(DecodeError::ScanLimit {
            limit: SCAN_LIMIT_MAX + 1
        })
    );
}
