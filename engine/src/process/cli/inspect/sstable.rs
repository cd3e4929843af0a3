//! A table: footer, properties, index and blocks, and if asked for keys and versions.

use std::io;
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_wire::routing::ShardId;

use super::manifest::key;
use super::source::Source;
use super::{Report, timestamp};
use crate::env::disk::BLOCK_BYTES;
use crate::process::cli::arguments::InspectTableArguments;
use crate::process::cli::key::escape;
use crate::storage::memtable::Version;
use crate::storage::ranges;
use crate::storage::sstable::block::{Block, BlockCursor};
use crate::storage::sstable::format::{
    FOOTER_BYTES, Footer, Handle, Properties, TRAILER_BYTES, TableId, load,
};
use crate::storage::store::files::{parse_shard_directory, parse_table_name};
use crate::storage::store::keys::stored_key;

/// Of a value so many bytes are shown.
const VALUE_SHOWN_BYTES: usize = 64;

struct Table<'a> {
    source: &'a Source,
    id: TableId,
    arguments: &'a InspectTableArguments,
    /// The first version that is printed.
    from: Vec<u8>,
    /// How many more are.
    left: u64,
}

pub(super) fn print(
    source: &Source,
    arguments: &InspectTableArguments,
    report: &mut Report<'_>,
) -> io::Result<()> {
    let Some(offset) = source.len_bytes.checked_sub(FOOTER_BYTES as u64) else {
        return report.damage(0, 0, "the file is too short for a table");
    };
    if !source.len_bytes.is_multiple_of(BLOCK_BYTES as u64) {
        let what = format!("the file has no multiple of {BLOCK_BYTES} bytes");
        report.damage(0, source.len_bytes, &what)?;
    }
    let end = match source.read(offset, FOOTER_BYTES) {
        Ok(end) => end,
        Err(error) => return report.damage(0, offset, &format!("the footer can't be read: {error}")),
    };
    let end: &[u8; FOOTER_BYTES] = end.first_chunk().expect("so many were read");
    let claimed = Footer::claimed(end, source.len_bytes);
    let by_name = parse_shard_directory(&source.directory_name()).zip(parse_table_name(source.name()));
    let by_name = by_name.map(|(shard, number)| TableId { shard, number });
    let id = by_name.or(claimed.map(|claimed| claimed.table));
    let id = id.unwrap_or(TableId {
        shard: ShardId(0),
        number: ostrakon_core::lsm::TableNumber(0),
    });
    report.line(0, &id.to_string())?;
    let footer = match Footer::decode(end, id, source.len_bytes) {
        Ok(footer) => footer,
        Err(damage) => {
            report.damage(0, damage.offset, &damage.what)?;
            let Some(claimed) = claimed else {
                return report.line(0, "where the blocks lie can't be told without the footer");
            };
            report.line(0, "what follows is what the footer says all the same")?;
            claimed
        }
    };
    let checksum = u32::from_le_bytes(end[12..16].try_into().expect("four bytes"));
    report.line(0, &format!("offset {offset}: footer, checksum {checksum:#010x}"))?;
    let mut from = Vec::new();
    if let Some(key) = &arguments.from {
        stored_key(&mut from, &key.0);
    }
    let mut table = Table {
        source,
        id,
        arguments,
        from,
        left: arguments.limit.unwrap_or(u64::MAX),
    };
    table.properties(&footer, report)?;
    table.ranges(&footer, report)?;
    if let Some(filter) = table.payload(footer.filter, 0, "filter", report)? {
        report.line(1, &format!("{} lines of 64 bytes", filter.len() / 64))?;
    }
    table.index(footer.root, report)
}

impl Table<'_> {
    fn properties(&mut self, footer: &Footer, report: &mut Report<'_>) -> io::Result<()> {
        let handle = footer.properties;
        let Some(payload) = self.payload(handle, 0, "properties", report)? else {
            return Ok(());
        };
        let Some(properties) = Properties::decode(&payload) else {
            return report.damage(1, handle.offset, "these are no properties");
        };
        let numbers = [
            ("keys", properties.keys.to_string()),
            ("versions", properties.versions.to_string()),
            ("tombstones", properties.tombstones.to_string()),
            ("expiring", properties.expiring.to_string()),
            ("range tombstones", properties.range_tombstones.to_string()),
            ("covered bytes", properties.covered_bytes.to_string()),
            ("last expiry", timestamp(properties.last_expiry)),
            ("raw bytes", properties.raw_bytes.to_string()),
            ("oldest", timestamp(properties.oldest)),
            ("newest", timestamp(properties.newest)),
            ("smallest", key(&properties.smallest)),
            ("largest", key(&properties.largest)),
        ];
        for (name, number) in numbers {
            report.line(1, &format!("{name:16} {number}"))?;
        }
        Ok(())
    }

    fn ranges(&mut self, footer: &Footer, report: &mut Report<'_>) -> io::Result<()> {
        let handle = footer.ranges;
        let Some(payload) = self.payload(handle, 0, "range tombstones", report)? else {
            return Ok(());
        };
        let Some(ranges) = ranges::decode(&payload) else {
            return report.damage(1, handle.offset, "these are no range tombstones");
        };
        for range in ranges {
            let end = range.end.as_deref().map_or_else(|| "the end".to_owned(), key);
            let sentence = format!(
                "{} to {end}, version {}",
                key(&range.start),
                timestamp(range.timestamp)
            );
            report.line(1, &sentence)?;
        }
        Ok(())
    }

    fn index(&mut self, root: Handle, report: &mut Report<'_>) -> io::Result<()> {
        let Some(root) = self.block(root, 0, "root of the index", report)? else {
            return report.line(0, "where the blocks lie can't be told without the root");
        };
        for (_, end, handle) in entries(&root, self.source.len_bytes) {
            let Some(handle) = handle else {
                report.damage(0, 0, "the root leads beyond the file")?;
                continue;
            };
            let name = format!("index block up to {end}");
            let Some(index) = self.block(handle, 0, &name, report)? else {
                continue;
            };
            for (key, end, handle) in entries(&index, self.source.len_bytes) {
                let Some(handle) = handle else {
                    report.damage(1, 0, "an index block leads beyond the file")?;
                    continue;
                };
                let is_wanted = !self.arguments.entries || (key >= self.from && self.left > 0);
                if !is_wanted {
                    continue;
                }
                let name = format!("data block up to {end}");
                if let Some(data) = self.block(handle, 1, &name, report)?
                    && self.arguments.entries
                {
                    self.versions(&data, report)?;
                }
            }
        }
        Ok(())
    }

    fn versions(&mut self, data: &Block, report: &mut Report<'_>) -> io::Result<()> {
        let mut cursor = data.cursor();
        cursor.seek(&self.from, Timestamp::MAX);
        while cursor.is_valid() && self.left > 0 {
            report.line(2, &version(cursor.key(), &cursor.version()))?;
            self.left -= 1;
            cursor.next();
        }
        Ok(())
    }

    fn block(
        &self,
        handle: Handle,
        depth: usize,
        name: &str,
        report: &mut Report<'_>,
    ) -> io::Result<Option<Block>> {
        let Some(payload) = self.payload(handle, depth, name, report)? else {
            return Ok(None);
        };
        match Block::parse(payload) {
            Ok(block) => {
                let mut cursor = block.cursor();
                cursor.seek_to_first();
                let count = count(&mut cursor);
                report.line(depth + 1, &format!("{count} entries"))?;
                Ok(Some(block))
            }
            Err(malformed) => {
                report.damage(depth + 1, handle.offset, &malformed.to_string())?;
                Ok(None)
            }
        }
    }

    /// The payload of a stored block, and a line about it.
    fn payload(
        &self,
        handle: Handle,
        depth: usize,
        name: &str,
        report: &mut Report<'_>,
    ) -> io::Result<Option<Rc<[u8]>>> {
        let Handle { offset, stored_bytes } = handle;
        let stored = match self.source.read(offset, stored_bytes as usize) {
            Ok(stored) => stored,
            Err(error) => {
                report.line(depth, &format!("offset {offset}: {name}, {stored_bytes} bytes"))?;
                report.damage(depth + 1, offset, &format!("can't be read: {error}"))?;
                return Ok(None);
            }
        };
        let trailer = &stored[stored.len() - TRAILER_BYTES..];
        let codec = match trailer[0] {
            0 => "plain",
            1 => "lz4",
            2 => "zstd",
            _ => "an unknown codec",
        };
        let checksum = u32::from_le_bytes(trailer[1..].try_into().expect("four bytes"));
        let loaded = load(&stored, offset, self.id);
        let raw = loaded
            .as_ref()
            .map_or_else(|_| String::new(), |payload| format!(", {} raw", payload.len()));
        let place = format!("offset {offset}: {name}, {stored_bytes} bytes{raw}");
        report.line(depth, &format!("{place}, {codec}, checksum {checksum:#010x}"))?;
        match loaded {
            Ok(payload) => Ok(Some(payload)),
            Err(damage) => {
                report.damage(depth + 1, damage.offset, &damage.what)?;
                Ok(None)
            }
        }
    }
}

/// The entries of an index: last key, key and timestamp as text, and where the block lies.
fn entries(index: &Block, file_bytes: u64) -> Vec<(Vec<u8>, String, Option<Handle>)> {
    let mut entries = Vec::new();
    let mut cursor = index.cursor();
    cursor.seek_to_first();
    while cursor.is_valid() {
        let version = cursor.version();
        let end = format!("{} at {}", key(cursor.key()), timestamp(version.timestamp));
        let handle = Handle::decode(version.value.unwrap_or_default(), file_bytes);
        entries.push((cursor.key().to_vec(), end, handle));
        cursor.next();
    }
    entries
}

fn count(cursor: &mut BlockCursor) -> u64 {
    let mut count = 0;
    while cursor.is_valid() {
        count += 1;
        cursor.next();
    }
    count
}

fn version(stored: &[u8], version: &Version<'_>) -> String {
    let start = format!("{} at {}", key(stored), timestamp(version.timestamp));
    let Some(value) = version.value else {
        return format!("{start}, deleted");
    };
    let expiry = version
        .expiry
        .map_or_else(String::new, |expiry| format!(", expires {}", timestamp(expiry)));
    let shown = value.get(..VALUE_SHOWN_BYTES);
    let shown = shown.map_or_else(|| escape(value), |shown| format!("{}...", escape(shown)));
    format!("{start}{expiry}, {} bytes: {shown}", value.len())
}
