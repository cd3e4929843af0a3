//! A disk whose space the log has to share: it takes nothing that is kept for tables, and goes on as long as shards can
//! be flushed.

use core::time::Duration;

use ostrakon_wire::routing::ShardId;
use proptest::prelude::*;

use super::harness::{Machine, Running, SHARDS};
use crate::limits::{DISK_RESERVE_BYTES, LOG_SEGMENTS_MIN};

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

/// The disk has space for what the log wants, and `more` segments.
fn on_a_disk_with(segments_more: u64) -> (Machine, u64) {
    let mut machine = Machine::new(SEGMENT_BLOCKS);
    machine.removes_void = true;
    let segments_bytes = (LOG_SEGMENTS_MIN + segments_more) * machine.segment_bytes;
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
        steps in prop::collection::vec(step(), 1..100),
    ) {
        let (mut machine, capacity_bytes) = on_a_disk_with(segments_more);
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
                prop_assert!(machine.disk.space_bytes() >= DISK_RESERVE_BYTES, "round {}", round);
            }
        }
        restart(&mut machine, running, false).close();
    }
}
