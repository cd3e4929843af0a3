//! Bytes of a table file around its blocks: how a block is stored, properties, footer.
//!
//! ```text
//! table  = stored block ... | zeros | footer, to a multiple of 4096 bytes
//! stored = payload | codec (1 byte) | crc32c (4 bytes)
//! ```
//!
//! The checksum is over shard (4 bytes), table number (8), offset of the stored block (8), payload and codec: a block
//! that belongs elsewhere does not pass. A compressed payload begins with its raw length (4 bytes).

use core::fmt;
use core::iter::repeat_n;
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::lsm::{TableInfo, TableNumber};
use ostrakon_wire::routing::ShardId;

use crate::env::disk::BLOCK_BYTES;
use crate::storage::memtable::Version;
use crate::storage::ranges::RangeTombstone;

/// What a stored block has besides its payload, in bytes.
pub const TRAILER_BYTES: usize = 5;
/// A stored block, and what it is decompressed to, are not longer than this.
pub const STORED_BYTES_MAX: usize = 1 << 30;
/// Length of the footer, which ends the file.
pub const FOOTER_BYTES: usize = 96;

const MAGIC: [u8; 8] = *b"OSTRNTBL";
const VERSION: u32 = 2;
/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;

/// Which table of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId {
    /// Its shard.
    pub shard: ShardId,
    /// Its number there.
    pub number: TableNumber,
}

/// How a payload is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    Plain = 0,
    /// LZ4, block format.
    Lz4 = 1,
    /// Zstandard, one frame.
    Zstd = 2,
}

/// Where a stored block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// From the start of the file, in bytes.
    pub offset: u64,
    /// Length with trailer, in bytes.
    pub stored_bytes: u32,
}

impl fmt::Display for TableId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "table {} of shard {}", self.number.0, self.shard.0)
    }
}

/// Why bytes are no table, or no block of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// From the start of the file, in bytes.
    pub offset: u64,
    /// What was expected and what was found.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "at offset {}: {}", self.offset, self.what)
    }
}

impl core::error::Error for Damage {}

impl Handle {
    /// Length of an encoded handle.
    pub const BYTES: usize = 12;

    /// Little-endian, offset first.
    pub fn encode(self) -> [u8; Handle::BYTES] {
        let mut bytes = [0; Handle::BYTES];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..].copy_from_slice(&self.stored_bytes.to_le_bytes());
        bytes
    }

    /// The handle of these bytes, if it can be one of a file of this length.
    pub fn decode(bytes: &[u8], file_bytes: u64) -> Option<Handle> {
        let (offset, stored_bytes) = bytes.split_at_checked(8)?;
        let handle = Handle {
            offset: u64::from_le_bytes(offset.try_into().ok()?),
            stored_bytes: u32::from_le_bytes(stored_bytes.try_into().ok()?),
        };
        let end = handle.offset.checked_add(u64::from(handle.stored_bytes))?;
        let is_possible =
            end <= file_bytes && (TRAILER_BYTES..=STORED_BYTES_MAX).contains(&(handle.stored_bytes as usize));
        is_possible.then_some(handle)
    }

    /// The blocks of the device that have it: their offset and length.
    pub fn covering(self) -> (u64, usize) {
        let block = BLOCK_BYTES as u64;
        let start = self.offset / block * block;
        let end = (self.offset + u64::from(self.stored_bytes)).next_multiple_of(block);
        (start, (end - start) as usize)
    }
}

/// Appends a block in its stored form to bytes that begin at offset `start` of the file. What compression does not make
/// shorter by an eighth is stored plain.
///
/// # Panics
/// If it is longer than [`STORED_BYTES_MAX`].
pub fn store(out: &mut Vec<u8>, start: u64, table: TableId, codec: Codec, payload: &[u8]) -> Handle {
    let at = out.len();
    assert!(
        payload.len() + TRAILER_BYTES <= STORED_BYTES_MAX,
        "a block of {} bytes",
        payload.len()
    );
    let compressed = compress(codec, payload).filter(|bytes| bytes.len() + payload.len() / 8 < payload.len());
    let used = if let Some(bytes) = &compressed {
        out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
        codec
    } else {
        out.extend_from_slice(payload);
        Codec::Plain
    };
    out.push(used as u8);
    let offset = start + at as u64;
    let checksum = checksum(table, offset, &out[at..]);
    out.extend_from_slice(&checksum.to_le_bytes());
    Handle {
        offset,
        stored_bytes: (out.len() - at) as u32,
    }
}

/// The payload of a stored block, which may be any bytes.
///
/// # Errors
/// What is wrong with it: the checksum, or what a right one covers.
pub fn load(stored: &[u8], offset: u64, table: TableId) -> Result<Rc<[u8]>, Damage> {
    let damage = |what: String| Damage { offset, what };
    let Some((covered, found)) = stored.split_last_chunk::<4>() else {
        return Err(damage(format!(
            "a block of {} bytes has no checksum",
            stored.len()
        )));
    };
    let (expected, found) = (checksum(table, offset, covered), u32::from_le_bytes(*found));
    if expected != found {
        return Err(damage(format!(
            "the checksum of a block of {} bytes is {found:#010x}, expected {expected:#010x}",
            stored.len()
        )));
    }
    let Some((codec, payload)) = covered.split_last() else {
        return Err(damage("a block without its codec".to_owned()));
    };
    if *codec == Codec::Plain as u8 {
        return Ok(payload.into());
    }
    let (raw_bytes, compressed) = payload
        .split_first_chunk::<4>()
        .map(|(raw_bytes, compressed)| (u32::from_le_bytes(*raw_bytes) as usize, compressed))
        .filter(|(raw_bytes, _)| *raw_bytes <= STORED_BYTES_MAX)
        .ok_or_else(|| damage("a compressed block does not begin with its length".to_owned()))?;
    let mut raw: Rc<[u8]> = repeat_n(0, raw_bytes).collect();
    let out = Rc::get_mut(&mut raw).expect("it is new");
    let filled_bytes = match *codec {
        codec if codec == Codec::Lz4 as u8 => {
            lz4_flex::block::decompress_into(compressed, out).map_err(|error| error.to_string())
        }
        codec if codec == Codec::Zstd as u8 => {
            zstd::bulk::decompress_to_buffer(compressed, out).map_err(|error| error.to_string())
        }
        codec => Err(format!("nobody knows codec {codec}")),
    };
    let filled_bytes =
        filled_bytes.map_err(|what| damage(format!("a block can't be decompressed: {what}")))?;
    if filled_bytes != raw_bytes {
        return Err(damage(format!(
            "a block has {filled_bytes} bytes, {raw_bytes} were announced"
        )));
    }
    Ok(raw)
}

fn compress(codec: Codec, payload: &[u8]) -> Option<Vec<u8>> {
    match codec {
        Codec::Plain => None,
        Codec::Lz4 => Some(lz4_flex::block::compress(payload)),
        // It fails for want of memory only; then the block is stored as it is.
        Codec::Zstd => zstd::bulk::compress(payload, ZSTD_LEVEL).ok(),
    }
}

fn checksum(table: TableId, offset: u64, covered: &[u8]) -> u32 {
    let mut place = [0; 20];
    place[..4].copy_from_slice(&table.shard.0.to_le_bytes());
    place[4..12].copy_from_slice(&table.number.0.to_le_bytes());
    place[12..].copy_from_slice(&offset.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place), covered)
}

/// What a table has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// Keys, each counted once.
    pub keys: u64,
    /// Versions of them.
    pub versions: u64,
    /// Versions that are tombstones.
    pub tombstones: u64,
    /// Versions that expire.
    pub expiring: u64,
    /// The latest moment at which one of them does.
    pub last_expiry: Timestamp,
    /// Bytes of keys and values, each version's.
    pub raw_bytes: u64,
    /// The oldest timestamp.
    pub oldest: Timestamp,
    /// The newest timestamp.
    pub newest: Timestamp,
    /// Range tombstones, which are no versions.
    pub range_tombstones: u64,
    /// Bytes of older tables that they covered for a good part when the table was made.
    pub covered_bytes: u64,
    /// The table has nothing of the key `largest`: range tombstones end there.
    pub is_largest_excluded: bool,
    /// The first key, or the first that a range tombstone covers.
    pub smallest: Vec<u8>,
    /// The last key, or the end of the range tombstones.
    pub largest: Vec<u8>,
}

impl Properties {
    /// Notes one more version, which comes behind all before.
    pub fn note(&mut self, key: &[u8], version: &Version<'_>) {
        if self.versions == 0 {
            self.smallest = key.to_vec();
            self.oldest = version.timestamp;
        }
        if self.versions == 0 || self.largest != key {
            self.keys += 1;
            key.clone_into(&mut self.largest);
        }
        self.versions += 1;
        self.tombstones += u64::from(version.value.is_none());
        self.expiring += u64::from(version.expiry.is_some());
        self.last_expiry = self.last_expiry.max(version.expiry.unwrap_or_default());
        self.raw_bytes += (key.len() + version.value.unwrap_or_default().len()) as u64;
        self.oldest = self.oldest.min(version.timestamp);
        self.newest = self.newest.max(version.timestamp);
    }

    /// Notes the range tombstones of the table, when all versions were noted. They cover so many bytes of older tables.
    ///
    /// # Panics
    /// If one has no end.
    pub fn note_ranges(&mut self, tombstones: &[RangeTombstone], covered_bytes: u64) {
        for tombstone in tombstones {
            let is_first = self.versions == 0 && self.range_tombstones == 0;
            let end = tombstone.end.as_ref().expect("in a table each has an end");
            if is_first || *tombstone.start < *self.smallest {
                self.smallest = tombstone.start.to_vec();
            }
            if is_first || **end > *self.largest {
                self.largest = end.to_vec();
                self.is_largest_excluded = true;
            }
            self.oldest = if is_first {
                tombstone.timestamp
            } else {
                self.oldest.min(tombstone.timestamp)
            };
            self.newest = self.newest.max(tombstone.timestamp);
            self.range_tombstones += 1;
        }
        self.covered_bytes = covered_bytes;
    }

    /// What a tree has to know of the table.
    pub fn info(&self, number: TableNumber, bytes: u64) -> TableInfo {
        TableInfo {
            number,
            bytes,
            smallest: self.smallest.clone().into(),
            largest: self.largest.clone().into(),
            is_largest_excluded: self.is_largest_excluded,
            keys: self.keys,
            versions: self.versions,
            tombstones: self.tombstones,
            range_tombstones: self.range_tombstones,
            covered_bytes: self.covered_bytes,
            expiring: self.expiring,
            last_expiry: self.last_expiry,
            newest: self.newest,
        }
    }

    /// Eleven numbers of 8 bytes, the last one 1 if the largest key is excluded, then both keys, each behind its length
    /// (4 bytes).
    pub fn encode(&self) -> Vec<u8> {
        let numbers = [
            self.keys,
            self.versions,
            self.tombstones,
            self.expiring,
            self.last_expiry.0,
            self.raw_bytes,
            self.oldest.0,
            self.newest.0,
            self.range_tombstones,
            self.covered_bytes,
            u64::from(self.is_largest_excluded),
        ];
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        for key in [&self.smallest, &self.largest] {
            bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
            bytes.extend_from_slice(key);
        }
        bytes
    }

    /// The properties of these bytes, if they are some.
    pub fn decode(mut bytes: &[u8]) -> Option<Properties> {
        let mut number = || {
            let (number, rest) = bytes.split_first_chunk::<8>()?;
            bytes = rest;
            Some(u64::from_le_bytes(*number))
        };
        let mut properties = Properties {
            keys: number()?,
            versions: number()?,
            tombstones: number()?,
            expiring: number()?,
            last_expiry: Timestamp(number()?),
            raw_bytes: number()?,
            oldest: Timestamp(number()?),
            newest: Timestamp(number()?),
            range_tombstones: number()?,
            covered_bytes: number()?,
            is_largest_excluded: match number()? {
                0 => false,
                1 => true,
                _ => return None,
            },
            ..Properties::default()
        };
        for key in [&mut properties.smallest, &mut properties.largest] {
            let (length, rest) = bytes.split_first_chunk::<4>()?;
            let (own, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            own.clone_into(key);
            bytes = rest;
        }
        bytes.is_empty().then_some(properties)
    }
}

/// The end of a table: where its parts lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// The table.
    pub table: TableId,
    /// Length of the file.
    pub file_bytes: u64,
    /// The index of the index blocks.
    pub root: Handle,
    /// The filter.
    pub filter: Handle,
    /// The properties.
    pub properties: Handle,
    /// The range tombstones.
    pub ranges: Handle,
}

impl Footer {
    /// ```text
    /// magic (8) | version (4) | crc32c of all after it (4) | table (8) | file length (8) | 4 handles (12 each)
    /// | shard (4) | zeros (12)
    /// ```
    pub fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut bytes = [0; FOOTER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.table.number.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.file_bytes.to_le_bytes());
        let handles = [self.root, self.filter, self.properties, self.ranges];
        for (number, handle) in handles.into_iter().enumerate() {
            bytes[32 + number * Handle::BYTES..][..Handle::BYTES].copy_from_slice(&handle.encode());
        }
        bytes[80..84].copy_from_slice(&self.table.shard.0.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// What the last bytes of a file say, whether or not they can be believed; `None` if that leads beyond the file.
    pub fn claimed(bytes: &[u8; FOOTER_BYTES], file_bytes: u64) -> Option<Footer> {
        let handle = |number: usize| {
            let at = 32 + number * Handle::BYTES;
            Handle::decode(&bytes[at..at + Handle::BYTES], file_bytes)
        };
        Some(Footer {
            table: TableId {
                shard: ShardId(u32::from_le_bytes(bytes[80..84].try_into().ok()?)),
                number: TableNumber(u64::from_le_bytes(bytes[16..24].try_into().ok()?)),
            },
            file_bytes,
            root: handle(0)?,
            filter: handle(1)?,
            properties: handle(2)?,
            ranges: handle(3)?,
        })
    }

    /// The footer of the file of this table and length, whose last bytes these are; they may be any.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8; FOOTER_BYTES], table: TableId, file_bytes: u64) -> Result<Footer, Damage> {
        let damage = |what: String| Damage {
            offset: file_bytes - FOOTER_BYTES as u64,
            what,
        };
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        if bytes[..8] != MAGIC {
            return Err(damage("the file does not end as a table does".to_owned()));
        }
        if u32_at(8) != VERSION {
            return Err(damage(format!(
                "the table has format version {}, this program reads {VERSION}",
                u32_at(8)
            )));
        }
        let (expected, found) = (crc32c::crc32c(&bytes[16..]), u32_at(12));
        if expected != found {
            return Err(damage(format!(
                "the checksum of the footer is {found:#010x}, expected {expected:#010x}"
            )));
        }
        let found = TableId {
            shard: ShardId(u32_at(80)),
            number: TableNumber(u64_at(16)),
        };
        if (found, u64_at(24)) != (table, file_bytes) {
            return Err(damage(format!(
                "the footer is of {found} with {} bytes, expected {table} with {file_bytes}",
                u64_at(24),
            )));
        }
        let handle = |number: usize| {
            let at = 32 + number * Handle::BYTES;
            Handle::decode(&bytes[at..at + Handle::BYTES], file_bytes)
                .ok_or_else(|| damage("the footer leads beyond the file".to_owned()))
        };
        Ok(Footer {
            table,
            file_bytes,
            root: handle(0)?,
            filter: handle(1)?,
            properties: handle(2)?,
            ranges: handle(3)?,
        })
    }
}
