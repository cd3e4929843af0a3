//! The arguments of every command and the sentences in which wrong ones are refused.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::requests::{ClientCommand, ConnectArguments, PrintArguments};
use crate::limits::SHARDS_MAX;
use crate::process::cpu_list;
use crate::process::logging::{DEFAULT_FILTER, parse_filter};
use crate::process::version::VERSION;

/// Where a node keeps its data unless told otherwise.
const DEFAULT_DATA: &str = "./ostrakon-data";

/// Where a node listens, and a client connects, unless told otherwise.
pub(super) const DEFAULT_ADDRESS: &str = "127.0.0.1:5750";

const EXIT_CODES: &str = "Exit codes: 0 done, 1 error, 2 bad command line, 3 key not found, \
    4 condition failed, 5 outcome of a write unknown, 130 cancelled.\n\n\
    First session:\n  ostrakon serve\n  ostrakon put greeting hello\n  ostrakon get greeting";

/// A distributed, strictly serializable key-value database: shards that vote.
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
}

/// `ostrakon serve`.
#[derive(Debug, Args)]
pub struct ServeArguments {
    /// Data directory; made if it does not exist.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA)]
    pub data: PathBuf,
    /// Address and port for clients.
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT_ADDRESS)]
    pub listen: SocketAddr,
    /// Cores to run [default: one per allowed CPU].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub cores: Option<u16>,
    /// Shards of a new cluster, a power of two [default: 4 per core, rounded up, at least 8].
    #[arg(long, value_name = "N", value_parser = parse_shards)]
    pub shards: Option<u32>,
    /// Memory for data, such as 512MiB or 8GiB [default: a share of what is available].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub memory: Option<u64>,
    /// CPUs to run on, such as 0-3,8 [default: all allowed ones].
    #[arg(long, value_name = "LIST", value_parser = parse_cpus)]
    pub cpus: Option<CpuSet>,
    /// Poll instead of sleeping; faster if no other program needs these CPUs.
    #[arg(long)]
    pub spin: bool,
    /// Allow an address other than loopback, although connections are neither encrypted nor authenticated.
    #[arg(long)]
    pub insecure: bool,
    /// Size of a log segment in a new data directory, such as 64MiB. A value can have a quarter of it at most.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub segment_size: Option<u64>,
    /// Cut a corrupt log at its first damage and lose all behind it, instead of refusing to start.
    #[arg(long)]
    pub cut_corrupt_log: bool,
    /// What to log on stderr, such as `debug` or `warn,ostrakon::log=trace`.
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", default_value = DEFAULT_FILTER)]
    #[arg(value_parser = parse_log_filter)]
    pub log: String,
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

/// A list of CPUs; a type of its own because clap reads `Vec` as "may be given several times".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuSet(pub Vec<usize>);

fn parse_shards(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(shards) if shards.is_power_of_two() && shards <= SHARDS_MAX => Ok(shards),
        _ => Err(format!(
            "the number of shards is a power of two from 1 to {SHARDS_MAX}, such as 64"
        )),
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    match text.parse::<ByteSize>() {
        Ok(ByteSize(0)) => Err("a size is more than nothing".to_owned()),
        Ok(ByteSize(bytes)) => Ok(bytes),
        Err(_) => Err("write a number of bytes with a unit, such as 512MiB or 8GiB".to_owned()),
    }
}

fn parse_cpus(text: &str) -> Result<CpuSet, String> {
    cpu_list::parse(text)
        .map(CpuSet)
        .map_err(|error| error.to_string())
}

fn parse_log_filter(text: &str) -> Result<String, String> {
    parse_filter(text)
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "arguments_tests.rs"]
mod tests;
