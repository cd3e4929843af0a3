//! Histories that a correct database can and cannot produce. Each bad one must be refused, and for its own
//! reason.

use super::*;
use crate::keys::Key;

const WRITER: WriterId = WriterId(77);
const KEY: KeyIndex = KeyIndex(3);

fn register() -> Register {
    Register::new(WRITER, 10)
}

fn value_of(key: KeyIndex, sequence: u64) -> Vec<u8> {
    let mut value = Vec::new();
    value::fill(
        &mut value,
        ValueIdentity {
            key,
            writer: WRITER,
            sequence: WriteSequence(sequence),
        },
        64,
    );
    value
}

fn acknowledged(register: &Register, key: KeyIndex, version: u64) -> WriteTicket {
    let ticket = register.begin_write(key);
    register.write_acknowledged(&ticket, Version(version)).unwrap();
    ticket
}

fn read(register: &Register, ticket: &ReadTicket, version: u64, sequence: u64) -> Option<ViolationKind> {
    let value = value_of(ticket.key, sequence);
    register
        .read_answered(ticket, Some((Version(version), &value)))
        .err()
        .map(|violation| violation.kind)
}

/// Scans a database that holds these `(key, version, sequence)`; gives the kinds of all violations.
fn scan(register: &Register, entries: &[(u64, u64, u64)]) -> Vec<ViolationKind> {
    let mut rows: Vec<_> = entries
        .iter()
        .map(|(key, version, sequence)| {
            let key = KeyIndex(*key);
            (Key::of(key), Version(*version), value_of(key, *sequence))
        })
        .collect();
    rows.sort_by(|left, right| left.0.bytes().cmp(right.0.bytes()));
    let mut check = ScanCheck::new(register);
    let mut kinds = Vec::new();
    for (key, version, value) in &rows {
        kinds.extend(
            check
                .entry(key.bytes(), *version, value)
                .err()
                .map(|violation| violation.kind),
        );
    }
    kinds.extend(
        check
            .finish()
            .err()
            .unwrap_or_default()
            .iter()
            .map(|violation| violation.kind),
    );
    kinds
}

#[test]
fn a_plain_history_is_right() {
    let register = register();
    acknowledged(&register, KEY, 5);
    acknowledged(&register, KEY, 9);
    assert_eq!(read(&register, &register.begin_read(KEY), 9, 2), None);
    assert_eq!(scan(&register, &[(3, 9, 2)]), []);
    assert_eq!(
        register.read_answered(&register.begin_read(KeyIndex(4)), None),
        Ok(())
    );
}

#[test]
fn a_read_may_return_any_overlapping_write() {
    let register = register();
    acknowledged(&register, KEY, 5);
    let reads: Vec<_> = (0..3).map(|_| register.begin_read(KEY)).collect();
    let second = register.begin_write(KEY);
    let third = register.begin_write(KEY);
    // The write answered last may have been ordered first.
    register.write_acknowledged(&third, Version(8)).unwrap();
    assert_eq!(read(&register, &reads[0], 5, 1), None);
    assert_eq!(read(&register, &reads[1], 7, 2), None);
    assert_eq!(read(&register, &reads[2], 8, 3), None);
    register.write_acknowledged(&second, Version(7)).unwrap();
    assert_eq!(scan(&register, &[(3, 8, 3)]), []);
}

#[test]
fn a_missing_record_is_refused() {
    let register = register();
    acknowledged(&register, KEY, 5);
    let violation = register
        .read_answered(&register.begin_read(KEY), None)
        .unwrap_err();
    assert_eq!(violation.kind, ViolationKind::MissingKey);
    assert_eq!(scan(&register, &[]), [ViolationKind::MissingKey]);
}

#[test]
fn a_stale_read_is_refused() {
    let register = register();
    acknowledged(&register, KEY, 5);
    acknowledged(&register, KEY, 9);
    assert_eq!(
        read(&register, &register.begin_read(KEY), 5, 1),
        Some(ViolationKind::StaleValue)
    );
}

#[test]
fn reads_never_go_back() {
    let register = register();
    acknowledged(&register, KEY, 5);
    let _in_flight = register.begin_write(KEY);
    assert_eq!(read(&register, &register.begin_read(KEY), 8, 2), None);
    // The write is not acknowledged yet, but it has been seen.
    assert_eq!(
        read(&register, &register.begin_read(KEY), 5, 1),
        Some(ViolationKind::StaleValue)
    );
}

#[test]
fn a_lost_acknowledged_write_is_refused() {
    let register = register();
    acknowledged(&register, KEY, 5);
    acknowledged(&register, KEY, 9);
    assert_eq!(scan(&register, &[(3, 5, 1)]), [ViolationKind::LostWrite]);
}

#[test]
fn a_resurrected_value_is_refused() {
    let register = register();
    acknowledged(&register, KEY, 5);
    acknowledged(&register, KEY, 9);
    assert_eq!(scan(&register, &[(3, 12, 1)]), [ViolationKind::ResurrectedValue]);
    assert_eq!(
        read(&register, &register.begin_read(KEY), 12, 1),
        Some(ViolationKind::ResurrectedValue)
    );
}

#[test]
fn a_value_never_sent_is_refused() {
    let register = register();
    acknowledged(&register, KEY, 5);
    assert_eq!(scan(&register, &[(3, 6, 2)]), [ViolationKind::NeverSent]);
    assert_eq!(
        read(&register, &register.begin_read(KEY), 6, 2),
        Some(ViolationKind::NeverSent)
    );
    assert_eq!(
        read(&register, &register.begin_read(KEY), 6, 0),
        Some(ViolationKind::NeverSent)
    );
}

#[test]
fn a_refused_write_that_is_applied_is_refused() {
    let register = register();
    acknowledged(&register, KEY, 5);
    let refused = register.begin_write(KEY);
    register.write_refused(&refused).unwrap();
    assert_eq!(scan(&register, &[(3, 7, 2)]), [ViolationKind::ResurrectedValue]);
    let seen_first = register.begin_write(KEY);
    assert_eq!(read(&register, &register.begin_read(KEY), 8, 3), None);
    assert_eq!(
        register.write_refused(&seen_first).unwrap_err().kind,
        ViolationKind::NeverSent
    );
}

#[test]
fn a_foreign_value_is_refused() {
    let register = register();
    acknowledged(&register, KEY, 5);
    acknowledged(&register, KeyIndex(4), 6);
    let ticket = register.begin_read(KEY);
    let of_other_key = value_of(KeyIndex(4), 1);
    let violation = register
        .read_answered(&ticket, Some((Version(6), &of_other_key)))
        .unwrap_err();
    assert_eq!(violation.kind, ViolationKind::ForeignValue);
    let mut of_other_writer = Vec::new();
    let identity = ValueIdentity {
        key: KEY,
        writer: WriterId(1),
        sequence: WriteSequence(1),
    };
    value::fill(&mut of_other_writer, identity, 64);
    let violation = register
        .read_answered(&ticket, Some((Version(5), &of_other_writer)))
        .unwrap_err();
    assert_eq!(violation.kind, ViolationKind::ForeignValue);
    let mut check = ScanCheck::new(&register);
    let violation = check
        .entry(Key::of(KEY).bytes(), Version(6), &of_other_key)
        .unwrap_err();
    assert_eq!(violation.kind, ViolationKind::ForeignValue);
}

#[test]
fn a_corrupt_value_is_refused() {
    let register = register();
    acknowledged(&register, KEY, 5);
    let mut corrupt = value_of(KEY, 1);
    corrupt[50] ^= 1;
    let violation = register
        .read_answered(&register.begin_read(KEY), Some((Version(5), &corrupt)))
        .unwrap_err();
    assert_eq!(violation.kind, ViolationKind::CorruptValue);
    let mut check = ScanCheck::new(&register);
    let violation = check
        .entry(Key::of(KEY).bytes(), Version(5), &corrupt)
        .unwrap_err();
    assert_eq!(violation.kind, ViolationKind::CorruptValue);
    assert!(check.finish().is_ok(), "one damaged value is one violation");
}

#[test]
fn an_extra_key_is_refused() {
    let register = register();
    acknowledged(&register, KEY, 5);
    assert_eq!(
        scan(&register, &[(3, 5, 1), (4, 6, 1)]),
        [ViolationKind::ExtraKey]
    );
    let mut check = ScanCheck::new(&register);
    let violation = check
        .entry(b"somebody else's", Version(1), &value_of(KEY, 1))
        .unwrap_err();
    assert_eq!(violation.kind, ViolationKind::ForeignValue);
    let violation = check.entry(b"t", Version(1), b"not ours").unwrap_err();
    assert_eq!(violation.kind, ViolationKind::CorruptValue);
}

#[test]
fn a_key_scanned_twice_is_refused() {
    let register = register();
    acknowledged(&register, KEY, 5);
    assert_eq!(
        scan(&register, &[(3, 5, 1), (3, 5, 1)]),
        [ViolationKind::ScanOrder]
    );
}

#[test]
fn a_write_applied_twice_is_refused() {
    let register = register();
    acknowledged(&register, KEY, 5);
    assert_eq!(
        scan(&register, &[(3, 6, 1)]),
        [ViolationKind::OneWriteTwoVersions]
    );
    let in_flight = register.begin_write(KEY);
    let reads: Vec<_> = (0..2).map(|_| register.begin_read(KEY)).collect();
    assert_eq!(read(&register, &reads[0], 8, 2), None);
    assert_eq!(
        read(&register, &reads[1], 9, 2),
        Some(ViolationKind::OneWriteTwoVersions)
    );
    let violation = register.write_acknowledged(&in_flight, Version(9)).unwrap_err();
    assert_eq!(violation.kind, ViolationKind::OneWriteTwoVersions);
}

#[test]
fn two_writes_with_one_version_are_refused() {
    let register = register();
    let first = register.begin_write(KEY);
    let second = register.begin_write(KEY);
    register.write_acknowledged(&first, Version(5)).unwrap();
    let violation = register.write_acknowledged(&second, Version(5)).unwrap_err();
    assert_eq!(violation.kind, ViolationKind::TwoWritesOneVersion);
}

#[test]
fn a_version_that_does_not_rise_is_refused() {
    let register = register();
    acknowledged(&register, KEY, 5);
    let later = register.begin_write(KEY);
    let violation = register.write_acknowledged(&later, Version(4)).unwrap_err();
    assert_eq!(violation.kind, ViolationKind::VersionNotAbove);
}

#[test]
fn an_unknown_write_may_be_applied_or_not() {
    for is_applied in [false, true] {
        let register = register();
        acknowledged(&register, KEY, 5);
        register.write_unknown(&register.begin_write(KEY));
        assert_eq!(register.unknown_writes(), 1);
        let entry = if is_applied { (3, 8, 2) } else { (3, 5, 1) };
        assert_eq!(scan(&register, &[entry]), []);
        assert_eq!(register.unknown_writes(), u64::from(!is_applied));
        // Once seen, it must stay.
        let expected = if is_applied {
            vec![ViolationKind::LostWrite]
        } else {
            vec![]
        };
        assert_eq!(scan(&register, &[(3, 5, 1)]), expected);
    }
}

#[test]
fn an_unknown_first_write_may_leave_no_record() {
    let register = register();
    register.write_unknown(&register.begin_write(KEY));
    assert_eq!(scan(&register, &[]), []);
    assert_eq!(scan(&register, &[(3, 8, 1)]), []);
    assert_eq!(scan(&register, &[]), [ViolationKind::MissingKey]);
}

#[test]
fn an_unknown_write_below_an_acknowledged_one_may_not_win() {
    let register = register();
    register.write_unknown(&register.begin_write(KEY));
    acknowledged(&register, KEY, 9);
    assert_eq!(scan(&register, &[(3, 7, 1)]), [ViolationKind::LostWrite]);
}

#[test]
fn a_write_seen_before_its_connection_is_lost_is_known() {
    let register = register();
    let ticket = register.begin_write(KEY);
    assert_eq!(read(&register, &register.begin_read(KEY), 4, 1), None);
    register.write_unknown(&ticket);
    assert_eq!(register.unknown_writes(), 0);
    assert_eq!(scan(&register, &[]), [ViolationKind::MissingKey]);
}
