//! Tables: immutable files of versions, ordered by key, and within a key from the newest to the oldest.
//!
//! 1. [`block`]: entries in order, found by binary search;
//! 2. [`filter`]: which keys are surely not in a table;
//! 3. [`mod@format`]: how blocks are stored, and the end of the file;
//! 4. [`builder`] and [`writer`]: make a table of versions that come in order;
//! 5. [`reader`], [`cursor`] and [`cache`]: find versions in a table, and walk it;
//! 6. [`merge`]: walks several at once, and leaves out what nobody can read any more.
//!
//! ```text
//! file = data block and index block ... | filter | root | properties | range tombstones | zeros | footer
//! ```
//!
//! Data blocks hold the versions. An index block has an entry for each data block before it: the last key and timestamp
//! of that block, and where it lies. The root has an entry for each index block. Filter, root, properties and
//! range tombstones are read when a table is opened, the rest when it is asked for. A table may have range tombstones
//! only.

pub mod block;
pub mod builder;
pub mod cache;
pub mod cursor;
pub mod filter;
pub mod format;
pub mod merge;
pub mod reader;
pub mod writer;

#[cfg(test)]
mod tests;
