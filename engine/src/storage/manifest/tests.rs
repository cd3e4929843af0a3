//! Manifests that are changed, cut short at any operation, torn, and damaged.

use std::path::Path;
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::lsm::{Misfit, TableInfo};
use ostrakon_core::raft::{LogIndex, Term};

use super::*;
use crate::env::testing::memory_disk::{Fate, MemoryDisk};
use crate::env::testing::scheduler::Scheduler;

const SHARD: u32 = 3;

fn directory() -> &'static Path {
    Path::new("/data")
}

fn table(number: u64, keys: core::ops::Range<u32>) -> Rc<TableInfo> {
    Rc::new(TableInfo {
        number: TableNumber(number),
        bytes: 4096 * number,
        smallest: keys.start.to_be_bytes().into(),
        largest: keys.end.to_be_bytes().into(),
        is_largest_excluded: number.is_multiple_of(2),
        keys: 8,
        versions: 10,
        tombstones: 3,
        range_tombstones: number,
        covered_bytes: 11 * number,
        expiring: 2,
        last_expiry: Timestamp(77),
        newest: Timestamp(number),
    })
}

fn change(number: u64, removed: &[u64], place: Place, added: Run) -> Change {
    Change {
        edit: Edit {
            removed: removed.iter().copied().map(TableNumber).collect(),
            place,
            added,
        },
        flushed: EntryId {
            term: Term(1),
            index: LogIndex(number),
        },
        next_number: TableNumber(number + 10),
    }
}

/// Flushes, a merge into a level, a move, and a rewrite in place.
fn changes() -> Vec<Change> {
    let young = |number| change(number, &[], Place::Young, vec![table(number, 0..100)]);
    vec![
        young(1),
        young(2),
        change(
            3,
            &[1, 2],
            Place::Level(6),
            vec![table(3, 0..50), table(4, 51..100)],
        ),
        young(5),
        change(6, &[5], Place::Level(5), vec![table(5, 0..100)]),
        young(7),
        change(8, &[4], Place::Level(6), Run::new()),
    ]
}

fn after(changes: &[Change]) -> ShardFiles {
    let mut files = ShardFiles::default();
    for change in changes {
        files.make(change).unwrap();
    }
    files
}

fn run<T>(future: impl Future<Output = T>) -> T {
    Scheduler::default().run(future).expect("it ends")
}

async fn write(disk: &MemoryDisk, changes: &[Change]) -> Result<usize, ManifestError> {
    let disk: Rc<dyn Disk> = Rc::new(disk.clone());
    let mut manifest = Manifest::open(&disk, directory(), SHARD).await?;
    for (number, change) in changes.iter().enumerate() {
        if manifest.note(change).await.is_err() {
            return Ok(number);
        }
    }
    manifest.close().await?;
    Ok(changes.len())
}

fn read(disk: &MemoryDisk) -> Result<ShardFiles, ManifestError> {
    let disk: Rc<dyn Disk> = Rc::new(disk.clone());
    run(async {
        let mut manifest = Manifest::open(&disk, directory(), SHARD).await?;
        let files = manifest.files().clone();
        manifest.close().await?;
        Ok(files)
    })
}

fn written() -> MemoryDisk {
    let disk = MemoryDisk::new(directory());
    assert_eq!(run(write(&disk, &changes())).unwrap(), changes().len());
    disk
}

fn bytes(disk: &MemoryDisk) -> Vec<u8> {
    disk.content(&directory().join(MANIFEST))
}

#[test]
fn what_was_noted_is_there() {
    let disk = written();
    assert_eq!(read(&disk).unwrap(), after(&changes()));
    assert_eq!((disk.files().len(), disk.open_files()), (1, 0));
}

#[test]
fn at_any_operation_a_power_loss_leaves_what_was_noted() {
    for names_survive in [false, true] {
        for fate in [
            || Fate::Lost,
            || Fate::Whole,
            || Fate::Sectors(Box::new(|sector| sector == 0)),
        ] {
            for operation in 0.. {
                let disk = MemoryDisk::new(directory());
                disk.freeze_at(operation);
                let noted = Rc::new(core::cell::Cell::new(0));
                let shared: Rc<dyn Disk> = Rc::new(disk.clone());
                let ended = Scheduler::default().run(async {
                    let mut manifest = Manifest::open(&shared, directory(), SHARD).await.unwrap();
                    for change in &changes() {
                        manifest.note(change).await.unwrap();
                        noted.set(noted.get() + 1);
                    }
                });
                if ended.is_some() {
                    break;
                }
                disk.freeze_at(u64::MAX);
                disk.power_loss(names_survive, |_| fate());
                let found = read(&disk).unwrap();
                // The change that was under way may be there.
                let possible = [
                    after(&changes()[..noted.get()]),
                    after(&changes()[..(noted.get() + 1).min(7)]),
                ];
                assert!(possible.contains(&found), "{operation}: {found:?}");
                assert_eq!(read(&disk).unwrap(), found);
            }
        }
    }
}

#[test]
fn a_torn_end_is_cut_wherever_it_is_torn() {
    let disk = written();
    let whole = bytes(&disk);
    let last = whole.len() - BLOCK_BYTES;
    for left in (last..whole.len()).step_by(37) {
        let torn = MemoryDisk::new(directory());
        let mut bytes = whole.clone();
        bytes[left..].fill(0);
        let all = changes();
        torn.put_file(&directory().join(MANIFEST), bytes);
        let found = read(&torn).unwrap();
        assert!([after(&all), after(&all[..all.len() - 1])].contains(&found));
        // It can go on.
        let next = change(9, &[], Place::Young, vec![table(9, 0..9)]);
        assert_eq!(run(write(&torn, core::slice::from_ref(&next))).unwrap(), 1);
        let mut expected = found;
        expected.make(&next).unwrap();
        assert_eq!(read(&torn).unwrap(), expected);
    }
}

#[test]
fn damage_before_the_end_is_named() {
    let disk = written();
    let whole = bytes(&disk);
    for at in (0..whole.len() - BLOCK_BYTES).step_by(13) {
        let damaged = MemoryDisk::new(directory());
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        damaged.put_file(&directory().join(MANIFEST), bytes);
        match read(&damaged) {
            Ok(found) => assert_eq!(found, after(&changes()), "byte {at} is padding"),
            Err(ManifestError::Damaged { offset, .. }) => {
                assert_eq!(offset as usize, at / BLOCK_BYTES * BLOCK_BYTES);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_manifest_of_another_shard_is_refused() {
    let disk: Rc<dyn Disk> = Rc::new(written());
    let refusal = run(Manifest::open(&disk, directory(), SHARD + 1))
        .err()
        .expect("it is of shard 3");
    assert!(refusal.to_string().contains("record of shard 3"), "{refusal}");
}

#[test]
fn a_long_manifest_is_written_anew() {
    let disk = MemoryDisk::new(directory());
    let mut files = ShardFiles::default();
    let shared: Rc<dyn Disk> = Rc::new(disk.clone());
    run(async {
        let mut manifest = Manifest::open(&shared, directory(), SHARD).await.unwrap();
        for number in 1..500 {
            let removed = [number - 1]
                .into_iter()
                .filter(|number| *number > 0)
                .collect::<Vec<_>>();
            let change = change(number, &removed, Place::Young, vec![table(number, 0..9)]);
            files.make(&change).unwrap();
            manifest.note(&change).await.unwrap();
            assert_eq!(*manifest.files(), files);
        }
        manifest.close().await.unwrap();
    });
    assert!(bytes(&disk).len() as u64 <= REWRITE_BYTES + BLOCK_BYTES as u64);
    assert_eq!(read(&disk).unwrap(), files);
}

#[test]
fn a_manifest_stays_short_over_restarts() {
    let disk = MemoryDisk::new(directory());
    for restart in 0..10 {
        let first = restart * 50 + 1;
        let changes: Vec<Change> = (first..first + 50)
            .map(|number| {
                let removed: Vec<u64> = (number > 1).then(|| number - 1).into_iter().collect();
                change(number, &removed, Place::Young, vec![table(number, 0..9)])
            })
            .collect();
        assert_eq!(run(write(&disk, &changes)).unwrap(), 50);
        let length = bytes(&disk).len() as u64;
        assert!(
            length <= REWRITE_BYTES + BLOCK_BYTES as u64,
            "{length} bytes after {restart} restarts"
        );
    }
}

#[test]
fn what_a_program_that_died_has_named_lasts_before_it_is_built_upon() {
    for operation in 0.. {
        let disk = MemoryDisk::new(directory());
        let shared: Rc<dyn Disk> = Rc::new(disk.clone());
        disk.freeze_at(operation);
        if Scheduler::default()
            .run(Manifest::open(&shared, directory(), SHARD))
            .is_some()
        {
            assert!(operation > 5);
            break;
        }
        disk.freeze_at(u64::MAX);
        let all = changes();
        assert_eq!(run(write(&disk, &all)).unwrap(), all.len());
        disk.power_loss(false, |_| Fate::Lost);
        assert_eq!(read(&disk).unwrap(), after(&all), "operation {operation}");
    }
}

#[test]
fn what_a_program_that_died_has_noted_lasts_though_a_sync_fails() {
    let memory = MemoryDisk::new(directory());
    let disk: Rc<dyn Disk> = Rc::new(memory.clone());
    let all = changes();
    let mut dies = Box::pin(async {
        let mut manifest = Manifest::open(&disk, directory(), SHARD).await.unwrap();
        manifest.note(&all[0]).await.unwrap();
        memory.hold_writes(true);
        manifest.note(&all[1]).await.unwrap();
    });
    let scheduler = Scheduler::default();
    assert!(scheduler.run(&mut dies).is_none(), "the last record is in flight");
    drop(dies);
    memory.hold_writes(false);
    // It has reached the cache of the device.
    memory.power_loss(true, |_| Fate::Cached);
    memory.inject("sync", 0, io::ErrorKind::Other);
    let failure = run(async {
        let mut manifest = Manifest::open(&disk, directory(), SHARD).await.unwrap();
        assert_eq!(*manifest.files(), after(&all[..2]), "somebody may build upon it");
        let failure = manifest.sync_failure().map(str::to_owned);
        manifest.close().await.unwrap();
        failure
    });
    assert!(failure.is_some_and(|failure| failure.contains("sync")));
    memory.power_loss(false, |_| Fate::Lost);
    assert_eq!(read(&memory).unwrap(), after(&all[..2]));
}

#[test]
fn a_change_that_fits_no_tree_is_damage() {
    let absent = change(1, &[9], Place::Young, Run::new());
    let bytes = encode(SHARD, 0, 0, &absent);
    let (offset, what) = replay(&bytes, SHARD).unwrap_err();
    assert_eq!((offset, what), (0, Misfit::Absent(TableNumber(9)).to_string()));
}

#[test]
fn a_judgement_finds_each_flipped_byte_and_refuses_what_an_opening_refuses() {
    let disk = written();
    let whole = bytes(&disk);
    let judged = judge(&whole, SHARD);
    assert!(judged.is_readable() && judged.flaws.is_empty() && judged.torn.is_none());
    assert_eq!(judged.files, after(&changes()));
    let last = whole.len() - BLOCK_BYTES;
    for at in (0..whole.len()).filter(|at| at % BLOCK_BYTES < 300 || at % 97 == 0) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        let judged = judge(&flipped, SHARD);
        assert_eq!(
            judged.is_readable(),
            replay(&flipped, SHARD).is_ok(),
            "{at} was flipped"
        );
        let found = judged.flaws.iter().chain(&judged.torn).collect::<Vec<_>>();
        assert_eq!(found.len(), 1, "{at} was flipped: {found:?}");
        let range = found[0].offset..found[0].offset + found[0].bytes;
        assert!(range.contains(&(at as u64)), "{at} was flipped: {found:?}");
        // Of the last record nobody knows whether it was ever whole.
        let is_torn = judged.torn.is_some();
        assert!(!is_torn || at >= last, "{at} was flipped: {found:?}");
    }
    // Two places: both are told, and the records between them are there.
    let mut flipped = whole.clone();
    flipped[BLOCK_BYTES + 40] ^= 1;
    flipped[4 * BLOCK_BYTES + 40] ^= 1;
    let judged = judge(&flipped, SHARD);
    let offsets: Vec<u64> = judged.flaws.iter().map(|flaw| flaw.offset).collect();
    assert_eq!(offsets, [BLOCK_BYTES as u64, 4 * BLOCK_BYTES as u64]);
    let records = judged.parts.iter();
    let records = records.filter(|part| matches!(part, judgement::Part::Record { .. }));
    assert_eq!(records.count(), whole.len() / BLOCK_BYTES - 2);
    assert_eq!(judgement::shard_of(&flipped), Some(SHARD));
    assert_eq!(judge(&[], SHARD).flaws.len(), 1, "there is no record");
}

#[test]
fn an_open_manifest_is_held_against_its_file() {
    let disk = written();
    let path = directory().join(MANIFEST);
    let shared: Rc<dyn Disk> = Rc::new(disk.clone());
    let mut manifest = run(Manifest::open(&shared, directory(), SHARD)).unwrap();
    let whole = bytes(&disk);
    let (read_bytes, flaws) = run(manifest.verify()).unwrap();
    assert_eq!((read_bytes, flaws), (whole.len() as u64, Vec::new()));
    for at in [
        0,
        20,
        BLOCK_BYTES + 50,
        BLOCK_BYTES - 1,
        whole.len() - BLOCK_BYTES + 40,
    ] {
        disk.flip(&path, at, 3);
        let (_, flaws) = run(manifest.verify()).unwrap();
        assert_eq!(flaws.len(), 1, "{at} was flipped: {flaws:?}");
        disk.flip(&path, at, 3);
    }
    // The last record is gone.
    disk.put_file(&path, whole[..whole.len() - BLOCK_BYTES].to_vec());
    let (_, flaws) = run(manifest.verify()).unwrap();
    assert_eq!(flaws.len(), 1, "{flaws:?}");
    disk.put_file(&path, whole);
    disk.inject("read", 0, io::ErrorKind::Other);
    run(manifest.verify()).expect_err("it can't be read");
    assert_eq!(run(manifest.verify()).unwrap().1, []);
    run(manifest.close()).unwrap();
}

/// Notes the first change, and then the second without room for it; hands the manifest on.
async fn without_room(disk: &Rc<dyn Disk>, memory: &MemoryDisk, operation: &'static str) -> Manifest {
    let mut manifest = Manifest::open(disk, directory(), SHARD).await.unwrap();
    manifest.note(&changes()[0]).await.unwrap();
    memory.inject(operation, 0, io::ErrorKind::StorageFull);
    let refused = manifest.note(&changes()[1]).await.expect_err("there is no room");
    assert!(refused.is_disk_full(), "{refused}");
    assert_eq!(manifest.files(), &after(&changes()[..1]));
    manifest
}

#[test]
fn a_change_that_found_no_room_is_noted_again_or_another_in_its_place() {
    let other = change(2, &[], Place::Young, vec![table(20, 0..100)]);
    for operation in ["write", "written"] {
        for second in [&changes()[1], &other] {
            let memory = MemoryDisk::new(directory());
            let disk: Rc<dyn Disk> = Rc::new(memory.clone());
            run(async {
                let mut manifest = without_room(&disk, &memory, operation).await;
                assert_eq!(manifest.verify().await.unwrap().1, Vec::new());
                manifest.note(second).await.expect("there is room again");
                manifest.close().await.unwrap();
            });
            assert_eq!(
                read(&memory).unwrap(),
                after(&[changes()[0].clone(), second.clone()])
            );
        }
    }
}

#[test]
fn a_change_that_found_no_room_may_last_or_not() {
    for (fate, noted) in [
        (Fate::Lost, 1),
        (Fate::Sectors(Box::new(|sector| sector == 0)), 1),
        (Fate::Whole, 2),
    ] {
        let memory = MemoryDisk::new(directory());
        let disk: Rc<dyn Disk> = Rc::new(memory.clone());
        run(async {
            without_room(&disk, &memory, "written").await;
        });
        let mut fate = Some(fate);
        memory.power_loss(true, |_| fate.take().expect("one write"));
        assert_eq!(read(&memory).unwrap(), after(&changes()[..noted]), "{noted}");
    }
}

#[test]
fn a_manifest_that_finds_no_room_to_be_written_anew_stays_as_it_was() {
    for operation in ["open", "fill", "sync", "close"] {
        let memory = MemoryDisk::new(directory());
        let disk: Rc<dyn Disk> = Rc::new(memory.clone());
        let mut files = ShardFiles::default();
        run(async {
            let mut manifest = Manifest::open(&disk, directory(), SHARD).await.unwrap();
            let mut refusals = 0;
            for number in 1..500 {
                let removed: Vec<u64> = (number > 1).then(|| number - 1).into_iter().collect();
                let change = change(number, &removed, Place::Young, vec![table(number, 0..9)]);
                memory.inject(operation, 0, io::ErrorKind::StorageFull);
                let noted = manifest.note(&change).await;
                memory.clear_injections();
                if let Err(error) = noted {
                    assert!(error.is_disk_full(), "{error}");
                    refusals += 1;
                    assert_eq!(manifest.files(), &files);
                    assert_eq!(manifest.verify().await.unwrap().1, Vec::new());
                    assert_eq!(memory.files().len(), 1, "nothing is left of {operation}");
                    manifest.note(&change).await.expect("there is room again");
                }
                files.make(&change).unwrap();
            }
            assert!(refusals > 2, "{refusals} times it was to be written anew");
            manifest.close().await.unwrap();
        });
        assert_eq!(read(&memory).unwrap(), files);
        assert_eq!(memory.open_files(), 0);
    }
}
