//! The command line: `ostrakon serve`, one-shot commands against a running node, `ostrakon doctor`, and what looks at
//! stored files: `ostrakon check`, `ostrakon inspect`.
//!
//! Results go to stdout, everything else to stderr. The exit code tells a script what happened
//! ([`Outcome`]); a bad command line is refused before anything is opened or connected.

mod arguments;
mod backup;
mod check;
mod commands;
mod failure;
mod inspect;
mod interrupt;
mod key;
mod link;
mod output;
mod requests;
mod serve;
mod shell;
mod transfer;
mod words;

use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind;

pub use arguments::{
    CheckArguments, Cli, Command, DoctorArguments, InspectArguments, InspectLogArguments,
    InspectManifestArguments, InspectTableArguments, InspectedFile, Invocation, ServeArguments,
    ShellArguments,
};
pub use failure::Failure;
pub use key::{KeyError, escape, unescape};
pub use output::Format;
pub use requests::{
    AddArguments, BackupArguments, BatchArguments, ClientCommand, ConditionArguments, ConnectArguments,
    DeleteArguments, ExportArguments, FileFormat, ImportArguments, Key, KeyArgument, MgetArguments,
    MputArguments, PrintArguments, PutArguments, RangeArguments, RestoreArguments, ScanArguments, Spelling,
    TtlOption,
};
pub use transfer::{BadRecord, BinaryReader, BinaryWriter, Expiry, JsonReader, Record, write_json_line};
pub use words::{CommandText, Words, WordsError, read_commands};

use super::doctor;
use super::preflight::Intent;
use commands::{CommandLine, Context};
use interrupt::Interrupt;
use link::Link;

/// How a command ended, if it did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code 0: it did what it was asked.
    Done,
    /// Exit code 1: `doctor`, `check` or `inspect` found something wrong, and has printed it.
    FoundErrors,
    /// A shell has gone on after commands that failed, and has said so: the exit code of the first of them.
    FailedBefore(u8),
}

impl Outcome {
    /// The exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Done => 0,
            Outcome::FoundErrors => 1,
            Outcome::FailedBefore(exit_code) => exit_code,
        }
    }
}

/// Parses the arguments of the process, runs the command and tells how to exit.
pub fn run() -> ExitCode {
    let invocation = Invocation::parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    match execute(invocation) {
        Ok(outcome) => ExitCode::from(outcome.exit_code()),
        // Whoever read our output has seen enough, for example `head`.
        Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        // In the same form as the mistakes that clap finds itself, with its exit code 2.
        Err(Failure::Usage(sentence)) => Invocation::definition()
            .error(ErrorKind::ValueValidation, sentence)
            .exit(),
        Err(failure) => {
            eprintln!("ostrakon: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn execute(invocation: Invocation) -> Result<Outcome, Failure> {
    match invocation.command {
        Command::Check(arguments) => check::check(&arguments),
        Command::Inspect(arguments) => inspect::inspect(&arguments.file),
        Command::Serve(arguments) => serve::serve(arguments),
        Command::Shell(arguments) => shell::shell(&arguments),
        Command::Client(command) => {
            let (connect, print) = invocation.client.expect("a client command has its options");
            execute_client(&command, &connect, &print)
        }
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

/// A command for a node, alone.
fn execute_client(
    command: &ClientCommand,
    connect: &ConnectArguments,
    print: &PrintArguments,
) -> Result<Outcome, Failure> {
    // An export or a backup that is cancelled removes what it has half made; all others leave nothing behind.
    let interrupt = match command {
        ClientCommand::Export(_) | ClientCommand::Backup(_) => {
            Interrupt::install().map_err(|error| Failure::Failed(format!("cannot catch Ctrl-C: {error}")))?
        }
        _ => Arc::new(Interrupt::default()),
    };
    interrupt.begin();
    let mut context = Context {
        link: Link::new(connect, interrupt),
        format: if print.json { Format::Json } else { Format::Text },
        timing: print.timing,
        spelling: Spelling::Exact,
    };
    commands::execute(command, &mut context, &mut CommandLine)
}
