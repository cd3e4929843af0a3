//! The operations of one key in the form that the search works on: small numbers instead of keys and values.
//!
//! Left out is what cannot matter: failed operations (they did nothing; [`Calls::failed`] keeps the values that
//! they would have written) and reads without an answer.

use std::collections::BTreeMap;

use super::super::history::{Action, Condition, Datum, Operation, Outcome};

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Cell {
    Absent,
    Integer(i64),
    /// Number of the bytes in the key's table.
    Bytes(u32),
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Read(Cell),
    Write {
        value: Cell,
        condition: Condition,
    },
    CompareAndSet {
        old: Cell,
        new: Cell,
    },
    Delete {
        condition: Condition,
    },
    Add {
        delta: i64,
        result: Option<i64>,
    },
    /// A write or delete whose condition did not hold.
    RefusedCondition(Condition),
    /// A compare-and-set that found another value than this.
    RefusedOld(Cell),
}

/// One call that was or may have been done.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) effect: Effect,
    /// Version read, assigned or found; 0 is an absent key.
    pub(super) version: Option<u64>,
    /// Place of the call among all events.
    pub(super) called_at: usize,
    /// Place of the answer; none if the outcome is unknown.
    pub(super) answered_at: Option<usize>,
    /// For people: who did what.
    pub(super) index: u64,
    process: u64,
    shown: String,
}

impl Call {
    /// True if it cannot change the key.
    pub(super) fn observes(&self) -> bool {
        matches!(
            self.effect,
            Effect::Read(_) | Effect::RefusedCondition(_) | Effect::RefusedOld(_)
        )
    }

    /// True if its answer or its condition names a version of a key that is there.
    fn tells_version(&self) -> bool {
        let condition = match self.effect {
            Effect::Write { condition, .. }
            | Effect::Delete { condition }
            | Effect::RefusedCondition(condition) => condition,
            _ => Condition::None,
        };
        let asked = matches!(condition, Condition::Version(version) if version.0 > 0);
        asked || self.version.is_some_and(|version| version > 0)
    }

    /// What the key holds after it, where the call alone decides that.
    pub(super) fn leaves(&self) -> Option<Cell> {
        match self.effect {
            Effect::Write { value, .. } => Some(value),
            Effect::CompareAndSet { new, .. } => Some(new),
            Effect::Delete { .. } => Some(Cell::Absent),
            Effect::Add { result, .. } => result.map(Cell::Integer),
            Effect::Read(_) | Effect::RefusedCondition(_) | Effect::RefusedOld(_) => None,
        }
    }

    /// What the call found the key to hold, if it tells.
    pub(super) fn sees(&self) -> Option<Cell> {
        match self.effect {
            Effect::Read(cell) => Some(cell),
            Effect::CompareAndSet { old, .. } if self.answered_at.is_some() => Some(old),
            _ => None,
        }
    }

    /// True if this call was answered before the other was made.
    pub(super) fn precedes(&self, other: &Call) -> bool {
        self.answered_at
            .is_some_and(|answered_at| answered_at < other.called_at)
    }

    /// The call in words: `[12] process 3: write "b" (version 7)`.
    pub(super) fn show(&self) -> String {
        let version = self
            .version
            .map_or_else(String::new, |version| format!(" (version {version})"));
        let unknown = if self.answered_at.is_none() {
            ", outcome unknown"
        } else {
            ""
        };
        format!(
            "[{}] process {}: {}{version}{unknown}",
            self.index, self.process, self.shown
        )
    }
}

/// All calls of one key, in the order in which they were made.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    pub(super) all: Vec<Call>,
    /// Values that failed or refused writes would have left, with the write in words.
    pub(super) failed: Vec<(Cell, String)>,
    /// True if any version is known.
    pub(super) versioned: bool,
    texts: Vec<Datum>,
}

impl Calls {
    /// Takes over the operations of one key.
    pub(super) fn new(operations: &[&Operation]) -> Calls {
        let mut cells = Cells::default();
        let mut all = Vec::with_capacity(operations.len());
        let mut failed = Vec::new();
        for operation in operations {
            let asked = cells.effect(operation);
            let effect = match (&operation.outcome, asked) {
                (Outcome::Unknown, Effect::Read(_)) | (Outcome::Failed, _) => None,
                (Outcome::Unknown, Effect::Add { delta, .. }) => Some(Effect::Add { delta, result: None }),
                (Outcome::Ok | Outcome::Unknown, asked) => Some(asked),
                (Outcome::Refused, Effect::CompareAndSet { old, .. }) => Some(Effect::RefusedOld(old)),
                (Outcome::Refused, _) => Some(Effect::RefusedCondition(operation.condition)),
            };
            let call = |effect| Call {
                effect,
                version: operation.version.map(|version| version.0),
                called_at: operation.called_at,
                answered_at: operation.answered_at,
                index: operation.index,
                process: operation.process.0,
                shown: show(operation),
            };
            if matches!(operation.outcome, Outcome::Failed | Outcome::Refused)
                && let Some(cell) = call(asked).leaves()
            {
                failed.push((cell, call(asked).show()));
            }
            all.extend(effect.map(call));
        }
        Calls {
            versioned: all.iter().any(Call::tells_version),
            all,
            failed,
            texts: cells.texts,
        }
    }

    /// A cell in words.
    pub(super) fn show(&self, cell: Cell) -> String {
        match cell {
            Cell::Absent => "nothing".into(),
            Cell::Integer(number) => number.to_string(),
            Cell::Bytes(number) => self.texts[number as usize].to_string(),
        }
    }
}

/// Numbers for the byte values of one key.
#[derive(Default)]
struct Cells {
    numbers: BTreeMap<Datum, u32>,
    texts: Vec<Datum>,
}

impl Cells {
    fn cell(&mut self, value: Option<&Datum>) -> Cell {
        match value {
            None => Cell::Absent,
            Some(Datum::Integer(number)) => Cell::Integer(*number),
            Some(bytes) => {
                let next = self.texts.len() as u32;
                let number = *self.numbers.entry(bytes.clone()).or_insert(next);
                if number == next {
                    self.texts.push(bytes.clone());
                }
                Cell::Bytes(number)
            }
        }
    }

    fn effect(&mut self, operation: &Operation) -> Effect {
        let condition = operation.condition;
        match &operation.action {
            Action::Read { value, .. } => Effect::Read(self.cell(value.as_ref())),
            Action::Write { value, .. } => Effect::Write {
                value: self.cell(Some(value)),
                condition,
            },
            Action::CompareAndSet { old, new, .. } => Effect::CompareAndSet {
                old: self.cell(old.as_ref()),
                new: self.cell(Some(new)),
            },
            Action::Delete { .. } => Effect::Delete { condition },
            Action::Add { delta, result, .. } => Effect::Add {
                delta: *delta,
                result: *result,
            },
            Action::Transaction { .. } => unreachable!("transactions are told apart before"),
        }
    }
}

fn show(operation: &Operation) -> String {
    let what = match &operation.action {
        Action::Read {
            value: Some(value), ..
        } => format!("read {value}"),
        Action::Read { value: None, .. } => "read nothing".into(),
        Action::Write { value, .. } => format!("write {value}"),
        Action::CompareAndSet { old, new, .. } => {
            let old = old.as_ref().map_or_else(|| "nothing".into(), Datum::to_string);
            format!("compare {old} and set {new}")
        }
        Action::Delete { .. } => "delete".into(),
        Action::Add { delta, result, .. } => match result {
            Some(result) => format!("add {delta} giving {result}"),
            None => format!("add {delta}"),
        },
        Action::Transaction { .. } => "transaction".into(),
    };
    let condition = match operation.condition {
        Condition::None => String::new(),
        Condition::Absent => " if absent".into(),
        Condition::Present => " if present".into(),
        Condition::Version(version) => format!(" if version {version}"),
    };
    let outcome = match operation.outcome {
        Outcome::Ok | Outcome::Unknown => "",
        Outcome::Failed => ", failed",
        Outcome::Refused => ", refused for its condition",
    };
    format!("{what}{condition}{outcome}")
}
