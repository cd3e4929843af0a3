//! How each segment file of a log begins, and what its first bytes say of it.

use std::path::{Path, PathBuf};

use super::LogError;
use super::format::{
    BATCH_HEADER_BYTES, BATCH_MAGIC, BatchHeader, BatchNumber, BatchPlace, BootNumber, DIRECTORY_ENTRY_BYTES,
    FLAG_HEAD, LogId, RecordKind, SegmentHead, SegmentSequence, check_batch, own_place, records,
};
use super::found::Corruption;
use super::reading::{close, open, read};
use crate::env::Disk;
use crate::env::disk::BLOCK_BYTES;

/// What the first block of a segment file holds.
pub(super) enum Opening {
    /// An intact head of this segment.
    Head(BatchHeader, SegmentHead),
    /// An intact head of an older segment of this log: the file was recycled and has no batch of its new life at its
    /// beginning, or it was mixed up.
    Former(SegmentSequence),
    /// Zeros.
    Blank,
    /// Other bytes: a head that is torn or damaged.
    Other,
    /// It is no file of this segment at all: another length, or a batch of another place.
    Wrong(Corruption),
}

/// A segment file.
pub(super) struct SegmentFile {
    pub(super) sequence: SegmentSequence,
    pub(super) path: PathBuf,
    pub(super) len_bytes: u64,
    pub(super) opening: Opening,
}

impl SegmentFile {
    /// Its head, if that is intact.
    pub(super) fn head(&self) -> Option<(BatchHeader, SegmentHead)> {
        match self.opening {
            Opening::Head(header, head) => Some((header, head)),
            _ => None,
        }
    }

    /// Why it is no file of this segment at all.
    pub(super) fn wrong(&self) -> Option<&Corruption> {
        match &self.opening {
            Opening::Wrong(corruption) => Some(corruption),
            _ => None,
        }
    }

    /// What stands where a head is expected that a later segment names.
    pub(super) fn instead_of_head(&self, log: LogId) -> String {
        match &self.opening {
            Opening::Former(former) => {
                misplaced(place_of_head(log, self.sequence), place_of_head(log, *former))
            }
            Opening::Wrong(corruption) => corruption.finding.clone(),
            _ => "expected the head of a segment that a later one continues, found other bytes".into(),
        }
    }
}

/// What no crash makes of a segment file, at its beginning.
pub(super) fn wrong_file(path: &Path, finding: String) -> Corruption {
    Corruption {
        path: path.to_path_buf(),
        offset: 0,
        finding,
        suspects: Vec::new(),
    }
}

/// The sentence on a batch that was found at another place than its own.
pub(super) fn misplaced(place: BatchPlace, own: BatchPlace) -> String {
    format!(
        "expected the head of log {}, segment {}, found a batch of log {}, segment {}, offset {}",
        place.log.0, place.segment.0, own.log.0, own.segment.0, own.offset
    )
}

/// Where the head of a segment lies.
pub(super) fn place_of_head(log: LogId, segment: SegmentSequence) -> BatchPlace {
    BatchPlace {
        log,
        segment,
        offset: 0,
    }
}

/// Reads how a file begins.
pub(super) async fn read_opening(
    disk: &dyn Disk,
    log: LogId,
    segment_bytes: u64,
    found: &SegmentFile,
) -> Result<Opening, LogError> {
    let path = &found.path;
    if found.len_bytes != segment_bytes {
        let finding = format!(
            "expected a segment file of {segment_bytes} bytes, found {} bytes",
            found.len_bytes
        );
        return Ok(Opening::Wrong(wrong_file(path, finding)));
    }
    let file = open(disk, path).await?;
    let mut bytes = read(&*file, path, 0, BLOCK_BYTES).await?;
    if let Some(content_bytes) = claimed_bytes(bytes.bytes(), segment_bytes)
        && content_bytes > BLOCK_BYTES
    {
        bytes = read(&*file, path, 0, content_bytes.next_multiple_of(BLOCK_BYTES)).await?;
    }
    close(&*file, path).await?;
    let (place, bytes) = (place_of_head(log, found.sequence), bytes.bytes());
    Ok(match own_place(bytes) {
        Some(own) if own == place_of_head(log, own.segment) && own.segment < place.segment => {
            Opening::Former(own.segment)
        }
        Some(own) if own != place => Opening::Wrong(wrong_file(path, misplaced(place, own))),
        _ => match parse_head(bytes, place) {
            Some((header, head)) => Opening::Head(header, head),
            None if bytes[..BLOCK_BYTES].iter().all(|byte| *byte == 0) => Opening::Blank,
            None => Opening::Other,
        },
    })
}

fn parse_head(bytes: &[u8], place: BatchPlace) -> Option<(BatchHeader, SegmentHead)> {
    let header = check_batch(bytes, place).ok()?;
    if header.flags & FLAG_HEAD == 0 {
        return None;
    }
    let record = records(bytes, &header).next()??;
    let head = (record.kind == RecordKind::SegmentHead).then(|| SegmentHead::decode(record.payload))??;
    Some((header, head))
}

/// Length of the batch that starts with these bytes, as far as its header can be believed.
pub(super) fn claimed_bytes(bytes: &[u8], segment_bytes: u64) -> Option<usize> {
    if bytes.len() < BATCH_HEADER_BYTES {
        return None;
    }
    let word = |at: usize| {
        u64::from(u32::from_le_bytes(
            bytes[at..at + 4].try_into().expect("four bytes"),
        ))
    };
    if word(0) != u64::from(BATCH_MAGIC) {
        return None;
    }
    let claimed = BATCH_HEADER_BYTES as u64 + word(60) + word(68) * DIRECTORY_ENTRY_BYTES as u64;
    (claimed <= segment_bytes).then_some(claimed as usize)
}

/// True if bytes that are no valid batch still look like the one that was to be written there: they name the segment,
/// or its boot and the number. What an earlier life of the file left does neither.
pub(super) fn bears_life(
    bytes: &[u8],
    segment: SegmentSequence,
    boot: BootNumber,
    number: BatchNumber,
) -> bool {
    if bytes.len() < BATCH_HEADER_BYTES {
        return false;
    }
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    word(16) == segment.0 || word(24) == number.0 && word(48) == boot.0
}
