//! 100,000 operations within seconds, good ones and with one violation planted; and transactions with one read
//! changed.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the test measures real time"
)]

use std::time::{Duration, Instant};

use ostrakon_tests::check::generate::{Random, Shape, Workload, generate};
use ostrakon_tests::check::history::{
    Action, Datum, Event, EventKind, History, KeyRange, Observed, Process, Step, StepAction, Version,
};
use ostrakon_tests::check::{Verdict, registers, transactions};
use transactions::{Level, Settings};

/// Far above what a machine of two cores needs; a search that is not near-linear needs hours.
const LIMIT: Duration = Duration::from_secs(30);
const OPERATIONS: u64 = 100_000;

fn shape(workload: Workload, versions: bool) -> Shape {
    Shape {
        workload,
        operations: OPERATIONS,
        processes: 16,
        keys: 50,
        keys_last: if workload == Workload::Registers { 0 } else { 2_000 },
        versions,
        unknown_permille: 10,
    }
}

/// Judges within the limit: the anomalies' names.
fn judge(history: &History, workload: Workload, level: Level) -> Vec<String> {
    let began = Instant::now();
    let names = match workload {
        Workload::Registers | Workload::Expiring => {
            let verdict = registers::check(history, &registers::Settings::default()).expect("a history");
            assert!(!matches!(verdict, Verdict::Undecided { .. }), "{verdict}");
            verdict.violations().iter().map(ToString::to_string).collect()
        }
        Workload::ListAppend | Workload::ReadWrite => {
            let verdict = transactions::check(history, &Settings::new(level)).expect("a history");
            assert!(!matches!(verdict, Verdict::Undecided { .. }), "{verdict}");
            verdict.violations().iter().map(ToString::to_string).collect()
        }
    };
    println!("{workload:?}: {:?}", began.elapsed());
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    names
}

fn good_then_planted(workload: Workload, versions: bool) {
    let mut history = generate(&shape(workload, versions), 11);
    let text = history.to_edn();
    let began = Instant::now();
    assert_eq!(History::parse(&text).as_ref(), Ok(&history));
    println!("reading: {:?}", began.elapsed());
    assert_eq!(
        judge(&history, workload, Level::StrictSerializable),
        Vec::<String>::new()
    );
    plant(&mut history);
    let found = judge(&history, workload, Level::StrictSerializable);
    assert!(!found.is_empty(), "the planted stale read was accepted");
    println!("{}", found.join("\n"));
}

/// Replaces what a read in the middle saw by what an earlier read of its key saw, of the first half.
fn plant(history: &mut History) {
    // Well into one set of keys, so that each was written often.
    let half = history.events.len() / 2 + 2_500;
    let tells = |event: &ostrakon_tests::check::history::Event| match &event.action {
        _ if event.kind != EventKind::Ok => None,
        Action::Read {
            key,
            value: Some(value),
        } => Some((key.clone(), Observed::Value(value.clone()))),
        Action::Transaction { steps, .. } => match &steps[0].action {
            StepAction::Read { key, value } if *value != Observed::Nothing => {
                Some((key.clone(), value.clone()))
            }
            _ => None,
        },
        _ => None,
    };
    let (place, key) = (half..history.events.len())
        .find_map(|place| Some((place, tells(&history.events[place])?.0)))
        .expect("a read that saw something");
    let (earlier, old) = (0..place)
        .find_map(|place| {
            tells(&history.events[place])
                .filter(|(other, _)| *other == key)
                .map(|(_, old)| (place, old))
        })
        .expect("an earlier read of the key");
    let old_event = history.events[earlier].clone();
    let event = &mut history.events[place];
    match (&mut event.action, &old_event.action) {
        (Action::Read { value, .. }, _) => {
            let Observed::Value(old) = old else {
                panic!("a register")
            };
            *value = Some(old);
            event.version = old_event.version;
        }
        (Action::Transaction { steps, .. }, Action::Transaction { steps: others, .. }) => {
            steps[0] = others[0].clone();
        }
        _ => panic!("one workload"),
    }
}

#[test]
fn registers_with_versions() {
    good_then_planted(Workload::Registers, true);
}

#[test]
fn registers_without_versions() {
    good_then_planted(Workload::Registers, false);
}

#[test]
fn list_append() {
    good_then_planted(Workload::ListAppend, false);
}

#[test]
fn read_write_transactions_with_versions() {
    good_then_planted(Workload::ReadWrite, true);
}

#[test]
fn read_write_transactions_without_versions() {
    good_then_planted(Workload::ReadWrite, false);
}

/// Keys of the history of scans, and operations from one scan of all of them to the next.
const SCANNED_KEYS: u64 = 20_000;
const SCAN_EVERY: u64 = 1_000;

/// Writes one after the other, each key again and again, and between them scans of everything, one after the other.
fn scans() -> History {
    let mut events = Vec::new();
    let mut present = std::collections::BTreeMap::new();
    for number in 0..OPERATIONS {
        let (call, answer, version) = if number % SCAN_EVERY == SCAN_EVERY - 1 {
            let scan = Some(KeyRange {
                start: None,
                end: None,
            });
            let read = |(key, version): (&i64, &u64)| Step {
                version: Some(Version(*version)),
                ..Step::new(StepAction::Read {
                    key: Datum::from(*key),
                    value: Observed::Value(Datum::from(*version as i64)),
                })
            };
            let steps = present.iter().map(read).collect();
            let call = Action::Transaction {
                steps: Vec::new(),
                scan: scan.clone(),
            };
            (call, Action::Transaction { steps, scan }, None)
        } else {
            // Far apart, so that keys which are not there yet lie between others.
            let key = (number * 7_919 % SCANNED_KEYS) as i64;
            present.insert(key, number + 1);
            let write = Action::Write {
                key: Datum::from(key),
                value: Datum::from((number + 1) as i64),
            };
            (write.clone(), write, Some(Version(number + 1)))
        };
        let process = Process(number % 8);
        events.push(Event::new(number * 2, EventKind::Invoke, process, call));
        events.push(Event {
            version,
            ..Event::new(number * 2 + 1, EventKind::Ok, process, answer)
        });
    }
    History::new(events)
}

#[test]
fn scans_of_many_keys() {
    let mut history = scans();
    let level = Level::StrictSerializable;
    assert_eq!(judge(&history, Workload::ReadWrite, level), Vec::<String>::new());
    let last = history.events.last_mut().expect("a scan");
    let Action::Transaction { steps, .. } = &mut last.action else {
        panic!("the last operation is a scan");
    };
    steps.remove(steps.len() / 2);
    let found = judge(&history, Workload::ReadWrite, level);
    assert!(!found.is_empty(), "a key that is missing in a scan was accepted");
}

#[test]
fn good_transactions_are_allowed_and_a_changed_list_is_not() {
    let mut refused = 0;
    for seed in 0..2_000 {
        let mut random = Random(seed);
        let workload = if seed % 2 == 0 {
            Workload::ListAppend
        } else {
            Workload::ReadWrite
        };
        let shape = Shape {
            operations: 4 + random.below(40),
            processes: 1 + random.below(6),
            keys: 1 + random.below(4),
            keys_last: 0,
            versions: seed % 4 == 1,
            unknown_permille: 50,
            ..shape(workload, false)
        };
        let mut history = generate(&shape, seed);
        for level in [Level::StrictSerializable, Level::Serializable, Level::Snapshot] {
            let found = judge(&history, workload, level);
            assert!(
                found.is_empty(),
                "seed {seed}: {}\n{}",
                found.join("\n"),
                history.to_edn()
            );
        }
        if cut_a_list(&mut history) {
            let found = judge(&history, workload, Level::StrictSerializable);
            assert!(!found.is_empty(), "seed {seed}:\n{}", history.to_edn());
            refused += 1;
        }
    }
    assert!(refused > 200, "{refused}");
}

/// Takes from a list that was read the last element, where its append was answered before that read was called.
fn cut_a_list(history: &mut History) -> bool {
    let operations = history.operations().expect("a history");
    let appended_before = |called_at: usize, element: &Datum| {
        operations.iter().any(|operation| {
            let Action::Transaction { steps, .. } = &operation.action else {
                return false;
            };
            operation
                .answered_at
                .is_some_and(|answered_at| answered_at < called_at)
                && steps.iter().any(
                    |step| matches!(&step.action, StepAction::Append { element: own, .. } if own == element),
                )
        })
    };
    for operation in &operations {
        let (Action::Transaction { steps, .. }, Some(place)) = (&operation.action, operation.answered_at)
        else {
            continue;
        };
        for (number, step) in steps.iter().enumerate() {
            if let StepAction::Read {
                value: Observed::List(list),
                ..
            } = &step.action
                && list
                    .last()
                    .is_some_and(|last| appended_before(operation.called_at, last))
                && let Action::Transaction { steps, .. } = &mut history.events[place].action
                && let StepAction::Read {
                    value: Observed::List(list),
                    ..
                } = &mut steps[number].action
            {
                list.pop();
                return true;
            }
        }
    }
    false
}
