//! No descriptor leaks: over a thousand connections, by closing a listener, with a full accept queue. The
//! tests count the descriptors of the process, so they run one after the other.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand on both sides of the seam"
)]

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use ostrakon::env::Env;
use ostrakon::env::tasks::yield_now;
use support::{
    ANY_PORT, accept, client, is_closed, on_a_thread, open_descriptors, park_once, poll_once, receive, run,
    until,
};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_thousand_connections_leave_no_descriptor() {
    let _alone = alone();
    run(1, |env: Env<()>| async move {
        let before_listen = open_descriptors();
        let listener = env.network.listen(ANY_PORT).unwrap();
        let address = listener.local_address();
        let before = open_descriptors();
        assert_eq!(before, before_listen + 1);
        let clients = thread::spawn(move || {
            for _ in 0..1000 {
                let mut stream = client(address);
                stream.write_all(b"x").unwrap();
                assert!(is_closed(&mut stream));
            }
        });
        for _ in 0..1000 {
            let connection = accept(&*listener).await.unwrap();
            assert_eq!(receive(&*connection).await.unwrap(), b"x");
        }
        on_a_thread(&env, move || clients.join().unwrap()).await;
        until(&env, "all connections are closed", || {
            open_descriptors() == before
        })
        .await;
        listener.close();
        until(&env, "the listener is closed", || {
            open_descriptors() == before_listen
        })
        .await;
    });
}

#[test]
fn a_closed_listener_refuses_and_stays_silent() {
    let _alone = alone();
    run(1, |env: Env<()>| async move {
        let before = open_descriptors();
        let listener = env.network.listen(ANY_PORT).unwrap();
        let address = listener.local_address();
        drop(client(address));
        accept(&*listener).await.unwrap();
        // The accept waits in the ring then.
        park_once(&env).await;
        listener.close();
        listener.close();
        assert!(TcpStream::connect(address).is_err(), "nobody listens");
        until(&env, "the descriptor is closed", || open_descriptors() == before).await;
        for _ in 0..100 {
            assert!(poll_once(|cx| listener.poll_accept(cx)).await.is_none());
            yield_now().await;
        }
        // The port can be used at once.
        let again = env.network.listen(address).unwrap();
        drop(client(address));
        accept(&*again).await.unwrap();
        drop((listener, again));
        until(&env, "dropping the second has closed it", || {
            open_descriptors() == before
        })
        .await;
    });
}

#[test]
fn closing_ends_the_connections_that_nobody_took() {
    let _alone = alone();
    run(1, |env: Env<()>| async move {
        let before = open_descriptors();
        let listener = env.network.listen(ANY_PORT).unwrap();
        let address = listener.local_address();
        let mut clients: Vec<_> = (0..300).map(|_| client(address)).collect();
        // The queue is bounded: 128 are accepted, the others wait in the kernel.
        until(&env, "the queue is full", || {
            open_descriptors() >= before + 1 + 300 + 128
        })
        .await;
        // A listener that went on accepting would do so whenever the core parks.
        for _ in 0..10 {
            park_once(&env).await;
        }
        assert_eq!(open_descriptors(), before + 1 + 300 + 128);
        let taken = accept(&*listener).await.unwrap();
        listener.close();
        until(&env, "all but the one taken are closed", || {
            open_descriptors() == before + 300 + 1
        })
        .await;
        let mut open: Vec<_> = clients.drain(1..).collect();
        let closed = on_a_thread(&env, move || {
            open.iter_mut().filter_map(|c| is_closed(c).then_some(())).count()
        });
        assert_eq!(closed.await, 299);
        clients[0].write_all(b"alive").unwrap();
        assert_eq!(receive(&*taken).await.unwrap(), b"alive");
        drop((Rc::clone(&taken), clients, taken));
        until(&env, "nothing is left", || open_descriptors() == before).await;
    });
}
