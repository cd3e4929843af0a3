//! The log's bytes: batches and the records in them. `docs/formats.md` has the diagrams; the golden bytes in
//! `tests/format_bytes.rs` hold this file to them.
//!
//! A segment is a sequence of batches, each starting on a block boundary:
//!
//! ```text
//! batch   = header (80 bytes) | records | directory (24 bytes per shard) | zeros to the block's end
//! record  = kind u8, 3 zero bytes | shard u32 | payload bytes u32 | ownership epoch u32
//!           | term u64 | index u64 | payload | zeros to a multiple of 8
//! ```
//!
//! Two checksums, both seeded with the segment's sequence number, so that neither a stale batch of another
//! life of the same blocks nor a misdirected one passes: one over header and directory, one over the
//! records. When only the second fails, the directory still says which shards the damage may concern.

use ostrakon_core::raft::{EntryId, HardState, LogIndex, ReplicaId, Term};
use ostrakon_wire::routing::ShardId;

/// "OSTB", the first bytes of every batch.
pub const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"OSTB");
/// Version of this format.
pub const FORMAT_VERSION: u16 = 1;
/// Bytes of a batch header.
pub const BATCH_HEADER_BYTES: usize = 80;
/// Bytes of a directory entry.
pub const DIRECTORY_ENTRY_BYTES: usize = 24;
/// Bytes of a record before its payload.
pub const RECORD_HEADER_BYTES: usize = 32;
/// Batch flag: the first batch of a segment.
pub const FLAG_HEAD: u16 = 1;
/// Batch flag: the last batch of a clean shutdown.
pub const FLAG_SEAL: u16 = 2;
/// Batch flag of a head: the file held another segment before, and what that one left lies behind the batches of
/// this one, where a new file has zeros.
pub const FLAG_RECYCLED: u16 = 4;

/// Number of a batch within its log, from 1, without gaps along the chain of segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchNumber(pub u64);

/// Number of a segment within its log, from 1. Never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentSequence(pub u64);

/// Number of a start of the node on its data directory, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootNumber(pub u64);

/// A log of the node; one per core that ever ran on the data directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogId(pub u32);

/// Counts the takeovers of a shard by another core's log. A higher complete epoch voids a lower one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnershipEpoch(pub u32);

/// The fixed part of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// [`FLAG_HEAD`], [`FLAG_SEAL`].
    pub flags: u16,
    /// Segment it was written to.
    pub segment: SegmentSequence,
    /// Its number.
    pub number: BatchNumber,
    /// The last batch that was known to be durable when this one was written.
    pub durable_through: BatchNumber,
    /// Byte offset in the segment.
    pub offset: u64,
    /// Start of the node that wrote it.
    pub boot: BootNumber,
    /// Log it belongs to.
    pub log: LogId,
    /// Bytes of all records.
    pub records_bytes: u32,
    /// Number of records.
    pub record_count: u32,
    /// Entries in the directory.
    pub directory_count: u32,
}

impl BatchHeader {
    /// Bytes of header, records and directory, without the padding.
    pub fn content_bytes(&self) -> usize {
        BATCH_HEADER_BYTES
            + self.records_bytes as usize
            + self.directory_count as usize * DIRECTORY_ENTRY_BYTES
    }

    /// Where the directory starts within the batch.
    pub fn directory_offset(&self) -> usize {
        BATCH_HEADER_BYTES + self.records_bytes as usize
    }
}

/// Which entries of a shard a batch holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The shard.
    pub shard: ShardId,
    /// True when the batch also holds a state record of the shard.
    pub has_state: bool,
    /// First entry; zero when there is none.
    pub first: LogIndex,
    /// Last entry; zero when there is none.
    pub last: LogIndex,
}

/// The kinds of record. Their numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// A Raft entry of a shard.
    Entry = 1,
    /// A shard's hard state, log base and ownership.
    ShardState = 2,
    /// What a segment says of itself; the first record of a head batch.
    SegmentHead = 3,
}

/// A record within a verified batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What the payload is.
    pub kind: RecordKind,
    /// Shard (0 for a segment head).
    pub shard: ShardId,
    /// Ownership epoch of the shard at the time.
    pub epoch: OwnershipEpoch,
    /// Term and index of an entry (zero for other kinds).
    pub entry: EntryId,
    /// The bytes.
    pub payload: &'a [u8],
}

/// Payload of a [`RecordKind::ShardState`] record, 40 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardState {
    /// Term and vote.
    pub hard_state: HardState,
    /// The log of the shard starts after this entry.
    pub base: EntryId,
    /// False while the shard's tail is still being copied from another log: the epoch does not count yet.
    pub complete: bool,
}

/// Payload of a [`RecordKind::SegmentHead`] record, 64 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentHead {
    /// Cluster, high and low half.
    pub cluster: (u64, u64),
    /// Node.
    pub node: u64,
    /// Segment that this one continues; zero for the first of a log.
    pub predecessor: SegmentSequence,
    /// Last batch of the predecessor; whatever lies beyond it there is void for ever.
    pub predecessor_last: BatchNumber,
    /// Length of the segment file.
    pub segment_bytes: u64,
    /// Shards of the cluster.
    pub shards: u32,
    /// The oldest segment that a restart needs; once this head is durable, those before it may be gone.
    pub oldest: SegmentSequence,
}

/// Why bytes are not a valid batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchFault {
    /// The block is zero, or the segment ends here: nothing was written.
    Blank,
    /// Magic, version, place or lengths are not those of a batch at this place.
    NotABatch,
    /// Checksum over header and directory.
    HeaderChecksum {
        /// As stored.
        expected: u32,
        /// As computed.
        found: u32,
    },
    /// Checksum over the records; header and directory are intact.
    RecordsChecksum {
        /// As stored.
        expected: u32,
        /// As computed.
        found: u32,
    },
}

impl core::fmt::Display for BatchFault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            BatchFault::Blank => write!(f, "expected a batch, found zeros or the segment's end"),
            BatchFault::NotABatch => write!(f, "expected a batch header, found other bytes"),
            BatchFault::HeaderChecksum { expected, found } => {
                write!(
                    f,
                    "header checksum: expected {expected:#010x}, found {found:#010x}"
                )
            }
            BatchFault::RecordsChecksum { expected, found } => {
                write!(
                    f,
                    "record checksum: expected {expected:#010x}, found {found:#010x}"
                )
            }
        }
    }
}

/// The place where a batch is looked for; a valid one names the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlace {
    /// Log, by its directory.
    pub log: LogId,
    /// Segment, by its file name.
    pub segment: SegmentSequence,
    /// Byte offset in the segment.
    pub offset: u64,
}

fn seeded_crc(segment: SegmentSequence, parts: [&[u8]; 2]) -> u32 {
    let seeded = crc32c::crc32c(&segment.0.to_le_bytes());
    let first = crc32c::crc32c_append(seeded, parts[0]);
    crc32c::crc32c_append(first, parts[1])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Writes header and directory around the records that already lie in `batch` after the header's place.
/// `batch` is at least [`BatchHeader::content_bytes`] long.
pub fn finish_batch(batch: &mut [u8], header: &BatchHeader, directory: &[DirectoryEntry]) {
    assert_eq!(
        header.directory_count as usize,
        directory.len(),
        "directory length"
    );
    let directory_offset = header.directory_offset();
    for (slot, entry) in directory.iter().enumerate() {
        let at = directory_offset + slot * DIRECTORY_ENTRY_BYTES;
        let bytes = &mut batch[at..at + DIRECTORY_ENTRY_BYTES];
        bytes[0..4].copy_from_slice(&entry.shard.0.to_le_bytes());
        bytes[4..8].copy_from_slice(&u32::from(entry.has_state).to_le_bytes());
        bytes[8..16].copy_from_slice(&entry.first.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&entry.last.0.to_le_bytes());
    }
    let records_crc = seeded_crc(
        header.segment,
        [&batch[BATCH_HEADER_BYTES..directory_offset], &[]],
    );
    batch[0..4].copy_from_slice(&BATCH_MAGIC.to_le_bytes());
    batch[8..12].copy_from_slice(&records_crc.to_le_bytes());
    batch[12..14].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    batch[14..16].copy_from_slice(&header.flags.to_le_bytes());
    batch[16..24].copy_from_slice(&header.segment.0.to_le_bytes());
    batch[24..32].copy_from_slice(&header.number.0.to_le_bytes());
    batch[32..40].copy_from_slice(&header.durable_through.0.to_le_bytes());
    batch[40..48].copy_from_slice(&header.offset.to_le_bytes());
    batch[48..56].copy_from_slice(&header.boot.0.to_le_bytes());
    batch[56..60].copy_from_slice(&header.log.0.to_le_bytes());
    batch[60..64].copy_from_slice(&header.records_bytes.to_le_bytes());
    batch[64..68].copy_from_slice(&header.record_count.to_le_bytes());
    batch[68..72].copy_from_slice(&header.directory_count.to_le_bytes());
    batch[72..80].fill(0);
    let header_crc = header_checksum(batch, header);
    batch[4..8].copy_from_slice(&header_crc.to_le_bytes());
}

fn header_checksum(batch: &[u8], header: &BatchHeader) -> u32 {
    let directory = &batch[header.directory_offset()..header.content_bytes()];
    seeded_crc(header.segment, [&batch[8..BATCH_HEADER_BYTES], directory])
}

/// Checks the batch that starts at `bytes[0]`. On [`BatchFault::RecordsChecksum`] the header is returned as
/// well, since it is intact.
///
/// # Errors
/// What is wrong, with the header when that can be trusted.
pub fn check_batch(
    bytes: &[u8],
    place: BatchPlace,
) -> Result<BatchHeader, (BatchFault, Option<BatchHeader>)> {
    if bytes.is_empty() {
        return Err((BatchFault::Blank, None));
    }
    if bytes.len() < BATCH_HEADER_BYTES {
        return Err((BatchFault::NotABatch, None));
    }
    let header = parse_header(bytes, place)?;
    let expected = u32_at(bytes, 4);
    let found = header_checksum(bytes, &header);
    if expected != found {
        return Err((BatchFault::HeaderChecksum { expected, found }, None));
    }
    let expected = u32_at(bytes, 8);
    let records = &bytes[BATCH_HEADER_BYTES..header.directory_offset()];
    let found = seeded_crc(place.segment, [records, &[]]);
    if expected != found {
        return Err((BatchFault::RecordsChecksum { expected, found }, Some(header)));
    }
    Ok(header)
}

fn parse_header(bytes: &[u8], place: BatchPlace) -> Result<BatchHeader, (BatchFault, Option<BatchHeader>)> {
    if bytes[..BATCH_HEADER_BYTES].iter().all(|byte| *byte == 0) {
        return Err((BatchFault::Blank, None));
    }
    let header = BatchHeader {
        flags: u16_at(bytes, 14),
        segment: SegmentSequence(u64_at(bytes, 16)),
        number: BatchNumber(u64_at(bytes, 24)),
        durable_through: BatchNumber(u64_at(bytes, 32)),
        offset: u64_at(bytes, 40),
        boot: BootNumber(u64_at(bytes, 48)),
        log: LogId(u32_at(bytes, 56)),
        records_bytes: u32_at(bytes, 60),
        record_count: u32_at(bytes, 64),
        directory_count: u32_at(bytes, 68),
    };
    let lengths_fit = header.content_bytes() <= bytes.len();
    let here = header.segment == place.segment && header.offset == place.offset && header.log == place.log;
    let known = u32_at(bytes, 0) == BATCH_MAGIC
        && u16_at(bytes, 12) == FORMAT_VERSION
        && header.flags & !(FLAG_HEAD | FLAG_SEAL | FLAG_RECYCLED) == 0;
    if known && here && lengths_fit {
        Ok(header)
    } else {
        Err((BatchFault::NotABatch, None))
    }
}

/// The place that a batch claims as its own, if it is valid there, or its header is.
pub fn own_place(bytes: &[u8]) -> Option<BatchPlace> {
    if bytes.len() < BATCH_HEADER_BYTES {
        return None;
    }
    let (log, segment) = (LogId(u32_at(bytes, 56)), SegmentSequence(u64_at(bytes, 16)));
    let place = BatchPlace {
        log,
        segment,
        offset: u64_at(bytes, 40),
    };
    match check_batch(bytes, place) {
        Ok(_) | Err((BatchFault::RecordsChecksum { .. }, Some(_))) => Some(place),
        Err(_) => None,
    }
}

/// The directory of a batch that [`check_batch`] accepted or whose header it returned.
pub fn directory(batch: &[u8], header: &BatchHeader) -> Vec<DirectoryEntry> {
    batch[header.directory_offset()..header.content_bytes()]
        .chunks_exact(DIRECTORY_ENTRY_BYTES)
        .map(|bytes| DirectoryEntry {
            shard: ShardId(u32_at(bytes, 0)),
            has_state: u32_at(bytes, 4) != 0,
            first: LogIndex(u64_at(bytes, 8)),
            last: LogIndex(u64_at(bytes, 16)),
        })
        .collect()
}

/// Bytes that a record with this payload takes.
pub fn record_bytes(payload_bytes: usize) -> usize {
    RECORD_HEADER_BYTES + payload_bytes.next_multiple_of(8)
}

/// Writes the header of a record; the payload follows it.
pub fn put_record_header(
    bytes: &mut [u8],
    kind: RecordKind,
    shard: ShardId,
    epoch: OwnershipEpoch,
    entry: EntryId,
    payload_bytes: usize,
) {
    bytes[0..4].copy_from_slice(&u32::from(kind as u8).to_le_bytes());
    bytes[4..8].copy_from_slice(&shard.0.to_le_bytes());
    bytes[8..12].copy_from_slice(&(payload_bytes as u32).to_le_bytes());
    bytes[12..16].copy_from_slice(&epoch.0.to_le_bytes());
    bytes[16..24].copy_from_slice(&entry.term.0.to_le_bytes());
    bytes[24..32].copy_from_slice(&entry.index.0.to_le_bytes());
}

/// Iterates over the records of a batch that [`check_batch`] accepted. `None` inside means that a record
/// does not parse although its checksum matched: a writer's bug or a newer format. It is the last then, since nobody
/// knows where the next record starts, whatever the header says of their number.
pub fn records<'a>(batch: &'a [u8], header: &BatchHeader) -> impl Iterator<Item = Option<Record<'a>>> {
    let mut rest = Some(&batch[BATCH_HEADER_BYTES..header.directory_offset()]);
    let count = header.record_count;
    (0..count).map_while(move |_| {
        let parsed = parse_record(rest?);
        rest = parsed.map(|(_, after)| after);
        Some(parsed.map(|(record, _)| record))
    })
}

fn parse_record(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    if bytes.len() < RECORD_HEADER_BYTES {
        return None;
    }
    let kind = match u32_at(bytes, 0) {
        1 => RecordKind::Entry,
        2 => RecordKind::ShardState,
        3 => RecordKind::SegmentHead,
        _ => return None,
    };
    let payload_bytes = u32_at(bytes, 8) as usize;
    let end = record_bytes(payload_bytes);
    if bytes.len() < end {
        return None;
    }
    let record = Record {
        kind,
        shard: ShardId(u32_at(bytes, 4)),
        epoch: OwnershipEpoch(u32_at(bytes, 12)),
        entry: EntryId {
            term: Term(u64_at(bytes, 16)),
            index: LogIndex(u64_at(bytes, 24)),
        },
        payload: &bytes[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + payload_bytes],
    };
    Some((record, &bytes[end..]))
}

impl ShardState {
    /// The payload's bytes.
    pub fn encode(&self) -> [u8; 40] {
        let mut bytes = [0; 40];
        bytes[0..8].copy_from_slice(&self.hard_state.term.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.hard_state.vote.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.base.term.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.base.index.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&u64::from(self.complete).to_le_bytes());
        bytes
    }

    /// Reads a payload; `None` if its length or a field is not of this format.
    pub fn decode(bytes: &[u8]) -> Option<ShardState> {
        if bytes.len() != 40 || u64_at(bytes, 32) > 1 {
            return None;
        }
        Some(ShardState {
            hard_state: HardState {
                term: Term(u64_at(bytes, 0)),
                vote: ReplicaId(u64_at(bytes, 8)),
            },
            base: EntryId {
                term: Term(u64_at(bytes, 16)),
                index: LogIndex(u64_at(bytes, 24)),
            },
            complete: u64_at(bytes, 32) == 1,
        })
    }
}

impl SegmentHead {
    /// The payload's bytes.
    pub fn encode(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[0..8].copy_from_slice(&self.cluster.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.cluster.1.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.node.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.predecessor.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.predecessor_last.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.segment_bytes.to_le_bytes());
        bytes[48..56].copy_from_slice(&u64::from(self.shards).to_le_bytes());
        bytes[56..64].copy_from_slice(&self.oldest.0.to_le_bytes());
        bytes
    }

    /// Reads a payload; `None` if its length or a field is not of this format.
    pub fn decode(bytes: &[u8]) -> Option<SegmentHead> {
        if bytes.len() != 64 {
            return None;
        }
        Some(SegmentHead {
            cluster: (u64_at(bytes, 0), u64_at(bytes, 8)),
            node: u64_at(bytes, 16),
            predecessor: SegmentSequence(u64_at(bytes, 24)),
            predecessor_last: BatchNumber(u64_at(bytes, 32)),
            segment_bytes: u64_at(bytes, 40),
            shards: u32::try_from(u64_at(bytes, 48)).ok()?,
            oldest: SegmentSequence(u64_at(bytes, 56)),
        })
    }
}
