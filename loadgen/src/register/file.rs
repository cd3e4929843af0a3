//! The register on disk, so that a later run can be held to what an earlier one was promised.
//!
//! A register file is rewritten as a whole: into `FILE.new`, synced, renamed over `FILE`, directory synced.
//! While a phase writes to the database the file is called `FILE.running`: if loadgen itself is killed then,
//! the acknowledgements of that phase are lost, and the next run refuses the register instead of finding
//! violations that are its own. Layout, version 1, numbers little-endian:
//!
//! ```text
//!  0  8 B  magic "OSTRKREG"
//!  8  u32  format version, 1
//! 12  u32  reserved, 0
//! 16  u64  writer id
//! 24  u64  records
//! 32  u64  unknown writes
//! 40       records × { u64 writes sent, u64 known version, u64 known sequence }
//!          unknown writes × { u64 record, u64 sequence }, ascending
//!          u64  xxh3 of all bytes before
//! ```

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::{Known, RecordState, Register, Version, lock};
use crate::keys::KeyIndex;
use crate::value::{WriteSequence, WriterId};

const MAGIC: &[u8; 8] = b"OSTRKREG";
const FORMAT_VERSION: u32 = 1;
const HEADER_BYTES: usize = 40;
const RECORD_BYTES: usize = 24;
const UNKNOWN_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 8;

/// Where a register is kept.
#[derive(Debug, Clone)]
pub struct RegisterFile {
    path: PathBuf,
}

/// Why a register file cannot be used.
#[derive(Debug)]
pub enum RegisterFileError {
    /// The file system refused.
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// The bytes are not a whole register.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A later loadgen wrote it.
    FormatVersion {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: u32,
    },
    /// loadgen was killed while it wrote to the database.
    LeftRunning {
        /// The file as it was before that phase.
        running: PathBuf,
    },
}

impl std::fmt::Display for RegisterFileError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io { path, doing, error } => {
                write!(formatter, "could not {doing} {}: {error}", path.display())
            }
            Self::Damaged { path, what } => write!(
                formatter,
                "{} is not a whole register file: {what}; restore it, or delete it \
                 and load the database afresh",
                path.display()
            ),
            Self::FormatVersion { path, found } => write!(
                formatter,
                "{} has format version {found}, this loadgen reads version {FORMAT_VERSION}; \
                 use the loadgen that wrote it, or delete it and load the database afresh",
                path.display()
            ),
            Self::LeftRunning { running } => write!(
                formatter,
                "{} is there: loadgen was killed while it wrote to the database, so the register \
                 misses the last acknowledgements; delete it and load the database afresh",
                running.display()
            ),
        }
    }
}

impl std::error::Error for RegisterFileError {}

impl RegisterFile {
    /// At this path; nothing is touched yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// The register, or `None` when there is no such file yet.
    ///
    /// # Errors
    /// When the file cannot be read, is damaged, or a phase was never ended.
    pub fn load(&self) -> Result<Option<Register>, RegisterFileError> {
        let running = self.running_path();
        if running.exists() {
            return Err(RegisterFileError::LeftRunning { running });
        }
        match std::fs::read(&self.path) {
            Ok(bytes) => self.decode(&bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.io("read the register file", error)),
        }
    }

    /// Before a phase that writes to the database: moves the file aside, or leaves a mark where there is
    /// none.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn begin_phase(&self) -> Result<(), RegisterFileError> {
        let running = self.running_path();
        let moved = match std::fs::rename(&self.path, &running) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => File::create(&running).map(drop),
            moved => moved,
        };
        moved.map_err(|error| self.io("move aside the register file", error))
    }

    /// After a phase: the register as it is now. No write may be in flight.
    ///
    /// # Errors
    /// When the file system refuses; then the file of [`Self::begin_phase`] stays, and the next run refuses
    /// it.
    pub fn save(&self, register: &Register) -> Result<(), RegisterFileError> {
        let doing = "save the register file";
        let new_path = self.beside("new");
        let bytes = encode(register);
        let written = File::create(&new_path).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        });
        written
            .and_then(|()| std::fs::rename(&new_path, &self.path))
            .map_err(|error| self.io(doing, error))?;
        match std::fs::remove_file(self.running_path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.io(doing, error)),
            _ => {}
        }
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let synced =
            File::open(directory.unwrap_or(Path::new("."))).and_then(|directory| directory.sync_all());
        synced.map_err(|error| self.io(doing, error))
    }

    fn running_path(&self) -> PathBuf {
        self.beside("running")
    }

    fn beside(&self, extension: &str) -> PathBuf {
        let mut path: OsString = self.path.clone().into();
        path.push(".");
        path.push(extension);
        path.into()
    }

    fn io(&self, doing: &'static str, error: io::Error) -> RegisterFileError {
        RegisterFileError::Io {
            path: self.path.clone(),
            doing,
            error,
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<Register, RegisterFileError> {
        let damaged = |what: String| RegisterFileError::Damaged {
            path: self.path.clone(),
            what,
        };
        if bytes.len() < HEADER_BYTES + CHECKSUM_BYTES || &bytes[..8] != MAGIC {
            return Err(damaged("it does not begin with a register's header".to_owned()));
        }
        let (body, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
        let (expected, found) = (word_at(checksum, 0), xxh3_64(body));
        if expected != found {
            return Err(damaged(format!(
                "its checksum is {found:#018x} instead of {expected:#018x}"
            )));
        }
        let format_version = u32::from_le_bytes(body[8..12].try_into().expect("four bytes"));
        if format_version != FORMAT_VERSION {
            return Err(RegisterFileError::FormatVersion {
                path: self.path.clone(),
                found: format_version,
            });
        }
        let (records, unknown) = (word_at(body, 24), word_at(body, 32));
        let expected_bytes =
            u128::from(records) * RECORD_BYTES as u128 + u128::from(unknown) * UNKNOWN_BYTES as u128;
        if expected_bytes != (body.len() - HEADER_BYTES) as u128 {
            return Err(damaged(format!(
                "{} bytes do not hold {records} records and {unknown} writes",
                body.len()
            )));
        }
        let register = Register::new(WriterId(word_at(body, 16)), records);
        let (record_bytes, unknown_bytes) = body[HEADER_BYTES..].split_at(records as usize * RECORD_BYTES);
        for (index, bytes) in record_bytes.chunks_exact(RECORD_BYTES).enumerate() {
            let state =
                decode_record(bytes).ok_or_else(|| damaged(format!("record {index} contradicts itself")))?;
            let key = KeyIndex(index as u64);
            *register.stripe(key).record_mut(key) = state;
        }
        for bytes in unknown_bytes.chunks_exact(UNKNOWN_BYTES) {
            let (key, sequence) = (KeyIndex(word_at(bytes, 0)), WriteSequence(word_at(bytes, 8)));
            let is_sent =
                key.0 < records && (1..=register.stripe(key).record(key).sent).contains(&sequence.0);
            if !is_sent {
                return Err(damaged(format!(
                    "write {} of record {} was never sent",
                    sequence.0, key.0
                )));
            }
            register.stripe(key).unknown.insert((key, sequence));
        }
        Ok(register)
    }
}

fn encode(register: &Register) -> Vec<u8> {
    let mut unknown: Vec<(KeyIndex, WriteSequence)> = Vec::new();
    for stripe in &register.stripes {
        let stripe = lock(stripe);
        assert!(stripe.in_flight.is_empty(), "a register is saved between phases");
        unknown.extend(&stripe.unknown);
    }
    unknown.sort_unstable();
    let body_bytes = register.records() as usize * RECORD_BYTES + unknown.len() * UNKNOWN_BYTES;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body_bytes + CHECKSUM_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&0_u32.to_le_bytes());
    for word in [register.writer.0, register.records(), unknown.len() as u64] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    for key in (0..register.records()).map(KeyIndex) {
        let RecordState { sent, known } = *register.stripe(key).record(key);
        for word in [sent, known.version.0, known.sequence.0] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
    }
    for (key, sequence) in unknown {
        bytes.extend_from_slice(&key.0.to_le_bytes());
        bytes.extend_from_slice(&sequence.0.to_le_bytes());
    }
    let checksum = xxh3_64(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

fn decode_record(bytes: &[u8]) -> Option<RecordState> {
    let known = Known {
        version: Version(word_at(bytes, 8)),
        sequence: WriteSequence(word_at(bytes, 16)),
    };
    let state = RecordState {
        sent: word_at(bytes, 0),
        known,
    };
    let is_whole = (known.version.0 == 0) == (known.sequence.0 == 0) && known.sequence.0 <= state.sent;
    is_whole.then_some(state)
}

fn word_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::ValueIdentity;

    fn register_with_history() -> Register {
        let register = Register::new(WriterId(99), 1000);
        for index in 0..500 {
            let ticket = register.begin_write(KeyIndex(index));
            register.write_acknowledged(&ticket, Version(10 + index)).unwrap();
        }
        for index in 490..520 {
            let ticket = register.begin_write(KeyIndex(index));
            register.write_unknown(&ticket);
        }
        register
    }

    #[test]
    fn a_register_survives_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = RegisterFile::new(&directory.path().join("register"));
        assert!(file.load().unwrap().is_none());
        let register = register_with_history();
        file.save(&register).unwrap();
        let loaded = file.load().unwrap().unwrap();
        assert_eq!(encode(&loaded), encode(&register));
        assert_eq!(
            (loaded.records(), loaded.unknown_writes(), loaded.writer()),
            (1000, 30, WriterId(99))
        );
        // It judges as before: an unknown write may be there, the write after it may not.
        let ticket = loaded.begin_read(KeyIndex(495));
        let mut value = Vec::new();
        let identity = ValueIdentity {
            key: KeyIndex(495),
            writer: WriterId(99),
            sequence: WriteSequence(3),
        };
        crate::value::fill(&mut value, identity, 100);
        assert!(
            loaded
                .read_answered(&ticket, Some((Version(9000), &value)))
                .is_err()
        );
        crate::value::fill(
            &mut value,
            ValueIdentity {
                sequence: WriteSequence(2),
                ..identity
            },
            100,
        );
        assert_eq!(
            loaded.read_answered(&ticket, Some((Version(9000), &value))),
            Ok(())
        );
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let register = Register::new(WriterId(0x0102), 1);
        let ticket = register.begin_write(KeyIndex(0));
        register.write_acknowledged(&ticket, Version(7)).unwrap();
        register.write_unknown(&register.begin_write(KeyIndex(0)));
        let words = [0x0102_u64, 1, 1, 2, 7, 1, 0, 2];
        let mut golden = [b"OSTRKREG".as_slice(), &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
        golden.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        golden.extend(xxh3_64(&golden.clone()).to_le_bytes());
        assert_eq!(encode(&register), golden);
    }

    #[test]
    fn every_damage_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("register");
        let file = RegisterFile::new(&path);
        let register = Register::new(WriterId(1), 3);
        register.write_unknown(&register.begin_write(KeyIndex(1)));
        file.save(&register).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            std::fs::write(&path, &damaged).unwrap();
            assert!(file.load().is_err(), "a flip at byte {at} went unseen");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(file.load().is_err(), "a file cut to {at} bytes went unseen");
        }
        let mut newer = whole.clone();
        newer[8] = 2;
        let end = newer.len() - CHECKSUM_BYTES;
        let checksum = xxh3_64(&newer[..end]).to_le_bytes();
        newer[end..].copy_from_slice(&checksum);
        std::fs::write(&path, &newer).unwrap();
        assert!(matches!(
            file.load(),
            Err(RegisterFileError::FormatVersion { found: 2, .. })
        ));
    }

    #[test]
    fn a_phase_that_never_ended_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = RegisterFile::new(&directory.path().join("register"));
        file.begin_phase().unwrap();
        assert!(matches!(file.load(), Err(RegisterFileError::LeftRunning { .. })));
        file.save(&register_with_history()).unwrap();
        assert!(file.load().unwrap().is_some());
        file.begin_phase().unwrap();
        assert!(matches!(file.load(), Err(RegisterFileError::LeftRunning { .. })));
        file.save(&register_with_history()).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
