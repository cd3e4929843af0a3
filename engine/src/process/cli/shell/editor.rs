//! The shell at a terminal: lines with editing, history, completion and hints, and the questions that it asks.
//!
//! What is pasted can have several lines. Each is taken as if it had been typed: as a command, as a part of one, or as
//! a line that the running command asks for.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::path::PathBuf;

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Helper};

use super::super::commands::Caller;
use super::super::failure::Failure;
use super::super::words::{CommandText, is_open, read_command};
use super::{history, line};

/// Commands that the history keeps.
const HISTORY_ENTRIES: usize = 10_000;
/// Longest command that the history keeps, in bytes.
const HISTORY_ENTRY_BYTES_MAX: usize = 4096;

/// What a person wants next.
#[derive(Debug)]
pub(super) enum Input {
    /// A command.
    Command(CommandText),
    /// Ctrl-C.
    Cancelled,
    /// Ctrl-D.
    End,
}

/// What a person has typed.
#[derive(Debug)]
enum Typed {
    /// Text up to Enter, perhaps of several lines.
    Text(String),
    /// Ctrl-C.
    Cancelled,
    /// Ctrl-D.
    End,
}

/// The terminal.
pub(super) struct Editor {
    lines: rustyline::Editor<Assistant, FileHistory>,
    /// What was typed and not yet taken.
    waiting: VecDeque<Vec<u8>>,
    history: Option<PathBuf>,
}

impl Editor {
    pub(super) fn new() -> Result<Editor, Failure> {
        let config = Config::builder()
            .max_history_size(HISTORY_ENTRIES)
            .map_err(|error| terminal(&error))?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .build();
        let mut lines = rustyline::Editor::with_config(config).map_err(|error| terminal(&error))?;
        lines.set_helper(Some(Assistant {
            is_command: true,
            files: FilenameCompleter::new(),
        }));
        let history = history::prepare().unwrap_or_else(|error| {
            eprintln!("no history is kept: {error}");
            None
        });
        if let Some(path) = &history
            && let Err(error) = lines.load_history(path)
        {
            eprintln!("the history {} can't be read: {error}", path.display());
        }
        Ok(Editor {
            lines,
            waiting: VecDeque::new(),
            history,
        })
    }

    /// The next command.
    pub(super) fn command(&mut self, prompt: &str) -> Result<Input, Failure> {
        if self.waiting.is_empty() {
            match self.ask(prompt, true)? {
                Typed::Text(text) => {
                    self.remember(&text);
                    self.wait_in_line(&text);
                }
                Typed::Cancelled => return Ok(Input::Cancelled),
                Typed::End => return Ok(Input::End),
            }
        }
        let command = read_command::<Failure>(|_| Ok(self.waiting.pop_front()))?;
        let command = command.expect("a text has at least one line");
        Ok(Input::Command(command))
    }

    /// Forgets the lines behind a command that was cancelled, or that they may belong to.
    pub(super) fn drop_lines(&mut self) {
        let has_text = |line: &&Vec<u8>| !line.trim_ascii().is_empty();
        match self.waiting.iter().filter(has_text).count() {
            0 => {}
            1 => eprintln!("the line behind it was not run"),
            lines => eprintln!("the {lines} lines behind it were not run"),
        }
        self.waiting.clear();
    }

    fn wait_in_line(&mut self, text: &str) {
        let lines = text.split('\n').map(|line| line.as_bytes().to_vec());
        self.waiting.extend(lines);
    }

    fn remember(&mut self, text: &str) {
        if !text.trim().is_empty() && text.len() <= HISTORY_ENTRY_BYTES_MAX {
            // In memory, where it fails for no reason.
            let _ = self.lines.add_history_entry(text);
            self.save();
        }
    }

    /// Writes the history down, so that it is there whatever happens next.
    fn save(&mut self) {
        if let Some(path) = &self.history
            && let Err(error) = self.lines.append_history(path)
        {
            eprintln!(
                "the history {} can't be written, and is kept no longer: {error}",
                path.display()
            );
            self.history = None;
        }
    }

    fn ask(&mut self, prompt: &str, is_command: bool) -> Result<Typed, Failure> {
        if let Some(assistant) = self.lines.helper_mut() {
            assistant.is_command = is_command;
        }
        match self.lines.readline(prompt) {
            Ok(text) => Ok(Typed::Text(text)),
            Err(ReadlineError::Interrupted) => Ok(Typed::Cancelled),
            Err(ReadlineError::Eof) => Ok(Typed::End),
            Err(error) => Err(terminal(&error)),
        }
    }
}

impl Caller for Editor {
    fn owns_stdin(&self) -> bool {
        false
    }

    fn next_line(&mut self, prompt: &str) -> Result<Option<Vec<u8>>, Failure> {
        if self.waiting.is_empty() {
            match self.ask(prompt, false)? {
                Typed::Text(text) => self.wait_in_line(&text),
                Typed::End => return Ok(None),
                Typed::Cancelled => {
                    return Err(Failure::Interrupted("cancelled; nothing was done".to_owned()));
                }
            }
        }
        Ok(self.waiting.pop_front())
    }

    fn wants_more(&mut self, lines: u64) -> Result<bool, Failure> {
        let question = format!("{lines} lines so far. More? [Y/n] ");
        match self.ask(&question, false)? {
            Typed::Text(answer) => Ok(!answer.trim_start().starts_with(['n', 'N', 'q', 'Q'])),
            Typed::Cancelled | Typed::End => Ok(false),
        }
    }
}

fn terminal(error: &ReadlineError) -> Failure {
    Failure::Failed(format!("cannot read from the terminal: {error}"))
}

/// Completes, hints, and says whether a command has ended.
struct Assistant {
    /// A command is typed, and not the answer to a question.
    is_command: bool,
    files: FilenameCompleter,
}

impl Helper for Assistant {}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(
        &self,
        text: &str,
        place: usize,
        context: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        if !self.is_command {
            return Ok((place, Vec::new()));
        }
        let (start, candidates) = line::complete(&text[..place]);
        if candidates.is_empty() && line::wants_file(&text[..place]) {
            return self.files.complete(text, place, context);
        }
        let pair = |candidate: String| Pair {
            replacement: format!("{candidate} "),
            display: candidate,
        };
        Ok((start, candidates.into_iter().map(pair).collect()))
    }
}

impl Hinter for Assistant {
    type Hint = String;

    fn hint(&self, text: &str, place: usize, _context: &rustyline::Context<'_>) -> Option<String> {
        (self.is_command && place == text.len())
            .then(|| line::hint(text))
            .flatten()
    }
}

impl Highlighter for Assistant {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        // Faint.
        Cow::Owned(format!("\x1b[2m{hint}\x1b[m"))
    }
}

impl Validator for Assistant {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if self.is_command && is_open(context.input().as_bytes()) {
            ValidationResult::Incomplete
        } else {
            ValidationResult::Valid(None)
        })
    }
}
