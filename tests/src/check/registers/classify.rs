//! Names what a failed search found, with calls that prove it on their own.
//!
//! The search knows that no order exists, but not what a person would call that. The rules here look for a call
//! that saw a value which another call shows to be replaced for good. Where none fits, the end of the best
//! attempt is shown instead.

use super::Anomaly;
use super::calls::{Call, Calls, Cell, Effect, Guard};
use super::model::Expiry;
use super::search::DeadEnd;

/// How many calls of a key are looked at for a name beyond the one at which the search ended.
const LOOKED_AT_CALLS: usize = 2_000;

/// A name and an explanation for a key that has no order.
pub(super) fn classify(calls: &Calls, dead_end: &DeadEnd) -> (Anomaly, String) {
    let stuck = &calls.all[dead_end.stuck];
    let others = calls.all.iter().take(LOOKED_AT_CALLS);
    too_early(calls, dead_end)
        .or_else(|| {
            std::iter::once(stuck).chain(others).find_map(|call| {
                came_back(calls, call)
                    .or_else(|| replaced(calls, call))
                    .or_else(|| wrong_sum(calls, call))
            })
        })
        .unwrap_or_else(|| unnamed(calls, dead_end))
}

/// `reader` saw what was written for a while, although it was gone before, or its time was over.
fn came_back(calls: &Calls, reader: &Call) -> Option<(Anomaly, String)> {
    let cell = reader.sees().filter(|cell| *cell != Cell::Absent)?;
    let mut writers = calls.all.iter().filter(|call| call.leaves() == Some(cell));
    let (writer, None) = (writers.next()?, writers.next()) else {
        return None;
    };
    writer.lifetime?;
    let shown = (reader.show(), calls.show(cell), writer.show());
    if let Some(expires) = reader
        .expires
        .filter(|expires| (1..=reader.clock().0).contains(expires))
    {
        let text = format!(
            "{} saw {}, which came from {}, when the clock was at {} or above, past its expiry at {expires}",
            shown.0,
            shown.1,
            shown.2,
            reader.clock().0
        );
        return Some((Anomaly::ExpiredValueSeen, text));
    }
    let is_gone =
        |call: &&Call| call.sees() == Some(Cell::Absent) && writer.precedes(call) && call.precedes(reader);
    let gone = calls.all.iter().find(is_gone)?;
    let is_deleted = calls
        .all
        .iter()
        .any(|call| call.leaves() == Some(Cell::Absent) && !call.precedes(writer) && !gone.precedes(call));
    (!is_deleted).then(|| {
        let text = format!(
            "{} saw {}, which came from {} and had expired: {}",
            shown.0,
            shown.1,
            shown.2,
            gone.show()
        );
        (Anomaly::ExpiredValueSeen, text)
    })
}

/// The call at which the search ended found nothing, where something was whose time was not over.
fn too_early(calls: &Calls, dead_end: &DeadEnd) -> Option<(Anomaly, String)> {
    let stuck = &calls.all[dead_end.stuck];
    let Expiry::At(expires) = dead_end.state.expiry else {
        return None;
    };
    let (_, to) = stuck.clock();
    let is_there = dead_end.state.cell != Cell::Absent;
    (is_there && stuck.sees() == Some(Cell::Absent) && to < expires).then(|| {
        let text = format!(
            "{} when the clock was at {to} at most; but the key held {} until {expires}",
            stuck.show(),
            calls.show(dead_end.state.cell)
        );
        (Anomaly::ExpiredTooEarly, text)
    })
}

/// What it is called when a later call does not see the effect of `newer`.
pub(super) fn outdated(calls: &Calls, newer: &Call) -> Anomaly {
    let left = newer.leaves();
    let is_seen = |call: &Call| call.sees().is_some() && call.sees() == left;
    match left {
        Some(Cell::Absent) => Anomaly::ResurrectedDelete,
        _ if newer.observes() => Anomaly::StaleRead,
        _ if newer.answered_at.is_none() => Anomaly::UnknownWriteUnseen,
        Some(_) if !calls.all.iter().any(is_seen) => Anomaly::LostWrite,
        _ => Anomaly::StaleRead,
    }
}

/// `reader` saw a value, and a call in between shows that it was replaced for good.
fn replaced(calls: &Calls, reader: &Call) -> Option<(Anomaly, String)> {
    let cell = reader.sees()?;
    if calls
        .all
        .iter()
        .any(|call| matches!(call.effect, Effect::Add { .. }))
    {
        return None;
    }
    let writers: Vec<&Call> = calls
        .all
        .iter()
        .filter(|call| call.leaves() == Some(cell))
        .collect();
    let newest = calls.all.iter().rev();
    for newer in newest.filter(|newer| newer.precedes(reader)) {
        let Some(left) = newer.leaves().or(newer.sees()).filter(|left| *left != cell) else {
            continue;
        };
        let all_before = writers.iter().all(|writer| writer.precedes(newer));
        let old = calls
            .all
            .iter()
            .find(|call| call.sees() == Some(cell) && call.precedes(newer));
        let unique = cell != Cell::Absent && writers.len() == 1;
        let is_old = all_before || (unique && old.is_some());
        if !is_old {
            continue;
        }
        let source = if newer.leaves().is_some() {
            newer
        } else {
            let mut wrote = calls.all.iter().filter(|call| call.leaves() == Some(left));
            wrote.next().unwrap_or(newer)
        };
        let anomaly = match (&writers[..], old) {
            ([writer], Some(_)) if writer.answered_at.is_none() => Anomaly::AppliedTwice,
            _ => outdated(calls, source),
        };
        let before = writers
            .last()
            .map_or_else(|| "the key's first state".into(), |writer| writer.show());
        let sighting = old.map_or_else(String::new, |old| format!(", seen by {}", old.show()));
        let text = format!(
            "{} saw {}, which came from {before}{sighting}; but {} came after that and was answered before the read",
            reader.show(),
            calls.show(cell),
            newer.show()
        );
        return Some((anomaly, text));
    }
    None
}

/// The key is only ever added to, upwards, and the sum that `reader` saw is outside what that allows.
fn wrong_sum(calls: &Calls, reader: &Call) -> Option<(Anomaly, String)> {
    let seen = match (reader.effect, reader.sees()) {
        (Effect::Add { result, .. }, _) => result?,
        (_, Some(Cell::Integer(number))) => number,
        (_, Some(Cell::Absent)) => 0,
        _ => return None,
    };
    let (mut least, mut most) = (0_i64, 0_i64);
    for call in calls.all.iter().filter(|call| !call.observes()) {
        let Effect::Add { delta, .. } = call.effect else {
            return None;
        };
        if delta < 0 {
            return None;
        }
        if call.precedes(reader) {
            least = least.checked_add(delta)?;
        }
        if !reader.precedes(call) {
            most = most.checked_add(delta)?;
        }
    }
    let text = format!(
        "{} saw {seen}; additions answered before it make {least}, all that were called before its answer {most}",
        reader.show()
    );
    if seen < least {
        Some((Anomaly::LostWrite, text))
    } else if seen > most {
        Some((Anomaly::AppliedTwice, text))
    } else {
        None
    }
}

fn unnamed(calls: &Calls, dead_end: &DeadEnd) -> (Anomaly, String) {
    let stuck = &calls.all[dead_end.stuck];
    let conditional = match stuck.effect {
        Effect::CompareAndSet { .. } => true,
        Effect::Refused(_) => false,
        _ => stuck.guard() != Guard::Nothing,
    };
    let anomaly = if conditional {
        Anomaly::ConditionIgnored
    } else {
        Anomaly::NotLinearizable
    };
    let trail: Vec<String> = dead_end
        .trail
        .iter()
        .map(|call| calls.all[*call].show())
        .collect();
    let version = dead_end
        .state
        .version
        .map_or_else(String::new, |version| format!(" at version {version}"));
    let text = format!(
        "no order explains {}. The longest one ends with {}; the key then holds {}{version}",
        stuck.show(),
        if trail.is_empty() {
            "nothing".into()
        } else {
            trail.join("; ")
        },
        calls.show(dead_end.state.cell)
    );
    (anomaly, text)
}
