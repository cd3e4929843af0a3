//! The effective configuration as a configuration file, which says of each value where it came from.

use std::fmt::Write as _;

use toml::Value;

use super::settings::{SETTINGS, Setting, Shape};
use super::{Configuration, values};
use crate::process::cpu_list;
use crate::process::version::VERSION;

/// What the settings that were left out come to on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Cores that are run.
    pub cores: u16,
    /// On these CPUs.
    pub cpus: Vec<usize>,
    /// Memory for data.
    pub memory_bytes: u64,
    /// Connections of the node.
    pub connections_max: u32,
    /// Connections from one address.
    pub connections_per_address_max: u32,
}

impl Configuration {
    /// The configuration as a file that says the same. What depends on the data directory, which is not opened, stands
    /// in it as a comment.
    ///
    /// # Errors
    /// A sentence when the data directory's name can't be written in TOML.
    pub fn to_toml(&self, effective: &Effective) -> Result<String, String> {
        let mut text = format!(
            "# What ostrakon {VERSION} runs with. A flag goes before a variable, a variable before the file, the file \
             before the default.\n"
        );
        for setting in &SETTINGS {
            let comment = self.comment(setting, effective);
            // Writing into a string never fails.
            let _ = match self.value(setting, effective)? {
                Some(value) => writeln!(text, "{} = {value} # {comment}", setting.name),
                None => writeln!(text, "# {} = {} # {comment}", setting.name, setting.example),
            };
        }
        Ok(text)
    }

    fn comment(&self, setting: &Setting, effective: &Effective) -> String {
        if let Some(origin) = self.origins.get(setting.name) {
            return match (setting.name, self.connections_per_address_max) {
                ("max-connections-per-address", Some(asked))
                    if asked > effective.connections_per_address_max =>
                {
                    format!("{origin}: {asked}, lowered to what the limit of open files allows")
                }
                _ => origin.to_string(),
            };
        }
        let of_the_default = match setting.name {
            "cores" => ": one per allowed CPU",
            "cpus" => ": all allowed ones",
            "shards" => ": what the data directory has; in a new one 4 per core, rounded up, at least 8",
            "memory" => ": 60 % of what is available now",
            "segment-size" => ": what the data directory has; 64MiB in a new one",
            "last-compression" => ": as compression",
            "max-connections" => ": 20000, or what the limit of open files allows",
            "max-connections-per-address" => ": half of max-connections",
            _ => "",
        };
        format!("default{of_the_default}")
    }

    /// The value in TOML; `None` if it is not known before the data directory is opened.
    fn value(&self, setting: &Setting, effective: &Effective) -> Result<Option<String>, String> {
        let text = match setting.name {
            "data" => match self.data.to_str() {
                Some(data) => data.to_owned(),
                None => {
                    return Err(format!(
                        "the name of the data directory {} is not UTF-8, which a configuration file can't hold; name \
                         it with --data, or rename it",
                        self.data.display()
                    ));
                }
            },
            "listen" => self.listen.to_string(),
            "http" => self
                .http
                .map_or_else(|| "off".to_owned(), |address| address.to_string()),
            "insecure" => self.insecure.to_string(),
            "cores" => effective.cores.to_string(),
            "cpus" => cpu_list::format(&effective.cpus),
            "shards" => match self.shards {
                Some(shards) => shards.to_string(),
                None => return Ok(None),
            },
            "memory" => values::format_size(effective.memory_bytes),
            "segment-size" => match self.segment_bytes {
                Some(segment_bytes) => values::format_size(segment_bytes),
                None => return Ok(None),
            },
            "compaction" => values::format_compaction(self.store.compaction.strategy).to_owned(),
            "compression" => values::format_codec(self.store.tables.codec).to_owned(),
            "last-compression" => {
                values::format_codec(self.store.last_level_codec.unwrap_or(self.store.tables.codec))
                    .to_owned()
            }
            "max-connections" => effective.connections_max.to_string(),
            "max-connections-per-address" => effective.connections_per_address_max.to_string(),
            "hello-timeout" => values::format_time(self.hello_timeout_ms),
            "idle-timeout" if self.idle_timeout_ms == 0 => "off".to_owned(),
            "idle-timeout" => values::format_time(self.idle_timeout_ms),
            "scrub-rate" if self.scrub_bytes_per_second == 0 => "off".to_owned(),
            "scrub-rate" => values::format_size(self.scrub_bytes_per_second),
            "spin" => self.spin.to_string(),
            "cut-corrupt-log" => self.cut_corrupt_log.to_string(),
            "log" => self.log.clone(),
            other => unreachable!("the table has no setting '{other}'"),
        };
        Ok(Some(match setting.shape {
            Shape::Text => Value::String(text).to_string(),
            Shape::Number | Shape::Switch => text,
        }))
    }
}
