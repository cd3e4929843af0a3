//! Segments whose files had an earlier life: what that left never counts, and is no damage by itself.

use super::harness::{LOG, Machine, Running, disk_bytes, fill, segment};
use crate::env::disk::BLOCK_BYTES;
use crate::env::testing::memory_disk::{Fate, SECTOR_BYTES};
use crate::log::format::{FLAG_RECYCLED, own_place};

/// Blocks of a segment: a head, ten batches of an entry, a seal.
const SEGMENT_BLOCKS: u64 = 12;

/// Writes and flushes until this many segments were used again and one more is ready, filled with batches of its
/// earlier life.
fn recycle(running: &Running, count: u64) {
    while running.log.statistics().segments_recycled < count {
        running.write(0, 1000);
        running.drain();
        if running.log.statistics().segments > 4 {
            running.flush_all();
        }
    }
    running.flush_all();
}

/// A machine whose log was killed at rest in the middle of a recycled segment, with another one ready; and the
/// sequence of the one in use.
fn killed() -> (Machine, u64) {
    let mut machine = Machine::new(SEGMENT_BLOCKS);
    let running = machine.start();
    recycle(&running, 6);
    let begun = running.log.statistics().segments;
    // Those that were made before the first was freed are behind the log by now.
    fill(&running, 2, 1, 1000);
    assert_eq!(running.log.statistics().segments, begun);
    running.lose_power(&machine.disk);
    let newest = *machine
        .recover()
        .expect("recovers")
        .sequences()
        .last()
        .expect("a segment");
    assert_eq!(machine.batches(newest)[0].flags & FLAG_RECYCLED, FLAG_RECYCLED);
    assert!(machine.batches(newest).len() >= 3);
    (machine, newest)
}

/// The segments whose intact batches lie in a file behind the batches of its own.
fn former_lives(machine: &Machine, sequence: u64) -> Vec<u64> {
    let bytes = machine.disk.content(&segment(sequence));
    let places = bytes.chunks(BLOCK_BYTES).filter_map(own_place);
    let lives = places
        .map(|place| place.segment.0)
        .filter(|life| *life != sequence);
    lives.collect()
}

#[test]
fn what_an_earlier_life_left_is_neither_recovered_nor_reported() {
    let (mut machine, newest) = killed();
    let (begun, ready) = (former_lives(&machine, newest), former_lives(&machine, newest + 1));
    assert!(begun.len() > 5 && ready.len() > 10, "{begun:?}, {ready:?}");
    assert!(begun.iter().chain(&ready).all(|life| *life < newest));
    let found = machine.recover().expect("recovers");
    assert_eq!(found.chain.cut, None);
    let running = machine.start();
    running.write(0, 100);
    running.close();
    let found = machine.recover().expect("recovers");
    assert!(found.chain.sealed);
    assert_eq!(found.chain.cut, None);
}

#[test]
fn a_clean_end_in_a_recycled_segment_is_sealed() {
    let mut machine = Machine::new(SEGMENT_BLOCKS);
    let running = machine.start();
    recycle(&running, 5);
    fill(&running, 2, 1, 100);
    running.close();
    let found = machine.recover().expect("recovers");
    let newest = *found.sequences().last().expect("a segment");
    assert!(!former_lives(&machine, newest).is_empty());
    assert!(found.chain.sealed && found.chain.cut.is_none());
    machine.start().close();
}

#[test]
fn a_batch_torn_over_an_earlier_life_is_cut() {
    let payload_bytes = 9_000;
    let sectors = (payload_bytes + BLOCK_BYTES) / SECTOR_BYTES;
    let torn = |keep: Box<dyn Fn(usize) -> bool>| {
        let mut machine = Machine::new(SEGMENT_BLOCKS);
        let running = machine.start();
        recycle(&running, 6);
        fill(&running, 2, 1, 1000);
        machine.disk.hold_writes(true);
        running.write(1, payload_bytes);
        assert_ne!(machine.disk.in_flight()[0].offset, 0);
        running.kill();
        let mut keep = Some(keep);
        machine
            .disk
            .power_loss(false, |_| Fate::Sectors(keep.take().expect("one write")));
        let acknowledged = machine.history.acknowledged.get();
        let cut = machine.recover().expect("recovers").chain.cut;
        assert!(cut.as_ref().is_none_or(|cut| !cut.is_corruption));
        let running = machine.start();
        let arrived = machine.history.entries.borrow().len() > acknowledged;
        fill(&running, 3, 1, 1000);
        running.lose_power(&machine.disk);
        machine.start().close();
        (arrived, cut.is_some())
    };
    for count in 0..sectors {
        let (arrived, cut) = torn(Box::new(move |sector| sector < count));
        // 80 bytes of header, 32 of a record's, 24 of directory.
        let complete = count * SECTOR_BYTES >= payload_bytes + 136;
        assert_eq!(
            (arrived, cut),
            (complete, count > 0 && !complete),
            "{count} sectors"
        );
    }
    let (arrived, cut) = torn(Box::new(|sector| sector > 0));
    assert_eq!(
        (arrived, cut),
        (false, false),
        "the first sector is that of the earlier life"
    );
    assert_eq!(torn(Box::new(|sector| sector != 9)), (false, true));
}

#[test]
fn a_durable_batch_that_an_earlier_life_stands_for_is_corruption() {
    // The device lost a write that it had reported: the blocks have their old content.
    let mut machine = Machine::new(SEGMENT_BLOCKS);
    let running = machine.start();
    recycle(&running, 6);
    let ready = 1 + *machine
        .recover()
        .expect("recovers")
        .sequences()
        .last()
        .expect("a segment");
    let former = machine.disk.content(&segment(ready));
    let begun = running.log.statistics().segments;
    while running.log.statistics().segments == begun {
        running.write(0, 1000);
    }
    fill(&running, 5, 1, 1000);
    running.lose_power(&machine.disk);
    let whole = machine.disk.content(&segment(ready));
    let batches = machine.batches(ready);
    assert!(batches.len() > 5);
    for batch in &batches {
        let range = batch.offset as usize..(batch.offset + disk_bytes(batch)) as usize;
        machine.disk.edit(&segment(ready), |bytes| {
            bytes[range.clone()].copy_from_slice(&former[range]);
        });
        if batch.number == batches.last().expect("a batch").number {
            let found = machine.recover().expect("a torn tail");
            assert_eq!(found.chain.last_batch.0 + 1, batch.number.0);
        } else {
            let (path, offset, sentence) = machine.corruption();
            assert_eq!((path, offset), (segment(ready), batch.offset), "{sentence}");
        }
        machine
            .disk
            .edit(&segment(ready), |bytes| bytes.copy_from_slice(&whole));
    }
}

#[test]
fn a_lost_head_that_freed_others_is_corruption() {
    // An older segment that the head before it asks for is gone, and in its place stands what was there before.
    let mut machine = Machine::new(SEGMENT_BLOCKS);
    let running = machine.start();
    let write_until = |segments: u64| {
        while running.log.statistics().segments < segments {
            running.write(0, 1000);
        }
        running.drain();
    };
    write_until(6);
    running.flush_all();
    write_until(10);
    running.flush_all();
    let lost = 11;
    let former = machine.disk.content(&segment(lost));
    assert!(
        former_lives(&machine, lost).len() > 5,
        "it is recycled, and not begun"
    );
    write_until(lost);
    fill(&running, 2, 1, 1000);
    running.lose_power(&machine.disk);
    assert_eq!(machine.recover().expect("recovers").sequences(), [10, 11]);
    assert!(!machine.disk.files().contains(&segment(6)));
    machine.disk.edit(&segment(lost), |bytes| {
        bytes[..BLOCK_BYTES].copy_from_slice(&former[..BLOCK_BYTES]);
    });
    let (path, offset, sentence) = machine.corruption();
    assert_eq!((path, offset), (segment(lost), 0), "{sentence}");
}

#[test]
fn a_file_that_begins_with_a_segment_that_counts_was_mixed_up() {
    let (machine, newest) = killed();
    let counts = machine.recover().expect("recovers").sequences()[0];
    let ready = machine.disk.content(&segment(newest + 1));
    machine
        .disk
        .put_file(&segment(newest + 1), machine.disk.content(&segment(counts)));
    let (path, offset, sentence) = machine.corruption();
    assert_eq!((path, offset), (segment(newest + 1), 0));
    let expected = format!(
        "expected the head of log {}, segment {}, found a batch of log",
        LOG.0,
        newest + 1
    );
    assert!(sentence.contains(&expected), "{sentence}");
    machine.disk.put_file(&segment(newest + 1), ready);
    machine.recover().expect("recovers");
}

/// A machine in which older segments are gone that only the newest head, alone in its segment, says are free; and
/// that segment.
fn freed_by_the_last_head() -> (Machine, u64) {
    let mut machine = Machine::new(SEGMENT_BLOCKS);
    let running = machine.start();
    fill(&running, 35, 1, 1000);
    let begun = running.log.statistics().segments;
    assert!(begun >= 4);
    running.flush_all();
    fill(&running, 1, 1, 1000);
    machine.disk.hold_writes(true);
    while running.log.statistics().segments == begun {
        if !machine.disk.in_flight().is_empty() {
            machine.disk.end_write(0, Ok(()));
            running.scheduler.settle();
        }
        running.write(0, 1000);
        let in_flight = machine.disk.in_flight();
        if in_flight.last().is_some_and(|write| write.offset == 0) {
            for _ in &in_flight {
                machine.disk.end_write(0, Ok(()));
            }
            running.scheduler.settle();
            break;
        }
    }
    running.lose_power(&machine.disk);
    let newest = *machine
        .recover()
        .expect("recovers")
        .sequences()
        .last()
        .expect("a segment");
    assert_eq!(machine.batches(newest).len(), 1, "a head alone");
    assert!(!machine.disk.files().contains(&segment(1)));
    (machine, newest)
}

#[test]
fn a_damaged_head_that_freed_others_is_named_and_cut_off() {
    let (mut machine, newest) = freed_by_the_last_head();
    let whole = machine.recover().expect("recovers");
    machine.disk.flip(&segment(newest), 300, 1);
    let (path, offset, sentence) = machine.corruption();
    assert_eq!((path, offset), (segment(newest), 0), "{sentence}");
    machine.cut_corrupt = true;
    let found = machine.recover().expect("recovers");
    assert!(
        found.entries.ends_with(&whole.entries),
        "nothing of it was in that segment"
    );
    assert!(
        found
            .chain
            .cut
            .is_some_and(|cut| cut.is_corruption && cut.path == segment(newest))
    );
    // A start that crashes before its first head must not have removed what explains the rest.
    machine.removes_void = true;
    machine.disk.hold_writes(true);
    let running = machine.try_start().expect("not frozen");
    running.scheduler.settle();
    running.lose_power(&machine.disk);
    let running = machine.start();
    assert!(machine.history.entries.borrow().ends_with(&whole.entries));
    fill(&running, 5, 1, 1000);
    running.close();
    machine.cut_corrupt = false;
    machine.start().close();
}

#[test]
fn a_damaged_head_with_batches_behind_it_is_named_though_it_freed_others() {
    let (machine, newest) = killed();
    for byte in [3, 20, 30, 100, 200] {
        machine.disk.flip(&segment(newest), byte, 1);
        let (path, offset, sentence) = machine.corruption();
        assert_eq!((path, offset), (segment(newest), 0), "{sentence}");
        machine.disk.flip(&segment(newest), byte, 1);
    }
}
