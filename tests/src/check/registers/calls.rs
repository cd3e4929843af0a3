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

/// What must hold of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    Nothing,
    Absent,
    Present,
    Version(u64),
    Holds(Cell),
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Read(Cell),
    Write {
        value: Cell,
        guard: Guard,
    },
    CompareAndSet {
        old: Cell,
        new: Cell,
    },
    Delete {
        guard: Guard,
    },
    Add {
        delta: i64,
        result: Option<i64>,
        guard: Guard,
    },
    /// A condition that held.
    Held(Guard),
    /// A condition that did not hold.
    Refused(Guard),
    /// A compare-and-set that found another value than this.
    RefusedOld(Cell),
    /// An addition that found something else than a number.
    NoNumber,
    /// An addition whose sum would not have been a number.
    NoSum {
        delta: i64,
    },
}

/// One call that was or may have been done.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) effect: Effect,
    /// Version read, assigned or found; 0 is an absent key.
    pub(super) version: Option<u64>,
    /// How long what it leaves stays, on the scale of versions; none is for ever.
    pub(super) lifetime: Option<u64>,
    /// What a read was told of the expiry; 0 is never.
    pub(super) expires: Option<u64>,
    /// The clock by which it was decided lay between these, as far as the answer tells.
    told_clock: Option<(u64, u64)>,
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
            Effect::Read(_)
                | Effect::Held(_)
                | Effect::Refused(_)
                | Effect::RefusedOld(_)
                | Effect::NoNumber
                | Effect::NoSum { .. }
        )
    }

    /// What must have held for it, or what did not.
    pub(super) fn guard(&self) -> Guard {
        match self.effect {
            Effect::Write { guard, .. }
            | Effect::Delete { guard }
            | Effect::Add { guard, .. }
            | Effect::Held(guard)
            | Effect::Refused(guard) => guard,
            _ => Guard::Nothing,
        }
    }

    /// The clock by which it was decided lies between these. A write is decided at its version.
    pub(super) fn clock(&self) -> (u64, u64) {
        match self.version {
            Some(version) if version > 0 && !self.observes() => (version, version),
            _ => self.told_clock.unwrap_or((0, u64::MAX)),
        }
    }

    /// True if its answer or its condition names a version of a key that is there.
    fn tells_version(&self) -> bool {
        let asked = matches!(self.guard(), Guard::Version(version) if version > 0);
        asked || self.version.is_some_and(|version| version > 0)
    }

    /// What the key holds after it, where the call alone decides that.
    pub(super) fn leaves(&self) -> Option<Cell> {
        match self.effect {
            Effect::Write { value, .. } => Some(value),
            Effect::CompareAndSet { new, .. } => Some(new),
            Effect::Delete { .. } => Some(Cell::Absent),
            Effect::Add { result, .. } => result.map(Cell::Integer),
            _ => None,
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
                (Outcome::Unknown, Effect::Read(_) | Effect::Held(_)) | (Outcome::Failed, _) => None,
                (Outcome::Unknown, Effect::Add { delta, guard, .. }) => Some(Effect::Add {
                    delta,
                    result: None,
                    guard,
                }),
                (Outcome::Ok | Outcome::Unknown, asked) => Some(asked),
                (Outcome::Refused, Effect::CompareAndSet { old, .. }) => Some(Effect::RefusedOld(old)),
                (Outcome::Refused, _) => Some(Effect::Refused(cells.guard(&operation.condition))),
                (Outcome::NotANumber, _) => Some(Effect::NoNumber),
                (Outcome::Overflow, Effect::Add { delta, .. }) => Some(Effect::NoSum { delta }),
                (Outcome::Overflow, _) => None,
            };
            let call = |effect| Call {
                effect,
                version: operation.version.map(|version| version.0),
                lifetime: operation.lifetime,
                expires: operation.expires,
                told_clock: operation.clock,
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

    fn guard(&mut self, condition: &Condition) -> Guard {
        match condition {
            Condition::None => Guard::Nothing,
            Condition::Absent => Guard::Absent,
            Condition::Present => Guard::Present,
            Condition::Version(version) => Guard::Version(version.0),
            Condition::Value(value) => Guard::Holds(self.cell(Some(value))),
        }
    }

    fn effect(&mut self, operation: &Operation) -> Effect {
        let guard = self.guard(&operation.condition);
        match &operation.action {
            Action::Read { value, .. } => Effect::Read(self.cell(value.as_ref())),
            Action::Write { value, .. } => Effect::Write {
                value: self.cell(Some(value)),
                guard,
            },
            Action::CompareAndSet { old, new, .. } => Effect::CompareAndSet {
                old: self.cell(old.as_ref()),
                new: self.cell(Some(new)),
            },
            Action::Delete { .. } => Effect::Delete { guard },
            Action::Add { delta, result, .. } => Effect::Add {
                delta: *delta,
                result: *result,
                guard,
            },
            Action::Check { .. } => Effect::Held(guard),
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
        Action::Check { .. } => "check".into(),
        Action::Transaction { .. } => "transaction".into(),
    };
    let condition = match &operation.condition {
        Condition::None => String::new(),
        Condition::Absent => " if absent".into(),
        Condition::Present => " if present".into(),
        Condition::Version(version) => format!(" if version {version}"),
        Condition::Value(value) => format!(" if it is {value}"),
    };
    let outcome = match operation.outcome {
        Outcome::Ok | Outcome::Unknown => "",
        Outcome::NotANumber => ", refused because there is no number",
        Outcome::Overflow => ", refused because the sum is no number",
        Outcome::Failed => ", failed",
        Outcome::Refused => ", refused for its condition",
    };
    let lifetime = operation
        .lifetime
        .map_or_else(String::new, |lifetime| format!(" for {lifetime}"));
    let expires = match operation.expires {
        None | Some(0) => String::new(),
        Some(expires) => format!(" until {expires}"),
    };
    format!("{what}{lifetime}{expires}{condition}{outcome}")
}
