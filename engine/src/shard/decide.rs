//! Decisions about writes: do the conditions hold, and what is the sum of an add.
//!
//! A decision is made at one moment, the write's timestamp, against the newest version of each key, in flight or
//! applied; a version that has expired by then counts as absent. It says what it rests on ([`Rests`]): an answer that
//! makes no entry of its own must wait until that is applied.

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::raft::LogIndex;
use ostrakon_core::sessions::{FAILURE_BYTES, Failure, RETRY_BYTES, Retry, Sessions};
use ostrakon_wire::message::{Action, Condition};

use super::Ticket;
use super::command::{COMMAND_HEADER_BYTES, Change, EXPIRY_BYTES, OPERATION_HEADER_BYTES, parse_number};
use super::in_flight::Newest;
use crate::storage::memtable::Memtable;

/// Longest decimal form of an `i64`, in bytes.
const NUMBER_BYTES_MAX: usize = 20;

/// A write as it reaches its shard.
pub struct Write<'a> {
    /// What happens to which key: one at least; several are all or nothing, and name each key once.
    pub keys: &'a [KeyWrite<'a>],
    /// Set if the write may be sent again.
    pub retry: Option<Retry>,
    /// Who waits.
    pub ticket: Ticket,
}

/// What a write does to one key.
#[derive(Clone, Copy)]
pub struct KeyWrite<'a> {
    /// Hash of the whole key.
    pub hash: u64,
    /// The key.
    pub key: &'a [u8],
    /// What is done.
    pub action: Action<'a>,
    /// Must hold, else nothing of the write is done.
    pub condition: Condition<'a>,
}

/// What a decision rests on.
#[derive(Clone, Copy, Default)]
pub(super) struct Rests {
    /// An entry on its way.
    pub(super) index: Option<LogIndex>,
    /// The moment of an expiry that has passed: no later leader may see the value again.
    pub(super) expiry: Option<Timestamp>,
}

/// What a write will do to one key, apart from bytes that the request has.
#[derive(Clone, Copy)]
pub(super) struct Decided {
    expiry: Option<Timestamp>,
    sum: Option<Number>,
}

/// A number in decimal digits.
#[derive(Clone, Copy)]
struct Number {
    digits: [u8; NUMBER_BYTES_MAX],
    used_bytes: u8,
}

impl Write<'_> {
    /// True if it consists of checks.
    pub(super) fn changes_nothing(&self) -> bool {
        self.keys.iter().all(|key| key.action == Action::Check)
    }

    /// Upper bound of the payload of its entry, whatever is decided; exact for a single put or delete without a retry.
    pub(super) fn payload_bytes_max(&self) -> usize {
        let head_bytes = COMMAND_HEADER_BYTES + self.retry.map_or(0, |_| RETRY_BYTES);
        let failure_bytes = self.retry.map_or(0, |_| FAILURE_BYTES);
        let operation_bytes = if self.keys.len() > 1 {
            OPERATION_HEADER_BYTES
        } else {
            0
        };
        let of_key = |key: &KeyWrite<'_>| {
            let expiry_bytes = if key.may_expire() { EXPIRY_BYTES } else { 0 };
            operation_bytes + expiry_bytes + key.key.len() + key.value_bytes_max()
        };
        head_bytes + failure_bytes.max(self.keys.iter().map(of_key).sum())
    }

    /// Upper bound of the memory that it adds to its shard.
    pub(super) fn cost_bytes(&self) -> usize {
        let sums = self
            .keys
            .iter()
            .filter(|key| matches!(key.action, Action::Add { .. }));
        let session_bytes = self.retry.map_or(0, |_| Sessions::cost_bytes(sums.count()));
        let of_key = |key: &KeyWrite<'_>| {
            Memtable::insert_cost_bytes(key.key.len(), key.value_bytes_max(), key.may_expire())
        };
        session_bytes + self.keys.iter().map(of_key).sum::<usize>()
    }
}

impl KeyWrite<'_> {
    /// True if the decision depends on what the key has.
    pub(super) fn looks(&self) -> bool {
        self.condition != Condition::None || matches!(self.action, Action::Add { .. })
    }

    /// True if it leaves the key with no more than a tombstone.
    pub(super) fn is_delete(&self) -> bool {
        matches!(self.action, Action::Delete | Action::Check)
    }

    /// Upper bound of the bytes of the value to be.
    pub(super) fn value_bytes_max(&self) -> usize {
        match self.action {
            Action::Put { value, .. } => value.len(),
            Action::Add { .. } => NUMBER_BYTES_MAX,
            Action::Delete | Action::Check => 0,
        }
    }

    /// True if the version to be may expire: an add may keep an expiry that it finds.
    pub(super) fn may_expire(&self) -> bool {
        match self.action {
            Action::Put { ttl_ms, .. } => ttl_ms > 0,
            Action::Add { .. } => true,
            Action::Delete | Action::Check => false,
        }
    }

    /// Decides about a key that need not be looked at, for a write at this moment.
    pub(super) fn decide_unseen(&self, at: Timestamp) -> Decided {
        let expiry = match self.action {
            Action::Put { ttl_ms, .. } => expiry_after(at, ttl_ms),
            _ => None,
        };
        Decided { expiry, sum: None }
    }

    /// Decides at this moment, seeing the key's newest version. `operation` is its place in the write.
    pub(super) fn decide(
        &self,
        newest: &Newest<'_>,
        at: Timestamp,
        operation: u32,
    ) -> Result<Decided, Failure> {
        if !holds(self.condition, newest.found) {
            let version = newest.found.map_or(Timestamp::ZERO, |(version, _)| version);
            return Err(Failure::ConditionFailed { version, operation });
        }
        let Action::Add { delta, ttl_ms } = self.action else {
            return Ok(self.decide_unseen(at));
        };
        let (before, expiry) = match newest.found {
            Some((_, value)) => (
                parse_number(value).ok_or(Failure::NotANumber { operation })?,
                newest.expiry,
            ),
            None => (0, expiry_after(at, ttl_ms)),
        };
        let sum = before
            .checked_add(delta)
            .ok_or(Failure::NumberOverflow { operation })?;
        Ok(Decided {
            expiry,
            sum: Some(Number::new(sum)),
        })
    }

    /// What the entry says; `None` for a check, which changes nothing.
    pub(super) fn change<'b>(&'b self, decided: &'b Decided) -> Option<Change<'b>> {
        let expiry = decided.expiry;
        match (self.action, &decided.sum) {
            (Action::Put { value, .. }, _) => Some(Change::Put {
                value,
                expiry,
                is_sum: false,
            }),
            (Action::Add { .. }, Some(sum)) => Some(Change::Put {
                value: sum.as_bytes(),
                expiry,
                is_sum: true,
            }),
            (Action::Add { .. }, None) => unreachable!("an add always looks"),
            (Action::Delete, _) => Some(Change::Delete),
            (Action::Check, _) => None,
        }
    }
}

impl Rests {
    /// A look at this version, made at this moment, is part of the decision.
    pub(super) fn on(&mut self, newest: &Newest<'_>, at: Timestamp) {
        self.index = self.index.max(newest.index);
        if newest.expiry.is_some_and(|expiry| expiry <= at) {
            self.expiry = self.expiry.max(newest.expiry);
        }
    }
}

impl Number {
    fn new(number: i64) -> Number {
        use std::io::Write as _;
        let mut digits = [0; NUMBER_BYTES_MAX];
        let mut left = &mut digits[..];
        write!(left, "{number}").expect("the longest number fits");
        let used_bytes = (NUMBER_BYTES_MAX - left.len()) as u8;
        Number { digits, used_bytes }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.digits[..usize::from(self.used_bytes)]
    }
}

/// When a version of this moment expires; a time to live of 0 is for ever.
fn expiry_after(at: Timestamp, ttl_ms: u64) -> Option<Timestamp> {
    (ttl_ms > 0).then(|| at.saturating_plus_micros(ttl_ms * 1000))
}

fn holds(condition: Condition<'_>, found: Option<(Timestamp, &[u8])>) -> bool {
    match condition {
        Condition::None => true,
        Condition::Absent => found.is_none(),
        Condition::Present => found.is_some(),
        Condition::Version(expected) => found.is_some_and(|(version, _)| version.0 == expected),
        Condition::Value(expected) => found.is_some_and(|(_, value)| value == expected),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_digits() {
        for number in [0, 7, -7, i64::MAX, i64::MIN] {
            assert_eq!(Number::new(number).as_bytes(), number.to_string().as_bytes());
            assert_eq!(parse_number(Number::new(number).as_bytes()), Some(number));
        }
    }

    #[test]
    fn an_add_keeps_the_expiry_that_it_finds_and_gives_one_to_what_it_makes() {
        let add = KeyWrite {
            hash: 0,
            key: b"k",
            action: Action::Add { delta: 2, ttl_ms: 5 },
            condition: Condition::None,
        };
        let at = Timestamp::from_micros(100);
        let newest = |found, expiry| Newest {
            found,
            expiry,
            index: None,
        };
        let there = newest(Some((Timestamp(1), &b"40"[..])), None);
        let decided = add.decide(&there, at, 0).unwrap();
        assert_eq!(
            (decided.expiry, decided.sum.unwrap().as_bytes()),
            (None, &b"42"[..])
        );
        let expired = newest(None, Some(Timestamp::from_micros(99)));
        let decided = add.decide(&expired, at, 0).unwrap();
        assert_eq!(decided.expiry, Some(Timestamp::from_micros(5100)));
        assert_eq!(decided.sum.unwrap().as_bytes(), b"2");
    }

    #[test]
    fn an_add_fails_without_a_number_or_beyond_64_bits() {
        let add = |delta| KeyWrite {
            hash: 0,
            key: b"k",
            action: Action::Add { delta, ttl_ms: 0 },
            condition: Condition::None,
        };
        let found = |value| Newest {
            found: Some((Timestamp(1), value)),
            expiry: None,
            index: None,
        };
        let decide = |delta, value| add(delta).decide(&found(value), Timestamp(9), 3).err();
        assert_eq!(decide(1, b"one"), Some(Failure::NotANumber { operation: 3 }));
        assert_eq!(
            decide(1, b"9223372036854775807"),
            Some(Failure::NumberOverflow { operation: 3 })
        );
        assert_eq!(decide(-1, b"9223372036854775807"), None);
    }
}
