//! What a scenario came to: the history, and the verdict of the checkers on it.

use std::fmt;

use super::recorder::Recorder;
use crate::check::history::{History, Outcome};
use crate::promises;

/// Why a scenario came to no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// This machine lacks something.
    Unavailable(String),
    /// Something failed, or what the fault must show was not seen.
    Failed(String),
}

impl From<String> for Failure {
    fn from(sentence: String) -> Failure {
        Failure::Failed(sentence)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Unavailable(reason) | Failure::Failed(reason) => formatter.write_str(reason),
        }
    }
}

/// A scenario that came to its end.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was recorded.
    pub history: History,
    /// What was seen on the way, a sentence each.
    pub notes: Vec<String>,
    /// Operations by what became of them.
    pub counts: Counts,
    /// What the checkers object to; empty if all is well. An undecided check counts as an objection.
    pub objections: Vec<String>,
}

/// Operations by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Done.
    pub done: u64,
    /// Refused for their condition.
    pub refused: u64,
    /// Certainly not done.
    pub failed: u64,
    /// Of unknown outcome.
    pub unknown: u64,
}

impl Report {
    /// Judges what was recorded; `objections` were found on the way.
    pub fn judge(recorder: Recorder, notes: Vec<String>, mut objections: Vec<String>) -> Report {
        let history = recorder.into_history();
        let mut counts = Counts::default();
        match history.operations() {
            Err(malformed) => objections.push(malformed.to_string()),
            Ok(operations) => {
                for operation in operations {
                    *match operation.outcome {
                        Outcome::Ok => &mut counts.done,
                        Outcome::Refused | Outcome::NotANumber | Outcome::Overflow => &mut counts.refused,
                        Outcome::Failed => &mut counts.failed,
                        Outcome::Unknown => &mut counts.unknown,
                    } += 1;
                }
                objections.extend(promises::objections(&history));
            }
        }
        Report {
            history,
            notes,
            counts,
            objections,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            done,
            refused,
            failed,
            unknown,
        } = self.counts;
        writeln!(
            formatter,
            "{done} operations done, {refused} refused for their condition, {failed} not done, {unknown} of \
             unknown outcome"
        )?;
        for note in &self.notes {
            writeln!(formatter, "  {note}")?;
        }
        if self.objections.is_empty() {
            return writeln!(formatter, "  all that is promised holds");
        }
        for objection in &self.objections {
            writeln!(formatter, "VIOLATED: {objection}")?;
        }
        Ok(())
    }
}
