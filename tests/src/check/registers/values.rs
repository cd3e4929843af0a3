//! Compares what was read with who can have written it: values from nowhere and values of failed writes.
//!
//! One pass over the calls of a key. Finds nothing where additions make any integer possible.

use std::collections::BTreeMap;

use super::Anomaly;
use super::calls::{Calls, Cell, Effect};

/// The first value that no call can have written before it was seen.
pub(super) fn check(calls: &Calls) -> Option<(Anomaly, String)> {
    let adds = calls
        .all
        .iter()
        .any(|call| matches!(call.effect, Effect::Add { .. }));
    let mut first_writers: BTreeMap<Cell, usize> = BTreeMap::new();
    for (number, call) in calls.all.iter().enumerate() {
        if let Some(cell) = call.leaves() {
            first_writers.entry(cell).or_insert(number);
        }
    }
    for call in &calls.all {
        let Some(cell) = call.sees() else { continue };
        if cell == Cell::Absent || (adds && matches!(cell, Cell::Integer(_))) {
            continue;
        }
        let shown = calls.show(cell);
        match first_writers.get(&cell).map(|writer| &calls.all[*writer]) {
            Some(writer) if call.precedes(writer) => {
                let text = format!(
                    "{}, but {shown} was first written by {}, called later",
                    call.show(),
                    writer.show()
                );
                return Some((Anomaly::ValueFromNowhere, text));
            }
            Some(_) => (),
            None => {
                let failed = calls.failed.iter().find(|(left, _)| *left == cell);
                return Some(match failed {
                    Some((_, write)) => (
                        Anomaly::FailedWriteSeen,
                        format!(
                            "{}, but the only write of {shown} was not done: {write}",
                            call.show()
                        ),
                    ),
                    None => (
                        Anomaly::ValueFromNowhere,
                        format!("{}, but nobody wrote {shown}", call.show()),
                    ),
                });
            }
        }
    }
    None
}
