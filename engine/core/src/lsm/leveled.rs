//! Levels, each a multiple of the one above. The last level has almost all of the data, so that what is stored twice is
//! little: targets are counted from what the last level has, and levels that would be tiny are left out ("dynamic level
//! size": Dong and others, "Optimizing Space Amplification in `RocksDB`", CIDR 2017, section 3).

use alloc::collections::BTreeSet;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;

use super::{
    Choice, LEVELS, Options, Place, Reason, Run, TableInfo, TableNumber, Tree, bounds, overlapping, run_bytes,
};
use crate::hlc::Timestamp;

/// One, in the fixed point numbers of [`scores`].
const ONE: u64 = 1000;

/// What each level should have, in bytes; `targets[0]` is of level 1. Levels above the first in use have 0.
pub fn targets(tree: &Tree, options: &Options) -> [u64; LEVELS] {
    let mut targets = [0; LEVELS];
    let largest = tree.levels.iter().map(run_bytes).max().unwrap_or(0);
    let mut target = largest.max(options.base_bytes);
    for level in (0..LEVELS).rev() {
        targets[level] = target;
        if target <= options.base_bytes {
            break;
        }
        target /= options.ratio;
    }
    targets
}

/// How urgent the young runs are, then each level but the last, in thousandths: from a thousand on there is something
/// to do.
pub fn scores(tree: &Tree, options: &Options) -> [u64; LEVELS] {
    let mut scores = [0; LEVELS];
    scores[0] = tree.young.len() as u64 * ONE / options.young_runs as u64;
    for (level, target) in targets(tree, options).into_iter().enumerate().take(LEVELS - 1) {
        // What lies in a level that is not in use has to go down.
        scores[level + 1] = run_bytes(&tree.levels[level]).saturating_mul(ONE) / target.max(1);
    }
    scores
}

/// Bytes that have to go down until the tree is in shape: those of the young runs from the bound on, and those that
/// levels have beyond their targets.
pub fn debt_bytes(tree: &Tree, options: &Options) -> u64 {
    let young = if tree.young.len() >= options.young_runs {
        tree.young.iter().map(run_bytes).sum()
    } else {
        0
    };
    let targets = targets(tree, options);
    let beyond = (0..LEVELS - 1).map(|level| run_bytes(&tree.levels[level]).saturating_sub(targets[level]));
    young + beyond.sum::<u64>()
}

/// Bytes that the merges which are due may have to read: what is to go down, and what lies where it goes.
pub(super) fn due_bytes(tree: &Tree, options: &Options) -> u64 {
    let bytes = |level: usize| run_bytes(&tree.levels[level]);
    let young = if tree.young.len() >= options.young_runs {
        tree.young.iter().map(run_bytes).sum::<u64>() + base(tree, options).map_or(0, bytes)
    } else {
        0
    };
    let targets = targets(tree, options);
    let levels = (0..LEVELS - 1).map(|level| {
        let beyond = u128::from(bytes(level).saturating_sub(targets[level]));
        // Each table is merged with its part of the next level.
        let below = beyond * u128::from(bytes(level + 1)) / u128::from(bytes(level).max(1));
        u64::try_from(beyond + below).expect("no more than both levels have")
    });
    young + levels.sum::<u64>()
}

/// What sizes ask for.
pub(super) fn pick_by_size(
    tree: &Tree,
    busy: &BTreeSet<TableNumber>,
    options: &Options,
    watermark: Timestamp,
) -> Option<Choice> {
    let mut by_score: Vec<(u64, usize)> = scores(tree, options)
        .into_iter()
        .enumerate()
        .filter(|(_, score)| *score >= ONE)
        .map(|(level, score)| (score, level))
        .collect();
    by_score.sort_unstable_by_key(|(score, level)| (core::cmp::Reverse(*score), *level));
    by_score.into_iter().find_map(|(_, level)| match level {
        0 => young(tree, busy, options),
        level => one_table(tree, busy, level, watermark),
    })
}

/// What gives space back, whatever the sizes are.
pub(super) fn pick_freeing(
    tree: &Tree,
    busy: &BTreeSet<TableNumber>,
    options: &Options,
    watermark: Timestamp,
) -> Option<Choice> {
    droppable(tree, busy, options, watermark)
        .or_else(|| droppable_young(tree, busy, options, watermark))
        .or_else(|| covering(tree, busy, options, watermark))
}

/// The young runs, when much of them can be dropped: where nothing is written any more they would stay as they are.
fn droppable_young(
    tree: &Tree,
    busy: &BTreeSet<TableNumber>,
    options: &Options,
    watermark: Timestamp,
) -> Option<Choice> {
    let tables = || tree.young.iter().flatten();
    let droppable: u64 = tables().map(|table| table.droppable(watermark)).sum();
    let versions: u64 = tables().map(|table| table.versions).sum();
    if droppable == 0 || droppable * 100 < versions * options.droppable_percent {
        return None;
    }
    downwards(tree, busy, options)
}

/// The young runs, if one of them has range tombstones that cover much: what they cover gives its space back when they
/// meet.
fn covering(
    tree: &Tree,
    busy: &BTreeSet<TableNumber>,
    options: &Options,
    watermark: Timestamp,
) -> Option<Choice> {
    let covers_much = |table: &Rc<TableInfo>| table.covers_much(watermark, options.covered_percent);
    let has_many = tree.young.iter().flatten().any(covers_much);
    if !has_many {
        return None;
    }
    downwards(tree, busy, options)
}

/// The young runs into the first level, however few they are: not among themselves, which drops nothing for good.
fn downwards(tree: &Tree, busy: &BTreeSet<TableNumber>, options: &Options) -> Option<Choice> {
    let choice = young(tree, busy, options).filter(|choice| choice.reason == Reason::Young)?;
    Some(Choice {
        reason: Reason::Droppable,
        is_move: false,
        ..choice
    })
}

/// The level that young runs go into, counted from 0 for level 1. Nothing may be passed over: no level that is still to
/// be emptied.
fn base(tree: &Tree, options: &Options) -> Option<usize> {
    let base = targets(tree, options).iter().position(|target| *target > 0)?;
    let passed_over = tree.levels[..base].iter().position(|run| !run.is_empty());
    Some(passed_over.unwrap_or(base))
}

/// The oldest young runs with what they share keys with in the first level that is in use.
fn young(tree: &Tree, busy: &BTreeSet<TableNumber>, options: &Options) -> Option<Choice> {
    let is_idle = |table: &Rc<TableInfo>| !busy.contains(&table.number);
    let base = base(tree, options)?;
    let mut taken = 0;
    let mut bytes = 0;
    for run in tree.young.iter().rev() {
        bytes += run_bytes(run);
        if !run.iter().all(is_idle) || taken > 0 && bytes > options.merge_bytes_max {
            break;
        }
        taken += 1;
    }
    let runs = &tree.young[tree.young.len() - taken..];
    let below = bounds(runs.iter().flatten())
        .map(|extent| &tree.levels[base][overlapping(&tree.levels[base], extent)])
        .filter(|below| below.iter().all(is_idle));
    let Some(below) = below else {
        return among_themselves(tree, busy, options);
    };
    let inputs: Vec<TableNumber> = runs
        .iter()
        .flatten()
        .chain(below)
        .map(|table| table.number)
        .collect();
    Some(Choice {
        reason: Reason::Young,
        is_move: inputs.len() == 1,
        inputs,
        output: Place::Level(base + 1),
    })
}

/// The newest young runs, when those below them are busy and runs go on to come.
fn among_themselves(tree: &Tree, busy: &BTreeSet<TableNumber>, options: &Options) -> Option<Choice> {
    let is_idle = |run: &&Run| run.iter().all(|table| !busy.contains(&table.number));
    let mut bytes = 0;
    let runs: Vec<&Run> = tree
        .young
        .iter()
        .take_while(is_idle)
        .take_while(|run| {
            bytes += run_bytes(run);
            bytes <= options.merge_bytes_max
        })
        .collect();
    (runs.len() >= options.young_runs).then(|| Choice {
        reason: Reason::YoungAmongThemselves,
        inputs: runs.into_iter().flatten().map(|table| table.number).collect(),
        output: Place::Young,
        is_move: false,
    })
}

/// The table of a level that takes the fewest bytes of the next one along, for each of its own.
fn one_table(
    tree: &Tree,
    busy: &BTreeSet<TableNumber>,
    level: usize,
    watermark: Timestamp,
) -> Option<Choice> {
    let candidates = tree.levels[level - 1].iter().filter_map(|table| {
        let below = down(tree, busy, level, table)?;
        let below_bytes: u64 = below.iter().map(|table| table.bytes).sum();
        let cost = below_bytes.saturating_mul(ONE) / table.bytes.max(1);
        Some((cost, table, below))
    });
    let (_, table, below) = candidates.min_by_key(|(cost, table, _)| (*cost, table.number))?;
    Some(with_below(Reason::Level, table, below, level, watermark))
}

/// The table with the largest part that can be dropped, if that is large, or whose range tombstones cover much: into
/// the next level, or in place if it is in the last one.
fn droppable(
    tree: &Tree,
    busy: &BTreeSet<TableNumber>,
    options: &Options,
    watermark: Timestamp,
) -> Option<Choice> {
    let percent = |table: &TableInfo| table.droppable(watermark) * 100 / table.versions.max(1);
    let candidates = (1..=LEVELS).flat_map(|level| {
        let tables = tree.levels[level - 1].iter();
        tables.filter_map(move |table| {
            let is_much = (percent(table) >= options.droppable_percent
                || table.covers_much(watermark, options.covered_percent))
                && !busy.contains(&table.number);
            let below = if level == LEVELS {
                &[][..]
            } else {
                down(tree, busy, level, table)?
            };
            is_much.then_some((percent(table), level, table, below))
        })
    });
    let (_, level, table, below) = candidates
        .max_by_key(|(percent, level, table, _)| (*percent, *level, core::cmp::Reverse(table.number)))?;
    if level == LEVELS {
        return Some(Choice {
            reason: Reason::Droppable,
            inputs: vec![table.number],
            output: Place::Level(level),
            is_move: false,
        });
    }
    Some(with_below(Reason::Droppable, table, below, level, watermark))
}

/// What a table of a level shares keys with in the next one, if neither it nor any of that is busy.
fn down<'a>(
    tree: &'a Tree,
    busy: &BTreeSet<TableNumber>,
    level: usize,
    table: &TableInfo,
) -> Option<&'a [Rc<TableInfo>]> {
    let run = &tree.levels[level];
    let below = &run[overlapping(run, table.extent())];
    let is_busy = |number: &TableNumber| busy.contains(number);
    (!is_busy(&table.number) && !below.iter().any(|table| is_busy(&table.number))).then_some(below)
}

fn with_below(
    reason: Reason,
    table: &Rc<TableInfo>,
    below: &[Rc<TableInfo>],
    level: usize,
    watermark: Timestamp,
) -> Choice {
    Choice {
        reason,
        inputs: [table]
            .into_iter()
            .chain(below)
            .map(|table| table.number)
            .collect(),
        output: Place::Level(level + 1),
        is_move: below.is_empty() && table.droppable(watermark) == 0,
    }
}
