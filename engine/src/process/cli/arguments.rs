//! The arguments of every command and the sentences in which wrong ones are refused.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::requests::{ClientCommand, ConnectArguments, Key, KeyParser, PrintArguments};
use crate::process::configuration::settings::{SETTINGS, Setting, Shape};
use crate::process::configuration::{DEFAULT_DATA, Flags};
use crate::process::version::VERSION;

const CONFIG: &str = "config";
const PRINT_CONFIG: &str = "print-config";
const PRECEDENCE: &str = "Where a setting comes from: its flag; else the environment variable OSTRAKON_NAME, such as \
    OSTRAKON_MAX_CONNECTIONS for --max-connections; else the file of --config; else its default.";

const EXIT_CODES: &str = "Exit codes: 0 done, 1 error, 2 bad command line, 3 key not found, \
    4 condition failed, 5 outcome of a write unknown, 130 cancelled.\n\n\
    First session:\n  ostrakon serve\n  ostrakon put greeting hello\n  ostrakon get greeting";

/// A durable key-value database, one thread per core: shards that vote.
#[derive(Debug, Parser)]
#[command(name = "ostrakon", version = VERSION, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A command line that makes sense.
#[derive(Debug)]
pub struct Invocation {
    /// What to do.
    pub command: Command,
    /// For a client command: the node, and how to print.
    pub client: Option<(ConnectArguments, PrintArguments)>,
}

impl Invocation {
    /// Reads the words of a command line, the program's name first.
    ///
    /// # Errors
    /// If they make no sense, or ask for help; [`clap::Error::exit`] says so.
    pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Invocation, clap::Error> {
        let matches = Invocation::definition().try_get_matches_from(words)?;
        let command = Cli::from_arg_matches(&matches)?.command;
        let client = match (&command, matches.subcommand()) {
            (Command::Client(_), Some((_, matches))) => Some((
                ConnectArguments::from_arg_matches(matches)?,
                PrintArguments::from_arg_matches(matches)?,
            )),
            _ => None,
        };
        Ok(Invocation { command, client })
    }

    /// All commands, those for a node with the options that they have in common.
    pub fn definition() -> clap::Command {
        with_common_options(Cli::command(), |command| {
            PrintArguments::augment_args(ConnectArguments::augment_args(command))
        })
    }
}

/// Adds options to each client command of a definition.
pub(super) fn with_common_options(
    definition: clap::Command,
    add: impl Fn(clap::Command) -> clap::Command,
) -> clap::Command {
    let client_commands = ClientCommand::augment_subcommands(clap::Command::new("ostrakon"));
    let names = client_commands.get_subcommands().map(clap::Command::get_name);
    names.fold(definition, |definition, name| {
        definition.mut_subcommand(name, |command| {
            // Options that are added bring a description along, which is not the command's.
            let about = command.get_about().cloned().unwrap_or_default();
            add(command).about(about).long_about(None)
        })
    })
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node; without arguments a database of one node in ./ostrakon-data.
    Serve(ServeArguments),
    /// Ask and tell a node interactively, or as lines from a pipe say.
    Shell(ShellArguments),
    /// One command for a node that runs.
    #[command(flatten)]
    Client(ClientCommand),
    /// Check this machine and a data directory, and say how to fix what is wrong.
    Doctor(DoctorArguments),
    /// Read all that a node has stored, while it does not run, and tell all damage. Nothing is changed.
    Check(CheckArguments),
    /// Print legibly what a file of a data directory says. Nothing is changed; the node may run.
    Inspect(InspectArguments),
}

/// `ostrakon serve`: a flag for each of [`SETTINGS`], and how to read and show them.
#[derive(Debug)]
pub struct ServeArguments {
    /// Values of the flags that are there, not looked at yet.
    pub flags: Flags,
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--print-config`.
    pub print_config: bool,
}

impl Args for ServeArguments {
    fn augment_args(command: clap::Command) -> clap::Command {
        let config = clap::Arg::new(CONFIG)
            .long(CONFIG)
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("Read settings from a TOML file, whose keys are the names of the flags [env: OSTRAKON_CONFIG]");
        let print_config = clap::Arg::new(PRINT_CONFIG)
            .long(PRINT_CONFIG)
            .action(clap::ArgAction::SetTrue)
            .help("Print what the node would run with, as such a file that tells where each value is from, and exit");
        let command = SETTINGS
            .iter()
            .fold(command, |command, setting| command.arg(flag(setting)));
        command.arg(config).arg(print_config).after_help(PRECEDENCE)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        ServeArguments::augment_args(command)
    }
}

impl FromArgMatches for ServeArguments {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<ServeArguments, clap::Error> {
        let value = |setting: &Setting| {
            let value: &OsString = matches.get_one(setting.name)?;
            Some((setting.name, value.clone()))
        };
        Ok(ServeArguments {
            flags: SETTINGS.iter().filter_map(value).collect(),
            config: matches.get_one(CONFIG).cloned(),
            print_config: matches.get_flag(PRINT_CONFIG),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = ServeArguments::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The flag of a setting. Its value is looked at with those of the other sources.
fn flag(setting: &Setting) -> clap::Arg {
    let flag = clap::Arg::new(setting.name)
        .long(setting.name)
        .value_name(setting.value_name)
        .value_parser(clap::value_parser!(OsString))
        .help(setting.help);
    match setting.shape {
        Shape::Switch => flag
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
        Shape::Text | Shape::Number => flag,
    }
}

/// `ostrakon shell`.
#[derive(Debug, Args)]
pub struct ShellArguments {
    /// How to reach the node.
    #[command(flatten)]
    pub connect: ConnectArguments,
    /// How to print at first.
    #[command(flatten)]
    pub print: PrintArguments,
    /// If the commands come from a pipe: go on after one that failed. The exit code is that of the first of them.
    #[arg(long)]
    pub keep_going: bool,
}

/// `ostrakon doctor`.
#[derive(Debug, Args)]
pub struct DoctorArguments {
    /// Data directory to check; it need not exist.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA)]
    pub data: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `ostrakon check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Data directory of a node that does not run.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA)]
    pub data: PathBuf,
    /// Print JSON, an object for each finding and one for the summary.
    #[arg(long)]
    pub json: bool,
}

/// `ostrakon inspect`.
#[derive(Debug, Args)]
pub struct InspectArguments {
    /// What the file is.
    #[command(subcommand)]
    pub file: InspectedFile,
}

/// The kinds of file that can be inspected.
#[derive(Debug, Subcommand)]
pub enum InspectedFile {
    /// A segment of a log (`log/NNNN/*.seg`): its batches, and what lies between them.
    Log(InspectLogArguments),
    /// A table (`shard/NNNN/*.sst`): its properties, index and blocks, and with --entries its keys and versions.
    Sstable(InspectTableArguments),
    /// A manifest (`shard/NNNN/manifest`): its records, and the tables that they come to.
    Manifest(InspectManifestArguments),
}

/// `ostrakon inspect log`.
#[derive(Debug, Args)]
pub struct InspectLogArguments {
    /// The segment.
    #[arg(value_hint = clap::ValueHint::FilePath)]
    pub file: PathBuf,
    /// Print the records of each batch.
    #[arg(long)]
    pub entries: bool,
}

/// `ostrakon inspect sstable`.
#[derive(Debug, Args)]
pub struct InspectTableArguments {
    /// The table.
    #[arg(value_hint = clap::ValueHint::FilePath)]
    pub file: PathBuf,
    /// Print keys and versions.
    #[arg(long)]
    pub entries: bool,
    /// Print keys and versions from this key on.
    #[arg(long, value_name = "KEY", value_parser = KeyParser, requires = "entries")]
    pub from: Option<Key>,
    /// Print so many versions at most.
    #[arg(long, value_name = "N", requires = "entries")]
    pub limit: Option<u64>,
}

/// `ostrakon inspect manifest`.
#[derive(Debug, Args)]
pub struct InspectManifestArguments {
    /// The manifest.
    #[arg(value_hint = clap::ValueHint::FilePath)]
    pub file: PathBuf,
}

#[cfg(test)]
#[path = "arguments_tests.rs"]
mod tests;
