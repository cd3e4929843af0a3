//! Which tables a shard's LSM tree has (O'Neil, Cheng, Gawlick, O'Neil, "The Log-Structured Merge-Tree", 1996), and
//! which of them to merge next. Facts about tables come in, choices go out; nothing here reads a table.
//!
//! ```text
//! newer   young runs   each made by a flush, or by a merge of neighbours
//!   |     level 1
//!   v     ...
//! older   last level
//! ```
//!
//! A *run* is tables that share no key, in order. Each level is one run. Of any key, the versions in one run are newer
//! than those in all runs below it, and all versions that a run has of a key lie in one table. So a reader may stop
//! at the first run that has a version at or below its snapshot.
//!
//! A *range tombstone* is a version of every key that it covers, so all of this holds for it too: a table reaches as
//! far as its range tombstones do, and what a run has of one is cut where its tables meet.
//!
//! [`leveled`] moves data from level to level, which costs writes and keeps space small; [`tiered`] keeps to young runs
//! and merges those of like size, which costs space and keeps writes few.

pub mod leveled;
pub mod pacing;
pub mod tiered;

#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::fmt;

use crate::hlc::Timestamp;

/// Levels of a tree, besides the young runs.
pub const LEVELS: usize = 6;

/// The number of a table, which no other table of the same core ever had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableNumber(pub u64);

/// What is known of a table without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// Its number.
    pub number: TableNumber,
    /// Length of its file in bytes.
    pub bytes: u64,
    /// The first key, or the first that a range tombstone covers.
    pub smallest: Box<[u8]>,
    /// The last key, or the end of its range tombstones.
    pub largest: Box<[u8]>,
    /// The table has nothing of the key `largest`: it is where a range tombstone ends.
    pub is_largest_excluded: bool,
    /// Keys.
    pub keys: u64,
    /// Versions of all keys.
    pub versions: u64,
    /// Versions that are tombstones.
    pub tombstones: u64,
    /// Range tombstones; none of them counts as a version.
    pub range_tombstones: u64,
    /// Bytes of the older tables that the range tombstones covered for a good part when the table was made.
    pub covered_bytes: u64,
    /// Versions that expire.
    pub expiring: u64,
    /// The latest moment at which one of them does.
    pub last_expiry: Timestamp,
    /// The newest timestamp of a version or a range tombstone.
    pub newest: Timestamp,
}

/// What a table, or several together, reach over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent<'a> {
    /// The first key.
    pub smallest: &'a [u8],
    /// The last key.
    pub largest: &'a [u8],
    /// `largest` itself does not belong to it.
    pub is_largest_excluded: bool,
}

impl Extent<'_> {
    /// Does it end before this key?
    pub fn ends_before(&self, key: &[u8]) -> bool {
        *self.largest < *key || self.is_largest_excluded && *self.largest == *key
    }
}

impl TableInfo {
    /// Could it have a version of this key?
    pub fn covers(&self, key: &[u8]) -> bool {
        *self.smallest <= *key && !self.ends_before(key)
    }

    /// What it reaches over.
    pub fn extent(&self) -> Extent<'_> {
        Extent {
            smallest: &self.smallest,
            largest: &self.largest,
            is_largest_excluded: self.is_largest_excluded,
        }
    }

    /// Does it end before this key?
    pub fn ends_before(&self, key: &[u8]) -> bool {
        self.extent().ends_before(key)
    }

    /// Is so much of older tables covered by its range tombstones, all of which are below `watermark`, that it is worth
    /// merging them: as many percent of its own bytes?
    fn covers_much(&self, watermark: Timestamp, percent: u64) -> bool {
        self.newest < watermark
            && self.covered_bytes > 0
            && self.covered_bytes.saturating_mul(100) >= self.bytes.saturating_mul(percent)
    }

    /// Versions that any merge drops when nobody reads below `watermark`: those that the table has newer ones of, if
    /// all of them are below it.
    fn shadowed(&self, watermark: Timestamp) -> u64 {
        if self.newest >= watermark {
            return 0;
        }
        self.versions.saturating_sub(self.keys)
    }

    /// Versions that a merge into the last level drops when nobody reads below `watermark`, at most: those that are
    /// shadowed, tombstones, and what has expired, if all of that is below it. Range tombstones count like others.
    fn droppable(&self, watermark: Timestamp) -> u64 {
        if self.newest >= watermark {
            return 0;
        }
        let expired = if self.last_expiry < watermark {
            self.expiring
        } else {
            0
        };
        self.shadowed(watermark) + self.tombstones + self.range_tombstones + expired
    }
}

/// Tables that share no key, in the order of their keys.
pub type Run = Vec<Rc<TableInfo>>;

/// The part of a run, by positions, that shares keys with an extent.
fn overlapping(run: &Run, extent: Extent<'_>) -> core::ops::Range<usize> {
    let start = run.partition_point(|table| table.ends_before(extent.smallest));
    let end = run.partition_point(|table| !extent.ends_before(&table.smallest));
    start..end.max(start)
}

/// Length of all tables of a run, in bytes.
pub fn run_bytes(run: &Run) -> u64 {
    run.iter().map(|table| table.bytes).sum()
}

/// All tables of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// From the newest to the oldest.
    pub young: Vec<Run>,
    /// `levels[0]` is level 1.
    pub levels: [Run; LEVELS],
}

/// Where a run lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Among the young runs: in place of those that the edit takes away, or as the newest if it takes none.
    Young,
    /// In a level, from 1 to [`LEVELS`].
    Level(usize),
}

/// A change of a tree that is made at once or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Tables that go.
    pub removed: Vec<TableNumber>,
    /// Where the new ones come.
    pub place: Place,
    /// Tables that come; they share no key. May be none.
    pub added: Run,
}

/// An edit that does not fit its tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// It takes a table away that is not there.
    Absent(TableNumber),
    /// It brings a table whose number is there already.
    Present(TableNumber),
    /// The tables that it brings are not in order, or share keys with each other or with their level.
    Shared(TableNumber),
    /// It takes away only a part of a young run, or young runs that are no neighbours, and brings a young one.
    Torn,
    /// There is no such level.
    Level(usize),
}

impl fmt::Display for Misfit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misfit::Absent(number) => write!(formatter, "table {} is to go, and is not there", number.0),
            Misfit::Present(number) => write!(formatter, "table {} is to come, and is there", number.0),
            Misfit::Shared(number) => write!(formatter, "table {} has keys of its neighbour", number.0),
            Misfit::Torn => formatter.write_str("young runs that are to be one are no neighbours"),
            Misfit::Level(level) => write!(formatter, "there is no level {level}"),
        }
    }
}

impl core::error::Error for Misfit {}

impl Tree {
    /// All runs, from the newest to the oldest.
    pub fn runs(&self) -> impl DoubleEndedIterator<Item = &Run> {
        self.young.iter().chain(&self.levels)
    }

    /// All tables, from the newest run to the oldest.
    pub fn tables(&self) -> impl Iterator<Item = &Rc<TableInfo>> {
        self.runs().flatten()
    }

    /// Length of all tables, in bytes.
    pub fn bytes(&self) -> u64 {
        self.runs().map(run_bytes).sum()
    }

    /// The tables that may have a version of a key, from the newest to the oldest: one of a run at most.
    pub fn tables_of<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = &'a Rc<TableInfo>> {
        self.runs().filter_map(move |run| {
            let place = run.partition_point(|table| table.ends_before(key));
            run.get(place).filter(|table| table.covers(key))
        })
    }

    /// Is there a table that may have this key?
    pub fn covers(&self, key: &[u8]) -> bool {
        self.tables_of(key).next().is_some()
    }

    /// Makes an edit.
    ///
    /// # Errors
    /// If it does not fit; the tree is as it was then.
    pub fn apply(&mut self, edit: &Edit) -> Result<(), Misfit> {
        let mut changed = self.clone();
        changed.take_and_bring(edit)?;
        *self = changed;
        Ok(())
    }

    fn take_and_bring(&mut self, edit: &Edit) -> Result<(), Misfit> {
        let removed: BTreeSet<TableNumber> = edit.removed.iter().copied().collect();
        let present: BTreeSet<TableNumber> = self.tables().map(|table| table.number).collect();
        if let Some(absent) = removed.iter().find(|number| !present.contains(number)) {
            return Err(Misfit::Absent(*absent));
        }
        // A table that is moved goes and comes.
        let is_there = |number: &TableNumber| present.contains(number) && !removed.contains(number);
        if let Some(table) = edit.added.iter().find(|table| is_there(&table.number)) {
            return Err(Misfit::Present(table.number));
        }
        // The young runs that go, and what they leave behind.
        let goes = |table: &Rc<TableInfo>| removed.contains(&table.number);
        let touched: Vec<usize> = (0..self.young.len())
            .filter(|place| self.young[*place].iter().any(goes))
            .collect();
        if edit.place == Place::Young {
            let are_neighbours = touched.windows(2).all(|pair| pair[0] + 1 == pair[1]);
            let are_whole = touched.iter().all(|place| self.young[*place].iter().all(goes));
            if !are_neighbours || !are_whole {
                return Err(Misfit::Torn);
            }
        }
        for run in self.young.iter_mut().chain(&mut self.levels) {
            run.retain(|table| !goes(table));
        }
        match edit.place {
            Place::Young => {
                let place = touched.first().copied().unwrap_or(0);
                self.young.insert(place, edit.added.clone());
                in_order(&self.young[place])?;
            }
            Place::Level(level) => {
                let run = level.checked_sub(1).and_then(|place| self.levels.get_mut(place));
                let run = run.ok_or(Misfit::Level(level))?;
                run.extend(edit.added.iter().cloned());
                run.sort_by(|one, other| one.smallest.cmp(&other.smallest));
                in_order(run)?;
            }
        }
        self.young.retain(|run| !run.is_empty());
        Ok(())
    }

    /// What lies below all of these tables, for what comes on top of them.
    pub fn older(&self) -> Older<'_> {
        Older {
            runs: self.runs().collect(),
            inputs: &[],
        }
    }

    /// What lies below the place where a choice puts what comes of it, but for its inputs.
    pub fn older_than<'a>(&'a self, choice: &'a Choice) -> Older<'a> {
        let first = match choice.output {
            Place::Level(level) => self.young.len() + level,
            // What a merge of young runs leaves is in place of the oldest of them.
            Place::Young => {
                let is_input = |table: &Rc<TableInfo>| choice.inputs.contains(&table.number);
                self.young
                    .iter()
                    .rposition(|run| run.iter().any(is_input))
                    .map_or(0, |place| place + 1)
            }
        };
        Older {
            runs: self.runs().skip(first).collect(),
            inputs: &choice.inputs,
        }
    }
}

/// Tables that have what is older than the tables to be made.
pub struct Older<'a> {
    runs: Vec<&'a Run>,
    /// Tables that go, and do not count.
    inputs: &'a [TableNumber],
}

/// What a range of keys meets in older tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Covered {
    /// Tables that may have something of these keys.
    pub tables: usize,
    /// Bytes of those of them of which the range has one end at least.
    pub bytes: u64,
}

impl Older<'_> {
    /// Is there a table with this key? If not, a tombstone of the key has nothing to hide.
    pub fn has(&self, key: &[u8]) -> bool {
        self.runs.iter().any(|run| {
            let place = run.partition_point(|table| table.ends_before(key));
            run.get(place)
                .is_some_and(|table| table.covers(key) && !self.inputs.contains(&table.number))
        })
    }

    /// What the keys from `start` up to `end`, which is excluded, meet. If it is no table, a range tombstone of these
    /// keys has nothing to hide.
    pub fn covered(&self, start: &[u8], end: &[u8]) -> Covered {
        let extent = Extent {
            smallest: start,
            largest: end,
            is_largest_excluded: true,
        };
        let mut covered = Covered::default();
        for run in &self.runs {
            let tables = run[overlapping(run, extent)].iter();
            for table in tables.filter(|table| !self.inputs.contains(&table.number)) {
                covered.tables += 1;
                let has_end = *table.smallest >= *start || *table.largest < *end;
                covered.bytes += if has_end { table.bytes } else { 0 };
            }
        }
        covered
    }
}

fn in_order(run: &Run) -> Result<(), Misfit> {
    let inverted = run.iter().find(|table| table.ends_before(&table.smallest));
    let shared = run
        .windows(2)
        .find(|pair| !pair[0].ends_before(&pair[1].smallest));
    match inverted.or(shared.map(|pair| &pair[1])) {
        Some(table) => Err(Misfit::Shared(table.number)),
        None => Ok(()),
    }
}

/// Why tables are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// There are many young runs.
    Young,
    /// There are many young runs, and those below are busy: they become one among themselves.
    YoungAmongThemselves,
    /// A level has more bytes than it should.
    Level,
    /// Runs are of like size.
    Size,
    /// All but the oldest run take much space.
    Space,
    /// A table has much that can be dropped.
    Droppable,
}

/// Tables to merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Why.
    pub reason: Reason,
    /// The tables, in no particular order.
    pub inputs: Vec<TableNumber>,
    /// Where what comes of them goes.
    pub output: Place,
    /// The one table can go there as it is, for nothing there shares its keys and it has nothing to drop.
    pub is_move: bool,
}

/// How a tree is kept in shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Which way.
    pub strategy: CompactionStrategy,
    /// So many young runs are merged. At least 2.
    pub young_runs: usize,
    /// A level should have so many times the bytes of the one above. At least 2.
    pub ratio: u64,
    /// The highest level in use should not have more bytes than this.
    pub base_bytes: u64,
    /// The most bytes that one merge should read.
    pub merge_bytes_max: u64,
    /// A table is rewritten when so many percent of its versions can be dropped.
    pub droppable_percent: u64,
    /// A table goes down when its range tombstones cover so many percent of its own bytes in older tables.
    pub covered_percent: u64,
}

/// See [`leveled`] and [`tiered`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionStrategy {
    /// One run a level.
    Leveled,
    /// Young runs only.
    Tiered,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            strategy: CompactionStrategy::Leveled,
            young_runs: 4,
            ratio: 10,
            base_bytes: 64 << 20,
            merge_bytes_max: 512 << 20,
            droppable_percent: 15,
            covered_percent: 50,
        }
    }
}

/// What to merge next, if anything: with tables that no running merge has (`busy`), for a tree of which nobody reads
/// versions below `watermark` but the newest.
pub fn pick(
    tree: &Tree,
    busy: &BTreeSet<TableNumber>,
    options: &Options,
    watermark: Timestamp,
) -> Option<Choice> {
    let by_size = match options.strategy {
        CompactionStrategy::Leveled => leveled::pick_by_size(tree, busy, options, watermark),
        CompactionStrategy::Tiered => tiered::pick_by_size(tree, busy, options),
    };
    by_size.or_else(|| pick_freeing(tree, busy, options, watermark))
}

/// As [`pick`], but only what gives space back, before what sizes ask for.
pub fn pick_freeing(
    tree: &Tree,
    busy: &BTreeSet<TableNumber>,
    options: &Options,
    watermark: Timestamp,
) -> Option<Choice> {
    match options.strategy {
        CompactionStrategy::Leveled => leveled::pick_freeing(tree, busy, options, watermark),
        CompactionStrategy::Tiered => tiered::pick_freeing(tree, busy, options, watermark),
    }
}

/// What to merge next without the oldest run that another choice has, as if that were busy: less.
pub fn pick_smaller(
    tree: &Tree,
    busy: &BTreeSet<TableNumber>,
    options: &Options,
    watermark: Timestamp,
    than: &Choice,
) -> Option<Choice> {
    let has_input = |run: &Run| run.iter().any(|table| than.inputs.contains(&table.number));
    let oldest = tree.runs().rfind(|run| has_input(run))?;
    let mut busy = busy.clone();
    busy.extend(oldest.iter().map(|table| table.number));
    pick(tree, &busy, options, watermark)
}

/// Bytes that have to go down until a tree is in shape; of a tiered one, those of the runs that have to be merged into
/// older ones.
pub fn debt_bytes(tree: &Tree, options: &Options) -> u64 {
    match options.strategy {
        CompactionStrategy::Leveled => leveled::debt_bytes(tree, options),
        CompactionStrategy::Tiered => tiered::debt_bytes(tree, options),
    }
}

/// Bytes that the merges which are due may have to read: the debt, and what it is merged with; of a tiered tree, those
/// of all runs that sizes ask to merge.
pub fn due_bytes(tree: &Tree, options: &Options) -> u64 {
    match options.strategy {
        CompactionStrategy::Leveled => leveled::due_bytes(tree, options),
        CompactionStrategy::Tiered => tiered::due_bytes(tree, options),
    }
}

/// Young runs that wait to be merged: all of a leveled tree. Those of a tiered one stay, if they are of unlike size.
pub fn waiting_runs(tree: &Tree, options: &Options) -> usize {
    match options.strategy {
        CompactionStrategy::Leveled => tree.young.len(),
        CompactionStrategy::Tiered => tiered::waiting_runs(tree, options),
    }
}

/// What these tables reach over together. None if there are none.
fn bounds<'a>(tables: impl Iterator<Item = &'a Rc<TableInfo>>) -> Option<Extent<'a>> {
    tables.map(|table| table.extent()).reduce(|one, other| {
        let farther = |extent: &Extent<'a>| (extent.largest, !extent.is_largest_excluded);
        let last = if farther(&one) < farther(&other) {
            other
        } else {
            one
        };
        Extent {
            smallest: one.smallest.min(other.smallest),
            ..last
        }
    })
}
