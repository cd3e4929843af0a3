//! Reads a history from its EDN text, one event at a time, and says at which line something else was expected.
//!
//! The EDN itself is read by the crate `clojure-reader`: it is kept up, has no dependency, keeps its stack on
//! the heap whatever the nesting, and reads 100,000 lines within a second (`edn-rs` is deprecated, `edn-format`
//! gives no positions). What an event must look like is decided here. Entries that are not known are skipped,
//! so that histories of other recorders can be read; a known entry of another shape is an error.

use std::error::Error;
use std::fmt;

use clojure_reader::edn::{self, Edn};

use super::write::HEX_PREFIX;
use super::{
    Action, Condition, Datum, Event, EventKind, Failure, KeyRange, Observed, Process, Step, StepAction,
    Version,
};

/// Text that is no history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// Line on which the event begins, or where the EDN breaks; from 1.
    pub line: usize,
    /// What was expected, and what was found.
    pub reason: String,
}

impl fmt::Display for ReadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}: {}", self.line, self.reason)
    }
}

impl Error for ReadError {}

/// See [`super::History::parse`].
pub(super) fn events(text: &str) -> Result<Vec<Event>, ReadError> {
    let mut events = Vec::new();
    let mut line = 1;
    let mut rest = skip_blank(text, &mut line);
    let in_vector = rest.starts_with('[');
    if in_vector {
        rest = skip_blank(&rest[1..], &mut line);
    }
    while !(rest.is_empty() || (in_vector && rest.starts_with(']'))) {
        let (form, after) = edn::read(rest).map_err(|error| ReadError {
            line: line + error.line.map_or(0, |own| own - 1),
            reason: format!("expected EDN: {:?}", error.code),
        })?;
        match event(&form, events.len() as u64) {
            Ok(Some(event)) => events.push(event),
            Ok(None) => (),
            Err(reason) => return Err(ReadError { line, reason }),
        }
        line += newlines(&rest[..rest.len() - after.len()]);
        rest = skip_blank(after, &mut line);
    }
    let past = if in_vector {
        rest.strip_prefix(']')
    } else {
        Some(rest)
    };
    match past.map(|past| skip_blank(past, &mut line)) {
        Some("") => Ok(events),
        Some(_) => Err(ReadError {
            line,
            reason: "expected nothing after the vector of events".into(),
        }),
        None => Err(ReadError {
            line,
            reason: "expected `]` at the end of the vector of events".into(),
        }),
    }
}

/// Skips white space, commas and comments.
fn skip_blank<'t>(text: &'t str, line: &mut usize) -> &'t str {
    let mut rest = text;
    loop {
        let after = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        *line += newlines(&rest[..rest.len() - after.len()]);
        if !after.starts_with(';') {
            return after;
        }
        rest = after.find('\n').map_or("", |end| &after[end..]);
    }
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

/// Reads one event; none if its process is not a number.
fn event(form: &Edn<'_>, place: u64) -> Result<Option<Event>, String> {
    if !matches!(form, Edn::Map(_)) {
        return Err(format!(
            "expected an event `{{:index 0, ...}}`, found {}",
            brief(form)
        ));
    }
    let process = match entry(form, "process") {
        Some(Edn::Key(name)) if name == "again" => Process::AGAIN,
        Some(Edn::Key(_) | Edn::Str(_)) => return Ok(None),
        given => Process(natural(given, "process")?),
    };
    let kind = match keyword(entry(form, "type")) {
        Some("invoke") => EventKind::Invoke,
        Some("ok") => EventKind::Ok,
        Some("fail") => EventKind::Fail,
        Some("info") => EventKind::Info,
        _ => {
            return Err(wrong(
                entry(form, "type"),
                ":type of :invoke, :ok, :fail or :info",
            ));
        }
    };
    let action = action(form)?;
    // A transaction tells it step by step.
    let expires = entry(form, "expires").filter(|_| !matches!(action, Action::Transaction { .. }));
    let failed_step = number(entry(form, "failed"), "failed")?;
    Ok(Some(Event {
        index: entry(form, "index").map_or(Ok(place), |given| natural(Some(given), "index"))?,
        time_ns: natural(entry(form, "time"), "time")?,
        kind,
        process,
        action,
        condition: condition(entry(form, "if"))?,
        version: version(entry(form, "version"))?,
        failure: entry(form, "error").map(failure),
        lifetime: number(entry(form, "lifetime"), "lifetime")?,
        expires: number(expires, "expires")?,
        clock: entry(form, "clock").map(clock).transpose()?,
        failed_step: failed_step.map(|step| step as u32),
        again_of: number(entry(form, "of"), "of")?,
    }))
}

fn clock(form: &Edn<'_>) -> Result<(u64, u64), String> {
    match form {
        Edn::Vector(both) | Edn::List(both) if both.len() == 2 => Ok((
            natural(Some(&both[0]), "clock")?,
            natural(Some(&both[1]), "clock")?,
        )),
        other => Err(wrong(Some(other), ":clock of `[from to]`")),
    }
}

fn action(form: &Edn<'_>) -> Result<Action, String> {
    let value = entry(form, "value");
    let function = entry(form, "f");
    let name = match function {
        Some(Edn::Key(name) | Edn::Str(name)) => &**name,
        _ => "",
    };
    Ok(match name {
        "read" => {
            let (key, value) = pair(value)?;
            let value = optional(value)?;
            Action::Read { key, value }
        }
        "write" => {
            let (key, value) = pair(value)?;
            let value = datum(value)?;
            Action::Write { key, value }
        }
        "delete" => {
            let (key, value) = pair(value)?;
            match value {
                Edn::Nil => Action::Delete { key },
                other => return Err(wrong(Some(other), "`[key nil]` as the value of a delete")),
            }
        }
        "cas" => {
            let (key, value) = pair(value)?;
            let (Edn::Vector(both) | Edn::List(both)) = value else {
                return Err(wrong(Some(value), "`[key [old new]]` as the value of a cas"));
            };
            let [old, new] = &both[..] else {
                return Err(wrong(Some(value), "`[old new]`"));
            };
            let (old, new) = (optional(old)?, datum(new)?);
            Action::CompareAndSet { key, old, new }
        }
        "add" => {
            let (key, value) = pair(value)?;
            let delta = integer(value)?;
            let result = entry(form, "result").map_or(Ok(None), optional_integer)?;
            Action::Add { key, delta, result }
        }
        "check" => {
            let (key, value) = pair(value)?;
            match value {
                Edn::Nil => Action::Check { key },
                other => return Err(wrong(Some(other), "`[key nil]` as the value of a check")),
            }
        }
        "txn" => Action::Transaction {
            steps: steps(value, form)?,
            scan: entry(form, "scan").map(scan).transpose()?,
        },
        _ => {
            return Err(wrong(
                function,
                ":f of :read, :write, :cas, :delete, :add, :check or :txn",
            ));
        }
    })
}

fn steps(value: Option<&Edn<'_>>, form: &Edn<'_>) -> Result<Vec<Step>, String> {
    let mut steps = match value {
        Some(Edn::Vector(forms) | Edn::List(forms)) => {
            forms.iter().map(step).collect::<Result<Vec<_>, _>>()?
        }
        None | Some(Edn::Nil) => Vec::new(),
        other => return Err(wrong(other, "a vector of steps as the value of a txn")),
    };
    of_each(&mut steps, form, "versions", |step, given| {
        step.version = version(Some(given))?;
        Ok(())
    })?;
    of_each(&mut steps, form, "results", |step, given| {
        if let StepAction::Add { result, .. } = &mut step.action {
            *result = optional_integer(given)?;
        }
        Ok(())
    })?;
    of_each(&mut steps, form, "ifs", |step, given| {
        step.condition = condition(Some(given))?;
        Ok(())
    })?;
    of_each(&mut steps, form, "lifetimes", |step, given| {
        step.lifetime = number(Some(given), "lifetimes")?;
        Ok(())
    })?;
    of_each(&mut steps, form, "expires", |step, given| {
        step.expires = number(Some(given), "expires")?;
        Ok(())
    })?;
    Ok(steps)
}

/// Takes over a vector that has an entry for each step.
fn of_each(
    steps: &mut [Step],
    form: &Edn<'_>,
    name: &str,
    mut take: impl FnMut(&mut Step, &Edn<'_>) -> Result<(), String>,
) -> Result<(), String> {
    match entry(form, name) {
        None | Some(Edn::Nil) => Ok(()),
        Some(Edn::Vector(given) | Edn::List(given)) if given.len() == steps.len() => steps
            .iter_mut()
            .zip(given)
            .try_for_each(|(step, given)| take(step, given)),
        other => Err(wrong(other, &format!("as many :{name} as steps"))),
    }
}

fn step(form: &Edn<'_>) -> Result<Step, String> {
    let expected = "`[:append key element]`, `[:r key value]`, `[:w key value]`, `[:add key delta]` or \
                    `[:check key nil]`";
    let (Edn::Vector(parts) | Edn::List(parts)) = form else {
        return Err(wrong(Some(form), expected));
    };
    let [name, key, value] = &parts[..] else {
        return Err(wrong(Some(form), expected));
    };
    let key = datum(key)?;
    let action = match keyword(Some(name)) {
        Some("append") => {
            let element = datum(value)?;
            StepAction::Append { key, element }
        }
        Some("w") => {
            let value = optional(value)?;
            StepAction::Write { key, value }
        }
        Some("add") => StepAction::Add {
            key,
            delta: integer(value)?,
            result: None,
        },
        Some("check") => StepAction::Check { key },
        Some("r") => {
            let value = match value {
                Edn::Nil => Observed::Nothing,
                Edn::Vector(list) | Edn::List(list) => {
                    Observed::List(list.iter().map(datum).collect::<Result<_, _>>()?)
                }
                single => Observed::Value(datum(single)?),
            };
            StepAction::Read { key, value }
        }
        _ => return Err(wrong(Some(name), expected)),
    };
    Ok(Step::new(action))
}

fn scan(form: &Edn<'_>) -> Result<KeyRange, String> {
    match form {
        Edn::Vector(both) | Edn::List(both) if both.len() == 2 => Ok(KeyRange {
            start: optional(&both[0])?,
            end: optional(&both[1])?,
        }),
        other => Err(wrong(
            Some(other),
            ":scan of `[start end]`, with nil for open ends",
        )),
    }
}

fn condition(form: Option<&Edn<'_>>) -> Result<Condition, String> {
    match form {
        None | Some(Edn::Nil) => Ok(Condition::None),
        Some(Edn::Key(name)) if name == "absent" => Ok(Condition::Absent),
        Some(Edn::Key(name)) if name == "present" => Ok(Condition::Present),
        Some(Edn::Vector(parts)) if parts.len() == 2 && keyword(parts.first()) == Some("version") => {
            Ok(Condition::Version(Version(natural(parts.get(1), "if")?)))
        }
        Some(Edn::Vector(parts)) if parts.len() == 2 && keyword(parts.first()) == Some("value") => {
            Ok(Condition::Value(datum(&parts[1])?))
        }
        other => Err(wrong(
            other,
            ":if of :absent, :present, `[:version 7]` or `[:value 5]`",
        )),
    }
}

fn failure(form: &Edn<'_>) -> Failure {
    match form {
        Edn::Key(name) if name == "condition" => Failure::Condition,
        Edn::Key(name) if name == "not-a-number" => Failure::NotANumber,
        Edn::Key(name) if name == "overflow" => Failure::Overflow,
        Edn::Str(reason) => Failure::Other(reason.to_string()),
        other => Failure::Other(other.to_string()),
    }
}

/// Splits `[key value]`; some recorders write a list.
fn pair<'f, 'e>(form: Option<&'f Edn<'e>>) -> Result<(Datum, &'f Edn<'e>), String> {
    match form {
        Some(Edn::Vector(parts) | Edn::List(parts)) if parts.len() == 2 => Ok((datum(&parts[0])?, &parts[1])),
        other => Err(wrong(other, ":value of `[key value]`")),
    }
}

fn optional(form: &Edn<'_>) -> Result<Option<Datum>, String> {
    match form {
        Edn::Nil => Ok(None),
        present => datum(present).map(Some),
    }
}

fn datum(form: &Edn<'_>) -> Result<Datum, String> {
    match form {
        Edn::Int(number) => Ok(Datum::Integer(*number)),
        Edn::Str(text) => match text.strip_prefix(HEX_PREFIX) {
            None => Ok(Datum::from(&**text)),
            Some(digits) => bytes(digits)
                .map(|bytes| Datum::from(&bytes[..]))
                .ok_or_else(|| wrong(Some(form), "pairs of hexadecimal digits after `0x`")),
        },
        other => Err(wrong(Some(other), "an integer or a string as key or value")),
    }
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    let nibble = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits
        .chunks(2)
        .map(|both| Some(nibble(both[0])? << 4 | nibble(both[1])?))
        .collect()
}

fn version(form: Option<&Edn<'_>>) -> Result<Option<Version>, String> {
    Ok(number(form, "version")?.map(Version))
}

fn integer(form: &Edn<'_>) -> Result<i64, String> {
    match form {
        Edn::Int(number) => Ok(*number),
        other => Err(wrong(Some(other), "an integer")),
    }
}

fn optional_integer(form: &Edn<'_>) -> Result<Option<i64>, String> {
    match form {
        Edn::Nil => Ok(None),
        given => integer(given).map(Some),
    }
}

/// A whole number from 0 that need not be there.
fn number(form: Option<&Edn<'_>>, name: &str) -> Result<Option<u64>, String> {
    match form {
        None | Some(Edn::Nil) => Ok(None),
        given => natural(given, name).map(Some),
    }
}

fn natural(form: Option<&Edn<'_>>, name: &str) -> Result<u64, String> {
    match form {
        Some(Edn::Int(number)) if *number >= 0 => Ok(number.unsigned_abs()),
        other => Err(wrong(other, &format!(":{name} as a whole number from 0"))),
    }
}

fn entry<'f, 'e>(map: &'f Edn<'e>, name: &str) -> Option<&'f Edn<'e>> {
    let Edn::Map(entries) = map else { return None };
    entries
        .iter()
        .find(|(key, _)| keyword(Some(key)) == Some(name))
        .map(|(_, value)| value)
}

fn keyword<'f>(form: Option<&'f Edn<'_>>) -> Option<&'f str> {
    match form {
        Some(Edn::Key(name)) => Some(&**name),
        _ => None,
    }
}

fn wrong(found: Option<&Edn<'_>>, expected: &str) -> String {
    match found {
        Some(found) => format!("expected {expected}, found {}", brief(found)),
        None => format!("expected {expected}, found no such entry"),
    }
}

/// The start of a form's text.
fn brief(form: &Edn<'_>) -> String {
    const SHOWN_CHARS: usize = 60;
    let text = form.to_string();
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
