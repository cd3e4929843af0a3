//! The bytes of a stored table, as they are for ever, the refusal of all others, and what counts as a change.

use proptest::prelude::*;

use super::super::*;
use super::{answer, changes, replicated, with_applied, write, write_of};

/// The bytes of what this table holds of session 1.
fn encoded(mut table: Sessions) -> Vec<u8> {
    let [(SessionId(1), Some(bytes))] = &changes(&mut table)[..] else {
        panic!("one session is expected");
    };
    bytes.clone()
}

fn decoded(bytes: &[u8]) -> Option<Sessions> {
    let mut table = Sessions::new();
    let is_restored = table.restore_session(SessionId(1), bytes);
    assert_eq!(is_restored, table.session_count() == 1);
    is_restored.then_some(table)
}

/// The same after a restart: `None` if its bytes are refused.
fn reencoded(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut table = decoded(bytes)?;
    assert_eq!(changes(&mut table), [], "what is restored has not changed");
    // The flag is all that keeps a session from being shown.
    let session = table.by_id.get_mut(&SessionId(1)).unwrap();
    table.changes.note(SessionId(1), session);
    Some(encoded(table))
}

/// Session 1 with all kinds of answers.
fn golden() -> Sessions {
    let failed = |sequence: u64, failure| (write(sequence, 3, 9), Answer::Failed(failure));
    let applied = |sequence: u64, version: u64, numbers: &[i64]| {
        let (version, numbers) = (Timestamp(version), Numbers::new(numbers));
        (
            write(sequence, 3, 0x1716_1514_1312_1110),
            Answer::Applied { version, numbers },
        )
    };
    let mut table = Sessions::new();
    for (write, answer) in [
        applied(3, 0x2726_2524_2322_2120, &[]),
        applied(4, 5, &[-2]),
        failed(
            5,
            Failure::ConditionFailed {
                version: Timestamp(0x3736_3534_3332_3130),
                operation: 0x0403_0201,
            },
        ),
        applied(0x4746_4544_4342_4140, 6, &[1, i64::MIN]),
    ] {
        table.apply(&write, answer);
    }
    table
}

const GOLDEN: [u8; 152] = [
    3, 0, 0, 0, 0, 0, 0, 0, // answered_below
    0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, // newest_first_sent
    4, 0, 0, 0, 0, 0, 0, 0, // answers
    3, 0, 0, 0, 0, 0, 0, 0, // sequence
    1, 0, 0, 0, 0, 0, 0, 0, // applied, no numbers
    0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, // version
    4, 0, 0, 0, 0, 0, 0, 0, // sequence
    1, 0, 0, 0, 1, 0, 0, 0, // applied, one number
    5, 0, 0, 0, 0, 0, 0, 0, // version
    0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // -2
    5, 0, 0, 0, 0, 0, 0, 0, // sequence
    2, 0, 0, 0, 0, 0, 0, 0, // failed
    1, 0, 0, 0, 1, 2, 3, 4, // condition, operation
    0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, // version
    0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, // sequence
    1, 0, 0, 0, 2, 0, 0, 0, // applied, two numbers
    6, 0, 0, 0, 0, 0, 0, 0, // version
    1, 0, 0, 0, 0, 0, 0, 0, // 1
    0, 0, 0, 0, 0, 0, 0, 0x80, // the least number
];

#[test]
fn golden_bytes_of_a_session() {
    assert_eq!(encoded(golden()), GOLDEN);
    let restored = decoded(&GOLDEN).unwrap();
    assert_eq!(replicated(&restored), replicated(&golden()));
}

#[test]
fn golden_bytes_of_the_progress() {
    let between_rounds = Sessions {
        horizon: Timestamp(0x0706_0504_0302_0100),
        ..Sessions::default()
    };
    let mut bytes = [0; PROGRESS_BYTES];
    bytes[..8].copy_from_slice(&[0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(between_rounds.encode_progress(), bytes);
    let in_a_round = Sessions {
        sweep_from: Some(SessionId(0x1f1e_1d1c_1b1a_1918_1716_1514_1312_1110)),
        ..between_rounds
    };
    for (place, byte) in (8..24).zip(0x10..) {
        bytes[place] = byte;
    }
    bytes[24] = 1;
    assert_eq!(in_a_round.encode_progress(), bytes);
    let restored = Sessions::restore(&bytes).unwrap();
    assert_eq!(replicated(&restored), replicated(&in_a_round));
}

#[test]
fn a_round_that_begins_is_not_the_pause_between_two() {
    for sweep_from in [None, Some(SessionId(0)), Some(SessionId(u128::MAX))] {
        let table = Sessions {
            sweep_from,
            ..Sessions::default()
        };
        let restored = Sessions::restore(&table.encode_progress()).unwrap();
        assert_eq!(restored.sweep_from, sweep_from);
    }
}

#[test]
fn a_progress_with_a_byte_that_is_not_its_own_is_refused() {
    let bytes = Sessions::new().encode_progress();
    assert!(Sessions::restore(&bytes).is_some());
    assert!(Sessions::restore(&bytes[..31]).is_none());
    assert!(Sessions::restore(&[&bytes[..], &[0]].concat()).is_none());
    for (place, byte) in [(8, 1), (23, 1), (24, 2), (25, 1), (31, 1)] {
        let mut damaged = bytes;
        damaged[place] = byte;
        assert!(Sessions::restore(&damaged).is_none(), "byte {place} is {byte}");
        damaged[24] = 1;
        let is_id = place < 25;
        assert_eq!(
            Sessions::restore(&damaged).is_some(),
            is_id,
            "byte {place} is {byte}"
        );
    }
}

#[test]
fn a_session_of_another_length_is_refused() {
    let bytes = &GOLDEN[..];
    for length in 0..bytes.len() {
        assert!(decoded(&bytes[..length]).is_none(), "{length} bytes");
    }
    assert!(decoded(&[bytes, &[0]].concat()).is_none());
}

#[test]
fn a_session_that_no_entries_lead_to_is_refused() {
    for (place, byte, why) in [
        (0, 4, "an answer below the report"),
        (20, 1, "not zero"),
        (24, 4, "a sequence twice"),
        (24, 5, "a sequence that falls"),
        (32, 0, "no kind"),
        (32, 3, "no kind"),
        (33, 1, "not zero"),
        (80 + 12, 1, "a failure with a number"),
        (88, 0, "no kind"),
        (96, 0, "no failure"),
    ] {
        let mut damaged = GOLDEN.to_vec();
        assert_ne!(damaged[place], byte);
        damaged[place] = byte;
        assert!(decoded(&damaged).is_none(), "{why}: byte {place} is {byte}");
    }
    let mut none = GOLDEN[..24].to_vec();
    none[16] = 0;
    assert!(decoded(&none).is_none(), "no answers");
}

#[test]
fn a_session_is_restored_once() {
    let mut table = decoded(&GOLDEN).unwrap();
    let other = encoded(with_applied(&[write(9, 9, 9)]));
    assert!(!table.restore_session(SessionId(1), &other));
    assert_eq!(replicated(&table), replicated(&golden()));
    assert!(table.restore_session(SessionId(2), &other));
    assert_eq!((table.session_count(), table.answer_count()), (2, 5));
}

#[test]
fn a_session_is_shown_once_however_often_it_changed() {
    let mut table = with_applied(&[write_of(5, 1, 0, 10), write(1, 0, 10), write(2, 0, 10)]);
    let shown = changes(&mut table);
    let ids: Vec<_> = shown.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [SessionId(1), SessionId(5)]);
    assert_eq!(changes(&mut table), []);
    table.apply(&write(3, 3, 10), answer(3));
    let bytes = encoded(with_applied(&[write(3, 3, 10)]));
    assert_eq!(changes(&mut table), [(SessionId(1), Some(bytes))]);
}

#[test]
fn what_is_in_flight_is_no_change() {
    let mut table = with_applied(&[write(1, 0, 10)]);
    changes(&mut table);
    table.proposed(&write(2, 1, 10), LogIndex(4));
    table.proposed(&write_of(2, 0, 0, 10), LogIndex(5));
    table.advance_horizon(Timestamp(5));
    assert_eq!(changes(&mut table), []);
    table.forget_in_flight();
    assert_eq!(changes(&mut table), []);
}

#[test]
fn a_dropped_session_is_shown_as_such_even_if_a_proposal_keeps_it() {
    let mut table = with_applied(&[write(1, 0, 10), write_of(2, 1, 0, 10), write_of(3, 1, 0, 30)]);
    table.proposed(&write(2, 0, 10), LogIndex(4));
    changes(&mut table);
    table.advance_horizon(Timestamp(20));
    assert_eq!(changes(&mut table), [(SessionId(1), None), (SessionId(2), None)]);
    // It is noted anew when it comes again.
    table.apply(&write(2, 0, 10), answer(2));
    let bytes = encoded(with_applied(&[write(2, 0, 10)]));
    assert_eq!(changes(&mut table), [(SessionId(1), Some(bytes))]);
}

#[test]
fn a_session_that_was_dropped_and_came_again_is_shown_as_it_is() {
    let mut table = with_applied(&[write(1, 0, 10)]);
    changes(&mut table);
    for round in 2..5 {
        table.advance_horizon(Timestamp(round * 10));
        table.apply(&write(round, 0, round * 10), answer(round));
    }
    let bytes = encoded(with_applied(&[write(4, 0, 40)]));
    assert_eq!(changes(&mut table), [(SessionId(1), Some(bytes))]);
}

/// A session that entries lead to: reports and sequences rise as in a client's life, or come in between.
fn session() -> impl Strategy<Value = Sessions> {
    let answer = prop_oneof![
        3 => (any::<u64>(), prop::collection::vec(any::<i64>(), 0..4)).prop_map(|(version, numbers)| {
            Answer::Applied { version: Timestamp(version), numbers: Numbers::new(&numbers) }
        }),
        1 => (any::<u64>(), any::<u32>()).prop_map(|(version, operation)| {
            Answer::Failed(Failure::ConditionFailed { version: Timestamp(version), operation })
        }),
        1 => any::<u32>().prop_map(|operation| Answer::Failed(Failure::NotANumber { operation })),
        1 => any::<u32>().prop_map(|operation| Answer::Failed(Failure::NumberOverflow { operation })),
    ];
    let writes = prop::collection::btree_map(any::<u64>(), (any::<u64>(), 0u64..3, answer), 1..20);
    writes.prop_map(|writes| {
        let mut table = Sessions::new();
        let first = *writes.first_key_value().unwrap().0;
        for (sequence, (first_sent, report, answer)) in writes {
            let answered_below = [0, first, sequence][report as usize];
            table.apply(&write(sequence, answered_below, first_sent), answer);
        }
        table
    })
}

proptest! {
    #[test]
    fn a_session_is_what_its_bytes_say(table in session()) {
        let expected = replicated(&table);
        let restored = decoded(&encoded(table)).unwrap();
        prop_assert_eq!(replicated(&restored), expected);
    }

    #[test]
    fn mutated_bytes_are_refused_or_are_those_of_another_session(
        table in session(),
        mutations in prop::collection::vec((any::<usize>(), prop_oneof![0u8..4, any::<u8>()]), 1..4),
        length in prop_oneof![Just(usize::MAX), any::<usize>()],
        more in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut bytes = encoded(table);
        if length != usize::MAX {
            bytes.truncate(length % bytes.len());
            bytes.extend(more);
        }
        for (place, byte) in mutations {
            if let Some(place) = place.checked_rem(bytes.len()) {
                bytes[place] = byte;
            }
        }
        if let Some(again) = reencoded(&bytes) {
            prop_assert_eq!(again, bytes);
        }
    }

    #[test]
    fn random_bytes_are_refused_or_decode(
        session in prop::collection::vec(prop_oneof![0u8..3, any::<u8>()], 0..200),
        progress in prop::collection::vec(prop_oneof![0u8..2, any::<u8>()], PROGRESS_BYTES),
    ) {
        if let Some(again) = reencoded(&session) {
            prop_assert_eq!(again, session);
        }
        if let Some(table) = Sessions::restore(&progress) {
            prop_assert_eq!(&table.encode_progress()[..], &progress[..]);
        }
    }
}
