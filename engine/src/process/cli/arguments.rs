//! The arguments of every command and the sentences in which wrong ones are refused.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::{Args, FromArgMatches, Parser, Subcommand};
use ostrakon_wire::limits::KEY_BYTES_MAX;

use super::key::unescape;
use crate::process::configuration::settings::{SETTINGS, Setting, Shape};
use crate::process::configuration::{DEFAULT_ADDRESS, DEFAULT_DATA, Flags};
use crate::process::version::VERSION;

const CONFIG: &str = "config";
const PRINT_CONFIG: &str = "print-config";
const PRECEDENCE: &str = "Where a setting comes from: its flag; else the environment variable OSTRAKON_NAME, such as \
    OSTRAKON_MAX_CONNECTIONS for --max-connections; else the file of --config; else its default.";

const EXIT_CODES: &str = "Exit codes: 0 done, 1 error, 2 bad command line, 3 key not found, \
    4 condition failed.\n\n\
    First session:\n  ostrakon serve\n  ostrakon put greeting hello\n  ostrakon get greeting";

/// A distributed, strictly serializable key-value database: shards that vote.
#[derive(Debug, Parser)]
#[command(name = "ostrakon", version = VERSION, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node; without arguments a database of one node in ./ostrakon-data.
    Serve(ServeArguments),
    /// Print the value of a key, byte for byte.
    Get(GetArguments),
    /// Write a value; returns when it is durable.
    Put(PutArguments),
    /// Delete a key; returns when that is durable.
    Delete(DeleteArguments),
    /// Print keys and values in order, all of one moment, one line each.
    Scan(ScanArguments),
    /// Print the state of a node.
    Status(StatusArguments),
    /// Check this machine and a data directory, and say how to fix what is wrong.
    Doctor(DoctorArguments),
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

/// How a one-shot command reaches a node and prints.
#[derive(Debug, Args)]
pub struct ConnectArguments {
    /// The node to ask.
    #[arg(long, value_name = "HOST:PORT", env = "OSTRAKON_CONNECT", default_value = DEFAULT_ADDRESS)]
    pub connect: String,
    /// Print JSON, one object per line. Bytes that are not UTF-8 come as `NAME_base64`.
    #[arg(long)]
    pub json: bool,
}

/// `ostrakon get`.
#[derive(Debug, Args)]
pub struct GetArguments {
    /// The key; \xNN stands for any byte, \\ for a backslash.
    #[arg(value_parser = KeyParser)]
    pub key: Key,
    /// How to reach the node.
    #[command(flatten)]
    pub connect: ConnectArguments,
}

/// `ostrakon put`.
#[derive(Debug, Args)]
pub struct PutArguments {
    /// The key; \xNN stands for any byte, \\ for a backslash.
    #[arg(value_parser = KeyParser)]
    pub key: Key,
    /// The value, byte for byte; without it, all of stdin.
    #[arg(allow_negative_numbers = true)]
    pub value: Option<OsString>,
    /// What must hold.
    #[command(flatten)]
    pub condition: ConditionArguments,
    /// How to reach the node.
    #[command(flatten)]
    pub connect: ConnectArguments,
}

/// `ostrakon delete`.
#[derive(Debug, Args)]
pub struct DeleteArguments {
    /// The key; \xNN stands for any byte, \\ for a backslash.
    #[arg(value_parser = KeyParser)]
    pub key: Key,
    /// What must hold.
    #[command(flatten)]
    pub condition: ConditionArguments,
    /// How to reach the node.
    #[command(flatten)]
    pub connect: ConnectArguments,
}

/// The conditions of a write; one at most.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct ConditionArguments {
    /// Only if the key does not exist.
    #[arg(long)]
    pub if_absent: bool,
    /// Only if the key exists.
    #[arg(long)]
    pub if_present: bool,
    /// Only if the key is at this version, as `put` and `get --json` print it.
    #[arg(long, value_name = "VERSION")]
    pub if_version: Option<u64>,
}

/// `ostrakon scan`.
#[derive(Debug, Args)]
pub struct ScanArguments {
    /// First key [default: the first there is].
    #[arg(value_parser = KeyParser)]
    pub start: Option<Key>,
    /// Stop before this key.
    #[arg(long, value_name = "KEY", value_parser = KeyParser)]
    pub end: Option<Key>,
    /// Only keys that begin with this.
    #[arg(long, value_name = "KEY", value_parser = KeyParser, conflicts_with_all = ["start", "end"])]
    pub prefix: Option<Key>,
    /// Print this many entries at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Print no values.
    #[arg(long)]
    pub keys_only: bool,
    /// How to reach the node.
    #[command(flatten)]
    pub connect: ConnectArguments,
}

/// `ostrakon status`.
#[derive(Debug, Args)]
pub struct StatusArguments {
    /// How to reach the node.
    #[command(flatten)]
    pub connect: ConnectArguments,
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

/// A key, already unescaped, of 1 to [`KEY_BYTES_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(pub Vec<u8>);

/// Reads a [`Key`] out of an argument that need not be UTF-8.
#[derive(Clone)]
struct KeyParser;

impl clap::builder::TypedValueParser for KeyParser {
    type Value = Key;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Key, clap::Error> {
        parse_key(value.as_bytes()).map_err(|sentence| {
            let name = argument.map_or_else(|| "KEY".to_owned(), ToString::to_string);
            clap::Error::raw(
                clap::error::ErrorKind::ValueValidation,
                format!(
                    "invalid value '{}' for '{name}': {sentence}\n",
                    value.to_string_lossy()
                ),
            )
            .with_cmd(command)
        })
    }
}

fn parse_key(escaped: &[u8]) -> Result<Key, String> {
    let key = unescape(escaped).map_err(|error| error.to_string())?;
    match key.len() {
        0 => Err("a key has at least one byte".to_owned()),
        length if length > KEY_BYTES_MAX => Err(format!(
            "the key has {length} bytes, and {KEY_BYTES_MAX} is the most"
        )),
        _ => Ok(Key(key)),
    }
}

#[cfg(test)]
#[path = "arguments_tests.rs"]
mod tests;
