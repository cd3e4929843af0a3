//! The verdict on a run: what the clients noticed at once, and what the checkers find in the history.

use std::fmt;

use super::record::Recorder;
use crate::promises;
use crate::sim::World;

/// What was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What should have held.
    pub check: String,
    /// What was found instead.
    pub detail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "violated: {}\n{}", self.check, self.detail)
    }
}

/// Judges what has been recorded.
///
/// # Errors
/// The first thing that is wrong.
pub fn judge(world: &World, recorder: &Recorder) -> Result<(), Failure> {
    let failed = |check: &str, detail: String| {
        Err(Failure {
            check: check.to_owned(),
            detail,
        })
    };
    if let Some(panic) = world.panics().first() {
        return failed("no task panics", panic.message.clone());
    }
    if let Some(sentence) = recorder.violations().first() {
        return failed("every answer makes sense by itself", sentence.clone());
    }
    if let Some(sentence) = recorder.missed_by_a_checkpoint() {
        return failed("checkpoints have all that is not above them", sentence);
    }
    match promises::objections(&recorder.history()).into_iter().next() {
        None => Ok(()),
        Some(objection) => failed("the history keeps the promises", objection),
    }
}
