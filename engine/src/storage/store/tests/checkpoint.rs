//! Checkpoints: they outlast merges and power losses, and what fails or is released leaves nothing.

use std::io::ErrorKind;

use super::failures::fill;
use super::*;
use crate::env::testing::memory_disk::Fate;
use crate::storage::store::checkpoint::{
    checkpoint_directory, make_directory, remove_checkpoint, remove_checkpoints, sync_directory,
};

const ID: u64 = 0xABC;

async fn make(rig: &Rig, shard: &Shard) -> Result<(), StoreError> {
    let checkpoint = checkpoint_directory(Rig::data(), ID);
    make_directory(&rig.memory, Rig::data(), ID).await?;
    shard
        .files
        .link(&checkpoint, &shard.tables(), shard.flushed.get())
        .await?;
    sync_directory(&rig.memory, Rig::data(), ID).await
}

/// A shard with some tables, and what is in them.
fn some_tables(rig: &Rig) -> (Rc<Shard>, Model) {
    let shard = rig.open().expect("it is new");
    let mut model = Model::default();
    for _ in 0..3 {
        fill(&shard, &mut model, 60);
        rig.run(shard.flush(0)).expect("nothing fails here");
    }
    (shard, model)
}

#[test]
fn a_checkpoint_outlasts_the_tables_of_its_shard_and_a_power_loss() {
    let rig = Rig::new(options(CompactionStrategy::Leveled));
    let (shard, model) = some_tables(&rig);
    let last = model.last();
    let numbers: Vec<TableNumber> = shard.tables().tree().tables().map(|info| info.number).collect();
    let flushed = shard.flushed.get();
    rig.run(make(&rig, &shard)).expect("nothing fails here");

    // The shard goes on until it has none of these tables any more.
    let mut later = Model::default();
    while numbers.iter().any(|number| shard.tables().get(*number).is_some()) {
        later.put(b"", last + 1 + later.last(), (None, None));
        fill(&shard, &mut later, 60);
        rig.run(shard.flush(u64::MAX)).expect("nothing fails here");
        rig.run(shard.merge_all(u64::MAX)).expect("nothing fails here");
    }
    let files = rig.table_files();
    assert!(numbers.iter().all(|number| !files.contains(&table_path(*number))));
    rig.memory.power_loss(false, |_| Fate::Lost);

    let checkpoint = checkpoint_directory(Rig::data(), ID);
    let opened = rig.run(ShardFiles::open(&rig.env(), &checkpoint, SHARD));
    let opened = opened.expect("all is there");
    assert_eq!(opened.flushed, flushed);
    let linked = Shard::of(opened);
    let found: Vec<TableNumber> = linked.tables().tree().tables().map(|info| info.number).collect();
    assert_eq!(found, numbers);
    rig.run(linked.assert_is(&model, 0));
}

#[test]
fn a_checkpoint_that_fails_leaves_nothing_once_it_is_released() {
    let rig = Rig::new(options(CompactionStrategy::Leveled));
    let (shard, model) = some_tables(&rig);
    let files = rig.memory.files();
    let operations = [
        "create_dir",
        "link",
        "open",
        "fill",
        "sync",
        "close",
        "rename",
        "sync_dir",
    ];
    for operation in operations {
        let mut failed = 0;
        for skip in 0.. {
            rig.memory.inject(operation, skip, ErrorKind::Other);
            let outcome = rig.run(make(&rig, &shard));
            rig.memory.clear_injections();
            if outcome.is_ok() {
                break;
            }
            failed += 1;
            let removed = rig.run(remove_checkpoint(&rig.memory, Rig::data(), ID));
            removed.expect("nothing fails here");
            assert_eq!(rig.memory.files(), files, "{operation} {skip}");
        }
        assert!(failed > 0, "{operation}");
        rig.run(remove_checkpoint(&rig.memory, Rig::data(), ID))
            .expect("nothing fails here");
    }
    rig.memory.set_free_bytes(0);
    let refused = rig.run(make(&rig, &shard)).expect_err("there is no room");
    assert!(refused.is_disk_full(), "{refused}");
    rig.memory.set_free_bytes(u64::MAX);
    rig.run(remove_checkpoints(&rig.memory, Rig::data()))
        .expect("nothing fails here");
    // There is none any more, which is as well.
    for _ in 0..2 {
        rig.run(remove_checkpoint(&rig.memory, Rig::data(), ID))
            .expect("nothing fails here");
        rig.run(remove_checkpoints(&rig.memory, Rig::data()))
            .expect("nothing fails here");
    }
    assert_eq!(rig.memory.files(), files);
    rig.run(shard.assert_is(&model, 0));
}
