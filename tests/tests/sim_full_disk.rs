//! A disk that is full for one core of a node and not yet for another: scans go on, whichever core coordinates them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ostrakon::limits::{DISK_RESERVE_BYTES, LOG_SEGMENTS_MIN, SEGMENT_BYTES_MIN, STORE_RESERVE_BYTES};
use ostrakon_tests::scenario::client::{Link, Page, Reply};
use ostrakon_tests::scenario::node::{NodeSettings, SimNode};
use ostrakon_tests::scenario::storage::{Storage, tables_bytes};
use ostrakon_tests::scenario::values;
use ostrakon_tests::sim::{CrashStyle, Fault, FaultAction, RunEnd, World};
use ostrakon_wire::message::{Condition, ErrorCode, Request, ScanRequest};

const SECOND_NS: u64 = 1_000_000_000;
const SHARDS: u32 = 8;
const FULL: u16 = 1;
const WITH_ROOM: u16 = 0;
const LARGE_BYTES: usize = 20_000;
const SMALL_BYTES: usize = 10;
/// One ceiling lasts for 3 seconds and takes a block; what deletes leave of a segment has room for 16.
const SCANS: u32 = 300;

/// So many deletes the rest of a segment has room for at least.
const DELETES_MIN: u32 = 100;
/// Seeds that are tried.
const SEEDS: core::ops::Range<u64> = 0..60;

/// Too little for a segment of the log, and to flush what fills two of them; enough for deletes.
const FREE_BYTES: u64 = STORE_RESERVE_BYTES + (16 << 10);

/// A client of a node with two cores, of which one has no room left in its log.
struct Bench {
    world: World,
    owners: Vec<u16>,
    link: Rc<Link>,
    /// Keys that are there.
    keys: Vec<Vec<u8>>,
}

impl Bench {
    /// Fills the log of core [`FULL`] with puts, then with deletes, through a connection to core [`WITH_ROOM`]. `None`
    /// if the core has learned too early that the disk is full, and refused what would have filled its log.
    async fn new(world: World, link: Rc<Link>) -> Option<Bench> {
        let mut bench = Bench {
            world,
            owners: Vec::new(),
            link,
            keys: Vec::new(),
        };
        let Reply::Topology(topology) = bench.call(&Request::Topology).await else {
            panic!("a topology was asked for");
        };
        bench.owners = topology.owners;
        let mut numbers = 0..;
        let mut put = Vec::new();
        loop {
            let key = bench.next_key(&mut numbers, FULL);
            match bench.put(&key, LARGE_BYTES).await {
                None => put.push(key),
                refused => break assert_eq!(refused, Some(ErrorCode::DiskFull)),
            }
        }
        if put.len() <= 20 {
            return None;
        }
        // Deletes go on until only what is kept for ceilings is left.
        bench.keys = put.split_off(put.len() / 2);
        let mut deleted = 0;
        for key in put.iter().cycle() {
            if let Some(code) = bench.delete(key).await {
                assert_eq!(code, ErrorCode::DiskFull);
                break;
            }
            deleted += 1;
        }
        (deleted >= DELETES_MIN).then_some(bench)
    }

    async fn call(&self, request: &Request<'_>) -> Reply {
        let timer = self.world.sleep_until(self.world.now_ns() + 5 * SECOND_NS);
        let reply = self.link.call(request, Box::pin(timer)).await;
        reply.expect("every request is answered").reply
    }

    async fn put(&self, key: &[u8], value_bytes: usize) -> Option<ErrorCode> {
        let value = values::value(1, value_bytes);
        let request = Request::put(key, &value, Condition::None);
        refusal(&self.call(&request).await)
    }

    async fn delete(&self, key: &[u8]) -> Option<ErrorCode> {
        let condition = Condition::None;
        refusal(&self.call(&Request::delete(key, condition)).await)
    }

    /// All keys at one new snapshot, or why not.
    async fn scan(&self) -> Result<Vec<Vec<u8>>, ErrorCode> {
        let request = ScanRequest {
            keys_only: true,
            ..ScanRequest::ALL
        };
        match self.call(&Request::Scan(request)).await {
            Reply::Scan(Page { entries, .. }) => Ok(entries.into_iter().map(|(key, ..)| key).collect()),
            other => Err(refusal(&other).expect("a scan was asked for")),
        }
    }

    /// The next key that a core owns.
    fn next_key(&self, numbers: &mut impl Iterator<Item = u32>, owner: u16) -> Vec<u8> {
        let mut keys = numbers.map(values::key);
        let of_owner = keys.find(|key| self.owners[values::shard(key, SHARDS)] == owner);
        of_owner.expect("there is no last number")
    }

    async fn pause(&self) {
        let until_ns = self.world.now_ns() + SECOND_NS;
        self.world.sleep_until(until_ns).await;
    }

    fn sorted_keys(&self) -> Vec<Vec<u8>> {
        let mut keys = self.keys.clone();
        keys.sort();
        keys
    }
}

fn refusal(reply: &Reply) -> Option<ErrorCode> {
    match reply {
        Reply::Refused { code, .. } => Some(*code),
        _ => None,
    }
}

/// Starts a node of two cores, lets its disk have no room for another segment, and runs the client to its end; false
/// if a log could not be filled.
fn with_a_full_disk<F: Future<Output = ()> + 'static>(
    seed: u64,
    client: impl Fn(Bench) -> F + 'static,
) -> bool {
    let world = World::new(seed);
    let server = world.add_host("server");
    let settings = NodeSettings {
        cores: 2,
        shards: SHARDS,
        segment_bytes: SEGMENT_BYTES_MIN,
        storage: Storage::ample(),
    };
    let node = SimNode::start(&world, server, settings);
    let address = node.run_until_serving();
    // Each core makes its segment in reserve.
    let made_ns = world.now_ns() + 30 * SECOND_NS;
    assert_eq!(world.run_until(made_ns, |_| false), RunEnd::Deadline);
    // Both have just looked how much room there is, so that the client has a second to fill a log before they know.
    let before = world.disk(server).operations();
    let have_looked = |world: &World| world.disk(server).operations() >= before + 2;
    assert_eq!(world.run_until(made_ns + 2 * SECOND_NS, have_looked), RunEnd::Met);
    world.schedule(Fault {
        at_ns: world.now_ns(),
        host: server,
        kind: FaultAction::DiskFull {
            free_bytes: FREE_BYTES,
            duration_ns: u64::MAX,
        },
    });
    let host = world.add_host("client");
    let done = Rc::new(RefCell::new(None));
    let (own, ended) = (world.clone(), Rc::clone(&done));
    world.spawn(host, async move {
        let link = Link::connect(&own, host, address, Some(WITH_ROOM)).await;
        let link = link.expect("nothing keeps it from connecting");
        let bench = Bench::new(own.clone(), link).await;
        let is_filled = bench.is_some();
        if let Some(bench) = bench {
            client(bench).await;
        }
        *ended.borrow_mut() = Some(is_filled);
    });
    let deadline_ns = world.now_ns() + 3_600 * SECOND_NS;
    let end = world.run_until(deadline_ns, |_| done.borrow().is_some());
    assert_eq!(end, RunEnd::Met, "{:?}", world.panics());
    world.end();
    done.borrow().expect("it has ended")
}

#[test]
fn scans_through_a_core_with_room_need_no_room_on_one_whose_disk_is_full() {
    let run = |seed| {
        with_a_full_disk(seed, |bench| async move {
            assert_eq!(bench.delete(&bench.keys[0]).await, Some(ErrorCode::DiskFull));
            let expected = bench.sorted_keys();
            for number in 0..SCANS {
                assert_eq!(bench.scan().await.as_ref(), Ok(&expected), "scan {number}");
                bench.pause().await;
            }
            // The other core takes deletes, and no puts: they could not be flushed.
            let key = bench.next_key(&mut (0..), WITH_ROOM);
            assert_eq!(bench.put(&key, SMALL_BYTES).await, Some(ErrorCode::DiskFull));
            assert_eq!(bench.delete(&key).await, None);
            assert_eq!(bench.scan().await, Ok(bench.sorted_keys()));
        })
    };
    assert_eq!(SEEDS.filter(|seed| run(*seed)).take(3).count(), 3);
}

#[test]
fn scans_that_need_more_ceilings_than_there_is_room_for_are_refused_and_come_back_with_the_room() {
    let has_run_out = Rc::new(Cell::new(false));
    let run = |seed| {
        let has_run_out = Rc::clone(&has_run_out);
        with_a_full_disk(seed, move |bench| {
            until_ceilings_run_out(bench, Rc::clone(&has_run_out))
        });
    };
    for seed in SEEDS {
        run(seed);
        if has_run_out.get() {
            return;
        }
    }
    panic!("a log is filled so far that its reserve is used up at last");
}

async fn until_ceilings_run_out(bench: Bench, has_run_out: Rc<Cell<bool>>) {
    let key = bench.next_key(&mut (0..), WITH_ROOM);
    let mut answered = 0;
    loop {
        // A write that is acknowledged elsewhere must be in the scan, so the scan's snapshot rises.
        assert_eq!(bench.delete(&key).await, None, "after {answered} scans");
        let asked_ns = bench.world.now_ns();
        match bench.scan().await {
            Ok(keys) => assert_eq!(keys, bench.sorted_keys()),
            Err(code) => {
                assert_eq!(code, ErrorCode::DiskFull);
                let waited_ns = bench.world.now_ns() - asked_ns;
                assert!(waited_ns < SECOND_NS, "refused at once, not after {waited_ns} ns");
                break;
            }
        }
        answered += 1;
        if answered == SCANS {
            // The core has learned how full the disk is before its log was.
            return;
        }
        bench.pause().await;
    }
    assert!(answered >= 30, "{answered} scans were answered first");
    let get = bench.call(&Request::Get { key: &bench.keys[0] }).await;
    assert!(matches!(get, Reply::Get(Some(_))), "gets go on");
    bench.world.heal();
    bench.pause().await;
    bench.pause().await;
    assert_eq!(bench.scan().await, Ok(bench.sorted_keys()));
    let on_full = bench.next_key(&mut (0..), FULL);
    assert_eq!(bench.put(&on_full, SMALL_BYTES).await, None);
    has_run_out.set(true);
}

/// Tables that a node has after a start that replayed some puts, on a file system with so many free bytes.
fn tables_after_a_start(free_bytes: u64) -> usize {
    let world = World::new(11);
    let server = world.add_host("server");
    let settings = NodeSettings {
        cores: 1,
        shards: SHARDS,
        segment_bytes: SEGMENT_BYTES_MIN,
        storage: Storage::ample(),
    };
    let address = SimNode::start(&world, server, settings).run_until_serving();
    let client = world.add_host("client");
    let done = Rc::new(Cell::new(false));
    let (own, ended) = (world.clone(), Rc::clone(&done));
    world.spawn(client, async move {
        let link = Link::connect(&own, client, address, None).await;
        let link = link.expect("nothing keeps it from connecting");
        for number in 0..SHARDS {
            let value = values::value(u64::from(number), SMALL_BYTES);
            let key = values::key(number);
            let timer = own.sleep_until(own.now_ns() + 5 * SECOND_NS);
            let put = Request::put(&key, &value, Condition::None);
            let reply = link.call(&put, Box::pin(timer)).await;
            assert_eq!(refusal(&reply.expect("every request is answered").reply), None);
        }
        ended.set(true);
    });
    let deadline_ns = world.now_ns() + 60 * SECOND_NS;
    assert_eq!(world.run_until(deadline_ns, |_| done.get()), RunEnd::Met);
    let tables = || tables_bytes(&world.disk(server)).count();
    assert_eq!(tables(), 0, "nothing was flushed before");
    world.crash(server, CrashStyle::ProcessKill);
    world.inflict(&Fault {
        at_ns: world.now_ns(),
        host: server,
        kind: FaultAction::DiskFull {
            free_bytes,
            duration_ns: u64::MAX,
        },
    });
    SimNode::start(&world, server, settings).run_until_serving();
    let tables = tables();
    world.end();
    tables
}

#[test]
fn a_start_flushes_what_it_has_replayed_if_the_log_may_find_no_space_and_only_then() {
    let wanted_bytes = DISK_RESERVE_BYTES + LOG_SEGMENTS_MIN * SEGMENT_BYTES_MIN;
    assert!(tables_after_a_start(wanted_bytes - SEGMENT_BYTES_MIN) > 0);
    assert_eq!(tables_after_a_start(wanted_bytes + 2 * SEGMENT_BYTES_MIN), 0);
}
