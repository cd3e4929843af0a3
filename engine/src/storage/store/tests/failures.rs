//! Operations of the disk that fail, at every place of a flush, a merge and an opening.

use std::io::ErrorKind;

use super::*;

/// The operations of the disk that flushes and merges consist of.
const OPERATIONS: [&str; 6] = ["open", "fill", "sync", "close", "sync_dir", "read"];

/// Adds a run: `keys` keys with values that fill several tables.
pub(super) fn fill(shard: &Shard, model: &mut Model, keys: u32) {
    for number in 0..keys {
        let timestamp = model.last() + 1;
        let content = (Some(noise(timestamp, 300)), None);
        shard.insert(&key(number), timestamp, &content);
        model.put(&key(number), timestamp, content);
    }
    shard.seal(
        model.last(),
        vec![(vec![OWN, b'S'], Some(vec![model.last() as u8]))],
    );
}

/// Lets each operation of an attempt fail, one after the other, until an attempt meets none that fails.
fn fail_everywhere(
    rig: &Rig,
    shard: &Rc<Shard>,
    attempt: impl AsyncFn() -> Result<(), StoreError>,
    mut prepare: impl FnMut(),
) -> u32 {
    let mut failed = 0;
    for operation in OPERATIONS {
        for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
            for skip in 0.. {
                prepare();
                let before = shard.tables();
                let (files, open_files) = (rig.memory.files(), rig.memory.open_files());
                rig.memory.inject(operation, skip, kind);
                let outcome = rig.run(attempt());
                rig.memory.clear_injections();
                let Err(error) = outcome else { break };
                failed += 1;
                let is_full = kind == ErrorKind::StorageFull && !matches!(error, StoreError::Table(_));
                assert_eq!(error.is_disk_full(), is_full, "{operation} {skip}: {error}");
                assert!(error.to_string().contains("/data/shard/0003"), "{error}");
                assert!(Rc::ptr_eq(&before, &shard.tables()), "nothing has changed");
                assert_eq!(rig.memory.open_files(), open_files, "{operation} {skip}: {error}");
                assert_eq!(rig.memory.files(), files, "{operation} {skip}: {error}");
            }
        }
    }
    failed
}

#[test]
fn a_flush_that_fails_changes_nothing_and_the_next_one_succeeds() {
    let rig = Rig::new(options(CompactionStrategy::Leveled));
    let shard = rig.open().expect("it is new");
    let model = RefCell::new(Model::default());
    let prepare = || {
        if shard.store.borrow().sealed().len() == 0 {
            fill(&shard, &mut model.borrow_mut(), 900);
        }
    };
    let failed = fail_everywhere(&rig, &shard, async || shard.flush(0).await, prepare);
    // Creating, two writes, a sync, a close, a sync of the directory, and opening again with its four reads.
    assert_eq!(failed, 2 * 11);
    assert_eq!(shard.tables().tree().young.len(), 2 * OPERATIONS.len());
    let model = model.into_inner();
    rig.run(shard.assert_is(&model, model.last() - 5));
    rig.assert_no_orphans(&shard);
}

#[test]
fn a_merge_that_fails_changes_nothing_and_the_next_one_succeeds() {
    for strategy in [CompactionStrategy::Leveled, CompactionStrategy::Tiered] {
        let rig = Rig::new(options(strategy));
        let shard = rig.open().expect("it is new");
        let model = RefCell::new(Model::default());
        let prepare = || {
            rig.run(shard.files.remove_obsolete())
                .expect("nothing fails here");
            while shard.pick(0).is_none_or(|choice| choice.is_move) {
                fill(&shard, &mut model.borrow_mut(), 30);
                rig.run(shard.flush(0)).expect("nothing fails here");
            }
        };
        let attempt = async || {
            let choice = shard.pick(0).expect("there is something to merge");
            assert!(shard.merge(&choice, 0, &|| true).await?, "it is wanted");
            Ok(())
        };
        let failed = fail_everywhere(&rig, &shard, attempt, prepare);
        assert!(failed > 60, "{failed}");
        let model = model.into_inner();
        rig.run(shard.files.remove_obsolete())
            .expect("nothing fails here");
        rig.run(shard.assert_is(&model, model.last() - 5));
        rig.assert_no_orphans(&shard);
    }
}

#[test]
fn a_table_that_cannot_be_removed_is_removed_at_the_next_start() {
    let rig = Rig::new(options(CompactionStrategy::Leveled));
    let shard = rig.open().expect("it is new");
    let mut model = Model::default();
    fill(&shard, &mut model, 10);
    rig.memory.inject("sync", 0, ErrorKind::Other);
    rig.memory.inject("remove", 0, ErrorKind::PermissionDenied);
    let error = rig.run(shard.flush(0)).expect_err("it was made to fail");
    assert!(
        matches!(error, StoreError::Write(_)),
        "the first error tells: {error}"
    );
    assert_eq!(rig.table_files().len(), 1, "it can't be removed");
    rig.run(shard.flush(0)).expect("nothing fails any more");
    assert_eq!(rig.table_files().len(), 2);
    let used = shard
        .tables()
        .tree()
        .tables()
        .next()
        .expect("there is one")
        .number;
    let reopened = rig.open().expect("the files are whole");
    rig.assert_no_orphans(&reopened);
    rig.run(reopened.assert_is(&model, 0));
    fill(&reopened, &mut model, 10);
    rig.run(reopened.flush(0)).expect("nothing fails here");
    let tables = reopened.tables();
    assert!(
        tables.tree().tables().all(|info| info.number >= used),
        "numbers are not used again"
    );
}

#[test]
fn an_obsolete_table_that_cannot_be_removed_does_not_keep_others() {
    let rig = Rig::new(options(CompactionStrategy::Tiered));
    let shard = rig.open().expect("it is new");
    let mut model = Model::default();
    for _ in 0..2 {
        fill(&shard, &mut model, 20);
        rig.run(shard.flush(0)).expect("nothing fails here");
    }
    let choice = shard.pick(0).expect("there are two runs");
    assert!(
        rig.run(shard.merge(&choice, 0, &|| true))
            .expect("nothing fails here")
    );
    rig.memory.inject("remove", 0, ErrorKind::PermissionDenied);
    let error = rig
        .run(shard.files.remove_obsolete())
        .expect_err("it was made to fail");
    assert!(error.to_string().contains("cannot remove"), "{error}");
    rig.run(shard.files.remove_obsolete())
        .expect("nothing fails any more");
    let count = shard.tables().tree().tables().count();
    assert_eq!(rig.table_files().len(), count + 1, "one is left");
    assert_eq!(rig.memory.open_files(), count + 1, "but closed");
    rig.assert_no_orphans(&rig.open().expect("the files are whole"));
}

#[test]
fn an_opening_that_fails_leaves_no_file_open() {
    let rig = Rig::new(options(CompactionStrategy::Tiered));
    let shard = rig.open().expect("it is new");
    let mut model = Model::default();
    fill(&shard, &mut model, 20);
    rig.run(shard.flush(0)).expect("nothing fails here");
    rig.run(shard.files.close(&shard.tables()))
        .expect("nothing fails here");
    rig.memory.put_file(&table_path(TableNumber(77)), vec![0; 4096]);
    for operation in ["open", "list", "read", "sync", "sync_dir", "remove", "close"] {
        for skip in 0.. {
            rig.memory.inject(operation, skip, ErrorKind::Other);
            let opened = rig.open();
            rig.memory.clear_injections();
            let error = match opened {
                Err(error) => error,
                Ok(shard) => {
                    rig.run(shard.assert_is(&model, 0));
                    rig.run(shard.files.close(&shard.tables()))
                        .expect("nothing fails any more");
                    break;
                }
            };
            assert!(error.to_string().contains("/data/shard/0003"), "{error}");
            assert_eq!(rig.memory.open_files(), 0, "{operation} {skip}: {error}");
        }
        rig.memory.put_file(&table_path(TableNumber(77)), vec![0; 4096]);
    }
}

#[test]
fn after_a_note_that_failed_none_is_taken_until_the_next_start() {
    for operation in ["write", "written"] {
        let rig = Rig::new(options(CompactionStrategy::Tiered));
        let shard = rig.open().expect("it is new");
        let mut model = Model::default();
        fill(&shard, &mut model, 10);
        rig.run(shard.flush(0)).expect("nothing fails here");
        let before = (shard.flushed.get(), shard.tables());
        fill(&shard, &mut model, 10);
        rig.memory.inject(operation, 0, ErrorKind::Other);
        let error = rig.run(shard.flush(0)).expect_err("it was made to fail");
        assert!(matches!(error, StoreError::Manifest(_)), "{error}");
        let again = rig
            .run(shard.flush(0))
            .expect_err("nobody knows what the manifest says");
        assert!(again.to_string().contains("start again"), "{again}");
        assert!(Rc::ptr_eq(&before.1, &shard.tables()), "nothing was installed");
        let reopened = rig.open().expect("the files are whole");
        assert!([before.0, entry(model.last())].contains(&reopened.flushed.get()));
        rig.assert_no_orphans(&reopened);
        rig.run(reopened.assert_is(&model.through(reopened.flushed.get().index.0), 0));
    }
}
