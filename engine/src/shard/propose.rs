//! How a replica proposes entries: writes that were decided, ceilings that cover timestamps.

use std::collections::BTreeSet;

use ostrakon_core::hlc::{MICROS_MAX, Timestamp};
use ostrakon_core::lsm::{TableNumber, pick, pick_freeing};
use ostrakon_core::raft::{Input, LogIndex};
use ostrakon_core::sessions::{Failure, Retry};

use super::command::{CEILING_BYTES, Head, append_operation};
use super::context::CoreContext;
use super::decide::{Decided, Write};
use super::in_flight::{Entry, PendingKey};
use super::replica::{ShardReplica, Waiter};
use super::{ReadId, Refusal, Ticket};
use crate::limits::{
    CEILING_AHEAD_US, CEILING_STEP_US, FORGET_EVERY_US, RETRY_HORIZON_US, SHARD_WAITERS_MAX,
};
use crate::log::{EntryPlace, Log};

impl ShardReplica {
    /// Proposes the entry of a write that was decided for.
    pub(super) fn propose_write(
        &mut self,
        core: &mut CoreContext,
        write: &Write<'_>,
        at: Timestamp,
        decided: &[Decided],
        reserved_bytes: usize,
    ) {
        self.cover_timestamp(core, at);
        let changes = || {
            let keys = write.keys.iter().zip(decided);
            keys.filter_map(|(key, decided)| Some((key, key.change(decided)?)))
        };
        let retry = write.retry.as_ref();
        let mut all = changes();
        let (index, key_count) = if let (Some((key, change)), None) = (all.next(), all.next()) {
            let head = Head::of_write(at, retry, key.key, &change);
            let key_at = head.as_bytes().len();
            let (index, place) = self.append(&core.log, &[head.as_bytes(), key.key, change.value()]);
            self.in_flight
                .push_key(PendingKey::new(key.hash, index, key_at, key.key, &change));
            ((index, place), 1)
        } else {
            let head = Head::of_batch(at, retry, changes().count());
            let mut operations = core::mem::take(&mut core.operations);
            let mut key_places = Vec::with_capacity(write.keys.len());
            for (key, change) in changes() {
                append_operation(&mut operations, key.key, &change);
                let behind = key.key.len() + change.value().len();
                key_places.push(head.as_bytes().len() + operations.len() - behind);
            }
            let (index, place) = self.append(&core.log, &[head.as_bytes(), &operations]);
            for ((key, change), key_at) in changes().zip(&key_places) {
                self.in_flight
                    .push_key(PendingKey::new(key.hash, index, *key_at, key.key, &change));
            }
            operations.clear();
            core.operations = operations;
            ((index, place), key_places.len())
        };
        self.note_proposed(
            core,
            index,
            (at, key_count),
            write.retry.as_ref(),
            write.ticket,
            reserved_bytes,
        );
    }

    /// Proposes the entry of a write that was decided against.
    pub(super) fn propose_failure(
        &mut self,
        core: &mut CoreContext,
        (retry, failure): (&Retry, Failure),
        at: Timestamp,
        ticket: Ticket,
        reserved_bytes: usize,
    ) {
        self.cover_timestamp(core, at);
        let head = Head::of_failure(at, retry, &failure);
        let place = self.append(&core.log, &[head.as_bytes()]);
        self.note_proposed(core, place, (at, 0), Some(retry), ticket, reserved_bytes);
    }

    pub(super) fn note_proposed(
        &mut self,
        core: &mut CoreContext,
        (index, place): (LogIndex, EntryPlace),
        (timestamp, key_count): (Timestamp, usize),
        retry: Option<&Retry>,
        ticket: Ticket,
        reserved_bytes: usize,
    ) {
        if let Some(retry) = retry {
            let before_bytes = self.applied.sessions.memory_bytes();
            self.applied.sessions.proposed(retry, index);
            core.memory
                .changed(before_bytes, self.applied.sessions.memory_bytes());
        }
        core.memory.reserved_bytes += reserved_bytes;
        self.reserved_bytes += reserved_bytes;
        self.in_flight.push(Entry {
            index,
            place,
            timestamp,
            key_count: key_count as u32,
            reserved_bytes,
            ticket: Some(ticket),
        });
    }

    /// Makes a read wait for all that is in flight, and for a ceiling at or above `at`.
    pub(super) fn cover(
        &mut self,
        core: &mut CoreContext,
        at: Timestamp,
        read: ReadId,
    ) -> Result<(), Refusal> {
        if self.waiter_count >= SHARD_WAITERS_MAX {
            return Err(Refusal::Busy);
        }
        if at > self.proposed_ceiling {
            if !core.log.has_room(self.shard, &[CEILING_BYTES]) {
                return Err(Refusal::DiskFull);
            }
            self.propose_ceiling(core, at);
        }
        if core.log.is_stuck() {
            // What the read would wait for finds no room either.
            return Err(Refusal::DiskFull);
        }
        let last = self.in_flight.last_index();
        self.wait(
            last.expect("a ceiling above the applied one is in flight"),
            Waiter::Read(read),
        );
        Ok(())
    }

    /// Moves the horizon on, if nothing else did for a while: the sessions that it has passed give their memory back,
    /// and without a write nothing else moves it.
    pub(super) fn forget_sessions(&mut self, core: &mut CoreContext) {
        let since_us = core
            .latest()
            .micros()
            .saturating_sub(self.ceiling_proposed_at.micros());
        let is_due = since_us >= FORGET_EVERY_US && self.applied.sessions.session_count() > 0;
        // What deletes leave is for ceilings that reads need.
        if is_due && core.log.has_room_for_delete(self.shard, &[CEILING_BYTES]) {
            let now = core.hlc.now(core.wall_us);
            self.propose_ceiling(core, now);
        }
    }

    /// When the memtable has deleted something first, if that is so long ago that merges can drop it, with what it
    /// hides in tables, once it is flushed.
    pub(super) fn old_deletion(&self, core: &CoreContext) -> Option<Timestamp> {
        let store = &self.applied.store;
        let hides = !store.tables().runs().is_empty() && store.sealed().len() == 0;
        let watermark = core.watermark_at(core.latest());
        store.first_deletion().filter(|first| hides && *first < watermark)
    }

    /// Moves the watermark on, if merges could then give space back that they can't give back now, and nothing else
    /// moves it. True if there is something to merge, with tables that are not `busy`.
    pub(super) fn advance_watermark(&mut self, core: &mut CoreContext, busy: &BTreeSet<TableNumber>) -> bool {
        let options = &self.files.options().compaction;
        let tree = self.applied.store.tables().tree();
        let own = self.applied.watermark;
        let frees_at = |watermark| pick_freeing(tree, busy, options, watermark).is_some();
        let watermark = core.watermark_at(core.latest());
        let is_due = watermark > own && frees_at(watermark) && !frees_at(own);
        let has_work = pick(tree, busy, options, own).is_some();
        if is_due && core.log.has_room(self.shard, &[CEILING_BYTES]) {
            let now = core.hlc.now(core.wall_us);
            self.propose_ceiling(core, now);
        }
        has_work
    }

    pub(super) fn cover_timestamp(&mut self, core: &mut CoreContext, at: Timestamp) {
        if at > self.proposed_ceiling {
            self.propose_ceiling(core, at);
        }
    }

    pub(super) fn propose_ceiling(&mut self, core: &mut CoreContext, above: Timestamp) {
        // From the wall on: a clock begins at the last ceiling, and starts in quick succession would drive it away.
        let wall = Timestamp::from_micros(core.wall_us.min(MICROS_MAX));
        let ceiling = wall
            .saturating_plus_micros(CEILING_AHEAD_US)
            .max(above.saturating_plus_micros(CEILING_STEP_US));
        self.proposed_ceiling = ceiling;
        self.ceiling_proposed_at = above;
        let horizon = Timestamp::from_micros(above.micros().saturating_sub(RETRY_HORIZON_US));
        let head = Head::of_ceiling(
            ceiling,
            horizon,
            core.watermark_at(above).max(self.applied.watermark),
        );
        let (index, place) = self.append(&core.log, &[head.as_bytes()]);
        self.in_flight.push(Entry {
            index,
            place,
            timestamp: ceiling,
            key_count: 0,
            reserved_bytes: 0,
            ticket: None,
        });
    }

    pub(super) fn append(&mut self, log: &Log, payload: &[&[u8]]) -> (LogIndex, EntryPlace) {
        self.step(Input::Propose);
        let entry = self.outputs.append.expect("a proposal to a leader is appended");
        self.outputs.clear();
        let place = log.append_entry(self.shard, self.epoch, entry, payload);
        (entry.index, place)
    }
}
