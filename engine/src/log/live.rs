//! Which segments of the log a restart still needs, and what becomes of the others.
//!
//! 1. A segment is *needed* while a shard that this log holds has an entry in it, under the epoch under which the
//!    log holds it now, that is not flushed: above the shard's log base. All segments behind a needed one stay as
//!    well, since the chain has no gaps.
//! 2. A head states the oldest needed segment as of when it is made ([`LiveSegments::oldest`]). Only when that head is
//!    durable, with all before it, are older ones *freed* ([`LiveSegments::free_below`]): a restart begins behind them.
//! 3. A freed segment that this process has written is kept for reuse, up to a few; others are removed. A write that
//!    a killed process left in flight can reach only what that process wrote.
//!
//! Invariants: segments are freed oldest first; the segment in use is never free; once a segment is not needed it
//! never is again, for it takes no more batches and bases only rise.

use std::collections::VecDeque;

use ostrakon_core::raft::{EntryId, LogIndex};
use ostrakon_wire::routing::ShardId;

use super::format::{OwnershipEpoch, SegmentSequence, ShardState};
use super::found::{ChainSegment, ShardLast};

struct LiveSegment {
    sequence: SegmentSequence,
    /// Of its batches.
    bytes: u64,
    /// Not kept here for the segment in use.
    lasts: Vec<ShardLast>,
    /// False for one that recovery found.
    is_own: bool,
}

/// The segments of the chain, and those that were freed; and the shards that the log holds.
pub(super) struct LiveSegments {
    /// What the next head says of each shard, by shard. A base never falls under the same epoch.
    shards: Vec<Option<(OwnershipEpoch, ShardState)>>,
    /// Oldest first. The last is the one in use.
    segments: VecDeque<LiveSegment>,
    /// How many of them, from the oldest on, are not needed.
    unneeded: usize,
    /// False while shards may still be on their way from this log into another one.
    may_free: bool,
    /// Of the segment in use: the last entry of each shard, by shard.
    in_use: Vec<Option<(OwnershipEpoch, LogIndex)>>,
    /// Freed ones to be used again, oldest first.
    recyclable: VecDeque<SegmentSequence>,
    /// Freed ones to be removed, oldest first.
    removable: Vec<SegmentSequence>,
}

impl LiveSegments {
    /// The segments that recovery found, and `current`, which has no batch yet.
    pub(super) fn new(found: &[ChainSegment], current: SegmentSequence) -> LiveSegments {
        let inherited = found.iter().map(|segment| LiveSegment {
            sequence: segment.sequence,
            bytes: segment.end_offset,
            lasts: segment.lasts.clone(),
            is_own: false,
        });
        let mut live = LiveSegments {
            shards: Vec::new(),
            segments: inherited.collect(),
            unneeded: 0,
            may_free: false,
            in_use: Vec::new(),
            recyclable: VecDeque::new(),
            removable: Vec::new(),
        };
        live.push(current);
        live
    }

    /// The segment in use is full; this one follows it.
    pub(super) fn begin(&mut self, sequence: SegmentSequence) {
        let full = self.segments.back_mut().expect("one is in use");
        full.lasts = lasts_of(&self.in_use).collect();
        self.in_use.fill(None);
        self.push(sequence);
    }

    fn push(&mut self, sequence: SegmentSequence) {
        self.segments.push_back(LiveSegment {
            sequence,
            bytes: 0,
            lasts: Vec::new(),
            is_own: true,
        });
    }

    /// A batch with these last entries goes to the segment in use.
    pub(super) fn note_batch(&mut self, bytes: u64, lasts: impl Iterator<Item = ShardLast>) {
        self.segments.back_mut().expect("one is in use").bytes += bytes;
        for ShardLast { shard, epoch, last } in lasts {
            let slot = shard.0 as usize;
            if self.in_use.len() <= slot {
                self.in_use.resize(slot + 1, None);
            }
            let known = &mut self.in_use[slot];
            *known = match *known {
                Some((before, highest)) if before == epoch => Some((epoch, highest.max(last))),
                Some((before, highest)) if before > epoch => Some((before, highest)),
                _ => Some((epoch, last)),
            };
        }
    }

    /// Sets what the next heads say of a shard.
    pub(super) fn set_shard(&mut self, shard: ShardId, epoch: OwnershipEpoch, state: ShardState) {
        let state = self.with_base(shard, epoch, state);
        let slot = shard.0 as usize;
        if self.shards.len() <= slot {
            self.shards.resize(slot + 1, None);
        }
        self.shards[slot] = Some((epoch, state));
    }

    /// The state with the log base that is known of the shard under this epoch, if that is higher.
    pub(super) fn with_base(
        &self,
        shard: ShardId,
        epoch: OwnershipEpoch,
        mut state: ShardState,
    ) -> ShardState {
        if let Some(Some((held, known))) = self.shards.get(shard.0 as usize)
            && *held == epoch
            && known.base.index > state.base.index
        {
            state.base = known.base;
        }
        state
    }

    /// The shards that the log holds, with what the next head says of them.
    pub(super) fn shards(&self) -> impl Iterator<Item = (ShardId, OwnershipEpoch, ShardState)> {
        let by_shard = self.shards.iter().enumerate();
        by_shard.filter_map(|(shard, held)| held.map(|(epoch, state)| (ShardId(shard as u32), epoch, state)))
    }

    /// Everything of this shard up to this entry is durable elsewhere.
    pub(super) fn note_flushed(&mut self, shard: ShardId, entry: EntryId) {
        let held = self.shards.get_mut(shard.0 as usize).and_then(Option::as_mut);
        let (_, state) = held.expect("only a shard that this log holds is flushed");
        if entry.index > state.base.index {
            state.base = entry;
            self.review();
        }
    }

    /// No shard is on its way from this log into another one any more.
    pub(super) fn allow_freeing(&mut self) {
        self.may_free = true;
        self.review();
    }

    /// Looks which segments are not needed any more. A base that has risen does that; for a state that was set it is
    /// to be called before [`LiveSegments::oldest`].
    pub(super) fn review(&mut self) {
        if !self.may_free {
            return;
        }
        while self.unneeded + 1 < self.segments.len() {
            let mut lasts = self.segments[self.unneeded].lasts.iter();
            if lasts.any(|last| self.is_needed(*last)) {
                return;
            }
            self.unneeded += 1;
        }
    }

    /// The oldest segment that is needed, as of the last review.
    pub(super) fn oldest(&self) -> SegmentSequence {
        self.segments[self.unneeded].sequence
    }

    /// A head is durable that states this as the oldest: frees those before it, and keeps so many freed ones at most
    /// for reuse.
    pub(super) fn free_below(&mut self, oldest: SegmentSequence, kept_max: usize) {
        while let Some(freed) = self.segments.pop_front_if(|first| first.sequence < oldest) {
            assert!(self.unneeded > 0, "only what is not needed is freed");
            self.unneeded -= 1;
            if freed.is_own {
                self.recyclable.push_back(freed.sequence);
            } else {
                self.removable.push(freed.sequence);
            }
        }
        self.keep_freed(kept_max);
    }

    /// Keeps so many freed segments at most for reuse.
    pub(super) fn keep_freed(&mut self, most: usize) {
        while self.recyclable.len() > most {
            self.removable.extend(self.recyclable.pop_front());
        }
    }

    /// True when a freed segment can be used again.
    pub(super) fn has_recyclable(&self) -> bool {
        !self.recyclable.is_empty()
    }

    /// How many freed segments can be used again.
    pub(super) fn recyclable_count(&self) -> u64 {
        self.recyclable.len() as u64
    }

    /// A freed segment to be used again.
    pub(super) fn take_recyclable(&mut self) -> Option<SegmentSequence> {
        self.recyclable.pop_front()
    }

    /// Freed segments to be removed, oldest first.
    pub(super) fn take_removable(&mut self) -> Vec<SegmentSequence> {
        core::mem::take(&mut self.removable)
    }

    /// True if the head of the next segment would free one: one that is not needed, or the one in use, if that is the
    /// only one and all that it has is flushed.
    pub(super) fn would_free(&self) -> bool {
        let is_alone = self.may_free && self.segments.len() == 1;
        self.unneeded > 0 || is_alone && !lasts_of(&self.in_use).any(|last| self.is_needed(last))
    }

    /// How many segments the next durable head frees.
    pub(super) fn unneeded_count(&self) -> usize {
        self.unneeded
    }

    /// Segments of the chain, needed or not.
    pub(super) fn count(&self) -> usize {
        self.segments.len()
    }

    /// Bytes of the batches that a restart would have to read: from the oldest needed segment on.
    pub(super) fn bytes(&self) -> u64 {
        self.segments
            .range(self.unneeded..)
            .map(|segment| segment.bytes)
            .sum()
    }

    /// The shards because of which the oldest needed segment is needed, in order.
    pub(super) fn pinning(&self) -> Vec<ShardId> {
        let oldest = &self.segments[self.unneeded];
        let lasts = oldest.lasts.iter().copied();
        let is_in_use = self.unneeded + 1 == self.segments.len();
        let in_use = is_in_use.then(|| lasts_of(&self.in_use)).into_iter().flatten();
        let pinning = lasts.chain(in_use).filter(|last| self.is_needed(*last));
        pinning.map(|last| last.shard).collect()
    }

    /// Segments before the one in use that would not be needed if the shards of [`LiveSegments::pinning`] were flushed,
    /// which are in order.
    pub(super) fn pinned(&self, pinning: &[ShardId]) -> impl Iterator<Item = SegmentSequence> {
        let before = self.segments.range(self.unneeded..self.segments.len() - 1);
        let is_pinned = |segment: &&LiveSegment| {
            let mut needed = segment.lasts.iter().filter(|last| self.is_needed(**last));
            needed.all(|last| pinning.binary_search(&last.shard).is_ok())
        };
        before.take_while(is_pinned).map(|segment| segment.sequence)
    }

    /// True if the segment that has this entry is needed because of it. An epoch above the one that the log holds
    /// is that of a take-over whose state still waits to be written.
    fn is_needed(&self, last: ShardLast) -> bool {
        let held = self.shards.get(last.shard.0 as usize).copied().flatten();
        held.is_some_and(|(epoch, state)| {
            last.epoch > epoch || last.epoch == epoch && last.last > state.base.index
        })
    }
}

fn lasts_of(in_use: &[Option<(OwnershipEpoch, LogIndex)>]) -> impl Iterator<Item = ShardLast> {
    let by_shard = in_use.iter().enumerate();
    by_shard.filter_map(|(shard, known)| {
        known.map(|(epoch, last)| ShardLast {
            shard: ShardId(shard as u32),
            epoch,
            last,
        })
    })
}
