//! A node that was written to and then is left alone: what was deleted gives its space back, though no write fills the
//! memtable any more that has deleted it.

use std::cell::Cell;
use std::rc::Rc;

use ostrakon::limits::SEGMENT_BYTES_MIN;
use ostrakon_tests::scenario::client::{Link, Reply};
use ostrakon_tests::scenario::node::{NodeSettings, SimNode};
use ostrakon_tests::scenario::storage::{Storage, tables_bytes};
use ostrakon_tests::scenario::values;
use ostrakon_tests::sim::{RunEnd, World};
use ostrakon_wire::message::{Condition, ErrorCode, Request};

const SECOND_NS: u64 = 1_000_000_000;
const KEYS: u32 = 300;
const VALUE_BYTES: usize = 1_000;
const EVERYTHING: Request<'static> = Request::DeleteRange {
    start: b"",
    end: None,
    retry: None,
};

async fn ask(world: &World, link: &Link, request: &Request<'_>) {
    loop {
        let timer = world.sleep_until(world.now_ns() + 5 * SECOND_NS);
        let reply = link.call(request, Box::pin(timer)).await;
        match reply.expect("every request is answered").reply {
            Reply::Refused {
                code: ErrorCode::Busy,
                ..
            } => world.sleep_until(world.now_ns() + SECOND_NS / 100).await,
            Reply::Refused { code, .. } => panic!("{code}"),
            _ => return,
        }
    }
}

/// Puts all keys, lets the client delete them, and looks at the bytes of tables before that, and a while after.
fn before_and_after<F: Future<Output = ()> + 'static>(
    delete: impl Fn(World, Rc<Link>) -> F + 'static,
) -> (u64, u64) {
    let world = World::new(7);
    let server = world.add_host("server");
    let settings = NodeSettings {
        cores: 1,
        shards: 1,
        segment_bytes: SEGMENT_BYTES_MIN,
        storage: Storage::tiny(),
    };
    let node = SimNode::start(&world, server, settings);
    let address = node.run_until_serving();
    let host = world.add_host("client");
    let before = Rc::new(Cell::new(None));
    let (own, found) = (world.clone(), Rc::clone(&before));
    world.spawn(host, async move {
        let link = Link::connect(&own, host, address, None).await;
        let link = link.expect("nothing keeps it from connecting");
        for number in 0..KEYS {
            let value = values::value(u64::from(number), VALUE_BYTES);
            ask(
                &own,
                &link,
                &Request::put(&values::key(number), &value, Condition::None),
            )
            .await;
        }
        own.sleep_until(own.now_ns() + 30 * SECOND_NS).await;
        found.set(Some(tables_bytes(&own.disk(server)).sum()));
        delete(own, link).await;
    });
    let deadline_ns = world.now_ns() + 3_600 * SECOND_NS;
    let end = world.run_until(deadline_ns, |_| before.get().is_some());
    assert_eq!(end, RunEnd::Met, "{:?}", world.panics());
    let later_ns = world.now_ns() + 60 * SECOND_NS;
    assert_eq!(
        world.run_until(later_ns, |_| false),
        RunEnd::Deadline,
        "{:?}",
        world.panics()
    );
    let after = tables_bytes(&world.disk(server)).sum();
    world.end();
    (before.get().expect("it was looked at"), after)
}

#[test]
fn a_range_that_was_deleted_gives_its_space_back() {
    let (before, after) = before_and_after(|world, link| async move {
        ask(&world, &link, &EVERYTHING).await;
    });
    assert!(after * 10 < before, "{before} bytes of tables, then {after}");
}

#[test]
fn the_last_keys_that_were_deleted_give_their_space_back() {
    let (before, after) = before_and_after(|world, link| async move {
        for number in 0..KEYS {
            ask(
                &world,
                &link,
                &Request::delete(&values::key(number), Condition::None),
            )
            .await;
        }
    });
    assert!(after * 10 < before, "{before} bytes of tables, then {after}");
}
