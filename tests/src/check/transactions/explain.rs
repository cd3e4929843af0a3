//! Names a cycle and shows it: each edge with its reason, then each transaction with its steps.

use std::fmt::Write;

use super::super::history::{Datum, Observed};
use super::Anomaly;
use super::cycles::{Cycle, Link};
use super::graph::Kind;
use super::table::{Deed, Entry, Table, Use};

/// How many steps of a transaction and elements of a list are shown.
const SHOWN_MAX: usize = 16;

/// The name and the explanation of a cycle.
pub(super) fn explain(table: &Table, cycle: &Cycle) -> (Anomaly, String) {
    let mut text = String::new();
    for link in &cycle.edges {
        let _ = writeln!(text, "  {}", reason(table, link));
    }
    let mut shown: Vec<usize> = cycle.edges.iter().map(|link| link.from).collect();
    shown.sort_unstable();
    for number in shown {
        let _ = writeln!(text, "  {}", transaction(table, number));
    }
    text.truncate(text.trim_end().len());
    (name(table, cycle), text)
}

/// A transaction in words: `T12 (process 3): append 5 to 1; read 2 as [1 2]`.
pub(super) fn transaction(table: &Table, number: usize) -> String {
    let transaction = &table.transactions[number];
    let steps = transaction
        .entries
        .iter()
        .take(SHOWN_MAX)
        .map(|entry| step(table, entry));
    let mut steps: Vec<String> = steps.collect();
    if transaction.entries.len() > SHOWN_MAX {
        steps.push(format!("and {} more", transaction.entries.len() - SHOWN_MAX));
    }
    let unknown = if transaction.answered_at.is_none() {
        ", outcome unknown"
    } else {
        ""
    };
    let process = transaction.process;
    format!(
        "T{} (process {process}{unknown}): {}",
        transaction.index,
        steps.join("; ")
    )
}

/// What was read, in words.
pub(super) fn observed(seen: &Observed) -> String {
    match seen {
        Observed::Nothing => "nothing".into(),
        Observed::Value(value) => value.to_string(),
        Observed::List(list) => elements(list),
    }
}

/// A register's value in words.
pub(super) fn value(value: Option<&Datum>) -> String {
    value.map_or_else(|| "nothing".into(), Datum::to_string)
}

/// A list in words; of a long one the end.
pub(super) fn elements(list: &[Datum]) -> String {
    let start = list.len().saturating_sub(SHOWN_MAX);
    let shown: Vec<String> = list[start..].iter().map(Datum::to_string).collect();
    let cut = if start > 0 { "... " } else { "" };
    format!("[{cut}{}]", shown.join(" "))
}

fn step(table: &Table, entry: &Entry) -> String {
    let key = &table.keys[entry.key];
    let version = entry
        .version
        .map_or_else(String::new, |version| format!(" (version {version})"));
    match &entry.deed {
        Deed::Read {
            seen,
            by_range: false,
        } => format!("read {key} as {}{version}", observed(seen)),
        Deed::Read { seen, by_range: true } => format!("scan {key} as {}{version}", observed(seen)),
        Deed::Matched => format!("found {key}{version}"),
        Deed::Append(element) => format!("append {element} to {key}{version}"),
        Deed::Write(None) => format!("delete {key}{version}"),
        Deed::WriteSum => format!("add to {key}{version}"),
        Deed::Write(Some(value)) => format!("write {value} to {key}{version}"),
    }
}

fn reason(table: &Table, link: &Link) -> String {
    let (from, to) = (table.name(link.from), table.name(link.to));
    let key = &table
        .keys
        .get(link.key)
        .map_or_else(String::new, Datum::to_string);
    match link.kind {
        Kind::RealTime => format!("{from} -> {to}: {from} was answered before {to} was called"),
        Kind::Overwritten => format!(
            "{from} -> {to}: {from} wrote key {key} ({}) before {to} did ({})",
            writes(table, link.from, link.key),
            writes(table, link.to, link.key)
        ),
        Kind::ReadBy => {
            let (wrote, read) = (
                writes(table, link.from, link.key),
                reads(table, link.to, link.key),
            );
            format!("{from} -> {to}: {to} read key {key} ({read}), which {from} wrote ({wrote})")
        }
        Kind::Missed | Kind::MissedInRange => {
            let (read, wrote) = (
                reads(table, link.from, link.key),
                writes(table, link.to, link.key),
            );
            let way = if link.kind == Kind::Missed {
                "read"
            } else {
                "scanned"
            };
            format!(
                "{from} -> {to}: {from} {way} key {key} ({read}) and did not see what {to} wrote ({wrote})"
            )
        }
    }
}

fn reads(table: &Table, transaction: usize, key: usize) -> String {
    let entries = table.transactions[transaction].entries.iter();
    let shown = entries
        .filter(|entry| entry.key == key)
        .find_map(|entry| match &entry.deed {
            Deed::Read { seen, .. } => Some(observed(seen)),
            Deed::Matched => entry.version.map(|version| format!("version {version}")),
            Deed::Append(_) | Deed::Write(_) | Deed::WriteSum => None,
        });
    shown.unwrap_or_else(|| "nothing".into())
}

fn writes(table: &Table, transaction: usize, key: usize) -> String {
    let entries = table.transactions[transaction].entries.iter();
    let shown = entries
        .filter(|entry| entry.key == key)
        .filter_map(|entry| match &entry.deed {
            Deed::Append(element) => Some(element.to_string()),
            Deed::Write(written) => Some(value(written.as_ref())),
            Deed::WriteSum => Some("a sum".into()),
            Deed::Read { .. } | Deed::Matched => None,
        });
    shown.collect::<Vec<_>>().join(", ")
}

fn name(table: &Table, cycle: &Cycle) -> Anomaly {
    let edges = &cycle.edges;
    let count = |matches: fn(Kind) -> bool| edges.iter().filter(|link| matches(link.kind)).count();
    let missed = count(Kind::is_missed);
    let real_time = count(|kind| kind == Kind::RealTime) > 0;
    let read_by = count(|kind| kind == Kind::ReadBy) > 0;
    let next = edges.iter().skip(1).chain(edges.first());
    let adjacent = edges
        .iter()
        .zip(next)
        .any(|(link, next)| link.kind.is_missed() && next.kind.is_missed());
    match (missed, real_time) {
        (0, false) if read_by => Anomaly::CircularInformationFlow,
        (0, false) => Anomaly::DirtyWrite,
        (0, true) => Anomaly::RealTimeViolation,
        (_, false) if is_lost_update(edges) => Anomaly::LostUpdate,
        (_, false) if edges.iter().any(|link| link.kind == Kind::MissedInRange) => Anomaly::Phantom,
        (1, false) => Anomaly::ReadSkew,
        (1, true) if read_by => Anomaly::CausalReverse,
        (1, true) if edges.iter().any(|link| is_never_seen(table, link)) => Anomaly::LostAppend,
        (1, true) => Anomaly::StaleRead,
        (_, _) if !adjacent => Anomaly::LongFork,
        (_, false) => Anomaly::WriteSkew,
        (_, true) => Anomaly::RealTimeViolation,
    }
}

/// Two transactions that both replaced one version of one key.
fn is_lost_update(edges: &[Link]) -> bool {
    edges.len() == 2
        && edges[0].key == edges[1].key
        && edges
            .iter()
            .all(|link| link.kind.is_missed() || link.kind == Kind::Overwritten)
}

/// An anti-dependency on appends that are in no list that anybody read.
fn is_never_seen(table: &Table, link: &Link) -> bool {
    if !link.kind.is_missed() || table.uses[link.key] != Use::List {
        return false;
    }
    let here = |entry: &&Entry| entry.key == link.key;
    let appended: Vec<&Datum> = table.transactions[link.to]
        .entries
        .iter()
        .filter(here)
        .filter_map(|entry| match &entry.deed {
            Deed::Append(element) => Some(element),
            _ => None,
        })
        .collect();
    let entries = table
        .transactions
        .iter()
        .flat_map(|transaction| &transaction.entries);
    !entries.filter(here).any(|entry| match &entry.deed {
        Deed::Read { seen, .. } => {
            let list = super::internal::elements(seen);
            appended.iter().any(|element| list.contains(element))
        }
        _ => false,
    })
}
