//! Events as text: one EDN map per line.
//!
//! A line is made without its beginning, since its index is known only when the threads' events are merged;
//! [`finish_line`] puts both together.

use std::io::{self, Write};

use super::recorder::{Event, EventKind, Found, Reason};
use super::{Process, ScanRecord};
use crate::keys::Key;

/// What opens the string of bytes that are not plain text.
const HEX_PREFIX: &str = "0x";

/// Writes a whole line.
pub(super) fn finish_line(output: &mut impl Write, index: u64, rest: &[u8]) -> io::Result<()> {
    write!(output, "{{:index {index}, ")?;
    output.write_all(rest)
}

/// Appends the line of a request's event, from its time on.
pub(super) fn event(line: &mut Vec<u8>, event: &Event) {
    let kind = match event.kind {
        EventKind::Invoke => "invoke",
        EventKind::Read(_) | EventKind::Written { .. } => "ok",
        EventKind::Fail(_) => "fail",
        EventKind::Info(_) => "info",
    };
    let function = if event.call.write.is_some() {
        "write"
    } else {
        "read"
    };
    head(line, event.time_ns, kind, event.process, function);
    line.push(b'[');
    quoted(line, Key::of(event.call.key).bytes());
    line.push(b' ');
    let mut version = None;
    match (event.call.write, &event.kind) {
        (Some(sequence), EventKind::Written { version: written }) => {
            number(line, sequence.0);
            version = Some(*written);
        }
        (Some(sequence), _) => number(line, sequence.0),
        (None, EventKind::Read(found)) => {
            version = Some(found.as_ref().map_or(0, |(version, _)| *version));
            value(line, found.as_ref().map(|(_, found)| found));
        }
        (None, _) => text(line, "nil"),
    }
    line.push(b']');
    if let Some(version) = version {
        text(line, ", :version ");
        number(line, version);
    }
    if let EventKind::Fail(reason) | EventKind::Info(reason) = &event.kind {
        error(line, &sentence(*reason));
    }
    text(line, "}\n");
}

/// Appends the line of a scan's call, from its time on.
pub(super) fn scan_called(line: &mut Vec<u8>, time_ns: u64, record: &ScanRecord) {
    head(line, time_ns, "invoke", record.process(), "txn");
    text(line, "[]");
    range(line, record.start(), None);
    text(line, "}\n");
}

/// Appends the line of a scan that gave something or came to its end, from its time on. `end` is the first
/// key that it did not come to.
pub(super) fn scan_answered(line: &mut Vec<u8>, time_ns: u64, record: &ScanRecord, end: Option<&[u8]>) {
    head(line, time_ns, "ok", record.process(), "txn");
    line.push(b'[');
    line.extend_from_slice(record.steps());
    line.push(b']');
    if !record.versions().is_empty() {
        text(line, ", :versions [");
        line.extend_from_slice(record.versions());
        line.push(b']');
    }
    range(line, record.start(), end);
    text(line, "}\n");
}

/// Appends the line of a scan that gave nothing, from its time on.
pub(super) fn scan_failed(line: &mut Vec<u8>, time_ns: u64, record: &ScanRecord, reason: &str) {
    head(line, time_ns, "fail", record.process(), "txn");
    text(line, "[]");
    range(line, record.start(), None);
    error(line, reason);
    text(line, "}\n");
}

/// Appends one read of a scan and its version.
pub(super) fn scan_step(
    steps: &mut Vec<u8>,
    versions: &mut Vec<u8>,
    key: &[u8],
    found: &Found,
    version: u64,
) {
    if !steps.is_empty() {
        steps.push(b' ');
        versions.push(b' ');
    }
    text(steps, "[:r ");
    quoted(steps, key);
    steps.push(b' ');
    value(steps, Some(found));
    steps.push(b']');
    number(versions, version);
}

fn head(line: &mut Vec<u8>, time_ns: u64, kind: &str, process: Process, function: &str) {
    text(line, ":time ");
    number(line, time_ns);
    text(line, ", :type :");
    text(line, kind);
    text(line, ", :process ");
    number(line, process.0);
    text(line, ", :f :");
    text(line, function);
    text(line, ", :value ");
}

fn value(line: &mut Vec<u8>, found: Option<&Found>) {
    match found {
        None => text(line, "nil"),
        Some(Found::Write(sequence)) => number(line, sequence.0),
        Some(Found::Foreign(description)) => quoted(line, description.as_bytes()),
    }
}

fn range(line: &mut Vec<u8>, start: &[u8], end: Option<&[u8]>) {
    text(line, ", :scan [");
    // The empty key is no key, so a range from it has no bound.
    for (bound, separator) in [(Some(start).filter(|start| !start.is_empty()), " "), (end, "]")] {
        match bound {
            Some(key) => quoted(line, key),
            None => text(line, "nil"),
        }
        text(line, separator);
    }
}

fn error(line: &mut Vec<u8>, reason: &str) {
    text(line, ", :error ");
    quoted(line, reason.as_bytes());
}

fn sentence(reason: Reason) -> String {
    match reason {
        Reason::Answered(code) => code.to_string(),
        Reason::NotApplied => "the node answered that it was not applied".to_owned(),
        Reason::Unanswered => "the connection was lost before the answer".to_owned(),
    }
}

/// Appends a string; bytes that are no plain text, or look like the hexadecimal form, in that form.
fn quoted(line: &mut Vec<u8>, content: &[u8]) {
    line.push(b'"');
    let is_shown = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    let plain = std::str::from_utf8(content)
        .ok()
        .filter(|content| content.chars().all(is_shown) && !content.starts_with(HEX_PREFIX));
    if let Some(plain) = plain {
        escaped(line, plain);
    } else {
        text(line, HEX_PREFIX);
        for byte in content {
            text(line, &format!("{byte:02x}"));
        }
    }
    line.push(b'"');
}

fn escaped(line: &mut Vec<u8>, plain: &str) {
    for byte in plain.bytes() {
        match byte {
            b'"' | b'\\' => line.extend_from_slice(&[b'\\', byte]),
            b'\n' => text(line, "\\n"),
            b'\r' => text(line, "\\r"),
            b'\t' => text(line, "\\t"),
            byte => line.push(byte),
        }
    }
}

fn number(line: &mut Vec<u8>, number: u64) {
    write!(line, "{number}").expect("a vector takes what is written to it");
}

fn text(line: &mut Vec<u8>, content: &str) {
    line.extend_from_slice(content.as_bytes());
}
