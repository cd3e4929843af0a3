//! One entry between a file and a node, and when its key expires.

use std::fmt;

use ostrakon_wire::limits::{KEY_BYTES_MAX, TTL_MS_MAX, VALUE_BYTES_MAX};

/// One entry of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// 1 to [`KEY_BYTES_MAX`] bytes.
    pub key: Vec<u8>,
    /// At most [`VALUE_BYTES_MAX`] bytes.
    pub value: Vec<u8>,
    /// When the key is absent again.
    pub expiry: Expiry,
}

/// When a key is absent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// It stays.
    Never,
    /// So many milliseconds after it is written.
    AfterMs(u64),
    /// At this time, in microseconds since 1970.
    AtUs(u64),
}

/// What an expiry comes to at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lifetime {
    /// A time to live as the protocol has it; 0: it stays.
    TtlMs(u64),
    /// It is over.
    Over,
    /// It is longer than any time to live.
    TooLong,
}

/// Why a file can't be read on, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// `line 17` or `record 17 at byte 1234`.
    pub place: String,
    /// What is wrong there, as the end of a sentence.
    pub detail: String,
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.detail)
    }
}

impl Record {
    /// Refuses what no node takes.
    ///
    /// # Errors
    /// The reason, as the end of a sentence.
    pub fn check(&self) -> Result<(), String> {
        let (key_bytes, value_bytes) = (self.key.len(), self.value.len());
        if key_bytes == 0 {
            return Err("the key is empty, and a key has at least one byte".to_owned());
        }
        if key_bytes > KEY_BYTES_MAX {
            return Err(format!(
                "the key has {key_bytes} bytes, and {KEY_BYTES_MAX} is the most"
            ));
        }
        if value_bytes > VALUE_BYTES_MAX {
            return Err(format!(
                "the value has {value_bytes} bytes, and {VALUE_BYTES_MAX} is the most"
            ));
        }
        match self.expiry {
            Expiry::AfterMs(0) => Err("ttl_ms is 0; leave it out for a key that stays".to_owned()),
            Expiry::AfterMs(ttl_ms) if ttl_ms > TTL_MS_MAX => Err(format!(
                "ttl_ms is {ttl_ms}, and {TTL_MS_MAX} (ten years) is the most"
            )),
            _ => Ok(()),
        }
    }
}

impl Expiry {
    /// What is left of it at `now_us`, in microseconds since 1970.
    pub(super) fn lifetime(self, now_us: u64) -> Lifetime {
        match self {
            Expiry::Never => Lifetime::TtlMs(0),
            Expiry::AfterMs(ttl_ms) => Lifetime::TtlMs(ttl_ms),
            Expiry::AtUs(at_us) => match at_us.saturating_sub(now_us).div_ceil(1_000) {
                0 => Lifetime::Over,
                left_ms if left_ms > TTL_MS_MAX => Lifetime::TooLong,
                left_ms => Lifetime::TtlMs(left_ms),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_hold_to_the_limits() {
        let record = |key_bytes, value_bytes, expiry| Record {
            key: vec![b'k'; key_bytes],
            value: vec![b'v'; value_bytes],
            expiry,
        };
        for good in [
            record(1, 0, Expiry::Never),
            record(KEY_BYTES_MAX, 1, Expiry::AfterMs(TTL_MS_MAX)),
            record(1, VALUE_BYTES_MAX, Expiry::AtUs(1)),
        ] {
            assert_eq!(good.check(), Ok(()));
        }
        for (bad, words) in [
            (record(0, 0, Expiry::Never), "at least one byte"),
            (record(KEY_BYTES_MAX + 1, 0, Expiry::Never), "8192 is the most"),
            (
                record(1, VALUE_BYTES_MAX + 1, Expiry::Never),
                "8388608 is the most",
            ),
            (record(1, 0, Expiry::AfterMs(0)), "leave it out"),
            (record(1, 0, Expiry::AfterMs(TTL_MS_MAX + 1)), "ten years"),
        ] {
            let refusal = bad.check().unwrap_err();
            assert!(refusal.contains(words), "{refusal}");
        }
    }

    #[test]
    fn what_is_left_is_rounded_up_and_ends() {
        assert_eq!(Expiry::Never.lifetime(5), Lifetime::TtlMs(0));
        assert_eq!(Expiry::AfterMs(7).lifetime(5), Lifetime::TtlMs(7));
        assert_eq!(Expiry::AtUs(2_001).lifetime(1_000), Lifetime::TtlMs(2));
        assert_eq!(Expiry::AtUs(1_001).lifetime(1_000), Lifetime::TtlMs(1));
        assert_eq!(Expiry::AtUs(1_000).lifetime(1_000), Lifetime::Over);
        assert_eq!(Expiry::AtUs(u64::MAX).lifetime(0), Lifetime::TooLong);
    }
}
