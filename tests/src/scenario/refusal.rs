//! Whether a node that gives up (it refuses to start, or its log fails) has the reason that its words name.
//!
//! The words of the operating system tell an error of the device or a lack of space; all else must be damage, in a
//! file that holds some, at or behind the offset that is named. An operator takes away what was named, and no more.

use std::path::PathBuf;

use super::judge::Failure;
use super::run::fail;
use crate::sim::{Counters, DamageRecord, FaultKind, HostDisk};

/// How the system's words for an error of the device and for a lack of space end.
const DEVICE_ERROR: &str = "(os error 5)";
const NO_SPACE: &str = "(os error 28)";
/// How the node says that it found too little space before the system did.
const NO_ROOM: [&str; 2] = ["has no room for the log", "too little space for a log segment"];

/// What happened since some moment.
pub struct Since<'a> {
    /// The disk.
    pub disk: &'a HostDisk,
    /// The moment, in virtual nanoseconds.
    pub begun_ns: u64,
    /// Faults that had struck by then.
    pub before: &'a Counters,
    /// Faults that have struck by now.
    pub now: &'a Counters,
}

/// What a node names as its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The device failed an operation.
    DeviceError,
    /// There is no space.
    NoSpace,
    /// These files are damaged.
    Damage(Vec<PathBuf>),
}

impl Since<'_> {
    /// The reason that a sentence names.
    ///
    /// # Errors
    /// When it names none, or one that is not there.
    pub fn reason(&self, sentence: &str) -> Result<Reason, Failure> {
        if sentence.contains(DEVICE_ERROR) {
            let is_real =
                self.has_struck(FaultKind::DiskError) || self.has_struck(FaultKind::LatentReadError);
            return real(Reason::DeviceError, is_real, sentence);
        }
        let has_no_room = NO_ROOM.iter().any(|words| sentence.contains(words));
        if sentence.contains(NO_SPACE) || has_no_room {
            let was_full = has_no_room && self.disk.was_full_since(self.begun_ns);
            let is_real = was_full || self.has_struck(FaultKind::DiskFull);
            return real(Reason::NoSpace, is_real, sentence);
        }
        let damage = self.disk.outstanding_damage();
        let named: Vec<PathBuf> = damage
            .iter()
            .filter(|record| is_named(record, sentence))
            .map(|record| record.path.clone())
            .collect();
        if !named.is_empty() {
            return Ok(Reason::Damage(named));
        }
        if damage.is_empty() {
            return fail("no start is refused without a reason", sentence);
        }
        let places: Vec<_> = damage
            .iter()
            .map(|record| (&record.path, record.offset))
            .collect();
        let detail = format!("damaged: {places:?}; the node says: {sentence}");
        fail("a refusal names the damaged file", detail)
    }

    fn has_struck(&self, kind: FaultKind) -> bool {
        self.now.get(kind) > self.before.get(kind)
    }
}

fn real(reason: Reason, is_real: bool, sentence: &str) -> Result<Reason, Failure> {
    if is_real {
        return Ok(reason);
    }
    let detail = format!("there was no {reason:?}; the node says: {sentence}");
    fail("a node that gives up names the reason that there is", detail)
}

/// True if the sentence names the damaged file, and an offset up to the damage.
fn is_named(record: &DamageRecord, sentence: &str) -> bool {
    let offset = sentence.split_once(" at offset ").map(|(_, rest)| {
        let digits = rest
            .find(|digit: char| !digit.is_ascii_digit())
            .unwrap_or(rest.len());
        rest[..digits].parse::<u64>()
    });
    let is_at_or_behind = match offset {
        Some(Ok(offset)) => offset < record.offset + record.right.len() as u64,
        Some(Err(_)) => false,
        // Of a file that is one block.
        None => record.offset == 0,
    };
    sentence.contains(&*record.path.to_string_lossy()) && is_at_or_behind
}

/// Takes a reason away, as an operator would: new parts for what failed, more space, a copy of the damaged file.
pub fn take_away(disk: &HostDisk, reason: &Reason, sentence: &str) {
    match reason {
        Reason::DeviceError => {
            let unreadable = disk.unreadable_blocks().into_iter().map(|(path, _)| path);
            let named: Vec<PathBuf> = unreadable
                .filter(|path| sentence.contains(&*path.to_string_lossy()))
                .collect();
            disk.end_errors(&named);
        }
        Reason::NoSpace => disk.add_space(),
        Reason::Damage(files) => {
            let repaired = disk.repair_damage_of(files);
            assert!(repaired > 0, "{files:?} hold damage");
        }
    }
}
