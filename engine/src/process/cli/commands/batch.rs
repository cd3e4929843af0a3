//! `batch`: lines of operations that are done together or not at all.
//!
//! ```text
//! put KEY VALUE [--ttl TIME] [--if-...]      as the command of the same name; `<<END` and open quotes go on below
//! delete KEY [--if-...]
//! add KEY [DELTA] [--ttl TIME] [--if-...]
//! check KEY --if-...                         nothing is written; only the condition counts
//! end                                        may be missing at the end of a file
//! ```
//!
//! Words are those of the shell ([`words`](super::super::words)), also in a file. All lines are read before
//! anything is sent, also behind one that is refused: none of them is a command of its own.

use std::io::BufReader;

use clap::{Args, Parser, Subcommand};
use ostrakon_client::{Action, BatchOperation, BatchReply};
use ostrakon_wire::limits::MULTI_MAX;
use serde_json::Map;

use super::super::failure::Failure;
use super::super::key::escape;
use super::super::output::{self, Format, Grid};
use super::super::requests::{
    AddArguments, BatchArguments, ConditionArguments, DeleteArguments, Key, KeyArgument, PutArguments,
    Spelling,
};
use super::super::transfer::open_input;
use super::super::words::{COMMAND_BYTES_MAX, CommandText, Words, WordsError, read_command};
use super::write::state;
use super::{Caller, Context, announce_stdin, read_line};

/// One line of a batch.
#[derive(Debug, Parser)]
#[command(
    name = "batch",
    no_binary_name = true,
    disable_help_flag = true,
    disable_help_subcommand = true
)]
struct Line {
    #[command(subcommand)]
    operation: Operation,
}

#[derive(Debug, Subcommand)]
enum Operation {
    /// Write a value.
    Put(PutArguments),
    /// Delete a key.
    Delete(DeleteArguments),
    /// Add to the number in a key.
    Add(ConditionalAddArguments),
    /// Write nothing, but do nothing of the batch unless the condition holds.
    Check(CheckArguments),
    /// That is all.
    End,
}

#[derive(Debug, Args)]
struct ConditionalAddArguments {
    #[command(flatten)]
    add: AddArguments,
    #[command(flatten)]
    condition: ConditionArguments,
}

#[derive(Debug, Args)]
struct CheckArguments {
    #[command(flatten)]
    key: KeyArgument,
    #[command(flatten)]
    condition: ConditionArguments,
}

/// An operation with bytes of its own.
#[derive(Debug)]
struct Owned {
    operation: Operation,
    value: Vec<u8>,
    expected_value: Option<Vec<u8>>,
    /// As it was typed, for messages.
    text: String,
}

/// `batch`.
pub(super) fn batch(
    arguments: &BatchArguments,
    context: &mut Context,
    caller: &mut dyn Caller,
) -> Result<(), Failure> {
    let operations = if let Some(path) = &arguments.file {
        let path = context.spelling.path(path)?;
        let interrupt = context.link.interrupt();
        let (input, _) = open_input(&path, interrupt)?;
        let (mut lines, place) = (BufReader::new(input), path.display().to_string());
        read_operations(|_| {
            let line = read_line(&mut lines, &place);
            interrupt.check().and(line)
        })?
    } else {
        if caller.owns_stdin() {
            announce_stdin("operations, one a line");
        }
        read_operations(|prompt| caller.next_line(prompt))?
    };
    if operations.is_empty() {
        return Err(Failure::Usage(
            "a batch without operations: give lines of put, delete, add or check before `end`".to_owned(),
        ));
    }
    let borrowed: Vec<BatchOperation<'_>> = operations.iter().map(Owned::borrow).collect();
    let reply = context.link.call(|client| client.batch(&borrowed))?;
    report(&reply, &operations, context.format)
}

/// Reads lines up to `end`, or to the end of the input. The refusal is of the first line that makes no sense.
fn read_operations(
    mut next_line: impl FnMut(&str) -> Result<Option<Vec<u8>>, Failure>,
) -> Result<Vec<Owned>, Failure> {
    let mut operations: Vec<Owned> = Vec::new();
    let mut refusal = None;
    let mut bytes_read = 0;
    let mut line_number = 1;
    loop {
        let prompt = |is_first| if is_first { "batch> " } else { "     > " };
        let Some(command) = read_command(|is_first| next_line(prompt(is_first)))? else {
            break;
        };
        // What follows may be the rest of it, an `end` included.
        let hides_the_end = command.words == Err(WordsError::Long);
        let is_cut_off = command.words == Ok(Words::Open);
        bytes_read += command.text.len();
        let outcome = match parse(&command) {
            Ok(Some(Operation::End)) => break,
            Ok(Some(_)) if bytes_read > COMMAND_BYTES_MAX || operations.len() == MULTI_MAX => Err(format!(
                "a batch has at most {MULTI_MAX} operations, and {COMMAND_BYTES_MAX} bytes of text"
            )),
            Ok(Some(operation)) => Owned::new(operation, &command.text).map(Some),
            Ok(None) => Ok(None),
            Err(sentence) => Err(sentence),
        };
        match outcome {
            Ok(operation) if refusal.is_none() => operations.extend(operation),
            Ok(_) => {}
            Err(sentence) => {
                refusal.get_or_insert_with(|| {
                    Failure::Usage(format!(
                        "nothing was done: line {line_number} of the batch: {sentence}"
                    ))
                });
            }
        }
        if hides_the_end {
            while next_line(prompt(false))?.is_some() {}
        }
        if hides_the_end || is_cut_off {
            break;
        }
        line_number += command.lines;
    }
    refusal.map_or(Ok(operations), Err)
}

/// Reads an operation; `None` for a line without words.
fn parse(command: &CommandText) -> Result<Option<Operation>, String> {
    let words = match &command.words {
        Ok(Words::Complete(words)) if words.is_empty() => return Ok(None),
        Ok(Words::Complete(words)) => words,
        Ok(Words::Open) => return Err("it does not end".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    let line = Line::try_parse_from(words).map_err(|error| first_line(&error))?;
    Ok(Some(line.operation))
}

/// The sentence of a refusal, without the advice below it.
fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let sentence = text.lines().next().unwrap_or_default();
    sentence.strip_prefix("error: ").unwrap_or(sentence).to_owned()
}

impl Owned {
    fn new(operation: Operation, text: &[u8]) -> Result<Owned, String> {
        let (value, condition) = match &operation {
            Operation::Put(put) => (put.value.as_ref(), Some(&put.condition)),
            Operation::Delete(delete) => (None, Some(&delete.condition)),
            Operation::Add(add) => (None, Some(&add.condition)),
            Operation::Check(check) => (None, Some(&check.condition)),
            Operation::End => (None, None),
        };
        if value.is_none() && matches!(operation, Operation::Put(_)) {
            return Err("put needs a value".to_owned());
        }
        let sentence = |failure: Failure| failure.to_string();
        let value = value.map(|word| Spelling::Escaped.bytes(word)).transpose();
        let expected_value = condition.map(|condition| condition.expected_value(Spelling::Escaped));
        Ok(Owned {
            value: value.map_err(sentence)?.unwrap_or_default(),
            expected_value: expected_value.transpose().map_err(sentence)?.flatten(),
            operation,
            text: escape(text),
        })
    }

    fn key(&self) -> &Key {
        match &self.operation {
            Operation::Put(put) => &put.key,
            Operation::Delete(delete) => &delete.key,
            Operation::Add(add) => &add.add.key,
            Operation::Check(check) => &check.key.key,
            Operation::End => unreachable!("the end is no operation"),
        }
    }

    fn borrow(&self) -> BatchOperation<'_> {
        let (action, condition) = match &self.operation {
            Operation::Put(put) => {
                let action = Action::Put {
                    value: &self.value,
                    ttl_ms: put.ttl.as_ms(),
                };
                (action, &put.condition)
            }
            Operation::Delete(delete) => (Action::Delete, &delete.condition),
            Operation::Add(add) => {
                let action = Action::Add {
                    delta: add.add.delta,
                    ttl_ms: add.add.ttl.as_ms(),
                };
                (action, &add.condition)
            }
            Operation::Check(check) => (Action::Check, &check.condition),
            Operation::End => unreachable!("the end is no operation"),
        };
        BatchOperation {
            key: &self.key().0,
            action,
            condition: condition.condition(self.expected_value.as_deref()),
        }
    }
}

/// Prints what became of a batch: its version, and the sums.
fn report(reply: &BatchReply, operations: &[Owned], format: Format) -> Result<(), Failure> {
    let is_add = |operation: &&Owned| matches!(operation.operation, Operation::Add(_));
    let mut sums = operations.iter().filter(is_add).zip(&reply.numbers);
    match format {
        Format::Json => {
            let mut object = Map::new();
            object.insert("applied".to_owned(), reply.applied.into());
            output::insert_version(&mut object, reply.version);
            if reply.applied {
                object.insert("numbers".to_owned(), reply.numbers.clone().into());
            } else {
                object.insert("failed".to_owned(), reply.failed.into());
            }
            output::json_line(&object)?;
        }
        _ if !reply.applied => {}
        Format::Text => {
            output::text(&format!("version {}\n", reply.version))?;
            sums.try_for_each(|(add, sum)| output::text(&format!("{}\t{sum}\n", escape(&add.key().0))))?;
        }
        Format::Table => {
            output::text(&format!("version {}\n", reply.version))?;
            let mut grid = Grid::new(&["key", "sum"]);
            sums.for_each(|(add, sum)| grid.row([escape(&add.key().0), sum.to_string()]));
            if !grid.is_empty() {
                grid.print()?;
            }
        }
    }
    if reply.applied {
        return Ok(());
    }
    let Some(failed) = operations.get(reply.failed as usize) else {
        return Err(Failure::ConditionFailed(
            "nothing was written: a condition of the batch does not hold".to_owned(),
        ));
    };
    Err(Failure::ConditionFailed(format!(
        "nothing was written: the condition of `{}` does not hold: {}",
        failed.text,
        state(&failed.key().0, reply.version)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ostrakon_client::Condition;

    fn read(text: &str) -> Result<Vec<Owned>, Failure> {
        let mut lines = text.lines().map(|line| line.as_bytes().to_vec());
        read_operations(|_| Ok(lines.next()))
    }

    #[test]
    fn lines_become_operations() {
        let text = "# a comment\nput a 'two\nlines' --ttl 1s --if-absent\n\nput b <<E\n1\nE\ndelete c --if-version 7\n\
                    add d -5\nadd e --if-value '5'\ncheck f --if-present\nend\nnot read";
        let operations = read(text).unwrap();
        let borrowed: Vec<BatchOperation<'_>> = operations.iter().map(Owned::borrow).collect();
        let operation = |key, action, condition| BatchOperation {
            key,
            action,
            condition,
        };
        let (two_lines, one): (&[u8], &[u8]) = (b"two\nlines", b"1");
        assert_eq!(
            borrowed,
            [
                operation(
                    b"a",
                    Action::Put {
                        value: two_lines,
                        ttl_ms: 1_000
                    },
                    Condition::Absent
                ),
                operation(
                    b"b",
                    Action::Put {
                        value: one,
                        ttl_ms: 0
                    },
                    Condition::None
                ),
                operation(b"c", Action::Delete, Condition::Version(7)),
                operation(b"d", Action::Add { delta: -5, ttl_ms: 0 }, Condition::None),
                operation(b"e", Action::Add { delta: 1, ttl_ms: 0 }, Condition::Value(b"5")),
                operation(b"f", Action::Check, Condition::Present),
            ]
        );
    }

    #[test]
    fn the_end_of_the_input_ends_a_batch_but_not_an_operation() {
        assert_eq!(read("delete a").unwrap().len(), 1);
        assert!(read("").unwrap().is_empty());
        let refusal = read("delete a\nput b 'x").unwrap_err();
        assert!(
            refusal
                .to_string()
                .contains("line 2 of the batch: it does not end"),
            "{refusal}"
        );
    }

    #[test]
    fn a_bad_line_is_named_and_nothing_is_done() {
        for (text, words) in [
            (
                "delete a\n\nget b",
                "line 3 of the batch: unrecognized subcommand 'get'",
            ),
            ("put a", "line 1 of the batch: put needs a value"),
            (
                "put a b\nput a\\q",
                "line 2 of the batch: the backslash at byte 5",
            ),
            ("add a x", "line 1 of the batch: invalid value 'x'"),
        ] {
            let refusal = read(text).unwrap_err();
            assert!(refusal.to_string().contains(words), "no '{words}' in: {refusal}");
            assert!(refusal.to_string().contains("nothing was done"), "{refusal}");
            assert_eq!(refusal.exit_code(), 2);
        }
        assert_eq!(
            read(&("delete a\n".repeat(MULTI_MAX) + "\n")).unwrap().len(),
            MULTI_MAX
        );
        let many = "delete a\n".repeat(MULTI_MAX + 1);
        assert!(
            read(&many)
                .unwrap_err()
                .to_string()
                .contains("at most 1024 operations")
        );
    }

    #[test]
    fn a_refused_batch_is_read_up_to_its_end() {
        for (text, left) in [
            ("get a\ndelete b\nend\nquit", 1),
            ("put a \"\\q\nend\n\"\nend\nquit\nquit", 2),
            ("add a x\ndelete b", 0),
        ] {
            let mut lines = text.lines().map(|line| line.as_bytes().to_vec());
            assert!(read_operations(|_| Ok(lines.next())).is_err());
            assert_eq!(lines.count(), left, "{text}");
        }
    }
}
