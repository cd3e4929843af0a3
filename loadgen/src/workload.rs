//! What the run phase does: the YCSB core workloads A to F, and mixes of one's own.
//!
//! Source: Cooper, Silberstein, Tam, Ramakrishnan, Sears: "Benchmarking Cloud Serving Systems with YCSB"
//! (`SoCC` 2010), table 2, and the `workload{a,…,f}` files of the project. One thing differs here, because a
//! value is one blob: an update writes the whole value, where YCSB by default writes one field of ten.

use std::fmt;
use std::str::FromStr;

use crate::distribution::Distribution;
use crate::random::Random;

/// What the driver is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationKind {
    /// Read the whole record.
    Read,
    /// Write the whole record.
    Update,
    /// Write a record for the first time: the load phase, and the records after the last one in the run phase.
    Insert,
    /// Read records in the order of their keys, from the key of the chosen record on.
    Scan,
    /// Read the record, then, once it is answered, write it: two requests, as YCSB does it, not one atomic
    /// step.
    ReadModifyWrite,
    /// Remove the record.
    Delete,
    /// Increment a counter by one.
    Add,
    /// Write the whole record so that it is absent again after a while.
    PutExpiring,
    /// Read several records in one request.
    MultiRead,
    /// Write several records in one request.
    MultiUpdate,
    /// Read records against the order of their keys, from the one before the chosen record on.
    ReverseScan,
}

impl OperationKind {
    /// In the order of [`Mix`].
    pub const ALL: [Self; 11] = [
        Self::Read,
        Self::Update,
        Self::Insert,
        Self::Scan,
        Self::ReadModifyWrite,
        Self::Delete,
        Self::Add,
        Self::PutExpiring,
        Self::MultiRead,
        Self::MultiUpdate,
        Self::ReverseScan,
    ];

    /// In `--mix`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Update => "update",
            Self::Insert => "insert",
            Self::Scan => "scan",
            Self::ReadModifyWrite => "rmw",
            Self::Delete => "delete",
            Self::Add => "add",
            Self::PutExpiring => "ttl",
            Self::MultiRead => "mget",
            Self::MultiUpdate => "mput",
            Self::ReverseScan => "rscan",
        }
    }

    /// Does it read records in an order of keys?
    pub fn is_scan(self) -> bool {
        matches!(self, Self::Scan | Self::ReverseScan)
    }

    /// Are there records that are absent after it?
    pub fn removes(self) -> bool {
        matches!(self, Self::Delete | Self::PutExpiring)
    }
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
    /// Read latest: 95 % reads, 5 % inserts; reads prefer what was inserted last.
    D,
    /// Short ranges: 95 % scans, 5 % inserts.
    E,
    /// Read-modify-write: 50 % reads, 50 % read-modify-writes.
    F,
}

impl Workload {
    /// Its operations.
    pub fn mix(self) -> Mix {
        let shares: &[(OperationKind, f64)] = match self {
            Self::A => &[(OperationKind::Read, 0.5), (OperationKind::Update, 0.5)],
            Self::B => &[(OperationKind::Read, 0.95), (OperationKind::Update, 0.05)],
            Self::C => &[(OperationKind::Read, 1.0)],
            Self::D => &[(OperationKind::Read, 0.95), (OperationKind::Insert, 0.05)],
            Self::E => &[(OperationKind::Scan, 0.95), (OperationKind::Insert, 0.05)],
            Self::F => &[(OperationKind::Read, 0.5), (OperationKind::ReadModifyWrite, 0.5)],
        };
        Mix::new(shares)
    }

    /// How it chooses records.
    pub fn distribution(self) -> Distribution {
        match self {
            Self::D => Distribution::Latest,
            Self::A | Self::B | Self::C | Self::E | Self::F => Distribution::Zipfian,
        }
    }

    /// The letter that YCSB gives it.
    pub fn letter(self) -> char {
        match self {
            Self::A => 'A',
            Self::B => 'B',
            Self::C => 'C',
            Self::D => 'D',
            Self::E => 'E',
            Self::F => 'F',
        }
    }
}

/// Which operations, in which proportions.
///
/// Invariant: the shares are in `[0, 1]` and add up to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mix {
    shares: [f64; OperationKind::ALL.len()],
}

impl Mix {
    /// Of weights, which are scaled to add up to 1.
    fn new(weights: &[(OperationKind, f64)]) -> Self {
        let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
        let mut shares = [0.0; OperationKind::ALL.len()];
        for (kind, weight) in weights {
            shares[*kind as usize] += weight / total;
        }
        Self { shares }
    }

    /// The part of the operations that is of this kind, from 0 to 1.
    pub fn share(&self, kind: OperationKind) -> f64 {
        self.shares[kind as usize]
    }

    /// Is there any operation of this kind?
    pub fn has(&self, kind: OperationKind) -> bool {
        self.share(kind) > 0.0
    }

    /// Is there any operation of which this holds?
    pub fn has_any(&self, holds: impl Fn(OperationKind) -> bool) -> bool {
        OperationKind::ALL
            .into_iter()
            .any(|kind| self.has(kind) && holds(kind))
    }

    /// The kind of the next operation.
    pub fn next_kind(&self, random: &mut Random) -> OperationKind {
        let mut rest = random.next_unit();
        let mut last = OperationKind::Read;
        for kind in OperationKind::ALL {
            let share = self.share(kind);
            if share > 0.0 {
                if rest < share {
                    return kind;
                }
                last = kind;
            }
            rest -= share;
        }
        // Rounding can leave a sliver behind the last share.
        last
    }
}

impl FromStr for Mix {
    type Err = String;

    /// Reads weights such as `read=80,update=15,insert=5`.
    fn from_str(text: &str) -> Result<Self, String> {
        let names = OperationKind::ALL.map(OperationKind::name).join(", ");
        let wrong = |what: &str| {
            format!(
                "{what} in the mix {text:?}; write KIND=WEIGHT,… such as read=80,update=20, with the kinds {names}"
            )
        };
        let mut weights: Vec<(OperationKind, f64)> = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').ok_or_else(|| wrong("a part without `=`"))?;
            let kind = { OperationKind::ALL.into_iter() }.find(|kind| kind.name() == name.trim());
            let kind = kind.ok_or_else(|| wrong(&format!("no operation is called {name:?}")))?;
            if weights.iter().any(|(other, _)| *other == kind) {
                return Err(wrong(&format!("{name} stands twice")));
            }
            let weight: f64 = weight
                .trim()
                .parse()
                .map_err(|_| wrong(&format!("{weight:?} is no number")))?;
            if !(0.0..=1e9).contains(&weight) {
                return Err(wrong(&format!("{weight} is no weight from 0 to 1e9")));
            }
            weights.push((kind, weight));
        }
        if weights.iter().all(|(_, weight)| *weight == 0.0) {
            return Err(wrong("only zeros"));
        }
        Ok(Self::new(&weights))
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = OperationKind::ALL.into_iter().filter(|kind| self.has(*kind));
        for (index, kind) in kinds.enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(
                formatter,
                "{separator}{} {:.4}",
                kind.name(),
                self.share(kind) * 100.0
            )?;
        }
        Ok(())
    }
}

impl serde::Serialize for Mix {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kinds = OperationKind::ALL.into_iter().filter(|kind| self.has(*kind));
        serializer.collect_map(kinds.map(|kind| (kind.name(), self.share(kind))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(mix: Mix) -> [f64; OperationKind::ALL.len()] {
        let mut random = Random::new(1);
        let draws = 200_000;
        let mut counts = [0.0; OperationKind::ALL.len()];
        for _ in 0..draws {
            counts[mix.next_kind(&mut random) as usize] += 1.0 / f64::from(draws);
        }
        counts
    }

    #[test]
    fn proportions_are_those_of_ycsb() {
        for (workload, expected) in [
            (Workload::A, [0.5, 0.5, 0.0, 0.0, 0.0, 0.0]),
            (Workload::B, [0.95, 0.05, 0.0, 0.0, 0.0, 0.0]),
            (Workload::C, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
            (Workload::D, [0.95, 0.0, 0.05, 0.0, 0.0, 0.0]),
            (Workload::E, [0.0, 0.0, 0.05, 0.95, 0.0, 0.0]),
            (Workload::F, [0.5, 0.0, 0.0, 0.0, 0.5, 0.0]),
        ] {
            let found = shares(workload.mix());
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 0.005, "{workload:?}: {found}");
                assert!(expected > 0.0 || *found == 0.0, "{workload:?}: {found}");
            }
        }
    }

    #[test]
    fn a_mix_of_ones_own_is_scaled() {
        let mix: Mix = "delete=1, scan=0,rmw=1,read=6".parse().unwrap();
        let found = shares(mix);
        for (found, expected) in found.iter().zip([0.75, 0.0, 0.0, 0.0, 0.125, 0.125]) {
            assert!((found - expected).abs() < 0.005, "{found}");
        }
        assert_eq!(mix.to_string(), "read 75.0000, rmw 12.5000, delete 12.5000");
        let mix: Mix = "add=1,ttl=1,mget=1,mput=1,rscan=0".parse().unwrap();
        assert!(mix.has_any(OperationKind::removes) && !mix.has_any(OperationKind::is_scan));
        assert_eq!(shares(mix)[..6], [0.0; 6]);
    }

    #[test]
    fn wrong_mixes_are_refused_with_what_to_do() {
        for (text, what) in [
            ("", "without `=`"),
            ("read", "without `=`"),
            ("raed=1", "no operation is called"),
            ("read=x", "is no number"),
            ("read=-1", "is no weight"),
            ("read=NaN", "is no weight"),
            ("read=0", "only zeros"),
            ("read=1,read=2", "stands twice"),
        ] {
            let error = text.parse::<Mix>().unwrap_err();
            assert!(
                error.contains(what) && error.contains("such as read=80"),
                "{error}"
            );
        }
    }
}
