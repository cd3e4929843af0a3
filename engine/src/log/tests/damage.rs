//! Damage that no crash explains: recovery refuses, and names the file and the batch.

use super::harness::{Machine, disk_bytes, fill, segment};
use crate::env::disk::BLOCK_BYTES;
use crate::log::format::{BatchHeader, BatchNumber};

/// A log of several segments that was killed at rest, of three boots.
fn three_boots() -> Machine {
    let mut machine = Machine::new(6);
    for _ in 0..3 {
        let running = machine.start();
        fill(&running, 6, 1, 1000);
        running.lose_power(&machine.disk);
    }
    machine
}

fn segments_of(machine: &Machine) -> Vec<u64> {
    let found = machine.recover().expect("recovers");
    found
        .chain
        .segments
        .iter()
        .map(|segment| segment.sequence.0)
        .collect()
}

#[test]
fn a_lost_batch_that_was_covered_is_corruption() {
    let machine = three_boots();
    let last = machine.recover().expect("recovers").chain.last_batch;
    for sequence in segments_of(&machine) {
        let whole = machine.disk.content(&segment(sequence));
        for batch in machine.batches(sequence) {
            let range = batch.offset as usize..(batch.offset + disk_bytes(&batch)) as usize;
            machine
                .disk
                .edit(&segment(sequence), |bytes| bytes[range].fill(0));
            if batch.number == last {
                machine.recover().expect("a torn tail");
            } else {
                let (path, offset, sentence) = machine.corruption();
                assert_eq!((path, offset), (segment(sequence), batch.offset), "{sentence}");
                assert!(sentence.contains("--cut-corrupt-log"), "{sentence}");
            }
            machine
                .disk
                .edit(&segment(sequence), |bytes| bytes.copy_from_slice(&whole));
        }
    }
}

#[test]
fn the_last_covered_batch_is_corruption_and_the_first_uncovered_one_a_torn_tail() {
    // Batches 2 and 3 in flight together, then 4 alone: 3 says "durable through 1", 4 says "through 3".
    let mut machine = Machine::new(16);
    let running = machine.start();
    machine.disk.hold_writes(true);
    running.write(0, 50);
    running.write(1, 50);
    machine.disk.end_write(0, Ok(()));
    machine.disk.end_write(1, Ok(()));
    running.scheduler.settle();
    running.write(2, 50);
    machine.disk.end_write(0, Ok(()));
    running.scheduler.settle();
    running.kill();
    machine.disk.hold_writes(false);
    let through: Vec<u64> = machine
        .batches(1)
        .iter()
        .map(|batch| batch.durable_through.0)
        .collect();
    assert_eq!(through, [0, 1, 1, 3]);
    let flipped = |batch: usize| {
        machine.disk.flip(&segment(1), batch * BLOCK_BYTES + 100, 0);
        let outcome = machine.recover();
        machine.disk.flip(&segment(1), batch * BLOCK_BYTES + 100, 0);
        outcome.map(|found| found.chain.last_batch)
    };
    assert!(
        flipped(1).is_err() && flipped(2).is_err(),
        "batch 4 says that 2 and 3 were durable"
    );
    assert_eq!(flipped(3).expect("a torn tail"), BatchNumber(3));
    machine.disk.edit(&segment(1), |bytes| {
        bytes[3 * BLOCK_BYTES..4 * BLOCK_BYTES].fill(0);
    });
    assert_eq!(
        flipped(1).expect("a torn tail"),
        BatchNumber(1),
        "batch 3 says nothing of batch 2"
    );
    assert_eq!(flipped(2).expect("a torn tail"), BatchNumber(2));
}

#[test]
fn damage_to_records_names_the_shards_and_damage_to_a_header_all() {
    let mut machine = Machine::new(16);
    let running = machine.start();
    for _ in 0..2 {
        running.append(0, 50);
        running.append(2, 50);
        running.drain();
    }
    running.close();
    machine.disk.flip(&segment(1), BLOCK_BYTES + 120, 3);
    let (_, offset, sentence) = machine.corruption();
    assert_eq!(offset, BLOCK_BYTES as u64);
    assert!(
        sentence.contains("batch 2: record checksum: expected 0x"),
        "{sentence}"
    );
    assert!(
        sentence.contains("shards 0, 2 may have lost acknowledged writes"),
        "{sentence}"
    );
    machine.disk.flip(&segment(1), BLOCK_BYTES + 120, 3);
    machine.disk.flip(&segment(1), BLOCK_BYTES + 50, 3);
    let (_, _, sentence) = machine.corruption();
    assert!(
        sentence.contains("any shard of this log may have lost"),
        "{sentence}"
    );
}

#[test]
fn a_missing_segment_in_the_middle_is_corruption() {
    let machine = three_boots();
    let sequences = segments_of(&machine);
    assert!(sequences.len() >= 5);
    for sequence in &sequences[..sequences.len() - 1] {
        let whole = machine.disk.content(&segment(*sequence));
        machine.disk.take_file(&segment(*sequence));
        let (path, offset, sentence) = machine.corruption();
        assert_eq!((path, offset), (segment(*sequence), 0), "{sentence}");
        assert!(sentence.contains("missing"), "{sentence}");
        machine.disk.put_file(&segment(*sequence), whole);
    }
}

#[test]
fn a_damaged_head_is_corruption_wherever_later_batches_cover_it() {
    let machine = three_boots();
    for sequence in segments_of(&machine) {
        for byte in [3, 30, 100, 200] {
            machine.disk.flip(&segment(sequence), byte, 1);
            let (path, offset, sentence) = machine.corruption();
            assert_eq!((path, offset), (segment(sequence), 0), "{sentence}");
            machine.disk.flip(&segment(sequence), byte, 1);
        }
    }
}

#[test]
fn a_damaged_head_is_named_although_its_successor_covers_it_only() {
    // The next segment's head was written while the last batch of this one was in flight.
    let mut machine = Machine::new(5);
    let running = machine.start();
    fill(&running, 3, 1, 50);
    running.write(0, 50);
    machine.disk.hold_writes(true);
    running.write(1, 50);
    running.write(1, 50);
    machine.disk.end_write(0, Ok(()));
    running.scheduler.settle();
    fill_two(&machine, &running);
    running.kill();
    machine
        .disk
        .power_loss(false, |_| crate::env::testing::memory_disk::Fate::Whole);
    let last = machine.batches(3);
    assert_eq!(last.len(), 1, "a head alone");
    assert!(
        last[0].durable_through.0 + 1 < last[0].number.0,
        "which does not cover the batch before it"
    );
    for edit in [None, Some(100)] {
        let whole = machine.disk.content(&segment(2));
        match edit {
            Some(byte) => machine.disk.flip(&segment(2), byte, 1),
            None => machine.disk.take_file(&segment(2)),
        }
        let (path, offset, sentence) = machine.corruption();
        assert_eq!((path, offset), (segment(2), 0), "{sentence}");
        if edit.is_none() {
            machine.disk.put_file(&segment(2), whole);
        }
    }
}

/// Writes until the head of segment 3 is in flight together with the last batch of segment 2.
fn fill_two(machine: &Machine, running: &super::harness::Running) {
    for _ in 0..20 {
        let in_flight = machine.disk.in_flight();
        if in_flight.len() == 2 && in_flight[1].path == segment(3) {
            return;
        }
        if in_flight.len() == 2 {
            machine.disk.end_write(0, Ok(()));
            running.scheduler.settle();
        }
        running.write(1, 50);
    }
    panic!("segment 3 was not begun: {:?}", machine.disk.in_flight());
}

#[test]
fn a_segment_file_of_another_length_is_corruption() {
    let machine = three_boots();
    for sequence in segments_of(&machine) {
        let whole = machine.disk.content(&segment(sequence));
        for length in [
            0,
            1,
            BLOCK_BYTES,
            whole.len() - 1,
            whole.len() + 1,
            whole.len() + BLOCK_BYTES,
        ] {
            machine
                .disk
                .edit(&segment(sequence), |bytes| bytes.resize(length, 0));
            let (path, _, sentence) = machine.corruption();
            assert_eq!(path, segment(sequence), "{sentence}");
            let expected = format!("expected a segment file of {} bytes, found {length}", whole.len());
            assert!(sentence.contains(&expected), "{sentence}");
            machine
                .disk
                .edit(&segment(sequence), |bytes| bytes.clone_from(&whole));
        }
    }
}

#[test]
fn another_length_is_corruption_even_if_nothing_covers_the_last_batch() {
    // The last batch of a segment and the head of the next were in flight together.
    let mut machine = Machine::new(4);
    let running = machine.start();
    running.write(0, 50);
    machine.disk.hold_writes(true);
    running.write(1, 50);
    running.write(2, 50);
    running.kill();
    machine
        .disk
        .power_loss(false, |_| crate::env::testing::memory_disk::Fate::Whole);
    let head = machine.batches(2)[0];
    assert!(head.durable_through.0 + 1 < head.number.0);
    machine
        .disk
        .edit(&segment(1), |bytes| bytes.truncate(3 * BLOCK_BYTES));
    assert_eq!(machine.corruption().0, segment(1));
}

#[test]
fn a_segment_of_another_log_or_another_name_is_refused_wherever_it_lies() {
    let machine = three_boots();
    let foreign = {
        let mut other = Machine::new(6);
        let running = other.start();
        fill(&running, 3, 1, 1000);
        running.lose_power(&other.disk);
        let mut bytes = other.disk.content(&segment(1));
        for batch in other.batches(1) {
            let header = BatchHeader {
                log: crate::log::format::LogId(4),
                ..batch
            };
            let at = batch.offset as usize;
            let directory = crate::log::format::directory(&bytes[at..], &header);
            crate::log::format::finish_batch(&mut bytes[at..], &header, &directory);
        }
        bytes
    };
    let sequences = segments_of(&machine);
    let misplaced = machine.disk.content(&segment(sequences[1]));
    for sequence in &sequences {
        let whole = machine.disk.content(&segment(*sequence));
        for (wrong, says) in [(&foreign, "log 4, segment 1"), (&misplaced, "log 3, segment 2")] {
            if *sequence == sequences[1] && says.ends_with('2')
                || *sequence == 1 && says.ends_with("4, segment 2")
            {
                continue;
            }
            machine
                .disk
                .edit(&segment(*sequence), |bytes| bytes.clone_from(wrong));
            let (path, offset, sentence) = machine.corruption();
            assert_eq!((path, offset), (segment(*sequence), 0), "{sentence}");
            assert!(sentence.contains(says), "{sentence}");
        }
        machine
            .disk
            .edit(&segment(*sequence), |bytes| bytes.clone_from(&whole));
    }
}

#[test]
fn a_misdirected_batch_is_refused() {
    // One write landed on another batch's place: its own place keeps zeros.
    let mut machine = Machine::new(16);
    let running = machine.start();
    fill(&running, 6, 1, 50);
    running.close();
    machine.disk.edit(&segment(1), |bytes| {
        bytes.copy_within(2 * BLOCK_BYTES..3 * BLOCK_BYTES, 4 * BLOCK_BYTES);
    });
    let (path, offset, _) = machine.corruption();
    assert_eq!((path, offset), (segment(1), 4 * BLOCK_BYTES as u64));
}
