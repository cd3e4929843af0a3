//! The engine of Ostrakon: a node of the database as a library.
//!
//! Programs use [`Engine`]. Layers, each of which uses only those below it: `process` (command line, preflight,
//! signals), `server`, `cluster`, `shard`, `storage` and `log`, `env`, and the crate `ostrakon-core`.

pub mod process;
pub use process::embedded::{
    self, Action, Applied, Batch, BatchOperation, Codec, CompactionOptions, CompactionStrategy, Condition,
    CoreEngine, Engine, EngineError, EngineOptions, ScanOptions, StoreOptions, TableOptions,
};

pub mod server;

pub mod cluster;

pub mod shard;

pub mod log;
pub mod storage;

pub mod env;

pub mod limits;
