//! What Ostrakon promises of a history, put to the checkers.
//!
//! 1. Each key alone is linearizable, with each scan as a read of every key in its range.
//! 2. All operations together are serializable, so a scan is one snapshot.
//!
//! Not promised is that the order of 2 agrees with real time over several keys: decision 016. Where no scan runs beside
//! other operations it does, and [`strict_objections`] asks for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::check::history::{
    Action, Datum, Event, EventKind, History, Observed, Process, Step, StepAction, Version,
};
use crate::check::transactions::{self, Level};
use crate::check::{Verdict, registers};

/// What the checkers object to in a history; empty if it keeps the promises. An undecided check objects, too.
pub fn objections(history: &History) -> Vec<String> {
    objections_at(history, Level::Serializable)
}

/// The same, where the order of all operations is to agree with real time.
pub fn strict_objections(history: &History) -> Vec<String> {
    objections_at(history, Level::StrictSerializable)
}

fn objections_at(history: &History, level: Level) -> Vec<String> {
    if let Err(malformed) = history.operations() {
        return vec![format!("no history of clients: {malformed}")];
    }
    let keys = registers::check(&with_scans_as_reads(history), &registers::Settings::default());
    let all = transactions::check(history, &transactions::Settings::new(level));
    let keys = keys.map(|verdict| objection("keys are linearizable", &verdict));
    let all = all.map(|verdict| objection(&format!("all together are at the level {level:?}"), &verdict));
    let said = |malformed: crate::check::history::Malformed| Some(malformed.to_string());
    keys.unwrap_or_else(said)
        .into_iter()
        .chain(all.unwrap_or_else(said))
        .collect()
}

fn objection<V: fmt::Display>(promise: &str, verdict: &Verdict<V>) -> Option<String> {
    (!verdict.is_allowed()).then(|| format!("not true that {promise}: {verdict}"))
}

/// The history with a read of each key in place of each scan: for each key alone, a scan is as fresh as a get.
fn with_scans_as_reads(history: &History) -> History {
    let mut calls: BTreeMap<Process, usize> = BTreeMap::new();
    let mut scans: BTreeMap<usize, &Event> = BTreeMap::new();
    for (place, event) in history.events.iter().enumerate() {
        match event.kind {
            EventKind::Invoke => {
                calls.insert(event.process, place);
            }
            EventKind::Ok if matches!(event.action, Action::Transaction { .. }) => {
                scans.insert(calls[&event.process], event);
                scans.insert(place, event);
            }
            _ => {}
        }
    }
    let known = keys_of(history);
    let mut events = Vec::with_capacity(history.events.len());
    let mut readers = READERS_FROM;
    let mut first_reader: BTreeMap<u64, u64> = BTreeMap::new();
    for (place, event) in history.events.iter().enumerate() {
        let Some(answer) = scans.get(&place) else {
            let is_scan = matches!(event.action, Action::Transaction { .. });
            events.extend((!is_scan).then(|| event.clone()));
            continue;
        };
        let steps = all_reads(answer, &known);
        let first = *first_reader.entry(answer.index).or_insert(readers);
        readers = readers.max(first + steps.len() as u64);
        for (step, reader) in steps.iter().zip(first..) {
            events.push(read_of(event, step, Process(reader)));
        }
    }
    History::new(events)
}

/// Every key that an operation on a single key names.
fn keys_of(history: &History) -> BTreeSet<&Datum> {
    let single = history.events.iter().filter_map(|event| match &event.action {
        Action::Read { key, .. }
        | Action::Write { key, .. }
        | Action::CompareAndSet { key, .. }
        | Action::Delete { key }
        | Action::Add { key, .. } => Some(key),
        Action::Transaction { .. } => None,
    });
    single.collect()
}

/// What a scan found, and that all other keys of its range were absent.
fn all_reads(answer: &Event, known: &BTreeSet<&Datum>) -> Vec<Step> {
    let Action::Transaction { steps, scan } = &answer.action else {
        unreachable!("only scans were collected")
    };
    let listed: BTreeSet<&Datum> = steps.iter().map(Step::key).collect();
    let absent = known
        .iter()
        .filter(|key| scan.as_ref().is_some_and(|range| range.contains(key)) && !listed.contains(**key));
    let absent = absent.map(|key| {
        Step::new(StepAction::Read {
            key: (*key).clone(),
            value: Observed::Nothing,
        })
    });
    steps.iter().cloned().chain(absent).collect()
}

/// Processes that read the keys of a scan get numbers from here on.
const READERS_FROM: u64 = 1 << 40;

fn read_of(event: &Event, step: &Step, reader: Process) -> Event {
    let is_answer = event.kind == EventKind::Ok;
    let value = match &step.action {
        StepAction::Read {
            value: Observed::Value(value),
            ..
        } if is_answer => Some(value.clone()),
        _ => None,
    };
    let key = step.key().clone();
    let mut read = Event::new(event.time_ns, event.kind, reader, Action::Read { key, value });
    if is_answer {
        read.version = Some(step.version.unwrap_or(Version::ABSENT));
    }
    read
}
