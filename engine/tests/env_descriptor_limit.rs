//! Running out of descriptors: the accept error is reported, without a busy loop, and accepting goes on when
//! there is room again. The limit belongs to the process, so this test has a binary of its own.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand on both sides of the seam"
)]

mod support;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use ostrakon::env::Env;
use support::{ANY_PORT, accept, client, poll_once, run};

fn set_descriptor_limit(limit: u64) -> u64 {
    let mut old = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointers are valid for one rlimit.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut old), 0);
        let new = libc::rlimit {
            rlim_cur: limit,
            rlim_max: old.rlim_max,
        };
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const new), 0);
    }
    old.rlim_cur
}

#[test]
fn an_exhausted_descriptor_table_is_reported_and_survived() {
    run(1, |env: Env<()>| async move {
        let listener = env.network.listen(ANY_PORT).unwrap();
        // One descriptor is left, and the client takes it.
        let free = File::open("/dev/null").unwrap().as_raw_fd();
        let old = set_descriptor_limit(free as u64 + 1);
        let stream = client(listener.local_address());
        let error = accept(&*listener).await.map(drop).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");

        let (start, mut errors) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_millis(500) {
            if let Some(outcome) = poll_once(|cx| listener.poll_accept(cx)).await {
                assert!(outcome.is_err());
                errors += 1;
            }
            env.tasks.sleep(Duration::from_millis(1)).await;
        }
        assert!((1..=15).contains(&errors), "{errors} tries in half a second");

        set_descriptor_limit(old);
        while accept(&*listener).await.is_err() {}
        drop(stream);
    });
}
