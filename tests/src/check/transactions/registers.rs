//! Dependencies through registers: values are unique or versions are given, so that a read names its write.
//!
//! The order of a key's writes is known in part: from versions; from transactions that read one and wrote the
//! next; where real time is promised, from writes that were finished before others were called; and the key's
//! first state comes before all. A reader missed every direct successor of what it read. A value that several
//! writes can have left gives no edge (a number, where a sum was not told), and neither does a read of nothing when the
//! key may have been deleted or have expired.

use std::collections::{BTreeMap, BTreeSet};

use super::super::history::{Datum, Observed};
use super::graph::{Graph, Kind};
use super::table::{Deed, Table, Use};
use super::{Anomaly, Findings, Level, explain, realtime};

/// A write as others can see it.
struct Install<'t> {
    transaction: usize,
    value: Left<'t>,
    version: Option<u64>,
}

/// What a write left at its key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left<'t> {
    Value(Option<&'t Datum>),
    /// A number that nobody was told.
    Sum,
}

impl<'t> Left<'t> {
    /// True if a read may have seen this there.
    fn can_be(self, seen: Option<&'t Datum>) -> bool {
        match self {
            Left::Value(value) => value == seen,
            Left::Sum => matches!(seen, Some(Datum::Integer(_))),
        }
    }
}

/// The first sight of a key that a transaction had, before any write of its own.
struct Read<'t> {
    transaction: usize,
    seen: Seen<'t>,
    version: Option<u64>,
    by_range: bool,
    /// What it saw, once known.
    source: Source,
}

/// What a read saw of a key.
#[derive(Clone, Copy)]
enum Seen<'t> {
    /// Only that its version was the one asked for.
    Version,
    Nothing,
    Value(&'t Datum),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Open,
    First,
    Install(usize),
}

/// What happened to one key.
#[derive(Default)]
struct Register<'t> {
    /// The last write of each transaction.
    installs: Vec<Install<'t>>,
    by_value: BTreeMap<Option<&'t Datum>, Vec<usize>>,
    by_version: BTreeMap<u64, usize>,
    /// Some sum was not told, so that a number need not come from a write that is known to have left it.
    has_unknown_sum: bool,
    /// Some value may be gone by itself.
    may_expire: bool,
    /// Writes that their own transaction replaced.
    replaced: BTreeMap<&'t Datum, usize>,
    /// Values of transactions that were not done, with their index.
    failed: BTreeMap<&'t Datum, u64>,
    reads: Vec<Read<'t>>,
}

/// Adds the edges of all registers, and reports what needs no cycle to be wrong.
pub(super) fn add_edges(table: &Table, level: Level, graph: &mut Graph, findings: &mut Findings) {
    let mut registers = collect(table);
    let mut seen: Vec<bool> = table
        .transactions
        .iter()
        .map(|transaction| transaction.answered_at.is_some())
        .collect();
    for (key, register) in registers.iter_mut().enumerate() {
        if table.uses[key] == Use::List {
            continue;
        }
        versions(table, key, register, findings);
        for number in 0..register.reads.len() {
            let source = resolve(table, key, register, number, level, findings);
            register.reads[number].source = source;
            if let Source::Install(install) = source {
                seen[register.installs[install].transaction] = true;
                if let Some(version) = register.reads[number].version {
                    register.installs[install].version.get_or_insert(version);
                }
            }
        }
    }
    for (key, register) in registers.iter().enumerate() {
        let order = order(table, register, &seen, level);
        lost_updates(table, key, &order.updates, findings);
        connect(key, register, order, graph);
    }
}

fn collect(table: &Table) -> Vec<Register<'_>> {
    let mut registers: Vec<Register<'_>> = table.keys.iter().map(|_| Register::default()).collect();
    // By key: the transaction that touched it last, and where the transaction at hand wrote it last.
    let mut touched = vec![None; table.keys.len()];
    let mut last_write = vec![0; table.keys.len()];
    for (number, transaction) in table.transactions.iter().enumerate() {
        for (place, entry) in transaction.entries.iter().enumerate() {
            if matches!(entry.deed, Deed::Write(_) | Deed::WriteSum) {
                last_write[entry.key] = place;
            }
        }
        for (place, entry) in transaction.entries.iter().enumerate() {
            let register = &mut registers[entry.key];
            let version = entry.version.map(|version| version.0);
            register.may_expire |= entry.may_expire;
            let is_first = touched[entry.key].replace(number) != Some(number);
            let read = |seen, by_range| Read {
                transaction: number,
                seen,
                version,
                by_range,
                source: Source::Open,
            };
            match &entry.deed {
                Deed::Write(value) => {
                    if last_write[entry.key] == place {
                        let install = register.installs.len();
                        register.by_value.entry(value.as_ref()).or_default().push(install);
                        register.installs.push(Install {
                            transaction: number,
                            value: Left::Value(value.as_ref()),
                            version,
                        });
                    } else if let Some(value) = value {
                        register.replaced.insert(value, number);
                    }
                }
                Deed::WriteSum => {
                    register.has_unknown_sum = true;
                    if last_write[entry.key] == place {
                        register.installs.push(Install {
                            transaction: number,
                            value: Left::Sum,
                            version,
                        });
                    }
                }
                Deed::Read { seen, by_range } if is_first => match seen {
                    Observed::Nothing => register.reads.push(read(Seen::Nothing, *by_range)),
                    Observed::Value(value) => register.reads.push(read(Seen::Value(value), *by_range)),
                    Observed::List(_) => (),
                },
                Deed::Matched if is_first => register.reads.push(read(Seen::Version, false)),
                Deed::Read { .. } | Deed::Matched | Deed::Append(_) => (),
            }
        }
    }
    for transaction in &table.failed {
        for entry in &transaction.entries {
            if let Deed::Write(Some(value)) = &entry.deed {
                registers[entry.key].failed.insert(value, transaction.index);
            }
        }
    }
    registers
}

/// Indexes the writes by version; reports a version that stands for two.
fn versions(table: &Table, key: usize, register: &mut Register<'_>, findings: &mut Findings) {
    for (number, install) in register.installs.iter().enumerate() {
        let Some(version) = install.version else { continue };
        if let Some(other) = register.by_version.insert(version, number) {
            let other = table.name(register.installs[other].transaction);
            let (name, this) = (&table.keys[key], table.name(install.transaction));
            let text = format!("  {other} and {this} both wrote version {version} of key {name}");
            findings.add(Anomaly::VersionReuse, text);
        }
    }
}

/// Finds the write that a read saw; reports one that it cannot have seen.
#[expect(
    clippy::too_many_lines,
    reason = "one case after the other, each with its sentence"
)]
fn resolve(
    table: &Table,
    key: usize,
    register: &Register<'_>,
    number: usize,
    level: Level,
    findings: &mut Findings,
) -> Source {
    let read = &register.reads[number];
    let (reader, name) = (table.name(read.transaction), &table.keys[key]);
    let by_version = read
        .version
        .filter(|version| *version > 0)
        .and_then(|version| register.by_version.get(&version));
    let seen = match read.seen {
        Seen::Version => return by_version.map_or(Source::Open, |install| Source::Install(*install)),
        Seen::Nothing => None,
        Seen::Value(value) => Some(value),
    };
    let shown = explain::value(seen);
    if let Some(install) = by_version {
        let wrote = &register.installs[*install];
        if !wrote.value.can_be(seen) {
            let writer = table.name(wrote.transaction);
            let other = match wrote.value {
                Left::Value(value) => explain::value(value),
                Left::Sum => "a sum".into(),
            };
            let version = read.version.unwrap_or(0);
            let text =
                format!("  version {version} of key {name} is {other} to {writer} but {shown} to {reader}");
            findings.add(Anomaly::VersionReuse, text);
        }
        return Source::Install(*install);
    }
    let all = register.by_value.get(&seen).map_or(&[][..], Vec::as_slice);
    let fits = |install: &&usize| fits(table, &register.installs[**install], read, level);
    let mut fitting = all.iter().filter(fits);
    let Some(value) = seen else {
        return if fitting.next().is_none() && !register.may_expire {
            Source::First
        } else {
            Source::Open
        };
    };
    if register.has_unknown_sum && matches!(value, Datum::Integer(_)) {
        return Source::Open;
    }
    match (fitting.next(), fitting.next()) {
        (Some(install), None) => return Source::Install(*install),
        (Some(_), Some(_)) => return Source::Open,
        (None, _) => (),
    }
    let (anomaly, text) = if let Some(writer) = register.replaced.get(value) {
        if *writer == read.transaction {
            return Source::Open;
        }
        let writer = table.name(*writer);
        let text = format!("  {reader} read key {name} as {shown}, which {writer} wrote and itself replaced");
        (Anomaly::IntermediateRead, text)
    } else if let Some(index) = register.failed.get(value) {
        let text =
            format!("  {reader} read key {name} as {shown}, but T{index}, which wrote it, was not done");
        (Anomaly::AbortedRead, text)
    } else if let Some(other) = all
        .iter()
        .find(|install| register.installs[**install].version.is_some())
    {
        let writer = table.name(register.installs[*other].transaction);
        let text = format!("  {reader} read key {name} as {shown} at another version than {writer} wrote it");
        (Anomaly::VersionReuse, text)
    } else {
        (
            Anomaly::ValueFromNowhere,
            format!("  {reader} read key {name} as {shown}, but nobody wrote it before"),
        )
    };
    findings.add(anomaly, text);
    Source::Open
}

/// True if the read can have seen this write, as far as versions and (if promised) real time tell.
fn fits(table: &Table, install: &Install<'_>, read: &Read<'_>, level: Level) -> bool {
    let same = install.value == Left::Value(None)
        || read.version.is_none()
        || install.version.is_none_or(|own| Some(own) == read.version);
    let answered = table.transactions[read.transaction].answered_at;
    let called = table.transactions[install.transaction].called_at;
    let in_time = level != Level::StrictSerializable || answered.is_none_or(|answered| called < answered);
    same && in_time && install.transaction != read.transaction
}

/// What is known of the order of a key's writes.
#[derive(Default)]
struct Order {
    /// Transactions that wrote the key after this state; of those, all that no other is known to stand between.
    successors: BTreeMap<Source, Vec<usize>>,
    /// Transactions that read this state and replaced it.
    updates: BTreeMap<Source, Vec<usize>>,
    /// Pairs of transactions whose writes have rising versions, neighbours only.
    neighbours: Vec<(usize, usize)>,
}

fn order(table: &Table, register: &Register<'_>, seen: &[bool], level: Level) -> Order {
    let installs = &register.installs;
    let mut order = Order::default();
    let certain = installs
        .iter()
        .enumerate()
        .filter(|(_, install)| seen[install.transaction]);
    let by_transaction: BTreeMap<usize, usize> = certain
        .map(|(number, install)| (install.transaction, number))
        .collect();
    let mut links: Vec<(Source, usize)> = Vec::new();
    let versioned = by_transaction
        .values()
        .filter_map(|number| Some((installs[*number].version?, *number)));
    let mut versioned: Vec<(u64, usize)> = versioned.collect();
    versioned.sort_unstable();
    for both in versioned.windows(2).filter(|both| both[0].0 < both[1].0) {
        let (before, after) = (both[0].1, both[1].1);
        links.push((Source::Install(before), after));
        order
            .neighbours
            .push((installs[before].transaction, installs[after].transaction));
    }
    for read in register.reads.iter().filter(|read| read.source != Source::Open) {
        if let Some(after) = by_transaction.get(&read.transaction) {
            links.push((read.source, *after));
            order
                .updates
                .entry(read.source)
                .or_default()
                .push(read.transaction);
        }
    }
    if level == Level::StrictSerializable {
        let writers: Vec<usize> = by_transaction.keys().copied().collect();
        for (before, after) in realtime::reduced(table, &writers) {
            links.push((Source::Install(by_transaction[&before]), by_transaction[&after]));
        }
    }
    let follows: BTreeSet<usize> = links
        .iter()
        .filter(|(before, _)| *before != Source::First)
        .map(|(_, after)| *after)
        .collect();
    let firsts = by_transaction.values().filter(|number| !follows.contains(number));
    links.extend(firsts.map(|number| (Source::First, *number)));
    for (before, after) in links {
        order
            .successors
            .entry(before)
            .or_default()
            .push(installs[after].transaction);
    }
    order
}

fn connect(key: usize, register: &Register<'_>, mut order: Order, graph: &mut Graph) {
    for (before, after) in order.neighbours {
        graph.add(before, after, Kind::Overwritten, key);
    }
    let mut readers: BTreeMap<Source, Vec<(usize, Kind)>> = BTreeMap::new();
    for read in register.reads.iter().filter(|read| read.source != Source::Open) {
        let kind = if read.by_range {
            Kind::MissedInRange
        } else {
            Kind::Missed
        };
        readers
            .entry(read.source)
            .or_default()
            .push((read.transaction, kind));
        if let Source::Install(install) = read.source {
            graph.add(
                register.installs[install].transaction,
                read.transaction,
                Kind::ReadBy,
                key,
            );
        }
    }
    for (source, readers) in readers {
        if let Some(after) = order.successors.get_mut(&source) {
            after.sort_unstable();
            after.dedup();
            graph.add_all(&readers, after, key);
        }
    }
}

/// Reports transactions that read the same version and both replaced it: no order and no snapshot allows that.
fn lost_updates(table: &Table, key: usize, updates: &BTreeMap<Source, Vec<usize>>, findings: &mut Findings) {
    for both in updates.values().filter(|both| both.len() > 1) {
        let (one, other) = (both[0], both[1]);
        let text = format!(
            "  {} and {} both read the same version of key {} and both replaced it\n  {}\n  {}",
            table.name(one),
            table.name(other),
            table.keys[key],
            explain::transaction(table, one),
            explain::transaction(table, other)
        );
        findings.add(Anomaly::LostUpdate, text);
    }
}
