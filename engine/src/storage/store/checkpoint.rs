//! Checkpoints: the tables of all shards of one moment, under names of their own.
//!
//! ```text
//! DIR/checkpoint/ID/shard/NNNN/manifest          written anew: these tables, and no others
//! DIR/checkpoint/ID/shard/NNNN/NUMBER.sst        another name of the table's file
//! ```
//!
//! A table never changes, so a link is as good as a copy, and lasts when the node has merged the table away. Each core
//! links its shards; who asked for the checkpoint removes it as a whole. What a crash leaves is removed at the next
//! start.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use ostrakon_core::raft::EntryId;

use super::files::{ShardFiles, StoreError, shard_directory, shards_directory, table_name};
use super::tables::Tables;
use crate::env::Disk;
use crate::env::disk::BLOCK_BYTES;
use crate::storage::manifest::{self, Manifest};

/// Name of the directory of all checkpoints.
const CHECKPOINTS: &str = "checkpoint";

/// The directory of all checkpoints.
pub fn checkpoints_directory(data: &Path) -> PathBuf {
    data.join(CHECKPOINTS)
}

/// The directory of a checkpoint, which has the form of a data directory.
pub fn checkpoint_directory(data: &Path, id: u64) -> PathBuf {
    checkpoints_directory(data).join(format!("{id:016x}"))
}

impl ShardFiles {
    /// Links the tables into a checkpoint, and writes a manifest that says that there are these. All entries up to
    /// `flushed` are in them. The names last when this returns, once those of the directories above do.
    ///
    /// # Errors
    /// If there is too little room, or what the operating system says.
    pub async fn link(&self, checkpoint: &Path, tables: &Tables, flushed: EntryId) -> Result<(), StoreError> {
        let directory = shard_directory(checkpoint, self.shard());
        let disk = &self.env().disk;
        let failed = |source| self.directory_failed("link tables of", source);
        self.check_room(BLOCK_BYTES as u64).await?;
        disk.create_dir(&directory).await.map_err(failed)?;
        for open in tables.runs().iter().flatten() {
            let number = open.info.number;
            let linked = directory.join(table_name(number));
            disk.link(&self.table_path(number), &linked)
                .await
                .map_err(failed)?;
        }
        let files = manifest::ShardFiles {
            tree: tables.tree().clone(),
            flushed,
            next_number: self.next_number(),
        };
        // This syncs the directory as well.
        Manifest::write(disk, &directory, self.shard().0, files).await?;
        Ok(())
    }
}

/// Makes the directory of a checkpoint, in which each core then makes those of its shards.
///
/// # Errors
/// What the operating system says.
pub async fn make_directory(disk: &dyn Disk, data: &Path, id: u64) -> Result<(), StoreError> {
    let checkpoint = checkpoint_directory(data, id);
    let wanted = [
        checkpoints_directory(data),
        checkpoint.clone(),
        shards_directory(&checkpoint),
    ];
    for path in &wanted {
        let made = disk.create_dir(path).await;
        made.map_err(|source| failed(path, "make", source))?;
    }
    Ok(())
}

/// Makes the names of a checkpoint last, after those of its shards.
///
/// # Errors
/// What the operating system says.
pub async fn sync_directory(disk: &dyn Disk, data: &Path, id: u64) -> Result<(), StoreError> {
    let checkpoint = checkpoint_directory(data, id);
    let from_below = [
        &shards_directory(&checkpoint),
        &checkpoint,
        &checkpoints_directory(data),
        data,
    ];
    for path in from_below {
        let synced = disk.sync_dir(path).await;
        synced.map_err(|source| failed(path, "sync", source))?;
    }
    Ok(())
}

/// Removes a checkpoint, if it is there. Nobody works on it any more.
///
/// # Errors
/// What the operating system says. What is left goes at the next start.
pub async fn remove_checkpoint(disk: &dyn Disk, data: &Path, id: u64) -> Result<(), StoreError> {
    let all = checkpoints_directory(data);
    if has_directory(disk, data, CHECKPOINTS).await?
        && has_directory(disk, &all, &format!("{id:016x}")).await?
    {
        remove_all_of(disk, &checkpoint_directory(data, id)).await?;
    }
    Ok(())
}

/// Removes all checkpoints: nobody can use those of a process that is no more.
///
/// # Errors
/// What the operating system says.
pub async fn remove_checkpoints(disk: &dyn Disk, data: &Path) -> Result<(), StoreError> {
    if has_directory(disk, data, CHECKPOINTS).await? {
        remove_all_of(disk, &checkpoints_directory(data)).await?;
    }
    Ok(())
}

async fn has_directory(disk: &dyn Disk, directory: &Path, name: &str) -> Result<bool, StoreError> {
    let listed = disk.list(directory).await;
    let listed = listed.map_err(|source| failed(directory, "list", source))?;
    Ok(listed.iter().any(|entry| entry.is_dir && entry.name == name))
}

/// Removes a directory and all in it.
fn remove_all_of<'a>(
    disk: &'a dyn Disk,
    directory: &'a Path,
) -> Pin<Box<dyn Future<Output = Result<(), StoreError>> + 'a>> {
    Box::pin(async move {
        let removing = |source| failed(directory, "remove", source);
        for entry in disk.list(directory).await.map_err(removing)? {
            let path = directory.join(&entry.name);
            if entry.is_dir {
                remove_all_of(disk, &path).await?;
            } else {
                disk.remove(&path).await.map_err(removing)?;
            }
        }
        disk.remove_dir(directory).await.map_err(removing)
    })
}

fn failed(path: &Path, operation: &'static str, source: io::Error) -> StoreError {
    StoreError::Directory {
        path: path.to_owned(),
        operation,
        source,
    }
}
