//! Room on a full disk: what the log says that it has room for is written, to the last block, and nothing more is.

use ostrakon_wire::routing::ShardId;
use proptest::prelude::*;

use super::harness::{Machine, Running, SHARDS};
use crate::env::disk::BLOCK_BYTES;
use crate::limits::{DISK_RESERVE_BYTES, SEGMENT_RESERVE_BYTES, batch_target_bytes};
use crate::log::Log;

const SEGMENT_BLOCKS: u64 = 64;
const SEAL_BYTES: u64 = BLOCK_BYTES as u64;
const SEGMENT_BYTES: u64 = SEGMENT_BLOCKS * BLOCK_BYTES as u64;

/// Records of one shard that are asked for together.
#[derive(Clone, Debug)]
struct Request {
    shard: u32,
    payloads_bytes: Vec<usize>,
}

type Ask = fn(&Log, ShardId, &[usize]) -> bool;

impl Request {
    fn append(&self, running: &Running) {
        for payload_bytes in &self.payloads_bytes {
            running.append(self.shard, *payload_bytes);
        }
    }
}

fn request() -> impl Strategy<Value = Request> {
    // Ceilings, small writes, and whatever ends at, before or behind the end of a block or of a batch.
    let payload_bytes = prop_oneof![
        4 => Just(16_usize),
        3 => 17..400_usize,
        2 => 3_800..4_200_usize,
        1 => 1..batch_target_bytes(SEGMENT_BYTES) + 100,
    ];
    (0..SHARDS, prop::collection::vec(payload_bytes, 1..3)).prop_map(|(shard, payloads_bytes)| Request {
        shard,
        payloads_bytes,
    })
}

/// Fills the disk up to the segment in use; both writers hang in a write there.
fn full(machine: &mut Machine) -> Running {
    let running = machine.start();
    machine
        .disk
        .set_free_bytes(machine.segment_bytes + DISK_RESERVE_BYTES - 1);
    while !running.log.is_disk_full() {
        running.write(0, 2_000);
    }
    running.drain();
    machine.disk.hold_writes(true);
    running.write(0, 16);
    running.write(1, 16);
    assert_eq!(machine.disk.in_flight().len(), 2);
    running
}

/// Appends what there is room for, then, if `beyond`, the first request for which there is none; lets all be written,
/// and returns where a seal would end in the last segment, if the log is not stuck.
fn written(requests: &[Request], ask: Ask, beyond: bool) -> Option<u64> {
    let mut machine = Machine::new(SEGMENT_BLOCKS);
    let running = full(&mut machine);
    let mut refused = None;
    for request in requests.iter().cycle() {
        if !ask(&running.log, ShardId(request.shard), &request.payloads_bytes) {
            refused = Some(request);
            break;
        }
        request.append(&running);
    }
    if beyond {
        refused.expect("a segment is full at last").append(&running);
    }
    machine.disk.hold_writes(false);
    while !machine.disk.in_flight().is_empty() {
        machine.disk.end_write(0, Ok(()));
        running.scheduler.settle();
    }
    let all = running.history.entries.borrow().len();
    let is_stuck = running.log.is_stuck();
    assert_eq!(running.history.acknowledged.get() == all, !is_stuck);
    running.kill();
    let last = machine.recover().expect("recovers").chain.segments.pop();
    let end = last.expect("it was started").end_offset;
    (!is_stuck).then_some(end + SEAL_BYTES)
}

/// What the log will make comes to two segments beyond where it is: then the one in use is empty, one in reserve, and
/// there is space for a further one.
#[test]
fn the_log_tells_how_far_it_is_and_what_it_will_make() {
    let mut machine = Machine::new(SEGMENT_BLOCKS);
    let running = machine.start();
    let mut position_bytes = running.log.position_bytes();
    while running.log.statistics().segments < 5 {
        running.append(0, 3_000);
        let waiting_bytes = running.log.position_bytes();
        assert!(waiting_bytes >= position_bytes + 3_000);
        running.drain();
        position_bytes = running.log.position_bytes();
        assert!(position_bytes >= waiting_bytes);
        // None is freed, and one that is being filled has its space.
        let made_bytes = machine.disk.files().len() as u64 * SEGMENT_BYTES;
        assert_eq!(
            made_bytes + running.log.unmade_bytes(),
            position_bytes + 2 * SEGMENT_BYTES
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_has_room_is_written_and_what_has_none_is_not(requests in prop::collection::vec(request(), 1..40)) {
        let ask: Ask = Log::has_room;
        let end = written(&requests, ask, false);
        prop_assert!(end.is_some_and(|end| end <= SEGMENT_BYTES), "{end:?}");
        prop_assert_eq!(written(&requests, ask, true), None);
    }

    #[test]
    fn deletes_leave_the_reserve(requests in prop::collection::vec(request(), 1..40)) {
        let ask: Ask = Log::has_room_for_delete;
        let end = written(&requests, ask, false).expect("all that was asked for is written");
        prop_assert!(end <= SEGMENT_BYTES - SEGMENT_RESERVE_BYTES, "{end}");
        let beyond = written(&requests, ask, true).expect("the reserve takes it");
        prop_assert!(beyond > SEGMENT_BYTES - SEGMENT_RESERVE_BYTES, "{beyond}");
    }
}
