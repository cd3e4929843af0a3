//! Checkers of histories: what clients saw, judged without knowing how the database works.
//!
//! 1. [`history`]: operations as data, their form as text (EDN as Jepsen writes it), and pairing of calls with
//!    their answers.
//! 2. [`registers`]: linearizability of single-key operations, key by key.
//! 3. [`transactions`]: strict serializability (or less, on request) of transactions over lists and registers.
//! 4. [`answers`]: that a call is answered in one way, however often it is answered.
//! 5. [`generate`]: histories of a store that is right by construction, to try checkers on.
//!
//! All checkers are sound: what they report cannot have happened under the guarantee. Their verdict is
//! [`Verdict::Undecided`] when the work passed its budget; a test must count that as a failure. None knows a
//! crate of the database: what they share with it, they would believe of it. The form of the files and what
//! each checker proves is described in `docs/histories.md`.

pub mod answers;
pub mod history;
pub mod registers;
pub mod transactions;

pub mod generate;

use std::fmt;

/// What a checker found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<V> {
    /// The history is one that the guarantee allows.
    Allowed,
    /// The history cannot have happened under the guarantee: at least one reason, each provable on its own.
    Violated(Vec<V>),
    /// The budget was used up before an answer was found. Never to be taken for [`Verdict::Allowed`].
    Undecided {
        /// What was being looked at when the budget ended.
        at: String,
        /// How much work was allowed, in the checker's own unit.
        budget: u64,
    },
}

impl<V> Verdict<V> {
    /// True when the history is allowed.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Verdict::Allowed)
    }

    /// The violations; none unless the verdict is [`Verdict::Violated`].
    pub fn violations(&self) -> &[V] {
        match self {
            Verdict::Violated(violations) => violations,
            Verdict::Allowed | Verdict::Undecided { .. } => &[],
        }
    }
}

impl<V: fmt::Display> fmt::Display for Verdict<V> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Allowed => formatter.write_str("allowed"),
            Verdict::Violated(violations) => {
                for violation in violations {
                    writeln!(formatter, "{violation}")?;
                }
                Ok(())
            }
            Verdict::Undecided { at, budget } => {
                write!(formatter, "undecided: the budget of {budget} was used up at {at}")
            }
        }
    }
}
