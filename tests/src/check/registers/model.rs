//! A register, one step at a time: which calls are possible now, and what the key is afterwards.
//!
//! What was written for a while is gone by itself from some moment on: a call may find it gone when the clock by which
//! the call was decided can have reached the expiry, and must if it certainly has. Once found gone, it stays gone, and
//! the clock has reached the expiry for good: nothing is decided by an earlier one until the key is written.
//!
//! Versions may be known in part. `floor` is the lowest number that the newest version can have; a write of
//! unknown version raises it by one, and the first read of such a write fixes it. Every rule refuses only what
//! is impossible.

use super::calls::{Call, Cell, Effect, Guard};

/// When what is there is gone by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Expiry {
    Never,
    At(u64),
    /// So long after its version, which is not known.
    After(u64),
    /// At some moment, of which nothing is known.
    Some,
}

/// What a key is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) cell: Cell,
    /// The version of what is there, if known; none for an absent key.
    pub(super) version: Option<u64>,
    floor: u64,
    /// Of an absent key, the expiry that made it absent, if any is known.
    pub(super) expiry: Expiry,
}

impl State {
    /// A key that was never written.
    pub(super) const START: State = State {
        cell: Cell::Absent,
        version: None,
        floor: 0,
        expiry: Expiry::Never,
    };

    /// The states after `call`, none for what cannot have had its answer here: the first if what is there has not
    /// expired by then, the second if it has. `follow_versions`: whether any version of the key is known.
    pub(super) fn steps(self, call: &Call, follow_versions: bool) -> [Option<State>; 2] {
        let (from, to) = call.clock();
        if self.cell == Cell::Absent {
            let is_before = matches!(self.expiry, Expiry::At(moment) if to < moment);
            return [
                if is_before {
                    None
                } else {
                    self.step(call, follow_versions)
                },
                None,
            ];
        }
        let mut present = self;
        let (must, may) = match self.expiry {
            Expiry::Never => (false, false),
            Expiry::At(moment) => (moment <= from, moment <= to),
            Expiry::After(lifetime) => {
                // If it is there, its version is recent enough.
                present.floor = self.floor.max((from + 1).saturating_sub(lifetime));
                (false, self.floor.saturating_add(lifetime) <= to)
            }
            Expiry::Some => (false, true),
        };
        let as_it_is = if must {
            None
        } else {
            present.step(call, follow_versions)
        };
        let expired = State {
            cell: Cell::Absent,
            version: None,
            expiry: match self.expiry {
                Expiry::At(moment) => Expiry::At(moment),
                _ => Expiry::Never,
            },
            ..self
        };
        let after_expiry = if may {
            expired.step(call, follow_versions)
        } else {
            None
        };
        [as_it_is, after_expiry.filter(|after| Some(*after) != as_it_is)]
    }

    fn step(self, call: &Call, follow_versions: bool) -> Option<State> {
        let assigned = call.version;
        match call.effect {
            Effect::Read(seen) => (seen == self.cell)
                .then(|| self.found(assigned))??
                .told(call.expires),
            Effect::RefusedOld(old) => (old != self.cell).then(|| self.found(assigned))?,
            Effect::Held(guard) => self.with(guard)?.found(assigned),
            Effect::Refused(guard) => self.found(assigned)?.without(guard),
            Effect::NoNumber => matches!(self.cell, Cell::Bytes(_)).then_some(self),
            Effect::NoSum { delta } => self
                .number()
                .is_some_and(|base| base.checked_add(delta).is_none())
                .then_some(self),
            Effect::Write { value, guard } => {
                let written = self.with(guard)?.put(value, assigned, follow_versions)?;
                Some(written.lasting(call))
            }
            Effect::CompareAndSet { old, new } if old == self.cell => {
                let written = self.put(new, assigned, follow_versions)?;
                Some(written.lasting(call))
            }
            Effect::CompareAndSet { .. } => None,
            Effect::Delete { guard } => self.with(guard)?.delete(assigned, follow_versions),
            Effect::Add { delta, result, guard } => {
                let before = self.with(guard)?;
                let sum = before.number()?.checked_add(delta)?;
                if result.is_some_and(|result| result != sum) {
                    return None;
                }
                let after = before.put(Cell::Integer(sum), assigned, follow_versions)?;
                // What is there keeps its expiry.
                Some(match before.cell {
                    Cell::Absent => after.lasting(call),
                    _ => State {
                        expiry: match before.expiry {
                            Expiry::After(_) => Expiry::Some,
                            known => known,
                        },
                        ..after
                    },
                })
            }
        }
    }

    /// The number that an addition finds.
    fn number(self) -> Option<i64> {
        match self.cell {
            Cell::Absent => Some(0),
            Cell::Integer(number) => Some(number),
            Cell::Bytes(_) => None,
        }
    }

    /// The state that this call has just written, with its expiry.
    fn lasting(self, call: &Call) -> State {
        let expiry = match (call.lifetime, self.version) {
            (None, _) => Expiry::Never,
            (Some(lifetime), Some(version)) => Expiry::At(version.saturating_add(lifetime)),
            (Some(lifetime), None) => Expiry::After(lifetime),
        };
        State { expiry, ..self }
    }

    /// The state, given that a read was told this expiry.
    fn told(self, expires: Option<u64>) -> Option<State> {
        match (expires, self.expiry) {
            (None, _) => Some(self),
            (Some(0), _) if self.cell == Cell::Absent => Some(self),
            (Some(0), expiry) => (expiry == Expiry::Never).then_some(self),
            (Some(_), Expiry::Never) => None,
            (Some(told), Expiry::At(moment)) => (told == moment).then_some(self),
            (Some(told), Expiry::After(lifetime)) => self.found(Some(told.checked_sub(lifetime)?)),
            (Some(told), Expiry::Some) => Some(State {
                expiry: Expiry::At(told),
                ..self
            }),
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
                expiry: match self.expiry {
                    Expiry::After(lifetime) => Expiry::At(found.saturating_add(lifetime)),
                    known => known,
                },
                ..self
            }),
        }
    }

    /// The state, given that the condition holds.
    fn with(self, guard: Guard) -> Option<State> {
        match guard {
            Guard::Nothing => Some(self),
            Guard::Absent => (self.cell == Cell::Absent).then_some(self),
            Guard::Present => (self.cell != Cell::Absent).then_some(self),
            Guard::Version(version) => self.found(Some(version)),
            Guard::Holds(cell) => (self.cell == cell).then_some(self),
        }
    }

    /// The state, given that the condition does not hold.
    fn without(self, guard: Guard) -> Option<State> {
        let possible = match guard {
            Guard::Nothing => false,
            Guard::Absent | Guard::Version(0) => self.cell != Cell::Absent,
            Guard::Present => self.cell == Cell::Absent,
            Guard::Version(version) => self.cell == Cell::Absent || self.version != Some(version),
            Guard::Holds(cell) => self.cell != cell,
        };
        possible.then_some(self)
    }

    fn put(self, cell: Cell, assigned: Option<u64>, versioned: bool) -> Option<State> {
        match assigned {
            Some(version) if version > self.floor => Some(State {
                cell,
                version: Some(version),
                floor: version,
                expiry: Expiry::Never,
            }),
            Some(_) => None,
            None => Some(State {
                cell,
                version: None,
                floor: self.floor + u64::from(versioned),
                expiry: Expiry::Never,
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
