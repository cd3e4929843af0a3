//! The way out that a user asks for: the log is cut at the damage, and goes on from there.

use super::harness::{Machine, fill, segment};
use crate::env::disk::BLOCK_BYTES;

/// A sealed log of several segments.
fn sealed() -> Machine {
    let mut machine = Machine::new(6);
    let running = machine.start();
    fill(&running, 12, 1, 1000);
    running.close();
    machine
}

/// Starts with the damage cut off; afterwards the log must be whole without the option.
fn cut(machine: &mut Machine) -> (usize, String) {
    machine.cut_corrupt = true;
    let found = machine.recover().expect("recovers");
    let cut = found.chain.cut.clone().expect("says what it cut");
    assert!(cut.is_corruption);
    let sentence = format!("{} at {}: {}", cut.path.display(), cut.offset, cut.finding);
    let running = machine.start();
    assert_eq!(machine.history.entries.borrow().len(), found.entries.len());
    fill(&running, 5, 1, 1000);
    machine.remove_void(&found.chain);
    running.close();
    machine.cut_corrupt = false;
    machine.start().close();
    (found.entries.len(), sentence)
}

#[test]
fn cuts_at_a_damaged_batch_and_recovers_what_is_before_it() {
    for batch in 1..4 {
        let mut machine = sealed();
        machine.disk.flip(&segment(2), batch * BLOCK_BYTES + 90, 2);
        let (_, offset, _) = machine.corruption();
        let before = machine.batches(1).len() - 1 + batch - 1;
        let (kept, sentence) = cut(&mut machine);
        assert_eq!(kept, before);
        assert!(
            sentence.starts_with(&format!("{} at {offset}: batch ", segment(2).display())),
            "{sentence}"
        );
    }
}

#[test]
fn cuts_before_a_segment_that_is_missing_damaged_at_its_head_or_of_another_length() {
    let damages: [fn(&Machine); 5] = [
        |machine| machine.disk.take_file(&segment(2)),
        |machine| machine.disk.flip(&segment(2), 10, 2),
        |machine| machine.disk.flip(&segment(2), 100, 2),
        |machine| machine.disk.edit(&segment(2), |bytes| bytes.truncate(5000)),
        |machine| machine.disk.edit(&segment(2), |bytes| bytes.push(0)),
    ];
    for damage in damages {
        let mut machine = sealed();
        damage(&machine);
        machine.corruption();
        let before = machine.batches(1).len() - 1;
        let (kept, sentence) = cut(&mut machine);
        assert_eq!(kept, before, "{sentence}");
        assert!(
            sentence.starts_with(&format!("{} at 0: ", segment(2).display())),
            "{sentence}"
        );
    }
}

#[test]
fn cuts_everything_when_the_first_head_is_damaged() {
    let mut machine = sealed();
    machine.disk.flip(&segment(1), 100, 2);
    machine.corruption();
    assert_eq!(cut(&mut machine).0, 0);
}

#[test]
fn a_segment_of_zeros_before_void_ones_is_void_too() {
    // The void ones keep their intact heads until they are removed. A start between the two must not take them
    // for the continuation of a new segment with a lower number.
    let mut machine = sealed();
    machine.disk.edit(&segment(2), |bytes| bytes.fill(0));
    machine.corruption();
    machine.cut_corrupt = true;
    let running = machine.start();
    fill(&running, 2, 1, 1000);
    running.lose_power(&machine.disk);
    machine.cut_corrupt = false;
    machine.start().close();
    machine.start().close();
}

#[test]
fn cuts_nothing_from_a_log_without_damage() {
    let mut machine = sealed();
    machine.cut_corrupt = true;
    let found = machine.recover().expect("recovers");
    assert_eq!((found.entries.len(), found.chain.cut), (12, None));
}
