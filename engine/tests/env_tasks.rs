//! Scheduling on the real environment: timers beside a busy task, priorities, wakes from other threads,
//! panics.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand on both sides of the seam"
)]

mod support;

use std::cell::Cell;
use std::fs;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use ostrakon::env::foreign;
use ostrakon::env::glommio::{RuntimeConfig, StartError, start};
use ostrakon::env::local::Notify;
use ostrakon::env::tasks::yield_now;
use ostrakon::env::{CoreId, Env, Priority};
use support::{data_dir, poll_once, run, try_run, until};

/// Computes without end, yielding as it should, and counts the slices it got.
async fn busy<B>(env: Env<B>, slices: Rc<Cell<u64>>, stop: Rc<Cell<bool>>) {
    while !stop.get() {
        std::hint::black_box((0..100_u64).product::<u64>());
        if env.tasks.should_yield() {
            slices.set(slices.get() + 1);
            yield_now().await;
        }
    }
}

/// CPU time that a thread of this process has used. Unlike wall time it doesn't grow with the load of the
/// machine that runs the test.
fn cpu_time(thread: i32) -> Duration {
    // The kernel's number for the clock of a thread: CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED.
    let clock = (!thread << 3) | 6;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is valid for one timespec.
    assert_eq!(unsafe { libc::clock_gettime(clock, &raw mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn this_thread() -> i32 {
    // SAFETY: the call takes nothing and can't fail.
    unsafe { libc::gettid() }
}

#[test]
fn a_busy_core_keeps_its_timers() {
    run(1, |env: Env<()>| async move {
        let (slices, stop) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
        env.tasks.spawn(
            Priority::Foreground,
            Box::pin(busy(env.clone(), Rc::clone(&slices), Rc::clone(&stop))),
        );
        let before = cpu_time(this_thread());
        for _ in 0..20 {
            env.tasks.sleep(Duration::from_millis(5)).await;
        }
        let computed = cpu_time(this_thread()).saturating_sub(before);
        // With glommio's own slice of 100 ms it computes for 2 s and more.
        assert!(
            computed < Duration::from_millis(600),
            "computed {computed:?} in 20 sleeps of 5 ms"
        );
        stop.set(true);
    });
}

#[test]
fn a_busy_core_sees_messages_from_other_cores() {
    let busy_thread = Arc::new(AtomicI32::new(0));
    run(2, move |env: Env<Duration>| {
        let busy_thread = Arc::clone(&busy_thread);
        async move {
            let other = CoreId(1 - env.core.0);
            let (slices, stop) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
            if env.core.0 == 0 {
                busy_thread.store(this_thread(), Ordering::SeqCst);
                let task = busy(env.clone(), Rc::clone(&slices), Rc::clone(&stop));
                env.tasks.spawn(Priority::Foreground, Box::pin(task));
            } else {
                until(&env, "the other core computes", || {
                    busy_thread.load(Ordering::SeqCst) != 0
                })
                .await;
            }
            // Core 1 sends core 0's CPU time 20 times, which core 0 compares with its own on arrival.
            let mut computed = Duration::ZERO;
            for _ in 0..20 {
                if env.core.0 == 1 {
                    env.tasks.sleep(Duration::from_millis(2)).await;
                    env.mesh
                        .try_send(other, cpu_time(busy_thread.load(Ordering::SeqCst)))
                        .unwrap();
                }
                let mut sent = Duration::ZERO;
                poll_fn(|cx| env.mesh.poll_drain(cx, &mut |_, time| sent = time)).await;
                if env.core.0 == 0 {
                    computed += cpu_time(this_thread()).saturating_sub(sent);
                    env.mesh.try_send(other, Duration::ZERO).unwrap();
                }
            }
            assert!(
                computed < Duration::from_millis(600),
                "computed {computed:?} while 20 messages waited"
            );
            stop.set(true);
        }
    });
}

#[test]
fn background_work_gets_less_than_the_foreground_but_something() {
    run(1, |env: Env<()>| async move {
        let stop = Rc::new(Cell::new(false));
        let [foreground, background] = [Priority::Foreground, Priority::Background].map(|priority| {
            let slices = Rc::new(Cell::new(0));
            env.tasks.spawn(
                priority,
                Box::pin(busy(env.clone(), Rc::clone(&slices), Rc::clone(&stop))),
            );
            slices
        });
        while foreground.get() + background.get() < 400 {
            env.tasks.sleep(Duration::from_millis(20)).await;
        }
        stop.set(true);
        let (foreground, background) = (foreground.get(), background.get());
        assert!(background > 0, "the background starves");
        assert!(
            foreground > 2 * background,
            "{foreground} slices against {background}"
        );
    });
}

#[test]
fn spawn_does_not_run_the_task_inside_the_call() {
    run(1, |env: Env<()>| async move {
        let ran = Rc::new(Cell::new(false));
        for priority in [Priority::Foreground, Priority::Background] {
            ran.set(false);
            let in_task = Rc::clone(&ran);
            env.tasks
                .spawn(priority, Box::pin(async move { in_task.set(true) }));
            assert!(!ran.get());
            until(&env, "the task has run", || ran.get()).await;
        }
    });
}

/// Waits until the kernel says that a thread of this process sleeps.
fn wait_until_parked(thread: i32) {
    let path = format!("/proc/self/task/{thread}/stat");
    loop {
        let stat = fs::read_to_string(&path).expect("the core's thread lives");
        let state = stat.rsplit(") ").next().expect("the name ends in a bracket");
        if state.starts_with('S') {
            return;
        }
        thread::yield_now();
    }
}

#[test]
fn a_foreign_thread_wakes_a_parked_core_promptly() {
    const ROUNDS: usize = 200;
    run(1, |_: Env<()>| async move {
        let core = this_thread();
        let (sender, mut receiver) = foreign::channel::<Instant>();
        let (answered, answers) = mpsc::channel();
        let thread = thread::spawn(move || {
            for _ in 0..ROUNDS {
                wait_until_parked(core);
                sender.send(Instant::now()).unwrap();
                answers.recv().unwrap();
            }
            sender
        });
        let mut delays = Vec::new();
        for _ in 0..ROUNDS {
            delays.push(receiver.recv().await.elapsed());
            answered.send(()).unwrap();
        }
        delays.sort();
        assert!(
            delays[ROUNDS / 2] < Duration::from_millis(20),
            "median {:?}",
            delays[ROUNDS / 2]
        );
        let sender = thread.join().unwrap();
        drop(receiver);
        assert!(sender.send(Instant::now()).is_err(), "the receiver is gone");
    });
}

#[test]
fn a_million_polls_of_a_foreign_channel_and_a_notify_leave_no_trace() {
    run(1, |_: Env<()>| async move {
        let (sender, mut receiver) = foreign::channel::<u32>();
        let notify = Notify::default();
        {
            let (mut item, mut notified) = (pin!(receiver.recv()), pin!(notify.notified()));
            for poll in 0..1_000_000_u32 {
                assert!(poll_once(|cx| item.as_mut().poll(cx)).await.is_none());
                assert!(poll_once(|cx| notified.as_mut().poll(cx)).await.is_none());
                if poll % 1000 == 0 {
                    yield_now().await;
                }
            }
            thread::spawn(move || sender.send(7).unwrap());
            assert_eq!(item.await, 7);
            notify.notify();
            notified.await;
        }
    });
}

#[test]
fn sleeps_last_as_long_as_they_should_and_may_be_dropped() {
    run(1, |env: Env<()>| async move {
        let before = env.clock.monotonic();
        env.tasks.sleep(Duration::from_millis(30)).await;
        let slept_ns = env.clock.monotonic().since_ns(before);
        assert!(slept_ns >= 29_000_000, "{slept_ns} ns");
        for _ in 0..100_000 {
            let mut sleep = env.tasks.sleep(Duration::from_hours(1));
            assert!(poll_once(|cx| sleep.as_mut().poll(cx)).await.is_none());
        }
        // A sleep counts from its making, not from its first poll.
        let sleep = env.tasks.sleep(Duration::from_millis(20));
        env.tasks.sleep(Duration::from_millis(40)).await;
        let before = env.clock.monotonic();
        sleep.await;
        assert!(env.clock.monotonic().since_ns(before) < 15_000_000);
    });
}

#[test]
fn a_panic_on_one_core_is_reported_while_the_others_go_on() {
    for in_a_task in [false, true] {
        let directory = data_dir();
        let config = RuntimeConfig::new(2, directory.path());
        let outcome = try_run(config, move |env: Env<()>| async move {
            if env.core.0 == 0 {
                // Waits for core 1 for ever, as a core does that lost its peer.
                return std::future::pending().await;
            }
            if in_a_task {
                env.tasks.spawn(
                    Priority::Background,
                    Box::pin(async { panic!("broken invariant {}", 7) }),
                );
                return std::future::pending().await;
            }
            panic!("broken invariant {}", 7);
        });
        let error = outcome.unwrap_err();
        assert_eq!(error.to_string(), "core 1 panicked: broken invariant 7");
    }
}

#[test]
fn a_configuration_that_cannot_work_is_refused_with_its_reason() {
    let directory = data_dir();
    let good = RuntimeConfig::new(1, directory.path());
    let start_with = |config| start(config, |_: Env<()>| async {}).map(drop).unwrap_err();

    let none = start_with(RuntimeConfig {
        cores: 0,
        ..good.clone()
    });
    assert_eq!(none.to_string(), "a node needs at least one core");
    let missing = start_with(RuntimeConfig {
        data_dir: directory.path().join("missing"),
        ..good.clone()
    });
    assert!(matches!(missing, StartError::DataDir { .. }), "{missing}");
    let cpu = start_with(RuntimeConfig {
        cores: 3,
        cpus: Some(vec![0, 4095]),
        ..good.clone()
    });
    assert!(matches!(&cpu, StartError::Core { core: CoreId(1), .. }), "{cpu}");
    assert!(cpu.to_string().contains("CPU 4095"), "{cpu}");
    assert!(start(good, |_: Env<()>| async {}).unwrap().join().is_ok());
}

#[test]
fn cores_draw_different_random_numbers() {
    let (report, reports) = mpsc::channel();
    run(2, move |env: Env<()>| {
        let report = report.clone();
        async move {
            report
                .send((env.random.next_u64(), env.random.next_u64()))
                .unwrap();
        }
    });
    let mut drawn: Vec<u64> = reports
        .iter()
        .flat_map(|(first, second)| [first, second])
        .collect();
    drawn.sort_unstable();
    drawn.dedup();
    assert_eq!(drawn.len(), 4);
}

#[test]
fn spinning_cores_work_like_parked_ones() {
    let directory = data_dir();
    let mut config = RuntimeConfig::new(2, directory.path());
    config.spin_before_park = Some(Duration::from_micros(50));
    let outcome = try_run(config, |env: Env<u64>| async move {
        let other = CoreId(1 - env.core.0);
        for round in 0..1000 {
            if env.core.0 == 0 {
                env.mesh.try_send(other, round).unwrap();
            }
            poll_fn(|cx| env.mesh.poll_drain(cx, &mut |_, got| assert_eq!(got, round))).await;
            if env.core.0 == 1 {
                env.mesh.try_send(other, round).unwrap();
            }
        }
    });
    assert!(outcome.is_ok());
}
