//! A register, one step at a time: which calls are possible now, and what the key is afterwards.
//!
//! Versions may be known in part. `floor` is the lowest number that the newest version can have; a write of
//! unknown version raises it by one, and the first read of such a write fixes it. Every rule refuses only what
//! is impossible.

use super::super::history::Condition;
use super::calls::{Call, Cell, Effect};

/// What a key is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) cell: Cell,
    /// The version of what is there, if known; none for an absent key.
    pub(super) version: Option<u64>,
    floor: u64,
}

impl State {
    /// A key that was never written.
    pub(super) const START: State = State {
        cell: Cell::Absent,
        version: None,
        floor: 0,
    };

    /// The state after `call`, or none if the call cannot have had its answer here. `follow_versions`:
    /// whether any version of the key is known.
    pub(super) fn step(self, call: &Call, follow_versions: bool) -> Option<State> {
        let assigned = call.version;
        match call.effect {
            Effect::Read(seen) => (seen == self.cell).then(|| self.found(assigned))?,
            Effect::RefusedOld(old) => (old != self.cell).then(|| self.found(assigned))?,
            Effect::RefusedCondition(condition) => self.found(assigned)?.without(condition),
            Effect::Write { value, condition } => self.with(condition)?.put(value, assigned, follow_versions),
            Effect::CompareAndSet { old, new } if old == self.cell => {
                self.put(new, assigned, follow_versions)
            }
            Effect::CompareAndSet { .. } => None,
            Effect::Delete { condition } => self.with(condition)?.delete(assigned, follow_versions),
            Effect::Add { delta, result } => {
                let base = match self.cell {
                    Cell::Absent => 0,
                    Cell::Integer(number) => number,
                    Cell::Bytes(_) => return None,
                };
                let sum = base.checked_add(delta)?;
                let told = result.is_none_or(|result| result == sum);
                told.then(|| self.put(Cell::Integer(sum), assigned, follow_versions))?
            }
        }
    }

    /// The state, given that a call found this version.
    fn found(self, version: Option<u64>) -> Option<State> {
        match (version, self.version) {
            (None, _) => Some(self),
            (Some(0), _) => (self.cell == Cell::Absent).then_some(self),
            (Some(_), _) if self.cell == Cell::Absent => None,
            (Some(found), Some(known)) => (found == known).then_some(self),
            (Some(found), None) => (found >= self.floor).then_some(State {
                version: Some(found),
                floor: found,
                ..self
            }),
        }
    }

    /// The state, given that the condition holds.
    fn with(self, condition: Condition) -> Option<State> {
        match condition {
            Condition::None => Some(self),
            Condition::Absent => (self.cell == Cell::Absent).then_some(self),
            Condition::Present => (self.cell != Cell::Absent).then_some(self),
            Condition::Version(version) => self.found(Some(version.0)),
        }
    }

    /// The state, given that the condition does not hold.
    fn without(self, condition: Condition) -> Option<State> {
        let possible = match condition {
            Condition::None => false,
            Condition::Absent => self.cell != Cell::Absent,
            Condition::Present => self.cell == Cell::Absent,
            Condition::Version(version) if version.0 == 0 => self.cell != Cell::Absent,
            Condition::Version(version) => self.cell == Cell::Absent || self.version != Some(version.0),
        };
        possible.then_some(self)
    }

    fn put(self, cell: Cell, assigned: Option<u64>, versioned: bool) -> Option<State> {
        match assigned {
            Some(version) if version > self.floor => Some(State {
                cell,
                version: Some(version),
                floor: version,
            }),
            Some(_) => None,
            None => Some(State {
                cell,
                version: None,
                floor: self.floor + u64::from(versioned),
            }),
        }
    }

    /// A delete may be given a version of its own, or 0 where there was nothing to delete.
    fn delete(self, assigned: Option<u64>, versioned: bool) -> Option<State> {
        match (assigned, self.cell) {
            (Some(0) | None, Cell::Absent) => Some(self),
            (Some(0), _) => None,
            (assigned, _) => self.put(Cell::Absent, assigned, versioned).map(|state| State {
                version: None,
                ..state
            }),
        }
    }
}
