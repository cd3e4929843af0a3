//! What `ostrakon serve` runs with: settings from flags, environment variables and a file, all validated here.
//!
//! A setting comes from its flag, else from its variable, else from the file, else it has its default. Whatever the
//! source, the same function reads its text, so the same sentence refuses it; only the place that it names differs.
//! Reading order: [`settings`] (the table), `values` (what texts mean), `file`, `print`.

pub mod settings;

mod file;
mod print;
mod values;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use self::file::FileValue;
use self::settings::Setting;
use super::logging::DEFAULT_FILTER;
use super::node::NodeOptions;
use super::preflight::Intent;
use crate::limits::{HELLO_TIMEOUT_MS, SCRUB_BYTES_PER_SECOND_DEFAULT};
use crate::server::connection_limits::CONNECTIONS_DEFAULT;
use crate::storage::store::files::StoreOptions;

pub use self::print::Effective;

/// Where a node keeps its data unless told otherwise.
pub const DEFAULT_DATA: &str = "./ostrakon-data";
/// Where a node listens, and a client connects, unless told otherwise.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:5750";
/// Where a node tells its metrics and health unless told otherwise.
pub const DEFAULT_HTTP_ADDRESS: &str = "127.0.0.1:5752";
/// Names the configuration file when no flag does.
pub const FILE_VARIABLE: &str = "OSTRAKON_CONFIG";
/// Names the log filter when neither flag nor `OSTRAKON_LOG` does.
const LOG_VARIABLE: &str = "RUST_LOG";

/// Values of flags, by the names of their settings.
pub type Flags = BTreeMap<&'static str, OsString>;

/// Where a setting's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Flag,
    Variable(String),
    File { path: PathBuf, line: usize },
}

impl Origin {
    /// The place, for a sentence about a setting's value.
    fn place(&self, name: &str) -> String {
        match self {
            Origin::Flag => format!("--{name}"),
            Origin::Variable(variable) => variable.clone(),
            Origin::File { path, line } => format!("{name} in {}, line {line}", path.display()),
        }
    }
}

/// Every setting of a node. `None` takes the default of the node, or what the data directory has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// `data`.
    pub data: PathBuf,
    /// `listen`.
    pub listen: SocketAddr,
    /// `http`; `None` is off.
    pub http: Option<SocketAddr>,
    /// `insecure`.
    pub insecure: bool,
    /// `cores`.
    pub cores: Option<u16>,
    /// `cpus`.
    pub cpus: Option<Vec<usize>>,
    /// `shards`.
    pub shards: Option<u32>,
    /// `memory`.
    pub memory_bytes: Option<u64>,
    /// `segment-size`.
    pub segment_bytes: Option<u64>,
    /// `compaction`, `compression` and `last-compression`.
    pub store: StoreOptions,
    /// `max-connections`.
    pub connections_max: Option<u32>,
    /// `max-connections-per-address`.
    pub connections_per_address_max: Option<u32>,
    /// `hello-timeout`.
    pub hello_timeout_ms: u64,
    /// `idle-timeout`; zero is off.
    pub idle_timeout_ms: u64,
    /// `scrub-rate`, in bytes; zero is off.
    pub scrub_bytes_per_second: u64,
    /// `spin`.
    pub spin: bool,
    /// `cut-corrupt-log`.
    pub cut_corrupt_log: bool,
    /// `log`.
    pub log: String,
    /// Where the values come from that are no defaults.
    origins: BTreeMap<&'static str, Origin>,
}

impl Configuration {
    /// Reads all sources. `file` is the one that a flag names; `variable` looks a variable up.
    ///
    /// # Errors
    /// A sentence that names the place: a value that means nothing, a file that can't be read, settings that contradict
    /// each other.
    pub fn read(
        flags: Flags,
        file: Option<PathBuf>,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Configuration, String> {
        let mut sources = Sources::open(flags, file, variable)?;
        let configuration = Configuration {
            data: sources
                .take("data", values::directory)?
                .unwrap_or_else(|| DEFAULT_DATA.into()),
            listen: sources
                .text("listen", values::address)?
                .unwrap_or_else(default_listen),
            http: sources
                .text("http", values::optional_address)?
                .unwrap_or_else(|| Some(default_http())),
            insecure: sources.text("insecure", values::switch)?.unwrap_or(false),
            cores: sources.text("cores", values::cores)?,
            cpus: sources.text("cpus", values::cpus)?,
            shards: sources.text("shards", values::shards)?,
            memory_bytes: sources.text("memory", values::size)?,
            segment_bytes: sources.text("segment-size", values::size)?,
            store: store_options(&mut sources)?,
            connections_max: sources.text("max-connections", values::connections)?,
            connections_per_address_max: sources.text("max-connections-per-address", values::connections)?,
            hello_timeout_ms: sources
                .text("hello-timeout", values::hello_timeout)?
                .unwrap_or(HELLO_TIMEOUT_MS),
            idle_timeout_ms: sources.text("idle-timeout", values::idle_timeout)?.unwrap_or(0),
            scrub_bytes_per_second: sources
                .text("scrub-rate", values::rate)?
                .unwrap_or(SCRUB_BYTES_PER_SECOND_DEFAULT),
            spin: sources.text("spin", values::switch)?.unwrap_or(false),
            cut_corrupt_log: sources.text("cut-corrupt-log", values::switch)?.unwrap_or(false),
            log: sources
                .text("log", values::log_filter)?
                .unwrap_or_else(|| DEFAULT_FILTER.to_owned()),
            origins: sources.origins,
        };
        configuration.check()?;
        Ok(configuration)
    }

    /// Rules between settings.
    fn check(&self) -> Result<(), String> {
        self.check_open_address("listen", self.listen, DEFAULT_ADDRESS)?;
        if let Some(http) = self.http {
            self.check_open_address("http", http, DEFAULT_HTTP_ADDRESS)?;
        }
        let all = self.connections_max.unwrap_or(CONNECTIONS_DEFAULT);
        match self.connections_per_address_max {
            Some(per_address) if per_address > all => Err(format!(
                "{} is {per_address}, which is more than the {all} connections that the node takes in all: lower it, \
                 or raise --max-connections",
                self.place("max-connections-per-address"),
            )),
            _ => Ok(()),
        }
    }

    /// Only loopback, unless the user takes the risk.
    fn check_open_address(&self, name: &str, address: SocketAddr, instead: &str) -> Result<(), String> {
        if self.insecure || address.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        let harm = if name == "http" {
            "everybody who can reach that address may read how the node is used"
        } else {
            "everybody who can reach that address may read and write all data"
        };
        Err(format!(
            "refusing to listen on {address} ({}): connections are neither encrypted nor authenticated; listen on \
             {instead}, or add --insecure if {harm}",
            self.place(name),
        ))
    }

    fn place(&self, name: &str) -> String {
        self.origins
            .get(name)
            .map_or_else(|| format!("--{name}"), |origin| origin.place(name))
    }

    /// What the machine is checked for.
    pub fn intent(&self) -> Intent {
        Intent {
            data_directory: self.data.clone(),
            cores: self.cores,
            cpus: self.cpus.clone(),
            memory_bytes: self.memory_bytes,
            connections_max: self.connections_max,
        }
    }

    /// What a node is started with.
    pub fn node_options(&self) -> NodeOptions {
        NodeOptions {
            store: self.store,
            data_dir: self.data.clone(),
            listen: self.listen,
            http: self.http,
            cores: self.cores,
            shards: self.shards,
            memory_bytes: self.memory_bytes,
            cpus: self.cpus.clone(),
            spin: self.spin,
            segment_bytes: self.segment_bytes,
            cut_corrupt_log: self.cut_corrupt_log,
            connections_max: self.connections_max,
            connections_per_address_max: self.connections_per_address_max,
            hello_timeout_ms: self.hello_timeout_ms,
            idle_timeout_ms: self.idle_timeout_ms,
            scrub_bytes_per_second: self.scrub_bytes_per_second,
        }
    }
}

/// The defaults, but for what was set.
fn store_options(sources: &mut Sources<'_>) -> Result<StoreOptions, String> {
    let mut options = StoreOptions::default();
    if let Some(strategy) = sources.text("compaction", values::compaction)? {
        options.compaction.strategy = strategy;
    }
    if let Some(codec) = sources.text("compression", values::codec)? {
        options.tables.codec = codec;
    }
    options.last_level_codec = sources.text("last-compression", values::codec)?;
    Ok(options)
}

fn default_listen() -> SocketAddr {
    DEFAULT_ADDRESS.parse().expect("the default is an address")
}

fn default_http() -> SocketAddr {
    DEFAULT_HTTP_ADDRESS.parse().expect("the default is an address")
}

/// The sources of settings, and where the values came from that were taken.
struct Sources<'a> {
    flags: Flags,
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    path: PathBuf,
    file: BTreeMap<&'static str, FileValue>,
    origins: BTreeMap<&'static str, Origin>,
}

impl<'a> Sources<'a> {
    fn open(
        flags: Flags,
        file: Option<PathBuf>,
        variable: &'a dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Sources<'a>, String> {
        let mut sources = Sources {
            flags,
            variable,
            path: PathBuf::new(),
            file: BTreeMap::new(),
            origins: BTreeMap::new(),
        };
        if let Some(path) = file.or_else(|| sources.variable(FILE_VARIABLE).map(PathBuf::from)) {
            sources.file = file::read(&path)?;
            sources.path = path;
        }
        Ok(sources)
    }

    /// An empty variable counts as none: it is what remains of one that a script could not fill.
    fn variable(&self, name: &str) -> Option<OsString> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    fn find(&self, setting: &Setting) -> Option<(OsString, Origin)> {
        if let Some(value) = self.flags.get(setting.name) {
            return Some((value.clone(), Origin::Flag));
        }
        let second = (setting.name == "log").then(|| LOG_VARIABLE.to_owned());
        for variable in std::iter::once(setting.variable()).chain(second) {
            if let Some(value) = self.variable(&variable) {
                return Some((value, Origin::Variable(variable)));
            }
        }
        let FileValue { text, line } = self.file.get(setting.name)?;
        let (path, line) = (self.path.clone(), *line);
        Some((text.into(), Origin::File { path, line }))
    }

    /// The value of a setting, if a source has it.
    fn take<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&OsStr) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        let setting = Setting::named(name).expect("the table has all settings");
        let Some((text, origin)) = self.find(setting) else {
            return Ok(None);
        };
        let value = parse(&text).map_err(|sentence| {
            let (text, place) = (text.display(), origin.place(name));
            format!("invalid value '{text}' for {place}: {sentence}")
        })?;
        self.origins.insert(setting.name, origin);
        Ok(Some(value))
    }

    /// The same for a setting whose values are text.
    fn text<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        self.take(name, |text| parse(values::text(text)?))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag => formatter.write_str("from its flag"),
            Origin::Variable(variable) => write!(formatter, "from the variable {variable}"),
            Origin::File { path, line } => write!(formatter, "from {}, line {line}", path.display()),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
