//! The directory of backups.
//!
//! ```text
//! DIR/LOCK                                   as of a data directory: one program at a time changes what is here
//! DIR/backup-SNAPSHOT.catalogue              one for each backup, written last
//! DIR/shard/NNNN/NUMBER-CHECKSUM.sst         tables that some catalogue has
//! DIR/unreleased                             the checkpoint of a backup that is being made, or was killed
//! ```
//!
//! Whatever no catalogue has is no part of a backup, and goes when the next one is made.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::super::failure::Failure;
use super::catalogue::{BackupTable, Catalogue};
use crate::process::lock::{DirectoryLock, LockError};

const CATALOGUE_PREFIX: &str = "backup-";
const CATALOGUE_SUFFIX: &str = ".catalogue";
const SHARDS: &str = "shard";
const UNRELEASED: &str = "unreleased";
/// How names of files end that are not whole.
const HALF_MADE: &str = ".tmp";

/// A directory of backups.
#[derive(Debug)]
pub(super) struct BackupDirectory {
    path: PathBuf,
    /// Of whoever changes what is there.
    _lock: Option<DirectoryLock>,
}

/// The sentence for a failed operation on a file.
pub(super) fn failed(operation: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!("cannot {operation} {}: {error}", path.display()))
}

impl BackupDirectory {
    /// For reading.
    pub(super) fn open(path: PathBuf) -> Result<BackupDirectory, Failure> {
        if path.is_dir() {
            return Ok(BackupDirectory { path, _lock: None });
        }
        Err(Failure::Failed(format!("{} is no directory", path.display())))
    }

    /// For changes; made if it is missing.
    pub(super) fn lock(path: PathBuf) -> Result<BackupDirectory, Failure> {
        let lock = DirectoryLock::acquire(&path).map_err(|error| match error {
            LockError::Held { pid, .. } => {
                let holder = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                Failure::Failed(format!("{} is in use by {holder}", path.display()))
            }
            LockError::Io { path, action, source } => {
                Failure::Failed(format!("cannot {action} {}: {source}", path.display()))
            }
        })?;
        Ok(BackupDirectory {
            path,
            _lock: Some(lock),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// All backups, the oldest first.
    pub(super) fn catalogues(&self) -> Result<Vec<Catalogue>, Failure> {
        let mut catalogues = Vec::new();
        for (name, path) in list(&self.path)? {
            let digits = name
                .strip_prefix(CATALOGUE_PREFIX)
                .and_then(|rest| rest.strip_suffix(CATALOGUE_SUFFIX));
            let Some(digits) = digits else { continue };
            let bytes = fs::read(&path).map_err(|error| failed("read", &path, &error))?;
            let catalogue = Catalogue::decode(&bytes)
                .and_then(|catalogue| {
                    if catalogue.snapshot.to_string() == digits {
                        Ok(catalogue)
                    } else {
                        Err(format!("it is that of backup {}", catalogue.snapshot))
                    }
                })
                .map_err(|what| {
                    Failure::Failed(format!(
                        "{} is damaged: {what}; restore it from a copy, or remove it and with it this backup",
                        path.display()
                    ))
                })?;
            catalogues.push(catalogue);
        }
        catalogues.sort_by_key(|catalogue| catalogue.snapshot);
        Ok(catalogues)
    }

    /// The backup of this snapshot, or else the newest.
    pub(super) fn choose(&self, snapshot: Option<u64>) -> Result<Catalogue, Failure> {
        let mut catalogues = self.catalogues()?;
        let place = match snapshot {
            None => catalogues.len().checked_sub(1),
            Some(wanted) => catalogues.iter().position(|known| known.snapshot == wanted),
        };
        match (place, snapshot) {
            (Some(place), _) => Ok(catalogues.swap_remove(place)),
            (None, Some(wanted)) if !catalogues.is_empty() => Err(Failure::Failed(format!(
                "{} has no backup {wanted}; `ostrakon backup {0} --list` tells which there are",
                self.path.display()
            ))),
            _ => Err(Failure::Failed(format!("{} has no backup", self.path.display()))),
        }
    }

    fn catalogue_path(&self, snapshot: u64) -> PathBuf {
        self.path
            .join(format!("{CATALOGUE_PREFIX}{snapshot}{CATALOGUE_SUFFIX}"))
    }

    fn shard_path(&self, shard: u32) -> PathBuf {
        self.path.join(SHARDS).join(format!("{shard:04}"))
    }

    /// The file of a table.
    pub(super) fn table_path(&self, shard: u32, table: &BackupTable) -> PathBuf {
        let name = format!("{:016x}-{:016x}.sst", table.number, table.checksum);
        self.shard_path(shard).join(name)
    }

    /// Where a table of this number is written until its checksum is known.
    pub(super) fn half_made_path(&self, shard: u32, number: u64) -> PathBuf {
        self.shard_path(shard).join(format!("{number:016x}{HALF_MADE}"))
    }

    /// Makes the directories of so many shards.
    pub(super) fn make_shards(&self, shards: u32) -> Result<(), Failure> {
        for shard in 0..shards {
            let path = self.shard_path(shard);
            fs::create_dir_all(&path).map_err(|error| failed("make the directory", &path, &error))?;
        }
        Ok(())
    }

    /// Makes the names of all tables last, and then the backup itself.
    pub(super) fn finish(&self, catalogue: &Catalogue) -> Result<(), Failure> {
        for shard in 0..catalogue.shards.len() as u32 {
            sync(&self.shard_path(shard))?;
        }
        sync(&self.path.join(SHARDS))?;
        let path = self.catalogue_path(catalogue.snapshot);
        self.write(&path, &catalogue.encode())
    }

    /// Takes a backup out, and what only it had.
    pub(super) fn remove(&self, snapshot: u64) -> Result<(), Failure> {
        let path = self.catalogue_path(snapshot);
        fs::remove_file(&path).map_err(|error| failed("remove", &path, &error))?;
        sync(&self.path)?;
        self.remove_unneeded()
    }

    /// Removes what no catalogue has.
    pub(super) fn remove_unneeded(&self) -> Result<(), Failure> {
        let catalogues = self.catalogues()?;
        let needed: BTreeSet<PathBuf> = catalogues
            .iter()
            .flat_map(Catalogue::tables)
            .map(|(shard, table)| self.table_path(shard, table))
            .collect();
        let shards = self.path.join(SHARDS);
        if !shards.is_dir() {
            return Ok(());
        }
        for (_, shard) in list(&shards)? {
            for (_, path) in list(&shard)? {
                if !needed.contains(&path) {
                    fs::remove_file(&path).map_err(|error| failed("remove", &path, &error))?;
                }
            }
        }
        Ok(())
    }

    /// Notes the checkpoint that is about to be made.
    pub(super) fn note_unreleased(&self, id: u64) -> Result<(), Failure> {
        self.write(&self.path.join(UNRELEASED), format!("{id:016x}\n").as_bytes())
    }

    /// A checkpoint that was made for a backup here, and perhaps not released.
    pub(super) fn unreleased(&self) -> Option<u64> {
        let text = fs::read_to_string(self.path.join(UNRELEASED)).ok()?;
        u64::from_str_radix(text.trim(), 16).ok()
    }

    /// The checkpoint is released.
    pub(super) fn forget_unreleased(&self) -> Result<(), Failure> {
        let path = self.path.join(UNRELEASED);
        fs::remove_file(&path).map_err(|error| failed("remove", &path, &error))
    }

    /// A file that appears whole or not at all.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), Failure> {
        let mut name = path.as_os_str().to_owned();
        name.push(HALF_MADE);
        let half_made = PathBuf::from(name);
        File::create(&half_made)
            .and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&half_made, path))
            .map_err(|error| failed("write", path, &error))?;
        sync(&self.path)
    }
}

/// Names and paths of what is in a directory.
fn list(directory: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
    let read = || -> io::Result<Vec<(String, PathBuf)>> {
        let named = fs::read_dir(directory)?.map(|entry| {
            let entry = entry?;
            Ok((entry.file_name().to_string_lossy().into_owned(), entry.path()))
        });
        named.collect()
    };
    read().map_err(|error| failed("list", directory, &error))
}

fn sync(directory: &Path) -> Result<(), Failure> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| failed("sync the directory", directory, &error))
}
