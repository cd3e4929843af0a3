//! The mesh of the real environment: order and completeness under back-pressure, bounds, more cores than
//! CPUs.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand on both sides of the seam"
)]

mod support;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ostrakon::env::tasks::yield_now;
use ostrakon::env::{CoreId, Env, Priority};
use support::{park_once, poll_once, run, until};

/// Sends the numbers `0..count` to `to`, waiting for room when there is none. Returns how often it waited.
async fn send_numbers(env: &Env<u64>, to: CoreId, count: u64) -> u64 {
    let mut waits = 0;
    for number in 0..count {
        let mut batch = number;
        while let Err(back) = env.mesh.try_send(to, batch) {
            assert_eq!(back, number, "the batch itself comes back");
            batch = back;
            waits += 1;
            poll_fn(|cx| env.mesh.poll_room(cx, to)).await;
        }
    }
    waits
}

/// Drains until `count` numbers have come from each other core, and checks their order.
async fn receive_numbers(env: &Env<u64>, count: u64) {
    let mut next = vec![0; usize::from(env.cores)];
    let mut missing = count * (u64::from(env.cores) - 1);
    while missing > 0 {
        poll_fn(|cx| {
            env.mesh.poll_drain(cx, &mut |from, number| {
                assert_ne!(from, env.core);
                assert_eq!(number, next[from.index()], "from core {}", from.0);
                next[from.index()] += 1;
                missing -= 1;
            })
        })
        .await;
        if env.tasks.should_yield() {
            yield_now().await;
        }
    }
}

/// Every core sends `count` numbers to every other core, all at once.
fn flood(cores: u16, count: u64) -> u64 {
    let all_waits = Arc::new(AtomicU64::new(0));
    let waits = Arc::clone(&all_waits);
    run(cores, move |env: Env<u64>| {
        let all_waits = Arc::clone(&waits);
        async move {
            let sending = Rc::new(Cell::new(env.cores - 1));
            for to in (0..env.cores).map(CoreId).filter(|to| *to != env.core) {
                let (task_env, sending, all_waits) =
                    (env.clone(), Rc::clone(&sending), Arc::clone(&all_waits));
                let task = async move {
                    all_waits.fetch_add(send_numbers(&task_env, to, count).await, Ordering::Relaxed);
                    sending.set(sending.get() - 1);
                };
                env.tasks.spawn(Priority::Foreground, Box::pin(task));
            }
            receive_numbers(&env, count).await;
            until(&env, "this core has sent everything", || sending.get() == 0).await;
            assert!(
                poll_once(|cx| env.mesh.poll_drain(cx, &mut |_, _| {}))
                    .await
                    .is_none(),
                "a duplicate"
            );
        }
    });
    all_waits.load(Ordering::Relaxed)
}

#[test]
fn two_cores_that_flood_each_other_lose_and_reorder_nothing() {
    let waits = flood(2, 500_000);
    assert!(waits > 100, "back-pressure was met only {waits} times");
}

#[test]
fn more_cores_than_cpus_exchange_everything_too() {
    flood(6, 5_000);
}

/// glommio parks an executor with runnable tasks when its thread lost the CPU at the wrong moment. Without
/// the environment's pulse this test hangs in two runs of five.
#[test]
fn cores_that_lose_their_cpu_do_not_sleep_over_their_tasks() {
    const SHORT: Duration = Duration::from_secs(2);
    let stop = Arc::new(AtomicBool::new(false));
    let burners: Vec<_> = (0..3 * thread::available_parallelism().unwrap().get())
        .map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    run(2, move |env: Env<Option<u64>>| async move {
        let to = CoreId(1 - env.core.0);
        let (start, mut rounds, mut last) = (Instant::now(), 0, false);
        if env.core.0 == 0 {
            env.mesh.try_send(to, Some(0)).unwrap();
        }
        while !last {
            let mut received = None;
            let before = Instant::now();
            poll_fn(|cx| env.mesh.poll_drain(cx, &mut |_, ball| received = ball)).await;
            assert!(
                before.elapsed() < Duration::from_secs(5),
                "stalled in round {rounds}"
            );
            rounds += 1;
            last = received.is_none() || start.elapsed() > SHORT;
            let ball = if last { None } else { received.map(|ball| ball + 1) };
            // The other core has ended already if it sent the end.
            if received.is_some() {
                env.mesh.try_send(to, ball).unwrap();
            }
        }
        assert!(rounds > 20, "{rounds} rounds in {SHORT:?}");
    });
    stop.store(true, Ordering::Relaxed);
    for burner in burners {
        burner.join().unwrap();
    }
}

/// What fits between two cores when the receiver does not drain: the channel, one in the hand of the receiver's
/// forwarding task, and the inbox.
const LANE_BATCHES: u64 = 256 + 1 + 256;

/// Sends numbers from 0 until the lane to a core that does not drain is full; returns how many went in.
async fn fill(env: &Env<u64>, to: CoreId) -> u64 {
    let accepted = Cell::new(0);
    // The receiver's forwarding task goes on for a moment after the first refusal.
    until(env, "the lane is full", || {
        while env.mesh.try_send(to, accepted.get()).is_ok() {
            accepted.set(accepted.get() + 1);
        }
        accepted.get() >= LANE_BATCHES
    })
    .await;
    assert_eq!(accepted.get(), LANE_BATCHES);
    accepted.get()
}

#[test]
fn a_receiver_that_does_not_drain_stops_its_sender_and_then_gets_everything() {
    let full = Arc::new(AtomicBool::new(false));
    run(2, move |env: Env<u64>| {
        let full = Arc::clone(&full);
        async move {
            if env.core.0 == 1 {
                until(&env, "the sender has met its bound", || {
                    full.load(Ordering::SeqCst)
                })
                .await;
                return receive_numbers(&env, 2000).await;
            }
            let to = CoreId(1);
            let accepted = fill(&env, to).await;
            // More would be taken only by a receiver that took a batch away: it had its chance.
            for _ in 0..20 {
                park_once(&env).await;
                assert_eq!(env.mesh.try_send(to, accepted), Err(accepted));
            }
            assert!(poll_once(|cx| env.mesh.poll_room(cx, to)).await.is_none());
            full.store(true, Ordering::SeqCst);
            poll_fn(|cx| env.mesh.poll_room(cx, to)).await;
            let mut number = accepted;
            while number < 2000 {
                match env.mesh.try_send(to, number) {
                    Ok(()) => number += 1,
                    Err(_) => poll_fn(|cx| env.mesh.poll_room(cx, to)).await,
                }
            }
        }
    });
}

#[test]
fn a_million_polls_of_the_mesh_leave_no_trace() {
    let polled = Arc::new(AtomicBool::new(false));
    run(2, move |env: Env<u64>| {
        let polled = Arc::clone(&polled);
        async move {
            if env.core.0 == 1 {
                for poll in 0..1_000_000_u32 {
                    let nothing = poll_once(|cx| env.mesh.poll_drain(cx, &mut |_, _| {})).await;
                    assert!(nothing.is_none());
                    if poll % 1000 == 0 {
                        yield_now().await;
                    }
                }
                polled.store(true, Ordering::SeqCst);
                // The other core has filled the channel; it polls for room meanwhile.
                return receive_numbers(&env, 2000).await;
            }
            until(&env, "the receiver has polled", || polled.load(Ordering::SeqCst)).await;
            send_numbers(&env, CoreId(1), 2000).await;
        }
    });
}

#[test]
fn a_million_polls_for_room_leave_no_trace() {
    let polled = Arc::new(AtomicBool::new(false));
    run(2, move |env: Env<u64>| {
        let polled = Arc::clone(&polled);
        async move {
            if env.core.0 == 1 {
                until(&env, "the sender has polled", || polled.load(Ordering::SeqCst)).await;
                return receive_numbers(&env, 1000).await;
            }
            let to = CoreId(1);
            let mut number = fill(&env, to).await;
            for _ in 0..1_000_000 {
                assert!(poll_once(|cx| env.mesh.poll_room(cx, to)).await.is_none());
            }
            polled.store(true, Ordering::SeqCst);
            while number < 1000 {
                poll_fn(|cx| env.mesh.poll_room(cx, to)).await;
                number += u64::from(env.mesh.try_send(to, number).is_ok());
            }
        }
    });
}

#[test]
fn batches_that_nobody_drains_do_not_keep_the_cores_from_ending() {
    run(2, |env: Env<Vec<u8>>| async move {
        let to = CoreId(1 - env.core.0);
        let last = RefCell::new(None);
        while last.borrow().is_none() {
            *last.borrow_mut() = env.mesh.try_send(to, vec![1; 1000]).err();
        }
    });
}

#[test]
fn a_core_does_not_send_to_itself() {
    let directory = support::data_dir();
    let config = ostrakon::env::glommio::RuntimeConfig::new(1, directory.path());
    let outcome = support::try_run(config, |env: Env<()>| async move {
        let _never_returns = env.mesh.try_send(CoreId(0), ());
    });
    assert_eq!(
        outcome.unwrap_err().message,
        "core 0 sends to itself through the mesh"
    );
}
