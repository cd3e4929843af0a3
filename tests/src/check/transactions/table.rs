//! The transactions of a history with numbers in place of keys, and every key's steps in one place.
//!
//! A single-key operation becomes a transaction: a read one read; a write or delete one write, after a read if
//! its condition tells what was there; a compare-and-set a read and a write. A scan gets a read of nothing for
//! each key of the history that lies in its range and that it did not return.

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
}

/// One step.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: usize,
    pub(super) deed: Deed,
    pub(super) version: Option<Version>,
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
    /// A key that is a list to one transaction and a register to another, or an addition.
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
        let (steps, scan) = steps_of(operation)?;
        let known = operation.outcome == Outcome::Ok;
        let mut entries = Vec::with_capacity(steps.len());
        for (step, matched) in steps {
            let key = numbers[step.key()];
            self.note_use(operation, key, &step.action)?;
            let deed = match step.action {
                StepAction::Append { element, .. } => Deed::Append(element),
                StepAction::Write { value, .. } => Deed::Write(value),
                StepAction::Read { .. } if !known => continue,
                StepAction::Read { .. } if matched => Deed::Matched,
                StepAction::Read { value, .. } => Deed::Read {
                    seen: value,
                    by_range: false,
                },
            };
            let version = step.version;
            entries.push(Entry { key, deed, version });
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
            Outcome::Failed | Outcome::Refused => self.failed.push(transaction),
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
                }),
        );
    }

    fn note_use(&mut self, operation: &Operation, key: usize, action: &StepAction) -> Result<(), Malformed> {
        let now = match action {
            StepAction::Append { .. } => Use::List,
            StepAction::Write { .. } => Use::Register,
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
        | Action::Add { key, .. } => take(key),
        Action::Transaction { steps, .. } => steps.iter().for_each(|step| take(step.key())),
    }
}

/// Steps, each with whether it only matched a version.
type Steps = Vec<(Step, bool)>;

/// The steps of an operation, and the range that it scanned.
fn steps_of(operation: &Operation) -> Result<(Steps, Option<KeyRange>), Malformed> {
    let seen = |key: &Datum, value: Option<&Datum>, version| Step {
        action: StepAction::Read {
            key: key.clone(),
            value: value.map_or(Observed::Nothing, |value| Observed::Value(value.clone())),
        },
        version,
    };
    let put = |key: &Datum, value: Option<&Datum>, version| Step {
        action: StepAction::Write {
            key: key.clone(),
            value: value.cloned(),
        },
        version,
    };
    let guarded = |key: &Datum, value: Option<&Datum>| {
        let wrote = (put(key, value, operation.version), false);
        match operation.condition {
            Condition::None | Condition::Present => vec![wrote],
            Condition::Absent => vec![(seen(key, None, None), false), wrote],
            Condition::Version(version) if version == Version::ABSENT => {
                vec![(seen(key, None, None), false), wrote]
            }
            Condition::Version(version) => vec![(seen(key, None, Some(version)), true), wrote],
        }
    };
    Ok(match &operation.action {
        Action::Transaction { steps, scan } => (
            steps.iter().map(|step| (step.clone(), false)).collect(),
            scan.clone(),
        ),
        Action::Read { key, value } => (vec![(seen(key, value.as_ref(), operation.version), false)], None),
        Action::Write { key, value } => (guarded(key, Some(value)), None),
        Action::Delete { key } => (guarded(key, None), None),
        Action::CompareAndSet { key, old, new } => {
            let both = [
                seen(key, old.as_ref(), None),
                put(key, Some(new), operation.version),
            ];
            (both.map(|step| (step, false)).into(), None)
        }
        Action::Add { .. } => {
            return Err(unfit(
                operation,
                "additions are judged key by key only, not as transactions".into(),
            ));
        }
    })
}
