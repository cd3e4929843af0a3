//! What a request carries and what is remembered of it, with the bytes of both in a log entry.
//!
//! Little-endian, of fixed length. The entry around them brings the checksum and the version of the format.
//!
//! ```text
//! Retry                                     Failure
//!  0      session         u128               0      kind       u8   1 condition failed
//! 16      sequence        u64                                       2 not a number
//! 24      answered_below  u64                                       3 number overflow
//! 32      first_sent      u64                1..4   zero
//! 40                                         4      operation  u32
//!                                            8      version    u64  zero unless kind is 1
//!                                           16
//! ```
//!
//! An applied answer has no bytes in an entry: version and numbers follow from the entry that was applied. How answers
//! are stored without their entries is in `state`.

use alloc::boxed::Box;

use crate::hlc::Timestamp;

/// A client's session: 128 random bits that the client draws itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u128);

/// Number of a write within its session, over all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

/// What makes a write recognizable when it arrives again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The session it belongs to.
    pub session: SessionId,
    /// Its number there. The same over all sends of the write.
    pub sequence: Sequence,
    /// The client's report: it has the answers of all sequences below, or has given them up. At most `sequence`.
    pub answered_below: Sequence,
    /// When it was sent first, as the client estimates the server's clock. The same over all sends of the write,
    /// and within a session it does not fall while the sequence rises.
    pub first_sent: Timestamp,
}

/// Bytes of an encoded [`Retry`].
pub const RETRY_BYTES: usize = 40;

impl Retry {
    /// The bytes for the log entry.
    pub fn encode(&self) -> [u8; RETRY_BYTES] {
        let mut bytes = [0; RETRY_BYTES];
        bytes[..16].copy_from_slice(&self.session.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.answered_below.0.to_le_bytes());
        bytes[32..].copy_from_slice(&self.first_sent.0.to_le_bytes());
        bytes
    }

    /// The retry of these bytes; `None` if their number is wrong or the report reaches beyond the own sequence.
    pub fn decode(bytes: &[u8]) -> Option<Retry> {
        let bytes: &[u8; RETRY_BYTES] = bytes.try_into().ok()?;
        let (session, words) = bytes.split_first_chunk()?;
        let (sequence, words) = words.split_first_chunk()?;
        let (answered_below, first_sent) = words.split_first_chunk()?;
        let retry = Retry {
            session: SessionId(u128::from_le_bytes(*session)),
            sequence: Sequence(u64::from_le_bytes(*sequence)),
            answered_below: Sequence(u64::from_le_bytes(*answered_below)),
            first_sent: Timestamp(u64::from_le_bytes(first_sent.try_into().ok()?)),
        };
        (!retry.is_malformed()).then_some(retry)
    }

    /// True if it reports its own answer, or a later one's, as received.
    pub(super) fn is_malformed(&self) -> bool {
        self.sequence < self.answered_below
    }
}

/// What was decided about a write: enough to answer it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All of it was applied.
    Applied {
        /// The key version that it made.
        version: Timestamp,
        /// What its adds came to, in the order of the operations.
        numbers: Numbers,
    },
    /// Nothing of it was applied, for good.
    Failed(Failure),
}

/// Why a write was decided against. It is final, unlike a refusal (no room, not the leader), which is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The key was not as the condition wants it.
    ConditionFailed {
        /// The key's version, zero if it is absent.
        version: Timestamp,
        /// Index of the operation in its batch, else 0.
        operation: u32,
    },
    /// An add met a value that is no number.
    NotANumber {
        /// Index of the operation in its batch, else 0.
        operation: u32,
    },
    /// An add would leave the range of an `i64`.
    NumberOverflow {
        /// Index of the operation in its batch, else 0.
        operation: u32,
    },
}

/// Bytes of an encoded [`Failure`].
pub const FAILURE_BYTES: usize = 16;

const CONDITION_FAILED: u8 = 1;
const NOT_A_NUMBER: u8 = 2;
const NUMBER_OVERFLOW: u8 = 3;

impl Failure {
    /// The bytes for the log entry.
    pub fn encode(&self) -> [u8; FAILURE_BYTES] {
        let (kind, operation, version) = match *self {
            Failure::ConditionFailed { version, operation } => (CONDITION_FAILED, operation, version),
            Failure::NotANumber { operation } => (NOT_A_NUMBER, operation, Timestamp::ZERO),
            Failure::NumberOverflow { operation } => (NUMBER_OVERFLOW, operation, Timestamp::ZERO),
        };
        let mut bytes = [0; FAILURE_BYTES];
        bytes[0] = kind;
        bytes[4..8].copy_from_slice(&operation.to_le_bytes());
        bytes[8..].copy_from_slice(&version.0.to_le_bytes());
        bytes
    }

    /// The failure of these bytes; `None` for a wrong number of bytes, an unknown kind, or a byte that must be zero
    /// and is not.
    pub fn decode(bytes: &[u8]) -> Option<Failure> {
        let bytes: &[u8; FAILURE_BYTES] = bytes.try_into().ok()?;
        let ([kind, zeros @ ..], words) = bytes.split_first_chunk::<4>()?;
        let (operation, version) = words.split_first_chunk()?;
        let operation = u32::from_le_bytes(*operation);
        let version = Timestamp(u64::from_le_bytes(version.try_into().ok()?));
        if *zeros != [0; 3] {
            return None;
        }
        match (*kind, version) {
            (CONDITION_FAILED, version) => Some(Failure::ConditionFailed { version, operation }),
            (NOT_A_NUMBER, Timestamp::ZERO) => Some(Failure::NotANumber { operation }),
            (NUMBER_OVERFLOW, Timestamp::ZERO) => Some(Failure::NumberOverflow { operation }),
            _ => None,
        }
    }
}

/// The results of a write's adds. None and one, which is nearly always, need no allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers(Held);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Held {
    #[default]
    None,
    One(i64),
    /// Two or more.
    Several(Box<[i64]>),
}

impl Numbers {
    /// The results in these, in their order.
    pub fn new(numbers: &[i64]) -> Numbers {
        Numbers(match numbers {
            [] => Held::None,
            [number] => Held::One(*number),
            numbers => Held::Several(numbers.into()),
        })
    }

    /// The results of little-endian bytes.
    pub(super) fn from_le_bytes(bytes: &[[u8; 8]]) -> Numbers {
        Numbers(match bytes {
            [] => Held::None,
            [number] => Held::One(i64::from_le_bytes(*number)),
            numbers => Held::Several(numbers.iter().map(|number| i64::from_le_bytes(*number)).collect()),
        })
    }

    /// The results, in the order of the operations.
    pub fn as_slice(&self) -> &[i64] {
        match &self.0 {
            Held::None => &[],
            Held::One(number) => core::slice::from_ref(number),
            Held::Several(numbers) => numbers,
        }
    }
}

impl Answer {
    /// How many numbers it holds in an allocation of their own.
    pub(super) fn allocated_numbers(&self) -> usize {
        match self {
            Answer::Applied {
                numbers: Numbers(Held::Several(numbers)),
                ..
            } => numbers.len(),
            Answer::Applied { .. } | Answer::Failed(_) => 0,
        }
    }
}
