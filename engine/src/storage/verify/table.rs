//! Looks a whole table through: each block, and whether index, filter, properties and manifest say of it what it is.
//!
//! 1. The footer, the root of the index, the filter, the properties and the range tombstones, as when a table is
//!    opened.
//! 2. Each index block, and the data blocks that it leads to: checksum and form of each block, each at the place where
//!    the one before has ended; the order of versions inside and across blocks; each block ends as the index says; the
//!    filter lets each key pass.
//! 3. The rest of the file is zeros up to the footer, so that each byte of the file has been looked at.
//! 4. What was counted is what the properties say, and these are what the manifest says.
//!
//! What lies below a damaged index can't be found, and counts as lost with it; the walk goes on behind it.

use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::lsm::TableInfo;

use super::window::{Miss, Window};
use super::{Flaw, Lost, Reading};
use crate::env::File;
use crate::env::disk::BLOCK_BYTES;
use crate::env::tasks::yield_now;
use crate::storage::memtable::Version;
use crate::storage::ranges::{self, RangeTombstone};
use crate::storage::sstable::block::{Block, order};
use crate::storage::sstable::filter;
use crate::storage::sstable::format::{FOOTER_BYTES, Footer, Handle, Properties, TableId, load};
use crate::storage::store::keys::stored_hash;

/// What a walk through a table has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Blocks that are whole: data, index, root, filter, properties.
    pub blocks: u64,
    /// What the whole data blocks have.
    pub counted: Properties,
    /// Flaws.
    pub flaws: u64,
    /// True if the walk came to its end.
    pub is_complete: bool,
}

/// Looks a table through. `expected` is what the manifest says of it. `found` hears of each flaw, `visit` of each
/// version that can be read.
pub async fn verify(
    file: &dyn File,
    (id, expected): (TableId, Option<&TableInfo>),
    reading: Reading<'_>,
    found: &mut dyn FnMut(Flaw),
    visit: &mut dyn FnMut(&[u8], &Version<'_>),
) -> Seen {
    let mut walk = Walk {
        window: Window::new(file, reading),
        reading,
        id,
        file_bytes: file.len_bytes(),
        found,
        visit,
        filter: None,
        seen: Seen::default(),
        last: None,
        next_offset: Some(0),
        is_whole: true,
        filter_misses: 0,
    };
    let ended = walk.run(expected).await;
    walk.seen.is_complete = ended.is_ok();
    walk.seen
}

/// The walk is not wanted any more.
struct Unwanted;

struct Walk<'a> {
    window: Window<'a>,
    reading: Reading<'a>,
    id: TableId,
    file_bytes: u64,
    found: &'a mut dyn FnMut(Flaw),
    visit: &'a mut dyn FnMut(&[u8], &Version<'_>),
    filter: Option<Rc<[u8]>>,
    seen: Seen,
    /// The version that was seen last, or that an index names as the last of a block that can't be read.
    last: Option<(Vec<u8>, Timestamp)>,
    /// Where the next block begins, if that is known.
    next_offset: Option<u64>,
    /// No block is missing so far.
    is_whole: bool,
    /// Keys that the filter keeps from being found.
    filter_misses: u64,
}

/// An entry of an index: the last version of the block, and where that lies.
struct Lead {
    key: Vec<u8>,
    timestamp: Timestamp,
    handle: Option<Handle>,
}

impl Walk<'_> {
    async fn run(&mut self, expected: Option<&TableInfo>) -> Result<(), Unwanted> {
        let Some(footer) = self.footer().await? else {
            return Ok(());
        };
        let root = self.part(footer.root, "the root of the index").await?;
        let root = root.and_then(|payload| self.parse(payload, footer.root, Lost::File));
        self.filter = self.part(footer.filter, "the filter").await?;
        if self
            .filter
            .take_if(|filter| !filter::is_length(filter.len()))
            .is_some()
        {
            self.flaw(footer.filter, "this is no filter".to_owned(), Lost::File);
        }
        let properties = self.properties(footer.properties).await?;
        let ranges = self.ranges(footer.ranges).await?;
        match root {
            Some(root) => {
                for lead in leads(&root, self.file_bytes) {
                    self.index(&lead, footer.root).await?;
                }
            }
            None => self.is_whole = false,
        }
        self.rest(&footer).await?;
        if self.filter_misses > 0 {
            let what = format!("the filter hides {} keys that are there", self.filter_misses);
            self.flaw(footer.filter, what, Lost::Nothing);
        }
        match ranges {
            Some(ranges) => {
                // How much they cover only the tables below can tell.
                let covered_bytes = properties
                    .as_ref()
                    .map_or(0, |properties| properties.covered_bytes);
                self.seen.counted.note_ranges(&ranges, covered_bytes);
            }
            None => self.is_whole = false,
        }
        if let Some(properties) = properties {
            self.compare(&properties, footer.properties, expected);
        }
        Ok(())
    }

    async fn footer(&mut self) -> Result<Option<Footer>, Unwanted> {
        let block_bytes = BLOCK_BYTES as u64;
        let start = self.file_bytes.checked_sub(block_bytes);
        let Some(start) = start.filter(|start| start.is_multiple_of(block_bytes)) else {
            let what = format!(
                "the file has {} bytes, expected a multiple of {BLOCK_BYTES}",
                self.file_bytes
            );
            self.flaw_at(self.file_bytes / block_bytes * block_bytes, 0, what, Lost::File);
            return Ok(None);
        };
        let offset = self.file_bytes - FOOTER_BYTES as u64;
        let end = match self.window.read(start, BLOCK_BYTES).await {
            Ok(end) => end,
            Err(Miss::Unwanted) => return Err(Unwanted),
            Err(Miss::Unreadable(error)) => {
                self.flaw_at(start, block_bytes, format!("can't be read: {error}"), Lost::File);
                return Ok(None);
            }
        };
        let footer = end
            .bytes()
            .last_chunk::<FOOTER_BYTES>()
            .expect("a block is longer");
        match Footer::decode(footer, self.id, self.file_bytes) {
            Ok(footer) => Ok(Some(footer)),
            Err(damage) => {
                self.flaw_at(offset, FOOTER_BYTES as u64, damage.what, Lost::File);
                Ok(None)
            }
        }
    }

    /// The payload of a part that is read when a table is opened.
    async fn part(&mut self, handle: Handle, name: &str) -> Result<Option<Rc<[u8]>>, Unwanted> {
        let stored = self.window.alone(handle).await;
        self.payload(stored, handle, |what| format!("{name}: {what}"), Lost::File)
    }

    /// The payload of stored bytes, if they are there and whole.
    fn payload(
        &mut self,
        stored: Result<Vec<u8>, Miss>,
        handle: Handle,
        sentence: impl FnOnce(&str) -> String,
        lost: Lost,
    ) -> Result<Option<Rc<[u8]>>, Unwanted> {
        let loaded = match stored {
            Ok(stored) => load(&stored, handle.offset, self.id).map_err(|damage| damage.what),
            Err(Miss::Unwanted) => return Err(Unwanted),
            Err(Miss::Unreadable(error)) => Err(format!("can't be read: {error}")),
        };
        match loaded {
            Ok(payload) => {
                self.seen.blocks += 1;
                Ok(Some(payload))
            }
            Err(what) => {
                self.flaw(handle, sentence(&what), lost);
                Ok(None)
            }
        }
    }

    fn parse(&mut self, payload: Rc<[u8]>, handle: Handle, lost: Lost) -> Option<Block> {
        match Block::parse(payload) {
            Ok(block) => Some(block),
            Err(malformed) => {
                self.seen.blocks -= 1;
                self.flaw(handle, malformed.to_string(), lost);
                None
            }
        }
    }

    async fn properties(&mut self, handle: Handle) -> Result<Option<Properties>, Unwanted> {
        let Some(payload) = self.part(handle, "the properties").await? else {
            return Ok(None);
        };
        let properties = Properties::decode(&payload);
        if properties.is_none() {
            self.flaw(handle, "these are no properties".to_owned(), Lost::File);
        }
        Ok(properties)
    }

    async fn ranges(&mut self, handle: Handle) -> Result<Option<Vec<RangeTombstone>>, Unwanted> {
        let Some(payload) = self.part(handle, "the range tombstones").await? else {
            return Ok(None);
        };
        let ranges = ranges::decode(&payload);
        let ranges = ranges.filter(|ranges| ranges.iter().all(|range| range.end.is_some()));
        if ranges.is_none() {
            self.flaw(handle, "these are no range tombstones".to_owned(), Lost::File);
        }
        Ok(ranges)
    }

    /// An index block, and the data blocks below it.
    async fn index(&mut self, lead: &Lead, root: Handle) -> Result<(), Unwanted> {
        let lost = self.lost_through(&lead.key);
        let Some(handle) = lead.handle else {
            self.flaw(root, "the root leads beyond the file".to_owned(), lost);
            self.pass_over(lead, None);
            return Ok(());
        };
        let stored = self.window.alone(handle).await;
        let named = |what: &str| format!("an index block: {what}");
        let payload = self.payload(stored, handle, named, lost.clone())?;
        let index = payload.and_then(|payload| self.parse(payload, handle, lost));
        let end = handle.offset + u64::from(handle.stored_bytes);
        let Some(index) = index else {
            self.pass_over(lead, Some(end));
            return Ok(());
        };
        for data in leads(&index, self.file_bytes) {
            self.data(&data, handle).await?;
        }
        self.expect_place(handle);
        self.expect_end(lead, handle);
        Ok(())
    }

    /// A data block.
    async fn data(&mut self, lead: &Lead, index: Handle) -> Result<(), Unwanted> {
        let lost = self.lost_through(&lead.key);
        let Some(handle) = lead.handle else {
            self.flaw(index, "an index block leads beyond the file".to_owned(), lost);
            self.pass_over(lead, None);
            return Ok(());
        };
        self.expect_place(handle);
        let stored = self.window.next(handle).await;
        let payload = self.payload(stored, handle, str::to_owned, lost.clone())?;
        match payload.and_then(|payload| self.parse(payload, handle, lost)) {
            Some(block) => {
                self.versions(&block, handle);
                self.expect_end(lead, handle);
            }
            None => self.pass_over(lead, Some(handle.offset + u64::from(handle.stored_bytes))),
        }
        if self.reading.tasks.should_yield() {
            yield_now().await;
        }
        Ok(())
    }

    fn versions(&mut self, block: &Block, handle: Handle) {
        let mut cursor = block.cursor();
        cursor.seek_to_first();
        if cursor.is_valid()
            && let Some((key, timestamp)) = &self.last
            && !order(key, *timestamp, cursor.key(), cursor.version().timestamp).is_lt()
        {
            let what = "its first version does not lie behind the last one of the block before";
            self.flaw(handle, what.to_owned(), Lost::Nothing);
        }
        let mut last_timestamp = None;
        while cursor.is_valid() {
            let (key, version) = (cursor.key(), cursor.version());
            let keys_before = self.seen.counted.keys;
            self.seen.counted.note(key, &version);
            if self.seen.counted.keys > keys_before
                && let Some(filter) = &self.filter
            {
                self.filter_misses += u64::from(!filter::may_contain(filter, stored_hash(key)));
            }
            (self.visit)(key, &version);
            last_timestamp = Some(version.timestamp);
            cursor.next();
        }
        match last_timestamp {
            Some(timestamp) => self.last = Some((self.seen.counted.largest.clone(), timestamp)),
            None => self.flaw(handle, "a block without a version".to_owned(), Lost::Nothing),
        }
    }

    /// Each block begins where the one before has ended.
    fn expect_place(&mut self, handle: Handle) {
        if let Some(expected) = self.next_offset
            && expected != handle.offset
        {
            let what = format!("a block lies here, expected the next one at offset {expected}");
            self.flaw(handle, what, Lost::Nothing);
        }
        self.next_offset = Some(handle.offset + u64::from(handle.stored_bytes));
    }

    /// A block ends with the version that the index names.
    fn expect_end(&mut self, lead: &Lead, handle: Handle) {
        let ends_so = self
            .last
            .as_ref()
            .is_some_and(|(key, timestamp)| *key == lead.key && *timestamp == lead.timestamp);
        if !ends_so {
            let what = "what it ends with is not what the index says";
            self.flaw(handle, what.to_owned(), Lost::Nothing);
        }
    }

    /// What lies behind a block that can't be read.
    fn pass_over(&mut self, lead: &Lead, end: Option<u64>) {
        self.is_whole = false;
        self.next_offset = end;
        self.last = Some((lead.key.clone(), lead.timestamp));
    }

    /// Filter, root, properties and range tombstones follow the blocks, then zeros.
    async fn rest(&mut self, footer: &Footer) -> Result<(), Unwanted> {
        if !self.is_whole {
            self.next_offset = None;
        }
        for handle in [footer.filter, footer.root, footer.properties, footer.ranges] {
            self.expect_place(handle);
        }
        let start = footer.ranges.offset + u64::from(footer.ranges.stored_bytes);
        let end = self.file_bytes - FOOTER_BYTES as u64;
        let first = start / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let read = self.window.read(first, (self.file_bytes - first) as usize).await;
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(Miss::Unwanted) => return Err(Unwanted),
            // The parts in these blocks were read a moment ago.
            Err(Miss::Unreadable(error)) => {
                let what = format!("can't be read: {error}");
                self.flaw_at(start, end.saturating_sub(start), what, Lost::Nothing);
                return Ok(());
            }
        };
        let padding = bytes
            .bytes()
            .get((start - first) as usize..end.saturating_sub(first) as usize);
        let other = padding.map(|padding| padding.iter().position(|byte| *byte != 0));
        match other {
            Some(Some(at)) => {
                let what = "expected zeros between the range tombstones and the footer, found other bytes";
                self.flaw_at(start + at as u64, 1, what.to_owned(), Lost::Nothing);
            }
            Some(None) => {}
            None => self.flaw(footer.ranges, "they overlap the footer".to_owned(), Lost::Nothing),
        }
        Ok(())
    }

    /// What was counted, what the table says of itself, and what the manifest says of it are the same.
    fn compare(&mut self, properties: &Properties, handle: Handle, expected: Option<&TableInfo>) {
        if self.is_whole && self.seen.counted != *properties {
            let what = format!(
                "the properties say {}, counted {}",
                figures(properties),
                figures(&self.seen.counted)
            );
            self.flaw(handle, what, Lost::Nothing);
        }
        let own = properties.info(self.id.number, self.file_bytes);
        if let Some(expected) = expected.filter(|expected| **expected != own) {
            let what = format!(
                "the manifest has {}, found {}",
                info_figures(expected),
                info_figures(&own)
            );
            self.flaw(handle, what, Lost::Nothing);
        }
    }

    fn lost_through(&self, key: &[u8]) -> Lost {
        let from = self.last.as_ref().map(|(key, _)| key.as_slice().into());
        Lost::Keys(from, key.into())
    }

    fn flaw(&mut self, handle: Handle, what: String, lost: Lost) {
        self.flaw_at(handle.offset, u64::from(handle.stored_bytes), what, lost);
    }

    fn flaw_at(&mut self, offset: u64, bytes: u64, what: String, lost: Lost) {
        self.seen.flaws += 1;
        (self.found)(Flaw {
            offset,
            bytes,
            what,
            lost,
        });
    }
}

/// The entries of an index.
fn leads(index: &Block, file_bytes: u64) -> Vec<Lead> {
    let mut leads = Vec::new();
    let mut cursor = index.cursor();
    cursor.seek_to_first();
    while cursor.is_valid() {
        let version = cursor.version();
        leads.push(Lead {
            key: cursor.key().to_vec(),
            timestamp: version.timestamp,
            handle: Handle::decode(version.value.unwrap_or_default(), file_bytes),
        });
        cursor.next();
    }
    leads
}

fn figures(properties: &Properties) -> String {
    format!(
        "{} keys, {} versions ({} tombstones, {} that expire, at {} at the latest), {} range tombstones over {} bytes, \
         {} bytes, timestamps {} to {}, keys {:?} to {:?}{}",
        properties.keys,
        properties.versions,
        properties.tombstones,
        properties.expiring,
        properties.last_expiry.0,
        properties.range_tombstones,
        properties.covered_bytes,
        properties.raw_bytes,
        properties.oldest.0,
        properties.newest.0,
        properties.smallest.escape_ascii().to_string(),
        properties.largest.escape_ascii().to_string(),
        excluded(properties.is_largest_excluded),
    )
}

fn info_figures(info: &TableInfo) -> String {
    format!(
        "{} bytes, {} keys, {} versions ({} tombstones, {} that expire, at {} at the latest), {} range tombstones \
         over {} bytes, the newest {}, keys {:?} to {:?}{}",
        info.bytes,
        info.keys,
        info.versions,
        info.tombstones,
        info.expiring,
        info.last_expiry.0,
        info.range_tombstones,
        info.covered_bytes,
        info.newest.0,
        info.smallest.escape_ascii().to_string(),
        info.largest.escape_ascii().to_string(),
        excluded(info.is_largest_excluded),
    )
}

fn excluded(is_excluded: bool) -> &'static str {
    if is_excluded { ", which is excluded" } else { "" }
}

impl crate::storage::sstable::reader::Table {
    /// Looks the open table through, see [`verify`].
    pub async fn verify(
        &self,
        expected: &TableInfo,
        reading: Reading<'_>,
        found: &mut dyn FnMut(Flaw),
    ) -> Seen {
        verify(
            self.file(),
            (self.id(), Some(expected)),
            reading,
            found,
            &mut |_, _| {},
        )
        .await
    }
}
