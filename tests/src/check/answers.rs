//! One write, one answer: whatever a call was answered first, it is answered again.
//!
//! Only further answers ([`Event::again_of`]) are looked at; whether the first one is right is for the other checkers.
//! An answer that comes when the outcome counted as unknown is the first one.

use std::collections::BTreeMap;
use std::fmt;

use super::Verdict;
use super::history::{Event, EventKind, History, Malformed};

/// A call that was answered in two ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Index of the call.
    pub call: u64,
    /// The first answer and the other one.
    pub explanation: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "changed answer to call {}: {}",
            self.call, self.explanation
        )
    }
}

/// Checks that all answers to one call say the same.
///
/// # Errors
/// The history is no history of clients.
pub fn check(history: &History) -> Result<Verdict<Violation>, Malformed> {
    history.operations()?;
    let mut open: BTreeMap<_, u64> = BTreeMap::new();
    let mut first: BTreeMap<u64, &Event> = BTreeMap::new();
    let mut violations = Vec::new();
    for event in &history.events {
        let call = match (event.kind, event.again_of) {
            (EventKind::Invoke, _) => {
                open.insert(event.process, event.index);
                continue;
            }
            (EventKind::Info, _) => continue,
            (_, Some(call)) => call,
            (_, None) => open[&event.process],
        };
        let Some(before) = first.get(&call) else {
            first.insert(call, event);
            continue;
        };
        if !says_the_same(before, event) {
            let explanation = format!("first {}, then {}", show(before), show(event));
            violations.push(Violation { call, explanation });
        }
    }
    Ok(if violations.is_empty() {
        Verdict::Allowed
    } else {
        Verdict::Violated(violations)
    })
}

fn says_the_same(one: &Event, other: &Event) -> bool {
    one.kind == other.kind
        && one.action == other.action
        && one.version == other.version
        && one.failed_step == other.failed_step
        && one.failure == other.failure
}

fn show(event: &Event) -> String {
    let line = History {
        events: vec![event.clone()],
    };
    line.to_edn().trim_end().to_owned()
}
