//! A disk that is full for one core of a node and not yet for another: scans go on, whichever core coordinates them.

use std::cell::RefCell;
use std::rc::Rc;

use ostrakon::limits::SEGMENT_BYTES_MIN;
use ostrakon_tests::scenario::client::{Link, Page, Reply};
use ostrakon_tests::scenario::node::{NodeSettings, Progress, SimNode};
use ostrakon_tests::scenario::storage::Storage;
use ostrakon_tests::scenario::values;
use ostrakon_tests::sim::{Fault, FaultAction, RunEnd, World};
use ostrakon_wire::message::{Condition, ErrorCode, Request, ScanRequest};

const SECOND_NS: u64 = 1_000_000_000;
const SHARDS: u32 = 8;
const FULL: u16 = 1;
const WITH_ROOM: u16 = 0;
const LARGE_BYTES: usize = 20_000;
const SMALL_BYTES: usize = 10;
/// One ceiling lasts for 3 seconds and takes a block; what deletes leave of a segment has room for 16.
const SCANS: u32 = 300;

/// A client of a node with two cores, of which one has no room left in its log.
struct Bench {
    world: World,
    owners: Vec<u16>,
    link: Rc<Link>,
    /// Keys that are there.
    keys: Vec<Vec<u8>>,
}

impl Bench {
    /// Fills the log of core [`FULL`] with puts, then with deletes, through a connection to core [`WITH_ROOM`].
    async fn new(world: World, link: Rc<Link>) -> Bench {
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
        assert!(put.len() > 20, "{} values filled two segments", put.len());
        // Deletes go on until only what is kept for ceilings is left.
        bench.keys = put.split_off(put.len() / 2);
        for key in put.iter().cycle() {
            if let Some(code) = bench.delete(key).await {
                assert_eq!(code, ErrorCode::DiskFull);
                break;
            }
        }
        bench
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

/// Starts a node of two cores, lets its disk have no room for another segment, and runs the client to its end.
fn with_a_full_disk<F: Future<Output = ()> + 'static>(seed: u64, client: impl Fn(Bench) -> F + 'static) {
    let world = World::new(seed);
    let server = world.add_host("server");
    let settings = NodeSettings {
        cores: 2,
        shards: SHARDS,
        segment_bytes: SEGMENT_BYTES_MIN,
        storage: Storage::ample(),
    };
    let node = SimNode::start(&world, server, settings);
    let starts = |_: &World| node.progress() != Progress::Starting;
    assert_eq!(world.run_until(120 * SECOND_NS, starts), RunEnd::Met);
    let Progress::Serving(address) = node.progress() else {
        panic!("{:?}", node.progress());
    };
    // Each core makes its segment in reserve.
    let made_ns = world.now_ns() + 30 * SECOND_NS;
    assert_eq!(world.run_until(made_ns, |_| false), RunEnd::Deadline);
    world.schedule(Fault {
        at_ns: world.now_ns(),
        host: server,
        kind: FaultAction::DiskFull {
            free_bytes: 0,
            duration_ns: u64::MAX,
        },
    });
    let host = world.add_host("client");
    let done = Rc::new(RefCell::new(false));
    let (own, ended) = (world.clone(), Rc::clone(&done));
    world.spawn(host, async move {
        own.sleep_until(own.now_ns() + SECOND_NS).await;
        let link = Link::connect(&own, host, address, Some(WITH_ROOM)).await;
        let link = link.expect("nothing keeps it from connecting");
        client(Bench::new(own.clone(), link).await).await;
        *ended.borrow_mut() = true;
    });
    let deadline_ns = world.now_ns() + 3_600 * SECOND_NS;
    let end = world.run_until(deadline_ns, |_| *done.borrow());
    assert_eq!(end, RunEnd::Met, "{:?}", world.panics());
    world.end();
}

#[test]
fn scans_through_a_core_with_room_need_no_room_on_one_whose_disk_is_full() {
    for seed in 0..3 {
        with_a_full_disk(seed, |mut bench| async move {
            assert_eq!(bench.delete(&bench.keys[0]).await, Some(ErrorCode::DiskFull));
            let expected = bench.sorted_keys();
            for number in 0..SCANS {
                assert_eq!(bench.scan().await.as_ref(), Ok(&expected), "scan {number}");
                bench.pause().await;
            }
            // The other core still takes writes, and a scan has what was acknowledged before it.
            let key = bench.next_key(&mut (0..), WITH_ROOM);
            assert_eq!(bench.put(&key, SMALL_BYTES).await, None);
            bench.keys.push(key);
            assert_eq!(bench.scan().await, Ok(bench.sorted_keys()));
        });
    }
}

#[test]
fn scans_that_need_more_ceilings_than_there_is_room_for_are_refused_and_come_back_with_the_room() {
    with_a_full_disk(7, |mut bench| async move {
        let key = bench.next_key(&mut (0..), WITH_ROOM);
        bench.keys.push(key.clone());
        let mut answered = 0;
        loop {
            // A write that is acknowledged elsewhere must be in the scan, so the scan's snapshot rises.
            assert_eq!(bench.put(&key, SMALL_BYTES).await, None, "after {answered} scans");
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
            assert!(answered < SCANS, "the reserve is used up at last");
            bench.pause().await;
        }
        assert!(answered >= 30, "{answered} scans were answered first");
        let get = bench.call(&Request::Get { key: &bench.keys[0] }).await;
        assert!(matches!(get, Reply::Get(Some(_))), "gets go on");
        bench.world.heal();
        bench.pause().await;
        assert_eq!(bench.scan().await, Ok(bench.sorted_keys()));
        let on_full = bench.next_key(&mut (0..), FULL);
        assert_eq!(bench.put(&on_full, SMALL_BYTES).await, None);
    });
}
