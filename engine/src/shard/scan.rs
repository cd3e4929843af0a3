//! Ordered scans over several shards at one snapshot: a page of what one core has.
//!
//! A scan goes up from `start`, or in reverse down from `end`. A page that stopped early (count, bytes, or keys
//! examined) carries its *resume key*, the bound that replaces the one where the scan began:
//!
//! - forward the next `start`, inclusive: the first key that was not looked at;
//! - in reverse the next `end`, exclusive: the last key that was looked at, whether it has an entry or not.
//!
//! So everything before the resume key in the direction of the scan (in reverse: at it, too) has been looked at,
//! and nothing after it. [`super::pages`] makes one page of several.

use std::cmp::Ordering;

use ostrakon_core::hlc::Timestamp;
use ostrakon_wire::message::ScanEntry;
use ostrakon_wire::routing::ShardId;

use super::dead::{Dead, DeadKeys};
use super::hiding::{Hiding, Reach};
use crate::env::together::all;
use crate::limits::SCAN_EXAMINED_MAX;
use crate::storage::memtable::{Cursor, Memtable, Version};
use crate::storage::sstable::reader::TableError;
use crate::storage::store::Store;
use crate::storage::store::tables::{OpenRun, RunSize};
use crate::storage::store::walk::{Ahead, RunWalk};

/// Entries for which a page makes room at once.
const ENTRIES_AT_ONCE: usize = 128;

/// What to scan.
#[derive(Clone, Debug)]
pub struct ScanRange {
    /// First key, inclusive.
    pub start: Vec<u8>,
    /// Last key, exclusive; `None` for no end.
    pub end: Option<Vec<u8>>,
    /// Largest number of entries in a page, at least 1.
    pub limit: usize,
    /// Bytes of keys and values after which a page ends; its first entry may exceed it.
    pub page_bytes: usize,
    /// Leave out the values.
    pub keys_only: bool,
    /// From the last key down to the first.
    pub reverse: bool,
}

impl ScanRange {
    /// What is left of it from a resume key on.
    pub fn resumed_at(self, key: Vec<u8>) -> ScanRange {
        if self.reverse {
            ScanRange {
                end: Some(key),
                ..self
            }
        } else {
            ScanRange { start: key, ..self }
        }
    }

    /// What each of so many cores is asked for. Keys lie where their hashes say, so a core has a binomial share of
    /// those that come next: three standard deviations above the mean, it has enough but for one page in a thousand.
    /// That one is short, and says where to go on, like any other that ends early.
    #[must_use]
    pub fn share_of_one(self, cores: u16) -> ScanRange {
        let cores = usize::from(cores);
        if cores == 1 {
            return self;
        }
        let mean = self.limit.div_ceil(cores);
        let limit = self.limit.min(mean + 3 * mean.isqrt() + 1);
        let page_bytes = self.page_bytes.div_ceil(cores);
        ScanRange {
            limit,
            page_bytes,
            ..self
        }
    }

    /// The bound at which the scan ends, if it has one.
    fn far_end(&self) -> Option<&[u8]> {
        if self.reverse {
            Some(&self.start)
        } else {
            self.end.as_deref()
        }
    }

    /// Less if the scan meets `left` before `right`.
    pub(super) fn order(&self, left: &[u8], right: &[u8]) -> Ordering {
        if self.reverse {
            right.cmp(left)
        } else {
            left.cmp(right)
        }
    }
}

struct PageEntry {
    key_start: usize,
    value_start: usize,
    value_end: usize,
    version: Timestamp,
    expiry: Option<Timestamp>,
}

/// Entries in the order of the scan and where to go on.
#[derive(Default)]
pub struct ScanPage {
    bytes: Vec<u8>,
    entries: Vec<PageEntry>,
    /// Where to go on when the range has more: forward inclusive, in reverse exclusive.
    pub resume_key: Option<Vec<u8>>,
}

impl ScanPage {
    /// Bytes of its keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry at a position.
    pub fn entry(&self, position: usize) -> Option<ScanEntry<'_>> {
        self.entries.get(position).map(|entry| ScanEntry {
            key: &self.bytes[entry.key_start..entry.value_start],
            value: &self.bytes[entry.value_start..entry.value_end],
            version: entry.version.0,
            expires: entry.expiry.map_or(0, |expiry| expiry.0),
        })
    }

    /// Looks at a key's version at `snapshot` and adds it, if a reader at that moment sees a value. False when the
    /// page has no room and the key was not looked at; a page without entries has room for anything.
    fn take(
        &mut self,
        key: &[u8],
        version: Option<Version<'_>>,
        snapshot: Timestamp,
        range: &ScanRange,
    ) -> bool {
        let is_full = self.len() >= range.limit || self.bytes.len() >= range.page_bytes;
        if is_full && !self.is_empty() {
            return false;
        }
        let Some((version, value)) = version.and_then(|found| Some((found, found.live_value(snapshot)?)))
        else {
            return true;
        };
        let shown = if range.keys_only { &[][..] } else { value };
        if !self.is_empty() && self.bytes.len() + key.len() + shown.len() > range.page_bytes {
            return false;
        }
        if self.is_empty() {
            // Most pages have as many entries as they may, and all of one size.
            let entries = range.limit.min(ENTRIES_AT_ONCE);
            let bytes = (key.len() + shown.len()) * entries;
            self.bytes.reserve(bytes.min(range.page_bytes));
            self.entries.reserve(entries);
        }
        let key_start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let value_start = self.bytes.len();
        self.bytes.extend_from_slice(shown);
        self.entries.push(PageEntry {
            key_start,
            value_start,
            value_end: self.bytes.len(),
            version: version.timestamp,
            expiry: version.expiry,
        });
        true
    }
}

/// A page in the making: of each key of a core's shards the newest version at or below the snapshot, if that is a value
/// which has not expired by then. Where blocks have to be read, it stops between two keys and goes on from there.
pub struct PageScan {
    snapshot: Timestamp,
    range: ScanRange,
    page: ScanPage,
    examined: usize,
    /// The key that was looked at last.
    last: Option<Vec<u8>>,
    shards: Vec<ShardWalks>,
}

/// What a page wants of all that a core's tables have.
#[derive(Clone, Copy)]
struct LikelyPart {
    wanted: RunSize,
    all: RunSize,
}

impl LikelyPart {
    /// Bytes of a run that the page passes, likely: the same part of each run.
    fn of_run(self, run: RunSize) -> u64 {
        let part = |wanted: u64, all: u64| {
            let bytes = u128::from(run.bytes) * u128::from(wanted) / u128::from(all.max(1));
            bytes.min(run.bytes.into()) as u64
        };
        part(self.wanted.keys, self.all.keys).min(part(self.wanted.bytes, self.all.bytes))
    }
}

/// Walks over the runs of one shard's tables.
struct ShardWalks {
    shard: ShardId,
    /// See [`Store::changes`]: with others, the walks begin anew.
    changes: u64,
    /// Where they began: behind what the shard remembered as dead, if there was something. Memtables have to be walked
    /// from there on, too, since what they hide in tables is passed over with them.
    bound: Option<Vec<u8>>,
    walks: Vec<RunWalk>,
    dead: Dead,
}

impl PageScan {
    /// A page that has looked at nothing.
    pub fn new(snapshot: Timestamp, range: ScanRange) -> PageScan {
        PageScan {
            snapshot,
            range,
            page: ScanPage::default(),
            examined: 0,
            last: None,
            shards: Vec::new(),
        }
    }

    /// The moment at which it reads.
    pub fn snapshot(&self) -> Timestamp {
        self.snapshot
    }

    /// The page, once [`PageScan::go_on`] has said that it is done.
    pub fn into_page(self) -> ScanPage {
        self.page
    }

    /// Reads what is missing, for all shards at once.
    ///
    /// # Errors
    /// If a block can't be read, or is damaged.
    pub async fn read(&mut self) -> Result<(), TableError> {
        let walks = self.shards.iter_mut().flat_map(|shard| &mut shard.walks);
        all(walks.filter(|walk| walk.is_unsettled()).map(RunWalk::settle)).await
    }

    /// Goes on as far as no block has to be read; true when the page is done. Each call is given the same shards in the
    /// same order, all readable at the snapshot.
    ///
    /// # Errors
    /// If an index of a table is damaged, or a block that was read ahead.
    pub fn go_on<'a>(
        &mut self,
        stores: impl Iterator<Item = (ShardId, &'a Store)> + Clone,
    ) -> Result<bool, TableError> {
        self.renew_walks(stores.clone())?;
        let mut walks = self.shards.iter().flat_map(|shard| &shard.walks);
        if walks.any(RunWalk::is_unsettled) {
            return Ok(false);
        }
        let mut shards = core::mem::take(&mut self.shards);
        let mut dead_keys = DeadKeys::new(self.snapshot);
        let is_done = {
            let mut sources: Vec<Source<'_>> = Vec::new();
            let mut hiding = Hiding::default();
            for ((_, store), walks) in stores.zip(&mut shards) {
                let bound = self.bound_behind(walks.bound.as_deref());
                let first = sources.len();
                self.add_cursors(store, bound.as_deref(), &mut sources);
                let runs = walks.walks.iter_mut().zip(store.tables().runs());
                sources.extend(runs.map(|(walk, run)| Source::Run { walk, run }));
                hiding.add_shard(store);
                let before = core::mem::take(&mut walks.dead);
                dead_keys.add_shard(store, sources.len() - first, bound, before);
            }
            if self.range.reverse {
                self.fill::<true>(&mut sources, hiding, &mut dead_keys)
            } else {
                self.fill::<false>(&mut sources, hiding, &mut dead_keys)
            }
        };
        for (walks, dead) in shards.iter_mut().zip(dead_keys.into_dead()) {
            walks.dead = dead;
        }
        self.shards = shards;
        is_done
    }

    /// Begins the walks of shards whose tables have changed, or none were begun of.
    fn renew_walks<'a>(
        &mut self,
        stores: impl Iterator<Item = (ShardId, &'a Store)> + Clone,
    ) -> Result<(), TableError> {
        let likely = self.likely_part(stores.clone());
        for (place, (shard, store)) in stores.enumerate() {
            let known = self.shards.get(place);
            if known.is_some_and(|known| known.shard == shard && known.changes == store.changes()) {
                continue;
            }
            let gaps = store.gaps().borrow();
            let bound = self.bound().map(|bound| {
                if self.range.reverse {
                    gaps.down(&bound, self.snapshot).to_vec()
                } else {
                    gaps.up(&bound, self.snapshot).to_vec()
                }
            });
            let runs = store.tables().runs().iter().zip(store.tables().run_sizes());
            let walks = runs.map(|(run, size)| {
                let start = bound.as_deref();
                let ahead = Ahead {
                    likely_bytes: likely.of_run(*size),
                    end: self.range.far_end(),
                };
                if self.range.reverse {
                    RunWalk::down(run, start, self.snapshot, ahead)
                } else {
                    RunWalk::up(run, start.unwrap_or_default(), self.snapshot, ahead)
                }
            });
            let renewed = ShardWalks {
                shard,
                changes: store.changes(),
                walks: walks.collect::<Result<_, _>>()?,
                bound,
                dead: Dead::default(),
            };
            match self.shards.get_mut(place) {
                Some(known) => *known = renewed,
                None => self.shards.push(renewed),
            }
        }
        Ok(())
    }

    /// How much of the runs the rest of the page passes if keys are spread evenly.
    fn likely_part<'a>(&self, stores: impl Iterator<Item = (ShardId, &'a Store)>) -> LikelyPart {
        let mut all = RunSize::default();
        for (_, store) in stores {
            let sizes = store.tables().run_sizes();
            // Upper runs have newer versions of the same keys, for the most part.
            all.keys += sizes.iter().map(|size| size.keys).max().unwrap_or(0);
            all.bytes += sizes.iter().map(|size| size.bytes).sum::<u64>();
        }
        LikelyPart {
            wanted: RunSize {
                keys: self.range.limit.saturating_sub(self.page.len()) as u64,
                bytes: self.range.page_bytes.saturating_sub(self.page.bytes()) as u64,
            },
            all,
        }
    }

    /// Where the rest begins: forward inclusive, in reverse exclusive.
    fn bound(&self) -> Option<Vec<u8>> {
        match &self.last {
            None if self.range.reverse => self.range.end.clone(),
            None => Some(self.range.start.clone()),
            Some(last) if self.range.reverse => Some(last.clone()),
            // The next key that there can be.
            Some(last) => Some([last, &[0][..]].concat()),
        }
    }

    /// The same for a shard whose walks began here.
    fn bound_behind(&self, began: Option<&[u8]>) -> Option<Vec<u8>> {
        let bound = self.bound();
        match (&bound, began) {
            (Some(bound), Some(began)) if self.range.order(bound, began).is_lt() => Some(began.to_vec()),
            _ => bound,
        }
    }

    fn add_cursors<'a>(&self, store: &'a Store, bound: Option<&[u8]>, sources: &mut Vec<Source<'a>>) {
        let source = |(memtable, cursor): (&'a Memtable, Cursor<'a>)| Source::Memory {
            memtable,
            key: cursor.key(),
            cursor,
        };
        let memtables = store.memtables();
        if self.range.reverse {
            let cursors = store.cursors_below(bound);
            sources.extend(memtables.zip(cursors).map(source));
        } else {
            let cursors = store.cursors(bound.unwrap_or_default());
            sources.extend(memtables.zip(cursors).map(source));
        }
    }

    fn is_in_range(&self, key: &[u8]) -> bool {
        if self.range.reverse {
            key >= self.range.start.as_slice()
        } else {
            self.range.end.as_deref().is_none_or(|end| key < end)
        }
    }

    /// Looks at key after key. Among sources that are at one key, those that come first have the newer versions. The
    /// direction is a constant, so that it is not asked for at every comparison.
    fn fill<const REVERSE: bool>(
        &mut self,
        sources: &mut [Source<'_>],
        hiding: Hiding<'_>,
        dead_keys: &mut DeadKeys<'_>,
    ) -> Result<bool, TableError> {
        let is_done = self.walk::<REVERSE>(sources, hiding, dead_keys);
        if let Some(last) = &self.last {
            dead_keys.end::<REVERSE>(last);
        }
        is_done
    }

    fn walk<const REVERSE: bool>(
        &mut self,
        sources: &mut [Source<'_>],
        mut hiding: Hiding<'_>,
        dead_keys: &mut DeadKeys<'_>,
    ) -> Result<bool, TableError> {
        let mut heap = SourceHeap::<REVERSE>::new(sources);
        let mut key = Vec::new();
        while let Some(first) = heap.first() {
            let at = sources[first].key().expect("a source in the heap is at a key");
            if !self.is_in_range(at) {
                return Ok(true);
            }
            at.clone_into(&mut key);
            hiding.at(&key);
            let mut is_settled = true;
            let mut is_found = false;
            let mut has_newer = false;
            let entries_before = self.page.len();
            // All that are at this key, from the newest to the oldest.
            let mut at_key = Some(first);
            while let Some(place) = at_key {
                has_newer |= sources[place].has_newer(self.snapshot);
                let version = sources[place].version_at(self.snapshot);
                if !is_found && version.is_some() {
                    let is_hidden = |version: &Version<'_>| hiding.hides(place, version, self.snapshot);
                    let shown = version.filter(|version| hiding.is_empty() || !is_hidden(version));
                    is_found = self.look_at(&key, shown);
                    if !is_found {
                        return Ok(self.stop_before(&key));
                    }
                }
                let reach = if hiding.is_empty() {
                    None
                } else {
                    hiding.leave::<REVERSE>(place, self.snapshot)
                };
                match reach {
                    None => sources[place].advance::<REVERSE>()?,
                    Some(reach) => sources[place].jump(reach, self.snapshot)?,
                }
                is_settled &= !sources[place].is_unsettled();
                heap.first_moved(sources);
                at_key = heap
                    .first()
                    .filter(|place| sources[*place].key() == Some(key.as_slice()));
            }
            if !is_found && !self.look_at(&key, None) {
                return Ok(self.stop_before(&key));
            }
            if has_newer || self.page.len() > entries_before {
                dead_keys.live::<REVERSE>(first, &key);
            } else {
                dead_keys.dead::<REVERSE>(first, &key);
            }
            self.examined += 1;
            key.clone_into(self.last.get_or_insert_default());
            if !is_settled {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Looks at a key with its version; false if the page has looked at as many as it may, or has no room.
    fn look_at(&mut self, key: &[u8], version: Option<Version<'_>>) -> bool {
        self.examined < SCAN_EXAMINED_MAX && self.page.take(key, version, self.snapshot, &self.range)
    }

    /// The page ends before this key.
    fn stop_before(&mut self, key: &[u8]) -> bool {
        let resume_key = if self.range.reverse {
            self.last.clone()
        } else {
            Some(key.to_vec())
        };
        self.page.resume_key = Some(resume_key.expect("the first key is looked at"));
        true
    }
}

/// Where versions come from: a memtable, or a run of tables.
enum Source<'a> {
    Memory {
        memtable: &'a Memtable,
        cursor: Cursor<'a>,
        /// What the cursor is at.
        key: Option<&'a [u8]>,
    },
    Run {
        walk: &'a mut RunWalk,
        run: &'a OpenRun,
    },
}

impl Source<'_> {
    #[inline]
    fn key(&self) -> Option<&[u8]> {
        match self {
            Source::Memory { key, .. } => *key,
            Source::Run { walk, .. } => walk.key(),
        }
    }

    #[inline]
    fn version_at(&self, snapshot: Timestamp) -> Option<Version<'_>> {
        match self {
            Source::Memory { cursor, .. } => cursor.version_at(snapshot),
            Source::Run { walk, .. } => walk.version(),
        }
    }

    /// Does it show a version of its key that is newer than the snapshot? A walk over tables shows none.
    #[inline]
    fn has_newer(&self, snapshot: Timestamp) -> bool {
        match self {
            Source::Memory { cursor, .. } => cursor
                .version_at(Timestamp::MAX)
                .is_some_and(|version| version.timestamp > snapshot),
            Source::Run { .. } => false,
        }
    }

    fn is_unsettled(&self) -> bool {
        matches!(self, Source::Run { walk, .. } if walk.is_unsettled())
    }

    #[inline]
    fn advance<const REVERSE: bool>(&mut self) -> Result<(), TableError> {
        match self {
            Source::Memory { cursor, key, .. } => {
                if REVERSE {
                    cursor.retreat();
                } else {
                    cursor.advance();
                }
                *key = cursor.key();
                Ok(())
            }
            Source::Run { walk, .. } => walk.advance(),
        }
    }

    /// Goes to the first key that lies beyond, in the direction of the scan.
    fn jump(&mut self, reach: Reach, snapshot: Timestamp) -> Result<(), TableError> {
        match self {
            Source::Memory {
                memtable,
                cursor,
                key,
            } => {
                *cursor = match reach {
                    Reach::Up(Some(end)) => memtable.cursor(&end),
                    Reach::Up(None) => memtable.cursor_at_end(),
                    Reach::Down(start) => memtable.cursor_below(Some(&start)),
                };
                *key = cursor.key();
            }
            Source::Run { walk, run } => {
                **walk = match reach {
                    Reach::Up(Some(end)) => RunWalk::up(run, &end, snapshot, Ahead::default())?,
                    Reach::Up(None) => RunWalk::up(&OpenRun::new(), &[], snapshot, Ahead::default())?,
                    Reach::Down(start) => RunWalk::down(run, Some(&start), snapshot, Ahead::default())?,
                };
            }
        }
        Ok(())
    }
}

/// The sources that are at a key, as a binary heap: on top the one that the scan meets first, and of several at one key
/// the one that comes first. It holds places, since a source moves while the heap stands.
struct SourceHeap<const REVERSE: bool>(Vec<usize>);

impl<const REVERSE: bool> SourceHeap<REVERSE> {
    fn new(sources: &[Source<'_>]) -> SourceHeap<REVERSE> {
        let places = 0..sources.len();
        let mut heap = SourceHeap(places.filter(|place| sources[*place].key().is_some()).collect());
        for slot in (0..heap.0.len() / 2).rev() {
            heap.sink(slot, sources);
        }
        heap
    }

    fn first(&self) -> Option<usize> {
        self.0.first().copied()
    }

    /// The source on top has moved to another key, or to none.
    fn first_moved(&mut self, sources: &[Source<'_>]) {
        if sources[self.0[0]].key().is_none() {
            self.0.swap_remove(0);
        }
        self.sink(0, sources);
    }

    /// Puts what lies in this slot below all that come before it.
    fn sink(&mut self, mut slot: usize, sources: &[Source<'_>]) {
        loop {
            let below = slot * 2 + 1;
            let mut first = slot;
            for child in [below, below + 1] {
                if child < self.0.len() && Self::comes_before(self.0[child], self.0[first], sources) {
                    first = child;
                }
            }
            if first == slot {
                return;
            }
            self.0.swap(slot, first);
            slot = first;
        }
    }

    #[inline]
    fn comes_before(one: usize, other: usize, sources: &[Source<'_>]) -> bool {
        let order = sources[one].key().cmp(&sources[other].key());
        match if REVERSE { order.reverse() } else { order } {
            Ordering::Less => true,
            Ordering::Equal => one < other,
            Ordering::Greater => false,
        }
    }
}
