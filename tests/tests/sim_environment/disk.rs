//! The simulated disk keeps its promises, and a crash takes what was not promised.

use std::collections::BTreeSet;
use std::io;

use ostrakon::env::disk::BLOCK_BYTES;
use ostrakon::env::{Env, OpenMode};
use ostrakon_tests::sim::{Counters, CrashPoint, CrashStyle, FaultKind, HostId, RunEnd, World};

use crate::support::{BLOCK, SECOND_NS, data, filled, make_file, path, run, run_alone, start, write_durable};

#[test]
fn files_keep_what_is_written_and_names_follow_the_rules() {
    run_alone(1, |env| async move {
        let disk = &env.disk;
        let file = disk.open(path(), OpenMode::CreateNew).await.unwrap();
        file.write_at(filled(&env, 1, 2), 0).await.unwrap();
        file.write_at(filled(&env, 2, 1), BLOCK).await.unwrap();
        assert_eq!(file.len_bytes(), 2 * BLOCK);
        let again = disk
            .open(path(), OpenMode::CreateNew)
            .await
            .map(drop)
            .unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        file.close().await.unwrap();

        let file = disk.open(path(), OpenMode::Read).await.unwrap();
        let read = file.read_at(0, 2 * BLOCK_BYTES).await.unwrap();
        assert_eq!((read.bytes()[0], read.bytes()[BLOCK_BYTES]), (1, 2));
        let past = file.read_at(BLOCK, 2 * BLOCK_BYTES).await.map(drop).unwrap_err();
        assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
        assert!(
            file.write_at(filled(&env, 3, 1), 0).await.is_err(),
            "it is open for reading"
        );
        file.close().await.unwrap();

        let (other, below) = (data().join("other"), data().join("directory"));
        make_file(&env, &other, 4).await;
        disk.rename(path(), &other).await.unwrap();
        let missing = disk.open(path(), OpenMode::Read).await.map(drop).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        disk.create_dir(&below).await.unwrap();
        disk.create_dir(&below).await.unwrap();
        make_file(&env, &below.join("leaf"), 1).await;
        assert!(disk.remove_dir(&below).await.is_err(), "it isn't empty");
        assert!(disk.remove(&below).await.is_err(), "it is a directory");
        let mut entries = disk.list(data()).await.unwrap();
        entries.sort_by(|one, two| one.name.cmp(&two.name));
        let seen: Vec<_> = entries
            .iter()
            .map(|entry| (&entry.name[..], entry.len_bytes, entry.is_dir))
            .collect();
        assert_eq!(seen, [("directory", 0, true), ("other", 2 * BLOCK, false)]);
        disk.remove(&below.join("leaf")).await.unwrap();
        disk.remove_dir(&below).await.unwrap();
    });
}

/// Writes and crashes, for every seed below `seeds`; `look` judges what is left.
fn crash_many<F: Future<Output = ()> + 'static>(
    seeds: u64,
    style: CrashStyle,
    main: impl Fn(Env<()>) -> F + Copy,
    mut look: impl FnMut(&World, HostId),
) -> Vec<FaultKind> {
    let mut counters = Counters::default();
    for seed in 0..seeds {
        let (world, host) = run_alone(seed, main);
        world.crash(host, style);
        look(&world, host);
        counters.add_all(&world.counters());
    }
    counters
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(kind, _)| kind)
        .collect()
}

#[test]
fn durable_writes_survive_a_power_loss_and_others_may_be_kept_lost_or_torn() {
    let (mut kept, mut lost, mut torn) = (0, 0, 0);
    let main = |env: Env<()>| async move {
        make_file(&env, path(), 8).await;
        write_durable(&env, path(), 7, 2).await.unwrap();
        let file = env
            .disk
            .open(&data().join("loose"), OpenMode::CreateNew)
            .await
            .unwrap();
        file.write_at(filled(&env, 1, 1), 0).await.unwrap();
        file.sync().await.unwrap();
        env.disk.sync_dir(data()).await.unwrap();
        file.write_at(filled(&env, 9, 1), 0).await.unwrap();
        file.close().await.unwrap();
    };
    let kinds = crash_many(60, CrashStyle::PowerLoss, main, |world, host| {
        let durable = world.disk(host).read(path()).unwrap();
        assert_eq!(durable.len() as u64, 8 * BLOCK);
        assert!(
            durable[2 * BLOCK_BYTES..3 * BLOCK_BYTES]
                .iter()
                .all(|byte| *byte == 7)
        );
        let loose = world.disk(host).read(&data().join("loose")).unwrap();
        let new = loose
            .chunks(512)
            .filter(|sector| sector.iter().all(|byte| *byte == 9))
            .count();
        let old = loose
            .chunks(512)
            .filter(|sector| sector.iter().all(|byte| *byte == 1))
            .count();
        assert_eq!(new + old, 8, "sectors are whole");
        match new {
            0 => lost += 1,
            8 => kept += 1,
            _ => torn += 1,
        }
    });
    assert!(kept > 0 && lost > 0 && torn > 0, "{kept} {lost} {torn}");
    for kind in [
        FaultKind::UnsyncedWriteKept,
        FaultKind::UnsyncedWriteDropped,
        FaultKind::UnsyncedWriteTorn,
    ] {
        assert!(kinds.contains(&kind), "{kind:?}");
    }
}

#[test]
fn writes_in_flight_are_kept_lost_or_torn_and_a_kill_keeps_the_page_cache() {
    let mut found = Vec::new();
    for seed in 0..60 {
        let world = World::new(seed);
        let host = world.add_host("one");
        run(&world, host, 1, |env: Env<()>| async move {
            make_file(&env, path(), 4).await;
        });
        let main = |env: Env<()>| async move { write_durable(&env, path(), 5, 0).await.unwrap() };
        start(&world, host, 1, main);
        let is_writing =
            |world: &World| world.disk(host).in_flight() == 1 && world.disk(host).sync_operations() == 3;
        assert_eq!(world.run_until(SECOND_NS, is_writing), RunEnd::Met);
        world.crash(host, CrashStyle::PowerLoss);
        let bytes = world.disk(host).read(path()).unwrap();
        found.push(bytes.chunks(512).filter(|sector| sector[0] == 5).count());
    }
    assert!(
        found.contains(&0) && found.contains(&8) && found.iter().any(|count| (1..8).contains(count)),
        "{found:?}"
    );

    let main = |env: Env<()>| async move {
        let file = env.disk.open(path(), OpenMode::CreateNew).await.unwrap();
        file.write_at(filled(&env, 3, 1), 0).await.unwrap();
        file.close().await.unwrap();
    };
    crash_many(20, CrashStyle::ProcessKill, main, |world, host| {
        assert_eq!(world.disk(host).read(path()).unwrap()[0], 3);
    });
}

#[test]
fn names_last_once_their_directory_is_synced() {
    let (old, new, gone) = (data().join("old"), data().join("new"), data().join("gone"));
    let main = |env: Env<()>| async move {
        make_file(&env, &data().join("old"), 1).await;
        make_file(&env, &data().join("gone"), 1).await;
        let file = env
            .disk
            .open(&data().join("unsynced"), OpenMode::CreateNew)
            .await
            .unwrap();
        file.sync().await.unwrap();
        file.close().await.unwrap();
        env.disk
            .rename(&data().join("old"), &data().join("new"))
            .await
            .unwrap();
        env.disk.remove(&data().join("gone")).await.unwrap();
    };
    let mut seen = BTreeSet::new();
    let kinds = crash_many(80, CrashStyle::PowerLoss, main, |world, host| {
        let names: Vec<_> = world
            .disk(host)
            .files()
            .into_iter()
            .map(|(path, _)| path)
            .collect();
        assert!(
            names.contains(&old) != names.contains(&new),
            "a rename is one or the other: {names:?}"
        );
        seen.insert((
            names.contains(&old),
            names.contains(&gone),
            names.contains(&data().join("unsynced")),
        ));
    });
    assert!(seen.len() >= 6, "{seen:?}");
    for kind in [
        FaultKind::UnsyncedCreateUndone,
        FaultKind::UnsyncedRenameUndone,
        FaultKind::UnsyncedUnlinkUndone,
    ] {
        assert!(kinds.contains(&kind), "{kind:?}");
    }
    let synced = |env: Env<()>| async move {
        make_file(&env, &data().join("old"), 1).await;
        env.disk
            .rename(&data().join("old"), &data().join("new"))
            .await
            .unwrap();
        let below = data().join("below");
        env.disk.create_dir(&below).await.unwrap();
        make_file(&env, &below.join("leaf"), 1).await;
        env.disk.sync_dir(data()).await.unwrap();
        env.disk.remove(&below.join("leaf")).await.unwrap();
        env.disk.remove_dir(&below).await.unwrap();
        env.disk.sync_dir(data()).await.unwrap();
    };
    crash_many(40, CrashStyle::PowerLoss, synced, |world, host| {
        assert_eq!(world.disk(host).files(), [(new.clone(), BLOCK)]);
    });
}

#[test]
fn links_last_once_their_directory_is_synced_and_keep_the_bytes_of_a_name_that_went() {
    let (old, link) = (data().join("old"), data().join("link"));
    let linked = |is_synced: bool| {
        move |env: Env<()>| async move {
            let (old, link) = (data().join("old"), data().join("link"));
            make_file(&env, &old, 1).await;
            env.disk.sync_dir(data()).await.unwrap();
            env.disk.link(&old, &link).await.unwrap();
            let again = env.disk.link(&old, &link).await.unwrap_err();
            assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
            if is_synced {
                env.disk.sync_dir(data()).await.unwrap();
                env.disk.remove(&old).await.unwrap();
                env.disk.sync_dir(data()).await.unwrap();
            }
        }
    };
    let mut seen = BTreeSet::new();
    crash_many(40, CrashStyle::PowerLoss, linked(false), |world, host| {
        let disk = world.disk(host);
        assert!(disk.read(&old).is_some());
        seen.insert(disk.read(&link).map(|bytes| bytes == disk.read(&old).unwrap()));
    });
    assert_eq!(seen, BTreeSet::from([None, Some(true)]));
    crash_many(40, CrashStyle::PowerLoss, linked(true), |world, host| {
        let disk = world.disk(host);
        assert!(disk.read(&old).is_none() && disk.read(&link).is_some());
    });
}

#[test]
fn a_disk_stops_before_during_and_after_a_sync() {
    for (point, expected) in [
        (CrashPoint::Before, [0, 0]),
        (CrashPoint::During, [0, 8]),
        (CrashPoint::After, [8, 8]),
    ] {
        for seed in 0..20 {
            let (world, host) = run_alone(seed, |env| async move { make_file(&env, path(), 1).await });
            let disk = world.disk(host);
            disk.crash_at_sync(disk.sync_operations(), point);
            start(&world, host, 1, |env: Env<()>| async move {
                write_durable(&env, path(), 6, 0).await.unwrap();
                panic!("the disk was to stop");
            });
            assert_eq!(
                world.run_until(10 * SECOND_NS, World::is_crash_wanted),
                RunEnd::Met
            );
            assert!(disk.is_frozen());
            assert_eq!(world.take_crash_wanted(), [host]);
            world.crash(host, CrashStyle::PowerLoss);
            let sectors = disk
                .read(path())
                .unwrap()
                .chunks(512)
                .filter(|sector| sector[0] == 6)
                .count();
            assert!(
                (expected[0]..=expected[1]).contains(&sectors),
                "{point:?}: {sectors} sectors"
            );
            assert!(!disk.is_frozen());
        }
    }
}

#[test]
fn a_snapshot_brings_a_disk_back() {
    let (world, host) = run_alone(5, |env| async move {
        make_file(&env, path(), 2).await;
        write_durable(&env, path(), 1, 0).await.unwrap();
    });
    let disk = world.disk(host);
    let snapshot = disk.snapshot();
    disk.flip(path(), 10, 3);
    run(&world, host, 1, |env: Env<()>| async move {
        write_durable(&env, path(), 2, 1).await.unwrap();
    });
    disk.restore(&snapshot);
    let bytes = disk.read(path()).unwrap();
    assert_eq!((bytes[10], bytes[BLOCK_BYTES]), (1, 0));
    assert!(disk.outstanding_damage().is_empty());
}
