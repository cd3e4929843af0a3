//! Isolation of transactions over lists and registers, after Adya ("Weak consistency", 1999) and Elle (Kingsbury
//! and Alvaro, "Inferring isolation anomalies from experimental observations", 2020).
//!
//! 1. [`table`] takes over what may have taken effect, with numbers for keys.
//! 2. [`internal`] looks at each transaction alone: does it agree with its own steps?
//! 3. [`lists`] and [`registers`] find the order of each key's versions as far as the history proves it, and
//!    from it which transaction depends on which ([`graph`]): ww (overwrote), wr (read from), rw (did not see).
//! 4. [`realtime`] adds: was answered before the other was called.
//! 5. [`cycles`] looks for cycles, which no serial order can have; [`explain`] names and shows the shortest.
//!
//! Every edge is proved by answers, so every cycle is. Complete for lists; for registers wherever unique values
//! and versions give the order. Operations on single keys count as transactions of one or two steps.

mod cycles;
mod explain;
mod graph;
mod internal;
mod lists;
mod realtime;
mod registers;
mod table;

use std::fmt;

use super::Verdict;
use super::history::{History, Malformed};
use graph::Graph;
use table::Table;

/// What transactions are promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// One order explains everything and agrees with real time.
    StrictSerializable,
    /// One order explains everything.
    Serializable,
    /// Each transaction reads from one moment and no two overlapping ones write the same key (snapshot
    /// isolation as Adya defines it, without real time).
    Snapshot,
}

/// What to check, and how much work it may take.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The promise.
    pub level: Level,
    /// Edges that may be built. Past it the verdict is undecided.
    pub budget_edges: u64,
}

impl Settings {
    /// The promise with the usual budget.
    pub fn new(level: Level) -> Settings {
        Settings {
            level,
            budget_edges: 20_000_000,
        }
    }
}

/// What went wrong, by the name in the literature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anomaly {
    /// A transaction contradicts its own steps.
    Internal,
    /// A transaction read a key twice and saw two values that it did not write (non-repeatable read).
    FuzzyRead,
    /// G1a: a value of a transaction that was not done was read.
    AbortedRead,
    /// G1b: a value was read that its transaction itself replaced.
    IntermediateRead,
    /// A committed transaction built on a value of one that was not done.
    DirtyUpdate,
    /// A value was read that nobody wrote.
    ValueFromNowhere,
    /// An element is twice in a list.
    DuplicateAppend,
    /// Two reads of a list of which neither is the beginning of the other.
    IncompatibleOrder,
    /// One version stands for two values.
    VersionReuse,
    /// G0: writes of transactions interleave.
    DirtyWrite,
    /// G1c: transactions read from each other in a circle.
    CircularInformationFlow,
    /// Two transactions read the same version of a key, and both replaced it.
    LostUpdate,
    /// G-single: a transaction saw one effect of another and missed an earlier one.
    ReadSkew,
    /// A range read missed a key, in a cycle with one or more others.
    Phantom,
    /// Two readers saw independent writes in opposite orders.
    LongFork,
    /// G2: each of several transactions missed what another wrote.
    WriteSkew,
    /// A finished append was missing afterwards, and nobody ever saw it.
    LostAppend,
    /// A transaction missed what was finished before it was called.
    StaleRead,
    /// A transaction saw a write, but not another that was finished before that one was called.
    CausalReverse,
    /// Another cycle that only real time closes.
    RealTimeViolation,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Anomaly::Internal => "internal inconsistency",
            Anomaly::FuzzyRead => "fuzzy read",
            Anomaly::AbortedRead => "aborted read (G1a)",
            Anomaly::IntermediateRead => "dirty read (G1b, intermediate)",
            Anomaly::DirtyUpdate => "dirty update",
            Anomaly::ValueFromNowhere => "value from nowhere",
            Anomaly::DuplicateAppend => "duplicate append",
            Anomaly::IncompatibleOrder => "incompatible order",
            Anomaly::VersionReuse => "version reuse",
            Anomaly::DirtyWrite => "dirty write (G0)",
            Anomaly::CircularInformationFlow => "circular information flow (G1c)",
            Anomaly::LostUpdate => "lost update",
            Anomaly::ReadSkew => "read skew (G-single)",
            Anomaly::Phantom => "phantom",
            Anomaly::LongFork => "long fork",
            Anomaly::WriteSkew => "write skew (G2)",
            Anomaly::LostAppend => "lost acknowledged append",
            Anomaly::StaleRead => "stale read",
            Anomaly::CausalReverse => "causal reverse",
            Anomaly::RealTimeViolation => "real-time violation",
        })
    }
}

/// One thing that cannot have happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub anomaly: Anomaly,
    /// The transactions and why, one step per line.
    pub explanation: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:\n{}", self.anomaly, self.explanation)
    }
}

/// How many violations a report holds; a broken history can have one per transaction.
const REPORTED_MAX: usize = 32;

/// What the parts of a check add to.
struct Findings {
    violations: Vec<Violation>,
}

impl Findings {
    fn add(&mut self, anomaly: Anomaly, explanation: String) {
        if self.violations.len() < REPORTED_MAX {
            self.violations.push(Violation { anomaly, explanation });
        }
    }
}

/// Checks that `history` keeps the promise. At most 32 violations are reported, those of one transaction alone
/// first, then cycles, one per group of transactions that depend on each other.
///
/// # Errors
/// The history is no history of clients, uses a key in two ways, or appends an element twice to one key.
pub fn check(history: &History, settings: &Settings) -> Result<Verdict<Violation>, Malformed> {
    let operations = history.operations()?;
    let table = Table::new(&operations)?;
    let mut findings = Findings {
        violations: Vec::new(),
    };
    internal::check(&table, &mut findings);
    let mut graph = Graph::new(table.transactions.len(), settings.budget_edges);
    lists::add_edges(&table, &mut graph, &mut findings);
    registers::add_edges(&table, settings.level, &mut graph, &mut findings);
    if settings.level == Level::StrictSerializable {
        realtime::add_edges(&table, &mut graph);
    }
    let over_budget = graph.over_budget();
    let index = graph.index();
    for cycle in cycles::find(&index, settings.level) {
        let (anomaly, explanation) = explain::explain(&table, &cycle);
        findings.add(anomaly, explanation);
    }
    Ok(if !findings.violations.is_empty() {
        Verdict::Violated(findings.violations)
    } else if over_budget {
        Verdict::Undecided {
            at: "the dependencies between transactions".into(),
            budget: settings.budget_edges,
        }
    } else {
        Verdict::Allowed
    })
}
