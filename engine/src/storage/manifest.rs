//! The manifest of a shard: a file that tells which tables the shard has, and up to which entry of its log they hold
//! everything.
//!
//! ```text
//! file    = record ...                    each at a multiple of 4096 bytes, written once, durable before the next
//! record  = header (32 bytes) | payload | zeros to the next multiple of 4096
//! header  = magic "OSTM" (4) | crc32c (4) | payload length (4) | shard (4) | sequence (8) | offset (8)
//! payload = next table number (8) | term (8) | index (8) | removed (4) | number (8) ...
//!           | place (4): 0 for young runs, else the level | added (4) | table ...
//! table   = number, bytes, versions, tombstones, expiring, last expiry, newest (8 each) | key | key     smallest, largest
//! key     = length (4) | bytes
//! ```
//!
//! The checksum covers what follows it, up to the end of the payload. Sequences count up by one. Each record is a
//! change: what a manifest says is what all of them make of an empty tree. A file that has become long is written anew,
//! with a change for each run of tables, and takes the place of the old one by its name.
//!
//! A record that can't be read is the torn end of the file if no record with a higher sequence follows it; then nobody
//! was told that it was written. Else it is damage.

use core::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::lsm::{Edit, LEVELS, Place, Run, TableInfo, TableNumber, Tree};
use ostrakon_core::raft::{EntryId, LogIndex, Term};

use crate::env::disk::{BLOCK_BYTES, Disk, File, OpenMode};

/// Name of the manifest in the directory of its shard.
pub const MANIFEST: &str = "manifest";
/// Name of one that is being written.
const HALF_MADE: &str = "manifest.tmp";

const MAGIC: [u8; 4] = *b"OSTM";
const HEADER_BYTES: usize = 32;
/// A manifest that is longer than this, and than [`REWRITE_FACTOR`] times what it would be if it were written anew, is.
const REWRITE_BYTES: u64 = 256 << 10;
const REWRITE_FACTOR: u64 = 4;

/// What a manifest says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardFiles {
    /// The shard's tables.
    pub tree: Tree,
    /// All entries of the shard's log up to this one are in the tables.
    pub flushed: EntryId,
    /// No table ever had this number or a higher one.
    pub next_number: TableNumber,
}

/// A change of a shard's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What becomes of the tree.
    pub edit: Edit,
    /// See [`ShardFiles::flushed`].
    pub flushed: EntryId,
    /// See [`ShardFiles::next_number`].
    pub next_number: TableNumber,
}

/// Why a manifest can't be read or written.
#[derive(Debug)]
#[non_exhaustive]
pub enum ManifestError {
    /// The operating system could not.
    Io {
        /// The file.
        path: PathBuf,
        /// What it was asked for.
        operation: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The file has other bytes than were written.
    Damaged {
        /// The file.
        path: PathBuf,
        /// From the start of the file, in bytes.
        offset: u64,
        /// What was expected and what was found.
        what: String,
    },
}

impl fmt::Display for ManifestError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ManifestError::Io {
                path,
                operation,
                source,
            } => {
                write!(formatter, "cannot {operation} {}: {source}", path.display())
            }
            ManifestError::Damaged { path, offset, what } => {
                write!(
                    formatter,
                    "{} is damaged at offset {offset}: {what}",
                    path.display()
                )
            }
        }
    }
}

impl core::error::Error for ManifestError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            ManifestError::Io { source, .. } => Some(source),
            ManifestError::Damaged { .. } => None,
        }
    }
}

/// The manifest of a shard, open for changes.
pub struct Manifest {
    disk: Rc<dyn Disk>,
    directory: PathBuf,
    shard: u32,
    files: ShardFiles,
    file: Option<Rc<dyn File>>,
    /// Where the next record goes.
    end: u64,
    next_sequence: u64,
    /// Length of the file when it was written anew last.
    anew_bytes: u64,
}

impl Manifest {
    /// Opens the manifest of a shard in its directory, or makes one that says that there is no table.
    ///
    /// # Errors
    /// If it can't be read or written, or is damaged.
    pub async fn open(disk: &Rc<dyn Disk>, directory: &Path, shard: u32) -> Result<Manifest, ManifestError> {
        let mut manifest = Manifest {
            disk: Rc::clone(disk),
            directory: directory.to_owned(),
            shard,
            files: ShardFiles::default(),
            file: None,
            end: 0,
            next_sequence: 0,
            anew_bytes: 0,
        };
        let listed = disk.list(directory).await;
        let listed = listed.map_err(|source| manifest.failed(directory.to_owned(), "list", source))?;
        let has = |name: &str| listed.iter().any(|entry| entry.name == name);
        if has(HALF_MADE) {
            manifest.remove_half_made().await?;
        }
        if has(MANIFEST) {
            let bytes = manifest.read().await?;
            let path = manifest.path(MANIFEST);
            let read = replay(&bytes, shard).map_err(|(offset, what)| ManifestError::Damaged {
                path,
                offset,
                what,
            })?;
            manifest.files = read.files;
            manifest.end = read.end;
            manifest.next_sequence = read.next_sequence;
            manifest.anew_bytes = bytes.len() as u64;
            if !read.is_torn {
                manifest.reopen().await?;
                return Ok(manifest);
            }
        }
        manifest.write_anew().await?;
        Ok(manifest)
    }

    /// What it says.
    pub fn files(&self) -> &ShardFiles {
        &self.files
    }

    /// Notes a change. It lasts when this returns; tables that it brings must last already, and those that it takes
    /// away may be removed afterwards.
    ///
    /// # Errors
    /// If it can't be written; whether it lasts is then known only to the next [`Manifest::open`].
    ///
    /// # Panics
    /// If the change does not fit the tables.
    pub async fn note(&mut self, change: &Change) -> Result<(), ManifestError> {
        let mut changed = self.files.clone();
        changed
            .make(change)
            .expect("a change fits the tables that it was made for");
        if self.end >= REWRITE_BYTES.max(self.anew_bytes * REWRITE_FACTOR) {
            self.files = changed;
            return self.write_anew().await;
        }
        let record = encode(self.shard, self.next_sequence, self.end, change);
        let file = self.file.as_ref().expect("it is open between calls");
        let mut buffer = self.disk.allocate(record.len());
        buffer.bytes_mut().copy_from_slice(&record);
        let written = file.write_at(Rc::new(buffer), self.end).await;
        written.map_err(|source| self.failed(self.path(MANIFEST), "write", source))?;
        self.files = changed;
        self.end += record.len() as u64;
        self.next_sequence += 1;
        Ok(())
    }

    /// Closes the file. To be called last.
    ///
    /// # Errors
    /// If the operating system has something to say against it.
    pub async fn close(&mut self) -> Result<(), ManifestError> {
        self.close_file().await
    }

    /// Writes all that it says into a new file, which takes the place of the old one.
    async fn write_anew(&mut self) -> Result<(), ManifestError> {
        self.close_file().await?;
        let mut bytes = Vec::new();
        let mut sequence = self.next_sequence;
        for change in self.files.changes() {
            bytes.extend(encode(self.shard, sequence, bytes.len() as u64, &change));
            sequence += 1;
        }
        let path = self.path(HALF_MADE);
        let opened = self.disk.open(&path, OpenMode::CreateNew).await;
        let file = opened.map_err(|source| self.failed(path.clone(), "make", source))?;
        let mut buffer = self.disk.allocate(bytes.len());
        buffer.bytes_mut().copy_from_slice(&bytes);
        let written = match file.write_at(Rc::new(buffer), 0).await {
            Ok(()) => file.sync().await,
            failed => failed,
        };
        let closed = file.close().await;
        written
            .and(closed)
            .map_err(|source| self.failed(path.clone(), "write", source))?;
        let named = match self.disk.rename(&path, &self.path(MANIFEST)).await {
            Ok(()) => self.disk.sync_dir(&self.directory).await,
            failed => failed,
        };
        named.map_err(|source| self.failed(path, "rename", source))?;
        self.end = bytes.len() as u64;
        self.anew_bytes = self.end;
        self.next_sequence = sequence;
        self.reopen().await
    }

    async fn reopen(&mut self) -> Result<(), ManifestError> {
        let path = self.path(MANIFEST);
        let opened = self.disk.open(&path, OpenMode::WriteDurable).await;
        self.file = Some(opened.map_err(|source| self.failed(path, "open", source))?);
        Ok(())
    }

    async fn close_file(&mut self) -> Result<(), ManifestError> {
        if let Some(file) = self.file.take() {
            let closed = file.close().await;
            closed.map_err(|source| self.failed(self.path(MANIFEST), "close", source))?;
        }
        Ok(())
    }

    async fn remove_half_made(&self) -> Result<(), ManifestError> {
        let path = self.path(HALF_MADE);
        let removed = self.disk.remove(&path).await;
        removed.map_err(|source| self.failed(path, "remove", source))
    }

    async fn read(&self) -> Result<Vec<u8>, ManifestError> {
        let path = self.path(MANIFEST);
        let failed = |source| self.failed(path.clone(), "read", source);
        let file = self.disk.open(&path, OpenMode::Read).await.map_err(failed)?;
        // What is left of a torn write may end anywhere.
        let len_bytes = file.len_bytes() as usize / BLOCK_BYTES * BLOCK_BYTES;
        let read = if len_bytes == 0 {
            Ok(Vec::new())
        } else {
            file.read_at(0, len_bytes)
                .await
                .map(|buffer| buffer.bytes().to_vec())
        };
        let closed = file.close().await;
        let bytes = read.map_err(failed)?;
        closed.map_err(failed)?;
        Ok(bytes)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn failed(&self, path: PathBuf, operation: &'static str, source: io::Error) -> ManifestError {
        ManifestError::Io {
            path,
            operation,
            source,
        }
    }
}

impl ShardFiles {
    fn make(&mut self, change: &Change) -> Result<(), String> {
        self.tree
            .apply(&change.edit)
            .map_err(|misfit| misfit.to_string())?;
        if change.flushed.index < self.flushed.index || change.next_number < self.next_number {
            return Err("a record goes back in the log, or in the numbers of tables".to_owned());
        }
        self.flushed = change.flushed;
        self.next_number = change.next_number;
        Ok(())
    }

    /// The changes that make an empty tree this one: one for each run, from the oldest to the newest, and one at least.
    fn changes(&self) -> Vec<Change> {
        let levels = self.tree.levels.iter().enumerate();
        let levels = levels.map(|(place, run)| (Place::Level(place + 1), run));
        let young = self.tree.young.iter().rev().map(|run| (Place::Young, run));
        let change = |(place, run): (Place, &Run)| Change {
            edit: Edit {
                removed: Vec::new(),
                place,
                added: run.clone(),
            },
            flushed: self.flushed,
            next_number: self.next_number,
        };
        let mut changes: Vec<Change> = levels
            .chain(young)
            .filter(|(_, run)| !run.is_empty())
            .map(change)
            .collect();
        if changes.is_empty() {
            changes.push(change((Place::Level(1), &Run::new())));
        }
        changes
    }
}

/// What became of the bytes of a manifest.
#[derive(Debug)]
struct Replayed {
    files: ShardFiles,
    end: u64,
    next_sequence: u64,
    /// Something lies behind the last record.
    is_torn: bool,
}

/// Makes all changes of a file, which may have any bytes; or tells what is wrong with it, and where.
fn replay(bytes: &[u8], shard: u32) -> Result<Replayed, (u64, String)> {
    let mut files = ShardFiles::default();
    let mut offset = 0;
    let mut next_sequence = None;
    while offset < bytes.len() {
        let record = match record_at(bytes, offset, shard) {
            Ok(record) => record,
            // A manifest gets its name when its first records last.
            Err(what) if next_sequence.is_none() => return Err((offset as u64, what)),
            Err(what) => {
                let later = (offset + BLOCK_BYTES..bytes.len()).step_by(BLOCK_BYTES);
                let mut later = later.filter_map(|later| Some((later, record_at(bytes, later, shard).ok()?)));
                if let Some((later, _)) = later.find(|(_, record)| Some(record.sequence) > next_sequence) {
                    let what = format!("{what}, and there is a newer record at offset {later}");
                    return Err((offset as u64, what));
                }
                break;
            }
        };
        if let Some(next) = next_sequence.filter(|next| *next != record.sequence) {
            let what = format!("a record has sequence {}, expected {next}", record.sequence);
            return Err((offset as u64, what));
        }
        files.make(&record.change).map_err(|what| (offset as u64, what))?;
        next_sequence = Some(record.sequence + 1);
        offset += record.bytes;
    }
    let next_sequence = next_sequence.ok_or_else(|| (0, "there is no record".to_owned()))?;
    Ok(Replayed {
        files,
        end: offset as u64,
        next_sequence,
        is_torn: offset < bytes.len(),
    })
}

struct Record {
    sequence: u64,
    change: Change,
    /// With its padding.
    bytes: usize,
}

fn encode(shard: u32, sequence: u64, offset: u64, change: &Change) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BLOCK_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.resize(12, 0);
    bytes.extend_from_slice(&shard.to_le_bytes());
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&offset.to_le_bytes());
    for number in [
        change.next_number.0,
        change.flushed.term.0,
        change.flushed.index.0,
    ] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&(change.edit.removed.len() as u32).to_le_bytes());
    for number in &change.edit.removed {
        bytes.extend_from_slice(&number.0.to_le_bytes());
    }
    let place = match change.edit.place {
        Place::Young => 0,
        Place::Level(level) => level as u32,
    };
    bytes.extend_from_slice(&place.to_le_bytes());
    bytes.extend_from_slice(&(change.edit.added.len() as u32).to_le_bytes());
    for table in &change.edit.added {
        let numbers = [
            table.number.0,
            table.bytes,
            table.versions,
            table.tombstones,
            table.expiring,
            table.last_expiry.0,
            table.newest.0,
        ];
        numbers
            .iter()
            .for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        for key in [&table.smallest, &table.largest] {
            bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
            bytes.extend_from_slice(key);
        }
    }
    let payload_bytes = (bytes.len() - HEADER_BYTES) as u32;
    bytes[8..12].copy_from_slice(&payload_bytes.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[8..]);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    bytes
}

/// The record at an offset, or what keeps the bytes there from being one.
fn record_at(bytes: &[u8], offset: usize, shard: u32) -> Result<Record, String> {
    let bytes = &bytes[offset..];
    let (header, rest) = bytes
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or("a record is cut off")?;
    if header[..4] != MAGIC {
        return Err("no record begins here".to_owned());
    }
    let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let u64_at = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    let payload = rest.get(..u32_at(8) as usize).ok_or("a record is cut off")?;
    let (expected, found) = (crc32c::crc32c(&bytes[8..HEADER_BYTES + payload.len()]), u32_at(4));
    if expected != found {
        return Err(format!(
            "the checksum of a record is {found:#010x}, expected {expected:#010x}"
        ));
    }
    if (u32_at(12), u64_at(24)) != (shard, offset as u64) {
        return Err(format!(
            "a record of shard {} at offset {} lies here, expected one of shard {shard}",
            u32_at(12),
            u64_at(24)
        ));
    }
    let mut fields = Fields(payload);
    let change = fields.change().filter(|_| fields.0.is_empty());
    Ok(Record {
        sequence: u64_at(16),
        change: change.ok_or("the payload of a record is not what it should be")?,
        bytes: (HEADER_BYTES + payload.len()).next_multiple_of(BLOCK_BYTES),
    })
}

/// What is left of a payload.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u32(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*number))
    }

    fn u64(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn key(&mut self) -> Option<Box<[u8]>> {
        let length = self.u32()? as usize;
        let (key, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(key.into())
    }

    fn change(&mut self) -> Option<Change> {
        let next_number = TableNumber(self.u64()?);
        let flushed = EntryId {
            term: Term(self.u64()?),
            index: LogIndex(self.u64()?),
        };
        let removed = self.u32()?;
        let removed = (0..removed)
            .map(|_| self.u64().map(TableNumber))
            .collect::<Option<_>>()?;
        let place = match self.u32()? as usize {
            0 => Place::Young,
            level @ 1..=LEVELS => Place::Level(level),
            _ => return None,
        };
        let added = self.u32()?;
        let added = (0..added)
            .map(|_| self.table().map(Rc::new))
            .collect::<Option<_>>()?;
        Some(Change {
            edit: Edit {
                removed,
                place,
                added,
            },
            flushed,
            next_number,
        })
    }

    fn table(&mut self) -> Option<TableInfo> {
        Some(TableInfo {
            number: TableNumber(self.u64()?),
            bytes: self.u64()?,
            versions: self.u64()?,
            tombstones: self.u64()?,
            expiring: self.u64()?,
            last_expiry: Timestamp(self.u64()?),
            newest: Timestamp(self.u64()?),
            smallest: self.key()?,
            largest: self.key()?,
        })
    }
}

#[cfg(test)]
mod tests;
