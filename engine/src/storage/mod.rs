//! What a shard keeps of its data: the versions of its keys, ordered and addressable by hash.
//!
//! Everything here belongs to one core and is called synchronously by it. Nothing here waits, reads a clock or
//! names the machine; where data must reach a disk that is done through `env` by the caller.

pub mod manifest;
pub mod memtable;
pub mod sstable;
