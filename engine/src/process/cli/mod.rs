//! The command line: `ostrakon serve`, one-shot commands against a running node, `ostrakon doctor`.
//!
//! Results go to stdout, everything else to stderr. The exit code tells a script what happened
//! ([`Outcome`]); a bad command line is refused before anything is opened or connected.

mod arguments;
mod commands;
mod failure;
mod key;
mod output;
mod serve;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

pub use arguments::{
    Cli, Command, ConditionArguments, ConnectArguments, DeleteArguments, DoctorArguments, GetArguments, Key,
    PutArguments, ScanArguments, ServeArguments, StatusArguments,
};
pub use failure::Failure;
pub use key::{KeyError, escape, unescape};

use super::doctor;
use super::preflight::Intent;

/// How a command ended, if it did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code 0: it did what it was asked.
    Done,
    /// Exit code 1: `doctor` found an error, and has printed it.
    FoundErrors,
    /// Exit code 3: `get` found no value.
    NotFound,
    /// Exit code 4: the condition of a `put` or `delete` did not hold, so that nothing was written.
    ConditionFailed,
}

impl Outcome {
    /// The exit code; 2 is left to a bad command line (see [`Failure`]).
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Done => 0,
            Outcome::FoundErrors => 1,
            Outcome::NotFound => 3,
            Outcome::ConditionFailed => 4,
        }
    }
}

/// Parses the arguments of the process, runs the command and tells how to exit.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    match execute(cli.command) {
        Ok(outcome) => ExitCode::from(outcome.exit_code()),
        // Whoever read our output has seen enough, for example `head`.
        Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        // In the same form as the mistakes that clap finds itself, with its exit code 2.
        Err(Failure::Usage(sentence)) => Cli::command()
            .error(clap::error::ErrorKind::ValueValidation, sentence)
            .exit(),
        Err(failure) => {
            eprintln!("ostrakon: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<Outcome, Failure> {
    match command {
        Command::Serve(arguments) => serve::serve(arguments),
        Command::Get(arguments) => commands::get(&arguments),
        Command::Put(arguments) => commands::put(&arguments),
        Command::Delete(arguments) => commands::delete(&arguments),
        Command::Scan(arguments) => commands::scan(&arguments),
        Command::Status(arguments) => commands::status(&arguments),
        Command::Doctor(arguments) => {
            let report = doctor::examine(&Intent::new(arguments.data));
            if arguments.json {
                output::json_line(&report)?;
            } else {
                output::text(&report.to_text())?;
            }
            Ok(if report.errors == 0 {
                Outcome::Done
            } else {
                Outcome::FoundErrors
            })
        }
    }
}
