//! A session in any weather: each write happens once if its call says so, and each call ends once, in time.

mod common;
#[path = "common/model.rs"]
mod model;
mod world;

use std::collections::BTreeMap;

use ostrakon_client::{
    Action, BatchOperation, CallId, Condition, Error, Options, PutEntry, Request, ScanRequest,
};
use proptest::prelude::*;
use world::{MS, Weather, World};

/// What is asked, and what its writes are known by.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Get,
    Put,
    Add,
    MultiPut,
    Batch,
    Scan,
    Status,
}

fn asked() -> impl Strategy<Value = Asked> {
    prop_oneof![
        2 => Just(Asked::Get),
        6 => Just(Asked::Put),
        3 => Just(Asked::Add),
        1 => Just(Asked::MultiPut),
        2 => Just(Asked::Batch),
        1 => Just(Asked::Scan),
        1 => Just(Asked::Status),
    ]
}

fn weather() -> impl Strategy<Value = Weather> {
    let percent = |most: u64| prop_oneof![1 => Just(0), 2 => 0..most];
    let percents = (
        percent(30),
        percent(10),
        percent(20),
        percent(4),
        percent(50),
        percent(100),
    );
    percents.prop_map(
        |(busy, drains, breaks, falls_silent, refuses, arrives_late)| Weather {
            busy,
            drains,
            breaks,
            falls_silent,
            refuses,
            arrives_late,
        },
    )
}

/// A call, the number that its write is known by (0: it is a read), and when it has to have ended.
struct Open {
    call: CallId,
    number: u64,
    deadline_ns: u64,
}

fn submit(world: &mut World, asked: Asked, number: u64, timeout_ms: u64) -> Open {
    let key = format!("key {}", number % 23).into_bytes();
    let value = number.to_string().into_bytes();
    let operations = [BatchOperation {
        key: &key,
        action: Action::Put {
            value: &value,
            ttl_ms: 0,
        },
        condition: Condition::None,
    }];
    let entries = [PutEntry {
        key: &key,
        value: &value,
        ttl_ms: 0,
    }];
    let request = match asked {
        Asked::Get => Request::Get { key: &key },
        Asked::Put => Request::put(&key, &value, Condition::None),
        Asked::Add => Request::Add {
            key: &key,
            delta: number as i64,
            ttl_ms: 0,
            retry: None,
        },
        Asked::MultiPut => Request::MultiPut {
            entries: entries[..].into(),
            retry: None,
        },
        Asked::Batch => Request::Batch {
            operations: operations[..].into(),
            retry: None,
        },
        Asked::Scan => Request::Scan(ScanRequest::ALL),
        Asked::Status => Request::Status,
    };
    let is_write = request.kind().is_write();
    let call = world.submit(&request, timeout_ms);
    Open {
        call,
        number: if is_write { number } else { 0 },
        deadline_ns: world.now_ns + timeout_ms * MS,
    }
}

fn check(world: &World, open: &[Open]) {
    let mut promised: BTreeMap<u64, &Result<(), Error>> = BTreeMap::new();
    for Open {
        call,
        number,
        deadline_ns,
    } in open
    {
        let (result, ended_ns) = world.finished.get(call).expect("every call ends");
        assert!(
            ended_ns <= deadline_ns,
            "it ended {} ns late",
            ended_ns - deadline_ns
        );
        if *number > 0 {
            promised.insert(*number, result);
        } else {
            let is_unknown = matches!(result, Err(Error::UnknownOutcome { .. }));
            assert!(!is_unknown, "a read has no outcome: {result:?}");
        }
    }
    for (number, result) in promised {
        let happened = world.model.executions.get(&number).copied().unwrap_or(0);
        match result {
            Ok(()) => assert_eq!(happened, 1, "write {number} was acknowledged"),
            Err(Error::UnknownOutcome { .. }) => {
                assert!(happened <= 1, "write {number} happened {happened} times");
            }
            Err(error) => assert_eq!(happened, 0, "write {number} ended with {error}"),
        }
    }
    assert_eq!(world.finished.len(), open.len());
    assert_eq!(world.session.open_calls(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn each_write_happens_as_its_call_says_and_each_call_ends_once_in_time(
        seed in any::<u64>(),
        retry in prop::bool::weighted(0.8),
        cores in 1..5_u16,
        calls in prop::collection::vec((asked(), 0..20 * MS, 300..8_000_u64), 1..120),
        weather in weather(),
        restart in prop::option::of((0..1_500 * MS, 1..3_000 * MS, 1..6_u16)),
    ) {
        let options = Options { retry, request_timeout_ms: 3_000, ..Options::default() };
        let mut world = World::new(cores, &options, weather, seed);
        if let Some((at_ns, down_ns, cores)) = restart {
            world.restart(at_ns, down_ns, cores);
        }
        let mut open = Vec::new();
        for (number, (asked, pause_ns, timeout_ms)) in (1..).zip(calls) {
            world.run_until(world.now_ns + pause_ns);
            open.push(submit(&mut world, asked, number, timeout_ms));
        }
        // Long enough for every deadline, and for every late copy.
        world.run_until(world.now_ns + 20_000 * MS);
        check(&world, &open);
    }
}

#[test]
fn in_fair_weather_nothing_fails() {
    let mut world = World::new(3, &Options::default(), Weather::default(), 5);
    let open: Vec<Open> = (1..200)
        .map(|number| submit(&mut world, Asked::Put, number, 1_000))
        .collect();
    world.run_until(1_000 * MS);
    check(&world, &open);
    assert!(open.iter().all(|open| world.ended(open.call).is_ok()));
}

#[test]
fn in_weather_that_passes_nothing_fails() {
    for seed in 0..50 {
        let weather = Weather {
            busy: 20,
            drains: 5,
            breaks: 10,
            falls_silent: 1,
            refuses: 20,
            arrives_late: 50,
        };
        let options = Options {
            request_timeout_ms: 3_000,
            ..Options::default()
        };
        let mut world = World::new(3, &options, weather, seed);
        let open: Vec<Open> = (1..60)
            .map(|number| submit(&mut world, Asked::Put, number, 600_000))
            .collect();
        world.run_until(2_000 * MS);
        world.weather = Weather::default();
        world.run_until(30_000 * MS);
        check(&world, &open);
        for Open { call, number, .. } in &open {
            assert!(
                world.ended(*call).is_ok(),
                "seed {seed}, write {number}: {:?}",
                world.ended(*call)
            );
        }
    }
}
