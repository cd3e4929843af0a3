//! The final check: a full scan of a database at rest, compared with the register, record by record.

use super::{Register, Version, Violation, ViolationKind};
use crate::keys::{Key, KeyIndex};
use crate::value::{self, ValueIdentity, WriteSequence};

/// Takes all entries of a full scan, in order, then [`ScanCheck::finish`] looks for what was missing.
#[derive(Debug)]
pub struct ScanCheck<'a> {
    register: &'a Register,
    seen: Vec<u64>,
    previous_key: Vec<u8>,
    summary: ScanSummary,
}

/// What a scan without violation found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct ScanSummary {
    /// Records found and right.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Writes of unknown outcome that turned out to be applied.
    pub unknown_applied: u64,
}

impl<'a> ScanCheck<'a> {
    /// Nothing scanned yet.
    pub fn new(register: &'a Register) -> Self {
        let words = register.records().div_ceil(64) as usize;
        Self {
            register,
            seen: vec![0; words],
            previous_key: Vec::new(),
            summary: ScanSummary::default(),
        }
    }

    /// The next entry of the scan.
    ///
    /// # Errors
    /// When the entry is not what the register demands (see the rules of [`super`]); the scan can go on after
    /// it.
    pub fn entry(&mut self, key: &[u8], version: Version, bytes: &[u8]) -> Result<(), Violation> {
        if !self.previous_key.is_empty() && key <= self.previous_key.as_slice() {
            let expected = format!("a key after {}", self.previous_key.escape_ascii());
            let found = "a key that is not after it".to_owned();
            return Err(Violation::of_key(ViolationKind::ScanOrder, key, expected, found));
        }
        self.previous_key.clear();
        self.previous_key.extend_from_slice(key);
        let identity = self.identify(key, bytes)?;
        self.mark_seen(identity.key);
        self.compare(identity.key, version, identity.sequence)?;
        self.summary.records += 1;
        self.summary.bytes += (key.len() + bytes.len()) as u64;
        Ok(())
    }

    /// All entries were given: what is missing?
    ///
    /// # Errors
    /// All records that are acknowledged, or were read, and did not appear in the scan.
    pub fn finish(self) -> Result<ScanSummary, Vec<Violation>> {
        let mut missing = Vec::new();
        for index in (0..self.register.records()).map(KeyIndex) {
            let known = self.register.stripe(index).record(index).known;
            if known.version > Version(0) && !self.is_seen(index) {
                let expected = format!("write {} at version {}", known.sequence.0, known.version.0);
                let found = "no such record".to_owned();
                missing.push(Violation::of_record(
                    ViolationKind::MissingKey,
                    index,
                    expected,
                    found,
                ));
            }
        }
        if missing.is_empty() {
            Ok(self.summary)
        } else {
            Err(missing)
        }
    }

    fn identify(&mut self, key: &[u8], bytes: &[u8]) -> Result<ValueIdentity, Violation> {
        let writer = self.register.writer();
        let of_this_key = || format!("a value of this key by writer {:#018x}", writer.0);
        let identity = match value::check(bytes) {
            Ok(identity) => identity,
            Err(error) => {
                self.mark_damaged(key);
                return Err(Violation::of_key(
                    ViolationKind::CorruptValue,
                    key,
                    of_this_key(),
                    error.to_string(),
                ));
            }
        };
        let found = || {
            format!(
                "a value of {} (record {}) by writer {:#018x}",
                Key::of(identity.key),
                identity.key.0,
                identity.writer.0
            )
        };
        if identity.writer != writer {
            let hint = "; another run's data? the check needs the database to itself";
            return Err(Violation::of_key(
                ViolationKind::ExtraKey,
                key,
                of_this_key(),
                found() + hint,
            ));
        }
        if identity.key.0 >= self.register.records() || Key::of(identity.key).bytes() != key {
            self.mark_damaged(key);
            return Err(Violation::of_key(
                ViolationKind::ForeignValue,
                key,
                of_this_key(),
                found(),
            ));
        }
        Ok(identity)
    }

    fn compare(&mut self, key: KeyIndex, version: Version, sequence: WriteSequence) -> Result<(), Violation> {
        let mut stripe = self.register.stripe(key);
        let record = *stripe.record(key);
        let found = || format!("write {} at version {}", sequence.0, version.0);
        if record.sent == 0 {
            let expected = "no such record: it was never written".to_owned();
            return Err(Violation::of_record(
                ViolationKind::ExtraKey,
                key,
                expected,
                found(),
            ));
        }
        if version < record.known.version {
            let expected = format!(
                "write {} at version {}",
                record.known.sequence.0, record.known.version.0
            );
            return Err(Violation::of_record(
                ViolationKind::LostWrite,
                key,
                expected,
                found(),
            ));
        }
        stripe.observe(key, version, sequence)?;
        self.summary.unknown_applied += u64::from(version > record.known.version);
        Ok(())
    }

    /// A damaged value is one violation; its record is not reported as missing too.
    fn mark_damaged(&mut self, key: &[u8]) {
        let records = (0..self.register.records()).map(KeyIndex);
        if let Some(index) = { records }.find(|index| Key::of(*index).bytes() == key) {
            self.mark_seen(index);
        }
    }

    fn mark_seen(&mut self, key: KeyIndex) {
        self.seen[(key.0 / 64) as usize] |= 1 << (key.0 % 64);
    }

    fn is_seen(&self, key: KeyIndex) -> bool {
        self.seen[(key.0 / 64) as usize] & (1 << (key.0 % 64)) != 0
    }
}
