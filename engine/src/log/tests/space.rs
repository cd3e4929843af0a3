//! A disk whose space the log has to share: it takes nothing that is kept for tables, and goes on as long as shards can
//! be flushed.

use core::time::Duration;

use ostrakon_wire::routing::ShardId;
use proptest::prelude::*;

use super::harness::{Machine, Running, SHARDS};
use crate::limits::{DISK_RESERVE_BYTES, LOG_SEGMENTS_MIN, STORE_RESERVE_BYTES};

const SEGMENT_BLOCKS: u64 = 32;

/// Longer than the log waits before it looks at a full disk again.
const A_WHILE: Duration = Duration::from_millis(300);

#[derive(Clone, Debug)]
enum Step {
    /// Entries of a shard, if there is room for them.
    Write(u32, Vec<usize>),
    Flush(u32),
    /// The node has looked how much is free.
    Look(bool),
    /// Something else takes so many segments of the space, or gives it back.
    Ballast(u64),
    /// The process is killed, or the power is lost.
    Restart(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let payloads_bytes = prop::collection::vec(10..10_000_usize, 1..4);
    prop_oneof![
        20 => (0..SHARDS, payloads_bytes).prop_map(|(shard, payloads)| Step::Write(shard, payloads)),
        4 => (0..SHARDS).prop_map(Step::Flush),
        2 => any::<bool>().prop_map(Step::Look),
        1 => (0..3_u64).prop_map(Step::Ballast),
        1 => any::<bool>().prop_map(Step::Restart),
    ]
}

/// The disk has space for what the log wants, for a segment of each other one, and for some more.
fn on_a_disk_with(segments_more: u64, logs: u16) -> (Machine, u64) {
    let mut machine = Machine::new(SEGMENT_BLOCKS);
    machine.removes_void = true;
    machine.logs = logs;
    let segments = LOG_SEGMENTS_MIN + u64::from(logs) - 1 + segments_more;
    let segments_bytes = segments * machine.segment_bytes;
    let capacity_bytes = DISK_RESERVE_BYTES + segments_bytes;
    machine.disk.set_capacity_bytes(capacity_bytes);
    (machine, capacity_bytes)
}

fn restart(machine: &mut Machine, running: Running, loses_power: bool) -> Running {
    // A start flushes what it has replayed where space is short.
    running.flush_all();
    if loses_power {
        running.lose_power(&machine.disk);
    } else {
        running.kill();
    }
    machine.start()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_log_whose_shards_can_be_flushed_goes_on_and_takes_nothing_that_is_kept(
        segments_more in 0..4_u64,
        logs in 1..4_u16,
        steps in prop::collection::vec(step(), 1..100),
    ) {
        let (mut machine, capacity_bytes) = on_a_disk_with(segments_more, logs);
        let mut running = machine.start();
        for step in steps {
            match step {
                Step::Write(shard, payloads_bytes) => {
                    if running.log.has_room_for_delete(ShardId(shard), &payloads_bytes) {
                        for bytes in payloads_bytes {
                            running.append(shard, bytes);
                        }
                    }
                    running.scheduler.settle();
                }
                Step::Flush(shard) => running.flush(shard),
                Step::Look(is_short) => running.log.set_short_of_space(is_short),
                Step::Ballast(segments) => {
                    let segments = segments.min(segments_more);
                    machine.disk.set_capacity_bytes(capacity_bytes - segments * machine.segment_bytes);
                }
                Step::Restart(loses_power) => running = restart(&mut machine, running, loses_power),
            }
            running.scheduler.settle();
        }
        machine.disk.set_capacity_bytes(capacity_bytes - segments_more * machine.segment_bytes);
        // However full it is: whoever flushes can go on.
        for round in 0..40 {
            running.flush_all();
            running.log.set_short_of_space(true);
            running.scheduler.advance(A_WHILE);
            prop_assert!(running.log.has_room_for_delete(ShardId(1), &[10_000]), "round {}", round);
            running.append(1, 10_000);
            running.drain();
            if round >= LOG_SEGMENTS_MIN {
                // What the others may need is there, too.
                let kept_bytes = DISK_RESERVE_BYTES + u64::from(logs - 1) * machine.segment_bytes;
                prop_assert!(machine.disk.space_bytes() >= kept_bytes, "round {}", round);
            }
        }
        restart(&mut machine, running, false).close();
    }
}

#[test]
fn where_space_is_short_a_segment_ends_early_once_it_has_taken_some_and_all_of_it_is_flushed() {
    let (mut machine, _) = on_a_disk_with(4, 1);
    let running = machine.start();
    let look = |running: &Running| {
        running.log.set_short_of_space(true);
        running.scheduler.advance(A_WHILE);
        running.log.statistics().segments
    };
    // An eighth of the segment is four blocks behind the head.
    (0..3).for_each(|_| running.write(0, 1000));
    running.flush_all();
    assert_eq!((look(&running), running.log.would_give_back()), (1, false));
    (1..3).for_each(|shard| running.write(shard, 1000));
    assert_eq!(look(&running), 1, "not all of it is flushed");
    let gives_back = running.log.would_give_back();
    assert!(!gives_back, "two tables would take more than half of it");
    (0..3).for_each(|_| running.write(1, 1000));
    assert!(running.log.would_give_back());
    let unmade_bytes = running.log.unmade_bytes();
    running.flush_all();
    assert_eq!(look(&running), 2);
    assert!(running.log.unmade_bytes() < unmade_bytes);
    assert_eq!(
        machine.disk.files().len(),
        2,
        "the one that ended is the next one"
    );
    running.close();
    machine.start().close();
}

#[test]
fn many_shards_that_pin_small_segments_are_not_flushed_to_give_them_back() {
    // Three tables take 24 KiB, and are to take less than half of the segments that they hold.
    for (blocks, segments, would_give_back) in [(11, 2, false), (11, 3, true), (12, 2, true)] {
        let mut machine = Machine::new(blocks);
        let running = machine.start();
        (0..3).for_each(|shard| running.write(shard, 1000));
        while running.log.statistics().segments < segments {
            running.write(0, 1000);
        }
        running.scheduler.advance(A_WHILE);
        let case = (blocks, segments);
        assert_eq!(running.log.would_give_back(), would_give_back, "{case:?}");
    }
}

#[test]
fn a_log_that_is_alone_and_flushed_takes_no_kept_space_for_a_segment_that_nothing_needs() {
    let (mut machine, _) = on_a_disk_with(0, 1);
    let segment_bytes = machine.segment_bytes;
    for (free_bytes, files) in [(STORE_RESERVE_BYTES - 1, 1), (STORE_RESERVE_BYTES, 2)] {
        // The first segment, another one, and so much.
        machine.disk.set_capacity_bytes(2 * segment_bytes + free_bytes);
        let running = machine.start();
        running.scheduler.advance(A_WHILE);
        assert_eq!(machine.disk.files().len(), files, "{free_bytes} bytes");
        running.write(0, 1000);
        running.flush_all();
        running.scheduler.advance(A_WHILE);
        assert_eq!(machine.disk.files().len(), files, "{free_bytes} bytes");
        machine.disk.set_capacity_bytes(1 << 40);
        running.scheduler.advance(A_WHILE);
        running.close();
        machine = on_a_disk_with(0, 1).0;
    }
}

#[test]
fn shards_are_flushed_before_a_full_disk_keeps_the_largest_delete_out() {
    let mut machine = Machine::new(512);
    let running = machine.start();
    machine.disk.set_capacity_bytes(2 * machine.segment_bytes);
    running.write(0, 1000);
    running.log.set_short_of_space(true);
    running.scheduler.advance(A_WHILE);
    let largest_bytes = running.log.payload_bytes_max();
    assert!(running.log.is_disk_full() && !running.log.asks_for_flush(largest_bytes));
    while running.log.has_room_for_delete(ShardId(0), &[largest_bytes]) {
        running.write(0, 1000);
    }
    assert!(running.log.asks_for_flush(largest_bytes));
    assert!(!running.log.asks_for_flush(0), "small ones have room for a while");
}

#[test]
fn a_log_that_is_alone_goes_on_beside_others_once_it_is_flushed_and_almost_full() {
    let mut machine = Machine::new(512);
    machine.logs = 2;
    // For its two segments, and none of the other log.
    machine
        .disk
        .set_capacity_bytes(2 * machine.segment_bytes + STORE_RESERVE_BYTES);
    let running = machine.start();
    let settled = |running: &Running| {
        running.scheduler.advance(A_WHILE);
        machine.disk.files().len()
    };
    running.write(0, 1000);
    running.flush_all();
    assert_eq!(settled(&running), 1, "it has room");
    while !running.log.asks_for_flush(running.log.payload_bytes_max()) {
        running.write(0, 100_000);
    }
    assert_eq!(settled(&running), 1, "it is not flushed");
    running.flush_all();
    assert_eq!(settled(&running), 2);
    running.write(0, 100_000);
    running.drain();
    assert_eq!(running.log.statistics().segments, 1, "this one had room");
    running.log.set_short_of_space(true);
    running.flush_all();
    running.scheduler.advance(A_WHILE);
    assert_eq!(running.log.statistics().segments, 2);
}

#[test]
fn a_start_beside_the_kept_space_that_others_have_taken_gets_a_segment_in_reserve() {
    let (mut machine, capacity_bytes) = on_a_disk_with(0, 1);
    let running = machine.start();
    running.write(0, 1000);
    running.drain();
    // Two segments are there, and less is free than a log leaves free otherwise.
    let taken_bytes = DISK_RESERVE_BYTES - STORE_RESERVE_BYTES;
    machine
        .disk
        .set_capacity_bytes(capacity_bytes - machine.segment_bytes - taken_bytes);
    let running = restart(&mut machine, running, false);
    running.write(0, 1000);
    running.scheduler.advance(A_WHILE);
    assert_eq!(machine.disk.files().len(), 2);
    assert!(machine.disk.space_bytes() >= STORE_RESERVE_BYTES);
    // It frees the one in use, if that is flushed.
    assert!(running.log.is_disk_full());
    running.flush_all();
    assert!(!running.log.is_disk_full());
    running.close();
    machine.start().close();
}
