//! Each kind of fault that is aimed at a disk operation strikes that one, and does what it says.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use ostrakon::env::disk::BLOCK_BYTES;
use ostrakon::env::{Env, OpenMode};
use ostrakon_tests::sim::{
    CrashPoint, CrashStyle, FaultAt, FaultAtKind, FaultKind, HostId, ProcessStatus, RunEnd, World,
};

use crate::support::{BLOCK, SECOND_NS, filled, make_file, path, run, start, write_durable};

/// A host whose file has twelve blocks, each written durably with its own byte from 100 on.
fn prepared(seed: u64) -> (World, HostId) {
    let world = World::new(seed);
    let host = world.add_host("one");
    run(&world, host, 1, |env: Env<()>| async move {
        make_file(&env, path(), 12).await;
        for block in 0..12 {
            write_durable(&env, path(), 100 + block as u8, block)
                .await
                .unwrap();
        }
    });
    (world, host)
}

/// Aims at the operation that comes after `skipped` others.
fn aim(world: &World, host: HostId, skipped: u64, kind: FaultAtKind) -> FaultAt {
    let fault = FaultAt {
        host,
        operation: world.disk(host).operations() + skipped,
        kind,
        is_network: false,
    };
    world.schedule_at(fault.clone());
    assert!(!world.has_struck(&fault));
    fault
}

async fn read_block(env: &Env<()>, block: u64) -> io::Result<Vec<u8>> {
    let file = env.disk.open(path(), OpenMode::Read).await?;
    let bytes = file.read_at(block * BLOCK, BLOCK_BYTES).await;
    file.close().await?;
    bytes.map(|bytes| bytes.bytes().to_vec())
}

fn stored(world: &World, host: HostId, block: usize) -> Vec<u8> {
    let bytes = world.disk(host).read(path()).unwrap();
    bytes[block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES].to_vec()
}

/// Bits in which two runs of bytes differ.
fn differing_bits(one: &[u8], other: &[u8]) -> u32 {
    let pairs = one.iter().zip(other);
    pairs.map(|(one, other)| (one ^ other).count_ones()).sum()
}

#[test]
fn errors_and_a_full_disk_fail_one_write() {
    for (kind, expected, counted) in [
        (FaultAtKind::DiskError, libc::EIO, FaultKind::DiskError),
        (FaultAtKind::DiskFull, libc::ENOSPC, FaultKind::DiskFull),
    ] {
        let (world, host) = prepared(21);
        // The second of three writes; each opens, writes, closes.
        let fault = aim(&world, host, 4, kind);
        run(&world, host, 1, move |env: Env<()>| async move {
            write_durable(&env, path(), 1, 0).await.unwrap();
            let failed = write_durable(&env, path(), 2, 1).await.unwrap_err();
            assert_eq!(failed.kind(), io::Error::from_raw_os_error(expected).kind());
            write_durable(&env, path(), 3, 2).await.unwrap();
        });
        assert!(world.has_struck(&fault));
        assert_eq!(world.counters().get(counted), 1);
        assert_eq!((stored(&world, host, 0)[0], stored(&world, host, 2)[0]), (1, 3));
    }
}

/// How long each of three writes takes, in virtual nanoseconds, when a fault is aimed at the second.
fn durations_ns(kind: FaultAtKind) -> (World, FaultAt, Vec<u64>) {
    let (world, host) = prepared(22);
    let fault = aim(&world, host, 4, kind);
    let durations: Rc<RefCell<Vec<u64>>> = Rc::default();
    let noted = Rc::clone(&durations);
    run(&world, host, 1, move |env: Env<()>| {
        let noted = Rc::clone(&noted);
        async move {
            for block in 0..3 {
                let before = env.clock.monotonic();
                write_durable(&env, path(), 1, block).await.unwrap();
                noted.borrow_mut().push(env.clock.monotonic().since_ns(before));
            }
        }
    });
    let durations = durations.take();
    (world, fault, durations)
}

#[test]
fn slowness_and_hanging_delay_one_operation() {
    let slow = (FaultAtKind::DiskSlow(1_000), FaultKind::SlowDisk, 20_000_000);
    let hung = (
        FaultAtKind::DiskHang(3 * SECOND_NS),
        FaultKind::HungDisk,
        3 * SECOND_NS,
    );
    for (kind, counted, at_least_ns) in [slow, hung] {
        let (world, fault, durations) = durations_ns(kind);
        assert!(durations[1] >= at_least_ns, "{fault:?}: {durations:?}");
        assert!(
            durations[0].max(durations[2]) < 15_000_000,
            "{fault:?}: {durations:?}"
        );
        assert!(world.has_struck(&fault));
        assert_eq!(world.counters().get(counted), 1);
    }
}

#[test]
fn a_crash_leaves_none_some_or_all_of_the_write() {
    for (point, sectors_min, sectors_max) in [
        (CrashPoint::Before, 0, 0),
        (CrashPoint::During, 0, 8),
        (CrashPoint::After, 8, 8),
    ] {
        let mut found = Vec::new();
        for seed in 0..20 {
            let (world, host) = prepared(seed);
            let fault = aim(&world, host, 1, FaultAtKind::Crash(point));
            start(&world, host, 1, |env: Env<()>| async move {
                write_durable(&env, path(), 6, 0).await.unwrap();
                panic!("the disk was to stop");
            });
            let end = world.run_until(world.now_ns() + SECOND_NS, World::is_crash_wanted);
            assert_eq!(end, RunEnd::Met, "{point:?}");
            assert!(world.has_struck(&fault));
            assert_eq!(world.take_crash_wanted(), [host]);
            world.crash(host, CrashStyle::PowerLoss);
            let block = stored(&world, host, 0);
            found.push(block.chunks(512).filter(|sector| sector[0] == 6).count());
        }
        let is_right = |count: &usize| (sectors_min..=sectors_max).contains(count);
        assert!(found.iter().all(is_right), "{point:?}: {found:?}");
        let (least, most) = (found.iter().min().unwrap(), found.iter().max().unwrap());
        assert_eq!((*least, *most), (sectors_min, sectors_max), "{point:?}");
    }
}

#[test]
fn damage_strikes_the_aimed_write_once_three_others_cover_it() {
    for (kind, counted) in [
        (FaultAtKind::LostWrite, FaultKind::LostWrite),
        (FaultAtKind::MisdirectedWrite, FaultKind::MisdirectedWrite),
        (FaultAtKind::BitFlip, FaultKind::BitFlip),
    ] {
        let (world, host) = prepared(23);
        let fault = aim(&world, host, 1, kind.clone());
        run(&world, host, 1, |env: Env<()>| async move {
            for block in 4..8 {
                write_durable(&env, path(), 50, block).await.unwrap();
            }
        });
        assert!(world.has_struck(&fault), "{kind:?}");
        assert_eq!(world.counters().get(counted), 1);
        let (block, damage) = (stored(&world, host, 4), world.disk(host).outstanding_damage());
        assert!(damage.iter().all(|record| record.kind == counted), "{damage:?}");
        assert!(
            damage.iter().any(|record| record.offset == 4 * BLOCK),
            "{damage:?}"
        );
        match counted {
            FaultKind::BitFlip => assert_eq!(differing_bits(&block, &[50; BLOCK_BYTES]), 1),
            _ => assert_eq!(block, [104; BLOCK_BYTES], "what was there before"),
        }
        let elsewhere = damage.iter().find(|record| record.offset != 4 * BLOCK);
        match elsewhere {
            Some(record) => {
                assert_eq!(counted, FaultKind::MisdirectedWrite);
                assert_eq!(record.found, [50; BLOCK_BYTES], "it landed there");
            }
            None => assert_ne!(counted, FaultKind::MisdirectedWrite),
        }
    }
}

#[test]
fn damage_does_not_strike_what_is_not_covered() {
    for kind in [
        FaultAtKind::LostWrite,
        FaultAtKind::MisdirectedWrite,
        FaultAtKind::BitFlip,
    ] {
        let (world, host) = prepared(24);
        let fault = aim(&world, host, 1, kind);
        run(&world, host, 1, |env: Env<()>| async move {
            for block in 0..3 {
                write_durable(&env, path(), 50, block).await.unwrap();
            }
        });
        assert!(!world.has_struck(&fault), "two writes are no cover");
        assert_eq!(world.disk(host).outstanding_damage(), []);
    }
}

#[test]
fn bits_flip_in_what_is_read() {
    let (world, host) = prepared(25);
    let covered = aim(&world, host, 1, FaultAtKind::BitFlip);
    let newest = aim(&world, host, 4, FaultAtKind::BitFlip);
    let aimed = aim(&world, host, 7, FaultAtKind::FlipRead { byte: 77, bit: 6 });
    run(&world, host, 1, |env: Env<()>| async move {
        let read = read_block(&env, 3).await.unwrap();
        assert_eq!(differing_bits(&read, &[103; BLOCK_BYTES]), 1);
        assert_eq!(read_block(&env, 11).await.unwrap(), [111; BLOCK_BYTES]);
        let mut expected = [111; BLOCK_BYTES];
        expected[77] ^= 1 << 6;
        assert_eq!(read_block(&env, 11).await.unwrap(), expected);
        assert_eq!(read_block(&env, 11).await.unwrap(), expected, "it is stored so");
    });
    let struck = [&covered, &newest, &aimed].map(|fault| world.has_struck(fault));
    assert_eq!(
        struck,
        [true, false, true],
        "the newest write is spared unless it is aimed at"
    );
    assert_eq!(world.counters().get(FaultKind::BitFlip), 2);
    assert_eq!(world.disk(host).repair_damage(), 2);
    assert_eq!(stored(&world, host, 11), [111; BLOCK_BYTES]);
}

#[test]
fn a_block_that_cannot_be_read_stays_so_until_it_is_written() {
    let (world, host) = prepared(26);
    let fault = aim(&world, host, 1, FaultAtKind::LatentReadError);
    run(&world, host, 1, |env: Env<()>| async move {
        for _ in 0..2 {
            let failed = read_block(&env, 5).await.unwrap_err();
            assert!(
                failed
                    .to_string()
                    .contains("can't read /data/file at offset 20480"),
                "{failed}"
            );
        }
        assert_eq!(read_block(&env, 6).await.unwrap(), [106; BLOCK_BYTES]);
        write_durable(&env, path(), 9, 5).await.unwrap();
        assert_eq!(read_block(&env, 5).await.unwrap(), [9; BLOCK_BYTES]);
    });
    assert!(world.has_struck(&fault));
    assert_eq!(world.counters().get(FaultKind::LatentReadError), 2);
}

/// Two cores that tick every 10 ms; the second writes a block after a second, the aimed operation. Returns the longest
/// pause between two ticks of each core.
fn longest_pauses_ns(kind: FaultAtKind) -> (World, FaultAt, [u64; 2]) {
    let (world, host) = prepared(27);
    let fault = aim(&world, host, 1, kind);
    let ticks: Rc<RefCell<[Vec<u64>; 2]>> = Rc::default();
    let (log, clock) = (Rc::clone(&ticks), world.clone());
    let process = start(&world, host, 2, move |env: Env<()>| {
        let (log, clock) = (Rc::clone(&log), clock.clone());
        async move {
            for tick in 0..500 {
                env.tasks.sleep(Duration::from_millis(10)).await;
                log.borrow_mut()[env.core.index()].push(clock.now_ns());
                if tick == 100 && env.core.0 == 1 {
                    let file = env.disk.open(path(), OpenMode::WriteDurable).await.unwrap();
                    file.write_at(filled(&env, 1, 1), 0).await.unwrap();
                    file.close().await.unwrap();
                }
            }
        }
    });
    world.run_for(30 * SECOND_NS);
    assert_eq!(
        world.process_status(process),
        ProcessStatus::Exited,
        "{:?}",
        world.panics()
    );
    let ticks = ticks.take();
    let longest = |ticks: &Vec<u64>| ticks.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    let pauses = [longest(&ticks[0]), longest(&ticks[1])];
    (world, fault, pauses)
}

#[test]
fn the_process_or_one_core_stands_still_from_the_operation_on() {
    let stall = |further| FaultAtKind::StallCore {
        further,
        duration_ns: 2 * SECOND_NS,
    };
    for (kind, counted, stops) in [
        (
            FaultAtKind::Pause(2 * SECOND_NS),
            FaultKind::ProcessPause,
            [true, true],
        ),
        (stall(0), FaultKind::CoreStall, [false, true]),
        (stall(1), FaultKind::CoreStall, [true, false]),
        (stall(2), FaultKind::CoreStall, [false, true]),
        (FaultAtKind::DiskSlow(1), FaultKind::SlowDisk, [false, false]),
    ] {
        let (world, fault, pauses) = longest_pauses_ns(kind);
        let has_stopped = pauses.map(|pause_ns| pause_ns > 2 * SECOND_NS - 50_000_000);
        assert_eq!(has_stopped, stops, "{fault:?}: {pauses:?}");
        let moved_on = pauses.map(|pause_ns| pause_ns < 2 * SECOND_NS + 100_000_000);
        assert_eq!(moved_on, [true, true], "{fault:?}: {pauses:?}");
        let is_fault = counted != FaultKind::SlowDisk;
        assert_eq!(world.has_struck(&fault), is_fault, "{fault:?}");
        assert_eq!(world.counters().get(counted), u64::from(is_fault));
    }
}

#[test]
fn the_wall_clock_jumps_at_the_operation() {
    for by_us in [3_600_000_000, -3_600_000_000] {
        let (world, host) = prepared(28);
        let fault = aim(&world, host, 1, FaultAtKind::ClockJump(by_us));
        let wall = || world.client_env(host).clock.wall().0.cast_signed();
        let (shown_us, begun_ns) = (wall(), world.now_ns());
        run(&world, host, 1, |env: Env<()>| async move {
            let file = env.disk.open(path(), OpenMode::Read).await.unwrap();
            let before = (env.clock.wall().0.cast_signed(), env.clock.monotonic());
            file.read_at(0, BLOCK_BYTES).await.unwrap();
            let jumped_us = env.clock.wall().0.cast_signed() - before.0;
            assert!(jumped_us.abs() > 3_599_000_000, "{jumped_us}");
            assert!(env.clock.monotonic().since_ns(before.1) < SECOND_NS);
            file.close().await.unwrap();
        });
        let passed_us = ((world.now_ns() - begun_ns) / 1000).cast_signed();
        let error_us = wall() - shown_us - passed_us - by_us;
        assert!(error_us.abs() <= 1, "{error_us}");
        assert!(world.has_struck(&fault));
        assert_eq!(world.counters().get(FaultKind::ClockJump), 1);
    }
}
