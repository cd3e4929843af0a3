//! The commands that ask a node, for the command line and the shell alike: their words, and what is refused of them.
//!
//! A word of the command line is taken byte for byte, but for keys, in which `\xNN` stands for a byte. In the shell,
//! whose own quotes and escapes are gone by then, every word comes in the form of [`escape`](super::key::escape)
//! ([`Spelling`]).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use ostrakon_client::{Condition, ScanOptions};
use ostrakon_wire::limits::{KEY_BYTES_MAX, TTL_MS_MAX};

use super::failure::Failure;
use super::key::unescape;
use crate::process::configuration::DEFAULT_ADDRESS;

/// The longest time that a request may be given: a day.
const TIMEOUT_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// The commands that ask a node.
#[derive(Debug, Clone, Subcommand)]
pub enum ClientCommand {
    /// Print the value of a key, byte for byte.
    Get(KeyArgument),
    /// Write a value; returns when it is durable.
    Put(PutArguments),
    /// Delete a key; returns when that is durable.
    Delete(DeleteArguments),
    /// Delete all keys of a range; returns when that is durable. It takes as long for many keys as for few.
    DeleteRange(DeleteRangeArguments),
    /// Add to the number in a key, and print the sum; an absent key counts as 0.
    Add(AddArguments),
    /// Print several keys and their values.
    Mget(MgetArguments),
    /// Write several keys; those of one shard together or not at all.
    Mput(MputArguments),
    /// Print keys and values in order, all of one moment, one line each.
    Scan(ScanArguments),
    /// Do several writes in one shard, all or nothing: lines of put, delete, add and check.
    Batch(BatchArguments),
    /// Print for how long a key still lives.
    Ttl(KeyArgument),
    /// Print the state of a node.
    Status,
    /// Print all that a node counts and measures.
    Stats,
    /// Print which core of the node owns which shard.
    Topology,
    /// Ask the node for a sign of life.
    Ping,
    /// Write all entries of a file.
    Import(ImportArguments),
    /// Write all entries into a file, all of one moment.
    Export(ExportArguments),
    /// Back up the node, which runs on this machine, as of one moment; only what is new is copied.
    Backup(BackupArguments),
    /// Write a backup into a node, or compare the two.
    Restore(RestoreArguments),
}

/// How a one-shot command reaches a node.
#[derive(Debug, Clone, Args)]
pub struct ConnectArguments {
    /// The node to ask.
    #[arg(long, value_name = "HOST:PORT", env = "OSTRAKON_CONNECT", default_value = DEFAULT_ADDRESS)]
    pub connect: String,
    /// How long a request may take, repetitions included: a number with ms, s, m, h or d.
    #[arg(long = "timeout", value_name = "TIME", env = "OSTRAKON_TIMEOUT", default_value = "30s",
          value_parser = parse_timeout)]
    pub timeout_ms: u64,
}

/// How a command prints what it got.
#[derive(Debug, Clone, Default, Args)]
pub struct PrintArguments {
    /// Print JSON, one object per line. Bytes that are not UTF-8 come as `NAME_base64`.
    #[arg(long)]
    pub json: bool,
    /// Print on stderr where the time went.
    #[arg(long)]
    pub timing: bool,
}

/// `get`, `ttl`.
#[derive(Debug, Clone, Args)]
pub struct KeyArgument {
    /// The key; \xNN stands for any byte, \\ for a backslash.
    #[arg(value_parser = KeyParser)]
    pub key: Key,
}

/// `put`.
#[derive(Debug, Clone, Args)]
pub struct PutArguments {
    /// The key; \xNN stands for any byte, \\ for a backslash.
    #[arg(value_parser = KeyParser)]
    pub key: Key,
    /// The value, byte for byte; without it, all of stdin. In the shell quoted, or `<<END` and lines up to END.
    #[arg(allow_negative_numbers = true)]
    pub value: Option<OsString>,
    /// How long the key lives.
    #[command(flatten)]
    pub ttl: TtlOption,
    /// What must hold.
    #[command(flatten)]
    pub condition: ConditionArguments,
}

/// `delete`.
#[derive(Debug, Clone, Args)]
pub struct DeleteArguments {
    /// The key; \xNN stands for any byte, \\ for a backslash.
    #[arg(value_parser = KeyParser)]
    pub key: Key,
    /// What must hold.
    #[command(flatten)]
    pub condition: ConditionArguments,
}

/// `delete-range`.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = true)]
pub struct DeleteRangeArguments {
    /// The first key; \xNN stands for any byte, \\ for a backslash.
    #[arg(value_parser = KeyParser)]
    pub start: Option<Key>,
    /// Stop before this key [default: delete all keys from START on].
    #[arg(value_parser = KeyParser, requires = "start")]
    pub end: Option<Key>,
    /// All keys that begin with this.
    #[arg(long, value_name = "KEY", value_parser = KeyParser, conflicts_with_all = ["start", "end", "all"])]
    pub prefix: Option<Key>,
    /// All keys there are.
    #[arg(long, conflicts_with_all = ["start", "end"])]
    pub all: bool,
}

/// `add`.
#[derive(Debug, Clone, Args)]
pub struct AddArguments {
    /// The key; \xNN stands for any byte, \\ for a backslash.
    #[arg(value_parser = KeyParser)]
    pub key: Key,
    /// What to add; may be negative.
    #[arg(allow_negative_numbers = true, default_value_t = 1)]
    pub delta: i64,
    /// How long the key lives, if this makes it; a key that is there keeps what it has.
    #[command(flatten)]
    pub ttl: TtlOption,
}

/// `mget`.
#[derive(Debug, Clone, Args)]
pub struct MgetArguments {
    /// The keys; \xNN stands for any byte, \\ for a backslash.
    #[arg(value_name = "KEY", value_parser = KeyParser, required = true)]
    pub keys: Vec<Key>,
}

/// `mput`.
#[derive(Debug, Clone, Args)]
pub struct MputArguments {
    /// Keys, in which \xNN stands for any byte, each with its value behind it.
    #[arg(value_names = ["KEY", "VALUE"], num_args = 2.., required = true, allow_negative_numbers = true)]
    pub pairs: Vec<OsString>,
    /// How long the keys live.
    #[command(flatten)]
    pub ttl: TtlOption,
}

/// `scan`.
#[derive(Debug, Clone, Args)]
pub struct ScanArguments {
    /// First key [default: the first there is].
    #[arg(value_parser = KeyParser)]
    pub start: Option<Key>,
    /// What to scan besides.
    #[command(flatten)]
    pub range: RangeArguments,
    /// Print this many entries at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// From the last key to the first.
    #[arg(long)]
    pub reverse: bool,
    /// Print no values.
    #[arg(long)]
    pub keys_only: bool,
}

/// Bounds of a scan or an export, but for its first key.
#[derive(Debug, Clone, Args)]
pub struct RangeArguments {
    /// Stop before this key.
    #[arg(long, value_name = "KEY", value_parser = KeyParser)]
    pub end: Option<Key>,
    /// Only keys that begin with this.
    #[arg(long, value_name = "KEY", value_parser = KeyParser)]
    pub prefix: Option<Key>,
}

/// `batch`.
#[derive(Debug, Clone, Args)]
pub struct BatchArguments {
    /// File of operations [default: the lines that follow, up to `end`].
    pub file: Option<PathBuf>,
}

/// `import`.
#[derive(Debug, Clone, Args)]
pub struct ImportArguments {
    /// The file; `-` for stdin.
    #[arg(value_hint = clap::ValueHint::FilePath)]
    pub file: PathBuf,
    /// What the file holds [default: by its name: .jsonl, .json, .bin].
    #[arg(long)]
    pub format: Option<FileFormat>,
}

/// `export`.
#[derive(Debug, Clone, Args)]
pub struct ExportArguments {
    /// The file, replaced when all is written; `-` for stdout.
    #[arg(value_hint = clap::ValueHint::FilePath)]
    pub file: PathBuf,
    /// How to write the file [default: by its name: .jsonl, .json, .bin].
    #[arg(long)]
    pub format: Option<FileFormat>,
    /// First key [default: the first there is].
    #[arg(long, value_name = "KEY", value_parser = KeyParser)]
    pub start: Option<Key>,
    /// What to export besides.
    #[command(flatten)]
    pub range: RangeArguments,
}

/// `backup`.
#[derive(Debug, Clone, Args)]
pub struct BackupArguments {
    /// The directory of backups; made if it is missing. Those of one node share what they have in common.
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub directory: PathBuf,
    /// Then remove old backups until this many are left.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep: Option<u32>,
    /// Make none, but list those that there are.
    #[arg(long, conflicts_with_all = ["keep", "delete"])]
    pub list: bool,
    /// Make none, but remove this one.
    #[arg(long, value_name = "BACKUP", conflicts_with = "keep")]
    pub delete: Option<u64>,
}

/// `restore`.
#[derive(Debug, Clone, Args)]
pub struct RestoreArguments {
    /// The directory of backups.
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub directory: PathBuf,
    /// The backup, by the number that `backup` has printed [default: the newest].
    #[arg(long, value_name = "BACKUP")]
    pub at: Option<u64>,
    /// Go on if the node has keys: those of the backup are written over, others stay.
    #[arg(long)]
    pub overwrite: bool,
    /// Write nothing, but compare the node with the backup.
    #[arg(long, conflicts_with = "overwrite")]
    pub verify: bool,
}

/// What a file of entries is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FileFormat {
    /// Lines of JSON, one entry each.
    Json,
    /// Records with lengths and checksums.
    Binary,
}

/// For how long a written key lives.
#[derive(Debug, Clone, Args)]
pub struct TtlOption {
    /// The key is absent again after this time, such as 500ms, 10s, 5m, 2h or 1d.
    #[arg(long = "ttl", value_name = "TIME", value_parser = parse_ttl)]
    pub ttl_ms: Option<u64>,
}

/// The conditions of a write; one at most.
#[derive(Debug, Clone, Default, Args)]
#[group(multiple = false)]
pub struct ConditionArguments {
    /// Only if the key does not exist.
    #[arg(long)]
    pub if_absent: bool,
    /// Only if the key exists.
    #[arg(long)]
    pub if_present: bool,
    /// Only if the key is at this version, as `put` and `get --json` print it.
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u64).range(1..))]
    pub if_version: Option<u64>,
    /// Only if the key has exactly this value.
    #[arg(long, value_name = "VALUE")]
    pub if_value: Option<OsString>,
}

/// A key, already unescaped, of 1 to [`KEY_BYTES_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(pub Vec<u8>);

/// What stands in the words that are no keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// The bytes themselves, as another shell passed them.
    Exact,
    /// Bytes in escaped form.
    Escaped,
}

impl Spelling {
    /// The bytes that a word stands for.
    pub(super) fn bytes(self, word: &OsStr) -> Result<Vec<u8>, Failure> {
        match self {
            Spelling::Exact => Ok(word.as_bytes().to_vec()),
            Spelling::Escaped => unescape(word.as_bytes()).map_err(|error| Failure::Usage(error.to_string())),
        }
    }

    /// The name of a file that a word stands for.
    pub(super) fn path(self, word: &Path) -> Result<PathBuf, Failure> {
        self.bytes(word.as_os_str())
            .map(|bytes| OsString::from_vec(bytes).into())
    }
}

impl ConditionArguments {
    /// The expected value's bytes, for [`ConditionArguments::condition`], which borrows them.
    pub(super) fn expected_value(&self, spelling: Spelling) -> Result<Option<Vec<u8>>, Failure> {
        self.if_value
            .as_ref()
            .map(|word| spelling.bytes(word))
            .transpose()
    }

    /// The condition of the protocol.
    pub(super) fn condition<'a>(&self, expected_value: Option<&'a [u8]>) -> Condition<'a> {
        match (self, expected_value) {
            (_, Some(value)) => Condition::Value(value),
            (ConditionArguments { if_absent: true, .. }, _) => Condition::Absent,
            (ConditionArguments { if_present: true, .. }, _) => Condition::Present,
            (
                ConditionArguments {
                    if_version: Some(version),
                    ..
                },
                _,
            ) => Condition::Version(*version),
            _ => Condition::None,
        }
    }
}

impl TtlOption {
    /// As the protocol has it: 0 for a key that stays.
    pub(super) fn as_ms(&self) -> u64 {
        self.ttl_ms.unwrap_or(0)
    }
}

impl RangeArguments {
    /// A scan of this range.
    pub(super) fn scan_options(&self, start: Option<&Key>) -> ScanOptions {
        let bytes = |key: Option<&Key>| key.map(|key| key.0.clone());
        ScanOptions {
            start: bytes(start).unwrap_or_default(),
            end: bytes(self.end.as_ref()),
            prefix: bytes(self.prefix.as_ref()).unwrap_or_default(),
            ..ScanOptions::default()
        }
    }
}

/// Reads a [`Key`] out of an argument that need not be UTF-8.
#[derive(Clone)]
pub(super) struct KeyParser;

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

/// Reads an escaped key.
pub(super) fn parse_key(escaped: &[u8]) -> Result<Key, String> {
    let key = unescape(escaped).map_err(|error| error.to_string())?;
    match key.len() {
        0 => Err("a key has at least one byte".to_owned()),
        length if length > KEY_BYTES_MAX => Err(format!(
            "the key has {length} bytes, and {KEY_BYTES_MAX} is the most"
        )),
        _ => Ok(Key(key)),
    }
}

/// Reads a time to live into milliseconds.
fn parse_ttl(text: &str) -> Result<u64, String> {
    match parse_time(text)? {
        Some(0) => Err("a time to live is more than nothing".to_owned()),
        Some(ttl_ms) if ttl_ms <= TTL_MS_MAX => Ok(ttl_ms),
        _ => Err("ten years (3650d) is the longest time to live".to_owned()),
    }
}

/// Reads how long a request may take into milliseconds.
fn parse_timeout(text: &str) -> Result<u64, String> {
    match parse_time(text)? {
        Some(0) => Err("a request takes more than no time".to_owned()),
        Some(timeout_ms) if timeout_ms <= TIMEOUT_MS_MAX => Ok(timeout_ms),
        _ => Err("a day (1d) is the longest time-out".to_owned()),
    }
}

/// Reads a time into milliseconds; `None` if there is no such number.
fn parse_time(text: &str) -> Result<Option<u64>, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60 * 1_000,
        "h" => 60 * 60 * 1_000,
        "d" => 24 * 60 * 60 * 1_000,
        _ => 0,
    };
    if unit_ms == 0 || digits == 0 {
        return Err("write a number with a unit: ms, s, m, h or d, such as 10s".to_owned());
    }
    let number: Option<u64> = number.parse().ok();
    Ok(number.and_then(|number| number.checked_mul(unit_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_has_a_unit_and_an_end() {
        for (text, ttl_ms) in [
            ("1ms", 1),
            ("10s", 10_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("3650d", TTL_MS_MAX),
        ] {
            assert_eq!(parse_ttl(text), Ok(ttl_ms), "{text}");
        }
        for (text, words) in [
            ("10", "unit"),
            ("s", "unit"),
            ("-1s", "unit"),
            ("1.5s", "unit"),
            ("10 s", "unit"),
            ("0s", "more than nothing"),
            ("3651d", "longest"),
            ("99999999999999999999s", "longest"),
            ("18446744073709551615d", "longest"),
        ] {
            let refusal = parse_ttl(text).unwrap_err();
            assert!(refusal.contains(words), "{text}: {refusal}");
        }
    }

    #[test]
    fn a_time_out_is_more_than_nothing_and_at_most_a_day() {
        assert_eq!(parse_timeout("250ms"), Ok(250));
        assert_eq!(parse_timeout("24h"), Ok(TIMEOUT_MS_MAX));
        for (text, words) in [("5", "unit"), ("0ms", "more than no time"), ("25h", "longest")] {
            let refusal = parse_timeout(text).unwrap_err();
            assert!(refusal.contains(words), "{text}: {refusal}");
        }
    }

    #[test]
    fn conditions_become_those_of_the_protocol() {
        let none = ConditionArguments::default;
        let cases = [
            (none(), Condition::None),
            (
                ConditionArguments {
                    if_absent: true,
                    ..none()
                },
                Condition::Absent,
            ),
            (
                ConditionArguments {
                    if_present: true,
                    ..none()
                },
                Condition::Present,
            ),
            (
                ConditionArguments {
                    if_version: Some(7),
                    ..none()
                },
                Condition::Version(7),
            ),
        ];
        for (arguments, condition) in cases {
            assert_eq!(arguments.condition(None), condition);
        }
        let value = ConditionArguments {
            if_value: Some(OsString::from(r"a\x00")),
            ..none()
        };
        let exact = value.expected_value(Spelling::Exact).unwrap();
        assert_eq!(value.condition(exact.as_deref()), Condition::Value(br"a\x00"));
        let escaped = value.expected_value(Spelling::Escaped).unwrap();
        assert_eq!(value.condition(escaped.as_deref()), Condition::Value(b"a\0"));
    }
}
