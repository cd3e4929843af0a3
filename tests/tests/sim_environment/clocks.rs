//! The clocks of a simulated machine go wrong as told, and in no other way.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ostrakon::env::Env;
use ostrakon_tests::sim::clock::WALL_START_US;
use ostrakon_tests::sim::{CrashStyle, Fault, FaultAction, FaultKind, HostId, World};

use crate::support::{SECOND_NS, run, start};

/// What the clocks of a host show: the monotonic one in nanoseconds, the error of the wall clock in microseconds.
fn read(world: &World, host: HostId) -> (u64, i64) {
    let clock = world.client_env(host).clock;
    let true_us = WALL_START_US + world.now_ns() / 1000;
    (
        clock.monotonic().0,
        clock.wall().0.cast_signed() - true_us.cast_signed(),
    )
}

/// Lets time pass in a world where nothing else happens.
fn pass(world: &World, duration_ns: u64) {
    let end_ns = world.now_ns() + duration_ns;
    world.at(end_ns, |_| ());
    world.run_for(duration_ns);
    assert_eq!(world.now_ns(), end_ns);
}

fn inflict(world: &World, host: HostId, kind: FaultAction) {
    world.inflict(&Fault { at_ns: 0, host, kind });
}

#[test]
fn offsets_and_jumps_move_the_wall_clock_of_one_host_and_nothing_else() {
    let world = World::new(31);
    let (host, other) = (world.add_host("one"), world.add_host("other"));
    assert_eq!((read(&world, host).1, read(&world, other).1), (0, 0));
    let mut expected_us = 0;
    let offset = |by_us| FaultAction::ClockOffset { by_us };
    let jump = |by_us| FaultAction::ClockJump { by_us };
    for (kind, by_us) in [
        (offset(7_000_001), 7_000_001),
        (offset(-9_000_000), -9_000_000),
        (jump(3_600_000_000), 3_600_000_000),
        (jump(-5_400_000_000), -5_400_000_000),
    ] {
        let before = read(&world, host);
        inflict(&world, host, kind);
        expected_us += by_us;
        assert_eq!(read(&world, host), (before.0, expected_us), "at once");
        pass(&world, 10 * SECOND_NS);
        let after = (before.0 + 10 * SECOND_NS, expected_us);
        assert_eq!(read(&world, host), after, "it goes at the right rate");
        assert_eq!(read(&world, other).1, 0);
    }
    world.heal();
    assert_eq!(read(&world, host).1, expected_us, "healing sets no clock");
    assert_eq!(world.counters().get(FaultKind::ClockOffset), 2);
    assert_eq!(world.counters().get(FaultKind::ClockJump), 2);
}

#[test]
fn drift_runs_the_wall_clock_wrong_until_healed() {
    for ppm in [-200_000, 100, 100_000] {
        let world = World::new(32);
        let host = world.add_host("one");
        inflict(&world, host, FaultAction::ClockDrift { ppm });
        let before = read(&world, host);
        assert_eq!(before.1, 0, "drift is no jump");
        pass(&world, 100 * SECOND_NS);
        // Parts per million of 100 seconds: that many times 100 microseconds.
        assert_eq!(read(&world, host), (before.0 + 100 * SECOND_NS, ppm * 100));
        world.heal();
        pass(&world, 100 * SECOND_NS);
        assert_eq!(read(&world, host).1, ppm * 100, "what it is off stays");
        assert_eq!(world.counters().get(FaultKind::ClockDrift), 1);
    }
}

#[test]
fn a_wrong_rate_of_the_monotonic_clock_makes_timers_late_or_early() {
    for (ppm, true_ns) in [(-500_000, 20 * SECOND_NS), (1_000_000, 5 * SECOND_NS)] {
        let world = World::new(33);
        let host = world.add_host("one");
        inflict(&world, host, FaultAction::MonotonicRate { ppm });
        let before = world.now_ns();
        run(&world, host, 1, |env: Env<()>| async move {
            let before = env.clock.monotonic();
            env.tasks.sleep(Duration::from_secs(10)).await;
            let slept_ns = env.clock.monotonic().since_ns(before);
            assert!(
                (10 * SECOND_NS..10 * SECOND_NS + 10_000_000).contains(&slept_ns),
                "{slept_ns}"
            );
        });
        let passed_ns = world.now_ns() - before;
        assert!(
            (true_ns..true_ns + 10_000_000).contains(&passed_ns),
            "{passed_ns}"
        );
        assert_eq!(read(&world, host).1, 0, "the wall clock has a rate of its own");
        assert_eq!(world.counters().get(FaultKind::MonotonicRate), 1);
    }
}

#[test]
fn a_power_loss_starts_the_monotonic_clock_anew_and_a_kill_does_not() {
    let world = World::new(34);
    let host = world.add_host("one");
    inflict(&world, host, FaultAction::ClockOffset { by_us: 5 });
    pass(&world, 100 * SECOND_NS);
    let times: Rc<RefCell<Vec<u64>>> = Rc::default();
    for style in [CrashStyle::ProcessKill, CrashStyle::PowerLoss] {
        let before = read(&world, host);
        let seen = Rc::clone(&times);
        start(&world, host, 1, move |env: Env<()>| {
            let seen = Rc::clone(&seen);
            async move { seen.borrow_mut().push(env.clock.monotonic().0) }
        });
        pass(&world, SECOND_NS);
        start(&world, host, 1, |env: Env<()>| async move {
            env.tasks.sleep(Duration::from_secs(1000)).await;
        });
        world.crash(host, style);
        let after = read(&world, host);
        assert_eq!(after.1, 5, "the wall clock has a battery");
        match style {
            CrashStyle::ProcessKill => assert_eq!(after.0, before.0 + SECOND_NS),
            CrashStyle::PowerLoss => assert!(after.0 <= SECOND_NS, "{}", after.0),
        }
    }
    assert_eq!(times.borrow().len(), 2);
}
