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

/// Entries of several sizes, some alone, some together, over several segments. With `flushes`, most shards are flushed
/// now and then, so that segments are freed and used again.
fn append_some(running: &Running, entries: u32, flushes: bool) -> bool {
    for entry in 0..entries {
        running.append(entry % SHARDS, 40 + entry as usize * 97 % 1500);
        match entry % 7 {
            0 | 1 | 4 => running.scheduler.settle(),
            6 if !running.try_drain() => return false,
            _ => {}
        }
        match entry % 7 {
            1 | 4 if flushes => running.flush(entry % SHARDS),
            6 if flushes => running.flush_all(),
            _ => {}
        }
    }
    running.try_drain()
}

/// A new log, a restart after a kill, and a restart after a clean end. False when the disk froze. `recycled` counts the
/// segments that were used again.
fn workload(machine: &mut Machine, flushes: bool, recycled: &mut u64) -> bool {
    machine.removes_void = flushes;
    let mut boot = || {
        let running = machine.try_start()?;
        append_some(&running, 22, flushes).then_some(running)
    };
    let Some(killed) = boot() else { return false };
    *recycled += killed.log.statistics().segments_recycled;
    killed.kill();
    let Some(ended) = boot() else { return false };
    *recycled += ended.log.statistics().segments_recycled;
    if ended.scheduler.run(ended.log.close()).is_none() {
        return false;
    }
    drop(ended);
    boot().is_some()
}

/// Starts, writes, loses power, three times: each start checks the history.
fn live_on(machine: &mut Machine, flushes: bool) {
    for round in 0..3 {
        let running = machine.start();
        assert!(append_some(&running, round * 2, flushes));
        running.lose_power(&machine.disk);
    }
    machine.start().close();
    let found = machine.recover().expect("recovers");
    assert!(found.chain.sealed);
    assert!(machine.history.entries.borrow().ends_with(&found.entries));
    assert!(flushes || found.entries.len() == machine.history.entries.borrow().len());
}

#[test]
fn at_every_operation_with_every_fate() {
    let mut whole = Machine::new(6);
    assert!(workload(&mut whole, false, &mut 0));
    let operations = whole.disk.operations();
    let segments = whole.recover().expect("recovers").chain.segments.len();
    assert!(segments >= 6, "{segments} segments");
    crash_everywhere(operations, false);
}

#[test]
fn at_every_operation_with_every_fate_while_segments_are_freed_and_used_again() {
    let mut whole = Machine::new(6);
    let mut recycled = 0;
    assert!(workload(&mut whole, true, &mut recycled));
    assert!(recycled >= 4, "{recycled} segments");
    crash_everywhere(whole.disk.operations(), true);
}

fn crash_everywhere(operations: u64, flushes: bool) {
    assert!(operations > 200, "{operations} operations");
    let mut uncertain = 0;
    for operation in 0..operations {
        for (number, policy) in POLICIES.iter().enumerate() {
            let mut machine = Machine::new(6);
            machine.disk.freeze_at(operation.max(machine.disk.operations()));
            assert!(!workload(&mut machine, flushes, &mut 0), "frozen at {operation}");
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
            live_on(&mut machine, flushes);
        }
    }
    assert!(uncertain > 100, "crashes with two writes in flight: {uncertain}");
    println!("{operations} operations, {uncertain} crashes with two writes in flight");
}
