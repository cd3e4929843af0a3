//! What a user chooses: how to connect, under what condition to write, and what to scan.

use ostrakon_wire::ClusterId;
use ostrakon_wire::message::Condition;

/// How to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long connecting may take, the hello included, in milliseconds; 0: as long as it takes.
    pub connect_timeout_ms: u64,
    /// How long to wait for one answer, in milliseconds; 0: as long as it takes.
    pub request_timeout_ms: u64,
    /// The cluster that must answer; [`ClusterId::ANY`] by default.
    pub cluster_id: ClusterId,
    /// The core that shall own the connection, for clients that send a core the keys of its shards; `None`:
    /// any.
    pub core: Option<u16>,
    /// Name and version to show in the server's logs, at most 128 bytes.
    pub client: String,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            connect_timeout_ms: 5_000,
            request_timeout_ms: 30_000,
            cluster_id: ClusterId::ANY,
            core: None,
            client: concat!("ostrakon-client/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// How a key is put. The default is always, and to stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PutOptions<'a> {
    /// What must hold for it.
    pub condition: Condition<'a>,
    /// Milliseconds after which the key is absent again; 0: it stays.
    pub ttl_ms: u64,
}

/// What to scan, and in what pages. The default is everything.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ScanOptions {
    /// First key, inclusive. Empty: from the first key there is.
    pub start: Vec<u8>,
    /// Last key, exclusive. `None`: to the last key there is.
    pub end: Option<Vec<u8>>,
    /// Only keys that begin with this; empty: all.
    pub prefix: Vec<u8>,
    /// From the last key to the first.
    pub reverse: bool,
    /// Most entries in all; 0: as many as there are.
    pub limit: u64,
    /// Most entries per page; 0: the server's default.
    pub page_limit: u32,
    /// Leave the values out.
    pub keys_only: bool,
}

impl ScanOptions {
    /// From `start` up to, but not including, `end`.
    pub fn range(start: &[u8], end: &[u8]) -> ScanOptions {
        ScanOptions {
            start: start.to_vec(),
            end: Some(end.to_vec()),
            ..ScanOptions::default()
        }
    }

    /// All keys that start with `prefix`.
    pub fn prefix(prefix: &[u8]) -> ScanOptions {
        ScanOptions {
            prefix: prefix.to_vec(),
            ..ScanOptions::default()
        }
    }
}
