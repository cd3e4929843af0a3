//! The verdict on a run: what the clients noticed at once, and what the checkers find in the history.

use std::collections::BTreeMap;
use std::fmt;

use super::record::Recorder;
use crate::check::history::{
    Action, Event, EventKind, History, Observed, Process, Step, StepAction, Version,
};
use crate::check::transactions::Level;
use crate::check::{Verdict, registers, transactions};
use crate::sim::World;

/// What was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What should have held.
    pub check: String,
    /// What was found instead.
    pub detail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "violated: {}\n{}", self.check, self.detail)
    }
}

/// Judges what has been recorded.
///
/// # Errors
/// The first thing that is wrong.
pub fn judge(world: &World, recorder: &Recorder) -> Result<(), Failure> {
    let failed = |check: &str, detail: String| {
        Err(Failure {
            check: check.to_owned(),
            detail,
        })
    };
    if let Some(panic) = world.panics().first() {
        return failed("no task panics", panic.message.clone());
    }
    if let Some(sentence) = recorder.violations().first() {
        return failed("every answer makes sense by itself", sentence.clone());
    }
    let history = recorder.history();
    match registers::check(&with_scans_as_reads(&history), &registers::Settings::default()) {
        Ok(Verdict::Allowed) => {}
        Ok(verdict) => return failed("every key is linearizable", verdict.to_string()),
        Err(malformed) => return failed("the history is one of clients", malformed.to_string()),
    }
    match transactions::check(&history, &transactions::Settings::new(Level::Serializable)) {
        Ok(Verdict::Allowed) => Ok(()),
        Ok(verdict) => failed("every scan is one snapshot", verdict.to_string()),
        Err(malformed) => failed("the history is one of clients", malformed.to_string()),
    }
}

/// The history with a read of each key in place of each scan: for each key alone, a scan is as fresh as a get. (Over
/// several keys it is a snapshot, and not ordered in real time with what goes on beside it: decision 016.)
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
    let mut events = Vec::with_capacity(history.events.len());
    let mut readers = READERS_FROM;
    let mut first_reader: BTreeMap<u64, u64> = BTreeMap::new();
    for (place, event) in history.events.iter().enumerate() {
        let Some(answer) = scans.get(&place) else {
            let is_scan = matches!(event.action, Action::Transaction { .. });
            events.extend((!is_scan).then(|| event.clone()));
            continue;
        };
        let Action::Transaction { steps, .. } = &answer.action else {
            unreachable!("only scans were collected")
        };
        let first = *first_reader.entry(answer.index).or_insert(readers);
        readers = readers.max(first + steps.len() as u64);
        for (step, reader) in steps.iter().zip(first..) {
            events.push(read_of(event, step, Process(reader)));
        }
    }
    History::new(events)
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
