//! The writer: order, group commit, failures, the end.

use std::io;

use super::harness::{Machine, data, disk_bytes, segment};
use crate::env::Tasks;
use crate::limits::BATCH_TARGET_BYTES;
use crate::log::format::{BatchNumber, FLAG_HEAD, FLAG_SEAL};

#[test]
fn records_come_back_in_order() {
    let mut machine = Machine::new(16);
    let running = machine.start();
    for entry in 0..40 {
        running.append(entry % 3, entry as usize * 7);
        if entry % 5 == 4 {
            running.drain();
        }
    }
    assert_eq!(running.history.acknowledged.get(), 40);
    let statistics = running.log.statistics();
    assert_eq!((statistics.batches, statistics.segments), (9, 1));
    assert_eq!(
        statistics.records,
        40 + 1 + 3,
        "entries, the segment's head, three states"
    );
    running.close();
    assert_eq!(machine.disk.open_files(), 0);
    let found = machine.recover().expect("recovers");
    assert_eq!(found.entries, *machine.history.entries.borrow());
    assert!(found.chain.sealed);
    assert_eq!(found.chain.cut, None);
}

#[test]
fn a_lone_entry_is_written_at_once_and_what_comes_during_two_writes_shares_the_next() {
    let mut machine = Machine::new(64);
    let running = machine.start();
    machine.disk.hold_writes(true);
    running.write(0, 10);
    assert_eq!(machine.disk.in_flight().len(), 1, "no timer delays it");
    running.write(1, 10);
    assert_eq!(machine.disk.in_flight().len(), 2);
    for entry in 0..20 {
        running.write(entry % 3, 10);
    }
    assert_eq!(machine.disk.in_flight().len(), 2, "two writes at most");
    machine.disk.end_write(0, Ok(()));
    running.scheduler.settle();
    machine.disk.end_write(0, Ok(()));
    machine.disk.end_write(1, Ok(()));
    running.scheduler.settle();
    assert_eq!(
        *running.history.batches.borrow(),
        [0, 1, 1, 20],
        "head, two alone, then all that waited"
    );
    running.kill();
}

#[test]
fn writes_that_end_out_of_order_are_acknowledged_in_order() {
    let mut machine = Machine::new(64);
    let running = machine.start();
    machine.disk.hold_writes(true);
    running.write(0, 10);
    running.write(1, 10);
    machine.disk.end_write(1, Ok(()));
    running.scheduler.settle();
    assert_eq!(
        running.history.acknowledged.get(),
        0,
        "the first is not durable yet"
    );
    assert_eq!(running.log.durable_through(), BatchNumber(1));
    machine.disk.end_write(0, Ok(()));
    running.scheduler.settle();
    assert_eq!(running.history.acknowledged.get(), 2);
    assert_eq!(running.log.durable_through(), BatchNumber(3));
    running.kill();
}

#[test]
fn a_write_that_hangs_lets_no_more_than_one_pass() {
    let mut machine = Machine::new(64);
    let running = machine.start();
    machine.disk.hold_writes(true);
    running.write(0, 10);
    running.write(1, 10);
    machine.disk.end_write(1, Ok(()));
    running.scheduler.settle();
    running.write(2, 10);
    assert_eq!(
        machine.disk.in_flight().len(),
        1,
        "what can't be acknowledged would grow without a bound"
    );
    machine.disk.end_write(0, Ok(()));
    running.scheduler.settle();
    assert_eq!(machine.disk.in_flight().len(), 1, "the one that waited");
    machine.disk.end_write(0, Ok(()));
    running.scheduler.settle();
    assert_eq!(running.history.acknowledged.get(), 3);
    running.kill();
}

#[test]
fn both_writers_go_on_after_writes_that_ended_out_of_order() {
    let mut machine = Machine::new(1024);
    let running = machine.start();
    machine.disk.hold_writes(true);
    running.write(0, 10);
    running.write(1, 10);
    for _ in 0..3 {
        running.write(2, BATCH_TARGET_BYTES - 100);
    }
    machine.disk.end_write(1, Ok(()));
    running.scheduler.settle();
    machine.disk.end_write(0, Ok(()));
    running.scheduler.settle();
    assert_eq!(
        machine.disk.in_flight().len(),
        2,
        "three batches wait, both writers write"
    );
    running.kill();
}

#[test]
fn batches_grow_to_the_target_and_a_larger_record_travels_alone() {
    let mut machine = Machine::new(4096);
    let running = machine.start();
    machine.disk.hold_writes(true);
    running.write(0, 10);
    running.write(0, 10);
    let record_bytes = 100_000;
    let per_batch = BATCH_TARGET_BYTES / record_bytes;
    for _ in 0..per_batch {
        running.write(0, record_bytes);
    }
    running.write(1, BATCH_TARGET_BYTES * 2);
    running.write(2, 10);
    running.write(0, 10);
    machine.disk.hold_writes(false);
    machine.disk.end_write(0, Ok(()));
    machine.disk.end_write(1, Ok(()));
    running.drain();
    assert_eq!(*running.history.batches.borrow(), [0, 1, 1, per_batch, 1, 2]);
    running.close();
    let batches = machine.batches(1);
    assert!(disk_bytes(&batches[3]) <= (BATCH_TARGET_BYTES + 4096) as u64);
    assert_eq!(
        machine.recover().expect("recovers").entries,
        *machine.history.entries.borrow()
    );
}

#[test]
fn refuses_with_busy_before_the_queue_is_full() {
    let mut machine = Machine::new(8192);
    let running = machine.start();
    machine.disk.hold_writes(true);
    running.write(0, 10);
    running.write(0, 10);
    let mut entries = 2;
    while !running.log.is_backlogged() {
        running.write(1, 1 << 19);
        entries += 1;
        assert!(entries < 40, "backlogged at last");
    }
    machine.disk.hold_writes(false);
    machine.disk.end_write(0, Ok(()));
    machine.disk.end_write(1, Ok(()));
    running
        .scheduler
        .run(running.log.room())
        .expect("there is room again");
    assert!(!running.log.is_backlogged());
    running.drain();
    assert_eq!(running.history.acknowledged.get(), entries);
    running.close();
}

#[test]
fn after_a_failed_write_nothing_is_acknowledged_written_or_retried() {
    let mut machine = Machine::new(64);
    let running = machine.start();
    machine.disk.hold_writes(true);
    running.write(0, 10);
    running.write(1, 10);
    running.write(2, 10);
    let submitted = machine.disk.operations();
    machine
        .disk
        .end_write(0, Err(io::Error::other("the medium is worn")));
    running.scheduler.settle();
    assert!(running.log.has_failed());
    machine.disk.end_write(0, Ok(()));
    running.scheduler.settle();
    running.write(0, 10);
    assert_eq!(
        machine.disk.in_flight().len(),
        0,
        "no retry, and no further write"
    );
    assert_eq!(
        machine.disk.operations(),
        submitted + 1,
        "only the completion of the second write"
    );
    assert_eq!(
        running.history.acknowledged.get(),
        0,
        "the second may lie behind a hole"
    );
    let failures = running.history.failures.borrow().clone();
    assert_eq!(failures.len(), 1, "told once");
    let path = segment(1);
    assert_eq!(
        failures[0],
        format!("log: write to {}: the medium is worn", path.display())
    );
    running
        .scheduler
        .run(running.log.drained())
        .expect("does not wait for what can't come");
    running.close();
    assert_eq!(machine.disk.open_files(), 0);
    assert!(
        machine
            .batches(1)
            .iter()
            .all(|batch| batch.flags & FLAG_SEAL == 0),
        "a failed log is not sealed"
    );
}

#[test]
fn a_write_that_ends_after_a_later_one_failed_is_not_acknowledged() {
    let mut machine = Machine::new(64);
    let running = machine.start();
    machine.disk.hold_writes(true);
    running.write(0, 10);
    running.write(1, 10);
    machine.disk.end_write(1, Err(io::Error::other("worn")));
    running.scheduler.settle();
    machine.disk.end_write(0, Ok(()));
    running.scheduler.settle();
    assert_eq!(
        running.history.acknowledged.get(),
        0,
        "the log had told that it takes no more"
    );
    running.close();
}

#[test]
fn both_writes_may_fail_and_it_is_told_once() {
    let mut machine = Machine::new(64);
    let running = machine.start();
    machine.disk.hold_writes(true);
    running.write(0, 10);
    running.write(1, 10);
    machine.disk.end_write(1, Err(io::Error::other("first")));
    machine.disk.end_write(0, Err(io::Error::other("second")));
    running.scheduler.settle();
    assert_eq!(running.history.failures.borrow().len(), 1);
    assert_eq!(running.history.acknowledged.get(), 0);
    running.close();
}

#[test]
fn closing_a_failed_log_waits_for_the_write_that_is_still_under_way() {
    let mut machine = Machine::new(64);
    let running = machine.start();
    machine.disk.hold_writes(true);
    running.write(0, 10);
    running.write(1, 10);
    machine.disk.end_write(0, Err(io::Error::other("worn")));
    running.scheduler.settle();
    let log = running.log.clone();
    running.scheduler.spawn(
        crate::env::Priority::Foreground,
        Box::pin(async move { log.close().await.expect("closes") }),
    );
    // The disk refuses a close during a write.
    running.scheduler.settle();
    assert!(machine.disk.open_files() > 0);
    machine.disk.end_write(0, Ok(()));
    running.scheduler.settle();
    assert_eq!(machine.disk.open_files(), 0);
    running.kill();
}

#[test]
fn closing_waits_writes_the_seal_and_closes_each_file_once() {
    let mut machine = Machine::new(6);
    let running = machine.start();
    for entry in 0..20 {
        running.write(entry % 3, 2000);
    }
    running.append(0, 10);
    running.close();
    assert_eq!(
        machine.disk.open_files(),
        0,
        "and the disk refuses a second close"
    );
    assert_eq!(machine.history.acknowledged.get(), 21);
    let found = machine.recover().expect("recovers");
    assert!(found.chain.sealed);
    let last = found.chain.segments.last().expect("a segment").sequence;
    let seal = *machine.batches(last.0).last().expect("a batch");
    assert_eq!(seal.flags, FLAG_SEAL);
    assert_eq!(
        seal.durable_through.0 + 1,
        seal.number.0,
        "it covers all before it"
    );
    assert_eq!(seal.record_count, 0);
}

#[test]
fn a_failed_seal_is_reported_and_the_files_are_closed() {
    let mut machine = Machine::new(16);
    let running = machine.start();
    running.write(0, 10);
    machine.disk.inject("write", 0, io::ErrorKind::Other);
    let closed = running.scheduler.run(running.log.close()).expect("ends");
    assert!(
        closed
            .expect_err("fails")
            .to_string()
            .contains("write to /data/log/0003/")
    );
    assert_eq!(machine.disk.open_files(), 0);
    running.kill();
    assert!(!machine.recover().expect("recovers").chain.sealed);
}

#[test]
fn a_log_without_entries_is_a_head_and_a_seal() {
    let mut machine = Machine::new(16);
    machine.start().close();
    let flags: Vec<u16> = machine.batches(1).iter().map(|batch| batch.flags).collect();
    assert_eq!(flags, [FLAG_HEAD, FLAG_SEAL]);
    machine.start().close();
    let chain = machine.recover().expect("recovers").chain;
    let [second] = &chain.segments[..] else {
        panic!("the first holds nothing that is needed")
    };
    let second = second.sequence.0;
    assert_eq!(
        second, 3,
        "not the one in reserve: a write of the run before may still reach it"
    );
    assert_eq!(machine.batches(second)[0].number, BatchNumber(3), "numbers go on");
    assert!(machine.disk.files().iter().all(|path| path.starts_with(data())));
}
