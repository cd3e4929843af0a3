//! Looks a whole data directory through while no node runs on it, and tells all that is wrong with it. Not a byte is
//! changed.
//!
//! 1. [`files`]: the identity, and what files there are.
//! 2. [`logs`]: each log as a start would judge it, and behind its first damage to the end.
//! 3. [`shards`]: each manifest; whether it has flushed what the log does not have; whether the log goes on behind it
//!    without a gap, in entries that parse. What is left to do is a list of tables.
//! 4. [`tables`]: each table, block by block. This is most of the work, and may be spread over cores.
//!
//! It does not matter how many cores the node had.

mod files;
mod logs;
mod shards;
mod tables;

use core::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ostrakon_core::lsm::TableInfo;
use ostrakon_wire::routing::ShardId;

use super::startup::{Assignment, decide};
use crate::cluster::identity::Identity;
use crate::env::{Disk, Tasks};
use crate::log::recovery::LogChain;
use crate::storage::sstable::format::TableId;

pub use tables::check_tables;

/// What a check comes upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Something is wrong.
    Damage(Damage),
    /// A file that the next start removes.
    Leftover {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The end of a log that a crash has torn off. Nothing in it was acknowledged.
    Torn {
        /// The segment.
        path: PathBuf,
        /// From its start, in bytes.
        offset: u64,
        /// What was found there.
        what: String,
    },
    /// So many more bytes were read.
    Read(u64),
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file or directory.
    pub path: PathBuf,
    /// From its start, in bytes, if it is at a place.
    pub offset: Option<u64>,
    /// Length of the place in bytes; 0 if nobody knows.
    pub bytes: u64,
    /// What was expected and what was found.
    pub what: String,
    /// What is lost by it.
    pub lost: Loss,
}

/// What is lost by a damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing that anybody stored.
    Nothing,
    /// These versions of a shard's keys, as tables have the keys. `None`: from the first of the table on.
    Keys(ShardId, Option<Box<[u8]>>, Box<[u8]>),
    /// A table can't be opened, and the node not be started.
    Table(ShardId),
    /// A shard can't be opened, and the node not be started.
    Shard(ShardId),
    /// Acknowledged writes of these shards; of none in particular: of any shard of the log.
    Log(Vec<ShardId>),
    /// The node can't be started.
    Node,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Files.
    pub files: u64,
    /// Segments of logs that count.
    pub segments: u64,
    /// Entries in them that are not in tables.
    pub entries: u64,
    /// Tables.
    pub tables: u64,
    /// Whole blocks of tables.
    pub blocks: u64,
    /// Keys in tables, of each table by itself.
    pub keys: u64,
    /// Their versions.
    pub versions: u64,
}

impl Totals {
    /// Adds what others have looked at.
    pub fn add(&mut self, other: &Totals) {
        self.files += other.files;
        self.segments += other.segments;
        self.entries += other.entries;
        self.tables += other.tables;
        self.blocks += other.blocks;
        self.keys += other.keys;
        self.versions += other.versions;
    }
}

/// A table that is left to look at.
#[derive(Clone, Debug)]
pub struct PlannedTable {
    /// Its file.
    pub path: PathBuf,
    /// Which table.
    pub id: TableId,
    /// What the manifest says of it, if that can be read.
    pub expected: Option<TableInfo>,
}

/// What is left to do when logs and manifests are through.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Tables.
    pub tables: Vec<PlannedTable>,
    /// What was looked at so far.
    pub totals: Totals,
}

/// What all parts of a check need.
struct Check<'a> {
    disk: &'a dyn Disk,
    tasks: &'a dyn Tasks,
    data: &'a Path,
    tell: &'a dyn Fn(Told),
    totals: RefCell<Totals>,
}

impl Check<'_> {
    fn damage(&self, path: &Path, offset: Option<u64>, bytes: u64, what: String, lost: Loss) {
        (self.tell)(Told::Damage(Damage {
            path: path.to_owned(),
            offset,
            bytes,
            what,
            lost,
        }));
    }

    fn leftover(&self, path: PathBuf, what: &'static str) {
        (self.tell)(Told::Leftover { path, what });
    }

    fn count(&self, count: impl FnOnce(&mut Totals)) {
        count(&mut self.totals.borrow_mut());
    }
}

/// Bytes of all tables, which are most of what a check reads as a rule.
///
/// # Errors
/// A sentence, when a directory can't be listed.
pub async fn table_bytes(disk: &dyn Disk, data: &Path) -> Result<u64, String> {
    files::table_bytes(disk, data).await
}

/// Looks through all but the tables.
///
/// # Errors
/// A sentence, when there is no data directory of a node, or a directory can't be listed.
pub async fn check_node(
    (disk, tasks): (&dyn Disk, &dyn Tasks),
    data: &Path,
    tell: &dyn Fn(Told),
) -> Result<Plan, String> {
    let check = Check {
        disk,
        tasks,
        data,
        tell,
        totals: RefCell::default(),
    };
    let listed = files::list(&check).await?;
    let identity = files::identity(&check, &listed).await;
    let segment_bytes = identity.map_or(listed.segment_bytes, |identity| identity.segment_bytes);
    let chains = logs::check(&check, &listed.logs, identity.as_ref(), segment_bytes).await;
    let assignment = decide(believed(identity, &chains, &listed.shards), chains, 1);
    let tables = shards::check(&check, &assignment, &listed, segment_bytes).await?;
    Ok(Plan {
        tables,
        totals: check.totals.into_inner(),
    })
}

/// The identity, or if that is lost, as much of it as the check has to know.
fn believed(identity: Option<Identity>, chains: &[LogChain], shards: &[ShardId]) -> Identity {
    if let Some(identity) = identity {
        return identity;
    }
    let head = chains.iter().find_map(|chain| chain.head).unwrap_or_default();
    let shards = shards.iter().map(|shard| shard.0 + 1).max().unwrap_or(0);
    Identity {
        cluster: head.cluster,
        node: head.node,
        shards: head.shards.max(shards),
        segment_bytes: head.segment_bytes,
        boot: crate::log::format::BootNumber(0),
        logs: 0,
    }
}

/// The homes of an assignment by the log that they are in.
fn homes_in(assignment: &Assignment, log: crate::log::format::LogId) -> BTreeMap<ShardId, u32> {
    let homes = (0..).map(ShardId).zip(&assignment.homes);
    let homes = homes.filter_map(|(shard, home)| Some((shard, home.source?)));
    let homes = homes.filter(|(_, (source, _))| *source == log);
    homes.map(|(shard, (_, epoch))| (shard, epoch.0)).collect()
}
