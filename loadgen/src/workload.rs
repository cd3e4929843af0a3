//! The YCSB core workloads A, B, C and F: which operations, in which proportions.
//!
//! Source: Cooper, Silberstein, Tam, Ramakrishnan, Sears: "Benchmarking Cloud Serving Systems with YCSB"
//! (`SoCC` 2010), table 2, and the `workload{a,b,c,f}` files of the project. All four choose records by the
//! zipfian distribution and read whole records. One thing differs here, because a value is one blob: an
//! update writes the whole value, where YCSB by default writes one field of ten.

use crate::random::Random;

/// What the driver is asked to do with one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationKind {
    /// Write a record for the first time (load phase).
    Insert,
    /// Read the whole record.
    Read,
    /// Write the whole record.
    Update,
    /// Read the record, then, once it is answered, write it: two requests, as YCSB does it, not one atomic
    /// step.
    ReadModifyWrite,
}

/// A YCSB core workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// Update heavy: 50 % reads, 50 % updates.
    A,
    /// Read mostly: 95 % reads, 5 % updates.
    B,
    /// Read only.
    C,
    /// Read-modify-write: 50 % reads, 50 % read-modify-writes.
    F,
}

impl Workload {
    /// Share of plain reads; the rest is [`Self::other_kind`].
    fn read_share(self) -> f64 {
        match self {
            Self::A | Self::F => 0.5,
            Self::B => 0.95,
            Self::C => 1.0,
        }
    }

    fn other_kind(self) -> OperationKind {
        match self {
            Self::F => OperationKind::ReadModifyWrite,
            Self::A | Self::B | Self::C => OperationKind::Update,
        }
    }

    /// The kind of the next operation of the run phase.
    pub fn next_kind(self, random: &mut Random) -> OperationKind {
        if random.next_unit() < self.read_share() {
            OperationKind::Read
        } else {
            self.other_kind()
        }
    }

    /// The letter that YCSB gives it.
    pub fn letter(self) -> char {
        match self {
            Self::A => 'A',
            Self::B => 'B',
            Self::C => 'C',
            Self::F => 'F',
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(workload: Workload) -> (f64, f64, f64) {
        let mut random = Random::new(1);
        let draws = 200_000;
        let (mut reads, mut updates, mut modifies) = (0, 0, 0);
        for _ in 0..draws {
            match workload.next_kind(&mut random) {
                OperationKind::Read => reads += 1,
                OperationKind::Update => updates += 1,
                OperationKind::ReadModifyWrite => modifies += 1,
                OperationKind::Insert => panic!("the run phase never inserts"),
            }
        }
        let share = |count: i32| f64::from(count) / f64::from(draws);
        (share(reads), share(updates), share(modifies))
    }

    #[test]
    fn proportions_are_those_of_ycsb() {
        for (workload, expected) in [
            (Workload::A, (0.5, 0.5, 0.0)),
            (Workload::B, (0.95, 0.05, 0.0)),
            (Workload::C, (1.0, 0.0, 0.0)),
            (Workload::F, (0.5, 0.0, 0.5)),
        ] {
            let found = shares(workload);
            let near = |found: f64, expected: f64| (found - expected).abs() < 0.005;
            assert!(
                near(found.0, expected.0) && near(found.1, expected.1) && near(found.2, expected.2),
                "{workload:?}: {found:?}"
            );
        }
    }
}
