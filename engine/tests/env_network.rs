//! Connections of the real environment: transfer both ways, shutdown, hand-over between cores, endless
//! polling.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand on both sides of the seam"
)]

mod support;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use ostrakon::env::local::Notify;
use ostrakon::env::network::DetachedConnection;
use ostrakon::env::tasks::yield_now;
use ostrakon::env::{Connection, Env, Priority};
use support::{
    ANY_PORT, accept, client, counting_waits, echo, is_closed, on_a_thread, park_once, poll_once, receive,
    round_trip, run, send, until,
};

/// Remembers that it was woken.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn many_clients_are_echoed_on_one_core() {
    run(1, |env: Env<()>| async move {
        let listener = env.network.listen(ANY_PORT).unwrap();
        let address = listener.local_address();
        assert_ne!(address.port(), 0);
        let clients = thread::spawn(move || {
            let mut streams: Vec<_> = (0..50).map(|_| client(address)).collect();
            for round in 0..20_u8 {
                for (number, stream) in streams.iter_mut().enumerate() {
                    let request = vec![round ^ number as u8; 1 + number * 97];
                    assert_eq!(round_trip(stream, &request), request);
                }
            }
        });
        for _ in 0..50 {
            let connection = accept(&*listener).await.unwrap();
            assert!(connection.peer_address().ip().is_loopback());
            env.tasks.spawn(Priority::Foreground, Box::pin(echo(connection)));
        }
        on_a_thread(&env, move || clients.join().unwrap()).await;
    });
}

#[test]
fn a_send_larger_than_the_socket_buffers_waits_for_the_reader() {
    run(1, |env: Env<()>| async move {
        let listener = env.network.listen(ANY_PORT).unwrap();
        let address = listener.local_address();
        let (read_now, reading) = mpsc::channel::<()>();
        let reader = thread::spawn(move || {
            let mut stream = client(address);
            reading.recv().unwrap();
            let mut whole = Vec::new();
            stream.read_to_end(&mut whole).unwrap();
            whole
        });
        let connection = accept(&*listener).await.unwrap();
        let bytes: Vec<u8> = (0..32_u32 << 20).map(|number| (number % 251) as u8).collect();
        let mut sent_bytes = 0;
        // Until the kernel takes no more.
        while let Some(sent) = poll_once(|cx| connection.poll_send(cx, &bytes[sent_bytes..])).await {
            sent_bytes += sent.unwrap();
        }
        assert!(
            sent_bytes > 0 && sent_bytes < bytes.len(),
            "{sent_bytes} bytes fit into the buffers"
        );
        read_now.send(()).unwrap();
        send(&*connection, &bytes[sent_bytes..]).await.unwrap();
        connection.shutdown();
        let read = on_a_thread(&env, move || reader.join().unwrap()).await;
        assert!(read == bytes, "{} of {} bytes arrived", read.len(), bytes.len());
    });
}

#[test]
fn shutdown_ends_a_pending_receive_and_a_pending_send() {
    run(1, |env: Env<()>| async move {
        let listener = env.network.listen(ANY_PORT).unwrap();
        let mut stream = client(listener.local_address());
        let connection = accept(&*listener).await.unwrap();
        let ends = Rc::new(RefCell::new(Vec::new()));
        let [receive_waits, send_waits] = [(); 2].map(|()| Rc::new(Cell::new(0)));
        {
            let (connection, ends) = (Rc::clone(&connection), Rc::clone(&ends));
            let task = async move {
                let received = receive(&*connection).await.unwrap();
                assert!(received.is_empty());
                ends.borrow_mut().push("receive");
            };
            let task = counting_waits(Rc::clone(&receive_waits), task);
            env.tasks.spawn(Priority::Foreground, Box::pin(task));
        }
        {
            let (connection, ends) = (Rc::clone(&connection), Rc::clone(&ends));
            let task = async move {
                let error = send(&*connection, &vec![0; 64 << 20]).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
                ends.borrow_mut().push("send");
            };
            let task = counting_waits(Rc::clone(&send_waits), task);
            env.tasks.spawn(Priority::Foreground, Box::pin(task));
        }
        until(&env, "both tasks wait", || {
            receive_waits.get() > 0 && send_waits.get() > 0
        })
        .await;
        park_once(&env).await;
        assert!(ends.borrow().is_empty());
        connection.shutdown();
        connection.shutdown();
        until(&env, "both sides have ended", || ends.borrow().len() == 2).await;
        assert!(receive(&*connection).await.unwrap().is_empty());
        assert_eq!(
            send(&*connection, b"x").await.unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
        let closed = on_a_thread(&env, move || {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).is_ok() || is_closed(&mut stream)
        });
        assert!(closed.await, "the client sees the end");
    });
}

#[test]
fn a_receive_sees_the_peer_close_and_a_callback_may_shut_down() {
    run(1, |env: Env<()>| async move {
        let listener = env.network.listen(ANY_PORT).unwrap();
        let mut stream = client(listener.local_address());
        let connection = accept(&*listener).await.unwrap();
        stream.write_all(b"hello").unwrap();
        assert_eq!(receive(&*connection).await.unwrap(), b"hello");
        drop(stream);
        assert!(receive(&*connection).await.unwrap().is_empty());

        let mut stream = client(listener.local_address());
        let (first, second) = (accept(&*listener).await.unwrap(), Cell::new(0));
        stream.write_all(b"bye").unwrap();
        let mut other = client(listener.local_address());
        let other_connection = accept(&*listener).await.unwrap();
        other.write_all(b"nested").unwrap();
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut inner = Context::from_waker(&waker);
        let early = other_connection.poll_recv(&mut inner, &mut |_| {});
        assert!(early.is_pending());
        until(&env, "the nested receive can go on", || {
            woken.0.load(Ordering::SeqCst)
        })
        .await;
        // While bytes are lent, the callback receives on another connection and ends its own.
        let received = poll_fn(|cx| {
            let mut inner = Context::from_waker(Waker::noop());
            first.poll_recv(cx, &mut |bytes| {
                assert_eq!(bytes, b"bye");
                let nested = other_connection.poll_recv(&mut inner, &mut |bytes| second.set(bytes.len()));
                assert!(matches!(nested, Poll::Ready(Ok(6))));
                assert_eq!(bytes, b"bye", "the nested receive has a buffer of its own");
                first.shutdown();
            })
        });
        assert_eq!(received.await.unwrap(), 3);
        assert_eq!(second.get(), 6);
        assert!(is_closed(&mut stream));
    });
}

#[test]
fn a_connection_moves_between_cores_with_its_stream_unbroken() {
    const REQUESTS: u32 = 400;
    run(2, |env: Env<DetachedConnection>| async move {
        let listener = if env.core.0 == 0 {
            let listener = env.network.listen(ANY_PORT).unwrap();
            let address = listener.local_address();
            let client = thread::spawn(move || {
                let mut stream = client(address);
                for number in 0..REQUESTS {
                    let request = number.to_le_bytes();
                    assert_eq!(round_trip(&mut stream, &request), request);
                }
            });
            let connection = accept(&*listener).await.unwrap();
            hand_around(&env, connection, REQUESTS).await;
            on_a_thread(&env, move || client.join().unwrap()).await;
            Some(listener)
        } else {
            let connection = take_over(&env).await;
            hand_around(&env, connection, REQUESTS).await;
            None
        };
        drop(listener);
    });
}

/// Answers one request, then gives the connection to the other core and waits for it to come back, until the
/// client has its last answer.
async fn hand_around(env: &Env<DetachedConnection>, mut connection: Rc<dyn Connection>, requests: u32) {
    let other = ostrakon::env::CoreId(1 - env.core.0);
    loop {
        let mut request = Vec::new();
        while request.len() < 4 {
            let bytes = receive(&*connection).await.unwrap();
            if bytes.is_empty() {
                // The client is done: end the other core's wait too.
                let last = connection.detach().unwrap();
                assert!(env.mesh.try_send(other, last).is_ok());
                return;
            }
            request.extend(bytes);
        }
        let number = u32::from_le_bytes(request.try_into().unwrap());
        assert_eq!(number % 2, u32::from(env.core.0), "the cores take turns");
        send(&*connection, &number.to_le_bytes()).await.unwrap();

        // A receive that pends on the old handle ends with the hand-over.
        let pending =
            poll_once(|cx| connection.poll_recv(cx, &mut |_| panic!("bytes on the old core"))).await;
        assert!(number + 1 == requests || pending.is_none() || matches!(pending, Some(Ok(0))));
        let peer = connection.peer_address();
        if number + 1 == requests {
            return;
        }
        let moved = connection.detach().unwrap();
        assert!(receive(&*connection).await.unwrap().is_empty());
        assert!(send(&*connection, b"x").await.is_err());
        assert!(connection.detach().is_err());
        assert!(env.mesh.try_send(other, moved).is_ok());
        if number + 2 == requests {
            return;
        }
        connection = take_over(env).await;
        assert_eq!(connection.peer_address(), peer);
    }
}

async fn take_over(env: &Env<DetachedConnection>) -> Rc<dyn Connection> {
    let mut arrived = None;
    poll_fn(|cx| {
        env.mesh
            .poll_drain(cx, &mut |_, detached| arrived = Some(detached))
    })
    .await;
    env.network.adopt(arrived.unwrap()).unwrap()
}

#[test]
fn a_connection_lost_between_cores_is_closed() {
    run(1, |env: Env<()>| async move {
        let listener = env.network.listen(ANY_PORT).unwrap();
        let mut stream = client(listener.local_address());
        let connection = accept(&*listener).await.unwrap();
        drop(connection.detach().unwrap());
        assert!(on_a_thread(&env, move || is_closed(&mut stream)).await);
    });
}

#[test]
fn detach_wakes_a_pending_receive() {
    run(1, |env: Env<()>| async move {
        let listener = env.network.listen(ANY_PORT).unwrap();
        let _stream = client(listener.local_address());
        let connection = accept(&*listener).await.unwrap();
        let ended = Rc::new(Cell::new(false));
        let (waiting, end) = (Rc::clone(&connection), Rc::clone(&ended));
        let task = async move {
            assert!(receive(&*waiting).await.unwrap().is_empty());
            end.set(true);
        };
        let waits = Rc::new(Cell::new(0));
        let task = counting_waits(Rc::clone(&waits), task);
        env.tasks.spawn(Priority::Foreground, Box::pin(task));
        until(&env, "the task waits", || waits.get() > 0).await;
        park_once(&env).await;
        let detached = connection.detach().unwrap();
        until(&env, "the receive has ended", || ended.get()).await;
        drop(detached);
    });
}

#[test]
fn detach_wakes_a_receive_that_the_kernel_has_not_seen_yet() {
    run(1, |env: Env<()>| async move {
        let listener = env.network.listen(ANY_PORT).unwrap();
        let mut stream = client(listener.local_address());
        let connection = accept(&*listener).await.unwrap();
        let (read, ended) = (Rc::new(Notify::default()), Rc::new(Cell::new(false)));
        let (waiting, in_task, end) = (Rc::clone(&connection), Rc::clone(&read), Rc::clone(&ended));
        let task = async move {
            assert_eq!(receive(&*waiting).await.unwrap(), b"x");
            in_task.notify();
            assert!(receive(&*waiting).await.unwrap().is_empty());
            end.set(true);
        };
        env.tasks.spawn(Priority::Foreground, Box::pin(task));
        stream.write_all(b"x").unwrap();
        // This task runs next, in the same turn as the second receive.
        read.notified().await;
        let detached = connection.detach().unwrap();
        until(&env, "the receive has ended", || ended.get()).await;
        drop(detached);
    });
}

#[test]
fn a_million_polls_of_one_source_leave_no_trace() {
    run(1, |env: Env<()>| async move {
        let listener = env.network.listen(ANY_PORT).unwrap();
        let mut stream = client(listener.local_address());
        let connection = accept(&*listener).await.unwrap();
        for poll in 0..1_000_000_u32 {
            assert!(poll_once(|cx| listener.poll_accept(cx)).await.is_none());
            assert!(
                poll_once(|cx| connection.poll_recv(cx, &mut |_| {}))
                    .await
                    .is_none()
            );
            if poll % 1000 == 0 {
                yield_now().await;
            }
        }
        stream.write_all(b"still here").unwrap();
        assert_eq!(receive(&*connection).await.unwrap(), b"still here");
        let _second = client(listener.local_address());
        accept(&*listener).await.unwrap();
    });
}

#[test]
fn both_address_families_listen_and_a_taken_port_is_refused() {
    run(2, |env: Env<std::net::SocketAddr>| async move {
        let other = ostrakon::env::CoreId(1 - env.core.0);
        if env.core.0 == 0 {
            let listener = env.network.listen("[::1]:0".parse().unwrap()).unwrap();
            let mut stream = client(listener.local_address());
            let connection = accept(&*listener).await.unwrap();
            assert!(connection.peer_address().is_ipv6());
            stream.write_all(b"six").unwrap();
            assert_eq!(receive(&*connection).await.unwrap(), b"six");

            let taken = std::net::TcpListener::bind(ANY_PORT).unwrap();
            let refused = env
                .network
                .listen(taken.local_addr().unwrap())
                .map(drop)
                .unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);

            let shared = env.network.listen(ANY_PORT).unwrap();
            env.mesh.try_send(other, shared.local_address()).unwrap();
            let mut back = None;
            poll_fn(|cx| env.mesh.poll_drain(cx, &mut |_, address| back = Some(address))).await;
            assert_eq!(back, Some(shared.local_address()));
        } else {
            let mut address = None;
            poll_fn(|cx| env.mesh.poll_drain(cx, &mut |_, arrived| address = Some(arrived))).await;
            // The second core of a node listens on the same address.
            let listener = env.network.listen(address.unwrap()).unwrap();
            env.mesh.try_send(other, listener.local_address()).unwrap();
        }
    });
}
