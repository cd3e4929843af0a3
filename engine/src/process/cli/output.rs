//! What commands print on stdout: raw values, lines, JSON.
//!
//! In JSON, bytes are a string if they are valid UTF-8, and otherwise base64 under the same name with
//! `_base64` behind it. Versions are strings, because they exceed the 2^53 up to which every JSON reader is
//! exact.

use std::io::{self, IsTerminal, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value};

use super::failure::Failure;

/// Prints text as it is.
pub(super) fn text(text: &str) -> Result<(), Failure> {
    write(|out| out.write_all(text.as_bytes()))
}

/// Prints one line of JSON.
pub(super) fn json_line(value: &impl Serialize) -> Result<(), Failure> {
    let line = serde_json::to_string(value)
        .map_err(|error| Failure::Failed(format!("cannot write JSON: {error}")))?;
    text(&(line + "\n"))
}

/// Prints a value byte for byte; on a terminal with a line end behind it.
pub(super) fn raw(value: &[u8]) -> Result<(), Failure> {
    write(|out| {
        out.write_all(value)?;
        if io::stdout().is_terminal() && !value.ends_with(b"\n") {
            out.write_all(b"\n")?;
        }
        Ok(())
    })
}

/// Writes and flushes.
pub(super) fn write(action: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    action(&mut out)
        .and_then(|()| out.flush())
        .map_err(|error| Failure::from_output(&error))
}

/// Adds bytes to a JSON object, as text or base64.
pub(super) fn insert_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), text.into()),
        Err(_) => object.insert(format!("{name}_base64"), STANDARD.encode(bytes).into()),
    };
}

/// Adds a version to a JSON object.
pub(super) fn insert_version(object: &mut Map<String, Value>, version: u64) {
    object.insert("version".to_owned(), version.to_string().into());
}

/// A JSON value as aligned lines `path  value`, one per leaf; the path's parts are separated by dots.
pub(super) fn aligned(value: &Value) -> String {
    let mut leaves = Vec::new();
    collect_leaves("", value, &mut leaves);
    let width = leaves
        .iter()
        .map(|(path, _)| path.chars().count())
        .max()
        .unwrap_or(0);
    let lines: Vec<String> = leaves
        .iter()
        .map(|(path, leaf)| format!("{path:width$}  {leaf}\n"))
        .collect();
    lines.concat()
}

fn collect_leaves(path: &str, value: &Value, leaves: &mut Vec<(String, String)>) {
    let below = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    match value {
        Value::Object(fields) => fields
            .iter()
            .for_each(|(name, field)| collect_leaves(&below(name), field, leaves)),
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, item)| collect_leaves(&below(&index.to_string()), item, leaves));
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(leaf).collect();
            leaves.push((path.to_owned(), items.join(" ")));
        }
        other => leaves.push((path.to_owned(), leaf(other))),
    }
}

/// A scalar without the quotes of JSON, and without control characters.
fn leaf(value: &Value) -> String {
    match value {
        Value::String(text) => super::key::escape(text.as_bytes()),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bytes_are_text_or_base64_and_versions_are_strings() {
        let mut object = Map::new();
        insert_bytes(&mut object, "key", "grün".as_bytes());
        insert_bytes(&mut object, "value", b"\xff\x00");
        insert_version(&mut object, u64::MAX);
        let expected = json!({"key": "grün", "value_base64": "/wA=", "version": "18446744073709551615"});
        assert_eq!(Value::Object(object), expected);
    }

    #[test]
    fn nested_status_becomes_aligned_lines() {
        let status =
            json!({"cores": 2, "cluster": {"id": "ab\n"}, "owners": [0, 1], "per_core": [{"puts": 7}]});
        let text = aligned(&status);
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                r"cluster.id       ab\x0a",
                "cores            2",
                "owners           0 1",
                "per_core.0.puts  7"
            ]
        );
    }
}
