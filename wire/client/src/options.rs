//! What a user chooses: how to connect, under what condition to write, and what to scan.

use ostrakon_wire::ClusterId;
use ostrakon_wire::message::Condition;

/// How to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long connecting may take, the hello included, in milliseconds; 0: as long as it takes.
    pub connect_timeout_ms: u64,
    /// How long a request may take, repetitions included, in milliseconds; 0: as long as it takes.
    pub request_timeout_ms: u64,
    /// The cluster that must answer; [`ClusterId::ANY`] by default.
    pub cluster_id: ClusterId,
    /// The core that shall own the one connection. `None`: a client keeps a connection to each core that it needs, and
    /// sends each key to its owner ([`crate::Protocol`], which is one connection: any core will do).
    pub core: Option<u16>,
    /// Send again what may have been lost, and what the server refused for the moment, until the time of the request is
    /// up. Writes then carry a name by which the server recognises them, so that they happen once. `false`: nothing is
    /// sent twice, and the caller hears of each refusal and of each lost connection.
    pub retry: bool,
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
            retry: true,
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

/// The addresses in a list between commas.
pub(crate) fn addresses(list: &str) -> Vec<String> {
    list.split(',').map(|address| address.trim().to_owned()).collect()
}
