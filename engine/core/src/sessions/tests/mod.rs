//! The rules of the retry table, one test each.

mod encoding;
mod histories;
mod memory;
mod restarts;
mod state;

use super::session::Remembered;
use super::*;

/// All that a replica may use for a later decision and that another must have as well.
type Replicated = (Timestamp, Option<SessionId>, Vec<(SessionId, Remembered)>);

/// The replicated part of a table. Checks the counts beside it.
fn replicated(table: &Sessions) -> Replicated {
    let mut counted = Held {
        in_flight: table.held.in_flight,
        ..Held::default()
    };
    let mut held = table.held;
    let mut sessions = Vec::new();
    for (id, session) in &table.by_id {
        let Some(remembered) = &session.remembered else {
            assert!(!session.in_flight.is_empty(), "an empty session is kept");
            continue;
        };
        counted.sessions += 1;
        counted.answers += remembered.uncount(&mut held);
        sessions.push((*id, remembered.clone()));
    }
    assert_eq!((held.sessions, held.answers, held.numbers_bytes), (0, 0, 0));
    assert_eq!(
        (counted.sessions, counted.answers),
        (table.session_count(), table.answer_count())
    );
    (table.horizon, table.sweep_from, sessions)
}

/// The memory besides the notes of changes: those depend on when they were taken, and on what was in flight.
fn memory_bytes_unchanged(table: &Sessions) -> usize {
    table.memory_bytes() - table.changes.note_count() * Changes::BYTES_PER_NOTE
}

/// All changes, in their order.
fn changes(table: &mut Sessions) -> Vec<(SessionId, Option<Vec<u8>>)> {
    let mut changes = Vec::new();
    table.take_changes(|id, bytes| changes.push((id, bytes.map(Vec::from))));
    changes
}

/// A write of session 1.
fn write(sequence: u64, answered_below: u64, first_sent: u64) -> Retry {
    write_of(1, sequence, answered_below, first_sent)
}

fn write_of(session: u128, sequence: u64, answered_below: u64, first_sent: u64) -> Retry {
    Retry {
        session: SessionId(session),
        sequence: Sequence(sequence),
        answered_below: Sequence(answered_below),
        first_sent: Timestamp(first_sent),
    }
}

fn answer(version: u64) -> Answer {
    Answer::Applied {
        version: Timestamp(version),
        numbers: Numbers::default(),
    }
}

/// A table that applied these, each with its sequence for a version.
fn with_applied(writes: &[Retry]) -> Sessions {
    let mut table = Sessions::new();
    for write in writes {
        table.apply(write, answer(write.sequence.0));
    }
    table
}

#[test]
fn a_write_is_new_then_in_flight_then_answered() {
    let mut table = Sessions::new();
    let first = write(0, 0, 10);
    assert_eq!(table.look_up(&first), Lookup::New);
    table.proposed(&first, LogIndex(7));
    assert_eq!(table.look_up(&first), Lookup::InFlight(LogIndex(7)));
    assert_eq!(table.in_flight_count(), 1);
    let failed = Answer::Failed(Failure::ConditionFailed {
        version: Timestamp(3),
        operation: 2,
    });
    table.apply(&first, failed.clone());
    assert_eq!(table.look_up(&first), Lookup::Answered(&failed));
    assert_eq!(
        (
            table.session_count(),
            table.answer_count(),
            table.in_flight_count()
        ),
        (1, 1, 0)
    );
}

#[test]
fn a_retry_with_another_report_or_time_gets_the_same_answer() {
    let table = with_applied(&[write(5, 0, 10)]);
    assert_eq!(table.look_up(&write(5, 4, 99)), Lookup::Answered(&answer(5)));
}

#[test]
fn sessions_do_not_see_each_other() {
    let table = with_applied(&[write_of(1, 5, 5, 10)]);
    assert_eq!(table.look_up(&write_of(2, 5, 0, 10)), Lookup::New);
    assert_eq!(table.look_up(&write_of(2, 4, 0, 10)), Lookup::New);
}

#[test]
fn an_applied_report_drops_the_answers_below_it() {
    let mut table = with_applied(&[write(1, 0, 10), write(2, 0, 10), write(3, 0, 10)]);
    table.apply(&write(9, 3, 11), answer(9));
    assert_eq!(table.look_up(&write(1, 0, 10)), Lookup::OutcomeUnknown);
    assert_eq!(table.look_up(&write(2, 0, 10)), Lookup::OutcomeUnknown);
    assert_eq!(table.look_up(&write(3, 0, 10)), Lookup::Answered(&answer(3)));
    assert_eq!(table.answer_count(), 2);
}

#[test]
fn an_older_report_does_not_lower_a_newer_one() {
    let table = with_applied(&[write(9, 8, 11), write(10, 2, 11)]);
    assert_eq!(table.look_up(&write(7, 0, 10)), Lookup::OutcomeUnknown);
    assert_eq!(table.look_up(&write(8, 0, 10)), Lookup::New);
}

#[test]
fn a_report_in_flight_already_refuses_what_it_covers() {
    let mut table = Sessions::new();
    table.proposed(&write(8, 0, 11), LogIndex(1));
    table.proposed(&write(9, 6, 11), LogIndex(2));
    table.proposed(&write(10, 2, 11), LogIndex(3));
    assert_eq!(table.look_up(&write(5, 0, 10)), Lookup::OutcomeUnknown);
    assert_eq!(table.look_up(&write(6, 0, 10)), Lookup::New);
    // Applying an earlier write of the session leaves it in force.
    table.apply(&write(8, 0, 11), answer(8));
    assert_eq!(table.look_up(&write(5, 0, 10)), Lookup::OutcomeUnknown);
}

#[test]
fn a_report_in_flight_drops_no_answer_and_hides_none() {
    let mut table = with_applied(&[write(1, 0, 10)]);
    table.proposed(&write(2, 0, 10), LogIndex(4));
    table.proposed(&write(9, 6, 11), LogIndex(5));
    assert_eq!(table.look_up(&write(1, 0, 10)), Lookup::Answered(&answer(1)));
    assert_eq!(table.look_up(&write(2, 0, 10)), Lookup::InFlight(LogIndex(4)));
}

#[test]
fn a_report_that_never_made_it_into_the_log_is_forgotten_with_its_proposal() {
    let mut table = with_applied(&[write(1, 0, 10)]);
    table.proposed(&write(9, 6, 11), LogIndex(5));
    table.proposed(&write_of(2, 0, 0, 11), LogIndex(6));
    table.forget_in_flight();
    assert_eq!(table.look_up(&write(1, 0, 10)), Lookup::Answered(&answer(1)));
    assert_eq!(table.look_up(&write(5, 0, 10)), Lookup::New);
    assert_eq!(table.look_up(&write(9, 6, 11)), Lookup::New);
    assert_eq!((table.in_flight_count(), table.by_id.len()), (0, 1));
}

#[test]
fn below_the_horizon_only_what_is_remembered_is_answered() {
    let mut table = with_applied(&[write(1, 0, 10), write(3, 0, 30)]);
    table.proposed(&write(4, 0, 20), LogIndex(9));
    table.advance_horizon(Timestamp(25));
    assert_eq!(table.look_up(&write(1, 0, 10)), Lookup::Answered(&answer(1)));
    assert_eq!(table.look_up(&write(4, 0, 20)), Lookup::InFlight(LogIndex(9)));
    assert_eq!(table.look_up(&write(2, 0, 24)), Lookup::OutcomeUnknown);
    assert_eq!(table.look_up(&write(2, 0, 25)), Lookup::New);
    assert_eq!(table.look_up(&write_of(2, 2, 0, 24)), Lookup::OutcomeUnknown);
}

#[test]
fn the_horizon_never_falls() {
    let mut table = Sessions::new();
    table.advance_horizon(Timestamp(25));
    table.advance_horizon(Timestamp(24));
    assert_eq!(table.horizon(), Timestamp(25));
}

#[test]
fn a_session_goes_when_the_horizon_has_passed_its_newest_write() {
    let writes = [write(1, 0, 10), write(2, 2, 20), write(4, 3, 30)];
    let mut table = with_applied(&writes);
    table.advance_horizon(Timestamp(30));
    assert_eq!((table.session_count(), table.answer_count()), (1, 1));
    table.advance_horizon(Timestamp(31));
    assert_eq!((table.session_count(), table.answer_count()), (0, 0));
    for write in writes {
        assert_eq!(table.look_up(&write), Lookup::OutcomeUnknown);
    }
}

#[test]
fn an_older_first_send_does_not_shorten_a_sessions_life() {
    let mut table = with_applied(&[write(4, 0, 30), write(1, 0, 10)]);
    table.advance_horizon(Timestamp(30));
    assert_eq!(table.look_up(&write(4, 0, 30)), Lookup::Answered(&answer(4)));
}

#[test]
fn what_is_in_flight_outlives_its_session() {
    let mut table = with_applied(&[write(1, 0, 10)]);
    table.proposed(&write(9, 6, 20), LogIndex(5));
    table.advance_horizon(Timestamp(21));
    assert_eq!(table.session_count(), 0, "the applied state decides");
    assert_eq!(table.look_up(&write(9, 6, 20)), Lookup::InFlight(LogIndex(5)));
    assert_eq!(
        table.look_up(&write(5, 5, 22)),
        Lookup::OutcomeUnknown,
        "its report too"
    );
    table.apply(&write(9, 6, 20), answer(9));
    assert_eq!(table.look_up(&write(9, 6, 20)), Lookup::Answered(&answer(9)));
    assert_eq!(table.in_flight_count(), 0);
}

#[test]
fn what_is_in_flight_does_not_change_what_is_swept() {
    let count = (EXAMINED_PER_HORIZON + 100) as u128;
    let mut leader = Sessions::new();
    let mut follower = Sessions::new();
    for id in 0..count {
        // Odd sessions have proposals only, and of the even ones, which are remembered, some go.
        let write = write_of(id, 1, 0, 10 + (id % 3) as u64);
        leader.proposed(&write, LogIndex(id as u64));
        if id % 2 == 0 {
            leader.apply(&write, answer(1));
            follower.apply(&write, answer(1));
        }
    }
    for horizon in 10..14 {
        leader.advance_horizon(Timestamp(horizon));
        follower.advance_horizon(Timestamp(horizon));
        assert_eq!(replicated(&leader), replicated(&follower), "horizon {horizon}");
    }
    assert_eq!(leader.session_count(), 0);
    assert_eq!(leader.by_id.len(), leader.in_flight_count());
}

#[test]
fn one_call_examines_so_many_sessions_and_no_more() {
    let mut left = 2 * EXAMINED_PER_HORIZON + EXAMINED_PER_APPLY;
    let mut table = Sessions::new();
    for id in 0..left {
        table.apply(&write_of(id as u128, 0, 0, 10), answer(0));
    }
    table.advance_horizon(Timestamp(11));
    left -= EXAMINED_PER_HORIZON;
    assert_eq!(table.session_count(), left);
    // Another session, behind the sweep.
    table.apply(&write_of(0, 0, 0, 10), answer(0));
    left -= EXAMINED_PER_APPLY;
    assert_eq!(table.session_count(), left + 1);
    table.advance_horizon(Timestamp(12));
    assert_eq!(table.session_count(), 1, "the round went on from where it was");
    table.apply(&write_of(1, 0, 0, 12), answer(0));
    assert_eq!(
        (table.session_count(), table.sweep_from),
        (2, None),
        "the round is over"
    );
    table.advance_horizon(Timestamp(13));
    assert_eq!(
        table.session_count(),
        0,
        "the next round starts from the beginning"
    );
}

#[test]
fn sessions_with_many_answers_count_for_more() {
    let mut table = Sessions::new();
    for id in 0..3 {
        for sequence in 0..(EXAMINED_PER_HORIZON * ANSWERS_PER_EXAMINED / 2) as u64 {
            table.apply(&write_of(id, sequence, 0, 10), answer(0));
        }
    }
    table.advance_horizon(Timestamp(11));
    assert_eq!(table.session_count(), 1);
}

#[test]
fn applied_writes_alone_end_a_round() {
    let mut table = Sessions::new();
    for id in 0..1000 {
        table.apply(&write_of(id, 0, 0, 10), answer(0));
    }
    table.advance_horizon(Timestamp(11));
    let mut applied = 0;
    while table.sweep_from.is_some() {
        // Each brings a session more, in front of the sweep.
        table.apply(&write_of(1000 + applied, 0, 0, 11), answer(0));
        applied += 1;
        assert!(applied < 1000 / (EXAMINED_PER_APPLY as u128 - 1), "it never ends");
    }
    assert_eq!(table.session_count(), applied as usize);
}

#[test]
fn an_answer_applied_below_the_horizon_is_there_when_apply_returns() {
    let mut table = Sessions::new();
    for id in 0..EXAMINED_PER_HORIZON as u128 {
        table.apply(&write_of(id, 0, 0, 30), answer(0));
    }
    // Its session is the next that the sweep comes to.
    let late = write_of(EXAMINED_PER_HORIZON as u128, 1, 0, 10);
    table.proposed(&late, LogIndex(1));
    table.apply(&write_of(u128::MAX, 0, 0, 30), answer(0));
    table.advance_horizon(Timestamp(20));
    table.apply(&late, answer(1));
    assert_eq!(table.look_up(&late), Lookup::Answered(&answer(1)));
}

#[test]
fn the_window_starts_at_the_highest_report_of_log_proposals_and_request() {
    let mut table = Sessions::new();
    assert_eq!(table.look_up(&write(WINDOW - 1, 0, 10)), Lookup::New);
    assert_eq!(table.look_up(&write(WINDOW, 0, 10)), Lookup::WindowExceeded);
    assert_eq!(table.look_up(&write(WINDOW, 1, 10)), Lookup::New, "the request's");
    table.proposed(&write(50, 3, 10), LogIndex(1));
    assert_eq!(table.look_up(&write(WINDOW + 2, 1, 10)), Lookup::New, "in flight");
    assert_eq!(table.look_up(&write(WINDOW + 3, 1, 10)), Lookup::WindowExceeded);
    table.apply(&write(50, 3, 10), answer(50));
    assert_eq!(table.look_up(&write(WINDOW + 2, 1, 10)), Lookup::New, "applied");
    assert_eq!(table.look_up(&write(WINDOW + 3, 1, 10)), Lookup::WindowExceeded);
}

#[test]
fn the_last_sequences_of_all_do_not_overflow() {
    let mut table = with_applied(&[write(u64::MAX, u64::MAX, 10)]);
    assert_eq!(
        table.look_up(&write(u64::MAX, u64::MAX, 10)),
        Lookup::Answered(&answer(u64::MAX))
    );
    assert_eq!(
        table.look_up(&write_of(2, u64::MAX, 0, 10)),
        Lookup::WindowExceeded
    );
    table.apply(&write_of(u128::MAX, 0, 0, 10), answer(0));
    table.advance_horizon(Timestamp::MAX);
    assert_eq!((table.session_count(), table.sweep_from), (0, None));
}

#[test]
fn a_write_that_reports_itself_is_malformed() {
    let table = with_applied(&[write(1, 0, 10)]);
    assert_eq!(table.look_up(&write(1, 2, 10)), Lookup::BadRequest);
    assert_eq!(table.look_up(&write(1, 1, 10)), Lookup::Answered(&answer(1)));
}

#[test]
fn answers_are_found_whatever_the_order_in_which_they_came() {
    let sequences = [50, 10, 40, 20, 30, 7000, 0];
    let mut table = Sessions::new();
    for sequence in sequences {
        table.proposed(&write(sequence, 0, 10), LogIndex(sequence));
    }
    for sequence in sequences {
        table.apply(&write(sequence, 0, 10), answer(sequence));
    }
    for sequence in sequences {
        assert_eq!(
            table.look_up(&write(sequence, 0, 10)),
            Lookup::Answered(&answer(sequence))
        );
    }
}

#[test]
#[should_panic(expected = "the log holds a write twice")]
fn an_entry_that_is_applied_twice_is_a_bug() {
    with_applied(&[write(1, 0, 10), write(1, 0, 10)]);
}

#[test]
#[should_panic(expected = "given up before")]
fn an_entry_behind_a_report_that_covers_it_is_a_bug() {
    with_applied(&[write(3, 2, 10), write(1, 0, 10)]);
}

#[test]
#[should_panic(expected = "in flight already")]
fn proposing_what_is_in_flight_is_a_bug() {
    let mut table = Sessions::new();
    table.proposed(&write(1, 0, 10), LogIndex(1));
    table.proposed(&write(1, 0, 10), LogIndex(2));
}

#[test]
#[should_panic(expected = "answered already")]
fn proposing_what_is_answered_is_a_bug() {
    with_applied(&[write(1, 0, 10)]).proposed(&write(1, 0, 10), LogIndex(2));
}

#[test]
#[should_panic(expected = "given up")]
fn proposing_what_a_report_covers_is_a_bug() {
    with_applied(&[write(3, 2, 10)]).proposed(&write(1, 0, 10), LogIndex(2));
}

#[test]
#[should_panic(expected = "to be refused, horizon 0.20us")]
fn proposing_what_is_below_the_horizon_is_a_bug() {
    let mut table = Sessions::new();
    table.advance_horizon(Timestamp(20));
    table.proposed(&write(1, 0, 19), LogIndex(2));
}
