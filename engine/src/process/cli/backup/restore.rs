//! `restore`: writes the entries of a backup into a node, or compares the two.
//!
//! 1. The bytes of all files are checked.
//! 2. The backup's tables are read as the engine reads them, and their entries are written through the client as those
//!    of an import are. So the node may have another number of shards or cores than the one that the backup is of.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use indicatif::{HumanBytes, HumanCount};
use ostrakon_client::ScanOptions;
use serde_json::json;
use xxhash_rust::xxh3::Xxh3;

use super::super::commands::Context;
use super::super::failure::Failure;
use super::super::interrupt::Interrupt;
use super::super::link::timestamp_us;
use super::super::output::{self, Format};
use super::super::requests::RestoreArguments;
use super::super::transfer::{BadRecord, Expiry, Progress, Record, load};
use super::catalogue::{BackupTable, Catalogue};
use super::compare::compare;
use super::directory::{BackupDirectory, failed};
use super::read::{BackupEntry, BackupReader, table_files};

/// Bytes that are checked at once.
const CHECK_BYTES: usize = 1 << 20;

/// `restore`.
pub(in super::super) fn restore(arguments: &RestoreArguments, context: &mut Context) -> Result<(), Failure> {
    let started = Instant::now();
    let path = context.spelling.path(&arguments.directory)?;
    let directory = BackupDirectory::open(path)?;
    let catalogue = directory.choose(arguments.at)?;
    context.link.connect()?;
    if !arguments.verify && !arguments.overwrite {
        check_empty(context)?;
    }
    let interrupt = Arc::clone(context.link.interrupt());
    check_files(&directory, &catalogue, &interrupt)?;
    let mut reader = BackupReader::open(&directory, &catalogue)?;
    if arguments.verify {
        return compare(&mut reader, &catalogue, context);
    }
    let progress = Progress::new("restore", None);
    let records = std::iter::from_fn(|| {
        let entry = reader.next().map_err(|failure| BadRecord {
            place: format!("backup {}", catalogue.snapshot),
            detail: failure.to_string(),
        });
        let entry = entry.transpose()?;
        Some(entry.map(|entry| {
            progress.bar().inc((entry.key.len() + entry.value.len()) as u64);
            record(entry)
        }))
    });
    let tally = load(records, context, &interrupt, "Restore")?;
    let bytes = progress.bar().position();
    drop(progress);
    let seconds = started.elapsed().as_secs_f64();
    if context.format == Format::Json {
        return output::json_line(&json!({
            "backup": catalogue.snapshot.to_string(),
            "entries": tally.written,
            "entries_over": tally.over,
            "bytes": bytes,
            "seconds": seconds,
        }));
    }
    let over = match tally.over {
        0 => String::new(),
        over => format!("; {} more have expired", HumanCount(over)),
    };
    output::text(&format!(
        "restored {} entries ({}) of backup {} in {seconds:.1} s{over}\n",
        HumanCount(tally.written),
        HumanBytes(bytes),
        catalogue.snapshot,
    ))
}

fn record(entry: BackupEntry) -> Record {
    Record {
        key: entry.key,
        value: entry.value,
        expiry: match timestamp_us(entry.expires) {
            0 => Expiry::Never,
            at_us => Expiry::AtUs(at_us),
        },
    }
}

/// What is restored must not mix with other data unasked.
fn check_empty(context: &mut Context) -> Result<(), Failure> {
    let options = ScanOptions {
        limit: 1,
        keys_only: true,
        ..ScanOptions::default()
    };
    let first = context
        .link
        .call(|client| client.scan(options).next().transpose())?;
    if first.is_none() {
        return Ok(());
    }
    Err(Failure::Failed(
        "the node has keys already, so nothing was restored. Restore into an empty one; or add --overwrite, then keys \
         of the backup are written over, and others stay as they are"
            .to_owned(),
    ))
}

/// Are all files of a backup there, and as they were written?
fn check_files(
    directory: &BackupDirectory,
    catalogue: &Catalogue,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let progress = Progress::new("check", Some(catalogue.table_bytes()));
    for (path, table) in table_files(directory, catalogue) {
        let (bytes, checksum) = checksum_of(&path, &progress, interrupt)?;
        if (bytes, checksum) != (table.bytes, table.checksum) {
            return Err(damaged(&path, table, bytes, checksum));
        }
    }
    Ok(())
}

fn damaged(path: &Path, table: &BackupTable, bytes: u64, checksum: u64) -> Failure {
    let what = if bytes == table.bytes {
        format!(
            "its checksum is {checksum:016x}, expected {:016x}",
            table.checksum
        )
    } else {
        format!("it has {bytes} bytes, expected {}", table.bytes)
    };
    Failure::Failed(format!(
        "{} is damaged: {what}; nothing was restored. Restore the file from a copy, or choose another backup with --at",
        path.display()
    ))
}

fn checksum_of(path: &Path, progress: &Progress, interrupt: &Interrupt) -> Result<(u64, u64), Failure> {
    let reading = |error| failed("read", path, &error);
    let mut file = File::open(path).map_err(reading)?;
    let mut checksum = Xxh3::new();
    let mut buffer = vec![0; CHECK_BYTES];
    let mut bytes = 0;
    loop {
        interrupt.check()?;
        let read = file.read(&mut buffer).map_err(reading)?;
        if read == 0 {
            return Ok((bytes, checksum.digest()));
        }
        checksum.update(&buffer[..read]);
        bytes += read as u64;
        progress.bar().inc(read as u64);
    }
}
