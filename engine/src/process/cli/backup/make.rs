//! `backup`: makes a backup, or lists and removes those that there are.
//!
//! 1. The node makes a checkpoint, in a directory which this program reads itself: it runs on the node's machine.
//! 2. Tables that an earlier backup has are shared. The others are copied; each copy is synced, and read as a whole, so
//!    that a table of the node that is damaged is found here.
//! 3. The catalogue is written. Until then nothing counts.
//! 4. The checkpoint is released, whatever has happened. A program that was killed leaves a note of it, and the next
//!    one releases it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::{HumanBytes, HumanCount};
use ostrakon_client::Checkpoint;
use ostrakon_wire::routing::ShardId;
use rustix::rand::{GetRandomFlags, getrandom};
use serde_json::json;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::super::commands::Context;
use super::super::failure::Failure;
use super::super::interrupt::Interrupt;
use super::super::output::{self, Format};
use super::super::requests::BackupArguments;
use super::super::transfer::Progress;
use super::catalogue::{BackupShard, BackupTable, Catalogue};
use super::directory::{BackupDirectory, failed};
use super::offline::{count_versions, open_table};
use crate::storage::manifest::{self, MANIFEST};
use crate::storage::sstable::cache::BlockCache;
use crate::storage::sstable::format::TableId;
use crate::storage::store::files::{shard_directory, table_name};

/// Bytes that are copied at once.
const COPY_BYTES: usize = 1 << 20;
/// Bytes at the end of a table's file that tell whether a backup has it: its filter, index and counts lie there.
const END_BYTES: u64 = 64 << 10;

/// `backup`.
pub(in super::super) fn backup(arguments: &BackupArguments, context: &mut Context) -> Result<(), Failure> {
    let path = context.spelling.path(&arguments.directory)?;
    if arguments.list {
        return list(&BackupDirectory::open(path)?, context.format);
    }
    if let Some(snapshot) = arguments.delete {
        BackupDirectory::open(path.clone())?.choose(Some(snapshot))?;
        return BackupDirectory::lock(path)?.remove(snapshot);
    }
    // Connecting first leaves no directory behind if nobody answers.
    context.link.connect()?;
    let directory = BackupDirectory::lock(path)?;
    let made = make(&directory, context)?;
    if let Some(keep) = arguments.keep {
        let catalogues = directory.catalogues()?;
        let over = catalogues.len().saturating_sub(keep as usize);
        for old in &catalogues[..over] {
            directory.remove(old.snapshot)?;
        }
    }
    made.print(&directory, context.format)
}

/// A backup that was made.
#[derive(Debug)]
struct Made {
    catalogue: Catalogue,
    /// Of all tables, what shards keep for themselves included.
    versions: u64,
    copied: u64,
    copied_bytes: u64,
    elapsed: Duration,
}

impl Made {
    fn print(&self, directory: &BackupDirectory, format: Format) -> Result<(), Failure> {
        let tables = self.catalogue.tables().count() as u64;
        let bytes = self.catalogue.table_bytes();
        let shared = tables - self.copied;
        if format == Format::Json {
            return output::json_line(&json!({
                "backup": self.catalogue.snapshot.to_string(),
                "shards": self.catalogue.shards.len(),
                "versions": self.versions,
                "tables": tables,
                "tables_shared": shared,
                "bytes": bytes,
                "bytes_copied": self.copied_bytes,
                "seconds": self.elapsed.as_secs_f64(),
            }));
        }
        output::text(&format!(
            "backup {} in {}: {} tables of {} shards ({}); {} tables shared, {} copied ({}) in {:.1} s\n",
            self.catalogue.snapshot,
            directory.path().display(),
            HumanCount(tables),
            self.catalogue.shards.len(),
            HumanBytes(bytes),
            HumanCount(shared),
            HumanCount(self.copied),
            HumanBytes(self.copied_bytes),
            self.elapsed.as_secs_f64(),
        ))
    }
}

fn list(directory: &BackupDirectory, format: Format) -> Result<(), Failure> {
    let catalogues = directory.catalogues()?;
    for catalogue in &catalogues {
        let (tables, bytes) = (catalogue.tables().count() as u64, catalogue.table_bytes());
        if format == Format::Json {
            output::json_line(&json!({
                "backup": catalogue.snapshot.to_string(),
                "cluster_id": format!("{:016x}{:016x}", catalogue.cluster.0, catalogue.cluster.1),
                "node_id": format!("{:016x}", catalogue.node),
                "made_at_us": catalogue.made_at_us,
                "shards": catalogue.shards.len(),
                "tables": tables,
                "bytes": bytes,
            }))?;
        } else {
            output::text(&format!(
                "{}  {}  {} tables of {} shards, {}\n",
                catalogue.snapshot,
                utc(catalogue.made_at_us / 1_000_000),
                HumanCount(tables),
                catalogue.shards.len(),
                HumanBytes(bytes),
            ))?;
        }
    }
    Ok(())
}

/// Date and time, given in seconds since 1970.
fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // The calendar repeats after 400 years; years that begin in March have their odd day last.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (
        400 * era + year_of_era + u64::from(month >= 10),
        if month < 10 { month + 3 } else { month - 9 },
    );
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day_of_month:02} {hour:02}:{minute:02}:{second:02} UTC")
}

fn make(directory: &BackupDirectory, context: &mut Context) -> Result<Made, Failure> {
    let started = Instant::now();
    let known = directory.catalogues()?;
    directory.remove_unneeded()?;
    if let Some(id) = directory.unreleased() {
        context.link.call(|client| client.release_checkpoint(id))?;
    }
    let id = random_number();
    directory.note_unreleased(id)?;
    let copied = copy_checkpoint(directory, &known, id, context);
    // A command that was told to end has lost its connection.
    let released = context.link.apart().call(|client| client.release_checkpoint(id));
    if released.is_ok() {
        directory.forget_unreleased()?;
    }
    let made = match copied {
        Ok(made) => made,
        Err(failure) => {
            // Why there is no backup is what tells; the next one removes what is left.
            let _ = directory.remove_unneeded();
            return Err(failure);
        }
    };
    if let Err(failure) = released {
        eprintln!(
            "ostrakon: the backup is whole, but the node could not be told that it is: {failure}. It keeps the space \
             of its tables until the next backup, or until it starts again"
        );
    }
    Ok(Made {
        elapsed: started.elapsed(),
        ..made
    })
}

fn random_number() -> u64 {
    let mut bytes = [0; 8];
    let filled = getrandom(&mut bytes, GetRandomFlags::empty());
    assert!(
        filled == Ok(bytes.len()),
        "the operating system has no randomness: {filled:?}"
    );
    u64::from_le_bytes(bytes)
}

/// A table of the checkpoint.
#[derive(Debug)]
struct Source {
    id: TableId,
    path: PathBuf,
    bytes: u64,
    versions: u64,
    end_checksum: u64,
    /// The same table in an earlier backup.
    shared: Option<BackupTable>,
}

fn copy_checkpoint(
    directory: &BackupDirectory,
    known: &[Catalogue],
    id: u64,
    context: &mut Context,
) -> Result<Made, Failure> {
    let checkpoint = context.link.call(|client| client.make_checkpoint(id))?;
    check_place(directory, known, &checkpoint)?;
    let mut shards = read_checkpoint(&checkpoint)?;
    find_shared(directory, known, &mut shards);
    let interrupt = Arc::clone(context.link.interrupt());
    let sources = || shards.iter().flat_map(|(_, sources)| sources);
    let wanted_bytes = sources().filter(|source| source.shared.is_none());
    let progress = Progress::new("backup", Some(wanted_bytes.map(|source| source.bytes).sum()));
    directory.make_shards(shards.len() as u32)?;
    let mut made = Made {
        catalogue: Catalogue {
            cluster: (checkpoint.cluster_id.high, checkpoint.cluster_id.low),
            node: checkpoint.node_id,
            snapshot: checkpoint.snapshot,
            made_at_us: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_micros() as u64),
            shards: Vec::with_capacity(shards.len()),
        },
        versions: sources().map(|source| source.versions).sum(),
        copied: 0,
        copied_bytes: 0,
        elapsed: Duration::ZERO,
    };
    for (manifest, sources) in shards {
        let mut tables = Vec::with_capacity(sources.len());
        for source in &sources {
            interrupt.check()?;
            let table = if let Some(shared) = source.shared {
                shared
            } else {
                made.copied += 1;
                made.copied_bytes += source.bytes;
                copy(directory, source, &progress, &interrupt)?
            };
            tables.push(table);
        }
        made.catalogue.shards.push(BackupShard { manifest, tables });
    }
    directory.finish(&made.catalogue)?;
    Ok(made)
}

/// Is the checkpoint on this machine, and of the cluster whose backups are here?
fn check_place(
    directory: &BackupDirectory,
    known: &[Catalogue],
    checkpoint: &Checkpoint,
) -> Result<(), Failure> {
    if !Path::new(&checkpoint.directory).is_dir() {
        return Err(Failure::Failed(format!(
            "there is no directory {} here: run this on the machine of the node, as a user who may read its data",
            checkpoint.directory
        )));
    }
    let cluster = checkpoint.cluster_id;
    let other = known
        .iter()
        .find(|known| (known.cluster, known.node) != ((cluster.high, cluster.low), checkpoint.node_id));
    match other {
        None => Ok(()),
        Some(other) => Err(Failure::Failed(format!(
            "{} has backups of node {:016x} of cluster {:016x}{:016x}, and this is node {:016x} of cluster {cluster}: \
             name another directory",
            directory.path().display(),
            other.node,
            other.cluster.0,
            other.cluster.1,
            checkpoint.node_id
        ))),
    }
}

/// Of each shard its manifest, and its tables.
type Sources = Vec<(Vec<u8>, Vec<Source>)>;

/// Looks at all files of a checkpoint.
fn read_checkpoint(checkpoint: &Checkpoint) -> Result<Sources, Failure> {
    let data = Path::new(&checkpoint.directory);
    let read = |(shard, extent): (u32, &ostrakon_client::CheckpointShard)| {
        let files = shard_directory(data, ShardId(shard));
        let path = files.join(MANIFEST);
        let bytes = fs::read(&path).map_err(|error| failed("read", &path, &error))?;
        let damaged = |what: String| Failure::Failed(format!("{} is damaged: {what}", path.display()));
        let parsed = manifest::parse(&bytes, shard)
            .map_err(|(offset, what)| damaged(format!("at offset {offset}: {what}")))?;
        let sources = parsed.tree.tables().map(|table| {
            let id = TableId {
                shard: ShardId(shard),
                number: table.number,
            };
            read_source(
                files.join(table_name(table.number)),
                id,
                table.bytes,
                table.versions,
            )
        });
        let sources: Vec<Source> = sources.collect::<Result<_, _>>()?;
        if sources.len() != extent.tables as usize {
            let (found, expected) = (sources.len(), extent.tables);
            return Err(damaged(format!(
                "it has {found} tables, and the node said {expected}"
            )));
        }
        Ok((bytes, sources))
    };
    (0..).zip(&checkpoint.shards).map(read).collect()
}

fn read_source(path: PathBuf, id: TableId, bytes: u64, versions: u64) -> Result<Source, Failure> {
    let read_end = || -> io::Result<(u64, u64)> {
        let file = File::open(&path)?;
        let file_bytes = file.metadata()?.len();
        let end_bytes = file_bytes.min(END_BYTES);
        let mut end = vec![0; end_bytes as usize];
        file.read_exact_at(&mut end, file_bytes - end_bytes)?;
        Ok((file_bytes, xxh3_64(&end)))
    };
    let (file_bytes, end_checksum) = read_end().map_err(|error| failed("read", &path, &error))?;
    if file_bytes != bytes {
        return Err(Failure::Failed(format!(
            "{} is damaged: it has {file_bytes} bytes, expected {bytes}",
            path.display()
        )));
    }
    Ok(Source {
        id,
        path,
        bytes,
        versions,
        end_checksum,
        shared: None,
    })
}

/// Finds the tables that backups in the directory have.
fn find_shared(directory: &BackupDirectory, known: &[Catalogue], shards: &mut [(Vec<u8>, Vec<Source>)]) {
    let tables = known.iter().flat_map(Catalogue::tables);
    let by_identity: BTreeMap<_, BackupTable> = tables
        .map(|(shard, table)| ((shard, table.number, table.bytes, table.end_checksum), *table))
        .collect();
    for source in shards.iter_mut().flat_map(|(_, sources)| sources) {
        let TableId { shard, number } = source.id;
        let identity = (shard.0, number.0, source.bytes, source.end_checksum);
        let is_there = |table: &&BackupTable| {
            let copy = fs::metadata(directory.table_path(shard.0, table));
            copy.is_ok_and(|copy| copy.len() == table.bytes)
        };
        source.shared = by_identity.get(&identity).filter(is_there).copied();
    }
}

/// Copies a table, and checks the copy.
fn copy(
    directory: &BackupDirectory,
    source: &Source,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<BackupTable, Failure> {
    let TableId { shard, number } = source.id;
    let half_made = directory.half_made_path(shard.0, number.0);
    let checksum = copy_bytes(source, &half_made, progress, interrupt)?;
    check_blocks(source, &half_made)?;
    let table = BackupTable {
        number: number.0,
        bytes: source.bytes,
        checksum,
        end_checksum: source.end_checksum,
    };
    let path = directory.table_path(shard.0, &table);
    fs::rename(&half_made, &path).map_err(|error| failed("write", &path, &error))?;
    Ok(table)
}

fn copy_bytes(
    source: &Source,
    to: &Path,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<u64, Failure> {
    let reading = |error| failed("read", &source.path, &error);
    let writing = |error| failed("write", to, &error);
    let mut from = File::open(&source.path).map_err(reading)?;
    let mut copy = File::create(to).map_err(writing)?;
    let mut checksum = Xxh3::new();
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        interrupt.check()?;
        let read = from.read(&mut buffer).map_err(reading)?;
        if read == 0 {
            break;
        }
        copy.write_all(&buffer[..read]).map_err(writing)?;
        checksum.update(&buffer[..read]);
        progress.bar().inc(read as u64);
    }
    copy.sync_all().map_err(writing)?;
    Ok(checksum.digest())
}

/// Reads the copy as a table: what is damaged in it was so in the node's.
fn check_blocks(source: &Source, copy: &Path) -> Result<(), Failure> {
    let damaged = |what: String| {
        Failure::Failed(format!(
            "table {} of shard {} is damaged in the node's data directory ({what}), so that there is no backup of it",
            source.id.number.0, source.id.shard.0
        ))
    };
    let cache = Rc::new(BlockCache::new(0));
    let table = open_table(copy, source.id, &cache).map_err(|error| damaged(error.to_string()))?;
    let versions = count_versions(&table).map_err(|error| damaged(error.to_string()))?;
    if versions != source.versions {
        return Err(damaged(format!(
            "it has {versions} versions, expected {}",
            source.versions
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_dates() {
        for (seconds, told) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_767_225_599, "2025-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(seconds), told);
        }
    }
}
