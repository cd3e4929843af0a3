//! An environment for tests of single modules: a disk in memory, and an executor with a clock of its own.

pub(crate) mod memory_disk;
pub(crate) mod scheduler;
