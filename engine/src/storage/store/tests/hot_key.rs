//! Walks past keys that have very many versions.

use super::*;
use crate::storage::store::walk::{Ahead, RunWalk};

const VERSIONS: u64 = 600;

/// Keys 0 to 9, of which keys 3 to 5 have many versions, in one run. The versions of a key lie apart in time: every
/// third is one of it.
fn hot_keys(rig: &Rig) -> (Rc<Shard>, Model) {
    let shard = rig.open().expect("it is new");
    let mut model = Model::default();
    let mut put = |number: u32, timestamp: u64| {
        let value = (!timestamp.is_multiple_of(50)).then(|| noise(timestamp, 60));
        shard.insert(&key(number), timestamp, &(value.clone(), None));
        model.put(&key(number), timestamp, (value, None));
    };
    for number in 0..10 {
        put(number, u64::from(number) + 1);
    }
    for version in 0..VERSIONS {
        put(3 + (version % 3) as u32, 100 + version);
    }
    shard.seal(1, Vec::new());
    rig.run(shard.flush(0)).expect("nothing fails here");
    (shard, model)
}

/// A key of a hundred versions that fill a block each, between two keys of one version. No read takes in as many blocks
/// of this length as are passed one by one.
fn large_values(rig: &Rig) -> Rc<Shard> {
    let shard = rig.open().expect("it is new");
    for timestamp in 0..100 {
        let value = (Some(noise(timestamp, 48 << 10)), None);
        shard.insert(&key(1), 10 + timestamp, &value);
    }
    for number in [0, 2] {
        shard.insert(&key(number), 1, &(Some(noise(number.into(), 500)), None));
    }
    shard.seal(1, Vec::new());
    rig.run(shard.flush(0)).expect("nothing fails here");
    shard
}

/// What a walk over the only run shows.
async fn walked(shard: &Shard, snapshot: u64, is_up: bool) -> Vec<(Vec<u8>, (u64, Content))> {
    let tables = shard.tables();
    let [run] = tables.runs() else {
        panic!("there was one flush")
    };
    let snapshot = Timestamp(snapshot);
    let walk = if is_up {
        RunWalk::up(run, &[], snapshot, Ahead::default())
    } else {
        RunWalk::down(run, None, snapshot, Ahead::default())
    };
    let mut walk = walk.expect("the tables are whole");
    let mut found = Vec::new();
    loop {
        walk.settle().await.expect("the tables are whole");
        let Some(key) = walk.key() else {
            return found;
        };
        found.push((key.to_vec(), owned(&walk.version().expect("it is at a key"))));
        walk.advance().expect("the tables are whole");
    }
}

#[test]
fn a_walk_shows_one_version_of_each_key_however_many_there_are() {
    for strategy in [CompactionStrategy::Leveled, CompactionStrategy::Tiered] {
        let rig = Rig::new(options(strategy));
        let (shard, model) = hot_keys(&rig);
        for snapshot in (0..=model.last() + 1).chain([u64::MAX]) {
            let mut expected: Vec<(Vec<u8>, (u64, Content))> = Vec::new();
            for key in model.keys() {
                expected.extend(model.newest(&key, snapshot).map(|newest| (key, newest)));
            }
            assert_eq!(
                rig.run(walked(&shard, snapshot, true)),
                expected,
                "up at {snapshot}"
            );
            expected.reverse();
            assert_eq!(
                rig.run(walked(&shard, snapshot, false)),
                expected,
                "down at {snapshot}"
            );
        }
    }
}

/// Walks up and down at these snapshots, each with an empty cache: so many keys are shown, by fewer blocks than this.
fn assert_few_blocks(rig: &Rig, shard: &Shard, snapshots: &[(u64, usize)], blocks: u64) {
    let cache = &shard.files.env().cache;
    for (snapshot, keys) in snapshots {
        for is_up in [true, false] {
            cache.set_capacity(0);
            cache.set_capacity(1 << 20);
            let before = cache.statistics().misses;
            assert_eq!(rig.run(walked(shard, *snapshot, is_up)).len(), *keys);
            let misses = cache.statistics().misses - before;
            assert!(misses < blocks, "{misses} blocks at {snapshot}, up: {is_up}");
        }
    }
}

#[test]
fn a_walk_does_not_read_the_versions_that_it_passes() {
    let rig = Rig::new(options(CompactionStrategy::Leveled));
    let (shard, model) = hot_keys(&rig);
    let keys = model.keys().len();
    // The versions lie in some 150 blocks.
    assert_few_blocks(&rig, &shard, &[(u64::MAX, keys), (400, keys), (50, keys)], 60);
}

#[test]
fn a_walk_passes_versions_that_fill_a_block_each() {
    let rig = Rig::new(options(CompactionStrategy::Leveled));
    let shard = large_values(&rig);
    assert_few_blocks(&rig, &shard, &[(u64::MAX, 3), (60, 3), (1, 2)], 40);
}
