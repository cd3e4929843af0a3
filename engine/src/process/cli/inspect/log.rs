//! A segment of a log, batch by batch.

use std::io;

use super::source::Source;
use super::{Report, timestamp};
use crate::env::disk::BLOCK_BYTES;
use crate::log::format::{
    BatchFault, BatchHeader, BatchPlace, FLAG_HEAD, FLAG_RECYCLED, FLAG_SEAL, LogId, Record, RecordKind,
    SegmentHead, SegmentSequence, ShardState, check_batch, directory, own_place, records,
};
use crate::log::{parse_log_directory, parse_segment_name};
use crate::process::cli::key::escape;
use crate::shard::command::{Body, Change, Command};

/// What lies at a place.
enum Piece {
    Batch(BatchHeader),
    /// A batch whose records are damaged.
    Damaged(BatchHeader, BatchFault),
    Zeros,
    /// A batch that is whole at a place of another segment or log.
    Foreign(BatchPlace),
    Other(String),
}

pub(super) fn print(source: &Source, with_records: bool, report: &mut Report<'_>) -> io::Result<()> {
    let block_bytes = BLOCK_BYTES as u64;
    let bytes = match source.read(0, (source.len_bytes / block_bytes * block_bytes) as usize) {
        Ok(bytes) => bytes,
        Err(error) => return report.damage(0, 0, &format!("the file can't be read: {error}")),
    };
    if !source.len_bytes.is_multiple_of(block_bytes) {
        let what = format!("the file has no multiple of {BLOCK_BYTES} bytes");
        report.damage(0, source.len_bytes / block_bytes * block_bytes, &what)?;
    }
    let Some((log, segment)) = place(source, &bytes) else {
        return report.damage(
            0,
            0,
            "neither the name of the file nor a batch in it says which log it is of",
        );
    };
    report.line(0, &format!("log {}, segment {}", log.0, segment.0))?;
    let is_batch = |at: &usize| {
        let piece = piece_at(&bytes, log, segment, *at);
        matches!(piece, Piece::Batch(_) | Piece::Damaged(..))
    };
    let last_batch = (0..bytes.len()).step_by(BLOCK_BYTES).rev().find(is_batch);
    let mut offset = 0;
    while offset < bytes.len() {
        let piece = piece(&bytes[offset..], log, segment, offset as u64);
        let end = match &piece {
            Piece::Batch(header) | Piece::Damaged(header, _) => {
                offset + header.content_bytes().next_multiple_of(BLOCK_BYTES)
            }
            Piece::Zeros => end_of(&bytes, offset, |bytes, at| {
                matches!(piece_at(bytes, log, segment, at), Piece::Zeros)
            }),
            Piece::Foreign(_) => end_of(&bytes, offset, |bytes, at| {
                matches!(
                    piece_at(bytes, log, segment, at),
                    Piece::Foreign(_) | Piece::Other(_)
                )
            }),
            Piece::Other(_) => end_of(&bytes, offset, |bytes, at| {
                matches!(piece_at(bytes, log, segment, at), Piece::Other(_))
            }),
        };
        let end = end.min(bytes.len());
        let is_last = last_batch.is_none_or(|last| last <= offset);
        let range = (offset, end);
        print_piece(
            &bytes[offset..end],
            range,
            &piece,
            (is_last, with_records),
            report,
        )?;
        offset = end;
    }
    Ok(())
}

/// What lies in a range of the file. `is_last`: no batch follows.
fn print_piece(
    bytes: &[u8],
    (offset, end): (usize, usize),
    piece: &Piece,
    (is_last, with_records): (bool, bool),
    report: &mut Report<'_>,
) -> io::Result<()> {
    match piece {
        Piece::Batch(header) => print_batch(bytes, header, with_records, report),
        Piece::Damaged(header, fault) => {
            report.line(0, &heading(header, bytes))?;
            report.damage(1, header.offset, &fault.to_string())?;
            for entry in directory(bytes, header) {
                let (shard, first, last) = (entry.shard.0, entry.first.0, entry.last.0);
                report.line(1, &format!("concerns shard {shard}, entries {first} to {last}"))?;
            }
            Ok(())
        }
        Piece::Zeros => report.line(0, &format!("offset {offset}: zeros up to {end}")),
        Piece::Foreign(own) => report.line(
            0,
            &format!(
                "offset {offset}: up to {end} what another life of the file has left: a batch of log {}, segment {}, \
                 offset {}",
                own.log.0, own.segment.0, own.offset
            ),
        ),
        Piece::Other(what) if !is_last => report.damage(0, offset as u64, &format!("{what}, up to {end}")),
        Piece::Other(what) => report.line(
            0,
            &format!(
                "offset {offset}: {what}, up to {end}; no batch follows, so it may be the torn end of a crash, or \
                 what another life of the file has left"
            ),
        ),
    }
}

/// Log and segment, by the names or else by the first batch that is whole.
fn place(source: &Source, bytes: &[u8]) -> Option<(LogId, SegmentSequence)> {
    let by_name = parse_log_directory(&source.directory_name()).zip(parse_segment_name(source.name()));
    by_name.or_else(|| {
        let own = (0..bytes.len()).step_by(BLOCK_BYTES);
        let own = own.filter_map(|offset| Some((offset as u64, own_place(&bytes[offset..])?)));
        let mut here = own.filter(|(offset, own)| own.offset == *offset);
        here.next().map(|(_, own)| (own.log, own.segment))
    })
}

fn piece_at(bytes: &[u8], log: LogId, segment: SegmentSequence, offset: usize) -> Piece {
    piece(&bytes[offset..], log, segment, offset as u64)
}

fn piece(bytes: &[u8], log: LogId, segment: SegmentSequence, offset: u64) -> Piece {
    let place = BatchPlace { log, segment, offset };
    match check_batch(bytes, place) {
        Ok(header) => Piece::Batch(header),
        Err((fault, Some(header))) => Piece::Damaged(header, fault),
        Err((BatchFault::Blank, None)) if bytes[..BLOCK_BYTES].iter().all(|byte| *byte == 0) => Piece::Zeros,
        Err((fault, None)) => match own_place(bytes) {
            Some(own) => Piece::Foreign(own),
            None => Piece::Other(fault.to_string()),
        },
    }
}

/// Where a run of like blocks ends.
fn end_of(bytes: &[u8], offset: usize, is_like: impl Fn(&[u8], usize) -> bool) -> usize {
    let mut blocks = (offset + BLOCK_BYTES..bytes.len()).step_by(BLOCK_BYTES);
    blocks.find(|at| !is_like(bytes, *at)).unwrap_or(bytes.len())
}

fn heading(header: &BatchHeader, batch: &[u8]) -> String {
    let checksum = |at: usize| u32::from_le_bytes(batch[at..at + 4].try_into().expect("four bytes"));
    let flags = [
        (FLAG_HEAD, ", head"),
        (FLAG_SEAL, ", seal"),
        (FLAG_RECYCLED, ", in a file used before"),
    ];
    let flags: String = flags
        .iter()
        .filter(|(flag, _)| header.flags & flag != 0)
        .map(|(_, name)| *name)
        .collect();
    format!(
        "offset {}: batch {}{flags}, {} bytes, boot {}, durable_through {}, {} records of {} bytes, {} shards, \
         header crc {:#010x}, records crc {:#010x}",
        header.offset,
        header.number.0,
        header.content_bytes(),
        header.boot.0,
        header.durable_through.0,
        header.record_count,
        header.records_bytes,
        header.directory_count,
        checksum(4),
        checksum(8)
    )
}

fn print_batch(
    batch: &[u8],
    header: &BatchHeader,
    with_records: bool,
    report: &mut Report<'_>,
) -> io::Result<()> {
    report.line(0, &heading(header, batch))?;
    for entry in directory(batch, header) {
        let state = if entry.has_state { ", a state" } else { "" };
        let (shard, first, last) = (entry.shard.0, entry.first.0, entry.last.0);
        if first.max(last) > 0 {
            report.line(1, &format!("shard {shard}: entries {first} to {last}{state}"))?;
        } else if !with_records {
            report.line(1, &format!("shard {shard}: no entry{state}"))?;
        }
    }
    for record in records(batch, header) {
        match record {
            None => report.damage(1, header.offset, "a record with a valid checksum does not parse")?,
            Some(record) if with_records || record.kind == RecordKind::SegmentHead => {
                match describe(&record) {
                    Some(lines) => {
                        for line in lines {
                            report.line(1, &line)?;
                        }
                    }
                    None => report.damage(1, header.offset, "the payload of a record does not parse")?,
                }
            }
            Some(_) => {}
        }
    }
    let padding = &batch[header.content_bytes()..];
    if padding.iter().any(|byte| *byte != 0) {
        report.damage(
            1,
            header.offset + header.content_bytes() as u64,
            "expected zeros behind the batch, found other bytes",
        )?;
    }
    Ok(())
}

/// A record in lines.
fn describe(record: &Record<'_>) -> Option<Vec<String>> {
    let (shard, epoch) = (record.shard.0, record.epoch.0);
    match record.kind {
        RecordKind::SegmentHead => {
            let head = SegmentHead::decode(record.payload)?;
            Some(vec![format!(
                "head: cluster {:016x}{:016x}, node {:016x}, behind segment {} up to batch {}, the oldest needed \
                 is {}, segments of {} bytes, {} shards",
                head.cluster.0,
                head.cluster.1,
                head.node,
                head.predecessor.0,
                head.predecessor_last.0,
                head.oldest.0,
                head.segment_bytes,
                head.shards
            )])
        }
        RecordKind::ShardState => {
            let state = ShardState::decode(record.payload)?;
            let completeness = if state.complete {
                "complete"
            } else {
                "not complete"
            };
            Some(vec![format!(
                "state of shard {shard}: ownership epoch {epoch}, {completeness}, term {}, vote {:016x}, log base \
                 {} of term {}",
                state.hard_state.term.0, state.hard_state.vote.0, state.base.index.0, state.base.term.0
            )])
        }
        RecordKind::Entry => {
            let command = Command::decode(record.payload)?;
            let mut lines = vec![format!(
                "entry {} of shard {shard}: term {}, ownership epoch {epoch}, {}",
                record.entry.index.0,
                record.entry.term.0,
                body(&command)
            )];
            if let Body::Batch(operations) = command.body {
                let changes = operations.iter();
                lines.extend(changes.map(|(key, what)| format!("  {}", change(key, &what))));
            }
            Some(lines)
        }
    }
}

fn body(command: &Command<'_>) -> String {
    let at = timestamp(command.timestamp);
    let what = match &command.body {
        Body::Write { key, change: what } => format!("version {at}, {}", change(key, what)),
        Body::Batch(operations) => format!("version {at}, batch of {}", operations.len()),
        Body::DeleteRange { start, end } => {
            let end = end.map_or_else(|| "the end".to_owned(), escape);
            format!("version {at}, delete range {} to {end}", escape(start))
        }
        Body::Failure(failure) => format!("at {at}, {failure:?}"),
        Body::Ceiling { horizon, watermark } => format!(
            "ceiling {at}, horizon {}, watermark {}",
            timestamp(*horizon),
            timestamp(*watermark)
        ),
    };
    match &command.retry {
        Some(retry) => format!(
            "{what}, session {:032x}, sequence {}",
            retry.session.0, retry.sequence.0
        ),
        None => what,
    }
}

fn change(key: &[u8], change: &Change<'_>) -> String {
    let key = escape(key);
    match change {
        Change::Put {
            value,
            expiry,
            is_sum,
        } => {
            let name = if *is_sum { "sum" } else { "put" };
            let expiry = expiry.map_or_else(String::new, |expiry| format!(", expires {}", timestamp(expiry)));
            format!("{name} {key}, {} bytes{expiry}", value.len())
        }
        Change::Delete => format!("delete {key}"),
    }
}
