//! What the database did that it must not do.

use crate::keys::{Key, KeyIndex};

/// Which promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ViolationKind {
    /// A record that was acknowledged is not there.
    MissingKey,
    /// A key is there that was never written.
    ExtraKey,
    /// A scan gave a key twice, or keys out of order.
    ScanOrder,
    /// A value whose bytes are not those that were written.
    CorruptValue,
    /// A whole value that belongs to another key or another writer.
    ForeignValue,
    /// A value older than one acknowledged, or read, before the request was sent.
    StaleValue,
    /// The final state is older than an acknowledged write.
    LostWrite,
    /// A write that was already decided came back with a newer version.
    ResurrectedValue,
    /// A value that was never sent, or whose write was refused.
    NeverSent,
    /// One write has two versions.
    OneWriteTwoVersions,
    /// Two writes have one version.
    TwoWritesOneVersion,
    /// A write got a version not above that of a write acknowledged before it was sent.
    VersionNotAbove,
    /// A counter holds, or an add was answered with, a number that the adds do not give.
    WrongCount,
}

/// One broken promise, with its facts.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// Which promise.
    pub kind: ViolationKind,
    /// The key concerned, readable.
    pub key: String,
    /// What had to be found.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl Violation {
    /// About the key of a record.
    pub fn of_record(kind: ViolationKind, key: KeyIndex, expected: String, found: String) -> Self {
        Self {
            kind,
            key: format!("{} (record {})", Key::of(key), key.0),
            expected,
            found,
        }
    }

    /// About a key that may be no record's.
    pub fn of_key(kind: ViolationKind, key: &[u8], expected: String, found: String) -> Self {
        Self {
            kind,
            key: key.escape_ascii().to_string(),
            expected,
            found,
        }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.kind {
            ViolationKind::MissingKey => "an acknowledged record is missing",
            ViolationKind::ExtraKey => "a key that was never written is there",
            ViolationKind::ScanOrder => "a scan is out of order",
            ViolationKind::CorruptValue => "a value is corrupt",
            ViolationKind::ForeignValue => "a value belongs elsewhere",
            ViolationKind::StaleValue => "a read is stale",
            ViolationKind::LostWrite => "an acknowledged write is lost",
            ViolationKind::ResurrectedValue => "an overwritten value came back",
            ViolationKind::NeverSent => "a value was never sent, or its write was refused",
            ViolationKind::OneWriteTwoVersions => "one write has two versions",
            ViolationKind::TwoWritesOneVersion => "two writes have one version",
            ViolationKind::VersionNotAbove => "a write's version is not above an earlier one's",
            ViolationKind::WrongCount => "a counter is wrong",
        };
        write!(
            formatter,
            "{what}\n  key      {}\n  expected {}\n  found    {}",
            self.key, self.expected, self.found
        )
    }
}
