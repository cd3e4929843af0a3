//! Linearizability of single-key operations: reads, writes, compare-and-set, deletes, additions,
//! conditions, expiry.
//!
//! 1. Linearizability is local (Herlihy and Wing 1990, theorem 1): each key is judged alone.
//! 2. [`versions`] first compares versions with each other and with real time, and [`values`] values with their
//!    writers: in near-linear time, they find and name most of what can be wrong, and learn the version of
//!    unknown writes that somebody saw.
//! 3. [`search`] then looks for an order of the operations (Wing and Gong 1993, with the just-in-time choice and
//!    the memo of Lowe 2017). It alone can say that a key is fine.
//! 4. [`classify`] gives the failure of a search the name of an anomaly, as far as one fits.
//!
//! Never judges transactions: those that only read (scans) are left out here, others are refused.

mod calls;
mod classify;
mod model;
mod search;
mod values;
mod versions;

use std::collections::BTreeMap;
use std::fmt;

use super::Verdict;
use super::history::{Action, Datum, History, Malformed, Operation, StepAction};
use calls::Calls;
use search::Found;

/// How much work a check may do.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Steps of the search, all keys together. Past it the verdict is undecided.
    pub budget_steps: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            budget_steps: 5_000_000,
        }
    }
}

/// What is wrong with a key, by the name that its users know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anomaly {
    /// A read returned what an earlier, finished write had already replaced.
    StaleRead,
    /// An acknowledged write was never seen although a later read should have.
    LostWrite,
    /// A deleted value came back.
    ResurrectedDelete,
    /// One write took effect at two moments.
    AppliedTwice,
    /// A write that was reported as not done was seen.
    FailedWriteSeen,
    /// A write of unknown outcome was seen, then was gone though nothing replaced it.
    UnknownWriteUnseen,
    /// One version stands for two writes.
    VersionReuse,
    /// Versions do not rise in the order of the writes.
    NonMonotoneVersions,
    /// A write was done though its condition did not hold.
    ConditionIgnored,
    /// What had expired was seen.
    ExpiredValueSeen,
    /// What had not expired was gone.
    ExpiredTooEarly,
    /// A value was read that nobody wrote, or that was written only afterwards.
    ValueFromNowhere,
    /// No order of the operations explains the answers, and no better name fits.
    NotLinearizable,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Anomaly::StaleRead => "stale read",
            Anomaly::LostWrite => "lost write",
            Anomaly::ResurrectedDelete => "resurrected delete",
            Anomaly::AppliedTwice => "applied twice",
            Anomaly::FailedWriteSeen => "failed write seen",
            Anomaly::UnknownWriteUnseen => "unknown write seen then unseen",
            Anomaly::VersionReuse => "version reuse",
            Anomaly::NonMonotoneVersions => "non-monotone versions",
            Anomaly::ConditionIgnored => "condition ignored",
            Anomaly::ExpiredValueSeen => "expired value seen",
            Anomaly::ExpiredTooEarly => "expired too early",
            Anomaly::ValueFromNowhere => "value from nowhere",
            Anomaly::NotLinearizable => "not linearizable",
        })
    }
}

/// One key that is not linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key.
    pub key: Datum,
    /// The name of what is wrong.
    pub anomaly: Anomaly,
    /// Why, in words, with the operations that prove it.
    pub explanation: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} at key {}: {}",
            self.anomaly, self.key, self.explanation
        )
    }
}

/// Checks that every key of `history` is linearizable. All keys with a violation are reported, one each.
///
/// # Errors
/// The history is no history of clients, or has a transaction that writes.
pub fn check(history: &History, settings: &Settings) -> Result<Verdict<Violation>, Malformed> {
    let operations = history.operations()?;
    let mut keys: BTreeMap<&Datum, Vec<&Operation>> = BTreeMap::new();
    for operation in &operations {
        match &operation.action {
            Action::Read { key, .. }
            | Action::Write { key, .. }
            | Action::CompareAndSet { key, .. }
            | Action::Delete { key }
            | Action::Add { key, .. }
            | Action::Check { key } => keys.entry(key).or_default().push(operation),
            Action::Transaction { steps, .. } => {
                let reads = |action: &StepAction| matches!(action, StepAction::Read { .. });
                if !steps.iter().all(|step| reads(&step.action)) {
                    return Err(Malformed {
                        index: operation.index,
                        process: operation.process,
                        reason: "a transaction that writes cannot be judged key by key: check transactions"
                            .into(),
                    });
                }
            }
        }
    }
    let mut steps_left = settings.budget_steps;
    let mut violations = Vec::new();
    let mut undecided = None;
    for (key, operations) in keys {
        match check_key(key, &operations, &mut steps_left) {
            Key::Fine => (),
            Key::Wrong(violation) => violations.push(violation),
            Key::Undecided => undecided = undecided.or_else(|| Some(format!("key {key}"))),
        }
    }
    Ok(match undecided {
        _ if !violations.is_empty() => Verdict::Violated(violations),
        Some(at) => Verdict::Undecided {
            at,
            budget: settings.budget_steps,
        },
        None => Verdict::Allowed,
    })
}

enum Key {
    Fine,
    Wrong(Violation),
    Undecided,
}

fn check_key(key: &Datum, operations: &[&Operation], steps_left: &mut u64) -> Key {
    let mut calls = Calls::new(operations);
    let clear = values::check(&calls).or_else(|| versions::check(&mut calls));
    if let Some((anomaly, explanation)) = clear {
        let key = key.clone();
        return Key::Wrong(Violation {
            key,
            anomaly,
            explanation,
        });
    }
    match search::search(&calls, steps_left) {
        Found::Order => Key::Fine,
        Found::BudgetEnded => Key::Undecided,
        Found::NoOrder(dead_end) => {
            let (anomaly, explanation) = classify::classify(&calls, &dead_end);
            let key = key.clone();
            Key::Wrong(Violation {
                key,
                anomaly,
                explanation,
            })
        }
    }
}
