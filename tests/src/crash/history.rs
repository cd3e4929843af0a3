//! What is known of each key: the newest acknowledged write, and the writes of unknown outcome since then.
//!
//! One client at a time writes to a key, so what a read may find follows from these two alone: the newest
//! acknowledged write with exactly its version, or a write of unknown outcome with a larger version. A write of
//! unknown outcome that is not found after a restart must never be found again.

use std::fmt;

use super::value::Identity;

/// What a key holds: a value, or nothing.
pub type Content = Option<Identity>;

/// A promise that the database broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key, escaped, or what else it is about.
    pub key: String,
    /// What was promised.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}\n    expected {}\n    found    {}",
            self.key, self.expected, self.found
        )
    }
}

/// All that is known of one key.
#[derive(Clone, Debug)]
pub struct KeyHistory {
    key: Vec<u8>,
    /// Version of the newest acknowledged or found write; 0: there is none. After a delete of unknown outcome that
    /// was applied it is the version of the write before.
    version: u64,
    content: Content,
    /// Writes of unknown outcome since the last restart.
    unknown: Vec<Content>,
    /// The newest `n` of a counter that was acknowledged or found, kept over deletes.
    number: u64,
}

impl KeyHistory {
    /// Nothing was written yet.
    pub fn new(key: Vec<u8>) -> KeyHistory {
        KeyHistory {
            key,
            version: 0,
            content: None,
            unknown: Vec::new(),
            number: 0,
        }
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Version of the newest write that is known.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What the newest write that is known left behind.
    pub fn content(&self) -> Content {
        self.content
    }

    /// The newest `n` of a counter.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// A write was acknowledged that was sent when `floor` was the newest known version.
    ///
    /// # Errors
    /// When its version is not above all that were known when it was sent, or is that of another write.
    pub fn acknowledged(&mut self, content: Content, version: u64, floor: u64) -> Result<(), Violation> {
        if version <= floor || version == self.version {
            let expected = format!("a version above {}", floor.max(self.version));
            return Err(self.violation(
                expected,
                format!("{} acknowledged at version {version}", name(content)),
            ));
        }
        if version > self.version {
            self.take(content, version);
        }
        Ok(())
    }

    /// Nobody knows what became of a write.
    pub fn unknown(&mut self, content: Content) {
        self.unknown.push(content);
    }

    /// A read while nothing is under way and nothing is unknown.
    ///
    /// # Errors
    /// When it found anything but the newest write.
    pub fn read(&self, found: &Result<Found, String>) -> Result<(), Violation> {
        let expected = match self.content {
            Some(identity) => Found::Value {
                version: self.version,
                identity,
            },
            None => Found::Nothing,
        };
        match found {
            Ok(found) if *found == expected => Ok(()),
            Ok(found) => Err(self.violation(expected.to_string(), found.to_string())),
            Err(damage) => Err(self.violation(expected.to_string(), damage.clone())),
        }
    }

    /// What was found after a restart; returns whether it was a write of unknown outcome. From here on nothing
    /// is unknown.
    ///
    /// # Errors
    /// When nobody promised that.
    pub fn restarted(&mut self, found: &Result<Found, String>) -> Result<bool, Violation> {
        let unknown = std::mem::take(&mut self.unknown);
        let known = self.read(found);
        let Err(violation) = known else {
            return Ok(false);
        };
        match found {
            Ok(Found::Value { version, identity })
                if *version > self.version && unknown.contains(&Some(*identity)) =>
            {
                self.take(Some(*identity), *version);
                Ok(true)
            }
            Ok(Found::Nothing) if unknown.contains(&None) => {
                self.content = None;
                Ok(true)
            }
            _ => {
                let or: Vec<String> = unknown
                    .iter()
                    .map(|content| format!(", or {}", name(*content)))
                    .collect();
                let expected = violation.expected + &or.concat();
                Err(Violation {
                    expected,
                    ..violation
                })
            }
        }
    }

    fn take(&mut self, content: Content, version: u64) {
        self.version = version;
        self.content = content;
        if let Some(identity) = content {
            self.number = identity.number;
        }
    }

    /// A violation about this key.
    pub fn violation(&self, expected: String, found: String) -> Violation {
        Violation {
            key: self.key.escape_ascii().to_string(),
            expected,
            found,
        }
    }
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// No such key.
    Nothing,
    /// An intact value.
    Value {
        /// Its version.
        version: u64,
        /// What it says of itself.
        identity: Identity,
    },
}

impl fmt::Display for Found {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Nothing => formatter.write_str("no such key"),
            Found::Value { version, identity } => {
                write!(formatter, "{} at version {version}", name(Some(*identity)))
            }
        }
    }
}

fn name(content: Content) -> String {
    match content {
        Some(Identity { attempt, number: 0 }) => format!("write {attempt:#x}"),
        Some(Identity { attempt, number }) => format!("n = {number} (write {attempt:#x})"),
        None => "a delete".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "it is compared and passed as a content")]
    const fn write(attempt: u64) -> Content {
        Some(Identity {
            attempt,
            number: attempt,
        })
    }

    #[expect(clippy::unnecessary_wraps, reason = "it stands among damaged values")]
    fn value(version: u64, attempt: u64) -> Result<Found, String> {
        Ok(Found::Value {
            version,
            identity: Identity {
                attempt,
                number: attempt,
            },
        })
    }

    /// Write 1 acknowledged at version 10, write 2 and a delete unknown.
    fn history() -> KeyHistory {
        let mut history = KeyHistory::new(b"key".to_vec());
        history.acknowledged(write(1), 10, 0).unwrap();
        history.unknown(write(2));
        history
    }

    #[test]
    fn acknowledged_or_unknown_may_be_found() {
        assert_eq!(history().restarted(&value(10, 1)), Ok(false));
        let mut applied = history();
        assert_eq!(applied.restarted(&value(11, 2)), Ok(true));
        assert_eq!(applied.read(&value(11, 2)), Ok(()));
        let mut deleted = history();
        deleted.unknown(None);
        assert_eq!(deleted.restarted(&Ok(Found::Nothing)), Ok(true));
        assert!(
            deleted.restarted(&value(10, 1)).is_err(),
            "a deleted value came back"
        );
    }

    #[test]
    fn everything_else_is_a_violation() {
        let wrong = [
            value(9, 1),
            value(11, 1),
            value(10, 2),
            value(9, 2),
            value(11, 3),
            Ok(Found::Nothing),
            Err("damaged".to_owned()),
        ];
        for found in wrong {
            assert!(history().restarted(&found).is_err(), "{found:?}");
        }
    }

    #[test]
    fn an_unknown_write_that_was_not_found_must_stay_away() {
        let mut history = history();
        assert_eq!(history.restarted(&value(10, 1)), Ok(false));
        assert!(history.restarted(&value(11, 2)).is_err());
    }

    #[test]
    fn acknowledgements_out_of_order_and_impossible_versions() {
        let mut history = history();
        history.acknowledged(write(4), 14, 10).unwrap();
        history.acknowledged(write(3), 12, 10).unwrap();
        assert_eq!(history.read(&value(14, 4)), Ok(()));
        assert!(
            history.acknowledged(write(5), 14, 10).is_err(),
            "two writes of one version"
        );
        assert!(
            history.acknowledged(write(6), 13, 14).is_err(),
            "below what was known before"
        );
    }
}
