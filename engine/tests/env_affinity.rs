//! Cores run on the CPUs that the affinity mask allows, so `taskset` and cpusets work. The mask is inherited
//! by threads, so this test has a binary of its own.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand on both sides of the seam"
)]

mod support;

use std::mem;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use ostrakon::env::Env;
use support::run;

fn mask_of_this_thread() -> Vec<usize> {
    // SAFETY: an empty mask is valid; the pointer is valid for the size given.
    unsafe {
        let mut mask: libc::cpu_set_t = mem::zeroed();
        assert_eq!(
            libc::sched_getaffinity(0, mem::size_of_val(&mask), &raw mut mask),
            0
        );
        (0..libc::CPU_SETSIZE as usize)
            .filter(|cpu| libc::CPU_ISSET(*cpu, &mask))
            .collect()
    }
}

fn pin_this_thread(cpu: usize) {
    // SAFETY: an empty mask is valid; the pointer is valid for the size given.
    unsafe {
        let mut mask: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(cpu, &mut mask);
        assert_eq!(
            libc::sched_setaffinity(0, mem::size_of_val(&mask), &raw const mask),
            0
        );
    }
}

/// The masks of three cores started from a thread with the current mask, by core.
fn masks_of_cores() -> Vec<Vec<usize>> {
    let (report, reports) = mpsc::channel();
    run(3, move |env: Env<()>| {
        let report = report.clone();
        async move {
            report.send((env.core, mask_of_this_thread())).unwrap();
            // The helper thread works under the mask too.
            env.disk.free_bytes(Path::new("/")).await.unwrap();
        }
    });
    let mut masks: Vec<_> = reports.iter().collect();
    masks.sort();
    masks.into_iter().map(|(_, mask)| mask).collect()
}

#[test]
fn cores_are_pinned_to_the_allowed_cpus_in_turn() {
    let allowed = mask_of_this_thread();
    let expected: Vec<_> = (0..3).map(|core| vec![allowed[core % allowed.len()]]).collect();
    assert_eq!(masks_of_cores(), expected);

    for cpu in allowed {
        let masks = thread::spawn(move || {
            pin_this_thread(cpu);
            masks_of_cores()
        });
        assert_eq!(masks.join().unwrap(), vec![vec![cpu]; 3]);
    }
}
