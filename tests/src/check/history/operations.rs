//! Pairs calls with their answers and refuses histories that no client can have caused.
//!
//! Guarantees of what comes out: operations in the order of their calls; each process has one operation at a
//! time and none after an unknown outcome; an answer is about what was called. Never judges whether an answer
//! is right.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;

use super::{Action, Condition, Event, EventKind, Failure, Process, Step, StepAction, Version};

/// What became of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; the action holds the results.
    Ok,
    /// Certainly not done because its condition did not hold at some moment between call and answer.
    Refused,
    /// Certainly not done because an addition found something that is no number.
    NotANumber,
    /// Certainly not done because an addition found a number to which it can't be added.
    Overflow,
    /// Certainly not done.
    Failed,
    /// Done at any moment after the call, or never.
    Unknown,
}

/// A call with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Index of the call, as the history gives it.
    pub index: u64,
    /// Who called.
    pub process: Process,
    /// Place of the call in the list of events.
    pub called_at: usize,
    /// Place of the answer; none if unknown. An operation answered at a lower place than another was called
    /// came before it.
    pub answered_at: Option<usize>,
    /// What became of it.
    pub outcome: Outcome,
    /// What was called; with the results if it was done.
    pub action: Action,
    /// Under which condition.
    pub condition: Condition,
    /// The version in the answer.
    pub version: Option<Version>,
    /// See [`Event::lifetime`].
    pub lifetime: Option<u64>,
    /// See [`Event::expires`].
    pub expires: Option<u64>,
    /// See [`Event::clock`].
    pub clock: Option<(u64, u64)>,
    /// See [`Event::failed_step`].
    pub failed_step: Option<u32>,
}

/// An event that no client can have caused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Index of the event, as the history gives it.
    pub index: u64,
    /// Who called.
    pub process: Process,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Malformed {
            index,
            process,
            reason,
        } = self;
        write!(formatter, "event {index} of process {process}: {reason}")
    }
}

impl Error for Malformed {}

/// Where a process stands.
enum Thread {
    Idle,
    Calling(usize),
    Ended { index: u64 },
}

/// True if a call can have a condition.
pub(super) fn takes_condition(action: &Action) -> bool {
    matches!(
        action,
        Action::Write { .. } | Action::Delete { .. } | Action::Add { .. } | Action::Check { .. }
    )
}

/// See [`super::History::operations`].
pub(super) fn pair(events: &[Event]) -> Result<Vec<Operation>, Malformed> {
    let mut operations: Vec<Operation> = Vec::with_capacity(events.len() / 2 + 1);
    let mut threads: BTreeMap<Process, Thread> = BTreeMap::new();
    let mut before: Option<&Event> = None;
    for (place, event) in events.iter().enumerate() {
        order(before, event)?;
        before = Some(event);
        if let Some(call) = event.again_of {
            answer_again(&mut operations, call, event, place)?;
            continue;
        }
        let thread = threads.entry(event.process).or_insert(Thread::Idle);
        match (event.kind, &*thread) {
            (EventKind::Invoke, Thread::Idle) => {
                if event.condition != Condition::None && !takes_condition(&event.action) {
                    let reason = "only a write, a delete, an addition or a check can have a condition";
                    return Err(malformed(event, reason.into()));
                }
                *thread = Thread::Calling(operations.len());
                operations.push(called(event, place));
            }
            (EventKind::Invoke, Thread::Calling(open)) => {
                let open = operations[*open].index;
                return Err(malformed(
                    event,
                    format!("calls while its call {open} has no answer"),
                ));
            }
            (_, Thread::Calling(open)) => {
                answer(&mut operations[*open], event, place)?;
                *thread = match event.kind {
                    EventKind::Info => Thread::Ended { index: event.index },
                    _ => Thread::Idle,
                };
            }
            (_, Thread::Idle) => return Err(malformed(event, "an answer without a call".into())),
            (_, Thread::Ended { index }) => {
                let reason = format!(
                    "the process ended with the unknown outcome {index}; expected a new process number"
                );
                return Err(malformed(event, reason));
            }
        }
    }
    Ok(operations)
}

fn order(before: Option<&Event>, event: &Event) -> Result<(), Malformed> {
    let Some(before) = before else { return Ok(()) };
    if event.index <= before.index {
        let reason = format!("its index follows {}; expected a higher one", before.index);
        return Err(malformed(event, reason));
    }
    if event.time_ns < before.time_ns {
        let reason = format!(
            "its time {} follows {}: time goes back",
            event.time_ns, before.time_ns
        );
        return Err(malformed(event, reason));
    }
    Ok(())
}

fn called(event: &Event, place: usize) -> Operation {
    Operation {
        index: event.index,
        process: event.process,
        called_at: place,
        answered_at: None,
        outcome: Outcome::Unknown,
        action: event.action.clone(),
        condition: event.condition.clone(),
        version: None,
        lifetime: event.lifetime,
        expires: None,
        clock: None,
        failed_step: None,
    }
}

/// A further answer to a call. Where nobody knew the outcome it is the first, and takes effect at its place; whether it
/// agrees with an earlier one is for a checker to say.
fn answer_again(
    operations: &mut [Operation],
    call: u64,
    event: &Event,
    place: usize,
) -> Result<(), Malformed> {
    let called = operations.binary_search_by_key(&call, |operation| operation.index);
    let Ok(called) = called else {
        return Err(malformed(
            event,
            format!("answers the call {call}, which there is not"),
        ));
    };
    if matches!(event.kind, EventKind::Invoke | EventKind::Info) {
        return Err(malformed(event, "a further answer is :ok or :fail".into()));
    }
    let operation = &mut operations[called];
    if !answers(&operation.action, &event.action) {
        let reason = format!("answers something other than its call {call}");
        return Err(malformed(event, reason));
    }
    match operation.outcome {
        Outcome::Unknown => answer(operation, event, place),
        _ => Ok(()),
    }
}

fn answer(operation: &mut Operation, event: &Event, place: usize) -> Result<(), Malformed> {
    if !answers(&operation.action, &event.action) {
        let reason = format!("answers something other than its call {}", operation.index);
        return Err(malformed(event, reason));
    }
    if event.condition != Condition::None && event.condition != operation.condition {
        let reason = format!("its condition differs from that of its call {}", operation.index);
        return Err(malformed(event, reason));
    }
    operation.clock = event.clock;
    operation.failed_step = event.failed_step;
    match event.kind {
        EventKind::Ok => {
            operation.outcome = Outcome::Ok;
            operation.action = with_arguments(&operation.action, &event.action);
            operation.version = event.version;
            operation.expires = event.expires;
        }
        EventKind::Fail if event.failure == Some(Failure::Condition) => {
            if !can_refuse(operation) {
                return Err(malformed(
                    event,
                    "refused for a condition, but its call had none".into(),
                ));
            }
            operation.outcome = Outcome::Refused;
            operation.version = event.version;
        }
        EventKind::Fail if adds(operation) && event.failure == Some(Failure::NotANumber) => {
            operation.outcome = Outcome::NotANumber;
        }
        EventKind::Fail if adds(operation) && event.failure == Some(Failure::Overflow) => {
            operation.outcome = Outcome::Overflow;
        }
        EventKind::Fail => operation.outcome = Outcome::Failed,
        EventKind::Info | EventKind::Invoke => return Ok(()),
    }
    operation.answered_at = Some(place);
    Ok(())
}

fn adds(operation: &Operation) -> bool {
    matches!(operation.action, Action::Add { .. })
}

fn can_refuse(operation: &Operation) -> bool {
    let step_has_condition = |step: &Step| step.condition != Condition::None;
    match &operation.action {
        Action::CompareAndSet { .. } => true,
        Action::Transaction { steps, .. } => steps.iter().any(step_has_condition),
        _ => operation.condition != Condition::None,
    }
}

/// The answer's action; of its steps, conditions and lifetimes are those of the call.
fn with_arguments(call: &Action, answer: &Action) -> Action {
    let mut action = answer.clone();
    if let (Action::Transaction { steps: asked, .. }, Action::Transaction { steps, .. }) = (call, &mut action)
    {
        for (step, asked) in steps.iter_mut().zip(asked) {
            step.condition = asked.condition.clone();
            step.lifetime = asked.lifetime;
        }
    }
    action
}

/// True when `answer` is about what `call` asked: the same function, key and arguments.
fn answers(call: &Action, answer: &Action) -> bool {
    match (call, answer) {
        (Action::Read { key, .. }, Action::Read { key: other, .. }) => key == other,
        (
            Action::Add { key, delta, .. },
            Action::Add {
                key: other,
                delta: other_delta,
                ..
            },
        ) => key == other && delta == other_delta,
        (Action::Transaction { steps, scan }, Action::Transaction { steps: others, .. }) => {
            scan.is_some()
                || (steps.len() == others.len()
                    && steps
                        .iter()
                        .zip(others)
                        .all(|(step, other)| match (&step.action, &other.action) {
                            (StepAction::Read { key, .. }, StepAction::Read { key: other, .. }) => {
                                key == other
                            }
                            (
                                StepAction::Add { key, delta, .. },
                                StepAction::Add {
                                    key: other,
                                    delta: other_delta,
                                    ..
                                },
                            ) => key == other && delta == other_delta,
                            (step, other) => step == other,
                        }))
        }
        (call, answer) => call == answer,
    }
}

fn malformed(event: &Event, reason: String) -> Malformed {
    Malformed {
        index: event.index,
        process: event.process,
        reason,
    }
}
