//! Faults of the simulated disk strike where they may, are counted, and can be repaired.

use std::io;
use std::path::Path;
use std::time::Duration;

use ostrakon::env::disk::BLOCK_BYTES;
use ostrakon::env::{Env, OpenMode};
use ostrakon_tests::sim::disk::DiskOperations;
use ostrakon_tests::sim::{CrashStyle, Fault, FaultAction, FaultKind, HostId, World};

use crate::support::{BLOCK, SECOND_NS, data, make_file, path, run, write_durable};

#[test]
fn operations_fail_linger_and_find_no_room_as_told() {
    let world = World::new(3);
    let host = world.add_host("one");
    run(&world, host, 1, |env: Env<()>| async move {
        make_file(&env, path(), 16).await;
    });
    let inflict = |kind: FaultAction| world.inflict(&Fault { at_ns: 0, host, kind });

    inflict(FaultAction::DiskError {
        operations: DiskOperations::Write,
        count: 1,
    });
    inflict(FaultAction::DiskSlow {
        factor: 300,
        duration_ns: SECOND_NS,
    });
    run(&world, host, 1, |env: Env<()>| async move {
        let failed = write_durable(&env, path(), 1, 0).await.unwrap_err();
        assert!(
            failed.to_string().contains("can't write /data/file at offset 0"),
            "{failed}"
        );
        // Opening, writing and closing take 40 microseconds at least on a healthy disk.
        let before = env.clock.monotonic();
        write_durable(&env, path(), 1, 0).await.unwrap();
        let took_ns = env.clock.monotonic().since_ns(before);
        assert!(took_ns >= 300 * 40_000, "{took_ns}");
        env.tasks.sleep(Duration::from_secs(1)).await;
        let before = env.clock.monotonic();
        write_durable(&env, path(), 1, 0).await.unwrap();
        let took_ns = env.clock.monotonic().since_ns(before);
        assert!(took_ns < 300 * 40_000, "{took_ns}");
    });
    inflict(FaultAction::DiskFull {
        free_bytes: 0,
        duration_ns: SECOND_NS,
    });
    run(&world, host, 1, |env: Env<()>| async move {
        assert_eq!(env.disk.free_bytes(data()).await.unwrap(), 0);
        let full = write_durable(&env, path(), 1, 16).await.unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        write_durable(&env, path(), 1, 0).await.unwrap();
        env.tasks.sleep(Duration::from_secs(2)).await;
        assert!(env.disk.free_bytes(data()).await.unwrap() > 0);
    });
    inflict(FaultAction::DiskHang {
        duration_ns: 3 * SECOND_NS,
    });
    run(&world, host, 1, |env: Env<()>| async move {
        let before = env.clock.monotonic();
        write_durable(&env, path(), 1, 0).await.unwrap();
        assert!(env.clock.monotonic().since_ns(before) >= 3 * SECOND_NS);
    });
    for kind in [
        FaultKind::DiskError,
        FaultKind::DiskFull,
        FaultKind::SlowDisk,
        FaultKind::HungDisk,
    ] {
        assert!(world.counters().get(kind) > 0, "{kind:?}");
    }
}

/// Makes a file and writes twelve blocks of it, each with its own byte.
fn write_twelve(world: &World, host: HostId, path: &Path) {
    run(world, host, 1, |env: Env<()>| {
        let path = path.to_owned();
        async move {
            make_file(&env, &path, 12).await;
            for block in 0..12 {
                write_durable(&env, &path, 100 + block as u8, block)
                    .await
                    .unwrap();
            }
        }
    });
}

#[test]
fn stored_bytes_go_wrong_where_they_are_covered_and_can_be_repaired() {
    let world = World::new(3);
    let host = world.add_host("one");
    let disk = world.disk(host);
    let inflict = |kind: FaultAction| {
        world.inflict(&Fault { at_ns: 0, host, kind });
    };
    for strike in [
        FaultAction::LostWrite,
        FaultAction::MisdirectedWrite,
        FaultAction::BitFlip,
    ] {
        let kind = match strike {
            FaultAction::LostWrite => FaultKind::LostWrite,
            FaultAction::MisdirectedWrite => FaultKind::MisdirectedWrite,
            _ => FaultKind::BitFlip,
        };
        inflict(strike);
        let struck = data().join(kind.name());
        write_twelve(&world, host, &struck);
        assert_eq!(world.counters().get(kind), 1, "{kind:?}");
        let damage = disk.outstanding_damage();
        assert!(!damage.is_empty(), "{kind:?}");
        let covered = damage
            .iter()
            .all(|record| record.kind == kind && record.offset < 9 * BLOCK);
        assert!(covered, "{damage:?}");
        assert_eq!(disk.repair_damage(), damage.len());
        assert!(disk.outstanding_damage().is_empty());
        let bytes = disk.read(&struck).unwrap();
        let is_right = |block: usize| bytes[block * BLOCK_BYTES] == 100 + block as u8;
        assert!((0..12).all(is_right), "{kind:?} is repaired");
    }
    inflict(FaultAction::LatentReadError);
    run(&world, host, 1, |env: Env<()>| async move {
        let mut unreadable = 0;
        for entry in env.disk.list(data()).await.unwrap() {
            let file = env
                .disk
                .open(&data().join(entry.name), OpenMode::Read)
                .await
                .unwrap();
            unreadable += u32::from(file.read_at(0, entry.len_bytes as usize).await.is_err());
            file.close().await.unwrap();
        }
        assert_eq!(unreadable, 1);
    });
    assert_eq!(world.counters().get(FaultKind::LatentReadError), 1);
}

#[test]
fn a_newest_write_is_never_struck_and_a_crash_cancels_fate() {
    let world = World::new(4);
    let host = world.add_host("one");
    run(&world, host, 1, |env: Env<()>| async move {
        make_file(&env, path(), 4).await;
    });
    world.inflict(&Fault {
        at_ns: 0,
        host,
        kind: FaultAction::LostWrite,
    });
    run(&world, host, 1, |env: Env<()>| async move {
        for block in 0..3 {
            write_durable(&env, path(), 1, block).await.unwrap();
        }
    });
    world.crash(host, CrashStyle::PowerLoss);
    run(&world, host, 1, |env: Env<()>| async move {
        write_durable(&env, path(), 1, 3).await.unwrap();
    });
    assert_eq!(world.counters().get(FaultKind::LostWrite), 0);
    assert!(
        world
            .disk(host)
            .read(path())
            .unwrap()
            .iter()
            .all(|byte| *byte == 1)
    );
}
