//! The engine of Ostrakon: a node of the database as a library.
//!
//! Layers, each of which uses only those below it: `process` (command line, preflight, signals), `server`,
//! `cluster`, `shard`, `storage` and `log`, `env`, and the crate `ostrakon-core`.

pub mod process;

pub mod server;

pub mod cluster;

pub mod shard;

pub mod log;
pub mod storage;

pub mod env;

pub mod limits;
