//! Flushes and merges write no faster than they may; what counts against memory.

use core::time::Duration;

use super::*;
use crate::env::pace::Pace;
use crate::env::{Clock, Priority, Tasks};

/// How long a future takes, as the scheduler counts time.
fn seconds(scheduler: &Scheduler, future: impl Future<Output = ()> + 'static) -> f64 {
    let begun = scheduler.monotonic();
    let is_done = Rc::new(Cell::new(false));
    let done = Rc::clone(&is_done);
    let task = async move {
        future.await;
        done.set(true);
    };
    scheduler.spawn(Priority::Background, Box::pin(task));
    scheduler.settle();
    while !is_done.get() {
        scheduler.advance(Duration::from_micros(10));
    }
    scheduler.monotonic().since_ns(begun) as f64 / 1e9
}

#[test]
fn a_flush_and_a_merge_take_the_time_that_their_bytes_take() {
    let rig = Rig::new(options(CompactionStrategy::Tiered));
    let shard = rig.open().expect("it is new");
    let env = shard.files.env();
    for pace in [&env.flush_pace, &env.merge_pace] {
        pace.set_bytes_per_second(1 << 20);
    }
    let mut timestamp = 0;
    let mut run_bytes = 0;
    // Some are smaller than one write, and some are not.
    for keys in [40, 1000, 700] {
        for number in 0..keys {
            timestamp += 1;
            shard.insert(&key(number), timestamp, &(Some(noise(timestamp, 300)), None));
        }
        shard.seal(timestamp, Vec::new());
        let flushing = Rc::clone(&shard);
        let took = seconds(&rig.scheduler, async move {
            flushing.flush(0).await.expect("nothing fails here");
        });
        let bytes = shard.tables().tree().young[0][0].bytes as f64;
        run_bytes += bytes as u64;
        let expected = bytes / f64::from(1 << 20);
        assert!(
            (took - expected).abs() < 0.005,
            "{keys} keys took {took} s, expected {expected} s"
        );
    }
    let inputs = shard.tables().tree().tables().map(|info| info.number).collect();
    let choice = Choice {
        reason: ostrakon_core::lsm::Reason::Size,
        inputs,
        output: ostrakon_core::lsm::Place::Young,
        is_move: false,
    };
    let merging = Rc::clone(&shard);
    let took = seconds(&rig.scheduler, async move {
        merging
            .merge(&choice, 0, &|| true)
            .await
            .expect("nothing fails here");
    });
    let tables = shard.tables();
    assert!(tables.tree().bytes() > run_bytes, "many tables have more ends");
    let expected = tables.tree().bytes() as f64 / f64::from(1 << 20);
    assert!((took - expected).abs() < 0.005, "{took} s, expected {expected} s");
    // Without a bound it takes none.
    env.flush_pace.set_bytes_per_second(Pace::UNBOUNDED);
    shard.insert(&key(0), timestamp + 1, &(Some(noise(timestamp, 300_000)), None));
    shard.seal(timestamp + 1, Vec::new());
    let flushing = Rc::clone(&shard);
    let took = seconds(&rig.scheduler, async move {
        flushing.flush(0).await.expect("nothing fails here");
    });
    assert!(took < 1e-9, "{took} s");
}

#[test]
fn a_sealed_memtable_counts_its_own_records() {
    let mut store = Store::default();
    let record = |number: u64| (number.to_be_bytes().to_vec(), None);
    let own: OwnRecords = (0..1000).map(record).collect();
    let empty_bytes = store.memory_bytes();
    let held_bytes = own.len() * (size_of::<(Vec<u8>, Option<Vec<u8>>)>() + 8);
    store.seal(entry(1), own);
    assert_eq!(store.sealed_bytes(), empty_bytes + held_bytes);
    assert_eq!(store.memory_bytes(), store.sealed_bytes() + empty_bytes);
    store.flushed(Rc::default());
    assert_eq!(store.memory_bytes(), empty_bytes);
}
