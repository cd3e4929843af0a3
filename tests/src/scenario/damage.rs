//! Which damage on a node's disk its next start must find.
//!
//! A start reads the identity, and in the directory of each log the chain of its segments: from the newest back along
//! the predecessors that the heads name to the oldest that the newest head calls needed, and of each segment the
//! batches up to the one that its successor names (`docs/formats.md`). Damage there must be found, with these
//! exceptions:
//! - Padding of a batch and blank blocks mean nothing.
//! - Segments outside the chain, and batches behind the one that a successor names, are void for ever.
//! - A batch of which no other says that it was durable looks like the torn tail of a crash, and is cut.
//!
//! A start also reads the manifest of each shard. Damage in a record must be found if a newer record is whole; there,
//! too, padding means nothing. Of tables a start reads the ends only; it is the scrub that must find what is wrong with
//! them ([`super::rest`]).
//!
//! What was there before the damage is known to the simulated disk, so the chain followed here is the true one.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use ostrakon::cluster::identity::IDENTITY_FILE;
use ostrakon::env::disk::BLOCK_BYTES;
use ostrakon::log::format::{
    BatchHeader, BatchPlace, FLAG_HEAD, LogId, RecordKind, SegmentHead, SegmentSequence, check_batch, records,
};
use ostrakon::log::parse_log_directory;
use ostrakon::storage::manifest::MANIFEST;

use crate::sim::{DamageRecord, HostDisk};

/// Bytes of the identity that mean something.
const IDENTITY_BYTES: u64 = 64;

/// A segment without its damage.
struct Segment {
    path: PathBuf,
    /// As stored, damage included.
    stored: Vec<u8>,
    bytes: Vec<u8>,
    batches: Vec<BatchHeader>,
    head: Option<SegmentHead>,
}

/// Bytes that a start reads and believes.
struct Believed {
    path: PathBuf,
    range: Range<u64>,
    /// True if damage there can't be taken for the tail of a crash.
    is_covered: bool,
}

/// A piece of damage that must be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The file.
    pub path: PathBuf,
    /// The first byte that is wrong.
    pub offset: u64,
    /// What is wrong.
    pub sentence: String,
}

/// Where on this disk, as it is now, damage must be found: files, and bytes of them.
pub fn covered(disk: &HostDisk, data: &Path) -> Vec<(PathBuf, Range<u64>)> {
    let believed = believed(disk, data, &disk.outstanding_damage());
    let covered = believed.into_iter().filter(|part| part.is_covered);
    covered.map(|part| (part.path, part.range)).collect()
}

/// Each piece of damage that a start on this disk, as it is now, must find.
pub fn due(disk: &HostDisk, data: &Path) -> Vec<Due> {
    let (damage, unreadable) = (disk.outstanding_damage(), disk.unreadable_blocks());
    if damage.is_empty() && unreadable.is_empty() {
        return Vec::new();
    }
    let believed = believed(disk, data, &damage);
    let mut due = Vec::new();
    for record in &damage {
        let is_hit = |part: &&Believed| {
            part.is_covered && part.path == record.path && changed(record, &part.range).is_some()
        };
        if let Some(part) = believed.iter().find(is_hit) {
            let sentence = format!(
                "{} at {} of {}, in bytes {:?}",
                record.kind.name(),
                record.offset,
                record.path.display(),
                part.range
            );
            due.push(Due {
                path: record.path.clone(),
                offset: changed(record, &part.range).expect("it is hit"),
                sentence,
            });
        }
    }
    for (path, offset) in &unreadable {
        let block = *offset..*offset + BLOCK_BYTES as u64;
        let is_hit = |part: &Believed| {
            part.path == *path && part.range.start < block.end && block.start < part.range.end
        };
        if believed.iter().any(is_hit) {
            due.push(Due {
                path: path.clone(),
                offset: *offset,
                sentence: format!("an unreadable block at {offset} of {}", path.display()),
            });
        }
    }
    due
}

/// The first byte in this range of its file that damage has changed.
fn changed(record: &DamageRecord, range: &Range<u64>) -> Option<u64> {
    let bytes = record.right.iter().zip(&record.found);
    let mut changed = (record.offset..)
        .zip(bytes)
        .filter(|(_, (right, found))| right != found);
    changed.find_map(|(offset, _)| range.contains(&offset).then_some(offset))
}

fn believed(disk: &HostDisk, data: &Path, damage: &[DamageRecord]) -> Vec<Believed> {
    let mut believed = vec![Believed {
        path: data.join(IDENTITY_FILE),
        range: 0..IDENTITY_BYTES,
        is_covered: true,
    }];
    let mut logs: BTreeMap<LogId, Vec<(SegmentSequence, PathBuf)>> = BTreeMap::new();
    for (path, _) in disk.files() {
        if let Some((log, sequence)) = place_of(&path, data) {
            logs.entry(log).or_default().push((sequence, path));
        }
    }
    for (log, files) in logs {
        let segments: BTreeMap<SegmentSequence, Segment> = files
            .into_iter()
            .map(|(sequence, path)| (sequence, undamaged(disk, (log, sequence), path, damage)))
            .collect();
        believed.extend(chain(&segments));
    }
    for (path, _) in disk.files() {
        if path.starts_with(data.join("shard")) && path.ends_with(MANIFEST) {
            believed.extend(manifest_records(disk, &path, damage));
        }
    }
    believed
}

/// The records of a manifest, by their headers as they were written.
fn manifest_records(disk: &HostDisk, path: &Path, damage: &[DamageRecord]) -> Vec<Believed> {
    let stored = disk.read(path).expect("it was listed");
    let bytes = without_damage(&stored, path, damage);
    let mut records: Vec<Range<u64>> = Vec::new();
    let mut offset = 0;
    while bytes[offset..].starts_with(b"OSTM") {
        let payload_bytes = bytes[offset + 8..offset + 12].try_into().expect("four bytes");
        let end = offset + 32 + u32::from_le_bytes(payload_bytes) as usize;
        if end > bytes.len() {
            break;
        }
        records.push(offset as u64..end as u64);
        offset = end.next_multiple_of(BLOCK_BYTES).min(bytes.len());
    }
    let is_intact = |range: &Range<u64>| {
        let range = range.start as usize..range.end as usize;
        stored[range.clone()] == bytes[range]
    };
    let newest_intact = records.iter().rposition(is_intact);
    let numbered = records.into_iter().enumerate();
    let believed = numbered.map(|(number, range)| Believed {
        path: path.to_owned(),
        range,
        is_covered: newest_intact.is_some_and(|newest| number < newest),
    });
    believed.collect()
}

/// The log and segment of a path, if a start reads it.
fn place_of(path: &Path, data: &Path) -> Option<(LogId, SegmentSequence)> {
    let below = path.strip_prefix(data.join("log")).ok()?;
    let log = parse_log_directory(below.parent()?.to_str()?)?;
    let digits = below.file_name()?.to_str()?.strip_suffix(".seg")?;
    Some((log, SegmentSequence(u64::from_str_radix(digits, 16).ok()?)))
}

/// The bytes of a file with the right ones put back.
fn without_damage(stored: &[u8], path: &Path, damage: &[DamageRecord]) -> Vec<u8> {
    let mut bytes = stored.to_vec();
    for record in damage.iter().rev().filter(|record| record.path == path) {
        let start = record.offset as usize;
        bytes[start..start + record.right.len()].copy_from_slice(&record.right);
    }
    bytes
}

/// Reads a segment with the right bytes put back.
fn undamaged(
    disk: &HostDisk,
    (log, sequence): (LogId, SegmentSequence),
    path: PathBuf,
    damage: &[DamageRecord],
) -> Segment {
    let stored = disk.read(&path).expect("it was listed");
    let bytes = without_damage(&stored, &path, damage);
    let mut batches: Vec<BatchHeader> = Vec::new();
    let mut offset = 0;
    while let Ok(header) = check_batch(
        &bytes[(offset as usize).min(bytes.len())..],
        BatchPlace {
            log,
            segment: sequence,
            offset,
        },
    ) {
        offset += header.content_bytes().next_multiple_of(BLOCK_BYTES) as u64;
        batches.push(header);
    }
    let head = batches.first().filter(|header| header.flags & FLAG_HEAD != 0);
    let head = head.and_then(|header| records(&bytes, header).next()?);
    let head = head.filter(|record| record.kind == RecordKind::SegmentHead);
    let head = head.and_then(|record| SegmentHead::decode(record.payload));
    Segment {
        path,
        stored,
        bytes,
        batches,
        head,
    }
}

/// The batches of the newest chain of a log.
fn chain(segments: &BTreeMap<SegmentSequence, Segment>) -> Vec<Believed> {
    let mut next = segments.iter().rev().find(|(_, segment)| segment.head.is_some());
    let newest = next.and_then(|(_, segment)| segment.head);
    let oldest = newest.map_or(SegmentSequence(0), |head| head.oldest);
    let mut limit = u64::MAX;
    let mut batches: Vec<(&Segment, &BatchHeader)> = Vec::new();
    while let Some((_, segment)) = next {
        let Some(head) = segment.head else { break };
        let boot = segment.batches[0].boot;
        let of_chain = segment
            .batches
            .iter()
            .take_while(|batch| batch.boot == boot && batch.number.0 <= limit);
        batches.extend(of_chain.map(|batch| (segment, batch)));
        limit = head.predecessor_last.0;
        next = segments
            .get_key_value(&head.predecessor)
            .filter(|(sequence, _)| **sequence >= oldest);
    }
    // The highest batch that is said to have been durable by one whose bytes are as they were.
    let is_intact = |(segment, batch): &&(&Segment, &BatchHeader)| {
        let range = batch.offset as usize..batch.offset as usize + batch.content_bytes();
        segment.stored[range.clone()] == segment.bytes[range]
    };
    let durable_through = batches
        .iter()
        .filter(is_intact)
        .map(|(_, batch)| batch.durable_through)
        .max();
    let parts = batches.iter().map(|(segment, batch)| Believed {
        path: segment.path.clone(),
        range: batch.offset..batch.offset + batch.content_bytes() as u64,
        is_covered: Some(batch.number) <= durable_through,
    });
    parts.collect()
}
