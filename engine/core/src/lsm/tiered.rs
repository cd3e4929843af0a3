//! Young runs only, merged when there are several of like size, as in "size-tiered" compaction of Bigtable's
//! descendants and `RocksDB`'s "universal" one. Each merge takes neighbours, so that ages stay in order.
//!
//! The levels of a tree that was leveled before count as its oldest run, and become one in the last of them.

use alloc::collections::BTreeSet;
use alloc::rc::Rc;
use alloc::vec::Vec;

use super::{Choice, Options, Place, Reason, Run, TableInfo, TableNumber, Tree, run_bytes};
use crate::hlc::Timestamp;

/// All runs but the oldest may have so many percent of its bytes.
const SPACE_PERCENT: u64 = 200;
/// A run is of like size if it has at most so many percent of the bytes of all newer ones that are merged.
const LIKE_PERCENT: u64 = 120;

pub(super) fn pick(
    tree: &Tree,
    busy: &BTreeSet<TableNumber>,
    options: &Options,
    watermark: Timestamp,
) -> Option<Choice> {
    space(tree, busy, options)
        .or_else(|| like_sizes(tree, busy, options))
        .or_else(|| droppable(tree, busy, options, watermark))
        .or_else(|| covering(tree, busy, options, watermark))
}

/// Bytes of the runs that are more than there should be, from the newest on.
pub(super) fn debt_bytes(tree: &Tree, options: &Options) -> u64 {
    let surplus = tree.young.len().saturating_sub(options.young_runs - 1);
    tree.young.iter().take(surplus).map(run_bytes).sum()
}

fn is_idle(run: &Run, busy: &BTreeSet<TableNumber>) -> bool {
    run.iter().all(|table| !busy.contains(&table.number))
}

/// The oldest run.
struct Oldest<'a> {
    tables: Vec<&'a Rc<TableInfo>>,
    /// All others.
    newer: &'a [Run],
    /// Where it lies.
    place: Place,
}

impl<'a> Oldest<'a> {
    fn of(tree: &'a Tree) -> Option<Oldest<'a>> {
        if let Some(last) = tree.levels.iter().rposition(|level| !level.is_empty()) {
            return Some(Oldest {
                tables: tree.levels.iter().flatten().collect(),
                newer: &tree.young,
                place: Place::Level(last + 1),
            });
        }
        let (oldest, newer) = tree.young.split_last()?;
        Some(Oldest {
            tables: oldest.iter().collect(),
            newer,
            place: Place::Young,
        })
    }

    fn bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.bytes).sum()
    }

    /// Merges it with these runs, the oldest of the others, unless one of the tables is busy.
    fn merge(&self, reason: Reason, newer: &[Run], busy: &BTreeSet<TableNumber>) -> Option<Choice> {
        let tables = newer.iter().flatten().chain(self.tables.iter().copied());
        let inputs: Vec<TableNumber> = tables.map(|table| table.number).collect();
        let is_idle = inputs.iter().all(|number| !busy.contains(number));
        is_idle.then_some(Choice {
            reason,
            inputs,
            output: self.place,
            is_move: false,
        })
    }
}

/// All runs, when those but the oldest have grown beyond their part.
fn space(tree: &Tree, busy: &BTreeSet<TableNumber>, options: &Options) -> Option<Choice> {
    let oldest = Oldest::of(tree)?;
    let newer_bytes: u64 = oldest.newer.iter().map(run_bytes).sum();
    let is_much = newer_bytes * 100 > oldest.bytes() * SPACE_PERCENT;
    let are_many = oldest.newer.len() + 1 >= options.young_runs;
    (is_much && are_many)
        .then(|| oldest.merge(Reason::Space, oldest.newer, busy))
        .flatten()
}

/// The longest row of neighbours, from the newest that are idle on, that are of like size.
fn like_sizes(tree: &Tree, busy: &BTreeSet<TableNumber>, options: &Options) -> Option<Choice> {
    let oldest = Oldest::of(tree)?;
    for start in 0..=oldest.newer.len() {
        let rest = &oldest.newer[start..];
        let mut bytes = 0;
        let mut is_like = |own_bytes: u64| {
            let is_like = bytes == 0 || own_bytes * 100 <= bytes * LIKE_PERCENT;
            bytes += own_bytes;
            is_like
        };
        let like = rest
            .iter()
            .take_while(|run| is_idle(run, busy) && is_like(run_bytes(run)));
        let taken = like.count();
        let is_oldest_like = taken == rest.len() && is_like(oldest.bytes());
        let choice = if is_oldest_like && taken + 1 >= options.young_runs {
            oldest.merge(Reason::Size, rest, busy)
        } else {
            None
        };
        if choice.is_some() {
            return choice;
        }
        if taken >= options.young_runs {
            return Some(Choice {
                reason: Reason::Size,
                inputs: rest[..taken].iter().flatten().map(|table| table.number).collect(),
                output: Place::Young,
                is_move: false,
            });
        }
    }
    None
}

/// All runs from the newest whose range tombstones cover much on: what they cover gives its space back when they meet.
fn covering(
    tree: &Tree,
    busy: &BTreeSet<TableNumber>,
    options: &Options,
    watermark: Timestamp,
) -> Option<Choice> {
    let oldest = Oldest::of(tree)?;
    let covers_much = |table: &Rc<TableInfo>| table.covers_much(watermark, options.covered_percent);
    let newer = oldest.newer;
    let first = newer.iter().position(|run| run.iter().any(covers_much));
    // Within the levels of a tree that was leveled before.
    let is_several = tree.levels.iter().filter(|level| !level.is_empty()).count() > 1;
    let is_within = || is_several && oldest.tables.iter().copied().any(covers_much);
    let first = first.or_else(|| is_within().then_some(newer.len()))?;
    oldest.merge(Reason::Droppable, &newer[first..], busy)
}

/// The oldest runs, when much of them can be dropped once they meet: as few as that takes.
fn droppable(
    tree: &Tree,
    busy: &BTreeSet<TableNumber>,
    options: &Options,
    watermark: Timestamp,
) -> Option<Choice> {
    let oldest = Oldest::of(tree)?;
    let mut droppable: u64 = oldest.tables.iter().map(|table| table.droppable(watermark)).sum();
    let mut versions: u64 = oldest.tables.iter().map(|table| table.versions).sum();
    let mut first = oldest.newer.len();
    while droppable == 0 || droppable * 100 < versions * options.droppable_percent {
        first = first.checked_sub(1)?;
        for table in &oldest.newer[first] {
            droppable += table.droppable(watermark);
            versions += table.versions;
        }
    }
    oldest.merge(Reason::Droppable, &oldest.newer[first..], busy)
}
