//! Writes events as EDN, one map per line, in the form that `docs/histories.md` describes.
//!
//! The form is fixed to the byte, so that another writer can be compared with this one: keys in one order,
//! `, ` between entries, one space inside vectors. It never fails for what an event holds; bytes that are no
//! plain text become hexadecimal.

use std::io::{self, Write};

use super::{
    Action, Condition, Datum, Event, EventKind, Failure, KeyRange, Observed, Process, Step, StepAction,
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
    let time_ns = event.time_ns;
    let process = if event.process == Process::AGAIN {
        ":again".to_owned()
    } else {
        event.process.to_string()
    };
    let function = function(&event.action);
    text(
        line,
        &format!(
            "{{:index {index}, :time {time_ns}, :type :{kind}, :process {process}, :f :{function}, :value "
        ),
    );
    value(line, &event.action);
    if event.condition != Condition::None {
        text(line, ", :if ");
        condition(line, &event.condition);
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
        step_entries(line, steps);
        if let Some(range) = scan {
            scan_range(line, range);
        }
    }
    number(line, "lifetime", event.lifetime);
    number(line, "expires", event.expires);
    if let Some((from, to)) = event.clock {
        text(line, &format!(", :clock [{from} {to}]"));
    }
    number(line, "failed", event.failed_step.map(u64::from));
    number(line, "of", event.again_of);
    match &event.failure {
        None => (),
        Some(Failure::Condition) => text(line, ", :error :condition"),
        Some(Failure::NotANumber) => text(line, ", :error :not-a-number"),
        Some(Failure::Overflow) => text(line, ", :error :overflow"),
        Some(Failure::Other(reason)) => {
            text(line, ", :error ");
            quoted(line, reason);
        }
    }
    text(line, "}\n");
}

/// Appends an entry that not every event has.
fn number(line: &mut Vec<u8>, name: &str, number: Option<u64>) {
    if let Some(number) = number {
        text(line, &format!(", :{name} {number}"));
    }
}

fn condition(line: &mut Vec<u8>, condition: &Condition) {
    match condition {
        Condition::None => text(line, "nil"),
        Condition::Absent => text(line, ":absent"),
        Condition::Present => text(line, ":present"),
        Condition::Version(version) => text(line, &format!("[:version {version}]")),
        Condition::Value(value) => {
            text(line, "[:value ");
            datum(line, value);
            line.push(b']');
        }
    }
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
        Action::Check { .. } => "check",
        Action::Transaction { .. } => "txn",
    }
}

fn value(line: &mut Vec<u8>, action: &Action) {
    match action {
        Action::Read { key, value } => pair(line, key, value.as_ref()),
        Action::Write { key, value } => pair(line, key, Some(value)),
        Action::Delete { key } | Action::Check { key } => pair(line, key, None),
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
        StepAction::Add { key, delta, .. } => {
            text(line, "[:add ");
            datum(line, key);
            text(line, &format!(" {delta}"));
        }
        StepAction::Check { key } => {
            text(line, "[:check ");
            datum(line, key);
            text(line, " nil");
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

/// Appends what is known of each step, in vectors beside the steps, unless nothing is known of any.
fn step_entries(line: &mut Vec<u8>, steps: &[Step]) {
    entries(line, "versions", steps, |step| {
        step.version.map(|version| version.to_string())
    });
    entries(line, "results", steps, |step| match step.action {
        StepAction::Add { result, .. } => result.map(|sum| sum.to_string()),
        _ => None,
    });
    entries(line, "ifs", steps, |step| {
        (step.condition != Condition::None).then(|| {
            let mut word = Vec::new();
            condition(&mut word, &step.condition);
            String::from_utf8_lossy(&word).into_owned()
        })
    });
    entries(line, "lifetimes", steps, |step| {
        step.lifetime.map(|lifetime| lifetime.to_string())
    });
    entries(line, "expires", steps, |step| {
        step.expires.map(|expires| expires.to_string())
    });
}

fn entries(line: &mut Vec<u8>, name: &str, steps: &[Step], word: impl Fn(&Step) -> Option<String>) {
    let words: Vec<Option<String>> = steps.iter().map(word).collect();
    if words.iter().any(Option::is_some) {
        let words: Vec<String> = words
            .into_iter()
            .map(|word| word.unwrap_or_else(|| "nil".into()))
            .collect();
        text(line, &format!(", :{name} [{}]", words.join(" ")));
    }
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
