//! What is wrong with a log, all of it, without changing a byte: for a check while no node runs.
//!
//! A start stops at the first damage that no crash can explain. Here the same judgement is asked first, since it knows
//! the nearest cause. If it finds damage, all segments from the oldest needed one on are read whole: wherever batches
//! are missing or damaged that a later one calls durable, there is damage too.

use std::collections::BTreeMap;
use std::path::Path;

use super::LogError;
use super::format::{
    BatchFault, BatchHeader, BatchNumber, BatchPlace, LogId, SegmentSequence, check_batch, directory,
};
use super::found::{Corruption, LogChain, ScanOptions};
use super::heads::{Opening, SegmentFile, read_opening, wrong_file};
use super::reading::Reading;
use super::recovery::look;
use super::segment::{log_directory, parse_segment_name, segment_path};
use crate::env::disk::BLOCK_BYTES;
use crate::env::{Disk, Tasks, tasks::yield_now};

/// A log as a check found it.
#[derive(Clone, Debug)]
pub struct Surveyed {
    /// What counts of it, up to the first damage.
    pub chain: LogChain,
    /// All damage, in the order of the files, but for the first, which is the one that a start names.
    pub damages: Vec<Corruption>,
}

/// A batch whose header is whole.
struct Found {
    header: BatchHeader,
    /// What is wrong with its records, and the shards that they concern.
    fault: Option<(BatchFault, Vec<ostrakon_wire::routing::ShardId>)>,
}

/// A segment file with all that is whole in it.
struct Surveying {
    file: SegmentFile,
    batches: Vec<Found>,
}

/// Looks a log through.
///
/// # Errors
/// IO errors of the reads.
pub async fn survey(
    (disk, tasks): (&dyn Disk, &dyn Tasks),
    data: &Path,
    log: LogId,
    segment_bytes: u64,
) -> Result<Surveyed, LogError> {
    let options = ScanOptions {
        segment_bytes,
        cut_corrupt: false,
    };
    let first = match look(disk, tasks, data, log, options).await {
        Ok(chain) => {
            return Ok(Surveyed {
                chain,
                damages: Vec::new(),
            });
        }
        Err(LogError::Corruption(first)) => *first,
        Err(error) => return Err(error),
    };
    let cut = ScanOptions {
        cut_corrupt: true,
        ..options
    };
    let chain = match look(disk, tasks, data, log, cut).await {
        Ok(chain) => chain,
        // A record that does not parse is never cut.
        Err(LogError::Corruption(_)) => LogChain::empty(log),
        Err(error) => return Err(error),
    };
    let mut damages = vec![first];
    for damage in survey_segments((disk, tasks), data, log, segment_bytes, &damages[0].path).await? {
        let is_known = |known: &Corruption| known.path == damage.path && known.offset == damage.offset;
        if !damages.iter().any(is_known) {
            damages.push(damage);
        }
    }
    Ok(Surveyed { chain, damages })
}

/// The damage in all segments that are needed. `first` is the file whose damage a start names.
async fn survey_segments(
    (disk, tasks): (&dyn Disk, &dyn Tasks),
    data: &Path,
    log: LogId,
    segment_bytes: u64,
    first: &Path,
) -> Result<Vec<Corruption>, LogError> {
    let dir = log_directory(data, log);
    let mut files = Vec::new();
    for entry in disk
        .list(&dir)
        .await
        .map_err(|source| LogError::io("list", &dir, source))?
    {
        let Some(sequence) = parse_segment_name(&entry.name) else {
            continue;
        };
        let mut file = SegmentFile {
            sequence,
            path: segment_path(&dir, sequence),
            len_bytes: entry.len_bytes,
            opening: Opening::Blank,
        };
        file.opening = read_opening(disk, log, segment_bytes, &file).await?;
        files.push(file);
    }
    files.sort_by_key(|file| file.sequence);
    let newest = files.iter().rev().find_map(SegmentFile::head);
    let oldest = newest.map_or(SegmentSequence(0), |(_, head)| head.oldest);
    let mut segments = Vec::new();
    for file in files.into_iter().filter(|file| file.sequence >= oldest) {
        let batches = if file.wrong().is_some() {
            Vec::new()
        } else {
            batches_of((disk, tasks), log, &file, segment_bytes).await?
        };
        segments.push(Surveying { file, batches });
    }
    Ok(judge(&dir, (oldest, may_be_freed(&segments, first)), &segments))
}

/// All batches of a file whose headers are whole.
async fn batches_of(
    (disk, tasks): (&dyn Disk, &dyn Tasks),
    log: LogId,
    file: &SegmentFile,
    segment_bytes: u64,
) -> Result<Vec<Found>, LogError> {
    let mut reading = Reading::open(disk, &file.path, segment_bytes).await?;
    let mut batches: Vec<Found> = Vec::new();
    let mut offset = 0;
    while offset < segment_bytes {
        let bytes = reading.batch_at(offset).await?;
        let place = BatchPlace {
            log,
            segment: file.sequence,
            offset,
        };
        let found = match check_batch(bytes, place) {
            Ok(header) => Some(Found { header, fault: None }),
            Err((fault, Some(header))) => {
                let shards = directory(bytes, &header).into_iter().map(|entry| entry.shard);
                let fault = Some((fault, shards.collect()));
                Some(Found { header, fault })
            }
            Err((_, None)) => None,
        };
        // What lies inside a batch is a value that somebody stored.
        offset += found
            .as_ref()
            .map_or(BLOCK_BYTES as u64, |found| padded_bytes(&found.header));
        batches.extend(found);
        if tasks.should_yield() {
            yield_now().await;
        }
    }
    reading.close().await?;
    Ok(batches)
}

fn padded_bytes(header: &BatchHeader) -> u64 {
    header.content_bytes().next_multiple_of(BLOCK_BYTES) as u64
}

/// The first segment whose head is whole, if the one before it may have been freed by the head of a newer segment that
/// is lost.
fn may_be_freed(segments: &[Surveying], first: &Path) -> Option<SegmentSequence> {
    let with_head = || segments.iter().filter(|segment| segment.file.head().is_some());
    let newest = with_head().next_back()?.file.sequence;
    let is_lost = |file: &SegmentFile| {
        file.sequence > newest && (file.path == first || matches!(file.opening, Opening::Other))
    };
    let is_any_lost = segments.iter().any(|segment| is_lost(&segment.file));
    with_head()
        .next()
        .map(|segment| segment.file.sequence)
        .filter(|_| is_any_lost)
}

/// Wherever a batch is missing that another calls durable, there is damage. What lies before the segment
/// `behind_freed` is not missed.
fn judge(
    dir: &Path,
    (oldest, behind_freed): (SegmentSequence, Option<SegmentSequence>),
    segments: &[Surveying],
) -> Vec<Corruption> {
    let headers = segments.iter().flat_map(|segment| &segment.batches);
    let durable_through = headers.map(|found| found.header.durable_through).max();
    let durable_through = durable_through.unwrap_or_default();
    // Whatever lies behind the batch that a successor names is void.
    let mut limits: BTreeMap<SegmentSequence, BatchNumber> = BTreeMap::new();
    let mut damages = Vec::new();
    let mut due = None;
    for segment in segments {
        let Some((_, head)) = segment.file.head() else {
            continue;
        };
        limits.insert(head.predecessor, head.predecessor_last);
        due = due.or(Some(BatchNumber(head.predecessor_last.0 + 1)));
        let mut sequences = segments.iter().map(|other| other.file.sequence);
        let is_there = sequences.any(|sequence| sequence == head.predecessor);
        if Some(segment.file.sequence) != behind_freed
            && head.predecessor >= oldest
            && head.predecessor != SegmentSequence(0)
            && !is_there
            && head.predecessor_last <= durable_through
        {
            let finding = "the segment is missing although a later one continues it";
            damages.push(wrong_file(
                &segment_path(dir, head.predecessor),
                finding.to_owned(),
            ));
        }
    }
    let mut due = due.unwrap_or(BatchNumber(1));
    for segment in segments {
        if let Some(wrong) = segment.file.wrong() {
            damages.push(wrong.clone());
            continue;
        }
        // A segment that is missing or can't be read explains what lies before the head that follows it.
        if let Some((header, head)) = segment.file.head() {
            let before = segments
                .iter()
                .find(|other| other.file.sequence == head.predecessor);
            if before.is_none_or(|before| before.file.wrong().is_some()) {
                due = due.max(header.number);
            }
        }
        let limit = limits.get(&segment.file.sequence).copied();
        let bound = limit.unwrap_or_else(|| bound_by_a_lost_head(segments, segment.file.sequence));
        let counts = |found: &&Found| found.header.number <= bound;
        let mut offset = 0;
        for found in segment.batches.iter().filter(counts) {
            let header = &found.header;
            if header.number > due && due <= durable_through {
                let last = BatchNumber((header.number.0 - 1).min(durable_through.0));
                damages.push(missing(segment, offset, (due, last)));
            }
            if let Some((fault, shards)) = &found.fault
                && header.number <= durable_through
            {
                damages.push(Corruption {
                    path: segment.file.path.clone(),
                    offset: header.offset,
                    finding: format!("batch {}: {fault}", header.number.0),
                    suspects: shards.clone(),
                });
            }
            due = due.max(BatchNumber(header.number.0 + 1));
            offset = header.offset + padded_bytes(header);
        }
        if let Some(limit) = limit.filter(|limit| due <= *limit && due <= durable_through) {
            damages.push(missing(segment, offset, (due, limit)));
            due = BatchNumber(limit.0 + 1);
        }
    }
    damages
}

/// The highest number that a batch of a segment can have which counts, if the head of the next one is lost, and only
/// its own batches tell of it: that head came before the first of them.
fn bound_by_a_lost_head(segments: &[Surveying], sequence: SegmentSequence) -> BatchNumber {
    let mut later = segments.iter().filter(|later| later.file.sequence > sequence);
    let next = later.find(|next| !next.batches.is_empty());
    let headless = next.filter(|next| next.file.head().is_none());
    headless.map_or(BatchNumber(u64::MAX), |next| {
        BatchNumber(next.batches[0].header.number.0.saturating_sub(2))
    })
}

/// Batches that should begin at an offset of a segment.
fn missing(segment: &Surveying, offset: u64, (first, last): (BatchNumber, BatchNumber)) -> Corruption {
    let batches = if first == last {
        format!("batch {}", first.0)
    } else {
        format!("batches {} to {}", first.0, last.0)
    };
    Corruption {
        path: segment.file.path.clone(),
        offset,
        finding: format!("{batches}: expected here, found other bytes"),
        suspects: Vec::new(),
    }
}
