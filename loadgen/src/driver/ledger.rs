//! Who numbers the writes and who judges the answers: a register, or nobody.

use std::cell::Cell;
use std::sync::Arc;

use crate::keys::KeyIndex;
use crate::register::{ReadTicket, Register, Version, Violation, WriteTicket};
use crate::value::{ValueIdentity, WriteSequence, WriterId};

/// One per executor.
#[derive(Debug)]
pub(crate) enum Ledger {
    /// Everything is registered and checked.
    Verified(Arc<Register>),
    /// Writes are numbered, so that values differ; answers are taken as they come.
    Unchecked {
        /// Inside the values.
        writer: WriterId,
        /// Of the last write of this executor.
        sequence: Cell<u64>,
    },
}

/// Goes with a read until it is answered; `None` when nobody checks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Read(Option<ReadTicket>);

/// Goes with a write until its outcome is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Write {
    sequence: WriteSequence,
    ticket: Option<WriteTicket>,
}

impl Ledger {
    /// Before a read is handed to its connection.
    pub(crate) fn begin_read(&self, key: KeyIndex) -> Read {
        match self {
            Self::Verified(register) => Read(Some(register.begin_read(key))),
            Self::Unchecked { .. } => Read(None),
        }
    }

    /// Before a write is handed to its connection.
    pub(crate) fn begin_write(&self, key: KeyIndex) -> Write {
        match self {
            Self::Verified(register) => {
                let ticket = register.begin_write(key);
                Write {
                    sequence: ticket.sequence,
                    ticket: Some(ticket),
                }
            }
            Self::Unchecked { sequence, .. } => {
                sequence.set(sequence.get() + 1);
                Write {
                    sequence: WriteSequence(sequence.get()),
                    ticket: None,
                }
            }
        }
    }

    /// What the value of this write says of itself.
    pub(crate) fn identity(&self, key: KeyIndex, write: &Write) -> ValueIdentity {
        let writer = match self {
            Self::Verified(register) => register.writer(),
            Self::Unchecked { writer, .. } => *writer,
        };
        ValueIdentity {
            key,
            writer,
            sequence: write.sequence,
        }
    }

    /// See [`Register::read_answered`].
    pub(crate) fn read_answered(&self, read: &Read, found: Option<(u64, &[u8])>) -> Result<(), Violation> {
        match (self, &read.0) {
            (Self::Verified(register), Some(ticket)) => {
                register.read_answered(ticket, found.map(|(version, value)| (Version(version), value)))
            }
            _ => Ok(()),
        }
    }

    /// See [`Register::scanned`].
    pub(crate) fn scanned(&self, key: &[u8], version: u64, value: &[u8]) -> Result<(), Violation> {
        match self {
            Self::Verified(register) => register.scanned(key, Version(version), value),
            Self::Unchecked { .. } => Ok(()),
        }
    }

    /// See [`Register::write_acknowledged`].
    pub(crate) fn write_acknowledged(&self, write: &Write, version: u64) -> Result<(), Violation> {
        match (self, &write.ticket) {
            (Self::Verified(register), Some(ticket)) => register.write_acknowledged(ticket, Version(version)),
            _ => Ok(()),
        }
    }

    /// See [`Register::write_refused`].
    pub(crate) fn write_refused(&self, write: &Write) -> Result<(), Violation> {
        match (self, &write.ticket) {
            (Self::Verified(register), Some(ticket)) => register.write_refused(ticket),
            _ => Ok(()),
        }
    }

    /// See [`Register::write_unknown`].
    pub(crate) fn write_unknown(&self, write: &Write) {
        if let (Self::Verified(register), Some(ticket)) = (self, &write.ticket) {
            register.write_unknown(ticket);
        }
    }
}
