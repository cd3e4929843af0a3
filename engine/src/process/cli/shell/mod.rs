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
use line::{ShellCommand, Switch};

use super::Outcome;
use super::arguments::ShellArguments;
use super::commands::{Caller, Context, execute, read_line};
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::link::Link;
use super::output::{self, Format};
use super::requests::Spelling;
use super::words::{Words, WordsError, read_command};

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
    };
    if is_interactive {
        shell.converse()
    } else {
        shell.obey(arguments.keep_going)
    }
}

/// What a command was split into.
type Split = Result<Words, WordsError>;

/// What a command leaves to do.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Go,
    Quit,
}

struct Shell {
    context: Context,
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
            let words = match editor.command(&prompt)? {
                Input::Command(words) => words,
                Input::Cancelled => continue,
                Input::End => break,
            };
            self.context.link.command_begins();
            let done = self.run(words, &mut editor);
            self.context.link.command_ended();
            let is_cancelled =
                self.context.link.interrupt().is_raised() || matches!(done, Err(Failure::Interrupted(_)));
            match done {
                Ok(Next::Go) | Err(Failure::OutputClosed) => {}
                Ok(Next::Quit) => break,
                Err(failure) => eprintln!("{failure}"),
            }
            if is_cancelled {
                editor.drop_lines();
            }
        }
        Ok(Outcome::Done)
    }

    /// From a pipe.
    fn obey(mut self, keep_going: bool) -> Result<Outcome, Failure> {
        let mut pipe = Pipe { line_number: 0 };
        let mut first_failure = None;
        while let Some((line_number, words)) = pipe.command()? {
            let failure = match self.run(words, &mut pipe) {
                Ok(Next::Go) => continue,
                Ok(Next::Quit) => break,
                Err(Failure::OutputClosed) => return Err(Failure::OutputClosed),
                Err(failure) => failure.at_line(line_number),
            };
            if !keep_going {
                return Err(failure);
            }
            eprintln!("ostrakon: {failure}");
            first_failure.get_or_insert(failure.exit_code());
        }
        Ok(first_failure.map_or(Outcome::Done, Outcome::FailedBefore))
    }

    fn run(&mut self, words: Split, caller: &mut dyn Caller) -> Result<Next, Failure> {
        let words = match words.map_err(|error| Failure::Usage(error.to_string()))? {
            Words::Complete(words) if words.is_empty() => return Ok(Next::Go),
            Words::Complete(words) => words,
            Words::Open => return Err(Failure::Usage("the command does not end".to_owned())),
        };
        let Some(line) = line::parse(&words)? else {
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

/// Commands from stdin, which is no terminal.
#[derive(Debug)]
struct Pipe {
    /// Of the line read last.
    line_number: u64,
}

impl Pipe {
    /// The words of the next command, and the number of its first line.
    fn command(&mut self) -> Result<Option<(u64, Split)>, Failure> {
        let first = self.line_number + 1;
        let command = read_command(|_| self.next_line(""))?;
        match command.map(|command| command.words) {
            None => Ok(None),
            // What follows may be the rest of it, and no commands.
            Some(Err(error @ WordsError::Long)) => Err(Failure::Usage(error.to_string()).at_line(first)),
            Some(words) => Ok(Some((first, words))),
        }
    }
}

impl Caller for Pipe {
    fn owns_stdin(&self) -> bool {
        false
    }

    fn next_line(&mut self, _prompt: &str) -> Result<Option<Vec<u8>>, Failure> {
        self.line_number += 1;
        read_line(&mut io::stdin().lock())
    }

    fn wants_more(&mut self, _lines: u64) -> Result<bool, Failure> {
        Ok(true)
    }
}
