//! The table of everything that can be set for `ostrakon serve`: names, forms and help.
//!
//! The flag, the variable and the key in the file all come from here, so a setting that is missing in one of the
//! three can't be written.

/// How a setting is written in the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A string.
    Text,
    /// An integer.
    Number,
    /// `true` or `false`; as a flag it may stand alone.
    Switch,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Name of the flag, without dashes before it, and key in the file.
    pub name: &'static str,
    /// What stands for its value in the help.
    pub value_name: &'static str,
    /// Form in the file.
    pub shape: Shape,
    /// A value, in the file's form, for sentences that refuse another.
    pub example: &'static str,
    /// What it is for and what it is by default.
    pub help: &'static str,
}

impl Setting {
    const fn new(
        name: &'static str,
        value_name: &'static str,
        shape: Shape,
        example: &'static str,
        help: &'static str,
    ) -> Setting {
        Setting {
            name,
            value_name,
            shape,
            example,
            help,
        }
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("OSTRAKON_{}", self.name.to_uppercase().replace('-', "_"))
    }

    /// The setting of this name.
    pub fn named(name: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }
}

/// Every setting, in the order of the help and of the printed configuration.
pub const SETTINGS: [Setting; 20] = [
    Setting::new(
        "data",
        "DIR",
        Shape::Text,
        r#""./ostrakon-data""#,
        "Data directory; made if it does not exist [default: ./ostrakon-data]",
    ),
    Setting::new(
        "listen",
        "ADDRESS",
        Shape::Text,
        r#""127.0.0.1:5750""#,
        "Address and port for clients [default: 127.0.0.1:5750]",
    ),
    Setting::new(
        "http",
        "ADDRESS",
        Shape::Text,
        r#""127.0.0.1:5752""#,
        "Address and port for metrics and health over HTTP, or off [default: 127.0.0.1:5752]",
    ),
    Setting::new(
        "insecure",
        "BOOL",
        Shape::Switch,
        "true",
        "Allow addresses other than loopback, although connections are neither encrypted nor authenticated",
    ),
    Setting::new(
        "cores",
        "N",
        Shape::Number,
        "4",
        "Cores to run [default: one per allowed CPU]",
    ),
    Setting::new(
        "cpus",
        "LIST",
        Shape::Text,
        r#""0-3,8""#,
        "CPUs to run on, such as 0-3,8 [default: all allowed ones]",
    ),
    Setting::new(
        "shards",
        "N",
        Shape::Number,
        "64",
        "Shards of a new cluster, a power of two [default: 4 per core, rounded up, at least 8]",
    ),
    Setting::new(
        "memory",
        "SIZE",
        Shape::Text,
        r#""8GiB""#,
        "Memory for data, such as 512MiB or 8GiB [default: 60 % of what is available]",
    ),
    Setting::new(
        "segment-size",
        "SIZE",
        Shape::Text,
        r#""64MiB""#,
        "Size of a log segment in a new data directory. A value can have a quarter of it at most [default: 64MiB]",
    ),
    Setting::new(
        "compaction",
        "HOW",
        Shape::Text,
        r#""leveled""#,
        "How tables are merged: leveled takes little space, tiered few writes. May be changed at any start \
         [default: leveled]",
    ),
    Setting::new(
        "compression",
        "CODEC",
        Shape::Text,
        r#""lz4""#,
        "How new tables are compressed: none, lz4 or zstd [default: lz4]",
    ),
    Setting::new(
        "last-compression",
        "CODEC",
        Shape::Text,
        r#""zstd""#,
        "The same for tables below which there are none, which hold most of the data [default: as --compression]",
    ),
    Setting::new(
        "max-connections",
        "N",
        Shape::Number,
        "20000",
        "Client connections of the node; each core takes its share [default: 20000, or what the limit of open \
         files allows]",
    ),
    Setting::new(
        "max-connections-per-address",
        "N",
        Shape::Number,
        "10000",
        "Client connections from one address [default: half of --max-connections]",
    ),
    Setting::new(
        "hello-timeout",
        "TIME",
        Shape::Text,
        r#""10s""#,
        "Close a connection that has not said hello for so long, such as 5s or 1m [default: 10s]",
    ),
    Setting::new(
        "idle-timeout",
        "TIME",
        Shape::Text,
        r#""10m""#,
        "Close a connection that sends nothing and waits for nothing for so long, such as 90s or 10m [default: off]",
    ),
    Setting::new(
        "scrub-rate",
        "SIZE",
        Shape::Text,
        r#""8MiB""#,
        "Bytes a second that each core reads to look for damage in tables, such as 8MiB, or off [default: 8MiB]",
    ),
    Setting::new(
        "spin",
        "BOOL",
        Shape::Switch,
        "true",
        "Poll instead of sleeping; faster if no other program needs these CPUs",
    ),
    Setting::new(
        "cut-corrupt-log",
        "BOOL",
        Shape::Switch,
        "true",
        "Cut a corrupt log at its first damage and lose all behind it, instead of refusing to start",
    ),
    Setting::new(
        "log",
        "FILTER",
        Shape::Text,
        r#""info""#,
        "What to log on stderr, such as debug or warn,ostrakon::log=trace [default: RUST_LOG, else info]",
    ),
];
