//! What a crash leaves: recovery cuts exactly what was never acknowledged, and later starts agree.

use std::io;

use super::harness::{LOG, Machine, Running, fill, segment};
use crate::env::disk::BLOCK_BYTES;
use crate::env::testing::memory_disk::{Fate, SECTOR_BYTES};
use crate::log::format::{
    BatchHeader, BatchNumber, BootNumber, DirectoryEntry, SegmentSequence, finish_batch,
};

#[test]
fn an_empty_log_and_a_log_that_was_killed_at_rest_have_nothing_to_cut() {
    let mut machine = Machine::new(8);
    let found = machine.recover().expect("recovers");
    assert!(found.chain.segments.is_empty() && found.chain.cut.is_none() && !found.chain.sealed);
    assert_eq!(found.chain.next_sequence, SegmentSequence(1));
    let running = machine.start();
    fill(&running, 9, 3, 50);
    running.lose_power(&machine.disk);
    let found = machine.recover().expect("recovers");
    assert!(found.chain.cut.is_none() && !found.chain.sealed);
    assert_eq!(found.chain.last_batch, BatchNumber(4));
    assert_eq!(found.entries.len(), 9);
    machine.start().close();
    assert!(machine.recover().expect("recovers").chain.sealed);
}

#[test]
fn a_kill_before_the_first_head_leaves_an_empty_log_without_a_warning() {
    let mut machine = Machine::new(8);
    machine.disk.hold_writes(true);
    let running = machine.try_start().expect("not frozen");
    running.scheduler.settle();
    running.lose_power(&machine.disk);
    let found = machine.recover().expect("recovers");
    assert!(found.chain.segments.is_empty());
    assert_eq!(found.chain.cut, None);
    machine.start().close();
}

#[test]
fn a_last_batch_of_which_only_some_sectors_arrived_is_cut() {
    let payload_bytes = 20_000;
    let sectors = (payload_bytes + BLOCK_BYTES) / SECTOR_BYTES;
    let torn = |keep: Box<dyn Fn(usize) -> bool>| {
        let mut machine = Machine::new(16);
        let running = machine.start();
        fill(&running, 4, 2, 50);
        machine.disk.hold_writes(true);
        running.write(0, payload_bytes);
        running.kill();
        let mut keep = Some(keep);
        machine
            .disk
            .power_loss(false, |_| Fate::Sectors(keep.take().expect("one write")));
        let found = machine.recover().expect("recovers");
        let outcome = (found.entries.len(), found.chain.cut);
        let running = machine.start();
        fill(&running, 2, 1, 50);
        running.lose_power(&machine.disk);
        machine.start().close();
        outcome
    };
    for arrived in 0..sectors {
        let (entries, cut) = torn(Box::new(move |sector| sector < arrived));
        // 80 bytes of header, 32 of a record's, 24 of directory.
        let complete = arrived * SECTOR_BYTES >= payload_bytes + 136;
        assert_eq!(entries, if complete { 5 } else { 4 }, "{arrived} sectors");
        assert_eq!(cut.is_some(), arrived > 0 && !complete, "{arrived} sectors");
    }
    let (entries, cut) = torn(Box::new(|sector| sector > 0));
    assert_eq!(
        (entries, cut),
        (4, None),
        "the first sector is lost: as if nothing was written"
    );
    let (entries, cut) = torn(Box::new(|sector| sector != 7));
    assert_eq!(entries, 4);
    let cut = cut.expect("cut");
    assert_eq!((cut.path, cut.offset), (segment(1), 3 * BLOCK_BYTES as u64));
    assert!(
        cut.finding.starts_with("record checksum: expected 0x"),
        "{}",
        cut.finding
    );
    assert!(!cut.is_corruption);
}

/// A log whose last two batches were in flight together, the first of them gone.
fn lost_before_present() -> Machine {
    let mut machine = Machine::new(16);
    let running = machine.start();
    fill(&running, 4, 2, 50);
    machine.disk.hold_writes(true);
    running.write(0, 50);
    running.write(1, 50);
    running.kill();
    let mut fates = [Fate::Lost, Fate::Whole].into_iter();
    machine
        .disk
        .power_loss(false, |_| fates.next().expect("two writes"));
    machine
}

#[test]
fn of_two_writes_in_flight_the_second_is_void_without_the_first() {
    let mut machine = lost_before_present();
    let found = machine.recover().expect("recovers");
    assert_eq!(found.entries.len(), 4);
    assert_eq!(found.chain.last_batch, BatchNumber(3));
    let running = machine.start();
    fill(&running, 3, 1, 50);
    running.lose_power(&machine.disk);
    for _ in 0..3 {
        let running = machine.start();
        fill(&running, 1, 1, 50);
        running.lose_power(&machine.disk);
    }
    assert_eq!(machine.recover().expect("recovers").entries.len(), 10);
}

#[test]
fn what_lies_beyond_the_cut_is_void_for_ever() {
    // The lost batch comes back, as it does when a cable is seated again. Its successor in the old segment is
    // valid too; but the log went on elsewhere.
    let mut machine = Machine::new(16);
    let running = machine.start();
    fill(&running, 4, 2, 50);
    running.append(0, 70);
    running.drain();
    running.append(1, 80);
    running.drain();
    running.kill();
    let whole = machine.disk.content(&segment(1));
    let lost = 3 * BLOCK_BYTES..5 * BLOCK_BYTES;
    machine.disk.edit(&segment(1), |bytes| bytes[lost].fill(0));
    machine.history.acknowledged.set(4);
    let running = machine.start();
    assert_eq!(machine.history.entries.borrow().len(), 4);
    fill(&running, 2, 1, 50);
    running.lose_power(&machine.disk);
    machine
        .disk
        .edit(&segment(1), |bytes| bytes.copy_from_slice(&whole));
    let found = machine.recover().expect("recovers");
    assert_eq!(found.entries, *machine.history.entries.borrow());
    assert_eq!(found.chain.segments[0].end_offset, 3 * BLOCK_BYTES as u64);
    machine.start().close();
    machine.start().close();
}

#[test]
fn a_rolled_over_head_is_void_without_the_batch_before_it() {
    // The last batch of a segment and the head of the next are in flight together.
    let mut machine = Machine::new(4);
    let running = machine.start();
    running.write(0, 50);
    machine.disk.hold_writes(true);
    running.write(1, 50);
    running.write(2, 50);
    let in_flight = machine.disk.in_flight();
    assert_eq!(
        in_flight.iter().map(|write| write.offset).collect::<Vec<_>>(),
        [2 * BLOCK_BYTES as u64, 0]
    );
    running.kill();
    let mut fates = [Fate::Lost, Fate::Whole].into_iter();
    machine
        .disk
        .power_loss(false, |_| fates.next().expect("two writes"));
    for expected in [1, 2, 3] {
        let found = machine.recover().expect("recovers");
        assert_eq!(found.entries.len(), expected);
        let running = machine.start();
        fill(&running, 1, 1, 50);
        running.lose_power(&machine.disk);
    }
    let chain = machine.recover().expect("recovers").chain;
    assert!(
        chain
            .segments
            .iter()
            .all(|found| found.sequence != SegmentSequence(2)),
        "void"
    );
    machine.remove_void(&chain);
    assert!(!machine.disk.files().contains(&segment(2)));
    assert_eq!(machine.recover().expect("recovers").entries.len(), 4);
}

#[test]
fn what_was_served_after_a_crash_survives_the_next_one() {
    // The writes reached the device's cache and no further when the process died; recovery reads them there.
    // With two entries they are the last batch of a segment and the head of the next. A sync that fails says nothing
    // about them, nor does any later one.
    for (segment_blocks, entries, sync_fails) in [(8, 1, false), (4, 2, false), (8, 1, true), (4, 2, true)] {
        let mut machine = Machine::new(segment_blocks);
        let running = machine.start();
        running.write(0, 50);
        machine.disk.hold_writes(true);
        (0..entries).for_each(|_| running.write(0, 50));
        assert_eq!(machine.disk.in_flight().len(), entries);
        running.kill();
        machine.disk.power_loss(false, |_| Fate::Cached);
        if sync_fails {
            // Of each segment, and no other sync is asked.
            (0..=entries).for_each(|_| machine.disk.inject("sync", 0, io::ErrorKind::Other));
        }
        let served = machine.recover().expect("recovers");
        machine.disk.clear_injections();
        assert_eq!(served.entries.len(), 2, "and may be answered to a client");
        assert_eq!(served.chain.segments.len(), entries);
        let told = served.chain.sync_failures.len();
        assert_eq!(told, if sync_fails { entries } else { 0 });
        machine.disk.power_loss(false, |_| Fate::Lost);
        assert_eq!(machine.recover().expect("recovers").entries.len(), 2);
    }
}

#[test]
fn a_batch_of_another_boot_or_number_does_not_continue_a_segment() {
    let mut machine = Machine::new(8);
    let running = machine.start();
    fill(&running, 2, 1, 50);
    running.lose_power(&machine.disk);
    let next = BatchHeader {
        flags: 0,
        segment: SegmentSequence(1),
        number: BatchNumber(4),
        durable_through: BatchNumber(3),
        offset: 3 * BLOCK_BYTES as u64,
        boot: BootNumber(1),
        log: LOG,
        records_bytes: 0,
        record_count: 0,
        directory_count: 0,
    };
    let last_batch_with = |header: BatchHeader| {
        machine.disk.edit(&segment(1), |bytes| {
            finish_batch(
                &mut bytes[3 * BLOCK_BYTES..],
                &header,
                &Vec::<DirectoryEntry>::new(),
            );
        });
        machine.recover().expect("recovers").chain.last_batch
    };
    assert_eq!(last_batch_with(next), BatchNumber(4));
    assert_eq!(
        last_batch_with(BatchHeader {
            boot: BootNumber(2),
            ..next
        }),
        BatchNumber(3)
    );
    assert_eq!(
        last_batch_with(BatchHeader {
            number: BatchNumber(5),
            ..next
        }),
        BatchNumber(3)
    );
    assert_eq!(
        last_batch_with(BatchHeader {
            number: BatchNumber(3),
            ..next
        }),
        BatchNumber(3)
    );
}

#[test]
fn half_made_segments_are_removed() {
    let mut machine = Machine::new(8);
    let running = machine.start();
    fill(&running, 2, 1, 50);
    running.lose_power(&machine.disk);
    let left = segment(9).with_extension("tmp");
    machine.disk.put_file(&left, vec![1; 700]);
    machine.recover().expect("recovers");
    assert!(!machine.disk.files().contains(&left));
    machine.start().close();
}

#[test]
fn a_log_that_is_longer_than_what_recovery_reads_at_once_ends_where_it_ended() {
    // Some 6 MiB of a segment of 8.
    let fill = |running: &Running| (0..60).for_each(|_| running.write(0, 100_000));
    for is_closed in [true, false] {
        let mut machine = Machine::new(2048);
        let running = machine.start();
        fill(&running);
        running.drain();
        if is_closed {
            running.close();
        } else {
            running.lose_power(&machine.disk);
        }
        assert_eq!(machine.recover().expect("recovers").entries.len(), 60);
        machine.start().close();
    }
    let mut machine = Machine::new(2048);
    let running = machine.start();
    fill(&running);
    running.close();
    let offset = machine.batches(1)[55].offset;
    assert!(offset > 5 << 20, "far behind what is read at once");
    machine.disk.flip(&segment(1), offset as usize + 5_000, 3);
    let (path, found, sentence) = machine.corruption();
    assert_eq!((path, found), (segment(1), offset), "{sentence}");
}
