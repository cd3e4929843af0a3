//! Does each transaction agree with itself? A read must show what the same transaction read or wrote before.

use std::collections::BTreeMap;

use super::super::history::{Datum, Observed};
use super::explain;
use super::table::{Deed, Table, Transaction, Use};
use super::{Anomaly, Findings};

/// What a transaction knows of one key.
#[derive(Default)]
struct Known {
    /// The key before the transaction's own writes, once read.
    read: Option<Observed>,
    /// What it appended to a list since.
    appended: Vec<Datum>,
    /// What it wrote to a register last, as a read must show it.
    written: Option<Observed>,
}

/// Reports each transaction that contradicts itself.
pub(super) fn check(table: &Table, findings: &mut Findings) {
    for (number, transaction) in table.transactions.iter().enumerate() {
        if let Some((anomaly, reason)) = contradiction(table, transaction) {
            let shown = explain::transaction(table, number);
            findings.add(anomaly, format!("  {reason}\n  {shown}"));
        }
    }
}

/// True if a list ends with these elements.
pub(super) fn ends_with(list: &[Datum], end: &[Datum]) -> bool {
    list.ends_with(end)
}

/// A list as elements; nothing is the empty list.
pub(super) fn elements(seen: &Observed) -> &[Datum] {
    match seen {
        Observed::List(elements) => elements,
        Observed::Nothing | Observed::Value(_) => &[],
    }
}

fn contradiction(table: &Table, transaction: &Transaction) -> Option<(Anomaly, String)> {
    let mut keys: BTreeMap<usize, Known> = BTreeMap::new();
    for entry in &transaction.entries {
        let known = keys.entry(entry.key).or_default();
        let key = &table.keys[entry.key];
        match &entry.deed {
            Deed::Append(element) => known.appended.push(element.clone()),
            Deed::Write(value) => {
                known.written = Some(value.clone().map_or(Observed::Nothing, Observed::Value));
            }
            // What it then holds nobody was told.
            Deed::WriteSum => *known = Known::default(),
            Deed::Matched => (),
            Deed::Read { seen, .. } => {
                let wrong = if table.uses[entry.key] == Use::List {
                    list_read(known, seen)
                } else {
                    register_read(known, seen)
                };
                if let Some((anomaly, expected)) = wrong {
                    let seen = explain::observed(seen);
                    return Some((
                        anomaly,
                        format!("key {key} was read as {seen}, expected {expected}"),
                    ));
                }
            }
        }
    }
    None
}

fn list_read(known: &mut Known, seen: &Observed) -> Option<(Anomaly, String)> {
    let list = elements(seen);
    let own = &known.appended;
    match &known.read {
        Some(read) => {
            let expected = [elements(read), own].concat();
            let anomaly = if own.is_empty() {
                Anomaly::FuzzyRead
            } else {
                Anomaly::Internal
            };
            (list != expected).then(|| (anomaly, explain::observed(&Observed::List(expected))))
        }
        None if ends_with(list, own) => {
            known.read = Some(Observed::List(list[..list.len() - own.len()].to_vec()));
            None
        }
        None => {
            let end = explain::observed(&Observed::List(own.clone()));
            Some((Anomaly::Internal, format!("a list that ends with its own {end}")))
        }
    }
}

fn register_read(known: &mut Known, seen: &Observed) -> Option<(Anomaly, String)> {
    if let Some(written) = &known.written {
        return (seen != written).then(|| {
            (
                Anomaly::Internal,
                format!("its own {}", explain::observed(written)),
            )
        });
    }
    match &known.read {
        Some(read) if read != seen => Some((
            Anomaly::FuzzyRead,
            format!("{} as before", explain::observed(read)),
        )),
        _ => {
            known.read = Some(seen.clone());
            None
        }
    }
}
