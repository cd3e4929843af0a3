//! The bytes of entries, and what is refused.

use super::*;
use ostrakon_core::sessions::{Sequence, SessionId};

const RETRY: Retry = Retry {
    session: SessionId(0x0102_0304_0506_0708_090A_0B0C_0D0E_0F10),
    sequence: Sequence(7),
    answered_below: Sequence(5),
    first_sent: Timestamp(9),
};

const RETRY_BYTES_EXPECTED: [u8; 40] = [
    0x10, 0x0F, 0x0E, 0x0D, 0x0C, 0x0B, 0x0A, 9, 8, 7, 6, 5, 4, 3, 2, 1, 7, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0,
    0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0,
];

fn put(value: &[u8]) -> Change<'_> {
    Change::Put {
        value,
        expiry: None,
        is_sum: false,
    }
}

fn encoded_write(retry: Option<&Retry>, key: &[u8], change: &Change<'_>) -> Vec<u8> {
    let head = Head::of_write(Timestamp(0x0102_0304_0506_0708), retry, key, change);
    [head.as_bytes(), key, change.value()].concat()
}

/// The bytes stand for the command, and for nothing when one of them is missing or one too many is there.
#[track_caller]
fn assert_means(bytes: &[u8], expected: &Command<'_>) {
    assert_eq!(Command::decode(bytes).as_ref(), Some(expected));
    for end in 0..bytes.len() {
        // A shorter value is a value, too.
        assert_ne!(
            Command::decode(&bytes[..end]).as_ref(),
            Some(expected),
            "cut at {end}"
        );
    }
}

#[test]
fn golden_bytes_of_one_key() {
    let timestamp = Timestamp(0x0102_0304_0506_0708);
    let bytes = encoded_write(None, b"k", &put(b"vw"));
    assert_eq!(
        bytes,
        [1, 0, 0, 0, 1, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1, b'k', b'v', b'w']
    );
    let write = |retry, key, change| Command {
        timestamp,
        retry,
        body: Body::Write { key, change },
    };
    assert_means(&bytes, &write(None, b"k", put(b"vw")));

    let bytes = encoded_write(None, b"k", &Change::Delete);
    assert_eq!(bytes, [2, 0, 0, 0, 1, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1, b'k']);
    assert_means(&bytes, &write(None, b"k", Change::Delete));

    let sum = Change::Put {
        value: b"-3",
        expiry: Some(Timestamp(0x11)),
        is_sum: true,
    };
    let bytes = encoded_write(Some(&RETRY), b"k", &sum);
    let head = [1, 7, 0, 0, 1, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1];
    let expiry = [0x11, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(
        bytes,
        [&head[..], &RETRY_BYTES_EXPECTED, &expiry, b"k-3"].concat()
    );
    assert_means(&bytes, &write(Some(RETRY), b"k", sum));
}

#[test]
fn golden_bytes_of_ranges() {
    let timestamp = Timestamp(0x0102_0304_0506_0708);
    let encoded = |retry: Option<&Retry>, start: &[u8], end: Option<&[u8]>| {
        let head = Head::of_delete_range(timestamp, retry, start, end);
        [head.as_bytes(), start, end.unwrap_or_default()].concat()
    };
    let command = |retry, start, end| Command {
        timestamp,
        retry,
        body: Body::DeleteRange { start, end },
    };
    let bytes = encoded(None, b"ab", Some(b"c"));
    assert_eq!(
        bytes,
        [6, 0, 0, 0, 2, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1, b'a', b'b', b'c']
    );
    assert_means(&bytes, &command(None, b"ab", Some(b"c")));

    let bytes = encoded(Some(&RETRY), b"", None);
    let head = [6, 9, 0, 0, 0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1];
    assert_eq!(bytes, [&head[..], &RETRY_BYTES_EXPECTED].concat());
    assert_means(&bytes, &command(Some(RETRY), b"", None));

    let decode = |bytes: &[u8]| Command::decode(bytes).is_some();
    assert!(!decode(&encoded(None, b"b", Some(b"b"))), "no key lies in it");
    assert!(!decode(&encoded(None, b"b", Some(b"a"))));
    assert!(
        !decode(&[&encoded(None, b"b", None)[..], b"c"].concat()),
        "an end that is none"
    );
    let mut flagged = encoded(None, b"a", None);
    flagged[1] |= 4;
    assert!(!decode(&flagged));
}

#[test]
fn golden_bytes_of_the_rest() {
    let ceiling = Head::of_ceiling(Timestamp(2), Timestamp(1), Timestamp(3));
    assert_eq!(
        ceiling.as_bytes(),
        [
            3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0
        ]
    );
    assert_eq!(ceiling.as_bytes().len(), CEILING_BYTES);
    let expected = Command {
        timestamp: Timestamp(2),
        retry: None,
        body: Body::Ceiling {
            horizon: Timestamp(1),
            watermark: Timestamp(3),
        },
    };
    assert_means(ceiling.as_bytes(), &expected);

    let failure = Failure::NotANumber { operation: 3 };
    let head = Head::of_failure(Timestamp(2), &RETRY, &failure);
    let fixed = [5, 1, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];
    let bytes = [&fixed[..], &RETRY_BYTES_EXPECTED, &failure.encode()].concat();
    assert_eq!(head.as_bytes(), bytes);
    let expected = Command {
        timestamp: Timestamp(2),
        retry: Some(RETRY),
        body: Body::Failure(failure),
    };
    assert_means(head.as_bytes(), &expected);

    let mut bytes = Head::of_batch(Timestamp(2), None, 2).as_bytes().to_vec();
    let expiring = Change::Put {
        value: b"v",
        expiry: Some(Timestamp(3)),
        is_sum: false,
    };
    append_operation(&mut bytes, b"ab", &expiring);
    append_operation(&mut bytes, b"c", &Change::Delete);
    assert_eq!(
        bytes,
        [
            &[4, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0][..],
            &[
                1, 2, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, b'a', b'b', b'v'
            ],
            &[2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'c'],
        ]
        .concat()
    );
    let Some(Command {
        body: Body::Batch(operations),
        ..
    }) = Command::decode(&bytes)
    else {
        panic!("a good batch was refused");
    };
    assert_eq!(operations.len(), 2);
    let found: Vec<_> = operations.iter().collect();
    assert_eq!(found, [(&b"ab"[..], expiring), (&b"c"[..], Change::Delete)]);
    for end in 0..bytes.len() {
        assert_eq!(Command::decode(&bytes[..end]), None, "cut at {end}");
    }
    bytes.push(0);
    assert_eq!(Command::decode(&bytes), None, "a byte too many");
}

#[test]
fn malformed_payloads_are_refused() {
    let delete = encoded_write(None, b"key", &Change::Delete);
    let changed = |at: usize, byte: u8| {
        let mut bytes = delete.clone();
        bytes[at] = byte;
        bytes
    };
    assert_eq!(
        Command::decode(&[&delete[..], b"x"].concat()),
        None,
        "a delete with a value"
    );
    assert_eq!(Command::decode(&changed(0, 9)), None, "an unknown kind");
    assert_eq!(Command::decode(&changed(1, 2)), None, "a delete that expires");
    assert_eq!(Command::decode(&changed(1, 8)), None, "an unknown flag");
    assert_eq!(Command::decode(&changed(2, 1)), None, "a byte that must be zero");
    assert_eq!(Command::decode(&[9; 16]), None);
    let no_sum = Change::Put {
        value: b"x",
        expiry: None,
        is_sum: true,
    };
    assert_eq!(
        Command::decode(&encoded_write(None, b"k", &no_sum)),
        None,
        "a sum that is no number"
    );
    let empty = Head::of_batch(Timestamp(1), None, 0);
    assert_eq!(Command::decode(empty.as_bytes()), None, "a batch of nothing");
}

#[test]
fn a_number_has_one_form() {
    for (value, expected) in [
        (&b"0"[..], Some(0)),
        (b"7", Some(7)),
        (b"-1", Some(-1)),
        (b"9223372036854775807", Some(i64::MAX)),
        (b"-9223372036854775808", Some(i64::MIN)),
        (b"9223372036854775808", None),
        (b"", None),
        (b"-", None),
        (b"-0", None),
        (b"007", None),
        (b"+1", None),
        (b" 1", None),
        (b"1.0", None),
        (b"\xff", None),
    ] {
        assert_eq!(parse_number(value), expected, "{}", value.escape_ascii());
    }
}
