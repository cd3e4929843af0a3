//! What writes consist of: conditions, retries, and the elements of writes with several keys.

use super::DecodeError;
use super::verify::{check_key, check_ttl, check_value};
use crate::generated::client_generated::ostrakon::wire as tables;

/// What must hold for a write to be applied; else nothing changes and the answer says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Condition<'a> {
    /// Nothing: the write is always applied.
    #[default]
    None,
    /// The key doesn't exist.
    Absent,
    /// The key exists.
    Present,
    /// The key exists and has this version, which is not 0.
    Version(u64),
    /// The key exists and has exactly this value.
    Value(&'a [u8]),
}

/// Names a write over all its sendings, so that it happens once, and every sending gets the first answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Retry {
    /// A random number that the client has drawn once: 128 bits, so that no two clients draw the same.
    pub session: u128,
    /// Number of the write in its session; no two writes of a session share one.
    pub sequence: u64,
    /// The client has the answers to all writes of the session below this one, or has given them up, and will send
    /// none of them again.
    pub answered_below: u64,
    /// Timestamp: the server's clock at the first sending, as the client estimates it. It does not fall from one
    /// sequence to the next.
    pub first_sent: u64,
}

/// One key and value of a multi-put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutEntry<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its value from now on.
    pub value: &'a [u8],
    /// Milliseconds after which the key is absent again; 0: it stays.
    pub ttl_ms: u64,
}

/// One operation of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchOperation<'a> {
    /// The key. Each is named once in a batch.
    pub key: &'a [u8],
    /// What is done.
    pub action: Action<'a>,
    /// What must hold, or nothing of the batch is done.
    pub condition: Condition<'a>,
}

/// What an operation of a batch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// The key gets this value.
    Put {
        /// The value.
        value: &'a [u8],
        /// Milliseconds after which the key is absent again; 0: it stays.
        ttl_ms: u64,
    },
    /// The key is removed.
    Delete,
    /// The number in the key grows by this; an absent key counts as 0.
    Add {
        /// The summand.
        delta: i64,
        /// As in a put, if the key is made by this; a key that is there keeps what it has.
        ttl_ms: u64,
    },
    /// Nothing: only the condition counts.
    Check,
}

impl<'a> Condition<'a> {
    /// Number on the wire, expected version, expected value.
    pub(super) fn to_wire(self) -> (u8, u64, Option<&'a [u8]>) {
        match self {
            Condition::None => (tables::Condition::None.0, 0, None),
            Condition::Absent => (tables::Condition::Absent.0, 0, None),
            Condition::Present => (tables::Condition::Present.0, 0, None),
            Condition::Version(version) => (tables::Condition::Version.0, version, None),
            Condition::Value(value) => (tables::Condition::Value.0, 0, Some(value)),
        }
    }

    pub(super) fn from_wire(
        condition: u8,
        version: u64,
        value: Option<&'a [u8]>,
    ) -> Result<Condition<'a>, DecodeError> {
        let known = match tables::Condition(condition) {
            tables::Condition::None => Condition::None,
            tables::Condition::Absent => Condition::Absent,
            tables::Condition::Present => Condition::Present,
            tables::Condition::Version => Condition::Version(version),
            tables::Condition::Value => {
                Condition::Value(value.ok_or(DecodeError::ExpectedValue { condition })?)
            }
            _ => return Err(DecodeError::UnknownCondition { condition }),
        };
        if matches!(known, Condition::Version(_)) == (version == 0) {
            return Err(DecodeError::ExpectedVersion { condition, version });
        }
        if value.is_some() && !matches!(known, Condition::Value(_)) {
            return Err(DecodeError::ExpectedValue { condition });
        }
        Ok(known)
    }

    /// Does it hold to the limits?
    pub(super) fn check(self) -> Result<(), DecodeError> {
        let (number, version, value) = self.to_wire();
        Condition::from_wire(number, version, value)?;
        check_value(value.unwrap_or_default())
    }
}

impl Retry {
    pub(super) fn to_wire(self) -> tables::Retry {
        tables::Retry::new(
            (self.session >> 64) as u64,
            self.session as u64,
            self.sequence,
            self.answered_below,
            self.first_sent,
        )
    }

    pub(super) fn from_wire(retry: &tables::Retry) -> Retry {
        Retry {
            session: u128::from(retry.session_high()) << 64 | u128::from(retry.session_low()),
            sequence: retry.sequence(),
            answered_below: retry.answered_below(),
            first_sent: retry.first_sent(),
        }
    }

    /// Can it be meant?
    pub(super) fn check(&self) -> Result<(), DecodeError> {
        if self.sequence < self.answered_below {
            return Err(DecodeError::RetryAnswered {
                sequence: self.sequence,
                answered_below: self.answered_below,
            });
        }
        Ok(())
    }
}

impl<'a> PutEntry<'a> {
    pub(super) fn from_table(table: tables::PutEntry<'a>) -> PutEntry<'a> {
        PutEntry {
            key: table.key().bytes(),
            value: table.value().bytes(),
            ttl_ms: table.ttl_ms(),
        }
    }

    pub(super) fn check(&self) -> Result<(), DecodeError> {
        check_key(self.key)?;
        check_value(self.value)?;
        check_ttl(self.ttl_ms)
    }
}

impl<'a> BatchOperation<'a> {
    /// The operation in a table, which need not mean anything.
    pub(super) fn from_table(table: tables::BatchOperation<'a>) -> Result<BatchOperation<'a>, DecodeError> {
        let expected_value = table.expected_value().map(|value| value.bytes());
        let (delta, ttl_ms, value) = (table.delta(), table.ttl_ms(), table.value());
        let action = match table.operation() {
            tables::Operation::Put => Action::Put {
                value: value
                    .ok_or(DecodeError::BatchFields {
                        what: "a put without a value",
                    })?
                    .bytes(),
                ttl_ms,
            },
            tables::Operation::Delete => Action::Delete,
            tables::Operation::Add => Action::Add { delta, ttl_ms },
            tables::Operation::Check => Action::Check,
            tables::Operation(operation) => return Err(DecodeError::UnknownOperation { operation }),
        };
        let has_ttl = matches!(action, Action::Put { .. } | Action::Add { .. });
        let surplus = [
            (
                value.is_some() && !matches!(action, Action::Put { .. }),
                "a value where nothing is put",
            ),
            (
                delta != 0 && !matches!(action, Action::Add { .. }),
                "a delta where nothing is added",
            ),
            (ttl_ms != 0 && !has_ttl, "a time to live where nothing is written"),
        ];
        if let Some((_, what)) = surplus.into_iter().find(|(is_surplus, _)| *is_surplus) {
            return Err(DecodeError::BatchFields { what });
        }
        let condition = Condition::from_wire(table.condition().0, table.expected_version(), expected_value)?;
        Ok(BatchOperation {
            key: table.key().bytes(),
            action,
            condition,
        })
    }

    /// The operation in a table that [`BatchOperation::from_table`] accepted before.
    pub(super) fn of_checked(table: tables::BatchOperation<'a>) -> BatchOperation<'a> {
        BatchOperation::from_table(table)
            .expect("all operations of a batch are checked before one is handed out")
    }

    pub(super) fn check(&self) -> Result<(), DecodeError> {
        check_key(self.key)?;
        self.condition.check()?;
        match self.action {
            Action::Put { value, ttl_ms } => {
                check_value(value)?;
                check_ttl(ttl_ms)
            }
            Action::Add { ttl_ms, .. } => check_ttl(ttl_ms),
            Action::Check if self.condition == Condition::None => Err(DecodeError::BatchFields {
                what: "a check without a condition",
            }),
            Action::Delete | Action::Check => Ok(()),
        }
    }

    /// Length of its key and values, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let value = match self.action {
            Action::Put { value, .. } => value,
            Action::Delete | Action::Add { .. } | Action::Check => &[],
        };
        let (_, _, expected) = self.condition.to_wire();
        self.key.len() + value.len() + expected.unwrap_or_default().len()
    }
}
