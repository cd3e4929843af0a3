//! What a node reads from its disk at a start: batches of the log, the entries in them, the node's identity. A disk
//! is no enemy, but a damaged or half-written block must end in a report, not in a crash.

use ostrakon::cluster::identity;
use ostrakon::log::format::{
    BATCH_HEADER_BYTES, BatchHeader, BatchPlace, DIRECTORY_ENTRY_BYTES, LogId, RECORD_HEADER_BYTES,
    RecordKind, SegmentHead, SegmentSequence, ShardState, check_batch, directory, finish_batch, own_place,
    records,
};
use ostrakon::shard::command::{Body, Command, Head, append_operation};

/// Reads the bytes as the batch at the place that they claim, as they are and with the checksums put right.
pub fn batch(data: &[u8]) {
    read_batch(data);
    if let Some(sealed) = with_checksums(data) {
        read_batch(&sealed);
    }
}

fn read_batch(bytes: &[u8]) {
    let here = BatchPlace {
        log: LogId(0),
        segment: SegmentSequence(1),
        offset: 0,
    };
    let place = own_place(bytes).unwrap_or(here);
    match check_batch(bytes, place) {
        Ok(header) => {
            read_directory(bytes, &header);
            read_records(bytes, &header);
        }
        // Then the directory can be believed.
        Err((fault, Some(header))) => {
            assert!(!fault.to_string().is_empty());
            read_directory(bytes, &header);
        }
        Err((fault, None)) => assert!(!fault.to_string().is_empty()),
    }
}

fn read_directory(bytes: &[u8], header: &BatchHeader) {
    assert!(header.content_bytes() <= bytes.len());
    assert_eq!(directory(bytes, header).len(), header.directory_count as usize);
}

fn read_records(bytes: &[u8], header: &BatchHeader) {
    let mut count = 0;
    for record in records(bytes, header) {
        count += 1;
        assert!(
            count <= header.records_bytes as usize / RECORD_HEADER_BYTES + 1,
            "more records than bytes for them"
        );
        let Some(record) = record else { continue };
        match record.kind {
            RecordKind::Entry => command(record.payload),
            RecordKind::ShardState => {
                if let Some(state) = ShardState::decode(record.payload) {
                    assert_eq!(state.encode()[..], *record.payload);
                }
            }
            RecordKind::SegmentHead => {
                if let Some(head) = SegmentHead::decode(record.payload) {
                    assert_eq!(head.encode()[..], *record.payload);
                }
            }
        }
    }
}

/// The same batch with lengths that fit and both checksums right, so that directory and records are reached.
fn with_checksums(data: &[u8]) -> Option<Vec<u8>> {
    let content_bytes = data.len().checked_sub(BATCH_HEADER_BYTES)?;
    let u16_at = |at: usize| u16::from_le_bytes([data[at], data[at + 1]]);
    let u32_at = |at: usize| u32::from_le_bytes(data[at..at + 4].try_into().expect("four bytes"));
    let u64_at = |at: usize| u64::from_le_bytes(data[at..at + 8].try_into().expect("eight bytes"));
    let directory_count = u32_at(68) as usize % (content_bytes / DIRECTORY_ENTRY_BYTES + 1);
    let directory_bytes = directory_count * DIRECTORY_ENTRY_BYTES;
    let header = BatchHeader {
        flags: u16_at(14) & 7,
        segment: SegmentSequence(u64_at(16)),
        number: ostrakon::log::format::BatchNumber(u64_at(24)),
        durable_through: ostrakon::log::format::BatchNumber(u64_at(32)),
        offset: u64_at(40),
        boot: ostrakon::log::format::BootNumber(u64_at(48)),
        log: LogId(u32_at(56)),
        records_bytes: (content_bytes - directory_bytes) as u32,
        record_count: u32_at(64),
        directory_count: directory_count as u32,
    };
    let mut sealed = data.to_vec();
    let entries = directory(data, &header);
    finish_batch(&mut sealed, &header, &entries);
    Some(sealed)
}

/// Reads the bytes as what an entry of a shard says; what is accepted encodes to the same bytes.
pub fn command(data: &[u8]) {
    let Some(command) = Command::decode(data) else {
        return;
    };
    let (timestamp, retry) = (command.timestamp, command.retry.as_ref());
    let encoded = match command.body {
        Body::Write { key, change } => {
            let head = Head::of_write(timestamp, retry, key, &change);
            [head.as_bytes(), key, change.value()].concat()
        }
        Body::Batch(operations) => {
            let mut encoded = Head::of_batch(timestamp, retry, operations.len())
                .as_bytes()
                .to_vec();
            for (key, change) in operations.iter() {
                append_operation(&mut encoded, key, &change);
            }
            encoded
        }
        Body::DeleteRange { start, end } => {
            let head = Head::of_delete_range(timestamp, retry, start, end);
            [head.as_bytes(), start, end.unwrap_or_default()].concat()
        }
        Body::Failure(failure) => {
            let retry = retry.expect("a failure has a retry");
            Head::of_failure(timestamp, retry, &failure).as_bytes().to_vec()
        }
        Body::Ceiling { horizon, watermark } => Head::of_ceiling(timestamp, horizon, watermark)
            .as_bytes()
            .to_vec(),
    };
    assert_eq!(encoded, data);
}

/// Reads the bytes as the file `node`, as they are and with the checksum put right.
pub fn identity(data: &[u8]) {
    let read = |bytes: &[u8]| match identity::decode(bytes) {
        Ok(_) => {}
        Err(reason) => assert!(!reason.is_empty()),
    };
    read(data);
    if data.len() >= identity::CONTENT_BYTES {
        let mut sealed = data.to_vec();
        let checksum = crc32c::crc32c_append(
            crc32c::crc32c(&sealed[..12]),
            &sealed[16..identity::CONTENT_BYTES],
        );
        sealed[12..16].copy_from_slice(&checksum.to_le_bytes());
        read(&sealed);
    }
}
