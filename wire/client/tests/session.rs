//! What a session does in one situation each: where calls go, what is sent again and when, how calls end.

mod common;
#[path = "common/model.rs"]
mod model;
mod world;

use std::collections::BTreeSet;

use ostrakon_client::{
    CallId, CallOptions, ClusterId, Condition, Error, ErrorCode, Kind, Options, ProtocolError, PutEntry,
    Request, ScanRequest, Session, SubmitError,
};
use world::{MS, Weather, World};

const FAIR: Weather = Weather {
    busy: 0,
    drains: 0,
    breaks: 0,
    falls_silent: 0,
    refuses: 0,
    arrives_late: 0,
};

fn world(cores: u16, options: &Options) -> World {
    World::with_addresses(cores, options, vec!["only:1".to_owned()], FAIR, 7)
}

fn options() -> Options {
    Options {
        request_timeout_ms: 3_000,
        ..Options::default()
    }
}

/// As a client that has switched repetition off.
fn once() -> Options {
    Options {
        retry: false,
        ..options()
    }
}

fn put(world: &mut World, number: u64) -> CallId {
    let (key, value) = (format!("key {number}"), number.to_string());
    let put = Request::put(key.as_bytes(), value.as_bytes(), Condition::None);
    world.submit(&put, 3_000)
}

fn put_and_forget(world: &mut World, number: u64) {
    put(world, number);
}

/// Has a connection, and the topology if there is one.
fn settle(world: &mut World) {
    world.submit(&Request::Ping, 3_000);
    world.run_until(world.now_ns + 100 * MS);
}

fn count(world: &World, kind: Kind) -> usize {
    world
        .arrived
        .iter()
        .filter(|(arrived, ..)| *arrived == kind)
        .count()
}

/// Milliseconds between the arrivals of requests of a kind.
fn pauses_ms(world: &World, kind: Kind) -> Vec<u64> {
    let at: Vec<u64> = world
        .arrived
        .iter()
        .filter(|(arrived, ..)| *arrived == kind)
        .map(|(.., at_ns)| *at_ns)
        .collect();
    at.windows(2).map(|pair| (pair[1] - pair[0]) / MS).collect()
}

#[test]
fn requests_of_one_shard_go_to_its_owner() {
    let mut world = world(4, &options());
    settle(&mut world);
    (1..100).for_each(|number| put_and_forget(&mut world, number));
    world.run_until(world.now_ns + 500 * MS);
    assert!(
        world.model.elsewhere > 0,
        "until its connection is there, another core passes a request on"
    );
    let before = (world.model.at_owner, world.model.elsewhere);
    (100..200).for_each(|number| put_and_forget(&mut world, number));
    world.run_until(world.now_ns + 500 * MS);
    assert_eq!(
        (world.model.at_owner - before.0, world.model.elsewhere - before.1),
        (100, 0)
    );
    // The first connection went to some core; the other three have one each.
    assert_eq!(world.connects.len(), 4);
}

#[test]
fn a_session_that_names_a_core_has_one_connection_and_asks_for_no_topology() {
    let pinned = Options {
        core: Some(1),
        ..options()
    };
    let mut world = world(4, &pinned);
    (1..50).for_each(|number| put_and_forget(&mut world, number));
    world.run_until(500 * MS);
    assert_eq!((world.connects.len(), count(&world, Kind::Topology)), (1, 0));
    assert_eq!(world.session.server().expect("greeted").core, 1);
    assert_eq!(world.finished.len(), 49);
}

#[test]
fn after_a_restart_with_other_cores_the_topology_is_followed() {
    for cores in [1, 2, 6] {
        let mut world = world(4, &options());
        settle(&mut world);
        (1..100).for_each(|number| put_and_forget(&mut world, number));
        world.run_until(world.now_ns + 500 * MS);
        world.restart(world.now_ns, 300 * MS, cores);
        world.run_until(world.now_ns + 10 * MS);
        (100..200).for_each(|number| put_and_forget(&mut world, number));
        world.run_until(world.now_ns + 2_000 * MS);
        (1..50).for_each(|number| put_and_forget(&mut world, number));
        world.run_until(world.now_ns + 500 * MS);
        let elsewhere = world.model.elsewhere;
        let last: Vec<CallId> = (200..300).map(|number| put(&mut world, number)).collect();
        world.run_until(world.now_ns + 500 * MS);
        assert_eq!(world.model.elsewhere, elsewhere, "{cores} cores");
        assert!(last.iter().all(|call| world.ended(*call).is_ok()));
        assert_eq!(world.session.open_calls(), 0);
    }
}

#[test]
fn writes_beyond_the_window_wait_and_reads_do_not() {
    let mut world = world(1, &options());
    world.model.window = 4;
    settle(&mut world);
    // The first write is refused for a while, so that the window stands still.
    world.model.refusals = vec![(ErrorCode::Busy, 400)];
    let first = put(&mut world, 1);
    world.run_until(world.now_ns + 10 * MS);
    let others: Vec<CallId> = (2..20).map(|number| put(&mut world, number)).collect();
    let read = world.submit(&Request::Get { key: b"key" }, 3_000);
    world.run_until(world.now_ns + 100 * MS);
    assert!(world.ended(read).is_ok());
    assert_eq!(
        count(&world, Kind::Put),
        4,
        "the refused one and the three that the window allows behind it"
    );
    world.run_until(world.now_ns + 1_000 * MS);
    assert!(
        others
            .iter()
            .chain([&first])
            .all(|call| world.ended(*call).is_ok())
    );
}

#[test]
fn an_abandoned_write_does_not_hold_the_window() {
    let mut world = world(1, &options());
    world.model.window = 4;
    settle(&mut world);
    world.model.refusals = vec![(ErrorCode::Busy, 2_000)];
    let first = put(&mut world, 1);
    world.run_until(world.now_ns + 10 * MS);
    let others: Vec<CallId> = (2..20).map(|number| put(&mut world, number)).collect();
    // One that is held back is abandoned as well.
    world.session.abandon(world.now_ns, others[17]);
    world.session.abandon(world.now_ns, first);
    world.run_until(world.now_ns + 500 * MS);
    assert!(others[..17].iter().all(|call| world.ended(*call).is_ok()));
    assert!(!world.finished.contains_key(&first) && !world.finished.contains_key(&others[17]));
    assert_eq!(world.model.executions.get(&19), None);
}

#[test]
fn attempts_to_connect_go_from_address_to_address_with_pauses_that_grow_to_a_bound() {
    let weather = Weather { refuses: 100, ..FAIR };
    let mut world = World::new(1, &options(), weather, 9);
    let call = world.submit(&Request::Ping, 20_000);
    world.run_until(30_000 * MS);
    assert!(
        matches!(world.ended(call), Err(Error::Connect { .. })),
        "{:?}",
        world.ended(call)
    );
    let addresses: Vec<usize> = world.connects.iter().map(|(_, address)| *address).collect();
    assert!(
        addresses.windows(2).all(|pair| pair[0] != pair[1]),
        "{addresses:?}"
    );
    // A round is both addresses.
    let rounds: Vec<u64> = world.connects.chunks(2).map(|round| round[0].0 / MS).collect();
    let pauses: Vec<u64> = rounds.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[0] <= 14, "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= 2_004), "{pauses:?}");
    assert!(pauses[8..].iter().all(|pause| *pause >= 640), "{pauses:?}");
    assert!((15..40).contains(&rounds.len()), "{rounds:?}");
}

#[test]
fn a_busy_server_is_asked_again_after_growing_pauses_and_not_before_its_hint() {
    let mut world = world(1, &options());
    settle(&mut world);
    world.model.refusals = vec![(ErrorCode::Busy, 20); 4];
    let call = put(&mut world, 1);
    world.run_until(world.now_ns + 2_000 * MS);
    assert!(world.ended(call).is_ok());
    let pauses = pauses_ms(&world, Kind::Put);
    assert_eq!(pauses.len(), 4);
    for (pause, least) in pauses.iter().zip([20, 40, 80, 160]) {
        // Half more for the jitter, and the way there and back.
        assert!((least..=least * 3 / 2 + 8).contains(pause), "{pauses:?}");
    }
}

#[test]
fn a_server_that_stays_busy_is_the_error_in_the_end() {
    let mut world = world(1, &options());
    settle(&mut world);
    world.model.refusals = vec![(ErrorCode::Busy, 100); 1_000];
    let call = put(&mut world, 1);
    world.run_until(world.now_ns + 3_000 * MS);
    let code = ErrorCode::Busy;
    assert!(matches!(world.ended(call), Err(Error::Server { code: found, .. }) if found == code));
    assert!(count(&world, Kind::Put) > 3);
}

#[test]
fn a_refusal_that_time_does_not_mend_ends_the_call_at_once() {
    for code in [
        ErrorCode::TimestampAhead,
        ErrorCode::BadRequest,
        ErrorCode::MemoryFull,
        ErrorCode::TooLarge,
        ErrorCode::NotANumber,
        ErrorCode::NotOneShard,
        ErrorCode::SnapshotTooOld,
    ] {
        let mut world = world(1, &options());
        settle(&mut world);
        world.model.refusals = vec![(code, 30)];
        let call = put(&mut world, 1);
        world.run_until(world.now_ns + 100 * MS);
        assert!(
            matches!(world.ended(call), Err(Error::Server { code: found, .. }) if found == code),
            "{code}"
        );
        assert_eq!(count(&world, Kind::Put), 1, "{code}");
        // Its sequence does not stay open.
        (2..100).for_each(|number| put_and_forget(&mut world, number));
        world.run_until(world.now_ns + 500 * MS);
        assert_eq!(world.session.open_calls(), 0);
    }
}

#[test]
fn a_refusal_that_leaves_the_outcome_open_says_so_of_writes_only() {
    for code in [
        ErrorCode::CoreFailed,
        ErrorCode::OutcomeUnknown,
        ErrorCode::Other(99),
    ] {
        for options in [options(), once()] {
            let mut world = world(1, &options);
            settle(&mut world);
            world.model.refusals = vec![(code, 0), (code, 0)];
            let write = put(&mut world, 1);
            let read = world.submit(&Request::Get { key: b"key" }, 3_000);
            world.run_until(world.now_ns + 100 * MS);
            assert!(
                matches!(world.ended(write), Err(Error::UnknownOutcome { .. })),
                "{code}"
            );
            assert!(matches!(world.ended(read), Err(Error::Server { .. })), "{code}");
        }
    }
}

/// Breaks the connection behind the next request.
fn lose_next_answer(world: &mut World) {
    world.weather.breaks = 100;
    world.run_until(world.now_ns + 3 * MS);
    world.weather.breaks = 0;
}

#[test]
fn a_refusal_after_a_lost_answer_leaves_the_outcome_open() {
    let mut world = world(1, &options());
    settle(&mut world);
    let write = put(&mut world, 1);
    lose_next_answer(&mut world);
    world.model.refusals = vec![(ErrorCode::MemoryFull, 0)];
    world.run_until(world.now_ns + 200 * MS);
    let Err(Error::UnknownOutcome { cause }) = world.ended(write) else {
        panic!("{:?}", world.ended(write))
    };
    let code = ErrorCode::MemoryFull;
    assert!(
        matches!(*cause, Error::Server { code: found, .. } if found == code),
        "{cause}"
    );
    assert_eq!(world.model.executions.get(&1), Some(&1), "and rightly so");
}

#[test]
fn a_refusal_that_the_node_remembers_holds_for_a_lost_sending_too() {
    for code in [ErrorCode::NotANumber, ErrorCode::NumberOverflow] {
        let mut world = world(1, &options());
        settle(&mut world);
        let add = Request::Add {
            key: b"key",
            delta: 1,
            ttl_ms: 0,
            retry: None,
        };
        world.model.refusals = vec![(code, 0), (code, 0)];
        let call = world.submit(&add, 3_000);
        lose_next_answer(&mut world);
        world.run_until(world.now_ns + 200 * MS);
        let ended = world.ended(call);
        assert!(
            matches!(ended, Err(Error::Server { code: found, .. }) if found == code),
            "{ended:?}"
        );
        assert_eq!(count(&world, Kind::Add), 2);
    }
}

#[test]
fn a_lost_answer_is_asked_for_again_under_the_same_name() {
    let mut world = world(1, &options());
    settle(&mut world);
    let (write, read) = (
        put(&mut world, 1),
        world.submit(&Request::Get { key: b"key" }, 3_000),
    );
    lose_next_answer(&mut world);
    world.run_until(world.now_ns + 200 * MS);
    assert!(world.ended(write).is_ok() && world.ended(read).is_ok());
    assert_eq!(
        (count(&world, Kind::Put), world.model.executions.get(&1)),
        (2, Some(&1))
    );
}

#[test]
fn without_repetition_a_lost_answer_ends_the_call_at_once() {
    let mut world = world(1, &once());
    settle(&mut world);
    let (write, read) = (
        put(&mut world, 1),
        world.submit(&Request::Get { key: b"key" }, 3_000),
    );
    lose_next_answer(&mut world);
    world.run_until(world.now_ns + 20 * MS);
    let Err(Error::UnknownOutcome { cause }) = world.ended(write) else {
        panic!("{:?}", world.ended(write))
    };
    assert!(matches!(*cause, Error::Lost { .. }), "{cause}");
    assert!(matches!(world.ended(read), Err(Error::Lost { .. })));
    assert_eq!(count(&world, Kind::Put), 1);
    // Nor is a refusal hidden.
    world.model.refusals = vec![(ErrorCode::Busy, 5)];
    let refused = put(&mut world, 2);
    world.run_until(world.now_ns + 100 * MS);
    assert!(matches!(world.ended(refused), Err(Error::Server { .. })));
}

#[test]
fn what_was_never_sent_has_no_unknown_outcome() {
    for options in [options(), once()] {
        let mut world = world(1, &options);
        settle(&mut world);
        world.restart(world.now_ns, 100_000 * MS, 1);
        world.run_until(world.now_ns + 100 * MS);
        let write = put(&mut world, 1);
        let submitted_ns = world.now_ns;
        world.run_until(world.now_ns + 5_000 * MS);
        assert!(
            matches!(world.ended(write), Err(Error::Connect { .. })),
            "{:?}",
            world.ended(write)
        );
        assert_eq!(world.finished[&write].1, submitted_ns + 3_000 * MS);
    }
}

#[test]
fn a_silent_connection_is_given_up_and_another_answers_in_time() {
    let mut world = world(1, &options());
    settle(&mut world);
    world.weather.falls_silent = 100;
    let write = put(&mut world, 1);
    world.run_until(world.now_ns + 5 * MS);
    world.weather.falls_silent = 0;
    world.run_until(world.now_ns + 2_000 * MS);
    assert!(world.ended(write).is_ok(), "{:?}", world.ended(write));
    assert_eq!((world.connects.len(), count(&world, Kind::Put)), (2, 2));
    let given_up_ms = world.connects[1].0 / MS;
    assert!(
        (1_100..1_125).contains(&given_up_ms),
        "after {given_up_ms} ms instead of a third of the time"
    );
}

#[test]
fn an_unanswered_call_ends_with_its_deadline() {
    let mut world = world(1, &options());
    settle(&mut world);
    world.weather.falls_silent = 100;
    let write = put(&mut world, 1);
    let read = world.submit(&Request::Get { key: b"key" }, 500);
    let submitted_ns = world.now_ns;
    world.run_until(world.now_ns + 20_000 * MS);
    let Err(Error::UnknownOutcome { cause }) = world.ended(write) else {
        panic!("{:?}", world.ended(write))
    };
    assert!(
        matches!(*cause, Error::Connect { .. } | Error::Timeout { .. }),
        "{cause}"
    );
    assert!(matches!(world.ended(read), Err(Error::Timeout { after_ms: 500 })));
    assert_eq!(world.finished[&read].1, submitted_ns + 500 * MS);
    assert_eq!(world.finished[&write].1, submitted_ns + 3_000 * MS);
}

#[test]
fn an_abandoned_scan_is_cancelled_and_an_abandoned_get_is_not() {
    let mut world = world(1, &options());
    settle(&mut world);
    let scan = world.submit(&Request::Scan(ScanRequest::ALL), 3_000);
    let get = world.submit(&Request::Get { key: b"key" }, 3_000);
    let now_ns = world.now_ns;
    world.session.abandon(now_ns, scan);
    world.session.abandon(now_ns, get);
    world.run_until(now_ns + 100 * MS);
    assert_eq!((count(&world, Kind::Scan), count(&world, Kind::Cancel)), (1, 1));
    assert!(!world.finished.contains_key(&scan) && !world.finished.contains_key(&get));
    assert_eq!(world.session.open_calls(), 0);
}

#[test]
fn a_node_that_goes_down_is_left_for_the_next_address() {
    let mut world = World::new(1, &options(), FAIR, 7);
    settle(&mut world);
    world.model.refusals = vec![(ErrorCode::ShuttingDown, 0)];
    let write = put(&mut world, 1);
    world.run_until(world.now_ns + 200 * MS);
    assert!(world.ended(write).is_ok());
    let addresses: BTreeSet<usize> = world.connects.iter().map(|(_, address)| *address).collect();
    assert_eq!(addresses.len(), 2);
}

#[test]
fn a_node_that_goes_down_still_answers_what_it_has() {
    // The seed decides in which order the answers come.
    for seed in 0..20 {
        let addresses = vec!["only:1".to_owned()];
        let mut world = World::with_addresses(1, &options(), addresses, FAIR, seed);
        settle(&mut world);
        world.model.refusals = vec![(ErrorCode::ShuttingDown, 0)];
        let calls = [put(&mut world, 1), put(&mut world, 2)];
        world.run_until(world.now_ns + 500 * MS);
        assert!(calls.iter().all(|call| world.ended(*call).is_ok()));
        assert_eq!(world.connects.len(), 2);
        assert_eq!(count(&world, Kind::Put), 3, "what was answered is not sent again");
    }
}

#[test]
fn a_hello_that_will_always_be_refused_ends_the_calls_at_once() {
    let wrong = Options {
        core: Some(9),
        ..options()
    };
    let mut world = World::new(2, &wrong, FAIR, 7);
    let call = put(&mut world, 1);
    world.run_until(100 * MS);
    let code = ErrorCode::BadRequest;
    assert!(matches!(world.ended(call), Err(Error::Server { code: found, .. }) if found == code));
    assert_eq!(world.connects.len(), 2, "each address is tried");
}

#[test]
fn a_session_stays_with_the_cluster_that_it_met_first() {
    for names_clusters in [true, false] {
        let mut world = world(1, &options());
        world.names_clusters = names_clusters;
        settle(&mut world);
        let write = put(&mut world, 1);
        lose_next_answer(&mut world);
        // Another node answers at this address from now on.
        world.model.cluster_id = ClusterId { high: 1, low: 2 };
        let read = world.submit(&Request::Get { key: b"key" }, 3_000);
        world.run_until(world.now_ns + 200 * MS);
        let ended = world.ended(read).expect_err("another cluster");
        let is_expected = match &ended {
            Error::Server { code, .. } => names_clusters && *code == ErrorCode::WrongCluster,
            Error::Protocol(ProtocolError::Cluster { .. }) => !names_clusters,
            _ => false,
        };
        assert!(is_expected, "{ended:?}");
        assert!(matches!(world.ended(write), Err(Error::UnknownOutcome { .. })));
        assert_eq!((count(&world, Kind::Put), count(&world, Kind::Get)), (1, 0));
    }
}

#[test]
fn a_connection_is_not_made_again_before_the_hint_of_its_refusal() {
    let refusal = (ErrorCode::TooManyConnections, 700);
    let mut world = world(1, &options());
    world.hello_refusals = vec![refusal];
    let call = put(&mut world, 1);
    world.run_until(1_000 * MS);
    assert!(world.ended(call).is_ok());
    let pause_ms = (world.connects[1].0 - world.connects[0].0) / MS;
    assert!((700..720).contains(&pause_ms), "{pause_ms}");

    // Another address is tried at once.
    let mut world = World::new(1, &options(), FAIR, 7);
    world.hello_refusals = vec![refusal];
    let call = put(&mut world, 1);
    world.run_until(100 * MS);
    assert!(world.ended(call).is_ok());
}

#[test]
fn a_session_takes_no_more_calls_than_its_bound_and_none_that_break_a_limit() {
    let mut session = Session::new(&options(), vec!["a:1".to_owned()], 1, 1).expect("good options");
    let mut submit = |request: &Request<'_>| session.submit(0, request, CallOptions::default());
    assert!(matches!(
        submit(&Request::Get { key: b"" }),
        Err(SubmitError::Invalid(_))
    ));
    assert!(matches!(
        submit(&Request::Cancel { request_id: 1 }),
        Err(SubmitError::Cancel)
    ));
    let big = vec![7; 8 * 1024 * 1024];
    // More than any frame.
    let keys = [b"1", b"2", b"3", b"4", b"5"];
    let entries = keys.map(|key| PutEntry {
        key,
        value: &big,
        ttl_ms: 0,
    });
    let multi_put = Request::MultiPut {
        entries: entries[..].into(),
        retry: None,
    };
    let refused = submit(&multi_put).expect_err("it fits no frame").to_string();
    assert!(refused.contains("a multi-put has 419"), "{refused}");
    let taken = (0..100)
        .take_while(|_| submit(&Request::put(b"key", &big, Condition::None)).is_ok())
        .count();
    assert_eq!(taken, 8, "64 MiB of requests");
    assert!(matches!(submit(&Request::Ping), Err(SubmitError::TooManyCalls)));
}

fn multi_put(world: &mut World) -> CallId {
    let entry = |key| PutEntry {
        key,
        value: b"1",
        ttl_ms: 0,
    };
    let entries = [entry(&b"one"[..]), entry(b"other")];
    let request = Request::MultiPut {
        entries: entries[..].into(),
        retry: None,
    };
    world.submit(&request, 3_000)
}

#[test]
fn a_multi_put_that_was_refused_in_part_is_sent_again_if_that_may_help() {
    let mut world = world(1, &options());
    settle(&mut world);
    world.model.refusals = vec![(ErrorCode::Busy, 10)];
    let call = multi_put(&mut world);
    world.run_until(world.now_ns + 100 * MS);
    assert!(world.ended(call).is_ok());
    assert_eq!(count(&world, Kind::MultiPut), 2);

    // Else the caller gets the entries that were written, and the reasons for the others.
    world.model.refusals = vec![(ErrorCode::MemoryFull, 10)];
    let call = multi_put(&mut world);
    world.run_until(world.now_ns + 100 * MS);
    assert!(world.ended(call).is_ok());
    assert_eq!(count(&world, Kind::MultiPut), 3);

    // Unless what was refused now may have been written by a sending whose answer was lost.
    let call = multi_put(&mut world);
    lose_next_answer(&mut world);
    world.model.refusals = vec![(ErrorCode::MemoryFull, 10)];
    world.run_until(world.now_ns + 200 * MS);
    assert!(matches!(world.ended(call), Err(Error::UnknownOutcome { .. })));
}

#[test]
fn a_multi_put_that_was_written_in_part_never_ends_as_if_nothing_was() {
    let busy = (ErrorCode::Busy, 10);
    let is_unknown = |ended: Result<(), Error>| matches!(ended, Err(Error::UnknownOutcome { .. }));

    // Its time is up while it waits for another sending, or is interrupted then.
    let mut world = world(1, &options());
    settle(&mut world);
    world.model.refusals = vec![busy];
    let call = multi_put(&mut world);
    world.run_until(world.now_ns + 10 * MS);
    let interrupted = world.session.interrupt(world.now_ns, call);
    assert!(is_unknown(Err(interrupted)));
    world.model.refusals = vec![busy];
    let call = multi_put(&mut world);
    world.run_until(world.now_ns + 10 * MS);
    world.restart(world.now_ns, 100_000 * MS, 1);
    world.run_until(world.now_ns + 4_000 * MS);
    assert!(is_unknown(world.ended(call)), "{:?}", world.ended(call));
}

#[test]
fn a_reply_to_a_multi_put_that_hides_what_an_earlier_one_said_is_no_answer() {
    use ErrorCode::{Busy, CoreFailed, MemoryFull};
    let after = |first: Option<ErrorCode>, last: Option<ErrorCode>| {
        let mut world = world(1, &options());
        settle(&mut world);
        world.model.refusals = vec![(Busy, 10), (MemoryFull, 0)];
        world.model.first_entries = vec![last, first];
        let call = multi_put(&mut world);
        world.run_until(world.now_ns + 200 * MS);
        assert_eq!(count(&world, Kind::MultiPut), 2);
        world.ended(call)
    };
    // What was written is said to be in the last reply as well, or may be.
    for (first, last) in [
        (None, None),
        (Some(CoreFailed), Some(CoreFailed)),
        (Some(Busy), Some(MemoryFull)),
        (Some(Busy), None),
    ] {
        assert!(after(first, last).is_ok(), "{first:?}, then {last:?}");
    }
    for (first, last) in [(None, Some(MemoryFull)), (Some(CoreFailed), Some(MemoryFull))] {
        let ended = after(first, last);
        assert!(
            matches!(ended, Err(Error::UnknownOutcome { .. })),
            "{first:?}, then {last:?}: {ended:?}"
        );
    }
}

#[test]
fn a_delete_range_that_is_done_in_part_goes_out_again_or_ends_as_unknown() {
    use ErrorCode::{Busy, MemoryFull};
    let after = |refusals: &[ErrorCode], is_in_one: &[bool]| {
        let mut world = world(1, &options());
        settle(&mut world);
        world.model.refusals = refusals.iter().map(|code| (*code, 10)).collect();
        let first = is_in_one.iter().rev();
        world.model.first_entries = first.map(|is_in_one| (!is_in_one).then_some(Busy)).collect();
        let range = Request::DeleteRange {
            start: b"a",
            end: None,
            retry: None,
        };
        let call = world.submit(&range, 3_000);
        world.run_until(world.now_ns + 300 * MS);
        (count(&world, Kind::DeleteRange), world.ended(call))
    };
    let (sendings, ended) = after(&[Busy, Busy], &[true, false]);
    assert_eq!(sendings, 3, "{ended:?}");
    assert!(ended.is_ok(), "{ended:?}");
    let (sendings, ended) = after(&[MemoryFull], &[false]);
    assert_eq!(sendings, 1);
    assert!(
        matches!(ended, Err(Error::Server { code: MemoryFull, .. })),
        "{ended:?}"
    );
    for is_in_one in [&[true][..], &[true, false]] {
        let refusals = [&vec![Busy; is_in_one.len() - 1][..], &[MemoryFull]].concat();
        let (_, ended) = after(&refusals, is_in_one);
        assert!(matches!(ended, Err(Error::UnknownOutcome { .. })), "{ended:?}");
    }
}
