//! `backup` and `restore`: the content of a node at one moment, in a directory of this machine.
//!
//! A backup is a checkpoint of the node and its tables
//! ([decision 028](../../../../../docs/decisions/028-a-backup-is-a-checkpoint-and-its-tables.md)). Tables never change,
//! so several backups in one directory share those that they have in common. What is in the directory, byte for byte,
//! is in `docs/formats.md`.

mod catalogue;
mod compare;
mod directory;
mod make;
mod offline;
mod read;
mod restore;

pub(super) use make::backup;
pub(super) use restore::restore;
