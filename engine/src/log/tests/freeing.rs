//! Freeing of segments: what a restart needs stays, what it does not need goes, and only behind a durable head.

use core::time::Duration;

use ostrakon_core::raft::{EntryId, HardState, LogIndex, ReplicaId, Term};
use ostrakon_wire::routing::ShardId;

use super::harness::{EPOCH, Machine, Running, SHARDS, segment, state_of};
use crate::env::disk::BLOCK_BYTES;
use crate::env::testing::memory_disk::Fate;
use crate::limits::{DISK_RESERVE_BYTES, FREED_SEGMENTS_MAX};
use crate::log::format::ShardState;

/// Longer than the log waits before it looks at a full disk again.
const A_WHILE: Duration = Duration::from_millis(300);

/// Blocks of a segment: a head, four batches of an entry, a seal.
const SEGMENT_BLOCKS: u64 = 6;

/// Writes entries of a shard, one in a batch, until this many segments were begun since the start.
pub(super) fn write_until(running: &Running, shard: u32, segments: u64) {
    while running.log.statistics().segments < segments {
        running.write(shard, 1000);
    }
    running.drain();
}

/// Holds all writes and appends until the head of another segment is in flight behind a batch.
fn hold_a_head(machine: &Machine, running: &Running, payload_bytes: usize) {
    machine.disk.hold_writes(true);
    loop {
        running.write(0, payload_bytes);
        let in_flight = machine.disk.in_flight();
        if in_flight.len() == 2 && in_flight[1].offset == 0 {
            return;
        }
        if in_flight.len() == 2 {
            machine.disk.end_write(0, Ok(()));
            running.scheduler.settle();
        }
    }
}

fn exists(machine: &Machine, sequence: u64) -> bool {
    machine.disk.files().contains(&segment(sequence))
}

#[test]
fn segments_are_freed_when_the_head_that_says_so_is_durable_with_all_before_it() {
    for head_ends_first in [false, true] {
        let mut machine = Machine::new(SEGMENT_BLOCKS);
        let running = machine.start();
        write_until(&running, 0, 3);
        running.flush_all();
        hold_a_head(&machine, &running, 1000);
        assert_eq!(running.log.statistics().segments_live, 4);
        machine.disk.end_write(usize::from(head_ends_first), Ok(()));
        running.scheduler.settle();
        assert!(exists(&machine, 1) && exists(&machine, 2));
        assert_eq!(running.log.statistics().segments_live, 4);
        machine.disk.hold_writes(false);
        while !machine.disk.in_flight().is_empty() {
            machine.disk.end_write(0, Ok(()));
            running.scheduler.settle();
        }
        running.drain();
        assert_eq!(running.log.statistics().segments_live, 2);
        // In the other case the next one was made before there was a freed one.
        let recycled = running.log.statistics().segments_recycled;
        assert_eq!(recycled, u64::from(!head_ends_first));
        assert_eq!(
            exists(&machine, 1),
            head_ends_first,
            "it is the next one in reserve"
        );
        running.lose_power(&machine.disk);
        assert_eq!(machine.recover().expect("recovers").sequences()[0], 3);
        machine.start().close();
    }
}

#[test]
fn a_crash_before_that_finds_the_older_segments() {
    let fates: [fn(usize) -> Fate; 4] = [
        |_| Fate::Lost,
        |place| if place == 0 { Fate::Lost } else { Fate::Whole },
        |place| if place == 0 { Fate::Lost } else { Fate::Cached },
        |_| Fate::Whole,
    ];
    for (number, fate) in fates.into_iter().enumerate() {
        let mut machine = Machine::new(SEGMENT_BLOCKS);
        let running = machine.start();
        write_until(&running, 0, 3);
        running.flush_all();
        hold_a_head(&machine, &running, 1000);
        running.kill();
        let mut place = 0;
        machine.disk.power_loss(false, |_| {
            place += 1;
            fate(place - 1)
        });
        let found = machine.recover().expect("recovers");
        let expected: &[u64] = if number == 3 { &[3, 4] } else { &[1, 2, 3] };
        assert_eq!(found.sequences(), expected, "{number}");
        // The head may be gone when the node starts once more, with what it removed.
        machine.remove_void(&found.chain);
        machine.disk.power_loss(false, |_| Fate::Lost);
        let again = machine.recover().expect("recovers");
        assert_eq!(
            (again.sequences(), again.entries),
            (found.sequences(), found.entries)
        );
        machine.removes_void = true;
        let running = machine.start();
        write_until(&running, 0, 3);
        running.lose_power(&machine.disk);
        machine.start().close();
    }
}

#[test]
fn an_idle_shard_keeps_its_state_when_the_segment_that_held_it_is_used_again() {
    let mut machine = Machine::new(SEGMENT_BLOCKS);
    let running = machine.start();
    let voted = HardState {
        term: Term(90),
        vote: ReplicaId(4),
    };
    let state = ShardState {
        hard_state: voted,
        ..state_of(2)
    };
    running.log.append_state(ShardId(2), EPOCH, state);
    running.write(2, 100);
    running.flush(2);
    for segments in 2..12 {
        write_until(&running, 0, segments);
        running.flush(0);
    }
    assert!(running.log.statistics().segments_recycled > 5);
    let flushed = *machine.history.flushed.borrow();
    running.lose_power(&machine.disk);
    let found = machine.recover().expect("recovers");
    assert!(found.sequences()[0] > 5);
    assert!(found.entries.iter().all(|entry| entry.shard == ShardId(0)));
    let complete = |shard| found.chain.shards[&ShardId(shard)].complete;
    assert_eq!(
        complete(1),
        Some((EPOCH, state_of(1).hard_state, EntryId::default()))
    );
    assert_eq!(complete(2), Some((EPOCH, voted, flushed[2])));
}

#[test]
fn a_segment_that_is_needed_must_be_there_and_one_that_is_not_need_not() {
    let mut machine = Machine::new(SEGMENT_BLOCKS);
    let running = machine.start();
    write_until(&running, 0, FREED_SEGMENTS_MAX as u64 + 3);
    running.flush_all();
    write_until(&running, 0, FREED_SEGMENTS_MAX as u64 + 5);
    running.lose_power(&machine.disk);
    let found = machine.recover().expect("recovers");
    let needed = found.sequences();
    assert!(needed.len() >= 3, "{needed:?}");
    let mut before = 0;
    for path in machine.disk.files() {
        let sequence = u64::from_str_radix(
            path.file_stem().and_then(|name| name.to_str()).expect("a name"),
            16,
        );
        let sequence = sequence.expect("a sequence");
        let whole = machine.disk.content(&path);
        let is_needed = needed[..needed.len() - 1].contains(&sequence);
        for damage in 0..3 {
            match damage {
                0 => machine.disk.take_file(&path),
                1 => machine.disk.edit(&path, |bytes| bytes[100] ^= 1),
                _ => machine.disk.edit(&path, |bytes| bytes.truncate(BLOCK_BYTES)),
            }
            if is_needed {
                let (named, offset, sentence) = machine.corruption();
                assert_eq!((named, offset), (path.clone(), 0), "{sentence}");
            } else if sequence < needed[0] {
                let again = machine.recover().expect("recovers without it");
                assert_eq!(
                    (again.sequences(), &again.entries),
                    (needed.clone(), &found.entries)
                );
                before += 1;
            }
            machine.disk.put_file(&path, whole.clone());
        }
    }
    assert!(before > 3, "{before} damages of freed segments");
    machine.remove_void(&found.chain);
    assert_eq!(
        machine.disk.files(),
        needed
            .iter()
            .map(|sequence| segment(*sequence))
            .collect::<Vec<_>>()
    );
    machine.start().close();
}

#[test]
fn a_restart_goes_on_with_what_the_old_segments_are_needed_for() {
    let mut machine = Machine::new(SEGMENT_BLOCKS);
    machine.removes_void = true;
    let running = machine.start();
    running.write(1, 1000);
    write_until(&running, 0, 4);
    running.lose_power(&machine.disk);
    let running = machine.start();
    let mut pinning = running.log.pinning();
    pinning.sort();
    assert_eq!(pinning, [ShardId(0), ShardId(1)]);
    running.flush(0);
    assert_eq!(running.log.pinning(), [ShardId(1)]);
    let before = running.log.live_bytes();
    write_until(&running, 0, 3);
    running.flush(0);
    write_until(&running, 0, 4);
    assert!(exists(&machine, 1), "shard 1 is not flushed");
    running.flush(1);
    assert!(running.log.live_bytes() < before);
    assert_eq!(running.log.pinning(), [ShardId(0)]);
    assert!(exists(&machine, 1), "no head has said it yet");
    write_until(&running, 0, 5);
    assert!((1..=4).all(|sequence| !exists(&machine, sequence)));
    let statistics = running.log.statistics();
    assert_eq!(statistics.segments_removed, 4, "a killed process wrote them");
    running.lose_power(&machine.disk);
    let found = machine.recover().expect("recovers");
    assert!(found.sequences()[0] > 4);
    machine.start().close();
}

#[test]
fn live_bytes_are_those_that_a_restart_reads() {
    let mut machine = Machine::new(SEGMENT_BLOCKS);
    for boot in 0..3 {
        let running = machine.start();
        write_until(&running, boot % SHARDS, 3);
        running.flush(boot % SHARDS);
        write_until(&running, 0, 5);
        let live_bytes = running.log.live_bytes();
        running.lose_power(&machine.disk);
        let found = machine.recover().expect("recovers");
        let read_bytes: u64 = found
            .chain
            .segments
            .iter()
            .map(|segment| segment.end_offset)
            .sum();
        assert_eq!(live_bytes, read_bytes, "boot {boot}");
    }
}

#[test]
fn nothing_is_freed_while_shards_may_be_on_their_way_to_another_log() {
    let mut machine = Machine::new(SEGMENT_BLOCKS);
    machine.may_free = false;
    for _ in 0..2 {
        let running = machine.start();
        write_until(&running, 0, 3);
        running.flush_all();
        write_until(&running, 0, 5);
        running.flush_all();
        assert!(exists(&machine, 1));
        running.lose_power(&machine.disk);
        assert_eq!(machine.recover().expect("recovers").sequences()[0], 1);
    }
    let running = machine.start();
    running.log.allow_freeing();
    assert!(exists(&machine, 1));
    write_until(&running, 0, 2);
    assert!(!exists(&machine, 1));
    running.close();
    machine.start().close();
}

#[test]
fn a_state_that_waited_while_a_head_went_out_does_not_lower_the_log_base() {
    let mut machine = Machine::new(SEGMENT_BLOCKS);
    let running = machine.start();
    (0..2).for_each(|_| running.write(0, 1000));
    machine.disk.hold_writes(true);
    (0..2).for_each(|_| running.write(1, 1000));
    assert_eq!(machine.disk.in_flight().len(), 2);
    running.log.append_state(ShardId(0), EPOCH, state_of(0));
    running.flush(0);
    let flushed = machine.history.flushed.borrow()[0];
    assert_eq!(flushed.index, LogIndex(2));
    machine.disk.hold_writes(false);
    machine.disk.end_write(0, Ok(()));
    machine.disk.end_write(1, Ok(()));
    running.drain();
    assert_eq!(machine.batches(2).len(), 2, "a head, and the state behind it");
    assert_eq!(machine.recover().expect("recovers").bases()[0], flushed);
    // From here on the base is known when a state is appended.
    running.log.append_state(ShardId(0), EPOCH, state_of(0));
    running.drain();
    running.lose_power(&machine.disk);
    assert_eq!(machine.recover().expect("recovers").bases()[0], flushed);
    let running = machine.start();
    write_until(&running, 1, 2);
    running.close();
    assert_eq!(machine.recover().expect("recovers").bases()[0], flushed);
}

#[test]
fn a_full_disk_does_not_stop_a_log_that_has_a_freed_segment() {
    let mut machine = Machine::new(SEGMENT_BLOCKS);
    let running = machine.start();
    write_until(&running, 0, 2);
    running.flush_all();
    machine.disk.set_free_bytes(machine.segment_bytes - 1);
    for segments in 3..30 {
        while running.log.statistics().segments < segments {
            assert!(!running.log.is_disk_full(), "at segment {segments}");
            running.write(0, 1000);
            running.flush_all();
        }
    }
    assert!(running.log.statistics().segments_recycled > 20);
    running.lose_power(&machine.disk);
    machine.disk.set_free_bytes(machine.segment_bytes);
    machine.removes_void = true;
    machine.start().lose_power(&machine.disk);
}

#[test]
fn where_space_is_short_a_segment_ends_early_if_that_frees_more_than_one() {
    let mut machine = Machine::new(SEGMENT_BLOCKS);
    let running = machine.start();
    let files = |machine: &Machine| machine.disk.files().len();
    write_until(&running, 0, 5);
    running.flush_all();
    running.scheduler.advance(A_WHILE);
    assert_eq!(
        files(&machine),
        6,
        "the next head frees four, and it does not come"
    );
    running.log.set_short_of_space(true);
    running.scheduler.advance(A_WHILE);
    running.log.set_short_of_space(true);
    running.scheduler.advance(A_WHILE);
    // The one in use, and the next one: no freed one is kept besides.
    assert_eq!((running.log.statistics().segments, files(&machine)), (6, 2));
    // A head that frees one comes as soon as the segment in use has taken space, which the next one has not.
    write_until(&running, 1, 7);
    running.write(0, 1000);
    running.flush(1);
    running.log.set_short_of_space(true);
    running.scheduler.advance(A_WHILE);
    assert_eq!((running.log.statistics().segments, files(&machine)), (8, 3));
    running.flush_all();
    running.scheduler.advance(A_WHILE);
    assert_eq!(running.log.statistics().segments, 8, "this one has its head only");
    write_until(&running, 1, 9);
    running.lose_power(&machine.disk);
    machine.start().close();
}

#[test]
fn a_full_disk_is_overcome_by_a_flush() {
    // No head can say that the old segments are free before there is a segment for it: that one may use what is kept.
    let mut machine = Machine::new(SEGMENT_BLOCKS);
    let running = machine.start();
    machine
        .disk
        .set_free_bytes(machine.segment_bytes + DISK_RESERVE_BYTES - 1);
    while !running.log.is_stuck() {
        running.write(0, 1000);
    }
    running.scheduler.advance(A_WHILE);
    assert!(running.log.is_disk_full(), "nothing is flushed");
    running.flush_all();
    running.scheduler.advance(A_WHILE);
    assert!(!running.log.is_stuck());
    running.drain();
    // What was stuck is acknowledged now, and the segments before it are freed.
    assert!(running.log.statistics().segments_recycled > 0);
    while running.log.statistics().segments < 10 {
        running.write(0, 1000);
        running.flush_all();
        assert!(!running.log.is_disk_full());
    }
    running.close();
    machine.start().close();
}

#[test]
fn a_segment_that_is_being_filled_is_given_up_for_a_freed_one() {
    // In 16 steps at the pace of the segment in use.
    let mut machine = Machine::new(1024);
    let running = machine.start();
    while running.log.statistics().segments < 3 {
        running.write(0, 60_000);
    }
    running.drain();
    running.flush_all();
    hold_a_head(&machine, &running, 60_000);
    machine.disk.end_write(1, Ok(()));
    running.scheduler.settle();
    let half_made = segment(5).with_extension("tmp");
    assert!(
        machine.disk.files().contains(&half_made),
        "the head is not acknowledged yet"
    );
    machine.disk.hold_writes(false);
    machine.disk.end_write(0, Ok(()));
    running.drain();
    assert_eq!(running.log.statistics().segments_recycled, 1);
    assert!(!machine.disk.files().contains(&half_made));
    assert!(machine.disk.files().contains(&segment(5)));
    running.close();
    machine.start().close();
}

#[test]
fn few_freed_segments_are_kept() {
    let mut machine = Machine::new(SEGMENT_BLOCKS);
    let running = machine.start();
    let many = FREED_SEGMENTS_MAX as u64 + 5;
    write_until(&running, 0, many);
    running.flush_all();
    write_until(&running, 0, many + 1);
    let statistics = running.log.statistics();
    assert!(statistics.segments_removed > 0);
    // Those that are kept, the chain, and the one in reserve.
    let files = machine.disk.files().len() as u64;
    assert!(
        files <= FREED_SEGMENTS_MAX as u64 + statistics.segments_live + 1,
        "{files} files"
    );
    running.close();
    assert_eq!(machine.disk.open_files(), 0);
    machine.start().close();
}
