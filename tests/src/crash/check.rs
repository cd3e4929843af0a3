//! The check after a restart: every key by a full scan and by a get, and no key that nobody wrote.
//!
//! The database is at rest. Scan and gets go through different indexes of the engine and must agree.

use std::collections::BTreeMap;

use ostrakon_client::{Answer, Client, Error, ScanOptions, Value};

use super::clients::as_found;
use super::history::{Found, KeyHistory, Violation};
use crate::scenario::scans::past;

/// Gets on their way at once.
const PIPELINE: usize = 64;

/// What a check found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Keys that were compared.
    pub keys: u64,
    /// Writes of unknown outcome that turned out to be applied.
    pub unknown_applied: u64,
    /// Broken promises.
    pub violations: Vec<Violation>,
}

/// Compares all keys with what is known of them. Keys with the prefix `foreign` are somebody else's.
///
/// # Errors
/// When the node does not answer.
pub fn check(
    client: &mut Client,
    keys: &mut [&mut KeyHistory],
    foreign: Option<&[u8]>,
) -> Result<Checked, Error> {
    let mut scanned = scan(client, foreign)?;
    let mut checked = Checked::default();
    for history in keys.iter_mut() {
        let found = scanned.remove(history.key()).unwrap_or(Ok(Found::Nothing));
        checked.keys += 1;
        match history.restarted(&found) {
            Ok(was_unknown) => checked.unknown_applied += u64::from(was_unknown),
            Err(violation) => checked.violations.push(violation),
        }
    }
    for (key, found) in scanned {
        checked.violations.push(Violation {
            key: key.escape_ascii().to_string(),
            expected: "no such key: nobody wrote it".to_owned(),
            found: found.map_or_else(|damage| damage, |found| found.to_string()),
        });
    }
    if checked.violations.is_empty() {
        checked.violations = compare_gets(client, keys)?;
    }
    Ok(checked)
}

type Scanned = BTreeMap<Vec<u8>, Result<Found, String>>;

fn scan(client: &mut Client, foreign: Option<&[u8]>) -> Result<Scanned, Error> {
    let ranges = match foreign {
        None => vec![ScanOptions::default()],
        Some(foreign) => {
            let before = ScanOptions {
                end: Some(foreign.to_vec()),
                ..ScanOptions::default()
            };
            let after = past(foreign).map(|start| ScanOptions {
                start,
                ..ScanOptions::default()
            });
            std::iter::once(before).chain(after).collect()
        }
    };
    let mut scanned = Scanned::new();
    for range in ranges {
        for entry in client.scan(range) {
            let entry = entry?;
            let value = Value {
                version: entry.version,
                expires: entry.expires,
                value: entry.value,
            };
            let found = as_found(&entry.key, Some(&value));
            scanned.insert(entry.key, found);
        }
    }
    Ok(scanned)
}

fn compare_gets(client: &mut Client, keys: &[&mut KeyHistory]) -> Result<Vec<Violation>, Error> {
    let mut violations = Vec::new();
    let mut pipeline = client.pipeline();
    for some in keys.chunks(PIPELINE) {
        let tickets = some
            .iter()
            .map(|history| pipeline.get(history.key()))
            .collect::<Result<Vec<_>, _>>()?;
        for (history, ticket) in some.iter().zip(tickets) {
            let found = match pipeline.wait(ticket)? {
                Answer::Get(found) => found,
                other => unreachable!("the client fits answers to requests: {other:?}"),
            };
            if let Err(violation) = history.read(&as_found(history.key(), found.as_ref())) {
                let found = format!("by get, unlike by scan: {}", violation.found);
                violations.push(Violation { found, ..violation });
            }
        }
    }
    Ok(violations)
}

/// Deletes all keys, so that somebody else finds only what is theirs.
///
/// # Errors
/// When the node does not answer.
pub fn clear(client: &mut Client, keys: &mut [&mut KeyHistory]) -> Result<Vec<Violation>, Error> {
    let mut violations = Vec::new();
    let mut pipeline = client.pipeline();
    for some in keys.chunks_mut(PIPELINE) {
        let mut tickets = Vec::new();
        for history in some.iter_mut().filter(|history| history.content().is_some()) {
            let ticket = pipeline.delete(history.key())?;
            tickets.push((history, ticket));
        }
        for (history, ticket) in tickets {
            let Answer::Write(written) = pipeline.wait(ticket)? else {
                unreachable!("the client fits answers to requests");
            };
            let floor = history.version();
            violations.extend(history.acknowledged(None, written.version, floor).err());
        }
    }
    Ok(violations)
}
