//! Which segments are needed: the rules on their own, without a log.

use ostrakon_core::raft::{EntryId, LogIndex, Term};
use ostrakon_wire::routing::ShardId;

use crate::limits::FREED_SEGMENTS_MAX;
use crate::log::format::{OwnershipEpoch, SegmentSequence, ShardState};
use crate::log::live::LiveSegments;
use crate::log::recovery::{ChainSegment, ShardLast};

fn last(shard: u32, epoch: u32, index: u64) -> ShardLast {
    ShardLast {
        shard: ShardId(shard),
        epoch: OwnershipEpoch(epoch),
        last: LogIndex(index),
    }
}

fn found(sequence: u64, lasts: &[ShardLast]) -> ChainSegment {
    ChainSegment {
        sequence: SegmentSequence(sequence),
        end_offset: 8192,
        lasts: lasts.to_vec(),
    }
}

fn entry(index: u64) -> EntryId {
    EntryId {
        term: Term(3),
        index: LogIndex(index),
    }
}

/// Segments 1 to 3 as recovery found them, with these last entries in the first, and an empty segment 5 in use.
fn inherited(lasts: &[ShardLast]) -> LiveSegments {
    let found = [found(1, lasts), found(2, &[]), found(3, &[last(1, 4, 9)])];
    let mut live = LiveSegments::new(&found, SegmentSequence(5));
    for shard in 0..2 {
        live.set_shard(ShardId(shard), OwnershipEpoch(4), ShardState::default());
    }
    live.allow_freeing();
    live
}

#[test]
fn an_entry_above_the_base_under_the_epoch_that_the_log_holds_is_needed() {
    let mut live = inherited(&[last(0, 4, 7)]);
    assert_eq!((live.oldest(), live.bytes()), (SegmentSequence(1), 3 * 8192));
    assert_eq!(live.pinning(), [ShardId(0)]);
    live.note_flushed(ShardId(0), entry(6));
    assert_eq!(live.oldest(), SegmentSequence(1));
    live.note_flushed(ShardId(0), entry(7));
    assert_eq!(
        (live.oldest(), live.bytes()),
        (SegmentSequence(3), 8192),
        "nothing needs the second"
    );
    assert_eq!(live.pinning(), [ShardId(1)]);
    live.note_flushed(ShardId(0), entry(5));
    let (_, _, state) = live.shards().next().expect("shard 0");
    assert_eq!(state.base, entry(7), "a base never falls");
    live.note_flushed(ShardId(1), entry(20));
    assert_eq!((live.oldest(), live.bytes()), (SegmentSequence(5), 0));
    assert_eq!(live.pinning(), []);
}

#[test]
fn entries_under_an_earlier_epoch_and_of_shards_of_another_log_are_not_needed() {
    let live = inherited(&[last(0, 3, 7), last(2, 4, 7)]);
    assert_eq!(live.oldest(), SegmentSequence(3));
    // Before its own state is written, a take-over has entries under an epoch above the one that is held.
    let mut live = inherited(&[last(0, 5, 7)]);
    assert_eq!(live.oldest(), SegmentSequence(1));
    live.set_shard(
        ShardId(0),
        OwnershipEpoch(5),
        ShardState {
            base: entry(7),
            ..ShardState::default()
        },
    );
    live.review();
    assert_eq!(live.oldest(), SegmentSequence(3));
}

#[test]
fn a_base_holds_for_its_epoch_only() {
    let mut live = inherited(&[]);
    live.note_flushed(ShardId(0), entry(9));
    live.set_shard(ShardId(0), OwnershipEpoch(4), ShardState::default());
    assert_eq!(live.shards().next().expect("shard 0").2.base, entry(9));
    live.set_shard(ShardId(0), OwnershipEpoch(5), ShardState::default());
    assert_eq!(live.shards().next().expect("shard 0").2.base, EntryId::default());
}

#[test]
fn a_batch_counts_to_the_segment_in_use() {
    let mut live = inherited(&[]);
    live.note_flushed(ShardId(1), entry(9));
    assert_eq!(live.oldest(), SegmentSequence(5));
    live.note_batch(4096, [last(0, 4, 1), last(1, 4, 10)].into_iter());
    live.note_batch(4096, [last(0, 4, 2)].into_iter());
    assert_eq!(live.pinning(), [ShardId(0), ShardId(1)]);
    live.begin(SegmentSequence(6));
    live.note_batch(8192, [last(1, 4, 11)].into_iter());
    live.note_flushed(ShardId(0), entry(1));
    live.note_flushed(ShardId(1), entry(10));
    assert_eq!(live.oldest(), SegmentSequence(5));
    assert_eq!(live.pinning(), [ShardId(0)]);
    live.note_flushed(ShardId(0), entry(2));
    assert_eq!((live.oldest(), live.bytes()), (SegmentSequence(6), 8192));
    live.note_flushed(ShardId(1), entry(11));
    assert_eq!(live.oldest(), SegmentSequence(6), "the one in use is never free");
}

#[test]
fn the_next_head_frees_the_segment_in_use_if_that_is_the_only_one_and_all_of_it_is_flushed() {
    let mut live = LiveSegments::new(&[], SegmentSequence(1));
    live.set_shard(ShardId(0), OwnershipEpoch(4), ShardState::default());
    assert!(!live.would_free(), "shards may be on their way");
    live.allow_freeing();
    assert!(live.would_free());
    live.note_batch(4096, [last(0, 4, 1)].into_iter());
    assert!(!live.would_free());
    live.note_flushed(ShardId(0), entry(1));
    assert!(live.would_free());
    live.note_batch(4096, [last(0, 4, 2)].into_iter());
    live.begin(SegmentSequence(2));
    assert!(!live.would_free(), "the first one is needed");
    live.note_flushed(ShardId(0), entry(2));
    assert!(live.would_free());
    live.free_below(live.oldest(), FREED_SEGMENTS_MAX);
    assert!(live.would_free());
}

#[test]
fn own_segments_are_kept_for_reuse_up_to_a_few_and_others_are_removed() {
    let mut live = inherited(&[]);
    live.note_flushed(ShardId(1), entry(9));
    let end = 6 + FREED_SEGMENTS_MAX as u64 + 2;
    (6..=end).for_each(|sequence| live.begin(SegmentSequence(sequence)));
    live.review();
    assert!(live.unneeded_count() > 0);
    live.free_below(SegmentSequence(1), FREED_SEGMENTS_MAX);
    assert!(live.take_removable().is_empty());
    live.free_below(SegmentSequence(5), FREED_SEGMENTS_MAX);
    assert_eq!(live.take_removable(), [1, 2, 3].map(SegmentSequence));
    assert!(!live.has_recyclable());
    live.free_below(live.oldest(), FREED_SEGMENTS_MAX);
    assert_eq!(live.count(), 1);
    let freed = end - 5;
    let removed = live.take_removable();
    assert_eq!(removed.len() as u64, freed - FREED_SEGMENTS_MAX as u64);
    assert_eq!(removed[0], SegmentSequence(5), "oldest first");
    let kept: Vec<_> = core::iter::from_fn(|| live.take_recyclable()).collect();
    assert_eq!(kept.len(), FREED_SEGMENTS_MAX);
    assert!(kept.is_sorted());
}
