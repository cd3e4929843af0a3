//! The bytes of retries and failures in the log, as they are for ever, and the refusal of all others.

use proptest::prelude::*;

use super::super::*;

const RETRY: Retry = Retry {
    session: SessionId(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100),
    sequence: Sequence(0x1716_1514_1312_1110),
    answered_below: Sequence(0x0706_1514_1312_1110),
    first_sent: Timestamp(0x2726_2524_2322_2120),
};

#[test]
fn golden_bytes_of_a_retry() {
    let bytes: [u8; RETRY_BYTES] = [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, // session
        0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, // sequence
        0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x06, 0x07, // answered_below
        0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, // first_sent
    ];
    assert_eq!(RETRY.encode(), bytes);
    assert_eq!(Retry::decode(&bytes), Some(RETRY));
}

#[test]
fn golden_bytes_of_failures() {
    let (operation, version) = (0x0403_0201, Timestamp(0x1716_1514_1312_1110));
    for (failure, bytes) in [
        (
            Failure::ConditionFailed { version, operation },
            [
                1, 0, 0, 0, 1, 2, 3, 4, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17,
            ],
        ),
        (
            Failure::NotANumber { operation },
            [2, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        (
            Failure::NumberOverflow { operation },
            [3, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
    ] {
        assert_eq!(failure.encode(), bytes);
        assert_eq!(Failure::decode(&bytes), Some(failure));
    }
}

#[test]
fn a_retry_of_another_length_or_that_reports_itself_is_refused() {
    let bytes = RETRY.encode();
    assert_eq!(Retry::decode(&bytes[..39]), None);
    assert_eq!(Retry::decode(&[&bytes[..], &[0]].concat()), None);
    let beyond = Retry {
        answered_below: Sequence(RETRY.sequence.0 + 1),
        ..RETRY
    };
    assert_eq!(Retry::decode(&beyond.encode()), None);
    let own = Retry {
        answered_below: RETRY.sequence,
        ..RETRY
    };
    assert_eq!(Retry::decode(&own.encode()), Some(own));
}

#[test]
fn a_failure_with_a_byte_that_is_not_its_own_is_refused() {
    let bytes = Failure::NotANumber { operation: 7 }.encode();
    assert_eq!(Failure::decode(&bytes[..15]), None);
    assert_eq!(Failure::decode(&[&bytes[..], &[0]].concat()), None);
    for (place, byte) in [(0, 0), (0, 4), (1, 1), (2, 1), (3, 1), (8, 1), (15, 1)] {
        let mut damaged = bytes;
        damaged[place] = byte;
        assert_eq!(Failure::decode(&damaged), None, "byte {place} is {byte}");
        damaged[0] = 3;
        assert_eq!(
            Failure::decode(&damaged).is_none(),
            place != 0,
            "byte {place} is {byte}"
        );
    }
}

#[test]
fn numbers_keep_their_order_and_count() {
    for numbers in [&[][..], &[-5], &[0, 0], &[i64::MIN, 3, i64::MAX]] {
        assert_eq!(Numbers::new(numbers).as_slice(), numbers);
    }
}

proptest! {
    #[test]
    fn bytes_that_decode_are_those_that_encode(
        retry in prop::collection::vec(any::<u8>(), RETRY_BYTES),
        failure in prop::array::uniform16(prop_oneof![Just(0u8), 0u8..4]),
    ) {
        if let Some(decoded) = Retry::decode(&retry) {
            prop_assert_eq!(&decoded.encode()[..], &retry[..]);
        }
        if let Some(decoded) = Failure::decode(&failure) {
            prop_assert_eq!(decoded.encode(), failure);
        }
    }
}
