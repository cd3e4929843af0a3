//! A node whose identity file is damaged, unreadable or gone refuses to start, and says which file it is.

use std::path::{Path, PathBuf};

use ostrakon::limits::SEGMENT_BYTES_MIN;
use ostrakon_tests::scenario::node::{NodeSettings, Progress, SimNode};
use ostrakon_tests::scenario::storage::Storage;
use ostrakon_tests::sim::{CrashStyle, HostId, ProcessStatus, RunEnd, World};

use crate::support::{SECOND_NS, data};

/// Bytes of the identity file that are in use (docs/formats.md).
const CONTENT_BYTES: u64 = 64;

fn identity() -> PathBuf {
    data().join("node")
}

/// Starts the node, and gives what came of it; it has ended afterwards.
fn start(world: &World, host: HostId) -> Progress {
    let settings = NodeSettings {
        cores: 2,
        shards: 4,
        segment_bytes: SEGMENT_BYTES_MIN,
        storage: Storage::ample(),
    };
    let node = SimNode::start(world, host, settings);
    let deadline_ns = world.now_ns() + 60 * SECOND_NS;
    let end = world.run_until(deadline_ns, |_| match node.progress() {
        Progress::Starting => false,
        Progress::Serving(_) => true,
        Progress::Refused(_) => node.status() == ProcessStatus::Exited,
    });
    assert_eq!(end, RunEnd::Met, "{:?} {:?}", node.events(), world.panics());
    world.crash(host, CrashStyle::PowerLoss);
    node.progress()
}

/// A host whose node has served once.
fn served(seed: u64) -> (World, HostId) {
    let world = World::new(seed);
    let host = world.add_host("node");
    assert_serves(&world, host);
    (world, host)
}

fn assert_serves(world: &World, host: HostId) {
    let progress = start(world, host);
    assert!(matches!(progress, Progress::Serving(_)), "{progress:?}");
}

fn assert_refused(world: &World, host: HostId, names: &Path) -> String {
    match start(world, host) {
        Progress::Refused(sentence) => {
            assert!(sentence.contains(&*names.to_string_lossy()), "{sentence}");
            sentence
        }
        other => panic!("{other:?} from a damaged identity"),
    }
}

#[test]
fn every_damaged_byte_is_refused_until_it_is_put_right() {
    let (world, host) = served(61);
    let disk = world.disk(host);
    for byte in 0..CONTENT_BYTES {
        disk.flip(&identity(), byte, (byte % 8) as u32);
        assert_refused(&world, host, &identity());
        assert_refused(&world, host, &identity());
        assert_eq!(disk.repair_damage(), 1, "a refused start changes nothing");
    }
    assert_serves(&world, host);
    assert!(world.panics().is_empty());
}

#[test]
fn a_file_that_cannot_be_read_or_is_gone_is_refused() {
    let (world, host) = served(62);
    let disk = world.disk(host);
    disk.spoil(&identity(), 0);
    assert_refused(&world, host, &identity());
    disk.heal();
    assert_serves(&world, host);

    let snapshot = disk.snapshot();
    disk.remove(&identity());
    let sentence = assert_refused(&world, host, data());
    assert!(sentence.contains("no file `node`"), "{sentence}");
    assert!(disk.read(&identity()).is_none(), "no new identity is made up");
    disk.restore(&snapshot);
    assert_serves(&world, host);
}
