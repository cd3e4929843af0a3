//! `ostrakon shell`: commands from a person at a terminal, or line by line from a pipe.
//!
//! At a terminal: a prompt, a history, completion, tables; what fails is said and the shell goes on; Ctrl-C ends the
//! running command, Ctrl-D the shell. From a pipe: no prompt; the first command that fails ends the shell with its exit
//! code, unless that is not wanted.

mod editor;
mod history;
mod line;

use std::io::{self, IsTerminal};
use std::sync::Arc;

use editor::{Editor, Input};
use line::{Parsed, ShellCommand, Switch};

use super::Outcome;
use super::arguments::ShellArguments;
use super::commands::{Caller, Context, execute, read_line};
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::link::Link;
use super::output::{self, Format};
use super::requests::Spelling;
use super::words::{CommandText, Words, WordsError, read_command};

/// Runs commands to the end of the input.
pub(super) fn shell(arguments: &ShellArguments) -> Result<Outcome, Failure> {
    let is_interactive = io::stdin().is_terminal() && io::stdout().is_terminal();
    let format = match (arguments.print.json, is_interactive) {
        (true, _) => Format::Json,
        (false, true) => Format::Table,
        (false, false) => Format::Text,
    };
    let interrupt = if is_interactive {
        Interrupt::install().map_err(|error| Failure::Failed(format!("cannot catch Ctrl-C: {error}")))?
    } else {
        Arc::new(Interrupt::default())
    };
    let shell = Shell {
        context: Context {
            link: Link::new(&arguments.connect, interrupt),
            format,
            timing: arguments.print.timing,
            spelling: Spelling::Escaped,
        },
        may_have_lines: false,
    };
    if is_interactive {
        shell.converse()
    } else {
        shell.obey(arguments.keep_going)
    }
}

/// What a command leaves to do.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Go,
    Quit,
}

struct Shell {
    context: Context,
    /// Was the command that was refused last a `batch`, whose lines may follow?
    may_have_lines: bool,
}

impl Shell {
    /// At a terminal.
    fn converse(mut self) -> Result<Outcome, Failure> {
        let mut editor = Editor::new()?;
        println!(
            "ostrakon {}: `help` lists the commands, Ctrl-D ends.",
            crate::process::version::RELEASE
        );
        if let Err(failure) = self.context.link.connect() {
            eprintln!("{failure}; or `connect HOST:PORT`");
        }
        loop {
            let prompt = format!("{}> ", self.context.link.address());
            let command = match editor.command(&prompt)? {
                Input::Command(command) => command,
                Input::Cancelled => continue,
                Input::End => break,
            };
            self.context.link.command_begins();
            let done = self.run(&command, &mut editor);
            self.context.link.command_ended();
            let is_cancelled =
                self.context.link.interrupt().is_raised() || matches!(done, Err(Failure::Interrupted(_)));
            match done {
                Ok(Next::Go) | Err(Failure::OutputClosed) => {}
                Ok(Next::Quit) => break,
                Err(failure) => eprintln!("{failure}"),
            }
            if is_cancelled || self.may_have_lines {
                editor.drop_lines();
            }
        }
        Ok(Outcome::Done)
    }

    /// From a pipe.
    fn obey(mut self, keep_going: bool) -> Result<Outcome, Failure> {
        let mut pipe = Pipe { line_number: 0 };
        let mut first_failure = None;
        while let Some((line_number, command)) = pipe.command()? {
            let failure = match self.run(&command, &mut pipe) {
                Ok(Next::Go) => continue,
                Err(Failure::OutputClosed) if first_failure.is_none() => return Err(Failure::OutputClosed),
                Ok(Next::Quit) | Err(Failure::OutputClosed) => break,
                Err(failure) => failure.at_line(line_number),
            };
            if !keep_going {
                return Err(failure);
            }
            eprintln!("ostrakon: {failure}");
            first_failure.get_or_insert(failure.exit_code());
            if self.may_have_lines {
                eprintln!("ostrakon: what follows may be lines of that batch, and is not run");
                break;
            }
        }
        Ok(first_failure.map_or(Outcome::Done, Outcome::FailedBefore))
    }

    fn run(&mut self, command: &CommandText, caller: &mut dyn Caller) -> Result<Next, Failure> {
        let parsed = parse(command);
        self.may_have_lines = parsed.is_err() && command.name.as_deref() == Some("batch");
        let Some(line) = parsed? else {
            return Ok(Next::Go);
        };
        match line.command {
            ShellCommand::Client(command) => {
                let before = (self.context.format, self.context.timing);
                if line.print.json {
                    self.context.format = Format::Json;
                }
                self.context.timing |= line.print.timing;
                let done = execute(&command, &mut self.context, caller);
                (self.context.format, self.context.timing) = before;
                done.map(|_| Next::Go)
            }
            ShellCommand::Timing { switch } => {
                if let Some(switch) = switch {
                    self.context.timing = switch == Switch::On;
                }
                let now = if self.context.timing { "on" } else { "off" };
                output::text(&format!("timing is {now}\n")).map(|()| Next::Go)
            }
            ShellCommand::Output { format } => {
                if let Some(format) = format {
                    self.context.format = format;
                }
                let now = match self.context.format {
                    Format::Table => "tables",
                    Format::Text => "lines of text",
                    Format::Json => "JSON",
                };
                output::text(&format!("output is {now}\n")).map(|()| Next::Go)
            }
            ShellCommand::Connect { address } => {
                self.context.link.move_to(&address)?;
                Ok(Next::Go)
            }
            ShellCommand::Quit => Ok(Next::Quit),
        }
    }
}

/// Reads a command; `None` if there is nothing to do.
fn parse(command: &CommandText) -> Result<Option<Parsed>, Failure> {
    match &command.words {
        Ok(Words::Complete(words)) if words.is_empty() => Ok(None),
        Ok(Words::Complete(words)) => line::parse(words),
        Ok(Words::Open) => Err(Failure::Usage("the command does not end".to_owned())),
        Err(error) => Err(Failure::Usage(error.to_string())),
    }
}

/// Commands from stdin, which is no terminal.
#[derive(Debug)]
struct Pipe {
    /// Of the line read last.
    line_number: u64,
}

impl Pipe {
    /// The next command, and the number of its first line.
    fn command(&mut self) -> Result<Option<(u64, CommandText)>, Failure> {
        let first = self.line_number + 1;
        let Some(command) = read_command(|_| self.next_line(""))? else {
            return Ok(None);
        };
        match command.words {
            // What follows may be the rest of it, and no commands.
            Err(error @ WordsError::Long) => Err(Failure::Usage(error.to_string()).at_line(first)),
            _ => Ok(Some((first, command))),
        }
    }
}

impl Caller for Pipe {
    fn owns_stdin(&self) -> bool {
        false
    }

    fn next_line(&mut self, _prompt: &str) -> Result<Option<Vec<u8>>, Failure> {
        self.line_number += 1;
        read_line(&mut io::stdin().lock(), "stdin")
    }

    fn wants_more(&mut self, _lines: u64) -> Result<bool, Failure> {
        Ok(true)
    }
}
