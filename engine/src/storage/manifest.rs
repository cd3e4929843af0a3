//! The manifest of a shard: a file that tells which tables the shard has, and up to which entry of its log they hold
//! everything.
//!
//! ```text
//! file    = record ...                    each at a multiple of 4096 bytes, durable before the next
//! record  = header (32 bytes) | payload | zeros to the next multiple of 4096
//! header  = magic "OSTM" (4) | crc32c (4) | payload length (4) | shard (4) | sequence (8) | offset (8)
//! payload = next table number (8) | term (8) | index (8) | removed (4) | number (8) ...
//!           | place (4): 0 for young runs, else the level | added (4) | table ...
//! table   = number, bytes, keys, versions, tombstones, expiring, last expiry, newest, range tombstones, bytes that
//!           these cover, 1 if the largest key is excluded (8 each) | key | key    the smallest and the largest
//! key     = length (4) | bytes
//! ```
//!
//! The checksum covers what follows it, up to the end of the payload. Sequences count up by one. Each record is a
//! change: what a manifest says is what all of them make of an empty tree. A file that has become long is written
//! anew, with a change for each run of tables, and takes the place of the old one by its name.
//!
//! A record that can't be read is the torn end of the file if no record with a higher sequence follows it; then nobody
//! was told that it was written. Else it is damage.

pub mod judgement;
mod record;

use core::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ostrakon_core::lsm::{Edit, Place, Run, TableNumber, Tree};
use ostrakon_core::raft::EntryId;

use judgement::judge;
use record::{encode, record_at};

use super::verify::{Flaw, Lost};
use crate::env::disk::{BLOCK_BYTES, Disk, File, OpenMode, is_disk_full};

/// Name of the manifest in the directory of its shard.
pub const MANIFEST: &str = "manifest";
/// Name of one that is being written.
pub const HALF_MADE: &str = "manifest.tmp";
/// What fails if there is too little space, and leaves the manifest as it was.
const MAKE: &str = "make";
const WRITE: &str = "write";
/// How the names of tables end.
pub const TABLE_SUFFIX: &str = ".sst";

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
    /// The file is not there, but a table is: a manifest lasts before the first table is made.
    Missing {
        /// The file.
        path: PathBuf,
        /// Name of the table.
        table: String,
    },
    /// A write has failed before, so nobody knows what the file says until it is opened anew.
    Uncertain {
        /// The file.
        path: PathBuf,
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
            ManifestError::Missing { path, table } => {
                write!(
                    formatter,
                    "{} is missing, though there are tables ({table}): put it back",
                    path.display()
                )
            }
            ManifestError::Uncertain { path } => {
                write!(
                    formatter,
                    "nobody knows what {} says, because a write to it failed before: start again",
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
            ManifestError::Damaged { .. }
            | ManifestError::Missing { .. }
            | ManifestError::Uncertain { .. } => None,
        }
    }
}

impl ManifestError {
    /// Was there too little space to write, so that the change may be noted again?
    pub fn is_disk_full(&self) -> bool {
        match self {
            ManifestError::Io {
                operation: MAKE | WRITE,
                source,
                ..
            } => is_disk_full(source),
            _ => false,
        }
    }
}

/// The manifest of a shard, open for changes.
pub struct Manifest {
    disk: Rc<dyn Disk>,
    directory: PathBuf,
    shard: u32,
    files: ShardFiles,
    /// None after a write that failed, unless it found too little space.
    file: Option<Rc<dyn File>>,
    /// Where the next record goes.
    end: u64,
    next_sequence: u64,
    /// Length of the file if it had been written anew, when it was opened or written anew last.
    anew_bytes: u64,
    /// How the sync of a start failed, after which it was written anew.
    sync_failure: Option<String>,
}

impl Manifest {
    fn nothing(disk: &Rc<dyn Disk>, directory: &Path, shard: u32) -> Manifest {
        Manifest {
            disk: Rc::clone(disk),
            directory: directory.to_owned(),
            shard,
            files: ShardFiles::default(),
            file: None,
            end: 0,
            next_sequence: 0,
            anew_bytes: 0,
            sync_failure: None,
        }
    }

    /// Opens the manifest of a shard in its directory, or makes one that says that there is no table.
    ///
    /// # Errors
    /// If it can't be read or written, or is damaged.
    pub async fn open(disk: &Rc<dyn Disk>, directory: &Path, shard: u32) -> Result<Manifest, ManifestError> {
        let mut manifest = Manifest::nothing(disk, directory, shard);
        let listed = disk.list(directory).await;
        let listed = listed.map_err(|source| failed(directory.to_owned(), "list", source))?;
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
            if !read.is_torn {
                let anew = records_anew(&manifest.files, shard, manifest.next_sequence);
                manifest.anew_bytes = anew.0.len() as u64;
                manifest.reopen().await?;
                let Err(error) = manifest.make_last().await else {
                    return Ok(manifest);
                };
                // No later sync says anything about what this one should have stored: it is written anew.
                manifest.sync_failure = Some(error.to_string());
                let _ = manifest.close_file().await;
            }
        } else if let Some(table) = listed.iter().find(|entry| entry.name.ends_with(TABLE_SUFFIX)) {
            return Err(ManifestError::Missing {
                path: manifest.path(MANIFEST),
                table: table.name.clone(),
            });
        }
        manifest.write_anew(manifest.files.clone()).await?;
        Ok(manifest)
    }

    /// Writes a manifest that says this into a directory that has none.
    ///
    /// # Errors
    /// If it can't be written.
    pub async fn write(
        disk: &Rc<dyn Disk>,
        directory: &Path,
        shard: u32,
        files: ShardFiles,
    ) -> Result<(), ManifestError> {
        let mut manifest = Manifest::nothing(disk, directory, shard);
        manifest.write_anew(files).await?;
        manifest.close_file().await
    }

    /// How its sync failed when it was opened, if that is why it was written anew.
    pub fn sync_failure(&self) -> Option<&str> {
        self.sync_failure.as_deref()
    }

    /// What it says.
    pub fn files(&self) -> &ShardFiles {
        &self.files
    }

    /// Notes a change. It lasts when this returns; tables that it brings must last already, and those that it takes
    /// away may be removed afterwards.
    ///
    /// # Errors
    /// If it can't be written; whether it lasts is then known only to the next [`Manifest::open`]. So no table that it
    /// brings or takes away may be removed. No other change is taken, unless there was too little space
    /// ([`ManifestError::is_disk_full`]): then this one may be noted again, or another one, in the same place.
    ///
    /// # Panics
    /// If the change does not fit the tables.
    pub async fn note(&mut self, change: &Change) -> Result<(), ManifestError> {
        let Some(file) = &self.file else {
            return Err(ManifestError::Uncertain {
                path: self.path(MANIFEST),
            });
        };
        let mut changed = self.files.clone();
        changed
            .make(change)
            .expect("a change fits the tables that it was made for");
        if self.end >= REWRITE_BYTES.max(self.anew_bytes * REWRITE_FACTOR) {
            return self.write_anew(changed).await;
        }
        let record = encode(self.shard, self.next_sequence, self.end, change);
        let mut buffer = self.disk.allocate(record.len());
        buffer.bytes_mut().copy_from_slice(&record);
        let written = file.write_at(Rc::new(buffer), self.end).await;
        if let Err(source) = written {
            return Err(self
                .after_failure(failed(self.path(MANIFEST), WRITE, source))
                .await);
        }
        self.files = changed;
        self.end += record.len() as u64;
        self.next_sequence += 1;
        Ok(())
    }

    /// Reads the file again and holds it against what it is known to say: how many bytes that were, and what is wrong
    /// with them. Nothing is read after a write that failed.
    ///
    /// # Errors
    /// If it can't be read.
    pub async fn verify(&self) -> Result<(u64, Vec<Flaw>), ManifestError> {
        if self.file.is_none() {
            return Ok((0, Vec::new()));
        }
        let bytes = self.read().await?;
        let end = (self.end as usize).min(bytes.len());
        let judged = judge(&bytes[..end], self.shard);
        let is_known =
            judged.torn.is_none() && judged.files == self.files && judged.next_sequence == self.next_sequence;
        let mut flaws = judged.flaws;
        if flaws.is_empty() && !is_known {
            let torn = judged.torn.unwrap_or_else(|| Flaw {
                offset: end as u64,
                bytes: 0,
                what: "the file has not all records that were written to it".to_owned(),
                lost: Lost::File,
            });
            flaws.push(torn);
        }
        Ok((bytes.len() as u64, flaws))
    }

    /// Closes the file. To be called last.
    ///
    /// # Errors
    /// If the operating system has something to say against it.
    pub async fn close(&mut self) -> Result<(), ManifestError> {
        self.close_file().await
    }

    /// Writes a new file that says this, which takes the place of the old one.
    async fn write_anew(&mut self, files: ShardFiles) -> Result<(), ManifestError> {
        let (bytes, next_sequence) = records_anew(&files, self.shard, self.next_sequence);
        if let Err(error) = self.write_half_made(&bytes).await {
            // Why it can't be written is what tells.
            let _ = self.remove_half_made().await;
            return Err(self.after_failure(error).await);
        }
        self.close_file().await?;
        let (half_made, path) = (self.path(HALF_MADE), self.path(MANIFEST));
        let named = match self.disk.rename(&half_made, &path).await {
            Ok(()) => self.disk.sync_dir(&self.directory).await,
            failed => failed,
        };
        named.map_err(|source| failed(half_made, "rename", source))?;
        self.files = files;
        self.end = bytes.len() as u64;
        self.anew_bytes = self.end;
        self.next_sequence = next_sequence;
        self.reopen().await
    }

    async fn write_half_made(&self, bytes: &[u8]) -> Result<(), ManifestError> {
        let path = self.path(HALF_MADE);
        let opened = self.disk.open(&path, OpenMode::CreateNew).await;
        let file = opened.map_err(|source| failed(path.clone(), MAKE, source))?;
        let mut buffer = self.disk.allocate(bytes.len());
        buffer.bytes_mut().copy_from_slice(bytes);
        let written = match file.write_at(Rc::new(buffer), 0).await {
            Ok(()) => file.sync().await,
            failed => failed,
        };
        let closed = file.close().await;
        written.and(closed).map_err(|source| failed(path, WRITE, source))
    }

    /// Takes no other change after this failure, unless there was too little space: the next record is written over
    /// what may be there of this one.
    async fn after_failure(&mut self, error: ManifestError) -> ManifestError {
        if !error.is_disk_full() {
            // The failed write is what tells.
            let _ = self.close_file().await;
        }
        error
    }

    /// Makes what was read last. If a program before this one died, its last record may lie in the cache of the
    /// device, and the name of the file in that of the file system: later records must not outlive them.
    async fn make_last(&self) -> Result<(), ManifestError> {
        let file = self.file.as_ref().expect("it was just opened");
        let synced = match file.sync().await {
            Ok(()) => self.disk.sync_dir(&self.directory).await,
            failed => failed,
        };
        synced.map_err(|source| failed(self.path(MANIFEST), "sync", source))
    }

    async fn reopen(&mut self) -> Result<(), ManifestError> {
        let path = self.path(MANIFEST);
        let opened = self.disk.open(&path, OpenMode::WriteDurable).await;
        self.file = Some(opened.map_err(|source| failed(path, "open", source))?);
        Ok(())
    }

    async fn close_file(&mut self) -> Result<(), ManifestError> {
        if let Some(file) = self.file.take() {
            let closed = file.close().await;
            closed.map_err(|source| failed(self.path(MANIFEST), "close", source))?;
        }
        Ok(())
    }

    async fn remove_half_made(&self) -> Result<(), ManifestError> {
        let path = self.path(HALF_MADE);
        let removed = self.disk.remove(&path).await;
        removed.map_err(|source| failed(path, "remove", source))
    }

    async fn read(&self) -> Result<Vec<u8>, ManifestError> {
        let path = self.path(MANIFEST);
        let unreadable = |source| failed(path.clone(), "read", source);
        let file = self.disk.open(&path, OpenMode::Read).await.map_err(unreadable)?;
        let read = read_whole(&*file).await;
        let closed = file.close().await;
        let bytes = read.map_err(unreadable)?;
        closed.map_err(unreadable)?;
        Ok(bytes)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// The bytes of a file that says this by as few records as can be, the first of which has this sequence; and the
/// sequence of the record behind them.
fn records_anew(files: &ShardFiles, shard: u32, mut sequence: u64) -> (Vec<u8>, u64) {
    let mut bytes = Vec::new();
    for change in files.changes() {
        bytes.extend(encode(shard, sequence, bytes.len() as u64, &change));
        sequence += 1;
    }
    (bytes, sequence)
}

/// The bytes of a manifest, as far as records may reach.
///
/// # Errors
/// If they can't be read.
pub async fn read_whole(file: &dyn File) -> io::Result<Vec<u8>> {
    // What is left of a torn write may end anywhere.
    let len_bytes = file.len_bytes() as usize / BLOCK_BYTES * BLOCK_BYTES;
    if len_bytes == 0 {
        return Ok(Vec::new());
    }
    let buffer = file.read_at(0, len_bytes).await?;
    Ok(buffer.bytes().to_vec())
}

fn failed(path: PathBuf, operation: &'static str, source: io::Error) -> ManifestError {
    ManifestError::Io {
        path,
        operation,
        source,
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

/// What a whole manifest says, given its bytes, which may be any.
///
/// # Errors
/// What is wrong with it, and at which offset in bytes.
pub fn parse(bytes: &[u8], shard: u32) -> Result<ShardFiles, (u64, String)> {
    let read = replay(bytes, shard)?;
    if read.is_torn {
        return Err((read.end, "no record begins here".to_owned()));
    }
    Ok(read.files)
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

#[cfg(test)]
mod tests;
