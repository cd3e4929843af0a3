//! Cores, mesh and clocks of simulated processes, and what ends, stops and delays them.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use ostrakon::env::{CoreId, Env, Priority};
use ostrakon_tests::sim::{Fault, FaultAction, FaultKind, ProcessStatus, RunEnd, World};

use crate::support::{SECOND_NS, run, start};

#[test]
fn the_mesh_keeps_order_and_pushes_back_both_ways() {
    const COUNT: u64 = 3000;
    for seed in 0..5 {
        let world = World::new(seed);
        let host = world.add_host("one");
        let refused = Rc::new(Cell::new(0));
        let count = Rc::clone(&refused);
        run(&world, host, 3, move |env: Env<u64>| {
            let refused = Rc::clone(&count);
            async move {
                for peer in (0..env.cores).map(CoreId).filter(|peer| *peer != env.core) {
                    let (mesh, refused) = (Rc::clone(&env.mesh), Rc::clone(&refused));
                    let sender = async move {
                        for number in 0..COUNT {
                            while mesh.try_send(peer, number).is_err() {
                                refused.set(refused.get() + 1);
                                poll_fn(|cx| mesh.poll_room(cx, peer)).await;
                            }
                        }
                    };
                    env.tasks.spawn(Priority::Foreground, Box::pin(sender));
                }
                let mut next = vec![0; usize::from(env.cores)];
                while next.iter().sum::<u64>() < COUNT * 2 {
                    poll_fn(|cx| {
                        env.mesh.poll_drain(cx, &mut |from, number| {
                            assert_eq!(number, next[from.index()]);
                            next[from.index()] += 1;
                        })
                    })
                    .await;
                }
                // The others may still need this core's room.
                env.tasks.sleep(Duration::from_secs(1)).await;
            }
        });
        assert!(refused.get() > 0, "back-pressure was met");
    }
}

#[test]
fn clocks_go_wrong_as_told_and_pauses_and_stalls_stop_the_process() {
    let world = World::new(12);
    let host = world.add_host("one");
    let ticks = Rc::new(RefCell::new([Vec::new(), Vec::new()]));
    let log = Rc::clone(&ticks);
    start(&world, host, 2, move |env: Env<()>| {
        let log = Rc::clone(&log);
        async move {
            loop {
                env.tasks.sleep(Duration::from_millis(10)).await;
                log.borrow_mut()[env.core.index()].push((env.clock.monotonic().0, env.clock.wall().0));
            }
        }
    });
    let inflict = |kind: FaultAction| world.inflict(&Fault { at_ns: 0, host, kind });
    let count = |core: usize| ticks.borrow()[core].len();
    let last = || *ticks.borrow()[0].last().unwrap();
    world.run_for(SECOND_NS);
    let first = last();
    assert!((80..=100).contains(&count(0)), "{}", count(0));
    inflict(FaultAction::ClockJump { by_us: -5_000_000 });
    world.run_for(SECOND_NS);
    let second = last();
    assert!(second.0 > first.0 && second.1 < first.1);
    inflict(FaultAction::MonotonicRate { ppm: 500_000 });
    inflict(FaultAction::ClockDrift { ppm: -500_000 });
    world.run_for(2 * SECOND_NS);
    let third = last();
    assert!(
        (2_900_000_000..3_100_000_000).contains(&(third.0 - second.0)),
        "{}",
        third.0 - second.0
    );
    assert!(
        (900_000..1_100_000).contains(&(third.1 - second.1)),
        "{}",
        third.1 - second.1
    );

    let before = [count(0), count(1)];
    world.stall_core(host, 1, SECOND_NS);
    world.run_for(SECOND_NS / 2);
    assert!(count(0) > before[0] + 10 && count(1) <= before[1] + 1);
    let before = count(0);
    world.pause(host, 1000 * SECOND_NS);
    world.run_for(10 * SECOND_NS);
    assert!(count(0) <= before + 1);
    world.heal();
    world.run_for(SECOND_NS);
    assert!(
        count(0) > before + 50 && count(1) > before / 2,
        "healing ends pauses"
    );
    for kind in [
        FaultKind::ClockJump,
        FaultKind::ClockDrift,
        FaultKind::MonotonicRate,
        FaultKind::CoreStall,
        FaultKind::ProcessPause,
    ] {
        assert!(world.counters().get(kind) > 0, "{kind:?}");
    }
    world.end();
}

#[test]
fn a_panic_ends_the_process_and_is_reported() {
    let world = World::new(13);
    let host = world.add_host("one");
    let process = start(&world, host, 2, |env: Env<()>| async move {
        env.tasks
            .sleep(Duration::from_millis(u64::from(env.core.0) + 1))
            .await;
        assert!(env.core.0 == 1, "core {} found a bug", env.core.0);
    });
    assert_eq!(world.run_until(SECOND_NS, |_| false), RunEnd::Panicked);
    assert_eq!(world.process_status(process), ProcessStatus::Panicked);
    assert_eq!(world.panics()[0].message, "core 0 found a bug");
    assert_eq!(world.tasks(), 0);
    assert_eq!(world.run_until(SECOND_NS, |_| false), RunEnd::Idle);
}
