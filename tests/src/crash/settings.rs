//! What a crash run does; everything random follows from the seed.

use std::path::PathBuf;
use std::time::Duration;

use crate::process::FileSystem;

/// How the node is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// SIGKILL: the page cache survives.
    Kill,
    /// The file system is shut down without a flush, then SIGKILL.
    Power {
        /// The file system.
        file_system: FileSystem,
        /// Size of its image file, in bytes.
        image_bytes: u64,
    },
}

/// When the node is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// After a time in this range.
    Time(Duration, Duration),
    /// After so many acknowledged writes of this run's own clients in the round.
    Acknowledged(u64, u64),
}

/// A `loadgen` that runs beside the clients.
#[derive(Clone, Debug)]
pub struct Loadgen {
    /// The program.
    pub program: PathBuf,
    /// Records that it loads before the first round.
    pub records: u64,
    /// Bytes of each of its values.
    pub value_bytes: u64,
}

/// One crash run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How the node is stopped.
    pub mode: Mode,
    /// When.
    pub moment: Moment,
    /// How often.
    pub rounds: u32,
    /// Working directory: data, image, registers. Must be new or empty.
    pub directory: PathBuf,
    /// The binary `ostrakon`.
    pub binary: PathBuf,
    /// Cores of the node.
    pub cores: u16,
    /// Shards of the cluster.
    pub shards: u32,
    /// Of everything random.
    pub seed: u64,
    /// Connections that increment counters, and as many that write plain keys.
    pub clients: u16,
    /// Counters and plain keys per connection.
    pub keys_per_client: u32,
    /// Runs beside the clients.
    pub loadgen: Option<Loadgen>,
}
