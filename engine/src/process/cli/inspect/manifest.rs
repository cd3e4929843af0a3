//! A manifest, record by record, and the tables that these come to.

use std::io;

use ostrakon_core::lsm::{Place, TableInfo};

use super::source::Source;
use super::{Report, timestamp};
use crate::env::disk::BLOCK_BYTES;
use crate::process::cli::key::escape;
use crate::storage::manifest::judgement::{Change, Judged, Part, judge, shard_of};
use crate::storage::store::files::parse_shard_directory;
use crate::storage::store::keys::users_key;

pub(super) fn print(source: &Source, report: &mut Report<'_>) -> io::Result<()> {
    let len_bytes = source.len_bytes / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
    let bytes = match source.read(0, len_bytes as usize) {
        Ok(bytes) => bytes,
        Err(error) => return report.damage(0, 0, &format!("the file can't be read: {error}")),
    };
    let by_name = parse_shard_directory(&source.directory_name()).map(|shard| shard.0);
    let Some(shard) = by_name.or_else(|| shard_of(&bytes)) else {
        return report.damage(
            0,
            0,
            "neither the directory nor a record in the file says which shard it is of",
        );
    };
    report.line(0, &format!("manifest of shard {shard}"))?;
    let judged = judge(&bytes, shard);
    for part in &judged.parts {
        match part {
            Part::Record {
                offset,
                bytes,
                sequence,
                change,
            } => {
                report.line(0, &format!("offset {offset}: record {sequence}, {bytes} bytes"))?;
                print_change(change, report)?;
                for flaw in judged.flaws.iter().filter(|flaw| flaw.offset == *offset) {
                    report.damage(1, flaw.offset, &flaw.what)?;
                }
            }
            Part::Other(other) if judged.torn.as_ref() == Some(other) => {
                let torn = format!("offset {}: torn end, {}", other.offset, other.what);
                report.line(0, &torn)?;
            }
            Part::Other(flaw) => {
                let what = format!("{}, up to {}", flaw.what, flaw.offset + flaw.bytes);
                report.damage(0, flaw.offset, &what)?;
            }
        }
    }
    if judged.parts.is_empty() {
        report.damage(0, 0, "there is no record")?;
    }
    print_tree(&judged, report)
}

fn print_change(change: &Change, report: &mut Report<'_>) -> io::Result<()> {
    report.line(
        1,
        &format!(
            "flushed up to entry {} of term {}, the next table is {}",
            change.flushed.index.0, change.flushed.term.0, change.next_number.0
        ),
    )?;
    if !change.edit.removed.is_empty() {
        let numbers: Vec<String> = change
            .edit
            .removed
            .iter()
            .map(|number| number.0.to_string())
            .collect();
        report.line(1, &format!("tables that go: {}", numbers.join(" ")))?;
    }
    if !change.edit.added.is_empty() {
        let place = match change.edit.place {
            Place::Young => "a young run".to_owned(),
            Place::Level(level) => format!("level {level}"),
        };
        report.line(1, &format!("tables that come, {place}:"))?;
        for info in &change.edit.added {
            report.line(2, &table(info))?;
        }
    }
    Ok(())
}

fn print_tree(judged: &Judged, report: &mut Report<'_>) -> io::Result<()> {
    let files = &judged.files;
    let name = if judged.is_readable() {
        "all in all"
    } else {
        "up to the first damage"
    };
    report.line(
        0,
        &format!(
            "{name}: {} tables of {} bytes, flushed up to entry {} of term {}, the next table is {}",
            files.tree.tables().count(),
            files.tree.bytes(),
            files.flushed.index.0,
            files.flushed.term.0,
            files.next_number.0
        ),
    )?;
    let young = files.tree.young.iter().map(|run| ("young run".to_owned(), run));
    let levels = (1..).zip(&files.tree.levels);
    let levels = levels.map(|(level, run)| (format!("level {level}"), run));
    for (name, run) in young.chain(levels).filter(|(_, run)| !run.is_empty()) {
        report.line(1, &name)?;
        for info in run {
            report.line(2, &table(info))?;
        }
    }
    Ok(())
}

fn table(info: &TableInfo) -> String {
    format!(
        "table {}: {} bytes, {} keys, {} versions, {} tombstones, {} that expire, the newest {}, keys {} to {}",
        info.number.0,
        info.bytes,
        info.keys,
        info.versions,
        info.tombstones,
        info.expiring,
        timestamp(info.newest),
        key(&info.smallest),
        key(&info.largest)
    )
}

/// A key of tables: a user's as the shell takes it, one of the shard itself in brackets.
pub(super) fn key(stored: &[u8]) -> String {
    users_key(stored).map_or_else(|| format!("[{}]", escape(stored)), escape)
}
