//! Each kind of trouble with segments does what it says, whether it is aimed at one segment or lasts for a while.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ostrakon::env::{Connection, Env, Priority};
use ostrakon_tests::sim::{
    Fault, FaultAction, FaultAt, FaultAtKind, FaultKind, HostId, NetworkConfig, NetworkTrouble, World,
    WorldConfig,
};

use crate::support::{SECOND_NS, accept, address, receive, send};

const EVERY_NS: u64 = 10_000_000;
const COUNT: u8 = 200;
/// An arrival without any trouble comes within this time.
const PROMPT_NS: u64 = 3_000_000;
const NONE: [usize; 0] = [];

/// When each byte was sent and when it arrived, by its value.
#[derive(Default)]
#[expect(clippy::struct_field_names, reason = "a name ends with its unit")]
struct Journal {
    sent_ns: Vec<u64>,
    arrived_ns: Vec<u64>,
    /// When either core of the server ticked last, and its longest pause between two ticks.
    ticked_ns: [u64; 2],
    longest_pause_ns: [u64; 2],
}

impl Journal {
    fn delays_ns(&self) -> Vec<u64> {
        let pairs = self.sent_ns.iter().zip(&self.arrived_ns);
        pairs.map(|(sent_ns, arrived_ns)| arrived_ns - sent_ns).collect()
    }

    /// Numbers of the bytes that took longer than usual.
    fn late(&self) -> Vec<usize> {
        let delays = self.delays_ns();
        let late = delays
            .iter()
            .enumerate()
            .filter(|(_, delay_ns)| **delay_ns > PROMPT_NS);
        late.map(|(number, _)| number).collect()
    }
}

type Shared = Rc<RefCell<Journal>>;

/// A client and a server that send each other one byte every 10 ms, each byte a segment. Segment `n` of each host is
/// its byte `n`.
struct Pair {
    world: World,
    server: HostId,
    client: HostId,
    /// What the server sends, and what the client sends.
    from_server: Shared,
    from_client: Shared,
}

async fn send_bytes(world: World, connection: Rc<dyn Connection>, journal: Shared) {
    for byte in 0..COUNT {
        world.sleep_until(u64::from(byte + 1) * EVERY_NS).await;
        journal.borrow_mut().sent_ns.push(world.now_ns());
        if send(&*connection, &[byte]).await.is_err() {
            return;
        }
    }
    // The connection ends with its owner.
    world.sleep_until(1000 * SECOND_NS).await;
}

async fn receive_bytes(world: World, connection: Rc<dyn Connection>, journal: Shared) {
    while let Ok(bytes) = receive(&*connection).await {
        if bytes.is_empty() {
            return;
        }
        for byte in bytes {
            let arrived_ns = &mut journal.borrow_mut().arrived_ns;
            assert_eq!(arrived_ns.len(), usize::from(byte), "each once, in order");
            arrived_ns.push(world.now_ns());
        }
    }
}

async fn tick(world: World, env: Env<()>, journal: Shared) {
    let core = env.core.index();
    loop {
        env.tasks.sleep(Duration::from_millis(5)).await;
        let journal = &mut *journal.borrow_mut();
        let pause_ns = world.now_ns() - journal.ticked_ns[core];
        journal.ticked_ns[core] = world.now_ns();
        journal.longest_pause_ns[core] = journal.longest_pause_ns[core].max(pause_ns);
    }
}

impl Pair {
    fn new(seed: u64) -> Pair {
        let network = NetworkConfig {
            split_one_in: 0,
            ..NetworkConfig::default()
        };
        let world = World::with_config(
            seed,
            WorldConfig {
                network,
                ..WorldConfig::default()
            },
        );
        let (server, client) = (world.add_host("server"), world.add_host("client"));
        let (from_server, from_client) = (Shared::default(), Shared::default());
        let (outer, journals) = (world.clone(), [Rc::clone(&from_server), Rc::clone(&from_client)]);
        let listen = address(&world, server);
        world.start_process(server, 2, |core, env: Env<()>| {
            let (world, [mine, theirs]) = (outer.clone(), journals.clone());
            Box::pin(async move {
                let ticking = tick(world.clone(), env.clone(), Rc::clone(&mine));
                env.tasks.spawn(Priority::Foreground, Box::pin(ticking));
                if core.0 == 0 {
                    let listener = env.network.listen(listen).unwrap();
                    let connection = accept(&*listener).await;
                    let receiving = receive_bytes(world.clone(), Rc::clone(&connection), theirs);
                    env.tasks.spawn(Priority::Foreground, Box::pin(receiving));
                    send_bytes(world, connection, mine).await;
                } else {
                    world.sleep_until(1000 * SECOND_NS).await;
                }
            })
        });
        let (outer, journals) = (world.clone(), [Rc::clone(&from_client), Rc::clone(&from_server)]);
        world.spawn(client, async move {
            let [mine, theirs] = journals;
            outer.sleep_until(1_000_000).await;
            let connection = outer.connect(client, listen).await.unwrap();
            let receiving = receive_bytes(outer.clone(), Rc::clone(&connection), theirs);
            outer.spawn(client, receiving);
            send_bytes(outer, connection, mine).await;
        });
        Pair {
            world,
            server,
            client,
            from_server,
            from_client,
        }
    }

    /// Aims at segment `operation` of a host.
    fn aim(&self, host: HostId, operation: u64, kind: FaultAtKind) -> FaultAt {
        let fault = FaultAt {
            host,
            operation,
            kind,
            is_network: true,
        };
        self.world.schedule_at(fault.clone());
        fault
    }

    fn run_to_the_end(&self) {
        self.world.run_until(60 * SECOND_NS, |_| false);
        assert!(self.world.panics().is_empty(), "{:?}", self.world.panics());
        self.world.end();
    }

    /// Runs to the end; all bytes must have arrived unless the connection was to break.
    fn run(&self, is_whole: bool) {
        self.run_to_the_end();
        for journal in [&self.from_server, &self.from_client] {
            let is_here = journal.borrow().arrived_ns.len() == usize::from(COUNT);
            assert_eq!(is_here, is_whole, "{}", journal.borrow().arrived_ns.len());
        }
    }

    fn count(&self, kind: FaultKind) -> u64 {
        self.world.counters().get(kind)
    }
}

#[test]
fn without_trouble_every_byte_is_prompt() {
    let pair = Pair::new(41);
    pair.run(true);
    assert_eq!(pair.from_client.borrow().late(), NONE);
    assert_eq!(pair.from_server.borrow().late(), NONE);
    assert!(
        pair.from_server
            .borrow()
            .longest_pause_ns
            .iter()
            .all(|pause_ns| *pause_ns < 20_000_000)
    );
}

#[test]
fn a_segment_is_lost_and_sent_again_or_delayed() {
    let cases = [
        // Lost three times: 20, 40 and 80 ms until it is sent again.
        (
            FaultAtKind::SegmentLoss(3),
            FaultKind::SegmentLoss,
            3,
            140_000_000,
        ),
        (
            FaultAtKind::SegmentDelay(2 * SECOND_NS),
            FaultKind::DelaySpike,
            1,
            2 * SECOND_NS,
        ),
    ];
    for (kind, counted, count, delay_ns) in cases {
        let pair = Pair::new(42);
        let fault = pair.aim(pair.client, 30, kind);
        pair.run(true);
        let journal = pair.from_client.borrow();
        let delays = journal.delays_ns();
        assert!(
            (delay_ns..delay_ns + PROMPT_NS).contains(&delays[30]),
            "{}",
            delays[30]
        );
        // What comes behind waits for it: a stream has an order.
        let late = journal.late();
        assert!(late[0] == 30 && late.len() > 10 && late.len() < 210, "{late:?}");
        assert_eq!(
            pair.from_server.borrow().late(),
            NONE,
            "the other direction has no trouble"
        );
        assert!(pair.world.has_struck(&fault));
        assert_eq!(pair.count(counted), count);
    }
}

#[test]
fn a_doubled_segment_arrives_twice_and_is_read_once() {
    let pair = Pair::new(43);
    let fault = pair.aim(pair.server, 30, FaultAtKind::SegmentDuplicate);
    pair.run(true);
    assert_eq!(pair.from_server.borrow().late(), NONE);
    assert!(pair.world.has_struck(&fault));
    assert_eq!(pair.count(FaultKind::SegmentDuplicate), 1);
}

#[test]
fn a_segment_waits_for_a_later_one_or_its_time_is_up() {
    let pair = Pair::new(44);
    let overtaken = pair.aim(pair.client, 30, FaultAtKind::SegmentReorder(SECOND_NS));
    let newest = pair.aim(
        pair.client,
        u64::from(COUNT) - 1,
        FaultAtKind::SegmentReorder(SECOND_NS),
    );
    pair.run(true);
    let journal = pair.from_client.borrow();
    let (sent_ns, arrived_ns) = (&journal.sent_ns, &journal.arrived_ns);
    assert!(arrived_ns[30] > sent_ns[31], "its successor was there first");
    assert!(arrived_ns[31] - arrived_ns[30] < 10_000, "and waited for it");
    let delays = journal.delays_ns();
    assert!((SECOND_NS..SECOND_NS + PROMPT_NS).contains(&delays[usize::from(COUNT) - 1]));
    assert_eq!(journal.late(), [30, usize::from(COUNT) - 1]);
    assert!(pair.world.has_struck(&overtaken) && !pair.world.has_struck(&newest));
    assert_eq!(pair.count(FaultKind::SegmentReorder), 1);
}

/// Bytes that were late, of those that a host sent.
fn partitioned(pair: &Pair) -> (Vec<usize>, Vec<usize>) {
    pair.run(true);
    (pair.from_client.borrow().late(), pair.from_server.borrow().late())
}

#[test]
fn a_partition_blocks_one_direction_or_both_from_the_segment_on() {
    let duration_ns = 40 * EVERY_NS;
    for kind in [
        FaultAtKind::PartitionOneWay(duration_ns),
        FaultAtKind::PartitionFull(duration_ns),
    ] {
        let pair = Pair::new(45);
        let fault = pair.aim(pair.client, 30, kind.clone());
        let (from_client, from_server) = partitioned(&pair);
        assert!(pair.world.has_struck(&fault));
        assert_eq!(from_client, (30..70).collect::<Vec<usize>>());
        let (both, one) = (
            pair.count(FaultKind::PartitionFull),
            pair.count(FaultKind::PartitionOneWay),
        );
        if kind == FaultAtKind::PartitionFull(duration_ns) {
            assert!(from_server.len() > 35 && from_server[0] >= 29, "{from_server:?}");
            assert!(both >= 80 && one == 0, "{both} {one}");
        } else {
            assert_eq!(from_server, NONE);
            assert!(one >= 40 && both == 0, "{both} {one}");
        }
    }
}

#[test]
fn a_partition_for_a_while_blocks_the_directions_that_it_names() {
    let duration_ns = 40 * EVERY_NS;
    for (sends, receives) in [(true, false), (false, true), (true, true)] {
        let pair = Pair::new(46);
        pair.world.schedule(Fault {
            at_ns: 31 * EVERY_NS - 5_000_000,
            host: pair.server,
            kind: FaultAction::Partition {
                peer: None,
                sends,
                receives,
                duration_ns,
            },
        });
        let (from_client, from_server) = partitioned(&pair);
        let blocked: Vec<usize> = (30..70).collect();
        assert_eq!(from_server == blocked, sends, "{from_server:?}");
        assert_eq!(from_client == blocked, receives, "{from_client:?}");
        assert_eq!(from_server.is_empty(), !sends);
        assert_eq!(from_client.is_empty(), !receives);
    }
}

#[test]
fn weather_strikes_segment_after_segment_until_it_is_over() {
    for (trouble, counted, delay_ns) in [
        (NetworkTrouble::Loss, FaultKind::SegmentLoss, 20_000_000),
        (NetworkTrouble::Delay, FaultKind::DelaySpike, 1_000_000),
        (NetworkTrouble::Duplicate, FaultKind::SegmentDuplicate, 0),
    ] {
        let pair = Pair::new(47);
        pair.world.schedule(Fault {
            at_ns: 31 * EVERY_NS - 5_000_000,
            host: pair.server,
            kind: FaultAction::Network {
                trouble,
                per_thousand: 1_000,
                duration_ns: 40 * EVERY_NS,
            },
        });
        pair.run(true);
        for journal in [&pair.from_client, &pair.from_server] {
            let delays = journal.borrow().delays_ns();
            assert!(
                delays[30..70].iter().all(|delay| *delay >= delay_ns),
                "{trouble:?}"
            );
            let calm = delays[..30].iter().chain(&delays[110..]);
            assert!(
                calm.max().is_some_and(|delay_ns| *delay_ns < PROMPT_NS),
                "{trouble:?}"
            );
        }
        let count = pair.count(counted);
        assert!((80..=240).contains(&count), "{trouble:?}: {count}");
    }
}

#[test]
fn reordering_weather_is_counted_when_a_later_segment_comes_first() {
    for (per_thousand, happens) in [(0, false), (400, true)] {
        let world = World::new(48);
        let (server, client) = (world.add_host("server"), world.add_host("client"));
        crate::support::start_echo(&world, server, 1);
        world.inflict(&Fault {
            at_ns: 0,
            host: client,
            kind: FaultAction::Network {
                trouble: NetworkTrouble::Reorder,
                per_thousand,
                duration_ns: 1000 * SECOND_NS,
            },
        });
        let (tester, to) = (world.clone(), address(&world, server));
        world.spawn(client, async move {
            tester.sleep_until(1_000_000).await;
            let connection = tester.connect(client, to).await.unwrap();
            let bytes: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
            let (sender, sent) = (Rc::clone(&connection), bytes.clone());
            tester.spawn(client, async move { send(&*sender, &sent).await.unwrap() });
            let received = crate::support::receive_exactly(&*connection, bytes.len()).await;
            assert!(received == bytes, "in order for the reader");
        });
        world.run_for(100 * SECOND_NS);
        assert!(world.panics().is_empty(), "{:?}", world.panics());
        let count = world.counters().get(FaultKind::SegmentReorder);
        assert_eq!(count > 0, happens, "{count}");
        world.end();
    }
}

#[test]
fn a_connection_breaks_at_the_segment() {
    let pair = Pair::new(49);
    let fault = pair.aim(pair.client, 30, FaultAtKind::ConnectionReset);
    pair.run(false);
    assert_eq!(pair.from_client.borrow().arrived_ns.len(), 30);
    assert!(pair.world.has_struck(&fault));
    assert_eq!(pair.count(FaultKind::ConnectionReset), 1);
}

#[test]
fn a_half_closed_connection_goes_on_in_the_other_direction() {
    let pair = Pair::new(52);
    pair.world.schedule(Fault {
        at_ns: 31 * EVERY_NS - 5_000_000,
        host: pair.server,
        kind: FaultAction::HalfClose,
    });
    pair.run_to_the_end();
    let mut arrived = [&pair.from_server, &pair.from_client].map(|journal| journal.borrow().arrived_ns.len());
    arrived.sort_unstable();
    assert_eq!(arrived, [30, usize::from(COUNT)]);
    assert_eq!(pair.count(FaultKind::HalfClose), 1);
}

#[test]
fn the_sender_of_the_segment_stands_still_and_its_clock_jumps() {
    let stall = |further| FaultAtKind::StallCore {
        further,
        duration_ns: SECOND_NS,
    };
    for (kind, stops) in [
        (FaultAtKind::Pause(SECOND_NS), [true, true]),
        (stall(0), [true, false]),
        (stall(1), [false, true]),
        (FaultAtKind::ClockJump(-7_000_000), [false, false]),
    ] {
        let pair = Pair::new(50);
        let fault = pair.aim(pair.server, 30, kind.clone());
        let wall = || pair.world.client_env(pair.server).clock.wall().0.cast_signed();
        let before_us = wall();
        pair.world.run_until(3 * SECOND_NS, |_| false);
        let jumped_us = wall() - before_us - 3_000_000;
        let expected_us = if kind == FaultAtKind::ClockJump(-7_000_000) {
            -7_000_000
        } else {
            0
        };
        assert_eq!(jumped_us, expected_us, "{kind:?}");
        let pauses = pair.from_server.borrow().longest_pause_ns;
        assert_eq!(
            pauses.map(|pause_ns| pause_ns > SECOND_NS - 20_000_000),
            stops,
            "{kind:?}: {pauses:?}"
        );
        assert!(
            pauses.iter().all(|pause_ns| *pause_ns < SECOND_NS + 20_000_000),
            "{kind:?}: {pauses:?}"
        );
        assert!(pair.world.has_struck(&fault));
        pair.world.end();
    }
}

#[test]
fn a_host_wants_its_crash_at_the_segment() {
    use ostrakon_tests::sim::CrashPoint;
    let pair = Pair::new(51);
    let fault = pair.aim(pair.server, 30, FaultAtKind::Crash(CrashPoint::During));
    pair.world.run_until(60 * SECOND_NS, World::is_crash_wanted);
    assert_eq!(pair.world.take_crash_wanted(), [pair.server]);
    assert_eq!(pair.world.network_operations(pair.server), 31);
    assert!(pair.world.has_struck(&fault));
    assert_eq!(pair.count(FaultKind::CrashAtOperation), 1);
    pair.world.end();
}
