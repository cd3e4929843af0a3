//! Young runs only, merged when there are several of like size, as in "size-tiered" compaction of Bigtable's
//! descendants and `RocksDB`'s "universal" one. Each merge takes neighbours, so that ages stay in order.

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

fn merge(reason: Reason, runs: &[Run]) -> Choice {
    Choice {
        reason,
        inputs: runs.iter().flatten().map(|table| table.number).collect(),
        output: Place::Young,
        is_move: false,
    }
}

/// All runs, when those but the oldest have grown beyond their part.
fn space(tree: &Tree, busy: &BTreeSet<TableNumber>, options: &Options) -> Option<Choice> {
    let (oldest, newer) = tree.young.split_last()?;
    let newer_bytes: u64 = newer.iter().map(run_bytes).sum();
    let is_much =
        newer_bytes * 100 > run_bytes(oldest) * SPACE_PERCENT && newer.len() + 1 >= options.young_runs;
    (is_much && tree.young.iter().all(|run| is_idle(run, busy))).then(|| merge(Reason::Space, &tree.young))
}

/// The longest row of neighbours, from the newest that are idle on, that are of like size.
fn like_sizes(tree: &Tree, busy: &BTreeSet<TableNumber>, options: &Options) -> Option<Choice> {
    for start in 0..tree.young.len() {
        let mut bytes = 0;
        let mut taken = 0;
        for run in &tree.young[start..] {
            let own_bytes = run_bytes(run);
            let is_like = taken == 0 || own_bytes * 100 <= bytes * LIKE_PERCENT;
            if !is_idle(run, busy) || !is_like {
                break;
            }
            bytes += own_bytes;
            taken += 1;
        }
        if taken >= options.young_runs {
            return Some(merge(Reason::Size, &tree.young[start..start + taken]));
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
    let covers_much = |table: &Rc<TableInfo>| table.covers_much(watermark, options.covered_percent);
    let first = tree.young.iter().position(|run| run.iter().any(covers_much))?;
    let runs = &tree.young[first..];
    runs.iter()
        .all(|run| is_idle(run, busy))
        .then(|| merge(Reason::Droppable, runs))
}

/// The oldest run, when much of it can be dropped.
fn droppable(
    tree: &Tree,
    busy: &BTreeSet<TableNumber>,
    options: &Options,
    watermark: Timestamp,
) -> Option<Choice> {
    let oldest = tree.young.last()?;
    let sum = |count: fn(&TableInfo, Timestamp) -> u64| -> u64 {
        oldest
            .iter()
            .map(|table: &Rc<TableInfo>| count(table, watermark))
            .sum()
    };
    // A tree that was leveled before has older runs below, which tombstones may have to hide.
    let is_last = tree.levels.iter().all(Vec::is_empty);
    let of_table = if is_last {
        TableInfo::droppable
    } else {
        TableInfo::shadowed
    };
    let (droppable, versions) = (sum(of_table), sum(|table, _| table.versions));
    let is_much = droppable * 100 >= versions * options.droppable_percent && droppable > 0;
    let inputs: Vec<TableNumber> = oldest.iter().map(|table| table.number).collect();
    (is_much && is_idle(oldest, busy)).then_some(Choice {
        reason: Reason::Droppable,
        inputs,
        output: Place::Young,
        is_move: false,
    })
}
