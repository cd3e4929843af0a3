//! The transactions of a history with numbers in place of keys, and every key's steps in one place.
//!
//! A single-key operation becomes a transaction: a read one read; a write, delete or addition one write, after a read
//! if its condition tells what was there; a compare-and-set a read and a write; a check what its condition
//! tells. Steps
//! with conditions become the same. A scan gets a read of nothing for each key of the history that lies in its
//! range and
//! that it did not return.

use std::collections::{BTreeMap, BTreeSet};

use super::super::history::{
    Action, Condition, Datum, KeyRange, Malformed, Observed, Operation, Outcome, Process, Step, StepAction,
    Version,
};

/// What a step does, at a key known from elsewhere.
#[derive(Clone, Debug)]
pub(super) enum Deed {
    /// Read this; `by_range` if the key was not named but lies in the range of a scan.
    Read {
        seen: Observed,
        by_range: bool,
    },
    /// Read a version without seeing its value: a condition that held.
    Matched,
    Append(Datum),
    Write(Option<Datum>),
    /// Wrote a number that nobody was told: the sum of an addition.
    WriteSum,
}

/// One step.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: usize,
    pub(super) deed: Deed,
    pub(super) version: Option<Version>,
    /// What was written may be gone by itself some day.
    pub(super) may_expire: bool,
}

/// A transaction.
#[derive(Clone, Debug)]
pub(super) struct Transaction {
    pub(super) index: u64,
    pub(super) process: Process,
    pub(super) called_at: usize,
    /// None if the outcome is unknown.
    pub(super) answered_at: Option<usize>,
    pub(super) entries: Vec<Entry>,
}

/// How a key is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Untouched,
    List,
    Register,
}

/// All transactions that were or may have been done, and those that were not.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) keys: Vec<Datum>,
    pub(super) uses: Vec<Use>,
    /// Done or of unknown outcome. The reads of the latter tell nothing and are left out.
    pub(super) transactions: Vec<Transaction>,
    /// Not done.
    pub(super) failed: Vec<Transaction>,
}

impl Table {
    /// Takes over operations.
    ///
    /// # Errors
    /// A key that is a list to one transaction and a register to another.
    pub(super) fn new(operations: &[Operation]) -> Result<Table, Malformed> {
        let mut numbers = BTreeMap::new();
        for operation in operations {
            for_each_key(&operation.action, |key| {
                numbers.entry(key.clone()).or_insert(0_usize);
            });
        }
        for (number, slot) in numbers.values_mut().enumerate() {
            *slot = number;
        }
        let mut table = Table {
            uses: vec![Use::Untouched; numbers.len()],
            keys: numbers.keys().cloned().collect(),
            transactions: Vec::new(),
            failed: Vec::new(),
        };
        let mut elements = BTreeSet::new();
        for operation in operations {
            unique_elements(operation, &mut elements)?;
            table.take(operation, &numbers)?;
        }
        Ok(table)
    }

    /// A transaction's name in explanations.
    pub(super) fn name(&self, transaction: usize) -> String {
        format!("T{}", self.transactions[transaction].index)
    }

    fn take(&mut self, operation: &Operation, numbers: &BTreeMap<Datum, usize>) -> Result<(), Malformed> {
        let (steps, scan) = steps_of(operation);
        let known = operation.outcome == Outcome::Ok;
        let mut entries = Vec::with_capacity(steps.len());
        for (step, matched) in steps {
            let key = numbers[step.key()];
            self.note_use(operation, key, &step.action)?;
            let deed = match step.action {
                StepAction::Append { element, .. } => Deed::Append(element),
                StepAction::Write { value, .. } => Deed::Write(value),
                StepAction::Add { result, .. } => match result.filter(|_| known) {
                    Some(sum) => Deed::Write(Some(Datum::Integer(sum))),
                    None => Deed::WriteSum,
                },
                StepAction::Check { .. } => continue,
                StepAction::Read { .. } if !known => continue,
                StepAction::Read { .. } if matched => Deed::Matched,
                StepAction::Read { value, .. } => Deed::Read {
                    seen: value,
                    by_range: false,
                },
            };
            entries.push(Entry {
                key,
                deed,
                version: step.version,
                may_expire: step.lifetime.is_some(),
            });
        }
        if let (Some(range), true) = (scan, known) {
            self.add_missing(&range, &mut entries);
        }
        let transaction = Transaction {
            index: operation.index,
            process: operation.process,
            called_at: operation.called_at,
            answered_at: operation.answered_at,
            entries,
        };
        match operation.outcome {
            Outcome::Ok | Outcome::Unknown => self.transactions.push(transaction),
            Outcome::Failed | Outcome::Refused | Outcome::NotANumber | Outcome::Overflow => {
                self.failed.push(transaction);
            }
        }
        Ok(())
    }

    /// A read of nothing for each key in the range that has no read yet. A key that the transaction wrote
    /// itself is left out: the order of scan and write is not known.
    fn add_missing(&self, range: &KeyRange, entries: &mut Vec<Entry>) {
        let start = range
            .start
            .as_ref()
            .map_or(0, |start| self.keys.partition_point(|key| key < start));
        let mut named: Vec<usize> = entries.iter().map(|entry| entry.key).collect();
        named.sort_unstable();
        let inside = (start..self.keys.len()).take_while(|key| range.contains(&self.keys[*key]));
        entries.extend(
            inside
                .filter(|key| named.binary_search(key).is_err())
                .map(|key| Entry {
                    key,
                    deed: Deed::Read {
                        seen: Observed::Nothing,
                        by_range: true,
                    },
                    version: None,
                    may_expire: false,
                }),
        );
    }

    fn note_use(&mut self, operation: &Operation, key: usize, action: &StepAction) -> Result<(), Malformed> {
        let now = match action {
            StepAction::Append { .. } => Use::List,
            StepAction::Write { .. } | StepAction::Add { .. } => Use::Register,
            StepAction::Check { .. } => return Ok(()),
            StepAction::Read { value, .. } => match value {
                Observed::Nothing => return Ok(()),
                Observed::Value(_) => Use::Register,
                Observed::List(_) => Use::List,
            },
        };
        let before = std::mem::replace(&mut self.uses[key], now);
        if before != Use::Untouched && before != now {
            let reason = format!("key {} is a list here and a register elsewhere", self.keys[key]);
            return Err(unfit(operation, reason));
        }
        Ok(())
    }
}

/// Refuses an element that was appended to its key before: a read of it would not tell whose it is.
fn unique_elements<'o>(
    operation: &'o Operation,
    elements: &mut BTreeSet<(&'o Datum, &'o Datum)>,
) -> Result<(), Malformed> {
    let Action::Transaction { steps, .. } = &operation.action else {
        return Ok(());
    };
    for step in steps {
        if let StepAction::Append { key, element } = &step.action
            && !elements.insert((key, element))
        {
            let reason = format!("appends {element} to key {key}, as another does; elements must be unique");
            return Err(unfit(operation, reason));
        }
    }
    Ok(())
}

fn unfit(operation: &Operation, reason: String) -> Malformed {
    Malformed {
        index: operation.index,
        process: operation.process,
        reason,
    }
}

fn for_each_key(action: &Action, mut take: impl FnMut(&Datum)) {
    match action {
        Action::Read { key, .. }
        | Action::Write { key, .. }
        | Action::CompareAndSet { key, .. }
        | Action::Delete { key }
        | Action::Add { key, .. }
        | Action::Check { key } => take(key),
        Action::Transaction { steps, .. } => steps.iter().for_each(|step| take(step.key())),
    }
}

/// Steps, each with whether it only matched a version.
type Steps = Vec<(Step, bool)>;

/// The steps of an operation, and the range that it scanned.
fn steps_of(operation: &Operation) -> (Steps, Option<KeyRange>) {
    let single = |action: StepAction| Step {
        version: operation.version,
        condition: operation.condition.clone(),
        lifetime: operation.lifetime,
        ..Step::new(action)
    };
    let steps = match &operation.action {
        Action::Transaction { steps, scan } => {
            return (steps.iter().flat_map(guarded).collect(), scan.clone());
        }
        Action::Read { key, value } => vec![(seen(key, value.as_ref(), operation.version), false)],
        Action::CompareAndSet { key, old, new } => {
            let write = StepAction::Write {
                key: key.clone(),
                value: Some(new.clone()),
            };
            vec![(seen(key, old.as_ref(), None), false), (single(write), false)]
        }
        Action::Write { key, value } => guarded(&single(StepAction::Write {
            key: key.clone(),
            value: Some(value.clone()),
        })),
        Action::Delete { key } => guarded(&single(StepAction::Write {
            key: key.clone(),
            value: None,
        })),
        Action::Add { key, delta, result } => guarded(&single(StepAction::Add {
            key: key.clone(),
            delta: *delta,
            result: *result,
        })),
        Action::Check { key } => guarded(&single(StepAction::Check { key: key.clone() })),
    };
    (steps, None)
}

/// A step, after a read if its condition tells what was there.
fn guarded(step: &Step) -> Steps {
    let key = step.key();
    let read = match &step.condition {
        Condition::None | Condition::Present => None,
        Condition::Absent | Condition::Version(Version::ABSENT) => Some((seen(key, None, None), false)),
        Condition::Version(version) => Some((seen(key, None, Some(*version)), true)),
        Condition::Value(value) => Some((seen(key, Some(value), None), false)),
    };
    read.into_iter().chain([(step.clone(), false)]).collect()
}

fn seen(key: &Datum, value: Option<&Datum>, version: Option<Version>) -> Step {
    Step {
        version,
        ..Step::new(StepAction::Read {
            key: key.clone(),
            value: value.map_or(Observed::Nothing, |value| Observed::Value(value.clone())),
        })
    }
}
