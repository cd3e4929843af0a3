//! What a core replays at a start: the entries of its shards, from whatever log holds them, on top of their tables.
//! They become tables at once if memory or the file system has too little room.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use ostrakon_core::raft::EntryId;
use ostrakon_wire::routing::ShardId;

use super::message::CoreBatch;
use super::startup::{Assignment, StartOptions};
use crate::env::Env;
use crate::env::pace::Pace;
use crate::env::together::all;
use crate::limits::{DISK_RESERVE_BYTES, LOG_SEGMENTS_MIN, SMALLEST_TABLE_BYTES};
use crate::log::format::RecordKind;
use crate::log::recovery::{LogChain, replay};
use crate::log::{LogError, log_directory};
use crate::shard::Recovering;
use crate::storage::sstable::cache::BlockCache;
use crate::storage::store::files::{StoreEnv, make_directories};

/// Opens the tables of this core's shards, side by side.
async fn open_shards(
    env: &Env<CoreBatch>,
    options: &StartOptions,
    assignment: &Assignment,
    cache: &Rc<BlockCache>,
) -> Result<BTreeMap<ShardId, Recovering>, String> {
    let pace = || Rc::new(Pace::new(Rc::clone(&env.clock), Rc::clone(&env.tasks)));
    let store = StoreEnv {
        disk: Rc::clone(&env.disk),
        tasks: Rc::clone(&env.tasks),
        cache: Rc::clone(cache),
        flush_pace: pace(),
        merge_pace: pace(),
        options: Rc::new(options.store),
    };
    let own = || {
        let homes = assignment.homes.iter().enumerate();
        let own = homes.filter(|(_, home)| home.owner == env.core);
        own.map(|(shard, home)| (ShardId(shard as u32), home.base))
    };
    let shards = own().map(|(shard, _)| shard);
    make_directories(&*env.disk, &options.data, shards)
        .await
        .map_err(|error| error.to_string())?;
    let opened = RefCell::new(BTreeMap::new());
    let open = async |shard: ShardId, base: EntryId| {
        let recovering = Recovering::open(&store, &options.data, shard, base).await?;
        opened.borrow_mut().insert(shard, recovering);
        Ok::<(), String>(())
    };
    all(own().map(|(shard, base)| open(shard, base))).await?;
    Ok(opened.into_inner())
}

/// Replays what the logs have of this core's shards, on top of their tables.
pub(super) async fn replay_shards(
    env: &Env<CoreBatch>,
    options: &StartOptions,
    assignment: &Assignment,
    cache: &Rc<BlockCache>,
) -> Result<BTreeMap<ShardId, Recovering>, String> {
    let mut shards = open_shards(env, options, assignment, cache).await?;
    for chain in &assignment.chains {
        let is_source = |shard: &ShardId| {
            assignment.homes[shard.0 as usize]
                .source
                .is_some_and(|(log, _)| log == chain.log)
        };
        if !shards.keys().any(is_source) {
            continue;
        }
        for segment in &chain.segments {
            let mut one = chain.clone();
            one.segments = vec![segment.clone()];
            replay_segment(env, options, assignment, &one, &mut shards).await?;
            make_room(options, &mut shards).await?;
        }
    }
    Ok(shards)
}

/// Replays what a chain of one segment has of this core's shards.
async fn replay_segment(
    env: &Env<CoreBatch>,
    options: &StartOptions,
    assignment: &Assignment,
    chain: &LogChain,
    shards: &mut BTreeMap<ShardId, Recovering>,
) -> Result<(), String> {
    let dir = log_directory(&options.data, chain.log);
    let mut visit = |record: crate::log::format::Record<'_>| {
        let home = assignment.homes.get(record.shard.0 as usize);
        let belongs = home.is_some_and(|home| home.source == Some((chain.log, record.epoch)));
        if record.kind == RecordKind::Entry
            && belongs
            && let Some(recovering) = shards.get_mut(&record.shard)
        {
            recovering
                .replay(record.entry, record.payload)
                .map_err(|finding| {
                    let source = std::io::Error::new(std::io::ErrorKind::InvalidData, finding);
                    LogError::io("replay", &dir, source)
                })?;
        }
        Ok(())
    };
    let segment_bytes = assignment.identity.segment_bytes;
    replay_chain(env, &options.data, chain, segment_bytes, &mut visit).await
}

/// Flushes the largest shards for which there is room, until what was replayed takes no more than the part of the
/// memory from which on memtables are sealed: the node may have been started with less than before.
async fn make_room(options: &StartOptions, shards: &mut BTreeMap<ShardId, Recovering>) -> Result<(), String> {
    loop {
        let replayed_bytes: usize = shards.values().map(Recovering::memory_bytes).sum();
        if replayed_bytes <= options.host.seal_at_bytes() {
            return Ok(());
        }
        let mut largest_first: Vec<&mut Recovering> = shards.values_mut().collect();
        largest_first.sort_by_key(|shard| Reverse(shard.memory_bytes()));
        let mut is_one_flushed = false;
        for shard in largest_first {
            is_one_flushed = shard.flush().await?;
            if is_one_flushed {
                break;
            }
        }
        if !is_one_flushed {
            return Ok(());
        }
    }
}

/// Flushes all that was replayed, if the file system has too little space for what the logs make at their start and are
/// to find later: then their first heads free what is there now. Else each start would take a segment more. Not so many
/// shards that their tables would take about as much.
pub(super) async fn make_space(
    env: &Env<CoreBatch>,
    options: &StartOptions,
    segment_bytes: u64,
    shards: &mut BTreeMap<ShardId, Recovering>,
) -> Result<(), String> {
    let free_bytes = env.disk.free_bytes(&options.data).await;
    let free_bytes = free_bytes
        .map_err(|error| format!("can't read the free space of {}: {error}", options.data.display()))?;
    let wanted_bytes = DISK_RESERVE_BYTES + LOG_SEGMENTS_MIN * u64::from(env.cores) * segment_bytes;
    let tables = shards.values().filter(|shard| !shard.is_flushed()).count() as u64;
    if free_bytes >= wanted_bytes || tables * SMALLEST_TABLE_BYTES * 2 > segment_bytes {
        return Ok(());
    }
    for shard in shards.values_mut() {
        while shard.flush().await? {}
    }
    Ok(())
}

/// Shows all records of a chain to `visit`, in order.
pub(super) async fn replay_chain(
    env: &Env<CoreBatch>,
    data: &Path,
    chain: &LogChain,
    segment_bytes: u64,
    visit: &mut dyn FnMut(crate::log::format::Record<'_>) -> Result<(), LogError>,
) -> Result<(), String> {
    replay(&*env.disk, &*env.tasks, data, chain, segment_bytes, visit)
        .await
        .map_err(|error| error.to_string())
}
