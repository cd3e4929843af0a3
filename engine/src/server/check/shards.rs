//! The manifests of a data directory, and whether the logs go on where they end.

use core::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use ostrakon_core::lsm::TableNumber;
use ostrakon_core::raft::{EntryId, LogIndex};
use ostrakon_wire::routing::ShardId;

use super::files::{Listed, shards_above};
use super::{Check, Loss, PlannedTable, Told, homes_in};
use crate::env::OpenMode;
use crate::log::format::{Record, RecordKind};
use crate::log::log_directory;
use crate::log::recovery::{LogChain, replay};
use crate::server::startup::Assignment;
use crate::shard::command::Command;
use crate::storage::manifest::judgement::{Judged, judge};
use crate::storage::manifest::{HALF_MADE, MANIFEST, read_whole};
use crate::storage::sstable::format::TableId;
use crate::storage::store::files::{parse_table_name, shard_directory};
use crate::storage::verify::Lost;

/// Looks through manifests and entries, and returns the tables that there should be.
pub(super) async fn check(
    check: &Check<'_>,
    assignment: &Assignment,
    listed: &Listed,
    segment_bytes: u64,
) -> Result<Vec<PlannedTable>, String> {
    let mut tables = Vec::new();
    let mut flushed: BTreeMap<ShardId, Option<EntryId>> = BTreeMap::new();
    let own = 0..assignment.homes.len() as u32;
    for shard in own.clone().map(ShardId) {
        let through = if listed.shards.contains(&shard) {
            check_shard(check, shard, &mut tables).await?
        } else {
            Some(EntryId::default())
        };
        let home = &assignment.homes[shard.0 as usize];
        if let Some(through) = through.filter(|through| through.index < home.base.index) {
            let what = format!(
                "it has what was flushed up to entry {}, and the log begins behind entry {}: tables or the manifest \
                 are missing, or older than the log",
                through.index.0, home.base.index.0
            );
            check.damage(
                &shard_directory(check.data, shard),
                None,
                0,
                what,
                Loss::Shard(shard),
            );
        }
        flushed.insert(shard, through);
    }
    for shard in listed.shards.iter().filter(|shard| !own.contains(&shard.0)) {
        let path = shard_directory(check.data, *shard);
        let what = format!("the cluster has {} shards", own.end);
        check.damage(&path, None, 0, what, Loss::Nothing);
    }
    if listed.shards.is_empty() && assignment.homes.iter().any(|home| home.base.index.0 > 0) {
        let what = "it is missing, though the logs say that there are tables".to_owned();
        check.damage(&shards_above(check), None, 0, what, Loss::Node);
    }
    for chain in &assignment.chains {
        entries(check, chain, assignment, &flushed, segment_bytes).await;
    }
    Ok(tables)
}

/// The manifest of a shard, and which files there are. Returns the entry up to which all is in tables, if it is known.
async fn check_shard(
    check: &Check<'_>,
    shard: ShardId,
    tables: &mut Vec<PlannedTable>,
) -> Result<Option<EntryId>, String> {
    let directory = shard_directory(check.data, shard);
    let listed = check.disk.list(&directory).await;
    let listed = listed.map_err(|error| format!("cannot list {}: {error}", directory.display()))?;
    let numbers: BTreeSet<TableNumber> = listed
        .iter()
        .filter_map(|entry| parse_table_name(&entry.name))
        .collect();
    for entry in listed.iter().filter(|entry| entry.name == HALF_MADE) {
        check.leftover(directory.join(&entry.name), "a manifest that was not finished");
    }
    let path = directory.join(MANIFEST);
    let is_there = listed.iter().any(|entry| entry.name == MANIFEST);
    let judged = if is_there {
        manifest(check, &path, shard).await
    } else {
        if let Some(number) = numbers.first() {
            let what = format!(
                "it is missing, though there are tables (the first is {})",
                number.0
            );
            check.damage(&path, None, 0, what, Loss::Shard(shard));
        }
        None
    };
    let known = judged.as_ref().filter(|judged| judged.is_readable());
    let plan = |number: TableNumber, expected| PlannedTable {
        path: directory.join(crate::storage::store::files::table_name(number)),
        id: TableId { shard, number },
        expected,
    };
    let Some(judged) = known else {
        // Each table by itself may be whole.
        let is_new = !is_there && numbers.is_empty();
        tables.extend(numbers.into_iter().map(|number| plan(number, None)));
        return Ok(is_new.then(EntryId::default));
    };
    let tree = &judged.files.tree;
    tables.extend(
        tree.tables()
            .map(|info| plan(info.number, Some((**info).clone()))),
    );
    for number in numbers {
        if !tree.tables().any(|info| info.number == number) {
            check.leftover(plan(number, None).path, "a table that no manifest has");
        }
    }
    Ok(Some(judged.files.flushed))
}

async fn manifest(check: &Check<'_>, path: &Path, shard: ShardId) -> Option<Judged> {
    let bytes = match read(check, path).await {
        Ok(bytes) => bytes,
        Err(error) => {
            let what = format!("can't be read: {error}");
            check.damage(path, None, 0, what, Loss::Shard(shard));
            return None;
        }
    };
    check.count(|totals| totals.files += 1);
    (check.tell)(Told::Read(bytes.len() as u64));
    let judged = judge(&bytes, shard.0);
    for flaw in &judged.flaws {
        let lost = match flaw.lost {
            Lost::Nothing => Loss::Nothing,
            _ => Loss::Shard(shard),
        };
        check.damage(path, Some(flaw.offset), flaw.bytes, flaw.what.clone(), lost);
    }
    if let Some(torn) = &judged.torn {
        (check.tell)(Told::Torn {
            path: path.to_owned(),
            offset: torn.offset,
            what: torn.what.clone(),
        });
    }
    Some(judged)
}

async fn read(check: &Check<'_>, path: &Path) -> io::Result<Vec<u8>> {
    let file = check.disk.open(path, OpenMode::Read).await?;
    let bytes = read_whole(&*file).await;
    file.close().await?;
    bytes
}

/// The entries of the shards that a log holds: each follows the one before, and parses.
async fn entries(
    check: &Check<'_>,
    chain: &LogChain,
    assignment: &Assignment,
    flushed: &BTreeMap<ShardId, Option<EntryId>>,
    segment_bytes: u64,
) {
    let homes = homes_in(assignment, chain.log);
    let directory = log_directory(check.data, chain.log);
    let last: RefCell<BTreeMap<ShardId, EntryId>> = RefCell::default();
    let entries = core::cell::Cell::new(0);
    let mut visit = |record: Record<'_>| {
        let is_own = homes.get(&record.shard) == Some(&record.epoch.0);
        if record.kind != RecordKind::Entry || !is_own {
            return Ok(());
        }
        let through = flushed.get(&record.shard).copied().flatten();
        if through.is_some_and(|through| record.entry.index <= through.index) {
            return Ok(());
        }
        let mut last = last.borrow_mut();
        let before = last.insert(record.shard, record.entry).or(through);
        if let Some(what) = gap(record.shard, before, record.entry) {
            check.damage(&directory, None, 0, what, Loss::Log(vec![record.shard]));
        }
        if Command::decode(record.payload).is_none() {
            let what = format!(
                "entry {} of shard {} does not parse",
                record.entry.index.0, record.shard.0
            );
            check.damage(&directory, None, 0, what, Loss::Log(vec![record.shard]));
        }
        entries.set(entries.get() + 1);
        Ok(())
    };
    let replayed = replay(
        check.disk,
        check.tasks,
        check.data,
        chain,
        segment_bytes,
        &mut visit,
    )
    .await;
    if let Err(error) = replayed {
        check.damage(&directory, None, 0, error.to_string(), Loss::Log(Vec::new()));
    }
    check.count(|totals| totals.entries += entries.get());
}

/// What is wrong with an entry behind another one.
fn gap(shard: ShardId, before: Option<EntryId>, entry: EntryId) -> Option<String> {
    let before = before?;
    let is_next = entry.index == LogIndex(before.index.0 + 1) && entry.term >= before.term;
    (!is_next).then(|| {
        format!(
            "shard {}: expected entry {} of term {} or later, found entry {} of term {}",
            shard.0,
            before.index.0 + 1,
            before.term.0,
            entry.index.0,
            entry.term.0
        )
    })
}
