//! The linearizability checker against a checker that tries every order, on many small random histories; and
//! good histories with one answer changed.

use ostrakon_tests::check::Verdict;
use ostrakon_tests::check::generate::{Random, Shape, Workload, generate};
use ostrakon_tests::check::history::{
    Action, Condition, Datum, Event, EventKind, Failure, History, Operation, Outcome, Process, Version,
};
use ostrakon_tests::check::registers::{self, Settings};

/// Tries every order of one key's operations. Shares nothing with the checker but the history.
mod every_order {
    use super::{Action, Condition, Datum, Operation, Outcome};

    /// The key, the versions of all writes so far as far as they are known, when what is there expires, and when what
    /// was there has expired.
    #[derive(Clone)]
    struct Key {
        value: Option<Datum>,
        versions: Vec<Option<u64>>,
        expires: Option<u64>,
        gone: Option<u64>,
    }

    pub(super) fn linearizable(operations: &[Operation]) -> bool {
        let done: Vec<&Operation> = operations
            .iter()
            .filter(|operation| operation.outcome != Outcome::Failed)
            .collect();
        let start = Key {
            value: None,
            versions: Vec::new(),
            expires: None,
            gone: None,
        };
        any_order(&done, &start)
    }

    fn any_order(left: &[&Operation], key: &Key) -> bool {
        if left.iter().all(|operation| operation.outcome == Outcome::Unknown) && rising(&key.versions) {
            return true;
        }
        (0..left.len()).any(|chosen| {
            let next = left[chosen];
            let is_first = left
                .iter()
                .all(|other| other.answered_at.is_none_or(|at| at > next.called_at));
            let mut rest = left.to_vec();
            rest.remove(chosen);
            [false, true].into_iter().any(|expired| {
                let mut after = key.clone();
                is_first
                    && expire(&mut after, next, expired)
                    && apply(&mut after, next)
                    && any_order(&rest, &after)
            })
        })
    }

    /// Has what is there expired when the operation is decided, or not? False if that can't be.
    fn expire(key: &mut Key, operation: &Operation, expired: bool) -> bool {
        let observes = operation.outcome != Outcome::Ok
            || matches!(operation.action, Action::Read { .. } | Action::Check { .. });
        let (from, to) = match operation.version {
            Some(version) if !observes => (version.0, version.0),
            _ => operation.clock.unwrap_or((0, u64::MAX)),
        };
        let Some(expires_at) = key.expires else {
            return !expired && key.gone.is_none_or(|gone| to >= gone);
        };
        if expired {
            (key.value, key.expires, key.gone) = (None, None, Some(expires_at));
            expires_at <= to
        } else {
            expires_at > from
        }
    }

    /// True if numbers for the unknown versions exist with which all rise strictly from 1.
    fn rising(versions: &[Option<u64>]) -> bool {
        let mut least = 1;
        versions.iter().all(|version| {
            let fits = version.is_none_or(|version| version >= least);
            least = version.unwrap_or(least) + 1;
            fits
        })
    }

    fn apply(key: &mut Key, operation: &Operation) -> bool {
        let version = operation.version.map(|version| version.0);
        let refused = operation.outcome == Outcome::Refused;
        match &operation.action {
            Action::Read { .. } | Action::Check { .. } if operation.outcome == Outcome::Unknown => true,
            Action::Read { value, .. } => {
                let told = operation
                    .expires
                    .is_none_or(|told| told == key.expires.unwrap_or(0));
                *value == key.value && told && found(key, version)
            }
            Action::CompareAndSet { old, .. } if refused => *old != key.value && found(key, version),
            Action::CompareAndSet { old, new, .. } => {
                *old == key.value && put(key, Some(new.clone()), version)
            }
            Action::Write { .. } | Action::Delete { .. } | Action::Check { .. } if refused => {
                found(key, version) && !holds_surely(key, &operation.condition)
            }
            Action::Write { value, .. } => {
                let is_put = holds(key, &operation.condition) && put(key, Some(value.clone()), version);
                key.expires = operation.lifetime.map(|lifetime| lifetime + version.unwrap_or(0));
                is_put
            }
            Action::Delete { .. } => holds(key, &operation.condition) && delete(key, version),
            Action::Check { .. } => holds(key, &operation.condition) && found(key, version),
            Action::Add { delta, result, .. } => {
                let base = match &key.value {
                    None => 0,
                    Some(Datum::Integer(number)) => *number,
                    Some(Datum::Bytes(_)) => return false,
                };
                let told =
                    operation.outcome == Outcome::Unknown || result.is_none_or(|told| told == base + delta);
                told && put(key, Some(Datum::Integer(base + delta)), version)
            }
            Action::Transaction { .. } => false,
        }
    }

    fn found(key: &mut Key, version: Option<u64>) -> bool {
        match version {
            None => true,
            Some(version) if key.value.is_none() => version == 0,
            Some(version) => {
                let Some(newest) = key.versions.last_mut() else {
                    return false;
                };
                *newest.get_or_insert(version) == version
            }
        }
    }

    fn holds(key: &mut Key, condition: &Condition) -> bool {
        match condition {
            Condition::None => true,
            Condition::Absent => key.value.is_none(),
            Condition::Present => key.value.is_some(),
            Condition::Version(version) => found(key, Some(version.0)),
            Condition::Value(value) => key.value.as_ref() == Some(value),
        }
    }

    fn holds_surely(key: &Key, condition: &Condition) -> bool {
        match condition {
            Condition::None => true,
            Condition::Absent => key.value.is_none(),
            Condition::Present => key.value.is_some(),
            Condition::Version(version) => {
                key.value.is_some() && key.versions.last() == Some(&Some(version.0))
                    || version.0 == 0 && key.value.is_none()
            }
            Condition::Value(value) => key.value.as_ref() == Some(value),
        }
    }

    fn put(key: &mut Key, value: Option<Datum>, version: Option<u64>) -> bool {
        key.value = value;
        (key.expires, key.gone) = (None, None);
        key.versions.push(version);
        version != Some(0)
    }

    fn delete(key: &mut Key, version: Option<u64>) -> bool {
        match (version, &key.value) {
            (Some(0) | None, None) => true,
            (Some(0), Some(_)) => false,
            _ => put(key, None, version),
        }
    }
}

#[test]
fn it_agrees_with_every_order_on_random_answers() {
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..30_000 {
        let history = random_history(&mut Random(seed));
        if compare(&history, seed) {
            accepted += 1;
        } else {
            refused += 1;
        }
    }
    assert!(
        accepted > 3_000 && refused > 3_000,
        "{accepted} accepted, {refused} refused"
    );
}

#[test]
fn it_agrees_with_every_order_where_values_expire() {
    let (mut accepted, mut refused, mut good) = (0, 0, 0);
    for seed in 0..30_000 {
        let random_answers = random_expiring_history(&mut Random(seed));
        let mut changed = generate(&expiring(0), seed);
        good += u32::from(compare(&changed, seed));
        change_expiring_answer(&mut changed, &mut Random(seed));
        for history in [random_answers, changed] {
            if compare(&history, seed) {
                accepted += 1;
            } else {
                refused += 1;
            }
        }
    }
    assert!(
        good == 30_000 && accepted > 3_000 && refused > 3_000,
        "{good} good ones and {accepted} others accepted, {refused} refused"
    );
}

#[test]
fn it_accepts_good_histories_where_values_expire_and_outcomes_are_unknown() {
    for seed in 0..3_000 {
        let shape = Shape {
            operations: 60,
            processes: 4,
            keys: 3,
            ..expiring(150)
        };
        let history = generate(&shape, seed);
        let verdict = registers::check(&history, &Settings::default()).expect("a history");
        assert!(
            verdict.is_allowed(),
            "seed {seed}: {verdict}\n{}",
            history.to_edn()
        );
    }
}

fn expiring(unknown_permille: u64) -> Shape {
    Shape {
        workload: Workload::Expiring,
        operations: 6,
        processes: 2,
        keys: 1,
        keys_last: 0,
        versions: true,
        unknown_permille,
    }
}

/// Changes what an answer tells of value, version, expiry or clock.
fn change_expiring_answer(history: &mut History, random: &mut Random) {
    let answers = history
        .events
        .iter_mut()
        .filter(|event| event.kind == EventKind::Ok);
    let mut answers: Vec<&mut Event> = answers.collect();
    if answers.is_empty() {
        return;
    }
    let chosen = random.below(answers.len() as u64) as usize;
    let event = answers.swap_remove(chosen);
    let moved = |number: u64, random: &mut Random| (number + random.below(9)).saturating_sub(4);
    match (&mut event.action, random.below(3)) {
        (Action::Read { value, .. }, 0) if value.is_some() => {
            (*value, event.version, event.expires) = (None, Some(Version::ABSENT), None);
        }
        (_, 1) => {
            event.clock = event.clock.map(|(from, to)| {
                let by = random.below(12);
                if random.below(2) == 0 {
                    (from.saturating_sub(by), to.saturating_sub(by))
                } else {
                    (from + by, to + by)
                }
            });
        }
        (Action::Read { value, .. }, _) if value.is_some() => {
            event.expires = Some(moved(event.expires.unwrap_or(0), random));
        }
        (Action::Write { .. }, _) => {
            event.version = event.version.map(|version| Version(1 + moved(version.0, random)));
        }
        _ => (),
    }
}

/// Calls and answers at random, with lifetimes and clocks. Each write tells its version.
fn random_expiring_history(random: &mut Random) -> History {
    let mut history = random_history(random);
    history
        .events
        .retain(|event| !matches!(event.action, Action::Add { .. } | Action::CompareAndSet { .. }));
    for event in &mut history.events {
        match event.kind {
            EventKind::Invoke => {
                if matches!(event.action, Action::Write { .. }) && random.below(2) == 0 {
                    event.lifetime = Some(1 + random.below(4));
                }
            }
            EventKind::Info if !matches!(event.action, Action::Read { .. }) => {
                event.kind = EventKind::Fail;
            }
            _ => {
                let from = random.below(10);
                event.clock = Some((from, from + random.below(3)));
            }
        }
        let is_write = matches!(event.action, Action::Write { .. } | Action::Delete { .. });
        if event.kind == EventKind::Ok && is_write {
            event.version = Some(Version(1 + random.below(9)));
        }
    }
    History::new(history.events)
}

#[test]
fn it_agrees_with_every_order_on_good_histories_with_one_answer_changed() {
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..6_000 {
        let mut random = Random(seed);
        let mut history = generate(&small(&mut random), seed);
        assert!(
            compare(&history, seed),
            "a good history is refused, seed {seed}:\n{}",
            history.to_edn()
        );
        if change_one_answer(&mut history, &mut random) {
            if compare(&history, seed) {
                accepted += 1;
            } else {
                refused += 1;
            }
        }
    }
    assert!(
        refused > 2_000 && accepted > 50,
        "{accepted} accepted, {refused} refused"
    );
}

/// True if linearizable; fails unless both checkers say so.
fn compare(history: &History, seed: u64) -> bool {
    let operations = history
        .operations()
        .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let expected = every_order::linearizable(&operations);
    let verdict = registers::check(history, &Settings::default()).expect("a history");
    let found = match &verdict {
        Verdict::Undecided { .. } => panic!("seed {seed}: {verdict}\n{}", history.to_edn()),
        decided => decided.is_allowed(),
    };
    assert_eq!(found, expected, "seed {seed}: {verdict}\n{}", history.to_edn());
    expected
}

fn small(random: &mut Random) -> Shape {
    Shape {
        workload: Workload::Registers,
        operations: 3 + random.below(5),
        processes: 1 + random.below(3),
        keys: 1,
        keys_last: 0,
        versions: random.below(2) == 0,
        unknown_permille: 150,
    }
}

/// Changes a value or version that an `:ok` told. False if there is none.
fn change_one_answer(history: &mut History, random: &mut Random) -> bool {
    let answers = history
        .events
        .iter_mut()
        .filter(|event| event.kind == EventKind::Ok);
    let mut answers: Vec<&mut Event> = answers.collect();
    if answers.is_empty() {
        return false;
    }
    let chosen = random.below(answers.len() as u64) as usize;
    let other = Datum::Integer(random.below(6) as i64 * 10);
    let event = answers.swap_remove(chosen);
    match (&mut event.action, &mut event.version) {
        (Action::Read { value, .. }, None) => *value = Some(other),
        (Action::Read { value, .. }, Some(_)) if random.below(2) == 0 => *value = Some(other),
        (Action::Add { result, .. }, None) => *result = Some(random.below(4) as i64),
        (_, Some(version)) => *version = Version(random.below(5)),
        _ => return false,
    }
    true
}

/// Calls and answers at random: most histories of more than a few are wrong.
fn random_history(random: &mut Random) -> History {
    let processes = 1 + random.below(3) as usize;
    let versions = random.below(2) == 0;
    let mut running: Vec<(u64, Option<Event>)> =
        (0..processes as u64).map(|process| (process, None)).collect();
    let (mut left, mut next_process) = (2 + random.below(4), processes as u64);
    let mut events: Vec<Event> = Vec::new();
    while left > 0 || running.iter().any(|(_, call)| call.is_some()) {
        let (process, call) = &mut running[random.below(processes as u64) as usize];
        let mut event = match call.take() {
            Some(mut event) => {
                answer(&mut event, versions, random);
                if event.kind == EventKind::Info {
                    *process = next_process;
                    next_process += 1;
                }
                event
            }
            None if left > 0 => {
                left -= 1;
                let event = random_call(Process(*process), random);
                *call = Some(event.clone());
                event
            }
            None => continue,
        };
        event.time_ns = events.len() as u64;
        events.push(event);
    }
    History::new(events)
}

fn random_call(process: Process, random: &mut Random) -> Event {
    let key = Datum::Integer(1);
    let value = Datum::Integer(1 + random.below(3) as i64);
    let mut condition = Condition::None;
    let mut conditional = |random: &mut Random| match random.below(7) {
        0 => condition = Condition::Absent,
        1 => condition = Condition::Present,
        2 => condition = Condition::Version(Version(random.below(4))),
        3 => condition = Condition::Value(Datum::Integer(1 + random.below(3) as i64)),
        _ => (),
    };
    let action = match random.below(10) {
        0..3 => Action::Read { key, value: None },
        3..6 => {
            conditional(random);
            Action::Write { key, value }
        }
        6 => {
            conditional(random);
            Action::Delete { key }
        }
        7 => Action::CompareAndSet {
            key,
            old: (random.below(3) > 0).then(|| Datum::Integer(1 + random.below(3) as i64)),
            new: value,
        },
        8 => {
            conditional(random);
            Action::Check { key }
        }
        _ => Action::Add {
            key,
            delta: 1,
            result: None,
        },
    };
    if matches!(action, Action::Check { .. }) && condition == Condition::None {
        condition = Condition::Present;
    }
    let mut event = Event::new(0, EventKind::Invoke, process, action);
    event.condition = condition;
    event
}

fn answer(event: &mut Event, versions: bool, random: &mut Random) {
    let can_refuse =
        event.condition != Condition::None || matches!(event.action, Action::CompareAndSet { .. });
    event.kind = match random.below(8) {
        0 => EventKind::Info,
        1 => EventKind::Fail,
        2 | 3 if can_refuse => {
            event.failure = Some(Failure::Condition);
            EventKind::Fail
        }
        _ => EventKind::Ok,
    };
    let tells = event.kind == EventKind::Ok || event.failure.is_some();
    if versions && tells && random.below(2) == 0 {
        event.version = Some(Version(random.below(5)));
    }
    if event.kind == EventKind::Ok {
        match &mut event.action {
            Action::Read { value, .. } => {
                let number = random.below(4) as i64;
                *value = (number > 0).then_some(Datum::Integer(number));
            }
            Action::Add { result, .. } => {
                *result = (random.below(2) == 0).then(|| 1 + random.below(3) as i64);
            }
            _ => (),
        }
    }
}
