//! Tables that have other bytes than were written, or are not there.

use super::*;

/// Three tables with keys of their own, the first of which has blocks enough for a cursor to read ahead.
fn three_tables(rig: &Rig) -> (Rc<Shard>, Model) {
    let shard = rig.open().expect("it is new");
    let mut model = Model::default();
    for table in 0..3 {
        for number in 0..60 {
            let timestamp = model.last() + 1;
            let content = (Some(noise(timestamp, 100)), None);
            let key = key(table * 1000 + number);
            shard.insert(&key, timestamp, &content);
            model.put(&key, timestamp, content);
        }
        shard.seal(model.last(), Vec::new());
        rig.run(shard.flush(0)).expect("nothing fails here");
    }
    (shard, model)
}

/// Never merges by itself.
fn rig() -> Rig {
    let mut options = options(CompactionStrategy::Tiered);
    options.compaction.young_runs = 100;
    Rig::new(options)
}

fn assert_names(error: &TableError, path: &Path, flipped: usize) {
    let TableError::Damaged {
        path: found, damage, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(found, path);
    let distance = flipped as u64 - damage.offset;
    assert!(distance < 4096, "{flipped} was flipped: {damage}");
    let text = error.to_string();
    assert!(
        text.contains(&path.display().to_string()) && text.contains("offset"),
        "{text}"
    );
}

#[test]
fn a_flipped_bit_fails_what_needs_it_and_nothing_else() {
    let rig = rig();
    let (shard, model) = three_tables(&rig);
    let damaged = table_path(shard.tables().tree().young[1][0].number);
    let file_bytes = rig.memory.content(&damaged).len();
    let mut harmless = 0;
    for at in (0..file_bytes).step_by(61) {
        rig.memory.flip(&damaged, at, (at % 8) as u32);
        match rig.open() {
            Err(StoreError::Table(error)) => assert_names(&error, &damaged, at),
            Err(error) => panic!("{error}"),
            Ok(shard) => harmless += u32::from(!is_met(&rig, &shard, &model, &damaged, at)),
        }
        rig.memory.flip(&damaged, at, (at % 8) as u32);
    }
    assert!(harmless < 4096 / 61, "{harmless} flips had no effect");
}

/// Reads all keys, and merges each table; true if something met the damage.
fn is_met(rig: &Rig, shard: &Shard, model: &Model, damaged: &Path, at: usize) -> bool {
    let mut missed = 0;
    for key in model.keys() {
        match rig.run(shard.find(&key, u64::MAX)) {
            Ok(found) => assert_eq!(found, model.newest(&key, u64::MAX)),
            Err(error) => {
                assert_names(&error, damaged, at);
                missed += 1;
            }
        }
    }
    assert!(missed <= 60, "the other tables are whole");
    let files = rig.memory.files();
    let mut is_met = missed > 0;
    let infos: Vec<_> = shard.tables().tree().tables().cloned().collect();
    for info in infos {
        let choice = Choice {
            reason: ostrakon_core::lsm::Reason::Size,
            inputs: vec![info.number],
            output: ostrakon_core::lsm::Place::Young,
            is_move: false,
        };
        let path = table_path(info.number);
        match rig.run(
            shard
                .files
                .merge(&shard.tables(), &choice, Timestamp(0), &|| true),
        ) {
            Ok(merged) => {
                assert!(path != damaged || missed == 0, "a merge reads all blocks");
                rig.run(async {
                    for table in merged.expect("it is wanted").opened {
                        table.close().await.expect("nothing fails here");
                        shard
                            .files
                            .remove_table(table.id().number)
                            .await
                            .expect("nothing fails here");
                    }
                });
            }
            Err(StoreError::Table(error)) => {
                assert_eq!(path, damaged);
                assert_names(&error, damaged, at);
                is_met = true;
            }
            Err(error) => panic!("{error}"),
        }
        assert_eq!(rig.memory.files(), files);
    }
    is_met
}

#[test]
fn a_walk_reaches_what_lies_before_the_damage() {
    let rig = rig();
    let (shard, model) = three_tables(&rig);
    let table = Rc::clone(&shard.tables().runs()[2][0].table);
    let blocks_end = rig.memory.content(table.path()).len() - 4096;
    for at in (0..blocks_end / 2).step_by(257) {
        rig.memory.flip(table.path(), at, 0);
        let table = Rc::clone(&rig.open().expect("its ends are whole").tables().runs()[2][0].table);
        for access in [Access::Cached, Access::Bypass] {
            let mut cursor = TableCursor::new(Rc::clone(&table), access);
            let mut walked = 0;
            let error = rig.run(async {
                cursor.seek_to_first()?;
                loop {
                    cursor.settle().await?;
                    assert!(cursor.is_valid(), "the damage comes first");
                    let (key, found) = (
                        users_key(cursor.key()).expect("a user's"),
                        owned(&cursor.version()),
                    );
                    assert_eq!(model.newest(key, u64::MAX), Some(found));
                    walked += 1;
                    cursor.next()?;
                }
                #[expect(unreachable_code, reason = "names the type")]
                Ok::<(), TableError>(())
            });
            let error = error.expect_err("a block is damaged");
            assert_names(&error, table.path(), at);
            assert!(!cursor.is_valid(), "after an error it is nowhere");
            cursor.next().expect("there is nothing to read");
            assert!(
                !cursor.is_valid() && !cursor.is_unsettled(),
                "the damage is not passed over"
            );
            // A version takes less than 140 bytes, and a block has three at most.
            assert!((walked + 3) * 140 > at, "{walked} versions before {at}");
        }
        rig.memory.flip(table.path(), at, 0);
    }
}

#[test]
fn a_missing_table_is_named() {
    let rig = rig();
    let (shard, _) = three_tables(&rig);
    rig.run(shard.files.close(&shard.tables()))
        .expect("nothing fails here");
    for open in shard.tables().runs().iter().flatten() {
        let path = table_path(open.info.number);
        let bytes = rig.memory.content(&path);
        rig.memory.take_file(&path);
        let error = rig.open().err().expect("a table is missing").to_string();
        assert!(error.starts_with("cannot read /data/shard/0003/"), "{error}");
        assert!(
            error.contains(&table_name(open.info.number)) && error.contains("not found"),
            "{error}"
        );
        assert_eq!(rig.memory.open_files(), 0);
        rig.memory.put_file(&path, bytes);
    }
    rig.open().expect("they are back");
}

#[test]
fn tables_without_a_manifest_are_not_thrown_away() {
    let rig = rig();
    let (_, model) = three_tables(&rig);
    let manifest = shard_directory(Rig::data(), SHARD).join(crate::storage::manifest::MANIFEST);
    let bytes = rig.memory.content(&manifest);
    rig.memory.take_file(&manifest);
    let files = rig.memory.files();
    let error = rig.open().err().expect("the manifest is missing").to_string();
    assert!(
        error.contains("/data/shard/0003/manifest") && error.contains("missing"),
        "{error}"
    );
    assert_eq!(rig.memory.files(), files);
    rig.memory.put_file(&manifest, bytes);
    let shard = rig.open().expect("it is back");
    rig.run(shard.assert_is(&model, 0));
}
