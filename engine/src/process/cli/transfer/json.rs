//! Files of entries as lines of JSON.
//!
//! ```text
//! {"key": "user:7", "value": "Kleisthenes"}
//! {"key_base64": "/wA=", "value_base64": "AAEC", "expires": 1795000000000000}
//! ```
//!
//! A line is an object with `key` or `key_base64` and `value` or `value_base64`, perhaps with `ttl_ms` (milliseconds
//! from the import on) or `expires` (microseconds since 1970; 0 is never). `version`, which `scan --json` prints, is
//! passed over; any other name is refused, so that a misspelt one is not lost. Empty lines are passed over. That a file
//! was cut between two lines can't be noticed; the binary form is for that.

use std::io::{self, BufRead, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::record::{BadRecord, Expiry, Record};

/// Longest line: every byte of the longest key and value written as `\u00NN`, and something for the names.
const LINE_BYTES_MAX: usize = 64 << 20;

/// A line as it stands in the file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    key: Option<std::borrow::Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    value: Option<std::borrow::Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    #[serde(rename = "version", skip_serializing)]
    _version: Option<serde::de::IgnoredAny>,
}

/// Reads lines of JSON.
#[derive(Debug)]
pub struct JsonReader<R> {
    input: R,
    line: Vec<u8>,
    line_number: u64,
}

impl<R: BufRead> JsonReader<R> {
    /// Reads from the beginning of a file.
    pub fn new(input: R) -> JsonReader<R> {
        JsonReader {
            input,
            line: Vec::new(),
            line_number: 0,
        }
    }

    fn read(&mut self) -> Result<Option<Record>, String> {
        loop {
            self.line.clear();
            self.line_number += 1;
            let count = (&mut self.input)
                .take(LINE_BYTES_MAX as u64 + 1)
                .read_until(b'\n', &mut self.line)
                .map_err(|error| format!("it can't be read: {error}"))?;
            if count == 0 {
                return Ok(None);
            }
            if count > LINE_BYTES_MAX {
                return Err(format!("it is longer than {LINE_BYTES_MAX} bytes"));
            }
            let line = self.line.trim_ascii_end();
            if !line.is_empty() {
                return parse(line).map(Some);
            }
        }
    }
}

impl<R: BufRead> Iterator for JsonReader<R> {
    type Item = Result<Record, BadRecord>;

    fn next(&mut self) -> Option<Result<Record, BadRecord>> {
        let read = self.read().map_err(|detail| BadRecord {
            place: format!("line {}", self.line_number),
            detail,
        });
        read.transpose()
    }
}

fn parse(line: &[u8]) -> Result<Record, String> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| without_line(&error))?;
    let expiry = match (line.ttl_ms, line.expires) {
        (None, None | Some(0)) => Expiry::Never,
        (Some(ttl_ms), None) => Expiry::AfterMs(ttl_ms),
        (None, Some(expires)) => Expiry::AtUs(expires),
        (Some(_), Some(_)) => return Err("it has both ttl_ms and expires; one of them is enough".to_owned()),
    };
    let record = Record {
        key: bytes("key", line.key.as_deref(), line.key_base64.as_deref())?,
        value: bytes("value", line.value.as_deref(), line.value_base64.as_deref())?,
        expiry,
    };
    record.check()?;
    Ok(record)
}

/// The bytes of a field that is text or base64.
fn bytes(name: &str, text: Option<&str>, base64: Option<&str>) -> Result<Vec<u8>, String> {
    match (text, base64) {
        (Some(text), None) => Ok(text.as_bytes().to_vec()),
        (None, Some(base64)) => STANDARD
            .decode(base64)
            .map_err(|error| format!("{name}_base64 is no base64: {error}")),
        (None, None) => Err(format!("it has neither {name} nor {name}_base64")),
        (Some(_), Some(_)) => Err(format!(
            "it has both {name} and {name}_base64; one of them is enough"
        )),
    }
}

/// The error of a text of one line: its column only, as the line's number in the file stands before it.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let sentence = text.split(" at line ").next().unwrap_or(&text);
    format!("{sentence} (column {})", error.column())
}

/// Writes an entry as a line. `expires_us`: from when on its key is absent, in microseconds since 1970; 0: never.
///
/// # Errors
/// Those of `out`.
pub fn write_line(out: &mut impl Write, key: &[u8], value: &[u8], expires_us: u64) -> io::Result<()> {
    let (key, key_base64) = text_or_base64(key);
    let (value, value_base64) = text_or_base64(value);
    let line = Line {
        key: key.map(Into::into),
        key_base64,
        value: value.map(Into::into),
        value_base64,
        expires: (expires_us != 0).then_some(expires_us),
        ..Line::default()
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

fn text_or_base64(bytes: &[u8]) -> (Option<&str>, Option<String>) {
    match str::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &[u8]) -> Result<Vec<Record>, BadRecord> {
        JsonReader::new(text).collect()
    }

    #[test]
    fn lines_are_read_with_their_expiry() {
        let text = "{\"key\": \"a\", \"value\": \"1\\n\"}\n\n{\"value_base64\": \"/w==\", \"key_base64\": \"AA==\", \
                    \"ttl_ms\": 5, \"version\": \"7\"}\n{\"key\":\"c\",\"value\":\"\",\"expires\":9}\n\
                    {\"key\":\"d\",\"value\":\"\",\"expires\":0}";
        let record = |key: &[u8], value: &[u8], expiry| Record {
            key: key.to_vec(),
            value: value.to_vec(),
            expiry,
        };
        assert_eq!(
            read(text.as_bytes()).unwrap(),
            [
                record(b"a", b"1\n", Expiry::Never),
                record(b"\0", b"\xff", Expiry::AfterMs(5)),
                record(b"c", b"", Expiry::AtUs(9)),
                record(b"d", b"", Expiry::Never),
            ]
        );
    }

    #[test]
    fn a_bad_line_is_refused_with_its_number_and_why() {
        for (line, words) in [
            ("{\"key\": \"a\"}", "neither value nor value_base64"),
            ("{\"value\": \"a\"}", "neither key nor key_base64"),
            (
                "{\"key\":\"a\",\"key_base64\":\"AA==\",\"value\":\"\"}",
                "both key and",
            ),
            ("{\"key_base64\":\"*\",\"value\":\"\"}", "no base64"),
            (
                "{\"key\":\"a\",\"value\":\"\",\"tll_ms\":5}",
                "unknown field `tll_ms`",
            ),
            (
                "{\"key\":\"a\",\"value\":\"\",\"ttl_ms\":5,\"expires\":5}",
                "both ttl_ms",
            ),
            ("{\"key\":\"a\",\"value\":\"\",\"ttl_ms\":0}", "leave it out"),
            ("{\"key\":\"a\",\"value\":5}", "expected a string"),
            ("{\"key\":\"a\",\"key\":\"b\",\"value\":\"\"}", "duplicate field"),
            ("{\"key\":\"\",\"value\":\"\"}", "at least one byte"),
            ("{\"key\":\"a\",\"val", "EOF while parsing a string (column 15)"),
            ("nonsense", "expected"),
        ] {
            let text = format!("{{\"key\":\"a\",\"value\":\"\"}}\n\n{line}\n");
            let refusal = read(text.as_bytes()).unwrap_err();
            assert_eq!(refusal.place, "line 3");
            assert!(refusal.detail.contains(words), "no '{words}' in: {refusal}");
        }
    }

    #[test]
    fn a_line_without_end_is_not_read_into_memory() {
        let mut endless = JsonReader::new(io::BufReader::new(io::repeat(b'x')));
        let refusal = endless.next().unwrap().unwrap_err();
        assert!(refusal.detail.contains("longer than"), "{refusal}");
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read(
            key in proptest::collection::vec(any::<u8>(), 1..32),
            value in proptest::collection::vec(any::<u8>(), 0..32),
            expires_us in 0u64..1 << 53,
        ) {
            let mut text = Vec::new();
            write_line(&mut text, &key, &value, expires_us).unwrap();
            let expiry = if expires_us == 0 { Expiry::Never } else { Expiry::AtUs(expires_us) };
            prop_assert_eq!(read(&text).unwrap(), [Record { key, value, expiry }]);
        }
    }
}
