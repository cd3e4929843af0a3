//! What Ostrakon promises of a history, put to the checkers.
//!
//! 1. However often a call is answered, it is answered alike.
//! 2. Each key alone is linearizable, with each scan as a read of every key in its range, and each step of a batch or
//!    of a read of several keys as an operation of its own: they take effect at one moment, so each does.
//! 3. All operations together are serializable, so a scan is one snapshot, and a batch is seen whole or not at all.
//!
//! A batch whose outcome nobody was told, and one of whose values was seen, was done whole before that: it counts as
//! answered then ([`settle`]).
//!
//! Not promised is that the order of 3 agrees with real time over several keys: decision 016. Where no scan runs beside
//! other operations it does, and [`strict_objections`] asks for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::check::history::{
    Action, Condition, Datum, Event, EventKind, Failure, History, Observed, Operation, Outcome, Process,
    Step, StepAction, Version,
};
use crate::check::transactions::{self, Level};
use crate::check::{Verdict, answers, registers};

/// What the checkers object to in a history; empty if it keeps the promises. An undecided check objects, too.
pub fn objections(history: &History) -> Vec<String> {
    objections_at(history, Level::Serializable)
}

/// The same, where the order of all operations is to agree with real time.
pub fn strict_objections(history: &History) -> Vec<String> {
    objections_at(history, Level::StrictSerializable)
}

fn objections_at(history: &History, level: Level) -> Vec<String> {
    let operations = match history.operations() {
        Ok(operations) => settle(operations),
        Err(malformed) => return vec![format!("no history of clients: {malformed}")],
    };
    let alike = answers::check(history);
    let keys = registers::check(&key_by_key(&operations), &registers::Settings::default());
    let all = transactions::check(&as_history(&operations), &transactions::Settings::new(level));
    let alike = alike.map(|verdict| objection("all answers to a call are alike", &verdict));
    let keys = keys.map(|verdict| objection("keys are linearizable", &verdict));
    let all = all.map(|verdict| objection(&format!("all together are at the level {level:?}"), &verdict));
    let said = |malformed: crate::check::history::Malformed| Some(malformed.to_string());
    [alike, keys, all]
        .into_iter()
        .filter_map(|checked| checked.unwrap_or_else(said))
        .collect()
}

fn objection<V: fmt::Display>(promise: &str, verdict: &Verdict<V>) -> Option<String> {
    (!verdict.is_allowed()).then(|| format!("not true that {promise}: {verdict}"))
}

/// An operation, and where it lies among the events of its history: twice the place, and one more for an event that the
/// history has itself, so that there is room before each.
struct Placed {
    operation: Operation,
    called_at: usize,
    answered_at: Option<usize>,
}

/// Gives batches an answer that have none, and one of whose values was seen: before it was seen.
fn settle(operations: Vec<Operation>) -> Vec<Placed> {
    let writers = writers(&operations);
    let counters = counters(&operations);
    let sightings = sightings(&operations);
    let settled = |operation: &Operation| {
        let steps = written_steps(operation)?;
        let seen = steps.iter().filter_map(|step| {
            let StepAction::Write {
                key,
                value: Some(value),
            } = &step.action
            else {
                return None;
            };
            // A sum may be the number by chance.
            let may_be_a_sum = matches!(value, Datum::Integer(_)) && counters.contains(key);
            let is_only = writers.get(&(key, value)) == Some(&1) && !may_be_a_sum;
            sightings.get(&(key, value)).copied().filter(|_| is_only)
        });
        seen.min()
    };
    let settled: Vec<Option<(usize, Version)>> = operations.iter().map(settled).collect();
    let place = |(mut operation, seen): (Operation, Option<(usize, Version)>)| {
        let called_at = operation.called_at * 2 + 1;
        let mut answered_at = operation.answered_at.map(|place| place * 2 + 1);
        if let (Some((place, version)), Action::Transaction { steps, .. }) = (seen, &mut operation.action) {
            for step in steps.iter_mut().filter(|step| is_write(step)) {
                step.version = Some(version);
            }
            operation.outcome = Outcome::Ok;
            operation.clock = Some((version.0, version.0));
            answered_at = Some(place * 2);
        }
        Placed {
            operation,
            called_at,
            answered_at,
        }
    };
    operations.into_iter().zip(settled).map(place).collect()
}

/// The steps of a batch of unknown outcome.
fn written_steps(operation: &Operation) -> Option<&[Step]> {
    let Action::Transaction { steps, scan: None } = &operation.action else {
        return None;
    };
    let is_batch = steps
        .iter()
        .all(|step| is_write(step) || matches!(step.action, StepAction::Check { .. }));
    (operation.outcome == Outcome::Unknown && is_batch).then_some(steps)
}

fn is_write(step: &Step) -> bool {
    matches!(step.action, StepAction::Write { .. } | StepAction::Add { .. })
}

/// How many operations write a value to a key.
fn writers(operations: &[Operation]) -> BTreeMap<(&Datum, &Datum), usize> {
    let mut writers = BTreeMap::new();
    for operation in operations {
        match &operation.action {
            Action::Write { key, value } | Action::CompareAndSet { key, new: value, .. } => {
                *writers.entry((key, value)).or_default() += 1;
            }
            Action::Transaction { steps, .. } => {
                for step in steps {
                    if let StepAction::Write {
                        key,
                        value: Some(value),
                    } = &step.action
                    {
                        *writers.entry((key, value)).or_default() += 1;
                    }
                }
            }
            _ => {}
        }
    }
    writers
}

/// Keys to which something is added.
fn counters(operations: &[Operation]) -> BTreeSet<&Datum> {
    let mut counters = BTreeSet::new();
    for operation in operations {
        match &operation.action {
            Action::Add { key, .. } => {
                counters.insert(key);
            }
            Action::Transaction { steps, .. } => {
                let added = steps
                    .iter()
                    .filter(|step| matches!(step.action, StepAction::Add { .. }));
                counters.extend(added.map(Step::key));
            }
            _ => {}
        }
    }
    counters
}

/// The first answer that showed a value at a key, with its version.
fn sightings(operations: &[Operation]) -> BTreeMap<(&Datum, &Datum), (usize, Version)> {
    let mut sightings = BTreeMap::new();
    for operation in operations
        .iter()
        .filter(|operation| operation.outcome == Outcome::Ok)
    {
        let Some(answered_at) = operation.answered_at else {
            continue;
        };
        let mut see = |key, value, version: Option<Version>| {
            if let Some(version) = version {
                let first = sightings.entry((key, value)).or_insert((answered_at, version));
                *first = (*first).min((answered_at, version));
            }
        };
        match &operation.action {
            Action::Read {
                key,
                value: Some(value),
            } => see(key, value, operation.version),
            Action::Transaction { steps, .. } => {
                for step in steps {
                    if let StepAction::Read {
                        key,
                        value: Observed::Value(value),
                    } = &step.action
                    {
                        see(key, value, step.version);
                    }
                }
            }
            _ => {}
        }
    }
    sightings
}

/// Operations as a history again.
fn as_history(operations: &[Placed]) -> History {
    let mut events = Vec::with_capacity(operations.len() * 2);
    for placed in operations {
        let [call, answer] = events_of(&placed.operation);
        events.push((placed.called_at, call));
        events.extend(placed.answered_at.map(|place| (place, answer)));
    }
    events.sort_by_key(|(place, _)| *place);
    History::new(events.into_iter().map(|(_, event)| event).collect())
}

fn events_of(operation: &Operation) -> [Event; 2] {
    let event = |kind| Event::new(0, kind, operation.process, operation.action.clone());
    let mut call = event(EventKind::Invoke);
    call.condition = operation.condition.clone();
    call.lifetime = operation.lifetime;
    let (kind, failure) = match operation.outcome {
        Outcome::Ok => (EventKind::Ok, None),
        Outcome::Refused => (EventKind::Fail, Some(Failure::Condition)),
        Outcome::NotANumber => (EventKind::Fail, Some(Failure::NotANumber)),
        Outcome::Overflow => (EventKind::Fail, Some(Failure::Overflow)),
        Outcome::Failed => (EventKind::Fail, None),
        Outcome::Unknown => (EventKind::Info, None),
    };
    let mut answer = event(kind);
    answer.failure = failure;
    answer.version = operation.version;
    answer.expires = operation.expires;
    answer.clock = operation.clock;
    answer.failed_step = operation.failed_step;
    [call, answer]
}

/// The history with an operation on each single key in place of each transaction: for each key alone, a scan is as
/// fresh as a get, and a step of a batch is a write like any other.
fn key_by_key(operations: &[Placed]) -> History {
    let known = keys_of(operations);
    let mut next_process = PARTS_FROM;
    let mut parts = Vec::with_capacity(operations.len());
    for placed in operations {
        let Action::Transaction { steps, scan } = &placed.operation.action else {
            parts.push(Placed {
                operation: placed.operation.clone(),
                ..*placed
            });
            continue;
        };
        let singles = match (placed.operation.outcome.clone(), scan) {
            (Outcome::Ok, Some(range)) => {
                let listed: BTreeSet<&Datum> = steps.iter().map(Step::key).collect();
                let is_missing = |key: &&&Datum| range.contains(key) && !listed.contains(**key);
                let missing = known.iter().filter(is_missing).map(|key| nothing_at(key));
                let all: Vec<Step> = steps.iter().cloned().chain(missing).collect();
                singles_of(&placed.operation, &all)
            }
            (_, Some(_)) => Vec::new(),
            (_, None) => singles_of(&placed.operation, steps),
        };
        for mut single in singles {
            single.process = Process(next_process);
            next_process += 1;
            parts.push(Placed {
                operation: single,
                ..*placed
            });
        }
    }
    as_history(&parts)
}

/// Processes that carry out the parts of a transaction get numbers from here on.
const PARTS_FROM: u64 = 1 << 40;

/// Every key that a write names, or a read of this key.
fn keys_of(operations: &[Placed]) -> BTreeSet<&Datum> {
    let mut keys = BTreeSet::new();
    for placed in operations {
        match &placed.operation.action {
            Action::Read { key, .. }
            | Action::Write { key, .. }
            | Action::CompareAndSet { key, .. }
            | Action::Delete { key }
            | Action::Add { key, .. }
            | Action::Check { key } => {
                keys.insert(key);
            }
            Action::Transaction { steps, scan: None } => keys.extend(steps.iter().map(Step::key)),
            Action::Transaction { .. } => {}
        }
    }
    keys
}

fn nothing_at(key: &Datum) -> Step {
    Step::new(StepAction::Read {
        key: key.clone(),
        value: Observed::Nothing,
    })
}

/// What each step of a transaction did or saw, as an operation on its key. Its process is still to be given.
fn singles_of(operation: &Operation, steps: &[Step]) -> Vec<Operation> {
    let failed = match operation.outcome {
        Outcome::Refused => operation.failed_step.map(|step| step as usize),
        _ => None,
    };
    let mut singles = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let single = |outcome| single_of(operation, step, outcome);
        match (&operation.outcome, failed) {
            (Outcome::Ok, _) => singles.push(single(Outcome::Ok)),
            (Outcome::Unknown, _) if is_write(step) => singles.push(single(Outcome::Unknown)),
            (Outcome::Refused, Some(failed)) if number == failed => {
                singles.push(Operation {
                    version: operation.version,
                    ..single(Outcome::Refused)
                });
            }
            (Outcome::Unknown, _) => {}
            (_, failed) => {
                // Conditions were looked at in order, up to the first that did not hold.
                if failed.is_some_and(|failed| number < failed) && step.condition != Condition::None {
                    let action = Action::Check {
                        key: step.key().clone(),
                    };
                    singles.push(Operation {
                        action,
                        version: None,
                        lifetime: None,
                        ..single(Outcome::Ok)
                    });
                }
                singles.extend(is_write(step).then(|| single(Outcome::Failed)));
            }
        }
    }
    singles
}

fn single_of(operation: &Operation, step: &Step, outcome: Outcome) -> Operation {
    let key = step.key().clone();
    let (action, version) = match &step.action {
        StepAction::Read { value, .. } => {
            let value = match value {
                Observed::Value(value) => Some(value.clone()),
                Observed::Nothing | Observed::List(_) => None,
            };
            let version = step.version.unwrap_or(Version::ABSENT);
            (Action::Read { key, value }, Some(version))
        }
        StepAction::Write {
            value: Some(value), ..
        } => {
            let value = value.clone();
            (Action::Write { key, value }, step.version)
        }
        StepAction::Write { value: None, .. } => (Action::Delete { key }, step.version),
        StepAction::Add { delta, result, .. } => {
            let (delta, result) = (*delta, *result);
            (Action::Add { key, delta, result }, step.version)
        }
        StepAction::Check { .. } => (Action::Check { key }, None),
        StepAction::Append { .. } => unreachable!("lists are not among what Ostrakon keeps"),
    };
    Operation {
        action,
        version,
        outcome,
        condition: step.condition.clone(),
        lifetime: step.lifetime,
        expires: step.expires,
        failed_step: None,
        ..operation.clone()
    }
}
