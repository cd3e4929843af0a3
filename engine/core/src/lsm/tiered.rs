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

/// What sizes ask for.
pub(super) fn pick_by_size(tree: &Tree, busy: &BTreeSet<TableNumber>, options: &Options) -> Option<Choice> {
    space(tree, busy, options).or_else(|| like_sizes(tree, busy, options))
}

/// What gives space back, whatever the sizes are.
pub(super) fn pick_freeing(
    tree: &Tree,
    busy: &BTreeSet<TableNumber>,
    options: &Options,
    watermark: Timestamp,
) -> Option<Choice> {
    droppable(tree, busy, options, watermark)
        .or_else(|| shadowed(tree, busy, options, watermark))
        .or_else(|| covering(tree, busy, options, watermark))
}

/// The tables of all merges that sizes ask for, beside each other.
fn due(tree: &Tree, options: &Options) -> BTreeSet<TableNumber> {
    let mut due = BTreeSet::new();
    while let Some(choice) = pick_by_size(tree, &due, options) {
        due.extend(choice.inputs);
    }
    due
}

/// Bytes of the runs that have to be merged, but for the oldest one.
pub(super) fn debt_bytes(tree: &Tree, options: &Options) -> u64 {
    let mut due = due(tree, options);
    for table in Oldest::of(tree).iter().flat_map(|oldest| &oldest.tables) {
        due.remove(&table.number);
    }
    bytes_of(tree, &due)
}

/// Bytes of all runs that have to be merged.
pub(super) fn due_bytes(tree: &Tree, options: &Options) -> u64 {
    bytes_of(tree, &due(tree, options))
}

fn bytes_of(tree: &Tree, numbers: &BTreeSet<TableNumber>) -> u64 {
    let tables = tree.tables().filter(|table| numbers.contains(&table.number));
    tables.map(|table| table.bytes).sum()
}

/// Young runs that have to be merged.
pub(super) fn waiting_runs(tree: &Tree, options: &Options) -> usize {
    let due = due(tree, options);
    let is_due = |run: &&Run| run.iter().any(|table| due.contains(&table.number));
    tree.young.iter().filter(is_due).count()
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

/// The oldest runs, when range tombstones of theirs cover much of them, which gives its space back when they meet: as
/// few as that takes.
fn covering(
    tree: &Tree,
    busy: &BTreeSet<TableNumber>,
    options: &Options,
    watermark: Timestamp,
) -> Option<Choice> {
    let oldest = Oldest::of(tree)?;
    let covered_bytes = |table: &TableInfo| {
        let is_much = table.covers_much(watermark, options.covered_percent);
        if is_much { table.covered_bytes } else { 0 }
    };
    // Within the levels of a tree that was leveled before.
    let is_several = tree.levels.iter().filter(|level| !level.is_empty()).count() > 1;
    let within = oldest.tables.iter().filter(|_| is_several);
    let mut covered: u64 = within.map(|table| covered_bytes(table)).sum();
    let mut read = oldest.bytes();
    let mut first = oldest.newer.len();
    while covered == 0 || covered.saturating_mul(100) < read.saturating_mul(options.droppable_percent) {
        first = first.checked_sub(1)?;
        for table in &oldest.newer[first] {
            covered = covered.saturating_add(covered_bytes(table));
            read += table.bytes;
        }
    }
    oldest.merge(Reason::Droppable, &oldest.newer[first..], busy)
}

/// The run of which the largest part is versions that it has newer ones of, if that is much: it is written anew on its
/// own, wherever it lies. The oldest one is the task of [`droppable`].
fn shadowed(
    tree: &Tree,
    busy: &BTreeSet<TableNumber>,
    options: &Options,
    watermark: Timestamp,
) -> Option<Choice> {
    let percent = |run: &Run| {
        let shadowed: u64 = run.iter().map(|table| table.shadowed(watermark)).sum();
        let versions: u64 = run.iter().map(|table| table.versions).sum();
        shadowed * 100 / versions.max(1)
    };
    let idle = Oldest::of(tree)?.newer.iter().filter(|run| is_idle(run, busy));
    let (_, run) = idle
        .map(|run| (percent(run), run))
        .filter(|(percent, _)| *percent > 0 && *percent >= options.droppable_percent)
        .max_by_key(|(percent, _)| *percent)?;
    Some(Choice {
        reason: Reason::Droppable,
        inputs: run.iter().map(|table| table.number).collect(),
        output: Place::Young,
        is_move: false,
    })
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
