//! The shell at a terminal: lines with editing, history, completion and hints, and the questions that it asks.

use std::borrow::Cow;
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
use super::super::words::{Words, split};
use super::{history, line};

/// Commands that the history keeps.
const HISTORY_ENTRIES: usize = 10_000;
/// Longest command that the history keeps, in bytes.
const HISTORY_ENTRY_BYTES_MAX: usize = 4096;

/// What a person has typed.
#[derive(Debug)]
pub(super) enum Input {
    /// A whole command, perhaps of several lines.
    Line(String),
    /// Ctrl-C.
    Cancelled,
    /// Ctrl-D.
    End,
}

/// The terminal.
pub(super) struct Editor {
    lines: rustyline::Editor<Assistant, FileHistory>,
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
        Ok(Editor { lines, history })
    }

    /// The next command.
    pub(super) fn command(&mut self, prompt: &str) -> Result<Input, Failure> {
        let input = self.ask(prompt, true)?;
        if let Input::Line(text) = &input
            && !text.trim().is_empty()
            && text.len() <= HISTORY_ENTRY_BYTES_MAX
        {
            // In memory, where it fails for no reason.
            let _ = self.lines.add_history_entry(text.as_str());
            self.save();
        }
        Ok(input)
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

    fn ask(&mut self, prompt: &str, is_command: bool) -> Result<Input, Failure> {
        if let Some(assistant) = self.lines.helper_mut() {
            assistant.is_command = is_command;
        }
        match self.lines.readline(prompt) {
            Ok(text) => Ok(Input::Line(text)),
            Err(ReadlineError::Interrupted) => Ok(Input::Cancelled),
            Err(ReadlineError::Eof) => Ok(Input::End),
            Err(error) => Err(terminal(&error)),
        }
    }
}

impl Caller for Editor {
    fn owns_stdin(&self) -> bool {
        false
    }

    fn next_line(&mut self, prompt: &str) -> Result<Option<Vec<u8>>, Failure> {
        match self.ask(prompt, false)? {
            Input::Line(text) => Ok(Some(text.into_bytes())),
            Input::End => Ok(None),
            Input::Cancelled => Err(Failure::Interrupted("cancelled; nothing was done".to_owned())),
        }
    }

    fn wants_more(&mut self, lines: u64) -> Result<bool, Failure> {
        let question = format!("{lines} lines so far. More? [Y/n] ");
        match self.ask(&question, false)? {
            Input::Line(answer) => Ok(!answer.trim_start().starts_with(['n', 'N', 'q', 'Q'])),
            Input::Cancelled | Input::End => Ok(false),
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
        let is_open = self.is_command && matches!(split(context.input().as_bytes()), Ok(Words::Open(_)));
        Ok(if is_open {
            ValidationResult::Incomplete
        } else {
            ValidationResult::Valid(None)
        })
    }
}
