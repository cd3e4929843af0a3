//! Segments: going on in the next one, making one, and a disk that is full.

use core::time::Duration;
use std::io;
use std::rc::Rc;

use ostrakon_core::raft::{EntryId, LogIndex, Term};
use ostrakon_wire::routing::ShardId;

use super::harness::{EPOCH, Entry, Machine, Running, SHARDS, disk_bytes, fill, segment, state_of};
use crate::env::testing::memory_disk::Fate;
use crate::env::testing::scheduler::Scheduler;
use crate::env::{Priority, Tasks};
use crate::limits::DISK_RESERVE_BYTES;
use crate::log::Log;
use crate::log::format::{
    BatchNumber, FLAG_HEAD, OwnershipEpoch, RecordKind, SegmentHead, SegmentSequence, ShardState, records,
};
use crate::log::segment::parse_segment_name;

/// Longer than the log waits before it looks at a full disk again.
const A_WHILE: Duration = Duration::from_millis(300);

#[test]
fn every_segment_opens_with_a_head_that_names_its_predecessor_and_has_all_states() {
    let mut machine = Machine::new(6);
    let running = machine.start();
    fill(&running, 24, 2, 1000);
    running.close();
    let mut before = (SegmentSequence(0), BatchNumber(0));
    let chain = machine.recover().expect("recovers").chain;
    assert!(chain.segments.len() >= 3, "{} segments", chain.segments.len());
    for found in &chain.segments {
        let bytes = machine.disk.content(&segment(found.sequence.0));
        let batches = machine.batches(found.sequence.0);
        let first = &batches[0];
        assert_eq!((first.flags, first.number.0), (FLAG_HEAD, before.1.0 + 1));
        let read: Vec<_> = records(&bytes, first)
            .map(|record| record.expect("parses"))
            .collect();
        let expected = SegmentHead {
            cluster: machine.config().cluster,
            node: 42,
            predecessor: before.0,
            predecessor_last: before.1,
            segment_bytes: machine.segment_bytes,
            shards: SHARDS,
            oldest: SegmentSequence(1),
        };
        assert_eq!(SegmentHead::decode(read[0].payload), Some(expected));
        assert_eq!(read.len(), 1 + SHARDS as usize);
        for (shard, record) in read[1..].iter().enumerate() {
            assert_eq!((record.kind, record.epoch), (RecordKind::ShardState, EPOCH));
            assert_eq!(record.shard, ShardId(shard as u32));
            assert_eq!(ShardState::decode(record.payload), Some(state_of(shard as u32)));
        }
        before = (found.sequence, batches.last().expect("a batch").number);
    }
}

#[test]
fn a_segment_keeps_room_for_the_seal() {
    for entries in 1..30 {
        let mut machine = Machine::new(6);
        let running = machine.start();
        fill(&running, entries, 1, 100);
        running.close();
        let found = machine.recover().expect("recovers");
        assert!(found.chain.sealed, "after {entries} entries");
        assert_eq!(found.chain.cut, None, "after {entries} entries");
    }
}

#[test]
fn a_state_in_a_head_is_not_ahead_of_the_entries_it_speaks_of() {
    // A shard is taken over from another log: its entries are copied, then its state says that the copy is
    // complete. A segment that is begun between the two must not say so, or a crash loses the copy.
    let (shard, higher) = (ShardId(1), OwnershipEpoch(EPOCH.0 + 1));
    let complete = ShardState {
        complete: true,
        ..state_of(1)
    };
    let take_over = |machine: &mut Machine, freeze_after: u64| {
        let running = machine.start();
        running.log.append_state(
            shard,
            higher,
            ShardState {
                complete: false,
                ..complete
            },
        );
        fill(&running, 3, 1, 100);
        let before = machine.disk.operations();
        machine.disk.freeze_at(before + freeze_after);
        for index in 1..=5 {
            let id = EntryId {
                term: Term(1),
                index: LogIndex(index),
            };
            running.append_entry(Entry {
                shard,
                epoch: higher,
                id,
                payload: vec![index as u8; 1500],
            });
        }
        running.log.append_state(shard, higher, complete);
        let drained = running.try_drain();
        running.kill();
        machine.disk.power_loss(false, |_| Fate::Lost);
        drained
    };
    let (mut seen, mut freeze_after) = ([0, 0], 0);
    loop {
        let mut machine = Machine::new(6);
        let drained = take_over(&mut machine, freeze_after);
        let found = machine.recover().expect("recovers");
        let copied = found.entries.iter().filter(|entry| entry.epoch == higher).count();
        let (epoch, ..) = found.chain.shards[&shard].complete.expect("the state before");
        assert!(
            epoch == EPOCH || copied == 5,
            "complete with {copied} of 5 entries, {freeze_after} operations"
        );
        seen[usize::from(epoch == higher)] += 1;
        freeze_after += 1;
        if drained {
            break;
        }
    }
    assert!(seen[0] > 3 && seen[1] > 0, "both outcomes were seen: {seen:?}");
}

/// Fills the segment in use and the one in reserve on a disk without space.
fn fill_disk(machine: &Machine, running: &Running) -> usize {
    machine
        .disk
        .set_free_bytes(machine.segment_bytes + DISK_RESERVE_BYTES - 1);
    let mut entries = 0;
    while !running.log.is_disk_full() {
        running.write(0, 100);
        entries += 1;
        assert!(entries < 20, "full at last");
    }
    entries
}

#[test]
fn a_full_disk_is_told_before_anything_queued_is_in_danger_and_recovers_when_space_returns() {
    let mut machine = Machine::new(8);
    let running = machine.start();
    let mut entries = fill_disk(&machine, &running);
    running.drain();
    assert_eq!(
        running.history.acknowledged.get(),
        entries,
        "what was queued is durable"
    );
    for _ in 0..10 {
        running.write(1, 100);
        entries += 1;
    }
    assert!(
        running.history.acknowledged.get() < entries,
        "no segment for the rest"
    );
    running.scheduler.advance(A_WHILE);
    assert!(running.log.is_disk_full() && !running.log.has_failed());
    machine
        .disk
        .set_free_bytes(machine.segment_bytes + DISK_RESERVE_BYTES);
    running.scheduler.advance(A_WHILE);
    assert!(!running.log.is_disk_full());
    assert_eq!(
        running.history.acknowledged.get(),
        entries,
        "what waited is written"
    );
    running.close();
    machine.start().close();
}

#[test]
fn running_out_of_space_while_a_segment_is_filled_frees_it_and_tries_again() {
    for (operation, skip) in [("fill", 0), ("sync", 0), ("open", 0), ("rename", 0)] {
        let mut machine = Machine::new(8);
        let running = machine.start();
        machine.disk.inject(operation, skip, io::ErrorKind::StorageFull);
        let mut entries = 0;
        while !running.log.is_disk_full() {
            running.write(0, 100);
            entries += 1;
            assert!(entries < 20, "{operation} fails at last");
        }
        let temporary = segment(3).with_extension("tmp");
        assert!(
            !machine.disk.files().contains(&temporary),
            "{operation}: its space is free again"
        );
        running.scheduler.advance(A_WHILE);
        assert!(
            !running.log.is_disk_full(),
            "{operation}: {:?}",
            running.history.failures.borrow()
        );
        fill(&running, 20, 1, 100);
        running.close();
        assert_eq!(machine.disk.open_files(), 0);
        machine.start().close();
    }
}

/// Blocks of a segment that is filled in many steps.
const MANY_STEPS_BLOCKS: u64 = 512;

/// Bytes of the next segment's half-made file.
fn half_made(machine: &Machine, sequence: u64) -> Option<usize> {
    let path = segment(sequence).with_extension("tmp");
    let is_there = machine.disk.files().contains(&path);
    is_there.then(|| machine.disk.content(&path).len())
}

#[test]
fn the_next_segment_is_filled_at_the_pace_of_the_one_in_use() {
    const STEP_BYTES: u64 = 256 << 10;
    let mut machine = Machine::new(MANY_STEPS_BLOCKS);
    let used_bytes = |machine: &Machine| machine.batches(1).iter().map(disk_bytes).sum::<u64>();
    let running = machine.start();
    running.drain();
    let (mut steps, mut last) = (0, 0);
    while let Some(filled) = half_made(&machine, 2) {
        let used_bytes = used_bytes(&machine);
        assert!(
            filled as u64 <= used_bytes * 2 + STEP_BYTES,
            "{filled} beside {used_bytes}"
        );
        steps += usize::from(filled > last);
        last = filled;
        running.write(0, 20_000);
    }
    assert!(steps > 4, "{steps} steps");
    assert!(machine.disk.files().contains(&segment(2)));
    let used_bytes = used_bytes(&machine);
    assert!(
        used_bytes * 2 >= machine.segment_bytes - STEP_BYTES,
        "not before: {used_bytes}"
    );
    running.close();
}

#[test]
fn a_log_that_ends_leaves_no_half_made_segment() {
    let mut machine = Machine::new(MANY_STEPS_BLOCKS);
    let running = machine.start();
    running.drain();
    assert!(half_made(&machine, 2).is_some());
    running.close();
    assert_eq!(half_made(&machine, 2), None);
    assert_eq!(machine.disk.open_files(), 0);
}

/// Everything that making a segment does on the disk.
const MAKING: [&str; 7] = [
    "free_bytes",
    "open",
    "fill",
    "sync",
    "close",
    "rename",
    "sync_dir",
];

/// Writes until the log says that it can make no further segment, or has failed.
fn write_until_refused(running: &Running, operation: &str) {
    let mut entries = 0;
    while !running.log.is_disk_full() && !running.log.has_failed() {
        running.write(0, 100);
        entries += 1;
        assert!(entries < 20, "{operation} fails at last");
    }
}

#[test]
fn a_passing_failure_to_make_a_segment_is_survived() {
    // The first file to be closed is a full segment, and a failure of that ends the log.
    for operation in MAKING.into_iter().filter(|operation| *operation != "close") {
        let mut machine = Machine::new(8);
        let running = machine.start();
        machine.disk.inject(operation, 0, io::ErrorKind::Other);
        write_until_refused(&running, operation);
        running.scheduler.advance(A_WHILE);
        assert!(
            !running.log.is_disk_full() && !running.log.has_failed(),
            "{operation}"
        );
        fill(&running, 20, 1, 100);
        running.close();
        assert_eq!(machine.disk.open_files(), 0, "{operation}");
        machine.start().close();
    }
}

#[test]
fn a_lasting_failure_to_make_a_segment_ends_the_log() {
    for operation in MAKING {
        let mut machine = Machine::new(8);
        let running = machine.start();
        for _ in 0..100 {
            machine.disk.inject(operation, 0, io::ErrorKind::Other);
        }
        write_until_refused(&running, operation);
        for _ in 0..100 {
            running.scheduler.advance(A_WHILE);
        }
        assert!(running.log.has_failed(), "{operation}");
        assert_eq!(running.history.failures.borrow().len(), 1, "{operation}");
        machine.disk.clear_injections();
        running.close();
        assert_eq!(machine.disk.open_files(), 0, "{operation}");
        machine.history.failures.borrow_mut().clear();
        machine.start().close();
    }
}

#[test]
fn closing_a_log_that_is_stuck_gives_up_what_was_never_acknowledged() {
    let mut machine = Machine::new(8);
    let running = machine.start();
    fill_disk(&machine, &running);
    for _ in 0..10 {
        running.write(1, 100);
    }
    assert!(running.log.is_stuck());
    let log = running.log.clone();
    let close = Box::pin(async move { log.close().await.expect("closes") });
    running.scheduler.spawn(Priority::Foreground, close);
    running.scheduler.settle();
    // The task that looks for space sleeps.
    running.scheduler.advance(A_WHILE);
    assert_eq!(machine.disk.open_files(), 0);
    drop(running);
    let acknowledged = machine.history.acknowledged.get();
    machine.disk.set_free_bytes(1 << 30);
    machine.start().close();
    assert_eq!(machine.history.entries.borrow().len(), acknowledged);
}

#[test]
fn a_log_opens_within_the_reserve_but_not_on_a_full_disk() {
    let machine = Machine::new(8);
    let open = |free_bytes: u64| {
        machine.disk.set_free_bytes(free_bytes);
        let scheduler = Scheduler::default();
        let (disk, shared) = (machine.disk.clone(), scheduler.clone());
        let opened = scheduler.run(Log::open(
            machine.config(),
            (Rc::new(disk), Rc::new(shared.clone()), Rc::new(shared)),
            None,
        ));
        opened.expect("not frozen").map(drop)
    };
    let error = open(machine.segment_bytes - 1).expect_err("refused");
    assert!(error.to_string().contains("free some and start again"), "{error}");
    assert!(machine.disk.files().is_empty());
    open(machine.segment_bytes).expect("opens: a node that filled its disk must be able to start again");
}

#[test]
fn segment_names_are_sixteen_lower_case_hex_digits() {
    assert_eq!(
        parse_segment_name("000000000000001f.seg"),
        Some(SegmentSequence(31))
    );
    for name in [
        "000000000000001F.seg",
        "+00000000000001f.seg",
        "1f.seg",
        "000000000000001f.tmp",
        "000000000000001f",
    ] {
        assert_eq!(parse_segment_name(name), None, "{name}");
    }
}
