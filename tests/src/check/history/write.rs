//! Writes events as EDN, one map per line, in the form that `docs/histories.md` describes.
//!
//! The form is fixed to the byte, so that another writer can be compared with this one: keys in one order,
//! `, ` between entries, one space inside vectors. It never fails for what an event holds; bytes that are no
//! plain text become hexadecimal.

use std::io::{self, Write};

use super::{
    Action, Condition, Datum, Event, EventKind, Failure, KeyRange, Observed, Step, StepAction, Version,
};

/// What opens the string of bytes that are not plain text.
pub(super) const HEX_PREFIX: &str = "0x";

/// Writes a history as it grows. Call [`HistoryWriter::finish`] at the end: what a buffer below still holds is
/// lost otherwise.
#[derive(Debug)]
pub struct HistoryWriter<W: Write> {
    output: W,
    line: Vec<u8>,
    next_index: u64,
}

impl<W: Write> HistoryWriter<W> {
    /// A writer whose first event has index 0.
    pub fn new(output: W) -> HistoryWriter<W> {
        HistoryWriter {
            output,
            line: Vec::new(),
            next_index: 0,
        }
    }

    /// Writes one event as one line and gives the index that it got; the event's own index is not looked at.
    ///
    /// # Errors
    /// What the output said. The line may then be there in part, and nothing more should be written.
    pub fn write(&mut self, entry: &Event) -> io::Result<u64> {
        let index = self.next_index;
        self.line.clear();
        event(&mut self.line, entry, index);
        self.output.write_all(&self.line)?;
        self.next_index += 1;
        Ok(index)
    }

    /// Flushes, and gives the output back.
    ///
    /// # Errors
    /// What the output said.
    pub fn finish(mut self) -> io::Result<W> {
        self.output.flush()?;
        Ok(self.output)
    }
}

/// Appends the line of one event.
pub(super) fn event(line: &mut Vec<u8>, event: &Event, index: u64) {
    let kind = match event.kind {
        EventKind::Invoke => "invoke",
        EventKind::Ok => "ok",
        EventKind::Fail => "fail",
        EventKind::Info => "info",
    };
    let (time_ns, process) = (event.time_ns, event.process);
    let function = function(&event.action);
    text(
        line,
        &format!(
            "{{:index {index}, :time {time_ns}, :type :{kind}, :process {process}, :f :{function}, :value "
        ),
    );
    value(line, &event.action);
    match event.condition {
        Condition::None => (),
        Condition::Absent => text(line, ", :if :absent"),
        Condition::Present => text(line, ", :if :present"),
        Condition::Version(version) => text(line, &format!(", :if [:version {version}]")),
    }
    if let Some(version) = event.version {
        text(line, &format!(", :version {version}"));
    }
    if let Action::Add {
        result: Some(result), ..
    } = event.action
    {
        text(line, &format!(", :result {result}"));
    }
    if let Action::Transaction { steps, scan } = &event.action {
        step_versions(line, steps);
        if let Some(range) = scan {
            scan_range(line, range);
        }
    }
    match &event.failure {
        None => (),
        Some(Failure::Condition) => text(line, ", :error :condition"),
        Some(Failure::Other(reason)) => {
            text(line, ", :error ");
            quoted(line, reason);
        }
    }
    text(line, "}\n");
}

/// Appends a key or value.
pub(super) fn datum(line: &mut Vec<u8>, datum: &Datum) {
    match datum {
        Datum::Integer(number) => text(line, &number.to_string()),
        Datum::Bytes(bytes) => {
            if let Some(plain) = plain(bytes) {
                quoted(line, plain);
            } else {
                text(line, &format!("\"{HEX_PREFIX}"));
                for byte in bytes.iter() {
                    text(line, &format!("{byte:02x}"));
                }
                line.push(b'"');
            }
        }
    }
}

fn function(action: &Action) -> &'static str {
    match action {
        Action::Read { .. } => "read",
        Action::Write { .. } => "write",
        Action::CompareAndSet { .. } => "cas",
        Action::Delete { .. } => "delete",
        Action::Add { .. } => "add",
        Action::Transaction { .. } => "txn",
    }
}

fn value(line: &mut Vec<u8>, action: &Action) {
    match action {
        Action::Read { key, value } => pair(line, key, value.as_ref()),
        Action::Write { key, value } => pair(line, key, Some(value)),
        Action::Delete { key } => pair(line, key, None),
        Action::Add { key, delta, .. } => pair(line, key, Some(&Datum::Integer(*delta))),
        Action::CompareAndSet { key, old, new } => {
            line.push(b'[');
            datum(line, key);
            text(line, " [");
            optional(line, old.as_ref());
            line.push(b' ');
            datum(line, new);
            text(line, "]]");
        }
        Action::Transaction { steps, .. } => {
            line.push(b'[');
            for (number, entry) in steps.iter().enumerate() {
                if number > 0 {
                    line.push(b' ');
                }
                step(line, &entry.action);
            }
            line.push(b']');
        }
    }
}

fn step(line: &mut Vec<u8>, action: &StepAction) {
    match action {
        StepAction::Append { key, element } => {
            text(line, "[:append ");
            datum(line, key);
            line.push(b' ');
            datum(line, element);
        }
        StepAction::Write { key, value } => {
            text(line, "[:w ");
            datum(line, key);
            line.push(b' ');
            optional(line, value.as_ref());
        }
        StepAction::Read { key, value } => {
            text(line, "[:r ");
            datum(line, key);
            line.push(b' ');
            observed(line, value);
        }
    }
    line.push(b']');
}

fn observed(line: &mut Vec<u8>, value: &Observed) {
    match value {
        Observed::Nothing => text(line, "nil"),
        Observed::Value(value) => datum(line, value),
        Observed::List(elements) => {
            line.push(b'[');
            for (number, element) in elements.iter().enumerate() {
                if number > 0 {
                    line.push(b' ');
                }
                datum(line, element);
            }
            line.push(b']');
        }
    }
}

/// Appends the versions of all steps, unless none is known.
fn step_versions(line: &mut Vec<u8>, steps: &[Step]) {
    if steps.iter().all(|step| step.version.is_none()) {
        return;
    }
    let word = |version: Option<Version>| version.map_or_else(|| "nil".into(), |version| version.to_string());
    let words: Vec<String> = steps.iter().map(|step| word(step.version)).collect();
    text(line, &format!(", :versions [{}]", words.join(" ")));
}

fn scan_range(line: &mut Vec<u8>, range: &KeyRange) {
    text(line, ", :scan [");
    optional(line, range.start.as_ref());
    line.push(b' ');
    optional(line, range.end.as_ref());
    line.push(b']');
}

fn pair(line: &mut Vec<u8>, key: &Datum, value: Option<&Datum>) {
    line.push(b'[');
    datum(line, key);
    line.push(b' ');
    optional(line, value);
    line.push(b']');
}

fn optional(line: &mut Vec<u8>, value: Option<&Datum>) {
    match value {
        Some(value) => datum(line, value),
        None => text(line, "nil"),
    }
}

/// The bytes as text, if a string can show them and does not look like the hexadecimal form.
fn plain(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let shown = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    (text.chars().all(shown) && !text.starts_with(HEX_PREFIX)).then_some(text)
}

fn quoted(line: &mut Vec<u8>, content: &str) {
    line.push(b'"');
    for byte in content.bytes() {
        match byte {
            b'"' => text(line, "\\\""),
            b'\\' => text(line, "\\\\"),
            b'\n' => text(line, "\\n"),
            b'\r' => text(line, "\\r"),
            b'\t' => text(line, "\\t"),
            other => line.push(other),
        }
    }
    line.push(b'"');
}

fn text(line: &mut Vec<u8>, content: &str) {
    line.extend_from_slice(content.as_bytes());
}
