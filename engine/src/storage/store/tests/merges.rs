//! Merges that nobody wants any more, and how tables are compressed that nothing lies below.

use super::*;

#[test]
fn a_merge_that_is_given_up_at_any_key_leaves_nothing() {
    let rig = Rig::new(options(CompactionStrategy::Leveled));
    let shard = rig.open().expect("it is new");
    let mut model = Model::default();
    for run in 0..2 {
        for number in 0..40 {
            let timestamp = model.last() + 1;
            let content = (Some(noise(timestamp, 400 + run)), None);
            shard.insert(&key(number), timestamp, &content);
            model.put(&key(number), timestamp, content);
        }
        shard.seal(model.last(), Vec::new());
        rig.run(shard.flush(0)).expect("nothing fails here");
    }
    let choice = shard.pick(0).expect("there are two young runs");
    let (files, open_files) = (rig.memory.files(), rig.memory.open_files());
    let before = shard.tables();
    for calls in 0_u32.. {
        let left = Cell::new(calls);
        let is_wanted = || left.replace(left.get().saturating_sub(1)) > 0;
        if rig
            .run(shard.merge(&choice, 0, &is_wanted))
            .expect("nothing fails here")
        {
            assert_eq!(calls, 40, "it is asked at each key");
            break;
        }
        assert!(Rc::ptr_eq(&before, &shard.tables()), "nothing has changed");
        assert_eq!(
            (rig.memory.files(), rig.memory.open_files()),
            (files.clone(), open_files)
        );
    }
    assert!(
        shard.tables().tree().tables().count() > 2,
        "it makes several tables"
    );
    drop(before);
    rig.run(shard.files.remove_obsolete())
        .expect("nothing fails here");
    rig.assert_no_orphans(&shard);
    rig.run(shard.assert_is(&model, 0));
}

#[test]
fn tables_that_nothing_lies_below_are_compressed_in_their_own_way() {
    for strategy in [CompactionStrategy::Leveled, CompactionStrategy::Tiered] {
        let mut options = options(strategy);
        options.tables.codec = Codec::Plain;
        options.last_level_codec = Some(Codec::Zstd);
        options.table_bytes = 1 << 20;
        options.compaction.merge_bytes_max = 1 << 30;
        let rig = Rig::new(options);
        let shard = rig.open().expect("it is new");
        let flush = |timestamp: u64| {
            for number in 0..1000 {
                shard.insert(&key(number), timestamp, &(Some(vec![b'v'; 200]), None));
            }
            shard.seal(timestamp, Vec::new());
            rig.run(shard.flush(0)).expect("nothing fails here");
        };
        (1..3).for_each(flush);
        let flushed_bytes = shard.tables().tree().bytes();
        rig.run(shard.merge_all(2)).expect("nothing fails here");
        let merged_bytes = shard.tables().tree().bytes();
        assert!(
            merged_bytes * 8 < flushed_bytes,
            "{strategy:?}: {merged_bytes} of {flushed_bytes}"
        );
        // Above them, they are not.
        (3..5).for_each(flush);
        let numbers: Vec<TableNumber> = [0, 1]
            .map(|place| shard.tables().tree().young[place][0].number)
            .into();
        let choice = Choice {
            reason: ostrakon_core::lsm::Reason::Size,
            inputs: numbers,
            output: ostrakon_core::lsm::Place::Young,
            is_move: false,
        };
        assert!(
            rig.run(shard.merge(&choice, 4, &|| true))
                .expect("nothing fails here")
        );
        let merged_bytes = shard.tables().tree().young[0][0].bytes;
        assert!(
            merged_bytes * 3 > flushed_bytes,
            "{strategy:?}: {merged_bytes} of {flushed_bytes}"
        );
    }
}
