//! The register of writes: what the database has promised, kept outside of it, and the rules it is held to.
//!
//! Per record it keeps
//! - how many writes were sent (each has a sequence, from 1, inside its self-checking value);
//! - the *known* write: the one with the highest version that is certainly applied, because it was
//!   acknowledged, or because a read returned it;
//! - the writes in flight, and those of *unknown* outcome: sent, and the connection lost before the answer.
//!
//! Before a request is sent, its *floor* is taken: the record's known version at that moment. The rules are
//! those of linearizability for one register per key, as far as versions decide them:
//! 1. A read returns a version ≥ its floor; a missing record is right only at floor 0.
//! 2. A read at the known version returns the known write. Above it, it returns a write in flight or unknown,
//!    which thereby becomes known. Between floor and known, it returns a write that was sent.
//! 3. An acknowledged version is above the write's floor, and no other write of the record has it.
//! 4. One write never has two versions, so it is never applied twice.
//! 5. At the end (see [`ScanCheck`]) each record holds the known write, or an unknown one with a higher
//!    version.
//!
//! A record that a scan returns while others write is held to rules 2 and 4: it is whole, and a write that was
//! sent, at its version. It has no floor, since a scan shows the database as it was when the scan began.
//!
//! Memory: 24 bytes per record and about 50 bytes per undecided write. The register never talks to the
//! database and never changes its mind: what it learned from an answer that breaks a rule is not kept.

mod file;
mod scan;
mod violation;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use file::{RegisterFile, RegisterFileError};
pub use scan::{ScanCheck, ScanSummary};
pub use violation::{Violation, ViolationKind};

use crate::keys::{Key, KeyIndex};
use crate::value::{self, ValueIdentity, WriteSequence, WriterId};

/// A version as the database gives it; 0 stands for "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// Locks over which the records are spread. A power of two.
const STRIPES: u64 = 256;

/// Goes with a write from before it is sent until its outcome is told to the register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteTicket {
    /// The record.
    pub key: KeyIndex,
    /// Which write of it.
    pub sequence: WriteSequence,
    floor: Version,
}

/// Goes with a read from before it is sent until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadTicket {
    /// The record.
    pub key: KeyIndex,
    floor: Version,
}

/// The register; shared by all executors.
#[derive(Debug)]
pub struct Register {
    writer: WriterId,
    /// Grows with the inserts of the run phase.
    records: AtomicU64,
    stripes: Box<[Mutex<Stripe>]>,
}

/// Records `stripe, stripe + STRIPES, …`; those behind the last one were never written.
#[derive(Debug, Default)]
struct Stripe {
    records: Vec<RecordState>,
    in_flight: Vec<InFlight>,
    unknown: HashSet<(KeyIndex, WriteSequence)>,
}

/// Invariant: `known.sequence <= sent`, and both parts of `known` are zero or neither is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RecordState {
    sent: u64,
    known: Known,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    version: Version,
    sequence: WriteSequence,
}

const NEVER_WRITTEN: RecordState = RecordState {
    sent: 0,
    known: Known {
        version: Version(0),
        sequence: WriteSequence(0),
    },
};

#[derive(Debug, Clone, Copy)]
struct InFlight {
    key: KeyIndex,
    sequence: WriteSequence,
    /// The version a read returned it with before it was acknowledged.
    observed: Option<Version>,
}

impl Register {
    /// Of a database that holds none of the records.
    pub fn new(writer: WriterId, records: u64) -> Self {
        let stripes = (0..STRIPES).map(|stripe| {
            let length = (records + STRIPES - 1 - stripe) / STRIPES;
            Mutex::new(Stripe {
                records: vec![NEVER_WRITTEN; length as usize],
                ..Stripe::default()
            })
        });
        Self {
            writer,
            records: AtomicU64::new(records),
            stripes: stripes.collect(),
        }
    }

    /// The id inside all values of this register.
    pub fn writer(&self) -> WriterId {
        self.writer
    }

    /// Number of records, those that were inserted included.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Writes whose outcome is unknown.
    pub fn unknown_writes(&self) -> u64 {
        self.stripes
            .iter()
            .map(|stripe| lock(stripe).unknown.len() as u64)
            .sum()
    }

    /// Before a write of `key` is sent, which may be a record after the last one.
    pub fn begin_write(&self, key: KeyIndex) -> WriteTicket {
        self.records.fetch_max(key.0 + 1, Ordering::Relaxed);
        let mut stripe = self.stripe(key);
        let record = stripe.record_mut(key);
        record.sent += 1;
        let (sequence, floor) = (WriteSequence(record.sent), record.known.version);
        stripe.in_flight.push(InFlight {
            key,
            sequence,
            observed: None,
        });
        WriteTicket { key, sequence, floor }
    }

    /// The write was acknowledged with this version.
    ///
    /// # Errors
    /// When rule 3 or 4 is broken.
    pub fn write_acknowledged(&self, ticket: &WriteTicket, version: Version) -> Result<(), Violation> {
        let mut stripe = self.stripe(ticket.key);
        let observed = stripe.end_flight(ticket);
        if version <= ticket.floor {
            return Err(Violation::of_record(
                ViolationKind::VersionNotAbove,
                ticket.key,
                format!(
                    "a version above {}, which was known before write {} was sent",
                    ticket.floor.0, ticket.sequence.0
                ),
                format!("version {}", version.0),
            ));
        }
        if let Some(observed) = observed.filter(|observed| *observed != version) {
            return Err(two_versions(ticket.key, ticket.sequence, observed, version));
        }
        stripe.learn(ticket.key, version, ticket.sequence)
    }

    /// The write was refused: it is certain that it was not, and will not be, applied.
    ///
    /// # Errors
    /// When a read has returned it (rule 2).
    pub fn write_refused(&self, ticket: &WriteTicket) -> Result<(), Violation> {
        match self.stripe(ticket.key).end_flight(ticket) {
            None => Ok(()),
            Some(version) => Err(Violation::of_record(
                ViolationKind::NeverSent,
                ticket.key,
                format!("write {} not applied, since it was refused", ticket.sequence.0),
                format!("a read had returned it with version {}", version.0),
            )),
        }
    }

    /// The write's outcome will not be known: no answer, or one that says so.
    pub fn write_unknown(&self, ticket: &WriteTicket) {
        let mut stripe = self.stripe(ticket.key);
        if stripe.end_flight(ticket).is_none() {
            stripe.unknown.insert((ticket.key, ticket.sequence));
        }
    }

    /// Before a read of `key` is sent.
    pub fn begin_read(&self, key: KeyIndex) -> ReadTicket {
        ReadTicket {
            key,
            floor: self.stripe(key).record(key).known.version,
        }
    }

    /// A read was answered: nothing, or a version and the value's bytes.
    ///
    /// # Errors
    /// When rule 1, 2 or 4 is broken, or the value is not whole.
    pub fn read_answered(
        &self,
        ticket: &ReadTicket,
        found: Option<(Version, &[u8])>,
    ) -> Result<(), Violation> {
        let at_least = || format!("version {} or a higher one", ticket.floor.0);
        let Some((version, bytes)) = found else {
            if ticket.floor == Version(0) {
                return Ok(());
            }
            let found = "no such record".to_owned();
            return Err(Violation::of_record(
                ViolationKind::MissingKey,
                ticket.key,
                at_least(),
                found,
            ));
        };
        let sequence = self.identify(ticket.key, bytes)?;
        if version < ticket.floor {
            let found = format!("version {}, write {}", version.0, sequence.0);
            return Err(Violation::of_record(
                ViolationKind::StaleValue,
                ticket.key,
                at_least(),
                found,
            ));
        }
        self.stripe(ticket.key).observe(ticket.key, version, sequence)
    }

    /// A scan of the run phase returned this record.
    ///
    /// # Errors
    /// When rule 2 or 4 is broken, or the value is not whole or not of this key.
    pub fn scanned(&self, key: &[u8], version: Version, bytes: &[u8]) -> Result<(), Violation> {
        let expected = || format!("a value of this key by writer {:#018x}", self.writer.0);
        let identity = value::check(bytes).map_err(|error| {
            Violation::of_key(ViolationKind::CorruptValue, key, expected(), error.to_string())
        })?;
        let is_own = identity.writer == self.writer && identity.key.0 < self.records();
        if !is_own || Key::of(identity.key).bytes() != key {
            let found = format!(
                "a value of record {} by writer {:#018x}",
                identity.key.0, identity.writer.0
            );
            return Err(Violation::of_key(
                ViolationKind::ForeignValue,
                key,
                expected(),
                found,
            ));
        }
        let mut stripe = self.stripe(identity.key);
        stripe.observe(identity.key, version, identity.sequence)
    }

    /// Which write of `key` these bytes are.
    fn identify(&self, key: KeyIndex, bytes: &[u8]) -> Result<WriteSequence, Violation> {
        let expected = || format!("a value of record {} by writer {:#018x}", key.0, self.writer.0);
        let ValueIdentity {
            key: found_key,
            writer,
            sequence,
        } = value::check(bytes).map_err(|error| {
            Violation::of_record(ViolationKind::CorruptValue, key, expected(), error.to_string())
        })?;
        if found_key != key || writer != self.writer {
            let found = format!("a value of record {} by writer {:#018x}", found_key.0, writer.0);
            return Err(Violation::of_record(
                ViolationKind::ForeignValue,
                key,
                expected(),
                found,
            ));
        }
        Ok(sequence)
    }

    fn stripe(&self, key: KeyIndex) -> MutexGuard<'_, Stripe> {
        assert!(key.0 < self.records(), "record {} of {}", key.0, self.records());
        lock(&self.stripes[(key.0 % STRIPES) as usize])
    }
}

/// A panic elsewhere ends the process with that panic's message; it needs no second one from here.
fn lock(stripe: &Mutex<Stripe>) -> MutexGuard<'_, Stripe> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stripe {
    fn record(&self, key: KeyIndex) -> &RecordState {
        self.records
            .get((key.0 / STRIPES) as usize)
            .unwrap_or(&NEVER_WRITTEN)
    }

    fn record_mut(&mut self, key: KeyIndex) -> &mut RecordState {
        let at = (key.0 / STRIPES) as usize;
        if at >= self.records.len() {
            self.records.resize(at + 1, NEVER_WRITTEN);
        }
        &mut self.records[at]
    }

    /// Takes the write out of those in flight; gives the version a read has returned it with, if one has.
    fn end_flight(&mut self, ticket: &WriteTicket) -> Option<Version> {
        let at = self
            .in_flight
            .iter()
            .position(|flight| is_flight(flight, ticket.key, ticket.sequence));
        let at = at.expect("a write's outcome is told once");
        self.in_flight.swap_remove(at).observed
    }

    /// A request returned this write of `key` with this version.
    fn observe(&mut self, key: KeyIndex, version: Version, sequence: WriteSequence) -> Result<(), Violation> {
        let record = *self.record(key);
        if record.known == (Known { version, sequence }) {
            return Ok(());
        }
        let flight = self
            .in_flight
            .iter()
            .position(|flight| is_flight(flight, key, sequence));
        if let Some(at) = flight {
            if let Some(first) = self.in_flight[at].observed.filter(|first| *first != version) {
                return Err(two_versions(key, sequence, first, version));
            }
            self.learn(key, version, sequence)?;
            self.in_flight[at].observed = Some(version);
            return Ok(());
        }
        if self.unknown.contains(&(key, sequence)) {
            self.learn(key, version, sequence)?;
            self.unknown.remove(&(key, sequence));
            return Ok(());
        }
        let was_sent = (1..=record.sent).contains(&sequence.0);
        if was_sent && (version <= record.known.version || sequence == record.known.sequence) {
            return self.learn(key, version, sequence);
        }
        let kind = if was_sent {
            ViolationKind::ResurrectedValue
        } else {
            ViolationKind::NeverSent
        };
        Err(Violation::of_record(
            kind,
            key,
            format!(
                "write {} at version {}, or an undecided write above it ({} were sent)",
                record.known.sequence.0, record.known.version.0, record.sent
            ),
            format!("write {} at version {}", sequence.0, version.0),
        ))
    }

    /// This write is certainly applied with this version.
    fn learn(&mut self, key: KeyIndex, version: Version, sequence: WriteSequence) -> Result<(), Violation> {
        let known = &mut self.record_mut(key).known;
        if known.sequence == sequence && known.version != version {
            return Err(two_versions(key, sequence, known.version, version));
        }
        if known.version == version && known.sequence != sequence {
            return Err(Violation::of_record(
                ViolationKind::TwoWritesOneVersion,
                key,
                format!("write {} at version {}", known.sequence.0, version.0),
                format!("write {} at the same version", sequence.0),
            ));
        }
        if version > known.version {
            *known = Known { version, sequence };
        }
        Ok(())
    }
}

fn is_flight(flight: &InFlight, key: KeyIndex, sequence: WriteSequence) -> bool {
    flight.key == key && flight.sequence == sequence
}

fn two_versions(key: KeyIndex, sequence: WriteSequence, first: Version, second: Version) -> Violation {
    Violation::of_record(
        ViolationKind::OneWriteTwoVersions,
        key,
        format!("write {} at version {}", sequence.0, first.0),
        format!("write {} at version {}", sequence.0, second.0),
    )
}

#[cfg(test)]
mod tests;
