//! Range tombstones: what they hide stays hidden, they go when they hide nothing, and what they cover gives its space
//! back.

use super::*;

/// Flushes these keys with values of some length.
fn flush_keys(rig: &Rig, shard: &Shard, model: &mut Model, keys: core::ops::Range<u32>) {
    for number in keys {
        let timestamp = model.last() + 1;
        let content = (Some(noise(timestamp, 200)), None);
        shard.insert(&key(number), timestamp, &content);
        model.put(&key(number), timestamp, content);
    }
    seal_and_flush(rig, shard, model);
}

fn seal_and_flush(rig: &Rig, shard: &Shard, model: &Model) {
    shard.seal(
        model.last(),
        vec![(super::super::keys::RECORD.to_vec(), Some(vec![1]))],
    );
    rig.run(shard.flush(0)).expect("nothing fails here");
}

fn delete_range(shard: &Shard, model: &mut Model, start: &[u8], end: Option<&[u8]>) {
    let range = (start.to_vec(), end.map(<[u8]>::to_vec), model.last() + 1);
    shard.delete_range(&range);
    model.1.push(range);
}

fn range_tombstones(shard: &Shard) -> u64 {
    let tables = shard.tables();
    tables.tree().tables().map(|info| info.range_tombstones).sum()
}

#[test]
fn what_a_range_covers_gives_its_space_back_and_the_tombstone_goes() {
    for strategy in [CompactionStrategy::Leveled, CompactionStrategy::Tiered] {
        let rig = Rig::new(options(strategy));
        let shard = rig.open().expect("it is new");
        let mut model = Model::default();
        for first in 0..10 {
            flush_keys(&rig, &shard, &mut model, first * 20..(first + 1) * 20);
            rig.run(shard.merge_all(0)).expect("nothing fails here");
        }
        let full_bytes = shard.tables().tree().bytes();
        delete_range(&shard, &mut model, &key(5), None);
        seal_and_flush(&rig, &shard, &model);
        assert_eq!(range_tombstones(&shard), 1, "{strategy:?}");
        rig.run(shard.assert_is(&model, model.last()));
        // A reader at an older snapshot needs what lies below.
        rig.run(shard.merge_all(0)).expect("nothing fails here");
        rig.run(shard.assert_is(&model, 150));
        let watermark = model.last() + 1;
        rig.run(shard.merge_all(watermark)).expect("nothing fails here");
        rig.run(shard.assert_is(&model, watermark));
        assert_eq!(
            range_tombstones(&shard),
            0,
            "{strategy:?}: {:?}",
            shard.tables().tree()
        );
        let left_bytes = shard.tables().tree().bytes();
        assert!(
            left_bytes * 3 < full_bytes,
            "{strategy:?}: {left_bytes} of {full_bytes}"
        );
    }
}

#[test]
fn a_key_that_no_table_has_is_hidden_without_a_read() {
    let rig = Rig::new(options(CompactionStrategy::Leveled));
    let shard = rig.open().expect("it is new");
    let mut model = Model::default();
    flush_keys(&rig, &shard, &mut model, 0..100);
    flush_keys(&rig, &shard, &mut model, 100..101);
    delete_range(&shard, &mut model, &key(20), Some(&key(40)));
    seal_and_flush(&rig, &shard, &model);
    let shard = rig.open().expect("the files are whole");
    let look = |number: u32| {
        let (own, mut scratch) = (key(number), Vec::new());
        let store = shard.store.borrow();
        let look = store.look((xxh3_64(&own), &own), Timestamp::MAX, &mut scratch);
        match look.expect("the tables are whole") {
            Look::Unknown(_) => None,
            look => Some(
                look.version()
                    .map(|version| (version.timestamp.0, version.value.is_some())),
            ),
        }
    };
    for number in 20..40 {
        assert_eq!(look(number), Some(Some((102, false))), "{number}");
    }
    assert_eq!((look(19), look(40)), (None, None), "they have to be read");
    rig.run(shard.assert_is(&model, 0));
}

#[test]
fn tables_that_are_covered_whole_are_not_read() {
    let mut options = options(CompactionStrategy::Tiered);
    options.compaction.young_runs = 8;
    let rig = Rig::new(options);
    let shard = rig.open().expect("it is new");
    let mut model = Model::default();
    for number in 0..40 {
        let timestamp = model.last() + 1;
        let content = (Some(noise(timestamp, 200)), None);
        shard.insert(&key(number), timestamp, &content);
        model.put(&key(number), timestamp, content);
    }
    shard.seal(model.last(), Vec::new());
    rig.run(shard.flush(0)).expect("nothing fails here");
    delete_range(&shard, &mut model, &key(0), Some(&key(40)));
    seal_and_flush(&rig, &shard, &model);
    let watermark = model.last() + 1;
    let choice = shard.pick(watermark).expect("much is covered");
    assert_eq!(choice.inputs.len(), 2);
    // Where nothing can be read, nothing is.
    let tables = shard.tables();
    let covered = &tables.runs()[1][0];
    rig.memory
        .edit(covered.table.path(), |bytes| bytes[..4096].fill(0));
    let merged = rig.run(shard.merge(&choice, watermark, &|| true));
    assert!(merged.expect("the table is not read"));
    assert!(
        shard.tables().tree().tables().all(|info| info.versions == 1),
        "the shard's own"
    );
}

#[test]
fn tables_meet_where_a_range_tombstone_was_cut() {
    let rig = Rig::new(options(CompactionStrategy::Leveled));
    let shard = rig.open().expect("it is new");
    let mut model = Model::default();
    flush_keys(&rig, &shard, &mut model, 0..100);
    delete_range(&shard, &mut model, b"", None);
    flush_keys(&rig, &shard, &mut model, 0..100);
    // With readers of before, so that it stays, and is cut.
    rig.run(shard.merge_all(0)).expect("nothing fails here");
    let tables = shard.tables();
    let cut = tables
        .runs()
        .iter()
        .flatten()
        .filter(|open| open.info.range_tombstones > 0);
    assert!(cut.count() > 3, "{:?}", tables.tree());
    rig.run(shard.assert_is(&model, 0));
    let shard = rig.open().expect("the files are whole");
    rig.run(shard.assert_is(&model, 0));
}
