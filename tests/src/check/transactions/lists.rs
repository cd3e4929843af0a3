//! Dependencies through lists: every read of a list tells the order of all its appends.
//!
//! 1. The longest read of a key gives its order; every other read must be a beginning of it.
//! 2. Neighbours in the order overwrite each other (ww); the writer of a read's last element was read (wr); the
//!    writer of the element after it was missed (rw).
//! 3. Appends that nobody saw, of transactions that were certainly done, come after the order's end: every
//!    reader of the whole order missed them. So a lost append becomes a cycle with real time.

use std::collections::{HashMap, HashSet};

use super::super::history::Datum;
use super::graph::{Graph, Kind};
use super::internal::{elements, ends_with};
use super::table::{Deed, Entry, Table, Use};
use super::{Anomaly, Findings, explain};

/// An element's writer.
#[derive(Clone, Copy)]
struct Writer {
    transaction: usize,
    /// False if the same transaction appends to the key again.
    last: bool,
}

/// A read of a list.
struct Read<'t> {
    transaction: usize,
    /// All that was read, with the transaction's own appends.
    list: &'t [Datum],
    /// How many elements at the end are the transaction's own.
    own: usize,
    /// True if the transaction appends to the key anywhere.
    appends: bool,
    by_range: bool,
}

/// What happened to one key.
#[derive(Default)]
struct List<'t> {
    writers: HashMap<&'t Datum, Writer>,
    /// Appends in the order of the history.
    appends: Vec<(&'t Datum, usize)>,
    failed: HashMap<&'t Datum, u64>,
    reads: Vec<Read<'t>>,
    /// The longest read that has no element twice.
    order: &'t [Datum],
}

/// Adds the edges of all lists, and reports what needs no cycle to be wrong.
pub(super) fn add_edges(table: &Table, graph: &mut Graph, findings: &mut Findings) {
    let mut lists = collect(table);
    let mut seen: Vec<bool> = table
        .transactions
        .iter()
        .map(|transaction| transaction.answered_at.is_some())
        .collect();
    for (key, list) in lists.iter_mut().enumerate() {
        if table.uses[key] == Use::List {
            settle_order(table, key, list, findings);
            for writer in list.order.iter().filter_map(|element| list.writers.get(element)) {
                seen[writer.transaction] = true;
            }
        }
    }
    for (key, list) in lists.iter().enumerate() {
        if table.uses[key] == Use::List {
            connect(table, key, list, &seen, graph, findings);
        }
    }
}

fn collect(table: &Table) -> Vec<List<'_>> {
    let mut lists: Vec<List<'_>> = table.keys.iter().map(|_| List::default()).collect();
    // By key: the appends of the transaction at hand, and those of them that were met.
    let mut appends = vec![0; table.keys.len()];
    let mut met = vec![0; table.keys.len()];
    let is_append = |entry: &&Entry| matches!(entry.deed, Deed::Append(_));
    for (number, transaction) in table.transactions.iter().enumerate() {
        for entry in transaction.entries.iter().filter(is_append) {
            appends[entry.key] += 1;
        }
        for entry in &transaction.entries {
            let list = &mut lists[entry.key];
            match &entry.deed {
                Deed::Append(element) => {
                    met[entry.key] += 1;
                    let writer = Writer {
                        transaction: number,
                        last: met[entry.key] == appends[entry.key],
                    };
                    list.writers.insert(element, writer);
                    list.appends.push((element, number));
                }
                Deed::Read { seen, by_range } => list.reads.push(Read {
                    transaction: number,
                    list: elements(seen),
                    own: met[entry.key],
                    appends: appends[entry.key] > 0,
                    by_range: *by_range,
                }),
                Deed::Matched | Deed::Write(_) | Deed::WriteSum => (),
            }
        }
        for entry in transaction.entries.iter().filter(is_append) {
            (appends[entry.key], met[entry.key]) = (0, 0);
        }
    }
    for transaction in &table.failed {
        for entry in &transaction.entries {
            if let Deed::Append(element) = &entry.deed {
                lists[entry.key].failed.insert(element, transaction.index);
            }
        }
    }
    lists
}

/// Finds the order of a key's appends, and reports reads that contradict it or its writers.
fn settle_order(table: &Table, key: usize, list: &mut List<'_>, findings: &mut Findings) {
    let name = &table.keys[key];
    let mut longest_first: Vec<&Read<'_>> = list.reads.iter().collect();
    longest_first.sort_by_key(|read| std::cmp::Reverse(read.list.len()));
    let mut order: Option<(&[Datum], usize)> = None;
    for read in longest_first {
        let reader = table.name(read.transaction);
        let shown = || explain::elements(read.list);
        match order {
            Some((order, _)) if order.starts_with(read.list) => continue,
            Some((longest, other)) => {
                let (other, longest) = (table.name(other), explain::elements(longest));
                let text = format!(
                    "  key {name}: {reader} read {}, {other} read {longest}: neither is the other's beginning",
                    shown()
                );
                findings.add(Anomaly::IncompatibleOrder, text);
            }
            None => (),
        }
        let mut met = HashSet::new();
        if let Some(twice) = read.list.iter().find(|element| !met.insert(*element)) {
            let text = format!("  key {name}: {reader} read {twice} twice in {}", shown());
            findings.add(Anomaly::DuplicateAppend, text);
        } else if order.is_none() {
            order = Some((read.list, read.transaction));
        }
        foreign_elements(table, name, list, read, findings);
    }
    list.order = order.map_or(&[], |(order, _)| order);
}

/// Reports elements of a read that nobody appended, or only transactions that were not done.
fn foreign_elements(table: &Table, name: &Datum, list: &List<'_>, read: &Read<'_>, findings: &mut Findings) {
    let reader = table.name(read.transaction);
    for (place, element) in read.list.iter().enumerate() {
        if list.writers.contains_key(element) {
            continue;
        }
        let Some(index) = list.failed.get(element) else {
            let text = format!("  {reader} read {element} in key {name}, but nobody appended it");
            findings.add(Anomaly::ValueFromNowhere, text);
            continue;
        };
        let text =
            format!("  {reader} read {element} in key {name}, but T{index}, which appended it, was not done");
        findings.add(Anomaly::AbortedRead, text);
        let mut after = read.list[place + 1..].iter();
        if let Some(built) = after.find(|element| list.writers.contains_key(element)) {
            let writer = table.name(list.writers[built].transaction);
            let text = format!(
                "  {writer} appended {built} to key {name} after {element} of T{index}, which was not done"
            );
            findings.add(Anomaly::DirtyUpdate, text);
        }
    }
}

fn connect(
    table: &Table,
    key: usize,
    list: &List<'_>,
    seen: &[bool],
    graph: &mut Graph,
    findings: &mut Findings,
) {
    own_order(table, key, list, findings);
    let writer = |place: usize| {
        list.order
            .get(place)
            .and_then(|element| list.writers.get(element))
            .copied()
    };
    for place in 1..list.order.len() {
        if let (Some(before), Some(after)) = (writer(place - 1), writer(place)) {
            graph.add(before.transaction, after.transaction, Kind::Overwritten, key);
        }
    }
    let mut at_end = Vec::new();
    for read in &list.reads {
        if !list.order.starts_with(read.list) {
            continue;
        }
        let Some(length) = external(list, read) else {
            continue;
        };
        let reader = read.transaction;
        let own = |element: &&Datum| {
            list.writers
                .get(element)
                .is_some_and(|writer| writer.transaction == reader)
        };
        if read.appends
            && let Some(element) = read.list[..length].iter().find(own)
        {
            let (reader, name) = (explain::transaction(table, reader), &table.keys[key]);
            let text = format!("  key {name} was read with {element} before it was appended\n  {reader}");
            findings.add(Anomaly::Internal, text);
        }
        if let Some(from) = length.checked_sub(1).and_then(writer) {
            graph.add(from.transaction, reader, Kind::ReadBy, key);
            if !from.last && from.transaction != reader {
                let (reader, from) = (table.name(reader), table.name(from.transaction));
                let (name, shown) = (&table.keys[key], explain::elements(&read.list[..length]));
                let text =
                    format!("  {reader} read key {name} as {shown}, between two appends of {from} to it");
                findings.add(Anomaly::IntermediateRead, text);
            }
        }
        let kind = if read.by_range {
            Kind::MissedInRange
        } else {
            Kind::Missed
        };
        if length == list.order.len() {
            at_end.push((reader, kind));
        } else if let Some(next) = writer(length) {
            graph.add(reader, next.transaction, kind, key);
        }
    }
    if let Some(last) = list.order.len().checked_sub(1).and_then(writer) {
        at_end.push((last.transaction, Kind::Overwritten));
    }
    at_end.sort_unstable();
    at_end.dedup();
    let ordered: HashSet<&Datum> = list.order.iter().collect();
    let unseen = list
        .appends
        .iter()
        .filter(|(element, writer)| seen[*writer] && !ordered.contains(element));
    let mut unseen: Vec<usize> = unseen.map(|(_, writer)| *writer).collect();
    unseen.sort_unstable();
    unseen.dedup();
    graph.add_all(&at_end, &unseen, key);
}

/// Reports a transaction whose appends to the key are in the list in another order than it made them, or a
/// later one without an earlier one.
fn own_order(table: &Table, key: usize, list: &List<'_>, findings: &mut Findings) {
    let places: HashMap<&Datum, usize> = list
        .order
        .iter()
        .enumerate()
        .map(|(place, element)| (element, place))
        .collect();
    for both in list.appends.windows(2).filter(|both| both[0].1 == both[1].1) {
        let (earlier, later) = (places.get(both[0].0), places.get(both[1].0));
        if later.is_some_and(|later| earlier.is_none_or(|earlier| earlier > later)) {
            let (name, writer) = (&table.keys[key], table.name(both[0].1));
            let shown = explain::elements(list.order);
            let text = format!(
                "  {writer} appended {} and then {} to key {name}, read as {shown}",
                both[0].0, both[1].0
            );
            findings.add(Anomaly::IncompatibleOrder, text);
        }
    }
}

/// How many elements of a read came from outside the transaction; none if it contradicts itself.
fn external(list: &List<'_>, read: &Read<'_>) -> Option<usize> {
    let length = read.list.len().checked_sub(read.own)?;
    let own = |element: &Datum| {
        list.writers
            .get(element)
            .is_some_and(|writer| writer.transaction == read.transaction)
    };
    (ends_with(read.list, &read.list[length..]) && read.list[length..].iter().all(own)).then_some(length)
}
