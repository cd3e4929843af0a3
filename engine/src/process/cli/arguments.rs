//! The arguments of every command and the sentences in which wrong ones are refused.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};
use ostrakon_wire::limits::KEY_BYTES_MAX;

use super::key::unescape;
use crate::limits::SHARDS_MAX;
use crate::process::cpu_list;
use crate::process::logging::{DEFAULT_FILTER, parse_filter};
use crate::process::version::VERSION;

/// Where a node keeps its data unless told otherwise.
const DEFAULT_DATA: &str = "./ostrakon-data";

/// Where a node listens, and a client connects, unless told otherwise.
pub(super) const DEFAULT_ADDRESS: &str = "127.0.0.1:5750";

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

/// A list of CPUs; a type of its own because clap reads `Vec` as "may be given several times".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuSet(pub Vec<usize>);

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
