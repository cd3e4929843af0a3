//! All that is in the bytes of a manifest, whole or not: what an opening refuses at its first damage, told to the end.

use super::ShardFiles;
use super::record::{HEADER_BYTES, Record, own_shard, record_at};
use crate::env::disk::BLOCK_BYTES;
use crate::storage::verify::{Flaw, Lost};

pub use super::Change;

/// A part of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A whole record.
    Record {
        /// From the start of the file, in bytes.
        offset: u64,
        /// Length with its padding, in bytes.
        bytes: u64,
        /// Its place among all records.
        sequence: u64,
        /// What it says.
        change: Change,
    },
    /// Bytes that are no record.
    Other(Flaw),
}

/// What the bytes of a manifest say.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// The file, from its start to its end.
    pub parts: Vec<Part>,
    /// What the records say, up to the first damage.
    pub files: ShardFiles,
    /// All damage. With any of which [`Lost::File`] is true, the node does not open the manifest.
    pub flaws: Vec<Flaw>,
    /// What lies behind the last record, if that is something: a write that a crash has torn.
    pub torn: Option<Flaw>,
    /// The sequence that the next record would have.
    pub next_sequence: u64,
}

impl Judged {
    /// May the node open it? Then `files` is all that it says.
    pub fn is_readable(&self) -> bool {
        self.flaws.iter().all(|flaw| flaw.lost == Lost::Nothing)
    }
}

/// The shard of a manifest with these bytes, if a record in it is whole.
pub fn shard_of(bytes: &[u8]) -> Option<u32> {
    (0..bytes.len())
        .step_by(BLOCK_BYTES)
        .find_map(|offset| own_shard(bytes, offset))
}

/// Looks a manifest through. The bytes may be any.
pub fn judge(bytes: &[u8], shard: u32) -> Judged {
    let mut judged = Judged::default();
    let mut due: Option<u64> = None;
    let mut offset = 0;
    while offset < bytes.len() {
        let record = match record_at(bytes, offset, shard) {
            Ok(record) => record,
            Err(what) => {
                let (end, later) = next_record(bytes, offset, shard, due);
                let is_torn = due.is_some() && later.is_none();
                let flaw = Flaw {
                    offset: offset as u64,
                    bytes: (end - offset) as u64,
                    what: later.filter(|_| !is_torn).map_or(what.clone(), |_| {
                        format!("{what}, and there is a newer record at offset {end}")
                    }),
                    lost: Lost::File,
                };
                judged.parts.push(Part::Other(flaw.clone()));
                if is_torn {
                    judged.torn = Some(flaw);
                    break;
                }
                judged.flaws.push(flaw);
                // What comes next is not held against what is missing.
                due = later;
                offset = end;
                continue;
            }
        };
        judged.take(bytes, offset, &record, due);
        due = Some(record.sequence + 1);
        offset += record.bytes;
    }
    judged.next_sequence = due.unwrap_or(0);
    if bytes.is_empty() {
        judged.flaws.push(Flaw {
            offset: 0,
            bytes: 0,
            what: "there is no record".to_owned(),
            lost: Lost::File,
        });
    }
    judged
}

impl Judged {
    fn take(&mut self, bytes: &[u8], offset: usize, record: &Record, due: Option<u64>) {
        self.parts.push(Part::Record {
            offset: offset as u64,
            bytes: record.bytes as u64,
            sequence: record.sequence,
            change: record.change.clone(),
        });
        let mut flaw = |what: String, lost: Lost| {
            self.flaws.push(Flaw {
                offset: offset as u64,
                bytes: record.bytes as u64,
                what,
                lost,
            });
        };
        if let Some(due) = due.filter(|due| *due != record.sequence) {
            flaw(
                format!("a record has sequence {}, expected {due}", record.sequence),
                Lost::File,
            );
        }
        let end = bytes.len().min(offset + record.bytes);
        let content_end = (offset + HEADER_BYTES + record.payload_bytes).min(end);
        if bytes[content_end..end].iter().any(|byte| *byte != 0) {
            let what = "expected zeros behind the record, found other bytes";
            flaw(what.to_owned(), Lost::Nothing);
        }
        if self.is_readable()
            && let Err(what) = self.files.make(&record.change)
        {
            self.flaws.push(Flaw {
                offset: offset as u64,
                bytes: record.bytes as u64,
                what,
                lost: Lost::File,
            });
        }
    }
}

/// Where the next whole record begins behind bytes that are none, with a higher sequence than the one that is due, or
/// the file ends; and its sequence.
fn next_record(bytes: &[u8], offset: usize, shard: u32, due: Option<u64>) -> (usize, Option<u64>) {
    let later = (offset + BLOCK_BYTES..bytes.len()).step_by(BLOCK_BYTES);
    let mut later = later.filter_map(|at| Some((at, record_at(bytes, at, shard).ok()?.sequence)));
    later
        .find(|(_, sequence)| Some(*sequence) > due)
        .map_or((bytes.len(), None), |(at, sequence)| (at, Some(sequence)))
}
