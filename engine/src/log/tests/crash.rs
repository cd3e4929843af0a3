//! A crash at every operation of a workload: the disk freezes there, the power fails with each kind of fate
//! for what was in flight, and the node starts again, and again.

use super::harness::{Machine, Running, SHARDS};
use crate::env::testing::memory_disk::{Fate, InFlight};

/// What becomes of the writes in flight, by their place among them.
type Policy = fn(usize, &InFlight) -> Fate;

const POLICIES: [Policy; 8] = [
    |_, _| Fate::Lost,
    |_, _| Fate::Whole,
    |_, _| Fate::Cached,
    |place, _| if place == 0 { Fate::Lost } else { Fate::Whole },
    |place, _| if place == 0 { Fate::Whole } else { Fate::Lost },
    |place, _| if place == 0 { Fate::Lost } else { Fate::Cached },
    |_, _| Fate::Sectors(Box::new(|sector| sector % 3 != 1)),
    |place, _| {
        if place == 0 {
            Fate::Sectors(Box::new(|sector| sector > 0))
        } else {
            Fate::Whole
        }
    },
];

/// Entries of several sizes, some alone, some together, over several segments.
fn append_some(running: &Running, entries: u32) -> bool {
    for entry in 0..entries {
        running.append(entry % SHARDS, 40 + entry as usize * 97 % 1500);
        match entry % 7 {
            0 | 1 | 4 => running.scheduler.settle(),
            6 if !running.try_drain() => return false,
            _ => {}
        }
    }
    running.try_drain()
}

/// A new log, a restart after a kill, and a restart after a clean end. False when the disk froze.
fn workload(machine: &mut Machine) -> bool {
    let mut boot = || {
        let running = machine.try_start()?;
        append_some(&running, 22).then_some(running)
    };
    let Some(killed) = boot() else { return false };
    killed.kill();
    let Some(ended) = boot() else { return false };
    if ended.scheduler.run(ended.log.close()).is_none() {
        return false;
    }
    drop(ended);
    boot().is_some()
}

/// Starts, writes, loses power, three times: each start checks the history.
fn live_on(machine: &mut Machine) {
    for round in 0..3 {
        let running = machine.start();
        assert!(append_some(&running, round * 2));
        running.lose_power(&machine.disk);
    }
    machine.start().close();
    let found = machine.recover().expect("recovers");
    assert!(found.chain.sealed);
    assert_eq!(found.entries, *machine.history.entries.borrow());
}

#[test]
fn at_every_operation_with_every_fate() {
    let mut whole = Machine::new(6);
    assert!(workload(&mut whole));
    let operations = whole.disk.operations();
    let segments = whole.recover().expect("recovers").chain.segments.len();
    assert!(
        segments >= 6 && operations > 200,
        "{segments} segments, {operations} operations"
    );
    let mut uncertain = 0;
    for operation in 0..operations {
        for (number, policy) in POLICIES.iter().enumerate() {
            let mut machine = Machine::new(6);
            machine.disk.freeze_at(operation.max(machine.disk.operations()));
            assert!(!workload(&mut machine), "frozen at {operation}");
            assert!(machine.disk.is_frozen());
            let in_flight = machine.disk.in_flight().len();
            if in_flight == 0 && number > 1 {
                continue;
            }
            uncertain += usize::from(in_flight == 2);
            let mut place = 0;
            machine.disk.power_loss(number % 2 == 0, |write| {
                place += 1;
                policy(place - 1, write)
            });
            live_on(&mut machine);
        }
    }
    assert!(uncertain > 100, "crashes with two writes in flight: {uncertain}");
    println!("{operations} operations, {segments} segments, {uncertain} crashes with two writes in flight");
}
