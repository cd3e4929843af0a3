//! Keys on the command line: text, with `\xNN` for any other byte and `\\` for a backslash.
//!
//! [`escape`] writes what [`unescape`] reads, so that a key printed by `scan` can be pasted into `get`
//! (inside single quotes in a shell). Every byte string has an escaped form.

use std::fmt;
use std::fmt::Write as _;

/// Why an escaped key makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyError {
    /// Offset of the backslash, in bytes.
    pub offset: usize,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the backslash at byte {} starts neither \\xNN (two hexadecimal digits) nor \\\\ (a backslash); \
             in a shell, put the key into single quotes",
            self.offset
        )
    }
}

impl std::error::Error for KeyError {}

/// The bytes that an escaped key stands for.
///
/// # Errors
/// If a backslash starts anything but `\\` or `\xNN`.
pub fn unescape(escaped: &[u8]) -> Result<Vec<u8>, KeyError> {
    let mut key = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((&first, after)) = rest.split_first() {
        let (byte, length) = match (first, after) {
            (b'\\', [b'\\', ..]) => (b'\\', 2),
            (b'\\', [b'x', high, low, ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (hex_value(*high) << 4 | hex_value(*low), 4)
            }
            (b'\\', _) => {
                return Err(KeyError {
                    offset: escaped.len() - rest.len(),
                });
            }
            (byte, _) => (byte, 1),
        };
        key.push(byte);
        rest = &rest[length..];
    }
    Ok(key)
}

/// The value of a hexadecimal digit.
fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => unreachable!("the caller has checked that it is a hexadecimal digit"),
    }
}

/// Bytes as one line of printable text.
///
/// Printable characters of valid UTF-8 stand for themselves; a backslash is doubled; all other bytes
/// (control characters, invisible characters, invalid UTF-8) are `\xNN`.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                _ if is_printable(character) => text.push(character),
                _ => escape_bytes(&mut text, character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        escape_bytes(&mut text, chunk.invalid());
    }
    text
}

/// `escape_debug` knows which characters are printable; it also escapes quotes, which need no care here.
fn is_printable(character: char) -> bool {
    matches!(character, '"' | '\'') || character.escape_debug().len() == 1
}

fn escape_bytes(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing into a string never fails.
        let _ = write!(text, "\\x{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_stand_for_bytes() {
        assert_eq!(unescape(br"user:1").unwrap(), b"user:1");
        assert_eq!(unescape(br"a\x00\xfF\\x41").unwrap(), b"a\0\xff\\x41");
        assert_eq!(unescape("grün".as_bytes()).unwrap(), "grün".as_bytes());
        assert_eq!(unescape(b"\xff").unwrap(), b"\xff", "raw bytes need no escape");
    }

    #[test]
    fn other_backslashes_are_refused_with_their_place() {
        for (escaped, offset) in [
            (&br"a\n"[..], 1),
            (br"\", 0),
            (br"ab\x4", 2),
            (br"\\\xg0", 2),
            (br"\x+1", 0),
        ] {
            assert_eq!(unescape(escaped), Err(KeyError { offset }));
        }
    }

    #[test]
    fn text_stays_readable() {
        assert_eq!(
            escape("{a}:\"grün\" 'x' 日本".as_bytes()),
            "{a}:\"grün\" 'x' 日本"
        );
        assert_eq!(escape(b"a\\b\tc\n\x7f\xff"), r"a\\b\x09c\x0a\x7f\xff");
        assert_eq!(
            escape("\u{202e}".as_bytes()),
            r"\xe2\x80\xae",
            "no character may reorder the terminal"
        );
    }

    proptest! {
        #[test]
        fn every_key_survives_the_round_trip(key in proptest::collection::vec(any::<u8>(), 0..64)) {
            let escaped = escape(&key);
            prop_assert!(!escaped.chars().any(char::is_control));
            prop_assert_eq!(unescape(escaped.as_bytes()), Ok(key));
        }
    }
}
