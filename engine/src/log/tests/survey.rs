//! All damage of a log at once, told without changing a byte.

use super::freeing::write_until;
use super::harness::{LOG, Machine, data, disk_bytes, fill, segment};
use crate::env::disk::BLOCK_BYTES;
use crate::env::testing::memory_disk::Fate;
use crate::env::testing::scheduler::Scheduler;
use crate::env::{Disk, Tasks};
use crate::log::format::BatchHeader;
use crate::log::survey::{Surveyed, survey};

fn three_boots() -> Machine {
    boots(3)
}

fn boots(boots: u64) -> Machine {
    let mut machine = Machine::new(6);
    for _ in 0..boots {
        let running = machine.start();
        fill(&running, 6, 1, 1000);
        running.lose_power(&machine.disk);
    }
    machine
}

fn surveyed(machine: &Machine) -> Surveyed {
    let files = machine.disk.files();
    let contents: Vec<Vec<u8>> = files.iter().map(|path| machine.disk.content(path)).collect();
    let scheduler = Scheduler::default();
    let (data, seams) = (data(), (&machine.disk as &dyn Disk, &scheduler as &dyn Tasks));
    let looked = survey(seams, &data, LOG, machine.segment_bytes);
    let surveyed = scheduler.run(looked).expect("it ends").expect("all can be read");
    assert_eq!(machine.disk.files(), files, "nothing is removed or made");
    for (path, content) in files.iter().zip(contents) {
        assert_eq!(machine.disk.content(path), content);
    }
    assert_eq!(machine.disk.open_files(), 0);
    surveyed
}

/// All batches of the chain but the last, with their segments.
fn covered(machine: &Machine) -> Vec<(u64, BatchHeader)> {
    let chain = machine.recover().expect("recovers").chain;
    let mut batches = Vec::new();
    for found in &chain.segments {
        let sequence = found.sequence.0;
        let own = machine.batches(sequence).into_iter();
        let own = own.filter(|batch| batch.offset < found.end_offset && batch.number != chain.last_batch);
        batches.extend(own.map(|batch| (sequence, batch)));
    }
    batches
}

#[test]
fn a_whole_log_has_no_damage_and_half_made_segments_stay() {
    let machine = three_boots();
    let half_made = data().join("log/0003/00000000000000ff.tmp");
    machine.disk.put_file(&half_made, vec![0; 4096]);
    let surveyed = surveyed(&machine);
    assert!(surveyed.damages.is_empty());
    assert!(surveyed.chain.segments.len() > 1);
    assert!(machine.disk.files().contains(&half_made));
}

#[test]
fn each_flipped_batch_is_found_where_a_start_finds_it() {
    let machine = three_boots();
    for (sequence, batch) in covered(&machine) {
        for place in [0, 5, 30, 79, 90, batch.content_bytes() - 1] {
            let at = batch.offset as usize + place;
            machine.disk.flip(&segment(sequence), at, (place % 8) as u32);
            let found = surveyed(&machine).damages;
            let (path, offset, _) = machine.corruption();
            assert_eq!(found.len(), 1, "segment {sequence}, {at}: {found:?}");
            assert_eq!((&found[0].path, found[0].offset), (&path, offset));
            assert_eq!((path, offset), (segment(sequence), batch.offset));
            machine.disk.flip(&segment(sequence), at, (place % 8) as u32);
        }
    }
}

#[test]
fn all_damage_is_found_and_what_counts_is_what_lies_before_it() {
    let machine = three_boots();
    let batches = covered(&machine);
    let hit: Vec<&(u64, BatchHeader)> = batches.iter().skip(1).step_by(3).collect();
    assert!(hit.len() > 3, "{}", batches.len());
    for (number, (sequence, batch)) in hit.iter().enumerate() {
        // In turn the header, the records, and all of it lost.
        let start = batch.offset as usize;
        let lost = start..start + disk_bytes(batch) as usize;
        machine.disk.edit(&segment(*sequence), |bytes| match number % 3 {
            0 => bytes[start + 40] ^= 4,
            1 => bytes[start + 100] ^= 4,
            _ => bytes[lost].fill(0),
        });
    }
    let surveyed = surveyed(&machine);
    let mut found: Vec<_> = surveyed
        .damages
        .iter()
        .map(|damage| (damage.path.clone(), damage.offset))
        .collect();
    let (path, offset, _) = machine.corruption();
    assert_eq!(
        found[0],
        (path, offset),
        "the first is the one that a start names"
    );
    found.sort();
    let mut expected: Vec<_> = hit
        .iter()
        .map(|(sequence, batch)| (segment(*sequence), batch.offset))
        .collect();
    expected.sort();
    assert_eq!(found, expected);
    let (first, _) = hit[0];
    assert!(
        surveyed
            .chain
            .segments
            .iter()
            .all(|found| found.sequence.0 <= *first)
    );
}

#[test]
fn missing_and_foreign_segments_are_named_besides_other_damage() {
    let machine = boots(5);
    let batches = covered(&machine);
    let mut sequences: Vec<u64> = batches.iter().map(|(sequence, _)| *sequence).collect();
    sequences.dedup();
    assert!(sequences.len() > 6, "{sequences:?}");
    // What follows the missing one names it; what follows the short one begins anew.
    let (missing, flipped, short) = (sequences[1], sequences[2], sequences[4]);
    machine.disk.take_file(&segment(missing));
    let content = machine.disk.content(&segment(short));
    machine
        .disk
        .put_file(&segment(short), content[..content.len() - 4096].to_vec());
    let in_flipped = batches.iter().rfind(|(sequence, _)| *sequence == flipped);
    let (_, batch) = in_flipped.expect("it has a batch that is covered");
    machine
        .disk
        .flip(&segment(flipped), batch.offset as usize + 90, 0);
    let found = surveyed(&machine).damages;
    for sequence in [missing, short, flipped] {
        let of_segment = found.iter().filter(|damage| damage.path == segment(sequence));
        assert_eq!(of_segment.count(), 1, "segment {sequence}: {found:?}");
    }
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn what_a_damaged_newest_head_has_freed_is_not_missed() {
    let mut machine = Machine::new(6);
    let running = machine.start();
    write_until(&running, 0, 3);
    running.flush_all();
    write_until(&running, 0, 4);
    fill(&running, 2, 1, 100);
    running.lose_power(&machine.disk);
    let found = machine.recover().expect("recovers");
    machine.remove_void(&found.chain);
    let needed = found.sequences();
    assert!(needed.len() == 2 && needed[0] > 1, "{needed:?}");
    machine.disk.flip(&segment(needed[1]), 100, 1);
    let (path, offset, sentence) = machine.corruption();
    assert_eq!((path, offset), (segment(needed[1]), 0), "{sentence}");
    let found = surveyed(&machine).damages;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0].path, found[0].offset), (&segment(needed[1]), 0));
}

#[test]
fn a_batch_behind_a_hole_is_void_though_the_head_is_lost_that_says_so() {
    let mut machine = Machine::new(16);
    let running = machine.start();
    fill(&running, 4, 2, 50);
    machine.disk.hold_writes(true);
    running.write(0, 50);
    running.write(1, 50);
    assert_eq!(machine.disk.in_flight().len(), 2);
    running.kill();
    let mut fates = [Fate::Lost, Fate::Whole].into_iter();
    machine
        .disk
        .power_loss(false, |_| fates.next().expect("two writes"));
    let running = machine.start();
    fill(&running, 8, 1, 50);
    running.lose_power(&machine.disk);
    assert!(surveyed(&machine).damages.is_empty());
    let newest = machine.recover().expect("recovers").chain.segments.pop();
    let newest = segment(newest.expect("it has a segment").sequence.0);
    machine.disk.edit(&newest, |bytes| bytes[..BLOCK_BYTES].fill(0));
    let found = surveyed(&machine).damages;
    let places: Vec<_> = found.iter().map(|damage| (&damage.path, damage.offset)).collect();
    assert_eq!(places, [(&newest, 0)], "{found:?}");
}
