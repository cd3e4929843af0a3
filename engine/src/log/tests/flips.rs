//! One bit of each byte of a log of some thousand records flipped in turn, and files cut to each length.
//!
//! For every flip the outcome is known beforehand, and nothing else will do:
//! - in a batch that a later one says was durable: corruption, and the report names that batch;
//! - in padding: the same records;
//! - in the last batches, which nothing covers: exactly the records before the damaged one.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::harness::{Entry, LOG, Machine, Running, SHARDS, data, disk_bytes, segment};
use crate::env::disk::BLOCK_BYTES;
use crate::env::testing::memory_disk::{Fate, SECTOR_BYTES};
use crate::env::testing::scheduler::Scheduler;
use crate::log::LogError;
use crate::log::format::{BatchHeader, BatchNumber, FLAG_HEAD, FLAG_RECYCLED, Record, RecordKind, own_place};
use crate::log::recovery::{CutTail, replay, scan};

/// Blocks of a segment.
const SEGMENT_BLOCKS: u64 = 16;
/// Entries of a batch that nearly fills a block, and of one that takes two.
const PER_BATCH: [usize; 3] = [97, 97, 198];
/// Payload bytes of an entry.
const PAYLOAD_BYTES: usize = 8;
/// Entries of a log.
const ENTRIES: usize = 3000;
/// Entries that the log in recycled segments keeps: its end is what matters.
const ENTRIES_RECYCLED: usize = 1500;

/// What recovery is expected to say, or says.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Corrupt {
        path: PathBuf,
        offset: u64,
    },
    Recovered {
        entries: usize,
        last_batch: BatchNumber,
        cut: bool,
    },
}

/// A batch of the undamaged log.
struct Batch {
    header: BatchHeader,
    /// Entries in the log before it.
    entries_before: usize,
    /// True when a later batch says that it was durable.
    covered: bool,
}

/// An undamaged log.
struct Whole {
    machine: Machine,
    entries: Vec<Entry>,
    batches: Vec<Batch>,
    cut: Option<CutTail>,
}

#[derive(Default)]
struct Counts {
    detected: usize,
    padding: usize,
    tail: usize,
}

fn write_batches(running: &Running, entries: usize) {
    let (mut left, mut round) = (entries, 0);
    while left > 0 {
        let count = left.min(PER_BATCH[round % PER_BATCH.len()]);
        for entry in 0..count {
            running.append(entry as u32 % SHARDS, PAYLOAD_BYTES);
        }
        running.drain();
        left -= count;
        round += 1;
    }
}

/// A log of one boot that ended cleanly.
fn sealed() -> Whole {
    let mut machine = Machine::new(SEGMENT_BLOCKS);
    let running = machine.start();
    write_batches(&running, ENTRIES);
    running.close();
    describe(machine, ENTRIES)
}

/// A log of two boots: the first ended with a torn write before a valid one, the second with two writes in
/// flight that both arrived.
fn crashed() -> Whole {
    let mut machine = Machine::new(SEGMENT_BLOCKS);
    let running = machine.start();
    write_batches(&running, ENTRIES / 2);
    let mut fates = [Fate::Sectors(Box::new(|sector| sector % 2 == 0)), Fate::Whole].into_iter();
    crash_with_two_in_flight(&machine, running, |_| fates.next().expect("two writes"));
    let running = machine.start();
    assert_eq!(machine.history.entries.borrow().len(), ENTRIES / 2);
    write_batches(&running, ENTRIES / 2);
    crash_with_two_in_flight(&machine, running, |_| Fate::Whole);
    describe(machine, ENTRIES)
}

/// A log of one boot whose segments had an earlier life and are full of its batches; it ends with two writes in flight
/// that both arrived.
fn recycled() -> Whole {
    let mut machine = Machine::new(SEGMENT_BLOCKS);
    let running = machine.start();
    // All but the last entries are flushed all the time, so each segment that is begun frees one.
    let flush_old = || {
        let count = running
            .history
            .acknowledged
            .get()
            .saturating_sub(ENTRIES_RECYCLED);
        (0..SHARDS).for_each(|shard| running.flush_first(shard, count));
    };
    let mut begun = 0;
    while running.history.acknowledged.get() < ENTRIES_RECYCLED * 5
        || running.log.statistics().segments == begun
    {
        begun = running.log.statistics().segments;
        write_batches(&running, PER_BATCH[0]);
        flush_old();
    }
    crash_with_two_in_flight(&machine, running, |_| Fate::Whole);
    let whole = describe(machine, ENTRIES_RECYCLED);
    let heads = whole
        .batches
        .iter()
        .filter(|batch| batch.header.flags & FLAG_HEAD != 0);
    let again = heads
        .filter(|batch| batch.header.flags & FLAG_RECYCLED != 0)
        .count();
    assert!(again >= 2, "{again} segments that were used again");
    let newest = whole.batches.last().expect("batches").header;
    let bytes = whole.machine.disk.content(&segment(newest.segment.0));
    let behind = &bytes[(newest.offset + disk_bytes(&newest)) as usize..];
    let former = behind.chunks(BLOCK_BYTES).filter_map(own_place);
    assert!(
        former.count() > 2,
        "batches of the earlier life lie behind the last"
    );
    whole
}

fn crash_with_two_in_flight(
    machine: &Machine,
    running: Running,
    fate: impl FnMut(&crate::env::testing::memory_disk::InFlight) -> Fate,
) {
    machine.disk.hold_writes(true);
    for count in [30, 40] {
        (0..count).for_each(|_| running.append(1, PAYLOAD_BYTES));
        running.scheduler.settle();
    }
    assert_eq!(machine.disk.in_flight().len(), 2);
    running.kill();
    machine.disk.power_loss(false, fate);
}

fn describe(machine: Machine, entries: usize) -> Whole {
    let found = machine.recover().expect("recovers");
    assert!(found.entries.len() >= entries && found.chain.segments.len() >= 2);
    let mut headers = Vec::new();
    for part in &found.chain.segments {
        let batches = machine.batches(part.sequence.0);
        headers.extend(
            batches
                .into_iter()
                .take_while(|batch| batch.offset < part.end_offset),
        );
    }
    let mut entries_before = 0;
    let mut batches = Vec::new();
    for (slot, header) in headers.iter().enumerate() {
        let covered = headers[slot + 1..]
            .iter()
            .any(|later| later.durable_through >= header.number);
        batches.push(Batch {
            header: *header,
            entries_before,
            covered,
        });
        if header.flags & FLAG_HEAD == 0 {
            entries_before += header.record_count as usize;
        }
    }
    assert_eq!(
        entries_before,
        found.entries.len(),
        "every record is in a known batch"
    );
    Whole {
        machine,
        entries: found.entries,
        batches,
        cut: found.chain.cut,
    }
}

impl Whole {
    /// Recovers; any entry that is not that of the undamaged log fails the test.
    fn outcome(&self) -> (Outcome, Option<CutTail>) {
        let disk = &self.machine.disk;
        let options = self.machine.options();
        let scheduler = Scheduler::default();
        let mut entries = 0;
        let mut visit = |record: Record<'_>| {
            if record.kind == RecordKind::Entry {
                let expected = &self.entries[entries];
                let same = record.shard == expected.shard
                    && record.epoch == expected.epoch
                    && record.entry == expected.id
                    && record.payload == expected.payload;
                assert!(same, "entry {entries} is {record:?}, expected {expected:?}");
                entries += 1;
            }
            Ok(())
        };
        let recovered = scheduler.run(async {
            let chain = scan(disk, &scheduler, &data(), LOG, options).await?;
            replay(
                disk,
                &scheduler,
                &data(),
                &chain,
                options.segment_bytes,
                &mut visit,
            )
            .await?;
            Ok(chain)
        });
        match recovered.expect("not frozen") {
            Ok(chain) => {
                let (last_batch, cut) = (chain.last_batch, chain.cut.is_some());
                (
                    Outcome::Recovered {
                        entries,
                        last_batch,
                        cut,
                    },
                    chain.cut,
                )
            }
            Err(LogError::Corruption(found)) => (
                Outcome::Corrupt {
                    path: found.path,
                    offset: found.offset,
                },
                None,
            ),
            Err(LogError::Io {
                operation,
                path,
                source,
            }) => {
                panic!("{operation} {}: {source}", path.display())
            }
            Err(other @ LogError::Store(_)) => panic!("{other}"),
        }
    }

    /// What must come of a flip at this offset within a batch.
    fn expected(&self, batch: &Batch, at: usize, counts: &mut Counts) -> Outcome {
        let header = &batch.header;
        if at >= header.content_bytes() {
            counts.padding += 1;
            let last_batch = self.batches.last().expect("batches").header.number;
            let cut = self.cut.is_some();
            Outcome::Recovered {
                entries: self.entries.len(),
                last_batch,
                cut,
            }
        } else if batch.covered {
            counts.detected += 1;
            Outcome::Corrupt {
                path: segment(header.segment.0),
                offset: header.offset,
            }
        } else {
            counts.tail += 1;
            let last_batch = BatchNumber(header.number.0 - 1);
            Outcome::Recovered {
                entries: batch.entries_before,
                last_batch,
                cut: true,
            }
        }
    }

    fn flip_each_byte(&self) -> Counts {
        let mut counts = Counts::default();
        let durable_through = self.batches.last().expect("batches").header.durable_through;
        for batch in &self.batches {
            let path = segment(batch.header.segment.0);
            assert_eq!(
                batch.covered,
                batch.header.number <= durable_through,
                "only the last are uncovered"
            );
            for at in 0..disk_bytes(&batch.header) as usize {
                let offset = batch.header.offset as usize + at;
                // Over eight bytes each bit gets its turn, and over a block each bit of a field's first byte.
                let bit = (offset + offset / 8) as u32 % 8;
                let expected = self.expected(batch, at, &mut counts);
                self.machine.disk.flip(&path, offset, bit);
                let (found, cut) = self.outcome();
                self.machine.disk.flip(&path, offset, bit);
                assert_eq!(
                    found,
                    expected,
                    "bit {bit} of byte {offset} of {}",
                    path.display()
                );
                if let (Some(cut), false) = (cut, batch.covered || at >= batch.header.content_bytes()) {
                    assert_eq!((cut.path, cut.offset), (path.clone(), batch.header.offset));
                }
            }
        }
        assert_eq!(self.outcome().1, self.cut, "everything was put back");
        counts
    }

    fn cut_each_length(&self) -> usize {
        let mut cuts = 0;
        let newest = self.batches.last().expect("batches").header.segment;
        let last = segment(newest.0);
        let chain: BTreeSet<PathBuf> = self
            .batches
            .iter()
            .map(|batch| segment(batch.header.segment.0))
            .collect();
        let (whole_outcome, _) = self.outcome();
        for path in self.machine.disk.files() {
            let whole = self.machine.disk.content(&path);
            let near_blocks = (0..whole.len() + BLOCK_BYTES)
                .step_by(BLOCK_BYTES)
                .flat_map(|block| block.saturating_sub(8)..block + 9);
            let sectors = (0..whole.len()).step_by(SECTOR_BYTES);
            let lengths: BTreeSet<usize> = near_blocks
                .chain(sectors)
                .filter(|len| *len != whole.len())
                .collect();
            for length in lengths {
                self.machine.disk.edit(&path, |bytes| bytes.resize(length, 0));
                let corrupt = Outcome::Corrupt {
                    path: path.clone(),
                    offset: 0,
                };
                // One that was skipped when the log went on in a newer one is void, whatever becomes of it.
                let is_void = path < last && !chain.contains(&path);
                let expected = if is_void { &whole_outcome } else { &corrupt };
                assert_eq!(
                    &self.outcome().0,
                    expected,
                    "{length} bytes of {}",
                    path.display()
                );
                self.machine.disk.edit(&path, |bytes| bytes.clone_from(&whole));
                cuts += 1;
            }
        }
        cuts
    }
}

fn report(kind: &str, whole: &Whole, counts: &Counts) {
    println!(
        "{kind}: {} entries, {} batches; {} flips: {} detected, {} in padding, {} in the uncovered tail",
        whole.entries.len(),
        whole.batches.len(),
        counts.detected + counts.padding + counts.tail,
        counts.detected,
        counts.padding,
        counts.tail
    );
}

#[test]
fn each_byte_of_a_sealed_log() {
    let whole = sealed();
    let counts = whole.flip_each_byte();
    report("sealed", &whole, &counts);
    let seal = whole.batches.last().expect("a seal").header;
    assert_eq!(
        counts.tail,
        seal.content_bytes(),
        "only the seal itself is uncovered"
    );
    assert!(counts.detected > ENTRIES * 40 && counts.padding > 0);
}

#[test]
fn each_byte_of_a_crashed_log() {
    let whole = crashed();
    let counts = whole.flip_each_byte();
    report("crashed", &whole, &counts);
    let uncovered = whole.batches.iter().filter(|batch| !batch.covered);
    assert_eq!(uncovered.clone().count(), 2, "the two writes that were in flight");
    assert_eq!(
        counts.tail,
        uncovered.map(|batch| batch.header.content_bytes()).sum::<usize>()
    );
    assert!(counts.detected > ENTRIES * 40 && counts.padding > 0);
}

#[test]
fn each_byte_of_a_log_in_recycled_segments() {
    let whole = recycled();
    let counts = whole.flip_each_byte();
    report("recycled", &whole, &counts);
    let uncovered = whole.batches.iter().filter(|batch| !batch.covered);
    assert_eq!(
        counts.tail,
        uncovered.map(|batch| batch.header.content_bytes()).sum::<usize>()
    );
    assert!(counts.detected > ENTRIES_RECYCLED * 40 && counts.padding > 0);
}

#[test]
fn each_length_of_each_file() {
    let cuts = sealed().cut_each_length() + crashed().cut_each_length();
    println!("{cuts} lengths, all detected or without effect");
    assert!(cuts > 2000);
}
