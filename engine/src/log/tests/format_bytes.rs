//! The log's bytes, written out: whoever changes them changes a format that is on users' disks.
//!
//! And what a batch is refused for: any other place than its own.

use ostrakon_core::raft::{EntryId, HardState, LogIndex, ReplicaId, Term};
use ostrakon_wire::routing::ShardId;

use super::harness::data;
use crate::env::disk::BLOCK_BYTES;
use crate::env::testing::memory_disk::MemoryDisk;
use crate::log::batch::{BatchBuilder, BatchId};
use crate::log::format::{
    BatchFault, BatchHeader, BatchNumber, BatchPlace, BootNumber, DirectoryEntry, FLAG_HEAD, LogId,
    OwnershipEpoch, RecordKind, SegmentHead, SegmentSequence, ShardState, check_batch, directory, records,
};

/// A head batch: header, segment head, one shard state, directory.
const HEAD: &str = "
4f535442 @@@@@@@@ ######## 0100 0100
0200000000000000 0900000000000000 0800000000000000 0000000000000000 0500000000000000
03000000 a8000000 02000000 01000000 0000000000000000
03000000 00000000 40000000 00000000 0000000000000000 0000000000000000
0807060504030201 1817161514131211 2a00000000000000 0100000000000000 0800000000000000
0000000100000000 4000000000000000 0100000000000000
02000000 11000000 28000000 07000000 0000000000000000 0000000000000000
0600000000000000 0c00000000000000 0400000000000000 2100000000000000 0100000000000000
11000000 01000000 0000000000000000 0000000000000000";

/// A batch of two entries of one shard, the second without a payload.
const ENTRIES: &str = "
4f535442 @@@@@@@@ ######## 0100 0000
0200000000000000 0a00000000000000 0900000000000000 0010000000000000 0500000000000000
03000000 48000000 02000000 01000000 0000000000000000
01000000 11000000 05000000 07000000 0600000000000000 2200000000000000
6865 6c6c6f 000000
01000000 11000000 00000000 07000000 0600000000000000 2300000000000000
11000000 00000000 2200000000000000 2300000000000000";

fn header(number: u64, flags: u16, offset: u64) -> BatchHeader {
    BatchHeader {
        flags,
        segment: SegmentSequence(2),
        number: BatchNumber(number),
        durable_through: BatchNumber(number - 1),
        offset,
        boot: BootNumber(5),
        log: LogId(3),
        records_bytes: 0,
        record_count: 0,
        directory_count: 0,
    }
}

fn place(offset: u64) -> BatchPlace {
    BatchPlace {
        log: LogId(3),
        segment: SegmentSequence(2),
        offset,
    }
}

const HEAD_PAYLOAD: SegmentHead = SegmentHead {
    cluster: (0x0102_0304_0506_0708, 0x1112_1314_1516_1718),
    node: 42,
    predecessor: SegmentSequence(1),
    predecessor_last: BatchNumber(8),
    segment_bytes: 16 << 20,
    shards: 64,
    oldest: SegmentSequence(1),
};

const STATE_PAYLOAD: ShardState = ShardState {
    hard_state: HardState {
        term: Term(6),
        vote: ReplicaId(12),
    },
    base: EntryId {
        term: Term(4),
        index: LogIndex(33),
    },
    complete: true,
};

fn head_batch() -> Vec<u8> {
    let disk = MemoryDisk::new(&data());
    let mut batch = BatchBuilder::new(BatchId(1), &disk, 0);
    let (none, shard) = (EntryId::default(), ShardId(17));
    let head = HEAD_PAYLOAD.encode();
    batch.append(
        &disk,
        RecordKind::SegmentHead,
        ShardId(0),
        OwnershipEpoch(0),
        none,
        &[&head],
    );
    let state = STATE_PAYLOAD.encode();
    batch.append(
        &disk,
        RecordKind::ShardState,
        shard,
        OwnershipEpoch(7),
        none,
        &[&state],
    );
    batch.finish(header(9, FLAG_HEAD, 0)).buffer.bytes().to_vec()
}

fn entry(index: u64) -> EntryId {
    EntryId {
        term: Term(6),
        index: LogIndex(index),
    }
}

fn entry_batch() -> Vec<u8> {
    let disk = MemoryDisk::new(&data());
    let mut batch = BatchBuilder::new(BatchId(2), &disk, 0);
    for (index, payload) in [(34, [&b"he"[..], b"llo"]), (35, [&b""[..], b""])] {
        let (kind, shard) = (RecordKind::Entry, ShardId(17));
        batch.append(&disk, kind, shard, OwnershipEpoch(7), entry(index), &payload);
    }
    batch.finish(header(10, 0, 4096)).buffer.bytes().to_vec()
}

/// CRC-32C bit by bit, with the sequence number in front: what the crate in use has to agree with.
fn checksum(parts: &[&[u8]]) -> u32 {
    let mut crc = !0_u32;
    for byte in 2_u64.to_le_bytes().iter().chain(parts.iter().copied().flatten()) {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// Compares a batch with its written form; the checksums, `@` and `#`, are computed here.
fn assert_bytes(batch: &[u8], expected: &str, directory_at: usize, content_bytes: usize) {
    let hex_of = |crc: u32| format!("{:08x}", crc.swap_bytes());
    let records_crc = checksum(&[&batch[80..directory_at]]);
    let header_crc = checksum(&[&batch[8..80], &batch[directory_at..content_bytes]]);
    let expected = expected
        .replace("@@@@@@@@", &hex_of(header_crc))
        .replace("########", &hex_of(records_crc));
    let digits: Vec<char> = expected.chars().filter(|c| !c.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("hex");
    let expected: Vec<u8> = digits.chunks(2).map(byte).collect();
    assert_eq!(expected.len(), content_bytes, "length of the written form");
    for (at, (found, expected)) in batch.iter().zip(&expected).enumerate() {
        assert_eq!(found, expected, "byte {at}");
    }
    assert_eq!(batch.len(), BLOCK_BYTES, "whole blocks");
    assert!(
        batch[content_bytes..].iter().all(|byte| *byte == 0),
        "zeros to the block's end"
    );
}

#[test]
fn golden_bytes_of_a_head_batch() {
    let batch = head_batch();
    assert_bytes(&batch, HEAD, 248, 272);
    assert_eq!(
        &batch[4..12],
        [203, 220, 135, 155, 70, 62, 197, 106],
        "both checksums"
    );
    let header = check_batch(&batch, place(0)).expect("valid");
    let read: Vec<_> = records(&batch, &header)
        .map(|record| record.expect("parses"))
        .collect();
    assert_eq!(read.len(), 2);
    assert_eq!(
        (read[0].kind, SegmentHead::decode(read[0].payload)),
        (RecordKind::SegmentHead, Some(HEAD_PAYLOAD))
    );
    assert_eq!(
        (read[1].kind, ShardState::decode(read[1].payload)),
        (RecordKind::ShardState, Some(STATE_PAYLOAD))
    );
}

#[test]
fn golden_bytes_of_an_entry_batch() {
    let batch = entry_batch();
    assert_bytes(&batch, ENTRIES, 152, 176);
    assert_eq!(
        &batch[4..12],
        [33, 41, 234, 207, 139, 254, 244, 230],
        "both checksums"
    );
    let found = check_batch(&batch, place(4096)).expect("valid");
    let filled = BatchHeader {
        records_bytes: 72,
        record_count: 2,
        directory_count: 1,
        ..header(10, 0, 4096)
    };
    assert_eq!(found, filled);
    let payloads: Vec<_> = records(&batch, &found)
        .map(|record| record.expect("parses").payload)
        .collect();
    assert_eq!(payloads, [&b"hello"[..], b""]);
    let listed = DirectoryEntry {
        shard: ShardId(17),
        has_state: false,
        first: LogIndex(34),
        last: LogIndex(35),
    };
    assert_eq!(directory(&batch, &found), [listed]);
}

#[test]
fn a_batch_is_valid_at_its_own_place_only() {
    let batch = entry_batch();
    let here = place(4096);
    assert!(check_batch(&batch, here).is_ok());
    let elsewhere = [
        BatchPlace {
            log: LogId(4),
            ..here
        },
        BatchPlace {
            segment: SegmentSequence(3),
            ..here
        },
        BatchPlace { offset: 8192, ..here },
    ];
    for place in elsewhere {
        assert_eq!(
            check_batch(&batch, place),
            Err((BatchFault::NotABatch, None)),
            "{place:?}"
        );
    }
}

#[test]
fn the_segment_is_part_of_both_checksums() {
    // The batch claims another segment, as a stale one of recycled blocks would if only its header were
    // compared; its checksums are those of its own segment.
    let mut batch = entry_batch();
    batch[16] = 3;
    let there = BatchPlace {
        segment: SegmentSequence(3),
        ..place(4096)
    };
    let fault = check_batch(&batch, there).expect_err("refused");
    assert!(
        matches!(fault, (BatchFault::HeaderChecksum { .. }, None)),
        "{fault:?}"
    );
    let header_crc = {
        let seeded = crc32c::crc32c(&3_u64.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c_append(seeded, &batch[8..80]), &batch[152..176])
    };
    batch[4..8].copy_from_slice(&header_crc.to_le_bytes());
    let fault = check_batch(&batch, there).expect_err("refused");
    assert!(
        matches!(fault, (BatchFault::RecordsChecksum { .. }, Some(_))),
        "{fault:?}"
    );
}

#[test]
fn faults_are_told_apart() {
    let batch = entry_batch();
    let fault = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut damaged = batch.clone();
        edit(&mut damaged);
        check_batch(&damaged, place(4096)).expect_err("refused")
    };
    assert_eq!(fault(&|bytes| bytes.fill(0)), (BatchFault::Blank, None));
    assert_eq!(
        fault(&|bytes| bytes.truncate(0)),
        (BatchFault::Blank, None),
        "the segment's end"
    );
    assert_eq!(fault(&|bytes| bytes.truncate(79)), (BatchFault::NotABatch, None));
    assert_eq!(fault(&|bytes| bytes.truncate(175)), (BatchFault::NotABatch, None));
    assert_eq!(
        fault(&|bytes| bytes[0] ^= 1),
        (BatchFault::NotABatch, None),
        "magic"
    );
    assert_eq!(
        fault(&|bytes| bytes[12] ^= 2),
        (BatchFault::NotABatch, None),
        "version"
    );
    assert_eq!(
        fault(&|bytes| bytes[14] ^= 8),
        (BatchFault::NotABatch, None),
        "unknown flag"
    );
    assert_eq!(
        fault(&|bytes| bytes[60..64].fill(0xFF)),
        (BatchFault::NotABatch, None),
        "lengths"
    );
    assert!(
        matches!(
            fault(&|bytes| bytes[24] ^= 1),
            (BatchFault::HeaderChecksum { .. }, None)
        ),
        "number"
    );
    assert!(
        matches!(
            fault(&|bytes| bytes[79] ^= 1),
            (BatchFault::HeaderChecksum { .. }, None)
        ),
        "reserved"
    );
    assert!(
        matches!(
            fault(&|bytes| bytes[175] ^= 1),
            (BatchFault::HeaderChecksum { .. }, None)
        ),
        "directory"
    );
    let (payload, suspects) = fault(&|bytes| bytes[112] ^= 1);
    assert!(matches!(payload, BatchFault::RecordsChecksum { .. }));
    assert_eq!(
        directory(&batch, &suspects.expect("intact"))[0].shard,
        ShardId(17)
    );
}

#[test]
fn payloads_of_another_format_do_not_decode() {
    let state = STATE_PAYLOAD.encode();
    assert_eq!(ShardState::decode(&state[..39]), None);
    let mut other = state;
    other[32] = 2;
    assert_eq!(ShardState::decode(&other), None);
    let head = HEAD_PAYLOAD.encode();
    assert_eq!(SegmentHead::decode(&head[..56]), None);
    let mut other = head;
    other[55] = 1;
    assert_eq!(SegmentHead::decode(&other), None);
}
