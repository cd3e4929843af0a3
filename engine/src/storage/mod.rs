//! What a shard keeps of its data: the versions of its keys, in memory and in files.
//!
//! 1. [`memtable`]: the newest versions, in memory;
//! 2. [`ranges`]: range tombstones, of a memtable or of a table;
//! 3. [`sstable`]: immutable tables of versions;
//! 4. [`manifest`]: which tables a shard has;
//! 5. [`store`]: all of that together for one shard, how memtables become tables, and how tables are merged;
//! 6. [`verify`]: whether what is stored is whole.
//!
//! Everything here belongs to one core. Looks never wait: what is not in memory is read by futures that own what they
//! read, so that writes go on meanwhile. Nothing here reads a clock or names the machine but through `env`.

pub mod manifest;
pub mod memtable;
pub mod ranges;
pub mod sstable;
pub mod store;
pub mod verify;
