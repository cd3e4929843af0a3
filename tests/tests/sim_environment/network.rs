//! The simulated network carries every byte through all weather, and breaks connections as real ones break.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use ostrakon::env::network::DetachedConnection;
use ostrakon::env::{CoreId, Env, Priority};
use ostrakon_tests::sim::{
    CrashStyle, Fault, FaultAction, FaultAt, FaultAtKind, FaultKind, NetworkTrouble, ProcessStatus, RunEnd,
    World,
};

use crate::support::{
    SECOND_NS, accept, address, echo, make_file, path, receive, receive_exactly, run, send, start,
    start_echo, start_pings, write_durable,
};

#[test]
fn connections_carry_every_byte_in_bad_weather() {
    let world = World::new(6);
    let (server, client) = (world.add_host("server"), world.add_host("client"));
    start_echo(&world, server, 2);
    for trouble in [
        NetworkTrouble::Loss,
        NetworkTrouble::Duplicate,
        NetworkTrouble::Reorder,
        NetworkTrouble::Delay,
    ] {
        let kind = FaultAction::Network {
            trouble,
            per_thousand: 100,
            duration_ns: 1000 * SECOND_NS,
        };
        world.inflict(&Fault {
            at_ns: 0,
            host: client,
            kind,
        });
    }
    let done = Rc::new(Cell::new(0));
    for number in 0..10_u8 {
        let (env, done, connecting) = (
            world.clone(),
            Rc::clone(&done),
            world.connect(client, address(&world, server)),
        );
        world.spawn(client, async move {
            let connection = connecting.await.unwrap();
            let bytes: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8 ^ number).collect();
            let (reader, expected) = (Rc::clone(&connection), bytes.clone());
            let done = Rc::clone(&done);
            env.spawn(client, async move {
                assert!(
                    receive_exactly(&*reader, expected.len()).await == expected,
                    "a byte is wrong"
                );
                done.set(done.get() + 1);
            });
            send(&*connection, &bytes).await.unwrap();
        });
    }
    assert_eq!(
        world.run_until(900 * SECOND_NS, |_| done.get() == 10),
        RunEnd::Met,
        "{:?}",
        world.panics()
    );
    for kind in [
        FaultKind::SegmentLoss,
        FaultKind::SegmentDuplicate,
        FaultKind::SegmentReorder,
        FaultKind::DelaySpike,
    ] {
        assert!(world.counters().get(kind) > 0, "{kind:?}");
    }
    world.end();
}

#[test]
fn listeners_share_an_address_and_a_closed_one_refuses() {
    let world = World::new(7);
    let (server, client) = (world.add_host("server"), world.add_host("client"));
    let listen = address(&world, server);
    let accepted = Rc::new(RefCell::new([0, 0, 0]));
    let counts = Rc::clone(&accepted);
    start(&world, server, 3, move |env: Env<()>| {
        let counts = Rc::clone(&counts);
        async move {
            if env.core.0 == 0 {
                env.network.claim(listen).unwrap();
            }
            let listener = env.network.listen(listen).unwrap();
            let claimed = env.network.claim(listen).unwrap_err();
            assert_eq!(claimed.kind(), io::ErrorKind::AddrInUse);
            let any = env.network.listen("0.0.0.0:0".parse().unwrap()).unwrap();
            assert_ne!(any.local_address().port(), 0);
            assert!(env.network.listen("9.9.9.9:1".parse().unwrap()).is_err());
            loop {
                let connection = accept(&*listener).await;
                counts.borrow_mut()[env.core.index()] += 1;
                env.tasks.spawn(Priority::Foreground, Box::pin(echo(connection)));
            }
        }
    });
    world.run_for(SECOND_NS);
    let outcome: Rc<RefCell<Vec<io::ErrorKind>>> = Rc::default();
    let (tester, kinds) = (world.clone(), Rc::clone(&outcome));
    world.spawn(client, async move {
        for _ in 0..60 {
            let connection = tester.connect(client, listen).await.unwrap();
            send(&*connection, b"ping").await.unwrap();
            assert_eq!(receive_exactly(&*connection, 4).await, b"ping");
        }
        for to in ["10.0.0.1:1", "10.9.9.9:1"] {
            let refused = tester
                .connect(client, to.parse().unwrap())
                .await
                .map(drop)
                .unwrap_err();
            kinds.borrow_mut().push(refused.kind());
        }
    });
    assert_eq!(
        world.run_until(100 * SECOND_NS, |_| outcome.borrow().len() == 2),
        RunEnd::Met,
        "{:?}",
        world.panics()
    );
    assert_eq!(
        *outcome.borrow(),
        [io::ErrorKind::ConnectionRefused, io::ErrorKind::HostUnreachable]
    );
    assert!(accepted.borrow().iter().all(|count| *count > 5), "{accepted:?}");
    world.end();
}

#[test]
fn a_sender_waits_for_its_reader_and_a_closed_listener_resets_who_waits() {
    let world = World::new(8);
    let (server, client) = (world.add_host("server"), world.add_host("client"));
    let listen = address(&world, server);
    start(&world, server, 1, move |env: Env<()>| async move {
        let listener = env.network.listen(listen).unwrap();
        let connection = accept(&*listener).await;
        env.tasks.sleep(Duration::from_secs(5)).await;
        assert_eq!(receive_exactly(&*connection, 2_000_000).await, vec![5; 2_000_000]);
        assert!(
            receive(&*connection).await.unwrap().is_empty(),
            "the client has ended"
        );
        listener.close();
        let pending = poll_fn(|cx| std::task::Poll::Ready(listener.poll_accept(cx).is_pending())).await;
        assert!(pending);
    });
    let (tester, done) = (world.clone(), Rc::new(Cell::new(false)));
    let ended = Rc::clone(&done);
    world.spawn(client, async move {
        tester.sleep_until(1000).await;
        let connection = tester.connect(client, listen).await.unwrap();
        let waiting = tester.connect(client, listen).await.unwrap();
        send(&*connection, &vec![5; 2_000_000]).await.unwrap();
        assert!(tester.now_ns() > 5 * SECOND_NS, "it had to wait for the reader");
        connection.shutdown();
        assert!(receive(&*connection).await.unwrap().is_empty());
        assert_eq!(
            send(&*connection, b"x").await.unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
        assert_eq!(
            receive(&*waiting).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionReset
        );
        ended.set(true);
    });
    assert_eq!(
        world.run_until(100 * SECOND_NS, |_| done.get()),
        RunEnd::Met,
        "{:?}",
        world.panics()
    );
    world.end();
}

#[test]
fn a_connection_moves_between_cores_and_a_lost_one_is_closed() {
    let world = World::new(9);
    let (server, client) = (world.add_host("server"), world.add_host("client"));
    let listen = address(&world, server);
    start(
        &world,
        server,
        2,
        move |env: Env<(DetachedConnection, Vec<u8>)>| async move {
            if env.core.0 == 0 {
                let listener = env.network.listen(listen).unwrap();
                let connection = accept(&*listener).await;
                let mut received = receive_exactly(&*connection, 5).await;
                let rest = received.split_off(5);
                assert_eq!(received, b"first");
                let moved = connection.detach().unwrap();
                assert!(
                    receive(&*connection).await.unwrap().is_empty(),
                    "this handle is done"
                );
                assert!(connection.detach().is_err());
                assert!(env.mesh.try_send(CoreId(1), (moved, rest)).is_ok());
                let lost = accept(&*listener).await;
                drop(lost.detach().unwrap());
            } else {
                let mut arrived = None;
                poll_fn(|cx| {
                    env.mesh
                        .poll_drain(cx, &mut |_, detached| arrived = Some(detached))
                })
                .await;
                let (detached, mut received) = arrived.unwrap();
                let connection = env.network.adopt(detached).unwrap();
                received.extend(receive_exactly(&*connection, 6 - received.len()).await);
                assert_eq!(received, b"second");
                send(&*connection, b"third").await.unwrap();
            }
            env.tasks.sleep(Duration::from_secs(9)).await;
        },
    );
    let (tester, done) = (world.clone(), Rc::new(Cell::new(false)));
    let ended = Rc::clone(&done);
    world.spawn(client, async move {
        tester.sleep_until(1_000_000).await;
        let connection = tester.connect(client, listen).await.unwrap();
        send(&*connection, b"firstsecond").await.unwrap();
        assert_eq!(receive_exactly(&*connection, 5).await, b"third");
        let lost = tester.connect(client, listen).await.unwrap();
        assert!(
            receive(&*lost).await.unwrap().is_empty(),
            "it was dropped between the cores"
        );
        ended.set(true);
    });
    assert_eq!(
        world.run_until(100 * SECOND_NS, |_| done.get()),
        RunEnd::Met,
        "{:?}",
        world.panics()
    );
    world.end();
}

#[test]
fn partitions_hold_back_and_break_connections_until_healed() {
    for (sends, receives, kind) in [
        (true, true, FaultKind::PartitionFull),
        (false, true, FaultKind::PartitionOneWay),
        (true, false, FaultKind::PartitionOneWay),
    ] {
        let world = World::new(10);
        let (server, client) = (world.add_host("server"), world.add_host("client"));
        start_echo(&world, server, 1);
        let (pongs, breaks) = start_pings(&world, client, server);
        world.run_for(SECOND_NS);
        assert!(pongs.get() > 10);
        let partition = FaultAction::Partition {
            peer: Some(client),
            sends,
            receives,
            duration_ns: 1000 * SECOND_NS,
        };
        world.schedule(Fault {
            at_ns: 2 * SECOND_NS,
            host: server,
            kind: partition,
        });
        world.run_for(2 * SECOND_NS);
        let before = pongs.get();
        world.run_for(60 * SECOND_NS);
        assert_eq!(pongs.get(), before, "nothing gets through");
        assert!(world.counters().get(kind) > 0);
        world.heal();
        world.run_for(30 * SECOND_NS);
        assert!(
            breaks.get() > 0 && pongs.get() > before + 10,
            "{} {}",
            breaks.get(),
            pongs.get()
        );
        world.end();
    }
}

#[test]
fn crashes_resets_and_half_closes_reach_the_client() {
    for style in [CrashStyle::ProcessKill, CrashStyle::PowerLoss] {
        let world = World::new(11);
        let (server, client) = (world.add_host("server"), world.add_host("client"));
        start_echo(&world, server, 2);
        let (pongs, breaks) = start_pings(&world, client, server);
        world.run_for(SECOND_NS);
        for (place, kind) in [
            FaultAction::HalfClose,
            FaultAction::ConnectionReset { after_bytes: 3 },
        ]
        .into_iter()
        .enumerate()
        {
            world.inflict(&Fault {
                at_ns: 0,
                host: server,
                kind,
            });
            world.run_for(SECOND_NS);
            assert_eq!(breaks.get(), place as u64 + 1);
        }
        let (process, before) = (world.running_process(server).unwrap(), pongs.get());
        world.crash(server, style);
        assert_eq!(world.process_status(process), ProcessStatus::Crashed);
        world.run_for(5 * SECOND_NS);
        assert!(breaks.get() >= 3, "{style:?}");
        start_echo(&world, server, 1);
        world.run_for(5 * SECOND_NS);
        assert!(pongs.get() > before + 10, "{style:?}");
        assert!(
            world.counters().get(FaultKind::ConnectionReset) > 0
                && world.counters().get(FaultKind::HalfClose) == 1
        );
        world.end();
    }
}

#[test]
fn a_fault_at_an_operation_strikes_that_operation() {
    let world = World::new(14);
    let (server, client) = (world.add_host("server"), world.add_host("client"));
    run(&world, server, 1, |env: Env<()>| async move {
        make_file(&env, path(), 2).await;
    });
    let operation = world.disk(server).operations() + 1;
    world.schedule_at(FaultAt {
        host: server,
        operation,
        kind: FaultAtKind::DiskError,
        is_network: false,
    });
    run(&world, server, 1, |env: Env<()>| async move {
        let failed = write_durable(&env, path(), 1, 0).await.unwrap_err();
        assert_eq!(failed.kind(), io::Error::from_raw_os_error(libc::EIO).kind());
    });
    start_echo(&world, server, 1);
    world.schedule_at(FaultAt {
        host: client,
        operation: 4,
        kind: FaultAtKind::ConnectionReset,
        is_network: true,
    });
    let (pongs, breaks) = start_pings(&world, client, server);
    world.run_until(world.now_ns() + SECOND_NS, |_| breaks.get() == 1);
    assert_eq!((pongs.get(), world.network_operations(client)), (4, 5));
    world.end();
}
