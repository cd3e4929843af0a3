//! Which files a data directory has, and the one that says whose it is.

use std::path::Path;

use ostrakon_wire::routing::ShardId;

use super::{Check, Loss, Told};
use crate::cluster::identity::{IDENTITY_FILE, Identity, TEMPORARY_FILE, read_identity};
use crate::env::Disk;
use crate::env::disk::{BLOCK_BYTES, DirEntry};
use crate::limits::SEGMENT_BYTES_DEFAULT;
use crate::log::format::LogId;
use crate::log::{is_half_made, parse_log_directory, parse_segment_name};
use crate::server::startup::FREED_SUFFIX;
use crate::storage::store::files::{parse_shard_directory, parse_table_name, shards_directory};

/// What a data directory has.
pub(super) struct Listed {
    /// It has the file that says whose it is.
    pub has_identity: bool,
    /// Directories of logs.
    pub logs: Vec<LogId>,
    /// Directories of shards.
    pub shards: Vec<ShardId>,
    /// Length that segments seem to have.
    pub segment_bytes: u64,
}

async fn entries(disk: &dyn Disk, directory: &Path) -> Result<Vec<DirEntry>, String> {
    let listed = disk.list(directory).await;
    let mut entries = listed.map_err(|error| format!("cannot list {}: {error}", directory.display()))?;
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(entries)
}

/// The entries of a directory below the data directory, none if it is not there.
async fn entries_below(
    disk: &dyn Disk,
    (data, above): (&Path, &[DirEntry]),
    name: &str,
) -> Result<Vec<DirEntry>, String> {
    if above.iter().any(|entry| entry.is_dir && entry.name == name) {
        entries(disk, &data.join(name)).await
    } else {
        Ok(Vec::new())
    }
}

pub(super) async fn table_bytes(disk: &dyn Disk, data: &Path) -> Result<u64, String> {
    let mut bytes = 0;
    let above = entries(disk, data).await?;
    for entry in entries_below(disk, (data, &above), "shard").await? {
        if entry.is_dir && parse_shard_directory(&entry.name).is_some() {
            let files = entries(disk, &data.join("shard").join(&entry.name)).await?;
            let tables = files.iter().filter(|file| parse_table_name(&file.name).is_some());
            bytes += tables.map(|file| file.len_bytes).sum::<u64>();
        }
    }
    Ok(bytes)
}

pub(super) async fn list(check: &Check<'_>) -> Result<Listed, String> {
    let (disk, data) = (check.disk, check.data);
    let above = entries(disk, data).await?;
    let has = |name: &str| above.iter().any(|entry| entry.name == name);
    if has(TEMPORARY_FILE) {
        check.leftover(data.join(TEMPORARY_FILE), "an identity that was not finished");
    }
    let mut listed = Listed {
        has_identity: has(IDENTITY_FILE),
        logs: Vec::new(),
        shards: Vec::new(),
        segment_bytes: 0,
    };
    for entry in entries_below(disk, (data, &above), "log").await? {
        let path = data.join("log").join(&entry.name);
        if entry.name.ends_with(FREED_SUFFIX) {
            check.leftover(path, "a log that was being removed");
            continue;
        }
        let Some(log) = parse_log_directory(&entry.name).filter(|_| entry.is_dir) else {
            continue;
        };
        listed.logs.push(log);
        for file in entries(disk, &path).await? {
            if parse_segment_name(&file.name).is_some() {
                listed.segment_bytes = listed.segment_bytes.max(file.len_bytes);
            } else if is_half_made(&file.name) {
                check.leftover(path.join(&file.name), "a segment that was not finished");
            }
        }
    }
    for entry in entries_below(disk, (data, &above), "shard").await? {
        if let Some(shard) = parse_shard_directory(&entry.name).filter(|_| entry.is_dir) {
            listed.shards.push(shard);
        }
    }
    listed.shards.sort();
    if listed.segment_bytes == 0 || !listed.segment_bytes.is_multiple_of(BLOCK_BYTES as u64) {
        listed.segment_bytes = SEGMENT_BYTES_DEFAULT;
    }
    if !listed.has_identity && listed.logs.is_empty() && listed.shards.is_empty() {
        return Err(format!(
            "{} is no data directory of a node: it has no file `{IDENTITY_FILE}`, no log and no shard",
            data.display()
        ));
    }
    Ok(listed)
}

/// Who the node is, if that can be read.
pub(super) async fn identity(check: &Check<'_>, listed: &Listed) -> Option<Identity> {
    let path = check.data.join(IDENTITY_FILE);
    if !listed.has_identity {
        let what = "it is missing, though there are logs or shards: it says which cluster they belong to";
        check.damage(&path, None, 0, what.to_owned(), Loss::Node);
        return None;
    }
    check.count(|totals| totals.files += 1);
    (check.tell)(Told::Read(BLOCK_BYTES as u64));
    match read_identity(check.disk, check.data).await {
        Ok(identity) => Some(identity),
        Err(what) => {
            check.damage(&path, Some(0), BLOCK_BYTES as u64, what, Loss::Node);
            None
        }
    }
}

/// The directory of all shards.
pub(super) fn shards_above(check: &Check<'_>) -> std::path::PathBuf {
    shards_directory(check.data)
}
