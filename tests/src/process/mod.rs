//! Real processes for tests: the built `ostrakon` binary, nodes that are started and killed, disks that lose
//! power or fail.
//!
//! What holds for all of it: a wait ends with the event that it waits for (a line, an end of file, the end of
//! a process), never after a guessed time; whatever is started, mounted or attached is undone when its value
//! is dropped, also by a panic; nothing is touched that was not made here.

pub mod binary;
pub mod descriptors;
pub mod disk;
pub mod exposition;
pub mod filtered;
pub mod node;
pub mod terminal;
mod tool;

pub use disk::{FileSystem, PowerDisk};
pub use filtered::FilteredDisk;
pub use node::{CutStart, Ended, Node, NodeCommand, Refusal};
pub use terminal::Terminal;
