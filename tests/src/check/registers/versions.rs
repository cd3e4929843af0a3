//! Compares the versions of one key with each other, with values, and with real time.
//!
//! 1. One version stands for one value, and one write for one version.
//! 2. A read that saw the version of a write of unknown outcome tells that write's version; it is set here, so
//!    that the search need not guess when it took effect.
//! 3. What was answered before a call was made bounds that call's version from below.
//!
//! All of it in O(n log n). What it reports is proved by the two calls that it names.

use std::collections::BTreeMap;

use super::Anomaly;
use super::calls::{Call, Calls, Cell, Effect};
use super::classify::outdated;

/// The first contradiction of versions, after setting those of unknown writes that were seen.
pub(super) fn check(calls: &mut Calls) -> Option<(Anomaly, String)> {
    if !calls.versioned {
        return None;
    }
    one_value_each(calls)
        .or_else(|| learn(calls))
        .or_else(|| real_time(calls))
}

/// The version (above 0) that a call has, and what the key held at it.
fn holding(call: &Call) -> Option<(u64, Cell)> {
    let version = call.version?;
    let held = match call.effect {
        Effect::Read(held) => held,
        _ => call.leaves()?,
    };
    (version > 0 || held != Cell::Absent).then_some((version, held))
}

fn one_value_each(calls: &Calls) -> Option<(Anomaly, String)> {
    let mut at: BTreeMap<u64, (Cell, usize)> = BTreeMap::new();
    for (number, call) in calls.all.iter().enumerate() {
        let Some((version, cell)) = holding(call) else {
            continue;
        };
        if version == 0 {
            let text = format!("{}: version 0 is that of an absent key", call.show());
            return Some((Anomaly::VersionReuse, text));
        }
        let Some((first_cell, first)) = at.get(&version).copied() else {
            at.insert(version, (cell, number));
            continue;
        };
        let first = &calls.all[first];
        if first_cell != cell || (!first.observes() && !call.observes()) {
            let text = format!(
                "version {version} is that of {} and of {}",
                first.show(),
                call.show()
            );
            return Some((Anomaly::VersionReuse, text));
        }
        if first.observes() {
            at.insert(version, (cell, number));
        }
    }
    None
}

/// Sets the versions of unknown writes that a read saw; reports a write that was seen at two versions.
fn learn(calls: &mut Calls) -> Option<(Anomaly, String)> {
    let mut writers: BTreeMap<Cell, Vec<usize>> = BTreeMap::new();
    let mut sum_unknown = false;
    for (number, call) in calls.all.iter().enumerate() {
        if let Some(cell) = call.leaves() {
            writers.entry(cell).or_default().push(number);
        }
        sum_unknown |= matches!(call.effect, Effect::Add { result: None, .. });
    }
    let mut sightings: BTreeMap<Cell, usize> = BTreeMap::new();
    for number in 0..calls.all.len() {
        let call = &calls.all[number];
        let Effect::Read(seen) = call.effect else { continue };
        let Some(version) = call.version.filter(|version| *version > 0) else {
            continue;
        };
        if sum_unknown && matches!(seen, Cell::Integer(_)) {
            continue;
        }
        let Some([writer]) = writers.get(&seen).map(Vec::as_slice) else {
            continue;
        };
        let before = sightings.get(&seen).map_or(*writer, |before| *before);
        let earlier = &calls.all[before];
        if earlier.version.is_some_and(|earlier| earlier != version) {
            let text = format!(
                "one write of {}, {}, but two versions: {} and {}",
                calls.show(seen),
                calls.all[*writer].show(),
                earlier.show(),
                call.show()
            );
            return Some((Anomaly::AppliedTwice, text));
        }
        sightings.insert(seen, number);
        calls.all[*writer].version = Some(version);
    }
    None
}

/// Walks along the events with the highest version that was answered so far.
fn real_time(calls: &Calls) -> Option<(Anomaly, String)> {
    let mut events: Vec<(usize, usize, bool)> = Vec::new();
    for (number, call) in calls.all.iter().enumerate() {
        if call.version.is_some_and(|version| version > 0) {
            events.push((call.called_at, number, false));
            events.extend(call.answered_at.map(|answered_at| (answered_at, number, true)));
        }
    }
    events.sort_unstable();
    let mut highest: Option<(u64, usize)> = None;
    for (_, number, answer) in events {
        let call = &calls.all[number];
        let version = call.version.unwrap_or(0);
        if answer {
            highest = highest.max(Some((version, number)));
            continue;
        }
        let Some((high, newer)) = highest else { continue };
        let newer = &calls.all[newer];
        if call.observes() && version < high {
            let writer = calls
                .all
                .iter()
                .find(|call| !call.observes() && call.version == Some(high));
            let text = format!(
                "{}, although {} had been answered before it",
                call.show(),
                newer.show()
            );
            return Some((outdated(calls, writer.unwrap_or(newer)), text));
        }
        if !call.observes() && version <= high {
            let text = format!(
                "{} follows {} and has no higher version",
                call.show(),
                newer.show()
            );
            return Some((Anomaly::NonMonotoneVersions, text));
        }
    }
    None
}
