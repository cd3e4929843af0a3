//! The real node runs in the simulated environment, deterministically.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use ostrakon::cluster::identity::Wanted;
use ostrakon::env::foreign::{self, ForeignReceiver};
use ostrakon::limits::SEGMENT_BYTES_MIN;
use ostrakon::server::connection_limits::ConnectionLimits;
use ostrakon::server::node::{Inlets, NodeConfig, NodeEvent, OperatorCommand, run_core};
use ostrakon::server::startup::StartOptions;
use ostrakon::server::told::ToldByCores;
use ostrakon_tests::scenario::storage::Storage;
use ostrakon_tests::sim::{Counters, CrashStyle, FaultKind, HostId, ProcessId, ProcessStatus, RunEnd, World};

use crate::support::SECOND_NS;

fn node_config(world: &World, cores: u16, events: &Arc<Mutex<Vec<NodeEvent>>>) -> NodeConfig {
    let events = Arc::clone(events);
    NodeConfig {
        options: StartOptions {
            data: world.data_directory(),
            wanted: Wanted {
                shards: None,
                shards_default: 16,
                segment_bytes: None,
                segment_bytes_default: SEGMENT_BYTES_MIN,
            },
            cut_corrupt: false,
            host: Storage::ample().host,
            store: Storage::ample().store,
        },
        data_absolute: world.data_directory(),
        listen: Some("0.0.0.0:5750".parse().unwrap()),
        connections: ConnectionLimits::default(),
        scrub: Storage::ample().scrub,
        told: Arc::new(ToldByCores::new(cores)),
        events: Arc::new(move |event| events.lock().unwrap().push(event)),
    }
}

fn start_node(
    world: &World,
    host: HostId,
    cores: u16,
    config: &NodeConfig,
) -> (ProcessId, foreign::ForeignSender<OperatorCommand>) {
    let (sender, receiver) = foreign::channel();
    let receiver: RefCell<Option<ForeignReceiver<OperatorCommand>>> = RefCell::new(Some(receiver));
    let process = world.start_process(host, cores, |core, env| {
        let commands = if core.0 == 0 {
            receiver.borrow_mut().take()
        } else {
            None
        };
        let task: Pin<Box<dyn Future<Output = ()>>> =
            Box::pin(run_core(env, config.clone(), Inlets { commands, jobs: None }));
        task
    });
    (process, sender)
}

/// Starts a node on two cores, cuts its power, starts it on three, and drains it. Returns the trace's hash and the
/// counters of faults.
fn node_story(seed: u64) -> (u64, Counters) {
    let world = World::new(seed);
    let host = world.add_host("node");
    let events: Arc<Mutex<Vec<NodeEvent>>> = Arc::default();
    let serves = |count: usize| {
        let events = Arc::clone(&events);
        move |_: &World| {
            let heard = events.lock().unwrap();
            heard
                .iter()
                .filter(|event| matches!(event, NodeEvent::Serving { .. }))
                .count()
                == count
        }
    };
    start_node(&world, host, 2, &node_config(&world, 2, &events));
    assert_eq!(
        world.run_until(60 * SECOND_NS, serves(1)),
        RunEnd::Met,
        "{:?} {:?}",
        world.panics(),
        events
    );
    world.crash(host, CrashStyle::PowerLoss);
    let (process, commands) = start_node(&world, host, 3, &node_config(&world, 3, &events));
    assert_eq!(
        world.run_until(120 * SECOND_NS, serves(2)),
        RunEnd::Met,
        "{:?} {:?}",
        world.panics(),
        events
    );
    assert!(
        commands.send(OperatorCommand::Drain).is_ok(),
        "core 0 listens to commands"
    );
    let has_ended = |world: &World| world.process_status(process) == ProcessStatus::Exited;
    assert_eq!(
        world.run_until(180 * SECOND_NS, has_ended),
        RunEnd::Met,
        "{:?} {:?}",
        world.panics(),
        events
    );
    assert!(world.panics().is_empty());
    world.end();
    (world.trace_hash(), world.counters())
}

#[test]
fn the_real_node_starts_loses_power_and_starts_again_on_more_cores() {
    let (mut hashes, mut all) = (Vec::new(), Counters::default());
    for seed in 0..4 {
        let (hash, counters) = node_story(seed);
        all.add_all(&counters);
        assert_eq!(node_story(seed).0, hash, "the same seed gives the same run");
        hashes.push(hash);
    }
    assert!(
        all.get(FaultKind::SpuriousWake) > 0 && all.get(FaultKind::PowerLoss) == 4,
        "{all:?}"
    );
    hashes.dedup();
    assert_eq!(hashes.len(), 4, "another seed gives another run");
}
